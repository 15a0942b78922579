"""Cells for ``flax.nnx.RNN``, and the linear wave as a layer."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from wrnn_jax.cells import Cell, first_carry
from wrnn_jax.nn import apply_layer, init, init_layer, start_of_layer, step, stream_layer, wave_of
from wrnn_jax.typing import Array, Carry, Params, Shape
from wrnn_jax.validation import require_integer

__all__ = ["AdaptedCell", "WaveLayer", "WaveRNNCell"]


class _Holder:
    """Holds a tree of parameters, each of its names an attribute."""

    def _hold(self, tree: Params) -> None:
        is_free = isinstance(tree, dict) and set(tree).isdisjoint(dir(self))
        parts = tree if is_free else {"tree": tree}
        self._structure = jax.tree.structure(tree)
        self._names = tuple(parts)
        for name, part in parts.items():
            setattr(self, name, nnx.data(jax.tree.map(nnx.Param, part)))

    @property
    def params(self) -> Params:
        """The parameters as the pure cell or layer takes them: the tree of its ``init``, its leaves plain arrays."""
        parts = {name: getattr(self, name) for name in self._names}
        leaves = jax.tree.leaves(parts, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
        return jax.tree.unflatten(self._structure, [leaf[...] for leaf in leaves])


class _NNXCell(_Holder, nnx.RNNCellBase):
    """An nnx cell whose mathematics are ``self.cell``; subclasses are dataclasses that give it and its ``in_features``,
    ``dtype``, ``param_dtype`` and ``rngs``."""

    def __post_init__(self, rngs: nnx.Rngs):
        require_integer("in_features", self.in_features, at_least=1)
        self._hold(init(self, rngs.params(), self.in_features))

    def __call__(self, carry: Carry, x: Array) -> tuple[Carry, Array]:
        """One step: ``(carry, x (*batch, D)) -> (carry, y (*batch, F))``."""
        return step(self, self.params, carry, x)

    def initialize_carry(self, input_shape: Shape, rngs: nnx.Rngs | nnx.RngStream | None = None) -> Carry:
        """h_0 in ``param_dtype`` for inputs of shape ``(*batch, D)``; ``rngs`` is not used."""
        return first_carry(self.cell, self.params, input_shape[:-1], self.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        """1: the last axis of x. The axes of the carry do not count."""
        return 1


@nnx.dataclass(eq=False)
class AdaptedCell(_NNXCell):
    """Any :class:`wrnn_jax.cells.Cell` as an nnx cell::

        (carry, y) = cell.step(params, carry, x)

    Every name of the tree of ``cell.init`` is an attribute with an ``nnx.Param`` for each leaf (a tree
    that is no dict, or has a name such as ``"cell"`` that is taken here, stands under the name ``"tree"``;
    ``nnx.update`` wants the entries of a list or tuple as a dict numbered from 0). The carry may be any pytree.

    Example::

        rnn = nnx.RNN(AdaptedCell(elman(100), in_features=10, rngs=nnx.Rngs(0)))
        ys = rnn(xs)                                       # xs (B, T, 10) -> (B, T, F)

    Attributes:
      cell: the pure cell. Keep one ``Cell`` and use it again: two of them are never equal, and so are
        the graph definitions of two modules that hold them.
      in_features: D.
      dtype: of the computation and of y; ``param_dtype`` if not given.
      param_dtype: of the parameters and of the first carry. A carry comes back in the dtype it had.
      rngs: its stream ``params`` starts the parameters.

    Raises:
      ValueError: for ``in_features`` below 1.
    """

    cell: Cell
    in_features: int
    _: dataclasses.KW_ONLY
    dtype: Any = None
    param_dtype: Any = jnp.float32
    rngs: dataclasses.InitVar[nnx.Rngs]


@nnx.dataclass(eq=False)
class WaveRNNCell(_NNXCell):
    """The Wave-RNN (wRNN) as an nnx cell::

        h_{t+1} = σ( u ⋆ h_t + b_u + V x_t + b_V ),     h_0 = 0,     y_t = h_{t+1}

    Carry: h ``(*batch, C, N)``. Output: h flattened channel-major, ``(*batch, C·N)``.
    Parameters: ``encoder["kernel"]`` V, ``encoder["bias"]`` b_V, ``recurrence["kernel"]`` u and
    ``recurrence["bias"]`` b_u, shaped as in :func:`wrnn_jax.cells.wave`; no biases for ``use_bias=False``.

    Example::

        rnn = nnx.RNN(WaveRNNCell(in_features=10, channels=6, neurons=100, rngs=nnx.Rngs(0)))
        ys = rnn(xs)                                       # xs (B, T, 10) -> (B, T, 600)

    Attributes:
      in_features: D.
      dtype: of the computation and of y; ``param_dtype`` if not given.
      param_dtype: of the parameters and of the first carry. A carry comes back in the dtype it had.
      rngs: its stream ``params`` starts the parameters.
      channels, neurons, …: every other one is an option of :func:`wrnn_jax.cells.wave`, explained there.

    Raises:
      ValueError: as :func:`wrnn_jax.cells.wave`, and for ``in_features`` below 1.

    Source: Keller et al. 2024, section 2.2, eq. 1 to 3 and "Initialization".
    """

    in_features: int
    channels: int
    neurons: int
    taps: int = 3
    _: dataclasses.KW_ONLY
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
    rngs: dataclasses.InitVar[nnx.Rngs]

    @property
    def cell(self) -> Cell:
        """The pure cell."""
        return wave_of(self)


@nnx.dataclass(eq=False)
class WaveLayer(_Holder, nnx.Module):
    """The linear wave as an nnx layer: every feature on a ring of its own, all steps at once by FFT over time::

        h_{t+1} = U h_t + x_t δ_0        y_t = W · h_{t+1} + D x_t + b

    xs ``(B, T, D)`` -> ys ``(B, T, D)``. Parameters: ``kernel`` W, ``log_speed`` and the others, those of
    :func:`wrnn_jax.cells.linear_wave`, where U is explained.

    Example::

        layer = WaveLayer(in_features=16, neurons=64, rngs=nnx.Rngs(0))
        ys = layer(xs)                                     # (B, T, 16) -> (B, T, 16)
        carry = layer.initialize_carry((B, 16))            # the same, a part or a step at a time:
        carry, ys = layer.stream(carry, xs[:, :1])

    Attributes:
      in_features: D.
      dtype: of inputs and outputs; ``param_dtype`` if not given. The rings, and the impulse responses of which ys are
        made, are float32 at least.
      param_dtype: of the parameters.
      rngs: its stream ``params`` starts the parameters.
      neurons, scheme, …: every other one is an option of :func:`wrnn_jax.layers.wave`, explained there.

    Raises:
      ValueError: as :func:`wrnn_jax.layers.wave`, and for ``in_features`` below 1.

    Source: as :func:`wrnn_jax.layers.wave`.
    """

    in_features: int
    neurons: int
    _: dataclasses.KW_ONLY
    scheme: Literal["exact", "upwind", "lax-wendroff", "taps", "shift", "delay"] = "exact"
    speed: float | Sequence[float] | Literal["log"] | None = None
    turn: float = 1.0
    length: int | None = None
    stride: int = 1
    use_skip: bool = True
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    rngs: dataclasses.InitVar[nnx.Rngs]

    def __post_init__(self, rngs: nnx.Rngs):
        require_integer("in_features", self.in_features, at_least=1)
        self._hold(init_layer(self, rngs.params(), self.in_features))

    def __call__(self, xs: Array, starts: Array | None = None) -> Array:
        """ys ``(B, T, D)`` of whole sequences; ``starts`` ``(B, T)`` is true where a new one begins inside of them."""
        return apply_layer(self, self.params, xs, starts)

    def stream(self, carry: Carry, xs: Array) -> tuple[Carry, Array]:
        """``(carry, xs (B, T, D)) -> (carry, ys (B, T, D))``, of the next T steps, T = 1 too."""
        return stream_layer(self, self.params, carry, xs)

    def initialize_carry(self, input_shape: Shape) -> Carry:
        """The rings at rest ``(B, D, N)``, for inputs of shape ``(B, D)`` in a step."""
        return start_of_layer(self, input_shape)
