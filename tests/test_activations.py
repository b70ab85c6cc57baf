"""Activations: compiled and NumPy forms agree, the constants theory asks for are right."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad

from meanfield import ConfigError, _activate
from meanfield.activations import ACTIVATIONS, activation

FORMS = ("value", "derivative", "primitive")
X = np.concatenate(
    [
        np.random.default_rng(0).normal(0, 3, 300),
        np.linspace(-45, 45, 91),
        [0.0, 1e-300, -1e-300, 1e-8, -1e-8, 700.0, -700.0, 1e6, -1e6, np.inf, -np.inf, np.nan],
    ]
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_compiled_scalar_compiled_array_and_numpy_agree(name, form):
    sigma = ACTIVATIONS[name]
    x = X[np.isfinite(X)] if name == "sine" else X
    out = np.empty_like(x)
    getattr(_activate, f"apply_{form}")(sigma.code, x, out)
    scalar = np.array([getattr(_activate, form)(sigma.code, float(v)) for v in x])
    reference = getattr(sigma, form)(x)
    np.testing.assert_allclose(out, reference, rtol=2e-13, atol=1e-14)
    np.testing.assert_allclose(scalar, out, rtol=4e-15, atol=1e-15)
    in_place = x.copy()
    getattr(_activate, f"apply_{form}")(sigma.code, in_place, in_place)
    np.testing.assert_array_equal(in_place, out)


def gelu_primitive(x):
    return ((x**2 - 1) * mpmath.ncdf(x) + x * mpmath.npdf(x)) / 2 + mpmath.mpf(1) / 4


# (activation, form): the exact function, and where its values are small but not to be lost
SMALL = {
    ("tanh", "derivative"): (lambda x: mpmath.sech(x) ** 2, (-340.0, -20.0)),
    ("tanh", "primitive"): (lambda x: mpmath.log(mpmath.cosh(x)), (-1e-7, 1e-7)),
    ("sigmoid", "value"): (lambda x: 1 / (1 + mpmath.exp(-x)), (-700.0, -20.0)),
    ("sigmoid", "primitive"): (lambda x: mpmath.log1p(mpmath.exp(x)), (-700.0, -20.0)),
    ("softplus", "value"): (lambda x: mpmath.log1p(mpmath.exp(x)), (-700.0, -20.0)),
    ("softplus", "primitive"): (lambda x: -mpmath.polylog(2, -mpmath.exp(x)).real, (-30.0, -1.0)),
    ("gelu", "value"): (lambda x: x * mpmath.ncdf(x), (-36.0, -3.0)),
    ("gelu", "primitive"): (gelu_primitive, (-1e-7, 1e-7)),
    ("sine", "primitive"): (lambda x: 2 * mpmath.sin(x / 2) ** 2, (-1e-7, 1e-7)),
}


@pytest.mark.parametrize(("name", "form"), SMALL)
def test_small_values_keep_their_relative_accuracy(name, form):
    exact, (low, high) = SMALL[name, form]
    x = np.linspace(low, high, 60)
    with mpmath.workdps(60):
        reference = [float(exact(mpmath.mpf(v))) for v in x.tolist()]
    out = np.empty_like(x)
    getattr(_activate, f"apply_{form}")(ACTIVATIONS[name].code, x, out)
    np.testing.assert_allclose(out, reference, rtol=1e-14, atol=0)
    # SciPy's normal distribution has lost three digits at -36.
    np.testing.assert_allclose(getattr(ACTIVATIONS[name], form)(x), reference, rtol=1e-12, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_array_forms_leave_their_argument_alone(form):
    x = np.linspace(-3.0, 3.0, 21)
    for sigma in ACTIVATIONS.values():
        getattr(_activate, f"apply_{form}")(sigma.code, x, np.empty_like(x))
    np.testing.assert_array_equal(x, np.linspace(-3.0, 3.0, 21))


def test_sine_far_out_is_that_of_the_library():
    x = np.array([1e5 + 0.5, -3e8, 1e22, 0.25])
    for form, expected in (("value", np.sin(x)), ("derivative", np.cos(x)), ("primitive", 2 * np.sin(x / 2) ** 2)):
        out = np.empty_like(x)
        getattr(_activate, f"apply_{form}")(_activate.SINE, x, out)
        np.testing.assert_allclose(out, expected, rtol=1e-15)


def test_sine_of_infinity_is_nan():
    out = np.empty(2)
    _activate.apply_value(_activate.SINE, np.array([np.inf, 1.0]), out)
    assert np.isnan(out[0])
    assert out[1] == np.sin(1.0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_primitive_and_derivative_belong_to_the_value(name):
    sigma = ACTIVATIONS[name]
    for a, b in ((-3.1, -0.2), (0.3, 2.9), (-1.0, 1.7)):
        integral = quad(lambda s: float(sigma.value(s)), a, b, points=[0.0] if a < 0 < b else None, epsabs=1e-13)[0]
        assert abs(float(sigma.primitive(b) - sigma.primitive(a)) - integral) < 1e-11
    x, h = np.linspace(-3, 3, 40) + 0.013, 1e-3
    fourth = (8 * (sigma.value(x + h) - sigma.value(x - h)) - (sigma.value(x + 2 * h) - sigma.value(x - 2 * h))) / (
        12 * h
    )
    np.testing.assert_allclose(sigma.derivative(x), fourth, atol=1e-9)
    bend = (sigma.derivative(x + h) - sigma.derivative(x - h)) / (2 * h)
    np.testing.assert_allclose(sigma.curvature(x), bend, atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_constants_are_true(name):
    sigma = ACTIVATIONS[name]
    x = np.linspace(-30, 30, 60_001)
    slope, value = sigma.derivative(x), sigma.value(x)
    assert np.abs(slope).max() <= sigma.lipschitz + 1e-12
    assert np.abs(slope).max() >= sigma.lipschitz - 1e-3
    assert np.abs(value).max() <= sigma.bound
    if np.isfinite(sigma.bound):
        assert np.abs(value).max() >= sigma.bound - 1e-3
    else:
        assert np.abs(sigma.value(np.array([1e9, -1e9]))).max() > 1e6
    assert sigma.nondecreasing == bool((slope >= 0).all())
    assert sigma.nonnegative == bool((value >= 0).all())
    assert sigma.at_zero == pytest.approx(float(sigma.value(0.0)), abs=1e-16)


def test_codes_are_the_branches_of_the_compiled_forms():
    assert [ACTIVATIONS[n].code for n in ACTIVATIONS] == [getattr(_activate, n.upper()) for n in ACTIVATIONS]


def test_unknown_activation_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'sigmoid'"):
        activation("sigmod")
    with pytest.raises(ConfigError, match="unknown activation 3"):
        activation(3)
