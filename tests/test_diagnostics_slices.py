"""Distances of laws slice by slice over depth."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.diagnostics.wasserstein import depth_distances, sliced_wasserstein
from meanfield.errors import ConfigError

RNG = np.random.default_rng(5)


def test_each_slice_has_its_sliced_distance_and_the_mean_is_that_of_squares():
    first, second = RNG.standard_normal((2, 3, 20, 4))
    found = depth_distances(first, second, directions=16)
    each = [sliced_wasserstein(a, b, 2, 16) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(found.values, each, rtol=1e-13)
    np.testing.assert_allclose(found.centres, [1 / 6, 1 / 2, 5 / 6], rtol=1e-13)
    assert found.mean == pytest.approx(np.sqrt(np.mean(np.square(each))), rel=1e-13)


def test_shifts_on_the_line_are_their_own_distance_whatever_the_order_of_the_neurons():
    cloud, shift = RNG.standard_normal((4, 30, 1)), np.array([0.0, -1.0, 2.0, 0.5])
    moved = RNG.permuted(cloud + shift[:, None, None], axis=1)
    for p in (1, 2):
        np.testing.assert_allclose(depth_distances(cloud, moved, p).values, np.abs(shift), atol=1e-13)


def test_layers_of_different_numbers_are_matched_by_their_depth():
    # Layers at 0, 1 (thirds: 0, 5, 7), constant on [0, 1/3], [1/3, 1/2], [1/2, 2/3], [2/3, 1].
    two = np.array([0.0, 1.0]).reshape(2, 1, 1)
    three = np.array([0.0, 5.0, 7.0]).reshape(3, 1, 1)
    found = depth_distances(two, three)
    np.testing.assert_allclose(found.edges, [0, 1 / 3, 1 / 2, 2 / 3, 1], rtol=1e-15)
    np.testing.assert_allclose(found.values, [0, 5, 4, 6], atol=1e-14)
    assert found.mean == pytest.approx(np.sqrt((25 + 16) / 6 + 36 / 3), rel=1e-14)
    assert depth_distances(three, two).mean == pytest.approx(found.mean, rel=1e-14)


def test_repeating_layers_or_neurons_changes_no_distance():
    first, second = RNG.standard_normal((2, 3, 8, 4))
    mean = depth_distances(first, second).mean
    assert depth_distances(np.repeat(first, 4, axis=0), second).mean == pytest.approx(mean, rel=1e-12)
    assert depth_distances(np.repeat(first, 3, axis=1), second).mean == pytest.approx(mean, rel=1e-12)


def test_bad_arguments_are_refused():
    cloud = np.zeros((2, 3, 4))
    with pytest.raises(ConfigError, match=r"second has shape \(3, 4\), expected \(any, any, any\)"):
        depth_distances(cloud, cloud[0])
    with pytest.raises(ConfigError, match=r"first has no points: its shape is \(0, 3, 4\)"):
        depth_distances(cloud[:0], cloud)
    with pytest.raises(ConfigError, match="x has dimension 4, but y has dimension 2"):
        depth_distances(cloud, cloud[:, :, :2])
    with pytest.raises(ConfigError, match="p must be 1 or 2"):
        depth_distances(cloud, cloud, 3)
