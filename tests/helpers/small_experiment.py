"""A small experiment run by the tests of the harness: fixed and adaptive steps, an accumulator, a table."""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import dataclass

import numpy as np

from meanfield import Dense, Experiment, FunctionModel, Grid, Probe, SpaceTimeNetwork
from meanfield.config import option
from meanfield.diagnostics.bounds import GrowthBound
from meanfield.plotting import plot_run
from meanfield.storage.writer import Cadence, RunWriter

calls = []


@dataclass(frozen=True)
class Config:
    """Small experiment."""

    n_nodes: int = option(12, "labels", least=2)
    depth: float = option(2.0, "depth", above=0.0)
    pause: float = option(0.0, "seconds to sleep at every rate", least=0.0)
    expected: float = option(1.0, "figure to compare with")


def run(config, run_file):
    grid = Grid.interval(config.n_nodes, "gauss")
    model = SpaceTimeNetwork(Dense(grid, lambda x, y: np.cos(3 * x + y)), "tanh", 0.2, n_samples=2)
    y0 = np.stack([grid.nodes, np.sin(9 * grid.nodes)])
    probes = {"bound": GrowthBound(), "mean": Probe(lambda t, y, m: y.mean(), every=7)}
    run_file.integrate("fixed", model, y0, (0.0, config.depth), n_steps=120, save_at=12, probes=probes)

    def slow(t, y):
        time.sleep(config.pause)
        return np.array([y[1], -np.sin(4 * y[0])])

    for label, options in (("steps", {"n_steps": 300, "save_at": 30}), ("adaptive", {"rtol": 1e-9, "save_at": 17})):
        solution = run_file.integrate(label, FunctionModel(slow, (2,)), [1.0, 0.0], (0.0, config.depth), **options)

    def table():
        calls.append("table")
        return {"final": solution.final, "index": np.arange(2)}

    final = run_file.once("final", table, inputs=(config.depth,))["final"]
    run_file.near("energy", config.expected, 1.0 + 0 * final[0], tolerance=0.01, reason="planted", source="test")


EXPERIMENT = Experiment(
    name="small_experiment",
    config=Config,
    run=run,
    figure=plot_run,
    smoke={"n_nodes": 6},
    full={"n_nodes": 40},
)

if __name__ == "__main__":
    # A shell may have started the tests with Ctrl-C ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Commit at every opportunity, so that a kill finds something to resume.
    original = RunWriter.__init__

    def eager(self, *arguments, **keywords):
        original(self, *arguments, **(keywords | {"cadence": Cadence(least=0.0, factor=0.0)}))

    RunWriter.__init__ = eager
    sys.exit(EXPERIMENT.main())
