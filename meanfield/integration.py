"""The time loop: everything that evolves in depth or in training time goes through here.

    y' = f(t, y),   y(t0) = y0

by fixed steps (a step is a layer) or adaptive ones. The loop lands exactly on
breakpoints, on the end and, with fixed steps, on the save times; what is saved or
watched never changes the trajectory.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, finite_float, positive_int
from meanfield.errors import ConfigError
from meanfield.models.function import FunctionModel
from meanfield.parallel import blas_single_thread
from meanfield.probes import normalise
from meanfield.recorder import AnyStepper, MemorySink, Recorder, Sink
from meanfield.schemes import DORMAND_PRINCE, EULER, RK4, Scheme, StepGrid
from meanfield.schemes import scheme as scheme_of
from meanfield.solution import Solution, Status
from meanfield.steppers import AdaptiveStepper, FixedStepper, LayeredStepper, LimitedStepper, cfl_words

Array = NDArray[np.float64]

MAX_STEPS = 10_000_000
# A fused call runs about this long, so that Ctrl-C, progress and commits are prompt.
_CALL_SECONDS = 0.05
# Limits of steps that are sampled are trusted for so many steps; beyond so many intervals they are as they are.
_FEW_STEPS, _MANY_EDGES = 8, 2**16


def integrate(
    model: Any,
    y0: Any,
    t_span: tuple[float, float],
    *,
    scheme: str | Scheme | None = None,
    dt: float | None = None,
    n_steps: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    save_at: Any = None,
    probes: Mapping[str, Any] | None = None,
    sink: Sink | None = None,
    stop: Callable[[float, Array, Any], Any] | None = None,
    max_steps: int = MAX_STEPS,
    progress: Callable[[float], None] | None = None,
) -> Solution:
    """Integrate a model over depth.

    Parameters
    ----------
    model
        A model (``rate(t, y, out)``, ``shape``, ``breakpoints``, ``fields``), or a callable ``f(t, y)``; or a
        network given layer by layer (``step(k, z)``, ``n_layers``, ``depths``, ``pack``, ``unpack``, ``shape``,
        ``fields``), which brings its own depths and takes neither scheme nor steps nor tolerances.
    y0
        Initial state, of the model's shape.
    t_span
        (t0, T) with T >= t0; of a layered network two of its depths, as the save times.
    scheme
        Name or tableau. By default RK4 where `dt` or `n_steps` is given, else adaptive Dormand-Prince.
        A model with a CFL condition brings its own default, one with noise takes Euler-Maruyama steps.
    dt, n_steps
        Fixed step, or the number of steps over the whole span; dt must divide each interval between breakpoints.
        A model with a CFL condition needs neither, nor tolerances: it takes the longest steps allowed that land on
        the save times.
    rtol, atol
        Tolerances of adaptive steps, default 1e-6 and 1e-3 rtol.
    save_at
        Times to save, increasing, or the number of equal intervals; None saves the two ends.
    probes
        Name -> ``f(t, y, model)``, an accumulator, or a `Probe` with its own cadence.
    sink
        Where frames go; None keeps them in memory (K frames cost K states).
    stop
        ``g(t, y, model)``: the run ends when it is True, or where its sign changes; with adaptive steps the
        crossing is located by bisection on the dense output, with fixed steps at the end of the step.
    max_steps
        Limit on accepted steps.
    progress
        Called now and then with the fraction done.

    Returns
    -------
    Solution
        With a status; ``solution.raise_for_status()`` turns failures into errors.

    Raises
    ------
    ConfigError
        For arguments that cannot be used.
    NumericalError
        If the rate at t0 is not finite.
    """
    plan = _plan(model, y0, t_span, scheme, dt, n_steps, rtol, atol, save_at)
    stepper = plan.stepper
    times, targets = _save_times(save_at, plan)
    limit = positive_int("max_steps", max_steps)
    recorder = Recorder(plan.model, normalise(probes), times, targets, sink or MemorySink())
    with blas_single_thread(), _InterruptFlag() as interrupt:
        restart = recorder.begin(stepper)
        stepper.check_start()
        if not restart:
            recorder.start(stepper)
        event = _Event(stop, stepper, plan.model) if stop else None
        clock = _Pace(progress, plan.t0, plan.t1, stepper.y.size)
        status = Status.FINISHED
        while not stepper.done:
            if stepper.step >= limit:
                status = Status.MAX_STEPS
                break
            if interrupt.raised:
                status = Status.INTERRUPTED
                break
            wanted = 1 if event or plan.adaptive else min(recorder.steps_to_next(stepper.step), clock.steps)
            before = stepper.step
            stepper.advance(min(wanted, limit - stepper.step))
            clock.tick(stepper.t, stepper.step - before)
            if stepper.problem is not None:
                status = stepper.problem
                break
            crossing = event.crossed() if event else None
            recorder.accept(stepper, until=crossing)
            if event and crossing is not None:
                status = Status.EVENT
                stepper.move(crossing, event.state)
                recorder.save_last(stepper)
                break
            recorder.commit_if_due(stepper)
        message = _message(status, stepper, recorder, limit)
        recorder.end(stepper, status, message)
    return recorder.solution(stepper, status, message)


@dataclass(frozen=True)
class Step:
    """One accepted step of the visible loop: the state after it (a copy) and its time and number."""

    t: float
    y: Array
    number: int
    dt: float


def steps(
    model: Any,
    y0: Any,
    t_span: tuple[float, float],
    *,
    scheme: str | Scheme | None = None,
    dt: float | None = None,
    n_steps: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
) -> Iterator[Step]:
    """Iterate over accepted steps, for people who write their own loop.

    Arguments as for `integrate`. Yields a `Step` after each step; raises
    `NumericalError` where the run cannot go on.
    """
    plan = _plan(model, y0, t_span, scheme, dt, n_steps, rtol, atol)
    stepper = plan.stepper
    stepper.check_start()
    while not stepper.done:
        before = stepper.t
        with blas_single_thread():
            stepper.advance(1)
        if stepper.problem is not None:
            message = _message(stepper.problem, stepper, None, MAX_STEPS)
            Solution(np.empty(0), {}, {}, stepper.y, stepper.t, stepper.problem, message).raise_for_status()
        yield Step(stepper.t, stepper.y.copy(), stepper.step, stepper.t - before)


@dataclass(frozen=True)
class _Plan:
    model: Any
    stepper: AnyStepper
    t0: float
    t1: float

    @property
    def adaptive(self) -> bool:
        return isinstance(self.stepper, AdaptiveStepper)


def _plan(
    model: Any,
    y0: Any,
    t_span: tuple[float, float],
    scheme: str | Scheme | None,
    dt: float | None,
    n_steps: int | None,
    rtol: float | None,
    atol: float | None,
    save_at: Any = None,
) -> _Plan:
    """Check the arguments and build the stepper."""
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
    fixed = dt is not None or n_steps is not None
    if hasattr(model, "step_limits"):
        if rtol is not None or atol is not None:
            raise ConfigError("rtol and atol belong to adaptive steps; this model takes steps under its CFL condition")
        landing = _requested_times(save_at, t0, t1)
        return _Plan(model, _under_limits(model, scheme, edges, dt, n_steps, landing, state), t0, t1)
    free = not fixed and rtol is None and atol is None and (scheme is None or scheme_of(scheme).name == "euler")
    if free and getattr(model, "steps_by_limit", False):
        landing = np.unique(np.concatenate([edges, _requested_times(save_at, t0, t1)]))
        if len(landing) > 1:
            return _Plan(model, LimitedStepper(model, landing, state), t0, t1)
        return _Plan(model, FixedStepper(model, EULER, _uniform(edges, None, 1), state), t0, t1)
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
            return _Plan(model, FixedStepper(model, chosen, _uniform(edges, None, 1), state), t0, t1)
        return _Plan(model, AdaptiveStepper(model, chosen, edges, state, r, a), t0, t1)
    if rtol is not None or atol is not None:
        raise ConfigError("rtol and atol belong to adaptive steps; with dt or n_steps the step is fixed")
    return _Plan(model, FixedStepper(model, chosen, _uniform(edges, dt, n_steps), state), t0, t1)


def step_grid(
    model: Any, t_span: tuple[float, float], *, dt: float | None = None, n_steps: int | None = None
) -> StepGrid:
    """Fixed steps that `integrate` would take over a span, landing on the breakpoints of the model.

    Arguments and errors as for `integrate`.
    """
    t0, t1 = _span(t_span)
    return _uniform(_edges(model, t0, t1), dt, n_steps)


def _edges(model: Any, t0: float, t1: float) -> Array:
    inner = np.asarray(model.breakpoints, dtype=np.float64)
    # A breakpoint within rounding of an end is that end: no step fits between.
    slack = 4.0 * math.ulp(max(abs(t0), abs(t1)))
    return np.concatenate([[t0], inner[(t0 + slack < inner) & (inner < t1 - slack)], [t1]])


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


def _layered_plan(model: Any, y0: Any, t_span: tuple[float, float], own: Mapping[str, Any]) -> _Plan:
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
    return _Plan(model, stepper, float(depths[first]), float(depths[last]))


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


def _save_times(save_at: Any, plan: _Plan) -> tuple[Array, NDArray[np.int64] | None]:
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


class _Event:
    """Watches g(t, y, model); finds where it becomes True or changes sign."""

    def __init__(self, function: Callable[[float, Array, Any], Any], stepper: AnyStepper, model: Any) -> None:
        self.function, self.stepper, self.model = function, stepper, model
        self.state = stepper.y.copy()
        self.time = stepper.t
        self._last = self._value(stepper.t, stepper.y)

    def _value(self, t: float, y: Array) -> float:
        np.copyto(self.state, y)
        self.time = t
        value = self.function(t, self.state, self.model)
        if isinstance(value, (bool, np.bool_)):
            return 0.0 if value else 1.0
        return finite_float("stop(t, y, model)", float(value))

    def crossed(self) -> float | None:
        """Time of the event if it lies in the last step; `state` then holds the state there."""
        before, self._last = self._last, self._value(self.stepper.t, self.stepper.y)
        if self._last != 0.0 and (before == 0.0 or (before > 0) == (self._last > 0)):
            return None
        if isinstance(self.stepper, AdaptiveStepper) and before != 0.0:
            self._bisect(self.stepper, before)
        return self.time

    def _bisect(self, stepper: AdaptiveStepper, before: float) -> None:
        low, high = stepper.last_interval
        trial = np.empty_like(self.state)
        while high - low > 4 * math.ulp(max(abs(low), abs(high))):
            middle = 0.5 * (low + high)
            stepper.interpolate(middle, trial)
            value = self._value(middle, trial)
            if value != 0.0 and (value > 0) == (before > 0):
                low = middle
            else:
                high = middle
        stepper.interpolate(high, trial)
        self._value(high, trial)


class _Pace:
    """Steps to ask of a stepper at once, and progress now and then."""

    def __init__(self, progress: Callable[[float], None] | None, t0: float, t1: float, size: int) -> None:
        # Few at first, as a step of an unknown model may be long; then as many as the last call allows.
        self.steps = max(1, min(64, 2**16 // max(size, 1)))
        self._progress, self._t0, self._span = progress, t0, t1 - t0
        self._last = time.perf_counter()
        self._shown = 0.0

    def tick(self, t: float, taken: int) -> None:
        now = time.perf_counter()
        elapsed, self._last = now - self._last, now
        if taken >= self.steps:
            self.steps = min(max(1, int(self.steps * min(16.0, _CALL_SECONDS / max(elapsed, 1e-9)))), 2**20)
        if self._progress and now - self._shown > 0.1:
            self._shown = now
            self._progress((t - self._t0) / self._span if self._span else 1.0)


class _InterruptFlag(contextlib.AbstractContextManager["_InterruptFlag"]):
    """Turns the first Ctrl-C into a flag, so that a run stops between steps; the second one raises."""

    def __init__(self) -> None:
        self.raised = False
        self._previous: Any = None
        self._main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        if self._main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def _handle(self, number: int, frame: Any) -> None:
        if self.raised:
            signal.default_int_handler(number, frame)
        self.raised = True

    def __exit__(self, *exc: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)


def _message(status: Status, stepper: AnyStepper, recorder: Recorder | None, limit: int) -> str:
    where = f"t={stepper.t!r} after {stepper.step} steps"
    frame = "" if recorder is None else recorder.last_frame()
    match status:
        case Status.FINISHED:
            return f"reached {where}"
        case Status.EVENT:
            return f"the event was met; stopped at {where}"
        case Status.INTERRUPTED:
            return f"interrupted at {where}; resume continues from there"
        case Status.MAX_STEPS:
            return f"max_steps = {limit} reached at {where}{frame}; raise max_steps, or the tolerances"
        case Status.STEP_TOO_SMALL:
            assert isinstance(stepper, AdaptiveStepper)
            return (
                f"the step fell below dt_min = {stepper.dt_min:.3g} at {where}{frame}: "
                "the solution blows up, or the right-hand side is not smooth there"
            )
        case _:
            return f"the state is no longer finite after {where}{frame}; dt_min does not apply to fixed steps: " + (
                "take more layers" if isinstance(stepper, LayeredStepper) else "take a smaller dt or adaptive steps"
            )
