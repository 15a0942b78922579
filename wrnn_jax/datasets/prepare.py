"""From the network to a folder that tensorflow-datasets reads, without TensorFlow."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wrnn_jax import console
from wrnn_jax.datasets.download import download
from wrnn_jax.datasets.sets import StoredSet, TextSet


def prepare(stored_set: StoredSet, root: Path) -> None:
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
        with tempfile.TemporaryDirectory(prefix=f"{stored_set.name}.incomplete-", dir=root) as work:
            paths = [download(archive, Path(work)) for archive in stored_set.archives]
            written = _write(stored_set, stored_set.unpack(paths), Path(work))
            _publish(written, root / stored_set.name / stored_set.version)
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
        # Another process was faster, with the same content.


def _write(stored_set: StoredSet, splits: dict[str, Any], root: Path) -> Path:
    """The folder below ``root`` that now holds the set's records.

    The builder is the one of tensorflow-datasets, but for its examples: it would hand arrays to TensorFlow,
    which makes PNG files of them. PNG files it takes as they are.
    """
    import tensorflow_datasets as tfds

    many, kind = sum(stored_set.counts.values()), tfds.builder_cls(stored_set.name)
    bar = console.bar(total=many, desc=f"Writing {stored_set.title}", unit=stored_set.EXAMPLES)

    class Builder(kind, skip_registration=True):
        name = stored_set.name
        VERSION = tfds.core.Version(stored_set.version)
        pkg_dir_path = kind.pkg_dir_path

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split, content) for split, content in splits.items()}

        def _generate_examples(self, split, content):
            for index, example in enumerate(_examples(stored_set, split, content)):
                yield index, {name: example[name] for name in self.info.features}
                bar.update()

    builder = Builder(data_dir=root, file_format="array_record")
    # Its own bars and lines are drawn also where there is no terminal, and speak of a folder that will not stay.
    with bar, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return Path(builder.data_dir)


def _examples(stored_set: StoredSet, split: str, content: Any) -> Iterator[dict[str, Any]]:
    """The examples of a split, with all features that any of the sets has."""
    if isinstance(stored_set, TextSet):
        yield {"text": content}
        return
    for index, (image, label) in enumerate(zip(*content, strict=True)):
        yield {"id": f"{split}_{index:05d}", "image": _png(image), "label": int(label)}


def _png(image: np.ndarray) -> io.BytesIO:
    """The image (height, width, channels), grey or red-green-blue, as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "png")
    file.seek(0)
    return file
