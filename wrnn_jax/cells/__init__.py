"""Recurrent cells as pure functions: one file a family."""

from wrnn_jax.cells.base import Cell, Unrolled, unroll
from wrnn_jax.cells.contract import first_carry
from wrnn_jax.cells.elman import elman, irnn
from wrnn_jax.cells.gated import gru, lstm
from wrnn_jax.cells.linear_wave import linear_wave
from wrnn_jax.cells.twm import (
    Boundary,
    attention_boundary,
    function_boundary,
    history_system,
    linear_boundary,
    twm,
)
from wrnn_jax.cells.wave import wave

__all__ = [
    "Boundary",
    "Cell",
    "Unrolled",
    "attention_boundary",
    "elman",
    "first_carry",
    "function_boundary",
    "gru",
    "history_system",
    "irnn",
    "linear_boundary",
    "linear_wave",
    "lstm",
    "twm",
    "unroll",
    "wave",
]
