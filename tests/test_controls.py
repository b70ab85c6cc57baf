"""Parameters over depth."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield import ConfigError, Controls


def test_constant_controls_are_right_continuous():
    c = Controls([0.0, 0.5, 1.0], [1.0, 2.0])
    assert [float(c.at(t)) for t in (-1.0, 0.0, 0.49, 0.5, 1.0, 3.0)] == [1, 1, 1, 2, 2, 2]
    np.testing.assert_array_equal(c.breakpoints, [0.5])


def test_linear_controls_interpolate_and_continue():
    c = Controls([0.0, 1.0, 3.0], [[0.0, 1.0], [2.0, 1.0], [4.0, -1.0]], "linear")
    np.testing.assert_allclose(c.at(0.25), [0.5, 1.0])
    np.testing.assert_allclose(c.at(2.0), [3.0, 0.0])
    np.testing.assert_allclose(c.at(9.0), [4.0, -1.0])


@pytest.mark.parametrize("kind", ["constant", "linear"])
def test_refinement_keeps_the_function_and_coarsening_undoes_it(kind):
    rng = np.random.default_rng(1)
    knots = np.cumsum(rng.uniform(0.1, 1.0, 6))
    c = Controls(knots, rng.standard_normal((5 if kind == "constant" else 6, 2, 3)), kind)
    fine = c.refine(3)
    for t in rng.uniform(knots[0], knots[-1], 50):
        np.testing.assert_allclose(fine.at(t), c.at(t), atol=1e-13)
    assert np.isclose(fine.norm(), c.norm(), rtol=1e-13)
    back = fine.coarsen(3)
    np.testing.assert_allclose(back.knots, c.knots)
    np.testing.assert_allclose(back.values, c.values, atol=1e-14)


def test_interpolated_layers_are_means_of_neighbours_and_keep_straight_lines():
    c = Controls([0.0, 1.0, 2.0, 3.0], [[1.0, 0.0], [3.0, 4.0], [0.0, 8.0]])
    fine = c.interpolated(2)
    assert fine.interpolation == "constant"
    np.testing.assert_allclose(fine.knots, np.linspace(0, 3, 7))
    np.testing.assert_allclose(fine.values[:, 0], [1.0, 1.5, 2.5, 2.25, 0.75, 0.0])
    np.testing.assert_allclose(fine.values[1:-1, 1], [1.0, 3.0, 5.0, 7.0])
    # Nonuniform layers: a line through the middles stays a line.
    knots = np.array([0.0, 0.5, 0.7, 2.0, 2.1])
    line = Controls.sample(lambda t: 2 * t - 1, knots, "constant").interpolated(3)
    middles = 0.5 * (line.knots[1:] + line.knots[:-1])
    inside = (middles > 0.25) & (middles < 2.05)
    np.testing.assert_allclose(line.values[inside], 2 * middles[inside] - 1, atol=1e-13)
    np.testing.assert_allclose(line.values[~inside], np.clip(2 * middles[~inside] - 1, -0.5, 3.1))
    one = Controls([0.0, 1.0], [[2.0, 3.0]]).interpolated(4)
    np.testing.assert_array_equal(one.values, np.broadcast_to([2.0, 3.0], (4, 2)))
    linear = Controls([0.0, 1.0, 2.0], [1.0, 3.0, 0.0], "linear")
    np.testing.assert_array_equal(linear.interpolated(2).values, linear.refine(2).values)


def test_norms_agree_with_quadrature():
    c = Controls([0.0, 0.3, 1.0, 1.4], [[1.0, 0.0], [2.0, -1.0], [0.5, 3.0], [0.0, 0.0]], "linear")
    t = (np.arange(140_000) + 0.5) / 100_000
    values = np.array([np.interp(t, c.knots, c.values[:, i]) for i in range(2)])
    assert np.isclose(c.norm(), np.sqrt((values**2).sum() / 100_000), rtol=1e-8)
    slopes = np.diff(c.values, axis=0) / np.diff(c.knots)[:, None]
    assert np.isclose(c.roughness(), np.sqrt(((slopes**2).sum(1) * np.diff(c.knots)).sum()))
    assert Controls([0, 1, 2], [1.0, 2.0]).roughness() == np.inf
    assert Controls([0, 1, 2], [1.0, 1.0]).roughness() == 0.0


def test_sampling_a_function_is_second_order():
    errors = []
    for n in (8, 16, 32, 64):
        c = Controls.sample(np.sin, np.linspace(0, 2, n + 1))
        t = np.linspace(0, 2, 777)
        errors.append(max(abs(float(c.at(s)) - np.sin(s)) for s in t))
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(slopes - 2) < 0.1), slopes


def test_layers_of_a_limit_have_its_values_at_starts_and_middles_and_its_means():
    knots = np.array([0.0, 0.2, 0.5, 1.0])
    limit = Controls([0.0, 0.35, 1.0], [[0.0, 1.0], [7.0, 1.0], [-6.0, 3.0]], "linear")
    np.testing.assert_allclose(Controls.layers(limit, knots).values, limit.table(knots[:-1]), rtol=1e-15)
    np.testing.assert_allclose(Controls.layers(limit, knots, "middle").values, limit.table([0.1, 0.35, 0.75]))
    # 0.3 of the second layer lie before the kink at 0.35, where K_1 = 20 t, after it K_1 = 7 - 20 (t - 0.35).
    means = Controls.layers(limit, knots, "mean").values
    np.testing.assert_allclose(means, [[2.0, 1.0], [5.5, 1.0 + 2.0 / 0.65 * 0.0375], [-1.0, 1.0 + 2.0 / 0.65 * 0.4]])
    of_callable = Controls.layers(lambda t: np.array([[np.exp(t)]]), knots, "mean")
    np.testing.assert_allclose(of_callable.values[:, 0, 0], np.diff(np.exp(knots)) / np.diff(knots), rtol=1e-15)
    pieces = Controls([0.0, 0.4, 1.0], [1.0, 3.0])
    np.testing.assert_allclose(Controls.layers(pieces, knots, "mean").values, [1.0, (0.2 + 0.3) / 0.3, 3.0])


@pytest.mark.parametrize("values", ["start", "middle", "mean"])
def test_penalties_of_layers_of_a_limit_rise_to_its_own(values):
    # K(t) = e^t: int |K'|^2 = (e^2 - 1)/2. Starts and middles leave out half a layer on the right or on either side.
    penalties = []
    for n in (10, 20, 40, 80):
        layers = Controls.layers(np.exp, np.linspace(0.0, 1.0, n + 1), values)
        penalties.append(n * float((np.diff(layers.values) ** 2).sum()))
    missing = (np.e**2 - 1) / 2 - np.array(penalties)
    assert (missing > 0.0).all()
    orders = np.log2(missing[:-1] / missing[1:])
    assert abs(orders[-1] - 1.0) < 0.1


def test_bad_controls_are_refused():
    with pytest.raises(ConfigError, match="values must be one of start, middle, mean; got 'end'"):
        Controls.layers(np.exp, [0.0, 1.0], "end")
    with pytest.raises(ConfigError, match="increasing"):
        Controls([0.0, 0.0], [1.0])
    with pytest.raises(ConfigError, match=r"length 3.*3 knots need 2"):
        Controls([0.0, 1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ConfigError, match="finite"):
        Controls([0.0, 1.0], [np.nan])
    with pytest.raises(ConfigError, match="interpolation"):
        Controls([0.0, 1.0], [1.0], "cubic")
    with pytest.raises(ConfigError, match="divide"):
        Controls([0.0, 1.0], [1.0]).coarsen(2)
