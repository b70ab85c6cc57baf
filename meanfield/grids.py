"""Grids of neuron labels: quadrature on Omega = [0, 1]^D, normalised to |Omega| = 1.

A width-N network is the quadrature rule int f dx ~ sum_j q_j f(x_j) applied to the
limit. The rule decides how fast the width limit is reached on smooth data: midpoint
N^-2, Gauss and Chebyshev (Fejer's first rule) spectrally, the periodic grid of the
circle and the torus spectrally, random labels N^-1/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, one_of, positive_int
from meanfield.errors import ConfigError

Array = NDArray[np.float64]

_INTERVAL_RULES = ("midpoint", "gauss", "chebyshev")


@dataclass(frozen=True, eq=False)
class Grid:
    """Nodes and weights of a quadrature rule on neuron labels.

    Parameters
    ----------
    nodes
        Labels x_j, (N,) in one dimension, (N, D) in more.
    weights
        q_j > 0, (N,), with sum 1.
    period
        Period in each dimension, None if the labels are not periodic.
    shape
        Tensor shape whose product is N: (N,), or (n, n) on a square.
    rule
        Name of the quadrature rule.

    Raises
    ------
    ConfigError
        If lengths do not match or weights are not positive with sum 1.
    """

    nodes: Array
    weights: Array
    period: tuple[float, ...] | None = None
    shape: tuple[int, ...] = ()
    rule: str = "custom"

    def __post_init__(self) -> None:
        nodes = finite_array("nodes", self.nodes)
        weights = finite_array("weights", self.weights, shape=(None,))
        if nodes.ndim not in (1, 2) or len(nodes) != len(weights):
            length = len(nodes) if nodes.ndim else 0
            raise ConfigError(f"nodes and weights must match: {length} nodes, {len(weights)} weights")
        if not (weights > 0).all() or abs(weights.sum() - 1.0) > 1e-10:
            raise ConfigError(
                f"weights must be positive with sum 1, got sum {weights.sum()!r}, least {weights.min()!r}"
            )
        shape = tuple(self.shape) or (len(nodes),)
        if int(np.prod(shape)) != len(nodes):
            raise ConfigError(f"shape {shape} does not hold {len(nodes)} nodes")
        object.__setattr__(self, "nodes", nodes)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "shape", shape)

    @classmethod
    def interval(cls, n: int, rule: str = "midpoint") -> Grid:
        """Return the interval [0, 1] with n nodes by the midpoint, Gauss or Chebyshev rule."""
        x, q = _rule(positive_int("n", n), one_of("rule", rule, _INTERVAL_RULES))
        return cls(x, q, None, (len(x),), rule)

    @classmethod
    def circle(cls, n: int) -> Grid:
        """Return the circle of length 1 with nodes j/n; spectral on smooth periodic data."""
        n = _size("n", n, 1)
        return cls(np.arange(n) / n, np.full(n, 1.0 / n), (1.0,), (n,), "periodic")

    @classmethod
    def square(cls, n: int, rule: str = "midpoint") -> Grid:
        """Return the unit square with n nodes per side, the tensor product of `interval`."""
        n = _size("n", n, 2)
        x, q = _rule(n, one_of("rule", rule, _INTERVAL_RULES))
        return cls(_product(x), np.outer(q, q).ravel(), None, (n, n), rule)

    @classmethod
    def torus(cls, n: int) -> Grid:
        """Return the unit torus with n nodes per side, the tensor product of `circle`."""
        n = _size("n", n, 2)
        return cls(_product(np.arange(n) / n), np.full(n * n, 1.0 / (n * n)), (1.0, 1.0), (n, n), "periodic")

    @classmethod
    def random(cls, n: int, dim: int = 1, seed: int = 0) -> Grid:
        """Return n labels drawn uniformly from [0, 1]^dim with equal weights (Monte Carlo, N^-1/2)."""
        n, dim = _size("n", n, 1), positive_int("dim", dim)
        x = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed))).random((n, dim))
        return cls(x[:, 0].copy() if dim == 1 else x, np.full(n, 1.0 / n), None, (n,), "random")

    @property
    def n_nodes(self) -> int:
        """Number of labels N."""
        return len(self.weights)

    @property
    def dim(self) -> int:
        """Dimension D of the labels."""
        return 1 if self.nodes.ndim == 1 else self.nodes.shape[1]

    def refine(self) -> Grid:
        """Same family with twice the nodes per side; random and custom grids have none."""
        if self.rule in ("random", "custom"):
            raise ConfigError(f"a {self.rule} grid has no refinement; draw a new one with more labels")
        n = 2 * self.shape[0]
        if self.rule == "periodic":
            return Grid.circle(n) if self.dim == 1 else Grid.torus(n)
        return Grid.interval(n, self.rule) if self.dim == 1 else Grid.square(n, self.rule)

    def integrate(self, f: Any) -> Any:
        """Integral of a field (..., N) over Omega, sum_j q_j f_j, of shape (...)."""
        return np.asarray(f) @ self.weights

    def inner(self, f: Any, g: Any) -> Any:
        """L2 inner product int f g dx of fields (..., N)."""
        return (np.asarray(f) * np.asarray(g)) @ self.weights

    def norm(self, f: Any) -> Any:
        """L2 norm (int f^2 dx)^(1/2) of fields (..., N)."""
        return np.sqrt(self.inner(f, f))

    def describe(self) -> dict[str, Any]:
        """What determines the grid, for digests of runs."""
        return {"rule": self.rule, "nodes": self.nodes, "weights": self.weights, "period": self.period}


def _size(name: str, value: Any, dim: int) -> int:
    n = positive_int(name, value)
    check_memory(f"a grid with {name} = {n}", 8 * (dim + 1) * n**dim)
    return n


def _product(x: Array) -> Array:
    first, second = np.meshgrid(x, x, indexing="ij")
    return np.stack([first.ravel(), second.ravel()], axis=1)


def _rule(n: int, rule: str) -> tuple[Array, Array]:
    _size("n", n, 1)
    if rule == "midpoint":
        return (np.arange(n) + 0.5) / n, np.full(n, 1.0 / n)
    if rule == "gauss":
        check_memory(f"a Gauss rule with n = {n}", 8 * n * n)
        x, w = np.polynomial.legendre.leggauss(n)
        return 0.5 * (x + 1.0), w / w.sum()
    angle = (np.arange(n) + 0.5) * np.pi / n
    # Fejer's first rule: w_j = (2/n) (1 - 2 sum_m cos(2 m angle_j) / (4 m^2 - 1)), as one cosine transform.
    moments = np.zeros(n)
    moments[0] = 2.0
    m = np.arange(1, (n + 1) // 2)
    moments[2 * m] = 2.0 / (1.0 - 4.0 * m.astype(float) ** 2)
    from scipy.fft import dct  # noqa: PLC0415  (scipy only where it is needed)

    w = dct(moments, type=3) / n
    return 0.5 * (1.0 - np.cos(angle)), w / w.sum()
