"""Sequences of symbols that a model goes on with by itself."""

import jax
import jax.numpy as jnp
from jax import lax

from wrnn_jax.layers import Variables
from wrnn_jax.models.base import Model
from wrnn_jax.typing import Array, Carry, Key
from wrnn_jax.validation import require


def sample(key: Key, logits: Array, temperature: Array | float) -> Array:
    """Symbols drawn from softmax(logits / temperature), of logits ``(*batch, O)``; at temperature 0 the likeliest."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    drawn = jax.random.categorical(key, shifted / jnp.where(temperature > 0, temperature, 1.0))
    return jnp.where(temperature > 0, drawn, jnp.argmax(logits, axis=-1))


def generate(
    model: Model, variables: Variables, prompt: Array, kinds: int, length: int, key: Key, temperature: Array | float
) -> Array:
    """The ``length`` symbols that follow a prompt, each drawn by :func:`sample` from what the model makes of all before
    it, prompt and symbols drawn alike.

    The prompt is run at once, then one step for every symbol, in a scan.

    Args:
      model: one with a stream, whose inputs are one-hot symbols and whose outputs are logits of the next.
      variables: its arrays.
      prompt: symbols, whole numbers ``(B, P)``, P ≥ 1.
      kinds: D and O, how many symbols there are.
      length: how many, 1 or more.
      key: decides what is drawn.
      temperature: 0 or more.

    Returns:
      int32 ``(B, length)``.

    Raises:
      InvalidValue: for a model that has no stream.
    """
    require(model.stream is not None, "model", model.stream, "one with a stream, which goes on step by step")

    def run(carry: Carry, symbols: Array) -> tuple[Carry, Array]:
        carry, ys = model.stream.run(variables, carry, jax.nn.one_hot(symbols, kinds))
        return carry, ys[:, -1]

    def step(state: tuple[Carry, Array], key: Key) -> tuple[tuple[Carry, Array], Array]:
        carry, logits = state
        symbol = sample(key, logits, temperature).astype(jnp.int32)
        return run(carry, symbol[:, None]), symbol

    state = run(model.stream.start(variables, len(prompt)), prompt)
    return jnp.swapaxes(lax.scan(step, state, jax.random.split(key, length))[1], 0, 1)
