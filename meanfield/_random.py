"""Random numbers that depend on nothing but their key: Philox 4x32-10 and normals by Box-Muller.

    xi = N(seed, step, particle, component)

Ten rounds turn a counter of 128 bits under a key of 64 bits into 128 random bits. The key is the
seed, the counter holds particle, pair of components and step: a number can be drawn anywhere, in
any order, by any thread, and is always the same. Source: Salmon, Moraes, Dror, Shaw, "Parallel random
numbers: as easy as 1, 2, 3" (SC11, doi:10.1145/2063384.2063405).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meanfield._jit import ELEMENTARY, njit
from meanfield._vectormath import cos_bounded, log_positive, prefer512, sin_bounded

Array = NDArray[np.float64]
Words = NDArray[np.uint64]

# Particles are drawn in whole groups of this many, whichever of them are wanted: every number goes
# through the same machine code, however the particles are split.
GROUP = 64

_LOW = np.uint64(0xFFFFFFFF)
_32, _11 = np.uint64(32), np.uint64(11)
_FACTOR = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_UNIT = 2.0**-53
_TURN = 6.283185307179586


@njit
def philox(words: Words, seed: np.uint64) -> None:
    """Replace counters by random words: words (4, m), each below 2^32, under the key `seed`, 64 bits.

    The first word of the key is the low half of the seed.
    """
    prefer512()
    k0, k1 = seed & _LOW, seed >> _32
    a, b, c, d = words[0], words[1], words[2], words[3]
    for _ in range(10):
        for j in range(a.size):
            p, q = _FACTOR[0] * a[j], _FACTOR[1] * c[j]
            a[j] = (q >> _32) ^ b[j] ^ k0
            b[j] = q & _LOW
            c[j] = (p >> _32) ^ d[j] ^ k1
            d[j] = p & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW


@njit(fastmath=ELEMENTARY)
def _normal_pairs(words: Words, first: Array, second: Array) -> None:
    """Turn random words into two independent normals each, from uniforms of 53 bits."""
    prefer512()
    a, b, c, d = words[0], words[1], words[2], words[3]
    for j in range(first.size):
        # In (0, 1], whose logarithm is finite; and an angle in [0, 2 pi).
        u = _UNIT * (np.float64(np.int64(((a[j] << _32) | b[j]) >> _11)) + 1.0)
        angle = _TURN * (_UNIT * np.float64(np.int64(((c[j] << _32) | d[j]) >> _11)))
        radius = np.sqrt(-2.0 * log_positive(u))
        first[j] = radius * cos_bounded(angle)
        second[j] = radius * sin_bounded(angle)


@njit
def fill_normal(seed: np.uint64, step: np.uint64, first: int, out: Array) -> None:
    """Fill out (P, m) with standard normals of the components of particles first .. first + m - 1.

    Parameters
    ----------
    seed, step
        0 <= seed, step < 2^64.
    first
        Number of the first particle, >= 0; particles are below 2^32.
    out
        (P, m), any strides.
    """
    prefer512()
    words = np.empty((4, GROUP), np.uint64)
    even, odd = np.empty(GROUP), np.empty(GROUP)
    n_components, n_particles = out.shape
    low, high = step & _LOW, step >> _32
    for base in range(first // GROUP * GROUP, first + n_particles, GROUP):
        start, stop = max(base, first), min(base + GROUP, first + n_particles)
        for p in range(0, n_components, 2):
            for j in range(GROUP):
                words[0, j] = np.uint64(base + j)
                words[1, j] = np.uint64(p // 2)
                words[2, j] = low
                words[3, j] = high
            philox(words, seed)
            _normal_pairs(words, even, odd)
            for j in range(start, stop):
                out[p, j - first] = even[j - base]
            if p + 1 < n_components:
                for j in range(start, stop):
                    out[p + 1, j - first] = odd[j - base]
