"""Cost of gradients of residual networks, through the public API, beside NumPy, PyTorch, JAX, diffrax and torchdiffeq.

    python experiments/benchmarks/w2_gradients.py [--cases plane,wide32,wide256]

The gradient of sum_j |x_j(1) - y_j|^2 / 2n in the parameters of all layers x + h V_k tanh(W_k x + b_k): by formulas
in NumPy, by reverse-mode differentiation in the peers, by `meanfield.learning.adjoint` here, which gives the gradients
in the outer bias and in the initial state as well. The backward integrations of diffrax and torchdiffeq give
another gradient, off by the error of a step. Peers that are not installed stay away. One thread on one core, CPU
seconds, interleaved; the time of `adjoint` is that of the whole call.
"""

from __future__ import annotations

from functools import partial

from meanfield.benchmarking import compare, one_core, peer, run_cases

one_core()

import numpy as np  # noqa: E402

from meanfield import ResidualNetwork, Velocity  # noqa: E402
from meanfield.learning.adjoint import adjoint  # noqa: E402

torch, torchdiffeq = peer("torch"), peer("torchdiffeq")
jax, jnp, diffrax = peer("jax"), peer("jax.numpy"), peer("diffrax")

RNG = np.random.default_rng(5)


class Gradients:
    """Gradients in W, b and V of all layers, one array of them only for who compares."""

    def __init__(self, *parts):
        self.parts = parts

    def __array__(self, dtype=None, copy=None):
        """All entries in a row."""
        stacks = [np.stack([np.asarray(q) for q in p]) if isinstance(p, list) else np.asarray(p) for p in self.parts]
        return np.concatenate([s.ravel() for s in stacks])


def numpy_gradient(x, y, w, b, v, h):
    """By formulas, layer after layer."""
    layers, n = len(b), len(x)
    states, hidden = [x], []
    for k in range(layers):
        hidden.append(np.tanh(states[-1] @ w[k].T + b[k]))
        states.append(states[-1] + h * (hidden[-1] @ v[k].T))
    g, gw, gb, gv = (states[-1] - y) / n, np.empty_like(w), np.empty_like(b), np.empty_like(v)
    for k in range(layers - 1, -1, -1):
        gv[k] = h * (g.T @ hidden[k])
        delta = h * (g @ v[k]) * (1 - hidden[k] * hidden[k])
        gw[k], gb[k] = delta.T @ states[k], delta.sum(0)
        g = g + delta @ w[k]
    return Gradients(gw, gb, gv)


def torch_leaves(x, y, layers, h):
    """A leaf for each parameter of each layer."""
    start = x
    with torch.enable_grad():
        for w, b, v in layers:
            x = torch.addmm(x, torch.tanh(torch.addmm(b, x, w.T)), v.T, alpha=h)
        cost = 0.5 * ((x - y) ** 2).sum() / len(start)
        found = torch.autograd.grad(cost, [q for layer in layers for q in layer])
    return Gradients(*(list(found[i::3]) for i in range(3)))


def torch_stacked(x, y, leaves, h):
    """A leaf for each parameter."""
    for q in leaves:
        q.grad = None
    start = x
    with torch.enable_grad():
        for w, b, v in zip(*leaves, strict=True):
            x = torch.addmm(x, torch.tanh(torch.addmm(b, x, w.T)), v.T, alpha=h)
        (0.5 * ((x - y) ** 2).sum() / len(start)).backward()
    return Gradients(*(q.grad for q in leaves))


def jax_cost(parameters, x, y, h):
    """Cost of a scan over layers."""
    end = jax.lax.scan(lambda x, q: (x + h * jnp.tanh(x @ q[0].T + q[1]) @ q[2].T, None), x, parameters)[0]
    return 0.5 * ((end - y) ** 2).sum() / len(x)


def diffrax_cost(parameters, x, y, h, rule):
    """Cost of Euler steps of a neural ODE."""
    layers = len(parameters[1])

    def velocity(t, y, q):
        k = jnp.clip((t / h + 1e-6).astype(jnp.int32), 0, layers - 1)
        return jnp.tanh(y @ q[0][k].T + q[1][k]) @ q[2][k].T

    end = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity), diffrax.Euler(), 0.0, layers * h, h, x, args=parameters, max_steps=layers + 4,
        stepsize_controller=diffrax.ConstantStepSize(), adjoint=rule, saveat=diffrax.SaveAt(t1=True),
    ).ys[-1]  # fmt: skip
    return 0.5 * ((end - y) ** 2).sum() / len(x)


def differentiated(cost, parameters, x, y):
    """Return a contestant: the gradient of a cost in JAX, compiled."""
    run = jax.jit(jax.grad(cost))
    given = tuple(map(jnp.asarray, parameters)), jnp.asarray(x), jnp.asarray(y)
    return lambda: Gradients(*jax.block_until_ready(run(*given)))


def torchdiffeq_contestant(x, y, leaves, h):
    """Return a contestant: Euler steps and the adjoint equation of torchdiffeq."""

    class Layers(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.leaves = torch.nn.ParameterList(leaves)

        def forward(self, t, x):
            w, b, v = self.leaves
            k = min(int(float(t.detach()) / h + 1e-6), len(b) - 1)
            return torch.tanh(torch.addmm(b[k], x, w[k].T)) @ v[k].T

    layers, span = Layers(), torch.tensor([0.0, 1.0], dtype=torch.float64)

    def run():
        layers.zero_grad()
        with torch.enable_grad():
            end = torchdiffeq.odeint_adjoint(layers, x, span, method="euler", options={"step_size": h})[-1]
            (0.5 * ((end - y) ** 2).sum() / len(x)).backward()

    return run


def meanfield_gradient(model, x, y, layers):
    """By the discrete adjoint."""

    def terminal(z):
        gap = z - y
        return 0.5 / gap.shape[1] * float(np.vdot(gap, gap)), gap / gap.shape[1]

    found = adjoint(model, x, (0, 1), terminal=terminal, scheme="euler", n_steps=layers).parameters
    return Gradients(found["w"], found["b"], found["v"])


def race(d: int, m: int, n: int, layers: int) -> None:
    """One size: n samples in R^d through layers of m neurons."""
    h, x, y = 1 / layers, RNG.standard_normal((n, d)), RNG.standard_normal((n, d))
    w, b = RNG.standard_normal((layers, m, d)) / np.sqrt(d), 0.1 * RNG.standard_normal((layers, m))
    v = RNG.standard_normal((layers, d, m)) / np.sqrt(m)
    model = ResidualNetwork(Velocity.from_layers("tanh", "two_layer", (0, 1), v, w, b), n)
    columns = np.ascontiguousarray(x.T), np.ascontiguousarray(y.T)
    contestants = {
        "numpy": partial(numpy_gradient, x, y, w, b, v, h),
        "meanfield": partial(meanfield_gradient, model, *columns, layers),
    }
    small = d == 2 and m == 16 and n == 1000
    if torch:
        tx, ty = torch.from_numpy(x), torch.from_numpy(y)
        by_layer = [tuple(torch.from_numpy(q[k].copy()).requires_grad_() for q in (w, b, v)) for k in range(layers)]
        leaves = [torch.nn.Parameter(torch.from_numpy(q.copy())) for q in (w, b, v)]
        contestants["torch, leaves by layer"] = partial(torch_leaves, tx, ty, by_layer, h)
        if w.size < 300_000:
            contestants["torch, stacked leaves"] = partial(torch_stacked, tx, ty, leaves, h)
        if small and torchdiffeq:
            contestants["torchdiffeq adjoint"] = torchdiffeq_contestant(tx, ty, leaves, h)
    if jax:
        contestants["jax"] = differentiated(partial(jax_cost, h=h), (w, b, v), x, y)
    if diffrax:
        rules = {"recursive checkpoints": diffrax.RecursiveCheckpointAdjoint()}
        if small:
            rules["backsolve"] = diffrax.BacksolveAdjoint()
        for name, rule in rules.items():
            cost = partial(diffrax_cost, h=h, rule=rule)
            contestants[f"diffrax, {name}"] = differentiated(cost, (w, b, v), x, y)
    compare(f"gradient, d = {d}, m = {m}, n = {n}, {layers} layers", contestants, layers * n * m, "neuron sample")


def plane() -> None:
    """W2 in the plane."""
    for m, n, layers in ((16, 1000, 100), (16, 100_000, 20), (128, 1000, 50)):
        race(2, m, n, layers)


CASES = {"plane": plane, "wide32": partial(race, 32, 128, 1000, 50), "wide256": partial(race, 256, 1024, 1000, 5)}

if __name__ == "__main__":
    run_cases(__doc__, CASES)
