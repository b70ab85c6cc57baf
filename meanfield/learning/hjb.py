"""Hamilton-Jacobi-Bellman equations on a grid, for states of dimension one and two.

    d_t V + inf over theta of { <grad V, F(t, x, theta)> + r(t, x, theta) } = 0,   V(T, x) = terminal(x)

V(t, x) is the least of int_t^T r ds + terminal(x(T)) over the controls of x' = F, and the minimiser is an optimal
feedback: the reference for every other solver of small problems. The scheme steps explicitly from T down to t0,
with the upwind Hamiltonian

    V^n = V^{n+1} + dt inf over theta of { sum_d (F_d^+ D_d^+ V + F_d^- D_d^- V) + r }.

It is monotone if dt sum_d |F_d| / dx_d <= 1 (the CFL condition), and then converges to the viscosity solution: at
order 1 where V is smooth, at order 1/2 at worst. Speeds out of the box of states count as 0 at its edge, as if the
state were held back there. Source: Crandall and Lions, "Two approximations of solutions of Hamilton-Jacobi
equations", Mathematics of Computation 43 (1984).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, finite_float, positive_int, shown
from meanfield.cells import Cells
from meanfield.errors import ConfigError, NumericalError
from meanfield.integration import integrate
from meanfield.learning.control_problems import Minimum, QuadraticControl, SampledControl, field_values
from meanfield.steppers import cfl_words

Array = NDArray[np.float64]
Field = Callable[[float, Array], Any] | Any
Controlled = Callable[[float, Array, Array], Any]

# The part of the longest monotone step that default steps take.
_COURANT = 0.9
# Steps may exceed a limit by round-off.
_SLACK = 1.0 + 1e-12
_MAX_STEPS = 1_000_000
_CLOSED_LOOP_STEPS = 200


@dataclass(frozen=True)
class ClosedLoop:
    """Trajectory under the feedback: times `t` (K,), states `x` (K, D), controls `theta` (K, m), and its `cost`."""

    t: Array
    x: Array
    theta: Array
    cost: float


@dataclass(frozen=True, eq=False)
class ValueFunction:
    """Solution of a Hamilton-Jacobi-Bellman equation.

    Attributes
    ----------
    problem, terminal, cells
        As given to `solve_hjb`.
    times
        Levels that were kept, increasing, (K,).
    values
        V at the centres of the cells at these times, (K, *shape).
    t_end
        T.
    n_steps
        Number of time steps.
    courant
        Largest dt sum_d |F_d| / dx_d of all steps, at most 1.
    outflow
        Largest speed at which an optimal control would have crossed the edge of the box, with the gradient of V
        continued from inside. If it is 0 the edge did not act on the solution; else V holds back states there.
    """

    problem: QuadraticControl | SampledControl
    terminal: Callable[[Array], Any]
    cells: Cells
    times: Array
    values: Array
    t_end: float
    n_steps: int
    courant: float
    outflow: float

    def value(self, t: float, x: Any) -> Any:
        """V(t, x) by linear interpolation, for one state (D,) or several (D, M); in one dimension any shape of x.

        Raises
        ------
        ConfigError
            For states outside the box, or times that were not kept.
        """
        states, shape = self._states("x", x)
        indices, weights = self._around(states)
        total = np.zeros(states.shape[1])
        for k, share in self._levels(t):
            total += share * (weights * self.values[k].reshape(-1)[indices]).sum(axis=0)
        return total.reshape(shape)[()]

    def feedback(self, t: float, x: Any) -> Array:
        """Optimal control theta(t, x), (m,) for one state (D,), (m, M) for several (D, M).

        The minimiser at (t, x) itself, with the differences of V interpolated linearly, so that it is one of the
        controls allowed. Errors as for `value`.
        """
        states, shape = self._states("x", x)
        indices, weights = self._around(states)
        forward, backward = np.zeros(states.shape), np.zeros(states.shape)
        for k, share in self._levels(t):
            up, down = self._stencil.differences(self.values[k].reshape(-1), indices)
            forward += share * (up * weights).sum(axis=1)
            backward += share * (down * weights).sum(axis=1)
        found = self.problem.minimise(float(t), states, forward, backward, np.array(self.cells.spacing))
        return found.theta.reshape(-1, *shape)

    def closed_loop(self, x0: Any, *, n_steps: int | None = None) -> ClosedLoop:
        """Simulate x' = F(t, x, theta(t, x)) from x0 at t0 by RK4, and its cost int r dt + terminal(x(T)).

        Parameters
        ----------
        x0
            Initial state, (D,); in one dimension also a number.
        n_steps
            Number of steps; by default as many as the solution took, at least 200.

        Raises
        ------
        ConfigError
            For a start outside the box, or a solution of which only t0 was kept.
        NumericalError
            If the state leaves the box: with the time, the component, its value and the edges.
        """
        start = self._states("x0", x0)[0]
        if start.shape[1] != 1:
            raise ConfigError(f"x0 must be one state, got {start.shape[1]}")
        self._levels(self.t_end)
        n = max(self.n_steps, _CLOSED_LOOP_STEPS) if n_steps is None else positive_int("n_steps", n_steps)

        def rate(t: float, y: Array) -> Array:
            x = y[:-1, None]
            words = self._outside("x", x)
            if words:
                raise NumericalError(f"the state left the box at t={t:.6g}: {words}")
            flow, running = self.problem.dynamics(t, x, self.feedback(t, x))
            return np.concatenate([flow[:, 0], running])

        span = (float(self.times[0]), self.t_end)
        run = integrate(rate, np.append(start[:, 0], 0.0), span, n_steps=n, save_at=n).raise_for_status()
        x = np.ascontiguousarray(run.y[:, :-1])
        end = x[-1:].T
        last = field_values("terminal", self.terminal(end), self.t_end, end, (1,))[0]
        controls = [self.feedback(float(t), s[:, None])[:, 0] for t, s in zip(run.t, x, strict=True)]
        return ClosedLoop(run.t, x, np.stack(controls), float(run.y[-1, -1] + last))

    @functools.cached_property
    def _stencil(self) -> _Stencil:
        return _Stencil(self.cells)

    def _states(self, name: str, x: Any) -> tuple[Array, tuple[int, ...]]:
        """States (D, M), and the shape of what is returned for them."""
        states, dim = finite_array(name, x), self.cells.dim
        plain = dim == 1 and states.ndim < 2
        if not plain and (states.ndim not in (1, 2) or len(states) != dim):
            raise ConfigError(f"{name} has shape {states.shape}, expected ({dim},) or ({dim}, any)")
        shape = states.shape if plain else states.shape[1:]
        states = states.reshape(dim, -1)
        words = self._outside(name, states)
        if words:
            raise ConfigError(words)
        return states, shape

    def _outside(self, name: str, x: Array) -> str:
        """Words on the first of the states x (D, M) that lies outside the box, or nothing."""
        low, high = np.array(self.cells.lower), np.array(self.cells.upper)
        bad = np.argwhere(~((x >= low[:, None]) & (x <= high[:, None])))
        if not len(bad):
            return ""
        d, k = bad[0]
        return f"{name}[{d}] = {float(x[d, k])!r} lies outside [{low[d]:g}, {high[d]:g}]"

    def _around(self, x: Array) -> tuple[NDArray[np.int64], Array]:
        """Indices and weights, (2^D, M) each, of the centres around states x (D, M); constant beyond the last ones."""
        shape = np.array(self.cells.shape)[:, None]
        place = (x - np.array(self.cells.lower)[:, None]) / np.array(self.cells.spacing)[:, None] - 0.5
        place = np.clip(place, 0.0, shape - 1.0)
        first = np.minimum(place.astype(np.int64), shape - 2)
        part = place - first
        corners = [np.array(c)[:, None] for c in itertools.product((0, 1), repeat=len(x))]
        indices = [np.ravel_multi_index(tuple(first + c), self.cells.shape) for c in corners]
        return np.stack(indices), np.stack([np.where(c == 1, part, 1.0 - part).prod(axis=0) for c in corners])

    def _levels(self, t: Any) -> list[tuple[int, float]]:
        """Kept levels on both sides of t, with their weights."""
        t = finite_float("t", t)
        first, last = float(self.times[0]), float(self.times[-1])
        if not first <= t <= last:
            raise ConfigError(f"t must lie among the times that were kept, [{first!r}, {last!r}], got {t!r}")
        if len(self.times) == 1:
            return [(0, 1.0)]
        k = max(int(np.searchsorted(self.times, t)), 1)
        part = float((t - self.times[k - 1]) / (self.times[k] - self.times[k - 1]))
        return [(i, w) for i, w in ((k - 1, 1.0 - part), (k, part)) if w > 0.0]


def solve_hjb(
    problem: QuadraticControl | SampledControl,
    terminal: Callable[[Array], Any],
    cells: Cells,
    t_span: tuple[float, float],
    *,
    n_steps: int | None = None,
    save_every: int | None = 1,
    max_steps: int = _MAX_STEPS,
) -> ValueFunction:
    """Solve a Hamilton-Jacobi-Bellman equation from T down to t0; the equation and the scheme stand above.

    A step costs O(N) evaluations of the Hamiltonian on N cells, and the CFL condition asks for O(n) steps on n cells
    a side. Memory is 8 N bytes for each level kept, n_steps / save_every + 1 of them, twice that at the end, and some
    45 N floats of work; with ``save_every=None`` only V(t0, .) is kept.

    Parameters
    ----------
    problem
        `QuadraticControl` or `SampledControl`.
    terminal
        Terminal cost of states (D, N), giving (N,).
    cells
        Cells of the states, one or two-dimensional; V lives at their centres.
    t_span
        (t0, T), T > t0.
    n_steps
        Equal steps, refused where they break the CFL condition. None: every step is at most 0.9 of the longest that
        V then allows, and at most (T - t0) over the largest number of cells along a side.
    save_every
        Keep every so many levels, and always t0 and T; None keeps t0 alone, which gives no closed loop.
    max_steps
        Limit on the number of steps.

    Raises
    ------
    ConfigError
        For arguments out of range, shapes that do not fit, or steps over the CFL limit.
    NumericalError
        For fields that are not finite, or more than `max_steps` steps.
    ResourceError
        If the levels do not fit into memory.
    """
    t0, t1 = _span(t_span)
    if not isinstance(cells, Cells):
        raise ConfigError(f"cells must be Cells, got {shown(cells)}")
    if not callable(terminal):
        raise ConfigError(f"terminal must be a function of states, got {shown(terminal)}")
    total = None if n_steps is None else positive_int("n_steps", n_steps)
    every = None if save_every is None else positive_int("save_every", save_every)
    limit = positive_int("max_steps", max_steps)
    check_memory(f"an equation on {' x '.join(map(str, cells.shape))} cells", 8 * 45 * math.prod(cells.shape))
    stencil = _Stencil(cells)
    v = field_values("terminal", terminal(stencil.x), t1, stencil.x, stencil.x.shape[1:]).copy()
    levels = [] if every is None else [(t1, v)]
    t, step, courant, outflow = t1, 0, 0.0, 0.0
    while t > t0:
        if step >= limit:
            raise NumericalError(f"{limit} steps (max_steps) led from t={t1:g} only to t={t:.6g}; t0 is {t0:g}")
        with np.errstate(over="ignore", invalid="ignore"):
            found, crossing = stencil.minimum(problem, t, v)
            fastest = float(found.speed.max())
        if not math.isfinite(fastest):
            raise NumericalError(f"the speed is not finite at t={t:.6g}, step {step}")
        slowest = max(fastest / _COURANT, max(cells.shape) / (t1 - t0))
        left = max(math.ceil((t - t0) * slowest / _SLACK), 1) if total is None else total - step
        dt = (t - t0) / left
        if dt * fastest > _SLACK:
            raise ConfigError(f"n_steps = {total} at t={t:.6g}: {cfl_words(dt, 1.0 / fastest)}")
        v = v + dt * found.value
        courant, outflow, step = max(courant, dt * fastest), max(outflow, crossing), step + 1
        t = t0 if left == 1 else t - dt
        if not np.isfinite(v).all():
            raise NumericalError(f"the value is not finite at t={t:.6g}, step {step}")
        if left == 1 or (every is not None and step % every == 0):
            if len(levels).bit_count() == 1:
                check_memory(f"room for as many levels as the {len(levels)} kept so far", 24 * v.size * len(levels))
            levels.append((t, v))
    times = np.array([level[0] for level in levels[::-1]])
    values = np.stack([level[1] for level in levels[::-1]]).reshape(-1, *cells.shape)
    return ValueFunction(problem, terminal, cells, times, values, t1, step, courant, outflow)


class _Stencil:
    """Neighbours of the centres; and those of the edge once more, to tell whether it acts."""

    def __init__(self, cells: Cells) -> None:
        self.x = cells.points()
        self.dx = np.array(cells.spacing)
        dim, n = self.x.shape
        index, axes = np.indices(cells.shape).reshape(dim, n), np.eye(dim, dtype=np.int64)[:, :, None]
        above = [np.ravel_multi_index(tuple(index + axis), cells.shape, mode="clip") for axis in axes]
        below = [np.ravel_multi_index(tuple(index - axis), cells.shape, mode="clip") for axis in axes]
        self.above, self.below = np.stack(above), np.stack(below)
        # Beyond the edge a centre is its own neighbour, so that differences across it are 0.
        upper, lower = (np.nonzero(near == np.arange(n)) for near in (self.above, self.below))
        self.axis, self.edge = np.concatenate([upper, lower], axis=1)
        self.side = np.repeat([1.0, -1.0], [len(upper[0]), len(lower[0])])
        self.extended = np.concatenate([self.x, self.x[:, self.edge]], axis=1)

    def differences(self, v: Array, at: NDArray[np.int64] | None = None) -> tuple[Array, Array]:
        """Forward and backward differences of v (N,) at the centres of those indices (all), (D, *at.shape) each."""
        here, above, below = (
            (v, self.above, self.below) if at is None else (v[at], self.above[:, at], self.below[:, at])
        )
        dx = self.dx.reshape(-1, *[1] * here.ndim)
        return (v[above] - here) / dx, (here - v[below]) / dx

    def minimum(self, problem: QuadraticControl | SampledControl, t: float, v: Array) -> tuple[Minimum, float]:
        """Upwind minimum at the centres, and the largest speed across the edge with gradients from inside."""
        forward, backward = self.differences(v)
        n, many = v.size, np.arange(self.edge.size)
        up, down = forward[:, self.edge], backward[:, self.edge]
        inner = np.where(self.side > 0, down[self.axis, many], up[self.axis, many])
        up[self.axis, many] = down[self.axis, many] = inner
        both = np.concatenate([forward, up], axis=1), np.concatenate([backward, down], axis=1)
        found = problem.minimise(t, self.extended, *both, self.dx)
        crossing = float((self.side * found.rate[self.axis, n + many]).max())
        return Minimum(*(part[..., :n] for part in found)), max(crossing, 0.0)


def _span(t_span: Any) -> tuple[float, float]:
    if not isinstance(t_span, (tuple, list)) or len(t_span) != 2:
        raise ConfigError(f"t_span must be a pair (t0, T), got {shown(t_span)}")
    t0, t1 = finite_float("t_span[0]", t_span[0]), finite_float("t_span[1]", t_span[1])
    if not t1 > t0:
        raise ConfigError(f"t_span must have T > t0, got t0 = {t0!r}, T = {t1!r}")
    return t0, t1
