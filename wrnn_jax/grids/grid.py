"""Any pure function for every member of a grid: on all devices, and as many members at once as fit into memory."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from wrnn_jax import console
from wrnn_jax.grids.available import available_bytes
from wrnn_jax.grids.liveness import size, working_bytes
from wrnn_jax.grids.memory import is_out_of_memory, plan
from wrnn_jax.training.members import How, members_mesh, over_members
from wrnn_jax.validation import InvalidValue, require, require_integer


def grid(train: Callable[[Any], Any], members: Any, how: How = "auto", chunk: int | None = None) -> Any:
    """``train`` for every member of a grid, such as a whole run of training for each of many hyper-parameters::

        grid(train, hparams)[m] = train(hparams[m])

    where indices act on the first axis of every leaf. One program is compiled. Members are spread over the devices of
    this process; of those of a device as many are computed at once as fit into its memory, then the others. When it
    runs out all the same, half as many go on; what has been computed is kept.

    Args:
      train: pure; of a pytree of arrays, the member's, such as :class:`wrnn_jax.training.optimizer.Hparams`; gives a
        pytree of arrays.
      members: that pytree with one more axis, the first, for members.
      how: members of a device at once or one after another, see :func:`wrnn_jax.training.members.over_members`.
      chunk: how many members at once, instead of as many as fit.

    Returns:
      What ``train`` gives, with one more axis, on the host.

    Raises:
      InvalidValue: for no member, leaves that do not agree on how many there are, a chunk below 1, or where not even
        one member fits into memory.
    """
    counts = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(members)}
    allowed = "arrays with one first axis, of 1 or more"
    require(len(counts) == 1 and not counts & {(), (0,)}, "members", f"of first axes {sorted(counts)}", allowed)
    ((count,),) = counts
    if chunk is not None:
        require_integer("chunk", chunk, at_least=1)
    mesh = members_mesh(jax.local_devices(), count, how=how)
    program = spread_over(mesh, train, how)
    at_once = min(chunk or _members_that_fit(mesh, train, members, count, how), count)
    done: list[Any] = []
    first = 0
    while first < count:
        # The last chunk is filled up with members that are there already: one shape, one program.
        width = mesh.size * math.ceil(at_once / mesh.size)
        chosen = np.minimum(np.arange(first, first + width), count - 1)
        try:
            results = jax.device_get(program(jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], members)))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if width == mesh.size:
                raise InvalidValue("members", count, "smaller: one alone does not fit into memory") from error
            at_once = max(at_once // 2, 1)
            console.note(f"out of memory: going on with {at_once} members at once")
            continue
        taken = min(width, count - first)
        done.append(jax.tree.map(lambda leaf, taken=taken: leaf[:taken], results))
        first += taken
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *done)


def spread_over(mesh: Mesh, function: Callable[..., Any], how: How) -> Callable[..., Any]:
    """The compiled program of ``function`` for members spread over the mesh."""
    spec = PartitionSpec("grid")
    each = over_members(function, how)
    return jax.jit(jax.shard_map(each, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))


def _members_that_fit(mesh: Mesh, train: Callable[[Any], Any], members: Any, count: int, how: How) -> int:
    def bytes_of(number: int) -> int:
        some = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((number, *leaf.shape[1:]), leaf.dtype), members)
        return size(some) + working_bytes(over_members(train, how), some)

    a_device = math.ceil(count / mesh.size)
    return mesh.size * plan(a_device, bytes_of, available_bytes(mesh.devices.flat[0])).at_once
