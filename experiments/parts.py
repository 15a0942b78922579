"""What a config stands for on this machine, and what its network makes of a sequence."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from wrnn_jax.models import Model
from wrnn_jax.tasks import Task
from wrnn_jax.training.loop import Trainer, make_trainer


class Example(NamedTuple):
    """One unseen sequence, and what a network makes of it."""

    inputs: np.ndarray
    """``(T, D)``"""
    outputs: np.ndarray
    """``(T, O)``, or ``(O,)`` of the last step."""
    targets: np.ndarray
    """Of the task."""
    hidden: Mapping[str, np.ndarray] | None
    """``{place of a layer: (T, C, N)}``, in their order, as :class:`wrnn_jax.models.Model` has it; None of a model that
    has no hidden states, or more than there is room for."""
    fixed: Mapping[str, np.ndarray]
    """The run's own of the task's source, such as a permutation."""


class Parts(NamedTuple):
    """What a config stands for, on this machine."""

    config: Any
    """With nothing left open."""
    task: Task
    model: Model
    shards: int
    """Over how many devices a batch is split: a grid's members keep it, however few of them are left."""

    def trainer(self, members: int | None = None) -> Trainer:
        """Of one run; or of so many members of a grid."""
        train = self.config.train
        how = {"schedule": train.schedule, "decay": train.weight_decay_kind}
        return make_trainer(self.model, self.task, train.batch, members=members, shards=self.shards, **how)
