"""The experiment on laws of neurons: every verdict holds, every verdict that can see the target can fail."""

from __future__ import annotations

from helpers.scripts import load, statuses

script = load("experiments/neuron_laws.py")


def test_every_verdict_holds_and_a_figure_is_drawn(tmp_path):
    path = tmp_path / "n.h5"
    assert script.main(["--smoke", "--quiet", "--out", str(path)]) == 0
    found = statuses(path)
    assert len(found) >= 20
    for claim, status in found.items():
        assert status == ("not_tested" if claim.startswith("digits") else "holds"), claim
    assert path.with_suffix(".png").stat().st_size > 50_000


def test_a_planted_error_of_five_per_cent_makes_verdicts_fail(tmp_path):
    path = tmp_path / "n.h5"
    assert script.main(["--smoke", "--quiet", "--planted", "0.05", "--out", str(path)]) == 3
    seen = {claim: status for claim, status in statuses(path).items() if not claim.startswith(script.BLIND)}
    assert len(seen) >= 3
    assert set(seen.values()) == {"fails"}
