"""Data on the host. Images: MNIST, CIFAR-10, and digits that need no download. Text: tiny Shakespeare, or one's own."""

from pathlib import Path
from typing import Literal

from wrnn_jax.datasets import digits, stored
from wrnn_jax.datasets.base import Images
from wrnn_jax.datasets.sets import STORED
from wrnn_jax.datasets.texts import load_text
from wrnn_jax.validation import require, require_choice

__all__ = ["CLASSES", "DATASETS", "STORED", "Images", "load", "load_text"]

CLASSES = {**{name: stored_set.classes for name, stored_set in STORED.items()}, "digits": digits.CLASSES}
"""How many a set has, by its name."""
DATASETS = tuple(CLASSES)


def load(name: Literal["mnist", "cifar10", "digits"], data_dir: Path | str | None = None) -> Images:
    """The image set called ``name``, in the order in which it is stored: the same in every call.

    ========  ===========  ======  ======  ====  ===============================================================
    name      an image     train   test    peak  source
    ========  ===========  ======  ======  ====  ===============================================================
    mnist     28 × 28 × 1  60,000  10,000  255   LeCun, Cortes, Burges (1998), http://yann.lecun.com/exdb/mnist/
    cifar10   32 × 32 × 3  50,000  10,000  255   Krizhevsky (2009), https://www.cs.toronto.edu/~kriz/cifar.html
    digits    8 × 8 × 1    1,437   360     16    Alpaydin, Kaynak (1998), the part that scikit-learn brings
    ========  ===========  ======  ======  ====  ===============================================================

    MNIST and CIFAR-10 are read as tensorflow-datasets prepares them (format array_record); what is not
    prepared yet is downloaded and prepared, once. Validation images are the caller's to take from the
    training set: none of these sets has a part for it.

    Args:
      name: one of ``DATASETS``.
      data_dir: where the sets are prepared, ``data_dir/<name>/<version>/``; if not given ``$TFDS_DATA_DIR``,
        or else ``~/tensorflow_datasets``. Not for digits, which are nowhere prepared.

    Raises:
      InvalidValue: for an unknown name, and for a ``data_dir`` in which the set neither is nor can be
        prepared, or is damaged.
    """
    require_choice("dataset", name, DATASETS)
    if name in STORED:
        return stored.load(STORED[name], data_dir)
    require(data_dir is None, "data_dir", str(data_dir), "left out with digits: they are installed with scikit-learn")
    return digits.load()
