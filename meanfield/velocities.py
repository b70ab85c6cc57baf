"""Velocities of the activations: the right-hand sides of residual networks, with parameters that depend on depth.

    v(t, x) = sigma(W x + b),   W sigma(x) + b,   or   V sigma(W x + b) + c,      x in R^d

They carry samples (a residual network on a batch), laws (the continuity equation) and the
cells of a Lagrangian mesh. Any parameter may be constant, `Controls` over depth (the layers
of a trained network are piecewise constant ones), or a callable of depth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, lookup
from meanfield._velocity import INSIDE, OUTSIDE, TWO_LAYER
from meanfield.activations import Activation, activation
from meanfield.controls import Controls
from meanfield.errors import ConfigError
from meanfield.kernels.particles import BLOCK, carry, velocity_at
from meanfield.parallel import for_blocks
from meanfield.schemes import Scheme, StepGrid
from meanfield.velocity_adjoint import pulled_back, written_down

Array = NDArray[np.float64]

NAMES = ("w", "b", "v", "c")
"""Names of the parameters in their order; the last two are those of two layers."""

FORMS = {"outside": OUTSIDE, "inside": INSIDE, "two_layer": TWO_LAYER}
# Numbers in a table of parameters that is kept.
_KEPT = 2**20
_BLOCK = 65536


@dataclass(frozen=True, eq=False, init=False)
class Velocity:
    """Velocity of a residual network; make one by `outside`, `inside`, `two_layer` or `from_layers`.

    Attributes
    ----------
    form
        ``"outside"``, ``"inside"`` or ``"two_layer"``.
    activation
        sigma.
    dim
        d, the number of components of x.
    width
        Number of neurons, d unless the form is two_layer.
    breakpoints
        Depths at which a parameter is not smooth.
    """

    form: str
    activation: Activation
    dim: int
    width: int
    breakpoints: Array
    _parts: tuple[Any, ...]
    # What `_stages` found on the way forward, with what it was asked: the way back asks for the same.
    _kept: list[Any] = field(repr=False)

    def __init__(self, form: str, sigma: str | Activation, dim: int, width: int, parts: tuple[Any, ...]) -> None:
        put = object.__setattr__
        lookup("form", form, FORMS)
        put(self, "form", form)
        put(self, "activation", activation(sigma))
        put(self, "dim", dim)
        put(self, "width", width)
        put(self, "_parts", parts)
        put(self, "_kept", [])
        found = [p.breakpoints for p in parts if isinstance(p, Controls)]
        put(self, "breakpoints", np.unique(np.concatenate([np.empty(0), *found])))

    @classmethod
    def outside(cls, sigma: str | Activation, w: Any, b: Any = 0.0) -> Velocity:
        """Velocity sigma(W x + b): w (d, d), or a number for d = 1; b (d,) or a number.

        Raises
        ------
        ConfigError
            For shapes that do not match.
        """
        return cls._square("outside", sigma, w, b)

    @classmethod
    def inside(cls, sigma: str | Activation, w: Any, b: Any = 0.0) -> Velocity:
        """Velocity W sigma(x) + b; parameters and errors as for `outside`."""
        return cls._square("inside", sigma, w, b)

    @classmethod
    def _square(cls, form: str, sigma: str | Activation, w: Any, b: Any) -> Velocity:
        shape = _shape("w", w, 2)
        d = shape[0] if shape else 1
        if shape not in ((), (d, d)):
            raise ConfigError(f"w has shape {shape}, expected a square matrix")
        return cls(form, sigma, d, d, (_part("w", w, (d, d)), _part("b", b, (d,))))

    @classmethod
    def two_layer(cls, sigma: str | Activation, v: Any, w: Any, b: Any = 0.0, c: Any = 0.0) -> Velocity:
        """Velocity V sigma(W x + b) + c: v (d, m), w (m, d), b (m,), c (d,); numbers where d = m = 1.

        Raises
        ------
        ConfigError
            For shapes that do not match.
        """
        shape = _shape("w", w, 2)
        m, d = shape or (1, 1)
        parts = _part("w", w, (m, d)), _part("b", b, (m,)), _part("v", v, (d, m)), _part("c", c, (d,))
        return cls("two_layer", sigma, d, m, parts)

    @classmethod
    def from_layers(cls, sigma: str | Activation, form: str, span: tuple[float, float], *parameters: Any) -> Velocity:
        """Velocity of a finite network of L layers over the depths span = (t0, T): each parameter has a leading axis L.

        Layer k of a network x + f_k(x) with f_k = h v_k, h = (T - t0)/L: give V/h and c/h, or W/h and b/h inside.

        Parameters
        ----------
        parameters
            In the order of `outside`, `inside` or `two_layer`.
        """
        makers: dict[str, Any] = {"outside": cls.outside, "inside": cls.inside, "two_layer": cls.two_layer}
        most = 4 if form == "two_layer" else 2
        if not 1 <= len(parameters) <= most:
            raise ConfigError(f"the form {form} has at most {most} parameters, got {len(parameters)}")
        make = lookup("form", form, makers)
        tables = [finite_array(f"parameter {i}", p) for i, p in enumerate(parameters)]
        if not tables or tables[0].ndim == 0:
            raise ConfigError("from_layers needs parameters with a leading axis of layers")
        knots = np.linspace(span[0], span[1], len(tables[0]) + 1)
        velocity: Velocity = make(sigma, *(Controls(knots, table) for table in tables))
        return velocity

    @property
    def constant(self) -> bool:
        """Whether no parameter depends on depth."""
        return all(isinstance(p, np.ndarray) for p in self._parts)

    def table(self, times: Any) -> Array:
        """All parameters in one flat row for each depth, times.shape + (P,)."""
        times = np.asarray(times, dtype=np.float64)
        columns = []
        for part, shape in zip(self._parts, self._shapes(), strict=True):
            if isinstance(part, np.ndarray):
                values = np.broadcast_to(part, times.shape + part.shape)
            elif isinstance(part, Controls):
                values = part.table(times)
            else:
                values = np.array([_evaluated(part, t, shape) for t in times.ravel()])
            columns.append(np.reshape(values, (*times.shape, -1)))
        return np.ascontiguousarray(np.concatenate(columns, axis=-1))

    def _shapes(self) -> tuple[tuple[int, ...], ...]:
        d, m = self.dim, self.width
        return ((m, d), (m,), (d, m), (d,))[: len(self._parts)]

    def at(self, t: float) -> list[Array]:
        """Parameters at depth t: [W, b], or [W, b, V, c]."""
        return self._split(self.table(np.array(t)))

    def _split(self, rows: Array) -> list[Array]:
        """Parameters (..., *shape) of flat rows (..., P)."""
        shapes = self._shapes()
        ends = np.cumsum([int(np.prod(s)) for s in shapes])
        pieces = np.split(rows, ends[:-1], axis=-1)
        return [piece.reshape(*rows.shape[:-1], *shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def value(self, t: float, x: Array, out: Array | None = None) -> Array:
        """v(t, x) at points x (d, n), (d, n).

        Raises
        ------
        ConfigError
            For points of another shape.
        """
        if np.ndim(x) != 2 or len(x) != self.dim:
            raise ConfigError(f"x has shape {np.shape(x)}, expected ({self.dim}, n)")
        x = np.ascontiguousarray(x, dtype=np.float64)
        out = np.empty(x.shape) if out is None else out
        row, code, form = self.table(np.array(t)), self.activation.code, FORMS[self.form]
        for_blocks(partial(velocity_at, code, form, self.width, row, x, out), x.shape[1], _BLOCK)
        return out

    def divergence(self, t: float, x: Array) -> Array:
        """div v(t, x) at points x (d, n), (n,)."""
        slope = self.activation.derivative
        if self.form == "two_layer":
            w, b, v, _ = self.at(t)
            return np.asarray(((v.T * w).sum(axis=1)) @ slope(w @ x + b[:, None]))
        w, b = self.at(t)
        diagonal = np.diagonal(w)
        return np.asarray(diagonal @ slope(w @ x + b[:, None] if self.form == "outside" else x))

    def primitive(self, t: float, x: Array) -> Array:
        """Integral of v(t, .) from a fixed point to points x (n,) of the line, up to a constant: Sigma(w x + b)/w."""
        self._check_line()
        big = self.activation.primitive
        w, b, *rest = self.at(t)
        if self.form == "inside":
            return np.asarray(w[0, 0] * big(x) + b[0] * x)
        level, slope = w @ x[None] + b[:, None], w
        flat = np.abs(slope) < 1e-300
        inner = np.where(flat, self.activation.value(b)[:, None] * x, big(level) / np.where(flat, 1.0, slope))
        return inner[0] if self.form == "outside" else np.asarray(rest[0][0] @ inner + rest[1][0] * x)

    def kinks(self, t: float) -> Array:
        """Places on the line where v(t, .) is not smooth: those where sigma is evaluated at its kink 0."""
        self._check_line()
        if self.activation.name not in ("relu", "leaky_relu"):
            return np.empty(0)
        if self.form == "inside":
            return np.zeros(1)
        w, b = self.at(t)[:2]
        sloped = w[:, 0] != 0.0
        return np.asarray(np.unique(-b[sloped] / w[sloped, 0]))

    def _check_line(self) -> None:
        if self.dim != 1:
            raise ConfigError(f"the velocity must be one on the line, got dimension {self.dim}")

    @property
    def layered(self) -> bool:
        """Whether every parameter is constant between the breakpoints: the layers of a network."""
        return all(
            isinstance(p, np.ndarray) or (isinstance(p, Controls) and p.interpolation == "constant")
            for p in self._parts
        )

    @property
    def piecewise(self) -> bool:
        """Whether every parameter is constant or linear between the breakpoints."""
        return all(isinstance(p, (np.ndarray, Controls)) for p in self._parts)

    def bounds(self, times: Array, lower: Any, upper: Any) -> tuple[Array, Array]:
        """Bounds of |v_i| and of |d_i v_i| over a box, for each row of depths `times` (K, T): (K, d) both.

        By interval arithmetic: rigorous at these depths, and between two of them where parameters are linear there.
        """
        d = self.dim
        w, b, *rest = self._split(self.table(times[:1, :1] if self.constant else times))
        box = np.array([lower, upper], dtype=np.float64).reshape(2, d)
        if self.form == "inside":
            low, high = _affine_range(w, b, *_value_range(self.activation, *box))
            slope = np.abs(np.diagonal(w, axis1=-2, axis2=-1))
        else:
            inner = _affine_range(w, b, *box)
            # The range over all depths of the interval, so that what follows is linear in the outer parameters.
            low, high = inner[0].min(axis=1, keepdims=True), inner[1].max(axis=1, keepdims=True)
            low, high = _value_range(self.activation, low, high)
            if self.form == "outside":
                slope = np.abs(np.diagonal(w, axis1=-2, axis2=-1))
            else:
                v, c = rest
                low, high = _affine_range(v, c, low[:, :, None, :], high[:, :, None, :])
                slope = np.einsum("ktim,ktmi->kti", np.abs(v), np.abs(w))
        speed = np.maximum(np.abs(low), np.abs(high)).max(axis=1)
        slope = self.activation.lipschitz * slope.max(axis=1)
        shape = len(times), d
        return np.broadcast_to(speed, shape), np.broadcast_to(slope, shape)

    @property
    def parameters(self) -> dict[str, Array | Controls]:
        """Parameters that can be trained, arrays and `Controls`, by name: w, b, and v, c of two layers."""
        return {k: p for k, p in zip(self._names, self._parts, strict=True) if isinstance(p, (np.ndarray, Controls))}

    @property
    def _names(self) -> tuple[str, ...]:
        return NAMES[: len(self._parts)]

    def with_parameters(self, **changed: Array | Controls) -> Velocity:
        """Return the same velocity with other parameters of the same shapes.

        Raises
        ------
        ConfigError
            For a name it does not have or a shape that differs.
        """
        for name in changed:
            lookup("parameter", name, dict.fromkeys(self._names, True))
        parts = tuple(
            _part(name, changed.get(name, part), shape)
            for name, part, shape in zip(self._names, self._parts, self._shapes(), strict=True)
        )
        return Velocity(self.form, self.activation, self.dim, self.width, parts)

    def pull_back_table(self, times: Array, gradients: Array) -> dict[str, Array]:
        """Gradients in the parameters from those in the rows of `table` at depths `times`: the transpose of `table`."""
        found, trained = {}, self.parameters
        for name, columns in zip(self._names, self._split(gradients), strict=True):
            part = trained.get(name)
            if isinstance(part, Controls):
                found[name] = part.pull_back(times, columns)
            elif part is not None:
                found[name] = columns.reshape(-1, *part.shape).sum(axis=0)
        return found

    def write_down(self, scheme: Scheme, grid: StepGrid, first: int, count: int, y: Array, out: Array) -> Array:
        """Fill out as `carry` and return the states of all stages, (count, s, d, n)."""
        steps = self._stages(scheme, grid, first, count)
        if steps[0].size <= _KEPT:
            self._kept[:] = [(scheme, grid, first, count, steps)]
        return written_down(self.activation.code, FORMS[self.form], self.width, steps, y, out)

    def pull_back(
        self, scheme: Scheme, grid: StepGrid, first: int, count: int, stages: Array, sources: Array, p: Array
    ) -> dict[str, Array]:
        """Pull costates p (d, n) back in place through steps that were written down; return gradients by parameter."""
        steps = self._stages(scheme, grid, first, count)
        self._kept.clear()
        found = pulled_back(self.activation.code, FORMS[self.form], self.width, steps, stages, sources, p)
        return self.pull_back_table(grid.steps(scheme, first, count)[0], found)

    def _stages(self, scheme: Scheme, grid: StepGrid, first: int, count: int) -> tuple[Array, Array, Array, Array]:
        """Parameters at all stages, tableau and lengths of steps."""
        for *asked, found in self._kept:
            if asked[0] is scheme and asked[1] is grid and asked[2:] == [first, count]:
                return found  # type: ignore[no-any-return]
        times, lengths = grid.steps(scheme, first, count)
        s = scheme.n_stages
        # A copy, where one is needed: arrays broadcast are read-only, and kernels would be compiled for them again.
        table = np.repeat(self.table(times[:1]), count, axis=0) if self.constant else self.table(times)
        return table, np.ascontiguousarray(scheme.a[:s, :s]), np.ascontiguousarray(scheme.b[:s]), lengths

    def carry(self, scheme: Scheme, grid: StepGrid, first: int, count: int, y: Array, out: Array) -> None:
        """Fill out with the points y (d, n) after steps of a scheme, each block of points through all of them."""
        table, a, b, lengths = self._stages(scheme, grid, first, count)
        code, form, s = self.activation.code, FORMS[self.form], scheme.n_stages
        run = partial(carry, code, form, self.width, table, a, b, lengths, y, out)
        # Blocks of 50 microseconds of work and more, whatever the number of steps; each particle is on its own.
        size = max(BLOCK, _BLOCK // max(1, min(count * s, 128)) // BLOCK * BLOCK)
        for_blocks(run, y.shape[1], size)

    def describe(self) -> dict[str, Any]:
        """What determines the velocity, for digests of runs."""
        return {
            "velocity": self.form,
            "activation": self.activation.name,
            "dim": self.dim,
            "width": self.width,
            "parameters": list(self._parts),
        }


def _affine_range(w: Array, b: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Range of W x + b over the box low <= x <= high: W (..., m, d), b (..., m)."""
    up, down = np.maximum(w, 0.0), np.minimum(w, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):  # whoever asks sees infinity
        return (up * low + down * high).sum(axis=-1) + b, (up * high + down * low).sum(axis=-1) + b


def _value_range(sigma: Activation, low: Array, high: Array) -> tuple[Array, Array]:
    """Range of sigma over intervals; for functions that are not monotone an interval that holds it."""
    ends = sigma.value(low), sigma.value(high)
    if sigma.nondecreasing:
        return ends
    if np.isfinite(sigma.bound):
        return np.full_like(low, -sigma.bound), np.full_like(low, sigma.bound)
    # Gelu: its one minimum is -0.17 at -0.75.
    return np.minimum(np.minimum(*ends), -0.18 * (low < 0.0)), np.maximum(*ends)


_PROBED = (0.0, 0.5, 1.0, 2.0)


def _sampled(name: str, function: Any) -> Any:
    """Value of a callable of depth at one of a few depths: it need not be defined at all of them."""
    for t in _PROBED:
        try:
            return function(t)
        except (ArithmeticError, ValueError):
            continue
    raise ConfigError(f"{name} has no value at any of the depths {_PROBED}")


def _shape(name: str, value: Any, ndim: int) -> tuple[int, ...]:
    """Shape of a parameter at one depth."""
    if isinstance(value, Controls):
        shape = value.shape
    elif callable(value):
        shape = np.shape(_sampled(name, value))
    else:
        shape = np.shape(value)
    if len(shape) not in (0, ndim) or 0 in shape:
        raise ConfigError(f"{name} has shape {shape}, expected a number or {ndim} axes")
    return shape


def _part(name: str, value: Any, shape: tuple[int, ...]) -> Any:
    """Return a parameter as an array of that shape, `Controls`, or a callable; numbers spread over it."""
    if callable(value) and not isinstance(value, Controls):
        _fitting(name, _sampled(name, value), " of a callable", shape)
        return value
    if isinstance(value, Controls):
        if value.shape == shape:
            return value
        if value.shape == () and _takes_number(shape):
            spread = np.broadcast_to(value.values.reshape(-1, *(1 for _ in shape)), (len(value.values), *shape))
            return Controls(value.knots, spread, value.interpolation)
        raise ConfigError(f"{name} has shape {value.shape} at each depth, expected {shape}")
    return _fitting(name, value, "", shape)


def _evaluated(function: Any, t: float, shape: tuple[int, ...]) -> Array:
    return _fitting("parameter", function(float(t)), f" at depth {t!r}", shape)


def _takes_number(shape: tuple[int, ...]) -> bool:
    """Whether a number stands for all of a parameter: for a vector, or where there is but one entry."""
    return len(shape) == 1 or set(shape) <= {1}


def _fitting(name: str, value: Any, where: str, shape: tuple[int, ...]) -> Array:
    values = finite_array(name, value)
    if values.shape != shape and not (values.ndim == 0 and _takes_number(shape)):
        raise ConfigError(f"{name} has shape {values.shape}{where}, expected {shape}")
    return np.array(np.broadcast_to(values, shape))
