"""The experiment on the limits of width and depth: every verdict holds, every verdict can fail."""

from __future__ import annotations

import pytest
from helpers.scripts import load, statuses

script = load("experiments/width_depth_limit.py")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, with its exit code."""
    path = tmp_path_factory.mktemp("limits") / "w.h5"
    return path, script.main(["--smoke", "--quiet", "--out", str(path)])


def test_every_verdict_holds_and_a_figure_is_drawn(finished):
    path, code = finished
    assert code == 0
    found = statuses(path)
    assert len(found) >= 38
    assert set(found.values()) == {"holds"}
    assert path.with_suffix(".png").stat().st_size > 50_000


def test_a_planted_error_of_five_per_cent_makes_every_verdict_fail(tmp_path):
    path = tmp_path / "w.h5"
    assert script.main(["--smoke", "--quiet", "--planted", "0.05", "--out", str(path)]) == 3
    assert {claim for claim, status in statuses(path).items() if status != "fails"} == set()


def test_a_finished_run_is_resumed_without_computing_again(finished, monkeypatch):
    path, _ = finished
    first = statuses(path)
    monkeypatch.setattr(script, "evolved", None)
    assert script.main(["--smoke", "--quiet", "--resume", str(path)]) == 0
    assert statuses(path) == first


def test_bad_parameters_are_refused(tmp_path, capsys):
    assert script.main(["--smoke", "--side", "5", "--out", str(tmp_path / "w.h5")]) == 2
    assert "side" in capsys.readouterr().err
