"""Associative recall: the value that stood beside a key, asked for once (Fu et al. 2023, section 3.1) or for every key,
at random places (Arora et al. 2024)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wrnn_jax.tasks.base import Task, fresh, held_out
from wrnn_jax.tasks.tokens import MOST_KINDS, cross_entropy, distinct, share_right
from wrnn_jax.typing import Array, Key, Signature
from wrnn_jax.validation import require, require_choice, require_integer, require_positive

NEITHER = 0
"""The step that is neither key nor value."""
TEST_SIZE = 1024
SOLVED_ACCURACY = 0.99
VARIANTS = ("single", "multi")
SIZES = {
    "single": {"pairs": 10, "keys": 4, "values": 4},
    "multi": {"pairs": 4, "keys": 4095, "values": 4096, "T": 64, "power": 0.01},
}
"""Of the papers: Fu et al. have a vocabulary of 10 and 20 steps of pairs; Arora et al. one of 8,192, 64 steps at least,
a power of 0.01."""


class Asked(NamedTuple):
    """What a sequence asks."""

    places: Array
    """``(B, Q)``: the steps of the keys whose values are asked for."""
    due: Array
    """``(B, Q)``: these values, as categories."""


@dataclass(frozen=True)
class RecallConfig:
    """The task's own flags."""

    variant: str = "single"
    """single (after all pairs one key, whose value is asked for) | multi (every key comes again, at a random place)."""
    pairs: int | None = None
    """Pairs of a key and a value that are shown (if not given: 10; multi 4)."""
    keys: int | None = None
    """Kinds of key (if not given: 4; multi 4,095)."""
    values: int | None = None
    """Kinds of value (if not given: 4; multi 4,096)."""
    T: int | None = None
    """Steps of a sequence (if not given: two for each pair and two more; multi 64)."""
    power: float | None = None
    """Of multi: the probability of the g-th place after the pairs falls as g^(power - 1); 1 makes all places as likely
    (if not given: 0.01)."""

    def __post_init__(self):
        require_choice("variant", self.variant, VARIANTS)
        for field, size in SIZES[self.variant].items():
            if getattr(self, field) is None:
                object.__setattr__(self, field, size)
        require_integer("pairs", self.pairs, at_least=1)
        require_integer("keys", self.keys, at_least=2, at_most=MOST_KINDS)
        require_integer("values", self.values, at_least=2, at_most=MOST_KINDS)
        self._require_multi() if self.variant == "multi" else self._require_single()

    def _require_single(self) -> None:
        require(self.power is None, "power", self.power, "left out: only for --variant multi")
        steps = 2 * self.pairs + 2
        if self.T is None:
            object.__setattr__(self, "T", steps)
        require_integer("T", self.T, at_least=1)
        allowed = f"left out, or {steps}: two steps for each of {self.pairs} pairs, and two"
        require(steps == self.T, "T", self.T, allowed)

    def _require_multi(self) -> None:
        for field in ("keys", "values"):
            has, allowed = getattr(self, field), f"{self.pairs} or more, as many as pairs: none stands in two of them"
            require(has >= self.pairs, field, has, allowed)
        require_integer("T", self.T, at_least=1)
        allowed = f"even, and {4 * self.pairs} or more: the pairs, and as many pairs of steps again to ask in"
        require(self.T % 2 == 0 and 4 * self.pairs <= self.T, "T", self.T, allowed)
        require_positive("power", self.power)
        require(self.power <= 1, "power", self.power, "above 0, and 1 at most")

    @property
    def vocabulary(self) -> int:
        """V: keys, values, and what is neither."""
        return 1 + self.keys + self.values

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and features of a training sequence."""
        return self.T, self.vocabulary


def recall_batch(key: Key, size: int, config: RecallConfig) -> tuple[Array, Asked]:
    """Fresh random sequences of associative recall, as categories.

    0 is neither key nor value, 1 … K are keys, K + 1 … K + L are values. P pairs come first, each a key and, in the
    next step, its value.

    ``"single"``: every key of a sequence has a random value, the same wherever it stands; the keys of the pairs are
    drawn one by one, so that some stand in several pairs. Then 0, and one of the keys that stood in the pairs, each
    as likely. Its value is due at that step, the last.

    ``"multi"``: no key stands in two of the pairs, nor does a value. In the T − 2P steps after them every key comes
    again, at the step 2P + 2(g − 1) of a g = 1, 2, … of its own, drawn one key after another of those that are left,
    with probabilities ∝ g^(a − 1), where a is the power. Its value is due at that step. All other steps are 0.

    Returns:
      (inputs ``(B, T)``, what is asked), int32.
    """
    return (_multi if config.variant == "multi" else _single)(key, size, config)


def _single(key: Key, size: int, config: RecallConfig) -> tuple[Array, Asked]:
    values_key, pairs_key, question_key = jax.random.split(key, 3)
    value_of = jax.random.randint(values_key, (size, config.keys), 0, config.values)
    keys = jax.random.randint(pairs_key, (size, config.pairs), 0, config.keys)
    rows = jnp.arange(size)[:, None]
    is_shown = jnp.zeros((size, config.keys), bool).at[rows, keys].set(True)
    asked = jax.random.categorical(question_key, jnp.where(is_shown, 0.0, -jnp.inf))[:, None]
    pairs = _pairs(keys, value_of[rows, keys], config)
    inputs = jnp.concatenate([pairs, jnp.full((size, 1), NEITHER, jnp.int32), 1 + asked], axis=1)
    return inputs, Asked(jnp.full((size, 1), config.T - 1, jnp.int32), 1 + config.keys + value_of[rows, asked])


def _multi(key: Key, size: int, config: RecallConfig) -> tuple[Array, Asked]:
    keys_key, values_key, places_key = jax.random.split(key, 3)
    keys = distinct(keys_key, size, config.keys, config.pairs)
    values = distinct(values_key, size, config.values, config.pairs)
    pairs = _pairs(keys, values, config)
    shown = pairs.shape[1]
    gaps = (config.T - shown) // 2
    falling = (config.power - 1) * jnp.log(jnp.arange(1, gaps + 1, dtype=jnp.float32))
    places = shown + 2 * distinct(places_key, size, gaps, config.pairs, falling)
    inputs = jnp.concatenate([pairs, jnp.full((size, config.T - shown), NEITHER, jnp.int32)], axis=1)
    inputs = inputs.at[jnp.arange(size)[:, None], places].set(1 + keys)
    return inputs, Asked(places, 1 + config.keys + values)


def _pairs(keys: Array, values: Array, config: RecallConfig) -> Array:
    """Numbers of keys and values, ``(B, P)`` each -> categories in turn, ``(B, 2P)``."""
    return jnp.stack([1 + keys, 1 + config.keys + values], axis=-1).reshape(len(keys), -1)


def recall_task(config: RecallConfig) -> Task:
    """Associative recall as data, loss and metrics.

    Inputs are one-hot ``(B, T, V)``, outputs logits ``(B, T, V)`` of which those of the places that are asked count;
    with one question they are read from the last step alone, ``(B, V)``.

    The loss is the cross-entropy in nats, the mean over questions and sequences. Metrics of a sequence, of which means
    over 1,024 count: that, ``test_loss``, and ``test_acc``, the share of the questions that the largest logit answers
    rightly. Solved: 99 % of them.

    Chance is one who guesses among the L values: ln L, and one answer in L.

    Source: ``"single"``, Fu et al. 2023 ("H3"), section 3.1, after Ba et al. 2016; the keys that stand in several pairs
    and the step between pairs and question are as in their program (HazyResearch/safari), whose vocabulary of 10 counts
    a token as well for questions without an answer, which are not asked in their runs. It is trained to foretell every
    next token, here the answer alone. ``"multi"``, Arora et al. 2024 ("Zoology"), as in the program of their Fig. 2,
    whose vocabulary of 8,192 and lengths of 64 to 512 are the same here.
    """

    def generate(key: Key, size: int) -> tuple[Array, Asked]:
        inputs, asked = recall_batch(key, size, config)
        return jax.nn.one_hot(inputs, config.vocabulary), asked

    def answers(outputs: Array, asked: Asked) -> Array:
        """The logits of the answers, ``(B, Q, V)``."""
        if config.variant == "single":
            return outputs[:, None]
        return jnp.take_along_axis(outputs, asked.places[..., None], axis=1)

    def loss(outputs: Array, asked: Asked) -> Array:
        return cross_entropy(answers(outputs, asked), asked.due).mean()

    def metrics(outputs: Array, asked: Asked) -> dict[str, Array]:
        said = answers(outputs, asked)
        return {"test_loss": cross_entropy(said, asked.due), "test_acc": share_right(said, asked.due)}

    def solved(metrics: Mapping[str, float]) -> bool:
        return metrics["test_acc"] >= SOLVED_ACCURACY

    read = "last" if config.variant == "single" else "all"
    return Task(
        Signature(config.vocabulary, config.vocabulary, config.T, read),
        fresh(generate),
        loss,
        {"test": held_out(generate, TEST_SIZE, metrics)},
        monitor="test_loss",
        chance={"test_loss": math.log(config.values), "test_acc": 1 / config.values},
        solved=solved,
    )
