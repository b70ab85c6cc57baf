"""Energy of a space-time network and the rate at which it changes.

E(t) = int Sigma(u) dx with Sigma' = sigma and u = W z + b. For sigma outside, no
leak, and W, b constant in depth,

    dE/dt = <sigma(u), W sigma(u)> = <sigma(u), W_s sigma(u)>,   W_s = (W + W*)/2

in L2(q), so W_s <= 0 makes E a Lyapunov function and a skew W conserves it (in the
continuous flow; explicit Euler drifts). A consequence of the model of Liu,
Markowich, arXiv 1905.09076. Both functions are probes f(t, y, model); `EnergyMonitor` sees every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from meanfield.errors import ConfigError

if TYPE_CHECKING:
    from meanfield.models.spacetime import SpaceTimeNetwork
    from meanfield.operators.base import IntegralOperator

Array = NDArray[np.float64]


def energy(t: float, y: Array, model: SpaceTimeNetwork) -> float | Array:
    """E = int Sigma(W z + b) dx.

    Parameters
    ----------
    t
        Depth.
    y
        State, (N,) or (n, N).
    model
        Network with sigma outside, no leak, W and b constant in depth.

    Returns
    -------
    A number, or one for each sample, (n,).

    Raises
    ------
    ConfigError
        If the model is outside the hypotheses of the energy identity.
    """
    _operator(model)
    return _per_sample(model, model.activation.primitive(model.preactivation(t, y)))


def energy_rate(t: float, y: Array, model: SpaceTimeNetwork) -> float | Array:
    """Rate of the energy, dE/dt = <sigma(u), W_s sigma(u)>_q: minus the dissipation.

    Parameters, return value and errors as for `energy`.
    """
    operator = _operator(model)
    s = np.ascontiguousarray(model.activation.value(model.preactivation(t, y)))
    return _per_sample(model, s * operator.apply(s, np.empty_like(s)))


class EnergyMonitor:
    """Probe that watches the energy at every accepted step, for W_s <= 0 a Lyapunov function.

    Its value is (2,), or (2, n) with samples: E, and the largest increase of E between two steps so
    far, relative to the start E(0): at most round-off and the error of the steps where theory forbids any.
    """

    def init(self, t: float, y: Array, model: SpaceTimeNetwork) -> None:
        """Start at (t, y).

        Raises
        ------
        ConfigError
            If the model is outside the hypotheses of the energy identity.
        """
        self._now = np.asarray(energy(t, y, model))
        self._start = np.array(self._now)
        self._increase = np.zeros_like(self._now)

    def update(self, t: float, y: Array, model: SpaceTimeNetwork) -> None:
        """Compare the energy after a step with that before it."""
        new = np.asarray(energy(t, y, model))
        scale = np.where(self._start > 0.0, self._start, 1.0)
        self._increase = np.maximum(self._increase, (new - self._now) / scale)
        self._now = new

    def value(self) -> Array:
        """E and the largest relative increase so far."""
        return np.stack([self._now, self._increase])

    def state(self) -> dict[str, Array]:
        """Arrays that a restart needs."""
        return {"now": self._now, "start": self._start, "increase": self._increase}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Go on from the arrays of `state`."""
        self._now, self._start = np.array(state["now"]), np.array(state["start"])
        self._increase = np.array(state["increase"])


def _per_sample(model: SpaceTimeNetwork, density: Array) -> float | Array:
    value = np.asarray(model.grid.integrate(density))
    return value if value.ndim else float(value)


def _operator(model: SpaceTimeNetwork) -> IntegralOperator:
    """Return the operator of a model that satisfies the hypotheses, else raise."""
    reason = ""
    if model.placement != "outside":
        reason = f"the placement is {model.placement!r}"
    elif model.leak:
        reason = f"the leak is {model.leak:g}"
    elif not model.autonomous:
        reason = "the weight or the bias depends on depth"
    if reason:
        raise ConfigError(
            "the energy identity needs sigma outside the integral, no leak, and a weight and bias constant in depth; "
            + reason
        )
    return cast("IntegralOperator", model.operator)  # an autonomous model has no path
