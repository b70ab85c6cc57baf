"""Turnpikes of training problems with tracking: steady pairs, and the exponents of the linearisation there.

    J = e l(P x(T) + c) + beta int l(P x + c) dt + lam int |theta|^2 dt,      x_s' = v(x_s, theta)

A steady pair (x, theta) minimises beta l(P x + c) + lam |theta|^2 subject to v = 0. Over a long T optimal layers stay
near one but for two arcs; the Hamiltonian system linearised there has the exponents of those arcs. Where v is
homogeneous of degree 1 in theta, as W sigma(x) + b is, steady pairs are theta = 0 and the minimisers of l, A = 0, and
the exponents of the n samples follow from the Gram matrix sigma(x_s).sigma(x_r) + 1.

Source: Esteve, Geshkovski, Pighin and Zuazua, "Large-time asymptotics in deep learning", arXiv 2008.02491.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float, positive_int
from meanfield.controls import Controls
from meanfield.diagnostics.turnpike import LinearQuadratic
from meanfield.errors import ConfigError, NumericalError
from meanfield.learning.residual_form import residual_form
from meanfield.learning.training import Training
from meanfield.losses import Labels, Loss, Readout, loss_of
from meanfield.models.residual import ResidualNetwork
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.parallel import blas_single_thread
from meanfield.regularizers import DepthL2, Total
from meanfield.schemes import EULER, StepGrid
from meanfield.solution import Status

Array = NDArray[np.float64]

# Of differences of order 4: truncation 1e-12 and rounding 1e-13 for derivatives of order 1.
_STEP = 1e-3
# Newton steps still this long where the slope is below the tolerance go on for ever; one this short over 1 + |z| is the
# last: where second derivatives vanish at the minimiser, slopes are small long before.
_LONG, _SHORT = 0.05, 1e-7
_HALVINGS = 20
# The weight of an end that counts for nothing: a power of 2, so that 1 over it times it is 1.
_NOTHING = 2.0**-600


@dataclass(frozen=True, eq=False)
class WeightedLoss:
    """Weight times a loss.

    Parameters
    ----------
    loss
        The loss.
    weight
        Weight, > 0.

    Raises
    ------
    ConfigError
        For values out of range.
    """

    loss: Loss
    weight: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", loss_of(self.loss))
        object.__setattr__(self, "weight", finite_float("weight", self.weight, above=0.0))

    @property
    def n_outputs(self) -> int:
        """C."""
        return self.loss.n_outputs

    @property
    def n_samples(self) -> int:
        """n."""
        return self.loss.n_samples

    @property
    def curvature(self) -> float:
        """Weight times that of the loss."""
        return self.weight * self.loss.curvature

    @property
    def labels(self) -> Labels | None:
        """Those of the loss."""
        return self.loss.labels

    def value(self, f: Array) -> float:
        """Weight times the loss of outputs (C, n)."""
        return self.weight * self.loss.value(f)

    def gradient(self, f: Array) -> Array:
        """Weight times its gradient."""
        return self.weight * self.loss.gradient(f)

    def predict(self, f: Array) -> Labels:
        """Classes of the loss."""
        return self.loss.predict(f)

    def describe(self) -> dict[str, Any]:
        """What determines the loss, for digests of runs."""
        return {"loss": "WeightedLoss", "of": self.loss, "weight": self.weight}


def with_end_weight(problem: Training, weight: float = 0.0) -> Training:
    """Return the same problem with e times the loss at the end, the running cost beta l kept.

    A loss that has a weight already gets the new one in its place.

    Parameters
    ----------
    problem
        Problem with tracking beta > 0.
    weight
        e >= 0; 0 is carried as 2^-600, which adds nothing in double precision.

    Raises
    ------
    ConfigError
        Without tracking, or for a weight out of range.
    """
    beta, weight = tracked(problem), finite_float("weight", weight, least=0.0) or _NOTHING
    loss = problem.loss
    if isinstance(loss, WeightedLoss):
        beta, loss = beta * loss.weight, loss.loss
    return replace(problem, loss=WeightedLoss(loss, weight), tracking=beta / weight)


def in_residual_form(problem: Training) -> Training:
    """Return a problem of a residual network as it is, that of a space-time network in its `residual_form`."""
    return residual_form(problem) if isinstance(problem.model, SpaceTimeNetwork) else problem


def tracked(problem: Training) -> float:
    """Return beta, or raise `ConfigError` where there is no tracking."""
    if not problem.tracking > 0.0:
        raise ConfigError(f"a turnpike needs a running cost: tracking must be > 0, got {problem.tracking!r}")
    return problem.tracking


@dataclass(frozen=True, eq=False)
class SteadyPair:
    """State and parameters at rest that minimise the running cost.

    Attributes
    ----------
    x, costate
        State and multiplier of v = 0, (d, n).
    parameters
        Trained parameters by name, each of its shape at one depth.
    outputs
        P x + c, (C, n).
    cost
        Running cost there.
    velocity_residual, slope_residual
        Norms of v, and of the derivatives of the running cost + <costate, v>.
    status, message
        finished or not_converged, and why.
    """

    x: Array
    costate: Array
    parameters: Mapping[str, Array]
    outputs: Array
    cost: float
    velocity_residual: float
    slope_residual: float
    status: Status
    message: str

    def raise_for_status(self) -> SteadyPair:
        """Return itself if the solver converged, else raise `NumericalError`."""
        if self.status is not Status.FINISHED:
            raise NumericalError(self.message)
        return self


def steady_pair(problem: Training, x: Any = None, *, tolerance: float = 1e-10, max_iterations: int = 100) -> SteadyPair:
    """Steady pair of a training problem with tracking, by Newton steps on its Lagrangian.

    Parameters
    ----------
    problem
        Problem with tracking, penalties `DepthL2`; a space-time network is taken in its `residual_form`.
    x
        State (d, n) to start from, by default the inputs. Where steady pairs form a manifold, as where P has a kernel,
        one near it is found.
    tolerance
        On both residuals, > 0.
    max_iterations
        Limit on Newton steps.

    Raises
    ------
    ConfigError
        For other problems or values out of range.
    """
    system = _System.of(problem)
    goal, limit = finite_float("tolerance", tolerance, above=0.0), positive_int("max_iterations", max_iterations)
    begin = system.start if x is None else finite_array("x", x, shape=system.model.shape)
    with blas_single_thread(), np.errstate(over="ignore", invalid="ignore"):
        # Where no velocity is left without parameters, every state is at rest and 0 the cheapest way to be so.
        if system.rests(begin):
            z, status, message = _newton(system.cost_slope, system.cost_bend, begin.ravel(), goal, limit)
            z = np.concatenate([z, np.zeros(system.n_parameters + begin.size)])
        else:
            free = np.concatenate([begin.ravel(), np.zeros(system.n_parameters + begin.size)])
            z, status, message = _newton(system.lagrange_slope, system.lagrange_bend, free, goal, limit)
    x, theta, p = system.split(z)
    slope = system.lagrange_slope(z)
    outputs = system.readout.forward(x)
    cost = system.beta * system.loss.value(outputs) + 0.5 * float(system.penalty @ theta**2)
    speed, rest = float(np.linalg.norm(slope[-x.size :])), float(np.linalg.norm(slope[: -x.size]))
    return SteadyPair(x, p, system.named(theta), outputs, cost, speed, rest, status, message)


def linearised(problem: Training, pair: SteadyPair) -> LinearQuadratic:
    """Linear-quadratic problem of small deviations from a steady pair; its `exponents` are those of the turnpike.

    A = dv/dx, B = dv/dtheta, and [[Q, S], [S^T, R]] the second derivatives of the running cost + <costate, v>.
    The state is x raveled, parameters follow each other in the order of `trained`.

    Parameters
    ----------
    problem
        As for `steady_pair`.
    pair
        Steady pair of the problem.

    Raises
    ------
    ConfigError
        For other problems; where the second derivatives in theta are not positive definite.
    NumericalError
        Where v has no derivatives: relu(W x + b) at its kink, as at theta = 0. There it moves states one way only, and
        deviations from that side have the exponents of the same problem with the identity for relu.
    """
    system = _System.of(problem)
    theta = np.concatenate([pair.parameters[name].ravel() for name in system.names])
    system.check_smooth(pair.x, theta)
    with blas_single_thread():
        a, b = system.jacobian(pair.x, theta)
        z = np.concatenate([pair.x.ravel(), theta, pair.costate.ravel()])
        bend = system.bend(z)
    n = pair.x.size
    return LinearQuadratic(a, b, bend[:n, :n], bend[n:, n:], bend[:n, n:])


@dataclass(frozen=True, eq=False)
class _System:
    """Velocity, running cost and their derivatives at one depth; z is (x, theta, costate), raveled."""

    model: ResidualNetwork
    start: Array
    loss: Loss
    readout: Readout
    beta: float
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    penalty: Array

    @classmethod
    def of(cls, problem: Training) -> _System:
        problem = in_residual_form(problem)
        model, names = problem.model, tuple(problem.trained or ())
        assert isinstance(model, ResidualNetwork)
        assert problem.readout is not None
        parts = [model.parameters[name] for name in names]
        shapes = tuple(part.shape for part in parts)
        for name, part in zip(names, parts, strict=True):
            if not isinstance(part, Controls):
                raise ConfigError(f"parameter {name!r} does not depend on depth: a turnpike has nothing to act on")
        for name, part in model.parameters.items():
            if name not in names and isinstance(part, Controls):
                raise ConfigError(f"parameter {name!r} depends on depth but is not trained: nothing is steady")
        penalty = [_penalty(problem, name, shape) for name, shape in zip(names, shapes, strict=True)]
        flat = np.concatenate(penalty) if penalty else np.empty(0)
        if not flat.size or not (flat > 0.0).all():
            raise ConfigError("a turnpike needs parameters that are trained, each under DepthL2 with a strength > 0")
        return cls(model, problem.initial(), problem.loss, problem.readout, tracked(problem), names, shapes, flat)

    @property
    def n_parameters(self) -> int:
        return len(self.penalty)

    def named(self, theta: Array) -> dict[str, Array]:
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        return {n: part.reshape(s) for n, part, s in zip(self.names, np.split(theta, ends), self.shapes, strict=True)}

    def split(self, z: Array) -> tuple[Array, Array, Array]:
        n, m = self.start.size, self.n_parameters
        shape = self.model.shape
        return z[:n].reshape(shape), z[n : n + m], z[n + m :].reshape(shape)

    def velocity(self, x: Array, theta: Array) -> Array:
        return self.model.velocity.with_parameters(**self.named(theta)).value(0.0, x)

    def pulled(self, x: Array, theta: Array, p: Array) -> tuple[Array, Array]:
        """(dv/dx)^T p and (dv/dtheta)^T p: what one Euler step of length 1 adds to a costate."""
        velocity = self.model.velocity.with_parameters(**self.named(theta))
        grid, moved = StepGrid(np.array([0.0, 1.0]), np.array([1])), p.copy()
        found = velocity.pull_back(EULER, grid, 0, 1, x[None, None].copy(), np.empty((0, 0, 0, 0)), moved)
        return (moved - p).ravel(), np.concatenate([found[name].ravel() for name in self.names])

    def rests(self, x: Array) -> bool:
        """Whether v vanishes at theta = 0, here and elsewhere."""
        zero, rng = np.zeros(self.n_parameters), np.random.default_rng(0)
        states = [x, *rng.standard_normal((2, *x.shape))]
        return not any(self.velocity(state, zero).any() for state in states)

    def check_smooth(self, x: Array, theta: Array) -> None:
        velocity = self.model.velocity.with_parameters(**self.named(theta))
        if velocity.form == "outside" and velocity.activation.name in ("relu", "leaky_relu"):
            w, b = velocity.at(0.0)
            if not np.abs(w @ x + b[:, None]).min() > 0.0:
                raise NumericalError(f"no linearisation: {velocity.activation.name}(W x + b) is at its kink")

    def jacobian(self, x: Array, theta: Array) -> tuple[Array, Array]:
        """A = dv/dx (N, N) and B = dv/dtheta (N, m), row by row."""
        rows = [self.pulled(x, theta, row.reshape(x.shape)) for row in np.eye(x.size)]
        return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])

    def cost_slope(self, flat: Array) -> Array:
        f = self.readout.forward(flat.reshape(self.model.shape))
        return np.asarray(self.beta * (self.readout.p.T @ self.loss.gradient(f))).ravel()

    def cost_bend(self, flat: Array) -> Array:
        return _derivative(self.cost_slope, flat)

    def lagrange_slope(self, z: Array) -> Array:
        """Derivatives of the running cost + <p, v> in x and theta, and v."""
        x, theta, p = self.split(z)
        by_x, by_theta = self.pulled(x, theta, p)
        return np.concatenate(
            [self.cost_slope(x.ravel()) + by_x, self.penalty * theta + by_theta, self.velocity(x, theta).ravel()]
        )

    def bend(self, z: Array) -> Array:
        """Second derivatives of the running cost + <p, v> in (x, theta)."""
        n, m = self.start.size, self.n_parameters
        if z[n + m :].any():
            return _derivative(lambda w: self.lagrange_slope(np.concatenate([w, z[n + m :]]))[: n + m], z[: n + m])
        out = np.diag(np.concatenate([np.zeros(n), self.penalty]))
        out[:n, :n] = self.cost_bend(z[:n])
        return out

    def lagrange_bend(self, z: Array) -> Array:
        x, theta, _ = self.split(z)
        rows = np.hstack(self.jacobian(x, theta))
        return np.block([[self.bend(z), rows.T], [rows, np.zeros((x.size, x.size))]])


def _penalty(problem: Training, name: str, shape: tuple[int, ...]) -> Array:
    """Second derivatives of the penalty of a parameter at one depth, raveled."""
    regularizer = problem.regularizers.get(name, Total(()))
    for term in regularizer.terms if isinstance(regularizer, Total) else (regularizer,):
        if not isinstance(term, DepthL2):
            raise ConfigError(f"steady pairs are those of DepthL2: parameter {name!r} has {term!r}")
    return np.asarray(regularizer.gradient(np.ones((1, *shape)), np.array([0.0, 1.0]))).ravel()


def _derivative(function: Callable[[Array], Array], at: Array) -> Array:
    """Symmetric matrix of derivatives of a gradient, by central differences of order 4."""
    columns = []
    for i in range(at.size):
        step = np.zeros(at.size)
        step[i] = _STEP * (1.0 + abs(at[i]))
        near, far = (function(at + k * step) - function(at - k * step) for k in (1, 2))
        columns.append((8.0 * near - far) / (12.0 * step[i]))
    found = np.array(columns)
    return np.asarray(0.5 * (found + found.T))


def _newton(
    slope: Callable[[Array], Array], bend: Callable[[Array], Array], z: Array, goal: float, limit: int
) -> tuple[Array, Status, str]:
    """Zero of a slope by Newton steps of least norm, halved where the slope would not fall."""
    value = slope(z)
    for _ in range(limit):
        step = np.linalg.lstsq(bend(z), -value, rcond=1e-13)[0]
        size = float(np.linalg.norm(value))
        length = float(np.linalg.norm(step))
        if size <= goal and length > _LONG:
            # log(1 + e^-x): the slope falls for ever, and steps stay as long as they are.
            return z, Status.NOT_CONVERGED, "the running cost has no minimiser: it falls on towards infinity"
        if size <= goal and length <= _SHORT * (1.0 + float(np.linalg.norm(z))):
            return z, Status.FINISHED, f"slopes below {goal:g}"
        for _ in range(_HALVINGS):
            trial = slope(z + step)
            if np.linalg.norm(trial) < size:
                break
            step = 0.5 * step
        else:
            status = Status.FINISHED if size <= goal else Status.NOT_CONVERGED
            return z, status, f"no Newton step lowers the slope {size:.3g}"
        z, value = z + step, trial
    return z, Status.NOT_CONVERGED, f"max_iterations reached: slope {np.linalg.norm(value):.3g}"
