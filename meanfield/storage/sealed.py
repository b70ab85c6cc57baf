"""Reading a sealed run: one plain HDF5 file, looked over before anything is read.

Memory: one block (4 MiB) at a time in `blocks`; every dataset read whole is checked against its digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from meanfield._checks import check_memory
from meanfield.errors import ConfigError, CorruptFileError, UnsafeFileError
from meanfield.storage.contents import Contents, SeriesEntry, TableEntry
from meanfield.storage.layout import AnyArray, RestartState
from meanfield.storage.names import check_name
from meanfield.storage.safety import damage, open_file, text

_BLOCK_BYTES = 4 * 2**20
STRUCTURE = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid", "_Netcdf4Coordinates")
"""Attributes by which netCDF-4 writes down its dimensions."""


def attributes(item: Any) -> dict[str, Any]:
    """Attributes of an object as text and numbers, those of dimensions aside."""
    return {name: text(item.attrs[name]) for name in item.attrs if name not in STRUCTURE}


def row_blocks(dataset: Any, path: Path) -> Iterator[AnyArray]:
    """Raw rows of a dataset, block by block, checked against its digest when all have been seen.

    Raises
    ------
    CorruptFileError
        If the values have another SHA-256 than the attribute says.
    """
    running = hashlib.sha256()
    if dataset.ndim == 0:
        values = np.asarray(dataset[()])
        running.update(values.tobytes())
        yield values
    else:
        row = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], initial=1))
        step = dataset.chunks[0] if dataset.chunks else 1
        step *= max(1, _BLOCK_BYTES // max(row * step, 1))
        for start in range(0, dataset.shape[0], step):
            with damage(path):
                rows = np.ascontiguousarray(dataset[start : start + step])
            running.update(rows.data)
            yield rows
    expected = text(dataset.attrs.get("sha256", ""))
    if running.hexdigest() != expected:
        raise CorruptFileError(f"{path}: the SHA-256 of dataset {dataset.name} is not the one stored with it")


def read_dataset(dataset: Any, path: Path) -> AnyArray:
    """Whole dataset, its digest checked, text decoded."""
    with damage(path):
        check_memory(f"reading {dataset.name} of {path}", 2 * dataset.size * dataset.dtype.itemsize)
        blocks = list(row_blocks(dataset, path))
        whole = np.concatenate(blocks) if dataset.ndim and blocks else blocks[0] if blocks else dataset[()]
        return decode_text(np.asarray(whole))


def decode_text(values: AnyArray) -> AnyArray:
    """Fixed-length UTF-8 as str, numbers as they are."""
    if values.dtype.kind != "S":
        return values
    return np.array([t.decode() for t in values.reshape(-1).tolist()], dtype=np.str_).reshape(values.shape)


class SealedSource:
    """A sealed file, held open; errors as in `safety.open_file`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = open_file(path)
        try:
            with damage(path):
                self.contents = self._index()
        except BaseException:
            self.file.close()
            raise

    def _index(self) -> Contents:
        root = attributes(self.file)
        seed = root["seed"]
        identity = root | {"seed": int(seed) if seed != "" else None}
        contents = Contents(identity)
        for label in self.file["series"]:
            self._checked("series", label)
            contents.series[label] = self._series(label)
        for label, group in self.file["tables"].items():
            self._checked("table", label)
            contents.tables[label] = self._table(group)
        contents.verdicts = self._verdicts(self.file["verdicts"])
        return contents

    def _checked(self, what: str, label: str) -> None:
        try:
            check_name(what, label)
        except ConfigError as error:
            raise UnsafeFileError(f"{self.path}: refused: object {label!r}: {error}") from None

    def _series(self, label: str) -> SeriesEntry:
        group, restart = self.file["series"][label], self.file["restart"][label]
        described = json.loads(text(restart.attrs["spec"]))
        found = attributes(group)
        inputs, finished = str(found.pop("inputs")), bool(found.pop("complete"))
        attrs = json.loads(text(restart.attrs["attrs"]))
        entry = SeriesEntry(label, inputs, described, attrs, finished, in_base=True)
        entry.rows = {s["name"]: int(group[s["name"]].shape[0]) for s in described["streams"]}
        return entry

    def _table(self, group: Any) -> TableEntry:
        entry = TableEntry({}, str(text(group.attrs["inputs"])))
        for name, dataset in group.items():
            if name != "row":
                entry.columns[name] = read_dataset(dataset, self.path)
                attrs = attributes(dataset)
                if "units" in attrs:
                    entry.units[name] = str(attrs["units"])
                entry.long_names[name] = str(attrs["long_name"])
        return entry

    def _verdicts(self, group: Any) -> list[dict[str, Any]]:
        found = {name: read_dataset(dataset, self.path).tolist() for name, dataset in group.items() if name != "row"}
        rows = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
        return [row | {"passed": bool(row["passed"])} for row in rows]

    def blocks(self, label: str, names: Collection[str] | None = None) -> Iterator[Mapping[str, AnyArray]]:
        """Rows of a series, name by name, in blocks of about 4 MiB; the digests are checked on the way."""
        group = self.file["series"][label]
        for name in self.contents.series[label].recorded if names is None else names:
            for rows in row_blocks(group[name], self.path):
                yield {name: rows}

    def fixed(self, label: str, names: Collection[str] | None = None) -> dict[str, AnyArray]:
        """Axes and static variables of a series, by default all."""
        wanted = self.contents.series[label].fixed if names is None else names
        return {name: read_dataset(self.file["series"][label][name], self.path) for name in wanted}

    def state(self, label: str) -> RestartState | None:
        """Return the restart state a series ended with."""
        with damage(self.path):
            group = self.file["restart"][label]
            meta, kinds = json.loads(text(group.attrs["meta"])), json.loads(text(group.attrs["arrays"]))
        if meta is None:
            return None
        arrays = {name: read_dataset(group[name], self.path).astype(kind, copy=False) for name, kind in kinds.items()}
        return RestartState(arrays, meta)

    def close(self) -> None:
        """Close the file."""
        self.file.close()
