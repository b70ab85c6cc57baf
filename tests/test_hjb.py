"""Hamilton-Jacobi-Bellman equations on a grid against Riccati equations, closed forms and direct minimisation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import minimize, minimize_scalar

from meanfield.cells import Cells
from meanfield.diagnostics.rates import observed_order
from meanfield.errors import ConfigError, NumericalError, ResourceError
from meanfield.learning.control_problems import QuadraticControl, SampledControl
from meanfield.learning.hjb import solve_hjb

COUNTS = (50, 100, 200, 400)


def order_of(errors, counts=COUNTS):
    return observed_order(1.0 / np.array(counts), errors).order


def value_errors(problem, terminal, box, exact, points, *, span=(0.0, 1.0)):
    """Largest errors of V(t0, .) at `points` on finer and finer grids; the edge must not act."""
    errors = []
    for n in COUNTS:
        solution = solve_hjb(problem, terminal, Cells.line(*box, n), span, save_every=None)
        assert solution.outflow == 0.0
        assert solution.courant <= 1.0
        errors.append(np.abs(solution.value(span[0], points) - exact).max())
    return errors


# x' = u, int (x - y)^2 + lam u^2 + beta (x(T) - y)^2: V = P(T - t) (x - y)^2 with lam P' = lam - P^2, P(0) = beta.
LAM, BETA, TARGET = 0.5, 1.0, 0.3


def riccati(left):
    root = np.sqrt(LAM)
    tanh = np.tanh(left / root)
    return root * (BETA + root * tanh) / (root + BETA * tanh)


TRACKING = QuadraticControl(0.0, 1.0, lambda _t, x: (x - TARGET) ** 2, 2 * LAM)


def tracking_end(x):
    return BETA * (x - TARGET) ** 2


def test_scalar_tracking_converges_to_the_riccati_solution_at_order_one():
    points = np.linspace(-0.7, 1.3, 9)
    errors = value_errors(TRACKING, tracking_end, (-1.0, 1.6), riccati(1.0) * (points - TARGET) ** 2, points)
    assert abs(order_of(errors) - 1.0) <= 0.1
    assert errors[-1] < 5e-3


def test_value_between_levels_and_nodes_and_feedback_converge_at_order_one():
    x, t, values, controls = np.array([-0.61, 0.17, 1.13]), 0.437, [], []
    for n in COUNTS:
        solution = solve_hjb(TRACKING, tracking_end, Cells.line(-1.0, 1.6, n), (0.0, 1.0))
        values.append(np.abs(solution.value(t, x) - riccati(1.0 - t) * (x - TARGET) ** 2).max())
        controls.append(np.abs(solution.feedback(t, x) + riccati(1.0 - t) * (x - TARGET) / LAM).max())
    assert abs(order_of(values) - 1.0) <= 0.1
    assert abs(order_of(controls) - 1.0) <= 0.1


def test_closed_loop_costs_exceed_the_optimum_at_order_two_and_follow_the_exact_trajectory():
    # A feedback wrong by O(dx) costs O(dx^2) more, so that the cost lies within the grid's error of V.
    exact, excess, apart = riccati(1.0) * 0.9**2, [], []
    mu, ratio = 1 / np.sqrt(LAM), BETA / np.sqrt(LAM)
    for n in COUNTS:
        solution = solve_hjb(TRACKING, tracking_end, Cells.line(-1.0, 1.6, n), (0.0, 1.0))
        loop = solution.closed_loop(TARGET + 0.9)
        excess.append(loop.cost - exact)
        grid_error = abs(solution.value(0.0, TARGET + 0.9) - exact)
        assert abs(loop.cost - solution.value(0.0, TARGET + 0.9)) <= 1.05 * grid_error
        left = mu * (1.0 - loop.t)
        path = 0.9 * (np.cosh(left) + ratio * np.sinh(left)) / (np.cosh(mu) + ratio * np.sinh(mu))
        apart.append(np.abs(loop.x[:, 0] - TARGET - path).max())
    assert abs(order_of(excess) - 2.0) <= 0.1
    assert abs(order_of(apart) - 1.0) <= 0.1


def test_wrong_weight_of_the_control_is_noticed():
    wrong = QuadraticControl(0.0, 1.0, lambda _t, x: (x - TARGET) ** 2, 2 * LAM * 1.05)
    points = np.linspace(-0.7, 1.3, 9)
    errors = value_errors(wrong, tracking_end, (-1.0, 1.6), riccati(1.0) * (points - TARGET) ** 2, points)
    assert abs(order_of(errors) - 1.0) > 0.1


def test_control_of_a_free_particle_is_constant_and_costs_lam_d2_over_t_plus_lam():
    lam, y, t_end = 0.5, 1.2, 1.5
    problem, points = QuadraticControl(0.0, 1.0, 0.0, 2 * lam), np.linspace(0.0, 2.0, 9)
    exact = lam * (y - points) ** 2 / (t_end + lam)
    errors = value_errors(problem, lambda x: (x - y) ** 2, (-0.5, 2.5), exact, points, span=(0.0, t_end))
    assert abs(order_of(errors) - 1.0) <= 0.1
    solution = solve_hjb(problem, lambda x: (x - y) ** 2, Cells.line(-0.5, 2.5, 400), (0.0, t_end))
    loop = solution.closed_loop(0.2)
    np.testing.assert_allclose(loop.theta, (y - 0.2) / (t_end + lam), rtol=1e-2)
    np.testing.assert_allclose(loop.cost, lam * (y - 0.2) ** 2 / (t_end + lam), rtol=5e-5)


def test_two_wells_give_a_kink_from_which_optima_lead_to_either():
    # Straight lines are optimal for x' = w (Hopf and Lax): V(0, x) = min over y of (y^2 - 1)^2 + lam (y - x)^2.
    lam, points = 0.5, np.array([-0.8, -0.3, 0.0, 0.01, 0.4, 0.9])
    ends = np.linspace(-1.5, 1.5, 300_001)
    exact = np.array([((ends**2 - 1) ** 2 + lam * (ends - x) ** 2).min() for x in points])
    problem = QuadraticControl(0.0, 1.0, 0.0, 2 * lam)
    errors = value_errors(problem, lambda x: (x**2 - 1) ** 2, (-1.5, 1.5), exact, points)
    assert abs(order_of(errors) - 1.0) <= 0.1
    solution = solve_hjb(problem, lambda x: (x**2 - 1) ** 2, Cells.line(-1.5, 1.5, 401), (0.0, 1.0))
    left, right = (solution.closed_loop(x).x[-1, 0] for x in (-0.02, 0.02))
    np.testing.assert_allclose([left, right], [-np.sqrt(0.75), np.sqrt(0.75)], atol=0.03)


def constant_control_optimum(x0, y, lam, flow):
    """Least (flow(x0, w) - y)^2 + lam w^2 over constant controls on a unit of time, and its w."""

    def cost(w):
        return (flow(x0, w) - y) ** 2 + lam * w**2

    tried = np.linspace(-4.0, 4.0, 801)
    start = tried[np.argmin(cost(tried))]
    found = minimize_scalar(cost, bracket=(start - 0.01, start + 0.01), tol=1e-13)
    return found.fun, found.x


def test_bilinear_problem_converges_to_the_best_constant_control():
    # x' = w x is homogeneous of degree one in the control and autonomous: |w| is constant along an optimum.
    lam, y, points = 0.5, 1.2, np.linspace(0.5, 2.0, 7)

    def flow(x0, w):
        return x0 * np.exp(w)

    exact = np.array([constant_control_optimum(x0, y, lam, flow)[0] for x0 in points])
    problem = QuadraticControl(0.0, lambda _t, x: x, 0.0, 2 * lam)
    errors = value_errors(problem, lambda x: (x - y) ** 2, (0.2, 2.6), exact, points)
    assert abs(order_of(errors) - 1.0) <= 0.1
    loop = solve_hjb(problem, lambda x: (x - y) ** 2, Cells.line(0.2, 2.6, 400), (0.0, 1.0)).closed_loop(0.5)
    cost, w = constant_control_optimum(0.5, y, lam, flow)
    np.testing.assert_allclose(loop.theta, w, rtol=1e-2)
    np.testing.assert_allclose(loop.cost, cost, rtol=1e-4)


def direct_optimum(x0, y, lam, n=80):
    """Least (x(1) - y)^2 + int x^2 / 2 + lam w^2 for x' = w tanh(x), w constant on n intervals, each an RK4 step."""
    h = 1.0 / n

    def cost(w):
        x, running = np.full(w.shape[1:], x0, dtype=w.dtype), 0.0
        for wk in w:
            k1 = wk * np.tanh(x)
            x2 = x + h / 2 * k1
            k2 = wk * np.tanh(x2)
            x3 = x + h / 2 * k2
            k3 = wk * np.tanh(x3)
            x4 = x + h * k3
            running = running + h / 12 * (x**2 + 2 * x2**2 + 2 * x3**2 + x4**2) + h * lam * wk**2
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + wk * np.tanh(x4))
        return (x - y) ** 2 + running

    def with_gradient(w):
        tilted = cost(w[:, None] + 1e-30j * np.eye(n))
        return tilted[0].real, tilted.imag / 1e-30

    return minimize(with_gradient, np.zeros(n), jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-12})


def test_nonlinear_problem_converges_to_the_direct_minimum_over_discretised_controls():
    lam, y, points = 0.3, 1.2, np.array([0.5, 1.0, 1.7])
    exact = np.array([direct_optimum(x0, y, lam).fun for x0 in points])
    coarse = np.array([direct_optimum(x0, y, lam, n=40).fun for x0 in points])
    problem = QuadraticControl(0.0, lambda _t, x: np.tanh(x), lambda _t, x: x**2 / 2, 2 * lam)
    errors = value_errors(problem, lambda x: (x - y) ** 2, (0.1, 2.6), exact, points)
    assert abs(order_of(errors) - 1.0) <= 0.1
    assert np.abs(coarse - exact).max() < 0.05 * errors[-1]  # the reference is far better than the finest grid
    loop = solve_hjb(problem, lambda x: (x - y) ** 2, Cells.line(0.1, 2.6, 400), (0.0, 1.0)).closed_loop(0.5)
    np.testing.assert_allclose(loop.cost, exact[0], rtol=1e-4)
    middles = np.interp((np.arange(80) + 0.5) / 80, loop.t, loop.theta[:, 0])
    np.testing.assert_allclose(middles, direct_optimum(0.5, y, lam).x, atol=1e-2)


A = np.array([[-0.2, 1.0], [-1.0, 0.1]])
B = np.array([[1.0, 0.3], [0.0, 0.8]])
Q = np.array([[1.0, 0.2], [0.2, 0.6]])
G = np.array([[0.5, 0.0], [0.0, 0.3]])


def form(matrix, x):
    return np.einsum("in,ij,jn->n", x, matrix, x)


def matrix_riccati(left, weight):
    def rate(_t, flat):
        p = flat.reshape(2, 2)
        return (Q + A.T @ p + p @ A - 2 / weight * p @ B @ B.T @ p).ravel()

    return solve_ivp(rate, (0.0, left), G.ravel(), rtol=1e-11, atol=1e-12).y[:, -1].reshape(2, 2)


def test_planar_linear_quadratic_problem_converges_to_the_matrix_riccati_solution_at_order_one():
    weight, counts = 1.0, (30, 60, 120)
    p = matrix_riccati(1.0, weight)
    problem = QuadraticControl(lambda _t, x: A @ x, B, lambda _t, x: form(Q, x), weight)
    points = np.stack(np.meshgrid(np.linspace(-0.4, 0.4, 5), np.linspace(-0.4, 0.4, 5))).reshape(2, -1)
    start, errors, excess, controls = np.array([0.6, -0.5]), [], [], []
    for n in counts:
        solution = solve_hjb(problem, lambda x: form(G, x), Cells.box([-1, -1.2], [1, 1.2], (n, n)), (0.0, 1.0))
        errors.append(np.abs(solution.value(0.0, points) - form(p, points)).max())
        controls.append(np.abs(solution.feedback(0.0, points) + 2 / weight * B.T @ p @ points).max())
        loop = solution.closed_loop(start)
        excess.append(loop.cost - start @ p @ start)
        assert abs(loop.cost - solution.value(0.0, start)) <= 1.1 * abs(solution.value(0.0, start) - start @ p @ start)
    assert abs(order_of(errors, counts) - 1.0) <= 0.1
    assert abs(order_of(controls, counts) - 1.0) <= 0.1
    assert abs(order_of(excess, counts) - 2.0) <= 0.2
    assert errors[-1] < 1e-2


def manufactured(weight):
    """V = (2 + t) |x|^2 + sin(x_1 + t) cos(x_2) / 4 as the solution for a drift and a gain that depend on t and x."""

    def value(t, x):
        return (2 + t) * (x**2).sum(axis=0) + np.sin(x[0] + t) * np.cos(x[1]) / 4

    def drift(t, x):
        return np.stack([np.sin(x[1] + t) / 3, np.cos(t) * x[0] / 3])

    def gain(t, x):
        n = x.shape[1]
        rows = [np.full(n, 1 + t / 4), x[0] / 4, np.zeros(n)], [x[1] / 5, np.ones(n), np.sin(x[0]) / 4]
        return np.array(rows)

    def cost(t, x):
        u, v = x[0] + t, x[1]
        vt = (x**2).sum(axis=0) + np.cos(u) * np.cos(v) / 4
        p = 2 * (2 + t) * x + np.stack([np.cos(u) * np.cos(v), -np.sin(u) * np.sin(v)]) / 4
        gp = np.einsum("dmn,dn->mn", gain(t, x), p)
        return -vt - (p * drift(t, x)).sum(axis=0) + (gp**2).sum(axis=0) / (2 * weight)

    return QuadraticControl(drift, gain, cost, weight), value


def test_fields_of_time_and_state_with_more_controls_than_states_keep_order_one():
    problem, value = manufactured(1.5)
    counts, errors = (20, 40, 80), []
    for n in counts:
        cells = Cells.box([-1, -1], [1, 1], (n, n))
        solution = solve_hjb(problem, lambda x: value(0.8, x), cells, (0.2, 0.8), save_every=None)
        assert solution.outflow == 0.0
        errors.append(np.abs(solution.values[0] - value(0.2, cells.points()).reshape(n, n)).max())
    assert abs(order_of(errors, counts) - 1.0) <= 0.1


def upwind(f, g, q, weight, forward, backward, theta):
    rate = f + g @ theta
    return np.where(rate > 0, rate * forward, rate * backward).sum() + q + weight / 2 * theta @ theta


entries = st.floats(-2.0, 2.0).map(lambda v: round(v, 3))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]), st.data())
def test_closed_form_is_the_least_of_the_upwind_function_over_all_controls(shape, data):
    dim, m = shape

    def draw(n):
        return np.array(data.draw(st.lists(entries, min_size=n, max_size=n)))

    f, g, forward, backward = draw(dim), draw(dim * m).reshape(dim, m), draw(dim), draw(dim)
    q, weight = draw(1)[0], data.draw(st.floats(0.2, 3.0))
    problem = QuadraticControl(f[:, None] if dim > 1 else f[0], g, q, weight)
    found = problem.minimise(0.0, np.zeros((dim, 1)), forward[:, None], backward[:, None], np.ones(dim))

    def cost(theta):
        return upwind(f, g, q, weight, forward, backward, theta)

    theta = found.theta[:, 0]
    np.testing.assert_allclose(found.value[0], cost(theta), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.rate[:, 0], f + g @ theta, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.speed[0], np.abs(found.rate[:, 0]).sum())
    others = np.random.default_rng(0).normal(size=(2000, m))
    others = np.concatenate([4 * others[:1000], theta + 0.05 * others[1000:]])
    assert min(cost(other) for other in others) >= found.value[0] - 1e-9


def test_refined_samples_of_a_box_reproduce_the_closed_form():
    cells, span = Cells.line(-1.0, 1.6, 40), (0.0, 0.5)
    box = SampledControl.box(lambda _t, _x, u: u, lambda _t, x, u: (x - TARGET) ** 2 + LAM * u**2, -6.0, 6.0)
    sampled = solve_hjb(box, tracking_end, cells, span)
    closed = solve_hjb(TRACKING, tracking_end, cells, span, n_steps=sampled.n_steps)
    np.testing.assert_allclose(sampled.values, closed.values, atol=1e-9)
    # Speeds are bounded over the whole box, so that its CFL condition is the stricter one.
    np.testing.assert_allclose(sampled.courant / closed.courant, 6.0 / 2.6, rtol=0.2)
    costs = [one.closed_loop(1.2, n_steps=40).cost for one in (sampled, closed)]
    np.testing.assert_allclose(costs[0], costs[1], rtol=1e-7)


def test_samples_of_several_controls_bound_the_closed_form_closely_from_above():
    problem, value = manufactured(1.5)

    def rate(t, x, u):
        return problem.drift(t, x) + np.einsum("dmn,mn->dn", problem.gain(t, x), u)

    def cost(t, x, u):
        return problem.cost(t, x) + 0.75 * (u**2).sum(axis=0)

    box = SampledControl.box(rate, cost, [-6.0] * 3, [6.0] * 3, samples=5, halvings=16)
    cells = Cells.box([-1, -1], [1, 1], (8, 8))
    sampled = solve_hjb(box, lambda x: value(0.8, x), cells, (0.7, 0.8), save_every=None)
    closed = solve_hjb(problem, lambda x: value(0.8, x), cells, (0.7, 0.8), save_every=None, n_steps=sampled.n_steps)
    above = sampled.values - closed.values
    assert above.min() >= -1e-12
    assert np.median(above) < 1e-6
    assert above.max() < 1e-3


def bang_bang():
    return SampledControl(lambda _t, _x, u: u, 0.0, [-1.0, 0.0, 1.0])


def test_listed_controls_converge_at_order_one_where_the_value_is_smooth():
    # Everything within reach of 0 gets there: V = max(|x| - (T - t), 0)^2.
    points = np.array([-1.3, -0.9, 0.9, 1.4])
    exact = np.maximum(np.abs(points) - 0.5, 0.0) ** 2
    errors = value_errors(bang_bang(), lambda x: x**2, (-1.5, 1.5), exact, points, span=(0.0, 0.5))
    assert abs(order_of(errors) - 1.0) <= 0.1


def test_kinks_of_the_value_cost_half_an_order():
    errors = []
    for n in COUNTS:
        cells = Cells.line(-1.5, 1.5, n)
        solution = solve_hjb(bang_bang(), np.abs, cells, (0.0, 0.5), save_every=None)
        errors.append(np.abs(solution.values[0] - np.maximum(np.abs(cells.centres()) - 0.5, 0.0)).max())
    assert abs(order_of(errors) - 0.5) <= 0.1


def test_feedback_of_listed_controls_is_one_of_them_and_steers_to_the_target():
    solution = solve_hjb(bang_bang(), lambda x: x**2, Cells.line(-1.5, 1.5, 100), (0.0, 0.5))
    loop = solution.closed_loop(-1.2)
    assert set(np.unique(loop.theta)) == {1.0}
    np.testing.assert_allclose(loop.cost, 0.7**2, rtol=1e-12)
    assert set(np.unique(solution.feedback(0.25, np.linspace(-1.4, 1.4, 57)))) <= {-1.0, 0.0, 1.0}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.0, 0.05), min_size=40, max_size=40), st.floats(-10.0, 10.0))
def test_scheme_is_monotone_and_commutes_with_constants(bumps, constant):
    cells, bump = Cells.line(-1.0, 1.6, 40), np.array(bumps)

    def solve(terminal):
        return solve_hjb(TRACKING, terminal, cells, (0.0, 0.3), n_steps=40, save_every=None).values

    low = solve(tracking_end)
    assert (solve(lambda x: tracking_end(x)[0] + bump) - low).min() >= -1e-13
    np.testing.assert_allclose(solve(lambda x: tracking_end(x) + constant), low + constant, atol=1e-12)


def test_steps_over_the_cfl_limit_are_refused_and_the_limit_itself_is_taken():
    problem = SampledControl(lambda _t, _x, u: u, 0.0, [-2.0, 2.0])
    cells = Cells.line(0.0, 1.0, 50)  # dx / speed = 0.01
    limit = solve_hjb(problem, lambda x: x**2, cells, (0.0, 1.0), n_steps=100)
    assert limit.courant == pytest.approx(1.0)
    with pytest.raises(ConfigError, match=r"n_steps = 99 at t=1: dt = 0\.0101\d* breaks the CFL.*largest dt is 0\.01$"):
        solve_hjb(problem, lambda x: x**2, cells, (0.0, 1.0), n_steps=99)
    chosen = solve_hjb(problem, lambda x: x**2, cells, (0.0, 1.0))
    assert chosen.n_steps == 112
    assert 0.89 < chosen.courant <= 0.9


def test_levels_kept_do_not_change_the_solution():
    cells = Cells.line(-1.0, 1.6, 40)
    every = solve_hjb(TRACKING, tracking_end, cells, (0.0, 1.0))
    some = solve_hjb(TRACKING, tracking_end, cells, (0.0, 1.0), save_every=7)
    last = solve_hjb(TRACKING, tracking_end, cells, (0.0, 1.0), save_every=None)
    assert every.values.shape == (every.n_steps + 1, 40)
    assert len(some.times) == -(-every.n_steps // 7) + 1
    assert last.values.shape == (1, 40)
    for one in (some, last):
        assert one.values[0].tobytes() == every.values[0].tobytes()
        assert one.times[0] == 0.0
    np.testing.assert_array_equal(some.values[-2], every.values[np.searchsorted(every.times, some.times[-2])])
    with pytest.raises(ConfigError, match="times that were kept"):
        last.closed_loop(0.3)


def test_state_that_leaves_the_box_is_reported_with_its_number():
    away = QuadraticControl(1.0, 0.0, 0.0, 1.0)
    solution = solve_hjb(away, lambda x: x, Cells.line(0.0, 1.0, 20), (0.0, 1.0))
    assert solution.outflow == 1.0
    with pytest.raises(NumericalError, match=r"left the box at t=0\.5\d*: x\[0\] = 1\.0\d+ lies outside \[0, 1\]"):
        solution.closed_loop(0.5)


def test_edge_that_holds_the_optimum_back_shows_in_the_outflow():
    problem = QuadraticControl(0.0, 1.0, 0.0, 1.0)
    cells = Cells.line(-1.0, 1.0, 40)
    inside = solve_hjb(problem, lambda x: (x - 0.5) ** 2, cells, (0.0, 1.0), save_every=None)
    beyond = solve_hjb(problem, lambda x: (x - 1.5) ** 2, cells, (0.0, 1.0), save_every=None)
    assert inside.outflow == 0.0
    assert 0.8 < beyond.outflow < 1.2  # the control -V' = 1 at the edge and T


def solve_line(problem=TRACKING, terminal=tracking_end, *, cells=None, span=(0.0, 1.0), **options):
    return solve_hjb(problem, terminal, cells or Cells.line(-1.0, 1.6, 20), span, **options)


BAD = {
    "weight": (lambda: QuadraticControl(0.0, 1.0, 0.0, 0.0), r"weight must be > 0, got 0\.0"),
    "weight nan": (lambda: QuadraticControl(0.0, 1.0, 0.0, float("nan")), "weight must be finite, got nan"),
    "span": (lambda: solve_line(span=(1.0, 0.0)), r"T > t0, got t0 = 1\.0, T = 0\.0"),
    "span kind": (lambda: solve_line(span=3.0), r"t_span must be a pair \(t0, T\), got 3\.0"),
    "steps": (lambda: solve_line(n_steps=2.5), r"n_steps must be a positive integer, got 2\.5"),
    "bool": (lambda: solve_line(n_steps=True), "n_steps must be a positive integer, got the bool True"),
    "kept": (lambda: solve_line(save_every=0), "save_every must be a positive integer, got 0"),
    "cells": (lambda: solve_line(cells=20), "cells must be Cells, got 20"),
    "terminal": (lambda: solve_line(terminal=1.0), r"terminal must be a function of states, got 1\.0"),
    "terminal shape": (lambda: solve_line(terminal=lambda x: x[0, :3]), r"terminal has shape \(3,\), expected \(20,\)"),
    "complex": (lambda: solve_line(terminal=lambda x: x + 0j), "terminal must be real numbers, got dtype complex128"),
    "gain": (lambda: solve_line(QuadraticControl(0.0, np.ones((2, 1)), 0.0, 1.0)), r"gain has shape \(2, 1, 1\)"),
    "drift": (
        lambda: solve_line(QuadraticControl(np.ones(3), 1.0, 0.0, 1.0)),
        r"drift has shape \(3,\), expected \(1, ",
    ),
    "rate": (lambda: SampledControl(2.0, 0.0, [1.0]), r"rate must be a function of t, x and theta, got 2\.0"),
    "no values": (lambda: SampledControl(np.add, 0.0, []), r"at least one control, got shape \(1, 0\)"),
    "values": (lambda: SampledControl(np.add, 0.0, [0.0, np.inf]), r"values must be finite, got inf at index \(0, 1\)"),
    "halvings": (lambda: SampledControl(np.add, 0.0, [0.0], 1.0, -1), "halvings must be a positive integer, got -1"),
    "spacing": (lambda: SampledControl(np.add, 0.0, [0.0], -1.0), r"spacing must be >= 0, got -1\.0"),
    "spacings": (lambda: SampledControl(np.add, 0.0, [0.0], [1.0, 1.0]), r"spacing has shape \(2,\), expected \(1\)"),
    "box": (lambda: SampledControl.box(np.add, 0.0, 1.0, 1.0), r"high must be > low, got low = \[1\.0\]"),
    "samples": (lambda: SampledControl.box(np.add, 0.0, 0.0, 1.0, samples=1), "samples must be at least 2, got 1"),
    "x": (lambda: solve_line().value(0.0, 3.0), r"x\[0\] = 3\.0 lies outside \[-1, 1\.6\]"),
    "x shape": (lambda: solve_line().value(0.0, np.zeros((2, 3))), r"x has shape \(2, 3\), expected \(1,\)"),
    "t": (lambda: solve_line().feedback(1.5, 0.0), r"kept, \[0\.0, 1\.0\], got 1\.5"),
    "start": (lambda: solve_line().closed_loop(-7.0), r"x0\[0\] = -7\.0 lies outside"),
    "starts": (lambda: solve_line().closed_loop([0.0, 0.1]), "x0 must be one state, got 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_with_its_value(case):
    call, message = BAD[case]
    with pytest.raises(ConfigError, match=message):
        call()


def test_what_cannot_be_computed_says_where():
    with pytest.raises(NumericalError, match=r"cost is not finite at t=1, x=\[-0\.935\]"):
        solve_line(QuadraticControl(0.0, 1.0, lambda _t, x: np.where(x < -0.9, np.nan, x), 1.0))
    with pytest.raises(NumericalError, match=r"5 steps \(max_steps\) led from t=1 only to t=0\.\d+; t0 is 0"):
        solve_line(max_steps=5)
    with pytest.raises(NumericalError, match=r"speed is not finite at t=1, step 0"):
        solve_line(QuadraticControl(0.0, 1e200, 0.0, 1e-200))
    with pytest.raises(ResourceError, match="GiB"):
        SampledControl.box(np.add, 0.0, np.zeros(12), np.ones(12))
