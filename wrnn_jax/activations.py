"""The activations σ, with their derivatives as functions of the state after them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wrnn_jax.typing import Array


class Activation(NamedTuple):
    """σ, and its pull-back as a function of the state *after* σ, so that no pre-activation is stored."""

    apply: Callable[[Array], Array]
    pull_back: Callable[[Array, Array], Array]
    """(h = σ(z), ∂L/∂h) -> ∂L/∂z."""


ACTIVATIONS: Mapping[str, Activation] = {
    "relu": Activation(jax.nn.relu, lambda h, dh: jnp.where(h > 0, dh, jnp.zeros_like(dh))),
    "tanh": Activation(jnp.tanh, lambda h, dh: dh * (1 - h * h)),
    "identity": Activation(lambda z: z, lambda h, dh: dh),
}
