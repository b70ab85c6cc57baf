"""Distances between fields, and interpolation of its nominal order."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.diagnostics.distances import field_distance, interpolate, l2_distance, sup_distance
from meanfield.errors import ConfigError
from meanfield.grids import Grid


def smooth(x):
    return np.exp(np.sin(2 * np.pi * np.asarray(x).reshape(-1)) + 0.3)


@pytest.mark.parametrize("shape", [(13,), (3, 13), (2, 3, 13)])
def test_distances_on_one_grid(shape):
    grid = Grid.interval(13, rule="gauss")
    rng = np.random.default_rng(0)
    f, g = rng.normal(size=shape), rng.normal(size=shape)
    np.testing.assert_allclose(l2_distance(f, g, grid), np.sqrt(((f - g) ** 2 * grid.weights).sum(axis=-1)), rtol=1e-14)
    np.testing.assert_array_equal(sup_distance(f, g, grid), np.abs(f - g).max(axis=-1))
    assert np.shape(l2_distance(f, g, grid)) == shape[:-1]
    assert isinstance(l2_distance(f, g, grid), float) == (len(shape) == 1)


@pytest.mark.parametrize("family", ["interval", "circle"])
@pytest.mark.parametrize(("method", "order"), [("linear", 2.0), ("cubic", 4.0)])
def test_interpolation_has_its_order(family, method, order):
    make = getattr(Grid, family)
    fine = make(40001)
    sizes = np.array([160, 320, 640, 1280])
    errors = [
        sup_distance(interpolate(smooth(make(n).nodes), make(n), fine, method), smooth(fine.nodes), fine) for n in sizes
    ]
    slopes = -np.diff(np.log(errors)) / np.log(2)
    assert abs(np.median(slopes) - order) <= 0.1, (errors, slopes)


@pytest.mark.parametrize("source", [Grid.circle(41), Grid.circle(40)])
def test_trigonometric_interpolation_is_spectral(source):
    target = Grid.circle(333)
    rows = np.stack([smooth(source.nodes), 2 * smooth(source.nodes)])
    got = interpolate(rows, source, target, "spectral")
    np.testing.assert_allclose(got, np.stack([smooth(target.nodes), 2 * smooth(target.nodes)]), atol=1e-12)


def test_polynomial_interpolation_through_gauss_nodes_is_spectral():
    source, target = Grid.interval(40, rule="gauss"), Grid.interval(200)
    got = interpolate(smooth(source.nodes), source, target, "spectral")
    np.testing.assert_allclose(got, smooth(target.nodes), atol=1e-9)
    cubic = np.array([1.0, -2.0, 0.5, 3.0])
    small = Grid.interval(4, rule="gauss")
    np.testing.assert_allclose(
        interpolate(np.polyval(cubic, small.nodes), small, target, "spectral"),
        np.polyval(cubic, target.nodes),
        atol=1e-12,
    )


def test_distance_between_grids_is_seen_on_the_finer_one():
    coarse, fine = Grid.interval(30, rule="gauss"), Grid.interval(200)
    a, b = smooth(coarse.nodes), smooth(fine.nodes) + 0.25
    for method, tol in (("cubic", 1e-3), ("spectral", 1e-6)):
        assert field_distance(a, coarse, b, fine, method) == pytest.approx(0.25, abs=tol)
        assert field_distance(b, fine, a, coarse, method) == field_distance(a, coarse, b, fine, method)
    rows = field_distance(np.stack([a, a]), coarse, np.stack([b, b + 1]), fine, "spectral")
    np.testing.assert_allclose(rows, [0.25, 1.25], atol=1e-6)


def test_distances_refuse_what_cannot_be_compared():
    line, circle, square = Grid.interval(9), Grid.circle(9), Grid.square(3)
    f = np.zeros(9)
    with pytest.raises(ConfigError, match="periodic"):
        interpolate(f, line, circle)
    with pytest.raises(ConfigError, match="one dimension"):
        interpolate(f, square, line)
    with pytest.raises(ConfigError, match="9 nodes"):
        interpolate(np.zeros(8), line, line)
    with pytest.raises(ConfigError, match="9 nodes"):
        l2_distance(f, np.zeros(1), line)
    with pytest.raises(ConfigError, match="spectral"):
        interpolate(f, line, line, "spectral")
    with pytest.raises(ConfigError, match="method"):
        interpolate(f, line, line, "nearest")
