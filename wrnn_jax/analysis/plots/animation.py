"""Pictures into an animated GIF: what stands still is drawn once, what moves for each frame."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from wrnn_jax.analysis.plots.style import Figure
from wrnn_jax.validation import require, require_integer, require_positive

MOST_FRAMES = 200
DPI = 80
SHADES = 64  # colours in the file: few enough to be small, enough for a smooth scale


def frame_steps(steps: int, every: int) -> np.ndarray:
    """The steps that are drawn, 0 the first: every so many of T, and of more than 200 such, 200 evenly."""
    drawn = np.arange(0, steps, every)
    count = min(len(drawn), MOST_FRAMES)
    return drawn[np.linspace(0, len(drawn) - 1, count).round().astype(int)]


def write_gif(
    figure: Figure, draw: Callable[[int], None], steps: int, path: Path | str, *, fps: float, every: int, ink: str
) -> None:
    """Write a GIF that repeats for ever: ``draw`` draws what moves (``animated`` artists), a clock below counts.

    Args:
      figure: what stands still, with its title; dark or light.
      draw: a step's number -> draws its artists onto the figure.
      steps: T.
      path: the file, ``.gif``.
      fps: frames a second.
      every: steps from one frame to the next. Where that makes more than 200 frames, 200 of them are drawn, evenly.
      ink: the clock's colour.

    Raises:
      ValueError: for a path that does not end in .gif, or numbers out of range.
    """
    path = Path(path)
    require(path.suffix == ".gif", "path", str(path), "a file name that ends in .gif")
    require_positive("fps", fps)
    require_integer("every", every, at_least=1)
    canvas = FigureCanvasAgg(figure)
    clock = figure.supxlabel("step", color=ink, fontsize=11, family="monospace", animated=True)
    canvas.draw()
    still = canvas.copy_from_bbox(figure.bbox)
    frames = []
    for step in frame_steps(steps, every):
        canvas.restore_region(still)
        draw(step)
        clock.set_text(f"step {step:{len(str(steps))}} / {steps - 1}")
        figure.draw_artist(clock)
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        frames.append(picture.quantize(SHADES, dither=Image.Dither.NONE))
    first, *others = frames
    first.save(path, save_all=True, append_images=others, duration=round(1000 / fps), loop=0, optimize=False)
