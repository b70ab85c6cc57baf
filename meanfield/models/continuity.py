"""The continuity equation of the activations: the law of infinitely many samples, on a fixed grid of cells.

    d_t g + div(v g) = 0,      v = sigma(W x + b), W sigma(x) + b, or V sigma(W x + b) + c

Finite volumes of second order (MUSCL with minmod, SSPRK2) in one or two dimensions: mass is
conserved to round-off and densities stay positive under the CFL condition, which chooses the steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import lookup
from meanfield._muscl import GHOSTS, NO_FLUX, OUTFLOW, PERIODIC
from meanfield.cells import Cells
from meanfield.densities import DensityOnCells
from meanfield.kernels.transport import TILE, fill_ghosts, line_steps, tiles
from meanfield.kernels.transport2d import LEFT, aligned, box_steps, sweep
from meanfield.kernels.transport2d import fill_ghosts as fill_box
from meanfield.parallel import for_blocks, get_threads
from meanfield.schemes import Scheme, StepGrid
from meanfield.velocities import FORMS, Velocity

Array = NDArray[np.float64]

BOUNDARIES = {"no-flux": NO_FLUX, "outflow": OUTFLOW, "periodic": PERIODIC}
# Cells from which threads pay for the handing out of work.
_THREADED = 2**17
_CHUNK = 64
# Rows that a thread takes at a time; four more are computed twice.
_ROWS = 128


@dataclass(frozen=True, eq=False)
class ContinuityEquation(DensityOnCells):
    """Continuity equation on cells; the state is the density g, means over the cells, of the shape of the cells.

    A step costs about 2.5 ns a cell; memory is three arrays of cells, five more in two dimensions unless the
    velocity is W sigma(x) + b.

    Parameters
    ----------
    cells
        Cells in one or two dimensions.
    velocity
        v, of the same dimension.
    boundary
        ``"no-flux"`` (walls), ``"outflow"`` (out but not in) or ``"periodic"``.

    Raises
    ------
    ConfigError
        For dimensions that differ or an unknown boundary.
    """

    cells: Cells
    velocity: Velocity
    boundary: str = "no-flux"
    schemes: tuple[str, ...] = field(default=("ssprk2", "heun", "ssprk3", "euler"), init=False)
    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.check_dimensions()
        lookup("boundary", self.boundary, BOUNDARIES)

    @property
    def certain(self) -> bool:
        """Whether limits of steps are rigorous: parameters that are known between the depths looked at."""
        return self.velocity.layered or (self.velocity.piecewise and self.velocity.form != "two_layer")

    def step_limits(self, edges: Array) -> Array:
        """Largest step in each interval between depths: dt sum_i max(|v_i|, h_i |d_i v_i|)/h_i <= 1/2.

        Up to 2/3 no cell loses more than it holds: half slopes are at most half of it, and where both faces of a cell
        let mass out, their velocities differ by at most h |d v|. Beyond 1/2 one-sided slopes under two stages amplify
        round-off. Parameters given by callables are sampled, with a tenth to spare; `check_steps` looks again.
        """
        share = np.linspace(0.0, 1.0, 2 if self.certain else 5)
        times = edges[:-1, None] + np.diff(edges)[:, None] * share
        # A piece sees its parameters from the inside, also where they jump.
        times[:, -1] = np.nextafter(edges[1:], edges[:-1])
        spare = 1.0 if self.certain else 1.1
        # Sums over neurons are bounded poorly term by term: look at the faces.
        rates = self._face_rates(times) if self.velocity.form == "two_layer" else self._bounded_rates(times)
        return np.asarray(1.0 / np.maximum(spare * rates, 1e-300))

    def _bounded_rates(self, times: Array) -> Array:
        """Bounds of 1/dt at the limit, for rows of depths (K, T)."""
        speed, slope = self.velocity.bounds(times, self.cells.lower, self.cells.upper)
        h = np.array(self.cells.spacing)
        return np.asarray(2.0 * (np.maximum(speed, h * slope) / h).sum(axis=1))

    def _face_rates(self, times: Array) -> Array:
        """1/dt at the limit by the faces, for rows of depths (K, T)."""
        return np.array([max(self._rate_at(t) for t in set(row.tolist())) for row in times])

    def _rate_at(self, t: float) -> float:
        """1/dt at the limit, from the faces at depth t; kept for the parameters last seen."""
        row = self.velocity.table(np.array(t))
        known = self._kept.get("rate")
        if known is not None and np.array_equal(known[0], row):
            return float(known[1])
        total = np.zeros(self.shape)
        for axis, h in enumerate(self.cells.spacing):
            v = np.moveaxis(self.face_velocities(t, axis), axis, 0)
            worst = np.maximum(np.maximum(np.abs(v[1:]), np.abs(v[:-1])), np.abs(v[1:] - v[:-1]))
            total += np.moveaxis(worst, 0, axis) / h
        rate = 2.0 * float(total.max())
        self._kept["rate"] = (row, rate)
        return rate

    def check_steps(self, times: Array, lengths: Array) -> None:
        """Raise `NumericalError` for a step (stages (n, s), lengths (n,)) that turns out to be too long."""
        if self.certain:
            return
        excess = lengths * self._bounded_rates(times)
        doubtful = ~(excess <= 1.0 + 1e-12)
        if self.velocity.form == "two_layer" and doubtful.any():
            excess[doubtful] = lengths[doubtful] * self._face_rates(times[doubtful])
        if not (excess <= 1.0 + 1e-12).all():
            k = int(np.argmax(excess))
            self.refuse_step(float(times[k, 0]), float(lengths[k]), float(lengths[k] / excess[k]))

    def face_velocities(self, t: float, axis: int) -> Array:
        """Velocity normal to the faces along an axis, (n + 1,) or one more along that axis; closed at walls."""
        points, shape = self.cells.face_points(axis)
        v: Array = self.velocity.value(t, points)[axis].reshape(shape)
        across = np.moveaxis(v, axis, 0)
        if self.boundary == "periodic":
            across[-1] = across[0]
        else:
            opened = self.boundary == "outflow"
            across[0] = np.minimum(across[0], 0.0) * opened
            across[-1] = np.maximum(across[-1], 0.0) * opened
        return v

    def rate(self, t: float, y: Array, out: Array) -> None:
        """Fill out with -div(v g) of the limited reconstruction."""
        out[...] = 0.0
        for axis in range(y.ndim):
            v = np.moveaxis(self.face_velocities(t, axis), axis, 0)
            flux = _flux(v, np.moveaxis(y, axis, 0), periodic=self.boundary == "periodic")
            out -= np.moveaxis(np.diff(flux, axis=0), 0, axis) / self.cells.spacing[axis]

    def fused(self, scheme: Scheme) -> bool:
        """Whether `advance` has a compiled path for the scheme: SSPRK2, whose tableau is Heun's."""
        return scheme.name in ("ssprk2", "heun")

    def advance(self, scheme: Scheme, grid: StepGrid, first: int, count: int, y: Array, out: Array) -> None:
        """Fill out with the state after `count` steps of a step grid, from y before them.

        Equal to the generic loop to round-off; advancing n steps and then m gives the bytes of advancing n + m.
        """
        run = self._advance_line if y.ndim == 1 else self._advance_box
        times, lengths = grid.steps(scheme, first, count)
        self.check_steps(times, lengths)
        rows, columns = len(y) + 2 * GHOSTS, y.shape[1:]
        make = partial(aligned, rows, *columns) if columns else partial(np.zeros, rows)
        inside = (slice(GHOSTS, -GHOSTS), *(slice(LEFT, LEFT + m) for m in columns))
        # Fresh pages cost as much as a step: two arrays are kept between the calls, taken by one thread at a time.
        u, work = self._kept.pop("work", None) or (make(), make())
        u[inside] = y
        result = run(times, lengths, u, work)
        out[...] = result[inside]
        self._kept["work"] = (u, work)

    def _advance_line(self, times: Array, lengths: Array, u: Array, work: Array) -> Array:
        cells, velocity, boundary = self.cells, self.velocity, BOUNDARIES[self.boundary]
        given = np.empty((2, 0))
        if velocity.constant:
            given = self._once("faces", self._padded_faces)
            table = np.zeros((len(lengths), 2, 1))
        else:
            table = velocity.table(times)
        head = velocity.activation.code, FORMS[velocity.form], velocity.width
        low, dx = cells.lower[0], cells.spacing[0]
        table = np.ascontiguousarray(table)
        if get_threads() == 1 or cells.shape[0] < _THREADED:
            line_steps(*head, table, given, low, dx, lengths, boundary, u, work)
            return u
        for rows, dt in zip(table, lengths.tolist(), strict=True):
            fill_ghosts(boundary, u)
            step = partial(tiles, *head, rows, given, low, dx, dt, boundary, u, work)
            for_blocks(step, cells.shape[0], 32 * TILE)
            u, work = work, u
        return u

    def _once(self, name: str, make: Any) -> Any:
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def _padded_faces(self) -> Array:
        """Velocities at the faces -4 .. N + 4, both stages, (2, N + 9); 0 beyond walls, wrapped if periodic."""
        v = self.face_velocities(0.0, 0)
        if self.boundary == "periodic":
            n = len(v) - 1
            v = v[np.arange(-GHOSTS, n + GHOSTS + 1) % n]
        else:
            v = np.pad(v, GHOSTS)
        return np.stack([v, v])

    def _advance_box(self, times: Array, lengths: Array, u: Array, work: Array) -> Array:
        boundary = BOUNDARIES[self.boundary]
        alone = get_threads() == 1 or math.prod(self.shape) < _THREADED
        chunk = _CHUNK if self.velocity.constant or self.velocity.form == "inside" else 1
        for start in range(0, len(lengths), chunk):
            part = slice(start, start + chunk)
            base_1, base_2, w, t_1, t_2 = self._affine(times[part], lengths[part])
            if alone:
                box_steps(boundary, base_1, base_2, w, t_1, t_2, u, work)
                u, work = (work, u) if len(w) % 2 else (u, work)
                continue
            for k in range(len(w)):
                fill_box(boundary, self.shape[1], u)
                step = partial(sweep, boundary, base_1, base_2, w[k], t_1[k], t_2[k], u, work)
                for_blocks(step, self.shape[0], _ROWS)
                u, work = work, u
        return u

    def _affine(self, times: Array, lengths: Array) -> tuple[Array, Array, Array, Array, Array]:
        """Velocities as w base + t for the kernels of the plane, all times dt / h; see `kernels.transport2d`."""
        velocity, n, count = self.velocity, self.shape[0], len(lengths)
        lam = (lengths[:, None] / np.array(self.cells.spacing))[:, None, :]
        if velocity.form == "inside":
            (c_1, c_2), (f_1, f_2) = self._once("sides", self._sides)
            table = velocity.table(times)
            w, b = table[..., :4].reshape(count, 2, 2, 2), table[..., 4:]
            t_1 = lam[..., 0, None] * (w[..., 0, 0, None] * f_1 + b[..., 0, None])
            t_2 = lam[..., 1, None] * (w[..., 1, 0, None] * c_1 + b[..., 1, None])
            factors = lam * w[..., :, 1]
            return c_2[None, None], f_2[None, None], factors, np.ascontiguousarray(t_1), np.ascontiguousarray(t_2)
        if velocity.constant:
            base_1, base_2 = self._once("faces", lambda: [self.face_velocities(0.0, d)[None] for d in (0, 1)])
        else:
            base_1, base_2 = (np.stack([self.face_velocities(t, d) for t in times[0]]) for d in (0, 1))
        w = np.ascontiguousarray(np.broadcast_to(lam, (count, 2, 2)))
        return base_1, base_2, w, np.zeros((count, 2, n + 1)), np.zeros((count, 2, n))

    def _sides(self) -> tuple[list[Array], list[Array]]:
        """Value of sigma at the centres and at the faces along both axes."""
        value = self.velocity.activation.value
        return [value(self.cells.centres(d)) for d in (0, 1)], [value(self.cells.faces(d)) for d in (0, 1)]

    def describe(self) -> dict[str, Any]:
        """What determines the model, for digests of runs."""
        return {
            "model": "ContinuityEquation",
            "cells": self.cells,
            "velocity": self.velocity,
            "boundary": self.boundary,
        }


def _minmod(a: Array, b: Array) -> Array:
    return np.asarray(np.where(a * b > 0.0, np.where(np.abs(a) < np.abs(b), a, b), 0.0))


def _flux(v: Array, g: Array, *, periodic: bool) -> Array:
    """Upwind flux through the faces of the first axis, v (n + 1, ...), g (n, ...)."""
    if periodic:
        padded = np.concatenate([g[-2:], g, g[:2]])
    else:
        first, last = np.maximum(2 * g[:1] - g[1:2], 0.0), np.maximum(2 * g[-1:] - g[-2:-1], 0.0)
        zero = np.zeros_like(first)
        padded = np.concatenate([zero, first, g, last, zero])
    half = 0.5 * _minmod(padded[1:-1] - padded[:-2], padded[2:] - padded[1:-1])
    c = padded[1:-1]
    return np.asarray(np.where(v > 0.0, v * (c[:-1] + half[:-1]), v * (c[1:] - half[1:])))
