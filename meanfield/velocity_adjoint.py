"""Adjoint of steps of a residual network over all its samples: which kernel, in blocks and parts of which size.

A few components are pulled back neuron by neuron, many by products of matrices. Sizes are fixed by the problem, and
gradients of parts are added in their order, so results are the same bytes for any number of threads.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from meanfield._activate import TANH
from meanfield._panels import PANEL
from meanfield._velocity import TWO_LAYER
from meanfield.kernels.pullback import pull_back, write_down
from meanfield.kernels.wide_pullback import pull_back_wide, write_down_wide
from meanfield.parallel import for_blocks

Array = NDArray[np.float64]
Steps = tuple[Array, Array, Array, Array]

# Samples that a thread takes at a time, and parts whose gradients are added at the end.
_SAMPLES, _PARTS = 1024, 16
# Components and neurons from which on products of matrices are the faster way; a register tile has at most 8 rows.
_WIDE = 8


def written_down(code: int, form: int, width: int, steps: Steps, y: Array, out: Array) -> Array:
    """Carry y (d, n) through steps into out and return the states of all stages, (L, s, d, n).

    `steps` holds parameters at all stages (L, s, P), the tableau a (s, s) and b (s,), and the lengths (L,).
    """
    _, _, b, lengths = steps
    stages = np.empty((lengths.size, b.size, *y.shape))
    kernel = write_down_wide if _wide(y, width) else write_down
    block = _block(code, form, y, _SAMPLES)
    for_blocks(partial(kernel, code, form, width, block, *steps, y, stages, out), y.shape[1], _SAMPLES)
    return stages


def pulled_back(code: int, form: int, width: int, steps: Steps, stages: Array, sources: Array, p: Array) -> Array:
    """Pull costates p (d, n) back through steps written down, in place; gradients in their parameters, (L, s, P).

    `sources` holds the gradients of a running cost at the stages, or nothing.
    """
    size = max(_SAMPLES, -(-p.shape[1] // _PARTS))
    kernel, block = pull_back_wide if _wide(p, width) else pull_back, _block(code, form, p, size)

    def run(start: int, stop: int) -> Array:
        found = np.zeros(steps[0].shape)
        kernel(code, form, width, block, *steps, stages, sources, p, found, start, stop)
        return found

    total, *others = for_blocks(run, p.shape[1], size)
    for part in others:
        total += part
    return np.asarray(total)


def _wide(y: Array, width: int) -> bool:
    return min(len(y), width) >= _WIDE


def _block(code: int, form: int, y: Array, size: int) -> int:
    """Samples carried at a time: equal blocks in whole panels, with a hidden layer in the second level of cache."""
    fused = code == TANH and form == TWO_LAYER and len(y) <= 3
    # Hidden values that stay in registers leave room for more samples.
    n, most = min(int(y.shape[1]), size), 1024 if fused else 256
    return -(-n // (-(-n // most) * PANEL)) * PANEL
