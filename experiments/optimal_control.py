"""Training as optimal control: adjoints, the minimum principle, Hamilton-Jacobi-Bellman, all on the same problems.

    python experiments/optimal_control.py [--smoke | --full] [--out PATH] [--resume PATH]

Residual networks and space-time networks are trained by L-BFGS on the discrete adjoint, by gradient flow,
by successive approximations of the minimum principle (plain, proximal and augmented damping) and by
forward-backward sweeps; scalar and plane states by the Hamilton-Jacobi-Bellman equation as well. Sections: gradients,
scalar problems (two closed forms, one nonlinear with a running cost), damping where plain iterations diverge, kernels
of a space-time network (their rank is at most the number of samples), Hamiltonians along optima, a state in the plane.

`--planted 0.05` trains towards targets that are 5 % off while closed forms stay: the verdicts against them fail.
Those of `BLIND` compare solvers with each other, or are rates and ranks that any target has.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from meanfield.cells import Cells
from meanfield.config import option
from meanfield.controls import Controls
from meanfield.diagnostics.rates import fit_rate
from meanfield.exact_control import TerminalAdditive, TerminalMultiplicative
from meanfield.experiment import Experiment, RunFile
from meanfield.grids import Grid
from meanfield.learning.control_problems import QuadraticControl
from meanfield.learning.gradient_flow import GradientFlow
from meanfield.learning.hjb import ValueFunction, solve_hjb
from meanfield.learning.pontryagin import pmp_residual
from meanfield.learning.quasi_newton import Optimum, minimise
from meanfield.learning.residual_form import kernel_values, residual_form
from meanfield.learning.successive_approximations import forward_backward_sweep, successive_approximations
from meanfield.learning.training import Training
from meanfield.losses import Readout, Squared
from meanfield.models.residual import ResidualNetwork
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.dense import Dense
from meanfield.operators.path import OperatorPath
from meanfield.plotting import COLOURS, save, style
from meanfield.regularizers import DepthL2
from meanfield.storage.reader import Run
from meanfield.velocities import Velocity
from meanfield.verdict import Verdict

LI = "Li, Chen, Tai, E, Maximum principle based algorithms for deep learning, arXiv 1710.09513"
EHL = "E, Han, Li, A mean-field optimal control formulation of deep learning, arXiv 1807.01083"
CRANDALL = "Crandall, Lions, Two approximations of solutions of Hamilton-Jacobi equations, Math. Comp. 43 (1984)"
# Scalar problems: start, target, penalty, and T of the first; the running cost of the third.
START, TARGET, PENALTY, LENGTH, TRACKING = 0.5, 1.2, 0.3, 1.5, 1.5
# The space-time network: samples and penalty.
SAMPLES, WEIGHT = 3, 0.1

BLIND = (
    "gradients",
    "all solvers agree",
    "plain successive approximations",
    "damped successive approximations",
    "residual form",
    "kernels",
    "minimum principle",
    "Hamiltonian",
    "value function: order, x' = w tanh x",
    "value function: extrapolated, x' = w tanh x",
    "value function: order, plane",
    "gradient flow: J never rises",
    "feedback",
)
"""Beginnings of the claims that another target leaves true."""


@dataclass(frozen=True)
class Config:
    """Parameters of the experiment; states, depths and costs are pure numbers."""

    layers: int = option(64, "layers of the scalar problems", least=16, most=4096)
    labels: int = option(32, "neuron labels of the space-time network", least=8, most=512)
    depth: int = option(24, "layers of the space-time network", least=6, most=512)
    cells: int = option(
        800, "cells of the finest grid of a scalar value function, a multiple of 8", least=160, most=6400
    )
    side: int = option(192, "cells a side of the finest grid in the plane, a multiple of 4", least=32, most=400)
    planted: float = option(0.0, "relative error planted in the targets of the training, to see verdicts fail")


def scalar(kind: str, layers: int, planted: float, scheme: str = "euler") -> Training:
    """x' = b, x' = w x or x' = w tanh x from START towards TARGET; half the objective of the closed forms."""
    additive, tracking = kind == "additive", TRACKING if kind == "nonlinear" else 0.0
    span = (0.0, LENGTH if additive else 1.0)
    values = np.linspace(0.4, 0.2, layers)
    knots = np.linspace(*span, layers + 1)
    trained = Controls(knots, values.reshape((-1, 1) if additive else (-1, 1, 1)))
    sigma = "tanh" if kind == "nonlinear" else "identity"
    velocity = Velocity.inside(sigma, 0.0, trained) if additive else Velocity.inside(sigma, trained, 0.0)
    name = "b" if additive else "w"
    return Training(
        ResidualNetwork(velocity, 1), [[START]], Squared([TARGET * (1 + planted)]), span, layers, scheme,
        regularizers={name: DepthL2(0.5 * PENALTY)}, tracking=tracking, trained=(name,),
    )  # fmt: skip


def labelled(config: Config, placement: str, layers: int, n_labels: int) -> Training:
    """Space-time network on Gauss labels from kernels of full rank; outputs are two integrals of the activations."""
    grid, rng = Grid.interval(n_labels, rule="gauss"), np.random.default_rng(11)
    x, q = grid.nodes, grid.weights
    knots = np.linspace(0.0, 1.0, layers + 1)
    kernels = [Dense(grid, rng.standard_normal((n_labels, n_labels))) for _ in range(layers)]
    model = SpaceTimeNetwork(OperatorPath(knots, kernels), "tanh", Controls(knots, np.zeros((layers, n_labels))),
                             placement=placement, n_samples=SAMPLES)  # fmt: skip
    targets = np.array([[0.9, -0.5, 0.2], [0.1, 0.6, -0.7]]) * (1 + config.planted)
    return Training(
        model,
        np.array([np.cos((k + 1) * x + k) for k in range(SAMPLES)]),
        Squared(targets),
        (0.0, 1.0),
        layers,
        readout=Readout(np.array([np.ones_like(x), np.sin(3 * x)])),
        regularizers={"weight": DepthL2(WEIGHT, np.outer(q, q)), "bias": DepthL2(WEIGHT, q)},
    )


def plane(layers: int, planted: float, scheme: str = "rk4") -> Training:
    """x' = W tanh x in the plane, one sample; W is 2 x 2."""
    knots = np.linspace(0.0, 1.0, layers + 1)
    start = 0.1 * np.ones((layers, 2, 2))
    network = ResidualNetwork(Velocity.inside("tanh", Controls(knots, start), 0.0), 1)
    target = np.array([[1.0], [0.3]]) * (1 + planted)
    return Training(network, [[0.6], [-0.4]], Squared(target), (0.0, 1.0), layers, scheme,
                    regularizers={"w": DepthL2(0.5 * PENALTY)}, trained=("w",))  # fmt: skip


def gradients(config: Config, run: RunFile) -> None:
    """Taylor remainders of the discrete adjoint of every kind of network, along random directions."""
    problems = {
        "residual network, x' = w tanh x": scalar("nonlinear", 16, config.planted, "rk4"),
        "residual network in the plane": plane(16, config.planted, "heun"),
        "space-time network, sigma outside": replace(labelled(config, "outside", 6, 12), tracking=0.5),
        "space-time network, sigma inside": replace(labelled(config, "inside", 6, 12), tracking=0.5, scheme="rk4"),
    }
    steps = 0.1 * 2.0 ** -np.arange(11)

    def table() -> dict[str, np.ndarray]:
        columns = {"step": steps}
        for i, problem in enumerate(problems.values()):
            at = problem.start()
            way = np.random.default_rng(i).standard_normal(at.shape)
            way /= np.linalg.norm(way)
            value, slope = problem.objective(at)
            columns[f"remainder_{i}"] = np.array(
                [abs(problem.objective(at + e * way)[0] - value - e * float(slope @ way)) for e in steps]
            )
        return columns

    found = run.once("taylor", table, list(problems.values()))
    for i, name in enumerate(problems):
        run.near(
            f"gradients: Taylor remainder over ten halvings, {name}",
            2.0,
            fit_rate(steps, found[f"remainder_{i}"]).slope,
            tolerance=0.05,
            relative=False,
            reason="third order terms over steps from 0.1 to 1e-4",
        )


SOLVERS: dict[str, Callable[..., Optimum]] = {
    "lbfgs": minimise,
    "proximal": partial(successive_approximations, damping="proximal"),
    "augmented": partial(successive_approximations, damping="augmented"),
    "sweep": forward_backward_sweep,
}


def scalar_problems(config: Config, run: RunFile) -> None:
    """All solvers side by side on three scalar problems, and their closed forms."""
    additive = TerminalAdditive(START, TARGET, PENALTY, LENGTH)
    multiplicative = TerminalMultiplicative(START, TARGET, PENALTY, 1.0)
    for kind, words in (("additive", "x' = w"), ("multiplicative", "x' = w x"), ("nonlinear", "x' = w tanh x")):
        problem = scalar(kind, config.layers, config.planted)
        found = {name: run.optimum(f"{kind}_{name}", problem, solver, tolerance=1e-8) for name, solver in
                 SOLVERS.items()}  # fmt: skip
        flow = GradientFlow(problem)
        way = run.integrate(f"{kind}_flow", flow, flow.initial(), (0.0, 30.0), rtol=1e-8, atol=1e-11, save_at=15,
                            probes={"objective": lambda _s, y, m: m.loss(y)})  # fmt: skip
        losses = way.probes["objective"][1]
        best = found["lbfgs"].raise_for_status().value
        apart = max(abs(o.raise_for_status().value - best) for o in found.values())
        run.at_most(f"all solvers agree on {words}: largest difference of J", 1e-12, apart,
                    reason="gradients below 1e-8: J is known to their square", source=LI)  # fmt: skip
        run.near(f"all solvers agree on {words}: gradient flow after 30 units", best, float(losses[-1]),
                 tolerance=1e-8, reason="rtol of its steps")  # fmt: skip
        run.at_most(f"gradient flow: J never rises, {words}", 1e-13, float(np.diff(losses).max()), reason="round-off")
        residual = pmp_residual(problem, found["lbfgs"].model)
        run.at_most(f"minimum principle, {words}: largest gap of a layer", 1e-13, residual.gap,
                    reason="round-off: layers minimise their Hamiltonians", source=EHL)  # fmt: skip
        if kind == "additive":
            run.near("x' = w: J is lam (y - x0)^2/(T + lam) at every depth", additive.cost, 2 * best, tolerance=1e-12,
                     reason="exact for any number of Euler steps")  # fmt: skip
            controls = found["lbfgs"].model.parameters["b"].values
            run.at_most("x' = w: the control is (y - x0)/(T + lam) in every layer: largest difference", 1e-8,
                        float(np.abs(controls - additive.control).max()), reason="gradient below 1e-8")  # fmt: skip
    depths = np.array([config.layers, 2 * config.layers])
    limit = multiplicative.optimum().energy
    scaled = [n * (2 * run.optimum(f"multiplicative_{n}", scalar("multiplicative", n, config.planted), tolerance=1e-9)
                   .raise_for_status().value - limit) for n in depths.tolist()]  # fmt: skip
    run.near("x' = w x: n (J_n - J) tends to lam I^3/T, I = int w", multiplicative.depth_constant(),
             2 * scaled[1] - scaled[0], tolerance=0.01, reason="one extrapolation in 1/n")  # fmt: skip


def half_square(target: np.ndarray, x: np.ndarray) -> np.ndarray:
    """|x - y|^2/2 of states (D, N)."""
    return 0.5 * ((x - target[:, None]) ** 2).sum(axis=0)


def value_function(kind: str, n: int, planted: float, keep: bool) -> ValueFunction:
    """Value function of a scalar problem on n cells, or of the plane on n^2."""
    target = np.array([1.0, 0.3] if kind == "plane" else [TARGET]) * (1 + planted)
    end = partial(half_square, target)
    if kind == "additive":
        problem, cells = QuadraticControl(0.0, 1.0, 0.0, PENALTY), Cells.line(0.0, 1.8, n)
    elif kind == "multiplicative":
        problem, cells = QuadraticControl(0.0, lambda _t, x: x, 0.0, PENALTY), Cells.line(0.2, 2.0, n)
    elif kind == "nonlinear":
        problem = QuadraticControl(0.0, lambda _t, x: np.tanh(x), lambda _t, x: TRACKING * end(x), PENALTY)
        cells = Cells.line(0.2, 2.0, n)
    else:
        problem = QuadraticControl(0.0, lambda _t, x: np.einsum("ij,kn->ijkn", np.eye(2), np.tanh(x)).reshape(2, 4, -1),
                                   0.0, PENALTY)  # fmt: skip
        cells = Cells.box((0.0, -0.9), (1.4, 0.9), (n, n))
    span = (0.0, LENGTH if kind == "additive" else 1.0)
    return solve_hjb(problem, end, cells, span, save_every=1 if keep else None)


def value_functions(config: Config, run: RunFile) -> None:
    """Values and feedbacks of the Hamilton-Jacobi-Bellman equation against the cost of L-BFGS and closed forms."""
    exact = {
        "additive": TerminalAdditive(START, TARGET, PENALTY, LENGTH).cost / 2,
        "multiplicative": TerminalMultiplicative(START, TARGET, PENALTY, 1.0).optimum().energy / 2,
    }
    for kind, words in (("additive", "x' = w"), ("multiplicative", "x' = w x"), ("nonlinear", "x' = w tanh x")):
        fine = scalar(kind, 2 * config.layers, config.planted, "rk4")
        optimum = run.optimum(f"{kind}_rk4", fine, tolerance=1e-9).raise_for_status()
        if kind in exact:
            run.near(f"{words}: cost of L-BFGS with Runge-Kutta steps", exact[kind], optimum.value, tolerance=1e-8,
                     reason="O(h^4), the control is constant")  # fmt: skip
        sizes = [config.cells // 8, config.cells // 4, config.cells // 2, config.cells]

        def table(kind: str = kind, sizes: list[int] = sizes, best: float = optimum.value) -> dict[str, np.ndarray]:
            values = [value_function(kind, n, config.planted, keep=False).value(0.0, START) for n in sizes]
            return {"cells": np.array(sizes, dtype=np.float64), "value": np.array(values), "optimum":
                    np.full(len(sizes), best)}  # fmt: skip

        found = run.once(f"value_{kind}", table, (kind, sizes, config.planted))
        reference = exact.get(kind, optimum.value)
        fit = fit_rate(1 / found["cells"], np.abs(found["value"] - reference))
        run.near(f"value function: order, {words}", 1.0, fit.slope, tolerance=0.1, relative=False,
                 reason="monotone scheme of first order", source=CRANDALL)  # fmt: skip
        extrapolated = 2 * found["value"][-1] - found["value"][-2]
        run.near(f"value function: extrapolated, {words}", reference, float(extrapolated), tolerance=10 *
                 (1.8 / config.cells) ** 2, relative=False, reason="ten squares of a cell",
                 source=CRANDALL)  # fmt: skip
    feedback(config, run)


def feedback(config: Config, run: RunFile) -> None:
    """Closed loop of the nonlinear problem against the controls of L-BFGS."""
    best = run.optimum("nonlinear_rk4", scalar("nonlinear", 2 * config.layers, config.planted, "rk4"), tolerance=1e-9)
    controls = best.model.parameters["w"]

    def table() -> dict[str, np.ndarray]:
        loop = value_function("nonlinear", config.cells, config.planted, keep=True).closed_loop(START, n_steps=400)
        return {"t": loop.t, "x": loop.x[:, 0], "control": loop.theta[:, 0], "cost": np.full(len(loop.t), loop.cost)}

    loop = run.once("feedback", table, (config.cells, config.planted))
    middles = 0.5 * (controls.knots[1:] + controls.knots[:-1])
    apart = float(np.abs(np.interp(middles, loop["t"], loop["control"]) - controls.values[:, 0, 0]).max())
    run.at_most("feedback: largest difference of its control from that of L-BFGS, x' = w tanh x", 20 / config.cells,
                apart, reason="first order in the cells (of length 1.8/n), gradients of V of the order 1")  # fmt: skip
    run.near("feedback: cost of the closed loop, x' = w tanh x", best.value, float(loop["cost"][0]), tolerance=2e-4,
             reason="a feedback wrong by O(dx) costs O(dx^2)")  # fmt: skip


def dampings(config: Config, run: RunFile) -> None:
    """Plain iterations that diverge with the predicted factor, or cycle; damped ones that converge."""
    layers = 16
    problem = replace(scalar("additive", layers, config.planted), regularizers={"b": DepthL2(0.5)})
    plain = run.optimum("plain_additive", problem, partial(successive_approximations, damping="none"),
                        max_iterations=12)  # fmt: skip
    growth = plain.gradient_norms[6:] / plain.gradient_norms[5:-1]
    run.near("plain successive approximations, x' = w: the error grows by T/lam an iteration", LENGTH / 1.0,
             float(growth.max()), tolerance=1e-6, reason="a linear map", source=LI)  # fmt: skip
    network = residual_form(labelled(config, "inside", 8, 16))
    quasi = run.optimum("damped_lbfgs", network, tolerance=1e-9).raise_for_status()
    rough = run.optimum("damped_none", network, partial(successive_approximations, damping="none"), max_iterations=60)
    run.verdict(
        Verdict.at_least(
            "plain successive approximations, space-time network: least J of the last ten over the minimum",
            1.05,
            float(rough.values[-10:].min()) / quasi.value,
            reason="they cycle or diverge",
            source=LI,
        )
    )
    for name, solver in list(SOLVERS.items())[1:]:
        found = run.optimum(f"damped_{name}", network, solver, tolerance=1e-6).raise_for_status()
        run.near(f"damped successive approximations reach L-BFGS, space-time network: {name}", quasi.value, found.value,
                 tolerance=1e-8, reason="gradients below 1e-6", source=LI)  # fmt: skip


def kernels(config: Config, run: RunFile) -> None:
    """Space-time networks: the same optimum in both forms, the minimum principle, ranks of kernels."""
    for placement in ("outside", "inside"):
        problem = labelled(config, placement, config.depth, config.labels)
        found = run.optimum(f"{placement}_lbfgs", problem, tolerance=1e-11, max_iterations=3000).raise_for_status()
        form = residual_form(problem)
        other = run.optimum(f"{placement}_residual", form, tolerance=1e-8, max_iterations=3000).raise_for_status()
        run.near(f"residual form has the same least J, sigma {placement}", found.value, other.value, tolerance=1e-10,
                 reason="gradients below 1e-8")  # fmt: skip
        trained = residual_form(replace(problem, model=found.model))
        residual = pmp_residual(trained)
        run.at_most(f"minimum principle, space-time network, sigma {placement}: largest slope of a Hamiltonian", 1e-8,
                    residual.stationarity, reason="gradient below 1e-11 over layers", source=EHL)  # fmt: skip
        if placement == "inside":
            run.at_most("minimum principle, space-time network, sigma inside: largest gap of a layer", 1e-12,
                        residual.gap, reason="round-off", source=EHL)  # fmt: skip
        q = problem.model.grid.weights
        before, after = (singular_values(kernel_values(p.model, q), q) for p in (residual_form(problem), trained))
        label = f"spectrum_{placement}"
        run.once(label, lambda before=before, after=after: {"before": before.mean(axis=0), "after":
                 after.max(axis=0)}, (before, after))  # fmt: skip
        run.verdict(Verdict.at_least(
            f"kernels start beyond rank n, sigma {placement}: singular value n + 1 over the first", 0.1,
            float((before[:, SAMPLES] / before[:, 0]).min()), reason="random kernels", source=EHL))  # fmt: skip
        run.at_most(f"kernels of the optimum have rank n, sigma {placement}: singular value n + 1 over the first", 1e-8,
                    float((after[:, SAMPLES] / after[:, 0]).max()), reason="every layer is in the span of n samples",
                    source=EHL)  # fmt: skip


def singular_values(weights: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Singular values in L2(q) of kernels over depth, (K, N)."""
    root = np.sqrt(q)
    return np.asarray(np.linalg.svd(root[:, None] * weights * root, compute_uv=False))


def hamiltonians(config: Config, run: RunFile) -> None:
    """Hamiltonians along optima are constant at the order of the scheme."""
    cases = {
        "x' = w tanh x": (4 * config.depth, partial(scalar, "nonlinear", planted=config.planted)),
        "space-time network": (config.depth, lambda n: residual_form(labelled(config, "inside", n, 12))),
    }
    for i, (words, (least, made)) in enumerate(cases.items()):
        depths = least * 2 ** np.arange(4)
        optima = [run.optimum(f"constancy_{i}_{n}", made(n), tolerance=1e-9, max_iterations=3000).raise_for_status()
                  for n in depths.tolist()]  # fmt: skip
        curves = [pmp_residual(made(n), o.model).hamiltonian for n, o in zip(depths.tolist(), optima, strict=True)]
        for n, curve in zip(depths.tolist(), curves, strict=True):
            run.once(f"hamiltonian_{i}_{n}", lambda curve=curve: {"hamiltonian": curve}, curve)
        fit = fit_rate(1 / depths, [np.ptp(curve) for curve in curves])
        run.near(f"Hamiltonian along optima is constant to O(h), {words}", 1.0, fit.slope, tolerance=0.1,
                 relative=False, reason="order of Euler steps", source=EHL)  # fmt: skip


def in_the_plane(config: Config, run: RunFile) -> None:
    """Value function of a state in the plane with four controls against L-BFGS."""
    optimum = run.optimum("plane_rk4", plane(64, config.planted), tolerance=1e-9).raise_for_status()
    sizes = [config.side // 4, config.side // 2, config.side]
    start = np.array([0.6, -0.4])

    def table() -> dict[str, np.ndarray]:
        values = [float(value_function("plane", n, config.planted, keep=False).value(0.0, start)) for n in sizes]
        return {"cells": np.array(sizes, dtype=np.float64), "value": np.array(values)}

    found = run.once("value_plane", table, (sizes, config.planted))
    fit = fit_rate(1 / found["cells"], np.abs(found["value"] - optimum.value))
    run.near("value function: order, plane x' = W tanh x", 1.0, fit.slope, tolerance=0.1, relative=False,
             reason="monotone scheme of first order", source=CRANDALL)  # fmt: skip


def run(config: Config, run_file: RunFile) -> None:
    """Run every section."""
    for section in (gradients, scalar_problems, value_functions, dampings, kernels, hamiltonians, in_the_plane):
        section(config, run_file)


def figure(run: Run, path: Path) -> None:
    """Six panels: descent, feedback, value functions, singular values, Hamiltonians, Taylor remainders."""
    with style() as plt:
        drawing, axes = plt.subplots(2, 3, figsize=(12.5, 7.4), layout="constrained")
        draw_descent(axes[0, 0], run)
        draw_feedback(axes[0, 1], run)
        draw_values(axes[0, 2], run)
        draw_spectra(axes[1, 0], run)
        draw_hamiltonians(axes[1, 1], run)
        draw_remainders(axes[1, 2], run)
        save(drawing, path)


def draw_descent(axis: Any, run: Run) -> None:
    """Draw J above its minimum over the iterations of every solver."""
    best = run.tables["damped_lbfgs_history"]["value"][-1]
    words = {"lbfgs": "L-BFGS", "proximal": "proximal damping", "augmented": "augmented damping",
             "sweep": "forward-backward sweep", "none": "plain"}  # fmt: skip
    for i, (name, label) in enumerate(words.items()):
        above = run.tables[f"damped_{name}_history"]["value"] - best
        axis.loglog(1 + np.arange(len(above)), np.maximum(above, 1e-14), color=COLOURS[i], label=label)
    axis.set(title="Space-time network of 8 layers and 16 labels", xlabel="iteration", ylabel="J above its minimum")
    axis.legend(fontsize=7)


def draw_feedback(axis: Any, run: Run) -> None:
    """Draw the controls of L-BFGS and those of the feedback."""
    loop, layers = run.tables["feedback"], run.tables["nonlinear_rk4"]["parameter"]
    n = len(layers)
    axis.stairs(layers * np.sqrt(n), np.linspace(0, 1, n + 1), color=COLOURS[0], label="w, L-BFGS", baseline=None)
    axis.plot(loop["t"], loop["control"], "--", color=COLOURS[1], label="w, feedback of the value function")
    axis.plot(loop["t"], loop["x"], color=COLOURS[2], label="x")
    axis.axhline(TARGET, color="0.7", lw=0.8)
    axis.set(title="x' = w tanh x towards 1.2", xlabel="depth t", ylabel="state, control")
    axis.legend()


def draw_values(axis: Any, run: Run) -> None:
    """Draw the errors of value functions over the cells."""
    exact = {"additive": TerminalAdditive(START, TARGET, PENALTY, LENGTH).cost / 2,
             "multiplicative": TerminalMultiplicative(START, TARGET, PENALTY, 1.0).optimum().energy / 2,
             "nonlinear": run.tables["nonlinear_rk4_history"]["value"][-1],
             "plane": run.tables["plane_rk4_history"]["value"][-1]}  # fmt: skip
    words = ("x' = w", "x' = w x", "x' = w tanh x", "x' = W tanh x, plane")
    for i, (kind, label) in enumerate(zip(exact, words, strict=True)):
        table = run.tables[f"value_{kind}"]
        axis.loglog(table["cells"], np.abs(table["value"] - exact[kind]), "o-", ms=4, color=COLOURS[i], label=label)
    n = run.tables["value_nonlinear"]["cells"]
    axis.loglog(n, 2 / n, color="0.7", lw=0.8, label="slope -1")
    axis.set(title="Value functions", xlabel="cells a side", ylabel="|V - least J|")
    axis.set_xticks(n, [f"{int(v)}" for v in n])
    axis.minorticks_off()
    axis.legend(fontsize=7)


def draw_spectra(axis: Any, run: Run) -> None:
    """Draw the singular values of kernels before and after training."""
    for i, placement in enumerate(("outside", "inside")):
        table = run.tables[f"spectrum_{placement}"]
        index = 1 + np.arange(len(table["after"]))
        axis.semilogy(index, table["after"] / table["after"][0], "o-", ms=3, color=COLOURS[i],
                      label=f"optimum, sigma {placement}")  # fmt: skip
        if i == 0:
            axis.semilogy(index, table["before"] / table["before"][0], color="0.6", label="start")
    axis.axvline(SAMPLES + 0.5, color="0.7", lw=0.8, ls="--")
    axis.set(title=f"Kernels w(t, x, y), {SAMPLES} samples", xlabel="number", ylabel="singular value over the first")
    axis.legend()


def draw_hamiltonians(axis: Any, run: Run) -> None:
    """Draw Hamiltonians along optima for several depths."""
    curves = {name: table for name, table in run.tables.items() if name.startswith("hamiltonian_0_")}
    for i, (name, table) in enumerate(sorted(curves.items(), key=lambda item: len(item[1]["hamiltonian"]))):
        values = table["hamiltonian"]
        axis.plot((np.arange(len(values)) + 0.5) / len(values), values, color=COLOURS[i],
                  label=f"{name.rsplit('_', 1)[1]} layers")  # fmt: skip
    axis.set(title="Hamiltonian along optima, x' = w tanh x", xlabel="depth t", ylabel="H")
    axis.legend()


def draw_remainders(axis: Any, run: Run) -> None:
    """Draw Taylor remainders."""
    table = run.tables["taylor"]
    words = ("x' = w tanh x", "plane", "space-time, outside", "space-time, inside")
    for i, label in enumerate(words):
        axis.loglog(table["step"], table[f"remainder_{i}"], "o-", ms=3, color=COLOURS[i], label=label)
    axis.loglog(table["step"], table["step"] ** 2, color="0.7", lw=0.8, label="slope 2")
    axis.set(title="Taylor remainders of the discrete adjoint", xlabel="step", ylabel="remainder")
    axis.legend(fontsize=7)


EXPERIMENT = Experiment(
    name="optimal_control",
    config=Config,
    run=run,
    figure=figure,
    smoke={"layers": 16, "labels": 16, "depth": 8, "cells": 320, "side": 48},
    full={"layers": 512, "labels": 128, "depth": 64, "cells": 6400, "side": 256},
    references=(LI, EHL, CRANDALL),
    description=(__doc__ or "").split("\n")[0],
)


def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line."""
    return EXPERIMENT.main(argv)


if __name__ == "__main__":
    sys.exit(main())
