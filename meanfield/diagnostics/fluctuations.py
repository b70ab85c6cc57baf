"""Fluctuations of particle systems over seeds: N Var and means with confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, stdtrit

from meanfield._checks import finite_array, finite_float, positive_int
from meanfield.errors import ConfigError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure measured over seeds, with its confidence interval."""

    value: float
    low: float
    high: float
    n_seeds: int

    def covers(self, figure: float) -> bool:
        """Whether the interval holds the figure."""
        return self.low <= figure <= self.high


def scaled_variance(values: Any, n_particles: int, *, confidence: float = 0.95) -> Estimate:
    """N Var of a statistic of N particles, from its values over independent seeds.

        N s^2,   interval N s^2 (S - 1) / chi^2_{S-1} quantiles (exact for normal values)

    Parameters
    ----------
    values
        The statistic for each seed, (S,), S >= 2.
    n_particles
        N.
    confidence
        Probability covered by the interval.

    Raises
    ------
    ConfigError
        For fewer than two seeds, or values out of range.
    """
    v, tail = _checked(values, confidence)
    square = float(np.var(v, ddof=1)) * positive_int("n_particles", n_particles)
    freedom = len(v) - 1
    low, high = (square * freedom / float(chdtri(freedom, q)) for q in (tail, 1.0 - tail))
    return Estimate(square, low, high, len(v))


def mean_over_seeds(values: Any, *, confidence: float = 0.95) -> Estimate:
    """Mean over independent seeds with the interval of Student's t; parameters and errors as `scaled_variance`."""
    v, tail = _checked(values, confidence)
    half = float(stdtrit(len(v) - 1, 1.0 - tail)) * float(np.std(v, ddof=1)) / np.sqrt(len(v))
    mean = float(v.mean())
    return Estimate(mean, mean - half, mean + half, len(v))


def coupling_distance(few: Any, many: Any) -> float:
    """Distance along paths of M particles from the same M of a larger system under the same noise.

        (1/M sum_{i <= M} |theta_i - theta'_i|^2)^(1/2)

    With starts and noise keyed by the particle, the error of propagation of chaos: O(M^(-1/2)).

    Parameters
    ----------
    few, many
        States (P, M) and (P, M') with M' >= M.

    Raises
    ------
    ConfigError
        For shapes that do not go together.
    """
    few = finite_array("few", few, shape=(None, None))
    many = finite_array("many", many, shape=(len(few), None))
    if many.shape[1] < few.shape[1]:
        raise ConfigError(f"few has {few.shape[1]} particles, but many has {many.shape[1]}")
    if not few.size:
        raise ConfigError(f"few has shape {few.shape}: there must be at least one particle")
    gap = few - many[:, : few.shape[1]]
    return float(np.sqrt(np.mean(np.sum(gap**2, axis=0))))


def _checked(values: Any, confidence: float) -> tuple[Array, float]:
    v = finite_array("values", values, shape=(None,))
    if len(v) < 2:
        raise ConfigError(f"values must come from at least two seeds, got {len(v)}")
    confidence = finite_float("confidence", confidence, above=0.0)
    if confidence >= 1.0:
        raise ConfigError(f"confidence must be < 1, got {confidence!r}")
    return v, 0.5 * (1.0 - confidence)
