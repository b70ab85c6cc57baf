"""Compiled activation functions, chosen by the integer code of `activations`.

Scalar forms branch on the code; array forms branch once and then run a vector loop.
They work in place on a copy: a loop that reads one array and writes another which may
be the same would have to be scalar. A new activation is one branch in each.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from meanfield._jit import ELEMENTARY, njit
from meanfield._vectormath import (
    cos_bounded,
    dilogarithm_unit,
    exp,
    expm1,
    log_cosh,
    normal_cdf,
    normal_pdf,
    prefer512,
    second_moment_unit,
    sigmoid,
    sin_bounded,
    softplus,
    tanh,
)

Array = NDArray[np.float64]

IDENTITY, RELU, LEAKY_RELU, TANH, SIGMOID, SOFTPLUS, GELU, SINE = range(8)
_SLOPE = 0.01
_ZETA2 = 1.6449340668482264
# Beyond this the vector sine has no digits left to reduce with; the C library takes over.
_FAR = 1e5


@njit(fastmath=ELEMENTARY, forceinline=True)
def _sech_squared(x: float) -> float:
    e = exp(-2.0 * abs(x))
    return 4.0 * e / ((1.0 + e) * (1.0 + e))


@njit(fastmath=ELEMENTARY, forceinline=True)
def _sigmoid_slope(x: float) -> float:
    e = exp(-abs(x))
    return e / ((1.0 + e) * (1.0 + e))


@njit(fastmath=ELEMENTARY, forceinline=True)
def _softplus_primitive(x: float) -> float:
    tail = dilogarithm_unit(exp(-abs(x)))
    return (0.5 * x * x + _ZETA2) - tail if x > 0.0 else tail


@njit(fastmath=ELEMENTARY, forceinline=True)
def _finite(x: float) -> float:
    """Return x with -inf replaced by a number at which the left tail has vanished."""
    return -40.0 if x < -40.0 else x


@njit(fastmath=ELEMENTARY, forceinline=True)
def _gelu(x: float) -> float:
    return _finite(x) * normal_cdf(x)


@njit(fastmath=ELEMENTARY, forceinline=True)
def _gelu_slope(x: float) -> float:
    y = 40.0 if x > 40.0 else _finite(x)
    return normal_cdf(x) + y * normal_pdf(y)


@njit(fastmath=ELEMENTARY, forceinline=True)
def _gelu_primitive(x: float) -> float:
    y = _finite(x)
    bounded = 40.0 if y > 40.0 else y
    cdf = normal_cdf(y)
    # Near 0 the closed form is a difference of numbers near 1/4.
    near = 0.5 * (y * y * cdf - second_moment_unit(0.0 if abs(x) > 1.0 else x))
    far = 0.5 * ((y * y - 1.0) * cdf + bounded * normal_pdf(bounded)) + 0.25
    return far if abs(x) > 1.0 else near


@njit(fastmath=ELEMENTARY)
def _sine(x: float) -> float:
    # Without the compiler math.sin raises for an infinite argument.
    return math.nan if abs(x) == math.inf else math.sin(x)


@njit(fastmath=ELEMENTARY)
def _cosine(x: float) -> float:
    return math.nan if abs(x) == math.inf else math.cos(x)


@njit(fastmath=ELEMENTARY, forceinline=True)
def _slope_at(x: float, left: float) -> float:
    """Slope of a function with a kink at 0: `left` up to it, 1 beyond, NaN at NaN."""
    return 1.0 if x > 0.0 else (x if x != x else left)  # noqa: PLR0124


@njit(fastmath=ELEMENTARY)
def value(code: int, x: float) -> float:
    """sigma(x)."""
    if code == RELU:
        return 0.0 if x < 0.0 else x
    if code == LEAKY_RELU:
        return _SLOPE * x if x < 0.0 else x
    if code == TANH:
        return tanh(x)
    if code == SIGMOID:
        return sigmoid(x)
    if code == SOFTPLUS:
        return softplus(x)
    if code == GELU:
        return _gelu(x)
    if code == SINE:
        return _sine(x)
    return x


@njit(fastmath=ELEMENTARY)
def derivative(code: int, x: float) -> float:
    """sigma'(x); at a kink the value from the left."""
    if code == RELU:
        return _slope_at(x, 0.0)
    if code == LEAKY_RELU:
        return _slope_at(x, _SLOPE)
    if code == TANH:
        return _sech_squared(x)
    if code == SIGMOID:
        return _sigmoid_slope(x)
    if code == SOFTPLUS:
        return sigmoid(x)
    if code == GELU:
        return _gelu_slope(x)
    if code == SINE:
        return _cosine(x)
    return 1.0


@njit(fastmath=ELEMENTARY)
def primitive(code: int, x: float) -> float:
    """Sigma(x), Sigma' = sigma."""
    if code == RELU:
        return 0.0 if x < 0.0 else 0.5 * x * x
    if code == LEAKY_RELU:
        return 0.5 * (_SLOPE * x if x < 0.0 else x) * x
    if code == TANH:
        return log_cosh(x)
    if code == SIGMOID:
        return softplus(x)
    if code == SOFTPLUS:
        return _softplus_primitive(x)
    if code == GELU:
        return _gelu_primitive(x)
    if code == SINE:
        s = _sine(0.5 * x)
        return 2.0 * s * s
    return 0.5 * x * x


@njit(fastmath=ELEMENTARY)
def _all_near(x: Array) -> bool:
    """Whether every entry is in the range of the vector sine; NaN counts as near."""
    far = 0
    for j in range(x.size):
        far += 1 if abs(x[j]) > _FAR else 0
    return far == 0


@njit(fastmath=ELEMENTARY, forceinline=True)
def _copy(x: Array, out: Array) -> None:
    for j in range(x.size):
        out[j] = x[j]


@njit(fastmath=ELEMENTARY)
def apply_value(code: int, x: Array, out: Array) -> None:
    """Fill out = sigma(x) over flat arrays; `out` may be `x`."""
    prefer512()
    _copy(x, out)
    if code == RELU:
        for j in range(out.size):
            out[j] = 0.0 if out[j] < 0.0 else out[j]
    elif code == LEAKY_RELU:
        for j in range(out.size):
            out[j] = _SLOPE * out[j] if out[j] < 0.0 else out[j]
    elif code == TANH:
        for j in range(out.size):
            out[j] = tanh(out[j])
    elif code == SIGMOID:
        for j in range(out.size):
            out[j] = sigmoid(out[j])
    elif code == SOFTPLUS:
        for j in range(out.size):
            out[j] = softplus(out[j])
    elif code == GELU:
        for j in range(out.size):
            out[j] = _gelu(out[j])
    elif code == SINE and _all_near(out):
        for j in range(out.size):
            out[j] = sin_bounded(out[j])
    elif code == SINE:
        for j in range(out.size):
            out[j] = _sine(out[j])


@njit(fastmath=ELEMENTARY)
def apply_derivative(code: int, x: Array, out: Array) -> None:
    """Fill out = sigma'(x) over flat arrays; `out` may be `x`."""
    prefer512()
    _copy(x, out)
    if code == IDENTITY:
        for j in range(out.size):
            out[j] = 1.0
    elif code in (RELU, LEAKY_RELU):
        left = 0.0 if code == RELU else _SLOPE
        for j in range(out.size):
            out[j] = _slope_at(out[j], left)
    elif code == TANH:
        for j in range(out.size):
            out[j] = _sech_squared(out[j])
    elif code == SIGMOID:
        for j in range(out.size):
            out[j] = _sigmoid_slope(out[j])
    elif code == SOFTPLUS:
        for j in range(out.size):
            out[j] = sigmoid(out[j])
    elif code == GELU:
        for j in range(out.size):
            out[j] = _gelu_slope(out[j])
    elif code == SINE and _all_near(out):
        for j in range(out.size):
            out[j] = cos_bounded(out[j])
    else:
        for j in range(out.size):
            out[j] = _cosine(out[j])


@njit(fastmath=ELEMENTARY, forceinline=True)
def slope_is_of_value(code: int) -> bool:
    """Whether sigma'(x) follows from sigma(x) alone, as for monotone activations."""
    return code not in (GELU, SINE)


@njit(fastmath=ELEMENTARY)
def slopes_of_values(code: int, value: Array, out: Array) -> None:
    """Fill out = sigma'(x) from value = sigma(x) over flat arrays, where `slope_is_of_value`."""
    prefer512()
    if code == IDENTITY:
        out[:] = 1.0
    elif code in (RELU, LEAKY_RELU):
        left = 0.0 if code == RELU else _SLOPE
        for i in range(out.size):
            out[i] = 1.0 if value[i] > 0.0 else left
    elif code == TANH:
        for i in range(out.size):
            out[i] = 1.0 - value[i] * value[i]
    elif code == SIGMOID:
        for i in range(out.size):
            out[i] = value[i] * (1.0 - value[i])
    else:  # softplus: sigmoid(u) = 1 - e^{-softplus(u)}
        for i in range(out.size):
            out[i] = -expm1(-value[i])


@njit(fastmath=ELEMENTARY)
def apply_primitive(code: int, x: Array, out: Array) -> None:
    """Fill out = Sigma(x) over flat arrays; `out` may be `x`."""
    prefer512()
    _copy(x, out)
    if code == IDENTITY:
        for j in range(out.size):
            out[j] = 0.5 * out[j] * out[j]
    elif code == RELU:
        for j in range(out.size):
            out[j] = 0.0 if out[j] < 0.0 else 0.5 * out[j] * out[j]
    elif code == LEAKY_RELU:
        for j in range(out.size):
            out[j] = 0.5 * (_SLOPE * out[j] if out[j] < 0.0 else out[j]) * out[j]
    elif code == TANH:
        for j in range(out.size):
            out[j] = log_cosh(out[j])
    elif code == SIGMOID:
        for j in range(out.size):
            out[j] = softplus(out[j])
    elif code == SOFTPLUS:
        for j in range(out.size):
            out[j] = _softplus_primitive(out[j])
    elif code == GELU:
        for j in range(out.size):
            out[j] = _gelu_primitive(out[j])
    elif _all_near(out):
        for j in range(out.size):
            s = sin_bounded(0.5 * out[j])
            out[j] = 2.0 * s * s
    else:
        for j in range(out.size):
            s = _sine(0.5 * out[j])
            out[j] = 2.0 * s * s
