"""Training over depths: the same optima as from cold starts, with less work; what starts lose."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.controls import Controls
from meanfield.data import moons
from meanfield.errors import ConfigError, NumericalError
from meanfield.grids import Grid
from meanfield.learning.multilevel import carried, multilevel
from meanfield.learning.quasi_newton import minimise
from meanfield.learning.training import Training
from meanfield.losses import Logistic, Readout, Squared
from meanfield.models.residual import ResidualNetwork
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.dense import Dense
from meanfield.operators.path import OperatorPath
from meanfield.regularizers import DepthH1
from meanfield.velocities import Velocity


def curve(n: int, kind: str = "constant", layers: int | None = None) -> Training:
    """Five data of a curve, tanh(w x + b) with n layers (or controls of another number of layers)."""
    knots = np.linspace(0.0, 1.0, (layers or n) + 1)
    at = np.zeros(len(knots) - (kind == "constant"))
    velocity = Velocity.outside("tanh", Controls(knots, at[:, None, None], kind), Controls(knots, at[:, None], kind))
    x, y = np.array([[-1.0, -0.4, 0.1, 0.6, 1.2]]), [-0.2, 0.1, 0.5, 1.1, 1.2]
    penalty = DepthH1(1e-2, 1.0)
    return Training(
        ResidualNetwork(velocity, 5), x, Squared(y), (0.0, 1.0), n, regularizers=dict.fromkeys("wb", penalty)
    )


def two_moons(n: int) -> Training:
    """Logistic regression on the output of a network of two-layer blocks, trained with the output map."""
    data, rng = moons(60, noise=0.1, seed=1), np.random.default_rng(3)
    knots = np.linspace(0.0, 1.0, n + 1)
    parts = (Controls(knots, np.repeat(rng.standard_normal((1, *s)) / 2, n, axis=0)) for s in ((2, 4), (4, 2), (4,)))
    readout = Readout(rng.standard_normal((1, 2)), 0.0, trained=True)
    return Training(
        ResidualNetwork(Velocity.two_layer("tanh", *parts), 60), np.ascontiguousarray(data.x.T),
        Logistic(2 * data.labels - 1), (0.0, 1.0), n, readout=readout, readout_penalty=1e-3,
        regularizers=dict.fromkeys("vwb", DepthH1(1e-4, 1.0)),
    )  # fmt: skip


@pytest.mark.parametrize("carry", ["extrapolated", "interpolated", "repeated"])
def test_optima_are_those_of_cold_starts_at_every_depth(carry):
    found = multilevel(curve, (6, 11, 24), tolerance=1e-9, carry=carry).raise_for_status()
    assert found.values.tolist() == [6, 11, 24]
    for n, optimum in zip((6, 11, 24), found.optima, strict=True):
        cold = minimise(curve(n), tolerance=1e-9).raise_for_status()
        assert optimum.value == pytest.approx(cold.value, rel=1e-12)
        np.testing.assert_allclose(
            optimum.model.parameters["w"].values, cold.model.parameters["w"].values, rtol=1e-5, atol=1e-7
        )
    assert found.work == int(sum(found.evaluations * found.values))


def test_what_starts_lose_falls_as_theory_says():
    # Minimisers are O(1/n) apart, so that J is O(n^-2) above its minimum; extrapolated, O(n^-2) and O(n^-4).
    # Repeated layers have jumps of twice the size at half of the places: the penalty loses as much as int |K'|^2.
    depths = (4, 8, 16, 32, 64)
    lost = {}
    for carry in ("extrapolated", "interpolated", "repeated"):
        found = multilevel(curve, depths, tolerance=1e-9, carry=carry)
        lost[carry] = np.array([o.values[0] - o.value for o in found.optima])[2:]
    orders = {carry: np.log2(values[:-1] / values[1:]) for carry, values in lost.items()}
    assert abs(orders["interpolated"][-1] - 2.0) < 0.1
    assert (orders["extrapolated"] > 3.5).all()
    assert abs(orders["repeated"][-1]) < 0.1


def test_many_iterations_happen_where_layers_are_few():
    depths = (8, 16, 32, 64)
    found = multilevel(two_moons, depths, tolerance=1e-5, max_iterations=3000).raise_for_status()
    cold = minimise(two_moons(64), tolerance=1e-5, max_iterations=3000).raise_for_status()
    assert found.work < 0.5 * 64 * cold.evaluations
    assert found.energies[-1] <= cold.value * 1.01
    assert found.evaluations[-1] < 0.3 * found.evaluations[0]


def test_evaluations_are_those_of_the_objective():
    class Counted(Training):
        count = 0

        def objective(self, flat):
            Counted.count += 1
            return super().objective(flat)

    def counted(n):
        inner = curve(n)
        return Counted(inner.model, inner.x, inner.loss, inner.t_span, n, regularizers=inner.regularizers)

    # A tolerance below what L-BFGS reaches, so that the Newton steps at the end are counted too.
    found = multilevel(counted, (4, 8, 16), tolerance=1e-12)
    assert Counted.count == found.evaluations.sum()


def test_straight_lines_and_parabolas_over_depth_are_carried_exactly():
    def parabola(t: float) -> float:
        return 1.0 + 2.0 * t - 3.0 * t * t

    coarse, fine = curve(5), curve(12)
    knots = np.linspace(0.0, 1.0, 6)
    values = Controls.layers(parabola, knots, "middle").values
    model = coarse.model.with_parameters(w=Controls(knots, values[:, None, None]), b=Controls(knots, values[:, None]))
    optimum = minimise(Training(model, coarse.x, coarse.loss, (0.0, 1.0), 5), max_iterations=1)
    optimum = type(optimum)(model, optimum.readout, optimum.flat, 0, 0, optimum.values, optimum.values,
                            optimum.status, "")  # fmt: skip
    moved = fine.unpack(carried(fine, optimum))[0].parameters["w"]
    expected = Controls.layers(parabola, moved.knots, "middle").values
    np.testing.assert_allclose(moved.values[:, 0, 0], expected, rtol=1e-12, atol=1e-12)


def test_piecewise_linear_controls_are_carried_as_the_same_function():
    found = multilevel(lambda n: curve(4 * n, "linear", n), (3, 6), tolerance=1e-8, carry="interpolated")
    coarse, fine = (o.model.parameters["b"] for o in found.optima)
    problem = curve(24, "linear", 6)
    start = problem.unpack(carried(problem, found.optima[0]))[0].parameters["b"]
    np.testing.assert_allclose(start.values, coarse.table(fine.knots), atol=1e-14)


def space_time(n: int) -> Training:
    """Kernels and biases over depth on eight labels; the output is an integral."""
    grid = Grid.interval(8, rule="gauss")
    knots, q = np.linspace(0.0, 1.0, n + 1), grid.weights
    path = OperatorPath(knots, [Dense(grid, np.zeros((8, 8))) for _ in range(n)])
    model = SpaceTimeNetwork(path, "tanh", Controls(knots, np.zeros((n, 8))), n_samples=2)
    penalties = {"weight": DepthH1(0.02, 1.0, np.outer(q, q)), "bias": DepthH1(0.02, 1.0, q)}
    starts = np.array([np.cos(grid.nodes), np.sin(3 * grid.nodes)])
    return Training(model, starts, Squared([[0.5, -0.2]]), (0.0, 1.0), n, readout=Readout(np.ones((1, 8))),
                    regularizers=penalties)  # fmt: skip


def test_space_time_networks_are_trained_over_depths_too():
    found = multilevel(space_time, (4, 8, 16, 32), tolerance=1e-8).raise_for_status()
    cold = minimise(space_time(32), tolerance=1e-8).raise_for_status()
    assert found.energies[-1] == pytest.approx(cold.value, rel=1e-10)
    lost = [optimum.values[0] - optimum.value for optimum in found.optima]
    assert np.log2(lost[2] / lost[3]) > 3.5


def test_bad_depths_and_problems_are_refused():
    for depths in ((), (4, 4), (8, 4)):
        with pytest.raises(ConfigError, match="depths must increase"):
            multilevel(curve, depths)
    with pytest.raises(ConfigError, match="depth must be a positive integer"):
        multilevel(curve, (2.5, 4))
    with pytest.raises(ConfigError, match="carry must be one of"):
        multilevel(curve, (4, 8), carry="splines")
    with pytest.raises(ConfigError, match=r"parameter 'w' of shape \(4, 2\)"):
        multilevel(lambda n: curve(n) if n == 4 else two_moons(n), (4, 8), tolerance=1e-2)
    with pytest.raises(NumericalError, match="grad J"):
        multilevel(curve, (4, 8), tolerance=1e-14, max_iterations=1).raise_for_status()
