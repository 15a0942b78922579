"""The state of a run in training: all there is of it."""

from typing import Any, NamedTuple

import optax

from wrnn_jax.layers import Variables
from wrnn_jax.typing import Array, Params


class Plateau(NamedTuple):
    """What the evaluations of the watched loss have shown."""

    lowest: Array
    """The lowest of them, float32."""
    stale: Array
    """Evaluations since, int32."""
    waited: Array
    """Evaluations of a plateau schedule since the last improvement or drop, int32; below 0: after a drop, so many that
    do not count are still to come."""
    drops: Array
    """How often the learning rate was divided, int32."""


class Best(NamedTuple):
    """What validation has picked."""

    params: Params
    score: Array
    """What ``Task.scored`` says, float32; −inf before the first evaluation."""
    step: Array
    """int32."""
    stats: Any = ()
    """Of the model, as they were then."""


class TrainState(NamedTuple):
    """All there is of a run: a checkpoint of it continues exactly where it stood.

    Of many runs, the members of a grid, every leaf has one more axis, the first.
    """

    params: Params
    opt_state: optax.OptState
    step: Array
    """Optimiser steps done, int32."""
    level: Array
    """Of the task's curriculum, int32."""
    key: Array
    """Key data, uint32: the batch of a step is drawn from this key and the step."""
    fixed: dict[str, Array]
    """The task's ``source.fixed``, such as a permutation."""
    plateau: Plateau
    best: Best | None
    """None for a task without validation."""
    loss_sum: Array
    """Training losses since the last record, summed."""
    loss_count: Array
    """How many they are, int32."""
    finite: Array
    """False once a loss or an update was not finite; the state is then that before the bad step."""
    stats: Any = ()
    """What the model keeps an account of in training, such as running means."""

    @property
    def variables(self) -> Variables:
        """The arrays of the model."""
        return Variables(self.params, self.stats)


def with_best(state: TrainState) -> TrainState:
    """The state with the parameters that validation has picked, and the statistics that went with them, where there is
    validation."""
    return state if state.best is None else state._replace(params=state.best.params, stats=state.best.stats)
