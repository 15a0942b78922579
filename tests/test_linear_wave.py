"""The linear wave: its two forms, what travels, what is told apart, and where numbers could fail."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wrnn_jax import cells, layers, unroll
from wrnn_jax.cells import linear_wave
from wrnn_jax.cells.response import _weights, filtered, impulse_response
from wrnn_jax.cells.travel import SCHEMES, UNIT, eigenvalues, leaks, speeds, start_speeds
from wrnn_jax.kernels.convolution import causal_convolution, fast_length, segmented_convolution
from wrnn_jax.layers import Variables
from wrnn_jax.readouts import linear, mlp, with_readout
from wrnn_jax.validation import InvalidValue

RNG = np.random.default_rng(0)
FEATURES, BATCH, STEPS = 3, 2, 20
SPEEDS = (1.0, 0.5, 0.07)


def own_speeds(scheme):
    return None if scheme in UNIT else SPEEDS


def of(scheme, neurons, length=STEPS, inputs=FEATURES, **options):
    """A cell, and parameters that are no start: every one of them says something."""
    cell = linear_wave(FEATURES, neurons, scheme=scheme, speed=own_speeds(scheme), length=length, turn=0.7, **options)
    params = jax.jit(cell.init, static_argnums=1)(jax.random.key(1), inputs)
    return cell, jax.tree.map(lambda leaf: np.asarray(leaf) + 0.01 * RNG.normal(size=leaf.shape), params)


# The equations, in NumPy


def transition(params, scheme):
    """U of each ring ``(C, N, N)``, as published."""
    features, neurons = params["kernel"].shape
    down = np.roll(np.eye(neurons), 1, axis=1)  # (down h)[i] = h[i + 1]
    if scheme in UNIT:
        whole = np.tile(down, (features, 1, 1))
        if scheme == "delay":
            whole[:, 0] = 0
        return whole
    leak = np.exp(-np.exp(params["log_decay"]))
    if scheme == "taps":
        logits = np.exp(params["taps"])
        taps = logits / logits.sum(axis=1, keepdims=True)
    else:
        speed = np.exp(params["log_speed"])
        if scheme == "exact":
            # The trigonometric interpolation of the ring, read ν neurons further on.
            positions = np.arange(neurons)
            waves = np.fft.fftfreq(neurons, 1 / neurons)[None, None]
            matrices = []
            for ring in range(features):
                moved = positions[:, None] + speed[ring] - positions
                matrices.append(np.cos(2 * np.pi * moved[..., None] * waves / neurons).sum(axis=-1) / neurons)
            return leak[:, None, None] * np.array(matrices)
        speed = np.minimum(speed, 1)
        if scheme == "upwind":
            taps = np.stack([0 * speed, 1 - speed, speed], axis=1)
        else:
            taps = np.stack([(speed**2 - speed) / 2, 1 - speed**2, (speed**2 + speed) / 2], axis=1)
    return np.einsum("c,cj,jab->cab", leak, taps, np.stack([down.T, np.eye(neurons), down]))


def by_hand(params, scheme, xs, starts=None, carry=None):
    """h_{t+1} = U h_t + x_t δ_0, y_t = W · h_{t+1} + D x_t + b: (h, y)."""
    matrices, kernel = transition(params, scheme), params["kernel"]
    hidden = np.zeros((len(xs), *kernel.shape)) if carry is None else carry
    ys = []
    for t in range(xs.shape[1]):
        if starts is not None:
            hidden = np.where(starts[:, t, None, None], 0, hidden)
        hidden = np.einsum("cij,bcj->bci", matrices, hidden)
        hidden[:, :, 0] += xs[:, t]
        y = np.einsum("bcn,cn->bc", hidden, kernel)
        ys.append(y + params.get("skip", 0) * xs[:, t] + params.get("bias", 0))
    return hidden, np.stack(ys, axis=1)


@pytest.mark.parametrize(
    ("scheme", "neurons"), [*((scheme, 8) for scheme in SCHEMES), ("exact", 33), ("taps", 33), ("delay", 33)]
)
def test_both_forms_are_the_equations(scheme, neurons):
    """T < N and T > N; even N, whose last frequency is its own mirror, and odd; of carried states, packed sequences,
    all features and one input, some steps and all."""
    with jax.enable_x64(True):
        cell, params = of(scheme, neurons)
        xs, carry = RNG.normal(size=(BATCH, STEPS, FEATURES)), RNG.normal(size=(BATCH, FEATURES, neurons))
        starts = RNG.random((BATCH, STEPS)) < 0.15
        starts[1] = False

        @jax.jit
        def forms(params, xs, carry):
            scan = unroll(cell, params, xs, carry=carry)[:2]
            return {
                "scan": scan,
                "parallel": unroll(cell, params, xs, carry=carry, backend="parallel")[:2],
                "packed": filtered(params, xs, scheme, starts=starts, carry=carry),
                "packed scan": unroll(cell, params, xs, starts=starts).outputs,
                "packed whole": filtered(params, xs, scheme, starts=starts)[1],
                "stride": filtered(params, xs, scheme, stride=5)[1],
                "one": filtered(params, xs[..., :1], scheme, stride=2)[1],
            }

        found = forms(params, xs, carry)
        close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
        desired = by_hand(params, scheme, xs, carry=carry)
        for form in ("scan", "parallel"):
            jax.tree.map(close, found[form], desired)
        jax.tree.map(close, found["packed"], by_hand(params, scheme, xs, starts, carry))
        for form in ("packed scan", "packed whole"):
            close(found[form], by_hand(params, scheme, xs, starts)[1])
        close(found["stride"], by_hand(params, scheme, xs)[1][:, 4::5])
        one = np.tile(xs[..., :1], FEATURES)
        close(found["one"], by_hand(params, scheme, one)[1][:, 1::2])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradients_of_both_forms_are_equal(scheme):
    with jax.enable_x64(True):
        cell, params = of(scheme, 6)
        xs, carry = RNG.normal(size=(BATCH, 9, FEATURES)), RNG.normal(size=(BATCH, FEATURES, 6))
        weights = RNG.normal(size=(BATCH, 9, FEATURES))

        def loss(how, params, xs, carry):
            after, ys, _ = unroll(cell, params, xs, carry=carry, backend=how)
            return (weights * ys).sum() + jnp.sin(after).sum()

        one, other = (jax.jit(jax.grad(partial(loss, how), argnums=(0, 1, 2))) for how in ("scan", "parallel"))
        one, other = one(params, xs, carry), other(params, xs, carry)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-10), one, other)
        assert all(np.any(leaf) for leaf in jax.tree.leaves(one))


@pytest.mark.parametrize("neurons", [32, 33])
def test_taps_are_the_wave_cell_of_identity_activation(neurons):
    taps = np.array([[0.1, 0.55, 0.33], [0.2, 0.1, 0.65]])
    wave = cells.wave(2, neurons, activation="identity", use_bias=False)
    theirs = wave.init(jax.random.key(0), 2)
    theirs["encoder"]["kernel"] = jnp.zeros((2, neurons, 2)).at[jnp.arange(2), 0, jnp.arange(2)].set(1.0)
    theirs["recurrence"]["kernel"] = jnp.zeros((2, 2, 3)).at[jnp.arange(2), jnp.arange(2)].set(taps)
    xs = RNG.normal(size=(1, 200, 2)).astype(np.float32)
    hidden = unroll(wave, theirs, xs, return_hidden=True, outputs="last").hidden
    kernel = RNG.normal(size=(2, neurons)).astype(np.float32)
    total = taps.sum(axis=1, keepdims=True)
    params = {"kernel": kernel, "taps": np.log(taps / total), "log_decay": np.log(-np.log(total[:, 0]))}
    found = filtered(jax.tree.map(jnp.float32, params), xs, "taps")[1]
    desired = np.einsum("btcn,cn->btc", hidden, kernel)
    np.testing.assert_allclose(found, desired, atol=3e-6 * np.abs(desired).max())


@pytest.mark.parametrize("readout", [linear(2), mlp(2, 3)])
def test_both_forms_are_read_alike(readout):
    cell = with_readout(linear_wave(FEATURES, 5, length=STEPS), readout)
    params = cell.init(jax.random.key(0), FEATURES)
    xs = RNG.normal(size=(BATCH, STEPS, FEATURES)).astype(np.float32)
    for outputs in ("all", "last"):
        scan, parallel = (unroll(cell, params, xs, outputs=outputs, backend=how) for how in ("scan", "parallel"))
        np.testing.assert_allclose(parallel.outputs, scan.outputs, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(parallel.carry, scan.carry, rtol=1e-4, atol=1e-5)


# The convolution


@pytest.mark.parametrize("steps", [1, 5, 64, 65, 130])
def test_convolutions_are_sums_over_the_past(steps):
    """By a matrix and by transforms; what is at the end does not leak to the beginning."""
    with jax.enable_x64(True):
        xs, kernel = RNG.normal(size=(2, 3, steps)), RNG.normal(size=(2, steps))
        starts = RNG.random((3, steps)) < 0.1
        begin = np.maximum.accumulate(np.where(starts, np.arange(steps), 0), axis=1)
        whole, packed = np.zeros_like(xs), np.zeros_like(xs)
        for t in range(steps):
            for s in range(t + 1):
                now = kernel[:, t - s, None] * xs[:, :, s]
                whole[:, :, t] += now
                packed[:, :, t] += np.where(begin[:, t] <= s, now, 0)
        np.testing.assert_allclose(jax.jit(causal_convolution)(xs, kernel), whole, atol=1e-11)
        np.testing.assert_allclose(jax.jit(segmented_convolution)(xs, kernel, starts), packed, atol=1e-11)


def test_nothing_wraps_around():
    """A transform of T steps, not 2 T, would add the end of a sequence to its beginning."""
    xs = np.zeros((1, 1, 500), np.float32)
    xs[..., -1] = 1
    found = causal_convolution(xs, np.ones((1, 500), np.float32))
    np.testing.assert_allclose(found[0, 0, :-1], 0, atol=1e-6)


def test_lengths_are_the_next_without_a_large_prime():
    def is_smooth(number):
        for prime in (2, 3, 5):
            while number % prime == 0:
                number //= prime
        return number == 1

    smooth = [number for number in range(1, 4200) if is_smooth(number)]
    for least in range(1, 4096):
        assert fast_length(least) == next(number for number in smooth if number >= least)


# What travels


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme not in UNIT])
def test_waves_travel_at_their_speed_against_the_index(scheme):
    """A smooth bump's centre, a leak of e^-turn a turn."""
    neurons, speed, steps = 64, 0.25, 40
    cell = linear_wave(1, neurons, scheme=scheme, speed=speed, turn=0.5)
    params = cell.init(jax.random.key(0), 1)
    bump = np.exp(-((np.arange(neurons) - 32) ** 2) / 32.0)[None, None]
    after = unroll(cell, params, np.zeros((1, steps, 1), np.float32), carry=np.float32(bump), outputs="last").carry
    after = np.asarray(after)
    density = after[0, 0] / after.sum()
    assert density @ np.arange(neurons) == pytest.approx(32 - speed * steps, abs=0.06)
    assert after.sum() / bump.sum() == pytest.approx(
        np.exp(-0.5 * speed * steps / neurons), rel=1e-4 + 0.01 * (scheme == "taps")
    )


def test_unit_speed_without_leak_is_the_filter_itself_exactly():
    params = {"kernel": RNG.normal(size=(2, 10)).astype(np.float32)}
    in_order = params["kernel"][:, -np.arange(10) % 10]
    np.testing.assert_array_equal(impulse_response(params, 7, "shift"), in_order[:, :7])
    np.testing.assert_array_equal(impulse_response(params, 25, "shift"), np.tile(in_order, 3)[:, :25])
    gone = np.concatenate([in_order, np.zeros((2, 15))], axis=1)
    np.testing.assert_array_equal(impulse_response(params, 25, "delay"), gone)


@pytest.mark.parametrize(("scheme", "above_tenth", "above_hundredth"), [
    ("upwind", 8, 11), ("lax-wendroff", 13, 14), ("exact", 32, 32),
])  # fmt: skip
def test_how_many_pasts_a_slow_ring_tells_apart(scheme, above_tenth, above_hundredth):
    """Singular values of a ring's N impulse responses over 784 steps, ν = N / T."""
    neurons, steps = 32, 784
    with jax.enable_x64(True):
        speed = np.full(neurons, neurons / steps)
        params = {"kernel": np.eye(neurons), "log_speed": np.log(speed), "log_decay": np.log(speed / neurons)}
        values = np.linalg.svd(impulse_response(params, steps, scheme), compute_uv=False)
    found = [(values > share * values[0]).sum() for share in (0.1, 0.01)]
    assert found == pytest.approx([above_tenth, above_hundredth], abs=1)


# The start


def test_start_keeps_the_variance_of_white_input():
    for scheme in SCHEMES:
        cell = linear_wave(200, 16, scheme=scheme, length=96, use_skip=False)
        response = impulse_response(cell.init(jax.random.key(0), 200), 96, scheme)
        gains = (np.asarray(response) ** 2).sum(axis=1)
        assert gains.mean() == pytest.approx(1.0 if scheme != "shift" else 6.0, rel=0.05)


def test_speeds_are_spaced_from_one_to_a_turn_in_the_length():
    np.testing.assert_allclose(start_speeds("log", 3, 16, 1600), [1, 0.1, 0.01])
    np.testing.assert_allclose(start_speeds("log", 3, 16, 4), [1, 1, 1])
    cell = linear_wave(3, 16, length=1600)
    params = cell.init(jax.random.key(0), 3)
    np.testing.assert_allclose(speeds(params, "exact"), [1, 0.1, 0.01], rtol=1e-5)
    np.testing.assert_allclose(leaks(params) ** (16 / np.array([1, 0.1, 0.01])), np.exp(-1.0), rtol=1e-3)


# Where numbers could fail


def test_an_eigenvalue_of_zero_has_a_gradient():
    """Upwind at ν = 1/2: λ = 0 at the highest frequency, where powers by logarithms are NaN."""
    params = {"kernel": RNG.normal(size=(1, 8)), "log_speed": np.log([0.5]), "log_decay": np.log([0.01])}
    params = jax.tree.map(jnp.float32, params)
    assert abs(eigenvalues(params, "upwind")[0, -1]) < 1e-7
    gradient = jax.grad(lambda params: impulse_response(params, 30, "upwind").sum())(params)
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_powers_by_products_stay_near_the_truth_where_logarithms_leave_it():
    """T = 16,384, in float32, of the largest K."""
    kernel, steps = RNG.normal(size=(1, 64)), 16_384
    truth = kernel[:, -np.arange(steps) % 64]
    params = {
        "kernel": np.float32(kernel),
        "log_speed": np.zeros(1, np.float32),
        "log_decay": np.full(1, -30, np.float32),
    }
    found = impulse_response(params, steps, "exact")
    values = np.asarray(eigenvalues(params, "exact"))[0]
    weights = np.asarray(_weights(params["kernel"]))[0]
    by_log = (weights * np.exp(np.arange(steps, dtype=np.float32)[:, None] * np.log(values))).sum(axis=1).real
    scale = np.abs(truth).max()
    error, error_by_log = np.abs(found - truth).max() / scale, np.abs(by_log - truth).max() / scale
    assert error < 1e-3
    assert error < error_by_log


def test_waves_never_grow():
    """Whatever an optimiser makes of speed, leak and taps: every |λ| ≤ 1."""
    for scheme in ("upwind", "lax-wendroff", "taps", "exact"):
        params = {"kernel": np.ones((50, 12), np.float32), "log_decay": np.float32(RNG.normal(scale=9, size=50))}
        params |= {
            "log_speed": np.float32(RNG.normal(scale=3, size=50)),
            "taps": np.float32(RNG.normal(scale=9, size=(50, 3))),
        }
        assert np.abs(eigenvalues(params, scheme)).max() <= 1 + 1e-6


def test_the_leak_has_a_bounded_gradient_however_long_the_memory():
    """In log(−log ρ) that of K_t is 1/e of K at most; in ρ it grows like the memory."""
    for memory in (10.0, 1e3, 1e5):
        decay = -jnp.log(memory)

        def response(decay, memory=memory):
            return jnp.exp(-jnp.exp(decay) * jnp.float32(memory))  # ρ^t at t = memory

        assert abs(jax.grad(response)(decay)) <= np.exp(-1) + 1e-4


def test_rings_are_float32_at_least():
    """In bfloat16 a slow wave is soon lost; inputs and outputs may be in it."""
    cell, params = of("exact", 16)
    xs = jnp.asarray(RNG.normal(size=(1, 300, FEATURES)), jnp.bfloat16)
    params = jax.tree.map(jnp.float32, params)
    for backend in ("scan", "parallel"):
        found = unroll(cell, params, xs, backend=backend)
        assert (found.outputs.dtype, found.carry.dtype) == (jnp.bfloat16, jnp.float32)
        whole = unroll(cell, params, xs.astype(jnp.float32)).outputs
        np.testing.assert_allclose(found.outputs.astype(np.float32), whole, atol=0.01 * np.abs(whole).max())


def test_whole_numbers_are_inputs_too():
    cell, params = of("exact", 5)
    params, xs = jax.tree.map(jnp.float32, params), np.arange(8 * FEATURES).reshape(1, 8, FEATURES)
    desired = filtered(params, np.float32(xs), "exact")[1]
    for found in (unroll(cell, params, xs).outputs, unroll(cell, params, xs, backend="parallel").outputs):
        np.testing.assert_allclose(found, desired, rtol=1e-4, atol=1e-4)


# The layer


def test_layer_streams_in_whole_strides():
    layer = layers.wave(FEATURES, 9, stride=2, length=STEPS)
    variables = layer.init(jax.random.key(0), FEATURES)
    xs = RNG.normal(size=(BATCH, STEPS, FEATURES)).astype(np.float32)
    whole, _ = layer.apply(variables, xs)
    carry, parts = layer.stream.start(variables, BATCH), []
    for begin, end in ((0, 4), (4, 6), (6, STEPS)):
        carry, ys = layer.stream.run(variables, carry, xs[:, begin:end])
        parts.append(ys)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)
    with pytest.raises(InvalidValue, match="stride = 2: must be a divisor of T = 3"):
        layer.stream.run(variables, carry, xs[:, :3])


def test_speeds_and_leaks_learn_slower_and_nothing_decays():
    layer = layers.wave(FEATURES, 9)
    params = layer.init(jax.random.key(0), 1).params
    assert layer.rates(params) == {"kernel": 1, "log_speed": 0.25, "log_decay": 0.25, "skip": 1, "bias": 1}
    assert layer.decays(params) is False


def test_both_directions_are_each_as_by_itself():
    one, other = layers.wave(FEATURES, 5, length=STEPS), layers.wave(FEATURES, 7, scheme="delay")
    layer = layers.bidirectional(one, other)
    variables = layer.init(jax.random.key(0), FEATURES)
    xs = RNG.normal(size=(BATCH, STEPS, FEATURES)).astype(np.float32)
    starts = np.zeros((BATCH, STEPS), bool)
    starts[0, [4, 11]] = True
    forward, backward = (Variables(variables.params[name]) for name in ("forward", "backward"))
    whole = one.apply(forward, xs)[0] + other.apply(backward, xs[:, ::-1])[0][:, ::-1]
    np.testing.assert_allclose(layer.apply(variables, xs)[0], whole, atol=1e-5)
    packed, _ = layer.apply(variables, xs, None, starts)
    np.testing.assert_allclose(packed[1], whole[1], atol=1e-5)
    for begin, end in ((0, 4), (4, 11), (11, STEPS)):
        alone, _ = layer.apply(variables, xs[:1, begin:end])
        np.testing.assert_allclose(packed[:1, begin:end], alone, atol=1e-5)
    assert layer.stream is None
    with pytest.raises(InvalidValue, match=r"output_size = \(3, 4\): must be the same in both directions"):
        layers.bidirectional(one, layers.wave(4, 5))


# What is refused


@pytest.mark.parametrize(("options", "message"), [
    ({"features": 0}, "features = 0: must be a whole number, 1 or more"),
    ({"neurons": 2}, "neurons = 2: must be 3 or more for scheme = 'exact'"),
    ({"scheme": "spectral"}, "scheme = 'spectral': must be one of exact, upwind"),
    ({"speed": 0}, "speed = 0: must be a finite number above 0"),
    ({"speed": 1.5}, "speed = 1.5: must be above 0 and at most 1 neuron a step"),
    ({"speed": (1.0, 0.5)}, r"speed = \(1.0, 0.5\): must be one number, or one for each of 3"),
    ({"speed": "fast"}, "speed = 'fast': must be a number, one for each feature, or log"),
    ({"scheme": "delay", "speed": 1.0}, "speed = 1.0: must be left out for scheme = 'delay', whose speed is 1"),
    ({"turn": 0.0}, "turn = 0.0: must be a finite number above 0"),
    ({"length": 0}, "length = 0: must be a whole number, 1 or more"),
])  # fmt: skip
def test_refused_options(options, message):
    with pytest.raises(InvalidValue, match=f"^{message}"):
        linear_wave(**{"features": 3, "neurons": 8, **options})


def test_refused_inputs_and_strides():
    cell, params = of("exact", 8)
    with pytest.raises(InvalidValue, match="input_size = 2: must be 3, one for each ring, or 1 for all"):
        cell.init(jax.random.key(0), 2)
    with pytest.raises(InvalidValue, match="stride = 3: must be a divisor of T = 20"):
        filtered(params, np.zeros((1, 20, 3)), "exact", stride=3)
    with pytest.raises(InvalidValue, match="stride = 2: must be 1 for sequences that start or go on"):
        filtered(params, np.zeros((1, 20, 3)), "exact", stride=2, starts=np.zeros((1, 20), bool))
