"""Implicit regularisation towards neural ODEs: what gradient flow keeps smooth in depth, and what it does not.

    python experiments/implicit_regularization.py [--smoke | --full] [--out PATH] [--resume PATH]

h_{k+1} = h_k + (1/L) V_k sigma(W_k h_k), trained by gradient flow with speeds of the order L for every layer. Equal
weights at the start, or weights on a smooth random curve, stay within O(1/L) of their neighbours for the whole training
and tend to the weights of a neural ODE. Sections: jumps and distances from the limit over L; the
Polyak-Lojasiewicz constant and the decay of the loss; closed forms of scalar and matrix networks with their
conserved quantities; ReLU, whose layers jump where a sample crosses a kink; independent and alternating layers, which
stay rough; scalings L^-beta of independent layers, with a stochastic limit at beta = 1/2.

Two conventions: that of the paper divides the blocks by sqrt(m) and sqrt(q), and the loss by n; that of its scripts
leaves the blocks and divides the loss by n d. They are one network with other speeds of V and W (`--convention`).

`--planted 0.05` trains with speeds that are 5 % off: the verdicts on training times fail. Those of `BLIND` are rates
in L, conserved quantities, and limits that no speed changes.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.integrate import quad

from meanfield.config import option
from meanfield.controls import Controls
from meanfield.diagnostics.fluctuations import mean_over_seeds, scaled_variance
from meanfield.diagnostics.rates import fit_rate
from meanfield.diagnostics.roughness import roughness
from meanfield.experiment import Experiment, RunFile
from meanfield.integration import integrate
from meanfield.learning.gradient_flow import GradientFlow
from meanfield.learning.hamiltonians import LayerHamiltonian
from meanfield.learning.training import Training
from meanfield.losses import Squared
from meanfield.models.residual import ResidualNetwork
from meanfield.plotting import COLOURS, save, style
from meanfield.probes import Probe
from meanfield.regularizers import DepthL2
from meanfield.storage.reader import Run
from meanfield.velocities import Velocity
from meanfield.verdict import Verdict

PAPER = (
    "Marion, Wu, Sander, Biau, Implicit regularization of deep residual networks towards neural ODEs, arXiv 2309.01213"
)
SCALING = "Marion, Fermanian, Biau, Vert, Scaling ResNets in the large-depth regime, arXiv 2206.06929"
# Every tenth step is measured.
EVERY = 10

BLIND = ("jumps", "equal layers", "distance", "output gap", "scalar networks conserve", "matrix networks", "relu",
         "gelu", "independent", "alternating", "clipped", "beta", "loss: least", "loss: its decay")  # fmt: skip
"""Beginnings of the claims that no speed changes."""


@dataclass(frozen=True)
class Config:
    """Parameters of the experiment; weights, losses and training times are pure numbers."""

    samples: int = option(100, "samples", least=10, most=100_000)
    dim: int = option(16, "components of a sample", least=2, most=256)
    width: int = option(32, "hidden neurons of a layer", least=2, most=1024)
    deepest: int = option(256, "layers of the deepest network, a power of two", least=32, most=4096)
    steps: int = option(500, "training steps of length 0.01", least=50, most=100_000)
    pl_steps: int = option(
        1500, "training steps of length 0.05 of the section on the decay of the loss", least=200, most=100_000
    )
    paths: int = option(4000, "networks of the section on scalings", least=500, most=1_000_000)
    convention: str = option("script", "speeds of the paper or of its scripts", choices=("paper", "script"))
    planted: float = option(0.0, "relative error planted in the speeds, to see verdicts fail")


def speeds(config: Config, width: int) -> dict[str, float]:
    """Speeds of v = V/sqrt(m) and w = W/sqrt(q) under the loss |F - y|^2/(2 n) that stand for a convention."""
    v = 2 / (width if config.convention == "paper" else config.dim)
    return {"v": v * (1 + config.planted), "w": 2 / config.dim * (1 + config.planted)}


def start(kind: str, layers: int, dim: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights v (L, d, m) and w (L, m, d) at the start."""
    rng = np.random.default_rng(seed)
    v, w = np.zeros((layers, dim, width)), rng.standard_normal((width, dim)) / math.sqrt(dim)
    if kind == "tied":
        return v, np.tile(w, (layers, 1, 1))
    if kind == "alternating":
        return v, w * (-1.0) ** np.arange(layers)[:, None, None]
    if kind == "independent":
        return v, rng.standard_normal((layers, width, dim)) / math.sqrt(dim)
    # A Gaussian process over depth: cosines whose amplitudes fall.
    t, numbers = np.arange(layers) / layers, np.arange(4)
    waves = np.cos(np.pi * t[:, None] * numbers) / (1 + numbers) ** 2
    return (np.tensordot(waves, rng.standard_normal((4, dim, width)), 1) / math.sqrt(width),
            np.tensordot(waves, rng.standard_normal((4, width, dim)), 1) / math.sqrt(dim))  # fmt: skip


def flow(config: Config, layers: int, sigma: str = "gelu", kind: str = "tied", *, clip: float | None = None,
         samples: int | None = None, width: int | None = None, seed: int = 0) -> GradientFlow:  # fmt: skip
    """Gradient flow of a network of that many layers; data and start are those of the seed, whatever L."""
    n, m = samples or config.samples, width or config.width
    rng = np.random.default_rng([seed, 1])
    x, y = rng.standard_normal((2, config.dim, n))
    knots = np.linspace(0.0, 1.0, layers + 1)
    v, w = (Controls(knots, part) for part in start(kind, layers, config.dim, m, seed))
    network = ResidualNetwork(Velocity.two_layer(sigma, v, w), n)
    problem = Training(network, x, Squared(y), (0.0, 1.0), layers, trained=("v", "w"))
    return GradientFlow(problem, speeds(config, m), clip)


def layers_of(model: GradientFlow, y: np.ndarray) -> np.ndarray:
    """Weights of the layers as rows, (L, P)."""
    parts = model.problem.unpack(y)[0].parameters
    return np.concatenate([parts[name].values.reshape(model.problem.n_steps, -1) for name in ("v", "w")], axis=1)


def largest_jump(_s: float, y: np.ndarray, model: GradientFlow) -> float:
    """max_k |Z_{k+1} - Z_k|."""
    return float(np.linalg.norm(np.diff(layers_of(model, y), axis=0), axis=1).max())


PROBES = {"jump": Probe(largest_jump, every=EVERY), "loss": Probe(lambda _s, y, m: m.loss(y), every=EVERY)}


def recorded(run: RunFile, label: str, model: GradientFlow, steps: int) -> tuple[np.ndarray, float]:
    """State at the end of a training that is recorded, and the largest jump along it."""
    way = run.integrate(label, model, model.initial(), (0.0, 0.01 * steps), scheme="euler", n_steps=steps,
                        save_at=1, probes=PROBES).raise_for_status()  # fmt: skip
    return way.final, float(way.probes["jump"][1].max())


def measured(model: GradientFlow, steps: int) -> dict[str, float]:
    """Largest jump along a training; root mean square jump and independence of the layers of v, which start at 0."""
    way = integrate(model, model.initial(), (0.0, 0.01 * steps), scheme="euler", n_steps=steps, save_at=(),
                    probes=PROBES).raise_for_status()  # fmt: skip
    found = roughness(model.problem.unpack(way.final)[0].parameters["v"])
    return {"jump": float(way.probes["jump"][1].max()), "after": found.rms_jump, "independence": found.independence}


def over_depths(run: RunFile, label: str, depths: list[int], models: list[GradientFlow], steps: int) -> Any:
    """Table of `measured` over the layers."""

    def table() -> dict[str, np.ndarray]:
        rows = [measured(model, steps) for model in models]
        return {"layers": np.array(depths, dtype=np.float64)} | {
            name: np.array([row[name] for row in rows]) for name in rows[0]
        }

    return run.once(label, table, (models, steps))


def smooth_layers(config: Config, run: RunFile) -> None:
    """Jumps between layers over the whole training, and distances from the limit, over L."""
    for kind, words in (("tied", "equal layers"), ("smooth", "layers on a random curve")):
        depths = [2**k for k in range(2, int(math.log2(config.deepest)) + 1)]
        ends, outputs, tops = {}, {}, []
        for n in depths:
            model = flow(config, n, kind=kind)
            end, top = recorded(run, f"{kind}_{n}", model, config.steps)
            network, x = model.problem.unpack(end)[0], model.problem.x
            ends[n], outputs[n] = (
                layers_of(model, end),
                integrate(network, x, (0.0, 1.0), scheme="euler", n_steps=n).final,
            )
            tops.append(top)
        columns = {"layers": np.array(depths, dtype=np.float64), "jump": np.array(tops)}
        run.once(f"jumps_{kind}", lambda columns=columns: columns, columns)
        fit = fit_rate(1 / columns["layers"][2:], columns["jump"][2:])
        run.near(f"jumps between layers fall as 1/L, {words}: slope [{fit.low:.3f}, {fit.high:.3f}]", 1.0, fit.slope,
                 tolerance=0.05, relative=False, reason="the largest over training, L >= 16", source=PAPER)  # fmt: skip
        distances(run, kind, words, ends, outputs)


def distances(run: RunFile, kind: str, words: str, ends: dict[int, np.ndarray], outputs: dict[int, np.ndarray]) -> None:
    """Distances of weights and outputs from those of the limit, extrapolated from the two deepest networks."""
    *coarse, half, deepest = sorted(ends)
    limit, output = 2 * ends[deepest][::2] - ends[half], 2 * outputs[deepest] - outputs[half]
    columns = {
        "layers": np.array(coarse, dtype=np.float64),
        "distance": np.array([np.linalg.norm(ends[n] - limit[:: half // n], axis=1).max() for n in coarse]),
        "output": np.array([np.sqrt(np.mean((outputs[n] - output) ** 2)) for n in coarse]),
    }
    run.once(f"distance_{kind}", lambda: columns, columns)
    for name, claim in (("distance", "distance of the weights from the limit"), ("output", "output gap to the limit")):
        fit = fit_rate(1 / columns["layers"][1:], columns[name][1:])
        run.near(f"{claim} falls as 1/L, {words}: slope [{fit.low:.3f}, {fit.high:.3f}]", 1.0, fit.slope, tolerance=0.1,
                 relative=False, reason="extrapolated limit, L >= 8", source=PAPER)  # fmt: skip


def decay_of_the_loss(config: Config, run: RunFile) -> None:
    """Loss and Polyak-Lojasiewicz ratio along a training with fewer samples than neurons."""
    model = flow(config, 64, samples=max(6, config.samples // 8), width=2 * config.width, seed=3)
    probes = {"both": Probe(lambda _s, y, m: np.array(m.dissipation(y)), every=EVERY)}
    way = run.integrate("loss", model, model.initial(), (0.0, 0.05 * config.pl_steps), scheme="euler",
                        n_steps=config.pl_steps, save_at=1, probes=probes).raise_for_status()  # fmt: skip
    s, (loss, fall) = way.probes["both"][0], way.probes["both"][1].T
    # Below that the loss is rounding.
    seen = loss > 1e-20 * loss[0]
    s, loss, fall = s[seen], loss[seen], fall[seen]
    ratio = fall / loss
    least = float(ratio.min())
    run.once("loss_ratio", lambda: {"s": s, "loss": loss, "ratio": ratio}, (s, loss, ratio))
    run.verdict(Verdict.at_least("loss: least ratio |grad|^2/J along the training over the first", 0.05,
                                 least / float(ratio[0]), reason="with more neurons than data it keeps its order",
                                 source=PAPER))  # fmt: skip
    rate = np.trapezoid(ratio, s)
    run.near("loss: its decay log J(0)/J(S) is the integral of the measured ratio", float(rate), float(np.log(loss[0] /
             loss[-1])), tolerance=0.02, reason="explicit steps, trapezes", source=PAPER)  # fmt: skip


def chain(values: np.ndarray, x: float, y: float, planted: float) -> GradientFlow:
    """x_{k+1} = (1 + w_k/L) x_k with the loss (P x - y)^2."""
    layers = len(values)
    w = Controls(np.linspace(0.0, 1.0, layers + 1), values.reshape(-1, 1, 1))
    network = ResidualNetwork(Velocity.outside("identity", w), 1)
    problem = Training(network, [[x]], Squared([y]), (0.0, 1.0), layers, trained=("w",))
    return GradientFlow(problem, {"w": 2.0 * (1 + planted)})


def products(model: GradientFlow, states: np.ndarray) -> np.ndarray:
    """P = prod (1 + w_k/L) at states (K, L)."""
    layers = model.problem.n_steps
    return np.asarray(np.prod(1 + states / math.sqrt(layers), axis=1))


def scalar_networks(config: Config, run: RunFile) -> None:
    """Closed form of the product of a scalar network over training time, at finite L and in the limit."""
    x, y, layers = 0.8, 2.0, 12
    tied = chain(np.full(layers, 0.3), x, y, config.planted)
    way = run.integrate("scalar_tied", tied, tied.initial(), (0.0, 0.6), rtol=1e-12, atol=1e-14,
                        save_at=np.linspace(0, 0.6, 7)).raise_for_status()  # fmt: skip
    p = products(tied, way.y)
    power, c = 2 - 2 / layers, y / x
    times = [quad(lambda r: 1 / ((r - c) * r**power), p[0], b, epsabs=1e-13)[0] / (-2 * x * x) for b in p]
    run.near("scalar network of equal layers: training time that led to P, from int dP/((P - C) P^(2 - 2/L))", 0.6,
             times[-1], tolerance=1e-8, reason="rtol of the steps and of the quadrature", source=PAPER)  # fmt: skip
    depths, gaps = np.array([16, 32, 64, 128]), []
    for n in depths.tolist():
        model = chain(0.3 + 0.4 * np.cos(np.pi * np.arange(n) / n), x, y, config.planted)
        end = integrate(model, model.initial(), (0.0, 0.6), rtol=1e-10, atol=1e-12, save_at=())
        first, last = products(model, np.stack([model.initial(), end.final]))
        gaps.append(abs((potential(last, c) - potential(first, c)) / (-2 * x * x) - 0.6))
    run.near("scalar network in the limit: Phi(P) - Phi(P_0) = -2 x^2 s, error falls as 1/L", 1.0,
             fit_rate(1 / depths, gaps).slope, tolerance=0.05, relative=False, reason="Euler steps",
             source=PAPER)  # fmt: skip
    uneven = chain(np.linspace(-0.5, 1.0, layers), x, y, config.planted)
    kept = []
    for n in (200, 400, 800):
        end = integrate(uneven, uneven.initial(), (0.0, 0.6), scheme="euler", n_steps=n, save_at=()).final
        squares = [(1 + state / math.sqrt(layers)) ** 2 for state in (uneven.initial(), end)]
        kept.append(np.ptp(squares[1] - squares[0]))
    exact = integrate(uneven, uneven.initial(), (0.0, 0.6), rtol=1e-12, atol=1e-14, save_at=()).final
    squares = [(1 + state / math.sqrt(layers)) ** 2 for state in (uneven.initial(), exact)]
    run.at_most("scalar networks conserve (1 + w_k/L)^2 - (1 + w_j/L)^2 along the flow", 1e-9,
                float(np.ptp(squares[1] - squares[0])), reason="rtol of the steps", source=PAPER)  # fmt: skip
    run.near("scalar networks conserve them up to O(step) along explicit steps", 1.0,
             fit_rate(1 / np.array([200, 400, 800]), kept).slope, tolerance=0.05, relative=False, reason="Euler steps",
             source=PAPER)  # fmt: skip
    stalled = chain(np.full(layers, 0.3), x, -y, config.planted)
    end = integrate(stalled, stalled.initial(), (0.0, 200.0), rtol=1e-9, atol=1e-14, save_at=()).final
    left = products(stalled, end[None])[0]
    run.near("scalar network towards a target of the other sign stalls at P = 0: P s", 1 / (2 * x * y),
             200.0 * float(left) ** (1 - 2 / layers) * (1 - 2 / layers), tolerance=0.02,
             reason="P^(2/L - 1) grows as 2 (1 - 2/L) x |y| s, from its start", source=PAPER)  # fmt: skip


def potential(p: float, c: float) -> float:
    """Phi = ln|(P - C)/P|/C^2 + 1/(C P)."""
    return math.log(abs((p - c) / p)) / c**2 + 1 / (c * p)


def matrix_networks(_config: Config, run: RunFile) -> None:
    """M_{k+1}^T M_{k+1} - M_k M_k^T of linear networks, M = 1 + W/L."""
    layers, dim, rng = 6, 3, np.random.default_rng(5)
    values = 0.5 * rng.standard_normal((layers, dim, dim))
    w = Controls(np.linspace(0.0, 1.0, layers + 1), values)
    network = ResidualNetwork(Velocity.outside("identity", w), 8)
    x, y = rng.standard_normal((2, dim, 8))
    model = GradientFlow(Training(network, x, Squared(y), (0.0, 1.0), layers, trained=("w",)))

    def kept(state: np.ndarray) -> np.ndarray:
        m = np.eye(dim) + state.reshape(values.shape) / math.sqrt(layers)
        return m[1:].swapaxes(1, 2) @ m[1:] - m[:-1] @ m[:-1].swapaxes(1, 2)

    before = kept(model.initial())
    exact = integrate(model, model.initial(), (0.0, 2.0), rtol=1e-11, atol=1e-13, save_at=()).final
    run.at_most("matrix networks conserve M_(k+1)^T M_(k+1) - M_k M_k^T along the flow", 1e-9,
                float(np.abs(kept(exact) - before).max()), reason="rtol of the steps", source=PAPER)  # fmt: skip
    counts, drifts = np.array([200, 400, 800]), []
    for n in counts.tolist():
        end = integrate(model, model.initial(), (0.0, 2.0), scheme="euler", n_steps=n, save_at=()).final
        drifts.append(np.abs(kept(end) - before).max())
    fit = fit_rate(1 / counts, drifts)
    run.near("matrix networks conserve them up to O(step) along explicit steps", 1.0, fit.slope, tolerance=0.05,
             relative=False, reason="Euler steps", source=PAPER)  # fmt: skip


def kinks(config: Config, run: RunFile) -> None:
    """One step from weights on a curve: ReLU layers jump where a sample crosses a kink, GELU layers do not."""
    depths = [2**k for k in range(4, int(math.log2(config.deepest)) + 1)]
    jumps = {}
    for sigma in ("relu", "gelu"):
        jumps[sigma] = np.array([step_jump(config, n, sigma) for n in depths])
    deep = 16 * config.deepest
    predicted = kink_jump(config, deep)
    columns = {"layers": np.array(depths, dtype=np.float64), "relu": jumps["relu"], "gelu": jumps["gelu"], "predicted":
               np.full(len(depths), predicted)}  # fmt: skip
    run.once("kinks", lambda: columns, columns)
    run.near("relu: largest jump of the gradient between layers tends to |V_j^T p_i| |h_i| at a kink", predicted,
             float(jumps["relu"][-1]), tolerance=0.1, reason="O(1/L) of the smooth part", source=PAPER)  # fmt: skip
    fit = fit_rate(1 / columns["layers"], jumps["gelu"])
    run.near("gelu: largest jump of the gradient between layers falls as 1/L", 1.0, fit.slope, tolerance=0.1,
             relative=False, reason="smooth in depth", source=PAPER)  # fmt: skip
    models = [flow(config, n, "relu") for n in depths]
    table = over_depths(run, "jumps_relu", depths, models, config.steps)
    fit = fit_rate(1 / table["layers"][-3:], table["jump"][-3:])
    run.at_most("relu: jumps in training from equal layers do not fall as 1/L: slope over the deepest", 0.7, fit.slope,
                reason="1 for smooth activations, 0 where kinks rest", source=PAPER)  # fmt: skip


def step_jump(config: Config, layers: int, sigma: str) -> float:
    """Largest jump between layers of the rate of w at the start of a training of few samples."""
    model = flow(config, layers, sigma, "smooth", samples=4, width=8, seed=2)
    rate = np.empty(model.shape)
    model.rate(0.0, model.initial(), rate)
    size = layers * config.dim * 8
    w = rate[size:].reshape(layers, 8, config.dim) * math.sqrt(layers)
    return float(np.linalg.norm(np.diff(w, axis=0), axis=2).max())


def kink_jump(config: Config, layers: int) -> float:
    """Largest c |V_j^T p_i| |h_i| over the neurons and samples that cross a kink of ReLU, by a deep network."""
    model = flow(config, layers, "relu", "smooth", samples=4, width=8, seed=2)
    network = model.problem.model
    problem = replace(model.problem, regularizers={"v": DepthL2(1.0), "w": DepthL2(1.0)})
    along = LayerHamiltonian.along(problem)
    parts = network.parameters
    h, p = along.x[:-1], along.p[1:]
    inner = parts["w"].values @ h
    crossed = np.diff(np.sign(inner), axis=0) != 0
    onto = parts["v"].values.swapaxes(1, 2) @ p
    sizes = np.abs(onto) * np.linalg.norm(h, axis=1)[:, None, :]
    return float(model.speeds["w"] * sizes[:-1][crossed].max())


def rough_layers(config: Config, run: RunFile) -> None:
    """Independent and alternating layers keep their jumps; clipped flows keep layers smooth."""
    depths = [2**k for k in range(4, int(math.log2(config.deepest)))]
    for kind, words in (("independent", "independent layers"), ("alternating", "alternating layers")):
        models = [flow(config, n, kind=kind) for n in depths]
        table = over_depths(run, f"rough_{kind}", depths, models, config.steps // 2)
        run.verdict(Verdict.at_least(f"{words}: what training adds is as rough, least independence of the layers of V",
                                     0.5, float(table["independence"].min()),
                                     reason="1 for independent layers, 2 for alternating, O(1/L^2) for smooth ones",
                                     source=PAPER))  # fmt: skip
    smooth = over_depths(run, "smooth_v", depths, [flow(config, n) for n in depths], config.steps // 2)
    fit = fit_rate(1 / smooth["layers"], smooth["independence"])
    run.near("equal layers: independence of the layers of V falls as 1/L^2", 2.0, fit.slope, tolerance=0.1,
             relative=False, reason="smooth in depth, L >= 16", source=PAPER)  # fmt: skip
    models = [flow(config, n, clip=0.05) for n in depths]
    table = over_depths(run, "jumps_clipped", depths, models, config.steps // 2)
    fit = fit_rate(1 / table["layers"], table["jump"])
    run.near("clipped flow: jumps between layers fall as 1/L", 1.0, fit.slope, tolerance=0.1, relative=False,
             reason="L >= 16", source=PAPER)  # fmt: skip
    deepest = flow(config, depths[-1], kind="independent")
    end = integrate(deepest, deepest.initial(), (0.0, 0.005 * config.steps), scheme="euler", save_at=(),
                    n_steps=config.steps // 2).final  # fmt: skip
    run.once("weight_independent", lambda: {"v": layers_of(deepest, end)[:, 0]}, end)


def log_norms(config: Config, layers: int, beta: float, seed: int) -> np.ndarray:
    """log |h_L|/|h_0| of networks h + L^-beta W h/sqrt(d) with independent normal W, one for each path."""
    rng, d = np.random.default_rng([seed, layers]), config.dim
    h = np.ones((config.paths, d))
    for _ in range(layers):
        # W h/sqrt(d) is normal with variance |h|^2/d, independent of the past: drawn as such.
        h = h + layers**-beta * np.linalg.norm(h, axis=1, keepdims=True) / math.sqrt(d) * rng.standard_normal(h.shape)
    return np.asarray(np.log(np.linalg.norm(h, axis=1) / math.sqrt(d)))


def drawn_matrices(config: Config, layers: int, seed: int, count: int) -> np.ndarray:
    """log |h_L|/|h_0| at beta = 1/2 with the matrices themselves."""
    rng, d = np.random.default_rng([seed, 7]), config.dim
    h = np.ones((count, d, 1))
    for _ in range(layers):
        h = h + rng.standard_normal((count, d, d)) @ h / math.sqrt(d * layers)
    return np.asarray(np.log(np.linalg.norm(h[:, :, 0], axis=1) / math.sqrt(d)))


def diffusion(config: Config) -> ResidualNetwork:
    """dh = |h|/sqrt(d) dB, the limit at beta = 1/2, as particles of Euler-Maruyama steps."""
    still = Velocity.outside("identity", np.zeros((config.dim, config.dim)))
    scale = 1 / math.sqrt(config.dim)
    return ResidualNetwork(still, config.paths, 1.0, partial(radius, scale), seed=9)


def radius(scale: float, *x: np.ndarray) -> np.ndarray:
    """|h| times a number."""
    return scale * np.sqrt(sum(part**2 for part in x))


def scalings(config: Config, run: RunFile) -> None:
    """Laws of log |h_L| under scalings L^-beta of independent layers."""
    d, layers = config.dim, 256
    mean, variance = (d - 2) / (2 * d), 1 / d
    half = run.once("log_norms", lambda: {"network": log_norms(config, layers, 0.5, run.seed)}, (config, run.seed))
    small = run.once("log_norms_matrices", lambda: {"network": drawn_matrices(config, 64, run.seed, 500)},
                     (config, run.seed))["network"]  # fmt: skip
    values = half["network"]
    centre = mean_over_seeds(values, confidence=0.99)
    # One step of length 1/L has the mean of the limit up to O(1/L^2): its expansion gives the bound.
    run.near("beta = 1/2: mean of log |h_L|/|h_0| is (d - 2)/(2 d)", mean, centre.value, relative=False,
             tolerance=centre.high - centre.value + 1 / layers, reason="99 % interval and O(1/L)",
             source=SCALING)  # fmt: skip
    spread = scaled_variance(values, 1, confidence=0.99)
    run.near("beta = 1/2: variance of log |h_L| is 1/d", variance, spread.value, relative=False,
             tolerance=spread.high - spread.value + variance / layers * 4, reason="99 % interval and O(1/L)",
             source=SCALING)  # fmt: skip
    own = mean_over_seeds(small, confidence=0.99)
    run.near("beta = 1/2: networks with their matrices drawn have the same mean", mean, own.value, relative=False,
             tolerance=own.high - own.value + 1 / 64, reason="99 % interval and O(1/L)", source=SCALING)  # fmt: skip
    reference = run.once("log_norms_reference", partial(euler_maruyama, config), config)["diffusion"]
    gap = float(np.abs(np.sort(values) - np.sort(reference)).mean())
    run.at_most("beta = 1/2: W1 of the law of log |h_L| and that of Euler-Maruyama paths", 4 * math.sqrt(2 * variance /
                config.paths), gap, reason="two samples", source=SCALING)  # fmt: skip
    for beta, slope in ((1.0, 0.5), (0.75, 0.25)):
        depths = np.array([64, 256, 1024])
        spreads = [log_norms(config, n, beta, run.seed).std() for n in depths.tolist()]
        run.near(f"beta = {beta:g}: networks tend to the identity, deviation of log |h_L| as L^(1/2 - beta)", slope,
                 fit_rate(1 / depths, spreads).slope, tolerance=0.05, relative=False,
                 reason=f"{config.paths} networks", source=SCALING)  # fmt: skip
    depths = np.array([16, 64, 256])
    growth = [log_norms(config, n, 0.25, run.seed).mean() for n in depths.tolist()]
    run.near("beta = 1/4: log |h_L| grows as L^(1/2)", 0.5, fit_rate(depths, growth).slope, tolerance=0.1,
             relative=False, reason="its leading order", source=SCALING)  # fmt: skip


def euler_maruyama(config: Config) -> dict[str, np.ndarray]:
    """log |h(1)|/|h(0)| of the stochastic limit."""
    model = diffusion(config)
    end = integrate(model, np.ones(model.shape), (0.0, 1.0), scheme="euler", n_steps=256, save_at=()).final
    return {"diffusion": np.log(np.linalg.norm(end, axis=0) / math.sqrt(config.dim))}


def run(config: Config, run_file: RunFile) -> None:
    """Run every section."""
    for section in (smooth_layers, decay_of_the_loss, scalar_networks, matrix_networks, kinks, rough_layers, scalings):
        section(config, run_file)


def figure(run: Run, path: Path) -> None:
    """Six panels: jumps, distances, weights over depth, loss, kinks, laws of scalings."""
    with style() as plt:
        drawing, axes = plt.subplots(2, 3, figsize=(12.5, 7.4), layout="constrained")
        draw_jumps(axes[0, 0], run)
        draw_distances(axes[0, 1], run)
        draw_weights(axes[0, 2], run)
        draw_loss(axes[1, 0], run)
        draw_kinks(axes[1, 1], run)
        draw_scalings(axes[1, 2], run)
        drawing.suptitle(f"Speeds of V and W: convention of the {run.config['convention']}", fontsize=9)
        save(drawing, path)


def over_layers(axis: Any, layers: np.ndarray, title: str, words: str) -> None:
    """Label an axis that shows something over L."""
    axis.set(title=title, xlabel="layers L", ylabel=words, xscale="log", yscale="log")
    axis.set_xticks(layers, [f"{int(v)}" for v in layers])
    axis.minorticks_off()
    axis.legend(fontsize=7)


def draw_jumps(axis: Any, run: Run) -> None:
    """Draw the largest jumps over the layers."""
    rows = (("tied", "equal at the start"), ("smooth", "on a curve"), ("relu", "equal, ReLU"))
    for i, (kind, words) in enumerate(rows):
        table = run.tables[f"jumps_{kind}"]
        axis.plot(table["layers"], table["jump"], "o-", ms=4, color=COLOURS[i], label=words)
    table = run.tables["rough_independent"]
    axis.plot(table["layers"], table["after"], "s--", ms=4, color=COLOURS[3], label="independent, V (root mean square)")
    n = run.tables["jumps_tied"]["layers"]
    axis.plot(n, run.tables["jumps_tied"]["jump"][-1] * n[-1] / n, color="0.7", lw=0.8, label="slope -1")
    over_layers(axis, n, "Largest jump between layers in training", "max |Z_(k+1) - Z_k|")


def draw_distances(axis: Any, run: Run) -> None:
    """Draw the distances from the limit."""
    for i, (kind, words) in enumerate((("tied", "equal at the start"), ("smooth", "on a curve"))):
        table = run.tables[f"distance_{kind}"]
        n, far = table["layers"], table["distance"]
        axis.plot(n, far, "o-", ms=4, color=COLOURS[i], label=words)
    axis.plot(n, far[-1] * n[-1] / n, color="0.7", lw=0.8, label="slope -1")
    over_layers(axis, n, "Weights after training against the limit", "largest distance")


def draw_weights(axis: Any, run: Run) -> None:
    """Draw one weight over depth, for several depths and starts."""
    numbers = sorted(int(name.split("_")[1]) for name in run.series if name.startswith("tied_"))
    for i, n in enumerate((numbers[0], numbers[2], numbers[-1])):
        axis.plot(np.arange(n) / n, run.series[f"tied_{n}"]["v"][-1].reshape(n, -1)[:, 0], ".-" if n < 64 else "-",
                  color=COLOURS[i], label=f"equal at the start, L = {n}")  # fmt: skip
    v = run.tables["weight_independent"]["v"]
    axis.plot(np.arange(len(v)) / len(v), v, color=COLOURS[3], lw=0.7, label=f"independent, L = {len(v)}")
    axis.set(title="A weight V after training", xlabel="depth k/L", ylabel="first entry of V")
    axis.legend(fontsize=7)


def draw_loss(axis: Any, run: Run) -> None:
    """Draw the loss and the Polyak-Lojasiewicz ratio."""
    table = run.tables["loss_ratio"]
    s, loss, ratio = table["s"], table["loss"], table["ratio"]
    axis.semilogy(s, loss / loss[0], color=COLOURS[0], label="J(s)/J(0)")
    axis.semilogy(s, np.exp(-ratio.min() * s), "--", color=COLOURS[1], label="exp(-mu s), least ratio")
    axis.semilogy(s, ratio, color=COLOURS[2], label="|grad|^2/J")
    axis.set(title="Loss and its Polyak-Lojasiewicz ratio, L = 64", xlabel="training time s", ylabel="loss, ratio")
    axis.legend()


def draw_kinks(axis: Any, run: Run) -> None:
    """Draw jumps of the gradient of ReLU and GELU layers."""
    table = run.tables["kinks"]
    for i, sigma in enumerate(("relu", "gelu")):
        axis.plot(table["layers"], table[sigma], "o-", ms=4, color=COLOURS[i], label=sigma.upper())
    axis.axhline(table["predicted"][0], color="0.6", ls="--", lw=1, label="predicted at a kink")
    over_layers(axis, table["layers"], "Jump of the gradient between layers", "largest jump")


def draw_scalings(axis: Any, run: Run) -> None:
    """Draw the law of log |h_L| at beta = 1/2."""
    values, d = run.tables["log_norms"]["network"], run.config["dim"]
    axis.hist(values, bins=60, density=True, color=COLOURS[0], alpha=0.4, label="networks, 256 layers")
    axis.hist(run.tables["log_norms_reference"]["diffusion"], bins=60, density=True, histtype="step", color=COLOURS[1],
              label="Euler-Maruyama")  # fmt: skip
    z = np.linspace(values.min(), values.max(), 200)
    mean, variance = (d - 2) / (2 * d), 1 / d
    axis.plot(z, np.exp(-((z - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance), color="0.2",
              label="Gaussian limit")  # fmt: skip
    axis.set(title="Independent layers scaled by L^(-1/2)", xlabel="log |h_L|/|h_0|", ylabel="density")
    axis.legend(fontsize=7)


EXPERIMENT = Experiment(
    name="implicit_regularization",
    config=Config,
    run=run,
    figure=figure,
    smoke={"samples": 20, "dim": 6, "width": 12, "deepest": 128, "steps": 100, "pl_steps": 600, "paths": 2000},
    full={"deepest": 1024, "pl_steps": 20_000, "paths": 100_000},
    references=(PAPER, SCALING),
    description=(__doc__ or "").split("\n")[0],
)


def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line."""
    return EXPERIMENT.main(argv)


if __name__ == "__main__":
    sys.exit(main())
