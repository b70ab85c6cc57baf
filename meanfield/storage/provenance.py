"""Where a run comes from: code, versions, command, host."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py

from meanfield._version import __version__

VOLATILE = ("created", "finished", "command", "host")
"""Root attributes in which two identical runs may differ."""

_PACKAGES = ("numpy", "scipy", "numba", "h5py")


def now() -> str:
    """Return the present moment as ISO 8601 text in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def version(package: str) -> str:
    """Version of an installed package, or ``""``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def git_state() -> tuple[str, int]:
    """Commit of the package's source tree and whether it has changes; ``("", 0)`` when installed from a wheel."""
    package = Path(__file__).resolve().parents[1]
    git = shutil.which("git")
    if git is None or not (package.parent / ".git").exists():
        return "", 0
    try:
        commit = _output(git, package, "rev-parse", "--verify", "HEAD")
        changes = _output(git, package, "status", "--porcelain", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return "", 0
    return commit, int(bool(changes))


def _output(git: str, where: Path, *arguments: str) -> str:
    command = [git, "-C", str(where), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def identity(experiment: str, seed: int | None, references: Sequence[str], command: str | None) -> dict[str, Any]:
    """Build what a run says of its origin, written with its first segment."""
    commit, dirty = git_state()
    versions = {name: version(name) for name in _PACKAGES}
    versions |= {"meanfield": __version__, "python": platform.python_version(), "hdf5": h5py.version.hdf5_version}
    words = shlex.join(sys.argv) if command is None else command
    return {
        "experiment": experiment,
        "seed": seed,
        "git_commit": commit,
        "git_dirty": dirty,
        "versions": json.dumps(versions, sort_keys=True),
        "created": now(),
        "command": _plain(words),
        "host": _plain(socket.gethostname()),
        "references": "\n".join(references),
    }


def _plain(words: str) -> str:
    return words.encode(errors="replace").decode().replace("\0", "")
