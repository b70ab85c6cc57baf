"""Meshes of neuron labels that follow a field: equidistribution of a monitor function.

Every cell of an equidistributed mesh carries the same mass of the monitor

    M(x) = 1 + strength s(x)/mean(s)

with s the slope |d_x z|, or |d_xx z|^(2/5), which makes the L2 error of linear interpolation
least (Huang, Russell, "Adaptive moving mesh methods", Springer 2011), root mean squares
over samples. The share strength/(1 + strength) of the nodes stands where z varies, whatever
its scale. Smoothed over the neighbours, cells next to each other differ in length by at
most the factor 1 + 1/reach (Dorfi, Drury, "Simple adaptive grids for 1-D initial value
problems", J. Comput. Phys. 69, 1987).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float, one_of, positive_int
from meanfield.errors import ConfigError
from meanfield.kernels.mesh import equidistributed

Array = NDArray[np.float64]

# Rounds of moving the nodes and looking at the field again.
_ROUNDS = 50


@dataclass(frozen=True)
class Equidistribution:
    """Mesh velocity towards the equidistributed mesh, d_t x = (X(x, z) - x)/time.

    The target X is increasing where x is, and Euler steps dt <= time take a convex combination of both:
    no cell becomes shorter than the shortest of x and X, and nodes never cross.

    Parameters
    ----------
    monitor
        ``"slope"`` or ``"curvature"``.
    strength
        Nodes where z varies against nodes elsewhere, >= 0; 0 is the uniform mesh.
    reach
        Indices over which the monitor is smoothed, >= 0.
    time
        Depth within which the mesh relaxes, > 0; explicit steps need dt <= time.

    Raises
    ------
    ConfigError
        For values out of range.
    """

    monitor: str = "curvature"
    strength: float = 4.0
    reach: float = 2.0
    time: float = 0.02

    def __post_init__(self) -> None:
        one_of("monitor", self.monitor, ("slope", "curvature"))
        finite_float("strength", self.strength, least=0.0)
        finite_float("reach", self.reach, least=0.0)
        finite_float("time", self.time, above=0.0)

    def target(self, x: Array, z: Array, period: float = math.inf) -> Array:
        """Equidistributed mesh X (N,) for lines z (n, N) over the mesh x (N,)."""
        found, work = np.empty_like(x), np.empty(len(x) if math.isfinite(period) else len(x) - 1)
        equidistributed(x, period, z, self.monitor == "curvature", self.strength, self.reach, work, found)
        return found

    def velocity(self, x: Array, z: Array, period: float = math.inf) -> Array:
        """Mesh velocity (N,), for lines z (n, N) over the mesh x (N,); zero at the ends of an interval."""
        found = self.target(x, z, period)
        found -= x
        found *= 1.0 / self.time
        return found


def adapted_nodes(
    function: Callable[[Array], Array], n: int, *, periodic: bool = False, mesh: Equidistribution | None = None
) -> Array:
    """Nodes of [0, 1], ends included, or of the circle of length 1, on which a field is equidistributed.

    Parameters
    ----------
    function
        Field of labels, (N,) to (N,) or (n, N).
    n
        Number of nodes, >= 3.
    mesh
        Strength and reach; None for the defaults.

    Returns
    -------
    Array
        (n,), increasing.

    Raises
    ------
    ConfigError
        For fewer than three nodes, or a field that is not finite.
    """
    if positive_int("n", n) < 3:
        raise ConfigError(f"a mesh needs n >= 3 nodes, got n = {n}")
    mesh, period = mesh or Equidistribution(), 1.0 if periodic else math.inf
    x = np.arange(n) / n if periodic else np.arange(n) / (n - 1)
    for _ in range(_ROUNDS):
        z = finite_array("field", np.atleast_2d(function(x)), shape=(None, n))
        # Half way each time: the field is known better where the nodes have gone.
        x = 0.5 * (x + mesh.target(x, z, period))
    return x
