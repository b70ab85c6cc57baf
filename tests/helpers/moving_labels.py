"""The network on which theory measures its orders of moving and changing grids: V2, tanh, T = 1.3."""

from __future__ import annotations

import numpy as np

T = 1.3
SIZES = (17, 33, 65, 129)


def kernel(x, y):
    """Kernel w(x, y)."""
    return 1.5 * np.cos(x - y)


def bias(x):
    """Bias b(x)."""
    return 0.5 * np.sin(2 * x)


def start(x):
    """Initial field z_0(x)."""
    return np.cos(2 * x) + x
