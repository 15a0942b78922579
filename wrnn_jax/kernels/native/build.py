"""Compile the native kernels for this machine, once: ``python3 -m wrnn_jax.kernels.native.build``.

Experiments do so by themselves where it pays, with :func:`build_once`.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from wrnn_jax.kernels.native import library
from wrnn_jax.kernels.native.library import (
    COMMAND,
    FLAGS,
    SOURCE,
    VARIABLE,
    Unfit,
    file_name,
    find,
    require_private,
    stem,
)

FAILURE = 2
COMPILING_SECONDS = 600.0
"""After which a compiler counts as one that fails."""
WAITING_SECONDS = 120.0
"""How long a process waits for another one that compiles."""


class BuildError(Exception):
    """No compiler, or one that failed: a line that says so."""


def build() -> Path:
    """Compile them, whether or not they are there already, into ``library.folder()``.

    Raises:
        BuildError: without a compiler, or with one that fails.
        Unfit: for a cache folder that others own, or that stays open to others.
        OSError: for one that cannot be written.
    """
    compiler = find_compiler()
    if compiler is None:
        raise BuildError("no C++ compiler: neither $CXX nor c++, g++ or clang++ is there")
    folder = _own_folder()
    earlier = find()
    # Written beside and renamed: another process finds all of it or nothing.
    with tempfile.TemporaryDirectory(dir=folder) as work:
        made = Path(work) / "made.so"
        command = [*compiler, *FLAGS, "-isystem", jax.ffi.include_dir(), str(SOURCE), "-o", str(made)]
        _run(compiler, command)
        made.chmod(0o700)
        path = folder / file_name(made.read_bytes())
        made.replace(path)
    for other in {*earlier, _failed()} - {path}:
        other.unlink(missing_ok=True)
    return path


def _run(compiler: tuple[str, ...], command: list[str]) -> None:
    environment = os.environ | {"LC_ALL": "C"}  # So that an error is called one.
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=COMPILING_SECONDS,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"{shlex.join(compiler)}: not done after {COMPILING_SECONDS:.0f} s") from None
    if done.returncode or not Path(command[-1]).is_file():
        said = [*done.stderr.splitlines(), f"exit code {done.returncode}"]
        raise BuildError(f"{shlex.join(compiler)}: {next((line for line in said if 'error' in line), said[0])}")


def _own_folder() -> Path:
    """The cache folder, made if it is not there. One that was open to others is closed, and what was in it removed."""
    folder = library.folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        require_private(folder)
    except Unfit:
        if folder.stat().st_uid != os.geteuid():
            raise
        folder.chmod(0o700)
        for path in folder.glob("*.so"):
            path.unlink(missing_ok=True)
        require_private(folder)
    return folder


def build_once(say: Callable[[str], object]) -> bool:
    """Compile them if they are not there, and are wanted and can be compiled; whether they are there now.

    Where there is no compiler or no folder that can be written they stay away without a word. Of processes that start
    together one compiles and the others wait for it. A compiler that failed is not tried again.

    Args:
        say: is given a line before it takes its time, and one if it fails.
    """
    if library.loaded():
        return True
    compiler = find_compiler()
    if library.is_declined() or compiler is None or os.name != "posix":
        return False
    with contextlib.suppress(OSError, RuntimeError, Unfit):  # RuntimeError: no home to keep them in
        folder = library.folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (folder, *find()):
            require_private(path)  # One that is not has been complained of already, and is left alone.
        with _locked(folder / f"{stem()}.lock") as is_ours:
            if is_ours and not library.loaded() and not _has_failed(compiler):
                _try_to_build(compiler, say)
    return library.loaded() is not None


def _try_to_build(compiler: tuple[str, ...], say: Callable[[str], object]) -> None:
    say(f"compiling the native kernels for this processor, once, in some 10 s ({VARIABLE}=0 does without)")
    try:
        path = build()
        if not library.loaded():
            path.unlink(missing_ok=True)
            raise BuildError(f"{path} cannot be loaded")
    except BuildError as error:
        _failed().write_text(_account(compiler))
        say(f"native kernels not built, and not tried again: {error}; when that is mended: {COMMAND}")


def _failed() -> Path:
    """The file that tells that a compiler failed."""
    return library.folder() / f"{stem()}.failed"


def _account(compiler: tuple[str, ...]) -> str:
    """Which compiler it was: another one, or a newer one of that name, may do."""
    program = Path(shutil.which(compiler[0])).resolve()
    return f"{shlex.join(compiler)}, {program} of {program.stat().st_mtime_ns}\n"


def _has_failed(compiler: tuple[str, ...]) -> bool:
    try:
        return _failed().read_text() == _account(compiler)
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether the file was locked, after waiting for whoever has it. The lock is gone with its process.

    Where the file system knows no locks it counts as locked: two that compile do each other no harm.
    """
    import fcntl  # which is only where there is also a shared library to build

    with path.open("a") as file:
        until = time.monotonic() + WAITING_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    yield False
                    return
                time.sleep(0.2)
                continue
            except OSError:
                pass
            yield True
            return


def main() -> int:
    """Build, say where to and how long it took, and give the exit code."""
    started = time.perf_counter()
    try:
        path = build()
    except (BuildError, Unfit, OSError, RuntimeError) as error:
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
