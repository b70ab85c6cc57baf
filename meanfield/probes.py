"""Probes: quantities watched along a trajectory.

The simplest probe is a plain function ``f(t, y, model) -> float or array``. One
that accumulates (an integral over depth, a running maximum) is an object with

    init(t, y, model)      at the start,
    update(t, y, model)    after every accepted step,
    value()                when a value is recorded,
    state(), restore(d)    its arrays, part of the restart state of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import positive_int
from meanfield.errors import ConfigError

Array = NDArray[np.float64]


@runtime_checkable
class Accumulator(Protocol):
    """Object form of a probe, updated after every accepted step."""

    def init(self, t: float, y: Array, model: Any) -> None: ...  # noqa: D102
    def update(self, t: float, y: Array, model: Any) -> None: ...  # noqa: D102
    def value(self) -> Any: ...  # noqa: D102
    def state(self) -> Mapping[str, Array]: ...  # noqa: D102
    def restore(self, state: Mapping[str, Array]) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Probe:
    """A quantity to record, and when.

    Parameters
    ----------
    function
        ``f(t, y, model)`` or an `Accumulator`.
    every
        Record every so many steps, and at the start and the end; None records at the save times.
    axes
        Names of the axes of its values; by default they are numbered.
    units, long_name
        As in netCDF.

    Raises
    ------
    ConfigError
        If `function` is neither callable nor an accumulator, or `every` is no positive integer.
    """

    function: Callable[[float, Array, Any], Any] | Accumulator
    every: int | None = None
    axes: tuple[str, ...] | None = None
    units: str = "1"
    long_name: str = ""

    def __post_init__(self) -> None:
        if self.every is not None:
            positive_int("every", self.every)
        if not isinstance(self.function, Accumulator) and not callable(self.function):
            raise ConfigError(f"a probe must be a function f(t, y, model) or an accumulator, got {self.function!r}")

    @property
    def stream(self) -> str:
        """Name of the time axis its values are recorded on."""
        return "time" if self.every is None else f"time_every_{self.every}"

    @property
    def accumulates(self) -> bool:
        """Whether it must see every accepted step."""
        return isinstance(self.function, Accumulator)

    def value(self, t: float, y: Array, model: Any) -> Array:
        """Value now, as an array (of no dimension for a number)."""
        if isinstance(self.function, Accumulator):
            return np.asarray(self.function.value(), dtype=np.float64)
        return np.asarray(self.function(t, y, model), dtype=np.float64)


def normalise(probes: Mapping[str, Any] | None) -> dict[str, Probe]:
    """Probes by name, plain functions and accumulators wrapped."""
    found = {name: p if isinstance(p, Probe) else Probe(p) for name, p in (probes or {}).items()}
    for name in found:
        if not name.isidentifier():
            raise ConfigError(f"probe name {name!r} must be an identifier: it names a variable of the file")
    return found
