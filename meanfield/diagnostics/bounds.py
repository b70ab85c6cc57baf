"""Running bounds of the theory: ratios computed/bound, at most 1 while the bound holds.

The probes here are accumulators (init, update, value, state, restore). With Lambda
the Lipschitz constant of sigma, omega(t) = ||a(t) w(t)|| and |Omega| = 1:

    growth, outside   ||z(t)|| <= exp(Lambda int omega) (||z0|| + int (|sigma(0)| + Lambda ||b||))
    growth, inside    ||z(t)|| <= exp(Lambda int omega) (||z0|| + int (omega |sigma(0)| + ||b||))
    bounded sigma     ||z(t) - z0||_inf <= S t
    sigmoid           0 < z - z0 < t
    sigma >= 0        z(., x) nondecreasing

The last three: sigma outside, no leak. omega is the Hilbert-Schmidt norm, or the
operator norm where W has a local part (its Hilbert-Schmidt norm grows like sqrt N).
Integrals over depth never come out too small: norms of data linear in t are
convex, so the trapezoid rule between breakpoints over-estimates them, and is exact for
constant data. A consequence of the model of Liu, Markowich, arXiv 1905.09076.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array
from meanfield.errors import ConfigError

if TYPE_CHECKING:
    from meanfield.models.spacetime import SpaceTimeNetwork

Array = NDArray[np.float64]


class GrowthBound:
    """Ratio of ||z(t)|| in L2(q) to the growth bound, one for each sample.

    Outside and inside placement, with or without a leak (which only helps).
    """

    def init(self, t: float, y: Array, model: SpaceTimeNetwork) -> None:
        """Start at depth t from state y."""
        self._data = _Norms(model)
        self._start = np.asarray(model.grid.norm(y))
        self._growth, self._source = 0.0, 0.0
        self._t, self._norm = t, self._start

    def update(self, t: float, y: Array, model: SpaceTimeNetwork) -> None:
        """Take the step to depth t and state y into account."""
        sigma = model.activation
        outside = model.placement == "outside"
        for start, end in _pieces(model.breakpoints, self._t, t):
            omega = self._data.weight_integral(start, end)
            bias = _trapezoid(self._data.bias, start, end)
            self._growth += sigma.lipschitz * omega
            if outside:
                self._source += abs(sigma.at_zero) * (end - start) + sigma.lipschitz * bias
            else:
                self._source += abs(sigma.at_zero) * omega + bias
        self._t, self._norm = t, np.asarray(model.grid.norm(y))

    def value(self) -> Array:
        """Ratio now; 0 for a field that is 0."""
        # Divided before the exponential, which may overflow where the ratio does not.
        return np.asarray(_ratio(self._norm, self._start + self._source) * np.exp(-self._growth))

    def state(self) -> dict[str, Array]:
        """Arrays to continue from."""
        scalars = np.array([self._t, self._growth, self._source])
        return {"scalars": scalars, "start": self._start, "norm": self._norm}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Continue from the arrays of `state`."""
        self._t, self._growth, self._source = np.asarray(state["scalars"]).tolist()
        self._start, self._norm = np.asarray(state["start"]), np.asarray(state["norm"])


class _Displacement:
    """What the pointwise bounds share: the start, and the displacement since then."""

    def init(self, t: float, y: Array, model: SpaceTimeNetwork) -> None:
        """Start at depth t from state y; ConfigError if the model is outside the hypotheses."""
        if model.placement != "outside" or model.leak:
            raise ConfigError(
                f"bounds on z - z0 need sigma outside the integral and no leak; got placement {model.placement!r}, "
                f"leak {model.leak:g}"
            )
        self._check(model)
        self._first = self._t = t
        self._z0 = np.array(y)
        self._moved = np.zeros_like(self._z0)

    def update(self, t: float, y: Array, model: SpaceTimeNetwork) -> None:  # noqa: ARG002
        """Take the step to depth t and state y into account."""
        self._t = t
        np.subtract(y, self._z0, out=self._moved)

    def state(self) -> dict[str, Array]:
        """Arrays to continue from."""
        return {"t": np.array([self._first, self._t]), "start": self._z0, "moved": self._moved}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Continue from the arrays of `state`."""
        self._first, self._t = np.asarray(state["t"]).tolist()
        self._z0, self._moved = np.array(state["start"]), np.array(state["moved"])

    def _check(self, model: SpaceTimeNetwork) -> None:
        raise NotImplementedError


class ActivationBound(_Displacement):
    """Ratio ||z(t) - z0||_inf / (S t) for |sigma| <= S, one for each sample, whatever w and b."""

    def _check(self, model: SpaceTimeNetwork) -> None:
        self._bound = model.activation.bound
        if not np.isfinite(self._bound):
            raise ConfigError(f"the bound S t needs a bounded activation; {model.activation.name} is not")

    def value(self) -> Array:
        """Ratio now; 0 at the start."""
        return _ratio(np.abs(self._moved).max(axis=-1), self._bound * (self._t - self._first))


class SigmoidBound(_Displacement):
    """Largest |2 (z - z0)/t - 1|, one for each sample: at most 1 exactly if 0 <= z - z0 <= t."""

    def _check(self, model: SpaceTimeNetwork) -> None:
        if model.activation.name != "sigmoid":
            raise ConfigError(f"0 < z - z0 < t holds for the sigmoid, not for {model.activation.name}")

    def value(self) -> Array:
        """Ratio now; 0 at the start."""
        elapsed = self._t - self._first
        if elapsed == 0.0:
            return np.zeros(self._z0.shape[:-1])
        return np.asarray(np.abs(2.0 * self._moved / elapsed - 1.0).max(axis=-1))


class Monotonicity(_Displacement):
    """Ratio of the largest z(s, x) - z0(x), s <= t, to z(t, x) - z0(x): 1 while z never decreases.

    The maximum over x, one for each sample; infinite once z has come back to z0 or below.
    """

    def init(self, t: float, y: Array, model: SpaceTimeNetwork) -> None:
        """Start at depth t from state y; ConfigError if sigma takes negative values."""
        super().init(t, y, model)
        self._top = np.zeros_like(self._z0)

    def update(self, t: float, y: Array, model: SpaceTimeNetwork) -> None:
        """Take the step to depth t and state y into account."""
        super().update(t, y, model)
        np.maximum(self._top, self._moved, out=self._top)

    def _check(self, model: SpaceTimeNetwork) -> None:
        if not model.activation.nonnegative:
            raise ConfigError(f"z is nondecreasing for a nonnegative activation; {model.activation.name} is not")

    def value(self) -> Array:
        """Ratio now."""
        still = self._top == self._moved
        back = ~still & (self._moved <= 0.0)
        ratio = np.where(still, 1.0, self._top / np.where(still | back, 1.0, self._moved))
        return np.asarray(np.where(back, np.inf, ratio).max(axis=-1))

    def state(self) -> dict[str, Array]:
        """Arrays to continue from."""
        return {**super().state(), "top": self._top}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Continue from the arrays of `state`."""
        super().restore(state)
        self._top = np.array(state["top"])


def stability_ratio(
    t: Any, first: Any, second: Any, first_model: SpaceTimeNetwork, second_model: SpaceTimeNetwork
) -> Array:
    """Ratio of ||z1 - z2||(t) to the stability estimate, for two recorded runs.

    Outside: exp(Lambda int omega1) (||z1_0 - z2_0|| + Lambda int (||w1-w2|| ||z2|| + ||b1-b2||));
    inside: exp(Lambda int omega1) (||z1_0 - z2_0|| + int (||w1-w2|| ||sigma(z2)|| + ||b1-b2||)).
    Between samples ||z2|| is replaced by the larger of its two neighbours.

    Parameters
    ----------
    t
        Depths, (K,), increasing.
    first, second
        States of the two runs, (K, N) or (K, n, N).
    first_model, second_model
        Their models: the same grid, activation, placement and leak; weights constant in depth.

    Returns
    -------
    (K,) or (K, n); 0 where both runs agree.

    Raises
    ------
    ConfigError
        If the models differ in more than w and b, or a weight depends on depth.
    """
    _check_pair(first_model, second_model)
    t = finite_array("t", t, shape=(None,))
    z1, z2 = finite_array("first", first), finite_array("second", second)
    if z1.shape != z2.shape or len(z1) != len(t):
        raise ConfigError(f"lengths differ: {len(t)} depths, states of shape {z1.shape} and {z2.shape}")
    grid, sigma = first_model.grid, first_model.activation
    outside = first_model.placement == "outside"
    distance = np.asarray(grid.norm(z1 - z2))
    size = np.asarray(grid.norm(z2 if outside else sigma.value(z2)))
    w_gap = _weight_distance(first_model, second_model)
    data = _Norms(first_model)
    knots = np.union1d(first_model.breakpoints, second_model.breakpoints)

    def b_gap(s: float) -> float:
        return float(grid.norm(first_model.bias_at(s) - second_model.bias_at(s)))

    growth, source = 0.0, np.zeros_like(distance[0])
    ratios = [_ratio(distance[0], distance[0])]
    for k in range(1, len(t)):
        pieces = list(_pieces(knots, t[k - 1], t[k]))
        growth += sigma.lipschitz * sum(data.weight_integral(a, b) for a, b in pieces)
        drive = w_gap * np.maximum(size[k - 1], size[k]) * (t[k] - t[k - 1])
        drive = drive + sum(_trapezoid(b_gap, a, b) for a, b in pieces)
        source = source + (sigma.lipschitz if outside else 1.0) * drive
        ratios.append(_ratio(distance[k], distance[0] + source) * np.exp(-growth))
    return np.array(ratios)


class _Norms:
    """Norms of the data of a model as functions of depth."""

    def __init__(self, model: SpaceTimeNetwork) -> None:
        self._model = model
        operator: Any = model.operator
        members = getattr(operator, "operators", (operator,))
        self._sizes = np.array([op.operator_norm() if op.local else op.norm() for op in members])
        self._gram: Array | None = None
        if model.amplitude is not None and model.amplitude.shape:
            # ||sum_r a_r l_r (x) r_r||^2 = a^T (L o R) a with the Gram matrices of both factors.
            q = model.grid.weights
            left, right = operator.left, operator.right
            self._gram = ((left * q) @ left.T) * ((right * q) @ right.T)

    def weight_integral(self, start: float, end: float) -> float:
        """Upper bound of int |a| ||W||, exact if one of them is constant on the piece."""
        a, w = self._amplitude, self._weight
        right = np.nextafter(end, start)
        by_amplitude = max(w(start), w(right)) * _trapezoid(a, start, end)
        by_weight = max(a(start), a(right)) * _trapezoid(w, start, end)
        return float(min(by_amplitude, by_weight))

    def bias(self, t: float) -> float:
        """||b(t)|| in L2(q)."""
        return float(self._model.grid.norm(self._model.bias_at(t)))

    def _amplitude(self, t: float) -> float:
        amplitude = self._model.amplitude
        if amplitude is None:
            return 1.0
        value = np.asarray(amplitude.at(t))
        if self._gram is None:
            return abs(float(value))
        return float(np.sqrt(max(float(value @ self._gram @ value), 0.0)))

    def _weight(self, t: float) -> float:
        if self._gram is not None:
            return 1.0
        if len(self._sizes) == 1:
            return float(self._sizes[0])
        path: Any = self._model.operator
        if path.interpolation == "linear":
            # A norm is convex: interpolated norms bound the norm of the interpolated kernel.
            return float(np.interp(t, path.knots, self._sizes))
        k = int(np.searchsorted(path.knots, t, side="right")) - 1
        return float(self._sizes[min(max(k, 0), len(self._sizes) - 1)])


def _trapezoid(f: Callable[[float], float], start: float, end: float) -> float:
    """Trapezoid rule with the limit from the left at the end, where the data may jump."""
    return 0.5 * (end - start) * (f(start) + f(float(np.nextafter(end, start))))


def _pieces(breakpoints: Array, start: float, end: float) -> Iterable[tuple[float, float]]:
    inner = breakpoints[(breakpoints > start) & (breakpoints < end)].tolist()
    edges = [start, *inner, end]
    return pairwise(edges)


def _ratio(value: Any, bound: Any) -> Array:
    value, bound = np.broadcast_arrays(np.asarray(value, dtype=np.float64), np.asarray(bound, dtype=np.float64))
    zero = bound == 0.0
    return np.where(zero, np.where(value > 0.0, np.inf, 0.0), value / np.where(zero, 1.0, bound))


def _check_pair(first: SpaceTimeNetwork, second: SpaceTimeNetwork) -> None:
    for name in ("placement", "leak", "n_samples"):
        if getattr(first, name) != getattr(second, name):
            raise ConfigError(f"the two models differ in {name}: {getattr(first, name)} and {getattr(second, name)}")
    if first.activation.name != second.activation.name:
        raise ConfigError(f"the two models differ in activation: {first.activation.name}, {second.activation.name}")
    if not (
        np.array_equal(first.grid.nodes, second.grid.nodes) and np.array_equal(first.grid.weights, second.grid.weights)
    ):
        raise ConfigError("the two models live on different grids")
    if any(m.amplitude is not None or hasattr(m.operator, "operators") for m in (first, second)):
        raise ConfigError("the stability estimate here is for weights constant in depth")


def _weight_distance(first: SpaceTimeNetwork, second: SpaceTimeNetwork) -> float:
    a: Any = first.operator
    b: Any = second.operator
    if a is b:
        return 0.0
    q = first.grid.weights
    gap = a.dense() - b.dense()
    # Similar to the operator in L2(q): Frobenius norm = Hilbert-Schmidt norm, 2-norm = operator norm.
    gap *= np.sqrt(q)[:, None] / np.sqrt(q)
    return float(np.linalg.norm(gap, "fro" if a.local == b.local else 2))
