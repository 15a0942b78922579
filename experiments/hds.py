"""History-dependent dynamical systems: python -m experiments.hds --task T1"""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

from experiments import presets
from experiments.parts import Example
from experiments.program import run_from_command_line
from experiments.reading import measure, pictures
from experiments.settings import Experiment, RunConfig
from wrnn_jax.models import DeepConfig, ModelConfig
from wrnn_jax.models.twm import TWMConfig
from wrnn_jax.models.wrnn import WaveConfig
from wrnn_jax.tasks import HDSConfig, hds_task
from wrnn_jax.tasks.hds import step_scale
from wrnn_jax.training.config import TrainConfig
from wrnn_jax.validation import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class HDSTrainConfig(TrainConfig):
    """How to train."""

    lr: float = 3e-3
    """Adam's learning rate."""
    batch: int = 64
    """Sequences in a batch."""
    max_steps: int = 8_000
    """Optimiser steps, if nothing ends the run earlier."""
    schedule: str = "cosine"
    """Of the learning rate: constant | step | exponential | cosine | one-cycle | plateau | one-cycle-momentum (which
    cycles Adam's beta1 as well)."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a recurrent network to go on with a series: x(t) = f(x(t−1), …, x(t−s)), of which it is shown s vectors."""

    task: HDSConfig
    model: ModelConfig
    train: HDSTrainConfig
    run: RunConfig

    def __post_init__(self):
        if isinstance(self.model, TWMConfig):
            allowed = f"s = {self.task.s}, the columns of {self.model.model}"
            require(self.model.n_hid == self.task.s, "n_hid", self.model.n_hid, allowed)


def draw(config: Config, example: Example) -> "Figure":
    """A series, and how the network goes on with it."""
    from wrnn_jax.analysis import plots

    s, scale = config.task.s, step_scale(config.task)
    said = example.outputs[s:] / scale[:, None]
    title = f"{config.task.task}, {config.model.model}"
    return plots.series_example(example.inputs[:s], example.targets, said, title=title)


EXPERIMENT = Experiment(
    "hds",
    Config,
    hds_task,
    lambda task: task.task,
    draw,
    presets.HDS,
    measure,
    pictures,
    model="srnn",
    defaults={
        # As the theory reads networks: without biases, so that the state 0 is a fixed point.
        DeepConfig: {"n_hid": 64, "use_bias": False},
        TWMConfig: {"n_hid": 8},
        # The sparse encoder hands on the sum of the features alone, which of binary vectors says nothing about each.
        WaveConfig: {"n_ch": 8, "encoder_init": "dense"},
        "srnn": {"init": "orthogonal"},
    },
)
main = partial(run_from_command_line, EXPERIMENT)

if __name__ == "__main__":
    main()
