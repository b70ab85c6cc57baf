"""Relative entropy of laws on the line, and of masses on cells of any dimension."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array
from meanfield.errors import ConfigError
from meanfield.laws import Law

Array = NDArray[np.float64]


def relative_entropy(law: Law, reference: Law) -> float:
    """H(mu | nu) = int log(d mu/d nu) d mu of laws with densities that are constant on pieces, exactly.

    Infinite where the law has atoms, or mass where the reference has none; nonnegative, and zero only if equal.
    """
    if (law.right[law.mass > 0.0] == law.left[law.mass > 0.0]).any():
        return math.inf
    edges = np.unique(np.concatenate([law.left, law.right, reference.left, reference.right]))
    middle, width = 0.5 * (edges[1:] + edges[:-1]), np.diff(edges)
    g, r = _density(law, middle), _density(reference, middle)
    held = g > 0.0
    if (r[held] == 0.0).any():
        return math.inf
    return float(np.sum(width[held] * g[held] * (np.log(g[held]) - np.log(r[held]))))


def relative_entropy_of_masses(masses: Any, reference: Any) -> float:
    """sum_k m_k log(m_k / n_k) of masses on the same cells, of any shape; infinite where n_k = 0 < m_k.

    Raises
    ------
    ConfigError
        For shapes that differ, negative masses, or sums that are not 1.
    """
    m = finite_array("masses", masses)
    n = finite_array("reference", reference)
    if m.shape != n.shape or not m.size:
        raise ConfigError(f"masses has shape {m.shape}, but reference has shape {n.shape}")
    for name, v in (("masses", m), ("reference", n)):
        if (v < 0.0).any() or abs(float(v.sum()) - 1.0) > 1e-9:
            raise ConfigError(f"{name} must be >= 0 with sum 1, got least {v.min()!r}, sum {float(v.sum())!r}")
    held = m > 0.0
    if (n[held] == 0.0).any():
        return math.inf
    return float(np.sum(m[held] * (np.log(m[held]) - np.log(n[held]))))


def _density(law: Law, x: Array) -> Array:
    """Density at points that are no ends of pieces; atoms count as none."""
    wide = law.right > law.left
    left, right, mass = law.left[wide], law.right[wide], law.mass[wide]
    if not len(left):
        return np.zeros_like(x)
    k = np.clip(np.searchsorted(left, x, side="right") - 1, 0, len(left) - 1)
    inside = (x > left[k]) & (x < right[k])
    return np.asarray(np.where(inside, mass[k] / (right[k] - left[k]), 0.0))
