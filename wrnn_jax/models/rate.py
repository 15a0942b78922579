"""Rate networks, h_{t+1} = σ(R(h_t) + V x_t): what the Wave-RNN and the simple RNN have in common."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from wrnn_jax.models.deep import CellConfig
from wrnn_jax.typing import Params
from wrnn_jax.validation import require_integer

MOST_CHANNELS = 2**17
"""Each is joined with every other: their kernel has 10 billion weights and more."""


@dataclass(frozen=True)
class RateConfig(CellConfig):
    """A rate network. Layers after the first start with a uniform encoder, which reads all that they are given."""

    n_ch: int = 1
    """Channels of n-hid neurons each."""
    act: Literal["relu", "tanh", "identity"] = "relu"
    """Activation: relu | tanh | identity."""
    encoder_init: Literal["sparse", "dense", "uniform"] = "sparse"
    """Start of the encoder V: sparse (the paper's V-init) | dense (N(0, 0.001²)) | uniform (±1/√D, as a linear layer of
    the authors' framework); of layers after the first uniform."""
    freeze_encoder: bool = False
    """Do not train the encoder V of the first layer."""
    freeze_recurrence: bool = False
    """Do not train the recurrent kernels."""
    FLAGS: ClassVar[dict[str, str]] = {
        "neurons": "n_hid", "channels": "n_ch", "taps": "ksize", "activation": "act", "kernel_init": "init"
    }  # fmt: skip

    def __post_init__(self):
        require_integer("n_ch", self.n_ch, at_least=1, at_most=MOST_CHANNELS)
        super().__post_init__()

    def _options(self, index: int) -> dict[str, Any]:
        """Of the cell of the layer of number ``index``."""
        return {
            "activation": self.act,
            "encoder_init": "uniform" if index else self.encoder_init,
            "use_bias": self.use_bias,
            "bias_init": self.bias_init,
            "freeze_encoder": self.freeze_encoder and not index,
            "freeze_recurrence": self.freeze_recurrence,
        }

    def decays(self, params: Params, index: int) -> Any:
        # What is not trained is to stay as it is.
        frozen = self._options(index)
        return {part: not frozen[f"freeze_{part}"] for part in params}

    def transition(self, params: Params, input_size: int) -> np.ndarray | None:
        return None if self.act == "relu" else super().transition(params, input_size)
