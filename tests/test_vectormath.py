"""Elementary functions: errors in units in the last place over the whole range, special values."""

from __future__ import annotations

import math
import re

import mpmath
import numba
import numpy as np
import pytest

from meanfield import _singlemath as sm
from meanfield import _vectormath as vm
from meanfield._jit import ELEMENTARY

SMALLEST = 5e-324
compiled_only = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="about machine code")


@pytest.fixture(autouse=True)
def _forty_digits():
    with mpmath.workdps(40):
        yield


def sample(*ranges, n=600, signs=(-1.0, 1.0)):
    """Uniform points of each range (low, high), and tiny ones of every order of magnitude within the first."""
    rng = np.random.default_rng(0)
    tiny = 10.0 ** rng.uniform(-323, 0, 150) * rng.choice(signs, 150)
    return np.concatenate([*(rng.uniform(low, high, n) for low, high in ranges), tiny, [SMALLEST]])


def log_cosh(x):
    return mpmath.log(mpmath.cosh(x)) if abs(x) > 1e-8 else x**2 / 2 - x**4 / 12


def dilogarithm(y):
    return -mpmath.polylog(2, -y).real if y > 1e-20 else y - y**2 / 4


# function: reference, points, the bound in ulp that the module's docstring states
CASES = {
    "exp": (mpmath.exp, sample((-1, 1), (-745, 709.78), (-745, -707)), 1.1),
    "exp_decay": (mpmath.exp, sample((-1, 0.3), (-60, 0), (-707.9, 0), signs=(-1.0,)), 3.0),
    "expm1": (mpmath.expm1, sample((-1, 1), (-60, 60), (600, 709.78)), 2.1),
    "log_positive": (mpmath.log, sample((0.3, 3), (0, 1e3), signs=(1.0,))[:-151], 2.5),
    "log1p_unit": (mpmath.log1p, sample((0, 1), (0.4, 0.45), signs=(1.0,)), 2.1),
    "tanh": (mpmath.tanh, sample((-1, 1), (-25, 25)), 3),
    "sigmoid": (lambda x: 1 / (1 + mpmath.exp(-x)), sample((-3, 3), (-745, 60)), 2.5),
    "softplus": (lambda x: mpmath.log1p(mpmath.exp(x)), sample((-3, 3), (-745, 60)), 2.5),
    "log_cosh": (log_cosh, sample((-1.2, 1.2), (-60, 60)), 2.1),
    "erf": (mpmath.erf, sample((-1.2, 1.2), (-7, 7)), 1.1),
    "normal_cdf": (lambda x: mpmath.erfc(-x / mpmath.sqrt(2)) / 2, sample((-1, 1), (-38.5, 9), (-38, -30)), 4),
    "normal_pdf": (mpmath.npdf, sample((-2, 2), (-38.5, 38.5)), 2.5),
    "sin_bounded": (mpmath.sin, sample((-10, 10), (-1e5, 1e5)), 2.5),
    "cos_bounded": (mpmath.cos, sample((-10, 10), (-1e5, 1e5)), 2.5),
    "dilogarithm_unit": (dilogarithm, sample((0, 1), n=200, signs=(1.0,)), 2.1),
}


def error_in_ulp(computed, exact):
    return abs(float((mpmath.mpf(computed) - exact) / math.ulp(float(exact))))


@pytest.mark.parametrize("name", CASES)
def test_error_is_within_the_stated_units_in_the_last_place(name):
    reference, points, bound = CASES[name]
    function = getattr(vm, name)
    worst = max((error_in_ulp(function(x), reference(mpmath.mpf(x))), x) for x in points.tolist())
    assert worst[0] <= bound, worst


@pytest.mark.parametrize("name", ["exp", "expm1", "tanh", "sigmoid", "softplus", "log_cosh", "erf", "normal_cdf"])
def test_error_bound_can_fail(name):
    reference, points, bound = CASES[name]
    function = getattr(vm, name)
    points = points[np.abs(points) > 1e-3][:50].tolist()
    planted = [error_in_ulp(function(x) * (1 + 5 * 2.0**-52), reference(mpmath.mpf(x))) for x in points]
    assert max(planted) > bound


EXTENDED = {
    "exp": (np.exp, (-707.0, 709.7)),
    "exp_decay": (np.exp, (-707.9, 0.3)),
    "log_positive": (np.log, (1e-300, 1e3)),
    "expm1": (np.expm1, (-40.0, 40.0)),
    "log1p_unit": (np.log1p, (0.0, 1.0)),
    "tanh": (np.tanh, (-21.0, 21.0)),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), (-700.0, 50.0)),
    "softplus": (lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), (-700.0, 50.0)),
    "sin_bounded": (np.sin, (-1e5, 1e5)),
    "cos_bounded": (np.cos, (-1e5, 1e5)),
}


def vector_loop(function):
    """A loop over an array that calls the function, compiled as the package's kernels are."""
    prefer512 = vm.prefer512

    @numba.njit(fastmath=set(ELEMENTARY), error_model="numpy")
    def loop(x, out):
        prefer512()
        for j in range(x.size):
            out[j] = function(x[j])

    return loop


@compiled_only
@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="needs a longer type to compare with")
@pytest.mark.parametrize("name", EXTENDED)
def test_vector_loops_keep_the_stated_error_on_dense_samples(name):
    reference, (low, high) = EXTENDED[name]
    rng = np.random.default_rng(1)
    near = (max(low, -2.0), min(high, 2.0))
    x = np.concatenate([rng.uniform(low, high, 150_000), rng.uniform(*near, 150_000)])
    out = np.empty_like(x)
    vector_loop(getattr(vm, name))(x, out)
    exact = reference(x.astype(np.longdouble))
    error = np.abs(out - exact) / np.spacing(np.abs(exact.astype(np.float64))).astype(np.longdouble)
    worst = int(error.argmax())
    assert error[worst] <= CASES[name][2], (float(error[worst]), x[worst])


@compiled_only
@pytest.mark.parametrize("name", CASES)
def test_loops_become_vector_code(name):
    loop = vector_loop(getattr(vm, name))
    loop(np.zeros(8), np.zeros(8))
    (code,) = loop.inspect_llvm().values()
    assert re.search(r"fmul .*<\d+ x double>", code), "the loop stayed scalar"


def test_sine_and_cosine_keep_relative_accuracy_at_their_zeros():
    for k in [1, 2, 3, 22, 355, 1001, 31830]:
        x = float(k * mpmath.pi)
        assert error_in_ulp(vm.sin_bounded(x), mpmath.sin(mpmath.mpf(x))) <= CASES["sin_bounded"][2], x
        x = float((k - 0.5) * mpmath.pi)
        assert error_in_ulp(vm.cos_bounded(x), mpmath.cos(mpmath.mpf(x))) <= CASES["cos_bounded"][2], x


SPECIAL = {
    "exp": (math.inf, 0.0),
    "expm1": (math.inf, -1.0),
    "tanh": (1.0, -1.0),
    "sigmoid": (1.0, 0.0),
    "softplus": (math.inf, 0.0),
    "log_cosh": (math.inf, math.inf),
    "erf": (1.0, -1.0),
    "normal_cdf": (1.0, 0.0),
    "normal_pdf": (0.0, 0.0),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_infinities_and_nan_pass_as_they_should(name):
    function = getattr(vm, name)
    assert (function(math.inf), function(-math.inf)) == SPECIAL[name]
    assert math.isnan(function(math.nan))


@compiled_only
@pytest.mark.parametrize("name", CASES)
def test_nan_passes_through_vector_loops(name):
    x = np.full(37, 0.5)
    x[[0, 20, 36]] = np.nan
    out = np.empty_like(x)
    vector_loop(getattr(vm, name))(x, out)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(x))


def test_overflow_and_zero():
    assert vm.exp(709.79) == math.inf
    assert vm.exp(0.0) == 1.0
    assert vm.exp(-746.0) == 0.0
    assert vm.exp(-745.0) == SMALLEST
    for function in (vm.expm1, vm.tanh, vm.erf, vm.sin_bounded, vm.log_cosh, vm.log1p_unit):
        assert function(0.0) == 0.0


SINGLE = {
    "exp_decay_of": (np.exp, (-86.0, 0.3), 3.0),
    "log_of": (np.log, (1e-30, 1e3), 3.0),
}


@compiled_only
@pytest.mark.parametrize("name", SINGLE)
def test_single_precision_loops_keep_the_stated_error(name):
    reference, (low, high), bound = SINGLE[name]
    rng = np.random.default_rng(2)
    near = (max(low, -1.0), min(high, 2.0))
    x = np.concatenate([rng.uniform(low, high, 200_000), rng.uniform(*near, 200_000)]).astype(np.float32)
    out = np.empty_like(x)
    loop = vector_loop(getattr(sm, name))
    loop(x, out)
    exact = reference(x.astype(np.float64))
    error = np.abs(out - exact) / np.spacing(np.abs(exact).astype(np.float32))
    worst = int(error.argmax())
    assert error[worst] <= bound, (float(error[worst]), x[worst])
    (code,) = loop.inspect_llvm().values()
    assert re.search(r"fmul .*<\d+ x float>", code), "the loop stayed scalar, or became double"
    x[[0, 20, 36]] = np.nan
    loop(x, out)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(x))
