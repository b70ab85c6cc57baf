"""Steady states by Newton's method with Krylov solvers, and by pseudo-transient continuation.

Both solve F(z) = 0 for the rate F of a model, with nothing but products of its
derivative with vectors:

    Newton:            J(z) s = -F(z),              z <- z + theta s
    pseudo-transient:  (1/delta - J(z)) s = F(z),   z <- z + s

theta is halved until ||F|| falls, as in Kelley, "Solving nonlinear equations with
Newton's method" (2003), ch. 1-3; delta grows as ||F|| falls (switched evolution
relaxation, Kelley, Keyes, "Convergence analysis of pseudo-transient continuation",
SIAM J. Numer. Anal. 35, 1998), which follows the flow at first and so leads to a
stable state where Newton may find any.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, gmres

from meanfield._checks import finite_array, finite_float, one_of, positive_int
from meanfield.errors import NumericalError
from meanfield.solution import Status

Array = NDArray[np.float64]

_METHODS = ("newton", "pseudo-transient")
# Largest relative residual of a linear solve, and the Krylov vectors kept.
_FORCING = 0.1
_RESTART = 80
# A state is found when the next Newton step would move it by less than this share of its size.
_SETTLED = 1e-3
_SHORTEST = 2.0**-20


@dataclass(frozen=True, eq=False)
class SteadyState:
    """What an iteration for F(z) = 0 found.

    Parameters
    ----------
    state
        Last iterate, of the shape of the guess.
    residual
        ||F|| there, in L2(q), the root mean square over samples.
    residuals
        ||F|| of every iterate, the guess first.
    n_iterations
        Steps taken.
    n_products
        Products with the derivative.
    status
        finished, not_converged or nonfinite.
    message
        A sentence.
    """

    state: Array
    residual: float
    residuals: tuple[float, ...]
    n_iterations: int
    n_products: int
    status: Status
    message: str

    def raise_for_status(self) -> SteadyState:
        """Return the result if it converged, else raise `NumericalError`."""
        if self.status is not Status.FINISHED:
            raise NumericalError(self.message)
        return self


def steady_state(
    model: Any,
    guess: Any,
    *,
    t: float = 0.0,
    method: str = "newton",
    tol: float = 1e-11,
    max_iterations: int = 100,
    first_step: float = 1.0,
) -> SteadyState:
    """Steady state of a model near a guess.

    Parameters
    ----------
    model
        Anything with `shape`, `grid`, ``rate(t, y, out)`` and ``jvp(t, y, v, out)``, such as a
        `SpaceTimeNetwork`; for one that depends on depth, the state at which its rate at depth t vanishes.
    guess
        Where to start, of the model's shape.
    t
        Depth.
    method
        ``"newton"`` or ``"pseudo-transient"``.
    tol
        ||F|| at which to stop, absolute: in the units of the rate. Where the next Newton step would still move the
        state, F has no zero nearby: not converged.
    max_iterations
        Steps at most.
    first_step
        First delta of the pseudo-transient continuation, in units of depth.

    Raises
    ------
    ConfigError
        For a guess of another shape or values that are not finite.
    """
    guess = finite_array("guess", guess, shape=tuple(model.shape))
    one_of("method", method, _METHODS)
    tol = finite_float("tol", tol, above=0.0)
    limit = positive_int("max_iterations", max_iterations)
    problem = _Problem(model, finite_float("t", t), guess.shape)
    delta = np.inf if method == "newton" else finite_float("first_step", first_step, above=0.0)
    return _iterate(problem, problem.scaled(guess), delta, tol, limit)


class _Problem:
    """The rate and its derivative on flat vectors, scaled so that their Euclidean norm is that of L2(q)."""

    def __init__(self, model: Any, t: float, shape: tuple[int, ...]) -> None:
        self._model, self._t, self._shape = model, t, shape
        rows = int(np.prod(shape[:-1]))
        self._root = np.broadcast_to(np.sqrt(model.grid.weights / rows), shape)
        self.n_products = 0

    def scaled(self, z: Array) -> Array:
        return (self._root * z).ravel()

    def field(self, x: Array) -> Array:
        return np.ascontiguousarray(x.reshape(self._shape) / self._root)

    def rate(self, x: Array) -> Array:
        out = np.empty(self._shape)
        self._model.rate(self._t, self.field(x), out)
        return self.scaled(out)

    def solve(self, x: Array, rate: Array, shift: float, forcing: float) -> Array:
        """Solve (shift - J) s = F, to the relative residual `forcing` if that can be had."""
        z, out = self.field(x), np.empty(self._shape)

        def apply(v: Array) -> Array:
            self.n_products += 1
            self._model.jvp(self._t, z, self.field(v), out)
            return np.asarray(shift * v.ravel() - self.scaled(out))

        n = len(x)
        operator = LinearOperator((n, n), matvec=apply, dtype=np.float64)
        step, _ = gmres(operator, rate, rtol=forcing, atol=0.0, restart=min(n, _RESTART), maxiter=5)
        return np.asarray(step)

    def next_step(self, x: Array, rate: Array) -> float:
        """Length of the Newton step from x, roughly; 0 where F vanishes or its derivative does."""
        if not rate.any():
            return 0.0
        size = float(np.linalg.norm(rate))
        length = size * float(np.linalg.norm(self.solve(x, rate / size, 0.0, _FORCING)))
        return length if np.isfinite(length) else 0.0


def _iterate(problem: _Problem, x: Array, delta: float, tol: float, limit: int) -> SteadyState:
    newton = not np.isfinite(delta)
    rate = problem.rate(x)
    norms = [float(np.linalg.norm(rate))]
    forcing = _FORCING
    status, words = Status.NOT_CONVERGED, f"no steady state after {limit} steps"
    for _ in range(limit):
        if not np.isfinite(norms[-1]):
            status, words = Status.NONFINITE, "the rate is not finite"
            break
        if norms[-1] <= tol:
            break
        step = problem.solve(x, rate, 0.0 if newton else 1.0 / delta, forcing)
        found = _line_search(problem, x, step, norms[-1]) if newton else _whole_step(problem, x, step)
        if found is None:
            words = "no step reduces the rate: a minimum of ||F|| that is no steady state, or round-off"
            break
        x, rate = found
        norms.append(float(np.linalg.norm(rate)))
        drop = norms[-1] / norms[-2] if norms[-2] else 0.0
        # The accuracy of the linear solves follows the convergence, so that it stays quadratic.
        forcing = float(np.clip(0.9 * drop**2, 1e-10, _FORCING))
        if not newton:
            delta = float(np.clip(delta / max(drop, 1e-3), 1e-12, 1e14))
    if norms[-1] <= tol:
        status, words = Status.FINISHED, f"||F|| = {norms[-1]:.3g} after {len(norms) - 1} steps"
        ahead = problem.next_step(x, rate)
        if ahead > _SETTLED * (1.0 + float(np.linalg.norm(x))):
            # Of sigmoid(u) = 0 every Newton step takes u down by one, and F falls below any tolerance.
            status = Status.NOT_CONVERGED
            words += f", but the next one would move the state by {ahead:.3g}: F vanishes at infinity only, if at all"
    elif status is Status.NOT_CONVERGED:
        words += f"; ||F|| = {norms[-1]:.3g}, tolerance {tol:.3g}"
    return SteadyState(problem.field(x), norms[-1], tuple(norms), len(norms) - 1, problem.n_products, status, words)


def _line_search(problem: _Problem, x: Array, step: Array, norm: float) -> tuple[Array, Array] | None:
    """Longest of the steps 1, 1/2, 1/4, ... that reduces the rate enough (Armijo)."""
    length = 1.0
    while length >= _SHORTEST:
        trial = x + length * step
        rate = problem.rate(trial)
        if float(np.linalg.norm(rate)) <= (1.0 - 1e-4 * length) * norm:
            return trial, rate
        length *= 0.5
    return None


def _whole_step(problem: _Problem, x: Array, step: Array) -> tuple[Array, Array]:
    return x + step, problem.rate(x + step)
