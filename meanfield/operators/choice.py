"""Which kind of operator fits a kernel, and why."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from meanfield._checks import available_bytes, finite_array, finite_float
from meanfield.errors import NumericalError
from meanfield.grids import Grid
from meanfield.operators.base import IntegralOperator
from meanfield.operators.convolution import Convolution
from meanfield.operators.dense import Dense
from meanfield.operators.hierarchical import Hierarchical
from meanfield.operators.masked import Masked
from meanfield.operators.onthefly import OnTheFly
from meanfield.operators.radial import RadialKernel

# Up to so many labels the exact matrix is as fast as anything, and smaller than the last-level cache.
_SMALL = 1024
# Beyond this share of the pairs a cut-off saves nothing.
_SPARSE = 0.1
# A dense matrix may take so much of the memory that is free.
_SHARE = 0.25


@dataclass(frozen=True)
class Choice:
    """An operator and the reason it was chosen."""

    operator: IntegralOperator
    reason: str


def choose_operator(
    grid: Grid,
    kernel: Any,
    *,
    tolerance: float = 1e-8,
    local: float = 0.0,
    report: Callable[[str], Any] | None = print,
) -> Choice:
    """Choose the fastest operator that represents a kernel to a tolerance.

    In this order: a convolution where the kernel depends on x - y on a periodic grid; a sparse matrix where a
    cut-off leaves a tenth of the pairs or fewer; the dense matrix up to 1024 labels; a hierarchical compression
    where it is smaller than the dense matrix; the dense matrix if it fits into a quarter of the free memory; the
    kernel on the fly.

    Parameters
    ----------
    grid
        Grid of the labels.
    kernel
        A `RadialKernel`, a NumPy-vectorised callable w(x, y), or samples (N, N).
    tolerance
        Relative error allowed in the Hilbert-Schmidt norm where a compression is used.
    local
        Coefficient of the local part.
    report
        Called with the reason; None is silent.

    Raises
    ------
    ConfigError
        For a kernel that does not fit the grid.
    """
    finite_float("tolerance", tolerance, above=0.0)
    if not callable(kernel):
        kernel = finite_array("kernel", kernel, shape=(grid.n_nodes, grid.n_nodes))
    choice = (
        _convolution(grid, kernel, local)
        or _cut_off(grid, kernel, local)
        or _small(grid, kernel, local)
        or _compressed(grid, kernel, tolerance, local)
        or _stored_or_not(grid, kernel, local)
    )
    if report is not None:
        report(f"{choice.operator.kind} operator: {choice.reason}")
    return choice


def _convolution(grid: Grid, kernel: Any, local: float) -> Choice | None:
    if not isinstance(kernel, RadialKernel) or grid.rule != "periodic" or kernel.features is not None:
        return None
    periods = kernel.period if isinstance(kernel.period, tuple) else (kernel.period,) * grid.dim
    if kernel.left is not None or kernel.right is not None or periods != grid.period:
        return None
    operator = Convolution(grid, lambda x: kernel(x, np.zeros_like(x)), local)
    return Choice(operator, "the kernel depends on x - y alone and the labels are periodic: O(N log N) by FFT")


def _cut_off(grid: Grid, kernel: Any, local: float) -> Choice | None:
    if not isinstance(kernel, RadialKernel) or kernel.cutoff is None or kernel.features is not None:
        return None
    if grid.period is not None and kernel.period is None:
        return None  # the kernel does not see the labels as periodic, the neighbour search would
    radius = kernel.cutoff * (1.0 + 1e-12)
    share = min(2.0 * radius if grid.dim == 1 else math.pi * radius**2, 1.0)
    if grid.dim > 2 or share > _SPARSE or grid.n_nodes <= _SMALL:
        return None
    operator = Masked(grid, kernel, radius=radius, local=local)
    stored = operator.n_pairs / grid.n_nodes**2
    return Choice(operator, f"the cut-off {kernel.cutoff:g} leaves {100 * stored:.2g} % of the pairs")


def _small(grid: Grid, kernel: Any, local: float) -> Choice | None:
    if grid.n_nodes > _SMALL:
        return None
    return Choice(Dense(grid, kernel, local), f"N = {grid.n_nodes} is small enough for the exact matrix")


def _compressed(grid: Grid, kernel: Any, tolerance: float, local: float) -> Choice | None:
    if not isinstance(kernel, RadialKernel) and grid.n_nodes > 8192:
        return None
    try:
        operator = Hierarchical(grid, kernel, tolerance, local)
    except NumericalError:
        return None
    share = operator.nbytes / (8 * grid.n_nodes**2)
    if share > 0.5:
        return None
    size = operator.nbytes / 2**20
    return Choice(
        operator,
        f"compressed to {size:.3g} MiB, {100 * share:.2g} % of the dense matrix, "
        f"with a relative error of {operator.error:.1g} <= {tolerance:g}",
    )


def _stored_or_not(grid: Grid, kernel: Any, local: float) -> Choice:
    n = grid.n_nodes
    size = 8 * n * n
    if not callable(kernel) or size <= _SHARE * available_bytes():
        reason = f"the kernel does not compress, and its matrix takes {size / 2**30:.3g} GiB"
        return Choice(Dense(grid, kernel, local), reason)
    reason = f"the kernel does not compress, and its matrix of {size / 2**30:.3g} GiB is too large to store"
    return Choice(OnTheFly(grid, kernel, local), reason)
