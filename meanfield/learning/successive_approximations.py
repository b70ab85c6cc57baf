"""Successive approximations and forward-backward sweeps: layers go towards the minimisers of their Hamiltonians.

    theta_k <- argmin_theta H_k(theta; x, p) + D(theta, theta_k),                 successive approximations
    theta_k <- theta_k + omega (argmin_theta H_k(theta; x, p) - theta_k),         forward-backward sweep

states x by a forward pass and costates p by a backward one, held while the layers move. Plain (D = 0, omega = 1) the
iteration may cycle or diverge: minimisers are far where the Hamiltonian says nothing of how states and costates
follow. Damped, rho rises or omega sinks until J falls by a part of what the Hamiltonians promise, and
recovers after every step: a descent. Dampings of successive approximations are

    proximal:   D = (rho/2) |theta - theta_k|^2
    augmented:  D = (rho/2) mean_j |v(x_j, theta) - v(x_j, theta_k)|^2 + |g_j(theta) - g_j(theta_k)|^2

with g_j = n d_x v(x_j, theta)^T p_j: the second, of Li, Chen, Tai and E, weighs the errors that a step leaves in the
equations of states and costates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float, one_of, positive_int
from meanfield.controls import Controls
from meanfield.errors import ConfigError, NumericalError
from meanfield.learning.hamiltonians import LayerHamiltonian, Layers, layers_of
from meanfield.learning.quasi_newton import Optimum
from meanfield.learning.training import Training
from meanfield.parallel import blas_single_thread
from meanfield.solution import Status

Array = NDArray[np.float64]
# Layers that a damping leads to: f(hamiltonian, theta, damping), with damping 0 the minimisers.
Move = Callable[[LayerHamiltonian, Layers, float], Layers]

# Part of the fall of the Hamiltonians by which J must fall, factors of the damping after failures and successes, most
# failures.
_PART, _UP, _DOWN, _TRIALS = 0.1, 4.0, 0.5, 60
# Part of their slopes to which augmented Hamiltonians are minimised: they change with the next states.
_INEXACT = 1e-2
# What J is known to, in units of the last place.
_ROUNDING = 32.0 * float(np.finfo(np.float64).eps)


def successive_approximations(
    problem: Training,
    start: Array | None = None,
    *,
    damping: str = "proximal",
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
    damping
        ``"proximal"`` or ``"augmented"``, with rho such that J falls in every iteration; ``"none"`` takes all steps.
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
    moves: dict[str, Move] = {"proximal": LayerHamiltonian.minimised, "augmented": _augmented, "none": _plain}
    move = moves[one_of("damping", damping, tuple(moves))]
    with blas_single_thread():
        return _iterate(problem, start, move, damping != "none", tolerance, max_iterations)


def forward_backward_sweep(
    problem: Training,
    start: Array | None = None,
    *,
    relaxation: float | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 1000,
) -> Optimum:
    """Minimise a training problem by forward-backward sweeps until the norm of the gradient is below a tolerance.

    Parameters
    ----------
    problem, start, tolerance, max_iterations
        As for `successive_approximations`.
    relaxation
        omega in (0, 1] of every step; None lets it adapt so that J falls in every iteration.

    Raises
    ------
    ConfigError
        For values out of range, and as for `successive_approximations`.

    Notes
    -----
    Source: Lenhart and Workman, "Optimal control applied to biological models", Chapman and Hall/CRC (2007).
    """
    if relaxation is None:
        with blas_single_thread():
            return _iterate(problem, start, _relaxed, True, tolerance, max_iterations)
    omega = finite_float("relaxation", relaxation, above=0.0)
    if omega > 1.0:
        raise ConfigError(f"relaxation must be at most 1, got {omega!r}")

    def fixed(hamiltonian: LayerHamiltonian, theta: Layers, _damping: float) -> Layers:
        return _relaxed(hamiltonian, theta, 1.0 / omega - 1.0)

    with blas_single_thread():
        return _iterate(problem, start, fixed, False, tolerance, max_iterations)


def _plain(hamiltonian: LayerHamiltonian, theta: Layers, _damping: float) -> Layers:
    return hamiltonian.minimised(theta)


def _relaxed(hamiltonian: LayerHamiltonian, theta: Layers, damping: float) -> Layers:
    """Minimisers approached by omega = 1/(1 + damping)."""
    best = hamiltonian.minimised(theta)
    return {name: part + (best[name] - part) / (1.0 + damping) for name, part in theta.items()}


def _augmented(hamiltonian: LayerHamiltonian, theta: Layers, rho: float) -> Layers:
    if rho == 0.0:
        return hamiltonian.minimised(theta)
    hamiltonian.check_bounded()
    n = hamiltonian.x.shape[2]
    velocities, slopes = hamiltonian.velocities(theta), hamiltonian.state_slopes(theta)

    def errors(new: Layers) -> tuple[Array, Layers]:
        dv = hamiltonian.velocities(new) - velocities
        dg = hamiltonian.state_slopes(new) - slopes
        squares = (dv**2).sum(axis=(1, 2)) / n + n * (dg**2).sum(axis=(1, 2))
        first, second = hamiltonian.pulls(new, dv / n), hamiltonian.state_slope_pulls(new, n * dg)
        return 0.5 * rho * hamiltonian.mean(squares), {name: rho * (first[name] + second[name]) for name in first}

    return hamiltonian.descended(theta, errors, _INEXACT)


def _iterate(
    problem: Training, start: Array | None, move: Move, damped: bool, tolerance: float, max_iterations: int
) -> Optimum:
    flat = problem.start() if start is None else finite_array("start", start, shape=problem.start().shape)
    goal = finite_float("tolerance", tolerance, above=0.0)
    limit = positive_int("max_iterations", max_iterations)
    value, norm = _at(problem, flat)
    history = [(value, norm)]
    damping, status, message = 0.0, Status.MAX_STEPS, "max_iterations reached"
    while norm > goal and len(history) <= limit:
        if not damped:
            try:
                trial = _moved(problem, flat, move)
                value, norm = _at(problem, trial)
                flat = trial
            except NumericalError as error:
                status, message = Status.NONFINITE, f"plain iterations blow up: {error}"
                break
        else:
            found = _descent(problem, flat, value, norm, move, damping)
            if found is None:
                status, message = Status.NOT_CONVERGED, "no damping makes the objective fall"
                break
            flat, value, norm, damping = found
        history.append((value, norm))
    if norm <= goal:
        status, message = Status.FINISHED, "the gradient is below the tolerance"
    return Optimum.at(problem, flat, value, norm, history, status, message)


def _at(problem: Training, flat: Array) -> tuple[float, float]:
    """J and the norm of its gradient."""
    with np.errstate(over="ignore", invalid="ignore"):  # infinity is an error of its own
        value, gradient = problem.objective(flat)
    return value, float(np.linalg.norm(gradient))


def _moved(problem: Training, flat: Array, move: Move) -> Array:
    model, _ = problem.unpack(flat)
    hamiltonian = LayerHamiltonian.along(problem, model)
    return _flat(problem, move(hamiltonian, layers_of(problem, model), 0.0))


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
    problem: Training, flat: Array, value: float, norm: float, move: Move, damping: float
) -> tuple[Array, float, float, float] | None:
    """Step with the least damping tried that makes J fall: the vector, J, |grad J| and the damping to try next."""
    model, _ = problem.unpack(flat)
    hamiltonian, theta = LayerHamiltonian.along(problem, model), layers_of(problem, model)
    before = hamiltonian.values(theta)
    for _ in range(_TRIALS):
        new = move(hamiltonian, theta, damping)
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
            return trial, found, slope, _DOWN * damping
        # The first damping is one that takes a step of the length of this one for a step down the gradient.
        damping = _UP * damping if damping > 0.0 else norm / step
    return None
