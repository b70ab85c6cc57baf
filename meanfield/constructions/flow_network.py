"""Networks that follow a flow, by their nodal values: fast evaluation, and the ReLU layers they stand for.

    x_{k+1} = x_k + sum_i b_i K_i,    K_i = I_{k,i}(x_k + sum_j a_ij K_j),

I_{k,i} the piecewise-linear interpolant of nodal values on one Kuhn mesh, the length of the block in them. One stage
with b = 1 is x + I_k(x); a Runge-Kutta tableau gives blocks that compose its stages.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array
from meanfield.errors import ConfigError, CorruptFileError
from meanfield.kernels.relu import BLOCK, carry
from meanfield.kuhn import KuhnMesh
from meanfield.parallel import for_blocks
from meanfield.relu_blocks import compact_block, composed_block
from meanfield.relu_files import read_image, write_image
from meanfield.relu_layers import hidden_layers, interpolation_block
from meanfield.relu_network import Counts, ReluBlock, ReluResNet

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

_FORMAT = "meanfield FlowNetwork 1"
# Points that one thread carries through all blocks in one go.
_SHARE = 16 * BLOCK


@dataclass(frozen=True, eq=False)
class FlowNetwork:
    """Residual network of piecewise-linear blocks on a Kuhn mesh.

    Parameters
    ----------
    mesh
        Of d axes.
    tables
        Nodal values, (K, nodes, d).
    order
        Table of every stage of every block, (L, s) integers.
    times
        Times between the blocks, (L + 1,), increasing.
    a, b
        Tableau of the blocks, (s, s) strictly lower triangular and (s,).

    Raises
    ------
    ConfigError
        For shapes that do not match, values that are not finite, or times that do not increase.
    """

    mesh: KuhnMesh
    tables: Array
    order: Integers
    times: Array
    a: Array
    b: Array

    def __post_init__(self) -> None:
        tables = finite_array("tables", self.tables, shape=(None, self.mesh.n_nodes, self.mesh.dim))
        order = np.ascontiguousarray(self.order, dtype=np.int64)
        b = finite_array("b", self.b, shape=(None,))
        a = finite_array("a", self.a, shape=(len(b), len(b)))
        if order.ndim != 2 or order.shape[1] != len(b) or not ((order >= 0) & (order < len(tables))).all():
            raise ConfigError(
                f"order of shape {order.shape} must name tables 0 .. {len(tables) - 1} for {len(b)} stages"
            )
        times = finite_array("times", self.times, shape=(len(order) + 1,))
        if not (np.diff(times) > 0.0).all() or np.triu(a).any():
            raise ConfigError("times must increase and a be strictly lower triangular")
        for name, value in (("tables", tables), ("order", order), ("times", times), ("a", a), ("b", b)):
            object.__setattr__(self, name, value)

    @property
    def dim(self) -> int:
        """Dimension d."""
        return self.mesh.dim

    @property
    def n_blocks(self) -> int:
        """Number of residual blocks."""
        return len(self.order)

    def forward(self, x: Any) -> Array:
        """Output (d, n) of inputs x (d, n), by the cells of the mesh rather than by neurons."""
        points = finite_array("x", x, shape=(self.dim, None))
        return self._carried(points, np.empty((0, *points.shape)))

    def states(self, x: Any) -> Array:
        """States between all blocks, (L + 1, d, n), of inputs x (d, n)."""
        points = finite_array("x", x, shape=(self.dim, None))
        check_memory(f"the states of {self.n_blocks} blocks", 8 * (self.n_blocks + 1) * points.size)
        path = np.empty((self.n_blocks + 1, *points.shape))
        self._carried(points, path)
        return path

    def block_values(self, k: int, x: Array) -> Array:
        """x + R_k(x) (d, n)."""
        out = np.empty_like(x)
        self._kernel(self.order[k : k + 1], x, out, np.empty((0, *x.shape)), 0, x.shape[1])
        return out

    def _carried(self, x: Array, path: Array) -> Array:
        out = np.empty_like(x)

        def share(start: int, stop: int) -> None:
            self._kernel(self.order, x, out, path, start, stop)

        for_blocks(share, x.shape[1], _SHARE)
        return out

    def _kernel(self, order: Integers, x: Array, out: Array, path: Array, start: int, stop: int) -> None:
        rows = self.tables.reshape(len(self.tables), -1)
        mesh = self.mesh
        carry(mesh.lo, 1.0 / mesh.width, mesh.cells, rows, order, self.a, self.b, x, out, path, start, stop)

    @functools.cached_property
    def lipschitz(self) -> Array:
        """Bound of the Lipschitz constant of every R_k, maximum norm, (L,); that of x + R_k is at most 1 more."""
        of_table = np.array([self.mesh.lipschitz(t.T) for t in self.tables])
        stages = of_table[self.order]
        for i in range(len(self.b)):
            stages[:, i] *= 1.0 + stages[:, :i] @ np.abs(self.a[i, :i])
        return np.asarray(stages @ np.abs(self.b))

    def layers(self) -> ReluResNet:
        """Return the network as plain ReLU layers; blocks with the same values are one block.

        Raises
        ------
        ResourceError
            If the layers would not fit into memory.
        """
        different, order = np.unique(self.order, axis=0, return_inverse=True)
        each = 24 * self.dim * self.mesh.n_nodes * (1 if self._plain else 10 * len(self.b))
        check_memory(f"the layers of {len(different)} blocks", each * len(different))
        shared = hidden_layers(self.mesh)
        blocks = []
        for row in different:
            values = [np.ascontiguousarray(self.tables[k].T) for k in row]
            if self._plain:
                blocks.append(interpolation_block(self.mesh, values[0], shared))
            else:
                blocks.append(composed_block(self.mesh, values, self.a, self.b))
        return ReluResNet(blocks, order.reshape(-1))

    def compact(self, hats_per_layer: int = 1) -> ReluResNet:
        """Return the network with hat functions spread over consecutive layers, few neurons in each.

        Raises
        ------
        ConfigError
            For blocks of several stages.
        """
        if not self._plain:
            raise ConfigError("the compact form is for blocks of one stage, these compose a Runge-Kutta step")
        different, order = np.unique(self.order[:, 0], return_inverse=True)
        blocks: list[ReluBlock] = [
            compact_block(self.mesh, np.ascontiguousarray(self.tables[k].T), hats_per_layer) for k in different
        ]
        return ReluResNet(blocks, order.reshape(-1))

    @property
    def _plain(self) -> bool:
        return len(self.b) == 1 and self.b[0] == 1.0

    def counts(self) -> Counts:
        """Size of the network of `layers`."""
        return self.layers().counts()

    def save(self, path: str | Path) -> None:
        """Write mesh and nodal values as HDF5; `layers` of it can be written too.

        Raises
        ------
        OutputError
            If the path exists already or cannot be written.
        """
        mesh = {"lo": self.mesh.lo, "hi": self.mesh.hi, "cells": self.mesh.cells}
        rest = {"tables": self.tables, "order": self.order, "times": self.times, "a": self.a, "b": self.b}
        write_image(path, {"format": _FORMAT}, {**mesh, **rest})


def load_flow_network(path: str | Path) -> FlowNetwork:
    """Read a network written by `FlowNetwork.save`; nothing in the file is executed.

    Raises
    ------
    FileFormatError
        If the file is no such network.
    CorruptFileError
        If it is one and its contents do not fit together.
    """
    _, arrays = read_image(path, _FORMAT)
    try:
        mesh = KuhnMesh(*(arrays.pop(name) for name in ("lo", "hi", "cells")))
        return FlowNetwork(mesh, **arrays)
    except (KeyError, TypeError, ConfigError) as error:
        raise CorruptFileError(f"{path} is damaged: {error}") from None
