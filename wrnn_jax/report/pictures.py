"""The pictures of a report: curves of the runs that tables show, accuracy against size, what runs drew themselves."""

import io
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from wrnn_jax import console
from wrnn_jax.report import published
from wrnn_jax.report.document import Image
from wrnn_jax.report.groups import FINISHED, Group
from wrnn_jax.report.tables import Filled, Filling, is_short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from wrnn_jax.analysis.plots import Point

DPI = 150
REDRAWN = "training.png"
"""A run's own picture that the curves here stand for."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def pictures(filling: Filling) -> Iterator[Image]:
    """All pictures of a table, best known first."""
    yield from curves(filling)
    if filling.table.slug.endswith("-sizes"):
        yield from parameters(filling)
    yield from run_pictures(filling)


def curves(filling: Filling) -> Iterator[Image]:
    """Training curves of the groups that a table shows, a figure for each that its lines name."""
    from wrnn_jax.analysis import plots  # Not before: a report without pictures need not wait for matplotlib.

    table = filling.table
    for name in dict.fromkeys(filled.line.figure for filled in filling.lines):
        shown = {
            _label(filled): filled.shown for filled in filling.lines if filled.line.figure == name and filled.shown
        }
        runs = {label: rows for label, group in shown.items() if (rows := _rows(group))}
        if runs:
            panels = plots.PANELS[table.experiment]
            title = f"{table.title}, {name}" if name else table.title
            baselines = _chance(shown, [panel.metric for panel in panels])
            figure = plots.training_curves(runs, panels, baselines=baselines, title=title)
            file = "-".join(filter(None, [table.slug, re.sub(r"[^\w.-]", "", name), "curves.png"]))
            caption = f"Training curves, {title}. Of several seeds: the mean, and their range as a band."
            yield Image(file, _png(figure), caption)


def parameters(filling: Filling) -> Iterator[Image]:
    """Accuracy against the number of parameters, as the paper's Fig. 7, of the sizes that were trained."""
    from wrnn_jax.analysis import plots

    table = filling.table
    suites = {}
    for kind in dict.fromkeys(filled.line.name for filled in filling.lines):
        sizes = [filled for filled in filling.lines if filled.line.name == kind and filled.shown]
        points = [plots.Point(_sized(filling, filled), *_parameters_and_accuracy(filled.shown)) for filled in sizes]
        if points:
            suites[kind] = plots.Suite(points, printed_points(table.experiment, kind))
    if suites:
        caption = f"Parameters against accuracy, as in Fig. 7 of {published.PAPER}; hollow: what its Table 2 prints."
        yield Image(
            f"{table.slug}.png", _png(plots.parameters_figure({published.written(table.experiment): suites})), caption
        )


def printed_points(task: str, kind: str) -> list["Point"]:
    """What the paper's Table 2 says of the networks that its Fig. 7 shows in other sizes: wRNN (16c), iRNN."""
    from wrnn_jax.analysis import plots

    rows = [row for row in published.TABLE_2 if row.name == kind]
    return [plots.Point(f"n = {row.units}", row.params, 100 * row.accuracy[task]) for row in rows]


def _parameters_and_accuracy(group: Group) -> tuple[float, float]:
    return group.values("params")[0], 100 * mean(group.values("test_acc"))


def _sized(filling: Filling, filled: Filled) -> str:
    note = _note(filling, filled)
    return f"{filled.line.label}, {note}" if note else filled.line.label


def run_pictures(filling: Filling) -> Iterator[Image]:
    """What one run drew itself: the first of those shown that has pictures."""
    for group in filling.shown:
        for run in group.runs:
            files = sorted(run.folder.glob("figures/*.png")) if run.folder else ()
            images = [
                Image(f"{filling.table.slug}-{file.name}", png, f"{file.stem}: as the run {run.name} drew it")
                for file in files
                if file.name != REDRAWN and (png := _picture(file))
            ]
            if images:
                yield from images
                return


def _picture(file: Path) -> bytes | None:
    """A PNG's bytes; None, and a word on it, if it is none or not whole."""
    content = file.read_bytes()
    if _is_whole(content):
        return content
    console.note(f"{file}: left out, as it is no whole PNG")
    return None


def _is_whole(png: bytes) -> bool:
    """Whether each chunk (length, kind, data, CRC of the latter two) is as it was written, up to the end's."""
    at = len(PNG_SIGNATURE)
    while png.startswith(PNG_SIGNATURE) and at < len(png):
        end = at + 8 + int.from_bytes(png[at : at + 4])
        if zlib.crc32(png[at + 4 : end]) != int.from_bytes(png[end : end + 4]):
            return False
        if png[at + 4 : at + 8] == b"IEND":
            return True
        at = end + 4
    return False


def _label(filled: Filled) -> str:
    name, state = filled.line.label or filled.line.name, filled.shown.state
    return name if state == FINISHED else f"{name} ({state})"


def _note(filling: Filling, filled: Filled) -> str:
    if filled.shown.state != FINISHED:
        return filled.shown.state
    return "short run" if is_short(filling.table, filled) else ""


def _rows(group: Group) -> list[list[dict[str, Any]]]:
    return [rows for run in group.runs if (rows := run.rows())]


def _chance(shown: Mapping[str, Group], metrics: Sequence[str]) -> dict[str, float]:
    """What the runs' summaries say that one scores without memory, by the panel's metric."""
    summary = next(iter(shown.values())).runs[0].summary
    chance = {metric: summary.get(f"memoryless_{metric.split('_')[-1]}") for metric in metrics}
    return {metric: value for metric, value in chance.items() if isinstance(value, int | float)}


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI)
    return buffer.getvalue()
