"""A user's own right-hand side as a model: the slow, general entry point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array
from meanfield.errors import ConfigError
from meanfield.fields import Field
from meanfield.storage.layout import Axis

Array = NDArray[np.float64]


class FunctionModel:
    """d_t y = f(t, y) for a Python callable; it runs at the speed of NumPy.

    Parameters
    ----------
    function
        ``f(t, y) -> array`` of the shape of y.
    shape
        Shape of the state.
    breakpoints
        Depths at which f is not smooth.

    Raises
    ------
    ConfigError
        From `rate`, if f returns another shape or complex numbers.
    """

    def __init__(self, function: Callable[[float, Array], Any], shape: tuple[int, ...], breakpoints: Any = ()) -> None:
        self.function = function
        self.shape = tuple(shape)
        self.breakpoints = np.unique(finite_array("breakpoints", np.asarray(breakpoints, dtype=np.float64)))

    def rate(self, t: float, y: Array, out: Array) -> None:
        """Fill out with f(t, y)."""
        value = np.asarray(self.function(t, y))
        if value.shape != self.shape:
            raise ConfigError(f"the rate has shape {value.shape}, but the state has shape {self.shape}")
        if value.dtype.kind == "c":
            raise ConfigError("the rate is complex; split it into real and imaginary parts")
        out[...] = value

    def describe(self) -> dict[str, Any]:
        """What determines the model, for digests of runs."""
        return {
            "model": "FunctionModel",
            "function": self.function,
            "shape": list(self.shape),
            "breakpoints": self.breakpoints,
        }

    def fields(self, y: Array) -> dict[str, Field]:
        """Return the state itself, over numbered axes."""
        return {"y": Field(y, tuple(axis.name for axis in self.axes()), long_name="state")}

    def axes(self) -> tuple[Axis, ...]:
        """Numbered axes of the state."""
        return tuple(
            Axis(f"component_{d}", np.arange(extent), long_name=f"index {d} of the state")
            for d, extent in enumerate(self.shape)
        )
