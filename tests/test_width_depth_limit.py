"""The experiment on the limits of width and depth: every verdict can fail."""

from __future__ import annotations

import pytest
from helpers.scripts import load, planted_run, statuses

script = load("experiments/width_depth_limit.py")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Path and verdicts of a run with an error planted."""
    path = tmp_path_factory.mktemp("limits") / "w.h5"
    return path, planted_run(script, path)


def test_a_planted_error_of_five_per_cent_makes_every_verdict_fail(planted):
    _, found = planted
    assert len(found) >= 38
    assert set(found.values()) == {"fails"}


def test_a_finished_run_is_resumed_without_computing_again(planted, monkeypatch):
    path, first = planted
    monkeypatch.setattr(script, "evolved", None)
    assert script.main(["--smoke", "--quiet", "--planted", "0.05", "--resume", str(path)]) == 3
    assert statuses(path) == first


def test_bad_parameters_are_refused(tmp_path, capsys):
    assert script.main(["--smoke", "--side", "5", "--out", str(tmp_path / "w.h5")]) == 2
    assert "side" in capsys.readouterr().err
