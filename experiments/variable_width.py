"""Variable widths: moving meshes of neuron labels, and layers of different widths, against what theory predicts.

    python experiments/variable_width.py [--smoke | --full] [--out PATH] [--resume PATH]

A network whose width changes with depth is the integro-differential equation on a grid
that moves or changes: nodes carried along (with the transport term of the chain rule),
or interpolation P_k from the grid of one layer to that of the next. Each section measures one
claim: orders in the mesh width h, the case that does not converge and the equation it
converges to instead, the identity of both views, fronts followed by a mesh, and networks
taken away as plain finite ResNets. `--planted 0.05` simulates a kernel that is 5 % off
while the predictions stay: every verdict must then fail.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr

from meanfield.config import option
from meanfield.diagnostics.rates import observed_order
from meanfield.experiment import CONSEQUENCE, Experiment, RunFile
from meanfield.export import to_layers
from meanfield.grids import Grid
from meanfield.integration import integrate
from meanfield.meshes import Equidistribution, adapted_nodes
from meanfield.models.function import FunctionModel
from meanfield.models.moving import MovingGridNetwork
from meanfield.models.variable import VariableWidthNetwork, importance
from meanfield.operators.dense import Dense
from meanfield.operators.radial import RadialKernel
from meanfield.plotting import COLOURS, save, style
from meanfield.storage.reader import Run
from meanfield.transfer import endpoint_grid, nodal_grid, wide_narrow_wide
from meanfield.verdict import Verdict

PAPER = "Esteve, Geshkovski, Pighin, Zuazua, Large-time asymptotics in deep learning, arXiv 2008.02491"
DEPTH = 1.3
ORDER_REASON = "orders are asserted within 0.1"


@dataclass(frozen=True)
class Config:
    """Parameters of the experiment; depths and labels are pure numbers."""

    finest: int = option(129, "nodes of the finest mesh of the orders", least=65, most=1025)
    n_front: int = option(257, "nodes of the mesh that follows a front", least=129, most=1025)
    n_fronts: int = option(3, "how many of the widths 0.0035, 0.0025, 0.002 of fronts", least=1, most=3)
    race: bool = option(True, "race moving and fixed meshes at equal CPU time")
    planted: float = option(0.0, "relative error planted in every simulated kernel, to see verdicts fail")


def bias(x: np.ndarray) -> np.ndarray:
    """Bias of the order studies."""
    return 0.5 * np.sin(2 * x)


def start(x: np.ndarray) -> np.ndarray:
    """Initial field of the order studies."""
    return np.cos(2 * x) + x


def kernel(error: float = 0.0) -> Callable[..., np.ndarray]:
    """Kernel 1.5 cos(x - y) of the order studies, times 1 + error."""
    return lambda x, y: 1.5 * (1 + error) * np.cos(x - y)


def limit_of_width(n_layers: int, x: np.ndarray) -> np.ndarray:
    """Output at labels x of the network of n_layers Euler steps and infinite width.

    The kernel has rank two, so the field follows from two integrals, taken on 60 Gauss nodes:
    exact to round-off in the width.
    """
    grid = Grid.interval(60, "gauss")
    z, at_x, dt = start(grid.nodes), start(x), DEPTH / n_layers
    for _ in range(n_layers):
        weighted = grid.weights * np.tanh(z)
        change, change_x = (kernel()(r[:, None], grid.nodes) @ weighted + bias(r) for r in (grid.nodes, x))
        z, at_x = z + dt * change, at_x + dt * change_x
    return at_x


def width_error(grids: Sequence[Grid], interpolation: str, error: float) -> float:
    """Largest error of the output against the network of as many layers and infinite width: the part in h alone."""
    n_layers = len(grids) - 1
    depths = np.linspace(0.0, DEPTH, n_layers + 1)
    network = VariableWidthNetwork(
        depths, grids, kernel(error), "tanh", bias, placement="inside", interpolation=interpolation
    )
    z = network.unpack(integrate(network, start(grids[0].nodes), (0.0, DEPTH)).raise_for_status().final)
    return float(np.abs(z - limit_of_width(n_layers, grids[-1].nodes)).max())


def alternating(n: int, n_layers: int) -> list[Grid]:
    """Widths n, n + 1, n, ...: a change at every layer, between grids that share only their ends."""
    made = functools.cache(endpoint_grid)
    return [made(n + k % 2) for k in range(n_layers + 1)]


# Name in words, layers of a network with n nodes, interpolation, order in h.
SCHEDULES: dict[str, tuple[str, Callable[[int], list[Grid]], str, float]] = {
    "fixed_depth": ("d_k changes at each of 24 layers, linear P", lambda n: alternating(n, 24), "linear", 2.0),
    "depth_as_width": (
        "d_k changes at each of L = n - 1 layers, linear P",
        lambda n: alternating(n, n - 1),
        "linear",
        1.0,
    ),
    "cubic": ("d_k changes at each of L = n - 1 layers, cubic P", lambda n: alternating(n, n - 1), "cubic", 2.0),
    "nested": ("nested wide-narrow-wide, two changes", lambda n: wide_narrow_wide(n, (n + 1) // 2, 24), "linear", 2.0),
}


def sizes(config: Config) -> list[int]:
    """Numbers of nodes from 17 on, cells doubled."""
    found = [17]
    while 2 * found[-1] - 1 <= config.finest:
        found.append(2 * found[-1] - 1)
    return found


def changing_widths(config: Config, run: RunFile) -> None:
    """Orders of networks whose width changes from layer to layer."""
    for name, (words, grids, interpolation, order) in SCHEDULES.items():
        table = order_table(config, run, name, lambda n: width_error(grids(n), interpolation, config.planted))  # noqa: B023
        judge_order(run, f"{words}: order {order:g} in h", order, table)


def order_table(config: Config, run: RunFile, name: str, error: Callable[[int], float]) -> dict[str, Any]:
    """Errors over the sizes, as a table."""
    ns = sizes(config)
    return run.once(
        f"order_{name}",
        lambda: {"n": np.array(ns), "h": 1.0 / (np.array(ns) - 1.0), "error": np.array([error(n) for n in ns])},
        (name, ns, config.planted),
    )


def judge_order(run: RunFile, claim: str, order: float, table: dict[str, Any]) -> None:
    """Verdict on the slope between the two finest meshes."""
    slopes = observed_order(table["h"], table["error"]).slopes
    run.near(claim, order, float(slopes[-1]), tolerance=0.1, relative=False, reason=ORDER_REASON, source=PAPER)


def diffusive_limit(config: Config, run: RunFile) -> None:
    """Linear shortcuts at each of L ~ n^2 layers: no convergence, but to another equation.

    Between n and n + 1 nodes a label x lies at the places x or 1 - x of its cell, where interpolation is off by
    h^2 x (1 - x) z''/2 at every layer: diffusion D(x) = h^2 x (1 - x)/(2 dt), which does not vanish for
    L = (n - 1)^2/8.
    """
    final = np.linspace(0.0, 1.0, sizes(config)[-1])
    x = np.linspace(0.0, 1.0, 161)
    expected = np.interp(final, x, spread_out(x, x * (1 - x) / (16 * DEPTH)))
    table = order_table(
        config,
        run,
        "no_convergence",
        lambda n: width_error(alternating(n, (n - 1) ** 2 // 8), "linear", config.planted),
    )
    gap = float(np.abs(expected - limit_of_width(4000, final)).max())
    run.near(
        "d_k changes at each of L ~ n^2 layers, linear P: no convergence but diffusion; the error that stays",
        gap,
        float(table["error"][-1]),
        tolerance=0.03,
        reason="the equation with the diffusion of the shortcuts, on 161 nodes; the rest is O(h)",
    )


def spread_out(x: np.ndarray, diffusion: np.ndarray) -> np.ndarray:
    """Solution of d_t z = F + D(x) z_xx at depth `DEPTH`, D = 0 at the ends."""
    h = x[1] - x[0]
    weights = np.full(len(x), h)
    weights[[0, -1]] = h / 2
    matrix, shift = kernel()(x[:, None], x) * weights, bias(x)

    def rate(_t: float, z: np.ndarray) -> np.ndarray:
        curvature = np.zeros_like(z)
        curvature[1:-1] = (z[2:] - 2 * z[1:-1] + z[:-2]) / h**2
        return matrix @ np.tanh(z) + shift + diffusion * curvature

    return integrate(FunctionModel(rate, x.shape), start(x), (0.0, DEPTH), rtol=1e-8, atol=1e-10).final


def localised(error: float) -> Callable[..., np.ndarray]:
    """Kernel that reads mostly from the labels around 0.3, times 1 + error."""
    return lambda x, y: (1 + error) * 3.0 * np.cos(3 * (x - y)) * np.exp(-(((y - 0.3) / 0.12) ** 2))


def pruning(config: Config, run: RunFile) -> None:
    """Neurons dropped by importance: what one of them contributes, and what is lost with many."""
    grid = endpoint_grid(config.finest)
    depths = np.linspace(0.0, DEPTH, 21)
    z0 = np.stack([start(grid.nodes), np.sin(5 * grid.nodes), grid.nodes**2])
    whole = VariableWidthNetwork(depths, [grid] * 21, localised(config.planted), "tanh", bias, n_samples=3)
    scores = importance(grid, z0, localised(0.0)(grid.nodes[:, None], grid.nodes), grid.weights)
    least = int(np.argsort(scores)[len(scores) // 2])
    without = z0.copy()
    without[:, least] = 0.0
    change = (z0 - without) @ whole.matrix(0).T
    run.near(
        "importance of a neuron: the change of W z without it",
        float(scores[least]),
        float(np.sqrt(np.mean(grid.norm(change) ** 2))),
        tolerance=1e-12,
        reason="closed form, to round-off",
    )


def taken_away(config: Config, run: RunFile) -> None:
    """An hourglass and a pruned network as plain finite ResNets: the same numbers without this program."""
    grids = wide_narrow_wide(config.finest, (config.finest + 1) // 2, 24)
    depths = np.linspace(0.0, DEPTH, 25)
    z0 = np.stack([start(grids[0].nodes), np.sin(5 * grids[0].nodes), grids[0].nodes ** 2])

    def hourglass(error: float, placement: str) -> VariableWidthNetwork:
        return VariableWidthNetwork(depths, grids, kernel(error), "tanh", bias, placement=placement, n_samples=3)

    for placement in ("inside", "outside"):
        network = hourglass(0.0, placement)
        solution = run.integrate(f"hourglass_{placement}", network, z0, (0.0, DEPTH), save_at=depths).raise_for_status()
        plain = to_layers(hourglass(config.planted, placement)).forward(z0)
        there = network.unpack(solution.final)
        run.at_most(
            f"an hourglass taken away as a finite ResNet, sigma {placement}: its forward pass is the solver's",
            1e-13,
            float(np.abs(plain - there).max() / np.abs(there).max()),
            reason="the same sums in another order",
        )


def drift(t: float, x: np.ndarray) -> np.ndarray:
    """Mesh velocity of the order studies, zero at the ends of [0, 1]."""
    return 0.4 * np.sin(2 * np.pi * x) * np.cos(3 * t) * (1 + x)


def still(_t: float, x: np.ndarray) -> np.ndarray:
    """Velocity of a mesh that does not move."""
    return 0.0 * x


def infinitely_deep(x: np.ndarray) -> np.ndarray:
    """Limit of width and depth at labels x: start + DEPTH bias + cos(x) A + sin(x) B, two integrals to follow."""
    grid = Grid.interval(60, "gauss")
    rows = 1.5 * np.stack([np.cos(grid.nodes), np.sin(grid.nodes)]) * grid.weights
    basis = np.stack([np.cos(grid.nodes), np.sin(grid.nodes)])

    def rate(t: float, m: np.ndarray) -> np.ndarray:
        return rows @ np.tanh(start(grid.nodes) + t * bias(grid.nodes) + m @ basis)

    m = integrate(FunctionModel(rate, (2,)), np.zeros(2), (0.0, DEPTH), rtol=1e-12, atol=1e-13).final
    return start(x) + DEPTH * bias(x) + m[0] * np.cos(x) + m[1] * np.sin(x)


# Name of the table -> words, differences, velocity, order in h.
MOTIONS: dict[str, tuple[str, str, Callable[..., np.ndarray], float]] = {
    "upwind": ("moving mesh, upwind differences", "upwind", drift, 1.0),
    "central": ("moving mesh, central differences", "central", drift, 2.0),
    "fourth": ("moving mesh, fourth-order differences (the quadrature limits)", "fourth", drift, 2.0),
    "fixed": ("fixed mesh", "central", still, 2.0),
}


def moving_orders(config: Config, run: RunFile) -> None:
    """Orders in h of meshes that move with a given velocity."""
    for name, (words, transport, velocity, order) in MOTIONS.items():

        def error(n: int, transport: str = transport, velocity: Callable[..., np.ndarray] = velocity) -> float:
            grid = endpoint_grid(n)
            model = MovingGridNetwork(
                grid, kernel(config.planted), "tanh", bias, velocity=velocity, transport=transport, placement="inside"
            )
            steps = 2 * max(n, 125)
            final = integrate(model, model.pack(start(grid.nodes)), (0.0, DEPTH), scheme="rk4", n_steps=steps).final
            return float(np.abs(model.unpack(final) - infinitely_deep(model.labels(final))).max())

        judge_order(run, f"{words}: order {order:g} in h", order, order_table(config, run, f"moving_{name}", error))


def two_views(config: Config, run: RunFile) -> None:
    """Linear shortcuts onto nodes moved by at most one cell are upwind Euler steps of the moving mesh."""
    rng = np.random.default_rng(run.seed)
    x = np.concatenate([[0.0], np.sort(rng.random(62)), [1.0]])
    z, dt, gaps = rng.standard_normal((3, 64)), 0.05, np.diff(x)
    share = rng.uniform(-0.5, 0.5, 64)
    moved = x + np.where(share > 0, share * np.append(gaps, 0.0), share * np.insert(gaps, 0, 0.0))
    source, target = nodal_grid(x), nodal_grid(moved)
    carrier = MovingGridNetwork(
        source,
        lambda x, y: 0.0 * x * y,
        "identity",
        velocity=lambda _t, _x: (moved - x) / dt,
        transport="upwind",
        placement="inside",
        n_samples=3,
    )
    rate, state = np.empty(carrier.shape), carrier.pack(z)
    carrier.rate(0.0, state, rate)
    # F at the rows of the new nodes, the columns and weights of the old ones.
    right_hand_side = (np.tanh(z) * source.weights) @ kernel()(moved[:, None], x).T + bias(moved)
    euler = (state + dt * rate)[:3] + dt * right_hand_side
    layer = VariableWidthNetwork(
        [0.0, dt], [source, target], kernel(config.planted), "tanh", bias, placement="inside", n_samples=3
    )
    run.at_most(
        "linear P onto nodes moved by at most one cell: one layer is upwind ALE-Euler",
        1e-13,
        float(np.abs(layer.step(0, z) - euler).max()),
        reason="the same numbers in another order",
        source=PAPER,
    )


SPEED, PLACE, HEIGHT = 0.5, 0.25, 0.9
# Wide enough for 65 nodes to be seen.
PICTURED = 0.015
FRONTS = (0.0035, 0.0025, 0.002)


@dataclass(frozen=True)
class Front:
    """Travelling front z = atanh(c Phi(-(x - s(t))/width)), and the bias that makes it exact for w = -|x - y|.

    tanh(z) is a normal distribution function, whose integral against |x - y| is known in closed form by its
    second primitive.
    """

    width: float

    def z(self, t: float, x: np.ndarray) -> np.ndarray:
        """Activation at depth t."""
        return np.arctanh(HEIGHT * ndtr((PLACE + SPEED * t - x) / self.width))

    def bias(self, t: float, x: np.ndarray) -> np.ndarray:
        """b = d_t z + int |x - y| tanh(z(t, y)) dy."""
        v = (np.concatenate([x, [0.0, 1.0]]) - PLACE - SPEED * t) / self.width
        step, bell = ndtr(-v), np.exp(-0.5 * v * v) / math.sqrt(2 * math.pi)
        once = self.width * (v * step - bell)
        twice = 0.5 * self.width**2 * ((v * v + 1) * step - v * bell)

        def second(x: Any, value: Any) -> Any:
            return value - twice[-2] - once[-2] * x

        integral = 2 * second(x, twice[:-2]) - second(1.0, twice[-1]) + (1 - x) * (once[-1] - once[-2])
        slope = HEIGHT * bell[:-2] * SPEED / self.width / (1 - (HEIGHT * step[:-2]) ** 2)
        return slope + HEIGHT * integral

    def error(self, x: np.ndarray, values: np.ndarray) -> float:
        """L2 error at depth 1 of the piecewise linear field through the nodes."""
        fine = np.linspace(0.0, 1.0, 40001)
        return float(np.sqrt(np.mean((np.interp(fine, x, values) - self.z(1.0, fine)) ** 2)))

    def moving(self, n: int, planted: float) -> tuple[MovingGridNetwork, np.ndarray, int]:
        """Network on a mesh that follows the front, its state at the start, steps within the CFL condition."""
        # The mesh relaxes in a tenth of the depth in which the front moves by its width.
        mesh = Equidistribution(reach=4.0, time=0.2 * self.width)
        grid = nodal_grid(adapted_nodes(lambda x: self.z(0.0, x), n, mesh=mesh))
        w = RadialKernel("distance", amplitude=-(1 + planted))
        model = MovingGridNetwork(grid, w, "tanh", self.bias, velocity=mesh, transport="fourth", placement="inside")
        return model, model.pack(self.z(0.0, grid.nodes)), math.ceil(n / (8 * self.width))

    def fixed(self, n: int) -> tuple[FunctionModel, np.ndarray, int]:
        """Network on n fixed nodes with a dense matrix, its state at the start, steps that resolve the front."""
        grid = endpoint_grid(n)
        operator = Dense(grid, RadialKernel("distance", amplitude=-1.0))

        def rate(t: float, z: np.ndarray) -> np.ndarray:
            return operator.apply(np.tanh(z)) + self.bias(t, grid.nodes)

        return FunctionModel(rate, (n,)), self.z(0.0, grid.nodes), math.ceil(1 / self.width)


def raced(front: Front, sizes: Sequence[int], n_moving: int, planted: float) -> dict[str, np.ndarray]:
    """Error and CPU seconds of the moving mesh (first row) and of fixed ones."""
    rows = []
    for n, moves in [(n_moving, True), *((n, False) for n in sizes)]:
        model, y0, steps = front.moving(n, planted) if moves else front.fixed(n)
        integrate(model, y0, (0.0, 2.0 / steps), scheme="rk4", n_steps=2)  # compiled before the clock runs
        began = time.process_time()
        final = integrate(model, y0, (0.0, 1.0), scheme="rk4", n_steps=steps).raise_for_status().final
        seconds = time.process_time() - began
        x, z = (final[-1], final[0]) if moves else (np.linspace(0.0, 1.0, n), final)
        rows.append((n, moves, steps, seconds, front.error(x, z)))
    columns = np.array(rows, dtype=np.float64).T
    return dict(zip(("n", "moving", "steps", "cpu_seconds", "error"), columns, strict=True))


def error_at(budget: float, seconds: np.ndarray, error: np.ndarray) -> float:
    """Error of fixed meshes for a budget of seconds: straight lines in the logarithms, the last one continued."""
    x, y = np.log(seconds), np.log(error)
    if budget > seconds[-1]:
        return float(np.exp(y[-1] + (y[-1] - y[-2]) / (x[-1] - x[-2]) * (np.log(budget) - x[-1])))
    return float(np.exp(np.interp(np.log(budget), x, y)))


def fronts(config: Config, run: RunFile) -> None:
    """Meshes that follow travelling fronts of three widths, against fixed ones of as many nodes and as many seconds.

    Both evaluate or store any kernel, N^2 of work: each takes the steps it needs, the moving mesh those of its CFL
    condition. Fronts of width 0.005 and more cost as much or less on a fixed mesh, and any whose kernel compresses.
    """
    n = config.n_front
    for width in FRONTS[: config.n_fronts]:
        front = Front(width)
        ladder = [n, *(k * (n - 1) + 1 for k in (4, 8, 16))] if config.race else [n]
        table = run.once(
            f"front_{width:g}",
            lambda: raced(front, ladder, n, config.planted),  # noqa: B023
            (width, ladder, config.planted),
        )
        error, seconds = table["error"], table["cpu_seconds"]
        run.at_most(
            f"front of width {width:g}, {n} nodes: the moving mesh has a tenth of the error of the fixed one",
            0.1,
            float(error[0] / error[1]),
            reason="the ratio of L2 errors grows as 1/width^2",
        )
        claim = f"front of width {width:g}: the moving mesh is ahead at equal CPU time"
        if config.race:
            there = error_at(seconds[0], seconds[1:], error[1:])
            run.at_most(
                claim,
                1.0,
                float(error[0]) / there,
                reason="errors over CPU seconds of this machine, RK4 both, dense kernels",
            )
        else:
            words = "seconds of such short runs decide nothing"
            run.verdict(Verdict(claim, 1.0, math.nan, math.nan, "not_tested", words, CONSEQUENCE))
    model, y0, steps = Front(PICTURED).moving(65, config.planted)
    run.integrate("front", model, y0, (0.0, 1.0), scheme="rk4", n_steps=8 * math.ceil(steps / 8), save_at=8)


def run(config: Config, run_file: RunFile) -> None:
    """Every section in turn."""
    changing_widths(config, run_file)
    diffusive_limit(config, run_file)
    moving_orders(config, run_file)
    two_views(config, run_file)
    fronts(config, run_file)
    pruning(config, run_file)
    taken_away(config, run_file)


def figure(run: Run, path: Path) -> None:
    """Six panels: mesh and front, orders of moving meshes and of changing widths, the race, an hourglass."""
    with style() as plt:
        drawing, axes = plt.subplots(2, 3, figsize=(12.5, 7.6), layout="constrained")
        draw_mesh(axes[0, 0], run)
        draw_front(axes[0, 1], run)
        draw_race(axes[0, 2], run)
        draw_orders(axes[1, 0], run, "Moving mesh, N nodes", {f"moving_{k}": v[0] for k, v in MOTIONS.items()})
        words = {k: v[0] for k, v in SCHEDULES.items()} | {
            "no_convergence": "d_k changes at each of L ~ n² layers: none"
        }
        draw_orders(axes[1, 1], run, "Widths d_k that change with the layer", words)
        draw_hourglass(drawing, axes[1, 2], run)
        save(drawing, path)


def draw_mesh(axis: Any, run: Run) -> None:
    """Draw where the nodes go."""
    series = run.series["front"]
    for nodes in series["x"].T[::2]:
        axis.plot(series["time"], nodes, color=COLOURS[0], lw=0.6)
    axis.plot(series["time"], PLACE + SPEED * series["time"], "--", color=COLOURS[1], label="the front")
    axis.set(title="A mesh of 65 nodes follows a front (every other one)", xlabel="depth t", ylabel="label x")
    axis.legend(loc="lower right")


def draw_front(axis: Any, run: Run) -> None:
    """Draw the front at the end on both meshes."""
    series, front = run.series["front"], Front(PICTURED)
    x, even = np.linspace(0.6, 0.9, 1501), np.linspace(0.0, 1.0, 65)
    axis.plot(x, front.z(1.0, x), color="0.6", lw=4, label="exact")
    axis.plot(series["x"][-1], series["z"][-1], "o-", ms=3, lw=1, color=COLOURS[0], label="moving mesh")
    axis.plot(even, front.z(1.0, even), "s--", ms=3, lw=1, color=COLOURS[1], label="fixed mesh, exact values")
    axis.set(title="The front at depth 1, 65 nodes each", xlabel="label x", ylabel="z", xlim=(0.68, 0.82))
    axis.legend()


def draw_race(axis: Any, run: Run) -> None:
    """Draw errors over CPU seconds."""
    for i, width in enumerate(FRONTS[: run.config["n_fronts"]]):
        table = run.tables[f"front_{width:g}"]
        fixed = table["moving"] == 0
        axis.loglog(table["cpu_seconds"][fixed], table["error"][fixed], "s--", ms=4, lw=1, color=COLOURS[i])
        axis.loglog(
            table["cpu_seconds"][~fixed], table["error"][~fixed], "o", ms=9, color=COLOURS[i], label=f"width {width:g}"
        )
    axis.set(title="Fronts: moving mesh (discs), fixed meshes (squares)", xlabel="CPU seconds", ylabel="L2 error")
    axis.legend()


def draw_orders(axis: Any, run: Run, title: str, words: dict[str, str]) -> None:
    """Draw errors over h with their last slopes."""
    for i, (name, label) in enumerate(words.items()):
        table = run.tables[f"order_{name}"]
        h, error = table["h"], table["error"]
        slope = math.log(error[-2] / error[-1]) / math.log(h[-2] / h[-1])
        short = label.split(" (")[0]
        axis.loglog(h, error, "o-", ms=4, color=COLOURS[i], label=f"{short}: {slope:.2f}")
    axis.set_xticks(h, [f"1/{round(1 / width)}" for width in h])
    axis.minorticks_off()
    axis.set(title=title, xlabel="mesh width h", ylabel="largest error", ylim=(None, 30 * axis.get_ylim()[1]))
    axis.legend(loc="upper left", fontsize=7)


def draw_hourglass(drawing: Any, axis: Any, run: Run) -> None:
    """Draw the activations of an hourglass: grey where there are no neurons."""
    series = run.series["hourglass_inside"]
    values = np.ma.masked_invalid(series["z"][:, 0].T)
    axis.set_facecolor("0.85")
    depth = series["time"]
    image = axis.pcolormesh(depth, np.arange(len(values)), values, shading="nearest")
    drawing.colorbar(image, ax=axis, label="z")
    axis.set(title="An hourglass: 24 layers, half the width in the middle", xlabel="depth t", ylabel="neuron")


EXPERIMENT = Experiment(
    name="variable_width",
    config=Config,
    run=run,
    figure=figure,
    smoke={"n_front": 129, "n_fronts": 2, "race": False},
    full={"finest": 513, "n_front": 513},
    references=(PAPER,),
    description=(__doc__ or "").split("\n")[0],
)


def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line."""
    return EXPERIMENT.main(argv)


if __name__ == "__main__":
    sys.exit(main())
