"""Cells as Flax cells: :mod:`wrnn_jax.nn.linen` and :mod:`wrnn_jax.nn.nnx`.

Both modules offer the same two names: ``WaveRNNCell``, and ``AdaptedCell``, which makes a Flax cell
of any :class:`wrnn_jax.cells.Cell`. (The other way round, ``linen.as_model`` makes a whole module a
:class:`wrnn_jax.models.Model`.) They hold no equation of their own. Their parameters are the
tree of the pure cell, so parameters go from one to the other with no conversion::

    pure, module = wave(6, 100), linen.WaveRNNCell(6, 100)
    params = module.init(key, carry, x)["params"]     # {"encoder": {…}, "recurrence": {…}}
    carry, y = pure.step(params, carry, x)            # linen -> pure
    carry, y = module.apply({"params": pure.init(key, D)}, carry, x)    # pure -> linen

    module = nnx.WaveRNNCell(D, 6, 100, rngs=flax.nnx.Rngs(0))
    carry, y = pure.step(module.params, carry, x)     # nnx -> pure
    flax.nnx.update(module, pure.init(key, D))        # pure -> nnx

A carry that depends on parameters is where Flax's ``RNN`` starts, and gradients flow into them. What a cell computes
from its parameters alone (``Cell.prepare``) is part of the step there: compiled for a CPU, a forward pass does it once,
but a backward pass in every step. :func:`wrnn_jax.unroll`, with the same parameters, does it once both ways.

This file holds what the two share; only the two modules import Flax.
"""

import inspect
from typing import Any

import jax

from wrnn_jax.cells import Cell, wave
from wrnn_jax.cells.contract import fit_carry
from wrnn_jax.cells.parts import cast
from wrnn_jax.typing import Array, Carry, Key, Params
from wrnn_jax.validation import require


def wave_of(module: Any) -> Cell:
    """The wave cell whose options are the attributes of ``module``."""
    return wave(**{option: getattr(module, option) for option in inspect.signature(wave).parameters})


def init(module: Any, key: Key, input_size: int) -> Params:
    """``cell.init`` in ``param_dtype``."""
    return cast(module.cell.init(key, input_size), module.param_dtype)


def step(module: Any, params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
    """``cell.step`` computed in ``dtype``, or in ``param_dtype`` if that is None.

    The carry comes back in the dtype it came in: a scan over time refuses one whose dtype changes.

    Raises:
      InvalidValue: for another carry than ``initialize_carry`` gives: which array, and what fits.
    """
    fitting = fit_carry(module.cell, params, carry, x.shape[:-1], x)
    # No other form of it either: a scan over time refuses a carry whose structure changes.
    same = jax.tree.structure(carry) == jax.tree.structure(fitting)
    require(same, "carry", f"a {type(carry).__name__}", "what initialize_carry gives")
    dtype = module.param_dtype if module.dtype is None else module.dtype
    new_carry, y = module.cell.step(params, cast(carry, dtype), x)
    return jax.tree.map(lambda new, old: cast(new, old.dtype), new_carry, carry), y
