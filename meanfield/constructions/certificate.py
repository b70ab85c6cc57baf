"""How far a network is from the flow it follows: a bound beforehand, and the largest error that a search finds.

    max_k |x_k - Phi_{t_k} x_0| <= exp(sum L_k) sum_k (L_k m_k + delta_k)

with L_k and m_k the integrals over block k of the Lipschitz constant and of the size of the field, delta_k the
distance of R_k from the integral of the field [Mueller, "On the space-time expressivity of ResNets", arXiv 1910.09599,
and Gronwall]. Solutions part more slowly than exp L: with mu the one-sided constant of the field (its logarithmic
norm, no less than 0) and mu_k its integral over block k,

    e_{k+1} = exp(mu_k) (e_k + L_k m_k + delta_k),   e_0 = 0,   max_k |x_k - Phi_{t_k} x_0| <= max e_k

[consequence: D+ |y - Phi| <= mu |y - Phi| + |y' - f(t, y)| along y = x_k + int f(s, x_k) ds, as long as y stays in the
box]. Of blocks that compose Runge-Kutta steps the errors over single blocks, tau_k, take the place of L_k m_k +
delta_k.

Between the blocks x is interpolated linearly in time, which adds at most max m_k. Sizes of the field are those seen
on a mesh of half the width (beyond 20,000 nodes: on the mesh, and between nodes where second differences are
largest). They are samples, not enclosures: bounds are as good as the sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory
from meanfield.constructions.flow_network import FlowNetwork
from meanfield.constructions.problem import FlowProblem
from meanfield.constructions.quadrature import cumulated
from meanfield.errors import NumericalError

Array = NDArray[np.float64]

# The search: starts along an axis by dimension, places that are refined, rounds, points around each.
_STARTS = {1: 129, 2: 17, 3: 7}
_KEPT, _ROUNDS, _AROUND = 6, 8, 12
# Nodes where the network bends most that are starts too.
_BENT = 16
# Points at which the errors over single blocks are looked at, and blocks.
_SINGLE_POINTS, _SINGLE_BLOCKS = 2000, 33
# Points whose time integrals tell how far pointwise blocks are from them.
_INTEGRAL_POINTS = 600
# Blocks up to which errors between them are looked at four times in each, once beyond.
_FEW_BLOCKS = 256


@dataclass(frozen=True, eq=False)
class Certificate:
    """Bounds beforehand and errors found, maximum norm.

    Attributes
    ----------
    bound, bound_between
        At the blocks, and between them, by Lipschitz constants.
    sharp
        At the blocks, by one-sided constants.
    error, error_between
        Largest errors found at the blocks, and between them (linear interpolation in time).
    point, time
        Start and time of the larger of the two.
    lipschitz
        Integral over time of the Lipschitz constant of the field.
    space
        Sum of the interpolation errors of the field: the part of sum delta_k that the mesh brings.
    quadrature
        Tolerance of the time integrals.
    n_trajectories
        How many were compared.
    """

    bound: float
    bound_between: float
    sharp: float
    error: float
    error_between: float
    point: Array
    time: float
    lipschitz: float
    space: float
    quadrature: float
    n_trajectories: int

    @property
    def holds(self) -> bool:
        """Whether no error found is above its bounds."""
        return self.error <= min(self.bound, self.sharp) and self.error_between <= self.bound_between


class Bound(NamedTuple):
    """A-priori bounds and what they are made of."""

    blocks: float
    between: float
    sharp: float
    lipschitz: float
    space: float


class Worst(NamedTuple):
    """Largest errors that a search found, at the blocks and between them, and where the larger one is."""

    blocks: float
    between: float
    point: Array
    time: float
    n_trajectories: int


def certify(network: FlowNetwork, problem: FlowProblem, *, seed: int = 0) -> Certificate:
    """Bound the error of a network beforehand, and search for the largest one.

    Raises
    ------
    NumericalError
        If trajectories of the network leave its box, with the distance; the bound says nothing then.
    """
    bound = a_priori(network, problem)
    worst = largest_error(network, problem, seed=seed)
    return Certificate(
        bound.blocks, bound.between, bound.sharp, worst.blocks, worst.between, worst.point, worst.time, bound.lipschitz,
        bound.space, problem.tolerance, worst.n_trajectories,
    )  # fmt: skip


def a_priori(network: FlowNetwork, problem: FlowProblem) -> Bound:
    """Bound of the error, from the field on the mesh and the partition alone."""
    edges, mesh = network.times, network.mesh
    sizes = np.diff(cumulated(problem.sizes_over_time(mesh, edges), edges), axis=0)
    lip, moved, gap, parting = sizes.T
    if len(network.b) == 1:
        own = gap + problem.tolerance / network.n_blocks + _time_gap(network, problem)
        single = lip * moved + own
    else:
        single = single_block_errors(network, problem, float(moved.max()))
    blocks = float(np.exp(lip.sum()) * single.sum())
    sharp = reached = 0.0
    for mu, new in zip(parting.tolist(), single.tolist(), strict=True):
        reached = np.exp(mu) * (reached + new)
        sharp = max(sharp, float(reached))
    return Bound(blocks, blocks + float(moved.max()), sharp, float(lip.sum()), float(gap.sum()))


def _time_gap(network: FlowNetwork, problem: FlowProblem) -> Array:
    """Distances at nodes between the table of a block and the time integral of the field over it, (L,)."""
    if problem.autonomous:
        return np.zeros(network.n_blocks)
    every = -(-network.mesh.n_nodes // _INTEGRAL_POINTS)
    points = network.mesh.nodes()[:, ::every]
    spans = zip(network.times[:-1].tolist(), network.times[1:].tolist(), network.order[:, 0].tolist(), strict=True)
    gaps = [
        np.abs(problem.integral(t0, t1, points, 1.0 / network.n_blocks) - network.tables[k, ::every].T).max()
        for t0, t1, k in spans
    ]
    return np.array(gaps)


def single_block_errors(network: FlowNetwork, problem: FlowProblem, moved: float) -> Array:
    """tau_k = sup_x |x + R_k(x) - Phi_{t_k -> t_{k+1}}(x)|, (L,), sampled where a block's flow stays in the box.

    Looked at where the nodal values bend most and on a coarse grid; of many blocks in some, the others taking per time
    the larger value of their neighbours.
    """
    mesh, n = network.mesh, network.n_blocks
    lengths = np.diff(network.times)
    alike = problem.autonomous and len(np.unique(network.order, axis=0)) == 1
    chosen = np.array([0]) if alike else np.unique(np.linspace(0, n - 1, min(n, _SINGLE_BLOCKS)).astype(np.int64))
    rates = []
    for k in chosen:
        bends = mesh.bends(np.ascontiguousarray(network.tables[network.order[k, 0]].T))
        count = min(bends.size, _SINGLE_POINTS // 2**mesh.dim)
        top = np.argpartition(bends, -count)[-count:]
        low, high = np.minimum(mesh.lo + moved, problem.box[0]), np.maximum(mesh.hi - moved, problem.box[1])
        points = np.concatenate([mesh.middles(top), problem.samples(low, high)], axis=1)
        points = points[:, ((points >= low[:, None]) & (points <= high[:, None])).all(axis=0)]
        t0, t1 = network.times[k], network.times[k + 1]
        exact = problem.flow(np.array([t1]), points, float(t0))[0]
        rates.append(np.abs(network.block_values(k, points) - exact).max() / lengths[k])
    found = np.asarray(rates)
    left = np.searchsorted(chosen, np.arange(n), side="right") - 1
    right = np.minimum(left + (chosen[left] < np.arange(n)), len(chosen) - 1)
    return np.asarray(np.maximum(found[left], found[right]) * lengths)


def largest_error(
    network: FlowNetwork, problem: FlowProblem, *, rounds: int = _ROUNDS, seed: int = 0, strict: bool = True
) -> Worst:
    """Search for the largest error over starts in K and times: a grid with its corners, then around the worst starts.

    Places where the network bends most are starts too.

    Parameters
    ----------
    network, problem
        What is compared.
    rounds
        Refinements around the worst starts.
    seed
        Of the points around them.
    strict
        Whether a network that leaves its box is refused; its errors are infinite otherwise.

    Raises
    ------
    NumericalError
        If the network leaves its box, with the distance; or if the reference flow cannot be had.
    """
    measure = _Measure(network, problem, strict)
    lo, hi = problem.box
    rng = np.random.default_rng(seed)
    per_axis = _STARTS.get(problem.dim, 3)
    axes = [np.linspace(a, b, per_axis) for a, b in zip(lo, hi, strict=True)]
    grid = np.stack([part.ravel() for part in np.meshgrid(*axes, indexing="ij")])
    points = np.concatenate([grid, _bent_most(network, lo, hi)], axis=1)
    radius = 2.0 * (hi - lo) / (per_axis - 1)
    best = measure(points)
    for _ in range(rounds):
        centres = best.leaders
        spread = rng.uniform(-1.0, 1.0, (problem.dim, centres.shape[1], _AROUND)) * radius[:, None, None]
        around = np.clip((centres[:, :, None] + spread).reshape(problem.dim, -1), lo[:, None], hi[:, None])
        best = best.joined(measure(np.concatenate([centres, around], axis=1)))
        radius = 0.5 * radius
    return best.worst(measure.seen)


def _bent_most(network: FlowNetwork, lo: Array, hi: Array) -> Array:
    """Points of K in the cells where the first block bends most: errors there may be large over little space."""
    mesh = network.mesh
    bends = mesh.bends(np.ascontiguousarray(network.tables[network.order[0, 0]].T))
    top = np.argsort(-bends)[:_BENT]
    return np.asarray(
        np.clip(np.concatenate([mesh.nodes()[:, top], mesh.middles(top)], axis=1), lo[:, None], hi[:, None])
    )


@dataclass(frozen=True, eq=False)
class _Seen:
    """Errors at the blocks and between, (2, n), the times of the larger, and the starts."""

    errors: Array
    times: Array
    points: Array

    @property
    def leaders(self) -> Array:
        """Starts of the largest errors of either kind."""
        ranked = np.argsort(-self.errors, axis=1)[:, : _KEPT // 2]
        return self.points[:, np.unique(ranked)]

    def joined(self, other: _Seen) -> _Seen:
        errors = np.concatenate([self.errors, other.errors], axis=1)
        times = np.concatenate([self.times, other.times])
        points = np.concatenate([self.points, other.points], axis=1)
        keep = np.unique(np.argsort(-errors, axis=1)[:, :_KEPT])
        return _Seen(errors[:, keep], times[keep], points[:, keep])

    def worst(self, seen: int) -> Worst:
        blocks, between = self.errors.max(axis=1)
        where = int(np.argmax(self.errors.max(axis=0)))
        return Worst(float(blocks), float(between), self.points[:, where].copy(), float(self.times[where]), seen)


class _Measure:
    """Errors of a network at starts (d, n), largest over time."""

    def __init__(self, network: FlowNetwork, problem: FlowProblem, strict: bool) -> None:
        self.network, self.problem, self.strict, self.seen = network, problem, strict, 0
        inner = 4 if network.n_blocks <= _FEW_BLOCKS else 1
        self.weights = np.arange(inner + 1) / (inner + 1)
        left, right = network.times[:-1, None], network.times[1:, None]
        self.times = np.append((left + (right - left) * self.weights).ravel(), network.times[-1])

    def __call__(self, points: Array) -> _Seen:
        size = max(1, 2**24 // (len(self.times) * len(points)))
        check_memory(f"the states at {len(self.times)} times", 24 * len(self.times) * len(points))
        parts = [self._part(points[:, i : i + size]) for i in range(0, points.shape[1], size)]
        first = parts[0]
        for other in parts[1:]:
            first = _Seen(np.concatenate([first.errors, other.errors], axis=1),
                          np.concatenate([first.times, other.times]),
                          np.concatenate([first.points, other.points], axis=1))  # fmt: skip
        return first

    def _part(self, points: Array) -> _Seen:
        self.seen += points.shape[1]
        states = self.network.states(points)
        inside = self._check_inside(states)
        exact = self.problem.flow(self.times, points)
        w = self.weights[:, None, None]
        filled = states[:-1, None] * (1.0 - w) + states[1:, None] * w
        guess = np.concatenate([filled.reshape(-1, *points.shape), states[-1:]])
        errors = np.abs(guess - exact).max(axis=1) if inside else np.full((len(guess), points.shape[1]), np.inf)
        at_blocks = errors[:: len(self.weights)].max(axis=0)
        latest = self.times[np.argmax(errors, axis=0)]
        return _Seen(np.stack([at_blocks, errors.max(axis=0)]), latest, points)

    def _check_inside(self, states: Array) -> bool:
        mesh = self.network.mesh
        out = np.maximum(mesh.lo[:, None] - states, states - mesh.hi[:, None])
        slack = 1e-12 * float(np.abs([mesh.lo, mesh.hi]).max())
        if out.max() <= slack:
            return True
        if self.strict:
            k = int(np.argmax(out.max(axis=(1, 2))))
            raise NumericalError(
                f"the network leaves its box by {out.max():.6g} after {k} of {self.network.n_blocks} blocks; "
                "more blocks or a larger margin keep it inside"
            )
        return False
