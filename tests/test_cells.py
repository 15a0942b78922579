"""The cells' mathematics: against dense matrices, NumPy transcriptions, invariants and finite differences."""

import itertools
import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from wrnn_jax.cells import elman, irnn, unroll, wave
from wrnn_jax.cells.wave import shift_kernel, wave_speeds

KEY = jax.random.key(0, impl="unsafe_rbg")  # Compiles several times faster than the default generator.
NUMPY_ACTIVATIONS = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh, "identity": lambda z: z}
# Every variant of the recurrence, as a function of channels, neurons (and taps for the wave).
WAVES = {"roll": wave, "conv": partial(wave, form="conv"), "local": partial(wave, local=True)}
over_waves = pytest.mark.parametrize("make", WAVES.values(), ids=WAVES)
over_activations = pytest.mark.parametrize("activation", NUMPY_ACTIVATIONS)


@st.composite
def ring_shapes(draw):
    """(channels, neurons, taps): taps any odd number up to neurons."""
    neurons = draw(st.integers(1, 8))
    return draw(st.integers(1, 4)), neurons, 2 * draw(st.integers(0, (neurons - 1) // 2)) + 1


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def init(cell, input_size=1):
    return jax.jit(cell.init, static_argnums=1)(KEY, input_size)


def step(cell, params, carry, x):
    return jax.jit(cell.step)(params, carry, x)  # One compilation; eagerly each operation would have its own.


def matrix_of(cell, params):
    """The matrix of one step without input: column m is the step of the m-th unit vector."""
    unit_states = np.eye(cell.output_size, dtype=np.float32).reshape(-1, *cell.initial_carry().shape)
    return np.asarray(step(cell, params, unit_states, np.zeros((cell.output_size, 1)))[1]).T


def circulant(kernel, neurons):
    """The block-circulant matrix of a kernel (C, C, K): a sum of shifted identities."""
    half = kernel.shape[-1] // 2
    shifts = (np.roll(np.eye(neurons), k - half, axis=1) for k in range(kernel.shape[-1]))
    return sum(np.kron(kernel[:, :, k], shift) for k, shift in enumerate(shifts))


def numpy_wave_step(params, activation, hidden, x):
    """Equation 3 for one state (C, N) and one input (D,), index by index; the kernel may be tied or untied."""
    V, b_V = (np.asarray(params["encoder"][name], np.float64) for name in ("kernel", "bias"))
    u, b_u = (np.asarray(params["recurrence"][name], np.float64) for name in ("kernel", "bias"))
    (channels, neurons), taps = hidden.shape, u.shape[-1]
    new = np.empty((channels, neurons))
    for o, i in itertools.product(range(channels), range(neurons)):
        z = (b_u[o, i] if b_u.ndim == 2 else b_u[o]) + b_V[o, i]
        for j, k in itertools.product(range(channels), range(taps)):
            z += (u[o, j, i, k] if u.ndim == 4 else u[o, j, k]) * hidden[j, (i + k - taps // 2) % neurons]
        for d in range(len(x)):
            z += V[o, i, d] * x[d]
        new[o, i] = NUMPY_ACTIVATIONS[activation](z)
    return new


@settings(max_examples=6)
@given(shape=ring_shapes(), batch=st.lists(st.integers(1, 3), max_size=2))
def test_every_form_is_the_circulant_matrix(shape, batch):
    """roll, conv, and local with one kernel at every position: all are the dense (C·N, C·N) matrix of the kernel."""
    channels, neurons, taps = shape
    kernel, hidden = normal(channels, channels, taps), normal(*batch, channels, neurons)
    untied = np.broadcast_to(kernel[:, :, None], (channels, channels, neurons, taps))
    expected = (hidden.reshape(*batch, -1) @ circulant(kernel, neurons).T).reshape(hidden.shape)
    cells = {name: make(*shape, kernel_init="random", activation="identity") for name, make in WAVES.items()}

    @jax.jit
    def all_forms(hidden):
        def recur(name, cell):
            params = jax.tree.map(jnp.zeros_like, cell.init(KEY, 1))
            params["recurrence"]["kernel"] = jnp.asarray(untied if name == "local" else kernel)
            return cell.step(params, hidden, jnp.zeros((*batch, 1)))[0]

        return [recur(*item) for item in cells.items()]

    for result in all_forms(hidden):
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_published_kernel_is_the_discretised_wave_equation():
    """u = [0, 1 − ν, ν] keeps the share 1 − ν in place and takes ν from the neighbour above, in each channel alone."""
    speeds, neurons = (0.3, 1.0, 0.0, -0.25), 7
    params = init(wave(4, neurons, speed=speeds))
    (down, whole, still, up) = (np.array(u, np.float32) for u in ([0, 0.7, 0.3], [0, 0, 1], [0, 1, 0], [0.25, 0.75, 0]))
    kernel = np.zeros((4, 4, 3), np.float32)
    kernel[range(4), range(4)] = down, whole, still, up
    np.testing.assert_allclose(params["recurrence"]["kernel"], kernel, rtol=1e-6)
    np.testing.assert_array_equal(params["recurrence"]["kernel"][1, 1], whole)  # To the bit.
    sigma = 0.7 * np.eye(neurons) + 0.3 * np.eye(neurons, k=1)
    sigma[-1, 0] = 0.3
    np.testing.assert_allclose(circulant(kernel[:1, :1], neurons), sigma, rtol=1e-6)
    untied = init(wave(4, neurons, speed=speeds, local=True))["recurrence"]["kernel"]
    np.testing.assert_allclose(untied, np.broadcast_to(kernel[:, :, None], untied.shape), rtol=1e-6)


@pytest.mark.parametrize("speed", [0.0, 0.3, 1.0, 1.75, -2.4, 3.0])
def test_a_pulse_travels_at_the_speed_and_spreads_by_its_fraction(speed):
    """After t steps: mass 1, mean −νt (against the index), variance φ(1 − φ)t; a whole speed keeps the pulse whole."""
    taps, neurons, steps = 7, 41, 5
    kernel = shift_kernel(np.array([speed]), taps)
    assert np.count_nonzero(kernel) == (1 if speed % 1 == 0 else 2)
    pulse = np.linalg.matrix_power(circulant(kernel[None], neurons), steps)[:, 0]
    positions = (np.arange(neurons) + neurons // 2) % neurons - neurons // 2  # Of a ring around the pulse's start.
    mean = pulse @ positions
    assert pulse.sum() == pytest.approx(1)
    assert mean == pytest.approx(-speed * steps)
    assert pulse @ (positions - mean) ** 2 == pytest.approx(speed % 1 * (1 - speed % 1) * steps)


def test_speeds_over_channels():
    np.testing.assert_allclose(wave_speeds("log", 3, 5), [0.2, 0.2 * 10**0.5, 2])
    np.testing.assert_array_equal(wave_speeds("log", 1, 3), [1])
    np.testing.assert_array_equal(wave_speeds(0.5, 2, 3), [0.5, 0.5])
    assert wave_speeds(0.5, 2**31 - 1, 3)[-1] == 0.5  # Nothing of that size is made.
    for speed, allowed in {
        1.5: "from -1 to 1 with 3 taps; it needs 5",
        -2: "from -1 to 1 with 3 taps; it needs 5",
        (0.5, 3.5): "it needs 9",
        (0.5,): "one for each of 2 channels",
        math.nan: "finite",
        True: "finite",
        "lin": "or log",
    }.items():
        with pytest.raises(ValueError, match=re.escape(allowed)):
            wave(2, 9, speed=speed)
    with pytest.raises(ValueError, match="speed"):
        wave(2, 9, kernel_init="random", speed=0.5)


@over_waves
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 1), (2, 6, 3), (2, 5, 5)], ids=str)
def test_wave_step_is_equation_3(random_params, make, shape):
    channels, neurons, _ = shape
    cells = {name: make(*shape, activation=name, kernel_init="random") for name in NUMPY_ACTIVATIONS}
    params = random_params(cells["relu"], 3)
    carry, x = normal(2, channels, neurons), normal(2, 3, seed=1)
    results = jax.jit(lambda *args: {name: cell.step(*args) for name, cell in cells.items()})(params, carry, x)
    for activation, (new, y) in results.items():
        expected = [numpy_wave_step(params, activation, *pair) for pair in zip(carry, x, strict=True)]
        np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(y, np.reshape(new, (2, -1)))  # Channel-major.


@pytest.mark.parametrize(("channels", "neurons"), [(1, 1), (1, 7), (3, 4)])
def test_elman_step_in_numpy(random_params, channels, neurons):
    cells = {name: elman(neurons, channels=channels, activation=name) for name in NUMPY_ACTIVATIONS}
    params = random_params(cells["tanh"], 3)
    carry, x = normal(2, channels * neurons), normal(2, 3, seed=1)
    encoder, recurrence = (jax.tree.map(np.asarray, params[part]) for part in ("encoder", "recurrence"))
    z = carry @ recurrence["kernel"].T + recurrence["bias"] + x @ encoder["kernel"].T + encoder["bias"]
    results = jax.jit(lambda *args: {name: cell.step(*args) for name, cell in cells.items()})(params, carry, x)
    for activation, (new, y) in results.items():
        np.testing.assert_allclose(new, NUMPY_ACTIVATIONS[activation](z), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(y, new)
        np.testing.assert_array_equal(cells[activation].hidden(new), np.reshape(new, (2, channels, neurons)))


@over_waves
@pytest.mark.parametrize("taps", [3, 7])
def test_pulse_travels_one_neuron_a_step_and_returns(make, taps):
    """Launched at position 0 of each ring, it is at N − t after t more steps; after N it is back."""
    channels, neurons = 2, 7
    cell = make(channels, neurons, taps)
    xs = np.zeros((neurons + 1, 1), np.float32)
    xs[0] = 1.0
    field = unroll(cell, init(cell), xs, time_major=True, return_hidden=True).hidden
    for t, state in enumerate(field):
        np.testing.assert_array_equal(state, np.eye(neurons)[[-t % neurons] * channels])


SHIFTS = {name: make(3, 8, activation="identity") for name, make in WAVES.items()}
SHIFTS["dense"] = irnn(24, activation="identity", kernel_init="shift")


@pytest.mark.parametrize("cell", SHIFTS.values(), ids=SHIFTS)
def test_linear_shift_conserves_energy(cell):
    """500 steps permute the state and change no bit of it, so every norm of it is conserved."""
    carry = normal(*cell.initial_carry().shape)
    field = unroll(cell, init(cell), np.zeros((500, 1), np.float32), carry=carry, time_major=True).outputs
    field = np.asarray(field).reshape(500, *carry.shape)
    for t, state in enumerate(field):
        np.testing.assert_array_equal(state, np.roll(carry, -(t + 1), axis=-1))


@pytest.mark.parametrize(
    "cell", [*(make(2, 5, 1, kernel_init="identity", activation="tanh") for make in WAVES.values()),
             wave(2, 5, 5, kernel_init="identity", activation="tanh"), irnn(10, activation="tanh")]
)  # fmt: skip
def test_identity_start_keeps_every_neuron(cell):
    """A step without input from the identity is the activation and nothing else."""
    carry = normal(*cell.initial_carry((4,)).shape)
    new, _ = step(cell, init(cell), carry, np.zeros((4, 1)))
    np.testing.assert_allclose(new, np.tanh(carry), rtol=1e-5)


@settings(max_examples=6)
@given(shape=ring_shapes(), turn=st.integers(0, 8))
def test_rolling_the_start_rolls_the_trajectory(random_params, shape, turn):
    """Convolutions commute with translations; the untied variant and the encoder do not, so there is no input."""
    cell = wave(*shape, kernel_init="random", activation="tanh")
    params = random_params(cell, 1)
    params["encoder"] = jax.tree.map(jnp.zeros_like, params["encoder"])
    carry = normal(*shape[:2])
    both = np.stack([carry, np.roll(carry, turn, -1)])

    @jax.jit
    def field(carry):
        return unroll(cell, params, jnp.zeros((2, 5, 1)), carry=carry, return_hidden=True).hidden

    expected, rolled = np.asarray(field(both))
    np.testing.assert_allclose(rolled, np.roll(expected, turn, -1), atol=1e-4)


@pytest.mark.parametrize("cell", [wave(3, 5), wave(3, 5, local=True), irnn(5, channels=3, encoder_init="sparse")])
def test_sparse_encoder_has_one_source_a_channel(cell):
    """From rest, position 0 of each ring holds the sum of the inputs, and every other neuron nothing."""
    x = np.abs(normal(2, 4))
    carry, _ = step(cell, init(cell, 4), cell.initial_carry((2,)), x)
    expected = np.zeros((2, 3, 5))
    expected[:, :, 0] = x.sum(axis=-1)[:, None]
    np.testing.assert_allclose(cell.hidden(carry), expected, rtol=1e-6)


def assert_uniform(sample, bound):
    """Within ±bound, and with the mean (0) and variance (bound²/3) of the uniform distribution, to 5 σ."""
    sample = np.asarray(sample).ravel()
    assert np.all(np.abs(sample) <= bound)
    tolerance = 5 / math.sqrt(sample.size)
    np.testing.assert_allclose(sample.mean() / bound, 0, atol=tolerance)
    np.testing.assert_allclose((sample**2).mean() / (bound**2 / 3), 1, atol=tolerance)


@pytest.mark.parametrize(
    ("make", "fan_in"),
    [(partial(wave, 30, 31, 5), 150), (partial(wave, 8, 40, 5, local=True), 40), (partial(elman, 50, channels=2), 100)],
)
def test_random_starts_have_the_frameworks_range(make, fan_in):
    """U(−1/√fan_in, 1/√fan_in) for kernels and biases, and for an encoder that asks for it; the dense encoder is normal
    with deviation 0.001."""
    params = init(make(kernel_init="random", encoder_init="dense", bias_init="random"), 20)
    assert_uniform(params["recurrence"]["kernel"], fan_in**-0.5)
    assert_uniform(params["recurrence"]["bias"], fan_in**-0.5)
    assert_uniform(params["encoder"]["bias"], 20**-0.5)
    np.testing.assert_allclose(np.mean(params["encoder"]["kernel"]), 0, atol=1e-4)
    np.testing.assert_allclose(np.std(params["encoder"]["kernel"]), 1e-3, rtol=0.05)
    assert_uniform(init(make(kernel_init="random", encoder_init="uniform"), 20)["encoder"]["kernel"], 20**-0.5)


@pytest.mark.parametrize("make", [partial(wave, 3, 5), partial(wave, 3, 5, local=True), partial(elman, 5)])
def test_biases_start_at_zero_unless_asked_for(make):
    starts = [{"encoder_init": "dense", "kernel_init": start} for start in ("shift", "identity", "random")]
    every = jax.jit(lambda: [make(**options).init(KEY, 2) for options in starts])()
    assert not any(np.any(params[part]["bias"]) for params in every for part in ("encoder", "recurrence"))
    # V-init is all zeros but for the sources, however the other biases start.
    assert not np.any(init(make(encoder_init="sparse", bias_init="random"))["encoder"]["bias"])


MAKERS = {name: partial(make, 2, 5) for name, make in WAVES.items()}
MAKERS["elman"] = partial(elman, 5, channels=2)
over_cells = pytest.mark.parametrize("cell", [make(activation="tanh") for make in MAKERS.values()], ids=MAKERS)


@over_cells
def test_step_commutes_with_batch_axes(random_params, cell):
    """Batched, it is the unbatched step of every element, for any number of batch axes; and so under vmap."""
    params = random_params(cell, 3)
    carry, x = normal(2, 3, *cell.initial_carry().shape), normal(2, 3, 3, seed=1)

    @jax.jit
    def all_ways(carry, x):
        one_by_one = jnp.array([[cell.step(params, carry[i, j], x[i, j])[1] for j in range(3)] for i in range(2)])
        over_batch = jax.vmap(lambda carry, x: cell.step(params, carry, x)[1])
        row = cell.step(params, carry[0], x[0])[1]
        return one_by_one, cell.step(params, carry, x)[1], over_batch(carry, x), jnp.stack([row, one_by_one[1]])

    one_by_one, *others = all_ways(carry, x)
    for other in others:
        np.testing.assert_allclose(other, one_by_one, atol=1e-5)


@over_cells
def test_step_computes_in_the_dtype_of_the_carry(random_params, cell):
    """A bfloat16 carry stays one, and is the float32 result to bfloat16's 8 bits; integer inputs are their floats."""
    params, batch = random_params(cell, 3, scale=0.3), (4,)
    x = np.arange(12).reshape(4, 3) % 3
    rounded = jnp.asarray(normal(*cell.initial_carry(batch).shape), jnp.bfloat16)
    exact, _ = step(cell, params, rounded.astype(jnp.float32), np.float32(x))
    coarse, y = step(cell, params, rounded, np.float32(x))
    assert coarse.dtype == y.dtype == jnp.bfloat16
    np.testing.assert_allclose(coarse.astype(jnp.float32), exact, atol=0.03)
    np.testing.assert_array_equal(step(cell, params, rounded.astype(jnp.float32), x)[0], exact)


def loss_of(cell, xs, weights):
    """A loss that sees every neuron at every step, each with its own weight."""

    def loss(params):
        return jnp.mean(weights * unroll(cell, params, xs).outputs ** 2)

    return loss


@pytest.mark.parametrize(
    ("name", "activation"),
    [("roll", "tanh"), ("roll", "relu"), ("conv", "relu"), ("local", "identity"), ("elman", "tanh")],
)
def test_gradient_through_20_steps_is_the_finite_difference(name, activation):
    """Every parameter's derivative against (loss(p + ε) − loss(p − ε)) / 2ε in float64."""
    cell = MAKERS[name](activation=activation, kernel_init="random")
    rng = np.random.default_rng(0)
    xs, weights = rng.normal(size=(3, 20, 2)), rng.normal(size=(3, 20, cell.output_size))
    shapes = jax.eval_shape(lambda key: cell.init(key, 2), KEY)
    with jax.enable_x64(True):
        point = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)) / 3, shapes)
        flat, unravel = ravel_pytree(point)

        @jax.jit
        def both(flat, xs, weights):
            def loss(flat):
                return loss_of(cell, xs, weights)(unravel(flat))

            offsets = 1e-6 * jnp.eye(flat.size)
            losses = jax.vmap(loss)(flat[None] + jnp.concatenate([offsets, -offsets]))
            return jax.grad(loss)(flat), (losses[: flat.size] - losses[flat.size :]) / 2e-6

        gradient, differences = map(np.asarray, both(flat, xs, weights))
        assert gradient.dtype == np.float64
    assert np.mean(gradient != 0) > 0.5  # ReLU may leave a neuron silent.
    np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=1e-8 * np.max(np.abs(gradient)))


@pytest.mark.parametrize("name", ["roll", "elman"])
def test_freezing_stops_exactly_one_gradient(random_params, name):
    """Zero for the frozen part; the loss and every other gradient as without it."""
    parts = (None, "encoder", "recurrence")
    cells = [MAKERS[name](activation="tanh", **({f"freeze_{part}": True} if part else {})) for part in parts]
    xs, weights = normal(3, 6, 2), normal(3, 6, cells[0].output_size)

    @jax.jit
    def all_cells(params):
        return [jax.value_and_grad(loss_of(cell, xs, weights))(params) for cell in cells]

    (value, gradient), *others = all_cells(random_params(cells[0], 2, scale=0.3))
    assert all(np.all(leaf != 0) for leaf in jax.tree.leaves(gradient))
    for part, (same_value, frozen_gradient) in zip(parts[1:], others, strict=True):
        expected = gradient | {part: jax.tree.map(jnp.zeros_like, gradient[part])}
        jax.tree.map(np.testing.assert_array_equal, (same_value, frozen_gradient), (value, expected))


@over_activations
def test_irnn_from_the_shift_is_the_one_channel_wave(activation):
    """The dense matrix Σ and the convolution by the shift are one operator: same states from the same inputs."""
    neurons, xs = 9, normal(2, 30, 3)
    options = {"activation": activation, "kernel_init": "shift", "encoder_init": "sparse"}
    dense, ring = irnn(neurons, **options), wave(1, neurons, **options)
    linear = wave(1, neurons, activation="identity")
    np.testing.assert_array_equal(init(dense)["recurrence"]["kernel"], matrix_of(linear, init(linear)))
    states = [unroll(cell, init(cell, 3), xs, return_hidden=True).hidden for cell in (dense, ring)]
    np.testing.assert_allclose(*states, rtol=1e-5, atol=1e-5)


ONE_OF_ACTIVATIONS = "one of relu, tanh, identity"
ONE_OF_STARTS = "one of shift, identity, random"
ONE_OF_DENSE_STARTS = f"{ONE_OF_STARTS}, orthogonal"
BAD_OPTIONS = [
    ("activation", "sigmoid", ONE_OF_ACTIVATIONS),
    ("encoder_init", "", "one of sparse, dense, uniform"),
    ("bias_init", None, "one of zeros, random"),
    ("channels", 0, "a whole number, 1 or more"),
    ("channels", True, "a whole number, 1 or more"),
    ("neurons", -3, "a whole number, 1 or more"),
    ("neurons", 2.0, "a whole number, 1 or more"),
]
BAD_WAVES = [
    ("kernel_init", "zero", ONE_OF_STARTS),
    ("kernel_init", "orthogonal", ONE_OF_STARTS),
    ("taps", 0, "a whole number, 1 or more"),
    ("taps", 4, "an odd number from 1 to neurons = 5"),
    ("taps", 7, "an odd number from 1 to neurons = 5"),
    ("taps", 1, "3 or more for kernel_init = 'shift'"),
    ("form", "fft", "one of roll, conv"),
]
REFUSED = [(partial(wave, channels=2, neurons=5), *bad) for bad in BAD_OPTIONS + BAD_WAVES]
BAD_DENSE = ("kernel_init", "zero", ONE_OF_DENSE_STARTS)
REFUSED += [(partial(make, neurons=5), *bad) for make in (elman, irnn) for bad in (*BAD_OPTIONS, BAD_DENSE)]
REFUSED += [(partial(wave, channels=2, neurons=5, local=True), "form", "conv", "'roll' for the local variant")]


@pytest.mark.parametrize(("make", "field", "value", "allowed"), REFUSED)
def test_bad_arguments_are_refused_by_name(make, field, value, allowed):
    with pytest.raises(ValueError, match="^" + re.escape(f"{field} = {value!r}: must be {allowed}") + "$"):
        make(**{field: value})
