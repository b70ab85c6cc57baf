"""Data sets: the right values, balanced and repeatable; a user's files: read exactly or refused with the reason."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meanfield import data
from meanfield.errors import (
    ConfigError,
    CorruptFileError,
    FileFormatError,
    MeanfieldError,
    ResourceError,
    UnsafeFileError,
)

GENERATED = {"circles": 2, "annuli": 3, "xor": 2, "moons": 2, "spirals": 2}
FOLDER = Path(__file__).resolve().parent.parent / "data"

# ---------------------------------------------------------------- the real data sets


@pytest.mark.parametrize(
    ("name", "shape", "counts"),
    [
        ("digits", (1797, 64), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]),
        ("iris", (150, 4), [50, 50, 50]),
        ("wine", (178, 13), [59, 71, 48]),
    ],
)
def test_shipped_set_has_its_published_size_and_classes(name: str, shape: tuple[int, int], counts: list[int]) -> None:
    found = getattr(data, name)()
    assert found.x.shape == shape
    assert found.x.dtype == np.float64
    assert found.x.flags.c_contiguous
    assert np.bincount(found.labels).tolist() == counts
    assert (len(found.feature_names), len(found.class_names)) == (shape[1], len(counts))
    assert "CC BY 4.0" in found.source


def test_published_statistics_of_iris() -> None:
    x = data.iris().x
    np.testing.assert_array_equal(x.min(axis=0), [4.3, 2.0, 1.0, 0.1])
    np.testing.assert_array_equal(x.max(axis=0), [7.9, 4.4, 6.9, 2.5])
    np.testing.assert_allclose(x.mean(axis=0), [5.84, 3.05, 3.76, 1.20], atol=0.0101)
    np.testing.assert_allclose(x.std(axis=0), [0.83, 0.43, 1.76, 0.76], atol=0.0101)


def test_published_statistics_of_wine() -> None:
    x = data.wine().x
    least = [11.0, 0.74, 1.36, 10.6, 70.0, 0.98, 0.34, 0.13, 0.41, 1.3, 0.48, 1.27, 278]
    most = [14.8, 5.80, 3.23, 30.0, 162.0, 3.88, 5.08, 0.66, 3.58, 13.0, 1.71, 4.00, 1680]
    mean = [13.0, 2.34, 2.36, 19.5, 99.7, 2.29, 2.03, 0.36, 1.59, 5.1, 0.96, 2.61, 746]
    digit = np.array(
        [0.1, 0.01, 0.01, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.1, 0.01, 0.01, 1.0]
    )  # some are cut, not rounded
    for found, published in ((x.min(axis=0), least), (x.max(axis=0), most), (x.mean(axis=0), mean)):
        assert np.all(np.abs(found - published) <= digit), (found, published)


def test_digits_are_images_of_16_grey_levels() -> None:
    x = data.digits().x
    assert (x.min(), x.max()) == (0.0, 16.0)
    assert np.array_equal(x, np.round(x))
    first = x[0].reshape(8, 8)  # a zero: ink around a hole
    assert first[3, 3:5].max() <= 1.0
    assert first[3, 2] + first[3, 5] >= 8.0


def test_iris_has_the_values_of_the_paper_not_the_misprints() -> None:
    np.testing.assert_array_equal(data.iris().x[[34, 37]], [[4.9, 3.1, 1.5, 0.2], [4.9, 3.6, 1.4, 0.1]])


def test_checksums_in_the_readme_are_those_of_the_files() -> None:
    readme = (FOLDER / "README.md").read_text()
    files = sorted(FOLDER.glob("*.csv*"))
    assert [path.name for path in files] == sorted(data._SHA256)
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert data._SHA256[path.name] == digest
        assert f"`{digest}`" in readme


def test_digits_file_carries_no_time_stamp() -> None:
    assert (FOLDER / "digits.csv.gz").read_bytes()[4:8] == bytes(4)


def test_changed_file_is_refused_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_data").mkdir()
    altered = (FOLDER / "iris.csv").read_bytes().replace(b"5.1,3.5", b"5.2,3.5", 1)
    (tmp_path / "_data" / "iris.csv").write_bytes(altered)
    monkeypatch.setattr(data, "_PACKAGE", tmp_path)
    with pytest.raises(CorruptFileError, match=r"iris\.csv: SHA-256"):
        data.iris()
    with pytest.raises(CorruptFileError, match=r"wine\.csv is missing"):
        data.wine()


def test_installed_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_data").mkdir()
    (tmp_path / "_data" / "wine.csv").write_bytes((FOLDER / "wine.csv").read_bytes())
    expected = data.wine().x
    monkeypatch.setattr(data, "_PACKAGE", tmp_path)
    np.testing.assert_array_equal(data.wine().x, expected)


# ---------------------------------------------------------------- Dataset


def test_standardised_columns_have_mean_zero_and_variance_one() -> None:
    x = data.wine().standardised().x
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=1e-13)
    np.testing.assert_allclose(x.var(axis=0), 1.0, rtol=1e-13)


def test_constant_column_becomes_zero_not_noise() -> None:
    x = data.digits().standardised().x
    assert np.abs(x).max() < 50.0
    assert not x[:, 0].any()  # the corner pixel never has ink
    tenth = data.Dataset(np.full((3, 1), 0.1), np.zeros(3, int), "tenth", ("x",), ("a",), "")
    assert not tenth.standardised().x.any()


@given(fraction=st.floats(0.05, 0.95), seed=st.integers(0, 2**32))
def test_split_is_stratified_disjoint_and_complete(fraction: float, seed: int) -> None:
    whole = data.annuli(n=61, seed=3)
    first, second = whole.split(fraction, seed)
    for part, share in ((first, fraction), (second, 1.0 - fraction)):
        counts = np.bincount(part.labels, minlength=3)
        assert np.all(np.abs(counts - share * np.bincount(whole.labels)) <= 0.5 + 1e-9)
    both = np.concatenate([first.x, second.x])
    assert sorted(map(tuple, both)) == sorted(map(tuple, whole.x))


def test_split_depends_on_the_seed_alone() -> None:
    whole = data.iris()
    np.testing.assert_array_equal(whole.split(0.8, 1)[0].x, whole.split(0.8, 1)[0].x)
    assert not np.array_equal(whole.split(0.8, 1)[0].x, whole.split(0.8, 2)[0].x)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan"), True])
def test_fraction_outside_the_unit_interval_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="fraction"):
        data.iris().split(fraction)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(2, int)}, "3 points and labels 2"),
        ({"labels": np.array([0, 1, 2])}, r"0 \.\. 1"),
        ({"labels": np.array([0, -1, 1])}, r"0 \.\. 1"),
        ({"labels": np.array([0.0, 1.0, 1.0])}, "integers"),
        ({"feature_names": ("a",)}, "2 columns and feature_names 1"),
        ({"x": np.array([[1.0, np.inf]] * 3)}, r"inf at index \(0, 1\)"),
    ],
)
def test_inconsistent_dataset_is_refused(change: dict[str, object], message: str) -> None:
    good = {
        "x": np.ones((3, 2)),
        "labels": np.array([0, 1, 1]),
        "name": "n",
        "feature_names": ("a", "b"),
        "class_names": ("p", "q"),
        "source": "",
    }
    assert len(data.Dataset(**good)) == 3
    with pytest.raises(ConfigError, match=message):
        data.Dataset(**good | change)


# ---------------------------------------------------------------- generated data sets


@pytest.mark.parametrize("name", GENERATED)
@given(n=st.integers(1, 50), seed=st.integers(0, 2**64))
def test_generated_set_is_balanced_and_repeatable(name: str, n: int, seed: int) -> None:
    make = getattr(data, name)
    found = make(n=n, noise=0.1, seed=seed)
    counts = np.bincount(found.labels, minlength=GENERATED[name])
    assert len(found) == n
    assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(found.x, make(n=n, noise=0.1, seed=seed).x)


@pytest.mark.parametrize("name", GENERATED)
def test_another_seed_gives_other_points(name: str) -> None:
    make = getattr(data, name)
    assert not np.isin(make(n=40, seed=0).x, make(n=40, seed=1).x).any()


@pytest.mark.parametrize("name", GENERATED)
def test_noise_moves_the_same_points_by_its_standard_deviation(name: str) -> None:
    make = getattr(data, name)
    clean, noisy = make(n=4000, seed=5), make(n=4000, noise=0.2, seed=5)
    np.testing.assert_array_equal(clean.labels, noisy.labels)
    # 8000 normal numbers: their standard deviation scatters by 0.2 / sqrt(16000), five of which are allowed
    assert np.std(noisy.x - clean.x) == pytest.approx(0.2, abs=5 * 0.2 / np.sqrt(16000))


@pytest.mark.parametrize(
    ("name", "rings"), [("circles", [(0.0, 0.5), (1.0, 1.5)]), ("annuli", [(0.0, 0.5), (1.0, 1.5), (2.0, 2.5)])]
)
def test_rings_are_uniform_in_area(name: str, rings: list[tuple[float, float]]) -> None:
    found = getattr(data, name)(n=6000, seed=1)
    for label, (inner, outer) in enumerate(rings):
        x = found.x[found.labels == label]
        radius = np.hypot(*x.T)
        assert radius.min() >= inner
        assert radius.max() <= outer + 1e-12
        # Uniform in area: (r^2 - inner^2)/(outer^2 - inner^2) is uniform; Kolmogorov distance below its 0.1 % level.
        share = np.sort((radius**2 - inner**2) / (outer**2 - inner**2))
        assert np.abs(share - (np.arange(len(share)) + 0.5) / len(share)).max() < 1.95 / np.sqrt(len(share))
        turn = np.sort(np.arctan2(x[:, 1], x[:, 0]) / (2 * np.pi) + 0.5)
        assert np.abs(turn - (np.arange(len(turn)) + 0.5) / len(turn)).max() < 1.95 / np.sqrt(len(turn))


def test_xor_classes_are_the_signs() -> None:
    found = data.xor(n=400, seed=2)
    np.testing.assert_array_equal(found.labels, (found.x[:, 0] * found.x[:, 1] < 0).astype(int))
    assert np.abs(found.x).min() >= 0.1
    assert np.abs(found.x).max() <= 1.0
    quadrant = 2 * (found.x[:, 0] > 0) + (found.x[:, 1] > 0)
    assert np.bincount(quadrant).tolist() == [100, 100, 100, 100]


def test_moons_lie_on_their_half_circles() -> None:
    found = data.moons(n=300, seed=2)
    upper, lower = found.x[found.labels == 0], found.x[found.labels == 1]
    np.testing.assert_allclose(np.hypot(*upper.T), 1.0, rtol=1e-14)
    np.testing.assert_allclose(np.hypot(lower[:, 0] - 1.0, lower[:, 1] - 0.5), 1.0, rtol=1e-14)
    assert upper[:, 1].min() >= 0.0
    assert lower[:, 1].max() <= 0.5


def test_spirals_are_one_arm_and_its_half_turn() -> None:
    found = data.spirals(n=300, seed=2)
    radius = np.hypot(*found.x.T)
    turned = found.x * np.where(found.labels == 0, 1.0, -1.0)[:, None]
    on_arm = radius[:, None] * np.column_stack([np.cos(3 * np.pi * radius), np.sin(3 * np.pi * radius)])
    np.testing.assert_allclose(turned, on_arm, atol=1e-13)
    assert radius.min() >= 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "positive integer"),
        ({"n": 2.5}, "positive integer"),
        ({"n": True}, "bool"),
        ({"noise": -0.1}, "noise"),
        ({"noise": float("nan")}, "finite"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"seed": True}, "seed"),
    ],
)
def test_bad_arguments_of_a_generator_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        data.circles(**arguments)


# ---------------------------------------------------------------- interpolation


def midpoints(n: int) -> np.ndarray:
    return (np.arange(n) + 0.5) / n


@pytest.mark.parametrize("side", [1, 2, 3, 8, 13])
def test_interpolation_to_the_same_labels_changes_nothing(side: int) -> None:
    images = np.random.default_rng(0).normal(size=(4, side, side))
    np.testing.assert_array_equal(data.interpolate_square(images, side), images.reshape(4, -1))


@pytest.mark.parametrize("n", [1, 5, 8, 16, 33])
def test_constants_are_preserved_exactly(n: int) -> None:
    constants = np.array([0.1, -3.7, 1e300, 0.0])
    images = np.broadcast_to(constants[:, None, None], (4, 8, 8))
    np.testing.assert_array_equal(data.interpolate_square(images, n), np.broadcast_to(constants[:, None], (4, n * n)))


@pytest.mark.parametrize("n", [4, 16, 24])
def test_bilinear_field_is_reproduced_inside_and_the_axes_are_not_swapped(n: int) -> None:
    def field(x: np.ndarray) -> np.ndarray:
        return 2.0 + 3.0 * x[:, None] - 5.0 * x[None, :] + 7.0 * x[:, None] * x[None, :]

    found = data.interpolate_square(field(midpoints(8))[None], n).reshape(n, n)
    inside = (midpoints(n) >= 1 / 16) & (midpoints(n) <= 15 / 16)
    np.testing.assert_allclose(found[np.ix_(inside, inside)], field(midpoints(n))[np.ix_(inside, inside)], rtol=1e-13)


def test_interpolation_is_second_order_inside() -> None:
    errors = []
    sides = [16, 32, 64, 128]
    for k in sides:
        images = (np.sin(3 * midpoints(k))[:, None] * np.cos(2 * midpoints(k))[None, :])[None]
        n = 5 * k  # fixed places relative to the pixels, pixel centres among them
        x = midpoints(n)
        inside = (x > 0.1) & (x < 0.9)
        exact = np.sin(3 * x)[:, None] * np.cos(2 * x)[None, :]
        found = data.interpolate_square(images, n).reshape(n, n)
        errors.append(np.abs(found - exact)[np.ix_(inside, inside)].max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert abs(np.median(orders) - 2.0) <= 0.1, (errors, orders)


@given(seed=st.integers(0, 1000), n=st.integers(1, 40))
def test_interpolation_keeps_the_range(seed: int, n: int) -> None:
    images = np.random.default_rng(seed).uniform(-1.0, 1.0, size=(2, 25))
    found = data.interpolate_square(images, n)
    assert np.all(found.min(axis=1) >= images.min(axis=1) - 1e-15)
    assert np.all(found.max(axis=1) <= images.max(axis=1) + 1e-15)


@pytest.mark.parametrize("shape", [(3, 7), (3, 4, 5), (9,), (2, 3, 3, 3), (3, 0)])
def test_images_that_are_not_square_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="k, k"):
        data.interpolate_square(np.zeros(shape), 8)


def test_interpolation_beyond_memory_is_refused() -> None:
    with pytest.raises(ResourceError, match="GiB"):
        data.interpolate_square(np.zeros((1, 8, 8)), 10**8)


# ---------------------------------------------------------------- a user's fields

VALUES = np.random.default_rng(7).normal(size=(5, 9))


def write_csv(path: Path, values: np.ndarray) -> None:
    np.savetxt(path, values, delimiter=",", fmt="%.17g", header=",".join(f"x{k}" for k in range(9)), comments="")


def write_hdf5(path: Path, **arrays: object) -> None:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values)


WRITERS: dict[str, Callable[[Path, np.ndarray], None]] = {
    ".csv": write_csv,
    ".npy": np.save,
    ".npz": lambda path, values: np.savez(path, z=values),
    ".h5": lambda path, values: write_hdf5(path, z=values),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_fields_come_back_to_the_last_bit(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"fields{suffix}"
    WRITERS[suffix](path, VALUES)
    found = data.load_fields(path)
    np.testing.assert_array_equal(found, VALUES)
    assert found.dtype == np.float64
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(data.load_fields(str(path)), VALUES)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
@pytest.mark.parametrize("dtype", ["float32", "int16", ">f8", "uint8"])
def test_other_number_types_become_float64(tmp_path: Path, suffix: str, dtype: str) -> None:
    path = tmp_path / f"fields{suffix}"
    values = np.round(100 * np.abs(VALUES)).astype(dtype)
    WRITERS[suffix](path, values)
    np.testing.assert_array_equal(data.load_fields(path), values.astype(float))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
def test_images_are_flattened_and_a_vector_is_one_sample(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"fields{suffix}"
    WRITERS[suffix](path, VALUES.reshape(5, 3, 3))
    np.testing.assert_array_equal(data.load_fields(path), VALUES)
    WRITERS[suffix](path, VALUES[0])
    np.testing.assert_array_equal(data.load_fields(path), VALUES[:1])


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_entry_that_is_not_finite_is_named(tmp_path: Path, suffix: str, bad: float) -> None:
    path = tmp_path / f"fields{suffix}"
    values = VALUES.copy()
    values[3, 4] = bad
    WRITERS[suffix](path, values)
    with pytest.raises(ConfigError, match=rf"fields.*finite.*{bad}.*\(3, 4\)"):
        data.load_fields(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
def test_complex_fields_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"fields{suffix}"
    WRITERS[suffix](path, VALUES + 1j)
    with pytest.raises(ConfigError, match=r"fields.*complex"):
        data.load_fields(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (0, 9), (1, 2, 2, 2), ()])
def test_other_shapes_are_refused(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    path = tmp_path / f"fields{suffix}"
    WRITERS[suffix](path, np.zeros(shape))
    with pytest.raises(ConfigError, match="shape"):
        data.load_fields(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("a;b\n1;2\n3;4", [[1, 2], [3, 4]]),
        ("# made by hand\n\n 1   2\n3\t4\n", [[1, 2], [3, 4]]),
        ("\ufeffa,b\r\n1e3,-2\r\n", [[1000, -2]]),
        ("1,2,\n3,4,\n", [[1, 2], [3, 4]]),
    ],
)
def test_dialects_of_csv(tmp_path: Path, text: str, expected: list[list[float]]) -> None:
    path = tmp_path / "fields.csv"
    path.write_bytes(text.encode())
    np.testing.assert_array_equal(data.load_fields(path), expected)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"1,2,3\n4,5\n", FileFormatError, "line 2 holds 2 numbers, the first row 3"),
        (b"1,2\n3,x\n", FileFormatError, "line 2, column 2: 'x' is not a number"),
        (b"1,2\n3,\n", FileFormatError, "line 2 holds 1 numbers, the first row 2"),
        (b"1,2\n3,1+2j\n", ConfigError, "line 2, column 2.*complex"),
        (b"", FileFormatError, "no numbers"),
        (b"a,b\nc,d\n", FileFormatError, "no numbers"),
        (b"\xff\xfe\x00\x01", FileFormatError, "not a text file"),
        (b"1," + b"9" * 5000, ConfigError, "finite"),
    ],
)
def test_bad_csv_is_refused_with_the_place(
    tmp_path: Path, content: bytes, error: type[MeanfieldError], message: str
) -> None:
    path = tmp_path / "fields.csv"
    path.write_bytes(content)
    with pytest.raises(error, match=rf"fields\.csv.*{message}"):
        data.load_fields(path)


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_name_is_asked_for_among_several_arrays(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"fields{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, first=VALUES, second=2 * VALUES)
    else:
        write_hdf5(path, first=VALUES, second=2 * VALUES)
    with pytest.raises(ConfigError, match=r"first, second.*::first"):
        data.load_fields(path)
    np.testing.assert_array_equal(data.load_fields(f"{path}::second"), 2 * VALUES)
    with pytest.raises(ConfigError, match="third"):
        data.load_fields(f"{path}::third")


def test_dataset_inside_groups_is_found_and_named(tmp_path: Path) -> None:
    path = tmp_path / "fields.h5"
    write_hdf5(path, **{"series/run/z": VALUES})
    with h5py.File(path, "a") as file:
        file["series/circle"] = file["series"]  # a group that holds itself
    np.testing.assert_array_equal(data.load_fields(path), VALUES)
    np.testing.assert_array_equal(data.load_fields(f"{path}::/series/run/z"), VALUES)
    with pytest.raises(ConfigError, match="not a dataset"):
        data.load_fields(f"{path}::series/run")


@pytest.mark.parametrize("suffix", [".csv", ".npy"])
def test_name_in_a_file_of_one_array_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"fields{suffix}"
    WRITERS[suffix](path, VALUES)
    with pytest.raises(ConfigError, match="no name"):
        data.load_fields(f"{path}::z")


@pytest.mark.parametrize("suffix", WRITERS)
def test_missing_file_directory_and_unknown_suffix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"fields{suffix}"
    with pytest.raises(ConfigError, match=rf"fields\{suffix}: no such file"):
        data.load_fields(path)
    path.mkdir()
    with pytest.raises(FileFormatError, match="directory"):
        data.load_fields(path)
    with pytest.raises(ConfigError, match=r"\.csv, \.npy, \.npz, \.h5"):
        data.load_fields(tmp_path / "fields.mat")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
@pytest.mark.parametrize("content", [b"", b"just text, no array"])
def test_empty_file_and_text_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"fields{suffix}"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=rf"fields\{suffix}.*not an? "):
        data.load_fields(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
@pytest.mark.parametrize("share", [0.999, 0.9, 0.5])
def test_truncated_file_is_corrupt(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"fields{suffix}"
    WRITERS[suffix](path, np.tile(VALUES, (50, 1)))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CorruptFileError, match=rf"fields\{suffix}.*truncated"):
        data.load_fields(path)


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_flipped_bit_in_an_archive_is_noticed(tmp_path: Path, pack: Callable[..., None]) -> None:
    path = tmp_path / "fields.npz"
    pack(path, z=VALUES)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"fields\.npz"):
        data.load_fields(path)


@pytest.mark.parametrize("suffix", WRITERS)
def test_damage_anywhere_gives_numbers_or_an_error_of_ours(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"fields{suffix}"
    WRITERS[suffix](path, VALUES)
    content = path.read_bytes()
    rng = np.random.default_rng(3)
    refusals = []
    for _ in range(300):
        damaged = bytearray(content)
        for place in rng.integers(min(len(content), 1200), size=2):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert np.isfinite(data.load_fields(path)).all()
        except MeanfieldError as error:
            refusals.append(str(error))
    assert refusals
    assert all(path.name in refusal for refusal in refusals)


@pytest.mark.parametrize("shape", ["(5, 9", "5 9)", "(05, 9)", "{}", "(5.0, 9)", "'5'"])
def test_npy_with_an_unreadable_header_is_refused(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "fields.npy"
    path.write_bytes(npy_header(shape) + VALUES.tobytes())
    with pytest.raises(FileFormatError, match=r"fields\.npy: not a \.npy array"):
        data.load_fields(path)


class Trap:
    """An object whose unpickling leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_pickled_object_is_never_run(tmp_path: Path, suffix: str) -> None:
    path, mark = tmp_path / f"fields{suffix}", tmp_path / "ran"
    (np.save if suffix == ".npy" else np.savez)(path, np.array([Trap(mark)], dtype=object), allow_pickle=True)
    with pytest.raises(UnsafeFileError, match="pickle"):
        data.load_fields(path)
    assert not mark.exists()


def test_bare_pickle_is_no_array(tmp_path: Path) -> None:
    path, mark = tmp_path / "fields.npy", tmp_path / "ran"
    path.write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(FileFormatError, match=r"not a \.npy"):
        data.load_fields(path)
    assert not mark.exists()


def npy_header(shape: str) -> bytes:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def test_npy_that_declares_pebibytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fields.npy"
    path.write_bytes(npy_header("(16777216, 16777216)") + bytes(64))
    with pytest.raises(ResourceError, match=r"fields\.npy: declared 2251799813685248 bytes, stored 64.*limit"):
        data.load_fields(path)
    path.write_bytes(npy_header("(-1, 8)") + bytes(64))
    with pytest.raises(FileFormatError, match=r"\(-1, 8\)"):
        data.load_fields(path)


def test_archive_that_inflates_to_a_gibibyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fields.npz"
    zeros = gzip.compress(b"")  # the deflate stream itself is never read: only its declared size counts
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("z.npy", npy_header("(131072, 1024)") + bytes(2**20) + zeros)
    path.write_bytes(buffer.getvalue())
    assert path.stat().st_size < 5000
    with pytest.raises(ResourceError, match=r"fields\.npz.*declared 1073741824 bytes, stored \d+, over the limit"):
        data.load_fields(path)


@pytest.mark.parametrize("shape", [(2**24, 2**24), (2**17, 2**10)])
def test_dataset_that_declares_more_than_it_stores_is_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = tmp_path / "fields.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("z", shape=shape, dtype="f8", chunks=(128, 128), compression="gzip")
    with pytest.raises(ResourceError, match=r"fields\.h5::z: declared \d+ bytes, stored 0, over the limit"):
        data.load_fields(path)


def unsafe_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that reach for a secret outside them, each with the word the refusal must hold."""
    write_hdf5(folder / "secret.h5", z=VALUES)
    (folder / "secret.raw").write_bytes(VALUES.tobytes())
    kinds = {name: folder / f"{name}.h5" for name in ("external link", "soft link", "virtual", "external storage")}
    with h5py.File(kinds["external link"], "w") as file:
        file["z"] = h5py.ExternalLink("secret.h5", "/z")
    with h5py.File(kinds["soft link"], "w") as file:
        file["z"] = h5py.SoftLink("/elsewhere")
        file["elsewhere"] = h5py.ExternalLink("secret.h5", "/z")
    with h5py.File(kinds["virtual"], "w") as file:
        layout = h5py.VirtualLayout(shape=VALUES.shape, dtype="f8")
        layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "z", shape=VALUES.shape)
        file.create_virtual_dataset("z", layout)
    with h5py.File(kinds["external storage"], "w") as file:
        file.create_dataset("z", VALUES.shape, "f8", external=[(str(folder / "secret.raw"), 0, VALUES.nbytes)])
    return {name: (path, name) for name, path in kinds.items()}


@pytest.mark.parametrize("kind", ["external link", "soft link", "virtual", "external storage"])
def test_what_reaches_outside_the_file_is_refused(tmp_path: Path, kind: str) -> None:
    path, word = unsafe_files(tmp_path)[kind]
    with pytest.raises(UnsafeFileError, match=rf"{kind}\.h5::z.*{word}"):
        data.load_fields(f"{path}::z")
    with pytest.raises((UnsafeFileError, ConfigError)):  # unnamed, a link is no array of the file
        data.load_fields(path)


def test_text_in_hdf5_is_not_numbers(tmp_path: Path) -> None:
    path = tmp_path / "fields.h5"
    with h5py.File(path, "w") as file:
        file["words"] = ["a", "b"]
    with pytest.raises(FileFormatError, match="not numbers"):
        data.load_fields(path)


def test_compressed_dataset_with_a_flipped_bit_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "fields.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("z", data=np.tile(VALUES, (50, 1)), chunks=(250, 9), fletcher32=True)
        offset = file["z"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"fields\.h5.*damaged"):
        data.load_fields(path)
