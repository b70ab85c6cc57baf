"""The experiment on long times: a planted error is seen, stages are kept."""

from __future__ import annotations

import numpy as np
from helpers.scripts import load, planted_run

from meanfield.storage.run import open_run, verify

SCRIPT = load("experiments/large_time.py")


def test_a_planted_error_fails_what_can_see_it_and_nothing_else(tmp_path):
    path = tmp_path / "planted.h5"
    found = planted_run(SCRIPT, path)
    assert sum(status == "fails" for status in found.values()) == 14
    for claim, status in found.items():
        assert status == ("holds" if claim.startswith(SCRIPT.BLIND) else "fails"), claim
    assert verify(path).ok
    with open_run(path) as run:
        table = run.tables["xor_tanh"]
        assert (np.diff(table["cost"]) < 0.0).all()
        assert table["accuracy"][-1] == 1.0
        assert len(run.tables["ways_0"]["x_3"]) == 32 * 9
