"""Hamiltonians of the layers of a network, and their minimisers.

    H_k(theta) = sum_j <p_{k+1,j}, v(x_{k,j}, theta)> + r(x_k) + lam |theta|^2,      p = + dJ/dx

With Euler steps x_{k+1} = x_k + h v(x_k, theta_k) the gradient of J in theta_k is h times that of H_k, so that
layers of an optimum are stationary points of their Hamiltonians. Where v is linear in theta they minimise them; else
minimisers in every layer are what the limit of many layers asks for. A layer of several steps has the mean over them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_float
from meanfield.controls import Controls
from meanfield.errors import ConfigError, NumericalError
from meanfield.learning.training import Network, Training
from meanfield.models.residual import ResidualNetwork
from meanfield.parallel import blas_single_thread
from meanfield.planning import step_grid
from meanfield.regularizers import DepthL2, Total
from meanfield.schemes import EULER, StepGrid
from meanfield.schemes import scheme as scheme_of
from meanfield.velocities import NAMES, Velocity

Array = NDArray[np.float64]
Layers = dict[str, Array]
Extra = Callable[[Layers], tuple[Array, Layers]]

# Of the L-BFGS iterations that minimise all Hamiltonians at once where the velocity is not linear in theta.
_ITERATIONS, _SLOPE = 500, 1e-11


@dataclass(frozen=True, eq=False)
class LayerHamiltonian:
    """Hamiltonians of all layers as functions of their parameters, states and costates held; made by `along`.

    Parameters of all layers are a mapping name -> (K, ...), as the values of `Controls` are.

    Attributes
    ----------
    velocity
        v, with the parameters that are not trained.
    x
        States x_0 .. x_S at the ends of the steps, (S + 1, d, n).
    p
        Costates dJ/dx_0 .. dJ/dx_S, the shape of x.
    lengths
        Lengths of the steps, (S,).
    layer
        Layer of every step, (S,).
    depths
        Lengths of the layers, (K,).
    running
        Running cost of each layer, (K,).
    fixed
        All parameters of the network at every step, name -> (S, ...).
    penalty
        lam times the weights, name of a trained parameter -> the shape of that parameter at one depth.
    """

    velocity: Velocity
    x: Array
    p: Array
    lengths: Array
    layer: NDArray[np.intp]
    depths: Array
    running: Array
    fixed: Layers
    penalty: Layers

    @classmethod
    def along(cls, problem: Training, model: Network | None = None) -> LayerHamiltonian:
        """Hamiltonians along the trajectory of a network, by default that of the problem.

        Raises
        ------
        ConfigError
            For a space-time network (see `residual_form`), steps other than Euler's, a trained output map, trained
            parameters that are not piecewise constant on one grid of layers over the whole span, or regularisers other
            than `DepthL2`.
        NumericalError
            If the state is no longer finite.
        """
        model = _residual(problem.model if model is None else model)
        knots = _knots(problem)
        grid = step_grid(model, problem.t_span, n_steps=problem.n_steps)
        times, lengths = grid.steps(EULER, 0, grid.n_steps)
        layer = np.searchsorted(knots, times[:, 0] + 0.5 * lengths, side="right") - 1
        x, p, running = _trajectories(problem, model, grid)
        depths = np.diff(knots)
        rows = [model.velocity.at(t) for t in times[:, 0].tolist()]
        fixed = {name: np.array(part) for name, part in zip(NAMES, zip(*rows, strict=True), strict=False)}
        penalty = {name: _penalty(problem, name) for name in problem.trained or ()}
        cost = np.bincount(layer, lengths * running, len(depths)) / depths
        return cls(model.velocity, x, p, lengths, layer, depths, cost, fixed, penalty)

    @property
    def linear(self) -> bool:
        """Whether v is seen to be linear in the trained parameters together, so that minimisers have a closed form."""
        form = self.velocity.form
        plain = form == "outside" and self.velocity.activation.name == "identity"
        return form == "inside" or plain or set(self.penalty) <= {"v", "c"}

    def values(self, theta: Mapping[str, Array]) -> Array:
        """H_k(theta_k), (K,)."""
        v, _ = self._layers_of_neurons(theta)
        total = self.mean(np.einsum("sin,sin->s", self.p[1:], v)) + self.running
        for name, strength in self.penalty.items():
            total += (strength * theta[name] ** 2).reshape(len(total), -1).sum(axis=1)
        return np.asarray(total)

    def gradient(self, theta: Mapping[str, Array]) -> Layers:
        """Derivatives of H_k in theta_k, name -> (K, ...); times the depths of the layers those of J."""
        pulls = self.pulls(theta)
        return {name: pulls[name] + 2.0 * strength * theta[name] for name, strength in self.penalty.items()}

    def norms(self, layers: Mapping[str, Array]) -> Array:
        """Euclidean norm of the parameters of every layer, (K,)."""
        squares = sum(np.square(part).reshape(len(part), -1).sum(axis=1) for part in layers.values())
        return np.asarray(np.sqrt(squares))

    def size(self, layers: Mapping[str, Array]) -> float:
        """Norm of the parameters in L2 over depth."""
        return float(np.sqrt(self.depths @ self.norms(layers) ** 2))

    def minimised(self, theta: Mapping[str, Array], rho: float = 0.0) -> Layers:
        """Minimisers of H_k(.) + (rho/2) |. - theta_k|^2, name -> (K, ...).

        Where v is linear (rho theta_k - g)/(2 lam + rho) with g the gradient of the first term, else what L-BFGS finds
        from theta_k, never above it.

        Raises
        ------
        ConfigError
            For rho < 0, or where neither rho nor a penalty keeps a parameter bounded.
        """
        rho = finite_float("rho", rho, least=0.0)
        self.check_bounded(rho)
        if self.linear:
            pulls = self.pulls(theta)
            return {
                name: (rho * theta[name] - pulls[name]) / (2.0 * strength + rho)
                for name, strength in self.penalty.items()
            }

        def proximal(new: Layers) -> tuple[Array, Layers]:
            moves = {name: new[name] - theta[name] for name in new}
            return 0.5 * rho * self.norms(moves) ** 2, {name: rho * move for name, move in moves.items()}

        return self.descended(theta, proximal)

    def check_bounded(self, rho: float = 0.0) -> None:
        """Raise `ConfigError` where neither a penalty nor rho keeps a parameter bounded."""
        for name, strength in self.penalty.items():
            if not (2.0 * strength + rho > 0.0).all():
                raise ConfigError(f"parameter {name!r} has no penalty: give DepthL2 with a strength > 0, or rho > 0")

    def minima(self, theta: Mapping[str, Array]) -> Array:
        """Least values of H_k found, (K,): from theta_k and, where there is no closed form, from 0 as well."""
        found = self.values(self.minimised(theta))
        if self.linear:
            return found
        zero = {name: np.zeros_like(theta[name]) for name in self.penalty}
        return np.minimum(found, self.values(self.descended(zero)))

    def descended(self, start: Mapping[str, Array], extra: Extra | None = None, part: float = 0.0) -> Layers:
        """Parameters near the minimisers of H_k + `extra` that L-BFGS finds from `start`, never above it.

        `extra` gives its values (K,) and derivatives at parameters of all layers. Slopes fall to that part of the
        first ones, 0: as far as they do.
        """
        from scipy.optimize import minimize  # noqa: PLC0415 (slow to import)

        names = list(self.penalty)
        ends = np.cumsum([start[name].size for name in names])[:-1]

        def unflat(flat: Array) -> Layers:
            return {n: a.reshape(start[n].shape) for n, a in zip(names, np.split(flat, ends), strict=True)}

        def total(theta: Layers) -> tuple[Array, Layers]:
            values, slopes = self.values(theta), self.gradient(theta)
            if extra is None:
                return values, slopes
            more, bends = extra(theta)
            return values + more, {name: slopes[name] + bends[name] for name in names}

        def objective(flat: Array) -> tuple[float, Array]:
            values, slopes = total(unflat(flat))
            return float(values.sum()), np.concatenate([np.ravel(slopes[n]) for n in names])

        # Layers do not see each other: the minimum of the sum is that of every term.
        begin = np.concatenate([np.ravel(start[n]) for n in names])
        goal = max(_SLOPE, part * float(np.abs(objective(begin)[1]).max())) if part else _SLOPE
        options = {"maxiter": _ITERATIONS, "ftol": 0.0, "gtol": goal}
        with blas_single_thread():
            theta = unflat(np.asarray(minimize(objective, begin, jac=True, method="L-BFGS-B", options=options).x))
        worse = total(theta)[0] > total(dict(start))[0]
        for name in names:
            theta[name][worse] = start[name][worse]
        return theta

    def mean(self, steps: Array) -> Array:
        """Means over the steps of every layer, (K, ...), of something at every step, (S, ...)."""
        out = np.zeros((len(self.depths), *steps.shape[1:]))
        np.add.at(out, self.layer, steps * _along(self.lengths, steps))
        return np.asarray(out / _along(self.depths, out))

    def _steps(self, theta: Mapping[str, Array]) -> Layers:
        return self.fixed | {name: theta[name][self.layer] for name in self.penalty}

    def _layers_of_neurons(self, theta: Mapping[str, Array]) -> tuple[Array, Array]:
        """v at every step, (S, d, n), and what sigma was applied to."""
        sigma, x, at = self.velocity.activation.value, self.x[:-1], self._steps(theta)
        if self.velocity.form == "inside":
            return at["w"] @ sigma(x) + at["b"][..., None], x
        inner = at["w"] @ x + at["b"][..., None]
        if self.velocity.form == "outside":
            return np.asarray(sigma(inner)), inner
        return at["v"] @ sigma(inner) + at["c"][..., None], inner

    def velocities(self, theta: Mapping[str, Array]) -> Array:
        """v(x_j, theta) at every step, (S, d, n)."""
        return self._layers_of_neurons(theta)[0]

    def pulls(self, theta: Mapping[str, Array], p: Array | None = None) -> Layers:
        """Derivatives of sum_j <p_j, v(x_j, theta)> in the trained parameters; p as the costates, by default them."""
        (_, inner), x, p = self._layers_of_neurons(theta), self.x[:-1], self.p[1:] if p is None else p
        sigma, found = self.velocity.activation, {}
        if self.velocity.form == "inside":
            into, outer = sigma.value(x), p
        elif self.velocity.form == "outside":
            into, outer = x, p * sigma.derivative(inner)
        else:
            hidden, v = sigma.value(inner), self._steps(theta)["v"]
            found = {"v": p @ hidden.swapaxes(1, 2), "c": p.sum(axis=2)}
            into, outer = x, (v.swapaxes(1, 2) @ p) * sigma.derivative(inner)
        found |= {"w": outer @ into.swapaxes(1, 2), "b": outer.sum(axis=2)}
        return {name: self.mean(found[name]) for name in self.penalty}

    def state_slopes(self, theta: Mapping[str, Array]) -> Array:
        """Derivatives of the first term of H in the states, (d_x v(x_j, theta))^T p_j at every step, (S, d, n)."""
        at, sigma, inner = self._steps(theta), self.velocity.activation, self._layers_of_neurons(theta)[1]
        w = at["w"].swapaxes(1, 2)
        if self.velocity.form == "inside":
            return np.asarray(sigma.derivative(inner) * (w @ self.p[1:]))
        return np.asarray(w @ (sigma.derivative(inner) * self._onto_neurons(at)))

    def state_slope_pulls(self, theta: Mapping[str, Array], e: Array) -> Layers:
        """Derivatives of sum_j <e_j, state_slopes_j> in the trained parameters; e (S, d, n)."""
        at, sigma, inner = self._steps(theta), self.velocity.activation, self._layers_of_neurons(theta)[1]
        p, x = self.p[1:], self.x[:-1]
        if self.velocity.form == "inside":
            found = {"w": p @ (sigma.derivative(inner) * e).swapaxes(1, 2), "b": np.zeros((len(x), x.shape[1]))}
            return {name: self.mean(found[name]) for name in self.penalty}
        onto, slope, moved = self._onto_neurons(at), sigma.derivative(inner), at["w"] @ e
        bend = sigma.curvature(inner) * onto * moved
        found = {"w": (slope * onto) @ e.swapaxes(1, 2) + bend @ x.swapaxes(1, 2), "b": bend.sum(axis=2)}
        if self.velocity.form == "two_layer":
            found |= {"v": p @ (slope * moved).swapaxes(1, 2), "c": np.zeros((len(x), p.shape[1]))}
        return {name: self.mean(found[name]) for name in self.penalty}

    def _onto_neurons(self, at: Layers) -> Array:
        """Costates of the neurons' values sigma(W x + b), (S, m, n)."""
        return at["v"].swapaxes(1, 2) @ self.p[1:] if self.velocity.form == "two_layer" else self.p[1:]


def _residual(model: Network) -> ResidualNetwork:
    if not isinstance(model, ResidualNetwork):
        raise ConfigError(f"Hamiltonians are those of a ResidualNetwork, got {type(model).__name__}: see residual_form")
    return model


def layers_of(problem: Training, model: Network) -> Layers:
    """Trained parameters of a network, name -> (K, ...), copies."""
    found = {}
    for name in problem.trained or ():
        part = model.parameters[name]
        found[name] = np.array(part.values if isinstance(part, Controls) else part)
    return found


def _knots(problem: Training) -> Array:
    """Ends of the layers, which all trained parameters must share."""
    if scheme_of(problem.scheme).name != EULER.name:
        raise ConfigError(f"Hamiltonians of layers are those of Euler steps, got {scheme_of(problem.scheme).name!r}")
    if problem.readout is not None and problem.readout.trained:
        raise ConfigError("the minimum principle needs a readout that is fixed, not trained")
    if problem.inlet is not None and problem.inlet.trained:
        raise ConfigError("the minimum principle needs an inlet that is fixed, not trained")
    knots: Array | None = None
    for name in problem.trained or ():
        part = problem.model.parameters[name]
        if not isinstance(part, Controls) or part.interpolation != "constant":
            raise ConfigError(f"parameter {name!r} must be piecewise constant Controls: the layers of a network")
        if knots is not None and not np.array_equal(knots, part.knots):
            raise ConfigError(f"parameter {name!r} has layers of its own: all trained parameters need the same knots")
        knots = part.knots
    if knots is None:
        raise ConfigError("trained is empty: the minimum principle is one for trained parameters")
    if not np.allclose(knots[[0, -1]], problem.t_span, rtol=0.0, atol=1e-12 * float(np.ptp(knots))):
        raise ConfigError(f"layers from {knots[0]} to {knots[-1]} do not fill t_span {problem.t_span}")
    return knots


def _penalty(problem: Training, name: str) -> Array:
    """Coefficients of the squares of a parameter at one depth in the penalty."""
    shape = layers_of(problem, problem.model)[name].shape[1:]
    total = np.zeros(shape)
    regularizer = problem.regularizers.get(name, Total(()))
    for term in regularizer.terms if isinstance(regularizer, Total) else (regularizer,):
        if not isinstance(term, DepthL2):
            raise ConfigError(f"the minimum principle is pointwise: parameter {name!r} needs DepthL2, got {term!r}")
        total += term.strength * (1.0 if term.weights is None else np.broadcast_to(term.weights, shape))
    return total


def _trajectories(problem: Training, model: ResidualNetwork, grid: StepGrid) -> tuple[Array, Array, Array]:
    """States and costates at the ends of all Euler steps, and the running cost at their starts."""
    readout, n = problem.readout, grid.n_steps
    assert readout is not None
    x = np.empty((n + 1, *model.shape))
    x[0] = problem.initial()
    with blas_single_thread():
        stages = model.write_down(EULER, grid, 0, n, x[0], x[n])
        x[:n] = stages[:, 0]
        if not np.isfinite(x[n]).all():
            raise NumericalError("the state is no longer finite")
        sources = np.empty((0, 0, 0, 0))
        running = np.zeros(n)
        if problem.tracking:
            outputs = [readout.forward(state) for state in x[:n]]
            running = problem.tracking * np.array([problem.loss.value(f) for f in outputs])
            pulls = [problem.tracking * (readout.p.T @ problem.loss.gradient(f)) for f in outputs]
            sources = np.array(pulls)[:, None]
        p = np.empty_like(x)
        p[n] = readout.p.T @ problem.loss.gradient(readout.forward(x[n]))
        for k in range(n - 1, -1, -1):
            p[k] = p[k + 1]
            model.pull_back(EULER, grid, k, 1, stages[k : k + 1], sources[k : k + 1], p[k])
    return x, p, running


def _along(depths: Array, values: Array) -> Array:
    """Return (K,) as (K, 1, ..., 1), to broadcast over what stands at each depth."""
    return depths.reshape(-1, *(1 for _ in values.shape[1:]))
