"""Laws of the neurons of one hidden layer: particles, the equation of infinite width, and its steady state.

    python experiments/neuron_laws.py [--smoke | --full] [--out PATH] [--resume PATH]

M neurons trained by noisy gradient descent follow, as M grows, the law rho with
d_t rho = div(rho grad dF/drho) + tau Laplace rho, which comes to rest at the Gibbs law
exp(-dF/drho/tau)/Z. Sections: the linear case with its closed forms, the free energy and the Gibbs law on
a grid, particles against the grid, errors over M (1/M in the outputs, 1/sqrt M along paths of the same noise), and
a classification of wines (handwritten digits with 100,000 neurons at --full) with its risk against M.

`--planted 0.05` simulates targets that are 5 % off while the predictions stay. It makes the verdicts fail that
compare with closed forms; those of `BLIND` are rates, signs and agreements that any target has, or
intervals wider than 5 %.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from meanfield.cells import Cells
from meanfield.config import option
from meanfield.data import digits, wine
from meanfield.diagnostics.fluctuations import coupling_distance, mean_over_seeds, scaled_variance
from meanfield.diagnostics.rates import fit_rate
from meanfield.diagnostics.wasserstein import wasserstein
from meanfield.experiment import Experiment, RunFile
from meanfield.integration import integrate
from meanfield.laws import Law
from meanfield.losses import CrossEntropy, Squared
from meanfield.models.neurondensity import NeuronDensity
from meanfield.models.neurons import MeanFieldNeurons
from meanfield.plotting import COLOURS, save, style
from meanfield.probes import Probe
from meanfield.storage.reader import Run
from meanfield.verdict import Verdict

PAPER = "Mei, Montanari, Nguyen, A mean field view of the landscape of two-layer neural networks, arXiv 1804.06561"
# The linear case: target a, penalty lam, temperature tau, deviation of the start.
TARGET, PENALTY, TEMPERATURE, DEVIATION = 1.5, 1.0, 0.5, 1.2
# The regression on a grid: penalty and temperature.
LAM, TAU = 0.3, 0.05
CONFIDENCE = 0.99

BLIND = (
    "linear: M Var",
    "linear: E(m_M - a)^2",
    "linear: the neurons' variance",
    "free energy",
    "the grid's steady state",
    "particles and grid",
    "outputs of M neurons",
    "paths",
    "masses",
    "wine",
    "digits",
)
"""Beginnings of the claims that another target leaves true."""


@dataclass(frozen=True)
class Config:
    """Parameters of the experiment; training time and parameters are pure numbers."""

    n_seeds: int = option(600, "seeds of the linear case", least=100, most=100_000)
    cells: int = option(240, "cells of the grid of one parameter; half as many a side for two", least=60, most=2000)
    particles: int = option(40_000, "neurons that are compared with the grid", least=1000, most=1_000_000)
    repeats: int = option(24, "seeds of the errors over M", least=4, most=1000)
    widest: int = option(512, "largest M of the errors over M", least=128, most=8192)
    with_digits: bool = option(False, "classify handwritten digits, with 100,000 neurons")
    planted: float = option(0.0, "relative error planted in the simulated targets, to see verdicts fail")


def linear(width: int, seed: int, planted: float) -> MeanFieldNeurons:
    """h(x, theta) = theta and F = (m - a)^2/2 + (lam/2) int theta^2."""
    return MeanFieldNeurons(
        np.empty((0, 1)),
        Squared([TARGET * (1 + planted)]),
        width,
        "identity",
        penalty=PENALTY,
        temperature=TEMPERATURE,
        seed=seed,
        outer=False,
    )


def closed_forms(config: Config, run: RunFile) -> None:
    """Fluctuations of the linear case over seeds, and its steady law."""
    width, times, dt, k = 64, np.array([0.0, 0.1, 0.3, 0.6, 1.0, 3.0]), 0.01, 1 + PENALTY

    def means() -> dict[str, np.ndarray]:
        rows = []
        for s in range(config.n_seeds):
            model = linear(width, 1000 * run.seed + s, config.planted)
            probes = {"mean": lambda _t, y, _m: float(y.mean())}
            start = model.initial(DEVIATION)
            rows.append(integrate(model, start, (0.0, 3.0), dt=dt, save_at=times, probes=probes).probes["mean"][1])
        return {f"t_{t:g}": column for t, column in zip(times, np.array(rows).T, strict=True)}

    table = run.once("linear_means", means, (config.n_seeds, config.planted, run.seed))
    found, predicted = [], DEVIATION**2 * np.exp(-2 * k * times) + TEMPERATURE * -np.expm1(-2 * k * times) / k
    for t, value in zip(times, predicted, strict=True):
        estimate = scaled_variance(table[f"t_{t:g}"], width, confidence=CONFIDENCE)
        found.append((t, value, estimate.value, estimate.low, estimate.high))
        run.near(
            f"linear: M Var(m_M) is v0 e^-2kt + tau (1 - e^-2kt)/k at t = {t:g}",
            float(value),
            estimate.value,
            tolerance=max(estimate.high - estimate.value, estimate.value - estimate.low) + k * dt * value / 2,
            relative=False,
            reason=f"{CONFIDENCE:.0%} confidence over {config.n_seeds} seeds, and the O(dt) of the steps",
            source=PAPER,
        )
    names = ("t", "predicted", "measured", "low", "high")
    run.once("linear_variance", lambda: dict(zip(names, np.array(found).T, strict=True)), (config.planted, run.seed))
    last = table["t_3"]
    mean = TARGET / k * (1 - math.exp(-3 * k))
    centre = mean_over_seeds(last, confidence=CONFIDENCE)
    run.near(
        "linear: E m_M at t = 3 is a/(1 + lam) (1 - e^-3k)",
        mean,
        centre.value,
        tolerance=centre.high - centre.value + 1e-4,
        relative=False,
        reason=f"{CONFIDENCE:.0%} confidence",
        source=PAPER,
    )
    # (m_M - a)^2 less its part of mean zero, 2 (m - a)(m_M - m), which would drown the rest.
    excess = mean_over_seeds((last - mean) ** 2 / 2, confidence=CONFIDENCE)
    run.near(
        "linear: E(m_M - a)^2/2 - (m - a)^2/2 is tau/(2 k M)",
        TEMPERATURE / (2 * k * width),
        excess.value,
        tolerance=excess.high - excess.value,
        relative=False,
        reason=f"{CONFIDENCE:.0%} confidence",
        source=PAPER,
    )
    wide = linear(config.particles, run.seed, config.planted)
    end = run.integrate("linear_wide", wide, wide.initial(DEVIATION), (0.0, 5.0), dt=dt, save_at=1).final[0]
    half = 2.58 * math.sqrt(2 / config.particles)
    run.near("linear: the neurons' variance comes to tau/lam", TEMPERATURE / PENALTY, float(end.var()),
             tolerance=half + PENALTY * dt, reason="99 % confidence, and O(dt)", source=PAPER)  # fmt: skip


def gibbs_linear(config: Config, run: RunFile) -> None:
    """Fixed point of the Gibbs map in the linear case: N(a/(1 + lam), tau/lam)."""
    errors = []
    sizes = [config.cells // 2, config.cells]
    for n in sizes:
        model = NeuronDensity(
            np.empty((0, 1)), Squared([TARGET * (1 + config.planted)]), "identity", cells=Cells.line(-5.0, 6.5, n),
            temperature=TEMPERATURE, penalty=PENALTY, outer=False,
        )  # fmt: skip
        law = model.cells.law(model.fixed_point().raise_for_status().masses)
        # A law in cells has the variance of its centres and that of a cell.
        errors.append((law.mean(), law.variance() - (11.5 / n) ** 2 / 12))
    mean, variance = errors[-1]
    run.near("Gibbs law, linear: mean a/(1 + lam)", TARGET / (1 + PENALTY), mean, tolerance=1e-8,
             reason="midpoint sums of a Gaussian are exact to round-off", source=PAPER)  # fmt: skip
    # Any target leaves the variance as it is; the second moment sees it.
    run.near("Gibbs law, linear: second moment tau/lam + (a/(1 + lam))^2",
             TEMPERATURE / PENALTY + (TARGET / (1 + PENALTY)) ** 2, variance + mean**2, tolerance=1e-8,
             reason="midpoint sums of a Gaussian are exact to round-off", source=PAPER)  # fmt: skip


def regression() -> tuple[np.ndarray, np.ndarray]:
    """Inputs (1, 40) and targets of the regression on a grid."""
    x = np.linspace(-2.0, 2.0, 40)
    return x[None], 0.6 * np.tanh(1.8 * x)


def on_a_grid(config: Config, two: bool) -> NeuronDensity:
    """Law of w of neurons tanh(w x), or of (a, w) of neurons a tanh(w x)."""
    x, y = regression()
    cells = Cells.box((-4.0,) * 2, (4.0,) * 2, (config.cells // 3,) * 2) if two else Cells.line(-4.0, 4.0, config.cells)
    return NeuronDensity(x, Squared(y * (1 + config.planted)), "tanh", cells=cells, temperature=TAU, penalty=LAM,
                         outer=two, bias=False)  # fmt: skip


def as_particles(config: Config, two: bool, width: int, seed: int) -> MeanFieldNeurons:
    """Neurons of the same problem."""
    x, y = regression()
    return MeanFieldNeurons(x, Squared(y * (1 + config.planted)), width, "tanh", penalty=LAM, temperature=TAU,
                            seed=seed, outer=two, bias=False)  # fmt: skip


def grid_and_particles(config: Config, run: RunFile) -> None:
    """Free energy along the grid, its steady state against the Gibbs law, particles against the grid."""
    least, lost = math.inf, 0.0
    for two, words in ((False, "one parameter"), (True, "two parameters")):
        model, label = on_a_grid(config, two), "two" if two else "one"
        start = model.normal(0.5, 0.7)
        probes = {"free_energy": Probe(lambda _t, y, m: m.free_energy(y), every=1)}
        way = run.integrate(f"grid_{label}", model, start, (0.0, 12.0), save_at=12, probes=probes)
        energy = way.probes["free_energy"][1]
        rise = float(np.diff(energy).max())
        run.at_most(
            f"free energy never increases, {words} (largest change of {len(energy) - 1} steps)",
            1e-13,
            rise,
            reason="round-off of a sum",
            source=PAPER,
        )
        least, lost = min(least, float(way.final.min())), max(lost, abs(float(way.final.sum()) - 1))
        rest = model.fixed_point().raise_for_status().masses
        floor = model.free_energy(rest)
        run.once(f"gibbs_{label}", lambda floor=floor: {"free_energy": np.array([floor])}, (label, config.planted))
        gap = float(np.abs(integrate(model, rest, (0.0, 1.0)).final - rest).sum())
        run.at_most(f"the grid's steady state is the Gibbs law, {words}", 1e-9, gap,
                    reason="change of the fixed point over a unit of time", source=PAPER)  # fmt: skip
        neurons = as_particles(config, two, config.particles, run.seed + 1)
        begin = 0.5 + 0.7 * neurons.initial()
        end = run.integrate(f"particles_{label}", neurons, begin, (0.0, 4.0), dt=0.01, save_at=2).final
        there = model.cells.law(way.fields["mass"][np.searchsorted(way.t, 4.0)], model.features.n_parameters - 1)
        distance = wasserstein(Law.particles(end[-1]), there, 2)
        # W2 of M samples of a law on the line: of the order 1/sqrt M, a few times its deviation at most.
        bound = 4 * math.sqrt(there.variance() / config.particles) + 0.01
        run.at_most(f"particles and grid, {words}: W2 of the laws of w at t = 4", bound, distance,
                    reason="4 deviations / sqrt M, and 0.01 for cells and steps", source=PAPER)  # fmt: skip
    run.at_most("masses of the grid sum to 1", 1e-12, lost, reason="round-off")
    run.verdict(Verdict.at_least("masses of the grid stay nonnegative", 0.0, least, reason="exact", source=PAPER))


def errors_over_width(config: Config, run: RunFile) -> None:
    """Outputs of M neurons against the grid, and paths of the same noise against those of many neurons."""
    widths = [2**k for k in range(5, int(math.log2(config.widest)) + 1)]
    model = on_a_grid(config, True)
    start = model.normal(0.5, 0.7)
    limit = model.outputs(integrate(model, start, (0.0, 2.0)).final)
    n_seeds = 8 * config.repeats

    def table() -> dict[str, np.ndarray]:
        squares, paths = np.zeros((len(widths), n_seeds)), np.zeros((len(widths), n_seeds))
        for s in range(n_seeds):
            many = as_particles(config, True, 16 * config.widest, 7000 + 1000 * run.seed + s)
            far = integrate(many, 0.5 + 0.7 * many.initial(), (0.0, 2.0), dt=0.02, save_at=()).final
            for i, m in enumerate(widths):
                few = as_particles(config, True, m, 7000 + 1000 * run.seed + s)
                # The same starts and the same noise: both are keyed by the neuron.
                end = integrate(few, 0.5 + 0.7 * few.initial(), (0.0, 2.0), dt=0.02, save_at=()).final
                squares[i, s] = np.mean((few.outputs(end) - limit) ** 2)
                paths[i, s] = coupling_distance(end, far)
        columns = {"width": np.array(widths, dtype=np.float64)}
        for name, values in (("output", squares), ("path", paths)):
            found = [mean_over_seeds(v) for v in values]
            columns |= {name: np.array([e.value for e in found]), f"{name}_low": np.array([e.low for e in found]),
                        f"{name}_high": np.array([e.high for e in found])}  # fmt: skip
        return columns

    found = run.once("over_width", table, (widths, n_seeds, config.cells, config.planted, run.seed))
    for name, claim, slope, tolerance in (
        ("output", "outputs of M neurons: E |f_M - f|^2 falls as 1/M", 1.0, 0.15),
        ("path", "paths of M neurons under the same noise: distance falls as 1/sqrt M", 0.5, 0.1),
    ):
        fit = fit_rate(1 / found["width"], found[name])
        run.near(claim, slope, fit.slope, tolerance=tolerance, relative=False,
                 reason=f"mean over {n_seeds} seeds", source=PAPER)  # fmt: skip


def classify(config: Config, run: RunFile) -> None:
    """Classification of wines: risk against M with its rate over seeds, and accuracy on wines not seen."""
    seen, unseen = wine().standardised().split(0.75, seed=run.seed)
    x, loss = np.ascontiguousarray(seen.x.T), CrossEntropy(seen.labels)
    widths = [2**k for k in range(4, int(math.log2(config.widest)) + 1)]
    # A risk fluctuates as 1/sqrt M over seeds, its mean is off by 1/M.
    n_seeds = 8 * config.repeats

    def trained(width: int, seed: int) -> tuple[MeanFieldNeurons, np.ndarray]:
        model = MeanFieldNeurons(x, loss, width, "tanh", penalty=1e-3, temperature=1e-3, seed=seed)
        return model, integrate(model, model.initial(), (0.0, 20.0), dt=0.1, save_at=()).final

    def table() -> dict[str, np.ndarray]:
        wide, end = trained(32 * config.widest, 10_000 + run.seed)
        limit, rows = wide.risk(end), []
        for m in widths:
            risks, right = [], []
            for s in range(n_seeds):
                model, end = trained(m, 1000 * run.seed + s)
                risks.append(model.risk(end))
                right.append(model.accuracy(end, np.ascontiguousarray(unseen.x.T), unseen.labels))
            risk, share = mean_over_seeds(np.array(risks) - limit), mean_over_seeds(right)
            rows.append((m, limit, risk.value, risk.low, risk.high, share.value, share.low, share.high))
        names = ("width", "limit", "excess", "low", "high", "accuracy", "accuracy_low", "accuracy_high")
        return dict(zip(names, np.array(rows, dtype=np.float64).T, strict=True))

    found = run.once("wine", table, (widths, n_seeds, run.seed))
    fit = fit_rate(1 / found["width"], np.abs(found["excess"]))
    run.near("wine: excess risk of M neurons falls as 1/M", 1.0, fit.slope, tolerance=0.2, relative=False,
             reason=f"mean over {n_seeds} seeds of M = 16 .. {config.widest}; higher orders at small M",
             source=PAPER)  # fmt: skip
    share = float(found["accuracy"][-1])
    run.verdict(Verdict.at_least("wine: accuracy on wines not seen", 0.95, share,
                                 reason="a quarter of 178 wines, mean over seeds", source="consequence"))  # fmt: skip


def classify_digits(config: Config, run: RunFile) -> None:
    """Handwritten digits with 100,000 neurons."""
    claim = "digits: 100,000 neurons reach an accuracy of 0.95 on digits not seen"
    if not config.with_digits:
        run.verdict(Verdict.not_tested(claim, "only at --full, or with --with-digits", PAPER))
        return

    def table() -> dict[str, np.ndarray]:
        seen, unseen = digits().split(0.75, seed=run.seed)
        scale = seen.x.max()
        model = MeanFieldNeurons(np.ascontiguousarray(seen.x.T) / scale, CrossEntropy(seen.labels), 100_000, "tanh",
                                 penalty=1e-4, temperature=1e-5, seed=run.seed)  # fmt: skip
        end = integrate(model, model.initial(), (0.0, 100.0), dt=1.0, save_at=()).final
        share = model.accuracy(end, np.ascontiguousarray(unseen.x.T) / scale, unseen.labels)
        return {"risk": np.array([model.risk(end)]), "accuracy": np.array([share])}

    found = run.once("digits", table, run.seed)
    run.verdict(Verdict.at_least(claim, 0.95, float(found["accuracy"][0]), reason="fixed beforehand", source=PAPER))


def run(config: Config, run_file: RunFile) -> None:
    """Every section in turn."""
    sections: tuple[Callable[[Config, RunFile], None], ...] = (
        closed_forms, gibbs_linear, grid_and_particles, errors_over_width, classify, classify_digits,
    )  # fmt: skip
    for section in sections:
        section(config, run_file)


def figure(run: Run, path: Path) -> None:
    """Six panels: fluctuations, laws of one and two parameters, free energy, errors over M, wines."""
    with style() as plt:
        drawing, axes = plt.subplots(2, 3, figsize=(12.5, 7.4), layout="constrained")
        draw_variance(axes[0, 0], run)
        draw_law(axes[0, 1], run)
        draw_plane(drawing, axes[0, 2], run)
        draw_energy(axes[1, 0], run)
        draw_errors(axes[1, 1], run)
        draw_wine(axes[1, 2], run)
        save(drawing, path)


def draw_variance(axis: Any, run: Run) -> None:
    """Draw M Var of the linear case."""
    table = run.tables["linear_variance"]
    t, k = np.linspace(0, 3, 200), 1 + PENALTY
    curve = DEVIATION**2 * np.exp(-2 * k * t) + TEMPERATURE * -np.expm1(-2 * k * t) / k
    axis.plot(t, curve, color="0.7", lw=4, label="v0 exp(-2kt) + tau (1 - exp(-2kt))/k")
    bars = np.stack([table["measured"] - table["low"], table["high"] - table["measured"]])
    axis.errorbar(table["t"], table["measured"], bars, fmt="o", color=COLOURS[0], label="64 neurons, over seeds")
    axis.set(title="Linear neurons: M Var of their mean", xlabel="training time t", ylabel="M Var(m_M)", ylim=(0, None))
    axis.legend()


def draw_law(axis: Any, run: Run) -> None:
    """Draw the law of one parameter on the grid and as particles."""
    series, neurons = run.series["grid_one"], run.series["particles_one"]
    width = series["w"][1] - series["w"][0]
    for i, t in enumerate((0.0, 1.0, 4.0, 12.0)):
        k = int(np.argmin(np.abs(series["time"] - t)))
        axis.plot(series["w"], series["mass"][k] / width, color=COLOURS[i], label=f"grid, t = {t:g}")
    axis.hist(neurons["theta"][-1, 0], bins=80, density=True, color=COLOURS[2], alpha=0.3, label="neurons, t = 4")
    axis.set(title="Law of w of neurons tanh(wx)", xlabel="w", ylabel="density", xlim=(-2, 4))
    axis.legend(fontsize=7)


def draw_plane(drawing: Any, axis: Any, run: Run) -> None:
    """Draw the law of two parameters."""
    series, neurons = run.series["grid_two"], run.series["particles_two"]
    k = int(np.argmin(np.abs(series["time"] - 4.0)))
    a, w = series["a"], series["w"]
    image = axis.pcolormesh(a, w, series["mass"][k].T / ((a[1] - a[0]) * (w[1] - w[0])), shading="nearest",
                            rasterized=True)  # fmt: skip
    axis.plot(*neurons["theta"][-1][:, :400], ".", ms=2, color="w", alpha=0.6)
    drawing.colorbar(image, ax=axis, label="density")
    axis.set(title="Law of (a, w), t = 4; dots: neurons", xlabel="a", ylabel="w", xlim=(-3, 3), ylim=(-3, 3))


def draw_energy(axis: Any, run: Run) -> None:
    """Draw the free energy above that of the Gibbs law."""
    for i, (label, words) in enumerate((("one", "neurons tanh(wx)"), ("two", "neurons a tanh(wx)"))):
        series = run.series[f"grid_{label}"]
        above = series["free_energy"] - run.tables[f"gibbs_{label}"]["free_energy"][0]
        axis.semilogy(series["time_every_1"], np.maximum(above, 1e-14), color=COLOURS[i], label=words)
    axis.set(title="Free energy above that of the Gibbs law", xlabel="training time t", ylabel="free energy")
    axis.legend()


def draw_errors(axis: Any, run: Run) -> None:
    """Draw errors over the number of neurons."""
    table = run.tables["over_width"]
    m = table["width"]
    for i, (name, words, power) in enumerate((("output", "E |f_M - f|²", 1.0), ("path", "paths, same noise", 0.5))):
        bars = np.stack([table[name] - table[f"{name}_low"], table[f"{name}_high"] - table[name]])
        axis.errorbar(m, table[name], bars, fmt="o", ms=4, color=COLOURS[i], label=words)
        axis.plot(m, table[name][-1] * (m[-1] / m) ** power, color=COLOURS[i], lw=0.8, label=f"slope {-power:g}")
    axis.set(title="M neurons against the limit", xlabel="M", ylabel="error", xscale="log", yscale="log")
    axis.set_xticks(m, [f"{int(v)}" for v in m])
    axis.minorticks_off()
    axis.legend(fontsize=7)


def draw_wine(axis: Any, run: Run) -> None:
    """Draw excess risk and accuracy on wines."""
    table = run.tables["wine"]
    m = table["width"]
    bars = np.stack([table["excess"] - table["low"], table["high"] - table["excess"]])
    axis.errorbar(m, table["excess"], bars, fmt="o", ms=4, color=COLOURS[0], label="excess risk of M neurons")
    axis.plot(m, table["excess"][0] * m[0] / m, color=COLOURS[0], lw=0.8, label="slope -1")
    axis.set(title="Wines: risk above that of the limit", xlabel="M", ylabel="excess risk", xscale="log", yscale="log")
    axis.set_xticks(m, [f"{int(v)}" for v in m])
    axis.minorticks_off()
    axis.legend(loc="lower left", fontsize=7)
    other = axis.twinx()
    other.plot(m, table["accuracy"], "s--", ms=4, color=COLOURS[1])
    other.set_ylabel("accuracy on unseen wines", color=COLOURS[1])
    other.set_ylim(0.85, 1.0)


EXPERIMENT = Experiment(
    name="neuron_laws",
    config=Config,
    run=run,
    figure=figure,
    smoke={"n_seeds": 100, "cells": 120, "particles": 10_000, "repeats": 6, "widest": 256},
    full={"n_seeds": 10_000, "cells": 480, "particles": 1_000_000, "repeats": 100, "widest": 2048, "with_digits": True},
    references=(PAPER,),
    description=(__doc__ or "").split("\n")[0],
)


def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line."""
    return EXPERIMENT.main(argv)


if __name__ == "__main__":
    sys.exit(main())
