"""The experiment on implicit regularisation: a planted speed fails the closed forms in training time, nothing else."""

from __future__ import annotations

from helpers.scripts import load, planted_run

from meanfield.storage.run import open_run

script = load("experiments/implicit_regularization.py")


def test_planted_speeds_fail_what_knows_of_training_time(tmp_path):
    path = tmp_path / "i.h5"
    found = planted_run(script, path)
    assert len(found) >= 29
    for claim, status in found.items():
        assert status == ("holds" if claim.startswith(script.BLIND) else "fails"), claim
    with open_run(path) as run:
        first, last = run.series["tied_128"]["v"][[0, -1]]
        assert not first.any()
        assert last.any()


def test_conventions_are_speeds_of_one_network():
    config = script.Config(dim=4, width=10)
    assert script.speeds(config, 10) == {"v": 0.5, "w": 0.5}
    paper = script.Config(dim=4, width=10, convention="paper")
    assert script.speeds(paper, 10) == {"v": 0.2, "w": 0.5}
