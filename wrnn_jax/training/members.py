"""Members of a grid: over the axis that counts them, and over the devices."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh

from wrnn_jax.validation import require_choice

How = Literal["auto", "vmap", "map"]
HOW = ("auto", "vmap", "map")
SPLITTING = 1.1
"""By what a step takes longer, times devices, where they share a batch: they wait for each other."""


def over_members(function: Callable[..., Any], how: How = "auto") -> Callable[..., Any]:
    """``function`` for every member of a grid::

        over_members(f)(a, b)[m] = f(a[m], b[m])

    where indices act on the first axis of every leaf. Same numbers, up to rounding, in either way:

    Args:
      function: pure; of any number of pytrees of arrays.
      how: ``"vmap"`` computes all members at once, ``"map"`` one after another (``lax.map``) in one program.
        ``"auto"`` is the map on a CPU, whose cores one member keeps busy: batched over members its working set would
        only leave their caches. It is vmap on accelerators, which one member leaves idle.

    Raises:
      ValueError: for another ``how``.
    """
    if resolved(how) == "vmap":
        return jax.vmap(function)
    return lambda *members: lax.map(lambda member: function(*member), members)


def resolved(how: How) -> Literal["vmap", "map"]:
    """What ``"auto"`` is here.

    Raises:
      ValueError: for another ``how``.
    """
    require_choice("how", how, HOW)
    if how != "auto":
        return how
    return "map" if jax.default_backend() == "cpu" else "vmap"


def members_mesh(
    devices: Sequence[jax.Device],
    members: int,
    batch_size: int = 1,
    how: How = "auto",
    shards: int | None = None,
    least: int = 1,
) -> Mesh:
    """The devices as a mesh of axes ``"grid"``, over which members are spread, and ``"batch"``, over which the batch
    of each of them is.

    Members are spread over as many devices as there are members; what devices are left over split batches, as many
    as divide it evenly. One after another (``"map"``), whatever is sooner done: three members on two devices take
    two turns of a whole batch, or three of half a batch each.

    ``least`` is the fewest sequences that a part of a batch has: of those that a loop computes side by side, a smaller
    part takes as long.

    ``shards``, where it is given, is over how many devices a batch is split, whoever is left: a sum over the batch
    rounds as its parts do, so a member's last digits depend on them.
    """
    if shards is not None:
        grid = min(len(devices) // shards, members)
        return Mesh(np.array(devices[: grid * shards]).reshape(grid, shards), ("grid", "batch"))

    def split(grid: int) -> int:
        most = max(1, min(len(devices) // grid, batch_size // least))
        return max(n for n in range(1, most + 1) if batch_size % n == 0)

    def turns(grid: int) -> float:
        return math.ceil(members / grid) / split(grid) * (SPLITTING if split(grid) > 1 else 1.0)

    most = min(len(devices), members)
    grid = most if resolved(how) == "vmap" else min(range(most, 0, -1), key=turns)
    return Mesh(np.array(devices[: grid * split(grid)]).reshape(grid, split(grid)), ("grid", "batch"))
