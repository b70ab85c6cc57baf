"""Constraints that a network takes its inputs to targets, with the L2 norm of its parameters: what SQP asks of them.

    c(theta) = P x_s(T) - y_s (m of them),    A = dc/dtheta,    L = (1/2) int |theta|^2 + <lambda, c>

Rows of A and slopes of L are discrete adjoints of linear functions of the outputs. Flat vectors are those of L2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, shown
from meanfield.controls import Controls
from meanfield.errors import ConfigError
from meanfield.learning.training import Training
from meanfield.losses import Labels, Squared
from meanfield.planning import step_grid
from meanfield.regularizers import DepthL2, Regularizer
from meanfield.schemes import scheme as scheme_of

Array = NDArray[np.float64]

RANK = 1e-10
"""Singular values of A below this part of the largest count as zero."""


class ConstrainedPoint(NamedTuple):
    """Parameters with their constraints.

    Attributes
    ----------
    flat
        Flat vector (N,).
    c, jacobian
        c (m,) and A (m, N).
    norm, slope
        (1/2) int |theta|^2 and its gradient (N,).
    multipliers
        lambda (m,).
    """

    flat: Array
    c: Array
    jacobian: Array
    norm: float
    slope: Array
    multipliers: Array

    @property
    def residual(self) -> float:
        """|dL/dtheta|."""
        return float(np.linalg.norm(self.slope + self.multipliers @ self.jacobian))

    @property
    def violation(self) -> float:
        """Largest |c|."""
        return float(np.abs(self.c).max())

    @property
    def size(self) -> float:
        """Root of the squares of |dL/dtheta| and |c|: 0 at solutions."""
        return float(np.hypot(self.residual, np.linalg.norm(self.c)))


@dataclass(frozen=True, eq=False)
class _Pairing:
    """The linear function <lambda, f - y> of outputs, as a loss."""

    weights: Array
    y: Array

    @property
    def n_outputs(self) -> int:
        return int(self.y.shape[0])

    @property
    def n_samples(self) -> int:
        return int(self.y.shape[1])

    @property
    def curvature(self) -> float:
        return 0.0

    @property
    def labels(self) -> Labels | None:
        return None

    def value(self, f: Array) -> float:
        return float((self.weights * (f - self.y)).sum())

    def gradient(self, f: Array) -> Array:  # noqa: ARG002 (every loss has one)
        return self.weights.copy()

    def predict(self, f: Array) -> Labels:
        raise ConfigError(f"predict needs a loss of classes, got outputs {f.shape}")

    def describe(self) -> dict[str, Any]:
        return {"loss": "pairing", "weights": self.weights, "y": self.y}


@dataclass(frozen=True, eq=False)
class EndConstraints:
    """Constraints on the end of a network.

    Attributes
    ----------
    problem
        Network, inputs, steps and readout in the coordinates of L2, without regularisers.
    targets
        y (C, n).
    count
        Passes forward and back so far, a list of one number.
    """

    problem: Training
    targets: Array
    count: list[int]

    @classmethod
    def of(cls, problem: Training, targets: Any = None) -> Self:
        """Constraints of the network of a training problem, whose loss and regularisers play no role.

        Parameters
        ----------
        problem
            The problem; all that is trained must depend on depth.
        targets
            y, (C, n) or (n,); None takes those of a `Squared` loss.

        Raises
        ------
        ConfigError
            For other parameters, tracking, or targets of another shape.
        """
        if targets is None:
            if not isinstance(problem.loss, Squared):
                raise ConfigError(f"targets must be given where the loss has none, {type(problem.loss).__name__}")
            targets = problem.loss.y
        y = finite_array("targets", targets)
        wanted = problem.loss.n_outputs, problem.loss.n_samples
        if y.shape not in (wanted, wanted[1:]) or (y.ndim == 1 and wanted[0] != 1):
            raise ConfigError(f"targets has shape {y.shape}, expected {wanted}")
        if problem.tracking:
            raise ConfigError(f"tracking must be 0: interpolation looks at the end only, got {problem.tracking}")
        trained = set(problem.trained or ())
        fixed = [name for name, _ in problem.pieces() if not isinstance(problem.model.parameters.get(name), Controls)]
        if fixed or not trained:
            raise ConfigError(f"all that is trained must depend on depth, got {shown(fixed or 'nothing')}")
        return cls(replace(problem, regularizers={}, coordinates="l2"), np.ascontiguousarray(np.atleast_2d(y)), [0])

    def penalties(self, strength: float) -> dict[str, Regularizer]:
        """Strength times int |theta|^2, by name of a parameter."""
        model, names = self.problem.model, self.problem.trained or ()
        return {name: DepthL2(strength, model.label_weights(name)) for name in names}

    def lagrangian(self, multipliers: Array) -> Callable[[Array], tuple[float, Array]]:
        """(1/2) int |theta|^2 + <lambda, c> with its gradient, as a function of flat vectors."""
        loss = _Pairing(multipliers.reshape(self.targets.shape), self.targets)
        return self._counted(replace(self.problem, loss=loss, regularizers=self.penalties(0.5)))

    def augmented(self, multipliers: Array, rho: float) -> Training:
        """The augmented Lagrangian over n rho, up to a constant."""
        n = self.targets.shape[1]
        loss = Squared(self.targets - multipliers.reshape(self.targets.shape) / rho)
        return replace(self.problem, loss=loss, regularizers=self.penalties(0.5 / (n * rho)))

    def _counted(self, problem: Training) -> Callable[[Array], tuple[float, Array]]:
        def objective(flat: Array) -> tuple[float, Array]:
            self.count[0] += 1
            return problem.objective(flat)

        return objective

    def constraints(self, flat: Array) -> Array:
        """c (m,), outputs less targets."""
        model, readout = self.problem.unpack(flat)
        grid = step_grid(model, self.problem.t_span, n_steps=self.problem.n_steps)
        y, out = self.problem.initial(flat), np.empty(self.problem.model.shape)
        model.advance(scheme_of(self.problem.scheme), grid, 0, grid.n_steps, y, out)
        return np.ravel(readout.forward(self.problem.columns(out)) - self.targets)

    def merit(self, flat: Array, nu: float) -> float:
        """(1/2) int |theta|^2 + nu |c|."""
        parts = self.problem.unpack(flat)[0].parameters
        with np.errstate(over="ignore", invalid="ignore"):  # steps that leave the finite numbers are shortened
            total = nu * float(np.linalg.norm(self.constraints(flat)))
            for name, penalty in self.penalties(0.5).items():
                part = parts[name]
                assert isinstance(part, Controls)
                total += penalty.value(part.values, part.knots, part.interpolation)
        return total

    def point(self, flat: Array, multipliers: Array | None = None) -> ConstrainedPoint:
        """All there is to know at a flat vector; without multipliers, those of least squares."""
        rows = []
        for i in range(self.targets.size):
            unit = np.zeros(self.targets.shape)
            unit.flat[i] = 1.0
            loss = _Pairing(unit, self.targets)
            rows.append(self._counted(replace(self.problem, loss=loss, regularizers={}))(flat)[1])
        jacobian = np.array(rows)
        norm, slope = self.lagrangian(np.zeros(self.targets.size))(flat)
        if multipliers is None:
            multipliers = np.asarray(-np.linalg.lstsq(jacobian.T, slope, rcond=RANK)[0], dtype=np.float64)
        return ConstrainedPoint(flat, self.constraints(flat), jacobian, norm, slope, multipliers)
