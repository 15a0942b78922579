"""The order of an epoch, one batch at a time."""

import jax
import jax.numpy as jnp
from jax import lax

from wrnn_jax.typing import Array, Key

ROUNDS = 8


def shuffled(key: Key, positions: Array, size: int) -> Array:
    """Which of ``size`` items stand at some positions of a random order::

        π(0), …, π(size − 1) is a permutation of 0 … size − 1, a pseudorandom one for each key

    A Feistel network of eight rounds permutes 0 … 4^h − 1, the least such range that holds all items; what falls
    outside ``size`` is sent through again until it does not (cycle walking). So a batch costs what its own positions
    cost: to sort all 57,000 indices of an epoch at every step took a busy CPU 59 ms.

    Args:
      key: of the epoch.
      positions: integers from 0 to size − 1, of any shape.
      size: how many items there are, from 1 to 2^30.

    Returns:
      int32, the shape of ``positions``.

    Source: Luby and Rackoff 1988; Black and Rogaway 2002, section 3 ("Ciphers with arbitrary finite domains").
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = jnp.uint32(2**half - 1)
    keys = jax.random.bits(key, (ROUNDS,), jnp.uint32)

    def permute(values: Array) -> Array:
        left, right = values >> half, values & mask
        for round in range(ROUNDS):
            left, right = right, left ^ (_hash(right ^ keys[round]) & mask)
        return (left << half) | right

    def walk(values: Array) -> Array:
        return jnp.where(values < size, values, permute(values))

    values = permute(positions.astype(jnp.uint32))
    return lax.while_loop(lambda values: (values >= size).any(), walk, values).astype(jnp.int32)


def _hash(x: Array) -> Array:
    """The finaliser of MurmurHash3 (Appleby): every bit of the input changes about half of those that come out."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
