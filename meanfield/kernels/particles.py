"""Independent particles carried through all layers while they sit in the first-level cache."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meanfield._activate import TANH, apply_value
from meanfield._jit import ELEMENTARY, njit
from meanfield._vectormath import prefer512, tanh
from meanfield._velocity import OUTSIDE, TWO_LAYER, add_stages, stage_state, velocities

Array = NDArray[np.float64]

# Particles of a block: its coordinates, stages and neurons stay in the first-level cache.
BLOCK = 512


@njit(fastmath=ELEMENTARY)
def _step(
    code: int, form: int, rows: Array, a: Array, b: Array, dt: float, x: Array, z: Array, hidden: Array, k: Array
) -> None:
    """One Runge-Kutta step of a block x (d, B): parameters rows (s, P) at the stages, which go into k (s, d, B)."""
    velocities(code, form, rows[0], x, hidden, k[0])
    for s in range(1, b.size):
        stage_state(a, s, dt, x, k, z)
        velocities(code, form, rows[s], z, hidden, k[s])
    add_stages(b, dt, k, x)


@njit(fastmath=ELEMENTARY)
def _layers_line(code: int, form: int, table: Array, lengths: Array, x: Array, p: Array) -> None:
    """Euler steps of a block x (B,) on the line; p (B,) is a workspace."""
    prefer512()
    for step in range(lengths.size):
        h, w, b = lengths[step], table[step, 0, 0], table[step, 0, 1]
        if form == OUTSIDE and code == TANH:
            # In one loop: a quarter faster than by way of p.
            for j in range(x.size):
                x[j] += h * tanh(w * x[j] + b)
        elif form == OUTSIDE:
            for j in range(x.size):
                p[j] = w * x[j] + b
            apply_value(code, p, p)
            for j in range(x.size):
                x[j] += h * p[j]
        else:
            apply_value(code, x, p)
            for j in range(x.size):
                x[j] += h * (w * p[j] + b)


@njit(fastmath=ELEMENTARY)
def _layers_plane(code: int, form: int, table: Array, lengths: Array, x: Array, y: Array, p: Array) -> None:
    """Euler steps of a block (x, y) in the plane; p (2 B,) is a workspace."""
    prefer512()
    n = x.size
    q, r = p[:n], p[n:]
    for step in range(lengths.size):
        h, row = lengths[step], table[step, 0]
        w00, w01, w10, w11, b0, b1 = row[0], row[1], row[2], row[3], row[4], row[5]
        if form == OUTSIDE and code == TANH:
            for j in range(n):
                u, v = x[j], y[j]
                x[j] = u + h * tanh((w00 * u + b0) + w01 * v)
                y[j] = v + h * tanh((w10 * u + b1) + w11 * v)
        elif form == OUTSIDE:
            for j in range(n):
                q[j] = (w00 * x[j] + b0) + w01 * y[j]
                r[j] = (w10 * x[j] + b1) + w11 * y[j]
            apply_value(code, p, p)
            for j in range(n):
                x[j] += h * q[j]
                y[j] += h * r[j]
        else:
            for j in range(n):
                q[j] = x[j]
                r[j] = y[j]
            apply_value(code, p, p)
            for j in range(n):
                x[j] += h * ((w00 * q[j] + b0) + w01 * r[j])
                y[j] += h * ((w10 * q[j] + b1) + w11 * r[j])


@njit(fastmath=ELEMENTARY)
def carry(
    code: int,
    form: int,
    width: int,
    table: Array,
    a: Array,
    b: Array,
    lengths: Array,
    y: Array,
    out: Array,
    start: int,
    stop: int,
) -> None:
    """Carry the particles start <= j < stop of y (d, n) through all steps, into out.

    `table` (L, s, P) holds the parameters at the stages of each step, `lengths` (L,) the steps,
    a (s, s) and b (s,) the tableau, `width` the number of neurons of a two-layer form.
    """
    d, n_stages = y.shape[0], b.size
    x, z = np.zeros((d, BLOCK)), np.zeros((d, BLOCK))
    hidden, k = np.empty((width, BLOCK)), np.empty((n_stages, d, BLOCK))
    for first in range(start, stop, BLOCK):
        q = min(BLOCK, stop - first)
        for i in range(d):
            x[i, :q] = y[i, first : first + q]
        if n_stages == 1 and d == 1 and form != TWO_LAYER:
            _layers_line(code, form, table, lengths, x[0], z[0])
        elif n_stages == 1 and d == 2 and form != TWO_LAYER:
            _layers_plane(code, form, table, lengths, x[0], x[1], z.ravel())
        else:
            for step in range(lengths.size):
                _step(code, form, table[step], a, b, lengths[step], x, z, hidden, k)
        for i in range(d):
            out[i, first : first + q] = x[i, :q]


@njit(fastmath=ELEMENTARY)
def velocity_at(code: int, form: int, width: int, row: Array, y: Array, out: Array, start: int, stop: int) -> None:
    """Fill the columns start <= j < stop of out (d, n) with the velocity at points y (d, n)."""
    d = y.shape[0]
    x, hidden, v = np.zeros((d, BLOCK)), np.empty((width, BLOCK)), np.empty((d, BLOCK))
    for first in range(start, stop, BLOCK):
        q = min(BLOCK, stop - first)
        for i in range(d):
            x[i, :q] = y[i, first : first + q]
        velocities(code, form, row, x, hidden, v)
        for i in range(d):
            out[i, first : first + q] = v[i, :q]
