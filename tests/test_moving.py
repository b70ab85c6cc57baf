"""Networks on moving meshes: orders, what every motion keeps, fronts, the CFL condition, tangling, files."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from helpers.moving_labels import SIZES, T, bias, kernel, start
from scipy.integrate import solve_ivp

from meanfield import Controls, Dense, Grid, RadialKernel, SpaceTimeNetwork, create_run, integrate, open_run
from meanfield.diagnostics.rates import observed_order
from meanfield.errors import ConfigError, NumericalError
from meanfield.meshes import Equidistribution, adapted_nodes
from meanfield.models.moving import MovingGridNetwork
from meanfield.recording import record
from meanfield.transfer import endpoint_grid, nodal_grid, transfer


def drift(t, x):
    """Velocity that leaves the ends of [0, 1] where they are."""
    return 0.4 * np.sin(2 * np.pi * x) * np.cos(3 * t) * (1 + x)


def infinitely_wide(x, placement, kernel=kernel, start=start, periodic=False):
    """Solution at labels x: Gauss nodes (or 64 of the circle) and DOP853, no code of the package."""
    y, q = np.polynomial.legendre.leggauss(40)
    y, q = ((y + 1) / 2, q / 2) if not periodic else (np.arange(64) / 64, np.full(64, 1 / 64))
    every = np.concatenate([y, x])
    matrix, shift = kernel(every[:, None], y) * q, 0.0 if periodic else bias(every)
    n = len(y)

    def rate(_t, z):
        return matrix @ np.tanh(z[:n]) + shift if placement == "inside" else np.tanh(matrix @ z[:n] + shift)

    return solve_ivp(rate, (0, T), start(every), method="DOP853", rtol=1e-11, atol=1e-12).y[n:, -1]


def moved_error(n, transport, velocity=drift, placement="inside"):
    grid = endpoint_grid(n)
    model = MovingGridNetwork(grid, kernel, "tanh", bias, velocity=velocity, transport=transport, placement=placement)
    final = integrate(model, model.pack(start(grid.nodes)), (0.0, T), scheme="rk4", n_steps=250).final
    return np.abs(model.unpack(final) - infinitely_wide(model.labels(final), placement)).max()


@pytest.mark.parametrize("placement", ["inside", "outside"])
@pytest.mark.parametrize(("transport", "order"), [("upwind", 0.9), ("central", 2.0), ("fourth", 2.0)])
def test_orders_on_a_moving_mesh(transport, order, placement):
    errors = [moved_error(n, transport, placement=placement) for n in SIZES]
    slopes = observed_order(1 / np.array(SIZES), errors).slopes
    assert abs(slopes[-1] - order) <= 0.1, (slopes, errors)
    if transport == "upwind":  # rises towards one
        assert (np.diff(slopes) > 0).all()
        assert 0.7 < slopes[0] < 0.9


def test_order_on_a_mesh_that_stands_still_is_that_of_the_quadrature():
    errors = [moved_error(n, "central", lambda _t, x: 0.0 * x) for n in SIZES]
    assert abs(observed_order(1 / np.array(SIZES), errors).slopes[-1] - 2.0) <= 0.1


def circular(x, y):
    return np.cos(2 * np.pi * (x - y)) + 0.3 * np.sin(4 * np.pi * (x - y))


def wave(x):
    return np.exp(np.sin(2 * np.pi * x))


@pytest.mark.parametrize(("transport", "order"), [("central", 2.0), ("fourth", 4.0)])
def test_orders_on_a_circle_where_the_quadrature_keeps_up(transport, order):
    sizes, errors = (24, 48, 96, 192), []
    for n in sizes:
        grid = Grid.circle(n)
        model = MovingGridNetwork(
            grid,
            circular,
            "tanh",
            velocity=lambda t, x: 0.3 + 0.2 * np.cos(2 * np.pi * x) * np.sin(2 * t),
            transport=transport,
            placement="inside",
        )
        final = integrate(model, model.pack(wave(grid.nodes)), (0.0, T), scheme="rk4", n_steps=400).final
        x = model.labels(final)
        errors.append(np.abs(model.unpack(final) - infinitely_wide(x, "inside", circular, wave, True)).max())
    assert abs(observed_order(1 / np.array(sizes), errors).slopes[-1] - order) <= 0.1, errors


def test_order_on_a_tensor_mesh():
    # w = u(x) u(y), u = cos(x_1) (1 + x_2): the field stays start + bias t + u(x) m(t), one integral to follow.
    def u(x):
        return np.cos(x[..., 0]) * (1 + x[..., 1])

    def z0(x):
        return np.sin(2 * x[..., 0]) * x[..., 1]

    fine, q = Grid.square(30, "gauss").nodes, Grid.square(30, "gauss").weights
    total = solve_ivp(
        lambda _t, m: [q @ (u(fine) * np.tanh(z0(fine) + u(fine) * m[0]))], (0, 1), [0.0], method="DOP853", rtol=1e-11
    ).y[0, -1]
    errors, sizes = [], (9, 17, 33)
    for n in sizes:
        side = endpoint_grid(n)
        nodes = np.stack(np.meshgrid(side.nodes, side.nodes, indexing="ij"), axis=-1).reshape(-1, 2)
        grid = Grid(nodes, np.outer(side.weights, side.weights).ravel(), shape=(n, n))
        model = MovingGridNetwork(
            grid,
            lambda x, y: u(x) * u(y),
            "tanh",
            velocity=lambda t, x: 0.3 * np.sin(np.pi * x) * np.array([np.cos(t), -1.0]),
            placement="inside",
            n_samples=2,
        )
        y0 = model.pack(np.stack([z0(nodes), z0(nodes)]))
        final = integrate(model, y0, (0.0, 1.0), scheme="rk4", n_steps=60).final
        z, x = model.unpack(final), model.labels(final)
        np.testing.assert_array_equal(z[0], z[1])
        errors.append(np.abs(z[0] - z0(x) - u(x) * total).max())
    assert abs(observed_order(1 / np.array(sizes), errors).slopes[-1] - 2.0) <= 0.1, errors


@pytest.mark.parametrize("kind", ["formula", "radial"])
@pytest.mark.parametrize("placement", ["inside", "outside"])
def test_a_mesh_that_stands_still_is_the_fixed_network(kind, placement):
    grid = Grid.interval(40)
    w = RadialKernel("cauchy", length=0.3, left=np.cos) if kind == "radial" else kernel
    z0 = np.random.default_rng(0).standard_normal((3, 40))
    moving = MovingGridNetwork(
        grid, w, "tanh", 0.3, velocity=lambda _t, x: 0 * x, placement=placement, leak=0.2, n_samples=3
    )
    fixed = SpaceTimeNetwork(Dense(grid, w), "tanh", 0.3, placement=placement, leak=0.2, n_samples=3)
    final = integrate(moving, moving.pack(z0), (0, 2), dt=0.1).final
    np.testing.assert_allclose(moving.unpack(final), integrate(fixed, z0, (0, 2), dt=0.1).final, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(moving.labels(final), grid.nodes)


@pytest.mark.parametrize("transport", ["upwind", "central", "fourth"])
@pytest.mark.parametrize("periodic", [False, True])
def test_every_motion_keeps_the_sum_of_weights_the_order_and_constants(transport, periodic):
    grid = Grid.circle(30) if periodic else endpoint_grid(30)
    model = MovingGridNetwork(
        grid,
        lambda x, y: 0.0 * x * y,
        "tanh",
        Controls([0, 1], [0.0], interpolation="constant"),
        velocity=lambda t, x: 0.15 * np.sin(2 * np.pi * x) * np.cos(t) + (0.5 if periodic else 0.0),
        transport=transport,
        n_samples=2,
    )
    z0 = np.stack([np.full(30, 0.7), np.cos(2 * np.pi * grid.nodes)])
    solution = integrate(model, model.pack(z0), (0, 1), dt=1 / 256, save_at=8)
    for z, x, q in zip(solution.y, solution.fields["x"], solution.fields["weight"], strict=True):
        assert abs(q.sum() - 1.0) < 1e-13
        assert (q > 0).all()
        assert (np.diff(x) > 0).all()
        np.testing.assert_array_equal(z[0], 0.7)
        # Leading terms for |xdot| <= 0.65 and cells up to 0.05: xdot h (2 pi)^2/2 and xdot h^2 (2 pi)^3/6.
        bound = 0.64 if transport == "upwind" else 0.067
        assert np.abs(z[1] - np.cos(2 * np.pi * x)).max() < bound


def test_linear_transfers_to_nodes_moved_by_at_most_a_cell_are_upwind_euler():
    rng = np.random.default_rng(4)
    x = np.sort(np.concatenate([[0.0, 1.0], rng.random(40)]))
    z, dt, cell = rng.standard_normal((2, 42)), 0.05, np.diff(x)
    fraction = rng.uniform(-1, 1, 42)
    moved = x + np.where(fraction > 0, fraction * np.append(cell, 0), fraction * np.insert(cell, 0, 0))
    moved = np.sort(moved)
    inside = (moved >= np.insert(x, 0, 0)[:-1]) & (moved <= np.append(x, 1)[1:])
    assert inside.all()
    source, target = nodal_grid(x), nodal_grid(np.maximum.accumulate(moved + 1e-9 * np.arange(42) * 0))
    model = MovingGridNetwork(
        source,
        lambda x, y: 0 * x * y,
        "identity",
        velocity=lambda _t, _x: (moved - x) / dt,
        transport="upwind",
        n_samples=2,
    )
    out = np.empty(model.shape)
    y = model.pack(z)
    model.rate(0.0, y, out)
    signal = np.tanh(z) * source.weights
    new = moved[:, None]
    change = dt * (signal @ kernel(new, x[None]).T + bias(moved))
    carried = transfer(source, target, "linear").apply(z) + change
    ale = (y + dt * out)[:2] + change
    np.testing.assert_allclose(ale, carried, rtol=0, atol=1e-13)


SPEED, PLACE, HEIGHT = 0.5, 0.25, 0.9


def softplus_integral(v):
    """int_{-inf}^v log(1 + e^s) ds = -Li_2(-e^v)."""
    from scipy.special import spence

    return np.where(v > 0, v**2 / 2 + math.pi**2 / 6 + spence(1 + np.exp(-np.abs(v))), -spence(1 + np.exp(-np.abs(v))))


def front(delta):
    """Front atanh(c / (1 + e^(2 (x - s)/delta))), s = 1/4 + t/2, and the bias that makes it exact for w = -|x - y|."""

    def argument(t, x):
        return np.clip(2 * (x - PLACE - SPEED * t) / delta, -700, 700)

    def z(t, x):
        return np.arctanh(HEIGHT / (1 + np.exp(argument(t, x))))

    def b(t, x):
        v, h = argument(t, np.concatenate([x, [0.0, 1.0]])), delta / 2
        step = 1 / (1 + np.exp(v[:-2]))
        slope = HEIGHT * step * (1 - step) * 2 * SPEED / delta / (1 - (HEIGHT * step) ** 2)
        once, twice = np.logaddexp(0, v), softplus_integral(v)
        total = 1 - h * (once[-1] - once[-2])

        def second(x, p):
            return x * x / 2 - h * h * (p - twice[-2]) + x * h * once[-2]

        integral = 2 * second(x, twice[:-2]) - second(1.0, twice[-1]) + (1 - x) * total
        return slope + HEIGHT * integral

    return z, b


def reconstruction_error(x, values, exact):
    """L2 error of linear interpolation on [0, 1]."""
    fine = np.linspace(0, 1, 20001)
    return np.sqrt(np.mean((np.interp(fine, x, values) - exact(1.0, fine)) ** 2))


def front_errors(delta, n, n_steps):
    z, b = front(delta)
    mesh = Equidistribution()
    errors = []
    for grid, velocity in (
        (nodal_grid(adapted_nodes(functools.partial(z, 0.0), n, mesh=mesh)), mesh),
        (endpoint_grid(n), lambda _t, x: 0.0 * x),
    ):
        model = MovingGridNetwork(
            grid,
            RadialKernel("distance", amplitude=-1.0),
            "tanh",
            b,
            velocity=velocity,
            transport="fourth",
            placement="inside",
        )
        final = integrate(model, model.pack(z(0.0, grid.nodes)), (0.0, 1.0), scheme="rk4", n_steps=n_steps).final
        errors.append(reconstruction_error(model.labels(final), model.unpack(final), z))
    return errors


@pytest.mark.parametrize(("delta", "n_steps"), [(0.02, 800), (0.01, 1600)])
def test_a_mesh_that_follows_a_front_is_ten_times_as_accurate(delta, n_steps):
    moving, fixed = front_errors(delta, 129, n_steps)
    assert fixed > 10 * moving
    assert moving < 2e-4


def test_manufactured_front_solves_the_equation():
    z, b = front(0.05)
    y, q = np.polynomial.legendre.leggauss(400)
    y, q, x = (y + 1) / 2, q / 2, np.linspace(0, 1, 11)
    integral = (-np.abs(x[:, None] - y) * q) @ np.tanh(z(0.4, y))
    change = (z(0.4 + 1e-5, x) - z(0.4 - 1e-5, x)) / 2e-5
    np.testing.assert_allclose(change, integral + b(0.4, x), atol=2e-5)


def test_steps_over_the_cfl_limit_are_refused():
    grid = endpoint_grid(11)
    model = MovingGridNetwork(grid, kernel, "tanh", velocity=lambda _t, x: np.sin(np.pi * x), transport="upwind")
    y0 = model.pack(start(grid.nodes))
    with pytest.raises(ConfigError, match=r"dt = 0.2 breaks the CFL condition: the largest dt is 0.1"):
        integrate(model, y0, (0, 1), scheme="euler", dt=0.2)
    assert integrate(model, y0, (0, 1), scheme="euler", dt=0.02).final.shape == (2, 11)
    late = MovingGridNetwork(
        grid,
        kernel,
        "tanh",
        velocity=lambda t, x: 30 * t**4 * np.sin(np.pi * x) * np.cos(np.pi * x),
        transport="upwind",
    )
    with pytest.raises(NumericalError, match=r"CFL condition: the largest dt is .* at t=0\.\d+, step \d+"):
        integrate(late, y0, (0, 1), scheme="euler", dt=0.02)
    assert integrate(late, y0, (0, 0.5), rtol=1e-6).status.value == "finished"


def test_a_mesh_that_tangles_is_an_error():
    grid = endpoint_grid(21)
    model = MovingGridNetwork(grid, kernel, "tanh", velocity=lambda _t, x: -np.sin(2 * np.pi * x) * (x < 0.5) * 3)
    with pytest.raises(NumericalError, match=r"the mesh tangles at t=0\.\d+: a cell has the length"):
        integrate(model, model.pack(start(grid.nodes)), (0, 5), dt=0.005)


def test_a_mesh_that_leaves_the_interval_is_an_error():
    grid = endpoint_grid(9)
    model = MovingGridNetwork(grid, kernel, "tanh", velocity=lambda _t, _x: 0.5)
    with pytest.raises(NumericalError, match=r"the mesh leaves \[0, 1\] at t=0\.\d+: its ends are"):
        integrate(model, model.pack(start(grid.nodes)), (0, 1), dt=0.01)


def test_runs_are_stored_and_continued_bit_for_bit(tmp_path):
    grid = nodal_grid(adapted_nodes(lambda x: np.tanh((x - 0.4) / 0.05), 33))
    model = MovingGridNetwork(grid, kernel, "tanh", bias, velocity=Equidistribution(), n_samples=2)
    y0 = model.pack(np.stack([start(grid.nodes), np.tanh((grid.nodes - 0.4) / 0.05)]))
    once = integrate(model, y0, (0, 1), dt=1 / 128)
    half = integrate(model, y0, (0, 0.5), dt=1 / 128)
    np.testing.assert_array_equal(integrate(model, half.final, (0.5, 1), dt=1 / 128).final, once.final)
    with create_run(tmp_path / "m.h5", {}) as run:
        stored = record(run, "moving", model, y0, (0.0, 1.0), dt=1 / 128, save_at=4)
    np.testing.assert_array_equal(stored.final, once.final)
    with open_run(tmp_path / "m.h5") as run:
        series = run.series["moving"]
        assert series["z"].shape == (5, 2, 33)
        np.testing.assert_array_equal(series["x"][-1], once.final[-1])
        np.testing.assert_allclose(series["weight"].sum(axis=1), 1.0, rtol=1e-13)


def test_bad_arguments_are_refused():
    grid = endpoint_grid(9)
    still = {"velocity": lambda _t, x: 0 * x}
    with pytest.raises(ConfigError, match="kernel must be a callable"):
        MovingGridNetwork(grid, np.eye(9), "tanh", **still)
    with pytest.raises(ConfigError, match="velocity must be"):
        MovingGridNetwork(grid, kernel, "tanh", velocity=1.0)
    with pytest.raises(ConfigError, match="unknown transport 'centre', did you mean 'central'"):
        MovingGridNetwork(grid, kernel, "tanh", transport="centre", **still)
    with pytest.raises(ConfigError, match="must increase"):
        MovingGridNetwork(Grid.random(9), kernel, "tanh", **still)
    with pytest.raises(ConfigError, match="needs an interval"):
        MovingGridNetwork(Grid.random(9, dim=2), kernel, "tanh", **still)
    with pytest.raises(ConfigError, match=r"z has shape \(8,\), expected \(9\)|z has shape \(8,\), expected \(9"):
        MovingGridNetwork(grid, kernel, "tanh", **still).pack(np.zeros(8))
    short = MovingGridNetwork(grid, kernel, "tanh", velocity=lambda _t, _x: np.ones(3))
    with pytest.raises(ConfigError, match=r"velocity returned shape \(3,\), expected \(9,\)"):
        integrate(short, short.pack(np.zeros(9)), (0, 1), dt=0.1)
    square = Grid.square(4)
    twisted = MovingGridNetwork(square, lambda x, y: x[..., 0] * y[..., 0], "tanh", velocity=lambda _t, x: x[:, ::-1])
    with pytest.raises(ConfigError, match="may depend on the label x_d alone"):
        integrate(twisted, twisted.pack(np.zeros(16)), (0, 1), dt=0.1)
