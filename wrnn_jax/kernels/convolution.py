"""Causal convolution over time, every channel by itself, by FFT.

Letters as in ``wrnn_jax.typing``; besides, K_t the kernel of a channel, r the stride, S = T / r. Channels stand first,
``(C, B, T)``: transforms then go along the last axis, and what is made of K is the same for a whole batch.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from wrnn_jax.typing import Array
from wrnn_jax.validation import require, require_integer

PRECISION = lax.Precision.HIGHEST
"""Of every product, as in the cells."""
SHORT = 64
"""Steps up to which a product with a matrix is quicker than transforms."""


def causal_convolution(xs: Array, kernel: Array, stride: int = 1) -> Array:
    """Of every r-th step, from step r − 1 on::

        y_m = Σ_{s ≤ t} K_{t−s} x_s,     t = (m + 1) r − 1,     m = 0 … S − 1

    The transforms are 2 S long at least: of a shorter one, which is a circular convolution, the end of a sequence would
    leak into its beginning. With a stride, the r interleaved parts of x and K are transformed and their products
    summed, so that only the S steps that are asked for are transformed back.

    Args:
        xs:     (C, B, T), or (1, B, T) where all channels hear the same
        kernel: (C, T)
        stride: r

    Returns:
        ``(C, B, S)``.

    Raises:
        InvalidValue: for an r that does not divide T.
    """
    steps = xs.shape[-1]
    require_stride(stride, steps)
    require(kernel.shape[-1] == steps, "kernel.shape", kernel.shape, f"(C, T), T = {steps}")
    if stride == 1 and steps <= SHORT:
        same = "cst,ibs->cbt" if len(xs) == 1 else "cst,cbs->cbt"
        return jnp.einsum(same, _lags(kernel), xs, precision=PRECISION)
    kept = steps // stride
    length = fast_length(2 * kept - 1)
    # Step s = q r + p of x meets K at lag (m − q) r + (r − 1 − p).
    parts = xs.reshape(*xs.shape[:-1], kept, stride)
    taps = kernel.reshape(len(kernel), kept, stride)[..., ::-1]
    if stride == 1:
        heard = jnp.fft.rfft(parts[..., 0], length) * jnp.fft.rfft(taps[..., 0], length)[:, None]
    else:
        parts, taps = (jnp.fft.rfft(array, length, axis=-2) for array in (parts, taps))
        same = "ibfr,cfr->cbf" if len(xs) == 1 else "cbfr,cfr->cbf"
        heard = jnp.einsum(same, parts, taps, precision=PRECISION)
    return jnp.fft.irfft(heard, length)[..., :kept]


def segmented_convolution(xs: Array, kernel: Array, starts: Array) -> Array:
    """Of several sequences one after another, each by itself::

        y_t = Σ K_{t−s} x_s     over the s ≤ t between which and t there is no start, at s + 1 … t

    By halves: what the first half of a block says to its second goes from where the last sequence of the first begins
    to where the first start of the second is, and is a convolution of what is left of x, for all blocks at once; then
    the same of the halves. No product is made that a start cuts off, so nothing is lost to cancellation.

    Args:
        xs:     (C, B, T), or (1, B, T)
        kernel: (C, T)
        starts: (B, T) booleans

    Returns:
        ``(C, B, T)``.
    """
    batch, steps = starts.shape
    size = 1 << (steps - 1).bit_length()
    xs, kernel = (jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, size - steps)]) for array in (xs, kernel))
    marks = jnp.pad(starts, [(0, 0), (0, size - steps)]).astype(jnp.int32)
    ys = kernel[:, :1, None] * xs
    half = 1
    while half < size:
        first = xs.reshape(len(xs), batch, -1, 2, half)[:, :, :, 0]
        here = marks.reshape(batch, -1, 2, half)
        first = jnp.where(is_of_the_last(here[:, :, 0])[None], first, 0)
        if half <= SHORT:
            lags = half + np.arange(half)[:, None] - np.arange(half)
            same = "cts,ibns->cbnt" if len(xs) == 1 else "cts,cbns->cbnt"
            said = jnp.einsum(same, kernel[:, lags], first, precision=PRECISION)
        else:
            product = jnp.fft.rfft(first, 2 * half) * jnp.fft.rfft(kernel[:, : 2 * half])[:, None, None]
            said = jnp.fft.irfft(product, 2 * half)[..., half:]
        said = jnp.where((jnp.cumsum(here[:, :, 1], axis=-1) == 0)[None], said, 0)
        ys += jnp.stack([jnp.zeros_like(said), said], axis=-2).reshape(ys.shape)
        half *= 2
    return ys[..., :steps]


def _lags(kernel: Array) -> Array:
    """K_{t−s}, 0 where s > t: ``(C, T)`` -> ``(C, s, t)``. Rows of the kernel and as many zeros, cut one shorter, each
    begin one later: no index, whose gradient would be a sum over places."""
    channels, steps = kernel.shape
    row = jnp.concatenate([kernel, jnp.zeros_like(kernel)], axis=-1)
    rows = jnp.tile(row, steps)[:, : steps * (2 * steps - 1)]
    return rows.reshape(channels, steps, 2 * steps - 1)[..., :steps]


def is_of_the_last(starts: Array) -> Array:
    """Whether no start comes after a step, along the last axis: ``(*batch, T)``."""
    marks = starts.astype(jnp.int32)
    return jnp.cumsum(marks[..., ::-1], axis=-1)[..., ::-1] - marks == 0


def require_stride(stride: int, steps: int) -> None:
    """Raise ``InvalidValue`` for a stride below 1 or one that does not divide T."""
    require_integer("stride", stride, at_least=1)
    require(steps % stride == 0, "stride", stride, f"a divisor of T = {steps}")


def fast_length(least: int) -> int:
    """The shortest transform from ``least`` on whose length has no prime factor above 5."""
    best = 1 << max(0, least - 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            best = min(best, three << max(0, -(-least // three) - 1).bit_length())
            three *= 3
        five *= 5
    return best
