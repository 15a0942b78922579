"""What came of a grid: its files, its ranking, its figures, its best member."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cli import FAILURE
from experiments.experiment import draw_figures, restore, save_figure, unchanging
from experiments.grid_flags import Grid, Member, spelled
from experiments.parts import Parts
from experiments.settings import Experiment, RunConfig
from wrnn_jax import console
from wrnn_jax.grids import results
from wrnn_jax.tasks import Task
from wrnn_jax.training.fit import DIVERGED, INTERRUPTED
from wrnn_jax.training.rundir import GridDirectory, RunDirectory
from wrnn_jax.training.state import with_best
from wrnn_jax.training.stored import read_metrics, read_summary, recorded, rows_of

FIRST = ("lr", "grad_clip")
"""The axes of the heat map, where the grid has them; else its first ones."""
CURVES = 6
"""Of so many settings, the best ones, curves are drawn."""
BOOKS = ("step", "seconds", "steps_per_second")
"""What a row of metrics has besides metrics."""


def ranking(task: Task) -> tuple[str, bool]:
    """The metric by which members are ranked, and whether its greatest value is the best: the one by which validation
    picks parameters; where there is no validation, as sequences never run out, the watched loss."""
    return (task.score, not task.score_falls) if task.score else (task.monitor, False)


def member_folder(home: GridDirectory, member: Member) -> Path:
    """A member's run directory."""
    parts = (f"{field}-{_text(value)}".replace("_", "-") for field, value in member.settings.items())
    return home.members / "_".join(parts)


def words(settings: Mapping[str, Any]) -> str:
    """Settings for a reader."""
    return ", ".join(f"{field} {_text(value)}" for field, value in settings.items())


def _text(value: Any) -> str:
    return str(value).removesuffix(".0") if isinstance(value, float) else spelled(value)


def _cell(value: Any) -> Any:
    """As a table's cell has it."""
    return spelled(value) if isinstance(value, tuple) else value


def write_rows(grid: Grid, home: GridDirectory, task: Task) -> list[dict[str, Any]]:
    """Write ``grid.csv`` and ``grid.jsonl``; the rows, ranked."""
    rows = results.ranked(_rows(grid, home), *ranking(task))
    results.write_rows(home.path, rows)
    return rows


def report(experiment: Experiment, grid: Grid, home: GridDirectory, members: Mapping[int, Parts]) -> int:
    """Write rows and figures, say what is best; the exit code."""
    task = members[0].task
    metric, greatest = ranking(task)
    rows = write_rows(grid, home, task)
    settings = results.settings(rows, grid.axes, metric)
    console.say(results.ranking_table(settings, metric, greatest))
    _draw(experiment, home, settings, rows, task, _title(experiment, grid))
    best = rows[0]
    if best["rank"] is None or best["status"] == DIVERGED:
        console.say(f"every member diverged\n{home.path}")
        return FAILURE
    folder = home.path / best["folder"]
    parts = members[best["member"]]
    state = with_best(restore(parts.trainer(), parts.config.train.seed, folder))
    config = dataclasses.replace(parts.config, run=RunConfig(logdir=str(folder)))
    draw_figures(experiment, parts, state, RunDirectory(folder, experiment.name, config, True, unchanging(parts)))
    which = words({field: best[field] for field in grid.axes})
    console.say(f"best: {which}: {metric} {best[metric]:.4g}\n{folder}\n{home.path}")
    return 0


def _rows(grid: Grid, home: GridDirectory) -> list[dict[str, Any]]:
    """One for each member, of what its folder says."""
    found = [_read(member_folder(home, member)) for member in grid.members]
    metrics = dict.fromkeys(name for last, summary in found for name in _metrics(last, summary))
    rows = []
    for number, (member, (last, summary)) in enumerate(zip(grid.members, found, strict=True)):
        rows.append(
            {
                "member": number,
                **{field: _cell(value) for field, value in member.settings.items()},
                "status": summary.get("status", INTERRUPTED if last else "pending"),
                "step": summary.get("steps", last.get("step", 0)),
                **{name: summary.get(name, last.get(name)) for name in metrics},
                "solved_step": summary.get("solved_step"),
                "best_step": summary.get("best_step"),
                "seconds": summary.get("seconds", last.get("seconds")),
                "folder": member_folder(home, member).relative_to(home.path).as_posix(),
            }
        )
    return rows


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A member's last row of metrics and its summary, as far as there are any."""
    rows = read_metrics(folder)
    # Where the last is lost, an earlier one's numbers are not the member's.
    last = rows[-1] if rows and rows[-1]["step"] >= recorded(folder) else {}
    return last, read_summary(folder) if (folder / "summary.json").exists() else {}


def _metrics(last: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    return [*(name for name in last if name not in BOOKS), *(name for name in summary if name.startswith("test_"))]


def _draw(
    experiment: Experiment,
    home: GridDirectory,
    settings: Sequence[results.Setting],
    rows: Sequence[Mapping[str, Any]],
    task: Task,
    title: str,
) -> None:
    """The heat map over the settings, and the curves of the best of them."""
    from wrnn_jax.analysis import plots

    metric, greatest = ranking(task)
    panels = plots.PANELS[experiment.name]
    panel = next(panel for panel in panels if panel.metric == metric)
    fields = [field for field in settings[0].fields if len({setting.fields[field] for setting in settings}) > 1]
    x, y, *_ = *sorted(fields, key=lambda field: FIRST.index(field) if field in FIRST else len(FIRST)), None, None
    if x:
        look = {"label": panel.label.replace("\n", " "), "log": panel.log, "scale": panel.scale}
        heatmap = plots.grid_heatmap(settings, x=x, y=y, greatest=greatest, title=title, **look)
        save_figure(heatmap, home.figures / "heatmap.png")
    curves = {}
    for setting in sorted(settings, key=lambda setting: setting.order(greatest))[:CURVES]:
        name = words(setting.fields) or experiment.name
        members = [row for row in rows if all(row[field] == value for field, value in setting.fields.items())]
        curves[name] = [rows_of(home.path / row["folder"]).rows for row in members]
    curves = {name: [run for run in runs if run] for name, runs in curves.items()}
    curves = {name: runs for name, runs in curves.items() if runs}
    if curves:
        figure = plots.training_curves(curves, panels, baselines=task.chance, title=title)
        save_figure(figure, home.figures / "curves.png")


def _title(experiment: Experiment, grid: Grid) -> str:
    """What all members have in common."""
    common = {"T": experiment.stem(grid.base.task), "model": grid.base.model.model}
    return ", ".join([experiment.name, *(text for field, text in common.items() if field not in grid.axes)])
