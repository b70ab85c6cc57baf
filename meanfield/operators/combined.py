"""Sums and products of integral operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array
from meanfield.errors import ConfigError
from meanfield.operators.base import IntegralOperator

Array = NDArray[np.float64]

# Unit vectors carried together through an operator whose norm is summed up.
_COLUMNS = 64


class Sum(IntegralOperator):
    """Linear combination of operators on one grid, W = sum_k c_k W_k, local parts included.

    Parameters
    ----------
    terms
        W_k, at least one, all on the same grid.
    coefficients
        c_k; None is 1 for each.

    Raises
    ------
    ConfigError
        If grids differ or lengths do not match.
    """

    kind = "sum"

    def __init__(self, terms: Sequence[IntegralOperator], coefficients: Any = None) -> None:
        self.terms = _on_one_grid(terms)
        given = np.ones(len(self.terms)) if coefficients is None else coefficients
        self.coefficients = finite_array("coefficients", given, shape=(None,))
        if len(self.coefficients) != len(self.terms):
            raise ConfigError(
                f"coefficients has length {len(self.coefficients)}, but terms has length {len(self.terms)}"
            )
        local = float(self.coefficients @ [op.local for op in self.terms])
        super().__init__(self.terms[0].grid, local)

    def _product(self, z: Array, out: Array) -> None:
        self._add("_product", z, out)

    def _adjoint_product(self, p: Array, out: Array) -> None:
        self._add("_adjoint_product", p, out)

    def _add(self, method: str, z: Array, out: Array) -> None:
        part = np.empty_like(out)
        out[...] = 0.0
        for c, operator in zip(self.coefficients, self.terms, strict=True):
            getattr(operator, method)(z, part)
            part *= c
            out += part

    def kernel_matrix(self) -> Array:
        """Kernel values sum_k c_k w_k(x_i, x_j), (N, N)."""
        total = np.zeros((self.grid.n_nodes, self.grid.n_nodes))
        for c, operator in zip(self.coefficients, self.terms, strict=True):
            total += c * operator.kernel_matrix()
        return total

    def norm(self) -> float:
        """Hilbert-Schmidt norm of the kernel: N products, O(N) memory."""
        return _norm_by_columns(self)

    def _details(self) -> dict[str, Any]:
        terms = [operator.describe() for operator in self.terms]
        return {"coefficients": self.coefficients, "terms": terms}


class Product(IntegralOperator):
    """Composition W = A B of operators on one grid, local parts included.

    Its kernel is int a(x, s) b(s, y) ds + local_a b(x, y) + local_b a(x, y), its local part local_a local_b.

    Raises
    ------
    ConfigError
        If the grids differ.
    """

    kind = "product"

    def __init__(self, first: IntegralOperator, second: IntegralOperator) -> None:
        self.first, self.second = _on_one_grid((first, second))
        super().__init__(first.grid, first.local * second.local)

    def _product(self, z: Array, out: Array) -> None:
        out[...] = self.first.apply(self.second.apply(z))
        out -= self.local * z

    def _adjoint_product(self, p: Array, out: Array) -> None:
        out[...] = self.second.apply_adjoint(self.first.apply_adjoint(p))
        out -= self.local * p

    def kernel_matrix(self) -> Array:
        """Kernel values of the composition, (N, N)."""
        a, b = self.first.kernel_matrix(), self.second.kernel_matrix()
        return np.asarray((a * self.grid.weights) @ b + self.first.local * b + self.second.local * a)

    def norm(self) -> float:
        """Hilbert-Schmidt norm of the kernel: N products, O(N) memory."""
        return _norm_by_columns(self)

    def _details(self) -> dict[str, Any]:
        return {"factors": [self.first.describe(), self.second.describe()]}


def _on_one_grid(operators: Sequence[IntegralOperator]) -> tuple[IntegralOperator, ...]:
    found = tuple(operators)
    if not found or not all(isinstance(operator, IntegralOperator) for operator in found):
        raise ConfigError("operators must be at least one IntegralOperator")
    first = found[0].grid
    for other in found[1:]:
        same = np.array_equal(other.grid.nodes, first.nodes) and np.array_equal(other.grid.weights, first.weights)
        if not same:
            raise ConfigError("all operators must live on the same grid")
    return found


def _norm_by_columns(operator: IntegralOperator) -> float:
    """Square root of sum_ij q_i q_j w_ij^2, from the images q_j w_ij of unit vectors."""
    n, q = operator.grid.n_nodes, operator.grid.weights
    check_memory("images of unit vectors", 3 * 8 * _COLUMNS * n)
    total = 0.0
    for start in range(0, n, _COLUMNS):
        chosen = np.arange(start, min(start + _COLUMNS, n))
        unit = np.zeros((len(chosen), n))
        unit[np.arange(len(chosen)), chosen] = 1.0
        image = np.empty_like(unit)
        operator._product(unit, image)  # noqa: SLF001  (the integral part alone)
        total += float((1.0 / q[chosen]) @ (image**2 @ q))
    return math.sqrt(total)
