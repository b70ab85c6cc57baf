"""Method of successive approximations: every layer minimises its Hamiltonian, states and costates held.

    theta_k <- argmin_theta H_k(theta; x, p) + (rho/2) |theta - theta_k|^2

Plain (rho = 0) the iteration may cycle or diverge: minimisers are far where the Hamiltonian says nothing of how
states and costates follow. Damped, rho rises until J falls by a part of what the Hamiltonians promise, and sinks
again after every step: a descent. The damping is proximal, in the parameters; that of Li, Chen, Tai and E is
an augmented Lagrangian, in the errors of the state and costate equations, for the same purpose.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float, positive_int
from meanfield.controls import Controls
from meanfield.errors import NumericalError
from meanfield.learning.pontryagin import LayerHamiltonian, Layers, layers_of
from meanfield.learning.quasi_newton import Optimum
from meanfield.learning.training import Training
from meanfield.solution import Status

Array = NDArray[np.float64]

# Part of the fall of the Hamiltonians by which J must fall, factors of rho after failures and successes, most failures.
_PART, _UP, _DOWN, _TRIALS = 0.1, 4.0, 0.5, 60
# What J is known to, in units of the last place.
_ROUNDING = 32.0 * float(np.finfo(np.float64).eps)


def successive_approximations(
    problem: Training,
    start: Array | None = None,
    *,
    damped: bool = True,
    tolerance: float = 1e-8,
    max_iterations: int = 1000,
) -> Optimum:
    """Minimise a training problem by successive approximations until the norm of the gradient is below a tolerance.

    Parameters
    ----------
    problem
        Problem with Euler steps and `DepthL2` penalties, see `LayerHamiltonian.along`.
    start
        Flat vector to start from; None is the parameters as they are.
    damped
        Whether rho adapts so that J falls in every iteration; else it is 0, and all steps are taken.
    tolerance
        On |grad J|, > 0.
    max_iterations
        Limit on iterations.

    Raises
    ------
    ConfigError
        For values out of range, and as for `LayerHamiltonian.along` and `LayerHamiltonian.minimised`.

    Notes
    -----
    Status: finished, max_steps, not_converged (no damping makes J fall) or nonfinite (plain iterations that blow up).
    Source: Li, Chen, Tai and E, "Maximum principle based algorithms for deep learning", arXiv 1710.09513.
    """
    flat = problem.start() if start is None else finite_array("start", start, shape=problem.start().shape)
    goal = finite_float("tolerance", tolerance, above=0.0)
    limit = positive_int("max_iterations", max_iterations)
    value, norm = _at(problem, flat)
    history = [(value, norm)]
    rho, status, message = 0.0, Status.MAX_STEPS, "max_iterations reached"
    while norm > goal and len(history) <= limit:
        if not damped:
            try:
                trial = _plain(problem, flat)
                value, norm = _at(problem, trial)
                flat = trial
            except NumericalError as error:
                status, message = Status.NONFINITE, f"plain iterations blow up: {error}"
                break
        else:
            found = _descent(problem, flat, value, norm, rho)
            if found is None:
                status, message = Status.NOT_CONVERGED, "no damping makes the objective fall"
                break
            flat, value, norm, rho = found
        history.append((value, norm))
    if norm <= goal:
        status, message = Status.FINISHED, "the gradient is below the tolerance"
    return Optimum.at(problem, flat, value, norm, history, status, message)


def _at(problem: Training, flat: Array) -> tuple[float, float]:
    """J and the norm of its gradient."""
    with np.errstate(over="ignore", invalid="ignore"):  # infinity is an error of its own
        value, gradient = problem.objective(flat)
    return value, float(np.linalg.norm(gradient))


def _plain(problem: Training, flat: Array) -> Array:
    model, _ = problem.unpack(flat)
    hamiltonian = LayerHamiltonian.along(problem, model)
    return _flat(problem, hamiltonian.minimised(layers_of(problem, model)))


def _flat(problem: Training, theta: Layers) -> Array:
    """Flat vector of parameters of the layers."""
    if not all(np.isfinite(part).all() for part in theta.values()):
        raise NumericalError("the parameters are no longer finite")
    old = problem.model.parameters
    changed: dict[str, Array | Controls] = {}
    for name, values in theta.items():
        part = old[name]
        assert isinstance(part, Controls)
        changed[name] = Controls(part.knots, values)
    return replace(problem, model=problem.model.with_parameters(**changed)).start()


def _descent(
    problem: Training, flat: Array, value: float, norm: float, rho: float
) -> tuple[Array, float, float, float] | None:
    """Step with the least damping tried that makes J fall: the vector, J, |grad J| and the damping to try next."""
    model, _ = problem.unpack(flat)
    hamiltonian, theta = LayerHamiltonian.along(problem, model), layers_of(problem, model)
    before = hamiltonian.values(theta)
    for _ in range(_TRIALS):
        new = hamiltonian.minimised(theta, rho)
        step = hamiltonian.size({name: new[name] - theta[name] for name in new})
        if step == 0.0:
            return None
        try:
            trial = _flat(problem, new)
            found, slope = _at(problem, trial)
        except NumericalError:
            found, slope = np.inf, np.inf
        # Where falls drown in rounding the gradient tells.
        level = abs(found - value) <= _ROUNDING * abs(value) and slope < norm
        promised = float(hamiltonian.depths @ (before - hamiltonian.values(new)))
        if level or found < value - _PART * promised:
            return trial, found, slope, _DOWN * rho
        # The first rho is one that takes a step of the length of this one for a step down the gradient.
        rho = _UP * rho if rho > 0.0 else norm / step
    return None
