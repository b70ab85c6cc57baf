"""Single-precision exp and log for vector loops, and names that serve both precisions.

`exp_decay_of` and `log_of` compile to the version of their argument's precision, so that a
loop is written once. Errors over the whole range: 3 ulp of single precision for both (tests/test_vectormath.py).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.core import config
from numba.extending import intrinsic

from meanfield._jit import ELEMENTARY, njit
from meanfield._vectormath import exp_decay, log_positive

_F = np.float32
_LOG2E, _LN2_HIGH, _LN2_LOW = _F(1.4426950408889634), _F(0.693359375), _F(-2.12194440e-4)
_MAGIC = _F(12582912.0)  # 1.5 2^23: adding it rounds to an integer
_LOW, _HIGH, _ONE, _TWO = _F(-87.0), _F(88.0), _F(1.0), _F(2.0)
_E2, _E3, _E4, _E5, _E6 = (_F(1 / math.factorial(k)) for k in (2, 3, 4, 5, 6))
_L3, _L5, _L7, _L9 = (_F(2.0 / k) for k in (3, 5, 7, 9))
_SQRT2, _HALF = _F(1.4142135), _F(0.5)

if getattr(config, "DISABLE_JIT", False):  # set by numba from NUMBA_DISABLE_JIT

    def exp_decay_of(x: Any) -> Any:
        """e^x in the precision of x."""
        return np.exp(x)

    def log_of(x: Any) -> Any:
        """Natural logarithm of a positive x, in its precision."""
        return np.log(x)

else:
    from llvmlite import ir
    from numba import types
    from numba.extending import overload

    def _bit_function(make: Any) -> Any:
        """Return an intrinsic on one float32 from a function of builder and its bits."""

        @intrinsic
        def function(_context: Any, x: Any) -> Any:  # noqa: ARG001 (numba asks for the argument)
            def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
                word = ir.IntType(32)
                bits = builder.bitcast(arguments[0], word)
                return make(builder, bits, lambda v: ir.Constant(word, v), arguments[0].type)

            return types.float32(types.float32), generate

        return function

    # 2^k from t = k + 1.5 2^23.
    _power_of_two = _bit_function(
        lambda b, bits, c, real: b.bitcast(b.shl(b.add(bits, c(127)), c(23)), real),
    )
    # Exponent of a positive normal number, as a number.
    _exponent = _bit_function(lambda b, bits, c, real: b.sitofp(b.sub(b.lshr(bits, c(23)), c(127)), real))
    # Its significand, in [1, 2).
    _significand = _bit_function(
        lambda b, bits, c, real: b.bitcast(b.or_(b.and_(bits, c(0x7FFFFF)), c(0x3F800000)), real),
    )

    @njit(fastmath=ELEMENTARY, forceinline=True)
    def _exp_single(x: float) -> float:
        y = _LOW if x < _LOW else x
        y = _HIGH if y > _HIGH else y
        t = y * _LOG2E + _MAGIC
        k = t - _MAGIC
        r = (y - k * _LN2_HIGH) - k * _LN2_LOW
        r2 = r * r
        q = (_E2 + r * _E3) + r2 * ((_E4 + r * _E5) + r2 * _E6)
        return _power_of_two(t) * (_ONE + (r + r2 * q))  # type: ignore[no-any-return]

    @njit(fastmath=ELEMENTARY, forceinline=True)
    def _log_single(x: float) -> float:
        m, e = _significand(x), _exponent(x)
        upper = m > _SQRT2
        m = _HALF * m if upper else m
        e = e + _ONE if upper else e
        f = m - _ONE
        s = f / (_TWO + f)
        w = s * s
        p = _L3 + w * (_L5 + w * (_L7 + w * _L9))
        return e * _LN2_HIGH + ((f - s * (f - w * p)) + (e * _LN2_LOW + (x - x)))  # type: ignore[no-any-return]

    def exp_decay_of(x: Any) -> Any:
        """e^x in the precision of x."""
        return exp_decay(x)

    def log_of(x: Any) -> Any:
        """Natural logarithm of a positive normal x, in its precision."""
        return log_positive(x)

    @overload(exp_decay_of, strict=False, jit_options={"fastmath": set(ELEMENTARY), "forceinline": True})
    def _exp_decay_of(x: Any) -> Any:
        if x == types.float32:
            return lambda x: _exp_single(x)  # noqa: PLW0108 (numba wants a plain function)
        return lambda x: exp_decay(x)  # noqa: PLW0108 (numba wants a plain function)

    @overload(log_of, strict=False, jit_options={"fastmath": set(ELEMENTARY), "forceinline": True})
    def _log_of(x: Any) -> Any:
        if x == types.float32:
            return lambda x: _log_single(x)  # noqa: PLW0108 (numba wants a plain function)
        return lambda x: log_positive(x)  # noqa: PLW0108 (numba wants a plain function)
