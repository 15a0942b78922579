"""Layers on sequences that come in parts, and on sequences packed one after another."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from user_cells import unitary

from wrnn_jax import cells, readouts
from wrnn_jax.layers import (
    READINGS,
    Layer,
    Training,
    Variables,
    batch_norm,
    chain,
    dense,
    dropout,
    elementwise,
    layer_norm,
    read,
    recurrent,
    residual,
)
from wrnn_jax.validation import InvalidValue

KEY = jax.random.key(0, impl="unsafe_rbg")
B, T, D = 2, 6, 3
TRAINING = Training(jax.random.key(0))
NETWORK = read(
    chain(
        batch_norm("batch", steps=4),  # Fewer than there are.
        first=recurrent(unitary(2)),  # With a trained start.
        norm=layer_norm(),
        skipped=residual(chain(recurrent(cells.wave(1, 4, encoder_init="uniform")), dropout(0.5))),
        other=chain(batch_norm(), elementwise(jnp.sin), dense(3), dropout(0.5, tied=True)),
    ),
    readouts.mlp(2, 4),
    READINGS["all"],
)
STARTS = np.zeros((B, T), bool)
STARTS[0, 2] = STARTS[1, 0] = STARTS[1, 5] = True
PACKED = ((0, 0, 2), (0, 2, 6), (1, 0, 5), (1, 5, 6))
"""Row, first step and end of each sequence."""


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


XS = normal(B, T, D)


def assert_close(found, expected, tolerance=1e-5):
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, tolerance, tolerance), found, expected)


@pytest.fixture(scope="module")
def variables():
    """No two numbers of which are alike, nor the statistics of two steps."""
    made, rng = NETWORK.init(KEY, D), np.random.default_rng(1)
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape), leaf.dtype), made)


run = jax.jit(NETWORK.stream.run)
apply = jax.jit(NETWORK.apply)


@settings(max_examples=8)
@given(cuts=st.sets(st.integers(1, T - 1), min_size=2))
def test_parts_are_the_whole_however_it_is_cut(variables, cuts):
    """Beyond the steps that a norm knows as well."""
    carry, parts = NETWORK.stream.start(variables, B), []
    for part in jnp.split(XS, sorted(cuts), axis=1):
        carry, ys = run(variables, carry, part)
        parts.append(ys)
    assert_close(jnp.concatenate(parts, axis=1), apply(variables, XS)[0])


def test_a_carry_is_of_its_sequences_and_of_one_kind_whatever_the_step(variables):
    """It goes through ``lax.scan``; a part of a batch goes on with a part of its carry; low precision stays so."""
    whole, _ = apply(variables, XS)
    begun, _ = run(variables, NETWORK.stream.start(variables, B), XS[:, :2])
    _, turned = run(variables, jax.tree.map(lambda leaf: leaf[::-1], begun), XS[::-1, 2:])
    assert_close(turned, whole[::-1, 2:])

    def step(carry, x):
        carry, ys = NETWORK.stream.run(variables, carry, x[:, None])
        return carry, ys[:, 0]

    _, ys = jax.jit(partial(jax.lax.scan, step))(NETWORK.stream.start(variables, B), jnp.moveaxis(XS, 1, 0))
    assert_close(jnp.moveaxis(ys, 0, 1), whole)
    low = jnp.bfloat16
    start = jax.eval_shape(lambda variables: NETWORK.stream.start(variables, B, low), variables)
    after, ys = jax.eval_shape(run, variables, start, XS.astype(low))
    assert after == start
    assert ys.dtype == low


def test_packed_sequences_are_each_as_by_itself(variables):
    """Outputs, and gradients of parameters and inputs."""

    def loss_and_outputs(ys):
        return jnp.sum(jnp.cos(jnp.arange(ys.size, dtype=jnp.float32).reshape(ys.shape)) * ys**2), ys

    def packed(params, xs):
        return loss_and_outputs(NETWORK.apply(variables._replace(params=params), xs, None, STARTS)[0])

    def alone(params, xs):
        own = variables._replace(params=params)
        parts = {at: NETWORK.apply(own, xs[at[0] : at[0] + 1, at[1] : at[2]])[0] for at in PACKED}
        rows = [jnp.concatenate([parts[at] for at in PACKED if at[0] == row], axis=1) for row in range(B)]
        return loss_and_outputs(jnp.concatenate(rows))

    found, expected = (
        jax.jit(jax.value_and_grad(way, argnums=(0, 1), has_aux=True))(variables.params, XS) for way in (packed, alone)
    )
    assert_close(found, expected, 1e-4)
    assert np.abs(found[1][0]["layers"]["first"]["first"]).min() > 0
    assert np.abs(found[0][1] - apply(variables, XS)[0]).max() > 1e-3


@pytest.mark.parametrize("reading", READINGS)
def test_what_reads_the_last_step_is_streamed_as_if_each_were_the_last_and_the_mean_is_not(reading):
    centred = readouts.Readout(lambda key, size: {}, lambda params, y: y - y.mean(), 4)
    network = read(recurrent(cells.elman(4)), centred, READINGS[reading])
    made = network.init(KEY, D)
    if reading == "mean":
        assert network.stream is None
        line = "starts = 'an array (2, 6)': must be left out: what is read goes across sequences"
        with pytest.raises(InvalidValue, match=f"^{re.escape(line)}$"):
            network.apply(made, XS, None, STARTS)
        return
    _, ys = network.stream.run(made, network.stream.start(made, B), XS)
    for end in (2, T):
        outputs, _ = network.apply(made, XS[:, :end])
        assert_close(ys[:, end - 1], outputs[:, -1] if reading == "all" else outputs)
    # The last of the packed sequences is read.
    rowwise = read(recurrent(cells.elman(4)), readouts.linear(2), READINGS[reading])
    made = rowwise.init(KEY, D)
    packed, alone = rowwise.apply(made, XS, None, STARTS)[0][1:], rowwise.apply(made, XS[1:, 5:])[0]
    assert_close(packed if reading == "last" else packed[:, 5:], alone)


def test_a_layer_that_cannot_be_streamed_makes_a_network_that_cannot():
    backwards = Layer(lambda key, size: Variables(()), lambda variables, xs, training=None: (xs[:, ::-1], ()))
    for layer in (chain(dense(3), backwards), residual(backwards), read(backwards, readouts.direct(D))):
        assert layer.stream is None
    line = "starts = 'an array (2, 6)': must be left out: a layer takes none"
    for layer in (chain(dense(3), backwards), residual(backwards), read(backwards, readouts.direct(D))):
        made = layer.init(KEY, D)
        assert layer.apply(made, XS)[0].shape[0] == B
        with pytest.raises(InvalidValue, match=f"^{re.escape(line)}$"):
            layer.apply(made, XS, None, STARTS)


def test_packed_sequences_go_by_the_scan_whatever_the_backend():
    cell = cells.wave(2, 4)
    layer, scanned = (recurrent(cell, backend=backend) for backend in ("fused", "scan"))
    made = layer.init(KEY, D)
    np.testing.assert_array_equal(layer.apply(made, XS, None, STARTS)[0], scanned.apply(made, XS, None, STARTS)[0])
    with pytest.raises(InvalidValue, match=r"^starts.shape = \(2, 5\): must be \(2, 6\), \(\*batch, T\) of inputs"):
        layer.apply(made, XS, None, STARTS[:, :5])


def test_in_training_each_of_the_packed_sequences_drops_its_own_features():
    ones = jnp.ones((40, T, 50))
    starts = jnp.zeros((40, T), bool).at[:, 2].set(True).at[:20, 3].set(True)
    kept = np.asarray(dropout(0.5, tied=True).apply(Variables(()), ones, TRAINING, starts)[0] > 0)
    for row, cuts in ((0, [2, 3]), (39, [2])):
        for part in np.split(kept[row], cuts):
            np.testing.assert_array_equal(part, np.broadcast_to(part[:1], part.shape))
    for one, other in ((0, 2), (1, 3)):
        at, later = kept[:20, one].ravel(), kept[:20, other].ravel()
        assert abs(np.corrcoef(at, later)[0, 1]) < 4 / at.size**0.5
    assert abs(kept.mean() - 0.5) < 0.05
    plain = dropout(0.5)
    np.testing.assert_array_equal(
        plain.apply(Variables(()), ones, TRAINING, starts)[0], plain.apply(Variables(()), ones, TRAINING)[0]
    )


def test_norms_of_packed_sequences_in_training():
    """Over batch and time nothing is another's; where steps have statistics of their own, they are told apart."""
    for layer in (batch_norm(), layer_norm()):
        made = layer.init(KEY, D)
        assert_close(layer.apply(made, XS, TRAINING, STARTS), layer.apply(made, XS, TRAINING))
    layer = batch_norm("batch", T)
    line = "starts = 'an array (2, 6)': must be left out in training of batch norm over 'batch', each step of which"
    with pytest.raises(InvalidValue, match="^" + re.escape(line)):
        layer.apply(layer.init(KEY, D), XS, TRAINING, STARTS)
