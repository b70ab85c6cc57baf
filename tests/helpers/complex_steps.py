"""Derivatives by complex steps, for the tests of adjoints: an objective along theta + i e direction, to round-off."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.special import erf

from meanfield.controls import Controls
from meanfield.learning.adjoint import Gradient, adjoint
from meanfield.operators.path import OperatorPath
from meanfield.operators.separable import Separable
from meanfield.schemes import StepGrid, scheme

STEP = 1e-30


def complex_normal_cdf(z: Any) -> Any:
    """Phi(x + i e) = Phi(x) + i e phi(x), to first order in e."""
    x, e = z.real, z.imag
    return 0.5 * (1 + erf(x / np.sqrt(2))) + 1j * e * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


# Activations for complex arguments.
ACTIVATIONS = {
    "identity": lambda z: z,
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "sine": np.sin,
    "gelu": lambda z: z * complex_normal_cdf(z),
}


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


def residual_rate(velocity: Any, direction: dict[str, np.ndarray]) -> Callable[[float, Any], Any]:
    """Rate of a residual network with parameters theta + i e direction, for complex states (d, n)."""
    sigma, part = ACTIVATIONS[velocity.activation.name], partial(complex_part, velocity, direction)

    def rate(t: float, y: Any) -> Any:
        w, b = part("w", t), part("b", t)[:, None]
        if velocity.form == "inside":
            return w @ sigma(y) + b
        inner = sigma(w @ y + b)
        return inner if velocity.form == "outside" else part("v", t) @ inner + part("c", t)[:, None]

    return rate


def spacetime_rate(model: Any, direction: dict[str, np.ndarray]) -> Callable[[float, Any], Any]:
    """Rate of a space-time network with parameters theta + i e direction, for complex fields (n, N)."""
    sigma, part = ACTIVATIONS[model.activation.name], partial(complex_part, model, direction)

    def rate(t: float, z: Any) -> Any:
        a = 1.0 if model.amplitude is None else part("amplitude", t)
        layer, b = matrix(model, t, a, STEP, direction), part("bias", t)
        outside = model.placement == "outside"
        return (sigma(z @ layer.T + b) if outside else sigma(z) @ layer.T + b) - model.leak * z

    return rate


def matrix(model: Any, t: float, a: Any, e: float, direction: Any) -> Any:
    """Layer matrix a W at depth t, with the kernel along its direction: sums written out."""
    op = model.operator
    if isinstance(op, OperatorPath):
        k = int(np.clip(np.searchsorted(op.knots, t, side="right") - 1, 0, len(op.knots) - 2))
        along = [{name: part[i] for name, part in direction.items() if name in ("weight", "left", "right")}
                 for i in range(len(op.operators))]  # fmt: skip
        if op.interpolation == "constant":
            return a * layer_matrix(op.operators[k], 1.0, e, along[k])
        s = (t - op.knots[k]) / (op.knots[k + 1] - op.knots[k])
        first, last = (layer_matrix(op.operators[i], 1.0, e, along[i]) for i in (k, k + 1))
        return a * ((1 - s) * first + s * last)
    return layer_matrix(op, a, e, direction)


def layer_matrix(op: Any, a: Any, e: float, direction: Any) -> Any:
    """Layer matrix of one operator."""
    if isinstance(op, Separable):
        left, right = op.left + 1j * e * direction["left"], op.right + 1j * e * direction["right"]
        terms = np.broadcast_to(a, len(left))
        kernel, rest = sum(c * np.outer(x, y) for c, x, y in zip(terms, left, right, strict=True)), np.mean(a)
        return kernel * op.grid.weights + rest * op.local * np.eye(op.grid.n_nodes)
    kernel = op.kernel_matrix() + (1j * e * direction["weight"] if "weight" in direction else 0.0)
    return a * (kernel * op.grid.weights + op.local * np.eye(op.grid.n_nodes))


def complex_cost(
    rate: Callable[[float, Any], Any],
    grid: StepGrid,
    name: str,
    y: Any,
    running: Callable[[float, Any], Any] = lambda t, z: (1 + t) * np.sum(z**2),
    terminal: Callable[[Any], Any] = lambda z: np.sum(z**4) / 4,
) -> complex:
    """Cost, by default that of `gradient_of`, by steps of a scheme written out for complex states."""
    tableau, cost = scheme(name), 0.0
    for times, dt in zip(*grid.steps(tableau, 0, grid.n_steps), strict=True):
        stages: list[np.ndarray] = []
        for i, t in enumerate(times):
            z = y + dt * sum((tableau.a[i, j] * k for j, k in enumerate(stages)), np.zeros_like(y))
            cost += dt * tableau.b[i] * running(t, z)
            stages.append(rate(t, z))
        y = y + dt * sum(b * k for b, k in zip(tableau.b, stages, strict=True))
    return cost + terminal(y)


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
