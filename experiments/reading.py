"""Reading trained networks of :mod:`experiments.hds` by the theory: their eigenvalues, their variables, and how far
back gradients reach."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import jax
import numpy as np

from experiments.experiment import example
from experiments.parts import Parts
from wrnn_jax import cells, unroll
from wrnn_jax.analysis.gradients import gradient_by_lag
from wrnn_jax.analysis.variables import (
    SpectralComparison,
    compare_spectra,
    in_basis,
    input_memories,
    outside,
    reduced,
    variable_memories,
    variables_over_time,
)
from wrnn_jax.cells.twm import linear_boundary
from wrnn_jax.layers import Variables
from wrnn_jax.models.elman import ElmanConfig
from wrnn_jax.models.twm import TWMConfig
from wrnn_jax.tasks import HDSConfig
from wrnn_jax.tasks.hds import right, step_scale, system_of
from wrnn_jax.theory import Basis, moments, phi, spectral_radius
from wrnn_jax.training.state import TrainState
from wrnn_jax.typing import Array, Params
from wrnn_jax.validation import InvalidValue, require, require_choice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNTRAINED = {
    "TWM": cells.twm(linear_boundary(8, 8), input_steps=8),
    "tanh RNN": cells.elman(64, use_bias=False),
    "LSTM": cells.lstm(64, use_bias=False),
    "wRNN": cells.wave(8, 64, encoder_init="dense", use_bias=False),
    "tanh RNN, orthogonal start": cells.elman(64, kernel_init="orthogonal", use_bias=False),
}
"""The networks whose gradients are compared."""
Grounds = Literal["readout", "input"]
"""From where a basis of variables is found."""
LAGS = 60
STEPS_SHOWN = 60
"""Of a series, in pictures of the variables."""


def comparison(parts: Parts, params: Params) -> SpectralComparison | None:
    """The network's eigenvalues beside those of its system; None where one of the two is not linear at 0."""
    matrix, operator = parts.model.transition(params), system_of(parts.config.task).operator
    return None if matrix is None or operator is None else compare_spectra(matrix, phi(operator))


def measure(parts: Parts, state: TrainState) -> dict[str, Any]:
    """What a summary says of the spectrum: the mean angle error in radians, how many eigenvalues there are, and the
    spectral radius, above 1 of which a linear network grows without bound; of a nonlinear system the least error that a
    linear network could have."""
    config, measured = parts.config.task, {}
    bound = moments(system_of(config), config.horizon).linear_error
    if bound is not None:
        measured["linear_mse"] = float(bound.mean())
    matrix = parts.model.transition(state.params)
    if matrix is not None:
        measured["spectral_radius"] = spectral_radius(matrix)
    compared = comparison(parts, state.params)
    if compared is None:
        return measured
    return measured | {
        "angle_error": compared.angle_error,
        "eigenvalues_kept": len(compared.trained),
        "eigenvalues_theory": len(compared.theory),
    }


class Reading(NamedTuple):
    """A simple RNN in the basis of its variables."""

    kept: np.ndarray
    """The components of the substrate that matter."""
    basis: Basis
    matrix: np.ndarray
    """Ψ⁺ W_hh Ψ."""
    phi: np.ndarray | None
    """The reduced Φ; None where the system is not linear."""


def read(parts: Parts, params: Params, grounds: Grounds = "readout") -> Reading:
    """The variables of a simple RNN, found from its readout or its input.

    Raises:
      InvalidValue: for another network, or one in which no such basis is found.
    """
    require_choice("basis", grounds, get_args(Grounds))
    config, task = parts.config.model, parts.config.task
    is_simple = isinstance(config, ElmanConfig) and config.is_plain and not config.use_bias
    require(is_simple, "model", config.model, "a simple RNN of one layer without biases, as srnn")
    operator = system_of(task).operator
    theory = None if operator is None else phi(operator)
    kept = np.arange(task.s * task.d) if theory is None else reduced(theory)
    W_hh = params["cell"]["recurrence"]["kernel"]
    if grounds == "readout":
        found = variable_memories(W_hh, params["readout"]["output"]["kernel"], task.s, kept)
    else:
        found = input_memories(W_hh, params["cell"]["encoder"]["kernel"], task.s, kept)
    reduced_phi = None if theory is None else theory[np.ix_(kept, kept)]
    return Reading(kept, found, in_basis(W_hh, found), reduced_phi)


class Evolution(NamedTuple):
    """A sequence of the test set in the basis of a network's variables; its first steps."""

    variables: np.ndarray
    """``(T, s, d)``: of a TWM its substrate, of a simple RNN its hidden state in the basis of its variable memories."""
    inputs: np.ndarray
    """``(T, d)``"""
    outputs: np.ndarray
    """What the network says, ``(T, d)``; of a growing series, divided by its scale."""
    due: np.ndarray
    """What is due, ``(T, d)``; NaN in the input phase."""
    outside: np.ndarray
    """The share of the state that is in none of the variables, ``(T,)``."""


def evolution(parts: Parts, state: TrainState, index: int = 0, grounds: Grounds = "readout") -> Evolution:
    """The variables over time beside what comes in and goes out.

    Raises:
      InvalidValue: as :func:`read`.
    """
    seen, task = example(parts, state, index), parts.config.task
    scale = np.concatenate([np.ones(task.s), step_scale(task)])[:, None]
    due = np.concatenate([np.full((task.s, task.d), np.nan), seen.targets])
    inputs, outputs, due = (values[:STEPS_SHOWN] for values in (seen.inputs, seen.outputs / scale, due))
    if isinstance(parts.config.model, TWMConfig):
        hidden = seen.hidden[""][:STEPS_SHOWN]
        return Evolution(np.swapaxes(hidden, 1, 2), inputs, outputs, due, np.zeros(len(hidden)))
    reading = read(parts, state.params, grounds)
    hidden = seen.hidden[""][:STEPS_SHOWN]
    flat = hidden.reshape(len(hidden), -1)
    variables = variables_over_time(flat, reading.basis, task.s, task.d, reading.kept)
    return Evolution(variables, inputs, outputs, due, outside(flat, reading.basis))


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


def variables_figure(parts: Parts, state: TrainState, index: int = 0, grounds: Grounds = "readout") -> "Figure":
    """The wave of variables over time, element by element."""
    from wrnn_jax.analysis import plots

    seen = evolution(parts, state, index, grounds)
    title = f"Variables of working memory over time, {parts.config.model.model}, {parts.config.task.task}"
    return plots.variables_wave(seen.variables, inputs=seen.inputs, outside=seen.outside, title=title)


def evolution_figure(parts: Parts, state: TrainState, index: int = 0, grounds: Grounds = "readout") -> "Figure":
    """All variables over time, the input above and the output below."""
    from wrnn_jax.analysis import plots

    title = f"Evolution of the variables, {parts.config.model.model}, {parts.config.task.task}"
    return plots.evolution(**evolution(parts, state, index, grounds)._asdict(), title=title)


def memories_figure(parts: Parts, state: TrainState, grounds: Grounds = "readout") -> "Figure":
    """W_hh in the basis of its variables beside Φ."""
    from wrnn_jax.analysis import plots

    reading = read(parts, state.params, grounds)
    require(reading.phi is not None, "task", parts.config.task.task, "a system whose f is linear, to have a Φ")
    return plots.matrix_beside_phi(reading.matrix, reading.phi, size=parts.config.task.d, kept=reading.kept)


def accuracy_along(parts: Parts, state: TrainState) -> np.ndarray:
    """The share of right signs at each step of the horizon, over the test set: ``(H,)``."""
    task, config = parts.task, parts.config.task
    split, scale = task.splits["test"], step_scale(config)

    @jax.jit
    def share(variables: Variables) -> Array:
        inputs, due = split.examples(task.source, np.arange(split.size))
        said = parts.model.apply(variables, inputs)[0][:, config.s :] / np.asarray(scale, np.float32)[None, :, None]
        return right(said, due).mean(axis=(0, 2))

    return np.asarray(share(jax.device_put(state.variables, jax.local_devices()[0])))


def untrained_gradients(seeds: Sequence[int] = range(3)) -> dict[str, np.ndarray]:
    """Name -> the norm of the gradient of the whole last state to the input of each lag, relative to lag 0, at the
    start: the geometric mean over seeds."""
    config = HDSConfig()
    keys = [jax.random.key(seed) for seed in seeds]
    xs = jax.random.rademacher(jax.random.key(0), (8, LAGS + 1, config.d), np.float32)
    norms = {}
    for name, cell in UNTRAINED.items():

        def last_state(params: Params, xs: Array, cell=cell) -> Array:
            hidden = unroll(cell, params, xs, outputs="last", return_hidden=True).hidden
            return hidden[:, -1].reshape(len(xs), -1)

        # The first key of two: that of a network's cell, the second being its readout's.
        of_seeds = [gradient_by_lag(last_state, cell.init(jax.random.split(key)[0], config.d), xs) for key in keys]
        with np.errstate(divide="ignore"):  # The logarithm of 0.
            norms[name] = np.exp(np.log(of_seeds).mean(axis=0))
    return norms
