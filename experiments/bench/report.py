"""What a benchmark found: a table, JSON, and the machine it was found on."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.bench.race import Result
from wrnn_jax import console
from wrnn_jax.files import write_atomically
from wrnn_jax.training.rundir import device


def machine() -> dict[str, str]:
    """What computed: processor, devices, versions."""
    versions = {"python": platform.python_version()}
    for package in ("jax", "flax", "torch"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    return {"processor": _processor(), "devices": device(), "versions": said}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "CPU part"))]
    return f"{named[0] if named else platform.machine()}, {os.cpu_count()} cores"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def seconds(value: float) -> str:
    """Three digits, in s or ms."""
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def mebibytes(value: float) -> str:
    return f"{value / 2**20:,.0f} MiB"


def spread(result: Result) -> str:
    """The median of the rounds and their range."""
    about = "" if result.work == 1 else "≈ "
    return f"{about}{seconds(result.median)} ({seconds(result.fastest)} – {seconds(result.slowest)})"


def write(out: Path, name: str, found: Mapping[str, Any], text: str) -> None:
    """Print the text and keep it with what was found: ``<out>/<name>.json`` and ``.md``."""
    about = machine()
    text = f"{text}\n\n{about['processor']}; {about['devices']}; {about['versions']}\n"
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / f"{name}.json", json.dumps({"machine": about, **found}, indent=2, ensure_ascii=False) + "\n")
    write_atomically(out / f"{name}.md", text)
    console.say(text + str(out / f"{name}.json"))
