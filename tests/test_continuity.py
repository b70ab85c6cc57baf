"""The continuity equation: exact laws at second order, mass, positivity, boundaries, and cells that follow atoms."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.stages import Stages
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from meanfield import integrate
from meanfield.cells import Cells
from meanfield.controls import Controls
from meanfield.diagnostics.wasserstein import wasserstein
from meanfield.errors import ConfigError, NumericalError, ResourceError
from meanfield.exact_laws import characteristic, gaussian_flow, w1_constant
from meanfield.laws import Law
from meanfield.models.continuity import ContinuityEquation
from meanfield.models.lagrangian import LagrangianCells
from meanfield.parallel import get_threads, set_threads
from meanfield.schemes import StepGrid, scheme
from meanfield.velocities import Velocity

RNG = np.random.default_rng(9)


def cells_of(n: int, cdf=ndtr, ends: float = 9.0) -> tuple[Cells, np.ndarray]:
    cells = Cells.line(-ends, ends, n)
    return cells, np.diff(cdf(cells.faces())) / cells.volume


def exact_law(name: str, t: float, w: float, b: float, cdf=ndtr) -> Law:
    edges = np.linspace(-9.0, 9.0, 200_001)
    return Law.cells(characteristic(name, t, edges, w, b), np.diff(cdf(edges)))


@pytest.mark.parametrize(
    ("name", "w", "b", "t"), [("identity", -1.0, 0.3, 1.0), ("tanh", -1.0, 0.5, 1.0), ("tanh", 1.0, 0.2, 0.5),
                              ("sigmoid", 0.7, 0.1, 1.0), ("sine", 1.0, 0.1, 0.7)]
)  # fmt: skip
def test_grid_and_lagrangian_cells_have_order_two_in_w1(name, w, b, t):
    velocity, exact = Velocity.outside(name, w, b), exact_law(name, t, w, b)
    fixed, moving = [], []
    for n in (400, 800, 1600):
        cells, g = cells_of(n)
        model = ContinuityEquation(cells, velocity)
        fixed.append(wasserstein(model.law(integrate(model, g, (0.0, t)).final), exact))
        lagrangian, edges = LagrangianCells.start(velocity, ndtr, cells.faces())
        end = integrate(lagrangian, edges, (0.0, t), n_steps=100).final
        moving.append(wasserstein(lagrangian.law(end), exact))
    for errors in (fixed, moving):
        assert abs(np.log2(errors[-2] / errors[-1]) - 2.0) < 0.1
    assert fixed[-1] < 1e-4
    assert moving[-1] < 1e-5


def test_plane_has_order_two_in_the_moments_of_a_gaussian():
    w, b = np.array([[-0.4, 0.8], [-0.6, 0.1]]), np.array([0.2, -0.1])
    mean, covariance = gaussian_flow(0.8, w, b, 0.0, 0.25 * np.eye(2))
    errors = []
    for n in (40, 80, 160):
        cells = Cells.box((-4.0, -4.0), (4.0, 4.0), (n, n))
        edges = ndtr(2 * cells.faces())
        g = np.outer(np.diff(edges), np.diff(edges)) / cells.volume
        model = ContinuityEquation(cells, Velocity.outside("identity", w, b))
        end = integrate(model, g, (0.0, 0.8)).final
        errors.append(max(np.abs(cells.mean(end) - mean).max(), np.abs(cells.covariance(end) - covariance).max()))
    assert abs(np.log2(errors[-2] / errors[-1]) - 2.0) < 0.1
    assert errors[-1] < 3e-3


VELOCITIES = {
    "outside": lambda d: Velocity.outside("tanh", Controls([0, 0.4, 1], RNG.standard_normal((2, d, d))), 0.2),
    "constant": lambda d: Velocity.outside("sine", 2 * np.pi / 4 * np.eye(d), 0.2),
    "inside": lambda d: Velocity.inside(
        "gelu", lambda t: (0.5 + t) * np.ones((d, d)), Controls([0, 1], [[0.0] * d] * 1)
    ),
    "two_layer": lambda d: Velocity.two_layer(
        "relu", RNG.standard_normal((d, 5)), Controls([0, 1], RNG.standard_normal((2, 5, d)), "linear"), 0.3
    ),
}


@pytest.mark.parametrize("boundary", ["no-flux", "outflow", "periodic"])
@pytest.mark.parametrize("name", VELOCITIES)
@pytest.mark.parametrize("shape", [(4,), (61,), (2500,), (4, 7), (70, 33)])
def test_compiled_path_equals_the_stages_and_keeps_mass_and_sign(boundary, name, shape):
    d = len(shape)
    cells = Cells.box((-2.0,) * d, (2.0,) * d, shape)
    g = cells.average(lambda *x: np.exp(-4 * sum(s * s for s in x)) + 0.1 * (2 + x[0]))
    model = ContinuityEquation(cells, VELOCITIES[name](d), boundary)
    t = 1.0 if max(shape) < 100 else 0.02
    end = integrate(model, g, (0.0, t)).final
    np.testing.assert_allclose(end, integrate(Stages(model), g, (0.0, t)).final, rtol=1e-11, atol=1e-13)
    assert end.min() >= 0.0
    if boundary == "outflow":
        assert model.mass(end) <= model.mass(g) * (1 + 1e-14)
    else:
        assert abs(model.mass(end) / model.mass(g) - 1.0) < 1e-14


@settings(max_examples=30, deadline=None)
@given(
    w=st.floats(-3, 3), b=st.floats(-2, 2), seed=st.integers(0, 1000), boundary=st.sampled_from(["no-flux", "periodic"])
)
def test_any_density_stays_nonnegative_with_its_mass_at_the_largest_step(w, b, seed, boundary):
    rng = np.random.default_rng(seed)
    model = ContinuityEquation(Cells.line(-1.0, 1.0, 40), Velocity.outside("tanh", w, b), boundary)
    g = rng.random(40) * (rng.random(40) < 0.5) + 1e-300
    end = integrate(model, g, (0.0, 1.0)).final
    assert end.min() >= 0.0
    assert abs(end.sum() / g.sum() - 1.0) < 1e-13


@pytest.mark.parametrize("shape", [(400_000,), (600, 400)])
def test_bytes_do_not_depend_on_threads_or_on_how_steps_are_split(shape):
    d = len(shape)
    cells = Cells.box((-2.0,) * d, (2.0,) * d, shape)
    g = cells.average(lambda *x: np.exp(-4 * sum(s * s for s in x)), order=1)
    model, before = ContinuityEquation(cells, VELOCITIES["outside"](d)), get_threads()
    grid = StepGrid(np.array([0.0, 1e-5]), np.array([5]))
    whole, part, end = (np.empty(shape) for _ in range(3))
    try:
        set_threads(1)
        model.advance(scheme("ssprk2"), grid, 0, 5, g, whole)
        set_threads(2)
        model.advance(scheme("ssprk2"), grid, 0, 2, g, part)
        model.advance(scheme("ssprk2"), grid, 2, 3, part, end)
    finally:
        set_threads(before)
    np.testing.assert_array_equal(end, whole)


def test_steps_are_chosen_by_the_cfl_condition_and_refused_beyond_it():
    cells, g = cells_of(200)
    model = ContinuityEquation(cells, Velocity.outside("tanh", 1.0))
    (limit,) = model.step_limits(np.array([0.0, 1.0]))
    assert abs(limit - cells.volume / (2 * np.tanh(9.0))) < 1e-15
    solution = integrate(model, g, (0.0, 1.0), save_at=[0.3, 1.0])
    assert np.array_equal(solution.t, [0.3, 1.0])
    assert solution.stats["n_steps"] == np.ceil(0.3 / limit) + np.ceil(0.7 / limit)
    with pytest.raises(ConfigError, match="CFL"):
        integrate(model, g, (0.0, 1.0), dt=0.05)
    with pytest.raises(ConfigError, match="rtol"):
        integrate(model, g, (0.0, 1.0), rtol=1e-6)
    with pytest.raises(ConfigError, match="positive"):
        integrate(model, g, (0.0, 1.0), scheme="rk4", n_steps=1000)


def test_parameters_given_by_callables_are_followed_or_refused():
    cells, g = cells_of(100, ends=3.0)
    span = (0.0, 16 * np.pi)
    for velocity in (
        Velocity.outside("tanh", lambda t: 3 * np.sin(t), 0.05),
        Velocity.outside("relu", lambda t: 3 * np.sin(t), 2.0),
        Velocity.outside("identity", 0.0, lambda t: 8 * np.sin(t)),
    ):
        assert integrate(ContinuityEquation(cells, velocity), g, span).final.min() >= 0.0
    pulse = Velocity.outside("relu", 1.0, lambda t: 30 * np.exp(-(((t - 0.53) / 0.02) ** 2)))
    model = ContinuityEquation(cells, pulse)
    assert integrate(model, g, (0.0, 1.0)).final.min() >= 0.0
    for name in ("ssprk2", "euler"):
        with pytest.raises((ConfigError, NumericalError), match="CFL"):
            integrate(model, g, (0.0, 1.0), n_steps=400, scheme=name)


def test_spans_of_no_length_and_speeds_out_of_range():
    cells, g = cells_of(50)
    model = ContinuityEquation(cells, Velocity.outside("tanh", -1.0))
    np.testing.assert_array_equal(integrate(model, g, (1.0, 1.0), save_at=[1.0]).final, g)
    with pytest.raises(ConfigError, match="too fast"):
        integrate(ContinuityEquation(cells, Velocity.outside("identity", 1e308)), g, (0.0, 1.0))
    with pytest.raises(ResourceError, match="save times"):
        integrate(model, g, (0.0, 1.0), save_at=10**12)


def test_wide_networks_step_as_far_as_their_faces_allow():
    rng = np.random.default_rng(2)
    v, w, b = rng.standard_normal((1, 500)) / 22, rng.standard_normal((500, 1)), rng.standard_normal(500)
    cells, g = cells_of(200, ends=3.0)
    model = ContinuityEquation(cells, Velocity.two_layer("tanh", v, w, b))
    (limit,) = model.step_limits(np.array([0.0, 1.0]))
    speed = np.abs(model.velocity.value(0.0, cells.faces()[None])).max()
    assert limit == pytest.approx(cells.volume / (2 * speed), rel=0.02)
    assert integrate(model, g, (0.0, 1.0)).final.min() >= 0.0


def test_bad_densities_and_cells_are_refused():
    cells, g = cells_of(20)
    model = ContinuityEquation(cells, Velocity.outside("tanh", 1.0))
    g[3] = -1e-3
    with pytest.raises(ConfigError, match=r"density must be >= 0, its minimum is -0.001"):
        integrate(model, g, (0.0, 1.0))
    with pytest.raises(ConfigError, match="lower < upper"):
        Cells.line(1.0, 1.0, 10)
    with pytest.raises(ConfigError, match="positive integer"):
        Cells.line(0.0, 1.0, 0)
    with pytest.raises(ResourceError, match="GiB"):
        Cells.line(0.0, 1.0, 10**12)
    with pytest.raises(ConfigError, match="entry for each axis"):
        Cells(0.0, 1.0, 5)
    with pytest.raises(ConfigError, match="out of range"):
        Cells.line(1.0, 1.0 + 1e-15, 100)
    with pytest.raises(ConfigError, match=r"density returned shape \(3,\)"):
        cells.average(lambda _x: np.ones(3))
    with pytest.raises(ConfigError, match="covariance"):
        gaussian_flow(1.0, -1.0, 0.0, 0.0, -1.0)
    with pytest.raises(ConfigError, match="dimension"):
        ContinuityEquation(cells, Velocity.outside("tanh", np.eye(2)))
    with pytest.raises(ConfigError, match="periodic"):
        ContinuityEquation(cells, Velocity.outside("tanh", 1.0), "periodc")
    with pytest.raises(ConfigError, match="sum"):
        LagrangianCells(Velocity.outside("tanh", 1.0), [0.5, 0.6])


def test_lagrangian_cells_follow_a_law_to_an_atom_without_loss():
    # tanh, w < 0: W1(mu_t, atom) = E asinh(e^{-|w| t} |sinh y0|)/|w|, down to profiles of width 1e-6.
    w, b = -1.0, 0.5
    velocity = Velocity.outside("tanh", w, b)
    model, edges = LagrangianCells.start(velocity, ndtr, np.linspace(-9.0, 9.0, 4001))
    centre = Law.particles([-b / w])
    x, mass = np.linspace(-9, 9, 400_001), np.diff(ndtr(np.linspace(-9, 9, 400_001)))
    y0 = np.sinh(w * 0.5 * (x[1:] + x[:-1]) + b)
    deviation = np.sqrt(mass @ y0**2 - (mass @ y0) ** 2)
    for t in (4.0, 8.0, 14.0):
        law = model.law(integrate(model, edges, (0.0, t), n_steps=2000).final)
        predicted = mass @ np.abs(np.arcsinh(np.exp(-t) * y0))
        assert abs(wasserstein(law, centre) / predicted - 1.0) < 1e-5
    # Linear near the atom: the profile is the image of sinh y0.
    assert abs(law.variance() ** 0.5 / (np.exp(-14.0) * deviation) - 1.0) < 1e-3
    assert law.variance() ** 0.5 < 3e-6


def test_relu_gathers_the_mass_on_its_positive_side_and_leaves_the_rest():
    # W1 to the limit law is e^{-|w| t} E[y0_+]/|w| at every t.
    w, b = -1.0, 0.4
    model, edges = LagrangianCells.start(
        Velocity.outside("relu", w, b), ndtr, np.union1d(np.linspace(-9, 9, 3001), [0.4])
    )
    atom = ndtr(0.4)
    start = Law.cells(edges, model.masses)
    frozen = np.maximum(start.left, 0.4)
    limit = Law(start.mass, frozen, np.maximum(start.right, 0.4))
    expected = 0.4 * atom + np.exp(-(0.4**2) / 2) / np.sqrt(2 * np.pi)
    for t in (0.5, 3.0):
        law = model.law(integrate(model, edges, (0.0, t), n_steps=400).final)
        assert abs(wasserstein(law, limit) / (np.exp(-t) * expected) - 1.0) < 1e-4


def test_samples_of_a_gaussian_are_at_the_known_distance():
    assert abs(w1_constant(ndtr, -12.0, 12.0) - 1.2884) < 5e-5


def test_averages_and_marginals_of_cells():
    cells = Cells.box((0.0, -1.0), (1.0, 1.0), (5, 8))
    g = cells.average(lambda x, y: 0.5 * (1 + x * y))
    assert abs(cells.mass(g) - 1.0) < 1e-14
    assert abs(cells.law(g, 1).mean()) > 0.05
    assert cells.law(g, 0).mean() == pytest.approx(0.5)
    with pytest.raises(ConfigError, match="minimum"):
        cells.average(lambda x, y: x + y)
