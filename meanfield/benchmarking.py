"""Timing of contestants side by side: one thread on one core, CPU seconds, interleaved, medians, checked first.

Import this before numpy and call `one_core`: the number of threads of BLAS and of JAX is settled when they load.
"""

from __future__ import annotations

import importlib
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

Contestants = Mapping[str, Callable[[], Any]]


def one_core() -> None:
    """Keep this process, and what it will load, to one thread on one core."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MEANFIELD_THREADS"):
        os.environ[variable] = "1"
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_ENABLE_X64", "1")
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def peer(name: str) -> Any:
    """Module of a peer, kept to one thread, or None where it is not installed."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    if name == "torch":
        module.set_num_threads(1)
        module.set_grad_enabled(False)
    return module


def cpu_seconds(function: Callable[[], object], at_least: float = 0.02) -> float:
    """CPU seconds of one call, repeated until the clock can tell."""
    start = time.process_time()
    function()
    once = time.process_time() - start
    repeats = max(1, int(at_least / max(once, 1e-6)))
    start = time.process_time()
    for _ in range(repeats):
        function()
    return (time.process_time() - start) / repeats


def compare(title: str, contestants: Contestants, per: float, unit: str, rounds: int = 7) -> dict[str, float]:
    """Check against "numpy", warm up, time round robin; print medians and the ratio of the best peer to each.

    Parameters
    ----------
    title
        What is computed.
    contestants
        Name -> function that returns the result as an array, or None where it cannot be compared; names that begin
        with "meanfield" are ours, the others are peers.
    per
        Number of units of work in a call.
    unit
        Name of a unit: the figures printed are nanoseconds each, or microseconds where that is more than a thousand.
    rounds
        Number of timings of each.
    """
    import numpy as np  # noqa: PLC0415 (after `one_core`)

    reference = np.asarray(contestants["numpy"]())
    gaps = {}
    for name, function in contestants.items():
        value = function()
        gaps[name] = float("nan") if value is None else float(np.abs(np.asarray(value) - reference).max())
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, function in contestants.items():
            seconds[name].append(cpu_seconds(function))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best, peer = min((m, name) for name, m in medians.items() if not name.startswith("meanfield"))
    scale, time_unit = (1e9, "ns") if best < 1e-6 * per else (1e6, "us")
    print(f"-- {title}: best peer {peer}")
    for name, m in sorted(medians.items(), key=lambda item: item[1]):
        spread = f"[{min(seconds[name]) / per * scale:.4g}, {max(seconds[name]) / per * scale:.4g}]"
        against = f"{best / m:6.2f} x best peer   gap {gaps[name]:.0e}"
        print(f"   {name:28s} {m / per * scale:10.4g} {time_unit}/{unit} {spread:22s} {against}", flush=True)
    return medians


def run_cases(words: str | None, cases: Mapping[str, Callable[[], None]]) -> None:
    """Run the cases asked for by --cases on the command line, all of them by default; `words` describe the script."""
    import argparse  # noqa: PLC0415 (only for scripts)

    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(cases), help="comma-separated, of " + ", ".join(cases))
    for chosen in parser.parse_args().cases.split(","):
        cases[chosen]()
