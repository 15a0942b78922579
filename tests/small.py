"""Runs and grids of a few steps, and all that their folders say."""

import contextlib
import json
import os

import pytest

from experiments import flags
from wrnn_jax.training import loop
from wrnn_jax.training.stored import rows_of

TINY = ["--T", 0, "--n-hid", 4, "--n-ch", 1, "--batch", 4, "--stop-below", 0, "--log-interval", 2]
TINY += ["--checkpoint-interval", 3]
TIMES = ("seconds", "steps_per_second")
_trainers = {}
"""Of tiny networks, by members and shards: they are compiled once."""


def draw_nothing(patch):
    """Programs draw no figures while these patches hold."""
    for drawing in ("experiment.draw_figures", "grid_report.draw_figures", "grid_report._draw"):
        patch.setattr(f"experiments.{drawing}", lambda *_: None)


@contextlib.contextmanager
def quickly():
    """Within it a run costs little but what it reads and writes: there is one trainer for all runs of a shape, the same
    flags are parsed once, no pictures are drawn, and no disk is waited for."""

    def once(make, key, made):
        def make_once(*arguments, **options):
            which = key(*arguments, **options)
            if which not in made:
                made[which] = make(*arguments, **options)
            return made[which]

        return make_once

    trainer = once(loop.make_trainer, lambda *_, members, shards, **options: (members, shards), _trainers)
    read = once(flags.read, lambda experiment, arguments, models, more: (experiment.name, *models, *arguments), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.parts.make_trainer", trainer)
        patch.setattr(flags, "read", read)
        draw_nothing(patch)
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def numbers(folder):
    """All that a run's or a grid's folder says, as it is read, but times and the checkpoints before the last of each
    run; None for what is unreadable."""
    said = {}
    for path in sorted(folder.rglob("*")):
        if path.name in READERS:
            try:
                found = READERS[path.name](path)
            except (OSError, ValueError, KeyError):
                found = None
            said[path.relative_to(folder).as_posix()] = found
    return said


def untimed(row):
    return {key: value for key, value in row.items() if key not in TIMES}


def _last_digest(checkpoints):
    last = max((step for step in checkpoints.iterdir() if step.name.isdigit()), key=lambda step: int(step.name))
    return last.name, json.loads((last / "digest/metadata").read_text())["sha256"]


READERS = {
    "metrics.jsonl": lambda path: [untimed(row) for row in rows_of(path.parent).rows],
    "grid.jsonl": lambda path: [untimed(json.loads(line)) for line in path.read_text().splitlines()],
    "summary.json": lambda path: untimed(json.loads(path.read_text())),
    "checkpoints": _last_digest,
}
