"""Exact piecewise-linear interpolation by layers of ReLUs.

    d = 1    F_0 + sum_i (s_i - s_{i-1}) relu(x - x_i), s_i the slope on cell i and none outside: one hidden layer
    d = 2    phi_ij = relu(1 - (|z_1| + |z_2| + |z_1 - z_2|)/2): two hidden layers, after the clip
    any d    phi_i = relu(1 - max(0, z_1 .. z_d) + min(0, z_1 .. z_d)): a tree of maxima of depth
             ceil(log2(d + 1)), then one layer, after the clip

The clip takes two ReLUs for each coordinate, relu((x - lo)/h) - relu((x - hi)/h), and counts cells from then on. In the
plane |.| is relu(t) + relu(-t), and neurons of equal t serve all nodes: the first layer grows like the sides of the
mesh. In a tree max(a, b) = a + relu(b - a), where a itself is carried by one ReLU if it cannot be negative and by two
otherwise. On the line the sum over kinks loses eps sum |s_i - s_{i-1}| |x - x_i| to round-off, little for nodal values
of a smooth function, and as much as the number of cells for rough ones; hat functions (``"tree"``) lose eps times the
cells of an axis. The constructions are consequences of the formulas above; blocks of them are those of Mueller, "On the
space-time expressivity of ResNets", arXiv 1910.09599.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from meanfield._checks import check_memory, one_of
from meanfield.kuhn import KuhnMesh
from meanfield.relu_network import ReluBlock

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Matrix: TypeAlias = sparse.csr_array


@dataclass(frozen=True, eq=False)
class Layers:
    """Hidden layers whose last neurons are combined linearly: what blocks on the same mesh share.

    Attributes
    ----------
    weights, biases
        Of the hidden layers.
    hats
        Whether the last neurons are the hat functions of the nodes, rather than relu(x - x_i) on the line.
    """

    weights: tuple[Matrix, ...]
    biases: tuple[Array, ...]
    hats: bool


def hidden_layers(mesh: KuhnMesh, form: str = "short") -> Layers:
    """Layers that every interpolant on a mesh shares.

    Parameters
    ----------
    mesh
        Of d axes.
    form
        ``"short"``: the fewest layers, 1 for d = 1, 3 for d = 2, 2 + ceil(log2(d + 1)) beyond, clip included;
        ``"tree"``: by the tree of maxima for every d.

    Raises
    ------
    ResourceError
        For more nodes than fit into memory.
    """
    one_of("form", form, ("short", "tree"))
    check_memory(f"the layers of {mesh.n_nodes} hat functions", 200 * mesh.dim * mesh.n_nodes)
    if mesh.dim == 1 and form == "short":
        places = mesh.nodes()[0]
        return Layers((Matrix(np.ones((len(places), 1))),), (-places,), hats=False)
    clip, z = clip_layer(mesh)
    nodes = np.stack(np.unravel_index(np.arange(mesh.n_nodes), mesh.shape), axis=1)
    layers = [clip, *hat_layers(z, nodes, tree=form == "tree")]
    return Layers(tuple(a.matrix for a in layers), tuple(a.constant for a in layers), hats=True)


def readout(mesh: KuhnMesh, layers: Layers, values: Array) -> tuple[Matrix, Array]:
    """Last affine layer, for nodal values (m, nodes)."""
    if layers.hats:
        return Matrix(values), np.zeros(len(values))
    slopes = np.diff(values, axis=1) / mesh.width
    return Matrix(np.diff(slopes, axis=1, prepend=0.0, append=0.0)), values[:, 0].copy()


def interpolation_block(mesh: KuhnMesh, values: Array, layers: Layers | None = None) -> ReluBlock:
    """Block that interpolates nodal values (d, nodes) piecewise linearly, exactly."""
    shared = layers or hidden_layers(mesh)
    weights, bias = readout(mesh, shared, values)
    return ReluBlock((*shared.weights, weights), (*shared.biases, bias))


@dataclass(frozen=True, eq=False)
class Affine:
    """Rows of affine functions of the neurons of a layer: matrix (r, neurons) z + constant (r,)."""

    matrix: Matrix
    constant: Array

    def __getitem__(self, rows: Any) -> Affine:
        return Affine(self.matrix[rows], self.constant[rows])

    def __add__(self, other: Affine) -> Affine:
        return Affine(Matrix(self.matrix + other.matrix), self.constant + other.constant)

    def __mul__(self, factor: float) -> Affine:
        return Affine(Matrix(self.matrix * factor), self.constant * factor)

    def of(self, inner: Affine) -> Affine:
        """Composition with affine functions of another layer."""
        return Affine(Matrix(self.matrix @ inner.matrix), self.matrix @ inner.constant + self.constant)


def stacked(parts: Sequence[Affine]) -> Affine:
    """Affine functions of the same neurons, one below the other."""
    return Affine(
        Matrix(sparse.vstack([p.matrix for p in parts], format="csr")), np.concatenate([p.constant for p in parts])
    )


def selected(n: int, first: int, count: int) -> Affine:
    """`count` of n neurons, from `first` on, as functions of all."""
    return Affine(Matrix(sparse.eye_array(count, n, k=first, format="csr")), np.zeros(count))


def clip_layer(mesh: KuhnMesh) -> tuple[Affine, Affine]:
    """Layer of 2 d ReLUs of a point, and the clipped coordinates in cells from the corner as functions of them."""
    scale = sparse.diags_array(1.0 / mesh.width)
    corners = np.concatenate([mesh.lo, mesh.hi]) / np.tile(mesh.width, 2)
    eye = sparse.eye_array(mesh.dim)
    layer = Affine(Matrix(sparse.vstack([scale, scale])), -corners)
    return layer, Affine(Matrix(sparse.hstack([eye, -eye])), np.zeros(mesh.dim))


def hat_layers(z: Affine, nodes: Integers, *, tree: bool) -> list[Affine]:
    """Layers, one of the other, that end in the hat functions of nodes (k, d); z (d rows): coordinates in cells."""
    d = nodes.shape[1]
    rule = _plane if d == 2 and not tree else _tree
    layers, spread = rule(z, nodes)
    # A hat is 1 less its spread max(0, z) - min(0, z), cut off at 0.
    last = spread * -1.0
    layers.append(Affine(last.matrix, last.constant + 1.0))
    return layers


def _plane(z: Affine, nodes: Integers) -> tuple[list[Affine], Affine]:
    """One layer of relu(+-t), t each of z_1 - i, z_2 - j and z_1 - z_2 - (i - j), and half their sum for every node."""
    differences = Affine(Matrix(z.matrix[[0]] - z.matrix[[1]]), z.constant[[0]] - z.constant[[1]])
    parts: list[Affine] = []
    columns = []
    for line, place in ((z[[0]], nodes[:, 0]), (z[[1]], nodes[:, 1]), (differences, nodes[:, 0] - nodes[:, 1])):
        levels, back = np.unique(place, return_inverse=True)
        t = Affine(line.matrix[np.zeros(len(levels), dtype=np.int64)], line.constant[0] - levels)
        for sign in (1.0, -1.0):
            columns.append(back + sum(len(p.constant) for p in parts))
            parts.append(t * sign)
    layer = stacked(parts)
    halves = np.full(6 * len(nodes), 0.5)
    rows = np.repeat(np.arange(len(nodes)), 6)
    spread = Matrix((halves, (rows, np.stack(columns, axis=1).ravel())), shape=(len(nodes), len(layer.constant)))
    return [layer], Affine(spread, np.zeros(len(nodes)))


@dataclass(frozen=True, eq=False)
class _Maximum:
    """Maximum over some of 0, z_1 - i_1 .. z_d - i_d, for every choice of those i: rows of affine functions.

    `of_node` says which row belongs to a node; `zero` that 0 is among them.
    """

    axes: tuple[int, ...]
    rows: Affine | None
    of_node: Integers
    zero: bool


def _tree(z: Affine, nodes: Integers) -> tuple[list[Affine], Affine]:
    """Layers of a tree of maxima, and max(0, z - i) + max(0, i - z) for every node i."""
    sides = [_leaves(z, nodes, sign) for sign in (1.0, -1.0)]
    layers: list[Affine] = []
    while len(sides[0]) > 1:
        sides, layer = _level(sides, nodes, len(layers))
        layers.append(layer)
    up, down = (side[0] for side in sides)
    assert up.rows is not None
    assert down.rows is not None
    return layers, up.rows[up.of_node] + down.rows[down.of_node]


def _leaves(z: Affine, nodes: Integers, sign: float) -> list[_Maximum]:
    """0 and sign (z_j - i_j), for every i_j among the nodes."""
    found = [_Maximum((), None, np.zeros(len(nodes), dtype=np.int64), zero=True)]
    for j in range(nodes.shape[1]):
        levels, back = np.unique(nodes[:, j], return_inverse=True)
        line = z[np.full(len(levels), j)]
        t = Affine(line.matrix, line.constant - levels) * sign
        found.append(_Maximum((j,), t, back, zero=False))
    return found


def _level(
    sides: list[list[_Maximum]], nodes: Integers, depth: int
) -> tuple[list[list[_Maximum]], Affine]:  # fmt: skip
    """Join neighbours pairwise: the maxima of pairs as functions of the neurons of one more layer."""
    wanted: list[Affine] = []
    plans = []
    for side in sides:
        joined = []
        for k in range(0, len(side), 2):
            first, second = side[k], side[k + 1] if k + 1 < len(side) else None
            joined.append(_joined(first, second, nodes, wanted))
        plans.append(joined)
    neurons, back = _shared(stacked(wanted)) if depth == 0 else (stacked(wanted), None)
    offsets = np.concatenate([[0], np.cumsum([len(w.constant) for w in wanted])])
    n = len(neurons.constant)
    done = [
        [_Maximum(m.axes, _outputs(terms, offsets, back, n), m.of_node, m.zero) for m, terms in joined]
        for joined in plans
    ]
    return done, neurons


# A sum over neurons: (which group of wanted neurons, the row of it for each row of the result, sign).
_Terms = list[tuple[int, Integers, float]]


def _joined(
    first: _Maximum, second: _Maximum | None, nodes: Integers, wanted: list[Affine]
) -> tuple[_Maximum, _Terms]:  # fmt: skip
    """Neurons that the maximum of two maxima needs, put on the list, and which of them it adds up."""
    axes = first.axes + (second.axes if second else ())
    _, seen, of_node = np.unique(nodes[:, list(axes)], axis=0, return_index=True, return_inverse=True)
    of_first = first.of_node[seen]
    terms: _Terms = []
    if first.rows is not None:
        # A maximum with 0 among its entries is not negative: one ReLU carries it.
        for sign in (1.0,) if first.zero else (1.0, -1.0):
            terms.append((len(wanted), of_first, sign))
            wanted.append(first.rows * sign)
    if second is not None and second.rows is not None:
        ahead = second.rows[second.of_node[seen]]
        over = ahead if first.rows is None else ahead + first.rows[of_first] * -1.0
        terms.append((len(wanted), np.arange(len(seen)), 1.0))
        wanted.append(over)
    return _Maximum(axes, None, of_node.reshape(-1), first.zero), terms


def _shared(rows: Affine) -> tuple[Affine, Integers]:
    """Different rows among some, and where each went; for the layer after the clip, which has few inputs."""
    table = np.column_stack([rows.matrix.toarray(), rows.constant])
    _, kept, back = np.unique(table, axis=0, return_index=True, return_inverse=True)
    return rows[kept], back.reshape(-1)


def _outputs(terms: _Terms, offsets: Integers, back: Integers | None, n: int) -> Affine:
    """Sums of neurons as rows."""
    size = len(terms[0][1])
    rows, columns, signs = [], [], []
    for group, picked, sign in terms:
        at = offsets[group] + picked
        rows.append(np.arange(size))
        columns.append(at if back is None else back[at])
        signs.append(np.full(size, sign))
    entries = np.concatenate(signs), (np.concatenate(rows), np.concatenate(columns))
    return Affine(Matrix(entries, shape=(size, n)), np.zeros(size))


def layers_of_tree(dim: int) -> int:
    """Hidden layers of the tree, clip and hats included: 2 + ceil(log2(d + 1))."""
    return 2 + math.ceil(math.log2(dim + 1))
