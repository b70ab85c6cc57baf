"""Derivatives by complex steps, for the tests of adjoints: an objective along theta + i e direction, to round-off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from meanfield.controls import Controls
from meanfield.learning.adjoint import Gradient, adjoint
from meanfield.schemes import StepGrid, scheme

STEP = 1e-30


def values(owner: Any) -> dict[str, np.ndarray]:
    """Trained numbers of a model or a velocity by name."""
    return {k: p.values if isinstance(p, Controls) else p for k, p in owner.parameters.items()}


def moved(owner: Any, direction: dict[str, np.ndarray], e: float) -> Any:
    """Model or velocity with parameters moved by e along a direction."""
    changed = {}
    for name, part in owner.parameters.items():
        if isinstance(part, Controls):
            changed[name] = Controls(part.knots, part.values + e * direction[name], part.interpolation)
        else:
            changed[name] = part + e * direction[name]
    return owner.with_parameters(**changed)


def complex_part(owner: Any, direction: dict[str, np.ndarray], key: str, t: float, e: float = STEP) -> np.ndarray:
    """Parameter at depth t, plus i e times its direction."""
    p = owner.parameters[key]
    if isinstance(p, Controls):
        return p.at(t) + 1j * e * Controls(p.knots, direction[key], p.interpolation).at(t)
    return p + 1j * e * direction[key]


def complex_cost(rate: Callable[[float, np.ndarray], np.ndarray], grid: StepGrid, name: str, y: np.ndarray) -> complex:
    """Cost of `gradient_of` by steps of a scheme written out for complex states."""
    tableau, cost = scheme(name), 0.0
    for times, dt in zip(*grid.steps(tableau, 0, grid.n_steps), strict=True):
        stages: list[np.ndarray] = []
        for i, t in enumerate(times):
            z = y + dt * sum((tableau.a[i, j] * k for j, k in enumerate(stages)), np.zeros_like(y))
            cost += dt * tableau.b[i] * (1 + t) * np.sum(z**2)
            stages.append(rate(t, z))
        y = y + dt * sum(b * k for b, k in zip(tableau.b, stages, strict=True))
    return cost + np.sum(y**4) / 4


def gradient_of(model: Any, y0: np.ndarray, name: str, n_steps: int, **options: Any) -> Gradient:
    """Gradient of sum y(1)^4/4 + int (1 + t) sum y^2 dt by the adjoint."""
    return adjoint(
        model,
        y0,
        (0.0, 1.0),
        terminal=lambda y: (float(np.sum(y**4) / 4), y**3),
        running=lambda t, y: ((1 + t) * float(np.sum(y**2)), 2 * (1 + t) * y),
        scheme=name,
        n_steps=n_steps,
        **options,
    )
