"""The fused unroll equals a plain scan of the equation, in value and in every gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from wrnn_jax.kernels.fused import STORED_BYTES, TILE, default_segment, fused_unroll

SIGMA = {"relu": jax.nn.relu, "tanh": jnp.tanh, "identity": lambda z: z}


def linear(params, states):
    return states @ params["output"]["kernel"].T + params["output"]["bias"][None]


def mlp(params, states):
    return linear(params, jnp.tanh(states @ params["hidden"].T))


READOUTS = {"none": None, "function": linear, "linear": "linear", "mlp": mlp}


def definition(recurrence, encoder, readout_params, carry, xs, *, activation, readout, last):
    """The equation, step by step: h[b, o, i] ← σ(Σ_j Σ_k u[o, j, k] h[b, j, (i + k − K//2) mod N] + V x + b)."""

    def recur(h):
        if recurrence.ndim == 2:
            return h @ recurrence.T
        taps = recurrence.shape[2]
        shifted = [jnp.roll(h, taps // 2 - k, axis=-1) for k in range(taps)]
        return sum(jnp.einsum("oj,bjn->bon", recurrence[:, :, k], shifted[k]) for k in range(taps))

    def step(h, x):
        h = SIGMA[activation](recur(h) + jnp.tensordot(x, encoder["kernel"], axes=(-1, -1)) + encoder["bias"][None])
        y = h.reshape(h.shape[0], -1)
        return h, y if readout is None else (linear if readout == "linear" else readout)(readout_params, y)

    carry, outputs = jax.lax.scan(step, carry, xs)
    return carry, outputs[-1] if last else outputs


def operands(seed, channels, neurons, taps, batch, steps, inputs, outputs, dtype=jnp.float32):
    """Random ones; dense for ``taps=0``."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(0.5 * rng.normal(size=shape), dtype)

    ring = (channels, neurons) if taps else (neurons,)
    fan_in = channels * taps if taps else neurons
    kernel = normal(channels, channels, taps) if taps else normal(neurons, neurons)
    size = channels * neurons if taps else neurons
    readout = {"hidden": normal(size, size), "output": {"kernel": normal(outputs, size), "bias": normal(outputs)}}
    encoder = {"kernel": normal(*ring, inputs), "bias": normal(*ring)}
    return kernel / np.sqrt(fan_in).astype(dtype), encoder, readout, normal(batch, *ring), normal(steps, batch, inputs)


def assert_same(got, expected, tolerance=2e-4):
    jax.tree.map(lambda a, b: assert_near(a, b, tolerance), got, expected)


def assert_near(a, b, tolerance):
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    np.testing.assert_allclose(a, b, atol=tolerance * max(1.0, np.abs(b).max(initial=0.0)))


def value_and_cotangents(unroll, args, seed=1):
    """The value, and what random cotangents of carry and outputs pull back to."""

    # nearly all of a test's time is compilation
    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True})
    def run(args):
        value, pull_back = jax.vjp(unroll, *args)
        rng = np.random.default_rng(seed)
        cotangents = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), value)
        return value, pull_back(cotangents)

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        return run(args)


def compare(args, segment=None, tolerance=2e-4, **options):
    got = value_and_cotangents(lambda *args: fused_unroll(*args, segment=segment, **options), args)
    assert_same(got, value_and_cotangents(lambda *args: definition(*args, **options), args), tolerance)


# every example is compiled anew: few of them, and no shrinking
@settings(max_examples=5, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(data=st.data())
def test_value_and_every_gradient_for_random_shapes(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    taps = data.draw(st.sampled_from([0, 1, 3, 5]))
    neurons = draw(max(taps, 1), 9)
    steps = draw(1, 12)
    args = operands(draw(0, 99), draw(1, 4), neurons, taps, draw(1, 3), steps, draw(1, 3), draw(1, 3))
    compare(
        args,
        segment=data.draw(st.sampled_from([None, 1, 2, 5, 20])),
        activation=data.draw(st.sampled_from(sorted(SIGMA))),
        readout=READOUTS[data.draw(st.sampled_from(sorted(READOUTS)))],
        last=data.draw(st.booleans()),
    )


@pytest.mark.parametrize(("activation", "taps"), [("relu", 0), ("relu", 3), ("tanh", 5), ("identity", 0)])
def test_each_activation(activation, taps):
    args = operands(0, 3, 7, taps, 4, 11, 2, 3)
    compare(args, segment=4, activation=activation, readout="linear", last=False)


@pytest.mark.parametrize(
    ("readout", "last"), [("none", False), ("function", False), ("mlp", False), ("mlp", True), ("linear", True)]
)
def test_each_readout(readout, last):
    compare(operands(1, 2, 5, 3, 3, 7, 2, 2), segment=3, activation="tanh", readout=READOUTS[readout], last=last)


@pytest.mark.parametrize(("channels", "neurons", "taps", "inputs"), [(1, 5, 5, 1), (2, 1, 1, 1), (2, 3, 3, 20)])
def test_extreme_shapes(channels, neurons, taps, inputs):
    args = operands(2, channels, neurons, taps, 2, 6, inputs, 1)
    compare(args, segment=4, activation="tanh", readout="linear", last=False)


def test_only_what_is_asked_for_is_differentiated():
    """The gradient in one operand is the same whether or not the others are constants."""
    args = operands(3, 2, 5, 3, 3, 7, 2, 2)
    options = {"activation": "relu", "readout": linear, "last": False}
    for index in (0, 4):

        def loss(unroll, leaf, index=index):
            carry, _ = unroll(*args[:index], leaf, *args[index + 1 :], **options)
            return jnp.sum(jnp.sin(carry))

        got = jax.jit(jax.grad(lambda leaf: loss(fused_unroll, leaf)))(args[index])
        assert_same(got, jax.jit(jax.grad(lambda leaf: loss(definition, leaf)))(args[index]))


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
        for unroll in (fused_unroll, definition)
    )
    assert_same(got, expected)


def test_bfloat16():
    """Near the float32 result of the same rounded operands, and in the dtypes of the operands."""
    args = operands(5, 2, 8, 3, 4, 12, 2, 2, jnp.bfloat16)
    options = {"activation": "tanh", "readout": linear, "last": False}
    got = value_and_cotangents(lambda *args: fused_unroll(*args, **options), args)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), args)
    expected = value_and_cotangents(lambda *args: definition(*args, **options), wide)
    assert_same(got, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), expected), tolerance=0.05)


@pytest.mark.parametrize(("readout", "last"), [("linear", False), (None, True)])
def test_a_batch_of_several_tiles(readout, last):
    args = operands(10, 2, 5, 3, 2 * TILE, 5, 2, 2)
    compare(args, activation="tanh", readout=readout, last=last)


def test_stored_activations_grow_as_the_square_root():
    """What the backward pass keeps besides operands and outputs: T / S states, and S while it runs."""
    batch = 8191  # no whole number of tiles
    state_bytes = batch * 2 * 16 * 4

    def kept_bytes(steps):
        args = operands(6, 2, 16, 3, 1, 1, 1, 1)
        state, xs = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in [(batch, 2, 16), (steps, batch, 1)])
        options = {"activation": "relu", "readout": "linear", "last": True}
        _, residuals = jax.eval_shape(
            lambda *args: jax.vjp(lambda *args: fused_unroll(*args, **options), *args), *args[:3], state, xs
        )
        stored = max(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(residuals) if leaf.ndim == 4)
        return stored + default_segment(steps, state_bytes) * state_bytes

    assert kept_bytes(10) <= 11 * state_bytes  # all of them: there is room
    for steps in (100, 10_000, 90_000):
        assert kept_bytes(steps) <= max(STORED_BYTES, steps**0.5 * state_bytes) + (steps**0.5 + 2) * state_bytes


def test_refuses_unknown_options():
    args = operands(7, 1, 3, 3, 1, 2, 1, 1)
    with pytest.raises(ValueError, match="activation"):
        fused_unroll(*args, activation="swish", readout=None, last=True)
    with pytest.raises(ValueError, match="segment"):
        fused_unroll(*args, activation="relu", readout=None, last=True, segment=0)


@pytest.mark.parametrize("check_vma", [False, True])
def test_shard_map_over_the_batch(check_vma):
    """The batch halved over two devices, the gradients summed."""
    args = operands(8, 2, 5, 3, 4, 7, 2, 2)
    mesh = Mesh(jax.devices()[:2], ("batch",))
    specs = (P(), P(), P(), P("batch"), P(None, "batch"))

    def loss(unroll, *args):
        return jnp.sum(jnp.sin(unroll(*args, activation="relu", readout="linear", last=False)[1]))

    def gradients(*args):
        local = jax.grad(lambda params: loss(fused_unroll, *params, *args[3:]))(args[:3])
        # With check_vma, the transpose of the parameters' broadcast is already the sum over devices.
        return local if check_vma else jax.lax.psum(local, "batch")

    sharded = jax.shard_map(gradients, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=check_vma)
    expected = jax.jit(jax.grad(lambda params: loss(definition, *params, *args[3:])))(args[:3])
    assert_same(jax.jit(sharded)(*args), expected)
