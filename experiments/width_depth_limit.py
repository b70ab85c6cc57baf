"""Limits of infinite width and depth: orders, constants, and which of the two errors dominates.

    python experiments/width_depth_limit.py [--smoke | --full] [--out PATH] [--resume PATH]

A residual network of N neurons and L layers is a quadrature and an Euler discretisation of the
integro-differential network. Each section measures how fast it gets there: in depth for
every activation, in width for smooth, discontinuous and random labels and for kernels with
a kink or a jump on the diagonal, and in both at once, where the error surface separates
into a/L + c/N^q. Inputs are a formula and handwritten digits. `--planted 0.05` simulates
kernels that are 5 % off while the references stay: every verdict must then fail.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import i0

from meanfield.activations import ACTIVATIONS
from meanfield.config import option
from meanfield.data import digits, interpolate_square
from meanfield.experiment import CONSEQUENCE, Experiment, RunFile
from meanfield.grids import Grid
from meanfield.integration import integrate
from meanfield.limits import Study, convergence_study, extrapolate
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.base import IntegralOperator
from meanfield.operators.dense import Dense
from meanfield.operators.separable import Separable
from meanfield.plotting import COLOURS, save, style
from meanfield.storage.reader import Run

MARION = (
    "Marion, Wu, Sander, Biau, Implicit regularization of deep residual networks towards neural ODEs, arXiv 2309.01213"
)
THORPE = "Thorpe, van Gennip, Deep limits of residual neural networks, arXiv 1810.11741"
SMOOTH = ("identity", "tanh", "sigmoid", "softplus", "gelu", "sine")
SURFACES = ("tanh", "relu", "gelu")
NAMES = tuple(ACTIVATIONS)
KAPPA, DEPTH = 1.0, 1.0


@dataclass(frozen=True)
class Config:
    """Parameters of the experiment; sizes are powers of two up to the ones given."""

    layers: int = option(1024, "layers of the deepest network", least=256, most=2**16)
    neurons: int = option(512, "neurons of the widest network on smooth labels", least=128, most=2**14)
    draws: int = option(200, "draws of random labels", least=20, most=10**4)
    side: int = option(128, "labels per side of the widest network on the square, a power of two", least=64, most=1024)
    deepest: int = option(256, "layers of the deepest network on the square, a power of two", least=128, most=4096)
    planted: float = option(0.0, "relative error planted in every simulated kernel, to see verdicts fail")


def features(x: np.ndarray) -> np.ndarray:
    """Six smooth random features of labels (..., N) or (..., N, 2): waves of fixed directions and phases, (6, N)."""
    rng = np.random.default_rng(7)
    k, phase = rng.normal(scale=2.0, size=(6, 2)), rng.uniform(0, 2 * np.pi, 6)
    inner = k[:, :1] * x if x.ndim == 1 else k @ x.T
    return np.cos(inner + phase[:, None])


def smooth_kernel(grid: Grid, planted: float) -> Separable:
    """Kernel sum_k f_k(x) m_kl f_l(y) of the random features, neither symmetric nor definite."""
    f = features(grid.nodes)
    mixing = np.random.default_rng(8).normal(size=(6, 6)) / 1.5
    return Separable(grid, (1 + planted) * mixing.T @ f, f)


def scores(grid: Grid, z: np.ndarray) -> np.ndarray:
    """Six functionals int z f_k dx of fields (..., N): what a linear read-out sees."""
    return np.asarray((z * grid.weights) @ features(grid.nodes).T)


def along(x: np.ndarray) -> np.ndarray:
    """One coordinate of labels (N,) or (N, 2)."""
    return x if x.ndim == 1 else x @ np.array([1.0, 0.7])


def formula(x: np.ndarray, n: int = 4) -> np.ndarray:
    """Smooth fields of labels (N,) or (N, 2), (n, N)."""
    s = along(x)
    return np.stack([np.sin(3 * s + k) + 0.5 * np.cos(2 * k) * s for k in range(n)])


def biased(operator: IntegralOperator, name: str, n_samples: int) -> SpaceTimeNetwork:
    """Network with a bias that makes the preactivations change sign."""
    return SpaceTimeNetwork(operator, name, 1.5 * np.sin(7 * along(operator.grid.nodes)), n_samples=n_samples)


def evolved(
    operator: IntegralOperator, name: str, z0: np.ndarray, n_steps: int, scheme: str = "euler", bias: Any = None
) -> np.ndarray:
    """Fields at depth `DEPTH` of the network of n_steps layers (Euler), or of a finer scheme."""
    n = len(z0)
    model = biased(operator, name, n) if bias is None else SpaceTimeNetwork(operator, name, bias, n_samples=n)
    return integrate(model, z0, (0.0, DEPTH), scheme=scheme, n_steps=n_steps).raise_for_status().final


def powers(first: int, last: int) -> list[int]:
    """Powers of two from first to last."""
    return [2**k for k in range(first.bit_length() - 1, last.bit_length())]


def studied(
    run: RunFile,
    label: str,
    factory: Callable[..., Any],
    over: Mapping[str, Sequence[int]],
    reference: Any,
    *inputs: Any,
) -> Study:
    """Study whose errors are stored as the table `label`."""

    def compute() -> Mapping[str, Any]:
        return convergence_study(factory, over, reference() if callable(reference) else reference).table()

    return Study.from_table(run.once(label, compute, (label, {k: list(v) for k, v in over.items()}, inputs)))


def judge(
    run: RunFile, study: Study, claim: str, expected: Mapping[str, float], source: str, by: str = "median"
) -> None:
    """Verdicts of a study."""
    for verdict in study.verdicts(expected, claim=claim, source=source, by=by):
        run.verdict(verdict)


def depth(config: Config, run: RunFile) -> None:
    """Order in depth: 1 for residual layers of every activation, 4 for RK4 where the activation is smooth."""
    grid = Grid.interval(48, "gauss")
    z0 = formula(grid.nodes)
    for name in NAMES:

        def reference(name: str = name) -> np.ndarray:
            model = biased(smooth_kernel(grid, 0.0), name, len(z0))
            return integrate(model, z0, (0.0, DEPTH), rtol=1e-13, atol=1e-14).raise_for_status().final

        def network(depth: int, name: str = name, scheme: str = "euler") -> np.ndarray:
            return evolved(smooth_kernel(grid, config.planted), name, z0, depth, scheme)

        layers = powers(32, config.layers)
        study = studied(run, f"depth_{name}", network, {"depth": layers}, reference, config.planted)
        judge(run, study, f"residual layers, {name}", {"depth": 1.0}, MARION)
        if name in SMOOTH:

            def fine(depth: int, name: str = name) -> np.ndarray:
                return network(depth, name, "rk4")

            study = studied(run, f"rk4_{name}", fine, {"depth": [16, 32, 64, 128]}, reference, config.planted)
            judge(run, study, f"RK4, {name}", {"depth": 4.0}, CONSEQUENCE)


STEPS = 24


def width_smooth(config: Config, run: RunFile) -> None:
    """Order in width of the midpoint rule on smooth fields, 2 for every activation; on the circle, none: spectral."""
    fine = Grid.interval(400, "gauss")
    for name in NAMES:

        def network(width: int, name: str = name) -> np.ndarray:
            grid = Grid.interval(width)
            # Many fields: the error of an activation with a kink depends on where the kink falls between nodes.
            return scores(
                grid, evolved(smooth_kernel(grid, config.planted), name, formula(grid.nodes, 48), STEPS, "rk4")
            )

        def reference(name: str = name) -> np.ndarray:
            if name in SMOOTH:
                return scores(fine, evolved(smooth_kernel(fine, 0.0), name, formula(fine.nodes, 48), STEPS, "rk4"))
            grid = Grid.interval(2**13)
            return scores(grid, evolved(smooth_kernel(grid, 0.0), name, formula(grid.nodes, 48), STEPS, "rk4"))

        study = studied(run, f"width_{name}", network, {"width": powers(16, config.neurons)}, reference, config.planted)
        judge(run, study, f"smooth labels, midpoint rule, {name}", {"width": 2.0}, THORPE)


def circular(config: Config, run: RunFile) -> None:
    """Smooth periodic fields: the error falls faster than any power."""

    def network(width: int, planted: float = config.planted) -> np.ndarray:
        grid = Grid.circle(width)
        wave = 2 * np.pi * (grid.nodes[None] + np.array([[0.0], [0.2], [0.7]]))
        kernel = Dense(grid, lambda x, y: (1 + planted) * np.exp(np.cos(2 * np.pi * (x - y)) + np.sin(2 * np.pi * y)))
        z = evolved(kernel, "tanh", np.exp(np.sin(wave)), STEPS, "rk4", bias=0.1)
        return np.asarray(np.exp(np.cos(wave)) * z) @ grid.weights

    over = {"width": [4, 8, 16, 32, 64]}
    study = studied(run, "width_circle", network, over, lambda: network(256, 0.0), config.planted)
    run.at_most(
        "smooth labels on the circle, 64 neurons: the width is exact to round-off",
        1e-12,
        float(study.errors[-1]),
        reason="spectral accuracy of equal weights on periodic functions",
        source=CONSEQUENCE,
    )


def discontinuous(config: Config, run: RunFile) -> None:
    """Fields with a jump: order 1, root mean square over many places of the jump."""
    places = np.random.default_rng(run.seed).uniform(0.2, 0.8, 64)

    def start(x: np.ndarray, place: np.ndarray) -> np.ndarray:
        return np.where(x < place, 1.5, -0.5) + np.sin(2 * x)

    def network(width: int) -> np.ndarray:
        grid = Grid.interval(width)
        z0 = start(grid.nodes, places[:, None])
        return scores(grid, evolved(smooth_kernel(grid, config.planted), "tanh", z0, STEPS, "rk4"))

    def reference() -> np.ndarray:
        return np.concatenate([split(float(place)) for place in places])

    def split(place: float) -> np.ndarray:
        # Gauss nodes on both sides of the jump.
        half = Grid.interval(40, "gauss")
        nodes = np.concatenate([place * half.nodes, place + (1 - place) * half.nodes])
        grid = Grid(nodes, np.concatenate([place * half.weights, (1 - place) * half.weights]))
        z0 = start(grid.nodes, np.array([[place]]))
        return scores(grid, evolved(smooth_kernel(grid, 0.0), "tanh", z0, STEPS, "rk4"))

    widths = powers(32, 4 * config.neurons)
    study = studied(run, "width_discontinuous", network, {"width": widths}, reference, config.planted, run.seed)
    judge(run, study, "labels with a jump, midpoint rule", {"width": 1.0}, CONSEQUENCE, by="fit")


def random_labels(config: Config, run: RunFile) -> None:
    """Labels drawn at random, as the neurons of a network at initialisation: order 1/2."""
    fine = Grid.interval(60, "gauss")
    seeds = np.random.SeedSequence(run.seed).generate_state(config.draws)

    def network(width: int) -> np.ndarray:
        found = []
        for seed in seeds:
            grid = Grid.random(width, seed=int(seed))
            z = evolved(smooth_kernel(grid, config.planted), "gelu", formula(grid.nodes, 1), STEPS)
            found.append(scores(grid, z)[0])
        return np.array(found)

    def reference() -> np.ndarray:
        z = evolved(smooth_kernel(fine, 0.0), "gelu", formula(fine.nodes, 1), STEPS)
        return np.broadcast_to(scores(fine, z), (len(seeds), 6))

    widths = powers(64, 8 * config.neurons)
    study = studied(run, "width_random", network, {"width": widths}, reference, config.planted, run.seed, config.draws)
    judge(run, study, "random labels, root mean square over draws", {"width": 0.5}, CONSEQUENCE, by="fit")


def diagonals(config: Config, run: RunFile) -> None:
    """Kernels with a kink or a jump on the diagonal; the jump at half its height keeps the order."""
    size = 1 + config.planted

    def volterra(at_diagonal: float) -> Callable[[int], np.ndarray]:
        def network(width: int) -> np.ndarray:
            grid = Grid.interval(width)
            kernel = size * np.tri(width, k=-1) + size * at_diagonal * np.eye(width)
            z = evolved(Dense(grid, kernel), "identity", np.ones((1, width)), STEPS, "rk4", bias=0.0)
            return scores(grid, z)

        return network

    def kinked(width: int, size: float = size) -> np.ndarray:
        grid = Grid.interval(width)
        return scores(
            grid,
            evolved(Dense(grid, lambda x, y: -3 * size * np.abs(x - y)), "tanh", formula(grid.nodes), STEPS, "rk4"),
        )

    def exact() -> np.ndarray:
        # d_t z = int_0^x z dy, z(0) = 1: z = sum_k (t x)^k / k!^2 = I_0(2 sqrt(t x)).
        fine = Grid.interval(100, "gauss")
        return scores(fine, i0(2 * np.sqrt(DEPTH * fine.nodes))[None])

    def finest() -> Any:
        return extrapolate(lambda width: kinked(width, 1.0), {"width": [512, 1024, 2048]}, {"width": 2.0})

    widths = powers(16, min(config.neurons, 256))
    for label, words, network, reference, order in (
        ("kink", "kernel with a kink on the diagonal", kinked, finest, 2.0),
        ("jump", "kernel with a jump on the diagonal", volterra(0.0), exact, 1.0),
        ("half", "the same with the half value at i = j", volterra(0.5), exact, 2.0),
    ):
        study = studied(run, f"width_{label}", network, {"width": widths}, reference, config.planted)
        judge(run, study, words, {"width": order}, CONSEQUENCE)


def euler_constant(config: Config, run: RunFile) -> None:
    """Constant kernel, linear, no bias: L times the error of the mean tends to -kappa^2 T^2 e^(kappa T) m0/2."""

    def z0(x: np.ndarray) -> np.ndarray:
        return 1.0 + np.exp(x)

    def network(width: int, depth: int) -> float:
        grid = Grid.interval(width)
        w = Separable(grid, np.full((1, width), KAPPA * (1 + config.planted)), np.ones((1, width)))
        z = evolved(w, "identity", z0(grid.nodes)[None], depth, bias=0.0)
        return float(grid.integrate(z[0]))

    exact = np.e * np.exp(KAPPA * DEPTH)  # the mean of z0 is e
    over = {"width": [4, 8, 16, 32], "depth": powers(128, max(config.layers, 1024))}
    study = studied(run, "joint_constant", network, over, exact, config.planted)
    fit = study.surface({"depth": 1.0, "width": 2.0})
    run.near(
        "joint study a/L + c/N^2, constant kernel: a is Euler's constant",
        -0.5 * KAPPA**2 * DEPTH**2 * np.exp(KAPPA * DEPTH) * np.e,
        fit.a,
        tolerance=0.01,
        reason="the next term in 1/L is 0.9/L of it, 128 layers and more",
        source=CONSEQUENCE,
    )
    # Midpoint rule: -h^2/24 times the jump of the derivative of z0, carried by e^(kappa T).
    run.near(
        "joint study, constant kernel: c is the constant of the midpoint rule",
        -(np.e - 1) / 24 * np.exp(KAPPA * DEPTH),
        fit.c,
        tolerance=0.02,
        reason="the next term in 1/N^2 is below 1 % from 4 neurons on",
        source=CONSEQUENCE,
    )


def inputs(source: str, side: int) -> np.ndarray:
    """Fields on the square of side x side labels: ten digits, or the formula."""
    if source == "digits":
        pixels = np.asarray(digits().x[:10])
        return interpolate_square(3.0 * (pixels - pixels.mean()) / pixels.max(), side)
    return formula(Grid.square(side).nodes, 10)


def surfaces(config: Config, run: RunFile) -> None:
    """Errors over N x L on digits and on a formula: both sources, separated, and where they balance."""
    sides = powers(16, config.side)
    cases = [("digits", name) for name in SURFACES] + [("formula", "tanh")]
    for source, name in cases:

        def network(width: int, depth: int, planted: float = 0.0, source: str = source, name: str = name) -> np.ndarray:
            side = round(width**0.5)
            grid = Grid.square(side)
            z = evolved(smooth_kernel(grid, planted), name, inputs(source, side), depth)
            return scores(grid, z)

        def simulated(width: int, depth: int, network: Callable[..., np.ndarray] = network) -> np.ndarray:
            return network(width, depth, config.planted)

        def limit(network: Callable[..., np.ndarray] = network) -> Any:
            fine = {
                "width": [(k * config.side // 2) ** 2 for k in (1, 2, 4)],
                "depth": [k * config.deepest for k in (2, 4, 8)],
            }
            return extrapolate(network, fine, {"width": 1.0, "depth": 1.0})

        over = {"width": [m * m for m in sides], "depth": powers(32, config.deepest)}
        study = studied(run, f"surface_{source}_{name}", simulated, over, limit, config.planted)
        words = f"{source}, {name}, N x L surface"
        judge(run, study, words, {"width": 1.0}, MARION, by="surface")
        judge(run, study, f"{words}, widest network", {"depth": 1.0}, MARION)


def run(config: Config, run_file: RunFile) -> None:
    """Every section in turn."""
    depth(config, run_file)
    width_smooth(config, run_file)
    circular(config, run_file)
    discontinuous(config, run_file)
    random_labels(config, run_file)
    diagonals(config, run_file)
    euler_constant(config, run_file)
    surfaces(config, run_file)


def figure(run: Run, path: Path) -> None:
    """Six panels: orders in depth and width, Euler's constant, error surfaces on the digits."""
    with style() as plt:
        drawing, axes = plt.subplots(2, 3, figsize=(12.5, 7.6), layout="constrained")
        depths = {f"depth_{n}": n for n in NAMES}
        draw_orders(axes[0, 0], run, "depth", depths, "Residual layers, every activation (RK4 dotted)")
        for name in SMOOTH:
            table = run.tables[f"rk4_{name}"]
            axes[0, 0].loglog(table["depth"], table["error"], ":", color=COLOURS[NAMES.index(name) % len(COLOURS)])
        widths = {
            "width_tanh": "smooth",
            "width_circle": "smooth, circle",
            "width_kink": "kink on the diagonal",
            "width_half": "jump, half value",
            "width_jump": "jump on the diagonal",
            "width_discontinuous": "labels with a jump",
            "width_random": "random labels",
        }
        draw_orders(axes[0, 1], run, "width", widths, "Width: what the order depends on")
        draw_constant(axes[0, 2], run)
        for axis, name in zip(axes[1], SURFACES, strict=True):
            draw_surface(drawing, axis, run, f"surface_digits_{name}", f"Digits, {name}: error of the scores")
        save(drawing, path)


def draw_orders(axis: Any, run: Run, size: str, labels: Mapping[str, str], title: str) -> None:
    """Draw errors over sizes, each with its last slope."""
    for i, (name, words) in enumerate(labels.items()):
        table = run.tables[name]
        x, error = table[size], np.abs(table["error"])
        shown = error > 1e-15
        axis.loglog(x[shown], error[shown], "o-", ms=3, lw=1.2, color=COLOURS[i % len(COLOURS)], label=words)
    axis.set(title=title, xlabel=f"{size} {'L' if size == 'depth' else 'N'}", ylabel="error")
    axis.legend(fontsize=7, ncols=2 if len(labels) > 7 else 1)


def draw_constant(axis: Any, run: Run) -> None:
    """Draw L times the error of the mean over N, for each depth, and its two limits."""
    study = Study.from_table(run.tables["joint_constant"])
    predicted = -0.5 * KAPPA**2 * DEPTH**2 * np.exp(KAPPA * DEPTH) * np.e
    widths = study.sizes["width"]
    for i, layers in enumerate(study.sizes["depth"]):
        axis.plot(
            widths, layers * study.errors[:, i], "o-", ms=4, color=COLOURS[i % len(COLOURS)], label=f"L = {layers}"
        )
    axis.axhline(predicted, color="k", ls="--", lw=1, label="-κ²T² exp(κT) m₀/2")
    axis.set_xscale("log", base=2)
    axis.set(title="L × error of the mean, constant kernel", xlabel="width N", ylabel="L × error", ylim=(-20, 0))
    axis.legend(fontsize=7)


def draw_surface(drawing: Any, axis: Any, run: Run, label: str, title: str) -> None:
    """Draw an error surface with the curve on which width and depth err alike."""
    study = Study.from_table(run.tables[label])
    widths, layers = study.sizes["width"], study.sizes["depth"]
    image = axis.pcolormesh(widths, layers, np.log10(np.abs(study.errors.T)), shading="nearest")
    drawing.colorbar(image, ax=axis, label="log10 error")
    fit = study.surface()
    axis.plot(widths, fit.balance(widths), "k--", lw=1.5, label="width and depth err alike")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log", base=2)
    axis.set(
        title=f"{title}\n{fit.a:.2g}/L^{fit.p:.2f} and {fit.c:.2g}/N^{fit.q:.2f}",
        xlabel="width N",
        ylabel="depth L",
        ylim=(layers[0] / 1.4, layers[-1] * 8),
    )
    axis.legend(loc="upper left", fontsize=7)


EXPERIMENT = Experiment(
    name="width_depth_limit",
    config=Config,
    run=run,
    figure=figure,
    smoke={"layers": 512, "neurons": 128, "draws": 60, "side": 64, "deepest": 128},
    full={"layers": 16384, "neurons": 2048, "draws": 1000, "side": 256, "deepest": 1024},
    references=(MARION, THORPE),
    description=(__doc__ or "").split("\n")[0],
)


def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line."""
    return EXPERIMENT.main(argv)


if __name__ == "__main__":
    sys.exit(main())
