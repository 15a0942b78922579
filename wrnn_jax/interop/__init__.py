"""Trained weights from elsewhere, in and out: the Wave-RNN authors' program, and PyTorch's own recurrent layers."""

from wrnn_jax.interop.authors import from_authors, to_authors
from wrnn_jax.interop.pytorch import from_pytorch, to_pytorch

__all__ = ["from_authors", "from_pytorch", "to_authors", "to_pytorch"]
