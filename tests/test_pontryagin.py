"""Minimum principle and successive approximations: gradients, residuals of optima, closed forms, damping."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from meanfield.controls import Controls
from meanfield.diagnostics.rates import fit_rate
from meanfield.errors import ConfigError
from meanfield.exact_control import TerminalAdditive
from meanfield.learning.hamiltonians import LayerHamiltonian, layers_of
from meanfield.learning.pontryagin import pmp_residual
from meanfield.learning.quasi_newton import minimise
from meanfield.learning.successive_approximations import forward_backward_sweep, successive_approximations
from meanfield.learning.training import Training
from meanfield.losses import Readout, Squared
from meanfield.models.residual import ResidualNetwork
from meanfield.regularizers import DepthH1, DepthL2
from meanfield.solution import Status
from meanfield.velocities import Velocity

SHAPES = {"outside": [(2, 2), (2,)], "inside": [(2, 2), (2,)], "two_layer": [(2, 3), (3, 2), (3,), (2,)]}


def network(form: str, layers: int, steps: int, lam: float, length: float = 1.0, tracking: float = 0.0) -> Training:
    """Small problem in two dimensions: five samples, smooth parameters."""
    rng = np.random.default_rng(4)
    knots = np.linspace(0.0, length, layers + 1)
    bend = np.sin(1.0 + knots[:-1])
    parts = [Controls(knots, bend.reshape(-1, *(1 for _ in s)) * rng.standard_normal(s)) for s in SHAPES[form]]
    model = ResidualNetwork(getattr(Velocity, form)("tanh", *parts), 5)
    x, y = rng.standard_normal((2, 5)), rng.standard_normal((2, 5))
    penalties = {name: DepthL2(lam) for name in model.parameters}
    return Training(model, x, Squared(y), (0.0, length), steps, regularizers=penalties, tracking=tracking)


def additive(lam: float, layers: int = 5) -> tuple[Training, TerminalAdditive]:
    """x' = b by Euler steps, half of the objective of the closed form."""
    exact = TerminalAdditive(0.3, 1.9, lam, 1.5)
    controls = Controls(np.linspace(0.0, 1.5, layers + 1), np.linspace(-1.0, 0.5, layers).reshape(-1, 1))
    model = ResidualNetwork(Velocity.inside("tanh", 0.0, controls), 1)
    penalty = {"b": DepthL2(0.5 * lam)}
    return Training(model, [[0.3]], Squared([1.9]), (0.0, 1.5), layers, regularizers=penalty, trained=("b",)), exact


@pytest.mark.parametrize("tracking", [0.0, 0.7])
@pytest.mark.parametrize("steps", [6, 18])
@pytest.mark.parametrize("form", list(SHAPES))
def test_gradients_of_hamiltonians_are_those_of_the_objective(form, steps, tracking):
    problem = network(form, 6, steps, 0.1, tracking=tracking)
    hamiltonian = LayerHamiltonian.along(problem)
    slopes = hamiltonian.gradient(layers_of(problem, problem.model))
    # Coordinates of the flat vector are values times sqrt(h).
    flat = np.concatenate([np.ravel(slopes[name]) for name in problem.trained]) * np.sqrt(1.0 / 6.0)
    np.testing.assert_allclose(flat, problem.objective(problem.start())[1], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("form", list(SHAPES))
def test_gradients_of_hamiltonians_are_those_of_their_values(form):
    problem = network(form, 3, 6, 0.1)
    hamiltonian, theta = LayerHamiltonian.along(problem), layers_of(problem, problem.model)
    slopes, rng, e = hamiltonian.gradient(theta), np.random.default_rng(0), 1e-5
    way = {name: rng.standard_normal(part.shape) for name, part in theta.items()}
    ahead, back = (hamiltonian.values({n: theta[n] + s * way[n] for n in theta}) for s in (e, -e))
    expected = sum((slopes[n] * way[n]).reshape(3, -1).sum(axis=1) for n in theta)
    np.testing.assert_allclose((ahead - back) / (2 * e), expected, rtol=1e-7)


def test_costates_are_the_gradient_in_the_state():
    problem = network("two_layer", 4, 8, 0.1, tracking=0.5)
    p, e = LayerHamiltonian.along(problem).p[0], 1e-5
    way = np.random.default_rng(0).standard_normal(p.shape)
    ahead, back = (replace(problem, x=problem.x + s * way).objective(problem.start())[0] for s in (e, -e))
    assert (ahead - back) / (2 * e) == pytest.approx(float(np.sum(p * way)), rel=1e-8)


@pytest.mark.parametrize("rho", [0.0, 0.8])
@pytest.mark.parametrize("form", ["outside", "inside"])
def test_minimisers_are_stationary_and_below_all_that_is_near(form, rho):
    problem = network(form, 4, 4, 0.2)
    hamiltonian, theta = LayerHamiltonian.along(problem), layers_of(problem, problem.model)
    best = hamiltonian.minimised(theta, rho)
    slopes = hamiltonian.gradient(best)
    full = {n: slopes[n] + rho * (best[n] - theta[n]) for n in theta}
    # L-BFGS sees values only to their rounding, slopes to its root.
    assert hamiltonian.norms(full).max() < (1e-12 if form == "inside" else 1e-7)

    def damped(at):
        return hamiltonian.values(at) + 0.5 * rho * hamiltonian.norms({n: at[n] - theta[n] for n in at}) ** 2

    rng = np.random.default_rng(1)
    for _ in range(20):
        near = {n: part + 0.3 * rng.standard_normal(part.shape) for n, part in best.items()}
        assert (damped(near) > damped(best)).all()


@pytest.mark.parametrize("form", ["outside", "inside"])
def test_residual_vanishes_at_an_optimum_and_not_beside_it(form):
    problem = network(form, 8, 8, 0.2, length=2.0)
    found = minimise(problem, tolerance=1e-10).raise_for_status()
    assert np.linalg.norm(found.flat) > 0.5
    residual = pmp_residual(problem, found.model)
    assert residual.gap < 1e-12
    assert residual.stationarity < 1e-8
    moved = found.flat + 0.05 * np.random.default_rng(2).standard_normal(found.flat.shape)
    beside = pmp_residual(problem, problem.unpack(moved)[0])
    assert (beside.gaps > 1e-4).all()
    assert (beside.slopes > 1e-2).all()


@pytest.mark.parametrize("form", ["outside", "inside"])
def test_gap_is_what_a_change_of_one_thin_layer_gains(form):
    layers = np.array([32, 64, 128, 256])
    misses = []
    for n in layers:
        problem = network(form, n, n, 0.05)
        hamiltonian, theta = LayerHamiltonian.along(problem), layers_of(problem, problem.model)
        changed, gap = hamiltonian.minimised(theta), pmp_residual(problem).gaps[n // 2]
        needle = {name: part.copy() for name, part in theta.items()}
        for name, part in needle.items():
            part[n // 2] = changed[name][n // 2]
        knots = np.linspace(0.0, 1.0, n + 1)
        new = problem.model.with_parameters(**{name: Controls(knots, part) for name, part in needle.items()})
        moved = replace(problem, model=new)
        fall = problem.objective(problem.start())[0] - moved.objective(moved.start())[0]
        misses.append(abs(gap - n * fall))
    assert abs(fit_rate(1.0 / layers, misses).slope - 1.0) <= 0.1


def test_residual_tells_a_poor_local_minimum_of_a_network_from_a_better_one():
    problem = network("outside", 8, 8, 0.05)
    found = minimise(problem, tolerance=1e-10).raise_for_status()
    residual = pmp_residual(problem, found.model)
    assert residual.stationarity < 1e-8
    assert residual.gap > 0.01
    # The best layer by itself, with all others as they are, is a better start.
    hamiltonian, theta = LayerHamiltonian.along(problem, found.model), layers_of(problem, found.model)
    zero = {name: np.zeros_like(part) for name, part in theta.items()}
    best, worst = hamiltonian.minimised(zero), int(residual.gaps.argmax())
    for name, part in theta.items():
        part[worst] = best[name][worst]
    knots = np.linspace(0.0, 1.0, 9)
    changed = found.model.with_parameters(**{name: Controls(knots, part) for name, part in theta.items()})
    again = minimise(replace(problem, model=changed), tolerance=1e-8)
    assert again.value < found.value - 1e-4


def test_outer_parameters_of_two_layers_have_minimisers_in_closed_form():
    problem = replace(network("two_layer", 6, 12, 0.2), trained=("v", "c"))
    assert LayerHamiltonian.along(problem).linear
    quasi = minimise(problem, tolerance=1e-10).raise_for_status()
    damped = successive_approximations(problem, tolerance=1e-8).raise_for_status()
    assert damped.value == pytest.approx(quasi.value, rel=1e-12)
    assert pmp_residual(problem, quasi.model).gap < 1e-14


def test_hamiltonian_is_constant_along_an_optimum_to_first_order_in_the_layer():
    layers = np.array([16, 32, 64, 128])
    drifts = []
    for n in layers:
        problem = network("inside", n, n, 0.05)
        found = minimise(problem, tolerance=1e-9).raise_for_status()
        drifts.append(pmp_residual(problem, found.model).drift)
    assert abs(fit_rate(1.0 / layers, drifts).slope - 1.0) <= 0.15


@pytest.mark.parametrize("lam", [2.0, 0.5])
def test_successive_approximations_reach_the_closed_form(lam):
    problem, exact = additive(lam)
    # The plain map is w -> -(x(T) - y)/lam: its factor is -T/lam with T = 1.5.
    plain = successive_approximations(problem, damping="none", tolerance=1e-9, max_iterations=200)
    assert (plain.status is Status.FINISHED) == (lam > 1.5)
    damped = successive_approximations(problem, tolerance=1e-9).raise_for_status()
    quasi = minimise(problem, tolerance=1e-9).raise_for_status()
    for found in (damped, quasi) if lam < 1.5 else (plain, damped, quasi):
        assert 2 * found.value == pytest.approx(exact.cost, rel=1e-12)
        np.testing.assert_allclose(found.model.parameters["b"].values, exact.control, rtol=1e-8)
    assert pmp_residual(problem, damped.model).drift < 1e-8


def test_factor_of_plain_iterations_is_the_predicted_one():
    problem, exact = additive(2.0)
    found = successive_approximations(problem, damping="none", max_iterations=12)
    np.testing.assert_allclose(found.gradient_norms[3:] / found.gradient_norms[2:-1], 1.5 / exact.lam, rtol=1e-6)


@pytest.mark.parametrize("form", ["inside", "outside"])
def test_damping_converges_where_plain_iterations_do_not(form):
    problem = network(form, 6, 6, 0.2)
    quasi = minimise(problem, tolerance=1e-9).raise_for_status()
    plain = successive_approximations(problem, damping="none", max_iterations=60)
    assert plain.status is Status.MAX_STEPS
    if form == "outside":
        np.testing.assert_allclose(plain.values[-3], plain.values[-1], rtol=1e-9)  # a cycle of two
    assert plain.values[-20:].min() > quasi.value + 0.01
    damped = successive_approximations(problem, tolerance=1e-6).raise_for_status()
    assert (np.diff(damped.values) < 1e-14).all()
    assert abs(damped.value - quasi.value) < 1e-10
    assert pmp_residual(problem, damped.model).stationarity < 1e-5


@pytest.mark.parametrize("form", list(SHAPES))
def test_slopes_in_the_states_and_their_derivatives_are_those_of_the_hamiltonian(form):
    problem = network(form, 3, 6, 0.1)
    hamiltonian, theta = LayerHamiltonian.along(problem), layers_of(problem, problem.model)
    rng, e = np.random.default_rng(0), 1e-5
    way = rng.standard_normal(hamiltonian.x[:-1].shape)
    ends = []
    for s in (e, -e):
        x = hamiltonian.x.copy()
        x[:-1] += s * way
        ends.append(replace(hamiltonian, x=x).values(theta))
    expected = hamiltonian.mean(np.sum(hamiltonian.state_slopes(theta) * way, axis=(1, 2)))
    np.testing.assert_allclose((ends[0] - ends[1]) / (2 * e), expected, rtol=1e-7)
    pulls = hamiltonian.state_slope_pulls(theta, way)
    move = {name: rng.standard_normal(part.shape) for name, part in theta.items()}
    ahead, back = (
        hamiltonian.mean(
            np.sum(hamiltonian.state_slopes({n: theta[n] + s * move[n] for n in theta}) * way, axis=(1, 2))
        )
        for s in (e, -e)
    )
    along = sum((pulls[n] * move[n]).reshape(3, -1).sum(axis=1) for n in theta)
    np.testing.assert_allclose((ahead - back) / (2 * e), along, rtol=1e-7)


@pytest.mark.parametrize("form", ["inside", "outside"])
def test_augmented_damping_and_sweeps_reach_the_same_optimum(form):
    problem = network(form, 6, 6, 0.2)
    quasi = minimise(problem, tolerance=1e-9).raise_for_status()
    augmented = successive_approximations(problem, damping="augmented", tolerance=1e-6).raise_for_status()
    swept = forward_backward_sweep(problem, tolerance=1e-6).raise_for_status()
    for found in (augmented, swept):
        assert (np.diff(found.values) < 1e-14).all()
        assert abs(found.value - quasi.value) < 1e-10


@pytest.mark.parametrize("omega", [1.0, 0.5, 0.3, 0.2])
def test_sweeps_of_a_fixed_relaxation_have_the_predicted_factor(omega):
    # The plain map takes the mean of the controls times -T/lam, and forgets the rest.
    problem, exact = additive(0.5)
    found = forward_backward_sweep(problem, relaxation=omega, tolerance=1e-10, max_iterations=200)
    factor = max(abs(1.0 - omega * (1.0 + 1.5 / exact.lam)), 1.0 - omega)
    norms = found.gradient_norms
    np.testing.assert_allclose(norms[16:20] / norms[15:19], factor, rtol=1e-4)
    assert (found.status is Status.FINISHED) == (factor < 1.0)


def test_plain_iterations_that_blow_up_say_so():
    problem, _ = additive(1e-3)
    found = successive_approximations(problem, damping="none", max_iterations=1000)
    assert found.status is Status.NONFINITE
    assert np.isfinite(found.values).all()


def test_bad_input_names_the_offender():
    problem = network("inside", 4, 4, 0.1)
    with pytest.raises(ConfigError, match="Euler"):
        pmp_residual(replace(problem, scheme="rk4"))
    with pytest.raises(ConfigError, match="readout"):
        pmp_residual(replace(problem, readout=Readout(np.eye(2), trained=True)))
    with pytest.raises(ConfigError, match="'w' needs DepthL2"):
        pmp_residual(replace(problem, regularizers={"w": DepthH1(0.1)}))
    with pytest.raises(ConfigError, match="'b' has no penalty"):
        pmp_residual(replace(problem, regularizers={"w": DepthL2(0.1)}))
    with pytest.raises(ConfigError, match="t_span"):
        pmp_residual(replace(problem, t_span=(0.0, 2.0), n_steps=8))
    with pytest.raises(ConfigError, match="trained is empty"):
        pmp_residual(replace(problem, trained=()))
    constant = problem.model.with_parameters(b=np.zeros(2))
    with pytest.raises(ConfigError, match="'b' must be piecewise constant"):
        pmp_residual(replace(problem, model=constant, regularizers={}))
    other = problem.model.with_parameters(b=Controls(np.array([0.0, 0.5, 1.0]), np.zeros((2, 2))))
    with pytest.raises(ConfigError, match="'b' has layers of its own"):
        pmp_residual(replace(problem, model=other))
    with pytest.raises(ConfigError, match="damping"):
        successive_approximations(problem, damping="strong")
    with pytest.raises(ConfigError, match="relaxation"):
        forward_backward_sweep(problem, relaxation=1.5)
    with pytest.raises(ConfigError, match="tolerance"):
        successive_approximations(problem, tolerance=0.0)
