"""Models: encoder → cell → readout as two pure functions, and the registry of those with a name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple

import jax

from wrnn_jax import cells, readouts
from wrnn_jax.activations import ACTIVATIONS
from wrnn_jax.cells.base import Cell, choose_backend, unroll
from wrnn_jax.cells.parts import BIAS_INITS, ENCODER_INITS, KERNEL_INITS
from wrnn_jax.readouts import Readout, with_readout
from wrnn_jax.typing import Array, Key, Params
from wrnn_jax.validation import require, require_choice, require_integer, require_switch


class Model(NamedTuple):
    """A model as pure functions: all that training sees of it. A user's own Flax module is one as
    ``Model(lambda key: module.init(key, xs), module.apply)``.

    ======================  ==================================================================
    ``init(key)``           -> params
    ``apply(params, xs)``   xs ``(B, T, D)`` -> ``(B, T, O)``, or ``(B, O)`` of the last step
    ``hidden(params, xs)``  -> hidden states over time ``(B, T, C, N)``; None where it has none
    ======================  ==================================================================
    """

    init: Callable[[Key], Params]
    apply: Callable[[Params, Array], Array]
    hidden: Callable[[Params, Array], Array] | None = None


def recurrent(
    cell: Cell,
    readout: Readout,
    input_size: int,
    *,
    outputs: Literal["all", "last"] = "all",
    remat: bool | int = False,
    backend: Literal["auto", "scan", "fused", "native", "parallel"] = "auto",
) -> Model:
    """The model ``readout(cell(x))``, read at every step or the last; options as in :func:`unroll`."""
    composed = with_readout(cell, readout)

    def init(key: Key) -> Params:
        return composed.init(key, input_size)

    def apply(params: Params, xs: Array) -> Array:
        return unroll(composed, params, xs, outputs=outputs, remat=remat, backend=backend).outputs

    def hidden(params: Params, xs: Array) -> Array:
        return unroll(cell, params["cell"], xs, outputs="last", return_hidden=True).hidden

    return Model(init, apply, hidden)


def count_parameters(params: Params) -> int:
    """The number of scalars in a pytree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


class _Named(NamedTuple):
    """What a registered name stands for: a family of cells and its own defaults."""

    family: Literal["wave", "elman"]
    act: str
    init: str
    encoder_init: str
    local: bool = False
    readout: Callable[[int], Readout] = readouts.linear


MODELS: Mapping[str, _Named] = {
    "wrnn": _Named("wave", "relu", "shift", "sparse"),
    "wrnn-mlp": _Named("wave", "relu", "shift", "sparse", readout=readouts.mlp),
    "wrnn-local": _Named("wave", "relu", "shift", "sparse", local=True),  # untied: a kernel a position
    "irnn": _Named("elman", "relu", "identity", "dense"),
    "irnn-shift": _Named("elman", "relu", "shift", "dense"),  # + Σ-init
    "irnn-shift-sparse": _Named("elman", "relu", "shift", "sparse"),  # + Σ-init + V-init
    "srnn": _Named("elman", "tanh", "random", "dense"),  # the simple (Elman) RNN
}
"""Every model that has a name: it is what ``--model`` takes."""


@dataclass(frozen=True)
class ModelConfig:
    """Which model. What is not given is filled in with the named model's own default."""

    model: str = "wrnn"
    """The model: wrnn | wrnn-mlp | wrnn-local | irnn | irnn-shift | irnn-shift-sparse | srnn."""
    n_hid: int = 100
    """Neurons of one channel."""
    n_ch: int | None = None
    """Channels (if not given: for wrnn… 6 for copy, 27 for adding, 16 for images; for the others 1)."""
    ksize: int | None = None
    """Taps of the recurrent kernel, odd, at most n-hid; only for wrnn… (3 if not given)."""
    act: str | None = None
    """Activation: relu | tanh | identity (if not given: tanh for srnn, else relu)."""
    init: str | None = None
    """Start of the recurrent kernel: shift | identity | random (if not given: the model's own)."""
    encoder_init: str | None = None
    """Start of the encoder V: sparse (the paper's V-init) | dense (if not given: the model's own)."""
    bias_init: str = "zeros"
    """Start of the biases: zeros | random (as the authors' program leaves them)."""
    freeze_encoder: bool = False
    """Do not train the encoder V."""
    freeze_recurrence: bool = False
    """Do not train the recurrent kernel."""
    backend: str = "auto"
    """How to go through time: auto | scan | fused | native (once compiled) | parallel (for --act identity)."""
    WAVE_CHANNELS: ClassVar[int] = 6

    def __post_init__(self):
        require_choice("model", self.model, MODELS)
        named = MODELS[self.model]
        is_wave = named.family == "wave"
        own = {
            "act": named.act,
            "init": named.init,
            "encoder_init": named.encoder_init,
            "n_ch": self.WAVE_CHANNELS if is_wave else 1,
            "ksize": 3 if is_wave else None,
        }
        for field, default in own.items():
            if getattr(self, field) is None:
                object.__setattr__(self, field, default)

        require_integer("n_hid", self.n_hid, at_least=1)
        require_integer("n_ch", self.n_ch, at_least=1)
        if is_wave:
            require_integer("ksize", self.ksize, at_least=1)
            allowed = f"an odd number from 1 to n-hid = {self.n_hid}"
            require(self.ksize % 2 == 1 and self.ksize <= self.n_hid, "ksize", self.ksize, allowed)
            require(self.ksize >= 3 or self.init != "shift", "ksize", self.ksize, "3 or more for the shift (see init)")
        else:
            require(self.ksize is None, "ksize", self.ksize, f"left out: {self.model} has no taps")
        require_choice("act", self.act, ACTIVATIONS)
        require_choice("init", self.init, KERNEL_INITS)
        require_choice("encoder_init", self.encoder_init, ENCODER_INITS)
        require_choice("bias_init", self.bias_init, BIAS_INITS)
        require_switch("freeze_encoder", self.freeze_encoder)
        require_switch("freeze_recurrence", self.freeze_recurrence)
        if self.backend != "auto":  # To resolve that asks for a device, and what devices there are may yet be set.
            choose_backend(_cell(self), self.backend)


@dataclass(frozen=True)
class AddingModelConfig(ModelConfig):
    """Which model, with the paper's number of channels for the adding task."""

    WAVE_CHANNELS: ClassVar[int] = 27


@dataclass(frozen=True)
class ImageModelConfig(ModelConfig):
    """Which model, in the paper's size for images."""

    n_hid: int = 256
    """Neurons of one channel."""
    WAVE_CHANNELS: ClassVar[int] = 16


def build(config: ModelConfig, input_size: int, output_size: int, outputs: Literal["all", "last"]) -> Model:
    """The model that a config names, for D inputs and O outputs, read at every step or the last."""
    readout = MODELS[config.model].readout(output_size)
    return recurrent(_cell(config), readout, input_size, outputs=outputs, backend=config.backend)


def with_backend_chosen(config: ModelConfig, outputs: Literal["all", "last"], batch: int) -> ModelConfig:
    """The config with the backend named that ``"auto"`` stands for on this machine, for a batch on one device."""
    return replace(config, backend=choose_backend(_cell(config), config.backend, outputs, batch))


def _cell(config: ModelConfig) -> Cell:
    named = MODELS[config.model]
    options = {
        "activation": config.act,
        "kernel_init": config.init,
        "encoder_init": config.encoder_init,
        "bias_init": config.bias_init,
        "freeze_encoder": config.freeze_encoder,
        "freeze_recurrence": config.freeze_recurrence,
    }
    if named.family == "wave":
        return cells.wave(config.n_ch, config.n_hid, config.ksize, local=named.local, **options)
    return cells.elman(config.n_hid, channels=config.n_ch, **options)
