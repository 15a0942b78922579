"""Many members of a grid as one compiled program."""

from collections.abc import Callable
from typing import Any, Literal

import jax
from jax import lax

from wrnn_jax.training.loop import Trainer
from wrnn_jax.validation import require_choice

HOW = ("auto", "vmap", "map")


def grid(function: Callable[..., Any], how: Literal["auto", "vmap", "map"] = "auto") -> Callable[..., Any]:
    """``function`` for every member of a grid::

        grid(f)(a, b)[m] = f(a[m], b[m])

    where indices act on the first axis of every leaf. Same numbers, up to rounding, in either way:

    Args:
      function: pure; of any number of pytrees of arrays.
      how: ``"vmap"`` computes all members at once, ``"map"`` one after another (``lax.map``) in one program.
        ``"auto"`` is the map on a CPU, whose cores one member keeps busy: batched over members its working set would
        only leave their caches. It is vmap on accelerators, which one member leaves idle.

    Raises:
      ValueError: for another ``how``.
    """
    require_choice("how", how, HOW)
    if how == "auto":
        how = "map" if jax.default_backend() == "cpu" else "vmap"
    if how == "vmap":
        return jax.vmap(function)
    return lambda *members: lax.map(lambda member: function(*member), members)


def grid_trainer(trainer: Trainer, how: Literal["auto", "vmap", "map"] = "auto") -> Trainer:
    """The trainer of all members of a grid at once: its states, seeds, hyper-parameters, losses and metrics are
    ``trainer``'s with one more axis, the first, for members; ``until`` is one for all."""

    def advance(states, hparams, until):
        return grid(lambda state, hparams: trainer.advance(state, hparams, until), how)(states, hparams)

    def evaluate(states, split):
        return grid(lambda state: trainer.evaluate(state, split), how)(states)

    return Trainer(
        jax.jit(grid(trainer.init, how)),
        trainer.place,
        jax.jit(advance, donate_argnums=0),
        trainer.drain,
        jax.jit(evaluate, static_argnums=1),
        jax.jit(grid(trainer.observe, how)),
    )
