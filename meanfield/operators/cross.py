"""Adaptive cross approximation of many blocks at once.

A block w(x_i, y_j) is approximated by crosses of its rows and columns,
w ~ sum_r u_r(x) v_r(y) (Bebendorf, "Approximation of boundary element matrices",
Numer. Math. 86, 2000), with rows spread over the block looked at before it is
called done. All blocks of a level take each step together, so the kernel is called
with large arrays, and any vectorised kernel will do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]
# Kernel values at indices of labels that broadcast.
Entries = Callable[[Index, Index], Array]

# Rows and columns that are looked at before a block is accepted, among them the first and the last: a kink
# that meets a block crosses its edge. Blocks of few rows are looked at in full.
_CHECKED = 8
_CHECKED_IN_FULL = 64
# Kernel values made at once while a block is looked at in full.
_VALUES = 2**22
# After so many crosses a block whose error falls too slowly is given up.
_TRIAL = 12


@dataclass(frozen=True, eq=False)
class LowRank:
    """Factors of a block, left (rank, rows) and right (rank, columns): w ~ sum_r left_r(x) right_r(y)."""

    left: Array
    right: Array

    def truncated(self, allowed: float) -> LowRank:
        """Fewest terms whose difference is at most `allowed` in the Frobenius norm: singular values of the product."""
        first, upper = np.linalg.qr(self.left.T)
        second, other = np.linalg.qr(self.right.T)
        u, s, v = np.linalg.svd(upper @ other.T)
        tail = np.sqrt(np.cumsum(s[::-1] ** 2))[::-1]
        rank = int((tail > allowed).sum())
        root = np.sqrt(s[:rank])
        return LowRank((u[:, :rank] * root).T @ first.T, (v[:rank].T * root).T @ second.T)


def cross_approximation(
    entries: Entries, rows: Index, columns: Index, tolerance: float, max_rank: int, *, exhaustive: bool = False
) -> list[LowRank | None]:
    """Approximate blocks of labels rows (B, m) x columns (B, n).

    Parameters
    ----------
    entries
        Kernel values at broadcasting indices.
    rows, columns
        Labels of each block; they may repeat.
    tolerance
        Root mean square error allowed over the entries of a block.
    max_rank
        A block that needs more is given up.
    exhaustive
        Look at every entry of a block before it is accepted: a defect of few entries may hide from a sample.

    Returns
    -------
    The factors of each block, None where it was given up.
    """
    found: list[LowRank | None] = [None] * len(rows)
    state = _Blocks(rows, columns, max_rank)
    while len(state.number):
        k = state.rank
        step = state.add_cross(entries)
        small = step <= 0.3 * tolerance * np.sqrt(rows.shape[1] * columns.shape[1])
        done = np.zeros(len(small), dtype=bool)
        if small.any():
            done[small] = state.check(entries, np.flatnonzero(small), tolerance, exhaustive)
        for b in np.flatnonzero(done):
            found[state.number[b]] = LowRank(state.u[b, : k + 1].copy(), state.v[b, : k + 1].copy())
        hopeless = np.zeros(len(small), dtype=bool)
        if k + 1 >= max_rank:
            hopeless[:] = True
        elif k + 1 == _TRIAL:
            # Errors of smooth blocks fall geometrically: extrapolated to the tolerance.
            size = np.maximum(step / np.sqrt(rows.shape[1] * columns.shape[1]), tolerance) / state.scale
            goal = np.log(np.minimum(tolerance / state.scale, 0.5))
            hopeless = _TRIAL * goal / np.minimum(np.log(np.minimum(size, 0.99)), -1e-3) > 2.0 * max_rank
        state.keep(~(done | hopeless))
    return found


class _Blocks:
    """Blocks still being approximated: their crosses so far and the rows to take next."""

    def __init__(self, rows: Index, columns: Index, max_rank: int) -> None:
        n_blocks, m = rows.shape
        self.number = np.arange(n_blocks)
        self.rows, self.columns = rows, columns
        self.u = np.empty((n_blocks, max_rank, m))
        self.v = np.empty((n_blocks, max_rank, columns.shape[1]))
        self.used = np.zeros((n_blocks, m), dtype=bool)
        self.used_columns = np.zeros((n_blocks, columns.shape[1]), dtype=bool)
        self.random = np.random.default_rng(m)
        self.pivot = np.full(n_blocks, m // 2)
        self.scale = np.full(n_blocks, np.finfo(np.float64).tiny)
        self.rank = 0

    def add_cross(self, entries: Entries) -> Array:
        """Take the pivot row and the column of its largest residual; return the Frobenius norm of the cross."""
        k, b = self.rank, np.arange(len(self.number))
        i = self.pivot
        row = entries(self.rows[b, i][:, None], self.columns)
        row = row - np.matmul(self.u[b, None, :k, i], self.v[:, :k])[:, 0]
        j = np.argmax(np.abs(row), axis=1)
        pivot = row[b, j]
        column = entries(self.rows, self.columns[b, j][:, None])
        column = column - np.matmul(self.v[b, None, :k, j], self.u[:, :k])[:, 0]
        self.u[:, k] = column
        # A row that is reproduced already adds nothing.
        self.v[:, k] = row / np.where(pivot == 0.0, 1.0, pivot)[:, None]
        self.used[b, i] = True
        self.used_columns[b, j] = True
        self.pivot = np.argmax(np.where(self.used, -1.0, np.abs(column)), axis=1)
        size = np.linalg.norm(column, axis=1) * np.linalg.norm(self.v[:, k], axis=1)
        self.scale = np.maximum(self.scale, size / np.sqrt(column.shape[1] * row.shape[1]))
        self.rank += 1
        return np.asarray(size)

    def check(self, entries: Entries, chosen: Index, tolerance: float, exhaustive: bool) -> NDArray[np.bool_]:
        """Whether rows and columns not used so far are reproduced; where not, the worst becomes the next pivot."""
        m = self.rows.shape[1]
        good = self._rows_good(entries, chosen, self._unused(self.used[chosen]), tolerance)
        if m > _CHECKED_IN_FULL:
            left = chosen[good]
            if len(left):
                good[good] = self._columns_good(entries, left, self._unused(self.used_columns[left]), tolerance)
            left = chosen[good]
            if exhaustive and len(left):
                good[good] = self._rows_good(entries, left, _everything(len(left), m), tolerance)
        return good

    def _rows_good(self, entries: Entries, chosen: Index, rows: Index, tolerance: float) -> NDArray[np.bool_]:
        k, n = self.rank, self.columns.shape[1]
        error = np.empty(rows.shape)
        size = max(_VALUES // (len(chosen) * n), 1)
        for start in range(0, rows.shape[1], size):
            part = rows[:, start : start + size]
            values = entries(self.rows[chosen[:, None], part][:, :, None], self.columns[chosen][:, None, :])
            gap = values - np.matmul(self.u[chosen[:, None], :k, part], self.v[chosen, :k])
            error[:, start : start + size] = np.sqrt(np.mean(gap**2, axis=2))
        good = error.max(axis=1) <= tolerance
        worst = rows[np.arange(len(chosen)), np.argmax(error, axis=1)]
        self.pivot[chosen] = np.where(good, self.pivot[chosen], worst)
        return np.asarray(good)

    def _columns_good(self, entries: Entries, chosen: Index, columns: Index, tolerance: float) -> NDArray[np.bool_]:
        k = self.rank
        values = entries(self.rows[chosen][:, None, :], self.columns[chosen[:, None], columns][:, :, None])
        gap = np.abs(values - np.matmul(self.v[chosen[:, None], :k, columns], self.u[chosen, :k]))
        good = np.sqrt(np.mean(gap**2, axis=2)).max(axis=1) <= tolerance
        deepest = np.argmax(np.where(self.used[chosen], -1.0, gap.max(axis=1)), axis=1)
        self.pivot[chosen] = np.where(good, self.pivot[chosen], deepest)
        return np.asarray(good)

    def _unused(self, used: NDArray[np.bool_]) -> Index:
        """Places (B, checked) that no cross went through: all of few, else the two ends and others at random."""
        n_blocks, m = used.shape
        if m <= _CHECKED_IN_FULL:
            return _everything(n_blocks, m)
        key = self.random.random((n_blocks, m))
        key[:, [0, -1]] = 2.0
        key[used] = -1.0
        return np.argpartition(key, m - _CHECKED, axis=1)[:, m - _CHECKED :]

    def keep(self, some: NDArray[np.bool_]) -> None:
        """Drop blocks that are finished or given up."""
        if some.all():
            return
        for name in ("number", "rows", "columns", "u", "v", "used", "used_columns", "pivot", "scale"):
            setattr(self, name, getattr(self, name)[some])


def _everything(n_blocks: int, m: int) -> Index:
    return np.broadcast_to(np.arange(m), (n_blocks, m))
