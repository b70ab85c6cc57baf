"""Newton and pseudo-transient continuation against scalar steady states; extents; the energy watched."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import brentq

from meanfield.diagnostics.energy import EnergyMonitor, energy
from meanfield.diagnostics.newton import steady_state
from meanfield.diagnostics.steady import steady_extent
from meanfield.errors import ConfigError, NumericalError
from meanfield.grids import Grid
from meanfield.integration import integrate
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.dense import Dense
from meanfield.solution import Status

GRID = Grid.interval(24, rule="gauss")


def constant(kappa):
    return Dense(GRID, np.full((24, 24), kappa))


@pytest.mark.parametrize("method", ["newton", "pseudo-transient"])
@pytest.mark.parametrize(("name", "f"), [("tanh", np.tanh), ("sigmoid", lambda u: 1 / (1 + np.exp(-u)))])
def test_constant_kernel_has_the_scalar_steady_state(method, name, f):
    model = SpaceTimeNetwork(constant(2.0), name, 0.3, leak=0.8)
    root = brentq(lambda z: f(2.0 * z + 0.3) - 0.8 * z, 0.5, 2.0, xtol=1e-14)
    found = steady_state(model, np.full(24, 1.5), method=method).raise_for_status()
    np.testing.assert_allclose(found.state, root, atol=1e-9)


def test_newton_converges_quadratically():
    kernel = np.random.default_rng(1).normal(size=(24, 24))
    model = SpaceTimeNetwork(Dense(GRID, kernel), "tanh", 0.5, leak=1.5, placement="inside")
    found = steady_state(model, np.zeros(24), tol=1e-13).raise_for_status()
    r = np.array(found.residuals)
    close = [(a, b) for a, b in itertools.pairwise(r) if 1e-7 < a < 1e-1 and b > 1e-15]
    assert close
    assert all(b <= 10 * a**2 for a, b in close)


def test_pseudo_transient_leads_to_the_stable_state_and_samples_have_their_own():
    # z = 0 is unstable, +-root are stable: the flow decides by the sign of the start.
    model = SpaceTimeNetwork(constant(2.0), "tanh", leak=1.0, n_samples=2)
    root = brentq(lambda z: np.tanh(2 * z) - z, 0.5, 1.0, xtol=1e-14)
    guess = np.vstack([np.full(24, 0.05), np.full(24, -0.05)])
    found = steady_state(model, guess, method="pseudo-transient", first_step=0.5).raise_for_status()
    np.testing.assert_allclose(found.state, root * np.sign(guess), atol=1e-9)


def test_a_network_without_steady_states_is_reported():
    model = SpaceTimeNetwork(constant(-1.0), "sigmoid")
    found = steady_state(model, np.zeros(24), max_iterations=5)
    with pytest.raises(NumericalError, match="F"):
        found.raise_for_status()
    with pytest.raises(ConfigError, match="guess"):
        steady_state(model, np.zeros(3))


def test_extent_of_a_steady_set_bounded_by_its_first_mode():
    # kappa/2 (a cos + b sin) <= beta at every label: along the cosine the set reaches |a| = 2 beta/kappa.
    grid = Grid.circle(16)
    x, kappa, beta = grid.nodes.ravel(), 1.3, 0.4
    kernel = kappa * np.cos(2 * np.pi * (x[:, None] - x))
    model = SpaceTimeNetwork(Dense(grid, kernel), "relu", -beta)
    found = steady_extent(model, 2 * np.cos(2 * np.pi * (x - x[0])))
    np.testing.assert_allclose([found.low, found.high], [-2 * beta / kappa, 2 * beta / kappa], rtol=1e-6)
    assert found.width == pytest.approx(4 * beta / kappa / np.sqrt(2), rel=1e-6)
    free = steady_extent(model, np.ones(16))
    assert (free.low, free.high) == (-np.inf, np.inf)
    assert steady_extent(SpaceTimeNetwork(Dense(grid, 0 * kernel), "relu", 1.0), x + 1).empty


@pytest.mark.parametrize(("sign", "rises"), [(-1.0, False), (1.0, True)])
def test_energy_monitor_sees_whether_the_energy_ever_rose(sign, rises):
    x = GRID.nodes.ravel()
    model = SpaceTimeNetwork(Dense(GRID, sign * np.exp(-((x[:, None] - x) ** 2))), "tanh", 0.2)
    solution = integrate(model, np.cos(3 * x), (0.0, 2.0), n_steps=100, save_at=5, probes={"e": EnergyMonitor()})
    values = solution.probes["e"][1]
    assert values[-1, 0] == pytest.approx(energy(2.0, solution.y[-1], model), rel=1e-12)
    assert (values[-1, 1] > 1e-12) == rises


@pytest.mark.parametrize("method", ["newton", "pseudo-transient"])
@pytest.mark.parametrize("name", ["sigmoid", "softplus"])
def test_a_rate_that_vanishes_at_infinity_only_has_no_steady_state(name, method):
    grid = Grid.interval(12)
    model = SpaceTimeNetwork(Dense(grid, lambda x, y: 0.3 + 0.0 * x * y), name)
    found = steady_state(model, np.zeros(12), method=method)
    assert found.status is Status.NOT_CONVERGED
    with pytest.raises(NumericalError):
        found.raise_for_status()
