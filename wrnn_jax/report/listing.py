"""The runs behind a table, one a line, so that every number can be traced."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from wrnn_jax.report import numbers
from wrnn_jax.report.document import Block, Cell, Paragraph, Table
from wrnn_jax.report.groups import settings
from wrnn_jax.report.metrics import NONE, NOT_SOLVED
from wrnn_jax.report.papertables import PaperTable
from wrnn_jax.report.runs import Run, Unfinished
from wrnn_jax.report.tables import Filling, Other

UNTOLD = {"experiment", "model"}
"""Settings with a place of their own."""
ANY_TASK = (
    "test_loss", "authors_loss", "recall", "test_mse", "solved_step", "val_acc", "test_acc", "test_bits"
)  # fmt: skip
NULLS = {
    "solved_step": NOT_SOLVED, "angle_error": NONE, "eigenvalues_kept": NONE, "eigenvalues_theory": NONE,
    "spectral_radius": NONE,
}  # fmt: skip
"""What None says, where it does not say that a number is not finite."""


def runs_shown(filling: Filling) -> list[Block]:
    """The runs that a table shows."""
    runs = [run for group in filling.shown for run in group.runs]
    return _listing("Runs shown in this table", runs, _keys(filling.table))


def other_runs(filling: Filling) -> list[Block]:
    """The runs of a table's task that it does not show, and why."""
    return _others("Other runs of this table", filling.others, _keys(filling.table))


def runs_of_no_table(runs: Sequence[Run]) -> list[Block]:
    """Runs of no table."""
    return _listing("Runs of no table", runs, ANY_TASK)


def unfinished_runs(unfinished: Sequence[Unfinished]) -> Table:
    """Runs without a summary."""
    rows = [[Cell(name, "code"), Cell("none" if step is None else f"{step:,}", "number")] for name, step in unfinished]
    return Table("Unfinished runs: a run directory without summary.json", ["run", "last step measured"], rows)


def _keys(table: PaperTable) -> list[str]:
    return [*(metric.key for metric in table.metrics), *table.more]


def _others(caption: str, others: Sequence[Other], keys: Sequence[str]) -> list[Block]:
    return _listing(caption, [other.run for other in others], keys, [other.why for other in others])


def _listing(caption: str, runs: Sequence[Run], keys: Sequence[str], why: Sequence[str] = ()) -> list[Block]:
    """A table of runs, and below it the settings that all of them share."""
    if not runs:
        return []
    every = [_told(run) for run in runs]
    shared = dict(set.intersection(*(set(known.items()) for known in every))) if len(runs) > 1 else {}
    header = [
        "run",
        "model",
        "seed",
        "steps",
        "ended",
        *keys,
        "time",
        "settings",
        *(["not shown because"] if why else []),
    ]
    rows = [
        _row(run, keys, {key: value for key, value in known.items() if key not in shared})
        for run, known in zip(runs, every, strict=True)
    ]
    if why:
        rows = [[*row, Cell(reason)] for row, reason in zip(rows, why, strict=True)]
    blocks: list[Block] = [Table(caption, header, rows)]
    if shared:
        blocks.append(Paragraph(f"All of these: {_settings(shared)}."))
    devices = sorted({device for run in runs if (device := run.summary.get("device"))})
    return [*blocks, Paragraph(f"Trained on: {'; '.join(devices)}.")] if devices else blocks


def _row(run: Run, keys: Sequence[str], known: Mapping[str, str]) -> list[Cell]:
    summary = run.summary
    seconds = summary.get("seconds")
    return [
        Cell(run.name, "code"),
        Cell(str(summary.get("model", "unknown")), "name"),
        Cell(str(summary.get("seed", "unknown")), "number"),
        Cell(_measured(summary, "steps"), "number"),
        Cell(str(summary.get("status", "unknown"))),
        *(Cell(_measured(summary, key), "number") for key in keys),
        Cell(NONE if seconds is None else numbers.duration(seconds), "number"),
        Cell(_settings(known) or NONE),
    ]


def _measured(summary: Mapping[str, Any], key: str) -> str:
    """A value as the summary has it, to four digits."""
    if key not in summary:
        return NONE
    value = summary[key]
    if value is None:
        return NULLS.get(key, "not finite")
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _told(run: Run) -> dict[str, str]:
    """Its settings as text; one that is None does not apply."""
    return {key: _text(value) for key, value in settings(run).items() if key not in UNTOLD and value is not None}


def _settings(known: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(known.items()))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)
