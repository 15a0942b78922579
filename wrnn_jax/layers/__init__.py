"""Layers as pure functions: from a sequence to a sequence, in training and in evaluation.

A layer is made without a size of its inputs, and asks for it when its variables are made; its functions take ``(B, T,
D)`` and give ``(B, T, F)``. Two waves one after another, the second around a connection that skips it, read at the
last step::

    wave = cells.wave(channels=2, neurons=8)
    network = read(chain(recurrent(wave), residual(recurrent(wave))), readouts.linear(10))
    variables = network.init(jax.random.key(0), 1)
    outputs, _ = network.apply(variables, xs)                                   # (B, T, 1) -> (B, 10)
    outputs, stats = network.apply(variables, xs, Training(key))                # in a training step

The same from part to part of a sequence, as long as it goes on::

    carry = network.stream.start(variables, len(xs))
    carry, outputs = network.stream.run(variables, carry, xs)                   # (B, T, 1) -> (B, T, 10), of every step

================================  ====================================================================
``recurrent(cell)``               the y of a cell
``wave(C, N)``                    a linear wave for every feature, all steps at once
``dense(F)``, ``elementwise(f)``  an affine map, or a function, of each step by itself
``glu(F)``                        a gated linear unit of each step by itself
``layer_norm()``                  over the features of each step
``batch_norm(over, steps)``       over the batch: each step by itself, or all steps together
``dropout(p)``                    features at random are 0 in training
``chain(…)``, ``residual(f)``     one layer after another; x + f(x)
``bidirectional(f, g)``           f(x) + g(x) from the end of a sequence to its beginning
``read(layer, readout)``          a network: the outputs of the last step, of every step, or of the mean
================================  ====================================================================
"""

from wrnn_jax.layers.base import Layer, Stream, Training, Variables
from wrnn_jax.layers.combine import bidirectional, chain, residual
from wrnn_jax.layers.dropout import dropout
from wrnn_jax.layers.norms import batch_norm, layer_norm
from wrnn_jax.layers.pointwise import dense, elementwise, glu
from wrnn_jax.layers.pooling import READINGS, every_step, last_step, mean_over_time, read
from wrnn_jax.layers.recurrent import recurrent
from wrnn_jax.layers.wave import wave

__all__ = [
    "READINGS",
    "Layer",
    "Stream",
    "Training",
    "Variables",
    "batch_norm",
    "bidirectional",
    "chain",
    "dense",
    "dropout",
    "elementwise",
    "every_step",
    "glu",
    "last_step",
    "layer_norm",
    "mean_over_time",
    "read",
    "recurrent",
    "residual",
    "wave",
]
