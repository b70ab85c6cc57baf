"""The energy identity of space-time networks, and its consequences."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.controls import Controls
from meanfield.diagnostics.energy import energy, energy_rate
from meanfield.errors import ConfigError
from meanfield.grids import Grid
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.dense import Dense
from meanfield.operators.path import OperatorPath

GRID = Grid.interval(14, rule="gauss")
RNG = np.random.default_rng(11)
KERNEL = RNG.normal(size=(14, 14))
BIAS = RNG.normal(size=14)


def rk4(model, y, end, n, watch=None):
    h, y, k = end / n, y.copy(), np.empty((4, *y.shape))
    for i in range(n):
        if watch is not None:
            watch(i * h, y)
        model.rate(i * h, y, k[0])
        model.rate(i * h, y + 0.5 * h * k[0], k[1])
        model.rate(i * h, y + 0.5 * h * k[1], k[2])
        model.rate(i * h, y + h * k[2], k[3])
        y += h / 6 * (k[0] + 2 * k[1] + 2 * k[2] + k[3])
    return y


@pytest.mark.parametrize("name", ["identity", "relu", "leaky_relu", "tanh", "sigmoid", "sine", "gelu", "softplus"])
@pytest.mark.parametrize("n_samples", [None, 3])
def test_rate_is_the_derivative_of_the_energy_along_the_flow(name, n_samples):
    model = SpaceTimeNetwork(Dense(GRID, KERNEL, local=-0.4), name, BIAS, n_samples=n_samples)
    y = np.random.default_rng(1).normal(size=(14,) if n_samples is None else (n_samples, 14))
    rate, eps = np.empty_like(y), 1e-5
    model.rate(0.0, y, rate)
    slope = (energy(0.0, y + eps * rate, model) - energy(0.0, y - eps * rate, model)) / (2 * eps)
    got = energy_rate(0.0, y, model)
    assert np.shape(got) == (() if n_samples is None else (3,))
    np.testing.assert_allclose(got, slope, rtol=1e-6, atol=1e-7)


def test_energy_of_relu_is_half_the_square_of_the_positive_part():
    model = SpaceTimeNetwork(Dense(GRID, KERNEL), "relu", BIAS, n_samples=2)
    y = np.random.default_rng(5).normal(size=(2, 14))
    u = y @ (KERNEL * GRID.weights).T + BIAS
    np.testing.assert_allclose(energy(0.0, y, model), 0.5 * np.maximum(u, 0) ** 2 @ GRID.weights, rtol=1e-13)
    assert energy(0.0, y, model).shape == (2,)
    single = SpaceTimeNetwork(Dense(GRID, KERNEL), "relu", BIAS)
    assert isinstance(energy(0.0, y[0], single), float)
    assert isinstance(energy_rate(0.0, y[0], single), float)


@pytest.mark.parametrize(("name", "size"), [("identity", 5.0), ("tanh", 5.0), ("sigmoid", 25.0)])
def test_skew_kernel_conserves_the_energy_to_the_order_of_the_scheme(name, size):
    model = SpaceTimeNetwork(Dense(GRID, size * (KERNEL - KERNEL.T)), name, BIAS)
    y = np.random.default_rng(2).normal(size=14)
    assert abs(energy_rate(0.0, y, model)) < 1e-13
    start = energy(0.0, y, model)
    drift = [abs(energy(0.0, rk4(model, y, 2.0, n), model) - start) for n in (50, 100, 200)]
    # RK4 keeps a conserved quantity to order 4 or 5, never worse.
    assert drift[1] / drift[2] > 2**3.9, drift
    assert drift[2] < 1e-4 * start, drift


def test_relu_with_damping_and_skew_part_decays_at_exactly_twice_the_damping():
    lam = 0.35
    model = SpaceTimeNetwork(Dense(GRID, KERNEL - KERNEL.T, local=-lam), "relu", 0.3 * BIAS)
    y = np.random.default_rng(3).normal(size=14)
    end = rk4(model, y, 2.0, 4000)
    # Labels cross the kink of sigma', where RK4 is of order 2 only.
    assert energy(0.0, end, model) == pytest.approx(energy(0.0, y, model) * np.exp(-2 * lam * 2.0), rel=1e-6)


def test_dissipative_kernel_never_increases_the_energy_and_a_positive_one_does():
    gram = KERNEL @ KERNEL.T / 14
    y, seen = np.random.default_rng(4).normal(size=(2, 14)), []
    for sign in (-1.0, 1.0):
        kernel = sign * gram + 0.7 * (KERNEL - KERNEL.T)
        model = SpaceTimeNetwork(Dense(GRID, kernel), "tanh", BIAS, n_samples=2)
        values = []
        rk4(model, y, 3.0, 300, lambda t, z, m=model, v=values: v.append(energy(t, z, m)))
        seen.append(np.diff(np.array(values), axis=0))
    assert seen[0].max() < 0 < seen[1].min()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"placement": "inside"}, "inside"),
        ({"leak": 0.1}, "leak"),
        ({"bias": Controls([0.0, 1.0, 2.0], [0.0, 1.0])}, "depth"),
        ({"amplitude": Controls([0.0, 1.0, 2.0], [0.0, 1.0])}, "depth"),
        ({"operator": OperatorPath([0.0, 1.0, 2.0], [Dense(GRID, KERNEL)] * 2)}, "depth"),
    ],
)
@pytest.mark.parametrize("probe", [energy, energy_rate])
def test_energy_refuses_models_outside_its_hypotheses(options, word, probe):
    options = {"operator": Dense(GRID, KERNEL), "activation": "tanh", **options}
    with pytest.raises(ConfigError, match=word):
        probe(0.0, np.zeros(14), SpaceTimeNetwork(**options))
