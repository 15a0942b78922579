"""What an image set is."""

from typing import NamedTuple

import numpy as np


class Images(NamedTuple):
    """Images and their classes, split as their source splits them.

    A pixel's intensity, 0 (black) to 1 (white), is its byte divided by ``peak``.
    """

    train_images: np.ndarray
    """(images, height, width, channels), uint8."""
    train_labels: np.ndarray
    """(images,), int32, from 0 to ``classes`` - 1."""
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: int
    peak: int
    """The byte that stands for white."""
    note: str
    """What must be said where results on these images are shown; mostly nothing."""
