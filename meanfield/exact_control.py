"""Optimal control of scalar states in closed form: terminal costs and the linear-quadratic turnpike.

Costs of a control over [0, T], one datum, (x(T) - y)^2 without 1/2: `TerminalAdditive` (x' = w),
`TerminalMultiplicative` (x' = w x) and `Turnpike` (x' = u with tracking); `TerminalLogistic` (x' = w) with a loss that
has no minimum, `TerminalTwoLayer` (x' = v max(w x + b, 0)) where T plays no role. Source: consequences of the models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float, positive_int
from meanfield.errors import ConfigError
from meanfield.exact_learning import StationaryPoint, best_of, check_fields, stationary_points

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TerminalAdditive:
    """x' = w on [0, T], x(0) = x0: minimise (x(T) - y)^2 + lam int w^2; the minimiser is constant in time.

    Euler steps of any number have the same minimum.

    Parameters
    ----------
    x0, y
        Start and target.
    lam, length
        Penalty and T, > 0.

    Raises
    ------
    ConfigError
        For values out of range.
    """

    x0: float
    y: float
    lam: float
    length: float

    def __post_init__(self) -> None:
        check_fields(self, x0=None, y=None, lam=0.0, length=0.0)

    @property
    def control(self) -> float:
        """w = (y - x0)/(T + lam)."""
        return (self.y - self.x0) / (self.length + self.lam)

    @property
    def error(self) -> float:
        """(x(T) - y)^2 = (y - x0)^2 lam^2/(T + lam)^2."""
        return (self.lam * self.control) ** 2

    @property
    def cost(self) -> float:
        """Minimum, lam (y - x0)^2/(T + lam)."""
        return self.lam * (self.y - self.x0) * self.control


@dataclass(frozen=True)
class TerminalMultiplicative:
    """x' = w x on [0, T], x(0) = x0: minimise (x(T) - y)^2 + lam int w^2; stationary w are constant, w = I/T.

    Only lam/T matters: (x0 e^I - y)^2 + I^2/k with k = T/lam.

    Parameters
    ----------
    x0, y
        Start, not 0, and target.
    lam, length
        Penalty and T, > 0.

    Raises
    ------
    ConfigError
        For values out of range.
    """

    x0: float
    y: float
    lam: float
    length: float

    def __post_init__(self) -> None:
        check_fields(self, x0=None, y=None, lam=0.0, length=0.0)
        if self.x0 == 0.0:
            raise ConfigError("x0 must not be 0: no control moves it")

    def points(self) -> tuple[StationaryPoint, ...]:
        """All stationary points, by increasing I = w T."""
        return stationary_points(self.x0, self.y, self.length / self.lam)

    def optimum(self) -> StationaryPoint:
        """Global minimum."""
        return best_of(self.points())

    def error(self, point: StationaryPoint | None = None) -> float:
        """(x(T) - y)^2 at a stationary point, None: at the global minimum."""
        at = point or self.optimum()
        # x(T) - y = g/x(T): no difference of near numbers.
        return (at.g * math.exp(-at.integral) / self.x0) ** 2

    def depth_constant(self, point: StationaryPoint | None = None) -> float:
        """Limit of n (J_n - J) for n Euler steps, x_n = x0 (1 + I/n)^n: -g I^2 = lam I^3/T."""
        at = point or self.optimum()
        return -at.g * at.integral**2

    @property
    def long_time_error(self) -> float:
        """Limit of T^2 (x(T) - y)^2, lam^2 ln^2(y/x0)/y^2, for y/x0 > 0."""
        return (self.lam * self._logarithm() / self.y) ** 2

    @property
    def long_time_cost(self) -> float:
        """Limit of T times the minimum, lam ln^2(y/x0), for y/x0 > 0."""
        return self.lam * self._logarithm() ** 2

    def _logarithm(self) -> float:
        if not self.x0 * self.y > 0.0:
            raise ConfigError(f"the target cannot be reached: y/x0 must be > 0, got y = {self.y}, x0 = {self.x0}")
        return math.log(self.y / self.x0)


@dataclass(frozen=True)
class TerminalLogistic:
    """x' = w on [0, T], x(0) = 0: minimise log(1 + e^{-x(T)}) + lam int w^2; the minimiser is constant in time.

    The loss has no minimum: with m = x(T), m (1 + e^m) = T/(2 lam), so that m grows like log T, the loss falls like
    2 lam log(T)/T and the cost like lam log(T)^2/T. Euler steps of any number have the same minimum.

    Parameters
    ----------
    lam, length
        Penalty and T, > 0.

    Raises
    ------
    ConfigError
        For values out of range.
    """

    lam: float
    length: float

    def __post_init__(self) -> None:
        check_fields(self, lam=0.0, length=0.0)

    @property
    def margin(self) -> float:
        """m = x(T) > 0."""
        level = math.log(0.5 * self.length / self.lam)
        # The root of an increasing concave function: Newton's method from the left of it rises to it.
        m = min(math.exp(level) / (1.0 + math.exp(1.0)), 1.0)
        for _ in range(100):
            excess = math.log(m) + m + math.log1p(math.exp(-m)) - level
            step = -excess / (1.0 / m + 1.0 / (1.0 + math.exp(-m)))
            m += step
            if abs(step) <= 4.0 * math.ulp(m):
                break
        return m

    @property
    def control(self) -> float:
        """w = m/T."""
        return self.margin / self.length

    @property
    def error(self) -> float:
        """log(1 + e^{-m})."""
        return math.log1p(math.exp(-self.margin))

    @property
    def cost(self) -> float:
        """Minimum, log(1 + e^{-m}) + lam m^2/T."""
        return self.error + self.lam * self.margin**2 / self.length


@dataclass(frozen=True)
class TerminalTwoLayer:
    """x' = v max(w x + b, 0) on [0, T], x(0) = x0: minimise (x(T) - y)^2 + lam int v^2 + w^2 + b^2.

    The velocity is homogeneous of degree two in its parameters. To move at speed |x'| costs at least
    2 |x'|/sqrt(1 + x^2), taken by (w, b) parallel to (x, 1) and v^2 = w^2 + b^2, so that the problem is to minimise

        (x(T) - y)^2 + 2 lam |asinh x(T) - asinh x0|,

    whatever T: time only sets the speed. For lam >= |y - x0| sqrt(1 + x0^2) nothing moves.

    Parameters
    ----------
    x0, y
        Start and target.
    lam
        Penalty, > 0.

    Raises
    ------
    ConfigError
        For values out of range.
    """

    x0: float
    y: float
    lam: float

    def __post_init__(self) -> None:
        check_fields(self, x0=None, y=None, lam=0.0)

    def _cost(self, x: Any) -> Array:
        """Cost of ending at x."""
        return np.asarray((x - self.y) ** 2 + 2.0 * self.lam * np.abs(np.arcsinh(x) - math.asinh(self.x0)))

    @property
    def end(self) -> float:
        """x(T) at the global minimum."""
        # Between the ends, stationary points have (y - x)^2 (1 + x^2) = lam^2.
        square = np.polymul([1.0, -2.0 * self.y, self.y**2], [1.0, 0.0, 1.0])
        roots = np.roots(np.polysub(square, [self.lam**2]))
        real = roots[np.abs(roots.imag) < 1e-6].real
        low, high = sorted((self.x0, self.y))
        candidates = np.append(real[(real > low) & (real < high)], self.x0)
        return float(candidates[int(np.argmin(self._cost(candidates)))])

    @property
    def error(self) -> float:
        """(x(T) - y)^2."""
        return (self.end - self.y) ** 2

    @property
    def cost(self) -> float:
        """Minimum, the same at every T > 0."""
        return float(self._cost(self.end))


@dataclass(frozen=True)
class Turnpike:
    """x' = u on [0, T]: minimise int (x - y)^2 + lam u^2 dt + beta (x(T) - y)^2.

    With mu = 1/sqrt(lam) and b = beta/sqrt(lam), e = x - y is
    e(t) = e0 [cosh mu (T - t) + b sinh mu (T - t)] / [cosh mu T + b sinh mu T].

    Parameters
    ----------
    x0, y
        Start and target.
    lam, length
        Penalty and T, > 0.
    beta
        Weight of the end, >= 0.

    Raises
    ------
    ConfigError
        For values out of range.
    """

    x0: float
    y: float
    lam: float
    length: float
    beta: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, x0=None, y=None, lam=0.0, length=0.0)
        object.__setattr__(self, "beta", finite_float("beta", self.beta, least=0.0))

    @property
    def rate(self) -> float:
        """mu = 1/sqrt(lam), at which x - y and u decay; their squares decay at 2 mu."""
        return 1.0 / math.sqrt(self.lam)

    def discrete_rate(self, step: float) -> float:
        """mu_h = (2/h) arcsinh(h/(2 sqrt(lam))), the rate of Euler steps of length h."""
        h = finite_float("step", step, above=0.0)
        return 2.0 / h * math.asinh(0.5 * h * self.rate)

    def _branches(self, t: Any) -> tuple[Array, Array]:
        """Falling and rising part of e; their exponents are <= 0."""
        depths = finite_array("t", t)
        mu, b = self.rate, self.beta * self.rate
        scale = (self.x0 - self.y) / ((1.0 + b) + (1.0 - b) * math.exp(-2.0 * mu * self.length))
        falling = scale * (1.0 + b) * np.exp(-mu * depths)
        return falling, np.asarray(scale * (1.0 - b) * np.exp(mu * (depths - 2.0 * self.length)))

    def error(self, t: Any) -> Array:
        """x(t) - y at times t in [0, T]."""
        falling, rising = self._branches(t)
        return np.asarray(falling + rising)

    def control(self, t: Any) -> Array:
        """u(t) at times t in [0, T]."""
        falling, rising = self._branches(t)
        return np.asarray(self.rate * (rising - falling))

    @property
    def cost(self) -> float:
        """Minimum, -lam e0 u(0)."""
        return -self.lam * (self.x0 - self.y) * float(self.control(0.0))

    def discrete_error(self, n: int) -> Array:
        """x_k - y, k = 0 .. n, of the minimum over n Euler steps of h sum_{k<n} (e_k^2 + lam u_k^2) + beta e_n^2.

        e_k = A r^k + B r^{n-k} with r = e^{-mu_h h}, e_0 given and lam (e_n - e_{n-1})/h + beta e_n = 0.
        """
        h = self.length / positive_int("n", n)
        r = math.exp(-self.discrete_rate(h) * h)
        stiff = self.lam / h
        ratio = (stiff - r * (stiff + self.beta)) / (stiff + self.beta - r * stiff)
        falling = (self.x0 - self.y) / (1.0 + ratio * r ** (2 * n - 1))
        k = np.arange(n + 1)
        return np.asarray(falling * (r**k + ratio * r ** (2 * n - 1 - k)))

    def discrete_cost(self, n: int) -> float:
        """Minimum over n Euler steps, e_0 (h e_0 - lam u_0)."""
        e = self.discrete_error(n)
        h = self.length / n
        return float(e[0] * (h * e[0] - self.lam * (e[1] - e[0]) / h))

    @property
    def depth_constant(self) -> float:
        """Limit of n (J_n - J), T (e0^2 - e(T)^2)/2: what the left sum of e^2 adds to its integral."""
        return 0.5 * self.length * ((self.x0 - self.y) ** 2 - float(self.error(self.length)) ** 2)
