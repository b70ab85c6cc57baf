"""Losses: values written out, gradients by differences, no overflow, the curvature bound."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.diagnostics.rates import fit_rate
from meanfield.errors import ConfigError
from meanfield.losses import CrossEntropy, Logistic, Squared

RNG = np.random.default_rng(4)
N = 7
LOSSES = {
    "squared": Squared(RNG.standard_normal(N)),
    "squared, three outputs": Squared(RNG.standard_normal((3, N))),
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


@pytest.mark.parametrize("name", LOSSES)
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
    ],
)
def test_bad_targets_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
