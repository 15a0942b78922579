"""A trained RNN beside the theory: eigenvalues, and the recurrence in the basis of its variables."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from wrnn_jax.analysis.plots.style import BLUE, GREY, VERMILION, WIDTH, Figure
from wrnn_jax.analysis.variables import SpectralComparison
from wrnn_jax.validation import require, require_integer

THEORY = {"marker": "o", "ls": "", "mfc": "none", "mec": BLUE, "ms": 8, "mew": 1.3, "gid": "theory"}
TRAINED = {"marker": "o", "ls": "", "color": VERMILION, "ms": 3.2, "gid": "trained"}
LEFT_OUT = {"marker": "o", "ls": "", "color": "0.7", "ms": 2.2, "gid": "left out"}
UNIT = {"color": GREY, "lw": 0.8, "gid": "unit circle"}
THRESHOLD = {"color": GREY, "lw": 0.8, "ls": (0, (1, 2)), "gid": "threshold"}
HALO = [withStroke(linewidth=2, foreground="w")]
COUNT = {
    "textcoords": "offset points",
    "color": BLUE,
    "fontsize": 8,
    "ha": "center",
    "va": "center",
    "path_effects": HALO,
}
LINE = {"color": "0.75", "lw": 0.5}


def spectra_overlay(comparisons: Mapping[str, SpectralComparison], *, title: str = "Eigenvalues") -> Figure:
    """Theory's and trained RNNs' eigenvalues over each other in the complex plane, a panel for each comparison.

    An open circle is an eigenvalue of the reduced Φ; the small number beside it says how many there are in one place.
    Above each panel stand the angle error, or both counts where they differ.

    Args:
      comparisons: panel's title -> what :func:`wrnn_jax.analysis.variables.compare_spectra` returned.
      title: of the figure.

    Raises:
      ValueError: for no comparison.

    Source: Karuvally et al. 2024, the figure of the spectra.
    """
    require(len(comparisons) > 0, "comparisons", comparisons, "at least one comparison")
    columns = min(len(comparisons), 2 if len(comparisons) == 4 else 3)
    rows = math.ceil(len(comparisons) / columns)
    side = max(WIDTH / columns, 3.4) if columns > 1 else 5.0
    figure = Figure((side * columns, side * rows + 0.9), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for unused in axes[len(comparisons) :]:
        unused.remove()
    drawn = np.concatenate([eigenvalues for comparison in comparisons.values() for eigenvalues in comparison[:3]])
    reach = 1.15 * np.abs(drawn).max(initial=1)
    for index, (axis, (name, comparison)) in enumerate(zip(axes, comparisons.items(), strict=False)):
        _draw_spectra(axis, comparison)
        axis.set_title(name, fontsize=10, loc="left", fontweight="bold", pad=4)
        axis.set_title(_verdict(comparison), fontsize=9, loc="right", color=GREY, pad=4)
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axis.tick_params(labelsize=8, labelbottom=index + columns >= len(comparisons))
        if index + columns >= len(comparisons):
            axis.set_xlabel("real part", fontsize=9)
        if index % columns == 0:
            axis.set_ylabel("imaginary part", fontsize=9)
    thresholds = ", ".join(sorted({f"{comparison.threshold:.3g}" for comparison in comparisons.values()}))
    names = ("theory (not 0)", "trained, above threshold", "trained, below", "unit circle", f"threshold {thresholds}")
    styles = (THEORY, TRAINED, LEFT_OUT, UNIT, THRESHOLD)
    handles = [Line2D([], [], label=label, **style) for label, style in zip(names, styles, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, 2 * columns), fontsize=9, frameon=False)
    figure.suptitle(title, fontsize=12)
    return figure


def matrix_beside_phi(
    matrix: np.ndarray,
    phi: np.ndarray,
    *,
    size: int,
    kept: Sequence[int] | None = None,
    title: str = "The recurrence in the basis of its variables",
) -> Figure:
    """``Ψ⁺ W_hh Ψ``, the reduced Φ, and their difference, in one scale; thin lines part the substrate's columns.

    Entry (i, k) is what component k passes on to component i in a step: the shift is the stripe to the right of the
    diagonal, the boundary the block row at the bottom. Below the difference stands how large it is
    where Φ is 0 and where it is not: the latter contains the ratios of the vectors' lengths, see
    :func:`wrnn_jax.analysis.variables.variable_memories`.

    Args:
      matrix: ``(K, K)``, from :func:`wrnn_jax.analysis.variables.in_basis`.
      phi: the reduced Φ ``(K, K)``.
      size: d.
      kept: the components that are left, ascending; if not given, all of K.
      title: of the figure.

    Raises:
      ValueError: for matrices or components that do not fit together.

    Source: Karuvally et al. 2024, the figure of W_hh in the basis of the variable memories.
    """
    matrix, phi = np.asarray(matrix, float), np.asarray(phi, float)
    require_integer("size", size, at_least=1)
    count = len(phi)
    require(phi.ndim == 2 and phi.shape == (count, count) and count > 0, "phi.shape", phi.shape, "(K, K)")
    require(matrix.shape == phi.shape, "matrix.shape", matrix.shape, f"that of phi, {phi.shape}")
    column = (np.arange(count) if kept is None else np.asarray(kept)) // size
    require(column.shape == (count,), "kept", kept, f"{count} components, as many as phi has")
    difference = matrix - phi
    top = max(np.abs(matrix).max(), np.abs(phi).max())
    figure = Figure((1.3 * WIDTH, 4.3), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    panels = {"trained: Ψ⁺ W Ψ": matrix, "theory: Φ": phi, "difference": difference}
    for axis, (name, values) in zip(axes, panels.items(), strict=True):
        image = axis.imshow(values, cmap="RdBu_r", vmin=-top, vmax=top, interpolation="nearest")
        axis.set_title(name, fontsize=10, fontweight="bold")
        _part_columns(axis, column)
    off, on = (np.abs(difference[where]).max(initial=0) for where in (phi == 0, phi != 0))
    axes[2].set_xlabel(f"at most {off:.2g} where Φ is 0, {on:.2g} elsewhere", fontsize=9, color=GREY)
    axes[0].set_ylabel("to column (1: oldest)")
    axes[0].set_xlabel("from column")
    axes[1].set_xlabel("from column")
    figure.colorbar(image, ax=axes, label="weight", shrink=0.75, pad=0.01)
    figure.suptitle(title, fontsize=12)
    return figure


def _draw_spectra(axis: Axes, comparison: SpectralComparison) -> None:
    turn = np.exp(2j * np.pi * np.linspace(0, 1, 361))
    for points, style in (
        (turn, UNIT),
        (comparison.threshold * turn, THRESHOLD),
        (comparison.left_out, LEFT_OUT),
        (comparison.theory, THEORY),
        (comparison.trained, TRAINED),
    ):
        axis.plot(points.real, points.imag, **style)
    # Rounding, and joining −π to π, so that equal eigenvalues are counted together.
    places, counts = np.unique(np.round(comparison.theory, 5) + 0, return_counts=True)
    for place, count in zip(places, counts, strict=True):
        if count > 1:
            outward = place / max(abs(place), 1e-9)
            offset, where = (-13 * outward.real, -13 * outward.imag), (place.real, place.imag)
            axis.annotate(str(count), where, offset, **COUNT)


def _verdict(comparison: SpectralComparison) -> str:
    """The angle error, or why there is none."""
    theory, trained = len(comparison.theory), len(comparison.trained)
    if comparison.angle_error is None:
        return f"{trained} eigenvalues, theory {theory}: –"
    return f"{trained} of {theory}, angle error {comparison.angle_error:.2g}"


def _part_columns(axis: Axes, column: np.ndarray) -> None:
    """Lines between the components of different columns, and the columns' numbers at their middle."""
    edges = np.flatnonzero(np.diff(column)) + 0.5
    for edge in edges:
        axis.axvline(edge, gid="column", **LINE)
        axis.axhline(edge, gid="column", **LINE)
    middles = [np.flatnonzero(column == number).mean() for number in np.unique(column)]
    axis.set_xticks(middles, np.unique(column) + 1, fontsize=8)
    axis.set_yticks(middles, np.unique(column) + 1, fontsize=8)
    axis.tick_params(length=0)
