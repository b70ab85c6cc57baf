"""Discrete adjoint of Runge-Kutta steps of a wide residual network: as `pullback`, by products of matrices.

A block of samples is a matrix in panels (see `_panels`), which is carried through all layers in the second level of
cache: W X + b and V H of the velocity, V^T lambda and W^T delta of its transpose, and the gradients delta X^T and
lambda H^T are all products of matrices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meanfield._activate import apply_derivative, apply_value, slope_is_of_value, slopes_of_values
from meanfield._jit import ELEMENTARY, njit
from meanfield._panels import (
    PANEL,
    ROWS,
    add_row_sums,
    add_sample_product,
    load_panels,
    panel_product,
    store_panels,
    transpose_panels,
)
from meanfield._vectormath import prefer512
from meanfield._velocity import INSIDE, OUTSIDE, TWO_LAYER, add_stages, stage_costate, stage_state

Array = NDArray[np.float64]


@njit(fastmath=ELEMENTARY)
def _velocities(code: int, form: int, row: Array, d: int, m: int, x: Array, hidden: Array, out: Array) -> None:
    """Fill the panels out with the velocity at the panels x; hidden holds panels of m rows."""
    if form == OUTSIDE:
        panel_product(row, 0, d, 1, row, d * d, 1, x, d, out, d)
        apply_value(code, out, out)
    elif form == INSIDE:
        apply_value(code, x, hidden)
        panel_product(row, 0, d, 1, row, d * d, 1, hidden, d, out, d)
    else:
        panel_product(row, 0, d, 1, row, m * d, 1, x, d, hidden, m)
        apply_value(code, hidden, hidden)
        outer = m * d + m
        panel_product(row, outer, m, 1, row, outer + d * m, 1, hidden, m, out, d)


@njit(fastmath=ELEMENTARY)
def write_down_wide(
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
    """Do as `pullback.write_down`, in blocks of `block` samples, a multiple of PANEL; d and width at least ROWS."""
    d, n_stages = y.shape[0], b.size
    # One row holds all panels, for the loops over stages.
    x, z = np.empty((1, d * block)), np.empty((1, d * block))
    hidden, k = np.empty(width * block), np.empty((n_stages, 1, d * block))
    for first in range(start, stop, block):
        last = min(first + block, stop)
        load_panels(y, first, last, x[0])
        for step in range(lengths.size):
            dt = lengths[step]
            for s in range(n_stages):
                stage_state(a, s, dt, x, k, z)
                store_panels(z[0], first, last, stages[step, s])
                _velocities(code, form, table[step, s], d, width, z[0], hidden, k[s, 0])
            add_stages(b, dt, k, x)
        store_panels(x[0], first, last, out)


@njit(fastmath=ELEMENTARY)
def _times(x: Array, out: Array) -> None:
    """Multiply out by x."""
    prefer512()
    for j in range(out.size):
        out[j] *= x[j]


@njit(fastmath=ELEMENTARY)
def _add_multiple(c: float, x: Array, out: Array) -> None:
    """Add c x to out."""
    prefer512()
    for j in range(out.size):
        out[j] += c * x[j]


@njit(fastmath=ELEMENTARY)
def _pull_two_layer(
    code: int, row: Array, d: int, m: int, x: Array, lam: Array, hidden: Array, slope: Array, turned: Array,
    corner: Array, gx: Array, gradient: Array,
) -> None:  # fmt: skip
    """V sigma(W x + b) + c: add the gradients of one stage, that of V transposed, and fill gx = (d_x v)^T lam."""
    outer, zero = m * d + m, np.zeros(1)
    panel_product(row, 0, d, 1, row, m * d, 1, x, d, slope, m)
    apply_value(code, slope, hidden)
    if slope_is_of_value(code):
        slopes_of_values(code, hidden, slope)
    else:
        apply_derivative(code, slope, slope)
    transpose_panels(lam, d, turned)
    add_sample_product(hidden, m, turned, d, zero, corner, gradient, outer)
    add_row_sums(lam, d, corner, gradient, outer + d * m)
    delta = hidden
    panel_product(row, outer, 1, m, zero, 0, 0, lam, d, delta, m)
    _times(slope, delta)
    transpose_panels(x, d, turned)
    add_sample_product(delta, m, turned, d, zero, corner, gradient, 0)
    add_row_sums(delta, m, corner, gradient, m * d)
    panel_product(row, 0, 1, d, zero, 0, 0, delta, m, gx, d)


@njit(fastmath=ELEMENTARY)
def _pull_square(
    code: int, form: int, row: Array, d: int, x: Array, lam: Array, hidden: Array, slope: Array, turned: Array,
    corner: Array, gx: Array, gradient: Array,
) -> None:  # fmt: skip
    """sigma(W x + b) or W sigma(x) + b: as `_pull_two_layer`."""
    zero, delta = np.zeros(1), lam
    if form == OUTSIDE:
        panel_product(row, 0, d, 1, row, d * d, 1, x, d, slope, d)
        apply_derivative(code, slope, slope)
        _times(slope, delta)
        transpose_panels(x, d, turned)
    else:
        apply_value(code, x, hidden)
        apply_derivative(code, x, slope)
        transpose_panels(hidden, d, turned)
    add_sample_product(delta, d, turned, d, zero, corner, gradient, 0)
    add_row_sums(delta, d, corner, gradient, d * d)
    panel_product(row, 0, 1, d, zero, 0, 0, delta, d, gx, d)
    if form == INSIDE:
        _times(slope, gx)


@njit(fastmath=ELEMENTARY)
def _turn_back(gradient: Array, at: int, d: int, m: int, work: Array) -> None:
    """Transpose the matrix (m, d) that begins at a place of a flat array, in place; work (m d,) is a workspace."""
    work[:] = gradient[at : at + m * d]
    for k in range(d):
        for i in range(m):
            gradient[at + k * m + i] = work[i * d + k]


@njit(fastmath=ELEMENTARY)
def pull_back_wide(
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
    """Do as `pullback.pull_back`, in blocks of `block` samples; fills `gradients`, which must hold zeros."""
    d, n_stages, m = p.shape[0], b.size, width
    x, lam, costate = np.empty(d * block), np.empty((1, d * block)), np.empty((1, d * block))
    hidden, slope, corner = np.empty(m * block), np.empty(m * block), np.empty(PANEL * max(ROWS, d, m))
    g, ones = np.empty((n_stages, 1, d * block)), np.ones(n_stages)
    turned = np.zeros(-(-d // PANEL) * PANEL * block)
    for first in range(start, stop, block):
        last = min(first + block, stop)
        load_panels(p, first, last, costate[0])
        for step in range(lengths.size - 1, -1, -1):
            dt = lengths[step]
            for s in range(n_stages - 1, -1, -1):
                row, gradient, gx = table[step, s], gradients[step, s], g[s, 0]
                stage_costate(a, b, s, dt, costate, g, lam)
                load_panels(stages[step, s], first, last, x)
                if form == TWO_LAYER:
                    _pull_two_layer(code, row, d, m, x, lam[0], hidden, slope, turned, corner, gx, gradient)
                else:
                    _pull_square(code, form, row, d, x, lam[0], hidden, slope, turned, corner, gx, gradient)
                if sources.size:
                    load_panels(sources[step, s], first, last, x)
                    _add_multiple(dt * b[s], x, gx)
            add_stages(ones, 1.0, g, costate)
        store_panels(costate[0], first, last, p)
    if form == TWO_LAYER:
        work = np.empty(m * d)
        for step in range(lengths.size):
            for s in range(n_stages):
                _turn_back(gradients[step, s], m * d + m, d, m, work)
