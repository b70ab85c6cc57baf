"""Atoms of a law and fluctuations over seeds, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.diagnostics.atoms import find_atoms
from meanfield.diagnostics.fluctuations import coupling_distance, mean_over_seeds, scaled_variance
from meanfield.errors import ConfigError

RNG = np.random.default_rng(9)


def test_tanh_flow_gathers_at_the_zero_of_the_velocity():
    # v = tanh(w x + b), w < 0: sinh(w x + b) = e^(w t) sinh(w x0 + b), all mass to -b/w.
    w, b, t = -2.0, 0.6, 12.0
    x0 = RNG.standard_normal(5000)
    x = (np.arcsinh(np.exp(w * t) * np.sinh(w * x0 + b)) - b) / w
    atoms = find_atoms(x, radius=1e-3, start=x0)
    assert len(atoms.place) == 1
    assert abs(atoms.place[0] + b / w) < 1e-8
    assert np.isclose(atoms.mass[0], 1.0)
    np.testing.assert_array_equal(atoms.basin[0], [x0.min(), x0.max()])
    assert atoms.rest == 0.0


def test_relu_flow_leaves_the_frozen_mass_outside_the_atom():
    # v = (w x + b)_+, w < 0: what starts at w x + b > 0 ends at -b/w, the rest stays.
    w, b = -1.0, 0.5
    x0 = np.concatenate([RNG.uniform(-2, 0.4, 3000), RNG.uniform(1.0, 3.0, 1000)])
    x = np.where(w * x0 + b > 0, -b / w - 1e-9 * (-b / w - x0), x0)
    atoms = find_atoms(x, radius=1e-6, start=x0, least_mass=0.01)
    assert np.isclose(atoms.mass.sum(), 0.75)
    assert np.isclose(atoms.rest, 0.25)
    assert abs(atoms.place[0] - 0.5) < 1e-8
    assert atoms.basin[0, 1] <= 0.4


def test_places_masses_and_widths_of_weighted_clusters():
    centres, masses = np.array([-1.0, 2.0, 1e6]), np.array([0.2, 0.5, 0.3])
    x = np.concatenate([c + 1e-7 * RNG.uniform(-1, 1, 50) for c in centres])
    atoms = find_atoms(x, radius=1e-5, weights=np.repeat(masses / 50, 50))
    np.testing.assert_allclose(atoms.mass, masses, rtol=1e-12)
    np.testing.assert_allclose(atoms.place, [x[i : i + 50].mean() for i in (0, 50, 100)], rtol=1e-15)
    assert (atoms.width <= 2e-7).all()
    assert np.isnan(atoms.basin).all()


def test_spread_mass_is_no_atom():
    atoms = find_atoms(RNG.uniform(0, 1, 10000), radius=1e-2)
    assert len(atoms.place) == 0
    assert np.isclose(atoms.rest, 1.0)


def test_intervals_of_fluctuations_cover_as_often_as_they_say():
    n, draws, covered = 400, 400, np.zeros(2)
    for _ in range(draws):
        means = RNG.standard_normal((25, n)).mean(axis=1) * 1.5 + 0.3
        covered += [scaled_variance(means, n).covers(1.5**2), mean_over_seeds(means).covers(0.3)]
    assert (np.abs(covered / draws - 0.95) <= 3 * np.sqrt(0.95 * 0.05 / draws)).all()


def test_bad_arguments_are_refused():
    with pytest.raises(ConfigError, match="radius must be > 0"):
        find_atoms([0.0], radius=0.0)
    with pytest.raises(ConfigError, match="at least one particle"):
        find_atoms([], radius=1.0)
    with pytest.raises(ConfigError, match=r"start has shape \(1,\), expected \(2\)"):
        find_atoms([0.0, 1.0], radius=1.0, start=[0.0])
    with pytest.raises(ConfigError, match="weights must be >= 0"):
        find_atoms([0.0, 1.0], radius=1.0, weights=[0.0, -1.0])
    with pytest.raises(ConfigError, match="at least two seeds, got 1"):
        scaled_variance([1.0], 10)
    with pytest.raises(ConfigError, match="confidence must be < 1"):
        mean_over_seeds([1.0, 2.0], confidence=1.0)


def test_distance_along_coupled_paths():
    many = np.arange(10.0).reshape(2, 5)
    few = many[:, :3] + np.array([[3.0], [4.0]])
    assert abs(coupling_distance(few, many) - 5.0) < 1e-14
    assert coupling_distance(many, many) == 0.0
    with pytest.raises(ConfigError, match="few has 5 particles, but many has 3"):
        coupling_distance(many, few)


@pytest.mark.parametrize("radius", [1e-2, 1e-3, 1e-4])
def test_an_atom_inside_continuous_mass_is_found_and_nothing_else(radius):
    x = np.maximum(np.random.default_rng(3).standard_normal(20_000), 0.0)
    found = find_atoms(x, radius=radius, least_mass=1e-3)
    assert len(found.place) == 1
    assert abs(found.place[0]) < radius
    assert abs(found.mass[0] - np.mean(x == 0.0)) < 0.02
    assert abs(found.rest + found.mass[0] - 1.0) < 1e-12
    assert len(find_atoms(np.random.default_rng(3).standard_normal(20_000), radius=radius).place) == 0


def test_particles_without_mass_do_not_count():
    found = find_atoms([0.0, 0.5, 1.0], radius=0.6, weights=[1.0, 0.0, 0.0])
    np.testing.assert_array_equal(found.place, [0.0])
