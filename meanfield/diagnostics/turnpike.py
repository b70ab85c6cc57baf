"""Turnpikes of linear-quadratic problems: exponents of the Hamiltonian system, and their fit to a solved problem.

    x' = A x + B u,    int (1/2) (x, u)^T [[Q, S], [S^T, R]] (x, u) dt

has costates p with (x, p)' = M (x, p): over long times x and u stay near 0 but for two arcs, e^{-mu t} and
e^{-mu (T - t)}, where mu are the real parts of the spectrum of M, which is symmetric about the imaginary axis.
Directions that no control moves, or that cost nothing, have no such exponent: they are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float
from meanfield.errors import ConfigError, NumericalError

Array = NDArray[np.float64]

# Singular values below this part of the largest one count as zero, and exponents below this part of the norm of M:
# roots of what is rounded.
_RANK, _ZERO = 1e-10, 1e-6


class _Parts(NamedTuple):
    """Kalman's decomposition: what control moves and costs see, and A on what it does not move or they do not see."""

    a: Array
    b: Array
    q: Array
    stuck: NDArray[np.complex128]
    hidden: NDArray[np.complex128]


@dataclass(frozen=True, eq=False)
class LinearQuadratic:
    """Linear-quadratic problem x' = A x + B u, cost (1/2)(x, u)^T [[Q, S], [S^T, R]] (x, u).

    Parameters
    ----------
    a, b
        A (N, N) and B (N, m).
    q
        Q (N, N), symmetric.
    r
        R: (m, m) symmetric and positive definite, or its diagonal (m,).
    s
        S (N, m); None is 0.

    Raises
    ------
    ConfigError
        For shapes that do not match, or an R that is not positive definite.
    """

    a: Array
    b: Array
    q: Array
    r: Array
    s: Array | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        a = finite_array("a", self.a, shape=(None, None))
        b = finite_array("b", self.b, shape=(len(a), None))
        put(self, "a", finite_array("a", a, shape=(len(a), len(a))))
        put(self, "b", b)
        put(self, "q", finite_array("q", self.q, shape=a.shape))
        put(self, "s", np.zeros(b.shape) if self.s is None else finite_array("s", self.s, shape=b.shape))
        r = finite_array("r", self.r)
        put(self, "r", np.diag(r) if r.ndim == 1 else r)
        if self.r.shape != (b.shape[1],) * 2 or not np.linalg.eigvalsh(self.r).min() > 0.0:
            raise ConfigError(f"r must be positive definite of {b.shape[1]} rows, got shape {r.shape}")

    @cached_property
    def hamiltonian(self) -> Array:
        """M = [[A - B R^-1 S^T, -B R^-1 B^T], [-Q + S R^-1 S^T, -(A - B R^-1 S^T)^T]], (2 N, 2 N)."""
        assert self.s is not None
        return _hamiltonian(self.a, self.b, self.q, self.r, self.s)

    @cached_property
    def _parts(self) -> _Parts:
        """Kalman's decomposition of A - B R^-1 S^T, B and Q - S R^-1 S^T, which with S = 0 have the same arcs."""
        assert self.s is not None
        gain = np.linalg.solve(self.r, self.s.T)
        a, q = self.a - self.b @ gain, self.q - self.s @ gain
        moved, stuck = _invariant(a, self.b)
        a1, b1, q1 = moved.T @ a @ moved, moved.T @ self.b, moved.T @ q @ moved
        seen, hidden = _invariant(a1.T, q1)
        return _Parts(
            seen.T @ a1 @ seen,
            seen.T @ b1,
            seen.T @ q1 @ seen,
            np.asarray(np.linalg.eigvals(stuck.T @ a @ stuck)).astype(np.complex128),
            np.asarray(np.linalg.eigvals(hidden.T @ a1 @ hidden)).astype(np.complex128),
        )

    @property
    def stuck(self) -> int:
        """Number of directions that no control moves and that do not decay by themselves."""
        return int(np.count_nonzero(self._parts.stuck.real >= -self._zero))

    @property
    def hidden(self) -> int:
        """Number of directions that are moved, cost nothing and do not decay by themselves."""
        return int(np.count_nonzero(self._parts.hidden.real >= -self._zero))

    @property
    def _zero(self) -> float:
        return _ZERO * float(np.linalg.norm(self.hamiltonian, 2))

    @property
    def exponents(self) -> Array:
        """Exponents of the N directions, increasing; 0 where there is no turnpike."""
        parts = self._parts
        own = np.linalg.eigvals(_hamiltonian(parts.a, parts.b, parts.q, self.r, np.zeros_like(parts.b))).real
        found = np.sort(own)[len(parts.a) :]
        return self._sorted(found, -np.concatenate([parts.stuck, parts.hidden]).real)

    def discrete_exponents(self, step: float) -> Array:
        """Exponents of Euler steps x_{k+1} = x_k + h (A x_k + B u_k) at the cost h sum_k of the same integrand.

        For A = 0 (2/h) arcsinh(h mu/2).
        """
        from scipy.linalg import eigvals  # noqa: PLC0415 (slow to import)

        h = finite_float("step", step, above=0.0)
        parts, n = self._parts, len(self._parts.a)
        ahead, one, zero = np.eye(n) + h * parts.a, np.eye(n), np.zeros((n, n))
        pushed = h * parts.b @ np.linalg.solve(self.r, parts.b.T)
        before = np.block([[ahead, zero], [-h * parts.q, one]])
        after = np.block([[one, pushed], [zero, ahead.T]])
        with np.errstate(divide="ignore"):
            # Factors come in pairs z, 1/z: the smaller halves, of which some may be 0.
            found = -np.log(np.sort(np.abs(eigvals(before, after)))[:n]) / h
            rest = -np.log(np.abs(1.0 + h * np.concatenate([parts.stuck, parts.hidden]))) / h
        return self._sorted(found, rest)

    def _sorted(self, own: Array, rest: Array) -> Array:
        found = np.sort(np.concatenate([own, rest]))
        return np.where(found <= self._zero, 0.0, found)

    @property
    def rate(self) -> float:
        """Least exponent that is not 0, which the turnpike shows in the middle; 0 if there is none."""
        return _least(self.exponents)

    def discrete_rate(self, step: float) -> float:
        """Least of the `discrete_exponents` that is not 0; 0 if there is none."""
        return _least(self.discrete_exponents(step))

    def riccati(self) -> Array:
        """X = X^T of p = X x with A^T X + X A - (X B + S) R^-1 (B^T X + S^T) + Q = 0, under which all x decay.

        Raises
        ------
        NumericalError
            If there is none: a direction is stuck or hidden.
        """
        from scipy.linalg import solve_continuous_are  # noqa: PLC0415 (slow to import)

        if not (self.exponents > 0.0).all():
            raise NumericalError(f"the Riccati equation has no stabilising solution: {self.summary}")
        try:
            return np.asarray(solve_continuous_are(self.a, self.b, self.q, self.r, s=self.s))
        except np.linalg.LinAlgError as error:
            raise NumericalError(f"the Riccati equation was not solved: {error}") from None

    def feedback(self) -> Array:
        """K of u = -K x, (m, N): R^-1 (B^T X + S^T); the spectrum of A - B K has the `exponents`."""
        assert self.s is not None
        return np.asarray(np.linalg.solve(self.r, self.b.T @ self.riccati() + self.s.T))

    def modes(self) -> tuple[Array, Array]:
        """Exponents of the closed loop (N,), by real part, and rows w (N, N) with w (x - x_bar) decaying at one each.

        Rows of complex exponents come in conjugate pairs.

        Raises
        ------
        NumericalError
            As for `riccati`.
        """
        values, rows = np.linalg.eig((self.a - self.b @ self.feedback()).T)
        order = np.argsort(-values.real)
        return -values[order], rows[:, order].T

    @property
    def kind(self) -> str:
        """``"all"``, ``"some"`` or ``"none"`` of the directions have a turnpike."""
        above = np.count_nonzero(self.exponents)
        return "all" if above == len(self.a) else "some" if above else "none"

    @property
    def summary(self) -> str:
        """A sentence."""
        n, reasons = len(self.a), []
        if self.stuck:
            reasons.append(f"no control moves {self.stuck}")
        if self.hidden:
            reasons.append(f"the running cost does not see {self.hidden}")
        why = f" ({', '.join(reasons)})" if reasons else ""
        if self.kind == "none":
            return f"no exponential turnpike in any of {n} directions{why}"
        least = f"the slowest at {self.rate:.4g}"
        if self.kind == "all":
            return f"exponential turnpike in all of {n} directions, {least}"
        return f"exponential turnpike in {np.count_nonzero(self.exponents)} of {n} directions only{why}, {least}"


def _least(exponents: Array) -> float:
    above = exponents[exponents > 0.0]
    return float(above.min()) if above.size else 0.0


def _hamiltonian(a: Array, b: Array, q: Array, r: Array, s: Array) -> Array:
    gain, push = np.linalg.solve(r, s.T), np.linalg.solve(r, b.T)
    own = a - b @ gain
    return np.block([[own, -b @ push], [s @ gain - q, -own.T]])


def _invariant(a: Array, b: Array) -> tuple[Array, Array]:
    """Orthonormal bases of the least subspace with the range of b that a maps into itself, and of its complement."""
    size = max(float(np.linalg.norm(a, 2)), 1e-300) if a.size else 1.0
    basis = np.empty((len(a), 0))
    new = b / max(float(np.linalg.norm(b, 2)), 1e-300) if b.size else b
    while new.size:
        new = new - basis @ (basis.T @ new)
        left, values, _ = np.linalg.svd(new, full_matrices=False)
        fresh = left[:, values > _RANK]
        if not fresh.shape[1]:
            break
        basis = np.linalg.qr(np.hstack([basis, fresh]))[0]
        new = a @ fresh / size
    full = np.linalg.qr(np.hstack([basis, np.eye(len(a))]))[0] if len(a) else basis
    return basis, full[:, basis.shape[1] : len(a)]


class TwoArcs(NamedTuple):
    """Fit of A e^{-mu t} + B e^{mu t} to equidistant values: mu, and the norm of what does not fit over that of all."""

    rate: float
    misfit: float


def fit_two_arcs(t: Any, x: Any, window: tuple[float, float] | None = None) -> TwoArcs:
    """Exponent mu of values with two arcs, x_{k+1} + x_{k-1} = 2 cosh(mu h) x_k in least squares.

    Neither the ends nor the length of the window matter where one exponent is alone: it is exact for cosh mu(T - t).

    Parameters
    ----------
    t, x
        Equidistant depths (K,) and values (K, ...) with their signs.
    window
        Depths between which to look; None takes all.

    Raises
    ------
    ConfigError
        For fewer than 3 depths, or depths that are not equidistant.
    NumericalError
        If the values do not bend away from 0: they oscillate, or are 0.
    """
    t = finite_array("t", t, shape=(None,))
    x = finite_array("x", x)
    if x.ndim == 0 or len(x) != len(t):
        raise ConfigError(f"x has shape {x.shape}, but there are {len(t)} depths")
    keep = np.ones(len(t), dtype=bool) if window is None else (t >= window[0]) & (t <= window[1])
    t, x = t[keep], x[keep].reshape(int(keep.sum()), -1)
    if len(t) < 3 or not np.allclose(np.diff(t), t[1] - t[0], rtol=1e-6, atol=0.0) or not t[1] > t[0]:
        raise ConfigError("t must be at least 3 equidistant increasing depths within the window")
    # The second difference, so that 2 cosh - 2 is found without its cancellation.
    bend, middle = (x[2:] - x[1:-1]) - (x[1:-1] - x[:-2]), x[1:-1]
    square = float((middle**2).sum())
    factor = float((bend * middle).sum()) / square if square > 0.0 else 0.0
    if not factor > 0.0:
        raise NumericalError("the values do not bend away from 0: no exponent fits them")
    rest = float(np.linalg.norm(bend - factor * middle)) / max(float(np.linalg.norm(bend)), 1e-300)
    return TwoArcs(2.0 * float(np.arcsinh(0.5 * np.sqrt(factor))) / float(t[1] - t[0]), rest)


def arc_constant(t: Any, distance: Any, rate: float) -> float:
    """Least C with distance <= C (e^{-mu (t - t_0)} + e^{-mu (T - t)}) at all depths t_0 .. T.

    Raises
    ------
    ConfigError
        For values that do not go together, or a rate that is not positive.
    """
    t = finite_array("t", t, shape=(None,))
    distance = finite_array("distance", distance, shape=t.shape)
    mu = finite_float("rate", rate, above=0.0)
    return float((distance / (np.exp(-mu * (t - t[0])) + np.exp(-mu * (t[-1] - t)))).max())
