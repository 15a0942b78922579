"""Readouts: from the flattened hidden state to the outputs, as a pair of pure functions."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wrnn_jax.cells.base import Cell, Engines, unroll
from wrnn_jax.cells.parts import affine, cast, uniform_fan_in, with_bias, without_bias
from wrnn_jax.typing import Array, Carry, Key, Params
from wrnn_jax.validation import require, require_integer, require_switch


class Readout(NamedTuple):
    """``init(key, input_size)`` -> params; ``apply(params, y)``: y ``(*batch, F)`` -> ``(*batch, O)``.

    It reads the y of one step, ``(B, F)``, and may do with it what it likes: look across the batch, close over arrays,
    have whole numbers, masks and keys among its parameters. An engine then hands it the y of all steps, one after
    another, when they are there. One that is ``rowwise`` is read inside of an engine's loop.
    """

    init: Callable[[Key, int], Params]
    apply: Callable[[Params, Array], Array]
    output_size: int
    is_linear: bool = False
    """Of the form of :func:`linear`, which the engines have a faster way for."""
    rowwise: bool = False
    """Whether ``apply`` reads each row of y by itself, and nothing but it and parameters, and gives real numbers: all
    rows then are one batch to it, or are read in parts."""


def linear(output_size: int, *, use_bias: bool = True) -> Readout:
    """y = W h + b. Parameters ``{"output": {"kernel": W (O, F), "bias": b (O,)}}``, both U(−1/√F, 1/√F);
    with ``use_bias=False`` y = W h, and no ``"bias"``.

    Raises:
      ValueError: for O < 1, or ``use_bias`` no boolean.

    Source: Keller et al. 2024, eq. 3; the start is that of the authors' framework.
    """
    require_integer("output_size", output_size, at_least=1)
    require_switch("use_bias", use_bias)

    def init(key: Key, input_size: int) -> Params:
        params = {"output": _init_dense(key, input_size, output_size)}
        return params if use_bias else without_bias(params)

    def apply(params: Params, y: Array) -> Array:
        return affine(cast(params["output"], y.dtype), y)

    return Readout(init, apply, output_size, is_linear=True, rowwise=True)


def mlp(output_size: int, hidden_size: int = 100, *, use_bias: bool = True) -> Readout:
    """y = W₂ ReLU(W₁ h + b₁) + b₂, the paper's "+ MLP".

    Parameters ``{"hidden": {"kernel": W₁ (H, F), "bias": b₁ (H,)}, "output": {"kernel": W₂ (O, H),
    "bias": b₂ (O,)}}``, each U(−1/√fan_in, 1/√fan_in); with ``use_bias=False`` neither bias. H = 100 in the
    authors' program.

    Raises:
      ValueError: for O or H below 1, or ``use_bias`` no boolean.
    """
    require_integer("output_size", output_size, at_least=1)
    require_integer("hidden_size", hidden_size, at_least=1)
    require_switch("use_bias", use_bias)

    def init(key: Key, input_size: int) -> Params:
        hidden_key, output_key = jax.random.split(key)
        params = {
            "hidden": _init_dense(hidden_key, input_size, hidden_size),
            "output": _init_dense(output_key, hidden_size, output_size),
        }
        return params if use_bias else without_bias(params)

    def apply(params: Params, y: Array) -> Array:
        params = cast(params, y.dtype)
        return affine(params["output"], jax.nn.relu(affine(params["hidden"], y)))

    return Readout(init, apply, output_size, rowwise=True)


def direct(output_size: int) -> Readout:
    """y, as the cell says it; no parameters. It must have O features."""

    def init(key: Key, input_size: int) -> Params:
        require(input_size == output_size, "output_size", output_size, f"{input_size}, the features of the cell's y")
        return {}

    return Readout(init, lambda params, y: y, output_size, rowwise=True)


def with_readout(cell: Cell, readout: Readout) -> Cell:
    """The cell whose output is what the readout makes of ``cell``'s, inside the loop over time.

    Parameters ``{"cell": …, "readout": …}``; the carry is the cell's. The hidden states of all steps
    then need not be stored to be read.
    """

    def init(key: Key, input_size: int) -> Params:
        cell_key, readout_key = jax.random.split(key)
        return {
            "cell": cell.init(cell_key, input_size),
            "readout": readout.init(readout_key, cell.output_size),
        }

    def step(params: Params, carry: Carry, x: Array, *prepared) -> tuple[Carry, Array]:
        carry, y = cell.step(params["cell"], carry, x, *prepared)
        return carry, readout.apply(params["readout"], y)

    def afterwards(backend):
        """The engine of that name, whose outputs are read as the scan would have read them."""

        def engine(params: Params, carry: Carry, xs: Array, last: bool) -> tuple[Carry, Array]:
            outputs = "last" if last else "all"
            carry, ys, _ = unroll(
                cell, params["cell"], xs, carry=carry, outputs=outputs, time_major=True, backend=backend
            )
            read = partial(readout.apply, params["readout"])
            return carry, read(ys) if last else jax.lax.map(read, ys)

        return engine

    def in_loop(backend, loop):
        """The engine ``loop``, read as it goes."""
        how = "linear" if readout.is_linear else readout.apply

        def engine(params: Params, carry: Carry, xs: Array, last: bool) -> tuple[Carry, Array]:
            if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(params["readout"])):
                return afterwards(backend)(params, carry, xs, last)
            readout_params = cast(params["readout"], carry.dtype)
            if readout.is_linear:
                readout_params = {"output": with_bias(readout_params["output"])}
            return loop(params["cell"], carry, xs, last, how, readout_params)

        return engine

    rowwise = readout.rowwise or readout.is_linear
    loops = {name: loop for name, loop in cell.engines._asdict().items() if loop}
    engines = Engines(**{name: in_loop(name, loop) if rowwise else afterwards(name) for name, loop in loops.items()})
    return cell._replace(
        init=init,
        step=step,
        output_size=readout.output_size,
        engines=engines,
        pure=cell.pure and rowwise,
        start=cell.start and (lambda params: cell.start(params["cell"])),
        prepare=cell.prepare and (lambda params: cell.prepare(params["cell"])),
    )


def _init_dense(key: Key, input_size: int, output_size: int) -> Params:
    kernel_key, bias_key = jax.random.split(key)
    return {
        "kernel": uniform_fan_in(kernel_key, (output_size, input_size), input_size),
        "bias": uniform_fan_in(bias_key, (output_size,), input_size),
    }
