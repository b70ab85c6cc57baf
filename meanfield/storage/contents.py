"""What a run holds, whether it lies in segments, in a sealed file, or in both.

Memory: tables, verdicts and names are kept; rows are read block by block.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from meanfield._checks import check_memory
from meanfield.errors import CorruptFileError, FileFormatError, ResumeMismatchError
from meanfield.storage.layout import AnyArray, RestartState, SeriesSpec
from meanfield.storage.safety import damage
from meanfield.storage.segments import (
    Segment,
    check_successor,
    config_digest,
    read_segment,
    read_state,
    segment_names,
)

ROW = "row:"
FIXED = "fixed:"
COLUMN = "column:"


@dataclass
class SeriesEntry:
    """Where a series stands; `described` is `SeriesSpec.describe`."""

    label: str
    inputs: str
    described: dict[str, Any]
    attrs: dict[str, Any] = field(default_factory=dict)
    finished: bool = False
    states: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    segments: list[str] = field(default_factory=list)
    in_base: bool = False

    @property
    def recorded(self) -> dict[str, str]:
        """Stream of each name that grows, the streams themselves included."""
        streams = {s["name"]: s["name"] for s in self.described["streams"]}
        return streams | {v["name"]: v["dims"][0] for v in self.described["variables"] if "sha256" not in v}

    @property
    def fixed(self) -> list[str]:
        """Names of axes and static variables."""
        return [d["name"] for d in self.described["axes"] + self.described["variables"] if "sha256" in d]

    def row_bytes(self, name: str) -> int:
        """Bytes of one row of a name that grows."""
        sizes = {a["name"]: a["shape"][0] for a in self.described["axes"]}
        for v in self.described["variables"]:
            if v["name"] == name:
                return int(np.dtype(v["dtype"]).itemsize * np.prod([sizes[d] for d in v["dims"][1:]], initial=1))
        return 8


@dataclass
class TableEntry:
    """Columns of equal length, with units and words for each."""

    columns: dict[str, AnyArray]
    inputs: str = ""
    units: dict[str, str] = field(default_factory=dict)
    long_names: dict[str, str] = field(default_factory=dict)


@dataclass
class Contents:
    """Index of a run."""

    identity: dict[str, Any] = field(default_factory=dict)
    series: dict[str, SeriesEntry] = field(default_factory=dict)
    tables: dict[str, TableEntry] = field(default_factory=dict)
    verdicts: list[dict[str, Any]] = field(default_factory=list)

    def absorb(self, segment: Segment) -> None:
        """Add what a segment says (its table columns must be there, its rows need not)."""
        header = segment.header
        kind = header["kind"]
        if kind == "run":
            self.identity = dict(header["identity"])
        elif kind == "config":
            self.identity["config"] = header["config"]
        elif kind == "series":
            self._absorb_series(segment)
        elif kind == "table":
            columns = {n.removeprefix(COLUMN): a for n, a in segment.arrays.items() if n.startswith(COLUMN)}
            entry = TableEntry(columns, header["inputs"], header["units"], header["long_names"])
            self.tables[header["label"]] = entry
        elif kind == "verdict":
            self.verdicts[header["index"] : header["index"] + 1] = [dict(header["row"])]
        else:
            raise FileFormatError(f"{segment.name}: a segment of unknown kind {kind!r}")

    def _absorb_series(self, segment: Segment) -> None:
        header = segment.header
        entry = self.series.get(header["label"])
        if entry is None:
            entry = SeriesEntry(header["label"], header["inputs"], header["spec"])
            self.series[entry.label] = entry
        entry.inputs = header["inputs"]
        entry.described = header["spec"]
        entry.attrs, entry.finished = dict(header["attrs"]), bool(header["finished"])
        entry.states.append(header["state"])
        entry.segments.append(segment.name)
        for stream, count in header["rows"].items():
            entry.rows[stream] = entry.rows.get(stream, 0) + int(count)

    def needed_states(self) -> set[str]:
        """Digests of the restart states to keep: the last of finished series, the last two of others."""
        return {s for e in self.series.values() for s in e.states[-1 if e.finished else -2 :]}


class Source(Protocol):
    """A run to read from."""

    path: Path
    contents: Contents

    def blocks(self, label: str, names: Collection[str] | None = None) -> Iterator[Mapping[str, AnyArray]]:
        """Rows of a series in order, piece by piece; a piece need not hold all names."""

    def fixed(self, label: str, names: Collection[str] | None = None) -> dict[str, AnyArray]:
        """Axes and static variables of a series, by default all."""

    def state(self, label: str) -> RestartState | None:
        """Last restart state of a series."""

    def close(self) -> None:
        """Let go of the file."""


def columns(source: Source, label: str, names: Collection[str]) -> dict[str, AnyArray]:
    """Whole columns of a series, in memory.

    Raises
    ------
    ResourceError
        If they do not fit.
    """
    entry = source.contents.series[label]
    recorded = entry.recorded
    n_bytes = sum(entry.row_bytes(n) * entry.rows.get(recorded[n], 0) for n in names)
    check_memory(f"reading series {label!r}", 2 * n_bytes)
    pieces: dict[str, list[AnyArray]] = {name: [] for name in names}
    for block in source.blocks(label, names):
        for name, rows in block.items():
            pieces[name].append(rows)
    empty = _empty_rows(entry)
    return {n: np.concatenate(found) if found else empty[n] for n, found in pieces.items()}


def _empty_rows(entry: SeriesEntry) -> dict[str, AnyArray]:
    sizes = {a["name"]: a["shape"][0] for a in entry.described["axes"]}
    rows = {s["name"]: np.empty(0) for s in entry.described["streams"]}
    for v in entry.described["variables"]:
        if "sha256" not in v:
            rows[v["name"]] = np.empty((0, *(sizes[d] for d in v["dims"][1:])), dtype=v["dtype"])
    return rows


def restored_spec(source: Source, label: str) -> SeriesSpec:
    """Rebuild the `SeriesSpec` of a stored series."""
    return SeriesSpec.restore(source.contents.series[label].described, source.fixed(label))


def check_same_series(entry: SeriesEntry, spec: SeriesSpec, inputs: str, extend: bool) -> None:
    """Raise `ResumeMismatchError` unless a stored series may be continued as `spec` with these `inputs`."""
    if entry.inputs != inputs and not extend:
        raise ResumeMismatchError(
            f"series {entry.label!r} was computed from other inputs: digest {entry.inputs[:16]} is stored, "
            f"now it is {inputs[:16]}"
        )
    now = spec.describe()
    for part in (
        ("streams", "axes", "variables") if entry.inputs != inputs else ("streams", "axes", "variables", "attrs")
    ):
        old, new = entry.described[part], json.loads(json.dumps(now[part]))
        if old != new:
            raise ResumeMismatchError(f"series {entry.label!r}: {part} are stored as {old}, now they are {new}")


class PartsSource:
    """A run that lies in segments, on top of a sealed file where it extends one."""

    def __init__(self, directory: Path, base: Source | None = None) -> None:
        self.path, self.base = directory, base
        self.contents = base.contents if base is not None else Contents()
        self.number, self.previous = 0, ""

    @classmethod
    def load(cls, directory: Path, base: Source | None = None) -> PartsSource:
        """Read and check a whole chain.

        Raises
        ------
        CorruptFileError
            If a segment is missing, exchanged, or changed.
        """
        source = cls(directory, base)
        for name in segment_names(directory):
            segment = read_segment(directory, name, _Columns())
            with damage(directory / name):
                if segment.number == 0:
                    if segment.header["kind"] != "run":
                        raise CorruptFileError(f"{directory / name}: segment 000000 does not start a run")
                    source.previous = config_digest(segment.header["identity"]["config"])
                check_successor(directory, segment, source.previous)
                source.contents.absorb(segment)
            source.number, source.previous = segment.number + 1, segment.digest
        return source

    def blocks(self, label: str, names: Collection[str] | None = None) -> Iterator[Mapping[str, AnyArray]]:
        """Rows of a series, commit by commit."""
        entry = self.contents.series[label]
        if entry.in_base and self.base is not None:
            yield from self.base.blocks(label, names)
        wanted = {ROW + n for n in (entry.recorded if names is None else names)}
        for name in entry.segments:
            arrays = read_segment(self.path, name, wanted).arrays
            yield {n.removeprefix(ROW): a for n, a in arrays.items()}

    def fixed(self, label: str, names: Collection[str] | None = None) -> dict[str, AnyArray]:
        """Axes and static variables of a series, from its first segment."""
        entry = self.contents.series[label]
        if entry.in_base and self.base is not None:
            return self.base.fixed(label, names)
        wanted = {FIXED + n for n in (entry.fixed if names is None else names)}
        arrays = read_segment(self.path, entry.segments[0], wanted).arrays
        return {n.removeprefix(FIXED): a for n, a in arrays.items()}

    def state(self, label: str) -> RestartState | None:
        """Last restart state of a series."""
        entry = self.contents.series.get(label)
        if entry is None:
            return None
        if entry.states:
            return read_state(self.path, entry.states[-1])
        return self.base.state(label) if self.base is not None else None

    def close(self) -> None:
        """Let go of the sealed file below, if there is one."""
        if self.base is not None:
            self.base.close()


class _Columns(Collection[str]):
    """The names of table columns, which are read along with the index."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.startswith(COLUMN)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
