"""Blocks and cells for a given accuracy: from the bound beforehand, or from errors found on the way.

Both take the error for the sum of a part in time, C n^{-p}, and a part in space, D c^{-q} with q = 2, for n blocks
and c cells an axis, and split eps so that n c^d is least,

    part in time : part in space = 1/p : d/q,

while blocks of an autonomous field share their values, so that cells alone count: 1 : 3 in favour of space.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from meanfield.constructions.blocks import Recipe
from meanfield.constructions.certificate import largest_error
from meanfield.constructions.flow_network import FlowNetwork
from meanfield.constructions.problem import FlowProblem
from meanfield.constructions.quadrature import cumulated
from meanfield.errors import ConfigError, MeanfieldError, NumericalError

Array = NDArray[np.float64]

_SPACE_ORDER = 2
# The first network; then at most so many changes, each by at most so large a factor.
_START, _CHANGES, _FACTOR = 8, 14, 32.0
# Part of eps aimed at, as errors are not quite the sum of powers, and part with which the search is content.
_AIM, _GOOD = 0.9, 0.75


class Trial(NamedTuple):
    """A network that was looked at: blocks, cells across K, error found (NaN beforehand)."""

    n_blocks: int
    cells: int
    error: float


def by_errors(problem: FlowProblem, recipe: Recipe, eps: float) -> tuple[FlowNetwork, list[Trial]]:
    """Small network whose largest error at the blocks is at most eps.

    Every round looks at a network, at one of half as many blocks and at one of half as many cells, which tell the
    parts of the error, and goes where the parts are as they should be.

    Raises
    ------
    ResourceError
        As soon as the errors of the first networks say that eps needs more than fits into memory.
    NumericalError
        If errors stop falling above eps.
    """
    trials: list[Trial] = []

    def measured(n: int, cells: int, rounds: int = 1) -> tuple[FlowNetwork, float]:
        network = recipe.network(problem, n, cells)
        # Outside its box a network is too coarse, which counts as an infinite error.
        found = largest_error(network, problem, rounds=rounds, strict=False).blocks
        trials.append(Trial(n, cells, found))
        return network, found

    n, cells, best = _START, _START if problem.dim < 4 else 2, None
    for _ in range(_CHANGES):
        network, here = measured(n, cells, rounds=8)
        if here <= eps:
            best = network
            if here >= _GOOD * eps:
                break
        elif best is not None:
            break  # smaller than the last one, and too small
        halves = [measured(-(-n // 2), cells)[1], measured(n, -(-cells // 2))[1]]
        change = _change(problem, recipe, (halves[0], halves[1]), here, eps)
        _refuse_early(problem, recipe, (n * change[0], cells * change[1]), eps)
        grown = [math.ceil(k * min(max(c, 0.5), _FACTOR)) for k, c in zip((n, cells), change, strict=True)]
        if (grown[0], grown[1]) == (n, cells):
            if best is not None:
                break
            grown = [n + 1, cells + 1]
        n, cells = max(grown[0], 2), max(grown[1], 2)
    if best is not None:
        return best, trials
    closest = min(trials, key=lambda t: t.error)
    raise NumericalError(
        f"eps = {eps:g} is not reached: the smallest error is {closest.error:.3g}, with {closest.n_blocks} blocks and "
        f"{closest.cells} cells across the box"
    )


def _change(
    problem: FlowProblem, recipe: Recipe, halves: tuple[float, float], here: float, eps: float
) -> tuple[float, float]:  # fmt: skip
    """Factors for blocks and cells, from the errors with half as many of either."""
    if not math.isfinite(here + sum(halves)):
        return 2.0, 2.0
    orders = recipe.order, _SPACE_ORDER
    parts = [max(half - here, 0.0) / (2.0**order - 1.0) for half, order in zip(halves, orders, strict=True)]
    # The parts may cancel in the error; what they leave of it counts as of either.
    rest = max(0.0, here - sum(parts))
    shares = _shares(problem, recipe.order)
    found = [
        (max(part + share * rest, 1e-3 * here) / (_AIM * share * eps)) ** (1.0 / order)
        for part, share, order in zip(parts, shares, orders, strict=True)
    ]
    return found[0], found[1]


def _shares(problem: FlowProblem, order: int) -> tuple[float, float]:
    """Parts of eps for time and space."""
    if problem.autonomous:
        return 0.25, 0.75
    weights = 1.0 / order, problem.dim / _SPACE_ORDER
    return weights[0] / sum(weights), weights[1] / sum(weights)


def _refuse_early(problem: FlowProblem, recipe: Recipe, size: tuple[float, float], eps: float) -> None:
    """Refuse an accuracy that is out of reach before networks on the way to it are built."""
    n, cells = (math.ceil(min(v, 1e15)) for v in size)
    try:
        recipe.check_memory(problem, n, recipe.mesh(problem, cells))
    except MeanfieldError as error:
        raise type(error)(f"eps = {eps:g} is out of reach: {error}") from None


def by_bound(problem: FlowProblem, recipe: Recipe, eps: float) -> tuple[FlowNetwork, list[Trial]]:
    """Network whose bound beforehand is at most eps, without a look at any trajectory.

    Raises
    ------
    ConfigError
        For Runge-Kutta blocks, whose bound needs trajectories; for pointwise blocks, which it does not see in time.
    ResourceError
        If eps needs more than fits into memory.
    """
    if recipe.kind != "averaged":
        raise ConfigError(f"the bound beforehand chooses averaged blocks; time is {recipe.kind!r}")
    shares = _shares(problem, 1)
    coarse = problem.sizes_over_time(recipe.mesh(problem, _START))
    growth = math.exp(float(coarse.value[0]))

    def in_time(n: int) -> float:
        edges = recipe.times(problem, n)
        lip, moved = np.diff(cumulated(coarse, edges), axis=0).T[:2]
        return growth * (float(lip @ moved) + problem.tolerance)

    def in_space(cells: int) -> float:
        return growth * float(problem.sizes_over_time(recipe.mesh(problem, cells)).value[2])

    aims = [_AIM * share * eps for share in shares]
    first = [(in_time(_START) / aims[0]) * _START, math.sqrt(in_space(_START) / aims[1]) * _START]
    _refuse_early(problem, recipe, (first[0], first[1]), eps)
    n, cells = _least(in_time, aims[0], first[0], 1), _least(in_space, aims[1], first[1], _SPACE_ORDER)
    return recipe.network(problem, n, cells), [Trial(n, cells, math.nan)]


def _least(bound: Callable[[int], float], aim: float, guess: float, order: int) -> int:
    """A number, near the least, from which the bound is at most the aim."""
    n = max(2, math.ceil(guess))
    for _ in range(60):
        now = bound(n)
        if now <= aim:
            return n
        n = max(n + 1, math.ceil(n * min((now / aim) ** (1.0 / order), _FACTOR)))
    raise NumericalError(f"the bound does not fall to {aim:g}: it is {now:g} for {n}")
