"""What the control groups of Linux grant this process, as containers and schedulers set them."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def groups(controller: str, root: Path = ROOT) -> Iterator[tuple[int, Path]]:
    """The version (1 or 2) and folder of all that the process is in, from its own group up to the topmost.

    Args:
      controller: of version 1, such as ``"memory"``.
      root: the folder that the system's ``proc`` and ``sys`` are in.
    """
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        own = top / path.lstrip("/")
        # In a container the path can be the host's, of which nothing is to be seen: its own group is the topmost then.
        for group in (own, *own.parents[: len(own.parts) - len(top.parts)]):
            yield 1 if controllers else 2, group


def cpu_quota(root: Path = ROOT) -> float | None:
    """How many cores' time the process may use, as ``docker --cpus`` and the limits of Kubernetes say; None where none
    of its groups has a limit."""
    quotas = []
    for version, group in groups("cpu", root):
        if version == 2:
            quota, period = number(r"^(\d+) ", group / "cpu.max"), number(r"^\d+ (\d+)", group / "cpu.max")
        else:
            quota, period = (number(r"^(\d+)", group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota and period:
            quotas.append(quota / period)
    return min(quotas, default=None)


def number(pattern: str, path: Path) -> int | None:
    """The number that the pattern's group finds in a file."""
    found = re.search(pattern, read(path), re.MULTILINE)
    return int(found[1]) if found else None


def read(path: Path) -> str:
    """The text of a file; empty, if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
