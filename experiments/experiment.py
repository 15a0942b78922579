"""One run of an experiment, trained into a run directory."""

import contextlib
import dataclasses
import io
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from experiments import cli, devices
from experiments.cli import FAILURE
from experiments.kernels import compile_if_it_pays, shards_of_batch
from experiments.parts import Example, Parts
from experiments.room import require_possible, require_room
from experiments.settings import Experiment, readable_name
from wrnn_jax import console
from wrnn_jax.files import write_atomically
from wrnn_jax.layers import Variables
from wrnn_jax.models import Model, count_parameters
from wrnn_jax.models.contract import built
from wrnn_jax.report.groups import NEUTRAL
from wrnn_jax.tasks import Source, Task
from wrnn_jax.training import fit as fitting
from wrnn_jax.training.checkpoint import Checkpoints
from wrnn_jax.training.config import TrainConfig
from wrnn_jax.training.lock import locked, require_unlocked
from wrnn_jax.training.loop import Trainer
from wrnn_jax.training.optimizer import PLATEAUS
from wrnn_jax.training.rundir import UNCHANGING, RunDirectory, device
from wrnn_jax.training.state import TrainState
from wrnn_jax.training.stored import read_summary
from wrnn_jax.typing import Array
from wrnn_jax.validation import InvalidValue, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CHANNELS = 32
"""Of a network of one layer, that its picture of waves shows all of."""
MOST_BYTES = 2**31
"""Of hidden states, for them to be looked at."""


def assemble(
    experiment: Experiment, config: Any, task: Task | None = None, members: int = 1, trains: bool = False
) -> Parts:
    """The task and model of a config, and what ``auto`` and flags that were not given come to here.

    Args:
      experiment: which.
      config: its config.
      task: the config's, where it was made before.
      members: how many of a grid share the devices.
      trains: whether they are now trained: what pays then is compiled first.

    Raises:
      InvalidValue: for a config that cannot be, or that memory has no room for.
    """
    # One sequence of a trained network may be looked at where there is no room to train it.
    require_possible(config, config.train.batch if trains else 1)
    task = task or experiment.make_task(config.task)
    train, batch = config.train, config.train.batch
    settled = dataclasses.replace(config.task, **task.settled) if task.settled else config.task
    config = dataclasses.replace(config, task=settled, train=resolved(task, train))
    if trains:
        compile_if_it_pays(config, task, members)
    model_config = config.model.on_this_machine(task.signature, batch)
    shards = shards_of_batch(config.model.backend_for(task.signature, batch), batch, members)
    model = built(model_config, task.signature, batch)
    return Parts(dataclasses.replace(config, model=model_config), task, model, shards)


def resolved(task: Task, train: TrainConfig) -> TrainConfig:
    """The training that a config stands for on a task."""
    return train.resolved(task.epoch_steps(train.batch), task.loss_divisor(train.batch))


def unchanging(parts: Parts) -> frozenset[str]:
    """Fields in which a resumed run may differ from before."""
    # Where evaluations leave a trace in the state, a resumed run must have them at the same steps.
    train = parts.config.train
    traceless = parts.task.score is None and train.schedule not in PLATEAUS and train.patience is None
    return UNCHANGING if traceless else UNCHANGING - {"log_interval"}


def run(experiment: Experiment, config: Any, command: str) -> int:
    """Train, or only evaluate; write the run directory; say what came of it; return the exit code.

    Args:
      experiment: which.
      config: its config.
      command: what one would type to run it again.
    """
    default = Path("runs") / experiment.name / readable_name(experiment, config)
    logdir = Path(config.run.logdir or default)
    computed_on = devices.start()
    parts = assemble(experiment, config, trains=not config.run.eval_only)
    trainer = parts.trainer()
    if not config.run.eval_only:
        require_room(trainer, parts.task, parts.config)
    goes_on = config.run.resume or config.run.eval_only
    # A network that is only evaluated may be tested over another horizon than it was.
    free = unchanging(parts) | ({"horizon"} if config.run.eval_only else set())

    def look() -> RunDirectory:
        return RunDirectory(logdir, experiment.name, parts.config, goes_on, free)

    if config.run.eval_only:  # This writes nothing, and may be while the run goes on.
        return _evaluate_only(parts, trainer, look())
    look()  # What is refused leaves no trace, not even a lock.
    if logdir.absolute().parent.name == "members":
        require_unlocked(logdir.absolute().parents[1])  # The grid's.
    with locked(logdir):
        directory = look()
        parameters = count_parameters(jax.eval_shape(parts.model.init, jax.random.key(0)).params)
        console.say(f"{config.model.model}, {parameters:,} parameters, in {directory.path}", f"on {computed_on}")
        fitted = fitting.fit(trainer, parts.task, parts.config.train, directory)
        directory.summarise(summary(experiment, parts, fitted))
        draw_figures(experiment, parts, fitted.state, directory)
        return _report(parts, fitted, directory, command)


def draw_figures(experiment: Experiment, parts: Parts, state: TrainState, directory: RunDirectory) -> None:
    """Into the run directory."""
    for stem, figure in figures(experiment, parts, state, directory.metrics()).items():
        save_figure(figure, directory.figures / f"{stem}.png")


def save_figure(figure: "Figure", path: Path) -> None:
    """As a PNG in a run directory, whole: reports show it."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    write_atomically(path, png.getvalue())


def example(parts: Parts, state: TrainState, index: int = 0) -> Example:
    """What the network makes of a sequence of the test set."""
    model = parts.model

    @jax.jit
    def look(variables: Variables, source: Source, indices: Array) -> tuple[Any, ...]:
        inputs, targets = parts.task.splits["test"].examples(source, indices)
        hidden = None
        if model.hidden and states_fit(model, variables, inputs):
            hidden = OrderedDict(model.hidden(variables, inputs))  # Of a plain dict what is compiled loses the order.
        return inputs, model.apply(variables, inputs)[0], targets, hidden

    # On one device: one sequence is not to be shared.
    given = state.variables, Source(parts.task.source.data, state.fixed), np.array([index])
    seen = jax.tree.map(lambda leaf: np.asarray(leaf[0]), look(*jax.device_put(given, jax.local_devices()[0])))
    return Example(*seen, fixed=jax.tree.map(np.asarray, state.fixed))


def states_fit(model: Model, variables: Variables, inputs: Array) -> bool:
    """Whether there is room for the hidden states over time: of rings as long as a sequence they are T² each."""
    states = jax.eval_shape(model.hidden, variables, inputs)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(states)) <= MOST_BYTES


def figures(experiment: Experiment, parts: Parts, state: TrainState, rows: list[dict]) -> dict[str, "Figure"]:
    """The task with the model's answer, the training curve, and the waves, of one unseen sequence."""
    from wrnn_jax.analysis import plots  # Not before: training need not wait for matplotlib.

    seen = example(parts, state)
    name = f"{parts.config.model.model}, {experiment.stem(parts.config.task)}"
    drawn = {
        "task": experiment.draw(parts.config, seen),
        "training": plots.training_curves({name: [rows]}, plots.PANELS[experiment.name], baselines=parts.task.chance),
    }
    if seen.hidden is not None:
        first, *others = seen.hidden.values()
        if others or first.shape[1] > MOST_CHANNELS:
            drawn["waves"] = plots.waves_by_layer(seen.hidden, inputs=seen.inputs, title=f"Hidden states, {name}")
        else:
            drawn["waves"] = plots.hidden_waves(first, inputs=seen.inputs, title=f"Hidden state, {name}")
    return drawn | experiment.pictures(parts, state)


def summary(experiment: Experiment, parts: Parts, fitted: fitting.Fitted) -> dict[str, Any]:
    """``summary.json``: what was trained, how, and what came of it."""
    config, task = parts.config, parts.task
    steps = int(fitted.state.step)
    epoch_steps = task.epoch_steps(config.train.batch)
    return {
        "experiment": experiment.name,
        **{field: value for field, value in dataclasses.asdict(config.task).items() if field != "data_dir"},
        **task.notes,
        **_without_neutral(dataclasses.asdict(config.model)),
        "params": count_parameters(fitted.state.params),
        "steps": steps,
        "max_steps": config.train.max_steps,
        **({} if epoch_steps is None else {"epochs": config.train.epochs, "epochs_done": steps / epoch_steps}),
        "status": fitted.status,
        **fitted.metrics,
        **experiment.measure(parts, fitted.state),
        "solved_step": fitted.solved_step,
        **({} if task.score is None else {"best_step": fitted.best_step}),
        **{f"memoryless_{metric.split('_', 1)[-1]}": value for metric, value in task.chance.items()},
        "lr": config.train.lr,
        "grad_clip": config.train.grad_clip,
        "weight_decay": config.train.weight_decay,
        **_without_neutral({field: getattr(config.train, field) for field in ("weight_decay_kind", "warmup")}),
        **({} if config.train.loss_divisor is None else {"loss_divisor": config.train.loss_divisor}),
        "schedule": config.train.schedule,
        "lr_factor": config.train.lr_factor,
        "lr_period": config.train.lr_period,
        "batch": config.train.batch,
        "seed": config.train.seed,
        "device": device(),
        "seconds": round(fitted.seconds, 2),
        "steps_per_second": fitted.steps_per_second,
    }


def _without_neutral(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is not as it is where a summary does not say it."""
    return {field: value for field, value in settings.items() if field not in NEUTRAL or value != NEUTRAL[field]}


def _evaluate_only(parts: Parts, trainer: Trainer, directory: RunDirectory) -> int:
    state = restore(trainer, parts.config.train.seed, directory.path)
    hparams = parts.config.train.hparams(parts.task.epoch_steps(parts.config.train.batch))
    console.say(json.dumps({"step": int(state.step), **fitting.evaluate(trainer, parts.task, state, hparams)[1]}))
    return cli.printed()


def restore(trainer: Trainer, seed: int, path: Path) -> TrainState:
    """The state of the newest whole checkpoint of a run.

    Raises:
      InvalidValue: if there is none.
      CheckpointError: if none can be read.
    """
    allowed = "a run's folder with a checkpoint"
    require((path / "checkpoints").is_dir(), "logdir", str(path), allowed)
    checkpoints = Checkpoints(path / "checkpoints")
    state, notes = checkpoints.restore(trainer.init(seed))
    checkpoints.close()
    for note in notes:
        console.note(note)
    require(state is not None, "logdir", str(path), allowed)
    with contextlib.suppress(InvalidValue):  # One that has not ended has none.
        ended, step = read_summary(path)["steps"], int(state.step)
        if step < ended:
            console.note(f"{path}: it ended at step {ended}, of which there is no checkpoint: this is of step {step}")
    return trainer.place(state)


def _report(parts: Parts, fitted: fitting.Fitted, directory: RunDirectory, command: str) -> int:
    """One line on the result, one on how it ended and what can be done next."""
    task, step = parts.task, int(fitted.state.step)
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in fitted.metrics.items())
    picked = f", parameters of step {fitted.best_step}" if fitted.best_step != step else ""
    console.say(
        f"step {step}{picked}: {metrics} (who remembers nothing: {task.monitor} {task.chance[task.monitor]:.4g})"
    )
    loss = fitted.metrics[task.monitor]
    endings = {
        fitting.SOLVED: f"solved: stopped at step {step}; to train all steps: {command} --resume --stop-below 0",
        fitting.BELOW: f"{task.monitor} {loss:.3g} is below --stop-below: stopped at step {step}",
        fitting.STALLED: f"{task.monitor} has not fallen for --patience evaluations: stopped at step {step}",
        fitting.COMPLETE: f"all {step} steps done",
        fitting.DIVERGED: f"diverged: step {step + 1} is not finite; the state of step {step} is saved",
        fitting.INTERRUPTED: f"interrupted at step {step}, saved; to continue: {command} --resume",
    }
    console.say(f"{endings[fitted.status]}\n{directory.path}")
    if fitted.signal is not None:
        return 128 + fitted.signal
    return FAILURE if fitted.status == fitting.DIVERGED else 0
