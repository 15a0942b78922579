"""Permuted sequential MNIST: python -m experiments.psmnist"""

import dataclasses
from functools import partial

from experiments import images, presets, wave_presets
from experiments.program import run_from_command_line
from experiments.settings import Experiment, RunConfig
from wrnn_jax.models import ModelConfig
from wrnn_jax.tasks import PermutedConfig, permuted_task
from wrnn_jax.training.config import EpochsConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a recurrent network to name a digit from its pixels in one random order."""

    task: PermutedConfig
    model: ModelConfig
    train: EpochsConfig
    run: RunConfig


EXPERIMENT = Experiment(
    "psmnist",
    Config,
    images.loading(permuted_task),
    lambda task: task.dataset,
    images.draw_pixels,
    presets.PSMNIST | wave_presets.PIXELS,
    chance=images.chance,
    defaults=images.DEFAULTS,
)
main = partial(run_from_command_line, EXPERIMENT)

if __name__ == "__main__":
    main()
