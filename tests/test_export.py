"""Networks as plain finite ResNets: the forward pass, files, torch, bad input."""

from __future__ import annotations

import errno
import sys
import zipfile

import numpy as np
import pytest

from meanfield import (
    ConfigError,
    Controls,
    Dense,
    Grid,
    OperatorPath,
    OutputError,
    Separable,
    SpaceTimeNetwork,
    integrate,
)
from meanfield.activations import ACTIVATIONS
from meanfield.errors import CorruptFileError, FileFormatError
from meanfield.export import FiniteResNet, load_npz, to_layers
from meanfield.models.variable import VariableWidthNetwork
from meanfield.storage.reader import MissingExtraError
from meanfield.transfer import growth, wide_narrow_wide

T = 1.3
RNG = np.random.default_rng(11)
GRID = Grid.interval(9, "gauss")
DENSE = Dense(GRID, RNG.standard_normal((9, 9)), local=-0.3)
OTHER = Dense(GRID, RNG.standard_normal((9, 9)))
TERMS = Separable(GRID, RNG.standard_normal((3, 9)), RNG.standard_normal((3, 9)))


def kernel(t, x, y):
    return np.cos(3 * x - y + t)


def variable(placement="inside", activation="tanh", n_layers=20, grids=None):
    grids = wide_narrow_wide(17, 7, n_layers) if grids is None else grids
    return VariableWidthNetwork(
        np.linspace(0.0, T, n_layers + 1),
        grids,
        kernel,
        activation,
        np.sin,
        placement=placement,
        leak=0.4,
        n_samples=3,
    )


def relative_gap(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.mark.parametrize("placement", ["inside", "outside"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_is_the_solver_on_networks_of_variable_width(placement, activation):
    for grids in (None, growth(11, 4, 20)):
        model = variable(placement, activation, grids=grids)
        z0 = RNG.standard_normal((3, model.widths[0]))
        final = model.unpack(integrate(model, z0, (0.0, T)).final)
        network = to_layers(model)
        np.testing.assert_array_equal(network.widths, model.widths)
        assert relative_gap(network.forward(z0), final) <= 1e-13
        assert relative_gap(network.forward(z0[1]), final[1]) <= 1e-13


SPACETIME = {
    "dense": (DENSE, 0.2, None),
    "path": (OperatorPath([0.0, 0.5, T], [DENSE, OTHER]), 0.0, None),
    "controls": (OTHER, Controls([0.0, 0.5, T], RNG.standard_normal((2, 9))), Controls([0.0, T], [1.0, 2.0], "linear")),
    "terms": (TERMS, 0.1, Controls([0.0, T], RNG.standard_normal((2, 3)), "linear")),
}


@pytest.mark.parametrize("placement", ["inside", "outside"])
@pytest.mark.parametrize("kind", SPACETIME)
def test_forward_is_euler_on_space_time_networks(kind, placement):
    operator, bias, amplitude = SPACETIME[kind]
    model = SpaceTimeNetwork(operator, "tanh", bias, amplitude=amplitude, placement=placement, leak=0.2, n_samples=2)
    z0 = RNG.standard_normal((2, 9))
    final = integrate(model, z0, (0.0, T), scheme="euler", dt=0.05).final
    network = to_layers(model, (0.0, T), dt=0.05)
    assert network.n_layers == 26
    assert relative_gap(network.forward(z0), final) <= 1e-13
    assert to_layers(model, (0.5, T), n_steps=8).n_layers == 8


def test_layers_hold_the_step_and_no_identity():
    inside, outside = (
        to_layers(SpaceTimeNetwork(DENSE, "relu", 0.5, placement=p, leak=0.1), (0.0, 1.0), n_steps=4)
        for p in ("inside", "outside")
    )
    np.testing.assert_allclose(inside.weights[2], 0.25 * DENSE.dense(), rtol=1e-14)
    np.testing.assert_allclose(inside.biases[2], 0.125)
    np.testing.assert_array_equal(inside.scales, 1.0)
    np.testing.assert_allclose(outside.weights[2], DENSE.dense(), rtol=1e-14)
    np.testing.assert_allclose(outside.biases[2], 0.5)
    np.testing.assert_array_equal(outside.scales, 0.25)
    for network in (inside, outside):
        assert network.shortcuts == (None,) * 4
        np.testing.assert_allclose(network.carries, 0.975)
        assert all(w is network.weights[0] for w in network.weights)
    model = variable()
    shortcuts = to_layers(model).shortcuts
    assert [k for k, s in enumerate(shortcuts) if s is not None] == [6, 14]
    np.testing.assert_array_equal(shortcuts[14], model.shortcut(14).matrix.toarray())


@pytest.mark.parametrize("placement", ["inside", "outside"])
def test_archive_gives_the_network_back(placement, tmp_path):
    network = to_layers(variable(placement))
    network.save_npz(tmp_path / "net.npz")
    again = load_npz(tmp_path / "net.npz")
    z0 = RNG.standard_normal((3, 17))
    np.testing.assert_array_equal(again.forward(z0), network.forward(z0))
    assert (again.activation, again.placement) == ("tanh", placement)
    np.load(tmp_path / "net.npz", allow_pickle=False)["weights_0"]


def test_layers_that_share_a_matrix_store_it_once(tmp_path):
    network = to_layers(SpaceTimeNetwork(DENSE, "relu"), (0.0, 1.0), n_steps=500)
    network.save_npz(tmp_path / "net.npz")
    assert sorted(np.load(tmp_path / "net.npz").files) == ["biases_0", "carries", "header", "scales", "weights_0"]
    again = load_npz(tmp_path / "net.npz")
    assert again.weights[499] is again.weights[0]


def test_existing_output_is_never_replaced(tmp_path):
    path = tmp_path / "net.npz"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already") as caught:
        to_layers(variable()).save_npz(path)
    assert caught.value.errno == errno.EEXIST
    assert path.read_bytes() == b"mine"
    with pytest.raises(OutputError, match="write") as caught:
        to_layers(variable()).save_npz(tmp_path / "missing" / "net.npz")
    assert caught.value.errno == errno.ENOENT


def test_files_that_are_no_network_are_refused(tmp_path):
    path = tmp_path / "net.npz"
    to_layers(variable()).save_npz(path)
    whole = path.read_bytes()
    for data in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(FileFormatError, match=r"net\.npz is not a network archive"):
            load_npz(path)
    flipped = bytearray(whole)
    flipped[whole.index(b"weights_0.npy") + 400] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(CorruptFileError, match=r"net\.npz is damaged"):
        load_npz(path)
    path.unlink()
    np.savez(path, header=np.array("{}"), carries=np.ones(2))
    with pytest.raises(FileFormatError, match="of format"):
        load_npz(path)
    path.unlink()
    np.savez(path, header=np.array([print], dtype=object))
    with pytest.raises(FileFormatError):
        load_npz(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.txt", "x")
    with pytest.raises(FileFormatError):
        load_npz(path)


def rebuilt(torch, state, activation, placement):
    """Torch module with nothing of this package in it."""
    sigma = {"tanh": torch.tanh, "relu": torch.relu, "gelu": torch.nn.functional.gelu}[activation]
    depth = 1 + max(int(key.split(".")[1]) for key in state)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Module() for _ in range(depth))
            for key, value in state.items():
                _, k, name = key.split(".")
                self.layers[int(k)].register_parameter(name, torch.nn.Parameter(value.clone()))

        def forward(self, z):
            for layer in self.layers:
                shortcut = getattr(layer, "shortcut", None)
                carried = layer.carry * (z if shortcut is None else z @ shortcut.T)
                if placement == "inside":
                    change = torch.nn.functional.linear(sigma(z), layer.weight, layer.bias)
                else:
                    change = sigma(torch.nn.functional.linear(z, layer.weight, layer.bias))
                z = carried + layer.scale * change
            return z

    net = Net()
    net.load_state_dict(state, strict=True)
    return net


@pytest.mark.parametrize("placement", ["inside", "outside"])
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_torch_module_rebuilt_from_the_state_dict_is_the_network(placement, activation, tmp_path):
    torch = pytest.importorskip("torch")
    network = to_layers(variable(placement, activation))
    network.save_torch(tmp_path / "net.pt")
    stored = torch.load(tmp_path / "net.pt", weights_only=True)
    assert (stored["activation"], stored["placement"]) == (activation, placement)
    z0 = RNG.standard_normal((3, 17))
    net = rebuilt(torch, stored["state_dict"], activation, placement)
    assert relative_gap(net(torch.from_numpy(z0)).detach().numpy(), network.forward(z0)) <= 1e-13
    with pytest.raises(OutputError, match="exists already"):
        network.save_torch(tmp_path / "net.pt")


def test_missing_torch_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    network = to_layers(variable())
    for call in (network.torch_state_dict, lambda: network.save_torch(tmp_path / "net.pt")):
        with pytest.raises(MissingExtraError, match=r"meanfield\[export\]"):
            call()
    assert list(tmp_path.iterdir()) == []


def parts(**change):
    given = {
        "weights": (np.ones((3, 2)), np.ones((3, 3))),
        "biases": (np.ones(3), np.ones(3)),
        "shortcuts": (np.ones((3, 2)), None),
        "carries": np.ones(2),
        "scales": np.ones(2),
        "activation": "tanh",
        "placement": "inside",
    }
    return given | change


MODEL = SpaceTimeNetwork(DENSE, "tanh")
BAD = [
    (lambda: FiniteResNet(**parts(biases=(np.ones(3),))), "biases has length 1, but weights has length 2"),
    (lambda: FiniteResNet(**parts(carries=np.ones(3))), r"carries has shape \(3,\), expected \(2\)"),
    (lambda: FiniteResNet(**parts(weights=(np.ones((3, 2)), np.ones((3, 2))))), "shapes of layer 1 do not match"),
    (lambda: FiniteResNet(**parts(shortcuts=(None, None))), "shapes of layer 0 do not match"),
    (lambda: FiniteResNet(**parts(biases=(np.ones(2), np.ones(3)))), "shapes of layer 0 do not match"),
    (lambda: FiniteResNet(**parts(biases=(np.ones(3), np.full(3, np.nan)))), r"biases\[1\] must be finite"),
    (lambda: FiniteResNet(**parts(activation="tan")), "unknown activation 'tan'"),
    (lambda: FiniteResNet(**parts(placement="above")), "placement must be one of"),
    (lambda: FiniteResNet(**parts()).forward(np.ones(3)), r"z has shape \(3,\), but the width of the input is 2"),
    (lambda: to_layers(variable(), (0.0, T)), "do not apply"),
    (lambda: to_layers(MODEL), "needs t_span"),
    (lambda: to_layers(MODEL, (0.0, 1.0)), "needs t_span and dt or n_steps"),
    (lambda: to_layers(MODEL, (0.0, 0.0), n_steps=2), "empty"),
    (lambda: to_layers(MODEL, (0.0, 1.0), dt=0.3), r"dt = 0\.3 does not divide"),
    (lambda: to_layers(DENSE), "got Dense"),
]


@pytest.mark.parametrize(("call", "words"), BAD, ids=[b[1][:30] for b in BAD])
def test_bad_networks_are_refused(call, words):
    with pytest.raises(ConfigError, match=words):
        call()
