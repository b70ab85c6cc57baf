"""Grids: quadrature orders, |Omega| = 1, refinement, bad sizes."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.errors import ConfigError, ResourceError
from meanfield.grids import Grid


def smooth(x):
    return np.exp(np.sin(3 * x)) * (1 + x)


EXACT = float(np.polynomial.legendre.leggauss(80)[1] @ smooth(0.5 + 0.5 * np.polynomial.legendre.leggauss(80)[0]) / 2)
ALL = [
    Grid.interval(9),
    Grid.interval(9, "gauss"),
    Grid.interval(9, "chebyshev"),
    Grid.circle(9),
    Grid.square(4, "gauss"),
    Grid.torus(4),
    Grid.random(9, 3, 1),
]


@pytest.mark.parametrize("grid", ALL, ids=lambda g: f"{g.rule}{g.dim}")
def test_weights_are_positive_with_sum_one(grid):
    assert abs(grid.weights.sum() - 1) < 1e-14
    assert (grid.weights > 0).all()
    assert int(np.prod(grid.shape)) == grid.n_nodes
    assert (grid.nodes >= 0).all()
    assert (grid.nodes <= 1).all()


def test_midpoint_rule_is_second_order():
    errors = [abs(g.integrate(smooth(g.nodes)) - EXACT) for g in (Grid.interval(n) for n in (64, 128, 256, 512))]
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(slopes - 2) <= 0.1), slopes


@pytest.mark.parametrize("rule", ["gauss", "chebyshev"])
def test_gauss_and_chebyshev_are_spectral(rule):
    errors = [abs(g.integrate(smooth(g.nodes)) - EXACT) for g in (Grid.interval(n, rule) for n in (4, 8, 16, 32))]
    assert errors[-1] < 1e-12, errors
    assert errors[1] < errors[0] / 30
    square = Grid.square(20, rule)
    assert abs(square.integrate(np.exp(square.nodes @ [1.0, -2.0])) - (np.e - 1) * (1 - np.exp(-2)) / 2) < 1e-13


def test_gauss_integrates_polynomials_of_degree_2n_minus_1_exactly():
    for n in (1, 2, 5, 9):
        g = Grid.interval(n, "gauss")
        assert abs(g.integrate(g.nodes ** (2 * n - 1)) - 1 / (2 * n)) < 1e-15
        assert abs(g.integrate(g.nodes ** (2 * n)) - 1 / (2 * n + 1)) > 1e-12


def test_circle_and_torus_are_spectral_on_periodic_functions():
    exact = np.i0(1.0)
    errors = [abs(g.integrate(np.exp(np.cos(2 * np.pi * g.nodes))) - exact) for g in map(Grid.circle, (4, 8, 12, 16))]
    assert errors[-1] < 1e-14
    assert errors[0] > 1e-4
    g = Grid.torus(16)
    assert abs(g.integrate(np.exp(np.cos(2 * np.pi * g.nodes).sum(axis=1))) - exact**2) < 1e-13


def test_random_labels_converge_as_the_square_root():
    sizes = np.array([100, 400, 1600, 6400])
    rms = [
        np.sqrt(
            np.mean(
                [(g.integrate(smooth(g.nodes)) - EXACT) ** 2 for g in (Grid.random(int(n), seed=s) for s in range(400))]
            )
        )
        for n in sizes
    ]
    slope = np.polyfit(np.log(sizes), np.log(rms), 1)[0]
    assert abs(slope + 0.5) <= 0.1, (slope, rms)


def test_refinement_doubles_and_keeps_the_family():
    for grid in ALL[:-1]:
        fine = grid.refine()
        assert fine.rule == grid.rule
        assert fine.shape == tuple(2 * s for s in grid.shape)
    with pytest.raises(ConfigError, match="random"):
        ALL[-1].refine()


def test_inner_products_and_norms():
    g = Grid.interval(40, "gauss")
    f = np.stack([g.nodes, g.nodes**2])
    np.testing.assert_allclose(g.norm(f), [np.sqrt(1 / 3), np.sqrt(1 / 5)], rtol=1e-14)
    np.testing.assert_allclose(g.inner(f, g.nodes), [1 / 3, 1 / 4], rtol=1e-14)


@pytest.mark.parametrize("make", [Grid.interval, Grid.circle, Grid.square, Grid.torus, Grid.random])
def test_bad_sizes_are_refused(make):
    for n in (0, -3, 2.5, "8"):
        with pytest.raises(ConfigError, match="n must be a positive integer"):
            make(n)
    with pytest.raises(ConfigError, match="n must be a positive integer, got the bool"):
        make(True)
    with pytest.raises(ResourceError, match=r"estimated .* GiB.*limit"):
        make(10**12)


def test_bad_nodes_are_refused():
    with pytest.raises(ConfigError, match="3 nodes, 2 weights"):
        Grid([0.0, 0.5, 1.0], [0.5, 0.5])
    with pytest.raises(ConfigError, match=r"nodes must be finite.*\(1,\)"):
        Grid([0.0, np.inf], [0.5, 0.5])
    with pytest.raises(ConfigError, match="complex"):
        Grid([0.0, 1j], [0.5, 0.5])
    with pytest.raises(ConfigError, match="sum 1"):
        Grid([0.0, 1.0], [0.5, 0.6])
    with pytest.raises(ConfigError, match="rule must be one of"):
        Grid.interval(4, "simpson")
