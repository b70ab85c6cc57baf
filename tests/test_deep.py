"""Deep mean-field networks: gradients, closed forms at initialisation, scalings, the flow."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield import integrate
from meanfield.diagnostics.fluctuations import mean_over_seeds
from meanfield.diagnostics.rates import fit_rate
from meanfield.errors import ConfigError, ResourceError
from meanfield.models.deep import SCALINGS, DeepMeanField

RNG = np.random.default_rng(12)
X, Y = RNG.standard_normal((2, 4, 5))


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("name", ["tanh", "gelu"])
def test_rate_is_minus_the_scaled_gradient_of_the_loss(scaling, name):
    # Taylor remainder of the loss: second order along the direction.
    model = DeepMeanField(X, Y, depth=3, width=6, activation=name, scaling=scaling, alpha=0.7)
    theta, direction = model.initial(1), RNG.standard_normal(model.shape)
    rate = np.empty(model.shape)
    model.rate(0.0, theta, rate)
    slope = -np.sum(rate * direction) / model.speed
    steps = 2.0 ** -np.arange(8, 16)
    rest = [abs(model.loss(theta + e * direction) - model.loss(theta) - e * slope) for e in steps]
    assert abs(fit_rate(steps, rest).slope - 2.0) < 0.05


def test_forward_pass_written_out():
    model = DeepMeanField(X, Y, depth=2, width=3, alpha=1.5)
    u, v = model.initial(2)
    h = X
    for k in range(2):
        h = h + 1.5 / 6 * sum(np.outer(v[k, j], np.tanh(u[k, j] @ h / 4)) for j in range(3))
    np.testing.assert_allclose(model.forward(np.stack([u, v]))[-1], h, rtol=1e-13)


def test_linear_blocks_have_the_mean_and_variance_of_theory():
    # h <- h (1 + (1/(L M)) sum_j theta_j), theta = u v of mean m and variance s2: D = 1, identity activation.
    depth, width, m, deviation = 6, 3, 0.8, 0.5
    model = DeepMeanField(np.ones((1, 1)), np.ones((1, 1)), depth=depth, width=width, activation="identity")
    rng, ends = np.random.default_rng(3), []
    for _ in range(20000):
        theta = m + deviation * rng.standard_normal((depth, width))
        ends.append(model.forward(np.stack([np.ones((depth, width, 1)), theta[:, :, None]]))[-1, 0, 0])
    ends = np.array(ends)
    mean = (1 + m / depth) ** depth
    second = ((1 + m / depth) ** 2 + deviation**2 / (depth**2 * width)) ** depth
    assert mean_over_seeds(ends, confidence=0.999).covers(mean)
    assert mean_over_seeds(ends**2, confidence=0.999).covers(second)


def test_loss_never_increases_along_the_flow_and_euler_has_order_one():
    model = DeepMeanField(X, Y, depth=4, width=8)
    start = model.initial(5)
    solution = integrate(model, start, (0.0, 20.0), dt=0.5, save_at=20, probes={"loss": lambda _t, y, m: m.loss(y)})
    losses = solution.probes["loss"][1]
    assert (np.diff(losses) < 0).all()
    fine = integrate(model, start, (0.0, 8.0), rtol=1e-11, atol=1e-12).final
    steps = np.array([20, 40, 80, 160])
    errors = [
        np.abs(integrate(model, start, (0.0, 8.0), scheme="euler", n_steps=int(n)).final - fine).max() for n in steps
    ]
    assert abs(fit_rate(1 / steps, errors).slope - 1.0) <= 0.1


def test_mean_field_neurons_move_and_lazy_ones_stay():
    moved = {}
    for scaling in ("mean-field", "lazy"):
        distances = []
        for width in (64, 1024):
            model = DeepMeanField(X, Y, depth=4, width=width, scaling=scaling)
            start = model.initial(7)
            final = integrate(model, start, (0.0, 5.0), dt=0.25).final
            distances.append(np.sqrt(np.mean((final - start) ** 2)))
        moved[scaling] = distances[1] / distances[0]
    # Sixteen times the width: of order one, or smaller by a factor of four.
    assert 0.7 < moved["mean-field"] < 1.4
    assert abs(moved["lazy"] - 0.25) < 0.1


def test_outputs_of_wide_networks_fluctuate_as_one_over_the_root_of_depth_times_width():
    spreads, sizes = [], np.array([4, 16, 64])
    for width in sizes:
        model = DeepMeanField(X, Y, depth=8, width=int(width))
        ends = np.array([model.forward(model.initial(s))[-1] for s in range(200)])
        spreads.append(np.sqrt(ends.var(axis=0).mean()))
    assert abs(fit_rate(1 / sizes, spreads).slope - 0.5) <= 0.1


def test_bad_arguments_are_refused():
    with pytest.raises(ConfigError, match=r"x has shape \(4, 5\), but y has shape \(4, 4\)"):
        DeepMeanField(X, Y[:, :4], depth=2, width=2)
    with pytest.raises(ConfigError, match="depth must be a positive integer"):
        DeepMeanField(X, Y, depth=0, width=2)
    with pytest.raises(ConfigError, match="unknown scaling 'lasy', did you mean 'lazy'"):
        DeepMeanField(X, Y, depth=2, width=2, scaling="lasy")
    with pytest.raises(ConfigError, match="alpha must not be 0"):
        DeepMeanField(X, Y, depth=2, width=2, alpha=0.0)
    with pytest.raises(ResourceError, match="a network of 1000000 blocks"):
        DeepMeanField(X, Y, depth=10**6, width=10**6)
