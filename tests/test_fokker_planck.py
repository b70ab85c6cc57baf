"""The experiment on noisy activations: every verdict holds, every verdict on the weights can fail."""

from __future__ import annotations

from helpers.scripts import load, statuses

script = load("experiments/fokker_planck.py")
# No weight can break these: mass, sign, dissipation, two simulations of the same weight, existence.
BLIND = ("mass", "densities", "tanh, two humps", "20000 noisy", "relu", "sigmoid, K", "tanh with", "identity, K = x, b")


def test_every_verdict_holds_and_a_figure_is_drawn(tmp_path):
    path = tmp_path / "f.h5"
    assert script.main(["--smoke", "--quiet", "--out", str(path)]) == 0
    found = statuses(path)
    assert len(found) >= 20
    assert set(found.values()) == {"holds"}
    assert path.with_suffix(".png").stat().st_size > 50_000


def test_a_planted_error_of_five_per_cent_makes_every_verdict_on_the_weights_fail(tmp_path):
    path = tmp_path / "f.h5"
    assert script.main(["--smoke", "--quiet", "--planted", "0.05", "--out", str(path)]) == 3
    for claim, status in statuses(path).items():
        assert status == ("holds" if claim.startswith(BLIND) else "fails"), claim
