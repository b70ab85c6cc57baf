"""Products of matrices with blocks of samples, in register tiles of the width of this processor's vectors.

A block of samples is held in panels of PANEL columns: the matrix of a panel, (K, PANEL), is contiguous, so a tile of
a product reads it from one end to the other and nothing is packed. Rows of a tile are as many as its sums fit
into the vector registers. BLAS may not know the processor, and pays for packing in products as small as these.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic
from numpy.typing import NDArray

from meanfield._jit import ELEMENTARY, REDUCTION, njit
from meanfield._vectormath import prefer512

Array = NDArray[np.float64]

# Samples of a panel: two vectors of 512 bits, or four of 256.
PANEL = 16
# Rows of a tile: of 32 vector registers 16 hold sums, of 16 registers 8.
ROWS = 8 if llvmlite.binding.get_host_cpu_features().get("avx512f", False) else 2

if getattr(config, "DISABLE_JIT", False):  # set by numba from NUMBA_DISABLE_JIT

    def _tile(
        a: Array, a_at: int, a_row: int, a_column: int, a_jump: int, b: Array, b_at: int, shift: Array, shift_at: int,
        shift_row: int, c: Array, c_at: int, c_row: int, depth: int, add: bool,
    ) -> None:  # fmt: skip
        """Do the same in plain Python."""
        k = np.arange(depth)
        panel = b[b_at : b_at + depth * PANEL].reshape(depth, PANEL)
        for i in range(ROWS):
            row = a[a_at + i * a_row + k * a_column + k // PANEL * a_jump] @ panel + shift[shift_at + i * shift_row]
            place = slice(c_at + i * c_row, c_at + i * c_row + PANEL)
            c[place] = c[place] + row if add else row

else:

    @intrinsic
    def _tile(
        _context: Any, a: Any, a_at: Any, a_row: Any, a_column: Any, a_jump: Any, b: Any, b_at: Any, shift: Any,
        shift_at: Any, shift_row: Any, c: Any, c_at: Any, c_row: Any, depth: Any, add: Any,
    ) -> Any:  # fmt: skip
        """Fill, or add to, C (ROWS, PANEL) with A B + s: A (ROWS, depth), B (depth, PANEL) contiguous, s (ROWS,).

        All in flat arrays from the places `_at` on. Entry (i, k) of A is i a_row + k a_column + (k // PANEL) a_jump
        further on, s_i is i shift_row and the row i of C is i c_row further on.
        """
        given = (a, a_at, a_row, a_column, a_jump, b, b_at, shift, shift_at, shift_row, c, c_at, c_row, depth, add)
        kinds = [t if isinstance(t, types.Array) else types.boolean if t is add else types.intp for t in given]
        return types.void(*kinds), _generate_tile


def _store_rows(builder: Any, rows: list[Any], targets: list[Any], add: Any) -> None:
    """Write the instructions that store the rows of a tile, or add them to what is there."""
    with builder.if_else(add) as branches:
        for branch, adding in zip(branches, (True, False), strict=True):
            with branch:
                for target, row in zip(targets, rows, strict=True):
                    value = row
                    if adding:
                        old = builder.load(target)
                        old.align = 8
                        value = builder.fadd(old, row)
                    builder.store(value, target).align = 8


def _generate_tile(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Write the instructions of `_tile`: all sums stay in registers over the loop."""
    index, vector = ir.IntType(64), ir.VectorType(ir.DoubleType(), PANEL)
    a, a_at, a_row, a_column, a_jump, b, b_at, shift, shift_at, shift_row, c, c_at, c_row, depth, add = (
        context.make_array(t)(context, builder, v).data if isinstance(t, types.Array) else v
        for t, v in zip(signature.args, arguments, strict=True)
    )

    def number(n: int) -> Any:
        return ir.Constant(index, n)

    def place(base: Any, at: Any, i: int, row: Any) -> Any:
        return builder.gep(base, [builder.add(at, builder.mul(row, number(i)))])

    def wide(pointer: Any) -> Any:
        return builder.bitcast(pointer, vector.as_pointer())

    def spread(x: Any) -> Any:
        lane = builder.insert_element(ir.Constant(vector, ir.Undefined), x, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), PANEL), [0] * PANEL)
        return builder.shuffle_vector(lane, ir.Constant(vector, ir.Undefined), zeros)

    kind = ir.FunctionType(vector, [vector] * 3)
    multiply_add = builder.module.globals.get(f"llvm.fmuladd.v{PANEL}f64")
    if multiply_add is None:
        multiply_add = ir.Function(builder.module, kind, f"llvm.fmuladd.v{PANEL}f64")
    rows = [place(a, a_at, i, a_row) for i in range(ROWS)]
    starts = [spread(builder.load(place(shift, shift_at, i, shift_row))) for i in range(ROWS)]
    before = builder.block
    loop, done = builder.append_basic_block("tile"), builder.append_basic_block("tile.end")
    builder.branch(loop)

    builder.position_at_end(loop)
    k, at = builder.phi(index), builder.phi(index)
    sums = [builder.phi(vector) for _ in range(ROWS)]
    source = builder.load(wide(builder.gep(b, [builder.add(b_at, builder.mul(k, number(PANEL)))])))
    source.align = 8
    new = []
    for row, total in zip(rows, sums, strict=True):
        new.append(builder.call(multiply_add, [spread(builder.load(builder.gep(row, [at]))), source, total]))
    following = builder.add(k, number(1))
    ended = builder.icmp_unsigned("==", builder.and_(following, number(PANEL - 1)), number(0))
    step = builder.add(a_column, builder.select(ended, a_jump, number(0)))
    counters = (k, number(0), following), (at, number(0), builder.add(at, step))
    for phi, first, later in (*counters, *zip(sums, starts, new, strict=True)):
        phi.add_incoming(first, before)
        phi.add_incoming(later, loop)
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, done)

    builder.position_at_end(done)
    targets = [wide(place(c, c_at, i, c_row)) for i in range(ROWS)]
    _store_rows(builder, new, targets, add)
    return context.get_dummy_value()


@njit(fastmath=ELEMENTARY)
def panel_product(
    a: Array, a_at: int, a_row: int, a_column: int, shift: Array, shift_at: int, shift_row: int, b: Array, depth: int,
    c: Array, rows: int,
) -> None:  # fmt: skip
    """Fill the panels c (., rows, PANEL) with A b + s for the panels b (., depth, PANEL), both flat.

    A (rows, depth) is in the flat array a, entry (i, k) at a_at + i a_row + k a_column, so that it may be a
    transpose; s_i is shift[shift_at + i shift_row]. Rows are at least ROWS.
    """
    prefer512()
    for first in range(0, rows, ROWS):
        # The last tile overlaps the one before: the same numbers twice.
        i = min(first, rows - ROWS)
        for p in range(c.size // (rows * PANEL)):
            _tile(
                a, a_at + i * a_row, a_row, a_column, 0, b, p * depth * PANEL, shift, shift_at + i * shift_row,
                shift_row, c, (p * rows + i) * PANEL, PANEL, depth, False,
            )  # fmt: skip


@njit(fastmath=ELEMENTARY)
def add_sample_product(
    a: Array, rows: int, b: Array, columns: int, zero: Array, corner: Array, c: Array, at: int
) -> None:
    """Add sum_j a_ij b_kj, over the samples j of a block, to the matrix (rows, columns) in the flat array c from `at`.

    a holds panels (., rows, PANEL), and b is what `transposed` makes of the panels of the other; `zero` is one
    zero, `corner` (ROWS PANEL,) a workspace.
    """
    prefer512()
    samples = a.size // rows
    for q in range(0, columns, PANEL):
        for first in range(0, rows, ROWS):
            i = min(first, rows - ROWS)
            whole = first == i and q + PANEL <= columns
            target, place, row = (c, at + i * columns + q, columns) if whole else (corner, 0, PANEL)
            _tile(
                a, i * PANEL, PANEL, 1, (rows - 1) * PANEL, b, q * samples, zero, 0, 0, target, place, row, samples,
                whole,
            )  # fmt: skip
            if not whole:
                for r in range(first - i, ROWS):
                    for k in range(min(PANEL, columns - q)):
                        c[at + (i + r) * columns + q + k] += corner[r * PANEL + k]


@njit(fastmath=REDUCTION)
def add_row_sums(a: Array, rows: int, work: Array, c: Array, at: int) -> None:
    """Add the sums over samples of the panels a (., rows, PANEL) to c[at : at + rows]; work (rows PANEL,) at least."""
    prefer512()
    size = rows * PANEL
    total = work[:size]
    for j in range(size):
        total[j] = a[j]
    for p in range(1, a.size // size):
        panel = a[p * size : (p + 1) * size]
        for j in range(size):
            total[j] += panel[j]
    for i in range(rows):
        row, s = total[i * PANEL : (i + 1) * PANEL], 0.0
        for j in range(PANEL):
            s += row[j]
        c[at + i] += s


@njit(fastmath=ELEMENTARY)
def transpose_panels(x: Array, rows: int, out: Array) -> None:
    """Fill out (., samples, PANEL), flat, with panels x (., rows, PANEL): its panels hold PANEL rows of x each.

    Columns beyond the rows of x are left as they are, so they must be finite.
    """
    samples = x.size // rows
    for p in range(samples // PANEL):
        for i in range(rows):
            source = x[(p * rows + i) * PANEL : (p * rows + i + 1) * PANEL]
            start = (i // PANEL * samples + p * PANEL) * PANEL + i % PANEL
            for j in range(PANEL):
                out[start + j * PANEL] = source[j]


@njit(fastmath=ELEMENTARY)
def load_panels(y: Array, first: int, last: int, x: Array) -> None:
    """Fill the panels x with the samples first <= j < last of y (d, n), zeros beyond."""
    prefer512()
    d = y.shape[0]
    for p in range(x.size // (d * PANEL)):
        start = first + p * PANEL
        q = min(max(last - start, 0), PANEL)
        for i in range(d):
            target = x[(p * d + i) * PANEL : (p * d + i + 1) * PANEL]
            if q == PANEL:
                source = y[i, start : start + PANEL]
                for j in range(PANEL):
                    target[j] = source[j]
            else:
                for j in range(PANEL):
                    target[j] = y[i, start + j] if j < q else 0.0


@njit(fastmath=ELEMENTARY)
def store_panels(x: Array, first: int, last: int, y: Array) -> None:
    """Fill the samples first <= j < last of y (d, n) from the panels x."""
    prefer512()
    d = y.shape[0]
    for p in range(x.size // (d * PANEL)):
        start = first + p * PANEL
        for i in range(d):
            source = x[(p * d + i) * PANEL : (p * d + i + 1) * PANEL]
            for j in range(min(last - start, PANEL)):
                y[i, start + j] = source[j]
