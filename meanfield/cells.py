"""Uniform cells on an interval or a rectangle: where densities and masses of finite volumes live."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, finite_float, positive_int, shown
from meanfield.errors import ConfigError
from meanfield.laws import Law
from meanfield.storage.layout import Axis

Array = NDArray[np.float64]

_ROUNDOFF = 1e-12


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of the same size on a box, in one or two dimensions.

    Parameters
    ----------
    lower, upper
        Corners of the box, (D,) each, lower < upper.
    shape
        Numbers of cells along each axis.

    Raises
    ------
    ConfigError
        For boxes that are empty, numbers that are no positive integers, or more than two dimensions.
    ResourceError
        For more cells than memory holds.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, value in (("lower", self.lower), ("upper", self.upper), ("shape", self.shape)):
            if not isinstance(value, (tuple, list, np.ndarray)):
                raise ConfigError(f"{name} must have an entry for each axis, got {shown(value)}")
        lower = tuple(finite_float("lower", v) for v in self.lower)
        upper = tuple(finite_float("upper", v) for v in self.upper)
        shape = tuple(positive_int("number of cells", n) for n in self.shape)
        if not len(lower) == len(upper) == len(shape) or len(shape) not in (1, 2):
            raise ConfigError(f"cells need one or two axes, got {len(lower)}, {len(upper)} and {len(shape)}")
        for a, b, n in zip(lower, upper, shape, strict=True):
            if not a < b:
                raise ConfigError(f"a box must have lower < upper, got {a!r} and {b!r}")
            if not 16.0 * math.ulp(max(abs(a), abs(b))) < b / n - a / n < math.inf:
                raise ConfigError(f"cells from {a!r} to {b!r} cannot be {n}: their length is out of range")
        if min(shape) < 4:
            raise ConfigError(f"cells need four and more along each axis, got {shape}")
        check_memory(f"{' x '.join(map(str, shape))} cells", 8 * 12 * int(np.prod([float(n) for n in shape])))
        for name, value in (("lower", lower), ("upper", upper), ("shape", shape)):
            object.__setattr__(self, name, value)

    @classmethod
    def line(cls, lower: float, upper: float, n: int) -> Cells:
        """Cells on the interval [lower, upper]."""
        return cls((lower,), (upper,), (n,))

    @classmethod
    def box(cls, lower: Sequence[float], upper: Sequence[float], shape: Sequence[int]) -> Cells:
        """Cells on a rectangle."""
        return cls(tuple(lower), tuple(upper), tuple(shape))

    @property
    def dim(self) -> int:
        """Number of axes, D."""
        return len(self.shape)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Lengths of a cell."""
        return tuple((b - a) / n for a, b, n in zip(self.lower, self.upper, self.shape, strict=True))

    @property
    def volume(self) -> float:
        """Length or area of a cell."""
        return float(np.prod(self.spacing))

    def faces(self, axis: int = 0) -> Array:
        """Places of the faces along an axis, (n + 1,)."""
        return np.asarray(self.lower[axis] + self.spacing[axis] * np.arange(self.shape[axis] + 1))

    def centres(self, axis: int = 0) -> Array:
        """Places of the centres along an axis, (n,)."""
        return np.asarray(self.lower[axis] + self.spacing[axis] * (np.arange(self.shape[axis]) + 0.5))

    def points(self) -> Array:
        """Centres of all cells, (D, cells)."""
        return tensor_points([self.centres(d) for d in range(self.dim)])

    def face_points(self, axis: int) -> tuple[Array, tuple[int, ...]]:
        """Centres of all faces across an axis, (D, faces), and the shape of such faces: one more along that axis."""
        return tensor_points([self.faces(d) if d == axis else self.centres(d) for d in range(self.dim)]), tuple(
            n + (d == axis) for d, n in enumerate(self.shape)
        )

    def average(self, density: Callable[..., Any], order: int = 5) -> Array:
        """Means over the cells of a density f(x) or f(x_1, x_2), NumPy-vectorised, by `order` Gauss points an axis.

        Raises
        ------
        ConfigError
            For a density that is negative or not finite.
        """
        s, w = np.polynomial.legendre.leggauss(positive_int("order", order))
        w = w / 2
        at = [self.centres(d)[:, None] + 0.5 * self.spacing[d] * s for d in range(self.dim)]
        if self.dim == 1:
            values = _spread(density(at[0]), at[0].shape) @ w
        else:
            x, y = at[0][:, :, None, None], at[1][None, None]
            raw = _spread(density(x, y), (*at[0].shape, *at[1].shape))
            values = np.einsum("iajb,a,b->ij", raw, w, w)
        return self.checked(np.ascontiguousarray(values))

    def checked(self, g: Any) -> Array:
        """Return densities g of the shape of the cells, or raise `ConfigError`, also where one is negative."""
        density = finite_array("density", g, shape=self.shape)
        if (density < 0.0).any():
            raise ConfigError(f"the density must be >= 0, its minimum is {float(density.min())!r}")
        return density

    def mass(self, g: Array) -> float:
        """Total mass sum g |cell| of densities g."""
        return float(g.sum() * self.volume)

    def mean(self, g: Any) -> Array:
        """Mean (D,) of the law of densities g: midpoint sums."""
        masses = self._masses(g)
        return np.asarray(self.points() @ masses)

    def covariance(self, g: Any) -> Array:
        """Covariance (D, D) of the law of densities g: midpoint sums."""
        masses = self._masses(g)
        gap = self.points() - self.mean(g)[:, None]
        return np.asarray((gap * masses) @ gap.T)

    def _masses(self, g: Any) -> Array:
        flat = finite_array("density", g, shape=self.shape).ravel()
        total = float(flat.sum())
        if not total > 0.0:
            raise ConfigError(f"the density must have mass, its sum is {total!r}")
        return np.asarray(flat / total)

    def law(self, g: Any, axis: int = 0) -> Law:
        """Law on the line of densities g, scaled to mass 1; in two dimensions the marginal along an axis."""
        g = finite_array("density", g, shape=self.shape)
        line = g if self.dim == 1 else g.sum(axis=1 - axis)
        least = float(line.min())
        if least < -_ROUNDOFF * float(np.abs(line).max()):
            raise ConfigError(f"the density must be >= 0, its minimum is {least!r}")
        return Law.cells(self.faces(axis), np.maximum(line, 0.0))

    def axes(self) -> tuple[Axis, ...]:
        """Coordinates for files: the centres along each axis, x or x_1 and x_2."""
        names = ("x",) if self.dim == 1 else ("x_1", "x_2")
        return tuple(Axis(name, self.centres(d), units="1", long_name="activation") for d, name in enumerate(names))

    def describe(self) -> dict[str, Any]:
        """What determines the cells, for digests of runs."""
        return {"lower": list(self.lower), "upper": list(self.upper), "shape": list(self.shape)}


def tensor_points(axes: Sequence[Array]) -> Array:
    """Points of the tensor product of axes, (D, product of the lengths), the last one running fastest."""
    return np.stack([x.ravel() for x in np.meshgrid(*axes, indexing="ij")])


def _spread(values: Any, shape: tuple[int, ...]) -> Array:
    """Values of a density over points of that shape, or of one that broadcasts to it."""
    try:
        return finite_array("density", np.array(np.broadcast_to(np.asarray(values), shape)))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"density returned shape {np.shape(values)}, expected {shape}") from None


def exchange_weights(z: Array) -> tuple[Array, Array]:
    """B(-z) and B(z) with B(z) = z/(e^z - 1), B(0) = 1: weights of an exponentially fitted flux.

    Where a density grows by the factor e^z from one cell to the next, B(-z) g and B(z) g' agree: no flux.
    Without cancellation for any z. Source: Scharfetter, Gummel, IEEE Transactions on Electron Devices 16 (1969).
    """
    small = np.abs(z) < 1e-5
    size = np.where(small, 1.0, np.abs(z))
    decaying = size * np.exp(-size) / -np.expm1(-size)
    growing = size / -np.expm1(-size)
    up, down = np.where(z > 0.0, growing, decaying), np.where(z > 0.0, decaying, growing)
    near = z * z / 12.0
    return np.where(small, 1.0 + 0.5 * z + near, up), np.where(small, 1.0 - 0.5 * z + near, down)
