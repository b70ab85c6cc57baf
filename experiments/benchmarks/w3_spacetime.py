"""Cost of a step of a space-time network, through the public API, beside NumPy, PyTorch and JAX.

    python experiments/benchmarks/w3_spacetime.py [--cases dense1,dense64,fly,separable,fft,hierarchical,cost]

One thread pinned to one core, CPU seconds, the contestants interleaved, medians; every
contestant is checked against NumPy first. The peers (torch, jax) are optional: those
that are installed take part. The time measured is that of `meanfield.integrate`: loop,
guards and saving of the two ends included. `hierarchical` and `cost` print the cost per
step against N.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from meanfield.benchmarking import compare, cpu_seconds, one_core, peer, run_cases

one_core()

import numpy as np  # noqa: E402

from meanfield import (  # noqa: E402
    Controls,
    Convolution,
    Dense,
    Grid,
    Hierarchical,
    OnTheFly,
    OperatorPath,
    RadialKernel,
    Separable,
    SpaceTimeNetwork,
    integrate,
)

torch, jax, jnp = peer("torch"), peer("jax"), peer("jax.numpy")

RNG = np.random.default_rng(4)


def dense_one() -> None:
    """W3: dense static kernel, one sample."""
    for n in (256, 1024, 4096, 16384):
        steps = max(2, min(200, int(2e8 / n**2)))
        w, z, b, h = RNG.standard_normal((n, n)), RNG.standard_normal(n), RNG.standard_normal(n), 1 / steps
        grid = Grid.circle(n)
        exact = SpaceTimeNetwork(Dense(grid, w), "tanh", b)
        single = SpaceTimeNetwork(Dense(grid, w, storage="float32"), "tanh", b)

        def f_np(
            w: np.ndarray = w, z: np.ndarray = z, b: np.ndarray = b, n: int = n, h: float = h, steps: int = steps
        ) -> np.ndarray:
            x = z.copy()
            for _ in range(steps):
                x += h * np.tanh(w @ x / n + b)
            return x

        contestants = {
            "numpy": f_np,
            "meanfield": lambda m=exact, z=z, s=steps: integrate(m, z, (0, 1), scheme="euler", n_steps=s).final,
            "meanfield float32 storage": lambda m=single, z=z, s=steps: (
                integrate(m, z, (0, 1), scheme="euler", n_steps=s).final
            ),
        }
        if torch:
            tw, tz, tb = map(torch.from_numpy, (w, z, b))

            def f_th(tw=tw, tz=tz, tb=tb, n: int = n, h: float = h, steps: int = steps) -> np.ndarray:
                x = tz.clone()
                for _ in range(steps):
                    x.add_(torch.tanh(torch.addmv(tb, tw, x, alpha=1 / n)), alpha=h)
                return x.numpy()

            contestants["torch"] = f_th
        if jax:
            jw, jz, jb = map(jnp.asarray, (w, z, b))
            run = jax.jit(
                lambda w, z, b, h, s=steps: jax.lax.scan(
                    lambda z, _: (z + h * jnp.tanh(w @ z / z.shape[0] + b), None), z, None, length=s
                )[0]
            )
            contestants["jax"] = lambda run=run, jw=jw, jz=jz, jb=jb, h=h: np.asarray(
                run(jw, jz, jb, h).block_until_ready()
            )
        compare(f"dense, 1 sample, N = {n}", contestants, steps, "step")


def dense_batch() -> None:
    """W3: dense static kernel, 64 samples."""
    for n in (256, 1024, 4096):
        m, steps = 64, max(2, min(100, int(6e7 / n**2)))
        w, z, b, h = RNG.standard_normal((n, n)), RNG.standard_normal((n, m)), RNG.standard_normal(n), 1 / steps
        model = SpaceTimeNetwork(Dense(Grid.circle(n), w), "tanh", b, n_samples=m)
        rows = np.ascontiguousarray(z.T)

        def f_np(
            w: np.ndarray = w, z: np.ndarray = z, b: np.ndarray = b, n: int = n, h: float = h, steps: int = steps
        ) -> np.ndarray:
            x = z.copy()
            for _ in range(steps):
                x += h * np.tanh(w @ x / n + b[:, None])
            return x

        contestants = {
            "numpy": f_np,
            "meanfield": lambda m=model, z=rows, s=steps: integrate(m, z, (0, 1), scheme="euler", n_steps=s).final.T,
        }
        if torch:
            tw, tz, tb = map(torch.from_numpy, (w, z, b))

            def f_th(tw=tw, tz=tz, tb=tb, n: int = n, h: float = h, steps: int = steps) -> np.ndarray:
                x = tz.clone()
                for _ in range(steps):
                    x.add_(torch.tanh(torch.addmm(tb[:, None], tw, x, alpha=1 / n)), alpha=h)
                return x.numpy()

            contestants["torch"] = f_th
        if jax:
            jw, jz, jb = map(jnp.asarray, (w, z, b))
            run = jax.jit(
                lambda w, z, b, h, s=steps: jax.lax.scan(
                    lambda z, _: (z + h * jnp.tanh(w @ z / z.shape[0] + b[:, None]), None), z, None, length=s
                )[0]
            )
            contestants["jax"] = lambda run=run, jw=jw, jz=jz, jb=jb, h=h: np.asarray(
                run(jw, jz, jb, h).block_until_ready()
            )
        compare(f"dense, 64 samples, N = {n}", contestants, steps, "step")


def gaussian_path(n: int, widths: np.ndarray, heights: np.ndarray, evaluation: str) -> OperatorPath:
    """Kernel a_t exp(-alpha_t (x - y)^2), another one in every layer."""
    grid = Grid.interval(n)
    kernels = [
        RadialKernel("gaussian", length=alpha**-0.5, amplitude=a) for alpha, a in zip(widths, heights, strict=True)
    ]
    knots = np.arange(len(kernels) + 1) / len(kernels)
    return OperatorPath(knots, [OnTheFly(grid, kernel, evaluation=evaluation) for kernel in kernels])


def scan_of(product: Callable[..., object]) -> Callable[..., object]:
    """JAX loop over layers of widths and heights for a product(x, z, width)."""

    def run(x, z, b, al, am, h):
        def step(z, p):
            return z + h * jnp.tanh(p[1] * product(x, z, p[0]) / z.shape[0] + b), None

        return jax.lax.scan(step, z, (al, am))[0]

    return jax.jit(run)


def on_the_fly() -> None:
    """W3: a Gaussian kernel that changes at every layer, evaluated in the loop."""
    for n in (256, 1024, 4096):
        steps = max(2, min(100, int(5e7 / n**2)))
        al, am = 20 + 30 * np.linspace(0, 1, steps), 1 + np.linspace(0, 1, steps)
        z, b, h, x = RNG.standard_normal(n), RNG.standard_normal(n), 1 / steps, (np.arange(n) + 0.5) / n
        double, single = (
            SpaceTimeNetwork(gaussian_path(n, al, am, evaluation), "tanh", b) for evaluation in ("float64", "float32")
        )

        def f_np(x=x, al=al, am=am, z=z, b=b, n: int = n, h: float = h, steps: int = steps) -> np.ndarray:
            y, squares = z.copy(), -((x[:, None] - x) ** 2)
            k = np.empty_like(squares)
            for s in range(steps):
                np.exp(np.multiply(squares, al[s], out=k), out=k)
                y += h * np.tanh(am[s] * (k @ y) / n + b)
            return y

        contestants = {
            "numpy": f_np,
            "meanfield": lambda m=double, z=z, s=steps: integrate(m, z, (0, 1), scheme="euler", n_steps=s).final,
            "meanfield float32 kernel": lambda m=single, z=z, s=steps: (
                integrate(m, z, (0, 1), scheme="euler", n_steps=s).final
            ),
        }
        if torch:
            tz, tb, tx = map(torch.from_numpy, (z, b, x))

            def f_th(tx=tx, tz=tz, tb=tb, al=al, am=am, n: int = n, h: float = h, steps: int = steps) -> np.ndarray:
                y, squares = tz.clone(), -((tx[:, None] - tx) ** 2)
                k = torch.empty_like(squares)
                for s in range(steps):
                    torch.mul(squares, al[s], out=k)
                    y.add_(torch.tanh(torch.addmv(tb, k.exp_(), y, alpha=am[s] / n)), alpha=h)
                return y.numpy()

            contestants["torch"] = f_th
        if jax:
            ja = [jnp.asarray(v) for v in (x, z, b, al, am)]

            stored = scan_of(lambda x, z, a: jnp.exp(-a * (x[:, None] - x) ** 2) @ z)
            reduced = scan_of(lambda x, z, a: jnp.sum(jnp.exp(-a * (x[:, None] - x) ** 2) * z, axis=1))
            for name, run in {"jax matrix": stored, "jax reduction": reduced}.items():
                contestants[name] = lambda run=run, ja=ja, h=h: np.asarray(run(*ja, h).block_until_ready())
        compare(f"on the fly, N = {n}", contestants, steps, "step")


def separable() -> None:
    """W3: separable kernel of rank 8 whose amplitudes change at every layer."""
    for n in (256, 1024, 4096, 16384, 65536):
        r, steps = 8, 200
        u, v, am = RNG.standard_normal((r, n)), RNG.standard_normal((r, n)), RNG.standard_normal((steps, r))
        z, b, h = RNG.standard_normal(n), RNG.standard_normal(n), 1 / steps
        amplitude = Controls(np.arange(steps + 1) / steps, am)
        model = SpaceTimeNetwork(Separable(Grid.circle(n), u, v), "tanh", b, amplitude=amplitude)

        def f_np(u=u, v=v, am=am, z=z, b=b, n: int = n, h: float = h, steps: int = steps) -> np.ndarray:
            x = z.copy()
            for s in range(steps):
                x += h * np.tanh((am[s] * (v @ x)) @ u / n + b)
            return x

        contestants = {
            "numpy": f_np,
            "meanfield": lambda m=model, z=z, s=steps: integrate(m, z, (0, 1), scheme="euler", n_steps=s).final,
        }
        if torch:
            tu, tv, tam, tz, tb = map(torch.from_numpy, (u, v, am, z, b))

            def f_th(tu=tu, tv=tv, tam=tam, tz=tz, tb=tb, n: int = n, h: float = h, steps: int = steps) -> np.ndarray:
                x = tz.clone()
                for s in range(steps):
                    x.add_(torch.tanh((tam[s] * (tv @ x)) @ tu / n + tb), alpha=h)
                return x.numpy()

            contestants["torch"] = f_th
        if jax:
            ja = [jnp.asarray(v) for v in (z, b, u, v, am)]
            run = jax.jit(
                lambda z, b, U, V, am, h: jax.lax.scan(
                    lambda z, a: (z + h * jnp.tanh((a * (V @ z)) @ U / z.shape[0] + b), None), z, am
                )[0]
            )
            contestants["jax"] = lambda run=run, ja=ja, h=h: np.asarray(run(*ja, h).block_until_ready())
        compare(f"separable, rank 8, N = {n}", contestants, steps, "step")


def fft() -> None:
    """W3: convolution on the circle, the amplitude changing at every layer."""
    for n in (256, 1024, 4096, 16384, 65536):
        steps = 200
        x = np.arange(n) / n
        kernel = np.exp(-50 * np.minimum(x, 1 - x) ** 2)
        kh, am = np.fft.rfft(kernel), 1 + np.linspace(0, 1, steps)
        z, b, h = RNG.standard_normal(n), RNG.standard_normal(n), 1 / steps
        model = SpaceTimeNetwork(
            Convolution(Grid.circle(n), kernel), "tanh", b, amplitude=Controls(np.arange(steps + 1) / steps, am)
        )

        def f_np(kh=kh, am=am, z=z, b=b, n: int = n, h: float = h, steps: int = steps) -> np.ndarray:
            x = z.copy()
            for s in range(steps):
                x += h * np.tanh(am[s] * np.fft.irfft(kh * np.fft.rfft(x), n=n) / n + b)
            return x

        contestants = {
            "numpy": f_np,
            "meanfield": lambda m=model, z=z, s=steps: integrate(m, z, (0, 1), scheme="euler", n_steps=s).final,
        }
        if torch:
            tz, tb, tkh = map(torch.from_numpy, (z, b, kh))

            def f_th(tz=tz, tb=tb, tkh=tkh, am=am, n: int = n, h: float = h, steps: int = steps) -> np.ndarray:
                x = tz.clone()
                for s in range(steps):
                    x.add_(torch.tanh(torch.fft.irfft(tkh * torch.fft.rfft(x), n=n) * (am[s] / n) + tb), alpha=h)
                return x.numpy()

            contestants["torch"] = f_th
        if jax:
            ja = [jnp.asarray(v) for v in (z, b, kh, am)]
            run = jax.jit(
                lambda z, b, kh, am, h: jax.lax.scan(
                    lambda z, a: (
                        z + h * jnp.tanh(a * jnp.fft.irfft(kh * jnp.fft.rfft(z), n=z.shape[0]) / z.shape[0] + b),
                        None,
                    ),
                    z,
                    am,
                )[0]
            )
            contestants["jax"] = lambda run=run, ja=ja, h=h: np.asarray(run(*ja, h).block_until_ready())
        compare(f"convolution, N = {n}", contestants, steps, "step")


def hierarchical() -> None:
    """Cost of a product with compressed kernels against N; build and product in CPU seconds, error at random rows."""
    line = {
        "|x - y|": RadialKernel("distance"),
        "log(|x - y| + 1e-3)": RadialKernel("logarithm"),
        "exp(-|a(x) - a(y)|)": RadialKernel("exponential", features=lambda x: np.sin(5 * x) + 0.3 * x),
    }
    sizes = [(name, kernel, [Grid.interval(2**k) for k in (13, 15, 17)]) for name, kernel in line.items()]
    square = [Grid.square(m) for m in (64, 128, 256)]
    sizes.append(("|x - y|, square", RadialKernel("distance", dim=2), square))
    for name, kernel, grids in sizes:
        print(f"-- {name}")
        for grid in grids:
            start = time.process_time()
            operator = Hierarchical(grid, kernel)
            build = time.process_time() - start
            z, n = RNG.standard_normal(grid.n_nodes), grid.n_nodes
            rows = RNG.choice(n, 64, replace=False)
            exact = kernel(grid.nodes[rows, None], grid.nodes[None]) @ (z * grid.weights)
            found = operator.apply(z)[rows]
            gap = np.linalg.norm(found - exact) / np.linalg.norm(exact)
            model = SpaceTimeNetwork(operator, "tanh")
            step = cpu_seconds(lambda: integrate(model, z, (0, 1), scheme="euler", n_steps=10)) / 10  # noqa: B023
            per = operator.nbytes / (n * np.log2(n) ** 2)
            print(
                f"   N = {n:7d} build {build:6.2f} s  step {step * 1e3:8.3f} ms  {operator.nbytes / 2**20:7.1f} MiB "
                f"({per:5.2f} B per N log2(N)^2)  error {operator.error:.1e}, of W z {gap:.1e}",
                flush=True,
            )


def cost() -> None:
    """Cost per Euler step against N, in microseconds, with the growth between lines."""
    print(f"{'N':>7s} {'dense':>12s} {'convolution':>12s} {'separable 8':>12s}   us/step")
    for n in (256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536):
        grid, z = Grid.circle(n), RNG.standard_normal(n)
        row = []
        for make in (
            lambda: Dense(grid, RNG.standard_normal((n, n))) if n <= 16384 else None,  # noqa: B023
            lambda: Convolution(grid, RNG.standard_normal(n)),  # noqa: B023
            lambda: Separable(grid, RNG.standard_normal((8, n)), RNG.standard_normal((8, n))),  # noqa: B023
        ):
            operator = make()
            if operator is None:
                row.append(float("nan"))
                continue
            steps = 20 if isinstance(operator, Dense) and n > 2048 else 400
            model = SpaceTimeNetwork(operator, "tanh")
            integrate(model, z, (0, 1), scheme="euler", n_steps=2)
            runs = [cpu_seconds(lambda: integrate(model, z, (0, 1), scheme="euler", n_steps=steps)) for _ in range(5)]  # noqa: B023
            row.append(statistics.median(runs) / steps * 1e6)
        print(f"{n:7d} " + " ".join(f"{v:12.2f}" for v in row), flush=True)


CASES = {
    "dense1": dense_one,
    "dense64": dense_batch,
    "fly": on_the_fly,
    "separable": separable,
    "fft": fft,
    "hierarchical": hierarchical,
    "cost": cost,
}

if __name__ == "__main__":
    run_cases(__doc__, CASES)
