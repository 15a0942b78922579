"""The selective copy task: recall tokens that stand at random places among noise (Gu and Dao 2023, section 3.1)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from wrnn_jax.tasks.base import Task, fresh, held_out
from wrnn_jax.tasks.tokens import MOST_KINDS, cross_entropy, distinct, share_right
from wrnn_jax.typing import Array, Key, Signature
from wrnn_jax.validation import require, require_integer

NOISE = 0
TEST_SIZE = 1024
SOLVED_RECALL = 0.99


@dataclass(frozen=True)
class SelectiveConfig:
    """The selective copy task's own flags."""

    T: int = 4096
    """Steps among which the tokens stand, all others being noise; a sequence is T + tokens steps long."""
    tokens: int = 16
    """Tokens to remember, recalled one a step."""
    vocabulary: int = 16
    """What a step can be: noise, "recall now", or one of vocabulary - 2 kinds of token."""

    def __post_init__(self):
        require_integer("T", self.T, at_least=1)
        require_integer("tokens", self.tokens, at_least=1)
        require(self.tokens <= self.T, "tokens", self.tokens, f"at most {self.T}, the steps among which they stand")
        require_integer("vocabulary", self.vocabulary, at_least=4, at_most=MOST_KINDS)

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and features of a training sequence."""
        return self.T + self.tokens, self.vocabulary


def selective_batch(key: Key, size: int, T: int, tokens: int, vocabulary: int) -> tuple[Array, Array]:
    """Fresh random sequences of the selective copy task, as categories.

    0 is noise, 1 … V − 2 are kinds of token, V − 1 says "recall now". M tokens, each of a random kind, stand at M of
    the first T steps, all sets of M places being as likely; the steps between are noise. Then come M steps of "recall
    now", at which the tokens are due in the order in which they came.

    Returns:
      (inputs ``(B, T + M)``, targets ``(B, M)``), both int32.
    """
    kinds_key, places_key = jax.random.split(key)
    targets = jax.random.randint(kinds_key, (size, tokens), 1, vocabulary - 1)
    places = jnp.sort(distinct(places_key, size, T, tokens), axis=-1)
    shown = jnp.full((size, T), NOISE, jnp.int32).at[jnp.arange(size)[:, None], places].set(targets)
    return jnp.concatenate([shown, jnp.full((size, tokens), vocabulary - 1, jnp.int32)], axis=1), targets


def selective_task(config: SelectiveConfig) -> Task:
    """The selective copy task as data, loss and metrics.

    Inputs are one-hot ``(B, T + M, V)``, targets categories ``(B, M)``, outputs logits ``(B, T + M, V)``, of which
    those of the last M steps count. In the copy task a token is due a fixed number of steps after it was shown, so that
    a delay line is enough. Here that number is another for each token, and noise is to be left out of what is
    remembered.

    The loss is the cross-entropy in nats, the mean over the M tokens and the sequences. Metrics of a sequence, of which
    means over 1,024 count: that, ``test_loss``, and ``recall``, the share of the tokens that the largest logit names
    rightly. Solved: 99 % of them.

    Chance is one who guesses among the V − 2 kinds: ln (V − 2), and one token in V − 2.

    Source: Gu and Dao 2023 ("Mamba"), section 3.1 (Fig. 2) and appendix E.1, which has the sizes: 4,096 steps, 16
    tokens, a vocabulary of 16, noise included. That it includes "recall now" as well, and that "recall now" follows
    after the T steps, is as in the first author's program of the copy task with variable places (state-spaces/s4).
    After Jing et al. 2019 (the "denoise" task) and Arjovsky et al. 2016.
    """
    T, tokens, vocabulary = config.T, config.tokens, config.vocabulary
    kinds = vocabulary - 2

    def generate(key: Key, size: int) -> tuple[Array, Array]:
        inputs, targets = selective_batch(key, size, T, tokens, vocabulary)
        return jax.nn.one_hot(inputs, vocabulary), targets

    def loss(outputs: Array, targets: Array) -> Array:
        return cross_entropy(outputs[:, T:], targets).mean()

    def metrics(outputs: Array, targets: Array) -> dict[str, Array]:
        said = outputs[:, T:]
        return {"test_loss": cross_entropy(said, targets), "recall": share_right(said, targets)}

    def solved(metrics: Mapping[str, float]) -> bool:
        return metrics["recall"] >= SOLVED_RECALL

    return Task(
        Signature(vocabulary, vocabulary, config.shape[0]),
        fresh(generate),
        loss,
        {"test": held_out(generate, TEST_SIZE, metrics)},
        monitor="test_loss",
        chance={"test_loss": math.log(kinds), "recall": 1 / kinds},
        solved=solved,
    )
