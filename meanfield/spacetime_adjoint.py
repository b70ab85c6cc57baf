"""Adjoint of a space-time network: Runge-Kutta stages written down and pulled back, and the parameters of kernels.

    d_t z = F(t, z),   with F made of m = a(t) W f + b,   (W f)_i = local f_i + sum_j q_j w_ij f_j

where f is z (sigma outside) or sigma(z) (inside). With the costate delta of m in L2(q), per sample,

    dJ/db_i = q_i delta_i,   dJ/da = sum_i q_i delta_i (W f)_i,   dJ/dw_ij = a q_i delta_i q_j f_j.

Source: consequence of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import lookup
from meanfield.controls import Controls
from meanfield.errors import ConfigError
from meanfield.kernels.layers import combine
from meanfield.operators.base import IntegralOperator
from meanfield.operators.dense import Dense
from meanfield.operators.path import OperatorPath
from meanfield.operators.separable import Separable
from meanfield.schemes import Scheme

Array = NDArray[np.float64]
Rate = Callable[[float, Array, Array], None]
Operator = IntegralOperator | OperatorPath


def run_stages(rate: Rate, scheme: Scheme, times: Array, lengths: Array, y: Array, stages: Array) -> None:
    """Advance y in place through fixed steps of a scheme, the stage states of step k going to stages[k mod len].

    Shapes: times (L, s); lengths (L,); stages (1 .. L, s, *y.shape).
    """
    s = scheme.n_stages
    rates, flat = np.empty((s, y.size)), y.reshape(-1)
    new = np.empty_like(flat)
    for k, dt in enumerate(lengths.tolist()):
        states = stages[k % len(stages)]
        for i, t in enumerate(times[k].tolist()):
            combine(flat, rates[:i], scheme.a[i, :i], dt, states[i].reshape(-1))
            rate(t, states[i], rates[i].reshape(y.shape))
        combine(flat, rates, scheme.b[:s], dt, new)
        flat[...] = new


def pull_back(
    model: Any, scheme: Scheme, times: Array, lengths: Array, stages: Array, sources: Array, p: Array
) -> dict[str, Array]:
    """Pull costates p back in place through the steps of `run_stages`; return gradients by parameter.

    With dJ/dk_i = dt (b_i p + sum_(j > i) a_ji g_j) and g_i = F'(Y_i)^T dJ/dk_i + dt b_i source_i the costate before
    the step is p + sum_i g_i.

    Parameters
    ----------
    model
        A space-time network, with `pull_stage`.
    scheme, times, lengths, stages
        As for `run_stages`, a stage for each step.
    sources
        Gradients of a running cost at the stages, of the shape of `stages`, or empty.
    p
        Euclidean costate, (N,) or (n, N).
    """
    operator, bias, amplitude = model.operator, model.bias, model.amplitude
    q, (count, s) = model.grid.weights, times.shape
    rows = (-1, model.grid.n_nodes)
    # Costates of L2(q), p = q lam: for them W* is the transpose.
    lam = p.reshape(rows) / q
    states = stages.reshape(count, s, *lam.shape)
    forces = sources.reshape(-1, s, *lam.shape)
    f, delta, g = np.empty((3, s, *lam.shape))
    scales = np.ones(times.shape) if amplitude is None else amplitude.table(times)
    scales = scales.reshape(count, s, 1, -1)
    slopes, biases = np.empty_like(scales), np.empty((count, s, len(q)))
    trained = kernel_parameters(operator)
    kernel = {name: np.zeros(_form(part)[1]) for name, part in trained.items()}
    for k in reversed(range(count)):
        for i in reversed(range(s)):
            weight = float(lengths[k] * scheme.b[i])
            after = weight * lam + np.tensordot(lengths[k] * scheme.a[i + 1 : s, i], g[i + 1 :], 1)
            slopes[k, i] = model.pull_stage(float(times[k, i]), states[k, i], after, f[i], delta[i], g[i])
            if len(forces):
                g[i] += weight * (forces[k, i] / q)
        lam += g.sum(axis=0)
        biases[k] = q * delta.sum(axis=1)
        weighted = f * q, delta * q
        if amplitude is not None and amplitude.shape:
            slopes[k] = _term_slopes(operator, *weighted)
        _add_kernel(trained, kernel, operator, times[k], scales[k], *weighted)
    np.multiply(lam, q, out=p.reshape(rows))
    found = {"bias": _pull_values(bias, times, biases)}
    if amplitude is not None:
        found["amplitude"] = amplitude.pull_back(times, slopes)
    return found | kernel


def _term_slopes(operator: Separable, f: Array, delta: Array) -> Array:
    """Gradients in the amplitudes of single terms, (s, 1, r); f and delta as for `_add_kernel`."""
    return np.asarray(((delta @ operator.left.T) * (f @ operator.right.T)).sum(axis=1, keepdims=True))


def _add_kernel(
    trained: Mapping[str, Array | Controls],
    out: Mapping[str, Array],
    operator: Operator,
    times: Array,
    scales: Array,
    f: Array,
    delta: Array,
) -> None:
    """Add the gradients of a step in the kernel to out; scales (s, 1, 1 or r), f and delta (s, n, N) times q."""
    if "weight" in trained:
        _add_products(trained["weight"], out["weight"], times, scales * delta, f)
    elif "left" in trained:
        if isinstance(operator, OperatorPath):
            # The factors of a piecewise linear path do not stand at one depth: every knot has its own product.
            _add_factors(operator, out, times, scales, f, delta)
            return
        assert isinstance(operator, Separable)
        _add_products(trained["left"], out["left"], times, scales * (f @ operator.right.T), delta)
        _add_products(trained["right"], out["right"], times, scales * (delta @ operator.left.T), f)


def _add_products(part: Array | Controls, out: Array, times: Array, a: Array, b: Array) -> None:
    """Add sum over samples of a_si b_sj to out, at the depths of the stages where there are depths."""
    if isinstance(part, Controls):
        part.add_pull_back(times, a.swapaxes(1, 2) @ b, out)
    else:
        out += a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1])


def _add_factors(
    path: OperatorPath, out: Mapping[str, Array], times: Array, scales: Array, f: Array, delta: Array
) -> None:
    """Add the gradients of a step in the factors at the knots of a path of separable kernels."""
    for i, t in enumerate(times.tolist()):
        for k, weight in path.shares(t):
            operator = path.operators[k]
            assert isinstance(operator, Separable)
            scaled = weight * scales[i]
            out["left"][k] += (scaled * (f[i] @ operator.right.T)).T @ delta[i]
            out["right"][k] += (scaled * (delta[i] @ operator.left.T)).T @ f[i]


def _pull_values(part: Array | Controls, times: Array, table: Array) -> Array:
    """Gradient in a number, a field, or `Controls` of them from those in the fields at many depths."""
    columns = table if part.shape else table.sum(axis=-1)
    return part.pull_back(times, columns) if isinstance(part, Controls) else np.asarray(columns.sum(axis=(0, 1)))


def kernel_parameters(operator: Operator) -> dict[str, Array | Controls]:
    """Parameters of an operator that have a gradient: weight, or left and right, or none; over depth for a path."""
    if isinstance(operator, OperatorPath):
        rows = [kernel_parameters(one) for one in operator.operators]
        # Kernels of one kind and rank: else they are not values of one parameter.
        if len({tuple((name, _form(part)) for name, part in row.items()) for row in rows}) > 1:
            return {}
        return {
            name: Controls(operator.knots, np.array([row[name] for row in rows]), operator.interpolation)
            for name in rows[0]
        }
    if isinstance(operator, Separable):
        return {"left": operator.left.copy(), "right": operator.right.copy()}
    if isinstance(operator, Dense) and operator.storage == "float64":
        return {"weight": operator.kernel_matrix()}
    return {}


def with_kernel(operator: Operator, changed: Mapping[str, Array | Controls]) -> Operator:
    """Return the same operator with other parameters of its kernel, one or more of `kernel_parameters`."""
    if isinstance(operator, OperatorPath):
        parts = [part for part in changed.values() if isinstance(part, Controls)]
        first = parts[0]
        if any(p.interpolation != first.interpolation or not np.array_equal(p.knots, first.knots) for p in parts):
            raise ConfigError("factors of one kernel must have the same knots and interpolation")
        each = [
            with_kernel(one, {name: part.values[k] for name, part in changed.items() if isinstance(part, Controls)})
            for k, one in enumerate(operator.operators)
        ]
        kept = [one for one in each if isinstance(one, IntegralOperator)]
        if len(parts) < len(kernel_parameters(operator)) and not np.array_equal(first.knots, operator.knots):
            raise ConfigError("a factor alone cannot have other knots than the rest of its kernel")
        return OperatorPath(first.knots, kept, first.interpolation)
    values = kernel_parameters(operator) | dict(changed)
    if isinstance(operator, Separable):
        return Separable(operator.grid, values["left"], values["right"], operator.local)
    return Dense(operator.grid, values["weight"], operator.local)


def check_changed(present: Mapping[str, Array | Controls], changed: Mapping[str, Array | Controls]) -> None:
    """Raise `ConfigError` for an unknown name, another shape, or `Controls` where an array was and the reverse."""
    for name, value in changed.items():
        old = lookup("parameter", name, present)
        wanted, shape = _form(old), _form(value)
        if shape != wanted:
            raise ConfigError(f"{name} is {' '.join(map(str, shape))}, expected {' '.join(map(str, wanted))}")


def _form(part: Array | Controls) -> tuple[str, tuple[int, ...]]:
    if isinstance(part, Controls):
        return "Controls of values", part.values.shape
    return "an array of shape", np.shape(part)
