"""The parallel unroll of the linear wave equals the scan over its step, in value and in every gradient."""

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
from wrnn_jax.kernels.parallel import chunk_length, parallel_unroll

OUTPUTS = 3
READOUTS = {
    "none": (None, None),
    "linear": (readouts.linear(OUTPUTS), "linear"),
    "function": (readouts.linear(OUTPUTS), readouts.linear(OUTPUTS).apply),
    "mlp": (readouts.mlp(OUTPUTS, 4), readouts.mlp(OUTPUTS, 4).apply),
}
"""The readout for the scan, and how the kernel is told of it."""
# nearly all of a test's time is compilation
jit = partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)


def wave(channels, neurons, taps=3):
    return cells.wave(channels, neurons, taps, activation="identity", kernel_init="identity")


def scanned(params, readout_params, carry, xs, *, readout, last):
    """The definition; xs ``(T, B, D)``."""
    cell = wave(*carry.shape[1:], params["recurrence"]["kernel"].shape[2])
    if readout != "none":
        cell, params = readouts.with_readout(cell, READOUTS[readout][0]), {"cell": params, "readout": readout_params}
    options = {"outputs": "last" if last else "all", "time_major": True, "backend": "scan"}
    result = unroll(cell, params, xs, carry=carry, **options)
    return result.carry, result.outputs


def in_parallel(params, readout_params, carry, xs, *, readout, last):
    recurrence, encoder = params["recurrence"], params["encoder"]
    encoder = {"kernel": encoder["kernel"], "bias": recurrence["bias"][:, None] + encoder["bias"]}
    how = READOUTS[readout][1]
    return parallel_unroll(recurrence["kernel"], encoder, readout_params, carry, xs, readout=how, last=last)


@pytest.fixture(scope="module")
def operands(random_params):
    """Random ones, for a recurrence that neither grows nor fades fast."""

    def draw(readout, steps, channels=2, neurons=5, taps=3, batch=2, inputs=2, seed=0):
        cell = wave(channels, neurons, taps)
        params = random_params(cell, inputs, seed, scale=0.5)
        params["recurrence"]["kernel"] /= np.float32(np.sqrt(channels * taps) / 2)
        readout, _ = READOUTS[readout]
        readout_params = random_params(readout, cell.output_size, seed + 1, scale=0.5) if readout else ()
        rng = np.random.default_rng(seed)
        carry, xs = rng.normal(size=(batch, channels, neurons)), rng.normal(size=(steps, batch, inputs))
        return params, readout_params, jnp.asarray(carry, jnp.float32), jnp.asarray(xs, jnp.float32)

    return draw


def assert_same(got, expected, tolerance=1e-4):
    """``tolerance`` is of the largest number in each array."""

    def compare(a, b):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max(initial=0.0)))

    jax.tree.map(compare, got, expected)


def value_and_cotangents(function, args, seed=1):
    """The value, and what random cotangents of carry and outputs pull back to."""

    @jit
    def run(args):
        value, pull_back = jax.vjp(function, *args)
        rng = np.random.default_rng(seed)
        return value, pull_back(jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), value))

    return run(args)


def compare(args, tolerance=1e-4, **options):
    got, expected = (value_and_cotangents(partial(f, **options), args) for f in (in_parallel, scanned))
    assert_same(got, expected, tolerance)


# every example is compiled anew: few of them, and no shrinking
@settings(max_examples=5, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(data=st.data())
def test_value_and_every_gradient_for_random_shapes(operands, data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    readout = data.draw(st.sampled_from(sorted(READOUTS)))
    taps = data.draw(st.sampled_from([1, 3, 5]))
    sizes = {"steps": draw(1, 40), "channels": draw(1, 4), "neurons": draw(taps, 9), "batch": draw(1, 3)}
    args = operands(readout, taps=taps, inputs=draw(1, 3), seed=draw(0, 99), **sizes)
    compare(args, readout=readout, last=data.draw(st.booleans()))


@pytest.mark.parametrize(
    ("readout", "last"),
    [("none", False), ("linear", False), ("mlp", False), ("linear", True)],
)
def test_each_readout(operands, readout, last):
    """With a step left over before the chunks."""
    assert 23 % chunk_length(23) != 0
    compare(operands(readout, 23), readout=readout, last=last)


@pytest.mark.parametrize(
    ("steps", "channels", "neurons", "taps", "inputs"),
    [(1, 1, 1, 1, 1), (2, 2, 3, 3, 1), (9, 1, 1, 1, 1), (16, 2, 5, 5, 2), (36, 2, 4, 3, 20)],
    ids=["least", "two steps", "one neuron", "a tap a neuron", "many inputs"],
)
def test_extreme_shapes(operands, steps, channels, neurons, taps, inputs):
    args = operands("linear", steps, channels, neurons, taps, inputs=inputs)
    compare(args, readout="linear", last=False)


@pytest.mark.parametrize(("readout", "last"), [("linear", False), ("none", False)])
def test_forward_mode(operands, readout, last):
    args, tangents = operands(readout, 14), operands(readout, 14, seed=7)
    options = {"readout": readout, "last": last}
    got, expected = (
        jit(lambda args, tangents, f=f: jax.jvp(partial(f, **options), args, tangents))(args, tangents)
        for f in (in_parallel, scanned)
    )
    assert_same(got, expected)


def test_vmap_over_parameters(operands):
    members = [operands("linear", 14, seed=seed) for seed in range(3)]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[member[:2] for member in members])
    args = (*params, *members[0][2:])
    options = {"readout": "linear", "last": False}
    got, expected = (
        value_and_cotangents(jax.vmap(partial(f, **options), in_axes=(0, 0, None, None)), args)
        for f in (in_parallel, scanned)
    )
    assert_same(got, expected)


@pytest.mark.parametrize(("check_vma", "readout"), [(False, "linear"), (True, "none")])
def test_shard_map_over_the_batch(operands, check_vma, readout):
    """The batch halved over two devices, each with zeros of its own as the first carry, the gradients summed."""
    *params, carry, xs = operands(readout, 14, batch=4)
    params = tuple(params)

    def loss(f, params, carry, xs):
        return sum(jnp.sum(result**2) for result in f(*params, carry, xs, readout=readout, last=False))

    def gradients(params, xs):
        local = jax.grad(partial(loss, in_parallel))(params, jnp.zeros((xs.shape[1], *carry.shape[1:])), xs)
        # With check_vma, the transpose of the parameters' broadcast is already the sum over devices.
        return local if check_vma else jax.lax.psum(local, "batch")

    mesh, specs = Mesh(jax.devices()[:2], ("batch",)), (P(), P(None, "batch"))
    sharded = jax.shard_map(gradients, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=check_vma)
    expected = jit(jax.grad(partial(loss, scanned)))(params, jnp.zeros_like(carry), xs)
    assert_same(jit(sharded)(params, xs), expected)


@pytest.mark.parametrize("readout", ["linear", "none"])
def test_bfloat16(operands, readout):
    """Near the float32 result of the same rounded operands, and in bfloat16."""
    args = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), operands(readout, 14))
    options = {"readout": readout, "last": False}
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), args)
    expected = value_and_cotangents(partial(scanned, **options), wide)
    expected = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), expected)
    assert_same(value_and_cotangents(partial(in_parallel, **options), args), expected, tolerance=0.02)


def test_float64(operands):
    args = operands("linear", 14)
    with jax.enable_x64(True):
        args = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), args)
        compare(args, tolerance=1e-12, readout="linear", last=False)


def frequency_by_frequency(kernel, carry, drives):
    """The states ``(T, C, N)``, in float64: ĥ_{t+1}(f) = Û(f) ĥ_t(f) + d̂_t(f)."""
    neurons, taps = carry.shape[-1], kernel.shape[-1]
    angles = 2j * np.pi * np.outer(np.arange(neurons // 2 + 1), np.arange(taps) - taps // 2) / neurons
    power = np.einsum("ojk,fk->foj", kernel, np.exp(angles))
    state, states = np.fft.rfft(carry).T, []
    for drive in np.fft.rfft(drives).swapaxes(1, 2):
        state = np.einsum("foj,fj->fo", power, state) + drive
        states.append(state.T)
    return np.fft.irfft(np.array(states), neurons)


def kernel_of_radius_1(kind, channels, neurons):
    if kind == "shift":
        return np.eye(channels)[:, :, None] * np.array([0.0, 0.0, 1.0])
    kernel = np.random.default_rng(0).normal(size=(channels, channels, 3))
    angles = 2j * np.pi * np.outer(np.arange(neurons // 2 + 1), np.arange(-1, 2)) / neurons
    transfer = np.einsum("ojk,fk->foj", kernel, np.exp(angles))
    return kernel / np.abs(np.linalg.eigvals(transfer)).max()


@pytest.mark.parametrize("kind", ["shift", "random"])
@pytest.mark.parametrize("steps", [100, 1_000, 10_000])
def test_error_grows_as_the_square_root(kind, steps):
    """At most ε √T of the largest state, at every step: of waves left alone, and of driven ones."""
    channels, neurons = 2, 23
    rng = np.random.default_rng(1)
    carry, drives = rng.normal(size=(2, channels, neurons)), rng.normal(size=(steps, channels))
    # input c is added to position 0 of ring c
    kernel, encoder = kernel_of_radius_1(kind, channels, neurons), np.zeros((channels, neurons, channels))
    encoder[range(channels), 0, range(channels)] = 1.0
    xs = np.stack([np.zeros_like(drives), drives], 1)
    operands = kernel, {"kernel": encoder, "bias": encoder[:, :, 0] * 0}, (), carry, xs
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), operands)
    results = [jit(partial(parallel_unroll, readout=None, last=last))(*single) for last in (False, True)]
    kernel, _, _, carry, xs = jax.tree.map(np.float64, single)
    (after_all, states), (after_last, _) = jax.tree.map(np.float64, results)
    for member in range(2):
        expected = frequency_by_frequency(kernel, carry[member], np.einsum("cnd,td->tcn", encoder, xs[:, member]))
        bound = np.finfo(np.float32).eps * np.sqrt(steps) * np.abs(expected).max()
        assert np.abs(states[:, member].reshape(expected.shape) - expected).max() < bound
        for state in (after_all, after_last):
            assert np.abs(state[member] - expected[-1]).max() < bound


def test_gradients_through_many_steps(operands):
    """Through which the start, a shift, neither grows nor fades."""
    params, *others = operands("linear", 1_000, neurons=7, inputs=1)
    params["recurrence"]["kernel"] = jnp.asarray(kernel_of_radius_1("shift", 2, 7), jnp.float32)
    compare((params, *others), readout="linear", last=False)


def test_a_shift_carries_a_pulse_around_the_ring():
    """One neuron a step, against the index, undistorted."""
    steps, neurons = 1_000, 97
    cell = cells.wave(1, neurons, activation="identity")
    params = cell.init(jax.random.key(0), 1)
    carry = jnp.zeros((1, 1, neurons)).at[0, 0, 5].set(1.0)
    _, states = jit(partial(in_parallel, readout="none", last=False))(params, (), carry, jnp.zeros((steps, 1, 1)))
    expected = np.eye(neurons)[(5 - np.arange(1, steps + 1)) % neurons]
    np.testing.assert_allclose(states[:, 0], expected, atol=2e-6)


@pytest.mark.parametrize("last", [False, True])
def test_stored_activations_grow_as_the_square_root(operands, last):
    """About √T states are stored: on large rings, all else is little."""

    def stored(steps):
        args = operands("linear", steps, neurons=400, inputs=1)
        f = partial(in_parallel, readout="linear", last=last)
        _, residuals = jax.eval_shape(lambda *args: jax.vjp(f, *args), *args)
        return sum(leaf.size for leaf in jax.tree.leaves(residuals))

    assert stored(10_000) < 13 * stored(100)
