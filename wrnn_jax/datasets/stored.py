"""Image sets as tensorflow-datasets prepares them on disk, read without TensorFlow."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wrnn_jax import console
from wrnn_jax.datasets import cache
from wrnn_jax.datasets.base import Images
from wrnn_jax.datasets.download import DownloadError
from wrnn_jax.datasets.prepare import prepare
from wrnn_jax.datasets.sets import ImageSet
from wrnn_jax.validation import InvalidValue, require

PEAK = 255
JPEG_NOTE = "the pixels were stored as JPEG and differ a little from the original's"
BLOCK = 1000
"""Examples that are read at once: one by one takes twice the time."""
MODES = {1: "L", 3: "RGB"}
"""What Pillow calls images of bytes, by their channels."""
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels", "note")


def load(image_set: ImageSet, data_dir: Path | str | None = None) -> Images:
    """The set as it is prepared in ``data_dir``, else in ``$TFDS_DATA_DIR``, else in ``~/tensorflow_datasets``.

    If it is not there it is downloaded and prepared. Decoded arrays are kept in the user's cache.

    Raises:
      InvalidValue: field "data_dir", if the set is not there and cannot be prepared, or is there in another
        format, or damaged, or not the set that ``image_set`` describes.
    """
    root = Path(os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"))
    folder = root / image_set.name / image_set.version
    try:
        require(root.is_dir() or not root.exists(), "data_dir", str(root), "a folder")
        if not folder.exists():
            _prepare(image_set, root)
        records = _record_files(image_set, root, folder)
        kept = cache.path_for(image_set.name, records)
        arrays = cache.read(kept, ARRAYS)
        if arrays is None:
            arrays = _decode(image_set, root, folder)
            cache.write(kept, arrays)
    except OSError as error:
        raise InvalidValue("data_dir", str(root), f"a folder that can be read ({_one_line(error)})") from error
    return Images(**{**arrays, "note": str(arrays["note"])}, classes=image_set.classes, peak=PEAK)


def prepared_sets(root: Path) -> list[str]:
    """Name and version of each set that is prepared below ``root``."""
    return sorted(" ".join(info.parts[-3:-1]) for info in root.glob("*/*/dataset_info.json"))


def _prepare(image_set: ImageSet, root: Path) -> None:
    holds = ", ".join(prepared_sets(root)) or "no set"
    try:
        prepare(image_set, root)
    except (DownloadError, OSError, RuntimeError, ImportError) as error:
        raise InvalidValue(
            "data_dir",
            str(root),
            f"a folder with {image_set.title} as tensorflow-datasets prepares it (there is {holds} in it), or the "
            f"network must be there to prepare it ({_one_line(error)}): give --data-dir or set TFDS_DATA_DIR to a "
            "folder that has it, or run once with network, or try --dataset digits",
        ) from error


def _record_files(image_set: ImageSet, root: Path, folder: Path) -> list[Path]:
    files = list(folder.glob("*.array_record*"))
    require(
        bool(files),
        "data_dir",
        str(root),
        f"a folder with {image_set.title} in the format array_record, of which there is none in {folder}: "
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
            for index, example in enumerate(_examples(folder, split, count)):
                labels[index] = _checked_label(image_set, example["label"])
                images[index], format_ = _decode_image(image_set, example["image"])
                formats.add(format_)
            arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels
    return {**arrays, "note": np.array(JPEG_NOTE if "JPEG" in formats else "")}


@contextlib.contextmanager
def _damage_explained(image_set: ImageSet, root: Path, folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the readers have no error of their own; some failures are an ImportError of TensorFlow
        raise InvalidValue(
            "data_dir",
            str(root),
            f"a folder with the whole of {image_set.title}, but in {folder} there is damage ({_one_line(error)}): "
            "remove that folder to have it prepared anew",
        ) from error


def _examples(folder: Path, split: str, count: int) -> Iterator[dict[str, Any]]:
    """The examples of a split, their images still encoded. A bar shows the progress on a terminal."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    if len(source) != count:
        raise ValueError(f"{len(source)} {split} images instead of {count}")
    with console.bar(total=count, desc=f"Decoding {builder.name} {split}", unit="images") as bar:
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
