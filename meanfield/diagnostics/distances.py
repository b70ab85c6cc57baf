"""Distances between fields, on one grid and between two grids of the same labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BarycentricInterpolator, CubicSpline

from meanfield._checks import finite_array, one_of
from meanfield.errors import ConfigError

if TYPE_CHECKING:
    from meanfield.grids import Grid

Array = NDArray[np.float64]


def l2_distance(first: Any, second: Any, grid: Grid) -> float | Array:
    """L2(q) distance (sum_i q_i (f_i - g_i)^2)^(1/2) of fields (..., N) on one grid, shape (...)."""
    return _scalar(np.asarray(grid.norm(_difference(first, second, grid))))


def sup_distance(first: Any, second: Any, grid: Grid) -> float | Array:
    """Largest |f_i - g_i| over the nodes of one grid, for fields (..., N), shape (...)."""
    return _scalar(np.abs(_difference(first, second, grid)).max(axis=-1))


def interpolate(field: Any, source: Grid, target: Grid, method: str = "cubic") -> Array:
    """Values on the nodes of `target` of a field given on the nodes of `source`, in one dimension.

    Parameters
    ----------
    field
        (..., N) on `source`.
    source, target
        Grids of [0, 1] or of the circle.
    method
        ``"linear"`` (error h^2), ``"cubic"`` spline (h^4; periodic on the circle), or ``"spectral"``:
        the polynomial through Gauss or Chebyshev nodes, the trigonometric polynomial on the circle.
        Beyond the outermost nodes of an interval the last piece continues.

    Returns
    -------
    (..., M) on `target`.

    Raises
    ------
    ConfigError
        For grids of more dimensions, of different domains, or a spectral method on other nodes.
    """
    one_of("method", method, ("linear", "cubic", "spectral"))
    values = finite_array("field", field)
    _check_pair(values, source, target)
    x, at = source.nodes.reshape(-1), target.nodes.reshape(-1)
    order = np.argsort(x)
    x, values = x[order], values[..., order]
    period = None if source.period is None else float(source.period[0])
    if method == "spectral":
        if period is not None:
            return _trigonometric(x, values, at, period)
        one_of("rule of a grid for spectral interpolation", source.rule, ("gauss", "chebyshev"))
        return np.asarray(BarycentricInterpolator(x, values, axis=-1, wi=_barycentric_weights(x))(at))
    if period is not None:
        # One period, closed: the first node comes again at the end.
        x, values = np.append(x, x[0] + period), np.concatenate([values, values[..., :1]], axis=-1)
        at = x[0] + np.mod(at - x[0], period)
    if method == "linear":
        return _linear(x, values, at)
    return np.asarray(CubicSpline(x, values, axis=-1, bc_type="not-a-knot" if period is None else "periodic")(at))


def field_distance(
    first: Any, first_grid: Grid, second: Any, second_grid: Grid, method: str = "cubic"
) -> float | Array:
    """L2 distance of fields on two grids, taken on the one with more nodes.

    Parameters
    ----------
    first, second
        Fields (..., N) and (..., M) on their grids.
    method
        Interpolation of the coarser field, see `interpolate`. Its error bounds the distance that can be seen.
    """
    if first_grid.n_nodes > second_grid.n_nodes:
        return l2_distance(first, interpolate(second, second_grid, first_grid, method), first_grid)
    return l2_distance(interpolate(first, first_grid, second_grid, method), second, second_grid)


def _difference(first: Any, second: Any, grid: Grid) -> Array:
    f, g = finite_array("first", first), finite_array("second", second)
    for name, values in (("first", f), ("second", g)):
        if values.shape[-1:] != (grid.n_nodes,):
            raise ConfigError(f"{name} has shape {values.shape}, but the grid has {grid.n_nodes} nodes")
    return f - g


def _check_pair(values: Array, source: Grid, target: Grid) -> None:
    if source.dim != 1 or target.dim != 1:
        raise ConfigError(f"interpolation is for one dimension, got grids of {source.dim} and {target.dim}")
    if (source.period is None) != (target.period is None):
        raise ConfigError("one grid is periodic and the other is not: their fields cannot be compared")
    if values.shape[-1:] != (source.n_nodes,):
        raise ConfigError(f"field has shape {values.shape}, but the grid has {source.n_nodes} nodes")


def _linear(x: Array, values: Array, at: Array) -> Array:
    k = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    s = (at - x[k]) / (x[k + 1] - x[k])
    return np.asarray((1.0 - s) * values[..., k] + s * values[..., k + 1])


def _barycentric_weights(x: Array) -> Array:
    """Weights 1/prod_j (x_i - x_j) up to a factor; SciPy's own depend on a random order of the nodes."""
    gap = x[:, None] - x
    np.fill_diagonal(gap, 1.0)
    log = -np.log(np.abs(gap)).sum(axis=1)
    return np.asarray(np.prod(np.sign(gap), axis=1) * np.exp(log - log.max()))


def _trigonometric(x: Array, values: Array, at: Array, period: float) -> Array:
    n = len(x)
    if not np.allclose(np.diff(x), period / n, rtol=1e-9, atol=0.0):
        raise ConfigError("spectral interpolation on the circle needs equidistant nodes")
    spectrum = np.fft.rfft(values, axis=-1) / n
    k = np.arange(spectrum.shape[-1])
    # Every frequency but 0 and the Nyquist one stands for a pair.
    pairs = np.where((k == 0) | (2 * k == n), 1.0, 2.0)
    waves = np.exp(2j * np.pi / period * np.outer(k, at - x[0]))
    return np.asarray(((spectrum * pairs) @ waves).real)


def _scalar(value: Array) -> float | Array:
    return value if value.ndim else float(value)
