"""One job at a time writes in a run directory."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from wrnn_jax.validation import InvalidValue, require

try:
    import fcntl
except ImportError:  # Windows has none: nothing is locked there.
    fcntl = None

LOCK = "lock"
"""The file that is locked. It says who holds it, but for the reader of an error alone: the lock is the process's own,
and gone with it, however that ends."""


@contextlib.contextmanager
def locked(folder: Path, joining: bool = False) -> Iterator[None]:
    """Within it the folder, which is made if it is not there, is this job's alone.

    A job may be several processes, also on several hosts: the first has to find nobody there, the others join it. The
    folder is free again when the last of them has ended.

    Args:
      folder: a run directory, or that of a grid.
      joining: whether this process is one more of a job of which another holds the lock.

    Raises:
      InvalidValue: if another job is at work there, or the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _held(folder / LOCK, joining)
    except OSError as error:
        raise InvalidValue("logdir", str(folder), f"a folder that can be written ({error.strerror})") from error
    try:
        yield
    finally:
        _let_go(file, folder / LOCK)


def require_unlocked(folder: Path) -> None:
    """No job is at work in the folder.

    Raises:
      InvalidValue: if one is.
    """
    with contextlib.suppress(OSError):
        file = os.open(folder / LOCK, os.O_RDWR)
        try:
            require(_lock(file, exclusive=True), "logdir", str(folder), _free(file))
        finally:
            os.close(file)


def _held(path: Path, joining: bool) -> int:
    """The file, open and locked: shared, so that others may join, once nobody else was found to hold it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            is_ours = (joining or _lock(file, exclusive=True)) and _lock(file, exclusive=False)
            require(is_ours, "logdir", str(path.parent), _free(file))
            # Whoever held it before may have removed the file between our opening it and our lock.
            if _is_at(file, path):
                if not joining:
                    os.ftruncate(file, 0)
                    os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _let_go(file: int, path: Path) -> None:
    """Unlock it; the last of the job removes it."""
    try:
        with contextlib.suppress(OSError):
            if _lock(file, exclusive=True) and _is_at(file, path):
                path.unlink()
    finally:
        os.close(file)


def _lock(file: int, exclusive: bool) -> bool:
    """Whether it is locked now, by this process. Where the file system has no locks, it is taken for locked."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _free(file: int) -> str:
    """What is allowed instead of a folder in which somebody is at work."""
    holder = os.pread(file, 200, 0).decode(errors="replace").strip() or "another process"
    return f"a folder in which no other run is under way: {holder} is at work there"


def _is_at(file: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), os.stat(path))
    return False
