"""Reading a user's own fields from a .csv, .npy, .npz or .h5 file.

Nobody vouches for such a file: nothing in it is unpickled, nothing in it may
point outside it, and what it declares is weighed before memory is given to it.
"""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import h5py
import numpy as np
from numpy.lib import format as npy_format

from meanfield._checks import Array, available_bytes, finite_array
from meanfield.errors import (
    ConfigError,
    CorruptFileError,
    FileFormatError,
    MeanfieldError,
    ResourceError,
    UnsafeFileError,
)

_SMALL = 64 * 2**20
_INFLATION = 200  # fields compress by tens; what inflates more is no field
_DEFLATE_MOST = 1032  # no deflate stream inflates by more
_MOST_OBJECTS = 10_000
# Filters built into HDF5 and h5py (deflate, shuffle, fletcher32, szip, n-bit, scale-offset, lzf);
# any other would load a plug-in.
_FILTERS = frozenset({1, 2, 3, 4, 5, 6, 32000})


def load_fields(path: str | os.PathLike[str]) -> Array:
    """Read fields, one sample a row, from a file.

    Parameters
    ----------
    path : path
        A .csv (comma, semicolon or blanks between numbers, an optional header row), .npy,
        .npz or .h5 file. Of several arrays in one file the name is given as ``path::name``.
        An array of images (n_samples, k, k) is taken row by row, a vector as one sample.

    Returns
    -------
    array (n_samples, n_labels)
        The fields as float64.

    Raises
    ------
    ConfigError
        For a missing file, an array of another shape, complex or non-finite entries.
    FileFormatError
        For a file that is not what its suffix says.
    CorruptFileError
        For a truncated or damaged one.
    UnsafeFileError
        For pickled objects, and in HDF5 for links, external storage and virtual datasets.
    ResourceError
        For arrays that do not fit into memory, or files that inflate beyond measure.
    """
    file, name = _split(os.fspath(path))
    readers = {".csv": _read_csv, ".npy": _read_npy_file, ".npz": _read_npz, ".h5": _read_hdf5}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise ConfigError(f"{file}: fields are read from {', '.join(readers)}, not from {file.suffix or 'no suffix'!r}")
    if name is not None and reader in {_read_csv, _read_npy_file}:
        raise ConfigError(f"{file}: a {file.suffix} file holds one array, which has no name (got {name!r})")
    try:
        if file.is_dir():
            raise FileFormatError(f"{file}: is a directory, not a {file.suffix} file")
        if not file.exists():
            raise ConfigError(f"{file}: no such file")
        if not file.is_file():
            raise FileFormatError(f"{file}: not a regular file")
        with file.open("rb"):  # says what keeps it from being read, where HDF5 would not
            pass
        raw = reader(file, name)
    except (OSError, ValueError) as error:
        if isinstance(error, (ConfigError, FileFormatError)):
            raise
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    return _as_fields(f"{file}" if name is None else f"{file}::{name}", raw)


def _split(path: str) -> tuple[Path, str | None]:
    file, mark, name = path.rpartition("::")
    if not mark or Path(path).exists():
        return Path(path), None
    return Path(file), name


def _as_fields(what: str, raw: Any) -> Array:
    array = finite_array(what, raw)
    if array.ndim == 1:
        array = array[np.newaxis]
    elif array.ndim == 3 and array.shape[1] == array.shape[2]:
        array = array.reshape(len(array), -1)
    if array.ndim != 2 or array.size == 0:
        raise ConfigError(f"{what} has shape {array.shape}, expected (n_samples, n_labels) with at least one of each")
    return array


def check_declared(what: str, declared: int, stored: int) -> None:
    """Refuse what declares more than memory holds, or far more than it stores."""
    limit = min(available_bytes() // 2, max(_SMALL, _INFLATION * stored))
    if declared > limit:
        raise ResourceError(f"{what}: declared {declared} bytes, stored {stored}, over the limit of {limit} bytes")


def _one_name(file: Path, names: list[str], name: str | None) -> str:
    """Name of the array asked for, or of the only one."""
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    if name is None:
        if len(names) != 1:
            held = f"several arrays ({listed}): ask for one as {file}::{names[0]}" if names else "no array"
            raise ConfigError(f"{file}: holds {held}")
        return names[0]
    if name not in names:
        raise ConfigError(f"{file}: holds no array {name!r}, only {listed or 'none'}")
    return name


# ---------------------------------------------------------------- text


def _read_csv(file: Path, _name: str | None) -> Array:
    # A number and its separator are at least two bytes, and become eight, twice over while they are stacked.
    size = file.stat().st_size
    check_declared(f"{file}", 8 * size, size)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{file}: not a text file: {error.reason} at byte {error.start}") from None
    separator = next((mark for mark in ",;" if mark in text), None)
    rows: list[Array] = []
    for number, line in enumerate(text.splitlines(), start=1):
        cells = line.strip().removesuffix(separator or "").split(separator)
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not rows and not any(_is_number(cell) for cell in cells):
            continue  # the header
        row = _csv_row(file, number, cells)
        if rows and len(row) != len(rows[0]):
            raise FileFormatError(f"{file}: line {number} holds {len(row)} numbers, the first row {len(rows[0])}")
        rows.append(row)
    if not rows:
        raise FileFormatError(f"{file}: holds no numbers")
    return np.vstack(rows)


def _is_number(cell: str) -> bool:
    try:
        complex(cell)
    except ValueError:
        return False
    return True


def _csv_row(file: Path, number: int, cells: list[str]) -> Array:
    try:
        return np.array([float(cell) for cell in cells])
    except ValueError:
        column, cell = next((k, c) for k, c in enumerate(cells, start=1) if not _is_real(c))
    place = f"{file}: line {number}, column {column}"
    if _is_number(cell):
        raise ConfigError(f"{place}: {cell.strip()[:40]} is complex, fields are real")
    raise FileFormatError(f"{place}: {cell.strip()[:40]!r} is not a number")


def _is_real(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------- NumPy


def npy_header(stream: IO[bytes], what: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = npy_format.read_magic(stream)
        read = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}[version]
        shape, _, dtype = read(stream)
    except (ValueError, KeyError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError):
        raise FileFormatError(f"{what}: not a .npy array") from None
    if dtype.hasobject:
        raise UnsafeFileError(f"{what}: holds Python objects (pickled), which are never loaded")
    if any(extent < 0 for extent in shape):
        raise FileFormatError(f"{what}: declares the shape {shape}")
    return shape, dtype


def read_npy(stream: IO[bytes], what: str) -> Any:
    try:
        array = npy_format.read_array(stream, allow_pickle=False)
        stream.read(1)  # at the end an archive compares checksums
    except (ValueError, EOFError) as error:
        raise CorruptFileError(f"{what}: truncated or damaged: {error}") from error
    return array


def _read_npy_file(file: Path, _name: str | None) -> Any:
    with file.open("rb") as stream:
        shape, dtype = npy_header(stream, f"{file}")
        stored = file.stat().st_size - stream.tell()
        declared = math.prod(shape) * dtype.itemsize
        check_declared(f"{file}", math.prod(shape) * max(dtype.itemsize, 8), stored)
        if stored < declared:
            raise CorruptFileError(f"{file}: truncated: {shape} of {dtype} needs {declared} bytes, {stored} are there")
        stream.seek(0)
        return read_npy(stream, f"{file}")


def read_member(file: Path, archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> Any:
    """Read one array of an .npz file, weighed before memory is given to it."""
    what = f"{file}::{name}"
    with archive.open(info) as stream:
        shape, dtype = npy_header(stream, what)
    declared = math.prod(shape) * max(dtype.itemsize, 8)
    check_declared(what, max(declared, info.file_size), info.compress_size)
    with archive.open(info) as stream:
        return read_npy(stream, what)


def members_of(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Arrays of an .npz file by name."""
    return {info.filename.removesuffix(".npy"): info for info in archive.infolist()}


@contextlib.contextmanager
def archive_errors(file: Path, *others: type[Exception]) -> Iterator[None]:
    """Turn what a damaged archive raises, with other exceptions if asked, into errors that name the file."""
    damage: tuple[type[Exception], ...] = (zipfile.BadZipFile, zlib.error, EOFError, *others)
    try:
        yield
    except MeanfieldError:
        raise
    except RuntimeError as error:  # encrypted, or packed in an unusual way
        raise FileFormatError(f"{file}: {error}") from error
    except damage as error:
        # The directory of an archive is at its end: without it, either was never one or was cut off.
        with file.open("rb") as stream:
            started = stream.read(2) == b"PK"
        kind = CorruptFileError if started else FileFormatError
        what = "truncated or damaged" if started else f"not a {file.suffix} file"
        raise kind(f"{file}: {what}: {error}") from error


def _read_npz(file: Path, name: str | None) -> Any:
    with archive_errors(file), zipfile.ZipFile(file) as archive:
        members = members_of(archive)
        chosen = _one_name(file, sorted(members), name)
        return read_member(file, archive, chosen, members[chosen])


# ---------------------------------------------------------------- HDF5


@contextlib.contextmanager
def _hdf5_file(file: Path) -> Iterator[h5py.File]:
    if not h5py.is_hdf5(file):
        raise FileFormatError(f"{file}: not an HDF5 file")
    try:
        with h5py.File(file, "r", locking=False) as opened:
            yield opened
    except (OSError, RuntimeError, KeyError) as error:
        raise CorruptFileError(f"{file}: truncated or damaged: {error}") from error


def _read_hdf5(file: Path, name: str | None) -> Any:
    with _hdf5_file(file) as opened:
        chosen = _one_name(file, _dataset_names(opened, file), None) if name is None else name.strip("/")
        dataset = _follow(opened, file, chosen)
        _check_dataset(dataset, f"{file}::{chosen}")
        return dataset[()]


def _link_kind(group: h5py.Group, name: str) -> type:
    kind: type = group.get(name, getclass=True, getlink=True)
    return kind


def _dataset_names(root: h5py.File, file: Path) -> list[str]:
    """Paths of all datasets reached by plain links, each object once (links may form circles)."""
    names: list[str] = []
    seen: set[int] = set()
    waiting: list[tuple[str, h5py.Group]] = [("", root)]
    while waiting:
        prefix, group = waiting.pop()
        for child in group:
            if _link_kind(group, child) is not h5py.HardLink:
                continue
            item = group[child]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > _MOST_OBJECTS:
                raise ConfigError(f"{file}: holds over {_MOST_OBJECTS} objects: name the dataset as {file}::name")
            if isinstance(item, h5py.Group):
                waiting.append((f"{prefix}{child}/", item))
            elif isinstance(item, h5py.Dataset):
                names.append(prefix + child)
    return sorted(names)


def _follow(root: h5py.File, file: Path, name: str) -> h5py.Dataset:
    """Open the dataset step by step, so that no link out of the file is ever followed."""
    item: Any = root
    for part in name.split("/"):
        if not isinstance(item, h5py.Group) or part not in item.keys():  # noqa: SIM118 (`in group` follows links)
            raise ConfigError(f"{file}: holds no dataset {name!r}")
        kind = _link_kind(item, part)
        if kind is not h5py.HardLink:
            words = {h5py.ExternalLink: "an external link", h5py.SoftLink: "a soft link"}
            raise UnsafeFileError(f"{file}::{name}: {part!r} is {words.get(kind, 'a user-defined link')}")
        item = item[part]
    if not isinstance(item, h5py.Dataset):
        raise ConfigError(f"{file}: {name!r} is not a dataset")
    return item


def _check_dataset(dataset: h5py.Dataset, what: str) -> None:
    properties = dataset.id.get_create_plist()
    layout = properties.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        raise UnsafeFileError(f"{what}: is a virtual dataset, whose values are in other files")
    if properties.get_external_count():
        raise UnsafeFileError(f"{what}: has external storage, its values are in other files")
    filters = {properties.get_filter(k)[0] for k in range(properties.get_nfilters())}
    if not filters <= _FILTERS:
        raise UnsafeFileError(f"{what}: needs a filter plug-in (number {min(filters - _FILTERS)})")
    try:
        dtype = dataset.dtype
    except TypeError as error:
        raise FileFormatError(f"{what}: of a type that NumPy has not: {error}") from None
    if dtype.hasobject:
        raise FileFormatError(f"{what}: holds strings, references or variable-length data, not numbers")
    if dataset.shape is None:
        raise ConfigError(f"{what}: is empty")
    stored = dataset.id.get_storage_size()
    chunk = math.prod(dataset.chunks or ()) * dtype.itemsize
    check_declared(what, max(math.prod(dataset.shape) * max(dtype.itemsize, 8), chunk), stored)
    if layout == h5py.h5d.CHUNKED and filters:
        # A packed chunk may hold more than its shape says: HDF5 unpacks all of it.
        sizes: list[int] = []
        dataset.id.chunk_iter(lambda info: sizes.append(info.size))
        largest = max(sizes, default=0)
        if largest * _DEFLATE_MOST > available_bytes():
            raise ResourceError(f"{what}: declared chunks of {chunk} bytes, stored {largest}: over the limit of memory")
