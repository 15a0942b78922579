"""The native kernels in experiments: compiled by the first training that gains more time by them than that takes; and
their share of a batch."""

from typing import Any

import jax
import jax.numpy as jnp

from wrnn_jax import console
from wrnn_jax.cells.base import NATIVE_BATCH
from wrnn_jax.kernels import native
from wrnn_jax.kernels.native.build import build_once
from wrnn_jax.tasks import Progress, Source, Task
from wrnn_jax.training.members import How, members_mesh
from wrnn_jax.typing import Array

WORTH = 2e9
"""The states of neurons to be computed from which on compiling pays: each takes some 5 ns less (of a Wave-RNN, training
included, on two CPU cores: ``python3 -m experiments.bench kernels``), and compiling takes some 10 s."""


def compile_if_it_pays(config: Any, task: Task, members: int) -> None:
    """Compile them, where ``auto`` would then take them, for as much training as a config asks for.

    Args:
      config: an experiment's, its training resolved.
      task: its task.
      members: how many of a grid are trained so.
    """
    would_be_taken = config.model.backend_for(task.signature, config.train.batch, native_is_built=True)
    if would_be_taken != "native" or native.is_built() or config.model.backend != "auto":
        return
    if members * _states(config, task) >= WORTH:
        build_once(console.say)


def shards_of_batch(backend: str | None, batch: int, members: int, how: How = "auto") -> int:
    """Over how many devices the batch of each of ``members`` is split, for a backend that was chosen for all of it."""
    least = NATIVE_BATCH if backend == "native" else 1
    return members_mesh(jax.local_devices(), members, batch, how, least=least).shape["batch"]


def _states(config: Any, task: Task) -> float:
    """B·T·C·N of all training steps."""

    def draw(source: Source) -> Array:
        return task.batch(source, jax.random.key(0), Progress(jnp.int32(0), jnp.int32(0)), config.train.batch)[0]

    batch, steps, _ = jax.eval_shape(draw, Source(task.source.data, dict(task.source.fixed))).shape
    return float(batch) * steps * config.model.width(task.signature) * config.train.max_steps
