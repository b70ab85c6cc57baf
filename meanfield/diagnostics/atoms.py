"""Concentrations of a law: where the mass of many particles has gathered, how much, and from where it came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float
from meanfield.errors import ConfigError

Array = NDArray[np.float64]

# How many times denser than the continuous law around it an atom must be.
_DENSER = 20.0


@dataclass(frozen=True, eq=False)
class Atoms:
    """Clusters of particles on the line that count as atoms, from left to right.

    Attributes
    ----------
    place
        Centres of mass, (K,).
    mass
        Shares of the whole mass, (K,).
    width
        Distances from the first to the last particle of each, (K,).
    basin
        Least and largest starting place of the particles of each, (K, 2); NaN where starts were not given.
    rest
        Mass in no atom.
    """

    place: Array
    mass: Array
    width: Array
    basin: Array
    rest: float


def find_atoms(x: Any, *, radius: float, least_mass: float = 1e-3, weights: Any = None, start: Any = None) -> Atoms:
    """Find atoms: clusters separated by gaps over `radius` and no wider than it, of the mass `least_mass` at least.

    Inside a wider cluster, pieces that narrow which are 20 times denser than the whole count too.

    Parameters
    ----------
    x
        Places of the particles, (n,).
    radius
        Length under which particles count as one atom, > 0.
    least_mass
        Smallest share of the mass of an atom.
    weights
        Masses (n,); None for equal ones.
    start
        Places from which the particles set out, (n,), for the basins.

    Raises
    ------
    ConfigError
        For lengths that differ or values out of range.
    """
    x = finite_array("x", x, shape=(None,))
    radius = finite_float("radius", radius, above=0.0)
    least = finite_float("least_mass", least_mass, least=0.0)
    if not len(x):
        raise ConfigError("x must hold at least one particle")
    w = np.full(len(x), 1.0) if weights is None else finite_array("weights", weights, shape=x.shape)
    if (w < 0.0).any() or not w.sum() > 0.0:
        raise ConfigError(f"weights must be >= 0 with a positive sum, got least {w.min()!r}")
    origin = np.full(len(x), np.nan) if start is None else finite_array("start", start, shape=x.shape)
    held = w > 0.0
    x, w, origin = x[held], w[held], origin[held]
    order = np.argsort(x, kind="stable")
    x, w, origin = x[order], w[order] / w.sum(), origin[order]
    first, parent = _clusters(x, w, radius)
    mass = np.add.reduceat(w, first)
    last = np.append(first[1:], len(x)) - 1
    width = x[last] - x[first]
    # A piece of a wide cluster is an atom only where it is far denser than the whole.
    dense = mass >= _DENSER * parent * width
    kept = (mass >= least) & (mass > 0.0) & (width <= radius) & dense
    # Relative to its first particle, a centre is exact to round-off of the width, not of the place.
    own = np.repeat(np.arange(len(first)), last - first + 1)
    shift = np.add.reduceat(w * (x - x[first][own]), first)
    place = x[first][kept] + shift[kept] / mass[kept]
    basin = np.stack([np.minimum.reduceat(origin, first), np.maximum.reduceat(origin, first)], axis=1)
    return Atoms(place, mass[kept], width[kept], basin[kept], float(mass[~kept].sum()))


def _clusters(x: Array, w: Array, radius: float) -> tuple[NDArray[np.int64], Array]:
    """First particle of each cluster of sorted x, and the density of the wide cluster it was cut from, else 0.

    Clusters are separated by gaps over the radius. One that is wider, as where an atom stands in a continuous law, is
    cut at ever smaller gaps until its pieces are no wider.
    """
    gaps = np.diff(x)
    cut = gaps > radius
    first = np.concatenate([[0], np.flatnonzero(cut) + 1])
    own = np.concatenate([[0], np.cumsum(cut)])
    last = np.append(first[1:], len(x)) - 1
    width, mass = x[last] - x[first], np.add.reduceat(w, first)
    wide = width > radius
    density = np.where(wide, mass / np.where(wide, width, 1.0), 0.0)
    limit, least = radius, 4.0 * np.finfo(float).eps * max(float(np.abs(x).max()), 1e-300)
    while limit > least:
        limit *= 0.25
        starts = np.concatenate([[0], np.flatnonzero(cut) + 1])
        ends = np.append(starts[1:], len(x)) - 1
        open_ = np.repeat(x[ends] - x[starts] > radius, ends - starts + 1)
        if not open_.any():
            break
        cut |= (gaps > limit) & open_[:-1]
    starts = np.concatenate([[0], np.flatnonzero(cut) + 1])
    return starts, density[own[starts]]
