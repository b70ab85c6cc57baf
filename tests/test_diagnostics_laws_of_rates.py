"""Laws of rates: each is named on its own data, none where several fit, another power where it is one."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.diagnostics.laws_of_rates import LAWS, Law, classify_law
from meanfield.errors import ConfigError
from meanfield.exact_control import TerminalAdditive, TerminalLogistic, TerminalMultiplicative

T = np.geomspace(8.0, 8192.0, 11)
RNG = np.random.default_rng(6)


@pytest.mark.parametrize("law", [*LAWS, Law(1.0, 2.0), Law(0.5)])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_every_law_is_named_on_its_own_data(law, noise):
    rng = np.random.default_rng(5)
    values = 3.0 * T**-law.power * np.log(T / 0.7) ** law.logs * np.exp(noise * rng.standard_normal(len(T)))
    found = classify_law(T, values, laws=(*LAWS, Law(1.0, 2.0), Law(0.5)))
    assert found.law == law
    assert found.kind == str(law)
    assert found.amplitude == pytest.approx(3.0, rel=1e-5 if noise == 0.0 else 0.1)
    assert found.residuals[str(law)] == min(v for k, v in found.residuals.items() if k != "power")


def test_corrections_of_an_expansion_do_not_hide_the_law():
    # A straight line sees another slope, whose interval excludes the exponent.
    found = classify_law(T, T**-2.0 / (1.0 + 3.0 / T) ** 2)
    assert found.law == Law(2.0)
    assert found.high > -2.0
    assert found.low > -2.0


def test_closed_forms_of_terminal_problems_follow_their_laws():
    additive = [TerminalAdditive(0.5, 1.2, 0.3, t) for t in T]
    multiplicative = [TerminalMultiplicative(0.5, 1.2, 0.3, t) for t in T]
    logistic = [TerminalLogistic(0.3, t) for t in T]
    assert str(classify_law(T, [e.error for e in additive]).law) == "T^-2"
    assert str(classify_law(T, [e.cost for e in additive]).law) == "T^-1"
    assert str(classify_law(T, [e.error() for e in multiplicative]).law) == "T^-2"
    assert str(classify_law(T, [e.optimum().energy for e in multiplicative]).law) == "T^-1"
    laws = (*LAWS, Law(1.0, 2.0))
    assert str(classify_law(T, [e.error for e in logistic], laws=laws).law) == "T^-1 log T"
    assert str(classify_law(T, [e.cost for e in logistic], laws=laws).law) == "T^-1 log^2 T"


def test_another_power_is_not_taken_for_a_law():
    found = classify_law(T, 2.0 * T**-1.5 * np.exp(0.01 * RNG.standard_normal(len(T))))
    assert found.kind == "power"
    assert found.law is None
    assert found.low < -1.5 < found.high
    assert np.isnan(found.amplitude)


def test_a_short_window_leaves_it_undecided():
    window = (30.0, 1000.0)
    values = np.log(T) / T * np.exp(0.03 * np.cos(np.arange(len(T)) * 2.0))
    with pytest.raises(ConfigError, match="5 different t"):
        classify_law(T, values, window=(100.0, 200.0))
    found = classify_law(T, values, window=window)
    assert found.kind == "undecided"
    assert found.law is None
    assert found.n_points == 5


def test_exponentials_and_noise_follow_no_law():
    assert classify_law(T, np.exp(-T / 800.0)).kind == "none"
    assert classify_law(T, np.exp(RNG.standard_normal(len(T)))).kind == "none"


def test_named_wrongly_as_rarely_as_the_confidence_says():
    rng, named = np.random.default_rng(8), []
    for _ in range(60):
        named.append(classify_law(T, np.exp(0.03 * rng.standard_normal(len(T))) / T).kind)
    # Never another law, another power in one of twenty, no name where that is near.
    assert set(named) <= {"T^-1", "undecided", "power"}
    assert named.count("power") <= 3
    assert named.count("T^-1") >= 50


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: classify_law(T, -T), "value must be > 0"),
        (lambda: classify_law(T - 8.0, T), "t must be > 0"),
        (lambda: classify_law(T, T[:-1]), "value"),
        (lambda: classify_law(T, T, laws=()), "laws must name"),
        (lambda: classify_law(T, T, confidence=1.0), "confidence must be < 1"),
        (lambda: Law(1.0, -1.0), "logs must be >= 0"),
        (lambda: Law(np.inf), "power must be finite"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
