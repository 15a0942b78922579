"""The LSTM and the GRU against NumPy transcriptions, Flax's own, PyTorch's, and what gates are known to do."""

import math
import re

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from wrnn_jax.cells import gru, lstm, unroll
from wrnn_jax.cells.base import choose_backend
from wrnn_jax.cells.gated import LSTMCarry
from wrnn_jax.interop import to_pytorch
from wrnn_jax.readouts import linear, with_readout
from wrnn_jax.validation import InvalidValue

B, T, D, N = 3, 6, 4, 5
CELL, GRU = lstm(N), gru(N)
over_makers = pytest.mark.parametrize("make", [lstm, gru])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def a_carry(*batch):
    return LSTMCarry(normal(*batch, N, seed=2), normal(*batch, N, seed=3))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def in_numpy(params, carry, x):
    """One step, one neuron and one gate after another, in float64: (h, c)."""
    V, b, U = (np.asarray(leaf, np.float64) for leaf in (*(params["encoder"][n] for n in ("kernel", "bias")),
                                                         params["recurrence"]["kernel"]))  # fmt: skip
    h, c = np.empty_like(carry.hidden), np.empty_like(carry.cell)
    for index in np.ndindex(h.shape):
        *row, n = index
        i, f, g, o = (
            sum(U[k, n, m] * carry.hidden[(*row, m)] for m in range(N))
            + sum(V[k, n, d] * x[(*row, d)] for d in range(D))
            + b[k, n]
            for k in range(4)
        )
        c[index] = sigmoid(f) * carry.cell[index] + sigmoid(i) * np.tanh(g)
        h[index] = sigmoid(o) * np.tanh(c[index])
    return h, c


def gru_in_numpy(params, h, x):
    """One step of the GRU in the same manner, by the equations of PyTorch's documentation."""
    encoder, recurrence = (jax.tree.map(np.float64, params[part]) for part in ("encoder", "recurrence"))
    V, b, U, c = encoder["kernel"], encoder["bias"], recurrence["kernel"], recurrence["bias"]
    new = np.empty_like(h)
    for index in np.ndindex(h.shape):
        *row, n = index
        of_h = [sum(U[k, n, m] * h[(*row, m)] for m in range(N)) for k in range(3)]
        of_x = [sum(V[k, n, d] * x[(*row, d)] for d in range(D)) + b[k, n] for k in range(3)]
        reset, update = (sigmoid(of_x[k] + of_h[k]) for k in range(2))
        candidate = np.tanh(of_x[2] + reset * (of_h[2] + c[n]))
        new[index] = (1 - update) * candidate + update * h[index]
    return new


over_batches = pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)


@over_batches
def test_a_step_of_the_gru_is_the_equation(random_params, batch):
    """For any number of batch axes, of which vmap gives the same; y is the new h."""
    params, carry, x = random_params(GRU, D), normal(*batch, N, seed=2), normal(*batch, D)
    step = GRU.step
    for _ in batch:
        step = jax.vmap(step, in_axes=(None, 0, 0))
    for way in (GRU.step, step):
        new, y = jax.jit(way)(params, carry, x)
        np.testing.assert_allclose(new, gru_in_numpy(params, carry, x), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(y, new)
    np.testing.assert_array_equal(GRU.hidden(new), np.reshape(y, (*batch, 1, N)))


@over_batches
def test_a_step_of_the_lstm_is_the_equation(random_params, batch):
    """Likewise."""
    params, carry, x = random_params(CELL, D), a_carry(*batch), normal(*batch, D)
    h, c = in_numpy(params, carry, x)
    step = CELL.step
    for _ in batch:
        step = jax.vmap(step, in_axes=(None, 0, 0))
    for way in (CELL.step, step):
        new, y = jax.jit(way)(params, carry, x)
        np.testing.assert_allclose(new.hidden, h, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(new.cell, c, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(y, new.hidden)
    np.testing.assert_array_equal(CELL.hidden(new), np.reshape(y, (*batch, 1, N)))


def loss_and_gradient(run, params, xs):
    """Value, (carry as (h, c), ys), and gradients in params and xs of a loss that sees every number its own way."""

    def loss(params, xs):
        results = run(params, xs)
        flat, _ = ravel_pytree(results)
        return jnp.mean(jnp.cos(jnp.arange(flat.size, dtype=jnp.float32)) * flat**2), results

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, xs)


def assert_close(actual, expected):
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-6), actual, expected)


def lstm_as_flax(params):
    """The parameters under the names of flax.linen's LSTM: a Dense ``h?`` with the bias and an ``i?`` for each gate."""
    encoder, recurrence = params["encoder"], params["recurrence"]
    parts = {}
    for k, gate in enumerate("ifgo"):
        parts[f"h{gate}"] = {"kernel": recurrence["kernel"][k].T, "bias": encoder["bias"][k]}
        parts[f"i{gate}"] = {"kernel": encoder["kernel"][k].T}
    return parts


def gru_as_flax(params):
    """Of its GRU, whose ``i?`` have the bias, and ``hn``."""
    encoder, recurrence = params["encoder"], params["recurrence"]
    parts = {}
    for k, gate in enumerate("rzn"):
        parts[f"h{gate}"] = {"kernel": recurrence["kernel"][k].T}
        parts[f"i{gate}"] = {"kernel": encoder["kernel"][k].T, "bias": encoder["bias"][k]}
    parts["hn"]["bias"] = recurrence["bias"]
    return parts


FLAXS = {
    "lstm": (CELL, flax.linen.LSTMCell(N), lstm_as_flax, lambda carry: carry[::-1]),
    "gru": (GRU, flax.linen.GRUCell(N), gru_as_flax, lambda carry: carry),
}
"""Cell, Flax's, parameters and carry of one as the other's."""


@pytest.mark.parametrize("name", FLAXS)
@pytest.mark.parametrize("remat", [False, 4])
def test_a_sequence_is_flaxs_in_value_and_gradient(random_params, name, remat):
    """Carry, all outputs, and the gradient of each parameter, copied from one to the other."""
    cell, flax_cell, as_flax, flax_carry = FLAXS[name]
    params, xs = random_params(cell, D, scale=0.5), normal(B, T, D)

    def ours(params, xs):
        carry, ys, _ = unroll(cell, params, xs, remat=remat)
        return flax_carry(carry), ys

    def flaxs(params, xs):
        return flax.linen.RNN(flax_cell, return_carry=True).apply({"params": {"cell": as_flax(params)}}, xs)

    assert_close(loss_and_gradient(ours, params, xs), loss_and_gradient(flaxs, params, xs))


@over_makers
def test_a_sequence_is_pytorchs(random_params, make):
    """Whose layers have the same gates in the same order, stacked, and a second bias."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    cell, xs = make(N), normal(B, T, D)
    params = random_params(cell, D, scale=0.5)
    layer = {lstm: torch.nn.LSTM, gru: torch.nn.GRU}[make](D, N, batch_first=True)
    layer.load_state_dict({name: torch.tensor(weight) for name, weight in to_pytorch(None, params).items()})
    with torch.no_grad():
        ys, carry = layer(torch.tensor(xs))
    unrolled = unroll(cell, params, xs)
    expected = [ys, *carry] if make is lstm else [ys, carry]
    actual = jax.tree.leaves((unrolled.outputs, unrolled.carry))
    assert_close(actual, [array.numpy().reshape(like.shape) for array, like in zip(expected, actual, strict=True)])


def test_an_open_update_gate_keeps_the_grus_memory():
    """h stays, whatever comes in, and so does the gradient; shut, what h was reaches the next only through r."""
    params = jax.tree.map(jnp.zeros_like, GRU.init(jax.random.key(0), D))
    params["encoder"]["kernel"] = jnp.asarray(0.1 * normal(3, N, D))
    xs, first = normal(1, 200, D), normal(1, N, seed=2)

    def memory(h, r, z):
        gates = jnp.broadcast_to(jnp.array([r, z, 0.0])[:, None], (3, N))
        filled = params | {"encoder": params["encoder"] | {"bias": gates}}
        return unroll(GRU, filled, xs, carry=h).carry

    np.testing.assert_array_equal(memory(first, 0.0, 50.0), first)
    np.testing.assert_allclose(jax.jacobian(memory)(jnp.asarray(first), 0.0, 50.0)[0, :, 0], np.eye(N), atol=1e-6)
    params["recurrence"]["kernel"] = jnp.asarray(normal(3, N, N)).at[:2].set(0.0)
    params["recurrence"]["bias"] = jnp.asarray(normal(N, seed=4))
    expected = np.tanh(np.asarray(params["encoder"]["kernel"][2]) @ xs[0, -1])  # With r = 0 neither U_n nor c is seen.
    np.testing.assert_allclose(memory(first, -50.0, -50.0)[0], expected, rtol=1e-5)


def test_open_forget_and_shut_input_gates_keep_the_memory():
    """The constant error carousel: c stays, whatever comes in, and so does the gradient through any number of steps."""
    cell = lstm(N)
    params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0), D))
    params["encoder"]["kernel"] = jnp.asarray(0.1 * normal(4, N, D))
    gates = jnp.array([-50.0, 50.0, 0.0, 0.0])  # i, f, g, o
    params["encoder"]["bias"] = jnp.broadcast_to(gates[:, None], (4, N))
    xs, first = normal(1, 200, D), a_carry(1)

    def memory(cell_state):
        return unroll(cell, params, xs, carry=first._replace(cell=cell_state)).carry.cell

    np.testing.assert_array_equal(memory(first.cell), first.cell)
    np.testing.assert_allclose(jax.jacobian(memory)(jnp.asarray(first.cell))[0, :, 0], np.eye(N), atol=1e-6)


@pytest.mark.parametrize("use_bias", [True, False])
def test_at_rest_the_lstm_stays_and_forgets_by_half(use_bias):
    """At its start, 0 is a fixed point, and there all gates are ½: ∂c'/∂c = ½, ∂h'/∂c = ¼, ∂c'/∂h = U_g / 2."""
    cell = lstm(N, use_bias=use_bias)
    params = cell.init(jax.random.key(0), D)
    rest, x = cell.initial_carry(), jnp.zeros(D)
    carry, _ = cell.step(params, rest, x)
    assert not any(np.any(leaf) for leaf in carry)
    jacobian = jax.jacobian(lambda carry: cell.step(params, carry, x)[0])(rest)
    np.testing.assert_allclose(jacobian.cell.cell, np.eye(N) / 2, atol=1e-6)
    np.testing.assert_allclose(jacobian.hidden.cell, np.eye(N) / 4, atol=1e-6)
    np.testing.assert_allclose(jacobian.cell.hidden, params["recurrence"]["kernel"][2] / 2, atol=1e-6)


@over_makers
def test_starts_within_the_frameworks_range(make):
    """U(−1/√N, 1/√N), V too, whose fan-in is another; the biases zero unless asked for, or not there."""
    neurons, key = 40, jax.random.key(0)
    start = jax.jit(lambda: [make(neurons, **options).init(key, 7) for options in
                             ({}, {"bias_init": "random"}, {"use_bias": False})])  # fmt: skip
    plain, random, bare = start()
    bound = 1 / math.sqrt(neurons)
    for leaf in jax.tree.leaves(random):
        sample = np.ravel(leaf)
        tolerance = 5 / math.sqrt(sample.size)
        assert np.all(np.abs(sample) <= bound)
        np.testing.assert_allclose(sample.mean() / bound, 0, atol=tolerance)
        np.testing.assert_allclose((sample**2).mean() / (bound**2 / 3), 1, atol=tolerance)
    for part in plain, random:
        biases = [part[name].pop("bias") for name in part if "bias" in part[name]]
        assert [np.any(bias) for bias in biases] == [part is random] * len(biases)
        jax.tree.map(np.testing.assert_array_equal, bare, part)


@over_makers
def test_without_bias_is_with_zeros(random_params, make):
    bare, whole, xs = make(N, use_bias=False), make(N), normal(B, T, D)
    params = random_params(bare, D)
    full = {name: part | params[name] for name, part in whole.init(jax.random.key(0), D).items()}
    assert_close(unroll(bare, params, xs).outputs, unroll(whole, full, xs).outputs)


@over_makers
def test_computes_in_the_dtype_of_the_carry(random_params, make):
    """bfloat16 stays, and is the float32 step to its 8 bits; integer inputs are their floats."""
    cell = make(N)
    params, x = random_params(cell, D, scale=0.3), np.arange(B * D).reshape(B, D) % 3
    carry = a_carry(B) if make is lstm else normal(B, N, seed=2)
    rounded = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), carry)
    step = jax.jit(cell.step)
    exact, _ = step(params, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), rounded), np.float32(x))
    coarse, y = step(params, rounded, x)
    assert {leaf.dtype for leaf in jax.tree.leaves((coarse, y))} == {jnp.dtype(jnp.bfloat16)}
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a.astype("f4"), e, atol=0.03), coarse, exact)


def test_with_a_readout_by_the_scan_that_auto_means(random_params):
    """There is no engine; the readout sees h alone, and at the last step as at every step."""
    cell = with_readout(CELL, linear(2, use_bias=False))
    params, xs = random_params(cell, D, scale=0.5), normal(B, T, D)
    assert choose_backend(cell) == "scan"
    every = unroll(cell, params, xs, backend="auto", return_hidden=True)
    h = np.asarray(every.hidden)[:, :, 0]
    np.testing.assert_allclose(every.outputs, h @ np.asarray(params["readout"]["output"]["kernel"]).T, atol=1e-5)
    assert_close(unroll(cell, params, xs, backend="auto", outputs="last").outputs, every.outputs[:, -1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neurons": 0}, "neurons = 0: must be a whole number, 1 or more"),
        ({"neurons": 2.0}, "neurons = 2.0: must be a whole number, 1 or more"),
        ({"use_bias": None}, "use_bias = None: must be True or False"),
        ({"bias_init": "one"}, "bias_init = 'one': must be one of zeros, random"),
        ({"use_bias": False, "bias_init": "random"}, "bias_init = 'random': must be zeros for use_bias = False"),
    ],
)
@over_makers
def test_bad_options_are_refused_in_a_line(make, options, message):
    with pytest.raises(InvalidValue, match="^" + re.escape(message) + "$"):
        make(**{"neurons": N, **options})


@over_makers
def test_no_input_is_refused(make):
    with pytest.raises(InvalidValue, match=r"^input_size = 0: must be a whole number, 1 or more$"):
        make(N).init(jax.random.key(0), 0)
