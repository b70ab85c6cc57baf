"""Bounds of the theory hold along computed trajectories, are sharp where they can be, and can be violated."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from meanfield.controls import Controls
from meanfield.diagnostics.bounds import ActivationBound, GrowthBound, Monotonicity, SigmoidBound, stability_ratio
from meanfield.errors import ConfigError
from meanfield.grids import Grid
from meanfield.integration import integrate
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.dense import Dense
from meanfield.operators.path import OperatorPath
from meanfield.operators.separable import Separable

GRID = Grid.interval(12, rule="gauss")
KERNEL = np.random.default_rng(21).normal(size=(12, 12))
ONE = np.ones((12, 12))


def run(model, y, times, probe=None, substeps=1):
    """RK4 on the given depths; a probe sees every depth. Returns states and values."""
    y = y.copy()
    states, values = [y.copy()], []
    if probe is not None:
        probe.init(times[0], y, model)
        values.append(probe.value())
    for t0, t1 in pairwise(times):
        h = (t1 - t0) / substeps
        for i in range(substeps):
            t, k = t0 + i * h, np.empty((4, *y.shape))
            model.rate(t, y, k[0])
            model.rate(t + h / 2, y + 0.5 * h * k[0], k[1])
            model.rate(t + h / 2, y + 0.5 * h * k[1], k[2])
            model.rate(np.nextafter(t + h, t), y + h * k[2], k[3])
            y += h / 6 * (k[0] + 2 * k[1] + 2 * k[2] + k[3])
        states.append(y.copy())
        if probe is not None:
            probe.update(t1, y, model)
            values.append(probe.value())
    return np.array(states), np.array(values)


KNOTS = [0.0, 0.33, 1.1, 2.0]


def models():
    rng = np.random.default_rng(5)
    fields = Controls(KNOTS, rng.normal(size=(4, 12)), "linear")
    jumps = Controls(KNOTS, rng.normal(size=(3, 12)))
    waves = Controls(KNOTS, [1.0, -0.5, 2.0, 0.1], "linear")
    parts = [Dense(GRID, rng.normal(size=(12, 12))) for _ in range(4)]
    yield "constant", Dense(GRID, KERNEL), {"bias": rng.normal(size=12)}
    yield "local", Dense(GRID, KERNEL, local=-0.8), {"bias": fields}
    yield "amplitude", Dense(GRID, KERNEL), {"bias": jumps, "amplitude": waves}
    yield "path", OperatorPath(KNOTS, parts, "linear"), {"bias": jumps}
    yield "layers", OperatorPath(KNOTS, parts[:3]), {"bias": fields, "amplitude": waves}
    terms = Controls(KNOTS, rng.normal(size=(4, 2)), "linear")
    yield "terms", Separable(GRID, rng.normal(size=(2, 12)), rng.normal(size=(2, 12))), {"amplitude": terms}


CASES = list(models())


@pytest.mark.parametrize("case", CASES, ids=[c[0] for c in CASES])
@pytest.mark.parametrize("name", ["identity", "relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("placement", ["outside", "inside"])
@pytest.mark.parametrize("leak", [0.0, 0.4])
def test_growth_bound_holds(case, name, placement, leak):
    _, operator, options = case
    model = SpaceTimeNetwork(operator, name, placement=placement, leak=leak, n_samples=2, **options)
    y = np.random.default_rng(6).normal(size=(2, 12))
    _, ratio = run(model, y, np.linspace(0, 2, 30), GrowthBound(), substeps=3)
    assert ratio.shape == (30, 2)
    np.testing.assert_array_equal(ratio[0], 1.0)
    assert ratio[1:].max() < 1.0
    assert ratio.min() > 0.0


@pytest.mark.parametrize("placement", ["outside", "inside"])
@pytest.mark.parametrize("case", ["constant", "layers", "linear", "path", "terms", "local"])
def test_growth_bound_is_sharp_and_never_too_small_for_a_constant_field(placement, case):
    """Identity, w == kappa a(t) > 0, constant z: ||z|| = exp(int kappa a) ||z0||, the bound itself."""
    times, kappa = np.linspace(0, 2, 17), 0.9
    amplitude = None
    operator = Dense(GRID, kappa * ONE)
    growth = kappa * times
    if case == "layers":
        amplitude = Controls(KNOTS, [0.5, 2.0, 1.0])
        growth = kappa * np.interp(times, KNOTS, np.cumsum([0, 0.5 * 0.33, 2 * 0.77, 0.9]))
    elif case == "linear":
        amplitude = Controls([0.0, 2.0], [0.2, 1.4], "linear")
        growth = kappa * (0.2 * times + 0.3 * times**2)
    elif case == "path":
        operator = OperatorPath([0.0, 2.0], [Dense(GRID, 0.2 * kappa * ONE), Dense(GRID, 1.4 * kappa * ONE)], "linear")
        growth = kappa * (0.2 * times + 0.3 * times**2)
    elif case == "terms":
        operator = Separable(GRID, kappa * np.ones((2, 12)), np.ones((2, 12)))
        amplitude = Controls([0.0, 2.0], [[0.2, 0.0], [0.4, 1.0]], "linear")
        growth = kappa * (0.2 * times + 0.3 * times**2)
    elif case == "local":
        operator = Dense(GRID, 0.4 * ONE, local=0.5)
    model = SpaceTimeNetwork(operator, "identity", placement=placement, amplitude=amplitude)
    probe, ratio = GrowthBound(), []
    for t, g in zip(times, growth, strict=True):
        y = np.full(12, 1.3 * np.exp(g))
        probe.init(t, y, model) if t == 0 else probe.update(t, y, model)
        ratio.append(float(probe.value()))
    np.testing.assert_allclose(ratio, 1.0, rtol=1e-12)
    # A field that grows 5 % faster breaks the bound.
    probe.init(0.0, np.full(12, 1.3), model)
    probe.update(2.0, np.full(12, 1.3 * np.exp(1.05 * growth[-1])), model)
    assert probe.value() > 1.02


@pytest.mark.parametrize("placement", ["outside", "inside"])
def test_growth_bound_counts_the_bias_and_sigma_at_zero(placement):
    # W = 0: outside z = z0 + t sigma(b), inside z = z0 + t b.
    model = SpaceTimeNetwork(Dense(GRID, 0 * ONE), "sigmoid", 0.6, placement=placement)
    probe = GrowthBound()
    probe.init(0.0, np.full(12, 1.0), model)
    probe.update(3.0, np.full(12, 4.0), model)
    expected = 4.0 / (1 + 3 * (0.5 + 0.25 * 0.6)) if placement == "outside" else 4.0 / (1 + 3 * 0.6)
    assert float(probe.value()) == pytest.approx(expected, rel=1e-13)
    # Inside, sigma(0) counts with the weight in front of it.
    heavy = SpaceTimeNetwork(Dense(GRID, 2 * ONE), "sigmoid", 0.0, placement="inside")
    probe.init(0.0, np.zeros(12), heavy)
    probe.update(1.5, np.ones(12), heavy)
    assert float(probe.value()) == pytest.approx(np.exp(-0.25 * 3.0) / (0.5 * 3.0), rel=1e-13)


def test_growth_ratio_survives_bounds_that_overflow():
    model = SpaceTimeNetwork(Dense(GRID, 500 * ONE), "tanh", 0.1)
    _, ratio = run(model, np.ones(12), np.linspace(0, 4, 9), GrowthBound())
    assert np.isfinite(ratio).all()


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "sine"])
def test_bounded_activations_move_at_most_s_t(name):
    model = SpaceTimeNetwork(Dense(GRID, 30 * KERNEL), name, 4.0, n_samples=2)
    y = np.random.default_rng(7).normal(size=(2, 12))
    _, ratio = run(model, y, np.linspace(1.0, 3.0, 40), ActivationBound())
    assert ratio.shape == (40, 2)
    np.testing.assert_array_equal(ratio[0], 0.0)
    assert 0.5 < ratio.max() <= 1 + 1e-12
    # The bound is S t, not S t^2 or t: a constant drive of 0.7 gives the ratio 0.7 / S at every depth.
    probe = ActivationBound()
    probe.init(1.0, y, model)
    for t in (1.5, 3.0):
        probe.update(t, y - 0.7 * (t - 1.0), model)
        np.testing.assert_allclose(probe.value(), 0.7, rtol=1e-12)


def test_sigmoid_rises_between_zero_and_t():
    model = SpaceTimeNetwork(Dense(GRID, 3 * KERNEL), "sigmoid", 0.5)
    _, ratio = run(model, np.random.default_rng(8).normal(size=12), np.linspace(0, 3, 40), SigmoidBound())
    assert 0.05 < ratio[1:].max() < 1.0
    for moved, bad in ((0.5, False), (-0.01, True), (2.01, True), (1.99, False)):
        probe = SigmoidBound()
        probe.init(0.0, np.zeros(12), model)
        y = np.full(12, 1.0)
        y[3] = moved
        probe.update(2.0, y, model)
        assert (probe.value() > 1.0) == bad


@pytest.mark.parametrize("name", ["relu", "sigmoid", "softplus"])
def test_nonnegative_activations_make_z_nondecreasing(name):
    model = SpaceTimeNetwork(Dense(GRID, 3 * KERNEL), name, 0.2, n_samples=2)
    _, ratio = run(model, np.random.default_rng(9).normal(size=(2, 12)), np.linspace(0, 2, 60), Monotonicity())
    np.testing.assert_array_equal(ratio, 1.0)


def test_monotonicity_sees_a_decrease():
    model = SpaceTimeNetwork(Dense(GRID, KERNEL), "relu")
    probe, y = Monotonicity(), np.zeros(12)
    probe.init(0.0, y, model)
    y[:] = 1.0
    probe.update(1.0, y, model)
    assert probe.value() == 1.0
    y[4] = 0.8
    probe.update(2.0, y, model)
    assert probe.value() == pytest.approx(1.25)
    y[4] = -0.1
    probe.update(3.0, y, model)
    assert probe.value() == np.inf


@pytest.mark.parametrize("make", [GrowthBound, ActivationBound, SigmoidBound, Monotonicity])
def test_a_restored_probe_continues_with_the_same_bytes(make):
    bias = Controls(KNOTS, np.random.default_rng(3).normal(size=(4, 12)), "linear")
    model = SpaceTimeNetwork(Dense(GRID, KERNEL), "sigmoid", bias, n_samples=2)
    times = np.linspace(0, 2, 21)
    states, whole = run(model, np.random.default_rng(4).normal(size=(2, 12)), times, make())
    probe = make()
    probe.init(times[0], states[0], model)
    for k in range(1, 8):
        probe.update(times[k], states[k], model)
    saved = {key: value.copy() for key, value in probe.state().items()}
    assert all(isinstance(v, np.ndarray) for v in saved.values())
    late = make()
    late.init(times[7], states[7], model)
    late.restore(saved)
    np.testing.assert_array_equal(late.value(), whole[7])
    for k in range(8, 21):
        late.update(times[k], states[k], model)
        np.testing.assert_array_equal(late.value(), whole[k])


def test_probes_do_not_hold_on_to_the_state_they_are_given():
    model = SpaceTimeNetwork(Dense(GRID, KERNEL), "sigmoid")
    probe, y = ActivationBound(), np.zeros(12)
    probe.init(0.0, y, model)
    y += 0.5
    probe.update(1.0, y, model)
    y += 100.0
    assert probe.value() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("probe", "name", "options"),
    [
        (ActivationBound, "relu", {}),
        (ActivationBound, "tanh", {"leak": 0.1}),
        (ActivationBound, "tanh", {"placement": "inside"}),
        (SigmoidBound, "tanh", {}),
        (Monotonicity, "tanh", {}),
        (Monotonicity, "relu", {"leak": 0.1}),
    ],
)
def test_bounds_refuse_models_outside_their_hypotheses(probe, name, options):
    with pytest.raises(ConfigError):
        probe().init(0.0, np.zeros(12), SpaceTimeNetwork(Dense(GRID, KERNEL), name, **options))


@pytest.mark.parametrize("placement", ["outside", "inside"])
@pytest.mark.parametrize("name", ["identity", "relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("local", [0.0, -0.5])
def test_stability_estimate_holds_between_two_runs(placement, name, local):
    rng, times = np.random.default_rng(12), np.linspace(0, 1.5, 40)
    first = SpaceTimeNetwork(
        Dense(GRID, KERNEL, local=local), name, Controls(KNOTS, rng.normal(size=(3, 12))), placement=placement,
        n_samples=2,
    )  # fmt: skip
    second = SpaceTimeNetwork(
        Dense(GRID, KERNEL + 0.1 * rng.normal(size=(12, 12)), local=1.1 * local), name,
        Controls(KNOTS, rng.normal(size=(4, 12)), "linear"), placement=placement, n_samples=2,
    )  # fmt: skip
    z1, _ = run(first, rng.normal(size=(2, 12)), times)
    z2, _ = run(second, z1[0] + 0.1, times)
    ratio = stability_ratio(times, z1, z2, first, second)
    assert ratio.shape == (40, 2)
    assert 0.0 < ratio.min() <= ratio.max() <= 1.0 + 1e-12
    np.testing.assert_array_equal(stability_ratio(times, z1, z1, first, first), 0.0)


def test_stability_estimate_is_sharp_and_can_be_violated():
    times, kappa = np.linspace(0, 2, 9), 0.7
    model = SpaceTimeNetwork(Dense(GRID, kappa * ONE), "identity")
    grow = np.exp(kappa * times)[:, None]
    z1, z2 = 1.5 * grow * np.ones(12), 0.5 * grow * np.ones(12)
    np.testing.assert_allclose(stability_ratio(times, z1, z2, model, model), 1.0, rtol=1e-12)
    weak = SpaceTimeNetwork(Dense(GRID, 0.95 * kappa * ONE), "identity")
    assert stability_ratio(times, z1, z2, weak, weak)[-1] > 1.05
    # Two biases, W = 0: the distance is t |b1 - b2|, with the factor Lambda outside only.
    for placement, factor in (("outside", 0.25), ("inside", 1.0)):
        a, b = (SpaceTimeNetwork(Dense(GRID, 0 * ONE), "sigmoid", v, placement=placement) for v in (0.1, 0.4))
        gap = stability_ratio(times, z1[:1] + times[:, None], z1[:1] + 0 * times[:, None], a, b)
        np.testing.assert_allclose(gap[1:], 1 / (0.3 * factor), rtol=1e-12)


def test_stability_estimate_counts_the_distance_of_the_weights():
    times = np.array([0.0, 1.0])
    a = SpaceTimeNetwork(Dense(GRID, 0 * ONE), "identity")
    b = SpaceTimeNetwork(Dense(GRID, KERNEL), "identity")
    states = np.stack([np.ones(12), np.ones(12)])
    ratio = stability_ratio(times, states + np.array([[0.0], [1.0]]), states, a, b)
    assert ratio[1] == pytest.approx(1 / Dense(GRID, KERNEL).norm(), rel=1e-12)
    damped = SpaceTimeNetwork(Dense(GRID, 0 * ONE, local=-0.3), "identity")
    ratio = stability_ratio(times, states + np.array([[0.0], [1.0]]), states, a, damped)
    assert ratio[1] == pytest.approx(1 / 0.3, rel=1e-12)
    # Inside, the weights act on sigma(z2) = 1/(1 + e^-1).
    a, b = (SpaceTimeNetwork(Dense(GRID, k), "sigmoid", placement="inside") for k in (0 * ONE, KERNEL))
    ratio = stability_ratio(times, states + np.array([[0.0], [1.0]]), states, a, b)
    assert ratio[1] == pytest.approx((1 + np.exp(-1.0)) / Dense(GRID, KERNEL).norm(), rel=1e-12)


def test_stability_estimate_refuses_different_equations():
    times, z = np.array([0.0, 1.0]), np.zeros((2, 12))
    base = SpaceTimeNetwork(Dense(GRID, KERNEL), "tanh")
    others = {
        "placement": SpaceTimeNetwork(Dense(GRID, KERNEL), "tanh", placement="inside"),
        "activation": SpaceTimeNetwork(Dense(GRID, KERNEL), "relu"),
        "grids": SpaceTimeNetwork(Dense(Grid.interval(12), KERNEL), "tanh"),
        "constant in depth": SpaceTimeNetwork(
            Dense(GRID, KERNEL), "tanh", amplitude=Controls([0.0, 1.0], [1.0, 2.0], "linear")
        ),
    }
    for word, other in others.items():
        with pytest.raises(ConfigError, match=word):
            stability_ratio(times, z, z, base, other)
    with pytest.raises(ConfigError, match="lengths"):
        stability_ratio(times, z[:1], z, base, base)


@pytest.mark.parametrize("scheme", [{"scheme": "rk4", "n_steps": 64}, {"rtol": 1e-8}])
def test_probes_run_in_the_time_loop_and_see_every_step(scheme):
    model = SpaceTimeNetwork(Dense(GRID, KERNEL), "sigmoid", Controls([0.0, 0.5, 1.0, 2.0], [0.3, -1.0, 1.0]))
    probes = {"growth": GrowthBound(), "move": ActivationBound(), "rise": SigmoidBound()}
    found = integrate(model, np.ones(12), (0.0, 2.0), save_at=np.array([0.0, 1.0, 2.0]), probes=probes, **scheme)
    for name in probes:
        times, values = found.probes[name]
        np.testing.assert_array_equal(times, [0.0, 1.0, 2.0])
        assert 0.05 < values[1:].max() < 1.0
    # int (|sigma(0)| + |b|/4) = 2 * 0.5 + (0.15 + 0.5 + 1.0)/4 and int omega = 2 omega, whatever the steps.
    bound = np.exp(0.25 * 2 * model.operator.norm()) * (1.0 + 1.0 + 1.65 / 4)
    assert found.probes["growth"][1][-1] == pytest.approx(GRID.norm(found.final) / bound, rel=1e-12)
