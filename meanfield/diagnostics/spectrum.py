"""Linear stability of a state: spectrum of the linearisation, thresholds, the leaky contraction.

    outside:  J = diag(sigma'(u*)) a W - gamma,   u* = a W z* + b
    inside:   J = a W diag(sigma'(z*)) - gamma

The kernel part of W is compact: in the continuum the spectrum of J contains the
limit points sigma'(u*) a local - gamma, so a network without leak or local part
is never asymptotically stable, however negative the eigenvalues of its grid are. A
spectrum that reaches 0 decides nothing: the Volterra kernel 1_{y<x} has the
spectrum {0} and grows without bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eig, eigvals, eigvalsh
from scipy.sparse.linalg import ArpackError, LinearOperator, eigs, eigsh

from meanfield._checks import finite_array, positive_int
from meanfield.errors import ConfigError, NumericalError

if TYPE_CHECKING:
    from meanfield.models.spacetime import SpaceTimeNetwork

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

# Up to this many labels a dense eigenvalue problem is the shorter way.
_DENSE = 600


@dataclass(frozen=True, eq=False)
class Linearisation:
    """Spectrum of J at one state, and what it says.

    Parameters
    ----------
    eigenvalues
        Of the discrete J, (N,), largest real part first.
    uncertainty
        First-order bound of the round-off in the real parts, (N,): N eps ||J|| times the
        condition number of each eigenvalue.
    abscissa
        Largest real part of the eigenvalues and of the limit points.
    limit_point
        Largest limit point of the continuum's spectrum, sigma' a local - gamma.
    verdict
        ``stable``, ``unstable`` or ``undecided``.
    reason
        Why, in a sentence.
    """

    eigenvalues: Complex
    uncertainty: Array
    abscissa: float
    limit_point: float
    verdict: str
    reason: str

    @property
    def margin(self) -> float:
        """Distance of the spectrum from the imaginary axis: by so much more leak, or less if negative, all changes."""
        return -self.abscissa


def jacobian(model: SpaceTimeNetwork, y: Array, *, t: float = 0.0) -> Array:
    """Dense matrix J of the linearisation at one field y (N,), shape (N, N).

    Raises
    ------
    ConfigError
        For an operator path or amplitudes of single terms (use `leading_eigenvalues`).
    """
    field = _field(y, model)
    operator: Any = model.operator
    if hasattr(operator, "operators") or (model.amplitude is not None and model.amplitude.shape):
        raise ConfigError("the dense linearisation needs one operator; use leading_eigenvalues for a path")
    weight = operator.dense()
    if model.amplitude is not None:
        weight = weight * model.amplitude_at(t)
    slope = _slope(t, field, model)
    j = slope[:, None] * weight if model.placement == "outside" else weight * slope
    j[np.diag_indices_from(j)] -= model.leak
    return np.asarray(j)


def spectrum(model: SpaceTimeNetwork, y: Array, *, t: float = 0.0) -> Linearisation:
    """All eigenvalues of the linearisation at one field y (N,), with a verdict.

    ``unstable`` if a real part is positive by more than its uncertainty; ``stable`` if all of
    them, and the limit points of the continuum's spectrum, are negative; else ``undecided``.
    The decay or growth is that of the linear flow: for y a steady state, of small perturbations.

    Parameters
    ----------
    model
        Network with one operator.
    y
        Field z*, (N,).
    t
        Depth.
    """
    j = jacobian(model, y, t=t)
    values, left, right = eig(j, left=True, right=True)
    order = np.argsort(-values.real, kind="stable")
    values, left, right = values[order], left[:, order], right[:, order]
    overlap = np.abs((left.conj() * right).sum(axis=0))
    noise = len(j) * np.finfo(np.float64).eps * float(np.linalg.norm(j, 2))
    # Eigenvectors of length 1: a defective eigenvalue has no overlap and no finite uncertainty.
    with np.errstate(divide="ignore"):
        uncertainty = noise / overlap
    limit_point = _limit_point(t, _field(y, model), model)
    verdict, reason = _judge(values.real, uncertainty, limit_point)
    return Linearisation(values, uncertainty, max(float(values.real.max()), limit_point), limit_point, verdict, reason)


def leading_eigenvalues(model: SpaceTimeNetwork, y: Array, k: int = 6, *, t: float = 0.0, tol: float = 0.0) -> Complex:
    """Return the k eigenvalues of largest real part at one field y (N,), without the matrix (ARPACK on `jvp`).

    Small networks, and k near N, are solved densely through the same `jvp`.

    Parameters
    ----------
    model, y, t
        As for `spectrum`; any weight.
    k
        Number of eigenvalues.
    tol
        Relative accuracy asked of ARPACK; 0 is machine precision.

    Returns
    -------
    (k,), largest real part first.

    Raises
    ------
    NumericalError
        If ARPACK does not converge: eigenvalues crowd at the edge of the spectrum.
    """
    field = _field(y, model)
    single: Any = type(model)(
        model.operator,
        model.activation,
        model.bias,
        placement=model.placement,
        leak=model.leak,
        amplitude=model.amplitude,
    )
    n, k = len(field), min(positive_int("k", k), len(field))

    def apply(v: Array) -> Array:
        out = np.empty(n)
        single.jvp(t, field, np.ascontiguousarray(v.reshape(n)), out)
        return out

    if n <= _DENSE or k >= n - 1:
        values = eigvals(np.array([apply(row) for row in np.eye(n)]).T)
    else:
        operator = LinearOperator((n, n), matvec=apply, dtype=np.float64)
        # A fixed start makes two calls give the same bytes; random, it has a part in every mode.
        start = np.random.default_rng(0).standard_normal(n)
        try:
            values = eigs(operator, k=k, which="LR", v0=start, tol=tol, return_eigenvectors=False)
        except ArpackError as error:
            raise NumericalError(f"the leading eigenvalues did not converge: {error}") from error
    return np.asarray(values[np.argsort(-values.real, kind="stable")][:k], dtype=np.complex128)


def instability_threshold(t: float, y: Array, model: SpaceTimeNetwork) -> float:
    """Factor s of the weight at which the leaky linearisation s D W - gamma loses stability.

    s = gamma / max Re spec(D W), with D = diag(sigma') at the field y (N,), held fixed (as for
    y = 0, b = 0). Infinite if no eigenvalue of D W has a positive real part; 0 without a leak if one has.
    It is a number, so it also serves as a probe.
    """
    found = spectrum(model, y, t=t)
    growth = found.eigenvalues.real + model.leak
    # Round-off around 0 is no growth.
    largest = max(float(np.where(growth > found.uncertainty, growth, 0.0).max()), found.limit_point + model.leak)
    return model.leak / largest if largest > 0.0 else float("inf")


def contraction_rate(model: SpaceTimeNetwork) -> float:
    """Rate gamma - Lambda ||W|| at which a leaky network contracts in L2(q), if positive.

    Then the steady state is unique and attracts everything at this rate; a value <= 0 says nothing.
    ||W|| is the operator norm on L2(q). Sigma outside or inside.
    """
    operator: Any = model.operator
    if hasattr(operator, "operators") or model.amplitude is not None:
        raise ConfigError("the contraction criterion here is for a weight constant in depth")
    return float(model.leak - model.activation.lipschitz * operator.operator_norm())


def symmetric_part_range(model: SpaceTimeNetwork) -> tuple[float, float]:
    """Smallest and largest eigenvalue of W_s = (W + W*)/2 in L2(q).

    W_s <= -lam < 0 makes the energy of a ReLU network decay at least like e^{-2 lam t}, W_s >= lam > 0
    grow at least like e^{2 lam t}.

    Raises
    ------
    NumericalError
        If ARPACK, used for many labels, does not converge.
    """
    operator: Any = model.operator
    if hasattr(operator, "operators") or model.amplitude is not None:
        raise ConfigError("the range of the symmetric part is for a weight constant in depth")
    root = np.sqrt(model.grid.weights)
    n = len(root)
    if n <= _DENSE:
        w = operator.dense() * (root[:, None] / root)
        values = eigvalsh(0.5 * (w + w.T))
        return float(values[0]), float(values[-1])

    def apply(v: Array) -> Array:
        z = v.reshape(n) / root
        work = operator.apply(z, np.empty(n)) + operator.apply_adjoint(z, np.empty(n))
        return np.asarray(0.5 * root * work)

    start = np.random.default_rng(0).standard_normal(n)
    similar = LinearOperator((n, n), matvec=apply, dtype=np.float64)
    try:
        ends = [eigsh(similar, k=1, which=w, v0=start, return_eigenvectors=False)[0] for w in ("SA", "LA")]
    except ArpackError as error:
        raise NumericalError(f"the range of the symmetric part did not converge: {error}") from error
    return float(ends[0]), float(ends[1])


def _field(y: Any, model: SpaceTimeNetwork) -> Array:
    return finite_array("y", y, shape=(model.grid.n_nodes,))


def _slope(t: float, field: Array, model: SpaceTimeNetwork) -> Array:
    argument = field
    if model.placement == "outside":
        # preactivation follows the shape of y, also in a model that carries samples.
        argument = np.asarray(model.preactivation(t, field))
    return np.asarray(model.activation.derivative(argument))


def _limit_point(t: float, field: Array, model: SpaceTimeNetwork) -> float:
    operator: Any = model.operator
    scale = 1.0 if model.amplitude is None else model.amplitude_at(t)
    return float((_slope(t, field, model) * (scale * operator.local)).max()) - model.leak


def _judge(real: Array, uncertainty: Array, limit_point: float) -> tuple[str, str]:
    if (real > uncertainty).any() or limit_point > 0.0:
        return "unstable", f"the spectrum reaches Re = {max(float(real.max()), limit_point):.6g} > 0"
    if limit_point == 0.0:
        return "undecided", "the spectrum of the continuum reaches 0: the linearisation decides nothing"
    if (real + uncertainty >= 0.0).any():
        worst = float((real + uncertainty).max())
        return "undecided", f"within round-off the spectrum reaches Re = {worst:.3g}: the linearisation decides nothing"
    return "stable", f"the spectrum lies in Re <= {max(float(real.max()), limit_point):.6g} < 0"
