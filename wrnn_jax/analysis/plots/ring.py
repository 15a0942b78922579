"""The rings of neurons in motion: an animated GIF."""

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from wrnn_jax.analysis.plots.animation import DPI, write_gif
from wrnn_jax.analysis.plots.style import Figure, is_signed, state_colors, top_of
from wrnn_jax.validation import require

SIDES = {1: 4.0, 2: 3.0, 3: 2.2}  # inches of a ring's axes, by how many stand side by side; else 1.3
REACH = 1.6  # radii from the centre to the edge of the axes
POINTS = 72  # in an inch


def ring_animation(
    hidden: np.ndarray, path: Path | str, *, fps: float = 20, every: int = 1, title: str = "Hidden state"
) -> None:
    """The hidden state in motion: each channel a ring of its neurons, whose activity is colour and bulge.

    Neuron 0, the source of the sparse encoder, is on top; the index grows clockwise, so that the wRNN's waves run
    counterclockwise. Each channel has its own scale, up to the 99th percentile of its activity, by square root.

    Args:
      hidden: ``(T, C, N)``, or ``(T, N)`` for one ring.
      path: the file to write, ``.gif``; it repeats for ever.
      fps: frames a second.
      every: steps from one frame to the next. Where that makes more than 200 frames, 200 of them are drawn, evenly.
      title: above the rings.

    Raises:
      ValueError: for states of another shape, a path that does not end in .gif, or numbers out of range.
    """
    hidden = np.asarray(hidden, float)
    if hidden.ndim == 2:
        hidden = hidden[:, None]
    require(hidden.ndim == 3 and hidden.size > 0, "hidden.shape", hidden.shape, "(T, C, N) or (T, N), none of them 0")
    channels = hidden.shape[1]
    columns = math.ceil(math.sqrt(channels))
    rows = math.ceil(channels / columns)
    side = SIDES.get(columns, 1.3)
    figure = Figure((side * columns, side * rows + 0.7), dpi=DPI, layout="constrained", facecolor="k")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[channels:]:
        unused.remove()
    signed = is_signed(hidden)
    rings = [_Ring(axis, hidden[:, channel], signed, side) for channel, axis in enumerate(axes[:channels])]
    if channels > 1:
        for channel, axis in enumerate(axes[:channels]):
            axis.text(0, 0, f"channel {channel + 1}", color="0.7", ha="center", va="center", fontsize=9)
    figure.suptitle(title, color="w", fontsize=12)

    def draw(step: int) -> None:
        for ring in rings:
            ring.draw(step)

    write_gif(figure, draw, len(hidden), path, fps=fps, every=every, ink="w")


class _Ring:
    """One channel: its neurons as dots on a circle, pushed outward by activity and inward by negative activity."""

    def __init__(self, axis: Axes, states: np.ndarray, signed: bool, side: float):
        colors = state_colors(top_of(states), signed)
        # The norm does not clip: what is above the 99th percentile must bulge no further than that.
        self.heights = np.clip(np.nan_to_num(colors["norm"](states)), 0, 1)
        self.rest = 0.5 if signed else 0.0
        angle = 2 * np.pi * np.arange(states.shape[1]) / states.shape[1]
        self.directions = np.stack([np.sin(angle), np.cos(angle)], axis=1)
        axis.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
        axis.set_axis_off()
        axis.plot(*np.append(self.directions, self.directions[:1], axis=0).T, color="0.3", lw=0.8)
        axis.annotate("0", (0, 0.94), color="0.7", ha="center", va="top", fontsize=8)
        spacing = 2 * np.pi / len(angle) * side * POINTS / (2 * REACH)
        size = np.clip(0.9 * spacing, 2, 10) ** 2
        self.dots = axis.scatter(*self.directions.T, c=self.heights[0], cmap=colors["cmap"], s=size, animated=True)
        self.dots.set_clim(0 if signed else -0.3, 1)  # a silent neuron is not black on black

    def draw(self, step: int) -> None:
        height = self.heights[step]
        self.dots.set_offsets(self.directions * (1 + 0.5 * (height - self.rest))[:, None])
        self.dots.set_array(height)
        self.dots.axes.draw_artist(self.dots)
