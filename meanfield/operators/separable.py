"""Kernels of finite rank, w(x, y) = sum_r left_r(x) right_r(y): O(N r) time and memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, one_of
from meanfield.errors import ConfigError
from meanfield.grids import Grid
from meanfield.operators.base import IntegralOperator
from meanfield.parallel import blas_single_thread

Array = NDArray[np.float64]


class Separable(IntegralOperator):
    """Integral operator of rank r.

    Parameters
    ----------
    grid
        Grid of the labels.
    left, right
        Factors at the labels, (r, N) each.
    local
        Coefficient of the local part.
    storage
        ``"float32"`` rounds the factors to single precision (6e-8 relative).

    Raises
    ------
    ConfigError
        If the shapes of the factors do not match each other and the grid.
    """

    kind = "separable"

    def __init__(self, grid: Grid, left: Any, right: Any, local: float = 0.0, storage: str = "float64") -> None:
        super().__init__(grid, local)
        dtype = one_of("storage", storage, ("float64", "float32"))
        left = finite_array("left", left, shape=(None, grid.n_nodes))
        right = finite_array("right", right, shape=(None, grid.n_nodes))
        if len(left) != len(right):
            raise ConfigError(f"left has length {len(left)}, but right has length {len(right)}: the ranks must match")
        self.left: Array = left.astype(dtype).astype(np.float64)
        self.right: Array = right.astype(dtype).astype(np.float64)
        self._right_q = self.right * grid.weights

    def _product(self, z: Array, out: Array) -> None:
        with blas_single_thread():
            np.matmul(z @ self._right_q.T, self.left, out=out)

    def _adjoint_product(self, p: Array, out: Array) -> None:
        with blas_single_thread():
            np.matmul((p * self.grid.weights) @ self.left.T, self.right, out=out)

    def kernel_matrix(self) -> Array:
        """Kernel values w(x_i, x_j), (N, N)."""
        return self.left.T @ self.right

    def norm(self) -> float:
        """Hilbert-Schmidt norm of the kernel, from the Gram matrices of the factors: O(N r^2)."""
        gram = (self.left * self.grid.weights) @ self.left.T
        return float(np.sqrt(max(float((gram * (self._right_q @ self.right.T)).sum()), 0.0)))

    def _details(self) -> dict[str, Any]:
        return {"left": self.left, "right": self.right}
