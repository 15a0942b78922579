"""A sequence of tokens, and how a network recalls some of them."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from wrnn_jax.analysis.plots.style import COLORS, GREY, TICKS, VERMILION, WIDTH, Figure, draw_image, open_axes
from wrnn_jax.validation import require

WHOLE = 40  # answers that are drawn


def tokens_example(
    inputs: np.ndarray,
    origins: np.ndarray,
    asked: np.ndarray,
    due: np.ndarray,
    probabilities: np.ndarray,
    *,
    names: Mapping[str, tuple[int, int]],
    title: str = "Tokens",
) -> Figure:
    """The tokens of a sequence over time, and beside them the network's answers.

    Left a dot for each token; of those to recall it has a colour, by the order in which they are due, and a line that
    says for how long it is to be remembered. Right the probabilities of the answers, a column each: a circle at the
    token that is due, a cross at a wrong guess. Of more than 40 answers the first 40 are drawn; the count of right ones
    is that of all.

    Args:
      inputs: ``(T,)``, tokens as numbers 0 … V − 1, of which 0 says nothing and has no dot.
      origins: ``(Q,)``, the steps at which those to recall were shown.
      asked: ``(Q,)``, the steps at which they are due, none of them before its origin.
      due: ``(Q,)``, the tokens themselves.
      probabilities: ``(Q, V)``.
      names: kinds of token -> the first and the last number of the kind.
      title: of the figure.

    Raises:
      ValueError: for arrays that do not fit together, or tokens that are none.
    """
    inputs, origins, asked, due = (np.asarray(array) for array in (inputs, origins, asked, due))
    probabilities = np.asarray(probabilities, float)
    require(inputs.ndim == 1 and inputs.size > 0, "inputs.shape", inputs.shape, "(T,), T above 0")
    require(due.ndim == 1 and due.size > 0, "due.shape", due.shape, "(Q,), Q above 0")
    for name, steps in (("origins", origins), ("asked", asked)):
        require(steps.shape == due.shape, f"{name}.shape", steps.shape, str(due.shape))
        require(bool(((steps >= 0) & (steps < len(inputs))).all()), name, steps, f"steps, 0 to {len(inputs) - 1}")
    fits = probabilities.ndim == 2 and len(probabilities) == len(due)
    require(fits, "probabilities.shape", probabilities.shape, f"({len(due)}, V)")
    kinds = probabilities.shape[1]
    for name, tokens in (("inputs", inputs), ("due", due)):
        require(bool(((tokens >= 0) & (tokens < kinds)).all()), name, tokens, f"tokens, 0 to {kinds - 1}")
    figure = Figure((WIDTH, 3.8), layout="constrained")
    over_time, answers = figure.subplots(1, 2, width_ratios=(3, 1), sharey=True)
    shown = slice(min(len(due), WHOLE))
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(due[shown])))
    _draw_tokens(over_time, inputs, origins[shown], asked[shown], due[shown], colors)
    image = _draw_answers(answers, probabilities[shown], due[shown])
    _name_kinds(over_time, names, kinds)
    right = int((probabilities.argmax(axis=-1) == due).sum())
    figure.colorbar(image, ax=answers, label="probability", shrink=0.7)
    figure.suptitle(f"{title}: {right} of {len(due)} recalled", fontsize=12)
    return figure


def _draw_tokens(
    axis: Axes, inputs: np.ndarray, origins: np.ndarray, asked: np.ndarray, due: np.ndarray, colors: np.ndarray
) -> None:
    steps = np.flatnonzero(inputs)
    axis.plot(steps, inputs[steps], ".", color="0.7", ms=6 if len(inputs) <= 300 else 3, gid="tokens")
    for origin, step, token, color in zip(origins, asked, due, colors, strict=True):
        axis.plot((origin, step), (token, token), color=color, lw=1, gid="remembered")
        axis.plot(origin, token, "o", color=color, ms=6)
    axis.set(xlabel="time step", xlim=(-1, len(inputs)))
    axis.xaxis.set_major_locator(MaxNLocator(9, **TICKS))
    open_axes(axis)


def _draw_answers(axis: Axes, probabilities: np.ndarray, due: np.ndarray) -> matplotlib.image.AxesImage:
    image = draw_image(axis, probabilities, origin="lower", cmap="Greys", norm=Normalize(0, 1))
    columns, guesses = np.arange(len(due)), probabilities.argmax(axis=-1)
    axis.plot(columns, due, "o", mfc="none", mec=COLORS[5], mew=1.6, ms=8, gid="due")
    wrong = guesses != due
    axis.plot(columns[wrong], guesses[wrong], "x", color=VERMILION, ms=7, mew=1.8, gid="mistakes")
    axis.set_xlabel("answer" if len(due) == 1 else "answers, in the order\nin which they are due")
    axis.set_xticks([0]) if len(due) == 1 else axis.xaxis.set_major_locator(MaxNLocator(5, **TICKS))
    return image


def _name_kinds(axis: Axes, names: Mapping[str, tuple[int, int]], kinds: int) -> None:
    """A tick in the middle of each kind, and a line where the next one begins."""
    axis.set_yticks([(first + last) / 2 for first, last in names.values()], names)
    for first, _ in names.values():
        axis.axhline(first - 0.5, color=GREY, lw=0.5)
    axis.set_ylim(-0.5, kinds - 0.5)
