"""A process that writes a small run and says on stdout what is durable: for tests that kill it.

python storage_writer.py PATH N_ROWS COMMIT_EVERY PAUSE [resume]
"""

from __future__ import annotations

import sys
import time
from unittest import mock

import numpy as np

from meanfield.storage import provenance
from meanfield.storage.layout import Axis, RestartState, SeriesSpec, Stream, Variable
from meanfield.storage.run import create_run
from meanfield.storage.writer import Cadence

N_LABELS = 300


def spec() -> SeriesSpec:
    axis = Axis("neuron", np.linspace(0.0, 1.0, N_LABELS), long_name="neuron label")
    fields = (
        Variable("y", ("time", "neuron"), long_name="state"),
        Variable("norm", ("fine_time",), long_name="norm of the state"),
        Variable("weight", ("neuron",), values=np.full(N_LABELS, 1 / N_LABELS)),
    )
    return SeriesSpec((axis,), (Stream("time"), Stream("fine_time")), fields, {"model": "a walk"})


def start() -> np.ndarray:
    return np.sin(np.arange(N_LABELS, dtype=float))


def advance(y: np.ndarray) -> np.ndarray:
    return np.cos(1.3 * y) + 0.1 * np.roll(y, 1)


def write(
    path: str,
    n_rows: int,
    every: int,
    *,
    resume: bool = False,
    pause: float = 0.0,
    say=print,
    labels=("first", "second"),
) -> None:
    """Write the run, resuming if asked; `say` is told of every step that became durable.

    The state of the source tree is left out: somebody may commit while the tests run.
    """
    with (
        mock.patch.object(provenance, "git_state", return_value=("", 0)),
        create_run(
            path,
            {"n_rows": n_rows, "every": every},
            experiment="walk",
            seed=1,
            resume=resume,
            cadence=Cadence(least=1e9),
        ) as run,
    ):
        for label in labels:
            series = run.begin_series(label, spec(), "a" * 64)
            if not series.finished:
                evolve(series, n_rows, every, pause, say)
            y = np.array(series.state.arrays["y"])
            if run.table(label, "b" * 64) is None:
                run.put_table(label, {"final": y[:5], "index": np.arange(5)}, inputs="b" * 64)
            run.put_verdict({"claim": label, "predicted": 1.0, "measured": float(y[0]), "status": "holds"})
        say("sealing")
        run.seal()
        say("sealed")


def evolve(series, n_rows: int, every: int, pause: float, say) -> None:
    """Append rows from where the series stands to its end."""
    y, step = start(), 0
    if series.state is not None:
        y, step = np.array(series.state.arrays["y"]), int(series.state.meta["step"])
    say(f"start {series.label} {step}")
    while step < n_rows:
        y = advance(y)
        step += 1
        series.append("fine_time", 0.5 * step, {"norm": float(np.linalg.norm(y))})
        if step % 3 == 0:
            series.append("time", 0.5 * step, {"y": y})
        if step % every == 0:
            series.commit(RestartState({"y": y}, {"step": step}))
            say(f"durable {series.label} {step}")
            time.sleep(pause)
    series.finish(RestartState({"y": y}, {"step": step}), {"message": "done"})
    say(f"durable {series.label} {step}")


if __name__ == "__main__":
    write(
        sys.argv[1],
        int(sys.argv[2]),
        int(sys.argv[3]),
        pause=float(sys.argv[4]),
        resume="resume" in sys.argv[5:],
        say=lambda line: print(line, flush=True),
    )
