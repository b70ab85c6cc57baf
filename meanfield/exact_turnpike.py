"""Tracking problems of scalar states with nothing at the end, solved by quadrature: exponential, algebraic, extinct.

    x' = g(x) u on [0, T]:   minimise int l(x) + lam u^2 dt,    lam u^2 = l(x) - l(x(T)),   u(T) = 0

The Hamiltonian is constant along an optimum, and so all is in the one number l(x(T)). What the loss is near its
infimum decides how x gets there: `PowerLoss` |x - y|^p/p with p = 2 exponentially, p > 2 algebraically, p < 2 in
finite time; `LogisticLoss` algebraically, towards infinity. Penalties that grow as |u| do are paid at once (`Impulse`).
Source: consequences of the models.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float, positive_int
from meanfield.errors import ConfigError, NumericalError
from meanfield.exact_learning import check_fields

Array = NDArray[np.float64]

# Of the end loss over the first one: below it l(x(T)) is lost in the rounding of l(x0).
_LEAST = 1e-300


@dataclass(frozen=True)
class PowerLoss:
    """l(x) = |x - y|^p / p.

    Parameters
    ----------
    y
        Target.
    p
        Exponent, > 1.

    Raises
    ------
    ConfigError
        For values out of range.
    """

    y: float
    p: float = 2.0

    def __post_init__(self) -> None:
        check_fields(self, y=None, p=1.0)

    def value(self, x: float) -> float:
        """l(x)."""
        return float(abs(x - self.y) ** self.p) / self.p

    def slope(self, level: float) -> float:
        """|l'| where l = level."""
        return float((self.p * level) ** (1.0 - 1.0 / self.p))

    def inverse(self, level: float, start: float) -> float:
        """x with l(x) = level on the side of y where the start is."""
        return self.y + math.copysign((self.p * level) ** (1.0 / self.p), start - self.y)


@dataclass(frozen=True)
class LogisticLoss:
    """l(x) = log(1 + e^{-x}); its infimum 0 is at infinity."""

    def value(self, x: float) -> float:
        """l(x)."""
        return float(np.logaddexp(0.0, -x))

    def slope(self, level: float) -> float:
        """|l'| = 1 - e^{-l} where l = level."""
        return -math.expm1(-level)

    def inverse(self, level: float, start: float) -> float:  # noqa: ARG002 (it falls everywhere)
        """x with l(x) = level."""
        return -math.log(math.expm1(level))


def _one(_x: float) -> float:
    return 1.0


class Path(NamedTuple):
    """State, control and loss at some times, arrays of one shape."""

    x: Array
    u: Array
    loss: Array


@dataclass(frozen=True)
class ScalarTracking:
    """Optimum of x' = g(x) u, int l(x) + lam u^2 dt over [0, T].

    With l = l_T cosh^2 phi, l_T = l(x(T)) and phi(T) = 0,

        -phi' = g(x) |l'(x)| / (2 sqrt(lam l)),

    smooth up to the end; l_T is found so that x(0) = x0.

    Parameters
    ----------
    x0
        Start, not a minimiser of l.
    loss
        l: `PowerLoss` with p >= 2, or `LogisticLoss`.
    lam, length
        Penalty and T, > 0.
    gain
        g, positive from the start to the target; 1 by default.

    Raises
    ------
    ConfigError
        For values out of range, or p < 2 (see `PowerExtinction`).
    """

    x0: float
    loss: PowerLoss | LogisticLoss
    lam: float
    length: float
    gain: Callable[[float], float] = field(default=_one)

    def __post_init__(self) -> None:
        check_fields(self, x0=None, lam=0.0, length=0.0)
        if isinstance(self.loss, PowerLoss) and self.loss.p < 2.0:
            raise ConfigError(f"p must be >= 2, got {self.loss.p}: below, the error is extinct in finite time")
        if not self.loss.value(self.x0) > 0.0:
            raise ConfigError(f"x0 = {self.x0} is a minimiser of the loss: nothing is to be done")

    def _rate(self, level: float) -> tuple[float, float]:
        """-phi' and x where the loss is `level`."""
        # The slope as a function of the loss: differences of x and y are lost in rounding long before the loss is.
        x = self.loss.inverse(level, self.x0)
        return self.gain(x) * self.loss.slope(level) / (2.0 * math.sqrt(self.lam * level)), x

    def _time(self, end: float) -> float:
        """T at which the loss ends at `end`."""
        from scipy.integrate import quad  # noqa: PLC0415 (slow to import)

        last = math.acosh(math.sqrt(self.loss.value(self.x0) / end))
        return float(quad(lambda f: 1.0 / self._rate(end * math.cosh(f) ** 2)[0], 0.0, last, epsabs=0.0, epsrel=1e-13,
                          limit=200)[0])  # fmt: skip

    @cached_property
    def end_loss(self) -> float:
        """l(x(T)).

        Raises
        ------
        NumericalError
            If it is below 1e-300.
        """
        from scipy.optimize import brentq  # noqa: PLC0415 (slow to import)

        first = self.loss.value(self.x0)

        def excess(fallen: float) -> float:
            return self._time(first * math.exp(-fallen)) - self.length

        far = 1.0
        while excess(far) < 0.0:
            far *= 2.0
            if first * math.exp(-far) < _LEAST:
                raise NumericalError(f"length {self.length} is so long that the loss ends below {_LEAST}")
        return first * math.exp(-float(brentq(excess, 0.0, far, xtol=1e-14, rtol=1e-14)))

    def path(self, t: Any) -> Path:
        """State, control and loss at times t in [0, T], (K,)."""
        times = finite_array("t", t, shape=(None,))
        phi = self._angles()(self.length - times)[0]
        levels = self.end_loss * np.cosh(phi) ** 2
        x = np.array([self._rate(level)[1] for level in levels.tolist()])
        sign = math.copysign(1.0, self.loss.inverse(self.end_loss, self.x0) - self.x0)
        return Path(x, sign * math.sqrt(self.end_loss / self.lam) * np.sinh(phi), levels)

    @property
    def cost(self) -> float:
        """Minimum, int 2 l - l(x(T)) dt."""
        return float(self._angles()(self.length)[1])

    def _angles(self) -> Callable[[Any], Array]:
        """Phi and the cost from the end on, as functions of T - t."""
        from scipy.integrate import solve_ivp  # noqa: PLC0415 (slow to import)

        def rate(_back: float, y: Array) -> list[float]:
            level = self.end_loss * math.cosh(y[0]) ** 2
            return [self._rate(level)[0], 2.0 * level - self.end_loss]

        found = solve_ivp(rate, (0.0, self.length), [0.0, 0.0], "DOP853", dense_output=True, rtol=1e-12, atol=1e-14)
        solution: Callable[[Any], Array] = found.sol
        return solution


@dataclass(frozen=True)
class PowerExtinction:
    """x' = u, int |x - y|^p/p + lam u^2 dt with 1 < p < 2: the error is 0 from a finite time on.

    e(t) = e0 (1 - t/T*)_+^{2/(2 - p)},   T* = sqrt(p lam) |e0|^{1 - p/2} / (1 - p/2)

    solves e' = -sqrt(|e|^p/(p lam)), m = p/2 in the family of `classify_decay`; T* does not depend on T >= T*.

    Parameters
    ----------
    x0, y
        Start and target.
    lam
        Penalty, > 0.
    p
        Exponent, between 1 and 2.

    Raises
    ------
    ConfigError
        For values out of range.
    """

    x0: float
    y: float
    lam: float
    p: float = 1.5

    def __post_init__(self) -> None:
        check_fields(self, x0=None, y=None, lam=0.0)
        object.__setattr__(self, "p", finite_float("p", self.p, above=1.0))
        if self.p >= 2.0:
            raise ConfigError(f"p must be < 2, got {self.p}: the error is never extinct")

    @property
    def time(self) -> float:
        """T*, when the error is extinct."""
        part = 1.0 - 0.5 * self.p
        return float(math.sqrt(self.p * self.lam) * abs(self.x0 - self.y) ** part / part)

    @property
    def cost(self) -> float:
        """Minimum for every T >= T*: 2 sqrt(lam/p) |e0|^{1 + p/2} / (1 + p/2)."""
        part = 1.0 + 0.5 * self.p
        return float(2.0 * math.sqrt(self.lam / self.p) * abs(self.x0 - self.y) ** part / part)

    def error(self, t: Any) -> Array:
        """x(t) - y at times t >= 0."""
        left = np.maximum(1.0 - finite_array("t", t) / self.time, 0.0)
        return np.asarray((self.x0 - self.y) * left ** (2.0 / (2.0 - self.p)))


@dataclass(frozen=True)
class Impulse:
    """x_{k+1} = x_k + h u_k at the cost h sum_{k<n} (x_k - y)^2/2 + price |u_k|: all is paid in the first layer.

    What is gone earlier is paid alike, and x is near y for longer: later layers have u = 0, and

        |x_1 - y| = min(price/(T - h), |x_0 - y|).

    For n to infinity u becomes a point mass at 0: the infimum is not attained, and the error falls as price/T.

    Parameters
    ----------
    x0, y
        Start and target.
    length, price
        T and the cost of a unit of way, > 0.

    Raises
    ------
    ConfigError
        For values out of range.
    """

    x0: float
    y: float
    length: float
    price: float

    def __post_init__(self) -> None:
        check_fields(self, x0=None, y=None, length=0.0, price=0.0)

    def error(self, n: int | None = None) -> float:
        """x - y after the first of n layers, to the end; None is the limit of many layers."""
        gap = self.x0 - self.y
        left = self.length - self._step(n)
        return math.copysign(min(abs(gap), self.price / left) if left > 0.0 else abs(gap), gap)

    def cost(self, n: int | None = None) -> float:
        """Minimum over n layers; None is its limit."""
        gap, end, h = self.x0 - self.y, self.error(n), self._step(n)
        return 0.5 * h * gap**2 + 0.5 * (self.length - h) * end**2 + self.price * abs(gap - end)

    def _step(self, n: int | None) -> float:
        return 0.0 if n is None else self.length / positive_int("n", n)


def two_layer_price(x: float, strength: float) -> float:
    """Least penalty s (v^2 + w^2 + b^2) for a unit of speed v relu(w x + b) at x: 2 s/sqrt(1 + x^2)."""
    return 2.0 * finite_float("strength", strength, above=0.0) / math.hypot(1.0, finite_float("x", x))


def two_layer_infimum(x0: float, y: float, length: float, strength: float) -> float:
    """Infimum of int (x - y)^2/2 + s (v^2 + w^2 + b^2) dt over x' = v relu(w x + b) on [0, T], not attained.

    The penalty of a way is the integral of `two_layer_price` however fast it is, 2 s |asinh x1 - asinh x0|: the
    best is to jump to the x1 with T |x1 - y| = 2 s/sqrt(1 + x1^2). Euler layers pay the price of their starts and have
    a lower limit where |x| falls (see `Impulse`).

    Raises
    ------
    ConfigError
        For values out of range, or where not moving is as good.
    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 (slow to import)

    start, target, length = finite_float("x0", x0), finite_float("y", y), finite_float("length", length, above=0.0)
    if not length * abs(start - target) > two_layer_price(start, strength):
        raise ConfigError(f"length {length} is so short that not moving is best")

    def total(x: float) -> float:
        return 0.5 * length * (x - target) ** 2 + 2.0 * strength * abs(math.asinh(x) - math.asinh(start))

    ends = (min(start, target), max(start, target))
    return float(minimize_scalar(total, bounds=ends, method="bounded", options={"xatol": 1e-10}).fun)
