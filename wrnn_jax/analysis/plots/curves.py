"""Training curves of one run or many, for any task: Figs. 3, 5, 6 and 8."""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from wrnn_jax.analysis.plots.style import COLORS, GREY, LEGEND, TICKS, WIDTH, Figure, draw_baseline, open_axes
from wrnn_jax.validation import require, require_positive

Row = Mapping[str, Any]
"""What was measured at one step: a line of ``metrics.jsonl``."""
THICK, THIN = 2.2, 0.8
SETS = {"train": "training", "val": "validation", "test": "test"}


class Panel(NamedTuple):
    """One pair of axes: which measurement it shows, and how."""

    metric: str
    """The rows' key. Its first word says on which set it was measured: ``train_``, ``val_`` or ``test_``."""
    label: str
    """Of the vertical axis, with the unit."""
    log: bool = False
    """Whether that axis is logarithmic."""
    scale: float = 1.0
    """Rows' values are drawn times this: 100 makes a share a percentage, on an axis from 0 to 100."""
    thin: str | None = None
    """The key of the same in training, drawn as a thin line where a label has one run alone."""
    chance: str = "chance"
    """The name of the dashed line at the metric's baseline."""
    solved: float | None = None
    """The value (not scaled) at or below which the task counts as solved: another dashed line."""


_IMAGES = (
    Panel("val_loss", "cross-entropy\n(nats, log scale)", log=True, thin="train_loss", chance="guessing"),
    Panel("val_acc", "accuracy (%)", scale=100, thin="train_acc", chance="guessing"),
)


def _recalling(loss: str, metric: str, share: str) -> tuple[Panel, Panel]:
    """Of tasks of recalling: the cross-entropy, and how much is recalled."""
    return (
        Panel(
            "test_loss", f"cross-entropy\n({loss}, log scale)", True, thin="train_loss", chance="remembering nothing"
        ),
        Panel(metric, f"{share}\n(%)", scale=100, chance="remembering nothing"),
    )


PANELS: Mapping[str, tuple[Panel, ...]] = {
    "copy": _recalling("nats a step", "recall", "symbols recalled"),
    "selective": _recalling("nats a token", "recall", "tokens recalled"),
    "recall": _recalling("nats an answer", "test_acc", "answers right"),
    "adding": (
        Panel(
            "test_mse",
            "mean squared error\n(log scale)",
            log=True,
            thin="train_loss",
            chance="always answering 1",
            solved=5e-2,
        ),
    ),
    "smnist": _IMAGES,
    "psmnist": _IMAGES,
    "nscifar10": _IMAGES,
    "hds": (
        Panel("test_mse", "mean squared error\n(log scale)", log=True, thin="train_loss", chance="remembering nothing"),
        Panel("test_acc", "signs right (%)", scale=100, chance="remembering nothing"),
    ),
    "language": (
        Panel("val_loss", "cross-entropy\n(nats a character)", thin="train_loss", chance="knowing frequencies alone"),
        Panel("val_bits", "bits a character", chance="knowing frequencies alone"),
    ),
}
"""What a task's training curves show, by the task's name."""


def training_curves(
    runs: Mapping[str, Sequence[Sequence[Row]]],
    panels: Sequence[Panel],
    *,
    baselines: Mapping[str, float] | None = None,
    steps_per_epoch: float | None = None,
    title: str = "Training curves",
) -> Figure:
    """Measurements over training, a panel below the other, as in the paper's Figs. 3, 5, 6 and 8.

    One run of a label is a line, with what training had as a thin one beside it. Several, which differ in their
    seed, are their arithmetic mean as a line and their range, least to greatest, as a band. Both are
    drawn **only at the steps where all runs of the label have the measurement**: nothing is interpolated, and
    where the first of them stops the line stops.

    Args:
      runs: label -> runs -> rows: ``step``, and any of the panels' keys. A row without a key, or with None, is no
        point of that key's curve; a NaN is a gap in it, also in the mean.
      panels: the axes from top to bottom, such as ``PANELS["copy"]``.
      baselines: metric -> what one scores by chance, in the rows' unit; a dashed line in that metric's panel.
      steps_per_epoch: if given, the horizontal axis counts epochs of so many steps.
      title: of the figure.

    Raises:
      ValueError: for no panel, for a label without a run, or for ``steps_per_epoch`` that is not above 0.
    """
    require(len(panels) > 0, "panels", panels, "at least one Panel")
    for label, seeds in runs.items():
        require(len(seeds) > 0, f"runs[{label!r}]", seeds, "at least one run")
    if steps_per_epoch is not None:
        require_positive("steps_per_epoch", steps_per_epoch)
    figure = Figure((WIDTH, 1.4 + sum(_height(panel) for panel in panels)), layout="constrained")
    rows_of_axes = figure.subplots(
        len(panels), 1, sharex=True, squeeze=False, height_ratios=[_height(panel) for panel in panels]
    )
    for axis, panel in zip(rows_of_axes[:, 0], panels, strict=True):
        for seeds, color in zip(runs.values(), cycle(COLORS), strict=False):
            _draw_runs(axis, seeds, panel, steps_per_epoch or 1, color)
        _finish(axis, panel, (baselines or {}).get(panel.metric))
    axis.set_xlabel("training step" if steps_per_epoch is None else "epoch")
    axis.xaxis.set_major_locator(MaxNLocator(9, **TICKS))
    if not any(line.get_gid() != "baseline" and line.get_xdata().size for ax in figure.axes for line in ax.lines):
        axis.set_xlim(0, 1)
        figure.axes[0].text(0.5, 0.5, "no measurement yet", transform=figure.axes[0].transAxes, ha="center", color=GREY)
    figure.suptitle(title, fontsize=12)
    handles = list(_legend(runs, panels))
    if handles:
        columns = max(1, LEGEND // (8 + max(len(handle.get_label()) for handle in handles)))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _height(panel: Panel) -> float:
    """Inches; a logarithmic axis shows orders of magnitude, and is worth more room."""
    return 3.0 if panel.log else 2.0


def _draw_runs(axis: Axes, seeds: Sequence[Sequence[Row]], panel: Panel, unit: float, color: str) -> None:
    """All runs of one label."""
    if panel.thin and len(seeds) == 1:
        steps, values = _shared(seeds, panel.thin)
        _line(axis, steps / unit, panel.scale * values[0], gid=panel.thin, color=color, linewidth=THIN, alpha=0.7)
    steps, values = _shared(seeds, panel.metric)
    values = panel.scale * values
    if len(seeds) > 1:
        axis.fill_between(steps / unit, values.min(0), values.max(0), color=color, alpha=0.2, lw=0, gid="range")
    _line(axis, steps / unit, values.mean(0), gid=panel.metric, color=color, linewidth=THICK)


def _shared(seeds: Sequence[Sequence[Row]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps at which every run has ``key``, ascending ``(S,)``, and its values there ``(runs, S)``."""
    curves = [
        {row["step"]: row[key] for row in rows if row.get("step") is not None and row.get(key) is not None}
        for rows in seeds
    ]
    steps = sorted(reduce(set.intersection, map(set, curves)))
    values = [[curve[step] for step in steps] for curve in curves]
    return np.array(steps, float), np.array(values, float)


def _line(axis: Axes, x: np.ndarray, y: np.ndarray, **style) -> None:
    """A single point gets a dot, since a line through it has no length."""
    axis.plot(x, y, marker="o" if np.isfinite(y).sum() == 1 else None, **style)


def _finish(axis: Axes, panel: Panel, baseline: float | None) -> None:
    """Scales, labels, and the dashed lines with room around them."""
    open_axes(axis)
    axis.set_ylabel(panel.label)
    if panel.log:
        axis.set_yscale("log")
    elif panel.scale == 100:
        axis.set_ylim(-4, 104)
    unit = " %" if panel.scale == 100 else ""
    for value, name, offset in ((baseline, panel.chance, 3), (panel.solved, "solved", -3)):
        if value is not None:
            draw_baseline(axis, panel.scale * value, f"{name}: {panel.scale * value:.3g}{unit}", offset=offset)
            if panel.log:
                low, high = axis.get_ylim()
                axis.set_ylim(min(low, value / 3), max(high, 2 * value))


def _legend(runs: Mapping[str, Sequence[Sequence[Row]]], panels: Sequence[Panel]) -> Iterable[Artist]:
    """A line for each label, then what thick, thin and band mean, where there are such."""
    for (label, seeds), color in zip(runs.items(), cycle(COLORS), strict=False):
        name = label if len(seeds) == 1 else f"{label} ({len(seeds)} seeds)"
        yield Line2D([], [], color=color, linewidth=THICK, label=name)
    counts = {min(len(seeds), 2) for seeds in runs.values()}
    if 1 in counts and (thin := [panel for panel in panels if panel.thin]):
        for key, width in ((thin[0].metric, THICK), (thin[0].thin, THIN)):
            yield Line2D([], [], color=GREY, linewidth=width, label=SETS.get(key.split("_")[0], key))
    if 2 in counts:
        yield Patch(facecolor=GREY, alpha=0.3, label="line: mean of seeds, band: their range")
