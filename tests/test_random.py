"""Counter-based random numbers: known answers, independence of the split, the normal law."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from meanfield._random import GROUP, fill_normal, philox

FULL = 2**32 - 1


@pytest.mark.parametrize(
    ("counter", "seed", "expected"),
    [
        ([0, 0, 0, 0], 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([FULL] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0A4093822,
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_answers(counter, seed, expected):
    words = np.repeat(np.array(counter, dtype=np.uint64)[:, None], 11, axis=1)
    philox(words, np.uint64(seed))
    np.testing.assert_array_equal(words, np.repeat(np.array(expected, dtype=np.uint64)[:, None], 11, axis=1))


def normals(seed, step, first, shape):
    out = np.empty(shape)
    fill_normal(np.uint64(seed), np.uint64(step), first, out)
    return out


@pytest.mark.parametrize("components", [1, 2, 5])
def test_numbers_do_not_depend_on_how_particles_are_split(components):
    whole = normals(3, 7, 5, (components, 300))
    cuts = [0, 1, 2, GROUP - 5, GROUP - 4, 150, 153, 300]
    parts = [normals(3, 7, 5 + a, (components, b - a)) for a, b in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    # Nor on how many components are asked for, nor on the strides of the array.
    np.testing.assert_array_equal(normals(3, 7, 5, (components + 3, 300))[:components], whole)
    strided = np.empty((300, components)).T
    fill_normal(np.uint64(3), np.uint64(7), 5, strided)
    np.testing.assert_array_equal(strided, whole)


def test_numbers_follow_box_muller_from_the_words():
    words = np.zeros((4, 1), dtype=np.uint64)
    words[:, 0] = 9, 1, 4, 2  # particle, pair of components, step in two words
    philox(words, np.uint64(12))
    a, b, c, d = (int(w) for w in words[:, 0])
    u, v = ((((a << 32) | b) >> 11) + 1) * 2.0**-53, (((c << 32) | d) >> 11) * 2.0**-53
    expected = np.sqrt(-2 * np.log(u)) * np.array([np.cos(2 * np.pi * v), np.sin(2 * np.pi * v)])
    np.testing.assert_allclose(normals(12, 4 + 2 * 2**32, 9, (4, 1))[2:, 0], expected, rtol=1e-13)


def test_every_part_of_the_key_changes_the_numbers():
    drawn = [
        normals(*key, (2, 8)) for key in [(0, 0, 0), (1, 0, 0), (2**32, 0, 0), (0, 1, 0), (0, 2**32, 0), (0, 0, 8)]
    ]
    flat = np.concatenate([d.ravel() for d in drawn])
    assert len(np.unique(flat)) == flat.size


def test_the_law_is_standard_normal_and_independent_along_every_part_of_the_key():
    n = 200_000
    z = normals(2026, 11, 0, (3, n))
    later = normals(2026, 12, 0, (1, n))[0]
    for row in z:
        assert stats.kstest(row, "norm").pvalue > 1e-3
    tail = np.mean(np.abs(z) > 4.0)
    assert abs(tail - 2 * stats.norm.sf(4.0)) < 4 * np.sqrt(2 * stats.norm.sf(4.0) / z.size)
    pairs = [(z[0], z[1]), (z[0], z[2]), (z[0], later), (z[0, :-1], z[0, 1:]), (z[0] ** 2, z[1] ** 2)]
    for x, y in pairs:
        assert abs(np.corrcoef(x, y)[0, 1]) < 4 / np.sqrt(n)
