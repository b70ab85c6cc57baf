"""Pseudospectral abscissae in closed form; where the spectrum says nothing, they do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm

from meanfield.diagnostics.pseudospectrum import (
    kreiss_lower_bound,
    numerical_abscissa,
    pseudospectral_abscissa,
    pseudospectral_lower_bound,
)
from meanfield.errors import ConfigError

RNG = np.random.default_rng(8)
ROTATION, _ = np.linalg.qr(RNG.normal(size=(20, 20)))
SYMMETRIC = ROTATION @ np.diag(RNG.normal(size=20)) @ ROTATION.T


@pytest.mark.parametrize("epsilon", [1e-6, 1e-2, 1.0])
def test_normal_matrices_reach_eps_beyond_their_spectrum(epsilon):
    weights = RNG.uniform(0.5, 2.0, 20)
    root = np.sqrt(weights)
    skew = SYMMETRIC * np.triu(np.ones((20, 20)), 1)
    for similar, abscissa in ((SYMMETRIC, np.linalg.eigvalsh(SYMMETRIC)[-1]), (skew - skew.T, 0.0)):
        found = pseudospectral_abscissa(similar * (root / root[:, None]), epsilon, weights=weights)
        assert found.value == pytest.approx(abscissa + epsilon, abs=1e-9)
        assert found.converged


@pytest.mark.parametrize(("coupling", "epsilon"), [(1.0, 1e-6), (1.0, 0.01), (5.0, 0.3)])
def test_a_jordan_block_reaches_the_root_of_eps(coupling, epsilon):
    found = pseudospectral_abscissa([[-1.0, coupling], [0.0, -1.0]], epsilon)
    assert found.value == pytest.approx(-1 + np.sqrt(epsilon**2 + coupling * epsilon), abs=1e-9)


def test_criss_cross_finds_the_edge_that_a_grid_of_singular_values_shows():
    a = RNG.normal(size=(24, 24)) / 5
    found = pseudospectral_abscissa(a, 0.2)
    heights = np.linspace(-2, 2, 401)

    def depth(x):
        return min(np.linalg.svd(a - (x + 1j * y) * np.eye(24), compute_uv=False)[-1] for y in heights)

    assert depth(found.value + 1e-3) > 0.2
    at_point = np.linalg.svd(a - found.point * np.eye(24), compute_uv=False)[-1]
    assert at_point == pytest.approx(0.2, abs=1e-8)


def test_lower_bound_without_the_matrix_meets_the_dense_abscissa():
    n = 80
    a = RNG.normal(size=(n, n)) / 9
    weights = RNG.uniform(0.5, 1.5, n) / n
    adjoint = a.T * weights / weights[:, None]
    found = pseudospectral_lower_bound(lambda v: a @ v, lambda v: adjoint @ v, weights, 0.1, rtol=1e-6)
    dense = pseudospectral_abscissa(a, 0.1, weights=weights).value
    assert dense - 1e-4 <= found.value <= dense + 1e-9


def test_volterra_kernel_has_the_spectrum_zero_and_grows():
    n = 60
    volterra = (np.tril(np.ones((n, n)), -1)) / n
    assert np.abs(np.linalg.eigvals(volterra)).max() == 0.0
    assert pseudospectral_abscissa(volterra, 1e-3).value > 0.1
    # <z, V z> = (int z)^2/2 for the continuous operator.
    assert numerical_abscissa(volterra) == pytest.approx(0.5 * (1 - 1 / n), rel=1e-9)


def test_kreiss_constant_is_below_the_transient_growth_it_bounds():
    a = np.array([[-1.0, 20.0], [0.0, -2.0]])
    found = kreiss_lower_bound(a)
    growth = max(np.linalg.norm(expm(a * t), 2) for t in np.linspace(0, 3, 61))
    assert 3.0 < found.value <= growth
    assert kreiss_lower_bound(-np.eye(3)).value == pytest.approx(1.0)
    assert kreiss_lower_bound(np.diag([1.0, -1.0])).value == np.inf


def test_matrices_and_weights_that_cannot_be_used_are_refused():
    with pytest.raises(ConfigError, match="square"):
        numerical_abscissa(np.ones((2, 3)))
    with pytest.raises(ConfigError, match="weights"):
        numerical_abscissa(np.eye(2), [1.0, 0.0])
    with pytest.raises(ConfigError, match="epsilon"):
        pseudospectral_abscissa(np.eye(2), 0.0)
