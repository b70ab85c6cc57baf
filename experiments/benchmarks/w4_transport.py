"""Cost of the continuity equation per cell and step, through the public API, beside NumPy, PyTorch, JAX and py-pde.

    python experiments/benchmarks/w4_transport.py [--cases line,plane]

MUSCL with minmod and SSPRK2 on fixed cells, the peers with the same scheme written in arrays; py-pde takes
one stage of central differences, so it does less per step. Peers that are not installed stay away. One thread on
one core, CPU seconds, interleaved; the time of `meanfield.integrate` is that of the whole call, its
check of the CFL condition and the saved end included.
"""

from __future__ import annotations

from meanfield.benchmarking import compare, one_core, peer, run_cases

one_core()

import numpy as np  # noqa: E402

from meanfield import Cells, ContinuityEquation, Velocity, integrate  # noqa: E402

torch, jax, jnp = peer("torch"), peer("jax"), peer("jax.numpy")
pde = peer("pde")

RNG = np.random.default_rng(3)
# Steps over widths of a cell, on the line.
LAM = 0.4


def minmod(xp, a, c):
    """Minmod limiter of two slopes."""
    if xp is torch:
        return torch.where(a * c > 0, torch.where(a.abs() < c.abs(), a, c), torch.zeros((), dtype=a.dtype))
    return xp.where(a * c > 0, xp.where(abs(a) < abs(c), a, c), 0.0)


def pad(xp, u, k):
    """Pad with k zeros at both ends."""
    return torch.nn.functional.pad(u, (k, k)) if xp is torch else xp.pad(u, k)


def line_rate(xp, u, vf):
    """Change of u by fluxes at the inner faces, vf times dt / dx."""
    c = pad(xp, u, 2)
    slope = 0.5 * minmod(xp, c[1:-1] - c[:-2], c[2:] - c[1:-1])
    flux = pad(xp, xp.where(vf > 0, vf * (u[:-1] + slope[1:-2]), vf * (u[1:] - slope[2:-1])), 1)
    return -(flux[1:] - flux[:-1])


def line_step(xp, u, vf):
    """One step of SSPRK2."""
    u1 = u + line_rate(xp, u, vf)
    return 0.5 * (u + u1 + line_rate(xp, u1, vf))


def line_run(xp, u, w, b, faces, lam):
    """All layers."""
    for s in range(len(w)):
        u = line_step(xp, u, lam * xp.tanh(float(w[s]) * faces + float(b[s])))
    return u


def line() -> None:
    """W4 on the line: v = tanh(w_k x + b_k), another one in every layer."""
    for n, steps in ((10_000, 500), (1_000_000, 20)):
        cells = Cells.line(-2.0, 2.0, n)
        x, dx, w, b = cells.centres(), 4 / n, RNG.standard_normal(steps), 0.3 * RNG.standard_normal(steps)
        u, faces, span = np.exp(-4 * x * x), cells.faces()[1:-1], (0.0, LAM * dx * steps)
        model = ContinuityEquation(cells, Velocity.from_layers("tanh", "outside", span, w, b))
        contestants = {
            "numpy": lambda u=u, w=w, b=b, f=faces: line_run(np, u, w, b, f, LAM),
            "meanfield": lambda m=model, u=u, s=span, k=steps: (
                integrate(m, u, s, n_steps=k, scheme="ssprk2", save_at=()).final
            ),
        }
        if torch:
            tu, tf = torch.from_numpy(u), torch.from_numpy(faces)
            contestants["torch"] = lambda u=tu, w=w, b=b, f=tf: line_run(torch, u, w, b, f, LAM).numpy()
        if jax:
            run = jax.jit(
                lambda u, w, b, f: jax.lax.scan(
                    lambda u, p: (line_step(jnp, u, LAM * jnp.tanh(p[0] * f + p[1])), None), u, (w, b)
                )[0]
            )
            given = [jnp.asarray(v) for v in (u, w, b, faces)]
            contestants["jax"] = lambda run=run, given=given: np.asarray(run(*given).block_until_ready())
        if pde:
            equation = pde.PDE(
                {"c": "-d_dx(tanh(w0*x+b0)*c)"}, consts={"w0": float(w[0]), "b0": float(b[0])}, bc={"value": 0}
            )
            contestants["py-pde, euler, central"] = pde_stepper(equation, [[-2, 2]], n, u, LAM * dx * 0.1, steps)
        compare(f"line, N = {n}, {steps} steps", contestants, n * steps, "cell step")


def pde_stepper(equation, box, shape, u, dt, steps):
    """Steps of py-pde; its result is another scheme's and is not compared."""
    state = pde.ScalarField(pde.CartesianGrid(box, shape), u)
    try:
        solver = pde.ExplicitSolver(equation, scheme="euler", adaptive=False, backend="numba")
    except TypeError:
        solver = pde.ExplicitSolver(equation, scheme="euler", adaptive=False)
    stepper = solver.make_stepper(state, dt=dt)

    def run() -> None:
        stepper(state, 0.0, steps * dt)

    return run


def plane_rate(xp, u, vx, vy):
    """Change of u by fluxes at the inner faces, vx and vy times dt / dx."""
    c = torch.nn.functional.pad(u, (2, 2, 2, 2)) if xp is torch else xp.pad(u, 2)
    sx = 0.5 * minmod(xp, c[2:-2, 1:-1] - c[2:-2, :-2], c[2:-2, 2:] - c[2:-2, 1:-1])
    sy = 0.5 * minmod(xp, c[1:-1, 2:-2] - c[:-2, 2:-2], c[2:, 2:-2] - c[1:-1, 2:-2])
    fx = xp.where(vx > 0, vx * (u[:, :-1] + sx[:, 1:-2]), vx * (u[:, 1:] - sx[:, 2:-1]))
    fy = xp.where(vy > 0, vy * (u[:-1] + sy[1:-2]), vy * (u[1:] - sy[2:-1]))
    if xp is torch:
        fx, fy = torch.nn.functional.pad(fx, (1, 1)), torch.nn.functional.pad(fy, (0, 0, 1, 1))
    else:
        fx, fy = xp.pad(fx, ((0, 0), (1, 1))), xp.pad(fy, ((1, 1), (0, 0)))
    return -(fx[:, 1:] - fx[:, :-1]) - (fy[1:] - fy[:-1])


def plane_run(xp, u, vx, vy, steps):
    """All steps."""
    for _ in range(steps):
        u1 = u + plane_rate(xp, u, vx, vy)
        u = 0.5 * (u + u1 + plane_rate(xp, u1, vx, vy))
    return u


def plane() -> None:
    """W4 in the plane: v = W tanh(x) + b, constant."""
    for n, steps in ((256, 40), (1024, 10)):
        # Rows of the peers' arrays are x_2 here x_1: the components are named accordingly.
        cells = Cells.box((-2.0, -2.0), (2.0, 2.0), (n, n))
        x, xf, dx, lam = cells.centres(), cells.faces(), 4 / n, 0.05
        u = np.exp(-3 * (x[None, :] ** 2 + (x[:, None] - 0.3) ** 2))
        matrix, b = RNG.standard_normal((2, 2)), 0.2 * RNG.standard_normal(2)
        vx = lam * (matrix[0, 0] * np.tanh(xf[None, 1:-1]) + matrix[0, 1] * np.tanh(x[:, None]) + b[0])
        vy = lam * (matrix[1, 0] * np.tanh(x[None, :]) + matrix[1, 1] * np.tanh(xf[1:-1, None]) + b[1])
        model = ContinuityEquation(cells, Velocity.inside("tanh", matrix[::-1, ::-1], b[::-1]))
        span = (0.0, lam * dx * steps)
        contestants = {
            "numpy": lambda u=u, vx=vx, vy=vy, k=steps: plane_run(np, u, vx, vy, k),
            "meanfield": lambda m=model, u=u, s=span, k=steps: (
                integrate(m, u, s, n_steps=k, scheme="ssprk2", save_at=()).final
            ),
        }
        if torch:
            given = [torch.from_numpy(v) for v in (u, vx, vy)]
            contestants["torch"] = lambda given=given, k=steps: plane_run(torch, *given, k).numpy()
        if jax:

            def scan(u, vx, vy, k=steps):
                def step(u, _):
                    u1 = u + plane_rate(jnp, u, vx, vy)
                    return 0.5 * (u + u1 + plane_rate(jnp, u1, vx, vy)), None

                return jax.lax.scan(step, u, None, length=k)[0]

            run, given = jax.jit(scan), [jnp.asarray(v) for v in (u, vx, vy)]
            contestants["jax"] = lambda run=run, given=given: np.asarray(run(*given).block_until_ready())
        if pde:
            names = dict(zip("aefghk", (*matrix[0], b[0], *matrix[1], b[1]), strict=True))
            equation = pde.PDE(
                {"c": "-d_dx((a*tanh(x)+e*tanh(y)+f)*c)-d_dy((g*tanh(x)+h*tanh(y)+k)*c)"}, consts=names, bc={"value": 0}
            )
            contestants["py-pde, euler, central"] = pde_stepper(
                equation, [[-2, 2], [-2, 2]], n, u.T.copy(), dx * 0.02, steps
            )
        compare(f"plane, {n} x {n}, {steps} steps", contestants, n * n * steps, "cell step")


CASES = {"line": line, "plane": plane}

if __name__ == "__main__":
    run_cases(__doc__, CASES)
