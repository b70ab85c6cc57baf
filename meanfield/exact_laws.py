"""Exact laws of the activations under constant parameters: characteristics, Gaussians, and what the flow tends to.

With y = w x + b the velocity sigma(w x + b) gives d_t y = w sigma(y), so every closed form of a scalar flow is
one of a law: g(t, .) is the image of g_0. Consequences of the continuity equation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float
from meanfield.errors import ConfigError
from meanfield.exact import constant_kernel_preactivation

Array = NDArray[np.float64]


def characteristic(activation: str, t: float, x: Any, w: float, b: float = 0.0) -> Array:
    """Place at depth t of what starts at x under d_t x = sigma(w x + b); a negative t goes backwards.

    Parameters
    ----------
    activation
        Name of a sigma whose scalar flow is known: identity, relu, leaky_relu, tanh, sigmoid, sine.
    t
        Depth.
    x
        Starting places, any shape.
    w, b
        Weight, not 0, and bias.

    Raises
    ------
    ConfigError
        For w = 0 or another activation.
    """
    w, b, t = finite_float("w", w), finite_float("b", b), finite_float("t", t)
    if w == 0.0:
        raise ConfigError("w must not be 0: the velocity would not depend on x")
    y0 = w * finite_array("x", x) + b
    # Backwards in depth is forwards with the opposite sign of w.
    y = constant_kernel_preactivation(activation, abs(t), y0, w if t >= 0.0 else -w)
    return np.asarray((y - b) / w)


def gaussian_flow(t: float, w: Any, b: Any, mean: Any, covariance: Any) -> tuple[Array, Array]:
    """Mean (d,) and covariance (d, d) at depth t of a Gaussian law carried by W x + b.

        m' = W m + b,   S' = W S + S W^T

    by the exponential of an augmented matrix, exact also for singular W.

    Raises
    ------
    ConfigError
        For shapes that do not match, or a covariance that is none.
    """
    from scipy.linalg import expm  # noqa: PLC0415 (slow to import)

    w = np.atleast_2d(finite_array("w", w))
    d = len(w)
    if w.shape != (d, d) or np.shape(b) not in ((), (d,)) or np.shape(mean) not in ((), (d,)):
        raise ConfigError(f"w, b and mean have shapes {w.shape}, {np.shape(b)} and {np.shape(mean)}")
    if np.shape(covariance) not in ((), (d, d)) or np.linalg.eigvalsh(np.atleast_2d(covariance)).min() < 0.0:
        raise ConfigError(f"covariance must be a nonnegative {d} x {d} matrix, got {covariance!r}")
    augmented = np.zeros((d + 1, d + 1))
    augmented[:d, :d], augmented[:d, d] = w, b
    whole = expm(finite_float("t", t) * augmented)
    flow, shift = whole[:d, :d], whole[:d, d]
    mean = np.broadcast_to(finite_array("mean", mean), (d,))
    covariance = np.atleast_2d(finite_array("covariance", covariance))
    return flow @ mean + shift, flow @ covariance @ flow.T


def ornstein_uhlenbeck(t: float, w: float, b: float, nu: float, mean: float, variance: float) -> tuple[float, float]:
    """Mean and variance at depth t of d x = (w x + b) dt + nu dB from a Gaussian start."""
    (m,), ((v,),) = gaussian_flow(t, w, b, mean, variance)
    added = nu**2 * (t if w == 0.0 else np.expm1(2 * w * t) / (2 * w))
    return float(m), float(v + added)


def w1_constant(cdf: Any, lower: float, upper: float) -> float:
    """C of E W1(mu^n, mu) ~ C n^(-1/2): the integral of sqrt(2/pi) sqrt(F (1 - F)) over [lower, upper].

    n^{1/2} (F_n - F) tends to a Brownian bridge of F, whose mean absolute value is that integrand. For the
    standard Gaussian 1.2884.

    Source: del Barrio, Gine, Matran, "Central limit theorems for the Wasserstein distance between the
    empirical and the true distributions", Annals of Probability 27 (1999).
    """
    from scipy.integrate import quad  # noqa: PLC0415

    def integrand(x: float) -> float:
        f = float(cdf(x))
        return float(np.sqrt(max(f * (1.0 - f), 0.0)))

    return float(np.sqrt(2.0 / np.pi) * quad(integrand, lower, upper, limit=200, epsabs=1e-12)[0])
