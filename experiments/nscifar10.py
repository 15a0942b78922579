"""Noisy sequential CIFAR-10: python -m experiments.nscifar10"""

import dataclasses
from functools import partial

from experiments import images, presets, wave_presets
from experiments.program import run_from_command_line
from experiments.settings import Experiment, RunConfig
from wrnn_jax.models import ModelConfig
from wrnn_jax.tasks import NoisyRowsConfig, noisy_rows_task
from wrnn_jax.training.config import EpochsConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a recurrent network to name an image from its rows, one a step, after a long noise."""

    task: NoisyRowsConfig
    model: ModelConfig
    train: EpochsConfig
    run: RunConfig


EXPERIMENT = Experiment(
    "nscifar10",
    Config,
    images.loading(noisy_rows_task),
    lambda task: f"{task.dataset}_T{task.T}",
    images.draw_rows,
    presets.NSCIFAR10 | wave_presets.ROWS,
    chance=images.chance,
    defaults=images.DEFAULTS,
)
main = partial(run_from_command_line, EXPERIMENT)

if __name__ == "__main__":
    main()
