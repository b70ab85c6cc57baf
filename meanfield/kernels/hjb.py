"""Upwind Hamiltonians of problems that are linear in the control and quadratic in its cost, node by node.

    h = min over theta of  sum_d (F_d^+ D_d^+ + F_d^- D_d^-) + q + (lam / 2) |theta|^2,   F = f + g theta

with F^+ = max(F, 0), F^- = min(F, 0) and one-sided differences D^+, D^- of the value, in one or two dimensions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meanfield._jit import ELEMENTARY, njit

Array = NDArray[np.float64]

# A control is looked for along each axis with the forward difference, the backward one, or at rest.
REST = 2
# Below this part of the product of its diagonal, a Gram matrix has rank one to round-off.
_RANK = 1e-13


@njit(fastmath=ELEMENTARY)
def upwind_quadratic(
    lam: float, f: Array, g: Array, q: Array, forward: Array, backward: Array, h: Array, theta: Array, rate: Array
) -> None:
    """Fill h (N,), theta (m, N) and rate F (D, N) from f (D, N), g (D, m, N), q (N,) and differences (D, N).

    The minimiser is theta = g^T mu with mu_d = -D_d^+ / lam, mu_d = -D_d^- / lam, or F_d = 0: of these nine (in
    one dimension three) the best is taken. Each is a control, so none needs to be excluded by its signs.
    """
    dim, m, n = g.shape
    modes = 3 if dim == 2 else 1
    for k in range(n):
        g00 = g01 = g11 = 0.0
        for j in range(m):
            g00 += g[0, j, k] * g[0, j, k]
            if dim == 2:
                g01 += g[0, j, k] * g[1, j, k]
                g11 += g[1, j, k] * g[1, j, k]
        f0, up0, down0 = f[0, k], forward[0, k], backward[0, k]
        f1, up1, down1 = (f[1, k], forward[1, k], backward[1, k]) if dim == 2 else (0.0, 0.0, 0.0)
        # What overflows compares with nothing: the rate then stays undefined, for a guard to see.
        best, best0, best1 = np.inf, 0.0, 0.0
        rate[:, k] = np.nan
        for a in range(3):
            for b in range(modes):
                mu0 = -(up0 if a == 0 else down0) / lam
                mu1 = -(up1 if b == 0 else down1) / lam
                if a == REST and b == REST:
                    det = g00 * g11 - g01 * g01
                    if not det > _RANK * g00 * g11:
                        continue
                    mu0 = (g01 * f1 - g11 * f0) / det
                    mu1 = (g01 * f0 - g00 * f1) / det
                elif a == REST:
                    if g00 == 0.0:
                        continue
                    mu0 = -(f0 + g01 * mu1) / g00
                elif b == REST:
                    if g11 == 0.0:
                        continue
                    mu1 = -(f1 + g01 * mu0) / g11
                r0 = f0 + g00 * mu0 + g01 * mu1
                r1 = f1 + g01 * mu0 + g11 * mu1
                value = r0 * (up0 if r0 > 0.0 else down0) + r1 * (up1 if r1 > 0.0 else down1)
                value += 0.5 * lam * (mu0 * (r0 - f0) + mu1 * (r1 - f1))
                if value < best:
                    best, best0, best1 = value, mu0, mu1
                    rate[0, k] = r0
                    if dim == 2:
                        rate[1, k] = r1
        h[k] = best + q[k]
        for j in range(m):
            theta[j, k] = g[0, j, k] * best0
            if dim == 2:
                theta[j, k] += g[1, j, k] * best1
