"""Derivatives, weights and equidistribution on a mesh of labels that moves, along one axis.

Arrays of a batch of lines are (n, N); `period` is infinite on an interval. Indices run over
the mesh x_0 < x_1 < ...; on a circle x_N stands for x_0 + period.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from meanfield._jit import REDUCTION, njit

Array = NDArray[np.float64]

UPWIND, CENTRAL, FOURTH = range(3)


@njit(fastmath=REDUCTION)
def cell_weights(x: Array, period: float, fourth: bool, q: Array) -> None:
    """Fill q with quadrature weights of the mesh, the domain of length 1.

    On an interval the lengths of the cells half way to the neighbours, the outer ones up to 0 and 1.
    On a circle dx/dxi by central differences in the index, of second or fourth order: spectral
    quadrature of a smooth mesh limits nothing else.
    """
    n = x.size
    if period == math.inf:
        for i in range(1, n - 1):
            q[i] = 0.5 * (x[i + 1] - x[i - 1])
        if n == 1:
            q[0] = 1.0
        else:
            q[0] = 0.5 * (x[0] + x[1])
            q[n - 1] = 1.0 - 0.5 * (x[n - 2] + x[n - 1])
        return
    for i in range(n):
        near = _at(x, i + 1, period) - _at(x, i - 1, period)
        if fourth:
            far = _at(x, i + 2, period) - _at(x, i - 2, period)
            q[i] = (8.0 * near - far) / (12.0 * period)
        else:
            q[i] = 0.5 * near / period


@njit(fastmath=REDUCTION)
def _at(x: Array, i: int, period: float) -> float:
    """Place of node i of a circle, unrolled: i may be a little below 0 or above N - 1."""
    n = x.size
    if i < 0:
        return float(x[i + n] - period)
    if i >= n:
        return float(x[i - n] + period)
    return float(x[i])


@njit(fastmath=REDUCTION)
def _coefficients(x: Array, period: float, i: int, first: int, count: int, c: Array) -> None:
    """Fill c with weights of the derivative at x_i of the polynomial through nodes first .. first + count - 1."""
    here = _at(x, i, period)
    own = i - first
    for j in range(count):
        if j == own:
            continue
        xj = _at(x, first + j, period)
        product = 1.0 / (xj - here)
        for k in range(count):
            if k not in (j, own):
                xk = _at(x, first + k, period)
                product *= (here - xk) / (xj - xk)
        c[j] = product
    # The derivative of a constant is 0.
    c[own] = 0.0
    total = 0.0
    for j in range(count):
        total += c[j]
    c[own] = -total


@njit(fastmath=REDUCTION)
def derivative_stencils(x: Array, period: float, kind: int, speed: Array, first: NDArray[np.int64], c: Array) -> None:
    """Fill the first node (N,) and the weights (N, count) of the derivative at every node.

    Upwind takes the cell ahead of the moving node, as the label seen from it comes from there; central and
    fourth order three and five nodes around it, one-sided at the ends of an interval.
    """
    n, count = x.size, c.shape[1]
    for i in range(n):
        start = i - count // 2
        if kind == UPWIND:
            start = i if speed[i] > 0.0 else i - 1
        if period == math.inf:
            start = min(max(start, 0), n - count)
        first[i] = start
        _coefficients(x, period, i, start, count, c[i])


@njit(fastmath=REDUCTION)
def add_transport(z: Array, first: NDArray[np.int64], c: Array, speed: Array, out: Array) -> None:
    """Add speed_i d_x z at every node of the lines z (n, N) to out (n, N)."""
    n_lines, n = z.shape
    count = c.shape[1]
    for i in range(n):
        start = first[i]
        for j in range(count):
            k = start + j
            k = k + n if k < 0 else (k - n if k >= n else k)
            w = speed[i] * c[i, j]
            # As the weights sum to 0: differences, so that a constant stays one to the last bit.
            for s in range(n_lines):
                out[s, i] += w * (z[s, k] - z[s, i])


@njit(fastmath=REDUCTION)
def _slopes(x: Array, period: float, z: Array, monitor: Array) -> None:
    """Fill monitor (cells,) with the root mean square over the lines of |d_x z|."""
    n_lines, n = z.shape
    for i in range(monitor.size):
        k = i + 1 if i + 1 < n else 0
        squares = 0.0
        for s in range(n_lines):
            squares += (z[s, k] - z[s, i]) ** 2
        monitor[i] = math.sqrt(squares / n_lines) / (_at(x, i + 1, period) - x[i])


@njit(fastmath=REDUCTION)
def _curvatures(x: Array, period: float, z: Array, monitor: Array) -> None:
    """Fill monitor (cells,) with the root mean square over the lines of |d_xx z|, to the power 2/5."""
    n_lines, n = z.shape
    at_node = np.empty(n)
    for i in range(n):
        inside = period != math.inf or 0 < i < n - 1
        j = i if inside else (1 if i == 0 else n - 2)
        before, after = j - 1 if j > 0 else n - 1, j + 1 if j < n - 1 else 0
        h0, h1 = x[j] - _at(x, j - 1, period), _at(x, j + 1, period) - x[j]
        squares = 0.0
        for s in range(n_lines):
            bend = (z[s, after] - z[s, j]) / h1 - (z[s, j] - z[s, before]) / h0
            squares += bend * bend
        at_node[i] = 2.0 * math.sqrt(squares / n_lines) / (h0 + h1)
    for i in range(monitor.size):
        k = i + 1 if i + 1 < n else 0
        monitor[i] = (0.5 * (at_node[i] + at_node[k])) ** 0.4


@njit(fastmath=REDUCTION)
def equidistributed(
    x: Array, period: float, z: Array, curvature: bool, strength: float, reach: float, monitor: Array, target: Array
) -> None:
    """Fill target with the mesh on which the monitor of the lines z (n, N) has the same mass in every cell.

        M = 1 + strength s/mean(s)

    with s the slope or a power of the curvature of z, smoothed over `reach` indices; monitor (cells,) is
    workspace. Ends of an interval stay; on a circle the mesh does not turn.
    """
    if curvature:
        _curvatures(x, period, z, monitor)
    else:
        _slopes(x, period, z, monitor)
    cells = monitor.size
    total, length = 0.0, 0.0
    for i in range(cells):
        h = _at(x, i + 1, period) - x[i]
        total += monitor[i] * h
        length += h
    scale = strength * length / total if total > 0.0 else 0.0
    for i in range(cells):
        monitor[i] = 1.0 + scale * monitor[i]
    _smooth(monitor, reach, period != math.inf)
    mass = 0.0
    for i in range(cells):
        mass += monitor[i] * (_at(x, i + 1, period) - x[i])
    _invert(x, period, monitor, mass / cells, target)


@njit(fastmath=REDUCTION)
def _smooth(monitor: Array, reach: float, closed: bool) -> None:
    """Average over indices with weights r^|k|, r = reach / (1 + reach): neighbours then differ by at most 1/r."""
    if reach <= 0.0:
        return
    n, r = monitor.size, reach / (1.0 + reach)
    ahead = monitor.copy()
    back = monitor.copy()
    # Twice round a circle: what is left of the start has died out, or the circle is short.
    for _ in range(2 if closed else 1):
        for i in range(n):
            before = ahead[i - 1] if i > 0 else (ahead[n - 1] if closed else ahead[0])
            ahead[i] = (1.0 - r) * monitor[i] + r * before
        for i in range(n - 1, -1, -1):
            after = back[i + 1] if i < n - 1 else (back[0] if closed else back[n - 1])
            back[i] = (1.0 - r) * monitor[i] + r * after
    for i in range(n):
        monitor[i] = (ahead[i] + back[i] - (1.0 - r) * monitor[i]) / (1.0 + r)


@njit(fastmath=REDUCTION)
def _invert(x: Array, period: float, monitor: Array, share: float, target: Array) -> None:
    """Places where the mass of the piecewise constant monitor reaches multiples of its share (de Boor).

    On a circle the multiples are shifted so that the nodes move by no mass in the mean: the mesh does not turn.
    """
    n, cells = x.size, monitor.size
    shift, turns = 0.0, 0.0
    if period != math.inf:
        below = 0.0
        for i in range(n):
            shift += (below - i * share) / n
            below += monitor[i] * (_at(x, i + 1, period) - x[i])
        turns = math.floor(shift / below)
        shift -= turns * below
        turns *= period
    i, below = 0, 0.0
    for j in range(n):
        goal = shift + j * share
        here = _mass(x, period, monitor, i)
        while below + here < goal and (i < cells - 1 or period != math.inf):
            below += here
            i += 1
            here = _mass(x, period, monitor, i)
        k = i % cells
        start = x[k] + (period if i >= cells else 0.0)
        target[j] = start + turns + (goal - below) / monitor[k]
    if period == math.inf:
        target[0], target[n - 1] = x[0], x[n - 1]


@njit(fastmath=REDUCTION)
def _mass(x: Array, period: float, monitor: Array, i: int) -> float:
    """Mass of cell i, round the circle."""
    k = i % monitor.size
    return float(monitor[k] * (_at(x, k + 1, period) - x[k]))
