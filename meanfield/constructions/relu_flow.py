"""Explicit deep ReLU ResNets that follow a given flow.

    x' = f(t, x), x(0) in K:   x_{k+1} = x_k + R_k(x_k),   max_k sup_K |x_k - Phi_{t_k} x(0)| <= eps

R_k interpolates the integral of f over the block on the Kuhn mesh of a box that holds all trajectories, piecewise
linearly and exactly by layers of ReLUs [Mueller, "On the space-time expressivity of ResNets", arXiv 1910.09599].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_float, one_of
from meanfield.constructions.accuracy import Trial, by_bound, by_errors
from meanfield.constructions.blocks import Recipe
from meanfield.constructions.certificate import Certificate, certify
from meanfield.constructions.flow_network import FlowNetwork
from meanfield.constructions.problem import FlowProblem
from meanfield.errors import ConfigError
from meanfield.schemes import RK4, Scheme

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ReluFlow:
    """A network, the flow it follows, and how it was found.

    Attributes
    ----------
    network
        The network; its `layers` are plain ReLU layers.
    problem
        The flow.
    trials
        Networks looked at on the way to an accuracy; empty for given blocks and cells.
    """

    network: FlowNetwork
    problem: FlowProblem
    trials: tuple[Trial, ...]

    def certify(self, *, seed: int = 0) -> Certificate:
        """Bound the error beforehand, and search for the largest one."""
        return certify(self.network, self.problem, seed=seed)


def relu_flow(
    field: Callable[[Any, Any], Any],
    box: Any,
    T: float,
    *,
    eps: float | None = None,
    n_blocks: int | None = None,
    cells: Any = None,
    time: str = "averaged",
    scheme: Scheme = RK4,
    partition: str | Sequence[float] | Array = "uniform",
    margin: Any = None,
    autonomous: bool = False,
    breakpoints: Sequence[float] = (),
    reference: Callable[[Any, Any], Any] | None = None,
    tolerance: float | None = None,
    control: str = "a_posteriori",
) -> ReluFlow:
    """Build a ReLU ResNet that follows the flow of a field, to an accuracy or with given blocks and cells.

    Parameters
    ----------
    field
        f(t, x), time and points (d, n) to (d, n), NumPy. It may be rough in time; a method ``integral(t0, t1, x)`` of
        it takes the place of quadrature.
    box
        Corners (lo, hi) of the starts K; numbers for d = 1.
    T
        Length of time.
    eps
        Largest error at the blocks, maximum norm; or None and
    n_blocks, cells
        the number of blocks, and of cells across K along every axis. The mesh goes on with the same width over the
        margin.
    time
        ``"averaged"``: blocks of time integrals, rate 1 in 1/n for any f that is square integrable in time;
        ``"pointwise"``: values at the beginnings of blocks; ``"runge_kutta"``: blocks that compose steps of `scheme`.
    partition
        ``"uniform"``, ``"equidistributed"`` in int (Lip f + sup |f|), or the times between blocks.
    margin
        By how much the box of the network is larger than K; None finds it (`FlowProblem.neighbourhood`).
    autonomous
        Whether f does not depend on t: all blocks are then one.
    breakpoints
        Times where f is not smooth in t.
    reference
        Exact flow (m,), (d, n) to (m, d, n); None integrates by DOP853.
    tolerance
        Of time integrals over [0, T]; None takes eps/1000, or 1e-9.
    control
        How eps is met: ``"a_posteriori"`` by errors found on the way, ``"a_priori"`` by the bound alone.

    Raises
    ------
    ConfigError
        For values out of range, a field that is not finite on the box, or trajectories that leave a given margin.
    NumericalError
        If a time integral misses its tolerance, or errors stop falling above eps.
    ResourceError
        If the network would not fit into memory.

    Notes
    -----
    The rates are [Mueller]: n^{-1} in blocks, c^{-2} in cells for fields of class C^2 and c^{-1} for Lipschitz ones, so
    eps^{-1 - d/2} and eps^{-1 - d} parameters; one block serves an autonomous field.
    """
    one_of("control", control, ("a_posteriori", "a_priori"))
    if (eps is None) != (n_blocks is not None and cells is not None) or (
        eps is not None and not (n_blocks is None and cells is None)
    ):
        raise ConfigError("give either eps, or n_blocks and cells")
    target = None if eps is None else finite_float("eps", eps, above=0.0)
    if tolerance is None:
        tolerance = 1e-9 if target is None else min(1e-6, 1e-3 * target)
    problem = FlowProblem(field, box, T, autonomous, tuple(breakpoints), reference, tolerance)
    lo, hi = problem.neighbourhood(margin)
    cut = partition if isinstance(partition, str) else np.asarray(partition, dtype=np.float64)
    recipe = Recipe(time, scheme, lo, hi, cut)
    if target is None:
        assert n_blocks is not None
        return ReluFlow(recipe.network(problem, n_blocks, cells), problem, ())
    if not isinstance(cut, str):
        raise ConfigError("partition must be 'uniform' or 'equidistributed' where eps chooses the number of blocks")
    network, trials = (by_errors if control == "a_posteriori" else by_bound)(problem, recipe, target)
    return ReluFlow(network, problem, tuple(trials))
