"""The memory plan of a grid: how many members fit on a device at once; XLA's own account; what shortage looks like."""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import jax

from wrnn_jax.validation import require, require_integer

MARGIN = 0.15
"""The share of a device's free memory that a plan leaves: for what the estimate misses, and for fragmentation."""


class Plan(NamedTuple):
    """What :func:`plan` returns, all of it for one device."""

    at_once: int
    """Members that run at once, 1 or more."""
    rounds: int
    """How many times as many, for all of them."""
    bytes: int
    """The estimate for those at once."""
    capacity: int | None
    """What they may take, the margin left out; None where that is not known."""

    @property
    def fits(self) -> bool:
        """False if even one member is estimated to take more than there is."""
        return self.capacity is None or self.bytes <= self.capacity


def plan(members: int, bytes_of: Callable[[int], int], available: int | None) -> Plan:
    """The fewest rounds that fit, evenly filled::

        bytes_of(at_once) ≤ (1 − MARGIN) · available,      rounds = ⌈members / at_once⌉

    Args:
      members: those of the grid that one device is to train.
      bytes_of: number of members at once -> bytes on one device; linear, or the largest of several linear ones (of
        several programs). So its chord from 1 to ``members`` is nowhere below it, and tells what fits for certain.
      available: bytes, as :func:`available_bytes` gives them; None plans all members at once.

    Raises:
      InvalidValue: for less than one member, or less than nothing available.
    """
    require_integer("members", members, at_least=1)
    if available is None:
        return Plan(members, 1, bytes_of(members), None)
    require(available >= 0, "available", available, "0 bytes or more")
    capacity = int((1 - MARGIN) * available)
    rounds = math.ceil(members / _most(members, bytes_of, capacity))
    at_once = math.ceil(members / rounds)
    return Plan(at_once, math.ceil(members / at_once), bytes_of(at_once), capacity)


def _most(members: int, bytes_of: Callable[[int], int], capacity: int) -> int:
    """The largest number of members that fits by the chord, or 1."""
    of_all = bytes_of(members)
    if members == 1 or of_all <= capacity:
        return members
    of_one = bytes_of(1)
    return max(1, 1 + (capacity - of_one) * (members - 1) // max(1, of_all - of_one))


def compiled_bytes(compiled: jax.stages.Compiled) -> int | None:
    """What a compiled program takes on each device by XLA's own account::

        arguments + results − results written over donated arguments + temporaries + code

    None where the backend gives no account. All temporaries are one allocation, so that this much must be there.
    """
    account = compiled.memory_analysis()
    if account is None:
        return None
    return (
        account.argument_size_in_bytes
        + account.output_size_in_bytes
        - account.alias_size_in_bytes
        + account.temp_size_in_bytes
        + account.generated_code_size_in_bytes
    )


# Not every one is a RESOURCE_EXHAUSTED: a computation on what another one should have returned, which had no memory,
# says "INTERNAL: Error dispatching computation: Out of memory allocating …".
_NO_MEMORY = re.compile(r"out[ _]of[ _]memory|RESOURCE_EXHAUSTED.*(allocat|no memory)", re.IGNORECASE)
_ON_CHIP = re.compile(r"shared memory|memory space (?!hbm)", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device's memory, or the host's, was too small: not, as ``RESOURCE_EXHAUSTED`` can also mean, the memory
    on a chip for one kernel, nor the length of a message between hosts.

    A program is computed after its call has returned, so that mostly whatever first waits for a result raises this.
    Arguments that were donated to the program are then lost.
    """
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, jax.errors.JaxRuntimeError):
        return False
    line = str(error).partition("\n")[0]  # What may follow is a list of all buffers.
    return bool(_NO_MEMORY.search(line)) and not _ON_CHIP.search(line)
