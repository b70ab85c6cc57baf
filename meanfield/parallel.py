"""Threads: row blocks of compiled kernels, and BLAS kept to one thread.

Blocks are fixed by the problem, never by the number of threads, and each fills rows
of its own; reductions over blocks are combined in their order. So the bytes of a
result do not depend on how many threads there were.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import positive_int
from meanfield.errors import ConfigError

_settings: dict[str, int | None] = {"threads": None}
_blas_depth = [0]


def get_threads() -> int:
    """Number of threads kernels may use: as set, else MEANFIELD_THREADS, else the CPUs this process may run on."""
    chosen = _settings["threads"]
    if chosen is None:
        text = os.environ.get("MEANFIELD_THREADS", "")
        if text:
            if not text.isdigit():
                raise ConfigError(f"MEANFIELD_THREADS must be a positive integer, got {text!r}")
            chosen = positive_int("MEANFIELD_THREADS", int(text))
        else:
            chosen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        _settings["threads"] = chosen
    return chosen


def set_threads(n: int) -> None:
    """Use n threads from now on."""
    _settings["threads"] = positive_int("threads", n)


@functools.cache
def _pool(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n - 1, thread_name_prefix="meanfield")


def blocks(n: int, size: int) -> list[tuple[int, int]]:
    """Fixed blocks [start, stop) of at most `size` covering range(n)."""
    return [(start, min(start + size, n)) for start in range(0, n, size)]


def for_blocks(function: Callable[[int, int], Any], n: int, size: int) -> list[Any]:
    """Call function(start, stop) for every block of range(n) and return the values in order.

    The function must release the GIL and write only to rows of its own block. Give
    blocks of 50 microseconds of work or more.
    """
    parts = blocks(n, size)
    threads = min(get_threads(), len(parts))
    if threads < 2:
        return [function(start, stop) for start, stop in parts]
    shares = [parts[i::threads] for i in range(threads)]
    pool = _pool(threads)
    futures = [pool.submit(_run, function, share) for share in shares[1:]]
    results: list[Any] = [None] * len(parts)
    results[0::threads] = _run(function, shares[0])
    for i, future in enumerate(futures, start=1):
        results[i::threads] = future.result()
    return results


def _run(function: Callable[[int, int], Any], share: list[tuple[int, int]]) -> list[Any]:
    return [function(start, stop) for start, stop in share]


def block_sum(values: NDArray[np.float64], size: int = 4096) -> float:
    """Sum of a flat array by fixed blocks combined in order: the same bytes for any number of threads."""
    flat = np.ascontiguousarray(values).ravel()
    total = 0.0
    for start, stop in blocks(flat.size, size):
        total += float(flat[start:stop].sum())
    return total


@functools.cache
def _controller(with_scipy: bool) -> Any:  # noqa: ARG001  (SciPy brings a BLAS of its own, which loads later)
    from threadpoolctl import ThreadpoolController  # noqa: PLC0415  (loads only when first needed)

    return ThreadpoolController()


@contextmanager
def blas_single_thread() -> Iterator[None]:
    """Keep BLAS to one thread inside the block; nested blocks cost nothing."""
    if _blas_depth[0]:
        yield
        return
    with _controller("scipy.linalg" in sys.modules).limit(limits=1, user_api="blas"):
        _blas_depth[0] += 1
        try:
            yield
        finally:
            _blas_depth[0] -= 1
