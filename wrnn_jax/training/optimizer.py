"""Hyper-parameters that only change numbers, and the optimiser made of them."""

import math
from typing import NamedTuple

import optax

from wrnn_jax.typing import Array


class Hparams(NamedTuple):
    """Traced hyper-parameters: an argument of the compiled step, so that a new value compiles nothing
    and a batch of values can be vmapped."""

    lr: float | Array
    """Adam's learning rate."""
    grad_clip: float | Array
    """The largest global norm a gradient may have; inf leaves it as it is."""


def make_hparams(lr: float, grad_clip: float) -> Hparams:
    """Hyper-parameters from the command line's numbers, where a clip of 0 means none."""
    return Hparams(lr, grad_clip or math.inf)


def make_optimizer(hparams: Hparams) -> optax.GradientTransformation:
    """Adam after clipping by the global norm: g ← g · min(1, grad_clip / ‖g‖)."""
    return optax.chain(optax.clip_by_global_norm(hparams.grad_clip), optax.adam(hparams.lr))
