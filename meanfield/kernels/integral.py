"""Matrix-vector products of integral operators: loops over neurons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meanfield._jit import REDUCTION, njit
from meanfield._tiles import add_tile
from meanfield._vectormath import prefer512

Array = NDArray[np.float64]
Matrix = NDArray[np.float64] | NDArray[np.float32]

# A block of rows shares the strips of the samples in the second-level cache.
ROW_BLOCK = 64
COLUMN_BLOCK = 512


@njit(fastmath=REDUCTION)
def matvec_rows(matrix: Matrix, z: Array, start: int, stop: int, out: Array) -> None:
    """Fill out_i = sum_j matrix_ij z_j for start <= i < stop, four rows to a read of z.

    The matrix is (N, N) in double or single precision, the sums are double.
    Which rows share a pass depends on `start` alone, never on threads.
    """
    prefer512()
    n = z.size
    i = start
    while i + 4 <= stop:
        w0, w1, w2, w3 = matrix[i], matrix[i + 1], matrix[i + 2], matrix[i + 3]
        a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
        for j in range(n):
            v = z[j]
            a0 += w0[j] * v
            a1 += w1[j] * v
            a2 += w2[j] * v
            a3 += w3[j] * v
        out[i], out[i + 1], out[i + 2], out[i + 3] = a0, a1, a2, a3
        i += 4
    while i < stop:
        row = matrix[i]
        a = 0.0
        for j in range(n):
            a += row[j] * z[j]
        out[i] = a
        i += 1


@njit(fastmath=REDUCTION)
def vecmat_columns(matrix: Matrix, p: Array, start: int, stop: int, out: Array) -> None:
    """Fill out_j = sum_i p_i matrix_ij for start <= j < stop, the rows in order."""
    prefer512()
    target = out[start:stop]
    target[:] = 0.0
    for i in range(p.size):
        row = matrix[i, start:stop]
        c = p[i]
        for j in range(target.size):
            target[j] += c * row[j]


@njit(fastmath=REDUCTION)
def matmul_rows(matrix: Matrix, z: Array, start: int, stop: int, out: Array) -> None:
    """Fill out_si = sum_j matrix_ij z_sj for start <= i < stop and all samples s.

    Tiles of four rows by four samples run over strips of columns that stay in the
    caches; what is left over in rows and samples goes row by row.
    """
    n_samples, n = z.shape
    samples, rows = n_samples - n_samples % 4, stop - (stop - start) % 4
    for s in range(samples):
        out[s, start:rows] = 0.0
    for block in range(start, rows, ROW_BLOCK):
        for column in range(0, n, COLUMN_BLOCK):
            for i in range(block, min(block + ROW_BLOCK, rows), 4):
                for s in range(0, samples, 4):
                    add_tile(matrix, i, column, z, s, column, min(column + COLUMN_BLOCK, n), out, i)
    for s in range(samples):
        matvec_rows(matrix, z[s], rows, stop, out[s])
    for s in range(samples, n_samples):
        matvec_rows(matrix, z[s], start, stop, out[s])
