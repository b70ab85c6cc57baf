"""Laws on the line as pieces of mass: particles, cells, and atoms among them.

Piece k carries the mass m_k spread evenly over [a_k, b_k], an atom where a_k = b_k. The pieces
stand in order, so that the quantile function is linear on each: integrals, moments and
Wasserstein distances of such laws are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array
from meanfield.errors import ConfigError

Array = NDArray[np.float64]

_TOTAL = 1e-9


@dataclass(frozen=True, eq=False)
class Law:
    """Probability law on the line in pieces of evenly spread mass.

    Parameters
    ----------
    mass
        m_k >= 0, (K,), with sum 1.
    left, right
        a_k <= b_k, (K,), the pieces in order: b_k <= a_{k+1}.

    Raises
    ------
    ConfigError
        For lengths that differ, masses that are negative or do not sum to 1, or pieces out of order.
    """

    mass: Array
    left: Array
    right: Array

    def __post_init__(self) -> None:
        mass = finite_array("mass", self.mass, shape=(None,))
        left, right = (finite_array(n, v, shape=mass.shape) for n, v in (("left", self.left), ("right", self.right)))
        if not len(mass) or (mass < 0.0).any() or abs(float(mass.sum()) - 1.0) > _TOTAL:
            least = f", least {mass.min()!r}" if len(mass) else ""
            raise ConfigError(f"mass must be >= 0 with sum 1, got sum {float(mass.sum())!r}{least}")
        if (right < left).any() or (left[1:] < right[:-1]).any():
            raise ConfigError("the pieces of a law must stand in order, left <= right <= next left")
        for name, value in (("mass", mass), ("left", left), ("right", right)):
            object.__setattr__(self, name, value)

    @classmethod
    def particles(cls, x: Any, weights: Any = None) -> Law:
        """Law of particles at x (n,), with equal masses or those of `weights` (n,), scaled to sum 1."""
        x = finite_array("x", x, shape=(None,))
        check_memory(f"a law of {len(x)} particles", 40 * len(x))
        if weights is None:
            place = np.sort(x)
            return cls(np.full(len(x), 1.0 / max(len(x), 1)), place, place)
        order = np.argsort(x, kind="stable")
        place = x[order]
        return cls(_normalised("weights", weights, len(x))[order], place, place)

    @classmethod
    def cells(cls, edges: Any, masses: Any) -> Law:
        """Law of cells with edges (K + 1,), not decreasing, and masses (K,), scaled to sum 1."""
        edges = finite_array("edges", edges, shape=(None,))
        return cls(_normalised("masses", masses, len(edges) - 1), edges[:-1], edges[1:])

    def moment(self, order: int, centre: float = 0.0) -> float:
        """E (x - centre)^order, exactly: the mean over a piece is (B^{n+1} - A^{n+1}) / ((n + 1)(B - A))."""
        if isinstance(order, bool) or order != int(order) or order < 0:
            raise ConfigError(f"order must be an integer >= 0, got {order!r}")
        order = int(order)
        a, b = self.left - centre, self.right - centre
        # The quotient as a sum of products, which does not divide by the width of an atom.
        mean = sum(a**k * b ** (order - k) for k in range(order + 1)) / (order + 1)
        return float(self.mass @ mean)

    def mean(self) -> float:
        """E x."""
        return self.moment(1)

    def variance(self) -> float:
        """E (x - E x)^2."""
        return self.moment(2, self.mean())

    def support(self, lost: float = 0.0) -> tuple[float, float]:
        """Interval outside which at most the mass `lost` lies on either side."""
        ends = np.cumsum(self.mass)
        first = int(np.searchsorted(ends, lost, side="right"))
        last = int(np.searchsorted(ends, 1.0 - lost - _TOTAL * (lost == 0.0)))
        n = len(self.mass) - 1
        return float(self.left[min(first, n)]), float(self.right[min(last, n)])

    def entropy(self) -> float:
        """H = -int g log g of the density g; minus infinity for a law with atoms."""
        held = self.mass > 0.0
        width = (self.right - self.left)[held]
        if (width == 0.0).any():
            return -np.inf
        return float(-np.sum(self.mass[held] * np.log(self.mass[held] / width)))


def _normalised(name: str, values: Any, n: int) -> Array:
    masses = finite_array(name, values, shape=(n,))
    total = float(masses.sum())
    if (masses < 0.0).any() or not total > 0.0:
        raise ConfigError(f"{name} must be >= 0 with a positive sum, got least {masses.min()!r}, sum {total!r}")
    return masses / total
