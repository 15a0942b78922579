"""The simple (Elman) RNN, and the iRNN: the wave-free baseline, with its ablations."""

from typing import Literal

import jax
import jax.numpy as jnp

from wrnn_jax.activations import ACTIVATIONS
from wrnn_jax.cells.base import Cell
from wrnn_jax.cells.encoders import dense
from wrnn_jax.cells.parts import (
    DENSE_KERNEL_INITS,
    affine,
    batch_sizes,
    cast,
    engines,
    freeze,
    require_cell_options,
    uniform_fan_in,
    without_bias,
)
from wrnn_jax.typing import Array, Carry, Key, Params, Shape
from wrnn_jax.validation import require_choice, require_integer, require_switch


def elman(
    neurons: int,
    *,
    channels: int = 1,
    activation: Literal["relu", "tanh", "identity"] = "tanh",
    kernel_init: Literal["shift", "identity", "random", "orthogonal"] = "random",
    encoder_init: Literal["sparse", "dense", "uniform"] = "dense",
    use_bias: bool = True,
    bias_init: Literal["zeros", "random"] = "zeros",
    freeze_encoder: bool = False,
    freeze_recurrence: bool = False,
) -> Cell:
    """The simple RNN::

        h_{t+1} = σ( U h_t + b_U + V x_t + b_V ),     h_0 = 0,     y_t = h_{t+1}

    Parameters: ``{"encoder": {"kernel": V (C·N, D), "bias": b_V (C·N,)},
    "recurrence": {"kernel": U (C·N, C·N), "bias": b_U (C·N,)}}``;
    without the biases for ``use_bias=False``.
    Carry: h ``(*batch, C·N)``; its hidden state is shown as ``(*batch, C, N)``.

    Args:
      neurons: N.
      channels: C; U is dense and knows no channels: they only say how the state is shown, and where
        a sparse encoder has its sources.
      activation: σ.
      kernel_init: the start of U: ``"identity"``; ``"shift"`` (the paper's + Σ-init): the circulant
        matrix with ``U[i, (i+1) mod C·N] = 1``, so that ``h_{t+1}[i] = h_t[i+1]``; ``"random"``:
        U(−1/√(C·N), 1/√(C·N)); ``"orthogonal"``: a uniformly (Haar) random orthogonal matrix, whose
        eigenvalues all lie on the unit circle: without input and with the identity for σ, |h| is conserved.
      encoder_init: the start of V; ``"sparse"`` is the paper's + V-init, see
        :func:`wrnn_jax.cells.encoders.dense`.
      use_bias: whether there are b_V and b_U. Without them 0 is a fixed point where σ(0) = 0, as the
        travelling-wave working memory's analysis wants it (Karuvally et al. 2024).
      bias_init: ``"zeros"``, or ``"random"`` as the authors' program leaves them: b_V with a dense
        encoder U(−1/√D, 1/√D), b_U with a random U like U itself, else zero.
      freeze_encoder: no gradient flows into V and b_V.
      freeze_recurrence: no gradient flows into U and b_U.

    Raises:
      ValueError: for sizes below 1, an unknown option, or ``bias_init="random"`` without biases.

    Source: Elman 1990; the initialisations: Keller et al. 2024, section 3 and Table 4.
    """
    require_integer("neurons", neurons, at_least=1)
    require_integer("channels", channels, at_least=1)
    require_choice("kernel_init", kernel_init, DENSE_KERNEL_INITS)
    require_cell_options(activation, encoder_init, use_bias, bias_init)
    require_switch("freeze_encoder", freeze_encoder)
    require_switch("freeze_recurrence", freeze_recurrence)
    units = channels * neurons
    sigma = ACTIVATIONS[activation].apply
    frozen = {"encoder": freeze_encoder, "recurrence": freeze_recurrence}
    drive = dense(channels, neurons, init=encoder_init, bias_init=bias_init)

    def init(key: Key, input_size: int) -> Params:
        encoder_key, kernel_key, bias_key = jax.random.split(key, 3)
        random_bias = bias_init == "random" and kernel_init == "random"
        encoder = drive.init(encoder_key, input_size)
        params = {
            "encoder": jax.tree.map(lambda leaf: leaf.reshape(units, *leaf.shape[2:]), encoder),
            "recurrence": {
                "kernel": _init_kernel(kernel_key, units, kernel_init),
                "bias": uniform_fan_in(bias_key, (units,), units) if random_bias else jnp.zeros(units),
            },
        }
        return params if use_bias else without_bias(params)

    def initial_carry(batch_shape: Shape = (), dtype: jnp.dtype = jnp.float32) -> Carry:
        return jnp.zeros((*batch_sizes(batch_shape), units), dtype)

    def step(params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
        params = cast(freeze(params, frozen), carry.dtype)
        carry = sigma(affine(params["recurrence"], carry) + affine(params["encoder"], x.astype(carry.dtype)))
        return carry, carry

    def hidden(carry: Carry) -> Array:
        return carry.reshape(*carry.shape[:-1], channels, neurons)

    return Cell(init, initial_carry, step, hidden, units, engines(activation, frozen), pure=True)


def irnn(
    neurons: int,
    *,
    activation: Literal["relu", "tanh", "identity"] = "relu",
    kernel_init: Literal["shift", "identity", "random", "orthogonal"] = "identity",
    encoder_init: Literal["sparse", "dense", "uniform"] = "dense",
    **options,
) -> Cell:
    """The iRNN: :func:`elman` with ReLU and U started as the identity (Le et al. 2015).

    The paper's ablations are ``kernel_init="shift"`` (+ Σ-init) and ``encoder_init="sparse"``
    (+ V-init). Other options, parameters, carry and errors are those of :func:`elman`.
    """
    return elman(neurons, activation=activation, kernel_init=kernel_init, encoder_init=encoder_init, **options)


def _init_kernel(key: Key, units: int, kernel_init: str) -> Array:
    if kernel_init == "random":
        return uniform_fan_in(key, (units, units), units)
    if kernel_init == "orthogonal":
        return jax.nn.initializers.orthogonal()(key, (units, units))
    return jnp.roll(jnp.eye(units), 1 if kernel_init == "shift" else 0, axis=1)
