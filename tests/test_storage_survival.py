"""Nothing committed is ever lost: processes killed at random moments, every system call made to fail."""

from __future__ import annotations

import errno
import importlib.util
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from meanfield.errors import MeanfieldError, OutputError
from meanfield.storage import syscalls
from meanfield.storage.layout import RestartState
from meanfield.storage.run import compare, create_run, open_run, verify

HELPER = Path(__file__).parent / "helpers" / "storage_writer.py"
_spec = importlib.util.spec_from_file_location("storage_writer", HELPER)
helper = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(helper)

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}

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
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
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


CHANGING = {"open", "write", "pwrite", "ftruncate", "fsync", "mkdir", "rename"}


class Faulty(syscalls.System):
    """Fails the k-th call (with `lasting`, all later ones that need space, too), or writes only half of it."""

    def __init__(self, fail_at: int, fault: int | str, *, lasting: bool = False) -> None:
        self.calls: list[str] = []
        self.fail_at, self.fault, self.lasting = fail_at, fault, lasting

    def __getattribute__(self, name):
        method = super().__getattribute__(name)
        if name not in vars(syscalls.System):
            return method

        def call(*arguments):
            self.calls.append(name)
            now = len(self.calls)
            if self.fault == "short":
                if now == self.fail_at and name in ("write", "pwrite"):
                    half = max(1, len(arguments[1]) // 2)
                    return method(arguments[0], arguments[1][:half], *arguments[2:])
            elif now == self.fail_at or (self.lasting and self.fail_at and now > self.fail_at and name in CHANGING):
                raise OSError(self.fault, "injected")
            return method(*arguments)

        return call


def short_run(path: Path, system: syscalls.System, *, resume: bool = False) -> tuple[dict[str, int], Exception | None]:
    """Write a short run on this system; what it reported durable, and how it failed."""
    durable: dict[str, int] = {}

    def say(line: str) -> None:
        words = line.split()
        if words[0] == "durable":
            durable[words[1]] = int(words[2])

    with mock.patch.object(syscalls, "system", system):
        try:
            helper.write(str(path), 6, 3, resume=resume, say=say, labels=("first",))
        except MeanfieldError as error:
            return durable, error
    return durable, None


@pytest.mark.parametrize(
    ("fault", "lasting"),
    [(errno.ENOSPC, True), (errno.EIO, False), ("short", False)],
    ids=["the disk stays full", "one input/output error", "one short write"],
)
def test_a_fault_at_any_call_is_never_silent_and_loses_nothing(tmp_path, fault, lasting, pytestconfig):
    reference = tmp_path / "reference.h5"
    healthy = Faulty(0, fault)
    short_run(reference, healthy)
    calls = [k for k, name in enumerate(healthy.calls, 1) if fault != "short" or name in ("write", "pwrite")]
    assert len(calls) > 30
    if not pytestconfig.getoption("--full"):
        # The sealed file is written in many pieces that are all alike: a quarter of them will do.
        calls = [k for k in calls if healthy.calls[k - 1] != "pwrite" or k % 4 == 0]
    raised: Counter = Counter()
    for k in calls:
        path = tmp_path / f"{k}" / "run.h5"
        path.parent.mkdir()
        where = (k, healthy.calls[k - 1])
        durable, error = short_run(path, Faulty(k, fault, lasting=lasting))
        raised[type(error).__name__] += 1
        if fault == "short":
            assert error is None, (where, error)
            assert compare(path, reference) == [], where
            continue
        assert isinstance(error, OutputError), f"{where}: failed in silence: {error!r}"
        assert error.errno == fault, (where, error)
        assert not path.exists() or verify(path).ok, where
        check_stored(path, durable)
        if where[1] == "pwrite" and k % 5 and k % 8:
            continue  # one of the many writes of the sealed file: what is left is the same for all
        _, after = short_run(path, syscalls.System(), resume=True)
        assert after is None, (where, error, after)
        assert compare(path, reference) == [], where
        assert not path.with_name("run.h5.parts").exists(), where
    print(fault, "faults:", len(calls), dict(raised), dict(Counter(healthy.calls)))


def test_after_a_failed_fsync_nothing_more_is_written(tmp_path):
    path = tmp_path / "run.h5"
    with create_run(path, {}) as run:
        series = run.begin_series("s", helper.spec(), "a" * 64)
        state = RestartState({"y": helper.start()}, {"step": 0})
        series.commit(state)
        before = sorted(Path(f"{path}.parts").iterdir())
        series.append("fine_time", 1.0, {"norm": 1.0})
        failing = Faulty(3, errno.EIO)  # the calls are: open the state's file, write it, fsync it
        with mock.patch.object(syscalls, "system", failing), pytest.raises(OutputError):
            series.commit(RestartState({"y": helper.start() + 1}, {"step": 1}))
        assert failing.calls[2] == "fsync"
        assert failing.calls.count("fsync") == 1, "a failed fsync was tried again"
        healthy = Faulty(0, errno.EIO)
        with mock.patch.object(syscalls, "system", healthy):
            for attempt in (lambda: series.commit(state), lambda: run.put_table("t", {"a": [1]}), run.seal):
                with pytest.raises(OutputError, match="earlier failure"):
                    attempt()
        assert not CHANGING & set(healthy.calls)
        assert sorted(Path(f"{path}.parts").iterdir()) == before


LIMITED = """
import resource, signal, sys
import storage_writer
from meanfield.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, limit = sys.argv[1], int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    storage_writer.write(path, 24, 2, say=lambda line: print(line, flush=True))
except OutputError as error:
    print("errno", error.errno, flush=True)
"""


@pytest.mark.parametrize("limit", [4_000, 12_000, 40_000])
def test_a_real_limit_on_file_sizes_raises_and_loses_nothing(tmp_path, uninterrupted, limit):
    path = tmp_path / "run.h5"
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join((ENVIRONMENT["PYTHONPATH"], str(HELPER.parent)))}
    command = [sys.executable, "-c", LIMITED, str(path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[-1] == ["errno", str(errno.EFBIG)], done.stdout
    check_stored(path, {words[1]: int(words[2]) for words in lines if words[0] == "durable"})
    helper.write(str(path), N_ROWS, EVERY, resume=True, say=lambda line: None)
    assert compare(path, uninterrupted) == []


def test_ctrl_c_waits_until_a_commit_is_whole(tmp_path):
    path = tmp_path / "run.h5"
    with create_run(path, {}) as run:
        series = run.begin_series("s", helper.spec(), "a" * 64)
        for step in range(4):
            series.append("fine_time", float(step), {"norm": float(step)})

            class Interrupting(Faulty):
                def rename(self, source, target):
                    super().rename(source, target)
                    signal.raise_signal(signal.SIGINT)

            with mock.patch.object(syscalls, "system", Interrupting(0, 0)), pytest.raises(KeyboardInterrupt):
                series.commit(RestartState({"y": helper.start()}, {"step": step}))
            assert series.pending_rows == 0
        np.testing.assert_array_equal(series.read()["norm"], np.arange(4.0))
        series.finish(RestartState({"y": helper.start()}, {"step": 4}))
        run.seal()
    with open_run(path) as stored:
        np.testing.assert_array_equal(stored.series["s"]["norm"], np.arange(4.0))


def test_reading_beside_a_running_writer_never_sees_half_a_commit(tmp_path):
    path = tmp_path / "run.h5"
    command = [sys.executable, str(HELPER), str(path), "60", "2", "0.01"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    process.stdout.readline()  # it has started
    seen, live = [], 0
    try:
        while process.poll() is None:
            with open_run(path) as run:
                live += run.status == "running"
                for label in run.series:
                    norms, fields = run.series[label]["norm"], run.series[label]["y"]
                    expected = truth(len(norms))
                    np.testing.assert_array_equal(norms, expected[1])
                    np.testing.assert_array_equal(fields, expected[0])
                    seen.append(len(norms))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert live > 3
    assert len(set(seen)) > 3, seen


def test_a_run_sealed_while_it_is_read_gives_the_rows_there_were(tmp_path):
    path = tmp_path / "run.h5"
    writer = create_run(path, {}, experiment="walk")
    series = writer.begin_series("s", helper.spec(), "a" * 64)
    helper.evolve(series, 6, 3, 0.0, lambda line: None)
    second = writer.begin_series("t", helper.spec(), "a" * 64)
    second.append("fine_time", 1.0, {"norm": 1.0})
    second.commit(RestartState({}, {}))
    reader = open_run(path)
    second.append("fine_time", 2.0, {"norm": 2.0})
    second.finish(RestartState({}, {}))
    writer.seal()
    assert not path.with_name("run.h5.parts").exists()
    np.testing.assert_array_equal(reader.series["t"]["norm"], [1.0])
    np.testing.assert_array_equal(reader.series["s"]["norm"], truth(6)[1])
    np.testing.assert_array_equal(reader.series["s"]["weight"], np.full(helper.N_LABELS, 1 / helper.N_LABELS))
    reader.close()
    early = path.with_name("early.h5")
    with create_run(early, {}) as run:
        helper.evolve(run.begin_series("s", helper.spec(), "a" * 64), 6, 3, 0.0, lambda line: None)
        stale = open_run(early)
    with create_run(early, {"another": 1}, overwrite=True) as run:
        run.seal()
    with pytest.raises(MeanfieldError, match="another run took its place"):
        _ = stale.series["s"]["norm"]
