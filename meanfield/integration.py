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

from meanfield._checks import finite_float, positive_int
from meanfield.parallel import blas_single_thread
from meanfield.planning import plan_steps, save_times
from meanfield.planning import step_grid as step_grid  # noqa: PLC0414 (part of the public interface)
from meanfield.probes import normalise
from meanfield.recorder import AnyStepper, MemorySink, Recorder, Sink
from meanfield.schemes import Scheme
from meanfield.solution import Solution, Status
from meanfield.steppers import AdaptiveStepper, LayeredStepper

Array = NDArray[np.float64]

MAX_STEPS = 10_000_000
# A fused call runs about this long, so that Ctrl-C, progress and commits are prompt.
_CALL_SECONDS = 0.05


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
    plan = plan_steps(model, y0, t_span, scheme, dt, n_steps, rtol, atol, save_at)
    stepper = plan.stepper
    times, targets = save_times(save_at, plan)
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
    plan = plan_steps(model, y0, t_span, scheme, dt, n_steps, rtol, atol)
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
