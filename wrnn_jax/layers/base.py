"""The pure functions that are a layer, and what they are given."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from wrnn_jax.cells.contract import fit_starts
from wrnn_jax.typing import Array, Carry, Key, Params
from wrnn_jax.validation import InvalidValue


class Variables(NamedTuple):
    """The arrays of a layer, or of a model."""

    params: Params
    """What the optimiser changes."""
    stats: Any = ()
    """What training only keeps an account of, such as running means; no leaves for most."""


class Training(NamedTuple):
    """What a layer is given in a training step. In evaluation it is given None instead, so that the two differ by this
    argument alone."""

    key: Key
    """Of the step, from which dropout draws: the run's key and the step decide it, so that a resumed run draws the
    same."""
    axis: str | None = None
    """The mapped axis over which the batch is split, each device being given a part; None where it is whole."""

    def sequence_keys(self, sequences: int) -> Key:
        """A key for each of the ``sequences`` given here, ``(B,)``, made from its place in the whole batch: what is
        drawn from it is the same however many devices share the batch."""
        first = lax.axis_index(self.axis) * sequences if self.axis else 0
        return jax.vmap(jax.random.fold_in, (None, 0))(self.key, first + jnp.arange(sequences))


class Stream(NamedTuple):
    """A layer, or a model, in evaluation on sequences that come in parts; its carry is what a part needs of the steps
    before it.

    ==============================================  ==================================================================
    ``start(variables, sequences, dtype=float32)``  -> carry before the first step, for B = ``sequences`` and inputs of
                                                    ``dtype``: a pytree of arrays, the first axis of each B
    ``run(variables, carry, xs)``                   xs ``(B, T, D)``, any T ≥ 1 -> (carry after them, ys ``(B, T, F)``)
    ==============================================  ==================================================================

    However sequences are cut, what ``run`` makes of their parts, one after another, is what ``apply`` makes of the
    whole. The carry after a part has the structure, shapes and dtypes of the one before it: ``lax.scan`` takes it.
    """

    start: Callable[..., Carry]
    run: Callable[[Variables, Carry, Array], tuple[Carry, Array]]


class Layer(NamedTuple):
    """A map of sequences as pure functions.

    ====================================  ============================================================================
    ``init(key, D)``                      -> :class:`Variables`
    ``apply(variables, xs, training)``    xs ``(B, T, D)`` -> (ys ``(B, T, F)``, stats after it); ``training`` is None
                                          in evaluation, which leaves the stats as they are
    ``apply(variables, xs, training,      the same of sequences packed one after another: ``starts`` ``(B, T)`` is true
    starts)``                             where one begins, for which the steps before it are forgotten
    ``output_size``                       F; None: D, as many features as it is given
    ``hidden(variables, xs)``             -> hidden states over time, in evaluation, of every layer in it that has some,
                                          in their order: ``{name: (B, T, C, N)}``, the name being where it is, ``""``
                                          of one by itself; T, C and N may differ among them; None where there are none
    ``stream``                            a :class:`Stream`, from part to part of a sequence; None: it has to be given
                                          whole
    ``constrain(params)``                 -> params, as they are to be after each update; None: as they are
    ``rates(params)``                     -> factors of the learning rate, a pytree prefix of params; None: 1
    ``decays(params)``                    -> whether weight decay acts, a pytree prefix of params; None: it does
    ====================================  ============================================================================
    """

    init: Callable[[Key, int], Variables]
    apply: Callable[..., tuple[Array, Any]]
    output_size: int | None = None
    hidden: Callable[[Variables, Array], Mapping[str, Array]] | None = None
    constrain: Callable[[Params], Params] | None = None
    rates: Callable[[Params], Any] | None = None
    decays: Callable[[Params], Any] | None = None
    stream: Stream | None = None


def applied(
    layer: Layer, variables: Variables, xs: Array, training: Training | None = None, starts: Array | None = None
) -> tuple[Array, Any]:
    """What the layer's ``apply`` gives. ``starts`` are passed on where there are some: one without need not know them.

    Raises:
      InvalidValue: for ``starts`` of a layer that takes none.
    """
    if starts is None:
        return layer.apply(variables, xs, training)
    try:
        inspect.signature(layer.apply).bind(variables, xs, training, starts)
    except TypeError:
        raise InvalidValue("starts", f"an array {jnp.shape(starts)}", "left out: a layer takes none") from None
    return layer.apply(variables, xs, training, starts)


def stream_of_steps(apply: Callable[..., tuple[Array, Any]]) -> Stream:
    """The stream of a layer that treats every step by itself, from its ``apply``: it carries nothing."""

    def run(variables: Variables, carry: Carry, xs: Array) -> tuple[Carry, Array]:
        return carry, apply(variables, xs)[0]

    return Stream(lambda variables, sequences, dtype=jnp.float32: (), run)


def beginnings(starts: Array, xs: Array) -> Array:
    """The number of the step at which the sequence of each step began, ``(B, T)``, 0 before the first of ``starts``.

    Raises:
      InvalidValue: for ``starts`` that are no booleans, one for each step of xs ``(B, T, D)``.
    """
    steps = jnp.arange(xs.shape[1])[None]
    return lax.cummax(jnp.where(fit_starts(starts, xs, time_major=False), steps, 0), axis=1)


OF_PARAMS: Mapping[str, Callable[[Params], Any]] = {
    "constrain": lambda params: params,
    "rates": lambda params: 1.0,
    "decays": lambda params: True,
}
"""The functions of a layer's parameters, and what each is where the layer has none."""
