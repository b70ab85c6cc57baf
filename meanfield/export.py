"""Networks of the limit as plain finite ResNets: matrices, biases and shortcuts, layer by layer.

    inside:   z^{k+1} = c_k S^k z^k + W^k sigma(z^k) + b^k
    outside:  z^{k+1} = c_k S^k z^k + s_k sigma(W^k z^k + b^k)

Inside, the step dt is part of W^k and b^k and s_k = 1; outside it cannot be and is the scale
s_k = dt. c_k = 1 - gamma dt. S^k is the projection shortcut, None for the identity.
"""

from __future__ import annotations

import errno
import functools
import importlib
import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, one_of
from meanfield.activations import activation
from meanfield.errors import ConfigError, CorruptFileError, FileFormatError, OutputError
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.models.variable import VariableWidthNetwork
from meanfield.planning import step_grid
from meanfield.schemes import EULER
from meanfield.storage.durable import put, read_bytes
from meanfield.storage.reader import MissingExtraError
from meanfield.transfer import Transfer

Array = NDArray[np.float64]

_FORMAT = "meanfield FiniteResNet 1"
_EXTRA = "needs the extra: pip install 'meanfield[export]'"


@dataclass(frozen=True, eq=False)
class FiniteResNet:
    """Residual network of finite width and depth, as numbers.

    Parameters
    ----------
    weights
        W^k, each (d_{k+1}, d_k); layers may share one array.
    biases
        b^k, each (d_{k+1},).
    shortcuts
        S^k, each (d_{k+1}, d_k), or None for the identity.
    carries, scales
        c_k and s_k, (L,).
    activation
        Name of sigma.
    placement
        ``"inside"`` or ``"outside"``.

    Raises
    ------
    ConfigError
        For shapes that do not chain, values that are not finite, or an unknown activation.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    shortcuts: tuple[Array | None, ...]
    carries: Array
    scales: Array
    activation: str
    placement: str

    def __post_init__(self) -> None:
        checked = functools.partial(_canonical, known={})
        n_layers = len(self.weights)
        for name in ("weights", "biases", "shortcuts"):
            given = getattr(self, name)
            if len(given) != n_layers or not n_layers:
                raise ConfigError(f"{name} has length {len(given)}, but weights has length {n_layers}")
            object.__setattr__(self, name, tuple(checked(f"{name}[{k}]", a) for k, a in enumerate(given)))
        for name in ("carries", "scales"):
            object.__setattr__(self, name, finite_array(name, getattr(self, name), shape=(n_layers,)))
        for k, (w, b, s) in enumerate(zip(self.weights, self.biases, self.shortcuts, strict=True)):
            rows, columns = w.shape if w.ndim == 2 else (0, 0)
            chained = k == 0 or columns == len(self.biases[k - 1])
            if not chained or b.shape != (rows,) or (rows != columns if s is None else s.shape != w.shape):
                shapes = f"weights {w.shape}, biases {b.shape}, shortcuts {None if s is None else s.shape}"
                raise ConfigError(f"shapes of layer {k} do not match: {shapes}")
        object.__setattr__(self, "activation", activation(self.activation).name)
        one_of("placement", self.placement, ("outside", "inside"))

    @property
    def n_layers(self) -> int:
        """Number of layers L."""
        return len(self.weights)

    @property
    def widths(self) -> NDArray[np.int64]:
        """Numbers of neurons d_k, (L + 1,)."""
        return np.array([self.weights[0].shape[1], *(len(b) for b in self.biases)])

    def forward(self, z: Any) -> Array:
        """Output (d_L,) or (n, d_L) of an input (d_0,) or (n, d_0), in plain NumPy."""
        z = finite_array("z", z)
        if z.ndim not in (1, 2) or z.shape[-1] != self.widths[0]:
            raise ConfigError(f"z has shape {z.shape}, but the width of the input is {self.widths[0]}")
        sigma = activation(self.activation).value
        layers = zip(self.weights, self.biases, self.shortcuts, self.carries, self.scales, strict=True)
        for w, b, shortcut, carry, scale in layers:
            carried = carry * (z if shortcut is None else z @ shortcut.T)
            residual = sigma(z) @ w.T + b if self.placement == "inside" else sigma(z @ w.T + b)
            z = carried + scale * residual
        return np.asarray(z)

    def save_npz(self, path: str | Path) -> None:
        """Write the network to a NumPy archive, without pickles; arrays that layers share are stored once.

        Raises
        ------
        OutputError
            If the path exists already or cannot be written.
        """
        arrays: dict[str, Array] = {"carries": self.carries, "scales": self.scales}
        header: dict[str, Any] = {"format": _FORMAT, "activation": self.activation, "placement": self.placement}
        for name in ("weights", "biases", "shortcuts"):
            place: dict[int, int] = {}
            given = getattr(self, name)
            header[name] = [None if a is None else place.setdefault(id(a), len(place)) for a in given]
            arrays |= {f"{name}_{place[id(a)]}": a for a in given if a is not None}
        image = io.BytesIO()
        np.savez(image, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
        _put_new(path, image.getvalue())

    def torch_state_dict(self) -> dict[str, Any]:
        """Parameters as torch tensors (double precision).

        For each layer k: ``layers.k.weight``, ``layers.k.bias``, ``layers.k.carry``, ``layers.k.scale`` and,
        unless it is the identity, ``layers.k.shortcut``. Layers that share an array share the tensor.

        Raises
        ------
        MissingExtraError
            If torch is not installed.
        """
        torch = _torch("torch_state_dict")

        @functools.cache
        def shared(key: int) -> Any:
            return torch.from_numpy(by_id[key].copy())

        state, by_id = {}, {}
        for k in range(self.n_layers):
            named = {"weight": self.weights[k], "bias": self.biases[k], "shortcut": self.shortcuts[k]}
            for name, array in named.items():
                if array is not None:
                    by_id[id(array)] = array
                    state[f"layers.{k}.{name}"] = shared(id(array))
            for name, value in (("carry", self.carries[k]), ("scale", self.scales[k])):
                state[f"layers.{k}.{name}"] = torch.tensor(float(value), dtype=torch.float64)
        return state

    def save_torch(self, path: str | Path) -> None:
        """Write ``{"state_dict", "activation", "placement"}`` for ``torch.load(path, weights_only=True)``.

        Raises
        ------
        MissingExtraError
            If torch is not installed.
        OutputError
            If the path exists already or cannot be written.
        """
        content = {"state_dict": self.torch_state_dict(), "activation": self.activation, "placement": self.placement}
        image = io.BytesIO()
        _torch("save_torch").save(content, image)
        _put_new(path, image.getvalue())


def load_npz(path: str | Path) -> FiniteResNet:
    """Read a network written by `FiniteResNet.save_npz`; nothing in the file is executed.

    Raises
    ------
    FileFormatError
        If the file is no such archive.
    CorruptFileError
        If it is one and its contents are damaged or incomplete.
    ResourceError
        If its contents would not fit into memory.
    """
    path = Path(path)
    image = io.BytesIO(read_bytes(path))
    try:
        with zipfile.ZipFile(image) as archive:
            check_memory(f"reading {path}", 2 * sum(entry.file_size for entry in archive.infolist()))
        with np.load(image, allow_pickle=False) as stored:
            header = json.loads(str(stored["header"]))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise FileFormatError(f"{path} is not a network archive") from None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise FileFormatError(f"{path} is not a network archive of format {_FORMAT!r}")
    try:
        with np.load(image, allow_pickle=False) as stored:
            known = {name: stored[name] for name in stored.files}
        parts: dict[str, Any] = {
            name: tuple(None if i is None else known[f"{name}_{i}"] for i in header[name])
            for name in ("weights", "biases", "shortcuts")
        }
        parts |= {"activation": header["activation"], "placement": header["placement"]}
        return FiniteResNet(carries=known["carries"], scales=known["scales"], **parts)
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptFileError(f"{path} is damaged: {error}") from None


def to_layers(
    model: VariableWidthNetwork | SpaceTimeNetwork,
    t_span: tuple[float, float] | None = None,
    *,
    dt: float | None = None,
    n_steps: int | None = None,
) -> FiniteResNet:
    """Return the finite ResNet that a network is: its layers, or the Euler steps of a space-time network.

    Parameters
    ----------
    model
        A `VariableWidthNetwork`, with its own depths, or a `SpaceTimeNetwork`.
    t_span, dt, n_steps
        Of a space-time network, the span and the Euler steps, as for `integrate`.

    Returns
    -------
    FiniteResNet
        Its `forward` is the solver's result to round-off.

    Raises
    ------
    ConfigError
        For another model, or a span or steps missing or out of place.
    """
    if isinstance(model, VariableWidthNetwork):
        if t_span is not None or dt is not None or n_steps is not None:
            raise ConfigError("t_span, dt and n_steps do not apply: the network has its own depths")
        return _variable_layers(model)
    if not isinstance(model, SpaceTimeNetwork):
        raise ConfigError(f"model must be a VariableWidthNetwork or a SpaceTimeNetwork, got {type(model).__name__}")
    if t_span is None or (dt is None and n_steps is None):
        raise ConfigError("a space-time network needs t_span and dt or n_steps to have layers")
    return _euler_layers(model, t_span, dt, n_steps)


def _variable_layers(model: VariableWidthNetwork) -> FiniteResNet:
    widths = model.widths
    check_memory(f"the matrices of {model.n_layers} layers", 16 * int(widths[1:] @ widths[:-1]))
    lengths = np.diff(model.depths)
    inside = model.placement == "inside"
    dense: dict[int, tuple[Transfer, Array]] = {}
    weights, biases, shortcuts = [], [], []
    for k, dt in enumerate(lengths.tolist()):
        factor = dt if inside else 1.0
        matrix, transfer = model.matrix(k), model.shortcut(k)
        weights.append(factor * matrix if inside else matrix)
        biases.append(factor * model.bias_at(k))
        if transfer is not None and id(transfer) not in dense:
            dense[id(transfer)] = transfer, transfer.matrix.toarray()
        shortcuts.append(None if transfer is None else dense[id(transfer)][1])
    return _assembled(model, weights, biases, shortcuts, lengths)


def _euler_layers(
    model: SpaceTimeNetwork, t_span: tuple[float, float], dt: float | None, n_steps: int | None
) -> FiniteResNet:
    grid = step_grid(model, t_span, dt=dt, n_steps=n_steps)
    if not grid.n_steps:
        raise ConfigError(f"t_span = {t_span!r} is empty: a network needs a layer")
    n = model.grid.n_nodes
    check_memory(f"the matrices of {grid.n_steps} layers", 8 * n * n * (3 if model.autonomous else grid.n_steps + 2))
    times, lengths = grid.steps(EULER, 0, grid.n_steps)
    weights: list[Array] = []
    biases: list[Array] = []
    for k, (t, step) in enumerate(zip(times[:, 0].tolist(), lengths.tolist(), strict=True)):
        if k and model.autonomous and step == lengths[k - 1]:
            weights.append(weights[-1])
            biases.append(biases[-1])
            continue
        rows = np.empty((n, n))
        model.linear(t, np.eye(n), rows)
        factor = step if model.placement == "inside" else 1.0
        weights.append(np.ascontiguousarray(rows.T) * (factor * model.scale(t)))
        biases.append(factor * model.bias_at(t))
    return _assembled(model, weights, biases, [None] * grid.n_steps, lengths)


def _assembled(
    model: VariableWidthNetwork | SpaceTimeNetwork,
    weights: Iterable[Array],
    biases: Iterable[Array],
    shortcuts: Iterable[Array | None],
    lengths: Array,
) -> FiniteResNet:
    scales = np.ones_like(lengths) if model.placement == "inside" else lengths
    carries = 1.0 - model.leak * lengths
    name = activation(model.activation).name
    return FiniteResNet(tuple(weights), tuple(biases), tuple(shortcuts), carries, scales, name, model.placement)


def _canonical(name: str, array: Array | None, known: dict[int, tuple[Any, Array]]) -> Array | None:
    """Check an array once, however many layers share it."""
    if array is None:
        return None
    if id(array) not in known:
        known[id(array)] = (array, finite_array(name, array))
    return known[id(array)][1]


def _torch(what: str) -> Any:
    try:
        return importlib.import_module("torch")  # an extra, hundreds of megabytes
    except ImportError:
        raise MissingExtraError(f"{what} {_EXTRA}") from None


def _put_new(path: str | Path, data: bytes) -> None:
    """Write a file that must not exist."""
    target = Path(path)
    if target.exists() or target.is_symlink():
        raise OutputError(errno.EEXIST, "output exists already and is not overwritten", str(target))
    put(target, data)
