"""Handwritten digits of 8 × 8 pixels, installed with scikit-learn."""

import numpy as np

from wrnn_jax.datasets.base import Images

TEST_STRIDE = 5
CLASSES = 10


def load() -> Images:
    """The 1,797 digits: 1,437 to train with, 360 to test with.

    Their source has no split. Here every fifth of the images sorted by class (those of a class as they come)
    is for the test: no random numbers, and each class has its share to within one image.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = bunch.images.astype(np.uint8)[..., np.newaxis], bunch.target.astype(np.int32)
    in_test = np.zeros(len(labels), bool)
    in_test[np.argsort(labels, kind="stable")[::TEST_STRIDE]] = True
    return Images(
        images[~in_test], labels[~in_test], images[in_test], labels[in_test], classes=CLASSES, peak=16, note=""
    )
