"""What the tables measure: how it reads, and how ours compares with the paper's."""

from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any, NamedTuple

from wrnn_jax.report import numbers
from wrnn_jax.report.biases import without_biases
from wrnn_jax.report.runs import Run

NONE = "–"
NOT_SOLVED = "not solved"


class Metric(NamedTuple):
    """A measurement, beside what the paper says of it."""

    key: str
    """Of ``summary.json``."""
    label: str
    ours: Callable[[Sequence[Any]], str]
    """What the seeds have as text."""
    published: Callable[[Any], str]
    """What the paper has as text."""
    versus: str | None = None
    """Heads the column that compares; None: there is none."""
    compare: Callable[[Sequence[Any], Any], str] | None = None
    """What the seeds have against what the paper has, as text."""
    may_be_none: bool = False
    """Whether None is a result: it never happened."""
    of_seed: Callable[[Sequence[Any]], Any] | None = None
    """Which of a seed's values counts where a table has several, see ``PaperTable.over``."""
    best: Callable[[Sequence[Any]], str] | None = None
    """What the best of the seeds has as text, in a column before all of them's; None: there is none."""
    note: Callable[[Run], str] | None = None
    """What stands in brackets behind ours, of the first of the seeds."""


def _ratio(values: Sequence[float], paper: float) -> str:
    return numbers.ratio(mean(values) / paper)


def _points(values: Sequence[float], paper: float) -> str:
    return numbers.signed(100 * (mean(values) - paper), 2)


def _solved(values: Sequence[int | None]) -> str:
    steps = [value for value in values if value is not None]
    if not steps:
        return NOT_SOLVED
    seeds = "" if len(steps) == len(values) else f" ({len(steps)} of {len(values)} seeds)"
    return numbers.steps(steps) + seeds


def _solved_later(values: Sequence[int | None], paper: int | None) -> str:
    return NONE if paper is None or None in values else numbers.signed(mean(values) - paper, 0)


def _angle(values: Sequence[float | None]) -> str:
    """Of the seeds that have one, and how many these are."""
    angles = [value for value in values if value is not None]
    text = numbers.radians(angles) if angles else NONE
    return text if len(angles) == len(values) else f"{text} ({len(angles)} of {len(values)} seeds)"


def _angle_ratio(values: Sequence[float | None], paper: float | None) -> str:
    angles = [value for value in values if value is not None]
    return _ratio(angles, paper) if angles and paper else NONE


def _without(run: Run) -> str:
    weights = without_biases(run.known)
    return "" if weights in (None, run.known.get("params")) else f"{weights:,}"


def _published_solved(value: int | None) -> str:
    return "never" if value is None else f"{value:,}"


MSE = Metric("test_mse", "test MSE", numbers.loss, numbers.published_loss, "MSE: ours ÷ paper", _ratio)
SOLVED = Metric(
    "solved_step",
    "solved after step",
    _solved,
    _published_solved,
    "steps: ours − paper",
    _solved_later,
    may_be_none=True,
)
ACCURACY = Metric(
    "test_acc",
    "test accuracy (%)",
    numbers.percent,
    lambda share: f"{100 * share:.1f}",
    "ours − paper (points)",
    _points,
)
PARAMS = Metric("params", "parameters", numbers.count, numbers.thousands, note=_without)
LOSS = Metric("authors_loss", "loss ÷ 50", numbers.loss, numbers.published_loss, "ours ÷ paper", _ratio)
RECALL = Metric(
    "recall", "recall (%)", numbers.percent, lambda share: f"{100 * share:g}", "ours − paper (points)", _points
)
RIGHT_SIGNS = Metric(
    "test_acc",
    "accuracy (%)",
    numbers.percent,
    lambda share: f"{100 * share:.0f}",
    "ours, mean − paper (points)",
    _points,
    of_seed=max,
    best=lambda values: numbers.percent([max(values)]),
)
ANGLE = Metric(
    "angle_error",
    "angle error (rad)",
    _angle,
    lambda angle: NONE if angle is None else f"{angle:.4f}",
    "angle: ours ÷ paper",
    _angle_ratio,
    may_be_none=True,
    of_seed=min,
)
RADIUS = Metric("spectral_radius", "spectral radius", numbers.radius, lambda radius: NONE, may_be_none=True)
