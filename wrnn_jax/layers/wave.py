"""The depthwise linear wave as a layer: all steps at once, by FFT over time."""

from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp

from wrnn_jax.cells.base import unroll
from wrnn_jax.cells.contract import first_carry
from wrnn_jax.cells.linear_wave import linear_wave
from wrnn_jax.cells.response import filtered, in_kind
from wrnn_jax.kernels.convolution import require_stride
from wrnn_jax.layers.base import Layer, Stream, Training, Variables
from wrnn_jax.typing import Array, Carry, Key, Params
from wrnn_jax.validation import require_integer

SLOW = 0.25
"""The learning rate of speeds and leaks, which a whole turn of a wave multiplies, over that of all else."""
TRAVEL = ("log_speed", "log_decay", "taps")
"""The parameters of how waves travel."""


def wave(
    features: int,
    neurons: int,
    *,
    scheme: Literal["exact", "upwind", "lax-wendroff", "taps", "shift", "delay"] = "exact",
    speed: float | Sequence[float] | Literal["log"] | None = None,
    turn: float = 1.0,
    length: int | None = None,
    stride: int = 1,
    use_skip: bool = True,
    use_bias: bool = True,
) -> Layer:
    """The linear wave of every feature by itself, as a convolution over time::

        y = K ⋆ x + D x + b

    of every r-th step, from step r − 1 on. Parameters, start and options: those of
    :func:`wrnn_jax.cells.linear_wave`, of which this is the form over all steps at once, equal in value and gradient:
    T log T products a feature, where steps are N each. Inputs ``(B, T, C)``, or ``(B, T, 1)``, which all rings hear.
    Hidden: the rings, ``{"": (B, T, C, N)}``, step by step.

    Speeds, leaks and taps learn at a quarter of the learning rate; nothing here decays.

    Args:
      stride: r.

    Raises:
      ValueError: as the cell, for r < 1; at ``apply`` for an r that does not divide T (in a stream, that of each part),
        or with ``starts`` is not 1.

    Source: Fu et al. 2023 (H3), section 3, and Gu et al. 2022 (S4D), section 3, for the form by FFT.
    """
    require_integer("stride", stride, at_least=1)
    options = {"scheme": scheme, "speed": speed, "turn": turn, "length": length}
    cell = linear_wave(features, neurons, **options, use_skip=use_skip, use_bias=use_bias)

    def init(key: Key, input_size: int) -> Variables:
        return Variables(cell.init(key, input_size))

    def apply(
        variables: Variables, xs: Array, training: Training | None = None, starts: Array | None = None
    ) -> tuple[Array, Any]:
        _, ys = filtered(variables.params, xs, scheme, stride=stride, starts=starts)
        return in_kind(ys, xs), variables.stats

    def hidden(variables: Variables, xs: Array) -> dict[str, Array]:
        return {"": unroll(cell, variables.params, xs, outputs="last", return_hidden=True).hidden}

    def start(variables: Variables, sequences: int, dtype: jnp.dtype = jnp.float32) -> Carry:
        return first_carry(cell, variables.params, (sequences,), dtype)

    def run(variables: Variables, carry: Carry, xs: Array) -> tuple[Carry, Array]:
        require_stride(stride, xs.shape[1])
        backend = "scan" if xs.shape[1] == 1 else "parallel"  # One step is less work as a step.
        carry, ys, _ = unroll(cell, variables.params, xs, carry=carry, backend=backend)
        return carry, ys[:, stride - 1 :: stride]

    def rates(params: Params) -> Params:
        return {name: SLOW if name in TRAVEL else 1.0 for name in params}

    return Layer(init, apply, features, hidden, rates=rates, decays=lambda params: False, stream=Stream(start, run))
