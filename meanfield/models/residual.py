"""Residual networks on a batch: every sample follows the velocity of the network, as a particle.

    d_t x_j = v(t, x_j),   j = 1 .. n,      v = sigma(W x + b), W sigma(x) + b, or V sigma(W x + b) + c

An Euler step is a layer. The law of the n samples solves the continuity equation, and is
within O(n^-1/2) of the law of infinitely many. With noise nu K(x) dB the samples follow
Euler-Maruyama steps, and their law the Fokker-Planck equation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, checked_seed, finite_float, lookup, positive_int
from meanfield._random import fill_normal
from meanfield.controls import Controls
from meanfield.fields import Field
from meanfield.formulas import strength_at
from meanfield.parallel import for_blocks
from meanfield.schemes import Scheme, StepGrid
from meanfield.storage.layout import Axis
from meanfield.velocities import Velocity

Array = NDArray[np.float64]

_BLOCK = 16384


@dataclass(frozen=True, eq=False)
class ResidualNetwork:
    """Residual network, or neural ODE, on n samples; the state is (d, n), components first.

    Fixed steps run through all layers block by block, so that time is spent in sigma and not in memory; memory
    is that of the state.

    Parameters
    ----------
    velocity
        v, with its parameters over depth.
    n_samples
        n.
    nu
        Strength of the noise, >= 0; with noise steps are fixed, and drawn numbers depend on (seed, step, sample) only.
    amplitude
        K: a number or a NumPy-vectorised callable of the coordinates, K(x) or K(x_1, x_2, ...).
    seed
        Seed of the noise, >= 0.

    Raises
    ------
    ConfigError
        For values out of range.
    ResourceError
        For batches that do not fit into memory.
    """

    velocity: Velocity
    n_samples: int
    nu: float = 0.0
    amplitude: Any = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        n = positive_int("n_samples", self.n_samples)
        object.__setattr__(self, "n_samples", n)
        object.__setattr__(self, "nu", finite_float("nu", self.nu, least=0.0))
        if not callable(self.amplitude):
            object.__setattr__(self, "amplitude", finite_float("amplitude", self.amplitude))
        object.__setattr__(self, "seed", checked_seed("seed", self.seed))
        check_memory(f"a batch of {n} samples in {self.velocity.dim} dimensions", 8 * 5 * n * self.velocity.dim)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the state, (d, n)."""
        return self.velocity.dim, self.n_samples

    @property
    def breakpoints(self) -> Array:
        """Depths at which a parameter is not smooth."""
        return self.velocity.breakpoints

    def rate(self, t: float, y: Array, out: Array) -> None:
        """Fill out with v(t, x_j)."""
        self.velocity.value(t, y, out)

    @property
    def stochastic(self) -> bool:
        """Whether steps add noise."""
        return self.nu > 0.0

    def noise(self, t: float, y: Array, step: int, out: Array) -> None:  # noqa: ARG002  (every model has a time)
        """Fill out with nu K(x_j) xi_j, xi standard normal keyed by (seed, step, sample)."""
        seed, number = np.uint64(self.seed), np.uint64(step)
        for_blocks(lambda i, j: fill_normal(seed, number, i, out[:, i:j]), self.n_samples, _BLOCK)
        out *= self.nu * strength_at(self.amplitude, y)

    def fused(self, scheme: Scheme) -> bool:  # noqa: ARG002 (every scheme has the compiled path)
        """Whether `advance` has a compiled path for the scheme: always, but with noise never."""
        return not self.stochastic

    def advance(self, scheme: Scheme, grid: StepGrid, first: int, count: int, y: Array, out: Array) -> None:
        """Fill out with the state after `count` steps of a step grid, from y before them; see `Velocity.carry`."""
        self.velocity.carry(scheme, grid, first, count, y, out)

    @property
    def parameters(self) -> dict[str, Array | Controls]:
        """Parameters that can be trained, by name; see `Velocity.parameters`."""
        return self.velocity.parameters

    def with_parameters(self, **changed: Array | Controls) -> ResidualNetwork:
        """Return the same network with other parameters of the same shapes; see `Velocity.with_parameters`."""
        return replace(self, velocity=self.velocity.with_parameters(**changed))

    def label_weights(self, name: str) -> Array:
        """1: neurons of a layer are numbered, and count alike."""
        lookup("parameter", name, self.parameters)
        return np.ones(())

    def write_down(self, scheme: Scheme, grid: StepGrid, first: int, count: int, y: Array, out: Array) -> Array:
        """Fill out as `advance` and return what `pull_back` needs; see `Velocity.write_down`."""
        return self.velocity.write_down(scheme, grid, first, count, y, out)

    def pull_back(
        self, scheme: Scheme, grid: StepGrid, first: int, count: int, stages: Array, sources: Array, p: Array
    ) -> dict[str, Array]:
        """Pull costates back in place and return gradients by parameter; see `Velocity.pull_back`."""
        return self.velocity.pull_back(scheme, grid, first, count, stages, sources, p)

    def fields(self, y: Array) -> dict[str, Field]:
        """Activations x over components and samples."""
        return {"x": Field(y, ("component", "sample"), units="1", long_name="activation")}

    def axes(self) -> tuple[Axis, ...]:
        """Coordinates of the axes that `fields` names."""
        return (
            Axis("component", np.arange(self.velocity.dim), units="1", long_name="index of the component"),
            Axis("sample", np.arange(self.n_samples), units="1", long_name="index of the sample"),
        )

    def describe(self) -> dict[str, Any]:
        """What determines the model, for digests of runs."""
        return {
            "model": "ResidualNetwork",
            "velocity": self.velocity,
            "shape": list(self.shape),
            "nu": self.nu,
            "amplitude": self.amplitude,
            "seed": self.seed,
        }
