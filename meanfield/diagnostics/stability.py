"""Stability uniform in time: a quadratic form of the difference of two solutions that never increases.

For W = -A, A = A* >= 0 in L2(q) and constant in depth, sigma nondecreasing, the same b
(any b(t, x)) and leak for both solutions, delta = z1 - z2:

    outside:  <delta, A delta>        never increases,
    inside:   <delta, A^-1 delta>     never increases, delta in the range of A.

Explicit Euler inherits it for dt (gamma + Lambda ||A||) <= 2. A consequence of the
model of Liu, Markowich, arXiv 1905.09076.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from meanfield._checks import finite_array
from meanfield.errors import ConfigError

if TYPE_CHECKING:
    from meanfield.models.spacetime import SpaceTimeNetwork

Array = NDArray[np.float64]

# Relative to ||A||: what counts as zero in the symmetry and the spectrum of a computed matrix.
_ROUND_OFF = 1e-12


class TimeUniformNorm:
    """The quadratic form that two solutions of `model` bring closer and closer.

    A probe: called with (t, y, model), y of shape (n, N), it gives the forms of
    y_s - y_0, s = 1 .. n-1. `of(delta)` serves differences of two runs.

    Parameters
    ----------
    model
        Network whose operator is constant in depth. Its dense matrix is built once, to check the
        hypotheses; inside, its eigenvectors are kept.

    Raises
    ------
    ConfigError
        Unless W = -A with A = A* >= 0 in L2(q), without an amplitude, and sigma is nondecreasing.
    """

    def __init__(self, model: SpaceTimeNetwork) -> None:
        operator: Any = model.operator
        if hasattr(operator, "operators") or model.amplitude is not None:
            raise ConfigError("stability in the A-norm needs a weight constant in depth")
        if not model.activation.nondecreasing:
            raise ConfigError(f"stability in the A-norm needs a nondecreasing sigma; {model.activation.name} is not")
        self._operator = operator
        self._inside = model.placement == "inside"
        root = np.sqrt(model.grid.weights)
        # Similar matrix, symmetric exactly if W is self-adjoint in L2(q).
        a = -operator.dense() * (root[:, None] / root)
        scale = float(np.abs(a).max())
        skew = float(np.abs(a - a.T).max())
        if skew > _ROUND_OFF * len(a) * max(scale, np.finfo(np.float64).tiny):
            raise ConfigError(f"W is not self-adjoint in L2(q): |W - W*| reaches {skew:.3g}, |W| {scale:.3g}")
        values, vectors = eigh(0.5 * (a + a.T))
        self._root = root
        self._size = float(np.abs(values).max())
        self._zero = _ROUND_OFF * len(a) * self._size
        if values[0] < -self._zero:
            raise ConfigError(f"A = -W must be positive semidefinite, but has the eigenvalue {values[0]:.6g}")
        keep = values > self._zero
        self._values, self._vectors = values[keep], np.ascontiguousarray(vectors[:, keep])

    def __call__(self, t: float, y: Array, model: SpaceTimeNetwork) -> Array:  # noqa: ARG002
        """Forms of the samples' differences from the first one, (n - 1,)."""
        if y.ndim != 2 or len(y) < 2:
            raise ConfigError(f"the A-norm compares samples: y has shape {y.shape}, expected at least two rows")
        return np.asarray(self.of(y[1:] - y[0], magnitude=float(np.abs(y).max())))

    def of(self, delta: Any, *, magnitude: float = 0.0) -> float | Array:
        """Form of a difference (..., N), of shape (...).

        Inside, a delta that leaves the range of A (by more than 1e-6 of its norm, and more than the
        round-off of two states of the given magnitude) gives infinity.
        """
        delta = finite_array("delta", delta)
        if not self._inside:
            # The operator takes (N,) or (n, N); the other axes are folded into n.
            rows = delta.reshape(-1, delta.shape[-1])
            image = self._operator.apply(rows, np.empty_like(rows))
            form = -np.asarray((rows * image) @ self._root**2).reshape(delta.shape[:-1])
        else:
            scaled = delta * self._root
            modes = scaled @ self._vectors
            form = np.asarray((modes**2 / self._values).sum(axis=-1))
            rest = np.linalg.norm(scaled - modes @ self._vectors.T, axis=-1)
            noise = _ROUND_OFF * len(self._root) * magnitude
            form = np.where(rest > 1e-6 * np.linalg.norm(scaled, axis=-1) + noise, np.inf, form)
        return form if form.ndim else float(form)


def largest_increase(values: Any) -> float:
    """Largest increase between consecutive values, relative to the first one; <= 0 for a decreasing sequence.

    Parameters
    ----------
    values
        (K,) or (K, ...): a nonnegative quantity over depth, first axis depth.
    """
    v = finite_array("values", values)
    if v.ndim == 0 or len(v) < 2:
        raise ConfigError(f"values has shape {v.shape}: an increase needs two depths")
    if not (v[0] > 0.0).all():
        raise ConfigError("values must start above 0: an increase is taken relative to the first value")
    return float((np.diff(v, axis=0) / v[0]).max())


def euler_step_limit(model: SpaceTimeNetwork) -> float:
    """Largest Euler step that inherits the time-uniform stability: 2 / (gamma + Lambda ||A||).

    ||A|| is the operator norm on L2(q); infinite for W = 0 without a leak.
    """
    operator: Any = model.operator
    if hasattr(operator, "operators") or model.amplitude is not None:
        raise ConfigError("the Euler condition here is for a weight constant in depth")
    rate = model.leak + model.activation.lipschitz * float(operator.operator_norm())
    return 2.0 / rate if rate else float("inf")
