"""Cost of Wasserstein distances, through the public API, beside NumPy, PyTorch, JAX, SciPy and POT.

    python experiments/benchmarks/w6_wasserstein.py [--cases line,plane]

W_2 of as many particles as particles: on the line by sorting, in the plane sliced, along the same directions for all.
Peers that are not installed stay away. One thread on one core, CPU seconds, interleaved.
"""

from __future__ import annotations

from meanfield.benchmarking import compare, one_core, peer, run_cases

one_core()

import numpy as np  # noqa: E402

from meanfield.diagnostics.wasserstein import particle_distance, sliced_wasserstein  # noqa: E402

torch, jax, jnp = peer("torch"), peer("jax"), peer("jax.numpy")
stats = peer("scipy.stats")
ot = peer("ot")

RNG = np.random.default_rng(6)


def numpy_distance(x, y):
    """W_2 on the line, or the mean over rows."""
    return np.sqrt(np.mean((np.sort(x) - np.sort(y)) ** 2))


def torch_distance(x, y):
    """W_2 on the line, or the mean over rows."""
    return ((torch.sort(x)[0] - torch.sort(y)[0]) ** 2).mean().sqrt()


def torch_sliced(x, y, e):
    """Sliced distance along the columns of e."""
    return torch_distance(e.T @ x.T, e.T @ y.T)


def jax_distance(x, y):
    """W_2 on the line, or the mean over columns."""
    return jnp.sqrt(jnp.mean((jnp.sort(x, 0) - jnp.sort(y, 0)) ** 2))


def jax_sliced(x, y, e):
    """Sliced distance along the columns of e."""
    return jax_distance(x @ e, y @ e)


def line() -> None:
    """W6 on the line; SciPy takes W_1, which is not compared."""
    for n in (10_000, 1_000_000):
        x, y = RNG.standard_normal(n), RNG.standard_normal(n) * 1.3 + 0.2
        contestants = {
            "numpy": lambda x=x, y=y: numpy_distance(x, y),
            "meanfield": lambda x=x, y=y: particle_distance(x, y, p=2),
        }
        if torch:
            given = torch.from_numpy(x), torch.from_numpy(y)
            contestants["torch"] = lambda given=given: torch_distance(*given).item()
        if jax:
            run, given = jax.jit(jax_distance), (jnp.asarray(x), jnp.asarray(y))
            contestants["jax"] = lambda run=run, given=given: float(run(*given))
        if stats:
            contestants["scipy, p = 1"] = lambda x=x, y=y: stats.wasserstein_distance(x, y) and None
        if ot:
            contestants["POT wasserstein_1d"] = lambda x=x, y=y: float(ot.wasserstein_1d(x, y, p=2)) ** 0.5
            contestants["POT emd2_1d"] = lambda x=x, y=y: float(ot.emd2_1d(x, y)) ** 0.5
        compare(f"line, {n} particles", contestants, 2 * n, "particle")


def plane() -> None:
    """W6 in the plane, sliced."""
    for n, directions in ((10_000, 64), (100_000, 16)):
        x, y = RNG.standard_normal((n, 2)), RNG.standard_normal((n, 2)) * 1.2 + 0.3
        angles = (np.arange(directions) + 0.5) * np.pi / directions
        e, columns = np.stack([np.cos(angles), np.sin(angles)]), [np.ascontiguousarray(v.T) for v in (x, y)]
        contestants = {
            "numpy": lambda e=e, c=columns: numpy_distance(e.T @ c[0], e.T @ c[1]),
            "meanfield": lambda x=x, y=y, k=directions: sliced_wasserstein(x, y, directions=k),
        }
        if torch:
            given = [torch.from_numpy(v) for v in (x, y, e)]
            contestants["torch"] = lambda given=given: torch_sliced(*given).item()
        if jax:
            run, given = jax.jit(jax_sliced), [jnp.asarray(v) for v in (x, y, e)]
            contestants["jax"] = lambda run=run, given=given: float(run(*given))
        if ot:
            contestants["POT"] = lambda x=x, y=y, e=e: float(ot.sliced_wasserstein_distance(x, y, projections=e))
        compare(f"plane, {n} particles, {directions} directions", contestants, 2 * n * directions, "particle")


CASES = {"line": line, "plane": plane}

if __name__ == "__main__":
    run_cases(__doc__, CASES)
