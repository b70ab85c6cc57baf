"""Products of matrices with panels of samples, against NumPy, for sizes that do and do not fill tiles and panels."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield._panels import (
    PANEL,
    ROWS,
    add_row_sums,
    add_sample_product,
    load_panels,
    panel_product,
    store_panels,
    transpose_panels,
)

RNG = np.random.default_rng(3)
SIZES = [(ROWS, 1, PANEL), (ROWS + 1, 5, 2 * PANEL), (8, 16, 3 * PANEL), (33, 40, 5 * PANEL)]


def in_panels(x: np.ndarray) -> np.ndarray:
    """Panels of a matrix (rows, n), as they are defined."""
    return np.ascontiguousarray(x.reshape(len(x), -1, PANEL).transpose(1, 0, 2)).ravel()


@pytest.mark.parametrize("n", [1, 16, 37])
def test_samples_are_loaded_with_zeros_beyond_and_stored_as_they_were(n):
    y = RNG.standard_normal((3, n + 7))
    x, back = np.full(3 * 3 * PANEL, np.nan), np.zeros_like(y)
    load_panels(y, 5, 5 + n, x)
    full = np.zeros((3, 3 * PANEL))
    full[:, :n] = y[:, 5 : 5 + n]
    np.testing.assert_array_equal(x, in_panels(full))
    store_panels(x, 5, 5 + n, back)
    np.testing.assert_array_equal(back[:, 5 : 5 + n], y[:, 5 : 5 + n])
    assert np.count_nonzero(back) == 3 * n


@pytest.mark.parametrize(("rows", "depth", "n"), SIZES)
def test_a_matrix_and_its_transpose_times_panels(rows, depth, n):
    x, shift = RNG.standard_normal((depth, n)), RNG.standard_normal(rows)
    flat, out = RNG.standard_normal(2 + rows * depth), np.full(rows * n, np.nan)
    panel_product(flat, 2, depth, 1, shift, 0, 1, in_panels(x), depth, out, rows)
    np.testing.assert_allclose(
        out, in_panels(flat[2:].reshape(rows, depth) @ x + shift[:, None]), rtol=1e-13, atol=1e-13
    )
    panel_product(flat, 2, 1, rows, np.zeros(1), 0, 0, in_panels(x), depth, out, rows)
    np.testing.assert_allclose(out, in_panels(flat[2:].reshape(depth, rows).T @ x), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("rows", "columns", "n"), SIZES)
def test_products_and_sums_over_samples_are_added(rows, columns, n):
    a, b = RNG.standard_normal((rows, n)), RNG.standard_normal((columns, n))
    before = RNG.standard_normal(3 + rows * columns)
    turned, found = np.zeros(-(-columns // PANEL) * PANEL * n), before.copy()
    transpose_panels(in_panels(b), columns, turned)
    add_sample_product(in_panels(a), rows, turned, columns, np.zeros(1), np.empty(ROWS * PANEL), found, 3)
    np.testing.assert_array_equal(found[:3], before[:3])
    np.testing.assert_allclose(found[3:] - before[3:], (a @ b.T).ravel(), rtol=1e-12, atol=1e-12)
    sums = np.zeros(rows + 1)
    add_row_sums(in_panels(a), rows, np.empty(rows * PANEL), sums, 1)
    np.testing.assert_allclose(sums, np.append(0.0, a.sum(axis=1)), rtol=1e-13, atol=1e-13)
