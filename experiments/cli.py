"""From the command line to a run directory: what all experiments share."""

import contextlib
import dataclasses
import io
import itertools
import json
import os
import platform
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import tyro

from wrnn_jax import models
from wrnn_jax.models import Model, count_parameters
from wrnn_jax.tasks.base import Task
from wrnn_jax.training import fit as fitting
from wrnn_jax.training.checkpoint import CheckpointError, Checkpoints
from wrnn_jax.training.loop import batch_devices, make_trainer
from wrnn_jax.training.rundir import UNCHANGING, RunDirectory
from wrnn_jax.validation import InvalidValue, require, require_choice

USAGE_ERROR = 2
FAILURE = 1


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Where the run is kept, and whether it goes on from what is there."""

    logdir: str | None = None
    """The run directory (if not given: a readable name below runs/)."""
    resume: bool = False
    """Continue the run that the run directory holds, from its newest whole checkpoint; begin it if there is none."""
    preset: str | None = None
    """Defaults from the paper: paper (its best settings for that T and model). Flags given beside it win."""
    eval_only: bool = False
    """Only evaluate the newest whole checkpoint of the run directory, and print its metrics."""


def parse(program: str, config_type: type, arguments: list[str], default: Any = None) -> Any:
    """The config that the arguments describe.

    Args:
      program: its name in the help.
      config_type: a dataclass.
      arguments: as on the command line.
      default: a config whose values take the place of the dataclass's defaults.

    Raises:
      InvalidValue: for a value that the config refuses.
      SystemExit: for ``--help``, and with one line for what is no flag or not of a flag's type.
    """
    said = io.StringIO()
    options = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(config_type, args=arguments, prog=program, **options)
    except SystemExit as exit:
        # tyro exits while it handles our error, or while it handles its own account of ours.
        refused = (exit.__context__ and exit.__context__.__context__) or exit.__context__
        if isinstance(refused, InvalidValue):
            raise refused from None
        if exit.code:
            _fail(f"{_first_sentence(said.getvalue())} (see --help)")
        raise


def _first_sentence(box: str) -> str:
    """What stands in the first compartment of a message that is framed with box-drawing characters."""
    rows = [re.sub("[\u2500-\u257f]", "", row).strip() for row in box.splitlines()[1:]]
    return " ".join(itertools.takewhile(bool, rows))


def main(
    program: str,
    config_type: type,
    act: Callable[[Any], int],
    arguments: list[str] | None = None,
    presets: Mapping[str, Callable[[Any], Any]] | None = None,
) -> None:
    """Parse, act, exit: with what ``act`` returns, or 2 and one line for bad input or a disk that refuses.

    With ``presets``, the config's ``run.preset`` names one of these functions from the config as it is
    to one whose values are then the defaults: flags that are given win.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        config = parse(program, config_type, arguments)
        if presets is not None and config.run.preset is not None:
            require_choice("preset", config.run.preset, presets)
            config = parse(program, config_type, arguments, default=presets[config.run.preset](config))
        prepare_jax()
        code = act(config)
    except InvalidValue as error:
        _fail(f"--{error.field.replace('_', '-')} {error.value}: must be {error.allowed}")
    except CheckpointError as error:
        _fail(str(error))
    except OSError as error:
        # A write that fails names no file: it is one of the run directory's, that were open already.
        unnamed = "the run directory cannot be written, what it holds is whole, see --resume"
        _fail(f"{error.filename or unnamed}: {error.strerror or error}")
    sys.exit(code)


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(USAGE_ERROR)


def readable_name(task: str, config: Any) -> str:
    """A run's folder name: the task's own part, model, size, learning rate, clip, seed, and whatever
    else is not as it is by default."""
    model, train = config.model, config.train
    parts = [task, model.model, f"n{model.n_hid}", f"c{model.n_ch}", f"lr{train.lr:g}", f"clip{train.grad_clip:g}"]
    usual = {config.task: type(config.task)(), model: type(model)(model=model.model), train: type(train)()}
    named = {"T", "n_hid", "n_ch", "lr", "grad_clip", "seed", *UNCHANGING}
    for section, default in usual.items():
        for field in dataclasses.fields(section):
            value = getattr(section, field.name)
            if field.name not in named and value != getattr(default, field.name):
                parts.append(f"{field.name}-{value}".replace("_", "-"))
    return "_".join([*parts, f"seed{train.seed}"])


def prepare_jax() -> None:
    """Settings that must come before the first use of a device."""
    # On a CPU every core is a device of its own, on which the trainer splits the batch: twice as fast as
    # one device with threads inside its small operations.
    jax.config.update("jax_num_cpu_devices", _usable_cores())
    if "xla_cpu_multi_thread_eigen" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    # What was compiled once is kept; a folder a host, as code for one processor may not run on another.
    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wrnn_jax" / platform.node()
        jax.config.update("jax_compilation_cache_dir", str(cache))
    # An entry that cannot be read or written only costs the time to compile.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache", UserWarning)


def _usable_cores() -> int:
    """Those this process may use: a scheduler often grants fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def with_backend_chosen(config: Any, task: Task) -> Any:
    """The config that names what ``--backend auto`` comes to here."""
    batch = config.train.batch // len(batch_devices(jax.devices(), config.train.batch))
    return dataclasses.replace(config, model=models.with_backend_chosen(config.model, task.outputs, batch))


def run(
    name: str,
    run_name: str,
    config: Any,
    task: Task,
    model: Model,
    facts: Mapping[str, Any],
    draw: Callable[[Path, list[dict[str, Any]], Any], None],
) -> int:
    """Train, or only evaluate; write the run directory; say what came of it; return the exit code.

    Args:
      name: the task's name, the folder below ``runs/``.
      run_name: the readable name below that, unless ``--logdir`` gives the whole path.
      config: the whole config, with sections ``train`` and ``run``.
      task: data, loss and metrics.
      model: the model.
      facts: what the task adds to ``summary.json``.
      draw: writes the figures: (folder, rows of metrics, params).
    """
    directory = RunDirectory(
        Path(config.run.logdir or Path("runs") / name / run_name), config, config.run.resume or config.run.eval_only
    )
    trainer = make_trainer(model, task, config.train.batch)
    if config.run.eval_only:
        return _evaluate_only(directory, trainer, config)
    parameters = count_parameters(jax.eval_shape(model.init, jax.random.key(0)))
    print(f"{config.model.model}, {parameters:,} parameters, in {directory.path}")
    fitted = fitting.fit(trainer, task, config.train, directory)
    summary = {
        "task": name,
        "model": config.model.model,
        **facts,
        "params": parameters,
        "steps": int(fitted.state.step),
        "status": fitted.status,
        **fitted.metrics,
        **{f"memoryless_{metric}": value for metric, value in task.chance.items()},
        "lr": config.train.lr,
        "grad_clip": config.train.grad_clip,
        "batch": config.train.batch,
        "seed": config.train.seed,
        "seconds": round(fitted.seconds, 2),
        "steps_per_second": fitted.steps_per_second,
    }
    directory.summarise(summary)
    draw(directory.figures, directory.metrics(), fitted.state.params)
    return _report(fitted, summary, directory)


def _evaluate_only(directory: RunDirectory, trainer, config: Any) -> int:
    allowed = "a run's folder with a checkpoint to evaluate"
    require(directory.checkpoints.is_dir(), "logdir", str(directory.path), allowed)
    checkpoints = Checkpoints(directory.checkpoints)
    state, notes = checkpoints.restore(trainer.init(config.train.seed))
    checkpoints.close()
    for note in notes:
        print(note, file=sys.stderr)
    require(state is not None, "logdir", str(directory.path), allowed)
    print(json.dumps({"step": int(state.step), **fitting.evaluate(trainer, state)}))
    return 0


def _report(fitted: fitting.Fitted, summary: Mapping[str, Any], directory: RunDirectory) -> int:
    """One line on the result, one on how it ended and what can be done next."""
    step, loss = summary["steps"], summary["test_loss"]
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in fitted.metrics.items())
    print(f"step {step}: {metrics} (a memoryless guesser's loss: {summary['memoryless_loss']:.4g})")
    flags = [flag for flag in sys.argv[1:] if flag != "--resume"]
    again = shlex.join(["python3", "-m", f"experiments.{summary['task']}", *flags, "--resume"])
    endings = {
        fitting.SOLVED: f"solved: stopped at step {step}; to train all steps: {again} --stop-below 0",
        fitting.BELOW: f"test loss {loss:.3g} is below --stop-below: stopped at step {step}",
        fitting.COMPLETE: f"all {step} steps done",
        fitting.DIVERGED: f"diverged: step {step + 1} is not finite; the state of step {step} is saved",
        fitting.INTERRUPTED: f"interrupted at step {step}, saved; to continue: {again}",
    }
    print(f"{endings[fitted.status]}\n{directory.path}")
    if fitted.signal is not None:
        return 128 + fitted.signal
    return FAILURE if fitted.status == fitting.DIVERGED else 0
