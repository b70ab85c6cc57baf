"""A header and named arrays as the bytes of an HDF5 file, and back.

Both segments and restart states are such images. They are built and read in
memory: HDF5 never sees the disk, whose errors it would swallow.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from meanfield.errors import CorruptFileError
from meanfield.storage.layout import AnyArray, as_bytes
from meanfield.storage.safety import SCHEMA_VERSION, damage, open_image

_HEADER = "header"


def encode(header: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> bytes:
    """Bytes of an HDF5 file holding `header` (JSON) and `arrays` (numbers, booleans, text).

    Memory: twice the arrays.
    """
    kinds = []
    with h5py.File("image", "w", driver="core", backing_store=False, libver=("v110", "v110")) as file:
        file.attrs.create("schema_version", SCHEMA_VERSION, dtype=np.int64)
        for index, (name, given) in enumerate(arrays.items()):
            array = np.asarray(given)
            kinds.append({"name": name, "kind": array.dtype.kind})
            if array.dtype.kind == "U":
                file.create_dataset(f"a{index:04d}", data=as_bytes(array))
            else:
                numbers = array.view(np.uint8) if array.dtype.kind == "b" else array
                file.create_dataset(f"a{index:04d}", data=numbers)
        words = json.dumps({"content": dict(header), "arrays": kinds}).encode()
        file.create_dataset(_HEADER, data=np.frombuffer(words, np.uint8))
        file.flush()
        return bytes(file.id.get_file_image())


def decode(
    data: bytes, path: Path | str, wanted: Collection[str] | None = None
) -> tuple[dict[str, Any], dict[str, AnyArray]]:
    """Header and arrays of an image (only those `wanted`, by default all).

    Raises
    ------
    CorruptFileError, UnsafeFileError, ResourceError
        As `safety.open_image`; `path` is what the message names.
    """
    with open_image(data, path) as file, damage(path):
        try:
            words = json.loads(file[_HEADER][()].tobytes())
        except RecursionError:
            raise CorruptFileError(f"{path}: the header is nested too deep") from None
        arrays = {}
        for index, item in enumerate(words["arrays"]):
            if wanted is None or item["name"] in wanted:
                arrays[item["name"]] = _restored(file[f"a{index:04d}"][()], item["kind"])
        return dict(words["content"]), arrays


def _restored(stored: Any, kind: str) -> AnyArray:
    array = np.asarray(stored)
    if kind == "b":
        return array.view(np.bool_)
    if kind == "U":
        return np.array([t.decode() for t in array.reshape(-1).tolist()], dtype=np.str_).reshape(array.shape)
    return array
