"""Which steps an integration takes: arguments checked, step grids, save times, and the stepper that takes them.

Fixed steps land on breakpoints and save times; a model with a CFL condition brings the longest steps it allows, one
given layer by layer its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, finite_float, positive_int
from meanfield.errors import ConfigError
from meanfield.models.function import FunctionModel
from meanfield.recorder import AnyStepper
from meanfield.schemes import DORMAND_PRINCE, EULER, RK4, Scheme, StepGrid
from meanfield.schemes import scheme as scheme_of
from meanfield.steppers import AdaptiveStepper, FixedStepper, LayeredStepper, LimitedStepper, cfl_words

Array = NDArray[np.float64]

# Limits of steps that are sampled are trusted for so many steps; beyond so many intervals they are as they are.
_FEW_STEPS, _MANY_EDGES = 8, 2**16


@dataclass(frozen=True)
class Plan:
    """A model, what steps through it, and the span of depths."""

    model: Any
    stepper: AnyStepper
    t0: float
    t1: float

    @property
    def adaptive(self) -> bool:
        """Whether the lengths of steps are found on the way."""
        return isinstance(self.stepper, AdaptiveStepper)


def plan_steps(
    model: Any,
    y0: Any,
    t_span: tuple[float, float],
    scheme: str | Scheme | None,
    dt: float | None,
    n_steps: int | None,
    rtol: float | None,
    atol: float | None,
    save_at: Any = None,
) -> Plan:
    """Check the arguments of `integrate` and build the stepper."""
    if hasattr(model, "step") and hasattr(model, "n_layers"):
        own = {"scheme": scheme, "dt": dt, "n_steps": n_steps, "rtol": rtol, "atol": atol}
        return _layered_plan(model, y0, t_span, own)
    if not hasattr(model, "rate"):
        if not callable(model):
            raise ConfigError(f"model must have rate(t, y, out) or be a callable f(t, y), got {model!r}")
        model = FunctionModel(model, np.shape(y0))
    state = finite_array("y0", y0)
    if state.shape != tuple(model.shape):
        raise ConfigError(f"y0 has shape {state.shape}, but the model's state has shape {tuple(model.shape)}")
    if hasattr(model, "check"):
        model.check(state)
    t0, t1 = _span(t_span)
    edges = _edges(model, t0, t1)
    t0, t1 = float(edges[0]), float(edges[-1])
    fixed = dt is not None or n_steps is not None
    if hasattr(model, "step_limits"):
        if rtol is not None or atol is not None:
            raise ConfigError("rtol and atol belong to adaptive steps; this model takes steps under its CFL condition")
        landing = _requested_times(save_at, t0, t1)
        return Plan(model, _under_limits(model, scheme, edges, dt, n_steps, landing, state), t0, t1)
    free = not fixed and rtol is None and atol is None and (scheme is None or scheme_of(scheme).name == "euler")
    if free and getattr(model, "steps_by_limit", False):
        landing = np.unique(np.concatenate([edges, _requested_times(save_at, t0, t1)]))
        if len(landing) > 1:
            return Plan(model, LimitedStepper(model, landing, state), t0, t1)
        return Plan(model, FixedStepper(model, EULER, _uniform(edges, None, 1), state), t0, t1)
    stochastic = bool(getattr(model, "stochastic", False))
    if stochastic and not fixed:
        raise ConfigError("a model with noise takes fixed steps: give dt or n_steps")
    default = EULER if stochastic else RK4 if fixed else DORMAND_PRINCE
    chosen = default if scheme is None else scheme_of(scheme)
    if stochastic and chosen.n_stages > 1:
        raise ConfigError(f"scheme {chosen.name} does not apply to a model with noise: take euler (Euler-Maruyama)")
    if not fixed:
        if not chosen.adaptive:
            raise ConfigError(f"scheme {chosen.name} has no error estimate: give dt or n_steps")
        r = finite_float("rtol", 1e-6 if rtol is None else rtol, above=0.0)
        a = finite_float("atol", 1e-3 * r if atol is None else atol, above=0.0)
        if t0 == t1:
            return Plan(model, FixedStepper(model, chosen, _uniform(edges, None, 1), state), t0, t1)
        return Plan(model, AdaptiveStepper(model, chosen, edges, state, r, a), t0, t1)
    if rtol is not None or atol is not None:
        raise ConfigError("rtol and atol belong to adaptive steps; with dt or n_steps the step is fixed")
    return Plan(model, FixedStepper(model, chosen, _uniform(edges, dt, n_steps), state), t0, t1)


def step_grid(
    model: Any, t_span: tuple[float, float], *, dt: float | None = None, n_steps: int | None = None
) -> StepGrid:
    """Fixed steps that `integrate` would take over a span, landing on the breakpoints of the model.

    Arguments and errors as for `integrate`.
    """
    t0, t1 = _span(t_span)
    return _uniform(_edges(model, t0, t1), dt, n_steps)


def _edges(model: Any, t0: float, t1: float) -> Array:
    """Ends of the span and the breakpoints between them."""
    inner = np.asarray(model.breakpoints, dtype=np.float64)
    slack = 4.0 * math.ulp(max(abs(t0), abs(t1)))
    near = np.diff(inner) <= slack
    if near.any():
        k = int(np.argmax(near))
        raise ConfigError(
            f"breakpoints {float(inner[k])!r} and {float(inner[k + 1])!r} differ by rounding only: give parameters "
            "on the same layers the same knots"
        )
    # A breakpoint within rounding of an end is that end: no step fits between, and stages lie on its right side.
    ends = [float(inner[np.abs(inner - t) <= slack][0]) if (np.abs(inner - t) <= slack).any() else t for t in (t0, t1)]
    if not ends[0] < ends[1]:
        ends = [t0, t1]
    return np.concatenate([ends[:1], inner[(ends[0] < inner) & (inner < ends[1])], ends[1:]])


def _span(t_span: tuple[float, float]) -> tuple[float, float]:
    try:
        first, last = t_span
    except (TypeError, ValueError):
        raise ConfigError(f"t_span must be a pair (t0, T), got {t_span!r}") from None
    t0, t1 = finite_float("t0", first), finite_float("T", last)
    if t1 < t0:
        words = "backward problems have solvers of their own"
        raise ConfigError(f"t_span must not run backwards: T = {t1!r} < t0 = {t0!r}; {words}")
    return t0, t1


def _layered_plan(model: Any, y0: Any, t_span: tuple[float, float], own: Mapping[str, Any]) -> Plan:
    """Find the layers between two depths of a layered network."""
    given = [name for name, value in own.items() if value is not None]
    if given:
        raise ConfigError(f"{given[0]} = {own[given[0]]!r} does not apply: the layers of the network are its steps")
    t0, t1 = _span(t_span)
    depths = np.asarray(model.depths)
    slack = 1e-8 * float(np.diff(depths).min())
    for name, t in (("t0", t0), ("T", t1)):
        if not depths[0] - slack <= t <= depths[-1] + slack:
            raise ConfigError(f"{name} = {t!r} lies outside the depths [{depths[0]!s}, {depths[-1]!s}] of the network")
    grid = StepGrid(depths, np.ones(model.n_layers, dtype=np.int64))
    first, last = _step_at(grid, t0, "t0"), _step_at(grid, t1, "T")
    stepper = LayeredStepper(model, first, last, model.initial(first, y0))
    return Plan(model, stepper, float(depths[first]), float(depths[last]))


def _under_limits(
    model: Any,
    scheme: str | Scheme | None,
    edges: Array,
    dt: float | None,
    n_steps: int | None,
    landing: Array,
    y: Array,
) -> FixedStepper:
    """Steps under the CFL condition of a model: as long as it allows, or those given if they are short enough."""
    names: tuple[str, ...] = model.schemes
    chosen = scheme_of(names[0] if scheme is None else scheme)
    if chosen.name not in names:
        raise ConfigError(f"scheme {chosen.name} does not keep this model's state positive; take {' or '.join(names)}")
    if edges[0] == edges[-1]:
        return FixedStepper(model, chosen, _uniform(edges, None, 1), y)
    if dt is None and n_steps is None:
        edges, limits = _settled(model, np.unique(np.concatenate([edges, landing])))
        with np.errstate(divide="ignore"):
            counts = np.maximum(np.ceil(np.diff(edges) / limits * (1.0 - 1e-12)), 1.0)
        if not counts.sum() <= 2.0**53:
            raise ConfigError(
                f"the model is too fast: steps under its CFL condition are {float(limits.min()):.3g} long"
            )
        return FixedStepper(model, chosen, StepGrid(edges, counts.astype(np.int64)), y)
    grid = _uniform(edges, dt, n_steps)
    if grid.n_steps:
        limits = model.step_limits(edges)
        lengths = np.diff(edges) / grid.counts
        worst = int(np.argmax(lengths / limits))
        if lengths[worst] > limits[worst] * (1.0 + 1e-12):
            raise ConfigError(cfl_words(float(lengths[worst]), float(limits[worst])))
    return FixedStepper(model, chosen, grid, y)


def _settled(model: Any, edges: Array) -> tuple[Array, Array]:
    """Edges and limits of steps; where limits come from samples, edges so close that a few steps fill an interval."""
    if model.certain:
        return edges, model.step_limits(edges)
    edges = _halved(edges, np.ones(len(edges) - 1, dtype=bool), 16)
    while True:
        limits = model.step_limits(edges)
        coarse = np.diff(edges) > _FEW_STEPS * limits
        if not coarse.any() or len(edges) > _MANY_EDGES:
            return edges, limits
        edges = _halved(edges, coarse, 2)


def _halved(edges: Array, chosen: NDArray[np.bool_], parts: int) -> Array:
    """Edges with the chosen intervals cut into equal parts."""
    inner = edges[:-1][chosen, None] + np.diff(edges)[chosen, None] * (np.arange(1, parts) / parts)
    return np.unique(np.concatenate([edges, inner.ravel()]))


def _uniform(edges: Array, dt: float | None, n_steps: int | None) -> StepGrid:
    """Cut each interval between breakpoints into steps of the same length."""
    if dt is not None and n_steps is not None:
        raise ConfigError("give dt or n_steps, not both")
    span = float(edges[-1] - edges[0])
    step = finite_float("dt", dt, above=0.0) if n_steps is None else span / positive_int("n_steps", n_steps)
    if span == 0.0:
        return StepGrid(edges, np.zeros(1, dtype=np.int64))
    if span / step > 2**53:
        raise ConfigError(f"dt = {step!r} is too small for an interval of length {span!r}")
    lengths = np.diff(edges)
    counts = np.maximum(np.rint(lengths / step), 1.0)
    off = np.abs(counts * step - lengths) > 1e-9 * lengths + 4 * np.spacing(np.abs(edges).max())
    if off.any():
        k = int(np.argmax(off))
        length = float(lengths[k])
        lower = max(math.floor(length / step), 1)
        raise ConfigError(
            f"dt = {step!r} does not divide the interval [{float(edges[k])!r}, {float(edges[k + 1])!r}] between "
            f"breakpoints; nearest valid values: {length / lower!r} and {length / (lower + 1)!r}"
        )
    return StepGrid(edges, counts.astype(np.int64))


def _requested_times(save_at: Any, t0: float, t1: float) -> Array:
    """Save times asked for, increasing within the span."""
    if save_at is None:
        return np.unique([t0, t1])
    if np.ndim(save_at) == 0:
        n = positive_int("save_at", save_at)
        check_memory(f"{n} save times", 24 * n)
        times = t0 + (t1 - t0) * np.arange(n + 1) / n
        times[-1] = t1
        return np.asarray(times)
    times = finite_array("save_at", save_at, shape=(None,))
    if (np.diff(times) <= 0).any() or (len(times) and not t0 <= times[0] <= times[-1] <= t1):
        raise ConfigError(f"save_at must increase strictly within [{t0!r}, {t1!r}]")
    return times


def save_times(save_at: Any, plan: Plan) -> tuple[Array, NDArray[np.int64] | None]:
    """Save times and, for fixed steps, the steps after which they fall."""
    times = _requested_times(save_at, plan.t0, plan.t1)
    stepper = plan.stepper
    if isinstance(stepper, AdaptiveStepper):
        return times, None
    targets = np.array([_step_at(stepper.grid, t) for t in times.tolist()], dtype=np.int64)
    return times, targets


def _step_at(grid: StepGrid, t: float, name: str = "save time") -> int:
    """Step after which a save time falls, or an error that names the nearest times of the step grid."""
    step, dt = grid.near(t)
    if abs(grid.time(step) - t) <= 1e-8 * dt + 4 * math.ulp(abs(t)):
        return step
    raise ConfigError(
        f"{name} {t!r} is not on the step grid of dt = {dt!r}; "
        f"nearest valid values: {grid.time(step)!r} and {grid.time(step + 1)!r}"
    )
