"""The pictures of a run: arrays in, a ``matplotlib.figure.Figure`` out; without pyplot, so that none stays open."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import FuncNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from wrnn_jax.validation import require

Row = Mapping[str, Any]
WIDTH = 9.0  # inches: 900 pixels at 100 dpi
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, VERMILION, GREY = *COLORS[:2], "0.35"  # Okabe and Ito's colours: colour-blind readers tell them apart
OUTLINE = withStroke(linewidth=2, foreground="k")
GUIDE = {"color": "cyan", "ls": (0, (5, 5)), "lw": 0.8, "gid": "guide", "path_effects": [OUTLINE]}
NOTE = {"textcoords": "offset points", "color": GREY, "fontsize": 9}
TICKS = {"steps": [1, 2, 5, 10], "integer": True}
SYMBOLS, WHOLE, EDGE = 10, 100, 25  # a copy sequence of more than 100 steps is drawn as its first 25 and last 25


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
            image = _image(axis, array[start:stop], start=start, cmap="Blues", norm=Normalize(0, 1), origin="lower")
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


def training_curves(runs: Mapping[str, Sequence[Row]], *, baselines: Mapping[str, float] | None = None) -> Figure:
    """Loss and recall over the training of one run or several, as in the paper's Fig. 3.

    Upper panel: cross-entropy on a log axis, in training (thin) and on the test set (thick). Lower panel: the share
    of symbols recalled, in %. Dashed: what one scores who remembers nothing.

    Args:
      runs: label -> rows as in ``metrics.jsonl``: ``step``, and any of ``train_loss``, ``test_loss``, ``recall``.
        A row without a key is no point of that key's curve; a NaN is a gap in it.
      baselines: the task's ``chance``: ``loss`` (nats a step) and ``recall`` (a share), either or both.
    """
    figure = Figure((WIDTH, 5.6), layout="constrained")
    losses, recall = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    handles = []
    for (label, rows), color in zip(runs.items(), cycle(COLORS), strict=False):
        _curve(losses, rows, "train_loss", color=color, linewidth=0.8, alpha=0.6)
        _curve(losses, rows, "test_loss", color=color, linewidth=2.4)
        _curve(recall, rows, "recall", scale=100, color=color, linewidth=2.4)
        handles.append(Line2D([], [], color=color, linewidth=2.4, label=label))
    for axis in (losses, recall):
        axis.grid(color="0.9", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    losses.set(yscale="log", ylabel="cross-entropy\n(nats a step, log scale)")
    recall.set(xlabel="training step", ylabel="symbols recalled\n(%)", ylim=(-4, 104))
    recall.xaxis.set_major_locator(MaxNLocator(9, **TICKS))
    if not any(line.get_xdata().size for line in (*losses.lines, *recall.lines)):
        recall.set_xlim(0, 1)
        losses.text(0.5, 0.7, "no measurement yet", transform=losses.transAxes, ha="center", color=GREY)
    chance = dict(baselines or {})
    if "loss" in chance:
        _baseline(losses, chance["loss"], f"remembering nothing: {chance['loss']:.3g}", offset=-14)
        losses.set_ylim(bottom=min(losses.get_ylim()[0], chance["loss"] / 3))
    if "recall" in chance:
        _baseline(recall, 100 * chance["recall"], f"remembering nothing: {100 * chance['recall']:g} %", offset=6)
    handles += [Line2D([], [], color=GREY, lw=width, label=name) for width, name in ((2.4, "test"), (0.8, "train"))]
    figure.suptitle("Training curves", fontsize=12, x=0.01, ha="left")
    figure.legend(handles=handles, loc="outside upper right", ncols=6, frameon=False)
    return figure


def hidden_waves(
    hidden: np.ndarray, *, inputs: np.ndarray | None = None, title: str = "Hidden state over time"
) -> Figure:
    """The hidden state over time, one image a channel, as in the paper's Fig. 2 (top).

    Time runs to the right, position on the ring downward: a wave is a diagonal band. The dashed guide has the slope
    of one neuron a step toward the lower index, ``h_{t+1}[i] = h_t[i+1]``. Each channel has its own colours, up to
    the 99th percentile of its activity (the number above it), by square root so that weak waves show too.

    Args:
      hidden: ``(T, C, N)``, the states of one sequence.
      inputs: ``(T, D)``; if given, a strip above each column shows when something came in.

    Raises:
      ValueError: for arrays of other shapes.
    """
    hidden = np.asarray(hidden, float)
    require(hidden.ndim == 3 and hidden.size > 0, "hidden.shape", hidden.shape, "(T, C, N), none of them 0")
    steps, channels, _ = hidden.shape
    columns = channels if channels <= 3 else min(4, math.ceil(math.sqrt(channels)))
    strip = [] if inputs is None else [0.3]
    heights = strip + [3.8 if channels == 1 else 6.8 / max(columns, 2)] * math.ceil(channels / columns)
    figure = Figure((WIDTH, sum(heights) + 1), layout="constrained")
    axes = figure.subplots(len(heights), columns, sharex=True, sharey="row", squeeze=False, height_ratios=heights)
    if inputs is not None:
        inputs = np.asarray(inputs, float)
        require(inputs.ndim == 2 and len(inputs) == steps, "inputs.shape", inputs.shape, f"(T, D) with T = {steps}")
        _draw_strip(axes[0], inputs)
    signed = bool((hidden < 0).any())
    panels = axes[len(strip) :].ravel()
    for unused in panels[channels:]:
        unused.remove()
    for index, panel in enumerate(panels[:channels]):
        _draw_channel(panel, hidden[:, index], f"channel {index + 1}" if channels > 1 else "", signed)
        panel.tick_params(labelsize=8, labelbottom=index + columns >= channels)
    _explain_colors_and_guide(figure, signed)
    figure.suptitle(title, fontsize=12)
    figure.supxlabel("time step", fontsize=10)
    figure.supylabel("neuron", fontsize=10)
    return figure


def guide_line(steps: int, neurons: int) -> tuple[np.ndarray, np.ndarray]:
    """``i(t) = (⌊N/2⌋ − t) mod N`` with a NaN at each wrap: half a ring off a wave launched at 0 in the first step."""
    time = np.arange(steps, dtype=float)
    position = (neurons // 2 - time) % neurons
    wraps = np.flatnonzero(np.diff(position) != -1) + 1
    return np.insert(time, wraps, np.nan), np.insert(position, wraps, np.nan)


def _image(axis: Axes, values: np.ndarray, *, start: int = 0, origin: str = "upper", **options) -> AxesImage:
    """Draw ``(T, rows)`` with time to the right, each pixel centred on its step and row."""
    steps, rows = values.shape
    vertical = (-0.5, rows - 0.5) if origin == "lower" else (rows - 0.5, -0.5)
    extent = (start - 0.5, start + steps - 0.5, *vertical)
    return axis.imshow(values.T, aspect="auto", extent=extent, origin=origin, **options)


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


def _curve(axis: Axes, rows: Sequence[Row], key: str, *, scale: float = 1, **style) -> None:
    """Draw ``rows[key]`` over ``rows["step"]``; a single point gets a dot, since a line through it has no length."""
    points = [(row["step"], row[key]) for row in rows if row.get("step") is not None and row.get(key) is not None]
    steps, values = np.array(points, float).reshape(-1, 2).T
    axis.plot(steps, scale * values, marker="o" if np.isfinite(values).sum() == 1 else None, gid=key, **style)


def _baseline(axis: Axes, value: float, text: str, *, offset: float) -> None:
    """A dashed horizontal line, named at its right end."""
    axis.axhline(value, color=GREY, linestyle="--", linewidth=1.2, gid="baseline")
    axis.annotate(text, (1, value), (-2, offset), xycoords=axis.get_yaxis_transform(), ha="right", **NOTE)


def _draw_strip(axes: Sequence[Axes], inputs: np.ndarray) -> None:
    for axis in axes:
        _image(axis, inputs, cmap="Greys", interpolation="nearest", origin="lower")
        axis.tick_params(left=False, labelleft=False, bottom=False, labelbottom=False)
    axes[0].set_ylabel("input", rotation=0, ha="right", va="center", fontsize=9)


def _draw_channel(panel: Axes, values: np.ndarray, name: str, signed: bool) -> None:
    """One channel ``(T, N)`` in its own colours, with the guide."""
    magnitudes = np.abs(values[np.isfinite(values) & (values != 0)])
    top = float(np.percentile(magnitudes, 99)) if magnitudes.size else 1.0
    _image(panel, values, **_colors(top, signed))
    panel.add_line(Line2D(*guide_line(*values.shape), **GUIDE))
    panel.set_title(name, fontsize=9, loc="left", pad=3)
    panel.set_title(f"top {top:.3g}", fontsize=8, loc="right", pad=3, color=GREY)
    panel.locator_params(nbins=5, **TICKS)


def _colors(top: float, signed: bool) -> dict[str, Any]:
    """Colours by square root: dark to bright, or blue to red where states have two signs."""
    functions = (lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2)
    return {"cmap": "RdBu_r" if signed else "magma", "norm": FuncNorm(functions, -top if signed else 0, top)}


def _explain_colors_and_guide(figure: Figure, signed: bool) -> None:
    ticks = [-1, -0.25, 0, 0.25, 1] if signed else [0, 0.04, 0.25, 1]
    shrink = min(1, 2.6 / figure.get_figheight())
    bar = figure.colorbar(ScalarMappable(**_colors(1, signed)), ax=figure.axes, ticks=ticks, shrink=shrink, aspect=18)
    bar.set_label("activity (share of the top)", fontsize=9)
    guide = Line2D([], [], label="guide: one neuron a step", **GUIDE)
    figure.legend(handles=[guide], loc="outside lower right", fontsize=9, frameon=False)
