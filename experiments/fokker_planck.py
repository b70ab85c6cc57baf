"""Noisy activations: steady laws, the way to them, and models that have none.

    python experiments/fokker_planck.py [--smoke | --full] [--out PATH] [--resume PATH]

With noise nu K(x) dB the law of the activations solves the Fokker-Planck equation
d_t g + div(v g) = (nu^2/2) Laplace(K^2 g). Each section measures one claim: discrete steady states against
the closed forms g ~ K^-2 exp((2/nu^2) int v/K^2), the order of the grid against a law known at all
times, decay of the relative entropy, drifts that rotate, samples against the grid, and which networks have
no steady law. `--planted 0.05` simulates a weight that is 5 % off while the predictions stay: every verdict
must then fail but those on mass, sign, agreement of two simulations and existence.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import solve_continuous_lyapunov
from scipy.special import ndtr, ndtri

from meanfield.activations import activation
from meanfield.cells import Cells
from meanfield.config import option
from meanfield.diagnostics.entropy import relative_entropy_of_masses
from meanfield.diagnostics.equilibrium import equilibrium
from meanfield.diagnostics.rates import observed_order
from meanfield.diagnostics.wasserstein import wasserstein
from meanfield.errors import NumericalError
from meanfield.exact_laws import ornstein_uhlenbeck
from meanfield.experiment import Experiment, RunFile
from meanfield.integration import integrate
from meanfield.laws import Law
from meanfield.models.fokkerplanck import FokkerPlanck
from meanfield.models.residual import ResidualNetwork
from meanfield.plotting import COLOURS, save, style
from meanfield.storage.reader import Run
from meanfield.velocities import Velocity
from meanfield.verdict import Verdict

PAPER = (
    "Herty, Trimborn, Visconti, Mean-field and kinetic descriptions of neural differential equations, arXiv 2001.04294"
)
NU = 0.9
# Deviations at which a Gaussian counts as over.
ENDS = 9.0


@dataclass(frozen=True)
class Config:
    """Parameters of the experiment; depths and activations are pure numbers."""

    cells: int = option(400, "cells of the grid on the line", least=200, most=6400)
    cells_plane: int = option(80, "cells a side of the finest grid in the plane", least=40, most=400)
    n_samples: int = option(200_000, "samples that follow noisy layers", least=1000, most=10_000_000)
    planted: float = option(0.0, "relative error planted in the simulated weights, to see verdicts fail")


def by_primitive(name: str, w: float, b: float) -> Callable[[np.ndarray], np.ndarray]:
    """Logarithm of the steady density for K = 1, 2 Sigma(w x + b)/(nu^2 w)."""
    return lambda x: 2 * activation(name).primitive(w * x + b) / (NU**2 * w)


# Name of the table -> words, activation, w, b, box, K, log of the steady density, depth to run.
Law1D = tuple[str, str, float, float, tuple[float, float], Any, Callable[[np.ndarray], np.ndarray], float]
STEADY: dict[str, Law1D] = {
    "gaussian": ("identity, K = 1: Gaussian", "identity", -1.0, 0.3, (-7.0, 7.0), 1.0,
                 by_primitive("identity", -1.0, 0.3), 30.0),
    "tanh": ("tanh, K = 1", "tanh", -1.5, 0.4, (-8.0, 8.0), 1.0, by_primitive("tanh", -1.5, 0.4), 60.0),
    "inverse_gamma": ("identity, K = x: inverse gamma", "identity", -1.0, 1.0, (0.05, 6.0), lambda x: x,
                      lambda x: (-2 - 2 / NU**2) * np.log(x) - 2 / (NU**2 * x), 30.0),
    "walls": ("sigmoid between walls, K = 1", "sigmoid", -1.0, 0.2, (-3.0, 3.0), 1.0,
              by_primitive("sigmoid", -1.0, 0.2), 80.0),
}  # fmt: skip


def steady_states(config: Config, run: RunFile) -> None:
    """Where the grid comes to rest, against the closed forms at the centres."""
    least, lost = math.inf, 0.0
    for label, (words, name, w, b, box, strength, log, depth) in STEADY.items():
        cells = Cells.line(*box, config.cells)
        model = FokkerPlanck(cells, Velocity.outside(name, w * (1 + config.planted), b), NU, strength)
        start = np.full(config.cells, 1.0 / (box[1] - box[0]))
        solution = run.integrate(f"steady_{label}", model, start, (0.0, depth), save_at=[0.0, 0.3, 1.0, 3.0, depth])
        exact = np.exp(log(cells.centres()) - log(cells.centres()).max())
        exact /= cells.mass(exact)
        run.once(f"exact_{label}", lambda exact=exact, cells=cells: {"x": cells.centres(), "density": exact}, label)
        gap = float(np.abs(solution.final - exact).max())
        run.at_most(f"{words}: the grid rests at the true density, at the centres", 1e-10, gap,
                    reason="the fluxes vanish exactly there; the way left is e^-depth", source=PAPER)  # fmt: skip
        densities = solution.fields["density"]
        change = float(np.abs(densities.sum(axis=1) * cells.volume - 1).max())
        least, lost = min(least, float(densities.min())), max(lost, change / solution.stats["n_steps"])
    run.at_most(
        "mass is conserved to round-off (change a step)",
        2.3e-16,
        lost,
        reason="one unit in the last place",
        source=PAPER,
    )
    run.verdict(Verdict.at_least("densities stay nonnegative", 0.0, least, reason="exact", source=PAPER))


def order(config: Config, run: RunFile) -> None:
    """Order two in W1 against the Ornstein-Uhlenbeck law at depth 1."""
    w, b = -1.0, 0.3
    sizes = np.array([config.cells >> k for k in (2, 1, 0)])
    mean, variance = ornstein_uhlenbeck(1.0, w, b, NU, 1.0, 0.36)
    standard = np.linspace(-ENDS, ENDS, 100_001)
    exact = Law.cells(mean + math.sqrt(variance) * standard, np.diff(ndtr(standard)))

    def errors() -> dict[str, np.ndarray]:
        found = []
        for n in sizes.tolist():
            cells = Cells.line(-8.0, 8.0, n)
            model = FokkerPlanck(cells, Velocity.outside("identity", w * (1 + config.planted), b), NU)
            g = np.diff(ndtr((cells.faces() - 1.0) / 0.6)) / cells.volume
            found.append(wasserstein(model.law(integrate(model, g, (0.0, 1.0)).final), exact))
        return {"n": sizes, "w1": np.array(found)}

    table = run.once("order", errors, (sizes, config.planted))
    slope = observed_order(16.0 / table["n"], table["w1"]).slopes[-1]
    run.near("grid against the Ornstein-Uhlenbeck law at depth 1: order 2 in W1", 2.0, float(slope), tolerance=0.1,
             relative=False, reason="orders are asserted within 0.1", source=PAPER)  # fmt: skip


def entropies(config: Config, run: RunFile) -> None:
    """Relative entropy falls at all times, for a shifted Gaussian as e^{-2 |w| t}."""
    w = -0.8
    cells = Cells.line(-7.0, 7.0, config.cells)
    rest = FokkerPlanck(cells, Velocity.outside("identity", w), NU).steady_state() * cells.volume
    model = FokkerPlanck(cells, Velocity.outside("identity", w * (1 + config.planted)), NU)
    deviation = NU / math.sqrt(2 * abs(w))
    g = np.diff(ndtr((cells.faces() - 1.5) / deviation)) / cells.volume
    solution = run.integrate("entropy", model, g, (0.0, 4.0), save_at=40)
    found = np.array([relative_entropy_of_masses(g * cells.volume, rest) for g in solution.fields["density"]])
    predicted = 0.5 * (1.5 / deviation) ** 2 * np.exp(2 * w * solution.t)
    run.once("entropy_decay", lambda: {"t": solution.t, "predicted": predicted, "measured": found}, config.planted)
    run.near("a shifted Gaussian: relative entropy is (m/s)^2/2 e^{-2|w|t} at depth 4", float(predicted[-1]),
             float(found[-1]), tolerance=0.02, reason="O(h^2) of the grid in the rate", source=PAPER)  # fmt: skip
    tanh = FokkerPlanck(cells, Velocity.outside("tanh", -1.5, 0.4), NU)
    rest = tanh.steady_state() * cells.volume
    start = cells.average(lambda x: np.exp(-((x + 2) ** 2) * 4) + np.exp(-((x - 3) ** 2) * 4))
    way = run.integrate("entropy_tanh", tanh, start / cells.mass(start), (0.0, 10.0), save_at=200)
    fall = np.diff([relative_entropy_of_masses(g * cells.volume, rest) for g in way.fields["density"]])
    run.at_most("tanh, two humps: relative entropy never increases (largest change)", 0.0, float(fall.max()),
                reason="the discrete flow dissipates it", source=PAPER)  # fmt: skip


def plane(config: Config, run: RunFile) -> None:
    """Two dimensions: a gradient drift has its Gaussian exactly, a rotating one the Lyapunov covariance at order 2."""
    w, b = np.array([[-1.0, 0.3], [0.3, -0.8]]), np.array([0.1, 0.2])
    cells = Cells.box((-4.0, -4.0), (4.0, 4.0), (config.cells_plane, config.cells_plane))
    model = FokkerPlanck(cells, Velocity.outside("identity", w * (1 + config.planted), b), NU)
    end = run.integrate("plane_gradient", model, np.full(cells.shape, 1 / 64), (0.0, 40.0), save_at=1).final
    gap = cells.points() + np.linalg.solve(w, b)[:, None]
    exact = np.exp(np.einsum("in,ij,jn->n", gap, w, gap) / NU**2).reshape(cells.shape)
    exact /= cells.mass(exact)
    run.at_most("plane, gradient drift: the grid rests at the true Gaussian, at the centres", 1e-9,
                float(np.abs(end - exact).max()), reason="fluxes vanish there; the rest is e^{-0.6 depth}",
                source=PAPER)  # fmt: skip
    rotating = np.array([[-1.0, 0.8], [-0.8, -0.6]])
    covariance = solve_continuous_lyapunov(rotating, -(NU**2) * np.eye(2))
    sizes = np.array([config.cells_plane // 2, config.cells_plane])

    def errors() -> dict[str, np.ndarray]:
        found = []
        for n in sizes.tolist():
            box = Cells.box((-4.0, -4.0), (4.0, 4.0), (n, n))
            turning = FokkerPlanck(box, Velocity.outside("identity", rotating * (1 + config.planted)), NU)
            found.append(np.abs(box.covariance(turning.steady_state()) - covariance).max())
        return {"n": sizes, "error": np.array(found)}

    table = run.once("plane_rotating", errors, (sizes, config.planted))
    slope = observed_order(8.0 / table["n"], table["error"]).slopes[-1]
    run.near("plane, rotating drift: covariance solves W S + S W^T + nu^2 = 0, order 2", 2.0, float(slope),
             tolerance=0.1, relative=False, reason="orders are asserted within 0.1", source=PAPER)  # fmt: skip
    swirl = FokkerPlanck(cells, Velocity.outside("tanh", 2.0 * rotating, 0.1), NU)
    rest = swirl.steady_state()
    run.once("swirl", lambda: {"density": rest.ravel()}, config.cells_plane)


def samples(config: Config, run: RunFile) -> None:
    """Samples that follow noisy layers (Euler-Maruyama) against the grid, within Monte Carlo error."""
    n, steps = config.n_samples, 200
    velocity = Velocity.outside("tanh", -1.5, 0.4)

    def strength(x: np.ndarray) -> np.ndarray:
        return 1 + 0.5 * np.tanh(x)

    cells = Cells.line(-8.0, 8.0, config.cells)
    g = np.diff(ndtr((cells.faces() - 1.0) / 0.6)) / cells.volume
    grid = FokkerPlanck(cells, velocity, NU, strength)
    law = grid.law(integrate(grid, g, (0.0, 2.0)).final)

    def distance() -> dict[str, np.ndarray]:
        start = 1.0 + 0.6 * ndtri((np.arange(n) + 0.5) / n)
        network = ResidualNetwork(velocity, n, NU, strength, seed=run.seed)
        end = integrate(network, start[None], (0.0, 2.0), n_steps=steps, save_at=()).final[0]
        return {
            "x": np.sort(end)[:: max(1, n // 2000)],
            "w1": np.full(len(end[:: max(1, n // 2000)]), wasserstein(Law.particles(end), law)),
        }

    table = run.once("samples", distance, (n, run.seed))
    bound = 3 * 1.2884 * math.sqrt(law.variance() / n) + 1.0 / steps
    run.at_most(f"{n} noisy samples and the grid agree in W1", bound, float(table["w1"][0]),
                reason="three times the mean for samples, plus the O(dt) of 200 layers", source=PAPER)  # fmt: skip


# Words -> activation, w, b, K, domain, whether a steady law exists.
EXISTENCE: dict[str, tuple[str, float, float, Any, tuple[float, float], bool]] = {
    "relu, K = 1": ("relu", -1.0, 0.2, 1.0, (-math.inf, math.inf), False),
    "sigmoid, K = 1": ("sigmoid", -1.0, 0.2, 1.0, (-math.inf, math.inf), False),
    "tanh with w > 0, K = 1": ("tanh", 1.0, 0.2, 1.0, (-math.inf, math.inf), False),
    "tanh with w < 0, K = 1": ("tanh", -1.0, 0.2, 1.0, (-math.inf, math.inf), True),
    "identity, K = x, b > 0, w < nu^2/2": ("identity", 0.39, 0.2, abs, (0.0, math.inf), True),
    "identity, K = x, b > 0, w > nu^2/2": ("identity", 0.42, 0.2, abs, (0.0, math.inf), False),
    "identity, K = x, b < 0": ("identity", -1.0, -0.2, abs, (0.0, math.inf), False),
}


def existence(config: Config, run: RunFile) -> None:
    """Which networks have a steady law on the whole line; and how mass escapes where there is none."""
    for words, (name, w, b, strength, domain, exists) in EXISTENCE.items():
        found = equilibrium(Velocity.outside(name, w, b), NU, strength, domain=domain)
        reason = found.reason
        try:
            found.require()
        except NumericalError as error:
            reason = str(error)
        run.near(f"{words}: {'has a' if exists else 'has no'} steady law", float(exists), float(found.exists),
                 tolerance=0.5, relative=False, reason=reason, source=PAPER)  # fmt: skip
    # ReLU, w < 0: beyond -b/w only noise acts, and what starts there spreads as the square root of depth.
    cells = Cells.line(-4.0, 60.0, 4 * config.cells)
    model = FokkerPlanck(cells, Velocity.outside("relu", -1.0, 0.2), NU)
    g = np.diff(ndtr(cells.faces() - 1.0)) / cells.volume
    solution = run.integrate("escape", model, g / cells.mass(g), (0.0, 100.0), save_at=[0.0, 1.0, 10.0, 100.0])
    near = [float(g[cells.centres() < 3.0].sum() * cells.volume) for g in solution.fields["density"]]
    run.once("escape_mass", lambda: {"t": solution.t, "mass": np.array(near)}, config.cells)
    run.at_most("relu, K = 1: mass left below x = 3 falls at every tenfold of depth (largest ratio)", 0.95,
                max(b / a for a, b in pairwise(near[1:])),
                reason="a steady law would hold it", source=PAPER)  # fmt: skip


def run(config: Config, run_file: RunFile) -> None:
    """Every section in turn."""
    for section in (steady_states, order, entropies, plane, samples, existence):
        section(config, run_file)


def figure(run: Run, path: Path) -> None:
    """Six panels: three ways to steady laws, entropy, escape, a swirl."""
    with style() as plt:
        drawing, axes = plt.subplots(2, 3, figsize=(12.5, 7.4), layout="constrained")
        for axis, label in zip(axes[0], ("tanh", "inverse_gamma", "walls"), strict=True):
            draw_way(axis, run, label)
        draw_entropy(axes[1, 0], run)
        draw_escape(axes[1, 1], run)
        draw_swirl(drawing, axes[1, 2], run)
        save(drawing, path)


def draw_way(axis: Any, run: Run, label: str) -> None:
    """Draw densities on the way to a steady law."""
    series, exact = run.series[f"steady_{label}"], run.tables[f"exact_{label}"]
    axis.plot(exact["x"], exact["density"], color="0.75", lw=5, label="closed form")
    for i, (t, g) in enumerate(zip(series["time"], series["density"], strict=True)):
        axis.plot(series["x"], g, color=COLOURS[i], lw=1.2, label=f"t = {t:g}")
    axis.set(title=STEADY[label][0], xlabel="x", ylabel="density")
    axis.legend(fontsize=7)


def draw_entropy(axis: Any, run: Run) -> None:
    """Draw the relative entropy of a shifted Gaussian."""
    table = run.tables["entropy_decay"]
    axis.semilogy(table["t"], table["predicted"], color="0.75", lw=5, label="(m/s)²/2 exp(-2|w|t)")
    axis.semilogy(table["t"], table["measured"], color=COLOURS[0], label="grid")
    axis.set(title="Relative entropy to the steady law", xlabel="depth t", ylabel="H(g | g_inf)")
    axis.legend()


def draw_escape(axis: Any, run: Run) -> None:
    """Draw a law that has nowhere to rest."""
    series = run.series["escape"]
    for i, (t, g) in enumerate(zip(series["time"], series["density"], strict=True)):
        axis.semilogy(series["x"], np.maximum(g, 1e-12), color=COLOURS[i], label=f"t = {t:g}")
    axis.set(title="relu, w < 0, K = 1: no steady law, mass escapes", xlabel="x", ylabel="density", ylim=(1e-5, 1))
    axis.legend()


def draw_swirl(drawing: Any, axis: Any, run: Run) -> None:
    """Draw the steady law of a drift that rotates."""
    n = run.config["cells_plane"]
    x = Cells.line(-4.0, 4.0, n).centres()
    image = axis.pcolormesh(x, x, run.tables["swirl"]["density"].reshape(n, n).T, shading="nearest", rasterized=True)
    drawing.colorbar(image, ax=axis, label="density")
    axis.set(title="Steady law of tanh(Wx + b), W rotating", xlabel="x_1", ylabel="x_2", aspect="equal")


EXPERIMENT = Experiment(
    name="fokker_planck",
    config=Config,
    run=run,
    figure=figure,
    smoke={"cells": 200, "cells_plane": 40, "n_samples": 20_000},
    full={"cells": 1600, "cells_plane": 160, "n_samples": 4_000_000},
    references=(PAPER,),
    description=(__doc__ or "").split("\n")[0],
)


def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line."""
    return EXPERIMENT.main(argv)


if __name__ == "__main__":
    sys.exit(main())
