"""Networks whose width changes with depth: residual layers with projection shortcuts.

Layer k goes from the grid of depth t_k to that of t_{k+1}, dt = t_{k+1} - t_k:

    inside:   z^{k+1} = (1 - gamma dt) P_k z^k + dt ( W^k sigma(z^k) + b^k )
    outside:  z^{k+1} = (1 - gamma dt) P_k z^k + dt sigma( W^k z^k + b^k )

    W^k_ij = q_j^k w(t_k, x_i^{k+1}, x_j^k),   b^k_i = b(t_k, x_i^{k+1})

with P_k an interpolation (see `meanfield.transfer`). Where the grids are equal P_k is the
identity and a layer is an Euler step of the space-time network. Source: Esteve,
Geshkovski, Pighin, Zuazua, "Large-time asymptotics in deep learning", arXiv 2008.02491
(variable widths by a moving grid, in words); the formulas are a consequence.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._activate import apply_value
from meanfield._checks import check_memory, finite_array, finite_float, one_of, positive_int, shown
from meanfield.activations import Activation, activation
from meanfield.controls import Controls
from meanfield.errors import ConfigError
from meanfield.fields import Field
from meanfield.formulas import arity, check_kernel, field_at, kernel_between
from meanfield.grids import Grid
from meanfield.kernels.integral import matmul_rows
from meanfield.operators.radial import RadialKernel
from meanfield.parallel import for_blocks
from meanfield.storage.layout import Axis
from meanfield.transfer import Family, Transfer, endpoint_grid, prune_grid

Array = NDArray[np.float64]

_ROWS = 512
# Layer matrices kept while grids repeat, and transfers: alternating widths need two.
_KEPT = {"matrix": 4, "shortcut": 64}


@dataclass(frozen=True, eq=False)
class VariableWidthNetwork:
    """Residual network with its own grid of neuron labels at every depth.

    The state of depth k is a field (N_k,), or (n, N_k) with samples. `integrate` runs the network
    over its layers; what it saves and what probes see is packed by `pack` to the constant shape
    (n + D, max N_k): n rows of activations, D rows of labels, NaN beyond the width.

    Parameters
    ----------
    depths
        t_0 < ... < t_L, (L + 1,).
    grids
        L + 1 grids, or a schedule N(t): callable from depth to a number of nodes or a `Grid`.
    kernel
        w(x, y) or w(t, x, y), NumPy-vectorised, or a `RadialKernel`.
    activation
        Name of sigma or an `Activation`.
    bias
        A number, `Controls` of numbers, or a callable b(x) or b(t, x).
    placement
        ``"outside"``: sigma(W z + b); ``"inside"``: W sigma(z) + b.
    leak
        gamma >= 0.
    interpolation, beyond
        ``"linear"`` or ``"cubic"``, and what holds beyond the end nodes; see `Transfer`.
    family
        Grid of n nodes, where the schedule gives numbers.
    n_samples
        Number of samples n carried together; None for a single field.

    Raises
    ------
    ConfigError
        For depths that do not increase, lengths that do not match, widths that are no positive
        integers, or values that are not finite.
    """

    depths: Array
    grids: Sequence[Grid] | Callable[[float], int | Grid]
    kernel: RadialKernel | Callable[..., Any]
    activation: Activation | str
    bias: float | Controls | Callable[..., Any] = 0.0
    _: dataclasses.KW_ONLY
    placement: str = "outside"
    leak: float = 0.0
    interpolation: str = "linear"
    beyond: str = "extrapolate"
    family: Family = endpoint_grid
    n_samples: int | None = None
    _store: dict[tuple[str, int, int], Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        depths = finite_array("depths", self.depths, shape=(None,))
        if len(depths) < 2 or not (np.diff(depths) > 0).all():
            raise ConfigError(f"depths must be at least two strictly increasing numbers, got {shown(self.depths)}")
        put(self, "depths", depths)
        put(self, "grids", _checked_grids(self.grids, depths, self.family))
        put(self, "activation", activation(self.activation))
        check_kernel(self.kernel, self._grid(0).nodes)
        if isinstance(self.bias, Controls):
            if self.bias.shape:
                raise ConfigError(f"bias has shape {self.bias.shape} at each depth, expected ()")
        elif not callable(self.bias):
            put(self, "bias", finite_float("bias", self.bias))
        one_of("placement", self.placement, ("outside", "inside"))
        put(self, "leak", finite_float("leak", self.leak, least=0.0))
        one_of("interpolation", self.interpolation, ("linear", "cubic"))
        one_of("beyond", self.beyond, ("extrapolate", "clamp"))
        if self.n_samples is not None:
            positive_int("n_samples", self.n_samples)
        widest = int(self.widths.max())
        check_memory(f"a layer of {widest} x {widest}", 24 * widest * widest + 64 * self.shape[0] * widest)
        put(self, "_store", {})

    def _grid(self, k: int) -> Grid:
        assert not callable(self.grids)
        return self.grids[k]

    @property
    def n_layers(self) -> int:
        """Number of layers L."""
        return len(self.depths) - 1

    @functools.cached_property
    def widths(self) -> NDArray[np.int64]:
        """Numbers of neurons N_k, (L + 1,)."""
        widths = np.array([self._grid(k).n_nodes for k in range(len(self.depths))])
        widths.setflags(write=False)
        return widths

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of a packed state: samples and label coordinates, the greatest width."""
        return (self.n_samples or 1) + self._grid(0).dim, int(self.widths.max())

    def shortcut(self, k: int) -> Transfer | None:
        """P_k, or None where the grids of depths k and k + 1 are equal."""
        source, target = self._grid(k), self._grid(k + 1)
        if _equal(source, target):
            return None
        made: Transfer = self._kept("shortcut", k, lambda: Transfer(source, target, self.interpolation, self.beyond))
        return made

    def shortcut_norm(self) -> float:
        """Largest sup norm of the products P_k ... P_0, at least 1; convergence asks that it stays bounded.

        1 for linear shortcuts between nodes. For cubic ones bounded while L ~ N; at L = N^2 on an interval it
        grows slowly with N (measured: 1.7 to 2.8 from N = 8 to 64). O(L) sparse times dense products of the width.
        """
        product, largest = np.eye(self._grid(0).n_nodes), 1.0
        for k in range(self.n_layers):
            shortcut = self.shortcut(k)
            if shortcut is not None:
                product = shortcut.matrix @ product
                largest = max(largest, float(np.abs(product).sum(axis=1).max()))
        return largest

    def matrix(self, k: int) -> Array:
        """Layer matrix W^k, (N_{k+1}, N_k), without the factor dt."""
        if arity(self.kernel) == 3:
            return self._sampled(k)
        return np.asarray(self._kept("matrix", k, lambda: self._sampled(k)))

    def _kept(self, what: str, k: int, make: Callable[[], Any]) -> Any:
        key = (what, id(self._grid(k)), id(self._grid(k + 1)))
        if key not in self._store:
            made, same = make(), [old for old in self._store if old[0] == what]
            if len(same) >= _KEPT[what]:
                del self._store[same[0]]
            self._store[key] = made
        return self._store[key]

    def _sampled(self, k: int) -> Array:
        source, target = self._grid(k), self._grid(k + 1)
        return kernel_between(self.kernel, float(self.depths[k]), target.nodes, source.nodes) * source.weights

    def bias_at(self, k: int) -> Array:
        """Bias b^k of layer k at the nodes it writes to, (N_{k+1},)."""
        t, x = float(self.depths[k]), self._grid(k + 1).nodes
        return field_at("bias", self.bias.at(t) if isinstance(self.bias, Controls) else self.bias, t, x)

    def step(self, k: int, z: Array) -> Array:
        """Layer k: from a field over the grid of depth k to one over that of depth k + 1.

        Raises
        ------
        ConfigError
            If there is no layer k, or z does not have the width of depth k.
        """
        if not 0 <= k < self.n_layers:
            raise ConfigError(f"k = {k!r} is no layer: there are {self.n_layers}")
        width, wider = self._grid(k).n_nodes, self._grid(k + 1).n_nodes
        if z.ndim not in (1, 2) or z.shape[-1] != width:
            raise ConfigError(f"z has shape {z.shape}, but the width at depth {k} is {width}")
        assert isinstance(self.activation, Activation)
        code, dt = self.activation.code, float(self.depths[k + 1] - self.depths[k])
        rows = np.ascontiguousarray(z, dtype=np.float64).reshape(-1, width)
        matrix, bias, shortcut = self.matrix(k), self.bias_at(k), self.shortcut(k)
        residual = np.empty((len(rows), wider))
        if self.placement == "inside":
            active = _activated(code, rows)
            for_blocks(lambda i, j: matmul_rows(matrix, active, i, j, residual), wider, _ROWS)
            residual += bias
        else:
            for_blocks(lambda i, j: matmul_rows(matrix, rows, i, j, residual), wider, _ROWS)
            residual = _activated(code, residual + bias)
        carried = rows if shortcut is None else shortcut.apply(rows)
        return ((1.0 - self.leak * dt) * carried + dt * residual).reshape(*z.shape[:-1], wider)

    def initial(self, k: int, z: Any) -> Array:
        """Check a state of depth k, given as it is or packed."""
        raw = np.asarray(z)
        lead = () if self.n_samples is None else (self.n_samples,)
        shape = (*lead, self._grid(k).n_nodes)
        if raw.shape == self.shape != shape and raw.dtype.kind == "f":
            raw = self.unpack(raw)
        state = finite_array("y0", raw)
        if state.shape != shape:
            raise ConfigError(f"y0 has shape {state.shape}, but the state at depth {k} has shape {shape}")
        return state

    def pack(self, k: int, z: Array) -> Array:
        """State of depth k with its labels, padded with NaN to the shape `shape`."""
        nodes = self._grid(k).nodes
        packed = np.full(self.shape, np.nan)
        dim, width = self._grid(k).dim, len(nodes)
        packed[:-dim, :width] = z
        packed[-dim:, :width] = nodes.T
        return packed

    def unpack(self, y: Array) -> Array:
        """Activations (N,) or (n, N) of a packed state, the padding removed."""
        dim = self._grid(0).dim
        z = np.ascontiguousarray(y[:-dim, : int(np.isfinite(y[-1]).sum())])
        return z[0] if self.n_samples is None else z

    def labels(self, y: Array) -> Array:
        """Labels (N,) or (N, D) of a packed state, the padding removed."""
        dim = self._grid(0).dim
        x = y[-dim:, : int(np.isfinite(y[-1]).sum())]
        return np.ascontiguousarray(x[0] if dim == 1 else x.T)

    def fields(self, y: Array) -> dict[str, Field]:
        """Activations z, labels x, both NaN beyond the width, and the width, of a packed state."""
        dim = self._grid(0).dim
        z = y[:-dim]
        single = self.n_samples is None
        named = {"z": Field(z[0] if single else z, ("neuron",) if single else ("sample", "neuron"), "1", "activation")}
        for d in range(dim):
            name = "x" if dim == 1 else f"x{d + 1}"
            named[name] = Field(y[d - dim], ("neuron",), "1", "neuron label" + (f", coordinate {d + 1}" * (dim > 1)))
        width = np.array(float(np.isfinite(y[-1]).sum()))
        return named | {"width": Field(width, (), "1", "number of neurons")}

    def axes(self) -> tuple[Axis, ...]:
        """Coordinates of the axes that `fields` and `static_fields` name."""
        neuron = Axis("neuron", np.arange(self.shape[1]), units="1", long_name="index of the neuron")
        layer = Axis("layer", np.arange(len(self.depths)), units="1", long_name="index of the depth")
        if self.n_samples is None:
            return neuron, layer
        sample = Axis("sample", np.arange(self.n_samples), units="1", long_name="index of the sample")
        return sample, neuron, layer

    def static_fields(self) -> dict[str, Field]:
        """Depths of the network and its widths there."""
        return {
            "layer_depth": Field(self.depths, ("layer",), long_name="depth"),
            "layer_width": Field(self.widths.astype(np.float64), ("layer",), long_name="number of neurons"),
        }

    def describe(self) -> dict[str, Any]:
        """What determines the network, for digests of runs."""
        assert isinstance(self.activation, Activation)
        return {
            "model": "VariableWidthNetwork",
            "depths": self.depths,
            "grids": tuple(self._grid(k).describe() for k in range(len(self.depths))),
            "kernel": self.kernel,
            "activation": self.activation.name,
            "bias": self.bias,
            "placement": self.placement,
            "leak": self.leak,
            "interpolation": self.interpolation,
            "beyond": self.beyond,
            "shape": list(self.shape),
        }


def _checked_grids(given: Any, depths: Array, family: Family) -> tuple[Grid, ...]:
    """One grid for each depth; equal neighbours become the same object."""
    if callable(given):
        made = functools.cache(family)
        named = [(f"N(t={t!r})", given(t)) for t in depths.tolist()]
        grids = [n if isinstance(n, Grid) else made(positive_int(name, n)) for name, n in named]
    else:
        grids = list(given)
        if len(grids) != len(depths):
            raise ConfigError(f"grids has length {len(grids)}, but depths has length {len(depths)}")
        wrong = next((g for g in grids if not isinstance(g, Grid)), None)
        if wrong is not None:
            raise ConfigError(f"grids must hold grids, got {shown(wrong)}")
    first = grids[0]
    for k, grid in enumerate(grids):
        if grid.dim != first.dim or grid.period != first.period:
            raise ConfigError(f"grids[{k}] and grids[0] differ in dimension or period")
        if k and _equal(grids[k - 1], grid):
            grids[k] = grids[k - 1]
    return tuple(grids)


def _equal(a: Grid, b: Grid) -> bool:
    return a is b or (np.array_equal(a.nodes, b.nodes) and np.array_equal(a.weights, b.weights))


def _activated(code: int, x: Array) -> Array:
    out = np.empty_like(x)
    apply_value(code, x.ravel(), out.ravel())
    return out


def importance(grid: Grid, signal: Array, values: Array, weights: Array) -> Array:
    """Importance of neurons: what each contributes to W applied to a signal, in L2.

        I_j = q_j (mean_s v_sj^2)^(1/2) ( int w(x, x_j)^2 dx )^(1/2)

    Removing column j changes W v by exactly I_j (root mean square over samples).

    Parameters
    ----------
    grid
        Grid of the N neurons.
    signal
        What the layer matrix acts on, (N,) or (n, N): z, or sigma(z) where sigma stands inside.
    values, weights
        Kernel values w(x_i, x_j), (M, N), and weights of the nodes x_i, (M,).

    Returns
    -------
    Array
        (N,).
    """
    rows = finite_array("signal", signal).reshape(-1, grid.n_nodes)
    columns = np.sqrt(weights @ finite_array("values", values, shape=(len(weights), grid.n_nodes)) ** 2)
    return np.asarray(grid.weights * np.sqrt((rows**2).mean(axis=0)) * columns)


def prune(network: VariableWidthNetwork, z0: Any, keep: Mapping[int, int]) -> VariableWidthNetwork:
    """Network that drops the least important neurons at given depths.

    The network is run from z0; at depth index k the keep[k] neurons of depth k - 1 with the largest
    `importance` for layer k - 1 stay, and the width remains so until the next entry. The shortcut there
    is an exact restriction.

    Parameters
    ----------
    network
        Network to start from.
    z0
        Initial state, (N_0,) or (n, N_0).
    keep
        Depth index 1 .. L -> number of neurons kept.

    Returns
    -------
    VariableWidthNetwork
        The same network on the new grids.
    """
    wrong = next((k for k in keep if not 1 <= k <= network.n_layers), None)
    if wrong is not None:
        raise ConfigError(f"keep names depth {wrong}, expected 1 to {network.n_layers}")
    grids, pruned, z = list(network.grids), network, network.initial(0, z0)  # type: ignore[arg-type]
    assert isinstance(network.activation, Activation)
    for k in range(network.n_layers):
        if k + 1 in keep:
            grid = grids[k]
            signal = network.activation.value(z) if network.placement == "inside" else z
            values = kernel_between(network.kernel, float(network.depths[k]), grid.nodes, grid.nodes)
            smaller = prune_grid(grid, importance(grid, signal, values, grid.weights), keep[k + 1])
            grids[k + 1 :] = [smaller] * (network.n_layers - k)
            pruned = dataclasses.replace(pruned, grids=grids)
        z = pruned.step(k, z)
    return pruned
