"""Distances over depth against closed forms, quadrature and brute force over couplings."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.integrate import quad

from meanfield.controls import Controls
from meanfield.diagnostics.depth_distance import free_distance, tl2_distance, tl_sup_distance
from meanfield.diagnostics.rates import observed_order
from meanfield.errors import ConfigError, NumericalError

RNG = np.random.default_rng(31)


def uneven(n: int, *shape: int, kind: str = "constant") -> Controls:
    knots = np.append(np.cumsum(RNG.uniform(0.2, 1.0, n)), 0.0)
    knots = np.sort(knots) / knots.max()
    return Controls(knots, RNG.standard_normal((n + (kind == "linear"), *shape)), kind)


def test_starts_of_a_straight_line_are_off_by_a_layer_over_root_three():
    # int_{i/n}^{(i+1)/n} (t - i/n)^2 = 1/(3 n^3): the distance is |slope|/(sqrt(3) n), the supremum |slope|/n.
    slope = np.array([2.0, -1.0])
    for n in (1, 7, 50):
        layers = Controls.layers(lambda t: t * slope, np.linspace(0.0, 1.0, n + 1))
        for limit in (lambda t: t * slope, Controls([0.0, 1.0], [0.0 * slope, slope], "linear")):
            assert tl2_distance(layers, limit) == pytest.approx(np.sqrt(5.0 / 3.0) / n, rel=1e-13)
            assert tl_sup_distance(layers, limit) == pytest.approx(np.sqrt(5.0) / n, rel=1e-13)


@pytest.mark.parametrize("kinds", list(itertools.product(("constant", "linear"), repeat=2)))
def test_distances_of_controls_agree_with_quadrature(kinds):
    first, second = uneven(5, 2, 3, kind=kinds[0]), uneven(7, 2, 3, kind=kinds[1])
    cuts = np.unique(np.concatenate([first.knots, second.knots]))
    square = sum(
        quad(lambda t: float(((first.at(t) - second.at(t)) ** 2).sum()), a, b)[0] for a, b in itertools.pairwise(cuts)
    )
    assert tl2_distance(first, second) == pytest.approx(np.sqrt(square), rel=1e-12)
    assert tl2_distance(first, second) == tl2_distance(second, first)
    fine = np.linspace(0.0, 1.0, 20_001)
    sampled = np.sqrt(((first.table(fine) - second.table(fine)) ** 2).sum(axis=(1, 2))).max()
    assert sampled <= tl_sup_distance(first, second) <= sampled + 5e-3


def test_a_limit_that_is_steep_inside_a_layer_is_resolved():
    layers = Controls([0.0, 0.5, 1.0], [0.0, 1.0])
    e = 1e-3
    exact = quad(lambda t: (np.arctan((t - 0.3) / e) - layers.at(t)) ** 2, 0, 1, points=[0.3, 0.5], epsabs=1e-12,
                 limit=500)[0]  # fmt: skip
    assert tl2_distance(layers, lambda t: np.arctan((t - 0.3) / e)) == pytest.approx(np.sqrt(exact), rel=1e-9)
    with pytest.raises(NumericalError, match="limit is not smooth near"):
        tl2_distance(layers, lambda t: np.sin(1e9 * t))


def test_means_are_the_nearest_layers():
    # The distance from the mean over a layer is h |K'|/sqrt(12), half of that from the start.
    sizes = np.array([8, 16, 32, 64])
    distances = {}
    for values in ("start", "mean", "middle"):
        found = [tl2_distance(Controls.layers(np.exp, np.linspace(0, 1, n + 1), values), np.exp) for n in sizes]
        distances[values] = np.array(found)
        assert abs(observed_order(1.0 / sizes, found).order - 1.0) < 0.1
    assert (distances["mean"] <= distances["middle"]).all()
    norm = np.sqrt((np.e**2 - 1) / 2)
    assert distances["mean"][-1] * 64 == pytest.approx(norm / np.sqrt(12), rel=0.01)
    assert distances["start"][-1] * 64 == pytest.approx(norm / np.sqrt(3), rel=0.02)


def test_the_free_distance_is_the_least_over_all_assignments():
    n = 6
    first, second = (Controls(np.linspace(0, 2, n + 1), RNG.standard_normal((n, 2))) for _ in range(2))
    for weight in (0.2, 3.0):
        t = weight * first.knots[:-1]
        cost = (t[:, None] - t) ** 2 + ((first.values[:, None] - second.values) ** 2).sum(axis=2)
        least = min(cost[range(n), list(order)].mean() for order in itertools.permutations(range(n)))
        found = free_distance(first, second, depth_weight=weight)
        assert found.distance == pytest.approx(np.sqrt(least), rel=1e-13)
        assert found.monotone == pytest.approx(np.sqrt(np.diagonal(cost).mean()), rel=1e-13)


def test_the_free_distance_of_other_numbers_of_layers_is_that_of_layers_cut_alike():
    # 4 and 6 layers stand for 12 each: with every layer as often as its share says the program is an assignment.
    first, second = (Controls(np.linspace(0, 1, n + 1), RNG.standard_normal(n)) for n in (4, 6))
    cost = (first.knots[:-1, None] - second.knots[:-1]) ** 2 + (first.values[:, None] - second.values) ** 2
    from scipy.optimize import linear_sum_assignment

    many = np.repeat(np.repeat(cost, 3, axis=0), 2, axis=1)
    found = free_distance(first, second)
    assert found.distance == pytest.approx(np.sqrt(many[linear_sum_assignment(many)].mean()), rel=1e-10)
    assert found.distance < found.monotone == pytest.approx(np.sqrt(np.diagonal(many).mean()), rel=1e-12)
    np.testing.assert_allclose(found.plan.sum(axis=1), 1 / 4, rtol=1e-9)
    np.testing.assert_allclose(found.plan.sum(axis=0), 1 / 6, rtol=1e-9)


def test_swapped_layers_are_near_in_the_free_distance_only():
    # K jumps between -1 and 1 at every layer; shifted by a layer it is 2 apart, but depth need move by 1/n only.
    n = 40
    knots, signs = np.linspace(0, 1, n + 1), (-1.0) ** np.arange(n)
    found = free_distance(Controls(knots, signs), Controls(knots, -signs))
    assert found.monotone == pytest.approx(2.0)
    assert found.distance == pytest.approx(1.0 / n)


def test_uneven_layers_and_one_layer_are_coupled_too():
    first, one = uneven(5), Controls([0.0, 1.0], [0.3])
    share = np.diff(first.knots)
    exact = np.sqrt(share @ (first.knots[:-1] ** 2 + (first.values - 0.3) ** 2))
    found = free_distance(first, one)
    assert found.distance == pytest.approx(exact, rel=1e-12)
    assert found.monotone == pytest.approx(exact, rel=1e-12)


def test_bad_pairs_are_refused():
    layers = Controls([0.0, 1.0], [[1.0, 2.0]])
    with pytest.raises(ConfigError, match=r"shapes \(2,\) and \(\)"):
        tl2_distance(layers, Controls([0.0, 1.0], [1.0]))
    with pytest.raises(ConfigError, match=r"depths \(0.0, 1.0\) and \(0.0, 2.0\) differ"):
        free_distance(layers, Controls([0.0, 2.0], [[1.0, 2.0]]))
    with pytest.raises(ConfigError, match=r"limit at t=.* has shape \(3,\), expected \(2\)"):
        tl2_distance(layers, lambda t: np.zeros(3))
    with pytest.raises(ConfigError, match="callable of depth"):
        tl_sup_distance(layers, 1.0)
    with pytest.raises(ConfigError, match="samples must be at least 2"):
        tl_sup_distance(layers, layers, samples=1)
    with pytest.raises(ConfigError, match="second must be the layers"):
        free_distance(layers, Controls([0.0, 1.0], [[1.0, 2.0], [0.0, 0.0]], "linear"))
    with pytest.raises(ConfigError, match="depth_weight must be > 0"):
        free_distance(layers, layers, depth_weight=0.0)
    with pytest.raises(ConfigError, match="tolerance"):
        tl2_distance(layers, np.exp, tolerance=0.0)
