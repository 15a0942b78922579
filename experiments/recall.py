"""Associative recall: python -m experiments.recall --pairs 10"""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import jax
import numpy as np

from experiments import presets
from experiments.parts import Example
from experiments.program import run_from_command_line
from experiments.settings import Experiment, RunConfig
from wrnn_jax.models import ModelConfig
from wrnn_jax.models.wave_ssm import WaveSSMConfig
from wrnn_jax.tasks import RecallConfig, recall_task
from wrnn_jax.training.config import TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a recurrent network on associative recall: pairs of a key and a value, then keys whose values are due."""

    task: RecallConfig
    model: ModelConfig
    train: TrainConfig
    run: RunConfig


def draw(config: Config, example: Example) -> "Figure":
    """A sequence, and how its questions are answered."""
    from wrnn_jax.analysis import plots

    task = config.task
    inputs = example.inputs.argmax(axis=-1)
    places, due = example.targets
    order = np.argsort(places)
    places, due = places[order], due[order]
    keys = inputs[: 2 * task.pairs : 2]
    # Of a key that stood in several pairs the last.
    origins = np.array([2 * np.flatnonzero(keys == inputs[place])[-1] + 1 for place in places])
    outputs = example.outputs[None] if example.outputs.ndim == 1 else example.outputs[places]
    probabilities = np.asarray(jax.nn.softmax(outputs))
    names = {"nothing": (0, 0), "keys": (1, task.keys), "values": (task.keys + 1, task.vocabulary - 1)}
    title = f"Associative recall, {task.pairs} pairs, {config.model.model}"
    return plots.tokens_example(inputs, origins, places, due, probabilities, names=names, title=title)


# What is asked stands in the last step.
DEFAULTS = {WaveSSMConfig: {"pooling": "last"}}
EXPERIMENT = Experiment(
    "recall", Config, recall_task, lambda task: f"T{task.T}", draw, presets.RECALL, defaults=DEFAULTS
)
main = partial(run_from_command_line, EXPERIMENT)

if __name__ == "__main__":
    main()
