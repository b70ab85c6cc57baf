"""Training over long times: what the error, the cost and the parameters of terminal problems do as T grows.

    python experiments/large_time.py [--smoke | --full] [--out PATH] [--resume PATH]

min E(x(T)) + lam int_0^T |u|^2 for networks whose velocity is homogeneous of degree one in the parameters u: the
training error is O(1/T), T u(T .) tends to the parameters of least norm that interpolate the data, and only lam/T
matters. Sections: closed forms; |u(t)| constant in t; what only lam/T matters for, and what not; the limit of least
norm for several data in the plane; degree two, where T plays no role; circles, annuli and XOR squares.

`--planted 0.05` trains towards targets that are 5 % off while the predictions stay. It makes the verdicts fail that
compare with closed forms or with the interpolation of the true targets; those of `BLIND` are laws, orders and
comparisons that hold for any target.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from meanfield.config import option
from meanfield.controls import Controls
from meanfield.data import Dataset, annuli, circles, xor
from meanfield.diagnostics.laws_of_rates import LAWS, Law, classify_law
from meanfield.diagnostics.rates import fit_rate
from meanfield.exact_control import (
    TerminalAdditive,
    TerminalLogistic,
    TerminalMultiplicative,
    TerminalTwoLayer,
)
from meanfield.experiment import CONSEQUENCE, Experiment, RunFile
from meanfield.integration import integrate
from meanfield.learning.continuation import Continuation, continuation
from meanfield.learning.minimal_norm import minimal_norm
from meanfield.learning.quasi_newton import minimise
from meanfield.learning.training import Training
from meanfield.losses import Logistic, Readout, Squared
from meanfield.models.residual import ResidualNetwork
from meanfield.plotting import COLOURS, save, style
from meanfield.regularizers import DepthH1, DepthL2, Regularizer
from meanfield.storage.reader import Run
from meanfield.velocities import Velocity
from meanfield.verdict import Verdict

EGPZ = "Esteve, Geshkovski, Pighin, Zuazua, Large-time asymptotics in deep learning, arXiv 2008.02491"
# Scalar problems: start, target and penalty, of the loss (x - y)^2 without 1/2.
START, TARGET, PENALTY = 0.5, 1.2, 0.3
# Three points of the plane, where they are to go, and the penalty of half their mean squared distance.
POINTS = np.array([[0.8, -0.6, 0.1], [0.2, 0.7, -0.9]])
GOALS = np.array([[0.9, -0.2, -0.5], [-0.5, 0.9, -0.4]])
WEIGHT = 0.02
# Penalty of the examples.
SLIGHT = 0.01

BLIND = (
    "law of",
    "|u(t)|",
    "only lam/T",
    "not only lam/T",
    "least norm: violation",
    "least norm: terminal",
    "degree two: J",
    "examples",
)
"""Beginnings of the claims that another target leaves true."""


@dataclass(frozen=True)
class Config:
    """Parameters of the experiment; times, states and costs are pure numbers."""

    layers: int = option(32, "layers of the networks, a multiple of 4", least=8, most=512)
    doublings: int = option(12, "the longest time is 2 to this power", least=8, most=16)
    points: int = option(96, "points of circles, annuli and XOR squares", least=12, most=2000)
    example_layers: int = option(16, "layers of the networks of the examples", least=6, most=256)
    iterations: int = option(1500, "most iterations of L-BFGS at each time of the examples", least=50, most=100_000)
    planted: float = option(0.0, "relative error planted in the targets of the training, to see verdicts fail")


def times(config: Config, first: int = 3) -> np.ndarray:
    """Powers of two."""
    return 2.0 ** np.arange(first, config.doublings + 1)


def scalar(kind: str, length: float, layers: int, planted: float) -> Training:
    """Half the objective of a closed form: x' = b, x' = w x, or x' = b with the logistic loss (the whole of it)."""
    knots = np.linspace(0.0, length, layers + 1)
    if kind == "multiplicative":
        trained = Controls(knots, np.full((layers, 1, 1), 0.1 / length))
        network = ResidualNetwork(Velocity.inside("identity", trained, 0.0), 1)
        return Training(network, [[START]], Squared([TARGET * (1 + planted)]), (0.0, length), layers, "rk4",
                        regularizers={"w": DepthL2(0.5 * PENALTY)}, trained=("w",))  # fmt: skip
    network = ResidualNetwork(Velocity.inside("identity", 0.0, Controls(knots, np.zeros((layers, 1)))), 1)
    if kind == "additive":
        return Training(network, [[START]], Squared([TARGET * (1 + planted)]), (0.0, length), layers,
                        regularizers={"b": DepthL2(0.5 * PENALTY)}, trained=("b",))  # fmt: skip
    return Training(network, [[0.0]], Logistic([1]), (0.0, length), layers, readout=Readout([[1 + planted]]),
                    regularizers={"b": DepthL2(PENALTY)}, trained=("b",))  # fmt: skip


def plane(
    length: float,
    layers: int,
    goals: np.ndarray = GOALS,
    *,
    points: np.ndarray = POINTS,
    form: str = "inside",
    sigma: str = "tanh",
    scheme: str = "euler",
    penalty: Regularizer | None = None,
    start: float = 0.0,
) -> Training:
    """W sigma(x) + b or sigma(W x + b) in the plane; parameters start from a multiple of the identity and of (1, 1)."""
    knots, size = np.linspace(0.0, length, layers + 1), start / length
    w, b = np.broadcast_to(size * np.eye(2), (layers, 2, 2)), np.full((layers, 2), size)
    maker = {"inside": Velocity.inside, "outside": Velocity.outside}[form]
    network = ResidualNetwork(maker(sigma, Controls(knots, w), Controls(knots, b)), points.shape[1])
    penalties = dict.fromkeys("wb", DepthL2(WEIGHT) if penalty is None else penalty)
    return Training(network, points, Squared(goals), (0.0, length), layers, scheme, regularizers=penalties)


def rising(length: float, layers: int, weight: float = WEIGHT) -> Training:
    """max(W x + b, 0) for two points, which can only move up."""
    return plane(length, layers, POINTS[:, :2] + [[0.5, 0.3], [0.1, 0.7]], points=POINTS[:, :2], form="outside",
                 sigma="relu", scheme="heun", penalty=DepthL2(weight), start=0.5)  # fmt: skip


def two_layers(length: float, layers: int, planted: float, *, shift: bool) -> Training:
    """Half the objective of v max(w x + b, 0), or with + c, all parameters penalised."""
    knots = np.linspace(0.0, length, layers + 1)
    inner = np.linspace(0.9, 0.7, layers) / np.sqrt(length)
    parts = [np.full((layers, 1, 1), 0.8 / np.sqrt(length)), inner.reshape(-1, 1, 1), inner.reshape(-1, 1)]
    names = ("v", "w", "b", "c") if shift else ("v", "w", "b")
    made = [Controls(knots, p) for p in (*parts, *[np.zeros((layers, 1))] * shift)]
    network = ResidualNetwork(Velocity.two_layer("relu", *made), 1)
    return Training(network, [[START]], Squared([TARGET * (1 + planted)]), (0.0, length), layers,
                    regularizers=dict.fromkeys(names, DepthL2(0.5 * PENALTY)), trained=names)  # fmt: skip


def at_length_one(model: ResidualNetwork) -> np.ndarray:
    """T u(T .) over [0, 1], all parameters of a layer in a row, (K, P)."""
    parts = [part for part in model.parameters.values() if isinstance(part, Controls)]
    return np.hstack([np.ptp(part.knots) * part.values.reshape(len(part.values), -1) for part in parts])


def norm(rows: np.ndarray) -> float:
    """L2 norm over [0, 1] of equal layers."""
    return float(np.sqrt((rows**2).sum() / len(rows)))


def outputs(problem: Training, model: ResidualNetwork) -> np.ndarray:
    """Outputs (C, n) of a network at the inputs of a problem."""
    end = integrate(model, problem.x, problem.t_span, scheme=problem.scheme, n_steps=problem.n_steps).y[-1]
    return problem.readout.forward(end)


def summary(problems: list[Training], flats: list[np.ndarray]) -> dict[str, np.ndarray]:
    """T, J, E and |grad J| of parameters of problems."""
    found = [problem.objective(flat) for problem, flat in zip(problems, flats, strict=True)]
    ends = [outputs(problem, problem.unpack(flat)[0]) for problem, flat in zip(problems, flats, strict=True)]
    return {
        "T": np.array([problem.t_span[1] for problem in problems]),
        "cost": np.array([value for value, _ in found]),
        "error": np.array([problem.loss.value(f) for problem, f in zip(problems, ends, strict=True)]),
        "gradient": np.array([float(np.linalg.norm(slope)) for _, slope in found]),
    }


def path(problems: list[Training], t: np.ndarray, **options: Any) -> Continuation:
    """Continuation through problems at times."""
    return continuation(dict(zip(t.tolist(), problems, strict=True)).__getitem__, t, **options)


def path_table(problems: list[Training], t: np.ndarray, **options: Any) -> dict[str, np.ndarray]:
    """T, J, E and |grad J| along a path of optima that all converged."""
    found = path(problems, t, **options).raise_for_status()
    return summary(problems, [optimum.flat for optimum in found.forth.optima])


def judge_law(
    run: RunFile, claim: str, t: Any, values: Any, law: Law, laws: tuple[Law, ...] = LAWS, source: str = EGPZ
) -> None:
    """Judge which law is named, and say which slope is seen; another law, or none, counts as not a number."""
    fit = classify_law(t, values, laws=laws)
    run.near(f"{claim} {law} (slope {fit.slope:.3f}, 95 %: {fit.low:.3f} .. {fit.high:.3f})", law.power,
             law.power if fit.law == law else np.nan, tolerance=1e-12, reason=f"{fit.kind}: {fit.reason}",
             source=source)  # fmt: skip


def closed_forms(config: Config, run: RunFile) -> None:
    """Trained networks against closed forms over T: the bound O(1/T), and what is really seen."""
    t = times(config)
    tables = {}
    for kind in ("additive", "multiplicative", "logistic"):
        problems = [scalar(kind, length, config.layers, config.planted) for length in t.tolist()]
        tables[kind] = run.once(kind, lambda problems=problems: path_table(problems, t, tolerance=1e-10), problems)
    exact = [TerminalAdditive(START, TARGET, PENALTY, length) for length in t]
    found = tables["additive"]
    run.at_most(f"x' = w: J is lam (y - x0)^2/(T + lam) at {len(t)} times (relative)", 1e-12,
                float(np.abs(2 * found["cost"] / [e.cost for e in exact] - 1).max()), reason="round-off")  # fmt: skip
    run.at_most("x' = w: the error is (y - x0)^2 lam^2/(T + lam)^2 (relative)", 1e-5,
                float(np.abs(2 * found["error"] / [e.error for e in exact] - 1).max()),
                reason="|grad J| <= 1e-10, and the error a small part of J")  # fmt: skip
    limit, found = TerminalMultiplicative(START, TARGET, PENALTY, t[-1]), tables["multiplicative"]
    run.near("x' = w x: E T^2 tends to lam^2 ln^2(y/x0)/y^2", limit.long_time_error,
             float(2 * found["error"][-1] * t[-1] ** 2), tolerance=0.01, reason="terms O(lam/T)")  # fmt: skip
    run.near("x' = w x: T J tends to lam ln^2(y/x0)", limit.long_time_cost, float(2 * found["cost"][-1] * t[-1]),
             tolerance=0.01, reason="terms O(lam/T)")  # fmt: skip
    run.at_most("x' = w x: the bound E <= J <= lam ln^2(y/x0)/T holds at every T (largest ratio of J)", 1.0,
                float((2 * found["cost"] * t).max() / limit.long_time_cost), reason="a bound", source=EGPZ)  # fmt: skip
    for kind, words in (("additive", "x' = w"), ("multiplicative", "x' = w x")):
        judge_law(run, f"law of the training error, {words}:", t, tables[kind]["error"], LAWS[1])
        judge_law(run, f"law of J, {words}:", t, tables[kind]["cost"], LAWS[0])
    logistic(t, tables["logistic"], run)


def logistic(t: np.ndarray, found: dict[str, np.ndarray], run: RunFile) -> None:
    """Judge the loss without a minimum: slower than O(1/T)."""
    exact = [TerminalLogistic(PENALTY, length) for length in t]
    run.at_most("x' = w, logistic loss: J is that of m (1 + e^m) = T/(2 lam) (relative)", 1e-10,
                float(np.abs(found["cost"] / [e.cost for e in exact] - 1).max()),
                reason="|grad J| <= 1e-10")  # fmt: skip
    laws = (*LAWS, Law(1.0, 2.0))
    judge_law(run, "law of the training error, logistic loss:", t, found["error"], LAWS[2], laws, CONSEQUENCE)
    judge_law(run, "law of J, logistic loss:", t, found["cost"], laws[3], laws, CONSEQUENCE)


def constancy(config: Config, run: RunFile) -> None:
    """|u(t)| along optima, at the order of the scheme."""
    goals = GOALS * (1 + config.planted)
    cases: dict[str, Callable[[int], Training]] = {
        "W tanh x + b": lambda n: plane(4.0, n, goals, scheme="heun"),
        "max(W x + b, 0)": lambda n: rising(4.0, n),
    }
    sizes = config.layers * np.array([1, 2, 4])
    for i, (words, made) in enumerate(cases.items()):

        def table(made: Callable[[int], Training] = made) -> dict[str, np.ndarray]:
            spreads = []
            for n in sizes.tolist():
                rows = at_length_one(minimise(made(n), tolerance=1e-9).raise_for_status().model)
                spreads.append(np.ptp((rows**2).sum(axis=1)) / norm(rows) ** 2)
            return {"layers": sizes.astype(np.float64), "spread": np.array(spreads)}

        found = run.once(f"constancy_{i}", table, (sizes, config.planted))
        run.near(f"|u(t)| is constant along optima, its spread O(h^2) with Heun steps, {words}", 2.0,
                 fit_rate(1 / found["layers"], found["spread"]).slope, tolerance=0.1, relative=False,
                 reason="order of the scheme and of layers as means", source=EGPZ)  # fmt: skip


def only_the_ratio(config: Config, run: RunFile) -> None:
    """The same lam/T at two lengths: degree one, degree one with a penalty of u', and a form of no degree."""
    n, c, goals = config.layers // 2, 3.0, GOALS * (1 + config.planted)

    def both(short: Training, long: Training) -> dict[str, np.ndarray]:
        optima = [minimise(p, tolerance=1e-11).raise_for_status() for p in (short, long)]
        rows = [at_length_one(optimum.model) for optimum in optima]
        return {"cost": np.array([o.value for o in optima]), "gap": np.full(2, norm(rows[1] - rows[0]) / norm(rows[0]))}

    same = {
        "W tanh x + b": (plane(2.0, n, goals), plane(2.0 * c, n, goals, penalty=DepthL2(c * WEIGHT))),
        "max(W x + b, 0)": (rising(2.0, n), rising(2.0 * c, n, c * WEIGHT)),
    }
    for i, (words, pair) in enumerate(same.items()):
        found = run.once(f"ratio_{i}", lambda pair=pair: both(*pair), pair)
        run.at_most(f"only lam/T matters, {words}: T u(T .) at T = 2 and 6 (relative, L2)", 1e-8,
                    float(found["gap"][0]), reason="|grad J| <= 1e-11 over the penalty", source=EGPZ)  # fmt: skip
        run.at_most(f"only lam/T matters, {words}: J at T = 2 and 6 (relative)", 1e-12,
                    float(abs(found["cost"][1] / found["cost"][0] - 1)), reason="round-off", source=EGPZ)  # fmt: skip
    tau = 1.0
    slopes = [plane(2.0 * k, n, goals, penalty=DepthH1(WEIGHT * a, b)) for k, a, b in
              ((1, 1, tau), (c, c, tau), (c, c**3, tau / c))]  # fmt: skip
    found = run.once("ratio_slopes", lambda: both(*slopes[:2]), slopes[:2])
    run.verdict(Verdict.at_least("not only lam/T matters with int |u'|^2: J at T = 2 and 6 (relative)", 0.01,
                                 float(abs(found["cost"][1] / found["cost"][0] - 1)),
                                 reason="int |u'|^2 scales as T^-3", source=CONSEQUENCE))  # fmt: skip
    found = run.once("ratio_cubes", lambda: both(slopes[0], slopes[2]), (slopes[0], slopes[2]))
    run.at_most("only lam/T^3 and tau T matter with int |u'|^2 + tau |u(0)|^2: J at T = 2 and 6 (relative)", 1e-12,
                float(abs(found["cost"][1] / found["cost"][0] - 1)), reason="round-off")  # fmt: skip
    outside = [plane(2.0 * k, n, goals, form="outside", penalty=DepthL2(k * WEIGHT)) for k in (1, c)]
    found = run.once("ratio_outside", lambda: both(*outside), outside)
    run.verdict(Verdict.at_least("not only lam/T matters for tanh(W x + b): J at T = 2 and 6 (relative)", 0.01,
                                 float(abs(found["cost"][1] / found["cost"][0] - 1)),
                                 reason="not homogeneous in W and b", source=CONSEQUENCE))  # fmt: skip


def interpolation(exact: Training) -> dict[str, np.ndarray]:
    """Parameters of least norm, their multipliers, and how fast they move as targets move along the multipliers."""
    found = minimal_norm(exact).raise_for_status()
    prices = np.zeros_like(found.flat)
    prices[: found.multipliers.size] = found.multipliers.ravel()
    ahead, back = (minimal_norm(exact, GOALS + e * found.multipliers, found.flat).raise_for_status().flat
                   for e in (1e-3, -1e-3))  # fmt: skip
    numbers = {"violation": found.violation, "residual": found.residual}
    columns = {name: np.full(len(prices), value) for name, value in numbers.items()}
    return {"flat": found.flat, "multipliers": prices, "slope": (ahead - back) / 2e-3, **columns}


def least_norm(config: Config, run: RunFile) -> None:
    """T u(T .) against the parameters of least norm that interpolate, and the constants that these predict."""
    exact, t = plane(1.0, config.layers), times(config, 2)

    best = run.once("least_norm", lambda: interpolation(exact), exact)
    run.at_most("least norm: violation of the interpolation", 1e-10, float(best["violation"][0]), reason="its bound")
    run.at_most("least norm: violation of the Karush-Kuhn-Tucker equations", 1e-8, float(best["residual"][0]),
                reason="its bound")  # fmt: skip
    problems = [plane(length, config.layers, GOALS * (1 + config.planted)) for length in t.tolist()]

    def both_ways() -> dict[str, np.ndarray]:
        found = path(problems, t, tolerance=1e-9, back=True).raise_for_status()
        columns = {f"flat_{i}": optimum.flat for i, optimum in enumerate(found.forth.optima)}
        gap = float(np.abs(found.gaps / found.forth.energies).max())
        return columns | {"gap": np.full(len(columns["flat_0"]), gap)}

    stored = run.once("terminal", both_ways, problems)
    flats = [stored[f"flat_{i}"] for i in range(len(t))]
    rows = [at_length_one(problem.unpack(flat)[0]) for problem, flat in zip(problems, flats, strict=True)]
    ideal = at_length_one(exact.unpack(best["flat"])[0])
    run.once("profiles", lambda: {f"T_{length:g}": row[:, 0] for length, row in zip(t, rows, strict=True)} |
             {"least": ideal[:, 0]}, (problems, flats, best["flat"]))  # fmt: skip

    def distances() -> dict[str, np.ndarray]:
        return summary(problems, flats) | {
            "distance": np.array([norm(r - ideal) for r in rows]), "norm": np.array([norm(r) for r in rows])
        }  # fmt: skip

    found = run.once("towards_least_norm", distances, (problems, flats, best["flat"]))
    run.at_most("least norm: terminal optima on the way there and back (J, relative)", 1e-9, float(stored["gap"][0]),
                reason="|grad J| <= 1e-9")  # fmt: skip
    judge_limit(run, found, norm(ideal), best)

    def own() -> dict[str, np.ndarray]:
        ended = outputs(problems[0], problems[0].unpack(flats[0])[0])
        found = minimal_norm(exact, ended).raise_for_status()
        return {"gap": np.array([norm(at_length_one(found.model) - rows[0])])}

    run.at_most("least norm: terminal optima at T = 4 have the least norm for their own outputs (L2)", 1e-6,
                float(run.once("own_outputs", own, (problems[0], flats[0]))["gap"][0]),
                reason="|grad J| <= 1e-9 over lam/T")  # fmt: skip


def judge_limit(run: RunFile, found: dict[str, np.ndarray], size: float, best: dict[str, np.ndarray]) -> None:
    """Judge limits, bounds and laws from the norm of the interpolation, its multipliers, and its slope along them."""
    t, n, prices = found["T"], POINTS.shape[1], float((best["multipliers"] ** 2).sum())
    run.near("least norm: T J tends to lam |u|^2 of the interpolation", WEIGHT * size**2,
             float(found["cost"][-1] * t[-1]), tolerance=0.01, reason="terms O(lam/T)", source=EGPZ)  # fmt: skip
    run.near("least norm: E T^2 tends to 2 n lam^2 |multipliers|^2", 2 * n * WEIGHT**2 * prices,
             float(found["error"][-1] * t[-1] ** 2), tolerance=0.01, reason="terms O(lam/T)")  # fmt: skip
    # Stationary outputs are y + (2 n lam/T) multipliers, and the parameters those of least norm for them.
    run.near("least norm: T |T u(T .) - u| tends to 2 n lam |slope of u along the multipliers|",
             2 * n * WEIGHT * float(np.linalg.norm(best["slope"])), float(found["distance"][-1] * t[-1]),
             tolerance=0.01, reason="terms O(lam/T)")  # fmt: skip
    run.at_most("least norm: |T u(T .) - u|/|u| at the longest time", 1e-3, float(found["distance"][-1] / size),
                reason="O(lam/T)", source=EGPZ)  # fmt: skip
    run.at_most("least norm: |T u(T .)| <= |u| at every T (largest ratio)", 1.0, float(found["norm"].max() / size),
                reason="a bound", source=EGPZ)  # fmt: skip
    judge_law(run, "least norm: law of |T u(T .) - u|:", t, found["distance"], LAWS[0])
    judge_law(run, "law of the training error, three points:", t, found["error"], LAWS[1])


def degree_two(config: Config, run: RunFile) -> None:
    """Velocity of degree two in its parameters: T plays no role, until a shift of degree one is added."""
    t, n = times(config, 0), config.layers
    tables = {}
    for label, shift in (("degree_two", False), ("degree_two_shift", True)):
        problems = [two_layers(length, n, config.planted, shift=shift) for length in t.tolist()]
        tables[label] = run.once(label, lambda problems=problems: path_table(problems, t, predictor="own"), problems)
    cost = tables["degree_two"]["cost"]
    run.at_most(f"degree two: J is the same at T = 1 .. {t[-1]:g} (relative)", 1e-12, float(np.ptp(cost) / cost[0]),
                reason="round-off", source=CONSEQUENCE)  # fmt: skip

    def depths() -> dict[str, np.ndarray]:
        sizes = n * np.array([1, 2])
        optima = [minimise(two_layers(1.0, k, config.planted, shift=False), tolerance=1e-10) for k in sizes.tolist()]
        return {"layers": sizes.astype(np.float64), "cost": np.array([o.raise_for_status().value for o in optima])}

    coarse, fine = 2 * run.once("degree_two_depths", depths, (n, config.planted))["cost"]
    exact = TerminalTwoLayer(START, TARGET, PENALTY)
    run.near("two layers: J over depth tends to (x(T) - y)^2 + 2 lam (asinh x(T) - asinh x0)", exact.cost,
             float(2 * fine - coarse), tolerance=1e-3, reason="one extrapolation in 1/n")  # fmt: skip
    shifted = 2 * tables["degree_two_shift"]["cost"]
    additive = [TerminalAdditive(START, TARGET, PENALTY, length).cost for length in t]
    run.at_most("two layers with a shift: J is that of x' = c, the layers switch off (relative)", 1e-9,
                float(np.abs(shifted / additive - 1).max()), reason="|grad J| <= 1e-8")  # fmt: skip


SETS: dict[str, Callable[..., Dataset]] = {"circles": circles, "annuli": annuli, "xor": xor}
FORMS = {"tanh": ("inside", "W tanh x + b"), "relu": ("outside", "max(W x + b, 0)")}
EXAMPLE_TIMES = np.array([1.0, 4.0, 16.0, 64.0])
# The example whose trajectories are drawn.
SHOWN = "circles_tanh"


def example(config: Config, name: str, sigma: str, length: float, seed: int) -> Training:
    """Points of a set in space, the third component 0 at first; classes are levels between -1 and 1 of 2 x_3 - 1."""
    data, n = SETS[name](config.points, seed=seed), config.example_layers
    levels = np.linspace(-1.0, 1.0, len(data.class_names))[data.labels]
    rng, knots = np.random.default_rng(seed), np.linspace(0.0, length, n + 1)
    w, b = (np.broadcast_to(rng.standard_normal(shape) / length, (n, *shape)) for shape in ((3, 3), (3,)))
    maker = {"inside": Velocity.inside, "outside": Velocity.outside}[FORMS[sigma][0]]
    network = ResidualNetwork(maker(sigma, Controls(knots, w), Controls(knots, b)), len(data))
    return Training(network, np.vstack([data.x.T, np.zeros(len(data))]), Squared(levels), (0.0, length), n, "heun",
                    readout=Readout([[0.0, 0.0, 2.0]], -1.0),
                    regularizers=dict.fromkeys("wb", DepthL2(SLIGHT)))  # fmt: skip


def accuracy(problem: Training, model: ResidualNetwork) -> float:
    """Part of the samples whose output is nearest to the level of their own class."""
    wanted = problem.loss.y[0]
    levels, f = np.unique(wanted), outputs(problem, model)[0]
    return float((levels[np.abs(f[:, None] - levels).argmin(axis=1)] == wanted).mean())


def examples(config: Config, run: RunFile) -> None:
    """Classes of points in the plane by trajectories in space, over growing T."""
    t = EXAMPLE_TIMES
    for name in SETS:
        for sigma, (_, words) in FORMS.items():
            problems = [example(config, name, sigma, length, run.seed) for length in t.tolist()]

            def optima(problems: list[Training] = problems) -> dict[str, np.ndarray]:
                found = path(problems, t, tolerance=1e-6, predictor="last", max_iterations=config.iterations)
                return {f"flat_{i}": optimum.flat for i, optimum in enumerate(found.forth.optima)}

            label = f"{name}_{sigma}"
            flats = list(run.once(f"{label}_optima", optima, (problems, config.iterations)).values())

            def table(problems: list[Training] = problems, flats: list[np.ndarray] = flats) -> dict[str, np.ndarray]:
                right = [accuracy(p, p.unpack(flat)[0]) for p, flat in zip(problems, flats, strict=True)]
                return summary(problems, flats) | {"accuracy": np.array(right)}

            judge_example(run, f"{name}, {words}", run.once(label, table, (problems, flats)))
            if label == SHOWN:
                for i in (0, len(t) - 1):
                    ways = (problems[i], flats[i])
                    run.once(f"ways_{i}", lambda ways=ways: trajectories(*ways), ways)


def judge_example(run: RunFile, words: str, found: dict[str, np.ndarray]) -> None:
    """Judge what a path of optima, each from the one before, must do: they need not be global minima."""
    slope = fit_rate(found["T"], found["error"]).slope
    run.at_most(f"examples: J falls as T grows, {words} (largest rise)", 0.0, float(np.diff(found["cost"]).max()),
                reason="L-BFGS starts from the shorter time and descends", source=EGPZ)  # fmt: skip
    run.at_most(f"examples: error at T = 64 over that at T = 1, {words} (slope {slope:.2f})", 1.0,
                float(found["error"][-1] / found["error"][0]), reason="E <= J, which falls", source=EGPZ)  # fmt: skip
    run.near(f"examples: accuracy at T = 64, {words}", 1.0, float(found["accuracy"][-1]), tolerance=1e-12,
             reason="all points told apart", source=EGPZ)  # fmt: skip


def trajectories(problem: Training, flat: np.ndarray) -> dict[str, np.ndarray]:
    """Trajectories of all samples, by sample and depth, with the level of their class."""
    at = np.linspace(*problem.t_span, problem.n_steps + 1)
    model = problem.unpack(flat)[0]
    way = integrate(model, problem.x, problem.t_span, scheme=problem.scheme, n_steps=problem.n_steps, save_at=at).y
    frames, _, n = way.shape
    columns = {f"x_{k + 1}": way[:, k].T.ravel() for k in range(3)}
    return {"sample": np.repeat(np.arange(n), frames), "level": np.repeat(problem.loss.y[0], frames), **columns}


def run(config: Config, run_file: RunFile) -> None:
    """Run every section."""
    for section in (closed_forms, constancy, only_the_ratio, least_norm, degree_two, examples):
        section(config, run_file)


def figure(run: Run, path: Path) -> None:
    """Eight panels: closed forms, laws, least norm, degree two, examples, and their trajectories."""
    with style() as plt:
        drawing = plt.figure(figsize=(16, 8), layout="constrained")
        flat = [drawing.add_subplot(2, 4, k) for k in (1, 2, 3, 4, 5, 6)]
        draw_closed_forms(flat[0], run)
        draw_logistic(flat[1], run)
        draw_least_norm(flat[2], run)
        draw_degree_two(flat[3], run)
        draw_parameters(flat[4], run)
        draw_examples(flat[5], run)
        for k, i in ((7, 0), (8, len(EXAMPLE_TIMES) - 1)):
            draw_trajectories(drawing.add_subplot(2, 4, k, projection="3d"), run.tables[f"ways_{i}"], EXAMPLE_TIMES[i])
        save(drawing, path)


def draw_closed_forms(axis: Any, run: Run) -> None:
    """Draw cost, error and the bound for x' = w x."""
    table = run.tables["multiplicative"]
    t = table["T"]
    limit = TerminalMultiplicative(START, TARGET, PENALTY, float(t[-1]))
    axis.loglog(t, 2 * table["cost"], "o", ms=4, color=COLOURS[0], label="J")
    axis.loglog(t, limit.long_time_cost / t, color=COLOURS[0], lw=0.9, label="lam ln²(y/x0)/T, bound of E")
    axis.loglog(t, 2 * table["error"], "o", ms=4, color=COLOURS[1], label="E")
    axis.loglog(t, limit.long_time_error / t**2, color=COLOURS[1], lw=0.9, label="lam² ln²(y/x0)/(y T)²")
    axis.set(title="x' = w x: the error is better than its bound", xlabel="T", ylabel="cost, error")
    axis.legend()


def draw_logistic(axis: Any, run: Run) -> None:
    """Draw errors times T: constant for no law of the three."""
    words = {"additive": "x' = w, squared loss", "towards_least_norm": "W tanh x + b, three points",
             "logistic": "x' = w, logistic loss"}  # fmt: skip
    for i, (name, label) in enumerate(words.items()):
        table = run.tables[name]
        level = table["T"] * table["error"]
        axis.semilogx(table["T"], level / level[0], "o-", ms=3, color=COLOURS[i], label=label)
    axis.set(title="T E(T): to 0, or up like log T", xlabel="T", ylabel="T E, over its first value")
    axis.set_yscale("log")
    axis.legend()


def draw_least_norm(axis: Any, run: Run) -> None:
    """Draw the distance from the parameters of least norm, the error and the cost."""
    table = run.tables["towards_least_norm"]
    t = table["T"]
    for i, (name, label) in enumerate({"distance": "|T u(T ·) - u|", "cost": "J", "error": "E"}.items()):
        axis.loglog(t, table[name], "o-", ms=3, color=COLOURS[i], label=label)
    axis.loglog(t, 2 * table["distance"][0] * t[0] / t, color="0.7", lw=0.8, label="slope -1")
    axis.loglog(t, 2 * table["error"][0] * (t[0] / t) ** 2, "--", color="0.7", lw=0.8, label="slope -2")
    axis.set(title="W tanh x + b, three points: least norm", xlabel="T")
    axis.legend()


def draw_degree_two(axis: Any, run: Run) -> None:
    """Draw costs with and without a part of degree one."""
    for i, (name, label) in enumerate({"degree_two": "v max(w x + b, 0)", "degree_two_shift": "+ c"}.items()):
        axis.loglog(run.tables[name]["T"], 2 * run.tables[name]["cost"], "o-", ms=3, color=COLOURS[i], label=label)
    axis.axhline(TerminalTwoLayer(START, TARGET, PENALTY).cost, color="0.7", lw=0.8, label="infinitely many layers")
    axis.set(title="Degree two: T plays no role", xlabel="T", ylabel="least J")
    axis.legend()


def draw_parameters(axis: Any, run: Run) -> None:
    """Draw the norm of T u(T .) over depth for several T, and that of least norm."""
    for i, (name, values) in enumerate(run.tables["profiles"].items()):
        depth, last = (np.arange(len(values)) + 0.5) / len(values), name == "least"
        if last or i % 2 == 0:
            axis.plot(depth, values, "k--" if last else "-", label="least norm" if last else name.replace("_", " = "))
    axis.set(title="First entry of T W(T ·)", xlabel="t/T", ylabel="T w")
    axis.legend()


def draw_examples(axis: Any, run: Run) -> None:
    """Draw training errors of the examples over T."""
    for i, name in enumerate(SETS):
        for sigma, line in (("tanh", "o-"), ("relu", "s--")):
            table = run.tables[f"{name}_{sigma}"]
            axis.loglog(table["T"], table["error"], line, ms=3, color=COLOURS[i], label=f"{name}, {FORMS[sigma][1]}")
    axis.loglog(EXAMPLE_TIMES, 0.05 / EXAMPLE_TIMES, color="0.7", lw=0.8, label="slope -1")
    axis.set(title="Training error of the examples", xlabel="T", ylabel="E")
    axis.legend(fontsize=6.5)


def draw_trajectories(axis: Any, table: dict[str, np.ndarray], length: float) -> None:
    """Draw trajectories in space, coloured by class."""
    frames = int((table["sample"] == table["sample"][0]).sum())
    ways = np.array([table[f"x_{k + 1}"].reshape(-1, frames) for k in range(3)])
    level = table["level"].reshape(-1, frames)[:, 0]
    for colour, value in zip(COLOURS, np.unique(level), strict=False):
        # One line a class, with gaps: many artists in space are slow to draw.
        own = np.pad(ways[:, level == value], ((0, 0), (0, 0), (0, 1)), constant_values=np.nan)
        axis.plot(*own.reshape(3, -1), color=colour, lw=0.7, alpha=0.7)
        axis.plot(*own[:, :, -2], "o", color=colour, ms=3)
    axis.set(title=f"Circles, W tanh x + b, T = {length:g}", xlabel="x_1", ylabel="x_2", zlabel="x_3")


EXPERIMENT = Experiment(
    name="large_time",
    config=Config,
    run=run,
    figure=figure,
    smoke={"layers": 16, "doublings": 9, "points": 32, "example_layers": 8, "iterations": 100},
    full={"layers": 128, "doublings": 14, "points": 400, "example_layers": 32, "iterations": 6000},
    references=(EGPZ,),
    description=(__doc__ or "").split("\n")[0],
)


def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line."""
    return EXPERIMENT.main(argv)


if __name__ == "__main__":
    sys.exit(main())
