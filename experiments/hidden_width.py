"""Deep residual networks of any width: their errors against the limit, and what becomes of the neurons.

    python experiments/hidden_width.py [--smoke | --full] [--out PATH] [--resume PATH]

L blocks of M neurons, scaled by 1/(L M) and trained by gradient steps that are L M times the gradient,
have a limit as L grows, whatever M: the law of the neurons at every depth. The published sweep
measures the distance of the outputs to a large reference and fits A sqrt(D/(L M)) + B/L; here the two terms are
also told apart, as the spread over initialisations and as what their mean is off by. The reference has
independent neurons in every layer, 300 x 600 of them (100 x 200 at --smoke, 1000 x 1000 at --full): one that is tied
over the layers is off by A sqrt(D/M) itself, which is measured too. Further sections: closed forms at
initialisation, movement of the neurons under three scalings, minibatches, laws per depth of independent runs.

`--planted 0.05` simulates networks whose alpha is 5 % off while references and predictions stay. It makes the verdicts
fail that compare with closed forms or with the limit itself. Those of `BLIND` cannot see it: they are slopes and
signs that networks of every alpha share, the two-term fit among them.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from meanfield.config import option
from meanfield.diagnostics.fluctuations import mean_over_seeds, scaled_variance
from meanfield.diagnostics.rates import fit_rate
from meanfield.diagnostics.wasserstein import depth_distances
from meanfield.experiment import Experiment, RunFile
from meanfield.integration import integrate
from meanfield.models.deep import SCALINGS, DeepMeanField
from meanfield.plotting import COLOURS, save, style
from meanfield.probes import Probe
from meanfield.storage.reader import Run
from meanfield.verdict import Verdict

PAPER = "Chizat, The hidden width of deep ResNets: tight error bounds and phase diagrams, arXiv 2509.10167"
# Dimension D, number of samples, and the length of a training step, all as published.
DIM, SAMPLES, STEP = 10, 10, 10.0
# Networks of fewer neurons than this are too noisy for the first order in 1/sqrt(L M) to describe them.
ENOUGH = 3 * DIM
# Smaller networks fluctuate less after training than the first order says: they are trained to the same targets.
SETTLED, DEEP = 10 * DIM, 8
ORDER_REASON = "orders are asserted within 0.1"

BLIND = (
    "two-term fit: A > 0",
    "two-term fit: B > 0",
    "two-term fit: residual",
    "initialisation: slope",
    "trained: slope of the fluctuations",
    "movement of the neurons",
    "minibatches",
    "independent runs",
    "training at the published step",
)
"""Beginnings of the claims that an error of alpha leaves true."""


@dataclass(frozen=True)
class Config:
    """Parameters of the experiment; lengths of training are counted in steps of the published length D."""

    sizes: int = option(6, "how many values of L and of M, before repeated ones are dropped", least=4, most=16)
    decades: float = option(1.8, "L and M are floor(10^s), s from 0 to this", least=1.4)
    data_sets: int = option(5, "independent data sets X, Y", least=3, most=100)
    repeats: int = option(4, "networks for each L, M and data set", least=2, most=100)
    steps: int = option(100, "training steps", least=10, most=10**4)
    depth: int = option(300, "layers of the reference", least=64, most=4000)
    width: int = option(600, "neurons per layer of the reference", least=64, most=4000)
    deepest: int = option(32, "layers of the deepest network of the order in depth, a power of two", least=16, most=256)
    draws: int = option(4000, "draws for the closed forms at initialisation", least=1000, most=10**6)
    planted: float = option(0.0, "relative error planted in alpha of the networks, to see verdicts fail")


def key(*numbers: int) -> int:
    """Seed of its own for every combination of numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def data(seed: int, k: int) -> np.ndarray:
    """Standard normal X and Y of data set k, (2, D, n)."""
    return np.random.default_rng([seed, k]).standard_normal((2, DIM, SAMPLES))


def network(xy: np.ndarray, depth: int, width: int, planted: float = 0.0, **options: Any) -> DeepMeanField:
    """Network of L x M neurons with alpha = 1 + planted."""
    return DeepMeanField(*xy, depth=depth, width=width, alpha=1.0 + planted, **options)


def trained(model: DeepMeanField, start: np.ndarray, time: float, step: float = STEP) -> np.ndarray:
    """Parameters after gradient steps of that length."""
    n_steps = round(time / step)
    return integrate(model, start, (0.0, time), scheme="euler", n_steps=n_steps).raise_for_status().final


def rms(difference: np.ndarray) -> float:
    """Root mean square of the entries."""
    return float(np.sqrt(np.mean(difference**2)))


def ladder(config: Config) -> list[int]:
    """Values of L and of M: floor(10^s) for equally spaced s."""
    # A hair above, so that a power that is whole is not rounded down.
    return sorted({int(10**s + 1e-9) for s in np.linspace(0.0, config.decades, config.sizes).tolist()})


def references(config: Config, run: RunFile, k: int) -> dict[str, Any]:
    """Outputs for data set k of the reference, of a second one, and of one with neurons tied over the layers."""

    def compute() -> dict[str, np.ndarray]:
        columns = {}
        for i, (name, planted, tied) in enumerate(
            [("reference", 0.0, False), ("second", config.planted, False), ("tied", 0.0, True)]
        ):
            model = network(data(run.seed, k), config.depth, config.width, planted)
            start = model.initial(key(run.seed, k, i), tied=tied)
            columns[name] = model.forward(trained(model, start, STEP * config.steps))[-1].ravel()
        return columns

    inputs = (run.seed, k, config.depth, config.width, config.steps, config.planted)
    return run.once(f"reference_{k}", compute, inputs)


def measured(config: Config, run: RunFile, k: int, reference: np.ndarray, depth: int, width: int) -> dict[str, float]:
    """Errors of several networks of one size: at the start and the end, and the two parts of the latter.

    The mean of products of errors of different networks is the square of their common part without bias.
    """
    x, _ = xy = data(run.seed, k)
    model = network(xy, depth, width, config.planted)
    first, last = [], []
    for r in range(config.repeats):
        start = model.initial(key(run.seed, k, depth, width, r))
        first.append(model.forward(start)[-1] - x)
        last.append(model.forward(trained(model, start, STEP * config.steps))[-1] - reference)
    errors = np.array(last)
    spread = float(errors.var(axis=0, ddof=1).mean())
    common = float((errors.mean(axis=0) ** 2).mean()) - spread / config.repeats
    names = ("L", "M", "initial", "final", "variance", "common")
    values = (depth, width, rms(np.array(first)), rms(errors), spread, common)
    return dict(zip(names, map(float, values), strict=True))


def swept(config: Config, run: RunFile, label: str, k: int, reference: np.ndarray, pairs: list[Any]) -> dict[str, Any]:
    """Errors of every pair (L, M) for data set k, as the table `label`."""

    def compute() -> dict[str, np.ndarray]:
        rows = [measured(config, run, k, reference, *pair) for pair in pairs]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    inputs = (run.seed, k, pairs, config.repeats, config.steps, config.depth, config.width, config.planted)
    return run.once(label, compute, inputs)


def two_terms(table: dict[str, Any]) -> dict[str, float]:
    """Fit A sqrt(D/(L M)) + B/L and sqrt(A^2 D/(L M) + B^2/L^2) with A, B >= 0 to the errors of enough neurons.

    Least squares of the relative errors (in the second form of the squares); the residuals are those of the
    errors in both.
    """
    kept = table["L"] * table["M"] >= ENOUGH
    depth, width, error = (table[name][kept] for name in ("L", "M", "final"))
    terms = np.stack([np.sqrt(DIM / (depth * width)), 1.0 / depth], axis=1) / error[:, None]
    found = {}
    for name, power in (("sum", 1), ("root", 2)):
        solution, _ = nnls(terms**power, np.ones(len(error)))
        fitted = (terms**power @ solution) ** (1.0 / power)
        a, b = solution ** (1.0 / power)
        found |= {f"A_{name}": a, f"B_{name}": b, f"residual_{name}": rms(fitted - 1.0)}
    return {n: float(v) for n, v in found.items()}


def published(config: Config, run: RunFile) -> None:
    """Judge the sweep over L and M: the two-term fit over data sets, its parts, and references."""
    ls = ladder(config)
    pairs = [(depth, width) for depth in ls for width in ls]
    depths = [2**i for i in range(2, config.deepest.bit_length())]
    outputs = [references(config, run, k) for k in range(config.data_sets)]
    sweeps, deep = [], []
    for k, output in enumerate(outputs):
        reference = output["reference"].reshape(DIM, SAMPLES)
        sweeps.append(swept(config, run, f"sweep_{k}", k, reference, pairs))
        deep.append(swept(config, run, f"depth_{k}", k, reference, [(n, 512) for n in depths]))
    fits = [two_terms(sweep) for sweep in sweeps]
    fit = run.once("fit", lambda: {n: np.array([f[n] for f in fits]) for n in fits[0]}, [*fits])
    judge_fit(run, fit)
    judge_parts(run, sweeps, deep)
    judge_references(config, run, outputs, fit)


def judge_fit(run: RunFile, fit: dict[str, Any]) -> None:
    """Verdicts on the coefficients and the residual of the two-term form."""
    words = f"{len(fit['A_sum'])} data sets"
    for name in ("A", "B"):
        low = mean_over_seeds(fit[f"{name}_sum"]).low
        claim = f"two-term fit: {name} > 0, lower end of the 95 % interval over {words}"
        run.verdict(Verdict.at_least(claim, 1e-3, low, reason="a term that is absent has 0", source=PAPER))
    run.at_most(
        f"two-term fit: residual of A sqrt(D/(L M)) + B/L over {words}, relative root mean square",
        0.25,
        float(fit["residual_sum"].mean()),
        reason="the theorem is a bound; both terms may also add as squares, which is up to sqrt 2 less in between",
        source=PAPER,
    )


def pooled(tables: list[dict[str, Any]], name: str) -> np.ndarray:
    """Mean over data sets of a column."""
    return np.mean([table[name] for table in tables], axis=0)


def judge_parts(run: RunFile, sweeps: list[dict[str, Any]], deep: list[dict[str, Any]]) -> None:
    """Verdicts on the orders of the parts of the errors, averaged over data sets."""
    depth, width = sweeps[0]["L"], sweeps[0]["M"]
    shallow = depth == 1
    start = fit_rate(width[shallow], np.sqrt(np.mean([s["initial"][shallow] ** 2 for s in sweeps], axis=0)))
    near = {"relative": False, "source": PAPER}
    run.near(
        "initialisation: slope of the error in M at L = 1 is -1/2",
        -0.5,
        start.slope,
        tolerance=0.1,
        reason=ORDER_REASON,
        **near,
    )
    kept = (depth * width >= SETTLED) & (depth >= DEEP)
    # Mean of logarithms: the slope is then the mean of those of the data sets, whose A differ.
    spread = np.exp(0.5 * np.mean([np.log(s["variance"][kept]) for s in sweeps], axis=0))
    run.near(
        f"trained: slope of the fluctuations in L M is -1/2, {kept.sum()} pairs with L M >= {SETTLED}",
        -0.5,
        fit_rate((depth * width)[kept], spread).slope,
        tolerance=0.1,
        reason=ORDER_REASON,
        **near,
    )
    common = np.maximum(pooled(deep, "common"), 1e-12)
    run.near(
        "trained: slope in L of the error all networks of a depth share is -1, M = 512",
        -1.0,
        fit_rate(deep[0]["L"], np.sqrt(common)).slope,
        tolerance=0.25,
        reason="the deepest networks are off by little more than the noise of the reference, the first not yet by B/L",
        **near,
    )


def judge_references(config: Config, run: RunFile, outputs: list[dict[str, Any]], fit: dict[str, Any]) -> None:
    """Verdicts on how far references are from each other: the fit continued, and neurons tied over the layers."""
    apart = math.sqrt(np.mean([rms(o["second"] - o["reference"]) ** 2 for o in outputs]))
    tied = math.sqrt(np.mean([rms(o["tied"] - o["reference"]) ** 2 for o in outputs]))
    scale = math.sqrt(2 * DIM / (config.depth * config.width))
    run.near(
        "two references are as far apart as the fit continued to their size says, sqrt 2 A sqrt(D/(L M))",
        scale * math.sqrt(np.mean(fit["A_sum"] ** 2)),
        apart,
        tolerance=0.6,
        reason="A from networks up to a thousand times smaller; a factor of 1.6",
        source=PAPER,
    )
    run.at_most(
        "a reference tied over the layers is further off: distance of independent ones, in units of its own",
        1.0 / 3.0,
        apart / tied,
        reason="sqrt(2/L) in theory where M counts alone, times a constant of order 1 that training leaves",
    )


def tanh_power(xy: np.ndarray) -> float:
    """(1/n) sum_i E tanh(g_i)^2 for normal g_i of variance |x_i|^2/D, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    size = np.sqrt(np.mean(xy[0] ** 2, axis=0))
    return float(np.mean(np.tanh(size[:, None] * nodes) ** 2 @ weights) / weights.sum())


def at_start(config: Config, run: RunFile) -> None:
    """Judge constants at initialisation, where the limit is h = X: alpha sqrt(E tanh^2), free and tied neurons."""
    xy = data(run.seed, 0)
    constant = math.sqrt(tanh_power(xy))
    for name, depth, width, tied, count in (
        ("independent neurons, L = M = 16: the error over sqrt(D/(L M))", 16, 16, False, 256),
        ("neurons tied over 16 layers, M = 256: the error over sqrt(D/M)", 16, 256, True, 256),
    ):

        def compute(depth: int = depth, width: int = width, tied: bool = tied) -> dict[str, np.ndarray]:
            model = network(xy, depth, width, config.planted)
            starts = (model.initial(key(run.seed, 7, r), tied=tied) for r in range(config.draws // 4))
            return {"square": np.array([np.mean((model.forward(s)[-1] - xy[0]) ** 2) for s in starts])}

        label = "start_tied" if tied else "start_free"
        squares = run.once(label, compute, (run.seed, config.draws, depth, width, config.planted))["square"]
        run.near(
            f"initialisation, {name} is sqrt(E tanh^2)",
            constant,
            math.sqrt(squares.mean() * count / DIM),
            tolerance=0.025,
            reason="the next term of the expansion is below 1 %, as is the noise of the draws",
        )


def linear_blocks(config: Config, run: RunFile) -> None:
    """Judge mean and variance of h <- h (1 + (1/(L M)) sum_j theta_j), theta_j independent of mean m."""
    depth, width, m, deviation = 6, 3, 0.8, 0.5

    def compute() -> dict[str, np.ndarray]:
        one = np.ones((1, 1))
        model = DeepMeanField(one, one, depth=depth, width=width, activation="identity", alpha=1.0 + config.planted)
        rng = np.random.default_rng([run.seed, 11])
        theta = m + deviation * rng.standard_normal((config.draws, depth, width, 1))
        return {"end": np.array([model.forward(np.stack([np.ones_like(v), v]))[-1, 0, 0] for v in theta])}

    ends = run.once("linear_blocks", compute, (run.seed, config.draws, config.planted))["end"]
    growth = 1 + m / depth
    variance = (growth**2 + deviation**2 / (depth**2 * width)) ** depth - growth ** (2 * depth)
    inside(run, "linear blocks: mean (1 + m/L)^L", growth**depth, mean_over_seeds(ends, confidence=0.999))
    words = "linear blocks: variance [(1 + m/L)^2 + s^2/(L^2 M)]^L - (1 + m/L)^(2L)"
    inside(run, words, variance, scaled_variance(ends, 1, confidence=0.999))


def inside(run: RunFile, claim: str, predicted: float, estimate: Any) -> None:
    """Verdict that an interval of 99.9 % holds the prediction."""
    half = max(estimate.high - estimate.value, estimate.value - estimate.low)
    reason = f"half the 99.9 % interval over {estimate.n_seeds} draws"
    run.near(claim, predicted, estimate.value, tolerance=half, relative=False, reason=reason)


BETAS = (0.3, 0.5, 1.0)
JUDGED_DEPTH = 4


def growth(depth: Any, beta: float) -> Any:
    """E |h_L|^2 / |h_0|^2 = (1 + L^(-2 beta))^L of h <- h + L^-beta V h / sqrt d, V standard normal."""
    return (1.0 + np.asarray(depth, dtype=float) ** (-2 * beta)) ** depth


def random_blocks(config: Config, run: RunFile) -> None:
    """Judge second moments of linear blocks with centred entries and any power of the depth.

    A block with U = d I and identity activation is h + scale V^T h; d orthonormal inputs share each draw.
    """
    dim, depths = 16, [2, 4, 8, 16]

    def compute() -> dict[str, np.ndarray]:
        rows = []
        rng = np.random.default_rng([run.seed, 13])
        for beta in BETAS:
            for depth in depths:
                model = DeepMeanField(
                    np.eye(dim), np.eye(dim), depth=depth, width=dim, activation="identity", alpha=1.0 + config.planted
                )
                u = np.broadcast_to(dim * np.eye(dim), (depth, dim, dim))
                size = depth**-beta / math.sqrt(dim) * depth * dim
                for _ in range(config.draws // 8):
                    end = model.forward(np.stack([u, size * rng.standard_normal(u.shape)]))[-1]
                    rows.append((beta, depth, float(np.mean(np.sum(end**2, axis=0)))))
        columns = np.array(rows).T
        return dict(zip(("beta", "L", "square"), columns, strict=True))

    table = run.once("random_blocks", compute, (run.seed, config.draws, dim, depths, config.planted))
    for beta in BETAS:
        squares = table["square"][(table["beta"] == beta) & (table["L"] == JUDGED_DEPTH)]
        claim = f"blocks h + L^-{beta:g} V h/sqrt d, L = {JUDGED_DEPTH}: E |h_L|^2/|h_0|^2"
        inside(run, claim, float(growth(JUDGED_DEPTH, beta)), mean_over_seeds(squares, confidence=0.999))


WIDTHS = (32, 128, 512)
DEPTHS = (4, 16, 64)


def movement(config: Config, run: RunFile) -> None:
    """Judge how far neurons move in 8 short steps under the three scalings, over M at L = 8 and over L at M = 128."""

    def compute() -> dict[str, np.ndarray]:
        rows = []
        for i, scaling in enumerate(SCALINGS):
            for depth, width in [*((8, m) for m in WIDTHS), *((n, 128) for n in DEPTHS)]:
                for r in range(4):
                    model = network(data(run.seed, r), depth, width, config.planted, scaling=scaling)
                    start = model.initial(key(run.seed, depth, width, r))
                    rows.append((i, depth, width, rms(trained(model, start, 2 * STEP, STEP / 4) - start)))
        return dict(zip(("scaling", "L", "M", "moved"), np.array(rows).T, strict=True))

    table = run.once("movement", compute, (run.seed, WIDTHS, DEPTHS, config.planted))
    for scaling, over, expected in (
        ("mean-field", "M", 0.0),
        ("lazy", "M", -0.5),
        ("mean-field", "L", 0.0),
        ("lazy", "L", -0.5),
        ("sqrt-depth", "M", 0.0),
        ("sqrt-depth", "L", -0.5),
    ):
        sizes, moved = moved_over(table, scaling, over)
        run.near(
            f"movement of the neurons, {scaling}: slope in {over} is {expected:g}",
            expected,
            fit_rate(sizes, moved).slope,
            tolerance=0.1,
            relative=False,
            reason=ORDER_REASON,
        )


def moved_over(table: Any, scaling: str, over: str) -> tuple[np.ndarray, np.ndarray]:
    """Sizes, and the movement averaged over data sets, for L = 8 or M = 128."""
    chosen = table["scaling"] == list(SCALINGS).index(scaling)
    chosen &= (table["L"] == 8) if over == "M" else (table["M"] == 128)
    sizes = np.array(WIDTHS if over == "M" else DEPTHS)
    return sizes, np.array([table["moved"][chosen & (table[over] == n)].mean() for n in sizes])


INTERVALS = (4.0, 1.0, 0.25)


def minibatches(config: Config, run: RunFile) -> None:
    """Judge stochastic gradient descent on half the samples against the full batch: order 1/2 in the step."""
    # Neurons so few that a batch moves them by less than their distance: their laws then differ as they do.
    depth, width, time, seeds = 2, 16, 8 * STEP, 8

    def compute() -> dict[str, np.ndarray]:
        rows = []
        for k, step in [(k, step) for k in range(4) for step in INTERVALS]:
            xy = data(run.seed, k)
            whole = network(xy, depth, width)
            start = whole.initial(key(run.seed, 17, k))
            full = whole.neurons(trained(whole, start, time, step))
            for seed in range(seeds * k, seeds * (k + 1)):
                model = network(xy, depth, width, config.planted, batch=(SAMPLES // 2, step), seed=seed)
                law = model.neurons(trained(model, start, time, step))
                rows.append((step, seed, rms(law - full), depth_distances(law, full, directions=16).mean))
        return dict(zip(("step", "seed", "neurons", "laws"), np.array(rows).T, strict=True))

    table = run.once("minibatches", compute, (run.seed, depth, width, time, seeds, INTERVALS, config.planted))
    for name, words in (("neurons", "root mean square over neurons"), ("laws", "laws per depth, sliced W2")):
        distances = [math.sqrt(np.mean(table[name][table["step"] == s] ** 2)) for s in INTERVALS]
        run.near(
            f"minibatches of half the samples against the full batch, {words}: order 1/2 in the step",
            0.5,
            fit_rate(INTERVALS, distances).slope,
            tolerance=0.1,
            relative=False,
            reason="batches of different steps are independent, so what they are off by adds up as squares",
        )


def independent(config: Config, run: RunFile) -> None:
    """Judge laws per depth of two independent trained runs: they come together as M^(-1/2)."""
    depth, widths, time = 8, (16, 64, 256), STEP * config.steps

    def compute() -> dict[str, np.ndarray]:
        rows = []
        for k, width in [(k, width) for k in range(3) for width in widths]:
            xy = data(run.seed, k)
            models = [network(xy, depth, width), network(xy, depth, width, config.planted)]
            starts = [m.initial(key(run.seed, 19, k, width, i)) for i, m in enumerate(models)]
            first, second = (m.neurons(trained(m, s, time)) for m, s in zip(models, starts, strict=True))
            runs = depth_distances(first, second)
            moved = depth_distances(first, models[0].neurons(starts[0]))
            rows.extend(zip([width] * depth, runs.centres, runs.values, moved.values, strict=True))
        return dict(zip(("M", "depth", "runs", "moved"), np.array(rows).T, strict=True))

    table = run.once("independent", compute, (run.seed, depth, widths, time, config.planted))
    means = [math.sqrt(np.mean(table["runs"][table["M"] == m] ** 2)) for m in widths]
    run.near(
        "independent runs, laws per depth in sliced W2: slope in M is -1/2",
        -0.5,
        fit_rate(widths, means).slope,
        tolerance=0.1,
        relative=False,
        reason=ORDER_REASON,
    )


def courses(config: Config, run: RunFile) -> None:
    """Courses of training under the three scalings, with the loss watched."""
    largest = -math.inf
    for scaling in SCALINGS:
        # The lazy kernel is D times larger at these weights: a step that is stable for it.
        step = STEP / 4 if scaling == "lazy" else STEP
        model = network(data(run.seed, 0), 16, 64, config.planted, scaling=scaling)
        solution = run.integrate(
            f"course_{scaling}",
            model,
            model.initial(key(run.seed, 23)),
            (0.0, STEP * config.steps),
            scheme="euler",
            dt=step,
            probes={"loss": Probe(lambda _t, y, m: m.loss(y), every=1)},
        ).raise_for_status()
        if scaling == "mean-field":
            largest = float(np.diff(solution.probes["loss"][1]).max())
    run.at_most(
        "training at the published step D: the loss falls at every step, L = 16, M = 64",
        0.0,
        largest,
        reason="a step below the inverse of the curvature",
        source=PAPER,
    )


def run(config: Config, run_file: RunFile) -> None:
    """Every section in turn."""
    at_start(config, run_file)
    linear_blocks(config, run_file)
    random_blocks(config, run_file)
    published(config, run_file)
    courses(config, run_file)
    movement(config, run_file)
    minibatches(config, run_file)
    independent(config, run_file)


def figure(run: Run, path: Path) -> None:
    """Six panels: errors with the fit, the order in depth, courses, movement, growth, laws per depth."""
    with style() as plt:
        drawing, axes = plt.subplots(2, 3, figsize=(13, 7.8), layout="constrained")
        draw_errors(axes[0, 0], run)
        draw_order(axes[0, 1], run)
        draw_courses(axes[0, 2], run)
        draw_laws(axes[1, 0], run)
        draw_movement(axes[1, 1], run)
        draw_growth(axes[1, 2], run)
        save(drawing, path)


def draw_errors(axis: Any, run: Run) -> None:
    """Draw errors over L M/D for every L, and the fit."""
    import matplotlib as mpl

    tables = [run.tables[f"sweep_{k}"] for k in range(run.config["data_sets"])]
    fit = run.tables["fit"]
    depth, width = tables[0]["L"], tables[0]["M"]
    error = np.sqrt(np.mean([t["final"] ** 2 for t in tables], axis=0))
    a, b = (mean_over_seeds(fit[f"{name}_sum"]) for name in ("A", "B"))
    depths = np.unique(depth)
    viridis, shades = mpl.colormaps["viridis"], np.linspace(0.0, 0.9, len(depths))
    for n, shade in zip(depths, shades, strict=True):
        here = depth == n
        x = depth[here] * width[here] / DIM
        colour = viridis(shade)
        axis.loglog(x, error[here], "o", ms=4, color=colour, label=f"L = {n:.0f}")
        kept = x >= ENOUGH / DIM
        axis.loglog(x[kept], (a.value / np.sqrt(x) + b.value / n)[kept], "-", lw=1, color=colour)
    start = np.sqrt(np.mean([t["initial"] ** 2 for t in tables], axis=0))
    axis.loglog(depth * width / DIM, start, "x", ms=4, color="0.6", zorder=0, label="before training")
    axis.axvline(ENOUGH / DIM, color="0.8", lw=1, ls=":")
    half_a, half_b = a.high - a.value, b.high - b.value
    axis.set(
        title=f"Error, A √(D/(L M)) + B/L\nA = {a.value:.3f} ± {half_a:.3f}, B = {b.value:.3f} ± {half_b:.3f}\n"
        f"off by {fit['residual_sum'].mean():.1%} (as root of squares {fit['residual_root'].mean():.1%})",
        xlabel="neurons over dimension, L M/D",
        ylabel="distance to the reference (RMS)",
    )
    axis.legend(fontsize=7, ncols=2, loc="lower left")


def draw_order(axis: Any, run: Run) -> None:
    """Draw the two parts of the error over the depth at the widest networks."""
    tables = [run.tables[f"depth_{k}"] for k in range(run.config["data_sets"])]
    depth, width = tables[0]["L"], tables[0]["M"][0]
    for i, table in enumerate(tables):
        label = {"label": "single data sets"} if i == 0 else {}
        shown = np.where(table["common"] > 0, np.sqrt(np.abs(table["common"])), np.nan)
        axis.loglog(depth, shown, "-", lw=0.8, color="0.75", **label)
    common = np.sqrt(np.maximum(pooled(tables, "common"), 0.0))
    spread = np.sqrt(pooled(tables, "variance"))
    axis.loglog(depth, common, "o-", ms=5, color=COLOURS[0], label="shared by all networks of a depth")
    axis.loglog(depth, spread, "s-", ms=5, color=COLOURS[1], label="fluctuations")
    axis.loglog(depth, common[0] * depth[0] / depth, "--", lw=1, color="0.4", label="1/L")
    axis.loglog(depth, spread[0] * np.sqrt(depth[0] / depth), ":", lw=1, color="0.4", label="1/√L")
    axis.set_xticks(depth, [f"{n:.0f}" for n in depth])
    axis.minorticks_off()
    axis.set(title=f"Parts of the error at M = {width:.0f}", xlabel="L", ylabel="RMS")
    axis.set_ylim(axis.get_ylim()[0] / 6, None)
    axis.legend(loc="lower left")


def draw_courses(axis: Any, run: Run) -> None:
    """Draw the loss over training for the three scalings."""
    for i, scaling in enumerate(SCALINGS):
        series = run.series[f"course_{scaling}"]
        axis.semilogy(series["time_every_1"], series["loss"], color=COLOURS[i], label=scaling)
    axis.set(title="Training, L = 16, M = 64", xlabel="training time (published step: 10)", ylabel="loss")
    axis.legend()


def draw_laws(axis: Any, run: Run) -> None:
    """Draw distances of laws over depth."""
    table = run.tables["independent"]
    widths = np.unique(table["M"])
    depth = np.unique(table["depth"])

    def line(name: str, width: float) -> np.ndarray:
        here = table["M"] == width
        return np.array([np.sqrt(np.mean(table[name][here & (table["depth"] == t)] ** 2)) for t in depth])

    axis.plot(depth, line("moved", widths[-1]), "k-", label=f"start and end of training, M = {widths[-1]:.0f}")
    for i, width in enumerate(widths):
        axis.plot(depth, line("runs", width), "o-", ms=4, color=COLOURS[i], label=f"two runs, M = {width:.0f}")
    axis.set(title="Laws of neurons, L = 8, three data sets", xlabel="depth", ylabel="sliced W2")
    axis.set_ylim(0.0, 1.5 * axis.get_ylim()[1])
    axis.legend(loc="upper left")


def draw_movement(axis: Any, run: Run) -> None:
    """Draw how far neurons move, over M at L = 8 and over L at M = 128."""
    for i, scaling in enumerate(SCALINGS):
        for over, mark in (("M", "o-"), ("L", "s--")):
            sizes, moved = moved_over(run.tables["movement"], scaling, over)
            slope = fit_rate(sizes, moved).slope
            words = f"{scaling}, over {over}: slope {slope:.2f}"
            axis.loglog(sizes, moved, mark, ms=4, lw=1, color=COLOURS[i], label=words)
    axis.set(
        title="Movement of the neurons in time 20 (L = 8, or M = 128)",
        xlabel="M (discs) or L (squares)",
        ylabel="root mean square",
        ylim=(axis.get_ylim()[0] / 30, None),
    )
    axis.legend(fontsize=7, loc="lower left")


def draw_growth(axis: Any, run: Run) -> None:
    """Draw second moments of linear blocks over the depth, and their closed forms."""
    table = run.tables["random_blocks"]
    depths = np.unique(table["L"])
    fine = np.geomspace(depths[0], depths[-1], 100)
    for i, beta in enumerate(BETAS):
        chosen = table["beta"] == beta
        means = [mean_over_seeds(table["square"][chosen & (table["L"] == n)]) for n in depths]
        bars = np.array([(m.value - m.low, m.high - m.value) for m in means]).T
        axis.errorbar(depths, [m.value for m in means], bars, fmt="o", ms=4, color=COLOURS[i], label=f"beta = {beta:g}")
        axis.plot(fine, growth(fine, beta), "-", lw=1, color=COLOURS[i])
    axis.axhline(math.e, color="0.7", lw=1, ls=":")
    axis.set(xscale="log", yscale="log", title="h + L^-beta V h/√d: points and closed form", xlabel="L")
    axis.set(ylabel="E |h_L|²/|h_0|²")
    axis.set_xticks(depths, [f"{n:.0f}" for n in depths])
    axis.minorticks_off()
    axis.legend()


EXPERIMENT = Experiment(
    name="hidden_width",
    config=Config,
    run=run,
    figure=figure,
    smoke={
        "sizes": 4,
        "decades": 1.5,
        "data_sets": 4,
        "repeats": 2,
        "steps": 50,
        "depth": 100,
        "width": 200,
        "deepest": 16,
    },
    full={"sizes": 10, "decades": 2.5, "repeats": 5, "depth": 1000, "width": 1000, "deepest": 64},
    references=(PAPER,),
    description=(__doc__ or "").split("\n")[0],
)


def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line."""
    return EXPERIMENT.main(argv)


if __name__ == "__main__":
    sys.exit(main())
