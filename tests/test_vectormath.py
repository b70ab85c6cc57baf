"""Elementary functions: errors in units in the last place over the whole range, special values."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from meanfield import _vectormath as vm

mpmath.mp.dps = 40
RNG = np.random.default_rng(0)
TINY = 10.0 ** RNG.uniform(-300, 0, 150) * RNG.choice([-1, 1], 150)


def sample(low, high, n=600):
    points = np.concatenate([RNG.uniform(low, high, n), RNG.uniform(max(low, -2), min(high, 2), n // 3), TINY])
    return points[(points >= low) & (points <= high)]


def log_cosh(x):
    return mpmath.log(mpmath.cosh(x)) if abs(x) > 1e-8 else x**2 / 2 - x**4 / 12


CASES = {
    "exp": (vm.exp, mpmath.exp, sample(-700, 709.7), 2),
    "expm1": (vm.expm1, mpmath.expm1, np.concatenate([sample(-60, 60), RNG.uniform(600, 709.7, 200)]), 2),
    "log1p_unit": (vm.log1p_unit, mpmath.log1p, sample(0, 1), 2),
    "tanh": (vm.tanh, mpmath.tanh, sample(-25, 25), 3),
    "sigmoid": (vm.sigmoid, lambda x: 1 / (1 + mpmath.exp(-x)), sample(-700, 60), 2),
    "softplus": (vm.softplus, lambda x: mpmath.log1p(mpmath.exp(x)), sample(-700, 60), 2.5),
    "log_cosh": (vm.log_cosh, log_cosh, sample(-60, 60), 4),
    "erf": (vm.erf, mpmath.erf, sample(-7, 7), 2.5),
    "normal_cdf": (vm.normal_cdf, lambda x: mpmath.erfc(-x / mpmath.sqrt(2)) / 2, sample(-37, 9), 5),
    "normal_pdf": (vm.normal_pdf, mpmath.npdf, sample(-37, 37), 4),
    "sin_bounded": (vm.sin_bounded, mpmath.sin, np.concatenate([sample(-1e5, 1e5), sample(-10, 10)]), 2.5),
    "cos_bounded": (vm.cos_bounded, mpmath.cos, np.concatenate([sample(-1e5, 1e5), sample(-10, 10)]), 2.5),
    "dilogarithm_unit": (vm.dilogarithm_unit, lambda y: -mpmath.polylog(2, -y), sample(0, 1, 150), 2.5),
}


@pytest.mark.parametrize("name", CASES)
def test_error_is_within_the_stated_units_in_the_last_place(name):
    function, reference, points, bound = CASES[name]
    worst = (0.0, 0.0)
    for x in points.tolist():
        exact = reference(mpmath.mpf(x))
        spacing = max(math.ulp(float(exact)), 2.0**-1022 * 2.0**-52)
        error = abs(float((mpmath.mpf(function(x)) - exact) / spacing))
        worst = max(worst, (error, x))
    assert worst[0] <= bound, worst


def test_subnormal_results_of_exp_are_correct_to_their_spacing():
    for x in np.linspace(-745.2, -708, 200).tolist():
        assert abs(vm.exp(x) - float(mpmath.exp(x))) <= 2 * 5e-324 + 2e-16 * vm.exp(x)


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


def test_overflow_and_zero():
    assert vm.exp(709.79) == math.inf
    assert vm.exp(0.0) == 1.0
    assert vm.exp(-746.0) == 0.0
    for function in (vm.expm1, vm.tanh, vm.erf, vm.sin_bounded, vm.log_cosh, vm.log1p_unit):
        assert function(0.0) == 0.0
