"""A run that crashes anywhere, and is begun again by the same command, ends as if nothing had been."""

import json
import os
import shutil
from functools import cache
from typing import NamedTuple

import crashes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from experiments import copy
from helpers import run
from wrnn_jax.training import loop

pytestmark = [
    pytest.mark.usefixtures("standard_promotion"),
    # A read that fails leaves Orbax with others under way, whose results nobody fetches.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SMALL = ["--T", 0, "--n-hid", 4, "--n-ch", 1, "--batch", 4, "--stop-below", 0, "--log-interval", 2]
SMALL += ["--checkpoint-interval", 3]
PROGRAMS = {
    "run": [*SMALL, "--max-steps", 7, "--keep-checkpoints", 1],
    "grid": [*SMALL, "--max-steps", 5, "--grid.lr", "1e-2", "1e-3", "1e-4", "--grid-chunk", 3],
}
TIMES = ("seconds", "steps_per_second")


@pytest.fixture(scope="module")
def quick():
    """One trainer for all runs of a shape, and no pictures."""
    made = {}

    def make(*arguments, members, shards, **options):
        if (members, shards) not in made:
            made[members, shards] = loop.make_trainer(*arguments, members=members, shards=shards, **options)
        return made[members, shards]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.experiment.make_trainer", make)
        patch.setattr("experiments.experiment.draw_figures", lambda *_: None)
        patch.setattr("experiments.grid_report.draw_figures", lambda *_: None)
        patch.setattr("experiments.grid_report._draw", lambda *_: None)
        yield


def numbers(folder):
    """All that a run's or a grid's folder says, but times and the checkpoints before the last of each run."""
    said = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name in ("metrics.jsonl", "grid.jsonl"):
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            said[name] = [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
        elif path.name == "summary.json":
            said[name] = {key: value for key, value in json.loads(path.read_text()).items() if key not in TIMES}
        elif path.name == "checkpoints":
            step = max(int(step.name) for step in path.iterdir() if step.name.isdigit())
            with ocp.CheckpointManager(path) as manager:
                stored = manager.restore(step, args=ocp.args.Composite(digest=ocp.args.JsonRestore()))
            said[name] = step, stored.digest["sha256"]
    return said


class Recorded(NamedTuple):
    """A run, what it says in the end, and what a crash on the way there could leave."""

    arguments: list
    numbers: dict
    states: list

    def check(self, count, root, capsys):
        """Begun again from so many of the states, or all of them, the run ends as it did."""
        failed = []
        for index in np.unique(np.linspace(0, len(self.states) - 1, count or len(self.states)).astype(int)):
            crashes.put(self.states[index], root)
            code = run(copy.main, *self.arguments, "--logdir", root / "run", "--resume")
            said = capsys.readouterr()
            if code or numbers(root / "run") != self.numbers:
                failed.append((index, code, said.err))
            shutil.rmtree(root)
        assert not failed


@pytest.fixture(scope="module")
def record(quick, tmp_path_factory):
    """``record(program)``."""

    @cache
    def record(program):
        root, arguments = tmp_path_factory.mktemp(program), PROGRAMS[program]
        recording = crashes.Recording(root)
        with recording():
            assert run(copy.main, *arguments, "--logdir", root / "run", "--resume") == 0
        print(f"{program}: {recording.calls} calls of the file system, {len(recording.states)} states")
        return Recorded(arguments, numbers(root / "run"), list(recording.states))

    return record


def test_a_run_that_crashes_at_some_calls_ends_the_same(record, tmp_path, capsys):
    record("run").check(6, tmp_path / "again", capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("program", "count"), [("run", 120), ("grid", 30)])
def test_a_crash_at_calls_all_along_changes_nothing(record, tmp_path, capsys, program, count):
    record(program).check(int(os.environ.get("WRNN_JAX_CRASHES", count)), tmp_path / "again", capsys)
