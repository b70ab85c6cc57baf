"""Linear stability: spectra known in closed form, verdicts that stay undecided, thresholds, contraction."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.controls import Controls
from meanfield.diagnostics.spectrum import (
    contraction_rate,
    instability_threshold,
    jacobian,
    leading_eigenvalues,
    spectrum,
    symmetric_part_range,
)
from meanfield.errors import ConfigError
from meanfield.grids import Grid
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.dense import Dense
from meanfield.operators.path import OperatorPath

GRID = Grid.interval(11, rule="gauss")
KERNEL = np.random.default_rng(41).normal(size=(11, 11))
Y = np.random.default_rng(42).normal(size=11)


@pytest.mark.parametrize("placement", ["outside", "inside"])
@pytest.mark.parametrize("name", ["identity", "relu", "tanh", "sigmoid", "sine"])
def test_jacobian_is_the_derivative_of_the_rate(placement, name):
    ramp = Controls([0.0, 2.0], [0.5, 1.5], "linear")
    model = SpaceTimeNetwork(
        Dense(GRID, KERNEL, local=-0.3), name, 0.4, placement=placement, leak=0.7, amplitude=ramp, n_samples=None
    )
    j, eps, columns = jacobian(model, Y, t=0.8), 1e-6, []
    for e in np.eye(11):
        up, down = np.empty(11), np.empty(11)
        model.rate(0.8, Y + eps * e, up)
        model.rate(0.8, Y - eps * e, down)
        columns.append((up - down) / (2 * eps))
    np.testing.assert_allclose(j, np.array(columns).T, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("placement", ["outside", "inside"])
def test_leading_eigenvalues_are_the_dense_ones(placement):
    # More labels than the dense limit, with a few isolated eigenvalues, nonuniform weights, samples in the model.
    n = 640
    grid = Grid.interval(n, rule="gauss")
    rng = np.random.default_rng(1)
    modes = np.array([np.cos(np.pi * k * grid.nodes) for k in range(6)])
    kernel = modes.T @ (rng.normal(size=(6, 6)) @ modes) * 3
    model = SpaceTimeNetwork(Dense(grid, kernel), "tanh", 0.2, placement=placement, leak=0.4, n_samples=2)
    y = 0.1 * np.sin(5 * grid.nodes)
    found = leading_eigenvalues(model, y, k=3)
    values = np.linalg.eigvals(jacobian(model, y))
    values = values[np.argsort(-values.real)][:3]
    np.testing.assert_allclose(np.sort_complex(found), np.sort_complex(values), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(found, leading_eigenvalues(model, y, k=3))


def test_leading_eigenvalues_serve_paths_and_small_networks():
    path = OperatorPath([0.0, 1.0], [Dense(GRID, KERNEL), Dense(GRID, 3 * KERNEL)], "linear")
    found = leading_eigenvalues(SpaceTimeNetwork(path, "tanh"), Y, t=0.5, k=50)
    twice = spectrum(SpaceTimeNetwork(Dense(GRID, 2 * KERNEL), "tanh"), Y).eigenvalues
    np.testing.assert_allclose(np.sort_complex(found), np.sort_complex(twice), rtol=1e-9, atol=1e-12)
    with pytest.raises(ConfigError, match="one operator"):
        jacobian(SpaceTimeNetwork(path, "tanh"), Y, t=0.5)


def test_convolution_on_the_circle_has_its_multiplier_as_spectrum():
    grid = Grid.circle(16)
    x = grid.nodes.reshape(-1)
    kernel = -1.0 - 0.8 * np.cos(2 * np.pi * (x[:, None] - x)) + 0.5 * np.sin(4 * np.pi * (x[:, None] - x))
    found = spectrum(SpaceTimeNetwork(Dense(grid, kernel), "tanh", leak=0.1), np.zeros(16))
    want = np.sort_complex(np.array([-1.1, -0.5, -0.5, -0.1 + 0.25j, -0.1 - 0.25j] + [-0.1] * 11))
    np.testing.assert_allclose(np.sort(found.eigenvalues.real), np.sort(want.real), atol=1e-13)
    np.testing.assert_allclose(np.sort(found.eigenvalues.imag), np.sort(want.imag), atol=1e-13)
    assert found.verdict == "stable"
    assert found.abscissa == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("kernel", "options", "verdict"),
    [
        (np.ones((11, 11)), {}, "unstable"),
        (np.ones((11, 11)), {"leak": 0.9}, "unstable"),
        (np.ones((11, 11)), {"leak": 1.1}, "stable"),
        (-np.ones((11, 11)), {}, "undecided"),
        (np.tril(np.ones((11, 11)), -1), {}, "undecided"),
        (np.tril(np.ones((11, 11)), -1), {"leak": 0.5}, "undecided"),
        (KERNEL - KERNEL.T, {}, "undecided"),
        (KERNEL - KERNEL.T, {"leak": 0.2}, "stable"),
        (-KERNEL @ KERNEL.T, {}, "undecided"),
        (np.zeros((11, 11)), {}, "undecided"),
        (np.zeros((11, 11)), {"leak": 0.3}, "stable"),
    ],
)
@pytest.mark.parametrize("placement", ["outside", "inside"])
def test_verdict_of_the_linearisation_at_zero(kernel, options, verdict, placement):
    model = SpaceTimeNetwork(Dense(GRID, kernel), "tanh", placement=placement, **options)
    found = spectrum(model, np.zeros(11))
    assert found.verdict == verdict, found


@pytest.mark.parametrize(("local", "verdict"), [(-0.5, "stable"), (0.0, "undecided"), (0.5, "unstable")])
def test_verdict_counts_the_local_part(local, verdict):
    model = SpaceTimeNetwork(Dense(GRID, KERNEL - KERNEL.T, local=local), "identity")
    found = spectrum(model, np.zeros(11))
    assert (found.verdict, found.limit_point) == (verdict, local)


def test_relu_with_frozen_labels_stays_undecided():
    model = SpaceTimeNetwork(
        Dense(GRID, -np.ones((11, 11)), local=-1.0), "relu", np.where(np.arange(11) < 5, -1.0, 1.0)
    )
    found = spectrum(model, np.zeros(11))
    assert found.verdict == "undecided"
    assert (np.abs(found.eigenvalues) < 1e-14).sum() == 5


def test_instability_threshold_is_where_the_abscissa_crosses_zero():
    leak = 0.6
    model = SpaceTimeNetwork(Dense(GRID, KERNEL), "tanh", leak=leak)
    s = instability_threshold(0.0, np.zeros(11), model)
    assert s == pytest.approx(leak / np.linalg.eigvals(KERNEL * GRID.weights).real.max(), rel=1e-10)
    for factor, verdict in ((0.99, "stable"), (1.01, "unstable")):
        scaled = SpaceTimeNetwork(Dense(GRID, factor * s * KERNEL), "tanh", leak=leak)
        assert spectrum(scaled, np.zeros(11)).verdict == verdict
    negative = SpaceTimeNetwork(Dense(GRID, -np.ones((11, 11))), "tanh", leak=leak)
    assert instability_threshold(0.0, np.zeros(11), negative) == np.inf
    assert instability_threshold(0.0, np.zeros(11), SpaceTimeNetwork(Dense(GRID, KERNEL), "tanh")) == 0.0
    skew = SpaceTimeNetwork(Dense(GRID, KERNEL - KERNEL.T), "tanh")
    assert instability_threshold(0.0, np.zeros(11), skew) == np.inf


@pytest.mark.parametrize("placement", ["outside", "inside"])
def test_leaky_networks_contract_at_least_at_the_predicted_rate(placement):
    model = SpaceTimeNetwork(Dense(GRID, KERNEL), "sigmoid", 0.3, placement=placement, leak=0.8, n_samples=2)
    root = np.sqrt(GRID.weights)
    size = np.linalg.norm(KERNEL * np.outer(root, root), 2)
    rate = contraction_rate(model)
    assert rate == pytest.approx(0.8 - 0.25 * size, rel=1e-9)
    assert rate > 0
    y, k, h = np.random.default_rng(2).normal(size=(2, 11)) * 3, np.empty((2, 11)), 0.005
    distance = []
    for _ in range(400):
        distance.append(GRID.norm(y[0] - y[1]))
        model.rate(0.0, y, k)
        half = y + 0.5 * h * k
        model.rate(0.0, half, k)
        y = y + h * k
    assert (np.diff(np.log(distance)) / h).max() <= -rate + 1e-9
    # Sharp for the identity along the leading singular pair of a symmetric kernel.
    top = SpaceTimeNetwork(Dense(GRID, np.ones((11, 11))), "identity", leak=0.8, placement=placement)
    assert contraction_rate(top) == pytest.approx(-0.2, rel=1e-10)


@pytest.mark.parametrize("n", [11, 640])
def test_range_of_the_symmetric_part(n):
    grid = Grid.interval(n, rule="gauss")
    rng = np.random.default_rng(9)
    modes = np.array([np.cos(np.pi * k * grid.nodes) for k in range(4)])
    kernel = modes.T @ (rng.normal(size=(4, 4)) @ modes)
    model = SpaceTimeNetwork(Dense(grid, kernel, local=0.2), "relu")
    low, high = symmetric_part_range(model)
    q = grid.weights
    # The numerical range by sampling never leaves the interval, and the dense eigenvalues are its ends.
    symmetric = 0.5 * np.sqrt(np.outer(q, q)) * (kernel + kernel.T) + 0.2 * np.eye(n)
    want = np.linalg.eigvalsh(symmetric)
    np.testing.assert_allclose([low, high], [want[0], want[-1]], rtol=1e-9)


def test_spectra_refuse_what_does_not_fit():
    model = SpaceTimeNetwork(Dense(GRID, KERNEL), "tanh")
    with pytest.raises(ConfigError, match="shape"):
        spectrum(model, np.zeros((2, 11)))
    ramp = SpaceTimeNetwork(Dense(GRID, KERNEL), "tanh", amplitude=Controls([0.0, 1.0], [1.0, 2.0], "linear"))
    for function in (contraction_rate, symmetric_part_range):
        with pytest.raises(ConfigError, match="constant in depth"):
            function(ramp)


def test_margin_is_the_leak_that_stability_can_spare():
    grid = Grid.circle(32)  # cos 2 pi (x - y) has the eigenvalue 1/2
    for leak in (0.7, 0.3):
        model = SpaceTimeNetwork(Dense(grid, lambda x, y: np.cos(2 * np.pi * (x - y))), "tanh", leak=leak)
        found = spectrum(model, np.zeros(32))
        assert np.isclose(found.margin, leak - 0.5, rtol=1e-12)
        assert found.verdict == ("stable" if leak > 0.5 else "unstable")
