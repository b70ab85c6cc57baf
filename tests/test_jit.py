"""The compile cache: hit in a new process, never stale, and never in the way.

Each case runs a two-module package around a copy of `_jit.py` in processes of
its own: a caller, and the callee whose change numba's own cache would miss.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import meanfield

SOURCE = Path(meanfield.__file__).parent / "_jit.py"

if os.environ.get("NUMBA_DISABLE_JIT", "0") not in {"", "0"}:
    pytest.skip("nothing is compiled", allow_module_level=True)

CALLEE = "from fakepkg._jit import njit\n\n@njit\ndef callee(x):\n    return x + {added}\n"
CALLER = (
    "from fakepkg._jit import njit\nfrom fakepkg.callee import callee\n\n"
    "@njit\ndef caller(x):\n    return 2.0 * callee(x)\n"
)
PROBE = """
import json, warnings
warnings.simplefilter("error")
from fakepkg._jit import cache_directory
from fakepkg.caller import caller
result = caller(1.0)
stats = caller.stats
print(json.dumps({
    "result": result,
    "hits": sum(stats.cache_hits.values()),
    "misses": sum(stats.cache_misses.values()),
    "directory": None if cache_directory() is None else str(cache_directory()),
}))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Path of a fresh `fakepkg` whose callee adds 1."""
    root = tmp_path / "src" / "fakepkg"
    root.mkdir(parents=True)
    (root / "__init__.py").touch()
    shutil.copy(SOURCE, root / "_jit.py")
    (root / "callee.py").write_text(CALLEE.format(added="1.0"))
    (root / "caller.py").write_text(CALLER)
    return root


def run(package: Path, cache: Path | str, script: str = PROBE, **more: str) -> dict[str, object]:
    """Call `caller(1.0)` in a new process and report what the cache did."""
    env = {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    env.pop("NUMBA_DISABLE_JIT", None)
    env |= {"MEANFIELD_CACHE_DIR": str(cache), **more}
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        env=env,
        cwd=package.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def entries(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.nbc"))


def test_second_process_finds_the_compiled_code(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, second = run(package, cache), run(package, cache)
    assert (first["hits"], first["misses"]) == (0, 1)
    assert (second["hits"], second["misses"]) == (1, 0)
    assert first["result"] == second["result"] == 4.0


def test_cache_directory_is_the_one_asked_for(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "elsewhere" / "cache"
    report = run(package, cache, HOME=str(tmp_path / "home"))
    assert Path(str(report["directory"])).parent == cache
    assert entries(cache)
    assert not (tmp_path / "home").exists()


def test_changed_callee_is_never_stale(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    before = run(package, cache)
    (package / "callee.py").write_text(CALLEE.format(added="5.0"))  # caller.py stays as it is
    after = run(package, cache)
    assert before["result"] == 4.0
    assert after["result"] == 12.0
    assert before["directory"] != after["directory"]
    assert after["hits"] == 0


def test_without_the_source_stamp_the_callee_would_be_stale(package: Path, tmp_path: Path) -> None:
    """The planted fault that shows the test above can fail: the stamp a constant, the old callee answers."""
    text = (package / "_jit.py").read_text()
    constant = text.replace("return digest.hexdigest()[:20]", 'return "0" * 20')
    assert constant != text
    (package / "_jit.py").write_text(constant)
    cache = tmp_path / "cache"
    assert run(package, cache)["result"] == 4.0
    (package / "callee.py").write_text(CALLEE.format(added="5.0"))
    assert run(package, cache)["result"] == 4.0


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_cache_that_cannot_be_written_costs_only_a_compilation(package: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "a_file"
    blocked.write_text("in the way of the directory")
    spare = tmp_path / "tmp"
    spare.mkdir()
    report = run(package, blocked / "cache", TMPDIR=str(spare))
    assert report["result"] == 4.0
    assert Path(str(report["directory"])).is_relative_to(spare)  # the private temporary directory stands in
    assert blocked.read_text() == "in the way of the directory"


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_temporary_cache_others_can_write_is_not_trusted(package: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "a_file"
    blocked.touch()
    spare = tmp_path / "tmp"
    planted = spare / f"meanfield-{os.getuid()}"
    planted.mkdir(parents=True)
    planted.chmod(0o777)
    report = run(package, blocked / "cache", TMPDIR=str(spare))
    assert (report["result"], report["directory"]) == (4.0, None)
    assert list(planted.iterdir()) == []


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "emptied", "text"])
def test_damaged_entry_is_compiled_anew_and_replaced(package: Path, tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "cache"
    run(package, cache)
    assert len(entries(cache)) >= 1
    for path in entries(cache):
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        path.write_bytes(
            {"flipped bit": bytes(flipped), "truncated": content[:-7], "emptied": b"", "text": b"not code"}[damage]
        )
    damaged = run(package, cache)
    assert (damaged["result"], damaged["hits"], damaged["misses"]) == (4.0, 0, 1)
    mended = run(package, cache)
    assert (mended["result"], mended["hits"]) == (4.0, 1)


def test_each_signature_has_its_own_entry(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    integers = PROBE.replace("caller(1.0)", "caller(3)")
    assert run(package, cache)["result"] == 4.0
    assert run(package, cache, integers)["result"] == 8.0
    assert (run(package, cache)["hits"], run(package, cache, integers)["hits"]) == (1, 1)


def test_code_edited_under_a_running_process_is_not_kept(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    edited = CALLEE.format(added="5.0")
    late = PROBE.replace(
        "from fakepkg.caller import caller",
        f"cache_directory()\nopen({str(package / 'callee.py')!r}, 'w').write({edited!r})\n"
        "from fakepkg.caller import caller",
    )
    assert run(package, cache, late.replace('warnings.simplefilter("error")', ""))["result"] == 12.0
    (package / "callee.py").write_text(CALLEE.format(added="1.0"))
    assert run(package, cache)["result"] == 4.0


def test_forgets_only_old_caches_of_its_own(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    names = {"0123456789abcdef0123": False, "my-important-results": True, "fedcba98765432100000": True}
    for name in names:
        (cache / name).mkdir(parents=True)
        (cache / name / "content").touch()
    for name in ("0123456789abcdef0123", "my-important-results"):
        os.utime(cache / name, (0, 0))
    run(package, cache)
    assert {name: (cache / name / "content").exists() for name in names} == names
