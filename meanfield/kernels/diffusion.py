"""Conservative linear exchange between neighbouring cells: what diffusion and drift become on a grid.

    J = up c - down c',      c and c' the cells on either side of a face, J the flux from c to c'

`up` and `down` >= 0 keep densities positive for short enough steps, and mass exactly. Arrays are (N_1, N_2);
a line is one row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meanfield._jit import ELEMENTARY, njit
from meanfield._vectormath import prefer512

Array = NDArray[np.float64]


@njit(fastmath=ELEMENTARY)
def _exchange(up: Array, down: Array, a: Array, b: Array, f: Array) -> None:
    """Fill f with the flux from cells a to cells b."""
    prefer512()
    for k in range(f.size):
        f[k] = up[k] * a[k] - down[k] * b[k]


@njit(fastmath=ELEMENTARY)
def _settle(dt: float, c: Array, along: Array, low: Array, high: Array, out: Array) -> None:
    """Fill out with c less dt times what flows out of it; `along` (N + 1,) has zeros at its ends."""
    prefer512()
    after = along[1:]
    for k in range(out.size):
        out[k] = c[k] - dt * ((after[k] - along[k]) + (high[k] - low[k]))


@njit(fastmath=ELEMENTARY)
def euler_step(up_1: Array, down_1: Array, up_2: Array, down_2: Array, dt: float, u: Array, out: Array) -> None:
    """Fill out with u after an explicit step of length dt; `out` must not be `u`.

    up_1, down_1 (N_1 - 1, N_2) belong to the faces between rows, up_2, down_2 (N_1, N_2 - 1) to those along them.
    """
    rows, columns = u.shape
    along, low, high = np.zeros(columns + 1), np.zeros(columns), np.zeros(columns)
    for i in range(rows):
        c = u[i]
        _exchange(up_2[i], down_2[i], c, c[1:], along[1:columns])
        if i < rows - 1:
            _exchange(up_1[i], down_1[i], c, u[i + 1], high)
        else:
            high[:] = 0.0
        _settle(dt, c, along, low, high, out[i])
        low, high = high, low


@njit(fastmath=ELEMENTARY)
def two_stages(
    up_1: Array, down_1: Array, up_2: Array, down_2: Array, lengths: Array, u: Array, first: Array, second: Array
) -> None:
    """SSPRK2 steps of the given lengths, in place; coefficients (2, ...) for the stages of every one of them.

    `first` and `second`, of the shape of u, are workspaces.
    """
    prefer512()
    flat, last = u.ravel(), second.ravel()
    for step in range(lengths.size):
        dt = lengths[step]
        euler_step(up_1[0], down_1[0], up_2[0], down_2[0], dt, u, first)
        euler_step(up_1[1], down_1[1], up_2[1], down_2[1], dt, first, second)
        for k in range(flat.size):
            flat[k] = 0.5 * (flat[k] + last[k])
