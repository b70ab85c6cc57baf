"""Steady states of space-time networks: how far a state is from one, and whether there are any.

Without a leak and with sigma outside, z is steady when sigma(W z + b) = 0:
sigmoid and softplus: never; ReLU: the closed convex set {W z + b <= 0}, possibly
empty; activations that vanish only at 0 (linear, tanh, ...): W z = -b, a Fredholm
equation of the first kind, solvable iff the Picard condition holds. A consequence
of the model of Liu, Markowich, arXiv 1905.09076.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog, nnls
from scipy.sparse.linalg import LinearOperator, lsqr

from meanfield._checks import finite_array, finite_float, positive_int
from meanfield.errors import ConfigError, NumericalError

if TYPE_CHECKING:
    from meanfield.models.spacetime import SpaceTimeNetwork

Array = NDArray[np.float64]

# Up to this many labels the projection is found by an active-set method on the dense matrix.
_DENSE = 1024


def steady_residual(t: float, y: Array, model: SpaceTimeNetwork) -> float | Array:
    """L2(q) norm of the rate, ||sigma(W z + b)|| outside without leak; a number, or (n,) with samples."""
    value = np.asarray(model.grid.norm(_rate(t, y, model)))
    return value if value.ndim else float(value)


def steady_residual_sup(t: float, y: Array, model: SpaceTimeNetwork) -> float | Array:
    """Largest absolute value of the rate over the labels; a number, or (n,) with samples."""
    value = np.abs(_rate(t, y, model)).max(axis=-1)
    return value if value.ndim else float(value)


def active_fraction(t: float, y: Array, model: SpaceTimeNetwork) -> float | Array:
    """Measure of the labels with u = W z + b > 0 (outside) or z > 0 (inside), by quadrature."""
    u = model.preactivation(t, y) if model.placement == "outside" else y
    value = np.asarray(model.grid.integrate((np.asarray(u) > 0.0).astype(np.float64)))
    return value if value.ndim else float(value)


@dataclass(frozen=True, eq=False)
class SteadyProjection:
    """Nearest point, in L2(q), of the ReLU steady set {W z + b <= 0}.

    Parameters
    ----------
    point
        The point found, (N,); W point + b <= `violation`.
    distance
        Distance to it: `upper` if that is finite, else the distance to `point`.
    lower, upper
        Bounds of the exact distance. `lower` comes from duality, <mu, W y + b>/||W* mu|| for the multiplier
        mu >= 0; `upper` from a feasible point, infinite if none was found.
    gap
        upper - lower.
    violation
        Largest value of W point + b, or 0.
    converged
        Whether the gap is below the tolerance, or, without a feasible point, violation and complementarity are.
    n_iterations
        Of the dual method; 0 if y is steady itself.
    """

    point: Array
    distance: float
    lower: float
    upper: float
    gap: float
    violation: float
    converged: bool
    n_iterations: int


def project_to_steady_set(
    y: Any, model: SpaceTimeNetwork, *, rtol: float = 1e-6, max_iterations: int = 20_000
) -> SteadyProjection:
    """Project one field onto the ReLU steady set: min ||z - y|| subject to W z + b <= 0.

    The dual, min over mu >= 0 of ||W* mu||^2 / 2 - <mu, W y + b> with z = y - W* mu, is solved as a nonnegative
    least-squares problem (Lawson, Hanson, "Solving least squares problems", ch. 23) on up to 1024 labels,
    by an accelerated projected gradient with restarts (O'Donoghue, Candes, 2015) on more.

    Parameters
    ----------
    y
        Field (N,).
    model
        ReLU outside, no leak, weight and bias constant in depth.
    rtol
        Tolerance of the gap, relative to the distance.
    max_iterations
        Of the accelerated gradient.

    Raises
    ------
    ConfigError
        If the model is outside the hypotheses.
    """
    _require_autonomous(model)
    if model.activation.name != "relu":
        raise ConfigError(f"the convex steady set is that of relu, not of {model.activation.name}")
    rtol = finite_float("rtol", rtol, above=0.0)
    y = finite_array("y", y, shape=(model.grid.n_nodes,))
    start = np.asarray(model.preactivation(0.0, y))
    if start.max() <= 0.0:
        return SteadyProjection(y.copy(), 0.0, 0.0, 0.0, 0.0, 0.0, True, 0)
    problem = _Projection(model, y, start, rtol)
    if len(y) <= _DENSE:
        return problem.active_set()
    return problem.accelerated_gradient(positive_int("max_iterations", max_iterations))


def steady_distance(t: float, y: Array, model: SpaceTimeNetwork) -> float | Array:  # noqa: ARG001
    """L2(q) distance to the ReLU steady set, a number or (n,): a probe around `project_to_steady_set`."""
    if y.ndim == 1:
        return project_to_steady_set(y, model).distance
    return np.array([project_to_steady_set(row, model).distance for row in y])


class _Projection:
    """The projection of y: the data of the dual problem, its two solvers, and the bounds of what they find."""

    def __init__(self, model: SpaceTimeNetwork, y: Array, start: Array, rtol: float) -> None:
        self._operator: Any = model.operator
        self._grid, self._y, self._start, self._rtol = model.grid, y, start, rtol
        self._inward = _inward_direction(model)

    def active_set(self) -> SteadyProjection:
        """Least distance programming through nonnegative least squares, rescaled to distances near 1."""
        root = np.sqrt(self._grid.weights)
        similar = self._operator.dense() * (root[:, None] / root)
        bound = root * self._start
        size = float(np.linalg.norm(similar))
        if size == 0.0:
            return self._bounds(np.maximum(self._start, 0.0), 0)
        scale = float(np.linalg.norm(np.maximum(bound, 0.0))) / size
        best = None
        for _ in range(3):
            # Minimise ||x||, x = sqrt(q) (z - y)/scale, subject to -similar x >= bound/scale.
            rows = np.vstack([-similar.T, bound / scale])
            target = np.zeros(len(rows))
            target[-1] = 1.0
            v, _ = nnls(rows, target, maxiter=30 * len(rows))
            rest = rows @ v - target
            found = self._bounds(scale * v / max(-rest[-1], np.finfo(np.float64).eps) / root, int((v > 0.0).sum()))
            if best is None or found.gap < best.gap or not np.isfinite(best.distance):
                best = found
            if found.converged or not 0.0 < found.distance < np.inf:
                break
            scale = found.distance
        return best  # type: ignore[return-value]

    def accelerated_gradient(self, max_iterations: int) -> SteadyProjection:
        """Projected gradient with momentum; restarts when the momentum points uphill."""
        norm = float(self._operator.operator_norm())
        step = 1.0 / norm**2 if norm else 1.0
        mu = ahead = np.zeros_like(self._y)
        momentum = 1.0
        found = self._bounds(mu, 0)
        for k in range(1, max_iterations + 1):
            new = np.maximum(ahead + step * self._slack(ahead), 0.0)
            if self._grid.inner(ahead - new, new - mu) > 0.0:
                momentum = 1.0
            after = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
            ahead = new + (momentum - 1.0) / after * (new - mu)
            mu, momentum = new, after
            if k % 50 == 0 or k == max_iterations:
                found = self._bounds(mu, k)
                if found.converged:
                    break
        return found

    def _adjoint(self, mu: Array) -> Array:
        return np.asarray(self._operator.apply_adjoint(mu, np.empty_like(mu)))

    def _slack(self, mu: Array) -> Array:
        """W z + b at z = y - W* mu: the gradient of the dual."""
        back = self._adjoint(mu)
        return np.asarray(self._start - self._operator.apply(back, np.empty_like(back)))

    def _bounds(self, mu: Array, n_iterations: int) -> SteadyProjection:
        """Return what the multiplier mu >= 0 proves about the distance."""
        grid, back = self._grid, self._adjoint(mu)
        size, gain = float(grid.norm(back)), float(grid.inner(mu, self._start))
        z = self._y - back
        slack = self._start - np.asarray(self._operator.apply(back, np.empty_like(back)))
        violation = max(float(slack.max()), 0.0)
        # Separation: W z' + b <= 0 implies <W* mu, y - z'> >= <mu, W y + b>.
        lower = max(gain / size, 0.0) if size else (float("inf") if gain > 0.0 else 0.0)
        upper = size if violation == 0.0 else float("inf")
        if violation and self._inward is not None:
            z = z + violation * self._inward
            upper = float(grid.norm(z - self._y))
            violation = max(float((self._start + self._image(z - self._y)).max()), 0.0)
        upper = max(upper, lower)
        gap = upper - lower if np.isfinite(lower) else float("inf")
        if np.isfinite(upper):
            done, distance = gap <= self._rtol * upper, upper
        else:
            level = float(np.abs(self._start).max())
            wrong = abs(float(grid.inner(mu, slack)))
            done = violation <= self._rtol * level and wrong <= self._rtol * size**2
            distance = max(float(grid.norm(z - self._y)), lower)
        return SteadyProjection(z, distance, lower, upper, gap, violation, bool(done), n_iterations)

    def _image(self, z: Array) -> Array:
        return np.asarray(self._operator.apply(np.ascontiguousarray(z), np.empty_like(z)))


def _inward_direction(model: SpaceTimeNetwork) -> Array | None:
    """Return a field d with W d <= -1, along which every point enters the steady set, if one is easily found."""
    operator: Any = model.operator
    n = model.grid.n_nodes
    ones = np.ones(n)
    image = operator.apply(ones, np.empty(n))
    for sign in (1.0, -1.0):
        top = float((sign * image).max())
        if top < 0.0:
            return np.asarray(-sign / top * ones)
    root = np.sqrt(model.grid.weights)
    similar = LinearOperator(
        (n, n),
        matvec=lambda v: root * operator.apply(v.reshape(n) / root, np.empty(n)),
        rmatvec=lambda v: root * operator.apply_adjoint(v.reshape(n) / root, np.empty(n)),
        dtype=np.float64,
    )
    d = np.asarray(lsqr(similar, -root, atol=1e-8, btol=1e-8, iter_lim=200)[0]) / root
    top = float(operator.apply(d, np.empty(n)).max())
    return d / -top if top < -1e-3 else None


@dataclass(frozen=True, eq=False)
class SteadyStates:
    """What the steady states of an autonomous network without leak are.

    Parameters
    ----------
    kind
        ``"none"`` (sigma > 0), ``"empty"`` (the ReLU set has no point), ``"convex"`` (ReLU),
        ``"affine"`` (W z = -b is solvable), ``"unsolvable"`` (W z = -b is not, to the tolerance).
    point
        A steady state, or the least-squares solution of smallest norm; None if there is none.
    residual
        ||W z + b|| of that point, relative to ||b|| (affine, unsolvable); the largest W z + b that cannot be
        avoided (empty, convex; <= 0 if there is a steady state).
    picard
        (k, 3) singular values s_k of W in L2(q), coefficients |<b, u_k>|, and their quotients; the Picard condition
        asks that the quotients be square summable as N grows. Empty for other kinds.
    reason
        A sentence.
    """

    kind: str
    point: Array | None
    residual: float
    picard: Array
    reason: str


def steady_states(model: SpaceTimeNetwork, *, rtol: float = 1e-10) -> SteadyStates:
    """Whether an autonomous network (sigma outside, no leak) has steady states.

    Uses the dense matrix: a linear programme for ReLU, singular values for activations that vanish at 0 only.

    Parameters
    ----------
    model
        Network; for the sine the principal branch W z = -b is taken.
    rtol
        Singular values below rtol times the largest count as 0 and W z = -b as solved when the rest of b is.

    Raises
    ------
    ConfigError
        If the model is outside the hypotheses.
    """
    _require_autonomous(model)
    sigma, nothing = model.activation, np.empty((0, 3))
    if sigma.name == "relu":
        return _relu_states(model)
    if sigma.nonnegative:
        return SteadyStates("none", None, float("inf"), nothing, f"{sigma.name} is positive: z never stops growing")
    if sigma.at_zero != 0.0:
        raise ConfigError(f"steady states of {sigma.name} are not known: it does not vanish at 0")
    return _fredholm_states(model, rtol)


@dataclass(frozen=True)
class SteadyExtent:
    """Range of a linear functional over the ReLU steady set.

    Parameters
    ----------
    low, high
        Smallest and largest <direction, z> in L2(q); infinite where the set is unbounded, NaN where it is empty.
    width
        Extent of the set along the direction: (high - low)/||direction||.
    empty
        Whether the set has no point.
    """

    low: float
    high: float
    width: float
    empty: bool


def steady_extent(model: SpaceTimeNetwork, direction: Any) -> SteadyExtent:
    """How far the ReLU steady set {W z + b <= 0} reaches along a direction: two linear programmes.

    Parameters
    ----------
    model
        ReLU outside, no leak, weight and bias constant in depth; its dense matrix is used.
    direction
        Field (N,), not 0.

    Raises
    ------
    ConfigError
        If the model is outside the hypotheses or the direction is 0.
    NumericalError
        If a linear programme is not solved.
    """
    _require_autonomous(model)
    if model.activation.name != "relu":
        raise ConfigError(f"the convex steady set is that of relu, not of {model.activation.name}")
    direction = finite_array("direction", direction, shape=(model.grid.n_nodes,))
    size = float(model.grid.norm(direction))
    if size == 0.0:
        raise ConfigError("direction must not be 0: it has no extent")
    operator: Any = model.operator
    w, b = operator.dense(), np.asarray(model.bias_at(0.0))
    w_scale, b_scale = float(np.abs(w).max()) or 1.0, float(np.abs(b).max()) or 1.0
    cost = direction * model.grid.weights / size
    ends = []
    for sign in (1.0, -1.0):
        # Without presolve, which may say "infeasible or unbounded" and not which.
        found = linprog(
            sign * cost, w / w_scale, -b / b_scale, bounds=(None, None), method="highs", options={"presolve": False}
        )
        if found.status == 2:
            nan = float("nan")
            return SteadyExtent(nan, nan, nan, empty=True)
        if found.status not in (0, 3):
            raise NumericalError(f"the linear programme for the extent failed: {found.message}")
        ends.append(sign * (float(found.fun) * b_scale / w_scale * size if found.status == 0 else -np.inf))
    return SteadyExtent(ends[0], ends[1], (ends[1] - ends[0]) / size, empty=False)


def _relu_states(model: SpaceTimeNetwork) -> SteadyStates:
    """Minimise s subject to W z + b <= s, s >= -1, in units of max |W| and max |b|."""
    operator: Any = model.operator
    w, b = operator.dense(), np.asarray(model.bias_at(0.0))
    w_scale, b_scale = float(np.abs(w).max()) or 1.0, float(np.abs(b).max()) or 1.0
    n = len(b)
    cost = np.append(np.zeros(n), 1.0)
    limits = [(None, None)] * n + [(-1.0, None)]
    found = linprog(cost, np.column_stack([w / w_scale, -np.ones(n)]), -b / b_scale, bounds=limits, method="highs")
    if found.x is None:
        raise ConfigError(f"the linear programme for the steady set failed: {found.message}")
    least, point = float(found.x[-1]), found.x[:n] * (b_scale / w_scale)
    # The tolerance of the linear programme's constraints is 1e-7.
    if least > 1e-6:
        reason = f"every z leaves some label with W z + b >= {least * b_scale:.3g}"
        return SteadyStates("empty", None, least * b_scale, np.empty((0, 3)), reason)
    reason = "the steady states are the closed convex set W z + b <= 0"
    return SteadyStates("convex", point, float((w @ point + b).max()), np.empty((0, 3)), reason)


def _fredholm_states(model: SpaceTimeNetwork, rtol: float) -> SteadyStates:
    operator: Any = model.operator
    root, b = np.sqrt(model.grid.weights), np.asarray(model.bias_at(0.0))
    left, s, right = np.linalg.svd(operator.dense() * (root[:, None] / root))
    coefficients = left.T @ (root * b)
    keep = s > rtol * s[0]
    quotients = np.where(keep, coefficients / np.where(keep, s, 1.0), 0.0)
    point = -(right.T @ quotients) / root
    size = float(np.linalg.norm(coefficients))
    residual = float(np.linalg.norm(coefficients[~keep])) / size if size else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        picard = np.column_stack([s, np.abs(coefficients), np.abs(coefficients) / s])
    solved = residual <= rtol
    reason = f"W z = -b leaves {residual:.3g} of b, from {int((~keep).sum())} singular values that count as 0"
    return SteadyStates("affine" if solved else "unsolvable", point, residual, picard, reason)


def _rate(t: float, y: Array, model: SpaceTimeNetwork) -> Array:
    y = np.ascontiguousarray(y, dtype=np.float64)
    out = np.empty_like(y)
    model.rate(t, y, out)
    return out


def _require_autonomous(model: SpaceTimeNetwork) -> None:
    if model.placement != "outside" or model.leak or not model.autonomous:
        raise ConfigError(
            "steady states are characterised for sigma outside the integral, no leak, and a weight and bias constant "
            f"in depth; got placement {model.placement!r}, leak {model.leak:g}, autonomous {model.autonomous}"
        )
