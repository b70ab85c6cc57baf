"""Taking in trained networks: names, files whole, damaged and hostile, roughness in depth, gaps after refinement."""

from __future__ import annotations

import contextlib
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest

from meanfield import integrate
from meanfield.controls import Controls
from meanfield.diagnostics.rates import fit_rate
from meanfield.diagnostics.roughness import forward_gap, roughness
from meanfield.errors import (
    ConfigError,
    CorruptFileError,
    FileFormatError,
    MeanfieldError,
    ResourceError,
    UnsafeFileError,
)
from meanfield.models.residual import ResidualNetwork
from meanfield.storage.reader import MissingExtraError
from meanfield.velocities import Velocity
from meanfield.weights import read_weights

RNG = np.random.default_rng(21)
LAYERS, DIM = 11, 3
W, B = RNG.standard_normal((LAYERS, DIM, DIM)), RNG.standard_normal((LAYERS, DIM))
PATTERNS = {"w": "blocks.{}.w", "b": "blocks.{}.b"}


def numbered(first: int = 0, step: int = 1) -> dict[str, np.ndarray]:
    """A network by layer, in the order of the alphabet (10 before 2), with what is no layer beside it."""
    found = {f"blocks.{first + step * k}.w": W[k] for k in range(LAYERS)}
    found |= {f"blocks.{first + step * k}.b": B[k] for k in range(LAYERS)}
    return dict(sorted(found.items())) | {"head.weight": np.ones((2, DIM))}


def without(name: str) -> dict[str, np.ndarray]:
    return {key: array for key, array in numbered().items() if key != name}


def test_numbered_names_are_stacked_by_number():
    weights = read_weights(numbered(), PATTERNS, span=(0.0, 2.0))
    assert list(weights) == ["w", "b"]
    np.testing.assert_array_equal(weights["w"].values, W)
    np.testing.assert_array_equal(weights["b"].values, B)
    np.testing.assert_allclose(weights["w"].knots, np.linspace(0.0, 2.0, LAYERS + 1))
    assert weights["w"].interpolation == "constant"


def test_names_are_found_where_a_whole_component_is_a_number():
    assert sorted(read_weights(numbered())) == ["blocks.{}.b", "blocks.{}.w"]
    assert list(read_weights({"net/w_0": W[0], "net/w_1": W[1], "conv2": B[0]})) == ["net/w_{}"]
    assert list(read_weights({"w0": W[0], "w1": W[1]}, ["w{}"])) == ["w{}"]
    deep = read_weights({"blocks.0.fc.3.w": W[0], "blocks.1.fc.3.w": W[1]})
    np.testing.assert_array_equal(deep["blocks.{}.fc.3.w"].values, W[:2])


def test_chosen_layers_and_whole_arrays():
    np.testing.assert_array_equal(read_weights(numbered(first=1), PATTERNS)["b"].values, B)
    odd = read_weights(numbered(step=2), PATTERNS, layers=range(2, 2 * LAYERS, 2))
    np.testing.assert_array_equal(odd["w"].values, W[1:])
    whole = read_weights({"w2": W, "b2": B.tolist()}, {"w": "w2", "b": "b2"})
    np.testing.assert_array_equal(whole["b"].values, B)
    np.testing.assert_array_equal(read_weights({"w": W}, ["w"], layers=range(3, 5))["w"].values, W[3:5])
    one = read_weights({"blocks.0.w": W[0]}, {"w": "blocks.{}.w"})
    np.testing.assert_array_equal(one["w"].values, W[:1])


@pytest.mark.parametrize("form", ["outside", "inside"])
def test_a_network_that_was_read_is_the_network(form):
    weights = read_weights(numbered(), PATTERNS)
    velocity = getattr(Velocity, form)("tanh", weights["w"], weights["b"])
    again = Velocity.from_layers("tanh", form, (0.0, 1.0), *(c.values for c in weights.values()))
    x = RNG.standard_normal((DIM, 8))
    written = x.copy()
    for w, b in zip(W, B, strict=True):
        change = np.tanh(w @ written + b[:, None]) if form == "outside" else w @ np.tanh(written) + b[:, None]
        written = written + change / LAYERS
    for one in (velocity, again):
        got = integrate(ResidualNetwork(one, 8), x, (0.0, 1.0), scheme="euler", n_steps=LAYERS).final
        np.testing.assert_allclose(got, written, rtol=1e-12)


def test_divided_parameters_are_those_of_a_network_without_the_length_of_a_layer():
    v, c = RNG.standard_normal((LAYERS, DIM, 5)), RNG.standard_normal((LAYERS, DIM))
    w = RNG.standard_normal((LAYERS, 5, DIM))
    read = read_weights({"v": v, "w": w, "c": c}, list("vwc"), divided=("v", "c"), span=(0.0, 3.0))
    np.testing.assert_array_equal(read["w"].values, w)
    velocity, x = Velocity.two_layer("relu", read["v"], read["w"], 0.0, read["c"]), RNG.standard_normal((DIM, 6))
    got = integrate(ResidualNetwork(velocity, 6), x, (0.0, 3.0), scheme="euler", n_steps=LAYERS).final
    for k in range(LAYERS):
        x = x + v[k] @ np.maximum(w[k] @ x, 0.0) + c[k][:, None]
    np.testing.assert_allclose(got, x, rtol=1e-11)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        (
            {k: v for k, v in numbered().items() if k != "blocks.4.w"},
            {},
            r"'blocks.\{\}.w' has no layer 4, only 0, 1, 2",
        ),
        (
            numbered() | {"blocks.3.w": np.ones((3, 4))},
            {},
            r"blocks.3.w has shape \(3, 4\), but blocks.0.w has \(3, 3\)",
        ),
        (numbered() | {"blocks.3.w": np.full((3, 3), np.nan)}, {}, "blocks.3.w must be finite, got nan at index"),
        (numbered() | {"blocks.3.w": np.ones((3, 3), complex)}, {}, "blocks.3.w must be real"),
        (numbered() | {"blocks.3.w": "none"}, {}, "blocks.3.w must be an array of numbers"),
        (numbered() | {"blocks.11.w": W[0]}, {}, r"same number of layers, got w \(12\), b \(11\)"),
        (numbered() | {"blocks.03.w": W[0]}, {}, "'blocks.03.w' has a number that is out of range or there twice"),
        (numbered() | {f"blocks.{'9' * 5000}.w": W[0]}, {}, "out of range"),
        (numbered(), {"names": {"w": "block.{}.w"}}, r"no name fits 'block.\{\}.w' \(there are blocks.0.b"),
        (numbered(), {"names": ["blocks.{}.{}"]}, "a pattern has at most one"),
        (numbered(), {"names": [3]}, "a pattern has at most one {}, got 3"),
        (numbered(), {"names": "blocks.{}.w"}, "names must be patterns such as"),
        (numbered(), {"names": ["head.wight"]}, "no array 'head.wight', did you mean 'head.weight'"),
        (numbered(), {"names": []}, "no name has a number"),
        ({"w": W}, {"names": None}, "no name has a number for its layer; there are w"),
        ({}, {"names": None}, "there are none at all"),
        (numbered(), {"layers": range(9, 13)}, r"has no layer 11, only 0, 1"),
        (numbered(), {"layers": range(-1, 3)}, "layers must be a range of numbers >= 0"),
        (numbered(), {"layers": 3}, "layers must be a range"),
        ({"w": W}, {"names": ["w"], "layers": range(20)}, "w has 11 layers, none of them 19"),
        ({"w": 3.0}, {"names": ["w"]}, r"w has shape \(\), expected a leading axis"),
        (numbered(), {"span": (1.0, 1.0)}, "span must increase"),
        (numbered(), {"divided": ("v",)}, "divided names 'v', which is none of w, b"),
        ([W], {}, "source must hold arrays by name"),
        ({1: W}, {}, "source must hold arrays by name"),
        ("net.onnx", {}, "weights are read from .npz, .pt and .pth, not from '.onnx'"),
        ("/nowhere/net.npz", {}, "no such file"),
    ],
)
def test_bad_sources_are_refused_by_name(source, options, words):
    with pytest.raises(ConfigError, match=words):
        read_weights(source, **({"names": PATTERNS} | options))


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_give_what_the_mapping_gives(tmp_path, save):
    save(tmp_path / "net.npz", **numbered())
    read = read_weights(tmp_path / "net.npz", PATTERNS)
    for label, given in (("w", W), ("b", B)):
        np.testing.assert_array_equal(read[label].values, given)
    save(tmp_path / "half.npz", **{name: array.astype(np.float32) for name, array in numbered().items()})
    assert read_weights(str(tmp_path / "half.npz"), PATTERNS)["w"].values.dtype == np.float64


def test_hostile_archives_are_refused(tmp_path):
    file = tmp_path / "net.npz"
    np.savez(file, **{"blocks.0.w": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(UnsafeFileError, match="pickled"):
        read_weights(file)
    header = b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }"
    for content, error, words in (
        (header.ljust(127) + b"\n", ResourceError, "declared"),
        (b"no array", FileFormatError, "not a .npy array"),
    ):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("blocks.0.w.npy", content)
        with pytest.raises(error, match=words):
            read_weights(file)
    file.write_bytes(b"text")
    with pytest.raises(FileFormatError, match=r"not a .npz file"):
        read_weights(file)
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigError, match="no such file"):
        read_weights(file)


def test_damaged_archives_raise_errors_of_the_package_or_give_the_numbers(tmp_path):
    whole, file = tmp_path / "whole.npz", tmp_path / "net.npz"
    np.savez_compressed(whole, **numbered())
    data = whole.read_bytes()
    refused = 0
    for k in range(400):
        bad = bytearray(data)
        if k % 4 == 0:
            bad = bad[: int(RNG.integers(len(data)))]
        else:
            bad[int(RNG.integers(len(data)))] ^= 1 << int(RNG.integers(8))
        file.write_bytes(bad)
        try:
            read = read_weights(file, PATTERNS)
        except MeanfieldError:
            refused += 1
        else:
            np.testing.assert_array_equal(read["w"].values, W)
            np.testing.assert_array_equal(read["b"].values, B)
    assert refused > 200


class Payload:
    """What writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_torch_files_and_modules_are_read_and_nothing_is_executed(tmp_path):
    torch = pytest.importorskip("torch")
    state = {name: torch.tensor(array) for name, array in numbered().items()}
    for k, content in enumerate((state, {"state_dict": state, "epoch": 3}, {"model": state})):
        file = tmp_path / f"{k}.pt"
        torch.save(content, file)
        read = read_weights(file, PATTERNS)
        np.testing.assert_array_equal(read["w"].values, W)
    half = {name: array.to(torch.bfloat16) for name, array in state.items()}
    np.testing.assert_allclose(read_weights(half, PATTERNS)["b"].values, B, rtol=1e-2)
    layers = torch.nn.ModuleList([torch.nn.Linear(2, 2) for _ in range(3)])
    assert read_weights(layers)["{}.weight"].values.shape == (3, 2, 2)
    huge = {"blocks.0.w": torch.ones(1).expand(10**12)}
    torch.save(huge, tmp_path / "huge.pt")
    with pytest.raises(ResourceError, match=r"blocks.0.w"):
        read_weights(tmp_path / "huge.pt")
    with pytest.raises(ConfigError, match="complex"):
        read_weights({"blocks.0.w": torch.ones(2, dtype=torch.complex64)})
    torch.save({"blocks.0.w": Payload(str(tmp_path / "written"))}, tmp_path / "bad.pt")
    with pytest.raises(UnsafeFileError, match="more than tensors"):
        read_weights(tmp_path / "bad.pt")
    assert not (tmp_path / "written").exists()
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ConfigError, match="must hold arrays by name"):
        read_weights(tmp_path / "list.pt")
    data = (tmp_path / "0.pt").read_bytes()
    for k in range(60):
        bad = bytearray(data)
        bad[int(RNG.integers(len(data)))] ^= 1 << int(RNG.integers(8))
        (tmp_path / "flip.pt").write_bytes(bad if k % 3 else bad[: len(bad) // 2])
        with contextlib.suppress(MeanfieldError):
            np.testing.assert_array_equal(read_weights(tmp_path / "flip.pt", PATTERNS)["w"].values, W)


@pytest.mark.parametrize(
    ("version", "raised", "error", "words"),
    [
        ("2.5.1", None, MissingExtraError, "needs torch 2.6 or newer"),
        ("2.6.0", pickle.UnpicklingError("Weights only load failed\nmore"), UnsafeFileError, "load failed$"),
        ("2.9.0+cpu", RuntimeError("invalid header"), CorruptFileError, "invalid header"),
    ],
)
def test_what_torch_refuses_is_refused(tmp_path, monkeypatch, version, raised, error, words):
    def load(file, *, map_location, weights_only):
        assert weights_only is True
        raise raised

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__version__=version, load=load))
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        archive.writestr("net/data.pkl", b"")
    with pytest.raises(error, match=words):
        read_weights(tmp_path / "net.pt")


def test_torch_files_without_torch_name_the_extra_and_others_are_refused_before(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        archive.writestr("net/data.pkl", b"")
    with pytest.raises(MissingExtraError, match=r"pip install 'meanfield\[export\]'"):
        read_weights(tmp_path / "net.pt")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(FileFormatError, match=r"not a .pth file"):
        read_weights(tmp_path / "old.pth")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data/0", bytes(100 * 2**20))
    with pytest.raises(ResourceError, match="declared"):
        read_weights(tmp_path / "bomb.pt")


# ---------------------------------------------------------------- distance to a limit

DEPTHS = np.array([16, 32, 64, 128, 256])


def smooth(n: int) -> Controls:
    t = (np.arange(n) + 0.5) / n
    a = np.stack([np.cos(2 * t), np.sin(3 * t), t**2, 1 - t], axis=-1).reshape(n, 2, 2)
    return Controls(np.linspace(0, 1, n + 1), 2.0 * a)


def rough(n: int) -> Controls:
    return Controls(np.linspace(0, 1, n + 1), np.random.default_rng(n).standard_normal((n, 2, 2)))


def test_roughness_written_out():
    c = Controls([0.0, 1.0, 2.0, 4.0], [[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])
    got = roughness(c)
    assert (got.n_layers, got.variation) == (3, 5.0)
    assert got.slope == pytest.approx(5.0 * 4.0 / 1.0)
    assert got.rms_jump == pytest.approx(5.0 / np.sqrt(2))
    assert got.size == pytest.approx(np.sqrt(50 / 3))
    # The squares about the mean are 9 (4/9 + 1/9 + 1/9) + 16 (6/9).
    assert got.independence == pytest.approx(25.0 / (2.0 * 50.0 / 3.0))
    linear = roughness(Controls([0.0, 1.0, 2.0, 4.0], [0.0, 1.0, 1.0, 3.0], "linear"))
    assert linear.slope == pytest.approx(4.0)
    layers = roughness(Controls(np.linspace(0, 3, LAYERS + 1), W))
    assert layers.slope == pytest.approx(np.linalg.norm(np.diff(W, axis=0), axis=(1, 2)).max() * LAYERS)
    flat = roughness(Controls([0.0, 1.0, 2.0], [2.0, 2.0]))
    assert (flat.slope, flat.variation, flat.independence, flat.size) == (0.0, 0.0, 0.0, 2.0)
    assert roughness(Controls([0.0, 1.0], [2.0])).slope == 0.0


def test_roughness_tells_smooth_layers_from_independent_ones():
    curves, noises = [roughness(smooth(n)) for n in DEPTHS], [roughness(rough(n)) for n in DEPTHS]
    orders = {"slope": 0.0, "rms_jump": -1.0, "variation": 0.0, "independence": -2.0, "size": 0.0}
    for name, order in orders.items():
        assert abs(fit_rate(DEPTHS, [getattr(r, name) for r in curves]).slope - order) < 0.1
    assert abs(fit_rate(DEPTHS, [r.variation for r in noises]).slope - 1.0) < 0.1
    assert fit_rate(DEPTHS, [r.slope for r in noises]).slope > 0.9
    assert abs(np.mean([r.independence for r in noises]) - 1.0) < 0.1


@pytest.mark.parametrize("form", ["outside", "inside", "two_layer"])
def test_smooth_layers_are_near_themselves_refined_and_the_gap_is_the_one_to_the_limit(form):
    x = RNG.standard_normal((2, 40))
    gaps, limits = [], []
    for n in DEPTHS:
        w = smooth(n)
        parts = (w, w, 0.3) if form == "two_layer" else (w, 0.3)
        found = forward_gap(getattr(Velocity, form)("tanh", *parts), x)
        fine = smooth(8192)
        parts = (fine, fine, 0.3) if form == "two_layer" else (fine, 0.3)
        limit = forward_gap(getattr(Velocity, form)("tanh", *parts), x, (2,)).change
        assert found.change == pytest.approx(limit, rel=0.2)
        gaps.append(found.gaps[0])
        limits.append(found.limit_gap)
    assert abs(fit_rate(DEPTHS, gaps).slope + 1.0) < 0.1
    assert abs(fit_rate(DEPTHS, limits).slope + 1.0) < 0.1
    assert found.expected_growth == pytest.approx(1.5)
    assert found.growth == pytest.approx(1.5, rel=0.02)
    np.testing.assert_allclose(found.relative, found.gaps / found.change)


def test_the_gap_to_the_limit_is_estimated():
    x = np.random.default_rng(3).standard_normal((2, 40))
    network, deep = (Velocity.outside("tanh", smooth(n), 0.3) for n in (64, 16384))
    one, other = (
        integrate(ResidualNetwork(v, 40), x, (0.0, 1.0), scheme="euler", n_steps=n).final
        for v, n in ((network, 64), (deep, 16384))
    )
    distance = np.sqrt(np.mean(np.sum((one - other) ** 2, axis=0)))
    assert forward_gap(network, x).limit_gap == pytest.approx(distance, rel=0.05)


def test_independent_layers_stay_far_from_themselves_refined():
    x = np.random.default_rng(4).standard_normal((2, 40))

    def gap(n, seed):
        # x + W tanh(x)/sqrt(L), W independent: the limit of depth is a diffusion, not a flow.
        w = np.sqrt(n) * np.random.default_rng([n, seed]).standard_normal((n, 2, 2))
        return forward_gap(Velocity.inside("tanh", Controls(np.linspace(0, 1, n + 1), w)), x).relative[0]

    gaps = [np.median([gap(int(n), seed) for seed in range(9)]) for n in DEPTHS]
    assert min(gaps) > 0.05
    assert abs(fit_rate(DEPTHS, gaps).slope) < 0.3


def test_networks_that_blow_up_have_no_finite_gap_and_no_warning():
    w = Controls(np.linspace(0, 1, 301), np.full((300, 1, 1), 1e4))
    assert not np.isfinite(forward_gap(Velocity.outside("identity", w), np.ones((1, 2))).gaps).any()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: forward_gap(Velocity.outside("tanh", np.eye(2)), np.ones((2, 3))),
            "must have the layers of a network",
        ),
        (
            lambda: forward_gap(Velocity.outside("tanh", lambda t: t * np.eye(2)), np.ones((2, 3))),
            "must have the layers",
        ),
        (lambda: forward_gap(smooth(4), np.ones((2, 3))), "must have the layers"),
        (lambda: forward_gap(Velocity.outside("tanh", smooth(4)), np.ones((2, 3)), (1, 2)), "increase from 2 or more"),
        (lambda: forward_gap(Velocity.outside("tanh", smooth(4)), np.ones((2, 3)), (4, 2)), "increase from 2 or more"),
        (lambda: forward_gap(Velocity.outside("tanh", smooth(4)), np.ones((2, 3)), ()), "increase from 2 or more"),
        (lambda: forward_gap(Velocity.outside("tanh", smooth(4)), np.ones((3, 3))), r"x has shape \(3, 3\)"),
        (
            lambda: forward_gap(
                Velocity.outside("tanh", smooth(4), Controls([0, 1, 2], np.ones((2, 2)))), np.ones((2, 3))
            ),
            "different knots",
        ),
    ],
)
def test_networks_without_layers_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
