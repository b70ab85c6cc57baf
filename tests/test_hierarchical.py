"""Compressed kernels: products, adjoints and norms to the tolerance, growth with the width, hidden defects."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.errors import ConfigError, NumericalError, ResourceError
from meanfield.grids import Grid
from meanfield.operators import blockwise, cross, hierarchical
from meanfield.operators.clusters import ClusterTree
from meanfield.operators.dense import Dense
from meanfield.operators.hierarchical import Hierarchical
from meanfield.operators.onthefly import OnTheFly
from meanfield.operators.radial import RadialKernel
from meanfield.parallel import get_threads, set_threads

RNG = np.random.default_rng(17)
LINE, CIRCLE, SQUARE = Grid.interval(700), Grid.circle(512), Grid.square(24)


def wave(x):
    return np.sin(5.0 * x) + 0.3 * x


# None is a convolution on the circle; the last has equal values far from the diagonal.
NAMED = {
    "|x - y|": RadialKernel("distance"),
    "log(|x - y| + 1e-3)": RadialKernel("logarithm"),
    "exp(-|a(x) - a(y)|)": RadialKernel("exponential", features=wave),
}
KERNELS = {
    **{name: (LINE, kernel) for name, kernel in NAMED.items()},
    "factors": (LINE, RadialKernel("gaussian", length=0.1, left=lambda x: 1 + x, right=np.cos)),
    "not symmetric": (LINE, lambda x, y: np.sin(9 * x * y) / (0.01 + np.abs(x - y)) * (1 + x)),
    "callable with kinks off the diagonal": (LINE, lambda x, y: np.exp(-np.abs(wave(x) - wave(y))) * (1 + x)),
    "samples": (LINE, np.abs(LINE.nodes[:, None] - LINE.nodes) * LINE.nodes),
    "low rank as a whole": (LINE, RadialKernel("gaussian", length=2.0)),
    "cut off": (LINE, RadialKernel("cauchy", length=0.1, cutoff=0.2003)),
    "circle": (CIRCLE, RadialKernel("exponential", length=0.1, period=1.0)),
    "square, distance": (SQUARE, RadialKernel("distance", dim=2)),
    "square, Gaussian": (SQUARE, RadialKernel("gaussian", length=0.3, dim=2)),
    "square, callable": (SQUARE, lambda x, y: (1 + x[..., 0]) / (1e-3 + np.sum((x - y) ** 2, axis=-1))),
    "zero": (LINE, lambda x, y: 0.0 * x * y),
}


@pytest.fixture(scope="module")
def compressed():
    return {name: Hierarchical(grid, kernel, local=-0.3, leaf=16) for name, (grid, kernel) in KERNELS.items()}


@pytest.mark.parametrize("name", KERNELS)
def test_products_are_those_of_the_kernel_to_the_tolerance(compressed, name):
    grid, kernel = KERNELS[name]
    W, exact = compressed[name], Dense(grid, kernel, local=-0.3)
    z = RNG.standard_normal((3, grid.n_nodes))
    scale = exact.norm() * float(grid.norm(z).max())
    assert grid.norm(W.apply(z) - exact.apply(z)).max() <= 1e-8 * scale
    assert grid.norm(W.apply_adjoint(z) - exact.apply_adjoint(z)).max() <= 1e-8 * scale
    p = RNG.standard_normal((3, grid.n_nodes))
    np.testing.assert_allclose(grid.inner(p, W.apply(z)), grid.inner(W.apply_adjoint(p), z), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in KERNELS if name != "zero"])
def test_measured_error_norm_and_matrix_are_true(compressed, name):
    grid, kernel = KERNELS[name]
    W, exact = compressed[name], Dense(grid, kernel, local=-0.3)
    q, gap = grid.weights, W.kernel_matrix() - exact.kernel_matrix()
    true = np.sqrt(q @ gap**2 @ q) / exact.norm()
    assert true <= 1e-8
    assert np.isclose(W.error, true, rtol=1e-3, atol=1e-15)  # all rows are measured at these sizes
    assert np.isclose(W.norm(), np.sqrt(q @ W.kernel_matrix() ** 2 @ q), rtol=1e-12)


@pytest.mark.parametrize("size", [1e-250, 1e250])
def test_kernels_of_any_size_are_compressed(size):
    small = Hierarchical(LINE, RadialKernel("logarithm", amplitude=size))
    z = RNG.standard_normal(700)
    exact = Dense(LINE, NAMED["log(|x - y| + 1e-3)"])
    assert np.abs(small.apply(z) / size - exact.apply(z)).max() < 1e-8
    assert np.isclose(small.norm(), size * exact.norm(), rtol=1e-8)
    assert 0 < small.error <= 1e-8


def test_error_follows_the_tolerance():
    for tolerance in (1e-3, 1e-6, 1e-10):
        assert Hierarchical(LINE, NAMED["log(|x - y| + 1e-3)"], tolerance).error <= tolerance
    coarse, fine = (Hierarchical(LINE, NAMED["log(|x - y| + 1e-3)"], t, leaf=16) for t in (1e-3, 1e-10))
    assert coarse.error > 1e-3 * fine.tolerance
    assert coarse.nbytes < 0.8 * fine.nbytes


def test_kernels_shown_are_of_no_small_rank():
    n = 1024
    x = Grid.interval(n).nodes
    for kernel in NAMED.values():
        size = np.abs(np.linalg.eigvalsh(kernel(x[:, None], x[None, :])))
        assert (size > 1e-8 * size.max()).sum() > n / 50


def growth(operators):
    """Bytes per label and squared logarithm of the width."""
    return [W.nbytes / (W.grid.n_nodes * np.log2(W.grid.n_nodes) ** 2) for W in operators]


@pytest.mark.parametrize("name", NAMED)
def test_memory_grows_no_faster_than_n_log_squared_n(name):
    operators = [Hierarchical(Grid.interval(n), NAMED[name]) for n in (2048, 8192, 32768)]
    assert (np.diff(growth(operators)) < 0).all()
    assert all(W.error <= 1e-8 for W in operators)


@pytest.mark.parametrize(
    ("sides", "slack"),
    # Clusters at the edge have fewer far ones: small squares grow a little faster than large ones.
    [((64, 128), 1.1), pytest.param((128, 256), 1.0, marks=pytest.mark.full)],
)
def test_memory_of_two_dimensional_labels_grows_no_faster_than_n_log_squared_n(sides, slack):
    small, large = (Hierarchical(Grid.square(m), RadialKernel("distance", dim=2)) for m in sides)
    assert growth([large])[0] < slack * growth([small])[0]
    assert large.nbytes < 0.1 * 8 * large.grid.n_nodes**2


@pytest.mark.full
@pytest.mark.parametrize("name", [*NAMED, "square"])
def test_wide_networks_to_the_tolerance_against_rows_on_the_fly(name):
    grid = Grid.square(256) if name == "square" else Grid.interval(131072)
    kernel = RadialKernel("distance", dim=2) if name == "square" else NAMED[name]
    W, z = Hierarchical(grid, kernel), RNG.standard_normal(grid.n_nodes)
    exact = OnTheFly(grid, kernel).apply(z)
    assert grid.norm(W.apply(z) - exact) <= 1e-8 * grid.norm(exact)


@pytest.mark.parametrize("name", ["not symmetric", "square, Gaussian"])
def test_bytes_do_not_depend_on_threads(compressed, name, monkeypatch):
    monkeypatch.setattr(blockwise, "_TASK", 2**10)
    monkeypatch.setattr(blockwise, "_STRIP", 64)
    grid, kernel = KERNELS[name]
    W, z = Hierarchical(grid, kernel, leaf=16), RNG.standard_normal((2, grid.n_nodes))
    before, results = get_threads(), []
    try:
        for threads in (1, 2, 3):
            set_threads(threads)
            results.append(W.apply(z).tobytes() + W.apply_adjoint(z).tobytes())
    finally:
        set_threads(before)
    assert len(set(results)) == 1
    np.testing.assert_allclose(W.apply(z), compressed[name].apply(z) + 0.3 * z, rtol=1e-9, atol=1e-9)


def test_clusters_hold_every_label_once_and_their_boxes_hold_them():
    points = RNG.random((333, 2))
    tree = ClusterTree.build(points, 10)
    assert sorted(tree.order) == list(range(333))
    for level in range(tree.depth + 1):
        for c in range(len(tree.edges[level]) - 1):
            start, stop = tree.span(level, c)
            inside = points[tree.order[start:stop]]
            assert (inside >= tree.low[level][c]).all()
            assert (inside <= tree.high[level][c]).all()
    assert np.diff(tree.edges[-1]).max() <= 10


def test_a_defect_of_few_entries_is_not_lost(monkeypatch):
    # A spot of 3 x 3 labels far from the diagonal, which samples of rows may miss.
    def spotted(x, y):
        return 1.0 + x * y + 0.5 * ((np.abs(x - 0.2) < 2e-3) & (np.abs(y - 0.85) < 2e-3))

    W = Hierarchical(LINE, spotted)
    assert np.abs(W.kernel_matrix() - Dense(LINE, spotted).kernel_matrix()).max() < 1e-7
    # Without the look at every entry it may be lost, but the measured error tells.
    monkeypatch.setattr(hierarchical, "_MOST_SAMPLES", 1)
    monkeypatch.setattr(cross, "_CHECKED", 1)
    with pytest.raises(NumericalError, match=r"relative error of .* above tolerance"):
        Hierarchical(LINE, spotted)


def test_bad_arguments_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="tolerance must be > 0"):
        Hierarchical(LINE, NAMED["|x - y|"], 0.0)
    with pytest.raises(ConfigError, match="tolerance must be < 1"):
        Hierarchical(LINE, NAMED["|x - y|"], 1.0)
    with pytest.raises(ConfigError, match="leaf must be a positive integer"):
        Hierarchical(LINE, NAMED["|x - y|"], leaf=0)
    with pytest.raises(ConfigError, match="up to 8192 labels, got 8200"):
        Hierarchical(Grid.interval(8200), np.zeros((2, 2)))
    with pytest.raises(ConfigError, match=r"kernel has shape \(3, 3\), expected \(700, 700\)"):
        Hierarchical(LINE, np.zeros((3, 3)))
    with pytest.raises(ConfigError, match="kernel must be finite"):
        Hierarchical(LINE, lambda x, y: np.where(x * y > 0.4, np.inf, 1.0))
    monkeypatch.setattr("meanfield._checks.SMALL", 0)
    monkeypatch.setattr("meanfield._checks.available_bytes", lambda: 2**14)
    with pytest.raises(ResourceError, match="compressed kernel needs an estimated"):
        Hierarchical(LINE, NAMED["|x - y|"])
