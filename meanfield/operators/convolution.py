"""Kernels w(x, y) = k(x - y) on the circle and the torus, by FFT: O(N log N) time, O(N) memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array
from meanfield.errors import ConfigError
from meanfield.grids import Grid
from meanfield.operators.base import IntegralOperator

Array = NDArray[np.float64]


class Convolution(IntegralOperator):
    """Periodic convolution, (W z)_i = local z_i + (1/N) sum_j k(x_i - x_j) z_j.

    Parameters
    ----------
    grid
        `Grid.circle` or `Grid.torus`.
    profile
        k at the labels of the grid, (N,), or a vectorised callable of the labels.
    local
        Coefficient of the local part.

    Raises
    ------
    ConfigError
        On a grid that is not periodic and uniform, or for a profile of another length.
    """

    kind = "convolution"

    def __init__(self, grid: Grid, profile: Any, local: float = 0.0) -> None:
        super().__init__(grid, local)
        if grid.rule != "periodic":
            raise ConfigError(f"a convolution needs a circle or a torus, got a grid of rule {grid.rule!r}")
        values = profile(grid.nodes) if callable(profile) else profile
        self.profile: Array = finite_array("profile", values, shape=(grid.n_nodes,))
        self._axes = tuple(range(1, 1 + len(grid.shape)))
        self.multiplier: NDArray[np.complex128] = np.fft.rfftn(self.profile.reshape(grid.shape)) / grid.n_nodes
        self._modes = np.empty((0, 0), dtype=np.complex128)
        self._conjugate = self.multiplier.conj()

    def _product(self, z: Array, out: Array) -> None:
        self._multiply(z, self.multiplier, out)

    def _adjoint_product(self, p: Array, out: Array) -> None:
        self._multiply(p, self._conjugate, out)

    def _multiply(self, z: Array, multiplier: NDArray[np.complex128], out: Array) -> None:
        shape = self.grid.shape
        if len(self._modes) != len(z):
            # A fresh array a call costs more in page faults than the transform itself.
            self._modes = np.empty((len(z), *self.multiplier.shape), dtype=np.complex128)
        if len(shape) == 1:
            modes = np.fft.rfft(z, out=self._modes)
            modes *= multiplier
            np.fft.irfft(modes, shape[0], out=out)
            return
        modes = np.fft.rfftn(z.reshape(len(z), *shape), axes=self._axes, out=self._modes)
        modes *= multiplier
        out[...] = np.fft.irfftn(modes, s=shape, axes=self._axes).reshape(out.shape)

    def kernel_matrix(self) -> Array:
        """Kernel values k(x_i - x_j), (N, N)."""
        shape, n = self.grid.shape, self.grid.n_nodes
        check_memory(f"a dense kernel of {n} x {n}", 16 * n * n)
        index = np.indices(shape).reshape(len(shape), n)
        gap = (index[:, :, None] - index[:, None, :]) % np.array(shape)[:, None, None]
        return np.asarray(self.profile.reshape(shape)[tuple(gap)])

    def norm(self) -> float:
        """Hilbert-Schmidt norm of the kernel: the L2 norm of k, as |Omega| = 1."""
        return float(self.grid.norm(self.profile))

    def operator_norm(self) -> float:
        """Norm of W on L2: the largest modulus of its Fourier multiplier, local part included."""
        return float(np.abs(self.multiplier + self.local).max())

    def _details(self) -> dict[str, Any]:
        return {"profile": self.profile}
