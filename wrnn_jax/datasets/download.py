"""Files from the network, whole and as expected or not at all."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from wrnn_jax import console
from wrnn_jax.datasets.sets import Archive
from wrnn_jax.files import sync

TIMEOUT = 30.0
"""Seconds without a byte after which a download has failed."""
BLOCK = 2**18


class DownloadError(Exception):
    """A file that did not come, or not as expected; the message is one line."""


def download(archive: Archive, folder: Path) -> Path:
    """Where in ``folder`` the archive now lies; there is nothing by that name before its checksum is verified.

    A bar shows the progress on a terminal.

    Raises:
      DownloadError: when the network fails, or size or SHA-256 differ.
      OSError: when the folder cannot be written.
    """
    path = folder / archive.filename
    part = path.with_name(path.name + ".part")
    digest, size = hashlib.sha256(), 0
    with (
        part.open("wb") as file,
        console.bar(total=archive.size, desc=archive.filename, unit="B", unit_scale=True) as bar,
    ):
        for block in _blocks(archive.url):
            file.write(block)
            digest.update(block)
            size += len(block)
            bar.update(len(block))
            if size > archive.size:
                break
    if size != archive.size:
        many = "more than " * (size > archive.size)
        raise DownloadError(f"{archive.url} came with {many}{min(size, archive.size)} bytes instead of {archive.size}")
    if digest.hexdigest() != archive.sha256:
        raise DownloadError(f"{archive.url} came with SHA-256 {digest.hexdigest()} instead of {archive.sha256}")
    sync(part)
    os.replace(part, path)
    sync(folder)
    return path


def _blocks(url: str) -> Iterator[bytes]:
    """The file at ``url``; only what the network does is a DownloadError, not what becomes of the blocks."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            while block := response.read(BLOCK):
                yield block
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is a response, too
        raise DownloadError(f"{url}: {str(error) or type(error).__name__}") from error
