"""Imports go downward: the order of the modules in one table, and the walk that enforces it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A module may import those that stand before it, in its own row or in one above. The files of
# `folder/*` do not import each other. Every module has a place: a new one is entered here.
LAYERS = (
    ("L0 ground", "_version errors _checks _jit _vectormath _singlemath _tiles _panels"),
    ("L0 ground", "activations _activate _random _velocity _muscl parallel"),
    ("L1 compiled loops", "kernels.*"),
    ("L2 values", "grids meshes transfer operators.base operators.dense operators.separable operators.convolution"),
    ("L2 values", "operators.radial operators.onthefly operators.clusters operators.cross operators.blockwise"),
    ("L2 values", "operators.hierarchical operators.combined operators.masked operators.choice operators.path"),
    ("L2 values", "formulas laws controls schemes velocity_adjoint velocities spacetime_adjoint"),
    ("L2 values", "features losses regularizers fields"),
    ("L2 values", "_fieldfiles data"),
    ("L2 files", "storage.syscalls storage.names storage.layout storage.safety storage.durable storage.image"),
    ("L2 files", "storage.segments storage.contents storage.netcdf storage.provenance storage.sealed storage.verify"),
    ("L2 files", "storage.seal storage.writer storage.reader storage.run"),
    ("L2 cells", "cells densities weights"),
    ("L2 networks of ReLU", "kuhn relu_network relu_layers relu_blocks relu_files"),
    ("L3 equations", "models.*"),
    ("L3 constructions", "constructions.quadrature constructions.problem constructions.flow_network"),
    (
        "L3 constructions",
        "constructions.blocks constructions.certificate constructions.accuracy constructions.relu_flow",
    ),
    ("L4 evolution", "solution probes steppers recorder planning integration"),
    ("L4 beside it", "exact exact_laws exact_learning exact_control exact_turnpike export diagnostics.*"),
    ("L5 gradients", "learning.adjoint learning.coordinates learning.training learning.residual_form"),
    ("L5 solvers", "learning.gradient_flow learning.quasi_newton learning.optimum_path learning.multilevel"),
    ("L5 limits", "learning.boundary_value"),
    ("L5 control", "learning.hamiltonians learning.pontryagin learning.successive_approximations"),
    ("L5 grids of states", "learning.control_problems learning.hjb"),
    ("L5 long times", "learning.end_constraints learning.minimal_norm learning.continuation"),
    ("L5 turnpike", "learning.turnpike learning.arcs"),
    ("L6 harness", "config verdict recording optima limits sweep plotting progress experiment benchmarking"),
    ("L7 front", "__init__ cli __main__"),
)

# What a person waits for first stays light: these, with all they import when they are imported.
LIGHT = ("__init__", "errors", "_checks", "activations", "data", "storage.*", "config", "verdict", "cli")
HEAVY = frozenset({"numba", "llvmlite", "matplotlib"})


class Import(NamedTuple):
    """One import: `names` from `module`, `level` folders up."""

    line: int
    level: int
    module: str
    names: tuple[str, ...] = ()


def modules_of(package: Path) -> dict[str, Path]:
    """Dotted name below the package -> file; the top package itself is `__init__`."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path
    return found


def imports(path: Path, *, at_import_only: bool = False) -> Iterator[Import]:
    """Yield the imports of a file, those inside functions included."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"), str(path))]
    while waiting:
        node = waiting.pop()
        if at_import_only:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                waiting.extend(node.orelse)
                continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, 0, alias.name)
        elif isinstance(node, ast.ImportFrom):
            yield Import(node.lineno, node.level, node.module or "", tuple(alias.name for alias in node.names))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "import_module":
            yield from (Import(node.lineno, 0, str(a.value)) for a in node.args[:1] if isinstance(a, ast.Constant))
        waiting.extend(ast.iter_child_nodes(node))


def targets(package: Path, modules: dict[str, Path], importer: str, found: Import) -> set[str]:
    """Modules of the package that one import statement reaches."""
    if found.level:
        is_package = modules[importer].name == "__init__.py"
        home = [] if importer == "__init__" else importer.split(".")
        base = home[: len(home) - found.level + (1 if is_package else 0)]
        dotted = [package.name, *base, *([found.module] if found.module else [])]
    else:
        dotted = [found.module]
    inner = ".".join(dotted).split(".")
    if inner[0] != package.name:
        return set()
    below = ".".join(inner[1:])
    reached = {f"{below}.{name}".lstrip(".") for name in found.names} & modules.keys()
    if len(reached) < len(found.names) or not found.names:  # the rest are names inside the module itself
        reached.add(below or "__init__")
    return reached


def place(layers: tuple[tuple[str, str], ...], module: str) -> int | None:
    """Position in the table, or None for a module that has none."""
    entries = [entry for _, row in layers for entry in row.split()]
    fits = (k for k, entry in enumerate(entries) if fnmatchcase(module, entry))
    return next(fits, None)


def violations(package: Path, layers: tuple[tuple[str, str], ...] = LAYERS) -> list[str]:
    """One line for each import that does not go down, and each module without a place."""
    modules = modules_of(package)
    subpackages = {name for name, path in modules.items() if path.name == "__init__.py" and name != "__init__"}
    found = []
    for name, path in modules.items():
        where = path.relative_to(package.parent)
        if name in subpackages:
            if path.read_text(encoding="utf-8").strip():
                found.append(f"{where}: must stay empty")
            continue
        here = place(layers, name)
        if here is None:
            found.append(f"{where}: has no place in the table of layers")
            continue
        for one in imports(path):
            for target in sorted(targets(package, modules, name, one)):
                there = place(layers, target)
                if there is None and target not in subpackages:
                    found.append(f"{where}:{one.line}: imports {target}, which has no place in the table")
                elif there is not None and there >= here:
                    found.append(f"{where}:{one.line}: {name} must not import {target}")
    return found


def heavy_imports(package: Path) -> list[str]:
    """Chains by which a light module imports a heavy library as soon as it is imported."""
    modules = modules_of(package)
    found = []
    for start in (name for name in modules if any(fnmatchcase(name, light) for light in LIGHT)):
        waiting, seen = [(start,)], {start}
        while waiting:
            chain = waiting.pop()
            for one in imports(modules[chain[-1]], at_import_only=True):
                if one.level == 0 and one.module.split(".")[0] in HEAVY:
                    found.append(" -> ".join([*chain, one.module]))
                for target in targets(package, modules, chain[-1], one) - seen:
                    if target in modules:
                        seen.add(target)
                        waiting.append((*chain, target))
    return found


def experiment_imports(folder: Path) -> list[str]:
    """Lines of scripts that import each other."""
    scripts = {path.stem for path in folder.rglob("*.py")}
    return [
        f"{path.relative_to(folder)}:{one.line}: imports {one.module or one.names[0]}"
        for path in sorted(folder.rglob("*.py"))
        for one in imports(path)
        if one.level or one.module.split(".")[0] in scripts | {"experiments"}
    ]


def test_imports_of_the_package_go_downward() -> None:
    assert violations(ROOT / "meanfield") == []


def test_light_modules_import_no_heavy_library() -> None:
    assert heavy_imports(ROOT / "meanfield") == []


def test_experiments_do_not_import_each_other() -> None:
    assert experiment_imports(ROOT / "experiments") == []


PLANTED = {
    "upward": ("grids", "from meanfield.integration import integrate\n", "grids must not import integration"),
    "upward, of the package": ("grids", "from meanfield import experiment\n", "grids must not import experiment"),
    "upward, relative": (
        "storage/run",
        "from ..models import spacetime\n",
        "must not import models.spacetime",
    ),
    "upward, lazily": ("schemes", "def f():\n    import meanfield.cli\n", "schemes must not import cli"),
    "upward, by name": (
        "schemes",
        "import importlib as i\ni.import_module('meanfield.cli')\n",
        "must not import cli",
    ),
    "sibling": ("models/moving", "from meanfield.models.spacetime import f\n", "must not import models.spacetime"),
    "against the order of a row": ("_checks", "from meanfield.parallel import f\n", "_checks must not import parallel"),
    "itself through the package": ("grids", "from meanfield import Grid\n", "grids must not import __init__"),
    "no place": ("oddments", "x = 1\n", "oddments.py: has no place"),
    "filled subpackage": ("models/__init__", "x = 1\n", "must stay empty"),
}


def skeleton(root: Path) -> Path:
    """Package of one empty module for each entry of the table."""
    package = root / "meanfield"
    for entry in " ".join(row for _, row in LAYERS).split():
        path = package / f"{entry.replace('.', '/').replace('*', 'spacetime')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if path.parent != package:
            (path.parent / "__init__.py").touch()
    return package


@pytest.mark.parametrize("case", PLANTED, ids=str)
def test_planted_violation_is_found(tmp_path: Path, case: str) -> None:
    package = skeleton(tmp_path)
    assert violations(package) == []
    name, text, message = PLANTED[case]
    (package / f"{name}.py").write_text(text)
    found = violations(package)
    assert len(found) == 1
    assert message in found[0]


def test_planted_circle_is_found(tmp_path: Path) -> None:
    package = skeleton(tmp_path)
    (package / "grids.py").write_text("from meanfield.operators.dense import Dense\n")
    (package / "operators" / "dense.py").write_text("from meanfield.grids import Grid\n")
    assert violations(package) == ["meanfield/grids.py:1: grids must not import operators.dense"]


def test_planted_heavy_import_is_found_through_others(tmp_path: Path) -> None:
    package = skeleton(tmp_path)
    (package / "config.py").write_text("from meanfield.schemes import RK4\ndef f():\n    import matplotlib\n")
    assert heavy_imports(package) == []
    (package / "schemes.py").write_text("from meanfield._jit import njit\n")
    (package / "_jit.py").write_text("import numba\n")
    assert heavy_imports(package) == ["config -> schemes -> _jit -> numba"]


def test_planted_import_between_experiments_is_found(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("import numpy\n")
    (tmp_path / "two.py").write_text("from one import f\n")
    assert experiment_imports(tmp_path) == ["two.py:1: imports one"]
