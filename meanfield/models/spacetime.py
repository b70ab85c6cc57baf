"""The space-time network: a residual network of infinite width and depth.

Per sample s, over neuron labels x in Omega and depth t,

    outside:  d_t z = -gamma z + sigma( a(t) W z + b(t, x) )
    inside:   d_t z = -gamma z + a(t) W sigma(z) + b(t, x)

with (W z)(x) = local z(x) + int_Omega w(x, y) z(y) dy. On a grid the layer matrix
is W_ij = q_j w(x_i, x_j): mean-field scaling, and an Euler step is a residual
layer. Source: Liu, Markowich, "Selection dynamics for deep neural networks",
arXiv 1905.09076 (outside); Esteve, Geshkovski, Pighin, Zuazua, "Large-time
asymptotics in deep learning", arXiv 2008.02491 (inside).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._activate import apply_value
from meanfield._checks import check_memory, finite_array, finite_float, lookup, one_of, positive_int
from meanfield.activations import Activation, activation
from meanfield.controls import Controls
from meanfield.errors import ConfigError
from meanfield.fields import Field
from meanfield.grids import Grid
from meanfield.kernels.layers import activate_rows, affine_rows, derivative_rows, euler_rows, separable_steps
from meanfield.operators.base import IntegralOperator
from meanfield.operators.path import OperatorPath
from meanfield.operators.separable import Separable
from meanfield.schemes import Scheme, StepGrid
from meanfield.spacetime_adjoint import check_changed, kernel_parameters, pull_back, run_stages, with_kernel
from meanfield.storage.layout import Axis

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, init=False)
class SpaceTimeNetwork:
    """Space-time network on a grid of neuron labels.

    Parameters
    ----------
    operator
        Integral operator W, constant in depth, or an `OperatorPath`.
    activation
        Name of sigma or an `Activation`.
    bias
        b: a number, a field (N,), or `Controls` over depth of numbers or fields.
    placement
        ``"outside"``: sigma(W z + b); ``"inside"``: W sigma(z) + b.
    leak
        gamma >= 0.
    amplitude
        a(t): `Controls` of numbers, or of r numbers, one for each term of a
        `Separable` kernel without a local part. None is 1.
    n_samples
        Number of samples n carried together; None for a single field.

    Raises
    ------
    ConfigError
        For values that are not finite, or shapes that do not match.
    """

    operator: IntegralOperator | OperatorPath
    activation: Activation
    bias: Array | Controls
    placement: str
    leak: float
    amplitude: Controls | None
    n_samples: int | None
    # Workspaces (one thread at a time), the bias as a field, a separable kernel padded for its fused loop.
    _work: Array = field(repr=False)
    _bias: Array | None = field(repr=False)
    _padded: tuple[Array, Array] | None = field(repr=False)

    def __init__(
        self,
        operator: IntegralOperator | OperatorPath,
        activation: str | Activation,
        bias: Any = 0.0,
        *,
        placement: str = "outside",
        leak: float = 0.0,
        amplitude: Controls | None = None,
        n_samples: int | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "operator", operator)
        put(self, "activation", _activation(activation))
        put(self, "placement", one_of("placement", placement, ("outside", "inside")))
        put(self, "leak", finite_float("leak", leak, least=0.0))
        put(self, "n_samples", None if n_samples is None else positive_int("n_samples", n_samples))
        n_nodes = operator.grid.n_nodes
        rows = self.n_samples or 1
        check_memory(f"a state of {rows} samples and {n_nodes} labels", 8 * 8 * rows * n_nodes)
        put(self, "bias", _checked_bias(bias, n_nodes))
        put(self, "amplitude", _checked_amplitude(amplitude, operator))
        put(self, "_work", np.empty((3, rows, n_nodes)))
        constant = None if isinstance(self.bias, Controls) else np.array(np.broadcast_to(self.bias, (n_nodes,)))
        put(self, "_bias", constant)
        put(self, "_padded", _padded(operator) if isinstance(operator, Separable) else None)

    @property
    def grid(self) -> Grid:
        """Grid of the neuron labels."""
        return self.operator.grid

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the state: (N,), or (n, N) with samples."""
        n_nodes = self.grid.n_nodes
        return (n_nodes,) if self.n_samples is None else (self.n_samples, n_nodes)

    @property
    def breakpoints(self) -> Array:
        """Depths at which the right-hand side is not smooth, increasing."""
        given = (self.operator, self.bias, self.amplitude)
        parts = [p.breakpoints for p in given if isinstance(p, (OperatorPath, Controls))]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0)

    @property
    def parameters(self) -> dict[str, Array | Controls]:
        """Parameters that can be trained, as they are stored: bias; amplitude, where there is one; the kernel.

        The kernel is ``weight``, the values w(x_i, x_j) of a `Dense` operator in double precision, or ``left`` and
        ``right`` of a `Separable` one, and `Controls` of those for an `OperatorPath`. Kernels of other operators are
        not trained.
        """
        return dict(self._parameters)

    @cached_property
    def _parameters(self) -> dict[str, Array | Controls]:
        found: dict[str, Array | Controls] = {"bias": self.bias}
        if self.amplitude is not None:
            found["amplitude"] = self.amplitude
        kernel = kernel_parameters(self.operator)
        for part in kernel.values():
            # They are kept: what is written into them would not reach the operator.
            (part.values if isinstance(part, Controls) else part).flags.writeable = False
        return found | kernel

    def with_parameters(self, **changed: Array | Controls) -> SpaceTimeNetwork:
        """Return the same network with other parameters of the same shapes.

        Raises
        ------
        ConfigError
            For a name it does not have, a shape that differs, or `Controls` in the place of an array and the reverse.
        """
        check_changed(self.parameters, changed)
        given: dict[str, Any] = {"bias": self.bias, "amplitude": self.amplitude} | changed
        kernel: dict[str, Any] = {key: given.pop(key) for key in ("weight", "left", "right") if key in given}
        operator = with_kernel(self.operator, kernel) if kernel else self.operator
        fixed: dict[str, Any] = {"placement": self.placement, "leak": self.leak, "n_samples": self.n_samples}
        return SpaceTimeNetwork(operator, self.activation, **given, **fixed)

    def label_weights(self, name: str) -> Array:
        """Weights of the products of L2 over labels, to broadcast to a parameter at one depth; 1 without labels."""
        q = self.grid.weights
        if name == "weight":
            return np.outer(q, q)
        part = lookup("parameter", name, self.parameters)
        shape = part.shape if isinstance(part, Controls) else np.shape(part)
        return q if name != "amplitude" and shape else np.ones(())

    @property
    def autonomous(self) -> bool:
        """Whether neither W nor b depends on depth."""
        return not (
            isinstance(self.operator, OperatorPath) or isinstance(self.bias, Controls) or self.amplitude is not None
        )

    def bias_at(self, t: float) -> Array:
        """Bias field at depth t, (N,)."""
        if self._bias is not None:
            return self._bias
        value = self.bias.at(t) if isinstance(self.bias, Controls) else self.bias
        return np.ascontiguousarray(np.broadcast_to(value, (self.grid.n_nodes,)))

    def amplitude_at(self, t: float) -> float:
        """Scalar amplitude a(t)."""
        return 1.0 if self.amplitude is None else float(self.amplitude.at(t))

    def linear(self, t: float, z: Array, out: Array, *, adjoint: bool = False) -> Array:
        """Fill out = a(t) W z, or a(t) W* z, without the scalar amplitude.

        The caller multiplies by `scale(t)`; amplitudes of single terms are applied here.
        """
        if isinstance(self.operator, OperatorPath):
            apply = self.operator.apply_adjoint if adjoint else self.operator.apply
            return apply(t, z, out)
        if isinstance(self.operator, Separable) and self.amplitude is not None and self.amplitude.shape:
            left, right = self.operator.left, self.operator.right
            if adjoint:
                left, right = right, left
            moments = self.amplitude.at(t) * ((z * self.grid.weights) @ right.T)
            return np.matmul(moments, left, out=out)
        return (self.operator.apply_adjoint if adjoint else self.operator.apply)(z, out)

    def scale(self, t: float) -> float:
        """Scalar by which `linear` is to be multiplied at depth t."""
        return 1.0 if self.amplitude is None or self.amplitude.shape else self.amplitude_at(t)

    def rate(self, t: float, y: Array, out: Array) -> None:
        """Fill out with d_t z at depth t; y and out have shape `shape`."""
        work = self._work[0]
        rows, target = y.reshape(work.shape), out.reshape(work.shape)
        bias, scale = self.bias_at(t), self.scale(t)
        if self.placement == "outside":
            self.linear(t, rows, work)
            activate_rows(self.activation.code, work, bias, scale, self.leak, rows, target)
        else:
            apply_value(self.activation.code, rows.ravel(), work.ravel())
            self.linear(t, work, target)
            affine_rows(target, bias, scale, self.leak, rows)

    def jvp(self, t: float, y: Array, v: Array, out: Array) -> None:
        """Fill out with the derivative of the rate at (t, y) in the direction v."""
        u, slope = self._work[0], self._work[1]
        code, scale = self.activation.code, self.scale(t)
        rows, direction, target = (a.reshape(u.shape) for a in (y, v, out))
        if self.placement == "outside":
            self.linear(t, rows, u)
            self.linear(t, direction, target)
            derivative_rows(code, u, self.bias_at(t), scale, target, slope)
            np.multiply(slope, scale, out=target)
        else:
            derivative_rows(code, rows, np.zeros(self.grid.n_nodes), 1.0, direction, slope)
            self.linear(t, slope, target)
            target *= scale
        if self.leak:
            target -= self.leak * direction

    def rate_vjp(self, t: float, y: Array, p: Array, gy: Array) -> None:
        """Fill gy with the L2(q) adjoint of the rate's derivative at (t, y), applied to p.

        Outside: gy = a W* (sigma'(u) p) - gamma p; inside: gy = sigma'(z) a W* p - gamma p.
        Then <rate' v, p>_q = <v, gy>_q for every v.
        """
        rows, costate, target = (a.reshape(self._work[0].shape) for a in (y, p, gy))
        self.pull_stage(t, rows, costate, self._work[1], self._work[2], target)

    def pull_stage(self, t: float, z: Array, p: Array, f: Array, delta: Array, gz: Array) -> float:
        """Fill gz as `rate_vjp`, f with what W acts on and delta with the costate of a W f + b; return that of a."""
        work, code, scale = self._work[0], self.activation.code, self.scale(t)
        outside = self.placement == "outside"
        if outside:
            np.copyto(f, z)
            self.linear(t, z, work)
            derivative_rows(code, work, self.bias_at(t), scale, p, delta)
        else:
            apply_value(code, z.ravel(), f.ravel())
            np.copyto(delta, p)
        self.linear(t, delta, gz, adjoint=True)
        slope = float(((gz * f) @ self.grid.weights).sum())
        if not outside:
            derivative_rows(code, z, np.zeros(self.grid.n_nodes), 1.0, gz, work)
            np.copyto(gz, work)
        gz *= scale
        if self.leak:
            gz -= self.leak * p
        return slope

    def preactivation(self, t: float, y: Array) -> Array:
        """u = a(t) W z + b(t), of the shape of y (what sigma sees when it stands outside)."""
        rows = np.ascontiguousarray(y, dtype=np.float64).reshape(-1, self.grid.n_nodes)
        u = np.empty_like(rows)
        self.linear(t, rows, u)
        u *= self.scale(t)
        u += self.bias_at(t)
        return u.reshape(np.shape(y))

    def fields(self, y: Array) -> dict[str, Field]:
        """Named arrays of a state: the activations z over samples and neurons."""
        axes = ("neuron",) if self.n_samples is None else ("sample", "neuron")
        return {"z": Field(y, axes, units="1", long_name="activation")}

    def axes(self) -> tuple[Axis, ...]:
        """Coordinates of the axes that `fields` names."""
        nodes = self.grid.nodes
        labels = nodes if nodes.ndim == 1 else np.arange(len(nodes))
        name = "neuron label x" if nodes.ndim == 1 else "index of the neuron label"
        axes = [Axis("neuron", labels, units="1", long_name=name)]
        if self.n_samples is not None:
            axes.insert(0, Axis("sample", np.arange(self.n_samples), units="1", long_name="index of the sample"))
        return tuple(axes)

    def static_fields(self) -> dict[str, Field]:
        """Arrays that do not change with depth: quadrature weights, labels, a constant bias."""
        found = {"quadrature_weight": Field(self.grid.weights, ("neuron",), long_name="quadrature weight")}
        if self.grid.nodes.ndim == 2:
            for d in range(self.grid.nodes.shape[1]):
                column = np.ascontiguousarray(self.grid.nodes[:, d])
                found[f"x{d + 1}"] = Field(column, ("neuron",), long_name=f"neuron label, coordinate {d + 1}")
        if not isinstance(self.bias, Controls):
            found["bias"] = Field(self.bias_at(0.0), ("neuron",), long_name="bias")
        return found

    def describe(self) -> dict[str, Any]:
        """What determines the model, for digests of runs."""
        return {
            "model": "SpaceTimeNetwork",
            "operator": self.operator.describe(),
            "activation": self.activation.name,
            "bias": self.bias.describe() if isinstance(self.bias, Controls) else self.bias,
            "placement": self.placement,
            "leak": self.leak,
            "amplitude": None if self.amplitude is None else self.amplitude.describe(),
            "shape": list(self.shape),
        }

    def fused(self, scheme: Scheme) -> bool:
        """Whether `advance` has a compiled or shortened path for the scheme."""
        if isinstance(self.bias, Controls) or isinstance(self.operator, OperatorPath):
            return False
        return self._padded is not None or (self.placement == "outside" and scheme.n_stages == 1)

    def advance(self, scheme: Scheme, grid: StepGrid, first: int, count: int, y: Array, out: Array) -> None:
        """Fill out with the state after the steps first .. first + count - 1 of a step grid, from y before them.

        Equal to the generic loop to round-off; advancing n steps and then m gives
        the bytes of advancing n + m.
        """
        np.copyto(out, y)
        rows = out.reshape(self._work[0].shape)
        times, lengths = grid.steps(scheme, first, count)
        if not self.fused(scheme):
            run_stages(self.rate, scheme, times, lengths, out, np.empty((1, scheme.n_stages, *self.shape)))
            return
        if self._padded is not None:
            self._advance_separable(scheme, times, lengths, rows, *self._padded)
            return
        assert isinstance(self.operator, IntegralOperator)
        u, bias, apply = self._work[0], self.bias_at(0.0), self.operator.apply
        scales = np.ones(count) if self.amplitude is None else self.amplitude.table(times[:, 0])
        code, leak = self.activation.code, self.leak
        for scale, dt in zip(scales.tolist(), lengths.tolist(), strict=True):
            apply(rows, u)
            euler_rows(code, u, bias, scale, leak, dt, rows)

    def _advance_separable(
        self, scheme: Scheme, times: Array, lengths: Array, rows: Array, left: Array, right: Array
    ) -> None:
        s, rank = scheme.n_stages, len(left)
        table = np.zeros((*times.shape, rank + 1))
        if self.amplitude is None:
            table[:] = 1.0
        else:
            terms = self.amplitude.shape[0] if self.amplitude.shape else rank + 1
            table[:, :, :terms] = self.amplitude.table(times).reshape(*times.shape, -1)
        separable_steps(
            self.activation.code,
            self.placement == "inside",
            self.leak,
            self.operator.local,  # type: ignore[union-attr]
            left,
            right,
            self.bias_at(0.0),
            table,
            np.ascontiguousarray(scheme.a[:s, :s]),
            np.ascontiguousarray(scheme.b[:s]),
            lengths,
            rows,
        )

    def write_down(self, scheme: Scheme, grid: StepGrid, first: int, count: int, y: Array, out: Array) -> Array:
        """Fill out as `advance` and return the states of all stages, (count, s, *shape)."""
        np.copyto(out, y)
        stages = np.empty((count, scheme.n_stages, *self.shape))
        run_stages(self.rate, scheme, *grid.steps(scheme, first, count), out, stages)
        return stages

    def pull_back(
        self, scheme: Scheme, grid: StepGrid, first: int, count: int, stages: Array, sources: Array, p: Array
    ) -> dict[str, Array]:
        """Pull costates p back in place through steps that were written down; return gradients by parameter.

        All are Euclidean derivatives, of the values that `parameters` has; see `spacetime_adjoint.pull_back`.
        """
        return pull_back(self, scheme, *grid.steps(scheme, first, count), stages, sources, p)


_activation = activation


def _checked_bias(bias: Any, n_nodes: int) -> Array | Controls:
    if isinstance(bias, Controls):
        if bias.shape not in ((), (n_nodes,)):
            raise ConfigError(f"bias has shape {bias.shape} at each depth, expected () or ({n_nodes},)")
        return bias
    values = finite_array("bias", bias).copy()
    if values.shape not in ((), (n_nodes,)):
        raise ConfigError(f"bias has length {values.shape}, but the grid has length ({n_nodes},)")
    return values


def _checked_amplitude(amplitude: Controls | None, operator: IntegralOperator | OperatorPath) -> Controls | None:
    if amplitude is None or not amplitude.shape:
        return amplitude
    rank = len(operator.left) if isinstance(operator, Separable) else None
    if rank is None or amplitude.shape != (rank,) or operator.local:  # type: ignore[union-attr]
        raise ConfigError(
            f"amplitude has shape {amplitude.shape}: it must be a number at each depth, or one number for each "
            "term of a Separable operator without a local part"
        )
    return amplitude


def _padded(operator: Separable) -> tuple[Array, Array]:
    """Rows of a separable kernel with the weights in `right`, the rank rounded up to four."""
    rank = len(operator.left)
    shape = (-(-rank // 4) * 4, operator.grid.n_nodes)
    left, right = np.zeros(shape), np.zeros(shape)
    left[:rank] = operator.left
    right[:rank] = operator.right * operator.grid.weights
    return left, right


def example() -> tuple[SpaceTimeNetwork, Array, Any]:
    """Return a model, an initial field and its exact solution, for the generic tests.

    Constant kernel kappa, tanh: z = z0 + (u - u0)/kappa with
    u = asinh(e^(kappa t) sinh u0), u0 = kappa int z0 + beta.
    """
    kappa, beta = -2.0, -1.0
    grid = Grid.interval(48, rule="gauss")
    operator = Separable(grid, np.full((1, 48), kappa), np.ones((1, 48)))
    model = SpaceTimeNetwork(operator, "tanh", beta)
    y0 = np.cos(3 * grid.nodes) + 0.5
    u0 = kappa * float(grid.weights @ y0) + beta

    def exact(t: float) -> Array:
        return np.asarray(y0 + (np.arcsinh(np.exp(kappa * t) * np.sinh(u0)) - u0) / kappa)

    return model, y0, exact
