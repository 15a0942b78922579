"""The formats in which MNIST, CIFAR-10 and tiny Shakespeare are published."""

import gzip
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

Splits = dict[str, tuple[np.ndarray, np.ndarray]]
"""For each split its images, (images, height, width, channels) uint8, and its labels, (images,) uint8."""

CIFAR10_FILES = {
    "train": [f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)],
    "test": ["cifar-10-batches-bin/test_batch.bin"],
}


def unpack_mnist(paths: Sequence[Path]) -> Splits:
    """From training images, training labels, test images, test labels: four gzipped files in IDX format."""
    train_images, train_labels, test_images, test_labels = map(read_idx, paths)
    return {
        "train": (train_images[..., np.newaxis], train_labels),
        "test": (test_images[..., np.newaxis], test_labels),
    }


def read_idx(path: Path) -> np.ndarray:
    """The bytes of a gzipped IDX file, in its own shape (http://yann.lecun.com/exdb/mnist/, file formats).

    The file: 0, 0, 8 (for bytes), the number of axes; the length of each axis in 4 bytes, highest first; the bytes.
    """
    content = gzip.decompress(path.read_bytes())
    axes = content[3]
    shape = np.frombuffer(content, ">u4", count=axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def unpack_cifar10(paths: Sequence[Path]) -> Splits:
    """From the one archive, of the binary version (https://www.cs.toronto.edu/~kriz/cifar.html)."""
    (path,) = paths
    with tarfile.open(path) as archive:
        content = {
            split: b"".join(archive.extractfile(name).read() for name in names)
            for split, names in CIFAR10_FILES.items()
        }
    return {split: read_cifar10(records) for split, records in content.items()}


def read_cifar10(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of records of 1 + 3 · 32 · 32 bytes: the label, then the red, the green, the blue pixels."""
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


def unpack_text(paths: Sequence[Path]) -> dict[str, str]:
    """From the one file, UTF-8: its text in three parts, as tensorflow-datasets cuts it."""
    (path,) = paths
    text = path.read_bytes().decode()
    return {split: text[part] for split, part in zip(("train", "validation", "test"), cut(len(text)), strict=True)}


def cut(length: int) -> tuple[slice, slice, slice]:
    """Where a text is cut: its first 90 % train, of what is left the first half validates and the other tests."""
    first = int(length * 0.9)
    second = first + int((length - first) * 0.5)
    return slice(first), slice(first, second), slice(second, length)
