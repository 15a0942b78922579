"""What every engine is given, checked before anything is computed: the shapes of its operands fit each other."""

import jax.numpy as jnp

from wrnn_jax.activations import ACTIVATIONS
from wrnn_jax.typing import Array, Params
from wrnn_jax.validation import require, require_choice


def require_operands(
    recurrence: Array, encoder: Params, readout_params: Params, carry: Array, xs: Array, *, activation: str, readout
) -> None:
    """The operands of ``fused_unroll``, ``native_unroll`` and ``parallel_unroll``, of any floating dtype::

        recurrence      (C, C, K) u, K odd and at most N  | (N, N)    U
        encoder         kernel (C, N, D), bias (C, N)     | (N, D) and (N,)
        readout_params  for "linear" {"output": {"kernel": (O, C·N), "bias": (O,)}}, else for the readout to say
        carry           (B, C, N)                         | (B, N)
        xs              (T, B, D), with T, B and D of 1 or more (inputs may also be whole numbers or booleans)

    Raises:
        InvalidValue: for an array of another shape or dtype, by its name; an unknown activation or readout.
    """
    require_choice("activation", activation, ACTIVATIONS)
    known = readout is None or readout == "linear" or callable(readout)
    require(known, "readout", readout, "None, 'linear' or a function")
    kernel = encoder["kernel"]
    dense = recurrence.ndim == 2
    allowed = "(C, N, D), or (N, D) beside a matrix, of 1 or more each"
    fits = kernel.ndim == (2 if dense else 3) and min(kernel.shape) >= 1
    require(fits, "encoder.kernel.shape", kernel.shape, allowed)
    *ring, inputs = kernel.shape
    require(xs.ndim == 3 and min(xs.shape) >= 1, "xs.shape", xs.shape, "(T, B, D) of 1 or more each")
    require(xs.shape[2] == inputs, "xs.shape", xs.shape, f"(T, B, D) with D = {inputs}, as the encoder has it")
    if dense:
        _require_shape("recurrence", recurrence, (*ring, *ring))
    else:
        channels, neurons = ring
        allowed = f"(C, C, K) with C = {channels} and K odd, at most {neurons}"
        fits = recurrence.ndim == 3 and recurrence.shape[:2] == (channels, channels)
        taps = recurrence.shape[-1] if fits else 0
        require(taps % 2 == 1 and taps <= neurons, "recurrence.shape", recurrence.shape, allowed)
    _require_shape("encoder.bias", encoder["bias"], tuple(ring))
    _require_shape("carry", carry, (xs.shape[1], *ring))
    arrays = {"recurrence": recurrence, "encoder.kernel": kernel, "encoder.bias": encoder["bias"], "carry": carry}
    if readout == "linear":
        output = readout_params["output"]
        size = carry[0].size
        fits = output["kernel"].ndim == 2 and output["kernel"].shape[1] == size
        require(fits, "readout.kernel.shape", output["kernel"].shape, f"(O, {size}), of all states")
        _require_shape("readout.bias", output["bias"], output["kernel"].shape[:1])
        arrays |= {"readout.kernel": output["kernel"], "readout.bias": output["bias"]}
    for name, array in arrays.items():
        require(jnp.issubdtype(array.dtype, jnp.floating), f"{name}.dtype", str(array.dtype), "a floating one")
    real = jnp.issubdtype(xs.dtype, jnp.number) and not jnp.issubdtype(xs.dtype, jnp.complexfloating)
    require(real or xs.dtype == bool, "xs.dtype", str(xs.dtype), "one of real numbers")


def _require_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    require(array.shape == shape, f"{name}.shape", array.shape, f"{shape}, to fit the other operands")
