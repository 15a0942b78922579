"""The compiled unroll equals a plain scan of the equation, in value and in every gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from wrnn_jax import cells, readouts, unroll
from wrnn_jax.cells.base import choose_backend
from wrnn_jax.kernels.fused import fused_unroll
from wrnn_jax.kernels.native import native_unroll
from wrnn_jax.readouts import with_readout
from wrnn_jax.validation import InvalidValue

pytestmark = pytest.mark.usefixtures("native_kernels")
SIGMA = {"relu": jax.nn.relu, "tanh": jnp.tanh, "identity": lambda z: z}


def definition(recurrence, encoder, readout_params, carry, xs, *, activation, readout, last):
    """The equation, step by step: h[b, o, i] ← σ(Σ_j Σ_k u[o, j, k] h[b, j, (i + k − K//2) mod N] + V x + b)."""

    def recur(h):
        if recurrence.ndim == 2:
            return h @ recurrence.T
        neurons, taps = h.shape[2], recurrence.shape[2]
        places = (jnp.arange(neurons)[:, None] + jnp.arange(taps)[None] - taps // 2) % neurons
        return jnp.einsum("ojk,bjik->boi", recurrence, h[:, :, places])

    def step(h, x):
        h = SIGMA[activation](recur(h) + jnp.tensordot(x, encoder["kernel"], axes=(-1, -1)) + encoder["bias"][None])
        y = h.reshape(h.shape[0], -1)
        if readout:
            y = y @ readout_params["output"]["kernel"].T + readout_params["output"]["bias"][None]
        return h, y

    carry, outputs = jax.lax.scan(step, carry, xs)
    return carry, outputs[-1] if last else outputs


def operands(seed, channels, neurons, taps, batch, steps, inputs, outputs):
    """Random ones; dense for ``taps=0``."""
    rng = np.random.default_rng(seed)

    def normal(*shape, scale=0.5):
        return jnp.asarray(scale * rng.normal(size=shape), np.float32)

    ring = (channels, neurons) if taps else (neurons,)
    kernel = normal(*((channels, channels, taps) if taps else (neurons, neurons)), scale=0.5 / (channels * (taps or 3)))
    readout = {"output": {"kernel": normal(outputs, np.prod(ring)), "bias": normal(outputs)}}
    encoder = {"kernel": normal(*ring, inputs), "bias": normal(*ring)}
    return kernel, encoder, readout, normal(batch, *ring), normal(steps, batch, inputs)


def assert_same(got, expected, tolerance=2e-5):
    def assert_near(a, b):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max(initial=0.0)))

    jax.tree.map(assert_near, got, expected)


def value_and_cotangents(unroll, args):
    """The value, and what random cotangents of carry and outputs pull back to."""

    @jax.jit
    def run(args):
        value, pull_back = jax.vjp(unroll, *args)
        rng = np.random.default_rng(1)
        cotangents = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), value)
        return value, pull_back(cotangents)

    return run(args)


def compare(args, expected=definition, **options):
    got = value_and_cotangents(partial(native_unroll, **options), args)
    assert_same(got, value_and_cotangents(partial(expected, **options), args))


# every example is compiled anew: few of them, and no shrinking
@settings(max_examples=4, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(data=st.data())
def test_value_and_every_gradient_for_random_shapes(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    taps = data.draw(st.sampled_from([0, 1, 3, 5]))
    neurons = draw(max(taps, 1), 11)
    args = operands(draw(0, 99), draw(1, 13), neurons, taps, draw(1, 40), draw(1, 12), draw(1, 9), draw(1, 14))
    compare(
        args,
        activation=data.draw(st.sampled_from(sorted(SIGMA))),
        readout=data.draw(st.sampled_from([None, "linear"])),
        last=data.draw(st.booleans()),
    )


@pytest.mark.parametrize(("activation", "taps"), [("relu", 3), ("tanh", 5), ("identity", 1), ("relu", 0)])
def test_each_activation_and_kernel_width(activation, taps):
    """With a last tile, segment and blocks that are not full."""
    compare(operands(0, 7, 10, taps, 19, 11, 7, 13), activation=activation, readout="linear", last=False)


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize(("readout", "last"), [("linear", True), (None, False), (None, True)])
def test_each_way_to_read(readout, last, steps):
    compare(operands(1, 2, 5, 3, 3, steps, 2, 2), activation="relu", readout=readout, last=last)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1, 1), (1, 3, 3, 16, 9, 1), (27, 6, 3, 16, 4, 20)])
def test_extreme_shapes(shape):
    compare(operands(2, *shape, 1), activation="tanh", readout="linear", last=False)


def test_equals_the_fused_unroll():
    """At the size of the copy task's network."""
    args = operands(3, 6, 100, 3, 32, 50, 10, 10)
    compare(args, fused_unroll, activation="relu", readout="linear", last=False)


def test_only_what_is_asked_for_is_differentiated():
    """The gradient in one operand is the same whether or not the others are constants."""
    args = operands(4, 2, 5, 3, 3, 7, 2, 2)
    options = {"activation": "relu", "readout": "linear", "last": False}
    for index in (0, 2, 4):
        for part in (0, 1):

            def loss(unroll, leaf, index=index, part=part):
                return jnp.sum(jnp.sin(unroll(*args[:index], leaf, *args[index + 1 :], **options)[part]))

            got, expected = (jax.jit(jax.grad(partial(loss, f)))(args[index]) for f in (native_unroll, definition))
            assert_same(got, expected)


def test_nan_is_not_swallowed():
    args = operands(5, 2, 5, 3, 3, 2, 2, 2)
    xs = args[-1].at[0, 1].set(jnp.nan)
    for activation in SIGMA:
        state, _ = native_unroll(*args[:-1], xs, activation=activation, readout=None, last=True)
        assert np.isnan(state).all(axis=(1, 2)).tolist() == [False, True, False]


@pytest.mark.parametrize("everything", [False, True])
def test_vmap(everything):
    """Over the parameters alone, and over parameters, carry and inputs."""
    members = [operands(seed, 2, 5, 3, 3, 7, 2, 2) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    args = stacked if everything else (*stacked[:3], *members[0][3:])
    axes = (0,) * 5 if everything else (0, 0, 0, None, None)
    options = {"activation": "relu", "readout": "linear", "last": False}
    got, expected = (
        value_and_cotangents(jax.vmap(partial(unroll, **options), in_axes=axes), args)
        for unroll in (native_unroll, definition)
    )
    assert_same(got, expected)


@pytest.mark.parametrize("check_vma", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_shard_map_over_the_batch(check_vma, last):
    """The batch halved over two devices, the gradients summed."""
    args = operands(8, 2, 5, 3, 4, 7, 2, 2)
    mesh = Mesh(jax.devices()[:2], ("batch",))
    specs = (P(), P(), P(), P("batch"), P(None, "batch"))

    def loss(unroll, *args):
        return jnp.sum(jnp.sin(unroll(*args, activation="relu", readout="linear", last=last)[1]))

    def gradients(*args):
        local = jax.grad(lambda params: loss(native_unroll, *params, *args[3:]))(args[:3])
        # With check_vma, the transpose of the parameters' broadcast is already the sum over devices.
        return local if check_vma else jax.lax.psum(local, "batch")

    sharded = jax.shard_map(gradients, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=check_vma)
    expected = jax.jit(jax.grad(lambda params: loss(definition, *params, *args[3:])))(args[:3])
    assert_same(jax.jit(sharded)(*args), expected)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("activation", {"activation": "swish"}),
        ("readout", {"readout": lambda params, states: states}),
        ("carry.dtype", {"carry": jnp.zeros((1, 1, 3), jnp.bfloat16)}),
        ("recurrence.shape", {"recurrence": jnp.zeros((1, 1, 5))}),
    ],
)
def test_refuses_what_it_does_not_take(field, change):
    names = ("recurrence", "encoder", "readout_params", "carry", "xs")
    given = dict(zip(names, operands(7, 1, 3, 3, 1, 2, 1, 1), strict=True))
    with pytest.raises(InvalidValue, match=field):
        native_unroll(**given | {"activation": "relu", "readout": None, "last": True} | change)


@pytest.mark.parametrize("outputs", ["all", "last"])
@pytest.mark.parametrize(
    "cell",
    [
        with_readout(cells.wave(2, 5, kernel_init="random", encoder_init="dense"), readouts.linear(3)),
        with_readout(cells.elman(4), readouts.mlp(3, 6)),
        with_readout(cells.elman(4, use_bias=False), readouts.linear(3, use_bias=False)),
    ],
    ids=["wave, linear", "elman, mlp", "no biases"],
)
def test_as_the_backend_of_a_cell(cell, outputs, random_params):
    """Which ``auto`` takes once it is built; the hidden layer of a readout is not its business."""
    params, xs = random_params(cell, 3, scale=0.5), jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 3)), "f4")

    def run(params, xs, backend):
        return unroll(cell, params, xs, outputs=outputs, backend=backend)[:2]

    got, expected = (value_and_cotangents(partial(run, backend=b), (params, xs)) for b in ("native", "scan"))
    assert_same(got, expected)
    assert choose_backend(cell) == "native"
    assert choose_backend(cell, dtype=jnp.bfloat16) == choose_backend(cell, batch=2) == "fused"
