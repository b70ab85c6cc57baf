"""Kinds of decay: none wrong on generated series of two kinds, rates and exponents recovered, open cases left open."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from meanfield.diagnostics.decay import classify_decay
from meanfield.errors import ConfigError

KINDS = ("exponential", "algebraic", "finite-time", "none")
T = np.linspace(0.0, 10.0, 200)


def relative_noise(rng):
    """A series of a random kind under multiplicative noise of 0.1 to 3 %."""
    kind, n = KINDS[rng.integers(4)], int(rng.integers(60, 401))
    s = np.linspace(0.0, 1.0, n)
    if kind == "exponential":
        u = np.exp(-rng.uniform(2.5, 12) * s)
        if rng.random() < 0.3:
            u = u + 10 ** rng.uniform(-3, -1)
    elif kind == "algebraic":
        if rng.random() < 0.3:
            s = np.concatenate([[0.0], np.geomspace(1e-3, 1.0, n - 1)])
        u = (1 + s * 10 ** rng.uniform(np.log10(5), 3)) ** -rng.uniform(0.5, 3)
    elif kind == "finite-time":
        u = np.maximum(1 - s / rng.uniform(0.5, 1.05), 0) ** rng.uniform(0.5, 3)
    else:
        waves = 1 + rng.uniform(0.1, 0.5) * np.cos(2 * np.pi * rng.uniform(2, 10) * s + rng.uniform(0, 6))
        u = (np.ones(n), np.exp(rng.uniform(0.2, 5) * s), waves)[rng.integers(3)]
    noise = 10 ** rng.uniform(-3, np.log10(0.03))
    return kind, 10 ** rng.uniform(-1, 2) * s, 10 ** rng.uniform(-3, 3) * u * (1 + noise * rng.standard_normal(n))


def absolute_noise(rng):
    """A series of a random kind under additive noise, oscillating decays among them."""
    kind, n = (*KINDS, "oscillating")[rng.integers(5)], int(rng.integers(80, 301))
    s = np.linspace(0.0, 1.0, n)
    if kind == "exponential":
        u = np.exp(-rng.uniform(3, 20) * s)
    elif kind == "algebraic":
        u = (1 + s * 10 ** rng.uniform(0.8, 2.0)) ** -rng.uniform(0.4, 2.5)
    elif kind == "finite-time":
        u = np.maximum(1 - s / rng.uniform(0.3, 0.95), 0) ** rng.choice([0.5, 1, 1.5, 2, 3])
    elif kind == "none":
        waves = 1 + rng.uniform(0.02, 0.8) * np.sin(2 * np.pi * rng.uniform(1.5, 15) * s + rng.uniform(0, 6))
        u = (np.ones(n), 1 + rng.uniform(0.2, 4) * s, waves, 2 - np.exp(-rng.uniform(1, 5) * s))[rng.integers(4)]
    else:
        u = np.exp(-rng.uniform(2, 6) * s) * np.abs(np.cos(np.pi * rng.uniform(4, 12) * s + rng.uniform(0, 3)))
    return (
        kind,
        5 + s * rng.uniform(0.5, 50),
        10 ** rng.uniform(-3, 3) * (u + 10 ** rng.uniform(-4, -2) * rng.standard_normal(n)),
    )


def confusion(generator, count, seed):
    rng, table = np.random.default_rng(seed), Counter()
    for _ in range(count):
        kind, t, values = generator(rng)
        table[kind, classify_decay(t, values).kind] += 1
    return table


def wrong(table):
    allowed = {k: (k, "undecided") for k in KINDS} | {"oscillating": ("exponential", "undecided")}
    return {pair: n for pair, n in table.items() if pair[1] not in allowed[pair[0]]}


def test_no_series_of_500_is_misnamed_and_few_are_left_undecided():
    table = confusion(relative_noise, 500, seed=2026)
    assert wrong(table) == {}
    assert sum(n for (_, named), n in table.items() if named == "undecided") <= 50
    assert all(table[k, k] > 80 for k in KINDS)


def test_other_ranges_and_additive_noise_are_not_misnamed_either():
    table = confusion(absolute_noise, 200, seed=77)
    assert wrong(table) == {}
    undecided = sum(n for (kind, named), n in table.items() if named == "undecided" and kind != "oscillating")
    assert undecided <= 20


def test_rate_of_an_exponential_and_its_floor_are_recovered():
    found = classify_decay(T, 3.0 * np.exp(-0.8 * T))
    assert found.kind == "exponential"
    assert found.value == pytest.approx(0.8, rel=1e-6)
    noisy = 3.0 * np.exp(-0.8 * T) + 0.2 + 0.002 * np.random.default_rng(1).standard_normal(200)
    found = classify_decay(T, noisy)
    assert found.kind == "exponential"
    assert found.floor == pytest.approx(0.2, rel=0.01)
    assert found.low <= 0.8 <= found.high


@pytest.mark.parametrize("p", [0.5, 1.0, 2.5])
def test_exponent_of_an_algebraic_decay_is_recovered(p):
    found = classify_decay(T, (1 + 4 * T) ** -p)
    assert found.kind == "algebraic"
    assert found.value == pytest.approx(p, rel=1e-3)


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0])
def test_depth_of_extinction_is_recovered(p):
    found = classify_decay(T, 2 * np.maximum(7.3 - T, 0.0) ** p)
    assert found.kind == "finite-time"
    assert found.value == pytest.approx(7.3, rel=1e-3)


def test_interval_of_the_rate_covers_the_truth():
    rng, hits = np.random.default_rng(5), 0
    for _ in range(60):
        found = classify_decay(T, np.exp(-0.5 * T) * (1 + 0.02 * rng.standard_normal(200)))
        hits += found.kind == "exponential" and found.low <= 0.5 <= found.high
    assert hits >= 58


def test_too_little_above_the_noise_stays_undecided():
    noise = 0.01 * np.random.default_rng(2).standard_normal(200)
    found = classify_decay(T, (1 + 100 * T) ** -3.0 + noise)
    assert found.kind == "undecided"
    assert "above the noise" in found.reason
    short = np.linspace(0.0, 1.0, 60)
    assert classify_decay(short, np.exp(-0.5 * short) * (1 + 0.05 * np.cos(900 * short))).kind == "undecided"


def test_growth_zero_and_a_level_do_not_decay():
    assert classify_decay(T, np.exp(0.3 * T)).kind == "none"
    assert classify_decay(T, np.zeros(200)).kind == "none"
    assert classify_decay(T, np.ones(200)).kind == "none"


@pytest.mark.parametrize(
    ("t", "values", "options", "words"),
    [
        (T[:5], T[:5], {}, "at least 12"),
        (T[::-1], T, {}, "increase"),
        (T, np.full(200, np.nan), {}, "finite"),
        (T, T, {"confidence": 1.0}, "confidence"),
        (T, T, {"resolution": 0.0}, "resolution"),
    ],
)
def test_series_that_cannot_be_judged_are_refused(t, values, options, words):
    with pytest.raises(ConfigError, match=words):
        classify_decay(t, values, **options)
