"""The LSTM against a NumPy transcription, Flax's own, PyTorch's, and what its gates are known to do."""

import math
import re

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from wrnn_jax.cells import lstm, unroll
from wrnn_jax.cells.base import choose_backend
from wrnn_jax.cells.gated import LSTMCarry
from wrnn_jax.readouts import linear, with_readout
from wrnn_jax.validation import InvalidValue

B, T, D, N = 3, 6, 4, 5
CELL = lstm(N)


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


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_step_is_the_equation(random_params, batch):
    """For any number of batch axes, of which vmap gives the same; y is the new h."""
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


def as_flax(params):
    """The parameters under the names of flax.linen's LSTM: a Dense ``h?`` with the bias and an ``i?`` for each gate."""
    encoder, recurrence = params["encoder"], params["recurrence"]
    parts = {}
    for k, gate in enumerate("ifgo"):
        parts[f"h{gate}"] = {"kernel": recurrence["kernel"][k].T, "bias": encoder["bias"][k]}
        parts[f"i{gate}"] = {"kernel": encoder["kernel"][k].T}
    return parts


@pytest.mark.parametrize("remat", [False, 4])
def test_a_sequence_is_flaxs_in_value_and_gradient(random_params, remat):
    """Carry, all outputs, and the gradient of each parameter, copied from one to the other."""
    params, xs = random_params(CELL, D, scale=0.5), normal(B, T, D)

    def ours(params, xs):
        carry, ys, _ = unroll(CELL, params, xs, remat=remat)
        return (carry.hidden, carry.cell), ys

    def flaxs(params, xs):
        layer = flax.linen.RNN(flax.linen.LSTMCell(N), return_carry=True)
        (cell, hidden), ys = layer.apply({"params": {"cell": as_flax(params)}}, xs)
        return (hidden, cell), ys

    assert_close(loss_and_gradient(ours, params, xs), loss_and_gradient(flaxs, params, xs))


def test_a_sequence_is_pytorchs(random_params):
    """Whose layer has the same gates in the same order, stacked, and a second bias."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    params, xs = random_params(CELL, D, scale=0.5), normal(B, T, D)
    layer = torch.nn.LSTM(D, N, batch_first=True)
    weights = {
        "weight_ih_l0": np.reshape(params["encoder"]["kernel"], (4 * N, D)),
        "weight_hh_l0": np.reshape(params["recurrence"]["kernel"], (4 * N, N)),
        "bias_ih_l0": np.reshape(params["encoder"]["bias"], 4 * N),
        "bias_hh_l0": np.zeros(4 * N, np.float32),
    }
    layer.load_state_dict({name: torch.tensor(weight) for name, weight in weights.items()})
    with torch.no_grad():
        ys, (h, c) = layer(torch.tensor(xs))
    carry, outputs, _ = unroll(CELL, params, xs)
    assert_close((carry.hidden, carry.cell, outputs), (h[0].numpy(), c[0].numpy(), ys.numpy()))


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
def test_at_rest_it_stays_and_forgets_by_half(use_bias):
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


def test_starts_within_the_frameworks_range():
    """U(−1/√N, 1/√N), V too, whose fan-in is another; the bias zero unless asked for, or not there."""
    neurons, key = 40, jax.random.key(0)
    start = jax.jit(lambda: [lstm(neurons, **options).init(key, 7) for options in
                             ({}, {"bias_init": "random"}, {"use_bias": False})])  # fmt: skip
    plain, random, bare = start()
    bound = 1 / math.sqrt(neurons)
    for leaf in jax.tree.leaves(random):
        sample = np.ravel(leaf)
        tolerance = 5 / math.sqrt(sample.size)
        assert np.all(np.abs(sample) <= bound)
        np.testing.assert_allclose(sample.mean() / bound, 0, atol=tolerance)
        np.testing.assert_allclose((sample**2).mean() / (bound**2 / 3), 1, atol=tolerance)
    assert not np.any(plain["encoder"].pop("bias"))
    random["encoder"].pop("bias")
    jax.tree.map(np.testing.assert_array_equal, bare, plain)
    jax.tree.map(np.testing.assert_array_equal, bare, random)


def test_without_bias_is_with_zeros(random_params):
    bare, xs = lstm(N, use_bias=False), normal(B, T, D)
    params = random_params(bare, D)
    full = params | {"encoder": params["encoder"] | {"bias": jnp.zeros((4, N))}}
    assert_close(unroll(bare, params, xs).outputs, unroll(CELL, full, xs).outputs)


def test_computes_in_the_dtype_of_the_carry(random_params):
    """bfloat16 stays, and is the float32 step to its 8 bits; integer inputs are their floats."""
    params, x = random_params(CELL, D, scale=0.3), np.arange(B * D).reshape(B, D) % 3
    rounded = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), a_carry(B))
    step = jax.jit(CELL.step)
    exact, _ = step(params, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), rounded), np.float32(x))
    coarse, y = step(params, rounded, x)
    assert {leaf.dtype for leaf in (*coarse, y)} == {jnp.dtype(jnp.bfloat16)}
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
def test_bad_options_are_refused_in_a_line(options, message):
    with pytest.raises(InvalidValue, match="^" + re.escape(message) + "$"):
        lstm(**{"neurons": N, **options})


def test_no_input_is_refused():
    with pytest.raises(InvalidValue, match=r"^input_size = 0: must be a whole number, 1 or more$"):
        CELL.init(jax.random.key(0), 0)
