"""Cost of evaluating ReLU networks that follow a flow, through the public API, beside PyTorch running their layers.

    python experiments/benchmarks/w7_relu.py [--cases line,plane]

64 blocks: on the line x' = (1 + t/2) sin x on 96 cells across [-3, 3], in the plane Stuart-Landau on 16 x 16 cells. As
fields change with time, no two blocks are one. PyTorch runs the exported module, dense, in double precision, in chunks
that suit its caches; NumPy the sparse layers. PyTorch stays away where it is not installed. One thread on one core, CPU
seconds, interleaved. Fast evaluation alone is then timed for a million points.
"""

from __future__ import annotations

from meanfield.benchmarking import compare, cpu_seconds, one_core, peer, run_cases

one_core()

import numpy as np  # noqa: E402

from meanfield.constructions.relu_flow import relu_flow  # noqa: E402
from meanfield.relu_files import torch_module  # noqa: E402

torch = peer("torch")

RNG = np.random.default_rng(7)
BLOCKS = 64


def pendulum(t, x):
    """x' = (1 + t/2) sin x."""
    return (1.0 + 0.5 * t) * np.sin(x)


def stuart_landau(t, x):
    """x' = (1 + t/2) x (1 - |x|^2) + turned x."""
    return (1.0 + 0.5 * t) * x * (1.0 - (x**2).sum(axis=0)) + np.stack([-x[1], x[0]])


def in_chunks(module, points, size):
    """Outputs of a module for points (n, d), as (d, n)."""
    return torch.cat([module(part) for part in points.split(size)]).T.numpy()


def measure(title, field, box, cells, n, chunks):
    """Time one network."""
    network = relu_flow(field, box, 1.0, n_blocks=BLOCKS, cells=cells).network
    layers = network.layers()
    lo, hi = (np.atleast_1d(np.asarray(corner, dtype=np.float64))[:, None] for corner in box)
    x = RNG.uniform(lo, hi, (network.dim, n))
    contestants = {"numpy": lambda: layers.forward(x), "meanfield": lambda: network.forward(x)}
    if torch:
        module, given = torch_module(layers), torch.from_numpy(np.ascontiguousarray(x.T))
        for size in chunks:
            contestants[f"torch, chunks of {size}"] = lambda size=size: in_chunks(module, given, size)
    print(f"{layers.counts()}")
    compare(f"{title}, {n} points, {BLOCKS} blocks", contestants, n * BLOCKS, "point and block", rounds=3)
    many = RNG.uniform(lo, hi, (network.dim, 1_000_000))
    print(f"{title}, 1000000 points: {cpu_seconds(lambda: network.forward(many)):.3f} s\n")


def line() -> None:
    """W7 on the line."""
    measure("line, 96 cells", pendulum, (-3.0, 3.0), 96, 20_000, (256, 2000, 20_000))


def plane() -> None:
    """W7 in the plane."""
    measure("plane, 16 x 16 cells", stuart_landau, ([-1.2] * 2, [1.2] * 2), 16, 2000, (256, 2000))


CASES = {"line": line, "plane": plane}

if __name__ == "__main__":
    run_cases(__doc__, CASES)
