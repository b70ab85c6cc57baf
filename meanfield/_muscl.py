"""Second-order upwind fluxes: slopes by the minmod limiter, ghosts next to walls, boundaries.

    F = v^+ (c_k + s_k) + v^- (c_{k+1} - s_{k+1}),      s_k = minmod(c_k - c_{k-1}, c_{k+1} - c_k)/2

With c >= 0 both reconstructed values lie in [c/2, 3c/2], from which positivity follows under a CFL condition.
Loops begin at 0 over shifted slices, without a test inside: that is what makes them vector code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meanfield._jit import ELEMENTARY, njit
from meanfield._vectormath import prefer512

Array = NDArray[np.float64]

GHOSTS = 4
NO_FLUX, OUTFLOW, PERIODIC = range(3)


@njit(fastmath=ELEMENTARY, forceinline=True)
def minmod(a: float, b: float) -> float:
    """The smaller of two slopes of one sign, else 0; without branches."""
    low = a if a < b else b
    high = b if a < b else a
    upper = high if high < 0.0 else 0.0
    return low if low > upper else upper


@njit(fastmath=ELEMENTARY, forceinline=True)
def beyond(first: float, second: float) -> float:
    """Value of the ghost next to a wall: linear extrapolation, kept from going below 0."""
    g = 2.0 * first - second
    return 0.0 if g < 0.0 else g


@njit(fastmath=ELEMENTARY)
def slopes(c: Array, s: Array) -> None:
    """Fill s[k] with half the limited slope of the cell c[k + 1]; s has two entries less than c."""
    prefer512()
    c1, c2 = c[1:], c[2:]
    for k in range(s.size):
        s[k] = 0.5 * minmod(c1[k] - c[k], c2[k] - c1[k])


@njit(fastmath=ELEMENTARY)
def fluxes(w: float, v: Array, t: float, c: Array, s: Array, f: Array) -> None:
    """Fill f[k] with the upwind flux between c[k] and c[k + 1], half slopes s[k] and s[k + 1], velocity w v[k] + t."""
    prefer512()
    c1, s1 = c[1:], s[1:]
    for k in range(f.size):
        vk = w * v[k] + t
        up = vk if vk > 0.0 else 0.0
        down = vk if vk < 0.0 else 0.0
        f[k] = up * (c[k] + s[k]) + down * (c1[k] - s1[k])


@njit(fastmath=ELEMENTARY)
def close(boundary: int, n: int, first: int, v: Array) -> None:
    """Let nothing in, and out only where the boundary is open: v[k] is the velocity at face first + k of 0 .. n."""
    if boundary == PERIODIC:
        return
    for k in range(v.size):
        face = first + k
        if 0 < face < n:
            continue
        out = boundary == OUTFLOW and ((face == 0 and v[k] < 0.0) or (face == n and v[k] > 0.0))
        v[k] = v[k] if out else 0.0
