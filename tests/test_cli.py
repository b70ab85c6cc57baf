"""The command meanfield: what it prints, and how it answers what it cannot read."""

from __future__ import annotations

import numpy as np
import pytest

from meanfield import FunctionModel, Grid, Separable, SpaceTimeNetwork
from meanfield.cli import main
from meanfield.plotting import plot_run
from meanfield.recording import record
from meanfield.storage.run import create_run, open_run


def make(path, scale=1.0):
    line, square = Grid.interval(6), Grid.square(3)
    with create_run(path, {"scale": scale}, experiment="cli", seed=0) as run:
        for label, grid, n in (("line", line, None), ("batch", line, 2), ("square", square, None)):
            kernel = Separable(grid, -scale * np.ones((1, grid.n_nodes)), np.ones((1, grid.n_nodes)))
            model = SpaceTimeNetwork(kernel, "tanh", n_samples=n)
            record(run, label, model, np.ones(model.shape), (0.0, 1.0), n_steps=10, save_at=5)
        record(run, "scalar", FunctionModel(lambda t, y: -y, ()), np.array(1.0), (0.0, 1.0), n_steps=10, save_at=5)
        run.put_verdict({"claim": "c", "status": "holds"})
        return run.seal()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make(tmp_path_factory.mktemp("cli") / "run.h5")


def test_inspect_fits_a_screen(path, capsys):
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    for word in ("cli", "line", "batch", "square", "finished"):
        assert word in shown
    assert len(shown.splitlines()) <= 40


def test_verify_and_compare(path, tmp_path, capsys):
    other = make(tmp_path / "other.h5", scale=1.05)
    again = make(tmp_path / "again.h5")
    assert main(["verify", str(path)]) == 0
    assert "0 wrong" in capsys.readouterr().out
    assert main(["compare", str(path), str(again)]) == 0
    assert "identical" in capsys.readouterr().out
    assert main(["compare", str(path), str(other)]) == 1
    shown = capsys.readouterr().out
    assert "scale" in shown
    assert max(map(len, shown.splitlines())) <= 160


def test_plot_draws_every_kind_of_series_and_equal_runs_equally(path, tmp_path, capsys):
    assert main(["plot", str(path), "--out", str(tmp_path / "a.png")]) == 0
    assert "a.png" in capsys.readouterr().out
    with open_run(path) as run:
        plot_run(run, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_doctor_and_cite(capsys):
    assert main(["doctor"]) == 0
    assert "numba" in capsys.readouterr().out
    assert main(["cite"]) == 0
    shown = capsys.readouterr().out
    for number in ("1905.09076", "1810.11741", "2309.01213", "1910.09599", "2008.02491"):
        assert number in shown


@pytest.mark.parametrize("command", ["inspect", "plot", "verify"])
def test_what_is_no_run_is_refused_in_one_line(command, path, tmp_path, capsys):
    (tmp_path / "text.h5").write_text("no run")
    (tmp_path / "short.h5").write_bytes(path.read_bytes()[:-50])
    for name, words in (("missing.h5", "no such file"), ("text.h5", "not an HDF5 file"), ("short.h5", "short.h5")):
        assert main([command, str(tmp_path / name)]) == 2
        shown = capsys.readouterr()
        assert words in shown.err
        assert len(shown.err.strip().splitlines()) == 1
    assert main(["inspec"]) == 2
    assert "inspect" in capsys.readouterr().err
