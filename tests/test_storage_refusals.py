"""Files made to do harm, and files damaged by chance: refused by object and kind, or read right."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from meanfield.errors import CorruptFileError, FileFormatError, MeanfieldError, ResourceError, UnsafeFileError
from meanfield.storage.run import create_run, open_run, verify

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


def dataset(**options):
    return lambda file: file.create_dataset("series/x", **options)


def twice_deflated(file):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((1000,))
    plist.set_deflate(9)
    plist.set_deflate(9)
    space = h5py.h5s.create_simple((1000,))
    h5py.h5d.create(file["series"].id, b"x", h5py.h5t.IEEE_F64LE, space, dcpl=plist)


def fake_dimension_list(file):
    file["series/first/y"].attrs.create("REFERENCE_LIST", np.zeros(1, dtype=[("a", "f8"), ("b", "i4"), ("c", "i4")]))


HOSTILE = {
    "an external link": lambda f: f.__setitem__("series/x", h5py.ExternalLink("/etc/passwd", "/")),
    "a soft link": lambda f: f.__setitem__("series/x", h5py.SoftLink("/series/first")),
    "a second link": lambda f: f.__setitem__("series/x", f["series/first"]),
    "external storage": dataset(shape=(4,), dtype="u1", external=[("/etc/passwd", 0, 4)]),
    "variable-length text": dataset(data=["a"], dtype=h5py.string_dtype()),
    "variable-length data": dataset(shape=(2,), dtype=h5py.vlen_dtype(np.int32)),
    "a compound type": dataset(data=np.zeros(2, dtype=[("a", "f8"), ("b", "i4")])),
    "opaque data": dataset(data=np.void(b"\x80\x04pickle")),
    "references": dataset(shape=(1,), dtype=h5py.ref_dtype),
    "an enumeration": dataset(data=np.array([True])),
    "an array type": dataset(shape=(1,), dtype=np.dtype(("f8", (3,)))),
    "numbers of 2 bytes": dataset(data=np.zeros(2, np.float16)),
    "numbers of 16 bytes": dataset(data=np.zeros(2, np.longdouble)),
    "filter 32000": dataset(data=np.zeros(1000), compression="lzf"),
    "filter 6": dataset(data=np.zeros(1000, int), scaleoffset=0),
    "filter 1 (deflate) applied 2x": twice_deflated,
    "a named datatype": lambda f: f.__setitem__("series/x", np.dtype("f8")),
    "an attribute of variable-length text": lambda f: f["series"].attrs.__setitem__("x", "text"),
    "an attribute of opaque data": lambda f: f["series"].attrs.__setitem__("x", np.void(b"\x80\x04.")),
    "an attribute of a compound type": fake_dimension_list,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_row_28_what_reaches_outside_or_is_no_number_or_text_is_refused(copy, kind):
    with h5py.File(copy, "r+") as file:
        HOSTILE[kind](file)
    for read in (open_run, verify):
        with pytest.raises(UnsafeFileError) as caught:
            read(copy)
        assert kind in str(caught.value)
        assert "object '/series" in str(caught.value)
        assert str(copy) in str(caught.value)


def test_row_28_virtual_datasets_are_refused_though_their_source_is_gone(copy):
    layout = h5py.VirtualLayout(shape=(4,), dtype="f8")
    layout[:] = h5py.VirtualSource("gone.h5", "x", shape=(4,))
    with h5py.File(copy, "r+") as file:
        file.create_virtual_dataset("series/x", layout)
    with pytest.raises(UnsafeFileError, match=r"/series/x.*virtual dataset"):
        open_run(copy)


def test_a_group_named_to_climb_out_is_refused(copy):
    with h5py.File(copy, "r+") as file:
        file.move("tables/first", "tables/..")
    with pytest.raises(UnsafeFileError, match=r"'\.\.'.*outside"):
        open_run(copy)


def test_row_29_a_large_attribute_is_refused(copy):
    with h5py.File(copy, "r+") as file:
        file["series"].attrs.create("x", np.zeros(3 * 2**20))
    with pytest.raises(ResourceError, match=r"/series@x.*declared.*stored.*limit"):
        open_run(copy)


def test_a_file_of_zeros_that_gzip_shrinks_a_thousandfold_is_no_bomb(tmp_path):
    path = tmp_path / "run.h5"
    with create_run(path, {}) as run:
        run.put_table("zeros", {"a": np.zeros(2**20)})
        run.seal()
    assert path.stat().st_size < 100_000
    assert len(open_run(path).tables["zeros"]["a"]) == 2**20


def test_row_27_newer_schema_names_both_versions(copy):
    with h5py.File(copy, "r+") as file:
        file.attrs.modify("schema_version", 7)
    with pytest.raises(FileFormatError, match=r"7 was found, supported is up to 1"):
        open_run(copy)


def test_row_23_an_hdf5_file_that_is_no_run(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["x"] = 1.0
    with pytest.raises(FileFormatError, match="not a run"):
        open_run(path)
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(FileFormatError, match="not an HDF5 file"):
        open_run(tmp_path / "pipe.h5")
    with pytest.raises(FileFormatError, match="does not exist"):
        open_run(tmp_path / "nothing.h5")


@pytest.mark.parametrize(
    ("harm", "error"),
    [
        (lambda f: f.__setitem__("x", h5py.ExternalLink("/etc/passwd", "/")), UnsafeFileError),
        (lambda f: f.create_dataset("x", shape=(2**47,), dtype="f8", chunks=(2**20,)), ResourceError),
        (lambda f: f.attrs.modify("schema_version", 7), FileFormatError),
    ],
)
def test_a_hostile_segment_with_the_right_digest_is_refused(tmp_path, harm, error):
    path = tmp_path / "run.h5"
    with create_run(path, {}) as run:
        run.put_table("t", {"a": [1.0]})
    victim = next(Path(f"{path}.parts").glob("000001*"))
    forged = tmp_path / "forged.h5"
    forged.write_bytes(victim.read_bytes())
    with h5py.File(forged, "r+") as file:
        harm(file)
    data = forged.read_bytes()
    victim.unlink()
    victim.with_name(f"000001.{hashlib.sha256(data).hexdigest()}.h5").write_bytes(data)
    with pytest.raises(error, match="000001"):
        open_run(path)


def test_row_26_every_missing_or_exchanged_segment_is_named(tmp_path):
    path = tmp_path / "run.h5"
    with create_run(path, {}) as run:
        for k in range(4):
            run.put_table(f"t{k}", {"a": [k]})
    found = sorted(Path(f"{path}.parts").glob("0*"))
    for number in range(4):
        content = found[number].read_bytes()
        found[number].unlink()
        with pytest.raises(CorruptFileError, match=f"segment {number:06d} is missing"):
            open_run(path)
        found[number].write_bytes(content)
    other = tmp_path / "other.h5"
    with create_run(other, {"other": 1}) as run:
        for k in range(4):
            run.put_table(f"t{k}", {"a": [k]})
    for number in (0, 2):
        stranger = next(Path(f"{other}.parts").glob(f"{number:06d}*"))
        found[number].rename(tmp_path / "kept")
        (found[number].parent / stranger.name).write_bytes(stranger.read_bytes())
        with pytest.raises(CorruptFileError, match=rf"segment {max(number, 1):06d}|two segments"):
            open_run(path)
        (found[number].parent / stranger.name).unlink()
        (tmp_path / "kept").rename(found[number])
    twin = found[1].with_name(f"000001.{'0' * 64}.h5")
    twin.write_bytes(b"")
    with pytest.raises(CorruptFileError, match="two segments 000001"):
        open_run(path)
    twin.unlink()
    assert list(open_run(path).tables) == ["t0", "t1", "t2", "t3"]


FLIPS = """
import sys, random, warnings
from pathlib import Path
import numpy as np
from meanfield.errors import MeanfieldError
from meanfield.storage.run import open_run
path, count = Path(sys.argv[1]), int(sys.argv[2])
good = path.read_bytes()
def everything():
    with open_run(path) as run:
        arrays = {(l, n): s[n].tobytes() for l, s in run.series.items() for n in s}
        arrays |= {(l, n): a.tobytes() for l, t in run.tables.items() for n, a in t.items()}
        return arrays, run.verdicts, run.config, run.attrs
truth = repr(everything())
rng = random.Random(0)
refused = same = 0
for k in range(count):
    data = bytearray(good)
    if k % 8 == 7:
        del data[rng.randrange(len(data)):]
    else:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))
    try:
        found = repr(everything())
    except MeanfieldError:
        refused += 1
    else:
        assert found == truth, f"case {k}: read wrong without a word"
        same += 1
path.write_bytes(good)
print(refused, same)
"""


def flips(path: Path, count: int) -> tuple[int, int]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", FLIPS, str(path), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    refused, same = map(int, done.stdout.split())
    return refused, same


def test_flipped_bits_and_lost_ends_of_a_sealed_file_are_refused_or_harmless(copy):
    refused, same = flips(copy, 200)
    print("refused", refused, "read right", same)
    assert refused + same == 200
    assert refused >= 25  # every lost end


@pytest.mark.full
def test_ten_thousand_flipped_bits_never_crash_nor_mislead(copy):
    print("refused, read right:", flips(copy, 10_000))


def test_text_of_a_file_steers_neither_terminal_nor_browser(tmp_path):
    path = tmp_path / "run.h5"
    with create_run(path, {"note": "\x1b[31m<script>"}, experiment="\x1b]0;owned\x07<b>") as run:
        run.put_verdict({"claim": "<script>\x1b[2J", "status": "holds"})
        run.seal()
    with open_run(path) as run:
        assert run.config == {"note": "\x1b[31m<script>"}
        assert "\x1b" not in run.summary()
        assert "<script>" not in run._repr_html_()


def test_to_csv_leaves_existing_files_alone(sealed, tmp_path):
    with open_run(sealed) as run:
        written = run.to_csv(tmp_path)
        with pytest.raises(MeanfieldError, match="EEXIST"):
            run.to_csv(tmp_path)
        head, first = written[[p.name for p in written].index("series.first.time.csv")].read_text().splitlines()[:2]
        assert head.split(",")[:3] == ["time", "y[0]", "y[1]"]
        assert [float(v) for v in first.split(",")][1] == run.series["first"]["y"][0, 0]


def test_a_missing_extra_is_named(sealed, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with open_run(sealed) as run, pytest.raises(MeanfieldError, match=r"meanfield\[xarray\]"):
        run.to_xarray()


def test_digests_are_those_of_the_plain_values(sealed):
    with h5py.File(sealed) as file:
        for name in ("series/first/y", "series/first/time", "verdicts/claim", "tables/first/final"):
            assert file[name].attrs["sha256"].decode() == hashlib.sha256(file[name][()].tobytes()).hexdigest()
        assert json.loads(file.attrs["versions"])["h5py"] == h5py.__version__
