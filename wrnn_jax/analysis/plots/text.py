"""A text, and what a network expected in it."""

import numpy as np
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle

from wrnn_jax.analysis.plots.style import WIDTH, Figure
from wrnn_jax.validation import require

COLUMNS, MOST_ROWS = 64, 16
FONT = FontProperties(family="DejaVu Sans Mono")  # It comes with matplotlib.
MARKS = {"\n": "↵", "\t": "→", " ": "·", "\r": "←"}
UNKNOWN = "□"


def text_example(text: str, probabilities: np.ndarray, *, title: str = "Text") -> Figure:
    """The characters of a text row by row, each on the colour of the probability that the network gave it.

    Of a longer text the first 1,024 characters are drawn; the mean is that of all.

    Args:
      text: T + 1 characters, of which the first is given.
      probabilities: of each of the others, by those before it: ``(T,)``, from 0 to 1.
      title: of the figure.

    Raises:
      ValueError: for arrays that do not fit together.
    """
    probabilities = np.asarray(probabilities, float)
    require(probabilities.shape == (len(text) - 1,), "probabilities.shape", probabilities.shape, f"({len(text) - 1},)")
    shown = text[: COLUMNS * MOST_ROWS]
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure((WIDTH, 1.3 + 0.28 * rows), layout="constrained")
    axis = figure.subplots()
    cells = np.full(rows * columns, np.nan)
    cells[1 : len(shown)] = probabilities[: len(shown) - 1]
    colors = {"cmap": "viridis", "vmin": 0, "vmax": 1}
    image = axis.imshow(cells.reshape(rows, columns), aspect="auto", **colors)
    axis.add_patch(Rectangle((-0.5, -0.5), 1, 1, fill=False, ec="0.5", hatch="///", lw=0, gid="given"))
    known = get_font(findfont(FONT)).get_charmap()
    for place, character in enumerate(shown):
        row, column = divmod(place, columns)
        mark = MARKS.get(character, character if ord(character) in known and character.isprintable() else UNKNOWN)
        color = "k" if place == 0 or probabilities[place - 1] > 0.6 else "w"
        style = {"ha": "center", "va": "center", "fontproperties": FONT, "fontsize": 9, "parse_math": False}
        axis.text(column, row, mark, color=color, **style)
    axis.set_axis_off()
    figure.colorbar(image, ax=axis, label="probability given to\nthe character", pad=0.01)
    bits = -np.log2(np.maximum(probabilities, np.finfo(np.float32).tiny)).mean()
    figure.suptitle(f"{title}: {bits:.3g} bits a character", fontsize=12)
    return figure
