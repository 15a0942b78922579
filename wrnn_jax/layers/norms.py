"""Norms: layers that give features mean β and standard deviation γ, over the features of a step or over the batch."""

from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
from jax import lax

from wrnn_jax.layers.base import Layer, Stream, Training, Variables, beginnings, stream_of_steps
from wrnn_jax.typing import Array, Carry, Key, Params
from wrnn_jax.validation import require, require_choice, require_fraction, require_integer, require_positive

OVER = ("batch-time", "batch")
"""What batch norm takes its statistics over."""


def layer_norm(*, eps: float = 1e-5) -> Layer:
    """Norm over the features of each step by itself::

        y = γ (x − μ) / √(σ² + ε) + β,     μ = (1/F) Σ_f x_f,   σ² = (1/F) Σ_f (x_f − μ)²

    Parameters: ``{"scale": γ (F,), "bias": β (F,)}``, at first 1 and 0. Computed in float32 at least.

    Args:
      eps: ε.

    Raises:
      ValueError: for ε that is not above 0.

    Source: Ba et al. 2016, eq. 3 and 4.
    """
    require_positive("eps", eps)

    def apply(
        variables: Variables, xs: Array, training: Training | None = None, starts: Array | None = None
    ) -> tuple[Array, Any]:
        x = _precise(xs)
        mean, variance = _moments(x, axes=(-1,))
        return _normalise(variables.params, x, mean, variance, eps).astype(xs.dtype), variables.stats

    return Layer(lambda key, input_size: Variables(_affine(input_size)), apply, stream=stream_of_steps(apply))


def batch_norm(
    over: Literal["batch-time", "batch"] = "batch-time",
    steps: int | None = None,
    *,
    momentum: float = 0.9,
    eps: float = 1e-5,
) -> Layer:
    """Norm of each feature over the batch::

        y = γ (x − μ) / √(σ² + ε) + β

    In training, μ and σ² are the mean and (biased) variance of the batch, of all its parts on all devices that share
    it; in evaluation the running ones, which follow those of the batches::

        μ̂ ← m μ̂ + (1 − m) μ,     σ̂² ← m σ̂² + (1 − m) M/(M − 1) σ²,     M numbers having gone into μ and σ²

    The running variance is of the unbiased one: it stands for that of the data, which a small batch's falls short of.

    Parameters: ``{"scale": γ (F,), "bias": β (F,)}``, at first 1 and 0. Statistics ``{"mean": μ̂, "variance": σ̂²}``,
    at first 0 and 1. Computed in float32 at least.

    Args:
      over: ``"batch-time"``: one mean and variance ``(F,)``, over B and T, as published for IndRNN; what comes of a
        step then depends, in training, on later ones. ``"batch"``: every step has its own, over B, ``(steps, F)``.
      steps: the T of training, which ``over="batch"`` must know. Later steps than these have the running statistics
        of the last; a shorter batch changes only those of its steps.
      momentum: m, the part of the running statistics that a batch leaves.
      eps: ε.

    Raises:
      ValueError: for an unknown ``over``, ``steps`` that are missing, m outside [0, 1), ε not above 0; in training,
        for a batch of 1, which has no variance, and for sequences packed one after another with ``over="batch"``, whose
        steps are not of one number.

    Source: Ioffe & Szegedy 2015, algorithms 1 and 2; over batch and time Li et al. 2018, section 4; each step by
    itself Cooijmans et al. 2017, section 3.
    """
    require_choice("over", over, OVER)
    if over == "batch":
        require_integer("steps", steps, at_least=1)
    require_fraction("momentum", momentum)
    require_positive("eps", eps)
    axes = (0, 1) if over == "batch-time" else (0,)

    def init(key: Key, input_size: int) -> Variables:
        shape = (steps, input_size) if over == "batch" else (input_size,)
        return Variables(_affine(input_size), {"mean": jnp.zeros(shape), "variance": jnp.ones(shape)})

    def apply(
        variables: Variables, xs: Array, training: Training | None = None, starts: Array | None = None
    ) -> tuple[Array, Any]:
        x, stats = _precise(xs), variables.stats
        numbers = jnp.arange(xs.shape[1])[None]
        if starts is not None and over == "batch":
            allowed = "left out in training of batch norm over 'batch', each step of which is one step of all sequences"
            require(training is None, "starts", f"an array {jnp.shape(starts)}", allowed)
            numbers = numbers - beginnings(starts, xs)
        if training is None:
            mean, variance = (_of_steps(stats[name], numbers) for name in ("mean", "variance"))
        else:
            mean, variance = _moments(x, axes, training.axis)
            sequences = len(xs) * (lax.axis_size(training.axis) if training.axis else 1)
            require(sequences >= 2, "batch", sequences, "2 or more for batch norm")
            count = sequences * (xs.shape[1] if over == "batch-time" else 1)
            now = {"mean": mean, "variance": variance * (count / (count - 1))}
            stats = {name: _follow(stats[name], now[name], momentum) for name in now}
        return _normalise(variables.params, x, mean, variance, eps).astype(xs.dtype), stats

    def start(variables: Variables, sequences: int, dtype: Any = jnp.float32) -> Carry:
        return jnp.zeros(sequences, jnp.int32)

    def run(variables: Variables, carry: Carry, xs: Array) -> tuple[Carry, Array]:
        """The carry is the number of the next step."""
        numbers = carry[:, None] + jnp.arange(xs.shape[1])[None]
        mean, variance = (_of_steps(variables.stats[name], numbers) for name in ("mean", "variance"))
        ys = _normalise(variables.params, _precise(xs), mean, variance, eps).astype(xs.dtype)
        return jnp.minimum(carry + xs.shape[1], steps), ys

    return Layer(init, apply, stream=Stream(start, run) if over == "batch" else stream_of_steps(apply))


def _affine(size: int) -> Params:
    return {"scale": jnp.ones(size), "bias": jnp.zeros(size)}


def _precise(xs: Array) -> Array:
    """In float32, or float64 if it is that."""
    return xs.astype(jnp.float32) if jnp.finfo(xs.dtype).bits < 32 else xs


def _moments(x: Array, axes: Sequence[int], axis: str | None = None) -> tuple[Array, Array]:
    """Mean and biased variance over ``axes``, kept as of size 1, and over the devices along ``axis``. The mean is found
    first: that of the squares less the square of the mean would lose the variance of what is far from 0."""

    def mean(values: Array) -> Array:
        values = values.mean(axes, keepdims=True)
        return lax.pmean(values, axis) if axis else values

    center = mean(x)
    return center, mean(jnp.square(x - center))


def _normalise(params: Params, x: Array, mean: Array, variance: Array, eps: float) -> Array:
    """γ (x − μ) / √(σ² + ε) + β of x ``(B, T, F)``, mean and variance having three axes too."""
    scale, bias = (params[name].astype(x.dtype)[None, None] for name in ("scale", "bias"))
    mean, variance = mean.astype(x.dtype), variance.astype(x.dtype)
    return (x - mean) * (scale * lax.rsqrt(variance + eps)) + bias


def _of_steps(running: Array, numbers: Array) -> Array:
    """Running statistics ``(F,)``, or ``(steps, F)`` of each step, as they apply to steps of these ``numbers``,
    ``(B, T)`` or ``(1, T)``."""
    if running.ndim == 1:
        return running[None, None]
    return running.at[numbers].get(mode="clip")


def _follow(running: Array, now: Array, momentum: float) -> Array:
    """Running statistics after a batch whose own are ``now``, ``(1, 1, F)`` or ``(1, T, F)``: of the steps of both."""
    rows = running.reshape(-1, running.shape[-1])
    known = min(len(rows), now.shape[1])
    now = now[0, :known].astype(rows.dtype)
    return rows.at[:known].set(momentum * rows[:known] + (1 - momentum) * now).reshape(running.shape)
