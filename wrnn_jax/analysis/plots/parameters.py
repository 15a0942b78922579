"""What networks of which size reach: Fig. 7."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from wrnn_jax.analysis.plots.style import COLORS, WIDTH, Figure, open_axes
from wrnn_jax.validation import require

SIDES = ((1, -1), (-1, 1), (1, 0), (-1, 0), (0, -1), (0, 1), (1, 1), (-1, -1))
"""Where a name may stand beside its point, best first, off a line that rises: x to the right, y upward."""
REACHES = (1, 2.5, 4, 6, 9)
"""How far off it may stand, nearest first; all but the nearest have a line to their point."""


class Point(NamedTuple):
    """A network in :func:`parameters_figure`."""

    name: str
    """Such as "n = 64"."""
    parameters: float
    """How many scalars are trained."""
    accuracy: float
    """On the test set, in %."""


class Suite(NamedTuple):
    """Networks of one kind, of several sizes."""

    points: Sequence[Point]
    printed: Sequence[Point] = ()
    """What the paper prints of such networks."""


def parameters_figure(
    tasks: Mapping[str, Mapping[str, Suite]], *, title: str = "Accuracy against the number of parameters"
) -> Figure:
    """Accuracy against the number of parameters on a log axis, as in the paper's Fig. 7: a panel a task.

    A kind of network is a line through its sizes, from the smallest to the largest, each with its name beside it. What
    the paper prints of that kind are hollow squares of its colour.

    Args:
      tasks: task's name -> kind of network -> its sizes.
      title: of the figure.

    Raises:
      ValueError: for a task without a point, or a point without parameters.
    """
    require(len(tasks) > 0, "tasks", list(tasks), "at least one task")
    for task, suites in tasks.items():
        points = [point for suite in suites.values() for point in (*suite.points, *suite.printed)]
        require(len(points) > 0, f"tasks[{task!r}]", suites, "at least one Point")
        for point in points:
            require(point.parameters > 0, f"{point.name}: parameters", point.parameters, "a number above 0")
    figure = Figure((WIDTH * max(2 / 3, len(tasks) * 0.6), 4.6), layout="constrained")
    axes = figure.subplots(1, len(tasks), squeeze=False)[0]
    kinds = list(dict.fromkeys(kind for suites in tasks.values() for kind in suites))
    for axis, (task, suites) in zip(axes, tasks.items(), strict=True):
        axis.set(xscale="log", xlabel="parameters (log scale)", ylabel=f"{task} test accuracy (%)")
        for kind, suite in suites.items():
            color = COLORS[kinds.index(kind) % len(COLORS)]
            x, y = _coordinates(sorted(suite.points, key=lambda point: point.parameters))
            axis.plot(x, y, "o-", color=color, lw=1.5, label=kind, gid=kind)
            if suite.printed:
                style = {"mfc": "white", "mec": color, "ms": 8, "zorder": 3, "gid": f"{kind}, printed"}
                axis.plot(*_coordinates(suite.printed), "s", label=f"{kind}, the paper's", **style)
        axis.margins(0.15)
        open_axes(axis)
        axis.legend(loc="best", frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=12)
    figure.draw_without_rendering()  # Before it, nothing has its place.
    for axis, suites in zip(axes, tasks.values(), strict=True):
        colored = [(point, COLORS[kinds.index(kind) % len(COLORS)]) for kind in suites for point in suites[kind].points]
        printed = [point for suite in suites.values() for point in suite.printed]
        _write_names(axis, colored, printed)
    return figure


def _coordinates(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.parameters for point in points], [point.accuracy for point in points]


def _write_names(axis: Axes, colored: Sequence[tuple[Point, str]], others: Sequence[Point]) -> None:
    """Name each point at the nearest place where the name covers no point, no other name and no legend."""
    every = [point for point, _ in colored] + list(others)
    centers = axis.transData.transform([(point.parameters, point.accuracy) for point in every])
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in centers] + [axis.get_legend().get_window_extent()]
    for point, color in colored:
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
    for reach in REACHES:
        line = {"arrowstyle": "-", "color": color, "lw": 0.6, "shrinkA": 0, "shrinkB": 3} if reach > 1 else None
        for x, y in SIDES:
            place = {"ha": {1: "left", 0: "center", -1: "right"}[x], "va": {1: "bottom", 0: "center", -1: "top"}[y]}
            offset = (8 * x * reach, 8 * y * reach) if 0 in (x, y) else (5 * x * reach, 4 * y * reach)
            style = {"textcoords": "offset points", "color": color, "fontsize": 9, "arrowprops": line, **place}
            yield axis.annotate(point.name, (point.parameters, point.accuracy), offset, **style)


def _box(name: Annotation) -> Bbox:
    """Where the letters are, without the line."""
    name.get_window_extent()  # Which moves the letters to their place.
    return Text.get_window_extent(name)
