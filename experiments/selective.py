"""The selective copy task: python -m experiments.selective --T 256"""

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
from wrnn_jax.tasks import SelectiveConfig, selective_task
from wrnn_jax.training.config import TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a recurrent network on the selective copy task: recall tokens that stand at random places among noise."""

    task: SelectiveConfig
    model: ModelConfig
    train: TrainConfig
    run: RunConfig


def draw(config: Config, example: Example) -> "Figure":
    """A sequence, and how its tokens are recalled."""
    from wrnn_jax.analysis import plots

    T, last = config.task.T, config.task.vocabulary - 1
    inputs = example.inputs.argmax(axis=-1)
    origins = np.flatnonzero(inputs[:T])
    asked = T + np.arange(config.task.tokens)
    probabilities = np.asarray(jax.nn.softmax(example.outputs[T:]))
    names = {"noise": (0, 0), "tokens": (1, last - 1), "recall now": (last, last)}
    title = f"Selective copy, T = {T}, {config.model.model}"
    return plots.tokens_example(inputs, origins, asked, example.targets, probabilities, names=names, title=title)


EXPERIMENT = Experiment("selective", Config, selective_task, lambda task: f"T{task.T}", draw, presets.SELECTIVE)
main = partial(run_from_command_line, EXPERIMENT)

if __name__ == "__main__":
    main()
