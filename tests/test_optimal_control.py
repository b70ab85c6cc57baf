"""The experiment on optimal control: a planted error is seen, stages are kept."""

from __future__ import annotations

from helpers.scripts import load, planted_run

from meanfield.storage.run import open_run, verify

SCRIPT = load("experiments/optimal_control.py")


def test_a_planted_error_fails_what_can_see_it_and_nothing_else(tmp_path):
    path = tmp_path / "planted.h5"
    found = planted_run(SCRIPT, path)
    assert sum(status == "fails" for status in found.values()) == 9
    for claim, status in found.items():
        assert status == ("holds" if claim.startswith(SCRIPT.BLIND) else "fails"), claim
    assert verify(path).ok
    with open_run(path) as run:
        history = run.tables["damped_sweep_history"]
        assert (history["value"][1:] <= history["value"][:-1] + 1e-14).all()
        assert history["gradient_norm"][-1] < 1e-6
