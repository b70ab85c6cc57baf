"""Wasserstein distances between laws: exact on the line, sliced in more dimensions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, positive_int
from meanfield.errors import ConfigError
from meanfield.kernels.quantiles import quantile_distance
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
        For lengths that differ, or another p.
    """
    _check_order(p)
    x = finite_array("x", x, shape=(None,))
    y = finite_array("y", y, shape=(None,))
    if len(x) != len(y):
        raise ConfigError(f"x has length {len(x)}, but y has length {len(y)}")
    gap = np.sort(x)
    gap -= np.sort(y)
    return float(np.mean(np.abs(gap, out=gap))) if p == 1 else math.sqrt(float(gap @ gap) / len(gap))


def sliced_wasserstein(x: Any, y: Any, p: int = 2, directions: int = 64) -> float:
    """Sliced distance: (mean over directions of W_p^p of the projections)^(1/p), for particles (n, D) and (m, D).

    In the plane the directions are equally spaced angles, in more dimensions fixed pseudo-random ones. At most
    W_p, with equality for shifts up to the factor (E |e_1|^p)^(1/p).

    Raises
    ------
    ConfigError
        For dimensions that differ, or another p.
    """
    _check_order(p)
    x = finite_array("x", x, shape=(None, None))
    y = finite_array("y", y, shape=(None, None))
    if x.shape[1] != y.shape[1]:
        raise ConfigError(f"x has dimension {x.shape[1]}, but y has dimension {y.shape[1]}")
    total, angles = 0.0, _directions(positive_int("directions", directions), x.shape[1])
    for e in angles:
        total += wasserstein(Law.particles(x @ e), Law.particles(y @ e), p) ** p
    return _root(total / len(angles), p)


def _root(value: float, p: int) -> float:
    return value if p == 1 else math.sqrt(value)


def _check_order(p: Any) -> None:
    if p not in (1, 2):
        raise ConfigError(f"p must be 1 or 2, got {p!r}")


def _directions(n: int, dim: int) -> Array:
    if dim == 2:
        angle = (np.arange(n) + 0.5) * np.pi / n
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    e = np.random.default_rng(0).standard_normal((n, dim))
    return np.asarray(e / np.linalg.norm(e, axis=1, keepdims=True))
