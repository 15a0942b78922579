"""What models of which size reach: Fig. 7."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from wrnn_jax.analysis.plots.style import BLUE, GREY, VERMILION, WIDTH, Figure, open_axes
from wrnn_jax.validation import require

SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""Where a name may stand beside its point, best first: x to the right, y upward."""
REACHES = (1, 2.5, 4, 6, 9)
"""How far off it may stand, nearest first; all but the nearest have a line to their point."""


class Point(NamedTuple):
    """A model in :func:`parameters_figure`."""

    model: str
    parameters: float
    """How many scalars are trained."""
    accuracy: float
    """On the test set, in %."""
    note: str = ""
    """What stands behind the name, such as "short run"."""


def parameters_figure(
    published: Sequence[Point],
    ours: Sequence[Point] = (),
    *,
    ylabel: str = "psMNIST test accuracy (%)",
    title: str = "Accuracy against size",
) -> Figure:
    """Accuracy against the number of parameters on a log axis, as in the paper's Fig. 7.

    Published results are circles, the wRNN's among them filled; ours are stars. Every one has its name beside it.

    Raises:
      ValueError: for no point, or for one without parameters.
    """
    points = [*published, *ours]
    require(len(points) > 0, "published", published, "at least one Point, or ours")
    for point in points:
        require(point.parameters > 0, f"{point.model}: parameters", point.parameters, "a number above 0")
    figure = Figure((WIDTH, 5.6), layout="constrained")
    axis = figure.subplots()
    axis.set(xscale="log", xlabel="parameters (log scale)", ylabel=ylabel)
    waves = [point for point in published if "wrnn" in point.model.lower()]
    others = [point for point in published if point not in waves]
    for group, name, style in (
        (others, "published", {"marker": "o", "color": GREY, "facecolor": "white", "s": 40}),
        (waves, "published, wRNN", {"marker": "o", "color": BLUE, "s": 55}),
        (ours, "this library", {"marker": "*", "color": VERMILION, "s": 150}),
    ):
        if group:
            axis.scatter([p.parameters for p in group], [p.accuracy for p in group], label=name, zorder=3, **style)
    axis.margins(0.12)
    open_axes(axis)
    axis.legend(loc="lower right", frameon=False)
    figure.suptitle(title, fontsize=12)
    colors = [BLUE if point in waves else GREY for point in published] + [VERMILION] * len(ours)
    _write_names(figure, axis, points, colors)
    return figure


def _write_names(figure: Figure, axis: Axes, points: Sequence[Point], colors: Sequence[str]) -> None:
    """Name each point at the nearest place where the name covers no point, no other name and no legend."""
    figure.draw_without_rendering()  # Before it, nothing has its place.
    centers = axis.transData.transform([(point.parameters, point.accuracy) for point in points])
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in centers] + [axis.get_legend().get_window_extent()]
    for point, color in zip(points, colors, strict=True):
        for name in _names(axis, point, color):
            box = _box(name)
            if not box.count_overlaps(taken) and axis.bbox.count_contains(box.corners()) == len(box.corners()):
                break
            name.remove()
        else:  # There is no such place: the first one, covered or not.
            name = next(_names(axis, point, color))
        taken.append(_box(name))


def _names(axis: Axes, point: Point, color: str) -> Iterator[Annotation]:
    """The name beside its point, then further off with a line to it: one annotation after another is drawn."""
    text = f"{point.model}, {point.note}" if point.note else point.model
    for reach in REACHES:
        line = {"arrowstyle": "-", "color": color, "lw": 0.6, "shrinkA": 0, "shrinkB": 3} if reach > 1 else None
        for x, y in SIDES:
            place = {"ha": {1: "left", 0: "center", -1: "right"}[x], "va": {1: "bottom", 0: "center", -1: "top"}[y]}
            offset = (8 * x * reach, 8 * y * reach) if 0 in (x, y) else (5 * x * reach, 4 * y * reach)
            style = {"textcoords": "offset points", "color": color, "fontsize": 9, "arrowprops": line, **place}
            yield axis.annotate(text, (point.parameters, point.accuracy), offset, **style)


def _box(name: Annotation) -> Bbox:
    """Where the letters are, without the line."""
    name.get_window_extent()  # Which moves the letters to their place.
    return Text.get_window_extent(name)
