"""The pure functions that are a layer, and what they are given."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from wrnn_jax.typing import Array, Key, Params


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


class Layer(NamedTuple):
    """A map of sequences as pure functions.

    ====================================  ============================================================================
    ``init(key, D)``                      -> :class:`Variables`
    ``apply(variables, xs, training)``    xs ``(B, T, D)`` -> (ys ``(B, T, F)``, stats after it); ``training`` is None
                                          in evaluation, which leaves the stats as they are
    ``output_size``                       F; None: D, as many features as it is given
    ``hidden(variables, xs)``             -> hidden states over time ``(B, T, C, N)``, in evaluation; None where it has
                                          none
    ``constrain(params)``                 -> params, as they are to be after each update; None: as they are
    ``rates(params)``                     -> factors of the learning rate, a pytree prefix of params; None: 1
    ``decays(params)``                    -> whether weight decay acts, a pytree prefix of params; None: it does
    ====================================  ============================================================================
    """

    init: Callable[[Key, int], Variables]
    apply: Callable[..., tuple[Array, Any]]
    output_size: int | None = None
    hidden: Callable[[Variables, Array], Array] | None = None
    constrain: Callable[[Params], Params] | None = None
    rates: Callable[[Params], Any] | None = None
    decays: Callable[[Params], Any] | None = None


OF_PARAMS: Mapping[str, Callable[[Params], Any]] = {
    "constrain": lambda params: params,
    "rates": lambda params: 1.0,
    "decays": lambda params: True,
}
"""The functions of a layer's parameters, and what each is where the layer has none."""
