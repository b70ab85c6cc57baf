"""Integrals over time of fields that may be rough: to a tolerance, or an error that says how far it came.

    F(x) = int_{t0}^{t1} f(s, x) ds

by adaptive Gauss-Kronrod rules for all points at once. Jumps and integrable singularities are bisected towards; where
they stand at known times, `breakpoints` puts ends of the rules there, which no rule evaluates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad_vec

from meanfield.errors import NumericalError

Array = NDArray[np.float64]

# Intervals before the quadrature gives up.
_MOST_INTERVALS = 20_000
# Points of a rule of one point an interval before adaptive rules take over.
_ROUGH_POINTS = 2048
_GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)


class Pieces(NamedTuple):
    """Integral over [t0, t1], the estimate of its error, and the ends and integrals of its intervals."""

    value: Array
    error: float
    ends: Array
    parts: Array


def integrate_in_time(
    function: Callable[[float], Array],
    t0: float,
    t1: float,
    *,
    atol: float,
    rtol: float = 0.0,
    points: Sequence[float] | Array = (),
    what: str = "the time integral",
    limit: int = _MOST_INTERVALS,
) -> Pieces:
    """Integrate an array-valued function of time, maximum norm of the error <= max(atol, rtol |integral|).

    Parameters
    ----------
    function
        Time to array; not evaluated at t0, t1 or the points.
    t0, t1
        Ends, t0 < t1.
    atol, rtol
        Tolerances.
    points
        Times that become ends of intervals; those outside (t0, t1) are ignored.
    what
        Name of the integral for messages.
    limit
        Intervals at most, beside those between the points.

    Returns
    -------
    Pieces
        Intervals sorted in time.

    Raises
    ------
    NumericalError
        If the tolerance is not met, with the error that is left.
    """
    inside = [float(p) for p in points if t0 < p < t1]
    found: Any = quad_vec(
        function, t0, t1, epsabs=atol, epsrel=rtol, norm="max", quadrature="gk15",
        points=inside or None, limit=limit + len(inside), full_output=True,
    )  # fmt: skip
    value, error, info = found
    # On the level of round-off the rules say so, and no more can be had.
    if not info.success and not (info.status == 2 and error <= 1e-12 * max(1.0, float(np.abs(value).max()))):
        wanted = max(atol, rtol * float(np.abs(value).max()))
        raise NumericalError(
            f"{what} over [{t0:g}, {t1:g}] is known to {error:.3g} only, not to the tolerance {wanted:.3g}, after "
            f"{info.neval} evaluations; name the times where the field is not smooth as breakpoints, give it a method "
            "integral(t0, t1, x), or raise the tolerance"
        )
    order = np.argsort(info.intervals[:, 0])
    ends = np.append(info.intervals[order, 0], t1)
    return Pieces(np.asarray(value), float(error), ends, np.asarray(info.integrals)[order])


def integrate_roughly(function: Callable[[float], Array], grid: Array, *, rtol: float, what: str) -> Pieces:
    """Integrate a positive array-valued function to a relative error of about rtol, whatever its oscillations.

    One point in each interval, twice as many intervals until two sums agree to half the tolerance; where none of up to
    2048, or four for each interval given, does, as near a singularity, adaptive rules.

    Parameters
    ----------
    grid
        Increasing times that become ends of intervals, from t0 to t1.
    """
    coarse = _one_point(function, grid)
    ends, doublings = grid, max(2, int(np.log2(_ROUGH_POINTS / len(grid))))
    for _ in range(doublings):
        ends = np.sort(np.concatenate([ends, 0.5 * (ends[1:] + ends[:-1])]))
        fine = _one_point(function, ends)
        change = np.abs(fine.sum(axis=0) - coarse.sum(axis=0)).max()
        if change <= 0.5 * rtol * np.abs(fine.sum(axis=0)).max():
            return Pieces(fine.sum(axis=0), float(change), ends, fine)
        coarse = fine
    return integrate_in_time(function, float(grid[0]), float(grid[-1]), atol=1e-12, rtol=rtol, points=grid, what=what)


def _one_point(function: Callable[[float], Array], ends: Array) -> Array:
    """Lengths of intervals times values at one point in each, at places without a pattern.

    Middles would see only one phase of an oscillation that fits the intervals.
    """
    places = (np.arange(1, len(ends)) * _GOLDEN) % 1.0
    values = np.array([function(t) for t in (ends[:-1] + places * np.diff(ends)).tolist()])
    return np.asarray(values * np.diff(ends)[:, None])


def cumulated(pieces: Pieces, times: Array) -> Array:
    """int_{t0}^{t} at times (m,), (m, ...), linear inside the intervals of the quadrature.

    Exact to the quadrature where times are ends of intervals.
    """
    flat = pieces.parts.reshape(len(pieces.parts), -1)
    sums = np.concatenate([np.zeros((1, flat.shape[1])), np.cumsum(flat, axis=0)])
    found = np.stack([np.interp(times, pieces.ends, column) for column in sums.T], axis=1)
    return np.asarray(found.reshape(len(times), *pieces.parts.shape[1:]))
