"""Regularisers: values written out and in the limit, gradients by Taylor remainders, sums, bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.integrate import quad

from meanfield.controls import Controls
from meanfield.diagnostics.rates import fit_rate
from meanfield.errors import ConfigError
from meanfield.regularizers import (
    DepthH1,
    DepthL2,
    DepthVariation,
    LabelSmoothness,
    Regularizer,
    Total,
    regularizer_of,
)

RNG = np.random.default_rng(11)
KNOTS = np.cumsum(RNG.uniform(0.05, 0.4, 8)) - 0.3
SHAPE = (4, 3)
WEIGHTS = RNG.uniform(0.2, 2.0, SHAPE)
LABELS = np.array([0.0, 0.3, 0.4, 1.1])
TERMS = {
    "l2": DepthL2(0.7),
    "l2, weighted": DepthL2(0.7, WEIGHTS),
    "h1": DepthH1(0.3, 1.7),
    "h1, weighted": DepthH1(0.3, 1.7, WEIGHTS[:, :1]),
    "variation": DepthVariation(0.9, 0.5),
    "variation, weighted": DepthVariation(0.9, 0.5, WEIGHTS),
    "labels": LabelSmoothness(1.1, LABELS),
    "labels, circle": LabelSmoothness(1.1, LABELS, period=1.3, weights=RNG.uniform(0.2, 2.0, 3)),
    "labels, last axis": LabelSmoothness(0.4, [0.0, 1.0, 3.0], axis=-1, weights=WEIGHTS[:, 0]),
    "sum": DepthL2(0.7) + DepthH1(0.3) + DepthVariation(0.2),
}
KINDS = ("constant", "linear")


def values(kind: str) -> np.ndarray:
    return RNG.standard_normal((len(KNOTS) - (kind == "constant"), *SHAPE))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TERMS)
def test_gradient_leaves_a_remainder_of_second_order(name, kind):
    term, at, along = TERMS[name], values(kind), values(kind)
    slope = np.sum(term.gradient(at, KNOTS, kind) * along)
    steps = 2.0 ** -np.arange(3, 14)
    rest = [abs(term.value(at + e * along, KNOTS, kind) - term.value(at, KNOTS, kind) - e * slope) for e in steps]
    assert abs(fit_rate(steps, rest).slope - 2.0) < 0.05


@pytest.mark.parametrize("name", [name for name in TERMS if "variation" not in name and name != "sum"])
@pytest.mark.parametrize("kind", KINDS)
def test_quadratic_terms_are_half_their_gradient(name, kind):
    at = values(kind)
    product = np.sum(TERMS[name].gradient(at, KNOTS, kind) * at)
    assert TERMS[name].value(at, KNOTS, kind) == pytest.approx(product / 2, rel=1e-13)


def test_equal_layers_on_the_unit_interval_are_the_sum_of_the_deep_limit():
    n, tau, alpha = 9, 0.6, 0.35
    theta = RNG.standard_normal((n, *SHAPE))
    written = n * sum(np.sum((theta[i] - theta[i - 1]) ** 2) for i in range(1, n)) + tau * np.sum(theta[0] ** 2)
    got = DepthH1(alpha, tau).value(theta, np.linspace(0, 1, n + 1))
    assert got == pytest.approx(alpha * written, rel=1e-13)


@pytest.mark.parametrize("name", ["l2", "h1", "variation", "labels"])
def test_linear_controls_have_the_integral(name):
    c = Controls(KNOTS, values("linear"), "linear")
    slope, eps = np.diff(c.values, axis=0) / np.diff(KNOTS)[:, None, None], 0.5
    steps = np.diff(KNOTS)

    def integral(f):
        return sum(quad(f, a, b, epsrel=1e-12)[0] for a, b in itertools.pairwise(KNOTS))

    expected = {
        "l2": lambda: 0.7 * integral(lambda t: np.sum(c.at(t) ** 2)),
        "h1": lambda: 0.3 * (steps @ np.sum(slope**2, axis=(1, 2)) + 1.7 * np.sum(c.values[0] ** 2)),
        "variation": lambda: 0.9 * steps @ (np.sqrt(np.sum(slope**2, axis=(1, 2)) + eps**2) - eps),
        "labels": lambda: 1.1 * integral(lambda t: np.sum(np.diff(c.at(t), axis=0) ** 2 / np.diff(LABELS)[:, None])),
    }[name]()
    assert TERMS[name].value(c.values, c.knots, "linear") == pytest.approx(expected, rel=1e-11)


def theta(t):
    return np.array([np.sin(3 * t), np.exp(-t) * t])


def slope(t):
    return np.array([3 * np.cos(3 * t), np.exp(-t) * (1 - t)])


EXACT = {
    "l2": (DepthL2(1.0), lambda t: np.sum(theta(t) ** 2), 0.0),
    "h1": (DepthH1(1.0, 0.8), lambda t: np.sum(slope(t) ** 2), 0.8 * np.sum(theta(0.2) ** 2)),
    "variation": (DepthVariation(1.0, 0.4), lambda t: np.sqrt(np.sum(slope(t) ** 2) + 0.16) - 0.4, 0.0),
}


# A constant layer stands for the middle of its interval, so the start and the ends of the quotients cost one order.
@pytest.mark.parametrize(
    ("name", "kind", "order"),
    [
        ("l2", "constant", 2),
        ("l2", "linear", 2),
        ("h1", "constant", 1),
        ("h1", "linear", 2),
        ("variation", "constant", 1),
        ("variation", "linear", 2),
    ],
)
def test_sampled_functions_have_the_integral_of_the_limit(name, kind, order):
    term, density, start = EXACT[name]
    expected = quad(density, 0.2, 1.9, epsabs=1e-13, epsrel=1e-13)[0] + start
    sizes, errors = (64, 128, 256, 512), []
    for n in sizes:
        s = np.linspace(0.0, 1.0, n + 1)
        c = Controls.sample(theta, 0.2 + 1.7 * (s + 0.1 * np.sin(2 * np.pi * s)), kind)
        errors.append(abs(term.value(c.values, c.knots, kind) - expected))
    assert abs(fit_rate(1.0 / np.array(sizes), errors).slope - order) < 0.1


def test_unequal_layers_on_a_straight_line_have_its_slope():
    rise = np.array([2.0, -1.0, 0.5])
    line = Controls.sample(lambda t: rise * t, KNOTS, "constant")
    middles = 0.5 * (KNOTS[1:] + KNOTS[:-1])
    length, square = middles[-1] - middles[0], np.sum(rise**2)
    assert DepthH1(1.0, 0.0).value(line.values, KNOTS) == pytest.approx(square * length, rel=1e-12)
    got = DepthVariation(1.0, 0.3).value(line.values, KNOTS)
    assert got == pytest.approx((np.sqrt(square + 0.09) - 0.3) * length, rel=1e-12)


def test_variation_lies_between_the_variation_and_it_less_the_smoothing():
    for eps in (1e-8, 0.1, 10.0):
        at = values("constant")
        whole = np.sqrt(np.sum(np.diff(at, axis=0) ** 2, axis=(1, 2))).sum()
        got = DepthVariation(1.0, eps).value(at, KNOTS)
        assert whole - eps * (KNOTS[-1] - KNOTS[0]) <= got <= whole
    flat = np.ones((7, 2))
    assert DepthVariation(1.0, 1e-12).value(flat, KNOTS) == 0.0
    assert not DepthVariation(1.0, 1e-12).gradient(flat, KNOTS).any()


def test_a_wave_on_the_circle_has_the_same_smoothness_wherever_it_starts():
    x = np.arange(16) / 16
    term = LabelSmoothness(1.0, x, period=1.0)
    one, other = (np.broadcast_to(np.cos(2 * np.pi * (x - s)), (3, 16)) for s in (0.0, 5 / 16))
    knots = np.array([0.0, 0.5, 0.7, 2.0])
    assert term.value(one, knots) == pytest.approx(term.value(other, knots), rel=1e-13)
    # int |d_x cos(2 pi x)|^2 = 2 pi^2, and (sin(pi h)/(pi h))^2 of it for differences.
    assert term.value(one, knots) == pytest.approx(2.0 * 2 * np.pi**2 * np.sinc(1 / 16) ** 2, rel=1e-13)


def test_layers_cut_in_three_cost_the_same_and_norms_of_controls_agree():
    c = Controls(KNOTS, values("constant"))
    fine = c.refine(3)
    assert DepthL2(2.0).value(fine.values, fine.knots) == pytest.approx(DepthL2(2.0).value(c.values, c.knots))
    assert DepthL2(1.0).value(c.values, c.knots) == pytest.approx(c.norm() ** 2, rel=1e-13)
    linear = Controls(KNOTS, values("linear"), "linear")
    assert DepthH1(1.0, 0.0).value(linear.values, KNOTS, "linear") == pytest.approx(linear.roughness() ** 2, rel=1e-13)


def test_sums_are_flat_and_nothing_is_the_empty_sum():
    total = (DepthL2(1.0) + DepthH1(2.0)) + (DepthVariation(0.1) + DepthL2(3.0))
    assert len(total.terms) == 4
    at = values("constant")
    alone = sum(term.value(at, KNOTS) for term in total.terms)
    assert total.value(at, KNOTS) == pytest.approx(alone, rel=1e-14)
    nothing = regularizer_of(None)
    assert nothing.value(at, KNOTS) == 0.0
    assert not nothing.gradient(at, KNOTS).any()
    assert isinstance(total, Regularizer)
    assert [d["regularizer"] for d in total.describe()["terms"]] == ["DepthL2", "DepthH1", "DepthVariation", "DepthL2"]


def test_one_layer_has_no_jump_but_a_start():
    at, knots = RNG.standard_normal((1, 2)), np.array([0.0, 2.0])
    assert DepthH1(1.0, 0.5).value(at, knots) == pytest.approx(0.5 * np.sum(at**2))
    np.testing.assert_allclose(DepthH1(1.0, 0.5).gradient(at, knots), at)
    assert DepthVariation(1.0).value(at, knots) == 0.0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DepthL2(-1.0), "strength must be >= 0, got -1.0"),
        (lambda: DepthL2(np.nan), "strength must be finite, got nan"),
        (lambda: DepthL2(1.0, [-1.0]), "weights must be >= 0, got -1.0"),
        (lambda: DepthH1(1.0, tau=-0.5), "tau must be >= 0, got -0.5"),
        (lambda: DepthVariation(1.0, 0.0), "smoothing must be > 0, got 0.0"),
        (lambda: LabelSmoothness(1.0, [1.0]), "labels must be at least two strictly increasing"),
        (lambda: LabelSmoothness(1.0, LABELS, period=1.0), "period must exceed the span of the labels 1.1, got 1.0"),
        (lambda: LabelSmoothness(1.0, LABELS, axis=0.5), "axis must be an integer, got 0.5"),
        (lambda: LabelSmoothness(1.0, LABELS, axis=2).value(np.ones((7, 4, 3)), KNOTS), "axis 2 is none of parameters"),
        (lambda: LabelSmoothness(1.0, LABELS, axis=1).value(np.ones((7, 4, 3)), KNOTS), "length 3, but there are 4"),
        (lambda: DepthL2(1.0, np.ones(5)).value(np.ones((7, 4, 3)), KNOTS), r"weights has shape \(5,\)"),
        (lambda: DepthL2(1.0).value(np.ones(8), KNOTS), r"shape \(8,\), but 8 knots need 7 values \(constant\)"),
        (lambda: DepthL2(1.0).value(np.ones(7), KNOTS, "cubic"), "interpolation must be one of constant, linear"),
        (lambda: DepthL2(1.0).value(np.ones(7), KNOTS[::-1]), "knots must be at least two strictly increasing"),
        (lambda: DepthL2(1.0) + 3.0, "regularizer must be one such as"),
        (lambda: Total((DepthL2,)), "regularizer must be one such as"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
