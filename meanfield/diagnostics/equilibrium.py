"""Whether noisy activations on the line have a steady law, and if not, why.

    g_inf ~ K^{-2} exp( (2/nu^2) int v/K^2 )

is normalisable if its mass in the octaves [r, 2r] falls as r goes out to infinity, and likewise in [r/2, r] as r
goes in to a finite end. The masses are integrated, so that a g_inf that oscillates is judged by its mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_float
from meanfield.errors import ConfigError, NumericalError
from meanfield.formulas import strength_at
from meanfield.velocities import Velocity

Array = NDArray[np.float64]

# Octaves that are looked at on the way to an end, and panels of each: even ones out to infinity, of which the
# last octave has this many, geometric ones in to a finite end.
_OCTAVES, _LAST_PANELS = 12, 2**16
_INNER, _INNER_PANELS = 40, 64
# Change of the logarithm of the mass of an octave that decides, and one that counts as none.
_MARGIN, _EXACT = 1e-2, 1e-4
_FEWEST = 4


@dataclass(frozen=True)
class Equilibrium:
    """Answer to whether a steady law exists.

    Attributes
    ----------
    exists
        Whether g_inf is normalisable.
    reason
        What g_inf does at its ends, in words.
    exponents
        e of g_inf ~ r^e at the two ends, as far out as was looked, averaged over an octave.
    """

    exists: bool
    reason: str
    exponents: tuple[float, float]

    def require(self) -> Equilibrium:
        """Return itself, or raise `NumericalError` with the reason if there is no steady law."""
        if not self.exists:
            raise NumericalError(f"no normalisable steady state: {self.reason}")
        return self


def equilibrium(
    velocity: Velocity,
    nu: float,
    amplitude: float | Callable[[Array], Any] = 1.0,
    *,
    domain: tuple[float, float] = (-math.inf, math.inf),
) -> Equilibrium:
    """Decide whether d_t g + d_x(v g) = (nu^2/2) d_xx(K^2 g) has a steady law on a domain.

    Parameters
    ----------
    velocity
        v, on the line and constant in depth.
    nu
        Strength of the noise, > 0.
    amplitude
        K, a number or a NumPy-vectorised callable.
    domain
        Ends, which may be infinite; a finite end is one where K vanishes (a wall at which K does not always
        has a steady law).

    Raises
    ------
    ConfigError
        For a velocity that depends on depth or lies in more dimensions, nu <= 0, or ends out of order.
    NumericalError
        Where an exponent is so close to the border that sampling cannot decide.
    """
    nu = finite_float("nu", nu, above=0.0)
    if not 1e-100 < nu < 1e100:
        raise ConfigError(f"nu is out of range: {nu!r}")
    if velocity.dim != 1 or not velocity.constant:
        raise ConfigError("equilibrium needs a velocity on the line that does not depend on depth")
    low, high = (float(v) for v in domain)
    if not low < high:
        raise ConfigError(f"domain must have its ends in order, got {low!r} and {high!r}")
    if not callable(amplitude):
        finite_float("amplitude", amplitude)

    def strength(x: Array) -> Array:
        values = strength_at(amplitude, x[None])
        if np.isnan(values).any():
            raise ConfigError("amplitude must be a number everywhere in the domain, got nan")
        return values

    slopes = [_slopes(velocity, nu, strength, end, sign) for end, sign in ((low, -1.0), (high, 1.0))]
    words = []
    for end, sign, found in zip((low, high), (-1.0, 1.0), slopes, strict=True):
        reason = _escape(end, sign, found)
        if reason:
            words.append(reason)
    ends = tuple(_exponent(end, found) for end, found in zip((low, high), slopes, strict=True))
    return Equilibrium(not words, "; ".join(words) or "g_inf decays at both ends", (ends[0], ends[1]))


def _slopes(velocity: Velocity, nu: float, strength: Callable[[Array], Array], end: float, sign: float) -> Array:
    """Changes of log int g from an octave to the next on the way to an end, two or more."""
    finite = math.isfinite(end)
    if finite:
        edges: Array = np.exp2(-np.arange(_INNER * _INNER_PANELS + 1, dtype=np.float64) / _INNER_PANELS)
        octave = np.arange(0, _INNER * _INNER_PANELS + 1, _INNER_PANELS)
        x = end - sign * edges
    else:
        unit = _scale(velocity)
        edges = np.asarray(np.arange(1, 2 * _LAST_PANELS + 1) * (unit * 2.0**_OCTAVES / (2 * _LAST_PANELS)))
        octave = 2 ** np.arange(int(math.log2(2 * _LAST_PANELS)) - _OCTAVES, int(math.log2(2 * _LAST_PANELS)) + 1) - 1
        x = sign * edges
    middle = 0.5 * (x[1:] + x[:-1])
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        k, k_middle = strength(x), strength(middle)
        push = velocity.value(0.0, x[None])[0] / k**2
        push_middle = velocity.value(0.0, middle[None])[0] / k_middle**2
        # Simpson's rule panel by panel.
        rise = np.diff(x) * (push[1:] + 4.0 * push_middle + push[:-1]) / (3.0 * nu**2)
        log = np.concatenate([[0.0], np.cumsum(rise)]) - 2.0 * np.log(np.abs(k))
        mass = np.logaddexp(log[1:], log[:-1]) + np.log(0.5 * np.abs(np.diff(x)))
        total = np.array([np.logaddexp.reduce(mass[a:b]) for a, b in pairwise(octave.tolist())])
    # Where K or the density leaves the range of numbers, the octaves before it decide.
    good = np.isfinite(total)
    count = len(total) if good.all() else int(np.argmin(good))
    if count < _FEWEST:
        raise NumericalError(f"the density near {end!r} leaves the range of numbers at once: it cannot be decided")
    return np.diff(total[:count])


def _scale(velocity: Velocity) -> float:
    """Length over which sigma(w x + b) changes, the largest over the neurons."""
    w, b = velocity.at(0.0)[:2]
    if velocity.form == "inside":
        return 1.0
    slope = np.abs(w[:, 0])
    sloped = slope > 0.0
    return float(((1.0 + np.abs(b[sloped])) / slope[sloped]).max()) if sloped.any() else 1.0


def _exponent(end: float, slopes: Array) -> float:
    e = float(slopes[-1]) / math.log(2.0)
    return -e - 1.0 if math.isfinite(end) else e - 1.0


def _escape(end: float, sign: float, slopes: Array) -> str:
    """What g_inf does at an end where its mass does not fall from octave to octave; empty where it does."""
    # Corrections to a power law are of order 1/r: one step of extrapolation takes them away.
    limit = 2.0 * slopes[-1] - slopes[-2]
    last = np.array([slopes[-2], slopes[-1], limit])
    if (last < -_MARGIN).all():
        return ""
    if not (last > _MARGIN).all() and abs(limit) > _EXACT:
        raise NumericalError(f"the exponent {_exponent(end, slopes):.6g} at {end!r} is too close to -1 to decide")
    finite = math.isfinite(end)
    place = f"{end:g}" if finite else ("+infinity" if sign > 0 else "-infinity")
    e = _exponent(end, slopes)
    if abs(e) < 1e-3:
        law = "tends to a constant, or oscillates about one,"
    elif abs(e) > 1e2:
        law = "grows exponentially"
    else:
        law = f"behaves like r^{e:.3g}" + (" (r the distance)" if finite else "")
    return f"g_inf {law} at {place}: mass escapes there"
