"""The copy task: python -m experiments.copy --T 480"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tyro.conf import OmitArgPrefixes

from experiments import cli, presets
from wrnn_jax import models
from wrnn_jax.models import Model, ModelConfig
from wrnn_jax.tasks import CopyConfig, Task, copy_task
from wrnn_jax.training.fit import TrainConfig
from wrnn_jax.typing import Array, Params


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a recurrent network on the copy task: recall ten symbols after T steps of nothing."""

    task: OmitArgPrefixes[CopyConfig]
    model: OmitArgPrefixes[ModelConfig]
    train: OmitArgPrefixes[TrainConfig]
    run: OmitArgPrefixes[cli.RunConfig]


def main(arguments: list[str] | None = None) -> None:
    """Run one experiment from command-line arguments, and exit."""
    cli.main("python3 -m experiments.copy", Config, experiment, arguments, presets={"paper": presets.paper_copy})


def experiment(config: Config) -> int:
    """Train on the copy task and write the run directory; the exit code."""
    task = copy_task(config.task)
    config = cli.with_backend_chosen(config, task)
    model = models.build(config.model, task.input_size, task.output_size, task.outputs)

    def draw(folder: Path, rows: list[dict[str, Any]], params: Params) -> None:
        draw_figures(folder, rows, config, task, model, params)

    facts = {"T": config.task.T, "variant": config.task.variant}
    return cli.run("copy", cli.readable_name(f"T{config.task.T}", config), config, task, model, facts, draw)


def draw_figures(
    folder: Path, rows: list[dict[str, Any]], config: Config, task: Task, model: Model, params: Params
) -> None:
    """The task with the model's answer, the training curve, and the waves, of one unseen sequence."""
    from wrnn_jax.analysis import plots  # Not before: training need not wait for matplotlib.

    @jax.jit
    def example(params: Params) -> tuple[Array, ...]:
        inputs, targets = task.batch(jax.random.key(1), 1)
        return inputs, jax.nn.softmax(model.apply(params, inputs)), targets, model.hidden(params, inputs)

    inputs, outputs, targets, hidden = (np.asarray(array[0]) for array in example(params))
    name = f"{config.model.model}, T = {config.task.T}"
    figures = {
        "task": plots.copy_example(inputs, outputs, np.eye(task.output_size)[targets], T=config.task.T),
        "training": plots.training_curves({name: rows}, baselines=task.chance),
        "waves": plots.hidden_waves(hidden, inputs=inputs, title=f"Hidden state, {name}"),
    }
    for stem, figure in figures.items():
        figure.savefig(folder / f"{stem}.png", dpi=150)


if __name__ == "__main__":
    main()
