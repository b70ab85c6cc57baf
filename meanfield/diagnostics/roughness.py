"""How far the layers of a network are from a limit of depth: jumps between them, and what more layers change.

    roughness(controls), forward_gap(velocity, x)

Layers tend to a function of depth, as L grows, if jumps between them are O(1/L); then the network is near itself
with more layers interpolated between its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, positive_int, shown
from meanfield.controls import Controls
from meanfield.errors import ConfigError
from meanfield.schemes import EULER, StepGrid
from meanfield.velocities import Velocity

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Roughness:
    """How far the layers of a parameter are from a function of depth; depth is counted from 0 to 1.

    Attributes
    ----------
    n_layers
        L.
    slope
        Largest max_k |theta_{k+1} - theta_k| L (nonuniform layers: over the distance of their middles). Bounded in
        L where there is a limit, about L where layers are independent.
    rms_jump
        Root of the mean of |theta_{k+1} - theta_k|^2.
    variation
        sum_k |theta_{k+1} - theta_k|.
    size
        Root of the mean of |theta_k|^2, for comparison.
    independence
        sum |theta_{k+1} - theta_k|^2 / (2 sum |theta_k - mean|^2): 1 for independent layers in the mean, O(L^-2) for
        layers on a smooth curve, 0 for equal ones.
    """

    n_layers: int
    slope: float
    rms_jump: float
    variation: float
    size: float
    independence: float


def roughness(controls: Controls) -> Roughness:
    """Measure the jumps between layers, Euclidean norms over all components.

    Parameters
    ----------
    controls
        Layers as piecewise constant controls, or the knots of piecewise linear ones.

    Notes
    -----
    Jumps O(1/L) are what Marion, Wu, Sander and Biau, "Implicit regularization of deep residual networks towards
    neural ODEs", arXiv 2309.01213, prove for training from a smooth start.
    """
    lengths = np.diff(controls.knots)
    distances = lengths if controls.interpolation == "linear" else 0.5 * (lengths[1:] + lengths[:-1])
    flat = controls.values.reshape(len(controls.values), -1)
    jumps = np.linalg.norm(np.diff(flat, axis=0), axis=1)
    if not jumps.size:
        return Roughness(len(flat), 0.0, 0.0, 0.0, float(np.linalg.norm(flat)), 0.0)
    spread = float(((flat - flat.mean(axis=0)) ** 2).sum())
    return Roughness(
        n_layers=len(flat),
        slope=float((jumps * (lengths.sum() / distances)).max()),
        rms_jump=float(np.sqrt((jumps**2).mean())),
        variation=float(jumps.sum()),
        size=float(np.sqrt((flat**2).sum() / len(flat))),
        independence=float((jumps**2).sum() / (2.0 * spread)) if spread > 0.0 else 0.0,
    )


@dataclass(frozen=True, eq=False)
class ForwardGap:
    """Distance of a network from itself with more layers interpolated between its own.

    Attributes
    ----------
    factors
        Numbers of layers each layer was cut into.
    gaps
        Root of the mean over inputs of |x^(factor) - x|^2, x the output of the network.
    change
        Root of the mean of |output - input|^2, for comparison.
    """

    factors: tuple[int, ...]
    gaps: Array
    change: float

    @property
    def relative(self) -> Array:
        """Gaps over the change."""
        return np.asarray(self.gaps / self.change)

    @property
    def growth(self) -> float:
        """Last gap over the first one; `expected_growth` for the layers of a limit, another for rough ones."""
        return float(self.gaps[-1] / self.gaps[0])

    @property
    def expected_growth(self) -> float:
        """(1 - 1/f_last)/(1 - 1/f_first), as Euler steps of length h/f are O(h/f) from the limit: 3/2 for 2 and 4."""
        return (1.0 - 1.0 / self.factors[-1]) / (1.0 - 1.0 / self.factors[0])

    @property
    def limit_gap(self) -> float:
        """Distance from the limit of infinitely many layers, the last gap over 1 - 1/f_last."""
        return float(self.gaps[-1] / (1.0 - 1.0 / self.factors[-1]))


def forward_gap(velocity: Velocity, x: Any, factors: Sequence[int] = (2, 4)) -> ForwardGap:
    """Distance of the network x + h_k v(t_k, x), k = 1 .. L, from itself with interpolated layers.

    Every layer is cut into as many equal ones as each factor says, with the parameters interpolated linearly between
    the middles of the original layers (`Controls.interpolated`). For the layers of a limit gaps are O(1/L).

    Parameters
    ----------
    velocity
        Of the network, from `Velocity.from_layers` or with piecewise constant `Controls` on the same knots.
    x
        Inputs, (d, n).
    factors
        Numbers >= 2, increasing.

    Raises
    ------
    ConfigError
        For velocities without layers or of several partitions, other factors or inputs of another shape.
    """
    if not isinstance(velocity, Velocity) or not velocity.layered or velocity.constant:
        raise ConfigError("velocity must have the layers of a network: piecewise constant Controls over depth")
    chosen = tuple(positive_int("factor", f) for f in factors)
    if not chosen or chosen[0] < 2 or any(a >= b for a, b in itertools.pairwise(chosen)):
        raise ConfigError(f"factors must increase from 2 or more, got {shown(factors)}")
    parts = velocity.describe()["parameters"]
    partitions = [part.knots for part in parts if isinstance(part, Controls)]
    if any(not np.array_equal(knots, partitions[0]) for knots in partitions):
        raise ConfigError("all parameters of a network must have the same layers, these have different knots")
    start = finite_array("x", x, shape=(velocity.dim, None))
    output = _output(velocity, partitions[0], start)
    gaps = []
    for factor in chosen:
        finer = tuple(part.interpolated(factor) if isinstance(part, Controls) else part for part in parts)
        knots = next(part.knots for part in finer if isinstance(part, Controls))
        network = Velocity(velocity.form, velocity.activation, velocity.dim, velocity.width, finer)
        gaps.append(_distance(_output(network, knots, start), output))
    return ForwardGap(chosen, np.array(gaps), _distance(output, start))


def _output(velocity: Velocity, knots: Array, x: Array) -> Array:
    """Output of the network with a layer between every two knots."""
    grid, out = StepGrid(knots, np.ones(len(knots) - 1, dtype=np.int64)), np.empty(x.shape)
    velocity.carry(EULER, grid, 0, grid.n_steps, x, out)
    return out


def _distance(a: Array, b: Array) -> float:
    with np.errstate(over="ignore", invalid="ignore"):  # networks that blow up have no finite gap
        return float(np.sqrt(((a - b) ** 2).sum(axis=0).mean()))
