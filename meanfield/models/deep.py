"""Residual networks of L blocks with M neurons each, trained by gradient flow: the law of neurons at every depth.

    h^l = h^{l-1} + (alpha / (L^a M^b)) sum_j V_j^l sigma( <U_j^l, h^{l-1}> / D ),   l = 1 .. L
    J = |h^L - Y|^2 / (2 n D)

for n samples in R^D. The parameters follow d_s theta = -c dJ/dtheta with c = L^{2a - 1} M^{2b - 1}, training
time s: with a = b = 1 that is L M times the gradient, and as L and M grow the law of the neurons of every depth
slice follows the mean-field gradient flow; a = b = 1/2 is the lazy (NTK) scaling, in which neurons stay
where they were. Source: Chizat, "The hidden width of deep ResNets: tight error bounds and phase
diagrams", arXiv 2509.10167.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, finite_float, lookup, positive_int
from meanfield.activations import Activation, activation
from meanfield.errors import ConfigError
from meanfield.fields import Field
from meanfield.parallel import blas_single_thread
from meanfield.storage.layout import Axis

Array = NDArray[np.float64]

SCALINGS = {"mean-field": (1.0, 1.0), "lazy": (0.5, 0.5), "sqrt-depth": (0.5, 1.0)}
"""Name -> exponents (a, b) of depth and width in the scale of a block."""


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
    ) -> None:
        put = object.__setattr__
        put(self, "x", finite_array("x", x, shape=(None, None)))
        put(self, "y", finite_array("y", y, shape=(None, None)))
        if self.x.shape != self.y.shape:
            raise ConfigError(f"x has shape {self.x.shape}, but y has shape {self.y.shape}")
        put(self, "depth", positive_int("depth", depth))
        put(self, "width", positive_int("width", width))
        put(self, "activation", _activation(activation))
        lookup("scaling", scaling, SCALINGS)
        put(self, "scaling", scaling)
        put(self, "alpha", finite_float("alpha", alpha))
        if self.alpha == 0.0:
            raise ConfigError("alpha must not be 0")
        dim, n = self.x.shape
        size = 2 * self.depth * self.width * dim
        check_memory(f"a network of {depth} blocks of {width} neurons", 8 * (6 * size + 4 * self.depth * dim * n))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the state, (2, L, M, D)."""
        return 2, self.depth, self.width, self.x.shape[0]

    @property
    def breakpoints(self) -> Array:
        """None: the flow is smooth where the activation is."""
        return np.empty(0)

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

    def initial(self, seed: int, deviation: float | None = None) -> Array:
        """Independent normal parameters, (2, L, M, D), of that deviation; None is sqrt(D).

        Drawn neuron by neuron of each layer, so that a wider network of the same seed is another draw.
        """
        size = np.sqrt(self.x.shape[0]) if deviation is None else finite_float("deviation", deviation, least=0.0)
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
        return np.asarray(size * generator.standard_normal(self.shape))

    def forward(self, y: Array) -> Array:
        """Hidden states h^0 .. h^L of parameters, (L + 1, D, n)."""
        u, v = y
        h = np.empty((self.depth + 1, *self.x.shape))
        h[0] = self.x
        dim, scale = self.x.shape[0], self.block_scale
        with blas_single_thread():
            for k in range(self.depth):
                active = self.activation.value(u[k] @ h[k] / dim)
                h[k + 1] = h[k] + scale * (v[k].T @ active)
        return h

    def loss(self, y: Array) -> float:
        """J = |h^L - Y|^2 / (2 n D) of parameters."""
        return float(np.mean((self.forward(y)[-1] - self.y) ** 2) / 2)

    def rate(self, t: float, y: Array, out: Array) -> None:  # noqa: ARG002  (every model has a time)
        """Fill out with -c dJ/dtheta by backpropagation."""
        u, v = y
        dim, n = self.x.shape
        h, scale = self.forward(y), self.block_scale
        factor = -self.speed * scale
        adjoint = (h[-1] - self.y) / (n * dim)
        with blas_single_thread():
            for k in range(self.depth - 1, -1, -1):
                p = u[k] @ h[k] / dim
                through = self.activation.derivative(p) * (v[k] @ adjoint)
                np.matmul(through, h[k].T, out=out[0, k])
                out[0, k] *= factor / dim
                np.matmul(self.activation.value(p), adjoint.T, out=out[1, k])
                out[1, k] *= factor
                adjoint = adjoint + (scale / dim) * (u[k].T @ through)

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
            "shape": list(self.shape),
        }


_activation = activation
