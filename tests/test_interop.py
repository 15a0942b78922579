"""The authors' weights: the same states and outputs as an implementation of their layers in NumPy."""

import re

import jax
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from wrnn_jax.datasets import Images
from wrnn_jax.interop import from_authors, to_authors
from wrnn_jax.layers import Variables
from wrnn_jax.tasks import NoisyRowsConfig, noisy_rows_task

STEPS = 500
NUMPY_ACTIVATIONS = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh, "identity": lambda z: z}


def torch_linear(x, weight, bias):
    return x @ weight.T + bias


def ring_windows(h, taps):
    """All windows of a circularly padded signal: (B, C, N) -> (B, C, N, K)."""
    half = taps // 2
    padded = np.concatenate([h[..., h.shape[-1] - half :], h, h[..., :half]], axis=-1)
    return sliding_window_view(padded, taps, axis=-1)


def torch_conv1d_circular(h, weight, bias):
    """What PyTorch calls a convolution: cross-correlation, here with ⌊K/2⌋ positions of circular padding."""
    return np.einsum("bjik,ojk->boi", ring_windows(h, weight.shape[-1]), weight) + bias[:, None]


def torch_locally_connected(h, weight, bias):
    """weight (1, C_out, C_in, N, K) times the windows, summed over C_in and K; bias (1, C, N)."""
    return (ring_windows(h, weight.shape[-1])[:, None] * weight).sum(axis=(2, -1)) + bias


def recurrence(arrays, h):
    """The authors' recurrent layer on flattened states (B, C·N)."""
    weight, bias = arrays["cell.Wy.weight"], arrays["cell.Wy.bias"]
    if weight.ndim == 2:
        return torch_linear(h, weight, bias)
    channels = weight.shape[-4] if weight.ndim == 5 else weight.shape[0]
    layer = torch_locally_connected if weight.ndim == 5 else torch_conv1d_circular
    return layer(h.reshape(len(h), channels, -1), weight, bias).reshape(h.shape)


def authors_program(arrays, xs, activation):
    """(states (B, T, C·N), outputs (B, T, O)) in float64."""
    arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
    h, states, outputs = np.zeros((len(xs), len(arrays["cell.Wx.weight"]))), [], []
    for t in range(xs.shape[1]):
        encoded = torch_linear(xs[:, t], arrays["cell.Wx.weight"], arrays["cell.Wx.bias"])
        h = NUMPY_ACTIVATIONS[activation](encoded + recurrence(arrays, h))
        if "readout.weight" in arrays:
            y = torch_linear(h, arrays["readout.weight"], arrays["readout.bias"])
        else:
            y = np.maximum(torch_linear(h, arrays["readout.0.weight"], arrays["readout.0.bias"]), 0)
            y = torch_linear(y, arrays["readout.2.weight"], arrays["readout.2.bias"])
        states.append(h)
        outputs.append(y)
    return np.stack(states, 1), np.stack(outputs, 1)


def authors_weights(kind, channels=3, neurons=8, taps=3, inputs=2, outputs=4, hidden=None, seed=0):
    """Random arrays under the authors' names; the recurrence has spectral norm 0.99: it neither fades nor explodes."""
    rng, units = np.random.default_rng(seed), channels * neurons
    weight, bias = {
        "conv": ((channels, channels, taps), (channels,)),
        "local": ((1, channels, channels, neurons, taps), (1, channels, neurons)),
        "dense": ((units, units), (units,)),
    }[kind]
    sizes = {
        "cell.Wx.weight": (units, inputs), "cell.Wx.bias": (units,), "cell.Wy.weight": weight, "cell.Wy.bias": bias,
    }  # fmt: skip
    if hidden is None:
        sizes |= {"readout.weight": (outputs, units), "readout.bias": (outputs,)}
    else:
        sizes |= {"readout.0.weight": (hidden, units), "readout.0.bias": (hidden,)}
        sizes |= {"readout.2.weight": (outputs, hidden), "readout.2.bias": (outputs,)}
    arrays = {name: rng.normal(size=size).astype(np.float32) / 3 for name, size in sizes.items()}
    linear_part = arrays | {"cell.Wy.bias": 0 * arrays["cell.Wy.bias"]}
    norm = np.linalg.norm(recurrence(linear_part, np.eye(units)), 2)
    arrays["cell.Wy.weight"] *= np.float32(0.99 / norm)
    return arrays


def test_weights_of_nscifar10_know_the_colours_in_our_order():
    """Their program's features of a row: all its reds, its greens, its blues; ours are what the task hands on."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)  # (B, H, W, colours)
    images = Images(pixels, np.zeros(200, np.uint8), pixels[:5], np.zeros(5, np.uint8), classes=10, peak=255, note="")
    task = noisy_rows_task(NoisyRowsConfig(dataset="digits", T=32), images)
    ours = task.splits["test"].examples(task.source, np.arange(5))[0]
    theirs = pixels[:5].transpose(0, 3, 1, 2) / 255  # (B, colours, H, W), as their data set has it.
    theirs = theirs.transpose(0, 2, 1, 3).reshape(5, 32, 96)
    for kind in ("conv", "dense"):
        arrays = authors_weights(kind, channels=2, neurons=5, inputs=96)
        arrays["cell.Wx.weight"] /= 8
        _, outputs = authors_program(arrays, theirs, "relu")
        model, params = from_authors(arrays, channels=2)
        np.testing.assert_allclose(
            model.apply(Variables(params), ours)[0], outputs, rtol=0, atol=1e-5 * np.abs(outputs).max()
        )
        back = to_authors(model, params)
        for name, array in arrays.items():
            np.testing.assert_array_equal(back[name], array)
        kept = from_authors(arrays, channels=2, colors=1)[1]["cell"]["encoder"]["kernel"]
        np.testing.assert_array_equal(np.reshape(kept, (-1, 96)), arrays["cell.Wx.weight"])
    with pytest.raises(ValueError, match=r"^colors = 5: must be a divisor of D = 96"):
        from_authors(arrays, colors=5)


CASES = [
    ("conv", {"channels": 1, "neurons": 5, "taps": 1, "inputs": 1, "outputs": 1}, "tanh"),
    ("conv", {"channels": 3, "neurons": 8, "taps": 3}, "relu"),
    ("conv", {"channels": 4, "neurons": 9, "taps": 9, "inputs": 1, "hidden": 7}, "relu"),
    ("conv", {"channels": 2, "neurons": 7, "taps": 5, "inputs": 3}, "identity"),
    ("local", {"channels": 2, "neurons": 6, "taps": 3}, "relu"),
    ("local", {"channels": 3, "neurons": 5, "taps": 5, "hidden": 4}, "tanh"),
    ("local", {"channels": 1, "neurons": 4, "taps": 1}, "identity"),
    ("dense", {"channels": 1, "neurons": 20}, "relu"),
    ("dense", {"channels": 3, "neurons": 5, "hidden": 6}, "tanh"),
]


def assert_same_numbers(arrays, activation, expected, channels):
    """Our states and outputs at all 500 steps within 1e-5 of the largest."""
    model, params = from_authors(arrays, activation=activation, channels=channels)
    xs = inputs_for(arrays)
    rings, outputs = jax.jit(lambda *args: (model.hidden(*args)[""], model.apply(*args)[0]))(Variables(params), xs)
    assert rings.shape[2] == channels
    ours = np.reshape(rings, (*rings.shape[:2], -1)), np.asarray(outputs)
    for actual, desired in zip(ours, expected, strict=True):
        assert np.all(np.max(np.abs(desired), axis=(0, 2)) > 1e-2 * np.max(np.abs(desired)))  # Alive at every step.
        np.testing.assert_allclose(actual, desired, rtol=0, atol=1e-5 * np.max(np.abs(desired)))


def inputs_for(arrays):
    size = arrays["cell.Wx.weight"].shape[1]
    return np.random.default_rng(1).normal(size=(2, STEPS, size)).astype(np.float32)


@pytest.mark.parametrize(("kind", "sizes", "activation"), CASES)
def test_same_weights_give_the_same_states_and_outputs(kind, sizes, activation):
    arrays = authors_weights(kind, **sizes)
    expected = authors_program(arrays, inputs_for(arrays), activation)
    assert_same_numbers(arrays, activation, expected, sizes["channels"])


def test_against_pytorch_itself():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    arrays = authors_weights("conv", channels=3, neurons=8, taps=3)
    encoder, ring = torch.nn.Linear(2, 24), torch.nn.Conv1d(3, 3, 3, padding=1, padding_mode="circular")
    readout = torch.nn.Linear(24, 4)
    layers = {"cell.Wx": encoder, "cell.Wy": ring, "readout": readout}
    with torch.no_grad():
        for name, layer in layers.items():
            layer.weight.copy_(torch.from_numpy(arrays[f"{name}.weight"]))
            layer.bias.copy_(torch.from_numpy(arrays[f"{name}.bias"]))
        h, states = torch.zeros(2, 24), []
        for x in torch.from_numpy(inputs_for(arrays)).unbind(1):
            h = torch.relu(encoder(x) + ring(h.reshape(2, 3, 8)).reshape(2, 24))
            states.append(h)
        states = torch.stack(states, 1)
        expected = states.numpy(), readout(states).numpy()
    tensors = {f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.state_dict().items()}
    assert_same_numbers(tensors, "relu", expected, 3)


@pytest.mark.parametrize(("kind", "sizes", "activation"), CASES)
def test_there_and_back_changes_no_bit(kind, sizes, activation):
    arrays = authors_weights(kind, **sizes)
    back = to_authors(*from_authors(arrays, activation=activation, channels=sizes["channels"]))
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


def test_channels_of_a_dense_network_are_its_presentation():
    """They change how states are shown, not one of the numbers."""
    arrays = authors_weights("dense", channels=3, neurons=4)
    (one, params), (three, same) = (from_authors(arrays, channels=channels) for channels in (None, 3))
    jax.tree.map(np.testing.assert_array_equal, params, same)
    xs = inputs_for(arrays)[:, :5]
    ring, rings = jax.jit(lambda *args: [model.hidden(*args)[""] for model in (one, three)])(Variables(params), xs)
    np.testing.assert_array_equal(np.reshape(rings, (2, 5, 1, 12)), ring)


def without(name):
    return lambda arrays: {key: value for key, value in arrays.items() if key != name}


def with_array(name, *shape):
    return lambda arrays: arrays | {name: np.zeros(shape, np.float32)}


CONV, LOCAL, DENSE, MLP = (("conv", None), ("local", None), ("dense", None), ("conv", 7))
BAD = [
    *((CONV, without(name), name) for name in ("cell.Wx.weight", "cell.Wy.bias", "readout.weight")),
    (MLP, without("readout.2.bias"), "readout.2.bias"),
    (CONV, with_array("cell.Wz.weight", 1), "cell.Wz.weight"),
    (CONV, with_array("cell.Wx.weight", 24), "cell.Wx.weight = (24,)"),
    (CONV, with_array("cell.Wx.weight", 25, 2), "cell.Wx.weight = (25, 2)"),
    (CONV, with_array("cell.Wx.bias", 23), "cell.Wx.bias = (23,)"),
    (CONV, with_array("cell.Wy.weight", 3, 2, 3), "cell.Wy.weight = (3, 2, 3)"),
    (CONV, with_array("cell.Wy.weight", 3, 3, 3, 3), "cell.Wy.weight = (3, 3, 3, 3)"),
    (CONV, with_array("cell.Wy.weight", 3, 3, 4), "cell.Wy.weight = (3, 3, 4)"),
    (CONV, with_array("cell.Wy.weight", 3, 3, 11), "cell.Wy.weight = (3, 3, 11)"),
    (CONV, with_array("cell.Wy.weight", 0, 0, 3), "cell.Wy.weight = (0, 0, 3)"),
    (CONV, with_array("cell.Wy.bias", 24), "cell.Wy.bias = (24,)"),
    (LOCAL, with_array("cell.Wy.weight", 1, 3, 3, 7, 3), "cell.Wy.weight = (1, 3, 3, 7, 3)"),
    (LOCAL, with_array("cell.Wy.weight", 2, 3, 3, 8, 3), "cell.Wy.weight = (2, 3, 3, 8, 3)"),
    (LOCAL, with_array("cell.Wy.bias", 3), "cell.Wy.bias = (3,)"),
    (DENSE, with_array("cell.Wy.weight", 24, 23), "cell.Wy.weight = (24, 23)"),
    (DENSE, with_array("cell.Wy.bias", 3), "cell.Wy.bias = (3,)"),
    (CONV, with_array("readout.weight", 4, 23), "readout.weight = (4, 23)"),
    (CONV, with_array("readout.bias", 5), "readout.bias = (5,)"),
    (MLP, with_array("readout.0.bias", 6), "readout.0.bias = (6,)"),
    (MLP, with_array("readout.2.weight", 4, 8), "readout.2.weight = (4, 8)"),
]


@pytest.mark.parametrize(("kind", "spoil", "named"), BAD)
def test_bad_arrays_are_refused_by_name(kind, spoil, named):
    arrays = spoil(authors_weights(kind[0], hidden=kind[1]))
    with pytest.raises(ValueError, match=re.escape(named)) as caught:
        from_authors(arrays)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("conv", {"channels": 4}, "channels = 4: must be 3, as cell.Wy.weight has it"),
        ("dense", {"channels": 5}, "channels = 5: must be a divisor of C·N = 24"),
        ("dense", {"channels": 0}, "channels = 0: must be a divisor of C·N = 24"),
        ("dense", {"channels": -3}, "channels = -3: must be a divisor of C·N = 24"),
        ("conv", {"activation": "gelu"}, "activation = 'gelu': must be one of relu, tanh, identity"),
    ],
    ids=["conv", "dense", "none", "negative", "activation"],
)
def test_bad_options_are_refused_by_name(kind, options, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        from_authors(authors_weights(kind), **options)


@pytest.mark.parametrize("params", [None, {}, ({"cell": {}, "readout": {}})], ids=["none", "empty", "no parts"])
def test_parameters_of_other_models_have_no_authors_names(params):
    model, _ = from_authors(authors_weights("conv"))
    with pytest.raises(ValueError, match=r"^params = "):
        to_authors(model, params)


@pytest.mark.parametrize("params", [{"cell": {}, "readout": {}}, {}, [1.0], {"cell": {"A": 1.0}, "readout": {}}])
def test_parameters_of_something_else_are_refused(params):
    with pytest.raises(ValueError, match=r"^params = .*: must be the parameters of a recurrent model"):
        to_authors(None, params)
