"""Paths of optima over lengths and penalties: the same optima for less work, folds, and what parameters become."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from meanfield.controls import Controls
from meanfield.errors import ConfigError, NumericalError
from meanfield.exact_control import TerminalMultiplicative
from meanfield.integration import integrate
from meanfield.learning.continuation import continuation, rescaled
from meanfield.learning.quasi_newton import minimise
from meanfield.learning.training import Training
from meanfield.losses import Readout, Squared
from meanfield.models.residual import ResidualNetwork
from meanfield.regularizers import DepthL2
from meanfield.solution import Status
from meanfield.velocities import Velocity

X = np.array([[0.8, -0.6, 0.1], [0.2, 0.7, -0.9]])
Y = np.array([[0.9, -0.2, -0.5], [-0.5, 0.9, -0.4]])
LENGTHS = 2.0 ** np.arange(1, 6)


def plane(length: float, weight: float = 0.02, n: int = 8) -> Training:
    """Three points of the plane, x' = W tanh x + b."""
    knots = np.linspace(0.0, length, n + 1)
    velocity = Velocity.inside("tanh", Controls(knots, np.zeros((n, 2, 2))), Controls(knots, np.zeros((n, 2))))
    return Training(ResidualNetwork(velocity, 3), X, Squared(Y), (0.0, length), n,
                    regularizers=dict.fromkeys("wb", DepthL2(weight)))  # fmt: skip


def multiplicative(length: float) -> Training:
    """Half the objective of `TerminalMultiplicative` with x0 = 0.05, y = 3, lam = 1: x' = w x, Runge-Kutta steps."""
    n = 12
    knots = np.linspace(0.0, length, n + 1)
    velocity = Velocity.inside("identity", Controls(knots, np.zeros((n, 1, 1))), 0.0)
    return Training(ResidualNetwork(velocity, 1), [[0.05]], Squared([3.0]), (0.0, length), n, "rk4",
                    regularizers={"w": DepthL2(0.5)}, trained=("w",))  # fmt: skip


@pytest.mark.parametrize(("predictor", "order"), [("secant", 1), ("secant", -1), ("last", -1), ("own", 1)])
def test_optima_are_those_of_cold_starts_in_both_directions(predictor, order):
    lengths = LENGTHS[::order]
    found = continuation(plane, lengths, predictor=predictor, tolerance=1e-10).raise_for_status()
    np.testing.assert_array_equal(found.forth.values, lengths)
    for length, optimum in zip(lengths, found.forth.optima, strict=True):
        cold = minimise(plane(length), tolerance=1e-10).raise_for_status()
        assert optimum.value == pytest.approx(cold.value, rel=1e-12)
    assert found.back is None
    assert found.best == found.forth.optima
    assert found.work == int(found.forth.evaluations.sum()) * 8


def test_warm_starts_take_less_work_than_cold_ones():
    work = {
        predictor: continuation(plane, 4.0 * 1.2 ** np.arange(10), predictor=predictor).raise_for_status().work
        for predictor in ("secant", "last", "own")
    }
    assert work["last"] < 0.9 * work["own"]
    assert work["secant"] < 0.9 * work["own"]


def test_penalties_are_a_path_as_lengths_are():
    weights = 0.04 / LENGTHS
    over_penalties = continuation(lambda lam: plane(1.0, lam), weights, tolerance=1e-11).raise_for_status()
    over_lengths = continuation(lambda length: plane(length, 0.04), LENGTHS, tolerance=1e-11).raise_for_status()
    np.testing.assert_allclose(over_penalties.forth.energies, over_lengths.forth.energies, rtol=1e-11)


def test_a_fold_is_followed_on_both_sides():
    lengths = np.array([1.0, 1.75, 1.9, 2.0, 2.1, 3.0])
    found = continuation(multiplicative, lengths, back=True, predictor="last", tolerance=1e-10).raise_for_status()
    exact = [[p for p in TerminalMultiplicative(0.05, 3.0, 1.0, t).points() if p.stable] for t in lengths.tolist()]
    assert {len(points) for points in exact} == {1, 2}
    for points, there, back, best in zip(
        exact, found.forth.optima, reversed(found.back.optima), found.best, strict=True
    ):
        assert 2 * there.value == pytest.approx(points[0].energy, rel=2e-4)
        assert 2 * back.value == pytest.approx(points[-1].energy, rel=2e-4)
        assert 2 * best.value == pytest.approx(min(p.energy for p in points), rel=2e-4)
    bistable = np.array([len(points) == 2 for points in exact])
    assert (np.abs(found.gaps[bistable]) > 1e-2).all()
    assert np.abs(found.gaps[~bistable]).max() < 1e-10
    assert found.work == found.forth.work + found.back.work


def two_layers(length: float) -> Training:
    """Three points of the plane, x' = V tanh(W x + b) + c: of degree one in V and c, of no degree in all."""
    knots, rng = np.linspace(0.0, length, 6), np.random.default_rng(2)
    parts = [Controls(knots, rng.standard_normal((5, *shape))) for shape in ((2, 3), (3, 2), (3,), (2,))]
    return Training(ResidualNetwork(Velocity.two_layer("tanh", *parts), 3), X, Squared(Y), (0.0, length), 5,
                    trained=("v", "c"))  # fmt: skip


def end(problem: Training, flat) -> np.ndarray:
    """Last state."""
    model = problem.unpack(flat)[0]
    return integrate(model, problem.x, problem.t_span, scheme="euler", n_steps=problem.n_steps).y[-1]


def test_parameters_of_degree_one_go_the_same_way_at_another_length():
    short, long = two_layers(2.0), two_layers(6.0)
    flat = short.start() + 0.3
    moved = rescaled(long, short, flat)
    np.testing.assert_allclose(end(long, moved), end(short, flat), rtol=1e-13)
    # int |theta'|^2 = (T/T') int |theta|^2.
    assert moved @ moved == pytest.approx(flat @ flat / 3.0, rel=1e-13)


def test_parameters_of_degree_two_keep_their_norm_at_another_length():
    def relu(length: float) -> Training:
        problem = replace(two_layers(length), trained=("v", "w", "b"))
        velocity = problem.model.velocity
        parts = [velocity.parameters[name] for name in ("v", "w", "b")]
        return replace(problem, model=ResidualNetwork(Velocity.two_layer("relu", *parts), 3))

    short, long = relu(2.0), relu(6.0)
    flat = short.start()
    moved = rescaled(long, short, flat, degree=2.0)
    np.testing.assert_allclose(end(long, moved), end(short, flat), rtol=1e-13)
    assert moved @ moved == pytest.approx(flat @ flat, rel=1e-13)
    np.testing.assert_allclose(rescaled(long, short, flat, degree=None), np.sqrt(3.0) * flat, rtol=1e-13)


def test_parameters_that_do_not_depend_on_depth_and_readouts_are_carried():
    def shared(length: float) -> Training:
        network = ResidualNetwork(Velocity.inside("tanh", np.array([[0.2, -0.1], [0.4, 0.3]]), np.array([0.1, 0.2])), 3)
        return Training(network, X, Squared(Y), (0.0, length), 5, readout=Readout(np.eye(2), 0.0, trained=True))

    short, long = shared(1.0), shared(4.0)
    flat = short.start() + np.linspace(0.0, 0.5, len(short.start()))
    moved = rescaled(long, short, flat)
    np.testing.assert_allclose(end(long, moved), end(short, flat), rtol=1e-13)
    before, after = short.unpack(flat)[1], long.unpack(moved)[1]
    np.testing.assert_allclose(after.p, before.p, rtol=1e-15)
    np.testing.assert_allclose(after.c, before.c, rtol=1e-15)


def test_a_point_that_did_not_converge_says_so_and_the_path_goes_on():
    found = continuation(plane, LENGTHS, max_iterations=1, tolerance=1e-12, predictor="last")
    assert [o.status for o in found.forth.optima] == [Status.MAX_STEPS] * len(LENGTHS)
    # Each starts from the last, whose error it keeps and whose penalty falls.
    assert (np.diff(found.forth.energies) < 0.0).all()
    with pytest.raises(NumericalError, match=r"at 2\.0: max_iterations reached"):
        found.raise_for_status()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: continuation(plane, [1.0, 3.0, 2.0]), "values must increase or decrease"),
        (lambda: continuation(plane, []), "values must increase or decrease"),
        (lambda: continuation(plane, [-1.0, 1.0]), "values must be > 0 .* got -1.0"),
        (lambda: continuation(plane, [1.0], predictor="tangent"), "predictor"),
        (lambda: continuation(plane, [1.0], degree=0.0), "degree must be > 0, got 0.0"),
        (lambda: continuation(plane, [1.0]).gaps, "set back=True"),
        (lambda: rescaled(plane(1.0, n=4), plane(1.0), plane(1.0).start()), "trained parameters differ"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_parameters_that_depend_on_depth_in_one_problem_only_are_refused():
    spread = plane(1.0, n=1)
    constant = ResidualNetwork(Velocity.inside("tanh", np.zeros((2, 2)), np.zeros(2)), 3)
    other = replace(spread, model=constant, regularizers={})
    with pytest.raises(ConfigError):
        rescaled(other, spread, spread.start())
