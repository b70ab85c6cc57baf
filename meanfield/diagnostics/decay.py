"""Kind of decay of a series: exponential, algebraic, extinct in finite time, or none.

The three decays solve one equation, u' = -lam c^(1-m) u^m with u(0) = c:

    u(t) = c [1 + (m - 1) lam t]_+^{-1/(m-1)}

m > 1 is algebraic, (1 + t/t0)^{-p} with p = 1/(m - 1); m = 1 exponential, e^{-lam t};
m < 1 extinct at T = 1/((1 - m) lam), (1 - t/T)_+^p with p = 1/(1 - m). The profile
likelihood of the single number m gives a confidence interval, and the interval
decides: a kind is named only if no other kind fits, else the answer is ``undecided``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import stdtrit

from meanfield._checks import finite_array, finite_float
from meanfield.errors import ConfigError

Array = NDArray[np.float64]

_FEWEST = 12
# Values of m looked at: exponents p >= 1/5 of algebraic decay and of extinction.
_SHAPES = np.concatenate([1.0 - np.geomspace(5.0, 0.02, 16), [1.0], 1.0 + np.geomspace(0.02, 5.0, 16)])
# Rates looked at, in units of one over the window.
_RATES = np.geomspace(0.02, 3e4, 72)
# The size of the noise relative to the signal below which data are as good as exact.
_EXACT = 1e-5
# Residuals that are not noise refuse the fit where they exceed this part of the signal.
_STRUCTURE = 1e-3
_SIGNIFICANT = 4.0
_LAGS = 6
# Additive noise in units of the largest value and of the relative noise: what is below 1e-4 of the top does not count.
_RATIOS = np.concatenate([np.geomspace(1e-4, 10.0, 31), [1e3]])
_POINTS_ON_GRID = 64


@dataclass(frozen=True)
class Decay:
    """What a series does.

    Parameters
    ----------
    kind
        ``exponential``, ``algebraic``, ``finite-time``, ``none`` or ``undecided``.
    value
        The rate lam (exponential), the exponent p of t^-p (algebraic), the depth of extinction T
        (finite-time), the change of ln u per depth (none); of the best fit if undecided: m.
    low, high
        Confidence interval of `value`.
    shape
        m of the fit, NaN for none.
    shape_low, shape_high
        Confidence interval of m, widened where the residuals are correlated.
    floor
        Level at which an exponential decay ends, 0 if none was needed.
    noise
        Size of the residuals where the series is largest, relative to it.
    correlation
        Of neighbouring residuals; near 1 the fit misses a structure of the series.
    n_points
        Length of the series.
    reason
        A sentence.
    """

    kind: str
    value: float
    low: float
    high: float
    shape: float
    shape_low: float
    shape_high: float
    floor: float
    noise: float
    correlation: float
    n_points: int
    reason: str


@dataclass(frozen=True, eq=False)
class _Fit:
    """Least squares at a fixed m: sum of squares, rate, amplitude, floor, and the fitted values."""

    squares: float
    rate: float
    amplitude: float
    floor: float
    values: Array


def classify_decay(t: Any, values: Any, *, confidence: float = 0.9999, resolution: float = 0.1) -> Decay:
    """Tell exponential, algebraic and finite-time decay and no decay apart.

    The noise may be relative, additive or both; its sizes are estimated. Residuals that are
    not noise make the answer ``undecided`` where they exceed 1e-3 of the signal; below, they widen
    the intervals as if only independent stretches of them counted.

    Parameters
    ----------
    t, values
        Depths, increasing, and values (norms, energies), (K,) with K >= 12; noise may make some negative.
    confidence
        Probability covered by the interval of m; close to 1, since a wrong kind is worse than none.
    resolution
        Exponential is said if the interval of m is inside 1 -+ resolution: exponents p > 1/resolution are
        not told from exponential. None is said if the series loses less than this fraction over its window.

    Raises
    ------
    ConfigError
        For fewer than 12 points, depths that do not increase, or values that are not finite.
    """
    t = finite_array("t", t, shape=(None,))
    values = finite_array("values", values, shape=t.shape)
    if len(t) < _FEWEST:
        raise ConfigError(f"a kind of decay needs at least {_FEWEST} points, got {len(t)}")
    if not (np.diff(t) > 0.0).all():
        raise ConfigError("t must increase strictly")
    confidence = finite_float("confidence", confidence, above=0.0)
    if confidence >= 1.0:
        raise ConfigError(f"confidence must be < 1, got {confidence!r}")
    resolution = finite_float("resolution", resolution, above=0.0)
    window, top = float(t[-1] - t[0]), float(np.abs(values).max())
    if top == 0.0:
        return _none(len(t), (0.0, 0.0, 0.0), 0.0, "the series is zero throughout")
    s, v = (t - t[0]) / window, values / top
    quantile = float(stdtrit(len(t) - 4, 0.5 + 0.5 * confidence))
    for logarithm in (True, False) if v.min() > 0.0 else (False,):
        slope, half, noise = _trend(s, np.log(v) if logarithm else v / np.abs(v).mean(), quantile)
        if slope + half >= 0.0 and slope - half > -resolution:
            ends = (slope / window, (slope - half) / window, (slope + half) / window)
            return _none(len(t), ends, noise, f"ln u changes by {slope:.3g} -+ {half:.2g} over the window: no decay")
    return _judged(_Series(s, v, quantile), resolution, float(t[0]), window, top)


def _none(n: int, ends: tuple[float, float, float], noise: float, reason: str) -> Decay:
    nan = float("nan")
    return Decay("none", *ends, nan, nan, nan, 0.0, noise, 0.0, n, reason)


def _judged(series: _Series, resolution: float, start: float, window: float, top: float) -> Decay:
    """Name the kind whose rivals all fit worse than the confidence allows."""
    m, fit, flat = series.shape, series.free, series.flat
    # A floor under an exponential bends its logarithm upwards, as algebraic decay does.
    needs_floor = flat.squares + series.allowance < fit.squares
    low, high = series.shape_interval(floor=needs_floor)
    value, ends, floor = m, (low, high), 0.0
    kind, reason = "undecided", f"m between {low:.3g} and {high:.3g} leaves more than one kind of decay"
    interval = f"m between {low:.3g} and {high:.3g}"
    if series.misfit:
        reason = "no decay at one rate fits the series: the residuals are not noise"
    elif series.n_above < _FEWEST:
        reason = f"only {series.n_above} values stand above the noise"
    elif 1.0 - resolution < low and high < 1.0 + resolution:
        kind, reason = "exponential", interval + (", above a floor" if needs_floor else "")
        rate, half = series.rate_interval(floor=needs_floor)
        value, ends = rate / window, ((rate - half) / window, (rate + half) / window)
        floor = flat.floor * top if needs_floor else 0.0
    elif needs_floor:
        reason = f"a decay to a floor, {interval}: its kind is open"
    elif low > 1.0 and flat.squares > fit.squares + series.allowance:
        kind, reason = "algebraic", f"{interval}; an exponential fits worse, with a floor or without"
        value, ends = 1.0 / (m - 1.0), (1.0 / (high - 1.0), 1.0 / (low - 1.0))
    elif high < 1.0:
        kind, reason = "finite-time", interval
        value, first, last = (start + window * x for x in series.extinction(low, high))
        ends = (first, last)
    return Decay(kind, value, *ends, m, low, high, floor, series.noise, series.correlation, len(series.s), reason)


def _trend(s: Array, y: Array, quantile: float) -> tuple[float, float, float]:
    """Slope of y over the unit window, the half width of its interval, and the size of the rest.

    An oscillation of free frequency, with its first overtone, is fitted beside the line.
    """
    n = len(s)
    line = np.column_stack([np.ones(n), s - s.mean()])

    def fitted(turns: float) -> tuple[float, Array, Array]:
        phase = 2.0 * np.pi * turns * s
        basis = np.column_stack([line, np.cos(phase), np.sin(phase), np.cos(2.0 * phase), np.sin(2.0 * phase)])
        inverse = np.linalg.pinv(basis.T @ basis)
        coefficients = inverse @ (basis.T @ y)
        rest = y - basis @ coefficients
        return float(rest @ rest), rest, np.array([coefficients[1], inverse[1, 1]])

    # Less than one turn could not be told from a trend.
    turns = np.arange(1.0, max(min(n / 6.0, 25.0), 2.0), 0.25)
    best = float(turns[int(np.argmin([fitted(k)[0] for k in turns]))])
    ends = (max(best - 0.25, 1.0), best + 0.25)
    best = float(minimize_scalar(lambda k: fitted(float(k))[0], bounds=ends, method="bounded").x)
    squares, rest, (slope, spread) = fitted(best)
    variance = (squares / (n - 7) + _EXACT**2) * _inflation(rest)[0]
    return float(slope), quantile * float(np.sqrt(variance * spread)), float(np.sqrt(squares / n))


class _Series:
    """A series on the unit window: its weights, its best fit, and the fits of the family at given m."""

    def __init__(self, s: Array, v: Array, quantile: float) -> None:
        self.s, self._v, self._quantile = s, v, quantile
        n = len(s)
        self._few = np.unique(np.linspace(0, n - 1, min(n, _POINTS_ON_GRID)).round().astype(int))
        level, ratio = _smooth(np.abs(v)), 0.05
        for _ in range(3):
            self._root = 1.0 / np.sqrt(level**2 + ratio**2)
            self._log_rate, squares = self._zoom()
            self.shape = float(_SHAPES[int(np.argmin(squares))])
            self.free, self.flat = self.at_shape(self.shape), self.at_shape(1.0, floor=True)
            level = self._best().values
            ratio = _noise_ratio(v - level, level)
        self._root = 1.0 / np.sqrt(level**2 + ratio**2)
        self.shape, self.free = self._minimum()
        self.flat = self.at_shape(1.0, floor=True)
        best = self._best()
        residual = self._root * (v - best.values)
        self._factor, self.correlation = _inflation(residual)
        scale = float(np.sqrt(residual @ residual / n))
        self.noise = scale * float(np.sqrt(1.0 + ratio**2))
        above = np.abs(best.values - best.floor) * self._root > 3.0 * scale
        self.n_above = int(above.sum())
        structure = max(_structure(residual), _structure(residual[above]))
        self.misfit = self.noise > _STRUCTURE and structure > _SIGNIFICANT
        # As a fit may be worse than the best by and still be within the confidence.
        self.allowance = self._quantile**2 * self._factor * (best.squares / (n - 4) + _EXACT**2)

    def _best(self) -> _Fit:
        return self.flat if self.flat.squares < self.free.squares else self.free

    def at_shape(self, m: float, *, floor: bool = False) -> _Fit:
        """Best rate, amplitude and floor at one m."""
        if floor:
            family = _family(np.array([[m]]), _RATES[None], self.s[self._few])
            k = int(np.argmin(self._linear(family, self._few, floor=True)[1][0]))
            low, high = (float(np.log(_RATES[np.clip(k + e, 0, len(_RATES) - 1)])) for e in (-2, 2))
        else:
            k = int(np.clip(np.searchsorted(_SHAPES, m), 1, len(_SHAPES) - 1))
            near = self._log_rate[max(k - 1, 0) : k + 1]
            low, high = float(near.min()) - 0.05, float(near.max()) + 0.05

        def squares(log_rate: float) -> float:
            return self._at(m, float(np.exp(log_rate)), floor=floor).squares

        for _ in range(6):
            x = float(minimize_scalar(squares, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x)
            margin = 0.02 * (high - low)
            if low + margin < x < high - margin:
                break
            low, high = x - 2.0 * (high - low), x + 2.0 * (high - low)
            low, high = max(low, -10.0), min(high, 15.0)
        return self._at(m, float(np.exp(x)), floor=floor)

    def shape_interval(self, *, floor: bool = False) -> tuple[float, float]:
        """Ends of the profile-likelihood interval of m; an end outside the range looked at is infinite."""
        centre = 1.0 if floor else self.shape
        target = (self.flat if floor else self.free).squares + self.allowance

        def excess(m: float) -> float:
            return self.at_shape(m, floor=floor).squares - target

        ends = []
        for sign, limit in ((-1.0, _SHAPES[0]), (1.0, _SHAPES[-1])):
            step, inside = 0.02, centre
            while True:
                outside = centre + sign * step
                if sign * (outside - limit) >= 0.0:
                    outside = limit
                    if inside == limit or excess(limit) <= 0.0:
                        ends.append(sign * np.inf)
                        break
                if excess(outside) > 0.0:
                    ends.append(float(brentq(excess, inside, outside, xtol=1e-4, rtol=1e-4)))
                    break
                inside, step = outside, 3.0 * step
        return ends[0], ends[1]

    def rate_interval(self, *, floor: bool) -> tuple[float, float]:
        """Rate of the exponential fit and the half width of its interval, from the curvature of the squares."""
        fit = self.at_shape(1.0, floor=floor)
        step = 1e-3
        near = [self._at(1.0, fit.rate * (1.0 + e), floor=floor).squares for e in (-step, step)]
        curvature = max((near[0] + near[1] - 2.0 * fit.squares) / step**2 / 2.0, 1e-300)
        return fit.rate, fit.rate * float(np.sqrt(self.allowance / curvature))

    def extinction(self, low: float, high: float) -> tuple[float, float, float]:
        """Depth of extinction, and the smallest and largest at the ends of the interval of m."""
        found = []
        for m in (self.shape, max(low, float(_SHAPES[0])), high):
            fit = self.free if m == self.shape else self.at_shape(m)
            found.append(1.0 / ((1.0 - m) * fit.rate))
        return found[0], min(found), max(found)

    def _zoom(self) -> tuple[Array, Array]:
        """Best logarithm of the rate at every shape of the grid, on a few of the points, and its squares."""
        few, s, m = self._few, self.s[self._few], _SHAPES[:, None]
        _, squares = self._linear(_family(m, np.broadcast_to(_RATES, (len(m), len(_RATES))), s), few, floor=False)
        best = np.log(_RATES)[squares.argmin(axis=1)]
        width = float(np.log(_RATES[1] / _RATES[0]))
        offsets = np.linspace(-1.0, 1.0, 7)
        for _ in range(5):
            tried = best[:, None] + width * offsets
            _, squares = self._linear(_family(m, np.exp(tried), s), few, floor=False)
            rows = np.arange(len(m)), squares.argmin(axis=1)
            best, width = tried[rows], 0.4 * width
        return best, squares[rows]

    def _minimum(self) -> tuple[float, _Fit]:
        """Best m: refined between the neighbours of the best of the grid."""
        self._log_rate, squares = self._zoom()
        k = int(np.argmin(squares))
        ends = _SHAPES[max(k - 2, 0)], _SHAPES[min(k + 2, len(_SHAPES) - 1)]
        found = minimize_scalar(
            lambda m: self.at_shape(float(m)).squares, bounds=ends, method="bounded", options={"xatol": 1e-4}
        )
        on_grid = self.at_shape(float(_SHAPES[k]))
        if on_grid.squares < found.fun:
            return float(_SHAPES[k]), on_grid
        return float(found.x), self.at_shape(float(found.x))

    def _at(self, m: float, rate: float, *, floor: bool) -> _Fit:
        family = _family(np.array([[m]]), np.array([[rate]]), self.s)
        (amplitude, level), squares = self._linear(family, slice(None), floor=floor)
        c, d = float(amplitude[0, 0]), float(level[0, 0])
        return _Fit(float(squares[0, 0]), rate, c, d, c * family[0, 0] + d)

    def _linear(self, family: Array, points: Any, *, floor: bool) -> tuple[tuple[Array, Array], Array]:
        """Weighted least squares for the amplitude, and a floor >= 0, of each member of the family."""
        root = self._root[points]
        f, y = family * root, self._v[points] * root
        ff, fy = np.maximum((f * f).sum(axis=-1), 1e-300), f @ y
        c, d = fy / ff, np.zeros_like(fy)
        if floor:
            f1, y1, one = f @ root, float(y @ root), float(root @ root)
            det = np.maximum(ff * one - f1**2, 1e-14 * ff * one)
            d = np.maximum((ff * y1 - f1 * fy) / det, 0.0)
            c = (fy - d * f1) / ff
        f *= c[..., None]
        f += d[..., None] * root - y
        return (c, d), np.einsum("...n,...n->...", f, f)


def _family(m: Array, rate: Array, s: Array) -> Array:
    """[1 + (m - 1) rate s]_+^{-1/(m - 1)} on arrays of m and rate, with an axis of s added."""
    power = (m - 1.0)[..., None]
    x = rate[..., None] * s
    safe = np.where(np.abs(power) < 1e-7, 1.0, power)
    base = 1.0 + safe * x
    with np.errstate(divide="ignore", over="ignore"):
        exponent = np.where(np.abs(power) < 1e-7, -x, -np.log(np.maximum(base, 0.0)) / safe)
        return np.asarray(np.exp(np.minimum(exponent, 0.0)))


def _smooth(v: Array) -> Array:
    """Median of five neighbours."""
    padded = np.concatenate([v[:1], v[:1], v, v[-1:], v[-1:]])
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1))


def _noise_ratio(residual: Array, level: Array) -> float:
    """Additive over relative noise, by maximum likelihood for normal residuals."""
    spread = level**2 + _RATIOS[:, None] ** 2
    scale = (residual**2 / spread).mean(axis=1) + _EXACT**2
    return float(_RATIOS[int(np.argmin(0.5 * np.log(scale) + 0.5 * np.log(spread).mean(axis=1)))])


def _inflation(residual: Array) -> tuple[float, float]:
    """Variance of a mean of correlated residuals over that of independent ones, and their correlation."""
    n = len(residual)
    r = residual - residual.mean()
    total = float(r @ r)
    if total == 0.0:
        return 1.0, 0.0
    correlation = float(r[1:] @ r[:-1]) / total
    if correlation < 2.0 / np.sqrt(n):
        return 1.0, correlation
    capped = min(correlation, 1.0 - 4.0 / n)
    return (1.0 + capped) / (1.0 - capped), correlation


def _structure(residual: Array) -> float:
    """Largest correlation at lags 1 to 6 in units of its spread for independent residuals."""
    n = len(residual)
    if n < _FEWEST:
        return 0.0
    r = residual - residual.mean()
    total = max(float(r @ r), 1e-300)
    return max(abs(float(r[k:] @ r[:-k])) / total * float(np.sqrt(n - k)) for k in range(1, _LAGS + 1))
