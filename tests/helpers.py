"""What several test modules do alike."""

import io
import math

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from wrnn_jax.models import stateless
from wrnn_jax.tasks.base import Progress


def run(main, *arguments):
    """The exit code of a program with these arguments."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as exit:
        return exit.code
    return 0


def refusal(capsys, main, *arguments):
    """The one line that a refused command prints."""
    assert run(main, *arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "Traceback" not in said[0]
    return said[0]


def draw(figure):
    """Rasterise the figure, so that whatever only fails or warns when drawn does so here."""
    figure.savefig(io.BytesIO(), dpi=60)


def by_gid(axis, gid):
    """The lines of that name."""
    return [line for line in axis.lines if line.get_gid() == gid]


def at_step(step, level=0):
    """Where a run stands."""
    return Progress(jnp.int32(step), jnp.int32(level))


def linear_map(signature):
    """A network that is soon compiled, and learns to copy: outputs (B, T, O) as a linear map of inputs (B, T, D)."""
    inputs, outputs, length, *_ = signature

    def init(key):
        return {"kernel": jax.random.normal(key, (length * inputs, length * outputs)) / length}

    def apply(params, xs):
        return (xs.reshape(len(xs), -1) @ params["kernel"]).reshape(len(xs), length, outputs)

    return stateless(init, apply)


def frames_of(path):
    """The frames of an animation, ``(height, width, 3)`` each."""
    with Image.open(path) as picture:
        for index in range(picture.n_frames):
            picture.seek(index)
            yield np.asarray(picture.convert("RGB"), float)


def one_cycle_of_the_framework(total, factor, step):
    """Learning rate (of a top of 1) and β₁ at a step, as PyTorch documents OneCycleLR: by half a cosine up to the step
    0.3 · total − 1, and down to the last."""

    def between(start, end, share):
        return end + (start - end) / 2 * (math.cos(math.pi * share) + 1)

    top_at, last = 0.3 * total - 1, total - 1
    if step <= top_at:
        share = step / top_at
        return between(1 / factor, 1.0, share), between(0.95, 0.85, share)
    share = (step - top_at) / (last - top_at)
    return between(1.0, 1 / factor / 1e4, share), between(0.85, 0.95, share)
