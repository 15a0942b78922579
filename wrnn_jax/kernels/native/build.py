"""Compile the native kernels for this machine, once: ``python3 -m wrnn_jax.kernels.native.build``."""

import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jaxlib

SOURCE = Path(__file__).with_name("unroll.cc")
THIS_CPU = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
FLAGS = ("-std=c++17", "-O3", THIS_CPU, "-ffp-contract=fast", "-shared", "-fPIC")
FAILURE = 2


class BuildError(Exception):
    """No compiler, or one that failed: a line that says so."""


def library_path() -> Path:
    """Where the compiled kernels are, or would be.

    The name tells apart what makes them fit or not: the instructions of the processor (a home is often shared by
    several kinds), the source, the headers of jaxlib, the flags.
    """
    parts = (_instructions(), SOURCE.read_text(encoding="utf-8"), jaxlib.__version__, *FLAGS)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "wrnn_jax" / "native" / f"{platform.machine()}-{digest}.so"


@functools.cache
def _instructions() -> str:
    """What the processor knows, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    known = [line for line in lines if line.startswith(("flags", "Features"))]
    return known[0] if known else f"{platform.machine()} {platform.processor()}"


def build() -> Path:
    """Compile them, whether or not they are there already, to ``library_path``.

    Raises:
        BuildError: without a compiler, or with one that fails.
        OSError: for a cache folder that cannot be written.
    """
    path, compiler = library_path(), find_compiler()
    if compiler is None:
        raise BuildError("no C++ compiler: neither $CXX nor c++, g++ or clang++ is there")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written beside and renamed: another process finds all of it or nothing.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [*compiler, *FLAGS, "-isystem", jax.ffi.include_dir(), str(SOURCE), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not made.is_file():
            said = [*done.stderr.splitlines(), f"exit code {done.returncode}"]
            raise BuildError(f"{shlex.join(compiler)}: {next((line for line in said if 'error' in line), said[0])}")
        made.replace(path)
    return path


def main() -> int:
    """Build, say where to and how long it took, and give the exit code."""
    started = time.perf_counter()
    try:
        path = build()
    except (BuildError, OSError) as error:
        print(f"native kernels not built: {error}", file=sys.stderr)
        return FAILURE
    print(f"{path}: built in {time.perf_counter() - started:.0f} s")
    return 0


def find_compiler() -> tuple[str, ...] | None:
    """The command of the C++ compiler: $CXX if that is set, else the first there is."""
    chosen = tuple(shlex.split(os.environ.get("CXX", "")))
    for command in [chosen] if chosen else [("c++",), ("g++",), ("clang++",)]:
        if shutil.which(command[0]):
            return command
    return None


if __name__ == "__main__":
    sys.exit(main())
