"""Laws of the activations: infinitely many samples carried by a residual network, against closed forms.

    python experiments/activation_laws.py [--smoke | --full] [--out PATH] [--resume PATH]

The law of the activations solves the continuity equation d_t g + div(v g) = 0. Four views of it are
compared: finite volumes on a fixed grid, Lagrangian cells that move with the velocity, finitely many samples, and
finitely many layers. Each section measures one claim: orders and constants of the distance W1, the collapse onto
atoms with their places, masses and basins, entropy, mass and sign. `--planted 0.05` simulates a
weight that is 5 % off while the predictions stay: every verdict must then fail but those on mass, sign
and agreement of two simulations, which no weight can break.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from meanfield.cells import Cells
from meanfield.config import option
from meanfield.controls import Controls
from meanfield.diagnostics.atoms import find_atoms
from meanfield.diagnostics.fluctuations import mean_over_seeds
from meanfield.diagnostics.rates import fit_rate, observed_order
from meanfield.diagnostics.wasserstein import wasserstein
from meanfield.exact_laws import characteristic, gaussian_flow, w1_constant
from meanfield.experiment import Experiment, RunFile
from meanfield.integration import integrate
from meanfield.laws import Law
from meanfield.models.continuity import ContinuityEquation
from meanfield.models.lagrangian import LagrangianCells
from meanfield.models.residual import ResidualNetwork
from meanfield.plotting import COLOURS, save, style
from meanfield.storage.reader import Run
from meanfield.velocities import Velocity
from meanfield.verdict import Verdict

PAPER = (
    "Herty, Trimborn, Visconti, Mean-field and kinetic descriptions of neural differential equations, arXiv 2001.04294"
)
ENDS = 9.0
FINE = 400_001
ORDER_REASON = "orders are asserted within 0.1"

# Name of the table -> activation, w, b, depth.
FLOWS = {
    "linear": ("identity", -1.0, 0.3, 1.0),
    "tanh_in": ("tanh", -1.0, 0.5, 1.0),
    "tanh_out": ("tanh", 1.0, 0.2, 0.5),
    "sigmoid": ("sigmoid", 0.7, 0.1, 1.0),
}


@dataclass(frozen=True)
class Config:
    """Parameters of the experiment; depths and activations are pure numbers."""

    finest: int = option(1600, "cells of the finest grid on the line", least=400, most=102400)
    finest_plane: int = option(320, "cells a side of the finest grid in the plane", least=160, most=1280)
    n_seeds: int = option(400, "seeds of the samples", least=50, most=100000)
    n_samples: int = option(100_000, "samples of the atoms", least=1000, most=10_000_000)
    planted: float = option(0.0, "relative error planted in the simulated weights, to see verdicts fail")


def normal_cells(n: int) -> tuple[Cells, np.ndarray]:
    """Cells on the line and the standard normal law on them."""
    cells = Cells.line(-ENDS, ENDS, n)
    return cells, np.diff(ndtr(cells.faces())) / cells.volume


def exact_law(name: str, w: float, b: float, t: float) -> Law:
    """Image of the standard normal law under the exact characteristics, on cells too fine to matter."""
    edges = np.linspace(-ENDS, ENDS, FINE)
    return Law.cells(characteristic(name, t, edges, w, b), np.diff(ndtr(edges)))


def grids(config: Config, run: RunFile) -> None:
    """Order of fixed and of Lagrangian cells in W1, for four flows."""
    sizes = np.array([config.finest >> k for k in (3, 2, 1, 0)])
    for label, (name, w, b, t) in FLOWS.items():
        velocity = Velocity.outside(name, w * (1 + config.planted), b)

        def errors(velocity: Velocity = velocity, name: str = name, w: float = w, b: float = b, t: float = t) -> Any:
            exact, fixed, moving = exact_law(name, w, b, t), [], []
            for n in sizes:
                cells, g = normal_cells(int(n))
                model = ContinuityEquation(cells, velocity)
                fixed.append(wasserstein(model.law(integrate(model, g, (0.0, t)).final), exact))
                lagrangian, edges = LagrangianCells.start(velocity, ndtr, cells.faces())
                end = integrate(lagrangian, edges, (0.0, t), n_steps=100).final
                moving.append(wasserstein(lagrangian.law(end), exact))
            return {"n": sizes, "fixed": np.array(fixed), "lagrangian": np.array(moving)}

        table = run.once(f"grids_{label}", errors, (label, sizes, config.planted))
        for kind, words in (("fixed", "fixed grid (MUSCL)"), ("lagrangian", "Lagrangian cells")):
            slope = observed_order(2 * ENDS / table["n"], table[kind]).slopes[-1]
            claim = f"{words}, {name} with w = {w:g}: order 2 in W1"
            run.near(claim, 2.0, float(slope), tolerance=0.1, relative=False, reason=ORDER_REASON, source=PAPER)


def plane(config: Config, run: RunFile) -> None:
    """Order of the grid in the plane, in the mean and the covariance of a Gaussian."""
    w, b = np.array([[-0.4, 0.8], [-0.6, 0.1]]), np.array([0.2, -0.1])
    mean, covariance = gaussian_flow(0.8, w, b, 0.0, 0.25 * np.eye(2))
    velocity = Velocity.outside("identity", w * (1 + config.planted), b)
    sizes = np.array([config.finest_plane >> k for k in (2, 1, 0)])

    def errors() -> dict[str, np.ndarray]:
        found = []
        for n in sizes.tolist():
            cells = Cells.box((-4.0, -4.0), (4.0, 4.0), (n, n))
            line = np.diff(ndtr(2 * cells.faces()))
            end = integrate(ContinuityEquation(cells, velocity), np.outer(line, line) / cells.volume, (0.0, 0.8)).final
            gaps = cells.mean(end) - mean, cells.covariance(end) - covariance
            found.append(max(float(np.abs(gap).max()) for gap in gaps))
        return {"n": sizes, "error": np.array(found)}

    table = run.once("plane", errors, (sizes, config.planted))
    slope = observed_order(8.0 / table["n"], table["error"]).slopes[-1]
    claim = "fixed grid in the plane, Gaussian: order 2 in mean and covariance, Sigma' = W Sigma + Sigma W^T"
    run.near(claim, 2.0, float(slope), tolerance=0.1, relative=False, reason=ORDER_REASON, source=PAPER)


def collapse(config: Config, run: RunFile) -> None:
    """tanh with w < 0: the law collapses onto an atom; Lagrangian cells follow, a fixed grid does not."""
    w, b = -1.0, 0.5
    velocity = Velocity.outside("tanh", w * (1 + config.planted), b)
    times = np.array([1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0])
    model, edges = LagrangianCells.start(velocity, ndtr, np.linspace(-ENDS, ENDS, 4001))
    moved = run.integrate("collapse", model, edges, (0.0, 14.0), n_steps=1400, save_at=np.append(0.0, times))
    cells, g = normal_cells(1600)
    fixed = ContinuityEquation(cells, velocity)
    there = run.integrate("collapse_fixed", fixed, g, (0.0, 8.0), save_at=np.append(0.0, times[:5]))
    y0, mass = np.sinh(w * np.linspace(-ENDS, ENDS, FINE) + b), np.diff(ndtr(np.linspace(-ENDS, ENDS, FINE)))
    y0 = 0.5 * (y0[1:] + y0[:-1])
    atom = Law.particles([-b / w])
    predicted = np.array([mass @ np.abs(np.arcsinh(np.exp(w * t) * y0)) for t in times]) / abs(w)
    laws = [model.law(x) for x in moved.fields["x"][1:]]
    measured = np.array([wasserstein(law, atom) for law in laws])
    on_grid = np.full(len(times), np.nan)
    on_grid[:5] = [wasserstein(fixed.law(g), atom) for g in there.fields["density"][1:]]
    columns = {"t": times, "predicted": predicted, "lagrangian": measured, "fixed": on_grid}
    run.once("collapse_w1", lambda: columns, (config.planted,))
    worst = int(np.argmax(np.abs(measured / predicted - 1)))
    run.near(
        f"tanh, w < 0: W1 to the atom is E asinh(e^-|w|t |sinh y0|)/|w| up to t = 14 (worst at {times[worst]:g})",
        float(predicted[worst]),
        float(measured[worst]),
        tolerance=1e-4,
        reason="4,000 Lagrangian cells, 100 RK4 steps a unit",
        source=PAPER,
    )
    deviation = math.sqrt(mass @ y0**2 - (mass @ y0) ** 2) * math.exp(-14.0)
    run.near(
        "Lagrangian cells: a profile of width 2e-6 keeps its standard deviation",
        deviation,
        math.sqrt(laws[-1].variance()),
        tolerance=1e-3,
        reason="linear near the atom: the image of sinh y0",
    )
    run.near(
        "tanh, w < 0: W1 e^{|w| t} tends to E |sinh y0|/|w|",
        float(mass @ np.abs(y0)),
        float(measured[-1] * np.exp(14.0)),
        tolerance=1e-4,
        reason="asymptotic form at t = 14",
        source=PAPER,
    )


def frozen(config: Config, run: RunFile) -> None:
    """ReLU with w < 0: what is active collapses, the rest is frozen."""
    w, b = -1.0, 0.4
    velocity = Velocity.outside("relu", w * (1 + config.planted), b)
    edges = np.union1d(np.linspace(-ENDS, ENDS, 3001), [-b / w])
    model, start = LagrangianCells.start(velocity, ndtr, edges)
    moved = run.integrate("relu", model, start, (0.0, 6.0), n_steps=600, save_at=6)
    place = -b / w
    limit = Law(model.masses, np.maximum(edges[:-1], place), np.maximum(edges[1:], place))
    # E y0_+ of y0 = w x + b ~ N(b, w^2).
    active = b * ndtr(b / abs(w)) + abs(w) * math.exp(-0.5 * (b / w) ** 2) / math.sqrt(2 * math.pi)
    found = [wasserstein(model.law(x), limit) for x in moved.fields["x"]]
    predicted = np.exp(-abs(w) * moved.t) * active / abs(w)
    worst = int(np.argmax(np.abs(np.array(found) / predicted - 1)))
    run.near(
        f"relu, w < 0: W1 to the limit law is e^-|w|t E[y0_+]/|w| (worst at t = {moved.t[worst]:g})",
        float(predicted[worst]),
        found[worst],
        tolerance=1e-4,
        reason="3,000 Lagrangian cells",
        source=PAPER,
    )


def atoms(config: Config, run: RunFile) -> None:
    """sin(w x): atoms at the stable zeros, with the masses of their basins."""
    w, spread, n = 1.0, 4.0, config.n_samples
    velocity = Velocity.outside("sine", w * (1 + config.planted), 0.0)
    start = spread * ndtri((np.arange(n) + 0.5) / n)

    def found() -> dict[str, np.ndarray]:
        end = integrate(ResidualNetwork(velocity, n), start[None], (0.0, 60.0), n_steps=3000, save_at=()).final[0]
        a = find_atoms(end, radius=1e-6, least_mass=2e-3, start=start)
        return {"place": a.place, "mass": a.mass, "left": a.basin[:, 0], "right": a.basin[:, 1]}

    table = run.once("atoms", found, (n, config.planted))
    k = np.arange(len(table["place"])) - len(table["place"]) // 2
    places = (2 * k + 1) * np.pi / w if len(k) % 2 == 0 else 2 * k * np.pi
    edges = np.stack([places - np.pi / w, places + np.pi / w])
    masses = ndtr(edges[1] / spread) - ndtr(edges[0] / spread)
    reach = np.abs(edges) < 2.5 * spread
    basin = np.abs(np.stack([table["left"], table["right"]]) - edges)[reach].max()
    gap = float(np.abs(table["place"] - places).max())
    worst = int(np.argmax(np.abs(table["mass"] - masses)))
    for claim, predicted, measured, tolerance, reason in (
        ("atoms stand at the zeros of v with v' < 0 (largest gap)", 0.0, gap, 1e-8, "after depth 60 the rest is e^-60"),
        (
            "the mass of an atom is that of its basin (worst)",
            float(masses[worst]),
            float(table["mass"][worst]),
            1e-3,
            f"{n} samples at the quantiles",
        ),
        (
            "basins end at the unstable zeros (largest gap, within 2.5 deviations)",
            0.0,
            float(basin),
            400.0 / n,
            "spacing of the samples there",
        ),
    ):
        run.near(
            f"sine: {claim}", predicted, measured, tolerance=tolerance, relative=False, reason=reason, source=PAPER
        )


def samples(config: Config, run: RunFile) -> None:
    """n samples: E W1 = C sigma(t)/sqrt(n), and the law of K layers at distance O(1/K)."""
    w, b, t = -0.5, 0.3, 1.0
    velocity = Velocity.outside("identity", w * (1 + config.planted), b)
    mean, variance = (float(np.squeeze(v)) for v in gaussian_flow(t, w, b, 0.0, 1.0))
    sizes, deviation = np.array([64, 256, 1024, 4096]), math.sqrt(variance)
    standard = np.linspace(-ENDS, ENDS, 40_001)
    exact = Law.cells(mean + deviation * standard, np.diff(ndtr(standard)))

    def distances() -> dict[str, np.ndarray]:
        rng, rows = np.random.default_rng(run.seed), []
        for n in sizes.tolist():
            found = []
            for _ in range(config.n_seeds):
                x = rng.standard_normal((1, n))
                end = integrate(ResidualNetwork(velocity, n), x, (0.0, t), n_steps=8, save_at=()).final[0]
                found.append(wasserstein(Law.particles(end), exact))
            estimate = mean_over_seeds(found, confidence=0.99)
            rows.append((n, estimate.value, estimate.low, estimate.high))
        return dict(zip(("n", "mean", "low", "high"), np.array(rows).T, strict=True))

    table = run.once("samples", distances, (config.n_seeds, sizes, config.planted, run.seed))
    slope = fit_rate(1 / table["n"], table["mean"]).slope
    claim = "n samples: E W1(mu^n, mu) falls as n^(-1/2)"
    run.near(claim, 0.5, slope, tolerance=0.03, relative=False, reason="mean over seeds", source=PAPER)
    predicted = w1_constant(ndtr, -12.0, 12.0) * deviation
    half = 0.5 * float(table["high"][-1] - table["low"][-1]) * 64.0
    measured = float(table["mean"][-1]) * 64.0
    run.near(
        "n = 4096 samples: sqrt(n) E W1 is the constant 1.2884 sigma(t)",
        predicted,
        measured,
        tolerance=half + 0.01 * predicted,
        relative=False,
        reason=f"99 % confidence over {config.n_seeds} seeds, and 1 % for n < infinity",
        source="del Barrio, Gine, Matran, Annals of Probability 27 (1999)",
    )


def layers(config: Config, run: RunFile) -> None:
    """K Euler layers: W1 = O(1/K), with the constant of the linear flow."""
    w, b, t, n = -1.0, 0.3, 1.0, 4000
    sizes = np.array([8, 16, 32, 64, 128])
    velocity = Velocity.outside("identity", w * (1 + config.planted), b)
    edges = np.linspace(-ENDS, ENDS, n + 1)
    model, start = LagrangianCells.start(velocity, ndtr, edges)
    exact = Law.cells(characteristic("identity", t, edges, w, b), model.masses)

    def distances() -> dict[str, np.ndarray]:
        ends = [integrate(model, start, (0.0, t), scheme="euler", n_steps=int(k)).final for k in sizes]
        return {"layers": sizes, "w1": np.array([wasserstein(model.law(x), exact) for x in ends])}

    table = run.once("layers", distances, (sizes, config.planted))
    slope = observed_order(1 / table["layers"], table["w1"]).slopes[-1]
    run.near("K layers: W1 to the continuity equation is O(1/K)", 1.0, float(slope), tolerance=0.1, relative=False,
             reason=ORDER_REASON, source=PAPER)  # fmt: skip
    # |(1 + wt/K)^K - e^{wt}| |y0|/|w| with y0 ~ N(b, w^2): E |y0| is that of a folded normal.
    folded = abs(w) * math.sqrt(2 / math.pi) * math.exp(-0.5 * (b / w) ** 2) + b * (1 - 2 * ndtr(-b / abs(w)))
    predicted = 0.5 * (w * t) ** 2 * math.exp(w * t) * folded / abs(w)
    richardson = 2 * 128 * float(table["w1"][-1]) - 64 * float(table["w1"][-2])
    run.near("K layers: K W1 tends to (wt)^2 e^{wt} E|y0|/(2|w|)", predicted, richardson, tolerance=1e-3,
             reason="extrapolated from 64 and 128 layers")  # fmt: skip


def entropy(config: Config, run: RunFile) -> None:
    """dH/dt = int div v dmu, by the closed form H(t) = H(0) + E log dX/dx0."""
    name, w, b, t = "tanh", 1.0, 0.2, 1.5
    velocity = Velocity.outside(name, w * (1 + config.planted), b)
    edges = np.linspace(-ENDS, ENDS, 8001)
    model, start = LagrangianCells.start(velocity, ndtr, edges)
    probes = {"div": lambda t, y, m: float(m.masses @ m.velocity.divergence(t, 0.5 * (y[1:] + y[:-1])[None]))}
    end = run.integrate("entropy", model, start, (0.0, t), n_steps=300, save_at=300, probes=probes)
    gain = model.law(end.final).entropy() - model.law(start).entropy()
    x = 0.5 * (edges[1:] + edges[:-1])
    y0, y = w * x + b, w * characteristic(name, t, x, w, b) + b
    predicted = float(model.masses @ (w * t + np.log(np.cosh(y0) / np.cosh(y))))
    run.near("entropy: H(t) - H(0) is E log(e^{wt} cosh y0/cosh y)", predicted, gain, tolerance=1e-4,
             reason="8,000 Lagrangian cells", source=PAPER)  # fmt: skip
    rate = end.probes["div"][1]
    integral = float(np.sum(0.5 * (rate[1:] + rate[:-1]) * np.diff(end.t)))
    run.near("entropy: H(t) - H(0) is the integral of E div v", predicted, integral, tolerance=1e-4,
             reason="trapezoidal rule over 300 steps", source=PAPER)  # fmt: skip


def three_forms(config: Config, run: RunFile) -> None:
    """Networks of all three forms with rough layers: grid against samples; mass and sign."""
    rng, knots = np.random.default_rng(run.seed + 1), np.linspace(0.0, 1.0, 9)
    w = rng.standard_normal((8, 1, 1))
    forms = {
        "outside": Velocity.outside("tanh", Controls(knots, w), Controls(knots, rng.standard_normal((8, 1)))),
        "inside": Velocity.inside("gelu", Controls(knots, w), 0.2),
        "two_layer": Velocity.two_layer(
            "relu",
            Controls(knots, rng.standard_normal((8, 1, 6))),
            rng.standard_normal((6, 1)),
            Controls(np.linspace(0, 1, 8), rng.standard_normal((8, 6)), "linear"),
        ),
    }
    least, lost = math.inf, 0.0
    for name, velocity in forms.items():
        errors = []
        for n in (config.finest // 2, config.finest):
            cells, g = normal_cells(n)
            model = ContinuityEquation(cells, velocity)
            end = run.integrate(f"form_{name}_{n}", model, g, (0.0, 1.0)).final
            least, lost = min(least, float(end.min())), max(lost, abs(model.mass(end) / model.mass(g) - 1))
            lagrangian, edges = LagrangianCells.start(velocity, ndtr, np.linspace(-ENDS, ENDS, 20_001))
            reference = integrate(lagrangian, edges, (0.0, 1.0), rtol=1e-7).final
            errors.append(wasserstein(model.law(end), lagrangian.law(reference)))
        run.at_most(
            f"layers that jump, form {name}: grid and moving cells agree in W1",
            40.0 * (2 * ENDS / config.finest) ** 2,
            errors[-1],
            reason="second order with a constant of 40, fixed beforehand",
        )
    run.at_most("mass is conserved to round-off", 1e-13, lost, reason="a sum of thousands of terms", source=PAPER)
    run.verdict(Verdict.at_least("densities stay nonnegative", 0.0, least, reason="exact", source=PAPER))


def picture(run: RunFile) -> None:
    """Save a law in the plane for the figure."""
    cells = Cells.box((-3.0, -3.0), (3.0, 3.0), (120, 120))
    velocity = Velocity.outside("tanh", [[-0.3, 2.0], [-2.0, 0.2]], [0.3, 0.0])
    model = ContinuityEquation(cells, velocity)
    g = cells.average(lambda x, y: np.exp(-((x / 1.0) ** 2) - ((y - 0.3) / 0.8) ** 2))
    run.integrate("plane_law", model, g / cells.mass(g), (0.0, 1.5), save_at=3)


def run(config: Config, run_file: RunFile) -> None:
    """Every section in turn."""
    sections: tuple[Callable[[Config, RunFile], None], ...] = (
        grids, plane, collapse, frozen, atoms, samples, layers, entropy, three_forms,
    )  # fmt: skip
    for section in sections:
        section(config, run_file)
    picture(run_file)


def figure(run: Run, path: Path) -> None:
    """Six panels: collapse, its distance, orders, samples and layers, atoms, a law in the plane."""
    with style() as plt:
        drawing, axes = plt.subplots(2, 3, figsize=(12.5, 7.4), layout="constrained")
        draw_paths(axes[0, 0], run)
        draw_collapse(axes[0, 1], run)
        draw_orders(axes[0, 2], run)
        draw_rates(axes[1, 0], run)
        draw_atoms(axes[1, 1], run)
        draw_plane(drawing, axes[1, 2], run)
        save(drawing, path)


def draw_paths(axis: Any, run: Run) -> None:
    """Draw densities on the way to the atom."""
    moving, fixed = run.series["collapse"], run.series["collapse_fixed"]
    for i, k in enumerate((0, 1, 2, 3)):
        x, m = moving["x"][k], moving["mass"]
        axis.step(x, np.append(m / np.diff(x), 0.0), where="post", color=COLOURS[i], label=f"t = {moving['time'][k]:g}")
    axis.plot(fixed["x"], fixed["density"][3], ":", color="0.3", label="t = 4 on 1,600 fixed cells")
    axis.set(title="tanh, w < 0: the law collapses onto an atom", xlabel="x", ylabel="density", xlim=(-2.5, 3.5))
    axis.set(yscale="log", ylim=(1e-2, 1e2))
    axis.legend(loc="upper left", fontsize=7)


def draw_collapse(axis: Any, run: Run) -> None:
    """Draw W1 to the atom."""
    table = run.tables["collapse_w1"]
    axis.semilogy(table["t"], table["predicted"], color="0.7", lw=4, label="closed form")
    axis.semilogy(table["t"], table["lagrangian"], "o", color=COLOURS[0], label="4,000 Lagrangian cells")
    axis.semilogy(table["t"], table["fixed"], "s", color=COLOURS[1], label="1,600 fixed cells")
    axis.set(title="Distance W1 to the atom", xlabel="depth t", ylabel="W1")
    axis.legend()


def draw_orders(axis: Any, run: Run) -> None:
    """Draw W1 errors over the number of cells."""
    for i, label in enumerate(FLOWS):
        table = run.tables[f"grids_{label}"]
        words = label.replace("_", " ")
        axis.loglog(table["n"], table["fixed"], "s-", ms=4, color=COLOURS[i], label=f"{words}, fixed")
        axis.loglog(table["n"], table["lagrangian"], "o--", ms=4, color=COLOURS[i], label=f"{words}, Lagrangian")
    n = table["n"].astype(float)
    axis.loglog(n, 0.4 * table["fixed"][0] * (n[0] / n) ** 2, ":", color="0.5", label="slope -2")
    axis.set_xticks(n, [f"{int(v)}" for v in n])
    axis.minorticks_off()
    axis.set(title="W1 to the exact law", xlabel="number of cells", ylabel="W1", ylim=(None, axis.get_ylim()[1] * 30))
    axis.legend(fontsize=7, ncols=2)


def draw_rates(axis: Any, run: Run) -> None:
    """Draw W1 of finitely many samples and layers."""
    table = run.tables["samples"]
    bars = np.stack([table["mean"] - table["low"], table["high"] - table["mean"]])
    axis.errorbar(table["n"], table["mean"], bars, fmt="o", color=COLOURS[0], label="n samples: E W1")
    axis.loglog(table["n"], table["mean"][0] * np.sqrt(table["n"][0] / table["n"]), "-", color=COLOURS[0], lw=0.8)
    table = run.tables["layers"]
    axis.loglog(table["layers"], table["w1"], "s", color=COLOURS[1], label="K layers: W1")
    axis.loglog(table["layers"], table["w1"][0] * table["layers"][0] / table["layers"], "-", color=COLOURS[1], lw=0.8)
    axis.set(title="Finite data: n^(-1/2); finite depth: 1/K", xlabel="n or K", ylabel="W1")
    axis.legend()


def draw_atoms(axis: Any, run: Run) -> None:
    """Draw masses of atoms over their basins."""
    table = run.tables["atoms"]
    for i, (place, mass, left, right) in enumerate(
        zip(table["place"], table["mass"], table["left"], table["right"], strict=True)
    ):
        axis.fill_between([max(left, -14.0), min(right, 14.0)], [mass, mass], color=COLOURS[i % 6], alpha=0.35, lw=0)
        axis.plot([place, place], [0, mass], color=COLOURS[i % 6], lw=2.5)
    axis.set(title="v = sin x: atoms (lines) and their basins (areas)", xlabel="x", ylabel="mass", ylim=(0, None))


def draw_plane(drawing: Any, axis: Any, run: Run) -> None:
    """Draw a law in the plane."""
    series = run.series["plane_law"]
    image = axis.pcolormesh(series["x_1"], series["x_2"], series["density"][-1].T, shading="nearest", rasterized=True)
    drawing.colorbar(image, ax=axis, label="density")
    axis.contour(series["x_1"], series["x_2"], series["density"][0].T, levels=4, colors="w", linewidths=0.7)
    axis.set(title="tanh(Wx + b) in the plane: depth 1.5 (lines: 0)", xlabel="x_1", ylabel="x_2", aspect="equal")


EXPERIMENT = Experiment(
    name="activation_laws",
    config=Config,
    run=run,
    figure=figure,
    smoke={"finest": 800, "finest_plane": 160, "n_seeds": 100, "n_samples": 20_000},
    full={"finest": 12_800, "finest_plane": 640, "n_seeds": 4000, "n_samples": 1_000_000},
    references=(PAPER,),
    description=(__doc__ or "").split("\n")[0],
)


def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line."""
    return EXPERIMENT.main(argv)


if __name__ == "__main__":
    sys.exit(main())
