r"""Limits of infinite width and depth, measured: orders, constants and where each error dominates.

A network of width N and depth L is a discretisation of its limit, and its error has two sources,

    e(N, L) = a / L^p + c / N^q + higher terms.

`convergence_study` runs a network over a list of widths, of depths, or over all pairs
of both, compares each run with a reference and returns a `Study`, which reads off the
orders along an axis and separates the two sources by a fit of the whole surface.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float, one_of, positive_int
from meanfield.diagnostics.rates import RateFit, fit_rate, observed_order
from meanfield.diagnostics.richardson import correction, root_mean_square
from meanfield.diagnostics.surface import SurfaceFit, fit_surface
from meanfield.errors import ConfigError
from meanfield.verdict import Verdict

Array = NDArray[np.float64]
Factory = Callable[..., Any]

AXES = ("width", "depth")
_EPS = float(np.finfo(np.float64).eps)
# A reference known to one tenth of an error moves a slope over a factor of two by at most 0.15, usually far less.
_CLEAR_OF_REFERENCE = 10.0


@dataclass(frozen=True, eq=False)
class Reference:
    """Limit value that a study compares with, and how well it is known.

    Attributes
    ----------
    value
        The limit, a number or an array.
    uncertainty
        Estimated root mean square error of `value`; 0 if exact.
    orders
        Orders with which it was extrapolated, by axis; empty if it was not.
    """

    value: Array
    uncertainty: float
    orders: Mapping[str, float]


@dataclass(frozen=True)
class Order:
    """Order of convergence along one axis.

    Attributes
    ----------
    order
        Median of the finest four pairwise slopes: for errors free of noise.
    fit
        Least squares through the points used, with its confidence interval: for noisy errors.
    slopes
        Pairwise slopes, coarse to fine, of the errors above round-off and above the reference's uncertainty.
    """

    order: float
    fit: RateFit
    slopes: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Study:
    """Errors over sizes of a network.

    Attributes
    ----------
    sizes
        Sizes of each axis studied, increasing.
    errors
        One extent for each axis of `sizes`, in their order.
    signed
        Whether errors carry a sign (values that are numbers) or are norms.
    scale
        Magnitude of the values, which sets the level of round-off.
    uncertainty
        That of the reference.
    """

    sizes: Mapping[str, NDArray[np.int64]]
    errors: Array
    signed: bool
    scale: float
    uncertainty: float

    def along(self, axis: str, at: int | None = None) -> Array:
        """Errors along an axis, at one size of the other axis (by default its largest).

        Raises
        ------
        ConfigError
            If the axis, or that size of the other, was not studied.
        """
        one_of("axis", axis, tuple(self.sizes))
        names = list(self.sizes)
        if len(names) == 1:
            return np.asarray(self.errors)
        other = names[1 - names.index(axis)]
        sizes = self.sizes[other]
        where = [len(sizes) - 1] if at is None else np.flatnonzero(sizes == at)
        if len(where) == 0:
            raise ConfigError(f"{other} = {at} was not studied; it was at {sizes.tolist()}")
        return np.asarray(np.take(self.errors, where[0], axis=names.index(other)))

    @property
    def _floor(self) -> float:
        return max(1e3 * _EPS * self.scale, _CLEAR_OF_REFERENCE * self.uncertainty)

    def order(self, axis: str, at: int | None = None, *, confidence: float = 0.95) -> Order:
        """Order of |e| in 1/size along an axis.

        Errors below 1e3 eps scale, or within ten times the uncertainty of the reference, do not count.
        Where both axes vary the error of the other is part of e: separate the two by `surface`.

        Raises
        ------
        ConfigError
            If fewer than two errors in a row count.
        """
        errors, h = np.abs(self.along(axis, at)), 1.0 / self.sizes[axis]
        floor = self._floor
        # From the first error below the floor on, what is left is noise.
        stop = int(np.argmax(errors <= floor)) if (errors <= floor).any() else len(errors)
        if stop < 2:
            raise ConfigError(f"no two errors along {axis} lie above round-off and reference ({floor:.3g}): {errors}")
        errors, h = errors[:stop], h[:stop]
        found = observed_order(h, errors, scale=self.scale)
        return Order(found.order, fit_rate(h, errors, confidence=confidence), tuple(found.slopes.tolist()))

    def surface(self, orders: Mapping[str, float] | None = None, *, confidence: float = 0.95) -> SurfaceFit:
        """Separate the errors of width and depth: nonlinear least squares on relative residuals.

        Parameters
        ----------
        orders
            Orders taken as known, by axis; the others are fitted.
        confidence
            Probability covered by the intervals (linearised, Student's t).

        Raises
        ------
        ConfigError
            If one axis only was studied, an order is unknown to it, or there are too few pairs.
        """
        if len(self.sizes) != 2:
            raise ConfigError(f"a surface needs widths and depths; studied: {', '.join(self.sizes)}")
        # Errors that count are those `order` would take.
        errors = np.where(np.abs(self.errors) > self._floor, self.errors, 0.0)
        known = {one_of("axis of orders", axis, AXES): order for axis, order in dict(orders or {}).items()}
        return fit_surface(
            self.sizes["width"],
            self.sizes["depth"],
            errors,
            signed=self.signed,
            q=known.get("width"),
            p=known.get("depth"),
            confidence=confidence,
        )

    def table(self) -> dict[str, Array]:
        """One row per run: sizes, error, and what `from_table` needs to build the study again."""
        grids = np.meshgrid(*self.sizes.values(), indexing="ij")
        columns = {name: np.asarray(g, dtype=np.float64).ravel() for name, g in zip(self.sizes, grids, strict=True)}
        n = self.errors.size
        constants = {"signed": float(self.signed), "scale": self.scale, "uncertainty": self.uncertainty}
        return columns | {"error": self.errors.ravel()} | {k: np.full(n, v) for k, v in constants.items()}

    @classmethod
    def from_table(cls, columns: Mapping[str, Any]) -> Study:
        """Build a study from the columns that `table` returned."""
        sizes = {name: np.unique(np.asarray(columns[name]).astype(np.int64)) for name in AXES if name in columns}
        shape = tuple(len(s) for s in sizes.values())
        first = {k: float(np.asarray(columns[k])[0]) for k in ("signed", "scale", "uncertainty")}
        errors = finite_array("error", columns["error"]).reshape(shape)
        return cls(sizes, errors, first["signed"] > 0, first["scale"], first["uncertainty"])

    def verdicts(
        self,
        expected: Mapping[str, float],
        *,
        tolerance: float = 0.1,
        claim: str = "",
        source: str = "consequence of the model",
        by: str = "median",
    ) -> list[Verdict]:
        """One verdict for each expected order: holds if the measured one differs by at most `tolerance`.

        Parameters
        ----------
        expected
            Orders by axis.
        tolerance
            Largest difference.
        claim
            What the verdicts begin with.
        by
            ``"median"`` of the finest pairwise slopes, ``"fit"`` by least squares (noisy errors),
            ``"surface"``: the fit of both sources.
        """
        one_of("by", by, ("median", "fit", "surface"))
        words = {"median": "median of the finest pairwise slopes", "fit": "least squares", "surface": "fit of both"}
        found = []
        for axis, order in expected.items():
            title = f"{claim}: order in {axis}" if claim else f"order in {axis}"
            one_of("axis", axis, tuple(self.sizes))
            try:
                measured = self._measured(axis, by)
            except ConfigError as error:
                found.append(Verdict.not_tested(title, str(error), source))
                continue
            found.append(
                Verdict.near(
                    title, order, measured, tolerance=tolerance, relative=False, reason=words[by], source=source
                )
            )
        return found

    def _measured(self, axis: str, by: str) -> float:
        if by == "surface":
            fit = self.surface()
            return fit.p if axis == "depth" else fit.q
        order = self.order(axis)
        return order.order if by == "median" else order.fit.slope


def convergence_study(
    factory: Factory,
    over: Mapping[str, Sequence[int]],
    reference: Any = "richardson",
    measure: Callable[[Any, Any], float] | None = None,
) -> Study:
    """Run a network over widths, depths or both, and compare each run with a reference.

    Parameters
    ----------
    factory
        ``factory(width=N)``, ``factory(depth=L)`` or ``factory(width=N, depth=L)``, after the axes of `over`;
        returns a number, or an array: of one shape for all sizes (values at common nodes, functionals, seeds)
        unless the reference is a callable. Called once for each pair.
    over
        Sizes by axis, ``"width"`` and ``"depth"``: at least two each, increasing.
    reference
        The exact value; a callable of the same sizes that returns it at the nodes of each; a `Reference`
        (see `extrapolate`); or ``"richardson"``: extrapolated from the finest runs of the study with
        the order observed there. The last pairwise slopes then only repeat that order; it
        takes at least three sizes an axis, the finest three in a constant ratio.
    measure
        ``measure(value, reference)`` -> error. By default value - reference for numbers (signed) and the root mean
        square of the difference for arrays.

    Raises
    ------
    ConfigError
        For sizes that cannot be used, and for values that are not finite or whose shapes differ.
    """
    sizes = {name: _sizes(name, over[name]) for name in _axis_names(over)}
    pairs = [dict(zip(sizes, chosen, strict=True)) for chosen in product(*(s.tolist() for s in sizes.values()))]
    if isinstance(reference, str):
        one_of("reference", reference, ("richardson",))
        values = {_key(pair): _value(factory, pair) for pair in pairs}
        reference = _from_study(values, sizes)
        runs: Iterator[tuple[dict[str, int], Array]] = ((pair, values[_key(pair)]) for pair in pairs)
    else:
        runs = ((pair, _value(factory, pair)) for pair in pairs)
    if not isinstance(reference, Reference) and not callable(reference):
        reference = Reference(finite_array("reference", reference), 0.0, {})
    errors, scale, signed = [], 0.0, True
    for pair, value in runs:
        exact = finite_array("reference", reference(**pair)) if callable(reference) else reference.value
        error = _error(pair, value, exact, measure)
        signed = signed and (measure is not None or value.ndim == 0)
        errors.append(error)
        scale = max(scale, root_mean_square(exact))
    table = np.asarray(errors).reshape([len(s) for s in sizes.values()])
    # Errors that a measure returns are norms unless it returns a negative one.
    signed = signed and (measure is None or bool((table < 0.0).any()))
    return Study(sizes, table, signed, scale or 1.0, reference.uncertainty if isinstance(reference, Reference) else 0.0)


def extrapolate(
    factory: Factory, over: Mapping[str, Sequence[int]], orders: Mapping[str, float] | None = None
) -> Reference:
    """Limit of much finer runs with their own error removed (Richardson).

    With v(h) = v + C h^p and h divided by r, v = v(h/r) + (v(h/r) - v(h)) / (r^p - 1), on
    each axis at the finest size of the other; the corrections of the axes add up.

    Parameters
    ----------
    factory
        As for `convergence_study`.
    over
        At least three sizes for each axis, the last three in a constant ratio.
    orders
        Known orders by axis; infinity makes no correction (spectral). The others are observed
        on the last three sizes.

    Returns
    -------
    Reference
        Its uncertainty is the difference to the extrapolation from one size coarser; where
        the order was observed from just three sizes, the whole correction.

    Raises
    ------
    ConfigError
        For sizes that cannot be used, and where no order shows.
    """
    sizes = {name: _sizes(name, over[name]) for name in _axis_names(over)}
    known = {one_of("axis of orders", k, tuple(sizes)): float(v) for k, v in dict(orders or {}).items()}
    for name, order in known.items():
        if not order > 0.0:
            raise ConfigError(f"orders[{name!r}] must be > 0, got {order!r}")
    finest = {name: int(s[-1]) for name, s in sizes.items()}
    values: dict[tuple[int, ...], Array] = {}
    for pair in _crosses(sizes, finest):
        values.setdefault(_key(pair), _value(factory, pair))
    return _from_study(values, sizes, known)


def _axis_names(over: Any) -> list[str]:
    if not isinstance(over, Mapping) or not over:
        raise ConfigError('over must map "width", "depth" or both to lists of sizes')
    for name in over:
        one_of("axis of over", name, AXES)
    return [name for name in AXES if name in over]


def _sizes(name: str, values: Any) -> NDArray[np.int64]:
    try:
        sizes = [positive_int(f"{name} in over", v) for v in values]
    except TypeError:
        raise ConfigError(f"over[{name!r}] must be a list of sizes, got {values!r}") from None
    if len(sizes) < 2:
        raise ConfigError(f"over[{name!r}] must hold at least two sizes, got {sizes}")
    if any(b <= a for a, b in pairwise(sizes)):
        raise ConfigError(f"over[{name!r}] must be increasing, got {sizes}")
    return np.array(sizes, dtype=np.int64)


def _key(pair: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(pair.values())


def _words(pair: Mapping[str, int]) -> str:
    return ", ".join(f"{k}={v}" for k, v in pair.items())


def _value(factory: Factory, pair: Mapping[str, int]) -> Array:
    return finite_array(f"factory({_words(pair)})", factory(**pair))


def _error(pair: Mapping[str, int], value: Array, exact: Array, measure: Callable[[Any, Any], float] | None) -> float:
    if measure is not None:
        return finite_float(f"measure at {_words(pair)}", measure(value, exact))
    if value.shape != exact.shape:
        raise ConfigError(f"factory({_words(pair)}) has shape {value.shape}, but the reference has shape {exact.shape}")
    return float(value - exact) if value.ndim == 0 else root_mean_square(value - exact)


def _crosses(sizes: Mapping[str, NDArray[np.int64]], finest: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Pairs with at most one size below its finest: what an extrapolation needs."""
    for name, all_sizes in sizes.items():
        for size in all_sizes.tolist():
            yield {**finest, name: size}


def _from_study(
    values: Mapping[tuple[int, ...], Array],
    sizes: Mapping[str, NDArray[np.int64]],
    known: Mapping[str, float] | None = None,
) -> Reference:
    """Limit of values of the pairs: the finest one plus the correction of each axis."""
    finest = {name: int(s[-1]) for name, s in sizes.items()}
    best = values[_key(finest)]
    limit, uncertainty, orders = best, 0.0, {}
    for name, all_sizes in sizes.items():
        line = [values[_key({**finest, name: int(n)})] for n in all_sizes[-4:]]
        if any(v.shape != best.shape for v in line):
            raise ConfigError(f"values along {name} differ in shape; give the reference as a callable")
        gap, doubt, orders[name] = correction(name, all_sizes[-4:], line, (known or {}).get(name))
        limit, uncertainty = limit + gap, uncertainty + doubt
    return Reference(np.asarray(limit), uncertainty, orders)
