"""Hyper-parameters that only change numbers, and the optimiser made of them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from wrnn_jax.training import groups
from wrnn_jax.typing import Array, Params
from wrnn_jax.validation import require, require_choice


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
    """The factor λ of the weight decay, see :func:`make_optimizer`; None is 0."""
    loss_divisor: float | Array | None = None
    """What the loss, and so its gradient, is divided by before anything else; None is 1."""
    warmup: float | Array | None = None
    """The optimiser steps W of the warm-up, see :func:`learning_rate`; None is 0."""


def make_hparams(
    lr: float,
    grad_clip: float,
    lr_factor: float | None = None,
    lr_period: float | None = None,
    weight_decay: float | None = None,
    loss_divisor: float | None = None,
    warmup: int = 0,
) -> Hparams:
    """Hyper-parameters from the command line's numbers, all of which a grid can stack."""
    return Hparams(lr, grad_clip, lr_factor, lr_period, weight_decay, loss_divisor or 1.0, float(warmup))


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


def learning_rate(hparams: Hparams, schedule: str, step: Array, drops: Array) -> Array:
    """The learning rate of the update that follows ``step`` others, with a warm-up of W = ``warmup`` of them::

        lr · min(1, (step + 1) / W) · SCHEDULES[schedule](hparams, max(0, step − W), drops)

    It rises linearly to the schedule's first value, and the schedule, Adam's β₁ included, begins once it is there: a
    schedule keeps its shape and has its whole period after the warm-up, as published recipes count it. A plateau counts
    evaluations, of the warm-up too. With W = 0 every number is that of the schedule alone, to the bit.

    Args:
      hparams: traced hyper-parameters.
      schedule: a key of :data:`SCHEDULES`.
      step: a float, as is ``drops``: how often the plateau schedule has dropped so far.

    Source: linear warm-up and then the schedule, Goyal et al. 2017, section 2.2.
    """
    rate = hparams.lr
    if hparams.warmup is not None:
        # Exactly 1 without a warm-up, and after it.
        rate = rate * jnp.minimum((step + 1) / jnp.maximum(hparams.warmup, 1.0), 1.0)
    return rate * SCHEDULES[schedule](hparams, _after_warmup(hparams, step), drops)


def _after_warmup(hparams: Hparams, step: Array) -> Array:
    return step if hparams.warmup is None else jnp.maximum(step - hparams.warmup, 0.0)


DECAYS = ("l2", "decoupled")
"""The kinds of weight decay."""


def make_optimizer(
    hparams: Hparams,
    schedule: str = "constant",
    drops: int | Array = 0,
    *,
    decay: str = "l2",
    rates: Any = None,
    decays: Any = None,
) -> optax.GradientTransformation:
    """Adam after clipping by the global norm, with an L2 penalty or with decoupled weight decay, which is AdamW::

        g ← g / loss_divisor
        g ← g · min(1, grad_clip / ‖g‖)
        l2:         θ ← θ − η · rate · Adam(g + λ θ)
        decoupled:  θ ← θ − η · rate · (Adam(g) + λ θ),      η = learning_rate(hparams, schedule, step, drops)

    where Adam's β₁ is 0.9, or what :data:`MOMENTUMS` says, β₂ = 0.999 and ε = 10⁻⁸.
    With D = ``loss_divisor`` ``l2`` is, up to rounding, the optimiser of loss / D + ½ λ ‖θ‖². Seen from the loss itself
    its clip is D · grad_clip, and the ε of Adam, whose steps otherwise know no scale, D · 10⁻⁸. Decoupled decay knows
    neither the clip, nor D, nor Adam's moments: it shrinks θ by the share η · rate · λ of itself.

    Its state has one structure, whatever the arguments.

    Args:
      hparams: traced hyper-parameters.
      schedule: a key of :data:`SCHEDULES`.
      drops: how often the plateau schedule has dropped so far.
      decay: the kind of weight decay, of :data:`DECAYS`.
      rates: each leaf's ``rate``, a pytree prefix of the parameters; numbers, or arrays that broadcast to the leaves'
        shapes; None is 1.
      decays: where weight decay acts, a pytree prefix of booleans; for the leaves below False λ is 0. None is True.

    Raises:
      InvalidValue: for an unknown kind of weight decay, a negative clip or rate, and, once it is to update, for what
        is no prefix of the parameters' tree, an array that does not broadcast, or a ``decays`` that is no boolean.

    Source: Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2, whose schedule multiplies the
    decay but whose α does not: here, as in the common frameworks, η = α · schedule multiplies both.
    """
    require_choice("decay", decay, DECAYS)

    def now(step: Array) -> Array:
        step, dropped = jnp.asarray(step, jnp.float32), jnp.asarray(drops, jnp.float32)
        return learning_rate(hparams, schedule, step, dropped)

    def decayed(updates: Params, params: Params) -> Params:
        return groups.decayed(updates, params, hparams.weight_decay, decays)

    def after_adam(updates: Params, params: Params) -> Params:
        updates = decayed(updates, params) if decay == "decoupled" else updates
        return groups.rated(updates, rates)

    return optax.chain(
        divide_and_clip(hparams.loss_divisor, hparams.grad_clip),
        optax.stateless(decayed) if decay == "l2" else optax.identity(),
        _adam(hparams, schedule, after_adam),
        optax.scale_by_learning_rate(now),
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


def _adam(
    hparams: Hparams, schedule: str, afterwards: Callable[[Params, Params | None], Params]
) -> optax.GradientTransformation:
    """Adam, with the β₁ of the step, by which alone its bias is corrected too: as the authors' framework does. What
    comes of it goes through a function of it and the parameters, which in the chain would have a state of its own."""

    def update(gradient: Params, state: optax.ScaleByAdamState, params: Params | None = None):
        options = {}
        if schedule in MOMENTUMS:
            step = _after_warmup(hparams, jnp.asarray(state.count, jnp.float32))
            options = {"b1": MOMENTUMS[schedule](hparams, step)}
        updates, state = optax.scale_by_adam(**options).update(gradient, state)
        return afterwards(updates, params), state

    return optax.GradientTransformation(optax.scale_by_adam().init, update)
