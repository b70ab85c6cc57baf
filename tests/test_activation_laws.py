"""The experiment on laws of activations: every verdict holds, every verdict on the model can fail."""

from __future__ import annotations

from helpers.scripts import load, statuses

script = load("experiments/activation_laws.py")
# No weight can break these: two simulations of the same weight, mass, sign.
BLIND = ("layers that jump", "mass", "densities")


def test_every_verdict_holds_and_a_figure_is_drawn(tmp_path):
    path = tmp_path / "a.h5"
    assert script.main(["--smoke", "--quiet", "--out", str(path)]) == 0
    found = statuses(path)
    assert len(found) >= 25
    assert set(found.values()) == {"holds"}
    assert path.with_suffix(".png").stat().st_size > 50_000


def test_a_planted_error_of_five_per_cent_makes_every_verdict_on_the_model_fail(tmp_path):
    path = tmp_path / "a.h5"
    assert script.main(["--smoke", "--quiet", "--planted", "0.05", "--out", str(path)]) == 3
    for claim, status in statuses(path).items():
        assert status == ("holds" if claim.startswith(BLIND) else "fails"), claim
