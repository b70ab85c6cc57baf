"""Thresholds of leaky networks known in closed form, double crossings, edges of stable regions."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.diagnostics.bifurcation import find_threshold, scan, threshold_curve
from meanfield.diagnostics.spectrum import leading_eigenvalues
from meanfield.errors import ConfigError, NumericalError
from meanfield.grids import Grid
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.convolution import Convolution
from meanfield.operators.dense import Dense


def abscissa(operator, leak):
    model = SpaceTimeNetwork(operator, "tanh", leak=leak)
    return float(leading_eigenvalues(model, np.zeros(model.grid.n_nodes), k=1)[0].real)


def test_cosine_kernel_loses_stability_at_twice_the_leak():
    grid = Grid.circle(32)

    def margin(kappa):
        return abscissa(Convolution(grid, lambda x: kappa * np.cos(2 * np.pi * x)), 0.7)

    found = find_threshold(margin, 0.1, 5.0)
    assert found.parameter == pytest.approx(1.4, abs=1e-8)
    assert found.direction == 1


def test_threshold_without_the_matrix_is_that_of_the_fourier_coefficient():
    # More labels than the dense limit: Arnoldi.
    grid = Grid.circle(1024)
    width = 0.1
    profile = np.exp(-((np.minimum(grid.nodes.ravel(), 1 - grid.nodes.ravel()) / width) ** 2) / 2)
    operator = Convolution(grid, profile)
    found = find_threshold(lambda leak: abscissa(operator, leak), 0.0, 1.0)
    assert found.parameter == pytest.approx(width * np.sqrt(2 * np.pi), abs=1e-6)
    assert found.direction == -1


def test_threshold_of_a_dense_nonsymmetric_kernel_is_its_leading_eigenvalue():
    grid = Grid.interval(30, rule="gauss")
    kernel = np.random.default_rng(3).normal(size=(30, 30))
    leading = np.linalg.eigvals(kernel * grid.weights).real.max()
    found = find_threshold(lambda leak: abscissa(Dense(grid, kernel), leak), 0.0, 10.0)
    assert found.parameter == pytest.approx(leading, abs=1e-8)


def test_scan_finds_crossings_closer_than_its_grid_and_their_directions():
    found = scan(lambda x: (x - 0.31) * (x - 0.33) * (x - 2.0), 0.0, 3.0, n_points=13).thresholds
    np.testing.assert_allclose([f.parameter for f in found], [0.31, 0.33, 2.0], atol=1e-8)
    assert [f.direction for f in found] == [1, -1, 1]


def test_touching_zero_is_no_crossing():
    assert scan(lambda x: 0.2 + x**2, -1.0, 1.0).thresholds == ()
    assert [f.direction for f in scan(lambda x: x**2, -1.0, 1.0).thresholds] == [0]


def test_edge_of_the_stable_region_is_its_curve():
    edge = threshold_curve(lambda p, q: q - p**2, [0.5, 1.0, 9.0], 0.0, 2.0)
    np.testing.assert_allclose(edge[:2], [0.25, 1.0], atol=1e-8)
    assert np.isnan(edge[2])


def test_margins_that_cannot_be_bracketed_are_refused():
    with pytest.raises(ConfigError, match="change sign"):
        find_threshold(lambda x: 1 + x**2, -1.0, 1.0)
    with pytest.raises(ConfigError, match="below high"):
        find_threshold(lambda x: x, 1.0, -1.0)
    with pytest.raises(NumericalError, match="margin is nan"):
        find_threshold(lambda x: np.nan, -1.0, 1.0)
