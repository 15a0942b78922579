"""All variables of a working memory over time, between what comes in and what goes out."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from wrnn_jax.analysis.plots.memories import draw_shares, not_kept_in_grey, require_shares, require_substrates
from wrnn_jax.analysis.plots.style import TICKS, VERMILION, WIDTH, Figure, draw_image, top_of
from wrnn_jax.validation import require


def evolution(
    variables: np.ndarray,
    inputs: np.ndarray,
    outputs: np.ndarray,
    due: np.ndarray | None = None,
    outside: np.ndarray | None = None,
    *,
    title: str = "Evolution of the variables",
) -> Figure:
    """Input, variables and output, a step a column of pixels: what comes in at the top enters the newest column of
    variables below it, travels downwards, a column a step, to the oldest, and comes out at the bottom.

    A column is d rows, an element each; thin lines part the columns. Grey is what was not kept. Where the sign of an
    output is not the one that is due it has a dot. Each of the three has colours of its own scale.

    Args:
      variables: ``(T, s, d)``, the oldest column first; from :func:`wrnn_jax.analysis.variables.variables_over_time`.
      inputs: u ``(T, d)``.
      outputs: y ``(T, O)``.
      due: what the output should be, ``(T, O)``, NaN where nothing is asked for; if given, a further row.
      outside: the share of the state that is in none of the variables, ``(T,)``, from
        :func:`wrnn_jax.analysis.variables.outside`; if given, a curve below.
      title: of the figure.

    Raises:
      ValueError: for arrays that do not fit together, or variables without any finite number.

    Source: Karuvally et al. 2024, the figure of the hidden state in the basis of the variable memories.
    """
    variables = require_substrates(variables)
    steps, columns, size = variables.shape
    inputs, outputs = np.asarray(inputs, float), np.asarray(outputs, float)
    require(inputs.shape == (steps, size), "inputs.shape", inputs.shape, f"(T, d) = ({steps}, {size})")
    fits = outputs.ndim == 2 and len(outputs) == steps and outputs.size > 0
    require(fits, "outputs.shape", outputs.shape, f"(T, O) with T = {steps}")
    rows = {"input": size, "variables": columns * size, "output": outputs.shape[1]}
    if due is not None:
        due = np.asarray(due, float)
        require(due.shape == outputs.shape, "due.shape", due.shape, f"that of the outputs, {outputs.shape}")
        rows["due"] = outputs.shape[1]
    curve = [] if outside is None else [require_shares(outside, steps)]

    heights = [*np.clip([0.06 * count for count in rows.values()], 0.5, 4.5), *[0.6 for _ in curve]]
    figure = Figure((WIDTH, sum(heights) + 1.6), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights).ravel()
    flat = variables[:, ::-1].reshape(steps, columns * size)  # The newest column on top, where the input enters.
    images = {"input": inputs, "variables": flat, "output": outputs, "due": due}
    tops = {name: top_of(images[name]) for name in rows}
    if due is not None:
        tops["output"] = tops["due"]  # One scale, to be compared.
    for axis, name in zip(axes, rows, strict=False):
        image = _draw(axis, images[name], tops[name])
        axis.set_ylabel(f"{name}\nelement" if name != "variables" else "variables\ncolumn (1: oldest)")
        if name == "variables":
            figure.colorbar(image, ax=axis, pad=0.015, aspect=24, label="coordinate")
    _part_columns(axes[1], columns, size)
    fed = np.flatnonzero(inputs.any(1))
    if fed.size:
        for axis in axes:
            axis.axvline(fed[-1] + 0.5, color="k", lw=1, gid="end of input")
    if due is not None:
        steps_wrong, elements = np.nonzero(np.isfinite(due) & ((outputs > 0) != (due > 0)))
        axes[2].plot(steps_wrong, elements, ".", color=VERMILION, mec="k", ms=5, mew=0.4, ls="", gid="mistakes")
    for shares in curve:
        draw_shares(axes[-1], shares)
    axes[-1].set_xlabel("time step")
    axes[-1].xaxis.set_major_locator(MaxNLocator(9, **TICKS))
    figure.suptitle(title, fontsize=12)
    return figure


def _draw(axis: Axes, values: np.ndarray, top: float) -> AxesImage:
    """``(T, rows)``, the first row on top."""
    style = {"cmap": not_kept_in_grey(), "vmin": -top, "vmax": top, "interpolation": "nearest"}
    image = draw_image(axis, values, **style)
    axis.yaxis.set_major_locator(MaxNLocator(3, **TICKS))
    axis.tick_params(labelsize=8)
    return image


def _part_columns(axis: Axes, columns: int, size: int) -> None:
    for edge in range(1, columns):
        axis.axhline(edge * size - 0.5, color="0.35", lw=0.5, gid="column")
    middles = (np.arange(columns) + 0.5) * size - 0.5
    axis.set_yticks(middles, np.arange(columns, 0, -1), fontsize=8)
    axis.tick_params(axis="y", length=0)
