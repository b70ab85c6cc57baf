"""Discrete adjoint of space-time networks: complex steps, Taylor remainders, a closed form, checkpoints, parameters."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.complex_steps import ACTIVATIONS, STEP, complex_cost, gradient_of, moved, spacetime_rate, values

from meanfield.controls import Controls
from meanfield.diagnostics.rates import fit_rate
from meanfield.errors import ConfigError
from meanfield.grids import Grid
from meanfield.integration import integrate
from meanfield.learning.adjoint import adjoint
from meanfield.models.moving import MovingGridNetwork
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.combined import Product, Sum
from meanfield.operators.convolution import Convolution
from meanfield.operators.dense import Dense
from meanfield.operators.masked import Masked
from meanfield.operators.path import OperatorPath
from meanfield.operators.separable import Separable
from meanfield.planning import step_grid

RNG = np.random.default_rng(41)
KNOTS = [0.0, 0.3, 0.45, 1.0]
N, RANK = 9, 3
COMPLEX = [name for name in ACTIVATIONS if name not in ("gelu", "sigmoid")]
KINDS = ["dense", "dense_single", "separable", "separable_terms", "one_term", "convolution", "path", "layers",
         "separable_path"]  # fmt: skip


def random_grid() -> Grid:
    """Labels with weights that are far from equal."""
    weights = RNG.uniform(0.1, 2.0, N)
    return Grid(np.sort(RNG.uniform(0, 1, N)), weights / weights.sum())


def operator_of(kind: str):
    grid = random_grid()
    if kind == "convolution":
        return Convolution(Grid.circle(N), RNG.standard_normal(N), local=-0.3)
    if kind == "path":
        return OperatorPath(
            [0.0, 0.4, 1.0], [Dense(grid, RNG.standard_normal((N, N)), local=c) for c in (0.1, 0, 0.3)], "linear"
        )
    if kind == "layers":
        return OperatorPath([0.0, 0.35, 1.0], [Dense(grid, RNG.standard_normal((N, N))) for _ in range(2)])
    if kind == "separable_path":
        terms = [Separable(grid, *RNG.standard_normal((2, RANK, N)), local=c) for c in (0.1, 0, 0.3)]
        return OperatorPath([0.0, 0.4, 1.0], terms, "linear")
    if kind.startswith("dense"):
        storage = "float32" if kind == "dense_single" else "float64"
        return Dense(grid, RNG.standard_normal((N, N)), local=0.2, storage=storage)
    rank = 1 if kind == "one_term" else RANK
    left, right = RNG.standard_normal((2, rank, N))
    return Separable(grid, left, right, local=0.4 if kind == "separable" else 0.0)


def example(kind: str, placement: str, sigma: str = "tanh", bias: str = "linear", n_samples: int | None = 4):
    """Network with random amplitude and bias over depth, a leak, and a local part where that is allowed."""
    rank = {"separable_terms": (RANK,), "one_term": (1,)}.get(kind, ())
    biases = {
        "linear": Controls(KNOTS, RNG.standard_normal((4, N)), "linear"),
        "number": 0.3,
        "field": RNG.standard_normal(N),
        "numbers": Controls(KNOTS, RNG.standard_normal(3)),
    }
    amplitude = Controls([0.0, 0.2, 0.7, 1.0], RNG.standard_normal((3, *rank)))
    return SpaceTimeNetwork(
        operator_of(kind), sigma, biases[bias], placement=placement, leak=0.7, amplitude=amplitude, n_samples=n_samples
    )


def random_direction(model) -> dict[str, np.ndarray]:
    return {k: np.asarray(RNG.standard_normal(np.shape(v))) for k, v in values(model).items()}


def complex_objective(model, direction, y0, dy, name, n_steps):
    """Objective along theta + i e direction, y0 + i e dy, by dense steps written out."""
    grid = step_grid(model, (0.0, 1.0), n_steps=n_steps)
    return complex_cost(spacetime_rate(model, direction), grid, name, y0 + 1j * STEP * dy)


def check_against_complex_steps(model, name, n_steps=20):
    """Every parameter on its own, and the initial state: all to 1e-12 of the size of the gradient."""
    y0, none = RNG.standard_normal(model.shape), {k: np.zeros(np.shape(v)) for k, v in values(model).items()}
    found = gradient_of(model, y0, name, n_steps)
    assert set(found.parameters) == set(model.parameters)
    for key, along in (random_direction(model) | {"y0": RNG.standard_normal(y0.shape)}).items():
        gradient = found.state if key == "y0" else found.parameters[key]
        dy = along if key == "y0" else np.zeros_like(y0)
        direction = none | ({} if key == "y0" else {key: along})
        expected = complex_objective(model, direction, y0, dy, name, n_steps)
        assert abs(found.value / expected.real - 1) < 1e-12
        assert gradient.shape == along.shape
        assert np.abs(gradient).min() > 0
        slope, size = np.sum(gradient * along), np.linalg.norm(gradient) * np.linalg.norm(along)
        assert abs(slope - expected.imag / STEP) < 1e-12 * size, key


@pytest.mark.parametrize("placement", ["outside", "inside"])
@pytest.mark.parametrize("name", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_equals_the_complex_step_derivative_to_round_off(kind, name, placement):
    for n_samples in (None, 4):
        check_against_complex_steps(example(kind, placement, n_samples=n_samples), name)


@pytest.mark.parametrize("placement", ["outside", "inside"])
@pytest.mark.parametrize("bias", ["number", "field", "numbers"])
@pytest.mark.parametrize("sigma", COMPLEX)
def test_every_kind_of_bias_and_activation_has_its_gradient(sigma, bias, placement):
    check_against_complex_steps(example("dense", placement, sigma, bias), "rk4")


@pytest.mark.parametrize("placement", ["outside", "inside"])
@pytest.mark.parametrize("kind", ["dense", "separable_terms", "convolution"])
def test_taylor_remainder_has_slope_two_over_ten_halvings(kind, placement):
    model = example(kind, placement)
    y0, direction = RNG.standard_normal(model.shape), random_direction(model)
    if kind == "convolution":
        assert set(direction) == {"bias", "amplitude"}
    base = gradient_of(model, y0, "rk4", 20)
    slope = sum(np.sum(g * direction[k]) for k, g in base.parameters.items())
    steps = 0.004 * 2.0 ** -np.arange(11)
    rest = [abs(gradient_of(moved(model, direction, e), y0, "rk4", 20).value - base.value - e * slope) for e in steps]
    assert abs(fit_rate(steps, rest).slope - 2.0) < 0.05


def test_gradient_in_a_constant_kernel_in_closed_form():
    # Identity, w = kappa, Euler: m = int z obeys m_k = m (1 + kappa h)^k, so dJ/dkappa of J = m_n is m n h (..)^(n-1).
    grid, kappa, n = random_grid(), 0.7, 16
    model = SpaceTimeNetwork(Dense(grid, np.full((N, N), kappa)), "identity")
    y0 = RNG.standard_normal(N)
    found = adjoint(
        model, y0, (0, 1), terminal=lambda z: (float(grid.weights @ z), grid.weights), scheme="euler", n_steps=n
    )
    growth = 1 + kappa / n
    mean = grid.weights @ y0
    assert found.value == pytest.approx(mean * growth**n, rel=1e-13)
    np.testing.assert_allclose(found.state, grid.weights * growth**n, rtol=1e-13)
    assert found.parameters["weight"].sum() == pytest.approx(mean * growth ** (n - 1), rel=1e-12)
    assert found.parameters["bias"] == pytest.approx((growth**n - 1) / kappa, rel=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["euler", "rk4"])
def test_checkpoints_change_nothing(kind, name):
    # Pieces start from `advance`: with a constant bias by the fused paths, else by the plain stages.
    for bias in ("field", "linear"):
        model = example(kind, "outside", bias=bias)
        y0 = RNG.standard_normal(model.shape)
        whole = gradient_of(model, y0, name, 40)
        run = integrate(model, y0, (0.0, 1.0), scheme=name, n_steps=40)
        np.testing.assert_allclose(whole.final, run.y[-1], rtol=1e-12, atol=1e-13)
        for k in (2, 7, 40):
            part = gradient_of(model, y0, name, 40, checkpoints=k)
            assert part.value == pytest.approx(whole.value, rel=1e-13)
            np.testing.assert_allclose(part.state, whole.state, rtol=1e-11, atol=1e-12)
            for key, g in whole.parameters.items():
                np.testing.assert_allclose(part.parameters[key], g, rtol=1e-10, atol=1e-11)


def test_networks_without_an_adjoint_are_refused():
    model = MovingGridNetwork(Grid.interval(8), lambda x, y: x - y, "tanh", velocity=lambda _t, x: 0 * x)
    with pytest.raises(ConfigError, match="MovingGridNetwork has no adjoint"):
        adjoint(model, np.zeros(model.shape), (0, 1), terminal=lambda y: (0.0, y), n_steps=3)


def test_other_parameters_give_the_same_network_with_only_those_changed():
    model = example("separable_terms", "inside")
    right = RNG.standard_normal((RANK, N))
    other = model.with_parameters(right=right)
    np.testing.assert_array_equal(other.operator.right, right)
    np.testing.assert_array_equal(other.operator.left, model.operator.left)
    assert (other.placement, other.leak, other.shape) == (model.placement, model.leak, model.shape)
    assert other.bias is model.bias
    assert other.amplitude is model.amplitude
    dense = example("dense", "outside")
    assert dense.with_parameters(bias=dense.bias).operator is dense.operator
    assert dense.with_parameters(weight=np.ones((N, N))).operator.local == dense.operator.local


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"left": np.ones((RANK, N))}, "unknown parameter 'left'"),
        ({"weight": np.ones((N, N + 1))}, r"weight is an array of shape \(9, 10\), expected .*\(9, 9\)"),
        ({"amplitude": np.ones(3)}, r"amplitude is an array of shape \(3,\), expected Controls of values \(3,\)"),
        ({"bias": Controls([0.0, 1.0], [1.0])}, r"bias is Controls of values \(1,\), expected .*\(4, 9\)"),
        ({"weight": np.full((N, N), np.nan)}, "kernel"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(changed, words):
    with pytest.raises(ConfigError, match=words):
        example("dense", "outside").with_parameters(**changed)


@pytest.mark.parametrize("placement", ["outside", "inside"])
def test_operators_of_every_exact_kind_give_the_gradients_of_their_dense_matrix(placement):
    grid = random_grid()
    first, second = (Dense(grid, RNG.standard_normal((N, N)), local=c) for c in (0.3, -0.2))
    masked = Masked(grid, lambda x, y: np.cos(3 * x - y), radius=0.4, local=0.1)
    y0, bias, amplitude = RNG.standard_normal((4, N)), RNG.standard_normal(N), Controls(KNOTS, RNG.standard_normal(3))
    for operator in (masked, Sum([first, masked], [0.5, -2.0]), Product(first, second)):
        kernel = Dense(grid, operator.kernel_matrix(), operator.local)
        found, expected = (
            gradient_of(SpaceTimeNetwork(w, "tanh", bias, placement=placement, amplitude=amplitude, n_samples=4), y0,
                      "rk4", 20) for w in (operator, kernel)
        )  # fmt: skip
        np.testing.assert_allclose(found.state, expected.state, rtol=1e-11, atol=1e-12)
        assert set(found.parameters) == {"bias", "amplitude"}
        for name, gradient in found.parameters.items():
            np.testing.assert_allclose(gradient, expected.parameters[name], rtol=1e-11, atol=1e-12)
