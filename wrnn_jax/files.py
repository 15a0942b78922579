"""Files that are whole after a crash, of the process or of the machine.

A file's bytes are on the disk once the file is synced, its name once the folder is: only then may anything that stands
for it be deleted, or anything that relies on it be written.
"""

import contextlib
import os
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write beside, then rename: readers see the old file or the new one, whole, and what is renamed stays so.

    Raises:
      OSError: if it cannot be written; the old file is then as it was.
    """
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync(path.parent)


def append(path: Path, content: bytes) -> None:
    """Add bytes to the end of a file, made if it is not there, and let the disk have them.

    They are one call of the system, so that a process which is killed has added all of them or none.

    Raises:
      OSError: if not all of them could be written.
    """
    is_new = not path.exists()
    with path.open("ab", buffering=0) as file:
        # A disk that is nearly full takes a part of them, and says why only when asked for the rest.
        while content:
            content = content[file.write(content) :]
        os.fsync(file.fileno())
    if is_new:
        sync(path.parent)


def make_folder(path: Path) -> None:
    """A folder, with those above it, where there is none; the disk knows of it."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def sync(path: Path) -> None:
    """Let the disk have what the system holds of one file, or of a folder's list of names."""
    # Some file systems know no syncing of folders (EINVAL) or let nobody open them: there nothing better can be done.
    folder = path.is_dir()
    with contextlib.suppress(OSError) if folder else contextlib.nullcontext():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Let the disk have all files below a folder, and their names, before the name of the folder itself."""
    for inside in folder.iterdir():
        if inside.is_symlink():
            continue
        if inside.is_dir():
            sync_tree(inside)
        else:
            sync(inside)
    sync(folder)
