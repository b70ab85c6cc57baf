"""Turnpikes of training with tracking: exponents predicted and fitted, and problems that have none.

    python experiments/turnpike.py [--smoke | --full] [--out PATH] [--resume PATH]

Networks are trained by L-BFGS with a loss counted along the depth. Sections: the linear-quadratic problem against its
closed form, layer by layer; states at rest that need a parameter; x' = w x and x' = w tanh x against quadratures; three
points in the plane, x' = W tanh x + b, whose exponents follow from a Gram matrix; a space-time network that tracks
integrals of its field; losses that decay algebraically or are extinct; penalties that are paid in the first layer.

`--planted 0.05` trains towards targets that are 5 % off while closed forms and predictions stay: the verdicts against
them fail. Those of `BLIND` do not depend on the target.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from meanfield.config import option
from meanfield.controls import Controls
from meanfield.diagnostics.rates import fit_rate
from meanfield.diagnostics.turnpike import LinearQuadratic, arc_constant, fit_two_arcs
from meanfield.exact_control import Turnpike
from meanfield.exact_turnpike import (
    Impulse,
    LogisticLoss,
    PowerExtinction,
    PowerLoss,
    ScalarTracking,
    two_layer_infimum,
    two_layer_price,
)
from meanfield.experiment import Experiment, RunFile
from meanfield.grids import Grid
from meanfield.learning.arcs import Arcs, Course, classify_arcs, impulse_power
from meanfield.learning.boundary_value import extremal
from meanfield.learning.residual_form import residual_form
from meanfield.learning.training import Training
from meanfield.learning.turnpike import linearised, steady_pair, with_end_weight
from meanfield.losses import CrossEntropy, Logistic, Loss, LpDistance, Readout, Squared
from meanfield.models.residual import ResidualNetwork
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.dense import Dense
from meanfield.operators.path import OperatorPath
from meanfield.plotting import COLOURS, save, style
from meanfield.regularizers import DepthL2, Regularizer
from meanfield.storage.reader import Run
from meanfield.velocities import Velocity
from meanfield.verdict import Verdict

EGPZ = "Esteve, Geshkovski, Pighin, Zuazua, Large-time asymptotics in deep learning, arXiv 2008.02491"
# Scalar problems: start, target, penalty of (x - y)^2 + lam u^2.
START, TARGET, PENALTY = 0.5, 1.2, 0.3
# Three points in the plane: targets whose exponents are far apart, and starts; a fourth that is not moved by itself.
TARGETS = ((1.2, 0.3), (1.2, -1.1), (-1.0, -0.1))
STARTS = ((0.7, 0.6), (0.9, -0.7), (-1.3, -0.4))
FOURTH = (0.4, 0.9)
GAINS = {"multiplicative": float, "tanh": math.tanh}
WORDS = {"multiplicative": "x' = w x", "tanh": "x' = w tanh x", "points": "three points"}
# Of |theta|^2 for the points, and for the space-time network.
STRENGTH, WEIGHT = 0.06, 0.04

BLIND = (
    "LQ: exponent",
    "LQ: u(T)",
    "steady pair with a drift: exponent",
    "power",
    "identity",
    "no end cost",
    "three points: |",
    "three points: exponent 2",
    "C does not depend on T: three points",
    "C does not depend on T: space-time network, |theta|",
    "four points",
    "x' = tanh(W x + b): |",
    "x' = relu(W x + b): |",
    "space-time network: |theta|",
    "space-time network: exponent of |theta|",
    "space-time network: directions",
    "logistic",
    "cross-entropy",
    "two layers:",
    "|u|: penalty of the first",
)
"""Beginnings of the claims that another target leaves true."""


@dataclass(frozen=True)
class Config:
    """Parameters of the experiment; states, depths and costs are pure numbers."""

    layers: int = option(16, "layers to a unit of depth", least=8, most=400)
    labels: int = option(16, "neuron labels of the space-time network", least=6, most=128)
    halvings: int = option(3, "halvings of the layers where an order is fitted", least=2, most=8)
    planted: float = option(0.0, "relative error planted in the targets of the training, to see verdicts fail")


@dataclass(frozen=True)
class DepthNorm:
    """lam int sqrt(|theta|^2 + eps^2) - eps dt of layers: the penalty |theta|, smoothed."""

    strength: float
    smoothing: float

    def _sizes(self, values: np.ndarray) -> np.ndarray:
        squares = (values**2).reshape(len(values), -1).sum(axis=1)
        return np.asarray(np.sqrt(squares + self.smoothing**2))

    def value(self, values: np.ndarray, knots: np.ndarray, _interpolation: str = "constant") -> float:
        """R of controls."""
        return self.strength * float(np.diff(knots) @ (self._sizes(values) - self.smoothing))

    def gradient(self, values: np.ndarray, knots: np.ndarray, _interpolation: str = "constant") -> np.ndarray:
        """dR/dvalues."""
        factors = self.strength * np.diff(knots) / self._sizes(values)
        return np.asarray(factors.reshape(-1, *(1 for _ in values.shape[1:])) * values)

    def describe(self) -> dict[str, Any]:
        """What determines the regulariser, for digests of runs."""
        return {"regularizer": "DepthNorm", "strength": self.strength, "smoothing": self.smoothing}


def scalar(
    kind: str,
    length: float,
    layers: int,
    loss: Loss,
    *,
    start: float = START,
    penalty: Regularizer | None = None,
    end: float = 0.0,
    drift: float = 0.0,
    scheme: str = "euler",
) -> Training:
    """x' = drift x + b, x' = w x or x' = w tanh x with a loss along the depth; half the cost of `PENALTY`."""
    additive = kind == "additive"
    values = np.full(layers, 0.1)
    trained = Controls(np.linspace(0.0, length, layers + 1), values.reshape((-1, 1) if additive else (-1, 1, 1)))
    sigma = "tanh" if kind == "tanh" else "identity"
    velocity = Velocity.inside(sigma, drift, trained) if additive else Velocity.inside(sigma, trained, 0.0)
    name = "b" if additive else "w"
    problem = Training(
        ResidualNetwork(velocity, 1), [[start]], loss, (0.0, length), layers, scheme, tracking=1.0, trained=(name,),
        regularizers={name: penalty or DepthL2(0.5 * PENALTY)},
    )  # fmt: skip
    return with_end_weight(problem, end)


def points(
    targets: Any, starts: Any, length: float, layers: int, planted: float, form: str = "inside", sigma: str = "tanh"
) -> Training:
    """x' = W sigma(x) + b, or sigma(W x + b), all samples at once."""
    knots = np.linspace(0.0, length, layers + 1)
    d = len(targets[0])
    # Positive in every layer, so that ReLU is not at its kink.
    start = Controls(knots, np.full((layers, d, d), 0.01)), Controls(knots, np.full((layers, d), 0.01))
    make = Velocity.inside if form == "inside" else Velocity.outside
    network = ResidualNetwork(make(sigma, *start), len(targets))
    loss = Squared(np.array(targets).T * (1 + planted))
    penalties = {"w": DepthL2(STRENGTH), "b": DepthL2(STRENGTH)}
    return with_end_weight(Training(network, np.array(starts).T, loss, (0.0, length), layers, regularizers=penalties,
                                    tracking=1.0))  # fmt: skip


def labelled(config: Config, length: float, layers: int) -> Training:
    """Space-time network on Gauss labels, two samples; a mean and a slope of the field are tracked."""
    grid = Grid.interval(config.labels, rule="gauss")
    x, q = grid.nodes, grid.weights
    knots = np.linspace(0.0, length, layers + 1)
    zero = np.zeros((config.labels, config.labels))
    model = SpaceTimeNetwork(OperatorPath(knots, [Dense(grid, zero) for _ in range(layers)]), "tanh",
                             Controls(knots, np.zeros((layers, config.labels))), placement="inside",
                             n_samples=2)  # fmt: skip
    problem = Training(
        model,
        np.array([1.5 * np.cos((k + 1) * np.pi * x) for k in range(2)]),
        Squared(np.array([[0.5, -0.4], [0.3, 0.5]]) * (1 + config.planted)),
        (0.0, length),
        layers,
        readout=Readout(np.array([np.ones_like(x), math.sqrt(3.0) * (2.0 * x - 1.0)])),
        regularizers={"weight": DepthL2(WEIGHT, np.outer(q, q)), "bias": DepthL2(WEIGHT, q)},
        tracking=1.0,
    )
    return with_end_weight(problem)


def solved(run: RunFile, label: str, problem: Training, tolerance: float = 1e-10, limit: int = 3000) -> Course:
    """Course of the optimum that L-BFGS finds, stored."""
    found = run.optimum(label, problem, tolerance=tolerance, max_iterations=limit).raise_for_status()
    return Course.along(problem, found.model)


def said(run: RunFile, claim: str, kind: str, arcs: Arcs, source: str = EGPZ) -> None:
    """Verdict that the program names a kind; the reason is what it says."""
    run.near(f"{claim}: said to be {kind}", 1.0, float(arcs.kind == kind), tolerance=0.5, relative=False,
             reason=arcs.sentence, source=source)  # fmt: skip


def predicted(problem: Training) -> LinearQuadratic:
    """Linearisation at the steady pair of a problem."""
    return linearised(problem, steady_pair(problem).raise_for_status())


def keep(run: RunFile, label: str, course: Course, distance: np.ndarray, rate: float = 0.0) -> None:
    """Store a distance over depth, and the rate that is predicted for it, for the figure."""
    run.once(label, lambda: {"t": course.t, "distance": distance, "rate": np.full(len(distance), rate)},
             (label, rate, distance))  # fmt: skip


def linear_quadratic(config: Config, run: RunFile) -> None:
    """x' = u with tracking, with and without a weight of the end, layer by layer against the closed form."""
    length = 6.0
    layers = round(length * config.layers)
    h = length / layers
    for beta in (0.0, 1.5):
        exact = Turnpike(START, TARGET, PENALTY, length, beta)
        problem = scalar("additive", length, layers, Squared([TARGET * (1 + config.planted)]), end=beta)
        course = solved(run, f"lq_{beta:g}", problem, 1e-12)
        error = course.x[:, 0, 0] - TARGET * (1 + config.planted)
        words = f"weight {beta:g} of the end"
        run.at_most(f"LQ states, {words}: largest difference from the closed form of Euler layers", 1e-8,
                    float(np.abs(course.x[:, 0, 0] - TARGET - exact.discrete_error(layers)).max()),
                    reason="gradient below 1e-12", source=EGPZ)  # fmt: skip
        run.near(f"LQ: exponent fitted to the layers, {words}", exact.discrete_rate(h),
                 fit_two_arcs(course.t, error).rate, tolerance=1e-8, reason="both arcs in one fit, exact for any T",
                 source=EGPZ)  # fmt: skip
        linear = predicted(problem)
        run.near(f"LQ: exponent of the Hamiltonian system, {words}", exact.discrete_rate(h), linear.discrete_rate(h),
                 tolerance=1e-8, reason="an eigenvalue", source=EGPZ)  # fmt: skip
        run.near(f"LQ: exponent in the limit of many layers, {words}", exact.rate, linear.rate, tolerance=1e-8,
                 reason="an eigenvalue", source=EGPZ)  # fmt: skip
        if beta == 0.0:
            run.at_most("LQ: u(T), last layer without a cost of the end", 1e-12, abs(float(course.theta[-1, 0])),
                        reason="gradient below 1e-12")  # fmt: skip
        keep(run, f"lq_course_{beta:g}", course, np.abs(error))


def drifting(config: Config, run: RunFile) -> None:
    """x' = x/2 + b is at rest only with b = -x/2: a steady pair with a parameter, a costate, and two arcs."""
    drift, length = 0.5, 8.0
    layers = round(length * config.layers)
    h = length / layers
    problem = scalar("additive", length, layers, Squared([TARGET * (1 + config.planted)]), drift=drift)
    pair = steady_pair(problem).raise_for_status()
    course = solved(run, "drift", problem, 1e-12)
    linear = linearised(problem, pair)
    state = TARGET / (1.0 + PENALTY * drift**2)
    run.near("state of the steady pair with a drift, y/(1 + lam a^2)", state, float(pair.x[0, 0]), tolerance=1e-8,
             reason="Newton steps to 1e-10", source=EGPZ)  # fmt: skip
    middle = float(course.x[len(course.t) // 2, 0, 0])
    run.near("the middle of the solution with a drift is at the steady pair", state, middle, tolerance=1e-2,
             reason="arcs of e^{-mu T/2}, layers of h", source=EGPZ)  # fmt: skip
    run.near("steady pair with a drift: exponent in the limit, sqrt(a^2 + 1/lam)", math.hypot(drift, PENALTY**-0.5),
             linear.rate, tolerance=1e-8, reason="an eigenvalue", source=EGPZ)  # fmt: skip
    deviation = course.x[:, 0, 0] - pair.x[0, 0]
    run.near("steady pair with a drift: exponent fitted to both arcs", linear.discrete_rate(h),
             fit_two_arcs(course.t, deviation).rate, tolerance=1e-6, reason="linear: exact for any T",
             source=EGPZ)  # fmt: skip
    said(run, "steady pair with a drift: exponent of the arc out", "exponential",
         classify_arcs(length - course.t[::-1], np.abs(deviation)[::-1], window=(0.1, 0.4)))  # fmt: skip


def nonlinear(config: Config, run: RunFile) -> None:
    """x' = w x and x' = w tanh x against quadratures, on a short depth, and their exponents, on a long one."""
    counts = 16 * 2 ** np.arange(config.halvings + 1)
    target = Squared([TARGET * (1 + config.planted)])
    for kind, gain in GAINS.items():
        exact = ScalarTracking(START, PowerLoss(TARGET), 0.5 * PENALTY, 2.0, gain)
        costs = np.array([
            run.optimum(f"{kind}_rk4_{n}", scalar(kind, 2.0, n, target, scheme="rk4"), tolerance=1e-10)
            .raise_for_status().value for n in counts.tolist()
        ])  # fmt: skip
        run.near(f"{WORDS[kind]}: least cost, extrapolated from Runge-Kutta steps, against a quadrature", exact.cost,
                 float(4.0 * costs[-1] - costs[-2]) / 3.0, tolerance=1e-6, reason="O(h^4) is left")  # fmt: skip
        differences = np.abs(np.diff(costs))
        run.near(f"power of h in the least cost of Runge-Kutta steps, {WORDS[kind]}", 2.0,
                 fit_rate(1 / counts[-3:-1], differences[-2:]).slope, tolerance=0.1, relative=False,
                 reason="controls are constant over a layer")  # fmt: skip
        for length in (9.0, 12.0):
            layers = round(length * config.layers)
            right = predicted(scalar(kind, length, layers, Squared([TARGET])))
            problem = scalar(kind, length, layers, target)
            course = solved(run, f"{kind}_{length:g}", problem)
            deviation = course.outputs - steady_pair(problem).outputs
            run.near(f"{WORDS[kind]}: exponent fitted, T = {length:g}", right.discrete_rate(length / layers),
                     fit_two_arcs(course.t, deviation, (0.4 * length, 0.8 * length)).rate, tolerance=0.01,
                     reason="of the linearisation; squares of the deviation are small there", source=EGPZ)  # fmt: skip
        run.near(f"{WORDS[kind]}: exponent of the linearisation is g(y)/sqrt(lam)", gain(TARGET) / math.sqrt(PENALTY),
                 predicted(problem).rate, tolerance=1e-8, reason="an eigenvalue")  # fmt: skip


def identity(config: Config, run: RunFile) -> None:
    """lam |theta(t)|^2 = E(x(t)) - E(x(T)) without a cost of the end, at O(h)."""
    counts = 64 * 2 ** np.arange(config.halvings)
    target = Squared([TARGET * (1 + config.planted)])
    makers = {
        "multiplicative": partial(scalar, "multiplicative", 2.0, loss=target),
        "tanh": partial(scalar, "tanh", 2.0, loss=target),
        "points": partial(points, TARGETS, STARTS, 2.0, planted=config.planted),
    }
    for kind, made in makers.items():
        courses = [solved(run, f"identity_{kind}_{n}", made(layers=n), 1e-9) for n in counts.tolist()]
        gaps = np.array([np.abs(course.energy_gap).max() for course in courses])
        run.near(f"identity: power of h in the largest gap of lam |theta|^2 = E(t) - E(T), {WORDS[kind]}", 1.0,
                 fit_rate(1 / counts[-2:], gaps[-2:]).slope, tolerance=0.1, relative=False, reason="Euler layers",
                 source=EGPZ)  # fmt: skip
        last = max(float(np.abs(course.theta[-1]).max()) for course in courses)
        bound = 1e-9 / (2.0 * STRENGTH * math.sqrt(2.0 / counts[-1]))
        run.at_most(f"no end cost: largest parameter of the last layer, {WORDS[kind]}", bound, last,
                    reason="gradient below 1e-9, over 2 lam and the root of h", source=EGPZ)  # fmt: skip
        run.once(f"gaps_{kind}", lambda gaps=gaps: {"layers": counts.astype(np.float64), "gap": gaps}, gaps)


def judged(run: RunFile, words: str, course: Course, sizes: dict[str, np.ndarray], rate: float,
           window: tuple[float, float]) -> dict[str, float]:  # fmt: skip
    """Verdicts on the exponents of quantities; returns their constants C."""
    length, constants = float(course.t[-1]), {}
    for name, values in sizes.items():
        t = course.t[: len(values)]
        arcs = classify_arcs(t, values, quantity=name, window=window)
        said(run, f"{words}: {name}, T = {length:g}", "exponential", arcs)
        run.near(f"{words}: exponent of {name}, T = {length:g}", rate, arcs.entering.value, tolerance=0.01,
                 reason="predicted by the linearisation", source=EGPZ)  # fmt: skip
        constants[name] = arc_constant(t, values, rate)
    return constants


def alike(run: RunFile, words: str, constants: list[dict[str, float]]) -> None:
    """Verdicts on the constants of several T."""
    for name in constants[0]:
        found = [each[name] for each in constants]
        run.at_most(f"C does not depend on T: {words}, {name} <= C (e^-mu t + e^-mu (T - t)), largest over least C",
                    1.01, max(found) / min(found), reason="ends do not see each other beyond e^-mu T",
                    source=EGPZ)  # fmt: skip


def several_points(config: Config, run: RunFile) -> None:
    """Three points in the plane: exponents of the Gram matrix; a fourth point, which is stuck."""
    constants = []
    for length in (12.0, 16.0):
        layers = round(length * config.layers) // 2
        h = length / layers
        right = predicted(points(TARGETS, STARTS, length, layers, 0.0))
        problem = points(TARGETS, STARTS, length, layers, config.planted)
        pair = steady_pair(problem).raise_for_status()
        course = solved(run, f"points_{length:g}", problem)
        sizes = {"|x - x_bar|": course.state_distance(pair), "|theta|": course.control_distance(pair)}
        constants.append(judged(run, "three points", course, sizes, right.discrete_rate(h), (0.35, 0.6)))
        deviation = (course.x - pair.x).reshape(len(course.t), -1)
        # The second one hardly depends on the targets: it is taken from those of the training.
        for number, linear in enumerate((right, linearised(problem, pair))):
            row = linear.modes()[1].real[2 * number : 2 * number + 2]
            fitted = fit_two_arcs(course.t, deviation @ row.T, (0.3 * length, 0.5 * length)).rate
            run.near(f"three points: exponent {number + 1} of the Gram matrix, fitted to its mode, T = {length:g}",
                     float(linear.discrete_exponents(h)[2 * number]), fitted, tolerance=0.01,
                     reason="quadratic terms decay faster", source=EGPZ)  # fmt: skip
        keep(run, f"points_course_{length:g}", course, sizes["|x - x_bar|"], right.discrete_rate(h))
    alike(run, "three points", constants)
    gram = np.tanh(np.array(TARGETS)) @ np.tanh(np.array(TARGETS)).T + 1.0
    roots = np.sqrt(np.linalg.eigvalsh(gram) / (2.0 * STRENGTH * len(TARGETS)))
    apart = float(np.abs(predicted(problem).exponents - np.repeat(roots, 2)).max())
    run.at_most("three points: exponents of the linearisation against the Gram matrix", 1e-8, apart,
                reason="eigenvalues", source=EGPZ)  # fmt: skip
    four = predicted(points((*TARGETS, FOURTH), (*STARTS, FOURTH), 1.0, 8, config.planted))
    run.near("four points: directions that no control moves, of 8", 2.0, four.stuck, tolerance=0.5, relative=False,
             reason="W tanh(x) + b has three columns")  # fmt: skip


def limit(config: Config, run: RunFile) -> None:
    """Infinitely many layers for three points: the Euler-Lagrange equations, solved by collocation."""
    length = 12.0
    layers = max(round(length * config.layers), 120)
    right = predicted(points(TARGETS, STARTS, length, layers, 0.0))
    # Fine enough for Newton steps to converge from.
    problem = points(TARGETS, STARTS, length, layers, config.planted)
    pair = steady_pair(problem).raise_for_status()
    guess = run.optimum("limit_guess", problem, tolerance=1e-8, max_iterations=3000)

    def table() -> dict[str, np.ndarray]:
        found = extremal(problem, guess, tolerance=1e-5).raise_for_status()
        t = np.linspace(0.0, length, 241)
        x, w, b = found.state(t), found.parameters["w"](t), found.parameters["b"](t)
        errors = x - np.array(TARGETS).T * (1 + config.planted)
        return {
            "t": t,
            "distance": np.sqrt(((x - pair.x) ** 2).sum(axis=1).mean(axis=1)),
            "penalty": STRENGTH * ((w**2).sum(axis=(1, 2)) + (b**2).sum(axis=1)),
            "energy": (errors**2).sum(axis=(1, 2)) / (2.0 * len(TARGETS)),
        }

    found = run.once("limit", table, (problem, guess.flat))
    arcs = classify_arcs(found["t"], found["distance"], window=(0.35, 0.6))
    run.near("limit of many layers, three points: exponent of |x - x_bar|, by collocation", right.rate,
             arcs.entering.value, tolerance=0.005, reason="predicted by the linearisation", source=EGPZ)  # fmt: skip
    gap = found["penalty"] - (found["energy"] - found["energy"][-1])
    run.at_most("identity lam |theta|^2 = E(t) - E(T) in the limit of many layers, by collocation", 1e-6,
                float(np.abs(gap).max()), reason="residuals of 1e-5", source=EGPZ)  # fmt: skip


def outside(config: Config, run: RunFile) -> None:
    """sigma(W x + b): tanh has the exponents of its linearisation, ReLU, which moves one way, those of W x + b."""
    two = ((1.0, 0.2), (0.2, 1.1)), ((0.8, 0.5), (0.5, 0.8))
    one = ((TARGET,),), ((START,),)
    for sigma, smooth, length, (targets, starts) in (("tanh", "tanh", 10.0, two), ("relu", "identity", 2.5, one)):
        layers = round(length * config.layers * (1 if sigma == "tanh" else 3))
        right = predicted(points(targets, starts, length, layers, 0.0, "outside", smooth))
        problem = points(targets, starts, length, layers, config.planted, "outside", sigma)
        # Layers that are off are at the kink of ReLU, where gradients do not get smaller.
        course = solved(run, f"outside_{sigma}", problem, 1e-10 if sigma == "tanh" else 1e-7)
        distance = course.state_distance(steady_pair(problem).raise_for_status())
        arcs = classify_arcs(course.t, distance, window=(0.4, 0.65))
        said(run, f"x' = {sigma}(W x + b): |x - x_bar|", "exponential", arcs)
        run.near(f"exponent of x' = {sigma}(W x + b) is that of the Gram matrix x_s.x_r + 1",
                 right.discrete_rate(length / layers), arcs.entering.value, tolerance=0.01,
                 reason="predicted by the linearisation", source=EGPZ)  # fmt: skip


def space_time(config: Config, run: RunFile) -> None:
    """A space-time network that tracks two integrals of its field: a turnpike in what is seen."""
    constants = []
    for length in (7.0, 9.0):
        # Rounding of J leaves gradients of some 1e-8.
        layers = round(length * min(config.layers, 20))
        h = length / layers
        problem = residual_form(labelled(config, length, layers))
        course = solved(run, f"labelled_{length:g}", problem, 1e-7)
        pair = steady_pair(problem, course.x[-1]).raise_for_status()
        linear = linearised(problem, pair)
        outputs = np.array([[0.5, -0.4], [0.3, 0.5]])
        distance = np.sqrt(((course.outputs - outputs) ** 2).sum(axis=1).mean(axis=1))
        sizes = {"|P x - y|": distance, "|theta|": course.control_distance(pair)}
        constants.append(judged(run, "space-time network", course, sizes, linear.discrete_rate(h), (0.4, 0.65)))
        keep(run, f"labelled_course_{length:g}", course, distance, linear.discrete_rate(h))
    alike(run, "space-time network", constants)
    run.near("space-time network: directions that the running cost does not see", 2 * (config.labels - 2),
             linear.hidden, tolerance=0.5, relative=False,
             reason="two integrals of each of two fields are tracked")  # fmt: skip


def kinds(config: Config, run: RunFile) -> None:
    """Losses |x - y|^p/p: algebraic for p > 2, extinct for p < 2; logistic loss and cross-entropy: algebraic."""
    goal = 1.0 + config.planted
    lam = 0.5 * PENALTY
    cases = {4.0: ("algebraic", 40.0, (0.0, 0.2)), 2.0: ("exponential", 6.0, (0.05, 0.6)),
             1.5: ("finite-time", 2.4, (0.0, 0.75)), 1.25: ("finite-time", 1.5, (0.0, 0.75))}  # fmt: skip
    for p, (kind, length, window) in cases.items():
        layers = round(16 * config.layers if p == 4.0 else length * 2 * config.layers)
        problem = scalar("additive", length, layers, LpDistance([goal], p), start=0.0)
        course = solved(run, f"power_{p:g}", problem, 1e-4 if p < 2.0 else 1e-9)
        error = np.abs(course.outputs[:, 0, 0] - goal)
        arcs = classify_arcs(course.t, error, window=window)
        said(run, f"power {p:g} of the error", kind, arcs)
        run.near(f"power {p:g}: m of e' = -c e^m is p/2", 0.5 * p, arcs.entering.shape, tolerance=0.02, relative=False,
                 reason="lam u^2 = |e|^p/p over long times, and layers of h")  # fmt: skip
        if p < 2.0:
            run.near(f"extinction: depth for the power {p:g}", PowerExtinction(0.0, 1.0, lam, p).time,
                     arcs.entering.value, tolerance=0.005, reason="closed form, and layers of h")  # fmt: skip
        keep(run, f"kind_{p:g}", course, error)
    logistic(config, run)


def logistic(config: Config, run: RunFile) -> None:
    """Logistic loss of a scalar, and cross-entropy of three points in the plane: no steady pair."""
    lam, start, finals = 0.0025, 4.0, []
    for length in (25.0, 50.0):
        layers = round(16 * config.layers * length / 40.0)
        problem = scalar("additive", length, layers, Logistic([1]), start=start, penalty=DepthL2(lam))
        course = solved(run, f"logistic_{length:g}", problem, 1e-11)
        exact = ScalarTracking(start, LogisticLoss(), lam, length)
        run.near(f"logistic loss at the end against a quadrature, T = {length:g}", exact.end_loss,
                 float(course.running[-1]), tolerance=0.02, reason="layers of h")  # fmt: skip
        finals.append(length**2 * exact.end_loss)
    run.near("logistic: T^2 l(x(T)) tends to pi^2 lam", math.pi**2 * lam, 2 * finals[1] - finals[0], tolerance=0.01,
             reason="extrapolated in 1/T")  # fmt: skip
    said(run, "logistic loss", "algebraic", classify_arcs(course.t, course.running, quantity="the loss",
                                                         window=(0.0, 0.08)))  # fmt: skip
    arcs = classify_arcs(course.t, course.running, quantity="the loss", window=(0.0, 0.08))
    run.near("logistic: power of 1/t", 2.0, arcs.entering.value, tolerance=0.05,
             reason="l = 4 lam/(t + t0)^2 for T to infinity")  # fmt: skip
    pair = steady_pair(problem)
    run.near("logistic: no steady pair is found", 1.0, float(pair.status.value != "finished"), tolerance=0.5,
             relative=False, reason=pair.message)  # fmt: skip
    keep(run, "kind_logistic", course, course.running)
    cross_entropy(config, run)


def cross_entropy(config: Config, run: RunFile) -> None:
    """Three classes in the plane, x' = W tanh x + b, outputs along three directions."""
    angles = 2.0 * math.pi * np.arange(3) / 3.0 + 0.3
    directions = np.column_stack([np.cos(angles), np.sin(angles)])
    length, layers = 40.0, 16 * config.layers
    knots = np.linspace(0.0, length, layers + 1)
    start = Controls(knots, np.full((layers, 2, 2), 0.01)), Controls(knots, np.zeros((layers, 2)))
    network = ResidualNetwork(Velocity.inside("tanh", *start), 3)
    penalties = {"w": DepthL2(0.0025), "b": DepthL2(0.0025)}
    problem = with_end_weight(Training(
        network, 3.0 * directions.T, CrossEntropy(np.arange(3)), (0.0, length), layers, readout=Readout(directions),
        regularizers=penalties, tracking=1.0,
    ))  # fmt: skip
    course = solved(run, "cross_entropy", problem, 1e-9)
    arcs = classify_arcs(course.t, course.running, quantity="the loss", window=(0.01, 0.12))
    said(run, "cross-entropy of three points in the plane", "algebraic", arcs)
    run.near("cross-entropy: power of 1/t", 2.0, arcs.entering.value, tolerance=0.1,
             reason="margins grow as 2 log t, as for the logistic loss")  # fmt: skip
    keep(run, "kind_cross_entropy", course, course.running)


def two_layers(start: float, target: float, length: float, layers: int, strength: float) -> Training:
    """x' = v relu(w x + b) with all three penalised, from layers of which the first does most."""
    knots, way = np.linspace(0.0, length, layers + 1), target - start
    size = np.full(layers, 0.1)
    size[0] = math.sqrt(0.5 * abs(way) * layers / length)
    velocity = Velocity.two_layer(
        "relu",
        Controls(knots, np.copysign(size, way).reshape(-1, 1, 1)),
        Controls(knots, np.copysign(size, start).reshape(-1, 1, 1)),
        Controls(knots, size.reshape(-1, 1)),
    )
    penalties = {name: DepthL2(strength) for name in "vwb"}
    return with_end_weight(Training(
        ResidualNetwork(velocity, 1), [[start]], Squared([target]), (0.0, length), layers, regularizers=penalties,
        tracking=1.0, trained=("v", "w", "b"),
    ))  # fmt: skip


def paid(course: Course) -> float:
    """J of Euler layers without a cost of the end."""
    return float(np.diff(course.t) @ course.running[:-1] + np.diff(course.knots) @ course.penalty)


def impulses(config: Config, run: RunFile) -> None:
    """Two layers of degree 2: the penalty of a way does not depend on the time it takes, and is paid at t = 0."""
    counts, length, strength = 8 * 2 ** np.arange(config.halvings + 3), 4.0, 0.3
    falling = [solved(run, f"falling_{n}", two_layers(1.5, 0.5 * (1 + config.planted), length, n, strength), 1e-8)
               for n in counts.tolist()]  # fmt: skip
    exact = Impulse(1.5, 0.5, length, two_layer_price(1.5, strength))
    run.verdict(Verdict.at_least("two layers: penalty of the first over that of all, |x| falling, least of all depths",
                                 0.999, min(c.concentration.first for c in falling),
                                 reason="the price of a way rises along it", source=EGPZ))  # fmt: skip
    run.near("least cost of two layers, |x| falling, against the closed form of n layers", exact.cost(int(counts[-1])),
             paid(falling[-1]), tolerance=1e-7, reason="gradient below 1e-8")  # fmt: skip
    linear = predicted(two_layers(1.5, 0.5, length, 8, strength))
    run.near("two layers: depth has no exponent; directions that no control moves", 1.0, linear.stuck, tolerance=0.5,
             relative=False, reason=linear.summary)  # fmt: skip
    # Away from 0 the way gets cheaper: a few layers share it, over a depth that shrinks as the root of h.
    rising = [solved(run, f"rising_{n}", two_layers(0.5, 2.0 * (1 + config.planted), length, n, strength), 1e-6)
              for n in counts.tolist()]  # fmt: skip
    run.near("two layers: depth over which nine tenths of the penalty are paid, |x| rising, power of h", 0.5,
             impulse_power(rising[-3:]), tolerance=0.1, relative=False,
             reason="a layer more costs h, n layers gain 1/n")  # fmt: skip
    for words, courses in (("falling", falling[-3:]), ("rising", rising[-3:])):
        arcs = classify_arcs(courses[-1].t, courses[-1].running, window=(0.0, 1.0), power=impulse_power(courses))
        said(run, f"two layers: |x| {words}", "concentrated", arcs)
    costs = np.array([paid(course) for course in rising])
    # In powers of the root of h: two extrapolations.
    once = (math.sqrt(2.0) * costs[1:] - costs[:-1]) / (math.sqrt(2.0) - 1.0)
    run.near("infimum of two layers, |x| rising, extrapolated in the root of h", two_layer_infimum(0.5, 2.0, length,
             strength), float(2.0 * once[-1] - once[-2]), tolerance=0.02, reason="O(h^{3/2}) is left")  # fmt: skip
    run.at_most("two layers: limit of the least cost of Euler layers, |x| falling, over the infimum of the ODE", 0.95,
                (2.0 * paid(falling[-1]) - paid(falling[-2])) / two_layer_infimum(1.5, 0.5, length, strength),
                reason="a layer pays the price of its start however far it goes")  # fmt: skip
    run.once("impulses", lambda: {"layers": counts.astype(np.float64), "falling": np.array([c.concentration.depth for c
             in falling]), "rising": np.array([c.concentration.depth for c in rising])}, costs)  # fmt: skip
    norms(config, run)


def norms(config: Config, run: RunFile) -> None:
    """x' = u under |u| in the place of |u|^2: the first layer pays all, the error stays at price/(T - h)."""
    length, layers, price = 4.0, 32, 0.6
    target = TARGET * (1 + config.planted)
    exact = Impulse(START, TARGET, length, price)
    penalty = DepthNorm(price, 1e-3)
    course = solved(run, "norm", scalar("additive", length, layers, Squared([target]), penalty=penalty), 1e-7)
    run.verdict(Verdict.at_least("|u|: penalty of the first layer over all", 0.99, course.concentration.first,
                                 reason="smoothed at 1e-3", source=EGPZ))  # fmt: skip
    run.near("state after the first layer under |u|: y - price/(T - h)", TARGET + exact.error(layers),
             float(course.x[1, 0, 0]), tolerance=5e-3, reason="linear in the smoothing")  # fmt: skip
    keep(run, "norm_course", course, np.abs(course.outputs[:, 0, 0] - target))


SECTIONS = (
    linear_quadratic,
    drifting,
    nonlinear,
    identity,
    several_points,
    limit,
    outside,
    space_time,
    kinds,
    impulses,
)


def run(config: Config, run_file: RunFile) -> None:
    """Run every section."""
    for section in SECTIONS:
        section(config, run_file)


def figure(run: Run, path: Path) -> None:
    """Six panels: LQ, identity, points, space-time network, kinds of decay, impulses."""
    with style() as plt:
        drawing, axes = plt.subplots(2, 3, figsize=(12.5, 7.4), layout="constrained")
        draw_lq(axes[0, 0], run)
        draw_identity(axes[0, 1], run)
        draw_courses(axes[0, 2], run, "points_course", "Three points, x' = W tanh x + b", "|x - steady state|")
        draw_courses(axes[1, 0], run, "labelled_course", "Space-time network, two integrals", "|P x - y|")
        draw_kinds(axes[1, 1], run)
        draw_impulses(axes[1, 2], run)
        save(drawing, path)


def draw_lq(axis: Any, run: Run) -> None:
    """Draw layers of the linear-quadratic problem on the closed form."""
    for i, beta in enumerate((0.0, 1.5)):
        table = run.tables[f"lq_course_{beta:g}"]
        exact = Turnpike(START, TARGET, PENALTY, float(table["t"][-1]), beta)
        axis.semilogy(table["t"], table["distance"], ".", ms=3, color=COLOURS[i], label=f"layers, end weight {beta:g}")
        axis.semilogy(table["t"], np.abs(exact.error(table["t"])), color=COLOURS[i], lw=0.8, label="limit")
    axis.set(title="x' = u, tracking of y", xlabel="depth t", ylabel="|x - y|")
    axis.legend(fontsize=7)


def draw_identity(axis: Any, run: Run) -> None:
    """Draw the gap of the identity of energies over the layers."""
    for i, (kind, words) in enumerate(WORDS.items()):
        table = run.tables[f"gaps_{kind}"]
        axis.loglog(table["layers"], table["gap"], "o-", ms=4, color=COLOURS[i], label=words)
    axis.loglog(table["layers"], 2.0 / table["layers"], color="0.7", lw=0.8, label="slope -1")
    axis.set(title="Identity of energies", xlabel="layers", ylabel="largest |lam |theta|^2 - E(t) + E(T)|")
    axis.set_xticks(table["layers"], [f"{int(n)}" for n in table["layers"]])
    axis.minorticks_off()
    axis.legend(fontsize=7)


def draw_courses(axis: Any, run: Run, prefix: str, title: str, ylabel: str) -> None:
    """Draw distances from the turnpike for several T."""
    tables = [table for name, table in run.tables.items() if name.startswith(prefix)]
    for i, table in enumerate(sorted(tables, key=lambda table: float(table["t"][-1]))):
        axis.semilogy(table["t"], np.maximum(table["distance"], 1e-12), color=COLOURS[i], ls=("-", "--")[i % 2],
                      label=f"T = {table['t'][-1]:g}")  # fmt: skip
    last = max(tables, key=lambda table: float(table["t"][-1]))
    t, middle = last["t"], len(last["t"]) // 2
    line = 3.0 * last["distance"][middle] * np.exp(last["rate"] * (t[middle] - t))
    axis.semilogy(t, line, color="0.6", lw=0.8, label=f"slope predicted, -{last['rate'][0]:.3f}")
    axis.set(title=title, xlabel="depth t", ylabel=ylabel)
    axis.legend()


def draw_kinds(axis: Any, run: Run) -> None:
    """Draw errors and losses that decay in different ways."""
    words = {"kind_4": "error, loss |e|^4/4", "kind_2": "error, loss |e|^2/2", "kind_1.5": "error, loss |e|^1.5/1.5",
             "kind_logistic": "logistic loss", "kind_cross_entropy": "cross-entropy",
             "norm_course": "error, penalty |u|"}  # fmt: skip
    for i, (name, label) in enumerate(words.items()):
        table = run.tables[name]
        axis.loglog(table["t"][1:], np.maximum(table["distance"][1:], 1e-7), color=COLOURS[i], label=label)
    axis.set(title="Not all is exponential", xlabel="depth t", ylabel="error or loss")
    axis.legend(fontsize=7)


def draw_impulses(axis: Any, run: Run) -> None:
    """Draw the depth over which the penalty of two layers is paid."""
    table = run.tables["impulses"]
    axis.loglog(table["layers"], table["falling"], "o-", ms=4, color=COLOURS[0], label="|x| falling: the first layer")
    axis.loglog(table["layers"], table["rising"], "o-", ms=4, color=COLOURS[1], label="|x| rising: slope -1/2")
    axis.set(
        title="x' = v relu(w x + b): nine tenths of the penalty", xlabel="layers", ylabel="depth they are paid over"
    )
    axis.set_xticks(table["layers"], [f"{int(n)}" for n in table["layers"]])
    axis.minorticks_off()
    axis.legend(fontsize=7)


EXPERIMENT = Experiment(
    name="turnpike",
    config=Config,
    run=run,
    figure=figure,
    smoke={"layers": 8, "labels": 8, "halvings": 2},
    full={"layers": 40, "labels": 32, "halvings": 5},
    references=(EGPZ,),
    description=(__doc__ or "").split("\n")[0],
)


def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line."""
    return EXPERIMENT.main(argv)


if __name__ == "__main__":
    sys.exit(main())
