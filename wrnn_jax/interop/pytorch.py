"""Weights of PyTorch's recurrent layers, by the names and shapes of their ``state_dict``, and back."""

import re
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from wrnn_jax import cells, readouts
from wrnn_jax.cells.gated import GRU_GATES, LSTM_GATES
from wrnn_jax.models import Model, recurrent
from wrnn_jax.typing import Params
from wrnn_jax.validation import require

PARTS = {"encoder": "ih", "recurrence": "hh"}
NAMES = {"kernel": "weight", "bias": "bias"}
"""Ours -> PyTorch's."""
WEIGHTS, BIASES = ("weight_ih_l0", "weight_hh_l0"), ("bias_ih_l0", "bias_hh_l0")
GATED = {LSTM_GATES: cells.lstm, GRU_GATES: cells.gru}
"""Our cells, by how many blocks of N rows their arrays have there."""
LAYERS = re.compile(r"(?P<prefix>(?:.*\.)?)(?P<name>(?:weight|bias)_(?:ih|hh|hr)_l\d+(?:_reverse)?)")
"""The names of a recurrent layer's arrays, in a module of which it may be a part."""


def from_pytorch(
    state_dict: Mapping[str, Any],
    *,
    activation: Literal["tanh", "relu"] = "tanh",
    backend: Literal["auto", "scan", "fused", "native", "parallel"] = "auto",
) -> tuple[Model, Params]:
    """The model and parameters that the ``state_dict`` of an ``nn.RNN``, ``nn.LSTM`` or ``nn.GRU`` describes: same
    weights, same states::

        nn.RNN    h_{t+1} = σ( W_ih x_t + b_ih + W_hh h_t + b_hh )
        nn.LSTM   the equations of :func:`wrnn_jax.cells.lstm`, with V = W_ih, U = W_hh, b = b_ih + b_hh
        nn.GRU    those of :func:`wrnn_jax.cells.gru`, likewise, but for b_n = b_ih and c = b_hh of the candidate n

    =====================================  ==================================================
    ``weight_ih_l0``, ``weight_hh_l0``     ``(N, D)``, ``(N, N)``; of the LSTM ``(4N, D)``, ``(4N, N)``, its gates
                                           in the order i, f, g, o; of the GRU ``(3N, D)``, ``(3N, N)``: r, z, n
    ``bias_ih_l0``, ``bias_hh_l0``         ``(N,)``, ``(4N,)`` or ``(3N,)``; neither for ``bias=False``
    ``….weight``, ``….bias``               of the ``nn.Linear`` that reads h, ``(O, N)`` and ``(O,)``, if there is one
    =====================================  ==================================================

    The layer's names may have a prefix, as in the ``state_dict`` of a module that it is a part of
    (``rnn.weight_ih_l0``).

    Args:
      state_dict: arrays, or anything ``numpy.asarray`` takes (CPU tensors too), under those names.
      activation: σ of an ``nn.RNN``, its ``nonlinearity``: it is not in the weights. (Gates have none to choose.)
      backend: as in :func:`wrnn_jax.unroll`.

    Returns:
      ``(model, params)`` with ``model.apply(Variables(params), xs)[0]``: xs ``(B, T, D)``, as with
      ``batch_first=True``, -> ``(B, T, O)``; without a readout h itself, ``(B, T, N)``.

    Raises:
      InvalidValue: for several layers, two directions or a projection; a missing or unknown name; or arrays that do not
        fit each other.

    Source: PyTorch's documentation of ``torch.nn.RNN``, ``torch.nn.LSTM`` and ``torch.nn.GRU``.
    """
    arrays = {name: np.asarray(value) for name, value in state_dict.items()}
    layer, rest = _split(arrays)
    for name, array in arrays.items():
        require(array.dtype.kind == "f", name, f"an array of {array.dtype}", "of floating-point numbers")
        require(array.ndim > 0 and array.size > 0, name, f"of shape {array.shape}", "of a shape without 0")
    recurrence = layer["weight_hh_l0"]
    require(recurrence.ndim == 2, "weight_hh_l0", recurrence.shape, "a matrix")
    rows, neurons = recurrence.shape
    allowed = "(N, N), of nn.RNN, (4N, N), of nn.LSTM, or (3N, N), of nn.GRU"
    require(rows in (neurons, *(gates * neurons for gates in GATED)), "weight_hh_l0", recurrence.shape, allowed)
    require(layer["weight_ih_l0"].ndim == 2, "weight_ih_l0", layer["weight_ih_l0"].shape, f"({rows}, D)")
    inputs = layer["weight_ih_l0"].shape[1]
    use_bias = set(BIASES) <= set(layer)
    for name, shape in {"weight_ih_l0": (rows, inputs), **dict.fromkeys(BIASES if use_bias else (), (rows,))}.items():
        _require_shape(layer, name, shape)

    if rows == neurons:
        require(activation in ("tanh", "relu"), "activation", activation, "tanh or relu, the nonlinearities of nn.RNN")
        cell = cells.elman(neurons, activation=activation, use_bias=use_bias)
        params = {
            part: {"kernel": layer[f"weight_{name}_l0"]} | ({"bias": layer[f"bias_{name}_l0"]} if use_bias else {})
            for part, name in PARTS.items()
        }
    else:
        allowed = "left out: an LSTM or a GRU has no nonlinearity to choose"
        require(activation == "tanh", "activation", activation, allowed)
        gates = rows // neurons
        cell = GATED[gates](neurons, use_bias=use_bias)
        biases = _our_biases(*(layer[name].reshape(gates, neurons) for name in BIASES)) if use_bias else ({}, {})
        params = {
            "encoder": {"kernel": layer["weight_ih_l0"].reshape(gates, neurons, inputs), **biases[0]},
            "recurrence": {"kernel": recurrence.reshape(gates, neurons, neurons), **biases[1]},
        }
    readout, readout_params = _readout(rest, neurons)
    params = {"cell": params, "readout": readout_params}
    return recurrent(cell, readout, inputs, backend=backend), jax.tree.map(jnp.asarray, params)


def to_pytorch(
    model: Model | None, params: Params, *, prefix: str = "", readout: str = "linear"
) -> dict[str, np.ndarray]:
    """The inverse of :func:`from_pytorch`: numpy arrays under PyTorch's names, in its shapes.

    Where a gate has one bias here, it comes out in ``bias_ih_l0``, beside zeros in ``bias_hh_l0``: what counts is their
    sum.

    Args:
      model: is not looked at; it is taken so that the two functions mirror each other.
      params: of a recurrent model with an ``elman``, ``lstm`` or ``gru`` cell and a linear readout or none; or of such
        a cell.
      prefix: before the recurrent layer's names, such as ``"rnn."``.
      readout: the name of the ``nn.Linear`` that reads.

    Raises:
      InvalidValue: for other parameters.
    """
    del model
    allowed = "the parameters of a simple RNN, an LSTM or a GRU, with a linear readout or none"
    try:
        cell, output = (params["cell"], params["readout"]) if "cell" in params else (params, {})
        encoder, recurrence = ({name: np.asarray(cell[part][name]) for name in cell[part]} for part in PARTS)
        known = set(cell) == set(PARTS) and set(output) <= {"output"}
        output = {NAMES[name]: np.asarray(value) for name, value in output.get("output", {}).items()}
        kinds = {np.shape(encoder["kernel"])[:-1], np.shape(recurrence["kernel"])[:-1]}
    except (TypeError, KeyError, AttributeError):
        known, kinds = False, set()
    require(known and len(kinds) == 1, "params", jax.tree.map(np.shape, params), allowed)
    leading, neurons = kinds.pop(), recurrence["kernel"].shape[-1]
    known = leading == (neurons,) or leading in [(gates, neurons) for gates in GATED]
    require(known, "params", jax.tree.map(np.shape, params), allowed)
    rows = int(np.prod(leading))
    arrays = {
        "weight_ih_l0": encoder["kernel"].reshape(rows, -1),
        "weight_hh_l0": recurrence["kernel"].reshape(rows, neurons),
    }
    if "bias" in encoder:
        arrays["bias_ih_l0"] = encoder["bias"].reshape(rows)
        second = recurrence.get("bias", np.zeros(0, encoder["bias"].dtype))
        arrays["bias_hh_l0"] = np.pad(second, (rows - second.size, 0))
    named = {f"{prefix}{name}": array for name, array in arrays.items()}
    return named | {f"{readout}.{name}": array for name, array in output.items()}


def _split(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The recurrent layer's arrays by their names alone, and the others."""
    found = {name: match for name in arrays if (match := LAYERS.fullmatch(name))}
    prefixes = sorted({match["prefix"] for match in found.values()})
    allowed = "one recurrent layer: weight_ih_l0, weight_hh_l0, with bias_ih_l0 and bias_hh_l0 or without"
    require(len(prefixes) == 1, "state_dict", sorted(arrays), allowed)
    layer = {match["name"]: arrays[name] for name, match in found.items()}
    deeper = sorted(set(layer) - {*WEIGHTS, *BIASES})
    allowed = f"{allowed}; nn.RNN, nn.LSTM and nn.GRU of one layer, in one direction, without a projection"
    require(not deeper, "state_dict", deeper, allowed)
    whole = set(layer) in ({*WEIGHTS}, {*WEIGHTS, *BIASES})
    require(whole, "state_dict", sorted(arrays), allowed)
    return layer, {name: array for name, array in arrays.items() if name not in found}


def _our_biases(ih: np.ndarray, hh: np.ndarray) -> tuple[Params, Params]:
    """The encoder's and the recurrence's, of PyTorch's two ``(gates, N)``: their sum; but of a GRU's candidate, whose
    second one stands within the reset gate, each by itself."""
    if len(ih) == LSTM_GATES:
        return {"bias": ih + hh}, {}
    return {"bias": np.concatenate([ih[:-1] + hh[:-1], ih[-1:]])}, {"bias": hh[-1]}


def _readout(rest: Mapping[str, np.ndarray], neurons: int) -> tuple[readouts.Readout, Params]:
    """Of what is left beside the recurrent layer: nothing, or one ``nn.Linear``."""
    if not rest:
        return readouts.direct(neurons), {}
    name, _, _ = min(rest).rpartition(".")
    one = set(rest) in ({f"{name}.weight"}, {f"{name}.weight", f"{name}.bias"})
    require(one, "state_dict", sorted(rest), "beside the recurrent layer at most one nn.Linear, which reads h")
    kernel = rest[f"{name}.weight"]
    require(kernel.ndim == 2 and kernel.shape[1] == neurons, f"{name}.weight", kernel.shape, f"(O, {neurons})")
    use_bias = f"{name}.bias" in rest
    if use_bias:
        _require_shape(rest, f"{name}.bias", kernel.shape[:1])
    params = {"kernel": kernel} | ({"bias": rest[f"{name}.bias"]} if use_bias else {})
    return readouts.linear(len(kernel), use_bias=use_bias), {"output": params}


def _require_shape(arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> None:
    require(arrays[name].shape == shape, name, arrays[name].shape, f"of shape {shape}, to fit the other arrays")
