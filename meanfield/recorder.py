"""What a run leaves behind: frames and probes, written to a sink, and its restart state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from meanfield.errors import ConfigError
from meanfield.fields import Field
from meanfield.probes import Probe
from meanfield.solution import Solution, Status
from meanfield.steppers import AdaptiveStepper, FixedStepper, LayeredStepper
from meanfield.storage.layout import RestartState

Array = NDArray[np.float64]
AnyStepper = FixedStepper | AdaptiveStepper | LayeredStepper


@dataclass(frozen=True)
class Recording:
    """Shape of what will be recorded.

    A sample of every frame and probe, the time axes with their long names, and the
    time axis of each probe.
    """

    model: Any
    frames: Mapping[str, Field]
    probes: Mapping[str, Field]
    streams: Mapping[str, str]
    probe_streams: Mapping[str, str]


class Sink(Protocol):
    """Where frames, probe values and restart states go: memory, or a durable file."""

    def begin(self, recording: Recording) -> RestartState | None:
        """Prepare; return the state to continue from, or None to start afresh."""

    def append(self, stream: str, t: float, values: Mapping[str, Array]) -> None:
        """Add a row to a time axis."""

    def due(self) -> bool:
        """Whether a commit is due."""

    def commit(self, state: RestartState) -> None:
        """Make everything appended so far durable, with the state to continue from."""

    def finish(self, state: RestartState, status: str, message: str) -> None:
        """Commit for the last time."""

    def read(self) -> dict[str, Array]:
        """Read back time axes and variables recorded so far."""


class MemorySink:
    """Keeps everything in memory; the default."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Array]] = {}

    def begin(self, recording: Recording) -> RestartState | None:
        """Start afresh."""
        self._empty = {s: np.empty(0) for s in recording.streams}
        for name, sample in {**recording.frames, **recording.probes}.items():
            self._empty[name] = np.empty((0, *np.shape(sample.values)))
        self._rows = {name: [] for name in self._empty}
        return None

    def append(self, stream: str, t: float, values: Mapping[str, Array]) -> None:
        """Keep a copy of the row."""
        self._rows[stream].append(np.float64(t))  # type: ignore[arg-type]
        for name, value in values.items():
            self._rows[name].append(np.array(value, dtype=np.float64))

    def due(self) -> bool:
        """Never: memory needs no commits."""
        return False

    def commit(self, state: RestartState) -> None:
        """Do nothing."""

    def finish(self, state: RestartState, status: str, message: str) -> None:
        """Do nothing."""

    def read(self) -> dict[str, Array]:
        """Everything recorded, stacked over time."""
        return {name: np.array(rows) if rows else self._empty[name] for name, rows in self._rows.items()}


class Recorder:
    """Knows when to save and probe, and does it."""

    def __init__(
        self,
        model: Any,
        probes: dict[str, Probe],
        times: Array,
        targets: NDArray[np.int64] | None,
        sink: Sink,
    ) -> None:
        self.model, self.probes, self.sink = model, probes, sink
        self._times, self._targets = times, targets
        self._next = 0
        self._last_saved: float | None = None
        self._cadences = sorted({p.every for p in probes.values() if p.every is not None})
        self._each_step = any(p.accumulates for p in probes.values())
        # Probes see a copy: whatever they do to it, the trajectory stays as it is.
        self._view = np.empty(model.shape)

    def begin(self, stepper: AnyStepper) -> bool:
        """Open the sink; restore stepper and probes if it has a state to continue from."""
        if self.probes:
            np.copyto(self._view, stepper.y)
        for probe in self.probes.values():
            if probe.accumulates:
                probe.function.init(stepper.t, self._view, self.model)  # type: ignore[union-attr]
        frames = self._frames(stepper.y)
        values = {name: self._sample(name, p, stepper.t) for name, p in self.probes.items()}
        streams = {"time": "depth"} | {f"time_every_{k}": f"depth, every {k} steps" for k in self._cadences}
        clash = sorted((set(frames) | set(streams)) & set(values))
        if clash:
            raise ConfigError(f"probe name {clash[0]!r} is taken by a field or a time axis of the model")
        time_axes = {name: probe.stream for name, probe in self.probes.items()}
        state = self.sink.begin(Recording(self.model, frames, values, streams, time_axes))
        if state is None:
            return False
        stepper.restore(state.arrays["y"], state.meta)
        self._next = int(state.meta["next_save"])
        for name, probe in self.probes.items():
            if probe.accumulates:
                prefix = f"probe.{name}."
                own = {k.removeprefix(prefix): v for k, v in state.arrays.items() if k.startswith(prefix)}
                probe.function.restore(own)  # type: ignore[union-attr]
        return True

    def _frames(self, y: Array) -> dict[str, Field]:
        fields = dict(self.model.fields(y))
        first = next(iter(fields.values()))
        if len(fields) > 1 or np.shape(first.values) != np.shape(y):
            fields["state"] = Field(y, tuple(f"state_{d}" for d in range(np.ndim(y))), long_name="packed state")
        return fields

    def _sample(self, name: str, probe: Probe, t: float) -> Field:
        value = probe.value(t, self._view.copy(), self.model)
        axes = probe.axes or tuple(f"{name}_{d}" for d in range(value.ndim))
        if len(axes) != value.ndim:
            raise ConfigError(f"probe {name!r} names {len(axes)} axes, but its value has shape {value.shape}")
        return Field(value, axes, probe.units, probe.long_name or name.replace("_", " "))

    def start(self, stepper: AnyStepper) -> None:
        """Record what falls on the start."""
        self._save_frames(stepper, stepper.t)
        self._record_cadences(stepper)

    def steps_to_next(self, step: int) -> int:
        """How many steps may be taken before something must be seen (fixed steps)."""
        if self._each_step:
            return 1
        ahead = [k - step % k for k in self._cadences]
        if self._targets is not None and self._next < len(self._targets):
            ahead.append(int(self._targets[self._next]) - step)
        return min(ahead, default=2**40)

    def accept(self, stepper: AnyStepper, until: float | None = None) -> None:
        """See the state after an advance; save times up to `until` (default: the stepper's time) are due."""
        if self._each_step:
            np.copyto(self._view, stepper.y)
            for probe in self.probes.values():
                if probe.accumulates:
                    probe.function.update(stepper.t, self._view, self.model)  # type: ignore[union-attr]
        self._save_frames(stepper, stepper.t if until is None else until)
        self._record_cadences(stepper)

    def _save_frames(self, stepper: AnyStepper, until: float) -> None:
        while self._next < len(self._times):
            t = float(self._times[self._next])
            if self._targets is None:
                if t > until:
                    return
            elif int(self._targets[self._next]) > stepper.step:
                return
            self._next += 1
            if isinstance(stepper, AdaptiveStepper):
                stepper.interpolate(t, self._view)
                self._save(t, self._view)
            else:
                self._save(t, stepper.y)

    def _save(self, t: float, y: Array) -> None:
        np.copyto(self._view, y)
        rows = {name: field.values for name, field in self._frames(self._view).items()}
        watched = {name: probe for name, probe in self.probes.items() if probe.every is None}
        scratch = self._view.copy() if watched else self._view
        for name, probe in watched.items():
            rows[name] = probe.value(t, scratch, self.model)
        self.sink.append("time", t, rows)
        self._last_saved = t

    def _record_cadences(self, stepper: AnyStepper) -> None:
        for every in self._cadences:
            if stepper.step % every and not stepper.done:
                continue
            np.copyto(self._view, stepper.y)
            rows = {n: p.value(stepper.t, self._view, self.model) for n, p in self.probes.items() if p.every == every}
            self.sink.append(f"time_every_{every}", stepper.t, rows)

    def save_last(self, stepper: AnyStepper) -> None:
        """Record a frame at the stepper's own time, where an event ended the run."""
        if self._last_saved != stepper.t:
            self._save(stepper.t, stepper.y)

    def restart_state(self, stepper: AnyStepper) -> RestartState:
        """Everything needed to continue bit for bit."""
        arrays: dict[str, Array] = {"y": stepper.y.copy()}
        for name, probe in self.probes.items():
            if probe.accumulates:
                for key, value in probe.function.state().items():  # type: ignore[union-attr]
                    arrays[f"probe.{name}.{key}"] = np.array(value)
        return RestartState(arrays, stepper.state() | {"next_save": self._next})

    def commit_if_due(self, stepper: AnyStepper) -> None:
        """Commit when the sink says so."""
        if self.sink.due():
            self.sink.commit(self.restart_state(stepper))

    def end(self, stepper: AnyStepper, status: Status, message: str) -> None:
        """Commit for the last time: finished, or to be continued."""
        if isinstance(self.sink, MemorySink):
            return  # nothing to continue from, and no copy of the state to pay for
        if status is Status.INTERRUPTED:
            self.sink.commit(self.restart_state(stepper))
        else:
            self.sink.finish(self.restart_state(stepper), status.value, message)

    def last_frame(self) -> str:
        """Clause of a message that names the last good frame."""
        return "" if self._last_saved is None else f" (last good frame at t={self._last_saved!r})"

    def solution(self, stepper: AnyStepper, status: Status, message: str) -> Solution:
        """Everything recorded, read back from the sink."""
        stats = {"n_steps": stepper.step, "n_rejected": stepper.n_rejected, "n_rates": stepper.n_rates}
        return assemble(self.sink.read(), self.probes, stepper.y, stepper.t, status, message, stats)


def assemble(
    columns: Mapping[str, Array],
    probes: Mapping[str, Probe],
    final: Array,
    final_time: float,
    status: Status,
    message: str,
    stats: Mapping[str, int],
) -> Solution:
    """Build a `Solution` from recorded columns."""
    watched = {name: (columns[p.stream], columns[name]) for name, p in probes.items()}
    times = {p.stream for p in probes.values()} | {"time"}
    fields = {n: v for n, v in columns.items() if n not in probes and n not in times}
    return Solution(columns["time"], fields, watched, final, final_time, status, message, dict(stats))
