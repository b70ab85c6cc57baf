"""Residual networks of L blocks with M neurons each, trained by gradient flow: the law of neurons at every depth.

    h^l = h^{l-1} + (alpha / (L^a M^b)) sum_j V_j^l sigma( <U_j^l, h^{l-1}> / D ),   l = 1 .. L
    J = |h^L - Y|^2 / (2 n D)

for n samples in R^D. The parameters follow d_s theta = -c dJ/dtheta with c = L^{2a - 1} M^{2b - 1}, training
time s: with a = b = 1 that is L M times the gradient, and as L and M grow the law of the neurons of every depth
slice follows the mean-field gradient flow; a = b = 1/2 is the lazy (NTK) scaling, in which neurons stay
where they were. With minibatches the gradient is that of a few samples, drawn anew on every interval of
training time: Euler steps as long as the interval are stochastic gradient descent. Source: Chizat, "The hidden
width of deep ResNets: tight error bounds and phase diagrams", arXiv 2509.10167.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, checked_seed, finite_array, finite_float, lookup, positive_int, shown
from meanfield.activations import Activation, activation
from meanfield.errors import ConfigError
from meanfield.fields import Field
from meanfield.parallel import blas_single_thread
from meanfield.storage.layout import Axis

Array = NDArray[np.float64]

SCALINGS = {"mean-field": (1.0, 1.0), "lazy": (0.5, 0.5), "sqrt-depth": (0.5, 1.0)}
"""Name -> exponents (a, b) of depth and width in the scale of a block."""

# Bounds the array of breakpoints: 8 MiB.
MOST_BATCHES = 2**20


@dataclass(frozen=True, eq=False, init=False)
class DeepMeanField:
    """Gradient flow of a residual network of L blocks with M neurons, as a model: state = parameters.

    The state is (2, L, M, D), U and V of every neuron. A rate costs O(L M D n), memory is O(L (M + n) D).

    Parameters
    ----------
    x, y
        Inputs and targets, (D, n) each.
    depth, width
        L and M.
    activation
        Name of sigma or an `Activation`.
    scaling
        ``"mean-field"`` (1/(L M)), ``"lazy"`` (1/sqrt(L M)) or ``"sqrt-depth"`` (1/(sqrt(L) M)).
    alpha
        Factor of every block, != 0.
    batch
        None: the gradient is that of all samples. A pair (size, interval): on [k interval, (k + 1) interval) of
        training time it is that of `size` samples drawn without replacement, keyed by (seed, k), so that a run
        which is resumed draws the same ones. As the mean over the batch takes the place of the mean over the
        samples, the gradient has the full one as its expectation. The rate jumps at the multiples of the
        interval: they are breakpoints, at most 2^20 of them, which fixed steps must divide.
    seed
        Seed of the batches, >= 0.

    Raises
    ------
    ConfigError
        For shapes that differ or values out of range.
    ResourceError
        For networks that do not fit into memory.
    """

    x: Array
    y: Array
    depth: int
    width: int
    activation: Activation
    scaling: str
    alpha: float
    batch: tuple[int, float] | None
    seed: int

    def __init__(
        self,
        x: Any,
        y: Any,
        *,
        depth: int,
        width: int,
        activation: str | Activation = "tanh",
        scaling: str = "mean-field",
        alpha: float = 1.0,
        batch: tuple[int, float] | None = None,
        seed: int = 0,
    ) -> None:
        put = object.__setattr__
        put(self, "x", finite_array("x", x, shape=(None, None)))
        put(self, "y", finite_array("y", y, shape=(None, None)))
        if self.x.shape != self.y.shape:
            raise ConfigError(f"x has shape {self.x.shape}, but y has shape {self.y.shape}")
        if not self.x.size:
            raise ConfigError(f"x has shape {self.x.shape}: there must be at least one sample and one component")
        put(self, "depth", positive_int("depth", depth))
        put(self, "width", positive_int("width", width))
        put(self, "activation", _activation(activation))
        lookup("scaling", scaling, SCALINGS)
        put(self, "scaling", scaling)
        put(self, "alpha", finite_float("alpha", alpha))
        if self.alpha == 0.0:
            raise ConfigError("alpha must not be 0")
        put(self, "batch", _batch(batch, self.x.shape[1]))
        put(self, "seed", checked_seed("seed", seed))
        dim, n = self.x.shape
        size = 2 * self.depth * self.width * dim
        check_memory(f"a network of {depth} blocks of {width} neurons", 8 * (6 * size + 4 * self.depth * dim * n))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the state, (2, L, M, D)."""
        return 2, self.depth, self.width, self.x.shape[0]

    @property
    def breakpoints(self) -> Array:
        """Times at which the batch changes; the flow is smooth elsewhere where the activation is."""
        if self.batch is None:
            return np.empty(0)
        over, under = _ratio(self.batch[1])
        return np.asarray(np.arange(1, MOST_BATCHES) * over / under)

    @property
    def block_scale(self) -> float:
        """alpha / (L^a M^b), the factor of a block."""
        a, b = SCALINGS[self.scaling]
        return float(self.alpha / (self.depth**a * self.width**b))

    @property
    def speed(self) -> float:
        """c = L^{2a - 1} M^{2b - 1}, the factor of the gradient."""
        a, b = SCALINGS[self.scaling]
        return float(self.depth ** (2 * a - 1) * self.width ** (2 * b - 1))

    def initial(self, seed: int, deviation: float | None = None, *, tied: bool = False) -> Array:
        """Independent normal parameters, (2, L, M, D), of that deviation; None is sqrt(D).

        Drawn neuron by neuron of each layer, so that a wider network of the same seed is another draw. If `tied`,
        neuron j is the same in every layer.
        """
        size = np.sqrt(self.x.shape[0]) if deviation is None else finite_float("deviation", deviation, least=0.0)
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(checked_seed("seed", seed))))
        both, depth, width, dim = self.shape
        drawn = size * generator.standard_normal((both, 1 if tied else depth, width, dim))
        return np.array(np.broadcast_to(drawn, self.shape))

    def forward(self, y: Array) -> Array:
        """Hidden states h^0 .. h^L of parameters, (L + 1, D, n)."""
        return self._hidden(y, self.x)

    def _hidden(self, y: Array, x: Array) -> Array:
        u, v = y
        h = np.empty((self.depth + 1, *x.shape))
        h[0] = x
        dim, scale = len(x), self.block_scale
        # What overflows is seen by the guards of the time loop.
        with blas_single_thread(), np.errstate(over="ignore", invalid="ignore"):
            for k in range(self.depth):
                active = self.activation.value(u[k] @ h[k] / dim)
                h[k + 1] = h[k] + scale * (v[k].T @ active)
        return h

    def loss(self, y: Array) -> float:
        """J = |h^L - Y|^2 / (2 n D) of parameters."""
        return float(np.mean((self.forward(y)[-1] - self.y) ** 2) / 2)

    def samples(self, t: float) -> NDArray[np.int64]:
        """Indices, increasing, of the samples whose gradient acts at training time t.

        Raises
        ------
        ConfigError
            With minibatches, for a time before 0 or after the last breakpoint.
        """
        n = self.x.shape[1]
        if self.batch is None:
            return np.arange(n)
        size, interval = self.batch
        over, under = _ratio(interval)
        last = MOST_BATCHES * over / under
        if not 0.0 <= t <= last:
            raise ConfigError(f"minibatches are drawn for training times in [0, {last!r}], got {t!r}")
        # The quotient may be rounded across a breakpoint.
        k = math.floor(t / interval)
        k += int((k + 1) * over / under <= t) - int(k * over / under > t)
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, k])))
        return np.sort(generator.permutation(n)[:size])

    def rate(self, t: float, y: Array, out: Array) -> None:
        """Fill out with -c dJ/dtheta by backpropagation, J of the samples that act at t."""
        u, v = y
        chosen = self.samples(t)
        x, target = (self.x, self.y) if self.batch is None else (self.x[:, chosen], self.y[:, chosen])
        dim, n = x.shape
        h, scale = self._hidden(y, x), self.block_scale
        factor = -self.speed * scale
        adjoint = (h[-1] - target) / (n * dim)
        with blas_single_thread(), np.errstate(over="ignore", invalid="ignore"):
            for k in range(self.depth - 1, -1, -1):
                p = u[k] @ h[k] / dim
                through = self.activation.derivative(p) * (v[k] @ adjoint)
                np.matmul(through, h[k].T, out=out[0, k])
                out[0, k] *= factor / dim
                np.matmul(self.activation.value(p), adjoint.T, out=out[1, k])
                out[1, k] *= factor
                adjoint = adjoint + (scale / dim) * (u[k].T @ through)

    def neurons(self, y: Array) -> Array:
        """Neurons (U, V) of every layer as points, (L, M, 2 D): the slices of the law over depth."""
        return np.concatenate([y[0], y[1]], axis=-1)

    def fields(self, y: Array) -> dict[str, Field]:
        """Parameters U and V over layers, neurons and components."""
        axes = ("layer", "neuron", "component")
        return {
            "U": Field(y[0], axes, units="1", long_name="inner weights"),
            "V": Field(y[1], axes, units="1", long_name="outer weights"),
        }

    def axes(self) -> tuple[Axis, ...]:
        """Coordinates of the axes that `fields` names; layers stand at the depth of their block."""
        depth = (np.arange(self.depth) + 0.5) / self.depth
        return (
            Axis("layer", depth, units="1", long_name="depth"),
            Axis("neuron", np.arange(self.width), units="1", long_name="index of the neuron"),
            Axis("component", np.arange(self.x.shape[0]), units="1", long_name="index of the component"),
        )

    def describe(self) -> dict[str, Any]:
        """What determines the model, for digests of runs."""
        return {
            "model": "DeepMeanField",
            "x": self.x,
            "y": self.y,
            "activation": self.activation.name,
            "scaling": self.scaling,
            "alpha": self.alpha,
            "batch": self.batch,
            "seed": None if self.batch is None else self.seed,
            "shape": list(self.shape),
        }


_activation = activation


def _batch(batch: Any, n: int) -> tuple[int, float] | None:
    if batch is None:
        return None
    try:
        size, interval = batch
    except (TypeError, ValueError):
        raise ConfigError(f"batch must be None or a pair (size, interval), got {shown(batch)}") from None
    size, interval = positive_int("batch size", size), finite_float("batch interval", interval, above=0.0)
    if size > n:
        raise ConfigError(f"batch size must be at most the number of samples {n}, got {size}")
    return size, interval


def _ratio(interval: float) -> tuple[float, int]:
    """Terms p/q of an interval like 0.3, so that its multiples k p/q are the numbers people write: 3.6 = 12 p/q."""
    short = Fraction(interval).limit_denominator(10**6)
    over, under = short.numerator, short.denominator
    return (float(over), under) if over / under == interval else (interval, 1)
