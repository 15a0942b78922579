"""The Wave-RNN cell: a recurrence by circular convolution over rings of neurons."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from wrnn_jax.activations import ACTIVATIONS
from wrnn_jax.cells.base import Cell, Engines
from wrnn_jax.cells.encoders import encoder
from wrnn_jax.cells.parts import (
    KERNEL_INITS,
    PRECISION,
    batch_sizes,
    cast,
    engine,
    engines,
    freeze,
    require_cell_options,
    uniform_fan_in,
    without_bias,
)
from wrnn_jax.kernels.parallel import parallel_unroll
from wrnn_jax.typing import Array, Carry, Key, Params, Shape
from wrnn_jax.validation import require, require_choice, require_integer, require_switch

MOST_SPEEDS = 2**20
"""Channels at most whose speeds are spaced over a decade."""


def wave(
    channels: int,
    neurons: int,
    taps: int = 3,
    *,
    activation: Literal["relu", "tanh", "identity"] = "relu",
    kernel_init: Literal["shift", "identity", "random"] = "shift",
    speed: float | Sequence[float] | Literal["log"] | None = None,
    encoder_kind: Literal["dense", "source", "conv", "low-rank"] = "dense",
    encoder_rank: int | None = None,
    encoder_taps: int | None = None,
    encoder_colors: int | None = None,
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
    without the biases for ``use_bias=False``. Of another kind than the dense one, the encoder's are those of
    :func:`wrnn_jax.cells.encoders.encoder`, from which V and b_V are made.
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
      speed: ν of the shift, neurons a step: one number, or one for each channel; None is 1. See
        :func:`shift_kernel`, and :func:`wave_speeds` for ``"log"``.
      encoder_kind: what V is: ``"dense"``, a weight for every neuron and input, as in the paper; ``"source"``, inputs
        reach position 0 of every ring alone; ``"conv"``, a convolution over the row of pixels that is a step's input,
        laid along each ring; ``"low-rank"``, V = A B. Their equations: :mod:`wrnn_jax.cells.encoders`.
      encoder_rank: of the low-rank one its rank, 8 if not given, at most the lesser of C·N and D.
      encoder_taps: of the convolution its taps, odd, at most the pixels of a row; 3 if not given.
      encoder_colors: of the convolution how many features a pixel has, side by side, of which D is a multiple; 1 if not
        given.
      encoder_init: the start of V: ``"sparse"`` (the paper's V-init), ``"dense"`` or ``"uniform"``; see
        :func:`wrnn_jax.cells.encoders.dense`, and for other kinds the functions beside it. The sparse start
        wants inputs that are not negative, as one-hot vectors and pixels are: where the features of every
        input sum to 0 or less, ReLU lets nothing through and nothing is learned.
      use_bias: whether there are b_V and b_u.
      bias_init: the start of b_u: ``"zeros"``, or ``"random"`` as the authors' program leaves it,
        U(−1/√(C·K), 1/√(C·K)); with a dense encoder also that of b_V.
      form: how u ⋆ h is computed; both give the same numbers. ``"roll"`` is a sum of rolled rings,
        ``"conv"`` a ``lax.conv_general_dilated``.
      local: the untied variant: every position has its own kernel and bias, ``u (C, C, N, K)``,
        ``b_u (C, N)``. Form ``"roll"`` only.
      freeze_encoder: no gradient flows into the encoder's parameters.
      freeze_recurrence: no gradient flows into u and b_u.

    Raises:
      ValueError: for sizes below 1, taps that are even or above N, the shift with one tap, a speed that the taps
        cannot hold or without the shift, an unknown option, one of another kind of encoder, ``local`` with
        ``form="conv"``, or ``bias_init="random"`` without biases. From ``init``: for a D that the encoder cannot have.

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
    require(speed is None or kernel_init == "shift", "speed", speed, "left out unless kernel_init = 'shift'")
    speeds = (
        wave_speeds(1.0 if speed is None else speed, channels, taps)
        if kernel_init == "shift"
        else np.broadcast_to(0.0, channels)
    )
    require_choice("form", form, ("roll", "conv"))
    require(not (local and form == "conv"), "form", form, "'roll' for the local variant")

    sigma = ACTIVATIONS[activation].apply
    correlate = {"roll": correlate_roll, "conv": correlate_conv}[form]
    drive = encoder(
        encoder_kind,
        channels,
        neurons,
        init=encoder_init,
        bias_init=bias_init,
        rank=encoder_rank,
        taps=encoder_taps,
        colors=encoder_colors,
    )
    frozen = {"encoder": freeze_encoder, "recurrence": freeze_recurrence}

    def init(key: Key, input_size: int) -> Params:
        encoder_key, kernel_key, bias_key = jax.random.split(key, 3)
        positions = (neurons,) if local else ()
        params = {
            "encoder": drive.init(encoder_key, input_size),
            "recurrence": {
                "kernel": _init_kernel(kernel_key, (channels, channels, *positions, taps), kernel_init, speeds),
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
        hidden = sigma(recurred + drive.apply(params["encoder"], x.astype(carry.dtype)))
        return hidden, hidden.reshape(*hidden.shape[:-2], channels * neurons)

    # The engines know neither kernels of their own for every position, nor another form.
    loops = engines(activation, frozen, drive.expand) if form == "roll" and not local else Engines()
    if loops.fused and activation == "identity":
        loops = loops._replace(parallel=engine(parallel_unroll, frozen, drive.expand))
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


def wave_speeds(speed: float | Sequence[float] | Literal["log"], channels: int, taps: int) -> np.ndarray:
    """ν of every channel ``(C,)``, neurons a step, from one number, one for each channel, or ``"log"``.

    ``"log"``: spaced logarithmically from a tenth of ⌊K/2⌋, in channel 0, to ⌊K/2⌋, the fastest that K taps hold (it
    alone for one channel). A ring keeps an input for N/ν steps, a lap, so the rings remember over a decade of time.

    Raises:
      ValueError: for what is no finite number, not one number a channel, or faster than ⌊K/2⌋: names the taps needed.
    """
    fastest = taps // 2
    if isinstance(speed, str):
        require(speed == "log", "speed", speed, "a number, one for each channel, or log")
        require(channels <= MOST_SPEEDS, "speed", speed, f"a number for more than {MOST_SPEEDS} channels")
        return np.geomspace(fastest / 10, fastest, channels) if channels > 1 else np.array([float(fastest)])
    several = isinstance(speed, (Sequence, np.ndarray)) and np.ndim(speed) == 1
    numbers = list(speed) if several else [speed]
    allowed = f"finite numbers, one alone or one for each of {channels} channels"
    require(not several or len(numbers) == channels, "speed", speed, allowed)
    for number in numbers:
        is_number = isinstance(number, Real) and not isinstance(number, bool) and math.isfinite(number)
        require(is_number, "speed", speed, allowed)
        needed = 2 * math.ceil(abs(number)) + 1
        require(needed <= taps, "speed", speed, f"from -{fastest} to {fastest} with {taps} taps; it needs {needed}")
    return np.broadcast_to(np.array(numbers, float), channels)  # One number takes no memory for each channel.


def shift_kernel(speeds: np.ndarray, taps: int) -> np.ndarray:
    """Each channel's kernel to itself ``(C, K)``, of the wave equation ∂h/∂t = ν ∂h/∂x for speeds ν ``(C,)``::

        u[k] = max(0, 1 − |ν − d|),     d = k − ⌊K/2⌋

    For 0 ≤ ν ≤ 1 that is ``[0, 1 − ν, ν]``; a faster wave splits between the two taps on either side of ν, a negative
    one travels up the index. Σ u = 1, so nothing is lost; Σ d·u = ν, so a pulse's mean travels exactly ν neurons a
    step, against the index. With φ the fractional part of ν, its variance grows by φ(1 − φ) a step: waves of whole
    speeds keep their form, others spread, by √(N(1 − ν)) neurons in a lap for 0 < ν < 1.

    Source: Keller et al. 2024, eq. 1 and 2.
    """
    offsets = np.arange(taps) - taps // 2
    return np.maximum(0.0, 1.0 - np.abs(np.asarray(speeds, float)[:, None] - offsets))


def _init_kernel(key: Key, shape: Shape, kernel_init: str, speeds: np.ndarray) -> Array:
    """u of ``(C, C, K)`` or ``(C, C, N, K)``; see :func:`wave`. The identity is the shift of speed 0."""
    channels, taps = shape[0], shape[-1]
    if kernel_init == "random":
        return uniform_fan_in(key, shape, channels * taps)
    own = jnp.arange(channels)
    kernels = jnp.asarray(shift_kernel(speeds, taps), jnp.zeros(()).dtype).reshape(
        channels, *[1] * (len(shape) - 3), taps
    )
    return jnp.zeros(shape).at[own, own].set(kernels)


def _init_bias(key: Key, shape: Shape, fan_in: int, bias_init: str) -> Array:
    return uniform_fan_in(key, shape, fan_in) if bias_init == "random" else jnp.zeros(shape)
