"""What models of a density on cells have in common: the state, its mass and law, and how it is written to files."""

from __future__ import annotations

from typing import NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from meanfield.cells import Cells
from meanfield.errors import ConfigError, NumericalError
from meanfield.fields import Field
from meanfield.laws import Law
from meanfield.storage.layout import Axis
from meanfield.velocities import Velocity

Array = NDArray[np.float64]


class _Carried(Protocol):
    """A density on cells that a velocity carries."""

    @property
    def cells(self) -> Cells: ...
    @property
    def velocity(self) -> Velocity: ...


class DensityOnCells:
    """Base of models whose state is a density, means over cells, carried by a velocity; both are attributes."""

    def check_dimensions(self: _Carried) -> None:
        """Raise `ConfigError` unless the velocity has the dimension of the cells."""
        if self.velocity.dim != self.cells.dim:
            raise ConfigError(f"the velocity has dimension {self.velocity.dim}, but the cells {self.cells.dim}")

    @property
    def shape(self: _Carried) -> tuple[int, ...]:
        """Shape of the state, that of the cells."""
        return self.cells.shape

    @property
    def breakpoints(self: _Carried) -> Array:
        """Depths at which a parameter is not smooth."""
        return self.velocity.breakpoints

    def check(self: _Carried, y: Array) -> None:
        """Raise `ConfigError` unless a state is a density: of the right shape and nowhere negative."""
        self.cells.checked(y)

    @staticmethod
    def refuse_step(t: float, dt: float, longest: float) -> NoReturn:
        """Raise `NumericalError` for a step from depth t that is longer than the longest one."""
        raise NumericalError(
            f"dt = {dt!r} breaks the CFL condition at t={t!r}: at most {longest:.6g}; give a smaller dt, or knots "
            "where the parameters change fast"
        )

    def mass(self: _Carried, y: Array) -> float:
        """Total mass of a state."""
        return self.cells.mass(y)

    def law(self: _Carried, y: Array, axis: int = 0) -> Law:
        """Law of a state on the line, or its marginal along an axis."""
        return self.cells.law(y, axis)

    def fields(self: _Carried, y: Array) -> dict[str, Field]:
        """Density of a state over the cells."""
        axes = tuple(axis.name for axis in self.cells.axes())
        return {"density": Field(y, axes, units="1", long_name="density of activations")}

    def axes(self: _Carried) -> tuple[Axis, ...]:
        """Coordinates of the axes that `fields` names: the centres of the cells."""
        return self.cells.axes()
