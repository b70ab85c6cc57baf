"""Experiments as modules, and the verdicts they leave in a file."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from meanfield.storage.run import open_run

ROOT = Path(__file__).resolve().parent.parent.parent


def load(path: str) -> ModuleType:
    """Import a script by its path below the root of the repository."""
    file = ROOT / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def statuses(path: Path) -> dict[str, str]:
    """Claim -> status of every verdict in a run file."""
    with open_run(path) as run:
        return {v["claim"]: v["status"] for v in run.verdicts}


def planted_run(script: ModuleType, path: Path, *flags: str) -> dict[str, str]:
    """Claim -> status of a smoke run with an error of five per cent planted, which must fail, figure and all.

    That every verdict of a smoke run holds is seen where all experiments run, in .ci/run: here it would take as long
    again.
    """
    assert script.main(["--smoke", "--quiet", "--planted", "0.05", *flags, "--out", str(path)]) == 3
    assert path.with_suffix(".png").stat().st_size > 50_000
    return statuses(path)
