"""Traveling-wave working memory: a substrate of columns, whose boundary condition is trained."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from wrnn_jax import cells, readouts
from wrnn_jax.cells import Cell
from wrnn_jax.cells.base import choose_backend
from wrnn_jax.cells.twm import Boundary, attention_boundary, linear_boundary
from wrnn_jax.models.base import Entry, Model, ModelConfig
from wrnn_jax.models.deep import recurrent
from wrnn_jax.theory import phi
from wrnn_jax.typing import Params, Signature
from wrnn_jax.validation import require, require_integer

SOURCE = "Karuvally et al. 2024"


@dataclass(frozen=True)
class TWMConfig(ModelConfig):
    """Traveling-wave working memory, see :func:`wrnn_jax.cells.twm`; its newest column is the output. It has as many
    waves as there are inputs, and no biases. Parameters: sD²."""

    model: str = "twm-lbc"
    n_hid: int = 100
    """Columns of the substrate, s, into which as many inputs are first written."""
    backend: Literal["auto", "scan"] = "auto"
    """How to go through time: auto | scan."""

    def __post_init__(self):
        require_integer("n_hid", self.n_hid, at_least=1)
        if self.backend != "auto":
            choose_backend(self.cell(1), self.backend)

    def boundary(self, size: int) -> Boundary:
        """f, of columns of ``size`` elements."""
        return linear_boundary(self.n_hid, size)

    def cell(self, input_size: int, index: int = 0) -> Cell:
        """The substrate, of columns of ``input_size`` elements; there is one layer."""
        return cells.twm(self.boundary(input_size), input_steps=self.n_hid)

    def build(self, signature: Signature) -> Model:
        size = signature.inputs
        allowed = f"another model: it says what it is given, vectors of {size} elements, not of {signature.outputs}"
        require(size == signature.outputs, "model", self.model, allowed)
        model = recurrent(self.cell(size), readouts.direct(size), size, outputs=signature.read, backend=self.backend)
        return model._replace(transition=self.transition)

    def transition(self, params: Params) -> np.ndarray | None:
        """Φ."""
        return phi(params["cell"]["operator"])

    def backend_for(self, signature: Signature, batch: int, native_is_built: bool | None = None) -> str | None:
        return choose_backend(self.cell(signature.inputs), self.backend, signature.read, batch)

    def width(self, signature: Signature) -> int:
        return self.cell(signature.inputs).output_size


@dataclass(frozen=True)
class AttentionTWMConfig(TWMConfig):
    """Traveling-wave working memory whose boundary is self-attention over the substrate. Parameters: 4D²."""

    model: str = "twm-sbc"

    def boundary(self, size: int) -> Boundary:
        return attention_boundary(self.n_hid, size, projections="learned")

    def transition(self, params: Params) -> np.ndarray | None:
        return None


ENTRIES = (Entry("twm-lbc", TWMConfig, SOURCE), Entry("twm-sbc", AttentionTWMConfig, SOURCE))
