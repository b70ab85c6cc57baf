"""Velocities of residual networks in compiled loops: V sigma(W x + b) + c and its two short forms, at blocks of points.

Parameters come as one flat row: OUTSIDE, sigma(W x + b), holds W (d, d) and b (d,); INSIDE, W sigma(x) + b, the
same; TWO_LAYER, V sigma(W x + b) + c, holds W (m, d), b (m,), V (d, m) and c (d,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meanfield._activate import apply_value
from meanfield._jit import ELEMENTARY, njit
from meanfield._vectormath import prefer512

Array = NDArray[np.float64]

OUTSIDE, INSIDE, TWO_LAYER = range(3)


@njit(fastmath=ELEMENTARY)
def affine_row(row: Array, at: int, shift: float, x: Array, out: Array) -> None:
    """Fill out = shift + sum_k row[at + k] x[k] for points x (d, B), two terms a pass."""
    prefer512()
    d = x.shape[0]
    if d == 1:
        w0, x0 = row[at], x[0]
        for j in range(out.size):
            out[j] = shift + w0 * x0[j]
        return
    w0, w1, x0, x1 = row[at], row[at + 1], x[0], x[1]
    for j in range(out.size):
        out[j] = (shift + w0 * x0[j]) + w1 * x1[j]
    for k in range(2, d - 1, 2):
        w0, w1, x0, x1 = row[at + k], row[at + k + 1], x[k], x[k + 1]
        for j in range(out.size):
            out[j] += w0 * x0[j] + w1 * x1[j]
    if d > 2 and d % 2 == 1:
        w0, x0 = row[at + d - 1], x[d - 1]
        for j in range(out.size):
            out[j] += w0 * x0[j]


@njit(fastmath=ELEMENTARY)
def neurons(code: int, form: int, row: Array, x: Array, hidden: Array) -> None:
    """Fill hidden (m, B), contiguous: sigma(x) for INSIDE, sigma(W x + b) for TWO_LAYER."""
    d, m = x.shape[0], hidden.shape[0]
    if form == INSIDE:
        for i in range(d):
            apply_value(code, x[i], hidden[i])
    elif form == TWO_LAYER:
        for i in range(m):
            affine_row(row, i * d, row[m * d + i], x, hidden[i])
        apply_value(code, hidden.ravel(), hidden.ravel())


@njit(fastmath=ELEMENTARY)
def component(code: int, form: int, row: Array, i: int, x: Array, hidden: Array, out: Array) -> None:
    """Fill out (B,) with component i of the velocity at points x (d, B), from `hidden` as `neurons` left it."""
    d, m = x.shape[0], hidden.shape[0]
    if form == OUTSIDE:
        affine_row(row, i * d, row[d * d + i], x, out)
        apply_value(code, out, out)
    elif form == INSIDE:
        affine_row(row, i * d, row[d * d + i], hidden, out)
    else:
        start = m * d + m
        affine_row(row, start + i * m, row[start + d * m + i], hidden, out)


@njit(fastmath=ELEMENTARY)
def velocities(code: int, form: int, row: Array, x: Array, hidden: Array, out: Array) -> None:
    """Fill out (d, B) with the velocity at points x (d, B)."""
    neurons(code, form, row, x, hidden)
    for i in range(x.shape[0]):
        component(code, form, row, i, x, hidden, out[i])


@njit(fastmath=ELEMENTARY)
def stage_state(a: Array, s: int, dt: float, x: Array, k: Array, out: Array) -> None:
    """Fill out = x + dt sum_{q < s} a[s, q] k[q], the state of stage s of a Runge-Kutta step, all (d, B)."""
    prefer512()
    for i in range(x.shape[0]):
        target, source = out[i], x[i]
        for j in range(target.size):
            target[j] = source[j]
        for q in range(s):
            if a[s, q] != 0.0:
                c, stage = dt * a[s, q], k[q, i]
                for j in range(target.size):
                    target[j] += c * stage[j]


@njit(fastmath=ELEMENTARY)
def add_stages(b: Array, dt: float, k: Array, x: Array) -> None:
    """Add dt sum_q b[q] k[q] to x (d, B), the end of a Runge-Kutta step."""
    prefer512()
    for q in range(b.size):
        c = dt * b[q]
        for i in range(x.shape[0]):
            target, stage = x[i], k[q, i]
            for j in range(target.size):
                target[j] += c * stage[j]
