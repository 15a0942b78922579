"""What a cell's step does near the origin."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from wrnn_jax.cells.base import Cell
from wrnn_jax.typing import Params
from wrnn_jax.validation import require, require_integer


def linearised(cell: Cell, params: Params, input_size: int) -> np.ndarray:
    """The Jacobian at the origin, without input::

        J = ∂ step(h, 0) / ∂h  at h = 0

    h is the whole carry, its leaves flattened one after another. For the tanh RNN J is ``W_hh`` itself if it has no
    bias; with one, or for any cell of which 0 is no fixed point, J says little of what the cell does. A ReLU has no
    derivative at 0 and JAX takes 0: linearise the same cell with the identity in its place.

    Args:
      cell: whose carry is made of floating-point numbers alone (no count of steps).
      params: what ``cell.init`` gave.
      input_size: D.

    Returns:
      J ``(n, n)`` for a carry of n numbers.

    Raises:
      InvalidValue: for another carry, or a size below 1.

    Source: Karuvally et al. 2024, section on the analysis of trained RNNs.
    """
    require_integer("input_size", input_size, at_least=1)
    carry = jax.tree.map(jnp.zeros_like, cell.initial_carry())
    kinds = [leaf.dtype.name for leaf in jax.tree.leaves(carry)]
    floating = all(jnp.issubdtype(kind, jnp.floating) for kind in kinds)
    require(floating, "cell.initial_carry", ", ".join(kinds), "floating-point numbers alone")
    origin, unravel = ravel_pytree(carry)

    def step(flat: jax.Array) -> jax.Array:
        return ravel_pytree(cell.step(params, unravel(flat), jnp.zeros(input_size, origin.dtype))[0])[0]

    return np.asarray(jax.jacobian(step)(origin), np.float64)
