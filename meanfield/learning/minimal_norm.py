"""Interpolation by parameters of least norm: an equality-constrained problem with a solver of its own.

    min  int |theta(t)|^2 dt    subject to    c(theta) = P x_s(T) - y_s = 0    for all samples s

Parameters of terminal problems over long times, on the time scale of [0, 1], tend to its solution where the velocity is
homogeneous of degree one in them. The method of multipliers comes first, from anywhere: it minimises

    (1/2) int |theta|^2 + <lambda, c> + (rho/2) |c|^2,      lambda <- lambda + rho c,

which is a training problem with squared loss, shifted targets and an L2 penalty. Sequential quadratic programming
ends it: Newton steps of the Karush-Kuhn-Tucker equations by conjugate gradients in the null space of dc/dtheta.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float, positive_int
from meanfield.errors import NumericalError
from meanfield.learning.end_constraints import RANK, ConstrainedPoint, EndConstraints
from meanfield.learning.quasi_newton import minimise
from meanfield.learning.training import Network, Training
from meanfield.parallel import blas_single_thread
from meanfield.solution import Status

Array = NDArray[np.float64]

SOLVED, OUT_OF_REACH, STALLED, LIMIT = "solved", "out of reach", "stalled", "limit"
"""What `MinimalNorm.outcome` says."""

# Newton steps in a row, conjugate directions of each, the shortest part of a step, and the longest relative one.
_STEPS, _DIRECTIONS, _SHORTEST, _FARTHEST = 30, 300, 2.0**-6, 100.0
# rho grows by this factor where a round does not bring the violation down to this part.
_GROWTH, _ENOUGH = 10.0, 0.25
# So many rounds in a row that keep this part of the least violation, or residual, end the search.
_PATIENCE, _KEPT = 4, 0.9
# ... if its gradient is this small, relative to violation and Jacobian.
_STATIONARY = 1e-2


@dataclass(frozen=True, eq=False)
class MinimalNorm:
    """Where the search for interpolating parameters of least norm ended.

    Attributes
    ----------
    model
        Network with these parameters.
    flat
        The same as a flat vector of the problem with ``coordinates="l2"``, in which they are sought.
    value
        int |theta|^2 dt, with the weights of labels of a space-time network.
    multipliers
        lambda (C, n) of the outputs; -2 lambda is the derivative of `value` in the targets.
    violation
        Largest |P x_s(T) - y_s|.
    residual
        L2 norm over depth and labels of theta + sum lambda dc/dtheta.
    stationarity
        |gradient of |c|^2/2| over |c| and the largest norm of a Jacobian on the way: 0 where no small change of the
        parameters brings the violation down.
    rank
        Of the Jacobian of c; below the number of constraints only the multipliers' least norm is determined.
    values, violations, residuals
        The same at the start, after every round of multipliers and after every Newton step.
    rounds, evaluations
        Updates of the multipliers; passes forward and back through the network.
    outcome
        ``"solved"``; ``"out of reach"``: the violation has a local minimum or an infimum that is not 0;
        ``"stalled"``: it stays, though its gradient does not vanish, or is 0 where the residual stays (both at kinks
        of ReLU); or ``"limit"``.
    status, message
        finished for ``"solved"``, max_steps for ``"limit"``, else not_converged; a sentence.
    """

    model: Network
    flat: Array
    value: float
    multipliers: Array
    violation: float
    residual: float
    stationarity: float
    rank: int
    values: Array
    violations: Array
    residuals: Array
    rounds: int
    evaluations: int
    outcome: str
    status: Status
    message: str

    def raise_for_status(self) -> MinimalNorm:
        """Return itself if the problem was solved, else raise `NumericalError`."""
        if self.status is not Status.FINISHED:
            raise NumericalError(self.message)
        return self


def minimal_norm(
    problem: Training,
    targets: Any = None,
    start: Array | None = None,
    *,
    tolerance: float = 1e-8,
    violation: float = 1e-10,
    max_rounds: int = 30,
    max_iterations: int = 2000,
) -> MinimalNorm:
    """Find parameters of least L2 norm with which a network takes its inputs exactly to targets.

    Parameters
    ----------
    problem
        Network, inputs, steps and a fixed readout; its loss and regularisers play no role. All that is trained must
        depend on depth.
    targets
        y, (C, n) or (n,); None takes those of a `Squared` loss.
    start
        Flat vector of the problem with ``coordinates="l2"`` (without penalties of derivatives, the problem's own);
        None is the parameters as they are. A local minimum is found: which one, the start decides.
    tolerance, violation
        Bounds, > 0, on `MinimalNorm.residual` and `MinimalNorm.violation`.
    max_rounds, max_iterations
        Limits on updates of the multipliers and on the iterations of L-BFGS in each.

    Raises
    ------
    ConfigError
        For trained parameters that do not depend on depth, a trained readout, tracking, targets of another shape or
        values out of range.
    NumericalError
        Where states leave the finite numbers.

    Notes
    -----
    A Jacobian costs as many passes back as there are constraints. Source: consequence of the model; its role for long
    times is that of Esteve, Geshkovski, Pighin, Zuazua, "Large-time asymptotics in deep learning", arXiv 2008.02491.
    """
    system = EndConstraints.of(problem, targets)
    own = system.problem.start()
    begin = own if start is None else finite_array("start", start, shape=own.shape)
    goals = _Goals(finite_float("tolerance", tolerance, above=0.0), finite_float("violation", violation, above=0.0))
    limits = positive_int("max_rounds", max_rounds), positive_int("max_iterations", max_iterations)
    with blas_single_thread():
        return _search(system, begin, goals, *limits)


class _Goals(NamedTuple):
    residual: float
    violation: float

    def met(self, point: ConstrainedPoint) -> bool:
        return point.residual <= self.residual and point.violation <= self.violation


def _search(system: EndConstraints, begin: Array, goals: _Goals, max_rounds: int, max_iterations: int) -> MinimalNorm:
    """Rounds of multipliers, each followed by Newton steps where they lead to a solution."""
    point = system.point(begin)
    history, rho = [point], _first_rho(point)
    multipliers, least, patience = np.zeros(len(point.c)), (np.inf, np.inf), 0
    for rounds in range(1, max_rounds + 1):
        inner = system.augmented(multipliers, rho)
        # Gradients of the Lagrangian, n rho times those of the problem, a hundredth of the parameters and falling.
        size = max(float(np.linalg.norm(point.slope)), goals.residual)
        goal = max(1e-2 * 0.2**rounds * size, 0.1 * goals.residual) / (system.targets.shape[1] * rho)
        found = minimise(inner, point.flat, tolerance=goal, max_iterations=max_iterations)
        system.count[0] += found.evaluations or 0
        reached = found.status is Status.FINISHED
        if reached:
            multipliers = multipliers + rho * system.constraints(found.flat)
        last, point = point, system.point(found.flat, multipliers)
        history.append(point)
        way, solved = _descend(system, point.flat, goals)
        if solved:
            return _result(system, [*history, *way[1:]], rounds, SOLVED)
        if way[-1].violation < _ENOUGH * point.violation:
            point, multipliers = way[-1], way[-1].multipliers
            history += way[1:]
        met = point.violation <= goals.violation
        better = point.residual <= _KEPT * least[1] if met else point.violation <= _KEPT * least[0]
        patience = 0 if better else patience + 1
        least = min(least[0], point.violation), min(least[1], point.residual)
        if patience >= _PATIENCE:
            stays = met or not reached or _stationarity(history) > _STATIONARY
            return _result(system, history, rounds, STALLED if stays else OUT_OF_REACH)
        if reached and point.violation > _ENOUGH * last.violation:
            rho *= _GROWTH
    return _result(system, history, max_rounds, LIMIT)


def _first_rho(point: ConstrainedPoint) -> float:
    """Ten times what makes the penalty of the violation as large as the norm of the parameters that remove it."""
    step = np.linalg.lstsq(point.jacobian, -point.c, rcond=RANK)[0]
    violated = float(point.c @ point.c)
    return float(np.clip(10.0 * (step @ step) / violated, 1e-2, 1e6)) if violated > 0.0 and step.any() else 10.0


def _stationarity(history: list[ConstrainedPoint]) -> float:
    end = history[-1]
    size = float(max(np.linalg.norm(p.jacobian, 2) for p in history) * np.linalg.norm(end.c))
    return float(np.linalg.norm(end.c @ end.jacobian)) / size if size > 0.0 else 0.0


def _descend(system: EndConstraints, start: Array, goals: _Goals) -> tuple[list[ConstrainedPoint], bool]:
    """Points of sequential quadratic programming, and whether they end in a minimum along all directions looked at.

    Steps are shortened until (1/2) int |theta|^2 + nu |c| falls, nu twice the multipliers.
    """
    here, nu = system.point(start), 0.0
    points = [here]
    for _ in range(_STEPS):
        step, convex = _newton_step(system, here)
        if goals.met(here) and convex:
            return points, True
        nu = max(nu, 2.0 * float(np.linalg.norm(here.multipliers)))
        try:
            there = _shortened(system, here, step, nu)
        except NumericalError:
            there = None
        if there is None:
            break
        points.append(there)
        here = there
    return points, False


def _shortened(system: EndConstraints, here: ConstrainedPoint, step: Array, nu: float) -> ConstrainedPoint | None:
    """First point of the step, corrected or shortened, where the merit falls enough; None where there is none."""
    size = float(np.linalg.norm(here.c))
    before = here.norm + nu * size
    slope = float(here.slope @ step) - nu * (size - float(np.linalg.norm(here.c + here.jacobian @ step)))
    longest = _FARTHEST * (1.0 + float(np.linalg.norm(here.flat)))
    share = first = min(1.0, longest / max(float(np.linalg.norm(step)), 1e-300))
    while share > _SHORTEST * first:
        flat = here.flat + share * step
        trials = [flat]
        if share == 1.0:
            # The full step leaves c where it is curved: a second step along the same normals removes that.
            bent = system.constraints(flat)
            if np.isfinite(bent).all():
                trials.append(flat - np.linalg.lstsq(here.jacobian, bent, rcond=RANK)[0])
        for trial in trials:
            if system.merit(trial, nu) <= before + 1e-4 * share * slope:
                return system.point(trial)
        if share == 1.0 and abs(slope) < 1e-8 * before:
            # Rounding hides the descent: what is to vanish must halve.
            there = system.point(flat)
            return there if there.size < 0.5 * here.size else None
        share *= 0.5
    return None


def _newton_step(system: EndConstraints, point: ConstrainedPoint) -> tuple[Array, bool]:
    """Step to A s = -c, least in the second order of the Lagrangian along the null space, and whether that is convex.

    Second derivatives are differences of gradients. Where a direction bends down the step ends before it.
    """
    rows, values, columns = np.linalg.svd(point.jacobian, full_matrices=False)
    kept = values > RANK * max(float(values[0]), np.finfo(np.float64).tiny)
    basis = columns[kept]
    step = -((rows[:, kept].T @ point.c) / values[kept]) @ basis
    gradient = system.lagrangian(point.multipliers)

    def tangential(v: Array) -> Array:
        return np.asarray(v - (basis @ v) @ basis)

    def curved(v: Array) -> Array:
        e = 1e-5 * (1.0 + float(np.linalg.norm(point.flat))) / max(float(np.linalg.norm(v)), 1e-300)
        ahead, back = (gradient(point.flat + s * v)[1] for s in (e, -e))
        return (ahead - back) / (2.0 * e)

    slope = point.slope + point.multipliers @ point.jacobian
    rest = -tangential(slope + curved(step) if step.any() else slope)
    direction, square = rest.copy(), float(rest @ rest)
    # What rounding leaves has no direction.
    least, normal = max(1e-16 * square, (1e-13 * float(np.linalg.norm(point.slope))) ** 2), step
    for _ in range(min(_DIRECTIONS, len(step))):
        if square <= least:
            break
        bent = tangential(curved(direction))
        bend = float(direction @ bent)
        if not bend > 1e-10 * float(direction @ direction):
            return (normal + direction if step is normal else step), False
        step = step + (square / bend) * direction
        rest = rest - (square / bend) * bent
        last, square = square, float(rest @ rest)
        direction = rest + (square / last) * direction
    return np.asarray(step), True


def _result(system: EndConstraints, history: list[ConstrainedPoint], rounds: int, outcome: str) -> MinimalNorm:
    end = history[-1]
    values = np.linalg.svd(end.jacobian, compute_uv=False)
    left = f"violation {end.violation:.3g} and residual {end.residual:.3g}"
    status, message = {
        SOLVED: (Status.FINISHED, "violation and residual are below their bounds"),
        OUT_OF_REACH: (Status.NOT_CONVERGED, f"the targets are out of reach nearby: least {left}"),
        STALLED: (Status.NOT_CONVERGED, f"{left} stay under any penalty, as at kinks"),
        LIMIT: (Status.MAX_STEPS, f"max_rounds reached with {left}"),
    }[outcome]
    norms, violations, residuals = np.array([(2.0 * p.norm, p.violation, p.residual) for p in history]).T.copy()
    return MinimalNorm(
        system.problem.unpack(end.flat)[0], end.flat, 2.0 * end.norm, end.multipliers.reshape(system.targets.shape),
        end.violation, end.residual, _stationarity(history), int((values > RANK * values[0]).sum()), norms,
        violations, residuals, rounds, system.count[0], outcome, status, message,
    )  # fmt: skip
