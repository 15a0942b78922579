"""Runs in the lines of the papers' tables: which of them each line shows, and the tables that come of it."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from wrnn_jax.models import MODELS
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
BY_OTHERS = "published by others"
UNITS = {"steps": "steps", "epochs_done": "epochs", "max_steps": "steps"}


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

    A run fits a line if it has all that the line wants. Of the groups that fit, the one of the longest training is
    shown (see :func:`wrnn_jax.report.groups.choose`): never is one chosen by what it scores.
    """
    runs = [run for run in runs if table.holds(run.known)]
    lines = [_fill(table, line, runs) for line in table.lines]
    shown = {run.name for filled in lines if filled.shown for run in filled.shown.runs}
    others = [Other(run, _why_not(table, lines, run)) for run in runs if run.name not in shown]
    return Filling(table, lines, others)


def comparison(filling: Filling) -> Table:
    """The paper's table with ours beside it; ours alone, where the paper has nothing of it."""
    table = filling.table
    heads = [head for metric in table.metrics for head in _heads(metric, table.is_published)]
    header = [table.names, *table.facts, *heads, "seeds", "trained", "our setting", "notes"]
    return Table(table.caption, header, [_row(table, filled) for filled in filling.lines])


def is_short(table: PaperTable, filled: Filled) -> bool:
    """Whether any run of the group was trained, or allowed to be, for less than the paper's."""
    return any(value < filled.line.full for value in filled.shown.values(table.length))


def _fill(table: PaperTable, line: Line, runs: Sequence[Run]) -> Filled:
    if line.wants is None:
        return Filled(line, (), None)
    fitting = (run for run in runs if not misfits(run, line.wants, _measured(table)))
    groups = grouped(fitting, table.over)
    return Filled(line, groups, choose(groups, table.length))


def _measured(table: PaperTable) -> set[str]:
    return {table.metrics[0].key, table.length, _made(table)}


def _made(table: PaperTable) -> str:
    """The summary's key for how long a run was."""
    return "steps" if table.length == "max_steps" else table.length


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


def _by_others(name: str) -> str:
    """The note on a line that is another paper's: whether this library has the model, though no run is asked for."""
    model = name.lower()
    return f"{BY_OTHERS}; here --model {model}" if model in MODELS else f"{BY_OTHERS}; not implemented here"


def _row(table: PaperTable, filled: Filled) -> list[Cell]:
    line, group = filled.line, filled.shown
    cells = [Cell(line.name, "name"), *(Cell(fact, "number" if fact[0].isdigit() else "text") for fact in line.facts)]
    for metric in table.metrics:
        cells += _beside(metric, filled) if table.is_published else _ours(metric, filled)
    if group is None:
        note = _by_others(line.name) if line.wants is None else ""
        return [*cells, *[Cell(NONE, "missing")] * 3, Cell(note)]
    return [
        *cells,
        Cell(str(group.seeds), "number"),
        Cell(_trained(table, group)),
        Cell(_setting(table, group)),
        Cell("; ".join(_notes(table, filled))),
    ]


def _trained(table: PaperTable, group: Group) -> str:
    made, most = (numbers.count(group.values(key)) for key in (_made(table), table.length))
    unit = UNITS[table.length]
    text = f"{made} {unit.removesuffix('s')}" if made == "1" else f"{made} {unit}"
    return text if made == most else f"{text} of at most {most}"


def _setting(table: PaperTable, group: Group) -> str:
    known = group.settings
    told = [f"{key} {known[key]}" for key in table.told if known.get(key) is not None]
    return ", ".join([setting(known.get("lr"), known.get("grad_clip"), known.get("loss_divisor")), *told])


def _heads(metric: Metric, is_published: bool) -> list[str]:
    """Of the columns of a metric."""
    ours = ["ours, best seed", "ours, mean"] if metric.best else ["ours"]
    heads = [f"{metric.label}, {head}" for head in (["paper", *ours] if is_published else ours)]
    return [*heads, metric.versus] if is_published and metric.versus else heads


def _beside(metric: Metric, filled: Filled) -> list[Cell]:
    """The paper's cell, ours, and the comparison."""
    published, group = filled.line.published, filled.shown
    is_published = metric.key in published
    paper = Cell(metric.published(published[metric.key]), "paper") if is_published else Cell(NONE, "missing")
    cells = [paper, *_ours(metric, filled)]
    if metric.compare:
        comparable = is_published and group is not None and _is_known(metric, group)
        if comparable:
            ours = group.values(metric.key, metric.of_seed)
            cells.append(Cell(metric.compare(ours, published[metric.key]), "number"))
        else:
            cells.append(Cell(NONE, "missing"))
    return cells


def _ours(metric: Metric, filled: Filled) -> list[Cell]:
    """The best of the seeds, if that is wanted, and all of them."""
    line, group = filled.line, filled.shown
    forms = [form for form in (metric.best, metric.ours) if form]
    if group is None:
        return [Cell(NONE if line.wants is None else NO_RUN, "missing")] * len(forms)
    end = f" ({group.state})" if metric.compare and group.state != FINISHED else ""
    if not _is_known(metric, group):
        return [Cell(f"unknown{end}", "missing")] * len(forms)
    note = metric.note(group.runs[0]) if metric.note else ""
    end = f" ({note}){end}" if note else end
    return [Cell(form(group.values(metric.key, metric.of_seed)) + end, "ours") for form in forms]


def _is_known(metric: Metric, group: Group) -> bool:
    """Whether all seeds have it; None is something to have where it may be a result."""
    if metric.may_be_none:
        return all(metric.key in run.summary for run in group.runs)
    return None not in group.values(metric.key)


def _notes(table: PaperTable, filled: Filled) -> list[str]:
    """What one must know to read the line rightly."""
    line, group = filled.line, filled.shown
    notes = []
    for name in table.over:
        values = sorted({run.known[name] for run in group.runs if name in run.known})
        if len(values) > 1:
            notes.append(f"each seed's better of {name} {' and '.join(f'{value:g}' for value in values)}")
    if is_short(table, filled):
        most = "allowed fewer than" if table.length == "max_steps" else "shorter than"
        notes.append(f"{most} the paper's {line.full:,} {UNITS[table.length]}")
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
