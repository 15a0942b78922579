"""Hyper-parameters that only change numbers, and the optimiser made of them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from wrnn_jax.typing import Array, Params
from wrnn_jax.validation import require


class Hparams(NamedTuple):
    """Traced hyper-parameters: an argument of the compiled step, so that a new value compiles nothing
    and a batch of values can be vmapped."""

    lr: float | Array
    """Adam's learning rate, which the schedule multiplies."""
    grad_clip: float | Array
    """The largest global norm a gradient may have; 0, or inf, leaves it as it is."""
    lr_factor: float | Array | None = None
    """The factor F of a schedule that has one, see :data:`SCHEDULES`."""
    lr_period: float | Array | None = None
    """Its period P in optimiser steps; for a plateau in evaluations."""
    weight_decay: float | Array | None = None
    """The factor λ of an L2 penalty ½ λ ‖θ‖²; None is 0."""
    loss_divisor: float | Array | None = None
    """What the loss, and so its gradient, is divided by before anything else; None is 1."""


def make_hparams(
    lr: float,
    grad_clip: float,
    lr_factor: float | None = None,
    lr_period: float | None = None,
    weight_decay: float | None = None,
    loss_divisor: float | None = None,
) -> Hparams:
    """Hyper-parameters from the command line's numbers, all of which a grid can stack."""
    return Hparams(lr, grad_clip, lr_factor, lr_period, weight_decay, loss_divisor or 1.0)


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
    # As the authors' framework has them.
    "one-cycle-momentum": lambda hparams, step, drops: _two_phases(
        1 / hparams.lr_factor, 1.0, ONE_CYCLE_END / hparams.lr_factor, hparams.lr_period, step
    ),
    "exponential-epochs": lambda hparams, step, drops: SCHEDULES["step"](hparams, step, drops),
    "plateau-accuracy": lambda hparams, step, drops: SCHEDULES["plateau"](hparams, step, drops),
}
"""By what the learning rate is multiplied after ``step`` steps, both floats, with F and P of the hyper-parameters:

======================  ====================================================================================
``constant``            1
``step``                F^−⌊step / P⌋
``exponential``         F^−(step / P)
``cosine``              ½ (1 + cos(π · step / P)), and 0 after P
``one-cycle``           by half a cosine from 1/F to 1 over the first 30 % of P, then by another to 10⁻⁴/F
``plateau``             F^−drops: it drops whenever P evaluations in a row have not lowered the watched loss
``one-cycle-momentum``  ``one-cycle``, at its top at step 0.3 P − 1 and at its end at P − 1; meanwhile Adam's β₁
                        goes by the same halves of a cosine from 0.95 to 0.85 and back
``exponential-epochs``  F^−⌊step / P⌋ with a P of one epoch, if no other is asked for
``plateau-accuracy``    F^−drops: it drops whenever more than P evaluations in a row have not raised the score (for
                        images the validation accuracy), of which the first 5 after a drop do not count
======================  ====================================================================================

The last three are those of the authors' framework, as it documents them. Their program makes another use of two: it
moves one-cycle on once an epoch, so that the learning rate hardly leaves its start; and it hands the accuracy to a
plateau that waits for falls of what it is given, so that the learning rate drops while the accuracy rises. No published
setting has either.

Source: the kinds are those of the authors' program; one-cycle: Smith and Topin 2018.
"""
BY_EPOCHS = ("exponential-epochs", "plateau-accuracy")
"""Those that want a training set that epochs go through, and a score on a validation set."""
PLATEAUS = ("plateau", "plateau-accuracy")
COOLDOWN = {"plateau-accuracy": 5}
"""Evaluations after a drop that do not count, of the schedules that have such."""
MOMENTUMS: Mapping[str, Callable[[Hparams, Array], Array]] = {
    "one-cycle-momentum": lambda hparams, step: _two_phases(0.95, 0.85, 0.95, hparams.lr_period, step),
}
"""Adam's β₁ after ``step`` steps, of the schedules in which it is not 0.9."""


def _one_cycle(start: Array, x: Array) -> Array:
    end = ONE_CYCLE_END * start
    rising = 1 - (1 - start) * _cosine(x / ONE_CYCLE_RISE)
    falling = end + (1 - end) * _cosine((x - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))
    return jnp.where(x < ONE_CYCLE_RISE, rising, falling)


def _two_phases(start: Array, top: Array, end: Array, period: Array, step: Array) -> Array:
    """By half a cosine from ``start`` to ``top`` at step 0.3 P − 1, then by another to ``end`` at P − 1."""
    at_top = ONE_CYCLE_RISE * period - 1
    rising = top + (start - top) * _cosine(step / jnp.maximum(at_top, 1e-6))
    falling = end + (top - end) * _cosine((step - at_top) / (period - 1 - at_top))
    return jnp.where(step <= at_top, rising, falling)


def make_optimizer(
    hparams: Hparams, schedule: str = "constant", drops: int | Array = 0
) -> optax.GradientTransformation:
    """Adam after clipping by the global norm::

        g ← g / loss_divisor
        g ← g · min(1, grad_clip / ‖g‖) + λ θ,      θ ← θ − lr · SCHEDULES[schedule](hparams, step, drops) · Adam(g)

    where Adam's β₁ is 0.9, or what :data:`MOMENTUMS` says, β₂ = 0.999 and ε = 10⁻⁸.
    With D = ``loss_divisor`` that is, up to rounding, the optimiser of loss / D + ½ λ ‖θ‖². Seen from the loss itself
    its clip is D · grad_clip, and the ε of Adam, whose steps otherwise know no scale, D · 10⁻⁸.

    Args:
      hparams: traced hyper-parameters.
      schedule: a key of :data:`SCHEDULES`.
      drops: how often the plateau schedule has dropped so far.
    """

    def learning_rate(step: Array) -> Array:
        step, dropped = jnp.asarray(step, jnp.float32), jnp.asarray(drops, jnp.float32)
        return hparams.lr * SCHEDULES[schedule](hparams, step, dropped)

    return optax.chain(
        divide_and_clip(hparams.loss_divisor, hparams.grad_clip),
        optax.identity() if hparams.weight_decay is None else optax.add_decayed_weights(hparams.weight_decay),
        _adam(hparams, schedule),
        optax.scale_by_learning_rate(learning_rate),
    )


def divide_and_clip(divisor: float | Array | None, norm: float | Array) -> optax.GradientTransformation:
    """One part of the chain, which has no state: a checkpoint looks the same with and without a divisor."""
    if not isinstance(norm, jax.core.Tracer):
        require(bool(np.all(np.asarray(norm) >= 0)), "grad_clip", norm, "0 or more; 0 = off")
    # Of a traced one that is negative or NaN, which cannot be refused, nothing but NaN comes: the run diverges.
    most = jnp.where(norm > 0, norm, jnp.where(norm == 0, jnp.inf, jnp.nan))

    def clipped(gradient: Params) -> Params:
        length = optax.tree.norm(gradient)
        is_long = ~((length < most) | (most == jnp.inf))
        # Where it is not, which includes a gradient of zeros, nothing is divided by its length.
        divisor, factor = (jnp.where(is_long, number, 1.0) for number in (length, most))
        return jax.tree.map(lambda leaf: leaf / divisor.astype(leaf.dtype) * factor.astype(leaf.dtype), gradient)

    def apply(gradient: Params, params: Params | None) -> Params:
        return clipped(gradient if divisor is None else jax.tree.map(lambda leaf: leaf / divisor, gradient))

    return optax.stateless(apply)


def _adam(hparams: Hparams, schedule: str) -> optax.GradientTransformation:
    """Adam, with the β₁ of the step, by which alone its bias is corrected too: as the authors' framework does."""
    adam = optax.scale_by_adam()
    if schedule not in MOMENTUMS:
        return adam

    def update(gradient: Params, state: optax.ScaleByAdamState, params: Params | None = None):
        momentum = MOMENTUMS[schedule](hparams, jnp.asarray(state.count, jnp.float32))
        return optax.scale_by_adam(b1=momentum).update(gradient, state, params)

    return optax.GradientTransformation(adam.init, update)
