"""Deep ReLU networks built to follow a flow: what they cost, and how fast they get there.

    python experiments/expressivity.py [--smoke | --full] [--out PATH] [--resume PATH]

Nothing is trained. Blocks interpolate time integrals of a field on a mesh, by ReLU layers that do so exactly; errors
are the largest that a search over starts and blocks finds, against flows in closed form. Sections: layers against
interpolation by cells, few neurons in a layer among them; the errors of x' = sin x in time and in space; rates in time
(smooth, Hoelder continuous, singular; averaged, pointwise, equidistributed and Runge-Kutta blocks); rates in space
(twice differentiable, Lipschitz; d = 1, 2, 3); error against parameters when both are refined; networks for a given
accuracy with their certificates.

`--planted 0.05` builds the networks for a field 5 % too strong while the flows stay. Errors then stop falling. Those
claims of `BLIND` compare networks with themselves or with bounds far above, or have errors far above the planted one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from meanfield.config import option
from meanfield.constructions.certificate import certify, largest_error
from meanfield.constructions.flow_network import FlowNetwork
from meanfield.constructions.problem import FlowProblem
from meanfield.constructions.relu_flow import relu_flow
from meanfield.diagnostics.rates import fit_rate
from meanfield.experiment import Experiment, RunFile
from meanfield.kuhn import KuhnMesh
from meanfield.plotting import COLOURS, save, style
from meanfield.relu_blocks import compact_block
from meanfield.relu_layers import interpolation_block
from meanfield.schemes import HEUN, RK4
from meanfield.storage.reader import Run

PAPER = "Mueller, On the space-time expressivity of ResNets, arXiv 1910.09599"
Array = np.ndarray

BLIND = (
    "exact layers",
    "few neurons",
    "a mesh that is continued",
    "certificate, Hoelder",
    "certificate, Stuart-Landau",
    "rate in time, Hoelder 0.3, pointwise",
    "rate in time, t^-0.8, averaged",
    "parameters, d = 2, Lipschitz",
)
"""Beginnings of the claims that another field leaves true."""


@dataclass(frozen=True)
class Config:
    """Parameters of the experiment; states and times are pure numbers."""

    blocks: int = option(1024, "blocks of the deepest network of a rate in time, a power of 2", least=64, most=8192)
    cells: int = option(96, "cells across K of the finest mesh in the plane, 6 times a power of 2", least=24, most=192)
    cells3: int = option(16, "cells across K of the finest mesh in space, a power of 2", least=8, most=16)
    decades: int = option(4, "smallest accuracy asked for, 10^-decades", least=2, most=6)
    planted: float = option(0.0, "relative error planted in the fields that networks follow, to see verdicts fail")


# Fields a(t) g(x): their flow is that of g at the time A(t) = int a.


@dataclass(frozen=True)
class Speed:
    """a(t), and A(t) with A(0) = 0."""

    a: Callable[[float], float]
    total: Callable[[Array], Array]


STEADY = Speed(lambda t: 1.0, lambda t: t)
WAVY = Speed(lambda t: 1 + 0.8 * np.sin(6 * t), lambda t: t + 0.8 * (1 - np.cos(6 * t)) / 6)


def hoelder(alpha: float, terms: int = 24) -> Speed:
    """1 + 0.5 sum_j 2^{-alpha j} cos(2 pi 2^j t), Hoelder continuous of exponent alpha and no more."""
    j = np.arange(terms)
    size, w = 0.5 * 2.0 ** (-alpha * j), 2 * np.pi * 2.0**j
    return Speed(lambda t: float(1 + (size * np.cos(w * t)).sum()),
                 lambda t: t + (size / w * np.sin(w * np.asarray(t)[..., None])).sum(-1))  # fmt: skip


def singular(gamma: float) -> Speed:
    """(1 - gamma) t^{-gamma}, in L^p for p < 1/gamma."""
    return Speed(lambda t: (1 - gamma) * t**-gamma, lambda t: np.asarray(t, dtype=np.float64) ** (1 - gamma))


@dataclass(frozen=True)
class Motion:
    """g(x), its flow at times (m,) from starts (d, n), and K."""

    g: Callable[[Array], Array]
    flow: Callable[[Array, Array], Array]
    box: tuple[Any, Any]


def half_angle(time: Array, x: Array) -> Array:
    """Flow of sin x: tan(x/2) = e^t tan(x0/2)."""
    return 2 * np.arctan(np.exp(time) * np.tan(x / 2))


def sine_flow(t: Array, x: Array) -> Array:
    """Flow of sin x for times (m,)."""
    return half_angle(t[:, None, None], x)


def cosine_flow(t: Array, x: Array) -> Array:
    """Flow of cos x, |x0| < pi/2."""
    return np.arctan(np.sinh(np.arcsinh(np.tan(x)) + t[:, None, None]))


def kink_flow(t: Array, x: Array) -> Array:
    """Flow of |sin(x - 1/3)|."""
    s = x - 1 / 3
    return 1 / 3 + half_angle(np.where(s > 0, 1.0, -1.0) * t[:, None, None], s)


def circle(x: Array) -> Array:
    """Stuart-Landau: r' = r (1 - r^2), theta' = 1."""
    return x * (1 - (x**2).sum(axis=0)) + np.stack([-x[1], x[0]])


def circle_flow(t: Array, x: Array) -> Array:
    """r = r0 / sqrt(r0^2 + (1 - r0^2) e^{-2t}), theta = theta0 + t."""
    t, r2 = t[:, None], (x**2).sum(axis=0)
    turned = np.stack([np.cos(t) * x[0] - np.sin(t) * x[1], np.sin(t) * x[0] + np.cos(t) * x[1]], axis=1)
    return turned / np.sqrt(r2 + (1 - r2) * np.exp(-2 * t))[:, None]


# A rotation of space that mixes all axes.
TURN = np.array([[2.0, -2.0, 1.0], [1.0, 2.0, 2.0], [2.0, 1.0, -2.0]]) / 3


def screw(x: Array) -> Array:
    """Stuart-Landau in a plane and sin along its normal, turned."""
    y = TURN @ x
    return TURN.T @ np.concatenate([circle(y[:2]), np.sin(y[2:])])


def screw_flow(t: Array, x: Array) -> Array:
    """Flow of `screw`."""
    y = TURN @ x
    return TURN.T @ np.concatenate([circle_flow(t, y[:2]), half_angle(t[:, None, None], y[2:])], axis=1)


SINE = Motion(np.sin, sine_flow, (-3.0, 3.0))
COSINE = Motion(np.cos, cosine_flow, (-1.0, 1.0))
KINK = Motion(lambda x: np.abs(np.sin(x - 1 / 3)), kink_flow, (-1.0, 1.0))
KINKS = Motion(lambda x: np.abs(np.sin(x - 1 / 3)), kink_flow, ([-1.0] * 2, [1.0] * 2))
CIRCLE = Motion(circle, circle_flow, ([-1.2] * 2, [1.2] * 2))
SCREW = Motion(screw, screw_flow, ([-0.6] * 3, [0.6] * 3))


class Field:
    """a(t) g(x) for networks, with its time integral; `strength` is where an error is planted."""

    def __init__(self, motion: Motion, speed: Speed, strength: float = 1.0) -> None:
        self.motion, self.speed, self.strength = motion, speed, strength

    def __call__(self, t: float, x: Array) -> Array:
        """Return f(t, x)."""
        return self.strength * self.speed.a(t) * self.motion.g(x)

    def integral(self, t0: float, t1: float, x: Array) -> Array:
        """int f(s, x) ds."""
        return self.strength * (self.speed.total(np.array(t1)) - self.speed.total(np.array(t0))) * self.motion.g(x)

    def flow(self, t: Array, x: Array) -> Array:
        """Flow of the motion at the time that has passed on its own clock."""
        return self.motion.flow(self.speed.total(t), x)


def truth(motion: Motion, speed: Speed, T: float = 1.0) -> FlowProblem:
    """Return the flow that networks are compared with."""
    field = Field(motion, speed)
    return FlowProblem(field, motion.box, T, speed is STEADY, (0.0,), field.flow)


def build(config: Config, motion: Motion, speed: Speed, T: float = 1.0, **options: Any) -> FlowNetwork:
    """Build a network for the field, with the error planted in it."""
    field = Field(motion, speed, 1 + config.planted)
    # A reference with the same error: what is asked for is met with respect to the field that is followed.
    planted = Field(motion, Speed(speed.a, lambda t: (1 + config.planted) * speed.total(t)))
    return relu_flow(field, motion.box, T, autonomous=speed is STEADY, breakpoints=(0.0,), reference=planted.flow,
                     **options).network  # fmt: skip


def error(network: FlowNetwork, motion: Motion, speed: Speed, T: float = 1.0) -> float:
    """Largest error found at the blocks."""
    return largest_error(network, truth(motion, speed, T)).blocks


# Sections


def exact_layers(_config: Config, run: RunFile) -> None:
    """Layers of ReLUs against interpolation by cells, d = 1 .. 5."""

    def table() -> dict[str, Array]:
        rows, rng = [], np.random.default_rng(run.seed)
        for d, cells in ((1, 24), (2, 10), (3, 5), (4, 3), (5, 2)):
            mesh = KuhnMesh(-np.ones(d), np.linspace(1.0, 2.0, d), np.array([cells]))
            values, x = rng.uniform(-1, 1, (d, mesh.n_nodes)), rng.uniform(-1.5, 2.5, (d, 2000))
            exact = mesh.interpolate(values, x)
            wide, narrow = interpolation_block(mesh, values), compact_block(mesh, values)
            rows.append((d, mesh.n_nodes, len(wide.widths), max(wide.widths), wide.n_parameters,
                         np.abs(wide.value(x) - exact).max(), len(narrow.widths), max(narrow.widths),
                         narrow.n_parameters, np.abs(narrow.value(x) - exact).max()))  # fmt: skip
        names = ("d", "nodes", "depth", "width", "parameters", "gap", "compact_depth", "compact_width",
                 "compact_parameters", "compact_gap")  # fmt: skip
        return dict(zip(names, np.array(rows, dtype=np.float64).T, strict=True))

    found = run.once("exact_layers", table, run.seed)
    run.at_most("exact layers: ReLU layers interpolate on the Kuhn mesh, d = 1 .. 5", 1e-13, float(found["gap"].max()),
                reason="round-off of values of size 1", source=PAPER)  # fmt: skip
    run.at_most("few neurons: one hat function after the other is the same map, d = 1 .. 5", 1e-12,
                float(found["compact_gap"].max()), reason="round-off of as many sums as nodes")  # fmt: skip
    for d, nodes, depth, width in zip(
        *(found[k] for k in ("d", "nodes", "compact_depth", "compact_width")), strict=True
    ):
        hat = {1: 1, 2: 2}.get(int(d), 1 + int(np.ceil(np.log2(d + 1))))
        run.near(f"few neurons: nodes + layers of a hat hidden layers, d = {d:g}, width {width:g}", nodes + hat, depth,
                 tolerance=0.5, relative=False, reason="a count")  # fmt: skip


def sine_errors(config: Config, run: RunFile) -> None:
    """The errors of x' = sin x on [-3, 3], T = 1, in time and in space."""
    in_time = dict(zip((8, 16, 32, 64, 128), (0.0390, 0.0200, 0.0101, 0.0051, 0.0026), strict=True))
    in_space = dict(zip((6, 12, 24, 48, 96), (0.0860, 0.0233, 0.0055, 0.00134, 0.00033), strict=True))

    def table() -> dict[str, Array]:
        fine = [error(build(config, SINE, STEADY, n_blocks=n, cells=3000), SINE, STEADY) for n in in_time]
        coarse = [error(build(config, SINE, STEADY, n_blocks=200, cells=c, time="runge_kutta"), SINE, STEADY)
                  for c in in_space]  # fmt: skip
        counts = {
            "blocks": np.array(list(in_time), dtype=np.float64),
            "cells": np.array(list(in_space), dtype=np.float64),
        }
        return {**counts, "time": np.array(fine), "space": np.array(coarse)}

    found = run.once("sine", table, config.planted)
    for name, known, words in (("time", in_time, "blocks"), ("space", in_space, "cells")):
        for (count, value), measured in zip(known.items(), found[name], strict=True):
            run.near(f"x' = sin x: sup error in {name}, {count} {words}", value, float(measured), tolerance=0.05,
                     reason="figures known to two digits")  # fmt: skip
    reach = build(config, SINE, STEADY, n_blocks=2, cells=6).mesh.hi[0]
    run.at_most("a mesh that is continued holds K and its margin", float(reach), 4.0, reason="3 + int sup |f|")


def slope(run: RunFile, label: str, claim: str, order: float, counts: Any, measure: Callable[[int], float],
          inputs: Any, tolerance: float = 0.1) -> None:  # fmt: skip
    """Errors over numbers of blocks or cells, and the verdict on their slope."""

    def table() -> dict[str, Array]:
        return {"count": np.array(counts, dtype=np.float64), "error": np.array([measure(int(c)) for c in counts])}

    found = run.once(label, table, (inputs, tuple(counts)))
    # The finest three: coarse networks have errors of higher order too.
    fit = fit_rate(1 / found["count"][-3:], found["error"][-3:])
    run.near(claim, order, fit.slope, tolerance=tolerance, relative=False,
             reason="the finest three of a sequence that halves", source=PAPER)  # fmt: skip


# Rates in time: label, words, order, motion, speed, largest number of blocks over that of the configuration, options.
def time_rates() -> tuple[tuple[Any, ...], ...]:
    """What is known of rates in time."""
    return (
        ("averaged", "smooth, averaged", 1.0, COSINE, WAVY, 1.0, {}),
        ("pointwise", "smooth, pointwise", 1.0, COSINE, WAVY, 1.0, {"time": "pointwise"}),
        ("heun", "smooth, steps of Heun", 2.0, COSINE, WAVY, 0.5, {"time": "runge_kutta", "scheme": HEUN}),
        ("rk4", "smooth, steps of order 4", 4.0, COSINE, WAVY, 0.125, {"time": "runge_kutta", "scheme": RK4}),
        ("hoelder3_averaged", "Hoelder 0.3, averaged", 1.0, COSINE, hoelder(0.3), 1.0, {}),
        ("hoelder3_pointwise", "Hoelder 0.3, pointwise", 0.3, COSINE, hoelder(0.3), 1.0, {"time": "pointwise"}),
        ("hoelder6_averaged", "Hoelder 0.6, averaged", 1.0, COSINE, hoelder(0.6), 1.0, {}),
        ("hoelder6_pointwise", "Hoelder 0.6, pointwise", 0.6, COSINE, hoelder(0.6), 1.0, {"time": "pointwise"}),
        ("singular4", "t^-0.4, averaged", 1.0, COSINE, singular(0.4), 4.0, {}),
        ("singular8", "t^-0.8, averaged", 0.4, COSINE, singular(0.8), 1.0, {}),
        ("equidistributed8", "t^-0.8, equidistributed", 1.0, COSINE, singular(0.8), 1.0,
         {"partition": "equidistributed"}),
    )  # fmt: skip


def rates_in_time(config: Config, run: RunFile) -> None:
    """Slopes of the error in 1/n on a mesh too fine to matter."""
    for label, words, order, motion, speed, factor, options in time_rates():
        # Of order 4 the mesh is too fine to matter up to 32 blocks.
        most = min(int(factor * config.blocks), 32) if label == "rk4" else int(factor * config.blocks)
        counts = [most // 2**k for k in range(3, -1, -1)]
        cells = 20_000 if label == "rk4" else 3000

        def measure(
            n: int, motion: Motion = motion, speed: Speed = speed, options: Any = options, cells: int = cells
        ) -> float:
            return error(build(config, motion, speed, n_blocks=n, cells=cells, **options), motion, speed)

        slope(run, f"time_{label}", f"rate in time, {words}: error falls as n^-{order:g}", order, counts, measure,
              (label, cells, config.planted))  # fmt: skip


def space_rates(config: Config) -> tuple[tuple[Any, ...], ...]:
    """What is known of rates in space: label, words, order, motion, finest number of cells, factor between them."""
    return (
        ("line", "d = 1, twice differentiable", 2.0, SINE, 4 * config.cells, 2),
        ("kink", "d = 1, Lipschitz", 1.0, KINK, 512, 4),
        ("plane", "d = 2, twice differentiable", 2.0, CIRCLE, 2 * config.cells, 2),
        ("kinks", "d = 2, Lipschitz", 1.0, KINKS, 128, 4),
        ("cube", "d = 3, twice differentiable", 2.0, SCREW, 4 * config.cells3, 2),
    )


def rates_in_space(config: Config, run: RunFile) -> None:
    """Slopes of the error in the width of cells, steps in time too fine to matter."""
    for label, words, order, motion, most, factor in space_rates(config):
        counts = [most // factor**k for k in (2, 1, 0)]

        def measure(c: int, motion: Motion = motion) -> float:
            # Kinks of the interpolant cost steps their order: many of them on the line, where meshes are finest.
            n = 256 if motion in (SINE, KINK) else 32
            return error(build(config, motion, STEADY, n_blocks=n, cells=c, time="runge_kutta"), motion, STEADY)

        slope(run, f"space_{label}", f"rate in space, {words}: error falls as h^{order:g}", order, counts, measure,
              (label, config.planted))  # fmt: skip
    for label, words, motion, cells in (("plane", "d = 2", CIRCLE, 120), ("cube", "d = 3", SCREW, 30)):
        most = config.blocks // 2 if label == "plane" else config.blocks // 4
        counts = [most // 4, most // 2, most]

        def deep(n: int, motion: Motion = motion, cells: int = cells) -> float:
            return error(build(config, motion, STEADY, n_blocks=n, cells=cells), motion, STEADY)

        slope(run, f"time_{label}", f"rate in time, {words}: error falls as n^-1", 1.0, counts, deep,
              (label, cells, config.planted))  # fmt: skip


def budgets(config: Config) -> tuple[tuple[Any, ...], ...]:
    """Refinements of time and space together: label, words, motion, cells and blocks, predicted slope."""
    plane, cube = [config.cells // k for k in (4, 2, 1)], [config.cells3 // k for k in (4, 2, 1)]
    return (
        ("line", "d = 1, twice differentiable", COSINE, [(c, c * c // 8) for c in (16, 32, 64)], 2 / 3),
        ("kink", "d = 1, Lipschitz", KINK, [(c, 2 * c) for c in (8, 32, 128)], 1 / 2),
        ("plane", "d = 2, twice differentiable", CIRCLE, [(c, c * c // 4) for c in plane], 2 / 4),
        ("kinks", "d = 2, Lipschitz", KINKS, [(c, 4 * c) for c in (2, 8, 32)], 1 / 3),
        ("cube", "d = 3, twice differentiable", SCREW, [(c, c * c // 2) for c in cube], 2 / 5),
    )


def coupled_budgets(config: Config, run: RunFile) -> None:
    """Error against all parameters of networks for fields that change with time, so that no blocks are one."""
    for label, words, motion, sizes, order in budgets(config):

        def table(motion: Motion = motion, sizes: Any = sizes) -> dict[str, Array]:
            rows = []
            for cells, n in sizes:
                network = build(config, motion, WAVY, n_blocks=n, cells=cells)
                rows.append((cells, n, network.counts().parameters, error(network, motion, WAVY)))
            return dict(
                zip(("cells", "blocks", "parameters", "error"), np.array(rows, dtype=np.float64).T, strict=True)
            )

        found = run.once(f"budget_{label}", table, (label, sizes, config.planted))
        fit = fit_rate(1 / found["parameters"][-2:], found["error"][-2:])
        run.near(f"parameters, {words}: error falls as P^-{order:.3g}", order, fit.slope, tolerance=0.1, relative=False,
                 reason="the finest two; first layers and margins are of lower order in P", source=PAPER)  # fmt: skip


# Accuracies: label, words, motion, speed, how blocks are made, exponent of 1/error in the parameters stored.
def on_demand() -> tuple[tuple[Any, ...], ...]:
    """Flows that networks are built for to an accuracy."""
    return (
        ("sine", "x' = sin x", SINE, STEADY, "averaged", 0.5),
        ("rough", "Hoelder 0.6 in time", COSINE, hoelder(0.6), "averaged", 1.5),
        ("circle", "Stuart-Landau", CIRCLE, STEADY, "runge_kutta", 1.0),
    )


def accuracies(config: Config, run: RunFile) -> None:
    """Networks for eps = 10^-2 .. 10^-decades: errors delivered, certificates, parameters."""
    targets = [10.0**-k for k in range(2, config.decades + 1)]
    for label, words, motion, speed, kind, power in on_demand():

        def table(motion: Motion = motion, speed: Speed = speed, kind: str = kind) -> dict[str, Array]:
            rows = []
            for eps in targets:
                network = build(config, motion, speed, eps=eps, time=kind)
                found, counts = certify(network, truth(motion, speed), seed=run.seed + 1), network.counts()
                size = counts.layers, counts.width, counts.parameters, counts.stored
                errors = found.error, found.error_between, found.sharp, found.bound
                rows.append((eps, network.n_blocks, network.mesh.cells[0], *size, *errors))
            names = ("eps", "blocks", "cells", "layers", "width", "parameters", "stored", "error", "between", "sharp",
                     "bound")  # fmt: skip
            return dict(zip(names, np.array(rows, dtype=np.float64).T, strict=True))

        found = run.once(f"accuracy_{label}", table, (label, tuple(targets), config.planted, run.seed))
        for eps, delivered in zip(found["eps"], found["error"], strict=True):
            run.at_most(f"accuracy asked for, {words}: error delivered, eps = {eps:g}", float(eps), float(delivered),
                        reason="what was asked for; searched anew", source=PAPER)  # fmt: skip
        above = float((found["error"] / np.minimum(found["sharp"], found["bound"])).max())
        run.at_most(f"certificate, {words}: largest error over its bounds", 1.0, above,
                    reason="no error is above its bound", source=PAPER)  # fmt: skip
        if len(targets) > 1:
            fit = fit_rate(1 / found["error"][-2:], found["stored"][-2:])
            run.near(f"accuracy asked for, {words}: parameters stored grow as error^-{power:g}", power, fit.slope,
                     tolerance=0.15, relative=False, reason="whole cells and blocks, split between time and space",
                     source=PAPER)  # fmt: skip


def pictures(config: Config, run: RunFile) -> None:
    """Paths of a coarse network and of the flow: Stuart-Landau."""
    angles = np.linspace(0, 2 * np.pi, 9)[:-1]
    starts = np.concatenate([r * np.stack([np.cos(angles), np.sin(angles)]) for r in (0.3, 1.15)], axis=1)

    def table() -> dict[str, Array]:
        network = build(config, CIRCLE, STEADY, 3.0, n_blocks=24, cells=8)
        paths, fine = network.states(starts), np.linspace(0, 3, 25)
        exact = circle_flow(fine, starts)
        return {name: part.ravel() for name, part in (("network", paths), ("flow", exact))}

    run.once("paths", table, config.planted)


def run(config: Config, run_file: RunFile) -> None:
    """Every section in turn."""
    sections: tuple[Callable[[Config, RunFile], None], ...] = (
        exact_layers, sine_errors, rates_in_time, rates_in_space, coupled_budgets, accuracies, pictures,
    )  # fmt: skip
    for section in sections:
        section(config, run_file)


def figure(run: Run, path: Path) -> None:
    """Six panels: rates in time, smooth and rough, rates in space, parameters, accuracies, paths."""
    with style() as plt:
        drawing, axes = plt.subplots(2, 3, figsize=(13, 8), layout="constrained")
        draw_rates(axes[0, 0], run, [r for r in time_rates() if r[0] in {"averaged", "pointwise", "heun", "rk4"}],
                   "time", "Blocks: fields smooth in time", "blocks n")  # fmt: skip
        draw_rates(axes[0, 1], run, time_rates()[4:], "time", "Blocks: fields rough in time", "blocks n")
        draw_rates(axes[0, 2], run, space_rates(Config()), "space", "Cells, steps in time fine", "cells across K")
        draw_budgets(axes[1, 0], run)
        draw_accuracies(axes[1, 1], run)
        draw_paths(axes[1, 2], run)
        save(drawing, path)


def draw_rates(axis: Any, run: Run, rows: Any, kind: str, title: str, label: str) -> None:
    """Draw errors over numbers, with lines of the predicted slope."""
    for i, row in enumerate(rows):
        table, order = run.tables[f"{kind}_{row[0]}"], row[2]
        count, errors = table["count"], table["error"]
        colour = COLOURS[i % len(COLOURS)]
        axis.loglog(count, errors, "o" if i < len(COLOURS) else "s", ms=4, color=colour, label=f"{row[1]}: {-order:g}")
        axis.loglog(count, errors[-1] * (count[-1] / count) ** order, lw=0.9, color=colour)
    axis.set(title=title, xlabel=label, ylabel="largest error")
    framed_legend(axis)


def framed_legend(axis: Any) -> None:
    """Legend above the data: the error goes on by more than a decade over the largest for it."""
    low, high = axis.get_ylim()
    axis.set_ylim(low, high * (high / low) ** 0.5)
    axis.legend(fontsize=7, loc="upper right")
    axis.xaxis.set_minor_formatter("")


def draw_budgets(axis: Any, run: Run) -> None:
    """Draw errors over parameters."""
    for i, (label, words, _, _, order) in enumerate(budgets(Config())):
        table = run.tables[f"budget_{label}"]
        p, errors = table["parameters"], table["error"]
        axis.loglog(p, errors, "o", ms=4, color=COLOURS[i], label=f"{words}: {-order:.3g}")
        axis.loglog(p, errors[-1] * (p[-1] / p) ** order, lw=0.9, color=COLOURS[i])
    axis.set(title="Time and space refined together", xlabel="parameters P", ylabel="largest error")
    framed_legend(axis)


def draw_accuracies(axis: Any, run: Run) -> None:
    """Draw what was asked for, delivered and certified, over the parameters stored."""
    for i, (label, words, *_) in enumerate(on_demand()):
        table = run.tables[f"accuracy_{label}"]
        axis.loglog(table["stored"], table["error"], "o-", ms=4, color=COLOURS[i], label=f"{words}: error")
        axis.loglog(table["stored"], table["eps"], "_", ms=12, color=COLOURS[i])
        axis.loglog(table["stored"], table["sharp"], "^:", ms=4, lw=0.9, color=COLOURS[i], label="its bound")
    axis.set(title="Accuracy asked for (dashes)", xlabel="parameters stored", ylabel="error")
    framed_legend(axis)


def draw_paths(axis: Any, run: Run) -> None:
    """Draw paths of the flow and of a coarse network."""
    table = run.tables["paths"]
    flow, network = (table[name].reshape(25, 2, 16) for name in ("flow", "network"))
    axis.plot(flow[:, 0], flow[:, 1], color="0.75", lw=3, label=["flow", *[None] * 15])
    axis.plot(network[:, 0], network[:, 1], color=COLOURS[0], lw=1, label=["network", *[None] * 15])
    axis.plot(*flow[0], "k.", ms=4)
    axis.set(title="Stuart-Landau: 24 blocks, 8 x 8 cells", xlabel="x", ylabel="y", aspect="equal")
    axis.legend(fontsize=7, loc="upper right")


EXPERIMENT = Experiment(
    name="expressivity",
    config=Config,
    run=run,
    figure=figure,
    smoke={"blocks": 128, "cells": 24, "cells3": 8, "decades": 3},
    full={"blocks": 4096, "cells": 192, "decades": 5},
    references=(PAPER,),
    description=(__doc__ or "").split("\n")[0],
)


def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line."""
    return EXPERIMENT.main(argv)


if __name__ == "__main__":
    sys.exit(main())
