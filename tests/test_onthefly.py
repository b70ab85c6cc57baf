"""Kernels evaluated in the loop: every profile, feature and precision against the dense matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest

from meanfield.errors import ConfigError
from meanfield.grids import Grid
from meanfield.operators.dense import Dense
from meanfield.operators.onthefly import OnTheFly
from meanfield.operators.radial import PROFILES, RadialKernel
from meanfield.parallel import get_threads, set_threads

RNG = np.random.default_rng(5)
LINE, GAUSS, CIRCLE, SQUARE = Grid.interval(1301), Grid.interval(90, "gauss"), Grid.circle(97), Grid.square(11)


def wave(x):
    return np.sin(9.0 * x) + 0.2 * x


KERNELS = {
    **{name: (LINE, RadialKernel(name, length=0.37, amplitude=-1.3)) for name in PROFILES},
    "features": (GAUSS, RadialKernel("exponential", features=wave)),
    "factors": (GAUSS, RadialKernel("gaussian", left=np.cos, right=lambda y: 1.0 + y * y)),
    "circle": (CIRCLE, RadialKernel("matern32", length=0.2, period=1.0)),
    "cut off": (LINE, RadialKernel("cauchy", length=0.5, cutoff=0.0317)),
    "cut off, features out of order": (LINE, RadialKernel("cauchy", features=wave, cutoff=0.1003)),
    "cut off on the circle": (CIRCLE, RadialKernel("gaussian", period=1.0, cutoff=0.123)),
    "square": (SQUARE, RadialKernel("multiquadric", length=0.3, dim=2)),
    "torus": (Grid.torus(9), RadialKernel("gaussian", length=0.4, dim=2, period=1.0)),
    "one feature of two labels": (
        SQUARE,
        RadialKernel("distance", dim=2, features=lambda x: x[..., 0] - x[..., 1] ** 2),
    ),
    "three features": (GAUSS, RadialKernel("gaussian", features=lambda x: np.stack([x, np.sin(x), x * x], axis=-1))),
    "callable": (GAUSS, lambda x, y: np.exp(x * y) * (x > y)),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("n_samples", [1, 3, 6])
def test_products_are_those_of_the_dense_matrix(name, n_samples):
    grid, kernel = KERNELS[name]
    W, exact = OnTheFly(grid, kernel, local=-0.4), Dense(grid, kernel, local=-0.4)
    z = RNG.standard_normal((n_samples, grid.n_nodes))
    np.testing.assert_allclose(W.apply(z), exact.apply(z), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(W.apply_adjoint(z), exact.apply_adjoint(z), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["gaussian", "logarithm", "features", "callable"])
def test_norm_and_matrix_are_those_of_the_kernel(name):
    grid, kernel = KERNELS[name]
    W, exact = OnTheFly(grid, kernel), Dense(grid, kernel)
    assert np.isclose(W.norm(), exact.norm(), rtol=1e-12)
    np.testing.assert_allclose(W.kernel_matrix(), exact.kernel_matrix(), rtol=1e-13)


@pytest.mark.parametrize("name", [n for n in KERNELS if n not in ("indicator", "callable")])
def test_single_precision_is_accurate_to_its_rounding(name):
    grid, kernel = KERNELS[name]
    z = RNG.standard_normal((2, grid.n_nodes))
    exact = Dense(grid, kernel).apply(z)
    error = np.abs(OnTheFly(grid, kernel, evaluation="float32").apply(z) - exact).max()
    assert 1e-12 < error < 1e-6


def test_gaussian_means_in_closed_form():
    # int_0^1 e^(-(x-y)^2/l^2) dy = l sqrt(pi)/2 (erf(x/l) + erf((1-x)/l)), to the order of the Gauss rule.
    length, grid = 0.3, Grid.interval(60, "gauss")
    found = OnTheFly(grid, RadialKernel("gaussian", length=length)).apply(np.ones(60))
    expected = [
        0.5 * length * math.sqrt(math.pi) * (math.erf(x / length) + math.erf((1 - x) / length)) for x in grid.nodes
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("n_samples", [1, 5])
def test_bytes_do_not_depend_on_threads(n_samples):
    kernel = RadialKernel("exponential", length=0.2)
    z = RNG.standard_normal((n_samples, LINE.n_nodes))
    before, results = get_threads(), []
    try:
        for threads in (1, 2, 3):
            set_threads(threads)
            results.append(OnTheFly(LINE, kernel).apply(z).tobytes())
    finally:
        set_threads(before)
    assert len(set(results)) == 1


def test_bad_kernels_are_refused():
    with pytest.raises(ConfigError, match="profile 'gausian', did you mean 'gaussian'"):
        RadialKernel("gausian")
    with pytest.raises(ConfigError, match="length must be > 0"):
        RadialKernel("gaussian", length=0.0)
    with pytest.raises(ConfigError, match="cutoff must be finite, got nan"):
        RadialKernel("gaussian", cutoff=math.nan)
    with pytest.raises(ConfigError, match="dim = 1, but the grid has dim = 2"):
        OnTheFly(SQUARE, RadialKernel("gaussian"))
    with pytest.raises(ConfigError, match="kernel returned shape"):
        OnTheFly(GAUSS, lambda _x, _y: np.ones(3))
    with pytest.raises(ConfigError, match="features has shape"):
        OnTheFly(GAUSS, RadialKernel("gaussian", features=lambda _x: np.ones(4)))
    with pytest.raises(ConfigError, match="within one period"):
        OnTheFly(GAUSS, RadialKernel("gaussian", period=0.5))
    with pytest.raises(ConfigError, match="2 features"):
        OnTheFly(SQUARE, RadialKernel("gaussian", dim=2, period=(1.0,)))
    with pytest.raises(ConfigError, match="features must be finite"):
        OnTheFly(GAUSS, RadialKernel("gaussian", features=lambda x: np.where(x > 0.5, np.inf, x)))
    with pytest.raises(ConfigError, match="evaluation must be one of"):
        OnTheFly(GAUSS, RadialKernel("gaussian"), evaluation="float16")
