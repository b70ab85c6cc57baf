"""The chain of segments: immutable files, each named by its digest and naming its predecessor.

    NNNNNN.<sha256>.h5      a segment; the first names the digest of the configuration
    state.<sha256>.h5       a restart state, named by segments
    sealed.<sha256>         written just before a sealed file takes its name: its digest

A segment that is missing from the middle, exchanged, shortened or changed in one
bit is found when it is read. (A missing last segment cannot be told from a run
that was stopped one commit earlier.)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meanfield.errors import CorruptFileError, OutputError
from meanfield.storage import syscalls
from meanfield.storage.durable import LOCK_NAME, fsync_directory, output_errors, put, read_bytes
from meanfield.storage.image import decode, encode
from meanfield.storage.layout import AnyArray, RestartState

_SEGMENT = re.compile(r"(\d{6,})\.([0-9a-f]{64})\.h5")
_STATE = re.compile(r"state\.([0-9a-f]{64})\.h5")
_MARKER = re.compile(r"sealed\.([0-9a-f]{64})")


@dataclass(frozen=True, eq=False)
class Segment:
    """One commit: its place in the chain, what it says, and (where asked for) its arrays."""

    number: int
    name: str
    digest: str
    header: dict[str, Any]
    arrays: dict[str, AnyArray]


def config_digest(config_json: str) -> str:
    """Predecessor of the first segment."""
    return hashlib.sha256(config_json.encode()).hexdigest()


def segment_names(directory: Path) -> list[str]:
    """Names of all segments, in order.

    Raises
    ------
    CorruptFileError
        If a number is missing or there twice; names it.
    """
    # Names created while a directory is read may show up out of order: a gap is believed when it stays.
    for _ in range(3):
        found = sorted((int(m[1]), m[0]) for m in map(_SEGMENT.fullmatch, _listed(directory)) if m)
        if all(number == index for index, (number, _) in enumerate(found)):
            return [name for _, name in found]
    index, number = next((i, n) for i, (n, _) in enumerate(found) if i != n)
    if number > index:
        raise CorruptFileError(f"{directory}: segment {index:06d} is missing")
    raise CorruptFileError(f"{directory}: there are two segments {number:06d}")


def _listed(directory: Path) -> list[str]:
    with output_errors(directory, "list"):
        try:
            return syscalls.system.listdir(str(directory))
        except FileNotFoundError:
            return []


def marker(directory: Path) -> set[str]:
    """Digests of the sealed files that were about to take the run's name."""
    return {m[1] for m in map(_MARKER.fullmatch, _listed(directory)) if m}


def checked_bytes(path: Path, expected: str) -> bytes:
    """Bytes of a file whose name holds their digest.

    Raises
    ------
    CorruptFileError
        If they have another SHA-256.
    """
    data = read_bytes(path)
    if hashlib.sha256(data).hexdigest() != expected:
        raise CorruptFileError(f"{path}: the SHA-256 of its {len(data)} bytes is not the one in its name")
    return data


def read_segment(directory: Path, name: str, wanted: Collection[str] | None = None) -> Segment:
    """Read one segment: bytes, digest against the name, and only then HDF5."""
    match = _SEGMENT.fullmatch(name)
    if match is None:
        raise CorruptFileError(f"{directory / name}: not the name of a segment")
    header, arrays = decode(checked_bytes(directory / name, match[2]), directory / name, wanted)
    number = int(match[1])
    if header.get("number") != number:
        raise CorruptFileError(
            f"{directory / name}: segment {number:06d} is in the wrong place: it was written as {header.get('number')}"
        )
    return Segment(number, name, match[2], header, arrays)


def check_successor(directory: Path, segment: Segment, previous: str) -> None:
    """Raise `CorruptFileError` unless `segment` names `previous` as its predecessor."""
    if segment.header.get("previous") != previous:
        raise CorruptFileError(
            f"{directory / segment.name}: segment {segment.number:06d} does not follow its predecessor in the chain"
        )


def read_state(directory: Path, digest: str) -> RestartState:
    """Read the restart state of that digest."""
    path = directory / f"state.{digest}.h5"
    if not path.exists():
        raise CorruptFileError(f"{path}: the restart state is missing")
    header, arrays = decode(checked_bytes(path, digest), path)
    return RestartState(arrays, header)


class Chain:
    """Writing end of a chain. After a failed call it writes no more: the disk's state is unknown."""

    def __init__(self, directory: Path, number: int, previous: str) -> None:
        self.directory, self.number, self.previous = directory, number, previous
        self._failure: OutputError | None = None

    def append(self, header: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> Segment:
        """Make a segment durable.

        Raises
        ------
        OutputError
            If it, or anything before it, could not be written.
        """
        header = dict(header) | {"number": self.number, "previous": self.previous}
        data = encode(header, arrays)
        digest = hashlib.sha256(data).hexdigest()
        name = f"{self.number:06d}.{digest}.h5"
        self._guarded(self.directory / name, data)
        segment = Segment(self.number, name, digest, header, {})
        self.number, self.previous = self.number + 1, digest
        return segment

    def put_state(self, state: RestartState) -> str:
        """Make a restart state durable; returns its digest."""
        data = encode(state.meta, state.arrays)
        digest = hashlib.sha256(data).hexdigest()
        path = self.directory / f"state.{digest}.h5"
        if not path.exists() or path.stat().st_size != len(data):
            self._guarded(path, data)
        return digest

    def put_marker(self, digest: str) -> None:
        """Say which sealed file is about to take the run's name."""
        self._guarded(self.directory / f"sealed.{digest}", b"")

    def keep_states(self, needed: set[str]) -> None:
        """Remove the restart states that are not `needed`."""
        for name in _listed(self.directory):
            match = _STATE.fullmatch(name)
            if match and match[1] not in needed:
                self._watched(self.directory / name)

    def check(self) -> None:
        """Raise the first failure again."""
        if self._failure is not None:
            raise OutputError(
                self._failure.errno,
                f"writing stopped after an earlier failure ({self._failure.strerror}); resume the run",
                str(self.directory),
            )

    def fail(self, failure: OutputError) -> None:
        """Write no more after `failure`."""
        self._failure = self._failure or failure

    def _guarded(self, path: Path, data: bytes) -> None:
        self.check()
        try:
            put(path, data)
        except OutputError as error:
            self.fail(error)
            raise

    def _watched(self, path: Path) -> None:
        try:
            with output_errors(path, "remove"):
                syscalls.system.unlink(str(path))
        except OutputError as error:
            self.fail(error)
            raise


def remove_temporaries(directory: Path) -> None:
    """Remove what an interrupted writer left half-written."""
    for name in _listed(directory):
        if name.startswith(".") and name.endswith(".tmp"):
            with output_errors(directory / name, "remove"):
                syscalls.system.unlink(str(directory / name))


def clear(directory: Path) -> None:
    """Remove all segments, states and markers, so that an interruption leaves a valid chain or a marked one."""
    names = _listed(directory)
    markers = [n for n in names if _MARKER.fullmatch(n)]
    segments = sorted((n for n in names if _SEGMENT.fullmatch(n)), key=lambda n: int(n.split(".")[0]), reverse=True)
    states = [n for n in names if _STATE.fullmatch(n)]
    remove_temporaries(directory)
    for name in (*segments, *states, *markers):
        with output_errors(directory / name, "remove"):
            syscalls.system.unlink(str(directory / name))
    with output_errors(directory, "sync"):
        fsync_directory(directory)


def is_empty(directory: Path) -> bool:
    """Whether a parts directory holds nothing of a run (a lock and temporaries aside)."""
    return all(n == LOCK_NAME or n.endswith(".tmp") for n in _listed(directory))
