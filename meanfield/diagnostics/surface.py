r"""The two sources of error of a network of width N and depth L, separated by a fit.

    e(N, L) = a / L^p + c / N^q                                              (errors with a sign)
    e(N, L)^2 = (a / L^p)^2 + (c / N^q)^2 + 2 g (a / L^p)(c / N^q)          (norms of errors)

The second line is the norm of the sum of two vectors of fixed directions, the cosine of
their angle being g: to leading order that is what the error of an array is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import stdtrit

from meanfield._checks import finite_array, finite_float
from meanfield.errors import ConfigError

Array = NDArray[np.float64]

_ORDER_STARTS = (0.5, 1.0, 2.0, 4.0)
_ORDER_RANGE = (1e-3, 20.0)


@dataclass(frozen=True)
class SurfaceFit:
    """The two sources of error, e(N, L) = a / L^p + c / N^q, fitted to a whole surface.

    Of vectors whose norm is the error, with cosine g between the two sources, the fit is
    e^2 = (a / L^p)^2 + (c / N^q)^2 + 2 g (a / L^p)(c / N^q), a, c >= 0.

    Attributes
    ----------
    a, p, c, q
        Coefficients and orders of the errors of depth and width.
    alignment
        g; the sign of a c where the error is signed.
    intervals
        Confidence interval of each fitted parameter, by name.
    residual
        Root mean square of the relative residuals.
    r_squared
        Share of the variance of log |e| that the fit explains.
    n_points
        Pairs fitted.
    """

    a: float
    p: float
    c: float
    q: float
    alignment: float
    intervals: Mapping[str, tuple[float, float]]
    residual: float
    r_squared: float
    n_points: int

    def depth_part(self, depth: Any) -> Array:
        """a / L^p."""
        return np.asarray(self.a / np.asarray(depth, dtype=np.float64) ** self.p)

    def width_part(self, width: Any) -> Array:
        """c / N^q."""
        return np.asarray(self.c / np.asarray(width, dtype=np.float64) ** self.q)

    def magnitude(self, width: Any, depth: Any) -> Array:
        """|e(N, L)| of the fit; widths and depths broadcast."""
        s, r = np.abs(self.depth_part(depth)), np.abs(self.width_part(width))
        return np.asarray(np.sqrt(np.maximum(s * s + r * r + 2 * self.alignment * s * r, 0.0)))

    def balance(self, width: Any) -> Array:
        """Depth L*(N) = (|a| N^q / |c|)^(1/p) at which both sources are equal: deeper pays only with more width."""
        with np.errstate(over="ignore"):  # an order near 0 puts the balance at infinite depth
            return np.asarray((np.abs(self.a) / np.abs(self.width_part(width))) ** (1.0 / self.p))

    def dominant(self, width: int, depth: int) -> str:
        """Source of the larger error, ``"width"`` or ``"depth"``."""
        return "depth" if abs(self.depth_part(depth)) > abs(self.width_part(width)) else "width"


def fit_surface(
    width: Any,
    depth: Any,
    error: Any,
    *,
    signed: bool,
    p: float | None = None,
    q: float | None = None,
    confidence: float = 0.95,
) -> SurfaceFit:
    """Fit e(N, L) = a / L^p + c / N^q by nonlinear least squares on relative residuals.

    Residuals of signed errors are divided by |a| / L^p + |c| / N^q, since |e| is small where the sources
    cancel; of norms the residual is the difference of the logarithms.

    Parameters
    ----------
    width, depth
        Sizes N (K,) and L (M,), positive.
    error
        e (K, M); entries that are 0 are left out (an error lost in round-off).
    signed
        Whether errors have a sign, or are norms.
    p, q
        Orders in depth and width taken as known; None fits them.
    confidence
        Probability covered by the intervals (linearised, Student's t).

    Raises
    ------
    ConfigError
        For sizes or orders that are not positive, norms that are negative, or fewer errors than parameters.
    """
    n = np.log(_positive("width", width))
    m = np.log(_positive("depth", depth))
    errors = finite_array("error", error, shape=(len(n), len(m)))
    if not signed and (errors < 0.0).any():
        raise ConfigError(f"error must be >= 0 where it is a norm, got {errors.min()!r}")
    fixed = {k: finite_float(k, v, above=0.0) for k, v in (("p", p), ("q", q)) if v is not None}
    confidence = finite_float("confidence", confidence, above=0.0)
    if confidence >= 1.0:
        raise ConfigError(f"confidence must be < 1, got {confidence!r}")
    kept = (errors != 0.0).ravel()
    x, y, e = (v.ravel()[kept] for v in (*np.meshgrid(n, m, indexing="ij"), errors))
    names = ["a", "c", *(k for k in "pq" if k not in fixed), *([] if signed else ["g"])]
    if len(e) <= len(names):
        raise ConfigError(f"{len(e)} errors cannot fit {len(names)} parameters")
    # Sizes are taken relative to their geometric means: otherwise a and p are all but one parameter.
    x0, y0 = float(x.mean()), float(y.mean())
    surface = _Surface(x - x0, y - y0, e, names, fixed, signed)
    values, half, rest = surface.solve(confidence)
    back = {"a": float(np.exp(values["p"] * y0)), "c": float(np.exp(values["q"] * x0))}
    intervals = surface.intervals(values, half, back, {"a": y0, "c": x0})
    a, c = values["a"] * back["a"], values["c"] * back["c"]
    alignment = float(np.sign(a * c)) if signed else values["g"]
    spread = float(np.var(np.log(np.abs(e))))
    explained = 1.0 - float(np.var(rest)) / spread if spread > 0.0 else 1.0
    residual = float(np.sqrt(np.mean(rest**2)))
    return SurfaceFit(a, values["p"], c, values["q"], alignment, intervals, residual, explained, len(e))


def _positive(name: str, values: Any) -> Array:
    array = finite_array(name, values, shape=(None,))
    if len(array) == 0 or not (array > 0.0).all():
        raise ConfigError(f"{name} must hold sizes > 0, got {array}")
    return array


@dataclass
class _Surface:
    """Least squares for a surface given at x = log N, y = log L, both about their means."""

    x: Array
    y: Array
    e: Array
    names: list[str]
    fixed: dict[str, float]
    signed: bool
    covariance: Array | None = None

    def unpack(self, vector: Array) -> dict[str, float]:
        return self.fixed | dict(zip(self.names, vector.tolist(), strict=True))

    def parts(self, v: Mapping[str, float]) -> tuple[Array, Array]:
        return v["a"] * np.exp(-v["p"] * self.y), v["c"] * np.exp(-v["q"] * self.x)

    def residuals(self, vector: Array, weight: Array) -> Array:
        v = self.unpack(vector)
        s, r = self.parts(v)
        if self.signed:
            return np.asarray((s + r - self.e) / weight)
        square = np.maximum(s * s + r * r + 2 * v["g"] * s * r, np.finfo(np.float64).tiny)
        return np.asarray(0.5 * np.log(square) - np.log(self.e))

    def starts(self) -> Iterator[Array]:
        """Points to start from: a and c by linear least squares for orders that are usual."""
        ps = [self.fixed["p"]] if "p" in self.fixed else _ORDER_STARTS
        qs = [self.fixed["q"]] if "q" in self.fixed else _ORDER_STARTS
        w = np.abs(self.e)
        for p, q in product(ps, qs):
            basis = np.stack([np.exp(-p * self.y), np.exp(-q * self.x)], axis=1) / w[:, None]
            (a, c), *_ = np.linalg.lstsq(basis, self.e / w)
            if not self.signed:
                tiny = 1e-3 * float(w.min())
                a, c = max(a, tiny), max(c, tiny)
            start = {"a": a, "c": c, "p": p, "q": q, "g": 0.5}
            yield np.array([start[k] for k in self.names])

    def solve(self, confidence: float) -> tuple[dict[str, float], float, Array]:
        low = {"a": 0.0, "c": 0.0, "g": -1.0} if not self.signed else {}
        bounds = (
            [low.get(k, _ORDER_RANGE[0] if k in "pq" else -np.inf) for k in self.names],
            [{"g": 1.0}.get(k, _ORDER_RANGE[1] if k in "pq" else np.inf) for k in self.names],
        )
        options: dict[str, Any] = {"bounds": bounds, "x_scale": "jac", "xtol": 1e-14, "ftol": 1e-14, "gtol": 1e-14}
        weight = np.abs(self.e)
        ranked = sorted(self.starts(), key=lambda s: float(np.sum(self.residuals(s, weight) ** 2)))
        tried = [least_squares(self.residuals, s, args=(weight,), **options) for s in ranked[:4]]
        best = tried[int(np.argmin([found.cost for found in tried]))]
        for _ in range(3 if self.signed else 0):
            # Near a line where the sources cancel, |e| is no measure of how well e is known; their sum is.
            s, r = self.parts(self.unpack(best.x))
            weight = np.abs(s) + np.abs(r)
            best = least_squares(self.residuals, best.x, args=(weight,), **options)
        freedom = len(self.e) - len(self.names)
        noise = 2.0 * float(best.cost) / freedom
        self.covariance = noise * np.linalg.pinv(best.jac.T @ best.jac)
        half = float(stdtrit(freedom, 0.5 + 0.5 * confidence))
        return self.unpack(best.x), half, self.residuals(best.x, weight)

    def intervals(
        self, values: Mapping[str, float], half: float, back: Mapping[str, float], shift: Mapping[str, float]
    ) -> dict[str, tuple[float, float]]:
        """Interval of each fitted parameter; those of a and c moved back from the mean sizes to size 1."""
        assert self.covariance is not None
        found = {}
        for name in self.names:
            direction = np.zeros(len(self.names))
            direction[self.names.index(name)] = 1.0
            factor = back.get(name, 1.0)
            order = {"a": "p", "c": "q"}.get(name, "")
            if order in self.names:
                direction[self.names.index(order)] = values[name] * shift[name]
            variance = float(direction @ self.covariance @ direction)
            width = half * math.sqrt(max(variance, 0.0))
            found[name] = (factor * (values[name] - width), factor * (values[name] + width))
        return found
