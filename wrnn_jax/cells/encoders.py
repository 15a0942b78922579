"""Encoders: how the inputs of a step come onto the rings, with a weight for every neuron and input, or with fewer."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from wrnn_jax.cells.parts import PRECISION, affine, uniform_fan_in
from wrnn_jax.typing import Array, Key, Params, Shape
from wrnn_jax.validation import require, require_choice, require_integer

KINDS = ("dense", "source", "conv", "low-rank")
OPTIONS = {"encoder_rank": ("low-rank", 8), "encoder_taps": ("conv", 3), "encoder_colors": ("conv", 1)}
"""Option -> the kind that has it, and what it is if not given."""


class Encoder(NamedTuple):
    """e = V x + b_V as pure functions of its own parameters, with or without a ``"bias"``.

    ======================  ==========================================================================================
    ``init(key, D)``        -> params
    ``apply(params, x)``    x ``(*batch, D)`` -> e ``(*batch, C, N)``
    ``expand(params, D)``   -> ``{"kernel": V (C, N, D), "bias": b_V (C, N)}``: the dense encoder that gives the same e,
                            for loops over time that know no other
    ======================  ==========================================================================================
    """

    init: Callable[[Key, int], Params]
    apply: Callable[[Params, Array], Array]
    expand: Callable[[Params, int], Params]


def encoder(
    kind: Literal["dense", "source", "conv", "low-rank"],
    channels: int,
    neurons: int,
    *,
    init: Literal["sparse", "dense", "uniform"],
    bias_init: Literal["zeros", "random"],
    rank: int | None = None,
    taps: int | None = None,
    colors: int | None = None,
) -> Encoder:
    """The encoder of that kind: :func:`dense`, :func:`source`, :func:`conv` or :func:`low_rank`, whose options the
    arguments are. Errors name them as :func:`wrnn_jax.cells.wave` does.

    ============  =====================================================  ================
    kind          what is trained                                        numbers
    ============  =====================================================  ================
    ``dense``     ``kernel (C, N, D)``, ``bias (C, N)``                  CN(D + 1)
    ``source``    ``kernel (C, D)``, ``bias (C,)``                       C(D + 1)
    ``conv``      ``kernel (C, S, M)``, ``bias (C,)``                    C(SM + 1)
    ``low-rank``  ``left (C, N, r)``, ``right (r, D)``, ``bias (C, N)``  r(CN + D) + CN
    ============  =====================================================  ================

    Raises:
      InvalidValue: for another kind, an option of another kind, or a bad one.
    """
    require_choice("encoder_kind", kind, KINDS)
    options = {"encoder_rank": rank, "encoder_taps": taps, "encoder_colors": colors}
    for name, (of, usual) in OPTIONS.items():
        value = options[name]
        require(value is None or kind == of, name, value, f"left out unless encoder_kind = {of!r}")
        options[name] = usual if value is None else value
        require_integer(name, options[name], at_least=1)
    start = {"init": init, "bias_init": bias_init}
    if kind == "low-rank":
        return low_rank(channels, neurons, options["encoder_rank"], **start)
    if kind == "conv":
        return conv(channels, neurons, options["encoder_taps"], options["encoder_colors"], **start)
    return {"dense": dense, "source": source}[kind](channels, neurons, **start)


def dense(channels: int, neurons: int, *, init: str, bias_init: str) -> Encoder:
    """A weight for every neuron and input::

        e[c, n] = Σ_i V[c, n, i] x[i] + b[c, n]

    Args:
      init: ``"sparse"`` (the paper's V-init): V is zero but for position 0 of every channel, which has weight 1 from
        every input: one source a channel, where waves are launched. ``"dense"``: normal with standard deviation 0.001.
        ``"uniform"``: U(−1/√D, 1/√D), as a linear layer of the authors' framework starts.
      bias_init: b is 0, or with ``"random"``, and V not sparse, U(−1/√D, 1/√D), as they leave it.

    Source: Keller et al. 2024, section 2.2, "Initialization".
    """

    def start(key: Key, input_size: int) -> Params:
        sparse = jnp.zeros((channels, neurons, input_size)).at[:, 0].set(1.0)
        return _started(key, sparse, (channels, neurons), input_size, init, bias_init)

    return Encoder(_checked(start), affine, lambda params, input_size: params)


def source(channels: int, neurons: int, *, init: str, bias_init: str) -> Encoder:
    """Inputs reach position 0 of every ring alone, where the paper's V-init has its sources, and are trained there::

        e[c, 0] = Σ_i v[c, i] x[i] + b[c],     e[c, n] = 0 for n > 0

    ``init`` and ``bias_init`` as in :func:`dense`, of v and b: from ``"sparse"``, where v is 1, it begins as the dense
    encoder does.
    """

    def start(key: Key, input_size: int) -> Params:
        return _started(key, jnp.ones((channels, input_size)), (channels,), input_size, init, bias_init)

    def apply(params: Params, x: Array) -> Array:
        return jnp.pad(affine(params, x)[..., None], [(0, 0)] * x.ndim + [(0, neurons - 1)])

    return _structured(start, apply)


def conv(channels: int, neurons: int, taps: int, colors: int, *, init: str, bias_init: str) -> Encoder:
    """A convolution over the row of W pixels of S colours that is a step's input, ``x (D,)`` being ``(W, S)``, laid
    along each ring from its position 0 on::

        z[c, w] = Σ_s Σ_m κ[c, s, m] x[w + m − ⌊M/2⌋, s] + b[c],     x = 0 beyond the ends of the row
        e[c, n] = Σ_w [p(w) = n] z[c, w],     p(w) = ⌊w N / W⌋

    So W ≤ N pixels launch W waves, from neurons that stand N/W apart, and nothing comes onto those between; of more
    pixels than neurons neighbours share a neuron, and add up.

    Args:
      taps: M, odd, at most W.
      colors: S, the colours of a pixel, which stand side by side in x; D is a multiple of it.
      init: ``"sparse"``: 1 from each colour of the pixel itself, 0 from its neighbours; ``"dense"`` and ``"uniform"``
        as in :func:`dense`, but U(−1/√(SM), 1/√(SM)), and so the bias for ``bias_init="random"``.

    Raises:
      InvalidValue: for even taps; from ``init``, for more taps than pixels, or inputs that are no whole pixels.
    """
    require(taps % 2 == 1, "encoder_taps", taps, "an odd number")

    def start(key: Key, input_size: int) -> Params:
        require(input_size % colors == 0, "encoder_colors", colors, f"a divisor of the {input_size} inputs of a step")
        pixels = input_size // colors
        require(taps <= pixels, "encoder_taps", taps, f"at most {pixels}, the pixels of a row")
        sparse = jnp.zeros((channels, colors, taps)).at[:, :, taps // 2].set(1.0)
        return _started(key, sparse, (channels,), colors * taps, init, bias_init)

    def apply(params: Params, x: Array) -> Array:
        pixels = x.shape[-1] // colors
        row = jnp.swapaxes(x.reshape(-1, pixels, colors), 1, 2)
        seen = lax.conv_general_dilated(row, params["kernel"], (1,), "SAME", precision=PRECISION)
        seen = seen.reshape(*x.shape[:-1], channels, pixels)
        if "bias" in params:
            seen += params["bias"].reshape((1,) * (x.ndim - 1) + (channels, 1))
        # A product, for several pixels may have one place, and where they add up in no order runs are not repeated.
        places = np.arange(pixels) * neurons // pixels
        return jnp.matmul(seen, jnp.asarray(places[:, None] == np.arange(neurons), x.dtype), precision=PRECISION)

    return _structured(start, apply)


def low_rank(channels: int, neurons: int, rank: int, *, init: str, bias_init: str) -> Encoder:
    """V = A B of rank r::

        e[c, n] = Σ_ρ A[c, n, ρ] Σ_i B[ρ, i] x[i] + b[c, n]

    Args:
      rank: r, at most the lesser of C·N and D.
      init: ``"sparse"``: V is the sparse one of :func:`dense`. Of the first rank A is 1 at position 0 of every channel,
        else 0, and B is 1; of the others A is 0, and B is U(−1/√D, 1/√D), so that they can be learned.
        ``"dense"`` and ``"uniform"``: B as the rows of V there, A normal with variance 1/r: so the entries of V have
        the mean and the variance that they have there.
      bias_init: of b, as in :func:`dense`.

    Raises:
      InvalidValue: from ``init``, for a rank that no such V has.
    """

    def start(key: Key, input_size: int) -> Params:
        most = min(channels * neurons, input_size)
        require(rank <= most, "encoder_rank", rank, f"at most {most}, the lesser of C·N neurons and D inputs")
        left_key, right_key, bias_key = jax.random.split(key, 3)
        shape = (channels, neurons, rank)
        if init == "sparse":
            left = jnp.zeros(shape).at[:, 0, 0].set(1.0)
            right = uniform_fan_in(right_key, (rank, input_size), input_size).at[0].set(1.0)
        else:
            left = rank**-0.5 * jax.random.normal(left_key, shape)
            right = _random_kernel(right_key, (rank, input_size), input_size, init)
        bias = _bias(bias_key, shape[:-1], input_size, init, bias_init)
        return {"left": left, "right": right, "bias": bias}

    def apply(params: Params, x: Array) -> Array:
        inner = affine({"kernel": params["right"]}, x)
        bias = {"bias": params["bias"]} if "bias" in params else {}
        return affine({"kernel": params["left"], **bias}, inner)

    return _structured(start, apply)


def _structured(start: Callable[[Key, int], Params], apply: Callable[[Params, Array], Array]) -> Encoder:
    """The encoder of such an ``apply``, expanded by it: column i of V is what it makes of the unit vector of input i,
    and b_V what it makes of nothing."""

    def expand(params: Params, input_size: int) -> Params:
        weights = {name: leaf for name, leaf in params.items() if name != "bias"}
        units = jnp.eye(input_size, dtype=jax.tree.leaves(weights)[0].dtype)
        expanded = {"kernel": jnp.moveaxis(apply(weights, units), 0, -1)}
        return {**expanded, "bias": apply(params, jnp.zeros_like(units[0]))} if "bias" in params else expanded

    return Encoder(_checked(start), apply, expand)


def _checked(start: Callable[[Key, int], Params]) -> Callable[[Key, int], Params]:
    def init(key: Key, input_size: int) -> Params:
        require_integer("input_size", input_size, at_least=1)
        return start(key, input_size)

    return init


def _started(key: Key, sparse: Array, bias_shape: Shape, fan_in: int, init: str, bias_init: str) -> Params:
    """A kernel and its bias; ``sparse`` is what the kernel starts as for ``"sparse"``."""
    kernel_key, bias_key = jax.random.split(key)
    kernel = sparse if init == "sparse" else _random_kernel(kernel_key, sparse.shape, fan_in, init)
    return {"kernel": kernel, "bias": _bias(bias_key, bias_shape, fan_in, init, bias_init)}


def _random_kernel(key: Key, shape: Shape, fan_in: int, init: str) -> Array:
    return uniform_fan_in(key, shape, fan_in) if init == "uniform" else 0.001 * jax.random.normal(key, shape)


def _bias(key: Key, shape: Shape, fan_in: int, init: str, bias_init: str) -> Array:
    is_random = bias_init == "random" and init != "sparse"
    return uniform_fan_in(key, shape, fan_in) if is_random else jnp.zeros(shape)
