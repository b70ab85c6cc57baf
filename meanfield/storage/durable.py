"""Files that survive a crash: write, fsync, rename, fsync of the directory; the lock of one writer; Ctrl-C.

A file appears under its name only when its bytes are on the disk. Nothing is
tried twice: after a failed ``fsync`` the kernel may have dropped the dirty pages,
and a second one would report success for bytes that are gone. Ctrl-C waits until a
commit is whole: between the moment a segment has its name and the moment the writer
knows of it, it would leave the two in disagreement.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from meanfield._checks import check_memory
from meanfield.errors import OutputError, RunLockedError
from meanfield.storage import syscalls

LOCK_NAME = ".lock"
_BLOCK = 4 * 2**20


@contextmanager
def output_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn an `OSError` into an `OutputError` that names the file, the act and the errno."""
    try:
        yield
    except (OutputError, RunLockedError):
        raise
    except OSError as error:
        number = error.errno or errno.EIO
        name = errno.errorcode.get(number, str(number))
        raise OutputError(number, f"cannot {doing}: {os.strerror(number)} ({name})", str(path)) from error


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, however short the single writes are."""
    view = memoryview(data)
    while view:
        written = syscalls.system.write(fd, view)
        if written <= 0:
            raise OSError(errno.EIO, "the system wrote nothing")
        view = view[written:]


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = syscalls.system.open(str(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        syscalls.system.fsync(fd)
    finally:
        syscalls.system.close(fd)


def put(path: Path, data: bytes) -> None:
    """Create or replace `path` with `data`, durably and all at once.

    Raises
    ------
    OutputError
        On the first failed call, with its errno; the temporary file is removed.
    """
    temporary = path.parent / f".{path.name}.tmp"
    with output_errors(path, "write"):
        fd = syscalls.system.open(str(temporary), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        try:
            try:
                write_all(fd, data)
                syscalls.system.fsync(fd)
            except BaseException:
                with suppress(OSError):
                    syscalls.system.close(fd)
                raise
            syscalls.system.close(fd)
            syscalls.system.rename(str(temporary), str(path))
        except BaseException:
            with suppress(OSError):
                syscalls.system.unlink(str(temporary))
            raise
        fsync_directory(path.parent)


def read_bytes(path: Path) -> bytes:
    """Bytes of a whole file, refused when they would not fit into memory twice."""
    with output_errors(path, "read"):
        check_memory(f"reading {path}", 2 * path.stat().st_size)
        return path.read_bytes()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in bounded memory."""
    with output_errors(path, "read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_directories(path: Path) -> None:
    """Create a directory and its parents; each new name is made durable."""
    if path.is_dir():
        return
    make_directories(path.parent)
    with output_errors(path, "create the directory"):
        with suppress(FileExistsError):
            syscalls.system.mkdir(str(path))
        fsync_directory(path.parent)


class Lock:
    """Exclusive right to write a run, held as ``flock`` on a file of its own.

    The lock file lives in the parts directory and goes away with it. A process
    that opened it just before it was removed holds a lock on nothing, which the
    comparison of inodes finds.
    """

    def __init__(self, directory: Path, fd: int) -> None:
        self.directory = directory
        self._fd: int | None = fd

    @classmethod
    def acquire(cls, directory: Path, target: Path) -> Lock:
        """Lock `directory`, created if missing.

        Raises
        ------
        RunLockedError
            If it is locked already.
        OutputError
            If it cannot be created.
        """
        for _ in range(100):
            make_directories(directory)
            try:
                with output_errors(directory, "lock the run in"):
                    lock = cls._try(directory, target, os.O_CREAT)
            except OutputError as error:
                if error.errno == errno.ENOENT:  # the last writer removed it between two of our calls
                    continue
                _remove_if_empty(directory)
                raise
            if lock is not None:
                return lock
        raise RunLockedError(errno.EWOULDBLOCK, "another process keeps creating and removing this run", str(target))

    @classmethod
    def probe(cls, directory: Path, target: Path) -> None:
        """Raise `RunLockedError` if the run is being written; touches nothing."""
        with output_errors(directory, "look at the lock in"):
            try:
                lock = cls._try(directory, target, 0)
            except FileNotFoundError:
                return
            if lock is not None:
                lock.drop()

    @classmethod
    def _try(cls, directory: Path, target: Path, flags: int) -> Lock | None:
        path = directory / LOCK_NAME
        fd = syscalls.system.open(str(path), flags | os.O_RDWR)
        try:
            syscalls.system.lock(fd)
            mine, named = os.fstat(fd), path.stat()
            if (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino):
                return cls(directory, fd)
        except BlockingIOError:
            os.close(fd)
            raise RunLockedError(errno.EWOULDBLOCK, "another process is writing this run", str(target)) from None
        except FileNotFoundError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def drop(self) -> None:
        """Let go and leave the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def release(self) -> None:
        """Let go; a directory holding nothing but the lock is removed. Never raises, may be called twice."""
        if self._fd is None:
            return
        try:
            with suppress(OSError):
                if os.listdir(self.directory) == [LOCK_NAME]:  # noqa: PTH208
                    (self.directory / LOCK_NAME).unlink()
                    self.directory.rmdir()
        finally:
            self.drop()


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


class Deferred:
    """A Ctrl-C that waits."""

    def __init__(self) -> None:
        self.waiting: tuple[int, FrameType | None] | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: remember."""
        self.waiting = (number, frame)

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if one is waiting: for long work, where it is safe to stop."""
        if self.waiting is not None:
            raise KeyboardInterrupt


@contextmanager
def deferred_interrupts() -> Iterator[Deferred]:
    """Hold Ctrl-C back inside the block and deliver it afterwards (in the main thread; elsewhere it never comes)."""
    deferred = Deferred()
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield deferred
        return
    signal.signal(signal.SIGINT, deferred.note)
    try:
        yield deferred
    finally:
        signal.signal(signal.SIGINT, previous)
        if deferred.waiting is not None:
            previous(*deferred.waiting)
