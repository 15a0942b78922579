"""The copy task, as a picture: Fig. 4."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from wrnn_jax.analysis.plots.style import BLUE, NOTE, TICKS, VERMILION, WIDTH, Figure, draw_image
from wrnn_jax.validation import require

SYMBOLS, WHOLE, EDGE = 10, 100, 25  # a sequence of more than 100 steps is drawn as its first 25 and last 25


def copy_example(inputs: np.ndarray, outputs: np.ndarray, targets: np.ndarray, *, T: int) -> Figure:
    """One sequence of the copy task, as in the paper's Fig. 4.

    Three images, time to the right and categories upward: the input, the network's output, the target. The ten
    symbols to remember and the window in which to recall them are framed, the delimiter is named, a wrong guess
    has a cross. Of a sequence longer than 100 steps the first 25 and the last 25 are drawn, with a break between.

    Args:
      inputs: ``(T + 20, 10)``, one-hot.
      outputs: ``(T + 20, 10)``, probabilities (the softmax of the logits).
      targets: ``(T + 20, 10)``, one-hot.
      T: steps of nothing between the symbols and their recall.

    Raises:
      ValueError: for an array of another shape.
    """
    length = T + 2 * SYMBOLS
    arrays = {"inputs": inputs, "outputs": outputs, "targets": targets}
    for name, array in arrays.items():
        arrays[name] = array = np.asarray(array, float)
        require(array.shape == (length, 10), f"{name}.shape", array.shape, f"(T + 20, 10) = ({length}, 10)")
    spans = [(0, length)] if length <= WHOLE else [(0, EDGE), (length - EDGE, length)]
    figure = Figure((WIDTH, 5.4), layout="constrained")
    axes = figure.subplots(3, len(spans), sharex="col", sharey=True, squeeze=False)
    for row, (name, array) in zip(axes, arrays.items(), strict=True):
        for axis, (start, stop) in zip(row, spans, strict=True):
            image = draw_image(axis, array[start:stop], start=start, cmap="Blues", norm=Normalize(0, 1), origin="lower")
            axis.xaxis.set_major_locator(MaxNLocator(9, **TICKS))
        row[0].set_ylabel(name.removesuffix("s"), fontsize=11, fontweight="bold")
        row[0].set_yticks([0, 2, 4, 6, 8, 9], ["nothing 0", "2", "4", "6", "8", "delimiter 9"], fontsize=8)
        _frame(row[-1], length - SYMBOLS, VERMILION, "recall window" if name == "inputs" else "")
        if len(spans) > 1:
            _break_marks(*row)
    _frame(axes[0, 0], 0, BLUE, "ten symbols to remember")
    _name_delimiter(axes[0, -1], arrays["inputs"])
    _mark_mistakes(axes[1, -1], arrays["outputs"], arrays["targets"])
    left_out = f"   (steps {EDGE} to {length - EDGE - 1} are left out)" if len(spans) > 1 else ""
    figure.supxlabel(f"time step{left_out}", fontsize=10)
    figure.suptitle(f"Copy task, T = {T}: remember ten symbols, recall them {T + SYMBOLS} steps later", fontsize=12)
    figure.colorbar(image, ax=axes, label="probability", shrink=0.5, pad=0.02)
    return figure


def _frame(axis: Axes, start: int, color: str, name: str = "") -> None:
    """Frame ten steps, and name them above."""
    axis.add_patch(Rectangle((start - 0.5, -0.5), SYMBOLS, 10, fill=False, ec=color, lw=1.8, zorder=3, clip_on=False))
    axis.text(start - 0.5, 9.8, name, color=color, fontsize=9)


def _break_marks(left: Axes, right: Axes) -> None:
    """Show that the time axis is cut between two neighbouring axes."""
    left.spines["right"].set_visible(False)
    right.spines["left"].set_visible(False)
    right.tick_params(left=False)
    slash = {"marker": [(-0.5, -1), (0.5, 1)], "ms": 9, "linestyle": "none", "color": "k", "clip_on": False}
    for axis, x in ((left, 1), (right, 0)):
        axis.plot([x, x], [0, 1], transform=axis.transAxes, **slash)


def _name_delimiter(axis: Axes, inputs: np.ndarray) -> None:
    """An arrow to the delimiter, from its left; from its right where the symbols stand too near."""
    side, ha = (-1, "right") if len(inputs) >= 3 * SYMBOLS else (1, "left")
    for step in np.flatnonzero(inputs[:, 9] > 0.5):
        where = {"xy": (step + 0.6 * side, 9), "xytext": (14 * side, -16), "ha": ha, "va": "center"}
        axis.annotate("delimiter: “recall now”", arrowprops={"arrowstyle": "->"}, **where, **NOTE)


def _mark_mistakes(axis: Axes, outputs: np.ndarray, targets: np.ndarray) -> None:
    """A cross on every wrong guess of the recall window, and the count of the right ones beside it."""
    start = len(outputs) - SYMBOLS
    guesses = outputs[start:].argmax(-1)
    wrong = np.flatnonzero(guesses != targets[start:].argmax(-1))
    axis.plot(start + wrong, guesses[wrong], "x", color=VERMILION, markersize=7, markeredgewidth=1.8, gid="mistakes")
    note = f"{SYMBOLS - len(wrong)} of {SYMBOLS} recalled" + (" (× wrong)" if len(wrong) else "")
    axis.annotate(note, (start - 0.5, 7.5), (-8, 0), ha="right", va="center", **NOTE)
