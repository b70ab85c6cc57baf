"""Sealing: the parts of a run become one plain HDF5 file, streamed, verified, then renamed into place.

HDF5 writes through a Python file object over our own system calls. HDF5 may lose
an error that its driver reports, so the file object keeps the first one, and it is
asked after every piece.
"""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from meanfield._version import __version__
from meanfield.errors import CorruptFileError, MeanfieldError, OutputError
from meanfield.storage import syscalls
from meanfield.storage.contents import Contents, SeriesEntry, Source, TableEntry, restored_spec
from meanfield.storage.durable import Deferred, deferred_interrupts, file_digest, output_errors
from meanfield.storage.layout import AnyArray, SeriesSpec
from meanfield.storage.netcdf import Group, write_attribute
from meanfield.storage.provenance import now
from meanfield.storage.safety import SCHEMA_VERSION
from meanfield.storage.verify import verify


class WatchedFile:
    """File object for HDF5 that keeps its first error.

    After an error further writes are dropped: what they would make is thrown away,
    and HDF5 gets to close its file in peace (it can crash the interpreter otherwise).
    """

    def __init__(self, fd: int) -> None:
        self._fd, self._position, self._size = fd, 0, 0
        self.error: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        """Read on from the position."""
        buffer = bytearray(self._size - self._position if size < 0 else size)
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer`; what lies beyond the end reads as zeros."""
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))
        done = 0
        while done < len(view) and self.error is None:
            try:
                piece = syscalls.system.pread(self._fd, len(view) - done, self._position + done)
            except OSError as error:
                self.error = error
                break
            if not piece:
                break
            view[done : done + len(piece)] = piece
            done += len(piece)
        self._position += len(view)
        return len(view)

    def write(self, data: memoryview) -> int:
        """Write all of `data` at the position."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self.error is None:
            try:
                written = syscalls.system.pwrite(self._fd, view[done:], self._position + done)
                if written <= 0:
                    self.error = OSError(errno.EIO, "the system wrote nothing")
                done += written
            except OSError as error:
                self.error = error
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Position."""
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Set the length."""
        self._size = self._position if size is None else size
        if self.error is None:
            try:
                syscalls.system.ftruncate(self._fd, self._size)
            except OSError as error:
                self.error = error
        return self._size

    def flush(self) -> None:
        """Nothing is held back here."""

    def check(self) -> None:
        """Raise the first error."""
        if self.error is not None:
            raise self.error


def write_sealed(source: Source, temporary: Path, status: str) -> str:
    """Write a run as one file under a temporary name, sync it, read it back; returns its SHA-256.

    Raises
    ------
    OutputError
        On the first failed system call, with its errno. The temporary file is removed.
    CorruptFileError
        If what is read back is not what was written, or a segment is damaged.
    """
    with output_errors(temporary, "seal the run into"):
        fd = syscalls.system.open(str(temporary), os.O_CREAT | os.O_EXCL | os.O_RDWR)
        try:
            try:
                _write_file(source, fd, status)
                syscalls.system.fsync(fd)
            except BaseException:
                with suppress(OSError):
                    syscalls.system.close(fd)
                raise
            syscalls.system.close(fd)
            _read_back(temporary)
            return file_digest(temporary)
        except BaseException:
            with suppress(OSError):
                syscalls.system.unlink(str(temporary))
            raise


def _read_back(path: Path) -> None:
    problems = verify(path).problems
    if problems:
        raise CorruptFileError(f"{path}: read back after writing: {problems[0]}")


def _write_file(source: Source, fd: int, status: str) -> None:
    watched = WatchedFile(fd)
    try:
        with (
            deferred_interrupts() as interrupt,
            h5py.File(watched, "w", libver=("v110", "v110"), track_order=True) as file,
        ):
            _Sealer(file, watched, interrupt).run(source, status)
    except Exception as error:
        watched.check()  # whatever HDF5 made of it, the first error of the disk is the cause
        if isinstance(error, (OSError, RuntimeError)) and not isinstance(error, MeanfieldError):
            raise OutputError(errno.EIO, f"HDF5 could not write the file: {error}") from error
        raise
    watched.check()


class _Sealer:
    """Writes the groups of a sealed file."""

    def __init__(self, file: Any, watched: WatchedFile, interrupt: Deferred) -> None:
        self.file, self.watched, self.interrupt = file, watched, interrupt
        self._dimension_ids: list[int] = []

    def run(self, source: Source, status: str) -> None:
        contents = source.contents
        self._root(contents, status)
        groups = {name: self.file.create_group(name, track_order=True) for name in ("series", "tables")}
        verdicts = self._group(self.file, "verdicts")
        groups["restart"] = self.file.create_group("restart", track_order=True)
        for label, entry in contents.series.items():
            self._series(self._group(groups["series"], label), source, entry)
            self._restart(self._group(groups["restart"], label), source, entry)
        for label, table in contents.tables.items():
            self._table(self._group(groups["tables"], label), table)
        if contents.verdicts:
            self._verdicts(verdicts, contents.verdicts)

    def _group(self, parent: Any, name: str) -> Group:
        return Group(parent.create_group(name, track_order=True), self._dimension_ids)

    def _root(self, contents: Contents, status: str) -> None:
        known = contents.identity
        experiment = known["experiment"]
        seed = known["seed"]
        small = isinstance(seed, int) and abs(seed) < 2**63
        attrs: dict[str, str | int] = {
            "Conventions": "CF-1.11",
            "title": f"meanfield run of {experiment}" if experiment else "meanfield run",
            "source": f"meanfield {__version__}",
            "schema_version": SCHEMA_VERSION,
            "experiment": experiment,
            "config": known["config"],
            "seed": seed if small else "" if seed is None else str(seed),
        }
        attrs |= {name: known[name] for name in ("git_commit", "git_dirty", "versions", "created")}
        attrs |= {"finished": now(), "status": status}
        attrs |= {name: known[name] for name in ("command", "host", "references")}
        for name, value in attrs.items():
            write_attribute(self.file, name, value)

    def _series(self, group: Group, source: Source, entry: SeriesEntry) -> None:
        spec = restored_spec(source, entry.label)
        fixed = {"inputs": entry.inputs, "complete": int(entry.finished)}
        group.attributes({**spec.attrs, **entry.attrs, **fixed})
        columns = {}
        for stream in spec.streams:
            length = (entry.rows.get(stream.name, 0),)
            columns[stream.name] = group.column(
                stream.name,
                (stream.name,),
                length,
                np.float64,
                units=stream.units,
                long_name=stream.long_name,
            )
        for axis in spec.axes:
            group.array(axis.name, (axis.name,), axis.values, axis.units, axis.long_name)
        for v in spec.variables:
            if v.values is not None:
                group.array(v.name, v.dims, v.values, v.units, v.long_name)
            else:
                shape = (entry.rows.get(v.dims[0], 0), *spec.row_shape(v))
                columns[v.name] = group.column(v.name, v.dims, shape, v.dtype, units=v.units, long_name=v.long_name)
        for block in source.blocks(entry.label):
            for name, rows in block.items():
                columns[name].write(rows)
            self.watched.check()
            self.interrupt.check()
        for column in columns.values():
            column.close()
        _check_complete(spec, entry, {n: c.dataset for n, c in columns.items()})
        self.watched.check()

    def _restart(self, group: Group, source: Source, entry: SeriesEntry) -> None:
        state = source.state(entry.label)
        arrays: Mapping[str, AnyArray] = {} if state is None else {n: np.asarray(a) for n, a in state.arrays.items()}
        group.attributes(
            {
                "spec": json.dumps(entry.described, sort_keys=True),
                "attrs": json.dumps(entry.attrs, sort_keys=True),
                "meta": json.dumps(None if state is None else dict(state.meta), sort_keys=True),
                "arrays": json.dumps({n: a.dtype.name for n, a in arrays.items()}, sort_keys=True),
            }
        )
        for name, array in arrays.items():
            dims = tuple(_free(f"{name}_dim{d}", arrays) for d in range(array.ndim))
            for dim, size in zip(dims, array.shape, strict=True):
                group.bare_dimension(dim, size)
            group.array(name, dims, array.view(np.int8) if array.dtype.kind == "b" else array)
            self.watched.check()

    def _table(self, group: Group, table: TableEntry) -> None:
        group.attributes({"inputs": table.inputs})
        rows = len(next(iter(table.columns.values())))
        group.array("row", ("row",), np.arange(rows, dtype=np.int64), long_name="row of the table")
        for name, values in table.columns.items():
            group.array(name, ("row",), values, table.units.get(name, "1"), table.long_names.get(name, ""))
        self.watched.check()

    def _verdicts(self, group: Group, verdicts: list[dict[str, Any]]) -> None:
        group.array("row", ("row",), np.arange(len(verdicts), dtype=np.int64), long_name="number of the verdict")
        for name in verdicts[0]:
            values = [row[name] for row in verdicts]
            if name == "passed":
                array: AnyArray = np.array(values, dtype=np.int8)
            elif any(isinstance(v, str) for v in values):
                array = np.array([v if isinstance(v, str) else repr(v) for v in values], dtype=np.str_)
            else:
                array = np.array(values, dtype=np.float64)
            group.array(name, ("row",), array)
        self.watched.check()


def _check_complete(spec: SeriesSpec, entry: SeriesEntry, datasets: Mapping[str, Any]) -> None:
    """Every variable must have as many rows as its stream."""
    for v in spec.recorded:
        if datasets[v.name].shape[0] != datasets[v.dims[0]].shape[0]:
            raise CorruptFileError(f"series {entry.label!r}: {v.name} and {v.dims[0]} have different lengths")


def _free(name: str, taken: Mapping[str, Any]) -> str:
    while name in taken:
        name += "_"
    return name
