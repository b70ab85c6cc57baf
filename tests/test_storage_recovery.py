"""Runs that were stopped, replaced or extended: what is found on disk is always put right, or refused by name."""

from __future__ import annotations

import errno
import importlib.util
import shutil
import tracemalloc
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import pytest

from meanfield.errors import ConfigError, CorruptFileError, FileFormatError, OutputError, ResumeMismatchError
from meanfield.storage import provenance, syscalls
from meanfield.storage.layout import Axis, RestartState, SeriesSpec, Stream, Variable
from meanfield.storage.netcdf import chunk_shape
from meanfield.storage.run import compare, create_run, open_run, verify
from meanfield.storage.writer import Cadence

HELPER = Path(__file__).parent / "helpers" / "storage_writer.py"
_spec = importlib.util.spec_from_file_location("storage_writer", HELPER)
helper = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(helper)


def silent(line: str) -> None:
    pass


class StopError(Exception):
    """The process ends here."""


def stop_at(line: str):
    def say(said: str) -> None:
        if said == line:
            raise StopError

    return say


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "run.h5"
    helper.write(str(path), 12, 4, say=silent)
    return path


@pytest.fixture
def stopped(tmp_path):
    """A run with all its rows, stopped before it was sealed."""
    path = tmp_path / "run.h5"
    with pytest.raises(StopError):
        helper.write(str(path), 12, 4, say=stop_at("sealing"))
    return path


def parts_of(path: Path) -> Path:
    return path.with_name(path.name + ".parts")


class NoUnlink(syscalls.System):
    def unlink(self, path: str) -> None:
        raise OSError(errno.EIO, "injected")


# ---- a sealed file beside its parts


def test_parts_that_outlived_the_seal_are_removed(stopped, reference):
    with mock.patch.object(syscalls, "system", NoUnlink()), pytest.raises(OutputError) as caught:
        helper.write(str(stopped), 12, 4, resume=True, say=silent)
    assert caught.value.errno == errno.EIO
    assert stopped.exists()
    assert parts_of(stopped).exists()
    with open_run(stopped) as run:
        assert run.status == "finished"
    before = stopped.read_bytes()
    helper.write(str(stopped), 12, 4, resume=True, say=silent)
    assert not parts_of(stopped).exists()
    assert stopped.read_bytes() == before
    assert compare(stopped, reference) == []


def test_a_sound_sealed_file_without_a_marker_is_verified_and_its_parts_removed(stopped, reference):
    shutil.copyfile(reference, stopped)
    helper.write(str(stopped), 12, 4, resume=True, say=silent)
    assert not parts_of(stopped).exists()
    assert stopped.read_bytes() == reference.read_bytes()


@pytest.mark.parametrize("damage", ["truncated", "one bit"])
def test_a_damaged_sealed_file_beside_its_parts_is_sealed_again(stopped, reference, damage):
    data = bytearray(reference.read_bytes())
    if damage == "truncated":
        del data[-100:]
    else:
        with h5py.File(reference) as file:
            data[file["series/first/y"].id.get_chunk_info(0).byte_offset + 9] ^= 1
    stopped.write_bytes(bytes(data))
    with open_run(stopped) as run:
        assert run.status == "running"
        assert run.series["first"]["norm"].shape == (12,)
    helper.write(str(stopped), 12, 4, resume=True, say=silent)
    assert verify(stopped).ok
    assert compare(stopped, reference) == []
    assert not parts_of(stopped).exists()


def test_another_run_beside_the_parts_is_not_touched(stopped):
    other = stopped.with_name("other.h5")
    helper.write(str(other), 15, 5, say=silent)
    shutil.move(other, stopped)
    before = stopped.read_bytes()
    with pytest.raises(OutputError, match="another run"):
        helper.write(str(stopped), 12, 4, resume=True, say=silent)
    assert stopped.read_bytes() == before
    assert len(list(parts_of(stopped).iterdir())) > 5


def test_an_interrupted_overwrite_keeps_the_old_file_and_can_be_resumed(tmp_path, reference):
    path = tmp_path / "run.h5"
    with create_run(path, {"old": True}) as run:
        run.put_table("t", {"a": [1.0]})
        run.seal()
    before = path.read_bytes()
    config = {"n_rows": 12, "every": 4}
    with (
        mock.patch.object(provenance, "git_state", return_value=("", 0)),
        create_run(path, config, experiment="walk", seed=1, overwrite=True) as run,
    ):
        helper.evolve(run.begin_series("first", helper.spec(), "a" * 64), 8, 4, 0.0, silent)
    assert path.read_bytes() == before
    with open_run(path) as run:
        assert run.config == config
    with pytest.raises(OutputError, match="overwrite"):
        create_run(path, config)
    with create_run(path, config, experiment="walk", seed=1, resume=True) as run:
        assert run.begin_series("first", helper.spec(), "a" * 64).finished
        assert path.read_bytes() == before
        run.seal()
    assert path.read_bytes() != before
    assert open_run(path).series["first"]["norm"].shape == (8,)


# ---- resuming


def test_resuming_a_sealed_run_without_news_changes_nothing(tmp_path, reference):
    path = tmp_path / "run.h5"
    shutil.copyfile(reference, path)
    before = path.read_bytes()
    helper.write(str(path), 12, 4, resume=True, say=silent)
    assert path.read_bytes() == before
    assert not parts_of(path).exists()


def test_a_series_may_be_added_to_a_sealed_run(tmp_path, reference):
    path = tmp_path / "run.h5"
    helper.write(str(path), 12, 4, say=silent, labels=("first",))
    before = path.read_bytes()
    with pytest.raises(StopError):
        helper.write(str(path), 12, 4, resume=True, say=stop_at("durable second 4"))
    assert path.read_bytes() == before
    with open_run(path) as run:
        assert list(run.series) == ["first", "second"]
        assert run.series["second"]["norm"].shape == (4,)
    helper.write(str(path), 12, 4, resume=True, say=silent)
    assert compare(path, reference) == []


def evolve_to(run, n_rows: int, inputs: str, *, stop: int | None = None):
    series = run.begin_series("walk", helper.spec(), inputs, extend=True)
    start = 0 if series.state is None else series.state.meta["step"]
    if not series.finished:
        y = helper.start() if series.state is None else np.array(series.state.arrays["y"])
        for step in range(start + 1, n_rows + 1):
            y = helper.advance(y)
            series.append("fine_time", float(step), {"norm": np.linalg.norm(y)})
            series.append("time", float(step), {"y": y})
            if step == stop:
                series.commit(RestartState({"y": y}, {"step": step}))
                return start
        series.finish(RestartState({"y": y}, {"step": n_rows}), {"rows": n_rows})
    return start


def test_a_finished_run_can_be_extended_and_equals_a_long_one(tmp_path):
    path, long = tmp_path / "run.h5", tmp_path / "long.h5"
    with create_run(long, {"t_end": 9}) as run:
        evolve_to(run, 9, "9" * 64)
        run.seal()
    with create_run(path, {"t_end": 5}) as run:
        evolve_to(run, 5, "5" * 64)
        run.seal()
    sealed = path.read_bytes()
    options = {"resume": True, "may_change": ("t_end",)}
    with create_run(path, {"t_end": 9}, **options) as run:
        assert evolve_to(run, 9, "9" * 64, stop=7) == 5
    assert path.read_bytes() == sealed, "the sealed run stays until the longer one takes its place"
    with open_run(path) as run:
        assert run.series["walk"]["norm"].shape == (7,)
        assert not run.series["walk"].finished
    with create_run(path, {"t_end": 9}, **options) as run:
        assert evolve_to(run, 9, "9" * 64) == 7
        run.seal()
    differences = [d for d in compare(path, long) if "git_" not in d]
    assert differences == []


def test_the_sealed_file_under_an_extension_must_stay_what_it_was(tmp_path):
    path = tmp_path / "run.h5"
    with create_run(path, {"t_end": 5}) as run:
        evolve_to(run, 5, "5" * 64)
        run.seal()
    with create_run(path, {"t_end": 5}, resume=True) as run:
        run.put_table("t", {"a": [1.0]})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptFileError, match="SHA-256"):
        create_run(path, {"t_end": 5}, resume=True)
    path.unlink()
    with pytest.raises(CorruptFileError, match="missing"):
        create_run(path, {"t_end": 5}, resume=True)


def test_a_series_with_other_inputs_is_not_continued(stopped):
    with create_run(stopped, {"n_rows": 12, "every": 4}, experiment="walk", seed=1, resume=True) as run:
        with pytest.raises(ResumeMismatchError, match=r"aaaa.*bbbb"):
            run.begin_series("first", helper.spec(), "b" * 64)
        other = SeriesSpec(helper.spec().axes, helper.spec().streams, helper.spec().variables[:1], helper.spec().attrs)
        with pytest.raises(ResumeMismatchError, match="variables"):
            run.begin_series("first", other, "a" * 64)


def test_another_dtype_is_refused_on_resume(stopped):
    spec = helper.spec()
    first = Variable("y", ("time", "neuron"), long_name="state", dtype="float32")
    changed = SeriesSpec(spec.axes, spec.streams, (first, *spec.variables[1:]), spec.attrs)
    with (
        create_run(stopped, {"n_rows": 12, "every": 4}, experiment="walk", seed=1, resume=True) as run,
        pytest.raises(ResumeMismatchError, match=r"float64.*float32"),
    ):
        run.begin_series("first", changed, "a" * 64)


def test_an_interrupted_run_is_neither_overwritten_nor_continued_unasked(stopped):
    before = sorted(parts_of(stopped).iterdir())
    with pytest.raises(OutputError, match=r"resume.*overwrite") as caught:
        create_run(stopped, {"n_rows": 12, "every": 4})
    assert str(stopped) in str(caught.value)
    assert sorted(parts_of(stopped).iterdir()) == before


def test_the_lock_is_released_when_opening_fails(stopped):
    for _ in range(2):
        with pytest.raises(ResumeMismatchError):
            create_run(stopped, {"n_rows": 13, "every": 4}, experiment="walk", seed=1, resume=True)
    victim = next(iter(sorted(parts_of(stopped).glob("000002*"))))
    data = victim.read_bytes()
    victim.unlink()
    with pytest.raises(CorruptFileError, match="000002"):
        helper.write(str(stopped), 12, 4, resume=True, say=silent)
    victim.write_bytes(data)
    helper.write(str(stopped), 12, 4, resume=True, say=silent)


def test_what_a_stopped_writer_left_half_written_is_swept(stopped, reference):
    (parts_of(stopped) / ".000099.h5.tmp").write_bytes(b"half")
    (parts_of(stopped) / ".sealing.tmp").write_bytes(b"half")
    (parts_of(stopped) / f"state.{'0' * 64}.h5").write_bytes(b"of a commit that never was")
    helper.write(str(stopped), 12, 4, resume=True, say=silent)
    assert compare(stopped, reference) == []
    assert not parts_of(stopped).exists()


def test_a_missing_or_damaged_restart_state_is_named(tmp_path):
    path = tmp_path / "run.h5"
    with pytest.raises(StopError):
        helper.write(str(path), 12, 4, say=stop_at("durable first 8"))
    for state in parts_of(path).glob("state.*"):
        state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(CorruptFileError, match="SHA-256"):
        helper.write(str(path), 12, 4, resume=True, say=silent)
    for state in parts_of(path).glob("state.*"):
        state.unlink()
    with pytest.raises(CorruptFileError, match="restart state is missing"):
        helper.write(str(path), 12, 4, resume=True, say=silent)


def test_the_last_two_restart_states_are_kept(tmp_path):
    path = tmp_path / "run.h5"
    with create_run(path, {}) as run:
        series = run.begin_series("s", helper.spec(), "a" * 64)
        for step in range(5):
            series.commit(RestartState({"y": np.full(3, float(step))}, {"step": step}))
            assert len(list(parts_of(path).glob("state.*"))) == min(step + 1, 2)
        assert series.state.meta["step"] == 4


# ---- restart states, tables, verdicts


def test_a_restart_state_comes_back_in_every_bit_before_and_after_sealing(tmp_path):
    rng = np.random.default_rng(1)
    arrays = {
        "y": rng.standard_normal((3, 4)),
        "flags": np.array([True, False]),
        "count": np.array(7, dtype=np.uint64),
        "single": rng.standard_normal(5).astype(np.float32),
        "odd": np.array([np.nan, -0.0, np.inf, 5e-324]),
        "none": np.empty((0, 2)),
        "probe.sum.total": np.array(0.1),
        "y_dim0": np.arange(2),
    }
    meta = {"t": (0.1).hex(), "step": 3, "rng": np.random.PCG64(5).state}
    path = tmp_path / "run.h5"
    with create_run(path, {}) as run:
        run.begin_series("s", helper.spec(), "a" * 64).finish(RestartState(arrays, meta))
    for sealed in (False, True):
        with create_run(path, {}, resume=True) as run:
            state = run.begin_series("s", helper.spec(), "a" * 64).state
            assert state.meta == meta
            assert set(state.arrays) == set(arrays)
            for name, array in arrays.items():
                assert state.arrays[name].dtype == array.dtype, (name, sealed)
                assert state.arrays[name].shape == array.shape, (name, sealed)
                assert state.arrays[name].tobytes() == array.tobytes(), (name, sealed)
            run.seal()


def test_tables_are_remembered_by_inputs_and_verdicts_are_not_doubled(tmp_path):
    path = tmp_path / "run.h5"
    columns = {"name": ["α", "b"], "error": [0.5, np.nan], "n": [1, 2], "ok": [True, False]}
    verdict = {"claim": "c", "predicted": 1.0, "measured": float("nan"), "status": "fails"}
    for round_ in range(3):
        with create_run(path, {}, resume=True) as run:
            stored = run.table("t", "1" * 64)
            assert (stored is None) == (round_ == 0)
            if stored is None:
                run.put_table("t", columns, inputs="1" * 64)
                stored = run.table("t", "1" * 64)
            assert stored["name"].tolist() == ["α", "b"]
            np.testing.assert_array_equal(stored["error"], [0.5, np.nan])
            assert stored["n"].dtype == np.int64
            assert stored["ok"].tolist() == [1, 0]
            assert run.table("t", "2" * 64) is None
            run.put_verdict(verdict)
            run.put_verdict(verdict | {"claim": "d", "status": "holds"})
            if round_ == 1:
                run.seal()
    with open_run(path) as run:
        assert [(v["claim"], v["passed"]) for v in run.verdicts] == [("c", False), ("d", True)]


def test_a_judgement_that_changed_replaces_the_old_one(tmp_path):
    path = tmp_path / "run.h5"
    for measured in (1.0, 2.0):
        with create_run(path, {}, resume=True) as run:
            run.put_verdict({"claim": "a", "measured": measured, "status": "holds"})
            run.put_verdict({"claim": "b", "measured": measured, "status": "holds"})
    with open_run(path) as run:
        assert [(v["claim"], v["measured"]) for v in run.verdicts] == [("a", 2.0), ("b", 2.0)]


# ---- cadence, chunks, memory


def test_commits_follow_their_cost_and_the_bytes_that_wait(tmp_path):
    now = [0.0]
    cadence = Cadence(least=1.0, factor=50.0, pending_bytes=20_000, clock=lambda: now[0])

    class Slow(syscalls.System):
        def rename(self, source: str, target: str) -> None:
            now[0] += 0.05
            super().rename(source, target)

    with create_run(tmp_path / "run.h5", {}, cadence=cadence) as run:
        series = run.begin_series("s", helper.spec(), "a" * 64)
        now[0] = 0.9
        assert not series.due()
        now[0] = 1.0
        assert series.due()
        with mock.patch.object(syscalls, "system", Slow()):
            series.commit(RestartState({"y": helper.start()}, {}))  # two renames: it cost 0.1 s
        assert not series.due()
        now[0] += 4.9
        assert not series.due()
        now[0] += 0.2
        assert series.due()
        series.commit(RestartState({"y": helper.start()}, {}))
        for _ in range(9):
            assert not series.due()
            series.append("time", 0.0, {"y": helper.start()})
        assert series.due()


@pytest.mark.parametrize(
    ("shape", "chunk"),
    [((1000, 64, 1797), (1, 64, 1797)), ((5, 300), (5, 300)), ((10, 4096, 4096), (1, 32, 4096)), ((0, 3), (1, 3))],
)
def test_chunks_of_a_mebibyte_follow_from_the_shape(shape, chunk):
    assert chunk_shape(shape, 8) == chunk


def test_sealing_needs_one_segment_and_one_chunk_of_memory_not_the_run(tmp_path):
    n, rows, commits = 2**15, 16, 12  # 4 MiB a commit, 48 MiB in all
    axis = Axis("x", np.arange(n))
    spec = SeriesSpec((axis,), (Stream("time"),), (Variable("u", ("time", "x")),))
    with create_run(tmp_path / "run.h5", {}) as run:
        series = run.begin_series("s", spec, "a" * 64)
        for k in range(commits):
            for i in range(rows):
                series.append("time", float(k * rows + i), {"u": np.zeros(n)})
            series.commit(RestartState({}, {}))
        series.finish(RestartState({}, {}))
        tracemalloc.start()
        run.seal()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 24 * 2**20, f"{peak / 2**20:.1f} MiB"
    assert verify(tmp_path / "run.h5").ok


# ---- rows of the table of bad inputs that need no file


@pytest.mark.parametrize("label", ["../x", "a/b", "/etc/x", "a\0b", "..", "", "a\nb", 3, "x" * 300])
def test_row_19_labels_that_lead_outside(tmp_path, label):
    with create_run(tmp_path / "run.h5", {}) as run:
        for attempt in (
            lambda: run.begin_series(label, helper.spec(), "a" * 64),
            lambda: run.put_table(label, {"a": [1]}),
        ):
            with pytest.raises(ConfigError) as caught:
                attempt()
            if isinstance(label, str) and (".." in label or "\0" in label or label.startswith("/")):
                assert "path" in str(caught.value)
                assert "outside" in str(caught.value)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_row_21_a_directory_that_refuses_names_the_path_and_the_errno(tmp_path, number):
    class ReadOnly(syscalls.System):
        def mkdir(self, path: str) -> None:
            raise OSError(number, "injected")

    with mock.patch.object(syscalls, "system", ReadOnly()), pytest.raises(OutputError) as caught:
        create_run(tmp_path / "run.h5", {})
    assert caught.value.errno == number
    assert errno.errorcode[number] in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_row_21_a_name_the_system_refuses(tmp_path):
    with pytest.raises(OutputError, match="ENAMETOOLONG") as caught:
        create_run(tmp_path / ("x" * 300), {})
    assert caught.value.errno == errno.ENAMETOOLONG
    with pytest.raises(FileFormatError, match="x" * 300):
        open_run(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("config", "words"),
    [({"x": float("nan")}, "x"), ({"f": len}, "f"), ({"n": np.float32(1)}, "n"), ({"s": "\ud800"}, "Unicode")],
)
def test_a_configuration_that_is_not_json_is_refused_before_anything_is_written(tmp_path, config, words):
    with pytest.raises(ConfigError, match=words):
        create_run(tmp_path / "run.h5", config)
    assert list(tmp_path.iterdir()) == []


def test_rows_that_do_not_fit_are_refused(tmp_path):
    with create_run(tmp_path / "run.h5", {}) as run:
        series = run.begin_series("s", helper.spec(), "a" * 64)
        for stream, values, words in (
            ("depth", {}, "depth"),
            ("time", {}, "y"),
            ("time", {"y": helper.start(), "z": 1.0}, "z"),
            ("time", {"y": np.zeros(7)}, r"\(7,\).*\(300,\)"),
            ("time", {"y": helper.start() + 1j}, "complex"),
        ):
            with pytest.raises(ConfigError, match=words):
                series.append(stream, 0.0, values)
        assert series.pending_rows == 0
        series.append("fine_time", 0.0, {"norm": 1.0})
        with pytest.raises(ConfigError, match="not committed"):
            run.seal()
        with pytest.raises(ConfigError, match="lengths 1 and 2"):
            run.put_table("t", {"a": [1], "b": [1, 2]})
