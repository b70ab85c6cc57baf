"""Width that changes with depth: grids for each depth, and the transfers P between them.

A transfer is what a shortcut does where the width of a network changes:

    (P z)_i = sum_j l_j(x_i) z_j,   l_j the Lagrange polynomials of the source nodes around x_i

two nodes (linear) or four (cubic) at a time. Where a target node is a source node, the
row is that of the identity: removing nodes is exact.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, one_of, positive_int, shown
from meanfield.errors import ConfigError
from meanfield.grids import Grid

Array = NDArray[np.float64]
Family = Callable[[int], Grid]
"""Grid of n nodes."""

_STENCIL = {"linear": 2, "cubic": 4}
# Nodes so close are one node: the same label computed in two ways.
_SAME = 4 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Transfer:
    """Interpolation from the nodes of one grid to those of another, as a sparse matrix.

    Error O(h^2) (linear) or O(h^4) (cubic) on smooth fields, h the largest source cell.
    Linear weights are nonnegative with sum 1 between source nodes and on the circle, so
    the sup norm is 1 there and stays 1 in products. A target node beyond the first or
    last source node of an interval is reached by the polynomial of the end nodes
    (``"extrapolate"``, the order is kept, the norm exceeds 1) or takes the value of the
    end node (``"clamp"``, the linear norm is 1, the error there is O(h)). On a square or torus the
    matrix is the Kronecker product of those of the sides.

    Parameters
    ----------
    source, target
        Grids with the same dimension and period. In two dimensions both must be tensor
        products, or the target nodes must be source nodes.
    kind
        ``"linear"`` or ``"cubic"``.
    beyond
        ``"extrapolate"`` or ``"clamp"``.

    Attributes
    ----------
    matrix
        P, (M, N), `scipy.sparse.csr_array`.

    Raises
    ------
    ConfigError
        For grids between which no such interpolation exists.

    Notes
    -----
    Consequence of the model: a change of width at every layer, L layers of dt = T/L, costs
    O(T h^r / dt) for P of order r if products of the P stay bounded.
    """

    source: Grid
    target: Grid
    kind: str = "linear"
    beyond: str = "extrapolate"
    matrix: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        one_of("kind", self.kind, tuple(_STENCIL))
        one_of("beyond", self.beyond, ("extrapolate", "clamp"))
        source, target = self.source, self.target
        if source.dim != target.dim or source.period != target.period:
            raise ConfigError(
                f"source and target must have the same labels: dim = {source.dim} and {target.dim}, "
                f"period = {source.period} and {target.period}"
            )
        object.__setattr__(self, "matrix", self._assemble())

    def _assemble(self) -> Any:
        source, target = self.source, self.target
        if source.dim == 1:
            period = None if source.period is None else source.period[0]
            return _interpolation(source.nodes, target.nodes, period, self.kind, self.beyond)
        subset = _subset(source, target)
        if subset is not None:
            return subset
        from scipy import sparse  # noqa: PLC0415  (scipy only where it is needed)

        sides = zip(_sides("source", source), _sides("target", target), strict=True)
        periods = source.period or (None,) * source.dim
        parts = [_interpolation(a, b, p, self.kind, self.beyond) for (a, b), p in zip(sides, periods, strict=True)]
        return sparse.csr_array(functools.reduce(sparse.kron, parts))

    def apply(self, z: Array) -> Array:
        """P z of a field (N,) or fields (n, N), as (M,) or (n, M)."""
        return self._product(self.matrix, z, self.source)

    def apply_adjoint(self, p: Array) -> Array:
        """P* p in L2(q), of fields over the target: <P z, p>_target = <z, P* p>_source."""
        weighted = self._product(self.matrix.T.tocsr(), np.asarray(p) * self.target.weights, self.target)
        return np.asarray(weighted / self.source.weights)

    @staticmethod
    def _product(matrix: Any, z: Array, grid: Grid) -> Array:
        z = np.asarray(z, dtype=np.float64)
        if z.ndim not in (1, 2) or z.shape[-1] != grid.n_nodes:
            raise ConfigError(f"z has length {z.shape}, but the grid has length {grid.n_nodes}")
        return np.ascontiguousarray((matrix @ z.T).T)

    def sup_norm(self) -> float:
        """Norm from sup to sup: the largest row sum of absolute values."""
        return float(abs(self.matrix).sum(axis=1).max())

    def l2_norm(self) -> float:
        """Norm from L2(q) of the source to L2(q) of the target: the largest singular value."""
        scaled = np.sqrt(self.target.weights)[:, None] * self.matrix.toarray() / np.sqrt(self.source.weights)
        return float(np.linalg.norm(scaled, 2))


def transfer(source: Grid, target: Grid, kind: str = "linear", beyond: str = "extrapolate") -> Transfer:
    """Return the `Transfer` from the nodes of `source` to those of `target`; see there."""
    return Transfer(source, target, kind, beyond)


def nodal_grid(nodes: Any, *, periodic: bool = False) -> Grid:
    """Grid on given labels of [0, 1] or of the circle of length 1, weighted by the lengths of their cells.

    The cell of a node reaches half way to its neighbours, and to the end of the interval:
    q_j = (x_{j+1} - x_{j-1})/2 inside. That is the trapezoidal rule where 0 and 1 are nodes and
    the midpoint rule on the nodes (j + 1/2)/N; O(h^2) on any nodes.

    Parameters
    ----------
    nodes
        Labels, (N,), strictly increasing in [0, 1] (in [0, 1) if periodic).

    Raises
    ------
    ConfigError
        For nodes that do not increase or lie outside.
    """
    x = finite_array("nodes", nodes, shape=(None,))
    if not len(x) or (np.diff(x) <= 0).any() or x[0] < 0.0 or x[-1] > 1.0 or (periodic and x[-1] >= 1.0):
        raise ConfigError(f"nodes must increase strictly within [0, {'1)' if periodic else '1]'}, got {shown(nodes)}")
    if periodic:
        gaps = np.diff(x, append=x[0] + 1.0)
        weights = 0.5 * (gaps + np.roll(gaps, 1))
    else:
        weights = np.diff(np.concatenate([[0.0], 0.5 * (x[1:] + x[:-1]), [1.0]]))
    return Grid(x, weights / weights.sum(), (1.0,) if periodic else None)


def endpoint_grid(n: int) -> Grid:
    """Interval [0, 1] with nodes j/(n - 1) and the trapezoidal rule; doubling its cells keeps every node."""
    n = positive_int("n", n)
    check_memory(f"a grid with n = {n}", 48 * n)
    return nodal_grid(np.arange(n) / (n - 1) if n > 1 else np.array([0.5]))


def wide_narrow_wide(n_wide: int, n_narrow: int, n_layers: int, *, family: Family = endpoint_grid) -> tuple[Grid, ...]:
    """Grids of an hourglass: wide in the outer thirds of the layers, narrow in the middle one.

    Two changes of width. With the default family and n_wide - 1 a multiple of n_narrow - 1 the grids
    are nested and the first change is exact.

    Returns
    -------
    tuple of Grid
        n_layers + 1 grids.
    """
    n_layers = positive_int("n_layers", n_layers)
    wide, narrow = family(positive_int("n_wide", n_wide)), family(positive_int("n_narrow", n_narrow))
    first, last = n_layers // 3, n_layers - n_layers // 3
    return tuple(narrow if first < k <= last else wide for k in range(n_layers + 1))


def growth(n_first: int, n_last: int, n_layers: int, *, family: Family = endpoint_grid) -> tuple[Grid, ...]:
    """Grids whose width goes linearly from n_first to n_last, rounded; it may also shrink.

    Returns
    -------
    tuple of Grid
        n_layers + 1 grids.
    """
    ends = positive_int("n_first", n_first), positive_int("n_last", n_last)
    made = functools.cache(family)
    widths = np.rint(np.linspace(*ends, positive_int("n_layers", n_layers) + 1)).astype(int)
    return tuple(made(n) for n in widths.tolist())


def prune_grid(grid: Grid, scores: Array, keep: int) -> Grid:
    """Grid of the `keep` nodes with the largest scores, weighted anew by the lengths of their cells.

    Raises
    ------
    ConfigError
        For more nodes than there are, scores of another length, or labels in more than one dimension.
    """
    scores = finite_array("scores", scores, shape=(grid.n_nodes,))
    if positive_int("keep", keep) > grid.n_nodes:
        raise ConfigError(f"keep = {keep} is more than the {grid.n_nodes} nodes there are")
    if grid.dim != 1:
        raise ConfigError(f"pruning needs labels of dim = 1 to weight the nodes kept, got dim = {grid.dim}")
    kept = np.argsort(-scores, kind="stable")[:keep]
    return nodal_grid(np.sort(grid.nodes[kept]), periodic=grid.period is not None)


def _sides(name: str, grid: Grid) -> tuple[Array, ...]:
    """Nodes of each side of a tensor grid."""
    if len(grid.shape) == grid.dim:
        nodes = grid.nodes.reshape(*grid.shape, grid.dim)
        sides = tuple(np.moveaxis(nodes[..., d], d, 0).reshape(grid.shape[d], -1)[:, 0].copy() for d in range(grid.dim))
        if np.array_equal(np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1), nodes):
            return sides
    raise ConfigError(f"the {name} grid of dim = {grid.dim} is no tensor product: its nodes cannot be interpolated")


def _subset(source: Grid, target: Grid) -> Any:
    """Rows of the identity if every target node is a source node, else None."""
    from scipy import sparse  # noqa: PLC0415

    place = {node.tobytes(): j for j, node in enumerate(source.nodes + 0.0)}
    columns = [place.get(node.tobytes(), -1) for node in target.nodes + 0.0]
    if min(columns) < 0:
        return None
    shape = (target.n_nodes, source.n_nodes)
    return sparse.csr_array((np.ones(len(columns)), columns, np.arange(len(columns) + 1)), shape=shape)


def _interpolation(source: Array, target: Array, period: float | None, kind: str, beyond: str) -> Any:
    """CSR matrix of local Lagrange interpolation in one dimension."""
    from scipy import sparse  # noqa: PLC0415

    order = np.argsort(source, kind="stable")
    s, x = source[order], target
    if (np.diff(s) <= 0).any():
        raise ConfigError("nodes of the source must differ")
    n, width = len(s), min(_STENCIL[kind], len(s))
    x = _snapped(s, x if period is not None or beyond == "extrapolate" else np.clip(x, s[0], s[-1]))
    start = np.searchsorted(s, x, side="right") - 1 - (width - 1) // 2
    if period is None:
        start = np.clip(start, 0, n - width)
    index = start[:, None] + np.arange(width)
    turns, columns = np.divmod(index, n)
    points = s[columns] + (0.0 if period is None else turns * period)
    weights = np.ones_like(points)
    for j in range(width):
        for k in range(width):
            if k != j:
                weights[:, j] *= (x - points[:, k]) / (points[:, j] - points[:, k])
    rows = np.repeat(np.arange(len(x)), width)
    matrix = sparse.csr_array((weights.ravel(), (rows, order[columns].ravel())), shape=(len(x), n))
    matrix.eliminate_zeros()
    return matrix


def _snapped(s: Array, x: Array) -> Array:
    """Target nodes, those within round-off of a source node put onto it."""
    right = np.clip(np.searchsorted(s, x), 0, len(s) - 1)
    left = np.maximum(right - 1, 0)
    near = np.where(np.abs(x - s[left]) < np.abs(s[right] - x), s[left], s[right])
    return np.where(np.abs(x - near) <= _SAME * np.maximum(1.0, np.abs(x)), near, x)
