"""Formulas at any points: kernels w(x, y) or w(t, x, y), fields b(x) or b(t, x), strengths K(x_1, x_2, ...)."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, shown
from meanfield.errors import ConfigError
from meanfield.operators.radial import RadialKernel

Array = NDArray[np.float64]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def kernel_between(kernel: Any, t: float, x: Array, y: Array) -> Array:
    """Kernel values w(t, x_i, y_j), (M, N), at labels x (M,) or (M, D) and y (N,) or (N, D)."""
    shape = (len(x), len(y))
    check_memory(f"a kernel of {shape[0]} x {shape[1]}", 24 * shape[0] * shape[1])
    pair = x[:, None], y[None, :]
    return _values("kernel", kernel(*pair) if arity(kernel) == 2 else kernel(t, *pair), shape)


def field_at(name: str, field: Any, t: float, x: Array) -> Array:
    """Field (N,) at labels x (N,) or (N, D): a number, values (N,), or a callable of x or of t and x."""
    if callable(field):
        field = field(x) if arity(field) == 1 else field(t, x)
    return _values(name, field, x.shape[:1])


def strength_at(amplitude: Any, points: Array) -> Array:
    """Strength K (n,) at points (D, n): a number, or a callable of the coordinates; not looked at for being finite.

    Raises
    ------
    ConfigError
        For a callable that returns another shape.
    """
    found = np.asarray(amplitude(*points) if callable(amplitude) else amplitude, dtype=np.float64)
    if found.shape not in ((), points.shape[1:]):
        raise ConfigError(f"amplitude returned shape {found.shape}, expected {points.shape[1:]}")
    return np.broadcast_to(found, points.shape[1:])


def _values(name: str, found: Any, shape: tuple[int, ...]) -> Array:
    values = np.asarray(found)
    try:
        values = np.broadcast_to(values, shape)
    except ValueError:
        raise ConfigError(f"{name} returned shape {values.shape}, expected {shape}") from None
    return finite_array(name, values)


def arity(function: Any) -> int:
    """Number of arguments a callable must be given; looking is slow, so it is remembered."""
    try:
        return _remembered_arity(function)
    except TypeError:  # not hashable
        return _arity(function)


def _arity(function: Any) -> int:
    if isinstance(function, RadialKernel):
        return 2
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a NumPy function may have no signature
        return int(getattr(function, "nin", 0))
    return sum(p.kind in _POSITIONAL and p.default is p.empty for p in parameters)


_remembered_arity = functools.lru_cache(maxsize=64)(_arity)


def check_kernel(kernel: Any, nodes: Array) -> None:
    """Raise `ConfigError` unless the kernel is a formula for labels of that dimension."""
    if isinstance(kernel, RadialKernel):
        kernel.points(nodes)
    elif not callable(kernel) or arity(kernel) not in (2, 3):
        raise ConfigError(f"kernel must be a callable w(x, y) or w(t, x, y), got {shown(kernel)}")
