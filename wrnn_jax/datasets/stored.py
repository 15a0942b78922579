"""Sets as tensorflow-datasets prepares them on disk, read without TensorFlow."""

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wrnn_jax import console
from wrnn_jax.datasets import cache
from wrnn_jax.datasets.base import Images
from wrnn_jax.datasets.download import DownloadError
from wrnn_jax.datasets.prepare import prepare
from wrnn_jax.datasets.sets import ImageSet, StoredSet, TextSet
from wrnn_jax.validation import InvalidValue, require

PEAK = 255
JPEG_NOTE = "the pixels were stored as JPEG and differ a little from the original's"
BLOCK = 1000
"""Examples that are read at once: one by one takes twice the time."""
MODES = {1: "L", 3: "RGB"}
"""What Pillow calls images of bytes, by their channels."""
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels", "note")


class Place(NamedTuple):
    """Where a set is prepared."""

    root: Path
    """The folder of all sets."""
    folder: Path
    """The set's own."""
    records: list[Path]


def load(image_set: ImageSet, data_dir: Path | str | None = None) -> Images:
    """The set as it is prepared, see :func:`place_of`. Decoded arrays are kept in the user's cache.

    Raises:
      InvalidValue: field "data_dir", if the set is not there and cannot be prepared, or is there in another
        format, or damaged, or not the set that ``image_set`` describes.
    """
    with place_of(image_set, data_dir) as place:
        kept = cache.path_for(image_set.name, place.records)
        arrays = cache.read(kept, ARRAYS)
        if arrays is None:
            arrays = _decode(image_set, place.root, place.folder)
            cache.write(kept, arrays)
    return Images(**{**arrays, "note": str(arrays["note"])}, classes=image_set.classes, peak=PEAK)


def load_text(text_set: TextSet, data_dir: Path | str | None = None) -> bytes:
    """The whole of a text as it was published, from the parts in which it is prepared; raises as :func:`load`."""
    with place_of(text_set, data_dir) as (root, folder, _), _damage_explained(text_set, root, folder):
        parts = [each["text"] for split in text_set.counts for each in _examples(text_set, folder, split)]
        text = b"".join(parts)
        (published,) = text_set.archives
        if hashlib.sha256(text).hexdigest() != published.sha256:
            raise ValueError("another text than was published")
    return text


@contextlib.contextmanager
def place_of(stored_set: StoredSet, data_dir: Path | str | None) -> Iterator[Place]:
    """Where the set is prepared: in ``data_dir``, else in ``$TFDS_DATA_DIR``, else in ``~/tensorflow_datasets``.

    If it is not there it is downloaded and prepared. An ``OSError`` that is raised within is one ``InvalidValue``.
    """
    root = Path(os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"))
    folder = root / stored_set.name / stored_set.version
    try:
        require(root.is_dir() or not root.exists(), "data_dir", str(root), "a folder")
        if not folder.exists():
            _prepare(stored_set, root)
        yield Place(root, folder, _record_files(stored_set, root, folder))
    except OSError as error:
        raise InvalidValue("data_dir", str(root), f"a folder that can be read ({_one_line(error)})") from error


def prepared_sets(root: Path) -> list[str]:
    """Name and version of each set that is prepared below ``root``."""
    return sorted(" ".join(info.parts[-3:-1]) for info in root.glob("*/*/dataset_info.json"))


def _prepare(stored_set: StoredSet, root: Path) -> None:
    holds = ", ".join(prepared_sets(root)) or "no set"
    try:
        prepare(stored_set, root)
    except (DownloadError, OSError, RuntimeError, ImportError) as error:
        raise InvalidValue(
            "data_dir",
            str(root),
            f"a folder with {stored_set.title} as tensorflow-datasets prepares it (there is {holds} in it), or the "
            f"network must be there to prepare it ({_one_line(error)}): give --data-dir or set TFDS_DATA_DIR to a "
            f"folder that has it, or run once with network, or try {stored_set.INSTEAD}",
        ) from error


def _record_files(stored_set: StoredSet, root: Path, folder: Path) -> list[Path]:
    files = list(folder.glob("*.array_record*"))
    require(
        bool(files),
        "data_dir",
        str(root),
        f"a folder with {stored_set.title} in the format array_record, of which there is none in {folder}: "
        "give another folder to prepare it there",
    )
    return files


def _decode(image_set: ImageSet, root: Path, folder: Path) -> dict[str, np.ndarray]:
    """The ARRAYS of a prepared set."""
    arrays, formats = {}, set()
    with _damage_explained(image_set, root, folder):
        for split, count in image_set.counts.items():
            images = np.empty((count, *image_set.image_shape), np.uint8)
            labels = np.empty(count, np.int32)
            for index, example in enumerate(_examples(image_set, folder, split)):
                labels[index] = _checked_label(image_set, example["label"])
                images[index], format_ = _decode_image(image_set, example["image"])
                formats.add(format_)
            arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels
    return {**arrays, "note": np.array(JPEG_NOTE if "JPEG" in formats else "")}


@contextlib.contextmanager
def _damage_explained(stored_set: StoredSet, root: Path, folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the readers have no error of their own; some failures are an ImportError of TensorFlow
        raise InvalidValue(
            "data_dir",
            str(root),
            f"a folder with the whole of {stored_set.title}, but in {folder} there is damage ({_one_line(error)}): "
            "remove that folder to have it prepared anew",
        ) from error


def _examples(stored_set: StoredSet, folder: Path, split: str) -> Iterator[dict[str, Any]]:
    """The examples of a split, images still encoded. A bar shows the progress on a terminal."""
    import tensorflow_datasets as tfds

    builder, count = tfds.builder_from_directory(folder), stored_set.counts[split]
    encoded = {"image": tfds.decode.SkipDecoding()} if "image" in builder.info.features else None
    source = builder.as_data_source(split, decoders=encoded)
    if len(source) != count:
        raise ValueError(f"{len(source)} {split} {stored_set.EXAMPLES} instead of {count}")
    with console.bar(total=count, desc=f"Decoding {builder.name} {split}", unit=stored_set.EXAMPLES) as bar:
        for start in range(0, count, BLOCK):
            block = range(start, min(start + BLOCK, count))
            yield from source.__getitems__(block)
            bar.update(len(block))


def _checked_label(image_set: ImageSet, label: int) -> int:
    if label not in range(image_set.classes):
        raise ValueError(f"a label {label} instead of 0 to {image_set.classes - 1}")
    return label


def _decode_image(image_set: ImageSet, encoded: bytes) -> tuple[np.ndarray, str]:
    """An image, and the name of the format it was in."""
    from PIL import Image

    height, width, channels = image_set.image_shape
    image = Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG"))
    if (image.size, image.mode) != ((width, height), MODES[channels]):
        raise ValueError(f"an image {image.size} {image.mode} instead of {(width, height)} {MODES[channels]}")
    return np.asarray(image).reshape(image_set.image_shape), image.format


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:300] or type(error).__name__
