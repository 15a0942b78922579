"""What a run costs besides its optimiser steps, on workload A: the copy task at T = 480."""

import importlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax

from experiments import copy
from experiments.bench import jax_step, report
from experiments.bench.race import Contender, race
from experiments.bench.workloads import WORKLOADS
from experiments.devices import prepare_jax
from experiments.room import require_possible
from experiments.settings import RunConfig
from wrnn_jax.models import ModelConfig, configure
from wrnn_jax.tasks import CopyConfig, Task, copy_task
from wrnn_jax.training.config import TrainConfig
from wrnn_jax.training.fit import fit
from wrnn_jax.training.loop import Trainer, make_trainer
from wrnn_jax.training.optimizer import make_hparams
from wrnn_jax.training.rundir import RunDirectory
from wrnn_jax.validation import require_integer


@dataclass(frozen=True)
class LoopConfig:
    """What the loop round the optimiser steps costs, and how soon after its launch a run makes its first step."""

    T: int = 480
    """Steps between the symbols and their recall."""
    steps: int = 10
    """Optimiser steps in a chunk."""
    run_steps: int = 200
    """Optimiser steps of the whole run, with an evaluation and a checkpoint every 100."""
    rounds: int = 7
    """Turns of every contender, after one to warm up."""
    out: Path = Path("runs/bench")
    """Folder for loop.json and loop.md."""

    def __post_init__(self):
        require_integer("T", self.T, at_least=0)
        require_integer("steps", self.steps, at_least=1)
        require_integer("run_steps", self.run_steps, at_least=1)
        require_integer("rounds", self.rounds, at_least=1)


def run(config: LoopConfig) -> int:
    asked = copy.Config(CopyConfig(config.T), configure("wrnn"), TrainConfig(), RunConfig())
    require_possible(asked, asked.train.batch)
    pair = [
        Contender("bare steps", bare_steps, (config.T, config.steps), alike=False),
        Contender("chunk", chunk, (config.T, config.steps), alike=False),
    ]
    results = race(pair, config.rounds)
    over = results["chunk"].median / results["bare steps"].median - 1
    with tempfile.TemporaryDirectory() as cache:
        # The second finds what the first compiled.
        first = [race([Contender("first step", chunk, (config.T, 1, cache))], 0)["first step"].first for _ in range(2)]
    whole, stepping, importing = _run_at(config.T, config.run_steps)
    rows = [
        [f"{config.steps} optimiser steps, one a call", report.spread(results["bare steps"])],
        ["as a chunk: data, check for finite numbers and loop on the device", report.spread(results["chunk"])],
        ["a chunk's cost over its bare steps", f"{over:+.1%}"],
        [f"a run of {config.run_steps} steps, evaluated and saved every 100", report.seconds(whole)],
        ["of it logging, evaluation, checkpoints", f"{1 - stepping / whole:.1%}"],
        ["besides, once a run: what the first record imports", report.seconds(importing)],
        ["launch to the end of the first step, nothing compiled before", report.seconds(first[0])],
        ["the same with a warm compilation cache", report.seconds(first[1])],
    ]
    found = {
        "T": config.T,
        **{name: result._asdict() for name, result in results.items()},
        "run": {"steps": config.run_steps, "seconds": whole, "seconds_in_steps": stepping, "importing": importing},
        "first_step_cold": first[0],
        "first_step_warm": first[1],
    }
    report.write(config.out, "loop", found, report.table([f"copy, T = {config.T}", "median (range)"], rows))
    return 0


def bare_steps(T: int, steps: int) -> Callable[[], float]:
    """A turn is ``steps`` optimiser steps on a batch that lies ready, each a call."""
    step = jax_step.unrolled(WORKLOADS["A"].of_steps(T + 20), "auto")
    return lambda: [step() for _ in range(steps)][-1]


def chunk(T: int, steps: int, cache: str | None = None) -> Callable[[], float]:
    """A turn is a call of the trainer for ``steps`` optimiser steps."""
    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", cache)
    prepare_jax()
    _, _, trainer = _parts(T)
    hparams = make_hparams(1e-3, 1.0)
    state = trainer.init(0)

    def turn() -> float:
        nonlocal state
        state = trainer.advance(state, hparams, int(state.step) + steps)
        return float(state.loss_sum)

    return turn


def _parts(T: int) -> tuple[ModelConfig, Task, Trainer]:
    task = copy_task(CopyConfig(T=T))
    batch = TrainConfig().batch
    config = configure("wrnn").on_this_machine(task.signature, batch)
    return config, task, make_trainer(config.build(task.signature), task, batch)


def _run_at(T: int, steps: int) -> tuple[float, float, float]:
    """Seconds of a run as ``experiments.copy`` makes it, of these the seconds in optimiser steps; and, besides, seconds
    of imports at its first record."""
    model, task, trainer = _parts(T)
    train = TrainConfig(max_steps=steps, log_interval=100, checkpoint_interval=100, stop_below=0.0)
    stepping = 0.0
    started = time.perf_counter()
    importlib.import_module("wrnn_jax.training.tensorboard")
    importing = time.perf_counter() - started
    # What is compiled once a run is the start-up's cost, measured by itself.
    state = trainer.advance(trainer.init(0), make_hparams(train.lr, train.grad_clip), 0)
    jax.block_until_ready((trainer.evaluate(state, task.watched), trainer.drain(state)))

    def advance(*arguments):
        nonlocal stepping
        started = time.perf_counter()
        state = jax.block_until_ready(trainer.advance(*arguments))
        stepping += time.perf_counter() - started
        return state

    with tempfile.TemporaryDirectory() as folder:
        config = copy.Config(CopyConfig(T=T), model, train, RunConfig(logdir=folder))
        directory = RunDirectory(Path(folder) / "run", "copy", config, False)
        started = time.perf_counter()
        fit(trainer._replace(advance=advance), task, train, directory)
        return time.perf_counter() - started, stepping, importing
