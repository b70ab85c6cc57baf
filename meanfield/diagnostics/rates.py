"""Rates read off data: orders of convergence, exponential and algebraic decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from meanfield._checks import finite_array, finite_float
from meanfield.errors import ConfigError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RateFit:
    """Slope of a straight line fitted by least squares, with its confidence interval.

    `low` and `high` bound the slope at the given confidence if the residuals are
    independent and normal (Student's t); with two points they are infinite.
    `residual` is the root mean square distance of the points from the line.
    """

    slope: float
    intercept: float
    low: float
    high: float
    residual: float
    n_points: int


class ObservedOrder(NamedTuple):
    """Order of convergence, and the pairwise slopes (coarse to fine) it is the median of."""

    order: float
    slopes: Array


def fit_rate(h: Any, error: Any, *, confidence: float = 0.95) -> RateFit:
    """Fit error = C h^slope by least squares in the logarithms.

    Parameters
    ----------
    h, error
        Step sizes and errors, (K,), positive, K >= 2.
    confidence
        Probability covered by `low` .. `high`.

    Raises
    ------
    ConfigError
        For values that are not positive and finite, lengths that differ, or fewer than two different h.
    """
    return _line(np.log(_positive("h", h)), np.log(_positive("error", error)), confidence)


def fit_exponential(
    t: Any, value: Any, *, window: tuple[float, float] | None = None, confidence: float = 0.95
) -> RateFit:
    """Fit value = C e^{slope t} over the window [t0, t1]; a decay has a negative slope.

    Parameters
    ----------
    t, value
        Depths and positive values, (K,).
    window
        Depths between which the fit looks (both included); None takes all.
    confidence
        Probability covered by `low` .. `high`.

    Raises
    ------
    ConfigError
        For values that are not positive, or fewer than two different depths in the window.
    """
    t, value = _inside(t, value, window)
    return _line(t, np.log(_positive("value", value)), confidence)


def fit_algebraic(
    t: Any, value: Any, *, window: tuple[float, float] | None = None, confidence: float = 0.95
) -> RateFit:
    """Fit value = C t^{slope} over the window [t0, t1], t0 > 0; a decay has a negative slope.

    Parameters and errors as for `fit_exponential`; depths in the window must be positive.
    """
    t, value = _inside(t, value, window)
    return fit_rate(_positive("t", t), value, confidence=confidence)


def observed_order(h: Any, error: Any, *, scale: float = 1.0) -> ObservedOrder:
    """Order of convergence: the median of the four finest pairwise slopes above round-off.

    A slope ln(e_i/e_{i+1}) / ln(h_i/h_{i+1}) counts only if both errors exceed 1e3 eps scale.

    Parameters
    ----------
    h, error
        Step sizes, in any order, and errors, (K,).
    scale
        Magnitude of the solution, which sets the level of round-off.

    Raises
    ------
    ConfigError
        If no slope lies above round-off.
    """
    h = _positive("h", h)
    error = finite_array("error", error, shape=h.shape)
    scale = finite_float("scale", scale, above=0.0)
    order = np.argsort(-h)
    h, error = h[order], error[order]
    good = error > 1e3 * np.finfo(np.float64).eps * scale
    pairs = good[:-1] & good[1:] & (h[:-1] > h[1:])
    if not pairs.any():
        raise ConfigError(f"no two errors in a row lie above round-off (1e3 eps x {scale:g}): {error}")
    coarse, fine = np.flatnonzero(pairs), np.flatnonzero(pairs) + 1
    slopes = np.log(error[coarse] / error[fine]) / np.log(h[coarse] / h[fine])
    return ObservedOrder(float(np.median(slopes[-4:])), slopes)


def _positive(name: str, values: Any) -> Array:
    array = finite_array(name, values, shape=(None,))
    if not (array > 0.0).all():
        raise ConfigError(f"{name} must be > 0 to have a logarithm, got {array.min()!r}")
    return array


def _inside(t: Any, value: Any, window: tuple[float, float] | None) -> tuple[Array, Array]:
    t = finite_array("t", t, shape=(None,))
    value = finite_array("value", value, shape=t.shape)
    if window is None:
        return t, value
    keep = (t >= window[0]) & (t <= window[1])
    return t[keep], value[keep]


def _line(x: Array, y: Array, confidence: float) -> RateFit:
    if x.shape != y.shape:
        raise ConfigError(f"lengths differ: {len(x)} abscissae and {len(y)} values")
    n = len(x)
    if n < 2 or x.min() == x.max():
        raise ConfigError(f"a rate needs at least two different abscissae, got {n} points")
    confidence = finite_float("confidence", confidence, above=0.0)
    if confidence >= 1.0:
        raise ConfigError(f"confidence must be < 1, got {confidence!r}")
    centred = x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ (y - y.mean())) / spread
    intercept = float(y.mean() - slope * x.mean())
    rest = y - intercept - slope * x
    squares = float(rest @ rest)
    half = np.inf
    if n > 2:
        quantile = float(stdtrit(n - 2, 0.5 + 0.5 * confidence))
        half = quantile * float(np.sqrt(squares / (n - 2) / spread))
    return RateFit(slope, intercept, slope - half, slope + half, float(np.sqrt(squares / n)), n)
