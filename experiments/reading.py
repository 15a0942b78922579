"""Reading trained networks of :mod:`experiments.hds` by the theory: their eigenvalues, their variables, and how far
back gradients reach."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from experiments.experiment import Parts, example
from wrnn_jax import models
from wrnn_jax.analysis.gradients import gradient_by_lag
from wrnn_jax.analysis.variables import (
    SpectralComparison,
    compare_spectra,
    in_basis,
    linearised,
    reduced,
    variable_memories,
    variables_over_time,
)
from wrnn_jax.models import MODELS, HDSModelConfig, cell_of
from wrnn_jax.tasks import HDSConfig
from wrnn_jax.tasks.hds import operator_of, right, step_scale
from wrnn_jax.theory import Basis, phi
from wrnn_jax.training.state import TrainState
from wrnn_jax.typing import Array, Params
from wrnn_jax.validation import InvalidValue, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNTRAINED = {
    "TWM": HDSModelConfig("twm-lbc"),
    "tanh RNN": HDSModelConfig("srnn", init="random"),
    "LSTM": HDSModelConfig("lstm"),
    "wRNN": HDSModelConfig("wrnn"),
    "tanh RNN, orthogonal start": HDSModelConfig("srnn", init="orthogonal"),
}
"""The networks whose gradients are compared."""
LAGS = 60
STEPS_SHOWN = 60
"""Of a series, in pictures of the variables."""


def recurrence(parts: Parts, params: Params) -> np.ndarray | None:
    """What a step does to the state near the origin, as a matrix; None where it has no such form.

    That is W_hh of a tanh RNN or one with the identity, Φ of a TWM with linear boundary, the Jacobian of an LSTM.
    """
    config = parts.config.model
    if config.model == "twm-lbc":
        return phi(params["cell"]["operator"])
    if config.use_bias or config.act == "relu" or config.model == "twm-sbc":
        return None
    size = parts.task.input_size
    return linearised(cell_of(config, size), params["cell"], size)


def comparison(parts: Parts, params: Params) -> SpectralComparison | None:
    """The network's eigenvalues beside those of its system; None where it has none."""
    matrix = recurrence(parts, params)
    return None if matrix is None else compare_spectra(matrix, phi(operator_of(parts.config.task)))


def measure(parts: Parts, state: TrainState) -> dict[str, Any]:
    """What a summary says of the spectrum: the mean angle error in radians, how many eigenvalues there are, and the
    spectral radius: above 1 a linear network grows without bound."""
    compared = comparison(parts, state.params)
    if compared is None:
        return {}
    return {
        "angle_error": compared.angle_error,
        "eigenvalues_kept": len(compared.trained),
        "eigenvalues_theory": len(compared.theory),
        "spectral_radius": compared.radius,
    }


class Reading(NamedTuple):
    """A simple RNN in the basis of its variables."""

    kept: np.ndarray
    """The components of the substrate that matter."""
    basis: Basis
    matrix: np.ndarray
    """Ψ⁺ W_hh Ψ."""
    phi: np.ndarray
    """The reduced Φ."""


def read(parts: Parts, params: Params) -> Reading:
    """The variables of a simple RNN.

    Raises:
      InvalidValue: for another network, or one in which no such basis is found.
    """
    config, task = parts.config.model, parts.config.task
    family = MODELS[config.model].family
    require(family == "elman" and not config.use_bias, "model", config.model, "a simple RNN without biases, as srnn")
    theory = phi(operator_of(task))
    kept = reduced(theory)
    W_hh = params["cell"]["recurrence"]["kernel"]
    found = variable_memories(W_hh, params["readout"]["output"]["kernel"], task.s, kept)
    return Reading(kept, found, in_basis(W_hh, found), theory[np.ix_(kept, kept)])


def variables(parts: Parts, state: TrainState, index: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The variables over time, ``(T, s, d)``, and the inputs ``(T, d)``, of a sequence of the test set.

    Of a TWM they are its substrate; of a simple RNN what its hidden state is in the basis of its variable memories.
    """
    seen, task = example(parts, state.params, state.fixed, index), parts.config.task
    hidden, inputs = seen.hidden[:STEPS_SHOWN], seen.inputs[:STEPS_SHOWN]
    if MODELS[parts.config.model.model].family == "twm":
        return np.swapaxes(hidden, 1, 2), inputs
    reading = read(parts, state.params)
    flat = hidden.reshape(len(hidden), -1)
    return variables_over_time(flat, reading.basis, task.s, task.d, reading.kept), inputs


def pictures(parts: Parts, state: TrainState) -> dict[str, "Figure"]:
    """The figures that a run draws of itself, as far as its network can be read."""
    from wrnn_jax.analysis import plots

    name = f"{parts.config.model.model}, {parts.config.task.task}"
    drawn = {}
    compared = comparison(parts, state.params)
    if compared is not None:
        drawn["eigenvalues"] = plots.spectra_overlay({name: compared})
    try:
        drawn["variables"] = variables_figure(parts, state)
        drawn["memories"] = memories_figure(parts, state)
    except InvalidValue:
        pass  # A network that has not learned its system, or is of another kind, has no such variables.
    return drawn


def variables_figure(parts: Parts, state: TrainState, index: int = 0) -> "Figure":
    """The wave of variables over time."""
    from wrnn_jax.analysis import plots

    waves, inputs = variables(parts, state, index)
    title = f"Variables of working memory over time, {parts.config.model.model}, {parts.config.task.task}"
    return plots.variables_wave(waves, inputs=inputs, title=title)


def memories_figure(parts: Parts, state: TrainState) -> "Figure":
    """W_hh in the basis of its variables beside Φ."""
    from wrnn_jax.analysis import plots

    reading = read(parts, state.params)
    return plots.matrix_beside_phi(reading.matrix, reading.phi, size=parts.config.task.d, kept=reading.kept)


def accuracy_along(parts: Parts, params: Params) -> np.ndarray:
    """The share of right signs at each step of the horizon, over the test set: ``(H,)``."""
    task, config = parts.task, parts.config.task
    split, scale = task.splits["test"], step_scale(config)

    @jax.jit
    def share(params: Params) -> Array:
        inputs, due = split.examples(task.source, np.arange(split.size))
        said = parts.model.apply(params, inputs)[:, config.s :] / np.asarray(scale, np.float32)[None, :, None]
        return right(said, due).mean(axis=(0, 2))

    return np.asarray(share(jax.device_put(params, jax.local_devices()[0])))


def untrained_gradients(seeds: Sequence[int] = range(3)) -> dict[str, np.ndarray]:
    """Name -> the norm of the gradient of the whole last state to the input of each lag, relative to lag 0, at the
    start: the geometric mean over seeds."""
    config = HDSConfig()
    keys = [jax.random.key(seed) for seed in seeds]
    xs = jax.random.rademacher(jax.random.key(0), (8, LAGS + 1, config.d), np.float32)
    norms = {}
    for name, model in UNTRAINED.items():
        cell = cell_of(model, config.d)
        network = models.recurrent(cell, models.readouts.direct(cell.output_size), config.d, backend="scan")

        def last_state(params: Params, xs: Array, network=network) -> Array:
            return network.hidden(params, xs)[:, -1].reshape(len(xs), -1)

        of_seeds = [gradient_by_lag(last_state, network.init(key), xs) for key in keys]
        with np.errstate(divide="ignore"):  # The logarithm of 0.
            norms[name] = np.exp(np.log(of_seeds).mean(axis=0))
    return norms
