"""A run that crashes anywhere, and is begun again by the same command, ends as if nothing had been."""

import os
import random
import re
import shutil
from functools import cache
from typing import NamedTuple

import crashes
import pytest
from small import TINY, numbers, quickly

from experiments import copy
from helpers import run
from wrnn_jax.training.stored import rows_of

pytestmark = [
    pytest.mark.usefixtures("standard_promotion"),
    # A read that fails leaves Orbax with others under way, whose results nobody fetches.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PROGRAMS = {
    "run": [*TINY, "--max-steps", 7, "--keep-checkpoints", 1],
    "grid": [*TINY, "--max-steps", 5, "--grid.lr", "1e-2", "1e-3", "--grid-chunk", 2],
}
OVERWRITTEN = re.compile(r".*(\.part|/room|/lock)")
"""Files that are written anew, whatever they hold."""
UNREAD = re.compile(r".*/(tensorboard|writing[^/]*)/.*")
"""What lies in folders that nobody looks into."""
CHECKPOINT = re.compile(r"(.*/checkpoints(?:/\d+/[\d-]+)?)/(\d+)(/.*)?")


def read_of(state):
    """Of the state after a crash what a run that is begun again reads: two that are alike here come to the same end.

    Of several checkpoints it reads the newest alone, unless that is damaged.
    """
    newest = {}
    for path, _ in state:
        if at := CHECKPOINT.fullmatch(path):
            newest[at[1]] = max(newest.get(at[1], 0), int(at[2]))
    return frozenset(
        (path, content and b"" if OVERWRITTEN.fullmatch(path) else content)
        for path, content in state
        if not UNREAD.fullmatch(path)
        and not ((at := CHECKPOINT.fullmatch(path)) and at[3] and int(at[2]) < newest[at[1]])
    )


class Recorded(NamedTuple):
    """A run, what it says in the end, and what a crash on the way there could leave."""

    arguments: list
    numbers: dict
    states: list

    def kinds(self):
        """Of states that are read alike the one with the fewest files, the last of them."""
        kinds = {}
        for state in self.states:
            alike = read_of(state)
            if alike not in kinds or len(state) <= len(kinds[alike]):
                kinds[alike] = state
        return list(kinds.values())

    def check(self, states, root, capsys):
        """Begun again from each of the states the run ends as it did."""
        failed = []
        for state in states:
            crashes.put(state, root)
            code = run(copy.main, *self.arguments, "--logdir", root / "run", "--resume")
            said = capsys.readouterr()
            torn = [file for file in root.rglob("metrics.jsonl") if rows_of(file.parent).damage]
            if code or torn or numbers(root / "run") != self.numbers:
                failed.append((self.states.index(state), code, said.err))
            shutil.rmtree(root)
        assert not failed


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """``record(program)``."""

    @cache
    def record(program):
        root, arguments = tmp_path_factory.mktemp(program), PROGRAMS[program]
        recording = crashes.Recording(root)
        with recording():
            assert run(copy.main, *arguments, "--logdir", root / "run", "--resume") == 0
        return Recorded(arguments, numbers(root / "run"), list(recording.states))

    with quickly():
        yield record


def test_a_run_that_crashes_at_some_calls_ends_the_same(record, tmp_path, capsys):
    recorded = record("run")
    recorded.check(random.Random(0).sample(recorded.states, 4), tmp_path / "again", capsys)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_crash_at_any_call_changes_nothing(record, tmp_path, capsys, program):
    """All states that are read differently; with WRNN_JAX_CRASHES=all, all states."""
    recorded = record(program)
    states = recorded.states if os.environ.get("WRNN_JAX_CRASHES") == "all" else recorded.kinds()
    with capsys.disabled():
        print(
            f"\n{program}: {len(recorded.states)} states, {len(recorded.kinds())} read differently, {len(states)} tried"
        )
    recorded.check(states, tmp_path / "again", capsys)
