"""Optima kept in run files: found once, read back with their history, found again where the problem differs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from meanfield.controls import Controls
from meanfield.experiment import Experiment
from meanfield.learning.quasi_newton import minimise
from meanfield.learning.training import Training
from meanfield.losses import Squared
from meanfield.models.residual import ResidualNetwork
from meanfield.regularizers import DepthL2
from meanfield.solution import Status
from meanfield.storage.run import open_run
from meanfield.velocities import Velocity

CALLS: list[float] = []
FOUND: list = []


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


def problem(target: float) -> Training:
    knots = np.linspace(0.0, 1.0, 9)
    network = ResidualNetwork(Velocity.inside("tanh", Controls(knots, np.full((8, 1, 1), 0.1))), 1)
    return Training(
        network, [[0.5]], Squared([target]), (0.0, 1.0), 8, regularizers={"w": DepthL2(0.2)}, trained=("w",)
    )


def counted(made, start=None, **options):
    CALLS.append(made.loss.y[0, 0])
    return minimise(made, start, **options)


def run(_config, run_file):
    FOUND.append(run_file.optimum("near", problem(TARGET), counted, tolerance=1e-9))
    FOUND.append(run_file.optimum("stopped", problem(5.0), counted, max_iterations=1, tolerance=1e-30))


TARGET = 1.0
EXPERIMENT = Experiment("optima", Config, run)


def test_optima_are_found_once_read_back_whole_and_found_again_for_another_problem(tmp_path, monkeypatch):
    path = tmp_path / "o.h5"
    CALLS.clear()
    FOUND.clear()
    assert EXPERIMENT.main(["--quiet", "--out", str(path)]) == 0
    assert EXPERIMENT.main(["--quiet", "--resume", str(path)]) == 0
    assert CALLS == [1.0, 5.0]
    for first, again in zip(FOUND[:2], FOUND[2:], strict=True):
        for name in ("flat", "values", "gradient_norms"):
            np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert (first.value, first.gradient_norm, first.status) == (again.value, again.gradient_norm, again.status)
    assert [o.status for o in FOUND[:2]] == [Status.FINISHED, Status.MAX_STEPS]
    with open_run(path) as stored:
        assert stored.tables["near_history"]["gradient_norm"][-1] < 1e-9
        np.testing.assert_array_equal(stored.tables["near"]["parameter"], FOUND[0].flat)
    monkeypatch.setitem(globals(), "TARGET", 1.1)
    assert EXPERIMENT.main(["--quiet", "--resume", str(path)]) == 0
    assert CALLS == [1.0, 5.0, 1.1]
    assert FOUND[4].value > FOUND[0].value
