"""The LSTM."""

from dataclasses import dataclass

from wrnn_jax import cells
from wrnn_jax.cells import Cell
from wrnn_jax.models.base import Entry
from wrnn_jax.models.deep import CellConfig


@dataclass(frozen=True)
class LSTMConfig(CellConfig):
    """The long short-term memory with forget gates, see :func:`wrnn_jax.cells.lstm`. Parameters: 4N(D + N + 1)
    + O(N + 1)."""

    model: str = "lstm"

    def cell(self, input_size: int, index: int) -> Cell:
        return cells.lstm(self.n_hid, use_bias=self.use_bias, bias_init=self.bias_init)


ENTRIES = (Entry("lstm", LSTMConfig, "Hochreiter & Schmidhuber 1997"),)
