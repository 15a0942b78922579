"""The copy task: python -m experiments.copy --T 480"""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import jax
import numpy as np

from experiments import presets, wave_presets
from experiments.parts import Example
from experiments.program import run_from_command_line
from experiments.settings import Experiment, RunConfig
from wrnn_jax.models import ModelConfig
from wrnn_jax.tasks import CopyConfig, copy_task
from wrnn_jax.training.config import TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a recurrent network on the copy task: recall ten symbols after T steps of nothing."""

    task: CopyConfig
    model: ModelConfig
    train: TrainConfig
    run: RunConfig


def draw(config: Config, example: Example) -> "Figure":
    """A sequence as in the paper's Fig. 4."""
    from wrnn_jax.analysis import plots

    targets = np.eye(example.inputs.shape[-1])[example.targets]
    return plots.copy_example(example.inputs, np.asarray(jax.nn.softmax(example.outputs)), targets, T=config.task.T)


EXPERIMENT = Experiment("copy", Config, copy_task, lambda task: f"T{task.T}", draw, presets.COPY | wave_presets.COPY)
main = partial(run_from_command_line, EXPERIMENT)

if __name__ == "__main__":
    main()
