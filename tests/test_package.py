"""The package as a whole: light to import, its public names real, its papers consistent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import meanfield

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("numba", "llvmlite", "matplotlib", "scipy", "h5py")


def in_new_process(script: str) -> object:
    """What `script`, in a new interpreter that knows `heavy()`, prints as JSON."""
    preamble = f"import json, sys\nheavy = lambda: sorted(m for m in sys.modules if m.split('.')[0] in {HEAVY!r})\n"
    env = {**os.environ, "PYTHONPATH": str(Path(meanfield.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", preamble + script], check=False, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_import_loads_no_heavy_library() -> None:
    assert in_new_process("import meanfield\nprint(json.dumps(heavy()))") == []


def test_check_for_heavy_libraries_can_fail() -> None:
    assert "h5py" in in_new_process("import meanfield, h5py\nprint(json.dumps(heavy()))")


def test_names_load_when_they_are_used() -> None:
    script = "import meanfield\nmeanfield.integrate\nprint(json.dumps('numba' in sys.modules))"
    assert in_new_process(script) is True


def test_every_public_name_resolves() -> None:
    assert len(meanfield.__all__) == len(set(meanfield.__all__)) > 0
    for name in meanfield.__all__:
        assert getattr(meanfield, name) is not None
    assert set(meanfield.__all__) <= set(dir(meanfield))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        meanfield.no_such_name  # noqa: B018


def test_errors_are_what_a_caller_would_catch() -> None:
    from meanfield import errors

    builtin = {
        "ConfigError": ValueError,
        "NumericalError": ArithmeticError,
        "FileFormatError": ValueError,
        "CorruptFileError": errors.FileFormatError,
        "UnsafeFileError": errors.FileFormatError,
        "ResourceError": MemoryError,
        "RunLockedError": OSError,
        "ResumeMismatchError": ValueError,
        "OutputError": OSError,
    }
    for name, base in builtin.items():
        assert issubclass(getattr(errors, name), errors.MeanfieldError)
        assert issubclass(getattr(errors, name), base)


def test_package_is_typed_and_carries_its_data() -> None:
    from meanfield import data

    assert (Path(meanfield.__file__).parent / "py.typed").is_file()
    assert len(data.digits()) == 1797


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert meanfield.__version__ == version
    assert f'version: "{version}"' in (ROOT / "CITATION.cff").read_text()
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "CHANGELOG.md").read_text()
    wanted = [*project["dependencies"], *(p for extra in project["optional-dependencies"].values() for p in extra)]
    for requirement in wanted:
        name = requirement.split(">")[0].split("[")[0]
        assert name in text, f"{name}: no reason in CHANGELOG.md"
