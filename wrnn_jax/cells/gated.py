"""Cells with gates: the LSTM and the GRU."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from wrnn_jax.cells.base import Cell
from wrnn_jax.cells.parts import affine, batch_sizes, cast, require_bias_options, uniform_fan_in, without_bias
from wrnn_jax.typing import Array, Key, Params, Shape
from wrnn_jax.validation import require_integer

LSTM_GATES = 4
"""Input i, forget f, candidate g and output o: the first axis of the LSTM's parameters, in this order."""
GRU_GATES = 3
"""Reset r, update z and candidate n: the first axis of the GRU's parameters, in this order."""


class LSTMCarry(NamedTuple):
    """The two states of an LSTM, each ``(*batch, N)``."""

    hidden: Array
    """h: what the next step and the readout see."""
    cell: Array
    """c: the memory, which the gates write to, erase and show."""


def lstm(neurons: int, *, use_bias: bool = True, bias_init: Literal["zeros", "random"] = "zeros") -> Cell:
    """The long short-term memory with forget gates::

        i, f, o = sigmoid( U_k h_t + V_k x_t + b_k ),  k = i, f, o;     g = tanh( U_g h_t + V_g x_t + b_g )
        c_{t+1} = f · c_t + i · g,     h_{t+1} = o · tanh(c_{t+1}),     h_0 = c_0 = 0,     y_t = h_{t+1}

    Parameters: ``{"encoder": {"kernel": V (4, N, D), "bias": b (4, N)}, "recurrence": {"kernel": U (4, N, N)}}``,
    the gates in the order i, f, g, o; without the bias for ``use_bias=False``.
    Carry: :class:`LSTMCarry`, h and c ``(*batch, N)``; its hidden state is shown as h ``(*batch, 1, N)``.

    V and U start as U(−1/√N, 1/√N), as PyTorch's do (which adds two such biases, where one does the same).

    Args:
      neurons: N.
      use_bias: whether there is a b. Without, or with zeros, h = c = 0 is a fixed point.
      bias_init: ``"zeros"``, or ``"random"``: U(−1/√N, 1/√N) like U and V.

    Raises:
      ValueError: for N or D below 1, an unknown option, or ``bias_init="random"`` without a bias.

    Source: Hochreiter & Schmidhuber 1997; the forget gate: Gers, Schmidhuber & Cummins 2000.
    """
    require_integer("neurons", neurons, at_least=1)
    require_bias_options(use_bias, bias_init)

    def init(key: Key, input_size: int) -> Params:
        require_integer("input_size", input_size, at_least=1)
        encoder_key, kernel_key, bias_key = jax.random.split(key, 3)
        shape = (LSTM_GATES, neurons)
        params = {
            "encoder": {
                "kernel": uniform_fan_in(encoder_key, (*shape, input_size), neurons),
                "bias": uniform_fan_in(bias_key, shape, neurons) if bias_init == "random" else jnp.zeros(shape),
            },
            "recurrence": {"kernel": uniform_fan_in(kernel_key, (*shape, neurons), neurons)},
        }
        return params if use_bias else without_bias(params)

    def initial_carry(batch_shape: Shape = (), dtype: jnp.dtype = jnp.float32) -> LSTMCarry:
        # Two arrays, not one twice: a caller may donate their buffers.
        return LSTMCarry(*(jnp.zeros((*batch_sizes(batch_shape), neurons), dtype) for _ in LSTMCarry._fields))

    def step(params: Params, carry: LSTMCarry, x: Array) -> tuple[LSTMCarry, Array]:
        dtype = carry.hidden.dtype
        params = cast(params, dtype)
        gates = affine(params["recurrence"], carry.hidden) + affine(params["encoder"], x.astype(dtype))
        i, f, g, o = jnp.unstack(gates, axis=-2)
        cell = jax.nn.sigmoid(f) * carry.cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return LSTMCarry(hidden, cell), hidden

    return Cell(init, initial_carry, step, lambda carry: carry.hidden[..., None, :], neurons, pure=True)


def gru(neurons: int, *, use_bias: bool = True, bias_init: Literal["zeros", "random"] = "zeros") -> Cell:
    """The gated recurrent unit, its reset gate acting after the product with h, as in PyTorch and cuDNN::

        r, z = sigmoid( U_k h_t + V_k x_t + b_k ),  k = r, z;     n = tanh( r · (U_n h_t + c) + V_n x_t + b_n )
        h_{t+1} = (1 − z) · n + z · h_t,     h_0 = 0,     y_t = h_{t+1}

    Parameters: ``{"encoder": {"kernel": V (3, N, D), "bias": b (3, N)}, "recurrence": {"kernel": U (3, N, N), "bias":
    c (N,)}}``, the gates in the order r, z, n; without the biases for ``use_bias=False``.
    Carry: h ``(*batch, N)``; its hidden state is shown as ``(*batch, 1, N)``.

    All parameters but the biases start as U(−1/√N, 1/√N), as PyTorch's do (whose r and z have two such biases each,
    where one does the same).

    Args:
      neurons: N.
      use_bias: whether there are b and c. Without, or with zeros, h = 0 is a fixed point.
      bias_init: ``"zeros"``, or ``"random"``: U(−1/√N, 1/√N) like U and V.

    Raises:
      ValueError: for N or D below 1, an unknown option, or ``bias_init="random"`` without biases.

    Source: Cho et al. 2014, section 2.3, where r acts on h before the product, U_n (r · h_t), and has no bias c.
    """
    require_integer("neurons", neurons, at_least=1)
    require_bias_options(use_bias, bias_init)

    def init(key: Key, input_size: int) -> Params:
        require_integer("input_size", input_size, at_least=1)
        encoder_key, kernel_key, encoder_bias_key, bias_key = jax.random.split(key, 4)
        shape = (GRU_GATES, neurons)

        def bias(key: Key, shape: Shape) -> Array:
            return uniform_fan_in(key, shape, neurons) if bias_init == "random" else jnp.zeros(shape)

        params = {
            "encoder": {
                "kernel": uniform_fan_in(encoder_key, (*shape, input_size), neurons),
                "bias": bias(encoder_bias_key, shape),
            },
            "recurrence": {
                "kernel": uniform_fan_in(kernel_key, (*shape, neurons), neurons),
                "bias": bias(bias_key, (neurons,)),
            },
        }
        return params if use_bias else without_bias(params)

    def initial_carry(batch_shape: Shape = (), dtype: jnp.dtype = jnp.float32) -> Array:
        return jnp.zeros((*batch_sizes(batch_shape), neurons), dtype)

    def step(params: Params, carry: Array, x: Array) -> tuple[Array, Array]:
        params = cast(params, carry.dtype)
        recurrence = params["recurrence"]
        r, z, n = jnp.unstack(affine(params["encoder"], x.astype(carry.dtype)), axis=-2)
        of_r, of_z, of_n = jnp.unstack(affine({"kernel": recurrence["kernel"]}, carry), axis=-2)
        of_n = of_n + jnp.broadcast_to(recurrence["bias"], of_n.shape) if use_bias else of_n
        z = jax.nn.sigmoid(z + of_z)
        n = jnp.tanh(n + jax.nn.sigmoid(r + of_r) * of_n)
        carry = (1 - z) * n + z * carry
        return carry, carry

    return Cell(init, initial_carry, step, lambda carry: carry[..., None, :], neurons, pure=True)
