"""The program of an experiment: from command-line arguments to one run, or to a grid of many."""

import shlex
import sys
from functools import partial
from typing import Any

from experiments import cli
from experiments.experiment import run
from experiments.grid import run_grid
from experiments.grid_flags import Grid, expand
from experiments.settings import Experiment, RunConfig
from wrnn_jax import console
from wrnn_jax.validation import require


def run_from_command_line(experiment: Experiment, arguments: list[str] | None = None) -> None:
    """Run one experiment from command-line arguments, and exit; or return, see :func:`experiments.cli.main`."""
    typed = sys.argv[1:] if arguments is None else arguments
    # Of what one would type to run it again.
    command = shlex.join([*experiment.program.split(), *(flag for flag in typed if flag != "--resume")])
    act, read = partial(_act, experiment, command), partial(expand, experiment)
    cli.main(experiment.program, experiment.config, act, arguments, read)


def _act(experiment: Experiment, command: str, asked: Any) -> int:
    config = asked.base if isinstance(asked, Grid) else asked
    if config.run.list_presets:
        for name, preset in experiment.presets.items():
            console.say(f"{name}: {preset.summary}")
            for flags in preset.rows:
                console.say(f"  {experiment.program} --preset {name} {flags}")
        return cli.printed()
    _require_meaning(config.run, isinstance(asked, Grid))
    return run_grid(experiment, asked) if isinstance(asked, Grid) else run(experiment, config, command)


def _require_meaning(asked: RunConfig, is_grid: bool) -> None:
    """No flag is given that would say nothing."""
    for field in ("coordinator", "num_processes", "process_id"):
        value = getattr(asked, field)
        require(asked.distributed or value is None, field, value, "left out, or go with --distributed")
    if is_grid:
        require(
            not asked.eval_only, "eval_only", True, "left out for a grid: each member has a run directory of its own"
        )
        return
    require(not asked.distributed, "distributed", True, "left out: only a grid's members go over several processes")
    chunk = asked.grid_chunk
    require(chunk is None, "grid_chunk", chunk, "left out: only a grid's members are trained some at a time")
