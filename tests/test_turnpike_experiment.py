"""The experiment on turnpikes: a planted error is seen by what can see it."""

from __future__ import annotations

from helpers.scripts import load, planted_run

from meanfield.storage.run import open_run, verify

SCRIPT = load("experiments/turnpike.py")


def test_a_planted_error_fails_what_can_see_it_and_nothing_else(tmp_path):
    path = tmp_path / "planted.h5"
    found = planted_run(SCRIPT, path)
    assert sum(status == "fails" for status in found.values()) >= 25
    for claim, status in found.items():
        assert status == ("holds" if claim.startswith(SCRIPT.BLIND) else "fails"), claim
    assert verify(path).ok
    with open_run(path) as run:
        words = {v["claim"]: v["reason"] for v in run.verdicts}
        assert "not exponential" in words["logistic loss: said to be algebraic"]
        assert "impulse" in words["two layers: |x| falling: said to be concentrated"]
