"""ReLU networks as files and for other libraries: HDF5, .npz, a PyTorch state dict, ONNX, and back.

HDF5 and .npz keep sparse matrices and shared arrays as they are; PyTorch and ONNX get dense ones.
"""

from __future__ import annotations

import errno
import functools
import importlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from meanfield._checks import check_memory
from meanfield.errors import ConfigError, CorruptFileError, FileFormatError, OutputError
from meanfield.relu_network import ReluBlock, ReluResNet
from meanfield.storage.durable import put, read_bytes
from meanfield.storage.image import decode, encode
from meanfield.storage.reader import MissingExtraError

Array = NDArray[np.float64]

_FORMAT = "meanfield ReluResNet 1"
_EXTRA = "needs the extra: pip install 'meanfield[export]'"


def write_image(path: str | Path, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write a header and named arrays as an HDF5 file that must not exist yet."""
    _put_new(path, encode(header, arrays))


def read_image(path: str | Path, form: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and arrays of an HDF5 file of a format, or FileFormatError."""
    header, arrays = decode(read_bytes(Path(path)), path)
    if header.get("format") != form:
        raise FileFormatError(f"{path} is not a file of format {form!r}")
    return header, arrays


def save_hdf5(network: ReluResNet, path: str | Path) -> None:
    """Write a network as HDF5: a JSON header, and the arrays of its layers once each.

    Raises
    ------
    OutputError
        If the path exists already or cannot be written.
    """
    write_image(path, *_flattened(network))


def load_hdf5(path: str | Path) -> ReluResNet:
    """Read a network written by `save_hdf5`; nothing in the file is executed.

    Raises
    ------
    FileFormatError, CorruptFileError
        If the file is no such network, or one whose contents do not fit together.
    """
    header, arrays = read_image(path, _FORMAT)
    return _assembled(path, header, arrays)


def save_npz(network: ReluResNet, path: str | Path) -> None:
    """Write a network as a NumPy archive; errors as for `save_hdf5`."""
    header, arrays = _flattened(network)
    image = io.BytesIO()
    np.savez(image, header=np.array(json.dumps(header)), **arrays)
    _put_new(path, image.getvalue())


def load_npz(path: str | Path) -> ReluResNet:
    """Read a network written by `save_npz`; errors as for `load_hdf5`, and ResourceError if it inflates too much."""
    image = io.BytesIO(read_bytes(Path(path)))
    try:
        with zipfile.ZipFile(image) as archive:
            check_memory(f"reading {path}", 2 * sum(entry.file_size for entry in archive.infolist()))
        with np.load(image, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(str(arrays.pop("header")))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise FileFormatError(f"{path} is not a network archive") from None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise FileFormatError(f"{path} is not a network archive of format {_FORMAT!r}")
    return _assembled(path, header, arrays)


def _flattened(network: ReluResNet) -> tuple[dict[str, Any], dict[str, Any]]:
    """Names of the matrices and biases of every block, and the arrays, shared ones once."""
    arrays: dict[str, Any] = {"order": network.order}
    place: dict[int, int] = {}
    blocks = []
    for block in network.blocks:
        layers = []
        for w, b in zip(block.weights, block.biases, strict=True):
            i, j = (place.setdefault(id(part), len(place)) for part in (w, b))
            arrays |= {f"data_{i}": w.data, f"indices_{i}": w.indices, f"indptr_{i}": w.indptr, f"bias_{j}": b}
            layers.append((i, j, w.shape[1]))
        blocks.append(layers)
    return {"format": _FORMAT, "blocks": blocks}, arrays


def _assembled(path: str | Path, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> ReluResNet:
    @functools.cache
    def matrix(i: int, columns: int) -> Any:
        parts = tuple(arrays[f"{name}_{i}"] for name in ("data", "indices", "indptr"))
        found = sparse.csr_array(parts, shape=(len(parts[2]) - 1, columns))
        found.check_format(full_check=True)
        return found

    try:
        blocks = [
            ReluBlock(tuple(matrix(i, n) for i, _, n in layers), tuple(arrays[f"bias_{j}"] for _, j, _ in layers))
            for layers in header["blocks"]
        ]
        return ReluResNet(blocks, arrays["order"])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{path} is damaged: {error}") from None


def torch_state_dict(network: ReluResNet) -> dict[str, Any]:
    """Return the parameters as torch tensors, double precision and dense.

    ``blocks.k.i.weight`` and ``blocks.k.i.bias`` of layer i of block k, in the order passed; what blocks share is one
    tensor. `torch_module` is the module they fit.

    Raises
    ------
    MissingExtraError
        If torch is not installed.
    ResourceError
        If the dense matrices would not fit into memory.
    """
    torch = _extra("torch", "torch_state_dict")
    _check_dense(network)
    known: dict[int, Any] = {}
    state = {}
    for k, which in enumerate(network.order.tolist()):
        block = network.blocks[which]
        for i, (w, b) in enumerate(zip(block.weights, block.biases, strict=True)):
            for name, part in (("weight", w), ("bias", b)):
                if id(part) not in known:
                    known[id(part)] = torch.from_numpy(part.toarray() if name == "weight" else part.copy())
                state[f"blocks.{k}.{i}.{name}"] = known[id(part)]
    return state


def load_state_dict(state: Mapping[str, Any]) -> ReluResNet:
    """Network of a state dict as `torch_state_dict` makes it; tensors that are one object become one array.

    Raises
    ------
    ConfigError
        For names or shapes that do not chain.
    """
    arrays: dict[int, Any] = {}
    found: dict[int, dict[tuple[int, str], Any]] = {}
    for key, tensor in state.items():
        parts = key.split(".")
        if len(parts) != 4 or parts[0] != "blocks" or parts[3] not in {"weight", "bias"}:
            raise ConfigError(f"unknown parameter {key!r}, expected blocks.<block>.<layer>.weight or .bias")
        where = tensor.data_ptr() if hasattr(tensor, "data_ptr") else id(tensor)
        if where not in arrays:
            values = np.asarray(tensor, dtype=np.float64)
            arrays[where] = sparse.csr_array(values) if parts[3] == "weight" else values
        found.setdefault(int(parts[1]), {})[int(parts[2]), parts[3]] = arrays[where]
    blocks: dict[tuple[int, ...], int] = {}
    made: list[ReluBlock] = []
    order = []
    for k in range(len(found)):
        names = found.get(k, {})
        layers = range(len(names) // 2)
        try:
            pairs = [(names[i, "weight"], names[i, "bias"]) for i in layers]
        except KeyError:
            raise ConfigError(f"block {k} of the state dict lacks layers: {sorted(names)}") from None
        key_of = tuple(id(part) for pair in pairs for part in pair)
        if key_of not in blocks:
            blocks[key_of] = len(made)
            made.append(ReluBlock(tuple(w for w, _ in pairs), tuple(b for _, b in pairs)))
        order.append(blocks[key_of])
    return ReluResNet(made, np.array(order, dtype=np.int64))


def torch_module(network: ReluResNet) -> Any:
    """Return a ``torch.nn.Module`` of the network, points (n, d) to (n, d), of plain Linear and ReLU modules.

    Blocks that are one here are one module there.
    """
    torch = _extra("torch", "torch_module")
    _check_dense(network)

    class Residual(torch.nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            made = [_sequential(torch, block) for block in network.blocks]
            self.blocks = torch.nn.ModuleList(made[k] for k in network.order.tolist())

        def forward(self, x: Any) -> Any:
            for block in self.blocks:
                x = x + block(x)
            return x

    module = Residual()
    flat = {_module_name(key): value for key, value in torch_state_dict(network).items()}
    module.load_state_dict(flat)
    return module


def _sequential(torch: Any, block: ReluBlock) -> Any:
    """Linear, ReLU, .., Linear in double precision; parameters are set later."""
    parts = []
    for w in block.weights:
        parts += [torch.nn.Linear(w.shape[1], w.shape[0], dtype=torch.float64), torch.nn.ReLU()]
    return torch.nn.Sequential(*parts[:-1])


def _module_name(key: str) -> str:
    _, block, layer, name = key.split(".")
    return f"blocks.{block}.{2 * int(layer)}.{name}"


def save_torch(network: ReluResNet, path: str | Path) -> None:
    """Write the state dict for ``torch.load(path, weights_only=True)``; errors as for `save_hdf5`."""
    image = io.BytesIO()
    _extra("torch", "save_torch").save(torch_state_dict(network), image)
    _put_new(path, image.getvalue())


def save_onnx(network: ReluResNet, path: str | Path) -> None:
    """Write an ONNX graph ``x`` (n, d) to ``y`` (n, d) of Gemm, Relu and Add in double precision.

    Raises
    ------
    MissingExtraError
        If onnx is not installed.
    OutputError
        If the path exists already or cannot be written.
    """
    onnx = _extra("onnx", "save_onnx")
    _check_dense(network)
    helper, kind = onnx.helper, onnx.TensorProto.DOUBLE
    nodes: list[Any] = []
    constants: dict[int, Any] = {}
    here = "x"
    for k, which in enumerate(network.order.tolist()):
        block, inner = network.blocks[which], here
        last = len(block.weights) - 1
        for i, (w, b) in enumerate(zip(block.weights, block.biases, strict=True)):
            for name, part in (("w", w), ("b", b)):
                if id(part) not in constants:
                    values = part.toarray() if name == "w" else part
                    constants[id(part)] = onnx.numpy_helper.from_array(values, f"{name}{len(constants)}")
            names = [inner, constants[id(w)].name, constants[id(b)].name]
            nodes.append(helper.make_node("Gemm", names, [f"a{k}_{i}"], transB=1))
            inner = f"a{k}_{i}"
            if i < last:
                nodes.append(helper.make_node("Relu", [inner], [f"r{k}_{i}"]))
                inner = f"r{k}_{i}"
        there = "y" if k == network.n_blocks - 1 else f"x{k + 1}"
        nodes.append(helper.make_node("Add", [here, inner], [there]))
        here = there
    ends = [helper.make_tensor_value_info(name, kind, ["n", network.dim]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "relu_resnet", ends[:1], ends[1:], list(constants.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    _put_new(path, model.SerializeToString())


def _check_dense(network: ReluResNet) -> None:
    parts = {id(w): w for block in network.blocks for w in block.weights}
    check_memory("the dense matrices of the network", 16 * sum(int(np.prod(w.shape)) for w in parts.values()))


def _extra(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)  # an extra, large
    except ImportError:
        raise MissingExtraError(f"{what} {_EXTRA}") from None


def _put_new(path: str | Path, data: bytes) -> None:
    """Write a file that must not exist."""
    target = Path(path)
    if target.exists() or target.is_symlink():
        raise OutputError(errno.EEXIST, "output exists already and is not overwritten", str(target))
    put(target, data)
