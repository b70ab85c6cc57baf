"""Explicit Runge-Kutta schemes, as data.

A scheme is its tableau: with stages k_i = f(t + c_i h, y + h sum_j a_ij k_j),

    y(t + h) ~ y + h sum_i b_i k_i,       error ~ h sum_i e_i k_i,

and, where there is one, a continuous extension
y(t + theta h) ~ y + h sum_i k_i sum_m P_im theta^(m+1). The time loop knows no
scheme by name, so a new one is a new table here.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, lookup, positive_int
from meanfield.errors import ConfigError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scheme:
    """Explicit Runge-Kutta tableau.

    Parameters
    ----------
    name
        What messages and files call it.
    a
        Stage coefficients, (s, s), strictly lower triangular.
    b
        Weights of the step, (s,), with sum 1.
    c
        Stage times as fractions of the step, (s,), c_i = sum_j a_ij.
    order
        Order of accuracy.
    b_err
        Weights of the error estimate, (s,), with sum 0; None without one.
    interpolant
        Coefficients P of the continuous extension, (s, m); None without one.

    Raises
    ------
    ConfigError
        If the tableau is implicit or inconsistent.
    """

    name: str
    a: Array
    b: Array
    c: Array
    order: int
    b_err: Array | None = None
    interpolant: Array | None = None

    def __post_init__(self) -> None:
        s = len(self.b)
        checked = {
            "a": finite_array("a", self.a, shape=(s, s)),
            "b": finite_array("b", self.b, shape=(s,)),
            "c": finite_array("c", self.c, shape=(s,)),
        }
        if self.b_err is not None:
            checked["b_err"] = finite_array("b_err", self.b_err, shape=(s,))
        if self.interpolant is not None:
            checked["interpolant"] = finite_array("interpolant", self.interpolant, shape=(s, None))
        for key, value in checked.items():
            object.__setattr__(self, key, value)
        positive_int("order", self.order)
        if np.triu(self.a).any():
            raise ConfigError(f"scheme {self.name}: a must be strictly lower triangular, only explicit schemes run")
        if not np.allclose(self.a.sum(axis=1), self.c, atol=1e-14) or not math.isclose(
            self.b.sum(), 1.0, abs_tol=1e-14
        ):
            raise ConfigError(f"scheme {self.name}: the rows of a must sum to c and b to 1")

    @functools.cached_property
    def n_stages(self) -> int:
        """Number of stages that a step itself needs (an error estimate may need one more)."""
        return int(np.flatnonzero(self.b)[-1]) + 1

    @property
    def adaptive(self) -> bool:
        """Whether the scheme estimates its error, interpolates, and ends in a stage at the new state."""
        return self.b_err is not None and self.interpolant is not None and np.array_equal(self.a[-1], self.b)

    def describe(self) -> dict[str, str | int]:
        """What determines the scheme, for digests of runs."""
        return {"scheme": self.name, "order": self.order, "tableau": repr((self.a.tolist(), self.b.tolist()))}


def _table(name: str, order: int, a: list[list[float]], b: list[float]) -> Scheme:
    s = len(b)
    full = np.zeros((s, s))
    for i, row in enumerate(a):
        full[i, : len(row)] = row
    return Scheme(name, full, np.array(b), full.sum(axis=1), order)


EULER = _table("euler", 1, [[]], [1.0])
"""y + h f(t, y): one step is one residual layer."""

HEUN = _table("heun", 2, [[], [1.0]], [0.5, 0.5])
"""Trapezoidal predictor-corrector, order 2."""

RK4 = _table("rk4", 4, [[], [0.5], [0.0, 0.5], [0.0, 0.0, 1.0]], [1 / 6, 1 / 3, 1 / 3, 1 / 6])
"""The classical scheme of order 4."""

SSPRK2 = _table("ssprk2", 2, [[], [1.0]], [0.5, 0.5])
"""Strong-stability-preserving scheme of order 2 (Shu-Osher); its tableau is Heun's."""

SSPRK3 = _table("ssprk3", 3, [[], [1.0], [0.25, 0.25]], [1 / 6, 1 / 6, 2 / 3])
"""Strong-stability-preserving scheme of order 3 (Shu-Osher)."""


def _dormand_prince() -> Scheme:
    a = np.zeros((7, 7))
    a[1, :1] = [1 / 5]
    a[2, :2] = [3 / 40, 9 / 40]
    a[3, :3] = [44 / 45, -56 / 15, 32 / 9]
    a[4, :4] = [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729]
    a[5, :5] = [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656]
    b = np.array([35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0])
    a[6] = b
    error = np.array([71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40])
    # Shampine's continuous extension of order 4 that is C1 across steps.
    p = np.array(
        [
            [1.0, -8048581381 / 2820520608, 8663915743 / 2820520608, -12715105075 / 11282082432],
            [0.0, 0.0, 0.0, 0.0],
            [0.0, 131558114200 / 32700410799, -68118460800 / 10900136933, 87487479700 / 32700410799],
            [0.0, -1754552775 / 470086768, 14199869525 / 1410260304, -10690763975 / 1880347072],
            [0.0, 127303824393 / 49829197408, -318862633887 / 49829197408, 701980252875 / 199316789632],
            [0.0, -282668133 / 205662961, 2019193451 / 616988883, -1453857185 / 822651844],
            [0.0, 40617522 / 29380423, -110615467 / 29380423, 69997945 / 29380423],
        ]
    )
    return Scheme("dormand_prince", a, b, np.array([0, 0.2, 0.3, 0.8, 8 / 9, 1, 1]), 5, error, p)


DORMAND_PRINCE = _dormand_prince()
"""Dormand-Prince 5(4) with its continuous extension; the adaptive default."""

SCHEMES = {s.name: s for s in (EULER, HEUN, RK4, SSPRK2, SSPRK3, DORMAND_PRINCE)}


def scheme(name: str | Scheme) -> Scheme:
    """Return the scheme of that name; a `Scheme` is returned as it is.

    Raises
    ------
    ConfigError
        For an unknown name; the message suggests the nearest one.
    """
    return name if isinstance(name, Scheme) else lookup("scheme", name, SCHEMES)


@dataclass(frozen=True, eq=False)
class StepGrid:
    """All fixed steps of an integration, numbered through: uniform between breakpoints.

    Parameters
    ----------
    edges
        Start, breakpoints and end, (K + 1,), increasing.
    counts
        Number of steps between each two, (K,).
    """

    edges: Array
    counts: NDArray[np.int64]

    @functools.cached_property
    def _columns(self) -> tuple[NDArray[np.int64], Array, Array]:
        """Number of the first step, step length and last time for stages of every piece."""
        first = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        lengths = np.diff(self.edges) / np.maximum(self.counts, 1)
        return first, lengths, np.nextafter(self.edges[1:], self.edges[:-1])

    @functools.cached_property
    def n_steps(self) -> int:
        """Number of steps."""
        return int(self.counts.sum())

    def number(self, step: int) -> int:
        """Number of a step counted from time 0 in steps of the first length, rounded, modulo 2^63.

        Numbers drawn by step go on from run to run, so that a run cut in two is one run.
        """
        _, lengths, _ = self._columns
        origin = round(float(self.edges[0] / lengths[0])) if self.counts[0] else 0
        return int((origin + step) % 2**63)

    def time(self, step: int) -> float:
        """Time after so many steps; exactly the breakpoint where one is reached."""
        first, lengths, _ = self._columns
        k = max(int(np.searchsorted(first, step, side="left")) - 1, 0)
        inside = step - int(first[k])
        if inside == self.counts[k]:
            return float(self.edges[k + 1])
        return float(self.edges[k] + inside * lengths[k])

    def near(self, t: float) -> tuple[int, float]:
        """Step after which the time is nearest to t, rounded down, and the step length there."""
        first, lengths, _ = self._columns
        k = min(max(int(np.searchsorted(self.edges, t, side="left")) - 1, 0), len(self.counts) - 1)
        if self.counts[k] == 0:
            return 0, 1.0
        # Just below the next step counts as that step: times on the grid are given to round-off.
        inside = math.floor((t - self.edges[k]) / lengths[k] + 1e-8)
        return int(first[k]) + min(max(inside, 0), int(self.counts[k])), float(lengths[k])

    def steps(self, scheme: Scheme, first: int, count: int) -> tuple[Array, Array]:
        """Stage times (count, s) and lengths (count,) of `count` steps.

        Parameters of the model may jump at a breakpoint; a stage there must see the
        value from the left, so its time is moved down by one unit in the last place.
        """
        begin, lengths, last = self._columns
        numbers = np.arange(first, first + count)
        k = np.searchsorted(begin, numbers, side="right") - 1
        dt = lengths[k]
        times = (self.edges[k] + (numbers - begin[k]) * dt)[:, None] + dt[:, None] * scheme.c[: scheme.n_stages]
        return np.minimum(times, last[k, None]), dt
