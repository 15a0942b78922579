"""A history-dependent series, and how a network goes on with it."""

import numpy as np
from matplotlib.ticker import MaxNLocator

from wrnn_jax.analysis.plots.style import NOTE, TICKS, VERMILION, WIDTH, Figure, draw_image, top_of
from wrnn_jax.validation import require

WHOLE = 120  # steps of which each is wide enough to be seen


def series_example(first: np.ndarray, due: np.ndarray, said: np.ndarray, *, title: str = "Series") -> Figure:
    """The vectors that were shown, those that were due after them, and what the network said, a column a step.

    Of a longer series the first 120 steps are drawn; the share of right signs is that of all of them. An element whose
    sign is wrong has a dot.

    Args:
      first: the s vectors that were shown, ``(s, d)``.
      due: the H next ones, ``(H, d)``.
      said: what the network said in their place, ``(H, d)``.
      title: of the figure.

    Raises:
      ValueError: for arrays that do not fit together.
    """
    first, due, said = (np.asarray(array, float) for array in (first, due, said))
    require(first.ndim == 2, "first.shape", first.shape, "(s, d)")
    require(due.ndim == 2 and due.shape[1] == first.shape[1], "due.shape", due.shape, f"(H, {first.shape[1]})")
    require(said.shape == due.shape, "said.shape", said.shape, str(due.shape))
    wrong = (said > 0) != (due > 0)
    top = max(top_of(first), top_of(due))
    colors = {"cmap": "RdBu_r", "vmin": -top, "vmax": top}
    figure = Figure((WIDTH, 3.6), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    shown = first.shape[0] + min(len(due), WHOLE)
    for axis, name, answers in zip(axes, ("due", "network"), (due, said), strict=True):
        image = draw_image(axis, np.concatenate([first, answers])[:shown], **colors)
        axis.axvline(len(first) - 0.5, color="k", lw=1.5, gid="end of input")
        axis.set_ylabel(f"{name}\nelement")
        axis.yaxis.set_major_locator(MaxNLocator(5, **TICKS))
    axes[0].annotate("shown", (-0.5, -0.5), (0, 3), va="bottom", annotation_clip=False, **NOTE)
    axes[0].annotate("no more input", (len(first) - 0.5, -0.5), (4, 3), va="bottom", annotation_clip=False, **NOTE)
    steps, elements = np.nonzero(wrong[: shown - len(first)])
    axes[1].plot(len(first) + steps, elements, ".", color=VERMILION, mec="k", ms=5, mew=0.4, ls="", gid="mistakes")
    axes[1].set_xlabel("time step" + (f" (the first {shown} of {len(first) + len(due)})" if len(due) > WHOLE else ""))
    axes[1].xaxis.set_major_locator(MaxNLocator(9, **TICKS))
    figure.colorbar(image, ax=axes, label="value", shrink=0.7, pad=0.02)
    figure.suptitle(f"{title}: {100 * (1 - wrong.mean()):.4g} % of {wrong.size:,} signs right", fontsize=12)
    return figure
