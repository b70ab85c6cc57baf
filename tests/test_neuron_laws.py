"""The experiment on laws of neurons: every verdict that can see the target can fail."""

from __future__ import annotations

from helpers.scripts import load, planted_run

script = load("experiments/neuron_laws.py")


def test_a_planted_error_of_five_per_cent_makes_verdicts_fail_and_no_others(tmp_path):
    found = planted_run(script, tmp_path / "p.h5")
    assert len(found) >= 20
    for claim, status in found.items():
        blind = claim.startswith(script.BLIND)
        assert status == ("not_tested" if claim.startswith("digits") else "holds" if blind else "fails"), claim
