"""The training loop on the host: between calls of the device it evaluates, records, checkpoints, and heeds signals."""

import sys
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp

from wrnn_jax.tasks.base import Task
from wrnn_jax.training.checkpoint import Checkpoints
from wrnn_jax.training.loop import Trainer, TrainState
from wrnn_jax.training.optimizer import make_hparams
from wrnn_jax.training.recorder import Recorder
from wrnn_jax.training.rundir import RunDirectory
from wrnn_jax.training.signals import received_signals
from wrnn_jax.validation import require_integer, require_nonnegative, require_positive

SOLVED = "solved"
BELOW = "below the loss asked for"
COMPLETE = "complete"
DIVERGED = "diverged"
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class TrainConfig:
    """How to train."""

    lr: float = 1e-3
    """Adam's learning rate."""
    batch: int = 128
    """Sequences in a batch."""
    max_steps: int = 60_000
    """Optimiser steps, if nothing ends the run earlier."""
    grad_clip: float = 1.0
    """Largest global norm of a gradient; 0 = off."""
    seed: int = 0
    """Seed of the parameters' start and of the training data."""
    log_interval: int = 100
    """Steps between two evaluations on the test set, each a row of metrics."""
    checkpoint_interval: int = 500
    """Steps between two checkpoints."""
    stop_below: float | None = None
    """Stop once the test loss is below this. If not given: once the task is solved; 0 = never."""

    def __post_init__(self):
        require_positive("lr", self.lr)
        require_integer("batch", self.batch, at_least=1)
        require_integer("max_steps", self.max_steps, at_least=0)
        require_nonnegative("grad_clip", self.grad_clip)
        require_integer("seed", self.seed, at_least=0)
        require_integer("log_interval", self.log_interval, at_least=1)
        require_integer("checkpoint_interval", self.checkpoint_interval, at_least=1)
        if self.stop_below is not None:
            require_nonnegative("stop_below", self.stop_below)


class Fitted(NamedTuple):
    """What :func:`fit` returns."""

    state: TrainState
    metrics: dict[str, float]
    """On the test set, of the returned state."""
    status: str
    """``SOLVED``, ``BELOW``, ``COMPLETE``, ``DIVERGED`` or ``INTERRUPTED``."""
    signal: int | None
    """The signal that interrupted the run."""
    seconds: float
    """Wall-clock time from start to end, with that of the runs it resumed."""
    steps_per_second: float | None
    """Median over the calls of this process; None if it made no step."""


def fit(trainer: Trainer, task: Task, config: TrainConfig, directory: RunDirectory) -> Fitted:
    """Train until the task is solved, the loss is low enough, the steps are done, a number is not
    finite, or SIGINT or SIGTERM comes; then save a checkpoint.

    Continues from the newest whole checkpoint in ``directory``, if there is one. The state after a
    number of steps is the same to the bit, wherever runs were killed and resumed on the way.

    Raises:
      InvalidValue: if the run directory cannot be written.
      CheckpointError: if a checkpoint cannot be written, or none of those there can be read.
      OSError: if a record cannot be written.
    """
    directory.create()
    hparams = make_hparams(config.lr, config.grad_clip)
    checkpoints = Checkpoints(directory.checkpoints)
    state, saved = _start(trainer, checkpoints, config.seed)
    with received_signals() as received, Recorder(directory, int(state.step), config.max_steps) as recorder:
        state = trainer.advance(state, hparams, int(state.step))  # No step: only compiles.
        status, metrics = _status_at_start(trainer, task, config, state), None
        while status is None:
            step = int(state.step)
            end = min(_next(step, config.log_interval), _next(step, config.checkpoint_interval), config.max_steps)
            state = trainer.advance(state, hparams, min(end, step + recorder.steps_of_next_call()))
            step, metrics = int(state.step), None
            recorder.advanced(step)
            if not state.finite:
                status, state = DIVERGED, state._replace(finite=jnp.bool_(True))
                break
            if step == end and (step % config.log_interval == 0 or step == config.max_steps):
                metrics = evaluate(trainer, state)
                state, train_loss = trainer.drain(state)
                recorder.record({"train_loss": float(train_loss), **metrics})
                status = _end_reached(task, config, step, metrics)
            if step % config.checkpoint_interval == 0:
                checkpoints.save(step, state)
                saved = step
            if status is None and received:
                status = INTERRUPTED
        if saved != int(state.step):
            checkpoints.save(int(state.step), state)
    checkpoints.close()
    signal = received[0] if status == INTERRUPTED else None
    metrics = metrics or evaluate(trainer, state)
    return Fitted(state, metrics, status, signal, recorder.seconds, recorder.steps_per_second)


def _start(trainer: Trainer, checkpoints: Checkpoints, seed: int) -> tuple[TrainState, int | None]:
    """The newest whole checkpoint and its step, or the state before the first step and None."""
    state = trainer.init(seed)
    stored, unreadable = checkpoints.restore(state)
    if stored is None:
        return state, None
    for note in unreadable:
        print(f"{note}: falling back to checkpoint {stored.step}", file=sys.stderr)
    return trainer.place(stored), int(stored.step)


def _status_at_start(trainer: Trainer, task: Task, config: TrainConfig, state: TrainState) -> str | None:
    """The end that the run had met before it was resumed; only where it would have looked for one."""
    step = int(state.step)
    if step >= config.max_steps:
        return COMPLETE
    if step and step % config.log_interval == 0:
        return _end_reached(task, config, step, evaluate(trainer, state))
    return None


def _end_reached(task: Task, config: TrainConfig, step: int, metrics: dict[str, float]) -> str | None:
    if config.stop_below is None and task.solved(metrics):
        return SOLVED
    if config.stop_below is not None and metrics["test_loss"] < config.stop_below:
        return BELOW
    return COMPLETE if step >= config.max_steps else None


def evaluate(trainer: Trainer, state: TrainState) -> dict[str, float]:
    """The task's metrics on the test set."""
    return {name: float(value) for name, value in trainer.evaluate(state.params).items()}


def _next(step: int, interval: int) -> int:
    """The next multiple of ``interval`` after ``step``."""
    return (step // interval + 1) * interval
