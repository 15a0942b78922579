"""The unroll of any small linear recurrence, parallel in time: plain XLA, differentiable in both modes.

Two steps of ``h ↦ Φ h`` with inputs v, w in between are one of ``h ↦ Φ² h`` with the input ``Φ v + w``: halving the
sequence again and again takes log₂ T matrix products one after another, and about twice the products of the scan. A
state is a product of rounded powers of Φ: exact where Φ selects (entries 0 and ±1), else as exact as those.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import lax

from wrnn_jax.typing import Array

_dot = partial(jnp.dot, precision=lax.Precision.HIGHEST)


def linear_unroll(transition: Array, state: Array, drives: Array, *, last: bool) -> tuple[Array, Array]:
    """Unroll ``h_{t+1} = Φ h_t + v_t`` over all steps.

    Memory: about two states a step and a power of Φ for each halving, stored likewise for a backward pass; with
    ``last``, half of these states.

    Args:
        transition: (n, n) Φᵀ, as states are rows
        state:      (B, n) h_0, whose dtype the states have; computed is in float32 at least
        drives:     (T, B, n) v, T ≥ 1
        last:       Only the last state.

    Returns:
      The last state ``(B, n)``, and h_1 … h_T ``(T, B, n)`` or with ``last`` the last state again.
    """
    dtype = state.dtype
    wide = np.promote_types(dtype, np.float32)
    transition, state, drives = (operand.astype(wide) for operand in (transition, state, drives))
    drives = drives.at[0].add(_dot(state, transition))
    if last:
        state = states = _last_state(transition, drives).astype(dtype)
        return state, states
    states = _all_states(transition, drives).astype(dtype)
    return states[-1], states


def _all_states(transition: Array, drives: Array) -> Array:
    """From h_0 = 0: v ``(T, B, n)`` -> h_1 … h_T ``(T, B, n)``."""
    if len(drives) == 1:
        return drives
    # The odd times are the ends of pairs of steps, a sequence of half the length; the even ones follow from them.
    ends = _all_states(_dot(transition, transition), _dot(drives[:-1:2], transition) + drives[1::2])
    starts = drives[2::2] + _dot(ends[: len(drives[2::2])], transition)
    starts = jnp.concatenate([drives[:1], starts])
    pairs = jnp.stack([starts[: len(ends)], ends], axis=1).reshape(-1, *drives.shape[1:])
    return jnp.concatenate([pairs, starts[len(ends) :]])


def _last_state(transition: Array, drives: Array) -> Array:
    """The last of :func:`_all_states`, ``(B, n)``."""
    while len(drives) > 1:
        if len(drives) % 2:
            # Nothing at first changes nothing.
            drives = jnp.concatenate([jnp.zeros_like(drives[:1]), drives])
        drives = _dot(drives[::2], transition) + drives[1::2]
        transition = _dot(transition, transition)
    return drives[0]
