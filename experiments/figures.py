"""Figures of runs: python -m experiments.figures runs/copy/A runs/copy/B --figure spectra --out figure.png"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from tyro.conf import Positional

from experiments import cli, devices, learned, reading
from experiments.experiment import MOST_CHANNELS, example, restore
from experiments.parts import Example, Parts
from experiments.runs import Run, grouped, open_run
from wrnn_jax import console
from wrnn_jax.models import entry
from wrnn_jax.tasks import HDSConfig
from wrnn_jax.training.checkpoint import Checkpoints
from wrnn_jax.training.state import TrainState
from wrnn_jax.validation import InvalidValue, require, require_choice, require_integer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".pdf", ".svg")
STAGES = 5
"""Steps of training that are drawn of a run."""


@dataclass(frozen=True)
class Config:
    """Draw a figure of the paper from one's own runs."""

    runs: Positional[tuple[Path, ...]] = ()
    """Run directories."""
    figure: str = "curves"
    """Which: bump (Fig. 1, no run) | spectra (Fig. 2) | curves (Figs. 3, 5, 6, 8) | example (Fig. 4) | parameters
    (Fig. 7) | speeds (Fig. 10) | training (Fig. 18, of runs with --keep-checkpoints 0) | ring (animation, GIF). Of
    networks of linear waves (wave-ssm): impulse (responses) | learned (speeds and memories, before and after). Of hds
    runs: eigenvalues | memories | variables (or a GIF) | evolution | horizon; and gradients (of untrained networks, no
    run)."""
    out: Path | None = None
    """The file to write, PNG, PDF or SVG by its ending; GIF for the ring, and for variables in motion (if not given:
    <figure>.png)."""
    index: int = 0
    """Which sequence of the test set the network is shown."""
    basis: reading.Grounds = "readout"
    """From where memories, variables and evolution take the basis of a simple RNN's variables."""
    data_dir: str | None = None
    """Where image sets are prepared, if not where they were when the runs were trained (else: there, if it is still
    there; or $TFDS_DATA_DIR or ~/tensorflow_datasets)."""
    channel: int = 0
    """Of which channel spectra are taken, and waves through training drawn."""
    layer: int | None = None
    """Of a deep network, which layer, 0 the first (if not given: all; for the ring the first)."""
    normalisation: Literal["power", "authors"] = "power"
    """Of spectra: power over the mean of randomly ordered states, or magnitude over that of one, as the authors have
    it."""

    def __post_init__(self):
        require_choice("figure", self.figure, FIGURES)
        kind = FIGURES[self.figure]
        if self.out is None:
            object.__setattr__(self, "out", Path(self.figure + kind.endings[0]))
        enough = kind.least <= len(self.runs) <= kind.most
        how_many = f"{kind.least}" if kind.least == kind.most else f"{kind.least} or more"
        require(enough, "runs", " ".join(map(str, self.runs)), f"{how_many} run directories for {self.figure}")
        allowed = "a file name that ends in " + ", ".join(kind.endings)
        require(self.out.suffix in kind.endings, "out", str(self.out), allowed)
        require_integer("index", self.index, at_least=0)
        require_integer("channel", self.channel, at_least=0)
        if self.layer is not None:
            require_integer("layer", self.layer, at_least=0)


def main(arguments: list[str] | None = None) -> None:
    """Draw from command-line arguments, and exit."""
    cli.main("python3 -m experiments.figures", Config, draw, arguments)


def draw(config: Config) -> int:
    """Write the figure; the exit code."""
    devices.start()
    figure = FIGURES[config.figure].draw([open_run(path, config.data_dir) for path in config.runs], config)
    if figure is not None:
        figure.savefig(config.out, dpi=150)
    console.say(str(config.out))
    return 0


def curves(runs: list[Run], config: Config) -> "Figure":
    """Training curves: mean and range over seeds."""
    from wrnn_jax.analysis import plots

    tasks = {run.experiment.name for run in runs}
    require(len(tasks) == 1, "runs", ", ".join(sorted(tasks)), "runs of one task, whose curves are alike")
    lines = {name: [run.rows for run in members] for name, members in grouped(runs).items()}
    chance = runs[0].experiment.baselines(runs[0].config.task)
    return plots.training_curves(lines, plots.PANELS[tasks.pop()], baselines=chance)


def bump(runs: list[Run], config: Config) -> "Figure":
    """The wave field against the static bump, on three binary signals."""
    from wrnn_jax.analysis import plots

    signals = np.zeros((40, 3))
    for signal, onset in enumerate((3, 11, 19)):
        signals[onset : onset + 3, signal] = 1
    return plots.bump_figure(signals)


def spectra(runs: list[Run], config: Config) -> "Figure":
    """Hidden states and their space–time spectra; neurons that are on no ring are sorted by their onset first."""
    from wrnn_jax.analysis import plots
    from wrnn_jax.analysis.waves import onset_order

    states, names = {}, set()
    for run in runs:
        require(run.short_name not in names, "runs", run.short_name, "runs of different models or tasks")
        names.add(run.short_name)
        for layer, hidden in shown(run, look(run, config), config).items():
            one, name = ring(run, hidden, config.channel), named(run.short_name, layer)
            if not entry(run.config.model.model).on_rings:
                one, name = one[:, onset_order(one)], f"{name}, by onset"
            states[name] = one
    return plots.spectrum_figure(states, normalisation=config.normalisation)


def one_example(runs: list[Run], config: Config) -> "Figure":
    """A sequence of the test set, and what the network answers."""
    (run,) = runs
    return run.experiment.draw(run.config, look(run, config))


def parameters(runs: list[Run], config: Config) -> "Figure":
    """Accuracy against the number of parameters: the mean over seeds of each size, and what the paper prints."""
    from wrnn_jax.analysis import plots
    from wrnn_jax.report.pictures import printed_points
    from wrnn_jax.report.published import written

    tasks: dict[str, dict[str, list[plots.Point]]] = {}
    for members in grouped(runs).values():
        first = members[0]
        task, model = first.experiment.name, first.config.model
        require(task in ("smnist", "psmnist"), "runs", str(first.path), "runs of smnist and psmnist alone")
        summaries = [run.summary for run in members]
        for field in ("test_acc", "epochs_done", "params"):
            known = all(summary.get(field) is not None for summary in summaries)
            require(known, "runs", " ".join(str(run.path) for run in members), f"runs with {field} in their summaries")
        accuracy = 100 * float(np.mean([summary["test_acc"] for summary in summaries]))
        epochs = f"{summaries[0]['epochs_done']:.3g}"
        name = f"n = {model.n_hid}, {epochs} epoch{'s' * (epochs != '1')}"
        kind = {"wrnn": "wRNN ({}c)", "irnn": "iRNN"}.get(model.model, model.model).format(getattr(model, "n_ch", 1))
        points = tasks.setdefault(task, {}).setdefault(kind, [])
        points.append(plots.Point(name, summaries[0]["params"], accuracy))
    suites = {
        written(task): {kind: plots.Suite(points, printed_points(task, kind)) for kind, points in kinds.items()}
        for task, kinds in tasks.items()
    }
    return plots.parameters_figure(suites)


def speeds(runs: list[Run], config: Config) -> "Figure":
    """The speed of the waves in every channel, and, of a network that was trained, before that."""
    from wrnn_jax.analysis import plots

    (run,) = runs
    parts, seed = run.parts(), run.config.train.seed
    _require_index(parts, config)
    trainer = parts.trainer()
    start, state = trainer.init(seed), restore(trainer, seed, run.path)
    before, now = (hidden_of(run, parts, one, config) for one in (start, state))
    of_steps = f"{run.short_name}, after {state.step:,} steps"
    (layer, first), *others = now.items()
    if not others and first.shape[1] <= MOST_CHANNELS:
        title = f"Wave speeds, {named(of_steps, layer)}"
        return plots.speeds_figure(first, before=before[layer] if state.step else None, title=title)
    return plots.speeds_by_layer(now, before=before if state.step else None, title=f"Wave speeds, {of_steps}")


def training(runs: list[Run], config: Config) -> "Figure":
    """Waves through training: a row a layer of a run, which its model and start name as far as they tell runs apart."""
    from wrnn_jax.analysis import plots

    names = _architectures(runs)
    rows = {}
    for run, name in zip(runs, names, strict=True):
        parts = run.parts()
        like = parts.trainer().init(run.config.train.seed)
        checkpoints = Checkpoints(run.path / "checkpoints")
        steps = checkpoints.steps()
        require(len(steps) > 1, "runs", str(run.path), "a run with more than one checkpoint, see --keep-checkpoints")
        chosen = sorted({steps[at] for at in np.linspace(0, len(steps) - 1, STAGES - 1).round().astype(int)})
        states = [like, *(checkpoints.restore_step(step, like) for step in chosen)]
        checkpoints.close()
        for state in states:
            for layer, hidden in hidden_of(run, parts, state, config).items():
                row = rows.setdefault(named(name, layer), [])
                row.append((int(state.step), ring(run, hidden, config.channel)))
    starts = {getattr(run.config.model, "init", None) for run in runs}
    title = "Waves through training" + (f", {starts.pop()} start" if len(starts) == 1 and None not in starts else "")
    return plots.waves_through_training(rows, title=title)


def _architectures(runs: list[Run]) -> list[str]:
    """A name for each run: its model and start, or as much of what differs among them as tells them apart.

    Raises:
      InvalidValue: for runs that nothing tells apart but training.
    """
    models = [dataclasses.asdict(run.config.model) for run in runs]
    forms = {"model": "{}", "init": "{} start", "encoder_init": "{} encoder", "speed": "speed {}"}
    forms |= {
        field: field.replace("_", "-") + " {}" for field in ("n_hid", "n_ch", "ksize", "act", "use_bias", "encoder")
    }
    differ = [field for field in forms if len({str(model.get(field)) for model in models}) > 1]
    differ = differ or ["init" if "init" in models[0] else "model"]
    for count in range(1, len(differ) + 1):
        names = [
            ", ".join(forms[field].format(model[field]) for field in differ[:count] if field in model)
            for model in models
        ]
        if len(set(names)) == len(names):
            return names
    twice = next(name for name in names if names.count(name) > 1)
    path = str(runs[len(names) - 1 - names[::-1].index(twice)].path)
    raise InvalidValue("runs", path, f"runs of different models: there are two of {twice}")


def animation(runs: list[Run], config: Config) -> None:
    """The ring, step by step."""
    from wrnn_jax.analysis import plots

    (run,) = runs
    layer, states = next(iter(shown(run, look(run, config), config).items()))
    plots.ring_animation(states, config.out, title=named(run.short_name, layer))


def impulse(runs: list[Run], config: Config) -> "Figure":
    """The impulse responses of every layer of linear waves."""
    from wrnn_jax.analysis import plots

    (run,) = runs
    parts = run.parts()
    state = restore(parts.trainer(), run.config.train.seed, run.path)
    title = f"Impulse responses, {run.short_name}, after {state.step:,} steps"
    return plots.impulse_figure(learned.impulse_responses(parts, state.params), title=title)


def speeds_and_memories(runs: list[Run], config: Config) -> "Figure":
    """How the waves of every layer travelled at the start, and do now."""
    from wrnn_jax.analysis import plots

    (run,) = runs
    parts, seed = run.parts(), run.config.train.seed
    trainer = parts.trainer()
    start, state = trainer.init(seed), restore(trainer, seed, run.path)
    before, now = (learned.travel(parts, one.params) for one in (start, state))
    title = f"Speeds and memories, {run.short_name}, after {state.step:,} steps"
    return plots.learned_figure(now, before, title=title)


def eigenvalues(runs: list[Run], config: Config) -> "Figure":
    """The eigenvalues of trained networks over those of their systems."""
    from wrnn_jax.analysis import plots

    compared = {}
    for run in runs:
        parts, state = _trained(run)
        found = reading.comparison(parts, state.params)
        allowed = "a run of hds whose f is linear, as its network is at 0: srnn, lstm or gru without biases, or twm-lbc"
        require(found is not None, "runs", str(run.path), allowed)
        compared[f"{run.short_name}, {run.path.name}" if run.short_name in compared else run.short_name] = found
    return plots.spectra_overlay(compared)


def memories(runs: list[Run], config: Config) -> "Figure":
    """A trained recurrence in the basis of its variables beside Φ."""
    return reading.memories_figure(*_trained(runs[0]), config.basis)


def variables(runs: list[Run], config: Config) -> "Figure | None":
    """The wave of variables over time: an image, or a GIF."""
    from wrnn_jax.analysis import plots

    parts, state = _trained(runs[0])
    _require_index(parts, config)
    if config.out.suffix != ".gif":
        return reading.variables_figure(parts, state, config.index, config.basis)
    waves = reading.evolution(parts, state, config.index, config.basis).variables
    return plots.variables_animation(waves, config.out, title=runs[0].short_name)


def evolution(runs: list[Run], config: Config) -> "Figure":
    """All variables over time, between input and output."""
    parts, state = _trained(runs[0])
    _require_index(parts, config)
    return reading.evolution_figure(parts, state, config.index, config.basis)


def horizon(runs: list[Run], config: Config) -> "Figure":
    """How long networks go on rightly."""
    from wrnn_jax.analysis import plots

    curves = {}
    for run in runs:
        parts, state = _trained(run)
        curves[run.path.name] = reading.accuracy_along(parts, state)
    first = runs[0].config.task
    chance = runs[0].experiment.make_task(first).chance["test_acc"]
    return plots.accuracy_by_step(curves, horizons=first.curriculum, chance=chance)


def gradients(runs: list[Run], config: Config) -> "Figure":
    """Gradient norms against the lag, of untrained networks."""
    from wrnn_jax.analysis import plots

    return plots.gradient_figure(reading.untrained_gradients(), columns=HDSConfig().s)


def _trained(run: Run) -> tuple[Parts, TrainState]:
    """A run of hds, and its newest state."""
    require(run.experiment.name == "hds", "runs", str(run.path), "runs of hds")
    parts = run.parts()
    return parts, restore(parts.trainer(), run.config.train.seed, run.path)


def look(run: Run, config: Config) -> Example:
    """What the run's network makes of a sequence of the test set."""
    parts = run.parts()
    _require_index(parts, config)
    state = restore(parts.trainer(), run.config.train.seed, run.path)
    return example(parts, state, config.index)


def hidden_of(run: Run, parts: Parts, state: TrainState, config: Config) -> dict[str, np.ndarray]:
    """The hidden states of the run's network in a state, on a sequence of the test set, as :func:`shown`."""
    return shown(run, example(parts, state, config.index), config)


def shown(run: Run, seen: Example, config: Config) -> dict[str, np.ndarray]:
    """The hidden states ``(T, C, N)`` of an example by the name of the layer, ``""`` of one alone: of the layer that is
    asked for, or of all, or an even spread of very many.

    Raises:
      InvalidValue: for a model that has none, or not so many layers.
    """
    from wrnn_jax.analysis.plots.layers import LAYERS, layer_names, spread

    model = run.config.model.model
    allowed = f"runs of a model with hidden states, which {model} has not, or more than there is room for"
    require(seen.hidden is not None, "runs", str(run.path), allowed)
    layers = list(zip(layer_names(list(seen.hidden)), seen.hidden.values(), strict=True))
    if config.layer is None:
        return dict(layers[index] for index in spread(len(layers), LAYERS))
    require(config.layer < len(layers), "layer", config.layer, f"0 to {len(layers) - 1}, the layers of {run.path}")
    return dict([layers[config.layer]])


def named(run: str, layer: str) -> str:
    """A run's layer, or a run of one layer."""
    return ", ".join(filter(None, [run, layer]))


def _require_index(parts: Parts, config: Config) -> None:
    size = parts.task.splits["test"].size
    require(config.index < size, "index", config.index, f"0 to {size - 1}, the test set")


def ring(run: Run, hidden: np.ndarray, channel: int) -> np.ndarray:
    """One channel of ``(T, C, N)``."""
    channels = hidden.shape[1]
    if channel >= channels:
        raise InvalidValue("channel", channel, f"0 to {channels - 1}, the channels of {run.path}")
    return hidden[:, channel]


class Kind(NamedTuple):
    """A figure, and what it takes."""

    draw: Callable[[list[Run], Config], Any]
    least: int
    most: float = float("inf")
    endings: tuple[str, ...] = PICTURES


FIGURES: Mapping[str, Kind] = {
    "bump": Kind(bump, 0, 0),
    "spectra": Kind(spectra, 1),
    "curves": Kind(curves, 1),
    "example": Kind(one_example, 1, 1),
    "parameters": Kind(parameters, 1),
    "speeds": Kind(speeds, 1, 1),
    "training": Kind(training, 1),
    "ring": Kind(animation, 1, 1, (".gif",)),
    "impulse": Kind(impulse, 1, 1),
    "learned": Kind(speeds_and_memories, 1, 1),
    "eigenvalues": Kind(eigenvalues, 1),
    "memories": Kind(memories, 1, 1),
    "variables": Kind(variables, 1, 1, (*PICTURES, ".gif")),
    "evolution": Kind(evolution, 1, 1),
    "horizon": Kind(horizon, 1),
    "gradients": Kind(gradients, 0, 0),
}

if __name__ == "__main__":
    main()
