"""Kernels compressed on a tree of clusters: products in O(N log N) to a stated tolerance.

Blocks of the kernel between clusters that are far enough apart have small numerical rank;
the rest is split until it is small, and kept as it is (Hackbusch, "A sparse matrix
arithmetic based on H-matrices", Computing 62, 1999).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, finite_float, positive_int
from meanfield.errors import ConfigError, NumericalError
from meanfield.grids import Grid
from meanfield.operators.base import IntegralOperator, kernel_block
from meanfield.operators.blockwise import Block, BlockMatrix
from meanfield.operators.clusters import ClusterTree, children
from meanfield.operators.cross import Entries, LowRank, cross_approximation
from meanfield.operators.radial import RadialKernel

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# Samples of a kernel are compressed up to this many labels; beyond, give its formula. Up to so many, every entry
# of a kernel of which nothing is known is looked at.
_MOST_SAMPLES = 8192
# Boxes are apart when the smaller diameter is at most this many distances.
_ETA = 3.0
_MAX_RANK = 64
# Shares of the tolerance for the crosses, and for what is cut from them afterwards.
_CROSSES, _TRUNCATION = 0.1, 0.2
# Levels on which every block is tried, touching or not: a smooth kernel has low rank as a whole.
_TOP_LEVELS = 2
# Values between this and its inverse can be squared and summed.
_SAFE = 1e-100
# Numbers held at once while blocks are approximated, and kernel values while the error is measured.
_BATCH = 2**23
_MEASURED = 2**22


class Hierarchical(IntegralOperator):
    """Integral operator with a kernel compressed to a tolerance.

    A product takes O(r N log N), r the rank of the blocks; memory grows alike (`nbytes`).

    Parameters
    ----------
    grid
        Grid of the labels, of any dimension; one and two are what it is made for.
    kernel
        A `RadialKernel` (clustered by its features), a NumPy-vectorised callable w(x, y) as for `Dense`, or its
        samples (N, N) up to N = 8192 (clustered by labels). Of these two every entry is compared up to N = 8192;
        beyond, a callable is sampled, and a kink of few entries away from the diagonal may go unnoticed: write
        such a kernel as a `RadialKernel` of its features.
    tolerance
        Error allowed in the Hilbert-Schmidt norm, relative to that of the kernel. It is measured at rows drawn at
        random and kept as `error`.
    local
        Coefficient of the local part.
    leaf
        Clusters of at most so many labels are not split.

    Raises
    ------
    ConfigError
        For a kernel that does not fit the grid, samples of more than 8192 labels, or values that are not finite.
    NumericalError
        If the error measured is larger than the tolerance.
    ResourceError
        If the blocks do not fit into memory.
    """

    kind = "hierarchical"

    def __init__(self, grid: Grid, kernel: Any, tolerance: float = 1e-8, local: float = 0.0, *, leaf: int = 64) -> None:
        super().__init__(grid, local)
        self.tolerance = finite_float("tolerance", tolerance, above=0.0)
        if self.tolerance >= 1.0:
            raise ConfigError(f"tolerance must be < 1, got {tolerance!r}")
        self._source = _source(grid, kernel)
        self.kernel = kernel
        self.leaf = positive_int("leaf", leaf)
        tree = ClusterTree.build(self._source.points, self.leaf)
        self._order = tree.order
        self._blocks = _compress(tree, self._source, self.tolerance)
        self.error = self._measured_error()
        """Relative error in the Hilbert-Schmidt norm, measured at random rows."""
        if not self.error <= self.tolerance:
            raise NumericalError(
                f"the compressed kernel has a relative error of {self.error:.2g}, above tolerance = {tolerance:g}: "
                "round-off, or a kernel with kinks or oscillations within the clusters; use OnTheFly, a RadialKernel "
                "of its features, or a larger tolerance"
            )

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks."""
        return self._blocks.nbytes

    @property
    def ranks(self) -> Index:
        """Ranks of the low-rank blocks."""
        return self._blocks.ranks

    def _product(self, z: Array, out: Array) -> None:
        self._permuted(self._blocks.product, z * self.grid.weights, out, self._source.left, self._source.right)

    def _adjoint_product(self, p: Array, out: Array) -> None:
        product = self._blocks.transposed_product
        self._permuted(product, p * self.grid.weights, out, self._source.right, self._source.left)

    def _permuted(self, product: Any, z: Array, out: Array, outer: Array | None, inner: Array | None) -> None:
        if inner is not None:
            z = z * inner
        result = np.empty_like(z)
        product(np.ascontiguousarray(z[:, self._order]), result)
        out[:, self._order] = result
        if outer is not None:
            out *= outer
        if self._source.scale != 1.0:
            out *= self._source.scale

    def _rows(self, chosen: Index) -> Array:
        """Rows of the compressed kernel, (len(chosen), N)."""
        unit, values = np.zeros((len(chosen), self.grid.n_nodes)), np.empty((len(chosen), self.grid.n_nodes))
        unit[np.arange(len(chosen)), chosen] = 1.0
        product = self._blocks.transposed_product
        self._permuted(product, unit, values, self._source.right, self._source.left)
        return values

    def _measured_error(self) -> float:
        """Relative error at 16 random rows or more: all of them up to 2048 labels."""
        n = self.grid.n_nodes
        chosen = np.sort(np.random.default_rng(0).permutation(n)[: max(_MEASURED // n, 16)])
        gap = size = 0.0
        for part in np.split(chosen, range(16, len(chosen), 16)):
            exact, q = self._source.rows(part), self.grid.weights[part]
            found = self._rows(part) / self._source.scale
            gap += float(q @ ((found - exact) ** 2 @ self.grid.weights))
            size += float(q @ (exact**2 @ self.grid.weights))
        return float(np.sqrt(gap / size)) if size else 0.0

    def kernel_matrix(self) -> Array:
        """Values of the compressed kernel, (N, N)."""
        n = self.grid.n_nodes
        check_memory(f"a dense kernel of {n} x {n}", 32 * n * n)
        return self._rows(np.arange(n))

    def norm(self) -> float:
        """Hilbert-Schmidt norm of the compressed kernel."""
        q, source = self.grid.weights, self._source
        rows = q if source.left is None else q * source.left**2
        columns = q if source.right is None else q * source.right**2
        return source.scale * float(np.sqrt(self._blocks.squared_norm(rows[self._order], columns[self._order])))

    def _details(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "tolerance": self.tolerance, "leaf": self.leaf}


class _Source:
    """Where kernel values come from: w = scale left(x) core(x, y) right(y), and what labels are clustered by.

    `core` takes indices that broadcast; only the core is compressed. The scale is 1 unless squares of
    the values would leave the range of numbers.
    """

    def __init__(
        self,
        points: Array,
        core: Entries,
        *,
        symmetric: bool,
        radial: bool = False,
        left: Array | None = None,
        right: Array | None = None,
    ) -> None:
        self.points, self.symmetric, self.left, self.right = points, symmetric, left, right
        self.size = _root_mean_square(core, len(points))
        self.scale = 1.0 if _SAFE < self.size < 1.0 / _SAFE or self.size == 0.0 else self.size
        self.core: Entries = core if self.scale == 1.0 else lambda i, j: core(i, j) / self.scale
        # A radial kernel is smooth where its features are apart; of others nothing is known.
        self.exhaustive = not radial and len(points) <= _MOST_SAMPLES

    def rows(self, chosen: Index) -> Array:
        """Rows of the kernel itself over the scale, (len(chosen), N)."""
        values = self.core(chosen[:, None], np.arange(len(self.points))[None])
        if self.left is not None:
            values = values * self.left[chosen, None]
        return values if self.right is None else values * self.right


def _source(grid: Grid, kernel: Any) -> _Source:
    labels = grid.nodes.reshape(grid.n_nodes, -1)
    if isinstance(kernel, RadialKernel):
        points, core = kernel.points(grid.nodes), kernel.profile_of(grid.nodes)
        factors = {side: kernel.factor(side, grid.nodes) for side in ("left", "right")}
        return _Source(np.ascontiguousarray(points.T), core, symmetric=True, radial=True, **factors)
    if callable(kernel):
        kernel_block("kernel", grid, kernel, 0, 1)  # a kernel that cannot be used says so here
        return _Source(labels, _checked(lambda i, j: kernel(grid.nodes[i], grid.nodes[j])), symmetric=False)
    n = grid.n_nodes
    if n > _MOST_SAMPLES:
        raise ConfigError(f"samples of a kernel are taken up to {_MOST_SAMPLES} labels, got {n}: give its formula")
    samples = finite_array("kernel", kernel, shape=(n, n))
    return _Source(labels, lambda i, j: samples[i, j], symmetric=bool(np.array_equal(samples, samples.T)))


def _checked(values: Callable[[Index, Index], Any]) -> Entries:
    """Kernel values as finite arrays of the broadcast shape."""

    def core(i: Index, j: Index) -> Array:
        found = np.broadcast_to(np.asarray(values(i, j), dtype=np.float64), np.broadcast_shapes(i.shape, j.shape))
        return finite_array("kernel", found)

    return core


def _compress(tree: ClusterTree, source: _Source, tolerance: float) -> BlockMatrix:
    """Blocks of the core in the order of the tree, level by level from the whole."""
    allowed = tolerance * (source.size / source.scale or 1.0)
    blocks: list[Block[Any]] = []
    stored = 0
    pairs = np.zeros((1, 2), dtype=np.int64)
    for level in range(tree.depth + 1):
        if source.symmetric:
            pairs = pairs[pairs[:, 0] <= pairs[:, 1]]
        tried = _worth_trying(tree, level, pairs)
        refused = [pairs[~tried]]
        for part in _batches(tree, level, pairs[tried]):
            rows, _ = tree.members(level, part[:, 0])
            columns, _ = tree.members(level, part[:, 1])
            most = min(_MAX_RANK, max(rows.shape[1] // 2, 1))
            found = cross_approximation(source.core, rows, columns, allowed, most, exhaustive=source.exhaustive)
            for (i, j), factors in zip(part, found, strict=True):
                if factors is None:
                    continue
                block = _low_rank(tree, level, i, j, factors, allowed)
                if len(block.values.left):
                    blocks.append(block)
                    stored += block.values.left.nbytes + block.values.right.nbytes
            # Once more while they are put side by side.
            check_memory("the blocks of a compressed kernel", stored)
            refused.append(part[[factors is None for factors in found]])
        pairs = np.concatenate(refused)
        if level < tree.depth:
            pairs = children(pairs)
    blocks.extend(_dense(tree, source, pairs))
    return BlockMatrix(len(tree.order), blocks, mirrored=source.symmetric)


def _root_mean_square(core: Entries, n: int) -> float:
    """Size of the core over pairs of labels drawn at random."""
    i, j = np.random.default_rng(1).integers(0, n, size=(2, 2**14))
    values = core(i, j)
    largest = float(np.abs(values).max())
    return largest * float(np.sqrt(np.mean((values / largest) ** 2))) if largest > 0.0 else 0.0


def _worth_trying(tree: ClusterTree, level: int, pairs: Index) -> NDArray[np.bool_]:
    """Whether a low rank may be found: clusters apart; on a line, and on the top levels, touching ones, too."""
    if level < _TOP_LEVELS:
        return np.ones(len(pairs), dtype=bool)
    if tree.low[level].shape[1] == 1:
        return np.asarray(pairs[:, 0] != pairs[:, 1])
    return tree.separated(level, pairs, _ETA)


def _batches(tree: ClusterTree, level: int, pairs: Index) -> list[Index]:
    size = int(np.diff(tree.edges[level]).max())
    count = max(_BATCH // (2 * size * _MAX_RANK), 1)
    return [pairs[k : k + count] for k in range(0, len(pairs), count)]


def _low_rank(tree: ClusterTree, level: int, i: int, j: int, factors: LowRank, allowed: float) -> Block[LowRank]:
    rows, columns = tree.span(level, i), tree.span(level, j)
    height, width = rows[1] - rows[0], columns[1] - columns[0]
    cut = LowRank(factors.left[:, :height], factors.right[:, :width])
    return Block(rows, columns, cut.truncated(_TRUNCATION * allowed * math.sqrt(height * width)))


def _dense(tree: ClusterTree, source: _Source, pairs: Index) -> list[Block[Any]]:
    """Blocks between leaves, evaluated."""
    level, blocks = tree.depth, []
    size = int(np.diff(tree.edges[level]).max())
    check_memory("the dense blocks of a compressed kernel", 16 * len(pairs) * size * size)
    for k in range(0, len(pairs), max(_BATCH // size**2, 1)):
        part = pairs[k : k + max(_BATCH // size**2, 1)]
        rows, heights = tree.members(level, part[:, 0])
        columns, widths = tree.members(level, part[:, 1])
        values = source.core(rows[:, :, None], columns[:, None, :])
        for b, (i, j) in enumerate(part):
            block = values[b, : heights[b], : widths[b]]
            if block.any():
                blocks.append(Block(tree.span(level, i), tree.span(level, j), block.copy()))
    return blocks
