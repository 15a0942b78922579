"""Runs in the lines of the paper's tables: which of them each line shows, and the tables that come of it."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from wrnn_jax.report import numbers
from wrnn_jax.report.document import Cell, Table
from wrnn_jax.report.groups import (
    DIVERGED,
    FINISHED,
    INTERRUPTED,
    STATES,
    Group,
    choose,
    grouped,
    misfits,
    others_of_settings,
)
from wrnn_jax.report.metrics import NONE, Metric
from wrnn_jax.report.papertables import Line, PaperTable, setting
from wrnn_jax.report.runs import Run

NO_RUN = "no run"
BY_OTHERS = "published by others; not implemented here"
UNITS = {"steps": "steps", "epochs_done": "epochs"}


class Filled(NamedTuple):
    """A line, the runs that fit it, and the group of them that is shown."""

    line: Line
    groups: Sequence[Group]
    shown: Group | None


class Other(NamedTuple):
    """A run of a table that the table does not show."""

    run: Run
    why: str


class Filling(NamedTuple):
    """A table with its runs: each is in one group that is shown, or among the others."""

    table: PaperTable
    lines: Sequence[Filled]
    others: Sequence[Other]

    @property
    def shown(self) -> list[Group]:
        """The groups that the table shows, from top to bottom."""
        return [filled.shown for filled in self.lines if filled.shown]


def fill(table: PaperTable, runs: Iterable[Run]) -> Filling:
    """Put the runs of a table into its lines.

    A run fits a line if it has all that the line wants. Of the groups that fit, the one that was trained longest is
    shown (see :func:`wrnn_jax.report.groups.choose`): never is one chosen by what it scores.
    """
    runs = [run for run in runs if table.holds(run.known)]
    lines = [_fill(table, line, runs) for line in table.lines]
    shown = {run.name for filled in lines if filled.shown for run in filled.shown.runs}
    others = [Other(run, _why_not(table, lines, run)) for run in runs if run.name not in shown]
    return Filling(table, lines, others)


def comparison(filling: Filling) -> Table:
    """The paper's table with ours beside it."""
    table = filling.table
    header = ["model", *table.facts]
    for metric in table.metrics:
        header += [f"{metric.label}, paper", f"{metric.label}, ours", *([metric.versus] if metric.versus else [])]
    rows = [_row(table, filled) for filled in filling.lines]
    return Table(table.caption, [*header, "seeds", "trained", "our setting", "notes"], rows)


def is_short(table: PaperTable, filled: Filled) -> bool:
    """Whether any run of the group was trained for less than the paper's."""
    return any(value < filled.line.full for value in filled.shown.values(table.length))


def _fill(table: PaperTable, line: Line, runs: Sequence[Run]) -> Filled:
    if line.wants is None:
        return Filled(line, (), None)
    groups = grouped(run for run in runs if not misfits(run, line.wants, _measured(table)))
    return Filled(line, groups, choose(groups, table.length))


def _measured(table: PaperTable) -> tuple[str, str]:
    return table.metrics[0].key, table.length


def _why_not(table: PaperTable, lines: Sequence[Filled], run: Run) -> str:
    """Why the table does not show a run: by the line that it is nearest to."""
    wanting = [filled for filled in lines if filled.line.wants is not None]
    reasons = [misfits(run, filled.line.wants, _measured(table)) for filled in wanting]
    nearest = min(range(len(wanting)), key=lambda at: len(reasons[at]))
    if reasons[nearest]:
        return "; ".join(reasons[nearest])
    shown = wanting[nearest].shown
    own = next(group for group in wanting[nearest].groups if run in group.runs)
    if own.state != shown.state:
        return own.state
    if own.length(table.length) < shown.length(table.length):
        return "shorter than the runs shown"
    if len(own.runs) < len(shown.runs):
        return "fewer seeds than shown"
    return "as long as the runs shown, and before them by name"


def _row(table: PaperTable, filled: Filled) -> list[Cell]:
    line, group = filled.line, filled.shown
    cells = [Cell(line.model, "name"), *(Cell(fact, "number" if fact[0].isdigit() else "text") for fact in line.facts)]
    for metric in table.metrics:
        cells += _beside(metric, filled)
    if group is None:
        note = BY_OTHERS if line.wants is None else ""
        return [*cells, *[Cell(NONE, "missing")] * 3, Cell(note)]
    return [
        *cells,
        Cell(str(len(group.runs)), "number"),
        Cell(_trained(numbers.count(group.values(table.length)), UNITS[table.length])),
        Cell(setting(group.settings.get("lr"), group.settings.get("grad_clip"))),
        Cell("; ".join(_notes(table, filled))),
    ]


def _trained(count: str, unit: str) -> str:
    return f"{count} {unit.removesuffix('s')}" if count == "1" else f"{count} {unit}"


def _beside(metric: Metric, filled: Filled) -> list[Cell]:
    """The paper's cell, ours, and the comparison."""
    line, group = filled.line, filled.shown
    is_published = metric.key in line.published
    paper = line.published.get(metric.key)
    cells = [Cell(metric.published(paper), "paper") if is_published else Cell(NONE, "missing")]
    if group is None:
        cells.append(Cell(NONE if line.wants is None else NO_RUN, "missing"))
        return cells + [Cell(NONE, "missing")] * (metric.compare is not None)
    values = group.values(metric.key)
    is_known = metric.may_be_none or None not in values
    text = metric.ours(values) if is_known else "unknown"
    end = f" ({group.state})" if metric.compare and group.state != FINISHED else ""
    cells.append(Cell(text + end, "ours" if is_known else "missing"))
    if metric.compare:
        comparable = is_known and is_published
        cells.append(Cell(metric.compare(values, paper), "number") if comparable else Cell(NONE, "missing"))
    return cells


def _notes(table: PaperTable, filled: Filled) -> list[str]:
    """What one must know to read the line rightly."""
    line, group = filled.line, filled.shown
    notes = []
    if is_short(table, filled):
        notes.append(f"shorter than the paper's {line.full:,} {UNITS[table.length]}")
    early = [status for status in group.values("status") if STATES[status] == FINISHED and status != "complete"]
    if early:
        notes.append(f"{len(early)} of {len(group.runs)} stopped early: {', '.join(sorted(set(early)))}")
    for state, runs in others_of_settings(group, filled.groups).items():
        if state in (DIVERGED, INTERRUPTED):
            notes.append(f"{runs} more of these settings {state}")
    if group.settings.get("variant") == "authors":
        notes.append("batch as the authors' program makes it")
    if group.settings.get("dataset_note"):
        notes.append(group.settings["dataset_note"])
    return notes
