"""The quadratic form of the difference of two solutions never increases, and the hypotheses are needed."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.controls import Controls
from meanfield.diagnostics.stability import TimeUniformNorm, euler_step_limit, largest_increase
from meanfield.errors import ConfigError
from meanfield.grids import Grid
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.dense import Dense

GRID = Grid.interval(10, rule="gauss")
FACTOR = np.random.default_rng(31).normal(size=(10, 6))
GRAM = -FACTOR @ FACTOR.T
BIAS = Controls([0.0, 0.7, 1.4, 5.0], np.random.default_rng(32).normal(size=(3, 10)))


def euler(model, y, dt, n):
    states, rate, y = [y.copy()], np.empty_like(y), y.copy()
    for i in range(n):
        model.rate(i * dt, y, rate)
        y = y + dt * rate
        states.append(y)
    return np.array(states)


@pytest.mark.parametrize("placement", ["outside", "inside"])
@pytest.mark.parametrize("name", ["identity", "relu", "leaky_relu", "tanh", "sigmoid", "softplus"])
@pytest.mark.parametrize("leak", [0.0, 0.5])
@pytest.mark.parametrize("local", [0.0, -0.4])
def test_form_never_increases_for_euler_up_to_its_limit(placement, name, leak, local):
    model = SpaceTimeNetwork(Dense(GRID, GRAM, local=local), name, BIAS, placement=placement, leak=leak, n_samples=3)
    norm = TimeUniformNorm(model)
    rng = np.random.default_rng(33)
    y = rng.normal(size=(3, 10))
    # Inside, the differences must start in the range of A.
    y[1:] = y[0] + np.array([model.operator.apply(v, np.empty(10)) for v in rng.normal(size=(2, 10))])
    # At the limit itself a mode keeps its size, so the last digits decide: stay 1 % below.
    states = euler(model, y, 0.99 * euler_step_limit(model), 60)
    values = np.array([norm(0.0, z, model) for z in states])
    assert values.shape == (61, 2)
    assert largest_increase(values) <= 1e-13
    assert (values[-1] < 0.9999 * values[0]).all()


@pytest.mark.parametrize("placement", ["outside", "inside"])
@pytest.mark.parametrize("leak", [0.0, 0.5])
def test_euler_limit_is_the_largest_step(placement, leak):
    model = SpaceTimeNetwork(Dense(GRID, GRAM), "identity", placement=placement, leak=leak, n_samples=2)
    root = np.sqrt(GRID.weights)
    values, vectors = np.linalg.eigh(-GRAM * np.outer(root, root))
    assert euler_step_limit(model) == pytest.approx(2 / (leak + values[-1]), rel=1e-10)
    y = np.stack([np.zeros(10), vectors[:, -1] / root])
    norm = TimeUniformNorm(model)
    for factor, sign in ((0.98, -1), (1.02, 1)):
        states = euler(model, y, factor * euler_step_limit(model), 10)
        assert np.sign(largest_increase(np.array([norm(0.0, z, model) for z in states]))) == sign


def test_forms_are_those_of_a_and_its_inverse_in_l2():
    q, rng = GRID.weights, np.random.default_rng(34)
    matrix = -(GRAM * q - 0.3 * np.eye(10))
    delta = rng.normal(size=(4, 10))
    outside = TimeUniformNorm(SpaceTimeNetwork(Dense(GRID, GRAM, local=-0.3), "tanh"))
    np.testing.assert_allclose(outside.of(delta), (delta * q * (delta @ matrix.T)).sum(axis=1), rtol=1e-12)
    inside = TimeUniformNorm(SpaceTimeNetwork(Dense(GRID, GRAM, local=-0.3), "tanh", placement="inside"))
    solved = np.linalg.solve(matrix, delta.T).T
    np.testing.assert_allclose(inside.of(delta), (delta * q * solved).sum(axis=1), rtol=1e-10)
    assert isinstance(outside.of(delta[0]), float)
    assert isinstance(inside.of(delta[0]), float)
    assert outside.of(delta.reshape(2, 2, 10)).shape == (2, 2)


def test_a_difference_outside_the_range_is_infinitely_far():
    inside = TimeUniformNorm(SpaceTimeNetwork(Dense(GRID, GRAM), "tanh", placement="inside"))
    in_range = GRAM @ (GRID.weights * np.ones(10))
    assert np.isfinite(inside.of(in_range))
    assert inside.of(np.random.default_rng(0).normal(size=10)) == np.inf


@pytest.mark.parametrize(
    ("kernel", "name", "word"),
    [
        (GRAM + np.triu(np.ones((10, 10))), "tanh", "self-adjoint"),
        (-GRAM, "tanh", "semidefinite"),
        (GRAM, "sine", "nondecreasing"),
    ],
)
def test_form_refuses_models_outside_its_hypotheses(kernel, name, word):
    with pytest.raises(ConfigError, match=word):
        TimeUniformNorm(SpaceTimeNetwork(Dense(GRID, kernel), name))


def test_form_needs_a_constant_weight_and_two_samples():
    ramp = Controls([0.0, 1.0], [1.0, 2.0], "linear")
    with pytest.raises(ConfigError, match="constant in depth"):
        TimeUniformNorm(SpaceTimeNetwork(Dense(GRID, GRAM), "tanh", amplitude=ramp))
    with pytest.raises(ConfigError, match="constant in depth"):
        euler_step_limit(SpaceTimeNetwork(Dense(GRID, GRAM), "tanh", amplitude=ramp))
    model = SpaceTimeNetwork(Dense(GRID, GRAM), "tanh")
    with pytest.raises(ConfigError, match="two rows"):
        TimeUniformNorm(model)(0.0, np.zeros(10), model)


def test_largest_increase():
    assert largest_increase([4.0, 2.0, 1.0]) == -0.25
    assert largest_increase([[4.0, 1.0], [2.0, 1.5]]) == 0.5
    assert euler_step_limit(SpaceTimeNetwork(Dense(GRID, 0 * GRAM), "tanh")) == np.inf
    for bad in ([1.0], [0.0, 1.0]):
        with pytest.raises(ConfigError):
            largest_increase(bad)
