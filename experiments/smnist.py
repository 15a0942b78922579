"""Sequential MNIST: python -m experiments.smnist"""

import dataclasses
from functools import partial

from experiments import images, presets, wave_presets
from experiments.program import run_from_command_line
from experiments.settings import Experiment, RunConfig
from wrnn_jax.models import ModelConfig
from wrnn_jax.tasks import PixelConfig, pixel_task
from wrnn_jax.training.config import EpochsConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a recurrent network to name a digit from its pixels, one a step."""

    task: PixelConfig
    model: ModelConfig
    train: EpochsConfig
    run: RunConfig


EXPERIMENT = Experiment(
    "smnist",
    Config,
    images.loading(pixel_task),
    lambda task: task.dataset,
    images.draw_pixels,
    presets.SMNIST | wave_presets.PIXELS,
    chance=images.chance,
    defaults=images.DEFAULTS,
)
main = partial(run_from_command_line, EXPERIMENT)

if __name__ == "__main__":
    main()
