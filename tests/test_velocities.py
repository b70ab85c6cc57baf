"""Velocities of residual networks and the particles they carry: values, bounds, closed forms, orders."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from meanfield import integrate
from meanfield._random import fill_normal
from meanfield.activations import activation
from meanfield.controls import Controls
from meanfield.diagnostics.rates import observed_order
from meanfield.errors import ConfigError, ResumeMismatchError
from meanfield.exact_laws import characteristic, gaussian_flow
from meanfield.models.residual import ResidualNetwork
from meanfield.parallel import get_threads, set_threads
from meanfield.recording import record
from meanfield.schemes import StepGrid, scheme
from meanfield.storage.run import create_run
from meanfield.velocities import Velocity

RNG = np.random.default_rng(8)


def example(form: str, d: int, sigma: str = "gelu") -> Velocity:
    """One with a parameter of every kind: constant, controls of both kinds, a callable."""
    knots = [0.0, 0.4, 1.0]
    if form == "two_layer":
        w, b = RNG.standard_normal((4, d)), RNG.standard_normal(4)
        v = Controls(knots, RNG.standard_normal((3, d, 4)), "linear")
        return Velocity.two_layer(sigma, v, lambda t: (1 + t) * w, b, Controls(knots, RNG.standard_normal((2, d))))
    slope = RNG.standard_normal(d)
    w = Controls(knots, RNG.standard_normal((2, d, d)))
    return getattr(Velocity, form)(sigma, w, lambda t: t * slope)


def written_out(velocity: Velocity, t: float, x: np.ndarray) -> np.ndarray:
    """The velocity in NumPy."""
    sigma = velocity.activation.value
    w, b, *rest = velocity.at(t)
    if velocity.form == "inside":
        return w @ sigma(x) + b[:, None]
    inner = sigma(w @ x + b[:, None])
    return inner if velocity.form == "outside" else rest[0] @ inner + rest[1][:, None]


FORMS = ("outside", "inside", "two_layer")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("d", [1, 2, 3, 6])
def test_value_and_divergence_of_every_form(form, d):
    velocity, x = example(form, d), RNG.standard_normal((d, 700))
    for t in (0.2, 0.7):
        np.testing.assert_allclose(velocity.value(t, x), written_out(velocity, t, x), rtol=1e-12, atol=1e-13)
    h = 1e-6 * np.eye(d)
    differences = sum(
        (velocity.value(0.7, x + h[:, [i]])[i] - velocity.value(0.7, x - h[:, [i]])[i]) / 2e-6 for i in range(d)
    )
    np.testing.assert_allclose(velocity.divergence(0.7, x), differences, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sigma", ["tanh", "gelu", "sine", "relu"])
def test_bounds_hold_over_the_box_and_the_interval(form, sigma):
    velocity = example(form, 2, sigma)
    edges = np.array([0.0, 0.4, 1.0])
    times = np.linspace(edges[:-1], np.nextafter(edges[1:], 0.0), 2 if form == "inside" else 9, axis=1)
    speed, slope = velocity.bounds(times, (-1.0, -2.0), (1.5, 0.5))
    x = RNG.uniform([[-1.0], [-2.0]], [[1.5], [0.5]], (2, 4000))
    h = np.array([[1e-5], [0.0]])
    for k in range(2):
        for t in RNG.uniform(edges[k], edges[k + 1], 20):
            v = velocity.value(t, x)
            assert (np.abs(v).max(axis=1) <= speed[k]).all()
            assert np.abs(velocity.value(t, x + h)[0] - v[0]).max() / 1e-5 <= slope[k, 0] * (1 + 1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("d", [1, 2, 4])
@pytest.mark.parametrize("name", ["euler", "ssprk2", "rk4"])
def test_fused_particles_equal_the_stages_written_out(form, d, name):
    for sigma in ("tanh", "gelu"):
        velocity = example(form, d, sigma)
        model, y = ResidualNetwork(velocity, 530), RNG.standard_normal((d, 530))
        got = integrate(model, y, (0.0, 1.0), scheme=name, n_steps=20).final
        tableau, grid, expected = scheme(name), StepGrid(np.array([0.0, 0.4, 1.0]), np.array([8, 12])), y
        for times, dt in zip(*grid.steps(tableau, 0, 20), strict=True):
            stages: list[np.ndarray] = []
            for i, t in enumerate(times):
                z = expected + dt * sum((tableau.a[i, j] * k for j, k in enumerate(stages)), np.zeros_like(y))
                stages.append(written_out(velocity, t, z))
            expected = expected + dt * sum(b * k for b, k in zip(tableau.b, stages, strict=True))
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


def test_particles_have_the_same_bytes_for_any_threads_and_any_split_of_the_steps():
    model = ResidualNetwork(example("outside", 2, "tanh"), 200_000)
    y, grid, before = RNG.standard_normal(model.shape), StepGrid(np.array([0.0, 1.0]), np.array([9])), get_threads()
    whole, part, end = (np.empty(model.shape) for _ in range(3))
    try:
        set_threads(1)
        model.advance(scheme("rk4"), grid, 0, 9, y, whole)
        set_threads(2)
        model.advance(scheme("rk4"), grid, 0, 4, y, part)
        model.advance(scheme("rk4"), grid, 4, 5, part, end)
    finally:
        set_threads(before)
    np.testing.assert_array_equal(end, whole)


@pytest.mark.parametrize("name", ["identity", "relu", "tanh", "sigmoid", "sine"])
@pytest.mark.parametrize("w", [1.3, -0.8])
def test_particles_follow_the_exact_characteristics_at_the_order_of_the_scheme(name, w):
    x = np.linspace(-2.0, 1.5, 41)
    model, exact = ResidualNetwork(Velocity.outside(name, w, 0.4), 41), characteristic(name, 0.9, x, w, 0.4)
    steps = np.array([16, 32, 64])
    errors = [
        np.abs(integrate(model, x[None], (0.0, 0.9), scheme="euler", n_steps=int(n)).final[0] - exact).max()
        for n in steps * 16
    ]
    assert abs(observed_order(1 / steps, errors).slopes[-1] - 1.0) < 0.1
    assert np.abs(integrate(model, x[None], (0.0, 0.9), n_steps=400).final[0] - exact).max() < 1e-9
    np.testing.assert_allclose(characteristic(name, -0.9, exact, w, 0.4), x, rtol=1e-9, atol=1e-10)


def test_law_of_a_linear_network_stays_gaussian():
    w, b = np.array([[-0.5, 1.0], [-0.3, 0.2]]), np.array([0.3, -0.1])
    x = RNG.standard_normal((2, 400))
    x = np.linalg.inv(np.linalg.cholesky(np.cov(x, bias=True))) @ (x - x.mean(axis=1, keepdims=True))
    end = integrate(ResidualNetwork(Velocity.outside("identity", w, b), 400), x, (0.0, 1.5), n_steps=200).final
    mean, covariance = gaussian_flow(1.5, w, b, 0.0, np.eye(2))
    np.testing.assert_allclose(end.mean(axis=1), mean, atol=1e-8)
    np.testing.assert_allclose(np.cov(end, bias=True), covariance, atol=1e-8)


def test_layers_of_a_trained_network_are_its_euler_steps():
    layers, h = 7, 0.25
    w, b, v, c = (RNG.standard_normal((layers, *s)) for s in ((5, 3), (5,), (3, 5), (3,)))
    x = RNG.standard_normal((3, 11))
    velocity = Velocity.from_layers("tanh", "two_layer", (0.0, layers * h), v / h, w, b, c / h)
    end = integrate(ResidualNetwork(velocity, 11), x, (0.0, layers * h), scheme="euler", n_steps=layers).final
    for k in range(layers):
        x = x + v[k] @ np.tanh(w[k] @ x + b[k][:, None]) + c[k][:, None]
    np.testing.assert_allclose(end, x, rtol=1e-12)


def test_adaptive_steps_land_on_the_layers():
    velocity = example("two_layer", 2, "tanh")
    x = RNG.standard_normal((2, 3))
    got = integrate(ResidualNetwork(velocity, 3), x, (0.0, 1.0), rtol=1e-10, atol=1e-12).final
    for j in range(3):
        y = x[:, j]
        for piece in ((0.0, np.nextafter(0.4, 0)), (0.4, 1.0)):
            y = solve_ivp(
                lambda t, z: written_out(velocity, t, z[:, None])[:, 0],
                piece,
                y,
                rtol=1e-12,
                atol=1e-13,
                method="DOP853",
            ).y[:, -1]
        np.testing.assert_allclose(got[:, j], y, rtol=1e-8, atol=1e-9)


def test_bad_velocities_are_refused():
    with pytest.raises(ConfigError, match="square"):
        Velocity.outside("tanh", np.ones((2, 3)))
    with pytest.raises(ConfigError, match="b has shape"):
        Velocity.inside("tanh", np.eye(2), np.ones(3))
    with pytest.raises(ConfigError, match="did you mean 'tanh'"):
        Velocity.outside("tanhh", 1.0)
    with pytest.raises(ConfigError, match="finite"):
        Velocity.outside("tanh", np.nan)
    with pytest.raises(ConfigError, match="leading axis"):
        Velocity.from_layers("tanh", "outside", (0, 1), 1.0)
    with pytest.raises(ConfigError, match="of a callable"):
        Velocity.outside("tanh", np.eye(2), lambda _t: np.ones(3))
    with pytest.raises(ConfigError, match="n_samples"):
        ResidualNetwork(Velocity.outside("tanh", 1.0), 0)
    assert Velocity.outside(activation("relu"), 1.0).activation.name == "relu"


def test_noisy_layers_are_euler_maruyama_steps_with_the_same_bytes_for_any_threads():
    velocity, x = Velocity.outside("tanh", -1.0, 0.3), RNG.standard_normal((1, 40_000))
    model, before = ResidualNetwork(velocity, 40_000, 0.7, lambda x: 1 + x**2, seed=3), get_threads()
    ends = []
    try:
        for n in (1, 2):
            set_threads(n)
            ends.append(integrate(model, x, (0.0, 0.5), n_steps=5).final)
    finally:
        set_threads(before)
    np.testing.assert_array_equal(*ends)
    y, xi = x, np.empty(x.shape)
    for k in range(5):
        fill_normal(np.uint64(3), np.uint64(k), 0, xi)
        y = y + 0.1 * velocity.value(0.0, y) + np.sqrt(0.1) * 0.7 * (1 + y**2) * xi
    np.testing.assert_allclose(ends[0], y, rtol=1e-12, atol=1e-13)
    with pytest.raises(ConfigError, match="noise"):
        integrate(model, x, (0.0, 0.5), scheme="rk4", n_steps=5)
    with pytest.raises(ConfigError, match="noise"):
        integrate(model, x, (0.0, 0.5))


def test_noise_goes_on_where_a_run_is_cut_in_two():
    model, x = ResidualNetwork(Velocity.outside("tanh", -1.0), 500, 1.0, seed=7), np.zeros((1, 500))
    whole = integrate(model, x, (0.0, 1.0), n_steps=40).final
    half = integrate(model, x, (0.0, 0.5), n_steps=20).final
    np.testing.assert_array_equal(integrate(model, half, (0.5, 1.0), n_steps=20).final, whole)
    before = integrate(model, x, (-0.5, 0.5), n_steps=40).final
    half = integrate(model, x, (-0.5, 0.0), n_steps=20).final
    np.testing.assert_array_equal(integrate(model, half, (0.0, 0.5), n_steps=20).final, before)


def test_odd_points_and_parameters_have_clear_answers():
    velocity = Velocity.outside("tanh", -1.0)
    with pytest.raises(ConfigError, match=r"x has shape \(2, 3\), expected \(1, n\)"):
        velocity.value(0.0, np.zeros((2, 3)))
    with pytest.raises(ConfigError, match="at most 2 parameters"):
        Velocity.from_layers("tanh", "outside", (0, 1), *np.ones((3, 4)))
    assert Velocity.outside("tanh", lambda t: -1 / t).at(2.0)[0] == -0.5
    with pytest.raises(ConfigError, match="no value"):
        Velocity.outside("tanh", lambda _t: 1 / 0)
    with pytest.raises(ConfigError, match="seed must be an integer"):
        ResidualNetwork(velocity, 3, 0.5, seed=-1)


def test_a_run_with_a_callable_amplitude_is_recorded_and_told_from_another(tmp_path):
    class Strength:
        def __init__(self, size):
            self.size = size

        def __call__(self, x):
            return self.size + x**2

    with create_run(tmp_path / "r.h5", {}) as run:
        for i, size in enumerate((1.0, 2.0)):
            model = ResidualNetwork(Velocity.outside("tanh", -1.0), np.int64(50), 0.5, Strength(size))
            record(run, f"s{i}", model, np.zeros((1, 50)), (0.0, 1.0), n_steps=10)
        with pytest.raises(ResumeMismatchError):
            record(run, "s0", model, np.zeros((1, 50)), (0.0, 1.0), n_steps=10)
