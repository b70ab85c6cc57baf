"""The experiment on the hidden width of deep networks: verdicts on the model can fail."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.scripts import load, planted_run

from meanfield.storage.run import open_run

script = load("experiments/hidden_width.py")


def test_a_planted_error_of_five_per_cent_makes_verdicts_on_the_model_fail(tmp_path):
    path = tmp_path / "h.h5"
    found = planted_run(script, path)
    assert sum(status == "fails" for status in found.values()) >= 10
    for claim, status in found.items():
        assert status == ("holds" if claim.startswith(script.BLIND) else "fails"), claim
    with open_run(path) as run:
        pairs = run.tables["sweep_0"]
    assert len(pairs["L"]) >= 12


def test_fit_returns_the_coefficients_of_either_form():
    depth, width = np.array([(n, m) for n in (1, 3, 10, 30) for m in (1, 3, 10, 30)], dtype=float).T
    a, b = np.sqrt(script.DIM / (depth * width)), 1 / depth
    found = script.two_terms({"L": depth, "M": width, "final": 0.3 * a + 0.2 * b})
    assert [found[k] for k in ("A_sum", "B_sum")] == pytest.approx([0.3, 0.2], rel=1e-12)
    assert found["residual_sum"] < 1e-12
    assert found["residual_root"] > 1e-3
    found = script.two_terms({"L": depth, "M": width, "final": np.hypot(0.3 * a, 0.2 * b)})
    assert [found[k] for k in ("A_root", "B_root")] == pytest.approx([0.3, 0.2], rel=1e-12)
    assert found["residual_root"] < 1e-12
    assert found["residual_sum"] > 1e-3


def test_published_sizes():
    config = script.Config(sizes=10, decades=2.5)
    assert script.ladder(config) == [1, 3, 6, 12, 24, 46, 87, 166, 316]


def test_bad_parameters_are_refused(tmp_path, capsys):
    assert script.main(["--smoke", "--depth", "3", "--out", str(tmp_path / "h.h5")]) == 2
    assert "depth must be >= 64" in capsys.readouterr().err
