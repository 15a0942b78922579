"""How the waves of a linear ring travel: in Fourier space λ_k, on the ring three taps, a roll, or a translation."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from wrnn_jax.typing import Array, Params
from wrnn_jax.validation import require, require_positive

SCHEMES = ("exact", "upwind", "lax-wendroff", "taps", "shift", "delay")
"""How a wave travels, see :func:`wrnn_jax.cells.linear_wave`."""
UNIT = ("shift", "delay")
"""Those of one neuron a step without loss, in which no speed and no leak is learned."""
LEAST_TAP = 1e-3
"""Of the taps' start: at a softmax of exactly 0 nothing would be learned."""


def eigenvalues(params: Params, scheme: str) -> Array:
    """λ_k of U ``(C, ⌊N/2⌋ + 1)``, complex; of ``delay``, which has none but 0 as a matrix, those of ``shift``."""
    kernel = params["kernel"]
    neurons = kernel.shape[-1]
    angle = jnp.asarray(2 * np.pi / neurons * np.arange(neurons // 2 + 1), kernel.dtype)[None]
    if scheme in UNIT:
        return jnp.broadcast_to(jax.lax.complex(jnp.cos(angle), jnp.sin(angle)), (len(kernel), angle.size))
    leak = leaks(params)[:, None]
    if scheme == "exact":
        phase = speeds(params, scheme)[:, None] * angle
        turning = jnp.where(2 * np.arange(angle.size)[None] == neurons, 0, jnp.sin(phase))
        return jax.lax.complex(leak * jnp.cos(phase), leak * turning)
    up, stay, down = jnp.moveaxis(taps(params, scheme), -1, 0)[..., None]
    return jax.lax.complex(stay + (up + down) * jnp.cos(angle), (down - up) * jnp.sin(angle))


def taps(params: Params, scheme: str) -> Array:
    """u ``(C, 3)`` with the leak in it, of the schemes that have three taps."""
    leak = leaks(params)[:, None]
    if scheme == "taps":
        return leak * jax.nn.softmax(params["taps"], axis=-1)
    return leak * _taps_of(speeds(params, scheme), scheme)


def speeds(params: Params, scheme: str) -> Array:
    """ν ``(C,)``, neurons a step against the index."""
    if scheme in UNIT:
        return jnp.ones(len(params["kernel"]), params["kernel"].dtype)
    if scheme == "taps":
        up, _, down = jnp.moveaxis(jax.nn.softmax(params["taps"], axis=-1), -1, 0)
        return down - up
    log_speed = params["log_speed"]
    # Taps reach one neuron far; beyond ν = 1 they would make waves that grow.
    return jnp.exp(log_speed if scheme == "exact" else jnp.minimum(log_speed, 0.0))


def leaks(params: Params) -> Array:
    """ρ ``(C,)``: the share of a wave that is left after a step."""
    if "log_decay" not in params:
        return jnp.ones(len(params["kernel"]), params["kernel"].dtype)
    return jnp.exp(-jnp.exp(params["log_decay"]))


def travel(params: Params, hidden: Array, scheme: str) -> Array:
    """U h."""
    down = jnp.roll(hidden, -1, axis=-1)
    if scheme == "shift":
        return down
    if scheme == "delay":
        return down.at[..., 0].set(0)
    if scheme == "exact":
        waves = jnp.fft.rfft(hidden)
        return jnp.fft.irfft(as_last(eigenvalues(params, scheme), waves) * waves, hidden.shape[-1])
    first, second, third = (as_last(tap[:, None], hidden) for tap in jnp.moveaxis(taps(params, scheme), -1, 0))
    return first * jnp.roll(hidden, 1, axis=-1) + second * hidden + third * down


def start_speeds(
    speed: float | Sequence[float] | Literal["log"], features: int, neurons: int, length: int
) -> np.ndarray:
    """ν of every feature at the start ``(C,)``, see :func:`wrnn_jax.cells.linear_wave`.

    Raises:
      ValueError: for what is not in (0, 1], or not one number a feature.
    """
    if isinstance(speed, str):
        require(speed == "log", "speed", speed, "a number, one for each feature, or log")
        return np.geomspace(1.0, min(1.0, neurons / length), features)
    several = isinstance(speed, Sequence | np.ndarray)
    numbers = list(speed) if several else [speed]
    require(not several or len(numbers) == features, "speed", speed, f"one number, or one for each of {features}")
    for number in numbers:
        require_positive("speed", number)
        require(number <= 1, "speed", speed, "above 0 and at most 1 neuron a step")
    return np.broadcast_to(np.array(numbers, float), features)


def start_of_travel(scheme: str, start: np.ndarray, decay: np.ndarray) -> Params:
    params = {"log_decay": jnp.asarray(np.log(decay), jnp.zeros(()).dtype)}
    if scheme == "taps":
        first = np.maximum(_taps_of(start, "upwind"), LEAST_TAP)
        return {"taps": jnp.asarray(np.log(first), jnp.zeros(()).dtype), **params}
    return {"log_speed": jnp.asarray(np.log(start), jnp.zeros(()).dtype), **params}


def as_last(array: Array, like: Array) -> Array:
    """With axes of size 1 before its own, as many as ``like`` has more."""
    return array.reshape((1,) * (like.ndim - array.ndim) + array.shape)


def _taps_of(speed: Array, scheme: str) -> Array:
    """``(C, 3)``, of h[i − 1], h[i], h[i + 1]."""
    xp = np if isinstance(speed, np.ndarray) else jnp
    if scheme == "upwind":
        return xp.stack([xp.zeros_like(speed), 1 - speed, speed], axis=-1)
    square = speed**2
    return xp.stack([(square - speed) / 2, 1 - square, (square + speed) / 2], axis=-1)
