"""How far a non-normal linearisation reaches beyond its spectrum.

In the operator norm of L2(q), the eps-pseudospectrum of A is the set of the z with
||(z - A)^{-1}|| >= 1/eps: all eigenvalues of A + E with ||E|| <= eps. Its abscissa
alpha_eps(A) is the largest real part in it. For a normal A it is alpha + eps; where it
exceeds that, perturbations grow before they decay (Kreiss: sup_t ||e^{tA}|| >= K(A) =
sup_eps alpha_eps/eps), and the slope at t = 0 is the numerical abscissa, the largest
eigenvalue of (A + A*)/2. Trefethen, Embree, "Spectra and pseudospectra" (2005), ch. 14.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eig, eigvals, eigvalsh, svdvals
from scipy.optimize import minimize_scalar
from scipy.sparse.linalg import ArpackError, LinearOperator, eigs

from meanfield._checks import finite_array, finite_float, positive_int
from meanfield.errors import ConfigError, NumericalError

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Product = Callable[[Array], Array]


@dataclass(frozen=True)
class PseudospectralAbscissa:
    """Largest real part of the eps-pseudospectrum.

    Parameters
    ----------
    value
        alpha_eps(A); a lower bound where it was found without the matrix.
    point
        The point z of the pseudospectrum with that real part.
    epsilon
        Size of the perturbations.
    n_iterations
        Horizontal searches, or rank-one perturbations tried.
    converged
        Whether the last iteration changed the value by less than the tolerance.
    """

    value: float
    point: complex
    epsilon: float
    n_iterations: int
    converged: bool


@dataclass(frozen=True)
class KreissBound:
    """Lower bound of the Kreiss constant sup over eps of alpha_eps/eps, and of sup_t ||e^{tA}||.

    Parameters
    ----------
    value
        The bound; infinite for a positive spectral abscissa, at least 1.
    epsilon
        Where it is attained, 0 if infinite.
    point
        Point z with Re z ||(z - A)^{-1}|| = value.
    """

    value: float
    epsilon: float
    point: complex


def numerical_abscissa(matrix: Any, weights: Any = None) -> float:
    """Largest eigenvalue of (A + A*)/2 in L2(q): the growth rate of ||e^{tA}|| at t = 0.

    Parameters
    ----------
    matrix
        A, (N, N), as it acts on values at the labels.
    weights
        Quadrature weights q > 0, (N,); None for the plain inner product.
    """
    similar = _similar(matrix, weights)
    return float(eigvalsh(0.5 * (similar + similar.T))[-1])


def pseudospectral_abscissa(
    matrix: Any, epsilon: float, *, weights: Any = None, rtol: float = 1e-10, max_iterations: int = 30
) -> PseudospectralAbscissa:
    """alpha_eps(A) by the criss-cross algorithm, globally and quadratically convergent.

    Horizontal searches find the real x, vertical ones the real y, at which the smallest singular
    value of x + iy - A is eps, as eigenvalues of a matrix of order 2 N (Burke, Lewis, Overton, "Robust
    stability and a criss-cross algorithm for pseudospectra", IMA J. Numer. Anal. 23, 2003). Dense: seconds at
    N = 100, a minute at N = 600.

    Parameters
    ----------
    matrix, weights
        As for `numerical_abscissa`.
    epsilon
        Size of the perturbations, > 0.
    rtol
        Tolerance of the value, relative to ||A|| + eps.
    max_iterations
        Of the criss-cross.
    """
    a = _similar(matrix, weights)
    epsilon = finite_float("epsilon", epsilon, above=0.0)
    scale = float(np.linalg.norm(a, 2)) + epsilon
    tol = finite_float("rtol", rtol, above=0.0) * scale
    limit = positive_int("max_iterations", max_iterations)
    values = eigvals(a)
    start = complex(values[int(np.argmax(values.real))])
    x, y = _rightmost(a, epsilon, [start.imag], scale)
    x = max(x, start.real)
    for k in range(1, limit + 1):
        middles = _inside(a, epsilon, x, scale)
        if not middles:
            return PseudospectralAbscissa(x, complex(x, y), epsilon, k, True)
        found, height = _rightmost(a, epsilon, middles, scale)
        if found <= x + tol:
            x, y = max((x, y), (found, height))
            return PseudospectralAbscissa(x, complex(x, y), epsilon, k, True)
        x, y = found, height
    return PseudospectralAbscissa(x, complex(x, y), epsilon, limit, False)


def pseudospectral_lower_bound(
    apply: Product,
    apply_adjoint: Product,
    weights: Any,
    epsilon: float,
    *,
    rtol: float = 1e-8,
    max_iterations: int = 60,
) -> PseudospectralAbscissa:
    """Lower bound of alpha_eps(A) without the matrix, by perturbations eps u v* of rank one.

    Each step takes for u, v the left and right eigenvectors of the rightmost eigenvalue of the matrix perturbed
    by the last (Guglielmi, Overton, "Fast algorithms for the approximation of the pseudospectral
    abscissa", SIAM J. Matrix Anal. Appl. 32, 2011): usually, not always, alpha_eps itself.

    Parameters
    ----------
    apply, apply_adjoint
        A v and A* v for a real v (N,), the adjoint that of L2(q).
    weights
        Quadrature weights q > 0, (N,).
    epsilon
        Size of the perturbations, > 0.
    rtol
        Relative change of the value at which to stop.
    max_iterations
        Perturbations tried.

    Raises
    ------
    NumericalError
        If ARPACK does not converge.
    """
    q = _weights(weights, None)
    epsilon = finite_float("epsilon", epsilon, above=0.0)
    rtol = finite_float("rtol", rtol, above=0.0)
    problem = _RankOne(apply, apply_adjoint, np.sqrt(q), epsilon)
    value, left, right = problem.rightmost(None, None)
    for k in range(1, positive_int("max_iterations", max_iterations) + 1):
        new, left, right = problem.rightmost(left, right)
        change, value = new.real - value.real, new if new.real > value.real else value
        if abs(change) <= rtol * max(abs(value), epsilon):
            return PseudospectralAbscissa(float(value.real), complex(value), epsilon, k, True)
    return PseudospectralAbscissa(float(value.real), complex(value), epsilon, max_iterations, False)


def kreiss_lower_bound(matrix: Any, *, weights: Any = None, n_scales: int = 13) -> KreissBound:
    """Lower bound of sup_t ||e^{tA}||: the largest alpha_eps/eps over a range of eps, refined.

    Parameters
    ----------
    matrix, weights
        As for `numerical_abscissa`.
    n_scales
        Values of eps looked at, from 1e-6 ||A|| to ||A||.
    """
    a = _similar(matrix, weights)
    size = float(np.linalg.norm(a, 2))
    values = eigvals(a)
    noise = len(a) * np.finfo(np.float64).eps * size
    if size == 0.0 or float(values.real.max()) > _spread(a, noise):
        top = complex(values[int(np.argmax(values.real))])
        return KreissBound(1.0 if size == 0.0 else float("inf"), 0.0, top)

    def quotient(log_epsilon: float) -> float:
        epsilon = float(np.exp(log_epsilon))
        return -pseudospectral_abscissa(a, epsilon, rtol=1e-8).value / epsilon

    scales = np.log(size * np.geomspace(1e-6, 1.0, positive_int("n_scales", n_scales)))
    quotients = [quotient(s) for s in scales]
    k = int(np.argmin(quotients))
    ends = scales[max(k - 1, 0)], scales[min(k + 1, len(scales) - 1)]
    log_epsilon = float(scales[k])
    if ends[0] < ends[1]:
        found = minimize_scalar(quotient, bounds=ends, method="bounded", options={"xatol": 1e-3})
        log_epsilon = float(found.x) if found.fun < quotients[k] else log_epsilon
    best = pseudospectral_abscissa(a, float(np.exp(log_epsilon)))
    return KreissBound(max(best.value / best.epsilon, 1.0), best.epsilon, best.point)


class _RankOne:
    """Rightmost eigenvalue, with unit left and right eigenvectors, of the matrix plus eps u v*."""

    def __init__(self, apply: Product, apply_adjoint: Product, root: Array, epsilon: float) -> None:
        self._apply, self._adjoint, self._root, self._epsilon = apply, apply_adjoint, root, epsilon

    def _product(self, function: Product, v: Complex) -> Complex:
        z = v.reshape(-1) / self._root
        real = function(np.ascontiguousarray(z.real))
        return np.asarray(self._root * (real + 1j * function(np.ascontiguousarray(z.imag))))

    def rightmost(self, u: Complex | None, v: Complex | None) -> tuple[complex, Complex, Complex]:
        """Eigenvalue of A + eps u v*, and its left and right eigenvectors with y* x > 0."""
        value, x = self._leading(self._apply, u, v, None)
        _, y = self._leading(self._adjoint, v, u, value.conjugate())
        overlap = complex(y.conj() @ x)
        if overlap == 0.0:
            return value, y, x
        return value, y * (overlap / abs(overlap)), x

    def _leading(
        self, function: Product, u: Complex | None, v: Complex | None, near: complex | None
    ) -> tuple[complex, Complex]:
        n = len(self._root)

        def perturbed(w: Complex) -> Complex:
            out = self._product(function, w)
            if u is not None and v is not None:
                out = out + self._epsilon * u * complex(v.conj() @ w.reshape(-1))
            return out

        if n <= 64:
            values, vectors = eig(np.array([perturbed(row) for row in np.eye(n, dtype=np.complex128)]).T)
        else:
            start = np.random.default_rng(0).standard_normal(n) + 0j
            operator = LinearOperator((n, n), matvec=perturbed, dtype=np.complex128)
            try:
                values, vectors = eigs(operator, k=4, ncv=40, which="LR", v0=start)
            except ArpackError as error:
                raise NumericalError(f"the rightmost eigenvalue did not converge: {error}") from error
        # Of the adjoint, the eigenvalue conjugate to the one already found.
        k = int(np.argmax(values.real) if near is None else np.argmin(np.abs(values - near)))
        vector = vectors[:, k] / np.linalg.norm(vectors[:, k])
        return complex(values[k]), np.asarray(vector)


def _rightmost(a: Array, epsilon: float, heights: list[float], scale: float) -> tuple[float, float]:
    """Largest x with x + iy in the pseudospectrum over the given y, and its y."""
    n, best = len(a), (-np.inf, 0.0)
    for y in heights:
        shifted = a - 1j * y * np.eye(n)
        pair = np.block([[shifted, -epsilon * np.eye(n)], [-epsilon * np.eye(n), shifted.conj().T]])
        values = eigvals(pair)
        # Real to the accuracy of a double eigenvalue, then checked by the singular value itself.
        for x in np.sort(values.real[np.abs(values.imag) <= 1e-6 * scale])[::-1]:
            if x <= best[0]:
                break
            if _smallest(a, complex(x, y)) <= epsilon + 1e-10 * scale:
                best = (float(x), y)
                break
    return best


def _inside(a: Array, epsilon: float, x: float, scale: float) -> list[float]:
    """Middles of the stretches of the line Re z = x that lie inside the pseudospectrum."""
    one = np.eye(len(a))
    pair = np.block([[x * one - a.T, epsilon * one], [-epsilon * one, a - x * one]])
    values = eigvals(pair)
    crossings = np.unique(values.imag[np.abs(values.real) <= 1e-6 * scale])
    # A real matrix has a pseudospectrum symmetric about the real axis: its upper half is enough.
    upper = crossings[crossings >= 0.0]
    if not len(upper):
        return []
    middles = [0.5 * (a0 + a1) for a0, a1 in itertools.pairwise([-float(upper.min()), *upper.tolist()])]
    return [y for y in middles if _smallest(a, complex(x, y)) < epsilon * (1.0 - 1e-12)]


def _smallest(a: Array, z: complex) -> float:
    return float(svdvals(a - z * np.eye(len(a)))[-1])


def _spread(a: Array, noise: float) -> float:
    """Round-off of the spectral abscissa: the abscissa of a pseudospectrum of that size."""
    return pseudospectral_abscissa(a, max(noise, 1e-300)).value - float(eigvals(a).real.max()) + noise


def _similar(matrix: Any, weights: Any) -> Array:
    """sqrt(q) A / sqrt(q): what A is to the plain inner product."""
    a = finite_array("matrix", matrix, shape=(None, None))
    if a.shape[0] != a.shape[1] or not len(a):
        raise ConfigError(f"matrix must be square, got shape {a.shape}")
    if weights is None:
        return a
    root = np.sqrt(_weights(weights, len(a)))
    return np.asarray(a * (root[:, None] / root))


def _weights(weights: Any, n: int | None) -> Array:
    q = finite_array("weights", weights, shape=(n,))
    if not (q > 0.0).all():
        raise ConfigError(f"weights must be > 0, got {q.min()!r}")
    return q
