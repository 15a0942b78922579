"""Parameters in groups, leaf by leaf: how fast each learns, and whether weight decay acts on it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wrnn_jax.typing import Array, Params
from wrnn_jax.validation import InvalidValue, require, require_switch


def rated(updates: Params, rates: Any) -> Params:
    """``rate · update`` of each leaf.

    Args:
      updates: a tree as the parameters'.
      rates: a pytree prefix of it: numbers, or arrays that broadcast to the shapes of the leaves; None is 1.

    Raises:
      InvalidValue: for what is no prefix, a rate below 0, an array that does not broadcast.
    """

    def times(update: Array, rate: float | Array) -> Array:
        if not isinstance(rate, jax.core.Tracer):
            require(bool(np.all(np.asarray(rate) >= 0)), "rates", rate, "0 or more")
        shape = np.shape(rate)
        fits = len(shape) <= update.ndim and all(
            size in (1, whole) for size, whole in zip(shape[::-1], update.shape[::-1], strict=False)
        )
        require(fits, "rates", f"an array of shape {shape}", f"one that broadcasts to its leaf's, {update.shape}")
        return update * jnp.broadcast_to(jnp.asarray(rate, update.dtype), update.shape)

    return updates if rates is None else jax.tree.map(times, updates, _by_leaf("rates", rates, updates))


def decayed(updates: Params, params: Params, factor: float | Array | None, decays: Any = None) -> Params:
    """``update + λ θ`` of each leaf on which weight decay acts.

    Args:
      updates: a tree as the parameters'.
      params: θ.
      factor: λ; None is 0.
      decays: a pytree prefix of it: False where the leaves below stay as they are; None is True.

    Raises:
      InvalidValue: for what is no prefix, or has other leaves than booleans.
    """
    if factor is None:
        return updates
    acts = _by_leaf("decays", True if decays is None else decays, updates)
    for leaf in jax.tree.leaves(acts):
        require_switch("decays", leaf)
    return jax.tree.map(lambda update, leaf, act: update + factor * leaf if act else update, updates, params, acts)


def _by_leaf(field: str, prefix: Any, params: Params) -> Any:
    """The prefix with as many leaves as the parameters have."""
    try:
        return jax.tree.broadcast(prefix, params)
    except ValueError:
        given, whole = map(jax.tree.structure, (prefix, params))
        raise InvalidValue(field, given, f"a prefix of the parameters' tree, {whole}") from None
