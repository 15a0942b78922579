"""Cells for ``flax.linen.RNN``, and the linear wave as a layer."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from wrnn_jax.cells import Cell, first_carry
from wrnn_jax.layers import Training, Variables
from wrnn_jax.models import Model
from wrnn_jax.nn import apply_layer, init, init_layer, start_of_layer, step, stream_layer, wave_layer_of, wave_of
from wrnn_jax.typing import Array, Carry, Key, Params, Shape
from wrnn_jax.validation import require

__all__ = ["AdaptedCell", "WaveLayer", "WaveRNNCell", "as_model"]


def as_model(module: nn.Module, xs: Array, *, train: str | None = None) -> Model:
    """A linen module as a model for this library's trainers and grids: its collections but ``"params"`` are the
    model's statistics, and its stream ``"dropout"`` draws from the step's key.

    Args:
      module: ``module(xs)`` -> outputs ``(B, T, O)`` or ``(B, O)``.
      xs: inputs ``(B, T, D)`` of the shape that its parameters are made for; T and B may be others later.
      train: the name of its argument, True in training and False in evaluation, where it has one.

    Batch norm without an ``axis_name`` is of each device's part of a batch; the running means are averaged. The name to
    give it is ``"batch"``, where the devices do share batches.
    """
    flags = {} if train is None else {train: False}

    def init(key: Key) -> Variables:
        collections = dict(module.init(key, xs, **flags))
        return Variables(collections.pop("params", {}), collections)

    def apply(variables: Variables, xs: Array, training: Training | None = None) -> tuple[Array, Any]:
        collections = {"params": variables.params, **variables.stats}
        if training is None:
            return module.apply(collections, xs, **flags), variables.stats
        now = dict.fromkeys(flags, True)
        # Each device draws for its own sequences.
        key = jax.random.fold_in(training.key, jax.lax.axis_index(training.axis)) if training.axis else training.key
        return module.apply(collections, xs, **now, rngs={"dropout": key}, mutable=list(variables.stats))

    return Model(init, apply)


class _LinenCell(nn.RNNCellBase):
    """A linen cell whose mathematics are ``self.cell``; subclasses give ``cell``, ``dtype`` and ``param_dtype``."""

    def __call__(self, carry: Carry, x: Array) -> tuple[Carry, Array]:
        """One step: ``(carry, x (*batch, D)) -> (carry, y (*batch, F))``."""
        return step(self, self._parameters(x.shape[-1]), carry, x)

    @nn.nowrap
    def initialize_carry(self, rng: Key, input_shape: Shape) -> Carry:
        """h_0 in ``param_dtype`` for inputs of shape ``(*batch, D)``; ``rng`` is not used.

        Where it depends on parameters, the module must have them: within ``nn.RNN`` or another module, or by
        ``apply(variables, rng, input_shape, method="initialize_carry")``.

        Raises:
          InvalidValue: for such a cell that has no parameters yet.
        """
        cell, params = self.cell, None
        if cell.start:
            allowed = "one that has them, as in apply(variables, rng, input_shape, method='initialize_carry')"
            require(self.scope is not None, "initialize_carry", "a module without its parameters", allowed)
            params = self._parameters(input_shape[-1])
        return first_carry(cell, params, input_shape[:-1], self.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        """1: the last axis of x. The axes of the carry do not count."""
        return 1

    @nn.compact
    def _parameters(self, input_size: int) -> Params:
        return _declared(self, lambda key: init(self, key, input_size))


def _declared(module: nn.Module, init: Callable[[Key], Params]) -> Params:
    """The tree that ``init`` gives, each of its names declared as a parameter of ``module``."""
    tree = jax.eval_shape(lambda: init(jax.random.key(0)))
    is_named = isinstance(tree, dict)
    parts = tree if is_named else {"tree": tree}
    drawn = None
    # One draw of ``init`` for all names, with one key. Where no key is given nothing is drawn: Flax then only asks for
    # the shapes, or refuses.
    if module.has_rng("params") and not all(module.has_variable("params", name) for name in parts):
        drawn = init(module.make_rng("params"))
        drawn = drawn if is_named else {"tree": drawn}

    def start(_: Key, name: str) -> Params:
        return drawn[name] if drawn else jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), parts[name])

    declared = {name: module.param(name, start, name) for name in parts}
    return declared if is_named else declared["tree"]


class AdaptedCell(_LinenCell):
    """Any :class:`wrnn_jax.cells.Cell` as a linen cell::

        (carry, y) = cell.step(params, carry, x)

    The collection ``"params"`` is the tree of ``cell.init`` itself (one that is no dict stands under
    the name ``"tree"``). The carry may be any pytree.

    Example::

        rnn = nn.RNN(AdaptedCell(elman(100)))
        variables = rnn.init(jax.random.key(0), xs)        # xs (B, T, D)
        ys = rnn.apply(variables, xs)                      # (B, T, F)

    Attributes:
      cell: the pure cell. Keep one ``Cell`` and use it again: two of them are never equal, and so are
        two modules that hold them, where a compiled function takes a module as a static argument.
      dtype: of the computation and of y; ``param_dtype`` if not given.
      param_dtype: of the parameters and of the first carry. A carry comes back in the dtype it had.
    """

    cell: Cell
    dtype: Any = None
    param_dtype: Any = jnp.float32


class WaveRNNCell(_LinenCell):
    """The Wave-RNN (wRNN) as a linen cell::

        h_{t+1} = σ( u ⋆ h_t + b_u + V x_t + b_V ),     h_0 = 0,     y_t = h_{t+1}

    Carry: h ``(*batch, C, N)``. Output: h flattened channel-major, ``(*batch, C·N)``.
    Parameters: ``{"encoder": {"kernel": V, "bias": b_V}, "recurrence": {"kernel": u, "bias": b_u}}``,
    those of :func:`wrnn_jax.cells.wave`; no biases for ``use_bias=False``.

    Example::

        rnn = nn.RNN(WaveRNNCell(channels=6, neurons=100))
        variables = rnn.init(jax.random.key(0), xs)        # xs (B, T, D)
        ys = rnn.apply(variables, xs)                      # (B, T, 600)

    Attributes:
      dtype: of the computation and of y; ``param_dtype`` if not given.
      param_dtype: of the parameters and of the first carry. A carry comes back in the dtype it had.
      channels, neurons, …: every other one is an option of :func:`wrnn_jax.cells.wave`, explained there.

    Raises:
      ValueError: as :func:`wrnn_jax.cells.wave`, when the module is made.

    Source: Keller et al. 2024, section 2.2, eq. 1 to 3 and "Initialization".
    """

    channels: int
    neurons: int
    taps: int = 3
    activation: Literal["relu", "tanh", "identity"] = "relu"
    kernel_init: Literal["shift", "identity", "random"] = "shift"
    speed: float | Sequence[float] | Literal["log"] | None = None
    encoder_kind: Literal["dense", "source", "conv", "low-rank"] = "dense"
    encoder_rank: int | None = None
    encoder_taps: int | None = None
    encoder_colors: int | None = None
    encoder_init: Literal["sparse", "dense", "uniform"] = "sparse"
    use_bias: bool = True
    bias_init: Literal["zeros", "random"] = "zeros"
    form: Literal["roll", "conv"] = "roll"
    local: bool = False
    freeze_encoder: bool = False
    freeze_recurrence: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        wave_of(self)

    @property
    def cell(self) -> Cell:
        """The pure cell."""
        return wave_of(self)


class WaveLayer(nn.Module):
    """The linear wave as a linen layer: every feature on a ring of its own, all steps at once by FFT over time::

        h_{t+1} = U h_t + x_t δ_0        y_t = W · h_{t+1} + D x_t + b

    xs ``(B, T, D)`` -> ys ``(B, T, D)``. Parameters: ``{"kernel": W, "log_speed": …}``, those of
    :func:`wrnn_jax.cells.linear_wave`, where U is explained.

    Example::

        layer = WaveLayer(neurons=64)
        variables = layer.init(jax.random.key(0), xs)                       # xs (B, T, D)
        ys = layer.apply(variables, xs)                                     # (B, T, D)
        carry = layer.initialize_carry((B, D))                              # the same, a part or a step at a time:
        carry, ys = layer.apply(variables, carry, xs[:, :1], method="stream")

    Attributes:
      dtype: of inputs and outputs; ``param_dtype`` if not given. The rings, and the impulse responses of which ys are
        made, are float32 at least.
      param_dtype: of the parameters.
      neurons, scheme, …: every other one is an option of :func:`wrnn_jax.layers.wave`, explained there.

    Raises:
      ValueError: as :func:`wrnn_jax.layers.wave`, when the module is made or first given inputs.

    Source: as :func:`wrnn_jax.layers.wave`.
    """

    neurons: int
    scheme: Literal["exact", "upwind", "lax-wendroff", "taps", "shift", "delay"] = "exact"
    speed: float | Sequence[float] | Literal["log"] | None = None
    turn: float = 1.0
    length: int | None = None
    stride: int = 1
    use_skip: bool = True
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        wave_layer_of(self, max(1, np.size(self.speed)))

    def __call__(self, xs: Array, starts: Array | None = None) -> Array:
        """ys ``(B, T, D)`` of whole sequences; ``starts`` ``(B, T)`` is true where a new one begins inside of them."""
        return apply_layer(self, self._parameters(xs.shape[-1]), xs, starts)

    def stream(self, carry: Carry, xs: Array) -> tuple[Carry, Array]:
        """``(carry, xs (B, T, D)) -> (carry, ys (B, T, D))``, of the next T steps, T = 1 too."""
        return stream_layer(self, self._parameters(xs.shape[-1]), carry, xs)

    @nn.nowrap
    def initialize_carry(self, input_shape: Shape) -> Carry:
        """The rings at rest ``(B, D, N)``, for inputs of shape ``(B, D)`` in a step."""
        return start_of_layer(self, input_shape)

    @nn.compact
    def _parameters(self, features: int) -> Params:
        return _declared(self, lambda key: init_layer(self, key, features))
