"""Steady states: residuals, the convex set of ReLU and the distance to it, and where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from meanfield.controls import Controls
from meanfield.diagnostics import steady
from meanfield.diagnostics.steady import (
    active_fraction,
    project_to_steady_set,
    steady_distance,
    steady_residual,
    steady_residual_sup,
    steady_states,
)
from meanfield.errors import ConfigError
from meanfield.grids import Grid
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.dense import Dense

GRID = Grid.interval(12, rule="gauss")
Q = GRID.weights
RNG = np.random.default_rng(51)
KERNEL = RNG.normal(size=(12, 12))
BIAS = RNG.normal(size=12)


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("n_samples", [None, 3])
def test_residual_and_active_fraction_are_those_of_the_preactivation(name, n_samples):
    model = SpaceTimeNetwork(Dense(GRID, KERNEL), name, BIAS, n_samples=n_samples)
    y = np.random.default_rng(1).normal(size=(12,) if n_samples is None else (n_samples, 12))
    u = y @ (KERNEL * Q).T + BIAS
    rate = {"relu": np.maximum(u, 0), "tanh": np.tanh(u), "sigmoid": 1 / (1 + np.exp(-u))}[name]
    np.testing.assert_allclose(steady_residual(0.0, y, model), np.sqrt(rate**2 @ Q), rtol=1e-12)
    np.testing.assert_allclose(steady_residual_sup(0.0, y, model), np.abs(rate).max(axis=-1), rtol=1e-12)
    np.testing.assert_allclose(active_fraction(0.0, y, model), (u > 0) @ Q, rtol=1e-12)
    for probe in (steady_residual, steady_residual_sup, active_fraction):
        assert isinstance(probe(0.0, y, model), float) == (n_samples is None)


def test_residual_of_a_leaky_inside_network_is_its_rate():
    model = SpaceTimeNetwork(Dense(GRID, KERNEL), "tanh", BIAS, placement="inside", leak=0.5)
    y = np.random.default_rng(2).normal(size=12)
    rate = -0.5 * y + (KERNEL * Q) @ np.tanh(y) + BIAS
    assert steady_residual(0.0, y, model) == pytest.approx(np.sqrt(rate**2 @ Q), rel=1e-12)
    assert active_fraction(0.0, y, model) == pytest.approx((y > 0) @ Q, rel=1e-12)


@pytest.mark.parametrize("dense", [True, False])
def test_projection_under_a_constant_inhibition_shifts_the_field(dense, monkeypatch):
    # {-kappa m + beta <= 0} is a half space: the nearest point raises every label alike.
    monkeypatch.setattr(steady, "_DENSE", 1024 if dense else 0)
    kappa, beta = 1.7, 0.9
    model = SpaceTimeNetwork(Dense(GRID, -kappa * np.ones((12, 12))), "relu", beta)
    y = np.random.default_rng(3).normal(size=12)
    lift = beta / kappa - y @ Q
    assert lift > 0
    found = project_to_steady_set(y, model)
    assert found.converged
    np.testing.assert_allclose(found.point, y + lift, rtol=1e-6)
    assert found.distance == pytest.approx(lift, rel=1e-6)
    assert found.lower <= lift * (1 + 1e-12) <= found.upper * (1 + 2e-12)


@pytest.mark.parametrize("dense", [True, False])
def test_projection_with_a_local_part_alone_is_pointwise(dense, monkeypatch):
    monkeypatch.setattr(steady, "_DENSE", 1024 if dense else 0)
    lam = 0.4
    model = SpaceTimeNetwork(Dense(GRID, np.zeros((12, 12)), local=-lam), "relu", BIAS)
    y = np.random.default_rng(4).normal(size=12)
    found = project_to_steady_set(y, model)
    np.testing.assert_allclose(found.point, np.maximum(y, BIAS / lam), atol=1e-6)
    assert found.distance == pytest.approx(np.sqrt(np.maximum(BIAS / lam - y, 0) ** 2 @ Q), rel=1e-6)
    assert found.gap <= 1e-6 * found.distance


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_projection_is_that_of_a_general_solver(dense, seed, monkeypatch):
    monkeypatch.setattr(steady, "_DENSE", 1024 if dense else 0)
    rng = np.random.default_rng(seed)
    kernel, b, y = rng.normal(size=(12, 12)), rng.normal(size=12), rng.normal(size=12)
    model = SpaceTimeNetwork(Dense(GRID, kernel, local=-0.6), "relu", b)
    w = kernel * Q - 0.6 * np.eye(12)
    want = minimize(
        lambda z: 0.5 * (z - y) ** 2 @ Q, y, jac=lambda z: (z - y) * Q, method="SLSQP",
        constraints={"type": "ineq", "fun": lambda z: -(w @ z + b), "jac": lambda z: -w},
        options={"ftol": 1e-15, "maxiter": 1000},
    )  # fmt: skip
    assert want.success
    exact = np.sqrt((want.x - y) ** 2 @ Q)
    found = project_to_steady_set(y, model)
    assert found.converged, found
    assert found.distance == pytest.approx(exact, rel=1e-5)
    assert found.lower <= exact * (1 + 1e-7)
    assert found.upper >= exact * (1 - 1e-7)
    assert (w @ found.point + b).max() <= found.violation + 1e-12
    assert found.violation < 1e-12
    np.testing.assert_allclose(found.point, want.x, atol=1e-3)


def test_projection_without_an_inward_direction_reports_no_upper_bound():
    # W z has mean zero for the kernel sin 2 pi (x - y): {W z <= -b} has no interior for b of mean 0.
    grid = Grid.circle(16)
    x = grid.nodes.reshape(-1)
    kernel = np.sin(2 * np.pi * (x[:, None] - x))
    b = np.cos(2 * np.pi * x)
    model = SpaceTimeNetwork(Dense(grid, kernel), "relu", b)
    found = project_to_steady_set(np.zeros(16), model)
    # W z = -b is forced: the modes of z are fixed at 2 sin 2 pi x, of norm sqrt 2.
    assert found.upper == np.inf
    assert found.lower <= np.sqrt(2.0) * (1 + 1e-12)
    assert found.distance == pytest.approx(np.sqrt(2.0), rel=1e-5)
    assert found.violation < 1e-5


def test_steady_fields_are_their_own_projection():
    model = SpaceTimeNetwork(Dense(GRID, -np.ones((12, 12))), "relu", 0.5, n_samples=2)
    y = np.stack([np.full(12, 2.0), np.full(12, 0.2)])
    found = project_to_steady_set(y[0], model)
    assert (found.distance, found.gap, found.n_iterations) == (0.0, 0.0, 0)
    np.testing.assert_array_equal(found.point, y[0])
    np.testing.assert_allclose(steady_distance(0.0, y, model), [0.0, 0.3], rtol=1e-6)
    single = SpaceTimeNetwork(Dense(GRID, -np.ones((12, 12))), "relu", 0.5)
    assert isinstance(steady_distance(0.0, y[1], single), float)


def test_an_empty_set_is_proved_to_be_far_away():
    # W z has opposite signs on the two halves: it cannot be <= -1 on both.
    kernel = np.outer(np.sign(np.arange(12) - 5.5), np.ones(12))
    found = project_to_steady_set(np.zeros(12), SpaceTimeNetwork(Dense(GRID, kernel), "relu", 1.0))
    assert found.lower > 1e6
    assert not found.converged


def test_an_empty_set_without_a_kernel_is_infinitely_far():
    model = SpaceTimeNetwork(Dense(GRID, np.zeros((12, 12))), "relu", 0.3)
    found = project_to_steady_set(np.zeros(12), model)
    assert found.lower == np.inf
    assert found.distance == np.inf
    assert not found.converged


@pytest.mark.parametrize("name", ["sigmoid", "softplus"])
def test_positive_activations_have_no_steady_state(name):
    found = steady_states(SpaceTimeNetwork(Dense(GRID, KERNEL), name, BIAS))
    assert (found.kind, found.point) == ("none", None)


@pytest.mark.parametrize(
    ("kernel", "bias", "kind"),
    [
        (np.zeros((12, 12)), 0.3, "empty"),
        (np.zeros((12, 12)), -0.3, "convex"),
        (np.zeros((12, 12)), 0.0, "convex"),
        (-np.ones((12, 12)), 3.0, "convex"),
        (np.outer(np.sign(np.arange(12) - 5.5), np.ones(12)), 1.0, "empty"),
        (np.outer(np.sign(np.arange(12) - 5.5), np.ones(12)), -1.0, "convex"),
    ],
)
def test_relu_steady_set_is_convex_or_empty(kernel, bias, kind):
    model = SpaceTimeNetwork(Dense(GRID, kernel), "relu", bias)
    found = steady_states(model)
    assert found.kind == kind
    if kind == "convex":
        assert (kernel @ (Q * found.point) + bias).max() <= 1e-6
    else:
        assert found.point is None
        assert found.residual == pytest.approx(bias, rel=1e-6)


@pytest.mark.parametrize("name", ["identity", "tanh", "leaky_relu"])
def test_fredholm_equation_is_solvable_exactly_on_the_range(name):
    left, right = np.random.default_rng(7).normal(size=(2, 4, 12))
    kernel = left.T @ right
    inside = kernel @ (Q * np.arange(12.0))
    found = steady_states(SpaceTimeNetwork(Dense(GRID, kernel), name, inside))
    assert found.kind == "affine"
    np.testing.assert_allclose(kernel @ (Q * found.point), -inside, atol=1e-9)
    # No other solution is smaller: the one found has no part in the null space.
    null = np.linalg.svd(right * np.sqrt(Q))[2][4:]
    np.testing.assert_allclose(null @ (np.sqrt(Q) * found.point), 0.0, atol=1e-9)
    outside = inside + np.cos(np.arange(12.0))
    found = steady_states(SpaceTimeNetwork(Dense(GRID, kernel), name, outside))
    assert found.kind == "unsolvable"
    fit = kernel @ (Q * found.point) + outside
    assert found.residual == pytest.approx(np.sqrt(fit**2 @ Q / (outside**2 @ Q)), rel=1e-8)
    assert found.picard.shape == (12, 3)
    np.testing.assert_allclose(null @ (np.sqrt(Q) * found.point), 0.0, atol=1e-9)


def test_picard_quotients_tell_smooth_from_rough_right_hand_sides():
    # The kernel min(x, y) has s_k = 1/((k - 1/2) pi)^2; b = W 1 satisfies the condition, b = 1 does not.
    sums = []
    for n in (40, 160):
        grid = Grid.interval(n)
        x = grid.nodes.reshape(-1)
        kernel = np.minimum(x[:, None], x)
        for b in (kernel @ grid.weights, np.ones(n)):
            table = steady_states(SpaceTimeNetwork(Dense(grid, kernel), "tanh", b)).picard
            assert table[0, 0] == pytest.approx(4 / np.pi**2, rel=1e-3)
            sums.append(np.linalg.norm(table[:, 2]))
    assert sums[0] == pytest.approx(1.0, rel=1e-8)
    assert sums[2] == pytest.approx(1.0, rel=1e-8)
    assert sums[3] > 5 * sums[1]


@pytest.mark.parametrize(
    "options", [{"leak": 0.1}, {"placement": "inside"}, {"amplitude": Controls([0.0, 1.0], [1.0, 2.0], "linear")}]
)
def test_steady_sets_refuse_models_outside_their_hypotheses(options):
    model = SpaceTimeNetwork(Dense(GRID, KERNEL), "relu", BIAS, **options)
    for function in (lambda: steady_states(model), lambda: project_to_steady_set(np.zeros(12), model)):
        with pytest.raises(ConfigError, match="constant"):
            function()
    with pytest.raises(ConfigError, match="tanh"):
        project_to_steady_set(np.zeros(12), SpaceTimeNetwork(Dense(GRID, KERNEL), "tanh"))
