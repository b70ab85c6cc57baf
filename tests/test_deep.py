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


def rate_of(model, theta, t=0.0):
    rate = np.empty(model.shape)
    model.rate(t, theta, rate)
    return rate


def test_batch_of_all_samples_is_the_full_batch():
    whole = DeepMeanField(X, Y, depth=3, width=4)
    batched = DeepMeanField(X, Y, depth=3, width=4, batch=(5, 0.5), seed=3)
    theta = whole.initial(1)
    np.testing.assert_allclose(rate_of(batched, theta, 1.7), rate_of(whole, theta), rtol=1e-13, atol=1e-15)


def test_gradient_of_batches_is_an_unbiased_estimate():
    model = DeepMeanField(X, Y, depth=2, width=3, batch=(2, 0.5), seed=4)
    theta = model.initial(1)
    full = rate_of(DeepMeanField(X, Y, depth=2, width=3), theta)
    # Every sample stands in as many of the ten pairs, so their mean is exactly the full gradient.
    pairs = [(i, j) for i in range(5) for j in range(i)]
    of_pairs = [rate_of(DeepMeanField(X[:, p], Y[:, p], depth=2, width=3), theta) for p in pairs]
    np.testing.assert_allclose(np.mean(of_pairs, axis=0), full, rtol=1e-12, atol=1e-15)
    # The batches are pairs of different samples, all equally often.
    drawn = [tuple(sorted(model.samples(0.5 * k).tolist(), reverse=True)) for k in range(2000)]
    counts = np.array([drawn.count(p) for p in pairs])
    assert counts.sum() == 2000
    assert np.sum((counts - 200) ** 2 / 200) < 27.9  # chi^2 with 9 degrees of freedom, 0.1 %
    np.testing.assert_allclose(rate_of(model, theta, 0.7), of_pairs[pairs.index(drawn[1])], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("interval", [0.1, np.pi / 7, 2.0**-5, 1e-7])
def test_a_batch_acts_on_its_interval_of_training_time(interval):
    model = DeepMeanField(X, Y, depth=1, width=1, batch=(2, interval), seed=5)
    edges = np.concatenate([[0.0], model.breakpoints[:300]])
    for k in range(300):
        inside = [edges[k], 0.3 * edges[k] + 0.7 * edges[k + 1], np.nextafter(edges[k + 1], 0.0)]
        assert len({tuple(model.samples(t)) for t in inside}) == 1
    assert len({tuple(model.samples(t)) for t in edges}) == 10
    np.testing.assert_allclose(np.diff(edges), interval, rtol=1e-12)
    other = DeepMeanField(X, Y, depth=1, width=1, batch=(2, interval), seed=6)
    assert any((model.samples(t) != other.samples(t)).any() for t in edges)


def test_euler_steps_of_the_interval_are_stochastic_gradient_descent_and_can_be_resumed():
    model = DeepMeanField(X, Y, depth=2, width=4, batch=(2, 0.3), seed=7)
    theta = start = model.initial(2)
    for k in range(12):
        theta = theta + 0.3 * rate_of(model, theta, 0.3 * k + 0.1)
    final = integrate(model, start, (0.0, 3.6), scheme="euler", dt=0.3).final
    np.testing.assert_allclose(final, theta, rtol=1e-13)
    middle = integrate(model, start, (0.0, 1.5), scheme="euler", dt=0.3).final
    resumed = integrate(model, middle, (1.5, 3.6), scheme="euler", dt=0.3).final
    np.testing.assert_allclose(resumed, final, rtol=1e-13)


def test_rk4_keeps_its_order_over_batches():
    model = DeepMeanField(X, Y, depth=2, width=4, batch=(2, 2.0), seed=8)
    start = model.initial(2)
    fine = integrate(model, start, (0.0, 8.0), rtol=1e-12, atol=1e-13).final
    steps = np.array([8, 16, 32, 64])
    errors = [np.abs(integrate(model, start, (0.0, 8.0), n_steps=int(n)).final - fine).max() for n in steps]
    assert abs(fit_rate(1 / steps, errors).slope - 4.0) <= 0.1


def test_tied_neurons_are_those_of_one_layer():
    model = DeepMeanField(X, Y, depth=5, width=3)
    tied = model.initial(9, tied=True)
    assert tied.shape == model.shape
    assert (tied == tied[:, :1]).all()
    np.testing.assert_array_equal(tied[:, :1], DeepMeanField(X, Y, depth=1, width=3).initial(9))
    model.rate(0.0, tied, tied)  # its own memory, to be written to


def test_neurons_are_points_of_both_weights():
    model = DeepMeanField(X, Y, depth=2, width=3)
    u, v = theta = model.initial(1)
    points = model.neurons(theta)
    assert points.shape == (2, 3, 8)
    np.testing.assert_array_equal(points[1, 2], [*u[1, 2], *v[1, 2]])


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
    with pytest.raises(ConfigError, match=r"batch must be None or a pair \(size, interval\), got 3"):
        DeepMeanField(X, Y, depth=2, width=2, batch=3)
    with pytest.raises(ConfigError, match="batch size must be at most the number of samples 5, got 6"):
        DeepMeanField(X, Y, depth=2, width=2, batch=(6, 0.1))
    with pytest.raises(ConfigError, match=r"batch interval must be > 0, got 0\.0"):
        DeepMeanField(X, Y, depth=2, width=2, batch=(2, 0.0))
    with pytest.raises(ConfigError, match="seed must be an integer >= 0"):
        DeepMeanField(X, Y, depth=2, width=2, batch=(2, 0.1), seed=-1)
    model = DeepMeanField(X, Y, depth=2, width=2, batch=(2, 0.5))
    with pytest.raises(ConfigError, match="got True"):
        model.initial(True)
    with pytest.raises(ConfigError, match=r"training times in \[0, 524288.0\], got -0.5"):
        model.samples(-0.5)
    with pytest.raises(ConfigError, match=r"dt = 1.0 does not divide the interval \[0.0, 0.5\]"):
        integrate(model, model.initial(0), (0.0, 2.0), scheme="euler", dt=1.0)
