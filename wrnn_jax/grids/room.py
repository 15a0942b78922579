"""What a run takes of the memory of its devices, and how many members of a sweep fit: planned before they are compiled,
checked after."""

import math
from functools import cache, partial
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
    """How many members to train at once, on all devices of the trainer together.

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
        slots = jax.ShapeDtypeStruct((members_a_device * grid,), np.int32)
        states = jax.eval_shape(trainer.init, slots)
        many = jax.tree.map(lambda _: slots.update(dtype=np.float32), hparams)
        calls = [working_bytes(trainer.advance, states, many, slots)]
        calls += [working_bytes(partial(_evaluate, trainer, split), states) for split in task.splits]
        return size(states) // grid + max(calls)

    on_each = plan(math.ceil(members / grid), bytes_of, available_bytes(trainer.mesh.devices.flat[0]))
    return on_each._replace(at_once=min(grid * on_each.at_once, members))


def run_bytes(trainer: Trainer, task: Task, hparams: Hparams) -> int:
    """Estimate of what a run takes on each device of its trainer, beside the data set, which is there already.

    Args:
      trainer: of one run.
      task: what it was made for.
      hparams: the run's.
    """
    state = jax.eval_shape(trainer.init, 0)
    calls = [working_bytes(trainer.advance, state, hparams, 0)]
    calls += [working_bytes(partial(_evaluate, trainer, split), state) for split in task.splits]
    return size(state) + max(calls)


def bytes_by_xla(trainer: Trainer, *arguments: Any) -> int | None:
    """What a call of training with these arguments takes on each device by XLA's own account; compiles it."""
    return compiled_bytes(trainer.advance.func.lower(*trainer.advance.args, *arguments).compile())


def fits(plan: Plan, by_xla: int | None) -> bool:
    """Whether what XLA says of the plan's members is within what there is."""
    return plan.capacity is None or by_xla is None or by_xla <= plan.capacity


def told(plan: Plan, by_xla: int | None) -> str:
    """The plan for a reader."""
    parts = [f"{_mebibytes(plan.bytes)} on each device by estimate"]
    if by_xla is not None:
        parts.append(f"{_mebibytes(by_xla)} by XLA's account")
    if plan.capacity is not None:
        parts.append(f"of {_mebibytes(plan.capacity)}")
    return ", ".join(parts)


def _evaluate(trainer: Trainer, split: str, states: Any) -> Any:
    return trainer.evaluate(states, split)


def _mebibytes(number: int) -> str:
    return f"{number / 2**20:,.1f} MiB"
