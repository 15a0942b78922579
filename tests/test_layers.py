"""Layers against their equations, in training and in evaluation, on one device and on two."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from wrnn_jax import cells, layers, readouts, unroll
from wrnn_jax.layers import (
    READINGS,
    Layer,
    Training,
    Variables,
    batch_norm,
    bidirectional,
    chain,
    dense,
    dropout,
    elementwise,
    layer_norm,
    read,
    recurrent,
    residual,
)

KEY = jax.random.key(0, impl="unsafe_rbg")  # Of starts: compiles several times faster than the default generator.
DRAWS = jax.random.key(0)
B, T, D, N = 4, 5, 6, 6


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


XS = normal(B, T, D)
TRAINING = Training(DRAWS)


def double(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def assert_close(found, expected, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=rtol, atol=atol), found, expected)


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
    hidden = layer.hidden(variables, XS)
    assert set(hidden) == {""}
    np.testing.assert_array_equal(hidden[""], expected.hidden)
    assert (layer.output_size, stats) == (N, ())
    remembered = recurrent(cell, remat=2)  # Of auto, remat takes the scan.
    np.testing.assert_allclose(remembered.apply(variables, XS)[0], ys, rtol=1e-6)


def test_dense_is_the_affine_map_of_every_step():
    layer = dense(3, bias_init="random")
    variables = layer.init(KEY, D)
    ys, _ = layer.apply(variables, XS)
    kernel, bias = (double(variables.params[name]) for name in ("kernel", "bias"))
    assert_close(ys, double(XS) @ kernel.T + bias)
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
    ys, stats = layer.apply(variables, XS, TRAINING)
    assert stats == {"0": {"steps": 1}, "1": {"0": {"steps": 1}}}
    again, _ = layer.apply(variables, XS, TRAINING)
    np.testing.assert_array_equal(ys, again)
    draws = [chain(shift_in_training(1.0)).apply(Variables({"0": ()}, {"0": {"steps": 0}}), XS, TRAINING)[0] - XS]
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


def test_hidden_states_of_a_chain_are_those_of_its_layers_by_name():
    """Of whatever sizes, of those alone that have some, chains in it too."""
    first, second = elman_layer(channels=2), elman_layer(channels=1)
    layer = chain(first, residual(chain(elementwise(jnp.sin), memory=second)), last=dense(3))
    variables = layer.init(KEY, D)
    states = layer.hidden(variables, XS)
    assert {name: array.shape for name, array in states.items()} == {
        "0": (B, T, 2, N // 2),
        "1.memory": (B, T, 1, N),
    }
    own = Variables(variables.params["0"])
    ys, _ = first.apply(own, XS)
    np.testing.assert_array_equal(states["0"], first.hidden(own, XS)[""])
    inner = Variables(variables.params["1"]["memory"])
    np.testing.assert_allclose(states["1.memory"], second.hidden(inner, jnp.sin(ys))[""], rtol=1e-6)


def test_hidden_states_of_both_directions_are_each_as_it_goes_through_time():
    layer = bidirectional(elman_layer(), elman_layer())
    variables = layer.init(KEY, D)
    states = layer.hidden(variables, XS)
    assert list(states) == ["forward", "backward"]
    params = variables.params
    for name, given in (("forward", XS), ("backward", XS[:, ::-1])):
        np.testing.assert_array_equal(states[name], elman_layer().hidden(Variables(params[name]), given)[""])


def test_hidden_states_are_in_the_order_of_the_layers_compiled_too():
    layer = chain(*[elementwise(jnp.sin)] * 2, elman_layer(), *[elementwise(jnp.sin)] * 7, elman_layer())
    variables = layer.init(KEY, D)
    assert list(jax.jit(layer.hidden)(variables, XS)) == ["2", "10"]


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
    """Centred over all that it is given: in one piece it would be centred over time as well."""
    centred = readouts.Readout(lambda key, size: {}, lambda params, y: y - y.mean(), D)
    network = read(chain(), centred, READINGS["all"])
    outputs, _ = network.apply(network.init(KEY, D), XS)
    assert_close(outputs, XS - XS.mean((0, 2), keepdims=True))


AXES = {"layer": (-1,), "batch-time": (0, 1), "batch": (0,)}


def norm_of(over, **options):
    return layer_norm(**options) if over == "layer" else batch_norm(over, T, **options)


def normalised(xs, mean, variance, params, eps=1e-5):
    xs, params = double((xs, params))
    return params["scale"] * (xs - mean) / np.sqrt(variance + eps) + params["bias"]


def norm_and_gradients(xs, params, cotangent, axes, eps=1e-5):
    """y, ∂L/∂x, ∂L/∂γ and ∂L/∂β in float64 for L = Σ cotangent · y, from the derivatives written out by hand."""
    mean = xs.mean(axes, keepdims=True)
    deviation = np.sqrt(((xs - mean) ** 2).mean(axes, keepdims=True) + eps)
    unit = (xs - mean) / deviation
    pulled = params["scale"] * cotangent
    inner = pulled - pulled.mean(axes, keepdims=True) - unit * (pulled * unit).mean(axes, keepdims=True)
    gradients = {"scale": (cotangent * unit).sum((0, 1)), "bias": cotangent.sum((0, 1))}
    return params["scale"] * unit + params["bias"], inner / deviation, gradients


@pytest.mark.parametrize("over", AXES)
def test_norms_are_their_equations_in_value_and_gradient(over):
    layer, cotangent = norm_of(over), normal(B, T, D, seed=1)
    variables = layer.init(KEY, D)
    np.testing.assert_array_equal(variables.params["scale"], np.ones(D))
    np.testing.assert_array_equal(variables.params["bias"], np.zeros(D))
    params = {"scale": normal(D, seed=2), "bias": normal(D, seed=3)}

    @jax.jit
    def value_and_gradients(params, xs):
        ys, pull_back = jax.vjp(
            lambda *given: layer.apply(variables._replace(params=given[0]), given[1], TRAINING)[0], params, xs
        )
        return ys, *pull_back(cotangent)[::-1]

    # Features far from 0 keep their variance.
    for offset, precision in ((0.0, 2e-5), (100.0, 2e-3)):
        expected = norm_and_gradients(*double((XS + offset, params, cotangent)), AXES[over])
        assert_close(value_and_gradients(params, XS + offset), expected, precision, precision)

    # Inputs of 16 bits: all is computed in 32, and rounded at the end.
    rounded = XS.astype(jnp.bfloat16)
    half, stats = layer.apply(variables, rounded, TRAINING)
    whole, _ = layer.apply(variables, rounded.astype(jnp.float32), TRAINING)
    np.testing.assert_array_equal(half, whole.astype(jnp.bfloat16))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(stats))


@pytest.mark.parametrize("over", ["batch-time", "batch"])
def test_running_statistics_follow_the_batches_and_serve_in_evaluation(over):
    momentum, axes = 0.7, AXES[over]
    layer = norm_of(over, momentum=momentum)
    variables = layer.init(KEY, D)._replace(params={"scale": normal(D, seed=2), "bias": normal(D, seed=3)})
    batches = normal(3, B, T, D, seed=4) * 2.0 + 1.0

    def step(stats, xs):
        return layer.apply(variables._replace(stats=stats), xs, TRAINING)[1], None

    stats, _ = jax.lax.scan(step, variables.stats, batches)
    mean, variance = 0.0, 1.0
    for xs in np.asarray(batches, np.float64):
        mean = momentum * mean + (1 - momentum) * xs.mean(axes)
        variance = momentum * variance + (1 - momentum) * xs.var(axes, ddof=1)
    assert mean.shape == ((D,) if over == "batch-time" else (T, D))
    assert_close(stats, {"mean": mean, "variance": variance})

    # Evaluation takes these, leaves them as they are, and treats each sequence by itself.
    trained = variables._replace(stats=stats)
    ys, after = layer.apply(trained, XS)
    assert_close(ys, normalised(XS, mean, variance, variables.params), rtol=1e-4)
    assert after is stats
    np.testing.assert_array_equal(layer.apply(trained, XS[1:2])[0], ys[1:2])
    longer, shorter = normal(B, T + 2, D), XS[:, :2]
    if over == "batch":
        mean, variance = (np.concatenate([each, each[-1:], each[-1:]]) for each in (mean, variance))
        _, after = layer.apply(trained, shorter, TRAINING)
        np.testing.assert_array_equal(after["mean"][2:], stats["mean"][2:])
        assert_close(after["mean"][:2], momentum * mean[:2] + (1 - momentum) * double(shorter).mean(0))
    assert_close(layer.apply(trained, longer)[0], normalised(longer, mean, variance, variables.params), rtol=1e-4)


def test_two_devices_compute_the_numbers_of_one():
    """Outputs, statistics and gradients of two members of a grid; each device has half of the batch."""
    network = chain(dense(D), batch_norm(), dropout(0.3), norm_of("batch"), dense(2))
    variables = jax.vmap(lambda key: network.init(key, D))(jax.random.split(DRAWS, 2))
    keys, targets = jax.random.split(jax.random.key(1), 2), normal(B, T, 2, seed=5)

    def member(axis, xs, targets, variables, key):
        def loss(params):
            ys, stats = network.apply(variables._replace(params=params), xs, Training(key, axis))
            return jnp.square(ys - targets).mean(), (stats, ys)

        (value, (stats, ys)), gradient = jax.value_and_grad(loss, has_aux=True)(variables.params)
        return jax.lax.pmean((value, gradient), axis) if axis else (value, gradient), stats, ys

    def members(axis, xs, targets, *each):
        return jax.vmap(partial(member, axis, xs, targets))(*each)

    whole, split = PartitionSpec(), PartitionSpec("batch")
    on_two = jax.shard_map(
        partial(members, "batch"),
        mesh=Mesh(np.array(jax.devices()[:2]), ("batch",)),
        in_specs=(split, split, whole, whole),
        out_specs=(whole, whole, PartitionSpec(None, "batch")),
        check_vma=False,
    )
    expected = jax.jit(partial(members, None))(XS, targets, variables, keys)
    assert_close(jax.jit(on_two)(XS, targets, variables, keys), expected, rtol=2e-5)
    # The halves have statistics of their own, and the members outputs.
    assert np.abs(XS[:2].mean((0, 1)) - XS[2:].mean((0, 1))).max() > 0.1
    assert np.abs(expected[2][0] - expected[2][1]).max() > 0.1


def test_batch_norm_wants_a_batch_and_options_that_mean_something():
    layer = batch_norm()
    variables = layer.init(KEY, D)
    with pytest.raises(ValueError, match=r"^batch = 1: must be 2 or more for batch norm$"):
        layer.apply(variables, XS[:1], TRAINING)
    refusals = {
        "over = 'time': must be one of batch-time, batch": lambda: batch_norm("time"),
        "steps = None: must be a whole number, 1 or more": lambda: batch_norm("batch"),
        "momentum = 1.0: must be a number from 0 to below 1": lambda: batch_norm(momentum=1.0),
        "eps = 0: must be a finite number above 0": lambda: layer_norm(eps=0),
        "dropout = 1: must be a number from 0 to below 1": lambda: dropout(1),
        "dropout = nan: must be a number from 0 to below 1": lambda: dropout(float("nan")),
    }
    for line, refused in refusals.items():
        with pytest.raises(ValueError) as error:  # noqa: PT011
            refused()
        assert str(error.value) == line


def test_dropout_keeps_the_mean_and_drops_each_feature_of_each_step():
    rate, size = 0.3, (40, 50, 20)
    layer, ones = dropout(rate), jnp.ones(size)
    ys, stats = layer.apply(Variables(()), ones, TRAINING)
    assert stats == ()
    kept = np.asarray(ys) > 0
    np.testing.assert_allclose(ys, kept / (1 - rate), rtol=1e-6)
    deviation = (rate * (1 - rate) / ones.size) ** 0.5
    assert abs(kept.mean() - (1 - rate)) < 4 * deviation
    assert abs(np.var(ys) - rate / (1 - rate)) < 0.02
    for axis in range(3):  # No axis shares a draw: neighbours along it are independent.
        first, second = (np.take(kept, range(at, size[axis] - 1 + at), axis) for at in (0, 1))
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 4 / ones.size**0.5

    np.testing.assert_array_equal(layer.apply(Variables(()), ones, TRAINING)[0], ys)
    other, _ = layer.apply(Variables(()), ones, Training(jax.random.key(1)))
    assert abs(np.corrcoef(kept.ravel(), np.ravel(other > 0))[0, 1]) < 4 / ones.size**0.5
    # What is drawn is the sequence's own: a part of the batch has the same, in any dtype.
    half = layer.apply(Variables(()), ones[:7].astype(jnp.bfloat16), TRAINING)[0]
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half > 0, kept[:7])


def test_dropout_with_tied_draws_drops_a_feature_for_a_whole_sequence():
    ys, _ = dropout(0.5, tied=True).apply(Variables(()), jnp.ones((40, 5, 20)), TRAINING)
    np.testing.assert_array_equal(ys, jnp.broadcast_to(ys[:, :1], ys.shape))
    kept = np.asarray(ys[:, 0] > 0)
    assert abs(kept.mean() - 0.5) < 4 * 0.5 / kept.size**0.5
    assert abs(np.corrcoef(kept[:-1].ravel(), kept[1:].ravel())[0, 1]) < 4 / kept.size**0.5


def test_dropout_in_evaluation_and_of_rate_0_is_the_identity():
    assert dropout(0.9).apply(Variables(()), XS)[0] is XS
    assert dropout(0).apply(Variables(()), XS, Training(key=None))[0] is XS  # Draws nothing.


def test_layers_of_a_chain_drop_independently():
    size = (40, 50, 20)
    layer = chain(dropout(0.5), dropout(0.5))
    ys, _ = layer.apply(layer.init(KEY, 20), jnp.ones(size), TRAINING)
    # Both draws alike would keep a half, not a quarter.
    assert abs(float((ys > 0).mean()) - 0.25) < 4 * (3 / 16 / ys.size) ** 0.5


def test_the_example_of_the_docstring():
    network, in_parts = (layers.__doc__.split("\n\n")[part].splitlines() for part in (2, 4))
    names = {**vars(layers), "cells": cells, "readouts": readouts, "jax": jax, "xs": XS[..., :1], "key": KEY}
    exec("\n".join(line.strip() for line in network), names)
    assert names["outputs"].shape == (B, 10)
    exec("\n".join(line.strip() for line in in_parts), names)
    assert_close(names["outputs"][:, -1], names["network"].apply(names["variables"], names["xs"])[0])
