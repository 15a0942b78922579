"""The simple (Elman) RNN, and the iRNN: the wave-free baseline, with its ablations."""

from dataclasses import dataclass
from typing import Literal

from wrnn_jax import cells
from wrnn_jax.cells import Cell
from wrnn_jax.models.base import Entry
from wrnn_jax.models.rate import RateConfig


@dataclass(frozen=True)
class ElmanConfig(RateConfig):
    """The simple RNN, see :func:`wrnn_jax.cells.elman`. Parameters: CN(D + CN + 2) + O(CN + 1)."""

    model: str = "srnn"
    act: Literal["relu", "tanh", "identity"] = "tanh"
    """Activation: relu | tanh | identity."""
    init: Literal["shift", "identity", "random", "orthogonal"] = "random"
    """Start of the recurrent kernel: shift | identity | random | orthogonal."""
    encoder_init: Literal["sparse", "dense", "uniform"] = "dense"
    """Start of the encoder V: sparse (the paper's V-init) | dense (N(0, 0.001²)) | uniform (±1/√D, as a linear layer of
    the authors' framework); of layers after the first uniform."""

    def cell(self, input_size: int, index: int) -> Cell:
        return cells.elman(self.n_hid, channels=self.n_ch, kernel_init=self.init, **self._options(index))


_SHIFT = {"act": "relu", "init": "shift"}
_TABLE_4 = "Keller et al. 2024, Table 4"
ENTRIES = (
    Entry("irnn", ElmanConfig, "Le et al. 2015", {"act": "relu", "init": "identity"}),
    Entry("irnn-shift", ElmanConfig, f"{_TABLE_4}: + Σ-init", _SHIFT),
    Entry("irnn-shift-sparse", ElmanConfig, f"{_TABLE_4}: + V-init", {**_SHIFT, "encoder_init": "sparse"}),
    Entry("srnn", ElmanConfig, "Elman 1990"),
)
