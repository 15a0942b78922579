"""The compiled kernels as a file in the user's cache, and whether it may be loaded.

It is code that runs as the user: only what nobody else can have put there or changed is loaded, and if it is whole.
"""

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import stat
import subprocess
from pathlib import Path

import jaxlib

VARIABLE = "WRNN_JAX_NATIVE"
"""The environment variable that declines the kernels: with 0 they are neither compiled nor loaded."""
COMMAND = "python3 -m wrnn_jax.kernels.native.build"
"""What compiles them."""
SOURCE = Path(__file__).with_name("unroll.cc")
THIS_CPU = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
FLAGS = ("-std=c++17", "-O3", THIS_CPU, "-ffp-contract=fast", "-shared", "-fPIC")


class Unfit(Exception):
    """A file or folder that is not the user's alone, or a library that is not whole: what is wrong, in words."""


def is_declined() -> bool:
    """Whether the user does without them."""
    return os.environ.get(VARIABLE) == "0"


def folder() -> Path:
    """Where they are kept: below ``$XDG_CACHE_HOME``, or else ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "wrnn_jax" / "native"


@functools.cache
def stem() -> str:
    """How the file's name begins. It tells apart what makes a library fit or not: the instructions of the processor (a
    home is often shared by several kinds), the source, the headers of jaxlib, the flags."""
    parts = (_instructions(), SOURCE.read_text(encoding="utf-8"), jaxlib.__version__, *FLAGS)
    return f"{platform.machine()}-{_digest(chr(0).join(parts).encode())}"


def file_name(content: bytes) -> str:
    """The whole name, which ends with the digest of what is in the file: one that was cut short or changed is known."""
    return f"{stem()}-{_digest(content)}.so"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _instructions() -> str:
    """What the processor knows, as far as the system tells."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    with contextlib.suppress(OSError, subprocess.CalledProcessError):  # a Mac: its processors differ by their names
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return f"{platform.machine()} {platform.processor()}"


def find() -> list[Path]:
    """The files that are there for this processor and source: one, if all is well."""
    return sorted(folder().glob(f"{stem()}-*.so"))


def loaded() -> ctypes.CDLL | None:
    """The compiled kernels; None where they are declined, have not been compiled, or may not be loaded.

    Why one that is there may not be loaded is logged once.
    """
    if is_declined():
        return None
    try:
        return _load()
    except Unfit as error:
        complain(f"not loaded: {error} (see {COMMAND})")
    except (OSError, RuntimeError):  # Nothing there, or nowhere to look, as without a home.
        pass
    return None


@functools.cache
def complain(text: str) -> None:
    """Log a line on the kernels, each only once."""
    logging.getLogger("wrnn_jax").warning("native kernels %s", text)


@functools.cache  # which does not keep errors: what is not there now may be later
def _load() -> ctypes.CDLL:
    require_private(folder())
    if not (found := find()):
        raise FileNotFoundError
    path = found[0]
    require_private(path)
    content = path.read_bytes()
    if path.name != file_name(content):
        raise Unfit(f"{path} is damaged")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise Unfit(f"{path} cannot be loaded: {error}") from error
    library.wrnn_lanes.restype = library.wrnn_state_size.restype = ctypes.c_int64
    library.wrnn_state_size.argtypes = [ctypes.c_int64] * 3
    return library


def require_private(path: Path) -> None:
    """The file or folder is the user's own, and nobody else's to write; a folder may also be a link of the user's own.

    Raises:
        Unfit: if it is not.
        OSError: if it cannot be looked at.
    """
    for about in [path.lstat(), *([path.stat()] if path.is_dir() else [])]:
        if about.st_uid != os.geteuid():
            raise Unfit(f"{path} belongs to another user")
    if not stat.S_ISDIR(about.st_mode) and not stat.S_ISREG(about.st_mode):
        raise Unfit(f"{path} is a link or no file")
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Unfit(f"{path} can be written by others")
