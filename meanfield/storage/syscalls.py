"""Every system call that writes, in one object, so that a test can make the k-th one fail.

The modules of this package call ``syscalls.system.write(...)`` and never `os` for
anything that changes the disk. A test replaces `system` by a subclass.
"""

from __future__ import annotations

import fcntl
import os


class System:
    """The operating system; each method is the call of the same name."""

    def open(self, path: str, flags: int) -> int:
        """``open(2)`` with mode 0644, closed on exec."""
        return os.open(path, flags | os.O_CLOEXEC, 0o644)

    def close(self, fd: int) -> None:
        """``close(2)``."""
        os.close(fd)

    def write(self, fd: int, data: memoryview) -> int:
        """``write(2)``; may be short."""
        return os.write(fd, data)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        """``pwrite(2)``; may be short."""
        return os.pwrite(fd, data, offset)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """``pread(2)``; may be short."""
        return os.pread(fd, size, offset)

    def ftruncate(self, fd: int, size: int) -> None:
        """``ftruncate(2)``."""
        os.ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        """``fsync(2)``."""
        os.fsync(fd)

    def rename(self, source: str, target: str) -> None:
        """``rename(2)``: atomic replacement."""
        os.rename(source, target)  # noqa: PTH104

    def unlink(self, path: str) -> None:
        """``unlink(2)``."""
        os.unlink(path)  # noqa: PTH108

    def mkdir(self, path: str) -> None:
        """``mkdir(2)`` with mode 0755."""
        os.mkdir(path, 0o755)  # noqa: PTH102

    def rmdir(self, path: str) -> None:
        """``rmdir(2)``."""
        os.rmdir(path)  # noqa: PTH106

    def lock(self, fd: int) -> None:
        """``flock(2)``, exclusive and without waiting."""
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def listdir(self, path: str) -> list[str]:
        """Names in a directory."""
        return os.listdir(path)  # noqa: PTH208


system = System()
