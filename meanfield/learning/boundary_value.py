"""Limits of training problems as boundary value problems: the Euler-Lagrange equations of infinitely many layers.

    x_s' = v(x_s, theta),   x_s(t0) given,              p_s(T) = dl/dx_s,
    p_s' = -(dv/dx)^T p_s - beta dl/dx_s,               2 alpha theta'' = sum_s (dv/dtheta)^T p_s + 2 lam theta,
    theta'(t0) = tau theta(t0),   theta'(T) = 0

for parameters under alpha (int |theta'|^2 + tau |theta(t0)|^2) + lam int |theta|^2. Without alpha the third equation
gives theta, if v is linear in it: theta = -sum_s (dv/dtheta)^T p_s/(2 lam). Solved by collocation (SciPy), with nothing
of the steps, adjoints and descents that train layers: a reference for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_float, positive_int
from meanfield.controls import Controls
from meanfield.errors import ConfigError, NumericalError, ResourceError
from meanfield.learning.quasi_newton import Optimum
from meanfield.learning.training import Network, Training
from meanfield.losses import Readout
from meanfield.models.residual import ResidualNetwork
from meanfield.regularizers import DepthH1, DepthL2, Total, regularizer_of
from meanfield.solution import Status

Array = NDArray[np.float64]

# Nodes of the first mesh, at least and at most.
_FEWEST, _MOST = 33, 257


class _Penalty(NamedTuple):
    """alpha (int |theta'|^2 + tau |theta(t0)|^2) + lam int |theta|^2."""

    alpha: float
    tau: float
    lam: float


@dataclass(frozen=True, eq=False)
class Extremal:
    """Solution of the Euler-Lagrange equations of a training problem: a minimum, or another stationary point.

    Attributes
    ----------
    parameters
        Name of a trained parameter -> theta as a callable of depth: a number gives an array of the shape of the
        parameter, an array of depths one of their shape before it.
    state, costate
        x and p = dJ/dx as such callables, of shape (d, n).
    readout
        P and c.
    energy
        J.
    mesh
        Depths between which the solution is a cubic polynomial.
    residual
        Largest residual of the equations, relative to 1 + |right-hand side|, root of the mean over a mesh interval.
    status, message
        finished, max_steps (the mesh would need more nodes) or not_converged, and what the solver said.
    """

    parameters: Mapping[str, Callable[[Any], Array]]
    state: Callable[[Any], Array]
    costate: Callable[[Any], Array]
    readout: Readout
    energy: float
    mesh: Array
    residual: float
    status: Status
    message: str

    def raise_for_status(self) -> Extremal:
        """Return itself if the solver converged, else raise `NumericalError`."""
        if self.status is not Status.FINISHED:
            raise NumericalError(f"{self.message} (residual {self.residual:.3g} at {len(self.mesh)} nodes)")
        return self


def extremal(
    problem: Training, guess: Optimum | None = None, *, tolerance: float = 1e-9, max_nodes: int = 20_000
) -> Extremal:
    """Solve the Euler-Lagrange equations of the limit of infinitely many layers of a training problem.

    Parameters
    ----------
    problem
        Problem with a velocity sigma(W x + b) or W sigma(x) + b, parameters that are trained under `DepthH1` or
        `DepthL2` penalties or constant over depth, and any loss; steps and schemes play no role.
    guess
        Trained layers to start from; None is the network of the problem, which must then be near a solution. Where
        there are several the start decides which one is found.
    tolerance
        On the residual, > 0.
    max_nodes
        Limit on the nodes of the mesh.

    Raises
    ------
    ConfigError
        For other problems or values out of range.
    ResourceError
        Where the equations, of 2 d n unknowns and more at every node, do not fit into memory.
    """
    from scipy.integrate import solve_bvp  # noqa: PLC0415 (slow to import)

    goal = finite_float("tolerance", tolerance, above=0.0)
    nodes = positive_int("max_nodes", max_nodes)
    system = _System.of(problem)
    mesh, start = system.guess(problem.model if guess is None else guess.model)
    unknowns = system.unknowns(system.outputs if guess is None else guess.readout)
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # where Newton steps go astray the solver sees it
            found = solve_bvp(
                lambda _t, y, *_: system.rate(y), system.ends, mesh, start,
                p=unknowns if unknowns.size else None, tol=goal, bc_tol=goal, max_nodes=nodes,
            )  # fmt: skip
    except MemoryError as error:
        raise ResourceError(
            f"a boundary value problem of {len(start)} unknowns on up to {nodes} nodes does not fit into memory: "
            "take fewer samples, or a smaller max_nodes"
        ) from error
    status = (Status.FINISHED, Status.MAX_STEPS, Status.NOT_CONVERGED)[min(found.status, 2)]
    readout = system.readout(found.p if unknowns.size else unknowns)

    def part(cut: Callable[[Array], Array]) -> Callable[[Any], Array]:
        def value(t: Any) -> Array:
            at = np.asarray(t, dtype=np.float64)
            table = cut(found.sol(at.ravel()))
            return np.ascontiguousarray(np.moveaxis(table, -1, 0)).reshape(*at.shape, *table.shape[:-1])

        return value

    names = problem.trained or ()
    parameters = {name: part(lambda y, name=name: system.theta(y)[name]) for name in names}  # type: ignore[misc]
    return Extremal(
        parameters, part(system.state), part(system.costate), readout, system.energy(found.sol, found.x, readout),
        found.x, float(np.max(found.rms_residuals)), status, str(found.message),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _System:
    """Equations for columns y = (x, p, theta and theta' of each parameter under `DepthH1`), (N, m) at m depths."""

    problem: Training
    penalties: Mapping[str, _Penalty]
    fixed: Mapping[str, Array]

    @classmethod
    def of(cls, problem: Training) -> _System:
        model = problem.model
        if not isinstance(model, ResidualNetwork) or model.velocity.form not in ("outside", "inside"):
            raise ConfigError("a limit as a boundary value problem needs a velocity sigma(W x + b) or W sigma(x) + b")
        if problem.inlet is not None and problem.inlet.trained:
            raise ConfigError("a limit as a boundary value problem needs an inlet that is fixed, not trained")
        if model.stochastic:
            raise ConfigError(f"nu must be 0 for a limit as a boundary value problem, got {model.nu!r}")
        linear = model.velocity.form == "inside" or model.velocity.activation.name == "identity"
        penalties, fixed = {}, {}
        for name, values in zip("wb", model.velocity.at(problem.t_span[0]), strict=True):
            if name not in (problem.trained or ()):
                if not isinstance(model.parameters.get(name), np.ndarray):
                    raise ConfigError(f"parameter {name!r} must be trained, or constant over depth")
                fixed[name] = values[..., None]
                continue
            if not isinstance(model.parameters[name], Controls):
                raise ConfigError(f"parameter {name!r} is trained and must be Controls over depth")
            penalties[name] = penalty = _penalty(name, problem)
            if not penalty.alpha and not (penalty.lam and linear):
                raise ConfigError(
                    f"parameter {name!r} needs DepthH1 (or DepthL2 where the velocity is linear in it), strength > 0"
                )
        return cls(problem, penalties, fixed)

    @property
    def _shape(self) -> tuple[int, int]:
        d, n = self.problem.model.shape
        return d, n

    @property
    def outputs(self) -> Readout:
        """Output map of the problem."""
        assert self.problem.readout is not None
        return self.problem.readout

    def state(self, y: Array) -> Array:
        """Columns x, (d, n, m)."""
        d, n = self._shape
        return y[: d * n].reshape(d, n, -1)

    def costate(self, y: Array) -> Array:
        """Columns p, (d, n, m)."""
        d, n = self._shape
        return y[d * n : 2 * d * n].reshape(d, n, -1)

    def rows(self) -> dict[str, tuple[slice, slice]]:
        """Rows of theta and theta' of each parameter under `DepthH1`."""
        d, n = self._shape
        place, found = 2 * d * n, {}
        for name, penalty in self.penalties.items():
            size = d * d if name == "w" else d
            if penalty.alpha:
                found[name] = slice(place, place + size), slice(place + size, place + 2 * size)
                place += 2 * size
        return found

    def _parameter_shape(self, name: str) -> tuple[int, ...]:
        d = self._shape[0]
        return (d, d) if name == "w" else (d,)

    def theta(self, y: Array) -> dict[str, Array]:
        """Parameters w (d, d, m) and b (d, m)."""
        m, rows = y.shape[1], self.rows()
        found = {name: np.broadcast_to(value, (*value.shape[:-1], m)) for name, value in self.fixed.items()}
        for name, (values, _) in rows.items():
            found[name] = y[values].reshape(*self._parameter_shape(name), m)
        rest = {name: penalty.lam for name, penalty in self.penalties.items() if name not in rows}
        if rest:
            # v is linear in theta, so that these pulls do not depend on it.
            zero = {name: np.zeros((*self._parameter_shape(name), m)) for name in "wb"}
            pulls = self.flow(self.state(y), self.costate(y), zero)[2]
            found |= {name: -pulls[name] / (2.0 * lam) for name, lam in rest.items()}
        return found

    def flow(self, x: Array, p: Array, theta: Mapping[str, Array]) -> tuple[Array, Array, dict[str, Array]]:
        """v, (dv/dx)^T p and sum_s (dv/dtheta)^T p at x and p (d, n, m)."""
        velocity = self.problem.model.velocity  # type: ignore[union-attr]
        sigma, w, b = velocity.activation, theta["w"], theta["b"][:, None]
        if velocity.form == "outside":
            u = np.einsum("ijm,jsm->ism", w, x) + b
            q = p * sigma.derivative(u)
            return sigma.value(u), np.einsum("ijm,ism->jsm", w, q), _products(q, x)
        inner = sigma.value(x)
        back = sigma.derivative(x) * np.einsum("ijm,ism->jsm", w, p)
        return np.einsum("ijm,jsm->ism", w, inner) + b, back, _products(p, inner)

    def rate(self, y: Array) -> Array:
        """Derivatives of the columns."""
        x, p, theta = self.state(y), self.costate(y), self.theta(y)
        v, back, pulls = self.flow(x, p, theta)
        if self.problem.tracking:
            back = back + self.problem.tracking * self._pull(x)
        out = np.empty_like(y)
        size = x.shape[0] * x.shape[1]
        out[:size], out[size : 2 * size] = v.reshape(size, -1), -back.reshape(size, -1)
        for name, (values, slopes) in self.rows().items():
            alpha, _, lam = self.penalties[name]
            out[values] = y[slopes]
            out[slopes] = pulls[name].reshape(-1, y.shape[1]) / (2.0 * alpha) + (lam / alpha) * y[values]
        return out

    def _pull(self, x: Array) -> Array:
        """dl/dx at each of the columns."""
        readout, loss = self.outputs, self.problem.loss
        gradients = [readout.p.T @ loss.gradient(readout.forward(x[..., k])) for k in range(x.shape[-1])]
        return np.stack(gradients, axis=-1)

    def ends(self, ya: Array, yb: Array, unknowns: Array | None = None) -> Array:
        """What vanishes at the ends of depth, and at the optimum of a trained output map."""
        x, readout = self.state(yb[:, None])[..., 0], self.readout(np.empty(0) if unknowns is None else unknowns)
        gx, gp, gc = readout.vjp(x, self.problem.loss.gradient(readout.forward(x)))
        found = [self.state(ya[:, None])[..., 0] - self.problem.initial(), self.costate(yb[:, None])[..., 0] - gx]
        for name, (values, slopes) in self.rows().items():
            found += [ya[slopes] - self.penalties[name].tau * ya[values], yb[slopes]]
        if readout.trained:
            lam = self.problem.readout_penalty
            found += [gp + lam * readout.p, gc + lam * readout.c]
        return np.concatenate([np.ravel(part) for part in found])

    def unknowns(self, readout: Readout) -> Array:
        """Entries of an output map that is trained, none of a fixed one."""
        return np.concatenate([readout.p.ravel(), readout.c]) if readout.trained else np.empty(0)

    def readout(self, unknowns: Array) -> Readout:
        """Output map with these entries."""
        readout = self.outputs
        if not readout.trained:
            return readout
        return replace(readout, p=unknowns[: readout.p.size].reshape(readout.p.shape), c=unknowns[readout.p.size :])

    def guess(self, network: Network) -> tuple[Array, Array]:
        """Mesh, and columns with the parameters of a network, states and costates by Euler steps along it."""
        t0, t1 = self.problem.t_span
        given = {name: network.parameters[name] for name in self.penalties}
        most = max([len(part.values) for part in given.values() if isinstance(part, Controls)], default=0)
        mesh = np.linspace(t0, t1, min(max(most + 1, _FEWEST), _MOST))
        theta = {name: np.broadcast_to(value, (*value.shape[:-1], len(mesh))) for name, value in self.fixed.items()}
        for name, part in given.items():
            table = _smooth(part, mesh) if isinstance(part, Controls) else np.array([part] * len(mesh))
            theta[name] = np.moveaxis(table.reshape(len(mesh), *self._parameter_shape(name)), 0, -1)
        x, p = self._along(mesh, theta)
        columns = [x.reshape(-1, len(mesh)), p.reshape(-1, len(mesh))]
        for name in self.rows():
            values = theta[name].reshape(-1, len(mesh))
            columns += [values, np.asarray(np.gradient(values, mesh, axis=1))]
        return mesh, np.concatenate(columns)

    def _along(self, mesh: Array, theta: Mapping[str, Array]) -> tuple[Array, Array]:
        """States and costates (d, n, m) by Euler steps."""
        d, n = self._shape
        x, p = np.zeros((d, n, len(mesh))), np.zeros((d, n, len(mesh)))
        x[..., 0] = self.problem.initial()

        def flow(k: int) -> tuple[Array, Array, dict[str, Array]]:
            at = {name: value[..., k : k + 1] for name, value in theta.items()}
            return self.flow(x[..., k : k + 1], p[..., k + 1 : k + 2], at)

        steps = np.diff(mesh)
        for k, h in enumerate(steps):
            x[..., k + 1] = x[..., k] + h * flow(k)[0][..., 0]
        p[..., -1] = self._pull(x[..., -1:])[..., 0]
        for k in range(len(steps) - 1, -1, -1):
            source = self.problem.tracking * self._pull(x[..., k : k + 1])[..., 0] if self.problem.tracking else 0.0
            p[..., k] = p[..., k + 1] + steps[k] * (flow(k)[1][..., 0] + source)
        return x, p

    def energy(self, solution: Callable[[Array], Array], mesh: Array, readout: Readout) -> float:
        """J, integrals by Gauss rules on the intervals of the mesh."""
        nodes, weights = np.polynomial.legendre.leggauss(5)
        lengths = np.diff(mesh)[:, None]
        times = (0.5 * (mesh[1:] + mesh[:-1])[:, None] + 0.5 * lengths * nodes).ravel()
        measure, y = (0.5 * lengths * weights).ravel(), solution(times)
        ends = solution(mesh[[0, -1]])
        loss = self.problem.loss
        total = loss.value(readout.forward(np.ascontiguousarray(self.state(ends)[..., 1])))
        total += 0.5 * self.problem.readout_penalty * float(np.sum(readout.p**2) + np.sum(readout.c**2))
        theta, rows = self.theta(y), self.rows()
        for name, (alpha, tau, lam) in self.penalties.items():
            total += lam * float((theta[name] ** 2).reshape(-1, len(times)).sum(axis=0) @ measure)
            if name in rows:
                values, slopes = rows[name]
                total += alpha * float((y[slopes] ** 2).sum(axis=0) @ measure + tau * (ends[values, 0] ** 2).sum())
        if self.problem.tracking:
            x = self.state(y)
            losses = [loss.value(readout.forward(np.ascontiguousarray(x[..., k]))) for k in range(len(times))]
            total += self.problem.tracking * float(np.array(losses) @ measure)
        return float(total)


def _penalty(name: str, problem: Training) -> _Penalty:
    regularizer = regularizer_of(problem.regularizers.get(name))
    terms = regularizer.terms if isinstance(regularizer, Total) else (regularizer,)
    alpha = tau = lam = 0.0
    for term in terms:
        if not isinstance(term, (DepthH1, DepthL2)) or term.weights is not None:
            raise ConfigError(f"regularizer of {name!r} must be DepthH1 and DepthL2 without weights, got {term!r}")
        if isinstance(term, DepthL2):
            lam += term.strength
        else:
            tau += term.strength * term.tau
            alpha += term.strength
    return _Penalty(alpha, tau / alpha if alpha else 0.0, lam)


def _products(q: Array, x: Array) -> dict[str, Array]:
    """Gradients sum_s q_s x_s^T in w and sum_s q_s in b."""
    return {"w": np.einsum("ism,jsm->ijm", q, x), "b": q.sum(axis=1)}


def _smooth(part: Controls, times: Array) -> Array:
    """Parameters at many depths, with straight lines between the middles of layers."""
    if part.interpolation == "linear" or len(part.values) == 1:
        return part.table(times)
    return Controls(0.5 * (part.knots[1:] + part.knots[:-1]), part.values, "linear").table(times)
