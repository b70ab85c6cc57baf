"""The experiment on noisy activations: every verdict on the weights can fail."""

from __future__ import annotations

from helpers.scripts import load, planted_run

script = load("experiments/fokker_planck.py")
# No weight can break these: mass, sign, dissipation, two simulations of the same weight, existence.
BLIND = ("mass", "densities", "tanh, two humps", "20000 noisy", "relu", "sigmoid, K", "tanh with", "identity, K = x, b")


def test_a_planted_error_of_five_per_cent_makes_every_verdict_on_the_weights_fail(tmp_path):
    found = planted_run(script, tmp_path / "p.h5")
    assert len(found) >= 20
    for claim, status in found.items():
        assert status == ("holds" if claim.startswith(BLIND) else "fails"), claim
