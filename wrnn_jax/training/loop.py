"""The training loop on the device: many optimiser steps in one call, on data made or gathered there."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wrnn_jax.models import Model
from wrnn_jax.tasks.base import Source, Task
from wrnn_jax.training.optimizer import SCHEDULES, Hparams, make_optimizer
from wrnn_jax.typing import Array, Params
from wrnn_jax.validation import require, require_choice

SLICE = 128
"""The most sequences that are evaluated at once on a device."""
IMPROVEMENT = 1e-4
"""The relative fall of the watched loss that the plateau schedule counts as one."""


class Plateau(NamedTuple):
    """What the plateau schedule has seen."""

    lowest: Array
    """The lowest watched loss, float32."""
    waited: Array
    """Evaluations since, int32."""
    drops: Array
    """How often the learning rate was divided, int32."""


class Best(NamedTuple):
    """What validation has picked."""

    params: Params
    score: Array
    """float32, −inf before the first evaluation."""
    step: Array
    """int32."""


class TrainState(NamedTuple):
    """All there is of a run: a checkpoint of it continues exactly where it stood."""

    params: Params
    opt_state: optax.OptState
    step: Array
    """Optimiser steps done, int32."""
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


class Trainer(NamedTuple):
    """A model's training on a task as compiled functions of a state that lies on the trainer's devices.

    ====================================  =======================================================
    ``init(seed)``                        -> state before the first step
    ``place(state)``                      -> a copy of a state from elsewhere, as of a checkpoint
    ``advance(state, hparams, until)``    -> state after step ``until``, or after the last finite
                                          one; the state given is donated
    ``drain(state)``                      -> (state, mean training loss since the last such call);
                                          the state given is donated
    ``evaluate(state, split)``            -> metrics of its parameters on that split of the task
    ``observe(state, hparams, metrics)``  -> state that has seen such metrics of ``task.watched``:
                                          the best parameters are kept, a plateau is counted
    ====================================  =======================================================
    """

    init: Callable[[int], TrainState]
    place: Callable[[TrainState], TrainState]
    advance: Callable[[TrainState, Hparams, int], TrainState]
    drain: Callable[[TrainState], tuple[TrainState, Array]]
    evaluate: Callable[[TrainState, str], dict[str, Array]]
    observe: Callable[[TrainState, Hparams, dict[str, Array]], TrainState]


def make_trainer(
    model: Model,
    task: Task,
    batch_size: int,
    devices: Sequence[jax.Device] | None = None,
    schedule: str = "constant",
) -> Trainer:
    """The trainer of ``model`` on ``task`` with Adam, one batch spread evenly over the devices.

    Args:
      model: the two pure functions.
      task: the data, loss and metrics.
      batch_size: sequences in a batch.
      devices: those to use, all by default; of them as many as divide the batch evenly take part.
      schedule: the learning rate's, a key of :data:`wrnn_jax.training.optimizer.SCHEDULES`.

    Raises:
      ValueError: for a batch larger than an epoch, or an unknown schedule.
    """
    require_choice("schedule", schedule, SCHEDULES)
    require(task.epoch_steps(batch_size) != 0, "batch", batch_size, f"at most {task.train_size}, the training set")
    mesh = Mesh(batch_devices(jax.devices() if devices is None else devices, batch_size), ("batch",))
    replicated, split_up = PartitionSpec(), PartitionSpec(mesh.axis_names[0])
    # Every state comes with the same sharding: one of another would compile the whole loop anew.
    placed = NamedSharding(mesh, replicated)
    # An argument of every program below: as a constant, a set of images would be compiled into each.
    data = jax.device_put(task.source.data, placed)

    def init(seed: int) -> TrainState:
        params_key, data_key = jax.random.split(jax.random.key(seed))
        params = model.init(params_key)
        # The hyper-parameters only scale updates: the optimiser's first state does not depend on them.
        opt_state = make_optimizer(Hparams(0.0, 0.0)).init(params)
        # The best parameters are buffers of their own: donated, the others may not be given twice.
        best = Best(jax.tree.map(jnp.copy, params), jnp.float32(-jnp.inf), jnp.int32(0)) if task.score else None
        return TrainState(
            params,
            opt_state,
            step=jnp.int32(0),
            key=jax.random.key_data(data_key),
            fixed={name: jnp.asarray(array) for name, array in task.source.fixed.items()},
            plateau=Plateau(jnp.float32(jnp.inf), jnp.int32(0), jnp.int32(0)),
            best=best,
            loss_sum=jnp.float32(0),
            loss_count=jnp.int32(0),
            finite=jnp.bool_(True),
        )

    def loss_and_gradient(params: Params, inputs: Array, targets: Array) -> tuple[Array, Params]:
        """On this device's share of the batch, then the mean over devices."""
        loss, gradient = jax.value_and_grad(lambda params: task.loss(model.apply(params, inputs), targets))(params)
        return lax.pmean((loss, gradient), mesh.axis_names)

    spread_loss_and_gradient = jax.shard_map(
        loss_and_gradient, mesh=mesh, in_specs=(replicated, split_up, split_up), out_specs=replicated, check_vma=False
    )

    def step(data: Any, hparams: Hparams, state: TrainState) -> TrainState:
        key = jax.random.wrap_key_data(state.key)
        batch = task.batch(Source(data, state.fixed), key, state.step, batch_size)
        loss, gradient = spread_loss_and_gradient(state.params, *batch)
        optimizer = make_optimizer(hparams, schedule, state.plateau.drops)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        finite = jnp.isfinite(loss) & _all_finite(params)
        after = state._replace(
            params=params,
            opt_state=opt_state,
            step=state.step + 1,
            loss_sum=state.loss_sum + loss,
            loss_count=state.loss_count + 1,
        )
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)
        return kept._replace(finite=finite)

    def advance(data: Any, state: TrainState, hparams: Hparams, until: Array) -> TrainState:
        # What no step changes stays outside the loop, which would else choose between old and new at every step.
        still = {"fixed": state.fixed, "best": state.best}
        return lax.while_loop(
            lambda state: (state.step < until) & state.finite,
            lambda state: step(data, hparams, state._replace(**still))._replace(fixed=None, best=None),
            state._replace(fixed=None, best=None),
        )._replace(**still)

    def evaluate(data: Any, state: TrainState, name: str) -> dict[str, Array]:
        split = task.splits[name]
        slice_size = min(SLICE, math.ceil(split.size / mesh.size))
        slices = mesh.size * math.ceil(split.size / (mesh.size * slice_size))

        def total(params: Params, source: Source, indices: Array) -> dict[str, Array]:
            def of_slice(indices: Array) -> dict[str, Array]:
                inputs, targets = split.examples(source, jnp.minimum(indices, split.size - 1))
                values = split.metrics(model.apply(params, inputs), targets)
                return jax.tree.map(lambda value: jnp.where(indices < split.size, value, 0.0).sum(), values)

            return lax.psum(jax.tree.map(jnp.sum, lax.map(of_slice, indices)), mesh.axis_names)

        spread_total = jax.shard_map(
            total, mesh=mesh, in_specs=(replicated, replicated, split_up), out_specs=replicated, check_vma=False
        )
        indices = jnp.arange(slices * slice_size).reshape(slices, slice_size)
        totals = spread_total(state.params, Source(data, state.fixed), indices)
        return jax.tree.map(lambda total: total / split.size, totals)

    def observe(state: TrainState, hparams: Hparams, metrics: dict[str, Array]) -> TrainState:
        plateau, best = state.plateau, state.best
        if schedule == "plateau":
            plateau = _wait(plateau, metrics[task.monitor], hparams.lr_period)
        if best is not None:
            better = metrics[task.score] > best.score
            now = Best(state.params, metrics[task.score], state.step)
            best = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, best)
        return state._replace(plateau=plateau, best=best)

    def place(state: TrainState) -> TrainState:
        return jax.tree.map(jnp.copy, state)

    def drain(state: TrainState) -> tuple[TrainState, Array]:
        emptied = state._replace(loss_sum=jnp.zeros_like(state.loss_sum), loss_count=jnp.zeros_like(state.loss_count))
        return emptied, state.loss_sum / state.loss_count

    return Trainer(
        jax.jit(init, out_shardings=placed),
        jax.jit(place, out_shardings=placed),
        partial(jax.jit(advance, donate_argnums=1, out_shardings=placed), data),
        jax.jit(drain, donate_argnums=0, out_shardings=placed),
        partial(jax.jit(evaluate, static_argnums=2), data),
        jax.jit(observe, out_shardings=placed),
    )


def with_best(state: TrainState) -> TrainState:
    """The state with the parameters that validation has picked, where there is validation."""
    return state if state.best is None else state._replace(params=state.best.params)


def batch_devices(devices: Sequence[jax.Device], batch_size: int) -> list[jax.Device]:
    """As many of the devices as divide the batch evenly."""
    count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    return list(devices[:count])


def _wait(plateau: Plateau, loss: Array, patience: Array) -> Plateau:
    """After one more evaluation: a drop once ``patience`` of them in a row were not lower by a share of 1e-4."""
    improved = loss < plateau.lowest * (1 - IMPROVEMENT)
    waited = jnp.where(improved, 0, plateau.waited + 1)
    drop = waited >= patience
    return Plateau(
        lowest=jnp.where(improved, loss, plateau.lowest),
        waited=jnp.where(drop, 0, waited),
        drops=plateau.drops + drop,
    )


def _all_finite(tree: Params) -> Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
