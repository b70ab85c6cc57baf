"""The writing side of a run: series that grow row by row, tables, verdicts, and the seal.

Memory: rows not yet committed (`SeriesWriter.due` says so from 64 MiB on), and three
times that while a commit is built; sealing adds one segment and one chunk per column.
"""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from meanfield.errors import ConfigError, OutputError
from meanfield.storage import syscalls
from meanfield.storage.contents import COLUMN, FIXED, ROW, PartsSource, SeriesEntry, check_same_series, columns
from meanfield.storage.durable import Lock, deferred_interrupts, file_digest, fsync_directory, output_errors
from meanfield.storage.layout import (
    RESERVED,
    AnyArray,
    RestartState,
    SeriesSpec,
    check_attributes,
    checked_columns,
    checked_verdict,
)
from meanfield.storage.names import check_name, check_text
from meanfield.storage.seal import write_sealed
from meanfield.storage.segments import Chain, clear, config_digest


@dataclass(frozen=True)
class Cadence:
    """When a commit is due: after max(`least` seconds, `factor` times the last one's cost), or so many bytes."""

    least: float = 1.0
    factor: float = 50.0
    pending_bytes: int = 64 * 2**20
    clock: Callable[[], float] = time.monotonic


class RunWriter:
    """A run being written; get one from `create_run`. Use it as a context manager: leaving releases the lock.

    After a failed write nothing more is written (`OutputError` again); resume the run.
    """

    def __init__(
        self,
        path: Path,
        lock: Lock,
        source: PartsSource,
        start: Mapping[str, Any],
        *,
        may_replace: bool,
        cadence: Cadence,
    ) -> None:
        self.path, self.cadence = path, cadence
        self._lock, self._source, self._start = lock, source, dict(start)
        self._chain: Chain | None = None
        if source.number:
            self._chain = Chain(source.path, source.number, source.previous)
        self._may_replace = may_replace
        self._open: dict[str, SeriesWriter] = {}
        self._replayed: set[int] = set()
        self._closed = False

    @property
    def config(self) -> dict[str, Any]:
        """The configuration the run was started with."""
        return dict(json.loads(self._source.contents.identity["config"]))

    def begin_run(self) -> None:
        """Write the first segment, which carries the configuration and the origin of the run."""
        if self._chain is None:
            start = self._start
            if start["mode"] == "extend":
                start |= {"base": file_digest(self.path)}
            chain = Chain(self._source.path, 0, config_digest(start["identity"]["config"]))
            self._source.contents.absorb(chain.append({"kind": "run"} | start, {}))
            self._chain = chain

    def change_config(self, config_json: str) -> None:
        """Replace the configuration (of a run that is extended)."""
        if self._chain is None:
            self._start["identity"] |= {"config": config_json}
            self.begin_run()
        else:
            self.write({"kind": "config", "config": config_json}, {})

    def write(
        self, header: Mapping[str, Any], arrays: Mapping[str, AnyArray], state: RestartState | None = None
    ) -> None:
        """Make one commit durable: first the restart state, then the segment that names it.

        Raises
        ------
        OutputError
            With the errno of the first failed call.
        """
        if self._closed:
            raise ConfigError(f"run {self.path} is closed")
        with deferred_interrupts():
            self._write(header, arrays, state)

    def _write(self, header: Mapping[str, Any], arrays: Mapping[str, AnyArray], state: RestartState | None) -> None:
        self.begin_run()
        assert self._chain is not None
        self._chain.check()
        if state is not None:
            header = dict(header) | {"state": self._chain.put_state(state)}
        segment = self._chain.append(header, arrays)
        object.__setattr__(segment, "arrays", {n: a for n, a in arrays.items() if n.startswith(COLUMN)})
        self._source.contents.absorb(segment)
        if state is not None:
            self._chain.keep_states(self._source.contents.needed_states())

    def begin_series(self, label: str, spec: SeriesSpec, inputs: str, *, extend: bool = False) -> SeriesWriter:
        """Start a series, or continue a stored one.

        Parameters
        ----------
        label
            Its name in the file.
        spec
            Axes, streams, variables, attributes.
        inputs
            Hex digest of everything that determines the result.
        extend
            Continue a stored series although its inputs differ (a later end time).

        Raises
        ------
        ConfigError
            If the label cannot be a name, or the series is open already.
        ResumeMismatchError
            If a stored series of this label has other inputs, axes or variables.
        """
        check_name("series", label)
        if label in self._open:
            raise ConfigError(f"series {label!r} is open already")
        entry = self._source.contents.series.get(label)
        if entry is not None:
            check_same_series(entry, spec, inputs, extend)
        writer = SeriesWriter(self, self._source, label, spec, inputs)
        self._open[label] = writer
        return writer

    def end_series(self, label: str) -> None:
        """Forget that a series is open."""
        self._open.pop(label, None)

    def put_table(
        self,
        label: str,
        columns: Mapping[str, Any],
        *,
        inputs: str = "",
        units: Mapping[str, str] | None = None,
        long_names: Mapping[str, str] | None = None,
    ) -> None:
        """Store columns of equal length, durable on return; a stored table of that label is replaced.

        Raises
        ------
        ConfigError
            If a name or type cannot be stored, or the columns differ in length (both are named).
        OutputError
            If it cannot be written.
        """
        check_name("table", label)
        table = checked_columns(label, columns)
        for words in (*(units or {}).values(), *(long_names or {}).values()):
            check_text(f"units and long names of table {label!r}", words)
        header = {
            "kind": "table",
            "label": label,
            "inputs": inputs,
            "units": dict(units or {}),
            "long_names": dict(long_names or {}),
        }
        self.write(header, {COLUMN + n: a for n, a in table.items()})

    def table(self, label: str, inputs: str = "") -> dict[str, AnyArray] | None:
        """Return the columns of a stored table, or None; with other inputs, None as well."""
        entry = self._source.contents.tables.get(label)
        if entry is None or entry.inputs != inputs:
            return None
        return {name: values.copy() for name, values in entry.columns.items()}

    def put_verdict(self, row: Mapping[str, str | float | bool]) -> None:
        """Store a verdict, durable on return. Repeating a stored one (on resume) writes nothing.

        Raises
        ------
        ConfigError
            If a field is neither text nor a number.
        OutputError
            If it cannot be written.
        """
        verdict = checked_verdict(row)
        stored = self._source.contents.verdicts
        if stored and set(stored[0]) != set(verdict):
            raise ConfigError(f"verdict has the fields {sorted(verdict)}, earlier ones have {sorted(stored[0])}")
        free = [i for i in range(len(stored)) if i not in self._replayed]
        same = [i for i in free if json.dumps(stored[i], sort_keys=True) == json.dumps(verdict, sort_keys=True)]
        alike = [i for i in free if stored[i].get("claim") == verdict.get("claim")]
        index = (same or alike or [len(stored)])[0]
        if not same:
            self.write({"kind": "verdict", "index": index, "row": verdict}, {})
        self._replayed.add(index)

    def seal(self, status: str = "finished") -> Path:
        """Turn the run into one file at `path`, remove its parts, release the lock.

        The file is written under a temporary name, read back and verified, and takes
        its name in one step; only then are the parts removed.

        Raises
        ------
        ConfigError
            If a series holds rows that were not committed.
        OutputError
            If it cannot be written; the parts stay, and the run can be resumed.
        """
        if self._closed:
            raise ConfigError(f"run {self.path} is closed")
        if self._chain is not None:
            self._chain.check()
        for writer in self._open.values():
            if writer.pending_rows:
                raise ConfigError(f"series {writer.label!r} holds rows that are not committed")
        if self._chain is None and self._start["mode"] == "extend":
            self.close()  # nothing was added to a run that is sealed already
            return self.path
        self.begin_run()
        assert self._chain is not None
        try:
            self._seal(self._chain, status)
        except OutputError as error:
            self._chain.fail(error)
            raise
        self.close()
        return self.path

    def _seal(self, chain: Chain, status: str) -> None:
        temporary = chain.directory / ".sealing.tmp"
        finished = write_sealed(self._source, temporary, status)
        chain.put_marker(finished)
        if self.path.exists() and not self._may_replace:
            raise OutputError(
                errno.EEXIST, "a file appeared while the run was written; use overwrite to replace it", str(self.path)
            )
        with output_errors(self.path, "rename the sealed file to"):
            syscalls.system.rename(str(temporary), str(self.path))
            fsync_directory(self.path.parent)
        clear(chain.directory)

    def abandon(self) -> None:
        """Close; where nothing but the start of the run is stored, remove its parts as well.

        For a run that fails before its first result: there is nothing to resume.
        """
        contents = self._source.contents
        if self._chain is not None and not (contents.series or contents.tables or contents.verdicts):
            clear(self._chain.directory)
        self.close()

    def close(self) -> None:
        """Release the lock and keep the parts; rows that were not committed are dropped."""
        if not self._closed:
            self._closed = True
            self._source.close()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SeriesWriter:
    """A series that grows row by row; get one from `RunWriter.begin_series`."""

    def __init__(self, run: RunWriter, source: PartsSource, label: str, spec: SeriesSpec, inputs: str) -> None:
        self.label, self.spec = label, spec
        self._described = spec.describe()
        self._run, self._source, self._inputs = run, source, inputs
        self._shapes = {v.name: (spec.row_shape(v), np.dtype(v.dtype)) for v in spec.recorded}
        self._names = {s.name: {v.name for v in spec.recorded if v.dims[0] == s.name} for s in spec.streams}
        self._pending: list[tuple[str, float, dict[str, AnyArray]]] = []
        self._pending_bytes = 0
        self._cost = 0.0
        self._last = run.cadence.clock()

    @property
    def _entry(self) -> SeriesEntry | None:
        return self._source.contents.series.get(self.label)

    @property
    def finished(self) -> bool:
        """Whether the series is complete for these inputs."""
        entry = self._entry
        return entry is not None and entry.finished and entry.inputs == self._inputs

    @property
    def state(self) -> RestartState | None:
        """Restart state of the last commit, None for a fresh series."""
        return self._source.state(self.label)

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes given to `finish`, empty before."""
        entry = self._entry
        return dict(entry.attrs) if entry is not None and self.finished else {}

    @property
    def pending_rows(self) -> int:
        """Rows not yet committed."""
        return len(self._pending)

    def append(self, stream: str, t: float, values: Mapping[str, Any]) -> None:
        """Add a row to a stream: its coordinate and every variable recorded along it.

        Raises
        ------
        ConfigError
            If the stream is unknown, a variable is missing, unknown or misshapen, or the series is finished.
        """
        if stream not in self._names:
            raise ConfigError(f"series {self.label!r} has no stream {stream!r}, only {', '.join(self._names)}")
        if set(values) != self._names[stream]:
            wrong = min(set(values) ^ self._names[stream])
            raise ConfigError(f"series {self.label!r}: a row of {stream!r} lacks {wrong!r} or has it in excess")
        if self.finished:
            raise ConfigError(f"series {self.label!r} is finished")
        row = {}
        for name, value in values.items():
            shape, dtype = self._shapes[name]
            array = np.asarray(value)
            if array.shape != shape or array.dtype.kind not in "fiub":
                raise ConfigError(
                    f"variable {name!r} has a row of shape {array.shape} and type {array.dtype}, "
                    f"expected {shape} and {dtype}"
                )
            row[name] = np.array(array, dtype=dtype)
        self._pending_bytes += 8 + sum(a.nbytes for a in row.values())
        # One call that takes the whole row: Ctrl-C falls before or after it, never within.
        self._pending.append((stream, float(t), row))

    def due(self) -> bool:
        """Whether it is time to commit (see `Cadence`)."""
        cadence = self._run.cadence
        if self._pending_bytes >= cadence.pending_bytes:
            return True
        return cadence.clock() - self._last >= max(cadence.least, cadence.factor * self._cost)

    def commit(self, state: RestartState) -> None:
        """Make all rows so far durable, with the state to continue from.

        Raises
        ------
        OutputError
            With the errno of the first failed call; then nothing of this commit counts.
        """
        self._commit(state, {}, finished=False)

    def finish(self, state: RestartState, attrs: Mapping[str, str | int | float] | None = None) -> None:
        """Commit for the last time, with attributes that are known only now."""
        checked = check_attributes(f"series {self.label!r}", attrs or {}, RESERVED)
        self._commit(state, checked, finished=True)
        self._run.end_series(self.label)

    def _commit(self, state: RestartState, attrs: Mapping[str, Any], *, finished: bool) -> None:
        if self.finished:
            raise ConfigError(f"series {self.label!r} is finished")
        clock = self._run.cadence.clock
        start = clock()
        arrays, counts = self._stacked()
        if self._entry is None:
            arrays |= {FIXED + n: a for n, a in self.spec.fixed_arrays().items()}
        header = {
            "kind": "series",
            "label": self.label,
            "inputs": self._inputs,
            "spec": self._described,
            "rows": counts,
            "finished": finished,
            "attrs": dict(attrs),
        }
        with deferred_interrupts():
            self._run.write(header, arrays, state)
            self._pending, self._pending_bytes = [], 0
        self._last = clock()
        self._cost = self._last - start

    def _stacked(self) -> tuple[dict[str, AnyArray], dict[str, int]]:
        arrays: dict[str, AnyArray] = {}
        counts = {}
        for stream, names in self._names.items():
            rows = [(t, values) for s, t, values in self._pending if s == stream]
            if rows:
                counts[stream] = len(rows)
                arrays[ROW + stream] = np.array([t for t, _ in rows])
                arrays |= {ROW + n: np.stack([values[n] for _, values in rows]) for n in sorted(names)}
        return arrays, counts

    def read(self) -> dict[str, AnyArray]:
        """All streams and recorded variables so far, committed or not, in memory.

        Raises
        ------
        ResourceError
            If they do not fit.
        """
        names = [n for s, found in self._names.items() for n in (s, *sorted(found))]
        waiting, _ = self._stacked()
        empty = {s: np.empty(0) for s in self._names}
        empty |= {n: np.empty((0, *shape), dtype) for n, (shape, dtype) in self._shapes.items()}
        stored = columns(self._source, self.label, names) if self._entry is not None else empty
        return {n: np.concatenate([stored[n], waiting[ROW + n]]) if ROW + n in waiting else stored[n] for n in names}
