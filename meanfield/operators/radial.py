"""Radial kernels as values: a formula that NumPy, compiled loops and compressions all understand.

w(x, y) = amplitude left(x) phi(|a(x) - a(y)| / length) right(y),   0 where |a(x) - a(y)| > cutoff
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float, lookup, positive_int
from meanfield.errors import ConfigError
from meanfield.kernels import pairs

Array = NDArray[np.float64]
Labels = Callable[[Array], Any]


def _wendland(r: Array, _shift: float) -> Array:
    return np.asarray(np.maximum(1.0 - r, 0.0) ** 4 * (4.0 * r + 1.0))


def _matern(r: Array, nu: float) -> Array:
    s = math.sqrt(2.0 * nu) * r
    return np.asarray((1.0 + s + (s * s / 3.0 if nu > 2.0 else 0.0)) * np.exp(-s))


PROFILES: dict[str, tuple[int, Callable[[Array, float], Array]]] = {
    "gaussian": (pairs.GAUSSIAN, lambda r, _: np.exp(-r * r)),
    "exponential": (pairs.EXPONENTIAL, lambda r, _: np.exp(-r)),
    "distance": (pairs.DISTANCE, lambda r, _: r),
    "logarithm": (pairs.LOGARITHM, lambda r, shift: np.log(r + shift)),
    "multiquadric": (pairs.MULTIQUADRIC, lambda r, _: np.sqrt(1.0 + r * r)),
    "inverse_multiquadric": (pairs.INVERSE_MULTIQUADRIC, lambda r, _: 1.0 / np.sqrt(1.0 + r * r)),
    "cauchy": (pairs.CAUCHY, lambda r, _: 1.0 / (1.0 + r * r)),
    "matern32": (pairs.MATERN32, lambda r, _: _matern(r, 1.5)),
    "matern52": (pairs.MATERN52, lambda r, _: _matern(r, 2.5)),
    "wendland": (pairs.WENDLAND, _wendland),
    "indicator": (pairs.INDICATOR, lambda r, _: (r <= 1.0).astype(np.float64)),
}
"""Name -> integer code of the compiled loops, and phi(r) in NumPy (r and the shift of the logarithm)."""


@dataclass(frozen=True, eq=False)
class RadialKernel:
    """Kernel that depends on the distance of features of the labels.

    Parameters
    ----------
    profile
        Name of phi: ``"gaussian"`` e^(-r^2), ``"exponential"`` e^(-r), ``"distance"`` r, ``"logarithm"``
        log(r + shift), ``"multiquadric"`` (1 + r^2)^(1/2), ``"inverse_multiquadric"``, ``"cauchy"`` 1/(1 + r^2),
        ``"matern32"``, ``"matern52"``, ``"wendland"`` (1 - r)_+^4 (4 r + 1), ``"indicator"`` 1 for r <= 1.
    length
        Length by which distances are divided, > 0.
    amplitude
        Factor of the whole kernel.
    features
        a: callable from labels, (..., ) in one dimension and (..., D) in more, to features, (...) or (..., d);
        None takes the labels themselves.
    left, right
        Factors left(x) and right(y), callables of labels to arrays (...); None is 1.
    period
        Circumference of the circle on which a feature lives (one number, or one for each; None: a line). Features
        must then lie within one period of each other.
    cutoff
        Features farther apart do not interact: a local (masked) kernel. None is no limit.
    shift
        eps > 0 of the logarithm.
    dim
        Dimension D of the labels.

    Raises
    ------
    ConfigError
        For an unknown profile, or values out of range.
    """

    profile: str
    length: float = 1.0
    amplitude: float = 1.0
    features: Labels | None = None
    left: Labels | None = None
    right: Labels | None = None
    period: float | tuple[float | None, ...] | None = None
    cutoff: float | None = None
    shift: float = 1e-3
    dim: int = 1

    def __post_init__(self) -> None:
        lookup("profile", self.profile, PROFILES)
        finite_float("length", self.length, above=0.0)
        finite_float("amplitude", self.amplitude)
        finite_float("shift", self.shift, above=0.0)
        if self.cutoff is not None:
            finite_float("cutoff", self.cutoff, above=0.0)
        for p in self.period if isinstance(self.period, tuple) else (self.period,):
            if p is not None:
                finite_float("period", p, above=0.0)
        positive_int("dim", self.dim)

    @property
    def code(self) -> int:
        """Integer code of phi in the compiled loops."""
        return PROFILES[self.profile][0]

    @property
    def limit(self) -> float:
        """Largest (|a(x) - a(y)| / length)^2 that interacts."""
        return math.inf if self.cutoff is None else (self.cutoff / self.length) ** 2

    def coordinates(self, labels: Array) -> Array:
        """Features of labels (...) or (..., D), as (..., d)."""
        found = labels if self.features is None else np.asarray(self.features(labels), dtype=np.float64)
        lead = labels.shape if self.dim == 1 else labels.shape[:-1]
        if found.shape[: len(lead)] != lead or found.ndim not in (len(lead), len(lead) + 1):
            raise ConfigError(f"features has shape {found.shape} for labels of shape {labels.shape}")
        return np.asarray(found[..., None] if found.ndim == len(lead) else found)

    def periods(self, n_features: int) -> Array:
        """Circumference of each feature divided by the length, (d,); infinite on a line."""
        given = self.period if isinstance(self.period, tuple) else (self.period,) * n_features
        if len(given) != n_features:
            raise ConfigError(f"period has length {len(given)}, but there are {n_features} features")
        return np.array([math.inf if p is None else p / self.length for p in given])

    def points(self, nodes: Array) -> Array:
        """Features over the length at labels (N,) or (N, D), as (d, N)."""
        dim = 1 if nodes.ndim == 1 else nodes.shape[1]
        if dim != self.dim:
            raise ConfigError(f"the kernel is for labels of dim = {self.dim}, but the grid has dim = {dim}")
        found = finite_array("features", self.coordinates(nodes)) / self.length
        spread = np.ptp(found, axis=0)
        if (spread > self.periods(found.shape[1])).any():
            raise ConfigError("features must lie within one period of each other")
        return np.ascontiguousarray(found.T)

    def profile_of(self, nodes: Array) -> Callable[[NDArray[np.int64], NDArray[np.int64]], Array]:
        """Values amplitude phi(r_ij), left and right aside, at indices i and j of labels that broadcast."""
        points = self.points(nodes)
        periods = self.periods(len(points))

        def values(i: NDArray[np.int64], j: NDArray[np.int64]) -> Array:
            return self._profile([row[i] for row in points], [row[j] for row in points], periods)

        return values

    def _profile(self, a: list[Array], c: list[Array], periods: Array) -> Array:
        squares: Any = 0.0
        for x, y, period in zip(a, c, periods, strict=True):
            gap = np.abs(x - y)
            squares = squares + (gap if math.isinf(period) else np.minimum(gap, period - gap)) ** 2
        values = self.amplitude * PROFILES[self.profile][1](np.sqrt(squares), self.shift)
        return np.asarray(values if self.cutoff is None else np.where(squares <= self.limit, values, 0.0))

    def factor(self, side: str, nodes: Array) -> Array | None:
        """Return left(x) or right(y) at labels, (N,), or None."""
        function = self.left if side == "left" else self.right
        if function is None:
            return None
        return finite_array(side, np.broadcast_to(np.asarray(function(nodes)), nodes.shape[:1]))

    def __call__(self, x: Array, y: Array) -> Array:
        """Kernel values by NumPy; x and y broadcast (over all axes but the last, where D > 1)."""
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        a, c = self.coordinates(x) / self.length, self.coordinates(y) / self.length
        split = range(a.shape[-1])
        values = self._profile([a[..., d] for d in split], [c[..., d] for d in split], self.periods(len(split)))
        if self.left is not None:
            values = values * np.asarray(self.left(x))
        if self.right is not None:
            values = values * np.asarray(self.right(y))
        return np.asarray(values)
