"""Models: encoder → cell → readout as two pure functions, and the registry of those with a name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import jax

from wrnn_jax import cells, readouts
from wrnn_jax.activations import ACTIVATIONS
from wrnn_jax.cells.base import Cell, choose_backend, unroll
from wrnn_jax.cells.parts import DENSE_KERNEL_INITS, ENCODER_INITS, KERNEL_INITS, require_bias_options
from wrnn_jax.cells.twm import Boundary, attention_boundary, linear_boundary
from wrnn_jax.cells.wave import wave_speeds
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
    """What a registered name stands for: a family of cells and its own defaults; None: it has no such option."""

    family: Literal["wave", "elman", "gated", "twm"]
    act: str | None = None
    init: str | None = None
    encoder_init: str | None = None
    local: bool = False
    readout: Callable[..., Readout] = readouts.linear
    boundary: Callable[[int, int], Boundary] | None = None


MODELS: Mapping[str, _Named] = {
    "wrnn": _Named("wave", "relu", "shift", "sparse"),
    "wrnn-mlp": _Named("wave", "relu", "shift", "sparse", readout=readouts.mlp),
    "wrnn-local": _Named("wave", "relu", "shift", "sparse", local=True),  # untied: a kernel a position
    "irnn": _Named("elman", "relu", "identity", "dense"),
    "irnn-shift": _Named("elman", "relu", "shift", "dense"),  # + Σ-init
    "irnn-shift-sparse": _Named("elman", "relu", "shift", "sparse"),  # + Σ-init + V-init
    "srnn": _Named("elman", "tanh", "random", "dense"),  # the simple (Elman) RNN
    "lstm": _Named("gated"),
    "twm-lbc": _Named("twm", boundary=linear_boundary),  # traveling-wave working memory, linear boundary
    "twm-sbc": _Named("twm", boundary=partial(attention_boundary, projections="learned")),  # self-attention
}
"""Every model that has a name: it is what ``--model`` takes."""


_OPTIONS = {
    "act": "activation to choose",
    "init": "start to choose",
    "encoder_init": "encoder's start to choose",
    "n_ch": "channels to choose",
    "ksize": "taps",
}
"""Fields of a config that not every model has, in words."""
MOST_TAPS = 511
"""Of a kernel: a step is unrolled over them, each of which takes its time to compile."""
MOST_CHANNELS = 2**17
"""Each is joined with every other: their kernel has 10 billion weights and more."""


@dataclass(frozen=True)
class ModelConfig:
    """Which model. What is not given is filled in with the named model's own default."""

    model: str = "wrnn"
    """The model: wrnn | wrnn-mlp | wrnn-local | irnn | irnn-shift | irnn-shift-sparse | srnn | lstm | twm-lbc |
    twm-sbc."""
    n_hid: int = 100
    """Neurons of one channel; of twm… the columns of its substrate, into which as many inputs are first written."""
    n_ch: int | None = None
    """Channels (if not given: for wrnn… 6 for copy, 27 for adding, 16 for images, 8 for hds; for the others 1; twm…
    has one for each input, so leave it out)."""
    ksize: int | None = None
    """Taps of the recurrent kernel, odd, at most n-hid and 511; only for wrnn… (3 if not given)."""
    act: str | None = None
    """Activation: relu | tanh | identity (if not given: tanh for srnn, else relu)."""
    init: str | None = None
    """Start of the recurrent kernel: shift | identity | random | orthogonal (not for wrnn…; if not given: the model's
    own)."""
    speed: float | tuple[float, ...] | Literal["log"] | None = None
    """Speed ν of the waves at the start, neurons a step: a number, one for each channel, or log (over channels from a
    tenth of the fastest to the fastest, half of ksize); only for wrnn… with the shift (1 if not given)."""
    encoder_init: str | None = None
    """Start of the encoder V: sparse (the paper's V-init) | dense (N(0, 0.001²)) | uniform (±1/√D, as a linear layer of
    the authors' framework; if not given: the model's own)."""
    use_bias: bool = True
    """Biases in cell and readout; without them the state 0 is a fixed point. (twm… has none.)"""
    bias_init: str = "zeros"
    """Start of the biases: zeros | random (as the authors' program leaves them)."""
    freeze_encoder: bool = False
    """Do not train the encoder V."""
    freeze_recurrence: bool = False
    """Do not train the recurrent kernel."""
    backend: str = "auto"
    """How to go through time: auto | scan | fused | native (once compiled) | parallel (for --act identity)."""
    WAVE_CHANNELS: ClassVar[int] = 6
    WAVE_ENCODER: ClassVar[str] = "sparse"

    def __post_init__(self):
        require_choice("model", self.model, MODELS)
        named = MODELS[self.model]
        is_wave = named.family == "wave"
        own = {
            "act": named.act,
            "init": named.init,
            "encoder_init": self.WAVE_ENCODER if is_wave else named.encoder_init,
            "n_ch": {"wave": self.WAVE_CHANNELS, "elman": 1}.get(named.family),
            "ksize": 3 if is_wave else None,
        }
        for field, default in own.items():
            if getattr(self, field) is None:
                object.__setattr__(self, field, default)
            allowed = f"left out: {self.model} has no {_OPTIONS[field]}"
            require(default is not None or getattr(self, field) is None, field, getattr(self, field), allowed)

        require_integer("n_hid", self.n_hid, at_least=1)
        if self.n_ch is not None:
            require_integer("n_ch", self.n_ch, at_least=1, at_most=MOST_CHANNELS)
        if is_wave:
            require_integer("ksize", self.ksize, at_least=1, at_most=MOST_TAPS)
            allowed = f"an odd number from 1 to n-hid = {self.n_hid}"
            require(self.ksize % 2 == 1 and self.ksize <= self.n_hid, "ksize", self.ksize, allowed)
            require(self.ksize >= 3 or self.init != "shift", "ksize", self.ksize, "3 or more for the shift (see init)")
            require(self.speed is None or self.init == "shift", "speed", self.speed, "left out unless init is shift")
            if self.speed is not None:
                wave_speeds(self.speed, self.n_ch, self.ksize)
                if all(one == 1 for one in (self.speed if isinstance(self.speed, list | tuple) else [self.speed])):
                    object.__setattr__(self, "speed", None)  # One setting has one name.
        require(is_wave or self.speed is None, "speed", self.speed, f"left out: {self.model} has no wave speed")
        if named.act:
            require_choice("act", self.act, ACTIVATIONS)
            require_choice("init", self.init, KERNEL_INITS if is_wave else DENSE_KERNEL_INITS)
            require_choice("encoder_init", self.encoder_init, ENCODER_INITS)
        require_bias_options(self.use_bias, self.bias_init)
        for field in ("freeze_encoder", "freeze_recurrence"):
            frozen = getattr(self, field)
            require_switch(field, frozen)
            require(named.act or not frozen, field, frozen, f"left out for {self.model}")
        if self.backend != "auto":  # To resolve that asks for a device, and what devices there are may yet be set.
            choose_backend(cell_of(self, input_size=1), self.backend)


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


@dataclass(frozen=True)
class HDSModelConfig(ModelConfig):
    """Which model, as the theory reads it: without biases, so that the state 0 is a fixed point."""

    model: str = "srnn"
    """The model: srnn | lstm | twm-lbc | twm-sbc | wrnn | wrnn-mlp | wrnn-local | irnn | irnn-shift |
    irnn-shift-sparse."""
    n_hid: int | None = None
    """Neurons of one channel (if not given: 64); of twm… the columns of its substrate, s (if not given: 8)."""
    init: str | None = None
    """Start of the recurrent kernel: shift | identity | random | orthogonal (not for wrnn…; if not given: orthogonal
    for srnn, where nothing decays, else the model's own)."""
    use_bias: bool = False
    """Biases in cell and readout; without them the state 0 is a fixed point. (twm… has none.)"""
    WAVE_CHANNELS: ClassVar[int] = 8
    # The sparse encoder hands on the sum of the features alone, which of binary vectors says nothing about each.
    WAVE_ENCODER: ClassVar[str] = "dense"

    def __post_init__(self):
        if self.n_hid is None:
            object.__setattr__(self, "n_hid", 8 if self.model.startswith("twm") else 64)
        if self.model == "srnn" and self.init is None:
            object.__setattr__(self, "init", "orthogonal")
        super().__post_init__()


def build(config: ModelConfig, input_size: int, output_size: int, outputs: Literal["all", "last"]) -> Model:
    """The model that a config names, for D inputs and O outputs, read at every step or the last."""
    named = MODELS[config.model]
    if named.family == "twm":
        allowed = f"another model: it says what it is given, vectors of {input_size} elements, not of {output_size}"
        require(input_size == output_size, "model", config.model, allowed)
        readout = readouts.direct(output_size)
    else:
        readout = named.readout(output_size, use_bias=config.use_bias)
    return recurrent(cell_of(config, input_size), readout, input_size, outputs=outputs, backend=config.backend)


def with_backend_chosen(
    config: ModelConfig, input_size: int, outputs: Literal["all", "last"], batch: int
) -> ModelConfig:
    """The config with the backend named that ``"auto"`` stands for on this machine, for such a batch."""
    return replace(config, backend=choose_backend(cell_of(config, input_size), config.backend, outputs, batch))


def cell_of(config: ModelConfig, input_size: int) -> Cell:
    """The cell that a config names, for D inputs."""
    named = MODELS[config.model]
    if named.family == "twm":
        return cells.twm(named.boundary(config.n_hid, input_size), input_steps=config.n_hid)
    biases = {"use_bias": config.use_bias, "bias_init": config.bias_init}
    if named.family == "gated":
        return cells.lstm(config.n_hid, **biases)
    options = {
        "activation": config.act,
        "kernel_init": config.init,
        "encoder_init": config.encoder_init,
        "freeze_encoder": config.freeze_encoder,
        "freeze_recurrence": config.freeze_recurrence,
        **biases,
    }
    if named.family == "wave":
        return cells.wave(config.n_ch, config.n_hid, config.ksize, local=named.local, speed=config.speed, **options)
    return cells.elman(config.n_hid, channels=config.n_ch, **options)
