"""Discrete adjoint: the gradient of an objective in initial state and parameters, of the scheme actually run.

    J = Phi(y(T)) + int r(t, y) dt        (the integral by the weights of the scheme's own stages)

Steps are written down stage by stage and pulled back in the reverse order, so the gradient is that of the
numbers computed, to round-off, whatever the step. With K checkpoints only a K-th of the steps is
held at a time, for one more forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import SMALL, available_bytes, check_memory, finite_array, positive_int
from meanfield.controls import Controls
from meanfield.errors import ConfigError, NumericalError
from meanfield.parallel import blas_single_thread, blocks
from meanfield.planning import step_grid
from meanfield.schemes import RK4, Scheme, StepGrid
from meanfield.schemes import scheme as scheme_of

Array = NDArray[np.float64]
Terminal = Callable[[Array], tuple[float, Array]]
Running = Callable[[float, Array], tuple[float, Array]]


@dataclass(frozen=True, eq=False)
class Gradient:
    """Value of an objective with its gradient.

    Attributes
    ----------
    value
        J.
    state
        dJ/dy0, the costate at the start.
    parameters
        Name -> dJ/dtheta, of the shape of the array or of the values of the `Controls`.
    final
        y(T).
    """

    value: float
    state: Array
    parameters: Mapping[str, Array]
    final: Array

    def in_l2(self, model: Any) -> dict[str, Array]:
        """Gradients of the products of L2 over depth and labels, which depend neither on layers nor on neurons.

        dJ/dtheta_k over the depth that theta_k stands for and, of a space-time network, over the weights of its labels.
        """
        return {name: part / parameter_weights(model, name) for name, part in self.parameters.items()}


def parameter_weights(model: Any, name: str) -> Array:
    """Weights of the values of a parameter in the products of L2 over depth and labels, to broadcast to their shape.

    A value stands for the length of its layer or, of piecewise linear controls, half of those of both its neighbours.
    """
    part, weights = model.parameters[name], np.asarray(model.label_weights(name))
    if not isinstance(part, Controls):
        return weights
    steps = np.diff(part.knots)
    if part.interpolation == "linear":
        steps = 0.5 * (np.append(steps, 0.0) + np.insert(steps, 0, 0.0))
    return np.asarray(steps.reshape(-1, *(1 for _ in part.shape)) * weights)


def adjoint(
    model: Any,
    y0: Any,
    t_span: tuple[float, float],
    *,
    terminal: Terminal,
    running: Running | None = None,
    scheme: str | Scheme | None = None,
    dt: float | None = None,
    n_steps: int | None = None,
    checkpoints: int | None = None,
) -> Gradient:
    """Objective and gradient of a model by its discrete adjoint.

    Parameters
    ----------
    model
        A model with ``write_down`` and ``pull_back`` (`ResidualNetwork`, `SpaceTimeNetwork`).
    y0
        Initial state, of the model's shape.
    t_span
        (t0, T).
    terminal
        ``Phi(y) -> (value, gradient)`` with the gradient of the shape of y.
    running
        ``r(t, y) -> (value, gradient)``; None is no running cost.
    scheme, dt, n_steps
        Fixed steps as for `integrate`; RK4 by default.
    checkpoints
        Number of pieces K into which the steps are cut; memory is that of K states and of the stages of 1/K of
        the steps, least about the square root of the number of stages. None holds everything where a quarter of the
        free memory is enough for it, else takes the square root.

    Raises
    ------
    ConfigError
        For a model without an adjoint, shapes that differ, or steps that cannot be.
    NumericalError
        If the state or the objective is not finite.
    """
    if not hasattr(model, "pull_back"):
        raise ConfigError(f"{type(model).__name__} has no adjoint")
    if getattr(model, "stochastic", False):
        raise ConfigError("a discrete adjoint is that of steps without noise: nu must be 0")
    state = finite_array("y0", y0, shape=tuple(model.shape))
    if dt is None and n_steps is None:
        raise ConfigError("a discrete adjoint is that of fixed steps: give dt or n_steps")
    chosen = RK4 if scheme is None else scheme_of(scheme)
    grid = step_grid(model, t_span, dt=dt, n_steps=n_steps)
    pieces = _pieces(grid.n_steps, chosen.n_stages, state.size, checkpoints)
    with blas_single_thread():
        starts = [state]
        for first, last in pieces[:-1]:
            out = np.empty_like(state)
            model.advance(chosen, grid, first, last - first, starts[-1], out)
            starts.append(out)
        return _backward(model, chosen, grid, pieces, starts, terminal, running)


def _backward(
    model: Any,
    scheme: Scheme,
    grid: StepGrid,
    pieces: list[tuple[int, int]],
    starts: list[Array],
    terminal: Terminal,
    running: Running | None,
) -> Gradient:
    """Write down and pull back piece by piece, the last one first."""
    value, p, final = 0.0, np.empty(0), starts[-1]
    gradients: dict[str, Array] = {}
    for (first, last), start in zip(reversed(pieces), reversed(starts), strict=True):
        out = np.empty_like(start)
        stages = model.write_down(scheme, grid, first, last - first, start, out)
        if not p.size:
            final = out
            if not np.isfinite(final).all():
                raise NumericalError(f"the state is no longer finite at t={grid.time(last)!r}")
            cost, gradient = terminal(final)
            p = finite_array("gradient of the terminal cost", gradient, shape=final.shape).copy()
            value += float(cost)
        cost, sources = _running(running, scheme, grid, first, last, stages)
        value += cost
        for name, part in model.pull_back(scheme, grid, first, last - first, stages, sources, p).items():
            gradients[name] = gradients[name] + part if name in gradients else part
        del stages, sources  # before the next piece is written down
    if not np.isfinite(value):
        raise NumericalError(f"the objective is {value}")
    for name, part in {"the state": p, **gradients}.items():
        if not np.isfinite(part).all():
            raise NumericalError(f"the gradient in {name} is not finite")
    return Gradient(value, p, gradients, final)


def _running(
    running: Running | None, scheme: Scheme, grid: StepGrid, first: int, last: int, stages: Array
) -> tuple[float, Array]:
    """Running cost of a piece and its gradients at the stages; empty without one."""
    if running is None:
        return 0.0, np.empty((0, 0, 0, 0))
    times, lengths = grid.steps(scheme, first, last - first)
    total, sources = 0.0, np.empty_like(stages)
    for k, row in enumerate(times.tolist()):
        for i, t in enumerate(row):
            cost, gradient = running(t, stages[k, i])
            sources[k, i] = finite_array("gradient of the running cost", gradient, shape=stages[k, i].shape)
            total += float(lengths[k] * scheme.b[i]) * float(cost)
    return total, sources


def _pieces(n_steps: int, n_stages: int, size: int, checkpoints: int | None) -> list[tuple[int, int]]:
    if n_steps == 0:
        raise ConfigError("t_span must have a length > 0")
    if checkpoints is None:
        whole = 8 * n_steps * n_stages * size
        if whole <= SMALL or whole < available_bytes() // 4:
            return [(0, n_steps)]
        count = round(np.sqrt(n_steps * n_stages))
    else:
        count = positive_int("checkpoints", checkpoints)
    length = -(-n_steps // min(count, n_steps))
    check_memory(f"{length} steps of {n_stages} stages", 8 * size * (length * n_stages + count))
    return blocks(n_steps, length)
