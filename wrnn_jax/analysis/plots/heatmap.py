"""What the hyper-parameters of a grid make of a metric: a heat map, or one for each combination of the other fields."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import accumulate
from math import ceil, prod
from numbers import Real
from operator import mul
from textwrap import fill
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from wrnn_jax.analysis.plots.style import Figure
from wrnn_jax.analysis.plots.tiles import Setting, colors_of, draw_cell, legend, outline
from wrnn_jax.validation import require, require_choice, require_positive

NAMES = {"lr": "learning rate", "grad_clip": "gradient-norm clip", "weight_decay": "weight decay"}
"""What an axis is called where its field's name says less."""
ACROSS = 12  # most cells side by side, those of all panels of a row
NARROW, BROAD, HIGH = 0.72, 1.15, 0.52  # inches: a cell's least and greatest width, and its height
LETTER, LINE = 0.085, 0.18  # inches: the width of a letter of 10 points, and the height of a line


class Plane(NamedTuple):
    """Where settings stand: the fields across and along a panel and those that tell panels apart, with their values."""

    x: str
    y: str | None
    levels: Mapping[str | None, Sequence[Any]]

    @property
    def others(self) -> list[str]:
        """The fields that tell panels apart."""
        return [field for field in self.levels if field not in (self.x, self.y)]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a panel."""
        return len(self.levels[self.y]), len(self.levels[self.x])

    def indices(self, setting: Setting, *fields: str | None) -> tuple[int, ...]:
        """Which of the fields' values a setting has."""
        return tuple(self.levels[field].index(setting.fields.get(field)) for field in fields)


def grid_heatmap(
    settings: Sequence[Setting],
    *,
    x: str,
    y: str | None = None,
    label: str,
    greatest: bool,
    log: bool = False,
    scale: float = 1.0,
    title: str = "Grid of hyper-parameters",
) -> Figure:
    """The mean over seeds of every setting of a grid, as a number in a coloured cell; **brighter is better**.

    Each combination of the fields that are neither ``x`` nor ``y`` has a panel; all panels have one colour scale. The
    values of a field are sorted if they are numbers, else in the order in which they come. The best setting
    of each panel is outlined, dashed where another panel's is better; where several are equal, all are. A cell
    says how many of its members diverged or are missing; it is hatched where all diverged, and blank where
    the grid has no such setting.

    Args:
      settings: the cells, with the same fields each.
      x: the field of the horizontal axis.
      y: the field of the vertical axis; None: each panel is a single row.
      label: of the metric, with its unit, and "log scale" where it is one, as a ``Panel`` has it.
      greatest: whether the greatest mean is the best, as of an accuracy; else the least, as of a loss.
      log: whether colours are logarithmic. They then span a factor of 10 at least, else 1 %.
      scale: means are shown times this: 100 makes a share a percentage.
      title: of the figure.

    Raises:
      InvalidValue: for no setting, two with the same fields, ``x`` or ``y`` that is no field of theirs, one field for
        both, or ``scale`` that is not above 0.
    """
    plane = _plane(settings, x, y)
    require_positive("scale", scale)
    panels = _panels(settings, plane)
    colors = colors_of(settings, greatest, log, scale)
    figure, axes = _figure(plane, panels, title)
    for axis, cells in zip(axes, panels, strict=True):
        for setting in cells:
            draw_cell(axis, plane.indices(setting, x, y), setting, colors)
    outlined = list(_best(panels, greatest))
    for at, setting, line in outlined:
        outline(axes[at], plane.indices(setting, x, y), line)
    if colors:
        wide, high = figure.get_size_inches()
        place = {"location": "bottom", "shrink": min(1, 6 / wide), "aspect": min(wide, 6) / 0.15, "pad": 0.1 / high}
        bar = figure.colorbar(ScalarMappable(colors.norm, colors.map), ax=axes, **place)
        lines = _caption(settings, label, greatest)
        bar.set_label("\n".join(_broken(line, wide) for line in lines))
    handles = legend(settings, {line for *_, line in outlined})
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _plane(settings: Sequence[Setting], x: str, y: str | None) -> Plane:
    require(len(settings) > 0, "settings", settings, "at least one Setting")
    fields = settings[0].fields
    require_choice("x", x, fields)
    if y is not None:
        require_choice("y", y, [field for field in fields if field != x])
    seen = [tuple(setting.fields.values()) for setting in settings]
    require(len(set(seen)) == len(seen), "settings", seen, "different from each other")
    levels = {field: _in_order([setting.fields[field] for setting in settings]) for field in fields}
    return Plane(x, y, levels if y else {**levels, None: [None]})


def _in_order(values: Sequence[Any]) -> list[Any]:
    different = list(dict.fromkeys(values))
    return sorted(different) if all(map(_is_number, different)) else different


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _panels(settings: Sequence[Setting], plane: Plane) -> list[list[Setting]]:
    """The cells of each panel, the first of the other fields outermost."""
    panels = defaultdict(list)
    for setting in settings:
        panels[plane.indices(setting, *plane.others)].append(setting)
    return [panels[indices] for indices in sorted(panels)]


def _best(panels: Sequence[Sequence[Setting]], greatest: bool) -> Iterator[tuple[int, Setting, str]]:
    """Panel, setting and line of each outline: solid around the best of all, dashed around another panel's best."""
    first = min(setting.order(greatest) for cells in panels for setting in cells)
    for at, cells in enumerate(panels):
        first_here = min(setting.order(greatest) for setting in cells)
        for setting in cells:
            if setting.mean is not None and setting.order(greatest) == first_here:
                yield at, setting, "-" if first_here == first else "--"


def _figure(plane: Plane, panels: Sequence[Sequence[Setting]], title: str) -> tuple[Figure, list[Axes]]:
    """The panels with all that is written around cells, and room for them."""
    high, wide = plane.shape
    columns = _columns(len(panels), [len(plane.levels[field]) for field in plane.others], max(1, ACROSS // wide))
    rows = ceil(len(panels) / columns)
    width = min(max(7 / (columns * wide), NARROW), BROAD)
    across = max(6.0, columns * (wide * width + 0.3) + 0.7)
    title = _broken(title, across / 1.2)
    titles = [_title(cells[0], plane, wide * width) for cells in panels]
    values = [_broken(_level(plane.x, value), width) for value in plane.levels[plane.x]]
    breaks = title.count("\n") + _most_breaks(values) + rows * _most_breaks(titles)
    figure = Figure((across, rows * (high * HIGH + 0.6) + 1.9 + LINE * breaks), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for at, (axis, name) in enumerate(zip(grid, titles, strict=False)):
        axis.set_title(name, fontsize=10)
        _name_axes(axis, plane, values, is_left=at % columns == 0, is_lowest=at + columns >= len(panels))
    for axis in grid[len(panels) :]:
        axis.remove()
    figure.suptitle(title, fontsize=12)
    return figure, list(grid[: len(panels)])


def _broken(text: str, inches: float) -> str:
    return fill(text, int(inches / LETTER))


def _most_breaks(texts: Sequence[str]) -> int:
    return max(text.count("\n") for text in texts)


def _columns(panels: int, counts: Sequence[int], most: int) -> int:
    """Panels side by side: whole rounds of the innermost fields' values where that can be, else in even rows."""
    rounds = [count for count in accumulate(reversed(counts), mul) if 1 < count <= most]
    return rounds[-1] if rounds and panels == prod(counts) else ceil(panels / ceil(panels / most))


def _name_axes(axis: Axes, plane: Plane, values: Sequence[str], *, is_left: bool, is_lowest: bool) -> None:
    """Names and values at the outermost panels only; numbers go upward, other values downward."""
    rows, columns = plane.shape
    axis.set(xlim=(-0.5, columns - 0.5), ylim=(-0.5, rows - 0.5), xticks=range(columns), yticks=range(rows))
    axis.tick_params(length=0, labelbottom=is_lowest, labelleft=is_left and plane.y is not None)
    axis.spines[:].set_visible(False)
    axis.set_xticklabels(values)
    axis.set_yticklabels([_level(plane.y, value) for value in plane.levels[plane.y]])
    if is_lowest:
        axis.set_xlabel(NAMES.get(plane.x, plane.x))
    if is_left and plane.y is not None:
        axis.set_ylabel(fill(NAMES.get(plane.y, plane.y), max(10, int(rows * HIGH / LETTER)), break_long_words=False))
    if not all(map(_is_number, plane.levels[plane.y])):
        axis.invert_yaxis()


def _title(setting: Setting, plane: Plane, inches: float) -> str:
    """Of a panel, such as "T = 30, model = irnn"; broken at commas where it is too long."""
    names = [f"{field} = {_level(field, setting.fields[field])}".replace(" ", "\xa0") for field in plane.others]
    return _broken(", ".join(names), inches).replace("\xa0", " ")


def _level(field: str, value: Any) -> str:
    """A hyper-parameter's value, all its digits: 1e-3, 0.3, 10."""
    if field == "grad_clip" and value == 0:
        return "off"
    if not _is_number(value):
        return str(value)
    return f"{Decimal(str(value)).normalize():e}" if 0 < abs(value) < 0.1 else str(value).removesuffix(".0")


def _caption(settings: Sequence[Setting], label: str, greatest: bool) -> tuple[str, str]:
    """Of the colour bar: what is shown and which is better; what it is the mean of."""
    seeds = max(setting.members for setting in settings)
    shown = [setting for setting in settings if setting.mean is not None]
    left_out = [name for name in ("diverged", "missing") if any(getattr(setting, name) for setting in shown)]
    without = f", without those {' or '.join(left_out)}" if left_out else ""
    return (
        f"{label}; {'higher' if greatest else 'lower'} is better (brighter)",
        f"{'one seed' if seeds == 1 else f'mean of {seeds} seeds'}{without}",
    )
