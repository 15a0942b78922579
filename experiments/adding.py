"""The adding task: python -m experiments.adding --T 1000"""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

from experiments import presets, wave_presets
from experiments.parts import Example
from experiments.program import run_from_command_line
from experiments.settings import Experiment, RunConfig
from wrnn_jax.models import ModelConfig
from wrnn_jax.models.wrnn import WaveConfig
from wrnn_jax.tasks import AddingConfig, adding_task
from wrnn_jax.training.config import TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class AddingTrainConfig(TrainConfig):
    """How to train."""

    lr: float = 1e-4
    """Adam's learning rate. At 1e-3 the first steps make waves that grow 8 % a step, which T = 1000 does not bear."""
    stop_below: float | None = 1e-4
    """Stop once the test MSE is below this; 0 = never. (The task counts as solved from 5e-2 on.)"""


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a recurrent network on the adding task: the sum of two marked numbers among T."""

    task: AddingConfig
    model: ModelConfig
    train: AddingTrainConfig
    run: RunConfig


def draw(config: Config, example: Example) -> "Figure":
    """A sequence, its answer and the target."""
    from wrnn_jax.analysis import plots

    return plots.adding_example(example.inputs, target=float(example.targets[0]), output=float(example.outputs[0]))


DEFAULTS = {WaveConfig: {"n_ch": 27}}
EXPERIMENT = Experiment(
    "adding",
    Config,
    adding_task,
    lambda task: f"T{task.T}",
    draw,
    presets.ADDING | wave_presets.ADDING,
    defaults=DEFAULTS,
)
main = partial(run_from_command_line, EXPERIMENT)

if __name__ == "__main__":
    main()
