"""Blocks of ReLU layers beyond plain interpolation: few neurons a layer, and Runge-Kutta steps.

Both are consequences of the layers of `relu_layers`: hat functions may be added up one after the other instead of side
by side, and a stage of a Runge-Kutta step is an interpolant behind those before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from meanfield._checks import positive_int
from meanfield.kuhn import KuhnMesh
from meanfield.relu_layers import (
    Affine,
    Layers,
    Matrix,
    clip_layer,
    hat_layers,
    hidden_layers,
    readout,
    selected,
    stacked,
)
from meanfield.relu_network import ReluBlock

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


def compact_block(mesh: KuhnMesh, values: Array, hats_per_layer: int = 1) -> ReluBlock:
    """Interpolation with few neurons a layer: groups of hat functions one after the other, added up on the way.

    Every layer carries the d clipped coordinates and the d sums so far, none negative, so each by one ReLU; the sums
    are raised by a bound of theirs. While a group of w hats is in its last layer the next ones are in their first.

    Parameters
    ----------
    mesh
        Of d axes.
    values
        Nodal values, (d, nodes).
    hats_per_layer
        w >= 1. The width is at most 2 + w for d = 1, 4 + 7 w for d = 2, and 2 d + w times the neurons of one hat
        beyond; the hidden layers are ceil(nodes/w) + 1 for d = 1, ceil(nodes/w) + 2 for d = 2, and
        ceil(nodes/w) + 1 + ceil(log2(d + 1)) beyond.

    Returns
    -------
    ReluBlock
        Equal to `interpolation_block` to round-off.
    """
    w, d = positive_int("hats_per_layer", hats_per_layer), mesh.dim
    clip, z = clip_layer(mesh)
    nodes = np.stack(np.unravel_index(np.arange(mesh.n_nodes), mesh.shape), axis=1)
    factors, raised = _amplitudes(mesh, values)
    groups = [slice(i, i + w) for i in range(0, len(nodes), w)]
    eye = Affine(Matrix(sparse.eye_array(d)), np.zeros(d))
    networks = [_group(eye, nodes[group]) for group in groups]
    depth = len(networks[0])
    layers, sums = [clip], Affine(Matrix((d, 2 * d)), raised)
    running: dict[int, tuple[int, int]] = {}
    for step in range(len(groups) + depth - 1):
        # Of every group on its way, the neurons of its next layer; `running` says where those of the last one stand.
        begun = step >= depth
        wanted, places, at = [z, *([sums] if begun else [])], {}, d + d * begun
        for g in range(max(0, step - depth + 1), min(step + 1, len(groups))):
            inner = z if step == g else selected(len(layers[-1].constant), *running[g])
            wanted.append(networks[g][step - g].of(inner))
            count = len(wanted[-1].constant)
            places[g], at = (at, count), at + count
        layers.append(stacked(wanted))
        running, z = places, selected(at, 0, d)
        sums = selected(at, d, d) if begun else Affine(Matrix((d, at)), raised)
        done = step - depth + 1
        if done >= 0:
            own = Affine(Matrix(factors[:, groups[done]]), np.zeros(d))
            sums += own.of(selected(at, *places[done]))
    last = Affine(sums.matrix, sums.constant - raised + _start(mesh, values))
    return ReluBlock(tuple(a.matrix for a in (*layers, last)), tuple(a.constant for a in (*layers, last)))


def _amplitudes(mesh: KuhnMesh, values: Array) -> tuple[Array, Array]:
    """Factors (d, nodes) of the functions that are added up, and how low a sum of the first few can go, (d,)."""
    if mesh.dim > 1:
        return values, np.abs(values).max(axis=1)
    bent = np.diff(np.diff(values, axis=1), axis=1, prepend=0.0, append=0.0)
    # Up to node m the interpolant less F_0, beyond it the straight line of its slope.
    steep = np.abs(np.diff(values, axis=1)).max(axis=1) * mesh.cells[0]
    return bent, np.ptp(values, axis=1) + steep


def _start(mesh: KuhnMesh, values: Array) -> Array:
    return values[:, 0] if mesh.dim == 1 else np.zeros(mesh.dim)


def _group(z: Affine, nodes: Integers) -> list[Affine]:
    """Layers from the clipped coordinates to the functions of some nodes."""
    d = nodes.shape[1]
    if d == 1:
        line = z[np.zeros(len(nodes), dtype=np.int64)]
        return [Affine(line.matrix, line.constant - nodes[:, 0])]
    return hat_layers(z, nodes, tree=d > 2)


def composed_block(mesh: KuhnMesh, tables: Sequence[Array], a: Array, b: Array) -> ReluBlock:
    """Block of an explicit Runge-Kutta step: R(x) = sum_i b_i K_i, K_i the interpolant i at x + sum_j a_ij K_j.

    The stages follow each other, so the depth is that of one interpolant times the stages; x and the K_j still needed
    are carried along by two ReLUs for each number.

    Parameters
    ----------
    mesh
        Of d axes.
    tables
        Nodal values of every stage, (d, nodes), the length of the step in them.
    a, b
        Tableau, (s, s) strictly lower triangular and (s,).
    """
    d, layers = mesh.dim, _hidden_of_stage(mesh)
    done: list[Affine] = []
    # Each number in use as a function of the neurons of the layer before: "x" is -1, K_j is j.
    known = {-1: Affine(Matrix(sparse.eye_array(d)), np.zeros(d))}
    for i, table in enumerate(tables):
        inner = known[-1]
        for j in range(i):
            if a[i, j] != 0.0:
                inner += known[j] * float(a[i, j])
        later = a[i + 1 :]
        keep = [j for j in known if (j < 0 and i + 1 < len(tables)) or (j >= 0 and (b[j] != 0.0 or later[:, j].any()))]
        for w, c in zip(layers.weights, layers.biases, strict=True):
            own = Affine(w, c).of(inner)
            both = [known[j] * sign for j in keep for sign in (1.0, -1.0)]
            together = stacked([own, *both])
            done.append(together)
            at, n = len(own.constant), len(together.constant)
            inner = selected(n, 0, at)
            known = {j: selected(n, at + 2 * d * k, d) + selected(n, at + 2 * d * k + d, d) * -1.0
                     for k, j in enumerate(keep)}  # fmt: skip
        known[i] = Affine(*readout(mesh, layers, table)).of(inner)
    total = Affine(Matrix((d, len(done[-1].constant))), np.zeros(d))
    for j, weight in enumerate(b.tolist()):
        if weight != 0.0:
            total += known[j] * weight
    return ReluBlock(tuple(a.matrix for a in (*done, total)), tuple(a.constant for a in (*done, total)))


def _hidden_of_stage(mesh: KuhnMesh) -> Layers:
    """Hidden layers of a stage: behind another stage the line has a clip too, which keeps matrices sparse."""
    if mesh.dim > 1:
        return hidden_layers(mesh)
    clip, z = clip_layer(mesh)
    h = float(mesh.width[0])
    places = np.arange(mesh.n_nodes, dtype=np.float64)
    rows = z[np.zeros(mesh.n_nodes, dtype=np.int64)] * h
    return Layers((clip.matrix, rows.matrix), (clip.constant, rows.constant - places * h), hats=False)
