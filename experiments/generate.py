"""Text that a trained network goes on with: python -m experiments.generate RUN_DIR --prompt "First Citizen:" """

import contextlib
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tyro.conf import Positional

from experiments import cli, devices, language
from experiments.experiment import assemble, restore
from experiments.runs import Run, open_run
from wrnn_jax import console
from wrnn_jax.layers import Variables
from wrnn_jax.models.generation import generate
from wrnn_jax.tasks.language import decoded, encoded, symbols, unseen_task
from wrnn_jax.training.checkpoint import CheckpointError, Checkpoints
from wrnn_jax.training.state import with_best
from wrnn_jax.typing import Array, Key
from wrnn_jax.validation import require, require_integer, require_nonnegative

MOST = 1_000_000
"""Characters at most."""


@dataclass(frozen=True)
class Config:
    """Go on with a text, character by character, by a network that experiments.language has trained."""

    run: Positional[Path]
    """Its run directory; the text that it was trained on is not needed."""
    prompt: str
    """What the text begins with: of characters that the network has seen, and not longer than its T."""
    length: int = 500
    """How many characters (or bytes, where the run is of these) are to follow."""
    temperature: float = 0.8
    """What logits are divided by: below 1 the likely characters become likelier; 0 takes the likeliest."""
    seed: int = 0
    """Decides what is drawn: the same seed gives the same text."""

    def __post_init__(self):
        require(self.prompt != "", "prompt", self.prompt, "one character or more")
        require_integer("length", self.length, at_least=1, at_most=MOST)
        require_nonnegative("temperature", self.temperature)
        require_integer("seed", self.seed, at_least=0)


def main(arguments: list[str] | None = None) -> None:
    """Generate from command-line arguments, and exit."""
    cli.main("python3 -m experiments.generate", Config, say_text, arguments)


def say_text(config: Config) -> int:
    """Print the prompt and what follows it; the exit code."""
    devices.start()
    run = open_run(config.run)
    of_what = run.experiment.name
    require(
        of_what == language.EXPERIMENT.name,
        "run",
        str(config.run),
        f"a run of language, which this of {of_what} is not",
    )
    console.say(config.prompt + continuation(run, config))
    return cli.printed()


def continuation(run: Run, config: Config) -> str:
    """What follows the prompt, by the parameters that validation has picked.

    Raises:
      InvalidValue: for a run without a checkpoint, a model that cannot go on step by step, and a prompt that is longer
        than T or has what the network has not seen.
    """
    task = run.config.task
    many, unit = len(symbols(config.prompt, task.units)), task.units
    require(many <= task.T, "prompt", config.prompt, f"at most {task.T} {unit}s, as trained on: it has {many}")
    kinds = _kinds(run)
    parts = assemble(run.experiment, run.config, unseen_task(task, kinds))
    require(
        parts.model.stream is not None,
        "run",
        str(run.path),
        f"of a model that steps, which {run.config.model.model} does not",
    )
    state = with_best(restore(parts.trainer(), run.config.train.seed, run.path))
    vocabulary = np.asarray(state.fixed["vocabulary"])
    prompt = encoded(config.prompt, vocabulary, task.units)[None]
    variables = jax.device_put(state.variables, jax.local_devices()[0])

    @jax.jit
    def go_on(variables: Variables, prompt: Array, key: Key, temperature: Array) -> Array:
        return generate(parts.model, variables, prompt, kinds, config.length, key, temperature)

    codes = go_on(variables, prompt, jax.random.key(config.seed), jnp.float32(config.temperature))
    return decoded(np.asarray(codes[0]), vocabulary, task.units)


def _kinds(run: Run) -> int:
    """How many kinds of characters the run's text has, by the newest checkpoint that says so.

    Raises:
      InvalidValue: if there is no checkpoint.
      CheckpointError: if none says so.
    """
    folder = run.path / "checkpoints"
    checkpoints = Checkpoints(folder) if folder.is_dir() else None
    steps = checkpoints.steps() if checkpoints else []
    require(bool(steps), "run", str(run.path), "a run's folder with a checkpoint")
    for step in reversed(steps):
        with contextlib.suppress(CheckpointError, KeyError, TypeError, ValueError):
            (kinds,) = checkpoints.shapes(step)["fixed"]["vocabulary"]
            return kinds
    raise CheckpointError(f"no readable checkpoint in {folder}")


if __name__ == "__main__":
    main()
