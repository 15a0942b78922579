"""What is free of a device's memory."""

import os
from collections.abc import Iterator
from pathlib import Path

import jax

from wrnn_jax.grids import cgroups
from wrnn_jax.grids.cgroups import number, read


def available_bytes(device: jax.Device) -> int | None:
    """What is free of a device's memory for this process now; None where that cannot be known.

    On an accelerator: what no array uses of the share that JAX takes, three quarters if not told otherwise.
    On a CPU: :func:`host_bytes` divided by the CPU devices, which share it.
    """
    if device.platform == "cpu":
        free = host_bytes()
        return free and free // len(jax.local_devices(backend="cpu"))
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None


def host_bytes(root: Path = Path("/")) -> int | None:
    """What this process may still take of the host's memory: the least of what the system has available, what the
    process's control groups leave it (version 1 or 2, as SLURM sets them), and its own limits (``ulimit -v``, ``-d``).
    None where the system tells none of them.

    Args:
      root: the folder that the system's ``proc`` and ``sys`` are in.
    """
    free = [*_system_has(root), *_control_groups_leave(root), *_own_limits_leave(root)]
    return max(0, min(free)) if free else None


def _system_has(root: Path) -> Iterator[int]:
    available = number(r"^MemAvailable:\s*(\d+) kB", root / "proc/meminfo")
    if available is not None:
        yield 1024 * available
    elif "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


_MEMORY_FILES = {
    1: (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
    2: (("memory.max", "memory.high"), "memory.current", "inactive_file"),
}
"""By the version of control groups: files of limits, file of the usage, and what of that is a cache of files, given up
when memory runs short."""


def _control_groups_leave(root: Path) -> Iterator[int]:
    """Of all those that the process is in, from its own group up to the topmost."""
    for version, group in cgroups.groups("memory", root):
        limits, usage, cache = _MEMORY_FILES[version]
        used = number(r"^(\d+)", group / usage)
        for limit in (number(r"^(\d+)", group / name) for name in limits):
            if used is not None and limit is not None:
                yield limit - used + (number(rf"^{cache} (\d+)", group / "memory.stat") or 0)


def _own_limits_leave(root: Path) -> Iterator[int]:
    """Of the address space and of the data segment."""
    try:
        import resource  # Windows has none.
    except ImportError:
        return
    pages = read(root / "proc/self/statm").split()
    for kind, field in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
        limit, _ = resource.getrlimit(kind)
        if pages and limit != resource.RLIM_INFINITY:
            yield limit - int(pages[field]) * resource.getpagesize()
