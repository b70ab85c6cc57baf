"""Piecewise-linear maps on the Kuhn mesh of a box, evaluated by cell: points carried through many of them.

A network of ReLU layers that interpolates nodal values is evaluated without its neurons: the cell of a point is found
by rounding, its simplex by the order of the fractions, and d + 1 nodal values are combined. Outside the box the
value is that at the nearest point of the box.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meanfield._jit import REDUCTION, njit
from meanfield._vectormath import prefer512

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

# Points of a block: coordinates and stages stay in the first-level cache.
BLOCK = 512


@njit(fastmath=REDUCTION, forceinline=True)
def _inside(s: float, cells: float) -> float:
    """s clipped to [0, cells]; a NaN goes to 0, which keeps the place in the table (the state keeps the NaN)."""
    low = s if s > 0.0 else 0.0
    return low if low < cells else cells


@njit(fastmath=REDUCTION)
def _add_line(lo: float, scale: float, cells: int, values: Array, x: Array, out: Array) -> None:
    """Add to out (B,) the interpolant of values (cells + 1,) at x (B,)."""
    prefer512()
    last, top = cells - 1, float(cells)
    for j in range(x.size):
        s = _inside((x[j] - lo) * scale, top)
        whole = np.int64(s)
        i = whole if whole < last else last
        left = values[i]
        out[j] += left + (s - i) * (values[i + 1] - left)


@njit(fastmath=REDUCTION)
def _add_plane(lo: Array, scale: Array, cells: Integers, values: Array, x: Array, y: Array, out: Array) -> None:
    """Add to out (2, B) the interpolant of values (nodes * 2,) at (x, y)."""
    prefer512()
    row, top0, top1 = 2 * (cells[1] + 1), float(cells[0]), float(cells[1])
    last0, last1 = cells[0] - 1, cells[1] - 1
    lo0, lo1, scale0, scale1 = lo[0], lo[1], scale[0], scale[1]
    first, second = out[0], out[1]
    for n in range(x.size):
        s, t = _inside((x[n] - lo0) * scale0, top0), _inside((y[n] - lo1) * scale1, top1)
        i, j = np.int64(s), np.int64(t)
        i, j = (i if i < last0 else last0), (j if j < last1 else last1)
        u, v = s - i, t - j
        corner = i * row + 2 * j
        # On one side of the diagonal of a cell the way goes by the node to the right, on the other by the one above.
        middle = corner + (row if u >= v else 2)
        far = corner + row + 2
        big, small = (u, v) if u >= v else (v, u)
        a, b, c = values[corner], values[middle], values[far]
        first[n] += a + big * (b - a) + small * (c - b)
        a, b, c = values[corner + 1], values[middle + 1], values[far + 1]
        second[n] += a + big * (b - a) + small * (c - b)


@njit(fastmath=REDUCTION)
def _add_general(lo: Array, scale: Array, cells: Integers, values: Array, n_out: int, x: Array, out: Array) -> None:
    """Add to out (n_out, B) the interpolant of values (nodes * n_out,) at x (d, B), by sorted fractions."""
    d = x.shape[0]
    fraction, stride = np.empty(d), np.empty(d, dtype=np.int64)
    for n in range(x.shape[1]):
        place = np.int64(0)
        for i in range(d):
            s = _inside((x[i, n] - lo[i]) * scale[i], float(cells[i]))
            k = min(np.int64(s), cells[i] - 1)
            place = place * (cells[i] + 1) + k
            fraction[i] = s - k
        step = np.int64(n_out)
        for i in range(d - 1, -1, -1):
            stride[i] = step
            step *= cells[i] + 1
        for i in range(1, d):
            f, w = fraction[i], stride[i]
            k = i - 1
            while k >= 0 and fraction[k] < f:
                fraction[k + 1], stride[k + 1] = fraction[k], stride[k]
                k -= 1
            fraction[k + 1], stride[k + 1] = f, w
        place *= n_out
        for c in range(n_out):
            out[c, n] += values[place + c]
        for i in range(d):
            ahead, f = place + stride[i], fraction[i]
            for c in range(n_out):
                out[c, n] += f * (values[ahead + c] - values[place + c])
            place = ahead


@njit(fastmath=REDUCTION)
def add_interpolant(lo: Array, scale: Array, cells: Integers, values: Array, x: Array, out: Array) -> None:
    """Add to out (m, B) the interpolant of values (nodes * m,) at x (d, B); nodes in row-major order."""
    if x.shape[0] == 1 and out.shape[0] == 1:
        _add_line(lo[0], scale[0], cells[0], values, x[0], out[0])
    elif x.shape[0] == 2 and out.shape[0] == 2:
        _add_plane(lo, scale, cells, values, x[0], x[1], out)
    else:
        _add_general(lo, scale, cells, values, out.shape[0], x, out)


@njit(fastmath=REDUCTION)
def _block(
    lo: Array, scale: Array, cells: Integers, tables: Array, row: Integers, a: Array, b: Array,
    x: Array, z: Array, k: Array, add: Array,
) -> None:  # fmt: skip
    """x += sum_i b_i K_i, K_i the table row_i at x + sum_j a_ij K_j; z, add (d, B) and k (s, d, B) are workspaces."""
    d, n = x.shape
    for s in range(b.size):
        for i in range(d):
            for j in range(n):
                z[i, j] = x[i, j]
                k[s, i, j] = 0.0
        for r in range(s):
            if a[s, r] != 0.0:
                for i in range(d):
                    for j in range(n):
                        z[i, j] += a[s, r] * k[r, i, j]
        add_interpolant(lo, scale, cells, tables[row[s]], z, k[s])
    for i in range(d):
        for j in range(n):
            add[i, j] = 0.0
    for s in range(b.size):
        for i in range(d):
            for j in range(n):
                add[i, j] += b[s] * k[s, i, j]
    for i in range(d):
        for j in range(n):
            x[i, j] += add[i, j]


@njit(fastmath=REDUCTION)
def carry(
    lo: Array, scale: Array, cells: Integers, tables: Array, order: Integers, a: Array, b: Array,
    y: Array, out: Array, path: Array, start: int, stop: int,
) -> None:  # fmt: skip
    """Carry the points start <= j < stop of y (d, n) through all residual blocks, into out (d, n).

    `tables` (K, nodes * d) holds nodal values, `order` (blocks, s) the table of every stage of every block, a (s, s)
    and b (s,) the tableau; `path` (blocks + 1, d, n) keeps all states, or is empty.
    """
    d, n_stages, n_blocks = y.shape[0], b.size, order.shape[0]
    x, z, add = np.zeros((d, BLOCK)), np.empty((d, BLOCK)), np.empty((d, BLOCK))
    k = np.empty((n_stages, d, BLOCK))
    simple = n_stages == 1 and b[0] == 1.0
    for first in range(start, stop, BLOCK):
        q = min(BLOCK, stop - first)
        for i in range(d):
            x[i, :q] = y[i, first : first + q]
        if path.size:
            path[0, :, first : first + q] = x[:, :q]
        for step in range(n_blocks):
            if not simple:
                _block(lo, scale, cells, tables, order[step], a, b, x, z, k, add)
            elif d == 1:
                # In place: a point reads its own coordinate before it is written.
                _add_line(lo[0], scale[0], cells[0], tables[order[step, 0]], x[0], x[0])
            else:
                for i in range(d):
                    z[i] = x[i]
                add_interpolant(lo, scale, cells, tables[order[step, 0]], z, x)
            if path.size:
                path[step + 1, :, first : first + q] = x[:, :q]
        for i in range(d):
            out[i, first : first + q] = x[i, :q]


@njit(fastmath=REDUCTION)
def interpolate(lo: Array, scale: Array, cells: Integers, values: Array, y: Array, out: Array) -> None:
    """Fill out (m, n) with the interpolant of values (nodes * m,) at y (d, n)."""
    d, m = y.shape[0], out.shape[0]
    x, v = np.zeros((d, BLOCK)), np.empty((m, BLOCK))
    for first in range(0, y.shape[1], BLOCK):
        q = min(BLOCK, y.shape[1] - first)
        for i in range(d):
            x[i, :q] = y[i, first : first + q]
        v[:] = 0.0
        add_interpolant(lo, scale, cells, values, x, v)
        for i in range(m):
            out[i, first : first + q] = v[i, :q]
