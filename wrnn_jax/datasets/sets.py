"""The image sets that are downloaded: where they come from, and what they hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wrnn_jax.datasets import archives


@dataclass(frozen=True)
class Archive:
    """A file to download."""

    url: str
    size: int
    """In bytes."""
    sha256: str

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class ImageSet:
    """An image set, with the name and version that tensorflow-datasets gives it."""

    name: str
    version: str
    image_shape: tuple[int, int, int]
    """Height, width, channels."""
    classes: int
    counts: dict[str, int]
    """Images in each split."""
    archives: tuple[Archive, ...]
    unpack: Callable[[Sequence[Path]], archives.Splits]
    """From the downloaded archives to the arrays of each split."""

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"


MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"

# URLs, sizes and checksums as tensorflow-datasets 4.9.10 has them, url_checksums/{mnist,cifar10}.txt.
MNIST = ImageSet(
    name="mnist",
    version="3.0.1",
    image_shape=(28, 28, 1),
    classes=10,
    counts={"train": 60_000, "test": 10_000},
    archives=(
        Archive(
            MNIST_URL + "train-images-idx3-ubyte.gz",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        Archive(
            MNIST_URL + "train-labels-idx1-ubyte.gz",
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        Archive(
            MNIST_URL + "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        Archive(
            MNIST_URL + "t10k-labels-idx1-ubyte.gz",
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    unpack=archives.unpack_mnist,
)

CIFAR10 = ImageSet(
    name="cifar10",
    version="3.0.2",
    image_shape=(32, 32, 3),
    classes=10,
    counts={"train": 50_000, "test": 10_000},
    archives=(
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
    unpack=archives.unpack_cifar10,
)

STORED = {image_set.name: image_set for image_set in (MNIST, CIFAR10)}
