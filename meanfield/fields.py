"""A named array with its axes: what models give to probes, files and figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Field:
    """Values over named axes.

    Parameters
    ----------
    values
        Array, one extent for each axis.
    axes
        Names of the axes, e.g. ``("sample", "neuron")``.
    units
        Units as in netCDF; ``"1"`` for a pure number.
    long_name
        Words for labels of figures.
    """

    values: NDArray[np.float64]
    axes: tuple[str, ...]
    units: str = "1"
    long_name: str = ""
