"""Any kernel, sampled at all pairs of labels: O(N^2) time and memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import one_of
from meanfield.grids import Grid
from meanfield.kernels.integral import matmul_rows, matvec_rows, vecmat_columns
from meanfield.operators.base import IntegralOperator, sampled_kernel
from meanfield.parallel import blas_single_thread, for_blocks

Array = NDArray[np.float64]

# Rows to a task: 512 rows of 1024 labels take about a hundred microseconds.
_ROWS = 512


class Dense(IntegralOperator):
    """Dense integral operator.

    Parameters
    ----------
    grid
        Grid of the labels.
    kernel
        w(x_i, x_j), (N, N), or a NumPy-vectorised callable w(x, y).
    local
        Coefficient of the local part.
    storage
        ``"float64"``, or ``"float32"``: half the memory and traffic, entries rounded
        to 6e-8 relative, sums still in double.

    Raises
    ------
    ConfigError, ResourceError
        For kernels of another shape or not finite; for more memory than there is.
    """

    kind = "dense"

    def __init__(self, grid: Grid, kernel: Any, local: float = 0.0, storage: str = "float64") -> None:
        super().__init__(grid, local)
        self.storage = one_of("storage", storage, ("float64", "float32"))
        self.matrix = np.ascontiguousarray(sampled_kernel("kernel", grid, kernel) * grid.weights, dtype=storage)
        self._scaled = np.empty(0)

    def _product(self, z: Array, out: Array) -> None:
        n = self.grid.n_nodes
        if len(z) == 1:
            # One block is called at once: at small N the overhead of a closure shows.
            if n <= _ROWS:
                matvec_rows(self.matrix, z[0], 0, n, out[0])
            else:
                for_blocks(lambda i, k: matvec_rows(self.matrix, z[0], i, k, out[0]), n, _ROWS)
        else:
            for_blocks(lambda i, k: matmul_rows(self.matrix, z, i, k, out), n, _ROWS)

    def _adjoint_product(self, p: Array, out: Array) -> None:
        q = self.grid.weights
        if self._scaled.shape != p.shape:
            self._scaled = np.empty_like(p)
        scaled = np.multiply(p, q, out=self._scaled)
        if len(p) > 1 and self.storage == "float64":
            with blas_single_thread():
                np.matmul(scaled, self.matrix, out=out)
        else:
            for s in range(len(p)):
                for_blocks(
                    lambda i, k, s=s: vecmat_columns(self.matrix, scaled[s], i, k, out[s]),  # type: ignore[misc]
                    len(q),
                    _ROWS,
                )
        out /= q

    def kernel_matrix(self) -> Array:
        """Kernel values w(x_i, x_j), (N, N)."""
        return np.asarray(self.matrix / self.grid.weights)

    def norm(self) -> float:
        """Hilbert-Schmidt norm of the kernel."""
        q = self.grid.weights
        return float(np.sqrt(q @ (np.square(self.matrix, dtype=np.float64) @ (1.0 / q))))

    def _details(self) -> dict[str, Any]:
        return {"matrix": self.matrix}
