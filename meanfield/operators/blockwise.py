"""Matrices of low-rank and dense blocks over clusters, and their products with fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from meanfield.kernels.blocks import add_dense, add_dense_transposed, add_pieces, take_moments
from meanfield.operators.cross import LowRank
from meanfield.parallel import for_blocks

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# Outputs to a task, and numbers read by one: about a hundred microseconds each.
_STRIP = 4096
_TASK = 2**18


Values = TypeVar("Values")


@dataclass(frozen=True)
class Block(Generic[Values]):
    """A block over rows start .. stop - 1 and columns likewise: a `LowRank`, or dense values (height, width)."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    values: Values


class _Factors:
    """One side of the low-rank blocks: the rows of each factor, one after the other."""

    def __init__(self, factors: Sequence[Array], ends: Sequence[tuple[int, int]], n: int) -> None:
        sizes = np.array([f.size for f in factors], dtype=np.int64)
        self.values = np.concatenate([f.ravel() for f in factors]) if factors else np.empty(0)
        self.offset = np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int64)
        self.ends = np.array(ends, dtype=np.int64).reshape(-1, 2)
        self.tasks = _even(sizes)
        self.pieces, self.strips = _pieces(self.ends, n)

    def block(self, b: int) -> Array:
        """Factor of block b, (rank, length)."""
        start, stop = self.ends[b]
        last = self.offset[b + 1] if b + 1 < len(self.offset) else self.values.size
        return self.values[self.offset[b] : last].reshape(-1, stop - start)

    def moments(self, moment: Index, z: Array) -> Array:
        """Products of all factors with z (n, N), (n, total rank)."""
        c = np.empty((len(z), int(moment[-1])))
        args, tasks = (self.values, self.offset, self.ends, moment), self.tasks
        for_blocks(lambda i, k: take_moments(*args, tasks[i], tasks[k], z, c), len(tasks) - 1, 1)
        return c

    def add(self, moment: Index, c: Array, out: Array) -> None:
        """Add the combinations of all factors with coefficients c to out (n, N)."""
        args, strips = (self.values, self.offset, self.ends, moment, self.pieces), self.strips
        for_blocks(lambda i, k: add_pieces(*args, strips[i], strips[k], c, out), len(strips) - 1, 1)


class _Dense:
    """The dense blocks, one after the other, sorted by rows."""

    def __init__(self, blocks: Sequence[Block[Any]], n: int, *, mirrored: bool) -> None:
        blocks = sorted(blocks, key=lambda b: (b.rows, b.columns))
        arrays = [np.asarray(b.values) for b in blocks]
        sizes = np.array([a.size for a in arrays], dtype=np.int64)
        self.values = np.concatenate([a.ravel() for a in arrays]) if arrays else np.empty(0)
        self.offset = np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int64)
        self.rows = np.array([b.rows for b in blocks], dtype=np.int64).reshape(-1, 2)
        self.columns = np.array([b.columns for b in blocks], dtype=np.int64).reshape(-1, 2)
        self.strips = _cuts(self.rows[:, 0], n)
        across = np.lexsort((self.rows[:, 0], self.columns[:, 0]))
        if mirrored:  # a block on the diagonal is its own transpose
            across = across[(self.rows != self.columns).any(axis=1)[across]]
        self.across = across.astype(np.int64)
        self.across_strips = _cuts(self.columns[self.across, 0], n)

    def block(self, b: int) -> Array:
        """Values of block b, (height, width)."""
        shape = int(np.diff(self.rows[b])[0]), int(np.diff(self.columns[b])[0])
        return self.values[self.offset[b] :][: shape[0] * shape[1]].reshape(shape)

    def add(self, z: Array, out: Array) -> None:
        args, strips = (self.values, self.offset, self.rows, self.columns), self.strips
        for_blocks(lambda i, k: add_dense(*args, strips[i], strips[k], z, out), len(strips) - 1, 1)

    def add_transposed(self, p: Array, out: Array) -> None:
        args = (self.values, self.offset, self.rows, self.columns, self.across)
        strips = self.across_strips
        for_blocks(lambda i, k: add_dense_transposed(*args, strips[i], strips[k], p, out), len(strips) - 1, 1)


class BlockMatrix:
    """N x N matrix made of blocks that do not overlap.

    Parameters
    ----------
    n
        Number of rows and columns N.
    blocks
        The blocks; for a `mirrored` matrix those on and above the diagonal.
    mirrored
        Whether the matrix is symmetric: each block off the diagonal stands for its transpose, too.
    """

    def __init__(self, n: int, blocks: Sequence[Block[Any]], *, mirrored: bool) -> None:
        self.n, self.mirrored = n, mirrored
        low: list[tuple[Block[Any], LowRank]] = [(b, b.values) for b in blocks if isinstance(b.values, LowRank)]
        self.n_low_rank, self.n_dense = len(low), len(blocks) - len(low)
        self.ranks = np.array([len(f.left) for _, f in low], dtype=np.int64)
        self._moment = np.concatenate([[0], np.cumsum(self.ranks)]).astype(np.int64)
        self._left = _Factors([f.left for _, f in low], [b.rows for b, _ in low], n)
        self._right = _Factors([f.right for _, f in low], [b.columns for b, _ in low], n)
        # Moments of blocks on the diagonal, which are their own transposes.
        self._own = np.repeat((self._left.ends == self._right.ends).all(axis=1), self.ranks)
        self._dense = _Dense([b for b in blocks if not isinstance(b.values, LowRank)], n, mirrored=mirrored)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored numbers."""
        return self._left.values.nbytes + self._right.values.nbytes + self._dense.values.nbytes

    def squared_norm(self, rows: Array, columns: Array) -> float:
        """Sum of rows_i columns_j w_ij^2 over the matrix."""
        total = 0.0
        for b in range(self.n_low_rank):
            left, right = self._left.block(b), self._right.block(b)
            for r, c in self._sides(self._left.ends[b], self._right.ends[b], rows, columns):
                total += float(np.sum(((left * r) @ left.T) * ((right * c) @ right.T)))
        for b in range(self.n_dense):
            squares = self._dense.block(b) ** 2
            for r, c in self._sides(self._dense.rows[b], self._dense.columns[b], rows, columns):
                total += float(r @ squares @ c)
        return total

    def _sides(self, high: Index, wide: Index, rows: Array, columns: Array) -> list[tuple[Array, Array]]:
        """Weights over a block, and over its transpose where it stands for that, too."""
        own = [(rows[slice(*high)], columns[slice(*wide)])]
        if self.mirrored and not np.array_equal(high, wide):
            own.append((columns[slice(*high)], rows[slice(*wide)]))
        return own

    def product(self, z: Array, out: Array) -> None:
        """Fill out (n, N) with the matrix times each row of z (n, N)."""
        out[...] = 0.0
        self._forward(z, out)
        if self.mirrored:
            self._backward(z, out)

    def transposed_product(self, p: Array, out: Array) -> None:
        """Fill out (n, N) with the transpose times each row of p (n, N)."""
        if self.mirrored:
            self.product(p, out)
            return
        out[...] = 0.0
        self._backward(p, out)

    def _forward(self, z: Array, out: Array) -> None:
        self._left.add(self._moment, self._right.moments(self._moment, z), out)
        self._dense.add(z, out)

    def _backward(self, p: Array, out: Array) -> None:
        c = self._left.moments(self._moment, p)
        if self.mirrored:
            c[:, self._own] = 0.0
        self._right.add(self._moment, c, out)
        self._dense.add_transposed(p, out)


def _even(sizes: Index) -> Index:
    """Cuts of consecutive blocks into tasks of about the same size."""
    total = int(sizes.sum())
    goals = np.arange(1, max(total // _TASK, 1)) * _TASK
    inner = np.searchsorted(np.cumsum(sizes), goals)
    return np.unique(np.concatenate([[0], inner, [len(sizes)]])).astype(np.int64)


def _cuts(first: Index, n: int) -> Index:
    """Cuts of dense blocks sorted by their first output; blocks over the same leaf stay in one task."""
    tasks = np.searchsorted(first, np.arange(_STRIP, n, _STRIP))
    return np.unique(np.concatenate([[0], tasks, [len(first)]])).astype(np.int64)


def _pieces(ends: Index, n: int) -> tuple[Index, Index]:
    """Parts (block, start, stop) of blocks in strips of outputs, strip by strip, and the cuts between strips."""
    n_strips = -(-n // _STRIP)
    found = []
    for strip in range(n_strips):
        start, stop = strip * _STRIP, min((strip + 1) * _STRIP, n)
        meeting = np.flatnonzero((ends[:, 0] < stop) & (ends[:, 1] > start))
        low, high = np.maximum(ends[meeting, 0], start), np.minimum(ends[meeting, 1], stop)
        found.append(np.stack([meeting, low, high], axis=1))
    cuts = np.concatenate([[0], np.cumsum([len(f) for f in found])])
    return np.ascontiguousarray(np.concatenate(found), dtype=np.int64), cuts.astype(np.int64)
