"""Networks of variable width: orders, shortcuts, the loop over layers, pruning, bad input."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal

import numpy as np
import pytest
from helpers.moving_labels import SIZES, T, bias, kernel, start

from meanfield import (
    ConfigError,
    Controls,
    Dense,
    Grid,
    NumericalError,
    ResourceError,
    SpaceTimeNetwork,
    Status,
    create_run,
    integrate,
    open_run,
    steps,
)
from meanfield.diagnostics.rates import observed_order
from meanfield.formulas import kernel_between
from meanfield.models.variable import VariableWidthNetwork, importance, prune
from meanfield.operators.radial import RadialKernel
from meanfield.recorder import MemorySink
from meanfield.recording import record
from meanfield.transfer import endpoint_grid, growth, nodal_grid, prune_grid, wide_narrow_wide


def depths(n_layers):
    return np.linspace(0.0, T, n_layers + 1)


def infinitely_wide(n_layers, x, placement="inside"):
    """Euler with as many layers on 40 Gauss nodes (exact to round-off in the width), evaluated at any labels."""
    y, q = np.polynomial.legendre.leggauss(40)
    y, q, dt = (y + 1) / 2, q / 2, T / n_layers
    z, at_x = start(y), start(x)
    for _ in range(n_layers):
        if placement == "inside":
            change, change_x = (kernel(r[:, None], y) @ (q * np.tanh(z)) + bias(r) for r in (y, x))
        else:
            change, change_x = (np.tanh(kernel(r[:, None], y) @ (q * z) + bias(r)) for r in (y, x))
        z, at_x = z + dt * change, at_x + dt * change_x
    return at_x


def width_error(grids, placement="inside", interpolation="linear"):
    """Largest error of the output against the network with as many layers and infinite width: the part in h alone."""
    n_layers = len(grids) - 1
    model = VariableWidthNetwork(
        depths(n_layers), grids, kernel, "tanh", bias, placement=placement, interpolation=interpolation
    )
    z = model.unpack(integrate(model, start(grids[0].nodes), (0.0, T)).final)
    return np.abs(z - infinitely_wide(n_layers, grids[-1].nodes, placement)).max()


def finest_order(errors):
    return np.log2(errors[-2] / errors[-1])


def alternating(n, n_layers, family=endpoint_grid):
    """d_k = n, n + 1, n, ...: nodes that never meet, a change at every layer."""
    made = functools.cache(family)
    return [made(n + k % 2) for k in range(n_layers + 1)]


def test_reference_solves_the_limit():
    # The reference shares nothing with the package; a network of constant width must agree with it to O(h^2).
    errors = [width_error([endpoint_grid(n)] * 25) for n in SIZES]
    assert abs(finest_order(errors) - 2.0) <= 0.1
    assert errors[-1] < 1e-3


@pytest.mark.parametrize("placement", ["inside", "outside"])
@pytest.mark.parametrize(
    ("layers", "interpolation", "order"),
    [
        (lambda n: 24, "linear", 2.0),
        (lambda n: n - 1, "linear", 1.0),
        (lambda n: n - 1, "cubic", 2.0),
        (lambda n: (n - 1) ** 2 // 8, "cubic", 2.0),
    ],
    ids=["linear L fixed", "linear L~n", "cubic L~n", "cubic L~n^2"],
)
def test_width_changing_at_every_layer_costs_T_h_r_over_dt(placement, layers, interpolation, order):
    errors = [width_error(alternating(n, layers(n)), placement, interpolation) for n in SIZES]
    assert abs(finest_order(errors) - order) <= 0.1, errors
    assert errors[-1] < 0.03


@pytest.mark.parametrize("placement", ["inside", "outside"])
def test_linear_shortcuts_at_each_of_n_squared_layers_do_not_converge(placement):
    errors = [width_error(alternating(n, (n - 1) ** 2 // 8), placement) for n in SIZES]
    assert errors[-1] > 0.9 * errors[0]
    assert errors[0] > 0.03


@pytest.mark.parametrize("placement", ["inside", "outside"])
def test_nested_wide_narrow_wide_keeps_order_two(placement):
    errors = [width_error(wide_narrow_wide(n, (n + 1) // 2, 24), placement) for n in SIZES]
    assert abs(finest_order(errors) - 2.0) <= 0.1
    assert errors[-1] < 2e-3


def shortcut_norm(n, n_layers, family, **options):
    grids = alternating(n, n_layers, family)
    return VariableWidthNetwork(depths(n_layers), grids, kernel, "tanh", **options).shortcut_norm()


@pytest.mark.parametrize(
    ("family", "beyond", "bound"),
    [
        (endpoint_grid, "extrapolate", 1.0),
        (Grid.circle, "extrapolate", 1.0),
        (Grid.interval, "clamp", 1.0),
        (Grid.interval, "extrapolate", 1.2),
    ],
)
def test_products_of_linear_shortcuts_stay_bounded_whatever_the_depth(family, beyond, bound):
    norms = [shortcut_norm(16, n_layers, family, beyond=beyond) for n_layers in (10, 100, 400)]
    assert max(norms) <= bound + 1e-12
    assert norms[1] == pytest.approx(norms[2], rel=1e-6)


@pytest.mark.parametrize("family", [endpoint_grid, Grid.circle, Grid.interval])
def test_products_of_as_many_cubic_shortcuts_as_nodes_stay_bounded(family):
    norms = [shortcut_norm(n, n, family, interpolation="cubic") for n in (16, 32, 64, 128)]
    assert 1.2 < norms[-1] < 1.5
    assert norms[-1] == pytest.approx(norms[-2], rel=0.005)


def test_linear_shortcuts_beyond_the_last_node_keep_order_two():
    errors = [width_error(wide_narrow_wide(n, n // 2, 24, family=Grid.interval)) for n in (16, 32, 64, 128)]
    assert abs(finest_order(errors) - 2.0) <= 0.1


@pytest.mark.parametrize("seed", range(4))
def test_linear_shortcuts_onto_nodes_moved_less_than_a_cell_are_upwind_moving_mesh_steps(seed):
    rng = np.random.default_rng(seed)
    n, n_layers, dt = 14, 12, T / 12
    meshes = []
    for _ in range(n_layers + 1):
        inner = (np.arange(1, n - 1) + rng.uniform(-0.45, 0.45, n - 2)) / (n - 1)
        meshes.append(np.concatenate([[0.0], inner, [1.0]]))
    model = VariableWidthNetwork(
        depths(n_layers), [nodal_grid(x) for x in meshes], kernel, "tanh", bias, placement="inside"
    )
    z = start(meshes[0])
    for x, moved in itertools.pairwise(meshes):
        velocity, slope = (moved - x) / dt, np.diff(z) / np.diff(x)
        upwind = np.where(velocity > 0, np.append(slope, 0.0), np.concatenate([[0.0], slope]))
        q = np.concatenate([[x[1] - x[0]], x[2:] - x[:-2], [x[-1] - x[-2]]]) / 2
        rate = kernel(moved[:, None], x) @ (q * np.tanh(z)) + bias(moved)
        z = z + dt * (velocity * upwind + rate)
    assert np.ptp(np.array(meshes), axis=0).max() > 0.3 / n
    got = model.unpack(integrate(model, start(meshes[0]), (0.0, T)).final)
    np.testing.assert_allclose(got, z, rtol=0, atol=1e-13)


@pytest.mark.parametrize("placement", ["inside", "outside"])
@pytest.mark.parametrize("leak", [0.0, 0.7])
def test_constant_width_is_euler_of_the_space_time_network(placement, leak):
    grid = Grid.circle(19)
    ramp = Controls([0.0, T], [0.3, -0.4], "linear")
    options = {"placement": placement, "leak": leak, "n_samples": 3}
    model = VariableWidthNetwork(depths(40), [grid] * 41, kernel, "tanh", ramp, **options)
    full = SpaceTimeNetwork(Dense(grid, kernel), "tanh", ramp, **options)
    z0 = np.random.default_rng(0).standard_normal((3, 19))
    got = model.unpack(integrate(model, z0, (0.0, T)).final)
    expected = integrate(full, z0, (0.0, T), scheme="euler", n_steps=40).final
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("schedule", [lambda L: growth(4, 40, L), lambda L: wide_narrow_wide(31, 8, L)])
def test_fields_linear_in_the_label_know_nothing_of_the_widths(schedule):
    # Constant kernel: z - z0 is constant in x, so that linear shortcuts and the trapezoidal rule are exact and
    # what remains is Euler's error against z = z0 + (asinh(e^(kappa t) sinh u0) - u0)/kappa.
    kappa, beta = -2.0, -1.0
    u0 = kappa * 0.8 + beta
    shift = (np.arcsinh(np.exp(kappa * T) * np.sinh(u0)) - u0) / kappa
    errors, layers = [], (40, 80, 160, 320)
    for n_layers in layers:
        grids = schedule(n_layers)
        model = VariableWidthNetwork(depths(n_layers), grids, lambda x, y: kappa + 0 * x * y, "tanh", beta)
        got = model.unpack(integrate(model, 0.3 + grids[0].nodes, (0.0, T)).final)
        error = got - (0.3 + grids[-1].nodes + shift)
        assert np.ptp(error) < 1e-13
        errors.append(abs(error.mean()))
    assert abs(observed_order(1 / np.array(layers), errors).order - 1.0) <= 0.1
    assert errors[-1] < 2e-3


def test_layer_is_the_equation_written_out():
    grids = [endpoint_grid(6), Grid.interval(9, "gauss"), endpoint_grid(4)]
    t = np.array([0.0, 0.4, 0.5])

    def w(s, x, y):
        return np.exp(s * x) + y

    def b(s, x):
        return s - x

    z0 = np.random.default_rng(2).standard_normal((2, 6))
    for placement in ("inside", "outside"):
        model = VariableWidthNetwork(
            t, grids, w, "sigmoid", b, placement=placement, leak=0.3, interpolation="cubic", n_samples=2
        )
        z = z0
        for k, dt in enumerate(np.diff(t)):
            shortcut = model.shortcut(k).matrix.toarray()
            matrix = w(t[k], grids[k + 1].nodes[:, None], grids[k].nodes) * grids[k].weights
            shift = b(t[k], grids[k + 1].nodes)
            np.testing.assert_array_equal(model.matrix(k), matrix)
            if placement == "inside":
                change = (1 / (1 + np.exp(-z))) @ matrix.T + shift
            else:
                change = 1 / (1 + np.exp(-(z @ matrix.T + shift)))
            expected = z @ shortcut.T * (1 - 0.3 * dt) + dt * change
            z = model.step(k, z)
            np.testing.assert_allclose(z, expected, rtol=1e-13)


def test_labels_in_two_dimensions_and_radial_kernels():
    radial = RadialKernel("gaussian", 0.3, dim=2)
    grids = [Grid.square(6), Grid.square(6), Grid.square(4, "gauss")]
    model = VariableWidthNetwork([0.0, 0.5, 1.0], grids, radial, "relu", 0.1)
    solution = integrate(model, np.ones(36), (0.0, 1.0), save_at=2)
    assert model.unpack(solution.final).shape == (16,)
    np.testing.assert_array_equal(model.labels(solution.final), grids[2].nodes)
    np.testing.assert_array_equal(solution.fields["x2"][0], grids[0].nodes[:, 1])
    gap = grids[2].nodes[:, None] - grids[1].nodes
    np.testing.assert_allclose(model.matrix(1), np.exp(-(gap**2).sum(-1) / 0.09) / 36, rtol=1e-13)


def narrowing(n_samples=None, n_layers=30):
    grids = growth(12, 4, n_layers)
    model = VariableWidthNetwork(depths(n_layers), grids, kernel, "tanh", bias, n_samples=n_samples)
    lead = () if n_samples is None else (n_samples,)
    return model, np.random.default_rng(5).standard_normal((*lead, 12))


def test_saved_fields_are_padded_with_nan_beyond_the_width():
    model, z0 = narrowing(n_samples=3)
    probes = {"seen": lambda t, y, m: m.unpack(y).size}
    solution = integrate(model, z0, (0.0, T), save_at=10, probes=probes)
    z, x, width = (solution.fields[name] for name in ("z", "x", "width"))
    assert z.shape == (11, 3, 12)
    np.testing.assert_array_equal(width, model.widths[::3])
    assert width[0] == 12
    assert width[-1] == 4
    by_hand = z0
    for k in range(31):
        if k % 3 == 0:
            row, n = k // 3, model.widths[k]
            np.testing.assert_array_equal(z[row, :, :n], by_hand)
            np.testing.assert_array_equal(x[row, :n], model.grids[k].nodes)
            assert np.isnan(z[row, :, n:]).all()
            assert np.isnan(x[row, n:]).all()
            assert solution.probes["seen"][1][row] == 3 * n
        by_hand = model.step(k, by_hand) if k < 30 else by_hand


def test_part_of_the_depths_and_the_visible_loop():
    model, z0 = narrowing()
    middle = integrate(model, z0, (0.0, float(model.depths[11])))
    rest = integrate(model, model.unpack(middle.final), (float(model.depths[11]), T))
    whole = integrate(model, z0, (0.0, T))
    np.testing.assert_array_equal(rest.final, whole.final)
    packed = integrate(model, middle.final, (float(model.depths[11]), T))
    np.testing.assert_array_equal(packed.final, whole.final)
    seen = list(steps(model, z0, (0.0, T)))
    assert [s.number for s in seen] == list(range(1, 31))
    np.testing.assert_array_equal(seen[-1].y, whole.final)
    # Depths and times given to round-off are the same.
    np.testing.assert_array_equal(integrate(model, z0, (0.0, np.nextafter(T, 2.0)), save_at=[T]).final, whole.final)
    empty = integrate(model, z0, (0.0, 0.0))
    np.testing.assert_array_equal(model.unpack(empty.final), z0)


def test_event_ends_at_a_layer():
    model, z0 = narrowing()
    solution = integrate(model, z0, (0.0, T), stop=lambda t, y, m: bool(m.unpack(y).size < 9))
    assert solution.status is Status.EVENT
    assert model.unpack(solution.final).size == 8
    assert solution.final_time in model.depths


class Total:
    """Sum of all activations seen, an accumulating probe."""

    def init(self, t, y, model):
        self.total = 0.0

    def update(self, t, y, model):
        self.total += float(np.nansum(y))

    def value(self):
        return self.total

    def state(self):
        return {"total": np.array(self.total)}

    def restore(self, state):
        self.total = float(state["total"])


class Half(MemorySink):
    """Commits after every frame and keeps the states; or continues from one."""

    def __init__(self, state=None):
        super().__init__()
        self.states, self._state = [], state

    def begin(self, recording):
        super().begin(recording)
        return self._state

    def due(self):
        return True

    def commit(self, state):
        self.states.append(state)


@pytest.mark.parametrize("layer", [1, 13, 29])
def test_restart_at_any_layer_continues_bit_for_bit(layer):
    model, z0 = narrowing(n_samples=2)
    sink = Half()
    options = {"save_at": model.depths, "probes": {"total": Total()}}
    whole = integrate(model, z0, (0.0, T), sink=sink, **options)
    again = integrate(model, z0, (0.0, T), sink=Half(sink.states[layer - 1]), **options)
    np.testing.assert_array_equal(again.final, whole.final)
    np.testing.assert_array_equal(again.fields["z"], whole.fields["z"][layer + 1 :])
    np.testing.assert_array_equal(again.probes["total"][1], whole.probes["total"][1][layer + 1 :])


def test_an_interrupted_run_file_resumes_bit_for_bit(tmp_path):
    grids = growth(12, 4, 30)
    z0 = start(grids[0].nodes)
    calls = []

    def counted(s, x, y):
        calls.append(s)
        if len(calls) == 12:
            os.kill(os.getpid(), signal.SIGINT)
        return kernel(x, y) + 0 * s

    def model():
        return VariableWidthNetwork(depths(30), grids, KERNEL, "tanh", 0.2)

    class Kernel:
        """A kernel that a digest knows by its class alone."""

        def __call__(self, s, x, y):
            return counted(s, x, y)

    KERNEL = Kernel()
    solutions = {}
    for name in ("stopped", "whole"):
        path = tmp_path / f"{name}.h5"
        calls[:] = [] if name == "stopped" else [0.0] * 100
        for attempt in range(3):
            with contextlib.suppress(KeyboardInterrupt), create_run(path, {}, resume=attempt > 0) as run:
                solution = record(run, "net", model(), z0, (0.0, T), save_at=10)
                solutions[name, attempt] = solution
                if solution.status is Status.INTERRUPTED:
                    raise KeyboardInterrupt
                run.seal()
    assert solutions["stopped", 0].status is Status.INTERRUPTED
    assert 5 < solutions["stopped", 0].stats["n_steps"] < 20
    for solution in (solutions["stopped", 1], solutions["stopped", 2], solutions["whole", 1]):
        np.testing.assert_array_equal(solution.final, solutions["whole", 0].final)
        np.testing.assert_array_equal(solution.fields["z"], solutions["whole", 0].fields["z"])
    with open_run(tmp_path / "stopped.h5") as run:
        np.testing.assert_array_equal(run.series["net"]["layer_width"], [g.n_nodes for g in grids])
        np.testing.assert_array_equal(run.series["net"]["width"], [g.n_nodes for g in grids][::3])


def test_activations_that_leave_the_finite_numbers_end_the_run():
    grids = growth(12, 4, 30)
    model = VariableWidthNetwork(depths(30), grids, lambda x, y: 1e60 + 0 * x * y, "identity", 0.0)
    solution = integrate(model, np.ones(12), (0.0, T), save_at=30)
    assert solution.status is Status.NONFINITE
    assert np.isfinite(model.unpack(solution.final)).all()
    assert solution.stats["n_steps"] == len(solution.t) - 1 == 5
    with pytest.raises(NumericalError, match="take more layers"):
        solution.raise_for_status()
    with np.errstate(over="ignore"), pytest.raises(NumericalError, match=r"first layer is inf at t=0\.0, step 0"):
        integrate(
            VariableWidthNetwork(depths(30), grids, lambda x, y: 1e308 + 0 * x * y, "identity"), 4 * np.ones(12), (0, T)
        )


def test_schedules():
    assert [g.n_nodes for g in wide_narrow_wide(9, 5, 6)] == [9, 9, 9, 5, 5, 9, 9]
    assert [g.n_nodes for g in growth(3, 7, 4, family=Grid.circle)] == [3, 4, 5, 6, 7]
    assert [g.n_nodes for g in growth(7, 3, 2)] == [7, 5, 3]
    by_depth = VariableWidthNetwork([0.0, 1.0, 2.0], lambda t: int(4 + 2 * t), kernel, "tanh", family=Grid.interval)
    np.testing.assert_array_equal(by_depth.widths, [4, 6, 8])
    np.testing.assert_array_equal(by_depth.grids[1].nodes, Grid.interval(6).nodes)
    assert VariableWidthNetwork([0, 1], lambda t: Grid.circle(3), kernel, "tanh").shortcut(0) is None


def test_layer_matrices_are_sampled_once_while_grids_repeat():
    calls = []

    def counting(x, y):
        calls.append(np.shape(x))
        return kernel(x, y)

    integrate(VariableWidthNetwork(depths(24), wide_narrow_wide(17, 9, 24), counting, "tanh"), np.ones(17), (0.0, T))
    assert calls == [(17, 1), (9, 1), (9, 1), (17, 1)]


def test_importance_is_what_the_layer_loses_with_the_neuron():
    grid, target = Grid.interval(8, "gauss"), endpoint_grid(21)
    z = np.random.default_rng(3).standard_normal((5, 8))
    values = kernel_between(kernel, 0.0, target.nodes, grid.nodes)
    scores = importance(grid, z, values, target.weights)
    matrix = values * grid.weights
    for j in range(8):
        without = z.copy()
        without[:, j] = 0.0
        lost = target.norm((z - without) @ matrix.T)
        assert scores[j] == pytest.approx(np.sqrt(np.mean(lost**2)), rel=1e-12)


def test_pruning_keeps_the_neurons_that_matter_and_restricts_exactly():
    # Columns beyond x = 1/2 vanish: those neurons act on nothing, and none of them stays.
    def half(x, y):
        return np.where(y <= 0.5, kernel(x, y), 0.0)

    model = VariableWidthNetwork(depths(20), [endpoint_grid(33)] * 21, half, "tanh", bias, n_samples=2)
    z0 = np.stack([start(model.grids[0].nodes), np.ones(33)])
    smaller = prune(model, z0, {8: 16, 12: 9})
    assert smaller.widths.tolist() == [33] * 8 + [16] * 4 + [9] * 9
    assert smaller.grids[8].nodes.max() <= 0.5
    assert set(smaller.grids[12].nodes) < set(smaller.grids[8].nodes) < set(model.grids[0].nodes)
    assert smaller.grids[12].weights.sum() == pytest.approx(1.0)
    kept = np.searchsorted(model.grids[0].nodes, smaller.grids[8].nodes)
    np.testing.assert_array_equal(smaller.shortcut(7).matrix.toarray(), np.eye(33)[kept])
    np.testing.assert_array_equal(prune_grid(endpoint_grid(5), [3.0, 1.0, 1.0, 0.0, 2.0], 3).nodes, [0.0, 0.25, 1.0])


GRIDS = [endpoint_grid(4), endpoint_grid(3), endpoint_grid(5)]
BAD = [
    ({"depths": [0.0, 1.0]}, "grids has length 3, but depths has length 2"),
    ({"depths": [0.0, 1.0, 1.0]}, "depths must be at least two strictly increasing"),
    ({"depths": [0.0, np.nan, 1.0]}, "depths must be finite"),
    ({"depths": [0.0], "grids": GRIDS[:1]}, "at least two"),
    ({"grids": lambda t: int(2 - 2 * t)}, r"N\(t=1\.0\) must be a positive integer, got 0"),
    ({"grids": lambda t: 3.5}, r"N\(t=0\.0\) must be a positive integer, got 3\.5"),
    ({"grids": [4, 3, 5]}, "grids must hold grids, got 4"),
    ({"grids": [*GRIDS[:2], Grid.circle(3)]}, r"grids\[2\] and grids\[0\] differ"),
    ({"kernel": np.ones((4, 4))}, "kernel must be a callable"),
    ({"kernel": lambda x: x}, "kernel must be a callable"),
    ({"kernel": RadialKernel("gaussian", dim=2)}, "dim = 2"),
    ({"activation": "tanhh"}, "did you mean 'tanh'"),
    ({"bias": np.inf}, "bias must be finite"),
    ({"bias": Controls([0.0, 1.0], np.ones((1, 4)))}, r"bias has shape \(4,\)"),
    ({"placement": "above"}, "placement must be one of"),
    ({"leak": -1.0}, "leak must be >= 0"),
    ({"interpolation": "spline"}, "interpolation must be one of"),
    ({"beyond": "wrap"}, "beyond must be one of"),
    ({"n_samples": 0}, "n_samples must be a positive integer"),
]


def test_widths_beyond_the_memory_are_refused():
    with pytest.raises(ResourceError, match=r"10{12}.*GiB"):
        VariableWidthNetwork([0.0, 1.0], lambda t: 10**12, kernel, "tanh")


@pytest.mark.parametrize(("change", "words"), BAD, ids=[b[1][:30] for b in BAD])
def test_bad_networks_are_refused(change, words):
    arguments = {"depths": [0.0, 1.0, 2.0], "grids": GRIDS, "kernel": kernel, "activation": "tanh"} | change
    with pytest.raises(ConfigError, match=words):
        VariableWidthNetwork(**arguments)


RUNS = [
    ({"y0": np.ones(5)}, r"y0 has shape \(5,\), but the state at depth 0 has shape \(12,\)"),
    ({"y0": np.full(12, np.nan)}, "y0 must be finite"),
    ({"t_span": (0.0, 0.05)}, r"T 0\.05 is not on the step grid.*0\.04.*0\.08"),
    ({"t_span": (0.0, 9.0)}, r"T = 9\.0 lies outside the depths \[0\.0, 1\.3\]"),
    ({"t_span": (1.0, 0.0)}, "backwards"),
    ({"save_at": [0.05]}, r"save time 0\.05 is not on the step grid.*0\.04.*0\.08"),
    ({"save_at": 7}, "not on the step grid"),
    ({"dt": 0.1}, r"dt = 0\.1 does not apply"),
    ({"scheme": "rk4"}, "scheme = 'rk4' does not apply"),
    ({"rtol": 1e-3}, "rtol = 0.001 does not apply"),
]


@pytest.mark.parametrize(("change", "words"), RUNS, ids=[b[1][:30] for b in RUNS])
def test_bad_runs_are_refused(change, words):
    model, z0 = narrowing()
    arguments = {"y0": z0, "t_span": (0.0, T)} | change
    with pytest.raises(ConfigError, match=words):
        integrate(model, arguments.pop("y0"), arguments.pop("t_span"), **arguments)


CALLS = [
    (lambda m, z: m.step(30, z), "k = 30 is no layer: there are 30"),
    (lambda m, z: m.step(3, z), r"z has shape \(12,\), but the width at depth 3 is 11"),
    (lambda m, z: prune(m, z, {0: 3}), "keep names depth 0, expected 1 to 30"),
    (lambda m, z: prune(m, z, {4: 50}), "keep = 50 is more than the 11 nodes"),
    (lambda m, z: prune_grid(Grid.square(3), np.ones(9), 4), "dim = 1"),
    (lambda m, z: kernel_between(lambda x, y: np.ones(7), 0.0, z, z), r"kernel returned shape \(7,\)"),
    (lambda m, z: VariableWidthNetwork([0, 1], GRIDS[:2], kernel, "tanh", lambda x: x[:2]).bias_at(0), "bias returned"),
]


@pytest.mark.parametrize(("call", "words"), CALLS, ids=[b[1][:30] for b in CALLS])
def test_bad_calls_are_refused(call, words):
    model, z0 = narrowing()
    with pytest.raises(ConfigError, match=words):
        call(model, z0)
