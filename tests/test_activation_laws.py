"""The experiment on laws of activations: every verdict on the model can fail."""

from __future__ import annotations

from helpers.scripts import load, planted_run

script = load("experiments/activation_laws.py")
# No weight can break these: two simulations of the same weight, mass, sign.
BLIND = ("layers that jump", "mass", "densities")


def test_a_planted_error_of_five_per_cent_makes_every_verdict_on_the_model_fail(tmp_path):
    found = planted_run(script, tmp_path / "p.h5")
    assert len(found) >= 25
    for claim, status in found.items():
        assert status == ("holds" if claim.startswith(BLIND) else "fails"), claim
