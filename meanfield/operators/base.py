"""Integral operators over neuron labels: what every kind provides.

    (W z)(x) = local z(x) + int_Omega w(x, y) z(y) dy
             ~ local z_i + sum_j q_j w(x_i, x_j) z_j

The matrix entry is the quadrature weight times the kernel (mean-field scaling). The
adjoint is that of L2(q): W*_ij = q_j w_ji + local delta_ij.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, finite_float
from meanfield.errors import ConfigError
from meanfield.grids import Grid

Array = NDArray[np.float64]

# Dense decompositions up to this many labels; Krylov iterations beyond.
_DENSE_LIMIT = 600


class IntegralOperator(ABC):
    """Integral operator on a grid, applied to fields (N,) or (n, N), samples first."""

    kind = "abstract"

    def __init__(self, grid: Grid, local: float) -> None:
        self.grid = grid
        self.local = finite_float("local", local)

    @abstractmethod
    def _product(self, z: Array, out: Array) -> None:
        """Fill out (n, N) with the integral part applied to z (n, N)."""

    @abstractmethod
    def _adjoint_product(self, p: Array, out: Array) -> None:
        """Fill out (n, N) with the adjoint of the integral part applied to p (n, N)."""

    @abstractmethod
    def norm(self) -> float:
        """Hilbert-Schmidt norm of the kernel, (sum_ij q_i q_j w_ij^2)^(1/2); the local part aside."""

    @abstractmethod
    def kernel_matrix(self) -> Array:
        """Kernel values w(x_i, x_j), (N, N)."""

    @abstractmethod
    def _details(self) -> dict[str, Any]:
        """What determines the operator beside its kind, grid and local part."""

    def describe(self) -> dict[str, Any]:
        """What determines the operator, for digests of runs."""
        return {"kind": self.kind, "grid": self.grid.describe(), "local": self.local} | self._details()

    def apply(self, z: Array, out: Array | None = None) -> Array:
        """W z for a field (N,) or fields (n, N); `out` must not overlap z.

        Raises
        ------
        ConfigError
            If z is not a float64 array over the labels of the grid.
        """
        return self._run(self._product, z, out)

    def apply_adjoint(self, p: Array, out: Array | None = None) -> Array:
        """W* p in L2(q), for a field (N,) or fields (n, N); `out` must not overlap p."""
        return self._run(self._adjoint_product, p, out)

    def _run(self, product: Any, z: Array, out: Array | None) -> Array:
        if not isinstance(z, np.ndarray) or z.dtype != np.float64 or not z.flags.c_contiguous:
            z = finite_array("z", z)
        n_nodes = self.grid.n_nodes
        if z.ndim not in (1, 2) or z.shape[-1] != n_nodes:
            raise ConfigError(f"z has length {z.shape}, but the grid has length {n_nodes}")
        if out is None:
            out = np.empty_like(z)
        product(z.reshape(-1, n_nodes), out.reshape(-1, n_nodes))
        if self.local:
            out += self.local * z
        return out

    def dense(self) -> Array:
        """Layer matrix W_ij = q_j w_ij + local delta_ij, (N, N)."""
        n = self.grid.n_nodes
        check_memory(f"a dense matrix of {n} x {n}", 16 * n * n)
        matrix = self.kernel_matrix() * self.grid.weights
        matrix[np.diag_indices(n)] += self.local
        return matrix

    def operator_norm(self) -> float:
        """Norm of W on L2(q), local part included: the largest singular value of Q^(1/2) W Q^(-1/2)."""
        n = self.grid.n_nodes
        root = np.sqrt(self.grid.weights)
        if n <= _DENSE_LIMIT:
            return float(np.linalg.norm(root[:, None] * self.dense() / root, 2))
        from scipy.sparse.linalg import LinearOperator, eigsh  # noqa: PLC0415  (only for large N)

        def squared(v: Array) -> Array:
            image = self.apply(np.ascontiguousarray(v.ravel() / root))
            return np.asarray(root * self.apply_adjoint(image))

        start = np.random.default_rng(0).standard_normal(n)
        values = eigsh(LinearOperator((n, n), matvec=squared), k=1, v0=start, tol=1e-13, return_eigenvectors=False)
        return float(np.sqrt(max(values[0], 0.0)))


def sampled_kernel(name: str, grid: Grid, kernel: Any) -> Array:
    """Kernel values (N, N) from an array, or from a callable w(x, y) that broadcasts.

    In one dimension the callable gets x (N, 1) and y (1, N); in D dimensions
    x (N, 1, D) and y (1, N, D).
    """
    n = grid.n_nodes
    check_memory(f"a dense kernel of {n} x {n}", 24 * n * n)
    if not callable(kernel):
        return finite_array(name, kernel, shape=(n, n))
    return kernel_block(name, grid, kernel, 0, n)


def kernel_block(name: str, grid: Grid, kernel: Any, start: int, stop: int) -> Array:
    """Rows start .. stop - 1 of the kernel values of a callable, (stop - start, N), as `sampled_kernel` has them."""
    shape = (stop - start, grid.n_nodes)
    values = np.asarray(kernel(grid.nodes[start:stop, None], grid.nodes[None, :]))
    try:
        values = np.broadcast_to(values, shape)
    except ValueError:
        raise ConfigError(f"{name} returned shape {values.shape}, expected {shape}") from None
    return finite_array(name, values)
