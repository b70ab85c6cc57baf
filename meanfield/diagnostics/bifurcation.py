"""Thresholds along one parameter: where a margin of stability changes sign.

The margin is any continuous function of the parameter: the leading real part of a
linearisation (dense, or by Arnoldi without the matrix), a numerical or pseudospectral
abscissa, gamma - Lambda ||W||. Below 0 is stable. Crossings are bracketed and closed in
by Brent's method (Brent, "Algorithms for minimization without derivatives", ch. 4).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar

from meanfield._checks import finite_array, finite_float, positive_int
from meanfield.errors import ConfigError, NumericalError

Array = NDArray[np.float64]
Margin = Callable[[float], float]


@dataclass(frozen=True)
class Threshold:
    """A parameter at which a margin changes sign.

    Parameters
    ----------
    parameter
        Where.
    uncertainty
        Width of the bracket around it.
    margin
        The margin there: of the size of round-off, unless the margin jumps.
    direction
        +1 if the margin rises with the parameter (stability is lost), -1 if it falls, 0 if it
        touches 0 and turns back.
    n_evaluations
        Margins computed.
    """

    parameter: float
    uncertainty: float
    margin: float
    direction: int
    n_evaluations: int


@dataclass(frozen=True, eq=False)
class Scan:
    """A margin over a range of the parameter.

    Parameters
    ----------
    parameters, margins
        What was computed, increasing in the parameter, (K,).
    thresholds
        Every sign change found, increasing.
    """

    parameters: Array
    margins: Array
    thresholds: tuple[Threshold, ...]


class _Counted:
    """The margin with its evaluations kept; refuses what is not a finite number."""

    def __init__(self, margin: Margin) -> None:
        self._margin = margin
        self.found: dict[float, float] = {}

    def __call__(self, parameter: float) -> float:
        parameter = float(parameter)
        if parameter not in self.found:
            value = float(self._margin(parameter))
            if not math.isfinite(value):
                raise NumericalError(f"the margin is {value} at the parameter {parameter:.6g}")
            self.found[parameter] = value
        return self.found[parameter]


def find_threshold(margin: Margin, low: float, high: float, *, tol: float = 1e-9) -> Threshold:
    """Parameter in [low, high] at which the margin changes sign.

    Parameters
    ----------
    margin
        Continuous function of the parameter; opposite signs at the ends.
    low, high
        Bracket, low < high.
    tol
        Width to which the bracket is closed.

    Raises
    ------
    ConfigError
        If the margin has one sign at both ends.
    NumericalError
        If a margin is not finite.
    """
    low, high, tol = _range(low, high, tol)
    counted = _Counted(margin)
    below, above = counted(low), counted(high)
    if below * above > 0.0:
        raise ConfigError(
            f"the margin does not change sign between {low:.6g} and {high:.6g}: {below:.3g} and {above:.3g}"
        )
    return _close_in(counted, low, high, tol)


def scan(margin: Margin, low: float, high: float, *, n_points: int = 33, tol: float = 1e-9) -> Scan:
    """All sign changes of a margin on [low, high], as far as a refined grid shows them.

    Where the margin comes near 0 and turns between two points, its extremum is sought, so that two crossings
    inside one interval of the grid are found; narrower excursions than the grid shows remain unseen.

    Parameters
    ----------
    margin, low, high, tol
        As for `find_threshold`; the signs at the ends do not matter.
    n_points
        Points of the first grid, at least 3.

    Raises
    ------
    NumericalError
        If a margin is not finite.
    """
    low, high, tol = _range(low, high, tol)
    if positive_int("n_points", n_points) < 3:
        raise ConfigError(f"n_points must be >= 3, got {n_points}")
    counted = _Counted(margin)
    values = [counted(x) for x in np.linspace(low, high, n_points)]
    grid, size = sorted(counted.found), max(abs(v) for v in values)
    for left, middle, right in zip(grid[:-2], grid[1:-1], grid[2:], strict=True):
        _look_for_extremum(counted, left, middle, right, tol)
    found: list[Threshold] = []
    points = sorted(counted.found.items())
    for (a, at_a), (b, at_b) in itertools.pairwise(points):
        if at_a * at_b < 0.0:
            found.append(_close_in(counted, a, b, tol))
    # A zero on a point: a crossing or a touch, by the signs around it.
    for i, (x, value) in enumerate(points):
        if abs(value) <= 1e-13 * size and all(abs(x - f.parameter) > tol for f in found):
            before = points[i - 1][1] if i else 0.0
            after = points[i + 1][1] if i + 1 < len(points) else 0.0
            direction = int(np.sign(after) - np.sign(before)) // (1 if 0.0 in (before, after) else 2)
            found.append(Threshold(x, tol, value, direction, 1))
    points = sorted(counted.found.items())
    table = np.array(points)
    return Scan(table[:, 0].copy(), table[:, 1].copy(), tuple(sorted(found, key=lambda f: f.parameter)))


def threshold_curve(
    margin: Callable[[float, float], float], parameters: Any, low: float, high: float, *, tol: float = 1e-9
) -> Array:
    """Threshold in a second parameter for each value of the first: the edge of the stable region of a plane.

    Parameters
    ----------
    margin
        margin(p, q).
    parameters
        Values of p, (K,).
    low, high
        Range of q.
    tol
        Width to which each bracket is closed.

    Returns
    -------
    (K,) values of q; NaN where the margin has one sign at both ends.
    """
    low, high, tol = _range(low, high, tol)
    first = finite_array("parameters", parameters, shape=(None,))
    edge = np.full(len(first), np.nan)
    for i, p in enumerate(first.tolist()):
        counted = _Counted(partial(margin, p))
        if counted(low) * counted(high) <= 0.0:
            edge[i] = _close_in(counted, low, high, tol).parameter
    return edge


def _range(low: float, high: float, tol: float) -> tuple[float, float, float]:
    low, high = finite_float("low", low), finite_float("high", high)
    if not low < high:
        raise ConfigError(f"low must be below high, got {low!r} and {high!r}")
    return low, high, finite_float("tol", tol, above=0.0)


def _close_in(counted: _Counted, low: float, high: float, tol: float) -> Threshold:
    before, below, above = len(counted.found), counted(low), counted(high)
    root = next((x for x in (low, high) if counted(x) == 0.0), None)
    if root is None:
        root = float(brentq(counted, low, high, xtol=tol, rtol=4.0 * np.finfo(np.float64).eps))
    direction = int(np.sign(above - below))
    return Threshold(root, tol, counted(root), direction, max(len(counted.found) - before, 0) + 2)


def _look_for_extremum(counted: _Counted, left: float, middle: float, right: float, tol: float) -> None:
    """Evaluate the extremum between three points of one sign whose middle is the nearest to 0."""
    a, b, c = counted(left), counted(middle), counted(right)
    sign = np.sign(b)
    if sign == 0.0 or not (a * b > 0.0 and b * c > 0.0 and abs(b) <= min(abs(a), abs(c))):
        return
    found = minimize_scalar(
        lambda x: sign * counted(float(x)), bounds=(left, right), method="bounded", options={"xatol": tol}
    )
    counted(float(found.x))
