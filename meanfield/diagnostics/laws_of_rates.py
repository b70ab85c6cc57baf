"""Which law a quantity follows as a parameter grows: T^-1, T^-2, T^-1 log T, another power, or none of them.

    ln v = a - p ln T + b/T                 T^-p, with the first correction of an expansion in 1/T
    ln v = a - p ln T + q ln ln (T/b)       T^-p (log T)^q
    ln v = a - p ln T                       a power with p free

All have two unknowns, so that their residuals compare. A law is named only if no other fits as well, else the answer is
``undecided``: the range of T then does not tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import stdtrit

from meanfield._checks import finite_array, finite_float
from meanfield.errors import ConfigError

Array = NDArray[np.float64]

POWER, UNDECIDED, NONE = "power", "undecided", "none"
# Residuals of the logarithms below which fits count as equally exact, and above which nothing fits.
_EXACT, _LOOSE = 1e-9, 0.05
_FEWEST = 5


@dataclass(frozen=True)
class Law:
    """T^-power (log T)^logs.

    Parameters
    ----------
    power, logs
        p, and q >= 0.

    Raises
    ------
    ConfigError
        For values out of range.
    """

    power: float
    logs: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "power", finite_float("power", self.power))
        object.__setattr__(self, "logs", finite_float("logs", self.logs, least=0.0))

    def __str__(self) -> str:
        """Return such words as ``T^-1 log T``."""
        logs = "" if not self.logs else " log T" if self.logs == 1.0 else f" log^{self.logs:g} T"
        return f"T^{-self.power:g}{logs}"


LAWS = (Law(1.0), Law(2.0), Law(1.0, 1.0))
"""T^-1, T^-2 and T^-1 log T."""


@dataclass(frozen=True)
class LawFit:
    """What law a quantity follows.

    Attributes
    ----------
    kind
        A law in words, ``"power"`` (one with another exponent), ``"undecided"`` (several fit) or ``"none"``.
    law
        The law, None unless one is named.
    slope, low, high
        Slope of a straight line in the logarithms with its confidence interval: what is seen at these T, whatever
        the law.
    residuals
        Law in words, or ``"power"`` -> root mean square of ln v less the fit.
    amplitude
        Factor of the law named, e^a; NaN without one.
    n_points
        Number of values.
    reason
        A sentence.
    """

    kind: str
    law: Law | None
    slope: float
    low: float
    high: float
    residuals: Mapping[str, float]
    amplitude: float
    n_points: int
    reason: str


def classify_law(
    t: Any,
    value: Any,
    *,
    laws: Sequence[Law] = LAWS,
    window: tuple[float, float] | None = None,
    confidence: float = 0.95,
) -> LawFit:
    """Fit every law by least squares in the logarithms, and name the one that alone fits.

    Two fits are told apart where the sum of squares of the worse exceeds that of the better by what the profile
    likelihood of independent normal residuals allows, a factor 1 + quantile^2/(n - 2) with Student's quantile.

    Parameters
    ----------
    t, value
        T and the quantity, (K,), positive, K >= 5 different T in the window.
    laws
        Candidates; a power with a free exponent always takes part, and counts as another law only where its interval
        excludes the exponent of the first.
    window
        T between which the fit looks (both included); None takes all.
    confidence
        Of the intervals and of the comparison, in (0, 1).

    Raises
    ------
    ConfigError
        For values that are not positive, too few of them, or no candidates.

    Notes
    -----
    A logarithm must at least double over the window: one that hardly changes is a constant. Values that are computed
    and not drawn leave residuals that are no noise; the comparison then ranks approximations.
    """
    x, y, quantile = _logarithms(t, value, window, confidence)
    if not laws:
        raise ConfigError("laws must name at least one candidate")
    n = len(x)
    fits = {law: _fit(law, x, y) for law in laws}
    slope, squares = _line(x, y)
    half = quantile * float(np.sqrt(squares / (n - 2) / ((x - x.mean()) ** 2).sum()))
    low, high = slope - half, slope + half
    residuals = {str(law): float(np.sqrt(fit[0] / n)) for law, fit in fits.items()}
    residuals[POWER] = float(np.sqrt(squares / n))

    margin = 1.0 + quantile**2 / (n - 2)
    kind, named, reason = _decide({law: fit[0] for law, fit in fits.items()}, squares, n, margin, (low, high))
    amplitude = float(np.exp(fits[named][1])) if named else float("nan")
    return LawFit(kind, named, slope, low, high, residuals, amplitude, n, reason)


def _decide(
    fits: Mapping[Law, float], squares: float, n: int, margin: float, interval: tuple[float, float]
) -> tuple[str, Law | None, str]:
    """Kind, law and reason, from the sums of squares of laws and of a power with a free exponent."""
    best = min(*fits.values(), squares)
    allowed = (best + n * _EXACT**2) * margin
    near = [law for law, left in fits.items() if left <= allowed]
    power = squares <= allowed
    inside = any(law.logs == 0.0 and interval[0] - _EXACT <= -law.power <= interval[1] + _EXACT for law in fits)
    if np.sqrt(best / n) > _LOOSE:
        return NONE, None, f"the best fit leaves {np.sqrt(best / n):.2g}"
    if len(near) == 1 and (inside or not power):
        others = [float(np.sqrt(left / n)) for law, left in fits.items() if law != near[0]]
        next_one = f", next {min(others):.2g}" if others else ""
        return str(near[0]), near[0], f"residual {np.sqrt(fits[near[0]] / n):.2g}{next_one}"
    if not near and not inside:
        return POWER, None, f"slope between {interval[0]:.4g} and {interval[1]:.4g}; no law named fits as well"
    return UNDECIDED, None, "several fit: " + ", ".join([*map(str, near), *[POWER] * power])


def _logarithms(
    t: Any, value: Any, window: tuple[float, float] | None, confidence: float
) -> tuple[Array, Array, float]:
    """ln t, ln value inside the window, and Student's quantile."""
    t = finite_array("t", t, shape=(None,))
    value = finite_array("value", value, shape=t.shape)
    if window is not None:
        keep = (t >= window[0]) & (t <= window[1])
        t, value = t[keep], value[keep]
    for name, array in (("t", t), ("value", value)):
        if not (array > 0.0).all():
            raise ConfigError(f"{name} must be > 0 to have a logarithm, got {array.min()!r}")
    if len(np.unique(t)) < _FEWEST:
        raise ConfigError(f"laws need {_FEWEST} different t to be told apart, got {len(np.unique(t))}")
    share = finite_float("confidence", confidence, above=0.0)
    if share >= 1.0:
        raise ConfigError(f"confidence must be < 1, got {confidence!r}")
    return np.log(t), np.log(value), float(stdtrit(len(t) - 2, 0.5 + 0.5 * share))


def _line(x: Array, y: Array) -> tuple[float, float]:
    """Slope of the line of least squares, and the sum of squares that it leaves."""
    centred, rest = x - x.mean(), y - y.mean()
    slope = float(centred @ rest / (centred @ centred))
    rest = rest - slope * centred
    return slope, float(rest @ rest)


def _fit(law: Law, x: Array, y: Array) -> tuple[float, float]:
    """Sum of squares that a law leaves, and a."""
    level = y + law.power * x
    if law.logs == 0.0:
        correction = np.exp(-x)
        slope, squares = _line(correction, level)
        return squares, float(level.mean() - slope * correction.mean())
    width = float(np.ptp(x))

    def left(z: float) -> tuple[float, float]:
        rest = level - law.logs * np.log(x - x.min() + width * np.exp(z))
        a = float(rest.mean())
        return float(((rest - a) ** 2).sum()), a

    # ln(T/b) at the first T is between 1/1000 of the width of the window and all of it.
    grid = np.linspace(np.log(1e-3), 0.0, 25)
    k = int(np.argmin([left(z)[0] for z in grid]))
    ends = float(grid[max(k - 1, 0)]), float(grid[min(k + 1, len(grid) - 1)])
    found = minimize_scalar(lambda z: left(float(z))[0], bounds=ends, method="bounded", options={"xatol": 1e-9})
    return min(left(float(found.x)), left(float(grid[k])))
