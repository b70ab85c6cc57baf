"""Finite volumes for d_t g + div(v g) = 0 on a rectangle: MUSCL with minmod, unsplit, SSPRK2 in strips of rows.

Cells are (N_1, N_2); arrays carry four ghost rows and two ghost columns on each side. Both stages of a
step run inside a strip, which stays in the second-level cache.

Velocities through the faces are affine in given rows: v_1 at the face i between rows is
w_1 base_1[i] + t_1[i], v_2 along row i is w_2 base_2[i] + t_2[i]; a base of a single row serves all of them
(velocities W sigma(x) + b need sigma only once along each axis).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meanfield._jit import ELEMENTARY, njit
from meanfield._muscl import GHOSTS, OUTFLOW, PERIODIC, beyond, fluxes, minmod, slopes
from meanfield._vectormath import prefer512

Array = NDArray[np.float64]

ROWS = 64


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
def fill_ghosts(boundary: int, u: Array) -> None:
    """Fill all ghosts of u (N_1 + 8, N_2 + 4)."""
    n = u.shape[0] - 2 * GHOSTS
    for i in range(n):
        _fill_columns(boundary, u[GHOSTS + i])
    if boundary == PERIODIC:
        for i in range(GHOSTS):
            u[i] = u[n + i]
            u[GHOSTS + n + i] = u[GHOSTS + i]
    else:
        _fill_row(u[GHOSTS], u[GHOSTS + 1], u[GHOSTS - 1])
        _fill_row(u[GHOSTS + n - 1], u[GHOSTS + n - 2], u[GHOSTS + n])


@njit(fastmath=ELEMENTARY)
def _row_slopes(before: Array, c: Array, after: Array, s: Array) -> None:
    """Fill s with the half slopes of row c across rows."""
    prefer512()
    for k in range(s.size):
        s[k] = 0.5 * minmod(c[k] - before[k], after[k] - c[k])


@njit(fastmath=ELEMENTARY)
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


@njit(fastmath=ELEMENTARY)
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


@njit(fastmath=ELEMENTARY)
def _update(c: Array, along: Array, low: Array, high: Array, out: Array) -> None:
    """Fill out with c minus what flows out of it."""
    prefer512()
    after = along[1:]
    for k in range(out.size):
        out[k] = c[k] - (after[k] - along[k]) - (high[k] - low[k])


@njit(fastmath=ELEMENTARY)
def _last_update(old: Array, c: Array, along: Array, low: Array, high: Array, out: Array) -> None:
    """Fill out with the mean of `old` and of what `_update` makes of c."""
    prefer512()
    after = along[1:]
    for k in range(out.size):
        out[k] = 0.5 * (old[k] + (c[k] - (after[k] - along[k]) - (high[k] - low[k])))


@njit(fastmath=ELEMENTARY)
def _stage(
    boundary: int,
    n: int,
    first: int,
    lo: int,
    hi: int,
    base_1: Array,
    base_2: Array,
    w: Array,
    t_1: Array,
    t_2: Array,
    source: Array,
    old: Array,
    out: Array,
    last: bool,
    work: Array,
) -> None:
    """One stage of the rows lo .. hi - 1 of `source`, whose row 0 is the row `first` - 4 of n."""
    m = source.shape[1] - 4
    sa, sb, below, above, along, s = (
        work[0, :m],
        work[1, :m],
        work[2, :m],
        work[3, :m],
        work[4, : m + 1],
        work[5, : m + 2],
    )
    for r in range(lo, hi + 1):
        row, before, c = first - GHOSTS + r, source[r - 1, 2 : m + 2], source[r, 2 : m + 2]
        i = row % n if boundary == PERIODIC else row
        k = i if base_1.shape[0] > 1 else 0
        after = source[min(r + 1, source.shape[0] - 1), 2 : m + 2]
        # sb, above: half slopes of row r, fluxes through the face below it.
        if boundary != PERIODIC and row in (0, n):
            if row == 0:
                _row_slopes(before, c, after, sb)
            if boundary == OUTFLOW and row == 0:
                _wall(w[0], base_1[0], t_1[0], -1.0, c, sb, above)
            elif boundary == OUTFLOW:
                _wall(w[0], base_1[k], t_1[n], 1.0, before, sa, above)
            else:
                above[:] = 0.0
        else:
            if r == lo:
                _row_slopes(source[r - 2, 2 : m + 2], before, c, sa)
            _cross(w[0], base_1[k], t_1[i], before, sa, c, after, sb, above)
        if r > lo:
            # The row below this face has both its fluxes now.
            end = out[r - 1, 2 : m + 2]
            if last:
                _last_update(old[r - 1, 2 : m + 2], before, along, below, above, end)
            else:
                _update(before, along, below, above, end)
        if r < hi:
            k = i if base_2.shape[0] > 1 else 0
            _along(boundary, w[1], base_2[k], t_2[i], source[r], s, along)
        sa, sb = sb, sa
        below, above = above, below


@njit(fastmath=ELEMENTARY)
def strips(
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
    """One SSPRK2 step of the rows start .. stop - 1 of u (N_1 + 8, N_2 + 4), ghosts filled, into out.

    `base_1` (B, 1 or N_1 + 1, N_2) and `base_2` (B, 1 or N_1, N_2 + 1) hold the bases, with B = 2 if they differ
    between the stages, else 1; w (2, 2) over stages and directions, t_1 (2, N_1 + 1), t_2 (2, N_1): all times dt / dx.
    """
    n, columns = u.shape[0] - 2 * GHOSTS, u.shape[1]
    middle, work = np.zeros((ROWS + 2 * GHOSTS, columns)), np.empty((6, columns))
    for first in range(start, stop, ROWS):
        q = min(ROWS, stop - first)
        source, target = u[first : first + q + 2 * GHOSTS], out[first : first + q + 2 * GHOSTS]
        inner = middle[: q + 2 * GHOSTS]
        for stage in range(2):
            lo = 2 if stage == 0 else GHOSTS
            hi = q + 2 * GHOSTS - lo
            if boundary != PERIODIC:
                lo, hi = max(lo, GHOSTS - first), min(hi, n - first + GHOSTS)
            one, two = base_1[min(stage, base_1.shape[0] - 1)], base_2[min(stage, base_2.shape[0] - 1)]
            if stage == 1:
                _stage(boundary, n, first, lo, hi, one, two, w[1], t_1[1], t_2[1], inner, source, target, True, work)
                continue
            _stage(boundary, n, first, lo, hi, one, two, w[0], t_1[0], t_2[0], source, source, inner, False, work)
            for r in range(lo, hi):
                _fill_columns(boundary, inner[r])
            if boundary != PERIODIC and first - GHOSTS + lo == 0:
                _fill_row(inner[lo], inner[lo + 1], inner[lo - 1])
            if boundary != PERIODIC and first - GHOSTS + hi == n:
                _fill_row(inner[hi - 1], inner[hi - 2], inner[hi])


@njit(fastmath=ELEMENTARY)
def box_steps(
    boundary: int, base_1: Array, base_2: Array, w: Array, t_1: Array, t_2: Array, u: Array, work: Array
) -> None:
    """All steps of u (N_1 + 8, N_2 + 4) on one thread; the result is in u, `work`, of its shape, is overwritten.

    w (L, 2, 2), t_1 (L, 2, N_1 + 1) and t_2 (L, 2, N_1) for L steps; the bases as for `strips`.
    """
    a, b = u, work
    for step in range(w.shape[0]):
        fill_ghosts(boundary, a)
        strips(boundary, base_1, base_2, w[step], t_1[step], t_2[step], a, b, 0, u.shape[0] - 2 * GHOSTS)
        a, b = b, a
    if w.shape[0] % 2 == 1:
        u[:] = a
