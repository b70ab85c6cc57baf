"""Velocities of residual networks in compiled loops: V sigma(W x + b) + c and its two short forms, at blocks of points.

Parameters come as one flat row: OUTSIDE, sigma(W x + b), holds W (d, d) and b (d,); INSIDE, W sigma(x) + b, the
same; TWO_LAYER, V sigma(W x + b) + c, holds W (m, d), b (m,), V (d, m) and c (d,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meanfield._activate import TANH, apply_value
from meanfield._jit import ELEMENTARY, njit
from meanfield._vectormath import prefer512, tanh

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
def _tanh_plane(row: Array, m: int, x: Array, out: Array) -> None:
    """Fill out (2, B) with V tanh(W x + b) + c, two neurons a pass, whose values stay in registers."""
    prefer512()
    x0, x1, y0, y1, outer = x[0], x[1], out[0], out[1], 3 * m
    c0, c1 = row[5 * m], row[5 * m + 1]
    for j in range(y0.size):
        y0[j] = c0
        y1[j] = c1
    for i in range(0, m - 1, 2):
        p0, p1, p2, q0, q1, q2 = (
            row[2 * i],
            row[2 * i + 1],
            row[2 * m + i],
            row[2 * i + 2],
            row[2 * i + 3],
            row[2 * m + i + 1],
        )
        u0, u1, v0, v1 = row[outer + i], row[outer + m + i], row[outer + i + 1], row[outer + m + i + 1]
        for j in range(y0.size):
            s, t = tanh((p2 + p0 * x0[j]) + p1 * x1[j]), tanh((q2 + q0 * x0[j]) + q1 * x1[j])
            y0[j] += u0 * s + v0 * t
            y1[j] += u1 * s + v1 * t
    if m % 2:
        i = m - 1
        p0, p1, p2, u0, u1 = row[2 * i], row[2 * i + 1], row[2 * m + i], row[outer + i], row[outer + m + i]
        for j in range(y0.size):
            s = tanh((p2 + p0 * x0[j]) + p1 * x1[j])
            y0[j] += u0 * s
            y1[j] += u1 * s


@njit(fastmath=ELEMENTARY, forceinline=True)
def triple(values: Array, at: int, stride: int, d: int) -> tuple[float, float, float]:
    """Return d = 1, 2 or 3 numbers from a place of a flat array, `stride` apart, and zeros."""
    return values[at], values[at + stride] if d > 1 else 0.0, values[at + 2 * stride] if d > 2 else 0.0


@njit(fastmath=ELEMENTARY, forceinline=True)
def triple_rows(x: Array, spare: Array) -> tuple[Array, Array, Array]:
    """Return d = 1, 2 or 3 rows of x (d, B), and rows of spare (2, B)."""
    d = x.shape[0]
    return x[0], x[1] if d > 1 else spare[0], x[2] if d > 2 else spare[1]


@njit(fastmath=ELEMENTARY)
def _tanh_space(row: Array, m: int, x: Array, out: Array) -> None:
    """Fill out (d, B), d at most 3, with V tanh(W x + b) + c, as `_tanh_plane`: absent components have no weight."""
    prefer512()
    d, spare = x.shape[0], np.zeros((4, x.shape[1]))
    outer = m * d + m
    x0, x1, x2 = triple_rows(x, spare[:2])
    y0, y1, y2 = triple_rows(out, spare[2:])
    c0, c1, c2 = triple(row, outer + d * m, 1, d)
    for j in range(y0.size):
        y0[j] = c0
        y1[j] = c1
        y2[j] = c2
    for i in range(m):
        shift = row[m * d + i]
        w0, w1, w2 = triple(row, i * d, 1, d)
        v0, v1, v2 = triple(row, outer + i, m, d)
        for j in range(y0.size):
            t = tanh(((shift + w0 * x0[j]) + w1 * x1[j]) + w2 * x2[j])
            y0[j] += v0 * t
            y1[j] += v1 * t
            y2[j] += v2 * t


@njit(fastmath=ELEMENTARY)
def velocities(code: int, form: int, row: Array, x: Array, hidden: Array, out: Array) -> None:
    """Fill out (d, B) with the velocity at points x (d, B)."""
    if form == TWO_LAYER and code == TANH and x.shape[0] <= 3:
        if x.shape[0] == 2:
            _tanh_plane(row, hidden.shape[0], x, out)
        else:
            _tanh_space(row, hidden.shape[0], x, out)
        return
    neurons(code, form, row, x, hidden)
    for i in range(x.shape[0]):
        component(code, form, row, i, x, hidden, out[i])


@njit(fastmath=ELEMENTARY)
def load_samples(factor: float, y: Array, first: int, last: int, x: Array) -> None:
    """Fill x (d, B) with the samples first <= j < last of y (d, n) times a factor, and with zeros beyond them."""
    prefer512()
    n = last - first
    for i in range(x.shape[0]):
        source, target = y[i, first:last], x[i]
        for j in range(n):
            target[j] = factor * source[j]
        for j in range(n, target.size):
            target[j] = 0.0


@njit(fastmath=ELEMENTARY)
def store_samples(x: Array, first: int, last: int, y: Array) -> None:
    """Fill the samples first <= j < last of y (d, n) from x (d, B)."""
    prefer512()
    for i in range(x.shape[0]):
        source, target = x[i], y[i, first:last]
        for j in range(target.size):
            target[j] = source[j]


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


@njit(fastmath=ELEMENTARY)
def stage_costate(a: Array, b: Array, s: int, dt: float, p: Array, g: Array, out: Array) -> None:
    """Fill out = dt (b[s] p + sum_{r > s} a[r, s] g[r]), the costate of stage s of a Runge-Kutta step, all (d, B)."""
    prefer512()
    for i in range(p.shape[0]):
        target, source, c = out[i], p[i], dt * b[s]
        for j in range(target.size):
            target[j] = c * source[j]
        for r in range(s + 1, b.size):
            if a[r, s] != 0.0:
                c, later = dt * a[r, s], g[r, i]
                for j in range(target.size):
                    target[j] += c * later[j]
