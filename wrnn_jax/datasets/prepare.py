"""From the network to a folder that tensorflow-datasets reads, without TensorFlow."""

import contextlib
import io
import os
import tempfile
from pathlib import Path

import numpy as np

from wrnn_jax import console
from wrnn_jax.datasets.archives import Splits
from wrnn_jax.datasets.download import download
from wrnn_jax.datasets.sets import ImageSet


def prepare(image_set: ImageSet, root: Path) -> None:
    """Download the set and write it to ``root/<name>/<version>/``, as tensorflow-datasets would.

    That folder appears at once and whole. Several processes may do this at the same time: the first one's work
    stays. A failure leaves nothing behind.

    Raises:
      DownloadError: when an archive cannot be had.
      OSError, RuntimeError, ImportError: when it cannot be written.
    """
    created = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{image_set.name}.incomplete-", dir=root) as work:
            paths = [download(archive, Path(work)) for archive in image_set.archives]
            _publish(_write(image_set, image_set.unpack(paths), Path(work)), root / image_set.name / image_set.version)
    finally:
        for folder in created:
            with contextlib.suppress(OSError):  # it is in use
                folder.rmdir()


def _publish(written: Path, folder: Path) -> None:
    folder.parent.mkdir(exist_ok=True)
    try:
        os.rename(written, folder)
    except OSError:
        if not folder.is_dir():
            raise
        # Another process was faster, with the same images.


def _write(image_set: ImageSet, splits: Splits, root: Path) -> Path:
    """The folder below ``root`` that now holds the set's records.

    The builder is the one of tensorflow-datasets, but for its examples: it would hand arrays to TensorFlow,
    which makes PNG files of them. PNG files it takes as they are.
    """
    import tensorflow_datasets as tfds

    bar = console.bar(total=sum(image_set.counts.values()), desc=f"Writing {image_set.title}", unit="images")

    class Builder(tfds.builder_cls(image_set.name), skip_registration=True):
        name = image_set.name
        VERSION = tfds.core.Version(image_set.version)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split, *arrays) for split, arrays in splits.items()}

        def _generate_examples(self, split, images, labels):
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                example = {"id": f"{split}_{index:05d}", "image": _png(image), "label": int(label)}
                yield index, {name: example[name] for name in self.info.features}
                bar.update()

    builder = Builder(data_dir=root, file_format="array_record")
    # Its own bars and lines are drawn also where there is no terminal, and speak of a folder that will not stay.
    with bar, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return Path(builder.data_dir)


def _png(image: np.ndarray) -> io.BytesIO:
    """The image (height, width, channels), grey or red-green-blue, as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "png")
    file.seek(0)
    return file
