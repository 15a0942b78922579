"""A sweep is its members' runs alone: whatever ends, waits, diverges, is interrupted or does not fit on the way."""

from dataclasses import replace

import chex
import jax
import pytest

from helpers import linear_map
from wrnn_jax.grids.hosts import ALONE
from wrnn_jax.grids.memory import MARGIN
from wrnn_jax.grids.progress import Progress, Stopped
from wrnn_jax.grids.room import plan_members
from wrnn_jax.grids.sweep import Job, Sweep, fit_sweep
from wrnn_jax.tasks import CopyConfig, copy_task
from wrnn_jax.training import fit as fitting
from wrnn_jax.training.config import TrainConfig
from wrnn_jax.training.loop import make_trainer
from wrnn_jax.training.rundir import RunDirectory
from wrnn_jax.validation import InvalidValue

pytestmark = pytest.mark.usefixtures("standard_promotion")

TASK = copy_task(CopyConfig(T=1))

MODEL = linear_map(TASK.signature)
STEPS = 12
RATES = (1e-2, 1e-3, 3e38, 3e-3, 1e-1)  # One diverges.
CONFIGS = [
    TrainConfig(lr=lr, grad_clip=0.0, seed=seed, batch=4, max_steps=STEPS, log_interval=4, checkpoint_interval=3)
    for seed, lr in enumerate(RATES)
]


TRAINERS = {}
"""Tests share what is compiled."""


def trainer_of(*arguments, task=TASK):
    """``make_trainer(MODEL, task, 4, *arguments)``, one for the same arguments."""
    key = repr((id(task), *arguments))
    if key not in TRAINERS:
        TRAINERS[key] = task, make_trainer(MODEL, task, 4, *arguments)  # With the task, so that its id stays its own.
    return TRAINERS[key][1]


class Sweeping:
    """A sweep of the configs in ``folder``, with what it was told."""

    def __init__(self, folder, configs=CONFIGS, how="map", devices=1, task=TASK, schedule="constant"):
        self.folder, self.configs, self.how, self.task = folder, configs, how, task
        self.devices = jax.devices()[:devices]
        self.made, self.trainers, self.fitted, self.received = [], [], {}, []
        self.launch = len(list(folder.glob("checkpoints/*"))) + 1
        self.schedule = schedule

    def directory(self, number):
        return RunDirectory(self.folder / f"member{number}", "copy", {"train": self.configs[number]}, True)

    def trainer(self, members):
        self.made.append(members)
        self.trainers.append(trainer_of(self.devices, self.schedule, members, self.how, task=self.task))
        return self.trainers[-1]

    def run(self, at_once):
        jobs = [Job(number, config, self.directory(number)) for number, config in enumerate(self.configs)]
        jobs = [job for job in jobs if not (job.directory.path / "summary.json").exists()]
        for job in jobs:
            job.directory.create()
        earlier = sorted(self.folder.glob("checkpoints/*"))
        checkpoints = self.folder / "checkpoints" / str(self.launch)
        sweep = Sweep(self.task, self.trainer, jobs, checkpoints, earlier, self.ended)
        steps = {job.number: job.config.max_steps for job in jobs}
        names = [f"member {number}" for number in range(len(self.configs))]
        with Progress(names, steps, self.task.monitor, False, ALONE, self.received) as progress:
            fit_sweep(sweep, progress, at_once)
        return self.fitted

    def ended(self, job, fitted):
        assert job.number not in self.fitted, "a member ends once"
        self.fitted[job.number] = fitted
        job.directory.summarise({"status": fitted.status})

    def rows(self, number):
        return [
            {key: value for key, value in row.items() if key not in ("seconds", "steps_per_second")}
            for row in self.directory(number).metrics()
        ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Each member's run by itself, on one device, as a member has it: (fitted, rows)."""
    trainer = trainer_of(jax.devices()[:1])
    found = []
    for number, config in enumerate(CONFIGS):
        directory = RunDirectory(tmp_path_factory.mktemp("alone") / str(number), "copy", {"train": config}, False)
        fitted = fitting.fit(trainer, TASK, config, directory)
        rows = [
            {k: v for k, v in row.items() if k not in ("seconds", "steps_per_second")} for row in directory.metrics()
        ]
        found.append((fitted, rows))
    return found


def assert_as_alone(sweeping_, alone, equal=chex.assert_trees_all_equal):
    assert sweeping_.fitted.keys() == set(range(len(alone)))
    for number, (fitted, rows) in enumerate(alone):
        got = sweeping_.fitted[number]
        assert got.status == fitted.status
        equal(jax.device_get(got.state), jax.device_get(fitted.state))
        equal(got.metrics, fitted.metrics)
        got_rows = sweeping_.rows(number)
        assert [row["step"] for row in got_rows] == [row["step"] for row in rows]
        equal(got_rows, rows)


def close(got, expected):
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 2, 99])
def test_members_one_by_one_are_their_runs_alone_to_the_bit(tmp_path, alone, at_once):
    sweep = Sweeping(tmp_path)
    sweep.run(at_once)
    assert_as_alone(sweep, alone)
    assert [trainer.advance.func._cache_size() for trainer in sweep.trainers] == [1], "compiled once"
    assert sweep.fitted[2].status == fitting.DIVERGED
    assert {sweep.fitted[m].status for m in (0, 1, 3)} == {fitting.COMPLETE}


@pytest.mark.parametrize(("how", "devices", "at_once"), [("map", 2, 4), ("vmap", 1, 2), ("vmap", 2, 5)])
def test_members_at_once_or_on_several_devices_are_their_runs_alone(tmp_path, alone, how, devices, at_once):
    sweep = Sweeping(tmp_path, how=how, devices=devices)
    sweep.run(at_once)
    assert_as_alone(sweep, alone, close)


def test_a_plateau_and_validation_are_each_member_s_own(tmp_path):
    """The schedule that looks at evaluations, and parameters picked by validation; evaluations are not all in turn."""

    def example(source, indices):
        inputs, targets = TASK.splits["test"].examples(source, indices)
        return inputs, targets

    def metrics(outputs, targets):
        found = TASK.splits["test"].metrics(outputs, targets)
        return {"val_loss": found["test_loss"], "val_acc": found["recall"]}

    split = TASK.splits["test"]._replace(size=64)
    splits = {"val": split._replace(examples=example, metrics=metrics), "test": split}
    task = TASK._replace(splits=splits, monitor="val_loss", score="val_acc", solved=lambda metrics: False)
    options = {"batch": 4, "max_steps": 11, "log_interval": 2, "schedule": "plateau", "grad_clip": 0.0}
    configs = [TrainConfig(lr=lr, seed=3, **options).resolved(None) for lr in (30.0, 1e-3)]
    configs = [replace(config, lr_period=1.0, lr_factor=factor) for config, factor in zip(configs, (2, 9), strict=True)]
    sweep = Sweeping(tmp_path / "sweep", configs, task=task, schedule="plateau")
    sweep.run(2)
    trainer = make_trainer(MODEL, task, 4, jax.devices()[:1], "plateau")
    drops = []
    for number, config in enumerate(configs):
        directory = RunDirectory(tmp_path / str(number), "copy", {"train": config}, False)
        expected, got = fitting.fit(trainer, task, config, directory), sweep.fitted[number]
        chex.assert_trees_all_equal(jax.device_get(got.state), jax.device_get(expected.state))
        assert (got.metrics, got.best_step) == (expected.metrics, expected.best_step)
        drops.append(int(got.state.plateau.drops))
    assert drops[0] > 0


def test_members_that_run_out_of_patience_end(tmp_path):
    """One whose learning rate is next to nothing, beside one that learns; each as alone, and ended for a resume too."""
    configs = [replace(CONFIGS[0], lr=lr, patience=1, seed=0, log_interval=2) for lr in (1e-12, 1e-2)]
    sweep = Sweeping(tmp_path / "sweep", configs)
    sweep.run(2)
    trainer = trainer_of(jax.devices()[:1])
    for number, (config, status, step) in enumerate(
        zip(configs, (fitting.STALLED, fitting.COMPLETE), (4, STEPS), strict=True)
    ):
        got = sweep.fitted[number]
        assert (got.status, int(got.state.step)) == (status, step)
        directory = RunDirectory(tmp_path / str(number), "copy", {"train": config}, True)
        for _ in range(2):
            expected = fitting.fit(trainer, TASK, config, directory)
            assert expected.status == status
            chex.assert_trees_all_equal(jax.device_get(got.state), jax.device_get(expected.state))


def stopping_after(calls, sweep):
    """The sweep gets a signal during a call of the device."""
    make = sweep.trainer

    def trainer(members):
        made = make(members)

        def advance(*arguments):
            nonlocal calls
            calls -= 1
            if calls == 0:
                sweep.received.append(15)
            return made.advance(*arguments)

        return made._replace(advance=advance)

    sweep.trainer = trainer
    return sweep


@pytest.mark.parametrize(("how", "equal"), [("map", chex.assert_trees_all_equal), ("vmap", close)])
def test_interrupted_at_any_moment_and_resumed_otherwise_it_ends_the_same(tmp_path, alone, how, equal):
    """With other numbers at once each time, so that members that had begun wait for others."""
    fitted, at_once = {}, (5, 2, 1, 2, 1, 2)
    for calls, number in enumerate(at_once[:-1], start=1):
        sweep = stopping_after(calls, Sweeping(tmp_path, how=how))
        with pytest.raises(Stopped) as stopped:
            sweep.run(number)
        assert stopped.value.signal == 15
        fitted |= sweep.fitted
    sweep = Sweeping(tmp_path, how=how)
    sweep.run(at_once[-1])
    assert not fitted.keys() & sweep.fitted.keys()
    sweep.fitted |= fitted
    assert_as_alone(sweep, alone, equal)


def test_members_are_planned_by_the_memory_there_is(tmp_path, alone, monkeypatch, capsys):
    """Enough for two at once by the estimate; then not even for one by XLA's account."""

    def free(number):
        monkeypatch.setattr("wrnn_jax.grids.room.available_bytes", lambda device: number)

    free(None)
    trainer = trainer_of(jax.devices()[:1], "constant", 5, "vmap")
    plans = [plan_members(trainer, TASK, CONFIGS[0].hparams(None), members) for members in (1, 2, 3, 5)]
    assert [plan.at_once for plan in plans] == [1, 2, 3, 5]
    assert [plan.bytes for plan in plans] == sorted({plan.bytes for plan in plans})

    one, all_ = plans[0].bytes, plans[-1].bytes
    free(int((one + 1.5 * (all_ - one) / 4) / (1 - MARGIN)))
    sweep = Sweeping(tmp_path / "two", how="vmap")
    sweep.run(None)
    assert sweep.made[:2] == [5, 2], "the first is of all, to estimate"
    assert "2 members at once: " in capsys.readouterr().out
    assert_as_alone(sweep, alone, close)

    free(1000)
    with pytest.raises(InvalidValue, match="not even one member fits into memory"):
        Sweeping(tmp_path / "none").run(None)


def without_memory_for(most, sweep):
    """More members at once than ``most`` do not fit, which shows at the third call."""
    make = sweep.trainer

    def trainer(members):
        made, calls = make(members), 0

        def advance(states, hparams, until):
            nonlocal calls
            calls += 1
            if len(until) > most and calls == 3:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
            return made.advance(states, hparams, until)

        return made._replace(advance=advance)

    sweep.trainer = trainer
    return sweep


def test_out_of_memory_halves_and_keeps_what_was_done(tmp_path, alone, capsys):
    sweep = without_memory_for(2, Sweeping(tmp_path))
    sweep.run(5)
    assert sweep.made[:2] == [5, 2]
    assert "out of memory: going on from the last checkpoint with 2 members at once" in capsys.readouterr().err
    assert_as_alone(sweep, alone)


def test_one_member_that_does_not_fit_is_one_line(tmp_path):
    with pytest.raises(InvalidValue, match="not even one member fits into memory"):
        without_memory_for(0, Sweeping(tmp_path)).run(2)


def test_what_has_ended_makes_room(tmp_path):
    """Eight members in five slots; on an accelerator slots that nobody needs any more are given up."""
    configs = [replace(CONFIGS[0], seed=seed) for seed in range(8)]
    sweep = Sweeping(tmp_path, configs, "vmap")
    sweep.run(5)
    assert sweep.fitted.keys() == set(range(8))
    assert sweep.made == [5], "three of five slots are no waste worth compiling anew"
    ends = (100.0, 100.0, 0.0, 100.0, 100.0)
    configs = [replace(CONFIGS[0], seed=seed, stop_below=loss) for seed, loss in enumerate(ends)]
    sweep = Sweeping(tmp_path / "more", configs, "vmap")
    sweep.run(5)
    assert sweep.made == [5, 1]
    expected = [(fitting.BELOW, 4) if loss else (fitting.COMPLETE, STEPS) for loss in ends]
    assert [(sweep.fitted[n].status, int(sweep.fitted[n].state.step)) for n in range(5)] == expected


def test_a_checkpoint_that_is_damaged_is_passed_over(tmp_path, alone, capsys):
    sweep = stopping_after(4, Sweeping(tmp_path))
    with pytest.raises(Stopped):
        sweep.run(5)
    newest = max((tmp_path / "checkpoints" / "1").glob("[0-9]*"), key=lambda path: int(path.name))
    for file in newest.glob("state/**/*"):
        if file.is_file():
            file.write_bytes(b"")
    again = Sweeping(tmp_path)
    again.run(2)
    assert "is unreadable" in capsys.readouterr().err
    again.fitted |= sweep.fitted
    assert_as_alone(again, alone)
