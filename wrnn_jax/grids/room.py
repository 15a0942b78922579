"""How many members of a sweep fit into the memory of its devices: planned before they are compiled, checked after."""

import math
from functools import cache
from typing import Any

import jax
import numpy as np

from wrnn_jax.grids.available import available_bytes
from wrnn_jax.grids.liveness import size, working_bytes
from wrnn_jax.grids.memory import Plan, compiled_bytes, plan
from wrnn_jax.tasks.base import Task
from wrnn_jax.training.loop import Trainer
from wrnn_jax.training.optimizer import Hparams


def plan_members(trainer: Trainer, task: Task, hparams: Hparams, members: int) -> Plan:
    """How many members a device of the trainer trains at once.

    On each device there are its members' states, and what the largest of several programs works on: a call of training,
    or an evaluation. The data set is there already.

    Args:
      trainer: of all members.
      task: what it was made for.
      hparams: of one of them.
      members: how many they are.
    """
    grid = trainer.mesh.shape["grid"]

    @cache
    def bytes_of(members_a_device: int) -> int:
        slots = members_a_device * grid
        states, many = _shapes(trainer, hparams, slots)
        until = jax.ShapeDtypeStruct((slots,), np.int32)
        calls = [
            working_bytes(trainer.advance.func, *trainer.advance.args, states, many, until),
            *(
                working_bytes(lambda states, split=split: trainer.evaluate(states, split), states)
                for split in task.splits
            ),
        ]
        return size(states) // grid + max(calls)

    return plan(math.ceil(members / grid), bytes_of, available_bytes(trainer.mesh.devices.flat[0]))


def bytes_by_xla(trainer: Trainer, *arguments: Any) -> int | None:
    """What a call of training with these arguments takes on each device by XLA's own account; compiles it."""
    return compiled_bytes(trainer.advance.func.lower(*trainer.advance.args, *arguments).compile())


def _shapes(trainer: Trainer, hparams: Hparams, slots: int) -> tuple[Any, Any]:
    states = jax.eval_shape(trainer.init, jax.ShapeDtypeStruct((slots,), np.int32))
    return states, jax.tree.map(lambda _: jax.ShapeDtypeStruct((slots,), np.float32), hparams)
