"""The variables of working memory over time: waves through the substrate's columns, as an image and in motion."""

import math
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from wrnn_jax.analysis.plots.animation import DPI, write_gif
from wrnn_jax.analysis.plots.style import GREY, TICKS, WIDTH, Figure, draw_image, open_axes, top_of
from wrnn_jax.validation import require

ACROSS = 2  # panels side by side
GAP = 0.5  # columns between the newest one and the input above it
NOT_KEPT = "0.8"


def variables_wave(
    variables: np.ndarray,
    *,
    inputs: np.ndarray | None = None,
    outside: np.ndarray | None = None,
    title: str = "Variables of working memory over time",
) -> Figure:
    """Each element's wave: the substrate's columns over time, the newest on top, so that a wave runs down to the right.

    Grey is what was not kept, since nothing reads it. The line is where the input ends.

    Args:
      variables: ``(T, s, d)``, from :func:`wrnn_jax.analysis.variables.variables_over_time`.
      inputs: u ``(T, d)``; if given, a strip above each wave shows what comes in, in colours of its own scale.
      outside: the share of the state that is in none of the variables, ``(T,)``, from
        :func:`wrnn_jax.analysis.variables.outside`; if given, a curve below: what the waves do not show.
      title: of the figure.

    Raises:
      ValueError: for arrays of other shapes, without any finite number, or shares that are not from 0 to 1.

    Source: Karuvally et al. 2024, the figure of the hidden state in the basis of the variable memories.
    """
    variables = require_substrates(variables)
    steps, columns, size = variables.shape
    if inputs is not None:
        inputs = np.asarray(inputs, float)
        require(inputs.shape == (steps, size), "inputs.shape", inputs.shape, f"(T, d) = ({steps}, {size})")
    across = min(ACROSS, size)
    rows = math.ceil(size / across)
    height, curve = float(np.clip(0.16 * (columns + 2), 1.2, 3.0)), [] if outside is None else [0.7]
    figure = Figure((WIDTH, rows * height + sum(curve) + 1.2), layout="constrained")
    grid = figure.add_gridspec(rows + len(curve), across, height_ratios=[*[height] * rows, *curve])
    first = figure.add_subplot(grid[0, 0])
    axes = [first, *(figure.add_subplot(grid[divmod(at, across)], sharex=first, sharey=first) for at in range(1, size))]
    for at, axis in enumerate(axes):
        axis.tick_params(labelleft=at % across == 0)
    if outside is not None:
        draw_shares(figure.add_subplot(grid[rows, :], sharex=first), require_shares(outside, steps))
    top = top_of(variables)
    for element, axis in enumerate(axes[:size]):
        image = _draw_wave(axis, variables[:, :, element], top)
        if inputs is not None:
            _draw_input(axis, inputs, element, columns)
        axis.set_title(f"element {element + 1}", fontsize=8, loc="left", pad=2)
        axis.tick_params(labelsize=7, labelbottom=element + across >= size)
    numbers = np.unique(np.linspace(1, columns, min(columns, 3)).round().astype(int))
    above = {} if inputs is None else {columns + GAP: "input"}
    axes[0].set_yticks([*numbers - 1, *above], [*numbers, *above.values()])
    bar = figure.colorbar(image, ax=axes[:size], shrink=min(1, 2.6 / figure.get_figheight()), aspect=18, pad=0.015)
    bar.set_label("coordinate of the variable", fontsize=9)
    figure.suptitle(title, fontsize=12)
    figure.supxlabel("time step", fontsize=10)
    figure.supylabel("column (1: oldest)", fontsize=10)
    return figure


def variables_animation(
    variables: np.ndarray,
    path: Path | str,
    *,
    fps: float = 4,
    every: int = 1,
    title: str = "Variables of working memory",
) -> None:
    """The substrate in motion: columns from the oldest to the newest, which is on the right, elements downward.

    What is written at the right travels to the left, one column a step, and leaves. Grey was not kept.

    Args:
      variables: ``(T, s, d)``, from :func:`wrnn_jax.analysis.variables.variables_over_time`.
      path: the file to write, ``.gif``; it repeats for ever.
      fps: frames a second.
      every: steps from one frame to the next. Where that makes more than 200 frames, 200 of them are drawn, evenly.
      title: above the substrate.

    Raises:
      ValueError: for variables of another shape or without any finite number, a path that does not end in .gif, or
        numbers out of range.
    """
    variables = require_substrates(variables)
    steps, columns, size = variables.shape
    side = float(np.clip(4.5 / max(columns, size), 0.15, 0.6))  # inches of a cell
    figure = Figure((max(side * columns + 1.9, 4.0), side * size + 1.4), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    top = top_of(variables)
    frames = np.ma.masked_invalid(variables.transpose(0, 2, 1))
    edges = [np.arange(count + 1) + 0.5 for count in (columns, size)]
    style = {"cmap": not_kept_in_grey(), "vmin": -top, "vmax": top, "edgecolors": "w", "linewidth": 1.0}
    mesh = axis.pcolormesh(*edges, frames[0], animated=True, **style)
    axis.set(xlabel="column (1: oldest)", ylabel="element", aspect="equal")
    axis.invert_yaxis()
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.set_major_locator(MaxNLocator(10, min_n_ticks=1, **TICKS))
    figure.colorbar(mesh, ax=axis, shrink=0.8, label="coordinate")
    figure.suptitle(title, fontsize=12)

    def draw(step: int) -> None:
        mesh.set_array(frames[step])
        figure.draw_artist(mesh)

    write_gif(figure, draw, steps, path, fps=fps, every=every, ink="k")


def require_substrates(variables: np.ndarray) -> np.ndarray:
    """Variables ``(T, s, d)``, of which some are finite."""
    variables = np.asarray(variables, float)
    require(variables.ndim == 3 and variables.size > 0, "variables.shape", variables.shape, "(T, s, d), none of them 0")
    require(bool(np.isfinite(variables).any()), "variables", "no finite number", "finite where a component was kept")
    return variables


def require_shares(outside: np.ndarray, steps: int) -> np.ndarray:
    """Shares ``(T,)`` from 0 to 1, up to rounding."""
    outside = np.asarray(outside, float)
    require(outside.shape == (steps,), "outside.shape", outside.shape, f"(T,) = ({steps},)")
    fits = bool(((outside >= -1e-9) & (outside <= 1 + 1e-9)).all())
    require(fits, "outside", "shares below 0, above 1 or NaN", "shares from 0 to 1")
    return outside


def draw_shares(axis: Axes, outside: np.ndarray) -> None:
    """The share of the state outside the variables, in percent, over time."""
    axis.fill_between(np.arange(len(outside)), 100 * outside, color="0.8", lw=0)
    axis.plot(100 * outside, color=GREY, lw=1.2, gid="outside")
    axis.set(ylim=(0, max(1.0, 115 * outside.max())), ylabel="outside\n(%)")
    axis.set_xlim(-0.5, len(outside) - 0.5)
    axis.yaxis.set_major_locator(MaxNLocator(2))
    open_axes(axis)


def not_kept_in_grey() -> Colormap:
    """Blue to red, and grey for what was not kept."""
    return colormaps["RdBu_r"].with_extremes(bad=NOT_KEPT)


def _draw_wave(axis: Axes, wave: np.ndarray, top: float) -> AxesImage:
    """``(T, s)``, column 1 at the bottom."""
    image = draw_image(
        axis, wave, origin="lower", cmap=not_kept_in_grey(), vmin=-top, vmax=top, interpolation="nearest"
    )
    axis.xaxis.set_major_locator(MaxNLocator(9, **TICKS))
    return image


def _draw_input(axis: Axes, inputs: np.ndarray, element: int, columns: int) -> None:
    """A strip above the wave's newest column, and the line after the last input that is not 0."""
    steps, top = len(inputs), top_of(inputs)
    bottom = columns + GAP - 0.5
    style = {"cmap": "RdBu_r", "vmin": -top, "vmax": top, "interpolation": "nearest", "aspect": "auto"}
    axis.imshow(inputs[None, :, element], extent=(-0.5, steps - 0.5, bottom, bottom + 1), **style)
    axis.set_ylim(-0.5, bottom + 1)
    fed = np.flatnonzero(inputs.any(1))
    if fed.size:
        axis.axvline(fed[-1] + 0.5, color="k", lw=1, gid="end of input")
