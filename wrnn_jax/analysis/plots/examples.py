"""One sequence and the network's answer to it, for the tasks that are read at the last step."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from wrnn_jax.analysis.plots.style import BLUE, GREY, NOTE, TICKS, VERMILION, WIDTH, Figure, draw_image, open_axes
from wrnn_jax.validation import require

DIGITS = tuple("0123456789")


def adding_example(inputs: np.ndarray, target: float, output: float) -> Figure:
    """One sequence of the adding task: the values with the two marked ones, their sum, and the network's answer.

    Args:
      inputs: ``(T, 2)``: values from 0 to 1, and the marker, above 0 at the two steps to add.
      target: the sum.
      output: what the network answers.

    Raises:
      ValueError: for another shape, or a marker that does not mark two steps.
    """
    inputs = np.asarray(inputs, float)
    require(inputs.ndim == 2 and inputs.shape[1] == 2, "inputs.shape", inputs.shape, "(T, 2)")
    values, marker = inputs.T
    marked = np.flatnonzero(marker > 0)
    require(len(marked) == 2, "inputs[:, 1]", f"{len(marked)} marked steps", "a marker of two steps")
    figure = Figure((WIDTH, 3.4), layout="constrained")
    over_time, sums = figure.subplots(1, 2, width_ratios=(4, 1))
    over_time.plot(values, ".", color="0.7", markersize=4 if len(values) <= 300 else 2, gid="values")
    for step, color in zip(marked, (BLUE, VERMILION), strict=True):
        over_time.vlines(step, 0, values[step], color=color, lw=2)
        over_time.plot(step, values[step], "o", color=color, markersize=8, gid="marked")
        side = -1 if step > 0.85 * len(values) else 1
        place = {"ha": "left" if side > 0 else "right", "va": "center", "bbox": {"fc": "w", "ec": "none", "pad": 1}}
        over_time.annotate(
            f"{values[step]:.3f}", (step, values[step]), (9 * side, 0), **place, **NOTE | {"color": color}
        )
    over_time.set(xlabel="time step", ylabel="value (marked: in colour)", ylim=(0, 1.05))
    over_time.xaxis.set_major_locator(MaxNLocator(9, **TICKS))
    _draw_sums(sums, values[marked], target, output)
    for axis in (over_time, sums):
        open_axes(axis)
    figure.suptitle(f"Adding task, T = {len(values)}: the sum of the two marked values", fontsize=12)
    return figure


def _draw_sums(axis: Axes, addends: np.ndarray, target: float, output: float) -> None:
    """The target as its two parts one on the other, the answer beside it."""
    axis.bar(0, addends, bottom=(0, addends[0]), color=(BLUE, VERMILION), width=0.7)
    axis.bar(1, output, color="0.6", width=0.7)
    axis.axhline(target, color=GREY, ls="--", lw=1.2, gid="target")
    axis.set_xticks((0, 1), (f"target\n{target:.3f}", f"network\n{output:.3f}"))
    axis.set(ylim=(min(0, 1.1 * output), max(2.1, 1.1 * output)), ylabel="sum")


def image_example(
    image: np.ndarray,
    sequence: np.ndarray,
    probabilities: np.ndarray,
    target: int,
    *,
    seen: str = "pixel by pixel",
    classes: Sequence[str] = DIGITS,
) -> Figure:
    """One image, the sequence that the network sees of it, and the class that it answers.

    Args:
      image: ``(H, W)`` or ``(H, W, 3)``, values from 0 to 1.
      sequence: ``(T, D)``, values from 0 to 1: drawn as a line for D = 1, else as an image with time to the right.
      probabilities: ``(O,)``, of the classes.
      target: the right class, 0 … O − 1.
      seen: in words how the sequence comes of the image, such as "row by row".
      classes: the O names.

    Raises:
      ValueError: for arrays of other shapes, or a target that is no class.
    """
    image, sequence, probabilities = (np.asarray(array, float) for array in (image, sequence, probabilities))
    require(image.ndim == 2 or image.shape[2:] == (3,), "image.shape", image.shape, "(H, W) or (H, W, 3)")
    require(sequence.ndim == 2 and sequence.size > 0, "sequence.shape", sequence.shape, "(T, D), neither of them 0")
    require(probabilities.shape == (len(classes),), "probabilities.shape", probabilities.shape, f"({len(classes)},)")
    require(target in range(len(classes)), "target", target, f"a class, 0 to {len(classes) - 1}")
    figure = Figure((WIDTH, 3.2), layout="constrained")
    picture, middle, answer = figure.subplots(1, 3, width_ratios=(2, 4, 2))
    picture.imshow(image, cmap="gray", vmin=0, vmax=1)
    picture.set_title(f"image: {classes[target]}", fontsize=10)
    picture.set_axis_off()
    middle.set_title(f"as the network sees it: {seen}", fontsize=10)
    if sequence.shape[1] == 1:
        _draw_line(middle, sequence[:, 0])
    else:
        draw_image(middle, sequence, cmap="gray", vmin=0, vmax=1)
        middle.set(xlabel="time step", ylabel=f"{sequence.shape[1]} values a step")
    _draw_answer(answer, probabilities, int(target), classes)
    return figure


def _draw_line(axis: Axes, values: np.ndarray) -> None:
    axis.fill_between(np.arange(len(values)), values, step="mid", color="0.8", lw=0)
    axis.step(np.arange(len(values)), values, where="mid", color="k", lw=0.6, gid="sequence")
    axis.set(xlabel="time step", ylabel="pixel value", xlim=(0, max(len(values) - 1, 1)), ylim=(0, 1.03))
    open_axes(axis)


def _draw_answer(axis: Axes, probabilities: np.ndarray, target: int, classes: Sequence[str]) -> None:
    """Bars: the right class in blue, a wrong answer in vermilion."""
    answer = int(probabilities.argmax())
    colors = {answer: VERMILION, target: BLUE}
    axis.barh(np.arange(len(classes)), probabilities, color=[colors.get(i, "0.7") for i in range(len(classes))])
    axis.set_yticks(np.arange(len(classes)), classes)
    axis.set(xlabel="probability", xlim=(0, 1), ylim=(len(classes) - 0.4, -0.6))
    verdict = "right" if answer == target else "wrong"
    axis.set_title(f"answer: {classes[answer]} ({verdict})", fontsize=10, color=colors[answer])
    open_axes(axis)
