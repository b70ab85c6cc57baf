"""The time loop: landing, saving, probing, events, guards, bad arguments."""

from __future__ import annotations

import os
import re
import signal
import threading

import numpy as np
import pytest

from meanfield import ConfigError, FunctionModel, NumericalError, Probe, Status, integrate, steps
from meanfield.schemes import SCHEMES

DECAY = FunctionModel(lambda t, y: -y, (2,))
Y0 = np.array([1.0, -2.0])


def test_adaptive_error_follows_the_tolerance():
    def rate(t, y):
        return np.array([y[1], -y[0] + 0.3 * np.sin(2 * t)])

    exact = integrate(rate, [1.0, 0.0], (0.0, 20.0), scheme="rk4", n_steps=200_00).final
    errors = [
        np.abs(integrate(rate, [1.0, 0.0], (0, 20), rtol=r, atol=r).final - exact).max() for r in (1e-5, 1e-7, 1e-9)
    ]
    assert errors[0] < 1e-3
    assert errors[1] < errors[0] / 20
    assert errors[2] < errors[1] / 20


def test_dense_output_is_fourth_order_accurate():
    times = np.linspace(0, 3, 61)
    solution = integrate(DECAY, Y0, (0.0, 3.0), rtol=1e-9, atol=1e-12, save_at=times)
    np.testing.assert_array_equal(solution.t, times)
    np.testing.assert_allclose(solution.y, np.exp(-times)[:, None] * Y0, atol=2e-8)


@pytest.mark.parametrize("name", SCHEMES)
def test_saving_and_probing_never_change_the_trajectory(name):
    plain = integrate(DECAY, Y0, (0.0, 1.5), scheme=name, n_steps=30)

    def spoil(t, y, model):
        y[:] = 1e9
        return 0.0

    watched = integrate(
        DECAY,
        Y0,
        (0.0, 1.5),
        scheme=name,
        n_steps=30,
        save_at=[0.5, 1.0],
        probes={"a": spoil, "b": Probe(spoil, every=7)},
    )
    np.testing.assert_array_equal(plain.final, watched.final)
    np.testing.assert_array_equal(watched.t, [0.5, 1.0])
    np.testing.assert_allclose(watched.probes["b"][0], np.array([0, 7, 14, 21, 28, 30]) * 0.05)


def test_adaptive_saving_never_changes_the_trajectory():
    plain = integrate(DECAY, Y0, (0.0, 1.5))
    watched = integrate(DECAY, Y0, (0.0, 1.5), save_at=17, probes={"n": lambda t, y, m: y @ y})
    np.testing.assert_array_equal(plain.final, watched.final)
    assert plain.stats["n_steps"] == watched.stats["n_steps"]
    t, norms = watched.probes["n"]
    np.testing.assert_allclose(norms, 5 * np.exp(-2 * t), rtol=1e-5)


def test_steps_land_on_breakpoints_and_see_the_left_value_there():
    def rate(t, y):
        return np.array([1.0 if t < 0.3 else 5.0])

    model = FunctionModel(rate, (1,), breakpoints=[0.3])
    for name in SCHEMES:
        final = integrate(model, [0.0], (0.0, 1.0), scheme=name, dt=0.1).final[0]
        assert abs(final - 3.8) < 1e-13, (name, final)
    adaptive = integrate(model, [0.0], (0.0, 1.0), rtol=1e-10)
    assert abs(adaptive.final[0] - 3.8) < 1e-12
    assert adaptive.final_time == 1.0


def test_steps_visible_loop_is_integrate():
    seen = list(steps(DECAY, Y0, (0.0, 1.0), scheme="heun", n_steps=9))
    assert [s.number for s in seen] == list(range(1, 10))
    assert seen[-1].t == 1.0
    np.testing.assert_array_equal(seen[-1].y, integrate(DECAY, Y0, (0.0, 1.0), scheme="heun", n_steps=9).final)
    assert sum(1 for _ in steps(DECAY, Y0, (0.0, 1.0))) == integrate(DECAY, Y0, (0.0, 1.0)).stats["n_steps"]


def test_event_is_located_on_the_dense_output():
    solution = integrate(DECAY, Y0, (0.0, 9.0), rtol=1e-10, atol=1e-12, stop=lambda t, y, m: y[0] - 0.25)
    assert solution.status is Status.EVENT
    assert abs(solution.final_time - np.log(4)) < 1e-8
    assert abs(solution.final[0] - 0.25) < 1e-9
    assert solution.t[-1] == solution.final_time
    assert solution.raise_for_status() is solution


def test_event_of_a_fixed_step_ends_at_the_step():
    solution = integrate(DECAY, Y0, (0.0, 9.0), dt=0.5, stop=lambda t, y, m: bool(y[0] < 0.25))
    assert solution.status is Status.EVENT
    assert solution.final_time == 1.5


def test_accumulating_probe_sees_every_step():
    class Count:
        def init(self, t, y, model):
            self.n, self.total = 0, 0.0

        def update(self, t, y, model):
            self.n += 1
            self.total += y[0]

        def value(self):
            return [self.n, self.total]

        def state(self):
            return {"n": np.array(self.n), "total": np.array(self.total)}

        def restore(self, state):
            self.n, self.total = int(state["n"]), float(state["total"])

    solution = integrate(DECAY, Y0, (0.0, 1.0), scheme="euler", n_steps=10, probes={"count": Count()})
    np.testing.assert_allclose(solution.probes["count"][1][-1], [10, sum(0.9**k for k in range(1, 11))])


def test_blow_up_ends_with_a_status_that_says_where():
    with np.errstate(over="ignore", invalid="ignore"):
        solution = integrate(lambda t, y: y**2, [1.0], (0.0, 2.0), save_at=200)
    assert solution.status is Status.STEP_TOO_SMALL
    assert abs(solution.final_time - 1.0) < 1e-5
    with pytest.raises(NumericalError, match=r"dt_min.*t=(0\.99|1\.00).*last good frame"):
        solution.raise_for_status()


def test_fixed_steps_stop_at_the_last_finite_state():
    with np.errstate(over="ignore", invalid="ignore"):
        solution = integrate(lambda t, y: y**3, [1.0], (0.0, 50.0), scheme="euler", dt=0.5)
    assert solution.status is Status.NONFINITE
    assert np.isfinite(solution.final).all()
    with pytest.raises(NumericalError, match=r"t=.*last good frame"):
        solution.raise_for_status()


def test_max_steps_is_a_status():
    solution = integrate(DECAY, Y0, (0.0, 1.0), n_steps=100, max_steps=7)
    assert solution.status is Status.MAX_STEPS
    assert solution.stats["n_steps"] == 7
    with pytest.raises(NumericalError, match="max_steps = 7"):
        solution.raise_for_status()


def test_ctrl_c_ends_between_steps():
    calls = []
    # A shell may have started the tests with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def rate(t, y):
        calls.append(t)
        if len(calls) == 50:
            os.kill(os.getpid(), signal.SIGINT)
        return -y

    assert threading.current_thread() is threading.main_thread()
    solution = integrate(rate, Y0, (0.0, 1.0), scheme="euler", n_steps=10_000)
    assert solution.status is Status.INTERRUPTED
    assert 40 < solution.stats["n_steps"] < 10_000
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def test_empty_interval_returns_the_start():
    for keywords in ({}, {"n_steps": 4}):
        solution = integrate(DECAY, Y0, (1.0, 1.0), **keywords)
        np.testing.assert_array_equal(solution.final, Y0)
        assert solution.status is Status.FINISHED


BAD = [
    ({"dt": float("nan")}, ConfigError, r"dt.*finite.*nan"),
    ({"dt": 0}, ConfigError, r"dt must be > 0, got 0"),
    ({"dt": -1}, ConfigError, r"dt must be > 0, got -1"),
    ({"t_span": (1.0, 0.5), "dt": 0.1}, ConfigError, r"0\.5.*1\.0"),
    ({"n_steps": 0}, ConfigError, "n_steps must be a positive integer"),
    ({"n_steps": 2.5}, ConfigError, "n_steps must be a positive integer"),
    ({"n_steps": True}, ConfigError, "n_steps.*bool"),
    ({"y0": [1.0, np.inf]}, ConfigError, r"y0.*finite.*\(1,\)"),
    ({"y0": [1.0, 2.0j]}, ConfigError, "y0.*complex"),
    ({"y0": [1.0, 2.0, 3.0]}, ConfigError, r"\(3,\).*\(2,\)"),
    ({"dt": 0.3}, ConfigError, r"dt = 0\.3 does not divide.*0\.333.*0\.25"),
    ({"dt": 0.25, "save_at": [0.3]}, ConfigError, r"0\.3 is not on the step grid.*0\.25 and 0\.5"),
    ({"save_at": [0.5, 0.5]}, ConfigError, "increase strictly"),
    ({"save_at": [0.5, 1.5]}, ConfigError, "within"),
    ({"dt": 0.1, "n_steps": 10}, ConfigError, "not both"),
    ({"dt": 0.1, "rtol": 1e-3}, ConfigError, "rtol"),
    ({"scheme": "rk4"}, ConfigError, "no error estimate"),
    ({"scheme": "rk5", "dt": 0.1}, ConfigError, "unknown scheme"),
    ({"probes": {"y": lambda t, y, m: 0.0}}, ConfigError, "'y' is taken"),
    ({"probes": {"a b": lambda t, y, m: 0.0}}, ConfigError, "identifier"),
    ({"model": 3}, ConfigError, "callable"),
]


@pytest.mark.parametrize(("change", "error", "words"), BAD, ids=[re.sub(r"\W+", " ", str(b[0]))[:40] for b in BAD])
def test_bad_arguments_are_refused(change, error, words):
    arguments = {"model": DECAY, "y0": Y0, "t_span": (0.0, 1.0)} | change
    with pytest.raises(error, match=words):
        integrate(arguments.pop("model"), arguments.pop("y0"), arguments.pop("t_span"), **arguments)


def test_rate_that_is_nan_at_the_start_raises_before_the_first_step():
    with pytest.raises(NumericalError, match=r"t=0\.0.*step 0.*component \(1,\)"):
        integrate(lambda t, y: np.array([1.0, np.nan]), Y0, (0.0, 1.0))


def test_rate_of_wrong_shape_names_both_shapes():
    with pytest.raises(ConfigError, match=r"\(3,\).*\(2,\)"):
        integrate(lambda t, y: np.zeros(3), Y0, (0.0, 1.0), dt=0.1)
