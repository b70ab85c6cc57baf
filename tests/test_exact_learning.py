"""Closed forms of training problems against direct minimisation of the discrete energies, and their 1/n constants."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import lstsq
from scipy.optimize import minimize, minimize_scalar

from meanfield.diagnostics.rates import fit_rate
from meanfield.errors import ConfigError
from meanfield.exact_control import (
    TerminalAdditive,
    TerminalLogistic,
    TerminalMultiplicative,
    TerminalTwoLayer,
    Turnpike,
)
from meanfield.exact_learning import DeepBias, DeepWeight, alternating_output, penalty_modes, stationary_points
from meanfield.regularizers import DepthH1

SIZES = np.array([8, 16, 32, 64, 128, 256, 512])


def minimised(n, alpha, tau, loss, start):
    """Minimum of loss(theta) + penalty over n layers: L-BFGS in the jumps, in which the penalty is well conditioned."""
    knots, penalty = np.linspace(0.0, 1.0, n + 1), DepthH1(alpha, tau)
    scale = np.full(n, 1.0 / np.sqrt(alpha * n))
    scale[0] = 1.0 / np.sqrt(alpha * tau)

    def objective(c):
        theta = np.cumsum(scale * c)
        value, gradient = loss(theta)
        gradient = gradient + penalty.gradient(theta, knots)
        return value + penalty.value(theta, knots), scale * np.cumsum(gradient[::-1])[::-1]

    c0 = np.diff(start, prepend=0.0) / scale
    # Two runs: the second starts with a fresh history at what the first could not improve.
    options = {"maxiter": 5000, "gtol": 1e-13, "ftol": 0.0, "maxls": 50}
    found = minimize(objective, c0, jac=True, method="L-BFGS-B", options=options)
    found = minimize(objective, found.x, jac=True, method="L-BFGS-B", options=options)
    return found.fun, np.cumsum(scale * found.x)


def bias_loss(x, y):
    def loss(b):
        rest = x + b.mean() - y
        return rest**2, np.full(len(b), 2.0 * rest / len(b))

    return loss


def weight_loss(x, y):
    def loss(w):
        n = len(w)
        out = x * np.prod(1.0 + w / n)
        return (out - y) ** 2, 2.0 * (out - y) * out / (n + w)

    return loss


def constant(energies, limit):
    """n (E_n - E) at the largest n, and with its own 1/n removed."""
    scaled = SIZES[: len(energies)] * (np.array(energies) - limit)
    return scaled[-1], 2.0 * scaled[-1] - scaled[-2]


@pytest.mark.parametrize("problem", [DeepBias(0.4, 2.1, 0.3, 0.8), DeepBias(-1.0, 0.5, 5.0, 3.0)])
def test_biases_are_the_minimum_at_every_depth(problem):
    rng = np.random.default_rng(0)
    energies = []
    for n in SIZES:
        found, b = minimised(n, problem.alpha, problem.tau, bias_loss(problem.x, problem.y), rng.standard_normal(n))
        assert found == pytest.approx(problem.energy(int(n)), rel=1e-13)
        np.testing.assert_allclose(b, problem.biases(int(n)), rtol=1e-6)
        energies.append(problem.energy(int(n)))
    # The minimiser written out is stationary to machine precision.
    b = problem.biases(50)
    gradient = bias_loss(problem.x, problem.y)(b)[1]
    gradient += DepthH1(problem.alpha, problem.tau).gradient(b, np.linspace(0, 1, 51))
    assert np.abs(gradient).max() < 1e-13 * 50 * np.abs(b).max()
    last, extrapolated = constant(energies, problem.energy())
    assert last == pytest.approx(problem.depth_constant, rel=0.01)
    assert extrapolated == pytest.approx(problem.depth_constant, rel=1e-4)
    gaps = [np.abs(problem.biases(int(n)) - problem.limit(np.arange(n) / n)).max() for n in SIZES]
    assert abs(fit_rate(1.0 / SIZES[2:], gaps[2:]).slope - 1.0) < 0.05


BISTABLE = DeepWeight(0.05, 7.5, 3.0, 1.0)
WEIGHTS = {
    "near": (DeepWeight(1.0, 1.7, 0.2, 0.6), 0),
    "shrink": (DeepWeight(1.5, 0.4, 0.05, 2.0), 0),
    "other side": (DeepWeight(1.0, -0.8, 0.3, 1.0), 0),
    "negative input": (DeepWeight(-0.7, -2.0, 0.1, 1.0), 0),
    "far, small minimum": (BISTABLE, 0),
    "far, large minimum": (BISTABLE, 2),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_linear_weights_reach_the_limit_with_the_predicted_constant(name):
    problem, which = WEIGHTS[name]
    point = problem.points()[which]
    assert point.stable
    energies, gaps = [], []
    for n in SIZES:
        exact = problem.weights(np.arange(n) / n, point)
        found, w = minimised(n, problem.alpha, problem.tau, weight_loss(problem.x, problem.y), exact)
        energies.append(found)
        gaps.append(np.sqrt(np.mean((w - exact) ** 2)))
    last, extrapolated = constant(energies, point.energy)
    predicted = problem.depth_constant(point)
    assert last == pytest.approx(predicted, rel=0.01)
    assert extrapolated == pytest.approx(predicted, rel=1e-3)
    assert abs(fit_rate(1.0 / SIZES[3:], np.abs(np.array(energies[3:]) - point.energy)).slope - 1.0) < 0.1
    assert abs(fit_rate(1.0 / SIZES[3:], gaps[3:]).slope - 1.0) < 0.1


@pytest.mark.parametrize("name", WEIGHTS)
def test_limit_weights_solve_the_euler_lagrange_equation(name):
    problem, which = WEIGHTS[name]
    point = problem.points()[which]
    alpha, tau = problem.alpha, problem.tau
    assert quad(lambda s: float(problem.weights(s, point)), 0, 1)[0] == pytest.approx(point.integral, rel=1e-12)
    h = 1e-3
    k = problem.weights(np.array([0.5 - h, 0.5, 0.5 + h]), point)
    out = problem.x * np.exp(point.integral)
    # 2 alpha K'' = p X with p X = 2 (x e^I - y) x e^I at every depth.
    assert 2 * alpha * (k[0] - 2 * k[1] + k[2]) / h**2 == pytest.approx(2 * out * (out - problem.y), rel=1e-6)
    ends = problem.weights(np.array([0.0, 1.0]), point)
    assert ends[1] / ends[0] == pytest.approx(1 + tau / 2, rel=1e-13)
    integral = quad(lambda s: (point.g / alpha * (1 - s)) ** 2, 0, 1)[0]
    energy = (out - problem.y) ** 2 + alpha * (integral + tau * ends[0] ** 2)
    assert point.energy == pytest.approx(energy, rel=1e-11)


def test_all_stationary_points_are_found():
    rng = np.random.default_rng(5)
    counts = set()
    for _ in range(300):
        x = rng.choice([-1, 1]) * 10 ** rng.uniform(-2, 0.5)
        y, k = rng.choice([-1, 1]) * 10 ** rng.uniform(-1, 1.3), 10 ** rng.uniform(-1.5, 1.5)
        far = k * (x * x + abs(x * y))
        grid = np.unique(np.concatenate([np.linspace(-9.0, 9.0, 40_001), np.linspace(-far, 0.0, 1000)]))
        v = x * np.exp(grid)
        expected = np.count_nonzero(np.diff(np.sign(grid + k * v * (v - y))))
        points = stationary_points(x, y, k)
        assert len(points) == expected
        for p in points:
            v = x * np.exp(p.integral)
            assert abs(p.integral + k * v * (v - y)) < 1e-12 * (1 + k * abs(v) * (abs(v) + abs(y)))
        assert [p.stable for p in points] == [True, False, True][: len(points)]
        counts.add(len(points))
    assert counts == {1, 3}
    assert stationary_points(1.3, 1.3, 2.0)[0].integral == 0.0
    assert len(stationary_points(1.0, 1.0 + 2e-16, 1e9)) == 1
    assert stationary_points(1.0, 0.0, 3.0)[0].stable


@pytest.mark.parametrize("x", [0.05, -0.2])
def test_bistable_targets_are_those_with_three_points_and_one_has_two_global_minima(x):
    alpha, tau = 8.0, 1.0
    targets = DeepWeight.bistable_targets(x, alpha, tau)
    inside = targets.first + (targets.last - targets.first) * np.array([0.001, 0.3, 0.7, 0.999])
    for y in inside:
        assert len(DeepWeight(x, y, alpha, tau).points()) == 3
    for y in (0.999 * targets.first, 1.001 * targets.last):
        assert len(DeepWeight(x, y, alpha, tau).points()) == 1
    low, _, high = DeepWeight(x, targets.equal, alpha, tau).points()
    assert low.energy == pytest.approx(high.energy, rel=1e-12)
    assert high.integral > 2 * low.integral
    for factor, best in ((0.99, low), (1.01, high)):
        found = DeepWeight(x, factor * targets.equal, alpha, tau).optimum()
        assert found.integral == pytest.approx(best.integral, rel=0.1)


def test_bistability_begins_at_the_cusp():
    alpha, tau = 2.0, 1.0
    k = DeepWeight(1.0, 1.0, alpha, tau).stiffness
    x = np.sqrt(np.exp(-3.0) / (2 * k))
    assert DeepWeight.bistable_targets(1.0001 * x, alpha, tau) is None
    targets = DeepWeight.bistable_targets(0.999 * x, alpha, tau)
    # There y = sqrt(8/k): k y^2 > 8 is necessary for three points, but not sufficient.
    assert targets.equal == pytest.approx(np.sqrt(8 / k), rel=1e-2)
    assert len(stationary_points(1.1 * x, 1.05 * np.sqrt(8 / k), k)) == 1


def test_alternating_weights_leave_the_weak_limit():
    x, c = 1.3, 0.9
    for n in (5, 8, 513):
        written = x
        for i in range(n):
            written *= 1.0 + (-1) ** i * c / np.sqrt(n)
        assert alternating_output(x, c, n) == pytest.approx(written, rel=1e-12)
    even = 2 * SIZES
    gaps = [abs(alternating_output(x, c, int(n)) - alternating_output(x, c)) for n in even]
    assert abs(fit_rate(1.0 / even[2:], gaps[2:]).slope - 1.0) < 0.1
    assert alternating_output(x, c) == pytest.approx(x * np.exp(-(c**2) / 2))


@pytest.mark.parametrize("tau", [0.01, 0.7, 1.0, 50.0])
def test_penalty_modes_are_those_of_the_discrete_penalty(tau):
    modes = penalty_modes(tau, 4)
    np.testing.assert_allclose(modes * np.tan(modes), tau, rtol=1e-9)
    assert (np.abs(modes / np.pi - np.arange(4) - 0.25) < 0.25).all()
    found = []
    for n in (100, 200, 400):
        gradient = DepthH1(0.5, tau).gradient
        hessian = np.array([gradient(e, np.linspace(0, 1, n + 1)) for e in np.eye(n)])
        rates, vectors = np.linalg.eigh(n * hessian)
        found.append(np.sqrt(rates[:4]))
    # The start, half a layer from the first value, costs an order; of higher modes the next one is as large.
    first = [abs(mu[0] - modes[0]) for mu in found]
    assert abs(fit_rate([1 / 100, 1 / 200, 1 / 400], first).slope - 1.0) < 0.1
    np.testing.assert_allclose(2 * found[2] - found[1], modes, rtol=2e-4)
    t = (np.arange(n) + 0.5) / n
    for j in range(4):
        shape = np.cos(modes[j] * (1 - t))
        assert abs(vectors[:, j] @ shape) / np.linalg.norm(shape) == pytest.approx(1.0, abs=1e-3)


def test_additive_terminal_problem_at_every_number_of_steps():
    problem = TerminalAdditive(0.3, 2.0, 0.7, 4.0)
    for n in (1, 8, 512):
        h = problem.length / n
        rows = np.vstack([h * np.ones((1, n)), np.sqrt(problem.lam * h) * np.eye(n)])
        wanted = np.append(problem.y - problem.x0, np.zeros(n))
        w = lstsq(rows, wanted)[0]
        np.testing.assert_allclose(w, problem.control, rtol=1e-11)
        assert np.sum((rows @ w - wanted) ** 2) == pytest.approx(problem.cost, rel=1e-12)
    assert (problem.x0 + problem.length * problem.control - problem.y) ** 2 == pytest.approx(problem.error, rel=1e-13)


@pytest.mark.parametrize(("x0", "y", "which"), [(1.0, 3.0, 0), (2.0, 0.5, 0), (0.05, 12.0, 0), (0.05, 12.0, 2)])
def test_multiplicative_terminal_problem_reaches_its_limit_with_the_predicted_constant(x0, y, which):
    problem = TerminalMultiplicative(x0, y, 3.0, 1.0)
    point = problem.points()[which]
    energies = []
    for n in SIZES:
        h = problem.length / n

        def objective(w, n=n, h=h):
            value, gradient = weight_loss(x0, y)(w * h * n)
            return value + problem.lam * h * w @ w, h * n * gradient + 2 * problem.lam * h * w

        start = point.integral / problem.length * (1 + 0.01 * np.cos(np.arange(n)))
        options = {"gtol": 1e-14, "ftol": 0.0, "maxiter": 2000}
        found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
        np.testing.assert_allclose(found.x, found.x.mean(), rtol=1e-5)
        energies.append(found.fun)
    last, extrapolated = constant(energies, point.energy)
    assert last == pytest.approx(problem.depth_constant(point), rel=0.01)
    assert extrapolated == pytest.approx(problem.depth_constant(point), rel=1e-3)
    out = x0 * np.exp(point.integral)
    assert problem.error(point) == pytest.approx((out - y) ** 2, rel=1e-9)


def test_only_the_ratio_of_penalty_and_time_matters_and_long_times_have_their_limits():
    one, other = TerminalMultiplicative(0.5, 2.0, 0.3, 2.0), TerminalMultiplicative(0.5, 2.0, 3.0, 20.0)
    assert one.optimum() == other.optimum()
    times = np.array([1e3, 1e4, 1e5])
    for lam, x0, y in ((0.3, 0.5, 2.0), (1.0, 2.0, 0.7)):
        problems = [TerminalMultiplicative(x0, y, lam, t) for t in times]
        errors = np.array([t**2 * p.error() / p.long_time_error - 1 for t, p in zip(times, problems, strict=True)])
        costs = np.array([t * p.optimum().energy / p.long_time_cost - 1 for t, p in zip(times, problems, strict=True)])
        for gap in (errors, costs):
            assert abs(gap[-1]) < 1e-4
            assert abs(fit_rate(times, np.abs(gap)).slope + 1.0) < 0.02


@pytest.mark.parametrize("length", [1e-3, 0.5, 4.0, 300.0, 1e8])
def test_logistic_terminal_problem_is_the_minimum_and_falls_like_a_logarithm_over_time(length):
    problem = TerminalLogistic(0.3, length)
    cost = lambda m: np.logaddexp(0.0, -m) + 0.3 * m**2 / length  # noqa: E731
    found = minimize_scalar(cost, bounds=(0.0, 60.0), method="bounded", options={"xatol": 1e-12})
    assert problem.cost == pytest.approx(found.fun, rel=1e-13)
    assert problem.margin * (1.0 + np.exp(problem.margin)) == pytest.approx(length / 0.6, rel=1e-12)
    assert problem.control == problem.margin / length
    assert problem.cost == pytest.approx(problem.error + 0.3 * length * problem.control**2, rel=1e-14)
    if length > 1e6:
        # e^{-m} = 2 lam m/T to leading order.
        assert problem.error * length / (0.6 * problem.margin) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(
    ("x0", "y", "lam"), [(0.5, 1.2, 0.3), (-0.5, 0.7, 0.2), (2.0, -1.0, 0.5), (-2.0, 3.0, 2.9), (-2.0, 3.0, 6.0)]
)
def test_two_layers_cost_the_same_at_every_time_and_their_end_is_the_global_minimum(x0, y, lam):
    problem = TerminalTwoLayer(x0, y, lam)
    ends = np.linspace(min(x0, y), max(x0, y), 200_001)
    costs = (ends - y) ** 2 + 2.0 * lam * np.abs(np.arcsinh(ends) - np.arcsinh(x0))
    assert problem.cost == pytest.approx(costs.min(), abs=1e-9)
    assert problem.end == pytest.approx(ends[costs.argmin()], abs=1e-4)
    assert problem.error == (problem.end - y) ** 2
    # At unit speed from x0 to the end: (w, b) = a (x, 1), v = |(w, b)|, v (w x + b) = 1.
    x = np.linspace(x0, problem.end, 20_001)
    a = (1.0 + x**2) ** -0.75
    norms = a**2 * (1.0 + x**2) * 2.0
    np.testing.assert_allclose(a * np.sqrt(1.0 + x**2) * a * (1.0 + x**2), 1.0, rtol=1e-13)
    assert problem.error + lam * abs(float(np.trapezoid(norms, x))) == pytest.approx(problem.cost, rel=1e-7)


def test_two_layers_do_not_move_where_moving_costs_more():
    problem = TerminalTwoLayer(0.0, 0.1, 0.5)
    assert problem.end == 0.0
    assert problem.cost == pytest.approx(0.01, rel=1e-14)


TURNPIKES = [Turnpike(1.4, 0.2, 0.5, 2.0), Turnpike(1.0, 3.0, 0.04, 1.5, 0.3), Turnpike(0.0, 1.0, 2.0, 3.0, 9.0)]


@pytest.mark.parametrize("problem", TURNPIKES)
def test_turnpike_is_the_minimum_of_its_euler_steps_and_their_limit(problem):
    costs = []
    for n in SIZES:
        h = problem.length / n
        to_state = h * np.tril(np.ones((n, n)))  # e_1 .. e_n less e_0
        e0 = problem.x0 - problem.y
        before = np.vstack([np.zeros((1, n)), to_state[:-1]])
        rows = np.vstack([np.sqrt(h) * before, np.sqrt(h * problem.lam) * np.eye(n)])
        rows = np.vstack([rows, np.sqrt(problem.beta) * to_state[-1:]])
        offset = e0 * np.concatenate([np.full(n, np.sqrt(h)), np.zeros(n), [np.sqrt(problem.beta)]])
        u = lstsq(rows, -offset)[0]
        assert np.sum((rows @ u + offset) ** 2) == pytest.approx(problem.discrete_cost(int(n)), rel=1e-12)
        np.testing.assert_allclose(e0 + to_state @ u, problem.discrete_error(int(n))[1:], atol=1e-12)
        costs.append(problem.discrete_cost(int(n)))
    last, extrapolated = constant(costs, problem.cost)
    assert extrapolated == pytest.approx(problem.depth_constant, rel=1e-3)
    assert last == pytest.approx(problem.depth_constant, rel=0.01)


@pytest.mark.parametrize("problem", TURNPIKES)
def test_turnpike_satisfies_its_own_identities(problem):
    t, length = np.linspace(0.0, problem.length, 9), problem.length
    running = quad(lambda s: float(problem.error(s) ** 2 + problem.lam * problem.control(s) ** 2), 0, length)[0]
    end = float(problem.error(length))
    assert running + problem.beta * end**2 == pytest.approx(problem.cost, rel=1e-11)
    # The Hamiltonian e^2 - lam u^2 is constant, and lam u(T) = -beta e(T).
    hamiltonian = problem.error(t) ** 2 - problem.lam * problem.control(t) ** 2
    np.testing.assert_allclose(hamiltonian, hamiltonian[0], rtol=0, atol=1e-13)
    assert problem.lam * float(problem.control(length)) == pytest.approx(-problem.beta * end, abs=1e-13)
    mu, b = problem.rate, problem.beta * problem.rate
    written = (problem.x0 - problem.y) * (np.cosh(mu * (length - t)) + b * np.sinh(mu * (length - t)))
    np.testing.assert_allclose(
        problem.error(t), written / (np.cosh(mu * length) + b * np.sinh(mu * length)), rtol=1e-12
    )
    h = 1e-5
    slope = (problem.error(t + h) - problem.error(t - h)) / (2 * h)
    np.testing.assert_allclose(problem.control(t), slope, rtol=1e-6, atol=1e-8)


def test_long_turnpikes_do_not_overflow_and_steps_decay_at_their_own_rate():
    problem = Turnpike(1.0, 0.0, 1e-4, 1e3, 5.0)
    assert np.isfinite(problem.error([0.0, 500.0, 1e3])).all()
    assert problem.cost == pytest.approx(np.sqrt(problem.lam), rel=1e-12)
    slow = Turnpike(1.0, 0.0, 0.25, 40.0)
    e = slow.discrete_error(400)
    assert np.log(e[100] / e[200]) / 10.0 == pytest.approx(slow.discrete_rate(0.1), rel=1e-10)
    h = np.array([0.2, 0.1, 0.05, 0.025])
    gaps = [slow.rate - slow.discrete_rate(s) for s in h]
    assert abs(fit_rate(h, gaps).slope - 2.0) < 0.05


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DeepBias(1.0, 2.0, 0.0, 1.0), "alpha must be > 0, got 0.0"),
        (lambda: DeepBias(1.0, np.nan, 1.0, 1.0), "y must be finite, got nan"),
        (lambda: DeepBias(1.0, 2.0, 1.0, 1.0).energy(0), "n must be a positive integer, got 0"),
        (lambda: DeepWeight(0.0, 2.0, 1.0, 1.0), "x must not be 0"),
        (lambda: DeepWeight(1.0, 2.0, 1.0, -1.0), "tau must be > 0, got -1.0"),
        (lambda: stationary_points(0.0, 1.0, 1.0), "x must not be 0"),
        (lambda: stationary_points(1.0, 1.0, 0.0), "k must be > 0, got 0.0"),
        (lambda: TerminalAdditive(0.0, 1.0, 1.0, 0.0), "length must be > 0, got 0.0"),
        (lambda: TerminalMultiplicative(0.0, 1.0, 1.0, 1.0), "x0 must not be 0"),
        (lambda: TerminalMultiplicative(1.0, -1.0, 1.0, 1.0).long_time_cost, "y/x0 must be > 0"),
        (lambda: alternating_output(1.0, 1.0, 0), "n must be a positive integer"),
        (lambda: penalty_modes(0.0, 3), "tau must be > 0, got 0.0"),
        (lambda: TerminalLogistic(0.0, 1.0), "lam must be > 0, got 0.0"),
        (lambda: TerminalTwoLayer(0.0, np.nan, 1.0), "y must be finite"),
        (lambda: Turnpike(0.0, 1.0, 1.0, 1.0, -1.0), "beta must be >= 0, got -1.0"),
        (lambda: Turnpike(0.0, 1.0, 1.0, 1.0).discrete_rate(0.0), "step must be > 0, got 0.0"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
