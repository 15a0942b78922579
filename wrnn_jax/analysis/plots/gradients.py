"""Gradients against the lag: along a wave they stay, elsewhere they vanish."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from wrnn_jax.analysis.plots.style import COLORS, GREY, NOTE, TICKS, WIDTH, Figure, open_axes
from wrnn_jax.validation import require, require_integer


def gradient_figure(
    lags: Mapping[str, np.ndarray], *, columns: int | None = None, title: str = "How far back gradients reach"
) -> Figure:
    """The norm of the last output's gradient to the input of k steps before, against the lag k, on a log axis.

    A norm of exactly 0 has no place on that axis: the line stops there, and where it is 0 for all larger lags a cross
    at the bottom says so.

    Args:
      lags: name -> norms ``(T,)`` by lag, as :func:`wrnn_jax.analysis.gradients.gradient_by_lag` gives them.
      columns: s; if given, a line marks the lag at which a wave has left the substrate.
      title: of the figure.

    Raises:
      ValueError: for nothing to draw, arrays of another shape, or norms that are negative or not finite.

    Source: Karuvally et al. 2024, section on gradients.
    """
    require(len(lags) > 0, "lags", lags, "at least one curve")
    figure = Figure((WIDTH, 4.6), layout="constrained")
    axis = figure.subplots()
    axis.set(yscale="log", xlabel="lag (steps before the last)", ylabel="gradient norm\n(lag 0 = 1, log scale)")
    for index, ((name, norms), color) in enumerate(zip(lags.items(), cycle(COLORS), strict=False)):
        norms = np.asarray(norms, float)
        require(norms.ndim == 1 and norms.size > 0, f"lags[{name!r}].shape", norms.shape, "(T,), T at least 1")
        fits = bool((np.isfinite(norms) & (norms >= 0)).all())
        require(fits, f"lags[{name!r}]", "negative, NaN or infinite norms", "finite norms, 0 or more")
        drawn = np.where(norms > 0, norms, np.nan)
        # Larger dots below smaller ones: two waves coincide.
        axis.plot(drawn, color=color, marker="o", ms=3 + 1.6 * (len(lags) - 1 - index), lw=1.6, label=name)
        end = int(np.flatnonzero(norms > 0).max(initial=-1)) + 1
        if end < len(norms):
            place = {"transform": axis.get_xaxis_transform(), "clip_on": False, "zorder": 3}
            axis.plot([end], [0], marker="x", ms=8, mew=2, ls="", color=color, gid="0 from here", **place)
            axis.annotate(
                "0 from here", (end, 0), (7, 3), xycoords=axis.get_xaxis_transform(), **{**NOTE, "color": color}
            )
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, 0.1), max(high, 3))
    axis.yaxis.set_major_locator(LogLocator(10, numticks=9))
    axis.xaxis.set_major_locator(MaxNLocator(9, **TICKS))
    if columns is not None:
        require_integer("columns", columns, at_least=1)
        axis.axvline(columns, color=GREY, ls="--", lw=1.2, gid="columns")
        axis.annotate(f"s = {columns}", (columns, 1), (0, 2), ha="center", xycoords=axis.get_xaxis_transform(), **NOTE)
    open_axes(axis)
    figure.legend(loc="outside lower center", ncols=min(4, len(lags)), frameon=False)
    figure.suptitle(title, fontsize=12)
    return figure
