"""What may be opened: nothing that reaches outside the file, and nothing larger than it is stored.

Before a single value is read, every link, type, layout, filter and size of a file
is looked at. HDF5 offers a file many ways out of itself (external links, external
storage, virtual datasets, plug-in filters) and many ways to be larger in memory
than on the disk; run files use none of them.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
from h5py import h5a, h5d, h5f, h5l, h5o, h5t, h5z

from meanfield.errors import CorruptFileError, FileFormatError, MeanfieldError, ResourceError, UnsafeFileError

SCHEMA_VERSION = 1
SIGNATURE = b"\x89HDF\r\n\x1a\n"
PURE_DIMENSION = "This is a netCDF dimension but not a netCDF variable."

_DEFLATE_RATIO = 1100  # deflate cannot do better than 1032 : 1
_SMALL = 2**20
_LARGEST_ATTRIBUTE = 16 * 2**20
_FILTERS = {h5z.FILTER_DEFLATE: "deflate", h5z.FILTER_SHUFFLE: "shuffle", h5z.FILTER_FLETCHER32: "fletcher32"}
_LINKS = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "an external link"}
_TYPES = {
    h5t.OPAQUE: "opaque data",
    h5t.COMPOUND: "a compound type",
    h5t.REFERENCE: "references",
    h5t.ENUM: "an enumeration",
    h5t.VLEN: "variable-length data",
    h5t.ARRAY: "an array type",
    h5t.BITFIELD: "a bit field",
    h5t.TIME: "a time type",
}


@contextmanager
def damage(path: Path | str) -> Iterator[None]:
    """Turn what HDF5 raises on broken files into a `CorruptFileError` naming `path`."""
    try:
        yield
    except MeanfieldError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise CorruptFileError(f"{path}: the file is damaged: {reason}") from error


def open_file(path: Path) -> h5py.File:
    """Open a sealed run for reading, after looking it over.

    Raises
    ------
    FileFormatError
        If it is no HDF5 file, no run, or of a newer schema.
    CorruptFileError
        If it is truncated or its structure is damaged.
    UnsafeFileError
        If it holds an object that reaches outside it or a type that runs do not use.
    ResourceError
        If a dataset is declared larger than what is stored can fill.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise FileFormatError(f"{path}: not an HDF5 file: it is {kind}")
        with path.open("rb") as file:
            start = file.read(len(SIGNATURE))
    except FileNotFoundError:
        raise FileFormatError(f"{path}: not an HDF5 file: it does not exist") from None
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror}") from error
    if start != SIGNATURE:
        kind = "it is empty" if status.st_size == 0 else f"it starts with {start!r}"
        raise FileFormatError(f"{path}: not an HDF5 file: {kind}")
    with damage(path):
        file5 = h5py.File(path, "r")
        try:
            look_over(file5, path, status.st_size)
        except BaseException:
            file5.close()
            raise
    return file5


def open_image(data: bytes, path: Path | str) -> h5py.File:
    """Open the bytes of an HDF5 file, after looking them over; errors as in `open_file`."""
    if not data.startswith(SIGNATURE):
        raise FileFormatError(f"{path}: not an HDF5 file")
    with damage(path):
        file5 = h5py.File(h5f.open_file_image(data))
        try:
            look_over(file5, path, len(data))
        except BaseException:
            file5.close()
            raise
    return file5


def look_over(file: h5py.File, path: Path | str, size: int) -> None:
    """Check every object of an open file; `size` is the number of bytes of the file."""
    root = file["/"].id
    _check_attributes(root, "/", path)
    found = file.attrs.get("schema_version")
    if found is None:
        raise FileFormatError(f"{path}: an HDF5 file, but not a run: it has no schema_version")
    if int(found) > SCHEMA_VERSION:
        raise FileFormatError(
            f"{path}: schema version {int(found)} was found, supported is up to {SCHEMA_VERSION}; "
            "a newer meanfield wrote this file"
        )
    _Inspection(path, size).group(root, "")


class _Inspection:
    """One walk over a file."""

    def __init__(self, path: Path | str, size: int) -> None:
        self.path, self.size = path, size
        self.stored = 0
        self._seen: set[Any] = set()

    def group(self, root: Any, prefix: str) -> None:
        """Check all that hangs below a group (its own attributes have been checked)."""
        waiting = [(root, prefix)]
        while waiting:
            group, prefix = waiting.pop()
            for raw in list(group):
                name = f"{prefix}/{raw.decode(errors='replace')}"
                link = group.links.get_info(raw).type
                if link != h5l.TYPE_HARD:
                    raise _unsafe(self.path, name, _LINKS.get(link, "a user-defined link"))
                item = self._open(group, raw, name)
                _check_attributes(item, name, self.path)
                if isinstance(item, h5d.DatasetID):
                    self._dataset(item, name)
                else:
                    waiting.append((item, name))

    def _open(self, group: Any, raw: bytes, name: str) -> Any:
        info = h5o.get_info(group, raw)
        if info.type not in (h5o.TYPE_GROUP, h5o.TYPE_DATASET):
            raise _unsafe(self.path, name, "a named datatype")
        if info.addr in self._seen:
            raise _unsafe(self.path, name, "a second link to one object")
        self._seen.add(info.addr)
        return h5o.open(group, raw)

    def _dataset(self, item: Any, name: str) -> None:
        kind = _refused_type(item.get_type())
        if kind is not None:
            raise _unsafe(self.path, name, kind)
        plist = item.get_create_plist()
        layout = plist.get_layout()
        if layout == h5d.VIRTUAL:
            raise _unsafe(self.path, name, "a virtual dataset")
        if layout == h5d.CONTIGUOUS and plist.get_external_count():
            raise _unsafe(self.path, name, "a dataset in external storage")
        filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        for code in filters:
            if code not in _FILTERS or filters.count(code) > 1:
                known = _FILTERS.get(code, "unknown")
                raise _unsafe(self.path, name, f"a dataset with filter {code} ({known}) applied {filters.count(code)}x")
        self._size(item, name, plist.get_chunk() if layout == h5d.CHUNKED else None, h5z.FILTER_DEFLATE in filters)

    def _size(self, item: Any, name: str, chunk: tuple[int, ...] | None, deflated: bool) -> None:
        width = item.get_type().get_size()
        shape = item.get_space().get_simple_extent_dims() or ()
        declared = width * math.prod(shape)
        stored = item.get_storage_size()
        self.stored += stored
        if self.stored > self.size:
            raise _too_large(
                self.path, name, declared=declared, stored=stored, limit=self.size, what="the size of the file"
            )
        if stored == 0 and _is_pure_dimension(item):
            return
        ratio = _DEFLATE_RATIO if deflated else 1
        limit = ratio * stored + (_SMALL if chunk is not None or stored == 0 else 0)
        if declared > limit or (chunk is not None and width * math.prod(chunk) > ratio * stored + _SMALL):
            raise _too_large(
                self.path,
                name,
                declared=declared,
                stored=stored,
                limit=limit,
                what="the most that so many bytes can hold",
            )
        if chunk is not None:
            needed = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
            if item.get_num_chunks() < needed:
                held = item.get_num_chunks() * width * math.prod(chunk)
                raise _too_large(
                    self.path, name, declared=declared, stored=stored, limit=held, what="that of the chunks present"
                )


def _check_attributes(item: Any, name: str, path: Path | str) -> None:
    for index in range(h5a.get_num_attrs(item)):
        attribute = h5a.open(item, index=index)
        label = attribute.name.decode(errors="replace")
        kind = attribute.get_type()
        if _refused_type(kind) is not None:
            if not _is_dimension_reference(label, kind):
                raise _unsafe(path, f"{name}@{label}", f"an attribute of {_refused_type(kind)}")
            continue
        declared = kind.get_size() * math.prod(attribute.get_space().get_simple_extent_dims() or ())
        if declared > _LARGEST_ATTRIBUTE:
            raise _too_large(
                path,
                f"{name}@{label}",
                declared=declared,
                stored=declared,
                limit=_LARGEST_ATTRIBUTE,
                what="that of an attribute",
            )


def _refused_type(kind: Any) -> str | None:
    """Words for a type that run files do not hold, or None."""
    code, size = kind.get_class(), kind.get_size()
    if code == h5t.INTEGER and size in (1, 2, 4, 8):
        return None
    if code == h5t.FLOAT and size in (4, 8):
        return None
    if code == h5t.STRING:
        return "variable-length text" if kind.is_variable_str() else None
    return _TYPES.get(code, f"numbers of {size} bytes")


def _is_dimension_reference(label: str, kind: Any) -> bool:
    """Whether an attribute is one of the two that dimension scales need, with just its type."""
    if label == "DIMENSION_LIST" and kind.get_class() == h5t.VLEN:
        return bool(kind.get_super().get_class() == h5t.REFERENCE)
    if label == "REFERENCE_LIST" and kind.get_class() == h5t.COMPOUND:
        members = [kind.get_member_class(i) for i in range(kind.get_nmembers())]
        return members == [h5t.REFERENCE, h5t.INTEGER]
    return False


def _is_pure_dimension(item: Any) -> bool:
    """Whether a dataset is only the name and length of a dimension: its values are never read."""
    dataset = h5py.Dataset(item)
    return str(text(dataset.attrs.get("NAME", ""))).startswith(PURE_DIMENSION)


def text(value: Any) -> Any:
    """Attribute value with fixed-length text decoded and numbers as Python numbers."""
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode()
    return value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else value


def _unsafe(path: Path | str, name: str, kind: str) -> UnsafeFileError:
    return UnsafeFileError(f"{path}: refused: object {name!r} is {kind}")


def _too_large(path: Path | str, name: str, *, declared: int, stored: int, limit: int, what: str) -> ResourceError:
    return ResourceError(
        f"{path}: object {name!r} has a declared size of {_size(declared)}, stored are {_size(stored)}; "
        f"the limit is {_size(limit)}, {what}"
    )


def _size(n_bytes: int) -> str:
    for unit, scale in (("PiB", 2**50), ("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.4g} {unit}"
    return f"{n_bytes} bytes"
