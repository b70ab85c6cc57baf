"""Interpolation by parameters of least norm: closed forms, SLSQP, sensitivities, and targets out of reach."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from meanfield.controls import Controls
from meanfield.errors import ConfigError, NumericalError
from meanfield.grids import Grid
from meanfield.integration import integrate
from meanfield.learning.minimal_norm import minimal_norm
from meanfield.learning.quasi_newton import minimise
from meanfield.learning.training import Training
from meanfield.losses import Logistic, Readout, Squared
from meanfield.models.residual import ResidualNetwork
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.dense import Dense
from meanfield.operators.path import OperatorPath
from meanfield.regularizers import DepthL2
from meanfield.solution import Status
from meanfield.velocities import Velocity

X = np.array([[0.8, -0.6, 0.1], [0.2, 0.7, -0.9]])
Y = np.array([[0.9, -0.2, -0.5], [-0.5, 0.9, -0.4]])


def scalar(n: int, x, y, name: str = "w", scheme: str = "euler", length: float = 1.0, start: float = 0.0) -> Training:
    """x' = w x or x' = b for samples on the line."""
    knots = np.linspace(0.0, length, n + 1)
    trained = Controls(knots, np.full((n, 1, 1) if name == "w" else (n, 1), start))
    parts = (trained, 0.0) if name == "w" else (0.0, trained)
    network = ResidualNetwork(Velocity.inside("identity", *parts), len(x))
    return Training(network, [x], Squared(y), (0.0, length), n, scheme, trained=(name,))


def plane(n: int = 8, kind: str = "constant", form: str = "inside", scheme: str = "euler") -> Training:
    """Three points of the plane, W tanh x + b or tanh(W x + b)."""
    knots = np.linspace(0.0, 1.0, n + 1)
    count = n + (kind == "linear")
    parts = Controls(knots, np.zeros((count, 2, 2)), kind), Controls(knots, np.zeros((count, 2)), kind)
    maker = {"inside": Velocity.inside, "outside": Velocity.outside}[form]
    return Training(ResidualNetwork(maker("tanh", *parts), 3), X, Squared(Y), (0.0, 1.0), n, scheme)


@pytest.mark.parametrize("n", [1, 2, 9])
def test_scalar_weights_are_equal_and_the_multiplier_is_the_slope_of_the_norm(n):
    found = minimal_norm(scalar(n, [0.7], [2.0], length=3.0)).raise_for_status()
    # prod (1 + h w_k) = y/x0 with the w_k all equal; the norm is T w^2.
    h, ratio = 3.0 / n, (2.0 / 0.7) ** (1.0 / n)
    w = (ratio - 1.0) / h
    np.testing.assert_allclose(found.model.parameters["w"].values, w, rtol=1e-9)
    assert found.value == pytest.approx(3.0 * w**2, rel=1e-9)
    assert found.multipliers[0, 0] == pytest.approx(-3.0 * w * ratio / (n * h * 2.0), rel=1e-8)
    assert found.outcome == "solved"
    assert found.violation <= 1e-10
    assert found.residual <= 1e-8
    assert found.rank == 1


@pytest.mark.parametrize("form", ["inside", "outside"])
def test_several_data_agree_with_sequential_quadratic_programming(form):
    problem = plane(5, form=form)
    targets = Y if form == "inside" else 0.5 * (X + Y)
    found = minimal_norm(problem, targets).raise_for_status()

    def violation(flat):
        values, y = flat / np.sqrt(0.2), X.copy()
        for w, b in zip(values[:20].reshape(5, 2, 2), values[20:].reshape(5, 2, 1), strict=True):
            y = y + 0.2 * (w @ np.tanh(y) + b if form == "inside" else np.tanh(w @ y + b))
        return np.ravel(y - targets)

    reference = minimize(
        lambda u: (u @ u, 2 * u), problem.start(), jac=True, method="SLSQP",
        constraints={"type": "eq", "fun": violation}, options={"ftol": 1e-13, "maxiter": 300},
    )  # fmt: skip
    assert reference.success
    assert np.abs(violation(found.flat)).max() <= 1e-10
    assert found.value == pytest.approx(reference.fun, rel=1e-7)
    np.testing.assert_allclose(found.flat, reference.x, atol=2e-5)


@pytest.mark.parametrize("kind", ["constant", "linear"])
def test_multipliers_are_the_slopes_of_the_norm_in_the_targets(kind):
    problem, way = plane(6, kind, scheme="heun"), np.random.default_rng(1).standard_normal(Y.shape)
    found = minimal_norm(problem).raise_for_status()
    values = [minimal_norm(problem, Y + e * way, found.flat).raise_for_status().value for e in (1e-4, -1e-4)]
    assert -2.0 * float((found.multipliers * way).sum()) == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-6)
    # The norm is that of the functions of depth, for both kinds.
    assert found.value == pytest.approx(sum(found.model.parameters[k].norm() ** 2 for k in "wb"), rel=1e-12)


def test_optima_of_terminal_problems_have_the_least_norm_for_their_own_outputs():
    problem = replace(plane(12), regularizers=dict.fromkeys("wb", DepthL2(0.05)))
    optimum = minimise(problem, tolerance=1e-11).raise_for_status()
    ended = X.copy()
    for w, b in zip(*(optimum.model.parameters[k].values for k in "wb"), strict=True):
        ended = ended + (w @ np.tanh(ended) + b[:, None]) / 12
    found = minimal_norm(problem, ended).raise_for_status()
    np.testing.assert_allclose(found.flat, optimum.flat, atol=1e-8)
    # Stationary points of both: lambda = (f - y)/(2 n lam).
    np.testing.assert_allclose(found.multipliers, (ended - Y) / (2 * 3 * 0.05), rtol=1e-6)


def test_newton_steps_end_the_search_faster_than_linearly():
    found = minimal_norm(plane()).raise_for_status()
    size = np.hypot(found.violations, found.residuals)
    assert size[-1] < 1e-3 * size[-2]
    assert found.evaluations > 0
    assert len(found.values) == len(found.violations) == len(found.residuals) > found.rounds


def labelled() -> Training:
    """Space-time network on a few labels, two samples and two integrals of the activations."""
    grid, rng, knots = Grid.interval(6, rule="gauss"), np.random.default_rng(3), np.linspace(0.0, 1.0, 5)
    kernels = [Dense(grid, 0.1 * rng.standard_normal((6, 6))) for _ in range(4)]
    model = SpaceTimeNetwork(OperatorPath(knots, kernels), "tanh", Controls(knots, np.zeros((4, 6))),
                             placement="inside", n_samples=2)  # fmt: skip
    x = np.array([np.cos(grid.nodes), np.sin(2 * grid.nodes)])
    readout = Readout(np.array([np.ones(6), grid.nodes]))
    return Training(model, x, Squared([[0.9, 0.6], [0.3, 0.5]]), (0.0, 1.0), 4, readout=readout)


def test_space_time_networks_interpolate_with_the_norm_of_their_labels():
    problem = labelled()
    q = problem.model.grid.weights
    penalties = {"weight": DepthL2(0.02, np.outer(q, q)), "bias": DepthL2(0.02, q)}
    optimum = minimise(replace(problem, regularizers=penalties), tolerance=1e-11).raise_for_status()
    end = integrate(optimum.model, problem.x, (0.0, 1.0), scheme="euler", n_steps=4).y[-1]
    found = minimal_norm(problem, optimum.readout.forward(problem.columns(end))).raise_for_status()
    np.testing.assert_allclose(found.flat, optimum.flat, atol=1e-7)
    parts = found.model.parameters
    norm = 0.25 * float((parts["weight"].values ** 2 * np.outer(q, q)).sum() + (parts["bias"].values ** 2 * q).sum())
    assert found.value == pytest.approx(norm, rel=1e-12)
    assert found.rank == 4


def test_inputs_that_are_their_own_targets_need_nothing():
    found = minimal_norm(plane(), X, plane().start() + 0.1).raise_for_status()
    assert found.value < 1e-16
    assert np.abs(found.multipliers).max() < 1e-8
    still = minimal_norm(plane(), X).raise_for_status()
    assert still.value == 0.0
    assert still.rounds == 1


def test_constraints_that_say_the_same_are_met_together():
    found = minimal_norm(scalar(4, [0.2, 0.7], [1.2, 1.7], "b")).raise_for_status()
    assert found.rank == 1
    assert found.value == pytest.approx(1.0, rel=1e-9)
    np.testing.assert_allclose(found.multipliers, -0.5, rtol=1e-9)


def test_contradictory_targets_are_out_of_reach():
    found = minimal_norm(scalar(4, [0.2, 0.7], [1.2, 1.1], "b"))
    assert found.outcome == "out of reach"
    assert found.status is Status.NOT_CONVERGED
    assert found.violation == pytest.approx(0.3, abs=1e-4)
    assert found.stationarity < 1e-3
    with pytest.raises(NumericalError, match=r"targets are out of reach nearby: least violation 0\.3"):
        found.raise_for_status()


def test_targets_beyond_an_infimum_are_out_of_reach():
    # x0 e^{int w} has the sign of x0, and Runge-Kutta steps keep it.
    found = minimal_norm(scalar(6, [0.7], [-1.0], scheme="rk4"))
    assert found.outcome == "out of reach"
    assert found.violation == pytest.approx(1.0, abs=1e-3)


def test_too_few_parameters_are_out_of_reach():
    found = minimal_norm(replace(plane(1), trained=("b",)))
    assert found.outcome == "out of reach"
    assert found.rank == 2
    # What is left is the mean of the displacements.
    np.testing.assert_allclose(found.flat, (Y - X).mean(axis=1), atol=1e-3)


def test_kinks_stall_the_search():
    knots, x = np.linspace(0.0, 1.0, 3), np.array([[0.7, 1.27]])
    # Nothing falls under x' = max(w x + b, 0): the second sample is held at best, and penalties drive it to the kink.
    velocity = Velocity.outside("relu", Controls(knots, np.full((2, 1, 1), 0.3)), Controls(knots, np.full((2, 1), 0.2)))
    found = minimal_norm(Training(ResidualNetwork(velocity, 2), x, Squared([1.15, 1.08]), (0.0, 1.0), 2))
    assert found.outcome == "stalled"
    assert found.status is Status.NOT_CONVERGED
    assert "as at kinks" in found.message
    assert found.violation == pytest.approx(0.19, abs=1e-6)


def test_rounds_have_a_limit():
    found = minimal_norm(scalar(4, [0.2, 0.7], [1.2, 1.1], "b"), max_rounds=1)
    assert found.outcome == "limit"
    assert found.status is Status.MAX_STEPS
    assert found.rounds == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: minimal_norm(plane(), Y[:, :2]), r"targets has shape \(2, 2\), expected \(2, 3\)"),
        (lambda: minimal_norm(plane(), Y[0]), r"targets has shape \(3,\), expected \(2, 3\)"),
        (lambda: minimal_norm(replace(plane(), tracking=0.5)), "tracking must be 0: .* got 0.5"),
        (lambda: minimal_norm(replace(plane(), trained=())), "must depend on depth, got 'nothing'"),
        (
            lambda: minimal_norm(replace(plane(), readout=Readout(np.eye(2), trained=True))),
            "must depend on depth, got .*readout",
        ),
        (lambda: minimal_norm(plane(), tolerance=0.0), "tolerance must be > 0, got 0.0"),
        (lambda: minimal_norm(plane(), violation=-1.0), "violation must be > 0, got -1.0"),
        (lambda: minimal_norm(plane(), max_rounds=0), "max_rounds must be a positive integer"),
        (lambda: minimal_norm(plane(), start=np.zeros(3)), "start"),
        (
            lambda: minimal_norm(replace(scalar(3, [0.1], [1.0]), loss=Logistic([1]))),
            "targets must be given where the loss has none, Logistic",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_constant_parameters_are_refused():
    network = ResidualNetwork(Velocity.inside("tanh", np.zeros((2, 2)), np.zeros(2)), 3)
    with pytest.raises(ConfigError, match=r"must depend on depth, got .*w"):
        minimal_norm(Training(network, X, Squared(Y), (0.0, 1.0), 4))
