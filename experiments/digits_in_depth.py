"""Handwritten digits with residual networks: accuracy on digits not seen, and the same training problem over depths.

    python experiments/digits_in_depth.py [--smoke | --full] [--out PATH] [--resume PATH]

Networks X_{k+1} = X_k + sigma(K_k X_k + b_k)/L with softmax (or logistic) outputs P X_L + c minimise

    E_L = mean loss + alpha (L sum_{k>=1} |theta_k - theta_{k-1}|^2 + tau |theta_0|^2) + (lam/2)(|P|^2 + |c|^2),

theta = (K, b), whose minima come to one of the limit L = infinity. Sections: 3 against 8, the ten digits, and the
minima over L = 8 .. 512 against the limit's, computed on its own: piecewise linear theta, Runge-Kutta steps.

Inputs are the leading principal components of the training part, of which alone they are computed, with one common
scale. Every training image comes with four copies half a pixel away, images not seen come as they are. Components,
width, penalties and shifts were chosen by four inner splits (4 : 1) of the training part of the split of seed 0 on the
ten digits, and taken over for the two: about forty choices, the best few of which agree within the error of 0.4 % of
these splits. No test part was looked at. As other splits test on digits that the first one trains on, the split of
seed 0 has a verdict of its own.

The minima over depths are those of one branch: the lowest of those that a few random starts find with 32 layers is
carried to 64, 128, .. layers by interpolation and to 16 and 8 by means. Nothing says that the branch is that of the
global minimum.

`--planted 0.05` trains the layers under a penalty 5 % too strong while the limit keeps its own. It makes the
verdicts fail that compare the two; those of `BLIND` are accuracies and properties that any strength has.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield.config import option
from meanfield.controls import Controls
from meanfield.data import Dataset, digits
from meanfield.diagnostics.depth_distance import tl2_distance
from meanfield.diagnostics.rates import observed_order
from meanfield.diagnostics.richardson import correction
from meanfield.experiment import Experiment, RunFile
from meanfield.integration import integrate
from meanfield.learning.quasi_newton import Optimum
from meanfield.learning.training import Training
from meanfield.losses import CrossEntropy, Logistic, Loss, Readout
from meanfield.models.residual import ResidualNetwork
from meanfield.plotting import COLOURS, save, style
from meanfield.regularizers import DepthH1
from meanfield.storage.reader import Run
from meanfield.velocities import Velocity
from meanfield.verdict import Verdict

Array = NDArray[np.float64]

PAPER = "Thorpe, van Gennip, Deep limits of residual neural networks, arXiv 1810.11741"
ALPHA, TAU, LAM = 1e-3, 1.0, 1e-3
# Deviation of the first weights, times the root of their number in a row.
DEVIATION = 0.3
SHARE, GOAL = 0.75, 0.97
SHIFT = 0.5
# |grad E| at which training for accuracy stops, which more of it does not raise, and at minima over depths.
ENOUGH, TIGHT = 3e-3, 1e-6
PAIR = (3, 8)
SHALLOWEST, ANCHOR = 8, 32
MISTAKES = 12

BLIND = ("two digits", "ten digits", "over depth: accuracy", "over depth: consecutive", "over depth: K'(0)",
         "over depth: gradients", "over depth: errors of the minima", "over depth: the branch")  # fmt: skip
"""Beginnings of the claims that another penalty leaves true."""


@dataclass(frozen=True)
class Config:
    """Parameters of the experiment; depth runs from 0 to 1, and all parameters are pure numbers."""

    splits: int = option(5, "stratified splits, seeds from --seed on", least=2, most=100)
    components: int = option(32, "principal components, the width of the networks", least=2, most=64)
    layers: int = option(8, "layers of the networks trained for accuracy", least=2, most=1024)
    ten: bool = option(True, "train on ten digits; without, on two only, over depths too")
    sweep_components: int = option(16, "principal components over depths", least=2, most=64)
    deepest: int = option(512, "layers of the deepest network, 8 times a power of 2", least=64, most=16384)
    knots: int = option(64, "intervals of the limit's piecewise linear parameters, a multiple of 4", least=8, most=1024)
    starts: int = option(
        4, "random starts with 32 layers, of which the lowest minimum is taken deeper", least=1, most=100
    )
    planted: float = option(0.0, "relative error planted in the layers' penalty, to see verdicts fail")


@dataclass(frozen=True, eq=False)
class Components:
    """Map from images (n, 64) to their leading principal components (r, n), the first of variance 1."""

    mean: Array
    directions: Array

    @classmethod
    def of(cls, images: Array, count: int) -> Components:
        """Components of a training part; the largest entry of a direction is positive."""
        mean = images.mean(axis=0)
        _, sizes, rows = np.linalg.svd(images - mean, full_matrices=False)
        rows = rows[:count]
        signs = np.sign(rows[np.arange(count), np.abs(rows).argmax(axis=1)])
        return cls(mean, rows * signs[:, None] * (math.sqrt(len(images)) / sizes[0]))

    def __call__(self, images: Array) -> Array:
        """Components of any images."""
        return np.ascontiguousarray(self.directions @ (images - self.mean).T)


def pair_of(data: Dataset) -> Dataset:
    """The two digits that are told apart least easily, as classes 0 and 1."""
    kept = np.isin(data.labels, PAIR)
    labels = (data.labels[kept] == PAIR[1]).astype(np.int64)
    return replace(data, x=data.x[kept], labels=labels, class_names=tuple(str(k) for k in PAIR))


def shifted(data: Dataset) -> Dataset:
    """Images and their copies half a pixel up, down, left and right, bilinear with empty paper around."""
    images = data.x.reshape(-1, 8, 8)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    moved = (padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
    copies = [images, *((1.0 - SHIFT) * images + SHIFT * other for other in moved)]
    return replace(data, x=np.concatenate(copies).reshape(-1, 64), labels=np.tile(data.labels, len(copies)))


def loss_of(data: Dataset) -> Loss:
    """Logistic loss of two classes, cross-entropy of more."""
    return Logistic(2 * data.labels - 1) if len(data.class_names) == 2 else CrossEntropy(data.labels, 10)


def problem_of(x: Array, loss: Loss, weights: Controls, biases: Controls, readout: Readout, alpha: float) -> Training:
    """Training problem whose parameters are where the training starts: Euler steps of layers, else Runge-Kutta ones."""
    model = ResidualNetwork(Velocity.outside("tanh", weights, biases), x.shape[1])
    smooth = DepthH1(alpha, TAU)
    scheme = "euler" if weights.interpolation == "constant" else "rk4"
    return Training(model, x, loss, (0.0, 1.0), len(weights.knots) - 1, scheme, readout,
                    regularizers={"w": smooth, "b": smooth}, readout_penalty=LAM)  # fmt: skip


def from_random(x: Array, loss: Loss, layers: int, alpha: float, seed: int) -> Training:
    """Training problem that starts from one random matrix at all depths, without bias and readout."""
    width = len(x)
    first = DEVIATION / math.sqrt(width) * np.random.default_rng(seed).standard_normal((width, width))
    knots = np.linspace(0.0, 1.0, layers + 1)
    weights = Controls(knots, np.repeat(first[None], layers, axis=0))
    biases = Controls(knots, np.zeros((layers, width)))
    readout = Readout(np.zeros((loss.n_outputs, width)), 0.0, trained=True)
    return problem_of(x, loss, weights, biases, readout, alpha)


def from_optimum(
    x: Array, loss: Loss, found: Optimum, change: Callable[[Controls], Controls], alpha: float
) -> Training:
    """Training problem of other layers or knots that starts from a minimum found."""
    weights, biases = (change(part) for part in controls_of(found))
    return problem_of(x, loss, weights, biases, found.readout, alpha)


def controls_of(found: Optimum) -> tuple[Controls, Controls]:
    """K and b over depth."""
    parts = found.model.parameters
    weights, biases = parts["w"], parts["b"]
    assert isinstance(weights, Controls)
    assert isinstance(biases, Controls)
    return weights, biases


def through_knots(count: int) -> Callable[[Controls], Controls]:
    """Piecewise linear controls with `count` intervals through the middles of layers."""

    def change(layers: Controls) -> Controls:
        middles = 0.5 * (layers.knots[1:] + layers.knots[:-1])
        knots = np.linspace(layers.knots[0], layers.knots[-1], count + 1)
        return Controls(knots, Controls(middles, layers.values, "linear").table(knots), "linear")

    return change


def predictions(found: Optimum, loss: Loss, x: Array) -> NDArray[np.int64]:
    """Classes of inputs (r, n) as the loss names them, by a network of layers."""
    model = replace(found.model, n_samples=x.shape[1])
    n_layers = len(controls_of(found)[0].values)
    end = integrate(model, x, (0.0, 1.0), scheme="euler", n_steps=n_layers, save_at=()).final
    return loss.predict(found.readout.forward(end))


def minimum(run: RunFile, label: str, problem: Training, tolerance: float = TIGHT) -> Optimum:
    """Minimum from where a problem starts, by default to well below the distances between depths."""
    return run.optimum(label, problem, tolerance=tolerance, max_iterations=20_000).raise_for_status()


def classify(config: Config, run: RunFile, data: Dataset, name: str, words: str) -> None:
    """Train on every split, with the accuracy on both parts and the digits that are taken for others."""
    rows, wrong = [], []
    for seed in range(run.seed, run.seed + config.splits):
        seen, unseen = data.split(SHARE, seed=seed)
        parts = Components.of(seen.x, config.components)
        more = shifted(seen)
        problem = from_random(parts(more.x), loss_of(more), config.layers, ALPHA, seed)
        found = minimum(run, f"{name}_{seed}", problem, ENOUGH)
        guesses = predictions(found, problem.loss, parts(unseen.x))
        right = guesses == loss_of(unseen).labels
        own = predictions(found, problem.loss, parts(seen.x)) == loss_of(seen).labels
        rows.append((seed, own.mean(), right.mean(), len(right), len(found.values) - 1, found.value))
        if len(unseen.class_names) == 2:
            guesses = (guesses + 1) // 2
        wrong += [(unseen.x[k], unseen.labels[k], guesses[k]) for k in np.flatnonzero(~right)]
    names = ("seed", "seen", "unseen", "n_unseen", "iterations", "energy")
    found_here = dict(zip(names, np.array(rows, dtype=np.float64).T, strict=True))
    run.once(f"splits_{name}", lambda: found_here, found_here)
    store_mistakes(run, data, name, wrong[:MISTAKES])
    shares = found_here["unseen"]
    seeds = f"seeds {run.seed} .. {run.seed + config.splits - 1}"
    run.verdict(Verdict.at_least(
        f"{words}: accuracy on digits not seen, mean over {config.splits} splits ({seeds})", GOAL, float(shares.mean()),
        reason="fixed beforehand", source="consequence"))  # fmt: skip
    error = math.sqrt(GOAL * (1 - GOAL) / found_here["n_unseen"][0])
    run.verdict(Verdict.at_least(
        f"{words}: accuracy on the split of seed {run.seed}", GOAL - 2 * error, float(shares[0]),
        reason=f"{GOAL}, less two standard errors of so few digits", source="consequence"))  # fmt: skip


def store_mistakes(run: RunFile, data: Dataset, name: str, wrong: list[tuple[Array, int, int]]) -> None:
    """Keep pictures and classes of digits that are taken for others."""
    if not wrong:
        return
    pixels, labels, guesses = (np.array(column) for column in zip(*wrong, strict=True))
    names = np.array([int(k) for k in data.class_names])
    classes = {"label": names[labels], "guess": names[guesses]}
    run.once(f"mistakes_{name}", lambda: classes, classes)
    run.once(f"pictures_{name}", lambda: {"pixel": pixels.ravel()}, pixels)


def two_digits(config: Config, run: RunFile) -> None:
    """3 against 8."""
    classify(config, run, pair_of(digits()), "pair", "two digits")


def ten_digits(config: Config, run: RunFile) -> None:
    """All of them."""
    if config.ten:
        classify(config, run, digits(), "ten", "ten digits")
        return
    run.verdict(Verdict.not_tested("ten digits: accuracy on digits not seen", "only without --smoke, or with --ten",
                                   "consequence"))  # fmt: skip


def over_depths(config: Config, run: RunFile) -> None:
    """Minima of the same problem over depths, and that of the limit."""
    seen, unseen = (digits() if config.ten else pair_of(digits())).split(SHARE, seed=run.seed)
    parts = Components.of(seen.x, config.sweep_components)
    x, loss = parts(seen.x), loss_of(seen)
    depths = [SHALLOWEST * 2**k for k in range(int(math.log2(config.deepest / SHALLOWEST)) + 1)]
    begun, optima = minima(config, run, x, loss, depths)
    knots = [config.knots // 4, config.knots // 2, config.knots]
    limits = limit_minima(run, x, loss, optima[depths.index(ANCHOR)], knots)
    inputs, labels = parts(unseen.x), loss_of(unseen).labels
    shares = np.array([np.mean(predictions(o, loss, inputs) == labels) for o in optima])
    table = tabulate(run, depths, optima, limits[-1], shares)
    compare(run, table, knots, limits)
    judge(run, table, len(unseen))
    values = ", ".join(f"{o.value:.6f}" for o in begun)
    words = f"it is the lowest of those that random starts find with {ANCHOR} layers: {values}"
    run.verdict(Verdict.not_tested("over depth: the branch is that of the global minimum", words, PAPER))
    keep_weights(run, depths, optima, limits[-1])


def minima(
    config: Config, run: RunFile, x: Array, loss: Loss, depths: list[int]
) -> tuple[list[Optimum], list[Optimum]]:
    """Minima of random starts at one depth, and those of the branch of the lowest at every depth."""
    alpha = ALPHA * (1 + config.planted)
    begun = [minimum(run, f"start_{k}", from_random(x, loss, ANCHOR, alpha, run.seed + k))
             for k in range(config.starts)]  # fmt: skip
    middle, branch = depths.index(ANCHOR), {ANCHOR: min(begun, key=lambda o: o.value)}
    for way, change in ((depths[middle + 1 :], Controls.interpolated), (depths[:middle][::-1], Controls.coarsen)):
        found = branch[ANCHOR]
        for layers in way:
            found = minimum(run, f"depth_{layers}", from_optimum(x, loss, found, change, alpha))
            branch[layers] = found
    return begun, [branch[layers] for layers in depths]


def limit_minima(run: RunFile, x: Array, loss: Loss, layers: Optimum, knots: list[int]) -> list[Optimum]:
    """Minima over piecewise linear parameters with more and more knots."""
    found: list[Optimum] = []
    for count in knots:
        change = Controls.refine if found else through_knots(count)
        problem = from_optimum(x, loss, found[-1] if found else layers, change, ALPHA)
        found.append(minimum(run, f"limit_{count}", problem))
    return found


def distance(first: Optimum, second: Optimum) -> float:
    """TL2 distance of (K, b)."""
    pairs = zip(controls_of(first), controls_of(second), strict=True)
    return math.hypot(*(tl2_distance(a, b) for a, b in pairs))


def boundary_gap(found: Optimum) -> float:
    """Relative gap in K'(0) = tau K(0), the boundary condition of Euler and Lagrange, b included."""
    gaps = [(len(part.values) * (part.values[1] - part.values[0]) - TAU * part.values[0], part.values[0])
            for part in controls_of(found)]  # fmt: skip
    return math.hypot(*(np.linalg.norm(a) for a, _ in gaps)) / (TAU * math.hypot(*(np.linalg.norm(b) for _, b in gaps)))


def left_over(found: Optimum) -> float:
    """Decrease of E since |grad E| was first below ten tolerances: about a hundred times what is left."""
    k = int(np.argmax(found.gradient_norms <= 10 * TIGHT))
    return float(found.values[k] - found.value)


def tabulate(run: RunFile, depths: list[int], optima: list[Optimum], limit: Optimum, shares: Array) -> dict[str, Array]:
    """Table of everything over depth."""
    steps = [distance(a, b) for a, b in pairwise(optima)]
    table = {
        "layers": np.array(depths, dtype=np.float64),
        "energy": np.array([o.value for o in optima]),
        "gradient_norm": np.array([o.gradient_norm for o in optima]),
        "iterations": np.array([len(o.values) - 1 for o in optima], dtype=np.float64),
        "left": np.array([left_over(o) for o in optima]),
        "distance": np.array([distance(o, limit) for o in optima]),
        "consecutive": np.array([*steps, np.nan]),
        "boundary": np.array([boundary_gap(o) for o in optima]),
        "accuracy": shares,
    }
    run.once("depths", lambda: table, table)
    return table


def extrapolated(axis: str, sizes: list[int], values: list[float], order: float) -> tuple[float, float]:
    """Limit of values by Richardson's extrapolation, and by how much it changed with the last size."""
    rest, error, _ = correction(axis, np.array(sizes), [np.array([v]) for v in values], order)
    return values[-1] + float(rest[0]), error


def compare(run: RunFile, table: dict[str, Array], knots: list[int], limits: list[Optimum]) -> None:
    """Objectives of layers against the limit's."""
    depths = table["layers"].astype(int).tolist()
    limit, off = extrapolated("knots", knots, [o.value for o in limits], 2.0)
    layers, bar = extrapolated("layers", depths, table["energy"].tolist(), 1.0)
    found = {name: np.array([v]) for name, v in
             (("limit", limit), ("limit_error", off), ("extrapolated", layers), ("error", bar))}  # fmt: skip
    run.once("limit", lambda: found, found)
    run.near("over depth: min E_L extrapolated is the limit's minimum", limit, layers, tolerance=bar + off,
             relative=False, reason="last changes of both extrapolations", source=PAPER)  # fmt: skip
    last = float(abs(table["energy"][-1] - limit))
    run.at_most("over depth: errors of the minima, against E_L - E at the deepest", 0.01,
                (float(table["left"].max()) + off) / last, reason="so that slopes are those of minima")  # fmt: skip
    for claim, error in (
        ("over depth: |min E_L - min E| falls as 1/L", np.abs(table["energy"] - limit)),
        ("over depth: TL2 distance of layers from the limit's parameters falls as 1/L", table["distance"]),
    ):
        near_one(run, claim, table["layers"], error)


def near_one(run: RunFile, claim: str, layers: Array, error: Array) -> None:
    """Store the verdict of errors that fall as 1/L."""
    run.near(claim, 1.0, observed_order(1 / layers, error).order, tolerance=0.1, relative=False,
             reason="rate at a nondegenerate minimum; median of the last four halvings", source=PAPER)  # fmt: skip


def judge(run: RunFile, table: dict[str, Array], n_unseen: int) -> None:
    """Verdicts that need no limit."""
    run.at_most("over depth: gradients at the minima", TIGHT, float(table["gradient_norm"].max()),
                reason="tolerance of the minimisation")  # fmt: skip
    for claim, layers, error in (
        ("over depth: consecutive TL2 distances (L to 2 L) fall as 1/L", table["layers"][:-1], table["consecutive"]),
        ("over depth: K'(0) = tau K(0) holds to O(1/L)", table["layers"], table["boundary"]),
    ):
        near_one(run, claim, layers, error[: len(layers)])
    spread = float(np.ptp(table["accuracy"]))
    bound = max(0.01, 1.5 / n_unseen)
    run.at_most("over depth: accuracy on digits not seen, largest less least", bound, spread,
                reason="outputs differ by O(1/L); one digit, or one in a hundred, may change")  # fmt: skip


def keep_weights(run: RunFile, depths: list[int], optima: list[Optimum], limit: Optimum) -> None:
    """Keep the three weights that change most over depth, of some networks and of the limit."""
    curve = controls_of(limit)[0]
    most = np.argsort(-np.ptp(curve.values, axis=0).ravel())[:3]

    def keep(name: str, depth: Array, values: Array) -> None:
        columns = {"depth": depth, **{f"w_{i}": values.reshape(len(values), -1)[:, k] for i, k in enumerate(most)}}
        run.once(f"weights_{name}", lambda: columns, columns)

    keep("limit", curve.knots, curve.values)
    for i in sorted({0, len(depths) // 2}):
        part = controls_of(optima[i])[0]
        keep(str(depths[i]), part.knots[:-1], part.values)


def run(config: Config, run_file: RunFile) -> None:
    """Every section in turn."""
    for section in (two_digits, ten_digits, over_depths):
        section(config, run_file)


def figure(run: Run, path: Path) -> None:
    """Accuracies and mistakes; weights, energies, errors and accuracy over depth."""
    with style() as plt:
        drawing, axes = plt.subplots(2, 3, figsize=(12.5, 7.4), layout="constrained")
        draw_splits(axes[0, 0], run)
        draw_mistakes(axes[0, 1], run)
        draw_weights(axes[0, 2], run)
        draw_energy(axes[1, 0], run)
        draw_errors(axes[1, 1], run)
        draw_accuracy(axes[1, 2], run)
        save(drawing, path)


def draw_splits(axis: Any, run: Run) -> None:
    """Draw the accuracy of every split."""
    for i, (name, words) in enumerate((("pair", "3 against 8"), ("ten", "ten digits"))):
        if f"splits_{name}" not in run.tables:
            continue
        table = run.tables[f"splits_{name}"]
        axis.plot(table["seed"], 100 * table["unseen"], "o", color=COLOURS[i], label=f"{words}, not seen")
        axis.axhline(100 * float(np.mean(table["unseen"])), color=COLOURS[i], lw=0.8)
        axis.plot(table["seed"], 100 * table["seen"], "_", ms=12, color=COLOURS[i], label=f"{words}, seen")
    axis.axhline(100 * GOAL, color="0.5", lw=0.8, ls=":")
    axis.set(title="Accuracy (lines: means; dotted: the goal)", xlabel="seed of the split", ylabel="accuracy [%]")
    axis.set_xticks(table["seed"])
    axis.legend(fontsize=7)


def draw_mistakes(axis: Any, run: Run) -> None:
    """Draw digits that are taken for others."""
    axis.set_axis_off()
    name = next((n for n in ("ten", "pair") if f"mistakes_{n}" in run.tables), None)
    axis.set_title("Digits taken for others" if name else "No digit is taken for another")
    if name is None:
        return
    classes, pixels = run.tables[f"mistakes_{name}"], run.tables[f"pictures_{name}"]["pixel"].reshape(-1, 8, 8)
    canvas = np.full((3 * 11, 4 * 10), np.nan)
    for k, image in enumerate(pixels):
        row, column = 11 * (k // 4) + 2, 10 * (k % 4) + 1
        canvas[row : row + 8, column : column + 8] = image
        words = f"{int(classes['label'][k])} as {int(classes['guess'][k])}"
        axis.text(column + 3.5, row - 1, words, ha="center", va="bottom", fontsize=7)
    axis.imshow(canvas, cmap="gray_r", vmin=0, vmax=16)


def draw_weights(axis: Any, run: Run) -> None:
    """Draw weights over depth of networks and of the limit."""
    limit = run.tables["weights_limit"]
    others = sorted(int(n.split("_")[1]) for n in run.tables if n.startswith("weights_") and n != "weights_limit")
    for i in range(3):
        axis.plot(limit["depth"], limit[f"w_{i}"], color=COLOURS[i], label="limit" if i == 0 else None)
        for layers, marker in zip(others, ("o", "."), strict=False):
            table = run.tables[f"weights_{layers}"]
            label = f"{layers} layers" if i == 0 else None
            axis.plot(table["depth"], table[f"w_{i}"], marker, ms=4, color=COLOURS[i], alpha=0.7, label=label)
    axis.set(title="The three weights that change most", xlabel="depth", ylabel="weight")
    axis.legend(fontsize=7)


def draw_energy(axis: Any, run: Run) -> None:
    """Draw min E_L against 1/L with its extrapolation."""
    table, limit = run.tables["depths"], run.tables["limit"]
    h = 1 / table["layers"]
    axis.plot(h, table["energy"], "o", color=COLOURS[0], label="minimum of L layers")
    slope = (table["energy"][-1] - limit["extrapolated"][0]) / h[-1]
    axis.plot([0, h[0]], limit["extrapolated"][0] + slope * np.array([0, h[0]]), color=COLOURS[0], lw=0.8,
              label="through the deepest and its extrapolation")  # fmt: skip
    axis.plot(0, limit["limit"][0], "*", ms=11, color=COLOURS[1], label="the limit's, computed on its own")
    axis.set(title="Minima of the objective over depth", xlabel="1/L", ylabel="min E_L")
    axis.ticklabel_format(axis="y", useOffset=False)
    axis.legend(fontsize=7)


def draw_errors(axis: Any, run: Run) -> None:
    """Draw distances from the limit over depth."""
    table = run.tables["depths"]
    layers = table["layers"]
    for i, (values, words) in enumerate((
        (np.abs(table["energy"] - run.tables["limit"]["limit"][0]), "|min E_L - min E|"),
        (table["distance"], "TL2 distance of (K, b)"),
        (table["consecutive"], "TL2 distance, L to 2 L"),
        (table["boundary"], "relative gap in K'(0) = tau K(0)"),
    )):  # fmt: skip
        axis.loglog(layers, values, "o", ms=4, color=COLOURS[i], label=words)
        axis.loglog(layers, values[0] * layers[0] / layers, color=COLOURS[i], lw=0.8)
    axis.set(title="Distance from the limit (lines: slope -1)", xlabel="L", ylabel="error")
    axis.set_xticks(layers, [f"{int(v)}" for v in layers])
    axis.minorticks_off()
    axis.legend(fontsize=7)


def draw_accuracy(axis: Any, run: Run) -> None:
    """Draw the accuracy over depth."""
    table = run.tables["depths"]
    axis.semilogx(table["layers"], 100 * table["accuracy"], "o-", color=COLOURS[2])
    axis.set(title="Accuracy over depth, images as they are", xlabel="L", ylabel="accuracy on digits not seen [%]",
             ylim=(93, 100))  # fmt: skip
    axis.set_xticks(table["layers"], [f"{int(v)}" for v in table["layers"]])
    axis.minorticks_off()


EXPERIMENT = Experiment(
    name="digits_in_depth",
    config=Config,
    run=run,
    figure=figure,
    smoke={"ten": False, "components": 16, "sweep_components": 8, "deepest": 64, "knots": 32, "starts": 2},
    full={"splits": 20, "components": 40, "layers": 16, "sweep_components": 24, "deepest": 1024, "knots": 128,
          "starts": 10},
    references=(PAPER,),
    description=(__doc__ or "").split("\n")[0],
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line."""
    return EXPERIMENT.main(argv)


if __name__ == "__main__":
    sys.exit(main())
