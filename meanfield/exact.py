"""Solutions of space-time networks in closed form: what a solver must reproduce.

The equation is d_t z = -gamma z + sigma(W z + b) (outside). Each function states
its hypotheses; none of them integrates anything. They are consequences of the
model of Liu, Markowich, "Selection dynamics for deep neural networks", arXiv
1905.09076, not theorems stated there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm
from scipy.special import boxcox1p, gamma, wrightomega

from meanfield._checks import finite_array, finite_float, one_of, positive_int
from meanfield.errors import ConfigError

Array = NDArray[np.float64]

# exp overflows above 709.78; beyond this argument the formulas switch to logarithms.
_EXP_LIMIT = 700.0


def _identity_flow(s: Array, u0: Array) -> Array:
    return u0 * np.exp(s)


def _relu_flow(s: Array, u0: Array) -> Array:
    # The growth is applied to the active part only: exp may overflow where u0 is frozen.
    return u0 * np.exp(np.where(u0 > 0.0, s, 0.0))


def _leaky_relu_flow(s: Array, u0: Array) -> Array:
    return u0 * np.exp(np.where(u0 > 0.0, s, 0.01 * s))


def _tanh_flow(s: Array, u0: Array) -> Array:
    size = np.abs(u0)
    large = np.maximum(np.maximum(size, s), s + size) > _EXP_LIMIT
    plain = np.arcsinh(np.exp(np.where(large, 0.0, s)) * np.sinh(np.where(large, 0.0, size)))
    with np.errstate(divide="ignore"):
        log_sinh = size + np.log(-0.5 * np.expm1(-2.0 * size))
    a = s + log_sinh
    positive = np.maximum(a, 0.0)
    by_log = np.where(
        a > 0.0, positive + np.log1p(np.sqrt(1.0 + np.exp(-2.0 * positive))), np.arcsinh(np.exp(np.minimum(a, 0.0)))
    )
    return np.asarray(np.copysign(np.where(large, by_log, plain), u0))


def _sigmoid_flow(s: Array, u0: Array) -> Array:
    # u - e^{-u} = C is kept; v = e^{-u} solves v + ln v = -C, which never overflows, unlike e^{-C}.
    frozen = u0 < -_EXP_LIMIT
    start = np.where(frozen, 0.0, u0)
    constant = s + start - np.exp(-start)
    v = np.real(wrightomega(-constant))
    # Of the two equal forms C + v and -ln v each keeps its digits where the other cancels.
    moved = np.where(v > 1.0, -np.log(np.maximum(v, 1.0)), constant + v)
    # The rate is below e^{-700} there: nothing moves in double precision.
    return np.where(frozen, u0, moved)


def _sine_flow(s: Array, u0: Array) -> Array:
    turns = np.round(u0 / (2.0 * np.pi))
    half = 0.5 * (u0 - 2.0 * np.pi * turns)
    # atan(e^s tan h) as an angle between two numbers that do not overflow.
    grow, shrink = np.exp(np.minimum(s, 0.0)), np.exp(-np.maximum(s, 0.0))
    return np.asarray(2.0 * np.arctan2(np.sin(half) * grow, np.cos(half) * shrink) + 2.0 * np.pi * turns)


_FLOWS: dict[str, Callable[[Array, Array], Array]] = {
    "identity": _identity_flow,
    "relu": _relu_flow,
    "leaky_relu": _leaky_relu_flow,
    "tanh": _tanh_flow,
    "sigmoid": _sigmoid_flow,
    "sine": _sine_flow,
}


def constant_kernel_preactivation(activation: str, t: Any, u0: Any, kappa: float) -> Array:
    """Pre-activation of the constant kernel: the solution of u' = kappa sigma(u), u(0) = u0.

    Linear u0 e^{kappa t}; ReLU the same if u0 > 0, else frozen (leaky ReLU: at rate
    0.01 kappa); tanh asinh(e^{kappa t} sinh u0); sigmoid C + W0(e^{-C}) with
    C = kappa t + u0 - e^{-u0}; sine 2 atan(e^{kappa t} tan(u0/2)).

    Parameters
    ----------
    activation
        identity, relu, leaky_relu, tanh, sigmoid or sine.
    t, u0
        Depths and starting values; they broadcast.
    kappa
        Value of the kernel, of either sign.

    Returns
    -------
    Array of the broadcast shape. The linear and ReLU forms overflow with e^{kappa t}; the others do not.

    Raises
    ------
    ConfigError
        For another activation or values that are not finite.
    """
    one_of("activation", activation, tuple(_FLOWS))
    s = finite_float("kappa", kappa) * finite_array("t", t)
    s, start = np.broadcast_arrays(s, finite_array("u0", u0))
    return np.asarray(_FLOWS[activation](s, start))


def constant_kernel(
    activation: str, t: Any, z0: Any, weights: Any, kappa: float, *, bias: float = 0.0, leak: float = 0.0
) -> Array:
    """Solution for the constant kernel w == kappa and a constant bias.

    With m = int z and u = kappa m + beta, every z(t, x) - m(t) decays as e^{-gamma t}, so
    z = m + e^{-gamma t}(z0 - m0), m = (u - beta)/kappa; u follows from
    `constant_kernel_preactivation`. With a leak the linear and the ReLU network
    still have closed forms: u' = -gamma (u - beta) + kappa sigma(u) is linear on each side of u = 0,
    and changes side at most once.

    Parameters
    ----------
    activation
        As for `constant_kernel_preactivation`; with a leak only identity and relu.
    t
        Depth (scalar) or depths (K,).
    z0
        Starting field (N,), or (n, N) with samples.
    weights
        Quadrature weights (N,), sum 1.
    kappa, bias, leak
        Kernel value (not 0), bias beta, leak gamma >= 0.

    Returns
    -------
    z of shape t.shape + z0.shape.

    Raises
    ------
    ConfigError
        If kappa is 0, or no closed form is known for the activation with a leak.
    """
    kappa, bias = finite_float("kappa", kappa), finite_float("bias", bias)
    leak = finite_float("leak", leak, least=0.0)
    if kappa == 0.0:
        raise ConfigError("kappa must not be 0: without a kernel there is no pre-activation to follow")
    depths, z0, q = finite_array("t", t), finite_array("z0", z0), finite_array("weights", weights)
    mean = np.asarray(z0 @ q)
    column = depths.reshape(depths.shape + (1,) * mean.ndim)
    u0 = kappa * mean + bias
    if leak == 0.0:
        u = constant_kernel_preactivation(activation, column, u0, kappa)
    else:
        one_of("activation with a leak", activation, ("identity", "relu"))
        flow = _leaky_linear if activation == "identity" else _leaky_relu_network
        column_all, start_all = np.broadcast_arrays(column, u0)
        u = flow(column_all, start_all, kappa, bias, leak)
    # m - m0 first: the difference of two pre-activations is exact to round-off of u, not of z0.
    rise = ((u - u0) / kappa)[..., None]
    spread = np.expm1(-leak * column)[..., None] * (z0 - mean[..., None])
    return np.asarray(z0 + rise + spread)


def _affine(t: Array, u0: Array, rate: float, source: Array | float) -> Array:
    """Solution of u' = rate u + source at t, also for rate 0."""
    growth = np.expm1(rate * t)
    integral = t if rate == 0.0 else growth / rate
    return np.asarray(u0 + growth * u0 + integral * source)


def _leaky_linear(t: Array, u0: Array, kappa: float, bias: float, leak: float) -> Array:
    return _affine(t, u0, kappa - leak, leak * bias)


def _leaky_relu_network(t: Array, u0: Array, kappa: float, bias: float, leak: float) -> Array:
    """Solve u' = -leak (u - bias) + kappa u_+ : one linear equation while u > 0, another while u < 0."""
    rates = np.where((u0 > 0.0) | ((u0 == 0.0) & (bias > 0.0)), kappa - leak, -leak)
    crossing = np.full(u0.shape, np.inf)
    # u reaches 0 when e^{rate s} (u0 + f/rate) = f/rate with f = leak bias, i.e. rate s = -ln(1 + rate u0/f).
    if bias != 0.0:
        ratio = rates * u0 / (leak * bias)
        hits = (u0 * bias < 0.0) & (ratio > -1.0)
        safe = np.where(hits, ratio, 0.0)
        still = rates == 0.0
        time = np.where(still, -u0 / (leak * bias), -np.log1p(safe) / np.where(still, 1.0, rates))
        crossing = np.where(hits, time, np.inf)
    before = np.minimum(t, crossing)
    after = np.maximum(t - np.where(np.isfinite(crossing), crossing, t), 0.0)
    active_side = rates != -leak
    first = np.where(
        active_side, _affine(before, u0, kappa - leak, leak * bias), _affine(before, u0, -leak, leak * bias)
    )
    zero = np.zeros_like(u0)
    second = np.where(
        active_side, _affine(after, zero, -leak, leak * bias), _affine(after, zero, kappa - leak, leak * bias)
    )
    return np.where(t > crossing, second, first)


def fourier_multiplier(profile: Any, shape: tuple[int, ...]) -> NDArray[np.complex128]:
    """Discrete multiplier of a periodic convolution, khat(k) = mean of k(x) e^{-2 pi i k x}.

    It equals khat(k) = int k(x) e^{-2 pi i k x} dx for a trigonometric polynomial that the grid resolves.

    Parameters
    ----------
    profile
        Values k(x_i) on an equidistant grid of the circle or torus, flat (N,), x_0 = 0.
    shape
        Tensor shape of the grid, product N.
    """
    values = finite_array("profile", profile, shape=(math.prod(shape),)).reshape(shape)
    return np.asarray(np.fft.fftn(values) / values.size, dtype=np.complex128)


def convolution_linear(t: Any, z0: Any, multiplier: Any, *, leak: float = 0.0) -> Array:
    """Linear network with a convolution kernel on circle or torus, b = 0.

    zhat(t, k) = exp((khat(k) - gamma) t) zhat0(k), with khat in the order of `numpy.fft.fftn`.
    A local part lam of the operator is an addition of lam to every khat(k).

    Parameters
    ----------
    t
        Depth (scalar) or depths (K,).
    z0
        Starting field, flat (N,), or (n, N).
    multiplier
        khat on the integer frequencies, tensor shape of the grid (see `fourier_multiplier`).
    leak
        gamma >= 0.

    Returns
    -------
    Array of shape t.shape + z0.shape.
    """
    khat = np.asarray(multiplier, dtype=np.complex128)
    depths, z0 = finite_array("t", t), finite_array("z0", z0)
    if z0.shape[-1] != khat.size:
        raise ConfigError(f"z0 has length {z0.shape[-1]}, but the multiplier has length {khat.size}")
    axes = tuple(range(-khat.ndim, 0))
    spectrum = np.fft.fftn(z0.reshape(z0.shape[:-1] + khat.shape), axes=axes)
    column = depths.reshape(depths.shape + (1,) * spectrum.ndim)
    z = np.fft.ifftn(spectrum * np.exp((khat - leak) * column), axes=axes).real
    return np.asarray(z.reshape(depths.shape + z0.shape))


def linear_network(t: Any, z0: Any, matrix: Any, *, bias: Any = 0.0, leak: float = 0.0) -> Array:
    """Linear network with any layer matrix W: z' = (W - gamma) z + b, solved by the matrix exponential.

    (z, 1)' = [[W - gamma, b], [0, 0]] (z, 1), so no inverse of W is needed.

    Parameters
    ----------
    t
        Depth (scalar) or depths (K,); one matrix exponential for each.
    z0
        Starting field (N,) or (n, N).
    matrix
        W_ij = q_j w_ij, (N, N).
    bias
        Number or field (N,).
    leak
        gamma >= 0.

    Returns
    -------
    Array of shape t.shape + z0.shape.
    """
    w = finite_array("matrix", matrix, shape=(None, None))
    depths, z0 = finite_array("t", t), finite_array("z0", z0)
    n_nodes = len(w)
    generator = np.zeros((n_nodes + 1, n_nodes + 1))
    generator[:-1, :-1] = w - leak * np.eye(n_nodes)
    generator[:-1, -1] = finite_array("bias", bias)
    lifted = np.concatenate([z0, np.ones((*z0.shape[:-1], 1))], axis=-1)
    frames = [(lifted @ expm(s * generator).T)[..., :-1] for s in depths.ravel().tolist()]
    return np.array(frames).reshape(depths.shape + z0.shape)


def algebraic_decay(t: Any, p: float, q: float, n_modes: int) -> Array:
    """Norm of the linear network W = -A with eigenvalues k^{-p} and coefficients k^{-q}, k = 1 .. n_modes.

    ||z(t)||^2 = sum_k k^{-2q} e^{-2 t k^{-p}}, which decays as t^{-(2q-1)/p} while t << n_modes^p.

    Parameters
    ----------
    t
        Depths, any shape.
    p, q
        Decay of the eigenvalues and of the coefficients, both > 0.
    n_modes
        Number of modes.
    """
    p, q = finite_float("p", p, above=0.0), finite_float("q", q, above=0.0)
    depths = finite_array("t", t)
    k = np.arange(positive_int("n_modes", n_modes), 0, -1, dtype=np.float64)
    squares = [float((k ** (-2.0 * q) * np.exp(-2.0 * s * k**-p)).sum()) for s in depths.ravel().tolist()]
    return np.asarray(np.sqrt(squares)).reshape(depths.shape)


def algebraic_decay_constant(p: float, q: float) -> float:
    """Limit of ||z(t)||^2 t^{(2q-1)/p} for infinitely many modes.

    Gamma((2q-1)/p) / (p 2^{(2q-1)/p}); the decay exponent of ||z|| is (2q-1)/(2p).

    Raises
    ------
    ConfigError
        Unless p > 0 and q > 1/2 (the coefficients must be square summable).
    """
    p, q = finite_float("p", p, above=0.0), finite_float("q", q, above=0.5)
    s = (2.0 * q - 1.0) / p
    return float(gamma(s) / (p * 2.0**s))


def euler_depth_constant(kappa: float, t_end: float, mean0: float) -> float:
    """Limit of L x (Euler with L layers - exact) for the mean of the linear constant kernel, b = 0.

    -(1/2) kappa^2 T^2 e^{kappa T} m0.
    """
    return -0.5 * (kappa * t_end) ** 2 * math.exp(kappa * t_end) * mean0


def unit_ball_volume(dim: int) -> float:
    """Volume of the unit ball in `dim` dimensions, pi^{D/2} / Gamma(D/2 + 1)."""
    half = 0.5 * positive_int("dim", dim)
    return float(math.pi**half / math.gamma(half + 1.0))


@dataclass(frozen=True)
class SelectionLaw:
    """Selection by ReLU under a constant inhibition w == -kappa, in the continuum.

    u0 = M - c |x - x*|^p on the whole active set {u0 > 0}, a ball inside Omega. The largest
    activation delta(t) = M - kappa S(t), S the mass gained, obeys
    delta' = -kappa C delta^{1 + D/p}, C = V_D p/(p+D) c^{-D/p}, hence
    delta(t) = [M^{-D/p} + kappa C (D/p) t]^{-p/D}.
    Outside placement, no leak, bias constant in depth.

    Parameters
    ----------
    peak
        M > 0, the largest pre-activation at t = 0.
    curvature
        c > 0.
    kappa
        Strength of the inhibition, > 0.
    exponent
        p > 0.
    dim
        D.
    """

    peak: float
    curvature: float
    kappa: float
    exponent: float = 2.0
    dim: int = 1

    def __post_init__(self) -> None:
        for name in ("peak", "curvature", "kappa", "exponent"):
            object.__setattr__(self, name, finite_float(name, getattr(self, name), above=0.0))
        positive_int("dim", self.dim)

    @property
    def radius(self) -> float:
        """Radius (M/c)^{1/p} of the active set at t = 0; the ball must lie inside Omega."""
        return float((self.peak / self.curvature) ** (1.0 / self.exponent))

    @property
    def constant(self) -> float:
        """C = V_D p/(p+D) c^{-D/p}: the mass of (delta - c|x|^p)_+ is C delta^{1 + D/p}."""
        p, d = self.exponent, self.dim
        return float(unit_ball_volume(d) * p / (p + d) * self.curvature ** (-d / p))

    @property
    def _start_and_speed(self) -> tuple[float, float]:
        """A and B of delta = (A + B t)^{-p/D}."""
        ratio = self.dim / self.exponent
        return self.peak**-ratio, self.kappa * self.constant * ratio

    def largest_activation(self, t: Any) -> Array:
        """delta(t), the largest pre-activation at depth t, any shape."""
        start, speed = self._start_and_speed
        return np.asarray((start + speed * finite_array("t", t)) ** (-self.exponent / self.dim))

    def active_measure(self, t: Any) -> Array:
        """Measure of the active set {u > 0}: V_D (delta(t)/c)^{D/p}."""
        ratio = self.dim / self.exponent
        return np.asarray(unit_ball_volume(self.dim) * (self.largest_activation(t) / self.curvature) ** ratio)

    def mass_gain(self, t: Any) -> Array:
        """S(t) = int (z - z0) dx = (M - delta(t))/kappa."""
        start, speed = self._start_and_speed
        # M - delta through expm1: early gains keep their digits.
        log = np.log1p(speed * finite_array("t", t) / start)
        return np.asarray(-self.peak * np.expm1(-self.exponent / self.dim * log) / self.kappa)

    @property
    def total_mass_gain(self) -> float:
        """Limit of the mass gained, M/kappa, for every p and D."""
        return self.peak / self.kappa

    def peak_gain(self, t: Any) -> Array:
        """z(t, x*) - z0(x*) = int_0^t delta."""
        start, speed = self._start_and_speed
        power = 1.0 - self.exponent / self.dim
        return np.asarray(start**power / speed * boxcox1p(speed * finite_array("t", t) / start, power))

    @property
    def peak_gain_limit(self) -> float:
        """z_inf(x*) - z0(x*): finite for p > D, infinite (concentration) for p <= D.

        M^{1 - D/p} / (kappa C (1 - D/p)); for D = 1, p = 2 it is (3/2) sqrt(c M)/kappa.
        """
        ratio = self.dim / self.exponent
        if ratio >= 1.0:
            return math.inf
        return float(self.peak ** (1.0 - ratio) / (self.kappa * self.constant * (1.0 - ratio)))

    def gain(self, t: Any, gap: Any) -> Array:
        """z(t, x) - z0(x) at labels where u0(x) = M - gap.

        u(t, x) = delta(t) - gap until it reaches 0, and z stands still from then on.

        Parameters
        ----------
        t, gap
            Depths and gaps M - u0(x) >= 0; they broadcast (t[:, None] against gap (N,)).
        """
        start, speed = self._start_and_speed
        depths, gap = np.broadcast_arrays(finite_array("t", t), finite_array("gap", gap))
        if (gap < 0.0).any():
            raise ConfigError(f"gap must be >= 0, got {gap.min()}")
        with np.errstate(divide="ignore"):
            leaves = (gap ** (-self.dim / self.exponent) - start) / speed
        active = np.minimum(depths, np.maximum(leaves, 0.0))
        # The maximum removes the round-off of a label that has just left.
        return np.asarray(np.maximum(self.peak_gain(active) - gap * active, 0.0))
