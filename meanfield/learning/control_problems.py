"""Controlled dynamics with running costs, as the Hamilton-Jacobi-Bellman equation takes them: the upwind minimum.

    inf over theta of { sum_d (F_d^+ D_d^+ V + F_d^- D_d^- V) + r },      F = F(t, x, theta), r = r(t, x, theta)

`QuadraticControl` has it in closed form, `SampledControl` looks for it among given controls or in a box.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, finite_float, positive_int, shown
from meanfield.errors import ConfigError, NumericalError
from meanfield.kernels.hjb import upwind_quadratic

Array = NDArray[np.float64]
Field = Callable[[float, Array], Any] | Any
Controlled = Callable[[float, Array, Array], Any]


class Minimum(NamedTuple):
    """Upwind minimum at N nodes: `value` (N,), `theta` (m, N), `rate` F (D, N), and `speed` sum_d |F_d| / dx_d (N,)."""

    value: Array
    theta: Array
    rate: Array
    speed: Array


@dataclass(frozen=True)
class QuadraticControl:
    """x' = f(t, x) + g(t, x) theta at the running cost q(t, x) + (lam / 2) |theta|^2, theta in R^m unconstrained.

    The minimum over theta is taken in closed form: the Hamiltonian is <p, f> + q - |g^T p|^2 / (2 lam), upwinded.
    The largest step depends on the gradient of V, as the control does.

    Parameters
    ----------
    drift
        f as ``f(t, x)`` with x (D, N), giving (D, N); or a number.
    gain
        g as ``g(t, x)`` giving (D, m, N), or a constant (D, m); in one dimension also (N,) or a number.
    cost
        q as ``q(t, x)`` giving (N,); or a number.
    weight
        lam > 0. For a cost of lam |theta|^2 it is 2 lam.

    Raises
    ------
    ConfigError
        For a weight that is not positive; from the solver, for shapes that do not fit.
    """

    drift: Field
    gain: Field
    cost: Field
    weight: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", finite_float("weight", self.weight, above=0.0))

    def minimise(self, t: float, x: Array, forward: Array, backward: Array, dx: Array) -> Minimum:
        """Return the upwind minimum at nodes x (D, N), in closed form."""
        f, g, q = self._fields(t, x)
        found = Minimum(np.empty(x.shape[1]), np.empty(g.shape[1:]), np.empty(x.shape), np.empty(x.shape[1]))
        upwind_quadratic(self.weight, f, g, q, forward, backward, found.value, found.theta, found.rate)
        found.speed[:] = (np.abs(found.rate) / dx[:, None]).sum(axis=0)
        return found

    def dynamics(self, t: float, x: Array, theta: Array) -> tuple[Array, Array]:
        """Return F (D, N) and r (N,) at states x (D, N) under controls theta (m, N)."""
        f, g, q = self._fields(t, x)
        return f + np.einsum("dmn,mn->dn", g, theta), q + 0.5 * self.weight * (theta**2).sum(axis=0)

    def _fields(self, t: float, x: Array) -> tuple[Array, Array, Array]:
        dim, n = x.shape
        g = np.asarray(self.gain(t, x) if callable(self.gain) else self.gain)
        if g.ndim == 2 and not callable(self.gain):
            g = g[:, :, None]
        elif g.ndim < 3 and dim == 1:
            g = g.reshape(1, 1, -1)
        if g.ndim != 3:
            raise ConfigError(f"gain has shape {g.shape}, expected ({dim}, m, {n})")
        drift = self.drift(t, x) if callable(self.drift) else self.drift
        cost = self.cost(t, x) if callable(self.cost) else self.cost
        return (
            field_values("drift", drift, t, x, (dim, n)),
            field_values("gain", g, t, x, (dim, g.shape[1], n)),
            field_values("cost", cost, t, x, (n,)),
        )


@dataclass(frozen=True, eq=False)
class SampledControl:
    """x' = F(t, x, theta) at the running cost r(t, x, theta), theta one of a list of values, or in a box (`box`).

    Parameters
    ----------
    rate
        ``F(t, x, theta)`` with x (D, N) and theta (m, N), giving (D, N).
    cost
        ``r(t, x, theta)`` giving (N,); or a number.
    values
        The controls, (m, K); (K,) for m = 1.
    spacing
        Distance of the values along each component, (m,) or a number, of use with `halvings` alone.
    halvings
        0 keeps to the list. Else the best of the values is compared with those around it at half the spacing, the best
        of these with those at a quarter, and so on: so many times, inside the smallest box that holds all values.

    Raises
    ------
    ConfigError
        For values out of range, or none; from the solver, for shapes that do not fit.
    """

    rate: Controlled
    cost: Controlled | float
    values: Array
    spacing: Array | float = 0.0
    halvings: int = 0

    def __post_init__(self) -> None:
        if not callable(self.rate):
            raise ConfigError(f"rate must be a function of t, x and theta, got {shown(self.rate)}")
        values = np.asarray(self.values)
        values = finite_array("values", values[None] if values.ndim == 1 else values, shape=(None, None))
        if values.size == 0:
            raise ConfigError(f"values must hold at least one control, got shape {values.shape}")
        if isinstance(self.halvings, bool) or self.halvings != 0:
            positive_int("halvings", self.halvings)
        spacing = np.asarray(self.spacing)
        spacing = np.repeat(spacing, len(values)) if spacing.ndim == 0 else spacing
        spacing = finite_array("spacing", spacing, shape=(len(values),))
        if (spacing < 0.0).any():
            raise ConfigError(f"spacing must be >= 0, got {float(spacing.min())!r}")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "spacing", spacing)

    @classmethod
    def box(
        cls, rate: Controlled, cost: Controlled | float, low: Any, high: Any, *, samples: int = 17, halvings: int = 20
    ) -> Self:
        """Controls in the box with corners `low` and `high`, (m,) or numbers: a lattice of `samples` >= 2 a side.

        The spacing is halved around the best point of the lattice. That finds the minimiser of a convex upwind function
        of one control. With several controls the search may stop short of it on a crease, where a component of F
        vanishes: what is found is a control all the same, so that V is never below that of the whole box.
        """
        low, high = box_corners(low, high)
        if positive_int("samples", samples) < 2:
            raise ConfigError(f"samples must be at least 2, got {samples}")
        check_memory("the lattice of controls", 8 * len(low) * samples ** len(low))
        sides = [np.linspace(a, b, samples) for a, b in zip(low, high, strict=True)]
        lattice = np.stack([c.ravel() for c in np.meshgrid(*sides, indexing="ij")])
        return cls(rate, cost, lattice, (high - low) / (samples - 1), halvings)

    def minimise(self, t: float, x: Array, forward: Array, backward: Array, dx: Array) -> Minimum:
        """Return the upwind minimum at nodes x (D, N); speeds are the largest over the values."""
        m, n = len(self.values), x.shape[1]
        found = Minimum(np.full(n, np.inf), np.empty((m, n)), np.empty(x.shape), np.zeros(n))

        def attempt(theta: Array) -> Array:
            rate, cost = self.dynamics(t, x, theta)
            value = np.where(rate > 0.0, rate * forward, rate * backward).sum(axis=0) + cost
            better = value < found.value
            for best, one in zip(found[:3], (value, theta, rate), strict=True):
                np.copyto(best, one, where=better)
            return rate

        for one in self.values.T:
            rate = attempt(np.repeat(one[:, None], n, axis=1))
            np.maximum(found.speed, (np.abs(rate) / dx[:, None]).sum(axis=0), out=found.speed)
        low, high = self.values.min(axis=1)[:, None], self.values.max(axis=1)[:, None]
        around = [np.array(s)[:, None] for s in itertools.product((-1.0, 0.0, 1.0), repeat=m) if any(s)]
        for k in range(self.halvings):
            centre, distance = found.theta.copy(), np.ldexp(self.spacing, -k - 1)[:, None]
            for step in around:
                attempt(np.clip(centre + step * distance, low, high))
        return found

    def dynamics(self, t: float, x: Array, theta: Array) -> tuple[Array, Array]:
        """Return F (D, N) and r (N,) at states x (D, N) under controls theta (m, N)."""
        rate = field_values("rate", self.rate(t, x, theta), t, x, x.shape)
        cost = self.cost(t, x, theta) if callable(self.cost) else self.cost
        return rate, field_values("cost", cost, t, x, x.shape[1:])


def field_values(name: str, value: Any, t: float, x: Array, shape: tuple[int, ...]) -> Array:
    """Return `value` as an array of that shape, or raise; numbers and last extents of 1 are repeated."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ConfigError(f"{name} must be real numbers, got dtype {array.dtype}")
    *lead, n = shape
    if array.ndim and math.prod(lead) == 1 and array.size in (1, n):
        array = array.reshape(*lead, -1)
    if array.ndim and (array.shape[:-1] != tuple(lead) or array.shape[-1] not in (1, n)):
        raise ConfigError(f"{name} has shape {array.shape}, expected {shape}")
    full = np.ascontiguousarray(np.broadcast_to(array, shape), dtype=np.float64)
    finite = np.isfinite(full)
    if not finite.all():
        k = int(np.argwhere(~finite)[0][-1])
        raise NumericalError(f"{name} is not finite at t={t:.6g}, x={x[:, k].tolist()}")
    return full


def box_corners(low: Any, high: Any) -> tuple[Array, Array]:
    """Corners of a box (m,) each, or `ConfigError` unless low < high."""
    low = finite_array("low", np.atleast_1d(np.asarray(low)), shape=(None,))
    high = finite_array("high", np.atleast_1d(np.asarray(high)), shape=low.shape)
    if not (len(low) and (high > low).all()):
        raise ConfigError(f"high must be > low, got low = {low.tolist()}, high = {high.tolist()}")
    return low, high
