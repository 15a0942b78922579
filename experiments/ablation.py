"""The ablation on the copy task, Table 4: python -m experiments.ablation --rows wrnn irnn --T 0 10"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from experiments import cli, copy, presets
from experiments.cli import FAILURE
from experiments.experiment import run
from experiments.grid_flags import LIMIT
from wrnn_jax import console
from wrnn_jax.report import paper_table
from wrnn_jax.report.published import ABLATION_T, STEPS
from wrnn_jax.training import fit
from wrnn_jax.training.stored import read_summary
from wrnn_jax.validation import require, require_choice, require_integer


@dataclasses.dataclass(frozen=True)
class Config:
    """Train the rows of Table 4 on the copy task, one after another, and print the table beside the paper's.

    Clips are the published ones on the published scale: of the loss divided by the batch of 128. The same command again
    goes on where it was: with runs that had not ended, and not with those that had.
    """

    rows: tuple[str, ...] = tuple(presets.ABLATION)
    """Which: wrnn | wrnn-no-v | wrnn-no-shift | wrnn-no-v-no-shift | irnn | irnn-shift | irnn-shift-v."""
    T: tuple[int, ...] = ABLATION_T
    """Steps of nothing between the symbols and their recall: of 0, 10, 30, 80."""
    seeds: int = 1
    """How many, from seed 0 on."""
    max_steps: int = STEPS
    """Optimiser steps of each run."""
    log_interval: int = 500
    """Steps between two evaluations."""
    backend: str = "auto"
    """How to go through time, see experiments.copy."""
    logdir: str = "runs/ablation"
    """The folder that the runs' own are in."""

    def __post_init__(self):
        for field, values, allowed in (("rows", self.rows, presets.ABLATION), ("T", self.T, map(str, ABLATION_T))):
            allowed = tuple(allowed)
            require(len(values) > 0, field, "", "one or more of " + ", ".join(allowed))
            for value in values:
                require_choice(field, str(value), allowed)
        require_integer("seeds", self.seeds, at_least=1, at_most=LIMIT)

    def configs(self) -> Iterator[copy.Config]:
        """One for each run."""
        return (self._config(row, T, seed) for T in self.T for row in self.rows for seed in range(self.seeds))

    def _config(self, row: str, T: int, seed: int) -> copy.Config:
        where = {"logdir": str(Path(self.logdir) / f"T{T}_{row}_seed{seed}"), "resume": True}
        intervals = {"log_interval": self.log_interval, "checkpoint_interval": self.log_interval}
        of_row = {"preset": f"ablation-{row}", "T": T, "seed": seed}
        own = {"max_steps": self.max_steps, "backend": self.backend}
        return copy.EXPERIMENT.configure({**of_row, **own, **intervals, **where})


def main(arguments: list[str] | None = None) -> None:
    """Run the ablation from command-line arguments, and exit."""
    cli.main("python3 -m experiments.ablation", Config, ablate, arguments)


def ablate(config: Config) -> int:
    """Train what has not been trained yet, and print the table; the exit code."""
    worst = 0
    for each in config.configs():
        if not _has_ended(each):
            code = run(copy.EXPERIMENT, each, command="python3 -m experiments.ablation, with the same flags,")
            if code > FAILURE:
                return code
            worst = max(worst, code)
    console.say(paper_table("copy-ablation", Path(config.logdir)))
    return worst


def _has_ended(config: copy.Config) -> bool:
    folder = Path(config.run.logdir)
    if not (folder / "summary.json").exists():
        return False
    summary = read_summary(folder)
    return summary.get("status") in (fit.COMPLETE, fit.DIVERGED) and summary.get("max_steps") == config.train.max_steps


if __name__ == "__main__":
    main()
