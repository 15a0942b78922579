"""Character language modelling: at every step the next character of a text."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from wrnn_jax.datasets.archives import cut
from wrnn_jax.tasks.base import Progress, Source, Split, Task
from wrnn_jax.typing import Array, Key, Signature
from wrnn_jax.validation import InvalidValue, require, require_choice, require_integer

Units = Literal["character", "byte"]
MOST_KINDS = 1024
"""Of characters: inputs have a feature for each, and a readout a row."""
MOST_WINDOWS = 1024
"""Of a split, that are evaluated."""
HEX_DIGITS = 64
"""Of a SHA-256."""


@dataclass(frozen=True)
class LanguageConfig:
    """Which text."""

    text: str | None = None
    """A file with a text in UTF-8 (if not given: tiny Shakespeare, downloaded and prepared at first use)."""
    T: int = 256
    """Characters of a sequence."""
    units: Units = "character"
    """What a step reads and predicts: character | byte (of UTF-8, for texts of more than 1,024 kinds of characters)."""
    sha256: str | None = None
    """The SHA-256 that the text must have (if not given: any; a run keeps that of its text, and goes on with no
    other)."""
    data_dir: str | None = None
    """Folder of the prepared tiny Shakespeare, or to prepare it in (if not given: TFDS_DATA_DIR or
    ~/tensorflow_datasets)."""

    def __post_init__(self):
        require_integer("T", self.T, at_least=1)
        require_choice("units", self.units, get_args(Units))
        is_digest = self.sha256 is None or (
            len(self.sha256) == HEX_DIGITS and not self.sha256.strip("0123456789abcdef")
        )
        require(is_digest, "sha256", self.sha256, f"{HEX_DIGITS} digits of 0 to 9 and a to f")
        require(self.text is None or self.data_dir is None, "data_dir", self.data_dir, "left out with --text")
        if self.text is not None:  # A run's figures may be drawn from elsewhere.
            object.__setattr__(self, "text", str(Path(self.text).absolute()))

    @property
    def shape(self) -> tuple[int, int]:
        """Steps of a training sequence, and its features at least: how many kinds there are the text says."""
        return self.T, 2


def symbols(text: str, units: Units) -> np.ndarray:
    """A text as numbers, ``(n,)``: its code points, or the bytes of its UTF-8."""
    if units == "byte":
        return np.frombuffer(text.encode(errors="surrogatepass"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), "<u4")


def encoded(prompt: str, vocabulary: np.ndarray, units: Units) -> np.ndarray:
    """The place of each of a prompt's units in a vocabulary: int32 ``(n,)``.

    Raises:
      InvalidValue: field "prompt", for a unit that it has not.
    """
    found = symbols(prompt, units)
    places = np.searchsorted(vocabulary, found)
    unseen = found[vocabulary[np.minimum(places, len(vocabulary) - 1)] != found]
    if len(unseen):
        shown = repr(chr(unseen[0])) if units == "character" else f"byte {unseen[0]}"
        raise InvalidValue(
            "prompt", prompt, f"of the {len(vocabulary)} {units}s that were seen, among which is no {shown}"
        )
    return places.astype(np.int32)


def decoded(codes: np.ndarray, vocabulary: np.ndarray, units: Units) -> str:
    """The text of such places ``(n,)``; bytes that are not UTF-8 become U+FFFD."""
    found = np.asarray(vocabulary)[codes]
    return found.astype(np.uint8).tobytes().decode(errors="replace") if units == "byte" else "".join(map(chr, found))


def language_task(config: LanguageConfig, content: bytes) -> Task:
    """The next character as data, loss and metrics, of a text given in UTF-8.

    Its characters (or bytes) become one-hot inputs ``(B, T, V)``, where V is how many kinds the whole text has; targets
    ``(B, T)`` are those one step later, outputs are logits. The first 90 % train: a batch is of windows of T + 1
    characters whose beginnings are drawn evenly, with the run's key and the step. Of what is left the first half
    validates, the other tests, in windows that do not overlap and that cover the split (1,024 of them, spread over it
    evenly, where there are more). A window begins without a memory of what is before it. Metrics:

    - ``val_loss``, ``test_loss``: cross-entropy in nats a character, the mean over every step;
    - ``val_bits``, ``test_bits``: the same in bits, L / ln 2. The lowest ``val_bits`` pick the parameters.

    Chance knows how often each character occurs in the training text, and nothing else:
    H = −Σ p log₂ p bits.

    The vocabulary, V code points (or bytes) that rise, is ``fixed``: in every checkpoint.

    Source: Graves 2013, section 3 (prediction of characters); windows and splits as in char-rnn (Karpathy 2015).

    Raises:
      InvalidValue: for a text that is too short for T, has more than 1,024 kinds of characters, or is not that of
        ``config.sha256``.
    """
    name = config.text or "tiny_shakespeare"
    digest = hashlib.sha256(content).hexdigest()
    allowed = f"the text of SHA-256 {config.sha256}: this has {digest}"
    require(config.sha256 in (None, digest), "text", name, allowed)
    vocabulary, codes = np.unique(symbols(content.decode(), config.units), return_inverse=True)
    is_small = config.units == "byte" or len(vocabulary) <= MOST_KINDS
    allowed = f"byte: the text has {len(vocabulary):,} kinds of characters, more than {MOST_KINDS:,}"
    require(is_small, "units", config.units, allowed)
    codes = codes.astype(np.uint8 if len(vocabulary) <= 256 else np.uint16)
    data = {part: codes[of] for part, of in zip(("train", "val", "test"), cut(len(codes)), strict=True)}
    shortest = min(map(len, data.values()))
    allowed = f"longer: of its {len(codes):,} {config.units}s only {shortest} validate, and one is to predict another"
    require(shortest >= 2, "text", name, allowed)
    allowed = f"at most {shortest - 1}: the text has {len(codes):,} {config.units}s, of which {shortest:,} validate"
    require(shortest > config.T, "T", config.T, allowed)
    nats = entropy(data["train"])
    return _of_codes(config, vocabulary, data)._replace(
        chance={"val_loss": nats, "val_bits": nats / math.log(2)}, settled={"sha256": digest}
    )


def unseen_task(config: LanguageConfig, kinds: int) -> Task:
    """The task of a text that is not at hand, of which one knows how many kinds V of characters it has: for what does
    without its data, such as restoring a run."""
    nothing = dict.fromkeys(("train", "val", "test"), np.zeros(config.T + 1, np.uint8))
    return _of_codes(config, np.zeros(kinds), nothing)


def entropy(codes: np.ndarray) -> float:
    """−Σ p ln p in nats, of the frequencies of whole numbers ``(n,)``."""
    shares = np.bincount(codes) / len(codes)
    return float(-(shares * np.log(np.where(shares > 0, shares, 1))).sum())


def _of_codes(config: LanguageConfig, vocabulary: np.ndarray, data: dict[str, np.ndarray]) -> Task:
    kinds, T = len(vocabulary), config.T

    def windows(codes: Array, starts: Array) -> tuple[Array, Array]:
        found = codes[starts[:, None] + jnp.arange(T + 1)[None]].astype(jnp.int32)
        return jax.nn.one_hot(found[:, :-1], kinds), found[:, 1:]

    def batch(source: Source, key: Key, progress: Progress, size: int) -> tuple[Array, Array]:
        codes = source.data["train"]
        starts = jax.random.randint(jax.random.fold_in(key, progress.step), (size,), 0, len(codes) - T)
        return windows(codes, starts)

    def cross_entropy(outputs: Array, targets: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean(axis=-1)

    def split(part: str) -> Split:
        last = len(data[part]) - 1 - T
        size = min((last + T) // T, MOST_WINDOWS)
        starts = (np.arange(size) * last // max(size - 1, 1)).astype(np.int32)

        def metrics(outputs: Array, targets: Array) -> dict[str, Array]:
            nats = cross_entropy(outputs, targets)
            return {f"{part}_loss": nats, f"{part}_bits": nats / math.log(2)}

        return Split(size, lambda source, indices: windows(source.data[part], jnp.asarray(starts)[indices]), metrics)

    return Task(
        Signature(kinds, kinds, T),
        batch=batch,
        loss=lambda outputs, targets: cross_entropy(outputs, targets).mean(),
        splits={"val": split("val"), "test": split("test")},
        monitor="val_loss",
        chance={},
        score="val_bits",
        score_falls=True,
        source=Source(data, {"vocabulary": vocabulary.astype(np.int32)}),
    )
