"""The published models: their parameter counts, their starts, what their configs refuse, and that a model is its cell
and its readout. What holds for every model is in test_models_contract.py."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wrnn_jax import cells, unroll
from wrnn_jax.layers import Variables
from wrnn_jax.models import MODELS, configure, count_parameters, entry, recurrent
from wrnn_jax.readouts import linear, mlp
from wrnn_jax.typing import Signature

KEY = jax.random.key(0, impl="unsafe_rbg")  # Compiles several times faster than the default generator.
RATE = [name for name, known in MODELS.items() if "act" in known.config.__dataclass_fields__]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def build(config, inputs, outputs, read="all"):
    return config.build(Signature(inputs, outputs, 6, read))


def shapes_of(config, inputs, outputs):
    return jax.eval_shape(build(config, inputs, outputs).init, KEY).params


@pytest.mark.parametrize(
    ("config", "inputs", "outputs", "count"),
    [
        (configure("wrnn", n_hid=100, n_ch=6), 10, 10, 12_724),  # Copy; both of these are the paper's.
        (configure("irnn", n_hid=100), 10, 10, 12_210),
        (configure("irnn", n_hid=256), 1, 10, 68_874),  # sMNIST: the paper's 68k.
    ],
)
def test_published_parameter_counts(config, inputs, outputs, count):
    assert count_parameters(shapes_of(config, inputs, outputs)) == count


def test_paper_counts_the_adding_and_cifar_networks_without_biases():
    for sizes, inputs, outputs, count in (((100, 27), 2, 1, 10_287), ((256, 16), 96, 10, 434_944)):
        config = configure("wrnn", n_hid=sizes[0], n_ch=sizes[1], use_bias=False)
        assert count_parameters(shapes_of(config, inputs, outputs)) == count


def test_named_models_start_as_the_paper_says():
    """Kernel, encoder, activation and biases of every name, with nothing else given."""
    neurons, inputs = 7, 3
    shift = np.roll(np.eye(neurons), 1, axis=1)
    for name in RATE:
        config = configure(name, n_hid=neurons)
        params = jax.jit(build(config, inputs, 2).init)(KEY).params
        encoder, recurrence = params["cell"]["encoder"], params["cell"]["recurrence"]
        kernel = np.asarray(recurrence["kernel"])
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


@pytest.mark.parametrize("deep", [{}, {"n_layers": 2}])
def test_a_model_without_biases_has_no_parameter_of_that_name(deep):
    for name in [*RATE, "lstm", "gru"]:
        with_biases, without = (
            jax.tree_util.tree_leaves_with_path(shapes_of(configure(name, n_hid=5, use_bias=use_bias, **deep), 3, 2))
            for use_bias in (True, False)
        )
        weights = [path for path, _ in with_biases if path[-1].key != "bias"]
        assert len(weights) < len(with_biases)
        assert [path for path, _ in without] == weights


@pytest.mark.parametrize("name", ["twm-lbc", "twm-sbc"])
def test_a_traveling_wave_memory_says_its_newest_column(name):
    """While the s first vectors are written in, what is said is what was given; and it has no readout to train."""
    config, xs = configure(name, n_hid=4), normal(2, 4, 3)
    model = build(config, 3, 3)

    @jax.jit
    def run(key):
        variables = model.init(key)
        return variables.params["readout"], model.apply(variables, xs)[0], model.hidden(variables, xs)[""]

    readout, outputs, hidden = run(KEY)
    assert readout == {}
    np.testing.assert_array_equal(outputs, xs)
    np.testing.assert_array_equal(hidden[:, -1], np.swapaxes(xs, 1, 2))
    with pytest.raises(ValueError, match=r"model = 'twm-.bc': must be another model: .* 3 elements, not of 2"):
        build(config, 3, 2)


def test_config_reaches_the_cell():
    """What is given replaces the defaults: taps, start, random biases, activation, freezing."""
    model = build(
        configure(
            "wrnn",
            n_hid=7,
            n_ch=2,
            ksize=5,
            act="identity",
            init="identity",
            bias_init="random",
            freeze_recurrence=True,
        ),
        *(1, 1, "last"),
    )
    xs = normal(2, 4, 1)

    @jax.jit
    def run(key):
        params = model.init(key).params
        return params, jax.grad(lambda params: jnp.sum(model.apply(Variables(params), xs)[0] ** 2))(params)

    params, gradient = run(KEY)
    kernel = np.eye(2)[:, :, None] * np.array([0, 0, 1, 0, 0])
    np.testing.assert_array_equal(params["cell"]["recurrence"]["kernel"], kernel)
    assert np.all(params["cell"]["recurrence"]["bias"] != 0)
    assert not np.any(gradient["cell"]["recurrence"]["kernel"])
    assert np.any(gradient["cell"]["encoder"]["kernel"])
    assert model.decays(params) == {"cell": {"encoder": True, "recurrence": False}, "readout": True}


@pytest.mark.parametrize("readout", ["linear", "mlp"])
@pytest.mark.parametrize("cell", [cells.wave(2, 5), cells.elman(5, channels=2)], ids=["wave", "elman"])
def test_model_is_readout_over_unroll(random_params, cell, readout):
    """y_t = W h_t + b, or W₂ ReLU(W₁ h_t + b₁) + b₂, of the states flattened channel-major, in NumPy."""
    head = linear(3) if readout == "linear" else mlp(3, hidden_size=6)
    every, last = (recurrent(cell, head, 4, outputs=outputs) for outputs in ("all", "last"))
    params = random_params(every._replace(init=lambda key, _: every.init(key).params), 4)
    variables, xs = Variables(params), normal(2, 6, 4)
    functions = every.apply, last.apply, every.hidden
    (all_steps, _), (last_step, _), states = jax.jit(lambda *args: [f(*args) for f in functions])(variables, xs)
    applied = all_steps, last_step, states[""]
    hidden = np.asarray(unroll(cell, params["cell"], xs, return_hidden=True).hidden)
    layers = jax.tree.map(np.asarray, params["readout"])
    expected = hidden.reshape(2, 6, 10)
    if readout == "mlp":
        expected = np.maximum(expected @ layers["hidden"]["kernel"].T + layers["hidden"]["bias"], 0)
    expected = expected @ layers["output"]["kernel"].T + layers["output"]["bias"]
    for actual, desired in zip(applied, (expected, expected[:, -1], hidden), strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-4, atol=1e-4 * np.max(np.abs(desired)))


def test_init_depends_on_the_key_and_on_nothing_else():
    init = jax.jit(build(configure("wrnn-mlp", n_hid=5, init="random", bias_init="random"), 3, 4).init)
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
    ("model", "given", "message"),
    [
        ("rnn", {}, "model = 'rnn': must be one of wrnn, wrnn-mlp, wrnn-local, irnn, "),
        ("wrnn", {"n_hid": 0}, "n_hid = 0: must be a whole number, 1 or more"),
        ("lstm", {"n_hid": 1.5}, "n_hid = 1.5: must be a whole number, 1 or more"),
        ("twm-lbc", {"n_hid": 0}, "n_hid = 0: must be a whole number, 1 or more"),
        ("wrnn", {"n_ch": -1}, "n_ch = -1: must be a whole number, 1 or more"),
        ("wrnn", {"ksize": 4}, "ksize = 4: must be an odd number from 1 to n-hid = 100"),
        ("wrnn", {"ksize": 0}, "ksize = 0: must be a whole number, 1 or more"),
        ("wrnn", {"ksize": 9, "n_hid": 8}, "ksize = 9: must be an odd number from 1 to n-hid = 8"),
        ("wrnn", {"ksize": 1}, "ksize = 1: must be 3 or more for init = 'shift'"),
        ("wrnn", {"speed": -1.5}, "speed = -1.5: must be from -1 to 1 with 3 taps; it needs 5"),
        ("wrnn", {"speed": (0.5, 1.0)}, "speed = (0.5, 1.0): must be finite numbers, one alone or one for each of 6 "),
        ("wrnn", {"speed": 0.5, "init": "random"}, "speed = 0.5: must be left out unless init = 'shift'"),
        ("srnn", {"speed": "log"}, "speed = 'log': must be left out: srnn has no speed"),
        ("irnn", {"bias_init": "ones"}, "bias_init = 'ones': must be one of zeros, random"),
        ("lstm", {"use_bias": False, "bias_init": "random"}, "bias_init = 'random': must be zeros for use_bias = "),
        ("wrnn", {"use_bias": 0}, "use_bias = 0: must be True or False"),
        ("wrnn", {"act": "gelu"}, "act = 'gelu': must be one of relu, tanh, identity"),
        ("wrnn", {"init": "orthogonal"}, "init = 'orthogonal': must be one of shift, identity, random"),
        ("wrnn", {"n_layers": 0}, "n_layers = 0: must be a whole number, 1 or more"),
        ("wrnn", {"n_layers": 65}, "n_layers = 65: must be a whole number, 64 at most"),
        ("lstm", {"norm": "group"}, "norm = 'group': must be one of none, layer, batch, batch-time"),
        ("lstm", {"residual": 1}, "residual = 1: must be True or False"),
        ("irnn", {"dropout": 1.0}, "dropout = 1.0: must be a number from 0 to below 1"),
        ("irnn", {"pooling": "max"}, "pooling = 'max': must be one of last, mean"),
        ("lstm", {"backend": "fused"}, "backend = 'fused': must be one of auto, scan"),
    ],
)
def test_bad_config_is_refused_by_name(model, given, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        configure(model, **given)


def test_a_mean_over_time_is_of_a_task_that_is_read_once():
    with pytest.raises(ValueError, match=r"^pooling = 'mean': must be left out: the task is read at every step$"):
        build(configure("lstm", pooling="mean"), 2, 2, "all")


def test_a_speed_is_one_setting_however_it_is_said():
    assert configure("wrnn", n_ch=2, speed=[0.5, 1.0]) == configure("wrnn", n_ch=2, speed=(0.5, 1.0))
    for speed in (1, 1.0, [1.0] * 6, (1,) * 6):
        assert configure("wrnn", speed=speed) == configure("wrnn")
    for speed in ("log", 0.5, (1, 1, 1, 1, 1, 0.5)):
        assert configure("wrnn", speed=speed).speed == speed


def test_an_entrys_defaults_are_those_of_its_name_alone():
    assert entry("irnn").config is entry("srnn").config
    assert (configure("irnn").init, configure("srnn").init) == ("identity", "random")
    assert configure("irnn", init="random", act="tanh") == dataclasses.replace(configure("srnn"), model="irnn")


@pytest.mark.parametrize(("make", "field"), [(linear, "output_size"), (mlp, "output_size"), (mlp, "hidden_size")])
def test_bad_readout_is_refused_by_name(make, field):
    with pytest.raises(ValueError, match=f"^{field} = 0: must be a whole number, 1 or more$"):
        make(**{"output_size": 2, field: 0})
