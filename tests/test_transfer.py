"""Transfers between grids: orders, norms, exact restriction, adjoints, bad grids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meanfield import ConfigError, Grid
from meanfield.diagnostics.rates import observed_order
from meanfield.transfer import Transfer, endpoint_grid, nodal_grid, transfer

FAMILIES = {"endpoints": endpoint_grid, "midpoint": Grid.interval, "circle": Grid.circle}


def smooth(x):
    return np.exp(np.sin(2 * np.pi * x))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("kind", "order"), [("linear", 2), ("cubic", 4)])
def test_interpolation_has_the_order_of_its_polynomials(family, kind, order):
    make = FAMILIES[family]
    sizes = (64, 128, 256, 512)
    errors = []
    for n in sizes:
        moved = transfer(make(n), make(n + 1), kind)
        errors.append(np.abs(moved.apply(smooth(moved.source.nodes)) - smooth(moved.target.nodes)).max())
    assert abs(observed_order(1 / np.array(sizes), errors).order - order) <= 0.1
    # h^2/8 max|f''| between two nodes, h^4/24 max|f''''| in the outer cells of four; h = 1/511 at most.
    assert errors[-1] < {2: 107.3 / 8, 4: 16950 / 24}[order] * 511.0**-order


def test_interpolation_on_a_torus_and_a_square_is_the_product_of_its_sides():
    for make in (Grid.torus, Grid.square):
        errors = []
        for n in (12, 24, 48):
            moved = transfer(make(n), make(n + 3), "cubic")
            x, y = moved.source.nodes, moved.target.nodes
            exact = smooth(y[:, 0]) * np.cos(2 * np.pi * (y[:, 1] - y[:, 0]))
            got = moved.apply(smooth(x[:, 0]) * np.cos(2 * np.pi * (x[:, 1] - x[:, 0])))
            errors.append(np.abs(got - exact).max())
        assert np.log2(errors[-2] / errors[-1]) > 3.7
    side = transfer(Grid.circle(12), Grid.circle(7), "cubic").matrix.toarray()
    torus = transfer(Grid.torus(12), Grid.torus(7), "cubic").matrix.toarray()
    np.testing.assert_allclose(torus, np.kron(side, side), atol=1e-15)


@pytest.mark.parametrize("kind", ["linear", "cubic"])
@pytest.mark.parametrize("periodic", [False, True])
@given(data=st.data())
def test_restriction_to_a_subset_is_exact(kind, periodic, data):
    n = data.draw(st.integers(1, 30))
    nodes = np.sort(np.random.default_rng(n).random(n))
    kept = data.draw(st.lists(st.integers(0, n - 1), min_size=1, unique=True).map(sorted))
    source = nodal_grid(nodes, periodic=periodic)
    matrix = transfer(source, nodal_grid(nodes[kept], periodic=periodic), kind).matrix
    np.testing.assert_array_equal(matrix.toarray(), np.eye(n)[kept])
    assert matrix.nnz == len(kept)


def test_restriction_in_two_dimensions_needs_no_tensor_product():
    source = Grid.random(9, dim=2)
    kept = [7, 0, 4]
    target = Grid(source.nodes[kept], np.full(3, 1 / 3))
    np.testing.assert_array_equal(transfer(source, target).matrix.toarray(), np.eye(9)[kept])


def test_doubling_the_cells_keeps_every_node():
    coarse, fine = endpoint_grid(17), endpoint_grid(33)
    np.testing.assert_array_equal(transfer(fine, coarse, "cubic").matrix.toarray(), np.eye(33)[::2])
    # The same labels, computed in another way, differ by round-off and are the same nodes.
    other = nodal_grid(np.cumsum(np.full(17, 1 / 48)))
    third = nodal_grid(np.arange(1, 18) / 48)
    assert not np.array_equal(other.nodes, third.nodes)
    np.testing.assert_array_equal(transfer(other, third).matrix.toarray(), np.eye(17))


@given(st.integers(1, 40), st.integers(1, 40), st.booleans(), st.integers(0, 99))
def test_linear_weights_are_convex_so_that_products_stay_bounded(n, m, periodic, seed):
    rng = np.random.default_rng(seed)
    source, target = (nodal_grid(np.sort(rng.random(k)), periodic=periodic) for k in (n, m))
    matrix = transfer(source, target, beyond="clamp").matrix.toarray()
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-12)
    assert abs(transfer(source, target, beyond="clamp").sup_norm() - 1.0) < 1e-12


def test_norms_are_those_of_the_dense_matrix():
    moved = transfer(Grid.interval(9, "gauss"), Grid.interval(13), "cubic")
    dense = moved.matrix.toarray()
    assert moved.sup_norm() == pytest.approx(np.abs(dense).sum(axis=1).max(), rel=1e-14)
    assert moved.sup_norm() > 1.0
    # Power iteration on P* P, independent of the singular values.
    z = np.ones(9)
    for _ in range(400):
        z = moved.apply_adjoint(moved.apply(z))
        z /= moved.source.norm(z)
    assert moved.l2_norm() == pytest.approx(moved.target.norm(moved.apply(z)), rel=1e-10)
    assert transfer(endpoint_grid(9), endpoint_grid(31)).sup_norm() == pytest.approx(1.0, abs=1e-14)
    extrapolated = transfer(Grid.interval(8), Grid.interval(16)).sup_norm()
    assert extrapolated == pytest.approx(1.5)  # the outer nodes lie a quarter of a cell beyond the last


@pytest.mark.parametrize("kind", ["linear", "cubic"])
def test_adjoint_is_that_of_weighted_square_integrable_fields(kind):
    rng = np.random.default_rng(1)
    moved = transfer(Grid.interval(11, "chebyshev"), Grid.interval(17, "gauss"), kind)
    z, p = rng.standard_normal((3, 11)), rng.standard_normal((3, 17))
    left = moved.target.inner(moved.apply(z), p)
    np.testing.assert_allclose(left, moved.source.inner(z, moved.apply_adjoint(p)), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(moved.apply(z)[1], moved.apply(z[1]))


def test_cell_weights_are_the_trapezoidal_and_the_midpoint_rule():
    np.testing.assert_allclose(endpoint_grid(5).weights, [0.125, 0.25, 0.25, 0.25, 0.125])
    np.testing.assert_allclose(nodal_grid(Grid.interval(7).nodes).weights, np.full(7, 1 / 7))
    np.testing.assert_allclose(nodal_grid(Grid.circle(7).nodes, periodic=True).weights, np.full(7, 1 / 7))
    sizes, errors = (50, 100, 200, 400), []
    for n in sizes:
        s = np.linspace(0.0, 1.0, n)
        grid = nodal_grid(s + 0.1 * np.sin(np.pi * s) ** 2)
        errors.append(abs(grid.integrate(np.exp(grid.nodes)) - (np.e - 1)))
    assert abs(observed_order(1 / np.array(sizes), errors).order - 2) <= 0.1


BAD = [
    (lambda: transfer(endpoint_grid(5), Grid.circle(5)), "period"),
    (lambda: transfer(endpoint_grid(5), Grid.square(5)), "dim = 1 and 2"),
    (lambda: transfer(Grid.random(9, dim=2), Grid.square(3)), "source grid of dim = 2 is no tensor product"),
    (lambda: Transfer(endpoint_grid(5), endpoint_grid(4), "quintic"), "kind must be one of linear, cubic"),
    (lambda: Transfer(endpoint_grid(5), endpoint_grid(4), beyond="wrap"), "beyond must be one of"),
    (lambda: transfer(endpoint_grid(5), endpoint_grid(4)).apply(np.ones(4)), r"\(4,\).*length 5"),
    (lambda: transfer(Grid([0.5, 0.5], [0.5, 0.5]), endpoint_grid(4)), "nodes of the source must differ"),
    (lambda: nodal_grid([0.2, 0.1]), "increase strictly"),
    (lambda: nodal_grid([0.2, 1.1]), "within"),
    (lambda: nodal_grid([0.2, 1.0], periodic=True), r"\[0, 1\)"),
    (lambda: nodal_grid([]), "increase strictly"),
    (lambda: endpoint_grid(0), "n must be a positive integer, got 0"),
]


@pytest.mark.parametrize(("call", "words"), BAD, ids=[b[1][:25] for b in BAD])
def test_bad_grids_are_refused(call, words):
    with pytest.raises(ConfigError, match=words):
        call()
