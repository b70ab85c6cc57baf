"""Training over depths: optima of few layers start those of more.

    theta^n -> start of m > n layers,      theta^m ~ theta^n + (theta^n - theta^{n'}) (1/m - 1/n)/(1/n - 1/n')

Minimisers of the deep limit are O(1/n) from it, so that those of n layers, interpolated, are O(1/n) from those of more,
and two of them, extrapolated in 1/n, O(1/n^2). Most iterations then happen where layers are few.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import one_of, positive_int, shown
from meanfield.controls import Controls
from meanfield.errors import ConfigError
from meanfield.learning.optimum_path import OptimumPath
from meanfield.learning.quasi_newton import Optimum, minimise
from meanfield.learning.training import Training

Array = NDArray[np.float64]

CARRIES = ("extrapolated", "interpolated", "repeated")


def multilevel(
    problem_of_depth: Callable[[int], Training],
    depths: Sequence[int],
    *,
    tolerance: float = 1e-8,
    coarse_tolerance: float | None = None,
    max_iterations: int = 1000,
    memory: int = 20,
    carry: str = "extrapolated",
) -> OptimumPath:
    """Minimise a training problem at increasing depths by L-BFGS, each from what the ones before found.

    Parameters
    ----------
    problem_of_depth
        The problem of n layers: the same parameters, trained or not, at every n. The first one starts from its own.
    depths
        n, increasing; they need not divide each other.
    tolerance
        On |grad J| at the last depth, > 0.
    coarse_tolerance
        On |grad J| at the others; None is `tolerance`.
    max_iterations, memory
        Of L-BFGS, at every depth.
    carry
        ``"interpolated"`` by splines through the middles of layers, ``"repeated"`` as the same function of depth, or
        ``"extrapolated"``: interpolated, and with two depths at hand extrapolated in 1/n where that lowers J (which
        takes two evaluations).

    Returns
    -------
    OptimumPath
        Of values n.

    Raises
    ------
    ConfigError
        For depths that do not increase, or problems whose parameters do not go together.

    Notes
    -----
    Source: the convergence of minimisers is that of Thorpe and van Gennip, "Deep limits of residual neural networks",
    arXiv 1810.11741; its rate is a consequence at nondegenerate minima.
    """
    chosen = tuple(positive_int("depth", n) for n in depths)
    if not chosen or any(a >= b for a, b in itertools.pairwise(chosen)):
        raise ConfigError(f"depths must increase, got {shown(list(depths))}")
    one_of("carry", carry, CARRIES)
    optima: list[Optimum] = []
    steps: list[int] = []
    evaluations: list[int] = []
    for n in chosen:
        problem = problem_of_depth(n)
        start, tried = _start(problem, optima, [*chosen[: len(optima)], n], carry)
        goal = tolerance if n == chosen[-1] or coarse_tolerance is None else coarse_tolerance
        optimum = minimise(problem, start, tolerance=goal, max_iterations=max_iterations, memory=memory)
        assert optimum.evaluations is not None
        optima.append(optimum)
        steps.append(problem.n_steps)
        evaluations.append(optimum.evaluations + tried)
    values = np.array(chosen, dtype=np.float64)
    return OptimumPath(values, tuple(optima), np.array(steps), np.array(evaluations))


def carried(problem: Training, optimum: Optimum, *, interpolate: bool = True) -> Array:
    """Flat vector of a problem at the parameters of an optimum of another depth.

    Parameters
    ----------
    problem
        Problem with the same trained parameters.
    optimum
        Optimum of layers over the same depths, any number of them.
    interpolate
        Whether layers lie on the cubic spline through the middles of the old ones; else every layer has the
        parameters that the old ones have at its middle.

    Raises
    ------
    ConfigError
        For parameters that are missing or have other shapes.
    """
    known, changed = optimum.model.parameters, {}
    for name in problem.trained or ():
        part = problem.model.parameters[name]
        if name not in known or known[name].shape != part.shape:
            raise ConfigError(f"parameter {name!r} of shape {part.shape} is none of the optimum's")
        changed[name] = _moved(known[name], part, interpolate=interpolate)
    readout = problem.readout
    if readout is not None and readout.trained:
        readout = replace(readout, p=optimum.readout.p, c=optimum.readout.c)
    inlet = problem.inlet
    if inlet is not None and inlet.trained and optimum.inlet is not None:
        inlet = replace(inlet, p=optimum.inlet.p, c=optimum.inlet.c)
    return replace(problem, model=problem.model.with_parameters(**changed), readout=readout, inlet=inlet).start()


def _moved(old: Array | Controls, new: Array | Controls, *, interpolate: bool) -> Array | Controls:
    """Parameters on the depth grid of others."""
    if not isinstance(old, Controls) or not isinstance(new, Controls):
        return old
    at = new.knots if new.interpolation == "linear" else _middles(new)
    if interpolate and old.interpolation == "constant" and len(old.values) > 1:
        return Controls(new.knots, _through(_middles(old), old.values, at), new.interpolation)
    return Controls(new.knots, old.table(at), new.interpolation)


def _middles(part: Controls) -> Array:
    return np.asarray(0.5 * (part.knots[1:] + part.knots[:-1]))


def _through(middles: Array, values: Array, at: Array) -> Array:
    """Values of the cubic spline through those at the middles of layers, going on to the ends.

    Slopes of straight lines would be off by O(1/n), and ends that continue as constants would be kinks: both cost a
    penalty of jumps more than what optima differ by.
    """
    from scipy.interpolate import make_interp_spline  # noqa: PLC0415 (slow to import)

    return np.asarray(make_interp_spline(middles, values, k=min(3, len(middles) - 1))(at))


def _start(problem: Training, optima: list[Optimum], depths: list[int], carry: str) -> tuple[Array | None, int]:
    """Flat vector to start from, None for the problem's own, and the evaluations that its choice took."""
    if not optima:
        return None, 0
    last = carried(problem, optima[-1], interpolate=carry != "repeated")
    if carry != "extrapolated" or len(optima) < 2:
        return last, 0
    before = carried(problem, optima[-2])
    inverse = [1.0 / n for n in depths[-3:]]
    ahead = last + (last - before) * (inverse[2] - inverse[1]) / (inverse[1] - inverse[0])
    return (ahead if problem.objective(ahead)[0] < problem.objective(last)[0] else last), 2
