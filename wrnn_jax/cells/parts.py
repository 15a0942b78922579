"""What cells and readouts share: the affine map, initialisations, and the engines' common form."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import jax
import jax.numpy as jnp

from wrnn_jax.activations import ACTIVATIONS
from wrnn_jax.cells.base import Engines
from wrnn_jax.kernels.fused import fused_unroll
from wrnn_jax.kernels.native import native_unroll
from wrnn_jax.typing import Array, Carry, Key, Params, Shape
from wrnn_jax.validation import require, require_choice, require_switch

PRECISION = jax.lax.Precision.HIGHEST
"""Of every product: accelerators would else round float32 to fewer bits, and even a pure shift would lose the
state's low bits at every one of hundreds of steps."""
ENCODER_INITS = ("sparse", "dense", "uniform")
KERNEL_INITS = ("shift", "identity", "random")
"""Of a recurrence by convolution."""
DENSE_KERNEL_INITS = (*KERNEL_INITS, "orthogonal")
"""Of a recurrence by a matrix."""
BIAS_INITS = ("zeros", "random")


def require_cell_options(activation: str, encoder_init: str, use_bias: bool, bias_init: str) -> None:
    """Raise ``ValueError`` for an option that is none of the above, or a start of biases that there are not."""
    require_choice("activation", activation, ACTIVATIONS)
    require_choice("encoder_init", encoder_init, ENCODER_INITS)
    require_bias_options(use_bias, bias_init)


def require_bias_options(use_bias: bool, bias_init: str) -> None:
    """Raise ``ValueError`` for an unknown start of the biases, or one of biases that there are not."""
    require_switch("use_bias", use_bias)
    require_choice("bias_init", bias_init, BIAS_INITS)
    require(use_bias or bias_init == "zeros", "bias_init", bias_init, "zeros for use_bias = False")


def batch_sizes(batch_shape: Shape | int) -> tuple[int, ...]:
    """The sizes of a carry's batch axes; a number alone is that of one axis."""
    return tuple(batch_shape) if isinstance(batch_shape, Iterable) else (batch_shape,)


def uniform_fan_in(key: Key, shape: Shape, fan_in: int) -> Array:
    """U(−1/√fan_in, 1/√fan_in): what the authors' framework draws for weights and biases."""
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def affine(params: Params, x: Array) -> Array:
    """W x + b, or W x if there is no b: x ``(*batch, D)``, W ``(*shape, D)``, b ``shape`` -> ``(*batch, *shape)``."""
    product = jnp.tensordot(x, params["kernel"], axes=(-1, -1), precision=PRECISION)
    if "bias" not in params:
        return product
    return product + params["bias"].reshape((1,) * (x.ndim - 1) + params["bias"].shape)


def without_bias(params: Params) -> Params:
    """The parts of a cell or readout with their weights only."""
    return {name: {leaf: array for leaf, array in part.items() if leaf != "bias"} for name, part in params.items()}


def with_bias(part: Params) -> Params:
    """W ``(*shape, D)`` and b ``shape``, zeros where the part has none: the engines always add one."""
    kernel = part["kernel"]
    return {"bias": jnp.zeros_like(kernel, shape=kernel.shape[:-1]), **part}


def freeze(params: Params, frozen: Mapping[str, bool]) -> Params:
    """Stop gradients into the parts of ``frozen`` that are true: an optimiser without weight decay then leaves them."""
    return {name: jax.lax.stop_gradient(part) if frozen[name] else part for name, part in params.items()}


def cast(tree: Params, dtype: jnp.dtype) -> Params:
    """Floating-point leaves in ``dtype``; counters, masks and keys stay as they are."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def engine(
    unroll_wave: Callable[..., tuple[Carry, Array]],
    frozen: Mapping[str, bool],
    expand: Callable[[Params, int], Params] = lambda encoder, input_size: encoder,
) -> Callable:
    """One of ``Cell.engines``, of h_{t+1} = σ(R(h_t) + b_R + V x_t + b_V), where R is a convolution or a matrix.

    With a ``readout`` (as :func:`wrnn_jax.kernels.fused.fused_unroll` takes it) and its parameters,
    the outputs are what it makes of the states.

    Args:
      unroll_wave: one of ``wrnn_jax.kernels``.
      frozen: as in :func:`freeze`.
      expand: the cell's parameters of the encoder, and D -> V and b_V: done once a sequence.
    """

    def loop(params: Params, carry: Carry, xs: Array, last: bool, readout=None, readout_params: Params = ()):
        params = cast(freeze(params, frozen), carry.dtype)
        recurrence, encoder = params["recurrence"], with_bias(expand(params["encoder"], xs.shape[-1]))
        if "bias" in recurrence:
            bias = recurrence["bias"].reshape(-1, *[1] * (encoder["bias"].ndim - 1)) + encoder["bias"]
            encoder = {"kernel": encoder["kernel"], "bias": bias}
        return unroll_wave(recurrence["kernel"], encoder, readout_params, carry, xs, readout=readout, last=last)

    return loop


def _native(recurrence, encoder, readout_params, carry, xs, *, activation, readout, last) -> tuple[Carry, Array]:
    """``native_unroll`` for any readout: one that compiled code does not know reads the states when all are there."""
    if not callable(readout):
        return native_unroll(
            recurrence, encoder, readout_params, carry, xs, activation=activation, readout=readout, last=last
        )
    carry, states = native_unroll(recurrence, encoder, (), carry, xs, activation=activation, readout=None, last=last)
    outputs = readout(readout_params, states.reshape(-1, states.shape[-1]))
    return carry, outputs.reshape(*states.shape[:-1], -1)


def engines(activation: str, *options) -> Engines:
    """The ``Cell.engines`` that both the wave and the simple RNN have, with the ``options`` of :func:`engine`."""
    return Engines(
        fused=engine(partial(fused_unroll, activation=activation), *options),
        native=engine(partial(_native, activation=activation), *options),
    )
