"""Hyper-parameters that only change numbers, and the optimiser made of them."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import optax

from wrnn_jax.typing import Array


class Hparams(NamedTuple):
    """Traced hyper-parameters: an argument of the compiled step, so that a new value compiles nothing
    and a batch of values can be vmapped."""

    lr: float | Array
    """Adam's learning rate, which the schedule multiplies."""
    grad_clip: float | Array
    """The largest global norm a gradient may have; inf leaves it as it is."""
    lr_factor: float | Array | None = None
    """The factor F of a schedule that has one, see :data:`SCHEDULES`."""
    lr_period: float | Array | None = None
    """Its period P in optimiser steps; for the plateau in evaluations."""
    weight_decay: float | Array | None = None
    """The factor λ of an L2 penalty ½ λ ‖θ‖²; None is 0."""


def make_hparams(
    lr: float,
    grad_clip: float,
    lr_factor: float | None = None,
    lr_period: float | None = None,
    weight_decay: float | None = None,
) -> Hparams:
    """Hyper-parameters from the command line's numbers, where a clip of 0 means none."""
    return Hparams(lr, grad_clip or math.inf, lr_factor, lr_period, weight_decay)


def _cosine(x: Array) -> Array:
    """From 1 at x = 0 to 0 at x = 1 and beyond."""
    return 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(x, 0.0, 1.0)))


ONE_CYCLE_RISE = 0.3
ONE_CYCLE_END = 1e-4

SCHEDULES: Mapping[str, Callable[[Hparams, Array, Array], Array]] = {
    "constant": lambda hparams, step, drops: jnp.ones_like(step),
    "step": lambda hparams, step, drops: hparams.lr_factor ** -jnp.floor(step / hparams.lr_period),
    "exponential": lambda hparams, step, drops: hparams.lr_factor ** -(step / hparams.lr_period),
    "cosine": lambda hparams, step, drops: _cosine(step / hparams.lr_period),
    "one-cycle": lambda hparams, step, drops: _one_cycle(1 / hparams.lr_factor, step / hparams.lr_period),
    "plateau": lambda hparams, step, drops: hparams.lr_factor**-drops,
}
"""By what the learning rate is multiplied after ``step`` steps, both floats, with F and P of the hyper-parameters:

===============  ==========================================================================================
``constant``     1
``step``         F^−⌊step / P⌋
``exponential``  F^−(step / P)
``cosine``       ½ (1 + cos(π · step / P)), and 0 after P
``one-cycle``    by half a cosine from 1/F to 1 over the first 30 % of P, then by another to 10⁻⁴/F
``plateau``      F^−drops: it drops whenever P evaluations in a row have not lowered the watched loss
===============  ==========================================================================================

Source: the kinds are those of the authors' program; one-cycle: Smith and Topin 2018.
"""


def _one_cycle(start: Array, x: Array) -> Array:
    end = ONE_CYCLE_END * start
    rising = 1 - (1 - start) * _cosine(x / ONE_CYCLE_RISE)
    falling = end + (1 - end) * _cosine((x - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))
    return jnp.where(x < ONE_CYCLE_RISE, rising, falling)


def make_optimizer(
    hparams: Hparams, schedule: str = "constant", drops: int | Array = 0
) -> optax.GradientTransformation:
    """Adam after clipping by the global norm::

        g ← g · min(1, grad_clip / ‖g‖) + λ θ,      θ ← θ − lr · SCHEDULES[schedule](hparams, step, drops) · Adam(g)

    Args:
      hparams: traced hyper-parameters.
      schedule: a key of :data:`SCHEDULES`.
      drops: how often the plateau schedule has dropped so far.
    """

    def learning_rate(step: Array) -> Array:
        step, dropped = jnp.asarray(step, jnp.float32), jnp.asarray(drops, jnp.float32)
        return hparams.lr * SCHEDULES[schedule](hparams, step, dropped)

    return optax.chain(
        optax.clip_by_global_norm(hparams.grad_clip),
        optax.identity() if hparams.weight_decay is None else optax.add_decayed_weights(hparams.weight_decay),
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(learning_rate),
    )
