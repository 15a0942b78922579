"""The Wave-RNN cell: a recurrence by circular convolution over rings of neurons."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from wrnn_jax.activations import ACTIVATIONS
from wrnn_jax.cells.base import Cell, Engines
from wrnn_jax.cells.parts import (
    KERNEL_INITS,
    PRECISION,
    affine,
    batch_sizes,
    cast,
    engine,
    engines,
    freeze,
    init_encoder,
    require_cell_options,
    uniform_fan_in,
    without_bias,
)
from wrnn_jax.kernels.parallel import parallel_unroll
from wrnn_jax.typing import Array, Carry, Key, Params, Shape
from wrnn_jax.validation import require, require_choice, require_integer, require_switch


def wave(
    channels: int,
    neurons: int,
    taps: int = 3,
    *,
    activation: Literal["relu", "tanh", "identity"] = "relu",
    kernel_init: Literal["shift", "identity", "random"] = "shift",
    encoder_init: Literal["sparse", "dense", "uniform"] = "sparse",
    use_bias: bool = True,
    bias_init: Literal["zeros", "random"] = "zeros",
    form: Literal["roll", "conv"] = "roll",
    local: bool = False,
    freeze_encoder: bool = False,
    freeze_recurrence: bool = False,
) -> Cell:
    """The Wave-RNN (wRNN)::

        h_{t+1} = σ( u ⋆ h_t + b_u + V x_t + b_V ),     h_0 = 0,     y_t = h_{t+1}
        (u ⋆ h)[o, i] = Σ_j Σ_k u[o, j, k] · h[j, (i + k − ⌊K/2⌋) mod N]

    Parameters: ``{"encoder": {"kernel": V (C, N, D), "bias": b_V (C, N)},
    "recurrence": {"kernel": u (C, C, K), "bias": b_u (C,)}}``;
    without the biases for ``use_bias=False``.
    Carry: h ``(*batch, C, N)``. Output: h flattened channel-major, ``(*batch, C·N)``.

    Args:
      channels: C, rings of neurons.
      neurons: N, neurons of one ring.
      taps: K, odd, at most N.
      activation: σ.
      kernel_init: the start of u. ``"shift"``: ``u[c, c, ⌊K/2⌋+1] = 1``, else 0, so that
        ``h_{t+1}[i] = h_t[i+1]``: a pulse launched at position 0 wraps to N−1 and travels down the
        index, one neuron a step. ``"identity"``: each neuron keeps its value. ``"random"``:
        U(−1/√(C·K), 1/√(C·K)).
      encoder_init: the start of V: ``"sparse"`` (the paper's V-init), ``"dense"`` or ``"uniform"``; see
        :func:`wrnn_jax.cells.parts.init_encoder`. The sparse start wants inputs that are not negative,
        as one-hot vectors and pixels are: where the features of every input sum to 0 or less, ReLU
        lets nothing through and nothing is learned.
      use_bias: whether there are b_V and b_u.
      bias_init: the start of b_u: ``"zeros"``, or ``"random"`` as the authors' program leaves it,
        U(−1/√(C·K), 1/√(C·K)); with a dense encoder also that of b_V.
      form: how u ⋆ h is computed; both give the same numbers. ``"roll"`` is a sum of rolled rings,
        ``"conv"`` a ``lax.conv_general_dilated``.
      local: the untied variant: every position has its own kernel and bias, ``u (C, C, N, K)``,
        ``b_u (C, N)``. Form ``"roll"`` only.
      freeze_encoder: no gradient flows into V and b_V.
      freeze_recurrence: no gradient flows into u and b_u.

    Raises:
      ValueError: for sizes below 1, taps that are even or above N, the shift with one tap, an
        unknown option, ``local`` with ``form="conv"``, or ``bias_init="random"`` without biases.

    Source: Keller et al. 2024, section 2.2, eq. 1 to 3 and "Initialization".
    """
    require_integer("channels", channels, at_least=1)
    require_integer("neurons", neurons, at_least=1)
    require_integer("taps", taps, at_least=1)
    require(taps % 2 == 1 and taps <= neurons, "taps", taps, f"an odd number from 1 to neurons = {neurons}")
    require_choice("kernel_init", kernel_init, KERNEL_INITS)
    require_cell_options(activation, encoder_init, use_bias, bias_init)
    require_switch("local", local)
    require_switch("freeze_encoder", freeze_encoder)
    require_switch("freeze_recurrence", freeze_recurrence)
    require(taps >= 3 or kernel_init != "shift", "taps", taps, "3 or more for kernel_init = 'shift'")
    require_choice("form", form, ("roll", "conv"))
    require(not (local and form == "conv"), "form", form, "'roll' for the local variant")

    sigma = ACTIVATIONS[activation].apply
    correlate = {"roll": correlate_roll, "conv": correlate_conv}[form]
    frozen = {"encoder": freeze_encoder, "recurrence": freeze_recurrence}

    def init(key: Key, input_size: int) -> Params:
        encoder_key, kernel_key, bias_key = jax.random.split(key, 3)
        positions = (neurons,) if local else ()
        params = {
            "encoder": init_encoder(encoder_key, (channels, neurons), input_size, encoder_init, bias_init),
            "recurrence": {
                "kernel": _init_kernel(kernel_key, (channels, channels, *positions, taps), kernel_init),
                "bias": _init_bias(bias_key, (channels, *positions), channels * taps, bias_init),
            },
        }
        return params if use_bias else without_bias(params)

    def initial_carry(batch_shape: Shape = (), dtype: jnp.dtype = jnp.float32) -> Carry:
        return jnp.zeros((*batch_sizes(batch_shape), channels, neurons), dtype)

    def step(params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
        params = cast(freeze(params, frozen), carry.dtype)
        recurred = correlate(params["recurrence"]["kernel"], carry)
        if use_bias:
            recurred += params["recurrence"]["bias"].reshape((1,) * (x.ndim - 1) + (channels, -1))
        hidden = sigma(recurred + affine(params["encoder"], x.astype(carry.dtype)))
        return hidden, hidden.reshape(*hidden.shape[:-2], channels * neurons)

    # The engines know neither kernels of their own for every position, nor another form.
    loops = engines(activation, frozen) if form == "roll" and not local else Engines()
    if loops.fused and activation == "identity":
        loops = loops._replace(parallel=engine(parallel_unroll, frozen))
    return Cell(init, initial_carry, step, lambda carry: carry, channels * neurons, loops, pure=True)


def correlate_roll(kernel: Array, hidden: Array) -> Array:
    """u ⋆ h as one matrix product of all taps with all rings, then K rolled rings summed.

    kernel ``(C, C, K)``, or untied ``(C, C, N, K)``; hidden ``(*batch, C, N)`` -> ``(*batch, C, N)``.
    """
    taps = kernel.shape[-1]
    offsets = range(-(taps // 2), taps // 2 + 1)
    if kernel.ndim == 4:
        neighbours = jnp.stack([jnp.roll(hidden, -offset, axis=-1) for offset in offsets], axis=-1)
        return jnp.einsum("ojik,...jik->...oi", kernel, neighbours, precision=PRECISION)
    # The product before the roll: K·C rows at once, and the shifts are then plain slices of the result.
    products = jnp.einsum("ojk,...ji->k...oi", kernel, hidden, precision=PRECISION)
    return sum(jnp.roll(product, -offset, axis=-1) for product, offset in zip(products, offsets, strict=True))


def correlate_conv(kernel: Array, hidden: Array) -> Array:
    """u ⋆ h by ``lax.conv_general_dilated`` over rings wrapped by ⌊K/2⌋ neurons at both ends.

    kernel ``(C, C, K)``; hidden ``(*batch, C, N)`` -> ``(*batch, C, N)``.
    """
    half = kernel.shape[-1] // 2
    rings = hidden.reshape(-1, *hidden.shape[-2:])
    wrapped = jnp.pad(rings, ((0, 0), (0, 0), (half, half)), mode="wrap")
    convolved = lax.conv_general_dilated(wrapped, kernel, window_strides=(1,), padding="VALID", precision=PRECISION)
    return convolved.reshape(hidden.shape)


def _init_kernel(key: Key, shape: Shape, kernel_init: str) -> Array:
    """u of ``(C, C, K)`` or ``(C, C, N, K)``; see :func:`wave`."""
    channels, taps = shape[0], shape[-1]
    if kernel_init == "random":
        return uniform_fan_in(key, shape, channels * taps)
    own = jnp.arange(channels)
    tap = taps // 2 + (kernel_init == "shift")
    return jnp.zeros(shape).at[own, own, ..., tap].set(1.0)


def _init_bias(key: Key, shape: Shape, fan_in: int, bias_init: str) -> Array:
    return uniform_fan_in(key, shape, fan_in) if bias_init == "random" else jnp.zeros(shape)
