"""The training loop on the host: between calls of the device it evaluates, records, checkpoints, and heeds signals."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp

from wrnn_jax import console
from wrnn_jax.tasks.base import Task
from wrnn_jax.training.checkpoint import Checkpoints
from wrnn_jax.training.config import TrainConfig
from wrnn_jax.training.loop import Trainer
from wrnn_jax.training.optimizer import Hparams
from wrnn_jax.training.recorder import Pace, Recorder, shown
from wrnn_jax.training.rundir import RunDirectory
from wrnn_jax.training.signals import received_signals
from wrnn_jax.training.state import TrainState, with_best
from wrnn_jax.training.stored import BELOW, COMPLETE, DIVERGED, INTERRUPTED, SOLVED, STALLED
from wrnn_jax.typing import Array


class Fitted(NamedTuple):
    """What :func:`fit` returns."""

    state: TrainState
    """After the last step, with the parameters that the metrics are of."""
    best_step: int
    """The step that those parameters are from: the last one, or the one that validation has picked."""
    metrics: dict[str, float]
    """On every split of the task."""
    solved_step: int | None
    """The step of the first record that the task calls solved; None if none is."""
    status: str
    """``SOLVED``, ``BELOW``, ``STALLED``, ``COMPLETE``, ``DIVERGED`` or ``INTERRUPTED``."""
    signal: int | None
    """The signal that interrupted the run."""
    seconds: float
    """Wall-clock time from start to end, with that of the runs it resumed."""
    steps_per_second: float | None
    """Median over the calls of this process; None if it made no step."""


def fit(trainer: Trainer, task: Task, config: TrainConfig, directory: RunDirectory) -> Fitted:
    """Train until the task is solved, the loss is low enough or falls no more, the steps are done, a number is
    not finite, or a signal comes that asks to stop (:data:`wrnn_jax.training.signals.STOPPING`); then save a
    checkpoint, and evaluate.

    Continues from the newest whole checkpoint in ``directory``, if there is one. The state after a
    number of steps is the same to the bit, wherever runs were killed and resumed on the way.

    In the course of training only ``task.watched`` is evaluated. Where that is the validation split, the
    parameters with the best score are those that are returned, and on which alone the test set is read.

    Args:
      trainer: the compiled functions.
      task: what they were made for.
      config: resolved.
      directory: where to write.

    Raises:
      InvalidValue: if the run directory cannot be written.
      CheckpointError: if a checkpoint cannot be written, or none of those there can be read.
      OSError: if a record cannot be written.
    """
    directory.create()
    hparams = config.hparams(task.epoch_steps(config.batch))
    checkpoints = Checkpoints(directory.checkpoints, config.keep_checkpoints)
    state, saved = _start(trainer, checkpoints, config.seed)
    recorder, pace = Recorder(directory, int(state.step)), Pace()
    bar = console.bar(total=config.max_steps, initial=int(state.step), unit="step")
    with received_signals() as received, bar:
        state = trainer.advance(state, hparams, int(state.step))  # No step: only compiles.
        status = _status_at_start(trainer, task, config, state)
        while status is None:
            step = int(state.step)
            end = min(next_multiple(step, config.log_interval), config.max_steps)
            end_of_call = min(step + pace.steps_of_next_call(), next_multiple(step, config.checkpoint_interval))
            state = trainer.advance(state, hparams, min(end, end_of_call))
            pace.advanced(int(state.step) - step)
            bar.update(int(state.step) - step)
            step = int(state.step)
            if not state.finite:
                status, state = DIVERGED, state._replace(finite=jnp.bool_(True))
                break
            if step == end:
                metrics = trainer.evaluate(state, task.watched)
                # A last evaluation out of turn leaves no trace in the state: the run may go on some day.
                if step % config.log_interval == 0:
                    state = trainer.observe(state, hparams, metrics)
                state, train_loss = trainer.drain(state)
                of_training = trainer.evaluate(state, "train") if "train" in task.splits else {}
                metrics = {"train_loss": float(train_loss), **_floats(of_training), **_floats(metrics)}
                if task.curriculum:
                    metrics["level"] = int(state.level)
                recorder.record(step, metrics, pace.steps_per_second)
                bar.set_postfix_str(shown(metrics), refresh=False)
                console.say(f"step {step}: {shown(metrics)}")
                status = end_reached(task, config, step, metrics, int(state.plateau.stale))
            if step % config.checkpoint_interval == 0:
                checkpoints.save(step, state)
                saved = step
            if status is None and received:
                status = INTERRUPTED
        if saved != int(state.step):
            checkpoints.save(int(state.step), state)
    checkpoints.close()
    picked, metrics = evaluate(trainer, task, state, hparams)
    return Fitted(
        state=picked,
        best_step=int(picked.step if picked.best is None else picked.best.step),
        metrics=metrics,
        solved_step=solved_step(task, directory),
        status=status,
        signal=received[0] if status == INTERRUPTED else None,
        seconds=recorder.seconds,
        steps_per_second=pace.steps_per_second,
    )


def evaluate(trainer: Trainer, task: Task, state: TrainState, hparams: Hparams) -> tuple[TrainState, dict[str, float]]:
    """The state with the parameters that count, its last or those that validation has picked, and their metrics on
    every split."""
    if task.score:
        # The last parameters take part as well, whether or not an evaluation was due.
        state = trainer.observe(state, hparams, trainer.evaluate(state, task.watched))
    state = with_best(state)
    metrics: dict[str, float] = {}
    for split in task.splits:
        metrics |= _floats(trainer.evaluate(state, split))
    return state, metrics


def _start(trainer: Trainer, checkpoints: Checkpoints, seed: int) -> tuple[TrainState, int | None]:
    """The newest whole checkpoint and its step, or the state before the first step and None."""
    state = trainer.init(seed)
    stored, unreadable = checkpoints.restore(state)
    if stored is None:
        return state, None
    for note in unreadable:
        console.note(f"{note}: falling back to checkpoint {stored.step}")
    return trainer.place(stored), int(stored.step)


def _status_at_start(trainer: Trainer, task: Task, config: TrainConfig, state: TrainState) -> str | None:
    """The end that the run had met before it was resumed; only where it would have looked for one."""
    step = int(state.step)
    if step >= config.max_steps:
        return COMPLETE
    if step and step % config.log_interval == 0:
        metrics = _floats(trainer.evaluate(state, task.watched))
        return end_reached(task, config, step, metrics, int(state.plateau.stale))
    return None


def end_reached(task: Task, config: TrainConfig, step: int, metrics: Mapping[str, float], stale: int) -> str | None:
    """The status with which such metrics after so many steps end a run, ``stale`` evaluations after the one with the
    lowest loss; None if it goes on."""
    if config.stop_below is None and task.solved(metrics):
        return SOLVED
    if config.stop_below is not None and metrics[task.monitor] < config.stop_below:
        return BELOW
    if config.patience is not None and stale >= config.patience:
        return STALLED
    return COMPLETE if step >= config.max_steps else None


def solved_step(task: Task, directory: RunDirectory) -> int | None:
    """The step of the first record that the task calls solved; None if none is."""
    # What was not finite was written as null.
    rows = (row for row in directory.metrics() if row.get(task.monitor) is not None)
    return next((row["step"] for row in rows if task.solved(row)), None)


def next_multiple(step: int, interval: int) -> int:
    """The next multiple of ``interval`` after ``step``."""
    return (step // interval + 1) * interval


def _floats(metrics: Mapping[str, Array]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
