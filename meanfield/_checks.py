"""Checks of arguments: each returns the value in its canonical form or raises.

Constructors all over the package call these, so that the same mistake gets the
same words everywhere.
"""

from __future__ import annotations

import difflib
import math
import numbers
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from meanfield.errors import ConfigError, ResourceError

Array = NDArray[np.float64]
T = TypeVar("T")

_INT_LIMIT = 2**63 - 1
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 80


def shown(value: Any) -> str:
    """Return ``repr(value)``, short whatever a hostile input holds."""
    if isinstance(value, int) and abs(value) > _INT_LIMIT:
        return f"an integer of {value.bit_length()} bits"
    try:
        return _SHOWN.repr(value)
    except ValueError:  # an integer inside a container, too long for Python to convert
        return f"a {type(value).__name__}"


def positive_int(name: str, value: Any) -> int:
    """Return `value` as an int >= 1, or raise `ConfigError`; booleans are refused."""
    if isinstance(value, (bool, np.bool_)):
        raise ConfigError(f"{name} must be a positive integer, got the bool {value}")
    if not isinstance(value, numbers.Integral) or int(value) < 1:
        raise ConfigError(f"{name} must be a positive integer, got {shown(value)}")
    if int(value) > _INT_LIMIT:
        raise ConfigError(f"{name} is out of range: an integer of {int(value).bit_length()} bits")
    return int(value)


def checked_seed(name: str, value: Any) -> int:
    """Return `value` as an int with 0 <= value < 2^63, or raise `ConfigError`; booleans are refused."""
    if (
        isinstance(value, (bool, np.bool_))
        or not isinstance(value, numbers.Integral)
        or not 0 <= int(value) <= _INT_LIMIT
    ):
        raise ConfigError(f"{name} must be an integer >= 0 below 2^63, got {shown(value)}")
    return int(value)


def finite_float(name: str, value: Any, *, above: float | None = None, least: float | None = None) -> float:
    """Return `value` as a finite float, optionally ``> above`` or ``>= least``."""
    if isinstance(value, (bool, np.bool_)):
        raise ConfigError(f"{name} must be a number, got the bool {value}")
    if isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real):
        raise ConfigError(f"{name} must be real, got the complex number {shown(value)}")
    if not isinstance(value, numbers.Real):
        raise ConfigError(f"{name} must be a number, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        raise ConfigError(f"{name} is out of range for a 64-bit float") from None
    if not math.isfinite(number):
        raise ConfigError(f"{name} must be finite, got {number}")
    if above is not None and not number > above:
        raise ConfigError(f"{name} must be > {above:g}, got {number!r}")
    if least is not None and not number >= least:
        raise ConfigError(f"{name} must be >= {least:g}, got {number!r}")
    return number


def finite_array(name: str, value: Any, *, shape: tuple[int | None, ...] | None = None) -> Array:
    """Return `value` as a C-contiguous float64 array of finite numbers.

    `shape` may hold None for an extent that is free. A copy is made only when
    the input is not already in canonical form.
    """
    try:
        raw = np.asarray(value)
    except ValueError as error:
        raise ConfigError(f"{name} is not a rectangular array: {error}") from None
    if raw.dtype.kind == "c":
        raise ConfigError(f"{name} must be real, got a complex array ({raw.dtype})")
    if raw.dtype.kind not in "fiu":
        raise ConfigError(f"{name} must be an array of numbers, got dtype {raw.dtype}")
    array = np.ascontiguousarray(raw, dtype=np.float64) if raw.ndim else np.array(raw, dtype=np.float64)
    if shape is not None and (
        len(shape) != array.ndim
        or any(want is not None and want != have for want, have in zip(shape, array.shape, strict=True))
    ):
        wanted = "(" + ", ".join("any" if s is None else str(s) for s in shape) + ")"
        raise ConfigError(f"{name} has shape {array.shape}, expected {wanted}")
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ConfigError(f"{name} must be finite, got {array[index]} at index {index}")
    return array


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return `value` if it is one of `choices`, else raise naming them all."""
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}; got {shown(value)}")
    return str(value)


def nearest(name: Any, known: Iterable[str]) -> str:
    """Clause for a message, ``, did you mean 'x'?``, or nothing if no known name is near."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def lookup(kind: str, name: Any, table: Mapping[str, T]) -> T:
    """Return ``table[name]``, or raise `ConfigError` naming the nearest entry and all of them."""
    found = table.get(name) if isinstance(name, str) else None
    if found is None:
        raise ConfigError(f"unknown {kind} {name!r}{nearest(name, table)} (known: {', '.join(table)})")
    return found


def available_bytes() -> int:
    """Memory this process may still ask for, in bytes (physical memory, cgroup aside)."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 8 * 2**30


# Bytes that are not worth asking for how many there are.
SMALL = 2**20


def check_memory(what: str, n_bytes: int) -> None:
    """Raise `ResourceError` before an allocation larger than the memory available.

    Needed because the operating system hands out address space lazily: a request
    for far more than the machine holds succeeds, and the process dies later.
    """
    if n_bytes <= SMALL:
        return
    limit = available_bytes()
    if n_bytes > limit:
        raise ResourceError(
            f"{what} needs an estimated {n_bytes / 2**30:.4g} GiB, over the limit of {limit / 2**30:.4g} GiB available"
        )
