"""A grid in one program, against its members one after another."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from experiments import copy
from experiments.bench import report
from experiments.bench.race import Contender, race
from experiments.devices import prepare_jax
from experiments.kernels import shards_of_batch
from experiments.room import require_possible
from experiments.settings import RunConfig
from wrnn_jax.models import configure
from wrnn_jax.tasks import CopyConfig, copy_task
from wrnn_jax.training.config import TrainConfig
from wrnn_jax.training.loop import Trainer, make_trainer
from wrnn_jax.training.members import How
from wrnn_jax.training.optimizer import Hparams
from wrnn_jax.validation import require, require_integer

BATCH = 128


@dataclasses.dataclass(frozen=True)
class GridConfig:
    """G members of a grid of the copy task in one program, beside the same members one after another."""

    T: tuple[int, ...] = (30, 80)
    """Steps between the symbols and their recall."""
    members: tuple[int, ...] = (1, 3, 9, 27)
    """G: how many members."""
    steps: int = 4
    """Optimiser steps of every member in a turn."""
    rounds: int = 5
    """Turns of every contender, after one to warm up."""
    out: Path = Path("runs/bench")
    """Folder for grid.json and grid.md."""

    def __post_init__(self):
        for field, values, least in (("T", self.T, 0), ("members", self.members, 1)):
            require(len(values) > 0, field, "", "one or more numbers")
            for value in values:
                require_integer(field, value, at_least=least)
        require_integer("steps", self.steps, at_least=1)
        require_integer("rounds", self.rounds, at_least=1)


def run(config: GridConfig) -> int:
    rows, found = [], []
    for T in config.T:
        require_possible(copy.Config(CopyConfig(T=T), configure("wrnn"), TrainConfig(), RunConfig()), BATCH)
    for T in config.T:
        for members in config.members:
            work = (T, members, config.steps)
            contenders = [
                Contender("one after another", separately, work),
                Contender("one program", together, (*work, "auto")),
                Contender("one program, vmap", together, (*work, "vmap")),
                Contender("one program, lax.map", together, (*work, "map")),
            ]
            results = race(contenders, config.rounds)
            found += [{"T": T, "members": members, **result._asdict()} for result in results.values()]
            alone = results["one after another"].median
            for result in results.values():
                ratio = f"{result.median / alone:.2f}"
                rows.append([str(T), str(members), result.name, report.spread(result), ratio, f"{result.first:.1f} s"])
    header = ["T", "members", "how", f"{config.steps} steps each: median (range)", "of one after another", "first turn"]
    report.write(config.out, "grid", {"grid": found}, report.table(header, rows))
    return 0


def _trainer(T: int, members: int | None, how: How = "auto") -> Trainer:
    """As an experiment makes it; of a single run where ``members`` is None."""
    prepare_jax()
    task = copy_task(CopyConfig(T=T))
    config = configure("wrnn").on_this_machine(task.signature, BATCH)
    model, shards = config.build(task.signature), shards_of_batch(config.backend, BATCH, members or 1, how)
    return make_trainer(model, task, BATCH, members=members, how=how, shards=shards)


def _hparams(members: int) -> Hparams:
    return Hparams(np.geomspace(1e-4, 1e-3, members, dtype=np.float32), np.full(members, 1.0, np.float32))


def separately(T: int, members: int, steps: int) -> Callable[[], float]:
    """A turn is ``steps`` optimiser steps of every member, each by the same compiled loop."""
    trainer, hparams = _trainer(T, None), _hparams(members)
    states = [trainer.init(seed) for seed in range(members)]

    def turn() -> float:
        for m, state in enumerate(states):
            of_member = jax.tree.map(lambda leaf, m=m: leaf[m], hparams)
            states[m] = jax.block_until_ready(trainer.advance(state, of_member, int(state.step) + steps))
        return sum(float(state.loss_sum) for state in states)

    return turn


def together(T: int, members: int, steps: int, how: How) -> Callable[[], float]:
    """A turn is ``steps`` optimiser steps of all members, in one program."""
    trainer = _trainer(T, members, how)
    # Slots without a member are not asked for a step.
    slots = np.arange(trainer.mesh.shape["grid"] * math.ceil(members / trainer.mesh.shape["grid"]))
    hparams = jax.tree.map(lambda leaf: np.resize(leaf, len(slots)), _hparams(members))
    states = trainer.init(slots)

    def turn() -> float:
        nonlocal states
        until = np.where(slots < members, np.asarray(states.step) + steps, 0)
        states = jax.block_until_ready(trainer.advance(states, hparams, until))
        return float(states.loss_sum.sum())

    return turn
