"""Weights of trained networks as parameters over depth: arrays, .npz files and PyTorch state dicts.

    weights = read_weights("net.npz", {"w": "blocks.{}.w", "b": "blocks.{}.b"})
    velocity = Velocity.outside("tanh", weights["w"], weights["b"])

The layers of one network become piecewise constant `Controls`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, finite_float, nearest, shown
from meanfield._fieldfiles import archive_errors, check_declared, members_of, read_member
from meanfield.controls import Controls
from meanfield.errors import ConfigError, CorruptFileError, UnsafeFileError
from meanfield.storage.reader import MissingExtraError

Array = NDArray[np.float64]
Reader = Callable[[str], Any]

# A number that is a whole component of a name: blocks.3.weight, w_3, layer/3.
_NUMBER = re.compile(r"(?<![^./_])[0-9]+(?![^./_])")
_MOST_DIGITS = 9
_WRAPPINGS = ("state_dict", "model_state_dict", "model")
# Length of the record at the end of an archive, and the count in it that stands for more than it can hold.
_END_RECORD, _MANY_MEMBERS = 22, 0xFFFF
# Before, files could execute code in spite of weights_only (CVE-2025-32434).
_SAFE_TORCH = (2, 6)


def read_weights(
    source: Any,
    names: Mapping[str, str] | Sequence[str] | None = None,
    *,
    layers: range | None = None,
    span: tuple[float, float] = (0.0, 1.0),
    divided: Collection[str] = (),
) -> dict[str, Controls]:
    """Read the layers of a trained network as piecewise constant `Controls`.

    Parameters
    ----------
    source
        A mapping of names to arrays or tensors, a PyTorch module, or the path of an .npz file or of a PyTorch file
        (.pt, .pth) with a state dict. Nothing is unpickled but tensors.
    names
        Label -> pattern, in which {} stands for the number of the layer: ``{"w": "blocks.{}.w"}``. A pattern
        without {} names one array with a leading axis of layers. A sequence of patterns labels each by itself.
        None takes every name of which a whole component is a number.
    layers
        Numbers of the layers in their order, as ``range(1, 9)`` or ``range(0, 12, 2)``. None takes all there are,
        which must follow each other.
    span
        Depths (t_0, T) of the network, cut into L equal layers.
    divided
        Labels of the parameters that a block is linear in, where the network is x + f_k(x) and not
        x + h v_k(x): they are divided by h = (T - t_0)/L. For V sigma(W x + b) + c these are V and c.

    Returns
    -------
    dict of Controls
        By label, of one depth; their `values` (L, ...) are what `Velocity.from_layers` takes.

    Raises
    ------
    ConfigError
        For names that are not there, missing numbers, shapes that differ between layers, different numbers of layers.
    FileFormatError
        For a file that is not what its suffix says.
    CorruptFileError
        For a truncated or damaged one.
    UnsafeFileError
        For pickled objects other than tensors.
    ResourceError
        For arrays that do not fit into memory.
    MissingExtraError
        For a PyTorch file where torch 2.6 or newer is not installed.
    """
    t0, t1 = finite_float("span start", span[0]), finite_float("span end", span[1])
    if not t0 < t1:
        raise ConfigError(f"span must increase, got ({t0!r}, {t1!r})")
    with _opened(source) as (known, read):
        chosen = _chosen(names, known, layers)
        stacks = {label: _stack(choice, read, layers) for label, choice in chosen.items()}
    counts = {label: len(stack) for label, stack in stacks.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{label} ({count})" for label, count in counts.items())
        raise ConfigError(f"parameters of one network have the same number of layers, got {listed}: choose by names")
    unknown = sorted(set(divided) - set(stacks))
    if unknown:
        raise ConfigError(f"divided names {unknown[0]!r}, which is none of {', '.join(stacks)}")
    n_layers = next(iter(counts.values()))
    knots, step = np.linspace(t0, t1, n_layers + 1), (t1 - t0) / n_layers
    return {label: Controls(knots, stack / step if label in divided else stack) for label, stack in stacks.items()}


# ---------------------------------------------------------------- names


class _Choice(NamedTuple):
    """Names of the layers of a parameter in order, or the one of an array of all layers."""

    keys: list[str]
    whole: bool


def _chosen(names: Any, known: Sequence[str], layers: range | None) -> dict[str, _Choice]:
    if layers is not None and (not isinstance(layers, range) or not layers or min(layers) < 0):
        raise ConfigError(f"layers must be a range of numbers >= 0, got {shown(layers)}")
    if names is None:
        patterns = _discovered(known)
    elif isinstance(names, Mapping):
        patterns = dict(names)
    elif isinstance(names, Sequence) and not isinstance(names, str):
        patterns = {str(pattern): pattern for pattern in names}
    else:
        raise ConfigError(f"names must be patterns such as {{'w': 'blocks.{{}}.w'}}, got {shown(names)}")
    if not patterns:
        raise ConfigError(f"no name has a number for its layer; there are {_listed(known)}")
    return {label: _layer_names(pattern, known, layers) for label, pattern in patterns.items()}


def _discovered(known: Sequence[str]) -> dict[str, str]:
    """Return the names with a number, as patterns: the first one is taken for that of the layer."""
    patterns = [_NUMBER.sub("{}", name, count=1) for name in known if _NUMBER.search(name)]
    return {pattern: pattern for pattern in patterns}


def _listed(known: Sequence[str]) -> str:
    return ", ".join(known[:12]) + (", ..." if len(known) > 12 else "") or "none at all"


def _layer_names(pattern: Any, known: Sequence[str], layers: range | None) -> _Choice:
    if not isinstance(pattern, str) or pattern.count("{}") > 1:
        raise ConfigError(f"a pattern has at most one {{}}, got {shown(pattern)}")
    if "{}" not in pattern:
        if pattern not in known:
            raise ConfigError(f"no array {pattern!r}{nearest(pattern, known)} (there are {_listed(known)})")
        return _Choice([pattern], whole=True)
    start, end = pattern.split("{}")
    found: dict[int, str] = {}
    for name in known:
        number = name[len(start) : len(name) - len(end)]
        if not (name.startswith(start) and name.endswith(end) and re.fullmatch("[0-9]+", number)):
            continue
        if len(number) > _MOST_DIGITS or int(number) in found:
            raise ConfigError(f"{shown(name)} has a number that is out of range or there twice")
        found[int(number)] = name
    if not found:
        raise ConfigError(f"no name fits {pattern!r} (there are {_listed(known)})")
    wanted = range(min(found), max(found) + 1) if layers is None else layers
    missing = next((k for k in wanted if k not in found), None)
    if missing is not None:
        have = ", ".join(map(str, sorted(found)[:12])) + (", ..." if len(found) > 12 else "")
        raise ConfigError(f"{pattern!r} has no layer {missing}, only {have}: choose them by layers = range(...)")
    return _Choice([found[k] for k in wanted], whole=False)


def _stack(choice: _Choice, read: Reader, layers: range | None) -> Array:
    """Arrays of the layers as one with a leading axis."""
    keys = choice.keys
    first = finite_array(keys[0], _as_array(keys[0], read(keys[0])))
    if choice.whole:
        return _of_whole(keys[0], first, layers)
    check_memory(f"{len(keys)} layers of {keys[0]}", 2 * len(keys) * first.nbytes)
    out = np.empty((len(keys), *first.shape))
    for k, name in enumerate(keys):
        array = first if k == 0 else finite_array(name, _as_array(name, read(name)))
        if array.shape != first.shape:
            raise ConfigError(
                f"{name} has shape {array.shape}, but {keys[0]} has {first.shape}: layers must be of one shape, "
                "choose those that are by layers = range(...)"
            )
        out[k] = array
    return out


def _of_whole(name: str, array: Array, layers: range | None) -> Array:
    if array.ndim == 0 or not len(array):
        raise ConfigError(f"{name} has shape {array.shape}, expected a leading axis of layers")
    if layers is None:
        return array
    if max(layers) >= len(array):
        raise ConfigError(f"{name} has {len(array)} layers, none of them {max(layers)}")
    return np.ascontiguousarray(array[list(layers)])


def _as_array(name: str, value: Any) -> Any:
    """Return a tensor as an array; what is none as it is."""
    if not hasattr(value, "detach"):
        return value
    if value.is_complex():
        raise ConfigError(f"{name} must be real, got a complex tensor")
    # The size is weighed first: a tensor may be huge with next to nothing stored.
    check_memory(name, 16 * int(value.numel()))
    try:
        return value.detach().cpu().double().numpy()
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"{name} is no plain tensor: {str(error).splitlines()[0]}") from None


# ---------------------------------------------------------------- sources


@contextlib.contextmanager
def _opened(source: Any) -> Iterator[tuple[list[str], Reader]]:
    """Names of the arrays of a source, and what reads one."""
    if not isinstance(source, (str, os.PathLike)):
        yield _of_mapping("source", source.state_dict() if hasattr(source, "state_dict") else source)
        return
    file = Path(source)
    suffix = file.suffix.lower()
    if suffix not in (".npz", ".pt", ".pth"):
        raise ConfigError(f"{file}: weights are read from .npz, .pt and .pth, not from {suffix or 'no suffix'!r}")
    if not file.is_file():
        raise ConfigError(f"{file}: no such file")
    try:
        with file.open("rb"):  # says what keeps it from being read
            pass
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    with _archive_errors(file):
        archive = zipfile.ZipFile(file)
    with archive:
        _check_directory(file, archive)
        if suffix == ".npz":
            members = members_of(archive)
            yield list(members), lambda name: _from_archive(file, archive, name, members[name])
            return
        inflated = sum(info.file_size for info in archive.infolist())
        check_declared(f"{file}", inflated, sum(info.compress_size for info in archive.infolist()))
        with _archive_errors(file):
            damaged = archive.testzip()  # torch does not compare checksums
        if damaged is not None:
            raise CorruptFileError(f"{file}: damaged, or written without checksums: {damaged}")
    yield _of_mapping(str(file), _torch_content(file))


def _of_mapping(what: str, content: Any) -> tuple[list[str], Reader]:
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f"{what} must hold arrays by name, got {shown(content)}")
    return list(content), content.__getitem__


def _archive_errors(file: Path) -> contextlib.AbstractContextManager[None]:
    return archive_errors(file, ValueError, OSError)


def _check_directory(file: Path, archive: zipfile.ZipFile) -> None:
    """Refuse a directory that has lost or renamed members: a network short of its last layers would look whole."""
    members = archive.infolist()
    with file.open("rb") as stream:
        stream.seek(-_END_RECORD - len(archive.comment), os.SEEK_END)
        count = int.from_bytes(stream.read(_END_RECORD)[10:12], "little")
    if count not in (len(members), _MANY_MEMBERS):
        raise CorruptFileError(f"{file}: damaged: its directory lists {len(members)} members of {count}")
    with _archive_errors(file):
        for info in members:
            archive.open(info).close()  # compares the name with that beside the data


def _from_archive(file: Path, archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> Any:
    with _archive_errors(file):
        return read_member(file, archive, name, info)


def _torch_content(file: Path) -> Any:
    """Return the tensors of a PyTorch file by name."""
    try:
        torch: Any = importlib.import_module("torch")  # an extra, hundreds of megabytes
    except ImportError:
        raise MissingExtraError(f"reading {file} needs the extra: pip install 'meanfield[export]'") from None
    found = re.match(r"(\d+)\.(\d+)", str(torch.__version__))
    if not found or tuple(map(int, found.groups())) < _SAFE_TORCH:
        raise MissingExtraError(
            f"reading {file} needs torch 2.6 or newer, older ones may execute it; got {torch.__version__}"
        )
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0] if str(error) else "unknown"
        raise UnsafeFileError(f"{file}: holds more than tensors, or is damaged: {reason}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, OSError) as error:
        raise CorruptFileError(f"{file}: no PyTorch file, or a damaged one: {str(error).splitlines()[0]}") from error
    for name in _WRAPPINGS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            return content[name]
    return content
