"""The unroll of the wave recurrence and of the dense one as compiled C++, for a CPU: see ``unroll.cc``.

It is there once it has been compiled: by the first experiment that gains by it, or by
``python3 -m wrnn_jax.kernels.native.build``.
"""

import ctypes
import functools
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from wrnn_jax.kernels.contract import require_operands
from wrnn_jax.kernels.native import library
from wrnn_jax.kernels.transforms import split_perturbed, varying_alike
from wrnn_jax.typing import Array, Params
from wrnn_jax.validation import require

ACTIVATIONS = ("relu", "tanh", "identity")
"""Those of ``wrnn_jax.activations`` that ``unroll.cc`` has, in its order."""
FORWARD, BACKWARD = "wrnn_jax_native_forward", "wrnn_jax_native_backward"


def native_unroll(
    recurrence: Array,
    encoder: Params,
    readout_params: Params,
    carry: Array,
    xs: Array,
    *,
    activation: str,
    readout: Literal["linear"] | None,
    last: bool,
) -> tuple[Array, Array]:
    """What :func:`wrnn_jax.kernels.fused.fused_unroll` gives, in values and gradients, for float32 on a CPU.

    On one thread: it is the devices that share a batch who share the work. Reverse mode only.

    Args:
        recurrence:     (C, C, K) u, K odd and at most N  | (N, N)    U
        encoder:        kernel (C, N, D), bias (C, N)     | (N, D) and (N,)
        readout_params: for ``"linear"`` ``{"output": {"kernel": (O, C·N), "bias": (O,)}}``
        carry:          (B, C, N)                         | (B, N)    h_0, float32
        xs:             (T, B, D), T ≥ 1
        activation: σ: ``"relu"``, ``"tanh"`` or ``"identity"``.
        readout:    ``"linear"``, ``W h + b``, or None, the states themselves.
        last:       Only the last step's outputs.

    Returns:
        The last state, shaped as ``carry``, and the outputs, ``(T, B, O)`` or with ``last`` ``(B, O)``.

    Raises:
        InvalidValue: for anything else, on another device than a CPU, and if the kernels have not been compiled.
    """
    platform = jax.default_backend()
    require(platform == "cpu", "backend", "native", f"another on this device, a {platform}: native is for CPUs")
    require_operands(recurrence, encoder, readout_params, carry, xs, activation=activation, readout=readout)
    require(not callable(readout), "readout", readout, "None or 'linear'")
    if recurrence.ndim == 2:
        recurrence = recurrence[:, :, None]
        encoder = {"kernel": encoder["kernel"][:, None], "bias": encoder["bias"][:, None]}
    channels, neurons, _ = encoder["kernel"].shape
    taps = recurrence.shape[2]
    batch, steps = carry.shape[0], xs.shape[0]
    output = readout_params["output"] if readout else {}
    for name, leaf in {"carry": carry, **output}.items():
        require(leaf.dtype == np.float32, f"{name}.dtype", leaf.dtype.name, "float32")
    kernels = _library()

    recurrence, encoder, xs = jax.tree.map(lambda leaf: leaf.astype(np.float32), (recurrence, encoder, xs))
    in_loop = output if output and not last else _no_readout(channels * neurons)
    width = 0 if last else len(output["bias"]) if output else channels * neurons
    segment = _segment(steps)
    tiles = -(-batch // kernels.wrnn_lanes())
    stored = (tiles, -(-steps // segment), kernels.wrnn_state_size(channels, neurons, taps))
    spec = _Spec(ACTIVATIONS.index(activation), width, segment, stored)
    state = carry.reshape(batch, channels, neurons)
    state, outputs = _unroll(spec, *varying_alike((recurrence, encoder, in_loop, state, xs)))
    if last:
        outputs = state.reshape(batch, -1)
        if output:
            outputs = jnp.dot(outputs, output["kernel"].T) + output["bias"][None]
    return state.reshape(carry.shape), outputs


def _no_readout(size: int) -> Params:
    return {"kernel": jnp.zeros((0, size), np.float32), "bias": jnp.zeros(0, np.float32)}


def _segment(steps: int) -> int:
    """S ≈ √T: T / S stored states and S recomputed ones are then fewest."""
    return math.isqrt(steps)


def is_built() -> bool:
    """Whether the kernels have been compiled for this processor from the present source, are the user's own and whole,
    and are not declined."""
    return library.loaded() is not None


def require_built() -> None:
    """Raise ``InvalidValue`` if they have not."""
    how = f"another while {library.VARIABLE}=0" if library.is_declined() else f"compiled first: {library.COMMAND}"
    require(is_built(), "backend", "native", how)


class _Spec(NamedTuple):
    """The static part of an unroll."""

    activation: int
    width: int
    """Of a step's outputs; 0 for none."""
    segment: int
    """S, the steps between stored states."""
    stored: tuple[int, int, int]
    """The shape of the stored states as they lie in ``unroll.cc``: tiles of the batch, segments, a tile's state."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _unroll(spec, *operands):
    """(recurrence, encoder, readout, state (B, C, N), xs (T, B, D)) -> (last state, outputs (T, B, width))."""
    state, outputs, _ = _forward(spec, *operands, store=False)
    return state, outputs


def _forward(spec, recurrence, encoder, readout, state, xs, store):
    shapes = (state.shape, (*xs.shape[:2], spec.width), spec.stored if store else (0, 0, 0))
    return _call(FORWARD, shapes, spec, *_flat(recurrence, encoder, readout), state, xs)


def _unroll_fwd(spec, *operands):
    wanted, operands = split_perturbed(("recurrence", "encoder", "readout", "state", "xs"), operands)
    state, outputs, stored = _forward(spec, *operands, store=True)
    recurrence, encoder, readout, _, xs = operands
    return (state, outputs), (recurrence, encoder, readout, xs, stored, state, wanted)


def _unroll_bwd(spec, residuals, cotangents):
    recurrence, encoder, readout, xs, stored, state, wanted = residuals
    d_state, d_outputs = cotangents
    if isinstance(d_state, SymbolicZero):
        d_state = jnp.zeros_like(state)
    if isinstance(d_outputs, SymbolicZero):
        d_outputs = jnp.zeros_like(xs, shape=(*xs.shape[:2], 0))
        wanted = {name: None for name in wanted if name != "readout"}

    def shape(name, like):
        """Of no size, if it is not to be computed."""
        return like.shape if name in wanted else (0,) * like.ndim

    shapes = (
        shape("recurrence", recurrence),
        shape("encoder", encoder["kernel"]),
        shape("encoder", encoder["bias"]),
        shape("readout", readout["kernel"]),
        state.shape,
        shape("xs", xs),
    )
    operands = (*_flat(recurrence, encoder, readout), xs, stored, state, d_state, d_outputs)
    d_recurrence, d_kernel, d_bias, d_readout, d_carry, d_xs = _call(BACKWARD, shapes, spec, *operands)
    grads = {
        "recurrence": d_recurrence,
        "encoder": {"kernel": d_kernel, "bias": d_bias},
        "readout": {"kernel": d_readout, "bias": d_outputs.sum((0, 1))},
        "state": d_carry,
        "xs": d_xs,
    }
    return tuple(grads[name] if name in wanted else None for name in grads)


_unroll.defvjp(_unroll_fwd, _unroll_bwd, symbolic_zeros=True)


def _flat(recurrence, encoder, readout):
    return recurrence, encoder["kernel"], encoder["bias"], readout["kernel"], readout["bias"]


def _call(target, shapes, spec, *operands):
    # All operands vary over the same axes of a ``shard_map``, and so do results that are shaped after one of them.
    results = [jax.eval_shape(functools.partial(jnp.zeros_like, shape=shape), operands[0]) for shape in shapes]
    attributes = {"activation": np.int64(spec.activation), "segment": np.int64(spec.segment)}
    return jax.ffi.ffi_call(target, results, vmap_method="sequential")(*operands, **attributes)


@functools.cache  # which does not keep errors: what is not there now may be later
def _library() -> ctypes.CDLL:
    """The compiled kernels, known to XLA."""
    require_built()
    kernels = library.loaded()
    for name, function in ((FORWARD, kernels.wrnn_forward), (BACKWARD, kernels.wrnn_backward)):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(function), platform="cpu")
    return kernels
