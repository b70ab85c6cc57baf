"""`verify`: is a file what it was when it was written; `compare`: do two runs say the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from meanfield.errors import CorruptFileError
from meanfield.storage.contents import PartsSource
from meanfield.storage.provenance import VOLATILE
from meanfield.storage.safety import PURE_DIMENSION, damage, open_file, text
from meanfield.storage.sealed import STRUCTURE, row_blocks


@dataclass(frozen=True)
class Report:
    """What `verify` found: how much was checked, and what is wrong."""

    path: Path
    checked: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def datasets(group: Any) -> Iterator[Any]:
    """All datasets below a group that hold values, in the order of the file."""
    for item in group.values():
        if isinstance(item, h5py.Dataset):
            if not str(text(item.attrs.get("NAME", ""))).startswith(PURE_DIMENSION):
                yield item
        else:
            yield from datasets(item)


def verify(path: str | Path) -> Report:
    """Check a sealed file against the digests stored in it, block by block.

    Raises
    ------
    FileFormatError, CorruptFileError, UnsafeFileError, ResourceError
        If it cannot be opened at all; see `safety.open_file`.
    """
    path = Path(path)
    problems, checked = [], 0
    with open_file(path) as file, damage(path):
        for dataset in datasets(file):
            checked += 1
            try:
                for _ in row_blocks(dataset, path):
                    pass
            except CorruptFileError as error:
                problems.append(str(error))
    return Report(path, checked, tuple(problems))


def verify_parts(directory: Path) -> Report:
    """Check the chain of segments of a run that is not sealed, and its restart states."""
    source = PartsSource.load(directory)
    for entry in source.contents.series.values():
        source.state(entry.label)
    return Report(directory, source.number, ())


def compare(first: str | Path, second: str | Path) -> list[str]:
    """Differences between two sealed runs, in words; empty when they are identical.

    Identical means: the same objects, every dataset the same in type, shape, chunks,
    filters and bytes, every attribute the same, apart from `provenance.VOLATILE`.

    Raises
    ------
    FileFormatError
        As `verify`.
    """
    with open_file(Path(first)) as a, open_file(Path(second)) as b, damage(f"{first} or {second}"):
        return list(_differences(a, b))


def _differences(a: Any, b: Any) -> Iterator[str]:
    yield from _attribute_differences(a, b)
    for name in sorted(set(a) | set(b)):
        if name not in a or name not in b:
            here = a if name in a else b
            yield f"{here[name].name}: only in {here.file.filename}"
            continue
        x, y = a[name], b[name]
        if isinstance(x, h5py.Group) and isinstance(y, h5py.Group):
            yield from _differences(x, y)
        elif isinstance(x, h5py.Dataset) and isinstance(y, h5py.Dataset):
            yield from _attribute_differences(x, y)
            yield from _dataset_differences(x, y)
        else:
            yield f"{x.name}: a group in one, a dataset in the other"


def _attribute_differences(a: Any, b: Any) -> Iterator[str]:
    skipped = (*STRUCTURE, *(VOLATILE if a.name == "/" else ()))
    for name in sorted((set(a.attrs) | set(b.attrs)) - set(skipped)):
        if name not in a.attrs or name not in b.attrs:
            yield f"{a.name}@{name}: only in one of the files"
        else:
            x, y = a.attrs[name], b.attrs[name]
            if np.asarray(x).dtype != np.asarray(y).dtype or np.asarray(x).tobytes() != np.asarray(y).tobytes():
                yield f"{a.name}@{name}: {text(x)!r} and {text(y)!r}"


def _form(dataset: Any) -> dict[str, Any]:
    dims = [[Path(scale.name).name for scale in dim.values()] for dim in dataset.dims]
    filters = (dataset.compression, dataset.compression_opts, dataset.shuffle, dataset.fletcher32)
    return {
        "type": dataset.dtype,
        "shape": dataset.shape,
        "chunks": dataset.chunks,
        "filters": filters,
        "dimensions": dims,
        "is a dimension": dataset.is_scale,
    }


def _dataset_differences(a: Any, b: Any) -> Iterator[str]:
    first, second = _form(a), _form(b)
    for what, value in first.items():
        if value != second[what]:
            yield f"{a.name}: {what} {value} and {second[what]}"
    if first["type"] == second["type"] and first["shape"] == second["shape"] and _bytes(a) != _bytes(b):
        yield f"{a.name}: the values differ"


def _bytes(dataset: Any) -> str:
    running = hashlib.sha256()
    if str(text(dataset.attrs.get("NAME", ""))).startswith(PURE_DIMENSION):
        return ""
    for rows in row_blocks(dataset, Path(dataset.file.filename)):
        running.update(np.ascontiguousarray(rows).data)
    return running.hexdigest()
