"""The experiment on digits over depth: what compares with the limit sees a planted penalty, the rest does not."""

from __future__ import annotations

import numpy as np
from helpers.scripts import load, planted_run

from meanfield.data import digits
from meanfield.storage.run import open_run

script = load("experiments/digits_in_depth.py")


def test_a_planted_error_of_five_per_cent_makes_verdicts_on_the_limit_fail(tmp_path):
    path = tmp_path / "d.h5"
    found = planted_run(script, path)
    failed = {claim for claim, status in found.items() if status == "fails"}
    assert len(failed) == 3
    for claim, status in found.items():
        blind = claim.startswith(script.BLIND)
        assert status in (("holds", "not_tested") if blind or claim.startswith("ten") else ("fails",)), claim
    with open_run(path) as run:
        assert run.tables["splits_pair"]["unseen"].mean() >= script.GOAL


def test_components_are_those_of_the_training_part_alone():
    seen, unseen = digits().split(0.75, seed=3)
    parts = script.Components.of(seen.x, 5)
    inside = parts(seen.x)
    np.testing.assert_allclose(inside @ inside.T / len(seen.x), np.diag(np.var(inside, axis=1)), atol=1e-12)
    assert np.var(inside[0]) == np.var(inside, axis=1).max()
    np.testing.assert_allclose(np.var(inside[0]), 1.0, rtol=1e-12)
    np.testing.assert_allclose(parts(unseen.x[:3]), parts(unseen.x)[:, :3], rtol=1e-13)


def test_shifted_copies_are_means_of_neighbours():
    data = digits()
    more = script.shifted(data)
    assert len(more.x) == 5 * len(data.x)
    image, up = data.x[7].reshape(8, 8), more.x[len(data.x) + 7].reshape(8, 8)
    np.testing.assert_allclose(up[1:], 0.5 * (image[1:] + image[:-1]))
