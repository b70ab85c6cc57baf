"""Writing HDF5 the way netCDF-4 does: dimension scales, fixed-length text, chunks, digests.

Chunk shapes follow from the shapes alone, never from how the rows arrive.
Memory: one chunk (about 1 MiB) for each column being written.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from meanfield.storage.layout import AnyArray, as_bytes
from meanfield.storage.safety import PURE_DIMENSION

_CHUNK_BYTES = 2**20
_ENCODING = ("_Encoding", "utf-8")


def write_attribute(item: Any, name: str, value: str | float) -> None:
    """Write a scalar attribute: fixed-length UTF-8, int64 or float64."""
    if isinstance(value, str):
        encoded = value.encode()
        item.attrs.create(name, np.bytes_(encoded), dtype=h5py.string_dtype("utf-8", max(len(encoded), 1)))
    else:
        item.attrs.create(name, value, dtype=np.float64 if isinstance(value, float) else np.int64)


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Chunks of about 1 MiB: whole rows, or for very long rows, pieces of one.

    >>> chunk_shape((1000, 64, 1797), 8)
    (1, 64, 1797)
    """
    chunk = [max(n, 1) for n in shape]
    for axis in range(len(chunk)):
        rest = math.prod(chunk[axis + 1 :]) * itemsize
        chunk[axis] = min(chunk[axis], max(1, _CHUNK_BYTES // rest))
        if rest <= _CHUNK_BYTES:
            break
    return tuple(chunk)


class Column:
    """A dataset written row by row; whole chunks go to the file, the digest grows along."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._hash = hashlib.sha256()
        self._row = 0
        self._filled = 0
        rows = dataset.chunks[0] if dataset.chunks else 1
        self._buffer = np.empty((rows, *dataset.shape[1:]), dtype=dataset.dtype)

    def write(self, rows: AnyArray) -> None:
        """Append rows."""
        rows = np.ascontiguousarray(rows, dtype=self.dataset.dtype)
        self._hash.update(rows.data)
        while len(rows):
            space = len(self._buffer) - self._filled
            piece, rows = rows[:space], rows[space:]
            self._buffer[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            if self._filled == len(self._buffer):
                self._flush()

    def _flush(self) -> None:
        if self._filled:
            self.dataset[self._row : self._row + self._filled] = self._buffer[: self._filled]
            self._row += self._filled
            self._filled = 0

    def close(self) -> None:
        """Write what is left and the digest."""
        self._flush()
        write_attribute(self.dataset, "sha256", self._hash.hexdigest())


class Group:
    """A group being written, with its dimensions."""

    def __init__(self, group: Any, dimension_ids: list[int]) -> None:
        self.group = group
        self._ids = dimension_ids
        self._scales: dict[str, Any] = {}

    def attributes(self, attrs: Mapping[str, Any]) -> None:
        """Write several attributes."""
        for name, value in attrs.items():
            write_attribute(self.group, name, value)

    def column(
        self, name: str, dims: tuple[str, ...], shape: tuple[int, ...], dtype: Any, *, units: str, long_name: str
    ) -> Column:
        """Create a dataset over `dims` (of one dimension or more), to be filled row by row.

        The dimension of its own name, if it is its only one, becomes a scale.
        """
        numeric = np.dtype(dtype).kind in "fiu"
        empty = 0 in shape
        dataset = self.group.create_dataset(
            name,
            shape=shape,
            dtype=dtype,
            maxshape=tuple(None if n == 0 else n for n in shape) if empty else None,
            chunks=chunk_shape(shape, np.dtype(dtype).itemsize),
            compression="gzip",
            compression_opts=4,
            shuffle=numeric,
            fletcher32=True,
            track_order=True,
        )
        if dims == (name,):
            self._make_scale(name, dataset, name)
        else:
            for index, dim in enumerate(dims):
                dataset.dims[index].attach_scale(self._scales[dim])
        write_attribute(dataset, *(("units", units) if numeric else _ENCODING))
        write_attribute(dataset, "long_name", long_name or name.replace("_", " "))
        return Column(dataset)

    def array(self, name: str, dims: tuple[str, ...], values: AnyArray, units: str = "1", long_name: str = "") -> None:
        """Write a whole array (text, too), of any number of dimensions."""
        stored = as_bytes(values)
        dtype = stored.dtype
        if values.ndim:
            column = self.column(name, dims, values.shape, dtype, units=units, long_name=long_name)
            column.write(stored)
            column.close()
            return
        dataset = self.group.create_dataset(name, data=stored, dtype=dtype, track_order=True)
        write_attribute(dataset, *(("units", units) if stored.dtype.kind != "S" else _ENCODING))
        write_attribute(dataset, "long_name", long_name or name.replace("_", " "))
        write_attribute(dataset, "sha256", hashlib.sha256(stored.tobytes()).hexdigest())

    def bare_dimension(self, name: str, size: int) -> None:
        """Declare a dimension that has no coordinate."""
        maxshape = (None,) if size == 0 else None
        dataset = self.group.create_dataset(
            name, shape=(size,), dtype="<f4", maxshape=maxshape, chunks=(1,) if size == 0 else None, track_order=True
        )
        self._make_scale(name, dataset, f"{PURE_DIMENSION}{size:10d}")

    def _make_scale(self, name: str, dataset: Any, label: str) -> None:
        dataset.make_scale(label)
        dataset.attrs.create("_Netcdf4Dimid", len(self._ids), dtype=np.int32)
        self._ids.append(len(self._ids))
        self._scales[name] = dataset
