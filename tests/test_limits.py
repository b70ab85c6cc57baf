"""Limits of width and depth: references, orders, verdicts, joint studies, and a network with a known constant."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield import Grid, Separable, SpaceTimeNetwork, integrate
from meanfield.errors import ConfigError
from meanfield.limits import Reference, Study, convergence_study, extrapolate

SIZES = [8, 16, 32, 64]


def scalar(width, depth=1.0):
    return 3.0 + 5.0 / width**2 + 0.4 / width**3 - (2.0 / depth if depth != 1.0 else 0.0)


def vector(width):
    return np.array([1.0, -2.0, 0.5]) + np.array([1.0, 0.3, -2.0]) / width**2


@pytest.mark.parametrize(
    "reference",
    [
        np.array([1.0, -2.0, 0.5]),
        lambda width: np.array([1.0, -2.0, 0.5]),
        Reference(np.array([1.0, -2.0, 0.5]), 0.0, {}),
    ],
    ids=["value", "callable", "reference"],
)
def test_order_against_a_known_limit(reference):
    study = convergence_study(vector, {"width": SIZES}, reference)
    assert not study.signed
    found = study.order("width")
    assert np.isclose(found.order, 2.0, atol=1e-10)
    assert np.isclose(found.fit.slope, 2.0, atol=1e-10)
    assert found.fit.low <= 2.0 + 1e-9
    np.testing.assert_allclose(study.errors, np.sqrt((1 + 0.09 + 4) / 3) / np.array(SIZES) ** 2.0, rtol=1e-10)


def test_values_at_the_nodes_of_each_size():
    def network(width):
        x = Grid.interval(width).nodes
        return np.sin(x) * (1 + 1 / width)

    study = convergence_study(network, {"width": SIZES}, lambda width: np.sin(Grid.interval(width).nodes))
    assert abs(study.order("width").order - 1.0) < 0.01


def test_a_measure_of_ones_own_keeps_its_sign():
    study = convergence_study(
        vector, {"width": SIZES}, np.array([1.0, -2.0, 0.5]), measure=lambda value, exact: float(value[2] - exact[2])
    )
    assert study.signed
    np.testing.assert_allclose(study.errors, -2.0 / np.array(SIZES) ** 2.0, rtol=1e-10)


def test_richardson_finds_limit_and_order_and_bounds_its_own_error():
    reference = extrapolate(scalar, {"width": [32, 64, 128, 256]})
    assert abs(reference.orders["width"] - 2.0) < 0.01
    true = abs(float(reference.value) - 3.0)
    assert true < 5.0 / 256**2 / 50, "the correction has removed most of the finest run's error"
    assert true <= reference.uncertainty


def test_extrapolation_in_both_axes_with_orders_given():
    def network(width, depth):
        return 3.0 + 5.0 / width**2 - 2.0 / depth

    reference = extrapolate(network, {"width": SIZES, "depth": [10, 20, 40]}, {"width": 2.0, "depth": 1.0})
    assert abs(float(reference.value) - 3.0) < 1e-13


def test_a_study_against_its_own_extrapolation():
    study = convergence_study(scalar, {"width": [16, 32, 64, 128, 256]})
    assert study.uncertainty > 0
    assert abs(study.order("width").order - 2.0) < 0.1


def test_errors_within_the_uncertainty_of_the_reference_do_not_count():
    study = convergence_study(lambda width: 5.0 / width**2, {"width": SIZES}, Reference(np.array(0.0), 1e-3, {}))
    assert len(study.order("width").slopes) == 1  # 5/64^2 and 5/32^2 lie below 1e-2
    with pytest.raises(ConfigError, match="no two errors along width lie above round-off"):
        convergence_study(lambda width: 5.0 / width**2, {"width": SIZES}, Reference(np.array(0.0), 1.0, {})).order(
            "width"
        )


def test_wrong_orders_fail_and_right_ones_hold():
    study = convergence_study(scalar, {"width": SIZES, "depth": [10, 20, 40]}, 3.0)
    held = study.verdicts({"depth": 1.0, "width": 2.0}, by="surface", claim="a claim")
    assert [v.status for v in held] == ["holds", "holds"]
    assert held[0].claim == "a claim: order in depth"
    wrong = study.verdicts({"depth": 1.2, "width": 1.5}, by="surface")
    assert [v.status for v in wrong] == ["fails", "fails"]
    alone = convergence_study(vector, {"width": SIZES}, np.array([1.0, -2.0, 0.5]))
    assert [v.status for v in alone.verdicts({"width": 2.2})] == ["fails"]
    assert [v.status for v in alone.verdicts({"width": 2.05}, by="fit")] == ["holds"]


def test_what_cannot_be_measured_is_not_tested():
    study = convergence_study(lambda width: 1.0 + 0.0 * width, {"width": SIZES}, 1.0)
    (verdict,) = study.verdicts({"width": 2.0})
    assert verdict.status == "not_tested"
    assert "round-off" in verdict.reason


def test_a_study_is_rebuilt_from_its_table():
    study = convergence_study(scalar, {"depth": [10, 20, 40], "width": SIZES}, 3.0)
    again = Study.from_table(study.table())
    assert list(again.sizes) == ["width", "depth"]
    np.testing.assert_array_equal(again.errors, study.errors)
    assert (again.signed, again.scale, again.uncertainty) == (study.signed, study.scale, study.uncertainty)
    np.testing.assert_array_equal(again.along("depth", at=16), study.errors[1])
    with pytest.raises(ConfigError, match="17"):
        again.along("depth", at=17)


@pytest.mark.parametrize("reference", ["richardson", 3.0])
def test_each_pair_is_run_once(reference):
    calls = []

    def network(width, depth):
        calls.append((width, depth))
        return scalar(width, depth)

    convergence_study(network, {"width": SIZES, "depth": [10, 20, 40]}, reference)
    assert len(calls) == len(set(calls)) == 12


def test_eulers_constant_of_the_constant_kernel():
    # Linear, b = 0, w = kappa: L x (error of the mean) -> -kappa^2 T^2 e^(kappa T) m0 / 2, with m0 = e - 1 here.
    kappa, depth_of_network = 1.5, 0.8

    def network(width, depth):
        grid = Grid.interval(width)
        w = Separable(grid, np.full((1, width), kappa), np.ones((1, width)))
        z0 = np.exp(grid.nodes)
        z = integrate(SpaceTimeNetwork(w, "identity"), z0, (0.0, depth_of_network), scheme="euler", n_steps=depth).final
        return float(grid.integrate(z))

    m0, growth = np.e - 1, np.exp(kappa * depth_of_network)
    study = convergence_study(network, {"width": [4, 8, 16, 32], "depth": [128, 256, 512, 1024]}, m0 * growth)
    fit = study.surface({"depth": 1.0, "width": 2.0})
    assert abs(fit.a / (-0.5 * kappa**2 * depth_of_network**2 * growth * m0) - 1) < 0.01
    assert abs(fit.c / (-m0 / 24 * growth) - 1) < 0.01  # midpoint rule, -h^2/24 (z0'(1) - z0'(0))
    free = study.surface()
    assert abs(free.p - 1.0) <= 0.1
    assert abs(free.q - 2.0) <= 0.1


def of_its_size(width):
    return np.zeros(width)


def growing(width):
    return float(width)


def test_bad_studies_are_refused():
    with pytest.raises(ConfigError, match='over must map "width", "depth" or both'):
        convergence_study(scalar, {}, 3.0)
    with pytest.raises(ConfigError, match="axis of over must be one of width, depth"):
        convergence_study(scalar, {"widht": SIZES}, 3.0)
    with pytest.raises(ConfigError, match="at least two sizes"):
        convergence_study(scalar, {"width": [4]}, 3.0)
    with pytest.raises(ConfigError, match="must be increasing"):
        convergence_study(scalar, {"width": [8, 4]}, 3.0)
    with pytest.raises(ConfigError, match="width in over must be a positive integer"):
        convergence_study(scalar, {"width": [2.5, 4]}, 3.0)
    with pytest.raises(ConfigError, match=r"factory\(width=8\) must be finite"):
        convergence_study(lambda width: np.nan, {"width": SIZES}, 3.0)
    with pytest.raises(ConfigError, match=r"has shape \(8,\), but the reference has shape \(3,\)"):
        convergence_study(of_its_size, {"width": SIZES}, np.zeros(3))
    with pytest.raises(ConfigError, match="differ in shape; give the reference as a callable"):
        convergence_study(of_its_size, {"width": SIZES})
    with pytest.raises(ConfigError, match="at least three sizes of width"):
        extrapolate(scalar, {"width": [8, 16]})
    with pytest.raises(ConfigError, match="do not converge"):
        extrapolate(growing, {"width": [8, 16, 32]})
    with pytest.raises(ConfigError, match="a surface needs widths and depths"):
        convergence_study(vector, {"width": SIZES}, np.zeros(3)).surface()
