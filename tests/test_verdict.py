"""Verdicts hold within their tolerance and only there."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from meanfield import ConfigError, Verdict
from meanfield.verdict import exit_code, table

WORDS = {"reason": "round-off", "source": "consequence"}


@pytest.mark.parametrize(
    ("predicted", "measured", "tolerance", "relative", "status"),
    [
        (2.0, 2.01, 0.01, True, "holds"),
        (2.0, 2.03, 0.01, True, "fails"),
        (-2.0, -2.01, 0.01, True, "holds"),
        (0.0, 0.009, 0.01, False, "holds"),
        (0.0, -0.011, 0.01, False, "fails"),
        (2.0, math.nan, 0.5, True, "fails"),
        (2.0, math.inf, 0.5, True, "fails"),
    ],
)
def test_near(predicted, measured, tolerance, relative, status):
    verdict = Verdict.near("c", predicted, measured, tolerance=tolerance, relative=relative, **WORDS)
    assert verdict.status == status
    assert verdict.row()["passed"] == int(status == "holds")


def test_bounds_and_nan():
    assert Verdict.at_most("c", 1.0, 1.0, **WORDS).status == "holds"
    assert Verdict.at_most("c", 1.0, 1.1, **WORDS).status == "fails"
    assert Verdict.at_most("c", 1.0, math.nan, **WORDS).status == "fails"
    assert Verdict.at_least("c", 1.0, 1.0, **WORDS).status == "holds"
    assert Verdict.at_least("c", 1.0, 0.9, **WORDS).status == "fails"
    assert Verdict.at_least("c", 1.0, math.nan, **WORDS).status == "fails"


def test_only_fails_fails_an_experiment():
    refuted = Verdict("c", 1.0, 2.0, 0.1, "refuted", "counter-example", "theorem")
    untested = Verdict.not_tested("c", "too small", "theorem")
    assert exit_code([refuted, untested]) == 0
    assert exit_code([refuted, Verdict.at_most("c", 0.0, 1.0, **WORDS)]) == 3
    assert refuted.row()["passed"] == 1


def test_table_shows_figures_and_reasons_of_what_does_not_hold():
    text = io.StringIO()
    verdicts = [Verdict.near("fine", 1.0, 1.0, tolerance=0.1, **WORDS), Verdict.at_most("[bad]", 0.5, 0.75, **WORDS)]
    Console(file=text, width=120).print(table([*verdicts, Verdict.not_tested("open", "too small", "theorem")]))
    shown = text.getvalue()
    for word in ("fine", "[bad]", "0.75", "holds", "fails", "not tested", "too small", "round-off"):
        assert word in shown, word


def test_bad_verdicts_are_refused():
    with pytest.raises(ConfigError, match="status"):
        Verdict("c", 1.0, 1.0, 0.1, "perhaps", "r", "s")
    with pytest.raises(ConfigError, match="source"):
        Verdict("c", 1.0, 1.0, 0.1, "holds", "r", "")
    with pytest.raises(ConfigError, match="tolerance"):
        Verdict.near("c", 1.0, 1.0, tolerance=0.0, **WORDS)
    with pytest.raises(ConfigError, match="predicted"):
        Verdict.near("c", math.nan, 1.0, tolerance=0.1, **WORDS)
