"""Stability map: thresholds, rates and kinds of decay of space-time networks over kernel families.

    python experiments/stability_map.py [--smoke | --full] [--out PATH] [--resume PATH]

Each kernel's threshold is found by a scan of the leading eigenvalue along its strength and
compared with its closed form; decays are simulated, their kind is named and their rate compared.
`--planted 0.05` takes every kernel 5 % off while the predictions stay as they are: the
verdicts on the model must then fail.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import i0

from meanfield.config import option
from meanfield.diagnostics.bifurcation import find_threshold, threshold_curve
from meanfield.diagnostics.decay import classify_decay
from meanfield.diagnostics.pseudospectrum import pseudospectral_abscissa
from meanfield.diagnostics.spectrum import contraction_rate, leading_eigenvalues
from meanfield.experiment import Experiment, RunFile
from meanfield.grids import Grid
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.base import IntegralOperator
from meanfield.operators.convolution import Convolution
from meanfield.operators.dense import Dense
from meanfield.plotting import COLOURS, save, style
from meanfield.probes import Probe
from meanfield.storage.reader import Run

PAPER = "Liu, Markowich, Selection dynamics for deep neural networks, arXiv 1905.09076"
KINDS = ("exponential", "algebraic", "finite-time", "none")
NAMES = (*KINDS, "undecided")
# Strengths, as parts of the threshold, at which the decay of a small field is simulated.
FRACTIONS = {"cosine": 0.4, "two modes": 0.5, "Gaussian": 0.6, "exponential": 0.7, "rank one, non-normal": 0.8}
NORM = Probe(lambda t, y, m: m.grid.norm(y), long_name="L2 norm")


@dataclass(frozen=True)
class Config:
    """Parameters of the experiment; depths and rates are pure numbers."""

    n_labels: int = option(16384, "labels on the circle; the kink of the exponential costs N^-2", least=8192)
    n_dense: int = option(64, "labels of the kernels that are not convolutions", least=16, most=400)
    n_modes: int = option(8192, "Fourier modes of the algebraic decay", least=2048)
    n_series: int = option(500, "generated series the classifier of decays is tried on", least=8)
    n_map: int = option(33, "leaks and strengths in the picture of the stable region, each", least=5, most=400)
    leak: float = option(0.8, "leak", above=0.0)
    planted: float = option(0.0, "relative error planted in every kernel, to see verdicts fail")


def margin(operator: IntegralOperator, leak: float) -> float:
    """Leading real part of the linearisation of a leaky tanh network at 0."""
    model = SpaceTimeNetwork(operator, "tanh", leak=leak)
    return float(leading_eigenvalues(model, np.zeros(operator.grid.n_nodes), k=1)[0].real)


def families(config: Config) -> dict[str, tuple[Callable[[float], IntegralOperator], float]]:
    """Kernel of unit strength times s for each family, and its largest eigenvalue in closed form."""
    circle, line = Grid.circle(config.n_labels), Grid.interval(config.n_dense, rule="gauss")
    x, y = circle.nodes.ravel(), line.nodes.ravel()
    distance, width, length = np.minimum(x, 1 - x), 0.1, 0.2
    wrapped = np.exp(-(((x[:, None] + np.arange(-2, 4) - 1) / width) ** 2) / 2).sum(axis=1)
    profiles = {
        "cosine": (np.cos(2 * np.pi * x), 0.5),
        "two modes": (0.6 * np.cos(2 * np.pi * x) + 1.4 * np.cos(6 * np.pi * x), 0.7),
        "Gaussian": (wrapped, width * np.sqrt(2 * np.pi)),
        "exponential": (np.exp(-distance / length), 2 * length * (1 - np.exp(-0.5 / length))),
    }
    rank_one, lower = np.exp(3 * y[:, None] - 2 * y), np.tril(np.ones((len(y), len(y))), -1)
    found: dict[str, tuple[Callable[[float], IntegralOperator], float]] = {
        name: (lambda s, p=profile: Convolution(circle, s * p), float(top))  # type: ignore[misc]
        for name, (profile, top) in profiles.items()
    }
    found["rank one, non-normal"] = (lambda s: Dense(line, s * rank_one), float(np.e - 1))
    found["triangular + identity"] = (lambda s: Dense(line, s * lower, local=s), 1.0)
    return found


def thresholds(config: Config, run: RunFile) -> None:
    """Strength at which z = 0 loses stability: gamma over the largest eigenvalue."""
    for name, (make, top) in families(config).items():
        predicted = config.leak / top

        def loss(s: float, make: Callable[[float], IntegralOperator] = make) -> float:
            return margin(make((1 + config.planted) * s), config.leak)

        found = find_threshold(loss, 0.7 * predicted, 1.4 * predicted)
        run.near(
            f"threshold of the {name} kernel",
            predicted,
            found.parameter,
            tolerance=1e-6,
            relative=False,
            reason="closed form of the leading eigenvalue",
        )


def rates(config: Config, run: RunFile) -> None:
    """Small fields decay exponentially at the predicted rate, below every threshold."""
    for name, (make, top) in families(config).items():
        if name not in FRACTIONS:
            continue  # a defective eigenvalue: polynomials times the exponential
        fraction = FRACTIONS[name]
        operator = make((1 + config.planted) * fraction * config.leak / top)
        x = operator.grid.nodes.ravel()
        leading = {
            "cosine": np.cos(2 * np.pi * x),
            "two modes": np.cos(6 * np.pi * x),
            "rank one, non-normal": np.exp(3 * x),
        }
        model = SpaceTimeNetwork(operator, "tanh", leak=config.leak)
        solution = run.integrate(
            rate_label(name),
            model,
            1e-4 * leading.get(name, np.ones_like(x)),
            (0.0, 12.0),
            n_steps=240,
            save_at=80,
            probes={"norm": NORM},
        ).raise_for_status()
        named = classify_decay(*solution.probes["norm"])
        run.near(
            f"{name} kernel at {fraction:g} of its threshold: rate of an exponential decay",
            (1 - fraction) * config.leak,
            named.value if named.kind == "exponential" else float("nan"),
            tolerance=0.01,
            reason="a field in the leading mode, too small for tanh to bend; another kind gives NaN",
        )


def rate_label(name: str) -> str:
    """Label of the decay below the threshold of a kernel."""
    return "rate_" + name.split(",", maxsplit=1)[0].replace(" ", "_")


def attraction(config: Config, run: RunFile) -> None:
    """Lambda ||W|| < gamma: two fields approach each other at gamma - Lambda ||W||, attained by a constant kernel."""
    grid, strength = Grid.interval(config.n_dense), 0.5 * config.leak
    ones = np.ones((grid.n_nodes, grid.n_nodes))
    model = SpaceTimeNetwork(Dense(grid, (1 + config.planted) * strength * ones), "tanh", leak=config.leak, n_samples=2)
    start = np.vstack([np.full(grid.n_nodes, 1e-4), np.full(grid.n_nodes, -1e-4)])
    gap = Probe(lambda t, y, m: m.grid.norm(y[1] - y[0]), long_name="L2 norm of the difference")
    solution = run.integrate(
        "attraction", model, start, (0.0, 12.0), n_steps=240, save_at=80, probes={"gap": gap}
    ).raise_for_status()
    exact = SpaceTimeNetwork(Dense(grid, strength * ones), "tanh", leak=config.leak)
    named = classify_decay(*solution.probes["gap"])
    run.near(
        "contraction at gamma - Lambda ||W||, attained by a constant kernel",
        contraction_rate(exact),
        named.value if named.kind == "exponential" else float("nan"),
        tolerance=0.01,
        reason="fields near 0, where the slope of tanh is Lambda",
    )


def algebraic(config: Config, run: RunFile) -> None:
    """Eigenvalues -1/k, coefficients 1/k: ||z|| falls as t^{-1/2}, not exponentially."""
    n_modes = config.n_modes
    grid = Grid.circle(2 * n_modes + 2)
    spectrum = np.zeros(n_modes + 2)
    spectrum[1 : n_modes + 1] = 1.0 / np.arange(1.0, n_modes + 1)
    profile = -np.fft.irfft(spectrum * grid.n_nodes, n=grid.n_nodes)
    z0 = np.fft.irfft(spectrum * grid.n_nodes / np.sqrt(2), n=grid.n_nodes)
    model = SpaceTimeNetwork(Convolution(grid, (1 + config.planted) * profile, local=config.planted), "identity")
    end = n_modes / 200.0
    solution = run.integrate(
        "algebraic",
        model,
        z0,
        (0.0, end),
        rtol=1e-9,
        atol=1e-12,
        save_at=np.linspace(0, end, 120),
        probes={"norm": NORM},
    ).raise_for_status()
    t, norm = solution.probes["norm"]
    keep = t >= 4.0
    named = classify_decay(t[keep], norm[keep])
    run.near(
        "compact W = -A: exponent of an algebraic decay",
        0.5,
        named.value if named.kind == "algebraic" else float("nan"),
        tolerance=0.02,
        relative=False,
        reason="depths from 4 to the number of modes over 200; another kind gives NaN",
    )


def volterra(config: Config, run: RunFile) -> None:
    """Kernel 1_{y<x}: spectrum {0}, yet z = I0(2 sqrt(t x)) from z0 = 1."""
    n = config.n_dense
    grid = Grid.interval(4 * n)
    lower = np.tril(np.ones((4 * n, 4 * n)), -1) + 0.5 * np.eye(4 * n)
    model = SpaceTimeNetwork(Dense(grid, (1 + config.planted) * lower), "identity")
    solution = run.integrate(
        "volterra", model, np.ones(4 * n), (0.0, 30.0), n_steps=600, save_at=60, probes={"norm": NORM}
    ).raise_for_status()
    x = grid.nodes.ravel()
    run.near(
        "Volterra kernel, spectrum {0}: growth of ||z|| to depth 30",
        float(grid.norm(i0(2 * np.sqrt(30.0 * x)))),
        float(solution.probes["norm"][1][-1]),
        tolerance=1e-3,
        reason="order 2 in the labels",
    )

    def table() -> dict[str, np.ndarray]:
        epsilons = np.geomspace(1e-4, 1.0, 9)
        matrix = np.tril(np.ones((n, n)), -1) / n
        values = [pseudospectral_abscissa(matrix, e).value for e in epsilons]
        return {"epsilon": epsilons, "abscissa": np.array(values)}

    run.once("pseudospectrum", table, inputs=n)


def generated(rng: np.random.Generator) -> tuple[str, np.ndarray, np.ndarray]:
    """A noisy series of a random kind, multiplicative noise 0.1 to 3 %."""
    kind, n = KINDS[rng.integers(4)], int(rng.integers(60, 401))
    s = np.linspace(0.0, 1.0, n)
    if kind == "exponential":
        u = np.exp(-rng.uniform(2.5, 12) * s)
    elif kind == "algebraic":
        u = (1 + s * 10 ** rng.uniform(0.7, 3)) ** -rng.uniform(0.5, 3)
    elif kind == "finite-time":
        u = np.maximum(1 - s / rng.uniform(0.5, 1.05), 0) ** rng.uniform(0.5, 3)
    else:
        waves = 1 + rng.uniform(0.1, 0.5) * np.cos(2 * np.pi * rng.uniform(2, 10) * s + rng.uniform(0, 6))
        u = (np.ones(n), np.exp(rng.uniform(0.2, 5) * s), waves)[rng.integers(3)]
    noise = 10 ** rng.uniform(-3, np.log10(0.03))
    return kind, 10 ** rng.uniform(-1, 2) * s, u * (1 + noise * rng.standard_normal(n))


def classifier(config: Config, run: RunFile) -> None:
    """Confusion matrix of the kinds of decay."""

    def table() -> dict[str, np.ndarray]:
        rng, counts = np.random.default_rng(run.seed), np.zeros((len(KINDS), len(NAMES)))
        for _ in range(config.n_series):
            kind, t, values = generated(rng)
            counts[KINDS.index(kind), NAMES.index(classify_decay(t, values).kind)] += 1
        return {name: counts[:, i].copy() for i, name in enumerate(NAMES)}

    found = run.once("confusion", table, inputs=(config.n_series, run.seed))
    counts = np.column_stack([found[name] for name in NAMES])
    wrong = counts[:, :-1].sum() - np.trace(counts)
    run.at_most("classifier of decays: series misnamed", 0.0, float(wrong), reason="generated series")
    run.at_most(
        "classifier of decays: fraction undecided",
        0.1,
        float(counts[:, -1].sum() / counts.sum()),
        reason="generated series",
    )


def region(config: Config, run: RunFile) -> None:
    """Margin over strength and leak for the two-mode kernel, and its edge."""
    grid = Grid.circle(64)
    profile = 0.6 * np.cos(2 * np.pi * grid.nodes.ravel()) + 1.4 * np.cos(6 * np.pi * grid.nodes.ravel())

    def at(s: float, leak: float) -> float:
        return margin(Convolution(grid, (1 + config.planted) * s * profile), leak)

    strengths, leaks = np.linspace(0.0, 2.0, config.n_map), np.linspace(0.0, 1.6, config.n_map)

    def table() -> dict[str, np.ndarray]:
        values = np.array([[at(s, g) for s in strengths] for g in leaks])
        pair = np.meshgrid(strengths, leaks)
        return {"strength": pair[0].ravel(), "leak": pair[1].ravel(), "margin": values.ravel()}

    def edge() -> dict[str, np.ndarray]:
        return {"strength": strengths[1:], "leak": threshold_curve(at, strengths[1:], 0.0, 1.6)}

    run.once("region", table, inputs=config)
    found = run.once("edge", edge, inputs=config)
    run.at_most(
        "edge of the stable region: largest distance from leak = 0.7 strength",
        1e-6,
        float(np.abs(found["leak"] - 0.7 * found["strength"]).max()),
        reason="Brent's method in the leak, for each strength",
    )


def run(config: Config, run_file: RunFile) -> None:
    """Every section in turn."""
    for section in (thresholds, rates, attraction, algebraic, volterra, classifier, region):
        section(config, run_file)


def figure(run: Run, path: Path) -> None:
    """Four panels: the stable region, decays, the Volterra kernel, the confusion matrix."""
    with style() as plt:
        drawing, axes = plt.subplots(2, 2, figsize=(10.5, 8.0), layout="constrained")
        draw_region(drawing, axes[0, 0], run)
        draw_decays(axes[0, 1], run)
        draw_volterra(axes[1, 0], run)
        draw_confusion(axes[1, 1], run)
        save(drawing, path)


def draw_region(drawing: Any, axis: Any, run: Run) -> None:
    """Draw the margin over strength and leak; the located edge over the analytic one."""
    table, edge, n = run.tables["region"], run.tables["edge"], run.config["n_map"]
    x, y, z = (np.asarray(table[k]).reshape(n, n) for k in ("strength", "leak", "margin"))
    top = float(np.abs(z).max())
    image = axis.pcolormesh(x, y, z, cmap="RdBu_r", vmin=-top, vmax=top, shading="gouraud")
    drawing.colorbar(image, ax=axis, label="leading real part (blue: stable)")
    axis.plot(x[0], 0.7 * x[0], "k-", lw=1.2, label="leak = 0.7 strength (analytic)")
    axis.plot(edge["strength"][::3], edge["leak"][::3], "o", ms=4, mfc="none", color="k", label="located")
    axis.set(title="Stable region, two-mode kernel", xlabel="strength of the kernel", ylabel="leak γ")
    axis.legend(loc="upper left")


def draw_decays(axis: Any, run: Run) -> None:
    """Draw exponential decays over their prediction, and the algebraic one."""
    for i, (name, fraction) in enumerate(FRACTIONS.items()):
        series = run.series[rate_label(name)]
        t, norm = series["time"], series["norm"] / series["norm"][0]
        axis.semilogy(t, norm, color=COLOURS[i], lw=4, alpha=0.35, label=f"{name}, {fraction:g} of threshold")
        axis.semilogy(t, np.exp(-(1 - fraction) * run.config["leak"] * t), "k--", lw=0.8)
    series = run.series["algebraic"]
    keep = series["time"] <= t[-1]
    axis.semilogy(
        series["time"][keep],
        series["norm"][keep] / series["norm"][0],
        color=COLOURS[5],
        label="compact W = -A, algebraic",
    )
    axis.set(title="Decays over their start; predicted rates dashed", xlabel="depth t", ylabel="||z(t)||/||z(0)||")
    axis.legend(loc="lower left")


def draw_volterra(axis: Any, run: Run) -> None:
    """Draw the pseudospectral abscissa of the Volterra kernel beside that of a normal one."""
    table = run.tables["pseudospectrum"]
    axis.loglog(table["epsilon"], table["abscissa"], "o-", ms=4, label="Volterra kernel, spectrum {0}")
    axis.loglog(table["epsilon"], table["epsilon"], "k--", lw=1, label="normal kernel, spectrum {0}")
    axis.set(title="Where the spectrum decides nothing", xlabel="ε", ylabel="pseudospectral abscissa")
    axis.legend()


def draw_confusion(axis: Any, run: Run) -> None:
    """Draw how many series of each kind were named what."""
    table = run.tables["confusion"]
    counts = np.column_stack([np.asarray(table[name]) for name in NAMES])
    axis.imshow(counts, cmap="Blues", vmin=0, vmax=1.6 * counts.max(), aspect="auto")
    for (i, j), n in np.ndenumerate(counts):
        axis.text(j, i, f"{n:.0f}", ha="center", va="center")
    axis.set_xticks(range(len(NAMES)), NAMES, rotation=15)
    axis.set_yticks(range(len(KINDS)), KINDS)
    axis.set(title="Kinds of decay: generated (rows), named (columns)")


EXPERIMENT = Experiment(
    name="stability_map",
    config=Config,
    run=run,
    figure=figure,
    smoke={"n_modes": 4096, "n_series": 40, "n_map": 13, "n_labels": 8192},
    full={"n_labels": 32768, "n_modes": 65536, "n_dense": 256, "n_series": 3000, "n_map": 101},
    references=(PAPER,),
    description=(__doc__ or "").split("\n")[0],
)


def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line."""
    return EXPERIMENT.main(argv)


if __name__ == "__main__":
    sys.exit(main())
