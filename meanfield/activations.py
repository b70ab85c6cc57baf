"""Activation functions: value, derivatives and primitive, and the constants theory asks of them.

sigma enters the layer, sigma' the linearisation and the adjoint, and Sigma, with
Sigma' = sigma, the energy. The forms here are NumPy's; `_activate` holds the same
functions compiled, chosen by the integer code, so that one compilation serves all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import lookup

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

LEAKY_SLOPE = 0.01


@dataclass(frozen=True)
class Activation:
    """An activation function sigma.

    Attributes
    ----------
    name, code
        What messages call it, and what compiled loops branch on.
    lipschitz
        Lambda = sup |sigma'|.
    bound
        S = sup |sigma|, infinite if unbounded.
    nondecreasing, nonnegative
        Whether sigma' >= 0, whether sigma >= 0.
    at_zero
        sigma(0).
    """

    name: str
    code: int
    lipschitz: float
    bound: float
    nondecreasing: bool
    nonnegative: bool
    at_zero: float
    _forms: tuple[Function, Function, Function, Function]

    def value(self, x: Any) -> Array:
        """sigma(x), any shape."""
        return self._evaluate(0, x)

    def derivative(self, x: Any) -> Array:
        """sigma'(x); at a kink the value from the left (0 at 0 for ReLU)."""
        return self._evaluate(1, x)

    def primitive(self, x: Any) -> Array:
        """Sigma(x), Sigma' = sigma."""
        return self._evaluate(2, x)

    def curvature(self, x: Any) -> Array:
        """sigma''(x), without the masses at kinks: 0 for ReLU."""
        return self._evaluate(3, x)

    def _evaluate(self, form: int, x: Any) -> Array:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return np.asarray(self._forms[form](np.asarray(x, dtype=np.float64)))


def _half_square(x: Array) -> Array:
    return 0.5 * x * x


def _relu(x: Array) -> Array:
    return np.where(x < 0, 0.0, x)


def _step(x: Array) -> Array:
    return np.where(x > 0, 1.0, np.where(np.isnan(x), x, 0.0))


def _leaky(x: Array) -> Array:
    return np.where(x < 0, LEAKY_SLOPE * x, x)


def _leaky_step(x: Array) -> Array:
    return np.where(x > 0, 1.0, np.where(np.isnan(x), x, LEAKY_SLOPE))


def _sech_squared(x: Array) -> Array:
    e = np.exp(-2 * np.abs(x))
    return np.asarray(4 * e / (1 + e) ** 2)


def _log_cosh(x: Array) -> Array:
    a = np.abs(x)
    near = np.log1p(2 * np.sinh(0.5 * np.minimum(a, 1.0)) ** 2)
    return np.asarray(np.where(a > 1.0, (a - math.log(2.0)) + np.log1p(np.exp(-2 * a)), near))


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, e) / (1 + e))


def _sigmoid_slope(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.asarray(e / (1 + e) ** 2)


def _softplus(x: Array) -> Array:
    return np.asarray(np.where(x < 0, 0.0, x) + np.log1p(np.exp(-np.abs(x))))


def _softplus_primitive(x: Array) -> Array:
    from scipy.special import spence  # noqa: PLC0415  (scipy loads only when asked for)

    # -Li_2(-e^x); for x > 0 by inversion, Li_2(-e^x) + Li_2(-e^-x) = -pi^2/6 - x^2/2.
    e = np.exp(-np.abs(x))
    tail = np.where(e < 1e-3, e * (1 - e / 4 * (1 - 4 * e / 9 * (1 - 9 * e / 16 * (1 - 16 * e / 25)))), -spence(1 + e))
    return np.where(x > 0, (0.5 * x * x + math.pi**2 / 6) - tail, tail)


def _cdf(x: Array) -> Array:
    from scipy.special import ndtr  # noqa: PLC0415

    return np.asarray(ndtr(x))


def _pdf(x: Array) -> Array:
    return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _gelu(x: Array) -> Array:
    return np.where(np.isneginf(x), 0.0, x * _cdf(x))


def _gelu_slope(x: Array) -> Array:
    return _cdf(x) + np.where(np.isinf(x), 0.0, x * _pdf(x))


def _gelu_primitive(x: Array) -> Array:
    from scipy.special import gammainc  # noqa: PLC0415

    # The integral of s^2 phi(s) from 0 is an incomplete gamma function; in terms of Phi and phi it would
    # leave nothing but round-off near 0. Below -40 the left tail has vanished.
    y = np.maximum(x, -40.0)
    return np.asarray(0.5 * (y * y * _cdf(y) - 0.5 * np.copysign(gammainc(1.5, 0.5 * y * y), y)))


def _gelu_curvature(x: Array) -> Array:
    return np.where(np.isinf(x), 0.0, (2 - x * x) * _pdf(x))


_TABLE: tuple[tuple[str, float, float, bool, bool, float, tuple[Function, Function, Function, Function]], ...] = (
    ("identity", 1.0, math.inf, True, False, 0.0, (np.copy, np.ones_like, _half_square, np.zeros_like)),
    ("relu", 1.0, math.inf, True, True, 0.0, (_relu, _step, lambda x: _half_square(_relu(x)), np.zeros_like)),
    (
        "leaky_relu",
        1.0,
        math.inf,
        True,
        False,
        0.0,
        (_leaky, _leaky_step, lambda x: 0.5 * _leaky(x) * x, np.zeros_like),
    ),
    (
        "tanh",
        1.0,
        1.0,
        True,
        False,
        0.0,
        (np.tanh, _sech_squared, _log_cosh, lambda x: -2 * np.tanh(x) * _sech_squared(x)),
    ),
    (
        "sigmoid",
        0.25,
        1.0,
        True,
        True,
        0.5,
        (_sigmoid, _sigmoid_slope, _softplus, lambda x: -np.tanh(0.5 * x) * _sigmoid_slope(x)),
    ),
    ("softplus", 1.0, math.inf, True, True, math.log(2.0), (_softplus, _sigmoid, _softplus_primitive, _sigmoid_slope)),
    # sup |gelu'| is attained at sqrt 2: Phi(sqrt 2) + sqrt 2 phi(sqrt 2).
    ("gelu", 1.1289041451202352, math.inf, False, False, 0.0, (_gelu, _gelu_slope, _gelu_primitive, _gelu_curvature)),
    ("sine", 1.0, 1.0, False, False, 0.0, (np.sin, np.cos, lambda x: 2 * np.sin(0.5 * x) ** 2, lambda x: -np.sin(x))),
)

ACTIVATIONS = {
    name: Activation(name, code, lipschitz, bound, nondecreasing, nonnegative, at_zero, forms)
    for code, (name, lipschitz, bound, nondecreasing, nonnegative, at_zero, forms) in enumerate(_TABLE)
}


def activation(name: str | Activation) -> Activation:
    """Return the activation of that name; an `Activation` is returned as it is.

    Raises
    ------
    ConfigError
        For an unknown name; the message suggests the nearest one.
    """
    return name if isinstance(name, Activation) else lookup("activation", name, ACTIVATIONS)
