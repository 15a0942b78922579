"""The adding task: the sum of two marked numbers (Keller et al. 2024, section 3.1)."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from wrnn_jax.tasks.base import Task, fresh, held_out
from wrnn_jax.typing import Array, Key, Signature
from wrnn_jax.validation import require, require_integer

TEST_SIZE = 1000
SOLVED_MSE = 5e-2


@dataclass(frozen=True)
class AddingConfig:
    """The adding task's own flags."""

    T: int = 1000
    """Steps of a sequence."""

    def __post_init__(self):
        require_integer("T", self.T, at_least=0)
        require(self.T >= 2, "T", self.T, "2 or more: a marker in each half")

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and features of a training sequence."""
        return self.T, 2


def adding_batch(key: Key, size: int, T: int) -> tuple[Array, Array]:
    """Fresh random sequences of the adding task.

    Inputs ``(B, T, 2)``: values from U[0, 1), and a marker that is 1 at one step of the first half
    (0 … ⌊T/2⌋ − 1), at one of the second (⌊T/2⌋ … T − 1), and else 0. Targets ``(B, 1)``: the sum of
    the two marked values.
    """
    values_key, first_key, second_key = jax.random.split(key, 3)
    values = jax.random.uniform(values_key, (size, T))
    half = T // 2
    first = jax.random.randint(first_key, (size, 1), 0, half)
    second = jax.random.randint(second_key, (size, 1), half, T)
    steps = jnp.arange(T)[None]
    markers = ((steps == first) | (steps == second)).astype(values.dtype)
    return jnp.stack([values, markers], axis=-1), (values * markers).sum(axis=-1, keepdims=True)


def adding_task(config: AddingConfig) -> Task:
    """The adding task as data, loss and metrics, read from the last step.

    The one metric, ``test_mse``, is the squared error, whose mean over a fixed set of 1,000 sequences
    counts. Solved: a mean of at most 5e-2.

    Chance is the constant answer 1, the mean of the sum: its squared error is the variance of the sum
    of two U[0, 1), 1/6.
    """

    def generate(key: Key, size: int) -> tuple[Array, Array]:
        return adding_batch(key, size, config.T)

    def squared_error(outputs: Array, targets: Array) -> Array:
        return jnp.square(outputs - targets)[:, 0]

    def loss(outputs: Array, targets: Array) -> Array:
        return squared_error(outputs, targets).mean()

    def metrics(outputs: Array, targets: Array) -> dict[str, Array]:
        return {"test_mse": squared_error(outputs, targets)}

    def solved(metrics: Mapping[str, float]) -> bool:
        return metrics["test_mse"] <= SOLVED_MSE

    return Task(
        Signature(2, 1, config.T, "last"),
        batch=fresh(generate),
        loss=loss,
        splits={"test": held_out(generate, TEST_SIZE, metrics)},
        monitor="test_mse",
        chance={"test_mse": 1 / 6},
        solved=solved,
    )
