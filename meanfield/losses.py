"""Losses of outputs: squared distance, lp distance, logistic, cross-entropy; and the affine map before them.

    l(f) = (1/n) sum_k ell(f_k, y_k),      f (C, n): C outputs for each of n samples

Value and gradient are means over samples. A loss holds its targets. Whatever has these methods can stand in for
one. Outputs that are not finite give a value that is not either, without a warning: the time loop looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import finite_array, finite_float, positive_int, shown
from meanfield.errors import ConfigError

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


@runtime_checkable
class Loss(Protocol):
    """What models ask of a loss.

    Attributes
    ----------
    n_outputs, n_samples
        C and n.
    curvature
        kappa with l(f + g) <= l(f) + <l'(f), g> + (kappa/2) |g|^2 for all f, g; infinite where there is none.
    labels
        Class of each sample, (n,); None where the targets are no classes.
    """

    @property
    def n_outputs(self) -> int: ...  # noqa: D102
    @property
    def n_samples(self) -> int: ...  # noqa: D102
    @property
    def curvature(self) -> float: ...  # noqa: D102
    @property
    def labels(self) -> Labels | None: ...  # noqa: D102

    def value(self, f: Array) -> float:
        """l(f) of outputs (C, n)."""
        ...

    def gradient(self, f: Array) -> Array:
        """dl/df, (C, n), a new array."""
        ...

    def predict(self, f: Array) -> Labels:
        """Class of each column of outputs (C, m), named as in `labels`."""
        ...

    def describe(self) -> dict[str, Any]:
        """What determines the loss, for digests of runs."""
        ...


def loss_of(value: Any) -> Loss:
    """Return a loss as it is.

    Raises
    ------
    ConfigError
        For what is none.
    """
    if not isinstance(value, Loss):
        raise ConfigError(f"loss must be a loss such as Squared(y), got {shown(value)}")
    return value


@dataclass(frozen=True, eq=False, init=False)
class _Distance:
    """What losses of outputs against targets y (C, n) have in common."""

    y: Array

    def __init__(self, y: Any) -> None:
        values = finite_array("y", y)
        if values.ndim not in (1, 2) or not values.size:
            raise ConfigError(f"y has shape {values.shape}, expected (n,) or (C, n) with at least one target")
        object.__setattr__(self, "y", np.atleast_2d(values))

    @property
    def n_outputs(self) -> int:
        """C."""
        return int(self.y.shape[0])

    @property
    def n_samples(self) -> int:
        """n."""
        return int(self.y.shape[1])

    @property
    def labels(self) -> None:
        """None: the targets are no classes."""
        return

    def predict(self, f: Array) -> Labels:
        """Refuse: there are no classes.

        Raises
        ------
        ConfigError
            Always.
        """
        raise ConfigError(
            f"predict needs a loss of classes (Logistic or CrossEntropy), got {type(self).__name__} for {f.shape}"
        )


@dataclass(frozen=True, eq=False, init=False)
class Squared(_Distance):
    """l = sum_k |f_k - y_k|^2 / (2 n).

    Parameters
    ----------
    y
        Targets, (n,) or (C, n).

    Raises
    ------
    ConfigError
        For targets that are not finite or none at all.
    """

    @property
    def curvature(self) -> float:
        """1 / n."""
        return 1.0 / self.n_samples

    def value(self, f: Array) -> float:
        """l(f) of outputs (C, n)."""
        rest = (f - self.y).ravel()
        return float(rest @ rest) / (2.0 * self.n_samples)

    def gradient(self, f: Array) -> Array:
        """(f - y) / n."""
        rest = f - self.y
        rest *= 1.0 / self.n_samples
        return rest

    def describe(self) -> dict[str, Any]:
        """What determines the loss, for digests of runs."""
        return {"loss": "Squared", "y": self.y}


@dataclass(frozen=True, eq=False, init=False)
class LpDistance(_Distance):
    """l = sum_k sum_c |f_ck - y_ck|^p / (p n), the p-th power of the lp norm; p = 2 is `Squared`.

    Parameters
    ----------
    y
        Targets, (n,) or (C, n).
    p
        Exponent, > 1: the loss has a gradient everywhere.

    Raises
    ------
    ConfigError
        For targets that are not finite or none at all, or p <= 1.
    """

    p: float

    def __init__(self, y: Any, p: float = 2.0) -> None:
        super().__init__(y)
        object.__setattr__(self, "p", finite_float("p", p, above=1.0))

    @property
    def curvature(self) -> float:
        """1 / n for p = 2, infinite otherwise: |r|^{p - 2} is unbounded at 0 for p < 2, at infinity for p > 2."""
        return 1.0 / self.n_samples if self.p == 2.0 else float("inf")

    def value(self, f: Array) -> float:
        """l(f) of outputs (C, n)."""
        with np.errstate(over="ignore", invalid="ignore"):
            return float((np.abs(f - self.y) ** self.p).sum() / (self.p * self.n_samples))

    def gradient(self, f: Array) -> Array:
        """sign(f - y) |f - y|^{p - 1} / n."""
        with np.errstate(over="ignore", invalid="ignore"):
            rest = f - self.y
            return np.asarray(np.copysign(np.abs(rest) ** (self.p - 1.0), rest) / self.n_samples)

    def describe(self) -> dict[str, Any]:
        """What determines the loss, for digests of runs."""
        return {"loss": "LpDistance", "y": self.y, "p": self.p}


@dataclass(frozen=True, eq=False, init=False)
class Logistic:
    """l = (1/n) sum_k log(1 + e^{-y_k f_k}), y_k = -1 or 1, one output.

    Parameters
    ----------
    labels
        -1 or 1 for each sample, (n,).

    Raises
    ------
    ConfigError
        For other labels or none at all.
    """

    labels: Labels
    _sign: Array

    def __init__(self, labels: Any) -> None:
        sign = finite_array("labels", labels, shape=(None,))
        if not sign.size or (np.abs(sign) != 1.0).any():
            other = sign[np.abs(sign) != 1.0]
            raise ConfigError(f"labels must be -1 or 1, got {other[0] if other.size else 'none'!s}")
        object.__setattr__(self, "labels", sign.astype(np.int64))
        object.__setattr__(self, "_sign", sign[None])

    @property
    def n_outputs(self) -> int:
        """One output."""
        return 1

    @property
    def n_samples(self) -> int:
        """n."""
        return len(self.labels)

    @property
    def curvature(self) -> float:
        """1 / (4 n)."""
        return 0.25 / self.n_samples

    def value(self, f: Array) -> float:
        """l(f) of outputs (1, n); no overflow."""
        with np.errstate(invalid="ignore"):
            return float(np.logaddexp(0.0, -self._sign * f).mean())

    def gradient(self, f: Array) -> Array:
        """-y / (1 + e^{y f}) / n, underflowing to 0 for a sample far on its side."""
        margin = self._sign * f
        e = np.exp(-np.abs(margin))
        return np.asarray(-self._sign * np.where(margin > 0.0, e, 1.0) / ((1.0 + e) * self.n_samples))

    def predict(self, f: Array) -> Labels:
        """Sign of each output, 1 at 0: (1, m) -> (m,)."""
        return np.where(f[0] < 0.0, -1, 1).astype(np.int64)

    def describe(self) -> dict[str, Any]:
        """What determines the loss, for digests of runs."""
        return {"loss": "Logistic", "labels": self.labels}


@dataclass(frozen=True, eq=False, init=False)
class CrossEntropy:
    """l = (1/n) sum_k (log sum_c e^{f_ck} - f_{y_k k}), the softmax over C outputs.

    Parameters
    ----------
    labels
        Class of each sample, integers 0 .. C - 1, (n,).
    n_classes
        C; None is the largest label + 1.

    Raises
    ------
    ConfigError
        For labels that are no integers or out of range, or fewer than two classes.
    """

    labels: Labels
    n_classes: int

    def __init__(self, labels: Any, n_classes: int | None = None) -> None:
        try:
            given = np.asarray(labels)
        except ValueError as error:
            raise ConfigError(f"labels is not a vector: {error}") from None
        if given.ndim != 1 or given.dtype.kind not in "iu" or not given.size:
            raise ConfigError(f"labels must be a vector of integers, got {given.dtype} of shape {given.shape}")
        count = int(given.max()) + 1 if n_classes is None else positive_int("n_classes", n_classes)
        if count < 2:
            raise ConfigError(f"n_classes must be at least 2, got {count}")
        if int(given.min()) < 0 or int(given.max()) >= count:
            raise ConfigError(f"labels must lie in 0 .. {count - 1}, got {given.min()} .. {given.max()}")
        object.__setattr__(self, "labels", given.astype(np.int64))
        object.__setattr__(self, "n_classes", count)

    @property
    def n_outputs(self) -> int:
        """C."""
        return self.n_classes

    @property
    def n_samples(self) -> int:
        """n."""
        return len(self.labels)

    @property
    def curvature(self) -> float:
        """1 / (2 n): the covariance of a law on the classes has norm at most 1/2."""
        return 0.5 / self.n_samples

    def value(self, f: Array) -> float:
        """l(f) of outputs (C, n); no overflow."""
        with np.errstate(invalid="ignore"):
            shifted = f - f.max(axis=0)
            own = shifted[self.labels, np.arange(self.n_samples)]
            return float(np.mean(np.log(np.exp(shifted).sum(axis=0)) - own))

    def gradient(self, f: Array) -> Array:
        """(softmax(f) - e_y) / n."""
        with np.errstate(invalid="ignore"):
            p = np.exp(f - f.max(axis=0))
            p *= 1.0 / p.sum(axis=0)
        p[self.labels, np.arange(self.n_samples)] -= 1.0
        p *= 1.0 / self.n_samples
        return np.asarray(p)

    def predict(self, f: Array) -> Labels:
        """Class of the largest output, the first of equals: (C, m) -> (m,)."""
        return np.asarray(np.argmax(f, axis=0), dtype=np.int64)

    def describe(self) -> dict[str, Any]:
        """What determines the loss, for digests of runs."""
        return {"loss": "CrossEntropy", "labels": self.labels, "n_classes": self.n_classes}


@dataclass(frozen=True, eq=False)
class Readout:
    """Affine map from the last activations to the outputs, f = P x + c.

    Parameters
    ----------
    p
        P, (C, d).
    c
        (C,), or a number for all outputs.
    trained
        Whether P and c are parameters of the training, or fixed.

    Raises
    ------
    ConfigError
        For shapes that do not match or values that are not finite.
    """

    p: Array
    c: Any = 0.0
    trained: bool = False

    def __post_init__(self) -> None:
        p = finite_array("p", self.p, shape=(None, None))
        if not p.size:
            raise ConfigError(f"p has shape {p.shape}, expected (C, d) with at least one output and one component")
        c = finite_array("c", self.c)
        if c.shape not in ((), (len(p),)):
            raise ConfigError(f"c has shape {c.shape}, but p has {len(p)} rows")
        object.__setattr__(self, "p", p)
        object.__setattr__(self, "c", np.array(np.broadcast_to(c, (len(p),))))
        if not isinstance(self.trained, bool):
            raise ConfigError(f"trained must be True or False, got {shown(self.trained)}")

    @classmethod
    def identity(cls, dim: int) -> Readout:
        """Outputs that are the activations themselves, fixed."""
        return cls(np.eye(positive_int("dim", dim)))

    @property
    def n_outputs(self) -> int:
        """C."""
        return int(self.p.shape[0])

    @property
    def dim(self) -> int:
        """d."""
        return int(self.p.shape[1])

    def forward(self, x: Array) -> Array:
        """Outputs (C, n) of activations x (d, n).

        Raises
        ------
        ConfigError
            For activations of another dimension.
        """
        if np.ndim(x) != 2 or len(x) != self.dim:
            raise ConfigError(f"x has shape {np.shape(x)}, expected ({self.dim}, n)")
        return np.asarray(self.p @ x + self.c[:, None])

    def vjp(self, x: Array, g: Array) -> tuple[Array, Array, Array]:
        """Gradients with respect to x (d, n), P (C, d) and c (C,) from g (C, n), that with respect to the outputs.

        P^T g,   g x^T,   sum_k g_k

        Raises
        ------
        ConfigError
            For shapes that do not match.
        """
        if np.ndim(x) != 2 or len(x) != self.dim or np.shape(g) != (self.n_outputs, x.shape[1]):
            raise ConfigError(f"x and g have shapes {np.shape(x)} and {np.shape(g)}, p has {self.p.shape}")
        return self.p.T @ g, g @ x.T, g.sum(axis=1)

    def describe(self) -> dict[str, Any]:
        """What determines the map, for digests of runs."""
        return {"readout": "affine", "p": self.p, "c": self.c, "trained": self.trained}
