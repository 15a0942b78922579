"""Sequential MNIST: python -m experiments.smnist"""

import dataclasses
from functools import partial

from tyro.conf import OmitArgPrefixes

from experiments import images, presets
from experiments.experiment import Experiment, RunConfig
from experiments.program import run_from_command_line
from wrnn_jax.models import ModelConfig
from wrnn_jax.tasks import PixelConfig, pixel_task
from wrnn_jax.training.config import EpochsConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a recurrent network to name a digit from its pixels, one a step."""

    task: OmitArgPrefixes[PixelConfig]
    model: OmitArgPrefixes[ModelConfig]
    train: OmitArgPrefixes[EpochsConfig]
    run: OmitArgPrefixes[RunConfig]


EXPERIMENT = Experiment(
    "smnist",
    Config,
    images.loading(pixel_task),
    lambda task: task.dataset,
    images.draw_pixels,
    presets.SMNIST,
    chance=images.chance,
    defaults=images.DEFAULTS,
)
main = partial(run_from_command_line, EXPERIMENT)

if __name__ == "__main__":
    main()
