"""Waves measured: space–time spectra and speeds. Figs. 2 and 10."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from wrnn_jax.analysis.plots.style import BLUE, GREY, GUIDE, NOTE, WIDTH, Figure, is_signed
from wrnn_jax.analysis.plots.waves import as_ring, draw_states, explain_states, speed_text
from wrnn_jax.analysis.waves import Spectrum, Speed, spacetime_spectrum, wave_speed
from wrnn_jax.validation import require

FREQUENCIES = (-0.4, -0.2, 0, 0.2, 0.4)
SCALES = {
    "power": "power (log₁₀, shuffled state = 0)",
    "authors": "magnitude ÷ that of steps and neurons\nin random order (ln)",
}
"""What the colours of a spectrum mean, by its normalisation."""


def spectrum_figure(
    hidden: Mapping[str, np.ndarray],
    *,
    normalisation: Literal["power", "authors"] = "power",
    title: str = "Hidden states and their spectra",
) -> Figure:
    """Models side by side: hidden state over time, and its space–time spectrum below, as in the paper's Fig. 2.

    A wave ``h_t[i] = f(i − v t)`` of velocity v is, in the state, a band of slope v, and in the spectrum a
    straight band through the origin::

        ω = −v k        k spatial frequency (cycles a neuron), ω temporal frequency (cycles a step)

    Dashed in both: the measured speed, whose number stands between them. Where no wave was found there is none.

    Args:
      hidden: model's name -> ``(T, N)``, one ring; neurons that are not on a ring are sorted by
        :func:`wrnn_jax.analysis.waves.onset_order` first, by the caller, who says so in the name.
      normalisation: of the spectra, see :func:`wrnn_jax.analysis.waves.spacetime_spectrum`.
      title: of the figure.

    Raises:
      ValueError: for no model, states of another shape, or another normalisation.
    """
    require(len(hidden) > 0, "hidden", hidden, "at least one model's states")
    states = {name: as_ring(f"hidden[{name!r}]", array) for name, array in hidden.items()}
    spectra = [spacetime_spectrum(array, normalisation=normalisation) for array in states.values()]
    figure = Figure((max(WIDTH * 2 / 3, 3.4 * len(states) + 1), 6.6), layout="constrained")
    tops, bottoms = figure.subplots(2, len(states), squeeze=False)
    signed = any(is_signed(array) for array in states.values())
    limits = np.percentile(np.concatenate([spectrum.power.ravel() for spectrum in spectra]), (1, 99.9))
    for top, bottom, (name, array), spectrum in zip(tops, bottoms, states.items(), spectra, strict=True):
        speed = wave_speed(array)
        draw_states(top, array, signed=signed, velocity=speed.velocity)
        top.set_title(name, fontsize=10, loc="left", pad=3, fontweight="bold")
        top.set_xlabel("time step")
        image = _draw_spectrum(bottom, spectrum, speed.velocity, limits)
        bottom.set_title(speed_text(*speed) + (" neurons a step" if math.isfinite(speed.velocity) else ""), fontsize=10)
    tops[0].set_ylabel("neuron")
    bottoms[0].set_ylabel("temporal frequency ω\n(cycles a step)")
    figure.colorbar(image, ax=bottoms, label=SCALES[normalisation], aspect=18)
    explain_states(figure, tops, signed, "slope of the measured speed v; in the spectrum ω = −v k")
    figure.suptitle(title, fontsize=12)
    return figure


def speeds_figure(
    hidden: np.ndarray,
    speeds: Speed | None = None,
    *,
    before: np.ndarray | None = None,
    title: str = "Wave speeds of the channels",
) -> Figure:
    """Several wave speeds in one network, as in the paper's Fig. 10.

    Left: every channel's states, with a dashed guide of its own measured speed. Right: those speeds with their
    uncertainties, between 0 (a static bump) and −1 (the shift that the wRNN starts from); hollow: before training.

    Args:
      hidden: ``(T, C, N)``.
      speeds: velocities and uncertainties ``(C,)``, neurons a step; those of
        :func:`wrnn_jax.analysis.waves.wave_speed` if not given. NaN: no wave.
      before: ``(T, C, N)``, the states before training, whose speeds are measured and drawn beside those after.
      title: of the figure.

    Raises:
      ValueError: for states or speeds of another shape.
    """
    hidden = np.asarray(hidden, float)
    require(hidden.ndim == 3 and hidden.size > 0, "hidden.shape", hidden.shape, "(T, C, N), none of them 0")
    speeds = wave_speed(hidden) if speeds is None else speeds
    if before is not None:
        require(np.shape(before) == hidden.shape, "before.shape", np.shape(before), f"{hidden.shape}, as hidden has it")
    channels = hidden.shape[1]
    for name, values in speeds._asdict().items():
        require(np.shape(values) == (channels,), f"speeds.{name}.shape", np.shape(values), f"(C,) = ({channels},)")
    columns = math.ceil(math.sqrt(channels))
    rows = math.ceil(channels / columns)
    figure = Figure((WIDTH + 1, max(4.0, 1.4 + 5.6 * rows / columns)), layout="constrained")
    grid = figure.add_gridspec(rows, columns + 1, width_ratios=(*[1] * columns, max(0.5 * columns, 1)))
    panels = [figure.add_subplot(grid[divmod(channel, columns)]) for channel in range(channels)]
    signed = is_signed(hidden)
    for channel, (panel, velocity) in enumerate(zip(panels, speeds.velocity, strict=True)):
        draw_states(panel, hidden[:, channel], signed=signed, velocity=velocity)
        panel.set_title(f"channel {channel + 1}", fontsize=9, loc="left", pad=3)
        panel.tick_params(labelsize=7, labelleft=channel % columns == 0, labelbottom=channel + columns >= channels)
        if channel + columns >= channels:
            panel.set_xlabel("time step", fontsize=9)
    axis = figure.add_subplot(grid[:, -1])
    _draw_speeds(axis, speeds, None if before is None else wave_speed(before))
    explain_states(figure, panels, signed, "guide: the channel's own measured speed")
    if before is not None:
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=9, frameon=False)
    figure.suptitle(title, fontsize=12)
    figure.supylabel("neuron", fontsize=10)
    return figure


def _draw_spectrum(axis: Axes, spectrum: Spectrum, velocity: float, limits: Sequence[float]) -> AxesImage:
    """``power (T, N)``, spatial frequency to the right and temporal upward, with the line ω = −v k."""
    edges = [_edges(frequencies) for frequencies in (spectrum.spatial, spectrum.temporal)]
    style = {"cmap": "viridis", "vmin": limits[0], "vmax": limits[1]}
    image = axis.imshow(spectrum.power, origin="lower", extent=np.ravel(edges), aspect="auto", **style)
    if math.isfinite(velocity):
        axis.add_line(Line2D(*band_line(velocity), **GUIDE))
    axis.set(xlabel="spatial frequency k (cycles a neuron)", xticks=FREQUENCIES, yticks=FREQUENCIES)
    return image


def _edges(frequencies: np.ndarray) -> tuple[float, float]:
    """Where the first pixel starts and the last one ends, each centred on its frequency."""
    half = 0.5 / len(frequencies)
    return frequencies[0] - half, frequencies[-1] + half


def band_line(velocity: float) -> tuple[np.ndarray, np.ndarray]:
    """``ω(k) = −v k`` over k from −1/2 to 1/2, brought back into ±1/2 (what is faster looks slower), with a NaN at
    each jump. ``velocity`` in neurons a step.
    """
    spatial = np.linspace(-0.5, 0.5, 1001)
    temporal = (-velocity * spatial + 0.5) % 1 - 0.5
    jumps = np.flatnonzero(np.abs(np.diff(temporal)) > 0.5) + 1
    return np.insert(spatial, jumps, np.nan), np.insert(temporal, jumps, np.nan)


def _draw_speeds(axis: Axes, speeds: Speed, before: Speed | None) -> None:
    """A row for each channel, the first on top: its velocity with the uncertainty as a bar, below one before."""
    velocity, uncertainty = (np.asarray(values, float) for values in speeds)
    channels = np.arange(1, len(velocity) + 1)
    for reference, name in ((-1, "shift"), (0, "static")):
        axis.axvline(reference, color=GREY, ls="--", lw=1, gid=name)
        axis.annotate(name, (reference, 1), (0, 3), xycoords=axis.get_xaxis_transform(), ha="center", **NOTE)
    if before is not None:
        style = {"fmt": "o", "color": GREY, "mfc": "white", "capsize": 3, "label": "before training"}
        axis.errorbar(before.velocity, channels + 0.2, xerr=before.uncertainty, **style)
    axis.errorbar(velocity, channels, xerr=uncertainty, fmt="o", color=BLUE, capsize=3, label="after training")
    axis.set(ylim=(len(velocity) + 0.6, 0.4), yticks=channels, xlabel="v: speed (neurons a step)")
    names = [f"{c}: {speed_text(*speed)}" for c, *speed in zip(channels, velocity, uncertainty, strict=True)]
    axis.set_yticklabels(names, fontsize=8)
    axis.yaxis.tick_right()
    axis.grid(color="0.9", linewidth=0.6)
