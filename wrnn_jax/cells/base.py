"""The two pure functions that are a cell, and the loop over time that drives them."""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from wrnn_jax.cells.contract import REMEMBERED, first_carry_as, fit_carry, fit_inputs, fit_params, fit_starts
from wrnn_jax.kernels import native
from wrnn_jax.kernels.stand_in import stand_in
from wrnn_jax.kernels.transforms import is_in_explicit_mesh, lie_as, varying_alike
from wrnn_jax.typing import Array, Carry, Key, Params
from wrnn_jax.validation import require, require_choice, require_integer


class Engines(NamedTuple):
    """A cell's faster loops over time, as far as it has any, by the name that :func:`unroll` knows them by::

    (params, carry, xs (T, B, D), last) -> (carry, outputs (T, B, F) or (B, F))
    """

    fused: Callable[..., tuple[Carry, Array]] | None = None
    native: Callable[..., tuple[Carry, Array]] | None = None
    parallel: Callable[..., tuple[Carry, Array]] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of those that there are."""
        return tuple(name for name, loop in self._asdict().items() if loop)


class Cell(NamedTuple):
    """A recurrent cell as pure functions, in the manner of optax's ``GradientTransformation``.

    ======================================  ====================================================
    ``init(key, input_size)``               -> params, a pytree of arrays
    ``initial_carry(batch_shape, dtype)``   -> carry before the first step, leaves ``(*batch, …)``
    ``step(params, carry, x)``              -> (carry, y); x ``(*batch, D)``, y ``(*batch, F)``
    ``hidden(carry)``                       -> the hidden state as ``(*batch, C, N)``
    ``output_size``                         F, the features of ``y``
    ``engines``                             faster loops over time, where there are any
    ``pure``                                whether the functions read nothing but their arguments
    ``start(params)``                       -> that carry where it depends on parameters, without batch axes and in
                                            any dtype: all sequences start alike; None: ``initial_carry``
    ``prepare(params)``                     -> what steps compute from the parameters alone, a pytree; None: nothing
    ======================================  ====================================================

    The step computes in the carry's dtype: parameters, what is prepared from them, and inputs are cast to it.

    :func:`wrnn_jax.cells.first_carry` is the carry before the first step, of cells with a start and without.

    The step of a cell with ``prepare`` takes what that makes as one more argument, and makes it itself where it is not
    given: ``step(params, carry, x)`` is a step of any cell. :func:`unroll` does the work once a sequence::

        step(params, carry, x, prepare(params)) = step(params, carry, x)

    The cells of this library are ``pure``. Of one that is, a compiled :func:`unroll` is kept for the next call outside
    of ``jit``; one that closes over arrays which may be others at the next call, or are differentiated, is not.
    """

    init: Callable[[Key, int], Params]
    initial_carry: Callable[..., Carry]
    step: Callable[..., tuple[Carry, Array]]
    hidden: Callable[[Carry], Array]
    output_size: int
    engines: Engines = Engines()
    pure: bool = False
    start: Callable[[Params], Carry] | None = None
    prepare: Callable[[Params], Any] | None = None


BACKENDS = ("auto", "scan", *Engines._fields)
"""The ways to go through time, see :func:`unroll`."""
NATIVE_BATCH = 8
"""The least batch for which ``"auto"`` takes the native backend, and the least part of one that is worth a device: it
computes up to 16 sequences in the time of one."""


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
    starts: Array | None = None,
    outputs: Literal["all", "last"] = "all",
    time_major: bool = False,
    return_hidden: bool = False,
    remat: bool | int = False,
    backend: Literal["scan", "fused", "native", "parallel", "auto"] = "scan",
) -> Unrolled:
    """Run a cell over a sequence::

        (h_{t+1}, y_t) = step(params, h_t, x_t),   t = 0 … T−1

    Args:
      cell: the cell.
      params: what ``cell.init`` gave.
      xs: inputs ``(B, T, D)``; ``(T, B, D)`` with ``time_major``. One sequence alone is ``(T, D)``
        with ``time_major``; any number of batch axes may stand on the batch's side of time.
      carry: h_0; :func:`first_carry` in the dtype of ``xs`` if not given.
      starts: booleans ``(B, T)``, ``(T, B)`` with ``time_major``: where true, a new sequence begins, and h_t is
        :func:`first_carry` instead of what came before. Sequences packed one after another so are each as by itself.
      outputs: ``"all"`` gives y at every step, ``"last"`` that of the last step only: the others are
        then neither stored nor, in a composed cell, computed.
      time_major: time is the first axis of ``xs``, outputs and hidden trajectory.
      return_hidden: also return the hidden state after every step.
      remat: store the carry of only every S-th step for the backward pass and recompute those in
        between. ``True`` takes S = ⌈√T⌉, so that memory grows like √T for one more forward pass;
        a number is S itself (the steps left over after the last whole segment are stored as ever).
      backend: how to go through time; all give the same numbers, up to rounding.

        * ``"scan"`` is ``lax.scan`` over ``step``, the definition.
        * ``"fused"``: a loop laid out for a CPU's caches, with its own backward pass, of the wave cell and the simple
          RNN; its memory grows like √T by itself.
        * ``"native"``: that loop as compiled code, in float32, on a CPU, once an experiment or ``python3 -m
          wrnn_jax.kernels.native.build`` has compiled it.
        * ``"parallel"``: all steps at once, of the wave cell with identity activation.
        * ``"auto"``: see :func:`choose_backend`.

        Those other than the scan take one batch axis, no ``starts`` and no ``remat``, and give no hidden trajectory.
        Their value and gradient are their own; forward mode and derivatives of derivatives are the scan's, and what
        ``"native"`` was traced with runs as the scan where it is exported to or lowered for another platform.

    Returns:
      :class:`Unrolled`: ``(carry, outputs, hidden)``.

    Raises:
      ValueError: for no time step, S < 1, an unknown option, or a backend that this cell or these arguments rule out.
    """
    require_choice("outputs", outputs, ("all", "last"))
    require_choice("backend", backend, BACKENDS)
    if not isinstance(remat, bool):
        require_integer("remat", remat, at_least=1)
    xs, batch = fit_inputs(xs, time_major)
    params = fit_params(cell, params, xs)
    carry = fit_carry(cell, params, carry, batch, xs)
    anew = ()
    if starts is not None:
        starts = fit_starts(starts, xs, time_major)
        anew = starts if time_major else jnp.moveaxis(starts, -1, 0), first_carry_as(cell, params, carry, batch, xs)
    if not time_major:
        xs = jnp.moveaxis(xs, -2, 0)
    last = outputs == "last"

    if len(batch) != 1 or return_hidden or remat is not False or anew:
        allowed = "'scan' or 'auto' for more batch axes than one, hidden states, remat or starts"
        require(backend in ("scan", "auto"), "backend", backend, allowed)
        backend = "scan"
    else:
        # What is empty, has sizes that are not known yet (``jax.export``), or has its place on a mesh in its type, is
        # no work for an engine.
        is_sized = all(isinstance(size, int) and size for size in xs.shape)
        is_work = is_sized and not is_in_explicit_mesh((params, carry, xs))
        dtype = jax.tree.leaves(carry)[0].dtype
        backend = choose_backend(cell, backend, outputs, batch[0] if is_work else NATIVE_BATCH, dtype)
        backend = backend if is_work else "scan"

    loop = _loop if cell.pure else _loop.__wrapped__
    carry, ys, hidden = loop(cell, backend, last, return_hidden, remat)(params, carry, xs, *anew)
    if not time_major:
        if not last:
            ys = jnp.moveaxis(ys, 0, -2)
        if return_hidden:
            hidden = jnp.moveaxis(hidden, 0, -3)
    return Unrolled(carry, ys, hidden)


@lru_cache(REMEMBERED, typed=True)  # for remat = 1 is not True
def _loop(cell: Cell, backend: str, last: bool, return_hidden: bool, remat: bool | int) -> Callable:
    """The loop over time ``(params, carry, xs (T, *batch, D)) -> (carry, outputs, hidden)``, compiled as one. That
    of the scan may be given ``starts (T, *batch)``, and the carry there, as well."""
    plain = partial(_unroll_by_scan, cell, last, return_hidden, remat)
    if backend == "scan":
        return jax.jit(plain, inline=True)
    engine = getattr(cell.engines, backend)

    def fast(params, carry, xs):
        return *engine(params, carry, xs, last), None

    if cell.pure and backend != "parallel":
        fast = stand_in(fast, plain, portable=backend != "native")
    return jax.jit(lambda *operands: fast(*varying_alike(operands)), inline=True)


def _unroll_by_scan(cell, last, return_hidden, remat, params, carry, xs, starts=None, first=None):
    """The definition."""
    carry = varying_alike(carry, (params, xs, first, None if starts is None else starts.astype(jnp.int8)))
    if is_in_explicit_mesh(xs):
        carry, first = (lie_as(tree, xs[0, ..., 0]) for tree in (carry, first))
        starts = lie_as(starts, xs[..., 0])
    prepared = (cell.prepare(params),) if cell.prepare else ()

    def step(carry, now):
        x, starts = now
        if starts is not None:
            carry = jax.tree.map(lambda new, old: jnp.where(_beside(starts, old), new, old), first, carry)
        return cell.step(params, carry, x, *prepared)

    def body(carry, now):
        carry, y = step(carry, now)
        return carry, (None if last else y, cell.hidden(carry) if return_hidden else None)

    if not last:
        carry, (ys, hidden) = _scan(body, carry, (xs, starts), remat)
        return carry, ys, hidden
    # The last step stands outside the loop, so that the loop need not compute any y at all.
    carry, (_, hidden) = _scan(body, carry, jax.tree.map(lambda x: x[:-1], (xs, starts)), remat)
    carry, ys = step(carry, jax.tree.map(lambda x: x[-1], (xs, starts)))
    if return_hidden:
        hidden = jnp.concatenate([hidden, cell.hidden(carry)[None]])
    return carry, ys, hidden


def _beside(starts: Array, leaf: Array) -> Array:
    """Booleans ``(*batch,)`` with as many axes as the carry's leaf ``(*batch, …)``."""
    return starts.reshape(*starts.shape, *(1,) * (leaf.ndim - starts.ndim))


def choose_backend(
    cell: Cell,
    backend: str = "auto",
    outputs: Literal["all", "last"] = "all",
    batch: int = NATIVE_BATCH,
    dtype: jnp.dtype = jnp.float32,
    native_is_built: bool | None = None,
) -> str:
    """The backend that :func:`unroll` takes for ``backend``: for ``"auto"``, on a CPU the fastest that there is for
    the cell, such outputs, a batch on one device and a carry of ``dtype``; elsewhere the scan.

    ``native_is_built`` asks what it would be if the native kernels were there, or were not.

    Raises:
      ValueError: for a backend that there is not, or not for this cell.
    """
    require_choice("backend", backend, BACKENDS)
    if backend != "auto":
        require_choice("backend", backend, ("auto", "scan", *cell.engines.names))
        if backend == "native":
            native.require_built()
        return backend
    if jax.default_backend() != "cpu" or not cell.engines.fused:
        return "scan"
    # With few cores, all states one after another are computed as fast as in parallel.
    if outputs == "last" and cell.engines.parallel:
        return "parallel"
    if batch < NATIVE_BATCH or dtype != jnp.float32:
        return "fused"
    is_built = native.is_built() if native_is_built is None else native_is_built
    return "native" if is_built else "fused"


def _scan(body: Callable, carry: Carry, xs: Any, remat: bool | int) -> tuple[Carry, Params]:
    """``lax.scan`` over the arrays of ``xs``; with ``remat`` over checkpointed segments, the steps left over after them
    as they are."""
    if remat is False:
        return lax.scan(body, carry, xs)
    steps = len(jax.tree.leaves(xs)[0])
    segment = max(1, math.ceil(math.sqrt(steps))) if remat is True else remat
    whole = steps - steps % segment
    segments = jax.tree.map(lambda x: x[:whole].reshape(whole // segment, segment, *x.shape[1:]), xs)
    carry, stacked = lax.scan(jax.checkpoint(lambda carry, xs: lax.scan(body, carry, xs)), carry, segments)
    carry, rest = lax.scan(body, carry, jax.tree.map(lambda x: x[whole:], xs))

    def join(stacked, rest):
        return jnp.concatenate([stacked.reshape(whole, *stacked.shape[2:]), rest])

    return carry, jax.tree.map(join, stacked, rest)
