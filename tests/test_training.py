"""Training by L-BFGS on the discrete adjoint: closed forms of deep limits, gradients, digits of a small problem."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.controls import Controls
from meanfield.data import moons
from meanfield.diagnostics.rates import fit_rate
from meanfield.errors import ConfigError, NumericalError
from meanfield.exact_learning import DeepBias, DeepWeight
from meanfield.integration import integrate
from meanfield.learning.gradient_flow import GradientFlow
from meanfield.learning.quasi_newton import minimise
from meanfield.learning.training import Training
from meanfield.losses import Logistic, Readout, Squared
from meanfield.models.residual import ResidualNetwork
from meanfield.planning import step_grid
from meanfield.regularizers import DepthH1, DepthL2
from meanfield.schemes import EULER
from meanfield.velocities import Velocity

RNG = np.random.default_rng(21)


def scalar(n: int, x: float, y: float, alpha: float, tau: float, trained: str) -> Training:
    """E_n/2 of the deep-limit problem in one dimension, with n layers: weights or biases."""
    knots, zero = np.linspace(0.0, 1.0, n + 1), np.zeros(n)
    w = Controls(knots, zero.reshape(n, 1, 1)) if trained == "w" else 0.0
    b = Controls(knots, zero.reshape(n, 1)) if trained == "b" else 0.0
    network = ResidualNetwork(Velocity.outside("identity", w, b), 1)
    return Training(network, [[x]], Squared([y]), (0.0, 1.0), n, regularizers={trained: DepthH1(0.5 * alpha, tau)},
                    trained=(trained,))  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 8, 33, 100])
def test_biases_reach_the_exact_minimum_at_every_depth(n):
    exact = DeepBias(1.3, -0.4, 0.2, 0.7)
    found = minimise(scalar(n, 1.3, -0.4, 0.2, 0.7, "b"), tolerance=1e-11).raise_for_status()
    assert 2 * found.value == pytest.approx(exact.energy(n), rel=1e-13)
    np.testing.assert_allclose(found.model.parameters["b"].values[:, 0], exact.biases(n), rtol=1e-11)


def test_weights_approach_their_limit_with_the_predicted_constant():
    exact = DeepWeight(0.8, 2.0, 0.3, 0.9)
    limit = exact.optimum()
    scaled = {}
    for n in (64, 128):
        found = minimise(scalar(n, 0.8, 2.0, 0.3, 0.9, "w"), tolerance=1e-10).raise_for_status()
        scaled[n] = n * (2 * found.value - limit.energy)
    extrapolated = 2 * scaled[128] - scaled[64]
    assert abs(extrapolated / exact.depth_constant() - 1) < 0.01


@pytest.mark.parametrize("readout", [False, True])
def test_gradient_of_the_whole_objective_has_taylor_slope_two(readout):
    knots = np.array([0.0, 0.2, 0.5, 1.0])
    velocity = Velocity.two_layer(
        "tanh",
        Controls(knots, RNG.standard_normal((4, 2, 6)), "linear"),
        Controls(knots, RNG.standard_normal((3, 6, 2))),
        RNG.standard_normal(6),
        0.1,
    )
    output = Readout(RNG.standard_normal((1, 2)), 0.3, trained=readout)
    problem = Training(
        ResidualNetwork(velocity, 30), RNG.standard_normal((2, 30)), Logistic(RNG.choice([-1, 1], 30)), (0.0, 1.0), 20,
        "heun", output, {"v": DepthH1(0.1, 0.5), "w": DepthL2(0.2) + DepthH1(0.05, 1.0)},
        tracking=0.0 if readout else 0.7, readout_penalty=0.1,
    )  # fmt: skip
    at = problem.start()
    value, gradient = problem.objective(at)
    direction = RNG.standard_normal(at.shape)
    steps = 0.02 * 2.0 ** -np.arange(11)
    rest = [abs(problem.objective(at + e * direction)[0] - value - e * (gradient @ direction)) for e in steps]
    assert abs(fit_rate(steps, rest).slope - 2.0) < 0.05


def test_steps_do_not_depend_on_the_number_of_layers():
    counts = []
    for n in (20, 160):
        found = minimise(scalar(n, 0.8, 2.0, 0.3, 0.9, "w"), tolerance=1e-8).raise_for_status()
        counts.append(len(found.values) - 1)
        assert (np.diff(found.values) <= 1e-14).all()
    assert counts[1] <= 2 * counts[0] + 10


def test_moons_are_told_apart():
    data = moons(200, noise=0.1, seed=1)
    x, labels = np.ascontiguousarray(data.x.T), 2 * data.labels - 1
    knots = np.linspace(0.0, 1.0, 9)
    start = [0.5 * RNG.standard_normal((8, *s)) for s in ((2, 8), (8, 2), (8,))]
    velocity = Velocity.two_layer("tanh", *(Controls(knots, p) for p in start))
    readout = Readout(RNG.standard_normal((1, 2)), 0.0, trained=True)
    problem = Training(ResidualNetwork(velocity, 200), x, Logistic(labels), (0.0, 1.0), 8, readout=readout,
                       regularizers={name: DepthL2(1e-5) for name in ("v", "w", "b")})  # fmt: skip
    found = minimise(problem, max_iterations=150, tolerance=1e-6)
    model, output = found.model, found.readout
    end = np.empty(x.shape)
    model.advance(EULER, step_grid(model, (0.0, 1.0), n_steps=8), 0, 8, x, end)
    assert np.mean(problem.loss.predict(output.forward(end)) == labels) > 0.98


def test_maps_of_inputs_are_trained_too():
    knots = np.linspace(0.0, 1.0, 6)
    velocity = Velocity.two_layer("tanh", *(Controls(knots, RNG.standard_normal((5, *s))) for s in ((3, 4), (4, 3))))
    inlet = Readout(RNG.standard_normal((3, 2)), RNG.standard_normal(3), trained=True)
    outlet = Readout(RNG.standard_normal((1, 3)), 0.2, trained=True)
    x = RNG.standard_normal((2, 20))
    problem = Training(ResidualNetwork(velocity, 20), x, Squared(RNG.standard_normal((1, 20))), (0.0, 1.0), 5,
                       readout=outlet, inlet=inlet)  # fmt: skip
    np.testing.assert_allclose(problem.initial(), inlet.p @ x + inlet.c[:, None], rtol=1e-15)
    at = problem.start()
    assert [name for name, _ in problem.pieces()][-4:] == ["readout p", "readout c", "inlet p", "inlet c"]
    value, gradient = problem.objective(at)
    direction = RNG.standard_normal(at.shape)
    steps = 0.02 * 2.0 ** -np.arange(11)
    rest = [abs(problem.objective(at + e * direction)[0] - value - e * (gradient @ direction)) for e in steps]
    assert abs(fit_rate(steps, rest).slope - 2.0) < 0.05
    np.testing.assert_array_equal(problem.inlet_of(at).p, inlet.p)
    with pytest.raises(ConfigError, match="does not fit"):
        Training(
            ResidualNetwork(velocity, 20), x, problem.loss, (0, 1), 5, readout=outlet, inlet=Readout(np.ones((2, 2)))
        )
    with pytest.raises(ConfigError, match="x has shape"):
        Training(ResidualNetwork(velocity, 20), x[:1], problem.loss, (0, 1), 5, readout=outlet, inlet=inlet)


def test_bad_problems_are_refused():
    network = ResidualNetwork(Velocity.outside("tanh", 1.0), 3)
    with pytest.raises(ConfigError, match="do not go together"):
        Training(network, np.zeros((1, 3)), Squared(np.zeros(4)), (0, 1), 5)
    with pytest.raises(ConfigError, match="does not depend on depth"):
        Training(network, np.zeros((1, 3)), Squared(np.zeros(3)), (0, 1), 5, regularizers={"w": DepthL2(1.0)})
    with pytest.raises(ConfigError, match="unknown parameter 'q'"):
        Training(network, np.zeros((1, 3)), Squared(np.zeros(3)), (0, 1), 5, trained=("q",))
    problem = Training(network, np.ones((1, 3)), Squared(np.zeros(3)), (0, 1), 5)
    with pytest.raises(NumericalError, match="grad J"):
        minimise(problem, max_iterations=1, tolerance=1e-14).raise_for_status()


def test_gradient_flow_of_the_exact_case_decays_to_its_minimum():
    exact, problem = DeepBias(1.3, -0.4, 0.2, 0.7), scalar(6, 1.3, -0.4, 0.2, 0.7, "b")
    flow = GradientFlow(problem)
    probes = {"loss": lambda _s, y, m: m.loss(y)}
    solution = integrate(flow, flow.initial(), (0.0, 60.0), rtol=1e-8, save_at=30, probes=probes)
    losses = solution.probes["loss"][1]
    np.testing.assert_array_equal(solution.y[-1], solution.final)
    np.testing.assert_allclose(solution.fields["b"][-1], solution.final * np.sqrt(6), rtol=1e-14)
    assert (np.diff(losses) <= 1e-12).all()
    assert 2 * losses[-1] == pytest.approx(exact.energy(6), rel=1e-5)


def test_speeds_and_clipping_are_those_of_the_layers():
    rng, knots = np.random.default_rng(3), np.array([0.0, 0.2, 0.5, 1.0])
    velocity = Velocity.two_layer("tanh", *(Controls(knots, rng.standard_normal((3, *s))) for s in ((2, 4), (4, 2))))
    outlet = Readout(rng.standard_normal((1, 2)), 0.2, trained=True)
    problem = Training(ResidualNetwork(velocity, 9), rng.standard_normal((2, 9)), Squared(rng.standard_normal(9)),
                       (0.0, 1.0), 10, readout=outlet, trained=("v", "w"))  # fmt: skip
    plain = GradientFlow(problem)
    y = plain.initial()
    rates = {}
    for name, flow in (("plain", plain), ("fast", GradientFlow(problem, {"w": 3.0, "readout": 0.5})),
                       ("clipped", GradientFlow(problem, clip=0.01))):  # fmt: skip
        rate = np.empty(flow.shape)
        flow.rate(0.0, y, rate)
        rates[name] = rate
    np.testing.assert_array_equal(rates["fast"][24:48], 3.0 * rates["plain"][24:48])
    np.testing.assert_array_equal(rates["fast"][:24], rates["plain"][:24])
    np.testing.assert_array_equal(rates["fast"][48:], 0.5 * rates["plain"][48:])
    # theta' of a layer: coordinates are theta sqrt(h).
    layers = rates["clipped"][:48].reshape(2, 3, -1) / np.sqrt(np.diff(knots))[:, None]
    before = rates["plain"][:48].reshape(2, 3, -1) / np.sqrt(np.diff(knots))[:, None]
    norms = [np.sqrt((part**2).sum(axis=(0, 2))) for part in (before, layers)]
    np.testing.assert_allclose(norms[1], np.minimum(norms[0], 0.01), rtol=1e-12)
    assert norms[0].max() > 0.01
    np.testing.assert_array_equal(rates["clipped"][48:], rates["plain"][48:])
    value, fall = GradientFlow(problem, {"w": 3.0}).dissipation(y)
    squares = [float(np.sum(part**2)) for part in np.split(rates["plain"], [24, 48])]
    assert fall == pytest.approx(squares[0] + 3.0 * squares[1] + squares[2], rel=1e-12)
    assert value == plain.loss(y)
    with pytest.raises(ConfigError, match="speed of w"):
        GradientFlow(problem, {"w": 0.0})
    with pytest.raises(ConfigError, match="unknown trained parameter 'b'"):
        GradientFlow(problem, {"b": 1.0})


def test_gradient_flow_does_not_depend_on_the_depth_of_the_network():
    # Linear weights, K = 0 at the start: J along the flow of L layers tends to that of the limit at rate 1/L.
    losses = []
    for n in (8, 16, 32):
        flow = GradientFlow(scalar(n, 0.8, 2.0, 0.3, 0.9, "w"))
        end = integrate(flow, flow.initial(), (0.0, 1.0), rtol=1e-9, atol=1e-12).final
        losses.append(flow.loss(end))
    assert abs((losses[0] - losses[1]) / (losses[1] - losses[2]) - 2.0) < 0.3
