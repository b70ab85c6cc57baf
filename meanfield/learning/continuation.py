"""Optima along a path of a parameter of the problem, each started from the one before.

Lengths T of the time span, penalties, or their ratio change in small steps; the last optimum, carried over, is then
near the next one. A velocity homogeneous of degree k in its parameters takes the same way over another length T' with

    theta'(t) = (T/T')^(1/k) theta(t T/T'),

which is how parameters are carried over. On the way back other optima than on the way there may be found: where a path
folds, both ways end in different local minima.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float, one_of
from meanfield.controls import Controls
from meanfield.errors import ConfigError, NumericalError
from meanfield.learning.optimum_path import OptimumPath
from meanfield.learning.quasi_newton import Optimum, minimise
from meanfield.learning.training import Training

Array = NDArray[np.float64]

PREDICTORS = ("secant", "last", "own")
"""Words for where a problem starts: see `continuation`."""


@dataclass(frozen=True, eq=False)
class Continuation:
    """Optima on the way through the values and, where it was asked for, on the way back.

    Attributes
    ----------
    forth
        From the first value to the last.
    back
        From the last to the first, started from the end of `forth`; None if there was no way back.
    """

    forth: OptimumPath
    back: OptimumPath | None

    @property
    def best(self) -> tuple[Optimum, ...]:
        """At each value, in the order given, the optimum with the smaller J of both ways."""
        if self.back is None:
            return self.forth.optima
        pairs = zip(self.forth.optima, reversed(self.back.optima), strict=True)
        return tuple(min(pair, key=lambda optimum: optimum.value) for pair in pairs)

    @property
    def gaps(self) -> Array:
        """J on the way there less J on the way back, (K,); not zero where a path found another local minimum."""
        if self.back is None:
            raise ConfigError("gaps need a way back: set back=True")
        return np.asarray(self.forth.energies - self.back.energies[::-1])

    @property
    def work(self) -> int:
        """Passes forward and back through one layer, both ways together."""
        return self.forth.work + (0 if self.back is None else self.back.work)

    def raise_for_status(self) -> Continuation:
        """Return itself if every optimum converged, else raise `NumericalError`."""
        self.forth.raise_for_status()
        if self.back is not None:
            self.back.raise_for_status()
        return self


def continuation(
    problem_of: Callable[[float], Training],
    values: Sequence[float],
    *,
    start: Array | None = None,
    degree: float | None = 1.0,
    predictor: str = "secant",
    back: bool = False,
    tolerance: float = 1e-8,
    max_iterations: int = 1000,
    memory: int = 20,
) -> Continuation:
    """Minimise a family of training problems along a path by L-BFGS, each from what the ones before found.

    Parameters
    ----------
    problem_of
        The problem at a value: the same trained parameters, with as many values over depth, at every one.
    values
        Increasing or decreasing, all > 0 where the predictor is ``"secant"``.
    start
        Flat vector of the first problem; None is its own.
    degree
        k > 0 of the velocity in its trained parameters: they are carried to another length of the time span as above.
        None carries them over as they are, stretched.
    predictor
        ``"last"``: from the last optimum; ``"secant"``: from the line through the last two over the logarithm of the
        value, where J is lower there (which takes two evaluations); ``"own"``: every problem from its own parameters,
        for comparison.
    back
        Whether to go back from the last value to the first as well.
    tolerance, max_iterations, memory
        Of `minimise`, at every value.

    Raises
    ------
    ConfigError
        For values that are not strictly monotone, or problems whose parameters do not go together.
    NumericalError
        Where J is not finite at a start.

    Notes
    -----
    An optimum that did not converge is kept with its status, and the path goes on from it.
    Source: the scaling is that of Esteve, Geshkovski, Pighin, Zuazua, "Large-time asymptotics in deep learning",
    arXiv 2008.02491.
    """
    one_of("predictor", predictor, PREDICTORS)
    at = finite_array("values", values, shape=(None,))
    if not at.size or not ((np.diff(at) > 0.0).all() or (np.diff(at) < 0.0).all()):
        raise ConfigError(f"values must increase or decrease, got {at}")
    if predictor == "secant" and not (at > 0.0).all():
        raise ConfigError(f"values must be > 0 for a predictor over their logarithm, got {at.min()}")
    order = None if degree is None else finite_float("degree", degree, above=0.0)
    options = {"tolerance": tolerance, "max_iterations": max_iterations, "memory": memory}
    walker = _Walker(problem_of, order, predictor, options)
    forth = walker.walk(at, start)
    return Continuation(forth, walker.walk(at[::-1], forth.optima[-1].flat) if back else None)


def rescaled(target: Training, problem: Training, flat: Array, *, degree: float | None = 1.0) -> Array:
    """Flat vector of a problem at the parameters of another one over another length of the time span.

    theta'(t) = (T/T')^(1/k) theta(t T/T') with k the degree; None leaves the values as they are. Trained readouts and
    inlets stay.

    Parameters
    ----------
    target
        Problem to find a flat vector of, with the same trained parameters and as many values over depth.
    problem, flat
        The other problem, and its flat vector.
    degree
        k > 0, or None.

    Raises
    ------
    ConfigError
        For trained parameters that differ.
    """
    if target.pieces() != problem.pieces():
        raise ConfigError(f"trained parameters differ: {target.pieces()} and {problem.pieces()}")
    power = 0.0 if degree is None else 1.0 / finite_float("degree", degree, above=0.0)
    (a, b), (c, d) = problem.t_span, target.t_span
    factor = ((b - a) / (d - c)) ** power
    model, readout = problem.unpack(flat)
    changed: dict[str, Array | Controls] = {}
    for name in problem.trained or ():
        old, new = model.parameters[name], target.model.parameters[name]
        if isinstance(old, Controls) and isinstance(new, Controls):
            changed[name] = Controls(new.knots, factor * old.values, new.interpolation)
        elif isinstance(old, Controls) or isinstance(new, Controls):
            raise ConfigError(f"parameter {name!r} depends on depth in one problem and not in the other")
        else:
            changed[name] = factor * old
    return replace(
        target, model=target.model.with_parameters(**changed), readout=readout, inlet=problem.inlet_of(flat)
    ).start()


@dataclass(frozen=True)
class _Walker:
    """Walks through values; `degree` and `predictor` as for `continuation`."""

    problem_of: Callable[[float], Training]
    degree: float | None
    predictor: str
    options: Mapping[str, Any]

    def walk(self, values: Array, start: Array | None) -> OptimumPath:
        """Path through the values from a flat vector of the first problem."""
        done: list[tuple[float, Training, Optimum]] = []
        evaluations = []
        for value in values.tolist():
            problem = self.problem_of(value)
            first, tried = self._start(value, problem, done) if done else (start, 0)
            optimum = minimise(problem, first, **self.options)
            assert optimum.evaluations is not None
            done.append((value, problem, optimum))
            evaluations.append(optimum.evaluations + tried)
        steps = np.array([problem.n_steps for _, problem, _ in done])
        return OptimumPath(values, tuple(optimum for _, _, optimum in done), steps, np.array(evaluations))

    def _start(
        self, value: float, problem: Training, done: list[tuple[float, Training, Optimum]]
    ) -> tuple[Array | None, int]:
        """Flat vector to start from, None for the problem's own, and the evaluations that its choice took."""
        if self.predictor == "own":
            return None, 0
        last = rescaled(problem, done[-1][1], done[-1][2].flat, degree=self.degree)
        if self.predictor == "last" or len(done) < 2:
            return last, 0
        before = rescaled(problem, done[-2][1], done[-2][2].flat, degree=self.degree)
        old, now = done[-2][0], done[-1][0]
        ahead = last + (last - before) * (math.log(value / now) / math.log(now / old))
        try:
            lower = problem.objective(ahead)[0] < problem.objective(last)[0]
        except NumericalError:
            lower = False
        return (ahead if lower else last), 2
