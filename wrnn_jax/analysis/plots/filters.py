"""What linear waves learned: their impulse responses, and their speeds and leaks before and after training."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from wrnn_jax.analysis.filters import Travel, mean_lag, memory
from wrnn_jax.analysis.plots.layers import CHANNELS, LAYERS, how_many, layer_names, ring_name, spread
from wrnn_jax.analysis.plots.style import (
    BLUE,
    COLORS,
    GREY,
    TICKS,
    WIDTH,
    Figure,
    draw_image,
    open_axes,
    state_colors,
    top_of,
)
from wrnn_jax.validation import require


def impulse_figure(responses: Mapping[str, np.ndarray], *, title: str = "Impulse responses") -> Figure:
    """The impulse responses of a network of linear waves, a row a layer: what an output makes of an input t steps ago.

    Left: those of all channels, one a line, by their
    :func:`wrnn_jax.analysis.filters.mean_lag`, the shortest memory on top; blue to red by
    square root, up to the 99th percentile of the layer. Right: an even spread of them as curves, each over its own
    greatest.

    Args:
      responses: place of a layer -> K ``(C, T)``, in order, as a model's ``hidden`` names layers; T may differ.
      title: of the figure.

    Raises:
      ValueError: for no layer, or arrays of another shape.
    """
    named = _named("responses", responses)
    shown = [list(named)[index] for index in spread(len(named), LAYERS)]
    figure = Figure((WIDTH + 1, 2.3 * len(shown) + 1), layout="constrained")
    axes = figure.subplots(len(shown), 2, squeeze=False, width_ratios=(1.2, 1))
    for (image, curves), name in zip(axes, shown, strict=True):
        array = np.asarray(named[name], float)
        channels, steps = array.shape
        order = np.argsort(mean_lag(array), kind="stable")
        draw_image(image, array[order].T, **state_colors(top_of(array), signed=True))
        image.locator_params(nbins=5, **TICKS)
        image.set_title(f"{name}: top {top_of(array):.3g}" if name else f"top {top_of(array):.3g}", fontsize=9)
        image.set_ylabel(f"{channels} channels,\nby mean lag", fontsize=9)
        picked = order[spread(channels, CHANNELS)]
        for color, channel in zip(COLORS, picked, strict=False):
            top = np.abs(array[channel]).max() or 1.0
            label = ring_name("", channel, channels)
            curves.plot(np.arange(steps), array[channel] / top, color=color, lw=1, label=label)
        open_axes(curves)
        curves.set_title(how_many(len(picked), channels, "channels"), fontsize=9)
        curves.legend(fontsize=7, loc="upper right")
        curves.set_ylabel("K, share of its greatest", fontsize=9)
        for axis in (image, curves):
            axis.tick_params(labelsize=8)
    colors = ScalarMappable(**state_colors(1, signed=True))
    bar = figure.colorbar(colors, ax=axes[:, 0], ticks=[-1, -0.25, 0, 0.25, 1], shrink=min(1, 1.5 / len(shown)))
    bar.set_label("K (share of the layer's top)", fontsize=9)
    figure.suptitle(", ".join(filter(None, [title, how_many(len(shown), len(named), "layers")])), fontsize=12)
    figure.supxlabel("t: steps since the input", fontsize=10)
    return figure


def learned_figure(
    after: Mapping[str, Travel], before: Mapping[str, Travel], *, title: str = "Speeds and memories of linear waves"
) -> Figure:
    """The waves of each layer before training and after it, a row a layer, channels by their speed before.

    Left: speeds ν. Right: memories −1/ln ρ, the steps after which a wave is 1/e of what it was.

    Args:
      after: place of a layer -> :class:`Travel`, in order.
      before: the same at the start.
      title: of the figure.

    Raises:
      ValueError: for no layer, arrays of another shape, or other layers before.
    """
    require(len(after) > 0, "after", dict(after), "the waves of one layer or more")
    require(list(before) == list(after), "before", list(before), f"layers {list(after)}, as after")
    names = dict(zip(after, layer_names(list(after)), strict=True))
    shown = [list(after)[index] for index in spread(len(after), LAYERS)]
    figure = Figure((WIDTH, 2.4 * len(shown) + 1), layout="constrained")
    axes = figure.subplots(len(shown), 2, squeeze=False)
    for (left, right), place in zip(axes, shown, strict=True):
        for field, travel in (("before", before[place]), ("after", after[place])):
            shapes = {np.shape(values) for values in travel}
            fits = len(shapes) == 1 and shapes == {np.shape(after[place].speeds)} and len(min(shapes)) == 1
            require(fits, f"{field}[{place!r}]", sorted(shapes), "speeds and leaks (C,), as many before as after")
        order = np.argsort(-np.asarray(before[place].speeds), kind="stable")
        _draw_pairs(left, before[place].speeds, after[place].speeds, order)
        _draw_pairs(right, memory(before[place].leaks), memory(after[place].leaks), order)
        left.set_ylabel(", ".join(filter(None, [names[place], "ν (neurons a step)"])), fontsize=9)
        right.set_ylabel("−1/ln ρ (steps)", fontsize=9)
    axes[0, 0].set_title("speed", fontsize=10)
    axes[0, 1].set_title("memory", fontsize=10)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=9, frameon=False
    )
    figure.suptitle(", ".join(filter(None, [title, how_many(len(shown), len(after), "layers")])), fontsize=12)
    figure.supxlabel("channels, by their speed before training", fontsize=10)
    return figure


def _draw_pairs(axis: Axes, before: np.ndarray, after: np.ndarray, order: np.ndarray) -> None:
    """Hollow before, full after, one below the other; logarithmic over more than a power of ten."""
    before, after = (np.asarray(values, float)[order] for values in (before, after))
    channels = np.arange(1, len(order) + 1)
    axis.plot(channels, before, "o", color=GREY, mfc="white", ms=4, label="before training")
    axis.plot(channels, after, "o", color=BLUE, ms=3, label="after training")
    both = np.concatenate([before, after])
    both = both[np.isfinite(both)]
    if both.size and 0 < 10 * both.min() < both.max():
        axis.set_yscale("log")
    open_axes(axis)
    axis.locator_params(axis="x", nbins=6, **TICKS)
    axis.tick_params(labelsize=8)


def _named(field: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    require(len(arrays) > 0, field, dict(arrays), "those of one layer or more")
    for place, array in arrays.items():
        fits = np.ndim(array) == 2 and np.size(array) > 0
        require(fits, f"{field}[{place!r}].shape", np.shape(array), "(C, T), neither of them 0")
    return dict(zip(layer_names(list(arrays)), arrays.values(), strict=True))
