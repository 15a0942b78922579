"""A recurrent cell as a layer."""

from collections.abc import Callable
from typing import Any, Literal

from wrnn_jax.cells.base import Cell, unroll
from wrnn_jax.layers.base import Layer, Training, Variables
from wrnn_jax.typing import Array, Key, Params


def recurrent(
    cell: Cell,
    *,
    backend: Literal["auto", "scan", "fused", "native", "parallel"] = "auto",
    remat: bool | int = False,
    constrain: Callable[[Params], Params] | None = None,
    rates: Callable[[Params], Any] | None = None,
    decays: Callable[[Params], Any] | None = None,
) -> Layer:
    """The cell's y at every step::

        (h_{t+1}, y_t) = step(params, h_t, x_t),   t = 0 … T−1

    Parameters: the cell's. Hidden: the states after every step, ``(B, T, C, N)``.

    Args:
      cell: the cell.
      backend: how to go through time, see :func:`wrnn_jax.cells.base.unroll`.
      remat: of which steps the backward pass keeps the carry, see there.
      constrain: params -> params, after each update.
      rates: params -> factors of the learning rate, see :class:`wrnn_jax.layers.base.Layer`.
      decays: params -> whether weight decay acts, see there.
    """

    def init(key: Key, input_size: int) -> Variables:
        return Variables(cell.init(key, input_size))

    def apply(variables: Variables, xs: Array, training: Training | None = None) -> tuple[Array, Any]:
        return unroll(cell, variables.params, xs, backend=backend, remat=remat).outputs, variables.stats

    def hidden(variables: Variables, xs: Array) -> Array:
        return unroll(cell, variables.params, xs, outputs="last", return_hidden=True).hidden

    return Layer(init, apply, cell.output_size, hidden, constrain, rates, decays)
