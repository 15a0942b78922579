"""A text as bytes: a file of one's own, or tiny Shakespeare."""

from pathlib import Path

from wrnn_jax.datasets import stored
from wrnn_jax.datasets.sets import TINY_SHAKESPEARE
from wrnn_jax.validation import InvalidValue, require

MOST_BYTES = 2**30
"""Of a file."""


def load_text(file: Path | str | None = None, data_dir: Path | str | None = None) -> bytes:
    """A text, UTF-8 throughout.

    Args:
      file: a file of one's own; if not given, tiny Shakespeare (Karpathy 2015,
        https://github.com/karpathy/char-rnn/tree/master/data/tinyshakespeare): 1,115,394 characters of his plays, as
        tensorflow-datasets prepares them.
      data_dir: where that is prepared, as for the sets of images.

    Raises:
      InvalidValue: field "text" for a file that is missing, a folder, empty, of more than 1 GiB, or not UTF-8; field
        "data_dir" as for images.
    """
    if file is None:
        return stored.load_text(TINY_SHAKESPEARE, data_dir)
    path = Path(file)
    try:
        require(not path.is_dir(), "text", str(path), "a file, which a folder is not")
        require(path.is_file() or not path.exists(), "text", str(path), "a regular file: it is read more than once")
        size = path.stat().st_size
        require(size > 0, "text", str(path), "a file with a text in it: this is empty")
        require(size <= MOST_BYTES, "text", str(path), f"a file of {MOST_BYTES:,} bytes at most: this has {size:,}")
        content = path.read_bytes()
        content.decode()
    except UnicodeDecodeError as error:
        raise InvalidValue("text", str(path), f"UTF-8, which it is not from byte {error.start} on") from error
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidValue):
            raise
        reason = error.strerror if isinstance(error, OSError) else error  # A name may hold what no name can.
        raise InvalidValue("text", str(path), f"a file that can be read ({reason})") from error
    return content
