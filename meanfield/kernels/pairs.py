"""Radial kernels evaluated inside the loop over pairs of labels: O(N) memory.

    w(x, y) = phi(|a(x) - a(y)| / length),   points a_i / length, (D, N): a row for each coordinate

A strip of kernel values is made in the first-level cache and used up at once. The loops
are written once for both precisions: points, strip and z share the precision.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from meanfield._jit import ELEMENTARY, REDUCTION, njit
from meanfield._singlemath import exp_decay_of, log_of
from meanfield._tiles import add_tile
from meanfield._vectormath import prefer512

Array = NDArray[np.float64]
Real = NDArray[np.float64] | NDArray[np.float32]

(
    GAUSSIAN,
    EXPONENTIAL,
    DISTANCE,
    LOGARITHM,
    MULTIQUADRIC,
    INVERSE_MULTIQUADRIC,
    CAUCHY,
    MATERN32,
    MATERN52,
    WENDLAND,
    INDICATOR,
) = range(11)

# Strips of values stay in the first-level cache, beside the points and z they are made of: one row, or four.
LONG_STRIP, STRIP = 1024, 512


@njit(fastmath=ELEMENTARY)
def add_squares(x: float, row: Real, period: float, out: Real) -> None:
    """Add |x - row_j|^2, on a circle of that circumference (infinite: on the line)."""
    prefer512()
    for j in range(out.size):
        gap = abs(x - row[j])
        gap = min(gap, period - gap)
        out[j] += gap * gap


@njit(fastmath=ELEMENTARY, forceinline=True)
def _square(base: float, x: float, y: float) -> float:
    return base + (x - y) * (x - y)


@njit(fastmath=ELEMENTARY)
def profile_row(code: int, shift: float, base: Real, x: float, row: Real, s: Real) -> None:
    """Fill s_j = phi(r_j), r_j^2 = base_j + |x - row_j|^2; `shift` is eps in log(r + eps).

    One coordinate comes in here and not by `base`: a pass over the strip less. `row` may be `s`.
    """
    prefer512()
    real = s.dtype.type
    one, root3, root5 = real(1.0), real(math.sqrt(3.0)), real(math.sqrt(5.0))
    if code == GAUSSIAN:
        for j in range(s.size):
            s[j] = exp_decay_of(-_square(base[j], x, row[j]))
    elif code == EXPONENTIAL:
        for j in range(s.size):
            s[j] = exp_decay_of(-np.sqrt(_square(base[j], x, row[j])))
    elif code == DISTANCE:
        for j in range(s.size):
            s[j] = np.sqrt(_square(base[j], x, row[j]))
    elif code == LOGARITHM:
        eps = real(shift)
        for j in range(s.size):
            s[j] = log_of(np.sqrt(_square(base[j], x, row[j])) + eps)
    elif code == MULTIQUADRIC:
        for j in range(s.size):
            s[j] = np.sqrt(one + _square(base[j], x, row[j]))
    elif code == INVERSE_MULTIQUADRIC:
        for j in range(s.size):
            s[j] = one / np.sqrt(one + _square(base[j], x, row[j]))
    elif code == CAUCHY:
        for j in range(s.size):
            s[j] = one / (one + _square(base[j], x, row[j]))
    elif code == MATERN32:
        for j in range(s.size):
            r = root3 * np.sqrt(_square(base[j], x, row[j]))
            s[j] = (one + r) * exp_decay_of(-r)
    elif code == MATERN52:
        third = real(1.0 / 3.0)
        for j in range(s.size):
            r = root5 * np.sqrt(_square(base[j], x, row[j]))
            s[j] = (one + r + third * r * r) * exp_decay_of(-r)
    elif code == WENDLAND:
        four, zero = real(4.0), real(0.0)
        for j in range(s.size):
            r = np.sqrt(_square(base[j], x, row[j]))
            h = max(one - r, zero)
            h = h * h
            s[j] = h * h * (four * r + one)
    else:
        zero = real(0.0)
        for j in range(s.size):
            s[j] = one if _square(base[j], x, row[j]) <= one else zero


@njit(fastmath=ELEMENTARY)
def _mask(strip: Real, squares: Real, limit: float) -> None:
    """Set to 0 what lies beyond the cut-off."""
    prefer512()
    zero = strip.dtype.type(0.0)
    for j in range(strip.size):
        strip[j] = strip[j] if squares[j] <= limit else zero


@njit(fastmath=ELEMENTARY, forceinline=True)
def _values(
    code: int, shift: float, limit: float, points: Real, period: Real, i: int, start: int, base: Real, out: Real
) -> None:
    """Fill out with w(x_i, x_j) for start <= j < start + out.size; `base` is a workspace, 0 in one plain dimension."""
    end, last = start + out.size, points.shape[0] - 1
    plain = limit == math.inf and period[last] == math.inf
    fused = last if plain else last + 1
    if fused > 0:
        base[:] = 0.0
    for d in range(fused):
        add_squares(points[d, i], points[d, start:end], period[d], base)
    if plain:
        profile_row(code, shift, base, points[last, i], points[last, start:end], out)
        return
    # All coordinates are in `base` already: the last one comes in as 0.
    out[:] = 0.0
    profile_row(code, shift, base, out[0], out, out)
    if limit < math.inf:
        _mask(out, base, limit)


@njit(fastmath=REDUCTION, forceinline=True)
def _dot(a: Real, b: Real) -> float:
    prefer512()
    total = a.dtype.type(0.0)
    for j in range(a.size):
        total += a[j] * b[j]
    return float(total)


@njit(fastmath=ELEMENTARY)
def _row_by_row(
    code: int,
    shift: float,
    limit: float,
    points: Real,
    period: Real,
    z: Real,
    reach: NDArray[np.int64],
    start: int,
    stop: int,
    out: Array,
) -> None:
    strip, zeros = np.empty(LONG_STRIP, dtype=z.dtype), np.zeros(LONG_STRIP, dtype=z.dtype)
    for i in range(start, stop):
        for s in range(z.shape[0]):
            out[s, i] = 0.0
        for first in range(reach[i, 0], reach[i, 1], LONG_STRIP):
            end = min(first + LONG_STRIP, reach[i, 1])
            values = strip[: end - first]
            _values(code, shift, limit, points, period, i, first, zeros[: end - first], values)
            for s in range(z.shape[0]):
                out[s, i] += _dot(values, z[s, first:end])


@njit(fastmath=ELEMENTARY)
def radial_rows(
    code: int,
    shift: float,
    limit: float,
    points: Real,
    period: Real,
    z: Real,
    reach: NDArray[np.int64],
    start: int,
    stop: int,
    out: Array,
) -> None:
    """Fill out_si = sum_j phi(|a_i - a_j|) z_sj over reach_i0 <= j < reach_i1, for start <= i < stop.

    Values beyond r^2 = `limit` are 0. Sums are double, within a strip in the precision of z.
    Shapes: points (D, N), period (D,) with infinity for a line, z (n, N), reach (N, 2), out (n, N).
    """
    n_samples = z.shape[0]
    together = n_samples - n_samples % 4
    if together == 0:
        _row_by_row(code, shift, limit, points, period, z, reach, start, stop, out)
        return
    rows = stop - (stop - start) % 4
    _row_by_row(code, shift, limit, points, period, z, reach, rows, stop, out)
    tile, zeros = np.empty((4, STRIP), dtype=z.dtype), np.zeros(STRIP, dtype=z.dtype)
    for i in range(start, rows, 4):
        for s in range(n_samples):
            out[s, i : i + 4] = 0.0
        for first in range(reach[i : i + 4, 0].min(), reach[i : i + 4, 1].max(), STRIP):
            end = min(first + STRIP, reach[i : i + 4, 1].max())
            for k in range(4):
                values = tile[k, : end - first]
                _values(code, shift, limit, points, period, i + k, first, zeros[: end - first], values)
                for s in range(together, n_samples):
                    out[s, i + k] += _dot(values, z[s, first:end])
            for s in range(0, together, 4):
                add_tile(tile, 0, 0, z, s, first, end, out, i)
