"""python -m experiments.bench kernels"""

import os
from typing import Annotated, Any

import tyro

from experiments import cli
from experiments.bench import grid, kernels, loop, scaling
from wrnn_jax.kernels.native.build import build_once

Config = (
    Annotated[kernels.KernelsConfig, tyro.conf.subcommand("kernels", prefix_name=False)]
    | Annotated[grid.GridConfig, tyro.conf.subcommand("grid", prefix_name=False)]
    | Annotated[loop.LoopConfig, tyro.conf.subcommand("loop", prefix_name=False)]
    | Annotated[scaling.ScalingConfig, tyro.conf.subcommand("scaling", prefix_name=False)]
)
RUN = {
    kernels.KernelsConfig: kernels.run,
    grid.GridConfig: grid.run,
    loop.LoopConfig: loop.run,
    scaling.ScalingConfig: scaling.run,
}


def main(arguments: list[str] | None = None) -> None:
    """Measure what command-line arguments ask for, print and write it, and exit."""
    # Several processes share the accelerator, if there is one: none may take all of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    cli.main("python3 -m experiments.bench", Config, _run, arguments)


def _run(config: Any) -> int:
    build_once(print)  # What is measured is all that this machine can do.
    return RUN[type(config)](config)


if __name__ == "__main__":
    main()
