"""Residual of Pontryagin's minimum principle: how far layers of a network are from minimising their Hamiltonians."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meanfield.learning.hamiltonians import LayerHamiltonian, layers_of
from meanfield.learning.training import Network, Training

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PmpResidual:
    """How far a network is from the minimum principle.

    Attributes
    ----------
    gaps
        H_k(theta_k) - min H_k of every layer, (K,): to the best minimum found, below 0 by rounding at most.
    slopes
        |grad H_k(theta_k)|, (K,).
    hamiltonian
        H_k(theta_k), (K,); constant up to O(h) along an optimum if nothing else depends on depth.
    """

    gaps: Array
    slopes: Array
    hamiltonian: Array

    @property
    def gap(self) -> float:
        """Largest gap, up to its sign."""
        return float(np.abs(self.gaps).max())

    @property
    def stationarity(self) -> float:
        """Largest slope."""
        return float(self.slopes.max())

    @property
    def drift(self) -> float:
        """Largest less least Hamiltonian."""
        return float(np.ptp(self.hamiltonian))


def pmp_residual(problem: Training, model: Network | None = None) -> PmpResidual:
    """Residual of the minimum principle at a network, by default that of the problem.

    Parameters
    ----------
    problem
        The problem: Euler steps, `DepthL2` of a strength > 0 for all that is trained.
    model
        Network of the same kind.

    Raises
    ------
    ConfigError, NumericalError
        As for `LayerHamiltonian.along` and `LayerHamiltonian.minimised`.

    Notes
    -----
    The gap is exact where the velocity is linear in the trained parameters, else one to the better of two local
    minima, those found from theta_k and from 0. It is what a change of one thin layer gains, per depth: where v is
    not linear minima of J, which are stationary, may have one.
    Source: Li, Chen, Tai and E, "Maximum principle based algorithms for deep learning", arXiv 1710.09513.
    """
    model = problem.model if model is None else model
    hamiltonian, theta = LayerHamiltonian.along(problem, model), layers_of(problem, model)
    values = hamiltonian.values(theta)
    gaps = values - hamiltonian.minima(theta)
    return PmpResidual(gaps, hamiltonian.norms(hamiltonian.gradient(theta)), values)
