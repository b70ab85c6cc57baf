"""Regularisers of parameters over depth: L2, H1, total variation, smoothness along labels; value and exact gradient.

A regulariser is a function of `Controls` theta(t): of their values, knots and interpolation. Piecewise constant
values stand at the middles of their intervals, a distance d_i = (h_{i-1} + h_i)/2 apart; piecewise linear ones at the
knots. With weights q (those of a grid of labels) |theta|^2 is sum_j q_j theta_j^2 instead of sum_j theta_j^2.
Regularisers add: ``DepthL2(1e-3) + DepthH1(1e-2)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float, one_of, shown
from meanfield.errors import ConfigError

Array = NDArray[np.float64]


@runtime_checkable
class Regularizer(Protocol):
    """What learning asks of a regulariser."""

    def value(self, values: Array, knots: Array, interpolation: str = "constant") -> float:
        """R of controls with these values, knots and interpolation."""
        ...

    def gradient(self, values: Array, knots: Array, interpolation: str = "constant") -> Array:
        """dR/dvalues, the shape of `values`, a new array."""
        ...

    def describe(self) -> dict[str, Any]:
        """What determines the regulariser, for digests of runs."""
        ...


def regularizer_of(value: Any) -> Regularizer:
    """Return a regulariser as it is; None is none at all, the empty sum.

    Raises
    ------
    ConfigError
        For anything else.
    """
    if value is None:
        return Total(())
    if isinstance(value, type) or not isinstance(value, Regularizer):
        raise ConfigError(f"regularizer must be one such as DepthL2(1e-3), got {shown(value)}")
    return value


class _Summand:
    """What can be added to other regularisers."""

    def __add__(self, other: Any) -> Total:
        return Total((*_terms(self), *_terms(other)))


@dataclass(frozen=True)
class Total(_Summand):
    """Sum of regularisers, of none: 0.

    Parameters
    ----------
    terms
        The regularisers.

    Raises
    ------
    ConfigError
        For what is none.
    """

    terms: tuple[Regularizer, ...]

    def __post_init__(self) -> None:
        for term in self.terms:
            regularizer_of(term)

    def value(self, values: Array, knots: Array, interpolation: str = "constant") -> float:
        """Sum of the values."""
        return float(sum(term.value(values, knots, interpolation) for term in self.terms))

    def gradient(self, values: Array, knots: Array, interpolation: str = "constant") -> Array:
        """Sum of the gradients."""
        total = np.zeros(np.shape(values))
        for term in self.terms:
            total += term.gradient(values, knots, interpolation)
        return total

    def describe(self) -> dict[str, Any]:
        """What determines the sum, for digests of runs."""
        return {"regularizer": "Total", "terms": [term.describe() for term in self.terms]}


def _terms(value: Any) -> tuple[Regularizer, ...]:
    return value.terms if isinstance(value, Total) else (regularizer_of(value),)


@dataclass(frozen=True, eq=False)
class DepthL2(_Summand):
    """lam int |theta(t)|^2 dt, exact for both interpolations.

    Parameters
    ----------
    strength
        lam >= 0.
    weights
        q >= 0, of a shape that broadcasts to that of theta at one depth; None is 1.

    Raises
    ------
    ConfigError
        For values out of range.
    """

    strength: float
    weights: Any = None

    def __post_init__(self) -> None:
        _canonical(self)

    def value(self, values: Array, knots: Array, interpolation: str = "constant") -> float:
        """R of controls."""
        steps = _steps(values, knots, interpolation)
        return self.strength * _square_integral(values, self.weights, steps, interpolation)

    def gradient(self, values: Array, knots: Array, interpolation: str = "constant") -> Array:
        """dR/dvalues."""
        steps = _steps(values, knots, interpolation)
        return self.strength * _square_gradient(values, self.weights, steps, interpolation)

    def describe(self) -> dict[str, Any]:
        """What determines the regulariser, for digests of runs."""
        return {"regularizer": "DepthL2", "strength": self.strength, "weights": self.weights}


@dataclass(frozen=True, eq=False)
class DepthH1(_Summand):
    """alpha (int |theta'(t)|^2 dt + tau |theta(t_0)|^2).

    For the n layers of piecewise constant controls the quotient
    alpha (sum_{i>=1} |theta_i - theta_{i-1}|^2 / d_i + tau |theta_0|^2), which on [0, 1] with equal layers is
    alpha (n sum_{i>=1} |theta_i - theta_{i-1}|^2 + tau |theta_0|^2); for piecewise linear ones the integral itself.

    Parameters
    ----------
    strength
        alpha >= 0.
    tau
        Weight of the start, >= 0; without it constants cost nothing.
    weights
        As for `DepthL2`.

    Raises
    ------
    ConfigError
        For values out of range.

    Notes
    -----
    Source: Thorpe and van Gennip, "Deep limits of residual neural networks", arXiv 1810.11741.
    """

    strength: float
    tau: float = 1.0
    weights: Any = None

    def __post_init__(self) -> None:
        _canonical(self)
        object.__setattr__(self, "tau", finite_float("tau", self.tau, least=0.0))

    def value(self, values: Array, knots: Array, interpolation: str = "constant") -> float:
        """R of controls."""
        gaps = _gaps(_steps(values, knots, interpolation), interpolation)
        jumps = np.diff(values, axis=0)
        rise = float((_squares(jumps, self.weights) / gaps).sum())
        return self.strength * (rise + self.tau * float(_squares(values[:1], self.weights)[0]))

    def gradient(self, values: Array, knots: Array, interpolation: str = "constant") -> Array:
        """dR/dvalues."""
        gaps = _gaps(_steps(values, knots, interpolation), interpolation)
        slopes = np.diff(values, axis=0) / _along(gaps, values)
        out = _difference_adjoint(slopes, axis=0)
        out[0] += self.tau * values[0]
        return np.asarray(2.0 * self.strength * _weighted(out, self.weights))

    def describe(self) -> dict[str, Any]:
        """What determines the regulariser, for digests of runs."""
        return {"regularizer": "DepthH1", "strength": self.strength, "tau": self.tau, "weights": self.weights}


@dataclass(frozen=True, eq=False)
class DepthVariation(_Summand):
    """beta int (sqrt(|theta'(t)|^2 + eps^2) - eps) dt: the total variation over depth, smoothed.

    For piecewise constant controls beta sum_{i>=1} (sqrt(|theta_i - theta_{i-1}|^2 + (eps d_i)^2) - eps d_i); between
    the variation less beta eps (T - t_0) and the variation.

    Parameters
    ----------
    strength
        beta >= 0.
    smoothing
        eps > 0, a slope: below it the regulariser is quadratic.
    weights
        As for `DepthL2`.

    Raises
    ------
    ConfigError
        For values out of range.
    """

    strength: float
    smoothing: float = 1e-3
    weights: Any = None

    def __post_init__(self) -> None:
        _canonical(self)
        object.__setattr__(self, "smoothing", finite_float("smoothing", self.smoothing, above=0.0))

    def _lengths(self, jumps: Array, floor: Array) -> Array:
        """Smoothed norms of jumps, (K,)."""
        return np.asarray(np.sqrt(_squares(jumps, self.weights) + floor**2))

    def value(self, values: Array, knots: Array, interpolation: str = "constant") -> float:
        """R of controls."""
        floor = self.smoothing * _gaps(_steps(values, knots, interpolation), interpolation)
        jumps = np.diff(values, axis=0)
        # sqrt(s + f^2) - f without the cancellation.
        return self.strength * float((_squares(jumps, self.weights) / (self._lengths(jumps, floor) + floor)).sum())

    def gradient(self, values: Array, knots: Array, interpolation: str = "constant") -> Array:
        """dR/dvalues."""
        floor = self.smoothing * _gaps(_steps(values, knots, interpolation), interpolation)
        jumps = np.diff(values, axis=0)
        pulls = _difference_adjoint(jumps / _along(self._lengths(jumps, floor), values), axis=0)
        return np.asarray(self.strength * _weighted(pulls, self.weights))

    def describe(self) -> dict[str, Any]:
        """What determines the regulariser, for digests of runs."""
        own = {"strength": self.strength, "smoothing": self.smoothing, "weights": self.weights}
        return {"regularizer": "DepthVariation", **own}


@dataclass(frozen=True, eq=False)
class LabelSmoothness(_Summand):
    """beta int sum_j |theta_{j+1}(t) - theta_j(t)|^2 / (x_{j+1} - x_j) dt along one axis of labels.

    The integral of |d_x theta|^2 over labels and depth, of what is linear between the labels x_j.

    Parameters
    ----------
    strength
        beta >= 0.
    labels
        x_0 < x_1 < ..., at least two.
    axis
        Axis of theta at one depth along which the labels lie; negative ones count from the end.
    period
        Length of the circle the labels lie on: the last is a neighbour of the first; None for an interval.
    weights
        q >= 0 of the other axes (those of theta at one depth without `axis`), or what broadcasts to them.

    Raises
    ------
    ConfigError
        For labels that do not increase or exceed the period, or values out of range.
    """

    strength: float
    labels: Array
    axis: int = 0
    period: float | None = None
    weights: Any = None

    def __post_init__(self) -> None:
        _canonical(self)
        labels = finite_array("labels", self.labels, shape=(None,))
        if len(labels) < 2 or not (np.diff(labels) > 0.0).all():
            raise ConfigError("labels must be at least two strictly increasing numbers")
        if self.period is not None:
            period = finite_float("period", self.period)
            if not period > labels[-1] - labels[0]:
                raise ConfigError(f"period must exceed the span of the labels {labels[-1] - labels[0]}, got {period}")
            object.__setattr__(self, "period", period)
        if isinstance(self.axis, bool) or not isinstance(self.axis, (int, np.integer)):
            raise ConfigError(f"axis must be an integer, got {shown(self.axis)}")
        object.__setattr__(self, "labels", labels)

    def _slopes(self, values: Array) -> tuple[Array, Array]:
        """Values with the labels last and their differences over sqrt of the distance, (..., N - 1) or (..., N)."""
        ndim = np.ndim(values) - 1
        if not -ndim <= self.axis < ndim:
            raise ConfigError(f"axis {self.axis} is none of parameters of shape {np.shape(values)[1:]}")
        moved = np.moveaxis(values, self.axis % ndim + 1, -1)
        if moved.shape[-1] != len(self.labels):
            raise ConfigError(f"axis {self.axis} has length {moved.shape[-1]}, but there are {len(self.labels)} labels")
        distances = np.diff(self.labels)
        if self.period is None:
            return np.diff(moved, axis=-1) / np.sqrt(distances), distances
        distances = np.append(distances, self.period - (self.labels[-1] - self.labels[0]))
        return (np.roll(moved, -1, axis=-1) - moved) / np.sqrt(distances), distances

    def _weights(self) -> Array | None:
        return None if self.weights is None else np.asarray(self.weights)[..., None]

    def value(self, values: Array, knots: Array, interpolation: str = "constant") -> float:
        """R of controls."""
        steps = _steps(values, knots, interpolation)
        slopes, _ = self._slopes(values)
        return self.strength * _square_integral(slopes, self._weights(), steps, interpolation)

    def gradient(self, values: Array, knots: Array, interpolation: str = "constant") -> Array:
        """dR/dvalues."""
        steps = _steps(values, knots, interpolation)
        slopes, distances = self._slopes(values)
        pulls = _square_gradient(slopes, self._weights(), steps, interpolation) / np.sqrt(distances)
        out = _difference_adjoint(pulls, axis=-1) if self.period is None else np.roll(pulls, 1, axis=-1) - pulls
        return np.ascontiguousarray(np.moveaxis(self.strength * out, -1, self.axis % (np.ndim(values) - 1) + 1))

    def describe(self) -> dict[str, Any]:
        """What determines the regulariser, for digests of runs."""
        own = {"strength": self.strength, "labels": self.labels, "axis": self.axis, "period": self.period}
        return {"regularizer": "LabelSmoothness", **own, "weights": self.weights}


def _canonical(own: Any) -> None:
    """Check strength and weights, which all regularisers have."""
    object.__setattr__(own, "strength", finite_float("strength", own.strength, least=0.0))
    if own.weights is not None:
        weights = finite_array("weights", own.weights)
        if (weights < 0.0).any():
            raise ConfigError(f"weights must be >= 0, got {weights.min()}")
        object.__setattr__(own, "weights", weights)


def _steps(values: Array, knots: Array, interpolation: str) -> Array:
    """Lengths of the intervals between the knots, which must fit the values."""
    one_of("interpolation", interpolation, ("constant", "linear"))
    steps = np.diff(knots)
    if np.ndim(knots) != 1 or not steps.size or not (steps > 0.0).all():
        raise ConfigError("knots must be at least two strictly increasing depths")
    wanted = len(steps) + (interpolation == "linear")
    if np.ndim(values) == 0 or len(values) != wanted:
        have = np.shape(values)
        raise ConfigError(f"values has shape {have}, but {len(knots)} knots need {wanted} values ({interpolation})")
    return np.asarray(steps)


def _gaps(steps: Array, interpolation: str) -> Array:
    """Distances between neighbouring values: of the middles of intervals, or of the knots."""
    return steps if interpolation == "linear" else np.asarray(0.5 * (steps[1:] + steps[:-1]))


def _along(depths: Array, values: Array) -> Array:
    """Return (K,) as (K, 1, ..., 1), to broadcast over the parameters at one depth."""
    return depths.reshape(-1, *(1 for _ in values.shape[1:]))


def _weighted(a: Array, weights: Array | None) -> Array:
    if weights is None:
        return a
    try:
        return a * np.broadcast_to(weights, a.shape[1:])
    except ValueError:
        raise ConfigError(f"weights has shape {weights.shape}, which does not fit parameters {a.shape[1:]}") from None


def _squares(a: Array, weights: Array | None) -> Array:
    """Squared norm at each depth, (K,)."""
    return np.asarray((a * _weighted(a, weights)).sum(axis=tuple(range(1, a.ndim))))


def _square_integral(a: Array, weights: Array | None, steps: Array, interpolation: str) -> float:
    """Integral over depth of the squared norm."""
    squares = _squares(a, weights)
    if interpolation == "constant":
        return float(steps @ squares)
    return float(steps @ (squares[:-1] + squares[1:] + _squares(a[:-1] + a[1:], weights)) / 6.0)


def _square_gradient(a: Array, weights: Array | None, steps: Array, interpolation: str) -> Array:
    """Gradient of `_square_integral` with respect to a."""
    if interpolation == "constant":
        return np.asarray(2.0 * _along(steps, a) * _weighted(a, weights))
    out = np.zeros(a.shape)
    third = _along(steps, a) / 3.0
    out[:-1] += third * (2.0 * a[:-1] + a[1:])
    out[1:] += third * (2.0 * a[1:] + a[:-1])
    return _weighted(out, weights)


def _difference_adjoint(pulls: Array, axis: int) -> Array:
    """Adjoint of numpy.diff along the first or the last axis."""
    shape = list(pulls.shape)
    shape[axis] += 1
    out = np.zeros(shape)
    moved, given = np.moveaxis(out, axis, 0), np.moveaxis(pulls, axis, 0)
    moved[1:] += given
    moved[:-1] -= given
    return out
