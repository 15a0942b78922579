"""Images as sequences: by pixel, permuted, or by row before noise (Keller et al. 2024, sections 3.2 and 3.3)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from wrnn_jax.datasets import DATASETS, Images
from wrnn_jax.tasks.base import Progress, Source, Split, Task
from wrnn_jax.tasks.shuffle import shuffled
from wrnn_jax.typing import Array, Key, Signature
from wrnn_jax.validation import require, require_choice, require_integer

VALIDATION_SIZES = {"mnist": 3000, "cifar10": 3000, "digits": 180}
"""Of the training images, those that only validate."""
SHAPES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3), "digits": (8, 8, 1)}
"""Height, width, colours."""
SPLIT_SEED = 0
"""Which they are is drawn once for all runs."""


@dataclass(frozen=True)
class ImageConfig:
    """Which images."""

    dataset: str = "mnist"
    """The images: mnist | cifar10 | digits (1,797 of 8 x 8 pixels, which need no download)."""
    data_dir: str | None = None
    """Folder of the prepared images, or to prepare them in (if not given: TFDS_DATA_DIR or ~/tensorflow_datasets)."""

    def __post_init__(self):
        require_choice("dataset", self.dataset, DATASETS)

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and features of a sequence."""
        height, width, colors = SHAPES[self.dataset]
        return height * width, colors


@dataclass(frozen=True)
class PixelConfig(ImageConfig):
    """sMNIST: one pixel a step."""


@dataclass(frozen=True)
class PermutedConfig(ImageConfig):
    """psMNIST: one pixel a step, in one random order for all images."""

    permutation_seed: int = 0
    """Which order: the same for all runs of one seed, a whole number from 0 to 2^31 - 1."""

    def __post_init__(self):
        super().__post_init__()
        require_integer("permutation_seed", self.permutation_seed, at_least=0)


@dataclass(frozen=True)
class NoisyRowsConfig(ImageConfig):
    """nsCIFAR10: one row a step, then noise."""

    dataset: str = "cifar10"
    """The images: cifar10 | mnist | digits (1,797 of 8 x 8 pixels, which need no download)."""
    T: int = 1000
    """Steps of a sequence; those after the image's rows are noise, the same for all images."""
    noise_seed: int = 0
    """Which noise: the same for all runs of one seed, a whole number from 0 to 2^31 - 1."""

    def __post_init__(self):
        super().__post_init__()
        require_integer("T", self.T, at_least=1)
        require_integer("noise_seed", self.noise_seed, at_least=0)

    @property
    def shape(self) -> tuple[int, int]:
        _, width, colors = SHAPES[self.dataset]
        return self.T, width * colors


def pixel_task(config: PixelConfig, images: Images) -> Task:
    """Class of an image from its pixels one after another, row by row: T = H·W, D = its colours."""

    def sequences(fixed: Mapping[str, Array], pixels: Array) -> Array:
        return pixels.reshape(len(pixels), -1, pixels.shape[-1])

    return _image_task(config, images, sequences, fixed={})


def permuted_task(config: PermutedConfig, images: Images) -> Task:
    """Class of an image from its pixels in one fixed random order: x_t = pixel π(t), T = H·W, D = its colours."""
    pixels_of_image = math.prod(images.train_images.shape[1:3])
    order = jax.random.permutation(jax.random.key(config.permutation_seed), pixels_of_image)

    def sequences(fixed: Mapping[str, Array], pixels: Array) -> Array:
        return pixels.reshape(len(pixels), -1, pixels.shape[-1])[:, fixed["permutation"]]

    fixed = {"permutation": np.asarray(order, np.int32)}
    return _image_task(config, images, sequences, fixed)


def noisy_rows_task(config: NoisyRowsConfig, images: Images) -> Task:
    """Class of an image from its rows one after another, and then noise from N(0, 1) up to T steps: D = W · colours.

    Raises:
      ValueError: for a T below the number of rows.
    """
    _, rows, *row_shape = images.train_images.shape
    features = math.prod(row_shape)
    require(rows <= config.T, "T", config.T, f"{rows} or more: {config.dataset} has {rows} rows")
    noise = jax.random.normal(jax.random.key(config.noise_seed), (config.T - rows, features))

    def sequences(fixed: Mapping[str, Array], pixels: Array) -> Array:
        noise = jnp.broadcast_to(fixed["noise"], (len(pixels), *fixed["noise"].shape))
        return jnp.concatenate([pixels.reshape(len(pixels), rows, features), noise], axis=1)

    return _image_task(config, images, sequences, {"noise": np.asarray(noise)})


def _image_task(
    config: ImageConfig,
    images: Images,
    sequences: Callable[[Mapping[str, Array], Array], Array],
    fixed: Mapping[str, Array],
) -> Task:
    """Classification, read from the last step, of what ``sequences(fixed, pixels)`` makes of images.

    Pixels ``(B, H, W, colours)`` are 0 … 1 there; they are stored as uint8. Loss: cross-entropy in nats. Metrics of
    the validation and the test split: ``val_loss``, ``val_acc``, ``test_loss``, ``test_acc``; of as many training
    images as validate: ``train_acc``.
    """
    pixels = jax.ShapeDtypeStruct((1, *images.train_images.shape[1:]), jnp.float32)
    _, steps, features = jax.eval_shape(sequences, fixed, pixels).shape
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images.train_images))
    of_training, of_validation = np.split(order, [-VALIDATION_SIZES[config.dataset]])
    data = {
        "train": (images.train_images[of_training], images.train_labels[of_training].astype(np.int32)),
        "val": (images.train_images[of_validation], images.train_labels[of_validation].astype(np.int32)),
        "test": (images.test_images, images.test_labels.astype(np.int32)),
    }
    train_size = len(of_training)

    def examples(source: Source, part: str, indices: Array) -> tuple[Array, Array]:
        pixels, labels = source.data[part]
        return sequences(source.fixed, pixels[indices].astype(jnp.float32) / images.peak), labels[indices]

    def batch(source: Source, key: Key, progress: Progress, size: int) -> tuple[Array, Array]:
        epoch, in_epoch = jnp.divmod(progress.step, train_size // size)
        positions = in_epoch * size + jnp.arange(size)
        return examples(source, "train", shuffled(jax.random.fold_in(key, epoch), positions, train_size))

    cross_entropy = optax.softmax_cross_entropy_with_integer_labels

    def split(part: str) -> Split:
        def metrics(outputs: Array, targets: Array) -> dict[str, Array]:
            correct = jnp.argmax(outputs, axis=-1) == targets
            values = {f"{part}_loss": cross_entropy(outputs, targets), f"{part}_acc": correct.astype(jnp.float32)}
            if part == "train":
                del values["train_loss"]  # That is the mean over the batches of training.
            return values

        # The order of the training images is random, so that the first of them are a sample.
        size = len(data["val" if part == "train" else part][1])
        return Split(size, lambda source, indices: examples(source, part, indices), metrics)

    return Task(
        Signature(features, images.classes, steps, "last", colors=images.train_images.shape[-1]),
        batch=batch,
        loss=lambda outputs, targets: cross_entropy(outputs, targets).mean(),
        splits={"val": split("val"), "test": split("test"), "train": split("train")},
        monitor="val_loss",
        chance=chance(images.classes),
        score="val_acc",
        source=Source(data, fixed),
        train_size=train_size,
        notes={"dataset_note": images.note} if images.note else {},
    )


def chance(classes: int) -> dict[str, float]:
    """What whoever guesses scores: ln classes, and one in so many."""
    return {"val_loss": math.log(classes), "val_acc": 1 / classes}
