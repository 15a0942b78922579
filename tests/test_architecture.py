"""The order of the house: imports point one way, heavy packages stay at the edge, and importing does no work."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "wrnn_jax"
FILES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
RANKS = {
    "typing": 0, "validation": 0, "files": 0, "jsonfiles": 0, "console": 0, "activations": 1, "theory": 1, "kernels": 2,
    "cells": 3, "readouts": 4, "layers": 5, "models": 6, "nn": 7, "datasets": 6, "interop": 7, "tasks": 7,
    "training": 8, "analysis": 8, "grids": 9, "report": 9, "wrnn_jax": 10,
}  # fmt: skip
"""A part may import parts of lower rank, and itself. The package's own ``__init__`` is the highest."""
CORE = {"typing", "validation", "activations", "theory", "kernels", "cells", "readouts", "layers", "models", "nn"}
CORE.add("tasks")
EDGE_ONLY = {"orbax", "tyro", "tqdm", "tensorboardX", "matplotlib"}
"""What only training, analysis, reports and programs may import."""

over_files = pytest.mark.parametrize("name", FILES)


def part_of(name):
    """The part of the package that a file belongs to."""
    first = Path(name).parts[0].removesuffix(".py")
    return "wrnn_jax" if first == "__init__" else first


def imported_modules(source, package="wrnn_jax"):
    """Full dotted names of all that a source imports, also inside functions; ``package`` resolves relative ones."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: -node.level + 1 or None] if node.level else []
            base = ".".join(parents + ([node.module] if node.module else []))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_of(name):
    package = ".".join(["wrnn_jax", *Path(name).parts[:-1]])
    return sorted(set(imported_modules(FILES[name].read_text(encoding="utf-8"), package)))


def part_imported(module):
    """The part of the package that ``wrnn_jax.…`` names; a name that is no part comes from its ``__init__``."""
    _, second, *_ = *module.split("."), ""
    return second if second in RANKS else "wrnn_jax"


def test_imports_are_read_as_python_reads_them():
    source = "import a.b, c\nfrom d import e as f\ndef g():\n    from .h import i\n    from .. import j"
    assert set(imported_modules(source, "w.x")) == {"a.b", "c", "d.e", "w.x.h.i", "w.j"}


@over_files
def test_imports_point_one_way(name):
    here = part_of(name)
    assert here in RANKS, f"{name}: give the new part a rank"
    for module in imports_of(name):
        if module.split(".")[0] == "wrnn_jax":
            there = part_imported(module)
            assert there == here or RANKS[there] < RANKS[here], f"{name} ({here}) imports {module} ({there})"


@over_files
def test_packages_stay_where_they_belong(name):
    roots = {module.split(".")[0] for module in imports_of(name)}
    assert "experiments" not in roots
    assert "flax" not in roots or part_of(name) == "nn", "Flax is for wrnn_jax/nn alone"
    if part_of(name) in CORE | {"wrnn_jax"}:
        assert not roots & EDGE_ONLY


def test_importing_the_library_starts_no_device_and_no_heavy_package():
    """A fresh process can still choose its devices afterwards, which JAX refuses once one is in use."""
    program = """
import sys
import jax
import wrnn_jax
heavy = {"flax", "orbax", "matplotlib", "tensorflow", "tensorflow_datasets", "tyro", "tensorboardX", "experiments"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
jax.config.update("jax_num_cpu_devices", 3)
assert len(jax.devices("cpu")) == 3
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=PACKAGE.parent, timeout=120)
