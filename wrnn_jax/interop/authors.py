"""The authors' trained weights: from the names and shapes of their PyTorch program to ours, and back."""

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from wrnn_jax import cells, readouts
from wrnn_jax.models import Model, recurrent
from wrnn_jax.typing import Params
from wrnn_jax.validation import require, require_integer

CELL_NAMES = ("cell.Wx.weight", "cell.Wx.bias", "cell.Wy.weight", "cell.Wy.bias")
LINEAR_NAMES = {"output": "readout"}
MLP_NAMES = {"hidden": "readout.0", "output": "readout.2"}


AUTHORS_COLORS = {96: 3}
"""Inputs of a step -> the colours of a pixel, where they are not 1: of the authors' models only those of nsCIFAR10."""


def from_authors(
    state_dict: Mapping[str, np.ndarray],
    *,
    activation: str = "relu",
    channels: int | None = None,
    backend: Literal["auto", "scan", "fused", "native", "parallel"] = "auto",
    colors: int | None = None,
) -> tuple[Model, Params]:
    """The model and parameters that the authors' ``state_dict`` describes: same weights, same states.

    ==================  ===========================================================================
    ``cell.Wx.weight``  ``(C·N, D)``
    ``cell.Wx.bias``    ``(C·N,)``
    ``cell.Wy.weight``  ``(C, C, K)`` convolution, ``(1, C, C, N, K)`` locally connected,
                        ``(C·N, C·N)`` dense RNN
    ``cell.Wy.bias``    ``(C,)``, ``(1, C, N)``, ``(C·N,)``
    ``readout.*``       ``weight (O, C·N)``, ``bias (O,)``; for the MLP ``readout.0.*``, ``readout.2.*``
    ==================  ===========================================================================

    Args:
      state_dict: arrays, or anything ``numpy.asarray`` takes (CPU tensors too), under those names.
      activation: ``"relu"``, ``"tanh"`` or ``"identity"``: it is not in the weights.
      channels: C. A convolution tells it, and what is given is checked against it; a dense RNN does
        not, and is taken to have one channel.
      colors: of a row of pixels that is one step's input, as in nsCIFAR10: the authors' program hands on all its
        reds, then its greens, then its blues; our task goes pixel by pixel. The columns of ``cell.Wx.weight`` are
        brought into our order. If not given: 3 for D = 96, as nsCIFAR10 has it, else 1, which leaves them as they are.
      backend: as in :func:`wrnn_jax.cells.unroll`.

    Returns:
      ``(model, params)`` with ``model.apply(Variables(params), xs)[0]``: xs ``(B, T, D)`` -> ``(B, T, O)``.

    Raises:
      ValueError: for a missing or unknown name, or shapes that do not fit each other.

    Source: the authors' public program, its convolutional, locally connected and dense models.
    """
    arrays = {name: np.asarray(value) for name, value in state_dict.items()}
    readout_names = MLP_NAMES if "readout.0.weight" in arrays else LINEAR_NAMES
    expected = {*CELL_NAMES, *(f"{name}.{part}" for name in readout_names.values() for part in ("weight", "bias"))}
    require(set(arrays) == expected, "state_dict", sorted(arrays), "exactly the names " + ", ".join(sorted(expected)))

    kernel = arrays["cell.Wy.weight"]
    units, inputs = _shape(arrays, "cell.Wx.weight", 2)
    require(kernel.ndim in (2, 3, 5), "cell.Wy.weight", kernel.shape, "(C, C, K), (1, C, C, N, K) or (C·N, C·N)")
    local = kernel.ndim == 5
    if kernel.ndim == 2:
        rings = 1 if channels is None else channels
        require(rings >= 1 and units % rings == 0, "channels", channels, f"a divisor of C·N = {units}")
        cell, state_shape = cells.elman(units // rings, channels=rings, activation=activation), (units,)
        recurrence_shape, bias_shape = (units, units), (units,)
    else:
        rings, taps = kernel.shape[-4 if local else 0], kernel.shape[-1]
        require(channels in (None, rings), "channels", channels, f"{rings}, as cell.Wy.weight has it")
        require(rings >= 1, "cell.Wy.weight", kernel.shape, "of one channel or more")
        allowed = f"(C·N, D) with C·N a multiple of C = {rings}"
        require(units % rings == 0, "cell.Wx.weight", (units, inputs), allowed)
        neurons = units // rings
        allowed = f"of an odd number of taps, at most N = {neurons}"
        require(taps % 2 == 1 and taps <= neurons, "cell.Wy.weight", kernel.shape, allowed)
        # The start is never used; the random one is allowed for every number of taps.
        cell = cells.wave(rings, neurons, taps, activation=activation, kernel_init="random", local=local)
        state_shape = (rings, neurons)
        recurrence_shape = (1, rings, rings, neurons, taps) if local else (rings, rings, taps)
        bias_shape = (1, rings, neurons) if local else (rings,)
    _require_shape(arrays, "cell.Wy.weight", recurrence_shape)
    _require_shape(arrays, "cell.Wy.bias", bias_shape)
    _require_shape(arrays, "cell.Wx.bias", (units,))
    colors = _colors(inputs, colors)

    params = {
        "cell": {
            "encoder": {
                "kernel": _transposed(arrays["cell.Wx.weight"], colors).reshape(*state_shape, inputs),
                "bias": arrays["cell.Wx.bias"].reshape(state_shape),
            },
            "recurrence": {
                "kernel": kernel[0] if local else kernel,
                "bias": arrays["cell.Wy.bias"][0] if local else arrays["cell.Wy.bias"],
            },
        },
        "readout": {},
    }
    features = units
    for layer, name in readout_names.items():
        outputs, _ = _shape(arrays, f"{name}.weight", 2)
        _require_shape(arrays, f"{name}.weight", (outputs, features))
        _require_shape(arrays, f"{name}.bias", (outputs,))
        params["readout"][layer] = {"kernel": arrays[f"{name}.weight"], "bias": arrays[f"{name}.bias"]}
        features = outputs
    is_mlp = readout_names is MLP_NAMES
    hidden_size = len(arrays["readout.0.bias"]) if is_mlp else None
    readout = readouts.mlp(features, hidden_size) if is_mlp else readouts.linear(features)
    return recurrent(cell, readout, inputs, backend=backend), jax.tree.map(jnp.asarray, params)


def to_authors(model: Model, params: Params, *, colors: int | None = None) -> dict[str, np.ndarray]:
    """The inverse of :func:`from_authors`: numpy arrays under the authors' names, in their shapes and order.

    Raises:
      ValueError: for parameters that are not those of a recurrent model of this library, or colors that do not divide
        D.
    """
    del model  # The parameters tell every shape; it is taken so that the two functions mirror each other.
    allowed = "the parameters of a recurrent model, of a wave or dense cell and a dense encoder, with biases"
    try:
        encoder, recurrence, readout = params["cell"]["encoder"], params["cell"]["recurrence"], params["readout"]
        parts = [encoder, recurrence, *readout.values()]
    except (TypeError, KeyError, AttributeError):
        parts = []
    known = bool(parts) and all(isinstance(part, Mapping) and part.keys() == {"kernel", "bias"} for part in parts)
    known = known and np.ndim(encoder["kernel"]) == (2 if np.ndim(recurrence["kernel"]) == 2 else 3)
    known = known and np.shape(encoder["kernel"])[:-1] == np.shape(encoder["bias"])
    require(known, "params", jax.tree.map(np.shape, params), allowed)
    kernel, bias = np.asarray(recurrence["kernel"]), np.asarray(recurrence["bias"])
    local = kernel.ndim == 4
    inputs = encoder["kernel"].shape[-1]
    weight = np.asarray(encoder["kernel"]).reshape(-1, inputs)
    arrays = {
        "cell.Wx.weight": _transposed(weight, inputs // _colors(inputs, colors)),
        "cell.Wx.bias": np.asarray(encoder["bias"]).reshape(-1),
        "cell.Wy.weight": kernel[None] if local else kernel,
        "cell.Wy.bias": bias[None] if local else bias,
    }
    for layer, name in (MLP_NAMES if "hidden" in readout else LINEAR_NAMES).items():
        arrays[f"{name}.weight"] = np.asarray(readout[layer]["kernel"])
        arrays[f"{name}.bias"] = np.asarray(readout[layer]["bias"])
    return arrays


def _colors(inputs: int, colors: int | None) -> int:
    colors = AUTHORS_COLORS.get(inputs, 1) if colors is None else colors
    require_integer("colors", colors, at_least=1)
    require(inputs % colors == 0, "colors", colors, f"a divisor of D = {inputs}")
    return colors


def _transposed(weight: np.ndarray, outer: int) -> np.ndarray:
    """Columns ``(outer, inner)`` -> ``(inner, outer)``: the pixels of every colour -> the colours of every pixel."""
    return weight.reshape(len(weight), outer, -1).swapaxes(1, 2).reshape(weight.shape)


def _shape(arrays: Mapping[str, np.ndarray], name: str, axes: int) -> tuple[int, ...]:
    require(arrays[name].ndim == axes, name, arrays[name].shape, f"an array of {axes} axes")
    return arrays[name].shape


def _require_shape(arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> None:
    require(arrays[name].shape == shape, name, arrays[name].shape, f"of shape {shape}, to fit the other arrays")
