"""Turnpikes: closed forms, exponents of Hamiltonian systems, steady pairs and their linearisation, kinds of arcs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import expm, solve_discrete_are

from meanfield.activations import activation
from meanfield.controls import Controls
from meanfield.diagnostics.rates import fit_rate
from meanfield.diagnostics.turnpike import LinearQuadratic, arc_constant, fit_two_arcs
from meanfield.errors import ConfigError, NumericalError
from meanfield.exact_control import Turnpike
from meanfield.exact_turnpike import (
    Impulse,
    LogisticLoss,
    PowerExtinction,
    PowerLoss,
    ScalarTracking,
    two_layer_infimum,
    two_layer_price,
)
from meanfield.grids import Grid
from meanfield.learning.arcs import Course, classify_arcs, impulse_power
from meanfield.learning.quasi_newton import minimise
from meanfield.learning.residual_form import residual_form
from meanfield.learning.training import Training
from meanfield.learning.turnpike import WeightedLoss, linearised, steady_pair, with_end_weight
from meanfield.losses import Logistic, LpDistance, Readout, Squared
from meanfield.models.residual import ResidualNetwork
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.dense import Dense
from meanfield.operators.path import OperatorPath
from meanfield.regularizers import DepthH1, DepthL2
from meanfield.velocities import Velocity

RNG = np.random.default_rng(17)


def tracking(velocity: Velocity, x, loss, length: float, layers: int, strength: float, trained=("w", "b"), **more):
    network = ResidualNetwork(velocity, np.shape(x)[1])
    problem = Training(network, x, loss, (0.0, length), layers, tracking=1.0, trained=trained,
                       regularizers={name: DepthL2(strength) for name in trained}, **more)  # fmt: skip
    return with_end_weight(problem)


def layers_of(shape: tuple[int, ...], layers: int = 4, length: float = 1.0, value: float = 0.1) -> Controls:
    return Controls(np.linspace(0.0, length, layers + 1), np.full((layers, *shape), value))


def random_system(n: int = 5, m: int = 2) -> LinearQuadratic:
    a, b = RNG.standard_normal((n, n)), RNG.standard_normal((n, m))
    root = RNG.standard_normal((n + m, n + m))
    whole = root @ root.T + 0.1 * np.eye(n + m)
    return LinearQuadratic(a, b, whole[:n, :n], whole[n:, n:], whole[:n, n:])


# --- exponents of linear-quadratic problems


@pytest.mark.parametrize("lam", [0.05, 0.3, 4.0])
def test_exponents_of_the_scalar_problem_are_the_closed_ones(lam):
    exact = Turnpike(0.5, 1.2, lam, 6.0)
    system = LinearQuadratic([[0.0]], [[1.0]], [[2.0]], [2.0 * lam])
    assert system.rate == pytest.approx(exact.rate, rel=1e-13)
    for step in (1.0, 0.1, 1e-3):
        assert system.discrete_rate(step) == pytest.approx(exact.discrete_rate(step), rel=1e-10)
    assert system.kind == "all"


def test_exponents_are_the_spectrum_of_the_closed_loop_of_riccati():
    for _ in range(5):
        system = random_system()
        closed = np.linalg.eigvals(system.a - system.b @ system.feedback())
        np.testing.assert_allclose(system.exponents, np.sort(-closed.real), rtol=1e-8)
        both = np.sort(np.linalg.eigvals(system.hamiltonian).real)
        np.testing.assert_allclose(both, np.concatenate([-system.exponents[::-1], system.exponents]), rtol=1e-8)
        x, gain = system.riccati(), system.feedback()
        rest = system.a.T @ x + x @ system.a - gain.T @ system.r @ gain + system.q
        assert np.abs(rest).max() < 1e-8 * np.abs(x).max()


def test_discrete_exponents_are_those_of_the_discrete_riccati_equation():
    for step in (0.3, 0.05):
        system = random_system()
        a, b = np.eye(5) + step * system.a, step * system.b
        x = solve_discrete_are(a, b, step * system.q, step * system.r, s=step * system.s)
        gain = np.linalg.solve(step * system.r + b.T @ x @ b, b.T @ x @ a + step * system.s.T)
        factors = np.abs(np.linalg.eigvals(a - b @ gain))
        np.testing.assert_allclose(system.discrete_exponents(step), np.sort(-np.log(factors) / step), rtol=1e-7)


def test_modes_of_the_closed_loop_decay_at_one_exponent_each():
    system = random_system()
    exponents, rows = system.modes()
    later = expm(0.7 * (system.a - system.b @ system.feedback()))
    np.testing.assert_allclose(rows @ later, np.exp(-0.7 * exponents)[:, None] * rows, atol=1e-10)


def test_directions_that_are_stuck_or_hidden_are_counted_and_have_no_exponent():
    # Moved and seen; stuck: at rest, and decaying by itself; hidden: growing.
    a, q = np.diag([0.3, 0.0, -0.4, 0.2]), np.diag([2.0, 1.0, 1.0, 0.0])
    b = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    turn = np.linalg.qr(RNG.standard_normal((4, 4)))[0]
    system = LinearQuadratic(turn.T @ a @ turn, turn.T @ b, turn.T @ q @ turn, [0.5, 1.0])
    np.testing.assert_allclose(system.exponents, np.sort([0.0, 0.0, 0.4, np.sqrt(0.09 + 4.0)]), rtol=1e-9)
    assert (system.stuck, system.hidden, system.kind) == (1, 1, "some")
    assert "2 of 4 directions only (no control moves 1, the running cost does not see 1)" in system.summary
    step = 0.1
    own = LinearQuadratic([[0.3]], [[1.0]], [[2.0]], [0.5]).discrete_rate(step)
    np.testing.assert_allclose(system.discrete_exponents(step), np.sort([0, 0, -np.log(0.96) / step, own]), rtol=1e-9)
    with pytest.raises(NumericalError, match="no control moves 1"):
        system.riccati()
    nothing = LinearQuadratic(np.zeros((2, 2)), np.zeros((2, 1)), np.eye(2), [1.0])
    assert (nothing.kind, nothing.rate, nothing.stuck) == ("none", 0.0, 2)


def test_fits_of_two_arcs_are_exact_for_one_exponent_in_any_window():
    t, mu = np.linspace(1.0, 9.0, 81), 1.3
    two = np.outer(np.exp(-mu * t), [1.0, -0.5]) + 2e-5 * np.outer(np.exp(mu * (t - 9.0)), [0.3, 2.0])
    for window in (None, (2.0, 5.0), (6.0, 9.0)):
        found = fit_two_arcs(t, two, window)
        assert found.rate == pytest.approx(mu, rel=1e-9)
        assert found.misfit < 1e-9
    assert fit_two_arcs(t, np.exp(-t) + np.exp(-3 * t)).misfit > 0.1
    exact = Turnpike(0.5, 1.2, 0.3, 8.0, 1.0)
    errors = exact.discrete_error(80)
    assert fit_two_arcs(np.linspace(0, 8, 81), errors).rate == pytest.approx(exact.discrete_rate(0.1), rel=1e-10)
    with pytest.raises(NumericalError, match="do not bend"):
        fit_two_arcs(t, np.sin(t))


def test_the_constant_of_two_arcs_is_the_least_that_bounds():
    t = np.linspace(0.0, 5.0, 51)
    arcs = np.exp(-2 * t) + np.exp(-2 * (5 - t))
    assert arc_constant(t, 3.0 * arcs, 2.0) == pytest.approx(3.0, rel=1e-14)
    assert arc_constant(t + 1.0, arcs * (1 + 0.5 * (t == 2.0)), 2.0) == pytest.approx(1.5, rel=1e-14)


# --- closed forms


@pytest.mark.parametrize("length", [0.5, 4.0, 25.0])
def test_quadratures_of_scalar_tracking_are_the_linear_quadratic_closed_form(length):
    closed, t = Turnpike(0.5, 1.2, 0.3, length), np.linspace(0.0, length, 9)
    exact = ScalarTracking(0.5, PowerLoss(1.2), 0.15, length)
    path = exact.path(t)
    np.testing.assert_allclose(path.x - 1.2, closed.error(t), atol=1e-10)
    np.testing.assert_allclose(path.u, closed.control(t), atol=1e-10)
    assert 2 * exact.cost == pytest.approx(closed.cost, rel=1e-10)
    assert 2 * exact.end_loss == pytest.approx(float(closed.error(length)) ** 2, rel=1e-9)


@pytest.mark.parametrize("loss", [PowerLoss(1.2), PowerLoss(1.2, 3.0), LogisticLoss()])
def test_scalar_tracking_solves_its_equation_and_keeps_its_energy(loss):
    exact = ScalarTracking(0.4, loss, 0.2, 3.0, np.tanh)
    t = np.linspace(0.3, 2.7, 25)
    path, ahead, back = exact.path(t), exact.path(t + 1e-4), exact.path(t - 1e-4)
    np.testing.assert_allclose((ahead.x - back.x) / 2e-4, np.tanh(path.x) * path.u, rtol=1e-6)
    np.testing.assert_allclose(0.2 * path.u**2, path.loss - exact.end_loss, rtol=1e-7)
    np.testing.assert_allclose(path.loss, [loss.value(x) for x in path.x], rtol=1e-12)
    first = exact.path([0.0])
    assert first.x[0] == pytest.approx(0.4, abs=1e-10)


def test_layers_tend_to_the_quadrature_of_a_nonlinear_problem_at_second_order():
    exact = ScalarTracking(0.5, PowerLoss(1.2), 0.15, 2.0, np.tanh)
    counts, gaps = (16, 32, 64), []
    for n in counts:
        velocity = Velocity.inside("tanh", layers_of((1, 1), n, 2.0), 0.0)
        problem = tracking(velocity, [[0.5]], Squared([1.2]), 2.0, n, 0.15, ("w",), scheme="rk4")
        gaps.append(minimise(problem, tolerance=1e-10).raise_for_status().value - exact.cost)
    assert abs(fit_rate(1 / np.array(counts), np.abs(gaps)).slope - 2.0) < 0.1


def test_logistic_losses_end_as_the_square_of_the_depth():
    scaled = [t**2 * ScalarTracking(4.0, LogisticLoss(), 0.01, t).end_loss for t in (100.0, 200.0)]
    assert 2 * scaled[1] - scaled[0] == pytest.approx(np.pi**2 * 0.01, rel=2e-3)


@pytest.mark.parametrize("p", [1.2, 1.5, 1.9])
def test_extinction_solves_its_equation_and_costs_twice_the_penalty(p):
    exact = PowerExtinction(-0.3, 1.0, 0.2, p)
    t = np.linspace(0.0, 0.95, 20) * exact.time
    slope = (exact.error(t + 1e-6) - exact.error(t - 1e-6)) / 2e-6
    e = np.abs(exact.error(t))
    np.testing.assert_allclose(slope, np.sqrt(e**p / (p * 0.2)), rtol=1e-5)
    assert (exact.error([exact.time, 5 * exact.time]) == 0.0).all()
    total = quad(lambda s: 2 * abs(float(exact.error(s))) ** p / p, 0.0, exact.time, epsabs=1e-12)[0]
    assert exact.cost == pytest.approx(total, rel=1e-8)


def test_impulses_are_the_least_of_two_layers_on_a_lattice():
    exact, h = Impulse(0.2, 1.0, 3.0, 0.9), 1.5
    x = np.linspace(0.0, 1.2, 1201)
    # The state after the second layer costs nothing: only the first one moves.
    total = h * 0.8**2 / 2 + h * (x[:, None] - 1) ** 2 / 2
    total = total + 0.9 * (np.abs(x[:, None] - 0.2) + np.abs(x - x[:, None]))
    first, second = np.unravel_index(np.argmin(total), total.shape)
    assert total.min() == pytest.approx(exact.cost(2), abs=1e-6)
    assert x[first] - 1 == pytest.approx(exact.error(2), abs=1e-3)
    assert first == second
    assert Impulse(0.2, 1.0, 1.0, 0.9).error() == pytest.approx(-0.8)
    assert Impulse(0.2, 1.0, 3.0, 0.9).cost(4000) == pytest.approx(exact.cost(), rel=1e-3)


def test_the_price_of_two_layers_is_the_least_penalty_of_a_speed():
    x, s = 0.8, 0.3
    angle, size = np.meshgrid(np.linspace(0, np.pi / 2, 721), np.linspace(0.3, 2.0, 721))
    inner = size * (np.cos(angle) * x + np.sin(angle))
    penalty = s * (size**2 + 1 / inner**2)
    assert penalty.min() == pytest.approx(two_layer_price(x, s), rel=1e-4)
    # The infimum: T |x1 - y| equals the price at x1.
    total = [two_layer_infimum(0.5, 2.0, t, s) for t in (4.0 - 1e-3, 4.0 + 1e-3)]
    gap = np.sqrt((total[1] - total[0]) / 1e-3)
    assert 4.0 * gap == pytest.approx(two_layer_price(2.0 - gap, s), rel=1e-3)


# --- steady pairs and their linearisation


def test_a_steady_pair_with_a_drift_is_the_closed_one():
    w, y, s = np.array([[0.4, -0.7], [0.2, -0.3]]), np.array([[1.0], [-0.5]]), 0.15
    expected = np.linalg.solve(np.eye(2) + 2 * s * w.T @ w, y)
    systems = []
    # tanh'(0) = 1 and tanh''(0) = 0: outside, rest is W x + b = 0, and the deviations are those of the linear network.
    for make, sigma in ((Velocity.inside, "identity"), (Velocity.outside, "tanh")):
        problem = tracking(make(sigma, w, layers_of((2,))), [[0.3], [0.2]], Squared(y), 1.0, 4, s, ("b",))
        pair = steady_pair(problem).raise_for_status()
        np.testing.assert_allclose(pair.x, expected, rtol=1e-9)
        np.testing.assert_allclose(pair.parameters["b"], -(w @ expected)[:, 0], rtol=1e-9)
        assert max(pair.velocity_residual, pair.slope_residual) < 1e-10
        assert pair.cost == pytest.approx(((expected - y) ** 2).sum() / 2 + s * ((w @ expected) ** 2).sum(), rel=1e-9)
        systems.append(linearised(problem, pair))
    np.testing.assert_allclose(systems[0].exponents, systems[1].exponents, rtol=1e-8)
    by_hand = LinearQuadratic(w, np.eye(2), np.eye(2), [2 * s, 2 * s])
    np.testing.assert_allclose(systems[0].exponents, by_hand.exponents, rtol=1e-8)


def test_second_derivatives_at_a_steady_pair_hold_the_costate():
    w, y, s = 0.5 * RNG.standard_normal((3, 3)), RNG.standard_normal((3, 2)), 0.2
    problem = tracking(Velocity.inside("tanh", w, layers_of((3,))), 0.1 * y, Squared(y), 1.0, 4, s, ("b",))
    pair = steady_pair(problem).raise_for_status()
    system = linearised(problem, pair)
    assert np.abs(pair.costate).max() > 0.01
    th = np.tanh(pair.x)
    # One bias for two samples.
    np.testing.assert_allclose(pair.costate.sum(axis=1), -2 * s * pair.parameters["b"], rtol=1e-8)
    curved = (w.T @ pair.costate) * (-2 * th * (1 - th**2)) + 0.5
    np.testing.assert_allclose(system.q, np.diag(curved.ravel()), atol=1e-9)
    np.testing.assert_allclose(system.r, 2 * s * np.eye(3), atol=1e-9)
    np.testing.assert_allclose(system.s, 0.0, atol=1e-9)
    np.testing.assert_allclose(system.b, np.repeat(np.eye(3), 2, axis=0), atol=1e-14)


@pytest.mark.parametrize(("form", "sigma"), [("inside", "tanh"), ("inside", "relu"), ("outside", "tanh")])
def test_exponents_of_degree_one_are_those_of_the_gram_matrix(form, sigma):
    d, n, s = 3, 4, 0.07
    y = 0.2 + np.abs(np.random.default_rng(3).standard_normal((d, n)))
    make = Velocity.inside if form == "inside" else Velocity.outside
    problem = tracking(make(sigma, layers_of((d, d)), layers_of((d,))), 0 * y, Squared(y), 1.0, 4, s)
    pair = steady_pair(problem).raise_for_status()
    np.testing.assert_allclose(pair.x, y, atol=1e-9)
    features = activation(sigma).value(y) if form == "inside" else y
    roots = np.sqrt(np.linalg.eigvalsh(features.T @ features + 1.0) / (2 * s * n))
    system = linearised(problem, pair)
    np.testing.assert_allclose(system.exponents, np.repeat(roots, d), rtol=1e-8)
    step = 0.2
    expected = 2 / step * np.arcsinh(step * np.repeat(roots, d) / 2)
    np.testing.assert_allclose(system.discrete_exponents(step), expected, rtol=1e-7)


def test_more_points_than_features_are_stuck():
    y = RNG.standard_normal((2, 5))
    velocity = Velocity.inside("tanh", layers_of((2, 2)), layers_of((2,)))
    problem = tracking(velocity, 0 * y, Squared(y), 1.0, 4, 0.1)
    system = linearised(problem, steady_pair(problem))
    assert (system.stuck, system.hidden, system.kind) == (4, 0, "some")


def test_two_layers_have_no_exponent_and_a_logistic_loss_no_steady_pair():
    velocity = Velocity.two_layer("relu", layers_of((1, 1)), layers_of((1, 1)), layers_of((1,)), 0.0)
    two = tracking(velocity, [[1.5]], Squared([0.5]), 1.0, 4, 0.1, ("v", "w", "b"))
    assert linearised(two, steady_pair(two)).kind == "none"
    velocity = Velocity.inside("identity", 0.0, layers_of((1,)))
    pair = steady_pair(tracking(velocity, [[0.5]], Logistic([1]), 1.0, 4, 0.1, ("b",)))
    with pytest.raises(NumericalError, match="no minimiser"):
        pair.raise_for_status()
    flat = tracking(velocity, [[0.5]], LpDistance([1.2], 4.0), 1.0, 4, 0.1, ("b",))
    pair = steady_pair(flat).raise_for_status()
    assert pair.x[0, 0] == pytest.approx(1.2, abs=1e-5)
    assert linearised(flat, pair).kind == "none"


def test_relu_of_parameters_has_no_linearisation_at_rest():
    problem = tracking(
        Velocity.outside("relu", layers_of((1, 1)), layers_of((1,))), [[0.5]], Squared([1.2]), 1.0, 4, 0.1
    )
    with pytest.raises(NumericalError, match=r"relu\(W x \+ b\) is at its kink"):
        linearised(problem, steady_pair(problem).raise_for_status())


def labelled(length: float = 1.0, layers: int = 4) -> Training:
    grid = Grid.interval(7, rule="gauss")
    x, q = grid.nodes, grid.weights
    knots = np.linspace(0.0, length, layers + 1)
    paths = OperatorPath(knots, [Dense(grid, np.zeros((7, 7))) for _ in range(layers)])
    model = SpaceTimeNetwork(paths, "tanh", Controls(knots, np.zeros((layers, 7))), placement="inside", n_samples=2)
    return with_end_weight(Training(
        model, np.array([1.5 * np.cos(np.pi * x), 1.5 * np.cos(2 * np.pi * x)]), Squared([[0.5, -0.4], [0.3, 0.5]]),
        (0.0, length), layers, readout=Readout([np.ones(7), x]), tracking=1.0,
        regularizers={"weight": DepthL2(0.04, np.outer(q, q)), "bias": DepthL2(0.04, q)},
    ))  # fmt: skip


def test_exponents_of_a_space_time_network_are_those_of_kernels_in_l2():
    problem = labelled()
    grid = problem.model.grid
    pair = steady_pair(problem).raise_for_status()
    np.testing.assert_allclose(pair.outputs, [[0.5, -0.4], [0.3, 0.5]], atol=1e-9)
    system = linearised(problem, pair)
    sigma, p = np.tanh(pair.x), np.array([np.ones(7), grid.nodes])
    of_samples = np.linalg.eigvalsh(sigma.T @ (grid.weights[:, None] * sigma) + 1.0)
    of_outputs = np.linalg.eigvalsh((p * grid.weights) @ p.T)
    expected = np.sort(np.sqrt(np.outer(of_samples, of_outputs).ravel() / (2 * 0.04 * 2)))
    assert (system.hidden, system.stuck) == (2 * 5, 0)
    np.testing.assert_allclose(system.exponents[-4:], expected, rtol=1e-7)


# --- what trained layers show


@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_trained_layers_are_the_closed_form_with_any_weight_of_the_end(beta):
    exact = Turnpike(0.5, 1.2, 0.3, 4.0, beta)
    base = tracking(Velocity.inside("identity", 0.0, layers_of((1,), 40, 4.0)), [[0.5]], Squared([1.2]), 4.0, 40, 0.15,
                    ("b",))  # fmt: skip
    problem = with_end_weight(base, beta)
    found = minimise(problem, tolerance=1e-11).raise_for_status()
    assert 2 * found.value == pytest.approx(exact.discrete_cost(40), rel=1e-12)
    pair = steady_pair(problem)
    course = Course.along(problem, found.model)
    np.testing.assert_allclose(course.state_distance(pair), np.abs(exact.discrete_error(40)), atol=1e-10)
    np.testing.assert_allclose(course.running, 0.5 * exact.discrete_error(40) ** 2, atol=1e-10)
    controls = np.abs(np.diff(exact.discrete_error(40))) / 0.1
    np.testing.assert_allclose(course.control_distance(pair), controls, atol=1e-10)
    np.testing.assert_allclose(course.penalty, 0.15 * controls**2, atol=1e-10)
    assert fit_two_arcs(course.t, course.x - pair.x).rate == pytest.approx(exact.discrete_rate(0.1), rel=1e-8)
    paid = 0.1 * 0.15 * controls**2
    assert course.concentration.first == pytest.approx(paid[0] / paid.sum(), rel=1e-9)


def test_courses_of_both_forms_of_a_space_time_network_are_one():
    problem = labelled(2.0, 6)
    knots = problem.model.parameters["weight"].knots
    weight = Controls(knots, 0.3 * RNG.standard_normal((6, 7, 7)))
    model = problem.model.with_parameters(weight=weight)
    own = Course.along(problem, model)
    other = Course.along(residual_form(replace(problem, model=model)))
    np.testing.assert_array_equal(own.x, other.x)
    value, _ = replace(problem, model=model).objective(replace(problem, model=model).start())
    total = np.diff(own.t) @ own.running[:-1] + np.diff(own.knots) @ own.penalty
    assert total == pytest.approx(value, rel=1e-12)


def test_kinds_of_arcs_are_told_apart_and_said():
    t = np.linspace(0.0, 12.0, 241)
    both = np.cosh(1.4 * (t - 6.0)) / np.cosh(8.4)
    arcs = classify_arcs(t, both, quantity="|u|", window=(0.05, 0.2))
    assert arcs.kind == "exponential"
    assert arcs.entering.value == pytest.approx(1.4, rel=1e-3)
    assert arcs.leaving.value == pytest.approx(1.4, rel=1e-3)
    assert arcs.sentence == "|u| decays exponentially, at 1.4; squares at 2.8; it leaves at 1.4"
    assert classify_arcs(t, 1 / (1 + 3 * t) ** 2, window=(0.0, 0.9)).sentence.startswith("not exponential: |x - x_bar|")
    assert classify_arcs(t, 1 / (1 + 3 * t) ** 2, window=(0.0, 0.9)).kind == "algebraic"
    extinct = classify_arcs(t, np.maximum(1 - t / 5, 0.0) ** 4, window=(0.0, 0.5))
    assert extinct.kind == "finite-time"
    assert extinct.entering.value == pytest.approx(5.0, rel=1e-3)
    assert classify_arcs(t, np.ones_like(t)).kind == "none"
    jump = classify_arcs(t, np.ones_like(t), power=0.5)
    assert jump.kind == "concentrated"
    assert "paid over h^0.5, an impulse" in jump.sentence


def test_impulses_are_told_from_controls_that_layers_resolve():
    resolved, sudden = [], []
    for n in (16, 32, 64):
        controls = Controls(np.linspace(0.0, 4.0, n + 1), np.exp(-2.0 * np.linspace(0.0, 4.0, n + 1)[:-1, None]))
        resolved.append(Course.along(tracking(Velocity.inside("identity", 0.0, controls), [[0.5]], Squared([1.2]), 4.0,
                                              n, 0.15, ("b",))))  # fmt: skip
        start = Controls(controls.knots, np.where(np.arange(n)[:, None], 0.0, 0.1 * n))
        sudden.append(Course.along(tracking(Velocity.inside("identity", 0.0, start), [[0.5]], Squared([1.2]), 4.0, n,
                                            0.15, ("b",))))  # fmt: skip
        assert sudden[-1].concentration.first == 1.0
    # Nine tenths of e^{-4 t} are paid up to ln(10)/4.
    assert resolved[-1].concentration.depth == pytest.approx(np.log(10) / 4, rel=0.02)
    assert abs(impulse_power(resolved)) < 0.1
    assert impulse_power(sudden) == pytest.approx(1.0, abs=1e-9)


def test_bad_input_is_refused():
    with pytest.raises(ConfigError, match="positive definite"):
        LinearQuadratic([[0.0]], [[1.0]], [[1.0]], [0.0])
    with pytest.raises(ConfigError, match="b has shape"):
        LinearQuadratic(np.eye(2), np.eye(3), np.eye(2), np.ones(3))
    with pytest.raises(ConfigError, match="equidistant"):
        fit_two_arcs([0.0, 1.0, 3.0], [1.0, 0.5, 0.2])
    with pytest.raises(ConfigError, match="rate must be > 0"):
        arc_constant([0.0, 1.0], [1.0, 1.0], 0.0)
    with pytest.raises(ConfigError, match=r"p must be >= 2, got 1\.5"):
        ScalarTracking(0.5, PowerLoss(1.2, 1.5), 0.1, 1.0)
    with pytest.raises(ConfigError, match="minimiser"):
        ScalarTracking(1.2, PowerLoss(1.2), 0.1, 1.0)
    with pytest.raises(ConfigError, match="p must be < 2"):
        PowerExtinction(0.0, 1.0, 0.1, 2.0)
    with pytest.raises(ConfigError, match="so short"):
        two_layer_infimum(0.5, 2.0, 0.1, 0.3)
    with pytest.raises(ConfigError, match="weight must be > 0"):
        WeightedLoss(Squared([1.0]), 0.0)
    with pytest.raises(ConfigError, match="window"):
        classify_arcs(np.arange(20.0), np.ones(20), window=(0.5, 0.2))
    good = tracking(Velocity.inside("tanh", 0.3, layers_of((1,))), [[0.5]], Squared([1.2]), 1.0, 4, 0.1, ("b",))
    for bad, words in (
        (replace(good, tracking=0.0), "tracking must be > 0"),
        (replace(good, regularizers={"b": DepthH1(0.1)}), "DepthL2"),
        (replace(good, regularizers={}), "strength > 0"),
        (replace(good, trained=("w",), regularizers={}), "does not depend on depth"),
    ):
        with pytest.raises(ConfigError, match=words):
            steady_pair(bad)
    with pytest.raises(ConfigError, match="not a sum over layers"):
        Course.along(replace(good, regularizers={"b": DepthH1(0.1)}))
    linear = Velocity.inside("tanh", 0.3, Controls([0.0, 1.0], [[0.1], [0.2]], "linear"))
    with pytest.raises(ConfigError, match="piecewise constant"):
        Course.along(replace(good, model=ResidualNetwork(linear, 1)))
