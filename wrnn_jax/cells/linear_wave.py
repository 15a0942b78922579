"""The depthwise linear wave: every feature on a ring of its own, read by a filter that is learned."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from wrnn_jax.cells.base import Cell, Engines
from wrnn_jax.cells.parts import PRECISION, batch_sizes, cast
from wrnn_jax.kernels.convolution import causal_convolution, require_stride, segmented_convolution
from wrnn_jax.typing import Array, Carry, Key, Params, Shape
from wrnn_jax.validation import require, require_choice, require_integer, require_positive, require_switch

SCHEMES = ("exact", "upwind", "lax-wendroff", "taps", "shift", "delay")
"""How a wave travels, see :func:`linear_wave`."""
UNIT = ("shift", "delay")
"""Those of one neuron a step without loss, in which no speed and no leak is learned."""
LEAST_TAP = 1e-3
"""Of the taps' start: at a softmax of exactly 0 nothing would be learned."""


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

    Two forms: ``step``, and over all steps at once y = K ⋆ x + D x + b, where K is :func:`impulse_response`
    (``backend="parallel"`` of :func:`wrnn_jax.unroll`, and :func:`wrnn_jax.layers.wave`).

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
            params = {"kernel": kernel, **_start_of_travel(scheme, at_start, turn * at_start / neurons)}
            response = impulse_response(params, length, scheme)
            norm = jnp.linalg.norm(response, axis=-1, keepdims=True)
            params["kernel"] = kernel / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny)
        if use_skip:
            params["skip"] = 0.5 * jax.random.normal(skip_key, (features,))
        if use_bias:
            params["bias"] = jnp.zeros(features)
        return params

    def initial_carry(batch_shape: Shape = (), dtype: jnp.dtype = jnp.float32) -> Carry:
        return jnp.zeros((*batch_sizes(batch_shape), features, neurons), _precise(dtype))

    def step(params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
        params, wide = cast(params, carry.dtype), x.astype(carry.dtype)
        hidden = _travel(params, carry, scheme)
        fed = hidden[..., 0] + wide
        hidden = jnp.concatenate([fed[..., None], hidden[..., 1:]], axis=-1)
        y = jnp.einsum("...cn,cn->...c", hidden, params["kernel"], precision=PRECISION)
        return hidden, _beside(params, y, wide).astype(x.dtype)

    def parallel(params: Params, carry: Carry, xs: Array, last: bool) -> tuple[Carry, Array]:
        carry, ys = filtered(cast(params, carry.dtype), jnp.moveaxis(xs, 0, 1), scheme, carry=carry)
        ys = jnp.moveaxis(ys.astype(xs.dtype), 1, 0)
        return carry, ys[-1] if last else ys

    engines = Engines(parallel=parallel)
    return Cell(init, initial_carry, step, lambda carry: carry, features, engines, pure=True)


def filtered(
    params: Params,
    xs: Array,
    scheme: str,
    *,
    stride: int = 1,
    starts: Array | None = None,
    carry: Carry | None = None,
) -> tuple[Carry | None, Array]:
    """All steps at once::

        y = K ⋆ x + W U^{t+1} h_0 + D x + b

    Args:
      params: of :func:`linear_wave`.
      xs: ``(B, T, C)`` or ``(B, T, 1)``.
      scheme: of the cell.
      stride: r: only every r-th y is made, from step r − 1 on.
      starts: ``(B, T)`` booleans, where a new sequence begins inside of these.
      carry: h_0 ``(B, C, N)``; if it is given the carry after the last step comes back as well, else None: to make it
        costs about as much as y.

    Returns:
      ``(carry, y (B, T / r, C))``, y in float32 at least.

    Raises:
      ValueError: for a stride that does not divide T, or one other than 1 with starts or a carry.
    """
    dtype = _precise(xs.dtype)
    params, x = cast(params, dtype), jnp.moveaxis(xs.astype(dtype), -1, 0)
    steps = x.shape[-1]
    require_stride(stride, steps)
    whole = starts is None and carry is None
    require(whole or stride == 1, "stride", stride, "1 for sequences that start or go on inside of others")
    kernel = impulse_response(params, steps, scheme)
    ys = causal_convolution(x, kernel, stride) if starts is None else segmented_convolution(x, kernel, starts)
    ys = _beside(params, jnp.moveaxis(ys, 0, -1), xs[:, stride - 1 :: stride].astype(dtype))
    if carry is None:
        return None, ys
    remembered = _free_response(params, carry, steps, scheme)
    arrived = jnp.moveaxis(x, 0, 1)
    kept = _carried(params, carry, steps, scheme)
    if starts is not None:
        begun = jnp.cumsum(starts, axis=-1) > 0
        remembered = jnp.where(begun[:, None], 0, remembered)
        kept = jnp.where(begun[:, -1, None, None], 0, kept)
        arrived = jnp.where(_is_last(starts)[:, None], arrived, 0)
    return kept + _arrived(params, arrived, carry, scheme), ys + jnp.swapaxes(remembered, 1, 2)


def impulse_response(params: Params, length: int, scheme: str) -> Array:
    """K_t = W · U^t δ_0 ``(C, T)``, t = 0 … T − 1, without D::

        K_t = (1/N) Re Σ_k w_k conj(Ŵ_k) λ_k^t,     w = 1, 2, …, 2, and 1 at k = N/2 for even N;  Ŵ = rfft(W)

    Of ν = ρ = 1 it is W itself, in the order of the ring, exactly. Powers are products: λ = 0 is met, where a power by
    logarithms has no gradient, and products of products are off by less (T = 16,384, N = 64, ν = 1: 3e-4 of the largest
    K in float32, by logarithms 2e-3). 2 √T of them are made for each k, not T.
    """
    kernel = params["kernel"]
    if scheme in UNIT:
        response = _by_age(kernel)[:, np.arange(length) % kernel.shape[-1]]
        return jnp.where(np.arange(length)[None] < kernel.shape[-1], response, 0) if scheme == "delay" else response
    return _observe(_weights(kernel), eigenvalues(params, scheme), length)


def eigenvalues(params: Params, scheme: str) -> Array:
    """λ_k of U ``(C, ⌊N/2⌋ + 1)``, complex; of ``delay``, which has none but 0 as a matrix, those of ``shift``."""
    kernel = params["kernel"]
    neurons = kernel.shape[-1]
    angle = jnp.asarray(2 * np.pi / neurons * np.arange(neurons // 2 + 1), kernel.dtype)[None]
    if scheme in UNIT:
        return jnp.broadcast_to(jax.lax.complex(jnp.cos(angle), jnp.sin(angle)), (len(kernel), angle.size))
    leak = leaks(params)[:, None]
    if scheme == "exact":
        phase = speeds(params, scheme)[:, None] * angle
        turning = jnp.where(2 * np.arange(angle.size)[None] == neurons, 0, jnp.sin(phase))
        return jax.lax.complex(leak * jnp.cos(phase), leak * turning)
    up, stay, down = jnp.moveaxis(taps(params, scheme), -1, 0)[..., None]
    return jax.lax.complex(stay + (up + down) * jnp.cos(angle), (down - up) * jnp.sin(angle))


def taps(params: Params, scheme: str) -> Array:
    """u ``(C, 3)`` with the leak in it, of the schemes that have three taps."""
    leak = leaks(params)[:, None]
    if scheme == "taps":
        return leak * jax.nn.softmax(params["taps"], axis=-1)
    return leak * _taps_of(speeds(params, scheme), scheme)


def speeds(params: Params, scheme: str) -> Array:
    """ν ``(C,)``, neurons a step against the index."""
    if scheme in UNIT:
        return jnp.ones(len(params["kernel"]), params["kernel"].dtype)
    if scheme == "taps":
        up, _, down = jnp.moveaxis(jax.nn.softmax(params["taps"], axis=-1), -1, 0)
        return down - up
    log_speed = params["log_speed"]
    # Taps reach one neuron far; beyond ν = 1 they would make waves that grow.
    return jnp.exp(log_speed if scheme == "exact" else jnp.minimum(log_speed, 0.0))


def leaks(params: Params) -> Array:
    """ρ ``(C,)``: the share of a wave that is left after a step."""
    if "log_decay" not in params:
        return jnp.ones(len(params["kernel"]), params["kernel"].dtype)
    return jnp.exp(-jnp.exp(params["log_decay"]))


def start_speeds(
    speed: float | Sequence[float] | Literal["log"], features: int, neurons: int, length: int
) -> np.ndarray:
    """ν of every feature at the start ``(C,)``, see :func:`linear_wave`.

    Raises:
      ValueError: for what is not in (0, 1], or not one number a feature.
    """
    if isinstance(speed, str):
        require(speed == "log", "speed", speed, "a number, one for each feature, or log")
        return np.geomspace(1.0, min(1.0, neurons / length), features)
    several = isinstance(speed, Sequence | np.ndarray)
    numbers = list(speed) if several else [speed]
    require(not several or len(numbers) == features, "speed", speed, f"one number, or one for each of {features}")
    for number in numbers:
        require_positive("speed", number)
        require(number <= 1, "speed", speed, "above 0 and at most 1 neuron a step")
    return np.broadcast_to(np.array(numbers, float), features)


def _start_of_travel(scheme: str, start: np.ndarray, decay: np.ndarray) -> Params:
    params = {"log_decay": jnp.asarray(np.log(decay), jnp.zeros(()).dtype)}
    if scheme == "taps":
        first = np.maximum(_taps_of(start, "upwind"), LEAST_TAP)
        return {"taps": jnp.asarray(np.log(first), jnp.zeros(()).dtype), **params}
    return {"log_speed": jnp.asarray(np.log(start), jnp.zeros(()).dtype), **params}


def _taps_of(speed: Array, scheme: str) -> Array:
    """``(C, 3)``, of h[i − 1], h[i], h[i + 1]."""
    xp = np if isinstance(speed, np.ndarray) else jnp
    if scheme == "upwind":
        return xp.stack([xp.zeros_like(speed), 1 - speed, speed], axis=-1)
    square = speed**2
    return xp.stack([(square - speed) / 2, 1 - square, (square + speed) / 2], axis=-1)


def _precise(dtype: jnp.dtype) -> jnp.dtype:
    """Float32, or float64 if it is that."""
    return np.promote_types(dtype, np.float32) if jnp.issubdtype(dtype, jnp.floating) else jnp.dtype(jnp.float32)


def _beside(params: Params, y: Array, x: Array) -> Array:
    """y + D x + b."""
    if "skip" in params:
        y = y + _as_last(params["skip"], y) * x
    return y + _as_last(params["bias"], y) if "bias" in params else y


def _as_last(array: Array, like: Array) -> Array:
    """With axes of size 1 before its own, as many as ``like`` has more."""
    return array.reshape((1,) * (like.ndim - array.ndim) + array.shape)


def _travel(params: Params, hidden: Array, scheme: str) -> Array:
    """U h."""
    down = jnp.roll(hidden, -1, axis=-1)
    if scheme == "shift":
        return down
    if scheme == "delay":
        return down.at[..., 0].set(0)
    if scheme == "exact":
        waves = jnp.fft.rfft(hidden)
        return jnp.fft.irfft(_as_last(eigenvalues(params, scheme), waves) * waves, hidden.shape[-1])
    first, second, third = (_as_last(tap[:, None], hidden) for tap in jnp.moveaxis(taps(params, scheme), -1, 0))
    return first * jnp.roll(hidden, 1, axis=-1) + second * hidden + third * down


def _by_age(ring: Array) -> Array:
    """Position −a of a ring ``(…, N)``, where what came in a steps ago is at ν = 1; and back."""
    return jnp.roll(ring[..., ::-1], 1, axis=-1)


def _weights(kernel: Array) -> Array:
    """w_k conj(Ŵ_k) / N of W ``(…, N)``."""
    neurons = kernel.shape[-1]
    twice = np.full(neurons // 2 + 1, 2.0)
    twice[0] = 1
    if neurons % 2 == 0:
        twice[-1] = 1
    waves = jnp.conj(jnp.fft.rfft(kernel))
    return waves * jnp.asarray(twice / neurons, waves.dtype)[None]


def _levels(values: Array, length: int) -> tuple[Array, Array]:
    """λ^{mQ} ``(C, M, k)`` and λ^s ``(C, Q, k)``, of which the products are λ^t, t = mQ + s < Q M ≥ T."""
    inner = max(1, int(np.ceil(np.sqrt(length))))
    small = _powers(values, inner)
    return _powers(small[:, -1] * values, -(-length // inner)), small


def _powers(values: Array, count: int) -> Array:
    """λ^0 … λ^(count − 1): ``(C, k)`` -> ``(C, count, k)``, each power by about log2 of it products."""
    powers, factor = jnp.ones_like(values)[:, None], values[:, None]
    while powers.shape[1] < count:
        powers = jnp.concatenate([powers, powers * factor], axis=1)
        factor = factor * factor
    return powers[:, :count]


def _observe(weights: Array, values: Array, length: int) -> Array:
    """Re Σ_k a_k λ_k^t, t < T: a ``(*batch, C, k)``, λ ``(C, k)`` -> ``(*batch, C, T)``; a real product of matrices."""
    large, small = _levels(values, length)
    weights = weights[..., None, :]
    large = weights * _as_last(large, weights)
    left = jnp.concatenate([large.real, -large.imag], axis=-1)
    right = jnp.concatenate([small.real, small.imag], axis=-1)
    response = jnp.einsum("...cmk,csk->...cms", left, right, precision=PRECISION)
    return response.reshape(*response.shape[:-2], -1)[..., :length]


def _free_response(params: Params, carry: Carry, length: int, scheme: str) -> Array:
    """W · U^{t+1} h_0 ``(B, C, T)``, t < T."""
    kernel = params["kernel"]
    if scheme not in UNIT:
        values = eigenvalues(params, scheme)
        return _observe((_weights(kernel) * values)[None] * jnp.fft.rfft(carry), values, length)
    neurons = kernel.shape[-1]
    period = neurons if scheme == "shift" else 2 * neurons
    # Σ_a K_{a+t+1} h_0[−a], over a period of which ``delay`` leaves the second half empty.
    ages = jnp.conj(jnp.fft.rfft(_by_age(carry), period)) * jnp.fft.rfft(_by_age(kernel), period)[None]
    response = jnp.fft.irfft(ages, period)[..., (1 + np.arange(length)) % period]
    return response if scheme == "shift" else jnp.where(1 + np.arange(length)[None, None] < neurons, response, 0)


def _carried(params: Params, carry: Carry, steps: int, scheme: str) -> Carry:
    """U^T h_0."""
    neurons = carry.shape[-1]
    if scheme == "shift":
        return jnp.roll(carry, -(steps % neurons), axis=-1)
    if scheme == "delay":
        left = max(0, neurons - steps)
        return _by_age(jnp.pad(_by_age(carry)[..., :left], [(0, 0)] * (carry.ndim - 1) + [(neurons - left, 0)]))
    large, small = _levels(eigenvalues(params, scheme), steps + 1)
    power = large[:, steps // small.shape[1]] * small[:, steps % small.shape[1]]
    return jnp.fft.irfft(power[None] * jnp.fft.rfft(carry), neurons)


def _arrived(params: Params, xs: Array, carry: Carry, scheme: str) -> Carry:
    """Σ_s U^{T−1−s} δ_0 x_s: xs ``(B, C, T)`` -> ``(B, C, N)``."""
    neurons = carry.shape[-1]
    ages = jnp.broadcast_to(xs[..., ::-1], (*carry.shape[:-1], xs.shape[-1]))
    if scheme in UNIT:
        whole = jnp.pad(ages, [(0, 0), (0, 0), (0, -ages.shape[-1] % neurons)])
        turns = whole.reshape(*whole.shape[:-1], -1, neurons)
        return _by_age(turns.sum(axis=-2) if scheme == "shift" else turns[..., 0, :])
    large, small = _levels(eigenvalues(params, scheme), ages.shape[-1])
    inner = small.shape[1]
    blocks = jnp.pad(ages, [(0, 0), (0, 0), (0, -ages.shape[-1] % inner)])
    blocks = blocks.reshape(*blocks.shape[:-1], -1, inner)
    parts = [jnp.einsum("bcms,csk->bcmk", blocks, part, precision=PRECISION) for part in (small.real, small.imag)]
    return jnp.fft.irfft((jax.lax.complex(*parts) * large[None]).sum(axis=-2), neurons)


def _is_last(starts: Array) -> Array:
    """Whether no start comes after a step: ``(B, T)``."""
    marks = starts.astype(jnp.int32)
    return jnp.cumsum(marks[:, ::-1], axis=-1)[:, ::-1] - marks == 0
