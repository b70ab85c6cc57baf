"""Run files: other readers open them, hostile and damaged ones are refused by name."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

from meanfield.errors import (
    ConfigError,
    CorruptFileError,
    FileFormatError,
    MeanfieldError,
    OutputError,
    ResourceError,
    ResumeMismatchError,
    RunLockedError,
    UnsafeFileError,
)
from meanfield.storage.run import compare, create_run, open_run, verify

HELPER = Path(__file__).parent / "helpers" / "storage_writer.py"
_spec = importlib.util.spec_from_file_location("storage_writer", HELPER)
helper = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(helper)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    path = tmp_path_factory.mktemp("sealed") / "run.h5"
    helper.write(str(path), 12, 4, say=lambda line: None)
    return path


@pytest.fixture
def copy(sealed, tmp_path):
    target = tmp_path / "run.h5"
    target.write_bytes(sealed.read_bytes())
    return target


@pytest.fixture
def parts(tmp_path):
    """A run stopped in the middle: its path, its parts still there."""
    path = tmp_path / "run.h5"

    class StopError(Exception):
        pass

    def say(line):
        if line == "durable first 8":
            raise StopError

    with pytest.raises(StopError):
        helper.write(str(path), 12, 4, say=say)
    return path


def test_h5py_finds_names_units_axes_and_types(sealed):
    with h5py.File(sealed) as file:
        for name in (
            "Conventions",
            "title",
            "source",
            "schema_version",
            "experiment",
            "config",
            "seed",
            "git_commit",
            "git_dirty",
            "versions",
            "created",
            "finished",
            "status",
            "command",
            "references",
        ):
            assert name in file.attrs, name
        assert json.loads(file.attrs["config"]) == {"every": 4, "n_rows": 12}
        group = file["series/first"]
        assert group["y"].shape == (4, helper.N_LABELS)
        assert group["y"].dims[0][0].name == "/series/first/time"
        assert group["y"].dims[1][0].name == "/series/first/neuron"
        assert group["y"].attrs["units"] == b"1"
        assert group["y"].fletcher32
        assert group["y"].compression == "gzip"
        assert group["norm"].dims[0][0].name == "/series/first/fine_time"
        np.testing.assert_allclose(group["fine_time"], 0.5 * np.arange(1, 13))
        kinds = set()
        file.visititems(lambda _, item: kinds.add(item.dtype.kind) if isinstance(item, h5py.Dataset) else None)
        assert kinds <= set("fiuS"), kinds


def test_xarray_opens_series_and_tree_without_a_warning(sealed):
    xarray = pytest.importorskip("xarray")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xarray.open_dataset(sealed, group="series/first", engine="h5netcdf") as data:
            assert data["y"].dims == ("time", "neuron")
            assert data["y"].attrs["long_name"] == "state"
            np.testing.assert_allclose(data["neuron"], np.linspace(0, 1, helper.N_LABELS))
        with xarray.open_datatree(sealed, engine="h5netcdf") as tree:
            assert {"/series/first", "/series/second", "/tables/first", "/verdicts"} <= set(tree.groups)
            assert [str(c) for c in tree["verdicts"]["claim"].values.astype(str)] == ["first", "second"]
    tree = open_run(sealed).to_xarray()
    assert tree["series/first"]["norm"].dims == ("fine_time",)


def test_netcdf4_opens_the_file_without_a_warning(sealed):
    code = (
        "import sys, netCDF4; d = netCDF4.Dataset(sys.argv[1]); g = d['series/first'];"
        "print(g['y'].dimensions, g['y'].units, g['time'].shape);"
        "print(d['verdicts'].variables.keys(), d['tables/first']['final'][:].sum())"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code, str(sealed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert "('time', 'neuron') 1 (4,)" in run.stdout


def test_reader_gives_arrays_tables_verdicts_csv_and_html(sealed, tmp_path):
    with open_run(sealed) as run:
        assert run.status == "finished"
        assert list(run.series) == ["first", "second"]
        assert run.series["first"]["norm"].shape == (12,)
        assert set(run.tables["first"]) == {"final", "index"}
        assert [v["claim"] for v in run.verdicts] == ["first", "second"]
        assert "<table" in run._repr_html_()
        assert "first" in run.summary()
        assert len(run.summary().splitlines()) < 50
        files = run.to_csv(tmp_path / "csv")
    assert files
    assert all(f.stat().st_size for f in files)


def test_reading_while_running_is_consistent(parts):
    with open_run(parts) as run:
        assert run.status != "finished"
        assert len(run.series["first"]["norm"]) == 8
        assert len(run.series["first"]["y"]) == 2
    assert verify(parts).ok


def test_two_runs_of_the_same_are_identical_and_others_are_not(sealed, tmp_path):
    again, other = tmp_path / "again.h5", tmp_path / "other.h5"
    helper.write(str(again), 12, 4, say=lambda line: None)
    helper.write(str(other), 15, 4, say=lambda line: None)
    assert compare(sealed, again) == []
    assert any("norm" in line for line in compare(sealed, other))


def test_commits_do_not_show_in_the_sealed_file(sealed, tmp_path):
    often = tmp_path / "run.h5"
    helper.write(str(often), 12, 1, say=lambda line: None)
    assert [d for d in compare(sealed, often) if "config" not in d] == []


# ---- bad inputs


@pytest.mark.parametrize("name", ["../../x.h5", "a\0b.h5"])
def test_row_19_path_outside(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"(?s)path.*outside|outside.*path"):
        create_run(name, {})


def test_row_20_existing_output_is_left_alone(copy):
    before = copy.read_bytes()
    with pytest.raises(OutputError, match="overwrite") as caught:
        create_run(copy, {})
    assert str(copy) in str(caught.value)
    assert copy.read_bytes() == before


def test_overwrite_keeps_the_old_file_until_the_new_one_is_complete(copy):
    before = copy.read_bytes()
    with create_run(copy, {"n": 1}, overwrite=True) as run:
        assert copy.read_bytes() == before
        run.put_table("t", {"a": [1.0]})
        assert copy.read_bytes() == before
        run.seal()
    assert list(open_run(copy).tables) == ["t"]


def test_row_21_directory_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    with pytest.raises(OutputError, match="file") as caught:
        create_run(blocked / "run.h5", {})
    assert caught.value.errno is not None


def test_row_22_second_writer(tmp_path):
    path = tmp_path / "run.h5"
    with create_run(path, {}) as first:
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises((RunLockedError, OutputError), match=r"run\.h5") as caught:
                create_run(path, {}, **options)
            if options:
                assert isinstance(caught.value, RunLockedError)
                assert "another process" in str(caught.value)
        first.put_table("t", {"a": [1.0]})
    with create_run(path, {}, resume=True) as run:
        run.seal()


@pytest.mark.parametrize("content", [b"", b"plain text\n" * 100])
def test_row_23_not_hdf5(content, tmp_path):
    path = tmp_path / "run.h5"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="not an HDF5 file") as caught:
        open_run(path)
    assert str(path) in str(caught.value)
    with pytest.raises(FileFormatError, match="not an HDF5 file"):
        open_run(tmp_path)


def test_row_24_truncated(copy):
    data = copy.read_bytes()
    copy.write_bytes(data[: int(len(data) * 0.999)])
    with pytest.raises(CorruptFileError, match=r"truncated|SHA-256") as caught:
        open_run(copy)
    assert str(copy) in str(caught.value)


def segments(path: Path) -> list[Path]:
    return sorted(p for p in Path(f"{path}.parts").iterdir() if p.suffix == ".h5")


def test_row_25_flipped_bit_in_a_segment(parts):
    victim = segments(parts)[0]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    with pytest.raises(CorruptFileError, match="SHA-256") as caught:
        open_run(parts)
    assert victim.name[:6] in str(caught.value)


def test_row_26_missing_and_swapped_segments(parts):
    victim = segments(parts)[1]
    data = victim.read_bytes()
    victim.unlink()
    with pytest.raises(CorruptFileError, match="1"):
        open_run(parts)
    victim.write_bytes(data)
    first, second = segments(parts)[:2]
    swapped = [first.with_name("000001" + first.name[6:]), second.with_name("000000" + second.name[6:])]
    bytes_of = [first.read_bytes(), second.read_bytes()]
    first.unlink()
    second.unlink()
    for target, content in zip(swapped, bytes_of, strict=True):
        target.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"00000[01]"):
        open_run(parts)


def edit(path: Path, change) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def test_row_27_newer_schema(copy):
    edit(copy, lambda f: f.attrs.__setitem__("schema_version", 99))
    with pytest.raises(FileFormatError, match="99"):
        open_run(copy)


def external_link(file):
    file["series/x"] = h5py.ExternalLink("/etc/passwd", "/")


def external_storage(file):
    file.create_dataset("series/x", shape=(10,), dtype="u1", external=[("/etc/passwd", 0, 10)])


def virtual(file):
    layout = h5py.VirtualLayout(shape=(4,), dtype="f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(4,))
    file.create_virtual_dataset("series/x", layout)


@pytest.mark.parametrize("change", [external_link, external_storage, virtual])
def test_row_28_objects_that_reach_outside(change, copy):
    edit(copy, change)
    with pytest.raises(UnsafeFileError, match="x"):
        open_run(copy)


def huge_contiguous(file):
    file.create_dataset("series/first/x", shape=(2**47,), dtype="f8")


def huge_chunked(file):
    file.create_dataset("series/first/x", shape=(2**47,), chunks=(2**20,), dtype="f8")


def inflating(file):
    """A gibibyte of which one chunk is stored: the rest would be filled in while reading."""
    data = file.create_dataset("series/first/x", shape=(2**27,), chunks=(2**16,), dtype="f8", compression="gzip")
    data[: 2**16] = 0.0


def huge_dimension(file):
    """Poses as a dimension without a coordinate, but as one with bytes."""
    data = file.create_dataset("series/first/x", shape=(2**40,), chunks=(2**20,), dtype="f4")
    data[:10] = 1.0
    data.make_scale("This is a netCDF dimension but not a netCDF variable.         1")


@pytest.mark.parametrize("change", [huge_contiguous, huge_chunked, inflating, huge_dimension])
def test_row_29_declared_far_beyond_what_is_stored(change, copy):
    edit(copy, change)
    with pytest.raises(ResourceError, match=r"/series/first/x.*declared.*stored.*limit"):
        open_run(copy)


def test_a_pickled_attribute_never_runs(copy, tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'owned'}",))

    edit(copy, lambda f: f.attrs.__setitem__("title", np.void(pickle.dumps(Evil()))))
    try:
        with open_run(copy) as run:
            _ = run.attrs
            run.summary()
            run.to_xarray()
    except MeanfieldError:
        pass
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("config", "seed", "words"),
    [
        ({"n_rows": 99, "every": 4}, 1, ("n_rows", "99", "12")),
        ({"n_rows": 12.0, "every": 4}, 1, ("n_rows", "12")),
        ({"n_rows": 12, "every": 4}, 2, ("seed", "2", "1")),
        ({"n_rows": 12, "every": 4, "extra": 1}, 1, ("extra",)),
    ],
)
def test_row_30_resume_with_another_configuration(parts, config, seed, words):
    with pytest.raises(ResumeMismatchError) as caught:
        create_run(parts, config, experiment="walk", seed=seed, resume=True)
    for word in words:
        assert word in str(caught.value)
    with open_run(parts) as run:
        assert len(run.series["first"]["norm"]) == 8


def test_one_flipped_bit_in_a_sealed_file_is_found(copy):
    data = bytearray(copy.read_bytes())
    with h5py.File(copy) as file:
        offset = file["series/first/y"].id.get_chunk_info(0).byte_offset
    data[offset + 40] ^= 4
    copy.write_bytes(bytes(data))
    try:
        report = verify(copy)
    except CorruptFileError:
        return
    assert not report.ok
    assert any("y" in problem for problem in report.problems)
