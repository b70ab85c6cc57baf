"""Recording an integration into a run file: the sink between the time loop and storage."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import partial
from types import CodeType, ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield.fields import Field
from meanfield.integration import integrate
from meanfield.probes import normalise
from meanfield.recorder import Recording, assemble
from meanfield.schemes import scheme as scheme_of
from meanfield.solution import Solution, Status
from meanfield.storage.layout import Axis, RestartState, SeriesSpec, Stream, Variable
from meanfield.storage.run import RunWriter
from meanfield.storage.writer import SeriesWriter

Array = NDArray[np.float64]


class _StoredAlreadyError(Exception):
    """The series asked for is finished; nothing is to be computed."""


class FileSink:
    """Writes what an integration records to a series of a run file."""

    def __init__(self, run: RunWriter, label: str, inputs: str) -> None:
        self._run, self._label, self._inputs = run, label, inputs
        self.series: SeriesWriter | None = None

    def begin(self, recording: Recording) -> RestartState | None:
        """Open the series; return the state of its last commit, or None if it is new."""
        self.series = self._run.begin_series(self._label, series_spec(recording), self._inputs)
        if self.series.finished:
            raise _StoredAlreadyError
        return self.series.state

    @property
    def _open(self) -> SeriesWriter:
        assert self.series is not None
        return self.series

    def append(self, stream: str, t: float, values: Mapping[str, Array]) -> None:
        """Add a row to a time axis."""
        self._open.append(stream, t, values)

    def due(self) -> bool:
        """Whether a commit is due."""
        return self._open.due()

    def commit(self, state: RestartState) -> None:
        """Make everything appended so far durable."""
        self._open.commit(state)

    def finish(self, state: RestartState, status: str, message: str) -> None:
        """Commit for the last time, with how it ended."""
        self._open.finish(state, attrs={"run_status": status, "message": message})

    def read(self) -> dict[str, Array]:
        """Read back time axes and variables recorded so far."""
        return self._open.read()


def series_spec(recording: Recording) -> SeriesSpec:
    """Layout of a series: the model's axes and static fields, its frames, the probes."""
    model = recording.model
    axes = {axis.name: axis for axis in model.axes()}
    streams = tuple(Stream(name, long_name=words) for name, words in recording.streams.items())
    variables = []
    stream_of = recording.probe_streams
    for name, sample in {**recording.frames, **recording.probes}.items():
        for axis, extent in zip(sample.axes, np.shape(sample.values), strict=True):
            axes.setdefault(axis, Axis(axis, np.arange(extent), long_name=f"index along {axis}"))
        dims = (stream_of.get(name, "time"), *sample.axes)
        variables.append(Variable(name, dims, sample.units, sample.long_name))
    static: dict[str, Field] = getattr(model, "static_fields", dict)()
    variables += [Variable(n, f.axes, f.units, f.long_name, values=f.values) for n, f in static.items()]
    attrs = {"model": type(model).__name__, "parameters": json.dumps(_summary(model))}
    return SeriesSpec(tuple(axes.values()), streams, tuple(variables), attrs)


def _summary(model: Any) -> dict[str, Any]:
    described = model.describe() if hasattr(model, "describe") else {}
    return {k: v for k, v in described.items() if _plain(v)}


def _plain(value: Any) -> bool:
    """Whether a value is text, a number, nothing, or a list of such: what JSON can hold."""
    if isinstance(value, list):
        return all(_plain(item) for item in value)
    return isinstance(value, (str, int, float, type(None)))


def digest(*parts: Any) -> str:
    """SHA-256 of everything that determines a result: numbers, texts, arrays, described objects.

    Functions enter by name, bytecode, constants, defaults and the values they close over, so an
    edited function is another input; methods with the object they are bound to; other callables with their
    attributes. Globals are not seen.
    """
    state = hashlib.sha256()
    for part in parts:
        _feed(state, part, ())
    return state.hexdigest()


def _feed(state: Any, part: Any, inside: tuple[int, ...]) -> None:
    """Feed a part to the hash; `inside` holds the ids of the functions around it, which may be recursive."""
    part = getattr(part, "py_func", part)  # of a compiled function, its Python
    if hasattr(part, "describe") and not isinstance(part, type):
        part = part.describe()
    if isinstance(part, np.generic):
        part = part.item()
    if isinstance(part, np.ndarray):
        array = np.ascontiguousarray(part)
        state.update(f"array {array.dtype.str} {array.shape} ".encode())
        state.update(array.tobytes())
    elif isinstance(part, Mapping):
        state.update(b"{")
        for key in sorted(part):
            state.update(f"{key}:".encode())
            _feed(state, part[key], inside)
        state.update(b"}")
    elif isinstance(part, (list, tuple)):
        state.update(b"[")
        for item in part:
            _feed(state, item, inside)
        state.update(b"]")
    elif isinstance(part, (set, frozenset)):
        _feed(state, sorted(map(repr, part)), inside)
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        # The counts of a solution are not those of the first run once it is read back.
        names = [f.name for f in dataclasses.fields(part) if not (isinstance(part, Solution) and f.name == "stats")]
        _feed(state, {name: getattr(part, name) for name in names}, inside)
    elif isinstance(part, float):
        state.update(part.hex().encode() + b" ")
    elif part is None or isinstance(part, (str, int, bytes, complex)):
        state.update(repr(part).encode() + b" ")
    elif isinstance(part, CodeType):
        state.update(part.co_code)
        _feed(state, [part.co_names, part.co_varnames, part.co_consts], inside)
    elif isinstance(part, partial):
        _feed(state, [part.func, part.args, part.keywords], inside)
    else:
        kind = part if hasattr(part, "__qualname__") else type(part)
        state.update(f"{kind.__module__}.{kind.__qualname__} ".encode())
        _feed_insides(state, part, inside)
        if hasattr(part, "__code__") and id(part) not in inside:
            _feed(state, [part.__code__, part.__defaults__, part.__kwdefaults__], (*inside, id(part)))
            for cell in part.__closure__ or ():
                with contextlib.suppress(ValueError):  # a name not yet bound
                    _feed(state, cell.cell_contents, (*inside, id(part)))


def _feed_insides(state: Any, part: Any, inside: tuple[int, ...]) -> None:
    """Feed what a callable that is no plain function holds: the object of a method, the attributes of an instance."""
    if isinstance(part, type) or id(part) in inside:
        return
    owner = getattr(part, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType):
        _feed(state, owner, (*inside, id(part)))
    elif not hasattr(part, "__code__") and callable(part):
        held = dict(getattr(part, "__dict__", {}))
        held |= {name: getattr(part, name) for name in getattr(type(part), "__slots__", ()) if hasattr(part, name)}
        _feed(state, held, (*inside, id(part)))


def record(run: RunWriter, label: str, model: Any, y0: Any, t_span: tuple[float, float], **options: Any) -> Solution:
    """Integrate into a series of a run file, or return it if it is stored.

    A stored series with the same inputs is read back; an interrupted one continues
    from its last commit, bit for bit.

    Raises
    ------
    ResumeMismatchError
        If the label is stored with other inputs.
    """
    probes = normalise(options.get("probes"))
    determining = {k: v for k, v in options.items() if k not in ("progress", "probes", "scheme")}
    if options.get("scheme") is not None:
        determining["scheme"] = scheme_of(options["scheme"])
    watched = {name: [p.function, p.every] for name, p in probes.items()}
    inputs = digest(model, np.asarray(y0, dtype=np.float64), list(t_span), determining, watched)
    sink = FileSink(run, label, inputs)
    try:
        return integrate(model, y0, t_span, sink=sink, **options)
    except _StoredAlreadyError:
        series = sink.series
        assert series is not None
        state = series.state
        assert state is not None
        final = np.asarray(state.arrays["y"]).reshape(getattr(model, "shape", np.shape(y0)))
        meta, attrs = state.meta, series.attrs
        stats = {"n_steps": int(meta["step"]), "n_rejected": int(meta["n_rejected"])}
        return assemble(
            series.read(),
            probes,
            final,
            float.fromhex(meta["t"]),
            Status(attrs["run_status"]),
            str(attrs["message"]),
            stats,
        )
