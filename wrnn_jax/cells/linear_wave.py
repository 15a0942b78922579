"""The depthwise linear wave: every feature on a ring of its own, read by a filter that is learned."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from wrnn_jax.cells.base import Cell, Engines
from wrnn_jax.cells.parts import PRECISION, affine, batch_sizes, cast
from wrnn_jax.cells.response import beside, filtered, impulse_response, in_kind, precise
from wrnn_jax.cells.travel import SCHEMES, UNIT, start_of_travel, start_speeds, travel
from wrnn_jax.typing import Array, Carry, Key, Params, Shape
from wrnn_jax.validation import require, require_choice, require_integer, require_positive, require_switch


def linear_wave(
    features: int,
    neurons: int,
    *,
    scheme: Literal["exact", "upwind", "lax-wendroff", "taps", "shift", "delay"] = "exact",
    speed: float | Sequence[float] | Literal["log"] | None = None,
    turn: float = 1.0,
    length: int | None = None,
    use_skip: bool = True,
    use_bias: bool = True,
) -> Cell:
    """Feature c of x drives position 0 of its own ring, of which a filter W_c is read::

        h_{t+1} = U h_t + x_t δ_0        y_t = W · h_{t+1} + D x_t + b

    U is the same translation everywhere on the ring, with a leak ρ; in Fourier space it is λ_k, k = 0 … ⌊N/2⌋,
    θ = 2πk/N. Waves travel against the index, ν neurons a step:

    ================  ==========================================================  ====================================
    scheme            λ_k                                                         learned, beside W, D and b
    ================  ==========================================================  ====================================
    ``exact``         ρ e^{iνθ}, and ρ cos πν at k = N/2: ν neurons whatever ν    log ν, log(−log ρ)
    ``upwind``        ρ (1 − ν + ν e^{iθ}), the paper's taps (0, 1 − ν, ν)        log ν, log(−log ρ)
    ``lax-wendroff``  ρ (1 − ν²(1 − cos θ) + iν sin θ): three taps                log ν, log(−log ρ)
    ``taps``          ρ Σ_j u_j e^{iθ(j − 1)}, u = softmax: any three taps        the softmax's logits, log(−log ρ)
    ``shift``         e^{iθ}: ν = ρ = 1                                           nothing
    ``delay``         that, but a wave ends when it has gone round                nothing
    ================  ==========================================================  ====================================

    A slow wave disperses by ``upwind``: of the N positions of its ring it tells about 1.4 √N apart. ``exact`` is no
    convolution with three taps any more: it solves the wave equation on the ring, as a diagonal state-space layer
    (S4D, LRU) whose frequencies 2πkν/N belong together. ``taps`` is :func:`wrnn_jax.cells.wave` of identity activation,
    its kernel diagonal in the channels. ``delay`` is a filter over the last N inputs, the shift state-space model of
    H3; over T ≤ N steps it and ``shift`` are the same, and W in the order of the ring is the impulse response.

    The leak is learned as log(−log ρ), in which no memory, however long, makes a gradient large; taps that are a
    softmax, and speeds of at most 1 where taps must reach, cannot make waves that grow.

    Parameters: ``{"kernel": W (C, N), "log_speed": (C,), "log_decay": (C,), "skip": D (C,), "bias": b (C,)}``, with
    ``"taps"`` (C, 3) in place of ``"log_speed"`` for that scheme. Carry: h ``(*batch, C, N)``, float32 at least: in
    fewer bits a wave decays. Input: ``(*batch, C)``, or ``(*batch, 1)``, which all rings hear.

    Start: W from N(0, 1), each row divided by the norm of its impulse response over ``length`` steps, so that white
    input keeps its variance (``shift``, ``delay``: N(0, 1/N)); D from N(0, ¼), b = 0.

    Two forms: ``step``, and over all steps at once y = K ⋆ x + D x + b (``backend="parallel"`` of
    :func:`wrnn_jax.unroll`, and :func:`wrnn_jax.layers.wave`), where K is
    :func:`wrnn_jax.cells.response.impulse_response`.

    Args:
      features: C.
      neurons: N.
      scheme: see above.
      speed: ν at the start, in (0, 1]: one number, one for each feature, or ``"log"``, the default: spaced
        logarithmically from 1 to N / ``length``, at which a turn takes ``length`` steps. Not for shift and delay.
      turn: what a turn of the ring costs at the start: ρ^(N/ν) = e^−turn.
      length: steps over which memory is of use; N if not given.
      use_skip: whether there is D.
      use_bias: whether there is b.

    Raises:
      ValueError: for sizes below 1, an unknown scheme, a speed outside (0, 1] or for shift and delay, not one number a
        feature, a turn of 0 or less; at ``init`` for inputs that are neither C nor 1.

    Source: Keller et al. 2024, eq. 1 and 2, for the wave equation and its taps; Lax & Wendroff 1960; Fu et al. 2023,
    section 3.2, for the shift.
    """
    require_integer("features", features, at_least=1)
    require_integer("neurons", neurons, at_least=1)
    require_choice("scheme", scheme, SCHEMES)
    require(scheme in UNIT or neurons >= 3, "neurons", neurons, f"3 or more for scheme = {scheme!r}")
    require(speed is None or scheme not in UNIT, "speed", speed, f"left out for scheme = {scheme!r}, whose speed is 1")
    require_positive("turn", turn)
    length = neurons if length is None else length
    require_integer("length", length, at_least=1)
    require_switch("use_skip", use_skip)
    require_switch("use_bias", use_bias)
    at_start = start_speeds("log" if speed is None else speed, features, neurons, length)

    def init(key: Key, input_size: int) -> Params:
        require(input_size in (1, features), "input_size", input_size, f"{features}, one for each ring, or 1 for all")
        kernel_key, skip_key = jax.random.split(key)
        kernel = jax.random.normal(kernel_key, (features, neurons))
        if scheme in UNIT:
            params = {"kernel": kernel / neurons**0.5}
        else:
            params = {"kernel": kernel, **start_of_travel(scheme, at_start, turn * at_start / neurons)}
            response = impulse_response(params, length, scheme)
            norm = jnp.linalg.norm(response, axis=-1, keepdims=True)
            params["kernel"] = kernel / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny)
        if use_skip:
            params["skip"] = 0.5 * jax.random.normal(skip_key, (features,))
        if use_bias:
            params["bias"] = jnp.zeros(features)
        return params

    def initial_carry(batch_shape: Shape = (), dtype: jnp.dtype = jnp.float32) -> Carry:
        return jnp.zeros((*batch_sizes(batch_shape), features, neurons), precise(dtype))

    def step(params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
        dtype = precise(carry.dtype)  # Fewer bits only where such a carry is given.
        params, wide = cast(params, dtype), x.astype(dtype)
        hidden = travel(params, carry.astype(dtype), scheme)
        fed = hidden[..., 0] + wide
        hidden = jnp.concatenate([fed[..., None], hidden[..., 1:]], axis=-1)
        y = jnp.einsum("...cn,cn->...c", hidden, params["kernel"], precision=PRECISION)
        return hidden.astype(carry.dtype), in_kind(beside(params, y, wide), x)

    def parallel(
        params: Params, carry: Carry, xs: Array, last: bool, readout: Any = None, readout_params: Params = ()
    ) -> tuple[Carry, Array]:
        dtype = precise(carry.dtype)
        after, ys = filtered(cast(params, dtype), jnp.moveaxis(xs, 0, 1), scheme, carry=carry.astype(dtype))
        ys = jnp.moveaxis(in_kind(ys, xs), 1, 0)
        ys = ys[-1] if last else ys
        if readout == "linear":
            ys = affine(cast(readout_params["output"], ys.dtype), ys)
        elif readout:
            outputs = readout(cast(readout_params, ys.dtype), ys.reshape(-1, features))
            ys = outputs.reshape(*ys.shape[:-1], -1)
        return after.astype(carry.dtype), ys

    engines = Engines(parallel=parallel)
    return Cell(init, initial_carry, step, lambda carry: carry, features, engines, pure=True)
