"""What a series consists of: axes, streams, variables, attributes and a restart state.

A *stream* is a time axis that grows row by row (``time``, ``time_every_10``); an
*axis* is fixed from the start (``neuron``, ``x``). A variable without values is
recorded along the stream that is its first dimension; one with values is static.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from meanfield.errors import ConfigError
from meanfield.storage.names import check_name, check_text

AnyArray = NDArray[Any]
Attributes = Mapping[str, str | int | float]

RESERVED = ("inputs", "complete")
"""Attributes of a series that the file layer sets."""

_VERDICT_TEXT = ("claim", "status", "reason", "source")

_DTYPES = ("float64", "float32", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64")


def storable(name: str, values: Any) -> AnyArray:
    """Return `values` in a form that files hold: float32, float64, integers, or text.

    Booleans become int8, other floats float64. Arrays come back C-contiguous and in
    native byte order, so that their bytes are those a digest is taken of.

    Raises
    ------
    ConfigError
        For complex numbers, objects, dates, and text that holds NUL.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ConfigError(f"{name} is not a rectangular array: {error}") from None
    kind = array.dtype.kind
    if kind == "U":
        for text in array.reshape(-1).tolist():
            check_text(name, text)
        return np.ascontiguousarray(array) if array.ndim else array
    if kind == "b":
        array = array.astype(np.int8)
    elif kind == "f":
        array = array.astype(np.float32 if array.dtype.itemsize == 4 else np.float64, copy=False)
    elif kind in "iu":
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
    else:
        raise ConfigError(f"{name} has dtype {array.dtype}; files hold floats, integers, booleans and text")
    return np.ascontiguousarray(array) if array.ndim else array


def digest(array: AnyArray) -> str:
    """SHA-256 of the values in C order: little-endian numbers, or NUL-padded UTF-8."""
    return hashlib.sha256(np.ascontiguousarray(as_bytes(array)).data).hexdigest()


def as_bytes(array: AnyArray) -> AnyArray:
    """Text as fixed-length UTF-8 of the least width (two bytes or more), numbers little-endian."""
    if array.dtype.kind == "U":
        encoded = [text.encode() for text in array.reshape(-1).tolist()]
        width = max((len(text) for text in encoded), default=0)
        width = max(width, 2)  # netCDF takes fixed-length text of one byte for single characters
        return np.array(encoded, dtype=h5py.string_dtype("utf-8", width)).reshape(array.shape)
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


@dataclass(frozen=True, eq=False)
class Axis:
    """A fixed axis and its coordinate: `values` of shape (n,), with units as in netCDF."""

    name: str
    values: AnyArray
    units: str = "1"
    long_name: str = ""

    def __post_init__(self) -> None:
        check_name("axis", self.name)
        _check_words(self)
        values = storable(f"axis {self.name!r}", self.values)
        if values.ndim != 1:
            raise ConfigError(f"axis {self.name!r} has values of shape {values.shape}, expected (n,)")
        object.__setattr__(self, "values", values)


@dataclass(frozen=True)
class Stream:
    """A time axis that grows row by row."""

    name: str
    units: str = "1"
    long_name: str = ""

    def __post_init__(self) -> None:
        check_name("stream", self.name)
        _check_words(self)


@dataclass(frozen=True, eq=False)
class Variable:
    """A named array over `dims`; without `values` it is recorded along the stream ``dims[0]``."""

    name: str
    dims: tuple[str, ...]
    units: str = "1"
    long_name: str = ""
    dtype: str = "float64"
    values: AnyArray | None = None

    def __post_init__(self) -> None:
        check_name("variable", self.name)
        _check_words(self)
        object.__setattr__(self, "dims", tuple(self.dims))
        if self.values is not None:
            values = storable(f"variable {self.name!r}", self.values)
            object.__setattr__(self, "values", values)
            object.__setattr__(self, "dtype", "text" if values.dtype.kind == "U" else values.dtype.name)
        elif self.dtype not in _DTYPES:
            raise ConfigError(f"variable {self.name!r} has dtype {self.dtype!r}; choose from {', '.join(_DTYPES)}")


@dataclass(frozen=True, eq=False)
class SeriesSpec:
    """All that is known of a series before its first row.

    Raises
    ------
    ConfigError
        If a name is taken twice, a dimension is not declared, or a static array has
        another shape than its axes.
    """

    axes: tuple[Axis, ...]
    streams: tuple[Stream, ...]
    variables: tuple[Variable, ...]
    attrs: Attributes = field(default_factory=dict)

    def __post_init__(self) -> None:
        streams = tuple(Stream(s.name, s.units, s.long_name) for s in self.streams)
        object.__setattr__(self, "streams", streams)
        object.__setattr__(self, "attrs", check_attributes("a series", self.attrs, RESERVED))
        seen: set[str] = set()
        for name in [a.name for a in self.axes] + [s.name for s in streams] + [v.name for v in self.variables]:
            if name in seen:
                raise ConfigError(f"the name {name!r} is taken twice in a series")
            seen.add(name)
        for variable in self.variables:
            self._check_variable(variable)

    def _check_variable(self, variable: Variable) -> None:
        sizes = {axis.name: len(axis.values) for axis in self.axes}
        dims = variable.dims
        if variable.values is None:
            names = [s.name for s in self.streams]
            if not dims or dims[0] not in names:
                raise ConfigError(f"recorded variable {variable.name!r} needs a stream as first dimension, got {dims}")
            dims = dims[1:]
        missing = [d for d in dims if d not in sizes]
        if missing:
            raise ConfigError(f"variable {variable.name!r} lies over {missing[0]!r}, which is no axis of the series")
        shape = tuple(sizes[d] for d in dims)
        if variable.values is not None and variable.values.shape != shape:
            raise ConfigError(f"variable {variable.name!r} has shape {variable.values.shape}, its axes have {shape}")
        if len(set(dims)) != len(dims):
            raise ConfigError(f"variable {variable.name!r} lies twice over one axis: {dims}")

    @property
    def recorded(self) -> tuple[Variable, ...]:
        """Variables that grow."""
        return tuple(v for v in self.variables if v.values is None)

    def row_shape(self, variable: Variable) -> tuple[int, ...]:
        """Shape of one row of a recorded variable."""
        sizes = {axis.name: len(axis.values) for axis in self.axes}
        return tuple(sizes[d] for d in variable.dims[1:])

    def describe(self) -> dict[str, Any]:
        """JSON form; fixed arrays by shape, dtype and digest."""
        return {
            "streams": [{"name": s.name, "units": s.units, "long_name": s.long_name} for s in self.streams],
            "axes": [_described(a) for a in self.axes],
            "variables": [_described(v) for v in self.variables],
            "attrs": dict(self.attrs),
        }

    def fixed_arrays(self) -> dict[str, AnyArray]:
        """Axes and static variables by name."""
        static = {v.name: v.values for v in self.variables if v.values is not None}
        return {a.name: a.values for a in self.axes} | static

    @classmethod
    def restore(cls, described: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> SeriesSpec:
        """Inverse of `describe` and `fixed_arrays`."""
        words = ("name", "units", "long_name")
        axes = tuple(Axis(values=arrays[a["name"]], **{w: a[w] for w in words}) for a in described["axes"])
        streams = tuple(Stream(**{w: s[w] for w in words}) for s in described["streams"])
        variables = tuple(
            Variable(
                dims=tuple(v["dims"]),
                values=arrays[v["name"]] if "sha256" in v else None,
                dtype=v["dtype"],
                **{w: v[w] for w in words},
            )
            for v in described["variables"]
        )
        return cls(axes, streams, variables, described["attrs"])


def _check_words(item: Axis | Stream | Variable) -> None:
    check_text(f"units of {item.name!r}", item.units)
    check_text(f"long_name of {item.name!r}", item.long_name)


def _described(item: Axis | Variable) -> dict[str, Any]:
    found: dict[str, Any] = {"name": item.name, "units": item.units, "long_name": item.long_name}
    if isinstance(item, Variable):
        found |= {"dims": list(item.dims), "dtype": item.dtype}
    if item.values is not None:
        found |= {"shape": list(item.values.shape), "sha256": digest(item.values)}
    return found


@dataclass(frozen=True, eq=False)
class RestartState:
    """What a computation needs to go on bit for bit: named arrays, and JSON values in `meta`.

    Raises
    ------
    ConfigError
        If a name cannot stand in a file, an array has no storable type, or `meta` is not JSON.
    """

    arrays: Mapping[str, AnyArray]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            check_name("restart array", name)
            kind = np.asarray(array).dtype.kind
            if kind not in "fiub":
                raise ConfigError(f"restart array {name!r} has dtype {np.asarray(array).dtype}")
        try:
            json.dumps(dict(self.meta))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the restart state's meta is not JSON: {error}") from None


def check_attributes(what: str, attrs: Attributes, reserved: tuple[str, ...] = ()) -> dict[str, str | int | float]:
    """Return `attrs` as plain str, int and float, or raise `ConfigError`."""
    plain: dict[str, str | int | float] = {}
    for name, value in attrs.items():
        check_name(f"attribute of {what}", name)
        if name in reserved:
            raise ConfigError(f"attribute {name!r} of {what} is set by the file layer")
        scalar = value.item() if isinstance(value, np.generic) else value
        if isinstance(scalar, bool):
            scalar = int(scalar)
        if not isinstance(scalar, (str, int, float)):
            raise ConfigError(f"attribute {name!r} of {what} must be text or a number, got {type(value).__name__}")
        if isinstance(scalar, str):
            check_text(f"attribute {name!r} of {what}", scalar)
        elif isinstance(scalar, int) and not -(2**63) <= scalar < 2**63:
            raise ConfigError(f"attribute {name!r} of {what} is out of range for a 64-bit integer")
        plain[name] = scalar
    return plain


def checked_columns(label: str, given: Mapping[str, Any]) -> dict[str, AnyArray]:
    """Return table columns in storable form, or raise `ConfigError`."""
    if not given:
        raise ConfigError(f"table {label!r} has no columns")
    table = {}
    for name, values in given.items():
        check_name("column", name)
        if name == "row":
            raise ConfigError(f"table {label!r}: 'row' is the name of the axis, no column may have it")
        table[name] = storable(f"column {name!r}", values).copy()
        if table[name].ndim != 1:
            raise ConfigError(f"column {name!r} has shape {table[name].shape}, expected (n,)")
    first = next(iter(table))
    for name, values in table.items():
        if len(values) != len(table[first]):
            raise ConfigError(f"columns {first!r} and {name!r} have lengths {len(table[first])} and {len(values)}")
    return table


def checked_verdict(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a verdict as text, floats and the bool `passed`, or raise `ConfigError`."""
    verdict = {}
    for name, value in row.items():
        check_name("verdict field", name)
        scalar = value.item() if isinstance(value, np.generic) else value
        if not isinstance(scalar, (str, int, float)):
            raise ConfigError(f"verdict field {name!r} must be text or a number, got {type(value).__name__}")
        if name in _VERDICT_TEXT and not isinstance(scalar, str):
            raise ConfigError(f"verdict field {name!r} must be text, got {scalar!r}")
        verdict[name] = scalar if isinstance(scalar, (str, bool)) else float(scalar)
        if isinstance(scalar, str):
            check_text(f"verdict field {name!r}", scalar)
    verdict["passed"] = bool(verdict.get("passed", verdict.get("status") != "fails"))
    return verdict
