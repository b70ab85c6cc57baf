"""Stability map: every verdict holds, and those on the model fail under a planted error."""

from __future__ import annotations

from helpers.scripts import load, statuses

script = load("experiments/stability_map.py")


def test_every_verdict_holds_and_a_figure_is_drawn(tmp_path):
    path = tmp_path / "s.h5"
    assert script.main(["--smoke", "--quiet", "--out", str(path)]) == 0, statuses(path)
    found = statuses(path)
    assert len(found) >= 15
    assert set(found.values()) == {"holds"}
    assert path.with_suffix(".png").stat().st_size > 50_000


def test_a_planted_error_of_five_per_cent_makes_the_verdicts_on_the_model_fail(tmp_path):
    path = tmp_path / "s.h5"
    assert script.main(["--smoke", "--quiet", "--planted", "0.05", "--n-series", "8", "--out", str(path)]) == 3
    held = {claim for claim, status in statuses(path).items() if status != "fails"}
    # The classifier sees generated series, no kernel.
    assert {claim for claim in held if not claim.startswith("classifier")} == set()
