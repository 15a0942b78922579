"""Character language modelling: python -m experiments.language --text FILE"""

import dataclasses
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from experiments.parts import Example
from experiments.program import run_from_command_line
from experiments.settings import Experiment, RunConfig
from wrnn_jax.datasets import load_text
from wrnn_jax.models import DeepConfig, ModelConfig
from wrnn_jax.models.twm import TWMConfig
from wrnn_jax.models.wrnn import WaveConfig
from wrnn_jax.tasks import LanguageConfig, Task, language_task
from wrnn_jax.training.config import TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST_STEM = 40


@dataclasses.dataclass(frozen=True)
class LanguageTrainConfig(TrainConfig):
    """How to train."""

    lr: float = 2e-3
    """Adam's learning rate."""
    batch: int = 32
    """Sequences in a batch."""
    max_steps: int = 5_000
    """Optimiser steps, if nothing ends the run earlier."""
    schedule: str = "cosine"
    """Of the learning rate: constant | step | exponential | cosine | one-cycle | plateau | one-cycle-momentum (which
    cycles Adam's beta1 as well)."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a recurrent network to predict the next character of a text."""

    task: LanguageConfig
    model: ModelConfig
    train: LanguageTrainConfig
    run: RunConfig


def load(config: LanguageConfig) -> Task:
    """The task, of its text."""
    return language_task(config, load_text(config.text, config.data_dir))


def stem(config: LanguageConfig) -> str:
    """The text's name and T."""
    name = "tiny_shakespeare" if config.text is None else re.sub(r"[^\w.-]+", "-", Path(config.text).stem)
    return f"{name[:LONGEST_STEM]}_T{config.T}"


def draw(config: Config, example: Example) -> "Figure":
    """A text, and how probable each of its characters was to the network."""
    from wrnn_jax.analysis import plots

    probabilities = np.asarray(jax.nn.softmax(example.outputs))[np.arange(len(example.targets)), example.targets]
    codes = np.concatenate([example.inputs[:1].argmax(axis=-1), example.targets])
    # A byte is drawn as the character it is in ASCII.
    characters = "".join(map(chr, example.fixed["vocabulary"][codes]))
    return plots.text_example(characters, probabilities, title=f"{config.model.model}, {stem(config.task)}")


EXPERIMENT = Experiment(
    "language",
    Config,
    load,
    stem,
    draw,
    presets={},
    defaults={
        DeepConfig: {"n_hid": 256},
        TWMConfig: {"n_hid": 8},
        # The sparse encoder writes every character alike into its ring.
        WaveConfig: {"n_hid": 32, "n_ch": 16, "encoder_init": "dense"},
    },
)
main = partial(run_from_command_line, EXPERIMENT)

if __name__ == "__main__":
    main()
