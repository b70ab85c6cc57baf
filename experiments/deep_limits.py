"""Deep limits of training: minima and minimisers over layers tend to those of the limit problem.

    python experiments/deep_limits.py [--smoke | --full] [--out PATH] [--resume PATH]

E_n = loss(X_n) + alpha (n sum |K_i - K_{i-1}|^2 + tau |K_0|^2) with X_{i+1} = X_i + (1/n) sigma(K_i X_i + b_i)
Gamma-converges to loss(X(1)) + alpha (int |K'|^2 + tau |K(0)|^2) with X' = sigma(K X + b). Sections: closed forms of
biases and weights; tanh against the Euler-Lagrange equations; two global minimisers; weights (-1)^i c sqrt n, whose
networks tend to another limit than that of their weak limit; recovery sequences; what smooths layers in training, and
what does not; training over depths; and whether a trained network has a limit of depth at all.

`--planted 0.05` simulates targets, amplitudes and strengths that are 5 % off while the predictions stay. It makes the
verdicts fail that compare with closed forms or with the solution of the limit; those of `BLIND` are rates, orders and
comparisons that hold for any target.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

from meanfield.config import option
from meanfield.controls import Controls
from meanfield.data import moons
from meanfield.diagnostics.depth_distance import free_distance, tl2_distance, tl_sup_distance
from meanfield.diagnostics.rates import fit_exponential, fit_rate
from meanfield.diagnostics.roughness import forward_gap, roughness
from meanfield.exact_learning import DeepBias, DeepWeight, alternating_output, penalty_modes
from meanfield.experiment import CONSEQUENCE, Experiment, RunFile
from meanfield.integration import integrate
from meanfield.learning.boundary_value import Extremal, extremal
from meanfield.learning.gradient_flow import GradientFlow
from meanfield.learning.multilevel import multilevel
from meanfield.learning.quasi_newton import Optimum, minimise
from meanfield.learning.training import Training
from meanfield.losses import Logistic, Readout, Squared
from meanfield.models.residual import ResidualNetwork
from meanfield.plotting import COLOURS, save, style
from meanfield.regularizers import DepthH1, DepthL2, Regularizer
from meanfield.storage.reader import Run
from meanfield.velocities import Velocity
from meanfield.verdict import Verdict

PAPER = "Thorpe, van Gennip, Deep limits of residual neural networks, arXiv 1810.11741"
# Closed forms: input, target, alpha, tau.
BIAS = DeepBias(1.3, -0.4, 0.2, 0.7)
WEIGHT = DeepWeight(0.8, 2.0, 0.3, 0.9)
# Two global minimisers: input, alpha, tau; the target is where both have the same energy.
FAR = (0.05, 3.0, 1.0)
# A curve of five data for tanh, and the penalty of both parameters.
X, Y = np.array([[-1.0, -0.4, 0.1, 0.6, 1.2]]), np.array([-0.2, 0.1, 0.5, 1.1, 1.2])
CURVE = DepthH1(1e-2, 1.0)
# Weights that alternate, and what is added to recovery sequences.
AMPLITUDE, RIPPLE = 1.2, 0.7
# Training time: smoothing by alpha, shrinking by lam.
ALPHA, LAM, TAU, TIME = 0.05, 0.1, 1.0, 4.0

BLIND = ("alternating weights: distance", "ripples", "roughness", "multilevel", "own network")
"""Beginnings of the claims that planted errors leave true."""


@dataclass(frozen=True)
class Config:
    """Parameters of the experiment; all are pure numbers."""

    deepest: int = option(2048, "layers of the deepest networks, a power of two", least=256, most=16_384)
    rough_layers: int = option(64, "layers of networks that are trained by gradient flow", least=16, most=1024)
    own_layers: int = option(256, "layers of the deepest networks whose roughness is measured", least=64, most=1024)
    planted: float = option(0.0, "relative error planted in what is simulated, to see verdicts fail")


def depths(config: Config, first: int) -> list[int]:
    """Numbers of layers, powers of two."""
    return [2**k for k in range(int(math.log2(first)), int(math.log2(config.deepest)) + 1)]


def scalar(
    n: int,
    sigma: str,
    x: Any,
    y: Any,
    penalty: Regularizer | None,
    *,
    w: Any = None,
    b: Any = None,
) -> Training:
    """Scalar network of n layers sigma(w x + b); parameters with a start, a number or n of them, are trained."""
    knots, parts = np.linspace(0.0, 1.0, n + 1), {}
    for name, start, shape in (("w", w, (1, 1)), ("b", b, (1,))):
        if start is not None:
            values = np.broadcast_to(np.reshape(start, (-1, *(1 for _ in shape))), (n, *shape))
            parts[name] = Controls(knots, np.array(values, dtype=np.float64))
    network = ResidualNetwork(Velocity.outside(sigma, parts.get("w", 0.0), parts.get("b", 0.0)), np.shape(x)[1])
    penalties = {} if penalty is None else dict.fromkeys(parts, penalty)
    return Training(network, x, Squared(y), (0.0, 1.0), n, regularizers=penalties, trained=tuple(parts))


def linear(n: int, exact: DeepBias | DeepWeight, y: float, start: float = 0.0) -> Training:
    """E_n/2 of a closed form, for a target y."""
    name = "b" if isinstance(exact, DeepBias) else "w"
    return scalar(n, "identity", [[exact.x]], [y], DepthH1(0.5 * exact.alpha, exact.tau), **{name: start})


def curve(n: int, planted: float) -> Training:
    """Five data, tanh(w x + b)."""
    return scalar(n, "tanh", X, Y * (1 + planted), CURVE, w=0.0, b=0.0)


def extrapolated(values: Any) -> float:
    """Limit of values with an expansion in 1/n, from those at the last three n, each twice the one before."""
    coarse, middle, fine = np.asarray(values, dtype=np.float64)[-3:]
    return float((4 * (2 * fine - middle) - (2 * middle - coarse)) / 3)


def judge_slope(
    run: RunFile, claim: str, n: Any, error: Any, expected: float, tolerance: float = 0.05, source: str = PAPER
) -> None:
    """Judge the power of 1/n at which an error falls over the four largest n, and name its confidence interval."""
    fit = fit_rate(1 / np.asarray(n[-4:], dtype=np.float64), error[-4:])
    run.near(f"{claim} (95 %: {fit.low:.4f} .. {fit.high:.4f})", expected, fit.slope, tolerance=tolerance,
             relative=False, reason="terms of the next order in 1/n", source=source)  # fmt: skip


def biases(config: Config, run: RunFile) -> None:
    """Closed form of biases at every number of layers."""
    sizes = [*range(1, 9), *depths(config, 16)]

    def table() -> dict[str, np.ndarray]:
        columns: dict[str, list[float]] = {"n": [], "energy": [], "exact": [], "gap": []}
        for n in sizes:
            problem = linear(n, BIAS, BIAS.y * (1 + config.planted))
            found = minimise(problem, tolerance=1e-11).raise_for_status()
            gap = np.abs(found.model.parameters["b"].values[:, 0] / BIAS.biases(n) - 1).max()
            for name, value in zip(columns, (n, 2 * found.value, BIAS.energy(n), gap), strict=True):
                columns[name].append(float(value))
        return {name: np.array(column) for name, column in columns.items()}

    found = run.once("biases", table, (sizes, config.planted))
    off = float(np.abs(found["energy"] / found["exact"] - 1).max())
    run.at_most(f"biases: min E_n is (x - y)^2/(1 + k_n) at {len(sizes)} depths from 1 (relative)", 1e-13, off,
                reason="round-off", source=PAPER)  # fmt: skip
    run.at_most("biases: the minimiser is that of the closed form at every depth (relative)", 1e-9,
                float(found["gap"].max()), reason="|grad J| <= 1e-11 over the curvature", source=PAPER)  # fmt: skip
    scaled = (found["n"] * (found["energy"] - BIAS.energy()))[-3:]
    run.near("biases: n (min E_n - min E) -> r^2/(2 alpha)", BIAS.depth_constant, extrapolated(scaled),
             tolerance=0.001, reason="two orders of 1/n removed", source=PAPER)  # fmt: skip


def distances(layers: Controls, limit: Callable[[float], Any]) -> dict[str, float]:
    """Distances of layers from a limit, by name of a column."""
    return {"tl2": tl2_distance(layers, limit), "sup": tl_sup_distance(layers, limit)}


def as_columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """Columns of a table from its rows."""
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}


def weights(config: Config, run: RunFile) -> None:
    """Linear weights: constants of 1/n, and slopes of energy and minimiser."""
    sizes, limit = depths(config, 16), WEIGHT.optimum()

    def table() -> dict[str, np.ndarray]:
        found = multilevel(lambda n: linear(n, WEIGHT, WEIGHT.y * (1 + config.planted)), sizes, tolerance=1e-10)
        rows = []
        for n, optimum in zip(sizes, found.raise_for_status().optima, strict=True):
            own = distances(optimum.model.parameters["w"], lambda t: WEIGHT.weights(t).reshape(1, 1))
            rows.append({"n": n, "energy": 2 * optimum.value, "gap": abs(2 * optimum.value - limit.energy), **own})
        return as_columns(rows)

    found = run.once("weights", table, (sizes, config.planted))
    run.near("weights: n (min E_n - min E) -> -g [K(1) - K(0) + int K^2]", WEIGHT.depth_constant(),
             extrapolated(found["n"] * (found["energy"] - limit.energy)), tolerance=0.01,
             reason="two orders of 1/n removed; 1 % asked for", source=PAPER)  # fmt: skip
    run.near("weights: min E_n, extrapolated in 1/n, is min E", limit.energy, extrapolated(found["energy"]),
             tolerance=1e-4, reason="n^-3", source=PAPER)  # fmt: skip
    judge_slope(run, "weights: slope of |min E_n - min E|", sizes, found["gap"], 1.0)
    judge_slope(run, "weights: slope of the TL2 distance", sizes, found["tl2"], 1.0)
    judge_slope(run, "weights: slope of the sum of squares int |K_i - K|^2", sizes, found["tl2"] ** 2, 2.0, 0.1)
    judge_slope(run, "weights: slope of the largest distance", sizes, found["sup"], 1.0)


@functools.cache
def limit_of_curve() -> Extremal:
    """Solution of the limit problem of five data, from layers near it."""
    near = multilevel(lambda n: curve(n, 0.0), (8, 32), tolerance=1e-7)
    return extremal(curve(32, 0.0), near.optima[-1], tolerance=1e-10).raise_for_status()


def nonlinear(config: Config, run: RunFile) -> None:
    """Minima of tanh with five data against the Euler-Lagrange equations of the limit."""
    sizes, shown = depths(config, 8), 16

    def limit_table() -> dict[str, np.ndarray]:
        limit, t = limit_of_curve(), np.linspace(0, 1, 201)
        return {"t": t, "w": limit.parameters["w"](t)[:, 0, 0], "b": limit.parameters["b"](t)[:, 0],
                "energy": np.full(t.shape, limit.energy)}  # fmt: skip

    def table() -> dict[str, np.ndarray]:
        limit, rows = limit_of_curve(), []
        found = multilevel(lambda n: curve(n, config.planted), sizes, tolerance=1e-9).raise_for_status()
        for n, optimum in zip(sizes, found.optima, strict=True):
            row = {"n": n, "energy": optimum.value, "gap": abs(optimum.value - limit.energy)}
            for name in "wb":
                own = distances(optimum.model.parameters[name], limit.parameters[name])
                row |= {f"{kind}_{name}": value for kind, value in own.items()}
            rows.append(row)
        return as_columns(rows)

    def few_layers() -> dict[str, np.ndarray]:
        optimum = minimise(curve(shown, config.planted), tolerance=1e-9)
        return {name: optimum.model.parameters[name].values.ravel() for name in "wb"}

    reference = run.once("limit_of_tanh", limit_table)
    found = run.once("tanh", table, (sizes, config.planted))
    run.once("tanh_few_layers", few_layers, (shown, config.planted))
    energy = float(reference["energy"][0])
    run.near("tanh, five data: min E_n, extrapolated in 1/n, is the energy of the Euler-Lagrange solution", energy,
             extrapolated(found["energy"]), tolerance=1e-6, reason="n^-3", source=PAPER)  # fmt: skip
    for name in "wb":
        judge_slope(run, f"tanh, five data: slope of the TL2 distance of {name}", sizes, found[f"tl2_{name}"], 1.0)
        judge_slope(run, f"tanh, five data: slope of the largest distance of {name}", sizes, found[f"sup_{name}"], 1.0)
    judge_slope(run, "tanh, five data: slope of |min E_n - min E|", sizes, found["gap"], 1.0)


def both_minimisers() -> tuple[DeepWeight, tuple[tuple[str, Any], ...]]:
    """Closed form with two global minimisers, and these by name."""
    targets = DeepWeight.bistable_targets(*FAR)
    assert targets is not None
    exact = DeepWeight(FAR[0], targets.equal, *FAR[1:])
    near, _, far = exact.points()
    return exact, (("near", near), ("far", far))


def minimum(n: int, exact: DeepWeight, y: float, name: str, near: Optimum | None = None) -> Optimum:
    """Minimum over n layers near one of both minimisers, from a constant on its side or from an optimum."""
    problem = linear(n, exact, y, {"near": 0.0, "far": 4.0}[name])
    return minimise(problem, None if near is None else near.flat, tolerance=1e-7).raise_for_status()


def two_minimisers(config: Config, run: RunFile) -> None:
    """Both global minimisers of a limit."""
    (exact, points), sizes = both_minimisers(), depths(config, 64)
    y = exact.y * (1 + config.planted)

    def table() -> dict[str, np.ndarray]:
        rows = []
        for n in sizes:
            row: dict[str, float] = {"n": n}
            for name, point in points:
                optimum = minimum(n, exact, y, name)
                limit = lambda t, point=point: exact.weights(t, point).reshape(1, 1)  # noqa: E731
                row |= {f"energy_{name}": 2 * optimum.value,
                        f"tl2_{name}": tl2_distance(optimum.model.parameters["w"], limit)}  # fmt: skip
            rows.append(row)
        return as_columns(rows)

    def few_layers() -> dict[str, np.ndarray]:
        return {name: minimum(sizes[0], exact, y, name).model.parameters["w"].values.ravel() for name, _ in points}

    run.once("two_minimisers_layers", few_layers, (sizes[0], config.planted))
    found = run.once("two_minimisers", table, (sizes, config.planted))
    for name, point in points:
        words = f"{name} one, I = {point.integral:.4f}"
        energies = found[f"energy_{name}"]
        run.near(f"two global minimisers: min E_n -> E, {words}", point.energy, extrapolated(energies),
                 tolerance=1e-4, reason="n^-3", source=PAPER)  # fmt: skip
        run.near(f"two global minimisers: n (E_n - E) -> -g [K(1) - K(0) + int K^2], {words}",
                 exact.depth_constant(point), extrapolated(found["n"] * (energies - point.energy)),
                 tolerance=0.01, reason="two orders of 1/n removed", source=PAPER)  # fmt: skip
        judge_slope(run, f"two global minimisers: slope of the TL2 distance, {words}", sizes, found[f"tl2_{name}"],
                    1.0, 0.1)  # fmt: skip


def ties(config: Config, run: RunFile) -> None:
    """Targets at which both minima of n layers agree, by Newton steps: d min E_n/dy = 2 (y - X_n)."""
    (exact, points), sizes = both_minimisers(), depths(config, 64)
    near, far = (point for _, point in points)

    def table() -> dict[str, np.ndarray]:
        rows = []
        for n in sizes:
            y, found = exact.y, {name: None for name, _ in points}
            for _ in range(6):
                found = {name: minimum(n, exact, y * (1 + config.planted), name, old) for name, old in found.items()}
                outputs = [float(output_of(optimum)[0, 0]) for optimum in found.values()]
                step = (found["far"].value - found["near"].value) / (outputs[1] - outputs[0])
                y += step
                if abs(step) < 1e-9 * y:
                    break
            rows.append({"n": n, "target": y, "energy": 2 * found["near"].value})
        return as_columns(rows)

    found = run.once("ties", table, (sizes, config.planted))
    constant = (exact.depth_constant(far) - exact.depth_constant(near)) / (
        2 * exact.x * (math.exp(far.integral) - math.exp(near.integral))
    )
    run.near("two global minimisers: n layers have two at y_n, n (y_n - y) -> (c_far - c_near)/(2 (X_far - X_near))",
             constant, extrapolated(found["n"] * (found["target"] - exact.y)), tolerance=0.01,
             reason="two orders of 1/n removed")  # fmt: skip


def output_of(optimum: Optimum) -> np.ndarray:
    """Activations after the last layer of a scalar network that starts from `FAR`."""
    knots = optimum.model.parameters["w"].knots
    return integrate(optimum.model, np.array([[FAR[0]]]), (0.0, 1.0), scheme="euler", n_steps=len(knots) - 1).final


def alternating(config: Config, run: RunFile) -> None:
    """Weights (-1)^i c sqrt n: no bound of their penalty, another limit than that of their weak limit 0."""
    sizes, x, c = depths(config, 16), 1.0, AMPLITUDE * (1 + config.planted)

    def table() -> dict[str, np.ndarray]:
        rows = []
        for n in sizes:
            problem = scalar(n, "identity", [[x]], [0.0], None, w=(-1.0) ** np.arange(n) * c * math.sqrt(n))
            layers = problem.model.parameters["w"]
            end = integrate(problem.model, np.array([[x]]), (0.0, 1.0), scheme="euler", n_steps=n).final
            zero = Controls(layers.knots, np.zeros_like(layers.values))
            free = free_distance(layers, zero) if n <= 256 else None
            rows.append({
                "n": n, "output": float(end[0, 0]), "exact": alternating_output(x, AMPLITUDE, n),
                "penalty": DepthH1(1.0, 1.0).value(layers.values, layers.knots),
                "integral": float(abs(layers.values.mean())), "tl2": tl2_distance(layers, zero),
                "free": math.nan if free is None else free.distance,
            })  # fmt: skip
        return as_columns(rows)

    found = run.once("alternating", table, (sizes, config.planted))
    limit = alternating_output(x, AMPLITUDE)
    off = float(np.abs(found["output"] / found["exact"] - 1).max())
    run.at_most("alternating weights: X_n is x (1 - c^2/n)^(n/2) at every n (relative)", 1e-12, off,
                reason="round-off", source=PAPER)  # fmt: skip
    run.near("alternating weights: X_n -> x exp(-c^2/2), not the x of their weak limit 0", limit,
             extrapolated(found["output"]), tolerance=1e-3, reason="n^-3", source=PAPER)  # fmt: skip
    penalty = 4 * AMPLITUDE**2 * found["n"] ** 2 * (found["n"] - 1) + AMPLITUDE**2 * found["n"]
    run.at_most("alternating weights: penalty 4 c^2 n^2 (n - 1) + c^2 n without bound (relative)", 1e-12,
                float(np.abs(found["penalty"] / penalty - 1).max()), reason="round-off", source=PAPER)  # fmt: skip
    judge_slope(run, "alternating weights: distance from the weak limit grows as sqrt n, slope", sizes, found["tl2"],
                -0.5)  # fmt: skip


def energy_of_functions() -> float:
    """J of w(t) = 0.8 + sin 3t and b(t) = cos 2t in the limit: an ordinary differential equation and two integrals."""

    def rate(t: float, x: np.ndarray) -> np.ndarray:
        return np.tanh((0.8 + math.sin(3 * t)) * x + math.cos(2 * t))

    end = solve_ivp(rate, (0.0, 1.0), X[0], method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    rise = 9 * (0.5 + math.sin(6.0) / 12) + 4 * (0.5 - math.sin(4.0) / 8)
    return Squared(Y).value(end[None]) + CURVE.strength * (rise + CURVE.tau * (0.8**2 + 1.0))


def recovery(config: Config, run: RunFile) -> None:
    """Layers of a function of depth have its energy in the limit; sequences that come near it have no less."""
    sizes, target = depths(config, 16), Y * (1 + config.planted)
    limit = energy_of_functions()
    rough = {"1.5": 1.5, "1": 1.0, "0.5": 0.5}

    def energy(n: int, values: str, ripple: float = 0.0) -> float:
        knots = np.linspace(0.0, 1.0, n + 1)
        w = Controls.layers(lambda t: 0.8 + math.sin(3 * t), knots, values).values + ripple * (-1.0) ** np.arange(n)
        b = Controls.layers(lambda t: math.cos(2 * t), knots, values).values
        problem = scalar(n, "tanh", X, target, CURVE, w=w, b=b)
        return problem.objective(problem.start())[0]

    def table() -> dict[str, np.ndarray]:
        columns = {values: [energy(n, values) for n in sizes] for values in ("start", "middle", "mean")}
        columns |= {f"ripple_{name}": [energy(n, "start", RIPPLE / n**g) for n in sizes] for name, g in rough.items()}
        return {name: np.array(column) for name, column in {"n": [float(n) for n in sizes], **columns}.items()}

    found = run.once("recovery", table, (sizes, config.planted))
    for values in ("start", "middle", "mean"):
        run.near(f"recovery sequence, {values} of layers: E_n -> E", limit, extrapolated(found[values]),
                 tolerance=1e-4, reason="n^-3", source=PAPER)  # fmt: skip
        judge_slope(run, f"recovery sequence, {values} of layers: slope of |E_n - E|", sizes,
                    np.abs(found[values] - limit), 1.0)  # fmt: skip
    jumps = 4 * CURVE.strength * RIPPLE**2
    for name, more in (("1.5", 0.0), ("1", jumps)):
        run.near(f"recovery sequence with (-1)^i r/n^{name}, 0 in TL2: E_n -> E + {'4 alpha r^2' if more else '0'}",
                 limit + more, extrapolated(found[f"ripple_{name}"]), tolerance=1e-3, reason="n^-3",
                 source=PAPER)  # fmt: skip
    judge_slope(run, "ripples (-1)^i r/sqrt n, 0 in TL2: E_n grows as n, slope", sizes, found["ripple_0.5"] - limit,
                -1.0, 0.1)  # fmt: skip
    least = min(extrapolated(found[name]) for name in found if name != "n")
    run.verdict(Verdict.at_least("liminf: no sequence has less energy than its limit", limit * (1 - 1e-4), least,
                                 reason="n^-3", source=PAPER))  # fmt: skip


def modes_of_the_penalty(config: Config, run: RunFile) -> None:
    """Decay of the modes of the penalty in training time: the flow of alpha R alone, as x = 0 leaves no loss."""
    mu, sizes, span = penalty_modes(TAU, 6), (10, 20, 40), 0.8
    strength = ALPHA * (1 + config.planted)

    def table() -> dict[str, np.ndarray]:
        rates = []
        for n in sizes:
            shapes = np.cos(mu * (1.0 - (np.arange(n) + 0.5)[:, None] / n))
            problem = scalar(n, "identity", [[0.0]], [0.0], DepthH1(strength, TAU), w=shapes[:, :3].sum(axis=1))
            flow = GradientFlow(problem)
            way = integrate(flow, flow.initial(), (0.0, span), save_at=8, rtol=1e-7)
            parts = np.linalg.lstsq(shapes, way.fields["w"].T, rcond=None)[0]
            rates.append([-fit_exponential(way.t, part).slope for part in parts[:3]])
        return {"mu": mu[:3]} | {f"n_{n}": np.array(row) for n, row in zip(sizes, rates, strict=True)}

    found = run.once("modes", table, (sizes, config.planted))
    for j, m in enumerate(mu[:3].tolist()):
        run.near(f"H1: mode {j + 1} decays as exp(-2 alpha mu^2 s), mu tan mu = tau", 2 * ALPHA * m * m,
                 extrapolated([found[f"n_{n}"][j] for n in sizes]), tolerance=0.01,
                 reason="two orders of 1/n removed", source=PAPER)  # fmt: skip


def rough_start(config: Config, run: RunFile) -> None:
    """Independent layers at the start: what the H1 penalty, the L2 penalty and none make of them."""
    n, rng = config.rough_layers, np.random.default_rng(run.seed)
    w, b = rng.standard_normal((2, n))
    knots, found = np.linspace(0.0, 1.0, n + 1), {}
    for label, penalty in (("h1", DepthH1(ALPHA, TAU)), ("l2", DepthL2(LAM)), ("none", None)):
        flow = GradientFlow(scalar(n, "tanh", X, Y, penalty, w=w, b=b))
        way = run.integrate(f"flow_{label}", flow, flow.initial(), (0.0, TIME), save_at=40, rtol=1e-4)
        found[label] = [roughness(Controls(knots, row)) for row in way.fields["w"]]
        columns = {"s": way.t} | {key: np.array([getattr(r, key) for r in found[label]])
                                  for key in ("rms_jump", "independence", "slope")}  # fmt: skip
        run.once(f"roughness_{label}", lambda columns=columns: columns, (label, n, run.seed))
    jumps = {label: rows[-1].rms_jump / rows[0].rms_jump for label, rows in found.items()}
    run.at_most("roughness: with the H1 penalty independent layers end smooth, sum |jump|^2/(2 sum |w - mean|^2)",
                40.0 / n**2, found["h1"][-1].independence,
                reason="O(n^-2) on a curve: (pi k)^2/(2 n^2) for k half waves, k < 3")  # fmt: skip
    reason = "what the loss adds is smooth over depth, up to O(1/sqrt n)"
    run.near("roughness: with the L2 penalty jumps shrink as exp(-2 lam s) with all the rest",
             math.exp(-2 * LAM * TIME), jumps["l2"], tolerance=0.15, reason=reason)  # fmt: skip
    run.near("roughness: without a penalty jumps stay", 1.0, jumps["none"], tolerance=0.15, reason=reason)
    for label in ("l2", "none"):
        words = "the L2 penalty" if label == "l2" else "no penalty"
        kept = found[label][-1].independence / found[label][0].independence
        run.near(f"roughness: with {words} layers stay as independent as they were", 1.0, kept,
                 tolerance=2.0 / math.sqrt(n),
                 reason="correlation of random layers with what is smooth, two deviations")  # fmt: skip


def own(n: int, seed: int, *, rough: bool, penalty: Regularizer) -> Training:
    """Two moons, n blocks of four neurons, from independent layers or equal ones."""
    data, rng, knots = moons(60, noise=0.1, seed=1), np.random.default_rng(seed), np.linspace(0.0, 1.0, n + 1)
    starts = (rng.standard_normal((n if rough else 1, *shape)) for shape in ((2, 4), (4, 2), (4,)))
    velocity = Velocity.two_layer("tanh", *(Controls(knots, np.broadcast_to(s, (n, *s.shape[1:]))) for s in starts))
    return Training(
        ResidualNetwork(velocity, 60), np.ascontiguousarray(data.x.T), Logistic(2 * data.labels - 1), (0.0, 1.0), n,
        readout=Readout([[1.0, -1.0]]), regularizers=dict.fromkeys("vwb", penalty),
    )  # fmt: skip


def own_depths(config: Config, first: int) -> list[int]:
    """Numbers of blocks of networks for two moons."""
    return depths(replace(config, deepest=config.own_layers), first)


def gain(config: Config, run: RunFile) -> None:
    """Work of training over depths against that of a cold start, evaluations times layers."""
    penalty = DepthH1(1e-4)
    every = ("extrapolated", "interpolated", "repeated")
    cases: dict[str, tuple[Callable[[int], Training], list[int], float, tuple[str, ...]]] = {
        "curve": (lambda n: curve(n, 0.0), depths(config, 8), 1e-7, every),
        "moons": (lambda n: own(n, run.seed, rough=False, penalty=penalty), own_depths(config, 8), 1e-5, every[:1]),
    }
    for label, (problem, sizes, tolerance, carries) in cases.items():

        def table(
            problem: Any = problem, sizes: Any = sizes, tolerance: float = tolerance, carries: Any = carries
        ) -> dict[str, np.ndarray]:
            columns = {"n": np.array(sizes, dtype=np.float64)}
            for carry in carries:
                found = multilevel(problem, sizes, tolerance=tolerance, carry=carry, max_iterations=3000)
                found.raise_for_status()
                columns[carry] = found.evaluations.astype(np.float64)
                columns[f"energy_{carry}"] = found.energies
                columns[f"lost_{carry}"] = np.array([o.values[0] - o.value for o in found.optima])
            cold = minimise(problem(sizes[-1]), tolerance=tolerance, max_iterations=3000).raise_for_status()
            columns["cold"] = np.array([*(0 for _ in sizes[1:]), cold.evaluations], dtype=np.float64)
            return columns

        found = run.once(f"multilevel_{label}", table, (label, sizes, tolerance, run.seed))
        work = {carry: float(found[carry] @ found["n"]) for carry in carries}
        ratio = float(found["cold"][-1] * found["n"][-1]) / work["extrapolated"]
        words = ", ".join(f"{carry} {value:.0f}" for carry, value in work.items())
        where = f"multilevel, {label}, {sizes[-1]} layers"
        if label == "moons":
            run.verdict(Verdict.at_least(f"{where}: work of a cold start over that of all depths", 2.0, ratio,
                                         reason=f"a gain is a gain; evaluations times layers: {words}",
                                         source=CONSEQUENCE))  # fmt: skip
        # Where a cold start takes few steps at any depth, only those at the last depth become fewer.
        run.verdict(Verdict.at_least(f"{where}: evaluations from a cold start over those from fewer layers "
                                     f"(of the work at all depths {ratio:.2f})",
                                     1.5, float(found["cold"][-1] / found["extrapolated"][-1]),
                                     reason=f"a gain is a gain; evaluations times layers: {words}",
                                     source=CONSEQUENCE))  # fmt: skip


def own_network(config: Config, run: RunFile) -> None:
    """Whether trained layers have a limit of depth: smooth starts with the H1 penalty against independent layers."""
    sizes = own_depths(config, 16)
    h1, l2 = DepthH1(1e-3), DepthL2(1e-4)
    # From independent layers the coordinates of the H1 penalty take L-BFGS astray, those of L2 do not, but slowly.
    cases = {"h1": (False, h1, sizes, "auto"), "iid": (True, l2, sizes, "auto"), "iid_h1": (True, h1, sizes[:2], "l2")}

    def table(label: str) -> dict[str, np.ndarray]:
        rough, penalty, chosen, coordinates = cases[label]
        rows = []
        for n in chosen:
            problem = replace(own(n, run.seed, rough=rough, penalty=penalty), coordinates=coordinates)
            optimum = minimise(problem, tolerance=1e-4, max_iterations=3000).raise_for_status()
            gap = forward_gap(optimum.model.velocity, problem.x)
            found = [roughness(part) for part in optimum.model.parameters.values() if isinstance(part, Controls)]
            rows.append({
                "n": n, "gap": float(gap.gaps[-1]), "growth": gap.growth, "energy": optimum.value,
                "slope": max(r.slope for r in found), "independence": float(np.mean([r.independence for r in found])),
            })  # fmt: skip
        return as_columns(rows)

    smooth, rough, smoothed = (run.once(f"own_{label}", lambda label=label: table(label), (label, sizes, run.seed))
                               for label in cases)  # fmt: skip
    judge_slope(run, "own network, H1: distance from itself with more layers falls as 1/n, slope", sizes[-3:],
                smooth["gap"][-3:], 1.0, 0.1)  # fmt: skip
    run.near("own network, H1: that distance grows by 3/2 from 2 to 4 parts of a layer", 1.5,
             float(smooth["growth"][-1]), tolerance=0.02, reason="O(1/n)")  # fmt: skip
    run.near("own network, H1: the largest n |jump| is the same at twice the layers", 1.0,
             float(smooth["slope"][-1] / smooth["slope"][-2]), tolerance=0.05, reason="O(1/n)")  # fmt: skip
    count = len(smoothed["n"])
    gaps = np.abs(smoothed["gap"] / smooth["gap"][:count] - 1)
    run.at_most("own network, H1: from independent layers the same distances from itself (relative)", 0.05,
                float(gaps.max()), reason="the same minimum up to the order of neurons, |grad J| <= 1e-4")  # fmt: skip
    judge_slope(run, "own network, independent layers: distance from itself does not fall, slope", sizes, rough["gap"],
                0.0, 0.4)  # fmt: skip
    run.near("own network, independent layers: jumps are those of independent layers", 1.0,
             float(rough["independence"][-1]), tolerance=0.25,
             reason="random layers, of which training moves a part")  # fmt: skip


SECTIONS: tuple[Callable[[Config, RunFile], None], ...] = (
    biases, weights, nonlinear, two_minimisers, ties, alternating, recovery, modes_of_the_penalty, rough_start, gain,
    own_network,
)  # fmt: skip


def run(config: Config, run_file: RunFile) -> None:
    """Every section in turn."""
    for section in SECTIONS:
        section(config, run_file)


def figure(run: Run, path: Path) -> None:
    """Eight panels: minimisers over depth, convergence, two minimisers; what has no limit; training, own networks."""
    drawers = (
        draw_minimisers, draw_convergence, draw_two, draw_two_convergence, draw_alternating, draw_recovery,
        draw_roughness, draw_own,
    )  # fmt: skip
    with style() as plt:
        drawing, axes = plt.subplots(2, 4, figsize=(16.5, 7.4), layout="constrained")
        for axis, draw in zip(axes.flat, drawers, strict=True):
            draw(axis, run)
        save(drawing, path)


def over_layers(axis: Any, n: np.ndarray, **words: Any) -> None:
    """Axes of a panel over the number of layers."""
    axis.set(xlabel="layers n", xscale="log", **words)
    axis.set_xticks(n, [f"{int(v)}" for v in n])
    axis.minorticks_off()
    axis.legend(fontsize=7)


def draw_minimisers(axis: Any, run: Run) -> None:
    """Draw the minimiser of tanh over depth, few layers and the limit."""
    limit, layers = run.tables["limit_of_tanh"], run.tables["tanh_few_layers"]
    edges = np.linspace(0, 1, len(layers["w"]) + 1)
    for i, name in enumerate("wb"):
        axis.plot(limit["t"], limit[name], color=COLOURS[i], label=f"{name}, Euler-Lagrange equations")
        axis.stairs(layers[name], edges, baseline=None, color=COLOURS[i], lw=0.9, ls="--",
                    label=f"{name}, {len(layers[name])} layers")  # fmt: skip
    axis.set(title="Minimisers of tanh, five data", xlabel="depth t", ylabel="parameter")
    axis.legend(fontsize=7)


def draw_convergence(axis: Any, run: Run) -> None:
    """Draw energies and distances over the number of layers."""
    linear_table, tanh_table = run.tables["weights"], run.tables["tanh"]
    curves = (
        (linear_table, "gap", "|min E_n - min E|, linear", "o"),
        (linear_table, "tl2", "TL2 distance of K, linear", "s"),
        (tanh_table, "gap", "|min E_n - min E|, tanh", "^"),
        (tanh_table, "tl2_w", "TL2 distance of w, tanh", "v"),
    )
    for i, (table, name, words, mark) in enumerate(curves):
        axis.loglog(table["n"], table[name], mark, ms=4, color=COLOURS[i], label=words)
        axis.loglog(table["n"], table[name][-1] * table["n"][-1] / table["n"], color=COLOURS[i], lw=0.8)
    over_layers(axis, tanh_table["n"], title="Convergence; lines have slope -1", ylabel="distance", yscale="log")


def draw_two(axis: Any, run: Run) -> None:
    """Draw both minimisers over depth, few layers and the limit."""
    exact, points = both_minimisers()
    layers, t = run.tables["two_minimisers_layers"], np.linspace(0, 1, 201)
    edges = np.linspace(0, 1, len(layers["near"]) + 1)
    for i, (name, point) in enumerate(points):
        axis.plot(t, exact.weights(t, point), color=COLOURS[i], label=f"limit, energy {point.energy:.3f}")
        axis.stairs(layers[name], edges, baseline=None, color=COLOURS[i], lw=0.9, ls="--",
                    label=f"{len(layers[name])} layers")  # fmt: skip
    axis.set(title=f"Two global minimisers, y = {exact.y:.4f}", xlabel="depth t", ylabel="K")
    axis.legend(fontsize=7)


def draw_two_convergence(axis: Any, run: Run) -> None:
    """Draw the excess energies of both minima and the targets at which they agree."""
    table, ties = run.tables["two_minimisers"], run.tables["ties"]
    exact, points = both_minimisers()
    for i, (name, point) in enumerate(points):
        axis.loglog(table["n"], np.abs(table[f"energy_{name}"] - point.energy), "o", ms=4, color=COLOURS[i],
                    label=f"E_n - E, {name}")  # fmt: skip
        axis.loglog(table["n"], table[f"tl2_{name}"], "s", ms=4, color=COLOURS[i], mfc="none",
                    label=f"TL2 distance, {name}")  # fmt: skip
        axis.loglog(table["n"], abs(exact.depth_constant(point)) / table["n"], color=COLOURS[i], lw=0.8)
    axis.loglog(ties["n"], np.abs(ties["target"] - exact.y), "^", ms=4, color=COLOURS[2], label="y_n - y, a tie")
    over_layers(axis, table["n"], title="Both minimisers; lines: predicted", ylabel="distance", yscale="log",
                ylim=(3e-6, None))  # fmt: skip


def draw_alternating(axis: Any, run: Run) -> None:
    """Draw outputs under alternating weights."""
    table = run.tables["alternating"]
    axis.semilogx(table["n"], table["output"], "o", ms=4, color=COLOURS[0], label="X_n")
    axis.axhline(alternating_output(1.0, AMPLITUDE), color=COLOURS[0], lw=0.8, label="x exp(-c²/2)")
    axis.axhline(1.0, color=COLOURS[1], lw=0.8, label="x, of the weak limit 0")
    over_layers(axis, table["n"], title="Weights (-1)^i c sqrt(n)", ylabel="output", ylim=(0, 1.1))


def draw_recovery(axis: Any, run: Run) -> None:
    """Draw energies of recovery sequences, plain and with ripples."""
    table, limit = run.tables["recovery"], energy_of_functions()
    curves = (
        ("start", "starts of layers"), ("mean", "means over layers"), ("ripple_1.5", "ripples r/n^1.5"),
        ("ripple_1", "ripples r/n"),
    )  # fmt: skip
    for i, (name, words) in enumerate(curves):
        axis.plot(table["n"], table[name], "o-", ms=4, lw=0.8, color=COLOURS[i], label=words)
    axis.axhline(limit, color="0.3", lw=0.8, label="E")
    axis.axhline(limit + 4 * CURVE.strength * RIPPLE**2, color="0.3", lw=0.8, ls=":", label="E + 4 alpha r²")
    over_layers(axis, table["n"], title="Sequences with one limit in TL2", ylabel="E_n", ylim=(0.44, 0.53))


def draw_roughness(axis: Any, run: Run) -> None:
    """Draw jumps between layers over training time."""
    for i, (label, words) in enumerate((("none", "no penalty"), ("l2", "L2 penalty"), ("h1", "H1 penalty"))):
        table = run.tables[f"roughness_{label}"]
        axis.semilogy(table["s"], table["rms_jump"] / table["rms_jump"][0], color=COLOURS[i], label=words)
    s = table["s"]
    axis.semilogy(s, np.exp(-2 * LAM * s), color=COLOURS[1], ls=":", label="exp(-2 lam s)")
    axis.set(title="Jumps of independent layers in training", xlabel="training time s",
             ylabel="root mean square jump, start = 1")  # fmt: skip
    axis.legend(fontsize=7)


def draw_own(axis: Any, run: Run) -> None:
    """Draw distances of trained networks from themselves with more layers."""
    for i, (label, words) in enumerate((("h1", "equal layers at the start, H1"), ("iid", "independent layers, L2"))):
        table = run.tables[f"own_{label}"]
        axis.loglog(table["n"], table["gap"], "o-", ms=4, lw=0.8, color=COLOURS[i], label=words)
    axis.loglog(table["n"], run.tables["own_h1"]["gap"][-1] * table["n"][-1] / table["n"], color="0.6", lw=0.8,
                label="slope -1")  # fmt: skip
    over_layers(
        axis, table["n"], title="Trained networks cut into 4 n layers", ylabel="change of outputs", yscale="log"
    )


EXPERIMENT = Experiment(
    name="deep_limits",
    config=Config,
    run=run,
    figure=figure,
    smoke={"deepest": 512, "rough_layers": 24, "own_layers": 64},
    full={"deepest": 8192, "rough_layers": 128, "own_layers": 512},
    references=(PAPER,),
    description=(__doc__ or "").split("\n")[0],
)


def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line."""
    return EXPERIMENT.main(argv)


if __name__ == "__main__":
    sys.exit(main())
