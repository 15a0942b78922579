"""All members of a grid, trained: program after program, shared with other processes, each into a run of its own."""

import dataclasses
import hashlib
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import devices, grid_report
from experiments.cli import FAILURE
from experiments.experiment import (
    assemble,
    resolved,
    summary,
    unchanging,
)
from experiments.grid_flags import Grid, groups, spelled
from experiments.parts import Parts
from experiments.settings import Experiment, RunConfig, readable_name
from wrnn_jax import console
from wrnn_jax.grids.hosts import ALONE, Hosts, HostsError, connect
from wrnn_jax.grids.progress import Progress, Stopped
from wrnn_jax.grids.sweep import Job, Sweep, fit_sweep
from wrnn_jax.tasks import Task
from wrnn_jax.training import fit
from wrnn_jax.training.config import TrainConfig
from wrnn_jax.training.rundir import GridDirectory, RunDirectory
from wrnn_jax.training.signals import received_signals
from wrnn_jax.training.stored import read_config, read_summary

ENDED = (fit.SOLVED, fit.BELOW, fit.STALLED, fit.COMPLETE, fit.DIVERGED)
LONGEST_NAME = 180


Program = Mapping[int, Parts]
"""Members that one compiled program serves: the number in the grid -> what the member's config stands for. Their
configs differ in traced hyper-parameters."""


def run_grid(experiment: Experiment, grid: Grid) -> int:
    """Train all members of a grid, write what came of them, say which is best; return the exit code."""
    run = grid.base.run
    hosts = connect(run.coordinator, run.num_processes, run.process_id) if run.distributed else ALONE
    try:
        with hosts:
            path = _path(experiment, grid)
            hosts.agree(_terms(grid, path), "distributed")
            _directory(experiment, grid, path)  # What is refused leaves no trace, not even a lock.
            computed_on = devices.start()
            programs = _programs(experiment, grid, hosts.count)
            with hosts.locked(path):
                home = _directory(experiment, grid, path)
                if hosts.index == 0:
                    home.create()
                    counts = f"{len(grid.members)} members, {len(programs)} compiled program(s)"
                    console.say(f"a grid of {counts}, {hosts.count} process(es), in {home.path}", f"on {computed_on}")
                return _train(experiment, grid, programs, home, hosts)
    except HostsError as error:
        console.note(f"error: {error}; what was trained is saved: start all processes again with --resume")
        return FAILURE


def _terms(grid: Grid, path: Path) -> str:
    """What all processes must have alike, a line each."""
    terms = {"logdir": path.absolute(), "resume": grid.base.run.resume, **grid.axes}
    for section in (grid.base.task, grid.base.model, grid.base.train):
        terms |= {field: value for field, value in vars(section).items() if field not in grid.axes}
    return "\n".join(f"{name.replace('_', '-')} {value}" for name, value in terms.items())


def _train(experiment: Experiment, grid: Grid, programs: list[Program], home: GridDirectory, hosts: Hosts) -> int:
    members = {number: parts for program in programs for number, parts in program.items()}
    # Dealt to the processes one by one: each has a share of every program.
    mine = {number: parts for number, parts in members.items() if number % hosts.count == hosts.index}
    # A program's number, and below it a folder for each process that ever trained some of its members.
    earlier = sorted(home.checkpoints.glob("*/*"))
    launch = 1 + max((int(path.name.split("-")[0]) for path in earlier), default=0)
    names = [grid_report.words(member.settings) for member in grid.members]
    steps = {number: parts.config.train.max_steps for number, parts in mine.items()}
    ranking = grid_report.ranking(members[0].task)
    try:
        with received_signals() as received, Progress(names, steps, *ranking, hosts, received) as progress:
            progress.check()  # From here on all have looked at what there was, and there is a folder.
            for number, program in enumerate(programs):
                own = home.checkpoints / str(number) / f"{launch}-{hosts.index}"
                folders = own, [path for path in earlier if path.parent == own.parent]
                share = {number: parts for number, parts in program.items() if number in mine}
                _train_program(experiment, grid, share, home, folders, progress)
            progress.wait()
        hosts.close()  # The others need not wait for the report.
    except Stopped as stopped:
        if hosts.index == 0:
            grid_report.write_rows(grid, home, members[0].task)
            console.say("interrupted, saved; to continue: the same command with --resume")
        return 128 + stopped.signal
    if hosts.index:
        return 0
    # Every member's last state lies in its own folder.
    shutil.rmtree(home.checkpoints, ignore_errors=True)
    return grid_report.report(experiment, grid, home, members)


def _directory(experiment: Experiment, grid: Grid, path: Path) -> GridDirectory:
    base, run = grid.base, grid.base.run
    axes = {f"grid.{field}": values for field, values in grid.axes.items()}
    config = {"grid": axes, "task": base.task, "model": base.model, "train": base.train, "run": run}
    return GridDirectory(path, experiment.name, config, run.resume)


def _path(experiment: Experiment, grid: Grid) -> Path:
    """The grid's folder."""
    base = grid.base
    own = readable_name(experiment, base).rsplit("_seed", 1)[0]
    axes = {field: map(spelled, values) for field, values in grid.axes.items()}
    values = [f"{field}-{'-'.join(texts)}".replace("_", "-") for field, texts in axes.items()]
    folder = "_".join(["grid", *values, "of", own])
    if len(folder) > LONGEST_NAME:
        folder = f"{folder[:LONGEST_NAME]}_{hashlib.sha256(folder.encode()).hexdigest()[:8]}"
    return Path(base.run.logdir or Path("runs") / experiment.name / folder)


def _programs(experiment: Experiment, grid: Grid, processes: int) -> list[Program]:
    number_of = {id(member): number for number, member in enumerate(grid.members)}
    tasks: dict[Any, Task] = {}
    programs = []
    for group in groups(grid.members):
        config = group[0].config
        share = math.ceil(len(group) / processes)
        parts = assemble(experiment, config, tasks.get(config.task), members=share, trains=True)
        task = tasks[config.task] = parts.task
        trains = {number_of[id(member)]: resolved(task, member.config.train) for member in group}
        programs.append(
            {
                number: parts._replace(config=dataclasses.replace(parts.config, train=train))
                for number, train in trains.items()
            }
        )
    return programs


def _train_program(
    experiment: Experiment, grid: Grid, program: Program, home: GridDirectory, checkpoints: tuple, progress: Progress
) -> None:
    """Train those of its members that have not come to their ends; ``checkpoints`` as :class:`Sweep` has them."""
    jobs = []
    for number, parts in program.items():
        folder = grid_report.member_folder(home, grid.members[number])
        if _has_ended(folder, parts.config.train):
            progress.ended_before(number, read_summary(folder)["steps"])
            continue
        config = dataclasses.replace(parts.config, run=RunConfig(logdir=str(folder)))
        directory = RunDirectory(folder, experiment.name, config, True, unchanging(parts))
        (folder / "summary.json").unlink(missing_ok=True)  # What it says of an earlier end no longer holds.
        directory.create()
        jobs.append(Job(number, parts.config.train, directory))
    if not jobs:
        return

    def ended(job: Job, fitted: fit.Fitted) -> None:
        job.directory.summarise(summary(experiment, program[job.number], fitted))

    parts = program[jobs[0].number]
    sweep = Sweep(parts.task, parts.trainer, jobs, *checkpoints, ended)
    fit_sweep(sweep, progress, grid.base.run.grid_chunk)


def _has_ended(folder: Path, train: TrainConfig) -> bool:
    """Whether a member's run has come to its end, and would come to the same one now."""
    if not (folder / "summary.json").exists():
        return False
    status = read_summary(folder)["status"]
    before = read_config(folder)["config"].get("train", {})
    same = all(before.get(field) == getattr(train, field) for field in ("max_steps", "stop_below", "patience"))
    return status == fit.DIVERGED or (status in ENDED and same)
