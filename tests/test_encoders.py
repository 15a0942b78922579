"""Encoders with fewer weights: their equations, their starts, and that every way through time takes them as the dense
encoder that they stand for."""

import inspect
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrnn_jax import cells, unroll
from wrnn_jax.cells.encoders import KINDS, encoder
from wrnn_jax.interop import to_authors
from wrnn_jax.layers import Variables
from wrnn_jax.models import configure, count_parameters
from wrnn_jax.typing import Signature
from wrnn_jax.validation import InvalidValue

pytestmark = pytest.mark.usefixtures("native_kernels")
KEY = jax.random.key(0, impl="unsafe_rbg")  # Compiles several times faster than the default generator.
START = {"init": "sparse", "bias_init": "zeros"}
OPTIONS = {"dense": {}, "source": {}, "conv": {"taps": 3, "colors": 2}, "low-rank": {"rank": 2}}
over_kinds = pytest.mark.parametrize("kind", KINDS)
over_few = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dense"])
C, N, D = 2, 5, 8


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def named(options):
    """As :func:`wave` names them."""
    return {f"encoder_{name}": value for name, value in options.items()}


def drawn(init, *sizes, seed=0):
    """Parameters of that structure, none of them zero."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: init(key, *sizes), KEY)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)


def equation(kind, params, x, channels, neurons, colors=1):
    """e (C, N) of one input x (D,), term by term."""
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    bias, e = p["bias"], np.zeros((channels, neurons))
    for c in range(channels):
        if kind == "dense":
            for n in range(neurons):
                e[c, n] = sum(p["kernel"][c, n, i] * x[i] for i in range(len(x))) + bias[c, n]
        if kind == "source":
            e[c, 0] = sum(p["kernel"][c, i] * x[i] for i in range(len(x))) + bias[c]
        if kind == "low-rank":
            ranks = range(p["right"].shape[0])
            inner = [sum(p["right"][r, i] * x[i] for i in range(len(x))) for r in ranks]
            for n in range(neurons):
                e[c, n] = sum(p["left"][c, n, r] * inner[r] for r in ranks) + bias[c, n]
        if kind == "conv":
            pixels, taps = len(x) // colors, p["kernel"].shape[-1]
            for w in range(pixels):
                z = bias[c]
                for m in range(taps):
                    seen = w + m - taps // 2
                    if 0 <= seen < pixels:
                        z += sum(p["kernel"][c, s, m] * x[seen * colors + s] for s in range(colors))
                e[c, w * neurons // pixels] += z
    return e


@st.composite
def sized(draw):
    """(C, N, D, options by kind): more neurons than pixels, and fewer."""
    channels, neurons, colors, pixels = (draw(st.integers(1, most)) for most in (3, 9, 3, 7))
    taps = 2 * draw(st.integers(0, (pixels - 1) // 2)) + 1
    rank = draw(st.integers(1, min(channels * neurons, pixels * colors)))
    options = {"dense": {}, "source": {}, "conv": {"taps": taps, "colors": colors}, "low-rank": {"rank": rank}}
    return channels, neurons, pixels * colors, options


@given(sized())
@settings(max_examples=4)
def test_is_its_equation_and_the_dense_encoder_that_it_expands_to(sizes):
    channels, neurons, inputs, options = sizes
    xs = normal(2, inputs)
    for kind in KINDS:
        one = encoder(kind, channels, neurons, **options[kind], **START)
        params = drawn(one.init, inputs)
        colors = options[kind].get("colors", 1)
        expected = [equation(kind, params, x, channels, neurons, colors) for x in xs]
        np.testing.assert_allclose(one.apply(params, jnp.float32(xs)), expected, rtol=1e-4, atol=1e-4)
        V, b = (np.asarray(leaf, np.float64) for leaf in map(one.expand(params, inputs).get, ("kernel", "bias")))
        assert (V.shape, b.shape) == ((channels, neurons, inputs), (channels, neurons))
        np.testing.assert_allclose(np.einsum("cni,bi->bcn", V, xs) + b, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "use_bias"), [("source", False), ("conv", True), ("low-rank", True)])
def test_every_way_through_time_has_the_values_and_gradients_of_the_dense_one(kind, use_bias):
    """By the scan, which applies it in every step, and by the engines, which expand it once a sequence."""
    options = {"activation": "identity", "kernel_init": "random", "use_bias": use_bias}
    few, dense = cells.wave(C, N, encoder_kind=kind, **named(OPTIONS[kind]), **options), cells.wave(C, N, **options)
    expand = encoder(kind, C, N, **OPTIONS[kind], **START).expand
    params = jax.tree.map(lambda leaf: leaf / 4, drawn(few.init, D))
    xs, weights = jnp.float32(normal(9, 8, D)), jnp.float32(normal(9, 8, C * N))

    def loss(params, xs, cell, backend):
        return jnp.sum(weights * unroll(cell, params, xs, backend=backend).outputs)

    def of_dense(params, xs):
        return loss({**params, "encoder": expand(params["encoder"], D)}, xs, dense, "scan")

    @jax.jit
    def all_ways(params, xs):
        backends = ("scan", *few.engines.names)
        assert len(backends) == 4
        ways = [partial(loss, cell=few, backend=backend) for backend in backends]
        return [jax.value_and_grad(way, (0, 1))(params, xs) for way in (of_dense, *ways)]

    expected, *others = all_ways(params, xs)
    assert all(np.all(leaf != 0) for leaf in jax.tree.leaves(expected[1]))
    assert ("bias" in params["encoder"]) == use_bias
    for other in others:
        jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-4), other, expected)


def test_start_as_sources_of_waves():
    """From source and low rank, the paper's V-init itself; from the convolution, one source a pixel."""
    x = np.arange(1.0, D + 1, dtype=np.float32)
    V_init = encoder("dense", C, N, **START).init(KEY, D)
    for kind in ("source", "low-rank"):
        one = encoder(kind, C, N, **OPTIONS[kind], **START)
        params = one.init(KEY, D)
        jax.tree.map(np.testing.assert_array_equal, one.expand(params, D), V_init)
    assert np.all(params["right"][1:] != 0), "of further ranks what comes in, or they would never be learned"
    row = encoder("conv", C, N, **OPTIONS["conv"], **START)
    e = row.apply(row.init(KEY, D), x)
    np.testing.assert_allclose(e, np.tile([3, 7, 11, 15, 0], (C, 1)))  # Four pixels of two colours on five neurons.
    wide = encoder("conv", C, 9, **OPTIONS["conv"], **START)
    np.testing.assert_allclose(wide.apply(wide.init(KEY, D), x)[0], [3, 0, 7, 0, 11, 0, 15, 0, 0])
    narrow = encoder("conv", C, 2, **OPTIONS["conv"], **START)
    np.testing.assert_allclose(narrow.apply(narrow.init(KEY, D), x)[0], [3 + 7, 11 + 15])


@over_kinds
def test_random_starts_have_the_spread_of_the_dense_one(kind):
    """Of V's entries that are not 0 by construction: 0.001, or 1/√(3 fan-in)."""
    options = {"conv": {"taps": 5, "colors": 4}, "low-rank": {"rank": 10}}.get(kind, {})
    fan_in = 20 if kind == "conv" else 40
    for init, spread in (("dense", 1e-3), ("uniform", (3 * fan_in) ** -0.5)):
        one = encoder(kind, 40, 10, **options, init=init, bias_init="random")
        params = one.init(KEY, 40)
        V = np.asarray(one.expand(params, 40)["kernel"])
        V = V[V != 0]
        assert abs(np.mean(V)) < 0.1 * spread
        np.testing.assert_allclose(np.std(V), spread, rtol=0.1)
        assert np.max(np.abs(params["bias"])) <= fan_in**-0.5
        assert np.std(params["bias"]) > 0.3 * fan_in**-0.5
    sparse = encoder(kind, 40, 10, **options, init="sparse", bias_init="random")
    assert not np.any(sparse.init(KEY, 40)["bias"])


@over_kinds
def test_numbers_are_as_many_as_the_table_says(kind):
    (row,) = (line for line in inspect.getdoc(encoder).splitlines() if line.startswith(f"``{kind}``"))
    letters = {"C": C, "N": N, "D": D, "S": 2, "M": 3, "r": 2}
    side_by_side = r"(?<=[A-Za-z)])(?=[A-Za-z(])"
    expected = eval(re.sub(side_by_side, "*", row.split("  ")[-1].strip()), letters)
    params = encoder(kind, C, N, **OPTIONS[kind], **START).init(KEY, D)
    assert count_parameters(params) == expected


# In models


def built(inputs=12, colors=2, **fields):
    return configure("wrnn", n_hid=N, n_ch=C, **fields).build(Signature(inputs, 3, 4, "last", colors))


def test_the_task_tells_the_colours_of_a_pixel():
    def kernel(**options):
        return jax.eval_shape(built(encoder="conv", **options).init, KEY).params["cell"]["encoder"]["kernel"].shape

    assert kernel() == (C, 2, 3)
    assert kernel(colors=3, encoder_taps=1) == (C, 3, 1)
    assert kernel(encoder_colors=1) == (C, 1, 3)


@pytest.mark.parametrize(("kind", "named"), [("low-rank", {"encoder_rank": 8}), ("conv", {"encoder_taps": 3})])
def test_what_is_not_given_is_the_same_as_given(kind, named):
    assert configure("wrnn", encoder=kind) == configure("wrnn", encoder=kind, **named)


def test_later_layers_read_all_that_they_are_given():
    params = jax.eval_shape(built(encoder="source", n_layers=2).init, KEY).params["layers"]
    first, second = (params[index]["layer"]["encoder"]["kernel"].shape for index in "01")
    assert (first, second) == ((C, 12), (C, N, C * N))


@over_few
def test_a_frozen_encoder_has_no_gradient_and_does_not_decay(kind):
    model = built(encoder=kind, freeze_encoder=True)
    params = drawn(lambda key: model.init(key).params)
    xs = jnp.float32(normal(2, 4, 12))
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(model.apply(Variables(params), xs)[0] ** 2)))(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["cell"]["encoder"]))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient["cell"]["recurrence"]))
    assert model.decays(params) == {"cell": {"encoder": False, "recurrence": True}, "readout": True}


@over_few
def test_only_the_dense_one_goes_to_the_authors(kind):
    model = built(encoder=kind)
    allowed = "the parameters of a recurrent model, of a wave or dense cell and a dense encoder, with biases"
    with pytest.raises(InvalidValue, match=f"^params = .*: must be {allowed}$"):
        to_authors(model, model.init(KEY).params)


REFUSED = [
    ({"encoder_kind": "fft"}, "encoder_kind = 'fft': must be one of dense, source, conv, low-rank"),
    ({"encoder_rank": 2}, "encoder_rank = 2: must be left out unless encoder_kind = 'low-rank'"),
    ({"encoder_kind": "source", "encoder_taps": 3}, "encoder_taps = 3: must be left out unless encoder_kind = 'conv'"),
    ({"encoder_kind": "low-rank", "encoder_rank": 0}, "encoder_rank = 0: must be a whole number, 1 or more"),
    ({"encoder_kind": "low-rank", "encoder_rank": 7}, "encoder_rank = 7: must be at most 6, the lesser of C·N neurons"),
    ({"encoder_kind": "conv", "encoder_taps": 2}, "encoder_taps = 2: must be an odd number"),
    ({"encoder_kind": "conv", "encoder_taps": -1}, "encoder_taps = -1: must be a whole number, 1 or more"),
    ({"encoder_kind": "conv", "encoder_taps": 7}, "encoder_taps = 7: must be at most 6, the pixels of a row"),
    ({"encoder_kind": "conv", "encoder_colors": 4}, "encoder_colors = 4: must be a divisor of the 6 inputs of a step"),
]


@pytest.mark.parametrize(("options", "line"), REFUSED, ids=[line.split(":")[0] for _, line in REFUSED])
def test_bad_options_are_one_line(options, line):
    with pytest.raises(InvalidValue, match=re.escape(line)) as raised:
        cells.wave(C, N, **options).init(KEY, 6)
    assert "\n" not in str(raised.value)
    fields = {("encoder" if name == "encoder_kind" else name): value for name, value in options.items()}
    with pytest.raises(InvalidValue, match=re.escape(line.replace("encoder_kind", "encoder"))):
        built(6, 1, **fields).init(KEY)


def test_inputs_that_do_not_go_with_the_encoder_are_refused_by_its_option():
    cell = cells.wave(C, N, encoder_kind="conv", encoder_colors=2)
    with pytest.raises(InvalidValue, match=r"^encoder_colors = 2: must be a divisor of the 7 inputs of a step"):
        unroll(cell, cell.init(KEY, 6), jnp.zeros((2, 3, 7)))
