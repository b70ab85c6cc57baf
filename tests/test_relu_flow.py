"""Networks built to follow flows: rates, certificates, accuracy on demand, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.constructions.blocks import Recipe
from meanfield.constructions.certificate import a_priori, largest_error, single_block_errors
from meanfield.constructions.flow_network import FlowNetwork, load_flow_network
from meanfield.constructions.problem import FlowProblem
from meanfield.constructions.quadrature import cumulated, integrate_in_time
from meanfield.constructions.relu_flow import relu_flow
from meanfield.diagnostics.rates import observed_order
from meanfield.errors import ConfigError, CorruptFileError, FileFormatError, NumericalError, ResourceError
from meanfield.kuhn import KuhnMesh
from meanfield.schemes import HEUN, RK4

LINE, PLANE = (-3.0, 3.0), ([-1.2, -1.2], [1.2, 1.2])


def sine(t, x):
    """x' = sin x."""
    return np.sin(x)


def sine_flow(t, x):
    """tan(x/2) = e^t tan(x0/2), |x0| < pi."""
    return 2 * np.arctan(np.exp(t)[:, None, None] * np.tan(x / 2))


def stuart_landau(t, x):
    """r' = r (1 - r^2), theta' = 1."""
    return x * (1 - (x**2).sum(axis=0)) + np.stack([-x[1], x[0]])


def stuart_landau_flow(t, x):
    """r = r0 / sqrt(r0^2 + (1 - r0^2) e^{-2t}), theta = theta0 + t."""
    t, r2 = t[:, None], (x**2).sum(axis=0)
    stretch = 1 / np.sqrt(r2 + (1 - r2) * np.exp(-2 * t))
    return (
        np.stack([np.cos(t) * x[0] - np.sin(t) * x[1], np.sin(t) * x[0] + np.cos(t) * x[1]], axis=1) * stretch[:, None]
    )


class Modulated:
    """f = a(t) cos x with asinh(tan x) = asinh(tan x0) + int a, |x0| < pi/2; its integral is known."""

    def __init__(self, a, primitive):
        self.a, self.primitive = a, primitive

    def __call__(self, t, x):
        return self.a(t) * np.cos(x)

    def integral(self, t0, t1, x):
        return (self.primitive(t1) - self.primitive(t0)) * np.cos(x)

    def flow(self, t, x):
        gone = np.array([self.primitive(s) - self.primitive(0.0) for s in t])
        return np.arctan(np.sinh(np.arcsinh(np.tan(x)) + gone[:, None, None]))


def lacunary(alpha, terms=14):
    """sum_j 2^{-alpha j} cos(2 pi 2^j t): Hoelder continuous of exponent alpha, and no more."""
    j = np.arange(terms)
    w = 2 * np.pi * 2.0**j
    return Modulated(lambda t: (2.0 ** (-alpha * j) * np.cos(w * t)).sum(),
                     lambda t: (2.0 ** (-alpha * j) * np.sin(w * t) / w).sum())  # fmt: skip


# Quadrature


@pytest.mark.parametrize(
    ("f", "exact", "points"),
    [
        (np.sign, 0.5, ()),
        (lambda t: abs(t) ** -0.5, 2 * (np.sqrt(0.25) + np.sqrt(0.75)), (0.0,)),
        (lambda t: np.sqrt(abs(t)), 2 / 3 * (0.25**1.5 + 0.75**1.5), ()),
        (lambda t: np.cos(500 * t), (np.sin(375) + np.sin(125)) / 500, ()),
    ],
    ids=["jump", "singular", "root", "fast"],
)
def test_time_integrals_of_rough_functions_meet_their_tolerance(f, exact, points):
    for atol in (1e-4, 1e-8):
        found = integrate_in_time(lambda t: np.array([f(t), 2 * f(t)]), -0.25, 0.75, atol=atol, points=points)
        assert found.error <= atol
        assert np.abs(found.value - exact * np.array([1, 2])).max() <= atol
    halfway = cumulated(found, np.array([-0.25, 0.75]))
    assert np.allclose(halfway, [[0, 0], found.value], atol=1e-12)


def test_time_integrals_that_do_not_converge_say_how_far_they_came():
    with pytest.raises(NumericalError, match=r"known to .* only, not to the tolerance 1e-06.*breakpoints"):
        integrate_in_time(lambda t: np.array([np.sin(1e9 * t)]), 0.0, 1.0, atol=1e-6, limit=300)


def test_quadrature_and_a_known_integral_make_the_same_blocks():
    field = lacunary(0.5, terms=6)
    known = relu_flow(field, (-1, 1), 1.0, n_blocks=5, cells=4, margin=0.5).network
    found = relu_flow(field.__call__, (-1, 1), 1.0, n_blocks=5, cells=4, margin=0.5).network
    assert 0 < np.abs(known.tables - found.tables).max() < 1e-9


# Errors


@pytest.mark.parametrize(("n", "error"), [(8, 0.0390), (16, 0.0200), (32, 0.0101), (64, 0.0051), (128, 0.0026)])
def test_sup_error_of_sine_in_time(n, error):
    flow = relu_flow(sine, LINE, 1.0, n_blocks=n, cells=3000, autonomous=True, reference=sine_flow)
    assert largest_error(flow.network, flow.problem).blocks == pytest.approx(error, rel=0.05)


@pytest.mark.parametrize(("c", "error"), [(6, 0.0860), (12, 0.0233), (24, 0.0055), (48, 0.00134), (96, 0.00033)])
def test_sup_error_of_sine_in_space(c, error):
    flow = relu_flow(sine, LINE, 1.0, n_blocks=200, cells=c, time="runge_kutta", autonomous=True, reference=sine_flow)
    assert flow.network.mesh.lo[0] <= -4 <= 4 <= flow.network.mesh.hi[0]
    assert flow.network.mesh.width[0] == pytest.approx(6 / c)
    assert largest_error(flow.network, flow.problem).blocks == pytest.approx(error, rel=0.05)


def orders(counts, build):
    """Observed order of the largest error in 1/count."""
    flows = [build(k) for k in counts]
    errors = [largest_error(f.network, f.problem, rounds=4).blocks for f in flows]
    return observed_order(1.0 / np.array(counts), errors).order


@pytest.mark.parametrize(
    ("scheme", "counts"), [(HEUN, (16, 32, 64)), (RK4, (8, 16, 32))], ids=lambda s: getattr(s, "name", "")
)
def test_blocks_of_runge_kutta_steps_have_its_order(scheme, counts):
    def build(n):
        return relu_flow(lambda t, x: 3 * np.cos(4 * t) * np.sin(x), LINE, 1.0, n_blocks=n, cells=40_000,
                         time="runge_kutta", scheme=scheme)  # fmt: skip

    assert abs(orders(counts, build) - scheme.order) <= 0.1


def test_stuart_landau_at_the_predicted_rates_in_time_and_space():
    def build(n, c, time):
        return relu_flow(stuart_landau, PLANE, 1.0, n_blocks=n, cells=c, time=time, autonomous=True,
                         reference=stuart_landau_flow)  # fmt: skip

    assert abs(orders((32, 64, 128, 256), lambda n: build(n, 120, "averaged")) - 1) <= 0.1
    assert abs(orders((12, 24, 48, 96), lambda c: build(24, c, "runge_kutta")) - 2) <= 0.1


def test_a_kink_where_the_field_vanishes_costs_one_order_in_space():
    def build(c):
        return relu_flow(lambda t, x: np.abs(np.sin(x - 1 / 3)), (-1, 1), 1.0, n_blocks=64, cells=c,
                         time="runge_kutta", autonomous=True, margin=2.0)  # fmt: skip

    # The kink stands a third of a cell from a node for every power of 4.
    assert abs(orders((32, 128, 512), build) - 1) <= 0.1


def test_rough_in_time_pointwise_blocks_are_slower_than_averaged_ones():
    field = lacunary(0.5)

    def build(n, time):
        return relu_flow(field, (-1, 1), 1.0, n_blocks=n, cells=1000, time=time, reference=field.flow)

    assert abs(orders((64, 128, 256), lambda n: build(n, "averaged")) - 1) <= 0.1
    assert abs(orders((64, 128, 256), lambda n: build(n, "pointwise")) - 0.5) <= 0.1


@pytest.mark.parametrize(("partition", "order"), [("uniform", 0.4), ("equidistributed", 1.0)])
def test_singular_in_time_uniform_blocks_lose_what_equidistributed_ones_keep(partition, order):
    # a = 0.2 t^{-0.8} is in L^p for p < 1.25 only: 2 - 2/p.
    field = Modulated(lambda t: 0.2 * t**-0.8, lambda t: t**0.2)

    def build(n):
        return relu_flow(field, (-1, 1), 1.0, n_blocks=n, cells=1000, partition=partition, breakpoints=(0.0,),
                         reference=field.flow)  # fmt: skip

    assert abs(orders((32, 64, 128, 256), build) - order) <= 0.1


# Networks


@pytest.mark.parametrize("time", ["averaged", "pointwise", "runge_kutta"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_fast_kernel_and_the_layers_are_one_network(d, time, tmp_path):
    def field(t, x):
        return np.cos(2 * t) * np.sin(x) + 0.3 * np.roll(x, 1, axis=0) ** 2

    flow = relu_flow(field, ([-1] * d, [1] * d), 1.0, n_blocks=3, cells=[5, 4, 3][:d], time=time, margin=2.0)
    x = np.random.default_rng(1).uniform(-3, 3, (d, 700))
    fast, layers = flow.network.forward(x), flow.network.layers()
    assert np.abs(fast - layers.forward(x)).max() < 1e-13
    states = flow.network.states(x)
    assert np.array_equal(states[-1], fast)
    assert np.array_equal(states[0], x)
    assert np.array_equal(flow.network.block_values(1, states[1]), states[2])
    if time != "runge_kutta" and d < 3:
        assert np.abs(flow.network.compact(2).forward(x) - fast).max() < 1e-13
    y = x + 1e-6
    steep = np.abs((states[1] - x) - (flow.network.block_values(0, y) - y)).max() / 1e-6
    assert steep <= flow.network.lipschitz[0] + 1e-6
    flow.network.save(tmp_path / "flow.h5")
    assert np.array_equal(load_flow_network(tmp_path / "flow.h5").forward(x), fast)


def test_nothing_finite_comes_from_a_nan_and_the_table_is_not_left():
    network = relu_flow(sine, LINE, 1.0, n_blocks=2, cells=4).network
    with pytest.raises(ConfigError, match="nan"):
        network.forward([[0.0, np.nan]])
    assert np.isfinite(network.forward([[1e300, -1e300]])).all()


def test_an_autonomous_field_shares_one_block():
    flow = relu_flow(sine, LINE, 1.0, n_blocks=50, cells=10, autonomous=True)
    changing = relu_flow(sine, LINE, 1.0, n_blocks=50, cells=10)
    x = np.linspace(-3, 3, 50)[None]
    assert np.abs(flow.network.forward(x) - changing.network.forward(x)).max() < 1e-8
    assert len(flow.network.layers().blocks) == 1
    own, other = flow.network.counts(), changing.network.counts()
    assert (own.blocks, own.layers, own.parameters) == (other.blocks, other.layers, other.parameters)
    assert own.stored == own.parameters // 50


# Certificates and accuracy


def test_no_error_is_above_its_bound_and_the_search_beats_a_fine_sample():
    for field, box, kind, more in (
        (sine, LINE, "averaged", {"autonomous": True}),
        (lacunary(0.5, terms=5), (-1, 1), "pointwise", {}),
        (lambda t, x: np.sin(5 * t) * np.sin(x), LINE, "runge_kutta", {}),
        (stuart_landau, PLANE, "averaged", {"autonomous": True}),
    ):
        flow = relu_flow(field, box, 1.0, n_blocks=12, cells=12, time=kind, **more)
        found = flow.certify()
        assert found.holds
        assert found.error <= found.error_between
        assert found.sharp <= found.bound * (1 + 1e-12)
        if flow.problem.dim == 1:
            x = np.linspace(*box, 3001)[None]
            exact = flow.problem.flow(flow.network.times, x)
            assert np.abs(flow.network.states(x) - exact).max() <= found.error * (1 + 1e-6)


def test_the_bound_is_its_formula_for_sine():
    flow = relu_flow(sine, LINE, 1.0, n_blocks=10, cells=60, autonomous=True)
    h = 0.1
    gap = 2 * (np.sin(h / 4) ** 2) * 1.0  # sup |f - I f| near the largest |f''|
    found = a_priori(flow.network, flow.problem)
    assert found.blocks == pytest.approx(np.e * (10 * 0.1**2 + gap), rel=2e-3)
    assert found.space == pytest.approx(gap, rel=5e-3)
    assert found.between == pytest.approx(found.blocks + 0.1, rel=1e-3)
    one = a_priori(relu_flow(lambda t, x: -x, (-1, 1), 1.0, n_blocks=10, cells=4, autonomous=True).network,
                   FlowProblem(lambda t, x: -x, (-1, 1), 1.0, autonomous=True))  # fmt: skip
    assert one.sharp < one.blocks / 2.5


def test_errors_over_single_blocks_are_those_of_a_step():
    flow = relu_flow(lambda t, x: x, (-1, 1), 1.0, n_blocks=4, cells=2, time="runge_kutta", autonomous=True, margin=3.0)
    tau = single_block_errors(flow.network, flow.problem, 1.0)
    h = 0.25
    assert tau == pytest.approx(np.full(4, 3 * (np.exp(h) - (1 + h + h**2 / 2 + h**3 / 6 + h**4 / 24))), rel=0.01)


@pytest.mark.parametrize("eps", [1e-2, 1e-3])
@pytest.mark.parametrize(
    ("field", "box", "time", "autonomous"),
    [
        (sine, LINE, "averaged", True),
        (lambda t, x: np.cos(6 * t) * np.cos(x), (-1.2, 1.2), "averaged", False),
        (stuart_landau, PLANE, "runge_kutta", True),
    ],
    ids=["sine", "cosine", "stuart_landau"],
)
def test_an_accuracy_asked_for_is_delivered_and_not_far_exceeded(field, box, time, autonomous, eps):
    flow = relu_flow(field, box, 1.0, eps=eps, time=time, autonomous=autonomous)
    found = flow.certify(seed=5)
    assert 0.2 * eps <= found.error <= eps
    assert found.holds


def test_the_bound_alone_can_choose_the_network():
    flow = relu_flow(sine, LINE, 1.0, eps=0.02, autonomous=True, control="a_priori")
    found = flow.certify()
    assert found.error <= found.bound <= 0.02
    assert flow.network.n_blocks > relu_flow(sine, LINE, 1.0, eps=0.02, autonomous=True).network.n_blocks


# What is refused


def staying(t, x):
    """Points that stay where they are."""
    return np.broadcast_to(x, (len(t), *x.shape))


def test_fields_and_boxes_that_cannot_be_followed_are_refused_with_the_number():
    cases = (
        (lambda t, x: np.sqrt(x), LINE, {}, ConfigError, r"got nan at t = .*x = \(-3\)"),
        (lambda t, x: np.sqrt(x + 3.5), LINE, {}, ConfigError, "got nan"),
        (lambda t, x: np.sum(x), LINE, {}, ConfigError, r"shape \(\)"),
        (sine, (3.0, -3.0), {}, ConfigError, "empty along axis 0"),
        (sine, LINE, {"margin": 0.01}, ConfigError, "leaves the box by 0.079428"),
        (sine, LINE, {"margin": -1.0}, ConfigError, "margin"),
        (lambda t, x: x**2, (-1, 2), {}, NumericalError, "does not reach t = 1"),
        (sine, LINE, {"time": "middle"}, ConfigError, "averaged"),
        (sine, LINE, {"partition": [0, 0.5, 0.4, 0.6, 1.0]}, ConfigError, "increase"),
        (sine, LINE, {"n_blocks": 10**12}, ResourceError, "GiB"),
        (lambda t, x: np.sin(x) / abs(t - 1 / np.pi), LINE, {"margin": 1.0, "reference": staying},
         ConfigError, "got -?inf at t = 0.3183"),
    )  # fmt: skip
    for field, box, more, error, words in cases:
        with pytest.raises(error, match=words):
            relu_flow(field, box, 1.0, **{"n_blocks": 4, "cells": 4} | more)


def test_an_accuracy_out_of_reach_is_refused_with_its_memory():
    for control in ("a_posteriori", "a_priori"):
        with pytest.raises(ResourceError, match=r"eps = 1e-12 is out of reach.*GiB"):
            relu_flow(sine, LINE, 1.0, eps=1e-12, control=control)
    with pytest.raises(ConfigError, match="either eps"):
        relu_flow(sine, LINE, 1.0, eps=1e-2, cells=4, n_blocks=3)
    with pytest.raises(ConfigError, match="averaged blocks"):
        relu_flow(sine, LINE, 1.0, eps=1e-2, control="a_priori", time="runge_kutta")


def test_a_network_that_leaves_its_box_has_no_certificate():
    problem = FlowProblem(lambda t, x: -8 * x, (-1, 1), 1.0, autonomous=True)
    lo, hi = problem.neighbourhood(0.2)
    network = Recipe("averaged", RK4, lo, hi).network(problem, 2, 5)
    with pytest.raises(NumericalError, match=r"leaves its box by 2\.79"):
        largest_error(network, problem)


def test_damaged_files_of_networks_are_refused(tmp_path):
    network = relu_flow(sine, LINE, 1.0, n_blocks=2, cells=4).network
    mesh = KuhnMesh(network.mesh.lo, network.mesh.hi, network.mesh.cells)
    with pytest.raises(ConfigError, match=r"tables 0 \.\. 1"):
        FlowNetwork(mesh, network.tables, network.order + 1, network.times, network.a, network.b)
    network.layers()
    (tmp_path / "text").write_text("no")
    with pytest.raises(FileFormatError):
        load_flow_network(tmp_path / "text")
    network.save(tmp_path / "good.h5")
    data = (tmp_path / "good.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises((FileFormatError, CorruptFileError)):
        load_flow_network(tmp_path / "cut.h5")
