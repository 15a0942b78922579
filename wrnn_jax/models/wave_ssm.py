"""The deep network of linear waves: state-space blocks, trained by FFT over time."""

from dataclasses import dataclass
from typing import Any, Literal

import jax

from wrnn_jax import layers, readouts
from wrnn_jax.cells.travel import SCHEMES, UNIT
from wrnn_jax.kernels.convolution import require_stride
from wrnn_jax.layers import Layer, Variables
from wrnn_jax.models.base import Entry, Model, ModelConfig, from_layer
from wrnn_jax.models.deep import MOST_LAYERS, POOLINGS
from wrnn_jax.readouts import Readout
from wrnn_jax.typing import Array, Key, Params, Signature
from wrnn_jax.validation import require, require_choice, require_fraction, require_integer, require_switch

MOST_NEURONS = 2**20
"""Of a ring."""


@dataclass(frozen=True)
class WaveSSMConfig(ModelConfig):
    """Blocks of linear waves, see :func:`wrnn_jax.layers.wave`, each a filter over time for every feature by itself and
    then a map of the features, with dropout after GELU and after GLU::

        first:   z = GLU(GELU(wave(x)))                 of every r-th step; where D > 1 of GLU(x), which is C features
        others:  z = z + GLU(GELU(wave(LayerNorm(z))))
        output:  W LayerNorm(z̄) + b                     z̄: z of each step, its mean over steps, or its last

    Parameters: 2C(D + 1) + C(N + 2C + 5) + O(C + 1); each block after the first has C(N + 2C + 6) more, and for D = 1
    there are no 2C(D + 1); norm-in has 2D.
    """

    model: str = "wave-ssm"
    n_ch: int = 64
    """Channels: features of a step, each on a ring of its own."""
    n_hid: int | None = None
    """Neurons of a ring (if not given: as many as the layer's sequences have steps, so that it is a filter over all of
    them)."""
    scheme: Literal["exact", "upwind", "lax-wendroff", "taps", "shift", "delay"] = "delay"
    """How waves travel: delay (a filter over the last n-hid steps) | shift (a ring of speed 1, without loss) | exact |
    upwind | lax-wendroff | taps (of speeds and leaks that are learned)."""
    speed: float | tuple[float, ...] | Literal["log"] | None = None
    """Speed of the waves at the start, neurons a step, above 0 and at most 1: a number, one for each channel, or log
    (from 1 to a turn in as many steps as there are); not for delay and shift, whose speed is 1."""
    turn: float = 1.0
    """What a turn of a ring costs at the start: a wave is then e^-turn of what it was."""
    n_layers: int = 3
    """Blocks."""
    stride: int = 1
    """Of the first block's outputs every so many steps one is kept; a divisor of the steps."""
    bidirectional: bool = False
    """Each block listens from the end of a sequence to its beginning as well."""
    norm_in: bool = False
    """Standardise the inputs, by their mean and variance over batch and time."""
    dropout_in: float = 0.0
    """The probability with which an input is set to 0 in training, at each step by itself."""
    dropout: float = 0.0
    """The probability with which a feature is set to 0 in training, at all steps of a sequence at once."""
    pooling: Literal["last", "mean"] = "mean"
    """Of a task with one answer a sequence, what is read: last (the last step) | mean (over time)."""

    def __post_init__(self):
        require_integer("n_ch", self.n_ch, at_least=1)
        if self.n_hid is not None:
            require_integer("n_hid", self.n_hid, at_least=1 if self.scheme in UNIT else 3, at_most=MOST_NEURONS)
        require_choice("scheme", self.scheme, SCHEMES)
        if isinstance(self.speed, list):
            object.__setattr__(self, "speed", tuple(self.speed))
        self._wave(self.n_hid or 3, 3, 1)
        require_integer("n_layers", self.n_layers, at_least=1, at_most=MOST_LAYERS)
        require_integer("stride", self.stride, at_least=1)
        require_switch("bidirectional", self.bidirectional)
        require_switch("norm_in", self.norm_in)
        for field in ("dropout_in", "dropout"):
            require_fraction(field, getattr(self, field))
        require_choice("pooling", self.pooling, POOLINGS)

    def build(self, signature: Signature) -> Model:
        require_stride(self.stride, signature.length)
        whole = signature.read == "last"
        require(whole or self.stride == 1, "stride", self.stride, "1 for a task that is read at every step")
        require(
            whole or not self.bidirectional, "bidirectional", True, "left out for a task that is read at every step"
        )
        reading = layers.READINGS[self.pooling if whole else "all"]
        blocks = [self._block(signature, index) for index in range(self.n_layers)]
        network = layers.read(layers.chain(*blocks), _normed(signature.outputs), reading)
        return from_layer(network._replace(decays=_decays), signature.inputs)

    def width(self, signature: Signature) -> int:
        return max(1, self.n_ch * self.n_layers // self.stride)

    def _block(self, signature: Signature, index: int) -> Layer:
        steps = signature.length // (self.stride if index else 1)
        wave = self._wave(self.n_hid or steps, steps, 1 if index else self.stride, use_skip=index > 0)
        if self.bidirectional:
            wave = layers.bidirectional(wave, wave)
        drop = layers.dropout(self.dropout, tied=True)
        rest = {"gelu": layers.elementwise(jax.nn.gelu), "drop": drop, "glu": layers.glu(self.n_ch), "drop_out": drop}
        if index:
            return layers.residual(layers.chain(norm=layers.layer_norm(), wave=wave, **rest))
        inputs = {"norm_in": layers.batch_norm()} if self.norm_in else {}
        inputs["drop_in"] = layers.dropout(self.dropout_in)
        if signature.inputs > 1:
            inputs["encoder"] = layers.glu(self.n_ch)
        return layers.chain(**inputs, wave=wave, **rest)

    def _wave(self, neurons: int, steps: int, stride: int, use_skip: bool = True) -> Layer:
        options = {"scheme": self.scheme, "speed": self.speed, "turn": self.turn, "length": steps, "stride": stride}
        return layers.wave(self.n_ch, neurons, **options, use_skip=use_skip)


def _normed(output_size: int) -> Readout:
    """W LayerNorm(y) + b."""
    norm, linear = layers.layer_norm(), readouts.linear(output_size)

    def init(key: Key, input_size: int) -> Params:
        return {"norm": norm.init(key, input_size).params, **linear.init(key, input_size)}

    def apply(params: Params, y: Array) -> Array:
        normed, _ = norm.apply(Variables(params["norm"]), y.reshape(-1, 1, y.shape[-1]))
        return linear.apply({"output": params["output"]}, normed.reshape(y.shape))

    return Readout(init, apply, output_size, rowwise=True)


def _decays(params: Params) -> Any:
    """Filters, and matrices that mix features; no bias, norm, skip, speed or leak."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: path[-1].key == "kernel", params)


ENTRIES = (Entry("wave-ssm", WaveSSMConfig, "Fu et al. 2023; waves, Keller et al. 2024", on_rings=True),)
