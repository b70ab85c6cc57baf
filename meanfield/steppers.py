"""Steppers: how a state advances, by fixed or adaptive explicit Runge-Kutta steps or layer by layer.

A stepper owns the state and its counters and nothing else: what is saved, watched
or stopped is the business of `integrate`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory
from meanfield.errors import ConfigError, NumericalError
from meanfield.kernels.layers import all_finite, combine, error_norm
from meanfield.schemes import EULER, Scheme, StepGrid
from meanfield.solution import Status

Array = NDArray[np.float64]


class Stepper:
    """State, time and step counter of an integration."""

    def __init__(self, model: Any, t0: float, y0: Array) -> None:
        self.model = model
        self.y = y0.copy()
        self.t = t0
        self.step = 0
        self.n_rates = 0
        self.n_rejected = 0
        self.problem: Status | None = None

    def move(self, t: float, y: Array) -> None:
        """Put the state where an event was located inside the last step."""
        self.t = t
        np.copyto(self.y, y)

    def state(self) -> dict[str, Any]:
        """Counters and step memory, as JSON values; floats as hexadecimal."""
        return {"t": self.t.hex(), "step": self.step, "n_rejected": self.n_rejected}

    def restore(self, y: Array, meta: Mapping[str, Any]) -> None:
        """Continue from a state saved by `state`, bit for bit."""
        self.y[...] = y.reshape(self.y.shape)
        self.t = float.fromhex(meta["t"])
        self.step = int(meta["step"])
        self.n_rejected = int(meta["n_rejected"])


class RungeKuttaStepper(Stepper):
    """Stages of a Runge-Kutta scheme."""

    def __init__(self, model: Any, scheme: Scheme, edges: Array, y0: Array, n_stages: int) -> None:
        check_memory(f"{n_stages} stages of a state of shape {y0.shape}", 8 * y0.size * (n_stages + 4))
        super().__init__(model, float(edges[0]), y0)
        self.scheme = scheme
        self.edges = edges
        self._k = np.empty((n_stages, y0.size))
        self._stages = [k.reshape(y0.shape) for k in self._k]
        self._trial = np.empty_like(self.y)

    def check_start(self) -> None:
        """Evaluate the rate once and raise `NumericalError` where it is not finite."""
        self._rate(self.t, self.y, 0)
        _raise_unless_finite("rate", self._stages[0], self.t, self.step)

    def _rate(self, t: float, y: Array, i: int) -> None:
        self.model.rate(t, y, self._stages[i])
        self.n_rates += 1


def _raise_unless_finite(what: str, values: Array, t: float, step: int) -> None:
    if not all_finite(values.ravel()):
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise NumericalError(f"the {what} is {values[index]} at t={t!r}, step {step}, component {index}")


def cfl_words(dt: float, largest: float) -> str:
    """Message of a step that is too long."""
    return f"dt = {dt!r} breaks the CFL condition: the largest dt is {largest:.6g}"


class LayeredStepper(Stepper):
    """Layers of a network that no tableau expresses: the state changes shape from layer to layer.

    The model provides ``depths`` (L + 1,), ``initial(k, y0) -> z``, which checks a state of depth k,
    ``step(k, z) -> z`` from depth k to depth k + 1, and ``pack(k, z) -> y``, ``unpack(y) -> z`` between
    the state of a depth and an array of the constant shape ``shape``, which is what is saved and
    watched. Only z must be finite; what `pack` fills up is the model's own.
    """

    def __init__(self, model: Any, first: int, last: int, z0: Array) -> None:
        super().__init__(model, float(model.depths[first]), model.pack(first, z0))
        edges = model.depths[first : last + 1] if last > first else model.depths[[first, first]]
        self.grid = StepGrid(edges, np.full(len(edges) - 1, min(last - first, 1), dtype=np.int64))
        self.n_steps = last - first
        self._first = first
        self._z = z0.copy()
        self._ahead: Array | None = None

    @property
    def done(self) -> bool:
        """Whether the last layer has been taken."""
        return self.step >= self.n_steps

    def check_start(self) -> None:
        """Take the next layer, to be used by `advance`, and raise `NumericalError` where it is not finite."""
        if not self.done:
            self._ahead = self._layer()
            _raise_unless_finite("first layer", self._ahead, self.t, self.step)

    def _layer(self) -> Array:
        self.n_rates += 1
        return np.ascontiguousarray(self.model.step(self._first + self.step, self._z))

    def advance(self, count: int) -> None:
        """Take `count` layers; on a non-finite state stop at the last good one and set `problem`."""
        for _ in range(min(count, self.n_steps - self.step)):
            z = self._layer() if self._ahead is None else self._ahead
            self._ahead = None
            if not all_finite(z.ravel()):
                self.problem = Status.NONFINITE
                break
            self._z = z
            self.step += 1
        self.t = self.grid.time(self.step)
        np.copyto(self.y, self.model.pack(self._first + self.step, self._z))

    def restore(self, y: Array, meta: Mapping[str, Any]) -> None:
        """Continue from a state saved by `state`, bit for bit."""
        super().restore(y, meta)
        self._z, self._ahead = np.array(self.model.unpack(self.y)), None


class FixedStepper(RungeKuttaStepper):
    """Steps of a `StepGrid`; a fused path of the model is used where there is one."""

    def __init__(self, model: Any, scheme: Scheme, grid: StepGrid, y0: Array) -> None:
        super().__init__(model, scheme, grid.edges, y0, scheme.n_stages)
        self.grid = grid
        self.n_steps = grid.n_steps
        self._fused = hasattr(model, "advance") and bool(model.fused(scheme))
        self._rate_known = False
        self._limited = hasattr(model, "largest_step")
        self._noise = np.empty_like(self.y) if getattr(model, "stochastic", False) and not self._fused else None

    @property
    def done(self) -> bool:
        """Whether the last step has been taken."""
        return self.step >= self.n_steps

    def check_start(self) -> None:
        """Raise where the rate is not finite at the start; a fused path looks only once its first step fails."""
        if not self._fused:
            super().check_start()
            self._rate_known = True
            if self._limited and self.n_steps:
                self._check_length(float(self.grid.steps(self.scheme, 0, 1)[1][0]))

    def _check_length(self, dt: float) -> None:
        """Raise where dt is longer than the model allows at this state: `ConfigError` before the first step."""
        largest = float(self.model.largest_step(self.y, self._stages[0]))
        if dt > largest * (1.0 + 1e-12):
            words = cfl_words(dt, largest)
            if self.step == 0:
                raise ConfigError(words)
            raise NumericalError(f"{words} at t={self.t!r}, step {self.step}")

    def advance(self, count: int) -> None:
        """Take `count` steps; on a non-finite state stop at the last good one and set `problem`."""
        count = min(count, self.n_steps - self.step)
        if count > 0:
            (self._advance_fused if self._fused else self._advance_stages)(count)

    def _advance_fused(self, count: int) -> None:
        self.model.advance(self.scheme, self.grid, self.step, count, self.y, self._trial)
        self.n_rates += count * self.scheme.n_stages
        if all_finite(self._trial.ravel()):
            self.y, self._trial = self._trial, self.y
            self._accept(count)
            return
        # A bad state stays bad, so one test a call is enough; the last good step is found by halving.
        if count == 1:
            if self.step == 0:
                super().check_start()
            self.problem = Status.NONFINITE
            return
        self._advance_fused(count // 2)
        if self.problem is None:
            self._advance_fused(count - count // 2)

    def _advance_stages(self, count: int) -> None:
        scheme, flat, k = self.scheme, self.y.ravel(), self._k
        n_stages, trial = scheme.n_stages, self._trial.ravel()
        times, lengths = self.grid.steps(scheme, self.step, count)
        if hasattr(self.model, "check_steps"):
            self.model.check_steps(times, lengths)
        for row, dt in zip(times.tolist(), lengths.tolist(), strict=True):
            if not self._rate_known:
                self._rate(row[0], self.y, 0)
            self._rate_known = False
            if self._limited:
                self._check_length(dt)
            for i in range(1, n_stages):
                combine(flat, k[:i], scheme.a[i, :i], dt, trial)
                self._rate(row[i], self._trial, i)
            combine(flat, k, scheme.b[:n_stages], dt, trial)
            if self._noise is not None:
                self.model.noise(row[0], self.y, self.grid.number(self.step), self._noise)
                trial += math.sqrt(dt) * self._noise.ravel()
            if not all_finite(trial):
                self.problem = Status.NONFINITE
                return
            flat[:] = trial
            self._accept(1)

    def _accept(self, count: int) -> None:
        self.step += count
        self.t = self.grid.time(self.step)


class AdaptiveStepper(RungeKuttaStepper):
    """Steps chosen by the scheme's error estimate under a PI controller; lands on the ends of pieces."""

    SAFETY, SHRINK, GROW, BETA = 0.9, 0.2, 5.0, 0.04

    def __init__(self, model: Any, scheme: Scheme, edges: Array, y0: Array, rtol: float, atol: float) -> None:
        super().__init__(model, scheme, edges, y0, len(scheme.b))
        self.rtol, self.atol = rtol, atol
        given = getattr(model, "error_weights", None)
        weights = np.asarray(1.0 if given is None else given, dtype=np.float64)
        self._weights = np.array(np.broadcast_to(weights / weights.mean(), y0.shape)).ravel()
        self._index = 0
        self._fresh = True
        self._last_error = 1e-4
        self._h = 0.0
        self._old = self.y.copy()
        self._old_t = self.t

    @property
    def done(self) -> bool:
        """Whether the end has been reached."""
        return self._index >= len(self.edges) - 1

    @property
    def dt_min(self) -> float:
        """Smallest step that still moves the time."""
        return 16.0 * math.ulp(max(abs(self.t), abs(float(self.edges[-1]))))

    def check_start(self) -> None:
        """Evaluate the rate once, raise where it is not finite, and choose the first step."""
        super().check_start()
        if self._h == 0.0:
            self._h = self._first_step()

    def _first_step(self) -> float:
        """Size of the first step from the scales of y, y' and y'' (Hairer, Norsett, Wanner, section II.4)."""
        end, flat, k = float(self.edges[1]), self.y.ravel(), self._k
        scale = self.atol + self.rtol * np.abs(flat)
        d0, d1 = (float(np.sqrt(np.mean((v / scale) ** 2))) for v in (flat, k[0]))
        h0 = 1e-6 if min(d0, d1) < 1e-5 else 0.01 * d0 / d1
        h0 = min(h0, end - self.t)
        combine(flat, k[:1], np.ones(1), h0, self._trial.ravel())
        self._rate(min(self.t + h0, float(np.nextafter(end, self.t))), self._trial, 1)
        d2 = float(np.sqrt(np.mean(((k[1] - k[0]) / scale) ** 2))) / h0
        if not math.isfinite(d2):
            return max(h0 * 1e-3, self.dt_min)
        top = max(d1, d2)
        h1 = max(1e-6, h0 * 1e-3) if top <= 1e-15 else (0.01 / top) ** (1.0 / self.scheme.order)
        return float(min(100 * h0, h1, end - self.t))

    def advance(self, count: int) -> None:
        """Take `count` accepted steps, or fewer where the end or a problem comes first."""
        for _ in range(count):
            if self.done or self.problem is not None:
                return
            self._step_once()

    def _step_once(self) -> None:
        end = float(self.edges[self._index + 1])
        if self._fresh:
            self._rate(self.t, self.y, 0)
            self._fresh = False
        else:
            # First same as last: the last stage of the step before is the first of this one.
            self._k[0] = self._k[-1]
        while True:
            left = end - self.t
            h = self._h
            # Two even steps rather than a long one and a sliver.
            h = left if h >= left * (1 - 1e-12) else min(h, max(0.5 * left, self.dt_min))
            error = self._attempt(end, h)
            if error <= 1.0:
                break
            self.n_rejected += 1
            shrink = 0.1 if not math.isfinite(error) else max(self.SHRINK, self.SAFETY * error ** (-1.0 / 5.0))
            self._h = h * min(shrink, 1.0)
            if self._h < self.dt_min:
                self.problem = Status.STEP_TOO_SMALL
                return
        self._accept(end, h, error, landed=h == left)

    def _attempt(self, end: float, h: float) -> float:
        scheme, flat, trial, k = self.scheme, self.y.ravel(), self._trial.ravel(), self._k
        last = float(np.nextafter(end, self.t))
        for i in range(1, len(scheme.b)):
            combine(flat, k[:i], scheme.a[i, :i], h, trial)
            self._rate(min(self.t + float(scheme.c[i]) * h, last), self._trial, i)
        # The last stage was taken at the new state, so `trial` holds it.
        assert scheme.b_err is not None
        norm = error_norm(flat, trial, k, scheme.b_err, h, self.rtol, self.atol, self._weights)
        return norm if all_finite(trial) else math.inf

    def _accept(self, end: float, h: float, error: float, *, landed: bool) -> None:
        order = self.scheme.order
        grow = self.SAFETY * max(error, 1e-10) ** (-(1.0 / order - 0.75 * self.BETA)) * self._last_error**self.BETA
        self._last_error = max(error, 1e-4)
        self._old_t, self._old_h = self.t, h
        np.copyto(self._old, self.y)
        np.copyto(self.y, self._trial)
        self.t = end if landed else self.t + h
        self.step += 1
        grown = h * min(self.GROW, max(self.SHRINK, grow))
        # A step cut short by the end of a piece says nothing against the step planned.
        self._h = max(grown, self._h) if landed else grown
        if landed:
            self._index += 1
            self._fresh = True

    @property
    def last_interval(self) -> tuple[float, float]:
        """Start and end of the last accepted step."""
        return self._old_t, self.t

    def interpolate(self, t: float, out: Array) -> None:
        """Fill out with the state at a time of the last accepted step (dense output)."""
        if t == self.t:
            np.copyto(out, self.y)
            return
        theta = (t - self._old_t) / self._old_h
        assert self.scheme.interpolant is not None
        powers = theta ** np.arange(1, self.scheme.interpolant.shape[1] + 1)
        combine(self._old.ravel(), self._k, self.scheme.interpolant @ powers, self._old_h, out.ravel())

    def state(self) -> dict[str, Any]:
        """Counters, step size and controller memory."""
        return super().state() | {"h": self._h.hex(), "error": self._last_error.hex(), "piece": self._index}

    def restore(self, y: Array, meta: Mapping[str, Any]) -> None:
        """Continue from a state saved by `state`, bit for bit."""
        super().restore(y, meta)
        self._h, self._last_error = float.fromhex(meta["h"]), float.fromhex(meta["error"])
        self._index, self._fresh = int(meta["piece"]), True


class LimitedStepper(AdaptiveStepper):
    """Euler steps as long as the model allows at each state (`largest_step`); lands on the ends of pieces."""

    def __init__(self, model: Any, edges: Array, y0: Array) -> None:
        super().__init__(model, EULER, edges, y0, 1.0, 1.0)

    def check_start(self) -> None:
        """Evaluate the rate once and raise where it is not finite."""
        RungeKuttaStepper.check_start(self)

    def _step_once(self) -> None:
        end, flat, trial = float(self.edges[self._index + 1]), self.y.ravel(), self._trial.ravel()
        self._rate(self.t, self.y, 0)
        left, longest = end - self.t, float(self.model.largest_step(self.y, self._stages[0]))
        # Two even steps rather than a long one and a sliver.
        h = left if longest >= left * (1.0 - 1e-12) else min(longest, max(0.5 * left, self.dt_min))
        if not h >= min(self.dt_min, left):
            self.problem = Status.STEP_TOO_SMALL
            return
        combine(flat, self._k, self.scheme.b, h, trial)
        if not all_finite(trial):
            self.problem = Status.NONFINITE
            return
        self._accept(end, h, 1.0, landed=h == left)

    def interpolate(self, t: float, out: Array) -> None:
        """Fill out with the state at a time of the last accepted step, a straight line."""
        if t == self.t:
            np.copyto(out, self.y)
        else:
            combine(self._old.ravel(), self._k, self.scheme.b, t - self._old_t, out.ravel())
