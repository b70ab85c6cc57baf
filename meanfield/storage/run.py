"""Runs on disk: create one, continue one, open one.

run.h5          a finished run: one plain HDF5 file
run.h5.parts/   a run that is being written, or was interrupted
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from meanfield.errors import ConfigError, CorruptFileError, FileFormatError, OutputError, ResumeMismatchError
from meanfield.storage.contents import PartsSource, Source
from meanfield.storage.durable import Lock, file_digest, output_errors
from meanfield.storage.names import check_text, output_path
from meanfield.storage.provenance import VOLATILE, identity
from meanfield.storage.reader import Run, Series
from meanfield.storage.sealed import SealedSource
from meanfield.storage.segments import clear, is_empty, marker, read_segment, remove_temporaries, segment_names
from meanfield.storage.verify import Report, compare, verify_parts
from meanfield.storage.verify import verify as _verify_sealed
from meanfield.storage.writer import Cadence, RunWriter, SeriesWriter

__all__ = [
    "VOLATILE",
    "Cadence",
    "Report",
    "Run",
    "RunWriter",
    "Series",
    "SeriesWriter",
    "compare",
    "create_run",
    "open_run",
    "verify",
]

_SUFFIX = ".parts"


def create_run(
    path: str | Path,
    config: Mapping[str, Any],
    *,
    experiment: str = "",
    seed: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    references: Sequence[str] = (),
    command: str | None = None,
    may_change: Collection[str] = (),
    cadence: Cadence | None = None,
) -> RunWriter:
    """Start a run, or continue one.

    Parameters
    ----------
    path
        The file it will become. While it runs, its segments lie in ``path.parts/``.
    config
        Parameters, JSON values only.
    experiment, seed, references, command
        Stored with the run; the command line by default that of this process.
    overwrite
        Replace an existing run. A sealed file stays until the new one takes its place.
    resume
        Continue what is stored, sealed or not; start afresh if nothing is.
    may_change
        Keys of `config` in which a resumed run may differ (a later end time).
    cadence
        When commits are due.

    Raises
    ------
    ConfigError
        If the path leads outside, or the configuration is not JSON.
    OutputError
        If the output exists and neither `overwrite` nor `resume` is given, or it cannot be written.
    RunLockedError
        If another process is writing it.
    ResumeMismatchError
        If the stored configuration or seed differs; names the first key and both values.
    FileFormatError
        If what is stored cannot be read.
    """
    target = output_path(path)
    if overwrite and resume:
        raise ConfigError("overwrite and resume exclude each other: a run is replaced or continued")
    config_json = _canonical(config)
    for what, words in (("experiment", experiment), *(("a reference", r) for r in references)):
        check_text(what, words)
    parts = target.with_name(target.name + _SUFFIX)
    with output_errors(target, "create the run"):
        if not (overwrite or resume):
            _refuse_existing(target, parts)
        if target.is_dir():
            raise OutputError(errno.EISDIR, "is a directory, cannot become a run", str(target))
        lock = Lock.acquire(parts, target)
        try:
            remove_temporaries(parts)
            if overwrite:
                clear(parts)
            elif not resume:
                _refuse_existing(target, parts, locked=True)
            begun = _continue(target, parts, config_json, seed, may_change) if resume else None
            if begun is None:
                origin = identity(experiment, seed, references, command) | {"config": config_json}
                begun = _fresh(target, parts, origin)
            source, start, may_replace, changed = begun
            writer = RunWriter(target, lock, source, start, may_replace=may_replace, cadence=cadence or Cadence())
            if changed:
                writer.change_config(config_json)
            elif start["mode"] != "extend":
                writer.begin_run()
        except BaseException:
            lock.release()
            raise
    return writer


_Begun = tuple[PartsSource, dict[str, Any], bool, bool]


def _fresh(target: Path, parts: Path, origin: dict[str, Any]) -> _Begun:
    """Start a run, on the place of an older one if there is a file."""
    mode = "overwrite" if target.exists() else "new"
    return PartsSource(parts), {"mode": mode, "base": "", "identity": origin}, mode == "overwrite", False


def _refuse_existing(target: Path, parts: Path, *, locked: bool = False) -> None:
    if not locked and parts.exists():
        Lock.probe(parts, target)
    if target.exists() or target.is_symlink():
        raise OutputError(errno.EEXIST, "exists already; use overwrite to replace it or resume to go on", str(target))
    if not is_empty(parts):
        words = "an interrupted run is stored here; use resume to go on or overwrite to start again"
        raise OutputError(errno.EEXIST, words, str(target))


def _continue(
    target: Path, parts: Path, config_json: str, seed: int | None, may_change: Collection[str]
) -> _Begun | None:
    """Find what to continue: its contents, how it started, whether the file may be replaced, whether it changed."""
    may_replace = False
    names = segment_names(parts)
    if (names or marker(parts)) and target.exists():
        if _is_sealed_from(target, parts, names):
            clear(parts)
            names = []
        else:
            may_replace = True
    if names:
        start = dict(read_segment(parts, names[0]).header)
        base = _base(target, start) if start["mode"] == "extend" else None
        source = PartsSource.load(parts, base)
        may_replace |= start["mode"] != "new"
    elif target.exists():
        base = SealedSource(target)
        source = PartsSource(parts, base)
        start = {"mode": "extend", "base": "", "identity": dict(base.contents.identity)}
        may_replace = True
    else:
        clear(parts)
        return None
    try:
        changed = _check_same_run(source, config_json, seed, may_change)
    except BaseException:
        source.close()
        raise
    return source, start, may_replace, changed


def _is_sealed_from(target: Path, parts: Path, names: list[str]) -> bool:
    """Whether the file at `target` is these parts, sealed and sound, which only wait to be removed.

    The parts may also be those of a run that replaces or extends the file, so their
    word counts: a marker with the digest of the file, or a start where no file was.

    Raises
    ------
    OutputError
        If the file is a sound run, but not this one.
    """
    markers = marker(parts)
    if markers and file_digest(target) in markers:
        return True
    if not names:
        raise CorruptFileError(f"{parts}: segment 000000 is missing")
    start = read_segment(parts, names[0]).header
    if start["mode"] != "new":
        return False
    try:
        sealed = SealedSource(target)
    except FileFormatError:
        return False
    with contextlib.closing(sealed):
        if not _verify_sealed(target).ok:
            return False
        parted = PartsSource.load(parts).contents
        if sealed.contents.identity["config"] != parted.identity["config"] or not set(parted.series) <= set(
            sealed.contents.series
        ):
            raise OutputError(errno.EEXIST, "holds another run than its parts; use overwrite", str(target))
    return True


def _base(target: Path, start: Mapping[str, Any]) -> Source:
    """Open the sealed file below a run that extends it."""
    if not target.exists():
        raise CorruptFileError(f"{target}: the sealed run that is being extended is missing")
    if start["base"] != file_digest(target):
        raise CorruptFileError(f"{target}: SHA-256 differs from that of the sealed run that is being extended")
    return SealedSource(target)


def _check_same_run(source: Source, config_json: str, seed: int | None, may_change: Collection[str]) -> bool:
    """Whether the configuration changed where it may; elsewhere it must not."""
    stored, given = json.loads(source.contents.identity["config"]), json.loads(config_json)
    changed = False
    for key, old, new in _config_differences(stored, given, ""):
        if key.split(".")[0] not in may_change:
            raise ResumeMismatchError(f"{source.path}: {key} is {old} in the stored run, {new} in this one")
        changed = True
    old_seed = source.contents.identity["seed"]
    if old_seed != seed and "seed" not in may_change:
        raise ResumeMismatchError(f"{source.path}: seed is {old_seed} in the stored run, {seed} in this one")
    return changed


def _config_differences(old: Any, new: Any, prefix: str) -> list[tuple[str, str, str]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in (*old, *(k for k in new if k not in old)):
            name = f"{prefix}.{key}" if prefix else key
            if key in old and key in new:
                found += _config_differences(old[key], new[key], name)
            else:
                absent = ("absent", json.dumps(new[key])) if key in new else (json.dumps(old[key]), "absent")
                found.append((name, *absent))
        return found
    first, second = json.dumps(old), json.dumps(new)
    return [] if first == second else [(prefix, first, second)]


def _canonical(config: Mapping[str, Any]) -> str:
    try:
        words = json.dumps(dict(config), sort_keys=True, allow_nan=False, ensure_ascii=False)
        return check_text("the configuration", words)
    except RecursionError:
        raise ConfigError("the configuration is nested too deep") from None
    except (TypeError, ValueError) as error:
        for key, value in config.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError, RecursionError):
                raise ConfigError(f"config key {key!r} is not a JSON value: {value!r}") from None
        raise ConfigError(f"the configuration is not JSON: {error}") from None


def _locate(path: str | Path) -> tuple[Path, Path]:
    """File and parts directory that `path`, which may be either, stands for."""
    given = Path(path)
    if given.name.endswith(_SUFFIX) and given.is_dir():
        return given.with_name(given.name.removesuffix(_SUFFIX)), given
    return given, given.with_name(given.name + _SUFFIX) if given.name else given


def open_run(path: str | Path) -> Run:
    """Open a run for reading: a sealed file, or the parts of one that is running or was interrupted.

    Needs no lock: complete segments never change, so what is seen is consistent, and
    opening again sees more.

    Raises
    ------
    FileFormatError
        If it is no run.
    CorruptFileError
        If it is damaged.
    UnsafeFileError, ResourceError
        See `safety.open_file`.
    """
    if "\0" in str(path):
        raise FileFormatError(f"{str(path)!r}: not an HDF5 file: the path holds a NUL character")
    target, parts = _locate(path)
    for attempt in range(3):
        try:
            return _opened(target, parts)
        except (OutputError, CorruptFileError) as error:
            # The writer may just have sealed the run and removed the parts we were reading.
            gone = isinstance(error, OutputError) and error.errno == errno.ENOENT
            if attempt == 2 or not (gone or (parts.is_dir() is False and target.exists())):
                raise
        except OSError as error:
            raise FileFormatError(f"{target}: cannot be read: {error.strerror}") from error
    raise AssertionError


def _opened(target: Path, parts: Path) -> Run:
    names = segment_names(parts) if parts.is_dir() else []
    if not names:
        return Run(target, SealedSource(target))
    start = read_segment(parts, names[0]).header
    if target.is_file() and (_finished_by(target, parts) or (start["mode"] == "new" and _sound(target))):
        return Run(target, SealedSource(target))
    base = _base(target, start) if start["mode"] == "extend" else None
    return Run(target, PartsSource.load(parts, base))


def _finished_by(target: Path, parts: Path) -> bool:
    markers = marker(parts)
    return bool(markers) and file_digest(target) in markers


def _sound(target: Path) -> bool:
    try:
        return _verify_sealed(target).ok
    except FileFormatError:
        return False


def verify(path: str | Path) -> Report:
    """Check every digest of a run, sealed or in parts.

    Raises
    ------
    FileFormatError, CorruptFileError, UnsafeFileError, ResourceError
        If it cannot be opened; segments and restart states that are damaged raise as well.
    """
    target, parts = _locate(path)
    if not target.exists() and parts.is_dir() and segment_names(parts):
        return verify_parts(parts)
    return _verify_sealed(target)
