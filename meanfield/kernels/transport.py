"""Finite volumes for d_t g + div(v g) = 0 on the line: MUSCL with minmod, both stages of SSPRK2 in one pass.

Arrays of cells carry four ghosts on each side, one for every cell that a step of two stages reads
beyond its own. A tile goes through both stages in the first-level cache: g is read and
written once a step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meanfield._activate import TANH, apply_value
from meanfield._jit import ELEMENTARY, njit
from meanfield._muscl import GHOSTS, PERIODIC, beyond, close, fluxes, slopes
from meanfield._vectormath import prefer512, tanh
from meanfield._velocity import OUTSIDE, component, neurons

Array = NDArray[np.float64]

TILE = 1024


@njit(fastmath=ELEMENTARY)
def fill_ghosts(boundary: int, u: Array) -> None:
    """Fill the ghosts of u (N + 8,): wrapped, or linear at the wall and 0 farther out, where nothing flows."""
    n = u.size - 2 * GHOSTS
    for k in range(GHOSTS):
        if boundary == PERIODIC:
            u[k], u[GHOSTS + n + k] = u[n + k], u[GHOSTS + k]
        else:
            u[k], u[GHOSTS + n + k] = 0.0, 0.0
    if boundary != PERIODIC:
        u[GHOSTS - 1] = beyond(u[GHOSTS], u[GHOSTS + 1])
        u[GHOSTS + n] = beyond(u[GHOSTS + n - 1], u[GHOSTS + n - 2])


@njit(fastmath=ELEMENTARY)
def face_velocities(
    code: int, form: int, row: Array, low: float, dx: float, n: int, boundary: int, first: int, v: Array, work: Array
) -> None:
    """Fill v with the velocity at the faces first, first + 1, ... of n cells from `low`; wrapped if periodic.

    `work` (1 + width, B) is a workspace, B that of v or more.
    """
    prefer512()
    wraps = boundary == PERIODIC and (first < 0 or first + v.size > n)
    if form == OUTSIDE and code == TANH and not wraps:
        # In one loop: with the general passes below a step costs a sixth more.
        slope, start = row[0] * dx, row[0] * (low + dx * first) + row[1]
        for k in range(v.size):
            v[k] = tanh(start + slope * k)
        return
    line = work[0, : v.size]
    for k in range(v.size):
        line[k] = low + dx * (first + k)
    if wraps:
        for k in range(v.size):
            line[k] = low + dx * ((first + k) % n)
    if form == OUTSIDE:
        w, b = row[0], row[1]
        for k in range(v.size):
            v[k] = w * line[k] + b
        apply_value(code, v, v)
    else:
        neurons(code, form, row, work[:1], work[1:])
        component(code, form, row, 0, work[:1], work[1:], work[0])
        for k in range(v.size):
            v[k] = line[k]


@njit(fastmath=ELEMENTARY)
def _stage(lam: float, c: Array, v: Array, s: Array, f: Array, out: Array) -> None:
    """Fill out[k] = c[k + 2] - (flux out of it), with v[k] at the face left of c[k + 2]; out has four entries less."""
    prefer512()
    slopes(c, s)
    fluxes(lam, v, 0.0, c[1:], s, f)
    c2, f1 = c[2:], f[1:]
    for k in range(out.size):
        out[k] = c2[k] - (f1[k] - f[k])


@njit(fastmath=ELEMENTARY)
def _last_stage(lam: float, old: Array, c: Array, v: Array, s: Array, f: Array, out: Array) -> None:
    """Fill out with the mean of `old` and of what `_stage` makes of c."""
    prefer512()
    slopes(c, s)
    fluxes(lam, v, 0.0, c[1:], s, f)
    c2, f1 = c[2:], f[1:]
    for k in range(out.size):
        out[k] = 0.5 * (old[k] + (c2[k] - (f1[k] - f[k])))


@njit(fastmath=ELEMENTARY)
def tiles(
    code: int,
    form: int,
    width: int,
    rows: Array,
    given: Array,
    low: float,
    dx: float,
    dt: float,
    boundary: int,
    u: Array,
    out: Array,
    start: int,
    stop: int,
) -> None:
    """One SSPRK2 step of the cells start .. stop - 1 of u (N + 8,), ghosts filled, into out (N + 8,).

    `rows` (2, P) holds the parameters of the velocity at both stages; `given` (2, N + 9), if not empty, the
    velocities at the faces -4 .. N + 4 instead, closed at the walls.
    """
    n, lam = u.size - 2 * GHOSTS, dt / dx
    same = True
    for k in range(rows.shape[1]):
        same = same and rows[0, k] == rows[1, k]
    buffers, work = np.empty((2, TILE + 8)), np.empty((1 + width, TILE + 8))
    s, f, middle = np.empty(TILE + 8), np.empty(TILE + 8), np.empty(TILE + 8)
    for first in range(start, stop, TILE):
        q = min(TILE, stop - first)
        # Faces first - 2 .. first + q + 2: all of them for the first stage, the inner ones for the second.
        if given.size:
            v, w = given[0, first + 2 : first + q + 7], given[1, first + 2 : first + q + 7]
        else:
            v = buffers[0, : q + 5]
            w = v if same else buffers[1, : q + 5]
            face_velocities(code, form, rows[0], low, dx, n, boundary, first - 2, v, work)
            if not same:
                face_velocities(code, form, rows[1], low, dx, n, boundary, first - 2, w, work)
            if first < 3 or first + q + 3 > n:
                close(boundary, n, first - 2, v)
                close(boundary, n, first - 2, w)
        c = u[first : first + q + 8]
        # middle[k] is the cell first - 2 + k after the first stage.
        _stage(lam, c, v, s[: q + 6], f[: q + 5], middle[: q + 4])
        if boundary != PERIODIC:
            if first < 2:
                middle[1 - first] = beyond(middle[2 - first], middle[3 - first])
            if first + q + 2 > n:
                last = n - first + 1
                middle[last + 1] = beyond(middle[last], middle[last - 1])
        target = out[first + GHOSTS : first + GHOSTS + q]
        _last_stage(lam, c[GHOSTS:], middle[: q + 4], w[2:], s[: q + 2], f[: q + 1], target)


@njit(fastmath=ELEMENTARY)
def line_steps(
    code: int,
    form: int,
    width: int,
    table: Array,
    given: Array,
    low: float,
    dx: float,
    lengths: Array,
    boundary: int,
    u: Array,
    work: Array,
) -> None:
    """All steps of u (N + 8,) on one thread; the result is in u, `work` (N + 8,) is overwritten.

    `table` (L, 2, P) holds the parameters at the stages of each step; `given` as for `tiles`.
    """
    n = u.size - 2 * GHOSTS
    a, b = u, work
    for step in range(lengths.size):
        fill_ghosts(boundary, a)
        tiles(code, form, width, table[step], given, low, dx, lengths[step], boundary, a, b, 0, n)
        a, b = b, a
    if lengths.size % 2 == 1:
        u[:] = a
