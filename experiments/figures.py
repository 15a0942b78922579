"""Figures of several runs together: python -m experiments.figures runs/copy/A runs/copy/B --out curves.png"""

import json
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from experiments import cli
from wrnn_jax.analysis import plots
from wrnn_jax.training.rundir import read_metrics
from wrnn_jax.validation import require


@dataclass(frozen=True)
class Config:
    """Draw the training curves of several runs in one figure."""

    runs: Positional[tuple[Path, ...]]
    """Run directories."""
    out: Path = Path("curves.png")
    """The file to write, PNG, PDF or SVG by its ending."""

    def __post_init__(self):
        require(len(self.runs) > 0, "runs", "", "one run directory or more")
        for run in self.runs:
            require((run / "summary.json").exists(), "runs", str(run), "the directory of a run: it has no summary.json")
        allowed = (".png", ".pdf", ".svg")
        require(self.out.suffix in allowed, "out", str(self.out), "a file name that ends in " + ", ".join(allowed))


def main(arguments: list[str] | None = None) -> None:
    """Draw from command-line arguments, and exit."""
    cli.main("python3 -m experiments.figures", Config, draw, arguments)


def draw(config: Config) -> int:
    """Write the figure; the exit code."""
    summaries = [json.loads((run / "summary.json").read_text()) for run in config.runs]
    curves = {label(summary): read_metrics(run) for summary, run in zip(summaries, config.runs, strict=True)}
    chance = {metric: summaries[0][f"memoryless_{metric}"] for metric in ("loss", "recall")}
    plots.training_curves(curves, baselines=chance).savefig(config.out, dpi=150)
    print(config.out)
    return 0


def label(summary: dict) -> str:
    """A run's name in a legend."""
    return f"{summary['model']}, T = {summary['T']}, seed {summary['seed']}"


if __name__ == "__main__":
    main()
