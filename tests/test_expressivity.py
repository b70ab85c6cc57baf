"""The experiment on networks built to follow flows: a planted error is seen, tables hold what was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.scripts import load, planted_run

from meanfield.constructions.problem import FlowProblem
from meanfield.storage.run import open_run, verify

SCRIPT = load("experiments/expressivity.py")


def test_a_planted_error_fails_what_can_see_it_and_nothing_else(tmp_path):
    path = tmp_path / "planted.h5"
    found = planted_run(SCRIPT, path)
    assert sum(status == "fails" for status in found.values()) == 40
    for claim, status in found.items():
        assert status == ("holds" if claim.startswith(SCRIPT.BLIND) else "fails"), claim
    assert verify(path).ok
    with open_run(path) as run:
        table = run.tables["accuracy_circle"]
        assert (table["stored"][1:] > table["stored"][:-1]).all()
        assert (table["error"] > 0.03).all()


@pytest.mark.parametrize("speed", [SCRIPT.WAVY, SCRIPT.hoelder(0.6, terms=5)], ids=["wavy", "hoelder"])
@pytest.mark.parametrize("motion", [SCRIPT.SINE, SCRIPT.COSINE, SCRIPT.KINK, SCRIPT.CIRCLE, SCRIPT.SCREW],
                         ids=["sine", "cosine", "kink", "circle", "screw"])  # fmt: skip
def test_flows_in_closed_form_and_integrals_are_those_of_the_fields(motion, speed):
    exact = SCRIPT.truth(motion, speed)
    solved = FlowProblem(exact.field.__call__, motion.box, 1.0, tolerance=1e-9)
    # Starts beside the kink: across it the solver's own error is larger.
    x = np.array(exact.box[1])[:, None] * np.array([[-0.9, -0.4, 0.2, 0.35, 0.8]])
    times = np.linspace(0, 1, 6)
    assert np.abs(exact.flow(times, x) - solved.flow(times, x)).max() < 1e-8
    assert np.abs(exact.integral(0.2, 0.7, x) - solved.integral(0.2, 0.7, x)).max() < 1e-8
