"""The loop over time: against a Python loop of steps, and against itself under every option and transformation."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from wrnn_jax import Cell, unroll
from wrnn_jax.cells import elman, lstm, wave


def two_speed_cell(units=4):
    """A user's own cell with a carry of two arrays: v ← tanh(A v + V x), h ← h + v, and y = h · v."""

    def init(key, input_size):
        fast_key, input_key = jax.random.split(key)
        kernels = jax.random.normal(fast_key, (units, units)), jax.random.normal(input_key, (input_size, units))
        return dict(zip(("A", "V"), kernels, strict=True))

    def initial_carry(batch_shape=(), dtype=jnp.float32):
        return jnp.zeros((*batch_shape, units), dtype), jnp.zeros((*batch_shape, units), dtype)

    def step(params, carry, x):
        slow, fast = carry
        fast = jnp.tanh(fast @ params["A"] + x @ params["V"])
        slow = slow + fast
        return (slow, fast), slow * fast

    return Cell(init, initial_carry, step, lambda carry: carry[0][..., None, :], units)


CELLS = {
    "wave": wave(2, 4, activation="tanh"),
    "elman": elman(4, channels=2),
    "lstm": lstm(4),
    "two arrays": two_speed_cell(),
}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def start(cell, *batch):
    """A carry that is not zero."""
    return jax.tree.map(lambda leaf: 0.5 * normal(*leaf.shape, seed=2), cell.initial_carry(batch))


def python_loop(cell, params, xs, carry):
    """(carry, outputs (B, T, F), hidden (B, T, C, N)) by the definition, for xs (B, T, D)."""
    ys, hidden = [], []
    for t in range(xs.shape[-2]):
        carry, y = cell.step(params, carry, xs[..., t, :])
        ys.append(y)
        hidden.append(cell.hidden(carry))
    return carry, jnp.stack(ys, -2), jnp.stack(hidden, -3)


def assert_close(actual, expected, tolerance=1e-5):
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance), actual, expected)


def value_and_gradients(forward, params, xs, carry):
    """(carry, outputs, hidden) of ``forward(params, xs, carry)``, and the gradients of a loss that sees all of them."""

    def loss(params, xs, carry):
        results = tuple(forward(params, xs, carry))
        flat, _ = ravel_pytree(results)
        return jnp.mean(jnp.cos(jnp.arange(flat.size, dtype=jnp.float32)) * flat**2), results

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(params, xs, carry)


@pytest.mark.parametrize(("name", "steps"), [("wave", 1), ("lstm", 5), ("two arrays", 5)])
def test_unroll_is_the_python_loop(random_params, name, steps):
    """Carry, outputs and hidden states, and gradients with respect to parameters, inputs and the initial carry."""
    cell = CELLS[name]
    arguments = random_params(cell, 3, scale=0.5), normal(2, steps, 3), start(cell, 2)
    expected = value_and_gradients(lambda *args: python_loop(cell, *args), *arguments)
    actual = value_and_gradients(
        lambda params, xs, carry: unroll(cell, params, xs, carry=carry, return_hidden=True), *arguments
    )
    assert_close(actual, expected)


@settings(max_examples=5)
@given(batch=st.lists(st.integers(1, 3), max_size=2), steps=st.integers(1, 6), cut=st.integers(1, 5))
def test_options_are_views_of_one_computation(random_params, batch, steps, cut):
    """Axis order, outputs, the default carry, and a sequence cut in two, whose second part starts from the first's."""
    cell = CELLS["wave"]
    params, xs = random_params(cell, 3, scale=0.5), normal(*batch, steps + cut, 3)

    @jax.jit
    def variants(xs):
        over_time = jnp.moveaxis(xs, -2, 0)
        head = unroll(cell, params, over_time[:cut], time_major=True)
        tail = unroll(cell, params, over_time[cut:], time_major=True, carry=head.carry)
        last = unroll(cell, params, over_time, time_major=True, return_hidden=True, outputs="last")
        full = unroll(cell, params, over_time, time_major=True, return_hidden=True)
        # One sequence alone has no batch axis to stand before time.
        batch_major = unroll(cell, params, xs, carry=cell.initial_carry(batch), return_hidden=True) if batch else None
        return full, batch_major, last, head, tail

    full, batch_major, last, head, tail = variants(xs)
    if batch:
        moved = jnp.moveaxis(full.outputs, 0, -2), jnp.moveaxis(full.hidden, 0, -3)
        assert_close(tuple(batch_major), (full.carry, *moved))
    assert_close(tuple(last), (full.carry, full.outputs[-1], full.hidden))
    assert_close((tail.carry, jnp.concatenate([head.outputs, tail.outputs])), (full.carry, full.outputs))


def test_batch_major_last_output_and_trajectory(random_params):
    """The same for (B, T, D): y (B, F) of the last step, and the trajectory as (B, T, C, N)."""
    cell = CELLS["wave"]
    params, xs = random_params(cell, 3, scale=0.5), normal(2, 5, 3)
    carry, ys, hidden = jax.jit(lambda xs: python_loop(cell, params, xs, cell.initial_carry((2,))))(xs)
    last = jax.jit(lambda xs: unroll(cell, params, xs, outputs="last", return_hidden=True))(xs)
    assert_close((last.carry, last.outputs, last.hidden), (carry, ys[:, -1], hidden))
    assert unroll(cell, params, xs).hidden is None


@functools.cache
def with_remat(remat, outputs):
    """Values and gradients of a cell over T = 7 steps."""
    cell = CELLS["two arrays"]

    def forward(params, xs, carry):
        return unroll(cell, params, xs, carry=carry, remat=remat, outputs=outputs, return_hidden=True)

    return value_and_gradients(forward, {"A": normal(4, 4) / 2, "V": normal(3, 4)}, normal(2, 7, 3), start(cell, 2))


@pytest.mark.parametrize(("remat", "outputs"), [(True, "all"), (7, "all"), (50, "all"), (True, "last"), (1, "last")])
def test_remat_changes_neither_value_nor_gradient(remat, outputs):
    """Segments that divide the time or not, of one step, of all, and longer than the sequence."""
    assert_close(with_remat(remat, outputs), with_remat(False, outputs), tolerance=1e-6)


BIG = elman(64)
STATE = 16 * 64 * 4  # Bytes of one step's state, for 16 sequences.


def temporary_bytes(function, steps):
    """What the compiled ``function(params, xs)`` of a cell of 64 neurons stores on its way."""
    params = jax.eval_shape(lambda key: BIG.init(key, 1), jax.random.key(0))
    xs = jax.ShapeDtypeStruct((steps, 16, 1), jnp.float32)
    return jax.jit(function).lower(params, xs).compile().memory_analysis().temp_size_in_bytes


def test_remat_needs_memory_like_the_root_of_time():
    """Four times the steps: four times the memory without it, twice with segments of √T."""

    def needs(steps, remat):
        def loss(params, xs):
            return jnp.mean(unroll(BIG, params, xs, time_major=True, outputs="last", remat=remat).outputs ** 2)

        return temporary_bytes(jax.grad(loss), steps)

    plain, remat = ([needs(steps, option) for steps in (256, 1024)] for option in (False, True))
    assert 3.5 < plain[1] / plain[0] < 4.1
    assert remat[1] / remat[0] < 2.5
    assert remat[1] < plain[1] / 4


def test_last_output_alone_needs_no_memory_for_the_others():
    """Forward, what is stored does not grow with time."""

    def last(params, xs):
        return unroll(BIG, params, xs, time_major=True, outputs="last").outputs

    assert temporary_bytes(last, 1024) - temporary_bytes(last, 256) < (1024 - 256) * STATE / 10


def test_second_call_is_not_traced_again(random_params):
    """Neither for other numbers nor for another carry of the same shape."""
    cell, traces = CELLS["wave"], []

    def counted(params, carry, x):
        traces.append(x.shape)
        return cell.step(params, carry, x)

    run = jax.jit(lambda params, xs, carry: unroll(cell._replace(step=counted), params, xs, carry=carry).outputs)
    first = run(random_params(cell, 3), normal(2, 5, 3), start(cell, 2))
    count = len(traces)
    second = run(random_params(cell, 3, seed=1), normal(2, 5, 3, seed=1), cell.initial_carry((2,)))
    assert count >= 1
    assert len(traces) == count
    assert not np.allclose(first, second)


def test_integer_inputs_are_their_floats_and_low_precision_stays(random_params):
    """The default carry has the dtype of floating inputs, else float32."""
    cell = CELLS["wave"]
    params, xs = random_params(cell, 3), np.arange(30).reshape(2, 5, 3) % 2
    run = jax.jit(lambda xs: unroll(cell, params, xs).outputs)
    np.testing.assert_array_equal(run(xs), run(xs.astype(np.float32)))
    assert run(xs).dtype == jnp.float32
    assert run(jnp.asarray(xs, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 0, 3), {}, "T = 0: must be at least one time step"),
        ((0, 2, 3), {"time_major": True, "remat": True}, "T = 0: must be at least one time step"),
        ((5, 3), {}, "xs.shape = (5, 3): must be (*batch, T, D), or (T, *batch, D) if time_major"),
        ((2, 5, 3), {"outputs": "first"}, "outputs = 'first': must be one of all, last"),
        ((2, 5, 3), {"remat": 0}, "remat = 0: must be a whole number, 1 or more"),
        ((2, 5, 3), {"remat": 2.5}, "remat = 2.5: must be a whole number, 1 or more"),
    ],
)
def test_bad_arguments_are_refused_by_name(random_params, shape, options, message):
    cell = CELLS["wave"]
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        unroll(cell, random_params(cell, 3), np.zeros(shape, np.float32), **options)


def test_auto_falls_back_where_there_is_no_engine(random_params):
    """A user's own cell, kernels of their own, a hidden trajectory, no batch axis: the scan."""
    xs = normal(2, 5, 3)
    for cell, options in (
        (CELLS["two arrays"], {}),
        (wave(2, 4, local=True), {}),
        (wave(2, 4, form="conv"), {}),
        (CELLS["wave"], {"return_hidden": True}),
        (CELLS["wave"], {"remat": True}),
    ):
        params = random_params(cell, 3, scale=0.5)
        expected = unroll(cell, params, xs, **options).outputs
        np.testing.assert_array_equal(unroll(cell, params, xs, backend="auto", **options).outputs, expected)
        with pytest.raises(ValueError, match=r"^backend = 'fused': must be ('scan' or 'auto' for|one of auto, scan$)"):
            unroll(cell, params, xs, backend="fused", **options)
