"""The harness: flags, files, exit codes; runs that are killed or interrupted and go on as if nothing had been."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.scripts import load

from meanfield.experiment import Experiment
from meanfield.integration import integrate
from meanfield.recording import digest
from meanfield.storage.run import compare, open_run, verify

HELPER = Path(__file__).parent / "helpers" / "small_experiment.py"
small = load("tests/helpers/small_experiment.py")
main = small.EXPERIMENT.main


def test_default_output_figure_table_and_exit_code(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    assert "1 of 1 verdicts hold" in capsys.readouterr().out
    assert (tmp_path / "runs/small_experiment.png").stat().st_size > 10_000
    with open_run("runs/small_experiment.h5") as run:
        assert run.config == {"n_nodes": 12, "depth": 2.0, "pause": 0.0, "expected": 1.0}
        assert run.status == "finished"
        fixed = run.series["fixed"]
        assert fixed["z"].shape == (13, 2, 12)
        assert fixed.dims("z") == ("time", "sample", "neuron")
        assert fixed.dims("mean") == ("time_every_7",)
        assert fixed.units("z") == "1"
        assert fixed.long_name("z") == "activation"
        np.testing.assert_allclose(fixed["time_every_7"][:3], np.arange(3) * 7 / 60)
        assert {"quadrature_weight", "bias"} <= set(fixed)
        assert run.verdicts[0]["passed"] == 1
    assert verify("runs/small_experiment.h5").ok


def test_a_verdict_that_fails_gives_exit_code_3(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "r.h5"), "--expected", "1.05"]) == 3
    assert "fails" in capsys.readouterr().out


def test_flags_come_before_the_file_before_the_preset_before_defaults(tmp_path):
    (tmp_path / "c.toml").write_text("n_nodes = 9\nexpected = 1.001\nseed = 5\n")
    arguments = ["--smoke", "--config", str(tmp_path / "c.toml"), "--expected", "1.002", "--quiet"]
    assert main([*arguments, "--out", str(tmp_path / "r.h5")]) == 0
    with open_run(tmp_path / "r.h5") as run:
        assert (run.config["n_nodes"], run.config["expected"], run.config["depth"]) == (9, 1.002, 2.0)
        assert int(run.attrs["seed"]) == 5


BAD = [
    (["--n-nodes", "0"], "n_nodes must be a positive integer"),
    (["--n-nodes", "2.5"], "n_nodes must be a positive integer"),
    (["--n-nodes", "1" * 5000], "n_nodes is out of range"),
    (["--n-nodes", "1000000000000"], "GiB"),
    (["--depth", "nan"], "depth must be finite"),
    (["--depth", "-1"], "depth must be > 0"),
    (["--depht", "1"], "depth"),
    (["--seed", "-1"], "seed"),
    (["--threads", "0"], "threads"),
    (["--threads", "two"], "threads"),
    (["--smoke", "--full"], "exclude"),
    (["--config", "missing.toml"], "missing.toml"),
    (["--out", "../../x.h5"], "outside"),
    (["--resume", "missing.h5"], "missing.h5"),
    (["stray"], "stray"),
]


@pytest.mark.parametrize("index", range(len(BAD)))
def test_bad_input_exits_with_2_and_one_line(index, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments, words = BAD[index]
    out = [] if any(a in ("--out", "--resume") for a in arguments) else ["--out", "r.h5"]
    assert main([*arguments, *out]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert words in shown.err
    assert shown.err.startswith("error: ")
    assert len(shown.err.strip().splitlines()) == 1
    assert not Path("r.h5").exists()


def test_existing_output_is_left_alone_and_replaced_when_asked(tmp_path, capsys):
    path = tmp_path / "r.h5"
    path.write_bytes(b"precious")
    assert main(["--out", str(path), "--smoke"]) == 2
    assert "overwrite" in capsys.readouterr().err
    assert path.read_bytes() == b"precious"
    assert main(["--out", str(path), "--smoke", "--overwrite", "--quiet"]) == 0
    assert verify(path).ok


def test_resuming_a_finished_run_computes_nothing(tmp_path, capsys):
    path = tmp_path / "r.h5"
    assert main(["--out", str(path), "--smoke", "--quiet"]) == 0
    before, small.calls[:] = path.read_bytes(), []
    assert main(["--resume", str(path), "--quiet"]) == 0
    assert small.calls == []
    assert path.read_bytes() == before
    assert main(["--resume", str(path), "--n-nodes", "7"]) == 2
    shown = capsys.readouterr().err
    assert "n_nodes" in shown
    assert "7" in shown
    assert "6" in shown
    assert main(["--resume", str(path), "--seed", "3"]) == 2


def test_help_lists_parameters_with_their_defaults(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for word in ("--n-nodes", "labels", "12", "--smoke", "--resume", "--overwrite", "--depth"):
        assert word in shown, word


def start(path: Path) -> subprocess.Popen:
    command = [sys.executable, str(HELPER), "--quiet", "--smoke", "--pause", "0.001"]
    command += ["--out", str(path)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for_rows(path: Path, rng: random.Random) -> None:
    """Wait until a number of segments drawn at random is durable."""
    wanted, parts = rng.randint(5, 60), Path(f"{path}.parts")
    for _ in range(20_000):
        if parts.exists() and sum(p.suffix == ".h5" for p in parts.iterdir()) >= wanted:
            return
        time.sleep(0.002)
    raise AssertionError("the run made no progress")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "r.h5"
    process = start(path)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 0, error
    return path


@pytest.mark.parametrize(("stop", "seed"), [("SIGKILL", 1), ("SIGKILL", 2), ("SIGKILL", 3), ("SIGINT", 4)])
def test_a_stopped_run_resumes_bit_for_bit(stop, seed, tmp_path, uninterrupted):
    stop, path, rng = getattr(signal, stop), tmp_path / "r.h5", random.Random(seed)
    process = start(path)
    wait_for_rows(path, rng)
    process.send_signal(stop)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == (130 if stop == signal.SIGINT else -stop)
    if stop == signal.SIGINT:
        assert "--resume" in error
    assert Path(f"{path}.parts").exists()
    with open_run(path) as run:
        assert len(run.series["fixed"]["time"]) > 0
    again = subprocess.run(
        [sys.executable, str(HELPER), "--quiet", "--resume", str(path)], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert compare(path, uninterrupted) == []
    assert not Path(f"{path}.parts").exists()


def test_digest_tells_inputs_apart_and_is_the_same_in_another_process():
    base = digest({"a": np.arange(3.0), "b": [1, "x", None]}, small.run)
    assert base != digest({"a": np.arange(3.0), "b": [1, "y", None]}, small.run)
    assert base != digest({"a": np.arange(3), "b": [1, "x", None]}, small.run)
    assert base != digest({"a": np.arange(3.0), "b": [1, "x", None]}, main)
    code = (
        "import sys, numpy as np; sys.path.insert(0, sys.argv[1]); import small_experiment as small;"
        "from meanfield.recording import digest;"
        "print(digest({'a': np.arange(3.0), 'b': [1, 'x', None]}, small.run))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(HELPER.parent)], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == base


def test_ctrl_c_inside_a_computation_stores_no_half_result(tmp_path):
    sent = []

    def run(_config, run_file):
        def rate(t, y):
            if not sent and t > 0.5:
                sent.append(t)
                os.kill(os.getpid(), signal.SIGINT)
            return -y

        def compute():
            return {"x": integrate(rate, [1.0], (0.0, 1.0), n_steps=50).final}

        found = run_file.once("decay", compute, "the same")
        run_file.near("x(1)", float(np.exp(-1)), float(found["x"][0]), tolerance=1e-6, reason="RK4")

    path = tmp_path / "c.h5"
    experiment = Experiment("ctrl_c", small.Config, run)
    assert experiment.main(["--quiet", "--out", str(path)]) == 130
    assert len(sent) == 1
    assert experiment.main(["--quiet", "--resume", str(path)]) == 0
