"""What one neuron of a hidden layer computes, h(x, theta) = a sigma(<w, x> + b).

    theta = (a, w, b): a (C,) or fixed to 1, w (d,), b or none

The parameters of a neuron stand in one column in the order a, w, b. With d = 0 there is only
the bias: h = a sigma(b), or sigma(b), the linear h = theta for the identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, positive_int
from meanfield.activations import Activation, activation
from meanfield.errors import ConfigError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, init=False)
class Features:
    """h(x_k, theta) = a sigma(<w, x_k> + b) at fixed inputs x_k.

    Parameters
    ----------
    x
        Inputs, (d, n), n >= 1; d = 0 is allowed.
    activation
        Name of sigma or an `Activation`.
    outputs
        C, the number of outputs.
    outer
        Whether a is trained; if not a = 1 and C = 1.
    bias
        Whether there is b; needed for d = 0.

    Raises
    ------
    ConfigError
        For inputs that are not finite, or choices that do not go together.
    """

    x: Array
    activation: Activation
    outputs: int
    outer: bool
    bias: bool

    def __init__(
        self, x: Any, activation: str | Activation = "tanh", *, outputs: int = 1, outer: bool = True, bias: bool = True
    ) -> None:
        put = object.__setattr__
        put(self, "x", finite_array("x", x, shape=(None, None)))
        put(self, "activation", _activation(activation))
        put(self, "outputs", positive_int("outputs", outputs))
        for name, value in (("outer", outer), ("bias", bias)):
            if not isinstance(value, bool | np.bool_):
                raise ConfigError(f"{name} must be True or False, got {value!r}")
            put(self, name, bool(value))
        if not self.n_samples:
            raise ConfigError(f"x has shape {self.x.shape}: there must be at least one sample")
        if not self.outer and self.outputs != 1:
            raise ConfigError(f"outer = False leaves one output, got outputs = {self.outputs}")
        if not self.bias and not self.dimension:
            raise ConfigError("bias = False leaves nothing to train inside where x has no rows (d = 0)")

    @property
    def dimension(self) -> int:
        """d."""
        return int(self.x.shape[0])

    @property
    def n_samples(self) -> int:
        """n."""
        return int(self.x.shape[1])

    @property
    def n_outer(self) -> int:
        """Number of parameters outside sigma: C, or 0 where a is fixed."""
        return self.outputs if self.outer else 0

    @property
    def n_parameters(self) -> int:
        """P, the number of parameters of a neuron."""
        return self.n_outer + self.dimension + self.bias

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters in their order: a1 .., w1 .., b, without a number where there is one of a kind."""
        kinds = (("a", self.n_outer), ("w", self.dimension))
        numbered = [f"{kind}{j + 1}" if count > 1 else kind for kind, count in kinds for j in range(count)]
        return (*numbered, "b") if self.bias else tuple(numbered)

    def inner(self, x: Any = None) -> Array:
        """Inputs with a row of ones below them where there is a bias, (d + 1, n) or (d, n).

        Raises
        ------
        ConfigError
            For other inputs x of the wrong shape.
        """
        values = self.x if x is None else finite_array("x", x, shape=(self.dimension, None))
        return np.vstack([values, np.ones((1, values.shape[1]))]) if self.bias else values

    def evaluate(self, theta: Any) -> Array:
        """h at every input for parameters (P, m), an array (C, m, n).

        Raises
        ------
        ConfigError
            For parameters of the wrong shape.
        ResourceError
            For an array that does not fit into memory.
        """
        values = finite_array("theta", theta, shape=(self.n_parameters, None))
        count = values.shape[1]
        check_memory(f"features of {count} neurons", 8 * (self.outputs + 3) * count * self.n_samples)
        fired = self.activation.value(values[self.n_outer :].T @ self.inner())
        if not self.outer:
            return fired[None]
        return np.asarray(values[: self.outputs, :, None] * fired)

    def describe(self) -> dict[str, Any]:
        """What determines the features, for digests of runs."""
        return {
            "x": self.x,
            "activation": self.activation.name,
            "outputs": self.outputs,
            "outer": self.outer,
            "bias": self.bias,
        }


_activation = activation
