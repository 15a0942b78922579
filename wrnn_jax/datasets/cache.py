"""Decoded images, kept from one run to the next: reading them takes a hundredth of the time to decode them."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

LAYOUT = 1
"""To be raised when other arrays are kept: what was kept before is then not found."""


def path_for(name: str, files: Iterable[Path]) -> Path:
    """Where the arrays that come from these files are kept; with a file's name, size or time changes the place.

    Below ``$XDG_CACHE_HOME``, or else ``~/.cache``.
    """
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(repr((LAYOUT, name, sorted(facts))).encode()).hexdigest()[:16]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "wrnn_jax" / "datasets" / f"{name}-{key}.npz"


def read(path: Path, names: Collection[str]) -> dict[str, np.ndarray] | None:
    """The arrays of these names; None if they are not there, or not whole (each has a checksum)."""
    try:
        with path.open("rb") as file, np.load(file) as kept:
            return {name: kept[name] for name in names}
    except Exception:  # what a damaged file raises depends on the damage: it is as good as none
        return None


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep the arrays, all or none of them. What cannot be written is not kept: that only costs time."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with open(descriptor, "wb") as file:
                np.savez(file, **arrays)
            os.replace(part, path)
        finally:
            Path(part).unlink(missing_ok=True)
