"""The Kuhn mesh of a box: nodes of a tensor grid, every cell cut into d! simplices along its main diagonal.

Of a cell with fractions z in [0, 1]^d, the simplex of z is named by the order of its coordinates. The piecewise-linear
hat function of node i is, with z counted from the node in cells,

    phi_i = relu(1 - max(0, z_1 .. z_d) + min(0, z_1 .. z_d)),

and the phi_i sum to 1 on the box.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, positive_int, shown
from meanfield.errors import ConfigError
from meanfield.kernels.relu import interpolate

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class KuhnMesh:
    """Kuhn mesh of the box [lo_1, hi_1] x .. x [lo_d, hi_d].

    Parameters
    ----------
    lo, hi
        Corners, (d,), lo < hi; a number stands for one axis.
    cells
        Cells along every axis, (d,) integers >= 1, or one for all.

    Raises
    ------
    ConfigError
        For corners that do not span a box, or cells out of range.
    """

    lo: Array
    hi: Array
    cells: Integers

    def __post_init__(self) -> None:
        lo, hi = checked_box("box", (self.lo, self.hi))
        given = np.atleast_1d(np.asarray(self.cells)).tolist()
        counts = [positive_int("cells", c) for c in (given * len(lo) if len(given) == 1 else given)]
        if len(counts) != len(lo):
            raise ConfigError(f"cells has length {len(counts)}, but the box has {len(lo)} axes")
        for name, value in (("lo", lo), ("hi", hi), ("cells", np.array(counts, dtype=np.int64))):
            object.__setattr__(self, name, value)

    @property
    def dim(self) -> int:
        """Dimension d."""
        return len(self.lo)

    @property
    def width(self) -> Array:
        """Lengths of a cell, (d,)."""
        return np.asarray((self.hi - self.lo) / self.cells)

    @property
    def shape(self) -> tuple[int, ...]:
        """Nodes along every axis."""
        return tuple((self.cells + 1).tolist())

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return math.prod(self.shape)

    def nodes(self) -> Array:
        """Places of the nodes, (d, nodes), the last axis fastest."""
        check_memory(f"a mesh of {self.n_nodes} nodes", 24 * self.dim * self.n_nodes)
        axes = [np.linspace(a, b, c + 1) for a, b, c in zip(self.lo, self.hi, self.cells, strict=True)]
        return np.stack([part.ravel() for part in np.meshgrid(*axes, indexing="ij")])

    def refined(self, factor: int = 2) -> KuhnMesh:
        """Mesh with `factor` times as many cells along every axis; its nodes hold those of this one."""
        return KuhnMesh(self.lo, self.hi, self.cells * positive_int("factor", factor))

    def interpolate(self, values: Array, x: Any) -> Array:
        """Piecewise-linear interpolant of nodal values (m, nodes) at points x (d, n), (m, n).

        Outside the box the value is that at the nearest point of the box.
        """
        points = finite_array("x", x, shape=(self.dim, None))
        rows = np.ascontiguousarray(finite_array("values", values, shape=(None, self.n_nodes)).T)
        out = np.empty((rows.shape[1], points.shape[1]))
        interpolate(self.lo, 1.0 / self.width, self.cells, rows.ravel(), points, out)
        return out

    def lipschitz(self, values: Array) -> float:
        """Bound of the Lipschitz constant, maximum norm, of the interpolant of values (m, nodes).

        On a simplex the derivative along axis j is the slope of one of its edges; the bound takes in every cell the
        steepest of the parallel edges, and is the constant itself on the line.
        """
        return float(np.sum([self._steepest(np.abs, values, axis) for axis in range(self.dim)], axis=0).max())

    def one_sided(self, values: Array) -> float:
        """Bound of the logarithmic norm max_i (J_ii + sum_j |J_ij|), maximum norm, over cells; values (d, nodes).

        Solutions of x' = g(x) part at most like e^{mu t}, mu this bound for g; it is negative where they draw near.
        """
        total = np.full((self.dim, *self.cells.tolist()), 0.0)
        for axis in range(self.dim):
            steep = self._steepest(np.abs, values, axis)
            steep[axis] = self._steepest(np.positive, values[axis : axis + 1], axis)[0]
            total += steep
        return float(total.max())

    def _steepest(self, size: Callable[[Array], Array], values: Array, axis: int) -> Array:
        """Largest slope along an axis of the 2^(d-1) parallel edges of every cell, (m, cells .. cells)."""
        slopes = size(np.diff(values.reshape(-1, *self.shape), axis=1 + axis) / self.width[axis])
        for other in range(self.dim):
            if other != axis:
                low, high = (np.take(slopes, range(k, slopes.shape[1 + other] - 1 + k), 1 + other) for k in (0, 1))
                slopes = np.maximum(low, high)
        return slopes

    def bends(self, values: Array) -> Array:
        """Largest second difference of values (m, nodes) at every node along axes and diagonal, (nodes,).

        An eighth of it is the error of linear interpolation of a quadratic function in the middle of an edge.
        """
        grid = values.reshape(-1, *self.shape)
        found = np.zeros(self.shape)
        steps = [tuple(int(i == axis) for i in range(self.dim)) for axis in range(self.dim)]
        for step in {*steps, (1,) * self.dim}:
            if any(2 * s >= n for s, n in zip(step, self.shape, strict=True)):
                continue
            at = [tuple(slice(k * s, n - (2 - k) * s) for s, n in zip(step, self.shape, strict=True)) for k in range(3)]
            second = np.abs(grid[:, *at[0]] - 2.0 * grid[:, *at[1]] + grid[:, *at[2]]).max(axis=0)
            found[at[1]] = np.maximum(found[at[1]], second)
        return found.ravel()

    def middles(self, nodes: Integers) -> Array:
        """Middles of the edges out of some nodes (k,), forward along every corner of a cell, (d, k (2^d - 1))."""
        index = np.stack(np.unravel_index(nodes, self.shape))
        half = [0.5 * np.array(s)[:, None] for s in itertools.product((0, 1), repeat=self.dim) if any(s)]
        places = np.concatenate([np.minimum(index + s, self.cells[:, None]) for s in half], axis=1)
        return np.asarray(self.lo[:, None] + places * self.width[:, None])


def checked_box(name: str, box: Any) -> tuple[Array, Array]:
    """Corners (d,), (d,) of a box given as a pair of corners, numbers for d = 1.

    Raises
    ------
    ConfigError
        If it is no pair, the corners differ in length, or some axis is empty.
    """
    if not isinstance(box, Sequence | np.ndarray) or len(box) != 2:
        raise ConfigError(f"{name} must be a pair (lo, hi) of corners, got {shown(box)}")
    lo, hi = (np.atleast_1d(finite_array(f"{name} corner", corner)) for corner in box)
    if lo.ndim != 1 or lo.shape != hi.shape:
        raise ConfigError(f"corners of {name} have shapes {lo.shape} and {hi.shape}, expected (d,) twice")
    if not (lo < hi).all():
        axis = int(np.argmin(hi - lo))
        raise ConfigError(f"{name} is empty along axis {axis}: from {lo[axis]:g} to {hi[axis]:g}")
    return lo, hi
