"""Rates and orders read off data recover those that made the data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import linregress
from scipy.stats import t as student

from meanfield.diagnostics.rates import fit_algebraic, fit_exponential, fit_rate, observed_order
from meanfield.errors import ConfigError

H = 0.5 ** np.arange(2, 9)


def test_rate_of_a_power_is_its_exponent():
    fit = fit_rate(H, 3.0 * H**2.5)
    assert fit.slope == pytest.approx(2.5, abs=1e-13)
    assert fit.intercept == pytest.approx(np.log(3.0), abs=1e-12)
    assert fit.high - fit.low < 1e-12
    assert fit.n_points == 7


def test_confidence_interval_is_that_of_linear_regression():
    rng = np.random.default_rng(0)
    error = H**2 * np.exp(0.1 * rng.normal(size=7))
    fit, want = fit_rate(H, error, confidence=0.9), linregress(np.log(H), np.log(error))
    half = student.ppf(0.95, 5) * want.stderr
    np.testing.assert_allclose(
        [fit.slope, fit.intercept, fit.low, fit.high],
        [want.slope, want.intercept, want.slope - half, want.slope + half],
    )
    rest = np.log(error) - want.intercept - want.slope * np.log(H)
    assert fit.residual == pytest.approx(np.sqrt((rest**2).mean()))


def test_confidence_interval_covers_as_often_as_it_says():
    rng, hits = np.random.default_rng(1), 0
    for _ in range(2000):
        fit = fit_rate(H, H**2 * np.exp(0.1 * rng.normal(size=7)), confidence=0.8)
        hits += fit.low <= 2.0 <= fit.high
    # Binomial with p = 0.8: five standard deviations are 0.045.
    assert abs(hits / 2000 - 0.8) < 0.045


def test_two_points_give_a_slope_without_an_interval():
    fit = fit_rate([1.0, 0.5], [1.0, 0.25])
    assert (fit.slope, fit.low, fit.high) == (pytest.approx(2.0), -np.inf, np.inf)


def test_decay_fits_look_at_their_window_only():
    t = np.linspace(0.1, 10, 200)
    value = np.where(t < 3, 5.0, 2 * np.exp(-0.7 * t))
    assert fit_exponential(t, value, window=(3.0, 10.0)).slope == pytest.approx(-0.7, abs=1e-12)
    assert abs(fit_exponential(t, value).slope + 0.7) > 0.05
    value = np.where(t < 3, 5.0, 2 * t**-0.25)
    assert fit_algebraic(t, value, window=(3.0, 10.0)).slope == pytest.approx(-0.25, abs=1e-12)
    assert fit_algebraic(t, value, window=(3.0, 10.0)).n_points == int((t >= 3).sum())


def test_observed_order_is_the_median_of_the_finest_four_above_round_off():
    h = 0.5 ** np.arange(12)
    error = h**4
    error[:6] = 7.0 * h[:6]  # not yet asymptotic: with every slope the median would be 1
    floor = 1e3 * np.finfo(float).eps
    error = np.where(error < floor, 0.3 * floor, error)
    found = observed_order(h[::-1], error[::-1])
    assert found.order == pytest.approx(4.0, abs=1e-12)
    assert len(found.slopes) == int((error > floor).sum()) - 1 > 8
    # With a larger scale fewer errors count.
    assert len(observed_order(h, error, scale=100.0).slopes) < len(found.slopes)
    assert observed_order([1.0, 0.5, 0.25], [1.0, 0.5, 0.125]).order == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("h", "error"),
    [
        ([1.0], [1.0]),
        ([1.0, 1.0], [1.0, 2.0]),
        ([1.0, 0.5], [1.0, 0.0]),
        ([1.0, 0.5], [1.0, np.nan]),
        ([1, 2, 3], [1, 2]),
    ],
)
def test_rates_refuse_data_without_a_rate(h, error):
    with pytest.raises(ConfigError):
        fit_rate(h, error)


def test_observed_order_refuses_pure_round_off():
    with pytest.raises(ConfigError, match="round-off"):
        observed_order(H, np.full(7, 1e-15))
    with pytest.raises(ConfigError, match="confidence"):
        fit_rate(H, H, confidence=1.0)
    with pytest.raises(ConfigError, match="two different"):
        fit_exponential(H, H, window=(5.0, 6.0))
