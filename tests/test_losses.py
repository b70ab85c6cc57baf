"""Losses and readouts: values written out, gradients by differences, no overflow, the curvature bound."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.diagnostics.rates import fit_rate
from meanfield.errors import ConfigError
from meanfield.losses import CrossEntropy, Logistic, Loss, LpDistance, Readout, Squared

RNG = np.random.default_rng(4)
N = 7
LOSSES = {
    "squared": Squared(RNG.standard_normal(N)),
    "squared, three outputs": Squared(RNG.standard_normal((3, N))),
    "lp, p = 3, two outputs": LpDistance(RNG.standard_normal((2, N)), 3.0),
    "lp, p = 2": LpDistance(RNG.standard_normal(N), 2.0),
    "logistic": Logistic(np.array([1, -1, 1, 1, -1, -1, 1])),
    "cross-entropy": CrossEntropy(np.array([0, 2, 1, 1, 0, 3, 2])),
}


def outputs(loss, scale=1.0):
    return scale * RNG.standard_normal((loss.n_outputs, loss.n_samples))


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_leaves_a_remainder_of_second_order(name):
    loss = LOSSES[name]
    f, g = outputs(loss), outputs(loss)
    slope = np.sum(loss.gradient(f) * g)
    steps = 2.0 ** -np.arange(4, 14)
    rest = [abs(loss.value(f + e * g) - loss.value(f) - e * slope) for e in steps]
    assert abs(fit_rate(steps, rest).slope - 2.0) < 0.05


@pytest.mark.parametrize("name", [name for name in LOSSES if np.isfinite(LOSSES[name].curvature)])
def test_curvature_bounds_the_remainder_and_is_attained(name):
    loss = LOSSES[name]

    def curvature(f, g):
        return 2 * (loss.value(f + g) - loss.value(f) - np.sum(loss.gradient(f) * g)) / np.sum(g * g)

    found = [curvature(outputs(loss, RNG.uniform(0, 3)), outputs(loss, 0.05)) for _ in range(500)]
    assert max(found) <= loss.curvature * (1 + 1e-9)
    # The worst point and direction: two classes alike, the others far below, and their outputs moved apart.
    f, g = np.zeros((2, loss.n_outputs, N))
    f[2:] = -40.0
    g[:2] = np.array([[1e-2], [-1e-2]])[: loss.n_outputs]
    assert curvature(f, g) == pytest.approx(loss.curvature, rel=1e-4)


# A sample infinitely far on its side has no logistic loss: infinities are for the others.
@pytest.mark.parametrize(
    ("name", "bad"), [(name, np.nan) for name in LOSSES] + [(name, np.inf) for name in LOSSES if name != "logistic"]
)
def test_outputs_that_are_not_finite_show_without_a_warning(name, bad):
    loss = LOSSES[name]
    f = outputs(loss)
    f[0, 1] = bad
    assert not np.isfinite(loss.gradient(f)).all()
    assert not np.isfinite(loss.value(f))


def test_values_written_out():
    f = outputs(LOSSES["cross-entropy"])
    p = np.exp(f) / np.exp(f).sum(axis=0)
    expected = -np.mean(np.log([p[c, k] for k, c in enumerate(LOSSES["cross-entropy"].labels)]))
    assert LOSSES["cross-entropy"].value(f) == pytest.approx(expected, rel=1e-13)
    f = outputs(LOSSES["logistic"])
    expected = np.mean(np.log1p(np.exp(-LOSSES["logistic"].labels * f[0])))
    assert LOSSES["logistic"].value(f) == pytest.approx(expected, rel=1e-13)
    three = LOSSES["squared, three outputs"]
    f = outputs(three)
    expected = sum(np.sum((f[:, k] - three.y[:, k]) ** 2) for k in range(N)) / (2 * N)
    assert three.value(f) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("p", [1.2, 1.5, 2.0, 3.0, 4.7])
def test_lp_distance_written_out_with_the_curvature_it_has(p):
    y = RNG.standard_normal((2, N))
    loss, f = LpDistance(y, p), RNG.standard_normal((2, N))
    assert isinstance(loss, Loss)
    by_sample = [np.linalg.norm(f[:, k] - y[:, k], p) ** p for k in range(N)]
    assert loss.value(f) == pytest.approx(np.mean(by_sample) / p, rel=1e-13)
    h = 1e-6
    for c in range(2):
        e = np.zeros((2, N))
        e[c, 3] = h
        difference = (loss.value(f + e) - loss.value(f - e)) / (2 * h)
        assert loss.gradient(f)[c, 3] == pytest.approx(difference, rel=1e-6, abs=1e-8)
    # At the targets there is no force, and for p != 2 no bound of the curvature: see it grow at one end or the other.
    assert not loss.gradient(y).any()
    size = {True: 1e-8, False: 1e8}[p < 2.0]
    quotient = 2 * loss.value(y + size) / np.sum(size**2 * np.ones((2, N)))
    assert quotient * N > 40 if p != 2.0 else quotient <= loss.curvature * (1 + 1e-12)
    assert np.isinf(loss.curvature) == (p != 2.0)


def test_lp_distance_with_exponent_two_is_the_squared_distance():
    lp = LOSSES["lp, p = 2"]
    squared, f = Squared(lp.y), outputs(lp)
    assert lp.value(f) == pytest.approx(squared.value(f), rel=1e-14)
    np.testing.assert_allclose(lp.gradient(f), squared.gradient(f), rtol=1e-14)


def test_readout_gradients_are_those_of_the_outputs():
    read = Readout(RNG.standard_normal((3, 4)), RNG.standard_normal(3), trained=True)
    x, g = RNG.standard_normal((4, N)), RNG.standard_normal((3, N))
    np.testing.assert_allclose(read.forward(x), np.einsum("cd,dn->cn", read.p, x) + read.c[:, None], rtol=1e-13)
    dx, dp, dc = (RNG.standard_normal(s) for s in ((4, N), (3, 4), (3,)))
    # f is bilinear in (x, P) and linear in c: its derivative along directions, written out, against the vjp.
    moved = read.p @ dx + dp @ x + dc[:, None]
    gx, gp, gc = read.vjp(x, g)
    assert np.sum(gx * dx) + np.sum(gp * dp) + gc @ dc == pytest.approx(np.sum(g * moved), rel=1e-12)
    np.testing.assert_array_equal(Readout.identity(4).forward(x), x)


def test_loss_of_a_readout_has_a_remainder_of_second_order_in_each_parameter():
    loss, x = LOSSES["cross-entropy"], RNG.standard_normal((2, N))
    start, along = ([RNG.standard_normal(s) for s in ((2, N), (4, 2), (4,))] for _ in range(2))
    gradients = Readout(start[1], start[2]).vjp(x, loss.gradient(Readout(start[1], start[2]).forward(x)))
    steps = 2.0 ** -np.arange(4, 14)
    for k in range(3):
        at = [x, *start[1:]]

        def value(e, k=k, at=at):
            moved = [a + e * along[j] if j == k else a for j, a in enumerate(at)]
            return loss.value(Readout(moved[1], moved[2]).forward(moved[0]))

        slope = np.sum(gradients[k] * along[k])
        rest = [abs(value(e) - value(0.0) - e * slope) for e in steps]
        assert abs(fit_rate(steps, rest).slope - 2.0) < 0.05


def test_two_classes_of_cross_entropy_are_the_logistic_loss():
    labels = np.array([0, 1, 1, 0, 1])
    f = RNG.standard_normal((1, 5))
    two, one = CrossEntropy(labels), Logistic(2 * labels - 1)
    both = np.vstack([np.zeros_like(f), f])
    assert two.value(both) == pytest.approx(one.value(f), rel=1e-13)
    np.testing.assert_allclose(two.gradient(both)[1:], one.gradient(f), rtol=1e-13)
    np.testing.assert_array_equal(2 * two.predict(both) - 1, one.predict(f))


@pytest.mark.parametrize("name", ["logistic", "cross-entropy"])
def test_huge_outputs_do_not_overflow(name):
    loss = LOSSES[name]
    f = outputs(loss)
    for scale in (1e3, 1e300):
        value, gradient = loss.value(scale * f), loss.gradient(scale * f)
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() <= 1 / N + 1e-15
        # Far out the loss grows linearly.
        assert value / scale == pytest.approx(loss.value(1e6 * f) / 1e6, rel=1e-4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Squared(np.zeros((2, 3, 4))), r"y has shape \(2, 3, 4\)"),
        (lambda: Squared([]), r"y has shape \(0,\)"),
        (lambda: Squared([1.0, np.nan]), r"y must be finite, got nan at index \(1,\)"),
        (lambda: Logistic([1, 0, -1]), "labels must be -1 or 1, got 0.0"),
        (lambda: Logistic([]), "labels must be -1 or 1, got none"),
        (lambda: CrossEntropy([0.0, 1.0]), "labels must be a vector of integers, got float64"),
        (lambda: CrossEntropy([0, 3], n_classes=3), r"labels must lie in 0 .. 2, got 0 .. 3"),
        (lambda: CrossEntropy([0, 0]), "n_classes must be at least 2, got 1"),
        (lambda: CrossEntropy([0, 1], n_classes=0), "n_classes must be a positive integer, got 0"),
        (lambda: LOSSES["squared"].predict(np.zeros((1, 3))), "predict needs a loss of classes"),
        (lambda: LOSSES["lp, p = 2"].predict(np.zeros((1, 3))), "predict needs a loss of classes"),
        (lambda: LpDistance([1.0], 1.0), "p must be > 1, got 1.0"),
        (lambda: LpDistance([]), r"y has shape \(0,\)"),
        (lambda: Readout(np.ones(3)), r"p has shape \(3,\), expected \(any, any\)"),
        (lambda: Readout(np.ones((0, 3))), r"p has shape \(0, 3\), expected \(C, d\)"),
        (lambda: Readout(np.ones((2, 3)), np.ones(3)), r"c has shape \(3,\), but p has 2 rows"),
        (lambda: Readout(np.ones((2, 3)), trained=1), "trained must be True or False, got 1"),
        (lambda: Readout.identity(2).forward(np.ones((3, 5))), r"x has shape \(3, 5\), expected \(2, n\)"),
        (lambda: Readout.identity(2).vjp(np.ones((2, 5)), np.ones((2, 4))), r"shapes \(2, 5\) and \(2, 4\)"),
    ],
)
def test_bad_targets_and_readouts_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
