"""Training: spans on knots, noise, names given twice, what is not finite, labels and knots of parameters over depth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from meanfield.controls import Controls
from meanfield.errors import ConfigError, NumericalError
from meanfield.grids import Grid
from meanfield.integration import integrate
from meanfield.learning.adjoint import adjoint
from meanfield.learning.gradient_flow import GradientFlow
from meanfield.learning.multilevel import carried, multilevel
from meanfield.learning.quasi_newton import minimise
from meanfield.learning.training import Training
from meanfield.losses import Readout, Squared
from meanfield.models.residual import ResidualNetwork
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.dense import Dense
from meanfield.operators.path import OperatorPath
from meanfield.regularizers import DepthH1, DepthL2
from meanfield.velocities import Velocity


def network(knots: np.ndarray, nu: float = 0.0) -> ResidualNetwork:
    """x' = b with b = k on layer k."""
    b = Controls(knots, np.arange(len(knots) - 1.0)[:, None])
    return ResidualNetwork(Velocity.outside("identity", 0.0, b), 1, nu)


def total(y):
    return float(y.sum()), np.ones_like(y)


@pytest.mark.parametrize("first", [0.3, 0.6, 0.7])
def test_a_span_that_starts_within_rounding_of_a_knot_starts_with_its_layer(first):
    knots, n = np.linspace(0.0, 1.0, 11), round(10 * (1 - first))
    model, expected = network(knots), sum(range(10 - n, 10)) / 10
    found = adjoint(model, [[0.0]], (first, 1.0), terminal=total, scheme="euler", n_steps=n)
    assert found.value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(found.parameters["b"][:, 0], [0.0] * (10 - n) + [0.1] * n, atol=1e-15)
    end = integrate(model, [[0.0]], (first, 1.0), scheme="euler", n_steps=n, save_at=()).final
    assert end[0, 0] == pytest.approx(expected, rel=1e-14)


def test_a_span_that_ends_within_rounding_of_a_knot_ends_with_the_layer_before():
    end = integrate(network(np.arange(11) / 10), [[0.0]], (0.0, 3 * 0.1), scheme="rk4", n_steps=3, save_at=())
    assert end.final[0, 0] == pytest.approx(0.3, rel=1e-14)


def test_knots_that_differ_by_rounding_are_refused():
    w = Controls(np.linspace(0, 1, 11), np.ones((10, 1, 1)))
    model = ResidualNetwork(Velocity.outside("tanh", w, Controls(np.arange(11) / 10, np.ones((10, 1)))), 1)
    with pytest.raises(ConfigError, match="differ by rounding only"):
        integrate(model, [[1.0]], (0.0, 1.0), scheme="euler", n_steps=10)


def scalar(n: int = 4, **changed) -> Training:
    knots = np.linspace(0.0, 1.0, n + 1)
    velocity = Velocity.outside("identity", Controls(knots, np.full((n, 1, 1), 0.3)), Controls(knots, np.zeros((n, 1))))
    made = Training(ResidualNetwork(velocity, 1), [[0.5]], Squared([1.2]), (0.0, 1.0), n,
                    regularizers={"w": DepthL2(0.1)})  # fmt: skip
    return replace(made, **changed)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"trained": ("b", "b")}, "names a parameter twice"),
        ({"trained": "wb"}, "trained must be names"),
        ({"trained": 3}, "trained must be names"),
        ({"regularizers": [DepthL2(1.0)]}, "regularizers must map"),
        ({"readout": "identity"}, "readout must be a Readout"),
        ({"inlet": np.eye(1)}, "inlet must be a Readout"),
        ({"model": "net"}, "model must be a ResidualNetwork"),
        ({"t_span": (1.0, 0.0)}, "must not run backwards"),
        ({"t_span": (0.0, np.nan)}, "T must be finite"),
        ({"model": network(np.linspace(0, 1, 5), nu=1.0), "regularizers": {}}, "nu must be 0"),
    ],
)
def test_problems_that_cannot_be_are_refused(changed, words):
    with pytest.raises(ConfigError, match=words):
        scalar(**changed)


def test_penalties_of_what_is_not_trained_count():
    made = scalar(trained=("b",))
    plain = scalar(trained=("b",), regularizers={})
    assert made.objective(made.start())[0] == pytest.approx(plain.objective(plain.start())[0] + 0.1 * 0.09, rel=1e-14)


def test_networks_with_noise_have_no_adjoint():
    with pytest.raises(ConfigError, match="nu must be 0"):
        adjoint(network(np.linspace(0, 1, 5), nu=1.0), [[0.0]], (0, 1), terminal=total, n_steps=4)


def test_flat_vectors_of_another_length_are_refused():
    for method in (scalar().objective, scalar().unpack):
        with pytest.raises(ConfigError, match=r"flat has shape \(3,\), expected \(8,\)"):
            method(np.zeros(3))
    with pytest.raises(ConfigError, match="nothing is trained"):
        minimise(scalar(trained=(), regularizers={}))


def test_what_is_not_finite_is_an_error():
    def running(_t, y):
        return 0.0, np.full_like(y, 1e308)

    model = network(np.linspace(0, 1, 5))
    with pytest.raises(NumericalError, match="gradient in the state is not finite"):
        adjoint(model, [[0.0]], (0, 1), n_steps=4, terminal=lambda y: (1.0, np.full_like(y, 1e308)), running=running)
    with np.errstate(over="ignore"), pytest.raises(NumericalError, match="objective is inf"):
        scalar(regularizers={"w": DepthL2(1e300)}).objective(np.full(8, 1e10))


def test_line_searches_come_back_from_where_nothing_is_finite():
    made = scalar(loss=Squared([1e6]), regularizers={"w": DepthL2(1e-3)})
    start = np.concatenate([np.full(4, 200.0), np.zeros(4)])
    found = minimise(made, start, max_iterations=50)
    assert np.isfinite(found.value)
    assert found.value < made.objective(start)[0]


def test_multilevel_takes_inlets_along_and_any_number_of_steps():
    def deeper(n: int) -> Training:
        inlet = Readout([[0.7]], 0.1, trained=True)
        return scalar(n, inlet=inlet, regularizers={"w": DepthH1(0.1)}, n_steps=16, scheme="rk4")

    found = multilevel(deeper, (4, 8, 16)).raise_for_status()
    first = found.optima[0]
    np.testing.assert_array_equal(deeper(8).inlet_of(carried(deeper(8), first)).p, first.inlet.p)
    assert found.evaluations[-1] < minimise(deeper(16)).evaluations


def test_clipped_flows_need_the_same_layers():
    w = Controls([0.0, 0.25, 1.0], np.ones((2, 1, 1)))
    model = ResidualNetwork(Velocity.outside("tanh", w, Controls([0.0, 0.75, 1.0], np.ones((2, 1)))), 1)
    made = Training(model, [[0.5]], Squared([1.2]), (0.0, 1.0), 4)
    with pytest.raises(ConfigError, match="must share"):
        GradientFlow(made, clip=1.0)


def test_kernels_of_a_path_take_the_knots_they_are_given():
    grid = Grid.interval(3)
    path = OperatorPath([0.0, 0.5, 1.0], [Dense(grid, np.eye(3)), Dense(grid, np.ones((3, 3)))])
    model = SpaceTimeNetwork(path, "tanh", np.zeros(3))
    moved = Controls([0.0, 0.9, 1.0], model.parameters["weight"].values)
    assert model.with_parameters(weight=moved).breakpoints.tolist() == [0.9]
    with pytest.raises(ValueError, match="read-only"):
        model.parameters["weight"].values[0] = 0.0


def test_layers_are_means_of_limits_that_end_inside():
    limit = Controls([0.0, 0.5], np.array([[0.0], [1.0]]), "linear")
    assert Controls.layers(limit, [0.0, 1.0], "mean").values[0, 0] == pytest.approx(0.75, rel=1e-14)
