"""Training of space-time networks: gradients, residual form, rank of optimal kernels, independence of the mesh."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.controls import Controls
from meanfield.diagnostics.rates import fit_rate
from meanfield.errors import ConfigError
from meanfield.grids import Grid
from meanfield.learning.adjoint import adjoint
from meanfield.learning.pontryagin import pmp_residual
from meanfield.learning.quasi_newton import minimise
from meanfield.learning.residual_form import kernel_values, residual_form
from meanfield.learning.training import Training
from meanfield.losses import Readout, Squared
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.dense import Dense
from meanfield.operators.path import OperatorPath
from meanfield.operators.separable import Separable
from meanfield.regularizers import DepthH1, DepthL2

RNG = np.random.default_rng(5)
LAYERS, N, SAMPLES = 6, 10, 3


def problem(
    placement: str = "outside", sigma: str = "tanh", scheme: str = "euler", h1: float = 0.02, linear: bool = False
) -> Training:
    """Dense kernels and biases over depth at random, on labels with uneven weights; outputs are two integrals."""
    grid = Grid.interval(N, rule="gauss")
    n, x = grid.n_nodes, grid.nodes
    knots = np.linspace(0.0, 1.0, LAYERS + 1)
    count = LAYERS + linear
    kernels = [Dense(grid, RNG.standard_normal((n, n))) for _ in range(count)]
    kind = "linear" if linear else "constant"
    bias = Controls(knots, RNG.standard_normal((count, n)), kind)
    model = SpaceTimeNetwork(OperatorPath(knots, kernels, kind), sigma, bias, placement=placement, n_samples=SAMPLES)
    q = grid.weights
    terms = {"weight": DepthL2(0.05, np.outer(q, q)), "bias": DepthL2(0.05, q)}
    if h1:
        terms = {name: term + DepthH1(h1, 0.5, term.weights) for name, term in terms.items()}
    starts = np.array([np.cos(k * x + k) for k in range(SAMPLES)])
    target = np.array([[0.5, -0.2, 0.1], [0.0, 0.3, -0.4]])
    readout = Readout(np.array([np.ones(n), np.sin(3 * x)]))
    return Training(model, starts, Squared(target), (0.0, 1.0), 2 * LAYERS, scheme, readout, terms, tracking=0.3)


@pytest.mark.parametrize("placement", ["outside", "inside"])
@pytest.mark.parametrize("scheme", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("linear", [False, True])
def test_gradient_has_taylor_slope_two(placement, scheme, linear):
    for coordinates in ("auto", "l2"):
        made = problem(placement, "softplus", scheme, linear=linear)
        object.__setattr__(made, "coordinates", coordinates)
        at = made.start()
        value, gradient = made.objective(at)
        direction = RNG.standard_normal(at.shape) / np.sqrt(at.size)
        steps = 0.2 * 2.0 ** -np.arange(11)
        rest = [abs(made.objective(at + e * direction)[0] - value - e * (gradient @ direction)) for e in steps]
        assert abs(fit_rate(steps, rest).slope - 2.0) < 0.05


@pytest.mark.parametrize("placement", ["outside", "inside"])
def test_residual_form_has_the_same_objective_and_gradient(placement):
    first = problem(placement)
    second = residual_form(first)
    # Values in place of coordinates: the Euclidean coordinates of L2 differ by the weights of the labels.
    value, gradient = first.objective(first.start())
    same, other = second.objective(second.start())
    assert same == pytest.approx(value, rel=1e-14)
    direction = RNG.standard_normal(first.start().shape)
    moved = first.unpack(first.start() + 1e-7 * direction)[0]
    along = residual_form(Training(**{**vars(first), "model": moved})).start() - second.start()
    assert other @ along / 1e-7 == pytest.approx(gradient @ direction, rel=1e-6)
    np.testing.assert_allclose(
        kernel_values(second.model, first.model.grid.weights), first.model.parameters["weight"].values, rtol=1e-13
    )


@pytest.mark.parametrize("placement", ["outside", "inside"])
def test_kernels_of_an_optimum_have_at_most_the_rank_of_the_number_of_samples(placement):
    # From kernels of full rank: what is orthogonal to the samples only costs.
    start = problem(placement, h1=0.0)
    found = minimise(start, tolerance=1e-12, max_iterations=400).raise_for_status()
    q = np.sqrt(start.model.grid.weights)
    for k, kernel in enumerate(found.model.parameters["weight"].values):
        before = np.linalg.svd(q[:, None] * start.model.parameters["weight"].values[k] * q, compute_uv=False)
        after = np.linalg.svd(q[:, None] * kernel * q, compute_uv=False)
        assert before[-1] > 1e-6 * before[0]
        # Two steps to a layer: their costates and activations span 2 n dimensions.
        assert after[2 * SAMPLES] < 1e-8 * after[0]
    same = residual_form(Training(**{**vars(start), "model": found.model}))
    assert pmp_residual(same).stationarity < 1e-9


def test_descent_does_not_depend_on_the_number_of_labels():
    values = []
    for n in (14, 32):
        grid = Grid.interval(n, rule="gauss")
        x = grid.nodes
        knots = np.linspace(0.0, 1.0, LAYERS + 1)
        kernels = [Dense(grid, lambda x, y: np.cos(2 * x - y)) for _ in range(LAYERS)]
        model = SpaceTimeNetwork(OperatorPath(knots, kernels), "tanh", Controls(knots, np.zeros((LAYERS, n))),
                                 n_samples=2)  # fmt: skip
        q = grid.weights
        made = Training(
            model, np.array([np.cos(x), x]), Squared([0.5, -0.2]), (0.0, 1.0), LAYERS,
            readout=Readout(np.ones((1, n)), trained=True), readout_penalty=0.1,
            regularizers={"weight": DepthL2(0.05, np.outer(q, q)), "bias": DepthL2(0.05, q)},
        )  # fmt: skip
        found = minimise(made, max_iterations=12, tolerance=1e-14)
        values.append(found.values)
    np.testing.assert_allclose(values[0], values[1], rtol=1e-6)


def test_gradients_in_l2_do_not_depend_on_layers_or_labels():
    found = []
    for n, layers in ((12, 40), (24, 80)):
        grid, knots = Grid.interval(n, rule="gauss"), np.linspace(0.0, 1.0, layers + 1)
        x = grid.nodes
        kernels = [Dense(grid, lambda x, y, t=t: np.cos(2 * x - y + t)) for t in 0.5 * (knots[1:] + knots[:-1])]
        model = SpaceTimeNetwork(OperatorPath(knots, kernels), "tanh", Controls(knots, np.zeros((layers, n))))
        gradient = adjoint(model, np.cos(x), (0.0, 1.0), scheme="rk4", n_steps=layers,
                           terminal=lambda z, q=grid.weights: (float(q @ z**2) / 2, q * z))  # fmt: skip
        parts = gradient.in_l2(model)
        # The same integrals of the gradients over depth and labels.
        q, h = grid.weights, 1.0 / layers
        found.append([h * np.einsum("kij,i,j,i->", parts["weight"], q, q, x), h * np.sum(parts["bias"] @ (q * x))])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


def test_factors_and_a_field_without_samples_are_trained_too():
    grid = Grid.interval(N, rule="gauss")
    left, right = RNG.standard_normal((2, 2, N))
    target = np.sin(2 * grid.nodes)
    model = SpaceTimeNetwork(Separable(grid, left, right), "tanh", np.zeros(N))
    made = Training(model, grid.nodes, Squared(target[:, None]), (0.0, 1.0), 8)
    assert made.columns(made.x).shape == (N, 1)
    found = minimise(made, tolerance=1e-9)
    assert found.values[-1] < 1e-3 * found.values[0]


def test_problems_without_a_residual_form_are_refused():
    plain = problem()
    grid = plain.model.grid
    leaky = SpaceTimeNetwork(plain.model.operator, "tanh", plain.model.bias, leak=0.1, n_samples=SAMPLES)
    with pytest.raises(ConfigError, match="without leak"):
        residual_form(Training(leaky, plain.x, plain.loss, (0, 1), 12, readout=plain.readout))
    with pytest.raises(ConfigError, match="got ResidualNetwork"):
        residual_form(residual_form(plain))
    with pytest.raises(ConfigError, match="see residual_form"):
        pmp_residual(problem(h1=0.0))
    one = SpaceTimeNetwork(Dense(grid, np.ones((N, N))), "tanh", 0.1, n_samples=SAMPLES)
    with pytest.raises(ConfigError, match="one number"):
        residual_form(Training(one, plain.x, plain.loss, (0, 1), 12, readout=plain.readout))
