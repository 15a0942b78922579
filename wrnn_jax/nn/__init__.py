"""Cells as Flax cells, and the linear wave as a Flax layer: :mod:`wrnn_jax.nn.linen` and :mod:`wrnn_jax.nn.nnx`.

Both modules offer the same three names: ``WaveRNNCell``; ``AdaptedCell``, which makes a Flax cell
of any :class:`wrnn_jax.cells.Cell`; and ``WaveLayer``, which is :func:`wrnn_jax.layers.wave` between any layers of
Flax. (The other way round, ``linen.as_model`` makes a whole module a :class:`wrnn_jax.models.Model`.) They hold no
equation of their own. Their parameters are the tree of the pure cell or layer, so parameters go from one to the other
with no conversion::

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
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from wrnn_jax import layers
from wrnn_jax.cells import Cell, wave
from wrnn_jax.cells.contract import REMEMBERED, fit_carry
from wrnn_jax.cells.parts import cast
from wrnn_jax.layers import Layer, Variables
from wrnn_jax.typing import Array, Carry, Key, Params, Shape
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
    new_carry, y = module.cell.step(params, cast(carry, _dtype(module)), x)
    return jax.tree.map(lambda new, old: cast(new, old.dtype), new_carry, carry), y


_wave_layer = lru_cache(REMEMBERED, typed=True)(layers.wave)
"""One for the same options, so that what is compiled for it is compiled once."""


def wave_layer_of(module: Any, features: int) -> Layer:
    """The wave layer for so many features whose other options are the attributes of ``module``."""
    options = {name: getattr(module, name) for name in inspect.signature(layers.wave).parameters if name != "features"}
    if isinstance(options["speed"], Sequence | np.ndarray) and not isinstance(options["speed"], str):
        options["speed"] = tuple(options["speed"])
    return _wave_layer(features, **options)


def init_layer(module: Any, key: Key, features: int) -> Params:
    """The layer's parameters in ``param_dtype``."""
    return cast(wave_layer_of(module, features).init(key, features).params, module.param_dtype)


def apply_layer(module: Any, params: Params, xs: Array, starts: Array | None) -> Array:
    """ys in ``dtype``, or in ``param_dtype`` if that is None, of a whole sequence."""
    layer = wave_layer_of(module, _features(xs))
    return layer.apply(Variables(params), xs.astype(_dtype(module)), None, starts)[0]


def stream_layer(module: Any, params: Params, carry: Carry, xs: Array) -> tuple[Carry, Array]:
    """(carry, ys), of the next part of a sequence."""
    layer = wave_layer_of(module, _features(xs))
    return layer.stream.run(Variables(params), carry, xs.astype(_dtype(module)))


def start_of_layer(module: Any, input_shape: Shape) -> Carry:
    """The carry before the first step, for inputs ``(B, D)`` of a step."""
    require(len(input_shape) == 2, "input_shape", tuple(input_shape), "(B, D), of one step")
    sequences, features = input_shape
    return wave_layer_of(module, features).stream.start(Variables(()), sequences, _dtype(module))


def _features(xs: Array) -> int:
    require(xs.ndim == 3, "xs.shape", xs.shape, "(B, T, D)")
    return xs.shape[-1]


def _dtype(module: Any) -> Any:
    """In which it computes."""
    return module.param_dtype if module.dtype is None else module.dtype
