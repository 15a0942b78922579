"""What the linear wave makes of all steps at once: its impulse response, and the convolution with it."""

import jax
import jax.numpy as jnp
import numpy as np

from wrnn_jax.cells.parts import PRECISION, cast
from wrnn_jax.cells.travel import UNIT, as_last, eigenvalues
from wrnn_jax.kernels.convolution import causal_convolution, is_of_the_last, require_stride, segmented_convolution
from wrnn_jax.typing import Array, Carry, Params
from wrnn_jax.validation import require


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
      params: of :func:`wrnn_jax.cells.linear_wave`.
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
    dtype = precise(xs.dtype)
    params, x = cast(params, dtype), jnp.moveaxis(xs.astype(dtype), -1, 0)
    steps = x.shape[-1]
    require_stride(stride, steps)
    whole = starts is None and carry is None
    require(whole or stride == 1, "stride", stride, "1 for sequences that start or go on inside of others")
    kernel = impulse_response(params, steps, scheme)
    ys = causal_convolution(x, kernel, stride) if starts is None else segmented_convolution(x, kernel, starts)
    ys = beside(params, jnp.moveaxis(ys, 0, -1), xs[:, stride - 1 :: stride].astype(dtype))
    if carry is None:
        return None, ys
    remembered = _free_response(params, carry, steps, scheme)
    arrived = jnp.moveaxis(x, 0, 1)
    kept = _carried(params, carry, steps, scheme)
    if starts is not None:
        begun = jnp.cumsum(starts, axis=-1) > 0
        remembered = jnp.where(begun[:, None], 0, remembered)
        kept = jnp.where(begun[:, -1, None, None], 0, kept)
        arrived = jnp.where(is_of_the_last(starts)[:, None], arrived, 0)
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


def beside(params: Params, y: Array, x: Array) -> Array:
    """y + D x + b."""
    if "skip" in params:
        y = y + as_last(params["skip"], y) * x
    return y + as_last(params["bias"], y) if "bias" in params else y


def in_kind(ys: Array, xs: Array) -> Array:
    """y in the dtype of the inputs, if that is floating."""
    return ys.astype(xs.dtype) if jnp.issubdtype(xs.dtype, jnp.floating) else ys


def precise(dtype: jnp.dtype) -> jnp.dtype:
    """Float32, or float64 if it is that."""
    return np.promote_types(dtype, np.float32) if jnp.issubdtype(dtype, jnp.floating) else jnp.dtype(jnp.float32)


def _observe(weights: Array, values: Array, length: int) -> Array:
    """Re Σ_k a_k λ_k^t, t < T: a ``(*batch, C, k)``, λ ``(C, k)`` -> ``(*batch, C, T)``; a real product of matrices."""
    large, small = _levels(values, length)
    weights = weights[..., None, :]
    large = weights * as_last(large, weights)
    left = jnp.concatenate([large.real, -large.imag], axis=-1)
    right = jnp.concatenate([small.real, small.imag], axis=-1)
    response = jnp.einsum("...cmk,csk->...cms", left, right, precision=PRECISION)
    return response.reshape(*response.shape[:-2], -1)[..., :length]


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


def _weights(kernel: Array) -> Array:
    """w_k conj(Ŵ_k) / N of W ``(…, N)``."""
    neurons = kernel.shape[-1]
    twice = np.full(neurons // 2 + 1, 2.0)
    twice[0] = 1
    if neurons % 2 == 0:
        twice[-1] = 1
    waves = jnp.conj(jnp.fft.rfft(kernel))
    return waves * jnp.asarray(twice / neurons, waves.dtype)[None]


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


def _by_age(ring: Array) -> Array:
    """Position −a of a ring ``(…, N)``, where what came in a steps ago is at ν = 1; and back."""
    return jnp.roll(ring[..., ::-1], 1, axis=-1)
