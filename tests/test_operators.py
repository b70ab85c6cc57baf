"""Integral operators: products, adjoints, norms, convergence in the width."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield.errors import ConfigError, ResourceError
from meanfield.grids import Grid
from meanfield.operators.convolution import Convolution
from meanfield.operators.dense import Dense
from meanfield.operators.path import OperatorPath
from meanfield.operators.separable import Separable
from meanfield.parallel import blas_single_thread, block_sum, for_blocks, get_threads, set_threads

RNG = np.random.default_rng(11)
GAUSS, CIRCLE, TORUS, LARGE = Grid.interval(21, "gauss"), Grid.circle(20), Grid.torus(6), Grid.interval(611)
KINDS = {
    "dense": Dense(GAUSS, RNG.standard_normal((21, 21)), local=-0.7),
    "dense32": Dense(GAUSS, RNG.standard_normal((21, 21)), storage="float32"),
    "dense large": Dense(LARGE, RNG.standard_normal((611, 611))),
    "separable": Separable(GAUSS, RNG.standard_normal((3, 21)), RNG.standard_normal((3, 21)), local=0.4),
    "circle": Convolution(CIRCLE, RNG.standard_normal(20), local=0.3),
    "circle odd": Convolution(Grid.circle(15), RNG.standard_normal(15)),
    "torus": Convolution(TORUS, RNG.standard_normal(36)),
    "torus odd": Convolution(Grid.torus(5), RNG.standard_normal(25), local=-1.0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_samples", [None, 1, 4])
def test_apply_is_the_dense_matrix_and_the_adjoint_is_that_of_l2(kind, n_samples):
    W = KINDS[kind]
    n, q = W.grid.n_nodes, W.grid.weights
    shape = (n,) if n_samples is None else (n_samples, n)
    z, p = RNG.standard_normal(shape), RNG.standard_normal(shape)
    np.testing.assert_allclose(W.apply(z), z @ W.dense().T, rtol=1e-12, atol=1e-12)
    out = np.full(shape, np.nan)
    assert W.apply(z, out) is out
    np.testing.assert_array_equal(out, W.apply(z))
    left, right = (W.apply(z) * p) @ q, (z * W.apply_adjoint(p)) @ q
    np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_norms_are_their_definitions(kind):
    W = KINDS[kind]
    q = W.grid.weights
    w = W.kernel_matrix()
    assert np.isclose(W.norm(), np.sqrt(np.einsum("i,j,ij->", q, q, w**2)), rtol=1e-12)
    root = np.sqrt(q)
    singular = np.linalg.svd(root[:, None] * W.dense() / root, compute_uv=False)
    assert np.isclose(W.operator_norm(), singular[0], rtol=1e-9)


def test_norm_of_a_kernel_in_closed_form():
    grid = Grid.interval(30, "gauss")
    assert np.isclose(Dense(grid, lambda x, y: x * y**2).norm(), np.sqrt(1 / 15), rtol=1e-13)
    circle = Convolution(Grid.circle(32), lambda x: np.cos(2 * np.pi * x), local=0.25)
    assert np.isclose(circle.norm(), np.sqrt(0.5), rtol=1e-14)
    assert np.isclose(circle.operator_norm(), 0.75, rtol=1e-14)


def test_single_precision_storage_is_accurate_to_its_rounding():
    w, z = RNG.standard_normal((200, 200)), RNG.standard_normal((3, 200))
    exact = Dense(Grid.circle(200), w).apply(z)
    for storage in (Dense(Grid.circle(200), w, storage="float32"),):
        error = np.abs(storage.apply(z) - exact).max()
        assert 1e-12 < error < 1e-6
    factors = Separable(GAUSS, w[:2, :21], w[2:4, :21], storage="float32")
    assert factors.left.dtype == np.float64
    assert np.array_equal(factors.left, w[:2, :21].astype(np.float32))


def converge(make_grid, kernel, sizes):
    """Errors in the sup norm of int w(x, y) sin(5 y + 1) dy against a fine Gauss rule."""
    y, q = np.polynomial.legendre.leggauss(400)
    y, q = 0.5 + 0.5 * y, 0.5 * q
    errors = []
    for n in sizes:
        grid = make_grid(n)
        got = Dense(grid, kernel).apply(np.sin(5 * grid.nodes + 1))
        errors.append(np.abs(got - kernel(grid.nodes[:, None], y[None]) @ (q * np.sin(5 * y + 1))).max())
    return np.log2(np.array(errors[:-1]) / errors[1:]), errors


def test_smooth_kernel_has_the_order_of_the_rule():
    def kernel(x, y):
        return np.exp(x * y) / (1 + (x - y) ** 2)

    slopes, _ = converge(Grid.interval, kernel, (32, 64, 128, 256))
    assert np.all(np.abs(slopes - 2) <= 0.1), slopes
    _, errors = converge(lambda n: Grid.interval(n, "gauss"), kernel, (4, 8, 16, 32))
    assert errors[-1] < 1e-12, errors


@pytest.mark.parametrize(("diagonal", "order"), [(0.0, 1), (0.5, 2)])
def test_jump_kernel_is_first_order_and_second_with_the_half_value(diagonal, order):
    errors = []
    for n in (64, 128, 256, 512):
        grid = Grid.interval(n)
        w = np.tril(np.ones((n, n)), -1) + diagonal * np.eye(n)
        exact = (np.cos(1.0) - np.cos(5 * grid.nodes + 1)) / 5
        errors.append(np.abs(Dense(grid, w).apply(np.sin(5 * grid.nodes + 1)) - exact).max())
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(slopes - order) <= 0.1), slopes


def test_circle_is_spectral():
    def profile(x):
        return np.exp(np.cos(2 * np.pi * x))

    fine = Convolution(Grid.circle(96), profile).apply(np.sin(2 * np.pi * Grid.circle(96).nodes))
    errors = []
    for n in (6, 12, 24):
        grid = Grid.circle(n)
        errors.append(np.abs(Convolution(grid, profile).apply(np.sin(2 * np.pi * grid.nodes)) - fine[:: 96 // n]).max())
    assert errors[-1] < 1e-14, errors
    assert errors[0] > 1e-5


def test_path_is_constant_or_linear_between_its_knots():
    a, b = (Dense(GAUSS, RNG.standard_normal((21, 21))) for _ in range(2))
    z = RNG.standard_normal((2, 21))
    steps, line = OperatorPath([0.0, 1.0, 2.0], [a, b]), OperatorPath([0.0, 2.0], [a, b], "linear")
    np.testing.assert_array_equal(steps.apply(0.999, z), a.apply(z))
    np.testing.assert_array_equal(steps.apply(1.0, z), b.apply(z))
    np.testing.assert_allclose(line.apply(0.5, z), 0.75 * a.apply(z) + 0.25 * b.apply(z), rtol=1e-13)
    np.testing.assert_allclose(
        line.apply_adjoint(1.5, z), 0.25 * a.apply_adjoint(z) + 0.75 * b.apply_adjoint(z), rtol=1e-13
    )
    np.testing.assert_array_equal(steps.breakpoints, [1.0])


BAD = [
    (lambda: Dense(GAUSS, np.ones((3, 4))), ConfigError, r"\(3, 4\).*21"),
    (lambda: Dense(GAUSS, np.full((21, 21), np.nan)), ConfigError, r"kernel must be finite.*\(0, 0\)"),
    (lambda: Dense(GAUSS, lambda x, y: np.ones((2, 2))), ConfigError, r"\(2, 2\)"),
    (lambda: Dense(GAUSS, 1j * np.ones((21, 21))), ConfigError, "complex"),
    (lambda: Dense(GAUSS, np.ones((21, 21)), storage="float16"), ConfigError, "storage"),
    (lambda: Dense(GAUSS, np.ones((21, 21)), local=np.nan), ConfigError, "local must be finite"),
    (lambda: Dense(Grid.circle(10**7), np.cos), ResourceError, "GiB"),
    (lambda: Separable(GAUSS, np.ones((2, 21)), np.ones((3, 21))), ConfigError, "2.*3"),
    (lambda: Separable(GAUSS, np.ones((2, 20)), np.ones((2, 21))), ConfigError, r"\(2, 20\)"),
    (lambda: Convolution(GAUSS, np.ones(21)), ConfigError, "gauss"),
    (lambda: Convolution(CIRCLE, np.ones(19)), ConfigError, r"\(19,\)"),
    (lambda: KINDS["dense"].apply(np.ones(20)), ConfigError, "20.*21"),
    (lambda: KINDS["dense"].apply(np.array([1j] * 21)), ConfigError, "complex"),
    (lambda: OperatorPath([0.0, 1.0], [KINDS["dense"], KINDS["dense32"]]), ConfigError, "length 2"),
    (lambda: OperatorPath([0.0, 1.0, 2.0], [KINDS["dense"], KINDS["circle"]]), ConfigError, "same grid"),
    (lambda: OperatorPath([1.0, 1.0], [KINDS["dense"]]), ConfigError, "increasing"),
]


@pytest.mark.parametrize("index", range(len(BAD)))
def test_bad_operators_are_refused(index):
    make, error, words = BAD[index]
    with pytest.raises(error, match=words):
        make()


@pytest.fixture
def threads():
    before = get_threads()
    yield set_threads
    set_threads(before)


def test_bytes_do_not_depend_on_the_number_of_threads(threads):
    n = 1700
    grid = Grid.interval(n)
    operators = [Dense(grid, RNG.standard_normal((n, n))), Dense(grid, RNG.standard_normal((n, n)), storage="float32")]
    for W in operators:
        for z in (RNG.standard_normal(n), RNG.standard_normal((5, n))):
            results = []
            for k in (1, 2, 3, 8):
                threads(k)
                results.append((W.apply(z).tobytes(), W.apply_adjoint(z).tobytes()))
            assert len(set(results)) == 1, (W.storage, z.shape)


def test_blocks_return_in_order_and_raise(threads):
    threads(3)
    assert for_blocks(lambda a, b: (a, b), 10, 4) == [(0, 4), (4, 8), (8, 10)]

    def fail(a, b):
        if a == 4:
            raise ValueError("block")

    with pytest.raises(ValueError, match="block"):
        for_blocks(fail, 10, 4)
    with pytest.raises(ConfigError, match="threads"):
        threads(0)


def test_block_sum_is_accurate():
    x = RNG.standard_normal(10_001)
    assert np.isclose(block_sum(x), x.sum(), rtol=1e-12)


def test_blas_keeps_to_one_thread_inside_and_nests():
    from threadpoolctl import threadpool_info

    def counts():
        return [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]

    before = counts()
    with blas_single_thread():
        with blas_single_thread():
            pass
        assert set(counts()) <= {1}
    assert counts() == before
