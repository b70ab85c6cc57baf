"""The continuity equation on the line in Lagrangian cells: their edges move with the velocity, their masses stay.

    d_t X_k = v(t, X_k),   m_k = const,      density m_k / (X_{k+1} - X_k) in cell k

Cells follow a law that concentrates: nothing is lost when it is thinner than any fixed grid,
down to the spacing of floating-point numbers. The distance to the exact law is O(1/K^2) for K cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array
from meanfield.errors import ConfigError
from meanfield.fields import Field
from meanfield.laws import Law
from meanfield.schemes import Scheme, StepGrid
from meanfield.storage.layout import Axis
from meanfield.velocities import Velocity

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LagrangianCells:
    """Moving cells of constant mass; the state is the edges X (K + 1,).

    Parameters
    ----------
    velocity
        v, of dimension 1.
    masses
        m_k >= 0 with sum 1, (K,).

    Raises
    ------
    ConfigError
        For velocities in more dimensions, or masses that are negative or do not sum to 1.
    """

    velocity: Velocity
    masses: Array

    def __post_init__(self) -> None:
        if self.velocity.dim != 1:
            raise ConfigError(f"Lagrangian cells need a velocity on the line, got dimension {self.velocity.dim}")
        masses = finite_array("masses", self.masses, shape=(None,))
        if (masses < 0.0).any() or not abs(float(masses.sum()) - 1.0) <= 1e-9:
            raise ConfigError(f"masses must be >= 0 with sum 1, got sum {float(masses.sum())!r}")
        object.__setattr__(self, "masses", masses)

    @classmethod
    def start(cls, velocity: Velocity, cdf: Callable[[Array], Any], edges: Any) -> tuple[LagrangianCells, Array]:
        """Cells with those edges (K + 1,) and the masses of a distribution function, and the state to start from.

        What lies beyond the first and the last edge is added to the first and the last cell.
        """
        edges = finite_array("edges", edges, shape=(None,))
        if not (np.diff(edges) > 0.0).all():
            raise ConfigError("edges must increase strictly")
        level = finite_array("cdf", np.asarray(cdf(edges)), shape=edges.shape).copy()
        level[0], level[-1] = 0.0, 1.0
        return cls(velocity, np.diff(level)), edges

    @property
    def shape(self) -> tuple[int]:
        """Shape of the state, (K + 1,)."""
        return (len(self.masses) + 1,)

    @property
    def breakpoints(self) -> Array:
        """Depths at which a parameter is not smooth."""
        return self.velocity.breakpoints

    def rate(self, t: float, y: Array, out: Array) -> None:
        """Fill out with the velocity of the edges."""
        self.velocity.value(t, y[None], out[None])

    def fused(self, scheme: Scheme) -> bool:  # noqa: ARG002 (every scheme has the compiled path)
        """Whether `advance` has a compiled path for the scheme: always."""
        return True

    def advance(self, scheme: Scheme, grid: StepGrid, first: int, count: int, y: Array, out: Array) -> None:
        """Fill out with the state after `count` steps of a step grid, from y before them; see `Velocity.carry`."""
        self.velocity.carry(scheme, grid, first, count, y[None], out[None])

    def law(self, y: Array) -> Law:
        """Law of a state; edges that round-off put out of order count as equal."""
        return Law.cells(np.maximum.accumulate(y), self.masses)

    def density(self, y: Array) -> Array:
        """Density m_k / (X_{k+1} - X_k) of each cell, (K,); infinite where a cell has shrunk to a point."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(self.masses > 0.0, self.masses / np.diff(y), 0.0))

    def fields(self, y: Array) -> dict[str, Field]:
        """Edges of the cells."""
        return {"x": Field(y, ("edge",), units="1", long_name="edge of a cell")}

    def static_fields(self) -> dict[str, Field]:
        """Masses of the cells, which do not change."""
        return {"mass": Field(self.masses, ("cell",), units="1", long_name="mass of a cell")}

    def axes(self) -> tuple[Axis, ...]:
        """Coordinates of the axes that `fields` names."""
        n = len(self.masses)
        return (
            Axis("edge", np.arange(n + 1), units="1", long_name="index of the edge"),
            Axis("cell", np.arange(n), units="1", long_name="index of the cell"),
        )

    def describe(self) -> dict[str, Any]:
        """What determines the model, for digests of runs."""
        return {"model": "LagrangianCells", "velocity": self.velocity, "masses": self.masses}
