"""Distances between parameters over depth: layers against their limit, and layers against other numbers of layers.

    TL2:     (sum_i int_{t_i}^{t_{i+1}} |K_i - K(t)|^2 dt)^(1/2),      layer i stands for the depths [t_i, t_{i+1})
    free:    (min over couplings of depths of int |t - s|^2 + |K(t) - L(s)|^2)^(1/2)

The first moves no depth farther than its own layer; it is what minimisers of deep networks converge in. The second is
the Wasserstein distance of the laws of (t, K(t)), at most what layers in the order of their depth cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, finite_float, positive_int, shown
from meanfield.controls import Controls
from meanfield.errors import ConfigError, NumericalError

Array = NDArray[np.float64]
Limit = Controls | Callable[[float], Any]

# Exact for the squares of differences of piecewise linear parameters, and to degree 9 for others.
_TWO, _FIVE = (np.polynomial.legendre.leggauss(order) for order in (2, 5))
# Halvings of a layer, and parts at a time, after which a callable counts as not smooth.
_HALVINGS, _PARTS = 40, 10_000


def tl2_distance(layers: Controls, limit: Limit, *, tolerance: float = 1e-12) -> float:
    """Distance (int |K_n(t) - K(t)|^2 dt)^(1/2) over depth of layers from their limit, Euclidean over components.

    With equal layers on [0, 1] its square is sum_i int_{i/n}^{(i+1)/n} |K_i - K(t)|^2 dt. In units of the parameters,
    times the root of those of depth.

    Parameters
    ----------
    layers
        Piecewise constant controls (or piecewise linear ones).
    limit
        Controls over the same depths: then the result is exact to round-off. Or a callable of depth, smooth inside
        the layers, with values of the shape of the parameters: then by Gauss rules, halved where they must be.
    tolerance
        Relative error of the square of the distance for callables, > 0; never below what rounding leaves.

    Raises
    ------
    ConfigError
        For other depths or shapes, or values of the callable that are not finite.
    NumericalError
        Where 40 halvings of a layer, or 10,000 parts of layers at a time, do not reach the tolerance.

    Notes
    -----
    Source: Thorpe and van Gennip, "Deep limits of residual neural networks", arXiv 1810.11741; there the distance
    holds for layers whose transport of depth stagnates, T_n(t) = t_i on layer i.
    """
    goal = finite_float("tolerance", tolerance, above=0.0)
    _check_layers(layers)
    if isinstance(limit, Controls):
        _check_pair(layers, limit)
        cuts = np.unique(np.concatenate([layers.knots, limit.knots]))
        square, _ = _integrals(layers, limit, cuts[:-1], cuts[1:], _TWO)
        return float(np.sqrt(square.sum()))
    _check_limit(limit)
    a, b = layers.knots[:-1], layers.knots[1:]
    span, done = layers.knots[-1] - layers.knots[0], 0.0
    whole, size = _integrals(layers, limit, a, b, _FIVE)
    total = float(whole.sum())
    floor = 64.0 * np.finfo(np.float64).eps * float(size.sum())
    for _ in range(_HALVINGS):
        middle = 0.5 * (a + b)
        left, right = (_integrals(layers, limit, c, d, _FIVE)[0] for c, d in ((a, middle), (middle, b)))
        bad = np.abs(left + right - whole) > (goal * total + floor) * (b - a) / span
        done += float((left + right)[~bad].sum())
        if not bad.any():
            return float(np.sqrt(done))
        if 2 * int(bad.sum()) > max(_PARTS, 2 * len(layers.values)):
            break
        whole = np.concatenate([left[bad], right[bad]])
        a, b = np.concatenate([a[bad], middle[bad]]), np.concatenate([middle[bad], b[bad]])
        total = done + float(whole.sum())
    raise NumericalError(f"limit is not smooth near t={float(a[0])!r}: the distance is not known to {goal:g}")


def tl_sup_distance(layers: Controls, limit: Limit, *, samples: int = 9) -> float:
    """Distance sup_t |K_n(t) - K(t)| of layers from their limit, in units of the parameters.

    Parameters
    ----------
    layers, limit
        As for `tl2_distance`. Between Controls the result is exact; of a callable that is smooth inside the layers
        the supremum is taken over equidistant depths of every layer, its ends included.
    samples
        Number of these depths in a layer, >= 2.

    Raises
    ------
    ConfigError
        As for `tl2_distance`, and for fewer than two samples.
    """
    if positive_int("samples", samples) < 2:
        raise ConfigError(f"samples must be at least 2, got {samples}")
    _check_layers(layers)
    cuts = layers.knots
    if isinstance(limit, Controls):
        _check_pair(layers, limit)
        # The difference is linear between the knots of both: its largest norm stands at an end.
        cuts, samples = np.unique(np.concatenate([cuts, limit.knots])), 2
    else:
        _check_limit(limit)
    at = cuts[:-1, None] + np.linspace(0.0, 1.0, samples) * np.diff(cuts)[:, None]
    at[:, -1] = cuts[1:]
    inner = 0.5 * (cuts[:-1] + cuts[1:])
    rest = _one_sided(layers, inner, at) - (
        _one_sided(limit, inner, at) if isinstance(limit, Controls) else _values(limit, at, layers.shape)
    )
    return float(np.sqrt((rest.reshape(*at.shape, -1) ** 2).sum(axis=-1).max()))


@dataclass(frozen=True, eq=False)
class DepthCoupling:
    """Couplings of the layers of two networks.

    Attributes
    ----------
    distance
        Root of the least mean of |t - s|^2 + |K - L|^2 over couplings of the laws of depth.
    monotone
        Root of that mean where layers are coupled in the order of their depth, an upper bound.
    plan
        Masses of the best coupling, (n, m), with the shares of depth of the layers as sums of rows and columns.
    """

    distance: float
    monotone: float
    plan: Array


def free_distance(first: Controls, second: Controls, *, depth_weight: float = 1.0) -> DepthCoupling:
    """Distance of two networks as laws of (t_i, K_i), with the transport of depth free.

    min over couplings pi of sum_ij pi_ij (c^2 |t_i - s_j|^2 + |K_i - L_j|^2), the laws with mass 1 in all, each layer
    with its share of depth and at its start t_i, as the layers of Thorpe and van Gennip stand. Where a layer of
    length h stands for many finer ones, its depths alone cost c h/sqrt(3).

    Parameters
    ----------
    first, second
        Piecewise constant controls of n and m layers, over the same depths, with parameters of the same shape.
    depth_weight
        c > 0: units of the parameters per unit of depth.

    Raises
    ------
    ConfigError
        For other controls, depths or shapes.
    ResourceError
        For couplings that do not fit into memory.
    NumericalError
        If the linear program is not solved.

    Notes
    -----
    Cost: with as many equal layers on both sides an assignment, O(n^3) (n = 1000: 0.2 s); else a linear program
    with n m unknowns (500 and 700 layers: a second; 64 and 4096: four). Memory O(n m).
    """
    for name, part in (("first", first), ("second", second)):
        if not isinstance(part, Controls) or part.interpolation != "constant":
            raise ConfigError(f"{name} must be the layers of a network: piecewise constant Controls")
    _check_pair(first, second)
    weight = finite_float("depth_weight", depth_weight, above=0.0)
    n, m = len(first.values), len(second.values)
    check_memory(f"couplings of {n} and {m} layers", 8 * 12 * n * m)
    cost = (weight * (first.knots[:-1, None] - second.knots[None, :-1])) ** 2
    for a, b in zip(first.values.reshape(n, -1).T, second.values.reshape(m, -1).T, strict=True):
        cost += (a[:, None] - b[None]) ** 2
    ordered = _in_order(first.knots, second.knots)
    shares = [np.diff(part.knots) / (part.knots[-1] - part.knots[0]) for part in (first, second)]
    plan = _cheapest(cost, *shares)
    bound = float((ordered * cost).sum())
    return DepthCoupling(float(np.sqrt(min(float((plan * cost).sum()), bound))), float(np.sqrt(bound)), plan)


def _in_order(first: Array, second: Array) -> Array:
    """Share of depth that layer i of the one and layer j of the other have in common, (n, m)."""
    ends = np.minimum(first[1:, None], second[None, 1:])
    common = np.maximum(ends - np.maximum(first[:-1, None], second[None, :-1]), 0.0)
    return np.asarray(common / (first[-1] - first[0]))


def _cheapest(cost: Array, rows: Array, columns: Array) -> Array:
    """Coupling of least cost with these sums of rows and columns."""
    from scipy.optimize import linear_sum_assignment, linprog  # noqa: PLC0415 (slow to import)
    from scipy.sparse import eye_array, kron, vstack  # noqa: PLC0415

    n, m = cost.shape
    if n == m and np.allclose(rows, 1.0 / n, rtol=1e-12) and np.allclose(columns, 1.0 / n, rtol=1e-12):
        plan = np.zeros((n, n))
        plan[linear_sum_assignment(cost)] = 1.0 / n
        return plan
    # The sum of the last column follows from the others.
    each, both = kron(eye_array(n), np.ones((1, m)), "csr"), kron(np.ones((1, n)), eye_array(m), "csr")
    sums = vstack([each, both[: m - 1]], "csr")
    found = linprog(cost.ravel(), A_eq=sums, b_eq=np.concatenate([rows, columns[:-1]]), method="highs")
    if found.status != 0:
        raise NumericalError(f"the cheapest coupling was not found: {found.message}")
    return np.asarray(found.x, dtype=np.float64).reshape(n, m)


def _check_layers(layers: Any) -> None:
    if not isinstance(layers, Controls):
        raise ConfigError(f"layers must be Controls, got {shown(layers)}")


def _check_pair(first: Controls, second: Controls) -> None:
    if first.shape != second.shape:
        raise ConfigError(f"parameters of shapes {first.shape} and {second.shape} have no distance")
    ends = [(float(c.knots[0]), float(c.knots[-1])) for c in (first, second)]
    if ends[0] != ends[1]:
        raise ConfigError(f"depths {ends[0]} and {ends[1]} differ")


def _check_limit(limit: Any) -> None:
    if not callable(limit):
        raise ConfigError(f"limit must be Controls or a callable of depth, got {shown(limit)}")


def _values(limit: Callable[[float], Any], times: Array, shape: tuple[int, ...]) -> Array:
    """Values of a callable of depth, times.shape + shape."""
    rows = [finite_array(f"limit at t={t!r}", limit(t), shape=shape) for t in times.ravel().tolist()]
    return np.array(rows).reshape(*times.shape, *shape)


def _one_sided(part: Controls, inner: Array, times: Array) -> Array:
    """Values at times (K, J) on the piece that holds the depth inner[k], the ends of pieces included."""
    if part.interpolation == "linear":
        return part.table(times)
    return np.asarray(np.broadcast_to(part.table(inner)[:, None], (*times.shape, *part.shape)))


def _integrals(layers: Controls, limit: Limit, a: Array, b: Array, rule: tuple[Array, Array]) -> tuple[Array, Array]:
    """Integrals of the squares of the difference, and of the parameters, over intervals inside layers, (K,)."""
    nodes, weights = rule
    at = 0.5 * (a + b)[:, None] + 0.5 * (b - a)[:, None] * nodes
    mine = layers.table(at)
    other = limit.table(at) if isinstance(limit, Controls) else _values(limit, at, layers.shape)
    scale = 0.5 * (b - a)[:, None] * weights
    square, size = (
        (scale * (values.reshape(*at.shape, -1) ** 2).sum(axis=-1)).sum(axis=1) for values in (mine - other, mine)
    )
    return square, size
