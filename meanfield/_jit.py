"""Compilation: one `njit` for the package, whose cache cannot go stale.

Numba's own on-disk cache notices a change in the file of a function but not in
the files of the functions it calls, and then runs yesterday's machine code. Here
the cache directory is named by a digest of all of the package's sources, so any
change starts afresh, while an unchanged package finds everything compiled in a
new process. ``MEANFIELD_CACHE_DIR`` moves it; the default is the user's cache
directory.

Each compiled signature is one file, named by what determines it and starting
with its own checksum: a damaged entry is compiled anew, and two processes that
fill the cache at once cannot hand each other the wrong code.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, overload

import llvmlite
import numba
from numba.core import caching, serialize

F = TypeVar("F", bound=Callable[..., Any])

# Some versions of numba carry partial annotations, others none: to the type checker they are all alike.
_numba: Any = numba
_caching: Any = caching
_serialize: Any = serialize

PACKAGE = Path(__file__).resolve().parent
_KEEP_SECONDS = 60 * 24 * 3600

# Elementary functions: reassociation would break their hi/lo reductions, and
# nnan/ninf would let the optimiser drop the NaN that a guard must see.
ELEMENTARY = frozenset({"nsz", "contract", "arcp"})
# Sums may be reordered (vectorised); still no nnan, no ninf.
REDUCTION = ELEMENTARY | {"reassoc"}


def _digest_sources() -> str:
    digest = hashlib.sha256()
    # The settings of numba that change machine code without changing a source.
    settings = (numba.__version__, llvmlite.__version__, _numba.config.BOUNDSCHECK, _numba.config.OPT)
    digest.update(repr(settings).encode())
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode())
        digest.update(b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:20]


@functools.cache
def source_stamp() -> str:
    """Digest of every source file of the package, and of numba's version and settings."""
    return _digest_sources()


def cache_root() -> Path:
    """Directory that holds one cache per version of the sources."""
    chosen = os.environ.get("MEANFIELD_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "meanfield"


def _private_temporary_root() -> Path:
    """Directory under the shared temporary one that nobody else can have filled.

    Cache entries are unpickled, so an entry another user planted would run as code.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    root = Path(tempfile.gettempdir()) / f"meanfield-{user}"
    root.mkdir(mode=0o700, exist_ok=True)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and (found.st_uid != user or found.st_mode & 0o022)):
        raise PermissionError(f"{root} belongs to another user or is writable by others")
    return root


@functools.cache
def cache_directory() -> Path | None:
    """Directory of this version's compiled code, or None if none can be written."""
    for choose in (cache_root, _private_temporary_root):
        try:
            root = choose()
            path = root / source_stamp()
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
            os.utime(path)
            _forget_old(root)
        except (OSError, RuntimeError):  # expanduser raises RuntimeError for a user without a home
            continue
        return path
    return None


def _forget_old(root: Path) -> None:
    """Remove caches of other source versions not used for two months.

    Only what is unmistakably such a cache: the directory may be one the user
    chose, with other things in it.
    """
    now = time.time()
    for other in root.iterdir():
        if re.fullmatch("[0-9a-f]{20}", other.name) is None or other.name == source_stamp() or other.is_symlink():
            continue
        with contextlib.suppress(OSError):
            if other.is_dir() and now - other.stat().st_mtime > _KEEP_SECONDS:
                shutil.rmtree(other, ignore_errors=True)


class _Locator:
    """Tells numba where a function's compiled code lives and when it is stale."""

    def __init__(self, py_func: Callable[..., Any], directory: Path) -> None:
        self._directory = directory / (py_func.__module__ or "none")
        self._py_file = py_func.__code__.co_filename  # numba's warnings name it
        self._lineno = py_func.__code__.co_firstlineno

    def ensure_cache_path(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(self._directory)

    def get_source_stamp(self) -> str:
        return source_stamp()

    def get_disambiguator(self) -> str:
        return str(self._lineno)


class _CacheImpl(_caching.CompileResultCacheImpl):  # type: ignore[misc]
    def __init__(self, py_func: Callable[..., Any]) -> None:
        directory = cache_directory()
        if directory is None:
            raise RuntimeError("no directory to cache in")
        self._lineno = py_func.__code__.co_firstlineno
        self._locator = _Locator(py_func, directory)
        self._filename_base = self.get_filename_base(py_func.__qualname__, "")


class _Entries:
    """The compiled signatures of one function: a file each, checksum first.

    Numba's own index gives the next free number to a new signature; of two
    processes doing so at once, one can later be handed the code of the other's.
    """

    def __init__(self, directory: str, base: str) -> None:
        self._directory = Path(directory)
        self._base = base

    def _path(self, key: object) -> Path:
        return self._directory / f"{self._base}.{hashlib.sha256(repr(key).encode()).hexdigest()[:20]}.nbc"

    def load(self, key: object) -> Any:
        stored = self._path(key).read_bytes()
        checksum, payload = stored[:32], stored[32:]
        if hashlib.sha256(payload).digest() != checksum:
            return None
        return pickle.loads(payload)  # noqa: S301 (the user's own cache; see _private_temporary_root)

    def save(self, key: object, data: object) -> None:
        payload = _serialize.dumps(data)
        path = self._path(key)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        try:
            temporary.write_bytes(hashlib.sha256(payload).digest() + payload)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def flush(self) -> None:
        for path in self._directory.glob(f"{self._base}.*.nbc"):
            path.unlink(missing_ok=True)


class _Cache(_caching.Cache):  # type: ignore[misc]
    _impl_class = _CacheImpl

    def __init__(self, py_func: Callable[..., Any]) -> None:
        super().__init__(py_func)
        self._cache_file = _Entries(self._cache_path, self._impl.filename_base)

    @contextlib.contextmanager
    def _guard_against_spurious_io_errors(self) -> Iterator[None]:
        # A full disk or a missing entry costs a compilation, never the run.
        with contextlib.suppress(OSError):
            yield

    def _save_overload(self, sig: object, data: object) -> None:
        # Sources edited while this process runs: what it compiles now belongs to no version.
        if _digest_sources() == source_stamp():
            super()._save_overload(sig, data)


@overload
def njit(function: F) -> F: ...
@overload
def njit(*, fastmath: frozenset[str] | bool = ..., forceinline: bool = ...) -> Callable[[F], F]: ...
def njit(
    function: Callable[..., Any] | None = None,
    *,
    fastmath: frozenset[str] | bool = False,
    forceinline: bool = False,
) -> Any:
    """Compile a module-level function in nopython mode, cached, without the GIL.

    `forceinline` puts it into the loops that call it, which then become vector code.
    Releasing the GIL lets `parallel` run row blocks on threads of this process.
    """
    if function is None:
        return functools.partial(njit, fastmath=fastmath, forceinline=forceinline)
    flags = set(fastmath) if isinstance(fastmath, frozenset) else fastmath
    options = {"error_model": "numpy", "nogil": True, "forceinline": forceinline}
    dispatcher = _numba.njit(fastmath=flags, **options)(function)
    if not _numba.config.DISABLE_JIT and cache_directory() is not None:
        dispatcher._cache = _Cache(function)  # noqa: SLF001 (numba has no public way to set one)
    return dispatcher
