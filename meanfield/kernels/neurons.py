"""Loops over the neurons of one hidden layer: outputs, gradient and update in one sweep.

Neurons go in groups of 64, which are the lanes of the vector loops: whatever the number of
inputs, outputs and samples, a row of 64 numbers belongs to one sample, so there are neither
remainders nor sums across lanes except in the outputs. Samples come in rows padded to a multiple of
four, inputs in columns padded likewise (`padded`). A group reads what it computed before the
last update, moves, and computes anew while all that is in cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import config
from numba.extending import intrinsic
from numpy.typing import NDArray

from meanfield._activate import TANH, apply_derivative, apply_value, slope_is_of_value, slopes_of_values
from meanfield._jit import ELEMENTARY, REDUCTION, njit
from meanfield._random import GROUP, fill_normal
from meanfield._vectormath import prefer512, tanh

Array = NDArray[np.float64]

if getattr(config, "DISABLE_JIT", False):  # set by numba from NUMBA_DISABLE_JIT

    def _prefetch(row: Array, i: int) -> None:
        """Do nothing without the compiler."""

else:
    from llvmlite import ir
    from numba import types

    @intrinsic
    def _prefetch(_context: Any, row: Any, i: Any) -> Any:  # noqa: ARG001 (numba asks for the arguments)
        """Ask for the cache line of row[i], soon to be read."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
            place = builder.bitcast(builder.gep(array.data, [arguments[1]]), byte)
            kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
            call = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
            # To be read, into the second-level cache, data.
            builder.call(call, [place, word(0), word(2), word(1)])
            return context.get_dummy_value()

        return types.void(row, types.intp), generate


# Rows of samples that stay in the first-level cache with their slopes.
STRIP = 32
# Up to this many columns tanh is fused with the products before and after it.
FUSED = 3
# Numbers in a cache line.
LINE = 8
# Where the rows of a flat piece of four begin.
ONE, TWO, THREE = GROUP, 2 * GROUP, 3 * GROUP


def padded(values: Array) -> Array:
    """Copy of (rows, columns) with zeros below and beside, up to multiples of four."""
    rows, columns = values.shape
    out = np.zeros((-(-rows // 4) * 4, -(-columns // 4) * 4))
    out[:rows, :columns] = values
    return out


@njit(fastmath=REDUCTION)
def _affine(x: Array, w: Array, s: Array) -> None:
    """Fill s = x w, (k, 64), from x (k, D) and w (D, 64): sixteen products for each number written.

    Four rows at a time are one flat piece, in which the compiler sees by itself that they do not overlap.
    """
    prefer512()
    flat, weights = s.reshape(s.size), w.reshape(w.size)
    for k in range(0, s.shape[0], 4):
        t = flat[k * GROUP : (k + 4) * GROUP]
        t[:] = 0.0
        for j in range(0, w.shape[0], 4):
            x00, x01, x02, x03 = x[k, j], x[k, j + 1], x[k, j + 2], x[k, j + 3]
            x10, x11, x12, x13 = x[k + 1, j], x[k + 1, j + 1], x[k + 1, j + 2], x[k + 1, j + 3]
            x20, x21, x22, x23 = x[k + 2, j], x[k + 2, j + 1], x[k + 2, j + 2], x[k + 2, j + 3]
            x30, x31, x32, x33 = x[k + 3, j], x[k + 3, j + 1], x[k + 3, j + 2], x[k + 3, j + 3]
            u = weights[j * GROUP : (j + 4) * GROUP]
            for i in range(GROUP):
                a, b, c, d = u[i], u[i + ONE], u[i + TWO], u[i + THREE]
                t[i] += (x00 * a + x01 * b) + (x02 * c + x03 * d)
                t[i + ONE] += (x10 * a + x11 * b) + (x12 * c + x13 * d)
                t[i + TWO] += (x20 * a + x21 * b) + (x22 * c + x23 * d)
                t[i + THREE] += (x30 * a + x31 * b) + (x32 * c + x33 * d)


@njit(fastmath=REDUCTION)
def _fire_tanh(x: Array, w: Array, a: Array, s: Array, f: Array, ahead: Array) -> None:
    """Fill s = tanh(x w) for up to three columns and one output, and add s a to f.

    `ahead`, of the shape of s, is what is read next: it comes from memory meanwhile.
    """
    prefer512()
    w0, w1, w2, outer = w[0], w[1], w[2], a[0]
    for k in range(s.shape[0]):
        x0, x1, x2 = x[k, 0], x[k, 1], x[k, 2]
        row, coming = s[k], ahead[k]
        for i in range(0, GROUP, LINE):
            _prefetch(coming, i)
        total = 0.0
        for i in range(GROUP):
            v = tanh(x0 * w0[i] + x1 * w1[i] + x2 * w2[i])
            row[i] = v
            total += outer[i] * v
        f[k, 0] += total


@njit(fastmath=REDUCTION)
def _fire(code: int, fused: bool, x: Array, w: Array, a: Array, s: Array, f: Array) -> None:
    """Fill s = sigma(x w), (k, 64), and add s a^T to f (k, C)."""
    prefer512()
    if fused:
        _fire_tanh(x, w, a, s, f, s)
        return
    _affine(x, w, s)
    flat = s.reshape(s.size)
    apply_value(code, flat, flat)
    for k in range(0, s.shape[0], 4):
        t = flat[k * GROUP : (k + 4) * GROUP]
        for c in range(f.shape[1]):
            outer = a[c]
            f0, f1, f2, f3 = 0.0, 0.0, 0.0, 0.0
            for i in range(GROUP):
                v = outer[i]
                f0 += v * t[i]
                f1 += v * t[i + ONE]
                f2 += v * t[i + TWO]
                f3 += v * t[i + THREE]
            f[k, c] += f0
            f[k + 1, c] += f1
            f[k + 2, c] += f2
            f[k + 3, c] += f3


@njit(fastmath=ELEMENTARY)
def _slopes(code: int, x: Array, w: Array, s: Array, out: Array) -> None:
    """Fill out = sigma'(u) from s = sigma(u) where that determines it, else from u = x w."""
    flat = out.reshape(out.size)
    if slope_is_of_value(code):
        slopes_of_values(code, s.reshape(s.size), flat)
        return
    _affine(x, w, out)
    apply_derivative(code, flat, flat)


@njit(fastmath=REDUCTION)
def _moments_tanh(x: Array, r: Array, s: Array, outer: Array, inner: Array) -> None:
    """Add sum_k r_k s_k to outer[0] and sum_k r_k (1 - s_k^2) x_kj to inner[j], j < 3, four samples at a time."""
    prefer512()
    g, g0, g1, g2 = outer[0], inner[0], inner[1], inner[2]
    for k in range(0, s.shape[0], 4):
        r0, r1, r2, r3 = r[k, 0], r[k + 1, 0], r[k + 2, 0], r[k + 3, 0]
        x00, x01, x02, x03 = x[k, 0], x[k + 1, 0], x[k + 2, 0], x[k + 3, 0]
        x10, x11, x12, x13 = x[k, 1], x[k + 1, 1], x[k + 2, 1], x[k + 3, 1]
        x20, x21, x22, x23 = x[k, 2], x[k + 1, 2], x[k + 2, 2], x[k + 3, 2]
        s0, s1, s2, s3 = s[k], s[k + 1], s[k + 2], s[k + 3]
        for i in range(GROUP):
            a, b, c, d = s0[i], s1[i], s2[i], s3[i]
            p, q, u, v = r0 * a, r1 * b, r2 * c, r3 * d
            g[i] += (p + q) + (u + v)
            a, b, c, d = r0 - p * a, r1 - q * b, r2 - u * c, r3 - v * d
            g0[i] += (x00 * a + x01 * b) + (x02 * c + x03 * d)
            g1[i] += (x10 * a + x11 * b) + (x12 * c + x13 * d)
            g2[i] += (x20 * a + x21 * b) + (x22 * c + x23 * d)


@njit(fastmath=REDUCTION)
def _weigh(r: Array, a: Array, work: Array, delta: Array) -> None:
    """Multiply delta (k, 64) by sum_c r_kc a_c; work is of its shape."""
    prefer512()
    _affine(r, a, work)
    weights, flat = work.reshape(work.size), delta.reshape(delta.size)
    for i in range(flat.size):
        flat[i] *= weights[i]


@njit(fastmath=REDUCTION)
def _add_products(x: Array, s: Array, out: Array) -> None:
    """Add x^T s to out (columns, 64), four samples and, where there are more than one, four columns at a time."""
    prefer512()
    flat, total = s.reshape(s.size), out.reshape(out.size)
    for k in range(0, s.shape[0], 4):
        t = flat[k * GROUP : (k + 4) * GROUP]
        if out.shape[0] == 1:
            x0, x1, x2, x3 = x[k, 0], x[k + 1, 0], x[k + 2, 0], x[k + 3, 0]
            for i in range(GROUP):
                total[i] += (x0 * t[i] + x1 * t[i + ONE]) + (x2 * t[i + TWO] + x3 * t[i + THREE])
            continue
        for j in range(0, out.shape[0], 4):
            x00, x01, x02, x03 = x[k, j], x[k + 1, j], x[k + 2, j], x[k + 3, j]
            x10, x11, x12, x13 = x[k, j + 1], x[k + 1, j + 1], x[k + 2, j + 1], x[k + 3, j + 1]
            x20, x21, x22, x23 = x[k, j + 2], x[k + 1, j + 2], x[k + 2, j + 2], x[k + 3, j + 2]
            x30, x31, x32, x33 = x[k, j + 3], x[k + 1, j + 3], x[k + 2, j + 3], x[k + 3, j + 3]
            u = total[j * GROUP : (j + 4) * GROUP]
            for i in range(GROUP):
                a, b, c, d = t[i], t[i + ONE], t[i + TWO], t[i + THREE]
                u[i] += (x00 * a + x01 * b) + (x02 * c + x03 * d)
                u[i + ONE] += (x10 * a + x11 * b) + (x12 * c + x13 * d)
                u[i + TWO] += (x20 * a + x21 * b) + (x22 * c + x23 * d)
                u[i + THREE] += (x30 * a + x31 * b) + (x32 * c + x33 * d)


@njit(fastmath=ELEMENTARY)
def _gradient(
    code: int,
    fused: bool,
    x: Array,
    scaled: Array,
    r: Array,
    w: Array,
    a: Array,
    s: Array,
    known: bool,
    work: Array,
    outer: Array,
    inner: Array,
) -> None:
    """Fill outer (C, 64) and inner (D, 64) with sum_k r_k dh(x_k)/d(a, w); s holds sigma(x w) where `known`.

    Without it s is a strip (32, 64) to work in; work is two of them. `scaled` is r x for one output.
    """
    prefer512()
    outer[:] = 0.0
    inner[:] = 0.0
    one = r.shape[1] == 1
    if fused and known:
        _moments_tanh(x, r, s, outer, inner)
    else:
        spill = np.empty((STRIP, r.shape[1]))
        for start in range(0, x.shape[0], STRIP):
            stop = min(start + STRIP, x.shape[0])
            points, weights, delta = x[start:stop], r[start:stop], work[0, : stop - start]
            fired = s[start:stop] if known else s[: stop - start]
            if not known:
                _fire(code, fused, points, w, a, fired, spill)
            if fused:
                _moments_tanh(points, weights, fired, outer, inner)
                continue
            _slopes(code, points, w, fired, delta)
            _add_products(weights, fired, outer)
            if one:
                _add_products(scaled[start:stop], delta, inner)
            else:
                _weigh(weights, a, work[1, : stop - start], delta)
                _add_products(points, delta, inner)
    if one:
        # The outer weight is a factor of the whole sum.
        for j in range(inner.shape[0]):
            for i in range(GROUP):
                inner[j, i] *= a[0, i]


@njit(fastmath=ELEMENTARY)
def _outputs(
    code: int, fused: bool, x: Array, w: Array, a: Array, s: Array, stored: bool, ahead: Array, f: Array
) -> None:
    """Add the outputs of a group to f (n, C); s (n, 64) keeps sigma where `stored`, else is a strip to work in."""
    if fused and stored:
        _fire_tanh(x, w, a, s, f, ahead)
        return
    for start in range(0, x.shape[0], STRIP):
        stop = min(start + STRIP, x.shape[0])
        strip = s[start:stop] if stored else s[: stop - start]
        _fire(code, fused, x[start:stop], w, a, strip, f[start:stop])


@njit(fastmath=ELEMENTARY)
def _load(theta: Array, first: int, stop: int, n_outer: int, a: Array, w: Array) -> None:
    """Copy the parameters of neurons first .. stop - 1 into a (C, 64) and w (D, 64); lanes left over do nothing."""
    a[:] = 0.0
    w[:] = 0.0
    for i in range(stop - first):
        a[0, i] = 1.0
    for p in range(theta.shape[0]):
        source = theta[p, first:stop]
        target = a[p] if p < n_outer else w[p - n_outer]
        for i in range(source.size):
            target[i] = source[i]


@njit(fastmath=ELEMENTARY)
def _move(
    theta: Array,
    target: Array,
    first: int,
    stop: int,
    n_outer: int,
    outer: Array,
    inner: Array,
    penalty: float,
    keep: float,
    h: float,
) -> None:
    """Fill target = keep theta - h (gradient + penalty theta) for neurons first .. stop - 1."""
    prefer512()
    for p in range(theta.shape[0]):
        gradient = outer[p] if p < n_outer else inner[p - n_outer]
        source, moved = theta[p, first:stop], target[p, first:stop]
        for i in range(stop - first):
            value = source[i]
            moved[i] = keep * value - h * (gradient[i] + penalty * value)


@njit(fastmath=ELEMENTARY)
def _shake(
    target: Array, first: int, stop: int, amplitude: float, seed: np.uint64, step: np.uint64, noise: Array
) -> None:
    """Add amplitude xi to the parameters of neurons first .. stop - 1; noise (P, 64) is scratch."""
    prefer512()
    fill_normal(seed, step, first, noise)
    for p in range(target.shape[0]):
        moved, drawn = target[p, first:stop], noise[p]
        for i in range(stop - first):
            moved[i] += amplitude * drawn[i]


@njit(fastmath=ELEMENTARY)
def sweep(
    code: int,
    n_outer: int,
    x: Array,
    r: Array,
    theta: Array,
    target: Array,
    fired: Array,
    update: bool,
    forward: bool,
    backward: bool,
    penalty: float,
    keep: float,
    h: float,
    amplitude: float,
    seed: np.uint64,
    step: np.uint64,
    first: int,
    stop: int,
    size: int,
    f: Array,
) -> None:
    """Sweep over the blocks first .. stop - 1 of neurons: update them, then add up their outputs, or one of both.

        target = keep theta - h (sum_k r_k dh(x_k, theta)/dtheta + penalty theta) + amplitude xi
        f[block] = sum over the block of h(x_k, target)

    Parameters
    ----------
    code, n_outer
        Activation and number of outer parameters.
    x, r
        Inputs (n, D) and gradient of the loss (n, C'), both `padded`; C' = 1 for one output.
    theta, target
        Parameters (P, M) before and after; may be the same array.
    fired
        sigma of every neuron at every sample from the last forward sweep, (groups, n, 64); with no group it is
        computed anew. Filled where `forward`.
    update, forward
        What to do; without `update` the outputs are those of theta.
    backward
        Whether the last block comes first. Every sweep that turns around finds what the one before left in
        cache; the numbers are the same.
    penalty, keep, h, amplitude, seed, step
        As in the equation, xi keyed by (seed, step, particle, component).
    first, stop, size
        Blocks, and the number of groups in a block.
    f
        Sums of each block, (blocks, n, C).
    """
    prefer512()
    n_neurons, columns = theta.shape[1], x.shape[1]
    fused = code == TANH and theta.shape[0] - n_outer <= FUSED and r.shape[1] == 1
    a, w = np.empty((r.shape[1], GROUP)), np.empty((columns, GROUP))
    outer, inner, noise = np.empty_like(a), np.empty_like(w), np.empty((theta.shape[0], GROUP))
    stored = fired.shape[0] > 0
    strip, work = np.empty((STRIP, GROUP)), np.empty((2, STRIP, GROUP))
    scaled = x * r if update and r.shape[1] == 1 else x
    n_groups = -(-n_neurons // GROUP)
    for b in range(first, stop):
        block = first + stop - 1 - b if backward else b
        for group in range(block * size, min((block + 1) * size, n_groups)):
            i, j = group * GROUP, min((group + 1) * GROUP, n_neurons)
            activity = fired[group] if stored else strip
            if update:
                _load(theta, i, j, n_outer, a, w)
                _gradient(code, fused, x, scaled, r, w, a, activity, stored, work, outer, inner)
                _move(theta, target, i, j, n_outer, outer, inner, penalty, keep, h)
                if amplitude != 0.0:
                    _shake(target, i, j, amplitude, seed, step, noise)
            if forward:
                total = f[block]
                if group % size == 0:
                    total[:] = 0.0
                _load(target if update else theta, i, j, n_outer, a, w)
                following = group + 1 if (group + 1) % size or not backward else group + 1 - 2 * size
                ahead = fired[following] if stored and 0 <= following < n_groups else activity
                _outputs(code, fused, x, w, a, activity, stored, ahead, total)


@njit(fastmath=ELEMENTARY)
def combine(parts: Array, scale: float, out: Array) -> None:
    """Fill out (C, n) = scale times the sum of parts (blocks, n', C) over the blocks in their order, n' >= n."""
    prefer512()
    for c in range(out.shape[0]):
        total = out[c]
        total[:] = 0.0
        for b in range(parts.shape[0]):
            part = parts[b, :, c]
            for k in range(total.size):
                total[k] += part[k]
        for k in range(total.size):
            total[k] *= scale
