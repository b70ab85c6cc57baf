"""A flow to be followed: the field, where it starts, for how long, and what is known about it.

    x' = f(t, x),   x(0) in K = [lo, hi],   0 <= t <= T

with its time integrals at points, its flow by a reference solution, and a box that no trajectory leaves. Errors and
sizes are in the maximum norm.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from meanfield._checks import finite_array, finite_float
from meanfield.constructions.quadrature import Pieces, integrate_in_time, integrate_roughly
from meanfield.errors import ConfigError, NumericalError
from meanfield.kuhn import KuhnMesh, checked_box

Array = NDArray[np.float64]
Callback = Callable[[Any, Any], Any]

# Nodes an axis of the grid on which sizes are looked at, by dimension; few beyond 4.
_SAMPLES = {1: 257, 2: 33, 3: 13, 4: 7}
# Looked at finer than the mesh up to so many nodes.
_FINE = 20_000
# Nodes whose surroundings are looked at on larger meshes.
_LOOKED_AT = 1024
# A neighbourhood that grows beyond so many diameters of the start is taken from trajectories instead.
_DIAMETERS = 4.0
# Part of their extent by which the box around sampled trajectories is larger.
_INFLATION = 0.05
# Relative tolerance of time integrals of sizes, by which they are rounded up.
_ROUGHLY = 1e-2


class Sizes(NamedTuple):
    """Of a field at one time: Lipschitz constant, largest value, distance to its interpolant, one-sided constant.

    The last is the logarithmic norm, or 0 if that is negative.
    """

    lipschitz: float
    largest: float
    gap: float
    one_sided: float


@dataclass(frozen=True, eq=False)
class FlowProblem:
    """Flow of a field from a box.

    Parameters
    ----------
    field
        f(t, x) with a time and points (d, n), giving (d, n). A method ``integral(t0, t1, x)`` of it, where there is
        one, gives int f(s, x) ds and takes the place of quadrature.
    box
        Corners (lo, hi) of K.
    T
        Length, > 0.
    autonomous
        Whether f does not depend on t.
    breakpoints
        Times where f is not smooth in t.
    reference
        Exact flow, ``reference(t, x)`` with times (m,) and starts (d, n), giving (m, d, n); None integrates by
        DOP853 to 1e-12.
    tolerance
        Of the time integrals of all blocks together.

    Raises
    ------
    ConfigError
        For values out of range, or a field that is not finite on K at t = 0, or whose values have another shape.
    """

    field: Callback
    box: tuple[Array, Array]
    T: float
    autonomous: bool = False
    breakpoints: tuple[float, ...] = ()
    reference: Callback | None = None
    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        object.__setattr__(self, "box", checked_box("box", self.box))
        object.__setattr__(self, "T", finite_float("T", self.T, above=0.0))
        object.__setattr__(self, "tolerance", finite_float("tolerance", self.tolerance, above=0.0))
        kinks = sorted(float(p) for p in finite_array("breakpoints", list(self.breakpoints), shape=(None,)))
        object.__setattr__(self, "breakpoints", tuple(kinks))
        if not callable(self.field):
            raise ConfigError(f"field must be a function of (t, x), got {type(self.field).__name__}")
        self.value(self._early(), self.samples(*self.box))

    @property
    def dim(self) -> int:
        """Dimension d."""
        return len(self.box[0])

    def value(self, t: float, x: Array) -> Array:
        """f(t, x) (d, n), finite."""
        with np.errstate(all="ignore"):
            found = np.asarray(self.field(t, x), dtype=np.float64)
        if found.shape != x.shape:
            raise ConfigError(f"field returned shape {found.shape} for points of shape {x.shape}")
        if not np.isfinite(found).all():
            where = int(np.argmin(np.isfinite(found).all(axis=0)))
            place = ", ".join(f"{v:.6g}" for v in x[:, where])
            worst = found[:, where][~np.isfinite(found[:, where])][0]
            raise ConfigError(
                f"field must be finite on the box, got {worst} at t = {t:.9g}, x = ({place})"
                f"{'' if np.isnan(worst) else '; a time where it is infinite and integrable must be a breakpoint'}"
            )
        return found

    def integral(self, t0: float, t1: float, x: Array, share: float = 1.0) -> Array:
        """int_{t0}^{t1} f(s, x) ds (d, n), to a share of the tolerance, or NumericalError."""
        if self.autonomous:
            return (t1 - t0) * self.value(t0, x)
        own = getattr(self.field, "integral", None)
        if own is not None:
            return finite_array("integral of the field", own(t0, t1, x), shape=x.shape)
        return integrate_in_time(
            lambda t: self.value(t, x), t0, t1, atol=share * self.tolerance, points=self.breakpoints,
            what="the time integral of the field",
        ).value  # fmt: skip

    def flow(self, times: Array, x: Array, start: float | None = None) -> Array:
        """States (m, d, n) at increasing times (m,), from x (d, n) in K at time 0, or anywhere at `start` by DOP853.

        Raises
        ------
        NumericalError
            If DOP853 cannot go on, with the time; or if the given reference is not finite.
        """
        if self.reference is not None and start is None:
            return finite_array("reference", self.reference(times, x), shape=(len(times), *x.shape))
        begin = start or 0.0
        states = np.empty((len(times), x.size))
        stops = [p for p in self.breakpoints if begin < p < times[-1]]
        here, at = x.ravel(), begin
        for stop in [*stops, float(times[-1])]:
            part = (times >= at) & (times <= stop)
            if stop > at:
                there = self._solved(np.append(times[part], stop), at, stop, here, x.shape)
                states[part], here, at = there[:-1], there[-1], stop
            else:
                states[part] = here
        return states.reshape(len(times), *x.shape)

    def _solved(self, times: Array, t0: float, t1: float, y: Array, shape: tuple[int, ...]) -> Array:
        """States by DOP853 at times from t0 to t1, where the field may be infinite at either."""
        nudge = 1e-14 * self.T
        inner = t0 + nudge * (t0 == 0.0 or t0 in self.breakpoints), t1 - nudge * (t1 in self.breakpoints)
        wanted, back = np.unique(np.clip(times, *inner), return_inverse=True)
        solution: Any = solve_ivp(
            self._rate(shape), inner, y, method="DOP853", rtol=1e-12, atol=1e-13, t_eval=wanted
        )  # fmt: skip
        if not solution.success:
            raise NumericalError(
                f"the reference flow from t = {t0:g} does not reach t = {t1:g}: {solution.message.rstrip('.')}; "
                "trajectories leave every box, or the field needs breakpoints or a reference"
            )
        return np.asarray(solution.y.T[back.reshape(-1)])

    def _rate(self, shape: tuple[int, ...]) -> Callable[[float, Array], Array]:
        def rate(t: float, y: Array) -> Array:
            with np.errstate(all="ignore"):
                return np.asarray(self.field(t, y.reshape(shape)), dtype=np.float64).ravel()

        return rate

    def _early(self) -> float:
        """A time shortly after 0, where the field may be singular."""
        return 0.0 if self.autonomous else 1e-3 * self.T / np.pi

    def samples(self, lo: Array, hi: Array) -> Array:
        """Grid of points of a box, corners included, (d, n)."""
        return KuhnMesh(lo, hi, np.array([_SAMPLES.get(self.dim, 3) - 1])).nodes()

    def neighbourhood(self, margin: Any = None) -> tuple[Array, Array]:
        """Box that trajectories from K stay in, and networks that follow them.

        Parameters
        ----------
        margin
            By how much it is larger than K, a number or (d,); None takes int_0^T sup |f_j| along every axis where that
            settles (f bounded), so that blocks of time averages cannot leave it, and otherwise the box around sampled
            trajectories, larger by 5 % of it.

        Raises
        ------
        ConfigError
            If trajectories leave the box of a given margin, with the time and the place.
        """
        lo, hi = self.box
        if margin is not None:
            width = np.broadcast_to(finite_array("margin", margin), lo.shape)
            if (width < 0.0).any():
                raise ConfigError(f"margin must be >= 0, got {width.min():g}")
            self._check_stays(lo - width, hi + width)
            return lo - width, hi + width
        low, high = lo, hi
        for _ in range(20):
            width = self._travelled(low, high)
            settled = (lo - width >= low - 1e-9 * width).all() and (hi + width <= high + 1e-9 * width).all()
            if settled:
                return low, high
            low, high = lo - width, hi + width
            if not np.isfinite(width).all() or (width > _DIAMETERS * (hi - lo).max()).any():
                break
        return self._around_trajectories()

    def _travelled(self, lo: Array, hi: Array) -> Array:
        """int_0^T sup |f_j| over a box, (d,)."""
        points = self.samples(lo, hi)
        if self.autonomous:
            return np.asarray(self.T * np.abs(self.value(0.0, points)).max(axis=1))
        found = self._integral_of_sizes(
            lambda t: np.abs(self.value(t, points)).max(axis=1), np.linspace(0.0, self.T, 65)
        )
        return found.value * (1.0 + _ROUGHLY)

    def _integral_of_sizes(self, function: Callable[[float], Array], grid: Array) -> Pieces:
        """Integral over [0, T] of sizes of the field, which need not be known to more than a hundredth."""
        inner = [p for p in self.breakpoints if 0.0 < p < self.T]
        ends = np.union1d(grid, np.array(inner))
        return integrate_roughly(function, ends, rtol=_ROUGHLY, what="the integral of the size of the field")

    def trajectories(self) -> tuple[Array, Array]:
        """Times (65,) and states (65, d, n) from a grid of K that holds its corners."""
        times = np.linspace(0.0, self.T, 65)
        mesh = KuhnMesh(*self.box, np.array([max(2, _SAMPLES.get(self.dim, 3) // 4)]))
        return times, self.flow(times, mesh.nodes())

    def _around_trajectories(self) -> tuple[Array, Array]:
        _, states = self.trajectories()
        low, high = states.min(axis=(0, 2)), states.max(axis=(0, 2))
        extent = _INFLATION * (high - low)
        return low - extent, high + extent

    def _check_stays(self, lo: Array, hi: Array) -> None:
        times, states = self.trajectories()
        out = np.maximum(lo[:, None] - states, states - hi[:, None])
        if out.max() > 0.0:
            k, axis, point = np.unravel_index(int(np.argmax(out)), out.shape)
            raise ConfigError(
                f"a trajectory leaves the box by {out.max():.6g} along axis {axis}, at t = {times[k]:.6g}, "
                f"x = {states[k, axis, point]:.6g} outside [{lo[axis]:g}, {hi[axis]:g}]; the margin must be larger"
            )

    def sizes(self, t: float, mesh: KuhnMesh) -> Sizes:
        """Lipschitz constant, size and interpolation error of f(t, .) on a mesh, seen at its nodes and between them."""
        if mesh.n_nodes * 2**mesh.dim <= _FINE:
            fine = _refined(mesh)
            values = self.value(t, fine.nodes)
            gap = float(np.abs(mesh.interpolate(values[:, fine.kept], fine.nodes) - values).max())
            return _sizes(fine.mesh, values, gap)
        values = self.value(t, _nodes(mesh))
        found = mesh.bends(values)
        worst = np.argpartition(found, -_LOOKED_AT)[-_LOOKED_AT:] if found.size > _LOOKED_AT else np.arange(found.size)
        between = mesh.middles(worst)
        gap = float(np.abs(mesh.interpolate(values, between) - self.value(t, between)).max())
        return _sizes(mesh, values, gap)

    def sizes_over_time(self, mesh: KuhnMesh, edges: Array | None = None) -> Pieces:
        """Time integrals of `sizes`, rounded up by a hundredth; few edges become ends of intervals."""
        if self.autonomous:
            now = np.array(self.sizes(0.0, mesh))
            return Pieces(self.T * now, 0.0, np.array([0.0, self.T]), self.T * now[None])
        grid = edges if edges is not None and len(edges) <= 65 else np.linspace(0.0, self.T, 65)
        found = self._integral_of_sizes(lambda t: np.array(self.sizes(t, mesh)), grid)
        larger = 1.0 + _ROUGHLY
        return Pieces(larger * found.value, found.error, found.ends, larger * found.parts)


def _sizes(mesh: KuhnMesh, values: Array, gap: float) -> Sizes:
    return Sizes(mesh.lipschitz(values), float(np.abs(values).max()), gap, max(0.0, mesh.one_sided(values)))


class _Fine(NamedTuple):
    mesh: KuhnMesh
    nodes: Array
    kept: NDArray[np.int64]


@functools.lru_cache(maxsize=8)
def _refined(mesh: KuhnMesh) -> _Fine:
    """Mesh of half the width, its nodes, and which of them are those of the mesh."""
    fine = mesh.refined()
    index = np.arange(fine.n_nodes).reshape(fine.shape)
    return _Fine(fine, fine.nodes(), index[*itertools.repeat(slice(None, None, 2), mesh.dim)].ravel())


@functools.lru_cache(maxsize=1)
def _nodes(mesh: KuhnMesh) -> Array:
    return mesh.nodes()
