"""Elementary functions without branches, so that loops calling them become vector code.

Numba's own calls into the C library cost 5 to 15 times as much in a loop. Everything
here is plain arithmetic, selects and bit operations. Errors, measured over the whole
range (tests/test_vectormath.py), with and without fused multiply-add: exp and erf at
most 1.1 ulp; expm1, log1p, ln cosh and the dilogarithm 2.1; softplus, sigmoid, sine,
cosine, the normal density and log 2.5; tanh and the exponential of kernels 3; the normal
distribution 4. Tiny arguments keep their relative accuracy, subnormal results are
correct to a few of their spacings.
Infinities and NaN pass as they should: clamps are selects in which a comparison with
NaN keeps the NaN.

No reassociation is allowed in this file: it would undo the two-part reductions.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from numba.core import config
from numba.extending import intrinsic

from meanfield._jit import ELEMENTARY, njit

if getattr(config, "DISABLE_JIT", False):  # set by numba from NUMBA_DISABLE_JIT
    # Plain Python, for coverage and debugging.

    def prefer512() -> None:
        """Do nothing without the compiler."""

    def _bits(x: float) -> int:
        return int(struct.unpack("<q", struct.pack("<d", x))[0])

    def _float(n: int) -> float:
        return float(struct.unpack("<d", struct.pack("<Q", n & (2**64 - 1)))[0])

    def _power_of_two(x: float) -> float:
        return _float(((_bits(x) + 1023) << 52) & (2**64 - 1))

    def _head(x: float) -> float:
        return _float(_bits(x) & -(2**27))

    def _exponent(x: float) -> float:
        return float((_bits(x) >> 52) - 1023)

    def _significand(x: float) -> float:
        return _float((_bits(x) & (2**52 - 1)) | (1023 << 52))

else:
    from llvmlite import ir
    from numba import types

    @intrinsic
    def prefer512(_context: Any) -> Any:
        """Ask for 512-bit vectors in the enclosing function; the compiler's default is 256."""

        def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
            set.add(builder.function.attributes, '"prefer-vector-width"="512"')
            return context.get_dummy_value()

        return types.void(), generate

    @intrinsic
    def _power_of_two(_context: Any, x: Any) -> Any:  # noqa: ARG001 (numba asks for the argument)
        """2^k from t = k + 1.5 2^52: the low bits of t are k, moved into the exponent field."""

        def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            word = ir.IntType(64)
            bits = builder.bitcast(arguments[0], word)
            shifted = builder.shl(builder.add(bits, ir.Constant(word, 1023)), ir.Constant(word, 52))
            return builder.bitcast(shifted, arguments[0].type)

        return types.float64(types.float64), generate

    @intrinsic
    def _head(_context: Any, x: Any) -> Any:  # noqa: ARG001 (numba asks for the argument)
        """Leading 26 bits of a double: its square is exact."""

        def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            word = ir.IntType(64)
            bits = builder.bitcast(arguments[0], word)
            return builder.bitcast(builder.and_(bits, ir.Constant(word, -(2**27))), arguments[0].type)

        return types.float64(types.float64), generate

    @intrinsic
    def _exponent(_context: Any, x: Any) -> Any:  # noqa: ARG001 (numba asks for the argument)
        """Exponent of a positive normal number, as a number."""

        def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            word = ir.IntType(64)
            bits = builder.lshr(builder.bitcast(arguments[0], word), ir.Constant(word, 52))
            return builder.sitofp(builder.sub(bits, ir.Constant(word, 1023)), arguments[0].type)

        return types.float64(types.float64), generate

    @intrinsic
    def _significand(_context: Any, x: Any) -> Any:  # noqa: ARG001 (numba asks for the argument)
        """Significand of a positive normal number, in [1, 2)."""

        def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            word = ir.IntType(64)
            bits = builder.and_(builder.bitcast(arguments[0], word), ir.Constant(word, 2**52 - 1))
            return builder.bitcast(builder.or_(bits, ir.Constant(word, 1023 << 52)), arguments[0].type)

        return types.float64(types.float64), generate


_MAGIC = 6755399441055744.0  # 1.5 2^52: adding it rounds to an integer
_LOG2E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_LN2 = 0.6931471805599453
_INF = math.inf
_HALF_PI = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21)
_SQRT_HALF = 0.7071067811865476
_FIVE_SQRT_HALF = 3.5355339059327378
_SQRT_EIGHT = 2.8284271247461903
_INV_SQRT_2PI = 0.3989422804014327


@njit(fastmath=ELEMENTARY, forceinline=True)
def _expm1_core(r: float) -> float:
    """e^r - 1 for |r| <= ln(2)/2: Taylor to degree 13, evaluated as a tree; truncation 5e-18."""
    r2 = r * r
    r4 = r2 * r2
    a = 1.0 / 2 + r * (1.0 / 6)
    b = 1.0 / 24 + r * (1.0 / 120)
    c = 1.0 / 720 + r * (1.0 / 5040)
    d = 1.0 / 40320 + r * (1.0 / 362880)
    e = (1.0 / 3628800 + r * (1.0 / 39916800)) + r2 * (1.0 / 479001600 + r * (1.0 / 6227020800))
    return r + r2 * ((a + r2 * b) + r4 * ((c + r2 * d) + r4 * e))


@njit(fastmath=ELEMENTARY, forceinline=True)
def _exp_of_sum(x: float, low: float) -> float:
    """e^(x + low) for |low| <= 1e-3: what is left of x after the powers of two takes `low` in."""
    y = -750.0 if x < -750.0 else x
    y = 710.0 if y > 710.0 else y
    k = (y * _LOG2E + _MAGIC) - _MAGIC
    r = ((y - k * _LN2_HIGH) - k * _LN2_LOW) + low
    # 2^k in two factors: k runs beyond the exponents of normal numbers on both sides.
    half = 0.5 * k + _MAGIC
    rest = (k - (half - _MAGIC)) + _MAGIC
    return ((1.0 + _expm1_core(r)) * _power_of_two(half)) * _power_of_two(rest)


@njit(fastmath=ELEMENTARY, forceinline=True)
def exp(x: float) -> float:
    """e^x; subnormal below -708, 0 below -746, infinite above 709.78."""
    return _exp_of_sum(x, 0.0)


@njit(fastmath=ELEMENTARY, forceinline=True)
def exp_decay(x: float) -> float:
    """e^x for x <= 0 and a little above, without subnormal numbers: 3e-308 below -708."""
    y = -708.0 if x < -708.0 else x
    t = y * _LOG2E + _MAGIC
    k = t - _MAGIC
    r = (y - k * _LN2_HIGH) - k * _LN2_LOW
    s = _power_of_two(t)
    r2 = r * r
    r4 = r2 * r2
    # Minimax of degree 10 for |r| <= ln 2 / 2 with both leading terms exact: truncation 2.9e-16.
    a = 0.4999999999999832 + r * 0.16666666666611335
    b = 0.04166666666814233 + r * 0.008333333370982349
    c = 0.001388888851511936 + r * 0.00019841185067500272
    d = (2.4801932395368533e-05 + r * 2.7635068254042176e-06) + r2 * 2.747672056703407e-07
    return s + s * (r + r2 * ((a + r2 * b) + r4 * (c + r2 * d)))


@njit(fastmath=ELEMENTARY, forceinline=True)
def expm1(x: float) -> float:
    """e^x - 1, to relative accuracy near 0."""
    y = -50.0 if x < -50.0 else x
    y = 710.0 if y > 710.0 else y
    t = y * _LOG2E + _MAGIC
    k = t - _MAGIC
    r = (y - k * _LN2_HIGH) - k * _LN2_LOW
    # Half of 2^k first: 2^1024 itself is no double.
    s = _power_of_two(t - 1.0)
    value = 2.0 * (s * _expm1_core(r) + (s - 0.5))
    return value if (k != 0.0) else (_expm1_core(r) if x != 0.0 else x)


@njit(fastmath=ELEMENTARY, forceinline=True)
def _log1p_core(f: float) -> float:
    """log(1 + f) for sqrt(1/2) <= 1 + f <= sqrt(2): 2 atanh(f / (2 + f))."""
    s = f / (2.0 + f)
    w = s * s
    p = 0.15311179609537448 + w * 0.14823750548910397
    p = 0.1818368225999668 + w * p
    p = 0.2222219612264375 + w * p
    p = 0.285714287694224 + w * p
    p = 0.3999999999926343 + w * p
    p = 0.6666666666666771 + w * p
    return f - s * (f - w * p)  # = 2 s + s w p, the leading 2 s as f - s f


@njit(fastmath=ELEMENTARY, forceinline=True)
def log1p_unit(y: float) -> float:
    """log(1 + y) for 0 <= y <= 1, to relative accuracy: the core after one halving."""
    upper = y > 0.41421356237309503
    value = _log1p_core(0.5 * (y - 1.0) if upper else y)
    return _LN2 + value if upper else value


@njit(fastmath=ELEMENTARY, forceinline=True)
def log_positive(x: float) -> float:
    """Natural logarithm of a positive normal number; NaN passes by x - x."""
    m, e = _significand(x), _exponent(x)
    upper = m > 1.4142135623730951
    m = 0.5 * m if upper else m
    e = e + 1.0 if upper else e
    return e * _LN2_HIGH + (_log1p_core(m - 1.0) + (e * _LN2_LOW + (x - x)))


@njit(fastmath=ELEMENTARY, forceinline=True)
def tanh(x: float) -> float:
    """Hyperbolic tangent: x = k ln 2 / 2 + r, and tanh r = odd(r) / even(r) is rational.

    With s = 2^k, e^{2x} = s (even + odd) / (even - odd), so that no exponential is needed.
    """
    y = -20.0 if x < -20.0 else x
    y = 20.0 if y > 20.0 else y
    t = y * (2.0 * _LOG2E) + _MAGIC
    k = t - _MAGIC
    r = (y - k * (0.5 * _LN2_HIGH)) - k * (0.5 * _LN2_LOW)
    s = _power_of_two(t)
    w = r * r
    # Minimax for |r| <= ln 2 / 4 with tanh r = r to leading order: truncation 5.5e-18.
    even = 1.0 + w * (0.4444327162370197 + w * 0.01586832515475877)
    odd = r + r * (w * (0.11109938290369208 + w * 0.0010574197405557914))
    up, down = s + 1.0, s - 1.0
    return (even * down + odd * up) / (even * up + odd * down)


@njit(fastmath=ELEMENTARY, forceinline=True)
def sigmoid(x: float) -> float:
    """1 / (1 + e^{-x}), to relative accuracy on both sides."""
    e = exp(-abs(x))
    return (1.0 if x >= 0.0 else e) / (1.0 + e)


@njit(fastmath=ELEMENTARY, forceinline=True)
def softplus(x: float) -> float:
    """log(1 + e^x), to relative accuracy on both sides."""
    tail = log1p_unit(exp(-abs(x)))
    return (0.0 if x < 0.0 else x) + tail


@njit(fastmath=ELEMENTARY, forceinline=True)
def log_cosh(x: float) -> float:
    """ln cosh x, to relative accuracy: x^2 times a polynomial in x^2, and |x| + ln(1 + e^{-2|x|}) - ln 2 beyond 1."""
    a = abs(x)
    w = 1.0 if a > 1.0 else a * a
    w2 = w * w
    w4 = w2 * w2
    p = (-0.08333333333333333 + w * 0.02222222222222137) + w2 * (-0.006746031745967792 + w * 0.002186948851716268)
    q = (-0.0007386029311758631 + w * 0.00025658029407100796) + w2 * (-9.098791431197687e-05 + w * 3.27718785684998e-05)
    r = (-1.1933792318657676e-05 + w * 4.3548719737005194e-06) + w2 * (
        -1.5541515744780364e-06 + w * 5.124147653921175e-07
    )
    s = (-1.4081083577922122e-07 + w * 2.7318429155369385e-08) + w2 * -2.6892003290732618e-09
    near = 0.5 * w + w2 * (p + w4 * (q + w4 * (r + w4 * s)))
    far = (a - _LN2) + log1p_unit(exp(-2.0 * a))
    return far if a > 1.0 else near


@njit(fastmath=ELEMENTARY, forceinline=True)
def _erf_core(x: float) -> float:
    """erf(x) for |x| <= 1: x plus x times a polynomial in x^2, so that most of it carries no rounding."""
    w = x * x
    w2 = w * w
    w4 = w2 * w2
    a = (0.12837916709551256 + w * -0.3761263890318375) + w2 * (0.11283791670954879 + w * -0.026866170645076792)
    b = (0.0052239776248180145 + w * -0.000854832698083379) + w2 * (0.0001205533111164271 + w * -1.4925595266831182e-05)
    c = (1.6461000484121368e-06 + w * -1.6350312701054695e-07) + w2 * (
        1.4659775274047436e-08 + w * -1.1372848856791674e-09
    )
    return x + x * (a + w4 * (b + w4 * (c + w4 * 5.957176147748911e-11)))


@njit(fastmath=ELEMENTARY, forceinline=True)
def _erfcx_core(t: float) -> float:
    """(1 + 2 x) e^{x^2} erfc(x) for 0.45 <= x <= 28, a polynomial in t = (x - 5/2)/(x + 5/2)."""
    t2 = t * t
    t4 = t2 * t2
    a = t * -0.1223567630824035 + t2 * (-0.09902453957359621 + t * 0.15762991902310647)
    b = (-0.10296705603894564 + t * 0.032760893273271696) + t2 * (0.0009318928267094172 + t * -0.004382078428373633)
    c = (0.000491865697778399 + t * 0.0006321252763407231) + t2 * (-8.84784684611041e-05 + t * -0.00011352841197516499)
    d = (6.263198534303244e-06 + t * 2.2724533813951827e-05) + t2 * (
        2.6137181896134347e-06 + t * -4.283942711657124e-06
    )
    e = (-1.5837293693166132e-06 + t * 6.379006809032991e-07) + t2 * (
        5.124617530105421e-07 + t * -7.723094797506729e-08
    )
    f = -9.19744934210863e-08 + t * 1.5679096062018116e-08
    # The constant last: what is added to it is small, and so is its rounding.
    return 1.2648381843668615 + (a + t4 * (b + t4 * (c + t4 * (d + t4 * (e + t4 * f)))))


@njit(fastmath=ELEMENTARY, forceinline=True)
def _gauss(x: float, factor: float) -> float:
    """e^{-factor x^2} for factor 1 or 1/2, the square taken exactly in two parts."""
    h = _head(x)
    return _exp_of_sum(-factor * (h * h), -factor * ((x - h) * (x + h)))


@njit(fastmath=ELEMENTARY, forceinline=True)
def erf(x: float) -> float:
    """Error function."""
    a = abs(x)
    b = 6.5 if a > 6.5 else a
    c = 1.0 if b < 1.0 else b
    tail = 1.0 - _erfcx_core((c - 2.5) / (c + 2.5)) / (1.0 + 2.0 * c) * _gauss(b, 1.0)
    near = _erf_core(1.0 if a > 1.0 else x)
    far = -tail if x < 0.0 else tail
    return far if a >= 1.0 else near


@njit(fastmath=ELEMENTARY, forceinline=True)
def normal_cdf(x: float) -> float:
    """Phi(x) = erfc(-x / sqrt 2) / 2, to relative accuracy in the left tail."""
    a = abs(x)
    b = 39.0 if a > 39.0 else a
    # The tail in terms of x itself: x / sqrt 2 would bring a rounding error into everything.
    c = _SQRT_HALF if b < _SQRT_HALF else b
    tail = _erfcx_core((c - _FIVE_SQRT_HALF) / (c + _FIVE_SQRT_HALF)) / (2.0 + _SQRT_EIGHT * c) * _gauss(b, 0.5)
    near = 0.5 + 0.5 * _erf_core(x * _SQRT_HALF if a < _SQRT_HALF else 0.0)
    far = tail if x < 0.0 else 1.0 - tail
    return near if a < _SQRT_HALF else far


@njit(fastmath=ELEMENTARY, forceinline=True)
def normal_pdf(x: float) -> float:
    """Density of the standard normal law, e^{-x^2/2} / sqrt(2 pi)."""
    y = 40.0 if x > 40.0 else x
    y = -40.0 if y < -40.0 else y
    return _INV_SQRT_2PI * _gauss(y, 0.5)


@njit(fastmath=ELEMENTARY, forceinline=True)
def second_moment_unit(x: float) -> float:
    """Integral of s^2 phi(s) from 0 to x, phi the normal density, for |x| <= 1: x^3 times a polynomial in x^2."""
    w = x * x
    w2 = w * w
    w4 = w2 * w2
    a = (0.13298076013381088 + w * -0.03989422804014325) + w2 * (0.007123969292881996 + w * -0.0009234775009178313)
    b = (9.444656250352982e-05 + w * -7.991631791052938e-06) + w2 * (
        5.771721851048944e-07 + w * -3.6374118773329424e-08
    )
    c = (2.0313473956228894e-09 + w * -1.0007193986910388e-10) + w2 * 3.713526874512502e-12
    return w * x * (a + w4 * (b + w4 * c))


@njit(fastmath=ELEMENTARY, forceinline=True)
def _sin_core(r: float) -> float:
    """sin r for |r| <= pi/2: r times a polynomial in r^2."""
    w = r * r
    p = 2.721539074015491e-15
    p = -7.643023238169083e-13 + w * p
    p = 1.6058940754212953e-10 + w * p
    p = -2.505210688815946e-08 + w * p
    p = 2.755731921120387e-06 + w * p
    p = -0.00019841269841208527 + w * p
    p = 0.008333333333333186 + w * p
    p = -0.16666666666666666 + w * p
    return r + r * (w * p)


@njit(fastmath=ELEMENTARY, forceinline=True)
def _reduced(x: float, k: float) -> float:
    """x - k pi/2 in three parts, exact products for |k| < 2^20."""
    return ((x - k * _HALF_PI[0]) - k * _HALF_PI[1]) - k * _HALF_PI[2]


@njit(fastmath=ELEMENTARY, forceinline=True)
def sin_bounded(x: float) -> float:
    """Return sin x for |x| <= 1e5."""
    t = x * 0.3183098861837907 + _MAGIC
    k = t - _MAGIC
    odd = k - 2.0 * ((0.5 * k + _MAGIC) - _MAGIC)
    value = _sin_core(_reduced(x, 2.0 * k))
    return value if odd == 0.0 else -value


@njit(fastmath=ELEMENTARY, forceinline=True)
def cos_bounded(x: float) -> float:
    """Return cos x for |x| <= 1e5, as sin(x + pi/2) with the quarter turn taken exactly."""
    k = ((x * 0.3183098861837907 - 0.5) + _MAGIC) - _MAGIC
    odd = k - 2.0 * ((0.5 * k + _MAGIC) - _MAGIC)
    value = _sin_core(_reduced(x, 2.0 * k + 1.0))
    return -value if odd == 0.0 else value


@njit(fastmath=ELEMENTARY, forceinline=True)
def dilogarithm_unit(y: float) -> float:
    """-Li_2(-y) for 0 <= y <= 1, by its Bernoulli series in v = ln(1 + y)."""
    v = log1p_unit(y)
    w = v * v
    # B_2k / (2k + 1)!, k = 1 .. 8
    p = -1.9939295860721074e-14
    p = 8.921691020456452e-13 + w * p
    p = -4.0647616451442256e-11 + w * p
    p = 1.8978869988971e-09 + w * p
    p = -9.185773074661964e-08 + w * p
    p = 4.72411186696901e-06 + w * p
    p = -0.0002777777777777778 + w * p
    p = 0.027777777777777776 + w * p
    return v + w * (0.25 + v * p)
