"""Stability map: the verdicts on the model fail under a planted error."""

from __future__ import annotations

from helpers.scripts import load, planted_run

script = load("experiments/stability_map.py")


def test_a_planted_error_of_five_per_cent_makes_the_verdicts_on_the_model_fail(tmp_path):
    found = planted_run(script, tmp_path / "s.h5", "--n-series", "8")
    assert len(found) >= 15
    # The classifier sees generated series, no kernel.
    for claim, status in found.items():
        assert status == "fails" or claim.startswith("classifier"), claim
