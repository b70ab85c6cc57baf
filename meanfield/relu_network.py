"""ReLU networks as numbers: residual blocks of plain affine layers, evaluated layer by layer and counted.

    x_{k+1} = x_k + R_k(x_k),    R_k = A_m o relu o A_{m-1} o .. o relu o A_1,    A_i(z) = W_i z + b_i

Matrices of hidden layers are sparse, and blocks share the arrays they have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from meanfield._checks import finite_array, shown
from meanfield.errors import ConfigError

Array = NDArray[np.float64]

# Neurons times points of a chunk that is evaluated at once: 32 MiB.
_CHUNK = 2**22


@dataclass(frozen=True, eq=False)
class ReluBlock:
    """Feed-forward network R with ReLUs between its affine layers and none after the last.

    Parameters
    ----------
    weights
        W_i, each (n_i, n_{i-1}), arrays or sparse matrices; n_m = n_0.
    biases
        b_i, each (n_i,).

    Raises
    ------
    ConfigError
        For shapes that do not chain, an output that is not of the width of the input, or values that are not finite.
    """

    weights: tuple[sparse.csr_array, ...]
    biases: tuple[Array, ...]

    def __post_init__(self) -> None:
        weights = tuple(w if _canonical(w) else sparse.csr_array(w, dtype=np.float64) for w in self.weights)
        biases = tuple(finite_array(f"biases[{i}]", b, shape=(None,)) for i, b in enumerate(self.biases))
        if not weights or len(weights) != len(biases):
            raise ConfigError(f"a block has {len(weights)} weights and {len(biases)} biases")
        for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
            finite_array(f"weights[{i}]", w.data)
            if len(b) != w.shape[0] or (i and w.shape[1] != weights[i - 1].shape[0]):
                raise ConfigError(f"shapes of layer {i} do not match: weights {w.shape}, biases {b.shape}")
        if weights[-1].shape[0] != weights[0].shape[1]:
            raise ConfigError(f"a block from {weights[0].shape[1]} to {weights[-1].shape[0]} coordinates has no sum")
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "biases", biases)

    @property
    def dim(self) -> int:
        """Number of coordinates of input and output."""
        return int(self.weights[0].shape[1])

    @property
    def widths(self) -> tuple[int, ...]:
        """Neurons of the hidden layers."""
        return tuple(int(w.shape[0]) for w in self.weights[:-1])

    @property
    def n_parameters(self) -> int:
        """Weights and biases that are not zero."""
        return sum(
            int(np.count_nonzero(a)) for w, b in zip(self.weights, self.biases, strict=True) for a in (w.data, b)
        )

    def value(self, x: Array) -> Array:
        """R(x) (d, n) at points x (d, n), layer by layer."""
        z: Array = x
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            z = w @ z
            z += b[:, None]
            np.maximum(z, 0.0, out=z)
        return np.asarray(self.weights[-1] @ z + self.biases[-1][:, None])

    def norm_bound(self) -> float:
        """Product of the norms of the matrices, max norm: a Lipschitz constant that ignores how layers cancel."""
        return float(np.prod([np.abs(w).sum(axis=1).max(initial=0.0) for w in self.weights]))


def _canonical(w: Any) -> bool:
    return isinstance(w, sparse.csr_array) and w.dtype == np.float64


@dataclass(frozen=True)
class Counts:
    """Size of a network.

    Attributes
    ----------
    blocks
        Residual blocks passed.
    layers
        Hidden layers passed.
    neurons
        ReLUs passed.
    width
        Neurons of the widest layer.
    parameters
        Weights and biases that are not zero, those of every block passed.
    stored
        Weights and biases that are not zero, shared arrays once.
    """

    blocks: int
    layers: int
    neurons: int
    width: int
    parameters: int
    stored: int


@dataclass(frozen=True, eq=False)
class ReluResNet:
    """Residual network x + R_k(x) of ReLU blocks.

    Parameters
    ----------
    blocks
        The different R.
    order
        Which of them follow each other, (L,) integers; None for each once.

    Raises
    ------
    ConfigError
        For no blocks, blocks of different dimensions, or an order that names none.
    """

    blocks: tuple[ReluBlock, ...]
    order: NDArray[np.int64]

    def __init__(self, blocks: Sequence[ReluBlock], order: Any = None) -> None:
        if not blocks or any(b.dim != blocks[0].dim for b in blocks):
            raise ConfigError(f"blocks must be some of one dimension, got {[b.dim for b in blocks][:8]}")
        path = np.arange(len(blocks)) if order is None else np.asarray(order)
        if path.ndim != 1 or path.dtype.kind not in "iu" or not ((path >= 0) & (path < len(blocks))).all():
            raise ConfigError(f"order must name blocks 0 .. {len(blocks) - 1}, got {shown(order)}")
        object.__setattr__(self, "blocks", tuple(blocks))
        object.__setattr__(self, "order", path.astype(np.int64))

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return self.blocks[0].dim

    @property
    def n_blocks(self) -> int:
        """Residual blocks passed."""
        return len(self.order)

    def forward(self, x: Any) -> Array:
        """Output (d, n) of inputs x (d, n), by the layers themselves: affine maps and ReLUs.

        Raises
        ------
        ConfigError
            For inputs of another shape, or not finite.
        """
        points = finite_array("x", x, shape=(self.dim, None))
        widest = max(max(b.widths, default=1) for b in self.blocks)
        size = max(1, _CHUNK // widest)
        parts = [points[:, i : i + size] for i in range(0, points.shape[1], size)]
        return np.concatenate([self._through(np.ascontiguousarray(p)) for p in parts or [points]], axis=1)

    def _through(self, x: Array) -> Array:
        for k in self.order:
            x = x + self.blocks[k].value(x)
        return x

    def counts(self) -> Counts:
        """Blocks, layers, neurons, widths and parameters."""
        passes = np.bincount(self.order, minlength=len(self.blocks)).tolist()
        found: dict[int, int] = {}
        for block in self.blocks:
            for w, b in zip(block.weights, block.biases, strict=True):
                found[id(w)], found[id(b)] = int(np.count_nonzero(w.data)), int(np.count_nonzero(b))
        together = list(zip(passes, self.blocks, strict=True))
        return Counts(
            blocks=self.n_blocks,
            layers=sum(n * len(b.widths) for n, b in together),
            neurons=sum(n * sum(b.widths) for n, b in together),
            width=max(max(b.widths, default=0) for b in self.blocks),
            parameters=sum(
                n * sum(found[id(a)] for pair in zip(b.weights, b.biases, strict=True) for a in pair)
                for n, b in together
            ),
            stored=sum(found.values()),
        )
