"""What a task is to the training loop."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from wrnn_jax.typing import Array, Key, Signature
from wrnn_jax.validation import require

TEST_KEY = 1
"""The test set of a task without data of its own is drawn from key 0 folded with this: a child of key 0, while every
seed's training data is drawn from grandchildren."""


class Source(NamedTuple):
    """The arrays that sequences are made of: arguments of the compiled program, not constants in it."""

    data: Any = ()
    """What a machine can load again, such as images: never in a checkpoint."""
    fixed: Mapping[str, Array] = MappingProxyType({})
    """What belongs to the run, such as a permutation: in every checkpoint, from where a resumed run takes it."""


class Progress(NamedTuple):
    """Where a run stands."""

    step: Array
    """Optimiser steps done, int32."""
    level: Array | int = 0
    """Of the task's curriculum, int32; 0 where it has none."""


class Curriculum(NamedTuple):
    """Levels that training goes through, each harder than the one before: on to the next once a batch is mastered.

    ================================  =========================================================
    ``mastery(outputs, targets)``     -> how well a training batch was done, a mean over sequences
    ================================  =========================================================
    """

    levels: int
    mastery: Callable[[Array, Any], Array]
    threshold: float
    """A mastery above this ends a level."""

    def level_after(self, level: Array, mastery: Array) -> Array:
        """The level of the next step."""
        return jnp.minimum(level + (mastery > self.threshold), self.levels - 1)


class Split(NamedTuple):
    """Sequences to evaluate on; all but those of ``"train"`` are never trained on.

    ==============================  ==========================================================
    ``examples(source, indices)``   indices ``(B,)`` from 0 to size − 1
                                    -> (inputs ``(B, T, D)``, targets)
    ``metrics(outputs, targets)``   -> named values ``(B,)``, whose means over the split count
    ==============================  ==========================================================
    """

    size: int
    examples: Callable[[Source, Array], tuple[Array, Array]]
    metrics: Callable[[Array, Array], dict[str, Array]]


class Task(NamedTuple):
    """Data, loss, metrics, and what chance scores.

    ======================================  ====================================================
    ``batch(source, key, progress, size)``  -> (inputs ``(B, T, D)``, targets), the training batch
                                            of a step, made or gathered on the device
    ``loss(outputs, targets)``              -> the scalar that is minimised, a mean over sequences
    ``solved(metrics)``                     -> whether such metrics call the task solved
    ======================================  ====================================================
    """

    signature: Signature
    """Its sizes: what it asks of a model."""
    batch: Callable[[Source, Key, Progress, int], tuple[Array, Any]]
    loss: Callable[[Array, Any], Array]
    splits: Mapping[str, Split]
    """``"test"``; ``"val"`` where validation picks the parameters, on which alone the test set is then read; and
    ``"train"``, a sample of the training set, where the course of training is measured on that too."""
    monitor: str
    """The loss that is watched in the course of training, a metric of ``"val"``, or of ``"test"`` where there is no
    validation."""
    chance: Mapping[str, float]
    """Metrics of one who knows the task but remembers nothing."""
    solved: Callable[[Mapping[str, float]], bool] = lambda metrics: False
    score: str | None = None
    """The metric of ``"val"`` whose best value picks the parameters."""
    score_falls: bool = False
    """Whether the best value of the score is the least, not the greatest."""
    source: Source = Source()
    train_size: int | None = None
    """Training sequences, all of which an epoch goes through; None where every batch is fresh."""
    curriculum: Curriculum | None = None
    loss_divisor: Callable[[int], float | None] = lambda batch: None
    """What to train on: the loss divided by this number, for batches of a size; None is 1."""
    notes: Mapping[str, str] = MappingProxyType({})
    """What a reader of the results must know of the data."""
    settled: Mapping[str, Any] = MappingProxyType({})
    """Fields of its config that were left open, and what they come to by the data."""

    def scored(self, metrics: Mapping[str, Array]) -> Array:
        """How good such metrics of ``"val"`` are, by the score: the greater the better."""
        value = metrics[self.score]
        return -value if self.score_falls else value

    @property
    def watched(self) -> Literal["val", "test"]:
        """The split that is evaluated in the course of training."""
        return "val" if "val" in self.splits else "test"

    def epoch_steps(self, batch: int) -> int | None:
        """Whole batches in an epoch; None where there are no epochs.

        Raises:
          InvalidValue: for a batch larger than an epoch.
        """
        if self.train_size is None:
            return None
        require(batch <= self.train_size, "batch", batch, f"at most {self.train_size}, the training set")
        return self.train_size // batch


def fresh(
    generate: Callable[[Key, int], tuple[Array, Array]],
) -> Callable[[Source, Key, Progress, int], tuple[Array, Array]]:
    """``Task.batch`` of random sequences, new ones at every step: ``generate(key, size)`` draws them."""
    return lambda source, key, progress, size: generate(jax.random.fold_in(key, progress.step), size)


def held_out(
    generate: Callable[[Key, int], tuple[Array, Array]],
    size: int,
    metrics: Callable[[Array, Array], dict[str, Array]],
) -> Split:
    """A fixed set of ``size`` random sequences, the same for every seed."""

    def example(index: Array) -> tuple[Array, Array]:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), TEST_KEY), index)
        return jax.tree.map(lambda array: array[0], generate(key, 1))

    return Split(size, lambda source, indices: jax.vmap(example)(indices), metrics)
