"""Cost of particles, through the public API, beside NumPy, PyTorch and JAX.

    python experiments/benchmarks/w5_particles.py [--cases independent,training]

`independent`: a batch carried through all layers of x + h tanh(W_k x + b_k). `training`: gradient steps of one hidden
layer of N neurons in its mean-field scaling on n data in the plane. Peers that are not installed stay away. One thread
on one core, CPU seconds, interleaved; the time of `meanfield.integrate` is that of the whole call, its checks and the
saved end included.
"""

from __future__ import annotations

from functools import partial

from meanfield.benchmarking import compare, one_core, peer, run_cases

one_core()

import numpy as np  # noqa: E402

from meanfield import ResidualNetwork, Velocity, integrate  # noqa: E402
from meanfield.losses import Squared  # noqa: E402
from meanfield.models.neurons import MeanFieldNeurons  # noqa: E402

torch, jax, jnp = peer("torch"), peer("jax"), peer("jax.numpy")

RNG = np.random.default_rng(2)


def numpy_layers(x, w, b, h):
    """All layers, in expressions."""
    x = x.copy()
    for k in range(len(b)):
        x += h * np.tanh(w[k] @ x + b[k][:, None])
    return x


def numpy_layers_in_place(x, w, b, h):
    """All layers, in two arrays."""
    x = x.copy()
    z = np.empty_like(x)
    for k in range(len(b)):
        if len(x) == 1:
            np.multiply(x, w[k, 0, 0], out=z)
        else:
            np.dot(w[k], x, out=z)
        z += b[k][:, None]
        np.tanh(z, out=z)
        z *= h
        x += z
    return x


def torch_layers(x, w, b, h):
    """All layers, in place."""
    x, columns = x.clone(), b[:, :, None]
    for k in range(len(b)):
        z = torch.addmm(columns[k], w[k], x) if len(x) > 1 else torch.add(columns[k], x, alpha=float(w[k, 0, 0]))
        x.add_(z.tanh_(), alpha=h)
    return x


def jax_layers(x, w, b, h):
    """All layers, as a scan."""

    def layer(x, parameters):
        w, b = parameters
        z = (w @ x if x.shape[0] > 1 else w[0, 0] * x) + b[:, None]
        return x + h * jnp.tanh(z), None

    return jax.lax.scan(layer, x, (w, b))[0]


def jax_layers_by_components(x, w, b, h):
    """All layers in the plane, each component an expression, which XLA can fuse."""

    def layer(x, parameters):
        w, b = parameters
        first = x[0] + h * jnp.tanh(w[0, 0] * x[0] + w[0, 1] * x[1] + b[0])
        return (first, x[1] + h * jnp.tanh(w[1, 0] * x[0] + w[1, 1] * x[1] + b[1])), None

    return jnp.stack(jax.lax.scan(layer, (x[0], x[1]), (w, b))[0])


def compiled(function, *given, static=()):
    """Return a contestant: a function compiled by JAX, on the arguments given, which waits for its end."""
    run = jax.jit(function, static_argnums=static)
    given = [jnp.asarray(v) if isinstance(v, np.ndarray) else v for v in given]
    return lambda: np.asarray(run(*given).block_until_ready())


def independent() -> None:
    """W5a: particles that do not see each other, other parameters in every layer."""
    for d, n, layers in ((1, 1_000_000, 50), (2, 1_000_000, 25), (1, 4096, 1000)):
        x, w, b = RNG.standard_normal((d, n)), RNG.standard_normal((layers, d, d)), RNG.standard_normal((layers, d))
        b *= 0.1
        h, model = 1 / layers, ResidualNetwork(Velocity.from_layers("tanh", "outside", (0, 1), w, b), n)
        contestants = {
            "numpy": partial(numpy_layers, x, w, b, h),
            "numpy in place": partial(numpy_layers_in_place, x, w, b, h),
            "meanfield": lambda m=model, x=x, k=layers: (
                integrate(m, x, (0, 1), scheme="euler", n_steps=k, save_at=()).final
            ),
        }
        if torch:
            given = [torch.from_numpy(v) for v in (x, w, b)]
            contestants["torch in place"] = lambda given=given, h=h: torch_layers(*given, h).numpy()
        if jax:
            contestants["jax"] = compiled(jax_layers, x, w, b, h)
            if d == 2:
                contestants["jax by components"] = compiled(jax_layers_by_components, x, w, b, h)
        compare(f"particles, d = {d}, n = {n}, {layers} layers", contestants, n * layers, "particle step")


def numpy_training(theta, x, y, lr, steps):
    """Gradient steps of theta = (a, w_1, w_2, b), (4, N), in expressions."""
    theta = theta.copy()
    for _ in range(steps):
        s = np.tanh(np.outer(theta[1], x[0]) + np.outer(theta[2], x[1]) + theta[3][:, None])
        r = (theta[0] @ s / theta.shape[1] - y) * (2.0 * lr / len(y))
        outer, slope = s @ r, (1 - s * s) * r
        theta[1:] -= theta[0] * np.stack([slope @ x[0], slope @ x[1], slope.sum(1)])
        theta[0] -= outer
    return theta


def numpy_training_in_place(theta, x, y, lr, steps):
    """Gradient steps by products of matrices, in place; x (3, n) ends with a row of ones."""
    a, w = theta[0].copy(), np.ascontiguousarray(theta[1:].T)
    s = np.empty((len(a), len(y)))
    for _ in range(steps):
        np.dot(w, x, out=s)
        np.tanh(s, out=s)
        r = (a @ s / len(a) - y) * (2.0 * lr / len(y))
        outer = s @ r
        np.multiply(s, s, out=s)
        np.subtract(1, s, out=s)
        w -= a[:, None] * (s @ (r[:, None] * x.T))
        a -= outer
    return np.vstack([a[None], w.T])


def torch_training(theta, x, y, lr, steps):
    """Gradient steps by products of matrices, in place."""
    a, w = theta[0].clone(), theta[1:].T.contiguous()
    s = torch.empty(len(a), len(y), dtype=theta.dtype)
    for _ in range(steps):
        torch.mm(w, x, out=s)
        s.tanh_()
        r = (a @ s / len(a) - y) * (2.0 * lr / len(y))
        outer = s @ r
        s.mul_(s).neg_().add_(1)
        w -= a[:, None] * (s @ (r[:, None] * x.T))
        a -= outer
    return torch.vstack([a[None], w.T])


def jax_training(theta, x, y, lr, steps):
    """Gradient steps by products of matrices, as a scan."""

    def step(state, _):
        a, w = state
        s = jnp.tanh(w @ x)
        r = (a @ s / len(a) - y) * (2.0 * lr / len(y))
        return (a - s @ r, w - a[:, None] * ((1 - s * s) @ (r[:, None] * x.T))), None

    a, w = jax.lax.scan(step, (theta[0], theta[1:].T), None, length=steps)[0]
    return jnp.vstack([a[None], w.T])


def training() -> None:
    """W5b: squared distance |f - y|^2 / n of the peers, half of it here, so that a step here is 2 lr long."""
    lr = 0.1
    for width, n, steps in ((1000, 100, 200), (10_000, 100, 20), (10_000, 1000, 5), (100_000, 1000, 1)):
        theta, x = RNG.standard_normal((4, width)), RNG.standard_normal((2, n))
        y, x1 = np.sin(x[0]) * x[1], np.vstack([x, np.ones((1, n))])
        model = MeanFieldNeurons(x, Squared(y), width)
        contestants = {
            "numpy": partial(numpy_training, theta, x, y, lr, steps),
            "numpy in place": partial(numpy_training_in_place, theta, x1, y, lr, steps),
            "meanfield": lambda m=model, z=theta, k=steps: (
                integrate(m, z, (0, 2 * lr * k), scheme="euler", n_steps=k, save_at=()).final
            ),
        }
        if torch:
            given = [torch.from_numpy(v) for v in (theta, x1, y)]
            contestants["torch in place"] = lambda given=given, k=steps: torch_training(*given, lr, k).numpy()
        if jax:
            contestants["jax"] = compiled(jax_training, theta, x1, y, lr, steps, static=4)
        compare(f"training, N = {width}, n = {n}, {steps} steps", contestants, width * n * steps, "pair")


CASES = {"independent": independent, "training": training}

if __name__ == "__main__":
    run_cases(__doc__, CASES)
