"""Whether noisy activations on the line have a steady law, and if not, why.

    g_inf ~ K^{-2} exp( (2/nu^2) int v/K^2 )

is normalisable if it decays faster than 1/|x| at infinity, and grows more slowly than 1/s at distance s
from a finite end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float
from meanfield.errors import ConfigError, NumericalError
from meanfield.velocities import Velocity

Array = NDArray[np.float64]

# Exponents are read off at these distances; the last ones decide.
_FAR: Array = np.array([1e3, 1e4, 1e5, 1e6, 1e7, 1e8])
_MARGIN = 1e-3
_EXACT = 1e-7


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
        d log g/d log |x| at the two ends, as far out as was looked.
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
    if velocity.dim != 1 or not velocity.constant:
        raise ConfigError("equilibrium needs a velocity on the line that does not depend on depth")
    low, high = (float(v) for v in domain)
    if not low < high:
        raise ConfigError(f"domain must have its ends in order, got {low!r} and {high!r}")
    given = amplitude if callable(amplitude) else None
    size = 1.0 if given else finite_float("amplitude", amplitude)

    def strength(x: Array) -> Array:
        raw = given(x) if given else size
        return finite_array("amplitude", np.array(np.broadcast_to(raw, x.shape)))

    ends = [_exponents(velocity, nu, strength, end, sign) for end, sign in ((low, -1.0), (high, 1.0))]
    words, good = [], True
    for end, sign, e in zip((low, high), (-1.0, 1.0), ends, strict=True):
        fits, text = _judge(end, sign, e)
        good = good and fits
        if not fits:
            words.append(text)
    reason = "; ".join(words) if words else "g_inf decays at both ends"
    return Equilibrium(good, reason, (float(ends[0][-1]), float(ends[1][-1])))


def _exponents(velocity: Velocity, nu: float, strength: Callable[[Array], Array], end: float, sign: float) -> Array:
    """Return d log g/d log r at distances r: from 0 out to infinity, or from a finite end inwards."""
    finite = math.isfinite(end)
    r = 1.0 / _FAR if finite else _FAR
    toward = -sign if finite else sign
    x: Array = np.asarray((end if finite else 0.0) + toward * r, dtype=np.float64)
    k, e = strength(x), 1e-4
    if (k == 0.0).any():
        raise ConfigError("amplitude must not be 0 inside the domain")
    origin = end if finite else 0.0
    near, far = (np.abs(strength(np.asarray(origin + toward * r * f, dtype=np.float64))) for f in (1 - e, 1 + e))
    change = (np.log(far) - np.log(near)) / (np.log1p(e) - np.log1p(-e))
    drift = velocity.value(0.0, x[None])[0]
    return np.asarray(toward * r * 2.0 * drift / (nu * k) ** 2 - 2.0 * change)


def _judge(end: float, sign: float, exponents: Array) -> tuple[bool, str]:
    """Whether the end is integrable, and what happens there."""
    finite = math.isfinite(end)
    # r^e is integrable at infinity for e < -1, at r = 0 for e > -1; exactly -1 is a logarithm, which is not.
    margin = (exponents[-2:] + 1.0) * (1.0 if finite else -1.0)
    if (margin > _MARGIN).all():
        return True, ""
    if not ((margin < -_MARGIN) | (np.abs(margin) < _EXACT)).all():
        raise NumericalError(f"the exponent {exponents[-1]:.6g} at {end!r} is too close to -1 to decide")
    place = f"{end:g}" if finite else ("+infinity" if sign > 0 else "-infinity")
    e = float(exponents[-1])
    if abs(e) < 1e-6:
        law = "tends to a constant"
    elif abs(e) > 1e3:
        law = "grows exponentially"
    else:
        law = f"behaves like r^{e:.3g}" + (" (r the distance)" if finite else "")
    return False, f"g_inf {law} at {place}: mass escapes there"
