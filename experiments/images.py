"""What the three image experiments share: loading the images, epochs, and the picture of an example."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from experiments.parts import Example
from wrnn_jax import datasets
from wrnn_jax.datasets import Images
from wrnn_jax.models import DeepConfig
from wrnn_jax.models.twm import TWMConfig
from wrnn_jax.models.wrnn import WaveConfig
from wrnn_jax.tasks import Task
from wrnn_jax.tasks.images import ImageConfig
from wrnn_jax.tasks.images import chance as guessing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASSES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}
"""Names of classes that are not digits."""
DEFAULTS = {DeepConfig: {"n_hid": 256}, TWMConfig: {"n_hid": 256}, WaveConfig: {"n_ch": 16}}
"""The paper's sizes for images, by types of models."""


def loading(make_task: Callable[[Any, Images], Task]) -> Callable[[Any], Task]:
    """``Experiment.make_task`` of a task that is made of images."""

    def load(config: ImageConfig) -> Task:
        data_dir = None if config.data_dir is None else Path(config.data_dir)
        return make_task(config, datasets.load(config.dataset, data_dir))

    return load


def chance(config: ImageConfig) -> dict[str, float]:
    """``Experiment.chance``, for which no image is needed."""
    return guessing(datasets.CLASSES[config.dataset])


def draw_pixels(config: Any, example: Example) -> "Figure":
    """An image, its pixels in the order that the network sees, and the answer."""
    order = example.fixed.get("permutation")
    flat = example.inputs if order is None else example.inputs[np.argsort(order)]
    side = math.isqrt(len(flat))
    seen = "pixel by pixel" if order is None else "pixel by pixel, permuted"
    return _draw(config, example, flat.reshape(side, side, -1), example.inputs, seen)


def draw_rows(config: Any, example: Example) -> "Figure":
    """An image, its rows one after another, and the answer."""
    colors = 3 if config.task.dataset == "cifar10" else 1
    side = example.inputs.shape[-1] // colors
    rows = example.inputs[:side]
    return _draw(
        config, example, rows.reshape(side, side, colors), rows, f"row by row, before {config.task.T - side} of noise"
    )


def _draw(config: Any, example: Example, image: np.ndarray, sequence: np.ndarray, seen: str) -> "Figure":
    from wrnn_jax.analysis import plots

    classes = CLASSES.get(config.task.dataset, plots.DIGITS)
    probabilities = np.asarray(jax.nn.softmax(example.outputs))
    image = image.squeeze(-1) if image.shape[-1] == 1 else image
    return plots.image_example(image, sequence, probabilities, int(example.targets), seen=seen, classes=classes)
