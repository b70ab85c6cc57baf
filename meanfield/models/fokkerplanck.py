"""The Fokker-Planck equation of noisy activations, by finite volumes whose steady state is the true one.

    d_t g + div(v g) = (nu^2/2) Laplace(K^2 g),      d x = v dt + nu K(x) dB   (Ito)

Across a face the flux is that of the exact solution with constant flux (Scharfetter-Gummel): with
P = (2/nu^2) int v/K^2 between the centres and B(z) = z/(e^z - 1),

    J = (nu^2/(2 h)) (B(-P) K_i^2 g_i - B(P) K_{i+1}^2 g_{i+1}),

which vanishes exactly where K^2 g e^{-int 2 v/(nu K)^2} is constant. Mass is conserved to round-off and densities
stay positive under the step limit, which chooses the steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, finite_float
from meanfield.cells import Cells, exchange_weights, tensor_points
from meanfield.densities import DensityOnCells
from meanfield.errors import ConfigError, NumericalError
from meanfield.formulas import strength_at
from meanfield.kernels.diffusion import two_stages
from meanfield.schemes import Scheme, StepGrid
from meanfield.velocities import Velocity

Array = NDArray[np.float64]

_GAUSS = np.polynomial.legendre.leggauss(6)
_PINS = 12
# What a step stays below the longest one, so that rounding leaves nothing negative.
_ROUNDING = 1e-13


@dataclass(frozen=True, eq=False)
class _Faces:
    """Exchange coefficients over the faces of both axes, already over h, and the longest positive step."""

    coefficients: tuple[Array, Array, Array, Array]
    longest: float


@dataclass(frozen=True, eq=False)
class FokkerPlanck(DensityOnCells):
    """Fokker-Planck equation on cells with walls; the state is the density g, means over the cells.

    Of second order in the cell where diffusion matters; where |P| is large a face is upwind, of order one.
    Steps are O(h^2).

    Parameters
    ----------
    cells
        Cells in one or two dimensions.
    velocity
        v, of the same dimension.
    nu
        Strength of the noise, > 0.
    amplitude
        K: a number or a NumPy-vectorised callable of the coordinates, K(x) or K(x_1, x_2), without zeros
        inside the box.

    Raises
    ------
    ConfigError
        For dimensions that differ, nu <= 0 or an amplitude with zeros.
    ResourceError
        For more cells than memory holds.
    """

    cells: Cells
    velocity: Velocity
    nu: float
    amplitude: Any = 1.0
    schemes: tuple[str, ...] = field(default=("ssprk2", "heun", "ssprk3", "euler"), init=False)
    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.check_dimensions()
        object.__setattr__(self, "nu", finite_float("nu", self.nu, above=0.0))
        if not 1e-100 < self.nu < 1e100:
            raise ConfigError(f"nu is out of range: {self.nu!r}")
        if not callable(self.amplitude):
            finite_float("amplitude", self.amplitude)
        check_memory("coefficients of the faces", 8 * 12 * int(np.prod(self.shape)))
        self._check_amplitude()

    def _check_amplitude(self) -> None:
        """Refuse an amplitude that vanishes at a centre or a face, or changes sign between two centres."""
        words = "amplitude must not be 0 inside the box: no mass crosses such a point; cut the box there"
        k = self._strength(self.cells.points()).reshape(self.shape)
        for axis in range(k.ndim):
            sides = [self.cells.faces(d)[1:-1] if d == axis else self.cells.centres(d) for d in range(k.ndim)]
            between = self._strength(tensor_points(sides))
            signs = np.sign(k)
            if (signs == 0.0).any() or (between == 0.0).any() or (np.diff(signs, axis=axis) != 0.0).any():
                raise ConfigError(words)

    def _strength(self, points: Array) -> Array:
        """K at points (D, n)."""
        return finite_array("amplitude", np.array(strength_at(self.amplitude, points)))

    def _squares(self, points: Array) -> Array:
        return np.asarray(self._strength(points) ** 2)

    def drops(self, t: float, axis: int = 0) -> Array:
        """P = (2/nu^2) int v/K^2 from each centre to the next along an axis.

        By Gauss quadrature; on a line with a constant K by the primitive of sigma, else cut at its kinks.
        """
        factor = 2.0 / self.nu**2
        if self.cells.dim == 1 and not callable(self.amplitude):
            return np.asarray(
                factor / float(self.amplitude) ** 2 * np.diff(self.velocity.primitive(t, self.cells.centres()))
            )
        if self.cells.dim == 1:
            centres = self.cells.centres()
            cuts = np.union1d(centres, [x for x in self.velocity.kinks(t) if centres[0] < x < centres[-1]])
            pieces = self._integral(t, cuts[None, :-1], np.diff(cuts), 0)
            return np.asarray(factor * np.add.reduceat(pieces, np.searchsorted(cuts, centres[:-1])))
        axes = [self.cells.centres(d)[:-1] if d == axis else self.cells.centres(d) for d in range(2)]
        found = self._integral(t, tensor_points(axes), self.cells.spacing[axis], axis)
        return np.asarray(factor * found.reshape([len(x) for x in axes]))

    def _integral(self, t: float, starts: Array, lengths: Any, axis: int) -> Array:
        """Integral of v_axis/K^2 over stretches along an axis from points (D, n)."""
        total = np.zeros(starts.shape[1])
        for s, w in zip(*_GAUSS, strict=True):
            points = starts.copy()
            points[axis] += 0.5 * (s + 1.0) * lengths
            total += 0.5 * w * lengths * self.velocity.value(t, points)[axis] / self._squares(points)
        return total

    def _faces(self, t: float) -> _Faces:
        """Coefficients at depth t, kept for the parameters last seen."""
        row = self.velocity.table(np.array(t))
        known = self._kept.get("faces")
        if known is not None and np.array_equal(known[0], row):
            faces: _Faces = known[1]
            return faces
        if "squares" not in self._kept:
            self._kept["squares"] = self._squares(self.cells.points()).reshape(self.shape)
        squares: Array = self._kept["squares"]
        outflow, pairs = np.zeros(self.shape), []
        for axis, h in enumerate(self.cells.spacing):
            low, high = (tuple(_side(d == axis, end) for d in range(len(self.shape))) for end in (0, 1))
            ahead, back = exchange_weights(self.drops(t, axis))
            up, down = ((0.5 * self.nu**2 / h**2) * b * squares[k] for b, k in ((ahead, low), (back, high)))
            outflow[low] += up
            outflow[high] += down
            pairs.append((up, down))
        if len(pairs) == 1:
            empty = np.empty((0, self.shape[0]))
            pairs = [(empty, empty), (pairs[0][0][None], pairs[0][1][None])]
        made = _Faces((*pairs[0], *pairs[1]), float((1.0 - _ROUNDING) / max(outflow.max(), 1e-300)))
        self._kept["faces"] = (row, made)
        return made

    @property
    def certain(self) -> bool:
        """Whether limits of steps are rigorous: parameters that are constant between the breakpoints."""
        return self.velocity.layered

    def step_limits(self, edges: Array) -> Array:
        """Largest step in each interval between depths: no cell gives away more than it holds.

        Parameters that change with depth are sampled, with a tenth to spare; `check_steps` looks again.
        """
        if self.velocity.constant:
            return np.full(len(edges) - 1, self._faces(0.0).longest)
        limits = np.empty(len(edges) - 1)
        for k, (a, b) in enumerate(pairwise(edges.tolist())):
            times = [a] if self.certain else np.minimum(np.linspace(a, b, 5), np.nextafter(b, a)).tolist()
            limits[k] = min(self._faces(t).longest for t in times) / (1.0 if self.certain else 1.1)
        return limits

    def check_steps(self, times: Array, lengths: Array) -> None:
        """Raise `NumericalError` for a step (stages (n, s), lengths (n,)) that turns out to be too long."""
        if self.certain:
            return
        for row, dt in zip(times.tolist(), lengths.tolist(), strict=True):
            self._check_step(dt, row[0], [self._faces(t) for t in row])

    def _check_step(self, dt: float, t: float, stages: list[_Faces]) -> None:
        longest = min(faces.longest for faces in stages)
        if dt > longest * (1.0 + 1e-12):
            self.refuse_step(t, dt, longest)

    def rate(self, t: float, y: Array, out: Array) -> None:
        """Fill out with the rate of the density."""
        up_1, down_1, up_2, down_2 = self._faces(t).coefficients
        g, rate = y.reshape(-1, y.shape[-1]), np.zeros((y.size // y.shape[-1], y.shape[-1]))
        for flux, low, high in (
            (up_1 * g[:-1] - down_1 * g[1:], np.s_[:-1], np.s_[1:]),
            (up_2 * g[:, :-1] - down_2 * g[:, 1:], np.s_[:, :-1], np.s_[:, 1:]),
        ):
            rate[low] -= flux
            rate[high] += flux
        out[...] = rate.reshape(y.shape)

    def fused(self, scheme: Scheme) -> bool:
        """Whether `advance` has a compiled path for the scheme: SSPRK2, whose tableau is Heun's."""
        return scheme.name in ("ssprk2", "heun")

    def advance(self, scheme: Scheme, grid: StepGrid, first: int, count: int, y: Array, out: Array) -> None:
        """Fill out with the state after `count` steps of a step grid, from y before them.

        Equal to the generic loop to round-off; advancing n steps and then m gives the bytes of advancing n + m.

        Raises
        ------
        NumericalError
            If a step turns out to be longer than positivity allows.
        """
        times, lengths = grid.steps(scheme, first, count)
        u = y.reshape(-1, y.shape[-1]).copy()
        work = np.empty((2, *u.shape))
        if self.velocity.constant:
            both = [np.stack([c, c]) for c in self._faces(0.0).coefficients]
            two_stages(both[0], both[1], both[2], both[3], lengths, u, work[0], work[1])
        else:
            for row, dt in zip(times.tolist(), lengths.tolist(), strict=True):
                stages = [self._faces(t) for t in row]
                self._check_step(dt, row[0], stages)
                both = [np.stack(pair) for pair in zip(*(s.coefficients for s in stages), strict=True)]
                two_stages(both[0], both[1], both[2], both[3], np.array([dt]), u, work[0], work[1])
        out[...] = u.reshape(y.shape)

    def steady_state(self, t: float = 0.0) -> Array:
        """Density of mass 1 that does not change under the parameters at depth t.

        On a line g_i = exp(sum P)/K_i^2, without an equation to solve; in two dimensions by a sparse one.
        """
        if self.cells.dim == 1:
            level = np.concatenate([[0.0], np.cumsum(self.drops(t))])
            log = level - np.log(self._squares(self.cells.points()))
            g = np.exp(log - log.max())
            return np.asarray(g / self.cells.mass(g))
        return self._sparse_steady_state(t)

    def _sparse_steady_state(self, t: float) -> Array:
        from scipy.sparse import coo_array  # noqa: PLC0415 (slow to import)
        from scipy.sparse.linalg import splu  # noqa: PLC0415

        up_1, down_1, up_2, down_2 = self._faces(t).coefficients
        number = np.arange(int(np.prod(self.shape))).reshape(self.shape)
        rows, columns, values = [], [], []
        for up, down, a, b in (
            (up_1, down_1, number[:-1], number[1:]),
            (up_2, down_2, number[:, :-1], number[:, 1:]),
        ):
            for weight, source, target in ((up, a, b), (down, b, a)):
                rows += [target.ravel(), source.ravel()]
                columns += [source.ravel(), source.ravel()]
                values += [weight.ravel(), -weight.ravel()]
        n = number.size
        matrix = coo_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (n, n)).tocsc()
        # The columns sum to 0: with the value 1 in one cell the others follow from a regular system. It must be a
        # cell that holds some mass, or the rest is lost in round-off: the fullest one, found by trying.
        pinned = int(np.argmin(np.abs(matrix.diagonal())))
        for _ in range(_PINS):
            keep = np.delete(np.arange(n), pinned)
            g = np.ones(n)
            g[keep] = splu(matrix[keep][:, keep].tocsc()).solve(-matrix[keep][:, [pinned]].toarray().ravel())
            fullest = int(np.argmax(np.abs(g)))
            if abs(g[fullest]) < 10.0:
                break
            pinned = fullest
        scale = np.abs(matrix.diagonal()).max() * np.abs(g).max()
        if not np.abs(matrix @ g).max() <= 1e-9 * scale or g.min() < -1e-9 * np.abs(g).max():
            raise NumericalError(
                "the steady state was not found: round-off outweighs the flux; take wider noise or fewer cells"
            )
        g = np.maximum(g, 0.0).reshape(self.shape)
        return np.asarray(g / self.cells.mass(g))

    def describe(self) -> dict[str, Any]:
        """What determines the model, for digests of runs."""
        return {
            "model": "FokkerPlanck",
            "cells": self.cells,
            "velocity": self.velocity,
            "nu": self.nu,
            "amplitude": self.amplitude,
        }


def _side(moves: bool, end: int) -> slice:
    """Cells before (end 0) or behind (end 1) the faces of an axis."""
    if not moves:
        return slice(None)
    return slice(None, -1) if end == 0 else slice(1, None)
