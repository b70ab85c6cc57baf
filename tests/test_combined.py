"""Sums, products and masks of kernels, and the choice among the kinds of operators."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_array

from meanfield import SpaceTimeNetwork, integrate
from meanfield.diagnostics.bounds import GrowthBound
from meanfield.diagnostics.spectrum import contraction_rate, spectrum
from meanfield.errors import ConfigError, ResourceError
from meanfield.grids import Grid
from meanfield.operators import choice
from meanfield.operators.choice import choose_operator
from meanfield.operators.combined import Product, Sum
from meanfield.operators.convolution import Convolution
from meanfield.operators.dense import Dense
from meanfield.operators.masked import Masked
from meanfield.operators.onthefly import OnTheFly
from meanfield.operators.radial import RadialKernel
from meanfield.operators.separable import Separable

RNG = np.random.default_rng(3)
GAUSS, CIRCLE, SQUARE = Grid.interval(40, "gauss"), Grid.circle(48), Grid.square(9)
NEAR = RadialKernel("gaussian", length=0.1)
A = Dense(GAUSS, RNG.standard_normal((40, 40)), local=0.3)
B = Separable(GAUSS, RNG.standard_normal((2, 40)), RNG.standard_normal((2, 40)), local=-1.1)
FAR = RNG.random((48, 48)) < 0.2
OPERATORS = {
    "sum": (Sum([A, B], [2.0, -0.5]), 2.0 * A.dense() - 0.5 * B.dense()),
    "plain sum": (Sum([A, B, A]), 2.0 * A.dense() + B.dense()),
    "product": (Product(A, B), A.dense() @ B.dense()),
    "square of an operator": (Product(A, A), A.dense() @ A.dense()),
    "sum of products": (
        Sum([Product(A, B), OnTheFly(GAUSS, NEAR)]),
        A.dense() @ B.dense() + Dense(GAUSS, NEAR).dense(),
    ),
    "near labels": (
        Masked(GAUSS, NEAR, radius=0.1, local=0.7),
        Dense(GAUSS, lambda x, y: NEAR(x, y) * (np.abs(x - y) <= 0.1), local=0.7).dense(),
    ),
    "near labels of the circle": (
        Masked(CIRCLE, lambda x, y: 1.0 + np.cos(2 * np.pi * (x - y)) + 0.0 * x, radius=0.15),
        Dense(
            CIRCLE,
            lambda x, y: (1.0 + np.cos(2 * np.pi * (x - y))) * (np.minimum((x - y) % 1, (y - x) % 1) <= 0.15),
        ).dense(),
    ),
    "near labels of the square": (
        Masked(SQUARE, lambda x, y: x[..., 0] * y[..., 1], radius=0.3),
        Dense(SQUARE, lambda x, y: x[..., 0] * y[..., 1] * (((x - y) ** 2).sum(-1) <= 0.09)).dense(),
    ),
    "any mask": (
        Masked(CIRCLE, lambda x, y: x + 2 * y, mask=FAR),
        (CIRCLE.nodes[:, None] + 2 * CIRCLE.nodes) * FAR / 48,
    ),
    "sparse mask": (
        Masked(CIRCLE, lambda x, y: x + 2 * y, mask=coo_array(FAR)),
        (CIRCLE.nodes[:, None] + 2 * CIRCLE.nodes) * FAR / 48,
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_products_adjoints_and_norms_are_those_of_the_matrix(name):
    W, matrix = OPERATORS[name]
    q, n = W.grid.weights, W.grid.n_nodes
    z, p = RNG.standard_normal((3, n)), RNG.standard_normal(n)
    np.testing.assert_allclose(W.apply(z), z @ matrix.T, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(W.apply_adjoint(p), (q * p) @ matrix / q, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(W.dense(), matrix, rtol=1e-11, atol=1e-13)
    kernel = (matrix - W.local * np.eye(n)) / q
    assert np.isclose(W.norm(), np.sqrt(q @ kernel**2 @ q), rtol=1e-11)


@pytest.mark.parametrize("name", ["sum", "product", "near labels"])
def test_diagnostics_see_one_operator(name):
    # A sum is one operator, not one for each layer.
    W, matrix = OPERATORS[name]
    model = SpaceTimeNetwork(W, "tanh", leak=0.4)
    exact = SpaceTimeNetwork(Dense(W.grid, (matrix - W.local * np.eye(40)) / W.grid.weights, W.local), "tanh", leak=0.4)
    assert np.isclose(spectrum(model, np.zeros(40)).abscissa, spectrum(exact, np.zeros(40)).abscissa, rtol=1e-9)
    assert np.isclose(contraction_rate(model), contraction_rate(exact), rtol=1e-9)
    z0 = RNG.standard_normal(40)
    ratios = [integrate(m, z0, (0, 1), dt=0.1, probes={"r": GrowthBound()}).probes["r"][1][-1] for m in (model, exact)]
    assert np.isclose(*ratios, rtol=1e-9)


def test_composition_of_kernels_in_closed_form():
    # int_0^1 (x s) (s y) ds = x y / 3, with local parts a and b: + (a + b) x y.
    f = Dense(GAUSS, lambda x, y: x * y, local=0.5)
    g = Dense(GAUSS, lambda x, y: x * y, local=2.0)
    expected = (1 / 3 + 2.5) * GAUSS.nodes * (GAUSS.integrate(GAUSS.nodes**2)) + GAUSS.nodes
    np.testing.assert_allclose(Product(f, g).apply(GAUSS.nodes.copy()), expected, rtol=1e-13)
    assert np.isclose(Product(f, g).norm(), (1 / 3 + 2.5) / 3, rtol=1e-12)


def test_masked_pairs_are_counted_and_limited(monkeypatch):
    W = Masked(Grid.interval(100), NEAR, radius=0.0205)
    assert W.n_pairs == 100 + 2 * (99 + 98)
    monkeypatch.setattr("meanfield._checks.SMALL", 0)
    monkeypatch.setattr("meanfield._checks.available_bytes", lambda: 2**13)
    with pytest.raises(ResourceError, match="a kernel of 494 pairs needs an estimated"):
        Masked(Grid.interval(100), NEAR, radius=0.0205)


def test_bad_combinations_are_refused():
    with pytest.raises(ConfigError, match="at least one IntegralOperator"):
        Sum([])
    with pytest.raises(ConfigError, match="same grid"):
        Product(A, Dense(CIRCLE, np.eye(48)))
    with pytest.raises(ConfigError, match="coefficients has length 1, but terms has length 2"):
        Sum([A, B], [1.0])
    with pytest.raises(ConfigError, match="either radius or mask"):
        Masked(GAUSS, NEAR)
    with pytest.raises(ConfigError, match="radius must be > 0"):
        Masked(GAUSS, NEAR, radius=-1.0)
    with pytest.raises(ConfigError, match=r"mask has shape \(3, 3\), expected \(40, 40\)"):
        Masked(GAUSS, NEAR, mask=np.ones((3, 3)))
    with pytest.raises(ConfigError, match="callable w"):
        Masked(GAUSS, np.eye(40), radius=0.1)


def noise(x, y):
    return np.cos(1e4 * (x + 1.3) * (y + 0.2) + 31.0 * np.sin(1e4 * x))


WIDE, FINE = Grid.interval(2000), Grid.circle(2000)
CASES = {
    "convolution": (FINE, RadialKernel("exponential", period=1.0), "x - y alone"),
    "masked": (WIDE, RadialKernel("cauchy", cutoff=0.01), "% of the pairs"),
    "dense": (Grid.interval(300), RadialKernel("cauchy"), "N = 300 is small enough"),
    "hierarchical": (WIDE, RadialKernel("distance"), "% of the dense matrix, with a relative error of"),
    "dense, samples": (WIDE, RNG.standard_normal((2000, 2000)), "does not compress, and its matrix takes 0.0298 GiB"),
    "dense, formula": (WIDE, noise, "does not compress"),
}


@pytest.mark.parametrize("name", CASES)
def test_choice_fits_the_kernel_and_says_why(name, capsys):
    grid, kernel, reason = CASES[name]
    found = choose_operator(grid, kernel, local=0.2)
    assert found.operator.kind == name.split(",")[0]
    assert reason in found.reason
    assert capsys.readouterr().out == f"{found.operator.kind} operator: {found.reason}\n"
    z = RNG.standard_normal(grid.n_nodes)
    exact = Dense(grid, kernel, local=0.2)
    assert grid.norm(found.operator.apply(z) - exact.apply(z)) <= 1e-7 * grid.norm(z) * exact.norm()


def test_choice_evaluates_on_the_fly_what_cannot_be_stored(monkeypatch, capsys):
    monkeypatch.setattr(choice, "_compressed", lambda *_: None)
    monkeypatch.setattr(choice, "available_bytes", lambda: 2**26)
    found = choose_operator(WIDE, NEAR, report=None)
    assert isinstance(found.operator, OnTheFly)
    assert "too large to store" in found.reason
    assert capsys.readouterr().out == ""


def test_choice_does_not_take_a_line_for_a_circle():
    assert not isinstance(choose_operator(FINE, RadialKernel("distance"), report=None).operator, Convolution)
    torus = Grid.torus(36)
    periodic = RadialKernel("gaussian", dim=2, period=(1.0, 1.0))
    found = choose_operator(torus, periodic, report=None).operator
    assert isinstance(found, Convolution)
    z = RNG.standard_normal(torus.n_nodes)
    np.testing.assert_allclose(found.apply(z), OnTheFly(torus, periodic).apply(z), rtol=1e-10, atol=1e-12)
