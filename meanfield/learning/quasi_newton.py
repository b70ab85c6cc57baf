"""Minimisation of training problems by L-BFGS (SciPy), with the history of objective and gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float, positive_int
from meanfield.errors import ConfigError, NumericalError
from meanfield.learning.training import Network, Training
from meanfield.losses import Readout
from meanfield.parallel import blas_single_thread
from meanfield.solution import Status

Array = NDArray[np.float64]
Objective = Callable[[Array], tuple[float, Array]]


# Stands for values that are not finite.
_FAR = 1e300
# Newton steps at the end, and conjugate directions of each.
_ROUNDS, _CONJUGATE = 4, 40


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where a minimisation ended.

    Attributes
    ----------
    model, readout
        Network and output map at the end.
    flat
        The same as a flat vector of the problem.
    value, gradient_norm
        J there, and the L2 norm of its gradient.
    values, gradient_norms
        J and |grad J| at every iteration, the start first.
    status
        finished, max_steps or not_converged.
    message
        What the solver said.
    evaluations
        How often J and its gradient were evaluated, None where nobody counted.
    inlet
        Input map at the end, None where the problem has none.
    """

    model: Network
    readout: Readout
    flat: Array
    value: float
    gradient_norm: float
    values: Array
    gradient_norms: Array
    status: Status
    message: str
    evaluations: int | None = None
    inlet: Readout | None = None

    @classmethod
    def at(
        cls,
        problem: Training,
        flat: Array,
        value: float,
        norm: float,
        history: list[tuple[float, float]],
        status: Status,
        message: str,
        evaluations: int | None = None,
    ) -> Self:
        """Optimum of a problem at a flat vector with its J and |grad J|, and those of all iterations."""
        values, norms = (np.array(column) for column in zip(*history, strict=True))
        model, readout = problem.unpack(flat)
        inlet = problem.inlet_of(flat)
        return cls(model, readout, flat, value, norm, values, norms, status, message, evaluations, inlet)

    def raise_for_status(self) -> Optimum:
        """Return itself if the solver converged, else raise `NumericalError`."""
        if self.status is not Status.FINISHED:
            raise NumericalError(f"{self.message}: |grad J| = {self.gradient_norm:.3g} after {len(self.values) - 1}")
        return self


def minimise(
    problem: Training,
    start: Array | None = None,
    *,
    tolerance: float = 1e-8,
    max_iterations: int = 1000,
    memory: int = 20,
) -> Optimum:
    """Minimise a training problem by L-BFGS until the norm of the gradient is below a tolerance.

    Where L-BFGS stops short because J no longer changes, a few Newton steps by conjugate gradients follow.

    Parameters
    ----------
    problem
        The problem.
    start
        Flat vector to start from; None is the parameters as they are.
    tolerance
        On |grad J|, > 0.
    max_iterations
        Limit on iterations.
    memory
        Pairs that the approximation of the Hessian remembers.

    Raises
    ------
    ConfigError
        For values out of range, or a problem without anything to train.
    NumericalError
        If J or its gradient is not finite at the start.
    """
    from scipy.optimize import minimize  # noqa: PLC0415 (slow to import)

    begin = problem.start() if start is None else finite_array("start", start, shape=problem.start().shape)
    if not begin.size:
        raise ConfigError("nothing is trained: trained is empty, and readout and inlet are fixed")
    goal = finite_float("tolerance", tolerance, above=0.0)
    limit = positive_int("max_iterations", max_iterations)
    seen: dict[bytes, tuple[float, float]] = {}
    evaluations = 0

    def objective(flat: Array) -> tuple[float, Array]:
        nonlocal evaluations
        evaluations += 1
        return problem.objective(flat)

    def noted(flat: Array) -> tuple[float, Array]:
        try:
            value, gradient = objective(flat)
        except NumericalError:
            if not seen and not history:
                raise
            # A step too far: the line search comes back from where nothing is finite.
            return _FAR, np.zeros_like(flat)
        seen[flat.tobytes()] = (value, float(np.linalg.norm(gradient)))
        return value, gradient

    history: list[tuple[float, float]] = []
    first, slope = noted(begin)
    history.append((first, float(np.linalg.norm(slope))))

    def note(flat: Array) -> None:
        history.append(seen[np.ascontiguousarray(flat).tobytes()])
        seen.clear()
        if history[-1][1] <= goal:
            raise StopIteration

    options = {
        "maxiter": limit,
        "maxcor": positive_int("memory", memory),
        "maxfun": 20 * limit,
        "ftol": 0.0,
        "gtol": goal / max(np.sqrt(begin.size), 1.0),
    }
    # Threads of BLAS cost more than they bring at these lengths, and would show in the last digits.
    with blas_single_thread():
        found = minimize(noted, begin, jac=True, method="L-BFGS-B", callback=note, options=options)
        flat, value, norm = _polished(objective, np.asarray(found.x), goal)
    if norm <= goal:
        status, message = Status.FINISHED, "the gradient is below the tolerance"
    else:
        status = Status.MAX_STEPS if found.nit >= limit else Status.NOT_CONVERGED
        message = "max_iterations reached" if found.nit >= limit else f"L-BFGS stopped: {found.message}"
    return Optimum.at(problem, flat, value, norm, history, status, message, evaluations)


def _polished(objective: Objective, flat: Array, goal: float) -> tuple[Array, float, float]:
    """Newton steps by conjugate gradients on differences of gradients, as long as they bring the gradient down.

    Returns the vector with its J and |grad J|.

    L-BFGS looks at J, which no longer changes where the gradient is of the order of the root of the rounding.
    """
    value, gradient = objective(flat)
    size = float(np.linalg.norm(gradient))
    for _ in range(_ROUNDS):
        if not goal < size < np.inf:
            break
        trial = flat + _newton_step(objective, flat, gradient)
        found, slope = objective(trial)
        if not np.linalg.norm(slope) < 0.5 * size:
            break
        flat, value, gradient, size = trial, found, slope, float(np.linalg.norm(slope))
    return flat, value, size


def _newton_step(objective: Objective, flat: Array, gradient: Array) -> Array:
    step, rest = np.zeros_like(flat), -gradient
    direction, square = rest.copy(), float(rest @ rest)
    first = square
    for _ in range(min(_CONJUGATE, flat.size)):
        e = 1e-5 * (1.0 + float(np.linalg.norm(flat))) / float(np.linalg.norm(direction))
        ahead, back = (objective(flat + s * direction)[1] for s in (e, -e))
        curved = (ahead - back) / (2.0 * e)
        bend = float(direction @ curved)
        if not bend > 0.0:
            break
        step += (square / bend) * direction
        rest = rest - (square / bend) * curved
        last, square = square, float(rest @ rest)
        if square < 1e-20 * first:
            break
        direction = rest + (square / last) * direction
    return step
