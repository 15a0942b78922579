"""Traveling-wave memory in recurrent networks: the public names."""

from wrnn_jax import cells
from wrnn_jax.cells import Cell, Unrolled, unroll

__all__ = ["Cell", "Unrolled", "cells", "unroll"]
