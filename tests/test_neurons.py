"""One hidden layer in its mean-field scaling: gradients, closed forms, bytes, real data."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield import integrate, parallel
from meanfield.activations import ACTIVATIONS
from meanfield.data import wine
from meanfield.diagnostics.fluctuations import mean_over_seeds, scaled_variance
from meanfield.diagnostics.rates import fit_rate
from meanfield.errors import ConfigError, ResourceError
from meanfield.features import Features
from meanfield.losses import CrossEntropy, Logistic, Squared
from meanfield.models import neurons
from meanfield.models.neurons import MeanFieldNeurons
from meanfield.schemes import EULER, RK4, StepGrid
from meanfield.solution import Status

RNG = np.random.default_rng(8)
# Inputs, outputs, whether outer weights are trained, whether there is a bias.
KINDS = [(2, 1, True, True), (1, 1, False, True), (0, 1, False, True), (3, 1, True, False), (6, 3, True, True)]


def small(kind, name="tanh", width=150, n=21, **options):
    d, outputs, outer, bias = kind
    x, y = RNG.standard_normal((d, n)), RNG.standard_normal((outputs, n))
    return MeanFieldNeurons(x, Squared(y), width, name, outer=outer, bias=bias, **options)


def rate_of(model, y):
    out = np.empty(model.shape)
    model.rate(0.0, y, out)
    return out


def by_hand(model, grid, first, count, y):
    """The loop of rates and noises, written out."""
    y, noise = y.copy(), np.empty(model.shape)
    for k, dt in enumerate(grid.steps(EULER, first, count)[1]):
        drift = rate_of(model, y)
        model.noise(0.0, y, first + k, noise)
        y += dt * drift + np.sqrt(dt) * noise
    return y


def advanced(model, grid, first, count, y):
    out = np.empty(model.shape)
    model.advance(EULER, grid, first, count, y, out)
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_outputs_are_the_mean_of_the_features(kind, name):
    model = small(kind, name)
    y = model.initial()
    expected = model.features.evaluate(y).mean(axis=1)
    np.testing.assert_allclose(model.outputs(y), expected, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(model.outputs(y, model.features.x[:, 3:8]), expected[:, 3:8], rtol=1e-13, atol=1e-15)


def test_features_written_out():
    x = np.array([[1.0, -2.0, 0.5]])
    theta = np.array([[2.0, -1.0], [0.3, 0.4], [0.1, -0.2]])
    expected = theta[0][:, None] * np.tanh(theta[1][:, None] * x + theta[2][:, None])
    np.testing.assert_allclose(Features(x).evaluate(theta)[0], expected, rtol=1e-15)
    linear = Features(np.empty((0, 1)), "identity", outer=False)
    np.testing.assert_array_equal(linear.evaluate([[3.0, -1.5]]), [[[3.0], [-1.5]]])
    assert Features(np.ones((2, 1)), outputs=2).names == ("a1", "a2", "w1", "w2", "b")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "gelu", "sine", "identity"])
def test_drift_is_minus_the_width_times_the_gradient_of_the_energy(kind, name):
    # Taylor remainder of second order along a direction.
    model = small(kind, name, penalty=0.4)
    y, direction = model.initial(), RNG.standard_normal(model.shape)
    slope = -np.sum(rate_of(model, y) * direction) / model.width
    steps = 2.0 ** -np.arange(4, 12)
    rest = [abs(model.energy(y + e * direction) - model.energy(y) - e * slope) for e in steps]
    # A quadratic energy has this remainder at every step: the absolute size is part of the claim.
    assert abs(fit_rate(steps, rest).slope - 2.0) < 0.05


@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_drift_of_kinked_activations_against_differences(name):
    for kind in KINDS:
        model = small(kind, name, penalty=0.4)
        y, direction = model.initial(), RNG.standard_normal(model.shape)
        slope = -np.sum(rate_of(model, y) * direction) / model.width
        difference = (model.energy(y + 1e-7 * direction) - model.energy(y - 1e-7 * direction)) / 2e-7
        assert slope == pytest.approx(difference, rel=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [True, False])
def test_fused_steps_are_those_of_rates_and_noises(kind, kept, monkeypatch):
    if not kept:
        monkeypatch.setattr(neurons, "STORED", 0)
    for name in ("tanh", "gelu"):
        model = small(kind, name, penalty=0.1, temperature=0.05, seed=3)
        grid = StepGrid(np.array([0.0, 0.4, 1.0]), np.array([4, 3]))
        y = model.initial()
        end = advanced(model, grid, 0, 7, y)
        np.testing.assert_allclose(end, by_hand(model, grid, 0, 7, y), rtol=1e-11, atol=1e-13)
        # In pieces: the same bytes, whatever was computed in between.
        middle = advanced(model, grid, 0, 3, y)
        model.outputs(model.initial(seed=99))
        np.testing.assert_array_equal(advanced(model, grid, 3, 4, middle), end)


def test_time_loop_takes_the_fused_path_and_one_stage_schemes_only():
    model = small(KINDS[0], temperature=0.2, seed=5)
    y = model.initial()
    assert model.fused(EULER)
    assert not model.fused(RK4)
    grid = StepGrid(np.array([0.0, 1.0]), np.array([40]))
    final = integrate(model, y, (0.0, 1.0), scheme="euler", n_steps=40, save_at=4).final
    np.testing.assert_array_equal(final, advanced(model, grid, 0, 40, y))


class Unfused(MeanFieldNeurons):
    """The same model, taken through the general loop of rates and noises."""

    def fused(self, scheme):
        return False


def test_general_loop_adds_the_noise_of_the_fused_path():
    args, options = (np.ones((1, 3)), Squared(np.arange(3.0)), 90), {"temperature": 0.3, "seed": 11, "penalty": 0.2}
    model, general = MeanFieldNeurons(*args, **options), Unfused(*args, **options)
    y = model.initial()
    ends = [integrate(m, y, (0.0, 1.0), n_steps=30).final for m in (model, general)]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-11, atol=1e-13)
    with pytest.raises(ConfigError, match="scheme rk4 does not apply to a model with noise"):
        integrate(model, y, (0.0, 1.0), scheme="rk4", n_steps=30)
    # Without temperature every scheme does.
    calm = MeanFieldNeurons(*args, penalty=0.2)
    steps = np.array([20, 40, 80])
    fine = integrate(calm, y, (0.0, 1.0), rtol=1e-11, atol=1e-12).final
    errors = [np.abs(integrate(calm, y, (0.0, 1.0), scheme="euler", n_steps=int(n)).final - fine).max() for n in steps]
    assert abs(fit_rate(1 / steps, errors).slope - 1.0) <= 0.1


def test_bytes_do_not_depend_on_threads(monkeypatch):
    monkeypatch.setattr(neurons, "_WORTH", 0)
    before = parallel.get_threads()
    for kind in (KINDS[0], KINDS[4]):
        model = small(kind, width=5000, temperature=0.1, seed=2)
        y, ends = model.initial(), []
        try:
            for threads in (1, 2, 3):
                parallel.set_threads(threads)
                ends.append(integrate(model, y, (0.0, 1.0), scheme="euler", n_steps=5).final)
        finally:
            parallel.set_threads(before)
        np.testing.assert_array_equal(ends[0], ends[1])
        np.testing.assert_array_equal(ends[0], ends[2])


def test_noise_of_a_neuron_does_not_depend_on_the_width():
    narrow, wide = (small((2, 1, True, True), width=w, temperature=0.5, seed=7) for w in (100, 300))
    drawn = [np.empty(m.shape) for m in (narrow, wide)]
    for model, out in zip((narrow, wide), drawn, strict=True):
        model.noise(0.0, out, 12, out)
    np.testing.assert_array_equal(drawn[0], drawn[1][:, :100])
    np.testing.assert_array_equal(narrow.initial(), wide.initial()[:, :100])
    # The noise of a step has variance 2 tau.
    assert drawn[1].var() == pytest.approx(1.0, rel=0.15)


def test_linear_neurons_have_the_mean_and_the_fluctuations_of_theory():
    # h = theta: F = (m - a)^2/2 + (lam/2) E theta^2, an Ornstein-Uhlenbeck process for the mean of the neurons:
    # m' = a - k m, M Var(m_M) = v0 e^{-2kt} + tau (1 - e^{-2kt})/k with k = 1 + lam.
    a, lam, tau, v0, m0, width, t, n_steps = 0.7, 0.5, 0.8, 2.0, -1.0, 40, 0.6, 60
    k, dt = 1 + lam, t / n_steps
    means = []
    for seed in range(800):
        model = MeanFieldNeurons(
            np.empty((0, 1)), Squared([a]), width, "identity", outer=False, penalty=lam, temperature=tau, seed=seed
        )
        y0 = m0 + model.initial(np.sqrt(v0))
        means.append(integrate(model, y0, (0.0, t), scheme="euler", n_steps=n_steps).final.mean())
    # Euler-Maruyama has these closed forms with (1 - k dt)^n for e^{-k t}; both lie within the interval.
    decay, q = np.exp(-k * t), 1 - k * dt
    scaled = scaled_variance(means, width, confidence=0.99)
    middle = mean_over_seeds(means, confidence=0.99)
    assert scaled.covers(v0 * decay**2 + tau * (1 - decay**2) / k)
    assert middle.covers(a / k + (m0 - a / k) * decay)
    assert scaled.covers(v0 * q ** (2 * n_steps) + 2 * tau * dt * (1 - q ** (2 * n_steps)) / (1 - q**2))
    assert scaled.high - scaled.low < 0.35


def test_data_term_of_stationary_neurons_exceeds_its_limit_by_one_over_the_width():
    # Linear neurons: E (m_M - a)^2/2 - (m - a)^2/2 = Var(m_M)/2 = tau/(2 k M); Euler steps divide by 1 - k dt/2.
    a, lam, tau, dt = 0.7, 0.5, 1.0, 0.05
    k = 1 + lam
    for width in (64, 512):
        model = MeanFieldNeurons(
            np.empty((0, 1)), Squared([a]), width, "identity", outer=False, penalty=lam, temperature=tau, seed=4
        )
        y0 = a / k + model.initial(np.sqrt(tau / lam))
        probes = {"mean": lambda _t, y, _m: y.mean()}
        solution = integrate(model, y0, (0.0, 1500.0), scheme="euler", dt=dt, save_at=500, probes=probes)
        means = solution.probes["mean"][1][2:]
        # Three time units apart they are independent up to e^{-3k} = 1 %.
        assert mean_over_seeds((means - a / k) ** 2 / 2, confidence=0.999).covers(
            tau / (2 * k * width * (1 - k * dt / 2))
        )


def test_regression_on_real_data_reduces_the_risk_to_a_small_part():
    data = wine().standardised()
    model = MeanFieldNeurons(data.x[:, 1:].T, Squared(data.x[:, 0]), 256, seed=1)
    y0 = model.initial()
    solution = integrate(
        model, y0, (0.0, 40.0), scheme="euler", n_steps=400, save_at=8, probes={"risk": lambda _t, y, m: m.risk(y)}
    )
    risks = solution.probes["risk"][1]
    assert (np.diff(risks) < 0.0).all()
    assert risks[-1] < 0.3 * risks[0]


@pytest.mark.parametrize("classes", [2, 3])
def test_classification_of_real_data(classes):
    data = wine().standardised()
    labels = data.labels if classes == 3 else np.where(data.labels == 0, 1, -1)
    loss = CrossEntropy(labels) if classes == 3 else Logistic(labels)
    model = MeanFieldNeurons(data.x.T, loss, 256, "relu", temperature=1e-4, seed=2)
    y0 = model.initial(0.5)
    final = integrate(model, y0, (0.0, 20.0), scheme="euler", n_steps=400).final
    assert model.risk(final) < 0.2 * model.risk(y0)
    assert model.accuracy(final) > 0.97
    assert model.accuracy(final, data.x[:50].T, labels[:50]) > 0.9
    np.testing.assert_array_equal(model.predict(final, data.x[5:9].T), model.predict(final)[5:9])


@pytest.mark.parametrize("loss", [Squared(np.ones(20)), CrossEntropy(np.arange(20) % 3)])
def test_a_diverging_run_ends_at_its_last_finite_state(loss):
    model = MeanFieldNeurons(RNG.standard_normal((2, 20)), loss, 70, "relu", penalty=1.0)
    y0 = model.initial()
    solution = integrate(model, y0, (0.0, 1e6), scheme="euler", n_steps=1000)
    assert solution.status is Status.NONFINITE
    assert np.isfinite(solution.final).all()
    assert 0 < solution.stats["n_steps"] < 1000


def test_a_large_layer_runs_without_storing_its_activations():
    model = small((2, 1, True, True), width=70_001, n=500)
    y = model.initial()
    assert model._fired.size == 0  # more than 2^25 numbers
    chosen = RNG.integers(0, 70_001, 5)
    rate = rate_of(model, y)
    slope = model.loss.gradient(model.outputs(y))[0]
    fired = np.tanh(y[1:3].T @ model.features.x + y[3][:, None])
    np.testing.assert_allclose(rate[0, chosen], -(fired @ slope)[chosen], rtol=1e-10)
    inner = (1 - fired[chosen] ** 2) * slope * y[0, chosen][:, None]
    np.testing.assert_allclose(rate[1:3, chosen], -(model.features.x @ inner.T), rtol=1e-9)


def test_names_and_numbers_for_files():
    model = small((2, 1, True, True), penalty=0.5, temperature=0.25, seed=6)
    y = model.initial()
    assert model.fields(y)["theta"].values is y
    assert [len(axis.values) for axis in model.axes()] == [4, 150]
    described = model.describe()
    assert (described["penalty"], described["temperature"], described["seed"]) == (0.5, 0.25, 6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": np.ones((2, 4))}, "x has 4 samples, but the loss has 5"),
        ({"x": np.ones(5)}, r"x has shape \(5,\)"),
        ({"loss": np.ones(5)}, "loss must be a loss such as Squared"),
        ({"width": 0}, "width must be a positive integer, got 0"),
        ({"penalty": -1.0}, "penalty must be >= 0, got -1.0"),
        ({"temperature": np.nan}, "temperature must be finite, got nan"),
        ({"seed": -1}, "seed must be an integer >= 0 below 2.63, got -1"),
        ({"seed": True}, "seed must be an integer >= 0 below 2.63, got True"),
        ({"activation": "tan"}, "unknown activation 'tan', did you mean 'tanh'"),
        ({"outer": 1}, "outer must be True or False, got 1"),
        ({"x": np.empty((0, 5)), "bias": False}, "bias = False leaves nothing to train"),
        ({"loss": Squared(np.ones((2, 5))), "outer": False}, "outer = False leaves one output, got outputs = 2"),
    ],
)
def test_bad_arguments_are_refused(change, words):
    given = {"x": np.ones((2, 5)), "loss": Squared(np.ones(5)), "width": 3} | change
    with pytest.raises(ConfigError, match=words):
        MeanFieldNeurons(**given)


def test_other_refusals():
    with pytest.raises(ResourceError, match="a layer of 1000000000 neurons"):
        small((2, 1, True, True), width=10**9, n=3)
    model = small((2, 1, True, True))
    y = model.initial()
    with pytest.raises(ConfigError, match="predict needs a loss of classes"):
        model.predict(y)
    with pytest.raises(ConfigError, match=r"y has shape \(3, 150\)"):
        model.outputs(y[:3])
    with pytest.raises(ConfigError, match=r"x has shape \(3, 4\)"):
        model.outputs(y, np.ones((3, 4)))
    with pytest.raises(ConfigError, match="accuracy needs both x and labels"):
        model.accuracy(y, np.ones((2, 4)))
    with pytest.raises(ConfigError, match="at least one sample"):
        Features(np.empty((2, 0)))
