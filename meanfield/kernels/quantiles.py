"""Wasserstein distances of two laws: in pieces, by one walk along their quantile functions, and of sorted particles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meanfield._jit import REDUCTION, njit
from meanfield._vectormath import prefer512

Array = NDArray[np.float64]

# Sums are taken over blocks, so that round-off does not grow with their number of terms.
_BLOCK = 2048


@njit()
def _share(a: float, b: float, p: int) -> float:
    """Mean of |a + (b - a) s|^p over 0 <= s <= 1, for p = 1 or 2."""
    if p == 2:
        return (a * a + a * b + b * b) / 3.0
    if a * b >= 0.0:
        return 0.5 * (abs(a) + abs(b))
    return 0.5 * (a * a + b * b) / (abs(a) + abs(b))


@njit()
def quantile_distance(m: Array, a: Array, b: Array, n: Array, c: Array, d: Array, p: int) -> float:
    """Integral over 0 <= u <= 1 of |Q(u) - R(u)|^p for the laws of pieces (m, a, b) and (n, c, d), p = 1 or 2.

    Masses that are left over at the end by round-off are dropped.
    """
    total, i, k = 0.0, 0, 0
    left_m, left_n = m[0], n[0]
    while i < m.size and k < n.size:
        step = min(left_m, left_n)
        if step > 0.0:
            # Both quantiles at the ends of this stretch of mass.
            s0, s1 = 1.0 - left_m / m[i], 1.0 - (left_m - step) / m[i]
            r0, r1 = 1.0 - left_n / n[k], 1.0 - (left_n - step) / n[k]
            w, v = b[i] - a[i], d[k] - c[k]
            first = (a[i] + w * s0) - (c[k] + v * r0)
            last = (a[i] + w * s1) - (c[k] + v * r1)
            total += step * _share(first, last, p)
        # The piece that is used up exactly, or both.
        used_m, used_n = left_m <= left_n, left_n <= left_m
        left_m -= step
        left_n -= step
        if used_m:
            i += 1
            left_m = m[i] if i < m.size else 0.0
        if used_n:
            k += 1
            left_n = n[k] if k < n.size else 0.0
    return total


@njit(fastmath=REDUCTION)
def _gap(x: Array, y: Array, p: int) -> float:
    """Sum of |x_i - y_i|^p, p = 1 or 2."""
    prefer512()
    total = 0.0
    if p == 2:
        for i in range(x.size):
            d = x[i] - y[i]
            total += d * d
    else:
        for i in range(x.size):
            total += abs(x[i] - y[i])
    return total


@njit()
def mean_gap(x: Array, y: Array, p: int) -> float:
    """Mean of |x_i - y_i|^p over as many x (n,) as y (n,), n > 0, p = 1 or 2."""
    total = 0.0
    for start in range(0, x.size, _BLOCK):
        total += _gap(x[start : start + _BLOCK], y[start : start + _BLOCK], p)
    return total / x.size
