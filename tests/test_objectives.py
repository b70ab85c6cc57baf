"""Objectives of training: every network, scheme and penalty, by complex steps to round-off and by Taylor remainders.

Parameters are random and depend on depth, labels have uneven weights, there are several samples and a tracking term.
"""

from __future__ import annotations

import numpy as np
import pytest
from helpers.complex_steps import STEP, complex_cost, residual_rate, spacetime_rate, values

from meanfield.controls import Controls
from meanfield.diagnostics.rates import fit_rate
from meanfield.grids import Grid
from meanfield.learning.training import Training
from meanfield.losses import Readout, Squared
from meanfield.models.residual import ResidualNetwork
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.dense import Dense
from meanfield.operators.path import OperatorPath
from meanfield.operators.separable import Separable
from meanfield.planning import step_grid
from meanfield.regularizers import DepthH1, DepthL2, DepthVariation, LabelSmoothness
from meanfield.velocities import Velocity

RNG = np.random.default_rng(8)
KNOTS = np.array([0.0, 0.25, 0.4, 1.0])
K, N, SAMPLES, TRACKING = 3, 7, 4, 0.6
WEIGHTS = RNG.uniform(0.1, 2.0, N)
LABELS = np.sort(RNG.uniform(0, 1, N))
GRID = Grid(LABELS, WEIGHTS / WEIGHTS.sum())
TERMS = ("l2", "h1", "variation", "labels", "all")
MODELS = ("outside", "inside", "two_layer", "dense outside", "dense inside", "separable outside")


def layers(*shape: int) -> Controls:
    return Controls(KNOTS, RNG.standard_normal((K, *shape)))


def network(kind: str):
    """Network with all its parameters over depth, and the name of the one that is penalised."""
    if " " not in kind:
        sizes = {"two_layer": [(3, N), (N, 3), (N,), (3,)]}.get(kind, [(N, N), (N,)])
        return ResidualNetwork(getattr(Velocity, kind)("softplus", *(layers(*s) for s in sizes)), SAMPLES), "w"
    operator, placement = kind.split()
    if operator == "dense":
        path = OperatorPath(KNOTS, [Dense(GRID, RNG.standard_normal((N, N))) for _ in range(K)])
    else:
        path = OperatorPath(KNOTS, [Separable(GRID, *RNG.standard_normal((2, 2, N))) for _ in range(K)])
    model = SpaceTimeNetwork(path, "softplus", layers(N), placement=placement, n_samples=SAMPLES, leak=0.3)
    return model, "weight" if operator == "dense" else "right"


def penalty(term: str, q: np.ndarray, axis: int):
    """Regulariser and the same formula for complex values of layers, with weights q of the entries."""
    steps, axes = np.diff(KNOTS), lambda a: tuple(range(1, a.ndim))
    gaps = 0.5 * (steps[1:] + steps[:-1])
    labels = np.linspace(0, 2, N) ** 2

    def squares(a):
        return (q * a**2).sum(axis=axes(a))

    def smoothness(a):
        slopes = np.diff(np.moveaxis(a, axis, -1), axis=-1) ** 2 / np.diff(labels)
        return steps @ slopes.sum(axis=axes(slopes))

    made = {
        "l2": (DepthL2(0.3, q), lambda a: 0.3 * (steps @ squares(a))),
        "h1": (
            DepthH1(0.2, 0.7, q),
            lambda a: 0.2 * ((squares(np.diff(a, axis=0)) / gaps).sum() + 0.7 * squares(a[:1])[0]),
        ),
        "variation": (
            DepthVariation(0.4, 0.3, q),
            lambda a: 0.4 * (np.sqrt(squares(np.diff(a, axis=0)) + (0.3 * gaps) ** 2) - 0.3 * gaps).sum(),
        ),
        "labels": (LabelSmoothness(0.2, labels, axis=axis - 1), lambda a: 0.2 * smoothness(a)),
    }
    if term != "all":
        return made[term]
    parts = list(made.values())
    total = parts[0][0] + parts[1][0] + parts[2][0] + parts[3][0]
    return total, lambda a: sum(formula(a) for _, formula in parts)


def problem(kind: str, scheme: str, term: str):
    """Training problem, and its penalty as a formula."""
    model, name = network(kind)
    q = RNG.uniform(0.2, 2.0, model.parameters[name].shape)
    axis = 1 if model.parameters[name].shape[0] == N else 2
    regularizer, formula = penalty(term, q, axis)
    d = N if isinstance(model, SpaceTimeNetwork) else model.shape[0]
    readout = Readout(RNG.standard_normal((2, d)), 0.1)
    made = Training(model, RNG.standard_normal(model.shape), Squared(RNG.standard_normal((2, SAMPLES))), (0.0, 1.0), 20,
                    scheme, readout, {name: regularizer}, tracking=TRACKING)  # fmt: skip
    return made, name, formula


def complex_objective(made, name, formula, direction):
    """J along theta + i e direction, every sum written out."""
    model, p, c = made.model, made.readout.p, made.readout.c[:, None]
    spacetime = isinstance(model, SpaceTimeNetwork)

    def loss(z):
        f = p @ ((z * model.grid.weights).T if spacetime else z) + c
        return np.sum((f - made.loss.y) ** 2) / (2 * SAMPLES)

    rate = spacetime_rate(model, direction) if spacetime else residual_rate(model.velocity, direction)
    grid = step_grid(model, (0.0, 1.0), n_steps=20)
    along = formula(model.parameters[name].values + 1j * STEP * direction[name])
    cost = complex_cost(rate, grid, made.scheme.name, made.x.astype(complex), lambda _t, z: TRACKING * loss(z), loss)
    return cost + along


@pytest.mark.parametrize("scheme", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("kind", MODELS)
def test_gradient_is_the_complex_step_derivative_and_leaves_remainders_of_second_order(kind, term, scheme):
    made, name, formula = problem(kind, scheme, term)
    at = made.start()
    value, gradient = made.objective(at)
    way = RNG.standard_normal(at.shape)
    way /= np.linalg.norm(way)
    moved, here = values(made.unpack(at + way)[0]), values(made.unpack(at)[0])
    expected = complex_objective(made, name, formula, {key: moved[key] - here[key] for key in here})
    assert value == pytest.approx(expected.real, rel=1e-12)
    # The direction is a difference of coordinates, known to the rounding of the coordinates.
    assert abs(gradient @ way - expected.imag / STEP) < 1e-12 * np.linalg.norm(gradient)
    steps = 0.05 * 2.0 ** -np.arange(11)
    rest = [abs(made.objective(at + e * way)[0] - value - e * (gradient @ way)) for e in steps]
    assert abs(fit_rate(steps, rest).slope - 2.0) < 0.05
