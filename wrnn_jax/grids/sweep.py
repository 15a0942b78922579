"""The members of a grid that are one program, trained to their ends, as :mod:`wrnn_jax.training.fit` trains one run."""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from wrnn_jax import console
from wrnn_jax.grids.memory import Plan, is_out_of_memory
from wrnn_jax.grids.progress import Progress
from wrnn_jax.grids.room import bytes_by_xla, fits, plan_members, told
from wrnn_jax.grids.states import newest_states, of_slot, save_together, stacked
from wrnn_jax.tasks.base import Task
from wrnn_jax.training.checkpoint import Checkpoints
from wrnn_jax.training.config import TrainConfig
from wrnn_jax.training.fit import COMPLETE, DIVERGED, Fitted, end_reached, next_multiple, solved_step
from wrnn_jax.training.loop import Trainer
from wrnn_jax.training.recorder import Pace, Recorder
from wrnn_jax.training.rundir import RunDirectory
from wrnn_jax.training.state import with_best
from wrnn_jax.validation import InvalidValue


class Job(NamedTuple):
    """A member of a grid, to be trained."""

    number: int
    """Of the member in the whole grid."""
    config: TrainConfig
    """Resolved. Those of one program differ in the traced hyper-parameters and the seed alone."""
    directory: RunDirectory
    """An ordinary run's: where the member is recorded, and its last state kept."""


class Sweep(NamedTuple):
    """Members that are one program, and how they are trained."""

    task: Task
    make_trainer: Callable[[int], Trainer]
    """Of so many members at once."""
    jobs: Sequence[Job]
    """Those that have not come to their ends."""
    checkpoints: Path
    """A folder of its own for the checkpoints of members in training, all of them in one."""
    earlier: Sequence[Path]
    """The folders of former processes, wherever their members' checkpoints lie."""
    ended: Callable[[Job, Fitted], None]
    """Is told of each member that has come to its end."""


def fit_sweep(sweep: Sweep, progress: Progress, chunk: int | None = None) -> None:
    """Train all members to their ends, ``chunk`` at a time; what ends makes room for what waits.

    If no chunk is given, as many at a time as by the memory plan fit, and by XLA's own account of what is compiled.
    Each member's state after a number of steps is that of the same run alone, up to rounding: members of one program
    share nothing but the program. One that diverges ends as it was before the bad step. Members in training are
    checkpointed together, one that has ended in its own run directory; where any have begun before, each goes on from
    its newest state. When memory runs out, half as many go on from there.

    Raises:
      Stopped: when a signal has come; all states are saved.
      HostsError: when another process of the grid is gone; all states are saved.
      CheckpointError: if a checkpoint cannot be written, or none of those there can be read.
      OSError: if a record cannot be written.
      InvalidValue: if not even one member fits into memory.
    """
    left = {job.number: job for job in sweep.jobs}

    def ended(job: Job, fitted: Fitted) -> None:
        del left[job.number]
        sweep.ended(job, fitted)

    plan = None if chunk else _plan(sweep)
    at_once = chunk or plan.at_once
    while left:
        at_once = min(at_once, len(left))
        if not at_once:
            allowed = "smaller, or the network: not even one member fits into memory"
            raise InvalidValue("batch", sweep.jobs[0].config.batch, allowed)
        try:
            trained = sweep._replace(jobs=tuple(left.values()), ended=ended)
            _Training(trained, at_once, progress).run(plan)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            at_once //= 2
        else:
            continue
        # Only here, after the error is gone and with it what it held, is the memory free.
        console.note(f"out of memory: going on from the last checkpoint with {at_once} members at once")


def _plan(sweep: Sweep) -> Plan:
    config = sweep.jobs[0].config
    hparams = config.hparams(sweep.task.epoch_steps(config.batch))
    return plan_members(sweep.make_trainer(len(sweep.jobs)), sweep.task, hparams, len(sweep.jobs))


class _Training:
    """Members in the slots of a trainer's arrays, along the axis that counts members, and members that wait."""

    def __init__(self, sweep: Sweep, at_once: int, progress: Progress):
        self.sweep, self.task, self.config = sweep, sweep.task, sweep.jobs[0].config
        self.at_once, self.progress, self.pace = at_once, progress, Pace()
        self._use(sweep.make_trainer(at_once), at_once)
        self.waiting = deque(sweep.jobs)
        self.begun = newest_states(
            {job.number: job.directory.checkpoints for job in sweep.jobs},
            (*sweep.earlier, sweep.checkpoints),
            self.trainer,
        )
        """The states of members that wait and have begun, by number."""
        self.recorders: dict[int, Recorder] = {}
        self.shares: dict[int, float] = defaultdict(float)
        """Each member's of the time so far, by number, in seconds: they add up to all of it."""
        self._shared_until = time.perf_counter()
        self.checkpoints = Checkpoints(sweep.checkpoints, self.config.keep_checkpoints)
        self.unsaved = 0
        """Steps that members in training have made since the last checkpoint."""

    def run(self, plan: Plan | None) -> None:
        """Train all; with a plan, only if it is one by XLA's own account of the compiled program, too."""
        try:
            self._let_in()
            if plan and any(self.slots):
                needed = bytes_by_xla(self.trainer, self.states, self.hparams, self._step)
                self.progress.say(f"{self._taken.sum()} members at once: {told(plan, needed)}")
                if not fits(plan, needed):
                    raise MemoryError
            while any(self.slots):
                self._advance()
                self._end(self._diverged())
                self._end(self._take_stock())
                self._let_in()
                if self.unsaved >= self.config.checkpoint_interval:
                    self._save()
                try:
                    self.progress.check()
                except Exception:
                    self._save()
                    raise
        finally:
            self.checkpoints.close()

    def _use(self, trainer: Trainer, members: int) -> None:
        """Begin with empty slots for so many."""
        grid = trainer.mesh.shape["grid"]
        self.trainer, self.states, self.hparams = trainer, None, None
        self.slots: list[Job | None] = [None] * (math.ceil(members / grid) * grid)

    @property
    def _taken(self) -> np.ndarray:
        """Which slots have a member in training."""
        return np.array([job is not None for job in self.slots])

    @property
    def _step(self) -> np.ndarray:
        """Of every slot."""
        return np.asarray(self.states.step)

    def _jobs(self, which: np.ndarray) -> list[tuple[int, Job]]:
        return [(slot, self.slots[slot]) for slot in np.flatnonzero(which)]

    # Training, and what comes of it

    def _advance(self) -> None:
        """One call of the device: as many steps for all, no further than an evaluation or checkpoint is due."""
        before = self._step
        due = min(self._next_record(int(before[slot])) - int(before[slot]) for slot, _ in self._jobs(self._taken))
        steps = min(self.pace.steps_of_next_call(), due, self.config.checkpoint_interval - self.unsaved)
        until = np.where(self._taken, before + steps, 0)
        self.states = self.trainer.advance(self.states, self.hparams, until)
        step = self._step
        self.pace.advanced(int((step - before).max()))
        self._share_time()
        self.unsaved += steps
        self.progress.called()
        for slot, job in self._jobs(self._taken):
            self.progress.reached(job.number, int(step[slot]))

    def _share_time(self) -> None:
        """The time since this was last done, among the members in training."""
        now, members = time.perf_counter(), self._jobs(self._taken)
        for _, job in members:
            self.shares[job.number] += (now - self._shared_until) / len(members)
        self._shared_until = now

    def _next_record(self, step: int) -> int:
        return min(next_multiple(step, self.config.log_interval), self.config.max_steps)

    def _diverged(self) -> dict[int, str]:
        """Slots whose members have."""
        return {slot: DIVERGED for slot, _ in self._jobs(self._taken & ~np.asarray(self.states.finite))}

    def _take_stock(self) -> dict[int, str]:
        """Evaluate and record the members of which that is due; the slots of those that have come to an end."""
        step = self._step
        in_turn = self._taken & (step % self.config.log_interval == 0)
        due = in_turn | self._taken & (step >= self.config.max_steps)
        if not due.any():
            return {}
        evaluated = self.trainer.evaluate(self.states, self.task.watched, due)
        # A last evaluation out of turn leaves no trace in the state: the run may go on some day.
        self.states = self.trainer.observe(self.states, self.hparams, evaluated, in_turn)
        self.states, losses = self.trainer.drain(self.states, due)
        of_training = self.trainer.evaluate(self.states, "train", due) if "train" in self.task.splits else {}
        metrics = _by_slot(due, {"train_loss": losses, **of_training, **evaluated})
        for slot, job in self._jobs(due):
            if self.task.curriculum:
                metrics[slot]["level"] = int(self.states.level[slot])
            self.recorders[job.number].record(int(step[slot]), metrics[slot], self.pace.steps_per_second)
            self.progress.recorded(job.number, metrics[slot])
        return self._ends(metrics)

    def _ends(self, metrics: Mapping[int, Mapping[str, float]]) -> dict[int, str]:
        """The slots whose members such metrics end."""
        step, stale = self._step, np.asarray(self.states.plateau.stale)
        statuses = {
            slot: end_reached(self.task, self.slots[slot].config, int(step[slot]), of_member, int(stale[slot]))
            for slot, of_member in metrics.items()
        }
        return {slot: status for slot, status in statuses.items() if status}

    def _end(self, statuses: Mapping[int, str]) -> None:
        """Members that have come to their ends leave their slots: evaluated on every split, and saved."""
        if not statuses:
            return
        due = np.isin(np.arange(len(self.slots)), list(statuses))
        self._share_time()
        picked = self.states
        if self.task.score:
            # The last parameters take part as well, whether or not an evaluation was due.
            metrics = self.trainer.evaluate(picked, self.task.watched, due)
            picked = with_best(self.trainer.observe(picked, self.hparams, metrics, due))
        evaluated: dict[str, Any] = {}
        for split in self.task.splits:
            evaluated |= self.trainer.evaluate(picked, split, due)
        metrics = _by_slot(due, evaluated)
        # What diverged stands before the bad step, from where it may go on with other hyper-parameters some day.
        last, picked = (states._replace(finite=np.ones_like(due)) for states in jax.device_get((self.states, picked)))
        for slot, status in statuses.items():
            job, self.slots[slot] = self.slots[slot], None
            state = of_slot(last, slot)
            checkpoints = Checkpoints(job.directory.checkpoints, self.config.keep_checkpoints)
            checkpoints.save(int(state.step), state)
            checkpoints.close()
            chosen = of_slot(picked, slot)
            recorder = self.recorders.pop(job.number)
            fitted = Fitted(
                state=chosen,
                best_step=int(chosen.step if chosen.best is None else chosen.best.step),
                metrics=metrics[slot],
                solved_step=solved_step(self.task, job.directory),
                status=status,
                signal=None,
                seconds=recorder.seconds,
                steps_per_second=self.pace.steps_per_second,
            )
            self.sweep.ended(job, fitted)
            self.progress.ended(job.number, status)

    # Slots

    def _let_in(self) -> None:
        """Fill free slots with members that wait; keep the slots few, and as many of them taken on every device."""
        while self._should_rearrange():
            self._end(self._ended_before(self._rearrange()))

    def _should_rearrange(self) -> bool:
        taken, grid = self._taken, self.trainer.mesh.shape["grid"]
        if self.waiting and taken.sum() < self.at_once:
            return True
        if not taken.any():
            return False
        busiest = taken.reshape(grid, -1).sum(axis=1).max()
        one_by_one = self.trainer.how == "map"
        return self._too_wide(taken.sum()) or (one_by_one and busiest > math.ceil(taken.sum() / grid))

    def _too_wide(self, members: int) -> bool:
        """Whether fewer slots, or devices that share batches, are worth compiling the programs anew. One after
        another empty slots cost nothing, but for a device that has no other."""
        if self.trainer.how == "map":
            return members < self.trainer.mesh.shape["grid"]
        return 2 * members <= len(self.slots)

    def _rearrange(self) -> list[int]:
        """Deal the members in training, and those that may come in, to the devices; the slots of the latter."""
        states = jax.device_get(self.states)
        staying = [(job, of_slot(states, slot)) for slot, job in self._jobs(self._taken)]
        coming = [self.waiting.popleft() for _ in range(min(self.at_once - len(staying), len(self.waiting)))]
        count = len(staying) + len(coming)
        if self._too_wide(count):
            self.states = self.trainer = None  # Room for those that take their place.
            self._use(self.sweep.make_trainer(count), count)
        grid, width = self.trainer.mesh.shape["grid"], len(self.slots)
        fresh = jax.device_get(self.trainer.init(np.resize([job.config.seed for job in coming] or [0], width)))
        begun = [(job, self.begun.pop(job.number, of_slot(fresh, i))) for i, job in enumerate(coming)]
        members = staying + begun
        slots = [(i % grid) * (width // grid) + i // grid for i in range(count)]
        # An empty slot holds a member's copy, of which no step is asked.
        filled = [members[0]] * width
        self.slots = [None] * width
        for slot, member in zip(slots, members, strict=True):
            filled[slot], self.slots[slot] = member, member[0]
        self.states = self.trainer.place(stacked([state for _, state in filled]))
        epoch_steps = self.task.epoch_steps(self.config.batch)
        hparams = stacked([job.config.hparams(epoch_steps) for job, _ in filled])
        self.hparams = jax.tree.map(lambda leaf: leaf.astype(np.float32), hparams)
        for job, state in begun:
            own_time = partial(self.shares.__getitem__, job.number)
            self.recorders[job.number] = Recorder(job.directory, int(state.step), own_time)
            self.progress.reached(job.number, int(state.step))
        return slots[len(staying) :]

    def _ended_before(self, slots: Sequence[int]) -> dict[int, str]:
        """Of members that came in, those that had met their end before: only where they would have looked for it."""
        step, came = self._step, np.isin(np.arange(len(self.slots)), slots)
        complete = came & (step >= self.config.max_steps)
        due = came & ~complete & (step > 0) & (step % self.config.log_interval == 0)
        ended = dict.fromkeys(np.flatnonzero(complete), COMPLETE)
        if due.any():
            ended |= self._ends(_by_slot(due, self.trainer.evaluate(self.states, self.task.watched, due)))
        return ended

    # Checkpoints

    def _save(self) -> None:
        """All members that have begun and not ended, in one checkpoint."""
        states = jax.device_get(self.states)
        save_together(
            self.checkpoints, self.begun | {job.number: of_slot(states, slot) for slot, job in self._jobs(self._taken)}
        )
        self.unsaved = 0


def _by_slot(due: np.ndarray, metrics: Mapping[str, Any]) -> dict[int, dict[str, float]]:
    """The metrics of each slot that is due."""
    metrics = jax.device_get(dict(metrics))
    return {slot: {name: float(values[slot]) for name, values in metrics.items()} for slot in np.flatnonzero(due)}
