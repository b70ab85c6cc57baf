"""Register tiles: the innermost loop of products of a matrix with several samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meanfield._jit import REDUCTION, njit
from meanfield._vectormath import prefer512

Array = NDArray[np.float64]
Matrix = NDArray[np.float64] | NDArray[np.float32]


@njit(fastmath=REDUCTION)
def add_tile(
    matrix: Matrix, row: int, column: int, z: Matrix, s: int, start: int, stop: int, out: Array, i: int
) -> None:
    """Add to out[s .. s + 3, i .. i + 3] the products of four rows with four samples over start <= j < stop.

    The four rows of the matrix begin at (row, column). Sixteen sums stay in registers, so
    that eight loads serve sixteen products.
    """
    prefer512()
    end = column + stop - start
    w0, w1 = matrix[row, column:end], matrix[row + 1, column:end]
    w2, w3 = matrix[row + 2, column:end], matrix[row + 3, column:end]
    z0, z1, z2, z3 = z[s, start:stop], z[s + 1, start:stop], z[s + 2, start:stop], z[s + 3, start:stop]
    a00, a01, a02, a03 = 0.0, 0.0, 0.0, 0.0
    a10, a11, a12, a13 = 0.0, 0.0, 0.0, 0.0
    a20, a21, a22, a23 = 0.0, 0.0, 0.0, 0.0
    a30, a31, a32, a33 = 0.0, 0.0, 0.0, 0.0
    for j in range(z0.size):
        v0, v1, v2, v3 = z0[j], z1[j], z2[j], z3[j]
        u = w0[j]
        a00 += u * v0
        a01 += u * v1
        a02 += u * v2
        a03 += u * v3
        u = w1[j]
        a10 += u * v0
        a11 += u * v1
        a12 += u * v2
        a13 += u * v3
        u = w2[j]
        a20 += u * v0
        a21 += u * v1
        a22 += u * v2
        a23 += u * v3
        u = w3[j]
        a30 += u * v0
        a31 += u * v1
        a32 += u * v2
        a33 += u * v3
    out[s + 0, i + 0] += a00
    out[s + 1, i + 0] += a01
    out[s + 2, i + 0] += a02
    out[s + 3, i + 0] += a03
    out[s + 0, i + 1] += a10
    out[s + 1, i + 1] += a11
    out[s + 2, i + 1] += a12
    out[s + 3, i + 1] += a13
    out[s + 0, i + 2] += a20
    out[s + 1, i + 2] += a21
    out[s + 2, i + 2] += a22
    out[s + 3, i + 2] += a23
    out[s + 0, i + 3] += a30
    out[s + 1, i + 3] += a31
    out[s + 2, i + 3] += a32
    out[s + 3, i + 3] += a33
