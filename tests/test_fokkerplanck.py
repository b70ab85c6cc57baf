"""Fokker-Planck: exact steady states, orders, positivity, entropy, and models without a steady state."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers.stages import Stages
from scipy.linalg import solve_continuous_lyapunov
from scipy.special import ndtr

from meanfield import integrate
from meanfield.activations import activation
from meanfield.cells import Cells, exchange_weights
from meanfield.controls import Controls
from meanfield.diagnostics.entropy import relative_entropy_of_masses
from meanfield.diagnostics.equilibrium import equilibrium
from meanfield.errors import ConfigError, NumericalError
from meanfield.exact_laws import ornstein_uhlenbeck
from meanfield.models.fokkerplanck import FokkerPlanck
from meanfield.velocities import Velocity

LINE = Cells.line(-7.0, 7.0, 280)


def normal(cells: Cells, mean: float, variance: float) -> np.ndarray:
    return np.diff(ndtr((cells.faces() - mean) / math.sqrt(variance))) / cells.volume


@pytest.mark.parametrize("name", ["identity", "tanh"])
def test_discrete_steady_state_is_the_true_density_at_the_centres(name):
    # K = 1: g ~ exp(2 Sigma(w x + b)/(nu^2 w)).
    w, b, nu = -1.5, 0.4, 0.9
    model = FokkerPlanck(LINE, Velocity.outside(name, w, b), nu)
    log = 2 * activation(name).primitive(w * LINE.centres() + b) / (nu**2 * w)
    exact = np.exp(log - log.max())
    exact /= LINE.mass(exact)
    np.testing.assert_allclose(model.steady_state(), exact, rtol=1e-11, atol=1e-15)
    end = integrate(model, normal(LINE, 1.0, 0.3), (0.0, 60.0)).final
    assert np.abs(end - exact).max() < 1e-10
    assert abs(model.mass(end) - 1.0) < 1e-12


def test_multiplicative_noise_tends_to_the_inverse_gamma_law():
    # v = w x + b, K = x on x > 0: density ~ x^(-2 + 2 w/nu^2) exp(-2 b/(nu^2 x)).
    w, b, nu = -1.0, 1.0, 0.8
    cells = Cells.line(0.05, 6.0, 300)
    model, x = FokkerPlanck(cells, Velocity.outside("identity", w, b), nu, lambda x: x), cells.centres()
    exact = x ** (-2 + 2 * w / nu**2) * np.exp(-2 * b / (nu**2 * x))
    exact /= cells.mass(exact)
    np.testing.assert_allclose(model.steady_state(), exact, rtol=1e-9)
    end = integrate(model, np.full(300, 1 / 5.95), (0.0, 25.0)).final
    assert np.abs(end - exact).max() < 1e-10


def test_order_two_against_the_ornstein_uhlenbeck_law():
    errors = []
    for n in (100, 200, 400):
        cells = Cells.line(-8.0, 8.0, n)
        model = FokkerPlanck(cells, Velocity.outside("identity", -1.0, 0.3), 0.9)
        end = integrate(model, normal(cells, 1.0, 0.36), (0.0, 1.0)).final
        exact = normal(cells, *ornstein_uhlenbeck(1.0, -1.0, 0.3, 0.9, 1.0, 0.36))
        errors.append(np.abs(end - exact).sum() * cells.volume)
    assert abs(np.log2(errors[-2] / errors[-1]) - 2.0) < 0.1
    assert errors[-1] < 3e-4


def test_plane_with_a_gradient_drift_has_its_gaussian_exactly():
    w, b, nu = np.array([[-1.0, 0.3], [0.3, -0.8]]), np.array([0.1, 0.2]), 0.9
    cells = Cells.box((-4.0, -4.0), (4.0, 4.0), (40, 50))
    model = FokkerPlanck(cells, Velocity.outside("identity", w, b), nu)
    gap = cells.points() + np.linalg.solve(w, b)[:, None]
    exact = np.exp(np.einsum("in,ij,jn->n", gap, w, gap) / nu**2)
    exact = (exact / cells.mass(exact)).reshape(cells.shape)
    np.testing.assert_allclose(model.steady_state(), exact, atol=1e-13)
    end = integrate(model, np.full(cells.shape, 1 / 64), (0.0, 50.0)).final
    assert np.abs(end - exact).max() < 1e-12


def test_plane_with_a_rotating_drift_tends_to_the_lyapunov_covariance():
    w, nu = np.array([[-1.0, 0.8], [-0.8, -0.6]]), 0.9
    exact = solve_continuous_lyapunov(w, -(nu**2) * np.eye(2))
    errors = []
    for n in (30, 60):
        cells = Cells.box((-4.0, -4.0), (4.0, 4.0), (n, n))
        model = FokkerPlanck(cells, Velocity.outside("identity", w), nu)
        errors.append(np.abs(cells.covariance(model.steady_state()) - exact).max())
    assert abs(np.log2(errors[0] / errors[1]) - 2.0) < 0.1


@pytest.mark.parametrize("shape", [(40,), (12, 17)])
@pytest.mark.parametrize("moving", [False, True])
def test_compiled_path_equals_the_stages_and_keeps_mass_and_sign(shape, moving):
    d = len(shape)
    cells = Cells.box((-2.0,) * d, (2.0,) * d, shape)
    w = Controls([0.0, 0.5, 1.0], np.array([-np.eye(d), 0.5 * np.eye(d)])) if moving else -np.eye(d)
    velocity = Velocity.outside("tanh", w, (lambda t: np.full(d, t)) if moving else 0.1)
    model = FokkerPlanck(cells, velocity, 0.7, lambda *x: 1 + 0.3 * np.sin(x[0]))
    g = np.zeros(shape)
    g[(3,) * d] = 1.0 / cells.volume
    end = integrate(model, g, (0.0, 1.0)).final
    np.testing.assert_allclose(end, integrate(Stages(model), g, (0.0, 1.0)).final, rtol=1e-11, atol=1e-14)
    assert end.min() >= 0.0
    assert abs(model.mass(end) - 1.0) < 1e-13


def test_relative_entropy_decays_at_twice_the_rate_of_the_mean():
    # Ornstein-Uhlenbeck: H(g | g_inf) <= H_0 e^{-2 |w| t}; from a shifted Gaussian of the same variance, equal.
    w, nu = -0.8, 0.9
    model = FokkerPlanck(LINE, Velocity.outside("identity", w), nu)
    rest = model.steady_state() * LINE.volume
    solution = integrate(model, normal(LINE, 1.5, nu**2 / (2 * abs(w))), (0.0, 3.0), save_at=30)
    entropy = [relative_entropy_of_masses(g * LINE.volume, rest) for g in solution.fields["density"]]
    assert (np.diff(entropy) < 0.0).all()
    slope = np.log(entropy[10] / entropy[20]) / (solution.t[20] - solution.t[10])
    assert abs(slope / (2 * abs(w)) - 1.0) < 0.01


@pytest.mark.parametrize(
    ("name", "w", "b", "amplitude", "domain", "exists", "reason"),
    [
        ("tanh", -1.0, 0.2, 1.0, (-math.inf, math.inf), True, "decays"),
        ("tanh", 1.0, 0.2, 1.0, (-math.inf, math.inf), False, "grows exponentially"),
        ("relu", -1.0, 0.2, 1.0, (-math.inf, math.inf), False, "constant.* at [+]infinity"),
        ("sigmoid", -1.0, 0.2, 1.0, (-math.inf, math.inf), False, "constant.* at [+]infinity"),
        ("relu", 1.0, 0.2, lambda x: 1 + x * x, (-math.inf, math.inf), True, "decays"),
        ("identity", -1.0, 0.2, lambda x: x, (0.0, math.inf), True, "decays"),
        ("identity", -1.0, -0.2, lambda x: x, (0.0, math.inf), False, "at 0"),
        ("identity", 0.30, 0.2, lambda x: x, (0.0, math.inf), True, "decays"),  # w < nu^2/2 = 0.32
        ("identity", 0.33, 0.2, lambda x: x, (0.0, math.inf), False, "r\\^-0.969 at [+]infinity"),
    ],
)
def test_models_without_a_steady_state_say_why(name, w, b, amplitude, domain, exists, reason):
    found = equilibrium(Velocity.outside(name, w, b), 0.8, amplitude, domain=domain)
    assert found.exists is exists
    if exists:
        assert found.require() is found
    else:
        with pytest.raises(NumericalError, match=reason):
            found.require()


@pytest.mark.parametrize(
    ("velocity", "amplitude", "exists"),
    [
        (Velocity.outside("sine", -1.0, 0.0), 1.0, False),
        (Velocity.outside("sine", 0.3, 0.7), 1.0, False),
        (Velocity.outside("relu", -1.0, 0.3), lambda x: 2 + np.sin(x), False),
        (Velocity.outside("identity", 0.0, 0.0), np.cosh, True),
        (Velocity.outside("identity", 0.0, 0.0), np.exp, False),
        (Velocity.outside("tanh", -0.001, 0.3), lambda x: 2 + np.sin(x), True),
        (Velocity.two_layer("tanh", [[-1.0, 0.4]], [[1.0], [0.2]], [0.3, -0.5]), 1.0, True),
        (Velocity.two_layer("tanh", [[1.0, -0.4]], [[1.0], [0.2]], [0.3, -0.5]), 1.0, False),
    ],
)
def test_oscillating_and_extreme_densities_are_judged_by_their_mass(velocity, amplitude, exists):
    assert equilibrium(velocity, 0.8, amplitude).exists is exists


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
@pytest.mark.parametrize("n", [40, 80])
@pytest.mark.parametrize("nu", [0.3, 0.5])
def test_plane_with_any_amplitude_comes_to_rest(name, n, nu):
    cells = Cells.box((-2.0, -2.0), (2.0, 2.0), (n, n))
    model = FokkerPlanck(cells, Velocity.outside(name, -np.eye(2)), nu, lambda x, y: 1 + 0.2 * x * y)
    rest, rate = model.steady_state(), np.empty(cells.shape)
    model.rate(0.0, rest, rate)
    assert rest.min() >= 0.0
    assert np.abs(rate).max() < 1e-9 * rest.max() / cells.volume
    assert model.mass(rest) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "softplus", "gelu", "tanh"])
@pytest.mark.parametrize("w", [-1.0, -40.0])
def test_steady_density_is_exact_wherever_the_kink_lies(name, w):
    b, nu = 0.237, 0.9
    for n in (100, 101):
        cells = Cells.line(-4.0, 4.0, n)
        model = FokkerPlanck(cells, Velocity.outside(name, w, b), nu)
        log = 2 * activation(name).primitive(w * cells.centres() + b) / (nu**2 * w)
        exact = np.exp(log - log.max())
        np.testing.assert_allclose(model.steady_state(), exact / cells.mass(exact), atol=1e-10)
        if name == "relu" and w == -1.0:
            # K = 1 given as a callable takes the other way, by quadrature.
            other = FokkerPlanck(cells, Velocity.outside(name, w, b), nu, lambda x: 1 + 0 * x)
            np.testing.assert_allclose(other.steady_state(), model.steady_state(), atol=1e-11)


def test_parameters_that_change_fast_are_followed_or_refused():
    g = normal(LINE, 0.0, 0.3)
    pulse = Velocity.outside("identity", lambda t: -1 - 30 * math.exp(-(((t - 0.4) / 0.05) ** 2)))
    for scheme in ("ssprk2", "euler"):
        assert integrate(FokkerPlanck(LINE, pulse, 0.5), g, (0.0, 1.0), scheme=scheme).final.min() >= 0.0
    with pytest.raises((ConfigError, NumericalError), match="CFL"):
        integrate(FokkerPlanck(LINE, pulse, 0.5), g, (0.0, 1.0), n_steps=2000)


def test_the_border_itself_is_a_logarithm_and_what_lies_close_to_it_is_not_decided():
    # Identity, K = x, w = nu^2/2: g_inf ~ 1/x; the next one has the exponent -1.001.
    assert not equilibrium(Velocity.outside("identity", 0.5, 0.2), 1.0, lambda x: x, domain=(0.0, math.inf)).exists
    with pytest.raises(NumericalError, match="too close"):
        equilibrium(Velocity.outside("identity", 0.4995, 0.2), 1.0, lambda x: x, domain=(0.0, math.inf))


def test_exchange_weights_fit_the_exponential_for_any_size():
    z = np.array([-800.0, -30.0, -1.0, -1e-7, 0.0, 1e-9, 1e-3, 2.0, 50.0, 800.0])
    up, down = exchange_weights(z)
    np.testing.assert_allclose(up - down, z, rtol=1e-12, atol=1e-15)
    inside = np.abs(z) < 100
    np.testing.assert_allclose(np.log(up[inside] / down[inside]), z[inside], rtol=1e-9, atol=1e-15)


def test_bad_noise_is_refused():
    v = Velocity.outside("tanh", -1.0)
    with pytest.raises(ConfigError, match="nu must be > 0"):
        FokkerPlanck(LINE, v, -0.5)
    with pytest.raises(ConfigError, match="amplitude"):
        FokkerPlanck(Cells.line(-1.0, 1.0, 5), v, 0.5, lambda x: x)
    with pytest.raises(ConfigError, match="amplitude must not be 0"):
        FokkerPlanck(Cells.line(-1.0, 1.0, 6), v, 0.5, lambda x: x)
    with pytest.raises(ConfigError, match="amplitude returned shape"):
        FokkerPlanck(LINE, v, 0.5, lambda x: np.ones(3))
    with pytest.raises(ConfigError, match="CFL"):
        integrate(FokkerPlanck(LINE, v, 0.5), normal(LINE, 0.0, 1.0), (0.0, 1.0), dt=0.1)
    with pytest.raises(ConfigError, match="order"):
        equilibrium(v, 0.5, domain=(1.0, 0.0))
