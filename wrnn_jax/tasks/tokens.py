"""What tasks of recalling tokens have in common: tokens drawn without repetition, and how right they are recalled."""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from wrnn_jax.typing import Array, Key

MOST_KINDS = 2**16
"""Of tokens: each is a feature of the inputs, and an output."""


def distinct(key: Key, size: int, among: int, count: int, log_weights: Array | None = None) -> Array:
    """Numbers drawn one after another from 0 … among − 1, none of them twice, in the order in which they are drawn.

    Args:
      key: of the draw.
      size: B, how many sequences, each with a draw of its own.
      among: how many numbers there are.
      count: how many are drawn, at most ``among``.
      log_weights: ``(among,)``: each draw takes one of the numbers that are left with a probability proportional to
        e^weight. If not given, all are as likely.

    Returns:
      int32 ``(size, count)``.

    Source: the largest of log weights + Gumbel noise are such a draw (Kool et al. 2019, the "Gumbel-top-k trick").
    """
    scores = jax.random.gumbel(key, (size, among))
    if log_weights is not None:
        scores = scores + log_weights[None]
    return lax.top_k(scores, count)[1]


def cross_entropy(outputs: Array, due: Array) -> Array:
    """Of logits ``(B, Q, O)`` at the tokens ``(B, Q)`` that are due, in nats: the mean over a sequence, ``(B,)``."""
    return optax.softmax_cross_entropy_with_integer_labels(outputs, due).mean(axis=-1)


def share_right(outputs: Array, due: Array) -> Array:
    """The share of a sequence's tokens that the largest logit names rightly: as :func:`cross_entropy`."""
    return (jnp.argmax(outputs, axis=-1) == due).mean(axis=-1)
