"""Parameters that depend on depth: biases, amplitudes, the controls of training.

A `Controls` holds values on a depth grid. Piecewise constant, it is a residual
network's layers, theta(t) = theta_k on [t_k, t_{k+1}); piecewise linear, it is
their continuous limit, theta(t) = (1 - s) theta_k + s theta_{k+1}.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, one_of, positive_int
from meanfield.errors import ConfigError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Controls:
    """Parameters over depth, piecewise constant or piecewise linear.

    Parameters
    ----------
    knots
        Depths t_0 < ... < t_K, (K + 1,).
    values
        Parameters, (K, ...) when piecewise constant, (K + 1, ...) when linear.
    interpolation
        ``"constant"`` (right-continuous) or ``"linear"``.

    Raises
    ------
    ConfigError
        If the knots do not increase or the lengths do not match.
    """

    knots: Array
    values: Array
    interpolation: str = "constant"

    def __post_init__(self) -> None:
        one_of("interpolation", self.interpolation, ("constant", "linear"))
        knots = finite_array("knots", self.knots, shape=(None,))
        values = finite_array("values", self.values)
        if len(knots) < 2 or not (np.diff(knots) > 0).all():
            raise ConfigError("knots must be at least two strictly increasing depths")
        wanted = len(knots) - (self.interpolation == "constant")
        if values.ndim == 0 or len(values) != wanted:
            have = len(values) if values.ndim else 0
            raise ConfigError(
                f"values has length {have}, but {len(knots)} knots need {wanted} values ({self.interpolation})"
            )
        object.__setattr__(self, "knots", knots)
        object.__setattr__(self, "values", values)

    @classmethod
    def sample(cls, function: Any, knots: Any, interpolation: str = "linear") -> Controls:
        """Controls that take the values of a callable of depth at the knots (midpoints if constant)."""
        knots = finite_array("knots", knots, shape=(None,))
        at = knots if interpolation == "linear" else 0.5 * (knots[1:] + knots[:-1])
        return cls(knots, np.array([np.asarray(function(t), dtype=np.float64) for t in at]), interpolation)

    @classmethod
    def layers(cls, limit: Any, knots: Any, values: str = "start") -> Controls:
        """Layers of a limit: piecewise constant controls that tend to a function of depth as they get finer.

        Parameters
        ----------
        limit
            K: Controls, or a callable of depth that is smooth between the knots.
        knots
            Depths between which the layers stand, (n + 1,).
        values
            ``"start"``: K(t_i), ``"middle"``: K at the middle of the layer, or ``"mean"``: (1/h_i) int K(t) dt over
            the layer, exact for Controls and by Gauss rules of order 16 for callables.

        Raises
        ------
        ConfigError
            For other words, or knots that do not increase.

        Notes
        -----
        Recovery sequences: for K in H1 and n equal layers of [0, 1] n sum |K_i - K_{i-1}|^2 is at most int |K'|^2 for
        all three and tends to it. Thorpe and van Gennip, "Deep limits of residual neural networks", arXiv 1810.11741.
        """
        one_of("values", values, ("start", "middle", "mean"))
        knots = finite_array("knots", knots, shape=(None,))
        function = limit.at if isinstance(limit, Controls) else limit
        if values == "middle":
            return cls.sample(function, knots, "constant")
        if values == "start":
            return cls(knots, np.array([np.asarray(function(t), dtype=np.float64) for t in knots[:-1]]))
        if len(knots) < 2 or not (np.diff(knots) > 0).all():
            raise ConfigError("knots must be at least two strictly increasing depths")
        inner = limit.knots if isinstance(limit, Controls) else knots
        cuts = np.unique(np.concatenate([knots, inner[(inner > knots[0]) & (inner < knots[-1])]]))
        nodes, weights = np.polynomial.legendre.leggauss(8)
        times = 0.5 * (cuts[1:] + cuts[:-1])[:, None] + 0.5 * np.diff(cuts)[:, None] * nodes
        table = np.array([[np.asarray(function(t), dtype=np.float64) for t in row] for row in times])
        means = np.einsum("kj...,j->k...", table, 0.5 * weights)
        return cls(knots, _means(cuts, means, np.searchsorted(cuts, knots[:-1])))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameters at one depth."""
        return self.values.shape[1:]

    @property
    def breakpoints(self) -> Array:
        """Depths at which theta or its derivative jumps: the inner knots."""
        return self.knots[1:-1]

    def at(self, t: float) -> Array:
        """Parameters at depth t; outside the knots the end values continue."""
        last = len(self.knots) - 2
        k = min(max(int(np.searchsorted(self.knots, t, side="right")) - 1, 0), last)
        if self.interpolation == "constant":
            value: Array = self.values[k]
            return value
        s = min(max((t - self.knots[k]) / (self.knots[k + 1] - self.knots[k]), 0.0), 1.0)
        if s == 0.0:
            return np.asarray(self.values[k])
        return np.asarray((1.0 - s) * self.values[k] + s * self.values[k + 1])

    def table(self, times: Array) -> Array:
        """Parameters at many depths, times.shape + shape; row by row equal to `at`, to the last bit."""
        flat = np.asarray(times, dtype=np.float64).ravel()
        last = len(self.knots) - 2
        k = np.clip(np.searchsorted(self.knots, flat, side="right") - 1, 0, last)
        if self.interpolation == "constant":
            return self.values[k].reshape(np.shape(times) + self.shape)
        s = np.clip((flat - self.knots[k]) / (self.knots[k + 1] - self.knots[k]), 0.0, 1.0)
        s = s.reshape(-1, *(1 for _ in self.shape))
        return np.asarray((1.0 - s) * self.values[k] + s * self.values[k + 1]).reshape(np.shape(times) + self.shape)

    def pull_back(self, times: Array, gradient: Array) -> Array:
        """Transpose of `table`: gradients in the values, of their shape, from those in theta at many depths.

        `gradient` has the shape times.shape + shape.
        """
        out = np.zeros_like(self.values)
        self.add_pull_back(times, gradient, out)
        return out

    def add_pull_back(self, times: Array, gradient: Array, out: Array) -> None:
        """Add `pull_back` to out, of the shape of the values."""
        flat = np.asarray(times, dtype=np.float64).ravel()
        rows = np.reshape(gradient, (len(flat), *self.shape))
        k = np.clip(np.searchsorted(self.knots, flat, side="right") - 1, 0, len(self.knots) - 2)
        if self.interpolation == "constant":
            _add_rows(out, k, rows)
            return
        s = np.clip((flat - self.knots[k]) / (self.knots[k + 1] - self.knots[k]), 0.0, 1.0)
        s = s.reshape(-1, *(1 for _ in self.shape))
        _add_rows(out, k, (1.0 - s) * rows)
        _add_rows(out, k + 1, s * rows)

    def refine(self, factor: int = 2) -> Controls:
        """Same function of depth on a grid with every interval cut into `factor` equal parts."""
        factor = positive_int("factor", factor)
        s = np.arange(factor) / factor
        inner = self.knots[:-1, None] + s * np.diff(self.knots)[:, None]
        knots = np.append(inner.ravel(), self.knots[-1])
        if self.interpolation == "constant":
            return Controls(knots, np.repeat(self.values, factor, axis=0), "constant")
        return Controls(knots, np.array([self.at(t) for t in knots]), "linear")

    def interpolated(self, factor: int = 2) -> Controls:
        """Layers cut into `factor` equal ones, with values interpolated linearly between the middles of the old ones.

        Beyond the first and the last middle the end values continue. Layers on a smooth function of depth are near
        their interpolation, others are not; piecewise linear controls are what `refine` makes of them.
        """
        fine = self.refine(factor)
        if self.interpolation == "linear" or len(self.values) == 1:
            return fine
        middles, finer = (0.5 * (c.knots[1:] + c.knots[:-1]) for c in (self, fine))
        return Controls(fine.knots, Controls(middles, self.values, "linear").table(finer), "constant")

    def coarsen(self, factor: int = 2) -> Controls:
        """Controls on every `factor`-th knot: interval means if constant, knot values if linear."""
        factor = positive_int("factor", factor)
        if (len(self.knots) - 1) % factor:
            raise ConfigError(f"factor {factor} does not divide the {len(self.knots) - 1} intervals")
        knots = self.knots[::factor]
        if self.interpolation == "linear":
            return Controls(knots, self.values[::factor], "linear")
        return Controls(knots, _means(self.knots, self.values, np.arange(0, len(self.values), factor)), "constant")

    def norm(self) -> float:
        """L2 norm over depth of the Euclidean norm, (int |theta(t)|^2 dt)^(1/2), exact."""
        step = np.diff(self.knots)
        flat = self.values.reshape(len(self.values), -1)
        if self.interpolation == "constant":
            return float(np.sqrt(step @ (flat**2).sum(axis=1)))
        left, right = flat[:-1], flat[1:]
        return float(np.sqrt(step @ ((left**2 + left * right + right**2).sum(axis=1) / 3)))

    def roughness(self) -> float:
        """H1 seminorm over depth, (int |theta'(t)|^2 dt)^(1/2); infinite for a jump."""
        jump = np.diff(self.values, axis=0).reshape(len(self.values) - 1, -1)
        if self.interpolation == "constant":
            return float("inf") if jump.any() else 0.0
        return float(np.sqrt(((jump**2).sum(axis=1) / np.diff(self.knots)).sum()))

    def describe(self) -> dict[str, Any]:
        """What determines the controls, for digests of runs."""
        return {"knots": self.knots, "values": self.values, "interpolation": self.interpolation}


def _means(knots: Array, values: Array, first: NDArray[np.intp]) -> Array:
    """Means over groups of pieces between knots, each from one of the pieces `first` up to the next."""
    lengths = np.diff(knots).reshape(-1, *(1 for _ in values.shape[1:]))
    return np.asarray(np.add.reduceat(values * lengths, first) / np.add.reduceat(lengths, first))


def _add_rows(out: Array, places: NDArray[np.int64], rows: Array) -> None:
    """Add rows[i] to out[places[i]], also where places repeat; NumPy's own way to do that is slow."""
    if (places[1:] > places[:-1]).all():
        out[places] += rows
        return
    if rows[:1].size < 64:
        np.add.at(out, places, rows)
        return
    for i, place in enumerate(places.tolist()):
        out[place] += rows[i]
