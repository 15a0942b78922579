"""Dropout: in training, features at random are 0."""

from typing import Any

import jax
import jax.numpy as jnp

from wrnn_jax.layers.base import Layer, Training, Variables, beginnings, stream_of_steps
from wrnn_jax.typing import Array, Key
from wrnn_jax.validation import require_fraction


def dropout(rate: float, *, tied: bool = False) -> Layer:
    """In training every feature is 0 with probability p, and what is kept is scaled, so that the mean stays::

        y = m ⊙ x / (1 − p),     m ~ Bernoulli(1 − p)

    In evaluation y = x. No parameters; for p = 0 nothing is drawn.

    Args:
      rate: p.
      tied: whether one m ``(F,)`` serves all steps of a sequence, of packed ones each its own. If not, every step has
        its own.

    Raises:
      ValueError: for p outside [0, 1).

    Source: Srivastava et al. 2014, section 4; tied, Gal & Ghahramani 2016, section 4.
    """
    require_fraction("dropout", rate)

    def apply(
        variables: Variables, xs: Array, training: Training | None = None, starts: Array | None = None
    ) -> tuple[Array, Any]:
        if training is None or rate == 0:
            return xs, variables.stats
        batch, steps, features = xs.shape
        is_one = tied and starts is None

        def draw(key: Key) -> Array:
            return jax.random.bernoulli(key, 1 - rate, (1 if is_one else steps, features))

        kept = jax.vmap(draw)(training.sequence_keys(batch))
        if tied and starts is not None:
            kept = jnp.take_along_axis(kept, beginnings(starts, xs)[..., None], axis=1)
        return jnp.where(kept, xs / (1 - rate), 0), variables.stats

    return Layer(lambda key, input_size: Variables(()), apply, stream=stream_of_steps(apply))
