"""Gradient flow of a training problem, as a model: the state holds the parameters, time is training time.

    d_s theta = -c grad J(theta),    the gradient of L2 over depth: dJ/dtheta_k over the depth h_k of layer k

With L layers of depth 1/L that is L times the Euclidean gradient, the scaling with a limit as L grows. c > 0 is a
speed for each parameter; a clipped flow bounds the speed of every layer. `integrate` runs it: fixed Euler steps are
gradient descent, adaptive ones follow the flow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_float, lookup
from meanfield.controls import Controls
from meanfield.errors import ConfigError
from meanfield.fields import Field
from meanfield.learning.training import Training
from meanfield.storage.layout import Axis

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GradientFlow:
    """Gradient flow of J; the state is the flat vector of the problem in the coordinates of L2.

    Parameters
    ----------
    problem
        Training problem.
    speeds
        Name of a trained parameter, ``"readout"`` or ``"inlet"`` -> c > 0; 1 for the others. They stand for a
        parametrisation: theta = Theta sqrt(c) with a flow of speed 1 for Theta.
    clip
        Largest norm of the speed of the parameters of one layer, all that depend on depth together; None is unbounded.

    Raises
    ------
    ConfigError
        For speeds of what is not trained or that are not positive; for a clipped flow without parameters over depth,
        or with parameters on different layers.

    Notes
    -----
    Source: Marion, Wu, Sander, Biau, "Implicit regularization of deep residual networks towards neural ODEs",
    arXiv 2309.01213 (scaling and clipping).
    """

    problem: Training
    speeds: Mapping[str, float] = field(default_factory=dict)
    clip: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "problem", replace(self.problem, coordinates="l2"))
        names = {piece.split(" ")[0] for piece, _ in self.problem.pieces()}
        for name, speed in self.speeds.items():
            lookup("trained parameter", name, {known: known for known in names})
            finite_float(f"speed of {name}", speed, above=0.0)
        if self.clip is not None:
            object.__setattr__(self, "clip", finite_float("clip", self.clip, above=0.0))
            parts = [part for name, part in self.problem.model.parameters.items() if name in self._deep
                     and isinstance(part, Controls)]  # fmt: skip
            if not parts or any(
                p.interpolation != parts[0].interpolation or not np.array_equal(p.knots, parts[0].knots) for p in parts
            ):
                raise ConfigError("clip bounds layers: the trained parameters over depth must share theirs")

    @property
    def _deep(self) -> list[str]:
        """Trained parameters over depth."""
        parts = self.problem.model.parameters
        return [name for name in self.problem.trained or () if isinstance(parts[name], Controls)]

    @property
    def shape(self) -> tuple[int]:
        """Shape of the state, (P,)."""
        return (len(self.problem.start()),)

    @property
    def breakpoints(self) -> Array:
        """None: the flow is smooth where the activation is."""
        return np.empty(0)

    def initial(self) -> Array:
        """State of the parameters of the problem."""
        return self.problem.start()

    def loss(self, y: Array) -> float:
        """J of a state."""
        return self.problem.objective(y)[0]

    def rate(self, t: float, y: Array, out: Array) -> None:  # noqa: ARG002  (every model has a time)
        """Fill out with -c grad J, clipped."""
        np.negative(self.problem.objective(y)[1], out=out)
        if not self.speeds and self.clip is None:
            return
        place, layers = 0, {}
        for piece, shape in self.problem.pieces():
            size = int(np.prod(shape))
            out[place : place + size] *= self.speeds.get(piece.split(" ")[0], 1.0)
            if piece in self._deep:
                layers[piece] = out[place : place + size].reshape(shape[0], -1)
            place += size
        if self.clip is not None:
            self._clip(layers)

    def _clip(self, layers: Mapping[str, Array]) -> None:
        """Scale the rates of layers down to the bound, in place."""
        # Of theta itself, not of its coordinates.
        scales = {name: self.problem.coordinates_of(name).scale.reshape(-1, 1) for name in layers}
        squares = sum(((part / scales[name]) ** 2).sum(axis=1) for name, part in layers.items())
        factors = np.minimum(1.0, self.clip / np.maximum(np.sqrt(squares), np.finfo(float).tiny))
        for part in layers.values():
            np.multiply(part, factors[:, None], out=part)

    def dissipation(self, y: Array) -> tuple[float, float]:
        """J of a state and -dJ/ds = sum c |grad J|^2 of the flow without a bound.

        Their ratio is the constant of the Polyak-Lojasiewicz inequality -dJ/ds >= mu J there.
        """
        value, gradient = self.problem.objective(y)
        place, total = 0, 0.0
        for piece, shape in self.problem.pieces():
            size = int(np.prod(shape))
            part = gradient[place : place + size]
            total += self.speeds.get(piece.split(" ")[0], 1.0) * float(part @ part)
            place += size
        return value, total

    def fields(self, y: Array) -> dict[str, Field]:
        """Parameters, each over its own entries."""
        model, readout = self.problem.unpack(y)
        inlet, named = self.problem.inlet_of(y), {}
        for name in self.problem.trained or ():
            part = model.parameters[name]
            values = part.values if isinstance(part, Controls) else part
            named[name] = Field(values.ravel(), (f"entry_{name}",), units="1", long_name=f"parameter {name}, flat")
        for name, outer in (("readout", readout), ("inlet", inlet)):
            if outer is not None and outer.trained:
                flat = np.concatenate([outer.p.ravel(), outer.c])
                named[name] = Field(flat, (f"entry_{name}",), units="1", long_name=f"{name}, flat")
        # One parameter alone would be taken for the state, which holds its coordinates.
        return named | {"state": Field(y, ("state_0",), units="1", long_name="coordinates of the parameters")}

    def axes(self) -> tuple[Axis, ...]:
        """Numbered entries of the parameters."""
        return tuple(
            Axis(field.axes[0], np.arange(field.values.size), units="1", long_name=f"entry of {name}")
            for name, field in self.fields(self.initial()).items()
            if name != "state"
        )

    def describe(self) -> dict[str, Any]:
        """What determines the model, for digests of runs."""
        return {"model": "GradientFlow", "problem": self.problem, "speeds": dict(self.speeds), "clip": self.clip}
