"""What models of which size reach: Fig. 7."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from wrnn_jax.analysis.plots.style import BLUE, GREY, VERMILION, WIDTH, Figure, open_axes
from wrnn_jax.validation import require

SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""Where a name may stand beside its point, best first: x to the right, y upward."""


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
    """Name each point on the first side where the name covers neither a point nor another name, else on the first."""
    figure.draw_without_rendering()  # Before it, nothing has its place.
    centers = axis.transData.transform([(point.parameters, point.accuracy) for point in points])
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in centers]
    for point, color in zip(points, colors, strict=True):
        candidates = list(_names(axis, point, color))
        free = [name for name in candidates if not _covers(name, taken, axis.bbox)]
        chosen = (free or candidates)[0]
        for name in candidates:
            if name is not chosen:
                name.remove()
        taken.append(chosen.get_window_extent())


def _names(axis: Axes, point: Point, color: str) -> Iterator[Annotation]:
    text = f"{point.model}, {point.note}" if point.note else point.model
    for x, y in SIDES:
        place = {"ha": {1: "left", 0: "center", -1: "right"}[x], "va": {1: "bottom", 0: "center", -1: "top"}[y]}
        offset = (8 * x, 8 * y) if 0 in (x, y) else (5 * x, 4 * y)
        where = (point.parameters, point.accuracy)
        yield axis.annotate(text, where, offset, textcoords="offset points", color=color, fontsize=9, **place)


def _covers(name: Annotation, taken: Sequence[Bbox], inside: Bbox) -> bool:
    box = name.get_window_extent()
    return box.count_overlaps(taken) > 0 or not (inside.x0 < box.x0 and box.x1 < inside.x1)
