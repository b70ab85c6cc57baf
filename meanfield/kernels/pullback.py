"""Discrete adjoint of Runge-Kutta steps of a residual network: stages written down, then costates pulled back.

The adjoint of y' = y + h sum_i b_i k_i, k_i = v(t_i, Y_i), Y_i = y + h sum_j a_ij k_j, goes through the stages
backwards: lambda_i = h (b_i p' + sum_{j > i} a_ji g_j), g_i = (d_y v)^T lambda_i, and p = p' + sum_i g_i. A block of
samples stays in cache through all steps; gradients of parameters are summed over its samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meanfield._activate import TANH, apply_derivative, apply_value, slope_is_of_value, slopes_of_values
from meanfield._jit import ELEMENTARY, REDUCTION, njit
from meanfield._vectormath import prefer512, tanh
from meanfield._velocity import (
    OUTSIDE,
    TWO_LAYER,
    add_stages,
    affine_row,
    load_samples,
    stage_costate,
    stage_state,
    store_samples,
    triple,
    triple_rows,
    velocities,
)

Array = NDArray[np.float64]


@njit(fastmath=ELEMENTARY)
def write_down(
    code: int,
    form: int,
    width: int,
    block: int,
    table: Array,
    a: Array,
    b: Array,
    lengths: Array,
    y: Array,
    stages: Array,
    out: Array,
    start: int,
    stop: int,
) -> None:
    """Carry the samples start <= j < stop of y (d, n) through all steps, into out; stages go into `stages`.

    `stages` (L, s, d, n) holds the states Y_i at which the velocity was taken; `block` samples are carried at a time,
    the rest is as for `particles.carry`.
    """
    prefer512()
    d, n_stages = y.shape[0], b.size
    x, z = np.zeros((d, block)), np.zeros((d, block))
    hidden, k = np.empty((width, block)), np.empty((n_stages, d, block))
    for first in range(start, stop, block):
        last = min(first + block, stop)
        load_samples(1.0, y, first, last, x)
        for step in range(lengths.size):
            dt = lengths[step]
            for s in range(n_stages):
                stage_state(a, s, dt, x, k, z)
                store_samples(z, first, last, stages[step, s])
                velocities(code, form, table[step, s], z, hidden, k[s])
            add_stages(b, dt, k, x)
        store_samples(x, first, last, out)


@njit(fastmath=REDUCTION)
def _dot(a: Array, b: Array) -> float:
    prefer512()
    total = 0.0
    for j in range(a.size):
        total += a[j] * b[j]
    return total


@njit(fastmath=REDUCTION)
def _sum(a: Array) -> float:
    prefer512()
    total = 0.0
    for j in range(a.size):
        total += a[j]
    return total


@njit(fastmath=REDUCTION)
def _neuron(weights: Array, at: int, delta: Array, x: Array, gradient: Array, place: int, bias: int, gx: Array) -> None:
    """Add what a neuron with input weights weights[at + k] and costate delta (B,) gives to its gradients and to gx."""
    prefer512()
    d, total = x.shape[0], 0.0
    if d == 2:
        w0, w1, x0, x1, g0, g1 = weights[at], weights[at + 1], x[0], x[1], gx[0], gx[1]
        s0, s1 = 0.0, 0.0
        for j in range(delta.size):
            v = delta[j]
            total += v
            s0 += v * x0[j]
            s1 += v * x1[j]
            g0[j] += w0 * v
            g1[j] += w1 * v
        gradient[place] += s0
        gradient[place + 1] += s1
        gradient[bias] += total
        return
    for k in range(d):
        w, source, target, s = weights[at + k], x[k], gx[k], 0.0
        for j in range(delta.size):
            s += delta[j] * source[j]
            target[j] += w * delta[j]
        gradient[place + k] += s
    for j in range(delta.size):
        total += delta[j]
    gradient[bias] += total


@njit(fastmath=ELEMENTARY)
def _weighted(row: Array, at: int, stride: int, lam: Array, slope: Array, delta: Array) -> None:
    """Fill delta = slope * sum_k row[at + k stride] lam[k] over a block."""
    prefer512()
    if lam.shape[0] == 2:
        v0, v1, l0, l1 = row[at], row[at + stride], lam[0], lam[1]
        for j in range(delta.size):
            delta[j] = slope[j] * (v0 * l0[j] + v1 * l1[j])
        return
    for j in range(delta.size):
        delta[j] = 0.0
    for k in range(lam.shape[0]):
        v, source = row[at + k * stride], lam[k]
        for j in range(delta.size):
            delta[j] += v * source[j]
    for j in range(delta.size):
        delta[j] *= slope[j]


@njit(fastmath=REDUCTION)
def _pull_plane(row: Array, m: int, i: int, x: Array, lam: Array, h: Array, slope: Array, gx: Array, g: Array) -> None:
    """All that neuron i of a two-layer velocity in the plane adds, in one loop over a block."""
    prefer512()
    at, outer = 2 * i, 3 * m + i
    u0, u1, v0, v1 = row[at], row[at + 1], row[outer], row[outer + m]
    x0, x1, l0, l1, g0, g1 = x[0], x[1], lam[0], lam[1], gx[0], gx[1]
    e0, e1, c, s0, s1 = 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(h.size):
        p, q, t = l0[j], l1[j], h[j]
        e0 += p * t
        e1 += q * t
        delta = (v0 * p + v1 * q) * slope[j]
        c += delta
        s0 += delta * x0[j]
        s1 += delta * x1[j]
        g0[j] += u0 * delta
        g1[j] += u1 * delta
    g[outer] += e0
    g[outer + m] += e1
    g[2 * m + i] += c
    g[at] += s0
    g[at + 1] += s1


@njit(fastmath=REDUCTION)
def _pull_tanh_plane(row: Array, m: int, i: int, x: Array, lam: Array, gx: Array, g: Array) -> None:
    """Add what `_pull_plane` adds for sigma = tanh, whose values are computed in passing and stay in registers."""
    prefer512()
    at, outer = 2 * i, 3 * m + i
    u0, u1, u2, v0, v1 = row[at], row[at + 1], row[2 * m + i], row[outer], row[outer + m]
    x0, x1, l0, l1, g0, g1 = x[0], x[1], lam[0], lam[1], gx[0], gx[1]
    e0, e1, c, s0, s1 = 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(x0.size):
        p, q, y, z = l0[j], l1[j], x0[j], x1[j]
        t = tanh((u2 + u0 * y) + u1 * z)
        e0 += p * t
        e1 += q * t
        delta = (v0 * p + v1 * q) * (1.0 - t * t)
        c += delta
        s0 += delta * y
        s1 += delta * z
        g0[j] += u0 * delta
        g1[j] += u1 * delta
    g[outer] += e0
    g[outer + m] += e1
    g[2 * m + i] += c
    g[at] += s0
    g[at + 1] += s1


@njit(fastmath=REDUCTION)
def _pull_tanh_space(row: Array, m: int, x: Array, lam: Array, gx: Array, g: Array) -> None:
    """Add what all neurons add for sigma = tanh and d at most 3, as `_pull_tanh_plane`."""
    prefer512()
    d, spare = x.shape[0], np.zeros((6, x.shape[1]))
    x0, x1, x2 = triple_rows(x, spare[:2])
    l0, l1, l2 = triple_rows(lam, spare[2:4])
    g0, g1, g2 = triple_rows(gx, spare[4:])
    sums = np.zeros(6)
    for i in range(m):
        at, outer, shift = i * d, m * d + m + i, row[m * d + i]
        w0, w1, w2 = triple(row, at, 1, d)
        v0, v1, v2 = triple(row, outer, m, d)
        e0, e1, e2, c, s0, s1, s2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for j in range(g0.size):
            p, q, r = l0[j], l1[j], l2[j]
            t = tanh(((shift + w0 * x0[j]) + w1 * x1[j]) + w2 * x2[j])
            e0 += p * t
            e1 += q * t
            e2 += r * t
            delta = (v0 * p + v1 * q + v2 * r) * (1.0 - t * t)
            c += delta
            s0 += delta * x0[j]
            s1 += delta * x1[j]
            s2 += delta * x2[j]
            g0[j] += w0 * delta
            g1[j] += w1 * delta
            g2[j] += w2 * delta
        sums[0], sums[1], sums[2], sums[3], sums[4], sums[5] = e0, e1, e2, s0, s1, s2
        for k in range(d):
            g[outer + k * m] += sums[k]
            g[at + k] += sums[3 + k]
        g[m * d + i] += c


@njit(fastmath=ELEMENTARY)
def _pull_two_layer(
    code: int, row: Array, x: Array, lam: Array, hidden: Array, slope: Array, delta: Array, gx: Array, gradient: Array
) -> None:
    """V sigma(W x + b) + c: add the gradients of one stage, summed over a block, and (d_x v)^T lam to gx."""
    d, m = x.shape[0], hidden.shape[0]
    outer = m * d + m
    for k in range(d):
        gradient[outer + d * m + k] += _sum(lam[k])
    if code == TANH and d <= 3:
        if d == 2:
            for i in range(m):
                _pull_tanh_plane(row, m, i, x, lam, gx, gradient)
        else:
            _pull_tanh_space(row, m, x, lam, gx, gradient)
        return
    for i in range(m):
        affine_row(row, i * d, row[m * d + i], x, slope[i])
    flat, flat_slope = hidden.ravel(), slope.ravel()
    apply_value(code, flat_slope, flat)
    if slope_is_of_value(code):
        slopes_of_values(code, flat, flat_slope)
    else:
        apply_derivative(code, flat_slope, flat_slope)
    for i in range(m):
        if d == 2:
            _pull_plane(row, m, i, x, lam, hidden[i], slope[i], gx, gradient)
            continue
        for k in range(d):
            gradient[outer + k * m + i] += _dot(lam[k], hidden[i])
        _weighted(row, outer + i, m, lam, slope[i], delta)
        _neuron(row, i * d, delta, x, gradient, i * d, m * d + i, gx)


@njit(fastmath=ELEMENTARY)
def _pull_square(
    code: int, form: int, row: Array, x: Array, lam: Array, hidden: Array, slope: Array, delta: Array, gx: Array,
    gradient: Array,
) -> None:  # fmt: skip
    """sigma(W x + b) or W sigma(x) + b: as `_pull_two_layer`."""
    d = x.shape[0]
    if form == OUTSIDE:
        for i in range(d):
            affine_row(row, i * d, row[d * d + i], x, slope[i])
            apply_derivative(code, slope[i], slope[i])
            for j in range(delta.size):
                delta[j] = slope[i, j] * lam[i, j]
            _neuron(row, i * d, delta, x, gradient, i * d, d * d + i, gx)
        return
    for i in range(d):
        apply_value(code, x[i], hidden[i])
        apply_derivative(code, x[i], slope[i])
    before = np.zeros_like(gx)
    for i in range(d):
        _neuron(row, i * d, lam[i], hidden, gradient, i * d, d * d + i, before)
    for i in range(d):
        for j in range(delta.size):
            gx[i, j] += before[i, j] * slope[i, j]


@njit(fastmath=ELEMENTARY)
def pull_back(
    code: int,
    form: int,
    width: int,
    block: int,
    table: Array,
    a: Array,
    b: Array,
    lengths: Array,
    stages: Array,
    sources: Array,
    p: Array,
    gradients: Array,
    start: int,
    stop: int,
) -> None:
    """Pull the costates of the samples start <= j < stop of p (d, n) back through all steps, in place.

    Adds to `gradients` (L, s, P) the derivatives in the parameters at the stages, summed over these samples.
    `sources`, of the shape of `stages` or empty, holds the gradients of a running cost at the stages.
    """
    prefer512()
    d, n_stages = p.shape[0], b.size
    x, costate, lam = np.zeros((d, block)), np.zeros((d, block)), np.zeros((d, block))
    hidden, slope, delta = np.zeros((width, block)), np.zeros((width, block)), np.zeros(block)
    g, ones = np.zeros((n_stages, d, block)), np.ones(n_stages)
    for first in range(start, stop, block):
        last = min(first + block, stop)
        load_samples(1.0, p, first, last, costate)
        for step in range(lengths.size - 1, -1, -1):
            dt = lengths[step]
            for s in range(n_stages - 1, -1, -1):
                stage_costate(a, b, s, dt, costate, g, lam)
                load_samples(1.0, stages[step, s], first, last, x)
                # Without a source no sample is loaded: zeros.
                if sources.size:
                    load_samples(dt * b[s], sources[step, s], first, last, g[s])
                else:
                    load_samples(0.0, p, first, first, g[s])
                row, gradient = table[step, s], gradients[step, s]
                if form == TWO_LAYER:
                    _pull_two_layer(code, row, x, lam, hidden, slope, delta, g[s], gradient)
                else:
                    _pull_square(code, form, row, x, lam, hidden, slope, delta, g[s], gradient)
            add_stages(ones, 1.0, g, costate)
        store_samples(costate, first, last, p)
