"""The main job: every verdict can fail, users' own fields work."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.scripts import load, planted_run, statuses

from meanfield.storage.run import open_run

script = load("experiments/selection_dynamics.py")


def test_a_planted_error_of_five_per_cent_makes_every_verdict_fail(tmp_path):
    found = planted_run(script, tmp_path / "s.h5")
    assert len(found) >= 25
    assert set(found.values()) == {"fails"}


@pytest.mark.parametrize(("name", "shape"), [("square.npy", (3, 36)), ("line.npy", (2, 40))])
def test_fields_of_your_own_take_the_place_of_the_digits(name, shape, tmp_path):
    np.save(tmp_path / name, np.random.default_rng(2).gamma(2.0, size=shape))
    path = tmp_path / "s.h5"
    assert script.main(["--smoke", "--quiet", "--data", str(tmp_path / name), "--out", str(path)]) == 0, statuses(path)
    with open_run(path) as run:
        assert run.series["selection_0"]["z"].shape[1] == (64 if shape[1] == 36 else 40)


@pytest.mark.parametrize(
    ("fields", "words"),
    [(np.ones((3, 16)), "constant"), (np.eye(1, 16), "at least two"), (np.full((2, 16), np.nan), "finite")],
)
def test_fields_that_cannot_be_used_are_refused(fields, words, tmp_path, capsys):
    np.save(tmp_path / "f.npy", fields)
    assert script.main(["--smoke", "--data", str(tmp_path / "f.npy"), "--out", str(tmp_path / "s.h5")]) == 2
    assert words in capsys.readouterr().err
    assert [f.name for f in tmp_path.iterdir()] == ["f.npy"], "a run that never began leaves nothing behind"
