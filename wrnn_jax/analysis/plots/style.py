"""What the figures have in common: colours, widths, and how a trajectory of states becomes an image."""

import io
from typing import Any

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke

WIDTH = 9.0  # inches: 1350 pixels at 150 dpi
LEGEND = 95  # characters that fit side by side below a figure
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, VERMILION, GREEN, GREY = *COLORS[:3], "0.35"  # Okabe and Ito's colours: colour-blind readers tell them apart
OUTLINE = withStroke(linewidth=2, foreground="k")
GUIDE = {"color": "cyan", "ls": (0, (5, 5)), "lw": 0.8, "gid": "guide", "path_effects": [OUTLINE]}
NOTE = {"textcoords": "offset points", "color": GREY, "fontsize": 9}
TICKS = {"steps": [1, 2, 5, 10], "integer": True}


class Figure(matplotlib.figure.Figure):
    """A figure that a notebook shows as it is, once: without pyplot it has no backend that would.

    IPython asks an object for ``_repr_png_`` unless a formatter is registered for its class, as ``%matplotlib inline``
    does for matplotlib's figures.
    """

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", facecolor=self.get_facecolor())
        return buffer.getvalue()


def draw_image(axis: Axes, values: np.ndarray, *, start: int = 0, origin: str = "upper", **options) -> AxesImage:
    """Draw ``(T, rows)`` with time to the right, each pixel centred on its step and row."""
    steps, rows = values.shape
    vertical = (-0.5, rows - 0.5) if origin == "lower" else (rows - 0.5, -0.5)
    extent = (start - 0.5, start + steps - 0.5, *vertical)
    image = axis.imshow(values.T, aspect="auto", extent=extent, origin=origin, **options)
    axis.autoscale(False)
    return image


def draw_baseline(axis: Axes, value: float, text: str, *, offset: float) -> None:
    """A dashed horizontal line, named at its right end, ``offset`` points above it (below, if negative)."""
    axis.axhline(value, color=GREY, linestyle="--", linewidth=1.2, gid="baseline")
    place = {"xycoords": axis.get_yaxis_transform(), "ha": "right", "va": "bottom" if offset > 0 else "top"}
    background = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7}
    axis.annotate(text, (1, value), (-2, offset), bbox=background, **place, **NOTE)


def open_axes(axis: Axes) -> None:
    """A light grid, and no frame above and to the right."""
    axis.grid(color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def top_of(values: np.ndarray) -> float:
    """The 99th percentile of the finite magnitudes above 0 (1 where there is none): one spike hides nothing."""
    magnitudes = np.abs(values[np.isfinite(values) & (values != 0)])
    return float(np.percentile(magnitudes, 99)) if magnitudes.size else 1.0


def is_signed(hidden: np.ndarray) -> bool:
    """Whether the states have two signs, and so need the colours of :func:`state_colors` that do."""
    return bool((hidden < 0).any())


def state_colors(top: float, signed: bool) -> dict[str, Any]:
    """Colours by square root, so that weak waves show: dark to bright, or blue to red where states have two signs."""
    functions = (lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2)
    return {"cmap": "RdBu_r" if signed else "magma", "norm": FuncNorm(functions, -top if signed else 0, top)}
