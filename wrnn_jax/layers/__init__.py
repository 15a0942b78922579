"""Layers as pure functions: from a sequence to a sequence, in training and in evaluation."""

from wrnn_jax.layers.base import Layer, Training, Variables

__all__ = ["Layer", "Training", "Variables"]
