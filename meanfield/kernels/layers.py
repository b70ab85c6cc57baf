"""Loops of the time step: stages, guards, and whole layers of a separable network.

States come in as (n, N), samples first. Everything fills an array it is given.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meanfield._activate import apply_derivative, apply_value
from meanfield._jit import ELEMENTARY, REDUCTION, njit
from meanfield._vectormath import prefer512

Array = NDArray[np.float64]

# One strip of labels: its slices of y, b and a few kernel rows stay in the first- and second-level caches.
STRIP = 1024


@njit(fastmath=ELEMENTARY)
def combine(y: Array, k: Array, weights: Array, h: float, out: Array) -> None:
    """Fill out = y + h sum_i weights_i k_i over flat arrays; `out` must not be `y`."""
    prefer512()
    first = True
    for i in range(weights.size):
        c = h * weights[i]
        if c == 0.0:
            continue
        stage = k[i]
        if first:
            for j in range(y.size):
                out[j] = y[j] + c * stage[j]
            first = False
        else:
            for j in range(y.size):
                out[j] += c * stage[j]
    if first:
        for j in range(y.size):
            out[j] = y[j]


@njit
def all_finite(y: Array) -> bool:
    """Whether every entry of a flat array is finite; compiled without fast-math."""
    prefer512()
    bad = 0
    for j in range(y.size):
        difference = y[j] - y[j]
        bad += 0 if difference == 0.0 else 1
    return bad == 0


@njit(fastmath=ELEMENTARY)
def error_norm(y: Array, new: Array, k: Array, weights: Array, h: float, rtol: float, atol: float, w: Array) -> float:
    """Weighted RMS norm of the error h sum_i weights_i k_i relative to atol + rtol max(|y|, |new|).

    `w` weighs the components (mean 1). The sum runs in a fixed order.
    """
    total = 0.0
    for j in range(y.size):
        e = 0.0
        for i in range(weights.size):
            e += weights[i] * k[i, j]
        r = h * e / (atol + rtol * max(abs(y[j]), abs(new[j])))
        total += w[j] * r * r
    return float(np.sqrt(total / y.size))


@njit(fastmath=ELEMENTARY)
def activate_rows(code: int, u: Array, bias: Array, scale: float, leak: float, y: Array, out: Array) -> None:
    """Fill out = sigma(scale u + bias) - leak y, row by row; `out` must not be `u`."""
    prefer512()
    for s in range(u.shape[0]):
        source, target, state = u[s], out[s], y[s]
        for j in range(source.size):
            target[j] = scale * source[j] + bias[j]
        apply_value(code, target, target)
        if leak != 0.0:
            for j in range(source.size):
                target[j] -= leak * state[j]


@njit(fastmath=ELEMENTARY)
def affine_rows(u: Array, bias: Array, scale: float, leak: float, y: Array) -> None:
    """Turn u into scale u + bias - leak y, row by row, in place."""
    prefer512()
    for s in range(u.shape[0]):
        target, state = u[s], y[s]
        for j in range(target.size):
            target[j] = scale * target[j] + bias[j] - leak * state[j]


@njit(fastmath=ELEMENTARY)
def euler_rows(code: int, u: Array, bias: Array, scale: float, leak: float, h: float, y: Array) -> None:
    """Advance y += h (sigma(scale u + bias) - leak y) row by row, strip by strip; `u` is overwritten."""
    prefer512()
    for s in range(u.shape[0]):
        for start in range(0, bias.size, STRIP):
            stop = min(start + STRIP, bias.size)
            rate, state, b = u[s, start:stop], y[s, start:stop], bias[start:stop]
            for j in range(rate.size):
                rate[j] = scale * rate[j] + b[j]
            apply_value(code, rate, rate)
            for j in range(rate.size):
                state[j] += h * (rate[j] - leak * state[j])


@njit(fastmath=ELEMENTARY)
def derivative_rows(code: int, u: Array, bias: Array, scale: float, v: Array, out: Array) -> None:
    """Fill out = sigma'(scale u + bias) v, row by row; `out` must not be `v`."""
    prefer512()
    for s in range(u.shape[0]):
        source, direction, target = u[s], v[s], out[s]
        for j in range(source.size):
            target[j] = scale * source[j] + bias[j]
        apply_derivative(code, target, target)
        for j in range(source.size):
            target[j] *= direction[j]


@njit(fastmath=REDUCTION)
def _add_moments(z: Array, right: Array, start: int, stop: int, moments: Array) -> None:
    """Add sum_j right_rj z_j over a strip to four moments at a time: one read of z serves four rows."""
    prefer512()
    for r in range(0, right.shape[0], 4):
        r0, r1 = right[r, start:stop], right[r + 1, start:stop]
        r2, r3 = right[r + 2, start:stop], right[r + 3, start:stop]
        a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
        for j in range(z.size):
            v = z[j]
            a0 += r0[j] * v
            a1 += r1[j] * v
            a2 += r2[j] * v
            a3 += r3[j] * v
        moments[r] += a0
        moments[r + 1] += a1
        moments[r + 2] += a2
        moments[r + 3] += a3


@njit(fastmath=ELEMENTARY)
def _expand(local: float, z: Array, left: Array, start: int, stop: int, c: Array, bias: Array, out: Array) -> None:
    """Fill out = bias + local z + sum_r c_r left_r over a strip, four rows at a time."""
    prefer512()
    for r in range(0, left.shape[0], 4):
        l0, l1 = left[r, start:stop], left[r + 1, start:stop]
        l2, l3 = left[r + 2, start:stop], left[r + 3, start:stop]
        c0, c1, c2, c3 = c[r], c[r + 1], c[r + 2], c[r + 3]
        if r == 0:
            for j in range(out.size):
                out[j] = bias[j] + ((c0 * l0[j] + c1 * l1[j]) + (c2 * l2[j] + c3 * l3[j]))
        else:
            for j in range(out.size):
                out[j] += (c0 * l0[j] + c1 * l1[j]) + (c2 * l2[j] + c3 * l3[j])
    if local != 0.0:
        for j in range(out.size):
            out[j] += local * z[j]


@njit(fastmath=ELEMENTARY)
def _add_stages(k: Array, start: int, stop: int, weights: Array, h: float, out: Array) -> None:
    """Add h sum_i weights_i k_i to `out` over a strip."""
    prefer512()
    for i in range(weights.size):
        stage, c = k[i, start:stop], h * weights[i]
        if c != 0.0:
            for j in range(out.size):
                out[j] += c * stage[j]


@njit(fastmath=ELEMENTARY)
def separable_steps(
    code: int,
    inside: bool,
    leak: float,
    local: float,
    left: Array,
    right: Array,
    bias: Array,
    amplitude: Array,
    a: Array,
    b: Array,
    dt: Array,
    y: Array,
) -> None:
    """Advance y through all steps of a network whose kernel has rank r, in place.

    d_t z = sigma(a_t W z + bias) - leak z, or a_t W sigma(z) + bias - leak z if
    `inside`, with (W z)_i = local z_i + sum_r left_ri sum_j right_rj z_j (the
    weights q_j are in `right`, the rank is a multiple of four). One sweep over
    the labels per stage: a strip is updated while in cache and its share of the
    next stage's moments is taken at once.

    Shapes: left, right (r, N); bias (N,); amplitude (steps, stages, r + 1), its
    last entry scaling the local part; a (stages, stages); b (stages,); dt (steps,); y (n, N).
    """
    rank, n_labels = left.shape
    n_stages = b.size
    k = np.empty((n_stages, n_labels))
    stage = np.empty(n_labels)
    fired = np.empty(STRIP)
    moments = np.empty(rank)
    for sample in range(y.shape[0]):
        state = y[sample]
        following = np.zeros(rank)
        for start in range(0, n_labels, STRIP):
            stop = min(start + STRIP, n_labels)
            z = state[start:stop]
            if inside:
                apply_value(code, z, fired[: stop - start])
                z = fired[: stop - start]
            _add_moments(z, right, start, stop, following)
        for step in range(amplitude.shape[0]):
            for i in range(n_stages):
                scale = amplitude[step, i]
                for r in range(rank):
                    moments[r] = scale[r] * following[r]
                    following[r] = 0.0
                source = state if i == 0 else stage
                target = stage if i + 1 < n_stages else state
                weights = a[i + 1, : i + 1] if i + 1 < n_stages else b
                for start in range(0, n_labels, STRIP):
                    stop = min(start + STRIP, n_labels)
                    z, active = source[start:stop], fired[: stop - start]
                    rate, following_z = k[i, start:stop], target[start:stop]
                    if inside:
                        apply_value(code, z, active)
                        _expand(scale[rank] * local, active, left, start, stop, moments, bias[start:stop], rate)
                    else:
                        _expand(scale[rank] * local, z, left, start, stop, moments, bias[start:stop], rate)
                        apply_value(code, rate, rate)
                    if leak != 0.0:
                        for j in range(rate.size):
                            rate[j] -= leak * z[j]
                    if i + 1 < n_stages:
                        following_z[:] = state[start:stop]
                    _add_stages(k, start, stop, weights, dt[step], following_z)
                    if inside:
                        apply_value(code, following_z, active)
                        _add_moments(active, right, start, stop, following)
                    else:
                        _add_moments(following_z, right, start, stop, following)
