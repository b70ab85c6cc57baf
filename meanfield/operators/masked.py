"""Local kernels: only pairs of labels near each other, or named by a mask, interact."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, finite_float
from meanfield.errors import ConfigError
from meanfield.grids import Grid
from meanfield.operators.base import IntegralOperator

Array = NDArray[np.float64]

# Bytes of a stored pair: its value, its column, and a copy of both while the matrix is made.
_PAIR_BYTES = 48


class Masked(IntegralOperator):
    """Integral operator with a sparse kernel, w(x, y) m(x, y), m = 0 or 1.

    Time and memory O(number of pairs that interact).

    Parameters
    ----------
    grid
        Grid of the labels.
    kernel
        A `RadialKernel` or a NumPy-vectorised callable w(x, y), evaluated at the pairs that interact.
    radius
        m = 1 where |x - y| <= radius, on a periodic grid by the shortest way.
    mask
        Instead of `radius`: m as a SciPy sparse matrix or an array of booleans, (N, N).
    local
        Coefficient of the local part.

    Raises
    ------
    ConfigError
        If not exactly one of radius and mask is given, for a mask of another shape, or values not finite.
    ResourceError
        If the pairs do not fit into memory.
    """

    kind = "masked"

    def __init__(
        self, grid: Grid, kernel: Any, *, radius: float | None = None, mask: Any = None, local: float = 0.0
    ) -> None:
        super().__init__(grid, local)
        if (radius is None) == (mask is None):
            raise ConfigError("give either radius or mask")
        if not callable(kernel):
            raise ConfigError("kernel must be a RadialKernel or a callable w(x, y)")
        from scipy.sparse import csr_array  # noqa: PLC0415  (scipy only where it is needed)

        n = grid.n_nodes
        pairs = _near(grid, finite_float("radius", radius, above=0.0)) if mask is None else _named(mask, n)
        rows, columns = pairs
        values = np.broadcast_to(np.asarray(kernel(grid.nodes[rows], grid.nodes[columns])), rows.shape)
        self._kernel = csr_array((finite_array("kernel", values), (rows, columns)), shape=(n, n))
        self._matrix = csr_array(self._kernel.multiply(grid.weights[None, :]))
        self._adjoint = csr_array(self._kernel.T.multiply(grid.weights[None, :]))

    @property
    def n_pairs(self) -> int:
        """Number of pairs (x, y) that interact."""
        return int(self._kernel.nnz)

    def _product(self, z: Array, out: Array) -> None:
        out[...] = (self._matrix @ z.T).T

    def _adjoint_product(self, p: Array, out: Array) -> None:
        out[...] = (self._adjoint @ p.T).T

    def kernel_matrix(self) -> Array:
        """Kernel values w(x_i, x_j) m(x_i, x_j), (N, N)."""
        n = self.grid.n_nodes
        check_memory(f"a dense kernel of {n} x {n}", 8 * n * n)
        return np.asarray(self._kernel.toarray())

    def norm(self) -> float:
        """Hilbert-Schmidt norm of the kernel."""
        q = self.grid.weights
        return math.sqrt(float(q @ (self._kernel.power(2) @ q)))

    def _details(self) -> dict[str, Any]:
        matrix = self._kernel
        return {"values": matrix.data, "columns": matrix.indices, "rows": matrix.indptr}


def _near(grid: Grid, radius: float) -> tuple[Any, Any]:
    """Rows and columns of all pairs within the radius, each label with itself included."""
    from scipy.spatial import cKDTree  # noqa: PLC0415  (scipy only where it is needed)

    points = grid.nodes.reshape(grid.n_nodes, -1)
    period = grid.period
    tree = cKDTree(points % np.array(period), boxsize=period) if period else cKDTree(points)
    count = int(tree.count_neighbors(tree, radius))
    check_memory(f"a kernel of {count} pairs", _PAIR_BYTES * count)
    pairs = tree.query_pairs(radius, output_type="ndarray")
    own = np.arange(grid.n_nodes)
    return np.concatenate([pairs[:, 0], pairs[:, 1], own]), np.concatenate([pairs[:, 1], pairs[:, 0], own])


def _named(mask: Any, n: int) -> tuple[Any, Any]:
    from scipy.sparse import coo_array, issparse  # noqa: PLC0415  (scipy only where it is needed)

    if np.shape(mask) != (n, n):
        raise ConfigError(f"mask has shape {np.shape(mask)}, expected ({n}, {n})")
    found = coo_array(mask if issparse(mask) else np.asarray(mask) != 0)
    check_memory(f"a kernel of {found.nnz} pairs", _PAIR_BYTES * found.nnz)
    kept = found.data != 0
    return found.coords[0][kept], found.coords[1][kept]
