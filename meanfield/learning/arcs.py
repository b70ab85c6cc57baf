"""What trained layers show of a turnpike: distances from a steady pair over depth, and the kind of their arcs.

An optimum over a long T comes to a steady pair on one arc and leaves it on another. `Course` measures states, outputs,
costs and parameters along the layers, `classify_arcs` says what a quantity does: decay exponentially, algebraically, to
0 in finite time, or jump, with a penalty that is paid in an impulse at the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array
from meanfield.controls import Controls
from meanfield.diagnostics.decay import Decay, classify_decay
from meanfield.diagnostics.rates import fit_rate
from meanfield.errors import ConfigError
from meanfield.learning.training import Network, Training
from meanfield.learning.turnpike import SteadyPair, in_residual_form, tracked
from meanfield.parallel import blas_single_thread
from meanfield.planning import step_grid
from meanfield.regularizers import regularizer_of
from meanfield.schemes import scheme as scheme_of

Array = NDArray[np.float64]

_CONCENTRATED = 0.9
# Powers of h above it do not tend to 0: impulses have 1/2 and 1.
_IMPULSE = 0.25


@dataclass(frozen=True, eq=False)
class Course:
    """States, outputs, costs and parameters along the layers of a network; made by `along`.

    Attributes
    ----------
    t
        Ends of the steps t_0 .. T, (S + 1,).
    x, outputs
        States (S + 1, d, n) and P x + c (S + 1, C, n).
    running
        beta l at the ends of the steps, (S + 1,).
    knots
        Ends of the layers, (K + 1,).
    theta
        Trained parameters of every layer in one row, (K, m).
    penalty
        Penalty of every layer over its length, (K,).
    """

    t: Array
    x: Array
    outputs: Array
    running: Array
    knots: Array
    theta: Array
    penalty: Array

    @classmethod
    def along(cls, problem: Training, model: Network | None = None) -> Course:
        """Course of a network, by default that of the problem; a space-time network in its `residual_form`.

        Raises
        ------
        ConfigError
            For problems without tracking, trained parameters that are not piecewise constant on one grid of layers, or
            penalties that do not add up over layers.
        """
        problem = in_residual_form(problem if model is None else replace(problem, model=model))
        model, readout, beta, names = problem.model, problem.readout, tracked(problem), problem.trained or ()
        assert readout is not None
        parts: list[Any] = [model.parameters[name] for name in names]
        layered = [isinstance(part, Controls) and part.interpolation == "constant" for part in parts]
        if not parts or not all(layered) or any(not np.array_equal(p.knots, parts[0].knots) for p in parts):
            raise ConfigError("trained parameters must be piecewise constant on one grid of layers")
        grid, knots = step_grid(model, problem.t_span, n_steps=problem.n_steps), parts[0].knots
        x = np.empty((grid.n_steps + 1, *model.shape))
        x[0] = problem.initial()
        with blas_single_thread():
            x[:-1] = model.write_down(scheme_of(problem.scheme), grid, 0, grid.n_steps, x[0], x[-1])[:, 0]
        theta = np.hstack([part.values.reshape(len(knots) - 1, -1) for part in parts])
        outputs = np.array([readout.forward(state) for state in x])
        running = beta * np.array([problem.loss.value(f) for f in outputs])
        t = np.array([grid.time(k) for k in range(grid.n_steps + 1)])
        return cls(t, x, outputs, running, knots, theta, _penalties(problem, dict(zip(names, parts, strict=True))))

    def state_distance(self, pair: SteadyPair) -> Array:
        """|x - x_bar|, the root of the mean over samples, (S + 1,)."""
        return _rms(self.x - pair.x)

    def output_distance(self, pair: SteadyPair) -> Array:
        """|P x + c - f_bar|, the root of the mean over samples, (S + 1,)."""
        return _rms(self.outputs - pair.outputs)

    def control_distance(self, pair: SteadyPair) -> Array:
        """|theta - theta_bar| of every layer, (K,)."""
        bar = np.concatenate([part.ravel() for part in pair.parameters.values()])
        return np.asarray(np.linalg.norm(self.theta - bar, axis=1))

    @cached_property
    def energy_gap(self) -> Array:
        """Lam |theta|^2 - beta (l(x(t)) - l(x(T))) at the starts of the layers, (K,).

        0 in the limit of many layers where v is homogeneous of degree 1 in theta and nothing is counted at the end;
        Euler layers leave O(h).
        """
        return np.asarray(self.penalty - (np.interp(self.knots[:-1], self.t, self.running) - self.running[-1]))

    @cached_property
    def concentration(self) -> Concentration:
        """Where over depth the penalty is paid."""
        paid = np.diff(self.knots) * self.penalty
        total = float(paid.sum())
        if not total > 0.0:
            return Concentration(0.0, 0.0)
        sums = np.concatenate([[0.0], np.cumsum(paid)]) / total
        depth = float(np.interp(_CONCENTRATED, sums, self.knots)) - float(self.knots[0])
        return Concentration(float(paid[0]) / total, depth)


def _penalties(problem: Training, parts: Mapping[str, Controls]) -> Array:
    """Penalty of every layer over its length, (K,)."""
    paid: Array | float = 0.0
    for name, part in parts.items():
        regularizer, knots, values = regularizer_of(problem.regularizers.get(name)), part.knots, part.values
        each = np.array([regularizer.value(values[k : k + 1], knots[k : k + 2]) for k in range(len(values))])
        whole = regularizer.value(values, knots)
        if not abs(float(each.sum()) - whole) <= 1e-9 * (1.0 + abs(whole)):
            raise ConfigError(f"the penalty of {name!r} is not a sum over layers: {regularizer!r}")
        paid = paid + each / np.diff(knots)
    return np.asarray(paid)


class Concentration(NamedTuple):
    """Share of the penalty that the first layer pays, and the depth over which nine tenths of it are paid."""

    first: float
    depth: float


def impulse_power(courses: Sequence[Course]) -> float:
    """Power of h with which the depth over which nine tenths of the penalty are paid shrinks with the layers.

    It tends to 0 for finer layers where the infimum is attained, and does not where the penalty is paid in an impulse.

    Parameters
    ----------
    courses
        Optima of one problem for two or more numbers of layers.

    Raises
    ------
    ConfigError
        For fewer, or without any penalty.
    """
    lengths = [float(np.diff(course.knots).mean()) for course in courses]
    return fit_rate(lengths, [course.concentration.depth for course in courses]).slope


def _rms(deviations: Array) -> Array:
    """Norm over components, root of the mean over samples, at every depth."""
    return np.asarray(np.sqrt((deviations**2).sum(axis=1).mean(axis=1)))


@dataclass(frozen=True)
class Arcs:
    """What a quantity does on the arc into the turnpike, and on the one out of it.

    Attributes
    ----------
    entering, leaving
        Kinds of decay, the second one backwards from T; None where nothing rises towards the end.
    kind
        That of the arc in, or ``concentrated``.
    sentence
        What was seen.
    """

    entering: Decay
    leaving: Decay | None
    kind: str
    sentence: str


def classify_arcs(
    t: Any,
    values: Any,
    *,
    quantity: str = "|x - x_bar|",
    window: tuple[float, float] = (0.1, 0.5),
    power: float = 0.0,
    resolution: float = 0.1,
) -> Arcs:
    """Kind of approach to the turnpike: exponential, algebraic, finite-time, concentrated, none or undecided.

    Parameters
    ----------
    t, values
        Depths and sizes of a quantity, (K,).
    quantity
        Its name: what decays at mu has squares that decay at 2 mu.
    window
        Parts of the depth between which the arc in is looked at; the arc out is in the mirror image.
    power
        `impulse_power` of layers fine enough to resolve the arcs: above 1/4 an impulse is said before all.
    resolution
        As for `classify_decay`.

    Raises
    ------
    ConfigError
        For a window that is not inside [0, 1], and as `classify_decay`.
    """
    t, values = finite_array("t", t, shape=(None,)), finite_array("values", values)
    low, high = window
    if not 0.0 <= low < high <= 1.0:
        raise ConfigError(f"window must be two parts 0 <= low < high <= 1, got {window}")
    place = (t - t[0]) / (t[-1] - t[0])
    into = (place >= low) & (place <= high)
    entering = classify_decay(t[into], values[into], resolution=resolution)
    out = (place >= 1.0 - high) & (place <= 1.0 - low)
    leaving = None
    if values[out][-1] > 2.0 * values[out][0]:
        leaving = classify_decay((t[-1] - t[out])[::-1], values[out][::-1], resolution=resolution)
    if power > _IMPULSE:
        sentence = f"not exponential: nine tenths of the penalty are paid over h^{power:.3g}, an impulse in the limit"
        return Arcs(entering, leaving, "concentrated", sentence)
    return Arcs(entering, leaving, entering.kind, _sentence(quantity, entering, leaving))


def _sentence(quantity: str, entering: Decay, leaving: Decay | None) -> str:
    if entering.kind == "exponential":
        said = f"{quantity} decays exponentially, at {entering.value:.5g}; squares at {2 * entering.value:.5g}"
        if leaving is not None and leaving.kind == "exponential":
            said += f"; it leaves at {leaving.value:.5g}"
        return said
    if entering.kind == "undecided":
        return f"undecided, {quantity}: {entering.reason}"
    words = {
        "algebraic": f"{quantity} decays as t^-{entering.value:.4g}",
        "finite-time": f"{quantity} is extinct at t = {entering.value:.4g}",
        "none": f"{quantity} does not decay",
    }
    return f"not exponential: {words[entering.kind]}"
