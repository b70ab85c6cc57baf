"""Law of the neurons of a hidden layer of infinite width, on a grid of parameters.

    d_t rho = div(rho grad psi[rho]) + tau Laplace rho,    psi = dF/drho,    F = l(f) + (lam/2) int |theta|^2 drho,
    f(x) = int h(x, theta) rho(dtheta)

The gradient flow of the free energy F + tau int rho log rho, whose steady states are the fixed points of
rho -> exp(-psi[rho]/tau) / Z. Source: Mei, Montanari, Nguyen, "A mean field view of the landscape of two-layer neural
networks", arXiv 1804.06561. Fluxes between cells are those of Scharfetter and Gummel, exact where psi is linear and
rho is Gibbs: that law is steady to round-off, and the discrete free energy is dissipated (consequence of the model).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, xlogy

from meanfield._checks import check_memory, finite_array, finite_float, positive_int, shown
from meanfield.activations import Activation
from meanfield.cells import Cells, exchange_weights
from meanfield.errors import ConfigError, NumericalError
from meanfield.features import Features
from meanfield.fields import Field
from meanfield.losses import Loss, loss_of
from meanfield.parallel import blas_single_thread
from meanfield.storage.layout import Axis

Array = NDArray[np.float64]

# A mass that stands for none where its logarithm is taken.
_EMPTY = 1e-290
# Relative rounding of a free energy.
_ROUNDING = 1e-13
# Steps accepted in a row after which a longer one is tried.
_GROW = 10
# How far the sum of masses may be from 1.
_TOTAL = 1e-9


@dataclass(frozen=True, eq=False)
class GibbsPoint:
    """Where the damped Gibbs iteration ended.

    Attributes
    ----------
    masses
        Last law accepted, of the model's shape.
    residual
        sum |G(m) - m|, twice the distance in total variation to its Gibbs law.
    iterations, damping
        Gibbs maps evaluated, and the last damping.
    converged
        Whether the residual reached the tolerance.
    """

    masses: Array
    residual: float
    iterations: int
    damping: float
    converged: bool

    def raise_for_status(self) -> GibbsPoint:
        """Return the point if the iteration converged, else raise `NumericalError`."""
        if not self.converged:
            raise NumericalError(
                f"the Gibbs iteration did not converge: residual {self.residual:.3g} after {self.iterations} "
                f"iterations, damping {self.damping:.3g}"
            )
        return self


@dataclass(frozen=True)
class _Flow:
    """First variation at the cells, its rise over tau and the flow of mass across the faces of each axis."""

    masses: Array
    psi: Array
    rises: tuple[Array, ...]
    flows: tuple[Array, ...]


@dataclass(frozen=True, eq=False, init=False)
class NeuronDensity:
    """Law of the parameters of a neuron on the cells of a box, as a model: the state holds the mass of each cell.

    One or two parameters (`features.Features`), no flux through the ends of the box. A rate costs O(cells n C).

    Parameters
    ----------
    x
        Inputs, (d, n); d = 0 is allowed.
    loss
        Loss of the outputs at these inputs (`losses`).
    activation
        Name of sigma or an `Activation`.
    cells
        Cells of the box of parameters, an axis for each in the order a, w, b.
    temperature
        tau > 0.
    penalty
        lam >= 0.
    outer, bias
        Whether a is trained, whether there is b.

    Raises
    ------
    ConfigError
        For neurons with more or fewer parameters than the cells have axes, shapes that differ, values out of range.
    ResourceError
        For grids that do not fit into memory.
    """

    features: Features
    loss: Loss
    cells: Cells
    temperature: float
    penalty: float
    # h at every cell (C, cells, n), (lam/2)|theta|^2, and the largest difference of h over a face.
    _h: Array = field(repr=False)
    _confinement: Array = field(repr=False)
    _jump: float = field(repr=False)
    _last: dict[str, _Flow] = field(repr=False)

    def __init__(
        self,
        x: Any,
        loss: Loss,
        activation: str | Activation = "tanh",
        *,
        cells: Cells,
        temperature: float,
        penalty: float = 0.0,
        outer: bool = True,
        bias: bool = True,
    ) -> None:
        put = object.__setattr__
        put(self, "loss", loss_of(loss))
        put(self, "features", Features(x, activation, outputs=loss.n_outputs, outer=outer, bias=bias))
        if not np.isfinite(loss.curvature):
            raise ConfigError("the loss must have a bounded curvature, or no step is known to dissipate")
        if self.features.n_samples != loss.n_samples:
            raise ConfigError(f"x has {self.features.n_samples} samples, but the loss has {loss.n_samples}")
        names = ", ".join(self.features.names)
        if not isinstance(cells, Cells):
            raise ConfigError(f"cells must be Cells, got {shown(cells)}")
        if self.features.n_parameters != cells.dim:
            raise ConfigError(f"cells have {cells.dim} axes, but a neuron has the parameters {names}")
        put(self, "cells", cells)
        put(self, "temperature", finite_float("temperature", temperature, above=0.0))
        put(self, "penalty", finite_float("penalty", penalty, least=0.0))
        total = int(np.prod(cells.shape))
        check_memory(f"a grid of {total} cells", 8 * total * (2 * loss.n_outputs * loss.n_samples + 24))
        points = cells.points()
        h = self.features.evaluate(points)
        put(self, "_h", h)
        put(self, "_confinement", 0.5 * self.penalty * np.sum(points**2, axis=0).reshape(cells.shape))
        put(self, "_jump", max(_largest_jump(h.reshape(len(h), *cells.shape, -1), k) for k in range(cells.dim)))
        put(self, "_last", {})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the state: the numbers of cells."""
        return self.cells.shape

    @property
    def steps_by_limit(self) -> bool:
        """That the time loop takes Euler steps of `largest_step` unless told otherwise: they dissipate."""
        return True

    @property
    def breakpoints(self) -> Array:
        """None: the flow is smooth."""
        return np.empty(0)

    def normal(self, mean: Any = 0.0, deviation: Any = 1.0) -> Array:
        """Masses of independent normal parameters, cut off at the ends of the box.

        Raises
        ------
        ConfigError
            For deviations <= 0, or a law that has no mass in the box.
        """
        m, s = (_each(name, v, self.cells.dim) for name, v in (("mean", mean), ("deviation", deviation)))
        if (s <= 0.0).any():
            raise ConfigError(f"deviation must be > 0, got {s.tolist()}")
        masses = np.ones(())
        for k in range(self.cells.dim):
            masses = np.multiply.outer(masses, np.diff(ndtr((self.cells.faces(k) - m[k]) / s[k])))
        total = float(masses.sum())
        if not total > 0.0:
            raise ConfigError(f"mean = {m.tolist()} leaves no mass in the box")
        return np.asarray(masses / total)

    def outputs(self, y: Array) -> Array:
        """Outputs f of masses, (C, n)."""
        with blas_single_thread():
            return np.asarray(y.ravel() @ self._h)

    def first_variation(self, y: Array) -> Array:
        """psi = dF/drho at the centres of the cells, of the shape of the state."""
        slope = self.loss.gradient(self.outputs(y))
        with blas_single_thread():
            found = self._h[0] @ slope[0]
            for h, r in zip(self._h[1:], slope[1:], strict=True):
                found += h @ r
        return np.asarray(found.reshape(self.shape) + self._confinement)

    def energy(self, y: Array) -> float:
        """F = l(f) + (lam/2) sum m |theta|^2, without entropy."""
        return self.loss.value(self.outputs(y)) + float(np.sum(y * self._confinement))

    def free_energy(self, y: Array) -> float:
        """F + tau sum m log(m / volume of a cell)."""
        return self.energy(y) + self.temperature * float(np.sum(xlogy(y, y / self.cells.volume)))

    def gibbs(self, y: Array) -> Array:
        """Masses of the normalised exp(-psi[rho]/tau)."""
        exponent = self.first_variation(y) / -self.temperature
        weights = np.exp(exponent - exponent.max())
        return np.asarray(weights / weights.sum())

    def fixed_point(
        self, y: Array | None = None, *, tolerance: float = 1e-12, max_iterations: int = 50_000, damping: float = 1.0
    ) -> GibbsPoint:
        """Iterate m <- m + omega (G(m) - m) with the Gibbs map G, omega halved where the free energy falls too little.

        G(m) - m is a direction of descent, <psi + tau log m, G - m> = -tau (KL(m|G) + KL(G|m)), and a step must gain
        a tenth of what it would with psi held fixed, which a small enough omega always does (consequence of the
        model). Where that much is rounding, omega is halved where the residual grows.

        Parameters
        ----------
        y
            Masses to start from; None is the uniform law.
        tolerance
            On the residual sum |G(m) - m|, > 0; what rounding leaves of it, more for cold laws, counts as none.
        max_iterations
            Limit on Gibbs maps.
        damping
            First omega, in (0, 1].

        Returns
        -------
        GibbsPoint
            With a flag; ``raise_for_status()`` raises where it did not converge.

        Raises
        ------
        ConfigError
            For values out of range.
        """
        tolerance = finite_float("tolerance", tolerance, above=0.0)
        limit = positive_int("max_iterations", max_iterations)
        omega = finite_float("damping", damping, above=0.0)
        if omega > 1.0:
            raise ConfigError(f"damping must be <= 1, got {omega!r}")
        uniform = np.full(self.shape, 1.0 / np.prod(self.shape))
        masses = uniform if y is None else self._masses(y)
        step, energy = self.gibbs(masses) - masses, self.free_energy(masses)
        residual, iterations, kept, row = float(np.abs(step).sum()), 1, omega, 0
        while residual > tolerance and iterations < limit and omega > np.finfo(float).eps:
            trial = masses + omega * step
            trial_step, trial_energy = self.gibbs(trial) - trial, self.free_energy(trial)
            size = float(np.abs(trial_step).sum())
            iterations += 1
            fall, rounding = energy - trial_energy, _ROUNDING * (1.0 + abs(energy))
            wanted = 0.1 * self._frozen_fall(masses, trial)
            if fall >= wanted > rounding or (wanted <= rounding and size < residual):
                masses, step, energy, residual, kept, row = trial, trial_step, trial_energy, size, omega, row + 1
                if row % _GROW == 0:
                    omega = min(2.0 * omega, 1.0)
            else:
                omega, row = 0.5 * omega, 0
        done = residual <= max(tolerance, self._floor(masses, kept))
        return GibbsPoint(masses, residual, iterations, kept, done)

    def _frozen_fall(self, masses: Array, trial: Array) -> float:
        """Fall of the free energy from masses to others, were psi that of the first."""
        rise = float(np.sum(self.first_variation(masses) * (trial - masses)))
        return -rise - self.temperature * float(np.sum(xlogy(trial, trial)) - np.sum(xlogy(masses, masses)))

    def _floor(self, masses: Array, omega: float) -> float:
        """Residual that rounding leaves: that of psi over tau, through a Gibbs map whose slope is about 1/omega."""
        psi = self.first_variation(masses)
        return 100.0 * float(np.finfo(float).eps * (1.0 + np.ptp(psi) / self.temperature) / omega)

    def check(self, y: Array) -> None:
        """Raise `ConfigError` unless a state holds masses: nowhere negative, with sum 1."""
        masses = self.cells.checked(y)
        if not abs(float(masses.sum()) - 1.0) <= _TOTAL:
            raise ConfigError(f"the masses of the cells must have sum 1, got {float(masses.sum())!r}")

    def _masses(self, y: Any) -> Array:
        masses = self.cells.checked(y)
        total = float(masses.sum())
        if not total > 0.0:
            raise ConfigError("the density must have mass, its sum is 0")
        return masses / total

    def _flow(self, y: Array) -> _Flow:
        known = self._last.get("flow")
        if known is not None and np.array_equal(known.masses, y):
            return known
        psi = self.first_variation(y)
        rises, flows = [], []
        for axis, width in enumerate(self.cells.spacing):
            low, high = _faces(axis, y.ndim)
            rise = np.diff(psi, axis=axis) / self.temperature
            down, up = exchange_weights(rise)
            rises.append(rise)
            flows.append((self.temperature / width**2) * (down * y[high] - up * y[low]))
        flow = _Flow(y.copy(), psi, tuple(rises), tuple(flows))
        self._last["flow"] = flow
        return flow

    def rate(self, t: float, y: Array, out: Array) -> None:  # noqa: ARG002  (every model has a time)
        """Fill out with the rate of the masses: what comes in across the faces less what goes out."""
        out[...] = 0.0
        for axis, flow in enumerate(self._flow(y).flows):
            low, high = _faces(axis, y.ndim)
            out[low] += flow
            out[high] -= flow

    def largest_step(self, y: Array, rate: Array) -> float:
        """Longest Euler step from y after which masses are >= 0 and the free energy is no larger.

        Half the step that empties a cell, s. With psi held fixed the free energy falls by D over s, and by
        at least (t/s) D over t <= s as it is convex along the step; what psi changes adds at most
        (kappa/2) t^2 |f'|^2, with kappa the curvature of the loss and |f'| <= J sum |flows|, J the
        largest difference of h over a face. So t <= 2 D / (s kappa J^2 (sum |flows|)^2) as well.
        """
        found = self._flow(y)
        outflow = np.zeros(self.shape)
        for axis, (rise, width) in enumerate(zip(found.rises, self.cells.spacing, strict=True)):
            low, high = _faces(axis, y.ndim)
            down, up = exchange_weights(rise)
            outflow[low] += (self.temperature / width**2) * up
            outflow[high] += (self.temperature / width**2) * down
        longest = 0.5 / float(outflow.max())
        speed = self._jump * sum(float(np.abs(flow).sum()) for flow in found.flows)
        push = self.loss.curvature * speed * speed
        fall = self._fall(found, rate, longest)
        if not fall > 0.0 or push * longest * longest <= 2.0 * fall:
            return longest
        return 2.0 * fall / (longest * push)

    def _fall(self, found: _Flow, rate: Array, s: float) -> float:
        """Fall of sum m psi + tau sum m log m over an Euler step s with psi held fixed."""
        # Near a steady state the sums before and after differ by less than their rounding: take the dissipation
        # over the faces instead, and the remainder m ((1 + z) log(1 + z) - z), z >= -1/2.
        y = np.maximum(found.masses, _EMPTY)
        logs, fall = np.log(y), 0.0
        for axis, (rise, flow) in enumerate(zip(found.rises, found.flows, strict=True)):
            fall += s * float(np.sum(flow * (rise + np.diff(logs, axis=axis))))
        z = s * rate / y
        return self.temperature * (fall - float(np.sum(y * ((1.0 + z) * np.log1p(z) - z))))

    def fields(self, y: Array) -> dict[str, Field]:
        """Masses over the parameters."""
        return {"mass": Field(y, self.features.names, units="1", long_name="mass of the cell")}

    def axes(self) -> tuple[Axis, ...]:
        """Coordinates of the axes that `fields` names: centres of the cells."""
        names = enumerate(self.features.names)
        return tuple(Axis(name, self.cells.centres(k), units="1", long_name=f"parameter {name}") for k, name in names)

    def describe(self) -> dict[str, Any]:
        """What determines the model, for digests of runs."""
        return {
            "model": "NeuronDensity",
            "features": self.features.describe(),
            "loss": self.loss.describe(),
            "cells": self.cells.describe(),
            "temperature": self.temperature,
            "penalty": self.penalty,
        }


def _each(name: str, value: Any, count: int) -> Array:
    """One number for each parameter, from one or from all of them."""
    values = finite_array(name, value)
    if values.shape not in ((), (count,)):
        raise ConfigError(f"{name} has shape {values.shape}, expected () or ({count},)")
    return np.array(np.broadcast_to(values, (count,)))


def _faces(axis: int, ndim: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Cells below and above the inner faces of an axis."""
    before = (slice(None),) * axis
    after = (slice(None),) * (ndim - axis - 1)
    return (*before, slice(None, -1), *after), (*before, slice(1, None), *after)


def _largest_jump(h: Array, axis: int) -> float:
    """Largest |h(theta') - h(theta)| over the faces of an axis, the norm over outputs and samples."""
    return float(np.sqrt(np.max(np.sum(np.diff(h, axis=axis + 1) ** 2, axis=(0, -1)))))
