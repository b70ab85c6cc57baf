"""Wasserstein distances between laws: exact on the line, sliced in more dimensions, slice by slice over depth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, positive_int
from meanfield.errors import ConfigError
from meanfield.kernels.quantiles import mean_gap, quantile_distance
from meanfield.laws import Law

Array = NDArray[np.float64]


def wasserstein(first: Law, second: Law, p: int = 1) -> float:
    """Distance W_p(mu, nu) = (int_0^1 |Q_mu(u) - Q_nu(u)|^p du)^(1/p) of laws on the line, p = 1 or 2.

    Exact for particles, cells and atoms, in time linear in their number (sorting particles costs more).

    Raises
    ------
    ConfigError
        For another p.
    """
    _check_order(p)
    pieces = (first.mass, first.left, first.right, second.mass, second.left, second.right)
    return _root(float(quantile_distance(*pieces, p)), p)


def particle_distance(x: Any, y: Any, p: int = 1) -> float:
    """Distance W_p of as many particles x (n,) as y (n,) with equal masses: (mean |x_(i) - y_(i)|^p)^(1/p).

    For different numbers, or masses, see `wasserstein`.

    Raises
    ------
    ConfigError
        For lengths that differ, no particles at all, or another p.
    """
    _check_order(p)
    x, y = _sorted("x", x), _sorted("y", y)
    if len(x) != len(y):
        raise ConfigError(f"x has length {len(x)}, but y has length {len(y)}")
    if not len(x):
        raise ConfigError("x has no particles")
    return _root(float(mean_gap(x, y, p)), p)


def sliced_wasserstein(x: Any, y: Any, p: int = 2, directions: int = 64) -> float:
    """Sliced distance: (mean over directions of W_p^p of the projections)^(1/p), for particles (n, D) and (m, D).

    In the plane the directions are equally spaced angles, in more dimensions fixed pseudo-random ones. At most
    W_p, with equality for shifts up to the factor (E |e_1|^p)^(1/p).

    Raises
    ------
    ConfigError
        For dimensions that differ, no particles at all, or another p.
    """
    _check_order(p)
    x = finite_array("x", x, shape=(None, None))
    y = finite_array("y", y, shape=(None, None))
    if x.shape[1] != y.shape[1]:
        raise ConfigError(f"x has dimension {x.shape[1]}, but y has dimension {y.shape[1]}")
    if not len(x) or not len(y):
        raise ConfigError(f"{'y' if len(x) else 'x'} has no particles")
    total, angles = 0.0, _directions(positive_int("directions", directions), x.shape[1])
    check_memory("the projections of the particles", 8 * (x.size + y.size + len(x) + len(y)))
    # Components first: a projection adds up rows, in an array that stays in cache.
    across, along = (np.ascontiguousarray(z.T) for z in (x, y))
    u, v = np.empty(len(x)), np.empty(len(y))
    for e in angles:
        np.dot(e, across, out=u)
        np.dot(e, along, out=v)
        if len(u) != len(v):
            total += wasserstein(Law.particles(u), Law.particles(v), p) ** p
            continue
        u.sort()
        v.sort()
        total += float(mean_gap(u, v, p))
    return _root(total / len(angles), p)


@dataclass(frozen=True, eq=False)
class DepthDistances:
    """Distances of the slices of two laws over depth, constant on each piece of depth.

    Attributes
    ----------
    edges
        Ends of the pieces, (K + 1,), from 0 to 1.
    values
        Distance of the slices on each piece, (K,).
    """

    edges: Array
    values: Array

    @property
    def centres(self) -> Array:
        """Depths in the middle of the pieces, (K,); (l - 1/2)/L for two networks of L layers."""
        return np.asarray(0.5 * (self.edges[1:] + self.edges[:-1]))

    @property
    def mean(self) -> float:
        """(int_0^1 d(t)^2 dt)^(1/2): the distance of conditional transport, which leaves mass at its depth."""
        return math.sqrt(float(np.diff(self.edges) @ self.values**2))


def depth_distances(first: Any, second: Any, p: int = 2, directions: int = 32) -> DepthDistances:
    """Distances, at every depth, of the laws of neurons of two networks: rho(t, .) against rho'(t, .).

        d(t) = sliced W_p( (1/M) sum_j delta(theta_{l(t), j}), (1/M') sum_j delta(theta'_{l'(t), j}) )

    Layer l of L stands for the depths [(l - 1)/L, l/L]; the pieces are those of both networks, so that numbers of
    layers that differ need no interpolation. A metric for laws whose marginal on depth is fixed, the one that the
    gradient flow of deep networks follows with W_2 in place of its sliced form. Source: Chizat, "The hidden width
    of deep ResNets: tight error bounds and phase diagrams", arXiv 2509.10167.

    Parameters
    ----------
    first, second
        Neurons of every layer as points, (L, M, P) and (L', M', P).
    p, directions
        As of `sliced_wasserstein`.

    Raises
    ------
    ConfigError
        For dimensions P that differ, clouds without points, or another p.
    """
    x = finite_array("first", first, shape=(None, None, None))
    y = finite_array("second", second, shape=(None, None, None))
    for name, cloud in (("first", x), ("second", y)):
        if not cloud.size:
            raise ConfigError(f"{name} has no points: its shape is {cloud.shape}")
    # Depth in units of 1/(L L'): whole numbers, without ties to be decided by round-off.
    cuts = np.union1d(np.arange(len(x) + 1) * len(y), np.arange(len(y) + 1) * len(x))
    pairs = zip(cuts[:-1] // len(y), cuts[:-1] // len(x), strict=True)
    values = np.array([sliced_wasserstein(x[k], y[j], p, directions) for k, j in pairs])
    return DepthDistances(cuts / (len(x) * len(y)), values)


def _sorted(name: str, values: Any) -> Array:
    """Sorted copy of finite numbers (n,)."""
    # NaN sorts last: the ends tell whether all of them are finite, and only where they are not is it asked which.
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.size and values.dtype == np.float64:
        place = np.sort(values)
        if math.isfinite(place[0]) and math.isfinite(place[-1]):
            return place
    return np.sort(finite_array(name, values, shape=(None,)))


def _root(value: float, p: int) -> float:
    return value if p == 1 else math.sqrt(value)


def _check_order(p: Any) -> None:
    if not isinstance(p, (int, float)) or p not in (1, 2):
        raise ConfigError(f"p must be 1 or 2, got {p!r}")


def _directions(n: int, dim: int) -> Array:
    if dim == 2:
        angle = (np.arange(n) + 0.5) * np.pi / n
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    e = np.random.default_rng(0).standard_normal((n, dim))
    return np.asarray(e / np.linalg.norm(e, axis=1, keepdims=True))
