"""A recurrent cell as a layer."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax.numpy as jnp

from wrnn_jax.cells.base import Cell, unroll
from wrnn_jax.cells.contract import first_carry
from wrnn_jax.layers.base import Layer, Stream, Training, Variables
from wrnn_jax.typing import Array, Carry, Key, Params


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

    Parameters: the cell's. Hidden: the states after every step, ``{"": (B, T, C, N)}``.

    Args:
      cell: the cell.
      backend: how to go through time, see :func:`wrnn_jax.cells.base.unroll`; packed sequences by the scan.
      remat: of which steps the backward pass keeps the carry, see there.
      constrain: params -> params, after each update.
      rates: params -> factors of the learning rate, see :class:`wrnn_jax.layers.base.Layer`.
      decays: params -> whether weight decay acts, see there.
    """

    def init(key: Key, input_size: int) -> Variables:
        return Variables(cell.init(key, input_size))

    def apply(
        variables: Variables, xs: Array, training: Training | None = None, starts: Array | None = None
    ) -> tuple[Array, Any]:
        way = backend if starts is None else "scan"
        ys = unroll(cell, variables.params, xs, starts=starts, backend=way, remat=remat).outputs
        return ys, variables.stats

    def start(variables: Variables, sequences: int, dtype: Any = jnp.float32) -> Carry:
        return first_carry(cell, variables.params, (sequences,), dtype)

    def run(variables: Variables, carry: Carry, xs: Array) -> tuple[Carry, Array]:
        return unroll(cell, variables.params, xs, carry=carry, backend=backend)[:2]

    def hidden(variables: Variables, xs: Array) -> Mapping[str, Array]:
        return {"": unroll(cell, variables.params, xs, outputs="last", return_hidden=True).hidden}

    return Layer(init, apply, cell.output_size, hidden, constrain, rates, decays, Stream(start, run))
