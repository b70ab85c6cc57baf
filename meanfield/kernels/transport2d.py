"""Finite volumes for d_t g + div(v g) = 0 on a rectangle: MUSCL with minmod, unsplit, SSPRK2 in one pass.

Cells are (N_1, N_2); arrays carry four ghost rows on each side, and in every row two ghosts on each side of
the cells, which begin at column 8. Rows begin at lines of cache: a vector that straddles two of them costs two loads.
The second stage follows two rows behind the first, whose rows live in a ring of eight: g is read and written once
a step.

Velocities through the faces are affine in given rows: v_1 at the face i between rows is
w_1 base_1[i] + t_1[i], v_2 along row i is w_2 base_2[i] + t_2[i]; a base of a single row serves all of them
(velocities W sigma(x) + b need sigma only once along each axis).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import config
from numba.extending import intrinsic
from numpy.typing import NDArray

from meanfield._jit import ELEMENTARY, njit
from meanfield._muscl import GHOSTS, OUTFLOW, PERIODIC, beyond, fluxes, minmod, slopes
from meanfield._vectormath import prefer512

Array = NDArray[np.float64]

LINE = 8
# Column of the first cell.
LEFT = LINE
# Rows of the first stage that are kept, a power of two; the second stage reads five.
RING = 8


if getattr(config, "DISABLE_JIT", False):  # set by numba from NUMBA_DISABLE_JIT

    def part(a: Array, row: int, first: int, count: int) -> Array:
        """Entries first .. first + count - 1 of a row."""
        return a[row, first : first + count]

else:
    from numba import types
    from numba.np import arrayobj

    _arrays: Any = arrayobj

    @intrinsic
    def part(_context: Any, a: Any, _row: Any, _first: Any, _count: Any) -> Any:
        """Entries first .. first + count - 1 of a row (a slice), which do not count as a reference to the array.

        Counting costs as much as a short row. The array must outlive its part.
        """
        if a.ndim != 2 or a.layout != "C":
            return None
        kind = types.Array(a.dtype, 1, "C")

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array, row, first, count = arguments
            source = context.make_array(signature.args[0])(context, builder, value=array)
            found = context.make_array(kind)(context, builder)
            columns = builder.extract_value(source.shape, 1)
            start = builder.gep(source.data, [builder.add(builder.mul(row, columns), first)])
            _arrays.populate_array(found, start, (count,), (source.itemsize,), source.itemsize, None)
            return found._getvalue()  # noqa: SLF001

        return kind(a, types.intp, types.intp, types.intp), generate


@njit()
def aligned(rows: int, cells: int) -> Array:
    """Zeros for rows of so many cells and their ghosts, each row beginning at a line of cache."""
    columns = -(-(LEFT + cells + 2) // LINE) * LINE
    flat = np.zeros(rows * columns + LINE)
    first = -(np.int64(flat.ctypes.data) // 8) % LINE
    return flat[first : first + rows * columns].reshape(rows, columns)


@njit(fastmath=ELEMENTARY)
def _fill_columns(boundary: int, row: Array) -> None:
    """Fill the two ghosts at either end of a row (N + 4,)."""
    n = row.size - 4
    if boundary == PERIODIC:
        row[0], row[1], row[n + 2], row[n + 3] = row[n], row[n + 1], row[2], row[3]
    else:
        row[0], row[n + 3] = 0.0, 0.0
        row[1], row[n + 2] = beyond(row[2], row[3]), beyond(row[n + 1], row[n])


@njit(fastmath=ELEMENTARY)
def _fill_row(first: Array, second: Array, out: Array) -> None:
    """Fill a ghost row by what `beyond` makes of the two next to it."""
    prefer512()
    for k in range(out.size):
        out[k] = beyond(first[k], second[k])


@njit(fastmath=ELEMENTARY)
def fill_ghosts(boundary: int, m: int, u: Array) -> None:
    """Fill all ghosts of u, which holds rows of m cells."""
    n = u.shape[0] - 2 * GHOSTS
    for i in range(n):
        _fill_columns(boundary, part(u, GHOSTS + i, LEFT - 2, m + 4))
    if boundary == PERIODIC:
        for i in range(GHOSTS):
            u[i] = u[n + i]
            u[GHOSTS + n + i] = u[GHOSTS + i]
    else:
        _fill_row(u[GHOSTS], u[GHOSTS + 1], u[GHOSTS - 1])
        _fill_row(u[GHOSTS + n - 1], u[GHOSTS + n - 2], u[GHOSTS + n])


@njit(fastmath=ELEMENTARY, forceinline=True)
def _row_slopes(before: Array, c: Array, after: Array, s: Array) -> None:
    """Fill s with the half slopes of row c across rows."""
    prefer512()
    for k in range(s.size):
        s[k] = 0.5 * minmod(c[k] - before[k], after[k] - c[k])


@njit(fastmath=ELEMENTARY, forceinline=True)
def _cross(
    w: float, base: Array, t: float, low: Array, slope: Array, high: Array, after: Array, s: Array, f: Array
) -> None:
    """Half slopes s of row `high`, and fluxes f between the rows `low`, with half slopes `slope`, and `high`."""
    prefer512()
    for k in range(f.size):
        c, m = high[k], low[k]
        sk = 0.5 * minmod(c - m, after[k] - c)
        s[k] = sk
        vk = w * base[k] + t
        up = vk if vk > 0.0 else 0.0
        down = vk if vk < 0.0 else 0.0
        f[k] = up * (m + slope[k]) + down * (c - sk)


@njit(fastmath=ELEMENTARY)
def _wall(w: float, base: Array, t: float, sign: float, c: Array, s: Array, f: Array) -> None:
    """Fluxes out of the box through a wall row: sign is -1 where the box begins and +1 where it ends."""
    prefer512()
    for k in range(f.size):
        vk = sign * (w * base[k] + t)
        f[k] = sign * (vk if vk > 0.0 else 0.0) * (c[k] + sign * s[k])


@njit(fastmath=ELEMENTARY, forceinline=True)
def _along(boundary: int, w: float, base: Array, t: float, c: Array, s: Array, f: Array) -> None:
    """Fluxes f (N + 1,) along a row c (N + 4,); s (N + 2,) takes its half slopes."""
    slopes(c, s)
    fluxes(w, base, t, c[1:], s, f)
    last = f.size - 1
    if boundary == PERIODIC:
        f[last] = f[0]
        return
    left, right = w * base[0] + t, w * base[last] + t
    opened = boundary == OUTFLOW
    f[0] = left * (c[2] - s[1]) if opened and left < 0.0 else 0.0
    f[last] = right * (c[last + 1] + s[last]) if opened and right > 0.0 else 0.0


@njit(fastmath=ELEMENTARY, forceinline=True)
def _update(c: Array, along: Array, low: Array, high: Array, out: Array) -> None:
    """Fill out with c minus what flows out of it."""
    prefer512()
    after = along[1:]
    for k in range(out.size):
        out[k] = c[k] - (after[k] - along[k]) - (high[k] - low[k])


@njit(fastmath=ELEMENTARY, forceinline=True)
def _last_update(old: Array, c: Array, along: Array, low: Array, high: Array, out: Array) -> None:
    """Fill out with the mean of `old` and of what `_update` makes of c."""
    prefer512()
    after = along[1:]
    for k in range(out.size):
        out[k] = 0.5 * (old[k] + (c[k] - (after[k] - along[k]) - (high[k] - low[k])))


@njit(fastmath=ELEMENTARY, forceinline=True)
def _across(
    boundary: int,
    n: int,
    row: int,
    fresh: bool,
    w: float,
    bases: Array,
    t: Array,
    source: Array,
    kept: int,
    sa: Array,
    sb: Array,
    f: Array,
) -> None:
    """Half slopes sb of a row, and fluxes f through the face below it, sa being the row before's unless `fresh`."""
    m, i = f.size, row + GHOSTS
    face = row % n if boundary == PERIODIC else row
    base = part(bases, face if bases.shape[0] > 1 else 0, 0, m)
    before, c = part(source, (i - 1) & kept, LEFT, m), part(source, i & kept, LEFT, m)
    after = part(source, (i + 1) & kept, LEFT, m)
    if boundary == PERIODIC or 0 < row < n:
        if fresh:
            _row_slopes(part(source, (i - 2) & kept, LEFT, m), before, c, sa)
        _cross(w, base, t[face], before, sa, c, after, sb, f)
        return
    if row == 0:
        _row_slopes(before, c, after, sb)
    if boundary != OUTFLOW:
        f[:] = 0.0
    elif row == 0:
        _wall(w, base, t[0], -1.0, c, sb, f)
    else:
        _wall(w, base, t[n], 1.0, before, sa, f)


@njit(fastmath=ELEMENTARY, forceinline=True)
def _face(
    boundary: int,
    n: int,
    row: int,
    lo: int,
    hi: int,
    base_1: Array,
    base_2: Array,
    w: Array,
    t_1: Array,
    t_2: Array,
    source: Array,
    kept: int,
    old: Array,
    out: Array,
    ring: int,
    last: bool,
    work: Array,
) -> None:
    """Take a stage of the rows lo .. hi - 1 as far as the face below `row`: it completes the row before in `out`.

    To be called for row = lo .. hi. Row r of `source` is at index (r + 4) & kept, of `out` at (r + 4) & ring. `work`
    (6, columns) keeps what the next call needs: half slopes across rows and fluxes of two rows each, by turns, and the
    fluxes along a row.
    """
    prefer512()
    m, i, one, two = base_1.shape[1], row + GHOSTS, row & 1, 1 - (row & 1)
    below, above = part(work, 2 + one, 0, m), part(work, 2 + two, 0, m)
    along, s = part(work, 4, 0, m + 1), part(work, 5, 0, m + 2)
    sa, sb = part(work, one, 0, m), part(work, two, 0, m)
    _across(boundary, n, row, row == lo, w[0], base_1, t_1, source, kept, sa, sb, above)
    if row > lo:
        c, end = part(source, (i - 1) & kept, LEFT, m), part(out, (i - 1) & ring, LEFT, m)
        if last:
            _last_update(part(old, i - 1, LEFT, m), c, along, below, above, end)
        else:
            _update(c, along, below, above, end)
    if row < hi:
        k = row % n if boundary == PERIODIC else row
        base = part(base_2, k if base_2.shape[0] > 1 else 0, 0, m + 1)
        _along(boundary, w[1], base, t_2[k], part(source, i & kept, LEFT - 2, m + 4), s, along)


@njit(fastmath=ELEMENTARY)
def sweep(
    boundary: int,
    base_1: Array,
    base_2: Array,
    w: Array,
    t_1: Array,
    t_2: Array,
    u: Array,
    out: Array,
    start: int,
    stop: int,
) -> None:
    """One SSPRK2 step of the rows start .. stop - 1 of u, ghosts filled, into out, both `aligned` (N_1 + 8, N_2).

    `base_1` (B, 1 or N_1 + 1, N_2) and `base_2` (B, 1 or N_1, N_2 + 1) hold the bases, with B = 2 if they differ
    between the stages, else 1; w (2, 2) over stages and directions, t_1 (2, N_1 + 1), t_2 (2, N_1): all times dt / dx.
    """
    prefer512()
    n, m, mask, every = u.shape[0] - 2 * GHOSTS, base_1.shape[2], RING - 1, -1
    space, walls = aligned(RING + 12, m), boundary != PERIODIC
    middle, first, second = space[:RING], space[RING : RING + 6], space[RING + 6 :]
    a_1, a_2, w_a, p_1, p_2 = base_1[0], base_2[0], w[0], t_1[0], t_2[0]
    b_1, b_2, w_b, q_1, q_2 = base_1[len(base_1) - 1], base_2[len(base_2) - 1], w[1], t_1[1], t_2[1]
    lo, hi = start - 2, stop + 2
    if walls:
        lo, hi = max(lo, 0), min(hi, n)
    for row in range(lo, stop + 3):
        if row <= hi:
            _face(boundary, n, row, lo, hi, a_1, a_2, w_a, p_1, p_2, u, every, u, middle, mask, False, first)
        # The row before is complete: its ghosts, and next to walls the ghost row that it and its neighbour make.
        here, back, far = (row + GHOSTS) & mask, (row + GHOSTS - 1) & mask, (row + GHOSTS - 2) & mask
        if lo < row <= hi:
            _fill_columns(boundary, part(middle, back, LEFT - 2, m + 4))
        if walls and lo == 0 and row == 2:
            _fill_row(middle[GHOSTS], middle[GHOSTS + 1], middle[GHOSTS - 1])
        if walls and row == n:
            _fill_row(middle[back], middle[far], middle[here])
        r = row - 2
        if r >= start:
            _face(boundary, n, r, start, stop, b_1, b_2, w_b, q_1, q_2, middle, mask, u, out, every, True, second)


@njit(fastmath=ELEMENTARY)
def box_steps(
    boundary: int, base_1: Array, base_2: Array, w: Array, t_1: Array, t_2: Array, u: Array, work: Array
) -> None:
    """All steps of u, `aligned` (N_1 + 8, N_2), on one thread; the result is in u, after an odd number in `work`.

    w (L, 2, 2), t_1 (L, 2, N_1 + 1) and t_2 (L, 2, N_1) for L steps; the bases as for `sweep`.
    """
    a, b = u, work
    for step in range(w.shape[0]):
        fill_ghosts(boundary, base_1.shape[2], a)
        sweep(boundary, base_1, base_2, w[step], t_1[step], t_2[step], a, b, 0, u.shape[0] - 2 * GHOSTS)
        a, b = b, a
