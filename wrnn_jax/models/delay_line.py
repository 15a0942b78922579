"""The delay line and an MLP: the baseline of all that remembers a sequence by a wave."""

from dataclasses import dataclass
from typing import Any

import jax

from wrnn_jax import layers, readouts
from wrnn_jax.layers import Layer, Training, Variables
from wrnn_jax.models.base import Entry, Model, ModelConfig, from_layer
from wrnn_jax.typing import Array, Signature
from wrnn_jax.validation import require, require_fraction, require_integer


@dataclass(frozen=True)
class DelayLineConfig(ModelConfig):
    """A ring of speed 1 as long as the sequence, on which nothing is trained, its last state, which is the whole
    sequence, read by an MLP: W₂ ReLU(W₁ h + b₁) + b₂. What a network makes of its memory is what it reaches above this.
    Parameters: N(DT + 1) + O(N + 1)."""

    model: str = "delay-line"
    n_hid: int = 512
    """Hidden units of the MLP."""
    dropout_in: float = 0.2
    """The probability with which a value on the line is set to 0 in training."""
    dropout: float = 0.5
    """The probability with which a hidden unit is set to 0 in training."""

    def __post_init__(self):
        require_integer("n_hid", self.n_hid, at_least=1)
        for field in ("dropout_in", "dropout"):
            require_fraction(field, getattr(self, field))

    def build(self, signature: Signature) -> Model:
        require(signature.read == "last", "model", self.model, "another: this task is read at every step")
        network = layers.chain(
            line=_line(signature.length, signature.inputs),
            drop_in=layers.dropout(self.dropout_in),
            hidden=layers.dense(self.n_hid, bias_init="random"),
            relu=layers.elementwise(jax.nn.relu),
            drop=layers.dropout(self.dropout),
        )
        return from_layer(layers.read(network, readouts.linear(signature.outputs)), signature.inputs)

    def width(self, signature: Signature) -> int:
        return signature.inputs


def _line(length: int, inputs: int) -> Layer:
    """The state of the rings after the last of T steps, one ring for each feature: x_{T−1}, …, x_0, as one step
    ``(B, 1, T D)``."""

    def apply(
        variables: Variables, xs: Array, training: Training | None = None, starts: Array | None = None
    ) -> tuple[Array, Any]:
        batch, steps, features = xs.shape
        require(steps == length, "T", steps, f"{length}, the neurons of the line")
        return xs[:, ::-1].reshape(batch, 1, steps * features), variables.stats

    return Layer(lambda key, input_size: Variables(()), apply, length * inputs)


ENTRIES = (Entry("delay-line", DelayLineConfig, "linear wave: Keller et al. 2024, eq. 1"),)
