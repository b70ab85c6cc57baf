"""Every error this package raises on purpose.

All derive from `MeanfieldError`, and each also from the built-in class a caller
would expect, so that both ``except meanfield.MeanfieldError`` and
``except ValueError`` do what they say.
"""

from __future__ import annotations


class MeanfieldError(Exception):
    """Base class of every error raised on purpose by this package."""


class ConfigError(MeanfieldError, ValueError):
    """A parameter, option or configuration file that cannot be used as given."""


class NumericalError(MeanfieldError, ArithmeticError):
    """A computation that left the finite numbers or could not go on."""


class FileFormatError(MeanfieldError, ValueError):
    """A file that is not what it should be: wrong format or an unsupported schema."""


class CorruptFileError(FileFormatError):
    """A file that was a run once and whose bytes have changed, or that is incomplete."""


class UnsafeFileError(FileFormatError):
    """A file holding objects that reach outside it (links, external or virtual storage)."""


class ResourceError(MeanfieldError, MemoryError):
    """A request that needs more memory or storage than the limit allows."""


class RunLockedError(MeanfieldError, OSError):
    """A run that another process is writing."""


class ResumeMismatchError(MeanfieldError, ValueError):
    """A resume whose configuration differs from that of the stored run."""


class OutputError(MeanfieldError, OSError):
    """An output that cannot be written; keeps the operating system's ``errno``."""
