"""The experiment on optimal control: verdicts of its smoke run, a planted error that they see, stages that are kept."""

from __future__ import annotations

from helpers.scripts import load, statuses

from meanfield.storage.run import open_run, verify

SCRIPT = load("experiments/optimal_control.py")


def test_smoke_run_holds_and_sees_a_planted_error(tmp_path):
    path = tmp_path / "planted.h5"
    assert SCRIPT.main(["--smoke", "--quiet", "--planted", "0.05", "--out", str(path)]) == 3
    found = statuses(path)
    seeing = [claim for claim in found if not claim.startswith(SCRIPT.BLIND)]
    assert len(seeing) == 9
    assert all(found[claim] == "fails" for claim in seeing)
    assert all(status == "holds" for claim, status in found.items() if claim.startswith(SCRIPT.BLIND))
    assert verify(path).ok
    with open_run(path) as run:
        history = run.tables["damped_sweep_history"]
        assert (history["value"][1:] <= history["value"][:-1] + 1e-14).all()
        assert history["gradient_norm"][-1] < 1e-6
