"""The space-time network on a mesh of labels that moves with depth, node count constant.

With Z_i(t) = z(t, x_i(t)) the chain rule gives

    d_t Z_i = xdot_i d_x z(t, x_i) + F_i,   d_t x_i = xdot_i

    inside:   F_i = -gamma Z_i + sum_j q_j w(t, x_i, x_j) sigma(Z_j) + b(t, x_i)
    outside:  F_i = -gamma Z_i + sigma( sum_j q_j w(t, x_i, x_j) Z_j + b(t, x_i) )

with weights q_j(t) of the mesh as it stands. Source: Esteve, Geshkovski, Pighin, Zuazua,
"Large-time asymptotics in deep learning", arXiv 2008.02491 (variable widths by a moving
grid, in words); the formulas are a consequence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._activate import apply_value
from meanfield._checks import check_memory, finite_array, finite_float, lookup, one_of, positive_int
from meanfield.activations import Activation, activation
from meanfield.controls import Controls
from meanfield.errors import ConfigError, NumericalError
from meanfield.fields import Field
from meanfield.formulas import check_kernel, field_at, kernel_between
from meanfield.grids import Grid
from meanfield.kernels.mesh import CENTRAL, FOURTH, UPWIND, add_transport, cell_weights, derivative_stencils
from meanfield.meshes import Equidistribution
from meanfield.operators.onthefly import RadialProduct
from meanfield.operators.radial import RadialKernel
from meanfield.parallel import blas_single_thread
from meanfield.storage.layout import Axis

Array = NDArray[np.float64]
Velocity = Callable[[float, Array], Any]

# End nodes may leave the interval by round-off.
_OUTSIDE = 1e-9
# Differences, their nodes, and the largest |xdot| dt/h: 1 for upwind under Euler; for the others the bound on the
# imaginary axis of third-order Runge-Kutta steps, sqrt(3), over the largest wave number of the differences.
_TRANSPORT = {"upwind": (UPWIND, 2, 1.0), "central": (CENTRAL, 3, 1.73), "fourth": (FOURTH, 5, 1.26)}


@dataclass(frozen=True, eq=False, init=False)
class MovingGridNetwork:
    """Space-time network on a moving mesh, in one dimension or on tensor products in two.

    The state packs n rows of activations and D rows of labels, (n + D, N), so that schemes, saving and
    resuming need not know of the mesh; `pack`, `unpack` and `grid_at` go between the two.

    Kept at every depth, whatever the motion: the weights sum to 1, a field constant in x is carried
    exactly, and nodes keep their order (a mesh that tangles is an error). The integral of z is not
    conserved, in the equation or here: labels are not mass.

    Parameters
    ----------
    grid
        Nodes at the start: an interval, a circle, or a tensor product of them.
    kernel
        w(x, y) or w(t, x, y), NumPy-vectorised, or a `RadialKernel`, evaluated in compiled loops.
    activation
        Name of sigma or an `Activation`.
    bias
        A number, `Controls` of numbers, or a callable b(x) or b(t, x).
    velocity
        xdot: an `Equidistribution`, or a callable of t and labels, (N,) or (N, D), to velocities of that shape;
        on a tensor product component d may depend on x_d alone.
    transport
        ``"upwind"`` (order 1), ``"central"`` (2) or ``"fourth"`` (4) differences of z. The quadrature is of
        order 2 on an interval; on a circle of order 2, or 4 with ``"fourth"``, if the mesh is smooth.
    placement
        ``"outside"``: sigma(W z + b); ``"inside"``: W sigma(z) + b.
    leak
        gamma >= 0.
    least_spacing
        Length of a cell below which the mesh counts as tangled; None is 1e-3 / N for N nodes a side.
    n_samples
        Number of samples n; None for a single field.

    Raises
    ------
    ConfigError
        For grids that are no intervals, circles or products of them, or values out of range.
    NumericalError
        From `rate`, where the mesh tangles or the weights lose their sign.
    """

    grid: Grid
    kernel: Any
    activation: Activation
    bias: Any
    velocity: Equidistribution | Velocity
    transport: str
    placement: str
    leak: float
    least_spacing: float
    n_samples: int | None
    breakpoints: Array
    _periods: tuple[float, ...] = field(repr=False)
    _sides: tuple[int, ...] = field(repr=False)

    def __init__(
        self,
        grid: Grid,
        kernel: Any,
        activation: str | Activation,
        bias: Any = 0.0,
        *,
        velocity: Equidistribution | Velocity,
        transport: str = "central",
        placement: str = "outside",
        leak: float = 0.0,
        least_spacing: float | None = None,
        n_samples: int | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "grid", grid)
        put(self, "_sides", _sides(grid))
        put(self, "_periods", grid.period or (math.inf,) * grid.dim)
        check_kernel(kernel, grid.nodes)
        put(self, "kernel", kernel)
        put(self, "activation", _activation(activation))
        if isinstance(bias, Controls) and bias.shape:
            raise ConfigError(f"bias has shape {bias.shape} at each depth, expected ()")
        put(self, "bias", bias if isinstance(bias, Controls) or callable(bias) else finite_float("bias", bias))
        put(self, "breakpoints", bias.breakpoints if isinstance(bias, Controls) else np.empty(0))
        if not isinstance(velocity, Equidistribution) and not callable(velocity):
            raise ConfigError("velocity must be an Equidistribution or a callable of t and labels")
        put(self, "velocity", velocity)
        lookup("transport", transport, _TRANSPORT)
        put(self, "transport", transport)
        put(self, "placement", one_of("placement", placement, ("outside", "inside")))
        put(self, "leak", finite_float("leak", leak, least=0.0))
        least = (
            1e-3 / max(self._sides)
            if least_spacing is None
            else finite_float("least_spacing", least_spacing, above=0.0)
        )
        put(self, "least_spacing", least)
        put(self, "n_samples", None if n_samples is None else positive_int("n_samples", n_samples))
        n = grid.n_nodes
        pairs = 8 * n * n if not isinstance(kernel, RadialKernel) else 0
        check_memory(f"a state of shape {self.shape}", 64 * self.shape[0] * n + pairs)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the packed state, (n + D, N)."""
        return (self.n_samples or 1) + self.grid.dim, self.grid.n_nodes

    def pack(self, z: Any) -> Array:
        """State at the start: activations (N,) or (n, N) on the nodes of `grid`."""
        lead = () if self.n_samples is None else (self.n_samples,)
        z = finite_array("z", z, shape=(*lead, self.grid.n_nodes))
        return np.concatenate([np.atleast_2d(z), np.atleast_2d(self.grid.nodes.T)])

    def unpack(self, y: Array) -> Array:
        """Activations (N,) or (n, N) of a state."""
        z = y[: self.n_samples or 1]
        return np.ascontiguousarray(z[0] if self.n_samples is None else z)

    def labels(self, y: Array) -> Array:
        """Labels (N,) or (N, D) of a state."""
        x = y[self.n_samples or 1 :]
        return np.ascontiguousarray(x[0] if self.grid.dim == 1 else x.T)

    def weights(self, y: Array) -> Array:
        """Quadrature weights (N,) of the mesh of a state, with sum 1.

        Raises
        ------
        NumericalError
            If one of them is not positive.
        """
        fourth = self.transport == "fourth"
        sides = []
        for x, period in zip(self._axes_of(y), self._periods, strict=True):
            q = np.empty_like(x)
            cell_weights(x, period, fourth and len(x) >= 5, q)
            sides.append(q)
        weights = sides[0] if len(sides) == 1 else np.outer(*sides).ravel()
        if not weights.min() > 0.0:
            raise NumericalError(f"the mesh has a quadrature weight of {weights.min():.3g}: it is too rough")
        return np.asarray(weights)

    def grid_at(self, y: Array) -> Grid:
        """Grid of a state; on a circle its labels may lie outside [0, 1)."""
        return Grid(self.labels(y), self.weights(y), self.grid.period, self.grid.shape)

    def _axes_of(self, y: Array) -> tuple[Array, ...]:
        """Nodes of each side, (N_d,)."""
        rows = y[self.n_samples or 1 :]
        if len(rows) == 1:
            return (rows[0],)
        first, second = (row.reshape(self._sides) for row in rows)
        return np.ascontiguousarray(first[:, 0]), np.ascontiguousarray(second[0])

    def _lines(self, z: Array, axis: int) -> Array:
        """Samples along one axis, (lines, N_d)."""
        if len(self._sides) == 1:
            return z
        shaped = z.reshape(-1, *self._sides)
        return np.ascontiguousarray(np.moveaxis(shaped, 1 + axis, -1).reshape(-1, self._sides[axis]))

    def mesh_velocity(self, t: float, y: Array) -> tuple[Array, ...]:
        """Velocity of the nodes of each side, (N_d,)."""
        axes, rows = self._axes_of(y), y[: self.n_samples or 1]
        if isinstance(self.velocity, Equidistribution):
            return tuple(
                self.velocity.velocity(x, self._lines(rows, d), period)
                for d, (x, period) in enumerate(zip(axes, self._periods, strict=True))
            )
        labels = self.labels(y)
        raw = np.asarray(self.velocity(t, labels))
        if raw.shape not in ((), labels.shape):
            raise ConfigError(f"velocity returned shape {raw.shape}, expected {labels.shape}")
        given = finite_array("velocity", np.broadcast_to(raw, labels.shape))
        if given.ndim == 1:
            return (given,)
        first, second = given[:, 0].reshape(self._sides), given[:, 1].reshape(self._sides)
        if np.ptp(first, axis=1).max() > 1e-12 or np.ptp(second, axis=0).max() > 1e-12:
            raise ConfigError("velocity component d may depend on the label x_d alone on a tensor product")
        return np.ascontiguousarray(first[:, 0]), np.ascontiguousarray(second[0])

    def rate(self, t: float, y: Array, out: Array) -> None:
        """Fill out with d_t of the packed state at depth t."""
        n = self.n_samples or 1
        axes = self._axes_of(y)
        self._check_mesh(t, axes)
        speeds = self.mesh_velocity(t, y)
        self._right_hand_side(t, y, out[:n])
        kind, count, _ = _TRANSPORT[self.transport]
        for d, (x, period, speed) in enumerate(zip(axes, self._periods, speeds, strict=True)):
            width = min(count, len(x))
            first, c = np.empty(len(x), dtype=np.int64), np.empty((len(x), width))
            derivative_stencils(x, period, kind, speed, first, c)
            if len(axes) == 1:
                add_transport(y[:n], first, c, speed, out[:n])
                out[n] = speed
                continue
            change = np.zeros((n * y.shape[1] // len(x), len(x)))
            add_transport(self._lines(y[:n], d), first, c, speed, change)
            other = self._sides[1 - d]
            out[:n] += np.moveaxis(change.reshape(n, other, len(x)), -1, 1 + d).reshape(n, -1)
            out[n + d] = np.repeat(speed, other) if d == 0 else np.tile(speed, other)

    def _right_hand_side(self, t: float, y: Array, out: Array) -> None:
        """Fill out (n, N) with F on the mesh of the state."""
        z, labels = y[: self.n_samples or 1], self.labels(y)
        shift = self.bias.at(t) if isinstance(self.bias, Controls) else self.bias
        bias = field_at("bias", shift, t, labels)
        if self.placement == "inside":
            signal = np.empty_like(z)
            apply_value(self.activation.code, z.ravel(), signal.ravel())
        else:
            signal = z
        self._integral(t, labels, signal * self.weights(y), out)
        out += bias
        if self.placement == "outside":
            apply_value(self.activation.code, out.ravel().copy(), out.ravel())
        if self.leak:
            out -= self.leak * z

    def _integral(self, t: float, labels: Array, weighted: Array, out: Array) -> None:
        if isinstance(self.kernel, RadialKernel):
            RadialProduct(labels, self.kernel).product(weighted, out, "left", "right")
            return
        with blas_single_thread():
            np.matmul(weighted, kernel_between(self.kernel, t, labels, labels).T, out=out)

    def _check_mesh(self, t: float, axes: tuple[Array, ...]) -> None:
        for x, period in zip(axes, self._periods, strict=True):
            if math.isinf(period) and not (x[0] >= -_OUTSIDE and x[-1] <= 1.0 + _OUTSIDE):
                raise NumericalError(
                    f"the mesh leaves [0, 1] at t={t!r}: its ends are {x[0]:.6g} and {x[-1]:.6g}; "
                    "let the velocity vanish there"
                )
            shortest = _shortest(x, period)
            if not shortest >= self.least_spacing:
                raise NumericalError(
                    f"the mesh tangles at t={t!r}: a cell has the length {shortest:.3g}, below least_spacing = "
                    f"{self.least_spacing:.3g}; move it more slowly or smooth its monitor"
                )

    def largest_step(self, y: Array, rate: Array) -> float:
        """Largest dt of the CFL condition |xdot| dt <= C h at every node.

        C = 1 (upwind), 1.73 (central), 1.26 (fourth): the last two are borne by Runge-Kutta steps of order three
        and more.
        """
        n, largest = self.n_samples or 1, math.inf
        speeds = self._axes_of(np.concatenate([y[:n], rate[n:]]))
        for x, period, speed in zip(self._axes_of(y), self._periods, speeds, strict=True):
            gaps = _gaps(x, period)
            after = gaps if math.isfinite(period) else np.append(gaps, gaps[-1])
            before = np.roll(gaps, 1) if math.isfinite(period) else np.insert(gaps, 0, gaps[0])
            ahead = np.where(speed > 0, after, before)
            moving = speed != 0.0
            if moving.any():
                largest = min(largest, float((ahead[moving] / np.abs(speed[moving])).min()))
        return _TRANSPORT[self.transport][2] * largest

    def fields(self, y: Array) -> dict[str, Field]:
        """Activations z over samples and neurons, labels and quadrature weights of a state."""
        single = self.n_samples is None
        axes = ("neuron",) if single else ("sample", "neuron")
        named = {"z": Field(self.unpack(y), axes, units="1", long_name="activation")}
        rows = y[self.n_samples or 1 :]
        for d, row in enumerate(rows):
            name = "x" if len(rows) == 1 else f"x{d + 1}"
            named[name] = Field(row, ("neuron",), units="1", long_name=f"neuron label, coordinate {d + 1}")
        return named | {"weight": Field(self.weights(y), ("neuron",), units="1", long_name="quadrature weight")}

    def axes(self) -> tuple[Axis, ...]:
        """Coordinates of the axes that `fields` names."""
        neuron = Axis("neuron", np.arange(self.grid.n_nodes), units="1", long_name="index of the neuron")
        if self.n_samples is None:
            return (neuron,)
        return Axis("sample", np.arange(self.n_samples), units="1", long_name="index of the sample"), neuron

    def describe(self) -> dict[str, Any]:
        """What determines the model, for digests of runs."""
        return {
            "model": "MovingGridNetwork",
            "grid": self.grid.describe(),
            "kernel": self.kernel,
            "activation": self.activation.name,
            "bias": self.bias,
            "velocity": self.velocity,
            "transport": self.transport,
            "placement": self.placement,
            "leak": self.leak,
            "least_spacing": self.least_spacing,
            "shape": list(self.shape),
        }


_activation = activation


def _sides(grid: Grid) -> tuple[int, ...]:
    """Nodes a side, and a check that the grid is an interval, a circle or a tensor product of them."""
    sides = grid.shape if grid.dim == 2 else (grid.n_nodes,)
    if grid.dim > 2 or len(sides) != grid.dim or min(sides) < 3:
        raise ConfigError(f"a moving mesh needs an interval, a circle or a tensor product of two, got shape {sides}")
    if grid.dim == 1:
        axes: tuple[Array, ...] = (grid.nodes,)
    else:
        nodes = grid.nodes.reshape(*sides, 2)
        axes = nodes[:, 0, 0], nodes[0, :, 1]
        product = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        if not np.array_equal(product, nodes):
            raise ConfigError("the nodes of the grid are no tensor product: a mesh of them cannot move")
    for x, period in zip(axes, grid.period or (math.inf,) * grid.dim, strict=True):
        if not (_gaps(x, period) > 0.0).all():
            raise ConfigError("the nodes of a moving mesh must increase")
    return tuple(sides)


def _gaps(x: Array, period: float) -> Array:
    """Lengths of the cells between neighbours, (N - 1,), or (N,) on a circle."""
    gaps = np.diff(x)
    return gaps if math.isinf(period) else np.append(gaps, x[0] + period - x[-1])


def _shortest(x: Array, period: float) -> float:
    return float(_gaps(x, period).min())
