"""Layers that treat every step by itself: an affine map, a function."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import random

from wrnn_jax.cells.parts import affine, cast, require_bias_options, uniform_fan_in
from wrnn_jax.layers.base import Layer, Training, Variables, stream_of_steps
from wrnn_jax.typing import Array, Key, Shape
from wrnn_jax.validation import require_integer


def _uniform(key: Key, shape: Shape) -> Array:
    return uniform_fan_in(key, shape, shape[-1])


def dense(
    output_size: int,
    *,
    use_bias: bool = True,
    kernel_init: Callable[[Key, Shape], Array] = _uniform,
    bias_init: Literal["zeros", "random"] = "zeros",
) -> Layer:
    """y_t = W x_t + b.

    Parameters: ``{"kernel": W (F, D), "bias": b (F,)}``; only W for ``use_bias=False``.

    Args:
      output_size: F.
      use_bias: whether there is b.
      kernel_init: the start of W, ``(key, (F, D)) -> W``: U(−1/√D, 1/√D) if not given. One of ``jax.nn.initializers``
        is told so where it needs to know: ``he_normal(in_axis=-1, out_axis=-2)``.
      bias_init: the start of b: ``"zeros"``, or ``"random"``: U(−1/√D, 1/√D).

    Raises:
      ValueError: for F < 1, or an unknown start of the bias.
    """
    require_integer("output_size", output_size, at_least=1)
    require_bias_options(use_bias, bias_init)

    def init(key: Key, input_size: int) -> Variables:
        kernel_key, bias_key = random.split(key)
        params = {"kernel": kernel_init(kernel_key, (output_size, input_size))}
        if use_bias:
            is_random = bias_init == "random"
            bias = uniform_fan_in(bias_key, (output_size,), input_size) if is_random else jnp.zeros(output_size)
            params["bias"] = bias
        return Variables(params)

    def apply(
        variables: Variables, xs: Array, training: Training | None = None, starts: Array | None = None
    ) -> tuple[Array, Any]:
        return affine(cast(variables.params, xs.dtype), xs), variables.stats

    return Layer(init, apply, output_size, stream=stream_of_steps(apply))


def glu(output_size: int) -> Layer:
    """A gated linear unit, y_t = (A x_t + a) ⊙ σ(G x_t + g), σ the logistic function.

    Parameters: ``{"kernel": A over G (2F, D), "bias": a over g (2F,)}``, A and G from N(0, 1/D), biases 0.

    Args:
      output_size: F.

    Raises:
      ValueError: for F < 1.

    Source: Dauphin et al. 2017, eq. 1.
    """
    require_integer("output_size", output_size, at_least=1)
    both = dense(2 * output_size, kernel_init=jax.nn.initializers.lecun_normal(in_axis=-1, out_axis=-2))

    def apply(
        variables: Variables, xs: Array, training: Training | None = None, starts: Array | None = None
    ) -> tuple[Array, Any]:
        return jax.nn.glu(both.apply(variables, xs)[0]), variables.stats

    return Layer(both.init, apply, output_size, stream=stream_of_steps(apply))


def elementwise(function: Callable[[Array], Array]) -> Layer:
    """y = f(x) of every element, such as ``elementwise(jax.nn.gelu)``. No parameters."""

    def apply(
        variables: Variables, xs: Array, training: Training | None = None, starts: Array | None = None
    ) -> tuple[Array, Any]:
        return function(xs), variables.stats

    return Layer(lambda key, input_size: Variables(()), apply, stream=stream_of_steps(apply))
