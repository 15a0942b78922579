"""Recurrent cells as pure functions: one file a family."""

from wrnn_jax.cells.base import Cell, Unrolled, unroll
from wrnn_jax.cells.elman import elman, irnn
from wrnn_jax.cells.wave import wave

__all__ = ["Cell", "Unrolled", "elman", "irnn", "unroll", "wave"]
