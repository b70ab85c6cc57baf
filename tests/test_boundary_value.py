"""Limits as boundary value problems against closed forms, and against layers extrapolated in 1/n."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from meanfield.controls import Controls
from meanfield.errors import ConfigError, NumericalError
from meanfield.exact_control import TerminalAdditive, TerminalMultiplicative, Turnpike
from meanfield.exact_learning import DeepBias, DeepWeight
from meanfield.learning.boundary_value import extremal
from meanfield.learning.multilevel import multilevel
from meanfield.learning.training import Training
from meanfield.losses import Logistic, Readout, Squared
from meanfield.models.residual import ResidualNetwork
from meanfield.regularizers import DepthH1, DepthL2, DepthVariation
from meanfield.velocities import Velocity

DEPTHS = np.linspace(0.0, 1.0, 41)


def line(trained, penalty, x, y, *, start=0.0, length=1.0, form="outside", **options):
    """Scalar linear problem of weights or biases with few layers, which the limit does not look at."""
    n = 16
    knots = np.linspace(0.0, length, n + 1)
    values = np.broadcast_to(start, n)
    w = Controls(knots, values.reshape(n, 1, 1)) if trained == "w" else 0.0
    b = Controls(knots, values.reshape(n, 1)) if trained == "b" else 0.0
    network = ResidualNetwork(getattr(Velocity, form)("identity", w, b), 1)
    return Training(network, [[x]], Squared([y]), (0.0, length), n, regularizers={trained: penalty},
                    trained=(trained,), **options)  # fmt: skip


def network(n, d=1, form="outside", sigma="tanh"):
    """Layers with small weights and biases that vary over depth."""
    rng = np.random.default_rng(5)
    knots = np.linspace(0.0, 1.0, n + 1)
    waves = np.cos(np.pi * 0.5 * (knots[1:] + knots[:-1]))
    w, b = (np.tensordot(waves, 0.3 * rng.standard_normal(s), axes=0) for s in ((d, d), (d,)))
    return getattr(Velocity, form)(sigma, Controls(knots, w), Controls(knots, b))


def test_biases_are_those_of_the_closed_form():
    exact = DeepBias(1.3, -0.4, 0.2, 0.7)
    found = extremal(line("b", DepthH1(0.1, 0.7), 1.3, -0.4)).raise_for_status()
    assert 2 * found.energy == pytest.approx(exact.energy(), rel=1e-12)
    np.testing.assert_allclose(found.parameters["b"](DEPTHS)[:, 0], exact.limit(DEPTHS), rtol=1e-12)
    assert found.costate(0.3) == pytest.approx(exact.residual(), rel=1e-12)
    assert found.parameters["b"](0.5).shape == (1,)


def test_all_stationary_weights_of_the_closed_form_are_found_from_starts_near_them():
    target = DeepWeight.bistable_targets(0.05, 3.0, 1.0).equal
    exact = DeepWeight(0.05, target, 3.0, 1.0)
    assert len(exact.points()) == 3
    for point in exact.points():
        start = exact.weights((np.arange(16) + 0.5) / 16, point)
        found = extremal(line("w", DepthH1(1.5, 1.0), 0.05, target, start=start)).raise_for_status()
        assert 2 * found.energy == pytest.approx(point.energy, rel=1e-10)
        np.testing.assert_allclose(found.parameters["w"](DEPTHS)[:, 0, 0], exact.weights(DEPTHS, point), rtol=1e-9)


def test_residuals_below_the_tolerance_mean_errors_below_it():
    exact = DeepWeight(0.8, 2.0, 0.3, 0.9)
    start = exact.weights((np.arange(16) + 0.5) / 16) * 1.2
    errors = []
    for tolerance in (1e-4, 1e-7, 1e-10):
        found = extremal(line("w", DepthH1(0.15, 0.9), 0.8, 2.0, start=start), tolerance=tolerance).raise_for_status()
        assert found.residual <= tolerance
        errors.append(np.abs(found.parameters["w"](DEPTHS)[:, 0, 0] - exact.weights(DEPTHS)).max())
        assert errors[-1] <= tolerance
    assert errors[0] > errors[1] > errors[2]


def extrapolated(problem_of_depth):
    """Limits of the energy and of P, from minima over layers and their expansions in 1/n; and one of the minima."""
    found = multilevel(problem_of_depth, (8, 16, 32, 64, 128), tolerance=1e-10)
    limits = []
    for table in (found.energies, [optimum.readout.p for optimum in found.optima]):
        values = list(table)
        for power in range(1, 5):
            values = [(2**power * fine - coarse) / (2**power - 1) for coarse, fine in itertools.pairwise(values)]
        limits.append(values[0])
    return *limits, found.optima[2]


@pytest.mark.parametrize(("d", "form"), [(1, "outside"), (2, "outside"), (2, "inside")])
def test_minima_over_layers_of_tanh_tend_to_the_solution(d, form):
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((2, d, 5))

    def problem(n):
        penalties = {"w": DepthH1(0.02, 0.8), "b": DepthH1(0.05, 1.3) + DepthL2(0.01)}
        return Training(ResidualNetwork(network(n, d, form), 5), x, Squared(y), (0.0, 1.0), n, regularizers=penalties)

    energy, _, near = extrapolated(problem)
    found = extremal(problem(32), near).raise_for_status()
    assert found.energy == pytest.approx(energy, rel=1e-8)
    # x' = v and the ends, of the solution itself.
    h, at = 1e-5, np.array([0.2, 0.7])
    slope = (found.state(at + h) - found.state(at - h)) / (2 * h)
    w, b = found.parameters["w"](at), found.parameters["b"](at)[..., None]
    state = found.state(at)
    expected = np.tanh(w @ state + b) if form == "outside" else w @ np.tanh(state) + b
    np.testing.assert_allclose(slope, expected, atol=1e-8)
    np.testing.assert_allclose(found.costate(1.0), (found.state(1.0) - y) / 5, atol=1e-10)


def test_a_trained_output_map_and_a_loss_of_classes_are_part_of_the_solution():
    rng = np.random.default_rng(9)
    x, labels = rng.standard_normal((2, 8)), np.array([1, -1, 1, 1, -1, -1, 1, -1])

    def problem(n):
        readout = Readout([[0.6, -0.3]], 0.1, trained=True)
        return Training(
            ResidualNetwork(network(n, 2), 8), x, Logistic(labels), (0.0, 1.0), n, readout=readout,
            readout_penalty=0.1, regularizers={"w": DepthH1(0.05, 1.0), "b": DepthH1(0.05, 1.0)},
        )  # fmt: skip

    energy, p, near = extrapolated(problem)
    found = extremal(problem(32), near).raise_for_status()
    assert found.energy == pytest.approx(energy, rel=1e-8)
    np.testing.assert_allclose(found.readout.p, p, atol=5e-6)


def test_controls_under_the_l2_penalty_are_eliminated():
    additive = TerminalAdditive(0.4, 1.5, 0.3, 2.0)
    found = extremal(line("b", DepthL2(0.15), 0.4, 1.5, length=2.0)).raise_for_status()
    assert 2 * found.energy == pytest.approx(additive.cost, rel=1e-12)
    np.testing.assert_allclose(found.parameters["b"](2 * DEPTHS), additive.control, rtol=1e-12)
    multiplicative = TerminalMultiplicative(0.7, 1.6, 0.4, 2.0)
    point = multiplicative.optimum()
    for form in ("outside", "inside"):
        problem = line("w", DepthL2(0.2), 0.7, 1.6, start=point.integral / 2, length=2.0, form=form)
        found = extremal(problem).raise_for_status()
        assert 2 * found.energy == pytest.approx(point.energy, rel=1e-10)
        np.testing.assert_allclose(found.parameters["w"](2 * DEPTHS), point.integral / 2, rtol=1e-8)


def test_tracking_turns_into_the_turnpike():
    exact = Turnpike(2.0, 0.5, 0.3, 4.0, 0.8)
    problem = line("b", DepthL2(0.5 * 0.3 / 0.8), 2.0, 0.5, length=4.0, tracking=1.0 / 0.8)
    found = extremal(problem).raise_for_status()
    t = 4.0 * DEPTHS
    np.testing.assert_allclose(found.state(t)[:, 0, 0] - 0.5, exact.error(t), atol=1e-9)
    np.testing.assert_allclose(found.parameters["b"](t)[:, 0], exact.control(t), atol=1e-9)
    assert 2 * 0.8 * found.energy == pytest.approx(exact.cost, rel=1e-9)


def test_a_mesh_that_is_too_small_is_reported():
    exact = DeepWeight(0.8, 2.0, 0.3, 0.9)
    start = exact.weights((np.arange(16) + 0.5) / 16)
    found = extremal(line("w", DepthH1(0.15, 0.9), 0.8, 2.0, start=start), max_nodes=40)
    assert found.status == "max_steps"
    with pytest.raises(NumericalError, match="nodes"):
        found.raise_for_status()


def test_problems_without_such_equations_are_refused():
    bad = {
        "needs DepthH1 .or DepthL2 where": ("outside", DepthL2(0.1)),
        "without weights": ("outside", DepthH1(0.1, 1.0, weights=2.0)),
        "must be DepthH1 and DepthL2": ("outside", DepthVariation(0.1)),
    }
    for words, (form, penalty) in bad.items():
        problem = Training(ResidualNetwork(network(4, 1, form), 1), [[1.0]], Squared([0.0]), (0.0, 1.0), 4,
                           regularizers={"w": penalty, "b": DepthH1(0.1)})  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            extremal(problem)
    two = Velocity.two_layer("tanh", 1.0, 1.0)
    with pytest.raises(ConfigError, match=r"needs a velocity sigma\(W x \+ b\)"):
        extremal(Training(ResidualNetwork(two, 1), [[1.0]], Squared([0.0]), (0.0, 1.0), 4))
    problem = Training(ResidualNetwork(network(4), 1), [[1.0]], Squared([0.0]), (0.0, 1.0), 4,
                       regularizers={"w": DepthH1(0.1)}, trained=("w",))  # fmt: skip
    with pytest.raises(ConfigError, match="'b' must be trained, or constant"):
        extremal(problem)
    with pytest.raises(ConfigError, match="'w' is trained and must be Controls"):
        extremal(Training(ResidualNetwork(Velocity.outside("tanh", 1.0), 1), [[1.0]], Squared([0.0]), (0.0, 1.0), 4))
