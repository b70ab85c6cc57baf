"""Nothing committed is ever lost: processes killed at random moments, every system call made to fail."""

from __future__ import annotations

import errno
import importlib.util
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from meanfield.errors import MeanfieldError, OutputError
from meanfield.storage import syscalls
from meanfield.storage.run import compare, open_run, verify

HELPER = Path(__file__).parent / "helpers" / "storage_writer.py"
_spec = importlib.util.spec_from_file_location("storage_writer", HELPER)
helper = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(helper)

N_ROWS, EVERY = 24, 2


def truth(n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of y (every third step) and of norm (every step)."""
    y, fields, norms = helper.start(), [], []
    for step in range(1, n_rows + 1):
        y = helper.advance(y)
        norms.append(np.linalg.norm(y))
        if step % 3 == 0:
            fields.append(y)
    return np.array(fields).reshape(-1, helper.N_LABELS), np.array(norms)


def check_stored(path: Path, durable: dict[str, int]) -> None:
    """Everything reported durable is there, and everything there is right, to the last bit."""
    if not durable and not path.exists() and not path.with_name(path.name + ".parts").exists():
        return
    try:
        run = open_run(path)
    except MeanfieldError:
        assert not durable, "a run with durable rows cannot be opened"
        return
    with run:
        for label, step in durable.items():
            series = run.series[label]
            n = len(series["norm"])
            assert n >= step, (label, n, step)
            fields, norms = truth(n)
            np.testing.assert_array_equal(series["norm"], norms)
            np.testing.assert_array_equal(series["y"], fields[: len(series["y"])])
            assert len(series["y"]) == len(fields)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "run.h5"
    helper.write(str(path), N_ROWS, EVERY, say=lambda line: None)
    assert verify(path).ok
    return path


def killed(path: Path, rng: random.Random) -> tuple[str, dict[str, int]]:
    """Start a writer, kill -9 it at a random moment; return the phase it was in and what it had reported."""
    command = [sys.executable, str(HELPER), str(path), str(N_ROWS), str(EVERY), "0.004"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    reports = 2 * (N_ROWS // EVERY + 2) + 2
    wait_for = rng.randrange(1, reports)
    durable: dict[str, int] = {}
    lines = []
    for line in process.stdout:
        lines.append(line.split())
        if len(lines) >= wait_for:
            break
    timer = rng.random() * 0.006
    try:
        process.wait(timer)
    except subprocess.TimeoutExpired:
        process.kill()
    lines += [line.split() for line in process.stdout.read().splitlines()]
    process.wait()
    process.stdout.close()
    for words in lines:
        if words[0] == "durable":
            durable[words[1]] = int(words[2])
    said = {words[0] for words in lines}
    phase = "sealed" if "sealed" in said else "sealing" if "sealing" in said else "running" if durable else "starting"
    return phase, durable


def kill_many(directory: Path, count: int, seed: int) -> tuple[Counter, list[Path]]:
    rng = random.Random(seed)
    phases: Counter = Counter()
    interrupted = []
    for k in range(count):
        path = directory / f"run{k}.h5"
        phase, durable = killed(path, rng)
        phases[phase] += 1
        check_stored(path, durable)
        if phase == "running":
            interrupted.append(path)
    return phases, interrupted


def resume_all(paths: list[Path], reference: Path) -> None:
    for path in paths:
        starts = []
        helper.write(str(path), N_ROWS, EVERY, resume=True, say=starts.append)
        first = next((line.split() for line in starts if line.startswith("start")), None)
        assert first is None or int(first[2]) > 0 or first[1] == "second", "the resumed run began at step 0"
        assert compare(path, reference) == []
        assert verify(path).ok
        assert not path.with_name(path.name + ".parts").exists()


def test_kill_9_loses_no_durable_row_and_resume_is_identical(tmp_path, uninterrupted):
    phases, interrupted = kill_many(tmp_path, 30, seed=3)
    print("kills by phase:", dict(phases))
    assert phases["running"] >= 0.75 * 30, phases
    resume_all(interrupted[:10], uninterrupted)


@pytest.mark.full
def test_kill_9_two_hundred_times(tmp_path, uninterrupted):
    phases, interrupted = kill_many(tmp_path, 200, seed=5)
    print("kills by phase:", dict(phases))
    assert phases["running"] >= 0.75 * 200, phases
    resume_all(interrupted[:50], uninterrupted)


class Faulty(syscalls.System):
    """Fails the k-th call, or writes only half of it."""

    def __init__(self, fail_at: int, fault: int | str) -> None:
        self.calls, self.fail_at, self.fault = 0, fail_at, fault
        self.failed = ""

    def __getattribute__(self, name):
        method = super().__getattribute__(name)
        if name.startswith("_") or name in ("calls", "fail_at", "fault", "failed"):
            return method

        def call(*arguments):
            self.calls += 1
            if self.calls == self.fail_at:
                self.failed = name
                if self.fault == "short":
                    if name in ("write", "pwrite"):
                        half = max(1, len(arguments[1]) // 2)
                        return method(arguments[0], arguments[1][:half], *arguments[2:])
                else:
                    raise OSError(self.fault, "injected", None)
            return method(*arguments)

        return call


def short_run(
    path: Path, system: syscalls.System, monkeypatch, *, resume: bool = False
) -> tuple[dict[str, int], Exception | None]:
    durable: dict[str, int] = {}

    def say(line: str) -> None:
        words = line.split()
        if words[0] == "durable":
            durable[words[1]] = int(words[2])

    with monkeypatch.context() as patch:
        patch.setattr(syscalls, "system", system)
        try:
            helper.write(str(path), 6, 3, resume=resume, say=say, labels=("first",))
        except MeanfieldError as error:
            return durable, error
    return durable, None


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EIO, "short"])
def test_a_fault_at_any_call_is_never_silent_and_loses_nothing(tmp_path, monkeypatch, fault):
    reference = tmp_path / "reference.h5"
    counter = Faulty(0, fault)
    short_run(reference, counter, monkeypatch)
    assert counter.calls > 50
    raised = Counter()
    for k in range(1, counter.calls + 1):
        path = tmp_path / f"{k}" / "run.h5"
        path.parent.mkdir()
        system = Faulty(k, fault)
        durable, error = short_run(path, system, monkeypatch)
        raised[type(error).__name__] += 1
        if isinstance(error, OutputError) and fault != "short":
            assert error.errno == fault, (k, system.failed, error)
        if error is None and durable == {"first": 6}:
            assert compare(path, reference) == [], (k, system.failed)
        else:
            assert error is not None, f"call {k} ({system.failed}) failed in silence"
        check_short(path, durable, (k, system.failed, error))
        _, after = short_run(path, syscalls.System(), monkeypatch, resume=True)
        assert after is None, (k, system.failed, error, after)
        assert compare(path, reference) == [], (k, system.failed)
    print(fault, "faults:", counter.calls, dict(raised))
    if fault == "short":
        assert set(raised) == {"NoneType"}, raised
    else:
        assert raised["OutputError"] > 0.5 * counter.calls, raised


def check_short(path: Path, durable: dict[str, int], where) -> None:
    try:
        check_stored(path, durable)
    except AssertionError as error:
        raise AssertionError(f"{where}: {error}") from error
