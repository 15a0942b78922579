"""What a run or a grid has left, damaged in every way, and read: right numbers, a word on what is missing, or one line.

Of states every bit counts. A flipped bit that turns one digit of JSON into another is not noticed: those files are the
user's to edit.
"""

import collections
import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from small import TINY, numbers, quickly, untimed

from experiments import copy, figures, report
from experiments.settings import RunConfig
from helpers import run
from wrnn_jax.models import configure
from wrnn_jax.tasks import CopyConfig
from wrnn_jax.training.config import TrainConfig
from wrnn_jax.training.rundir import RunDirectory

pytestmark = [
    pytest.mark.usefixtures("standard_promotion"),
    # A read that fails leaves Orbax with others under way, whose results nobody fetches.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KEPT = Path(__file__).parents[1] / "experiments/results/copy/T30_wrnn_800-steps_seed0"
SINGLE = [*TINY, "--max-steps", 8, "--keep-checkpoints", 2]
GRID = [*TINY, "--max-steps", 5, "--grid.lr", "1e-2", "1e-3", "--grid-chunk", 2, "--keep-checkpoints", 2]
MEMBERS = ("members/lr-0.01_seed-0", "members/lr-0.001_seed-0")
DEEP = b"[" * 100_000


# What may happen to a file


def flipped(content, at):
    changed = bytearray(content)
    if changed:
        changed[at] ^= 0x80  # Never a character of ASCII.
    return bytes(changed)


BYTES = {
    "empty": lambda content: b"",
    "cut in the middle": lambda content: content[: len(content) // 2],
    "without its last byte": lambda content: content[:-1],
    "its first line alone": lambda content: content[: content.find(b"\n") + 1],
    "all but its last line": lambda content: content[: content.rstrip(b"\n").rfind(b"\n") + 1],
    "flipped at the start": partial(flipped, at=0),
    "flipped in the middle": lambda content: flipped(content, len(content) // 2),
    "flipped at the end": partial(flipped, at=-1),
    "UTF-16": lambda content: content.decode("latin-1").encode("utf-16"),
    "Latin-1": lambda content: content + "é".encode("latin-1"),
    "NULs": lambda content: bytes(len(content)),
    "depth": lambda content: DEEP,
    "a number": lambda content: b"3",
    "a list": lambda content: b"[1]",
    "no fields": lambda content: b"{}",
}
LINES = {
    "a number": b"3",
    "a string": b'"step"',
    "a list": b"[1, 2]",
    "nothing": b"null",
    "no step": b'{"test_loss": 0.5}',
    "no loss": b'{"step": 4}',
    "a word for a step": b'{"step": "4", "test_loss": 0.5}',
    "a word for a number": b'{"step": 4, "test_loss": "low"}',
    "a list for a number": b'{"step": 4, "test_loss": [0.5]}',
    "a fraction for a step": b'{"step": 4.5, "test_loss": 0.5}',
    "a step below 0": b'{"step": -4, "test_loss": 0.5}',
    "too large a step": b'{"step": 1' + b"0" * 400 + b', "test_loss": 0.5}',
    "digits without end": b'{"step": 4, "test_loss": 1' + b"0" * 5000 + b"}",
    "too large a number": b'{"step": 4, "test_loss": 1e300}',
    "depth": DEEP,
    "Latin-1": '{"step": 4, "é": 1}'.encode("latin-1"),
    "NULs": bytes(40),
    "no line": b"",
}
VALUES = (..., None, True, -1, 1e300, 10**400, float("nan"), "word", [], [1], {}, {"a": 1})
"""Of a field of JSON; the first stands for no such field."""


def remove(path):
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def of_bytes(change, path):
    path.write_bytes(change(path.read_bytes()))


def as_folder(path):
    remove(path)
    path.mkdir()


def as_file(path):
    remove(path)
    path.write_bytes(b"")


def as_link(to, path):
    remove(path)
    path.symlink_to(to or path.name)


def with_line(line, at, path):
    lines = path.read_bytes().splitlines()
    lines[at] = line
    path.write_bytes(b"\n".join([*lines, b""]))


def with_value(keys, value, path):
    whole = json.loads(path.read_text())
    inside = whole
    for key in keys[:-1]:
        inside = inside[key]
    if value is ...:
        del inside[keys[-1]]
    else:
        inside[keys[-1]] = value
    path.write_text(json.dumps(whole))


PLACES = {
    "deleted": remove,
    "a folder": as_folder,
    "a dangling link": partial(as_link, "nowhere"),
    "a loop": partial(as_link, None),
}
"""Changes of what stands at a file's name; of a folder's there is one more."""


class Damage(NamedTuple):
    """A change of one file or folder of a home."""

    name: str
    path: Path
    change: Any
    is_edit: bool
    """Whether the file is whole, and only says something else: that may be what its reader wanted."""


def damages(home):
    """All of a folder; of files of a name the first one's fields are edited."""
    edited = set()
    for path in sorted(home.rglob("*")):
        at = path.relative_to(home)
        changes = dict(PLACES)
        if path.is_dir():
            changes["a file"] = as_file
        else:
            changes |= {name: partial(of_bytes, change) for name, change in BYTES.items()}
        if path.name == "metrics.jsonl":
            last = len(path.read_bytes().splitlines()) - 1
            changes |= {
                f"{name} as line {number + 1}": partial(with_line, line, number)
                for name, line in LINES.items()
                for number in {1, last}
            }
        for name, change in changes.items():
            yield Damage(f"{at}: {name}", at, change, is_edit=False)
        if path.suffix == ".json" and path.name not in edited:
            edited.add(path.name)
            for keys, value in itertools.product(fields(json.loads(path.read_text())), VALUES):
                name = f"{at}: {'.'.join(keys)} = {str(value)[:20]}"
                yield Damage(name, at, partial(with_value, keys, value), is_edit=True)


def fields(value, above=()):
    """The paths of keys of a JSON object."""
    for key, inside in value.items():
        yield (*above, key)
        if isinstance(inside, dict):
            yield from fields(inside, (*above, key))


# What is done with it


class Curves:
    """Stands for a figure of curves: which they were."""

    drawn: ClassVar = []

    def __init__(self, runs, panels, baselines, title=None):
        Curves.drawn.append({name: [[untimed(row) for row in rows] for rows in of] for name, of in runs.items()})

    def savefig(self, out, dpi):
        pass


def trained(arguments, at):
    """The same command again, or another that goes on: what the folder says then."""
    code = run(copy.main, *arguments, "--logdir", at, "--resume")
    return code, lambda said: numbers(at)


def evaluated(at):
    code = run(copy.main, *SINGLE, "--logdir", at, "--eval-only")

    def result(said):
        row = json.loads(said.out.splitlines()[-1])
        return {row["step"]: row}

    return code, result


def drawn(*folders):
    def act(at):
        Curves.drawn.clear()
        code = run(figures.main, *(at / folder for folder in folders), "--out", at.parent / "curves.png")
        return code, lambda said: list(Curves.drawn)

    return act


def reported(at):
    Curves.drawn.clear()
    code = run(report.main, at, "--out", at.parent / "report")
    return code, lambda said: ((at.parent / "report/report.md").read_text(), list(Curves.drawn))


ACTIONS = {
    "run": {
        "resume": partial(trained, SINGLE),
        "longer": partial(trained, [*SINGLE, "--max-steps", 10]),
        "eval": evaluated,
        "curves": drawn(""),
        "report": reported,
    },
    "kept": {"curves": drawn(""), "report": reported},
    "grid": {"resume": partial(trained, GRID), "curves": drawn(*MEMBERS), "report": reported},
    # Of a member under way nobody but a resumed grid knows how many rows it has.
    "begun": {"resume": partial(trained, GRID), "report": reported},
}
"""By home: a run, one that a table of the report shows, a grid, and a grid that was interrupted."""


def made_run(at):
    assert run(copy.main, *SINGLE, "--logdir", at) == 0


def made_kept(at):
    shutil.copytree(KEPT, at)
    config = copy.Config(CopyConfig(T=30), configure("wrnn"), TrainConfig(), RunConfig())
    (at / "config.json").write_text(json.dumps({"experiment": "copy", "config": dataclasses.asdict(config)}))


def made_grid(at):
    assert run(copy.main, *GRID, "--logdir", at) == 0


def made_begun(at):
    record = RunDirectory.record

    def interrupt(directory, row):
        record(directory, row)
        if row["step"] == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as midway:
        midway.setattr(RunDirectory, "record", interrupt)
        assert run(copy.main, *GRID, "--logdir", at) == 128 + signal.SIGTERM


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """``home(name)``: its folder."""
    top = tmp_path_factory.mktemp("homes")

    @cache
    def made(name):
        {"run": made_run, "kept": made_kept, "grid": made_grid, "begun": made_begun}[name](top / name)
        return top / name

    with quickly(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("wrnn_jax.analysis.plots.training_curves", Curves)
        yield made


def cases(home, names):
    """(name, action, damage): every action on every damage that it has to do with."""
    for name in names:
        for damage in damages(home(name)):
            inside = {"checkpoints", "tensorboard", "figures"}.intersection(damage.path.parts[:-1])
            for action in ACTIONS[name]:
                if not (inside and action in ("curves", "report")):
                    yield name, action, damage


# What must come of it


def is_part(result, whole):
    """Whether all numbers of a result, where some are missing, are those of the whole one."""
    if isinstance(result, dict):
        return isinstance(whole, dict) and all(
            key in whole and is_part(value, whole[key]) for key, value in result.items()
        )
    if isinstance(result, (list, tuple)):
        return isinstance(whole, (list, tuple)) and all(any(is_part(item, of) for of in whole) for item in result)
    return result is None or result == whole


class Watch:
    """Damages copies of homes, acts on them, and counts what comes of it.

    =============  ==========================================================================================
    right          the same numbers as from an undamaged folder
    taken          what an edited file says is taken for what it says, whatever that is
    noted          fewer numbers, all of them right, and standard error says which are missing; or a run whose
                   summary is gone is called unfinished
    refused        one line, and exit code 2
    failed         anything else
    =============  ==========================================================================================
    """

    def __init__(self, home, top, capsys):
        self.home, self.top, self.capsys = home, top, capsys
        self.counts, self.wrong = collections.Counter(), []
        self._right = {}

    def act(self, name, action, damage=None):
        """Exit code, result, what is said; the copy is gone then."""
        at = self.top / name
        shutil.copytree(self.home(name), at)
        if damage:
            damage.change(at / damage.path)
        self.capsys.readouterr()
        try:
            code, result = ACTIONS[name][action](at)
            said = self.capsys.readouterr()
            return code, result(said) if code == 0 else None, said
        finally:
            shutil.rmtree(self.top)
            self.top.mkdir()

    def check(self, name, action, damage):
        if (name, action) not in self._right:
            code, self._right[name, action], said = self.act(name, action)
            assert (code, said.err) == (0, ""), (name, action)
        right = self._right[name, action]
        try:
            code, result, said = self.act(name, action, damage)
        except Exception as error:  # What a user would see as a traceback, and what is not to be read afterwards.
            self._count("failed", name, action, damage, f"{type(error).__name__}: {str(error)[:300]}")
            return
        if isinstance(result, dict) and name == "grid" and action == "resume":
            # Checkpoints of members that have come to their ends are not looked at.
            result |= {
                file: right[file] for file in right if "checkpoints" in file and damage.path.is_relative_to(file)
            }
        lines = said.err.splitlines()
        if "Traceback" in said.err or code not in (0, 2):
            self._count("failed", name, action, damage, f"exit {code}: {said.err[-300:]}")
        elif code == 2:
            refused = [line for line in lines if line.startswith("error: ")] == lines[-1:]
            self._count("refused" if refused else "failed", name, action, damage, said.err[-300:])
        elif result == right or damage.is_edit:
            self._count("right" if result == right else "taken", name, action, damage)
        elif not lines and "unfinished" not in said.out:
            self._count("failed", name, action, damage, f"other numbers, and nothing is said: {result} {right}"[:600])
        else:
            # Of an earlier checkpoint than the last.
            rows = numbers(self.home(name))["metrics.jsonl"] if action == "eval" else []
            known = {row["step"]: row for row in rows} | right if rows else right
            partly = action == "report" or is_part(result, known)
            self._count("noted" if partly else "failed", name, action, damage, f"{said.err[-300:]} {result}"[:900])

    def _count(self, outcome, name, action, damage, why=""):
        self.counts[outcome] += 1
        if outcome == "failed":
            self.wrong.append(f"{name}, {action}, {damage.name}: {why}")


@pytest.fixture
def watch(home, tmp_path, capsys):
    """``watch(names, count)``: so many of the homes' cases, spread over them, or all, if that is 0; nothing fails."""

    def some(names, count):
        watch, everything = Watch(home, tmp_path / "again", capsys), list(cases(home, names))
        watch.top.mkdir()
        for case in random.Random(0).sample(everything, count or len(everything)):
            watch.check(*case)
        with capsys.disabled():
            print(f"\ndamage: {sum(watch.counts.values())} of {len(everything)} actions: {dict(watch.counts)}")
        assert not watch.wrong, "\n".join(watch.wrong)

    return some


def test_some_damage_is_survived_said_or_refused(watch):
    watch(["run", "kept"], 40)


@pytest.mark.slow
def test_damage_is_survived_said_or_refused(watch):
    """So many as WRNN_JAX_DAMAGE says, 0 for all."""
    watch(ACTIONS, int(os.environ.get("WRNN_JAX_DAMAGE", 200)))
