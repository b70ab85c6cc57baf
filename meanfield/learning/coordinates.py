"""Coordinates of parameters over depth and labels, in which Euclidean products are those of a space of functions.

    L2:  u_k = sqrt(h_k q) theta_k                H1:  u_0 = sqrt(q) theta_0,  u_k = sqrt(q/d_k) (theta_k - theta_(k-1))

Steps of solvers in u depend neither on the number of layers nor on that of neurons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from meanfield.controls import Controls
from meanfield.learning.adjoint import parameter_weights
from meanfield.regularizers import DepthH1, Regularizer, Total

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Coordinates of one parameter.

    Attributes
    ----------
    shape
        Of the values and of the coordinates.
    scale
        Square roots of the weights of L2, to broadcast to that shape.
    labels
        Those of the labels alone.
    gaps
        Square roots of the distances between values, (K - 1, 1, ...), where the products are those of H1; else None.
    """

    shape: tuple[int, ...]
    scale: Array
    labels: Array
    gaps: Array | None = None

    @classmethod
    def of(cls, model: Any, name: str, regularizer: Regularizer | None = None) -> Self:
        """Coordinates of a parameter of a network: of H1 where jumps over depth are penalised, else of L2."""
        part = model.parameters[name]
        labels = np.asarray(np.sqrt(model.label_weights(name)))
        scale = np.asarray(np.sqrt(parameter_weights(model, name)))
        if not isinstance(part, Controls):
            return cls(part.shape, scale, labels)
        terms = regularizer.terms if isinstance(regularizer, Total) else (regularizer,)
        if not any(isinstance(term, DepthH1) and term.strength > 0.0 for term in terms):
            return cls(part.values.shape, scale, labels)
        at = part.knots if part.interpolation == "linear" else 0.5 * (part.knots[1:] + part.knots[:-1])
        return cls(part.values.shape, scale, labels, np.sqrt(np.diff(at)).reshape(-1, *(1 for _ in part.shape)))

    def of_values(self, values: Array) -> Array:
        """Coordinates of values."""
        if self.gaps is None:
            return np.asarray(values * self.scale)
        return np.asarray(self.labels * np.concatenate([values[:1], np.diff(values, axis=0) / self.gaps]))

    def values(self, u: Array) -> Array:
        """Values of coordinates."""
        if self.gaps is None:
            return np.asarray(u / self.scale)
        return np.asarray(np.cumsum(np.concatenate([u[:1], u[1:] * self.gaps]), axis=0) / self.labels)

    def of_gradient(self, gradient: Array) -> Array:
        """Gradient in the coordinates from that in the values: the transpose of `values`."""
        if self.gaps is None:
            return np.asarray(gradient / self.scale)
        sums = np.cumsum(gradient[::-1], axis=0)[::-1]
        return np.asarray(np.concatenate([sums[:1], sums[1:] * self.gaps]) / self.labels)
