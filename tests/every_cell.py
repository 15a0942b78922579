"""A cell of every kind, for inputs of three features: what holds for one is to hold for each."""

import jax.numpy as jnp

from wrnn_jax import cells
from wrnn_jax.readouts import linear, mlp, with_readout

WAVE = cells.wave(2, 5, 3, activation="tanh", kernel_init="random", encoder_init="dense")
LINEAR_WAVE = cells.wave(2, 5, 3, activation="identity", kernel_init="random", encoder_init="dense")
LINEAR_TWM = cells.twm(cells.linear_boundary(2, 3))
CELLS = {
    "wave": with_readout(WAVE._replace(start=lambda params: params["encoder"]["bias"]), linear(2)),
    "wave, mlp": with_readout(LINEAR_WAVE, mlp(2, 3)),
    "linear wave": with_readout(LINEAR_WAVE, linear(2)),
    "wave, untied": cells.wave(2, 5, local=True),
    "wave, conv": cells.wave(2, 5, form="conv"),
    "wave, row": with_readout(cells.wave(2, 5, encoder_kind="conv"), linear(2)),
    "rings": cells.linear_wave(3, 5),
    "rings, three taps": with_readout(cells.linear_wave(3, 5, scheme="taps", use_skip=False), linear(2)),
    "rings, delay": cells.linear_wave(3, 4, scheme="delay", use_bias=False),
    "elman": with_readout(cells.elman(4), mlp(2, 3)),
    "elman, no biases": with_readout(cells.elman(4, use_bias=False), linear(2, use_bias=False)),
    "lstm": cells.lstm(4),
    "gru": cells.gru(4),
    "twm": LINEAR_TWM,
    "twm, linear": with_readout(LINEAR_TWM, linear(2)),
    "twm, attention": cells.twm(cells.attention_boundary(2, 3, projections="learned")),
    "twm, input phase": cells.twm(cells.linear_boundary(2, 3), input_steps=2),
    "history": cells.history_system(lambda substrate: jnp.tanh(substrate.sum(-2)), 2, 3),
}
