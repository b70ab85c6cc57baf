"""Kernels evaluated inside the product: O(N^2) time, O(N) memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import one_of
from meanfield.grids import Grid
from meanfield.kernels.pairs import radial_rows
from meanfield.operators.base import IntegralOperator, kernel_block, sampled_kernel
from meanfield.operators.radial import RadialKernel
from meanfield.parallel import blas_single_thread, blocks, for_blocks

Array = NDArray[np.float64]

# Pairs to a task of the compiled loops (about a hundred microseconds), and to a block of a NumPy callable.
_PAIRS = 2**18
_BLOCK = 2**21


class OnTheFly(IntegralOperator):
    """Integral operator whose kernel is evaluated where it is used.

    Parameters
    ----------
    grid
        Grid of the labels.
    kernel
        A `RadialKernel`, compiled: half a nanosecond a pair and more, by profile; or a NumPy-vectorised callable
        w(x, y) as for `Dense`, evaluated in blocks of rows at the speed of NumPy.
    local
        Coefficient of the local part.
    evaluation
        ``"float64"``, or ``"float32"`` for kernel values in single precision (6e-8 relative to the largest
        argument), summed in double over strips of 1024 labels; a `RadialKernel` only gains by it.

    Raises
    ------
    ConfigError
        For a kernel of another dimension than the grid, or values that are not finite.
    """

    kind = "on the fly"

    def __init__(self, grid: Grid, kernel: Any, local: float = 0.0, evaluation: str = "float64") -> None:
        super().__init__(grid, local)
        self.kernel = kernel
        self.evaluation = one_of("evaluation", evaluation, ("float64", "float32"))
        self._radial = RadialProduct(grid.nodes, kernel, evaluation) if isinstance(kernel, RadialKernel) else None
        if self._radial is None:
            kernel_block("kernel", grid, kernel, 0, 1)  # a kernel that cannot be used says so here

    def _product(self, z: Array, out: Array) -> None:
        if self._radial is not None:
            self._radial.product(z * self.grid.weights, out, "left", "right")
            return
        weighted = z * self.grid.weights
        with blas_single_thread():
            for start, stop in self._row_blocks():
                out[:, start:stop] = weighted @ self._rows(start, stop).T

    def _adjoint_product(self, p: Array, out: Array) -> None:
        if self._radial is not None:
            self._radial.product(p * self.grid.weights, out, "right", "left")
            return
        weighted = p * self.grid.weights
        out[...] = 0.0
        with blas_single_thread():
            for start, stop in self._row_blocks():
                out += weighted[:, start:stop] @ self._rows(start, stop)

    def _row_blocks(self) -> list[tuple[int, int]]:
        return blocks(self.grid.n_nodes, max(_BLOCK // self.grid.n_nodes, 1))

    def _rows(self, start: int, stop: int) -> Array:
        values = kernel_block("kernel", self.grid, self.kernel, start, stop)
        return values.astype(np.float32).astype(np.float64) if self.evaluation == "float32" else values

    def kernel_matrix(self) -> Array:
        """Kernel values w(x_i, x_j), (N, N)."""
        return sampled_kernel("kernel", self.grid, self.kernel)

    def norm(self) -> float:
        """Hilbert-Schmidt norm of the kernel, in blocks of rows: O(N^2) time, O(N) memory."""
        q, total = self.grid.weights, 0.0
        for start, stop in self._row_blocks():
            total += float(q[start:stop] @ (kernel_block("kernel", self.grid, self.kernel, start, stop) ** 2 @ q))
        return math.sqrt(total)

    def _details(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "evaluation": self.evaluation}


class RadialProduct:
    """What the compiled loops need of a radial kernel at labels (N,) or (N, D)."""

    def __init__(self, nodes: Array, kernel: RadialKernel, evaluation: str = "float64") -> None:
        points = kernel.points(nodes)
        self._kernel = kernel
        self._dtype: Any = np.float32 if evaluation == "float32" else np.float64
        period = kernel.periods(len(points))
        self._points: Any = points.astype(self._dtype)
        self._period: Any = period.astype(self._dtype)
        self._factors = {side: kernel.factor(side, nodes) for side in ("left", "right")}
        self._reach = _reach(points, math.sqrt(kernel.limit), period)
        pairs = int((self._reach[:, 1] - self._reach[:, 0]).mean())
        self._rows = max(_PAIRS // max(pairs, 1) // 4 * 4, 4)

    def product(self, weighted: Array, out: Array, outer: str, inner: str) -> None:
        """Fill out = amplitude outer(x) sum_j phi_ij inner_j weighted_j."""
        inside, outside = self._factors[inner], self._factors[outer]
        z = weighted if inside is None else weighted * inside
        z = np.ascontiguousarray(z, dtype=self._dtype)
        kernel = self._kernel
        args = (kernel.code, kernel.shift, kernel.limit, self._points, self._period, z, self._reach)
        for_blocks(lambda i, k: radial_rows(*args, i, k, out), out.shape[1], self._rows)
        if kernel.amplitude != 1.0:
            out *= kernel.amplitude
        if outside is not None:
            out *= outside


def _reach(points: Array, radius: float, period: Array) -> NDArray[np.int64]:
    """First and one past the last index that can interact with each label, (N, 2)."""
    n = points.shape[1]
    everything = np.zeros((n, 2), dtype=np.int64)
    everything[:, 1] = n
    row = points[0]
    if math.isinf(radius) or len(points) > 1 or np.isfinite(period).any() or not (np.diff(row) >= 0).all():
        return everything
    # A little wider than the cut-off, which the loop applies itself: round-off must not lose a pair.
    wide = radius * (1 + 1e-6) + 1e-12
    ends = [np.searchsorted(row, row - wide), np.searchsorted(row, row + wide, side="right")]
    return np.ascontiguousarray(np.stack(ends, axis=1), dtype=np.int64)
