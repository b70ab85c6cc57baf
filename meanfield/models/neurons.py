"""One hidden layer of M neurons in its mean-field scaling, trained by noisy gradient descent.

    f(x) = (1/M) sum_i h(x, theta_i),    h = a sigma(<w, x> + b)
    d theta_i = -grad (dF/drho)(theta_i) dt + sqrt(2 tau) dW_i,    F = l(f) + (lam/2) (1/M) sum_i |theta_i|^2

The drift is M times the gradient of F in theta_i. As M grows the law of the neurons follows
d_t rho = div(rho grad dF/drho) + tau Laplace rho (`models.neurondensity`). Source: Mei, Montanari, Nguyen, "A mean
field view of the landscape of two-layer neural networks", arXiv 1804.06561.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, checked_seed, finite_array, finite_float, positive_int
from meanfield._random import GROUP, fill_normal
from meanfield.activations import Activation
from meanfield.errors import ConfigError
from meanfield.features import Features
from meanfield.fields import Field
from meanfield.kernels.neurons import combine, padded, sweep
from meanfield.losses import Loss, loss_of
from meanfield.parallel import for_blocks, get_threads
from meanfield.schemes import Scheme, StepGrid
from meanfield.storage.layout import Axis

Array = NDArray[np.float64]

# Up to this many numbers sigma of every neuron at every sample is kept from one step to the next.
STORED = 2**25
# Sums of outputs are taken over at most so many blocks of neurons, which depend on M alone.
BLOCKS = 64
# Neurons times samples of one call that make a thread worth its start.
_WORTH = 50_000
# Key of the initial parameters, a step number that no run reaches.
_BEFORE = np.uint64(2**64 - 1)
_CHUNK = 4096


@dataclass(frozen=True, eq=False, init=False)
class MeanFieldNeurons:
    """Noisy gradient descent of one hidden layer, as a model: the state holds the parameters, (P, M).

    A column is a neuron, its parameters in the order a, w, b (`features.Features`). A step costs
    O(M n (d + C)); memory is O(M (P + n)) while M n <= 2^25, beyond that O(M P).

    Parameters
    ----------
    x
        Inputs, (d, n); d = 0 is allowed.
    loss
        Loss of the outputs at these inputs (`losses`).
    width
        M.
    activation
        Name of sigma or an `Activation`.
    penalty
        lam >= 0.
    temperature
        tau >= 0.
    seed
        Seed of the noise, >= 0. Noise depends on (seed, step, neuron, parameter) only, not on threads.
    outer
        Whether a is trained; if not a = 1.
    bias
        Whether there is b.

    Raises
    ------
    ConfigError
        For shapes that differ or values out of range.
    ResourceError
        For networks that do not fit into memory.
    """

    features: Features
    loss: Loss
    width: int
    penalty: float
    temperature: float
    seed: int
    # Padded for the kernels.
    _inputs: Array = field(repr=False)

    def __init__(
        self,
        x: Any,
        loss: Loss,
        width: int,
        activation: str | Activation = "tanh",
        *,
        penalty: float = 0.0,
        temperature: float = 0.0,
        seed: int = 0,
        outer: bool = True,
        bias: bool = True,
    ) -> None:
        put = object.__setattr__
        put(self, "loss", loss_of(loss))
        put(self, "features", Features(x, activation, outputs=loss.n_outputs, outer=outer, bias=bias))
        if self.features.n_samples != loss.n_samples:
            raise ConfigError(f"x has {self.features.n_samples} samples, but the loss has {loss.n_samples}")
        put(self, "width", positive_int("width", width))
        check_memory(f"a layer of {width} neurons", 8 * 6 * self.features.n_parameters * self.width)
        if self.width > 2**32:
            raise ConfigError(f"width is out of range: {self.width} > 2^32")
        put(self, "penalty", finite_float("penalty", penalty, least=0.0))
        put(self, "temperature", finite_float("temperature", temperature, least=0.0))
        put(self, "seed", checked_seed("seed", seed))
        put(self, "_inputs", padded(self.features.inner().T))
        rows = len(self._inputs)
        kept = self._groups * GROUP * rows
        numbers_held = (kept if kept <= STORED else 0) + BLOCKS * rows * loss.n_outputs
        check_memory(f"a layer of {width} neurons", 8 * (numbers_held + 6 * self.features.n_parameters * self.width))

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the state, (P, M)."""
        return self.features.n_parameters, self.width

    @property
    def breakpoints(self) -> Array:
        """None: the flow is smooth where the activation is."""
        return np.empty(0)

    @property
    def stochastic(self) -> bool:
        """Whether there is noise."""
        return self.temperature > 0.0

    @functools.cached_property
    def _groups(self) -> int:
        return -(-self.width // GROUP)

    @functools.cached_property
    def _block(self) -> int:
        """Groups in a block."""
        return -(-self._groups // BLOCKS)

    def initial(self, deviation: float = 1.0, seed: int | None = None) -> Array:
        """Independent normal parameters of that deviation, (P, M); the first neurons are those of a narrower layer.

        Raises
        ------
        ConfigError
            For a deviation < 0 or a seed that is none.
        """
        out = np.empty(self.shape)
        key = self.seed if seed is None else checked_seed("seed", seed)
        fill_normal(np.uint64(key), _BEFORE, 0, out)
        out *= finite_float("deviation", deviation, least=0.0)
        return out

    def outputs(self, y: Array, x: Any = None) -> Array:
        """Outputs f of parameters, (C, n), at the inputs of the model or at others, (d, n').

        Raises
        ------
        ConfigError
            For parameters or inputs of the wrong shape.
        """
        theta = finite_array("y", y, shape=self.shape)
        if x is None:
            return self._outputs(theta)
        points = self.features.inner(x).T
        found = np.empty((self.loss.n_outputs, len(points)))
        nothing = np.empty((0, 0, GROUP))
        for start in range(0, len(points), _CHUNK):
            inputs = padded(points[start : start + _CHUNK])
            parts = np.empty((-(-self._groups // self._block), len(inputs), self.loss.n_outputs))
            part = np.empty((self.loss.n_outputs, min(_CHUNK, len(points) - start)))
            self._sweep(inputs, parts[0], theta, theta, nothing, parts, forward=True)
            combine(parts, 1.0 / self.width, part)
            found[:, start : start + _CHUNK] = part
        return found

    def risk(self, y: Array) -> float:
        """l(f), the loss of the outputs of parameters."""
        return self.loss.value(self.outputs(y))

    def energy(self, y: Array) -> float:
        """F = l(f) + (lam/2) (1/M) sum_i |theta_i|^2, without entropy."""
        flat = np.ravel(y)
        return self.risk(y) + 0.5 * self.penalty * float(flat @ flat) / self.width

    def predict(self, y: Array, x: Any = None) -> NDArray[np.int64]:
        """Class of each input, (n,), for a loss of classes; errors as `outputs`."""
        return self.loss.predict(self.outputs(y, x))

    def accuracy(self, y: Array, x: Any = None, labels: Any = None) -> float:
        """Share of the inputs whose class is predicted, of the model's own or of others with their labels.

        Raises
        ------
        ConfigError
            For other inputs without labels, labels without inputs, or labels of another length.
        """
        if (x is None) != (labels is None):
            raise ConfigError("accuracy needs both x and labels, or neither")
        found = self.predict(y, x)
        expected = np.asarray(self.loss.labels if labels is None else labels)
        if expected.shape != found.shape:
            raise ConfigError(f"labels has shape {expected.shape}, but x has {len(found)} samples")
        return float(np.mean(found == expected))

    def rate(self, t: float, y: Array, out: Array) -> None:  # noqa: ARG002  (every model has a time)
        """Fill out with the drift -grad dF/drho of every neuron, (P, M)."""
        gradient = self.loss.gradient(self._outputs(y))
        self._update(gradient, y, out, keep=0.0, h=1.0)

    def noise(self, t: float, y: Array, step: int, out: Array) -> None:  # noqa: ARG002
        """Fill out with sqrt(2 tau) xi, xi standard normal keyed by (seed, step, neuron, parameter)."""
        fill_normal(self._key, np.uint64(step), 0, out)
        out *= math.sqrt(2.0 * self.temperature)

    def fused(self, scheme: Scheme) -> bool:
        """Whether `advance` has a compiled path for the scheme: those of one stage."""
        return scheme.n_stages == 1

    def advance(self, scheme: Scheme, grid: StepGrid, first: int, count: int, y: Array, out: Array) -> None:
        """Fill out with the state after the Euler-Maruyama steps first .. first + count - 1 from y; out is not y.

        Equal to the loop of rates and noises to round-off; advancing n steps and then m gives
        the bytes of advancing n + m, and of any number of threads.
        """
        f, source = self._outputs(y), y
        for k, dt in enumerate(grid.steps(scheme, first, count)[1].tolist()):
            amplitude = math.sqrt(2.0 * self.temperature * dt)
            # The outputs after the last step are the first thing the next call computes.
            more = k + 1 < count
            self._update(
                self.loss.gradient(f),
                source,
                out,
                h=dt,
                amplitude=amplitude,
                step=grid.number(first + k),
                forward=more,
                backward=k % 2 == 0,
            )
            source = out
            if more:
                combine(self._parts, 1.0 / self.width, f)

    @functools.cached_property
    def _key(self) -> np.uint64:
        return np.uint64(self.seed)

    # Kept from call to call: mapping new pages costs more than filling them.
    @functools.cached_property
    def _parts(self) -> Array:
        """Sums of outputs over the blocks."""
        return np.zeros((-(-self._groups // self._block), len(self._inputs), self.loss.n_outputs))

    @functools.cached_property
    def _fired(self) -> Array:
        """Sigma of every neuron at every sample, with no group where that is too much."""
        rows = len(self._inputs)
        return np.zeros((self._groups if self._groups * GROUP * rows <= STORED else 0, rows, GROUP))

    @functools.cached_property
    def _slope(self) -> Array:
        """Gradient of the loss with zeros below and beside."""
        outputs = self.loss.n_outputs
        return np.zeros((len(self._inputs), 1 if outputs == 1 else -(-outputs // 4) * 4))

    def _outputs(self, y: Array) -> Array:
        """Outputs (C, n) of parameters, which leaves sigma of every neuron in `_fired`."""
        parts = self._parts
        self._sweep(self._inputs, parts[0], y, y, self._fired, parts, forward=True)
        f = np.empty((self.loss.n_outputs, self.features.n_samples))
        combine(parts, 1.0 / self.width, f)
        return f

    def _update(self, gradient: Array, y: Array, out: Array, **how: Any) -> None:
        """Fill out = keep y + h drift + noise, given dl/df at the outputs of y, the last that were computed."""
        r = self._slope
        r[: gradient.shape[1], : len(gradient)] = gradient.T
        self._sweep(self._inputs, r, y, out, self._fired, self._parts, update=True, **how)

    def _sweep(
        self,
        x: Array,
        r: Array,
        y: Array,
        out: Array,
        fired: Array,
        parts: Array,
        *,
        update: bool = False,
        forward: bool = False,
        backward: bool = False,
        keep: float = 1.0,
        h: float = 0.0,
        amplitude: float = 0.0,
        step: int = 0,
    ) -> None:
        code, n_outer, size = self.features.activation.code, self.features.n_outer, self._block
        weights, key = (self.penalty, keep, h, amplitude), (self._key, np.uint64(step))
        what, n_blocks, threads = (update, forward, backward), len(parts), get_threads()

        def run(start: int, stop: int) -> None:
            first, last = (n_blocks - stop, n_blocks - start) if backward else (start, stop)
            sweep(code, n_outer, x, r, y, out, fired, *what, *weights, *key, first, last, size, parts)

        chunk = max(n_blocks // (4 * threads), 1)
        if threads > 1 and chunk * size * GROUP * len(x) >= _WORTH:
            for_blocks(run, n_blocks, chunk)
        else:
            run(0, n_blocks)

    def fields(self, y: Array) -> dict[str, Field]:
        """Parameters over their kinds and the neurons."""
        return {"theta": Field(y, ("parameter", "neuron"), units="1", long_name="parameters of the neurons")}

    def axes(self) -> tuple[Axis, ...]:
        """Coordinates of the axes that `fields` names."""
        kinds = f"index of the parameter ({', '.join(self.features.names)})"
        return (
            Axis("parameter", np.arange(self.shape[0]), units="1", long_name=kinds),
            Axis("neuron", np.arange(self.width), units="1", long_name="index of the neuron"),
        )

    def describe(self) -> dict[str, Any]:
        """What determines the model, for digests of runs."""
        return {
            "model": "MeanFieldNeurons",
            "features": self.features.describe(),
            "loss": self.loss.describe(),
            "width": self.width,
            "penalty": self.penalty,
            "temperature": self.temperature,
            "seed": self.seed,
        }
