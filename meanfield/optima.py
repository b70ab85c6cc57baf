"""Optima as tables of a run file: the parameters, and the history of objective and gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield.learning.quasi_newton import Optimum, minimise
from meanfield.learning.training import Training
from meanfield.solution import Status

Array = NDArray[np.float64]
Solver = Callable[..., Optimum]
Once = Callable[[str, Callable[[], Mapping[str, Any]]], dict[str, Any]]

_STORED = (Status.FINISHED, Status.MAX_STEPS, Status.NOT_CONVERGED, Status.NONFINITE)


@dataclass(frozen=True, eq=False)
class Minimisation:
    """A solver with its problem; it runs once, when one of its tables is asked for."""

    problem: Training
    solver: Solver = minimise
    start: Array | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def _optimum(self) -> Optimum:
        return self.solver(self.problem, self.start, **self.options)

    def parameters(self) -> dict[str, Array]:
        """Flat vector of the problem at the end."""
        return {"parameter": self._optimum.flat}

    def history(self) -> dict[str, Array]:
        """J and |grad J| at every iteration and, in the last row, at the end; status and evaluations as numbers."""
        found = self._optimum
        counted = np.nan if found.evaluations is None else float(found.evaluations)
        return {
            "value": np.append(found.values, found.value),
            "gradient_norm": np.append(found.gradient_norms, found.gradient_norm),
            "status": np.full(len(found.values) + 1, float(_STORED.index(found.status))),
            "evaluations": np.full(len(found.values) + 1, counted),
        }

    def stored(self, once: Once, label: str) -> Optimum:
        """Optimum from the tables `label` and `label_history`, computed where they are not there."""
        flat = once(label, self.parameters)["parameter"]
        rows = once(f"{label}_history", self.history)
        values, norms = rows["value"], rows["gradient_norm"]
        history = list(zip(values[:-1].tolist(), norms[:-1].tolist(), strict=True))
        status = _STORED[int(rows["status"][-1])]
        counted = rows["evaluations"][-1]
        evaluations = None if np.isnan(counted) else int(counted)
        return Optimum.at(
            self.problem, flat, float(values[-1]), float(norms[-1]), history, status, status.value, evaluations
        )

    def describe(self) -> dict[str, Any]:
        """What determines the result, for digests of runs."""
        return {"solver": self.solver, "problem": self.problem, "start": self.start, "options": dict(self.options)}
