"""The training loop on the device: many optimiser steps in one call, on data made there."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wrnn_jax.models import Model
from wrnn_jax.tasks.base import Task
from wrnn_jax.training.optimizer import Hparams, make_optimizer
from wrnn_jax.typing import Array, Key, Params

TEST_SLICES = 8
TEST_SLICE_SIZE = 128
"""The test set: as many slices of as many sequences, the same for every seed."""


class TrainState(NamedTuple):
    """All there is of a run: a checkpoint of it continues exactly where it stood."""

    params: Params
    opt_state: optax.OptState
    step: Array
    """Optimiser steps done, int32."""
    key: Array
    """Key data, uint32: the batch of a step is drawn from this key folded with the step."""
    loss_sum: Array
    """Training losses since the last record, summed."""
    loss_count: Array
    """How many they are, int32."""
    finite: Array
    """False once a loss or an update was not finite; the state is then that before the bad step."""


class Trainer(NamedTuple):
    """A model's training on a task as compiled functions of a state that lies on the trainer's devices.

    ==================================  =======================================================
    ``init(seed)``                      -> state before the first step
    ``place(state)``                    -> a copy of a state from elsewhere, as of a checkpoint
    ``advance(state, hparams, until)``  -> state after step ``until``, or after the last finite
                                        one; the state given is donated
    ``drain(state)``                    -> (state, mean training loss since the last such call);
                                        the state given is donated
    ``evaluate(params)``                -> metrics on the fixed test set of 1,024 sequences
    ==================================  =======================================================
    """

    init: Callable[[int], TrainState]
    place: Callable[[TrainState], TrainState]
    advance: Callable[[TrainState, Hparams, int], TrainState]
    drain: Callable[[TrainState], tuple[TrainState, Array]]
    evaluate: Callable[[Params], dict[str, Array]]


def make_trainer(model: Model, task: Task, batch_size: int, devices: Sequence[jax.Device] | None = None) -> Trainer:
    """The trainer of ``model`` on ``task`` with Adam, one batch spread evenly over the devices.

    Args:
      model: the two pure functions.
      task: the data, loss and metrics.
      batch_size: sequences in a batch.
      devices: those to use, all by default; of them as many as divide the batch evenly take part.
    """
    mesh = Mesh(batch_devices(jax.devices() if devices is None else devices, batch_size), ("batch",))
    replicated, split = PartitionSpec(), PartitionSpec(mesh.axis_names[0])

    def init(seed: int) -> TrainState:
        params_key, data_key = jax.random.split(jax.random.key(seed))
        params = model.init(params_key)
        # The hyper-parameters only scale updates: the optimiser's first state does not depend on them.
        opt_state = make_optimizer(Hparams(0.0, 0.0)).init(params)
        return TrainState(
            params,
            opt_state,
            step=jnp.int32(0),
            key=jax.random.key_data(data_key),
            loss_sum=jnp.float32(0),
            loss_count=jnp.int32(0),
            finite=jnp.bool_(True),
        )

    def loss_and_gradient(params: Params, inputs: Array, targets: Array) -> tuple[Array, Params]:
        """On this device's share of the batch, then the mean over devices."""
        loss, gradient = jax.value_and_grad(lambda params: task.loss(model.apply(params, inputs), targets))(params)
        return lax.pmean((loss, gradient), mesh.axis_names)

    spread_loss_and_gradient = jax.shard_map(
        loss_and_gradient, mesh=mesh, in_specs=(replicated, split, split), out_specs=replicated, check_vma=False
    )

    def step(state: TrainState, hparams: Hparams) -> TrainState:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        loss, gradient = spread_loss_and_gradient(state.params, *task.batch(key, batch_size))
        updates, opt_state = make_optimizer(hparams).update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        finite = jnp.isfinite(loss) & _all_finite(params)
        after = TrainState(
            params, opt_state, state.step + 1, state.key, state.loss_sum + loss, state.loss_count + 1, finite
        )
        return jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state._replace(finite=finite))

    def advance(state: TrainState, hparams: Hparams, until: Array) -> TrainState:
        return lax.while_loop(
            lambda state: (state.step < until) & state.finite, lambda state: step(state, hparams), state
        )

    def evaluate_slices(params: Params, keys: Array) -> dict[str, Array]:
        def evaluate_slice(key: Key) -> dict[str, Array]:
            inputs, targets = task.batch(key, TEST_SLICE_SIZE)
            return task.metrics(model.apply(params, inputs), targets)

        return lax.pmean(jax.tree.map(jnp.mean, lax.map(evaluate_slice, keys)), mesh.axis_names)

    # Where the slices do not divide evenly, each device evaluates them all.
    keys_split = split if TEST_SLICES % mesh.size == 0 else replicated
    evaluate_keys = jax.shard_map(
        evaluate_slices, mesh=mesh, in_specs=(replicated, keys_split), out_specs=replicated, check_vma=False
    )

    def evaluate(params: Params) -> dict[str, Array]:
        # A key that no seed's training data is drawn from: it is a child of key 0, theirs are grandchildren.
        return evaluate_keys(params, jax.random.split(jax.random.fold_in(jax.random.key(0), 1), TEST_SLICES))

    def place(state: TrainState) -> TrainState:
        return jax.tree.map(jnp.copy, state)

    def drain(state: TrainState) -> tuple[TrainState, Array]:
        emptied = state._replace(loss_sum=jnp.zeros_like(state.loss_sum), loss_count=jnp.zeros_like(state.loss_count))
        return emptied, state.loss_sum / state.loss_count

    # Every state comes with the same sharding: one of another would compile the whole loop anew.
    placed = NamedSharding(mesh, replicated)
    return Trainer(
        jax.jit(init, out_shardings=placed),
        jax.jit(place, out_shardings=placed),
        jax.jit(advance, donate_argnums=0, out_shardings=placed),
        jax.jit(drain, donate_argnums=0, out_shardings=placed),
        jax.jit(evaluate),
    )


def batch_devices(devices: Sequence[jax.Device], batch_size: int) -> list[jax.Device]:
    """As many of the devices as divide the batch evenly."""
    count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    return list(devices[:count])


def _all_finite(tree: Params) -> Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
