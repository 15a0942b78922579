"""Deep networks: the waves of each layer, rows of a figure; layers may differ in steps, channels and neurons."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from wrnn_jax.analysis.plots.style import BLUE, GREY, WIDTH, Figure, is_signed, open_axes, top_of
from wrnn_jax.analysis.plots.waves import draw_states, draw_strip, explain_states, speed_text
from wrnn_jax.analysis.waves import Speed, wave_speed
from wrnn_jax.validation import require

CHANNELS = 4
"""Drawn of a layer side by side."""
MEASURED = 16
"""Channels of a layer whose speeds are."""
LAYERS = 8
"""Drawn of a network, one below the other."""


def layer_names(places: Sequence[str]) -> list[str]:
    """What layers are called that stand at these places of a model, in order: ``layer 1``, ``layer 2``.

    A place is a name as :class:`wrnn_jax.models.Model` gives hidden states, such as ``"0.layer"``. Numbers count the
    layers that are here, from 1 on; where one has parts of its own, they follow: ``layer 2, backward``. What all
    places have in common is left out, so that one alone is ``""``.
    """
    paths = [place.split(".") for place in places]
    columns = list(zip(*paths, strict=False))
    uneven = len({len(path) for path in paths}) > 1
    telling = [column for column in columns if len(set(column)) > 1]
    if uneven or not telling:
        return [f"layer {number}" if len(places) > 1 else "" for number in range(1, len(places) + 1)]
    first, *others = telling
    numbers = {part: f"layer {number}" for number, part in enumerate(dict.fromkeys(first), 1)}
    heads = [numbers[part] if all(part.isdecimal() for part in first) else part for part in first]
    return [", ".join(parts) for parts in zip(heads, *others, strict=True)]


def spread(count: int, most: int) -> np.ndarray:
    """At most so many of ``count`` indices, evenly, the first and the last among them."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def waves_by_layer(
    hidden: Mapping[str, np.ndarray], *, inputs: np.ndarray | None = None, title: str = "Hidden states of all layers"
) -> Figure:
    """The hidden states of a deep network over time, a row of images a layer, from the input downward.

    As :func:`wrnn_jax.analysis.plots.hidden_waves`, with a dashed guide of each channel's own measured speed: there is
    none where no wave was found. Time is the layer's own, all of it: one that makes fewer steps than it is given is
    drawn as wide. Of many channels, or layers, an even spread is drawn, and the figure says so.

    Args:
      hidden: place of a layer -> ``(T, C, N)``, of one sequence, in order, as a model's ``hidden`` names them.
      inputs: ``(T, D)``; if given, a strip on top shows when something came in.
      title: of the figure.

    Raises:
      ValueError: for no layer, or arrays of other shapes.
    """
    named = as_layers("hidden", hidden)
    shown = [list(named)[index] for index in spread(len(named), LAYERS)]
    columns = min(CHANNELS, max(named[name].shape[1] for name in shown))
    strip = [] if inputs is None else [0.3]
    heights = strip + [3.4 if columns == 1 else 1.75] * len(shown)
    figure = Figure((WIDTH, sum(heights) + 1), layout="constrained")
    axes = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
    if inputs is not None:
        draw_strip(axes[0], inputs)
    signed = any(is_signed(named[name]) for name in shown)
    for panels, name in zip(axes[len(strip) :], shown, strict=True):
        states = named[name]
        channels = spread(states.shape[1], CHANNELS)
        for panel, channel in zip(panels, channels, strict=False):
            ring = np.asarray(states[:, channel], float)
            speed = measured(ring)
            draw_states(panel, ring, signed=signed, velocity=speed.velocity)
            title_of = ring_name(name, channel, states.shape[1])
            panel.set_title(f"{title_of}\n{speed_text(*speed)}", fontsize=8, loc="left", pad=3)
            panel.set_title(f"top {top_of(ring):.3g}", fontsize=7, loc="right", pad=3, color=GREY)
            panel.tick_params(labelsize=7, labelleft=panel is panels[0])
        for unused in panels[len(channels) :]:
            unused.remove()
        panels[0].set_ylabel(how_many(len(channels), states.shape[1], "channels"), fontsize=8)
    explain_states(figure, figure.axes, signed, "guide: v, the measured speed")
    figure.suptitle(", ".join(filter(None, [title, how_many(len(shown), len(named), "layers")])), fontsize=12)
    figure.supxlabel("time step", fontsize=10)
    figure.supylabel("neuron", fontsize=10)
    return figure


def speeds_by_layer(
    hidden: Mapping[str, np.ndarray],
    *,
    before: Mapping[str, np.ndarray] | None = None,
    title: str = "Wave speeds of all layers",
) -> Figure:
    """The measured speed of the waves of each layer, a row a layer: an even spread of its channels.

    Args:
      hidden: place of a layer -> ``(T, C, N)``, of one sequence, in order, as a model's ``hidden`` names them.
      before: the same before training, whose speeds are drawn hollow beside those after.
      title: of the figure.

    Raises:
      ValueError: for no layer, arrays of other shapes, or other layers before.
    """
    named = as_layers("hidden", hidden)
    earlier = {} if before is None else as_layers("before", before)
    shapes = {name: array.shape[1:] for name, array in named.items()}
    same = before is None or {name: array.shape[1:] for name, array in earlier.items()} == shapes
    require(same, "before", list(before or ()), f"the layers {list(hidden)}, as hidden has them")
    shown = [list(named)[index] for index in spread(len(named), LAYERS)]
    figure = Figure((WIDTH, 2.0 * len(shown) + 1), layout="constrained")
    axes = figure.subplots(len(shown), squeeze=False)[:, 0]
    for axis, name in zip(axes, shown, strict=True):
        states = named[name]
        channels = spread(states.shape[1], MEASURED)
        places = np.arange(len(channels))
        for reference in (-1, 0):
            axis.axhline(reference, color=GREY, ls="--", lw=1)
        for source, offset, style in (
            (earlier.get(name), 0.012 * len(channels), {"color": GREY, "mfc": "white", "label": "before training"}),
            (states, 0.0, {"color": BLUE, "label": "after training"}),
        ):
            if source is not None:
                speeds = [measured(np.asarray(source[:, channel], float)) for channel in channels]
                velocity, uncertainty = np.array(speeds).T
                axis.errorbar(places + offset, velocity, yerr=uncertainty, fmt="o", ms=4, capsize=2, **style)
        axis.set_xticks(places, [str(channel + 1) for channel in channels], fontsize=8)
        axis.set_xlim(-0.6, len(channels) - 0.4)
        axis.tick_params(axis="y", labelsize=8)
        axis.set_title(name, fontsize=9, loc="left", pad=3)
        axis.set_title(how_many(len(channels), states.shape[1], "channels"), fontsize=8, loc="right", color=GREY)
        open_axes(axis)
    if before is not None:
        labels = axes[0].get_legend_handles_labels()
        figure.legend(*labels, loc="outside lower right", ncols=2, fontsize=9, frameon=False)
    figure.suptitle(", ".join(filter(None, [title, how_many(len(shown), len(named), "layers")])), fontsize=12)
    figure.supxlabel("channel", fontsize=10)
    figure.supylabel("v: speed (neurons a step; shift: −1, static: 0; none: no wave)", fontsize=9)
    return figure


def as_layers(field: str, hidden: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The states of layers by their names; InvalidValue for what are none."""
    require(len(hidden) > 0, field, dict(hidden), "the states of one layer or more")
    arrays = {}
    for name, (place, states) in zip(layer_names(list(hidden)), hidden.items(), strict=True):
        states = np.asarray(states)
        allowed = "(T, C, N), none of them 0"
        require(states.ndim == 3 and states.size > 0, f"{field}[{place!r}].shape", states.shape, allowed)
        arrays[name] = states
    return arrays


def ring_name(layer: str, channel: int, channels: int) -> str:
    """ "layer 2, channel 1"; of a layer with one channel, the layer."""
    return ", ".join(filter(None, [layer, f"channel {channel + 1}" if channels > 1 or not layer else ""]))


def how_many(shown: int, of: int, what: str) -> str:
    """ "4 of 64 channels", where not all are shown."""
    return f"{shown} of {of} {what}" if shown < of else ""


def measured(ring: np.ndarray) -> Speed:
    """The speed of ``(T, N)``; no wave where it is too short, too small, or has diverged."""
    steps, neurons = ring.shape
    if steps < 2 or neurons < 3 or not np.isfinite(ring).all():
        return Speed(math.nan, math.nan)
    return wave_speed(ring)
