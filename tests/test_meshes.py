"""Moving meshes of labels: weights, differences, equidistribution, order of the nodes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meanfield.diagnostics.rates import observed_order
from meanfield.errors import ConfigError
from meanfield.kernels.mesh import CENTRAL, FOURTH, UPWIND, add_transport, cell_weights, derivative_stencils
from meanfield.meshes import Equidistribution, adapted_nodes
from meanfield.transfer import nodal_grid

SIZES = (16, 32, 64, 128, 256)
KINDS = {UPWIND: (2, 1.0), CENTRAL: (3, 2.0), FOURTH: (5, 4.0)}


def mesh(n, periodic):
    """Smooth mesh with cells that differ by a factor of three; uniform refinement of one map."""
    xi = np.arange(n) / n if periodic else np.arange(n + 1) / n
    return xi + 0.08 * np.sin(2 * np.pi * xi) + 0.02 * (1 - np.cos(2 * np.pi * xi))


def derivative(z, x, kind, period, speed=None):
    count = KINDS[kind][0]
    speed = np.ones_like(x) if speed is None else speed
    first, c = np.empty(len(x), dtype=np.int64), np.empty((len(x), count))
    derivative_stencils(x, period, kind, speed, first, c)
    out = np.zeros((1, len(x)))
    add_transport(z[None], first, c, speed, out)
    return out[0]


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_differences_on_a_mesh_have_their_order_up_to_its_ends(kind, periodic):
    errors = []
    for n in SIZES:
        x = mesh(n, periodic)
        speed = np.where(np.arange(len(x)) % 3 == 0, -1.0, 2.0)
        exact = 2 * np.pi * np.cos(2 * np.pi * x) * speed
        errors.append(
            np.abs(derivative(np.sin(2 * np.pi * x), x, kind, 1.0 if periodic else math.inf, speed) - exact).max()
        )
    order = observed_order(1 / np.array(SIZES), errors, scale=10.0).slopes[-1]
    assert abs(order - KINDS[kind][1]) <= 0.1, errors


@pytest.mark.parametrize("kind", KINDS)
def test_differences_are_exact_on_polynomials_of_their_degree(kind):
    x = np.sort(np.random.default_rng(0).random(12))
    degree = KINDS[kind][0] - 1
    np.testing.assert_allclose(
        derivative(x**degree, x, kind, math.inf)[2:-2],
        (degree * x ** (degree - 1))[2:-2] if degree > 1 else 1.0,
        rtol=1e-8,
    )
    np.testing.assert_array_equal(derivative(np.full(12, 3.7), x, kind, math.inf), 0.0)


@pytest.mark.parametrize(("periodic", "fourth", "order"), [(False, False, 2.0), (True, False, 2.0), (True, True, 4.0)])
def test_weights_sum_to_one_and_have_their_order(periodic, fourth, order):
    errors = []
    for n in SIZES:
        x = mesh(n, periodic)
        q = np.empty_like(x)
        cell_weights(x, 1.0 if periodic else math.inf, fourth, q)
        assert abs(q.sum() - 1.0) < 1e-13
        # int_0^1 e^(cos 2 pi x) dx = I_0(1);  int_0^1 e^x dx = e - 1
        value, exact = (np.exp(np.cos(2 * np.pi * x)), 1.2660658777520084) if periodic else (np.exp(x), math.e - 1)
        errors.append(abs(q @ value - exact))
    if periodic:  # a smooth map of the circle: what is left is the error of dx/dxi
        fitted = observed_order(1 / np.array(SIZES), errors).slopes
        assert fitted[-1] > order - 0.1
    else:
        assert abs(observed_order(1 / np.array(SIZES), errors).slopes[-1] - order) <= 0.1


def test_weights_of_an_interval_are_those_of_its_cells():
    x = np.sort(np.random.default_rng(1).random(9))
    q = np.empty(9)
    cell_weights(x, math.inf, False, q)
    np.testing.assert_allclose(q, nodal_grid(x).weights, rtol=1e-13)


def test_slope_monitor_in_closed_form():
    # s = |d_x z| of z = x^2 has the mean 1: equal masses of 1 + 2 k x, that is X + k X^2 = xi (1 + k).
    k = 3.0
    x = adapted_nodes(lambda x: x**2, 400, mesh=Equidistribution("slope", strength=k, reach=0.0))
    xi = np.linspace(0, 1, 400)
    exact = (np.sqrt(1 + 4 * k * (1 + k) * xi) - 1) / (2 * k)
    assert np.abs(x - exact).max() < 2e-5
    assert x[0] == 0.0
    assert abs(x[-1] - 1.0) < 1e-15


def test_curvature_monitor_in_closed_form():
    # |d_xx z|^(2/5) of z = x^(9/2) is (63/4)^(2/5) x, of mean half its end value: M = 1 + 2 k x again.
    k = 2.0
    x = adapted_nodes(lambda x: x**4.5, 1600, mesh=Equidistribution("curvature", strength=k, reach=0.0))
    xi = np.linspace(0, 1, 1600)
    exact = (np.sqrt(1 + 4 * k * (1 + k) * xi) - 1) / (2 * k)
    assert np.abs(x - exact).max() < 1e-3


@pytest.mark.parametrize("periodic", [False, True])
def test_cells_next_to_each_other_differ_by_no_more_than_the_reach_allows(periodic):
    reach = 3.0

    def front(x):
        return np.tanh((x - 0.5) / 0.002) if not periodic else np.exp(-((np.sin(np.pi * (x - 0.3)) / 0.01) ** 2))

    x = adapted_nodes(front, 200, periodic=periodic, mesh=Equidistribution("slope", strength=9.0, reach=reach))
    gaps = np.diff(x)
    ratio = gaps[1:] / gaps[:-1]
    assert max(ratio.max(), 1 / ratio.min()) < 1.05 * (1 + 1 / reach)
    assert gaps.min() < 0.05 * gaps.max()


@given(
    st.lists(st.floats(0.01, 1.0), min_size=4, max_size=30),
    st.floats(0.0, 50.0),
    st.floats(0.0, 5.0),
    st.floats(0.01, 1.0),
    st.booleans(),
    st.sampled_from(["slope", "curvature"]),
    st.integers(0, 2**20),
)
def test_relaxation_never_shortens_a_cell_below_the_shortest_of_mesh_and_target(
    gaps, strength, reach, share, periodic, monitor, seed
):
    gaps = np.array(gaps) / np.sum(gaps)
    x = np.cumsum(gaps) - gaps[0] if periodic else np.concatenate([[0.0], np.cumsum(gaps)])
    period = 1.0 if periodic else math.inf
    z = np.random.default_rng(seed).standard_normal((2, len(x)))
    mesh = Equidistribution(monitor, strength, reach, time=0.5)
    target = mesh.target(x, z, period)
    moved = x + 0.5 * share * mesh.velocity(x, z, period)

    def least(nodes):
        return min(np.diff(nodes).min(), nodes[0] + 1.0 - nodes[-1] if periodic else np.inf)

    assert least(target) > 0.0
    assert least(moved) >= min(least(x), least(target)) - 1e-14


def test_a_constant_field_gives_the_uniform_mesh():
    for periodic in (False, True):
        x = adapted_nodes(np.zeros_like, 20, periodic=periodic)
        np.testing.assert_allclose(np.diff(x), 1 / 20 if periodic else 1 / 19, rtol=1e-12)


def test_bad_meshes_are_refused():
    with pytest.raises(ConfigError, match="monitor must be one of slope, curvature"):
        Equidistribution("arc")
    with pytest.raises(ConfigError, match="strength must be >= 0"):
        Equidistribution(strength=-1.0)
    with pytest.raises(ConfigError, match="time must be > 0"):
        Equidistribution(time=0.0)
    with pytest.raises(ConfigError, match="n >= 3"):
        adapted_nodes(np.sin, 2)
    with pytest.raises(ConfigError, match="field must be finite"):
        adapted_nodes(lambda x: np.where(x > 0.5, np.nan, x), 9)
