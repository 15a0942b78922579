"""The unroll of the linear wave, parallel in time: plain XLA, differentiable in both modes.

Letters as in ``wrnn_jax.typing``; besides, U is the map h ↦ u ⋆ h, S the steps of a chunk, M = ⌊T / S⌋ the chunks
(the steps left over are taken first), c their index. With S ≈ √T, nothing takes more than about √T steps:

1. How inputs and impulses reverberate, U^s V and U^S: S ordinary steps.
2. What the inputs of a chunk leave at its end, for all chunks at once: a GEMM.
3. The states between chunks, ``e_{c+1} = U^S e_c + Σ_r U^{S−1−r} (V x_{cS+r} + b)``: M steps in Fourier space, where
   U^S is a matrix (C, C) for each frequency, however far it reaches along the ring.
4. What is inside the chunks, if it is wanted: the S ordinary steps of all chunks at once; or, for a linear readout,
   two GEMMs without states, ``y_{cS+s} = W U^{s+1} e_c + Σ_{r≤s} W U^{s−r} (V x_{cS+r} + b) + b_W``.

The matrices of U^S are as exact as S ordinary steps make them, not products of rounded matrices, and each is used M
times in a row: the error grows like √T. Relative to the largest of all states, in float32, C = 6, N = 97:

==========================================  ======================  ========================
T = 100, 1,000, 10,000                      this unroll             scan
==========================================  ======================  ========================
a shift of random states                    2.6e-7, 8.6e-7, 2.3e-6  0, 0, 0
a shift, random inputs at every step        2.3e-7, 5.7e-7, 1.2e-6  3.5e-7, 1.1e-6, 2.6e-6
random u of spectral radius 1, such inputs  2.0e-7, 3.7e-7, 2.9e-6  1.4e-7, 2.6e-7, 6.0e-7
==========================================  ======================  ========================
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from wrnn_jax.kernels.contract import require_operands
from wrnn_jax.kernels.transforms import varying_alike
from wrnn_jax.typing import Array, Params
from wrnn_jax.validation import require

PRECISION = lax.Precision.HIGHEST
"""Of every product, as in the cells."""


def parallel_unroll(
    recurrence: Array,
    encoder: Params,
    readout_params: Params,
    carry: Array,
    xs: Array,
    *,
    readout: Callable[[Params, Array], Array] | Literal["linear"] | None,
    last: bool,
) -> tuple[Array, Array]:
    """Unroll ``h_{t+1} = u ⋆ h_t + V x_t + b``, ``y_t = readout(h_{t+1})`` over all steps.

    (u ⋆ h)[o, i] = Σ_j Σ_k u[o, j, k] · h[j, (i + k − K//2) mod N]

    With ``last``, or a ``"linear"`` readout and few inputs, only about √T states are ever made; else all of them, which
    a backward pass stores.

    Args:
        recurrence:     (C, C, K) u, K odd and at most N
        encoder:        kernel (C, N, D) V, bias (C, N) b
        readout_params: any pytree, for ``readout``
        carry:          (B, C, N) h_0, whose dtype states and outputs have; computed is in float32 at least
        xs:             (T, B, D), T ≥ 1
        readout:    Pure ``(readout_params, states (·, C·N)) -> (·, O)``; None: the states themselves. ``"linear"`` is
                    ``W h + b`` with ``{"output": {"kernel": (O, C·N), "bias": (O,)}}``, faster than as a function.
        last:       Only the last step's outputs.

    Returns:
        The last state ``(B, C, N)`` and the outputs, ``(T, B, O)`` or with ``last`` ``(B, O)``.

    Raises:
        InvalidValue: for operands that do not fit, see :func:`wrnn_jax.kernels.contract.require_operands`.
    """
    operands = (recurrence, encoder, readout_params, carry, xs)
    require_operands(*operands, activation="identity", readout=readout)
    require(recurrence.ndim == 3, "recurrence.shape", recurrence.shape, "(C, C, K)")
    dtype, batch = carry.dtype, len(carry)
    wide = partial(jax.tree.map, lambda leaf: leaf.astype(np.promote_types(dtype, np.float32)))
    operands = wide((recurrence, encoder, carry, xs))
    if readout == "linear":
        readout_params = wide(readout_params["output"])
    (recurrence, encoder, state, xs), readout_params = varying_alike((operands, readout_params))
    # The bias is the weight of one more input, which is always 1.
    weights = jnp.concatenate([jnp.moveaxis(encoder["kernel"], -1, 0), encoder["bias"][None]])
    xs = jnp.concatenate([xs, jnp.ones_like(xs[..., :1])], -1)

    def observe(states):
        states = states.reshape(len(states), -1)
        if readout == "linear":
            return _affine(readout_params, states).astype(dtype)
        states = states.astype(dtype)
        return states if readout is None else readout(readout_params, states)

    chunk = chunk_length(len(xs))
    head, xs = jnp.split(xs, [len(xs) % chunk])
    state, head_outputs = _run(recurrence, weights, state, head, (lambda states: None) if last else observe)
    xs = xs.reshape(-1, chunk, *xs.shape[1:])
    responses, power = _respond(recurrence, weights, chunk)
    drives = jnp.einsum("sdcn,msbd->mbcn", responses[::-1], xs, precision=PRECISION)
    starts, state = _cross_chunks(power, state, drives)
    if last:
        return state.astype(dtype), observe(state)
    if readout == "linear" and _has_few_inputs(weights, chunk):
        outputs = _read_out(recurrence, readout_params, responses, starts, xs).astype(dtype)
    else:
        # All chunks side by side are one batch of M·B.
        states, xs = starts.reshape(-1, *state.shape[1:]), jnp.swapaxes(xs, 0, 1).reshape(chunk, -1, xs.shape[-1])
        states, outputs = _run(recurrence, weights, states, xs, observe)
        state = states[-batch:]
        outputs = jnp.swapaxes(outputs.reshape(chunk, -1, batch, outputs.shape[-1]), 0, 1)
    outputs = outputs.reshape(-1, batch, outputs.shape[-1])
    return state.astype(dtype), jnp.concatenate([head_outputs, outputs])


def chunk_length(steps: int) -> int:
    """S: of the numbers near √T one that leaves the fewest steps over."""
    root = math.isqrt(steps)
    near = range(max(1, root * 3 // 4), root * 3 // 2 + 1)
    return min(near, key=lambda chunk: (steps % chunk, abs(chunk - root)))


def _has_few_inputs(weights: Array, chunk: int) -> bool:
    """Whether reading out a chunk's inputs, O·S·D products a step, costs little next to the O·C·N of reading a state.

    The same number bounds the memory of W U^{s−r} V.
    """
    return chunk * len(weights) <= 4 * weights[0].size


def _affine(params: Params, states: Array) -> Array:
    """W h + b: states ``(B, C·N)`` -> ``(B, O)``."""
    return jnp.dot(states, params["kernel"].T, precision=PRECISION) + params["bias"][None]


@partial(jax.checkpoint, prevent_cse=False)
def _correlate(kernel: Array, states: Array) -> Array:
    """u ⋆ h as one GEMM with the K shifts of h ``(B, C, N)``; a backward pass makes the shifts anew, and stores h."""
    channels, _, taps = kernel.shape
    shifts = jnp.concatenate([jnp.roll(states, taps // 2 - tap, axis=-1) for tap in range(taps)], axis=-2)
    return jnp.einsum("oq,bqn->bon", kernel.swapaxes(1, 2).reshape(channels, -1), shifts, precision=PRECISION)


def _run(
    kernel: Array, weights: Array, states: Array, xs: Array, observe: Callable[[Array], Array | None]
) -> tuple[Array, Array | None]:
    """Ordinary steps from h ``(B, C, N)`` with V ``(D, C, N)``, xs ``(T, B, D)``: the last h, and all observations."""

    def step(states, x):
        states = _correlate(kernel, states) + jnp.tensordot(x, weights, axes=1, precision=PRECISION)
        return states, observe(states)

    return lax.scan(step, states, xs)


def _respond(kernel: Array, weights: Array, steps: int) -> tuple[Array, Array]:
    """U^s V for s = 0 … S − 1 ``(S, D, C, N)``, and U^S of a pulse at position 0 of every ring ``(C_in, C_out, N)``."""
    inputs, channels, neurons = weights.shape
    pulses = jnp.zeros_like(weights, shape=(channels, channels, neurons))
    pulses = pulses.at[:, :, 0].set(jnp.eye(channels, dtype=weights.dtype))

    def step(states, _):
        return _correlate(kernel, states), states[:inputs]

    states, responses = lax.scan(step, jnp.concatenate([weights, pulses]), length=steps)
    return responses, states[inputs:]


def _cross_chunks(power: Array, state: Array, drives: Array) -> tuple[Array, Array]:
    """``e_{c+1} = U^S e_c + d_c``: e_0 ``(B, C, N)``, d ``(M, B, C, N)`` -> e_0 … e_{M−1} ``(M, B, C, N)``, and e_M."""
    neurons = state.shape[-1]

    def transform(rings):
        """(…, B, C, N) -> (…, N//2 + 1, C, B)"""
        return jnp.swapaxes(jnp.fft.rfft(rings), -1, -3)

    def invert(waves):
        return jnp.fft.irfft(jnp.swapaxes(waves, -1, -3), neurons)

    power = transform(power)

    def step(state, drive):
        return jnp.matmul(power, state, precision=PRECISION) + drive, state

    state, starts = lax.scan(step, transform(state), transform(drives))
    return invert(starts), invert(state)


def _read_out(kernel: Array, readout: Params, responses: Array, starts: Array, xs: Array) -> Array:
    """W h + b_W ``(M, S, B, O)`` from e_c ``(M, B, C, N)``, xs ``(M, S, B, D)`` and U^s V ``(S, D, C, N)``."""
    chunk = len(responses)
    weights = readout["kernel"].reshape(-1, *starts.shape[2:])
    # Uᵀ is a correlation too, with the taps reversed and the channels exchanged.
    adjoint = kernel[:, :, ::-1].swapaxes(0, 1)

    def step(weights, _):
        weights = _correlate(adjoint, weights)
        return weights, weights

    _, of_starts = lax.scan(step, weights, length=chunk)  # W U^{s+1}
    by_age = jnp.einsum("ocn,sdcn->sod", weights, responses, precision=PRECISION)  # W U^s V
    age = np.arange(chunk)[:, None] - np.arange(chunk)
    of_inputs = jnp.where((age >= 0)[:, :, None, None], by_age[age], 0.0)  # W U^{s−r} V, for r ≤ s
    from_starts = jnp.einsum("socn,mbcn->msbo", of_starts, starts, precision=PRECISION)
    from_inputs = jnp.einsum("srod,mrbd->msbo", of_inputs, xs, precision=PRECISION)
    return from_starts + from_inputs + readout["bias"].reshape(1, 1, 1, -1)
