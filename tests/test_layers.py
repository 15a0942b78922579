"""Layers against their equations, in training and in evaluation, on one device and on two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wrnn_jax import cells, readouts, unroll
from wrnn_jax.layers import (
    READINGS,
    Layer,
    Training,
    Variables,
    chain,
    dense,
    elementwise,
    read,
    recurrent,
    residual,
)

KEY = jax.random.key(0)
B, T, D, N = 4, 5, 6, 6


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


XS = normal(B, T, D)


def elman_layer(channels=1, **options):
    return recurrent(cells.elman(N // channels, channels=channels, encoder_init="uniform"), backend="scan", **options)


def shift_in_training(amount):
    """x + amount · (a number of its own key) in training; counts its steps."""

    def apply(variables, xs, training=None):
        if training is None:
            return xs, variables.stats
        return xs + amount * jax.random.uniform(training.key), {"steps": variables.stats["steps"] + 1}

    return Layer(lambda key, input_size: Variables((), {"steps": jnp.int32(0)}), apply)


def test_a_cell_as_a_layer_is_its_unroll():
    cell = cells.elman(N, encoder_init="uniform")
    layer = recurrent(cell, backend="scan")
    variables = layer.init(KEY, D)
    jax.tree.map(np.testing.assert_array_equal, variables, Variables(cell.init(KEY, D)))
    ys, stats = layer.apply(variables, XS)
    expected = unroll(cell, variables.params, XS, return_hidden=True)
    np.testing.assert_array_equal(ys, expected.outputs)
    np.testing.assert_array_equal(layer.hidden(variables, XS), expected.hidden)
    assert (layer.output_size, stats) == (N, ())
    remembered = recurrent(cell, remat=2)  # Of auto, remat takes the scan.
    np.testing.assert_allclose(remembered.apply(variables, XS)[0], ys, rtol=1e-6)


def test_dense_is_the_affine_map_of_every_step():
    layer = dense(3, bias_init="random")
    variables = layer.init(KEY, D)
    ys, _ = layer.apply(variables, XS)
    kernel, bias = (np.asarray(variables.params[name], np.float64) for name in ("kernel", "bias"))
    np.testing.assert_allclose(ys, np.asarray(XS, np.float64) @ kernel.T + bias, rtol=1e-5, atol=1e-6)
    assert 0.5 < np.abs(kernel).max() * D**0.5 <= 1
    assert 0 < np.abs(bias).max() * D**0.5 <= 1
    assert not dense(3).init(KEY, D).params["bias"].any()
    plain = dense(3, use_bias=False, kernel_init=lambda key, shape: jnp.ones(shape)).init(KEY, D)
    assert set(plain.params) == {"kernel"}
    np.testing.assert_array_equal(plain.params["kernel"], np.ones((3, D)))
    assert layer.apply(variables, XS.astype(jnp.bfloat16))[0].dtype == jnp.bfloat16


def test_a_chain_is_one_layer_after_another():
    first, second, third = dense(3), elementwise(jnp.sin), dense(2)
    layer = chain(first, second, last=third)
    variables = layer.init(KEY, D)
    assert {name: jax.tree.map(jnp.shape, part) for name, part in variables.params.items()} == {
        "0": {"kernel": (3, D), "bias": (3,)},
        "1": (),
        "last": {"kernel": (2, 3), "bias": (2,)},
    }
    ys = XS
    for name, part in {"0": first, "1": second, "last": third}.items():
        ys, _ = part.apply(Variables(variables.params[name]), ys)
    np.testing.assert_array_equal(layer.apply(variables, XS)[0], ys)
    # A chain in a chain is the chain of all, with the same numbers in other places.
    nested = chain(first, chain(second, third))
    params = variables.params
    regrouped = {"0": params["0"], "1": {"0": (), "1": params["last"]}}
    stats = {"0": (), "1": {"0": (), "1": ()}}
    np.testing.assert_array_equal(nested.apply(Variables(regrouped, stats), XS)[0], ys)
    assert (layer.output_size, nested.output_size, chain(third, second).output_size) == (2, 2, 2)
    nothing = chain()
    assert nothing.apply(nothing.init(KEY, D), XS) == (XS, {})
    assert (nothing.output_size, nothing.hidden, layer.hidden, layer.rates, layer.constrain) == (None,) * 5


def test_layers_of_a_chain_start_and_draw_each_for_itself():
    alone = chain(a=dense(D), b=dense(D)).init(KEY, D).params
    among = chain(a=dense(D), noise=shift_in_training(1.0), b=dense(D)).init(KEY, D).params
    assert not np.array_equal(alone["a"]["kernel"], alone["b"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, alone, {name: among[name] for name in alone})

    layer = chain(shift_in_training(1.0), chain(shift_in_training(10.0)))
    variables = layer.init(KEY, D)
    ys, stats = layer.apply(variables, XS, Training(KEY))
    assert stats == {"0": {"steps": 1}, "1": {"0": {"steps": 1}}}
    again, _ = layer.apply(variables, XS, Training(KEY))
    np.testing.assert_array_equal(ys, again)
    draws = [chain(shift_in_training(1.0)).apply(Variables({"0": ()}, {"0": {"steps": 0}}), XS, Training(KEY))[0] - XS]
    draws.append((ys - XS - draws[0]) / 10)
    assert abs(float(draws[0][0, 0, 0] - draws[1][0, 0, 0])) > 1e-3
    evaluated, stats = layer.apply(variables, XS)
    np.testing.assert_array_equal(evaluated, XS)
    assert stats == variables.stats


def test_a_residual_layer_adds_its_inputs():
    inner = dense(D)
    layer = residual(inner)
    variables = layer.init(KEY, D)
    np.testing.assert_array_equal(layer.apply(variables, XS)[0], XS + inner.apply(variables, XS)[0])
    zero = jax.tree.map(jnp.zeros_like, variables)
    np.testing.assert_array_equal(layer.apply(zero, XS)[0], XS)
    for refused in (
        lambda: residual(dense(3)).init(KEY, D),
        lambda: residual(dense(1)).apply(dense(1).init(KEY, D), XS),  # Would be added to every feature.
    ):
        with pytest.raises(ValueError, match=r"output_size = [31]: must be 6, the size of its inputs"):
            refused()


def test_hidden_states_of_a_chain_are_joined_along_the_channels():
    first, second = elman_layer(channels=2), elman_layer(channels=2)
    layer = chain(first, residual(chain(elementwise(jnp.sin), second)), dense(3))
    variables = layer.init(KEY, D)
    states = layer.hidden(variables, XS)
    assert states.shape == (B, T, 4, N // 2)
    hidden = first.hidden(Variables(variables.params["0"]), XS)
    ys, _ = first.apply(Variables(variables.params["0"]), XS)
    np.testing.assert_array_equal(states[:, :, :2], hidden)
    inner = Variables(variables.params["1"]["1"])
    np.testing.assert_allclose(states[:, :, 2:], second.hidden(inner, jnp.sin(ys)), rtol=1e-6)
    unequal = chain(first, elman_layer(channels=1))
    with pytest.raises(ValueError, match=r"N = \[3, 6\]: must be the same in all layers"):
        unequal.hidden(unequal.init(KEY, D), XS)


def test_rates_decays_and_constraints_are_passed_through():
    half = {
        "constrain": lambda params: jax.tree.map(lambda leaf: leaf / 2, params),
        "rates": lambda params: {"encoder": 0.5, "recurrence": 0.25},
        "decays": lambda params: {"encoder": True, "recurrence": False},
    }
    network = read(chain(dense(N), cell=residual(elman_layer(**half))), readouts.linear(3))
    params = network.init(KEY, D).params
    halved = {**params, "layers": {**params["layers"], "cell": half["constrain"](params["layers"]["cell"])}}
    jax.tree.map(np.testing.assert_array_equal, network.constrain(params), halved)
    rates, decays = network.rates(params), network.decays(params)
    assert rates == {"layers": {"0": 1.0, "cell": {"encoder": 0.5, "recurrence": 0.25}}, "readout": 1.0}
    assert decays == {"layers": {"0": True, "cell": {"encoder": True, "recurrence": False}}, "readout": True}
    jax.tree.map(lambda factor, part: None, rates, params)  # A prefix of the parameters.


@pytest.mark.parametrize("reading", READINGS)
def test_a_network_reads_the_last_step_every_step_or_the_mean(reading):
    layer, readout = chain(dense(3), elementwise(jnp.tanh)), readouts.mlp(2, 4)
    network = read(layer, readout, READINGS[reading])
    variables = network.init(KEY, D)
    assert network.output_size == 2
    ys, _ = layer.apply(Variables(variables.params["layers"], variables.stats), XS)
    read_off = {"last": ys[:, -1], "all": ys, "mean": ys.sum(1) / T}[reading]
    outputs, _ = network.apply(variables, XS)
    np.testing.assert_allclose(outputs, readout.apply(variables.params["readout"], read_off), rtol=1e-6)


def test_a_readout_that_is_not_rowwise_reads_one_step_at_a_time():
    """Centred over the batch: read in one piece it would be centred over time as well."""
    centred = readouts.Readout(lambda key, size: {}, lambda params, y: y - y.mean(0, keepdims=True), D)
    network = read(chain(), centred, READINGS["all"])
    outputs, _ = network.apply(network.init(KEY, D), XS)
    np.testing.assert_allclose(outputs, XS - XS.mean(0, keepdims=True), rtol=1e-6, atol=1e-6)
