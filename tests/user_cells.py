"""Two published cells as a user of the library would write them: work on the parameters that is done once a sequence,
and in one of them a trained start and complex numbers. Below each, its equation transcribed step by step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wrnn_jax import Cell
from wrnn_jax.cells.parts import cast
from wrnn_jax.typing import Array


class Complex(NamedTuple):
    """A complex array as two real ones."""

    re: Array
    im: Array

    def times(self, other, product):
        re = product(self.re, other.re) - product(self.im, other.im)
        return Complex(re, product(self.re, other.im) + product(self.im, other.re))


def unitary(neurons):
    """A unitary RNN: h ← modReLU(W h + V x), y = (Re h, Im h), with a trained h₀ and

        W = D(θ₂) F⁻¹ D(θ₁) F,     D(θ) = diag(e^{iθ}),     modReLU(z) = z ReLU(|z| + b) / |z|

    and F the discrete Fourier transform.

    Source: Arjovsky, Shah & Bengio 2016, eq. 6 to 8, without the reflections and the permutation.
    """
    turns = 2 * np.pi * np.outer(np.arange(neurons), np.arange(neurons)) / neurons
    fourier = np.cos(turns) / neurons**0.5, -np.sin(turns) / neurons**0.5

    def init(key, input_size):
        keys = jax.random.split(key, 3)
        return {
            "V": 0.1 * jax.random.normal(keys[0], (2, neurons, input_size)),
            "phases": jax.random.uniform(keys[1], (2, neurons), minval=-np.pi, maxval=np.pi),
            "b": jnp.zeros(neurons),
            "first": jax.random.normal(keys[2], (2, neurons)),
        }

    def initial_carry(batch_shape=(), dtype=jnp.float32):
        return Complex(jnp.zeros((*batch_shape, neurons), dtype), jnp.zeros((*batch_shape, neurons), dtype))

    def prepare(params):
        """W transposed."""
        transform = Complex(*(jnp.asarray(part, params["phases"].dtype) for part in fourier))
        inverse = transform._replace(im=-transform.im)
        first, second = (Complex(jnp.cos(phases)[None], jnp.sin(phases)[None]) for phases in params["phases"])
        return transform.times(first, jnp.multiply).times(inverse, jnp.matmul).times(second, jnp.multiply)

    def step(params, carry, x, recurrence=None):
        recurrence = prepare(params) if recurrence is None else recurrence
        params, recurrence, x = cast((params, recurrence, x), carry.re.dtype)
        re, im = jax.tree.map(jnp.add, carry.times(recurrence, jnp.matmul), Complex(*(x @ V.T for V in params["V"])))
        modulus = jnp.sqrt(re**2 + im**2 + 1e-12)
        gain = jax.nn.relu(modulus + jnp.broadcast_to(params["b"], modulus.shape)) / modulus
        carry = Complex(gain * re, gain * im)
        return carry, jnp.concatenate(carry, axis=-1)

    return Cell(
        init,
        initial_carry,
        step,
        hidden=lambda carry: jnp.stack(carry, axis=-2),
        output_size=2 * neurons,
        start=lambda params: Complex(*params["first"]),
        prepare=prepare,
    )


def transcribed_unitary(params, xs):
    """All h ``(B, T, 2, N)`` in complex numbers, by the fast Fourier transform."""
    turn = jnp.exp(jax.lax.complex(jnp.zeros_like(params["phases"]), params["phases"]))[:, None]
    kernel = jax.lax.complex(*params["V"])
    h = jnp.broadcast_to(jax.lax.complex(*params["first"]), (len(xs), params["b"].size))
    states = []
    for t in range(xs.shape[1]):
        z = turn[1] * jnp.fft.ifft(turn[0] * jnp.fft.fft(h)) + jnp.matmul(kernel, xs[:, t, :, None])[..., 0]
        h = z * jax.nn.relu(abs(z) + params["b"][None]) / abs(z)
        states.append(jnp.stack([h.real, h.imag], axis=1))
    return jnp.stack(states, axis=1)


def antisymmetric(neurons, damping=0.1, pace=1.0):
    """The antisymmetric RNN: h ← h + ε tanh((W − Wᵀ − γI) h + V x + b), y = h, with γ the damping and ε the pace.

    Source: Chang, Chen, Haber & Chi 2019, eq. 12.
    """

    def init(key, input_size):
        keys = jax.random.split(key)
        kernels = jax.random.normal(keys[0], (neurons, neurons)), jax.random.normal(keys[1], (neurons, input_size))
        return {"W": kernels[0], "V": kernels[1], "b": jnp.zeros(neurons)}

    def initial_carry(batch_shape=(), dtype=jnp.float32):
        return jnp.zeros((*batch_shape, neurons), dtype)

    def prepare(params):
        return params["W"] - params["W"].T - damping * jnp.eye(neurons, dtype=params["W"].dtype)

    def step(params, carry, x, recurrence=None):
        recurrence = prepare(params) if recurrence is None else recurrence
        params, recurrence, x = cast((params, recurrence, x), carry.dtype)
        carry = carry + pace * jnp.tanh(
            carry @ recurrence.T + x @ params["V"].T + jnp.broadcast_to(params["b"], carry.shape)
        )
        return carry, carry

    return Cell(init, initial_carry, step, lambda carry: carry[..., None, :], neurons, prepare=prepare)


def transcribed_antisymmetric(params, xs, damping=0.1, pace=1.0):
    """All h ``(B, T, 1, N)``."""
    h, states = jnp.zeros((len(xs), params["b"].size)), []
    for t in range(xs.shape[1]):
        drive = params["W"] @ h.T - params["W"].T @ h.T - damping * h.T + params["V"] @ xs[:, t].T
        h = h + pace * jnp.tanh(drive.T + params["b"][None])
        states.append(h[:, None])
    return jnp.stack(states, axis=1)
