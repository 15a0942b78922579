"""Sequences packed one after another: each as by itself, in every cell, under every option and transformation."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_cell import CELLS
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, PartitionSpec
from user_cells import antisymmetric, unitary

from wrnn_jax import unroll
from wrnn_jax.cells import elman, first_carry, lstm
from wrnn_jax.validation import InvalidValue

UNITARY = unitary(4)
"""With a trained start, prepared work, and a carry of two arrays."""
ALL = CELLS | {"unitary": UNITARY, "antisymmetric": antisymmetric(4)}
SIZE = 3
LENGTHS = ((2, 3), (5,))
"""Of the sequences in each row."""


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def starts_of(lengths):
    """``(B, T)``: true where a sequence begins."""
    steps = sum(lengths[0])
    return np.stack([np.isin(np.arange(steps), np.cumsum([0, *row[:-1]])) for row in lengths])


def assert_close(actual, expected, tolerance=1e-5):
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance), actual, expected)


def by_themselves(cell, params, xs, lengths):
    """Outputs ``(B, T, F)`` and hidden states, each sequence unrolled alone and put where it is among the packed."""
    rows = []
    for row, of_row in zip(xs, lengths, strict=True):
        parts = jnp.split(row, np.cumsum(of_row)[:-1])
        runs = [unroll(cell, params, part, time_major=True, return_hidden=True) for part in parts]
        rows.append(
            [jnp.concatenate(steps) for steps in zip(*[(run.outputs, run.hidden) for run in runs], strict=True)]
        )
    return tuple(map(jnp.stack, zip(*rows, strict=True)))


def value_and_gradients(forward, *arguments):
    def loss(*arguments):
        results = forward(*arguments)
        flat, _ = ravel_pytree(results)
        return jnp.mean(jnp.cos(jnp.arange(flat.size, dtype=jnp.float32)) * flat**2), results

    return jax.value_and_grad(loss, argnums=range(len(arguments)), has_aux=True)(*arguments)


@pytest.mark.parametrize("name", ALL)
def test_packed_sequences_are_each_as_by_itself(random_params, name):
    """Outputs and states, and gradients of parameters, among them those of a trained start, and of inputs."""
    cell = ALL[name]
    arguments = random_params(cell, SIZE, scale=0.5), normal(2, 5, SIZE)

    @jax.jit
    def both(*arguments):
        packed = partial(unroll, cell, starts=starts_of(LENGTHS), return_hidden=True)
        ways = (lambda *args: packed(*args)[1:]), (lambda *args: by_themselves(cell, *args, LENGTHS))
        return [value_and_gradients(way, *arguments) for way in ways]

    packed, alone = both(*arguments)
    assert_close(packed, alone)
    if cell.start:
        start = {"unitary": ["first"]}.get(name, ["cell", "encoder", "bias"])
        found = packed[1][0]
        for part in start:
            found = found[part]
        assert np.abs(found).min() > 0


@settings(max_examples=4)
@given(
    batch=st.lists(st.integers(1, 2), max_size=2),
    starts=st.lists(st.booleans(), min_size=24, max_size=24),
    remat=st.sampled_from([True, 2, 4]),
)
def test_options_are_views_of_one_computation(random_params, batch, starts, remat):
    """Against a loop of steps: axes, the last step alone, stored states, another first carry, and an ensemble."""
    cell, steps = UNITARY, 6
    params, xs = random_params(cell, SIZE, scale=0.5), normal(steps, *batch, SIZE)
    starts = np.reshape(starts[: steps * int(np.prod(batch))], (steps, *batch))
    carry = jax.tree.map(lambda leaf: 0.5 + leaf, cell.initial_carry(batch))

    @jax.jit
    def variants(params):
        fresh, now, ys = first_carry(cell, params, batch), carry, []
        for x, start in zip(xs, starts, strict=True):
            begin = jnp.expand_dims(start, -1)
            now, y = cell.step(params, jax.tree.map(partial(jnp.where, begin), fresh, now), x)
            ys.append(y)
        run = partial(unroll, cell, params, xs, starts=starts, carry=carry, time_major=True)
        full, last = run(remat=remat, return_hidden=True), run(outputs="last")
        every = jax.vmap(lambda params: unroll(cell, params, xs, starts=starts, carry=carry, time_major=True).outputs)
        member = every(jax.tree.map(lambda leaf: jnp.stack([leaf, 0 * leaf]), params))[0]
        expected = now, jnp.stack(ys)
        found = [tuple(full[:2]), (last.carry, full.outputs), (full.carry, member)]
        if batch:
            rows = tuple(np.moveaxis(array, 0, len(batch)) for array in (xs, starts))
            by_row = unroll(cell, params, rows[0], starts=rows[1], carry=carry, remat=remat)
            found.append((by_row.carry, jnp.moveaxis(by_row.outputs, len(batch), 0)))
        return expected, found, last.outputs

    expected, found, last = variants(params)
    for other in found:
        assert_close(other, expected)
    assert_close(last, expected[1][-1])


def test_without_a_true_one_and_with_all_true(random_params):
    """Where none begins the sequence is as it is; where all do, each step is by itself."""
    cell = lstm(4)
    params, xs = random_params(cell, SIZE), normal(2, 5, SIZE)
    run = jax.jit(lambda starts: unroll(cell, params, xs, starts=starts).outputs)
    assert_close(run(np.zeros((2, 5), bool)), unroll(cell, params, xs).outputs)
    alone = unroll(cell, params, xs.reshape(10, 1, SIZE)).outputs
    assert_close(run(np.ones((2, 5), bool)), alone.reshape(2, 5, 4))


def test_what_begins_is_in_the_dtype_of_the_carry_that_is_given(random_params):
    cell, starts = UNITARY, starts_of(LENGTHS)
    params, xs = random_params(cell, SIZE, scale=0.5), jnp.asarray(normal(2, 5, SIZE), jnp.bfloat16)
    for carry, dtype in ((None, jnp.bfloat16), (cell.initial_carry((2,)), jnp.float32)):
        result = unroll(cell, params, xs, starts=starts, carry=carry)
        assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype(dtype)}
    exactly = unroll(cell, params, xs.astype(jnp.float32), starts=starts)
    assert_close(result.outputs, exactly.outputs, 1e-2)


def test_the_scan_takes_them_and_auto_takes_the_scan(random_params):
    cell, starts = CELLS["wave"], starts_of(LENGTHS)
    params, xs = random_params(cell, SIZE, scale=0.5), normal(2, 5, SIZE)
    programs = [
        str(jax.make_jaxpr(partial(unroll, cell, starts=starts, backend=backend))(params, xs))
        for backend in ("scan", "auto")
    ]
    assert programs[0] == programs[1]
    # Where none are given nothing is chosen.
    for of_starts in ({}, {"starts": starts}):
        program = str(jax.make_jaxpr(partial(unroll, cell, **of_starts))(params, xs))
        assert ("select_n" in program) == bool(of_starts)
    for backend in ("fused", "native", "parallel"):
        line = f"backend = '{backend}': must be 'scan' or 'auto' for more batch axes than one, hidden states, remat or"
        with pytest.raises(ValueError, match=f"^{re.escape(line)} starts$"):
            unroll(cell, params, xs, starts=starts, backend=backend)


@pytest.mark.parametrize(
    ("starts", "time_major", "line"),
    [
        (np.zeros((2, 4), bool), False, "starts.shape = (2, 4): must be (2, 5), (*batch, T) of inputs (2, 5, 3)"),
        (np.zeros((5, 2), bool), False, "starts.shape = (5, 2): must be (2, 5), (*batch, T) of inputs (2, 5, 3)"),
        (np.zeros(5, bool), True, "starts.shape = (5,): must be (2, 5), (T, *batch) of inputs (2, 5, 3)"),
        (np.zeros((2, 5, 1), bool), False, "starts.shape = (2, 5, 1): must be (2, 5), (*batch, T) of inputs (2, 5, 3)"),
        (np.zeros((2, 5), int), False, "starts.dtype = 'int32': must be bool"),
        (True, False, "starts.shape = (): must be (2, 5), (*batch, T) of inputs (2, 5, 3)"),
        ("first", False, "starts = 'a str': must be an array of numbers"),
    ],
)
def test_others_than_booleans_of_every_step_are_refused_by_name(random_params, starts, time_major, line):
    cell = elman(4)
    call = partial(unroll, cell, xs=normal(2, 5, SIZE), starts=starts, time_major=time_major)
    with pytest.raises(InvalidValue) as refused:
        jax.eval_shape(call, random_params(cell, SIZE))
    assert str(refused.value) == line


def test_on_devices_that_share_a_batch(random_params):
    """On a mesh of explicit axes, and within ``shard_map``: there also where only the starts differ by device."""
    cell, starts = UNITARY, starts_of(LENGTHS)
    params, xs = random_params(cell, SIZE, scale=0.5), jnp.broadcast_to(normal(1, 5, SIZE), (2, 5, SIZE))
    expected = jax.jit(partial(unroll, cell))(params, xs, starts=starts).outputs
    explicit = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(explicit):
        there = jax.reshard(xs, PartitionSpec("batch"))
        for placed in (starts, jax.reshard(jnp.asarray(starts), PartitionSpec("batch"))):
            ys = jax.jit(partial(unroll, cell))(jax.reshard(params, PartitionSpec()), there, starts=placed).outputs
            assert jax.typeof(ys).sharding.spec[0] == "batch"
        assert_close(jax.device_get(ys), expected)
    of_part = lambda starts: unroll(cell, params, xs[:1], starts=starts).outputs  # noqa: E731
    parts = PartitionSpec("batch")
    mapped = jax.shard_map(of_part, mesh=Mesh(jax.devices()[:2], "batch"), in_specs=parts, out_specs=parts)
    assert_close(jax.jit(mapped)(starts), expected)
