"""Discrete adjoint of residual networks: Taylor remainders, complex steps, closed forms, checkpoints, threads."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.complex_steps import ACTIVATIONS, STEP, complex_cost, gradient_of, moved, residual_rate, values

from meanfield.controls import Controls
from meanfield.diagnostics.rates import fit_rate
from meanfield.errors import ConfigError
from meanfield.learning.adjoint import adjoint
from meanfield.models.residual import ResidualNetwork
from meanfield.parallel import get_threads, set_threads
from meanfield.planning import step_grid
from meanfield.velocities import Velocity

RNG = np.random.default_rng(14)
KNOTS = [0.0, 0.3, 0.45, 1.0]


def example(form: str, d: int, sigma: str, neurons: int = 5, scale: float = 1.0) -> Velocity:
    """Parameters of all kinds: constant, constant and linear between knots that are not even."""
    m = neurons if form == "two_layer" else d
    w = Controls(KNOTS, scale * RNG.standard_normal((3, m, d)))
    b = Controls(KNOTS, RNG.standard_normal((4, m)), "linear")
    if form == "two_layer":
        return Velocity.two_layer(sigma, scale * RNG.standard_normal((d, m)), w, b, RNG.standard_normal(d))
    return getattr(Velocity, form)(sigma, w, b)


def complex_objective(velocity, direction, y0, dy, name, n_steps):
    """Objective along theta + i e direction, y0 + i e dy, by steps written out."""
    grid = step_grid(ResidualNetwork(velocity, y0.shape[1]), (0.0, 1.0), n_steps=n_steps)
    return complex_cost(residual_rate(velocity, direction), grid, name, y0 + 1j * STEP * dy)


def objective(velocity, y0, name, n_steps, **options):
    return gradient_of(ResidualNetwork(velocity, y0.shape[1]), y0, name, n_steps, **options)


def check_against_complex_steps(velocity, y0, name):
    """Value and a directional derivative equal those of a complex step, to round-off."""
    direction = {k: RNG.standard_normal(v.shape) for k, v in values(velocity).items()}
    dy = RNG.standard_normal(y0.shape)
    found = objective(velocity, y0, name, 20)
    slope = np.sum(found.state * dy) + sum(np.sum(g * direction[k]) for k, g in found.parameters.items())
    expected = complex_objective(velocity, direction, y0, dy, name, 20)
    assert abs(found.value / expected.real - 1) < 1e-12
    assert abs(slope - expected.imag / STEP) < 1e-12 * sum(
        np.abs(g * direction[k]).sum() for k, g in found.parameters.items()
    )


@pytest.mark.parametrize("form", ["outside", "inside", "two_layer"])
@pytest.mark.parametrize("name", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("sigma", list(ACTIVATIONS))
def test_gradient_equals_the_complex_step_derivative_to_round_off(form, name, sigma):
    for d in (1, 2, 3):
        check_against_complex_steps(example(form, d, sigma), RNG.standard_normal((d, 7)), name)


@pytest.mark.parametrize("form", ["outside", "inside", "two_layer"])
@pytest.mark.parametrize("name", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("sigma", ["tanh", "gelu"])
def test_gradient_of_many_components_equals_the_complex_step_derivative_to_round_off(form, name, sigma):
    # Components, neurons and samples that do and do not fill tiles, panels and blocks.
    for d, neurons, n in ((8, 8, 1), (16, 32, 48), (21, 9, 37), (40, 19, 301)):
        velocity = example(form, d, sigma, neurons, 1 / np.sqrt(d))
        check_against_complex_steps(velocity, RNG.standard_normal((d, n)), name)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize(("sigma", "neurons"), [("tanh", 1), ("tanh", 4), ("tanh", 5), ("sine", 5)])
def test_gradient_of_few_components_over_several_blocks_equals_the_complex_step_derivative(d, sigma, neurons):
    velocity = example("two_layer", d, sigma, neurons)
    check_against_complex_steps(velocity, RNG.standard_normal((d, 1100)), "heun")


@pytest.mark.parametrize("sigma", ["softplus", "gelu", "tanh"])
def test_taylor_remainder_has_slope_two_over_ten_halvings(sigma):
    velocity, y0 = example("two_layer", 2, sigma), RNG.standard_normal((2, 300))
    direction = {k: RNG.standard_normal(v.shape) for k, v in values(velocity).items()}
    base = objective(velocity, y0, "rk4", 20)
    slope = sum(np.sum(g * direction[k]) for k, g in base.parameters.items())
    steps = 0.002 * 2.0 ** -np.arange(11)
    rest = [abs(objective(moved(velocity, direction, e), y0, "rk4", 20).value - base.value - e * slope) for e in steps]
    assert abs(fit_rate(steps, rest).slope - 2.0) < 0.05


def test_linear_case_in_closed_form():
    # x' = w x + b, J = (x(1) - y)^2/2 by Euler: x_n = x (1 + w h)^n, b = 0.
    w, x, y, n = 0.7, 1.3, -0.4, 16
    model = ResidualNetwork(Velocity.outside("identity", w, 0.0), 1)
    found = adjoint(model, [[x]], (0, 1), terminal=lambda z: (float((z[0, 0] - y) ** 2 / 2), z - y), scheme="euler",
                    n_steps=n)  # fmt: skip
    growth = 1 + w / n
    rest = x * growth**n - y
    assert found.value == pytest.approx(rest**2 / 2, rel=1e-14)
    assert found.state[0, 0] == pytest.approx(rest * growth**n, rel=1e-13)
    assert found.parameters["w"][0, 0] == pytest.approx(rest * x * growth ** (n - 1), rel=1e-13)
    assert found.parameters["b"][0] == pytest.approx(rest * (growth**n - 1) / w, rel=1e-13)


@pytest.mark.parametrize("d", [2, 20])
def test_checkpoints_change_nothing(d):
    velocity, y0 = example("two_layer", d, "tanh", 9, 1 / np.sqrt(d)), RNG.standard_normal((d, 50))
    whole = objective(velocity, y0, "rk4", 60)
    for k in (2, 7, 60, 1000):
        part = objective(velocity, y0, "rk4", 60, checkpoints=k)
        assert part.value == pytest.approx(whole.value, rel=1e-14)
        np.testing.assert_allclose(part.state, whole.state, rtol=1e-12, atol=1e-14)
        for name, g in whole.parameters.items():
            np.testing.assert_allclose(part.parameters[name], g, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("d", [2, 16])
def test_gradients_have_the_same_bytes_for_any_threads(d):
    velocity, before = example("two_layer", d, "tanh", 9, 1 / np.sqrt(d)), get_threads()
    y0 = RNG.standard_normal((d, 30_000 // d))
    found = []
    try:
        for n in (1, 2):
            set_threads(n)
            found.append(objective(velocity, y0, "euler", 20))
    finally:
        set_threads(before)
    np.testing.assert_array_equal(found[0].state, found[1].state)
    for name, g in found[0].parameters.items():
        np.testing.assert_array_equal(g, found[1].parameters[name])


def test_bad_arguments_are_refused():
    model = ResidualNetwork(Velocity.outside("tanh", 1.0), 2)
    with pytest.raises(ConfigError, match="fixed steps"):
        adjoint(model, np.zeros((1, 2)), (0, 1), terminal=lambda y: (0.0, y))
    with pytest.raises(ConfigError, match="y0 has shape"):
        adjoint(model, np.zeros((1, 3)), (0, 1), terminal=lambda y: (0.0, y), n_steps=3)
    with pytest.raises(ConfigError, match="gradient of the terminal cost has shape"):
        adjoint(model, np.zeros((1, 2)), (0, 1), terminal=lambda _y: (0.0, np.zeros(2)), n_steps=3)
    with pytest.raises(ConfigError, match="checkpoints"):
        adjoint(model, np.zeros((1, 2)), (0, 1), terminal=lambda y: (0.0, y), n_steps=3, checkpoints=0)
    with pytest.raises(ConfigError, match="no adjoint"):
        adjoint(object(), np.zeros((1, 2)), (0, 1), terminal=lambda y: (0.0, y), n_steps=3)
    with pytest.raises(ConfigError, match="unknown parameter 'W'"):
        model.velocity.with_parameters(W=np.eye(1))


@pytest.mark.parametrize("sigma", ["relu", "leaky_relu"])
@pytest.mark.parametrize("form", ["outside", "inside", "two_layer"])
def test_kinked_activations_against_differences_where_no_sample_crosses_the_kink(form, sigma):
    velocity, y0 = example(form, 2, sigma), RNG.standard_normal((2, 5))
    direction = {k: RNG.standard_normal(v.shape) for k, v in values(velocity).items()}
    found = objective(velocity, y0, "heun", 20)
    slope = sum(np.sum(g * direction[k]) for k, g in found.parameters.items())
    ahead, back = (objective(moved(velocity, direction, e), y0, "heun", 20).value for e in (1e-6, -1e-6))
    assert abs((ahead - back) / 2e-6 - slope) < 1e-6 * max(1.0, abs(slope))
