"""The deep network of linear waves is its blocks, the delay line an MLP of its inputs; and what both refuse."""

import jax
import numpy as np
import pytest

from experiments import copy, smnist
from helpers import refusal
from wrnn_jax.cells.response import impulse_response
from wrnn_jax.models import configure, count_parameters
from wrnn_jax.typing import Signature
from wrnn_jax.validation import InvalidValue

RNG = np.random.default_rng(0)
SIGNATURE = Signature(1, 3, 12, "last")


def noisy(tree):
    """Parameters that are no start: every one of them says something."""
    return jax.tree.map(lambda leaf: np.asarray(leaf) + 0.1 * RNG.normal(size=leaf.shape).astype(np.float32), tree)


# The equations, in NumPy


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def layer_norm(params, x):
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return params["scale"] * (x - mean) / np.sqrt(variance + 1e-5) + params["bias"]


def glu(params, x):
    both = x @ params["kernel"].T + params["bias"]
    value, gate = np.split(both, 2, axis=-1)
    return value / (1 + np.exp(-gate))


def wave(params, scheme, x):
    """Σ_s K_{t−s} x_s + D x_t + b."""
    steps = x.shape[1]
    response = np.asarray(impulse_response(params, steps, scheme), float)
    past = np.subtract.outer(np.arange(steps), np.arange(steps))
    lags = np.where(past >= 0, response[:, np.maximum(past, 0)], 0)
    x = np.broadcast_to(x, (*x.shape[:2], len(response)))
    return np.einsum("cts,bsc->btc", lags, x) + params.get("skip", 0) * x + params["bias"]


@pytest.mark.parametrize(("scheme", "pooling"), [("delay", "mean"), ("upwind", "last")])
def test_the_network_is_its_blocks(scheme, pooling):
    config = configure("wave-ssm", n_ch=4, n_hid=5, n_layers=3, stride=3, scheme=scheme, pooling=pooling)
    model = config.build(SIGNATURE)
    variables = model.init(jax.random.key(0))
    variables = variables._replace(params=noisy(variables.params))
    blocks = variables.params["layers"]
    xs = RNG.normal(size=(2, 12, 1)).astype(np.float32)
    z = glu(blocks["0"]["glu"], gelu(wave(blocks["0"]["wave"], scheme, xs)[:, 2::3]))
    for name in ("1", "2"):
        block = blocks[name]
        z = z + glu(block["glu"], gelu(wave(block["wave"], scheme, layer_norm(block["norm"], z))))
    readout = variables.params["readout"]
    read = layer_norm(readout["norm"], z.mean(axis=1) if pooling == "mean" else z[:, -1])
    desired = read @ readout["output"]["kernel"].T + readout["output"]["bias"]
    np.testing.assert_allclose(model.apply(variables, xs)[0], desired, rtol=1e-4, atol=1e-5)
    travel = 0 if scheme == "delay" else 3 * 4 * 2
    blocks = 4 * (5 + 2 * 4 + 5) + 2 * 4 * (5 + 2 * 4 + 6) + travel
    assert count_parameters(variables.params) == blocks + 3 * (4 + 1)


def test_filters_and_matrices_decay_and_nothing_else():
    model = configure("wave-ssm", n_ch=4, n_layers=2, scheme="exact", n_hid=5).build(Signature(2, 3, 12))
    params = jax.eval_shape(model.init, jax.random.key(0)).params
    for path, acts in jax.tree_util.tree_leaves_with_path(model.decays(params)):
        assert acts == (path[-1].key == "kernel")
    slow = [path[-1].key for path, rate in jax.tree_util.tree_leaves_with_path(model.rates(params)) if rate != 1]
    assert sorted(slow) == ["log_decay", "log_decay", "log_speed", "log_speed"]


def test_both_directions_see_the_whole_sequence():
    """The first block's outputs are of all inputs, at its first step too; in one direction of those before alone."""
    xs = RNG.normal(size=(1, 12, 1)).astype(np.float32)
    for both in (True, False):
        config = configure("wave-ssm", n_ch=4, n_layers=1, stride=6, bidirectional=both)
        block = config._block(SIGNATURE, 0)
        variables = block.init(jax.random.key(0), 1)
        change = jax.jacobian(lambda xs, block=block, variables=variables: block.apply(variables, xs)[0][0, 0])(xs)
        heard = np.abs(np.asarray(change)).max(axis=(0, 1, 3)) > 1e-7
        assert heard.tolist() == [True] * 6 + [both] * 6
        assert (config.build(SIGNATURE).stream is None) or not both


def test_the_delay_line_is_an_mlp_of_all_inputs_the_newest_first():
    model = configure("delay-line", n_hid=7).build(Signature(2, 3, 5, "last"))
    variables = model.init(jax.random.key(0))
    params = jax.tree.map(np.asarray, variables.params)
    xs = RNG.normal(size=(4, 5, 2)).astype(np.float32)
    state = np.array([[x for step in sequence[::-1] for x in step] for sequence in xs])
    hidden = params["layers"]["hidden"]
    hidden = np.maximum(state @ hidden["kernel"].T + hidden["bias"], 0)
    output = params["readout"]["output"]
    desired = hidden @ output["kernel"].T + output["bias"]
    np.testing.assert_allclose(model.apply(variables, xs)[0], desired, rtol=1e-4, atol=1e-5)
    with pytest.raises(InvalidValue, match="T = 4: must be 5, the neurons of the line"):
        model.apply(variables, xs[:, 1:])


@pytest.mark.parametrize(("options", "message"), [
    ({"n_ch": 0}, "n_ch = 0: must be a whole number, 1 or more"),
    ({"n_hid": 2, "scheme": "exact"}, "n_hid = 2: must be a whole number, 3 or more"),
    ({"speed": 0.0, "scheme": "upwind"}, "speed = 0.0: must be a finite number above 0"),
    ({"speed": 2.0, "scheme": "upwind"}, "speed = 2.0: must be above 0 and at most 1"),
    ({"speed": 0.5}, "speed = 0.5: must be left out for scheme = 'delay'"),
    ({"dropout": 1.0}, "dropout = 1.0: must be a number from 0 to below 1"),
    ({"dropout_in": -0.1}, "dropout_in = -0.1: must be a number from 0 to below 1"),
    ({"stride": 0}, "stride = 0: must be a whole number, 1 or more"),
    ({"n_layers": 0}, "n_layers = 0: must be a whole number, 1 or more"),
    ({"pooling": "max"}, "pooling = 'max': must be one of last, mean"),
])  # fmt: skip
def test_refused_configs(options, message):
    with pytest.raises(InvalidValue, match=f"^{message}"):
        configure("wave-ssm", **options)


def test_refused_tasks():
    with pytest.raises(InvalidValue, match=r"^stride = 5: must be a divisor of T = 12"):
        configure("wave-ssm", stride=5).build(SIGNATURE)
    with pytest.raises(InvalidValue, match=r"^stride = 3: must be 1 for a task that is read at every step"):
        configure("wave-ssm", stride=3).build(Signature(1, 3, 12))
    with pytest.raises(InvalidValue, match=r"^bidirectional = True: must be left out for a task that is read at every"):
        configure("wave-ssm", bidirectional=True).build(Signature(1, 3, 12))
    with pytest.raises(InvalidValue, match=r"^model = 'delay-line': must be another: this task is read at every step"):
        configure("delay-line").build(Signature(1, 3, 12))


def test_refused_on_the_command_line(capsys):
    digits = ("--dataset", "digits", "--model", "wave-ssm")
    assert "--stride 5: must be a divisor of T = 64" in refusal(capsys, smnist.main, *digits, "--stride", 5)
    assert "dropout" in refusal(capsys, smnist.main, *digits, "--dropout", 1)
    assert "read at every step" in refusal(capsys, copy.main, "--model", "delay-line")
