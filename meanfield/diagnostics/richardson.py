"""Richardson extrapolation: what is left to the limit, from the last sizes of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from meanfield.errors import ConfigError

Array = NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)


def root_mean_square(values: Array) -> float:
    """Root mean square of the entries."""
    return float(np.sqrt(np.mean(np.square(values))))


def correction(
    axis: str, sizes: NDArray[np.int64], values: Sequence[Array], known: float | None
) -> tuple[Array, float, float]:
    """Correction v - v(finest) of Richardson's extrapolation, its uncertainty, and the order used.

    With v(h) = v + C h^p and h divided by r: v = v(h/r) + (v(h/r) - v(h)) / (r^p - 1).

    Parameters
    ----------
    axis
        Name of the sizes, for messages.
    sizes, values
        Sizes 1/h, at least three, the last three in a constant ratio, and the values there.
    known
        The order p; None observes it on the last three.

    Raises
    ------
    ConfigError
        For sizes that cannot be used, or values that do not converge.
    """
    if len(sizes) < 3:
        raise ConfigError(f"an extrapolation needs at least three sizes of {axis}, got {sizes.tolist()}")
    ratio = sizes[-1] / sizes[-2]
    if not np.isclose(sizes[-2] / sizes[-3], ratio, rtol=0.02):
        raise ConfigError(f"the last three sizes of {axis} must be in a constant ratio, got {sizes.tolist()}")
    steps = [fine - coarse for coarse, fine in pairwise(values)]
    sizes_of_steps = [root_mean_square(s) for s in steps]
    nothing = np.zeros_like(steps[-1])
    if sizes_of_steps[-1] <= 1e3 * _EPS * root_mean_square(values[-1]):
        return nothing, sizes_of_steps[-1], np.inf
    if known is not None:
        gain = ratio**known - 1.0
        correction = steps[-1] / gain
        before = steps[-2] / gain - steps[-1]
        return correction, root_mean_square(correction - before), known
    order = _step_order(axis, sizes_of_steps[-2:], ratio)
    correction = steps[-1] / (ratio**order - 1.0)
    if len(steps) == 2 or not np.isclose(sizes[-3] / sizes[-4], ratio, rtol=0.02):
        return correction, root_mean_square(correction), order
    coarser = _step_order(axis, sizes_of_steps[-3:-1], ratio)
    before = steps[-2] / (ratio**coarser - 1.0) - steps[-1]
    return correction, root_mean_square(correction - before), order


def _step_order(axis: str, steps: Sequence[float], ratio: float) -> float:
    """Order from the sizes of two differences in a row."""
    if not steps[0] > steps[1] > 0.0:
        raise ConfigError(f"values along {axis} do not converge: differences {steps[0]:.3g}, then {steps[1]:.3g}")
    return float(np.log(steps[0] / steps[1]) / np.log(ratio))
