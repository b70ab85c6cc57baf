"""ReLU layers that interpolate exactly, their counts, compact and composed blocks, files."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from scipy import sparse

from meanfield.errors import ConfigError, CorruptFileError, FileFormatError, OutputError, ResourceError
from meanfield.kuhn import KuhnMesh
from meanfield.relu_blocks import compact_block, composed_block
from meanfield.relu_files import (
    load_hdf5,
    load_npz,
    load_state_dict,
    save_hdf5,
    save_npz,
    save_onnx,
    save_torch,
    torch_module,
    torch_state_dict,
)
from meanfield.relu_layers import (
    hidden_layers,
    interpolation_block,
    layers_of_tree,
)
from meanfield.relu_network import ReluBlock, ReluResNet
from meanfield.schemes import HEUN, RK4

CELLS = {1: (23,), 2: (7, 4), 3: (3, 4, 2), 4: (2, 1, 3, 2), 5: (2, 1, 2, 1, 2), 6: (1, 2, 1, 1, 1, 2)}


def case(d, seed=0):
    """Mesh of a lopsided box, and nodal values of size 1."""
    rng = np.random.default_rng(seed)
    mesh = KuhnMesh(-rng.uniform(0.5, 2.0, d), rng.uniform(0.5, 2.0, d), np.array(CELLS[d]))
    return mesh, rng.uniform(-1, 1, (d, mesh.n_nodes)), rng


def in_simplices(mesh, values, rng, n):
    """Points as convex combinations of the corners of random simplices, and the same ones of the values there."""
    cells = np.stack([rng.integers(0, c, n) for c in mesh.cells])
    weights = rng.dirichlet(np.ones(mesh.dim + 1), n)
    corner = cells.copy()
    points, found = np.zeros((mesh.dim, n)), np.zeros((len(values), n))
    ways = np.array(list(itertools.permutations(range(mesh.dim))))[rng.integers(0, math.factorial(mesh.dim), n)].T
    for k in range(mesh.dim + 1):
        if k:
            corner[ways[k - 1], np.arange(n)] += 1
        node = np.ravel_multi_index(corner, mesh.shape)
        points += weights[:, k] * (mesh.lo[:, None] + corner * mesh.width[:, None])
        found += weights[:, k] * values[:, node]
    return points, found


@pytest.mark.parametrize("d", CELLS)
def test_layers_interpolate_exactly_on_every_simplex_and_clip_outside(d):
    mesh, values, rng = case(d)
    points, exact = in_simplices(mesh, values, rng, 1500)
    for form in ("short", "tree"):
        block = interpolation_block(mesh, values, hidden_layers(mesh, form))
        assert np.abs(block.value(points) - exact).max() < 1e-13
        assert np.abs(block.value(mesh.nodes()) - values).max() < 1e-13
        away = rng.uniform(-4, 4, (d, 500))
        nearest = np.clip(away, mesh.lo[:, None], mesh.hi[:, None])
        assert np.abs(block.value(away) - block.value(nearest)).max() < 1e-13
        assert np.abs(block.value(away) - mesh.interpolate(values, away)).max() < 1e-13


@pytest.mark.parametrize("d", CELLS)
def test_depths_and_neurons_are_those_of_the_formulas(d):
    mesh, values, _ = case(d)
    tree = interpolation_block(mesh, values, hidden_layers(mesh, "tree"))
    assert len(tree.widths) == layers_of_tree(d) == 2 + math.ceil(math.log2(d + 1))
    short = interpolation_block(mesh, values)
    assert short.widths[-1] == mesh.n_nodes
    if d == 1:
        assert short.widths == (mesh.n_nodes,)
    elif d == 2:
        sides = sum(mesh.shape)
        assert short.widths == (4, 2 * (sides + sides - 1), mesh.n_nodes)
    assert short.n_parameters == sum(np.count_nonzero(w.toarray()) + np.count_nonzero(b)
                                     for w, b in zip(short.weights, short.biases, strict=True))  # fmt: skip


def test_hat_functions_are_nonnegative_and_sum_to_one():
    mesh, _, rng = case(3)
    shared = hidden_layers(mesh)
    block = ReluBlock((*shared.weights, sparse.csr_array(np.zeros((3, mesh.n_nodes)))), (*shared.biases, np.zeros(3)))
    z = rng.uniform(-2, 2, (3, 400))
    for w, b in zip(block.weights[:-1], block.biases[:-1], strict=True):
        z = np.maximum(w @ z + b[:, None], 0.0)
    assert np.abs(z.sum(axis=0) - 1).max() < 1e-13
    assert (np.count_nonzero(z > 1e-12, axis=0) <= 4).all()


@pytest.mark.parametrize("d", [1, 2, 3, 4])
@pytest.mark.parametrize("hats", [1, 4])
def test_compact_blocks_have_bounded_width_and_the_depth_they_say(d, hats):
    mesh, values, rng = case(d)
    block = compact_block(mesh, values, hats)
    away = rng.uniform(-3, 3, (d, 300))
    assert np.abs(block.value(away) - mesh.interpolate(values, away)).max() < 1e-13
    groups = -(-mesh.n_nodes // hats)
    of_hat = {1: 1, 2: 2}.get(d, layers_of_tree(d) - 1)
    assert len(block.widths) == groups + of_hat
    if d < 3:
        assert max(block.widths) <= {1: 2 + hats, 2: 4 + 7 * hats}[d]
        finer = KuhnMesh(mesh.lo, mesh.hi, 2 * mesh.cells)
        assert max(compact_block(finer, finer.nodes(), hats).widths) <= {1: 2 + hats, 2: 4 + 7 * hats}[d]


@pytest.mark.parametrize("scheme", [HEUN, RK4], ids=lambda s: s.name)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_composed_blocks_are_runge_kutta_steps_of_the_interpolants(d, scheme):
    mesh, _, rng = case(d)
    tables = [rng.uniform(-0.5, 0.5, (d, mesh.n_nodes)) for _ in scheme.b]
    block = composed_block(mesh, tables, scheme.a, scheme.b)
    x = rng.uniform(-2, 2, (d, 200))
    stages = []
    for table, row in zip(tables, scheme.a, strict=True):
        inner = x + sum((w * k for w, k in zip(row, stages, strict=False)), np.zeros_like(x))
        stages.append(mesh.interpolate(table, inner))
    assert np.abs(block.value(x) - sum(w * k for w, k in zip(scheme.b, stages, strict=True))).max() < 1e-13
    assert len(block.widths) == len(tables) * (2 if d == 1 else len(hidden_layers(mesh).weights))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_lipschitz_bounds_are_not_exceeded_and_exact_on_the_line(d):
    mesh, values, rng = case(d)
    x = rng.uniform(mesh.lo[:, None], mesh.hi[:, None], (d, 40_000))
    y = x + 1e-7 * rng.choice([-1.0, 1.0], x.shape)
    change = mesh.interpolate(values, y) - mesh.interpolate(values, x)
    steepest = (np.abs(change).max(axis=0) / np.abs(y - x).max(axis=0)).max()
    bound = mesh.lipschitz(values)
    assert steepest <= bound * (1 + 1e-6)
    assert steepest > 0.5 * bound
    if d == 1:
        assert bound == pytest.approx(steepest, rel=1e-6)
        assert mesh.one_sided(values) == pytest.approx((np.diff(values) / mesh.width).max())
    parting = (np.abs(y + 1e-3 * mesh.interpolate(values, y) - x - 1e-3 * mesh.interpolate(values, x)).max(axis=0)
               / np.abs(y - x).max(axis=0) - 1) / 1e-3  # fmt: skip
    assert parting.max() <= mesh.one_sided(values) + 1e-3
    assert interpolation_block(mesh, values).norm_bound() >= bound


def test_bends_are_eight_times_the_error_for_a_quadratic():
    mesh = KuhnMesh(np.zeros(2), np.ones(2), np.array([4, 8]))
    values = (mesh.nodes() ** 2).sum(axis=0)[None]
    h = mesh.width
    inner = mesh.bends(values).reshape(mesh.shape)[1:-1, 1:-1]
    assert np.allclose(inner, 2 * (h**2).sum())
    middles = mesh.middles(np.array([0]))
    error = mesh.interpolate(values, middles) - (middles**2).sum(axis=0)
    assert np.allclose(sorted(error[0]), sorted([h[0] ** 2 / 4, h[1] ** 2 / 4, (h**2).sum() / 4]))


@pytest.fixture
def network():
    mesh, values, rng = case(2)
    blocks = [interpolation_block(mesh, v, shared) for shared in [hidden_layers(mesh)] for v in (values, 0.5 * values)]
    return ReluResNet(blocks, [0, 1, 0]), rng.uniform(-1, 1, (2, 50))


def test_blocks_follow_in_their_order_and_are_counted_once_where_shared(network):
    net, x = network
    y = x + net.blocks[0].value(x)
    y = y + net.blocks[1].value(y)
    assert np.array_equal(net.forward(x), y + net.blocks[0].value(y))
    counts = net.counts()
    assert (counts.blocks, counts.layers, counts.width) == (3, 9, max(net.blocks[0].widths))
    assert counts.neurons == 3 * sum(net.blocks[0].widths)
    assert counts.parameters == 2 * net.blocks[0].n_parameters + net.blocks[1].n_parameters
    assert counts.stored == net.blocks[0].n_parameters + np.count_nonzero(net.blocks[1].weights[-1].data)


@pytest.mark.parametrize(("save", "load"), [(save_hdf5, load_hdf5), (save_npz, load_npz)])
def test_files_return_the_network_with_its_sharing(network, save, load, tmp_path):
    net, x = network
    path = tmp_path / "network"
    save(net, path)
    back = load(path)
    assert np.array_equal(back.forward(x), net.forward(x))
    assert back.counts() == net.counts()
    with pytest.raises(OutputError, match="exists"):
        save(net, path)


def test_files_that_are_no_network_are_refused(network, tmp_path):
    net, _ = network
    text = tmp_path / "text"
    text.write_text("hello")
    for load in (load_hdf5, load_npz):
        with pytest.raises(FileFormatError, match="text"):
            load(text)
    other = tmp_path / "other.npz"
    np.savez(other, header=np.array(json.dumps({"format": "something"})))
    with pytest.raises(FileFormatError, match="format"):
        load_npz(other)
    save_npz(net, tmp_path / "good.npz")
    with np.load(tmp_path / "good.npz") as stored:
        parts = dict(stored)
    parts["indices_0"] = parts["indices_0"] + 100
    np.savez(tmp_path / "bad.npz", **parts)
    with pytest.raises(CorruptFileError, match="damaged"):
        load_npz(tmp_path / "bad.npz")


def test_a_state_dict_is_read_back(network):
    net, x = network
    state = {}
    for k, which in enumerate(net.order):
        for i, (w, b) in enumerate(zip(net.blocks[which].weights, net.blocks[which].biases, strict=True)):
            state |= {f"blocks.{k}.{i}.weight": w.toarray(), f"blocks.{k}.{i}.bias": b}
    assert np.abs(load_state_dict(state).forward(x) - net.forward(x)).max() < 1e-14
    with pytest.raises(ConfigError, match="unknown parameter"):
        load_state_dict({"layers.0.weight": np.eye(2)})
    del state["blocks.1.0.bias"]
    with pytest.raises(ConfigError, match="block 1"):
        load_state_dict(state)


def test_torch_runs_the_same_network(network, tmp_path):
    torch = pytest.importorskip("torch")
    net, x = network
    module = torch_module(net)
    with torch.no_grad():
        found = module(torch.from_numpy(x.T.copy())).numpy().T
    assert np.abs(found - net.forward(x)).max() < 1e-14
    save_torch(net, tmp_path / "net.pt")
    state = torch.load(tmp_path / "net.pt", weights_only=True)
    back = load_state_dict(state)
    assert np.abs(back.forward(x) - net.forward(x)).max() < 1e-14
    assert back.counts() == net.counts()
    assert set(state) == set(torch_state_dict(net))


def test_onnx_runs_the_same_network(network, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    net, x = network
    save_onnx(net, tmp_path / "net.onnx")
    session = runtime.InferenceSession(tmp_path / "net.onnx")
    (found,) = session.run(None, {"x": np.ascontiguousarray(x.T)})
    assert np.abs(found.T - net.forward(x)).max() < 1e-14


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: KuhnMesh(np.zeros(1), np.zeros(1), np.array([3])), "empty along axis 0"),
        (lambda: KuhnMesh(np.zeros(2), np.ones(2), np.array([3, 0])), "cells"),
        (lambda: KuhnMesh(np.zeros(2), np.ones(2), np.array([3, 1, 2])), "length 3"),
        (lambda: ReluBlock((np.ones((3, 2)), np.ones((2, 4))), (np.zeros(3), np.zeros(2))), "layer 1"),
        (lambda: ReluBlock((np.ones((3, 2)),), (np.zeros(3),)), "from 2 to 3"),
        (lambda: ReluBlock((np.full((2, 2), np.nan),), (np.zeros(2),)), "finite"),
        (lambda: ReluResNet([]), "blocks"),
        (lambda: ReluResNet([ReluBlock((np.eye(2),), (np.zeros(2),))], [1]), "order"),
    ],
)
def test_numbers_that_make_no_network_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_layers_that_do_not_fit_are_refused_before_they_are_made():
    with pytest.raises(ResourceError, match="GiB"):
        hidden_layers(KuhnMesh(np.zeros(4), np.ones(4), np.array([1000])))
