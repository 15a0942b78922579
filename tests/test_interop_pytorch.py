"""PyTorch's recurrent layers: the same states as their documented equations, written out in NumPy."""

import re

import jax
import numpy as np
import pytest

from wrnn_jax.cells import gru, lstm, wave
from wrnn_jax.interop import from_pytorch, to_pytorch
from wrnn_jax.layers import Variables

STEPS, N, D, OUT = 60, 5, 3, 2


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def documented_rnn(w, xs, sigma):
    """h' = σ(W_ih x + b_ih + W_hh h + b_hh)."""
    h, states = np.zeros((len(xs), N)), []
    for x in np.swapaxes(xs, 0, 1):
        h = sigma(x @ w["weight_ih_l0"].T + w["bias_ih_l0"] + h @ w["weight_hh_l0"].T + w["bias_hh_l0"])
        states.append(h)
    return np.stack(states, 1)


def documented_lstm(w, xs):
    """i, f, o = σ(W_i· x + b_i· + W_h· h + b_h·), g with tanh; c' = f c + i g, h' = o tanh(c'); rows i | f | g | o."""
    h, c, states = np.zeros((len(xs), N)), np.zeros((len(xs), N)), []
    gate = [slice(k * N, (k + 1) * N) for k in range(4)]
    for x in np.swapaxes(xs, 0, 1):
        i, f, g, o = (
            x @ w["weight_ih_l0"][at].T + w["bias_ih_l0"][at] + h @ w["weight_hh_l0"][at].T + w["bias_hh_l0"][at]
            for at in gate
        )
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.stack(states, 1)


def documented_gru(w, xs):
    """r, z = σ(W_i· x + b_i· + W_h· h + b_h·), n = tanh(W_in x + b_in + r (W_hn h + b_hn)); h' = (1 − z) n + z h; rows
    r | z | n."""
    h, states = np.zeros((len(xs), N)), []
    gate = [slice(k * N, (k + 1) * N) for k in range(3)]
    for x in np.swapaxes(xs, 0, 1):
        of_x = [x @ w["weight_ih_l0"][at].T + w["bias_ih_l0"][at] for at in gate]
        of_h = [h @ w["weight_hh_l0"][at].T + w["bias_hh_l0"][at] for at in gate]
        r, z = (sigmoid(of_x[k] + of_h[k]) for k in range(2))
        n = np.tanh(of_x[2] + r * of_h[2])
        h = (1 - z) * n + z * h
        states.append(h)
    return np.stack(states, 1)


PROGRAMS = {
    "rnn tanh": (1, "tanh", lambda w, xs: documented_rnn(w, xs, np.tanh)),
    "rnn relu": (1, "relu", lambda w, xs: documented_rnn(w, xs, lambda z: np.maximum(z, 0))),
    "lstm": (4, "tanh", documented_lstm),
    "gru": (3, "tanh", documented_gru),
}


def weights(gates=1, bias=True, prefix="", linear=None, seed=0):
    """As ``state_dict()`` names them, U(−1/√N, 1/√N) as PyTorch starts them."""
    rng, rows = np.random.default_rng(seed), gates * N
    shapes = {"weight_ih_l0": (rows, D), "weight_hh_l0": (rows, N)}
    shapes |= {"bias_ih_l0": (rows,), "bias_hh_l0": (rows,)} if bias else {}
    shapes = {prefix + name: shape for name, shape in shapes.items()}
    if linear:
        shapes |= {f"{linear}.weight": (OUT, N)} | ({f"{linear}.bias": (OUT,)} if bias else {})
    return {name: np.float32(rng.uniform(-1, 1, shape) / np.sqrt(N)) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", PROGRAMS)
def test_same_weights_give_the_documented_states_and_outputs(name):
    gates, activation, program = PROGRAMS[name]
    bare = weights(gates)
    whole = weights(gates, prefix="rnn.", linear="head.out")
    unbiased = weights(gates, bias=False)
    xs = np.random.default_rng(1).normal(size=(4, STEPS, D)).astype(np.float32)
    for arrays in (bare, whole, unbiased):
        model, params = from_pytorch(arrays, activation=activation)
        wide = {key.removeprefix("rnn."): np.float64(value) for key, value in arrays.items()}
        states = program({"bias_ih_l0": np.zeros(gates * N), "bias_hh_l0": np.zeros(gates * N), **wide}, np.float64(xs))
        expected = states if arrays is not whole else states @ wide["head.out.weight"].T + wide["head.out.bias"]
        ours = jax.jit(model.apply)(Variables(params), xs)[0]
        assert ours.shape == expected.shape
        np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())
    hidden = model.hidden(Variables(params), xs)[""]
    np.testing.assert_allclose(hidden[:, :, 0], states, atol=1e-5 * np.abs(states).max())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gates", [1, 3, 4])
def test_there_and_back_changes_no_bit_but_how_biases_of_gates_are_split(gates, bias):
    arrays = weights(gates, bias, prefix="net.rnn.", linear="readout")
    back = to_pytorch(*from_pytorch(arrays), prefix="net.rnn.", readout="readout")
    assert back.keys() == arrays.keys()
    if gates > 1 and bias:
        first, second = "net.rnn.bias_ih_l0", "net.rnn.bias_hh_l0"
        summed = 4 * N if gates == 4 else 2 * N
        np.testing.assert_array_equal(back[second][:summed], 0)
        np.testing.assert_array_equal(back[first][:summed], (arrays[first] + arrays[second])[:summed])
        for name in (first, second):
            back[name] = np.where(np.arange(gates * N) < summed, arrays[name], back[name])
    for name, array in back.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.parametrize("make", [lstm, gru])
def test_a_cells_own_parameters_have_names_there_as_well(make):
    """And what was trained here comes back as what it is."""
    params = make(N, bias_init="random").init(jax.random.key(0), D)
    again = from_pytorch(to_pytorch(None, params))[1]["cell"]
    jax.tree.map(np.testing.assert_array_equal, again, params)


def with_array(name, *shape):
    return lambda arrays: arrays | {name: np.zeros(shape, np.float32)}


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda arrays: {}, "one recurrent layer"),
        (lambda arrays: arrays | weights(prefix="other."), "one recurrent layer"),
        (lambda arrays: {name: a for name, a in arrays.items() if name != "bias_hh_l0"}, "bias_hh_l0"),
        (with_array("weight_ih_l1", N, N), "['weight_ih_l1']: must be one recurrent layer"),
        (with_array("weight_hh_l0_reverse", N, N), "in one direction"),
        (with_array("weight_hr_l0", 2, N), "without a projection"),
        (with_array("weight_hh_l0", 3 * N, N), "weight_ih_l0 = (5, 3): must be of shape (15, 3)"),
        (
            with_array("weight_hh_l0", 2 * N, N),
            "weight_hh_l0 = (10, 5): must be (N, N), of nn.RNN, (4N, N), of nn.LSTM",
        ),
        (with_array("weight_hh_l0", N), "weight_hh_l0 = (5,): must be a matrix"),
        (with_array("weight_hh_l0", 0, 0), "weight_hh_l0"),
        (with_array("weight_ih_l0", N + 1, D), "weight_ih_l0 = (6, 3): must be of shape (5, 3)"),
        (with_array("weight_ih_l0", N), "weight_ih_l0 = (5,)"),
        (with_array("bias_ih_l0", N, 1), "bias_ih_l0 = (5, 1): must be of shape (5,)"),
        (lambda arrays: arrays | {"bias_ih_l0": np.zeros(N, np.int64)}, "an array of int64"),
        (with_array("fc.weight", OUT, N + 1), "fc.weight = (2, 6): must be (O, 5)"),
        (with_array("fc.bias", OUT), "at most one nn.Linear"),
        (
            lambda arrays: with_array("a.weight", OUT, N)(with_array("b.weight", OUT, N)(arrays)),
            "at most one nn.Linear",
        ),
    ],
)
def test_what_is_no_such_layer_is_refused_by_name(spoil, named):
    with pytest.raises(ValueError, match=re.escape(named)) as caught:
        from_pytorch(spoil(weights()))
    assert "\n" not in str(caught.value)


def test_activations_and_parameters_that_pytorch_has_not_are_refused():
    for gates, activation, said in (
        (1, "identity", "tanh or relu"),
        (4, "relu", "left out: an LSTM"),
        (3, "relu", "left out: an LSTM or a GRU"),
    ):
        with pytest.raises(ValueError, match=f"^activation = '{activation}': must be {said}"):
            from_pytorch(weights(gates), activation=activation)
    ring = wave(2, 5).init(jax.random.key(0), D)
    mlp = {"cell": from_pytorch(weights())[1]["cell"], "readout": {"hidden": {}, "output": {}}}
    for params in (ring, mlp, None, [1.0], {"cell": {}, "readout": {}}, {"operator": np.ones((2, 4))}):
        with pytest.raises(ValueError, match=r"^params = .*: must be the parameters of a simple RNN, an LSTM or a GRU"):
            to_pytorch(None, params)
