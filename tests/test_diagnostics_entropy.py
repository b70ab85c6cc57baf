"""Relative entropy against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from meanfield.diagnostics.entropy import relative_entropy, relative_entropy_of_masses
from meanfield.errors import ConfigError
from meanfield.laws import Law


def test_uniform_laws_in_closed_form():
    narrow, wide = Law.cells([0.25, 0.5], [1.0]), Law.cells([0.0, 0.1, 2.0], [0.1, 1.9])
    assert np.isclose(relative_entropy(narrow, wide), math.log(8.0), rtol=1e-13)
    assert relative_entropy(wide, narrow) == math.inf
    assert abs(relative_entropy(wide, wide)) < 1e-15


def test_normal_laws_on_fine_cells_converge_to_the_closed_form():
    # H(N(a, s^2) | N(0, 1)) = (s^2 + a^2 - 1)/2 - log s
    a, s = 0.4, 0.7
    edges = np.linspace(-9, 9, 20001)
    x = 0.5 * (edges[1:] + edges[:-1])
    first, second = (Law.cells(edges, np.exp(-0.5 * ((x - c) / w) ** 2) / w) for c, w in ((a, s), (0, 1)))
    assert np.isclose(relative_entropy(first, second), 0.5 * (s * s + a * a - 1) - math.log(s), rtol=1e-6)
    masses = relative_entropy_of_masses(first.mass, second.mass)
    assert np.isclose(masses, relative_entropy(first, second), rtol=1e-10)


def test_atoms_have_infinite_relative_entropy():
    assert relative_entropy(Law.particles([0.3]), Law.cells([0, 1], [1])) == math.inf
    assert relative_entropy(Law.cells([0, 1], [1]), Law.particles([0.3])) == math.inf
    assert relative_entropy_of_masses([[0.5, 0.5]], [[1.0, 0.0]]) == math.inf
    assert np.isclose(relative_entropy_of_masses([[0.0, 1.0]], [[0.5, 0.5]]), math.log(2.0))


def test_bad_masses_are_refused():
    with pytest.raises(ConfigError, match="masses has shape"):
        relative_entropy_of_masses([0.5, 0.5], [1.0])
    with pytest.raises(ConfigError, match="reference must be >= 0 with sum 1"):
        relative_entropy_of_masses([0.5, 0.5], [0.5, 0.6])
