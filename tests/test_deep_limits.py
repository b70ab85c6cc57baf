"""The experiment on deep limits: every verdict that can see what is planted fails."""

from __future__ import annotations

import dataclasses
import inspect

from helpers.scripts import load, statuses

script = load("experiments/deep_limits.py")


def test_a_planted_error_of_five_per_cent_makes_verdicts_fail(tmp_path, monkeypatch):
    # Sections without anything planted are those of the other test.
    sections = tuple(s for s in script.SECTIONS if "planted" in inspect.getsource(s))
    assert 0 < len(sections) < len(script.SECTIONS)
    monkeypatch.setattr(script, "SECTIONS", sections)
    experiment = dataclasses.replace(script.EXPERIMENT, figure=None)
    path = tmp_path / "d.h5"
    assert experiment.main(["--smoke", "--quiet", "--planted", "0.05", "--out", str(path)]) == 3
    seen = {claim: status for claim, status in statuses(path).items() if not claim.startswith(script.BLIND)}
    assert len(seen) >= 30
    assert set(seen.values()) == {"fails"}
