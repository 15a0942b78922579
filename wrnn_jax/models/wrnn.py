"""The Wave-RNN: rings of neurons, a recurrence by circular convolution that starts as a shift."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from wrnn_jax import cells, readouts
from wrnn_jax.cells import Cell
from wrnn_jax.cells.encoders import OPTIONS
from wrnn_jax.cells.wave import wave_speeds
from wrnn_jax.models.base import Entry, Model
from wrnn_jax.models.rate import RateConfig
from wrnn_jax.readouts import Readout
from wrnn_jax.typing import Signature
from wrnn_jax.validation import require_integer

SOURCE = "Keller et al. 2024"
MOST_TAPS = 511
"""Of a kernel: a step is unrolled over them, each of which takes its time to compile."""


@dataclass(frozen=True)
class WaveConfig(RateConfig):
    """The Wave-RNN, see :func:`wrnn_jax.cells.wave`. Parameters: CN(D + 1) + C(CK + 1) + O(CN + 1)."""

    model: str = "wrnn"
    n_ch: int = 6
    """Channels: circular rings of n-hid neurons each."""
    ksize: int = 3
    """Taps of the recurrent kernel, odd, at most n-hid and 511."""
    init: Literal["shift", "identity", "random"] = "shift"
    """Start of the recurrent kernel: shift | identity | random."""
    speed: float | tuple[float, ...] | Literal["log"] | None = None
    """Speed ν of the waves at the start, neurons a step: a number, one for each channel, or log (over channels from a
    tenth of the fastest to the fastest, half of ksize); only with the shift (1 if not given)."""
    encoder: Literal["dense", "source", "conv", "low-rank"] = "dense"
    """Encoder V of the first layer: dense (a weight for every neuron and input) | source (onto one neuron a ring) |
    conv (a convolution over the row of pixels that a step's input is, laid along each ring) | low-rank (V = A B)."""
    encoder_rank: int | None = None
    """Rank of the low-rank encoder (8 if not given)."""
    encoder_taps: int | None = None
    """Taps of the convolution that is the conv encoder, odd (3 if not given)."""
    encoder_colors: int | None = None
    """Colours of a pixel, side by side in the inputs of the conv encoder (if not given: as the task has them)."""
    LOCAL: ClassVar[bool] = False
    FLAGS: ClassVar[dict[str, str]] = {**RateConfig.FLAGS, "encoder_kind": "encoder"}

    def __post_init__(self):
        require_integer("ksize", self.ksize, at_least=1, at_most=MOST_TAPS)
        super().__post_init__()
        # One setting is said in one way.
        if isinstance(self.speed, list):
            object.__setattr__(self, "speed", tuple(self.speed))
        if self.speed is not None and np.all(wave_speeds(self.speed, self.n_ch, self.ksize) == 1):
            object.__setattr__(self, "speed", None)
        for field in ("encoder_rank", "encoder_taps"):
            kind, usual = OPTIONS[field]
            if self.encoder == kind and getattr(self, field) is None:
                object.__setattr__(self, field, usual)

    def cell(self, input_size: int, index: int) -> Cell:
        start = {"kernel_init": self.init, "speed": self.speed}
        return cells.wave(self.n_ch, self.n_hid, self.ksize, local=self.LOCAL, **start, **self._options(index))

    def _options(self, index: int) -> dict[str, Any]:
        # Later layers read all that they are given.
        encoder = {} if index else {"encoder_kind": self.encoder, **{field: getattr(self, field) for field in OPTIONS}}
        return {**super()._options(index), **encoder}

    def build(self, signature: Signature) -> Model:
        if self.encoder == "conv" and self.encoder_colors is None:
            return replace(self, encoder_colors=signature.colors).build(signature)
        return super().build(signature)


@dataclass(frozen=True)
class LocalWaveConfig(WaveConfig):
    """The Wave-RNN with a kernel for each position. Parameters: CN(D + 1) + CN(CK + 1) + O(CN + 1)."""

    LOCAL: ClassVar[bool] = True


@dataclass(frozen=True)
class MLPWaveConfig(WaveConfig):
    """The Wave-RNN, read by an MLP of 100 hidden units. Parameters: CN(D + 1) + C(CK + 1) + 100(CN + 1) + 101O."""

    def readout(self, output_size: int) -> Readout:
        return readouts.mlp(output_size, use_bias=self.use_bias)


ENTRIES = (
    Entry("wrnn", WaveConfig, SOURCE, on_rings=True),
    Entry("wrnn-mlp", MLPWaveConfig, SOURCE, on_rings=True),
    Entry("wrnn-local", LocalWaveConfig, SOURCE, on_rings=True),
)
