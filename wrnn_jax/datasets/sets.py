"""The sets that are downloaded: where they come from, and what they hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

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
class StoredSet:
    """A set, with the name and version that tensorflow-datasets gives it."""

    name: str
    version: str
    counts: dict[str, int]
    """Examples in each split."""
    archives: tuple[Archive, ...]
    unpack: Callable[[Sequence[Path]], dict[str, Any]]
    """From the downloaded archives to what is in each split."""
    EXAMPLES: ClassVar[str] = "examples"
    """What they are."""
    INSTEAD: ClassVar[str] = ""
    """What one may try who has neither the set nor the network."""

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class ImageSet(StoredSet):
    """A set of images, which unpacks to the arrays of each split."""

    image_shape: tuple[int, int, int]
    """Height, width, channels."""
    classes: int
    EXAMPLES: ClassVar[str] = "images"
    INSTEAD: ClassVar[str] = "--dataset digits"


@dataclass(frozen=True)
class TextSet(StoredSet):
    """One text, an example for each split, in order; its archive is the text itself."""

    EXAMPLES: ClassVar[str] = "texts"
    INSTEAD: ClassVar[str] = "--text with a file of your own"


MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"

# URLs, sizes and checksums as tensorflow-datasets 4.9.10 has them.
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

TINY_SHAKESPEARE = TextSet(
    name="tiny_shakespeare",
    version="1.0.0",
    counts={"train": 1, "validation": 1, "test": 1},
    archives=(
        Archive(
            "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
            1_115_394,
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        ),
    ),
    unpack=archives.unpack_text,
)

STORED = {image_set.name: image_set for image_set in (MNIST, CIFAR10)}
"""Image sets, by their names."""
