"""What run directories hold, read: whole, or with a word on what is not, or refused in one line."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from wrnn_jax import console
from wrnn_jax.jsonfiles import LONGEST, DamagedFile, Rows, is_number, read_object, read_rows
from wrnn_jax.validation import InvalidValue

CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
MEASUREMENTS = (
    *("test_loss", "authors_loss", "recall", "test_mse", "test_acc", "angle_error", "val_acc", "val_loss"),
    *("val_bits", "test_bits"),
)
NUMBERS = (
    *("T", "steps", "max_steps", "epochs", "epochs_done", "params", "seconds", "lr", "grad_clip", "seed"),
    *("solved_step", "n_hid", "n_ch", "horizon", "weight_decay", "loss_divisor"),
    *MEASUREMENTS,
)
"""Fields of a summary that are numbers."""
FORMER = (
    *("n_ch", "ksize", "act", "init", "speed", "encoder_init", "use_bias", "bias_init"),
    *("freeze_encoder", "freeze_recurrence"),
)
"""Fields that were in the config of every model before each had its own: of one that has them not, they say nothing."""
SOLVED = "solved"
BELOW = "below the loss asked for"
STALLED = "out of patience"
COMPLETE = "complete"
DIVERGED = "diverged"
INTERRUPTED = "interrupted"
ENDED_AT_A_RECORD = (SOLVED, BELOW, STALLED, COMPLETE)
"""Statuses of runs that have a row of metrics of their last step."""


def read_config(path: Path, file: str = CONFIG) -> dict[str, Any]:
    """A run's ``config.json``: ``experiment``, ``config`` and what else it says.

    Raises:
      InvalidValue: if there is none, or it cannot be read.
    """
    try:
        about = read_object(path / file, keys=("config",))
        sections = about["config"]
        if not (isinstance(sections, dict) and all(isinstance(section, dict) for section in sections.values())):
            raise DamagedFile("its config is no sections of fields")
    except (OSError, DamagedFile) as error:
        raise InvalidValue("logdir", str(path), f"a run's folder: its {file} is unreadable ({error})") from error
    return about


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of all sections of a config but ``run``; their names are unique, as they are flags."""
    sections = (section for name, section in config.items() if name != "run")
    return {field: value for section in sections for field, value in section.items()}


def read_summary(path: Path) -> dict[str, Any]:
    """A run's ``summary.json``.

    Raises:
      InvalidValue: if there is none, or it cannot be read.
    """
    try:
        summary = read_object(path / SUMMARY, keys=("status", "steps"))
        require_numbers(summary)
        if not (isinstance(summary["steps"], int) and summary["steps"] >= 0):
            raise DamagedFile(f"steps = {summary['steps']!r} is no number of steps"[:LONGEST])
    except (OSError, DamagedFile) as error:
        raise InvalidValue("runs", str(path), f"a run that has ended: its {SUMMARY} is unreadable ({error})") from error
    return summary


def require_numbers(summary: Mapping[str, Any]) -> None:
    """What is a number in a run's summary is one, or None where it is not finite or unknown.

    Raises:
      DamagedFile: naming the first that is not.
    """
    for key in NUMBERS:
        value = summary.get(key)
        if value is not None and not is_number(value):
            raise DamagedFile(f"{key} = {value!r} is no number"[:LONGEST])


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's ``metrics.jsonl`` that are whole; whatever is not there is noted, as far as it can be told.

    Raises:
      OSError: if there is such a file and it cannot be read.
    """
    found = rows_of(path)
    note_damage(path, found, recorded(path))
    return found.rows


def rows_of(path: Path) -> Rows:
    """What a run's ``metrics.jsonl`` holds; says nothing, and raises as above."""
    return read_rows(path / METRICS, keys=("step",))


def note_damage(path: Path, found: Rows, last: int) -> None:
    """Say what is missing among the rows of the run in ``path``, which has written them up to that of step ``last``."""
    file, rows = path / METRICS, found.rows
    if found.damage:
        lines = "lines" if len(found.damage) > 1 else "line"
        reason = next(iter(found.damage.values()))
        console.note(f"{file}: damaged, and left out: {lines} {', '.join(_ranges(found.damage))} ({reason})")
    for name in dict.fromkeys(name for row in rows for name in row):
        without = [row["step"] for row in rows if name not in row]
        if without:
            console.note(f"{file}: no {name} at step {', '.join(map(str, without[:5]))}{' …' * (len(without) > 5)}")
    there = max((row["step"] for row in rows), default=0)
    if there < last:
        end = f"its rows end at step {there}" if rows else "it has no rows"
        console.note(f"{file}: {end}, and the run recorded step {last}: what it had beyond is lost")


def recorded(path: Path) -> int:
    """The last step of which the run in ``path`` is known to have written a row of metrics; 0 if none is."""
    about, summary = {}, {}
    # Whoever needs these files says what is wrong with them.
    with contextlib.suppress(InvalidValue):
        about = read_config(path)
    with contextlib.suppress(InvalidValue):
        summary = read_summary(path)
    known = [last_record(max(saved_steps(path / "checkpoints"), default=0), about)]
    steps, most = summary.get("steps"), summary.get("max_steps")
    if isinstance(steps, int) and isinstance(most, int):
        # One that was resumed with fewer steps to make ended where it was.
        at_a_record = summary["status"] in ENDED_AT_A_RECORD and steps <= most
        known.append(steps if at_a_record else last_record(steps, about))
    return max(known)


def saved_steps(folder: Path) -> list[int]:
    """The steps by whose names there is something in a folder of checkpoints, the least first."""
    return sorted(int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal())


def last_record(step: int, about: Mapping[str, Any]) -> int:
    """The last step up to ``step`` at which a record is due by a run's ``config.json``; 0 if that does not say."""
    interval = fields(about.get("config", {})).get("log_interval")
    return step // interval * interval if isinstance(interval, int) and interval > 0 else 0


def _ranges(lines: Iterable[int]) -> Iterator[str]:
    """1, 2, 3, 7 as "1-3", "7"."""
    for _, pairs in groupby(enumerate(lines), key=lambda pair: pair[1] - pair[0]):
        first, *others = (line for _, line in pairs)
        yield f"{first}-{others[-1]}" if others else str(first)
