"""How long a network goes on rightly by itself."""

from collections.abc import Mapping, Sequence
from itertools import chain, cycle, repeat

import numpy as np
from matplotlib.ticker import MaxNLocator

from wrnn_jax.analysis.plots.style import COLORS, GREY, LEGEND, TICKS, WIDTH, Figure, draw_baseline, open_axes
from wrnn_jax.validation import require


def accuracy_by_step(
    curves: Mapping[str, np.ndarray],
    *,
    horizons: Sequence[int] = (),
    chance: float = 0.5,
    title: str = "Accuracy along the horizon",
) -> Figure:
    """The share of right signs at every step without input; dotted, the horizons of training.

    Args:
      curves: name -> share right ``(H,)`` at steps 1 … H, from 0 to 1; curves may differ in length.
      horizons: of the curriculum, in steps.
      chance: the share that guessing gets right.
      title: of the figure.

    Raises:
      ValueError: for nothing to draw, arrays of another shape, or shares that are not from 0 to 1.

    Source: Karuvally et al. 2024, experiments on variable binding.
    """
    require(len(curves) > 0, "curves", curves, "at least one curve")
    figure = Figure((WIDTH, 4.2), layout="constrained")
    axis = figure.subplots()
    lowest = chance
    for (name, shares), color in zip(curves.items(), cycle(COLORS), strict=False):
        shares = np.asarray(shares, float)
        require(shares.ndim == 1 and shares.size > 0, f"curves[{name!r}].shape", shares.shape, "(H,), H at least 1")
        fits = bool(((shares >= 0) & (shares <= 1)).all())
        require(fits, f"curves[{name!r}]", "shares below 0, above 1 or NaN", "shares from 0 to 1")
        axis.plot(np.arange(1, len(shares) + 1), 100 * shares, color=color, lw=1.8, label=name)
        lowest = min(lowest, shares.min())
    for steps, label in zip(horizons, chain(["training horizons"], repeat("")), strict=False):
        axis.axvline(steps, color=GREY, ls=":", lw=1.2, gid="trained", label=label)
    draw_baseline(axis, 100 * chance, f"guessing: {100 * chance:.3g} %", offset=3)
    axis.set(xlabel="steps since the last input", ylabel="signs right (%)", ylim=(100 * lowest - 3, 102))
    axis.set_xlim(left=0)
    axis.xaxis.set_major_locator(MaxNLocator(9, **TICKS))
    open_axes(axis)
    columns = max(1, LEGEND // (8 + max(map(len, curves))))
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    figure.suptitle(title, fontsize=12)
    return figure
