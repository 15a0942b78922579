"""The training loop on the device: many optimiser steps in one call, of one run or of all members of a grid, on data
made or gathered there."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wrnn_jax.layers import Training, Variables
from wrnn_jax.models import Model
from wrnn_jax.tasks.base import Progress, Source, Task
from wrnn_jax.training.members import How, members_mesh, over_members, resolved
from wrnn_jax.training.optimizer import COOLDOWN, PLATEAUS, SCHEDULES, Hparams, make_optimizer
from wrnn_jax.training.state import Best, Plateau, TrainState
from wrnn_jax.typing import Array, Params
from wrnn_jax.validation import LARGEST_INTEGER, require, require_choice

SLICE = 128
"""The most sequences that are evaluated at once on a device."""
IMPROVEMENT = 1e-4
"""The relative fall of the watched loss, or rise of the score, that counts as one."""
TRAINING_KEY = LARGEST_INTEGER + 1
"""A run's key folded with this is that of its model's training steps; folded with a step, of that step's batch."""


class Trainer(NamedTuple):
    """A model's training on a task as compiled functions of a state that lies on the trainer's devices.

    =========================================  ========================================================
    ``init(seed)``                             -> state before the first step
    ``place(state)``                           -> a copy of a state from elsewhere, as of a checkpoint
    ``advance(state, hparams, until)``         -> state after step ``until``, or after the last finite
                                                  one; the state given is donated
    ``drain(state, due)``                      -> (state, mean training loss since the last such call);
                                                  the state given is donated
    ``evaluate(state, split, due)``            -> metrics of its parameters on that split of the task
    ``observe(state, hparams, metrics, due)``  -> state that has seen such metrics of ``task.watched``:
                                                  the best parameters are kept, a plateau is counted
    =========================================  ========================================================

    The trainer of a grid takes and gives all of these for every member, with one more axis, the first: seeds, states,
    hyper-parameters, ``until``, losses, metrics. Members that are not ``due``, where that is given, are passed over:
    their metrics are 0, their state stays as it is.
    """

    init: Callable[[Any], TrainState]
    place: Callable[[TrainState], TrainState]
    advance: Callable[[TrainState, Hparams, Any], TrainState]
    drain: Callable[..., tuple[TrainState, Array]]
    evaluate: Callable[..., dict[str, Array]]
    observe: Callable[..., TrainState]
    mesh: Mesh
    """Axes ``"grid"``, which divides the number of members, and ``"batch"``."""
    how: Literal["vmap", "map"]
    """Members at once, or one after another."""


def make_trainer(
    model: Model,
    task: Task,
    batch_size: int,
    devices: Sequence[jax.Device] | None = None,
    schedule: str = "constant",
    members: int | None = None,
    how: How = "auto",
    shards: int | None = None,
    decay: str = "l2",
) -> Trainer:
    """The trainer of ``model`` on ``task`` with Adam, or AdamW.

    Args:
      model: its pure functions.
      task: the data, loss and metrics.
      batch_size: sequences in a batch.
      devices: those to use, all of this process by default, arranged by
        :func:`wrnn_jax.training.members.members_mesh`. One run's batch is spread evenly over as many of them as
        divide it.
      schedule: the learning rate's, a key of :data:`wrnn_jax.training.optimizer.SCHEDULES`.
      members: how many a grid has, for a trainer of them all; states are padded to a multiple of
        ``trainer.mesh.shape["grid"]``.
      how: members at once or one after another, see :func:`wrnn_jax.training.members.over_members`.
      shards: over how many devices a batch is split; if not given, as many as :func:`members_mesh` finds best.
      decay: the kind of weight decay, of :data:`wrnn_jax.training.optimizer.DECAYS`.

    Raises:
      ValueError: for a batch larger than an epoch, an unknown schedule, or one that watches the score of a task that
        has none.
    """
    require_choice("schedule", schedule, SCHEDULES)
    watches = schedule == "plateau-accuracy"
    require(task.score or not watches, "schedule", schedule, "another one: the task has no score to watch")
    task.epoch_steps(batch_size)  # Raises if the batch is larger than an epoch.
    mesh = members_mesh(jax.local_devices() if devices is None else devices, members or 1, batch_size, how, shards)
    each = _Member(model, task, batch_size, schedule, mesh.shape["batch"], decay)
    replicated = PartitionSpec()
    spec = replicated if members is None else PartitionSpec("grid")
    # Every state comes with the same sharding: one of another would compile the whole loop anew.
    placed = NamedSharding(mesh, spec)
    # An argument of every program below: as a constant, a set of images would be compiled into each.
    data = jax.device_put(task.source.data, NamedSharding(mesh, replicated))

    def spread(function: Callable[..., Any], how: How = "vmap") -> Callable[..., Any]:
        """``function(data, *member)`` on every device, of each member that is there."""

        def on_device(data: Any, *member: Any) -> Any:
            of_one = partial(function, data)
            return of_one(*member) if members is None else over_members(of_one, how)(*member)

        def everywhere(data: Any, *member: Any) -> Any:
            specs = (replicated, *[spec] * len(member))
            return jax.shard_map(on_device, mesh=mesh, in_specs=specs, out_specs=spec, check_vma=False)(data, *member)

        return everywhere

    def compiled(function: Callable[..., Any], how: How = "vmap", **options: Any) -> Callable[..., Any]:
        return partial(jax.jit(spread(function, how), out_shardings=placed, **options), data)

    def everyone(state: TrainState, due: Array | None) -> Array:
        return jnp.ones(state.step.shape, bool) if due is None else due

    def evaluate(data: Any, state: TrainState, split: str, due: Array | None = None) -> dict[str, Array]:
        return spread(partial(each.evaluate, split), how)(data, state, everyone(state, due))

    def observe(
        data: Any, state: TrainState, hparams: Hparams, metrics: dict[str, Array], due: Array | None = None
    ) -> TrainState:
        return spread(each.observe)(data, state, hparams, metrics, everyone(state, due))

    def drain(data: Any, state: TrainState, due: Array | None = None) -> tuple[TrainState, Array]:
        return spread(each.drain)(data, state, everyone(state, due))

    return Trainer(
        init=compiled(each.init, how),
        place=jax.jit(partial(jax.tree.map, jnp.copy), out_shardings=placed),
        advance=compiled(each.advance, how, donate_argnums=1),
        drain=partial(jax.jit(drain, donate_argnums=1, out_shardings=placed), data),
        evaluate=partial(jax.jit(evaluate, static_argnums=2), data),
        observe=partial(jax.jit(observe, out_shardings=placed), data),
        mesh=mesh,
        how=resolved(how),
    )


class _Member(NamedTuple):
    """One run as pure functions, on one of the ``shards`` devices that share its batch: between them they are joined
    by the axis ``"batch"``."""

    model: Model
    task: Task
    batch_size: int
    schedule: str
    shards: int
    decay: str

    def init(self, data: Any, seed: Array) -> TrainState:
        params_key, data_key = jax.random.split(jax.random.key(seed))
        params, stats = self.model.init(params_key)
        # The hyper-parameters only scale updates: the optimiser's first state does not depend on them.
        opt_state = make_optimizer(Hparams(0.0, 0.0)).init(params)
        # The best parameters are buffers of their own: donated, the others may not be given twice.
        first = Best(params, jnp.float32(-jnp.inf), jnp.int32(0), stats)
        best = jax.tree.map(jnp.copy, first) if self.task.score else None
        return TrainState(
            params,
            opt_state,
            step=jnp.int32(0),
            level=jnp.int32(0),
            key=jax.random.key_data(data_key),
            fixed={name: jnp.asarray(array) for name, array in self.task.source.fixed.items()},
            plateau=Plateau(jnp.float32(jnp.inf), jnp.int32(0), jnp.int32(0), jnp.int32(0)),
            best=best,
            loss_sum=jnp.float32(0),
            loss_count=jnp.int32(0),
            finite=jnp.bool_(True),
            stats=stats,
        )

    def step(self, data: Any, hparams: Hparams, state: TrainState) -> TrainState:
        key = jax.random.wrap_key_data(state.key)
        source, progress = Source(data, state.fixed), Progress(state.step, state.level)
        inputs, targets = jax.tree.map(self._share, self.task.batch(source, key, progress, self.batch_size))
        curriculum = self.task.curriculum
        training_key = jax.random.fold_in(jax.random.fold_in(key, TRAINING_KEY), state.step)
        training = Training(training_key, "batch" if self.shards > 1 else None)

        def loss_and_more(params: Params) -> tuple[Array, tuple[Array | None, Any]]:
            outputs, stats = self.model.apply(Variables(params, state.stats), inputs, training)
            return self.task.loss(outputs, targets), (curriculum and curriculum.mastery(outputs, targets), stats)

        (loss, (mastery, stats)), gradient = self._mean(jax.value_and_grad(loss_and_more, has_aux=True)(state.params))
        optimizer = self._optimizer(hparams, state)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if self.model.constrain:
            params = self.model.constrain(params)
        finite = jnp.isfinite(loss) & _all_finite((params, stats))
        after = state._replace(
            params=params,
            opt_state=opt_state,
            step=state.step + 1,
            level=curriculum.level_after(state.level, mastery) if curriculum else state.level,
            loss_sum=state.loss_sum + loss.astype(jnp.float32),
            loss_count=state.loss_count + 1,
            stats=stats,
        )
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)
        return kept._replace(finite=finite)

    def advance(self, data: Any, state: TrainState, hparams: Hparams, until: Array) -> TrainState:
        # What no step changes stays outside the loop, which would else choose between old and new at every step.
        still = {"fixed": state.fixed, "best": state.best}
        return lax.while_loop(
            lambda state: (state.step < until) & state.finite,
            lambda state: self.step(data, hparams, state._replace(**still))._replace(fixed=None, best=None),
            state._replace(fixed=None, best=None),
        )._replace(**still)

    def drain(self, data: Any, state: TrainState, due: Array) -> tuple[TrainState, Array]:
        loss_sum, loss_count = (jnp.where(due, 0, leaf) for leaf in (state.loss_sum, state.loss_count))
        return state._replace(loss_sum=loss_sum, loss_count=loss_count), state.loss_sum / state.loss_count

    def evaluate(self, split: str, data: Any, state: TrainState, due: Array) -> dict[str, Array]:
        size, examples, metrics = self.task.splits[split]
        slice_size = min(SLICE, math.ceil(size / self.shards))
        slices = math.ceil(size / (self.shards * slice_size))

        def of_slice(number: Array) -> dict[str, Array]:
            indices = number * slice_size + jnp.arange(slice_size)
            inputs, targets = examples(Source(data, state.fixed), jnp.minimum(indices, size - 1))
            values = metrics(self.model.apply(state.variables, inputs)[0], targets)
            return jax.tree.map(lambda value: jnp.where(indices < size, value, 0.0).sum(), values)

        def mean() -> dict[str, Array]:
            totals = lax.map(of_slice, self._share(jnp.arange(self.shards * slices)))
            return jax.tree.map(lambda total: lax.psum(total.sum(), "batch") / size, totals)

        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(mean))
        return lax.cond(due, mean, lambda: nothing)

    def observe(self, data: Any, state: TrainState, hparams: Hparams, metrics: Any, due: Array) -> TrainState:
        best, loss = state.best, metrics[self.task.monitor]
        lowered = loss < state.plateau.lowest * (1 - IMPROVEMENT)
        improved = lowered
        if self.schedule == "plateau-accuracy":
            improved = self.task.scored(metrics) > best.score * (1 + IMPROVEMENT)
        plateau = state.plateau._replace(
            lowest=jnp.where(lowered, loss, state.plateau.lowest), stale=jnp.where(lowered, 0, state.plateau.stale + 1)
        )
        if self.schedule in PLATEAUS:
            plateau = self._wait(plateau, improved, hparams.lr_period)
        if best is not None:
            score = self.task.scored(metrics)
            better = score > best.score
            now = Best(state.params, score, state.step, state.stats)
            best = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, best)
        seen = {"plateau": plateau, "best": best}
        before = {"plateau": state.plateau, "best": state.best}
        return state._replace(**jax.tree.map(lambda new, old: jnp.where(due, new.astype(old.dtype), old), seen, before))

    def _wait(self, plateau: Plateau, improved: Array, patience: Array) -> Plateau:
        """After one more evaluation: a drop once so many in a row were no improvement, see ``SCHEDULES``."""
        # Below 0 while it cools down: a field of its own would be one that older checkpoints do not have.
        waited = jnp.where(improved & (plateau.waited >= 0), 0, plateau.waited + 1)
        drop = waited > patience if self.schedule == "plateau-accuracy" else waited >= patience
        waited = jnp.where(drop, -COOLDOWN.get(self.schedule, 0), waited)
        return plateau._replace(waited=waited, drops=plateau.drops + drop)

    def _optimizer(self, hparams: Hparams, state: TrainState) -> optax.GradientTransformation:
        of_params = {name: getattr(self.model, name) for name in ("rates", "decays")}
        by_leaf = {name: of and of(state.params) for name, of in of_params.items()}
        return make_optimizer(hparams, self.schedule, state.plateau.drops, decay=self.decay, **by_leaf)

    def _share(self, batch: Array) -> Array:
        """This device's, of what is in order of the batch."""
        share = len(batch) // self.shards
        return lax.dynamic_slice_in_dim(batch, lax.axis_index("batch") * share, share)

    def _mean(self, tree: Any) -> Any:
        """Over the devices that share the batch."""

        def mean(leaf: Array) -> Array:
            # What is counted is the same on all of them.
            return lax.pmean(leaf, "batch") if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf

        return jax.tree.map(mean, tree) if self.shards > 1 else tree


def _all_finite(tree: Any) -> Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
