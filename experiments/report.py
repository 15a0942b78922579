"""The report: python -m experiments.report runs/ --out report/"""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from experiments import cli
from wrnn_jax import console
from wrnn_jax.report import build_report


@dataclass(frozen=True)
class Config:
    """Write all runs' results beside the papers' tables: report.html, one page by itself, and report.md."""

    runs: Positional[Path]
    """A folder with run directories, or with copies of their summary.json, at any depth."""
    out: Path = Path("report")
    """The folder to write."""


def main(arguments: list[str] | None = None) -> None:
    """Write the report from command-line arguments, and exit."""
    cli.main("python3 -m experiments.report", Config, write, arguments)


def write(config: Config) -> int:
    """Write it; the exit code."""
    report = build_report(config.runs, config.out)
    console.say(f"{report.runs} runs, {report.unfinished} unfinished\n{report.html}\n{report.markdown}")
    return 0


if __name__ == "__main__":
    main()
