"""Optima of a sequence of problems, each started from those before: what they took, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meanfield.errors import NumericalError
from meanfield.learning.quasi_newton import Optimum

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OptimumPath:
    """Optima along one way through the values of a parameter, in the order in which they were found.

    Attributes
    ----------
    values
        Values of the parameter (a number of layers, a length, a penalty), (K,).
    optima
        Optimum of each.
    steps
        Steps of each problem; with Euler steps, layers, (K,).
    evaluations
        Evaluations of J and its gradient at each value, those that choose the start included, (K,).
    """

    values: Array
    optima: tuple[Optimum, ...]
    steps: NDArray[np.int64]
    evaluations: NDArray[np.int64]

    @property
    def energies(self) -> Array:
        """J of each optimum, (K,)."""
        return np.array([optimum.value for optimum in self.optima])

    @property
    def work(self) -> int:
        """Evaluations times steps, summed over all values: passes forward and back through one layer."""
        return int(self.evaluations @ self.steps)

    def raise_for_status(self) -> OptimumPath:
        """Return itself if every optimum converged, else raise `NumericalError` with the first value that did not."""
        for value, optimum in zip(self.values.tolist(), self.optima, strict=True):
            try:
                optimum.raise_for_status()
            except NumericalError as error:
                raise NumericalError(f"at {value!r}: {error}") from None
        return self
