"""How far back a network's last output feels its inputs: the norm of gradients against the lag."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from wrnn_jax.typing import Array, Params
from wrnn_jax.validation import require


def gradient_by_lag(apply: Callable[[Params, Array], Array], params: Params, xs: Array) -> np.ndarray:
    """The norm of the last output's gradient to the input of k steps before, relative to that of lag 0::

        G(k) = ‖∂y_T/∂u(T−1−k)‖ / ‖∂y_T/∂u(T−1)‖,   k = 0 … T−1       norms are Frobenius', averaged over the batch

    ``‖∂y/∂u‖² / O`` is the mean of ``|∂L/∂u|²`` over losses L that read the last step only and whose ``∂L/∂y`` is a
    unit vector of random direction: no target and no scale of the loss enters. Along a wave G(k) = 1 for as long as it
    stays in the substrate; where every step multiplies by ρ < 1, G(k) = ρ^k.

    Args:
      apply: ``(params, xs)`` -> ``(B, T, O)``, of which the last step counts, or ``(B, O)``; such as ``Model.apply``.
        Sequences must not influence each other. To see all of a substrate, let it give the hidden state.
      params: what ``apply`` takes.
      xs: ``(B, T, D)``, where the gradient is taken.

    Returns:
      G ``(T,)``, float64, G(0) = 1. Of float32, a G that falls below about 1e-38 is 0.

    Raises:
      InvalidValue: for inputs of another shape, an output of another shape, gradients that are not finite, or a last
        output that the last input has no influence on.

    Source: Karuvally et al. 2024, section on gradients.
    """
    fits = xs.ndim == 3 and xs.size > 0
    require(fits, "xs.shape", xs.shape, "(B, T, D), none of them 0")

    # Squares of small float32 gradients would be 0.
    squares = np.asarray(jax.jit(partial(_gradients, apply))(params, xs), np.float64) ** 2
    norms = np.sqrt(squares.sum((0, 3))).mean(0)[::-1]
    require(bool(np.isfinite(norms).all()), "the gradient", "not finite", "finite: the network may have diverged")
    require(norms[0] > 0, "the gradient of lag 0", 0.0, "above 0: the last output must depend on the last input")
    return norms / norms[0]


def _gradients(apply: Callable[[Params, Array], Array], params: Params, xs: Array) -> Array:
    """Of each output of the last step, to all inputs: ``(O, B, T, D)``, one backward pass after another."""

    def last(xs: Array) -> Array:
        ys = apply(params, xs)
        require(ys.ndim in (2, 3), "the output's shape", ys.shape, "(B, T, O) or (B, O)")
        return ys if ys.ndim == 2 else ys[:, -1]

    ys, pull_back = jax.vjp(last, xs)
    return jax.lax.map(lambda output: pull_back(jnp.zeros_like(ys).at[:, output].set(1))[0], jnp.arange(ys.shape[1]))
