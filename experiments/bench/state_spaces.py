"""Two diagonal state-space layers, to compare with: S4D by FFT, and the LRU by an associative scan.

Plain forms of the published equations in JAX, without the blocks that surround them in the papers.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wrnn_jax.kernels.convolution import causal_convolution
from wrnn_jax.layers import Layer, Training, Variables
from wrnn_jax.typing import Array, Key


def s4d(features: int, neurons: int) -> Layer:
    """A diagonal system for each feature, of N / 2 pairs of complex modes, by its kernel and FFT over time::

        x' = A x + u,  y = 2 Re(C · x) + D u;     over steps of Δ, u held:
        K_t = 2 Re Σ_n C_n (e^{Δ A_n} − 1) / A_n e^{t Δ A_n}          y = K ⋆ u + D u

    The powers are made as they stand there, as a Vandermonde matrix ``(C, N / 2, T)``. Start (S4D-Lin): A_n = −1/2 +
    iπn, C and D normal, Δ from 0.001 to 0.1 uniformly in its logarithm.

    Source: Gu, Gupta, Goel & Ré 2022, sections 3 and 4.
    """
    modes = neurons // 2

    def init(key: Key, input_size: int) -> Variables:
        read_key, skip_key, step_key = jax.random.split(key, 3)
        low, high = np.log([1e-3, 1e-1])
        return Variables(
            {
                "log_decay": jnp.full((features, modes), jnp.log(0.5)),
                "frequency": jnp.broadcast_to(jnp.pi * jnp.arange(modes), (features, modes)),
                "read": jax.random.normal(read_key, (2, features, modes)) / jnp.sqrt(2.0),
                "skip": jax.random.normal(skip_key, (features,)),
                "log_step": jax.random.uniform(step_key, (features,), minval=low, maxval=high),
            }
        )

    def apply(variables: Variables, xs: Array, training: Training | None = None, starts: None = None):
        params = variables.params
        rates = jax.lax.complex(-jnp.exp(params["log_decay"]), params["frequency"])
        steps = jnp.exp(params["log_step"])[:, None] * rates
        reads = jax.lax.complex(*params["read"]) * (jnp.exp(steps) - 1) / rates
        powers = jnp.exp(steps[..., None] * jnp.arange(xs.shape[1])[None, None])
        kernel = 2 * jnp.einsum("cn,cnt->ct", reads, powers).real
        ys = causal_convolution(jnp.moveaxis(xs, -1, 0), kernel)
        return jnp.moveaxis(ys, 0, -1) + params["skip"][None, None] * xs, variables.stats

    return Layer(init, apply, features)


def lru(features: int, neurons: int) -> Layer:
    """One diagonal system for all features, of N complex numbers, by an associative scan::

        x_t = λ x_{t−1} + γ B u_t,  y_t = Re(C x_t) + D u_t;     λ = exp(−e^ν + i e^θ)

    Start: |λ| from 0.9 to 0.999, its phase up to π / 10, γ = √(1 − |λ|²), B, C and D normal.

    Source: Orvieto et al. 2023, section 3 and appendix A.
    """

    def init(key: Key, input_size: int) -> Variables:
        keys = jax.random.split(key, 5)
        size = jnp.sqrt(jax.random.uniform(keys[0], (neurons,), minval=0.9**2, maxval=0.999**2))
        phase = jax.random.uniform(keys[1], (neurons,), minval=1e-3, maxval=jnp.pi / 10)
        params = {
            "nu": jnp.log(-jnp.log(size)),
            "theta": jnp.log(phase),
            "log_gamma": jnp.log(1 - size**2) / 2,
            "feed": jax.random.normal(keys[2], (2, neurons, features)) / (2 * features) ** 0.5,
            "read": jax.random.normal(keys[3], (2, features, neurons)) / neurons**0.5,
            "skip": jax.random.normal(keys[4], (features,)),
        }
        return Variables(params)

    def apply(variables: Variables, xs: Array, training: Training | None = None, starts: None = None):
        params = variables.params
        factors = jnp.exp(jax.lax.complex(-jnp.exp(params["nu"]), jnp.exp(params["theta"])))
        feed = jnp.exp(params["log_gamma"])[None, :, None] * params["feed"]
        fed = jax.lax.complex(*(jnp.einsum("btc,nc->btn", xs, part) for part in feed))
        _, states = jax.lax.associative_scan(_after, (jnp.broadcast_to(factors, fed.shape), fed), axis=1)
        real, imaginary = params["read"]
        ys = jnp.einsum("btn,cn->btc", states.real, real) - jnp.einsum("btn,cn->btc", states.imag, imaginary)
        return ys + params["skip"][None, None] * xs, variables.stats

    return Layer(init, apply, features)


def _after(first: Any, second: Any) -> Any:
    """x ↦ a x + b, one after another."""
    return second[0] * first[0], second[0] * first[1] + second[1]
