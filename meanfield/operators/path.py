"""Kernels that depend on depth: a path of integral operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, one_of
from meanfield.errors import ConfigError
from meanfield.grids import Grid
from meanfield.operators.base import IntegralOperator

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OperatorPath:
    """Integral operators over depth, piecewise constant (a layer each) or piecewise linear.

    Parameters
    ----------
    knots
        Depths t_0 < ... < t_K, (K + 1,).
    operators
        K operators when constant, W(t) = W_k on [t_k, t_{k+1}); K + 1 when linear.
    interpolation
        ``"constant"`` or ``"linear"``.

    Raises
    ------
    ConfigError
        If knots do not increase, lengths do not match or grids differ.
    """

    knots: Array
    operators: Sequence[IntegralOperator]
    interpolation: str = "constant"

    def __post_init__(self) -> None:
        one_of("interpolation", self.interpolation, ("constant", "linear"))
        knots = finite_array("knots", self.knots, shape=(None,))
        operators = tuple(self.operators)
        if len(knots) < 2 or not (np.diff(knots) > 0).all():
            raise ConfigError("knots must be at least two strictly increasing depths")
        wanted = len(knots) - (self.interpolation == "constant")
        if len(operators) != wanted:
            raise ConfigError(f"operators has length {len(operators)}, but {len(knots)} knots need length {wanted}")
        first = operators[0].grid
        for other in operators[1:]:
            if not np.array_equal(other.grid.nodes, first.nodes) or not np.array_equal(
                other.grid.weights, first.weights
            ):
                raise ConfigError("all operators of a path must live on the same grid")
        object.__setattr__(self, "knots", knots)
        object.__setattr__(self, "operators", operators)

    @property
    def grid(self) -> Grid:
        """Grid of the labels."""
        return self.operators[0].grid

    @property
    def breakpoints(self) -> Array:
        """Depths at which W or its derivative jumps: the inner knots."""
        return self.knots[1:-1]

    def apply(self, t: float, z: Array, out: Array | None = None) -> Array:
        """W(t) z for a field (N,) or fields (n, N)."""
        return self._combine(t, z, out, "apply")

    def apply_adjoint(self, t: float, p: Array, out: Array | None = None) -> Array:
        """W(t)* p in L2(q), for a field (N,) or fields (n, N)."""
        return self._combine(t, p, out, "apply_adjoint")

    def shares(self, t: float) -> list[tuple[int, float]]:
        """Operators that W(t) is made of, with their weights: one, or two of a piecewise linear path."""
        last = len(self.knots) - 2
        k = min(max(int(np.searchsorted(self.knots, t, side="right")) - 1, 0), last)
        if self.interpolation == "constant":
            return [(k, 1.0)]
        s = min(max((t - self.knots[k]) / (self.knots[k + 1] - self.knots[k]), 0.0), 1.0)
        return [(k, 1.0 - s), (k + 1, s)] if s > 0.0 else [(k, 1.0)]

    def _combine(self, t: float, z: Array, out: Array | None, method: str) -> Array:
        (first, weight), *rest = self.shares(t)
        left: Array = getattr(self.operators[first], method)(z, out)
        for k, s in rest:
            left *= weight
            left += s * getattr(self.operators[k], method)(z)
        return left

    def describe(self) -> dict[str, Any]:
        """What determines the path, for digests of runs."""
        return {
            "kind": "path",
            "knots": self.knots,
            "interpolation": self.interpolation,
            "operators": [operator.describe() for operator in self.operators],
        }
