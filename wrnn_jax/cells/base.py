"""The two pure functions that are a cell, and the loop over time that drives them."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from wrnn_jax.typing import Array, Carry, Key, Params
from wrnn_jax.validation import require, require_choice, require_integer


class Cell(NamedTuple):
    """A recurrent cell as pure functions, in the manner of optax's ``GradientTransformation``.

    ======================================  ====================================================
    ``init(key, input_size)``               -> params, a pytree of arrays
    ``initial_carry(batch_shape, dtype)``   -> carry before the first step, leaves ``(*batch, …)``
    ``step(params, carry, x)``              -> (carry, y); x ``(*batch, D)``, y ``(*batch, F)``
    ``hidden(carry)``                       -> the hidden state as ``(*batch, C, N)``
    ``output_size``                         F, the features of ``y``
    ``fused``                               the loop over time as a whole, where there is a faster
                                            one: ``(params, carry, xs (T, B, D), last)`` ->
                                            (carry, outputs ``(T, B, F)`` or ``(B, F)``)
    ======================================  ====================================================

    The step computes in the carry's dtype: parameters and inputs are cast to it.
    """

    init: Callable[[Key, int], Params]
    initial_carry: Callable[..., Carry]
    step: Callable[[Params, Carry, Array], tuple[Carry, Array]]
    hidden: Callable[[Carry], Array]
    output_size: int
    fused: Callable[..., tuple[Carry, Array]] | None = None


class Unrolled(NamedTuple):
    """What :func:`unroll` returns."""

    carry: Carry
    """The carry after the last step."""
    outputs: Array
    """``(B, T, F)`` or time-major ``(T, B, F)``; ``(B, F)`` for ``outputs="last"``."""
    hidden: Array | None
    """The hidden trajectory ``(B, T, C, N)`` or ``(T, B, C, N)``, where it was asked for."""


def unroll(
    cell: Cell,
    params: Params,
    xs: Array,
    *,
    carry: Carry | None = None,
    outputs: Literal["all", "last"] = "all",
    time_major: bool = False,
    return_hidden: bool = False,
    remat: bool | int = False,
    backend: Literal["scan", "fused", "auto"] = "scan",
) -> Unrolled:
    """Run a cell over a sequence::

        (h_{t+1}, y_t) = step(params, h_t, x_t),   t = 0 … T−1

    Args:
      cell: the cell.
      params: what ``cell.init`` gave.
      xs: inputs ``(B, T, D)``; ``(T, B, D)`` with ``time_major``. One sequence alone is ``(T, D)``
        with ``time_major``; any number of batch axes may stand on the batch's side of time.
      carry: h_0; ``cell.initial_carry`` (zeros) in the dtype of ``xs`` if not given.
      outputs: ``"all"`` gives y at every step, ``"last"`` that of the last step only: the others are
        then neither stored nor, in a composed cell, computed.
      time_major: time is the first axis of ``xs``, outputs and hidden trajectory.
      return_hidden: also return the hidden state after every step.
      remat: store the carry of only every S-th step for the backward pass and recompute those in
        between. ``True`` takes S = ⌈√T⌉, so that memory grows like √T for one more forward pass;
        a number is S itself (the steps left over after the last whole segment are stored as ever).
      backend: ``"scan"`` is ``lax.scan`` over ``step``, the definition. ``"fused"`` is the cell's own
        loop, for the wave cell several times as fast on a CPU, whose memory grows like √T by itself; it takes one batch
        axis, gives no hidden trajectory, and differentiates in reverse mode only. ``"auto"`` is
        ``"fused"`` on a CPU where the cell and the other arguments allow it.

    Returns:
      :class:`Unrolled`: ``(carry, outputs, hidden)``.

    Raises:
      ValueError: for no time step, S < 1, an unknown option, or a ``"fused"`` that cannot be had.
    """
    require_choice("outputs", outputs, ("all", "last"))
    require_choice("backend", backend, ("scan", "fused", "auto"))
    require(xs.ndim >= 2 + (not time_major), "xs.shape", xs.shape, "(*batch, T, D), or (T, *batch, D) if time_major")
    if not time_major:
        xs = jnp.moveaxis(xs, -2, 0)
    require(len(xs) >= 1, "T", len(xs), "at least one time step")
    if carry is None:
        dtype = xs.dtype if jnp.issubdtype(xs.dtype, jnp.floating) else jnp.float32
        carry = cell.initial_carry(xs.shape[1:-1], dtype)
    last = outputs == "last"

    can_fuse = cell.fused is not None and xs.ndim == 3 and not return_hidden and remat is False
    require(can_fuse or backend != "fused", "backend", backend, "'scan' or 'auto' for this cell and these arguments")
    if backend == "fused" or (backend == "auto" and can_fuse and jax.default_backend() == "cpu"):
        carry, ys = cell.fused(params, carry, xs, last)
        return Unrolled(carry, ys if time_major or last else jnp.moveaxis(ys, 0, -2), None)

    def body(carry, x):
        carry, y = cell.step(params, carry, x)
        return carry, (None if last else y, cell.hidden(carry) if return_hidden else None)

    if last:
        # The last step stands outside the loop, so that the loop need not compute any y at all.
        carry, (_, hidden) = _scan(body, carry, xs[:-1], remat)
        carry, ys = cell.step(params, carry, xs[-1])
        if return_hidden:
            hidden = jnp.concatenate([hidden, cell.hidden(carry)[None]])
    else:
        carry, (ys, hidden) = _scan(body, carry, xs, remat)

    if not time_major:
        if not last:
            ys = jnp.moveaxis(ys, 0, -2)
        if return_hidden:
            hidden = jnp.moveaxis(hidden, 0, -3)
    return Unrolled(carry, ys, hidden)


def _scan(body: Callable, carry: Carry, xs: Array, remat: bool | int) -> tuple[Carry, Params]:
    """``lax.scan``; with ``remat`` over checkpointed segments, the steps left over after them as they are."""
    if remat is False:
        return lax.scan(body, carry, xs)
    steps = len(xs)
    segment = max(1, math.ceil(math.sqrt(steps))) if remat is True else remat
    require_integer("remat", segment, at_least=1)
    whole = steps - steps % segment
    segments = xs[:whole].reshape(whole // segment, segment, *xs.shape[1:])
    carry, stacked = lax.scan(jax.checkpoint(lambda carry, xs: lax.scan(body, carry, xs)), carry, segments)
    carry, rest = lax.scan(body, carry, xs[whole:])

    def join(stacked, rest):
        return jnp.concatenate([stacked.reshape(whole, *stacked.shape[2:]), rest])

    return carry, jax.tree.map(join, stacked, rest)
