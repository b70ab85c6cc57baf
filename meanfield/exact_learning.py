"""Deep limits of linear networks in closed form: biases, weights, and what has no limit.

Scalar states, one datum, loss (x(T) - y)^2 without 1/2: X_{i+1} = X_i + (1/n) f(X_i, theta_i) with the penalty
alpha (n sum_{i>=1} |theta_i - theta_{i-1}|^2 + tau |theta_0|^2) of n layers:

    biases only, f = b:      solved at every n and in the limit                         `DeepBias`
    weights only, f = K X:   all stationary points of the limit, and the 1/n beside it  `DeepWeight`

Source: consequences of the models; the penalty is that of Thorpe and van Gennip, "Deep limits of residual neural
networks", arXiv 1810.11741.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float, positive_int
from meanfield.errors import ConfigError

Array = NDArray[np.float64]

# Largest k x^2 with several stationary points for some target: where I = k x^2 e^{2 I} + 1 has a double root.
_CUSP = 0.5 * math.exp(-3.0)


def check_fields(own: Any, **bounds: float | None) -> None:
    """Check the fields of a frozen value: finite, and above their bound where it is one."""
    for name, above in bounds.items():
        object.__setattr__(own, name, finite_float(name, getattr(own, name), above=above))


def _shape_of_depth(s: Array, tau: float) -> Array:
    """1/tau + s - s^2/2, in the form of every optimal parameter of the deep limits."""
    return np.asarray(1.0 / tau + s - 0.5 * s * s)


@dataclass(frozen=True)
class DeepBias:
    """Biases only: X_n = x + (1/n) sum_i b_i; minimise (X_n - y)^2 + alpha (n sum |b_i - b_{i-1}|^2 + tau b_0^2).

    With k_n = [1/tau + (n - 1)(2 n - 1)/(6 n^2)]/alpha the minimum is (x - y)^2/(1 + k_n), taken by
    b_i = -(r/alpha) [1/tau + i/n - i (i + 1)/(2 n^2)] with r = X_n - y = (x - y)/(1 + k_n).

    Parameters
    ----------
    x, y
        Input and target.
    alpha, tau
        Strength of the penalty and weight of its start, > 0.

    Raises
    ------
    ConfigError
        For values out of range.
    """

    x: float
    y: float
    alpha: float
    tau: float

    def __post_init__(self) -> None:
        check_fields(self, x=None, y=None, alpha=0.0, tau=0.0)

    def stiffness(self, n: int | None = None) -> float:
        """k_n; None is the limit k = (1/tau + 1/3)/alpha."""
        if n is None:
            return (1.0 / self.tau + 1.0 / 3.0) / self.alpha
        n = positive_int("n", n)
        return (1.0 / self.tau + (n - 1) * (2 * n - 1) / (6.0 * n * n)) / self.alpha

    def residual(self, n: int | None = None) -> float:
        """X_n - y at the minimum, (x - y)/(1 + k_n)."""
        return (self.x - self.y) / (1.0 + self.stiffness(n))

    def energy(self, n: int | None = None) -> float:
        """Minimum, (x - y)^2/(1 + k_n)."""
        return (self.x - self.y) ** 2 / (1.0 + self.stiffness(n))

    def biases(self, n: int) -> Array:
        """The minimiser b_0 .. b_{n-1}."""
        i = np.arange(positive_int("n", n))
        return -(self.residual(n) / self.alpha) * (1.0 / self.tau + i / n - i * (i + 1) / (2.0 * n * n))

    def limit(self, s: Any) -> Array:
        """The minimiser b(s) = -(r/alpha) (1/tau + s - s^2/2) of the limit at depths s in [0, 1]."""
        return -(self.residual() / self.alpha) * _shape_of_depth(finite_array("s", s), self.tau)

    @property
    def depth_constant(self) -> float:
        """Limit of n (min E_n - min E), r^2/(2 alpha), as k_n = k - 1/(2 n alpha) + O(n^-2)."""
        return self.residual() ** 2 / (2.0 * self.alpha)


@dataclass(frozen=True)
class StationaryPoint:
    """Stationary point of (x e^I - y)^2 + I^2/k.

    Attributes
    ----------
    integral
        I, the integral of the parameter over depth.
    g
        Derivative of half the loss with respect to I, x e^I (x e^I - y) = -I/k.
    energy
        Value there.
    stable
        Whether it is a local minimum.
    """

    integral: float
    g: float
    energy: float
    stable: bool


def stationary_points(x: float, y: float, k: float) -> tuple[StationaryPoint, ...]:
    """All stationary points of (x e^I - y)^2 + I^2/k by increasing I: the roots of I + k x e^I (x e^I - y) = 0.

    Between the roots of the derivative, which is quadratic in v = x e^I, the function is monotone, and all its
    roots lie between 0 and ln(y/x) if x y > 0, in [-k (x^2 + |x y|), 0] otherwise: nothing is missed. There are
    three at most, and for some y three if and only if k x^2 < e^-3/2 (see `DeepWeight.bistable_targets`).

    Raises
    ------
    ConfigError
        For x = 0 or k <= 0.
    """
    from scipy.optimize import brentq  # noqa: PLC0415 (slow to import)

    x, y, k = finite_float("x", x), finite_float("y", y), finite_float("k", k, above=0.0)
    if x == 0.0:
        raise ConfigError("x must not be 0: no weight moves it")

    def slope(i: float) -> float:
        v = x * math.exp(i)
        return i + k * v * (v - y)

    far = math.log(y / x) if x * y > 0.0 else -k * (x * x + abs(x * y))
    ends = sorted((0.0, far))
    nodes = [ends[0], *(c for c in _turning_points(x, y, k) if ends[0] < c < ends[1]), ends[1]]
    levels = [slope(i) for i in nodes]
    roots = [i for i, level in zip(nodes, levels, strict=True) if level == 0.0]
    pieces = [j for j in range(len(nodes) - 1) if levels[j] * levels[j + 1] < 0.0]
    roots += [float(brentq(slope, nodes[j], nodes[j + 1], xtol=1e-15, rtol=8.9e-16)) for j in pieces]
    # The two ends may agree to round-off: then they are the root.
    roots = sorted(set(roots)) or [min(zip(map(abs, levels), nodes, strict=True))[1]]
    return tuple(_point(x, y, k, i) for i in roots)


def _turning_points(x: float, y: float, k: float) -> list[float]:
    """I where the derivative 1 + k v (2 v - y) of the stationarity vanishes, increasing."""
    root = k * y * y - 8.0
    if root <= 0.0 or x * y <= 0.0:
        return []
    large = (abs(y) + math.sqrt(root / k)) / 4.0
    return [math.log(v / abs(x)) for v in (1.0 / (2.0 * k * large), large)]


def _point(x: float, y: float, k: float, i: float) -> StationaryPoint:
    v = x * math.exp(i)
    return StationaryPoint(i, -i / k, (v - y) ** 2 + i * i / k, 1.0 + k * v * (2.0 * v - y) > 0.0)


def best_of(points: tuple[StationaryPoint, ...]) -> StationaryPoint:
    """Return the point of least energy."""
    return min(points, key=lambda point: point.energy)


class BistableTargets(NamedTuple):
    """Targets y between which the limit problem has two local minima, and the one where both have the same energy."""

    first: float
    equal: float
    last: float


@dataclass(frozen=True)
class DeepWeight:
    """Weights only, linear: X_n = x prod_i (1 + K_i/n), the limit X(1) = x e^I with I = int K.

    Minimise (X_n - y)^2 + alpha (n sum |K_i - K_{i-1}|^2 + tau K_0^2). In the limit I + k x e^I (x e^I - y) = 0 with
    k = (1/tau + 1/3)/alpha, and K(s) = -(g/alpha) (1/tau + s - s^2/2) with g = x e^I (x e^I - y).

    Parameters
    ----------
    x, y
        Input, not 0, and target.
    alpha, tau
        Strength of the penalty and weight of its start, > 0.

    Raises
    ------
    ConfigError
        For values out of range.
    """

    x: float
    y: float
    alpha: float
    tau: float

    def __post_init__(self) -> None:
        check_fields(self, x=None, y=None, alpha=0.0, tau=0.0)
        if self.x == 0.0:
            raise ConfigError("x must not be 0: no weight moves it")

    @property
    def stiffness(self) -> float:
        """k = (1/tau + 1/3)/alpha: the least penalty of weights with integral I is I^2/k."""
        return (1.0 / self.tau + 1.0 / 3.0) / self.alpha

    def points(self) -> tuple[StationaryPoint, ...]:
        """All stationary points of the limit, by increasing I."""
        return stationary_points(self.x, self.y, self.stiffness)

    def optimum(self) -> StationaryPoint:
        """Global minimum of the limit."""
        return best_of(self.points())

    def weights(self, s: Any, point: StationaryPoint | None = None) -> Array:
        """K(s) at depths s in [0, 1] of a stationary point, None: of the global minimum."""
        at = point or self.optimum()
        return -(at.g / self.alpha) * _shape_of_depth(finite_array("s", s), self.tau)

    def depth_constant(self, point: StationaryPoint | None = None) -> float:
        """Limit of n (E_n - E) at the minimum of E_n near a local minimum: -g [K(1) - K(0) + int K^2].

        -(K(1) - K(0))/(2 n) is what the sum over layers misses of the integral of K, and -int K^2/(2 n) what the
        product misses of the exponential; the penalty misses O(n^-2).
        """
        at = point or self.optimum()
        scale = -at.g / self.alpha
        squares = scale**2 * (1.0 / self.tau**2 + 2.0 / (3.0 * self.tau) + 2.0 / 15.0)
        return -at.g * (0.5 * scale + squares)

    @staticmethod
    def bistable_targets(x: float, alpha: float, tau: float) -> BistableTargets | None:
        """Range of targets y with two local minima, None where there is none: for k x^2 >= e^-3/2.

        The root I belongs to the target y = v + I/(k v), v = x e^I, which as a function of I turns where
        I = 1 + k x^2 e^{2 I}. The two roots of that are the ends of the range; at the cusp they are I = 3/2.
        """
        from scipy.optimize import brentq  # noqa: PLC0415

        k = DeepWeight(x, 0.0, alpha, tau).stiffness
        if k * x * x >= _CUSP:
            return None

        def turn(i: float) -> float:
            return 1.0 + k * x * x * math.exp(2.0 * i) - i

        middle = -0.5 * math.log(2.0 * k * x * x)
        ends = [float(brentq(turn, a, b, xtol=1e-15)) for a, b in ((1.0, middle), (middle, 2.0 * middle))]
        last, first = (x * math.exp(i) + i / (k * x * math.exp(i)) for i in ends)

        def difference(part: float) -> float:
            points = stationary_points(x, first + part * (last - first), k)
            return points[-1].energy - points[0].energy

        tie = float(brentq(difference, 1e-6, 1.0 - 1e-6, xtol=1e-15))
        return BistableTargets(first, first + tie * (last - first), last)


def alternating_output(x: float, c: float, n: int | None = None) -> float:
    """X_n under X_{i+1} = X_i + K_i X_i/n with K_i = (-1)^i c sqrt(n); None is the limit x e^{-c^2/2}.

    The weights tend to 0 as distributions, under which X stays at x, but their penalty is unbounded: without a bound
    of it there is no limit of depth. X_n = x (1 - c^2/n)^{n/2} for even n, times 1 + c/sqrt(n) for odd ones.
    """
    x, c = finite_float("x", x), finite_float("c", c)
    if n is None:
        return x * math.exp(-0.5 * c * c)
    pairs, single = divmod(positive_int("n", n), 2)
    return float(x * (1.0 - c * c / n) ** pairs * (1.0 + c / math.sqrt(n)) ** single)


def penalty_modes(tau: float, count: int) -> Array:
    """mu_1 < mu_2 < ... with mu tan(mu) = tau, (count,): the modes cos(mu_j (1 - t)) of int |K'|^2 + tau K(0)^2.

    Under the gradient flow of alpha times that penalty a mode decays as e^{-2 alpha mu_j^2 s}; with n layers the
    flow is that of n times the gradient.
    """
    from scipy.optimize import brentq  # noqa: PLC0415

    tau = finite_float("tau", tau, above=0.0)
    starts = math.pi * np.arange(positive_int("count", count))
    # In mu - j pi the branches are alike, and cos and sin have no poles.
    roots = [brentq(lambda m, a=a: (a + m) * math.sin(m) - tau * math.cos(m), 0.0, 0.5 * math.pi) for a in starts]
    return np.asarray(starts + np.array(roots))
