"""Networks of layers between an input and a readout: what their configs have in common, and how they are built."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np

from wrnn_jax import layers, readouts
from wrnn_jax.cells.base import Cell, choose_backend, unroll
from wrnn_jax.cells.contract import first_carry
from wrnn_jax.cells.jacobian import linearised
from wrnn_jax.layers import Layer, Stream, Training, Variables
from wrnn_jax.layers.pooling import beside_readout
from wrnn_jax.models.base import Model, ModelConfig, from_layer
from wrnn_jax.readouts import Readout, with_readout
from wrnn_jax.typing import Array, Carry, Key, Params, Signature
from wrnn_jax.validation import InvalidValue, require, require_choice, require_integer, require_switch

NORMS = ("none", "layer", "batch", "batch-time")
POOLINGS = ("last", "mean")
MOST_LAYERS = 64
"""Each is compiled by itself."""


def recurrent(
    cell: Cell,
    readout: Readout,
    input_size: int,
    *,
    outputs: Literal["all", "last"] = "all",
    remat: bool | int = False,
    backend: Literal["auto", "scan", "fused", "native", "parallel"] = "auto",
) -> Model:
    """The model ``readout(cell(x))``, read at every step or the last; options as in :func:`wrnn_jax.cells.unroll`.

    Parameters ``{"cell": …, "readout": …}``. The readout is part of the loop over time: the states need not be stored
    to be read.
    """
    composed = with_readout(cell, readout)

    def init(key: Key) -> Variables:
        return Variables(composed.init(key, input_size))

    def apply(
        variables: Variables, xs: Array, training: Training | None = None, starts: Array | None = None
    ) -> tuple[Array, Any]:
        way = backend if starts is None else "scan"
        options = {"outputs": outputs, "remat": remat, "backend": way}
        return unroll(composed, variables.params, xs, starts=starts, **options).outputs, ()

    def start(variables: Variables, sequences: int, dtype: Any = jnp.float32) -> Carry:
        return first_carry(composed, variables.params, (sequences,), dtype)

    def run(variables: Variables, carry: Carry, xs: Array) -> tuple[Carry, Array]:
        return unroll(composed, variables.params, xs, carry=carry, backend=backend)[:2]

    def hidden(variables: Variables, xs: Array) -> Mapping[str, Array]:
        return {"": unroll(cell, variables.params["cell"], xs, outputs="last", return_hidden=True).hidden}

    return Model(init, apply, hidden, stream=Stream(start, run))


@dataclass(frozen=True)
class DeepConfig(ModelConfig):
    """A network of layers of one kind, and a readout. A subclass gives ``layer``, or all of ``build``."""

    n_hid: int = 100
    """Neurons of a layer; where it has channels, of each of them."""
    use_bias: bool = True
    """Biases; without them the state 0 is a fixed point of the recurrent cells."""
    n_layers: int = 1
    """Layers; each but the first reads all that the one before it gives."""
    norm: Literal["none", "layer", "batch", "batch-time"] = "none"
    """Normalisation of each layer's outputs: none | layer (over features) | batch (over the batch, at each step by
    itself) | batch-time (over batch and time)."""
    residual: bool = False
    """Add to the outputs of each layer but the first what it was given."""
    dropout: float = 0.0
    """The probability with which each output of a layer is set to 0 in training."""
    pooling: Literal["last", "mean"] = "last"
    """Of a task with one answer a sequence, what is read: last (the last step) | mean (over time)."""

    def __post_init__(self):
        require_integer("n_hid", self.n_hid, at_least=1)
        require_switch("use_bias", self.use_bias)
        require_integer("n_layers", self.n_layers, at_least=1, at_most=MOST_LAYERS)
        require_choice("norm", self.norm, NORMS)
        require_switch("residual", self.residual)
        if self.dropout:
            layers.dropout(self.dropout)
        require_choice("pooling", self.pooling, POOLINGS)

    def layer(self, input_size: int, length: int, index: int) -> Layer:
        """The layer of number ``index``, from 0 on, for ``input_size`` features and sequences of ``length`` steps."""
        raise NotImplementedError

    def readout(self, output_size: int) -> Readout:
        """What reads the last layer: W h + b."""
        return readouts.linear(output_size, use_bias=self.use_bias)

    def build(self, signature: Signature) -> Model:
        """``readout(dropout(norm(layer(…))))``, with what each layer but the first is given added to its outputs."""
        self._require_reading(signature)
        stack, size = [], signature.inputs
        for index in range(self.n_layers):
            core = self.layer(size, signature.length, index)
            size = size if core.output_size is None else core.output_size
            parts = {"layer": core, **self._norm(signature.length)}
            if self.dropout:
                parts["dropout"] = layers.dropout(self.dropout)
            layer = layers.chain(**parts)
            stack.append(layers.residual(layer) if self.residual and index else layer)
        reading = layers.READINGS["all" if signature.read == "all" else self.pooling]
        readout = self.readout(signature.outputs)
        return from_layer(layers.read(layers.chain(*stack), readout, reading), signature.inputs)

    def _norm(self, length: int) -> dict[str, Layer]:
        if self.norm == "none":
            return {}
        if self.norm == "layer":
            return {"norm": layers.layer_norm()}
        return {"norm": layers.batch_norm(self.norm, length)}

    def _require_reading(self, signature: Signature) -> None:
        allowed = "left out: the task is read at every step"
        require(signature.read == "last" or self.pooling == "last", "pooling", self.pooling, allowed)


@dataclass(frozen=True)
class CellConfig(DeepConfig):
    """Recurrent layers of one kind of cell. A subclass gives ``cell``."""

    bias_init: Literal["zeros", "random"] = "zeros"
    """Start of the biases: zeros | random (as the authors' program leaves them)."""
    backend: Literal["auto", "scan", "fused", "native", "parallel"] = "auto"
    """How to go through time: auto | scan | fused | native (once compiled) | parallel (for --act identity)."""
    FLAGS: ClassVar[dict[str, str]] = {"neurons": "n_hid"}
    """Options of the cell that flags have another name for."""

    def __post_init__(self):
        super().__post_init__()
        try:
            cell = self.cell(1, 0)
        except InvalidValue as refused:
            name = re.compile(rf"\b({'|'.join(self.FLAGS)})\b(?= =)")
            allowed = name.sub(lambda found: self.FLAGS[found[0]].replace("_", "-"), refused.allowed)
            raise InvalidValue(self.FLAGS.get(refused.field, refused.field), refused.value, allowed) from None
        if self.backend != "auto":  # To resolve that asks for a device, and what devices there are may yet be set.
            choose_backend(cell, self.backend)

    def cell(self, input_size: int, index: int) -> Cell:
        """The cell of the layer of number ``index``, from 0 on."""
        raise NotImplementedError

    def layer(self, input_size: int, length: int, index: int) -> Layer:
        """The cell as a layer. What this says of constraints, rates and decay holds for a network of one layer too."""
        decays = partial(self.decays, index=index)
        return layers.recurrent(self.cell(input_size, index), backend=self.backend, decays=decays)

    def decays(self, params: Params, index: int) -> Any:
        """Whether weight decay acts on the parameters of the cell of that layer."""
        return True

    def transition(self, params: Params, input_size: int) -> np.ndarray | None:
        """See :class:`wrnn_jax.models.base.Model`; of a network of one layer."""
        return None if self.use_bias else linearised(self.cell(input_size, 0), params, input_size)

    @property
    def is_plain(self) -> bool:
        """Whether the network is one cell and its readout, which then goes into the loop over time."""
        return (self.n_layers, self.norm, self.dropout, self.pooling) == (1, "none", 0, "last")

    def build(self, signature: Signature) -> Model:
        if not self.is_plain:
            return super().build(signature)
        cell, readout = self.cell(signature.inputs, 0), self.readout(signature.outputs)
        model = recurrent(cell, readout, signature.inputs, outputs=signature.read, backend=self.backend)
        layer = self.layer(signature.inputs, signature.length, 0)
        return model._replace(
            **beside_readout("cell", layer),
            transition=lambda params: self.transition(params["cell"], signature.inputs),
        )

    def backend_for(self, signature: Signature, batch: int, native_is_built: bool | None = None) -> str | None:
        outputs = signature.read if self.is_plain else "all"
        cell = self.cell(signature.inputs, 0)
        return choose_backend(cell, self.backend, outputs, batch, native_is_built=native_is_built)

    def width(self, signature: Signature) -> int:
        return self.n_layers * self.cell(signature.inputs, 0).output_size
