"""The GRU."""

from dataclasses import dataclass

from wrnn_jax import cells
from wrnn_jax.cells import Cell
from wrnn_jax.models.base import Entry
from wrnn_jax.models.deep import CellConfig


@dataclass(frozen=True)
class GRUConfig(CellConfig):
    """The gated recurrent unit, see :func:`wrnn_jax.cells.gru`. Parameters: 3N(D + N + 1) + N + O(N + 1)."""

    model: str = "gru"

    def cell(self, input_size: int, index: int) -> Cell:
        return cells.gru(self.n_hid, use_bias=self.use_bias, bias_init=self.bias_init)


ENTRIES = (Entry("gru", GRUConfig, "Cho et al. 2014"),)
