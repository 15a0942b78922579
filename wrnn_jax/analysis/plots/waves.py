"""Hidden states over time, neurons downward: waves are diagonal bands. Figs. 2 (top) and 18."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.lines import Line2D

from wrnn_jax.analysis.plots.style import GREY, GUIDE, TICKS, WIDTH, Figure, draw_image, is_signed, state_colors, top_of
from wrnn_jax.analysis.waves import wave_speed
from wrnn_jax.validation import require


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
        allowed = f"(T, D) with T = {steps}"
        require(np.ndim(inputs) == 2 and len(inputs) == steps, "inputs.shape", np.shape(inputs), allowed)
        draw_strip(axes[0], inputs)
    signed = is_signed(hidden)
    panels = axes[len(strip) :].ravel()
    for unused in panels[channels:]:
        unused.remove()
    for index, panel in enumerate(panels[:channels]):
        draw_states(panel, hidden[:, index], signed=signed, velocity=-1)
        panel.set_title(f"channel {index + 1}" if channels > 1 else "", fontsize=9, loc="left", pad=3)
        panel.set_title(f"top {top_of(hidden[:, index]):.3g}", fontsize=8, loc="right", pad=3, color=GREY)
        panel.tick_params(labelsize=8, labelbottom=index + columns >= channels)
    explain_states(figure, figure.axes, signed, "guide: one neuron a step")
    figure.suptitle(title, fontsize=12)
    figure.supxlabel("time step", fontsize=10)
    figure.supylabel("neuron", fontsize=10)
    return figure


def waves_through_training(
    hidden: Mapping[str, Sequence[tuple[int, np.ndarray]]], *, title: str = "Waves through training"
) -> Figure:
    """The same sequence's hidden state as training goes on, from several starts, as in the paper's Fig. 18.

    A row for each start, training to the right; in every image time runs to the right and position on the ring
    downward. Below the step stands the measured speed (:func:`wrnn_jax.analysis.waves.wave_speed`, neurons a step),
    and the dashed guide has its slope: there is none where no wave was found.

    Args:
      hidden: start's name -> ``(training step, hidden (T, N))``, one ring, earliest first.
      title: of the figure.

    Raises:
      ValueError: for no start, a start without states, or states of another shape.
    """
    complete = len(hidden) > 0 and all(len(row) > 0 for row in hidden.values())
    require(complete, "hidden", list(hidden), "at least one start, each with states")
    columns = max(len(row) for row in hidden.values())
    figure = Figure((WIDTH, 1.2 + 2.0 * len(hidden)), layout="constrained")
    axes = figure.subplots(len(hidden), columns, squeeze=False)
    signed = any(is_signed(np.asarray(states)) for row in hidden.values() for _, states in row)
    for panels, (start, row) in zip(axes, hidden.items(), strict=True):
        for panel, (step, states) in zip(panels, row, strict=False):
            states = as_ring(f"hidden[{start!r}]", states)
            speed = wave_speed(states)
            draw_states(panel, states, signed=signed, velocity=speed.velocity)
            panel.set_title(f"step {step:,}\n{speed_text(*speed)}", fontsize=8, pad=3)
            panel.tick_params(labelsize=7, labelleft=panel is panels[0])
        for unused in panels[len(row) :]:
            unused.remove()
        panels[0].set_ylabel(start, fontsize=10, fontweight="bold")
    explain_states(figure, figure.axes, signed, "guide: v, the measured speed in neurons a step")
    figure.suptitle(title, fontsize=12)
    figure.supxlabel("time step", fontsize=10)
    figure.supylabel("neuron", fontsize=10)
    return figure


def guide_line(steps: int, neurons: int, velocity: float = -1.0) -> tuple[np.ndarray, np.ndarray]:
    """``i(t) = (⌊N/2⌋ + v t) mod N`` with a NaN at each wrap; for v = −1 half a ring off a wave launched at 0 in the
    first step. ``velocity`` in neurons a step.
    """
    time = np.arange(steps, dtype=float)
    position = (neurons // 2 + velocity * time) % neurons
    wraps = np.flatnonzero(~np.isclose(np.diff(position), velocity)) + 1
    return np.insert(time, wraps, np.nan), np.insert(position, wraps, np.nan)


def as_ring(field: str, hidden: np.ndarray) -> np.ndarray:
    """``hidden`` as an array ``(T, N)``; InvalidValue if it is none."""
    hidden = np.asarray(hidden, float)
    require(hidden.ndim == 2 and hidden.size > 0, f"{field}.shape", hidden.shape, "(T, N), neither of them 0")
    return hidden


def speed_text(velocity: float, uncertainty: float) -> str:
    """ "v = −1.00 ± 0.01", neurons a step, the uncertainty rounded up; "no wave" for a NaN."""
    if not math.isfinite(velocity):
        return "no wave"
    hundredths = max(1, math.ceil(100 * uncertainty))
    return f"v = {round(velocity, 2) + 0.0:.2f} ± {hundredths / 100:.2f}".replace("-", "−")  # + 0.0: not −0.00


def draw_states(panel: Axes, states: np.ndarray, *, signed: bool, velocity: float) -> None:
    """One ring ``(T, N)`` in its own colours, and unless ``velocity`` is NaN the guide of that slope."""
    draw_image(panel, states, **state_colors(top_of(states), signed))
    panel.locator_params(nbins=5, **TICKS)
    if math.isfinite(velocity):
        panel.add_line(Line2D(*guide_line(*states.shape, velocity), **GUIDE))


def explain_states(figure: Figure, axes: Sequence[Axes], signed: bool, guide: str) -> None:
    """The colours' scale, beside ``axes``, and what the dashed guide is."""
    ticks = [-1, -0.25, 0, 0.25, 1] if signed else [0, 0.04, 0.25, 1]
    shrink = min(1, 2.6 / figure.get_figheight())
    colors = ScalarMappable(**state_colors(1, signed))
    bar = figure.colorbar(colors, ax=axes, ticks=ticks, shrink=shrink, aspect=18)
    bar.set_label("activity (share of the ring's top)", fontsize=9)
    figure.legend(handles=[Line2D([], [], label=guide, **GUIDE)], loc="outside lower left", fontsize=9, frameon=False)


def draw_strip(axes: Sequence[Axes], inputs: np.ndarray) -> None:
    """What came in, ``(T, D)``, above each column of images; InvalidValue for another shape."""
    inputs = np.asarray(inputs, float)
    require(inputs.ndim == 2 and inputs.size > 0, "inputs.shape", inputs.shape, "(T, D), neither of them 0")
    for axis in axes:
        draw_image(axis, inputs, cmap="Greys", interpolation="nearest", origin="lower")
        axis.tick_params(left=False, labelleft=False, bottom=False, labelbottom=False)
    axes[0].set_ylabel("input", rotation=0, ha="right", va="center", fontsize=9)
