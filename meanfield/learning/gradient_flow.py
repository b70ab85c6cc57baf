"""Gradient flow of a training problem, as a model: the state holds the parameters, time is training time.

    d_s theta = -grad J(theta),      the gradient of L2 over depth: dJ/dtheta_k over the depth h_k of layer k

With L layers of depth 1/L that is L times the Euclidean gradient, the scaling with a limit as L grows. `integrate`
runs it: fixed Euler steps are gradient descent, adaptive ones follow the flow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield.controls import Controls
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
    """

    problem: Training

    def __post_init__(self) -> None:
        object.__setattr__(self, "problem", replace(self.problem, coordinates="l2"))

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
        """Fill out with -grad J."""
        np.negative(self.problem.objective(y)[1], out=out)

    def fields(self, y: Array) -> dict[str, Field]:
        """Parameters, each over its own entries."""
        model, readout = self.problem.unpack(y)
        named = {}
        for name in self.problem.trained or ():
            part = model.parameters[name]
            values = part.values if isinstance(part, Controls) else part
            named[name] = Field(values.ravel(), (f"entry_{name}",), units="1", long_name=f"parameter {name}, flat")
        if readout.trained:
            flat = np.concatenate([readout.p.ravel(), readout.c])
            named["readout"] = Field(flat, ("entry_readout",), units="1", long_name="readout, flat")
        return named

    def axes(self) -> tuple[Axis, ...]:
        """Numbered entries of the parameters."""
        return tuple(
            Axis(field.axes[0], np.arange(field.values.size), units="1", long_name=f"entry of {name}")
            for name, field in self.fields(self.initial()).items()
        )

    def describe(self) -> dict[str, Any]:
        """What determines the model, for digests of runs."""
        return {"model": "GradientFlow", "problem": self.problem}
