"""Selection dynamics: space-time networks evolved to a large depth, against what theory predicts.

    python experiments/selection_dynamics.py [--smoke | --full] [--data FILE] [--out PATH] [--resume PATH]

Fields on the unit square (handwritten digits, or your own with --data) are evolved by
d_t z = sigma(W z + b): as bias fields where a constant kernel selects among them, as
initial fields elsewhere. Each section below is one claim about the model; the verdicts
compare figures predicted from the parameters with figures measured on the trajectory.
`--planted 0.05` simulates a kernel that is 5 % off while the predictions stay as they
are: every verdict must then fail.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from meanfield import exact
from meanfield.config import option
from meanfield.data import digits, interpolate_square, load_fields
from meanfield.diagnostics.bounds import GrowthBound
from meanfield.diagnostics.energy import energy, energy_rate
from meanfield.diagnostics.rates import fit_algebraic, fit_exponential
from meanfield.diagnostics.spectrum import instability_threshold
from meanfield.diagnostics.stability import TimeUniformNorm, largest_increase
from meanfield.diagnostics.steady import active_fraction, project_to_steady_set, steady_residual_sup
from meanfield.errors import ConfigError
from meanfield.experiment import Experiment, RunFile
from meanfield.grids import Grid
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.base import IntegralOperator
from meanfield.operators.convolution import Convolution
from meanfield.operators.dense import Dense
from meanfield.operators.separable import Separable
from meanfield.plotting import COLOURS, save, style
from meanfield.probes import Probe
from meanfield.storage.reader import Run
from meanfield.verdict import Verdict

PAPER = "Liu, Markowich, Selection dynamics for deep neural networks, arXiv 1905.09076"
# Multiples of the threshold at which growth is measured.
FACTORS = (0.9, 1.1)


@dataclass(frozen=True)
class Config:
    """Parameters of the experiment; depths and rates are pure numbers."""

    data: str = option("", "fields of your own, .csv .npy .npz .h5, (samples, labels); default: the digits")
    n_fields: int = option(6, "how many of the fields to use", least=2, most=64)
    side: int = option(8, "labels per side of the square for the fields", least=4, most=128)
    n_line: int = option(4096, "labels of the selection law on the line", least=64)
    n_plane: int = option(256, "labels per side of the selection law on the square", least=16, most=4096)
    n_modes: int = option(16384, "Fourier modes of the algebraic decay", least=2048)
    kappa: float = option(4.0, "strength of the inhibition", above=0.0)
    decay: float = option(0.5, "strength of the local part", above=0.0)
    leak: float = option(1.0, "leak of the stability section", above=0.0)
    planted: float = option(0.0, "relative error planted in every simulated kernel, to see verdicts fail")


@dataclass(frozen=True)
class Fields:
    """Fields on the labels of a grid, scaled to [0, 1], with names."""

    grid: Grid
    values: np.ndarray
    names: tuple[str, ...]


def load(config: Config) -> Fields:
    """Fields on the unit square; on the interval if the user's have no square number of labels."""
    if config.data:
        raw = load_fields(config.data)[: config.n_fields]
        names = tuple(f"field {i}" for i in range(len(raw)))
    else:
        shipped = digits()
        raw = np.asarray(shipped.x[: config.n_fields])
        names = tuple(f"digit {label}" for label in shipped.labels[: config.n_fields])
    if len(raw) < 2:
        raise ConfigError(f"the data hold {len(raw)} field: at least two are needed")
    spread = raw.max(axis=1) - raw.min(axis=1)
    if (spread == 0).any():
        raise ConfigError(f"field {int(np.argmin(spread))} is constant: nothing can be selected in it")
    root = round(raw.shape[1] ** 0.5)
    if root * root == raw.shape[1]:
        grid = Grid.square(config.side)
        raw = interpolate_square(raw.reshape(-1, root, root), config.side).reshape(len(raw), -1)
    else:
        grid = Grid.interval(raw.shape[1])
    low, high = raw.min(axis=1, keepdims=True), raw.max(axis=1, keepdims=True)
    return Fields(grid, np.ascontiguousarray((raw - low) / (high - low)), names)


def constant(grid: Grid, kappa: float, error: float) -> Separable:
    """Kernel w == kappa, times 1 + error."""
    return Separable(grid, np.full((1, grid.n_nodes), kappa * (1 + error)), np.ones((1, grid.n_nodes)))


def gaussian(x: np.ndarray, y: np.ndarray, width: float = 0.2) -> np.ndarray:
    """Symmetric positive kernel exp(-|x - y|^2 / 2 width^2), for labels of any dimension."""
    gap = np.asarray((x - y) ** 2)
    return np.exp(-(gap.sum(axis=-1) if gap.ndim == 3 else gap) / (2 * width**2))


def swirl(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Skew kernel sin(2 pi (s(x) - s(y))), s the sum of the coordinates weighted 1, 2."""
    s, r = (np.tensordot(v, [1.0, 2.0], 1) if v.ndim == 3 else v for v in (x, y))
    return np.sin(2 * np.pi * (s - r))


def dense(grid: Grid, kernel: Callable[..., np.ndarray], scale: float, error: float, local: float = 0.0) -> Dense:
    """Kernel times scale; an error changes the kernel and the local part by that fraction of the norm."""
    exact_operator = Dense(grid, lambda x, y: scale * kernel(x, y), local=local)
    if error == 0.0:
        return exact_operator
    shift = error * max(exact_operator.operator_norm(), abs(local))
    return Dense(grid, lambda x, y: (1 + error) * scale * kernel(x, y), local=local + shift)


def relative(measured: np.ndarray, predicted: np.ndarray) -> float:
    """Largest relative difference."""
    return float(np.max(np.abs(measured - predicted) / np.abs(predicted)))


def constant_kernel(config: Config, run: RunFile, fields: Fields) -> None:
    """Kernel w == -kappa from the fields: closed forms for four activations, sigmoid without a steady state."""
    depths, bias = np.linspace(0.0, 4.0, 21), 2.0
    for name in ("identity", "relu", "tanh", "sigmoid"):
        model = SpaceTimeNetwork(
            constant(fields.grid, -config.kappa, config.planted), name, bias, n_samples=len(fields.values)
        )
        solution = run.integrate(
            f"constant_{name}",
            model,
            fields.values,
            (0.0, 4.0),
            rtol=1e-12,
            atol=1e-13,
            save_at=depths,
            probes={"residual": Probe(steady_residual_sup, axes=("sample",), long_name="steady residual")},
        ).raise_for_status()
        truth = exact.constant_kernel(name, depths, fields.values, fields.grid.weights, -config.kappa, bias=bias)
        run.at_most(
            f"constant kernel, {name}: closed form reproduced",
            1e-10,
            float(np.abs(solution.y - truth).max()),
            reason="adaptive steps at rtol 1e-12",
        )
        if name == "sigmoid":
            mean = fields.values @ fields.grid.weights
            u = exact.constant_kernel_preactivation(name, 4.0, bias - config.kappa * mean, -config.kappa)
            run.near(
                "sigmoid has no steady state: smallest residual at depth 4",
                float((1 / (1 + np.exp(-u))).min()),
                float(solution.probes["residual"][1][-1].min()),
                tolerance=1e-6,
                reason="closed form of the residual, which is positive at every depth",
            )


def convolution(config: Config, run: RunFile, fields: Fields) -> None:
    """Linear network with a convolution kernel on the torus: every Fourier mode on its own."""
    n = 2 * config.side
    grid = Grid.torus(n)
    cells = fields.values if fields.grid.dim == 2 else np.resize(fields.values, (len(fields.values), config.side**2))
    z0 = interpolate_square(cells.reshape(len(cells), config.side, config.side), n).reshape(len(cells), -1)

    def profile(x: np.ndarray) -> np.ndarray:
        return -np.exp(np.cos(2 * np.pi * x[..., 0]) + np.sin(2 * np.pi * x[..., 1]))

    truth_operator = Convolution(grid, profile)
    model = SpaceTimeNetwork(
        Convolution(grid, lambda x: (1 + config.planted) * profile(x)), "identity", n_samples=len(z0)
    )
    solution = run.integrate("convolution", model, z0, (0.0, 5.0), dt=0.005, save_at=10).raise_for_status()
    multiplier = exact.fourier_multiplier(truth_operator.profile, grid.shape)
    truth = exact.convolution_linear(solution.t, z0, multiplier)
    run.at_most(
        "convolution on the torus: every Fourier mode follows its exponential",
        1e-10,
        float(np.abs(solution.y - truth).max()),
        reason="RK4 with dt = 0.005",
    )


def algebraic_decay(config: Config, run: RunFile) -> None:
    """Linear W = -A with eigenvalues k^-p on the circle: |z| decays as t^{-(2q-1)/(2p)}, not exponentially."""
    p, q, n_modes = 1.0, 1.0, config.n_modes
    grid = Grid.circle(2 * n_modes + 2)
    k = np.arange(1.0, n_modes + 1)
    # w(x, y) = -sum_k 2 k^-p cos(2 pi k (x - y)) has the eigenvalue -k^-p on both modes k.
    spectrum = np.zeros(n_modes + 2)
    spectrum[1 : n_modes + 1] = k**-p
    profile = -np.fft.irfft(spectrum * grid.n_nodes, n=grid.n_nodes)
    start = np.zeros(n_modes + 2)
    start[1 : n_modes + 1] = k**-q / np.sqrt(2.0)
    z0 = np.fft.irfft(start * grid.n_nodes, n=grid.n_nodes)
    model = SpaceTimeNetwork(Convolution(grid, (1 + config.planted) * profile, local=config.planted), "identity")
    # The modes cut off weigh 2 t / N in |z|^2: depths up to N/200 keep the exponent to 0.01.
    end = n_modes / 200.0
    depths = np.concatenate([[0.0], np.geomspace(1.0, end, 25)])
    depths[-1] = end
    solution = run.integrate(
        "algebraic_decay",
        model,
        z0,
        (0.0, end),
        rtol=1e-11,
        atol=1e-14,
        save_at=depths,
        probes={"norm": Probe(lambda t, y, m: m.grid.norm(y), long_name="L2 norm of z")},
    ).raise_for_status()
    t, norm = solution.probes["norm"]
    run.at_most(
        "algebraic decay: |z| equals its finite sum (relative)",
        1e-9,
        relative(norm, exact.algebraic_decay(t, p, q, n_modes)),
        reason="adaptive steps at rtol 1e-11",
    )
    run.near(
        "algebraic decay: exponent of |z| against depth",
        -(2 * q - 1) / (2 * p),
        fit_algebraic(t[1:], norm[1:], window=(4.0, end)).slope,
        tolerance=0.02,
        relative=False,
        reason="depths from 4 to the number of modes over 200",
    )


def energies(config: Config, run: RunFile, fields: Fields) -> None:
    """E is conserved by skew W, decays at 2 lam for -lam I + skew (ReLU), and obeys its identity for any W."""
    grid, n = fields.grid, len(fields.values)
    bias = fields.values.mean(axis=0) - 0.5
    watched = {
        "energy": Probe(energy, axes=("sample",), long_name="energy E"),
        "energy_rate": Probe(energy_rate, axes=("sample",), long_name="dE/dt"),
    }

    def evolve(label: str, operator: IntegralOperator, name: str, n_steps: int = 400) -> np.ndarray:
        model = SpaceTimeNetwork(operator, name, bias, n_samples=n)
        solution = run.integrate(
            label, model, fields.values, (0.0, 8.0), n_steps=n_steps, save_at=200, probes=watched
        ).raise_for_status()
        return np.asarray(solution.probes["energy"][1])

    skew = evolve("skew", dense(grid, swirl, 3.0, config.planted), "tanh")
    run.at_most(
        "skew kernel, tanh: relative drift of the energy",
        1e-6,
        relative(skew, skew[:1]),
        reason="order-4 steps of 0.02; the continuous flow conserves E",
    )
    both = evolve("dissipative_skew", dense(grid, swirl, 3.0, config.planted, local=-config.decay), "relu")
    t = np.linspace(0.0, 8.0, 201)
    slopes = [fit_exponential(t, e).slope for e in both.T if e[0] > 0]
    claim = "-lam I + skew, ReLU: decay rate of the energy"
    if slopes:
        worst = max(slopes, key=lambda s: abs(s + 2 * config.decay))
        run.near(claim, -2 * config.decay, worst, tolerance=0.005, reason="kinks of ReLU cost order; worst sample")
    else:
        run.verdict(
            Verdict.not_tested(claim, "no label of any field is active at the start", "consequence of the model")
        )
    symmetric = evolve("dissipative", dense(grid, gaussian, -4.0, config.planted), "tanh")
    identity(run, fields, "dissipative", symmetric, Dense(grid, lambda x, y: -4.0 * gaussian(x, y)), "tanh", bias)
    rng = np.random.default_rng(run.seed)
    modes = rng.standard_normal((4, 4))

    def smooth_random(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        waves = [
            np.cos(2 * np.pi * k * v[..., 0] + k) if v.ndim == 3 else np.cos(2 * np.pi * k * v + k)
            for v in (x, y)
            for k in range(4)
        ]
        return sum(modes[i, j] * waves[i] * waves[4 + j] for i in range(4) for j in range(4))

    random = evolve("smooth_random", dense(grid, smooth_random, 0.5, config.planted), "sigmoid")
    identity(
        run,
        fields,
        "smooth_random",
        random,
        Dense(grid, lambda x, y: 0.5 * smooth_random(x, y)),
        "sigmoid",
        bias,
    )


def identity(
    run: RunFile,
    fields: Fields,
    label: str,
    values: np.ndarray,
    operator: Dense,
    name: str,
    bias: np.ndarray,
) -> None:
    """Check E(T) - E(0) = int <sigma(u), W sigma(u)> dt with the kernel as meant, by Simpson's rule."""
    model = SpaceTimeNetwork(operator, name, bias, n_samples=len(fields.values))
    frames = run.series(label)["z"]
    rates = np.array([energy_rate(0.0, np.ascontiguousarray(z), model) for z in frames])
    weights = np.ones(len(rates))
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    work = weights @ rates * (8.0 / (len(rates) - 1) / 3.0)
    change = values[-1] - values[0]
    worst = int(np.argmax(np.abs(change - work) / np.abs(work)))
    run.near(
        f"energy identity, {label.replace('_', ' ')} kernel, {name}: change of E",
        float(work[worst]),
        float(change[worst]),
        tolerance=1e-5,
        reason="Simpson's rule over 200 intervals; worst sample",
    )
    if label == "dissipative":
        run.at_most(
            "dissipative kernel, tanh: largest increase of E over E(0)",
            1e-12,
            float(largest_increase(values / values[0])),
            reason="round-off of the energy",
        )


def threshold_label(factor: float) -> str:
    """Label of the run with the kernel at a multiple of its threshold."""
    return f"threshold_{round(100 * factor)}"


def stability(config: Config, run: RunFile, fields: Fields) -> None:
    """Time-uniform stability for W = -A; the threshold at which z = 0 loses stability under a leak."""
    grid = fields.grid
    pair = np.ascontiguousarray(fields.values[:2])
    damping = Dense(grid, lambda x, y: -4.0 * gaussian(x, y))
    norm = TimeUniformNorm(SpaceTimeNetwork(damping, "tanh", n_samples=2))
    model = SpaceTimeNetwork(dense(grid, gaussian, -4.0, config.planted), "tanh", 0.1, n_samples=2)
    solution = run.integrate(
        "time_uniform",
        model,
        pair,
        (0.0, 60.0),
        n_steps=1200,
        save_at=300,
        probes={"a_norm": Probe(norm, long_name="A-norm of the difference")},
    ).raise_for_status()
    values = solution.probes["a_norm"][1]
    run.at_most(
        "W = -A: largest increase of <d, A d> over its start, two digits",
        1e-12,
        float(largest_increase(values / values[0])),
        reason="round-off of the norm",
    )
    unit = SpaceTimeNetwork(Dense(grid, gaussian), "tanh", leak=config.leak)
    predicted = instability_threshold(0.0, np.zeros(grid.n_nodes), unit)
    rates = []
    seed = 1e-7 * (fields.values[0] - fields.values[1])
    for factor in FACTORS:
        model = SpaceTimeNetwork(dense(grid, gaussian, factor * predicted, config.planted), "tanh", leak=config.leak)
        solution = run.integrate(
            threshold_label(factor),
            model,
            seed,
            (0.0, 40.0),
            n_steps=800,
            save_at=80,
            probes={"norm": Probe(lambda t, y, m: m.grid.norm(y), long_name="L2 norm of z")},
        ).raise_for_status()
        t, size = solution.probes["norm"]
        rates.append(fit_exponential(t, size, window=(30.0, 40.0)).slope)
    for factor, rate in zip(FACTORS, rates, strict=True):
        run.near(
            f"leak, kernel at {factor:g} of its threshold: growth rate of a small field",
            config.leak * (factor - 1),
            rate,
            tolerance=0.01,
            reason="depths 30 to 40, the leading mode alone",
        )
    crossing = FACTORS[0] + (FACTORS[1] - FACTORS[0]) * rates[0] / (rates[0] - rates[1])
    run.near(
        "leak: strength of the kernel at which z = 0 loses stability",
        predicted,
        crossing * predicted,
        tolerance=0.002,
        reason="zero of the measured growth rates, linear in the strength",
    )
    growth(config, run, fields)


def growth(config: Config, run: RunFile, fields: Fields) -> None:
    """The growth bound of the theory is attained by a constant excitation of a constant field."""

    def make(error: float) -> SpaceTimeNetwork:
        return SpaceTimeNetwork(constant(fields.grid, 1.0, error), "identity")

    start = np.full(fields.grid.n_nodes, fields.values.mean())
    solution = run.integrate(
        "growth_bound", make(config.planted), start, (0.0, 3.0), rtol=1e-10, save_at=30
    ).raise_for_status()
    bound, model = GrowthBound(), make(0.0)
    bound.init(0.0, start, model)
    ratios = []
    for t, z in zip(solution.t, solution.y, strict=True):
        bound.update(float(t), np.ascontiguousarray(z), model)
        ratios.append(float(np.max(bound.value())))
    run.near(
        "growth bound: largest ratio of |z| to its bound, where the bound is attained",
        1.0,
        max(ratios),
        tolerance=1e-6,
        reason="adaptive steps at rtol 1e-10",
        source=PAPER,
    )


def steady_set(config: Config, run: RunFile, fields: Fields) -> None:
    """The steady states of ReLU are the convex set {W z + b <= 0}: mixtures of steady states are steady."""
    grid, bias = fields.grid, fields.values.mean(axis=0) - 0.4

    def make(error: float, n: int | None = None) -> SpaceTimeNetwork:
        return SpaceTimeNetwork(dense(grid, gaussian, -4.0, error), "relu", bias, n_samples=n)

    run.integrate(
        "relu_to_steady",
        make(config.planted, len(fields.values)),
        fields.values,
        (0.0, 50.0),
        n_steps=1000,
        save_at=100,
        probes={
            "residual": Probe(steady_residual_sup, axes=("sample",), long_name="steady residual"),
            "active": Probe(active_fraction, axes=("sample",), long_name="active fraction"),
        },
    ).raise_for_status()

    def mixtures() -> dict[str, np.ndarray]:
        simulated, meant = make(config.planted), make(0.0)
        # Projections of fields outside lie on the boundary, where an error in the kernel shows.
        states = [project_to_steady_set(-field, simulated).point for field in fields.values]
        weights = np.random.default_rng(run.seed).dirichlet(np.ones(len(states)), size=50)
        residuals = [
            float(steady_residual_sup(0.0, np.ascontiguousarray(w @ np.array(states)), meant)) for w in weights
        ]
        return {"residual": np.array(residuals)}

    residual = run.once("steady_mixtures", mixtures, inputs=(fields.values, config.planted))["residual"]
    run.at_most(
        "ReLU: residual of 50 random mixtures of steady states",
        1e-8,
        float(residual.max()),
        reason="tolerance of the projections onto the steady set",
    )


def selection_of_fields(config: Config, run: RunFile, fields: Fields) -> None:
    """Kernel w == -kappa, ReLU, the fields as biases: the brightest labels are selected, at rate kappa q(argmax)."""
    predicted, measured = [], []
    for i, bias in enumerate(fields.values):
        model = SpaceTimeNetwork(constant(fields.grid, -config.kappa, config.planted), "relu", bias)
        brightest = bias == bias.max()
        rate = config.kappa * float(fields.grid.weights[brightest].sum())
        # The brightest are alone once the largest activation is below the gap to the next label.
        gap = float((bias.max() - bias[~brightest]).min())
        alone = np.log(bias.max() / gap) / rate
        end = alone + 3.0 / rate
        solution = run.integrate(
            f"selection_{i}",
            model,
            np.zeros(fields.grid.n_nodes),
            (0.0, end),
            n_steps=200 * int(np.ceil(end / 10)),
            save_at=200,
            probes={
                "largest": Probe(lambda t, y, m: m.preactivation(t, y).max(), long_name="largest activation"),
                "active": Probe(active_fraction, long_name="active fraction"),
            },
        ).raise_for_status()
        t, largest = solution.probes["largest"]
        predicted.append(rate)
        measured.append(-fit_exponential(t, largest, window=(alone, end)).slope)
    worst = int(np.argmax(np.abs(np.array(measured) / predicted - 1)))
    run.near(
        f"selection of the brightest labels, {fields.names[worst]}: late decay rate",
        predicted[worst],
        measured[worst],
        tolerance=0.005,
        reason="kappa x weight of the brightest labels, linear once they are alone; worst field",
    )


@dataclass(frozen=True)
class LawRun:
    """Largest activation, number of active labels and gain at the peak over depth, and the last field."""

    t: np.ndarray
    largest: np.ndarray
    active: np.ndarray
    peak: np.ndarray
    final: np.ndarray

    def error(self, law: exact.SelectionLaw, until: float = np.inf) -> float:
        """Largest relative error of the largest activation while 32 labels are active."""
        seen = self.resolved & (self.t <= until)
        return relative(self.largest[seen], law.largest_activation(self.t[seen]))

    @property
    def resolved(self) -> np.ndarray:
        """Depths at which the active set is still resolved."""
        return np.asarray(self.active >= 32)


def law_run(config: Config, run: RunFile, label: str, grid: Grid, law: exact.SelectionLaw, end: float) -> LawRun:
    """Simulate u0 = M - c |x - x*|^p, w == -kappa, ReLU, with x* a label next to the middle."""
    nodes = grid.nodes.reshape(grid.n_nodes, -1)
    centre = int(np.argmin(((nodes - 0.5) ** 2).sum(axis=1)))
    distance = np.sqrt(((nodes - nodes[centre]) ** 2).sum(axis=1))
    model = SpaceTimeNetwork(
        constant(grid, -law.kappa, config.planted), "relu", law.peak - law.curvature * distance**law.exponent
    )
    solution = run.integrate(
        label,
        model,
        np.zeros(grid.n_nodes),
        (0.0, end),
        n_steps=int(20 * end),
        probes={
            "largest": Probe(lambda t, y, m: m.preactivation(t, y)[centre], every=10, long_name="largest activation"),
            "active": Probe(lambda t, y, m: (m.preactivation(t, y) > 0).sum(), every=10, long_name="active labels"),
            "peak": Probe(lambda t, y, m: y[centre], every=10, long_name="gain at the peak"),
        },
    ).raise_for_status()
    columns = [solution.probes[name][1] for name in ("largest", "active", "peak")]
    return LawRun(solution.probes["peak"][0], *columns, solution.final)


def selection_law(config: Config, run: RunFile) -> None:
    """Largest activation against its law: bounded gain for p > D, concentration for p <= D."""
    line = exact.SelectionLaw(peak=1.0, curvature=8.0, kappa=config.kappa, exponent=2.0, dim=1)
    n = config.n_line
    # Beyond 4,096 labels the error is that of the steps in depth, so the order in N is measured up to there.
    small = min(n, 4096)
    sizes = sorted({small // 4, small, n})
    runs = {k: law_run(config, run, f"law_line_{k}", Grid.interval(k), line, 80.0) for k in sizes}
    coarse, middle, fine = runs[small // 4], runs[small], runs[n]
    reason = "while at least 32 labels are active"
    run.at_most(
        f"selection law on the line, N = {n}: relative error of the largest activation",
        1e-3,
        fine.error(line),
        reason=reason,
    )
    both = float(coarse.t[coarse.resolved][-1])
    run.at_most(
        f"selection law on the line: error at N = {small} over error at N/4, same depths",
        0.2,
        middle.error(line, both) / coarse.error(line, both),
        reason="second order in N would give 1/16",
    )
    run.near(
        "p = 2 > D = 1: the gain at the peak, which stays bounded",
        float(line.peak_gain(fine.t[fine.resolved])[-1]),
        float(fine.peak[fine.resolved][-1]),
        tolerance=0.002,
        reason=reason,
    )
    plane, grid = exact.SelectionLaw(peak=1.0, curvature=8.0, kappa=config.kappa, dim=2), Grid.square(config.n_plane)
    end = 40.0
    spread = law_run(config, run, "law_plane", grid, plane, end)
    run.near(
        "p = 2 = D: the gain at the peak grows as log depth (concentration)",
        float(plane.peak_gain(spread.t[spread.resolved])[-1]),
        float(spread.peak[spread.resolved][-1]),
        tolerance=0.01,
        reason=reason,
    )
    run.near(
        "p = 2 = D: the mass gained, which stays bounded",
        float(plane.mass_gain(end)),
        float(grid.integrate(spread.final)),
        tolerance=0.005,
        reason="the same run",
    )


def run(config: Config, run_file: RunFile) -> None:
    """Every section in turn."""
    fields = load(config)
    selection_of_fields(config, run_file, fields)
    selection_law(config, run_file)
    constant_kernel(config, run_file, fields)
    convolution(config, run_file, fields)
    algebraic_decay(config, run_file)
    energies(config, run_file, fields)
    stability(config, run_file, fields)
    steady_set(config, run_file, fields)


def figure(run: Run, path: Path) -> None:
    """Six panels: selection in a digit, the selection law, energies, decay, stability, gain at the peak."""
    with style() as plt:
        drawing = plt.figure(figsize=(12.5, 9.2), layout="constrained")
        top, bottom = drawing.subfigures(2, 1, height_ratios=[0.62, 2.0])
        draw_selection(top, run)
        axes = bottom.subplots(2, 3)
        draw_law(axes[0, 0], axes[0, 1], run)
        draw_energies(axes[0, 2], run)
        draw_decay(axes[1, 0], run)
        draw_stability(axes[1, 1], run)
        draw_steady(axes[1, 2], run)
        save(drawing, path)


def draw_selection(frame: Any, run: Run) -> None:
    """Draw one field selecting its brightest labels: the bias, then the activation gained since."""
    series = run.series["selection_0"]
    z, t, bias = series["z"], series["time"], series["bias"]
    side = round(len(bias) ** 0.5)
    shown = [0, *np.searchsorted(t, t[-1] * np.array([0.03, 0.1, 0.25, 0.5, 1.0]) - 1e-9)]
    panels = frame.subplots(1, len(shown))
    frame.suptitle("Selection: under uniform inhibition only the brightest labels of a field stay active", fontsize=11)
    for panel, k in zip(panels, shown, strict=True):
        if side * side == len(bias):
            panel.imshow((bias if k == 0 else z[k]).reshape(side, side), cmap="magma", vmin=0)
            panel.set(xticks=[], yticks=[])
        else:
            panel.plot(bias if k == 0 else z[k])
        active = series["active"][k]
        panel.set_title("bias b" if k == 0 else f"z at depth {t[k]:.1f}, {100 * active:.0f} % active", fontsize=8.5)


def draw_law(left: Any, right: Any, run: Run) -> None:
    """Draw largest activation and gain at the peak on line and square, over the law."""
    kappa, n = run.config["kappa"], run.config["n_line"]
    for i, (label, dim, words) in enumerate(
        ((f"law_line_{n}", 1, f"line, N = {n}"), ("law_plane", 2, f"square, N = {run.config['n_plane']}²"))
    ):
        series = run.series[label]
        t, law = series["time_every_10"], exact.SelectionLaw(peak=1.0, curvature=8.0, kappa=kappa, dim=dim)
        left.loglog(t[1:], series["largest"][1:], color=COLOURS[i], lw=4, alpha=0.35, label=words)
        left.loglog(t[1:], law.largest_activation(t[1:]), color=COLOURS[i], lw=1, ls="--")
        right.semilogx(t[1:], series["peak"][1:], color=COLOURS[i], lw=4, alpha=0.35, label=words)
        right.semilogx(t[1:], law.peak_gain(t[1:]), color=COLOURS[i], lw=1, ls="--")
    left.set(title="Largest activation δ(t): run and law (dashed)", xlabel="depth t", ylabel="δ")
    right.set(title="Gain at the peak: bounded (D = 1), concentration (D = 2)", xlabel="depth t", ylabel="z(x*) gained")
    for axis in (left, right):
        axis.legend()


def draw_energies(axis: Any, run: Run) -> None:
    """Draw energies over their start: conserved, decaying as predicted, decaying."""
    words = {"skew": "skew, tanh: conserved", "dissipative_skew": "-λI + skew, ReLU", "dissipative": "-A, tanh"}
    for i, (label, name) in enumerate(words.items()):
        series = run.series[label]
        values = series["energy"][:, series["energy"][0] > 0]
        values = values / values[0]
        axis.semilogy(series["time"], values, color=COLOURS[i], alpha=0.35, lw=3)
        axis.plot([], [], color=COLOURS[i], lw=3, label=name)
    t = run.series["dissipative_skew"]["time"]
    axis.semilogy(t, np.exp(-2 * run.config["decay"] * t), "k--", lw=1, label="exp(-2λt)")
    axis.set(title="Energy over its start, every sample", xlabel="depth t", ylabel="E(t)/E(0)", ylim=(1e-4, 3))
    axis.legend(loc="lower left")


def draw_decay(axis: Any, run: Run) -> None:
    """Draw algebraic decay over its finite sum."""
    series = run.series["algebraic_decay"]
    t = series["time"][1:]
    axis.loglog(t, series["norm"][1:], "o", ms=4, label="run")
    axis.loglog(t, exact.algebraic_decay(t, 1.0, 1.0, run.config["n_modes"]), "k-", lw=1, label="finite sum")
    axis.loglog(t, exact.algebraic_decay_constant(1.0, 1.0) ** 0.5 * t**-0.5, "k:", lw=1, label="t^(-1/2)")
    axis.set(title="Compact W: algebraic, not exponential", xlabel="depth t", ylabel="||z(t)||")
    axis.legend()


def draw_stability(axis: Any, run: Run) -> None:
    """Draw a small field under a leak, below and above the threshold of the kernel."""
    for i, factor in enumerate(FACTORS):
        series = run.series[threshold_label(factor)]
        t, norm = series["time"], series["norm"]
        axis.semilogy(t, norm, color=COLOURS[i], lw=4, alpha=0.35, label=f"{factor:g} of the threshold")
        axis.semilogy(
            t, norm[-1] * np.exp(run.config["leak"] * (factor - 1) * (t - t[-1])), color=COLOURS[i], lw=1, ls="--"
        )
    axis.set(title="Leak: growth of a small field, predicted slopes dashed", xlabel="depth t", ylabel="||z(t)||")
    axis.legend()


def draw_steady(axis: Any, run: Run) -> None:
    """Draw the residual on the way to the steady set of ReLU, and that of sigmoid, which has none."""
    words = {"relu_to_steady": "ReLU, W = -A", "constant_sigmoid": "sigmoid, w = -κ"}
    for i, (label, name) in enumerate(words.items()):
        series = run.series[label]
        values = np.where(series["residual"] > 0, series["residual"], np.nan)
        axis.semilogy(series["time"], values, color=COLOURS[i], alpha=0.5)
        axis.plot([], [], color=COLOURS[i], label=name)
    axis.set(title="Residual |σ(Wz + b)|: ReLU to 0, sigmoid never", xlabel="depth t", ylabel="sup residual")
    axis.legend()


EXPERIMENT = Experiment(
    name="selection_dynamics",
    config=Config,
    run=run,
    figure=figure,
    smoke={"n_fields": 3, "n_line": 2048, "n_plane": 64, "n_modes": 4096},
    full={"n_fields": 32, "side": 32, "n_line": 65536, "n_plane": 1024, "n_modes": 65536},
    references=(PAPER,),
    description=(__doc__ or "").split("\n")[0],
)


def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line."""
    return EXPERIMENT.main(argv)


if __name__ == "__main__":
    sys.exit(main())
