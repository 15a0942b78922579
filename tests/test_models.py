"""Models by name: their parameter counts, their starts, and that a model is its cell and its readout."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wrnn_jax import cells, unroll
from wrnn_jax.models import MODELS, ModelConfig, build, count_parameters, recurrent
from wrnn_jax.readouts import linear, mlp

KEY = jax.random.key(0, impl="unsafe_rbg")  # Compiles several times faster than the default generator.


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def shapes_of(config, inputs, outputs):
    return jax.eval_shape(build(config, inputs, outputs, "all").init, KEY)


@pytest.mark.parametrize(
    ("config", "inputs", "outputs", "count"),
    [
        (ModelConfig("wrnn", n_hid=100, n_ch=6), 10, 10, 12_724),  # Copy; both of these are the paper's.
        (ModelConfig("irnn", n_hid=100), 10, 10, 12_210),
        (ModelConfig("irnn", n_hid=256), 1, 10, 68_874),  # sMNIST: the paper's 68k.
    ],
)
def test_published_parameter_counts(config, inputs, outputs, count):
    assert count_parameters(shapes_of(config, inputs, outputs)) == count


def test_paper_counts_the_adding_and_cifar_networks_without_biases():
    def weights(config, inputs, outputs):
        leaves = jax.tree_util.tree_leaves_with_path(shapes_of(config, inputs, outputs))
        return sum(leaf.size for path, leaf in leaves if path[-1].key == "kernel")

    assert weights(ModelConfig(n_hid=100, n_ch=27), 2, 1) == 10_287
    assert weights(ModelConfig(n_hid=256, n_ch=16), 96, 10) == 434_944


@pytest.mark.parametrize(
    ("channels", "neurons", "taps", "inputs", "outputs"), [(1, 1, 1, 1, 1), (3, 7, 5, 2, 4), (16, 64, 3, 1, 10)]
)
def test_counts_follow_from_the_shapes(channels, neurons, taps, inputs, outputs):
    units, sizes = channels * neurons, {"n_hid": neurons, "n_ch": channels, "init": "random"}
    encoder, dense, readout = units * inputs + units, units * units + units, units * outputs + outputs
    tied, local = channels**2 * taps + channels, channels**2 * neurons * taps + units
    expected = {
        "wrnn": encoder + tied + readout,
        "wrnn-local": encoder + local + readout,
        "wrnn-mlp": encoder + tied + units * 100 + 100 + 100 * outputs + outputs,
        "srnn": encoder + dense + readout,
    }
    for name, count in expected.items():
        config = ModelConfig(name, ksize=None if name == "srnn" else taps, **sizes)
        assert count_parameters(shapes_of(config, inputs, outputs)) == count


@pytest.mark.parametrize("name", [name for name, named in MODELS.items() if named.act])
def test_named_models_start_as_the_paper_says(name):
    """Kernel, encoder, activation and biases of every name, with nothing else given."""
    neurons, inputs = 7, 3
    config = ModelConfig(name, n_hid=neurons)
    params = jax.jit(build(config, inputs, 2, "all").init)(KEY)
    encoder, recurrence = params["cell"]["encoder"], params["cell"]["recurrence"]
    kernel = np.asarray(recurrence["kernel"])
    shift = np.roll(np.eye(neurons), 1, axis=1)
    if name.startswith("wrnn"):
        assert (config.n_ch, config.ksize) == (6, 3)
        own_shift = np.eye(6)[:, :, None] * np.array([0, 0, 1])
        positions = np.moveaxis(kernel, 2, 0) if name == "wrnn-local" else [kernel]
        for at_position in positions:
            np.testing.assert_array_equal(at_position, own_shift)
    elif name == "srnn":
        assert np.all(np.abs(kernel) <= neurons**-0.5)
        assert np.all(kernel != 0)
    else:
        np.testing.assert_array_equal(kernel, np.eye(neurons) if name == "irnn" else shift)
    if name in ("irnn", "irnn-shift", "srnn"):
        assert 0 < np.max(np.abs(encoder["kernel"])) < 0.01  # Normal, deviation 0.001.
    else:
        sources = np.zeros((config.n_ch, neurons, inputs))
        sources[:, 0] = 1
        np.testing.assert_array_equal(np.reshape(encoder["kernel"], sources.shape), sources)
    assert not np.any(encoder["bias"])
    assert not np.any(recurrence["bias"])
    assert config.act == ("tanh" if name == "srnn" else "relu")


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("twm")])
def test_a_model_without_biases_has_no_parameter_of_that_name(name):
    with_biases, without = (
        jax.tree_util.tree_leaves_with_path(shapes_of(ModelConfig(name, n_hid=5, use_bias=use_bias), 3, 2))
        for use_bias in (True, False)
    )
    weights = [path for path, _ in with_biases if path[-1].key != "bias"]
    assert len(weights) < len(with_biases)
    assert [path for path, _ in without] == weights


@pytest.mark.parametrize("name", ["twm-lbc", "twm-sbc"])
def test_a_traveling_wave_memory_says_its_newest_column(name):
    """While the s first vectors are written in, what is said is what was given; and it has no readout to train."""
    model, xs = build(ModelConfig(name, n_hid=4), 3, 3, "all"), normal(2, 4, 3)
    params = jax.jit(model.init)(KEY)
    assert params["readout"] == {}
    np.testing.assert_array_equal(jax.jit(model.apply)(params, xs), xs)
    np.testing.assert_array_equal(jax.jit(model.hidden)(params, xs)[:, -1], np.swapaxes(xs, 1, 2))
    with pytest.raises(ValueError, match=r"model = 'twm-.bc': must be another model: .* 3 elements, not of 2"):
        build(ModelConfig(name, n_hid=4), 3, 2, "all")


def test_config_reaches_the_cell():
    """What is given replaces the defaults: taps, start, random biases, activation, freezing."""
    config = ModelConfig(
        n_hid=7, n_ch=2, ksize=5, act="identity", init="identity", bias_init="random", freeze_recurrence=True
    )
    model = build(config, 1, 1, "last")
    params = jax.jit(model.init)(KEY)
    np.testing.assert_array_equal(
        params["cell"]["recurrence"]["kernel"], np.eye(2)[:, :, None] * np.array([0, 0, 1, 0, 0])
    )
    assert np.all(params["cell"]["recurrence"]["bias"] != 0)
    xs = normal(2, 4, 1)
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(model.apply(params, xs) ** 2)))(params)
    assert not np.any(gradient["cell"]["recurrence"]["kernel"])
    assert np.any(gradient["cell"]["encoder"]["kernel"])


@pytest.mark.parametrize("readout", ["linear", "mlp"])
@pytest.mark.parametrize("cell", [cells.wave(2, 5), cells.elman(5, channels=2)], ids=["wave", "elman"])
def test_model_is_readout_over_unroll(random_params, cell, readout):
    """y_t = W h_t + b, or W₂ ReLU(W₁ h_t + b₁) + b₂, of the states flattened channel-major, in NumPy."""
    head = linear(3) if readout == "linear" else mlp(3, hidden_size=6)
    every, last = (recurrent(cell, head, 4, outputs=outputs) for outputs in ("all", "last"))
    params, xs = random_params(every._replace(init=lambda key, _: every.init(key)), 4), normal(2, 6, 4)
    applied = jax.jit(lambda *args: (every.apply(*args), last.apply(*args), every.hidden(*args)))(params, xs)
    hidden = np.asarray(unroll(cell, params["cell"], xs, return_hidden=True).hidden)
    layers = jax.tree.map(np.asarray, params["readout"])
    expected = hidden.reshape(2, 6, 10)
    if readout == "mlp":
        expected = np.maximum(expected @ layers["hidden"]["kernel"].T + layers["hidden"]["bias"], 0)
    expected = expected @ layers["output"]["kernel"].T + layers["output"]["bias"]
    for actual, desired in zip(applied, (expected, expected[:, -1], hidden), strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-4, atol=1e-4 * np.max(np.abs(desired)))


def test_init_depends_on_the_key_and_on_nothing_else():
    init = jax.jit(build(ModelConfig("wrnn-mlp", n_hid=5, init="random", bias_init="random"), 3, 4, "all").init)
    one, again, other = (jax.tree.leaves(init(key)) for key in (KEY, KEY, jax.random.fold_in(KEY, 1)))
    for leaf, same, different in zip(one, again, other, strict=True):
        np.testing.assert_array_equal(leaf, same)
        assert np.unique(leaf).size <= 2 or not np.any(leaf == different)  # V-init and its bias draw nothing.
    random_leaves = [np.ravel(leaf) for leaf in one if np.unique(leaf).size > 2]
    assert len(random_leaves) == 6
    for left, right in itertools.combinations(random_leaves, 2):  # No two parts share their random numbers.
        size = min(left.size, right.size)
        assert not np.allclose(left[:size] / left[0], right[:size] / right[0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "gru"}, "model = 'gru': must be one of wrnn, wrnn-mlp, wrnn-local, irnn, "),
        ({"n_hid": 0}, "n_hid = 0: must be a whole number, 1 or more"),
        ({"n_hid": 1.5}, "n_hid = 1.5: must be a whole number, 1 or more"),
        ({"n_ch": -1}, "n_ch = -1: must be a whole number, 1 or more"),
        ({"ksize": 4}, "ksize = 4: must be an odd number from 1 to n-hid = 100"),
        ({"ksize": 0}, "ksize = 0: must be a whole number, 1 or more"),
        ({"ksize": 9, "n_hid": 8}, "ksize = 9: must be an odd number from 1 to n-hid = 8"),
        ({"ksize": 1}, "ksize = 1: must be 3 or more for the shift"),
        ({"speed": -1.5}, "speed = -1.5: must be from -1 to 1 with 3 taps; it needs 5"),
        ({"speed": (0.5, 1.0)}, "speed = (0.5, 1.0): must be finite numbers, one alone or one for each of 6 channels"),
        ({"speed": 0.5, "init": "random"}, "speed = 0.5: must be left out unless init is shift"),
        ({"model": "srnn", "speed": "log"}, "speed = 'log': must be left out: srnn has no wave speed"),
        ({"model": "irnn", "ksize": 3}, "ksize = 3: must be left out: irnn has no taps"),
        ({"model": "lstm", "act": "relu"}, "act = 'relu': must be left out: lstm has no activation to choose"),
        ({"model": "twm-lbc", "n_ch": 3}, "n_ch = 3: must be left out: twm-lbc has no channels to choose"),
        ({"model": "twm-sbc", "freeze_encoder": True}, "freeze_encoder = True: must be left out for twm-sbc"),
        ({"init": "orthogonal"}, "init = 'orthogonal': must be one of shift, identity, random"),
        ({"use_bias": False, "bias_init": "random"}, "bias_init = 'random': must be zeros for use_bias = False"),
        ({"use_bias": 0}, "use_bias = 0: must be True or False"),
        ({"act": "gelu"}, "act = 'gelu': must be one of relu, tanh, identity"),
        ({"init": "eye"}, "init = 'eye': must be one of shift, identity, random"),
        ({"bias_init": "ones"}, "bias_init = 'ones': must be one of zeros, random"),
    ],
)
def test_bad_config_is_refused_by_name(given, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        ModelConfig(**given)


def test_waves_of_speed_1_are_one_setting_however_it_is_said():
    for speed in (1, 1.0, [1.0] * 6, (1,) * 6):
        assert ModelConfig(speed=speed) == ModelConfig()
    for speed in ("log", 0.5, (1, 1, 1, 1, 1, 0.5)):
        assert ModelConfig(speed=speed).speed == speed


@pytest.mark.parametrize(("make", "field"), [(linear, "output_size"), (mlp, "output_size"), (mlp, "hidden_size")])
def test_bad_readout_is_refused_by_name(make, field):
    with pytest.raises(ValueError, match=f"^{field} = 0: must be a whole number, 1 or more$"):
        make(**{"output_size": 2, field: 0})
