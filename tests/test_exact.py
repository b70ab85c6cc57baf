"""Closed forms of space-time networks against independent integrations and defining identities."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from meanfield import exact
from meanfield.errors import ConfigError

SIGMA = {
    "identity": lambda u: u,
    "relu": lambda u: np.maximum(u, 0.0),
    "leaky_relu": lambda u: np.where(u > 0, u, 0.01 * u),
    "tanh": np.tanh,
    "sigmoid": lambda u: 1 / (1 + np.exp(-u)),
    "sine": np.sin,
}


def reference(rate, y0, times):
    y0 = np.asarray(y0, dtype=float)
    found = solve_ivp(
        lambda t, y: rate(y.reshape(y0.shape)).ravel(),
        (0, times[-1]),
        y0.ravel(),
        "DOP853",
        times,
        rtol=1e-13,
        atol=1e-13,
    )
    return found.y.T.reshape(len(times), *y0.shape)


@pytest.mark.parametrize("name", SIGMA)
@pytest.mark.parametrize("kappa", [-1.3, 0.7])
def test_preactivation_solves_its_scalar_equation(name, kappa):
    u0 = np.array([-3.0, -0.4, 0.0, 0.2, 2.5, 7.0])
    times = np.linspace(0, 2, 5)
    u = exact.constant_kernel_preactivation(name, times[:, None], u0, kappa)
    np.testing.assert_allclose(u, reference(lambda v: kappa * SIGMA[name](v), u0, times), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("u0", [-900.0, -720.0, -40.0, -1.0, 0.0, 3.0, 60.0, 800.0])
@pytest.mark.parametrize("s", [-1500.0, -3.0, 0.0, 1e-3, 900.0])
def test_sigmoid_without_overflow_against_mpmath(u0, s):
    with mpmath.workdps(450):  # e^900 and its last digits next to s
        c = mpmath.mpf(s) + mpmath.mpf(u0) - mpmath.exp(-mpmath.mpf(u0))
        # y = ln v solves e^y + y = -C; Newton on the concave form, or on the convex one, is monotone.
        y = mpmath.log(-c) if c < -2 else -c if c > 2 else mpmath.mpf(0)
        for _ in range(60):
            y -= (
                (y - mpmath.log(-c - y)) / (1 + 1 / (-c - y))
                if c < -2
                else (mpmath.exp(y) + y + c) / (mpmath.exp(y) + 1)
            )
        want = float(-y)
    got = (
        float(exact.constant_kernel_preactivation("sigmoid", 1.0, u0, s))
        if s
        else float(exact.constant_kernel_preactivation("sigmoid", 0.0, u0, 1.0))
    )
    assert got == pytest.approx(want, rel=4e-15, abs=4e-15)


@pytest.mark.parametrize("u0", [-900.0, -2.0, -1e-8, 0.0, 1e-300, 0.3, 710.0])
@pytest.mark.parametrize("s", [-800.0, -2.0, 3.0, 705.0, 5000.0])
def test_tanh_without_overflow_against_mpmath(u0, s):
    with mpmath.workdps(60):
        want = float(mpmath.asinh(mpmath.exp(mpmath.mpf(s)) * mpmath.sinh(mpmath.mpf(u0))))
    got = float(exact.constant_kernel_preactivation("tanh", 1.0, u0, s))
    assert got == pytest.approx(want, rel=2e-15 + 2.3e-16 * (abs(s) + abs(u0)), abs=1e-320)


@pytest.mark.parametrize("name", SIGMA)
@pytest.mark.parametrize("shape", [(9,), (3, 9)])
def test_constant_kernel_solves_the_network(name, shape):
    rng = np.random.default_rng(4)
    q = rng.uniform(0.2, 1.0, 9)
    q /= q.sum()
    z0, kappa, beta = rng.normal(size=shape), 0.9, 0.3
    times = np.linspace(0, 1.5, 4)
    want = reference(lambda z: SIGMA[name](np.full_like(z, 1) * (kappa * (z @ q)[..., None] + beta)), z0, times)
    got = exact.constant_kernel(name, times, z0, q, kappa, bias=beta)
    assert got.shape == (4, *shape)
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(
        exact.constant_kernel(name, 1.5, z0, q, kappa, bias=beta), want[-1], rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("name", ["identity", "relu"])
@pytest.mark.parametrize("kappa", [-1.5, 0.4, 0.8, 2.0])
@pytest.mark.parametrize("beta", [-0.5, 0.0, 0.6])
def test_leaky_constant_kernel_solves_the_network(name, kappa, beta):
    leak = 0.8
    q = np.array([0.1, 0.2, 0.3, 0.4])
    z0 = np.array([[1.0, 0.5, -0.2, 0.7], [-2.0, 0.1, 0.4, -1.5], [0.1, -0.1, 0.2, 0.0]])
    times = np.linspace(0, 6, 13)

    def rate(z):
        return -leak * z + SIGMA[name](kappa * (z @ q)[:, None] + beta) * np.ones_like(z)

    got = exact.constant_kernel(name, times, z0, q, kappa, bias=beta, leak=leak)
    # Steps of the reference straddle the kink of ReLU, which costs it digits.
    np.testing.assert_allclose(got, reference(rate, z0, times), rtol=1e-8, atol=1e-8)


def test_relu_crosses_from_frozen_to_active_under_a_leak():
    # u = kappa m + beta starts below 0 and is driven to beta > 0: the crossing is at u = 0.
    q, z0 = np.array([1.0]), np.array([3.0])
    late = exact.constant_kernel("relu", 200.0, z0, q, -0.5, bias=0.4, leak=1.0)
    # Active: z = -0.5 z + 0.4 at rest.
    assert late[0] == pytest.approx(0.4 / 1.5, rel=1e-12)


def test_closed_forms_refuse_what_they_do_not_know():
    q = np.array([1.0])
    with pytest.raises(ConfigError, match="kappa must not be 0"):
        exact.constant_kernel("tanh", 1.0, q, q, 0.0)
    with pytest.raises(ConfigError, match="leak"):
        exact.constant_kernel("tanh", 1.0, q, q, 1.0, leak=0.5)
    with pytest.raises(ConfigError, match="activation"):
        exact.constant_kernel_preactivation("gelu", 1.0, 1.0, 1.0)


@pytest.mark.parametrize("shape", [(16,), (15,), (6, 6)])
@pytest.mark.parametrize("leak", [0.0, 0.5])
def test_convolution_equals_the_matrix_exponential(shape, leak):
    rng = np.random.default_rng(2)
    profile, z0 = rng.normal(size=math.prod(shape)), rng.normal(size=(2, math.prod(shape)))
    index = np.indices(shape).reshape(len(shape), -1)
    shift = (index[:, :, None] - index[:, None, :]) % np.array(shape)[:, None, None]
    matrix = profile.reshape(shape)[tuple(shift)] / profile.size
    times = np.array([0.0, 0.7, 2.0])
    got = exact.convolution_linear(times, z0, exact.fourier_multiplier(profile, shape), leak=leak)
    np.testing.assert_allclose(got, exact.linear_network(times, z0, matrix, leak=leak), rtol=1e-12, atol=1e-12)


def test_multiplier_is_the_fourier_coefficient():
    x = np.arange(12) / 12
    khat = exact.fourier_multiplier(0.3 + 2 * np.cos(2 * np.pi * x) + 4 * np.sin(4 * np.pi * x), (12,))
    want = np.zeros(12, complex)
    want[[0, 1, 11, 2, 10]] = [0.3, 1, 1, -2j, 2j]
    np.testing.assert_allclose(khat, want, atol=1e-15)


def test_linear_network_with_bias_and_singular_matrix():
    rng = np.random.default_rng(3)
    w = np.outer(rng.normal(size=5), rng.normal(size=5))
    z0, b, times = rng.normal(size=(2, 5)), rng.normal(size=5), np.linspace(0, 1, 3)
    want = reference(lambda z: z @ w.T - 0.3 * z + b, z0, times)
    np.testing.assert_allclose(exact.linear_network(times, z0, w, bias=b, leak=0.3), want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (2.0, 0.75), (2.0, 1.5)])
def test_algebraic_decay_tends_to_its_constant(p, q):
    k = np.arange(1, 21)
    assert float(exact.algebraic_decay(0.6, p, q, 20)) == pytest.approx(
        np.linalg.norm(k**-q * np.exp(-0.6 * k**-p)), rel=1e-14
    )
    s = (2 * q - 1) / p
    t = np.array([1e3, 1e4]) if p > 1 else np.array([1e2, 1e3])
    scaled = exact.algebraic_decay(t, p, q, 400_000) ** 2 * t**s / exact.algebraic_decay_constant(p, q)
    # The tail beyond the last mode is missing: n^{1-2q}/(2q-1) t^s, below 2e-3 here only for q >= 1.
    missing = 4e5 ** (1 - 2 * q) / (2 * q - 1) * t**s / exact.algebraic_decay_constant(p, q)
    np.testing.assert_allclose(scaled + missing, 1.0, atol=2e-3)


def test_euler_depth_constant_is_the_limit():
    kappa, end, mean = -0.8, 1.5, 0.7
    for n, tolerance in ((1000, 2e-3), (100_000, 2e-5)):
        error = n * ((1 + kappa * end / n) ** n - math.exp(kappa * end)) * mean
        assert error == pytest.approx(exact.euler_depth_constant(kappa, end, mean), rel=tolerance)


LAWS = [
    exact.SelectionLaw(peak=0.8, curvature=5.0, kappa=1.7, exponent=p, dim=d)
    for p, d in [(2.0, 1), (4.0, 2), (2.0, 2), (1.0, 2), (2.0, 3)]
]


@pytest.mark.parametrize("law", LAWS)
def test_selection_law_solves_its_equation(law):
    times = np.linspace(0, 5, 6)
    # S' = int (u0 - kappa S)_+ dx by radial quadrature, independent of the constant C.
    shell = law.dim * exact.unit_ball_volume(law.dim)

    def mass(delta):
        radius = (delta / law.curvature) ** (1 / law.exponent)
        f = lambda r: shell * r ** (law.dim - 1) * (delta - law.curvature * r**law.exponent)  # noqa: E731
        return quad(f, 0, radius, epsabs=0, epsrel=1e-13)[0]

    found = solve_ivp(
        lambda t, v: [mass(law.peak - law.kappa * v[0]), law.peak - law.kappa * v[0]],
        (0, 5), [0.0, 0.0], "DOP853", times, rtol=1e-12, atol=1e-14,
    )  # fmt: skip
    np.testing.assert_allclose(law.mass_gain(times), found.y[0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(law.peak_gain(times), found.y[1], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(law.largest_activation(times), law.peak - law.kappa * found.y[0], rtol=1e-10)
    np.testing.assert_allclose(
        law.active_measure(0.0), exact.unit_ball_volume(law.dim) * law.radius**law.dim, rtol=1e-13
    )


def test_selection_limits():
    law = exact.SelectionLaw(peak=0.8, curvature=5.0, kappa=1.7)
    assert law.peak_gain_limit == pytest.approx(1.5 * math.sqrt(5.0 * 0.8) / 1.7, rel=1e-14)
    assert float(law.peak_gain(1e14)) == pytest.approx(law.peak_gain_limit, rel=1e-6)
    assert law.total_mass_gain == pytest.approx(0.8 / 1.7)
    assert float(law.mass_gain(1e12)) == pytest.approx(law.total_mass_gain, rel=1e-10)
    wide = exact.SelectionLaw(peak=0.8, curvature=5.0, kappa=1.7, exponent=2.0, dim=2)
    assert wide.peak_gain_limit == math.inf
    assert float(wide.peak_gain(1e8)) > float(wide.peak_gain(1e4)) + 1


@pytest.mark.parametrize("law", LAWS[:3])
def test_selection_field_gain_integrates_the_activation_and_carries_the_mass(law):
    gap = np.array([0.0, 0.05, 0.3, 0.79, 0.8, 2.0])
    for t in (0.3, 4.0):
        want = [
            quad(lambda s, g=g: max(float(law.largest_activation(s)) - g, 0.0), 0, t, limit=400, epsabs=1e-12)[0]
            for g in gap
        ]
        np.testing.assert_allclose(law.gain(t, gap), want, atol=1e-9)
    # The gain over the ball has the mass S.
    shell = law.dim * exact.unit_ball_volume(law.dim)
    edge = float((law.largest_activation(4.0) / law.curvature) ** (1 / law.exponent))
    total = quad(
        lambda r: shell * r ** (law.dim - 1) * float(law.gain(4.0, law.curvature * r**law.exponent)),
        0, law.radius, epsabs=1e-12, limit=200, points=[edge],
    )[0]  # fmt: skip
    assert total == pytest.approx(float(law.mass_gain(4.0)), rel=1e-8)


@pytest.mark.parametrize(("dim", "volume"), [(1, 2.0), (2, math.pi), (3, 4 * math.pi / 3)])
def test_unit_ball(dim, volume):
    assert exact.unit_ball_volume(dim) == pytest.approx(volume, rel=1e-15)
