"""The space-time network: rates, derivatives, the fused paths, exact solutions."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield import (
    ConfigError,
    Controls,
    Convolution,
    Dense,
    Grid,
    NumericalError,
    OperatorPath,
    Separable,
    SpaceTimeNetwork,
    integrate,
)
from meanfield.activations import ACTIVATIONS, activation
from meanfield.models import spacetime
from meanfield.schemes import SCHEMES, StepGrid, scheme

RNG = np.random.default_rng(7)
GRID = Grid.interval(23, rule="gauss")
CIRCLE = Grid.circle(24)


def operators():
    n = GRID.n_nodes
    left, right = RNG.standard_normal((3, n)), RNG.standard_normal((3, n))
    dense = Dense(GRID, RNG.standard_normal((n, n)), local=-0.3)
    return {
        "dense": dense,
        "separable": Separable(GRID, left, right, local=0.2),
        "convolution": Convolution(CIRCLE, RNG.standard_normal(24), local=-0.1),
        "path": OperatorPath([0.0, 0.5, 1.0], [dense, Dense(GRID, RNG.standard_normal((n, n)))]),
        "linear path": OperatorPath([0.0, 1.0], [dense, Dense(GRID, RNG.standard_normal((n, n)))], "linear"),
    }


OPERATORS = operators()


def network(kind, name, placement="outside", leak=0.0, n_samples=None, amplitude=None, bias=None):
    operator = OPERATORS[kind]
    b = np.sin(np.arange(operator.grid.n_nodes)) if bias is None else bias
    return SpaceTimeNetwork(operator, name, b, placement=placement, leak=leak, n_samples=n_samples, amplitude=amplitude)


def field(model):
    return np.random.default_rng(3).standard_normal(model.shape)


def dense_rate(model, t, y):
    operator = model.operator
    if isinstance(operator, OperatorPath):
        k = min(int(np.searchsorted(operator.knots, t, side="right")) - 1, len(operator.knots) - 2)
        if operator.interpolation == "linear":
            s = (t - operator.knots[k]) / (operator.knots[k + 1] - operator.knots[k])
            W = (1 - s) * operator.operators[k].dense() + s * operator.operators[k + 1].dense()
        else:
            W = operator.operators[k].dense()
    else:
        W = operator.dense()
    a = 1.0 if model.amplitude is None else float(model.amplitude.at(t))
    s = model.activation.value
    return (
        s(a * y @ W.T + model.bias_at(t)) if model.placement == "outside" else a * s(y) @ W.T + model.bias_at(t)
    ) - model.leak * y


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("placement", ["outside", "inside"])
@pytest.mark.parametrize("n_samples", [None, 1, 5])
def test_rate_is_the_formula(kind, placement, n_samples):
    amplitude = Controls([0.0, 0.4, 1.0], [0.7, -1.3])
    for name in ACTIVATIONS:
        model = network(kind, name, placement, leak=0.4, n_samples=n_samples, amplitude=amplitude)
        y = field(model)
        out = np.empty(model.shape)
        for t in (0.1, 0.6):
            model.rate(t, y, out)
            np.testing.assert_allclose(out, dense_rate(model, t, y), rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("placement", ["outside", "inside"])
@pytest.mark.parametrize("name", ["tanh", "softplus", "gelu", "sine"])
def test_derivative_is_the_limit_of_differences_and_vjp_its_adjoint(kind, placement, name):
    model = network(kind, name, placement, leak=0.3, n_samples=3, amplitude=Controls([0.0, 1.0], [1.7]))
    y, v, p = (np.random.default_rng(s).standard_normal(model.shape) for s in (1, 2, 3))
    jv, gy, plus, minus = (np.empty(model.shape) for _ in range(4))
    model.jvp(0.3, y, v, jv)
    errors = []
    for h in (1e-2, 1e-3):
        model.rate(0.3, y + h * v, plus)
        model.rate(0.3, y - h * v, minus)
        errors.append(np.abs((plus - minus) / (2 * h) - jv).max())
    assert errors[1] < 2e-2 * errors[0], errors
    assert errors[1] < 1e-4
    model.rate_vjp(0.3, y, p, gy)
    q = model.grid.weights
    left, right = ((a * b) @ q for a, b in ((jv, p), (v, gy)))
    np.testing.assert_allclose(left.sum(), right.sum(), rtol=1e-12)


def generic(model, chosen, n_steps, y0, t_span=(0.0, 1.0)):
    """The same steps by the formula, in plain NumPy."""
    y, dt = y0.copy(), (t_span[1] - t_span[0]) / n_steps
    for m in range(n_steps):
        k = []
        for i in range(chosen.n_stages):
            arg = y + dt * sum((chosen.a[i, j] * k[j] for j in range(i)), np.zeros_like(y))
            k.append(dense_rate(model, t_span[0] + (m + chosen.c[i] * (1 - 1e-15)) * dt, arg))
        y = y + dt * sum(w * s for w, s in zip(chosen.b, k, strict=False))
    return y


@pytest.mark.parametrize("kind", ["dense", "separable", "convolution"])
@pytest.mark.parametrize("placement", ["outside", "inside"])
@pytest.mark.parametrize("name", SCHEMES)
def test_fused_paths_are_the_generic_loop(kind, placement, name):
    model = network(
        kind, "tanh", placement, leak=0.3, n_samples=3, amplitude=Controls.sample(np.cos, np.linspace(0, 1, 9))
    )
    y0 = field(model)
    got = integrate(model, y0, (0.0, 1.0), scheme=name, n_steps=16).final
    np.testing.assert_allclose(got, generic(model, scheme(name), 16, y0), rtol=2e-12, atol=2e-12)


@pytest.mark.parametrize("kind", ["dense", "separable", "convolution"])
@pytest.mark.parametrize("placement", ["outside", "inside"])
@pytest.mark.parametrize("name", ["euler", "rk4"])
def test_advance_n_then_m_is_advance_n_plus_m_in_bytes(kind, placement, name):
    model = network(kind, "gelu", placement, leak=0.1, n_samples=2, amplitude=Controls([0, 1], [1.0, 2.0], "linear"))
    chosen = scheme(name)
    if not model.fused(chosen):
        pytest.skip("no fused path for this combination")
    grid = StepGrid(np.array([0.0, 0.5, 1.0]), np.array([19, 18]))
    whole, parts = field(model), field(model)
    model.advance(chosen, grid, 0, 37, whole.copy(), whole)
    for first, count in ((0, 1), (1, 20), (21, 16)):
        model.advance(chosen, grid, first, count, parts.copy(), parts)
    np.testing.assert_array_equal(whole, parts)


def test_fused_separable_handles_long_grids_every_rank_and_term_amplitudes():
    grid = Grid.interval(1301)
    for rank in (1, 4, 6):
        left, right = RNG.standard_normal((rank, 1301)), RNG.standard_normal((rank, 1301))
        terms = Controls(np.linspace(0, 1, 5), RNG.standard_normal((4, rank)))
        y0 = np.sin(5 * grid.nodes)
        for amplitude in (None, terms):
            model = SpaceTimeNetwork(Separable(grid, left, right), "tanh", 0.1, amplitude=amplitude)
            got = integrate(model, y0, (0.0, 1.0), scheme="heun", n_steps=8).final

            def rate(t, y, amplitude=amplitude, left=left, right=right, rank=rank):
                a = np.ones(rank) if amplitude is None else amplitude.at(t)
                return np.tanh(left.T @ (a * (right @ (grid.weights * y))) + 0.1)

            breakpoints = [] if amplitude is None else amplitude.breakpoints
            y, dt = y0.copy(), 1 / 8
            assert set(breakpoints) <= {k * dt for k in range(9)}
            for m in range(8):
                k1 = rate(m * dt, y)
                y = y + dt / 2 * (k1 + rate(np.nextafter((m + 1) * dt, 0), y + dt * k1))
            np.testing.assert_allclose(got, y, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", SCHEMES)
def test_model_has_the_order_of_its_scheme_on_its_exact_solution(name):
    model, y0, exact = spacetime.example()
    chosen = scheme(name)
    errors, counts = [], [int(n) for n in {1: 64, 2: 32, 3: 16, 4: 8, 5: 8}[chosen.order] * 2 ** np.arange(6)]
    for n in counts:
        errors.append(np.abs(integrate(model, y0, (0.0, 2.0), scheme=name, n_steps=n).final - exact(2.0)).max())
    errors = np.array(errors)
    slopes = np.log2(errors[:-1] / errors[1:])[errors[1:] > 1e3 * np.finfo(float).eps]
    assert abs(np.median(slopes[-4:]) - chosen.order) <= 0.1, (errors, slopes)


def test_depth_dependent_bias_lands_on_its_jumps():
    grid = Grid.circle(8)
    operator = Separable(grid, np.zeros((1, 8)), np.zeros((1, 8)))
    model = SpaceTimeNetwork(operator, "identity", Controls([0.0, 0.25, 1.0], [[1.0] * 8, [3.0] * 8]))
    for options in ({"scheme": "rk4", "dt": 0.25}, {"rtol": 1e-9}):
        np.testing.assert_allclose(integrate(model, np.zeros(8), (0.0, 1.0), **options).final, 2.5, rtol=1e-13)


def test_neurons_and_samples_may_be_permuted():
    n = 12
    grid = Grid.random(n, seed=5)
    kernel = RNG.standard_normal((n, n))
    b = RNG.standard_normal(n)
    y0 = RNG.standard_normal((4, n))
    rows, columns = RNG.permutation(4), RNG.permutation(n)
    first = integrate(SpaceTimeNetwork(Dense(grid, kernel), "tanh", b, n_samples=4), y0, (0, 2), n_steps=20).final
    mixed = SpaceTimeNetwork(Dense(grid, kernel[np.ix_(columns, columns)]), "tanh", b[columns], n_samples=4)
    second = integrate(mixed, y0[np.ix_(rows, columns)], (0, 2), n_steps=20).final
    np.testing.assert_allclose(second, first[np.ix_(rows, columns)], rtol=1e-12, atol=1e-12)


def test_nan_in_the_rate_passes_through_the_fused_loop():
    grid = Grid.interval(64)
    model = SpaceTimeNetwork(Separable(grid, np.full((1, 64), 400.0), np.ones((1, 64))), "identity")
    solution = integrate(model, np.ones(64), (0.0, 10.0), scheme="euler", n_steps=1000)
    assert solution.status == "nonfinite"
    assert np.isfinite(solution.final).all()
    # z grows by 1 + 400 dt = 5 a step; the run ends where the rate 400 z overflows.
    assert solution.stats["n_steps"] == int(np.log(np.finfo(float).max / 400) / np.log(5)) + 1


def test_a_rate_that_is_not_finite_at_the_start_raises_in_the_fused_loop_too():
    grid = Grid.interval(8)
    model = SpaceTimeNetwork(Separable(grid, np.full((1, 8), 1e200), np.ones((1, 8))), "identity")
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(NumericalError, match=r"rate is .*t=0\.0"):
        integrate(model, np.full(8, 1e200), (0.0, 1.0), scheme="euler", n_steps=10)


BAD = [
    (lambda: SpaceTimeNetwork(OPERATORS["dense"], "thanh"), "tanh"),
    (lambda: SpaceTimeNetwork(OPERATORS["dense"], "tanh", np.zeros(5)), "bias"),
    (lambda: SpaceTimeNetwork(OPERATORS["dense"], "tanh", np.full(23, np.nan)), "bias must be finite"),
    (lambda: SpaceTimeNetwork(OPERATORS["dense"], "tanh", leak=-1.0), "leak"),
    (lambda: SpaceTimeNetwork(OPERATORS["dense"], "tanh", placement="left"), "placement"),
    (lambda: SpaceTimeNetwork(OPERATORS["dense"], "tanh", n_samples=0), "n_samples"),
    (lambda: SpaceTimeNetwork(OPERATORS["dense"], "tanh", amplitude=Controls([0, 1], [[1.0, 2.0]])), "amplitude"),
]


@pytest.mark.parametrize("index", range(len(BAD)))
def test_bad_models_are_refused(index):
    make, words = BAD[index]
    with pytest.raises(ConfigError, match=words):
        make()


def test_activation_objects_are_accepted():
    assert SpaceTimeNetwork(OPERATORS["dense"], activation("relu")).activation.name == "relu"
