"""Training problems: an objective of the parameters of a network, with its gradient by the discrete adjoint.

    J(theta) = l(P x(T) + c) + beta int_0^T l(P x(t) + c) dt + sum_k R_k(theta_k) + (lam/2)(|P|^2 + |c|^2)

x(t) is the state of a residual network, or of a space-time network with P x = int P(x) z(x) dx over its labels.

Parameters are handed to solvers as one flat vector whose Euclidean products are those of L2 over depth and labels (a
depth interval of length h counts as sqrt(h), a label as sqrt(q)), or, where there is a penalty of theta' in L2, those
of that penalty: steps of solvers then depend neither on the number of layers nor on that of neurons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float, lookup, one_of, positive_int, shown
from meanfield.controls import Controls
from meanfield.errors import ConfigError, NumericalError
from meanfield.learning.adjoint import adjoint
from meanfield.learning.coordinates import Coordinates
from meanfield.losses import Loss, Readout, loss_of
from meanfield.models.residual import ResidualNetwork
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.planning import step_grid
from meanfield.regularizers import Regularizer, regularizer_of
from meanfield.schemes import EULER, Scheme
from meanfield.schemes import scheme as scheme_of

Array = NDArray[np.float64]
Network = ResidualNetwork | SpaceTimeNetwork


@dataclass(frozen=True, eq=False)
class Training:
    """Training problem of a residual network, or of a space-time network.

    Parameters
    ----------
    model
        Network with `Controls` or arrays as parameters.
    x
        Inputs, of the model's shape: (d, n), or (n, N) and (N,) of a space-time network. Before an inlet (d', n).
    loss
        l, of the outputs at these inputs.
    t_span
        (t0, T).
    n_steps
        Fixed steps; with Euler steps, the number of layers.
    scheme
        Name or tableau, Euler by default.
    readout
        P and c; None is the identity: outputs are the activations. Trained where it says so. For a space-time network
        P (C, N) holds functions of the labels, and outputs are integrals.
    regularizers
        Name of a parameter -> regulariser of its values over depth (of `Controls` only).
    tracking
        beta >= 0.
    readout_penalty
        lam >= 0.
    trained
        Names of the parameters to be trained; None is all of them.
    inlet
        A and a: the state starts at A x + a; None starts it at x. Of residual networks; trained where it says so.
    coordinates
        ``"auto"`` as above, or ``"l2"``: products of L2 for all parameters.

    Raises
    ------
    ConfigError
        For names, shapes or values that do not go together.
    """

    model: Network
    x: Array
    loss: Loss
    t_span: tuple[float, float]
    n_steps: int
    scheme: str | Scheme = EULER
    readout: Readout | None = None
    regularizers: Mapping[str, Regularizer] = field(default_factory=dict)
    tracking: float = 0.0
    readout_penalty: float = 0.0
    trained: tuple[str, ...] | None = None
    coordinates: str = "auto"
    inlet: Readout | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        if not isinstance(self.model, (ResidualNetwork, SpaceTimeNetwork)):
            raise ConfigError(f"model must be a ResidualNetwork or a SpaceTimeNetwork, got {shown(self.model)}")
        if getattr(self.model, "stochastic", False):
            raise ConfigError("training has no noise: nu must be 0")
        for name in ("readout", "inlet"):
            if not isinstance(getattr(self, name), Readout | None):
                raise ConfigError(f"{name} must be a Readout or None, got {shown(getattr(self, name))}")
        if not isinstance(self.regularizers, Mapping):
            raise ConfigError(f"regularizers must map names to regularisers, got {shown(self.regularizers)}")
        put(self, "x", self._checked_inputs())
        loss = loss_of(self.loss)
        dim, n_samples = (
            (len(self.model.grid.weights), self.model.n_samples or 1)
            if isinstance(self.model, SpaceTimeNetwork)
            else self.model.shape
        )
        readout = self._identity(dim) if self.readout is None else self.readout
        if readout.dim != dim or readout.n_outputs != loss.n_outputs or loss.n_samples != n_samples:
            raise ConfigError(
                f"network of shape {self.model.shape}, readout {readout.p.shape} and a loss of {loss.n_outputs} "
                f"outputs at {loss.n_samples} samples do not go together"
            )
        put(self, "readout", readout)
        put(self, "n_steps", positive_int("n_steps", self.n_steps))
        put(self, "scheme", scheme_of(self.scheme))
        put(self, "tracking", finite_float("tracking", self.tracking, least=0.0))
        put(self, "readout_penalty", finite_float("readout_penalty", self.readout_penalty, least=0.0))
        if self.tracking and readout.trained:
            raise ConfigError("tracking needs a readout that is fixed, not trained")
        one_of("coordinates", self.coordinates, ("auto", "l2"))
        known = self.model.parameters
        names = tuple(known) if self.trained is None else self._checked_names()
        put(self, "trained", names)
        kept: dict[str, Regularizer] = {}
        for name, regularizer in self.regularizers.items():
            if not isinstance(lookup("parameter", name, known), Controls):
                raise ConfigError(f"parameter {name!r} does not depend on depth: a regulariser has nothing to act on")
            kept[name] = regularizer_of(regularizer)
        put(self, "regularizers", kept)
        step_grid(self.model, self.t_span, n_steps=self.n_steps)  # refuses spans and steps that cannot be

    def _checked_names(self) -> tuple[str, ...]:
        if isinstance(self.trained, str) or not isinstance(self.trained, Sequence):
            raise ConfigError(f"trained must be names of parameters, such as ('w', 'b'), got {shown(self.trained)}")
        for name in self.trained:
            lookup("parameter", name, self.model.parameters)
        if len(set(self.trained)) < len(self.trained):
            raise ConfigError(f"trained names a parameter twice: {', '.join(self.trained)}")
        return tuple(self.trained)

    def _checked_inputs(self) -> Array:
        if self.inlet is None:
            return finite_array("x", self.x, shape=self.model.shape)
        if isinstance(self.model, SpaceTimeNetwork) or self.inlet.n_outputs != self.model.shape[0]:
            raise ConfigError(
                f"an inlet of {self.inlet.n_outputs} components does not fit a model of {self.model.shape}"
            )
        return finite_array("x", self.x, shape=(self.inlet.dim, self.model.shape[1]))

    def _identity(self, dim: int) -> Readout:
        if isinstance(self.model, SpaceTimeNetwork):
            return Readout(np.diag(1.0 / self.model.grid.weights))
        return Readout.identity(dim)

    def columns(self, y: Array) -> Array:
        """What the readout acts on, (d, n): a state, or that of a space-time network times the weights of labels."""
        if isinstance(self.model, SpaceTimeNetwork):
            q = self.model.grid.weights
            return (y.reshape(-1, len(q)) * q).T
        return y

    def _pulled(self, g: Array) -> Array:
        """Gradient in the state from that in its `columns`."""
        if isinstance(self.model, SpaceTimeNetwork):
            return np.asarray((g.T * self.model.grid.weights).reshape(self.model.shape))
        return g

    @property
    def _readout_scale(self) -> Array:
        return np.sqrt(self.model.grid.weights) if isinstance(self.model, SpaceTimeNetwork) else np.ones(())

    @property
    def _names(self) -> tuple[str, ...]:
        return self.trained or ()

    @property
    def _map(self) -> Readout:
        assert self.readout is not None
        return self.readout

    def start(self) -> Array:
        """Flat vector of the parameters as they are."""
        parts = [self.coordinates_of(name).of_values(self._values(name)) for name in self._names]
        if self._map.trained:
            parts += [self._map.p * self._readout_scale, self._map.c]
        if self.inlet is not None and self.inlet.trained:
            parts += [self.inlet.p, self.inlet.c]
        return np.concatenate([np.ravel(p) for p in parts]) if parts else np.empty(0)

    def _values(self, name: str) -> Array:
        part = self.model.parameters[name]
        return part.values if isinstance(part, Controls) else part

    def coordinates_of(self, name: str) -> Coordinates:
        """Coordinates of a parameter in flat vectors."""
        regularizer = self.regularizers.get(name) if self.coordinates == "auto" else None
        return Coordinates.of(self.model, name, regularizer)

    def pieces(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of what stands in a flat vector, in their order."""
        found = [(name, np.shape(self._values(name))) for name in self._names]
        for name, part in (("readout", self._map), ("inlet", self.inlet)):
            if part is not None and part.trained:
                found += [(f"{name} p", part.p.shape), (f"{name} c", part.c.shape)]
        return found

    def _split(self, flat: Array) -> dict[str, Array]:
        shapes = self.pieces()
        size = sum(int(np.prod(shape)) for _, shape in shapes)
        if np.shape(flat) != (size,):
            raise ConfigError(f"flat has shape {np.shape(flat)}, expected ({size},)")
        ends = np.cumsum([int(np.prod(shape)) for _, shape in shapes])[:-1]
        return {name: part.reshape(shape) for (name, shape), part in zip(shapes, np.split(flat, ends), strict=True)}

    def unpack(self, flat: Array) -> tuple[Network, Readout]:
        """Network and readout of a flat vector."""
        parts, changed = self._split(flat), dict[str, Array | Controls]()
        for name in self._names:
            part, new = self.model.parameters[name], self.coordinates_of(name).values(parts[name])
            changed[name] = Controls(part.knots, new, part.interpolation) if isinstance(part, Controls) else new
        readout = self._map
        if readout.trained:
            readout = replace(readout, p=parts["readout p"] / self._readout_scale, c=parts["readout c"])
        return self.model.with_parameters(**changed), readout

    def inlet_of(self, flat: Array) -> Readout | None:
        """Inlet of a flat vector, None where there is none."""
        if self.inlet is None or not self.inlet.trained:
            return self.inlet
        parts = self._split(flat)
        return replace(self.inlet, p=parts["inlet p"], c=parts["inlet c"])

    def initial(self, flat: Array | None = None) -> Array:
        """State that the network starts from, of the model's shape."""
        inlet = self.inlet if flat is None else self.inlet_of(flat)
        return self.x if inlet is None else inlet.forward(self.x)

    def objective(self, flat: Array) -> tuple[float, Array]:
        """J and its gradient in the flat vector."""
        model, readout = self.unpack(flat)
        outer = [np.zeros_like(readout.p), np.zeros_like(readout.c)]

        def cost(y: Array) -> tuple[float, Array]:
            x = self.columns(y)
            f = readout.forward(x)
            gx, outer[0], outer[1] = readout.vjp(x, self.loss.gradient(f))
            return self.loss.value(f), self._pulled(gx)

        found = adjoint(
            model,
            self.initial(flat),
            self.t_span,
            terminal=cost,
            scheme=self.scheme,
            n_steps=self.n_steps,
            running=self._tracking_cost(readout) if self.tracking else None,
        )
        value, slopes = found.value, dict(found.parameters)
        for name, regularizer in self.regularizers.items():
            part = model.parameters[name]
            assert isinstance(part, Controls)
            value += regularizer.value(part.values, part.knots, part.interpolation)
            slopes[name] = slopes[name] + regularizer.gradient(part.values, part.knots, part.interpolation)
        parts = [self.coordinates_of(name).of_gradient(slopes[name]) for name in self._names]
        scale = self._readout_scale
        p = readout.p * scale
        value += 0.5 * self.readout_penalty * float(np.sum(p**2) + np.sum(readout.c**2))
        if readout.trained:
            parts += [outer[0] / scale + self.readout_penalty * p, outer[1] + self.readout_penalty * readout.c]
        if self.inlet is not None and self.inlet.trained:
            parts += self.inlet.vjp(self.x, found.state)[1:]
        gradient = np.concatenate([np.ravel(p) for p in parts]) if parts else np.empty(0)
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            raise NumericalError(f"the objective is {value}, or its gradient is not finite")
        return value, gradient

    def _tracking_cost(self, readout: Readout) -> Any:
        def running(_t: float, y: Array) -> tuple[float, Array]:
            f = readout.forward(self.columns(y))
            pulled = self._pulled(readout.p.T @ self.loss.gradient(f))
            return self.tracking * self.loss.value(f), self.tracking * pulled

        return running

    def describe(self) -> dict[str, Any]:
        """What determines the problem, for digests of runs."""
        scheme = scheme_of(self.scheme)
        return {
            "problem": "Training",
            "model": self.model,
            "x": self.x,
            "loss": self.loss,
            "t_span": list(self.t_span),
            "n_steps": self.n_steps,
            "scheme": scheme,
            "readout": self.readout,
            "regularizers": dict(self.regularizers),
            "tracking": self.tracking,
            "readout_penalty": self.readout_penalty,
            "trained": list(self._names),
            "coordinates": self.coordinates,
            "inlet": self.inlet,
        }
