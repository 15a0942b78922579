"""The loop over time: against a Python loop of steps, and against itself under every option and transformation."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.flatten_util import ravel_pytree
from user_cells import antisymmetric, transcribed_antisymmetric, transcribed_unitary, unitary

from wrnn_jax import unroll
from wrnn_jax.cells import elman, first_carry, wave
from wrnn_jax.readouts import linear, with_readout

CELLS = {
    "wave": wave(2, 4, activation="tanh"),
    "unitary": unitary(4),
    "antisymmetric": antisymmetric(4),
}
TRANSCRIBED = {"unitary": transcribed_unitary, "antisymmetric": transcribed_antisymmetric}


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


def value_and_gradients(forward, *arguments):
    """What ``forward(*arguments)`` gives, and the gradients of a loss that sees all of it."""

    def loss(*arguments):
        results = tuple(forward(*arguments))
        flat, _ = ravel_pytree(results)
        return jnp.mean(jnp.cos(jnp.arange(flat.size, dtype=jnp.float32)) * flat**2), results

    return jax.jit(jax.value_and_grad(loss, argnums=range(len(arguments)), has_aux=True))(*arguments)


@pytest.mark.parametrize(("name", "steps"), [("wave", 1), ("unitary", 5)])
def test_unroll_is_the_python_loop(random_params, name, steps):
    """Carry, outputs and hidden states, and gradients with respect to parameters, inputs and the initial carry."""
    cell = CELLS[name]
    arguments = random_params(cell, 3, scale=0.5), normal(2, steps, 3), start(cell, 2)
    expected = value_and_gradients(lambda *args: python_loop(cell, *args), *arguments)
    actual = value_and_gradients(
        lambda params, xs, carry: unroll(cell, params, xs, carry=carry, return_hidden=True), *arguments
    )
    assert_close(actual, expected)


@pytest.mark.parametrize("name", TRANSCRIBED)
def test_a_start_and_prepared_work_are_the_published_equation(random_params, name):
    """In ``unroll``, and stepped by hand from the first carry: value, and gradients of inputs and every parameter."""
    cell = CELLS[name]
    arguments = random_params(cell, 3, scale=0.5), normal(2, 5, 3)

    def by_hand(params, xs):
        return python_loop(cell, params, xs, first_carry(cell, params, (2,)))[1:]

    def transcribed(params, xs):
        with jax.numpy_dtype_promotion("standard"):  # Of real and complex numbers.
            hidden = TRANSCRIBED[name](params, xs)
        return hidden.reshape(2, 5, -1), hidden

    expected = value_and_gradients(transcribed, *arguments)
    assert min(np.abs(leaf).max() for leaf in jax.tree.leaves(expected[1])) > 0.01
    assert_close(value_and_gradients(by_hand, *arguments), expected)
    unrolled = value_and_gradients(lambda *args: unroll(cell, *args, return_hidden=True)[1:], *arguments)
    assert_close(unrolled, expected)

    # An ensemble of two; and in bfloat16, in which steps begin and compute what was prepared in float32.
    each = jax.vmap(lambda params: unroll(cell, params, arguments[1], outputs="last").outputs)
    members = each(jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), arguments[0]))
    assert_close(members[0], expected[0][1][0][:, -1])
    assert not np.allclose(members[1], members[0], atol=1e-2)
    low = unroll(cell, arguments[0], jnp.asarray(arguments[1], jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(low)} == {jnp.dtype(jnp.bfloat16)}
    assert_close(low.outputs.astype(jnp.float32), expected[0][1][0], 0.05)


def test_a_unitary_recurrence_keeps_the_norm_of_its_trained_start():
    cell = CELLS["unitary"]
    params = cell.init(jax.random.key(0), 3)
    hidden = unroll(cell, params, np.zeros((2, 50, 3)), return_hidden=True).hidden
    norms = jnp.linalg.norm(hidden.reshape(2, 50, -1), axis=-1)
    assert_close(norms, jnp.full((2, 50), jnp.linalg.norm(params["first"])))


def primitives(program, in_loop=False):
    """The name of every operation, and whether a scan repeats it."""
    for equation in program.eqns:
        yield equation.primitive.name, in_loop
        for part in jax.tree.leaves(equation.params, is_leaf=lambda part: isinstance(part, ClosedJaxpr | Jaxpr)):
            if isinstance(part, ClosedJaxpr | Jaxpr):
                program = part.jaxpr if isinstance(part, ClosedJaxpr) else part
                yield from primitives(program, in_loop or equation.primitive.name == "scan")


@pytest.mark.parametrize("options", [{}, {"remat": 2, "outputs": "last"}])
def test_what_is_prepared_is_computed_once_a_sequence(options):
    """Forward and backward; without ``prepare`` the same cell computes it in every step. Only it has a sine in it."""
    cell = with_readout(CELLS["unitary"], linear(2))
    params, xs = cell.init(jax.random.key(0), 3), normal(2, 5, 3)

    def loss(params, cell):
        return jnp.sum(unroll(cell, params, xs, **options).outputs)

    for of_loss in (loss, jax.grad(loss)):
        found = set(primitives(jax.make_jaxpr(of_loss, static_argnums=1)(params, cell).jaxpr))
        assert {("sin", False), ("sqrt", True)} <= found
        assert ("sin", True) not in found
    unprepared = cell._replace(prepare=None)
    assert ("sin", True) in set(primitives(jax.make_jaxpr(loss, static_argnums=1)(params, unprepared).jaxpr))
    assert_close(loss(params, unprepared), loss(params, cell))


def test_a_start_that_is_no_carry_is_refused_by_name():
    cell = CELLS["unitary"]
    params = cell.init(jax.random.key(0), 3)
    for start, line in [
        (lambda params: params["first"], "cell.start = 'an array (2, 4)': must be of re, im, as cell.initial_carry"),
        (lambda params: (*params["first"], 0), "cell.start = 'a tuple of 3': must be of re, im, as cell.initial_carry"),
        (lambda params: params["V"], "cell.start = 'an array (2, 4, 3)': must be of re, im"),
        (lambda params: tuple(params["V"]), "cell.start.re.shape = (4, 3): must be (4,), as cell.initial_carry has it"),
        (
            lambda params: (jax.lax.complex(*params["first"]),) * 2,
            "cell.start.re.dtype = 'complex64': must be a",
        ),
    ]:
        wrong = cell._replace(start=start)
        for call in (unroll, lambda cell, params, xs: first_carry(cell, params, xs.shape[:1])):
            with pytest.raises(ValueError, match="^" + re.escape(line)):
                call(wrong, params, normal(2, 5, 3))


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
    """Values and gradients over T = 7 steps of a cell with a trained start, prepared work and a carry of two arrays."""
    cell = CELLS["unitary"]

    def forward(params, xs):
        return unroll(cell, params, xs, remat=remat, outputs=outputs, return_hidden=True)

    return value_and_gradients(forward, cell.init(jax.random.key(0), 3), normal(2, 7, 3))


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
        (CELLS["antisymmetric"], {}),
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
