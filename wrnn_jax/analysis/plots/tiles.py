"""A cell of a heat map: a number on its colour, and what is not in that number."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.patches import Patch, Rectangle

from wrnn_jax.analysis.plots.style import GREY

EMPTY = {"facecolor": "0.93", "edgecolor": "0.65", "linewidth": 0}
HATCHED = {**EMPTY, "hatch": "////"}
GAP = {"fill": False, "edgecolor": "white", "linewidth": 4}
BEST = {"fill": False, "edgecolor": "black", "linewidth": 2}


class Setting(Protocol):
    """What a cell shows, such as a :class:`wrnn_jax.grids.results.Setting`."""

    fields: Mapping[str, Any]
    """The grid's fields but the seed."""
    mean: float | None
    """Over the seeds that neither diverged nor are missing; None where there are none."""
    members: int
    """All seeds."""
    diverged: int
    missing: int

    def order(self, greatest: bool) -> tuple:
        """A key to sort by, the best first."""


class Colors(NamedTuple):
    """How means become colours."""

    norm: Normalize
    map: Colormap
    scale: float
    """Means are shown times this."""

    def __call__(self, mean: float) -> tuple[float, ...]:
        """Red, green, blue; of what a logarithm does not have, such as 0, those of the least value that it has."""
        return self.map(float(self.norm(max(self.scale * mean, self.norm.vmin))))[:3]

    def text(self, mean: float) -> str:
        """Two digits, or one decimal: 1.2e-05, 0.16, 97.1."""
        value = self.scale * mean
        if 0 < abs(value) < 0.01:
            return f"{value:.1e}"
        return f"{value:#.2g}" if abs(value) < 9.95 else f"{value:.1f}"


def colors_of(settings: Iterable[Setting], greatest: bool, log: bool, scale: float) -> Colors | None:
    """One scale for all, the best bright; None where no setting has a mean.

    It spans a factor of 10 or more if logarithmic, else 1 % or more: nearly equal means shall not look different.
    """
    values = [scale * setting.mean for setting in settings if setting.mean is not None]
    if not values:
        return None
    high = max(values)
    if log and high > 0:
        low = min(value for value in values if value > 0)
        wider = max(1, math.sqrt(10 * low / high))
        norm = LogNorm(low / wider, high * wider)
    else:
        low = min(values)
        wider = max(0, (0.01 * max(high, -low) or 1) - (high - low)) / 2
        norm = Normalize(low - wider, high + wider)
    return Colors(norm, colormaps["viridis" if greatest else "viridis_r"], scale)


def draw_cell(axis: Axes, place: tuple[int, int], setting: Setting, colors: Colors | None) -> None:
    """The number, and below it how many members are not in it; hatched where all diverged."""
    notes = "\n".join(_notes(setting))
    if setting.mean is None:
        _draw_box(axis, place, **(HATCHED if setting.diverged == setting.members else EMPTY))
        plain = {"boxstyle": "square,pad=0.2", "facecolor": EMPTY["facecolor"], "edgecolor": "none"}
        axis.text(*place, notes, ha="center", va="center", fontsize=7, color=GREY, bbox=plain)
    else:
        color = colors(setting.mean)
        _draw_box(axis, place, facecolor=color, gid="cell")
        ink = {"color": ink_on(color), "ha": "center", "textcoords": "offset points"}
        axis.annotate(colors.text(setting.mean), place, (0, 4 if notes else 0), va="center", fontsize=10, **ink)
        if notes:
            axis.annotate(notes, place, (0, -2), va="top", fontsize=7, linespacing=1, **ink)
    _draw_box(axis, place, **GAP)


def outline(axis: Axes, place: tuple[int, int], linestyle: str) -> None:
    """A frame around a cell, in the gap between it and others."""
    _draw_box(axis, place, **BEST, linestyle=linestyle, gid="best", zorder=3, clip_on=False)


def ink_on(color: Sequence[float]) -> str:
    """Black or white, whichever has more contrast: by the relative luminance of WCAG 2.1, at least 4.5 to 1."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color]
    luminance = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "black" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "white"


def legend(settings: Sequence[Setting], outlines: set[str]) -> list[Patch]:
    """What frames, hatches and notes mean, where there are such."""
    names = {"-": "best of all" if "--" in outlines else "best", "--": "best of its panel"}
    handles = [Patch(**BEST, linestyle=line, label=name) for line, name in names.items() if line in outlines]
    if any(setting.diverged == setting.members for setting in settings):
        handles.append(Patch(**HATCHED, label="all diverged"))
    return handles


def _draw_box(axis: Axes, place: tuple[int, int], **style: Any) -> None:
    column, row = place
    axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **style))


def _notes(setting: Setting) -> list[str]:
    counts = {"diverged": setting.diverged, "missing": setting.missing}
    if setting.members == 1:
        return [what for what, count in counts.items() if count]
    return [f"{count}/{setting.members} {what}" for what, count in counts.items() if count]
