"""The reading side of a run: NumPy arrays, CSV, xarray, one screen of words, HTML for notebooks.

Memory: arrays are read when asked for, whole, and refused when they would not fit.
"""

from __future__ import annotations

import csv
import errno
import html
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from meanfield.errors import FileFormatError, MeanfieldError, OutputError
from meanfield.storage.contents import Source, columns
from meanfield.storage.durable import make_directories, output_errors
from meanfield.storage.layout import AnyArray
from meanfield.storage.provenance import now
from meanfield.storage.sealed import SealedSource

_MOST_LINES = 40
_MOST_WIDTH = 100


class MissingExtraError(MeanfieldError, ImportError):
    """A library that an optional part of the package needs is not installed."""


class Snapshot:
    """A run as it was when it was opened.

    A writer may seal the run and remove its parts at any moment. The rows that were
    there are then the first rows of the sealed file, which takes the parts' place.
    """

    def __init__(self, target: Path, source: Source) -> None:
        self.target, self.contents = target, source.contents
        self._source = source

    def recorded(self, label: str, name: str) -> AnyArray:
        """Column that grows, with the rows there were."""
        entry = self.contents.series[label]
        rows = entry.rows.get(entry.recorded[name], 0)
        return self._read(lambda source: columns(source, label, [name])[name][:rows])

    def fixed(self, label: str, name: str) -> AnyArray:
        """Axis or static variable."""
        return self._read(lambda source: source.fixed(label, [name])[name])

    def _read(self, read: Callable[[Source], AnyArray]) -> AnyArray:
        try:
            return read(self._source)
        except OutputError as error:
            if error.errno != errno.ENOENT or not self.target.is_file():
                raise
        sealed = SealedSource(self.target)
        now, then = sealed.contents.identity, self.contents.identity
        if any(now[key] != then[key] for key in ("created", "host", "config")):
            sealed.close()
            raise FileFormatError(f"{self.target}: another run took its place while it was being read")
        self.close()
        self._source = sealed
        return read(sealed)

    def close(self) -> None:
        """Close the file."""
        self._source.close()


class Series(Mapping[str, AnyArray]):
    """Arrays of a series by name: streams, axes, variables. Read on access, digests checked."""

    def __init__(self, snapshot: Snapshot, label: str) -> None:
        self.label = label
        self._snapshot = snapshot
        self._entry = snapshot.contents.series[label]
        described = self._entry.described
        self._items: dict[str, dict[str, Any]] = {
            item["name"]: item for part in ("streams", "axes", "variables") for item in described[part]
        }

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the series."""
        return {**self._entry.described["attrs"], **self._entry.attrs}

    @property
    def finished(self) -> bool:
        """Whether it ran to its end."""
        return self._entry.finished

    def units(self, name: str) -> str:
        """Units of an array, as in netCDF."""
        return str(self._items[name]["units"])

    def long_name(self, name: str) -> str:
        """Words for labels of figures."""
        return str(self._items[name]["long_name"] or name.replace("_", " "))

    def dims(self, name: str) -> tuple[str, ...]:
        """Names of an array's axes."""
        return tuple(self._items[name].get("dims", (name,)))

    def summary(self) -> str:
        """Rows of every time axis and what is recorded on it, in a line."""
        parts = []
        for stream in (item["name"] for item in self._entry.described["streams"]):
            recorded = []
            for name in self:
                if name != stream and self.dims(name)[0] == stream:
                    sizes = zip(self.dims(name)[1:], self.shape(name)[1:], strict=True)
                    shape = " x ".join(f"{axis} {n}" for axis, n in sizes)
                    unit = "" if self.units(name) == "1" else f" [{self.units(name)}]"
                    recorded.append(f"{name}{unit}" + (f" ({shape})" if shape else ""))
            parts.append(f"{self.shape(stream)[0]} rows of {', '.join(recorded) or 'nothing'}")
        return "; ".join(parts) + ("" if self.finished else "  (not finished)")

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array, without reading it."""
        item = self._items[name]
        if "sha256" in item:
            return tuple(item["shape"])
        sizes = {a["name"]: a["shape"][0] for a in self._entry.described["axes"]}
        return (self._entry.rows.get(self.dims(name)[0], 0), *(sizes[d] for d in self.dims(name)[1:]))

    def __getitem__(self, name: str) -> AnyArray:
        if "sha256" in self._items[name]:
            return self._snapshot.fixed(self.label, name)
        return self._snapshot.recorded(self.label, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        arrays = ", ".join(f"{name}{self.shape(name)}" for name in self)
        return f"Series({self.label!r}: {arrays})"


class Run:
    """A run opened for reading; get one from `open_run`. The file stays open until `close`."""

    def __init__(self, path: Path, source: Source) -> None:
        self.path = path
        self._sealed = source.path == path
        self._snapshot = Snapshot(path, source)
        contents = source.contents
        self._contents = contents
        self.series: dict[str, Series] = {label: Series(self._snapshot, label) for label in contents.series}
        self.tables: dict[str, dict[str, AnyArray]] = {n: dict(t.columns) for n, t in contents.tables.items()}
        self.verdicts: list[dict[str, Any]] = [dict(row) for row in contents.verdicts]

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the run: experiment, seed, versions, command, and so on."""
        return dict(self._contents.identity)

    @property
    def status(self) -> str:
        """Word for how the run ended; ``running`` while it lies in parts."""
        return str(self._contents.identity.get("status", "running")) if self._sealed else "running"

    @property
    def config(self) -> dict[str, Any]:
        """Parameters of the run."""
        return dict(json.loads(self._contents.identity["config"]))

    def close(self) -> None:
        """Close the file."""
        self._snapshot.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def summary(self) -> str:
        """One screen of words: what ran, what is in it, what came out."""
        attrs = self.attrs
        lines = [
            f"{self.path}  ({self.status})",
            f"experiment  {attrs['experiment'] or '-'}    seed {attrs['seed']}    created {attrs['created']}",
            f"config      {json.dumps(self.config)}",
        ]
        lines += [f"series      {label:24s} {series.summary()}" for label, series in self.series.items()]
        for label, table in self.tables.items():
            rows = len(next(iter(table.values())))
            lines.append(f"table       {label:24s} {rows} rows: {', '.join(table)}")
        statuses = [str(row.get("status", "")) for row in self.verdicts]
        counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
        lines.append(f"verdicts    {counts or 'none'}")
        others = zip(statuses, self.verdicts, strict=True)
        lines += [f"    {status}: {row.get('claim', '')}" for status, row in others if status != "holds"]
        if len(lines) > _MOST_LINES:
            hidden = len(lines) - _MOST_LINES + 1
            lines = [*lines[: _MOST_LINES - 1], f"... and {hidden} lines more"]
        return "\n".join(_printable(line) for line in lines)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status}, {len(self.series)} series, {len(self.verdicts)} verdicts)"

    def _repr_html_(self) -> str:
        """Tables of contents and of verdicts."""
        rows = [
            (f"series/{label}", name, " × ".join(map(str, s.shape(name))), s.units(name), s.long_name(name))
            for label, s in self.series.items()
            for name in s
        ]
        rows += [
            (f"tables/{label}", name, str(len(values)), self._contents.tables[label].units.get(name, ""), "")
            for label, table in self.tables.items()
            for name, values in table.items()
        ]
        parts = [f"<b>{html.escape(str(self.path))}</b> ({html.escape(self.status)})"]
        parts.append(f"<pre>{html.escape(json.dumps(self.config, indent=1))}</pre>")
        parts.append(_html_table(("group", "name", "shape", "units", "meaning"), rows))
        if self.verdicts:
            names = tuple(self.verdicts[0])
            parts.append(_html_table(names, [tuple(str(v[n]) for n in names) for v in self.verdicts]))
        return "\n".join(parts)

    def to_xarray(self) -> Any:
        """Everything as an `xarray.DataTree`, in memory.

        Raises
        ------
        MissingExtraError
            If xarray is not installed; names the extra.
        """
        try:
            import xarray  # noqa: PLC0415 (an extra: a run can be read without it)
        except ImportError:
            raise MissingExtraError("to_xarray needs the extra: pip install 'meanfield[xarray]'") from None
        groups: dict[str, Any] = {"/": xarray.Dataset(attrs=_netcdf_attrs(self.attrs))}
        for label, series in self.series.items():
            arrays = {
                n: (series.dims(n), series[n], {"units": series.units(n), "long_name": series.long_name(n)})
                for n in series
            }
            groups[f"/series/{label}"] = xarray.Dataset(arrays, attrs=series.attrs)
        for label, table in self.tables.items():
            entry = self._contents.tables[label]
            units = {n: {"units": entry.units.get(n, "1")} if v.dtype.kind != "U" else {} for n, v in table.items()}
            groups[f"/tables/{label}"] = xarray.Dataset({n: (("row",), v, units[n]) for n, v in table.items()})
        if self.verdicts:
            found = {n: (("row",), [row[n] for row in self.verdicts]) for n in self.verdicts[0]}
            groups["/verdicts"] = xarray.Dataset(found)
        return xarray.DataTree.from_dict(groups)

    def to_csv(self, directory: str | Path) -> list[Path]:
        """Write text files: one for each stream and axis group of a series, each table, the verdicts.

        ``series.<label>.<stream>.csv`` has a row for each time and a column for each
        element, e.g. ``z[0,3]``; ``series.<label>.<name>.csv`` holds an axis or a static variable.

        Raises
        ------
        OutputError
            If one of them exists already, or cannot be written.
        """
        where = Path(directory)
        make_directories(where.absolute())
        written: list[Path] = []
        for label, series in self.series.items():
            streams: dict[str, list[str]] = {}
            for name in series:
                streams.setdefault(series.dims(name)[0] if name in self._recorded(label) else "", []).append(name)
            for name in streams.pop("", []):
                columns_ = {name: series[name]}
                written.append(_write_csv(where / f"series.{label}.{name}.csv", columns_))
            for stream, names in streams.items():
                written.append(_write_csv(where / f"series.{label}.{stream}.csv", {n: series[n] for n in names}))
        for label, table in self.tables.items():
            written.append(_write_csv(where / f"tables.{label}.csv", table))
        if self.verdicts:
            rows = {n: np.array([row[n] for row in self.verdicts]) for n in self.verdicts[0]}
            written.append(_write_csv(where / "verdicts.csv", rows))
        return written

    def _recorded(self, label: str) -> dict[str, str]:
        return self._contents.series[label].recorded


def _netcdf_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    plain = {"created": now()} | dict(attrs)
    return {n: "" if v is None else v for n, v in plain.items()}


def _write_csv(path: Path, arrays: Mapping[str, AnyArray]) -> Path:
    """Write arrays of equal first extent side by side; later axes are spread over columns."""
    names, flat = [], []
    for name, given in arrays.items():
        array = np.atleast_1d(given)
        names += [name + (f"[{','.join(map(str, i))}]" if i else "") for i in np.ndindex(array.shape[1:])]
        flat.append(array.reshape(len(array), math.prod(array.shape[1:])))
    with output_errors(path, "write"), path.open("x", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for pieces in zip(*flat, strict=True):
            writer.writerow([value for piece in pieces for value in piece.tolist()])
    return path


def _html_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    cells = ["".join(f"<td>{html.escape(c)}</td>" for c in row) for row in rows]
    titles = "".join(f"<th>{html.escape(c)}</th>" for c in head)
    return f"<table><tr>{titles}</tr>" + "".join(f"<tr>{c}</tr>" for c in cells) + "</table>"


def _printable(line: str) -> str:
    """Cut to a screen's width, without control characters (a file's text must not steer a terminal)."""
    clean = "".join(c if c.isprintable() else "?" for c in line)
    return clean if len(clean) <= _MOST_WIDTH else clean[: _MOST_WIDTH - 3] + "..."
