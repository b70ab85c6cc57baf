"""Training problems: an objective of the parameters of a network, with its gradient by the discrete adjoint.

    J(theta) = l(P x(T) + c) + beta int_0^T l(P x(t) + c) dt + sum_k R_k(theta_k) + (lam/2)(|P|^2 + |c|^2)

Parameters are handed to solvers as one flat vector whose Euclidean products are those of L2 over depth (a depth
interval of length h counts as sqrt(h)), or, where there is a penalty of theta' in L2, those of that penalty: steps of
solvers then do not depend on the number of layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float, lookup, one_of, positive_int
from meanfield.controls import Controls
from meanfield.errors import ConfigError
from meanfield.learning.adjoint import adjoint
from meanfield.losses import Loss, Readout, loss_of
from meanfield.models.residual import ResidualNetwork
from meanfield.regularizers import DepthH1, Regularizer, Total, regularizer_of
from meanfield.schemes import EULER, Scheme
from meanfield.schemes import scheme as scheme_of

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Training:
    """Training problem of a residual network.

    Parameters
    ----------
    model
        Network with `Controls` or arrays as parameters.
    x
        Inputs, (d, n).
    loss
        l, of the outputs at these inputs.
    t_span
        (t0, T).
    n_steps
        Fixed steps; with Euler steps, the number of layers.
    scheme
        Name or tableau, Euler by default.
    readout
        P and c; None is the identity. Trained where it says so.
    regularizers
        Name of a parameter -> regulariser of its values over depth (of `Controls` only).
    tracking
        beta >= 0.
    readout_penalty
        lam >= 0.
    trained
        Names of the parameters to be trained; None is all of them.
    coordinates
        ``"auto"`` as above, or ``"l2"``: products of L2 over depth for all parameters.

    Raises
    ------
    ConfigError
        For names, shapes or values that do not go together.
    """

    model: ResidualNetwork
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

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "x", finite_array("x", self.x, shape=self.model.shape))
        loss = loss_of(self.loss)
        readout = Readout.identity(self.model.shape[0]) if self.readout is None else self.readout
        if readout.dim != len(self.x) or readout.n_outputs != loss.n_outputs or loss.n_samples != self.x.shape[1]:
            raise ConfigError(
                f"network of shape {self.x.shape}, readout {readout.p.shape} and a loss of {loss.n_outputs} outputs "
                f"at {loss.n_samples} samples do not go together"
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
        names = tuple(known) if self.trained is None else tuple(self.trained)
        for name in names:
            lookup("parameter", name, known)
        put(self, "trained", names)
        for name, regularizer in self.regularizers.items():
            if not isinstance(lookup("parameter", name, known), Controls):
                raise ConfigError(f"parameter {name!r} does not depend on depth: a regulariser has nothing to act on")
            regularizer_of(regularizer)

    @property
    def _names(self) -> tuple[str, ...]:
        return self.trained or ()

    @property
    def _map(self) -> Readout:
        assert self.readout is not None
        return self.readout

    def start(self) -> Array:
        """Flat vector of the parameters as they are."""
        parts = [self._coordinates(name, self._values(name)) for name in self._names]
        if self._map.trained:
            parts += [self._map.p, self._map.c]
        return np.concatenate([np.ravel(p) for p in parts]) if parts else np.empty(0)

    def _values(self, name: str) -> Array:
        part = self.model.parameters[name]
        return part.values if isinstance(part, Controls) else part

    def _scale(self, name: str) -> Array:
        """Square root of the depth that a value stands for, (K, 1, ...); 1 where there is no depth."""
        part = self.model.parameters[name]
        if not isinstance(part, Controls):
            return np.ones(1)
        steps = np.diff(part.knots)
        if part.interpolation == "linear":
            steps = 0.5 * (np.append(steps, 0.0) + np.insert(steps, 0, 0.0))
        return np.asarray(np.sqrt(steps).reshape(-1, *(1 for _ in part.shape)))

    def _gaps(self, name: str) -> Array | None:
        """Square roots of the distances between values, (K - 1, 1, ...), where jumps are penalised; else None."""
        part, regularizer = self.model.parameters[name], self.regularizers.get(name)
        terms = regularizer.terms if isinstance(regularizer, Total) else (regularizer,)
        smooth = any(isinstance(term, DepthH1) and term.strength > 0.0 for term in terms)
        if self.coordinates == "l2" or not smooth or not isinstance(part, Controls):
            return None
        middles = 0.5 * (part.knots[1:] + part.knots[:-1])
        at = part.knots if part.interpolation == "linear" else middles
        return np.asarray(np.sqrt(np.diff(at)).reshape(-1, *(1 for _ in part.shape)))

    def _coordinates(self, name: str, values: Array) -> Array:
        """Coordinates of values: values over depth, or the first one and the slopes."""
        gaps = self._gaps(name)
        if gaps is None:
            return values * self._scale(name)
        return np.concatenate([values[:1], np.diff(values, axis=0) / gaps])

    def _from_coordinates(self, name: str, u: Array) -> Array:
        gaps = self._gaps(name)
        if gaps is None:
            return u / self._scale(name)
        return np.asarray(np.cumsum(np.concatenate([u[:1], u[1:] * gaps]), axis=0))

    def _to_coordinates(self, name: str, gradient: Array) -> Array:
        """Gradient in the coordinates from that in the values: the transpose of `_from_coordinates`."""
        gaps = self._gaps(name)
        if gaps is None:
            return gradient / self._scale(name)
        sums = np.cumsum(gradient[::-1], axis=0)[::-1]
        return np.concatenate([sums[:1], sums[1:] * gaps])

    def unpack(self, flat: Array) -> tuple[ResidualNetwork, Readout]:
        """Network and readout of a flat vector."""
        changed: dict[str, Array | Controls] = {}
        place = 0
        for name in self._names:
            part, values = self.model.parameters[name], self._values(name)
            new = self._from_coordinates(name, flat[place : place + values.size].reshape(values.shape))
            place += values.size
            changed[name] = Controls(part.knots, new, part.interpolation) if isinstance(part, Controls) else new
        readout = self._map
        if readout.trained:
            p = flat[place : place + readout.p.size].reshape(readout.p.shape)
            readout = replace(readout, p=p, c=flat[place + readout.p.size :])
        return self.model.with_parameters(**changed), readout

    def objective(self, flat: Array) -> tuple[float, Array]:
        """J and its gradient in the flat vector."""
        model, readout = self.unpack(flat)
        outer = [np.zeros_like(readout.p), np.zeros_like(readout.c)]

        def cost(y: Array, weight: float) -> tuple[float, Array]:
            f = readout.forward(y)
            gy, gp, gc = readout.vjp(y, self.loss.gradient(f))
            outer[0] += weight * gp
            outer[1] += weight * gc
            return self.loss.value(f), gy

        found = adjoint(
            model,
            self.x,
            self.t_span,
            terminal=lambda y: cost(y, 1.0),
            scheme=self.scheme,
            n_steps=self.n_steps,
            running=self._tracking_cost(readout) if self.tracking else None,
        )
        value, parts = found.value, []
        for name in self._names:
            gradient = found.parameters[name]
            if name in self.regularizers:
                part = model.parameters[name]
                assert isinstance(part, Controls)
                value += self.regularizers[name].value(part.values, part.knots, part.interpolation)
                gradient = gradient + self.regularizers[name].gradient(part.values, part.knots, part.interpolation)
            parts.append(self._to_coordinates(name, gradient))
        value += 0.5 * self.readout_penalty * float(np.sum(readout.p**2) + np.sum(readout.c**2))
        if readout.trained:
            parts += [outer[0] + self.readout_penalty * readout.p, outer[1] + self.readout_penalty * readout.c]
        return value, np.concatenate([np.ravel(p) for p in parts]) if parts else np.empty(0)

    def _tracking_cost(self, readout: Readout) -> Any:
        def running(_t: float, y: Array) -> tuple[float, Array]:
            f = readout.forward(y)
            return self.tracking * self.loss.value(f), self.tracking * (readout.p.T @ self.loss.gradient(f))

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
            "scheme": scheme.name,
            "readout": self.readout,
            "regularizers": dict(self.regularizers),
            "tracking": self.tracking,
            "readout_penalty": self.readout_penalty,
            "trained": list(self._names),
            "coordinates": self.coordinates,
        }
