"""Every scheme has its order on a smooth, non-autonomous, nonlinear problem."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import RK45, solve_ivp

from meanfield import ConfigError, Scheme, integrate
from meanfield.schemes import DORMAND_PRINCE, RK4, SCHEMES, StepGrid, scheme


def rate(t, y):
    return np.array([-y[0] * y[1] + np.cos(2 * t), y[0] ** 2 - y[1]])


REFERENCE = solve_ivp(rate, (0, 6), [1.0, 0.5], method="DOP853", rtol=1e-13, atol=1e-15).y[:, -1]


def orders(chosen, n_coarse, n_levels=5):
    counts = n_coarse * 2 ** np.arange(n_levels)
    finals = [integrate(rate, [1.0, 0.5], (0.0, 6.0), scheme=chosen, n_steps=int(n)).final for n in counts]
    errors = [np.abs(final - REFERENCE).max() for final in finals]
    errors = np.array(errors)
    usable = errors[1:] > 1e3 * np.finfo(float).eps
    slopes = np.log2(errors[:-1] / errors[1:])[usable]
    return float(np.median(slopes[-4:])), errors


@pytest.mark.parametrize(
    ("name", "n"), [("euler", 256), ("heun", 64), ("rk4", 32), ("ssprk2", 64), ("ssprk3", 32), ("dormand_prince", 128)]
)
def test_scheme_has_its_nominal_order(name, n):
    chosen = scheme(name)
    order, errors = orders(chosen, n)
    assert abs(order - chosen.order) <= 0.1, (name, order, errors)
    assert errors[-1] < 2e-3, errors


def test_a_wrong_coefficient_loses_the_order():
    wrong = Scheme("rk4 with a planted error", RK4.a, RK4.b + np.array([0.01, -0.01, 0, 0]), RK4.c, 4)
    order, errors = orders(wrong, 32)
    assert abs(order - 4) > 0.5, (order, errors)


def test_dormand_prince_table_agrees_with_scipy():
    np.testing.assert_allclose(DORMAND_PRINCE.a[:6, :5], RK45.A, rtol=1e-15)
    np.testing.assert_allclose(DORMAND_PRINCE.b[:6], RK45.B, rtol=1e-15)
    np.testing.assert_allclose(np.abs(DORMAND_PRINCE.b_err), np.abs(RK45.E), rtol=1e-14)
    np.testing.assert_allclose(DORMAND_PRINCE.interpolant, RK45.P, rtol=1e-14)
    assert DORMAND_PRINCE.adaptive
    assert not RK4.adaptive


def test_unknown_scheme_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'heun'"):
        scheme("huen")


def test_implicit_and_inconsistent_tableaux_are_refused():
    with pytest.raises(ConfigError, match="strictly lower"):
        Scheme("implicit", np.ones((1, 1)), np.ones(1), np.ones(1), 1)
    with pytest.raises(ConfigError, match="sum"):
        Scheme("bad", np.zeros((1, 1)), np.array([0.9]), np.zeros(1), 1)


def test_every_scheme_is_consistent():
    for s in SCHEMES.values():
        assert abs(s.b.sum() - 1) < 1e-14
        if s.b_err is not None:
            assert abs(s.b_err.sum()) < 1e-14


def test_step_grid_lands_on_breakpoints_and_stages_stay_inside():
    grid = StepGrid(np.array([0.1, 0.7, 1.0]), np.array([7, 2]))
    assert grid.n_steps == 9
    assert [grid.time(k) for k in (0, 7, 9)] == [0.1, 0.7, 1.0]
    times, lengths = grid.steps(RK4, 5, 4)
    assert times.shape == (4, 4)
    assert times[1].max() < 0.7 <= times[2].min()
    assert times[3].max() < 1.0
    np.testing.assert_allclose(times[:, 3] - times[:, 0], lengths, rtol=1e-12)
    np.testing.assert_allclose(lengths, [0.6 / 7, 0.6 / 7, 0.15, 0.15])
