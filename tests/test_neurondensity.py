"""Law of the neurons on a grid: closed forms, dissipation, steady states, order, agreement with particles."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield import integrate
from meanfield.cells import Cells
from meanfield.diagnostics.rates import fit_rate
from meanfield.diagnostics.wasserstein import wasserstein
from meanfield.errors import ConfigError, NumericalError, ResourceError
from meanfield.laws import Law
from meanfield.losses import CrossEntropy, Logistic, Squared
from meanfield.models.neurondensity import NeuronDensity
from meanfield.models.neurons import MeanFieldNeurons
from meanfield.probes import Probe

RNG = np.random.default_rng(9)
X = RNG.standard_normal((1, 12))
Y = np.sin(2 * X[0])
# Which of a, w, b there are: w; (a, w); (w, b).
KINDS = {"w": (False, False), "a, w": (True, False), "w, b": (False, True)}


def box(lower, upper, shape):
    """Cells of the same interval along each axis."""
    shape = np.atleast_1d(shape)
    return Cells.box(*((end,) * len(shape) for end in (lower, upper)), [int(n) for n in shape])


def tanh_model(kind, cells, *, loss=None, temperature=0.05, scale=1.0, side=4.0):
    outer, bias = KINDS[kind]
    return NeuronDensity(
        X,
        loss or Squared(scale * Y),
        "tanh",
        cells=box(-side, side, cells),
        temperature=temperature,
        penalty=0.1,
        outer=outer,
        bias=bias,
    )


def linear_model(cells, a=0.7, lam=0.5, tau=0.3):
    return NeuronDensity(
        np.empty((0, 1)),
        Squared([a]),
        "identity",
        cells=box(-6.0, 6.5, cells),
        temperature=tau,
        penalty=lam,
        outer=False,
    )


def rate_of(model, y):
    out = np.empty(model.shape)
    model.rate(0.0, y, out)
    return out


def dirac(model):
    masses = np.zeros(model.shape)
    masses.ravel()[masses.size // 3] = 1.0
    return masses


def test_fixed_point_of_linear_neurons_is_the_normal_law_of_theory():
    a, lam, tau = 0.7, 0.5, 0.3
    errors = []
    sizes = np.array([25, 50, 100, 200])
    for cells in sizes:
        model = linear_model(int(cells), a, lam, tau)
        point = model.fixed_point().raise_for_status()
        assert point.residual <= 1e-12
        law = model.cells.law(point.masses)
        # The sampled normal density has its moments to many digits; spread over cells it gains width^2/12.
        assert law.mean() == pytest.approx(a / (1 + lam), abs=1e-11)
        assert law.variance() - model.cells.spacing[0] ** 2 / 12 == pytest.approx(tau / lam, abs=1e-10)
        exact = Law.cells(model.cells.faces(), linear_model(int(cells)).normal(a / (1 + lam), np.sqrt(tau / lam)))
        errors.append(wasserstein(law, exact, 1))
    assert abs(fit_rate(1 / sizes, errors).slope - 2.0) <= 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_gibbs_point_is_steady_and_has_the_least_free_energy(kind):
    model = tanh_model(kind, 60 if kind == "w" else (24, 30))
    point = model.fixed_point(tolerance=1e-13).raise_for_status()
    rate = rate_of(model, point.masses)
    # Against the mass that crosses the faces both ways, of which the rate is the difference.
    assert np.abs(rate).max() < 1e-11 * model.temperature / min(model.cells.spacing) ** 2
    least = model.free_energy(point.masses)
    for shift in (1e-3, 1e-1):
        other = point.masses * (1 + shift * RNG.uniform(-1, 1, model.shape))
        assert model.free_energy(other / other.sum()) > least
    np.testing.assert_allclose(model.gibbs(point.masses), point.masses, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_free_energy_never_increases_and_masses_stay_positive_at_the_largest_step(kind, scale):
    model = tanh_model(kind, 120 if kind == "w" else (26, 30), scale=scale)
    for start in (model.normal(0.5, 0.7), dirac(model)):
        masses = start.copy()
        energies = [model.free_energy(masses)]
        for _ in range(250):
            rate = rate_of(model, masses)
            masses = masses + model.largest_step(masses, rate) * rate
            assert masses.min() >= 0.0
            energies.append(model.free_energy(masses))
        assert np.diff(energies).max() < 1e-13 * abs(energies[0])
        assert abs(masses.sum() - 1.0) < 1e-13


def test_a_strong_loss_bounds_the_step_where_positivity_does_not():
    # Linear neurons h = slope w on four cells: an Euler step of the mean is stable for dt slope^2 < 2 only.
    shift = np.array([1.001, 1.0, 1.0, 0.999])
    for slope, bound in ((1.0, 1.0), (100.0, 0.2)):
        model = NeuronDensity(
            [[slope]],
            Squared([0.0]),
            "identity",
            cells=box(-1.0, 1.0, 4),
            temperature=50.0,
            outer=False,
            bias=False,
        )
        masses = 0.25 * shift
        energies, steps = [model.free_energy(masses)], []
        for _ in range(200):
            rate = rate_of(model, masses)
            steps.append(model.largest_step(masses, rate))
            masses = masses + steps[-1] * rate
            energies.append(model.free_energy(masses))
        assert np.diff(energies).max() < 1e-13 * abs(energies[0])
        assert energies[-1] < energies[0]
        assert steps[0] <= 1.05 * bound * 0.5**2 / (4 * 50.0)


def test_time_loop_refuses_longer_steps():
    model = tanh_model("w", 50)
    masses = model.normal()
    largest = model.largest_step(masses, rate_of(model, masses))
    with pytest.raises(ConfigError, match="breaks the CFL condition"):
        integrate(model, masses, (0.0, 30 * largest), scheme="euler", n_steps=20)
    energy = {"energy": lambda _t, y, m: m.free_energy(y)}
    solution = integrate(model, masses, (0.0, 20 * largest), scheme="euler", n_steps=40, save_at=40, probes=energy)
    assert (np.diff(solution.probes["energy"][1]) < 0.0).all()


@pytest.mark.parametrize("loss", [Logistic(np.where(Y > 0, 1, -1)), Squared(Y)])
def test_first_variation_is_the_derivative_of_the_energy(loss):
    model = tanh_model("a, w", (14, 12), loss=loss)
    masses, other = model.normal(0.3, 1.0), model.normal(-0.5, 0.8)
    slope = np.sum(model.first_variation(masses) * (other - masses))
    steps = 2.0 ** -np.arange(2, 9)
    rest = [abs(model.energy(masses + e * (other - masses)) - model.energy(masses) - e * slope) for e in steps]
    assert abs(fit_rate(steps, rest).slope - 2.0) < 0.05


def test_mean_of_linear_neurons_decays_at_the_rate_of_theory():
    # m' = a - k m: exactly so on the grid but for what the ends and the width of the cells do, order two.
    a, lam, tau = 0.7, 0.5, 0.3
    k, t, errors, variances = 1 + lam, 0.5, [], []
    sizes = np.array([50, 100, 200])
    for cells in sizes:
        model = linear_model(int(cells), a, lam, tau)
        final = integrate(model, model.normal(-1.0, 0.8), (0.0, t), rtol=1e-9, atol=1e-13).final
        law = model.cells.law(final)
        errors.append(abs(law.mean() - a / k - (-1.0 - a / k) * np.exp(-k * t)))
        exact = tau / lam + (0.8**2 - tau / lam) * np.exp(-2 * lam * t)
        variances.append(abs(law.variance() - exact))
    assert abs(fit_rate(1 / sizes, errors).slope - 2.0) <= 0.1
    assert abs(fit_rate(1 / sizes, variances).slope - 2.0) <= 0.1
    assert errors[-1] < 1e-3


def test_law_of_tanh_neurons_converges_at_order_two():
    def final(cells):
        model = tanh_model("w", cells, temperature=0.2, scale=3.0)
        end = integrate(model, model.normal(0.8, 0.5), (0.0, 0.5), rtol=1e-8, atol=1e-12).final
        return model.cells.law(end)

    sizes, fine = np.array([24, 48, 96]), final(768)
    laws = [final(int(n)) for n in sizes]
    assert abs(fit_rate(1 / sizes, [abs(law.mean() - fine.mean()) for law in laws]).slope - 2.0) <= 0.1
    assert abs(fit_rate(1 / sizes, [wasserstein(law, fine, 1) for law in laws]).slope - 2.0) <= 0.1


def test_particles_have_the_law_of_the_grid_within_their_monte_carlo_error():
    tau, t, width = 0.2, 2.0, 4000
    model = tanh_model("w", 400, temperature=tau)
    start = model.normal(0.8, 0.5)
    grid = model.cells.law(integrate(model, start, (0.0, t), rtol=1e-7, atol=1e-11).final)
    measured, expected = [], []
    for seed in range(6):
        particles = MeanFieldNeurons(
            X, Squared(Y), width, "tanh", penalty=0.1, temperature=tau, seed=seed, outer=False, bias=False
        )
        y0 = 0.8 + particles.initial(0.5)
        final = integrate(particles, y0, (0.0, t), scheme="euler", n_steps=400).final
        measured.append(wasserstein(Law.particles(final[0]), grid, 2))
        # As far from the law on the grid are independent samples of it.
        drawn = np.random.default_rng(seed).random(width)
        sample = np.interp(drawn, np.concatenate([[0.0], np.cumsum(grid.mass)]), model.cells.faces())
        expected.append(wasserstein(Law.particles(sample), grid, 2))
    assert np.mean(measured) < 1.5 * np.mean(expected)
    # The law has moved far beyond that.
    assert wasserstein(model.cells.law(start), grid, 2) > 10 * np.mean(measured)


def test_laws_of_two_parameters_agree_with_particles():
    tau, t = 0.1, 1.0
    model = tanh_model("a, w", (80, 80), temperature=tau)
    final = integrate(model, model.normal([0.5, 0.8], [0.6, 0.5]), (0.0, t), rtol=1e-5, atol=1e-9).final
    particles = MeanFieldNeurons(X, Squared(Y), 20_000, penalty=0.1, temperature=tau, seed=3, bias=False)
    y0 = np.array([[0.5], [0.8]]) + np.array([[0.6], [0.5]]) * particles.initial()
    cloud = integrate(particles, y0, (0.0, t), scheme="euler", n_steps=200).final
    for axis in range(2):
        assert wasserstein(Law.particles(cloud[axis]), model.cells.law(final, axis), 2) < 0.025
    product = np.sum(final * np.multiply.outer(*(axis.values for axis in model.axes())))
    assert np.mean(cloud[0] * cloud[1]) == pytest.approx(product, abs=0.02)
    np.testing.assert_allclose(model.outputs(final), particles.outputs(cloud), atol=0.02)


def test_gibbs_iteration_says_when_it_did_not_converge():
    model = tanh_model("w", 60, temperature=0.005, scale=5.0)
    point = model.fixed_point(max_iterations=3)
    assert not point.converged
    assert point.iterations == 3
    with pytest.raises(NumericalError, match=r"the Gibbs iteration did not converge: residual .* after 3 iterations"):
        point.raise_for_status()
    # The undamped map of linear neurons, m -> (a - m)/lam, diverges for lam < 1: halving finds the fixed point.
    assert linear_model(50, lam=0.2).fixed_point().raise_for_status().damping < 1.0


def test_names_and_numbers_for_files():
    model = tanh_model("w, b", (6, 9))
    masses = model.normal()
    assert model.fields(masses)["mass"].axes == ("w", "b")
    assert [axis.name for axis in model.axes()] == ["w", "b"]
    assert [len(axis.values) for axis in model.axes()] == [6, 9]
    assert model.describe()["cells"]["shape"] == [6, 9]
    assert model.cells.law(masses, 1).mean() == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": np.ones((2, 5)), "bias": True}, "cells have 2 axes, but a neuron has the parameters a, w1, w2, b"),
        (
            {"loss": CrossEntropy(np.array([0, 1, 0, 1, 1]))},
            "cells have 2 axes, but a neuron has the parameters a1, a2, w",
        ),
        ({"cells": box(-1.0, 1.0, 8)}, "cells have 1 axes, but a neuron has the parameters a, w"),
        ({"x": np.ones((1, 4))}, "x has 4 samples, but the loss has 5"),
        ({"cells": 8}, "cells must be Cells, got 8"),
        ({"temperature": 0.0}, "temperature must be > 0, got 0.0"),
        ({"penalty": -0.1}, "penalty must be >= 0, got -0.1"),
    ],
)
def test_bad_arguments_are_refused(change, words):
    given = {"x": np.ones((1, 5)), "loss": Squared(np.ones(5)), "cells": box(-1.0, 1.0, (8, 8)), "temperature": 1.0}
    with pytest.raises(ConfigError, match=words):
        NeuronDensity(**(given | {"bias": False} | change))


def test_other_refusals():
    model = tanh_model("w", 10)
    with pytest.raises(ResourceError, match="a grid of 100000000 cells"):
        NeuronDensity(
            np.ones((1, 10**4)),
            Squared(np.ones(10**4)),
            cells=box(0.0, 1.0, (10**4, 10**4)),
            temperature=1.0,
            bias=False,
        )
    with pytest.raises(ConfigError, match=r"damping must be <= 1, got 1\.5"):
        model.fixed_point(damping=1.5)
    with pytest.raises(ConfigError, match="the density must be >= 0"):
        model.fixed_point(-np.ones(10))
    with pytest.raises(ConfigError, match="the density must have mass"):
        model.fixed_point(np.zeros(10))
    with pytest.raises(ConfigError, match="deviation must be > 0"):
        model.normal(0.0, 0.0)
    with pytest.raises(ConfigError, match="leaves no mass in the box"):
        model.normal(1e3, 0.1)


@pytest.mark.parametrize("penalty", [0.3, 1.0, 1.0 + 1e-9, 3.0])
@pytest.mark.parametrize("target", [1.5, 1.575, -4.0])
def test_gibbs_iteration_converges_where_the_undamped_one_swings_for_ever(penalty, target):
    # Linear h: the Gibbs map sends the mean m to (a - m)/lam, which for lam <= 1 does not contract.
    model = NeuronDensity(np.empty((0, 1)), Squared([target]), "identity", cells=Cells.line(-15.0, 15.0, 400),
                          temperature=0.5, penalty=penalty, outer=False)  # fmt: skip
    point = model.fixed_point().raise_for_status()
    assert point.iterations < 400
    assert abs(float(point.masses @ model.cells.centres()) - target / (1 + penalty)) < 1e-6


@pytest.mark.parametrize(
    ("target", "penalty", "temperature", "low", "high", "n"),
    [(3.0, 1.0, 0.05, -10, 10, 800), (1.5, 0.5, 0.01, -5, 6, 400), (0.7, 1.0, 0.001, -2, 3, 400)],
)
def test_cold_gibbs_laws_are_reached_where_most_cells_are_empty(target, penalty, temperature, low, high, n):
    model = NeuronDensity(np.empty((0, 1)), Squared([target]), "identity", cells=Cells.line(low, high, n),
                          temperature=temperature, penalty=penalty, outer=False)  # fmt: skip
    masses = model.fixed_point().raise_for_status().masses
    assert abs(float(masses @ model.cells.centres()) - target / (1 + penalty)) < 1e-6


@pytest.mark.parametrize(("target", "temperature", "ends"), [(1.0, 0.05, 6), (0.4, 0.02, 3), (0.3, 0.1, 10)])
def test_gibbs_law_without_penalty_on_a_box(target, temperature, ends):
    # exp(-(m - a) theta/tau) on [-R, R]: its mean m is R (coth u - 1/u), u = (a - m) R/tau.
    model = NeuronDensity(np.empty((0, 1)), Squared([target]), "identity", cells=Cells.line(-ends, ends, 2000),
                          temperature=temperature, outer=False)  # fmt: skip
    mean = float(model.fixed_point().raise_for_status().masses @ model.cells.centres())
    u = (target - mean) * ends / temperature
    assert mean == pytest.approx(ends * (1 / np.tanh(u) - 1 / u), abs=1e-4)


def test_masses_are_checked_at_the_start_and_spans_may_have_no_length():
    model = NeuronDensity(np.empty((0, 1)), Squared([0.5]), "identity", cells=Cells.line(-2, 2, 50), temperature=0.5,
                          penalty=1.0, outer=False)  # fmt: skip
    y = model.normal()
    np.testing.assert_array_equal(integrate(model, y, (1.0, 1.0), save_at=[1.0]).final, y)
    bad = y.copy()
    bad[3] = -0.01
    with pytest.raises(ConfigError, match=r"minimum is -0\.01"):
        integrate(model, bad, (0.0, 0.5))
    with pytest.raises(ConfigError, match="sum 1"):
        integrate(model, 2 * y, (0.0, 0.5))


def test_time_loop_takes_the_longest_steps_that_dissipate_and_lands_on_save_times():
    x = np.linspace(-2.0, 2.0, 20)
    model = NeuronDensity(x[None], Squared(np.sin(x)), "tanh", cells=Cells.box((-3.0, -3.0), (3.0, 3.0), (24, 30)),
                          temperature=0.05, penalty=0.2, bias=False)  # fmt: skip
    probes = {"energy": Probe(lambda _t, y, m: m.free_energy(y), every=1)}
    start = model.normal(0.3, 0.5)
    solution = integrate(model, start, (0.0, 3.0), save_at=[0.0, 0.7, 3.0], probes=probes)
    np.testing.assert_array_equal(solution.t, [0.0, 0.7, 3.0])
    assert np.diff(solution.probes["energy"][1]).max() <= 1e-15
    assert min(g.min() for g in solution.fields["mass"]) >= 0.0
    fine = integrate(model, start, (0.0, 3.0), scheme="euler", n_steps=4 * solution.stats["n_steps"]).final
    assert np.abs(solution.final - fine).sum() < 0.05
    # Two pieces are one run, in bytes, if the cut is where a step ended.
    first = integrate(model, start, (0.0, 0.7)).final
    np.testing.assert_array_equal(integrate(model, first, (0.7, 3.0)).final, solution.final)
