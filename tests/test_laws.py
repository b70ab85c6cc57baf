"""Laws on the line and their Wasserstein distances: closed forms, linear programs, atoms, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.special import ndtri
from scipy.stats import wasserstein_distance

from meanfield.diagnostics.rates import observed_order
from meanfield.diagnostics.wasserstein import particle_distance, sliced_wasserstein, wasserstein
from meanfield.errors import ConfigError
from meanfield.laws import Law

RNG = np.random.default_rng(6)


def uniform(a, b, n=7):
    return Law.cells(np.linspace(a, b, n + 1), np.ones(n))


def test_distances_of_uniform_laws_in_closed_form():
    # Q(u) - R(u) = (a - c) + (b - a - d + c) u
    for (a, b), (c, d) in [((0, 1), (3, 4)), ((0, 1), (0, 2)), ((-1, 1), (-3, 3)), ((0, 1), (0.2, 0.4))]:
        f, s = a - c, (b - a) - (d - c)
        u = np.linspace(0, 1, 400001)
        assert np.isclose(
            wasserstein(uniform(a, b), uniform(c, d, 11), 2), np.sqrt(f * f + f * s + s * s / 3), rtol=1e-12
        )
        assert np.isclose(wasserstein(uniform(a, b), uniform(c, d, 5), 1), np.abs(f + s * u).mean(), rtol=1e-5)


def test_distance_to_an_atom_is_the_moment_about_it():
    law = Law.cells([0.0, 0.5, 2.0], [0.3, 0.7])
    atom = Law.particles([0.4])
    assert np.isclose(wasserstein(law, atom, 2) ** 2, law.moment(2, 0.4), rtol=1e-13)


@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=7),
    st.lists(st.floats(-5, 5), min_size=1, max_size=7),
    st.integers(0, 2**20),
)
def test_weighted_particles_against_scipy_and_a_linear_program(x, y, seed):
    x, y, rng = np.array(x), np.array(y), np.random.default_rng(seed)
    m, n = rng.dirichlet(np.ones(len(x))), rng.dirichlet(np.ones(len(y)))
    first, second = Law.particles(x, m), Law.particles(y, n)
    assert np.isclose(wasserstein(first, second), wasserstein_distance(x, y, m, n), rtol=1e-9, atol=1e-12)
    cost = ((x[:, None] - y) ** 2).ravel()
    rows = np.vstack([np.kron(np.eye(len(x)), np.ones(len(y))), np.kron(np.ones(len(x)), np.eye(len(y)))])
    plan = linprog(cost, A_eq=rows[:-1], b_eq=np.concatenate([m, n])[:-1])
    assert np.isclose(wasserstein(first, second, 2) ** 2, plan.fun, rtol=1e-6, atol=1e-7)


def test_equal_numbers_of_particles_are_matched_in_order():
    x, y = RNG.standard_normal((2, 1000))
    for p in (1, 2):
        assert np.isclose(particle_distance(x, y, p), wasserstein(Law.particles(x), Law.particles(y), p), rtol=1e-12)


@pytest.mark.parametrize("p", [1, 2])
def test_distance_is_a_metric_and_moves_with_shifts_and_scales(p):
    a, b, c = (Law.particles(RNG.standard_normal(n)) for n in (5, 17, 40))
    assert wasserstein(a, a, p) == 0.0
    assert np.isclose(wasserstein(a, b, p), wasserstein(b, a, p), rtol=1e-13)
    assert wasserstein(a, c, p) <= wasserstein(a, b, p) + wasserstein(b, c, p) + 1e-12
    moved = Law(a.mass, 3 * a.left + 2, 3 * a.right + 2)
    other = Law(b.mass, 3 * b.left + 2, 3 * b.right + 2)
    assert np.isclose(wasserstein(moved, other, p), 3 * wasserstein(a, b, p), rtol=1e-12)


def test_cells_of_a_normal_law_converge_to_its_quantiles_with_order_one():
    errors, sizes = [], (20, 40, 80, 160, 320)
    exact = Law.particles(ndtri((np.arange(200000) + 0.5) / 200000))
    for n in sizes:
        edges = np.linspace(-6, 6, n + 1)
        middle = 0.5 * (edges[1:] + edges[:-1])
        masses = np.exp(-0.5 * middle**2)
        # Mass at the middle of each cell, as a first-order scheme would have it.
        errors.append(wasserstein(Law.particles(middle, masses), exact))
    assert abs(observed_order(1 / np.array(sizes), errors).order - 1.0) <= 0.1


def test_moments_entropy_and_support():
    law = uniform(1.0, 3.0)
    assert np.isclose(law.mean(), 2.0)
    assert np.isclose(law.variance(), 4 / 12)
    assert np.isclose(law.moment(3), (3**4 - 1) / 8)
    assert np.isclose(law.entropy(), np.log(2.0))
    assert law.support() == (1.0, 3.0)
    halves = Law.particles([0.0, 1.0, 5.0], [0.01, 0.98, 0.01])
    assert halves.support(0.02) == (1.0, 1.0)
    assert halves.entropy() == -np.inf
    assert np.isclose(halves.moment(2), 0.98 + 0.25)


def test_sliced_distance_of_a_shift_and_of_a_turn():
    x = RNG.standard_normal((500, 2))
    shift = np.array([0.3, -0.4])
    # W_2 of the projections is |shift . e|: the mean square over angles is |shift|^2/2.
    assert np.isclose(sliced_wasserstein(x, x + shift, 2), 0.5 / np.sqrt(2), rtol=1e-12)
    assert np.isclose(sliced_wasserstein(x, x + shift, 1, 4096), 0.5 * 2 / np.pi, rtol=1e-6)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    y = RNG.standard_normal((300, 2)) * [2.0, 0.3]
    assert np.isclose(sliced_wasserstein(x, y), sliced_wasserstein(x @ turn, y @ turn), rtol=1e-12)
    z = RNG.standard_normal((100, 5))
    assert sliced_wasserstein(z, z) == 0.0


def test_bad_laws_are_refused():
    with pytest.raises(ConfigError, match=r"mass must be >= 0 with sum 1, got sum 0\.9"):
        Law([0.4, 0.5], [0, 1], [1, 2])
    with pytest.raises(ConfigError, match="stand in order"):
        Law([0.5, 0.5], [0, 1], [1.5, 2])
    with pytest.raises(ConfigError, match="weights must be >= 0 with a positive sum"):
        Law.particles([0, 1], [-1, 2])
    with pytest.raises(ConfigError, match="mass must be >= 0 with sum 1, got sum 0"):
        Law.particles([])
    with pytest.raises(ConfigError, match=r"masses has shape \(3,\), expected \(2\)"):
        Law.cells([0, 1, 2], [1, 1, 1])
    with pytest.raises(ConfigError, match="x must be finite"):
        Law.particles([0, np.nan])
    with pytest.raises(ConfigError, match="p must be 1 or 2"):
        wasserstein(uniform(0, 1), uniform(0, 1), 3)
    with pytest.raises(ConfigError, match="x has length 2, but y has length 3"):
        particle_distance([0, 1], [0, 1, 2])
    with pytest.raises(ConfigError, match="x has dimension 2, but y has dimension 3"):
        sliced_wasserstein(np.zeros((4, 2)), np.zeros((4, 3)))


def test_distances_against_exact_optimal_transport_of_small_sets():
    ot = pytest.importorskip("ot")
    rng = np.random.default_rng(5)
    for n, m in ((7, 7), (12, 30)):
        x, y = rng.standard_normal((n, 1)), 1.5 * rng.standard_normal((m, 1)) + 0.3
        for p, metric in ((1, "euclidean"), (2, "sqeuclidean")):
            exact = ot.emd2(np.full(n, 1 / n), np.full(m, 1 / m), ot.dist(x, y, metric))
            found = wasserstein(Law.particles(x[:, 0]), Law.particles(y[:, 0]), p) ** p
            np.testing.assert_allclose(found, exact, rtol=1e-10)
        x, y = rng.standard_normal((n, 2)), rng.standard_normal((m, 2)) @ [[1.0, 0.4], [0.0, 0.7]]
        exact = np.sqrt(ot.emd2(np.full(n, 1 / n), np.full(m, 1 / m), ot.dist(x, y)))
        sliced = sliced_wasserstein(x, y)
        angle = (np.arange(64) + 0.5) * np.pi / 64
        lines = np.stack([np.cos(angle), np.sin(angle)])
        same = ot.sliced_wasserstein_distance(x, y, projections=lines)
        assert abs(sliced - same) < 1e-12
        assert 0.3 * exact < sliced < exact


def test_odd_clouds_of_particles_are_refused():
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ConfigError, match="finite"):
            particle_distance([0.0, bad, 1.0], [0.0, 1.0, 2.0])
    with pytest.raises(ConfigError, match="no particles"):
        sliced_wasserstein(np.empty((0, 2)), np.zeros((3, 2)))
