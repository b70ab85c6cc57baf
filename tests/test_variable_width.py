"""The experiment on variable widths: every verdict can fail."""

from __future__ import annotations

import numpy as np
from helpers.scripts import load, planted_run

script = load("experiments/variable_width.py")


def test_a_planted_error_of_five_per_cent_makes_every_verdict_fail(tmp_path):
    found = planted_run(script, tmp_path / "v.h5", "--n-fronts", "1")
    assert len(found) >= 15
    assert sorted(found.values()) == ["fails"] * (len(found) - 1) + ["not_tested"]


def test_bias_of_the_front_makes_it_exact():
    front, (y, q), x = script.Front(0.05), np.polynomial.legendre.leggauss(400), np.linspace(0, 1, 11)
    integral = (-np.abs(x[:, None] - 0.5 * (y + 1)) * 0.5 * q) @ np.tanh(front.z(0.4, 0.5 * (y + 1)))
    change = (front.z(0.4 + 1e-5, x) - front.z(0.4 - 1e-5, x)) / 2e-5
    assert np.abs(change - integral - front.bias(0.4, x)).max() < 2e-6


def test_bad_parameters_are_refused(tmp_path, capsys):
    assert script.main(["--smoke", "--n-front", "3", "--out", str(tmp_path / "v.h5")]) == 2
    assert "n_front" in capsys.readouterr().err
