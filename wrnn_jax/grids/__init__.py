"""Grids: many runs at once, on all devices of a host or several hosts."""

from wrnn_jax.grids.grid import grid

__all__ = ["grid"]
