"""Products with a matrix of low-rank and dense blocks.

The factors of block b are rows of length stop - start in one flat array, its rank many
from `offset[b]` on. A product takes the moments of all blocks first, then adds up, for
each strip of outputs, the pieces of the blocks that meet it, in their order: every task
writes to outputs of its own, and the bytes do not depend on threads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meanfield._jit import REDUCTION, njit
from meanfield._vectormath import prefer512

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@njit(fastmath=REDUCTION)
def _dots(factor: Array, start: int, length: int, rank: int, z: Array, c: Array) -> None:
    """Fill c_r = <row r of the factor, z>, four rows to a read of z."""
    prefer512()
    r = 0
    while r + 4 <= rank:
        o = start + r * length
        f0, f1 = factor[o : o + length], factor[o + length : o + 2 * length]
        f2, f3 = factor[o + 2 * length : o + 3 * length], factor[o + 3 * length : o + 4 * length]
        a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
        for j in range(z.size):
            v = z[j]
            a0 += f0[j] * v
            a1 += f1[j] * v
            a2 += f2[j] * v
            a3 += f3[j] * v
        c[r], c[r + 1], c[r + 2], c[r + 3] = a0, a1, a2, a3
        r += 4
    while r < rank:
        o = start + r * length
        f0 = factor[o : o + length]
        a0 = 0.0
        for j in range(z.size):
            a0 += f0[j] * z[j]
        c[r] = a0
        r += 1


@njit(fastmath=REDUCTION)
def _add_rows(factor: Array, start: int, length: int, first: int, rank: int, c: Array, out: Array) -> None:
    """Add sum_r c_r (row r of the factor, from `first` on) to out, four rows at a time."""
    prefer512()
    size = out.size
    r = 0
    while r + 4 <= rank:
        o = start + r * length + first
        f0, f1 = factor[o : o + size], factor[o + length : o + length + size]
        f2, f3 = factor[o + 2 * length : o + 2 * length + size], factor[o + 3 * length : o + 3 * length + size]
        c0, c1, c2, c3 = c[r], c[r + 1], c[r + 2], c[r + 3]
        for j in range(size):
            out[j] += (c0 * f0[j] + c1 * f1[j]) + (c2 * f2[j] + c3 * f3[j])
        r += 4
    while r < rank:
        o = start + r * length + first
        f0, c0 = factor[o : o + size], c[r]
        for j in range(size):
            out[j] += c0 * f0[j]
        r += 1


@njit(fastmath=REDUCTION)
def take_moments(
    factor: Array, offset: Index, ends: Index, moment: Index, first: int, last: int, z: Array, c: Array
) -> None:
    """Fill the moments c (n, total rank) of blocks first .. last - 1.

    `ends` (B, 2) are the inputs of a block, `moment` (B + 1,) the places of its moments.
    """
    for b in range(first, last):
        start, stop = ends[b, 0], ends[b, 1]
        for s in range(z.shape[0]):
            _dots(
                factor,
                offset[b],
                stop - start,
                moment[b + 1] - moment[b],
                z[s, start:stop],
                c[s, moment[b] : moment[b + 1]],
            )


@njit(fastmath=REDUCTION)
def add_pieces(
    factor: Array, offset: Index, ends: Index, moment: Index, pieces: Index, first: int, last: int, c: Array, out: Array
) -> None:
    """Add pieces first .. last - 1 to out; a piece (block, start, stop) is the part of a block in one strip."""
    for p in range(first, last):
        b, start, stop = pieces[p, 0], pieces[p, 1], pieces[p, 2]
        for s in range(out.shape[0]):
            _add_rows(
                factor,
                offset[b],
                ends[b, 1] - ends[b, 0],
                start - ends[b, 0],
                moment[b + 1] - moment[b],
                c[s, moment[b] : moment[b + 1]],
                out[s, start:stop],
            )


@njit(fastmath=REDUCTION)
def add_dense(
    values: Array, offset: Index, rows: Index, columns: Index, first: int, last: int, z: Array, out: Array
) -> None:
    """Add the products with dense blocks first .. last - 1: out over their rows, z over their columns."""
    work = np.empty(0)
    for b in range(first, last):
        height, width = rows[b, 1] - rows[b, 0], columns[b, 1] - columns[b, 0]
        if work.size < height:
            work = np.empty(height)
        for s in range(z.shape[0]):
            _dots(values, offset[b], width, height, z[s, columns[b, 0] : columns[b, 1]], work)
            target = out[s, rows[b, 0] : rows[b, 1]]
            for i in range(height):
                target[i] += work[i]


@njit(fastmath=REDUCTION)
def add_dense_transposed(
    values: Array,
    offset: Index,
    rows: Index,
    columns: Index,
    chosen: Index,
    first: int,
    last: int,
    p: Array,
    out: Array,
) -> None:
    """Add the products with the transposes of dense blocks chosen[first] .. chosen[last - 1]."""
    for k in range(first, last):
        b = chosen[k]
        height, width = rows[b, 1] - rows[b, 0], columns[b, 1] - columns[b, 0]
        for s in range(p.shape[0]):
            _add_rows(
                values,
                offset[b],
                width,
                0,
                height,
                p[s, rows[b, 0] : rows[b, 1]],
                out[s, columns[b, 0] : columns[b, 1]],
            )
