"""Error surfaces: the two sources separated, confidence intervals that cover, norms of vectors, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.diagnostics.surface import fit_surface
from meanfield.errors import ConfigError

WIDTH, DEPTH = np.array([8, 16, 32, 64]), np.array([10, 20, 40, 80, 160])
N, L = WIDTH[:, None], DEPTH[None, :]
TRUE = {"a": -1.3, "p": 1.0, "c": 7.0, "q": 2.0}


def surface(a, p, c, q):
    return a / L**p + c / N**q


def test_signed_sources_are_separated_to_round_off():
    fit = fit_surface(WIDTH, DEPTH, surface(**TRUE), signed=True)
    found = {"a": fit.a, "p": fit.p, "c": fit.c, "q": fit.q}
    for name, value in TRUE.items():
        assert np.isclose(found[name], value, rtol=1e-6), name
    assert fit.residual < 1e-7
    assert fit.n_points == 20


@pytest.mark.parametrize("orders", [{}, {"p": 1.0, "q": 2.0}])
def test_intervals_cover_the_truth_as_often_as_they_say(orders):
    exact, rng, draws = surface(1.3, 1.0, 7.0, 2.0), np.random.default_rng(5), 200
    covered = dict.fromkeys(("a", "c", *({"p", "q"} - set(orders))), 0)
    for _ in range(draws):
        noisy = exact * (1 + 0.02 * rng.standard_normal(exact.shape))
        fit = fit_surface(WIDTH, DEPTH, noisy, signed=True, **orders)
        for name in covered:
            low, high = fit.intervals[name]
            covered[name] += low <= {**TRUE, "a": 1.3}[name] <= high
    # 95 % of 200 within three standard deviations of a binomial.
    for name, count in covered.items():
        assert abs(count - 0.95 * draws) <= 3 * np.sqrt(draws * 0.95 * 0.05) + 1, (name, count)


def test_norms_of_vectors_at_an_angle_are_separated():
    s, r, g = 0.4 / L, 3.0 / N**2, 0.3
    fit = fit_surface(WIDTH, DEPTH, np.sqrt(s * s + r * r + 2 * g * s * r), signed=False)
    np.testing.assert_allclose([fit.a, fit.p, fit.c, fit.q, fit.alignment], [0.4, 1, 3, 2, g], rtol=1e-4)
    np.testing.assert_allclose(fit.magnitude(N, L), np.sqrt(s * s + r * r + 2 * g * s * r), rtol=1e-6)


def test_balance_and_the_dominant_source():
    fit = fit_surface(WIDTH, DEPTH, surface(2.0, 1.0, 8.0, 2.0), signed=True)
    np.testing.assert_allclose(fit.balance(WIDTH), WIDTH**2 / 4.0, rtol=1e-5)
    assert fit.dominant(64, 10) == "depth"
    assert fit.dominant(8, 160) == "width"
    np.testing.assert_allclose(fit.depth_part([10, 20]), [0.2, 0.1], rtol=1e-5)


def test_errors_lost_in_round_off_are_left_out():
    errors = surface(**TRUE)
    errors[0, 0] = 0.0
    fit = fit_surface(WIDTH, DEPTH, errors, signed=True)
    assert fit.n_points == 19
    assert np.isclose(fit.q, 2.0, rtol=1e-5)


def test_bad_surfaces_are_refused():
    good = surface(**TRUE)
    with pytest.raises(ConfigError, match="error must be >= 0 where it is a norm"):
        fit_surface(WIDTH, DEPTH, good, signed=False)
    with pytest.raises(ConfigError, match="width must hold sizes > 0"):
        fit_surface([0, 1, 2, 3], DEPTH, good, signed=True)
    with pytest.raises(ConfigError, match=r"error has shape \(4, 5\), expected \(4, 4\)"):
        fit_surface(WIDTH, DEPTH[:4], good, signed=True)
    with pytest.raises(ConfigError, match="4 errors cannot fit 4 parameters"):
        fit_surface(WIDTH[:2], DEPTH[:2], good[:2, :2], signed=True)
    with pytest.raises(ConfigError, match="confidence must be < 1"):
        fit_surface(WIDTH, DEPTH, good, signed=True, confidence=1.0)
    with pytest.raises(ConfigError, match="p must be > 0"):
        fit_surface(WIDTH, DEPTH, good, signed=True, p=-1.0)
