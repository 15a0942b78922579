"""The settings of JAX and XLA that change numbers: a run keeps those that it was begun with."""

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from wrnn_jax import console
from wrnn_jax.validation import InvalidValue

SETTINGS = (
    "jax_enable_x64",
    "jax_numpy_dtype_promotion",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
    "jax_softmax_custom_jvp",
    "jax_debug_nans",
    "jax_debug_infs",
    "jax_disable_jit",
    "jax_disable_most_optimizations",
    "jax_optimization_level",
)
ENVIRONMENT = ("NVIDIA_TF32_OVERRIDE",)
NEUTRAL = (
    "xla_dump_",
    "xla_hlo_profile",
    "xla_force_host_platform_device_count",
    "xla_cpu_multi_thread_eigen",
    "xla_cpu_collective",
    "xla_cpu_parallel_codegen",
    "xla_gpu_cuda_data_dir",
    "xla_gpu_force_compilation_parallelism",
)
"""How flags of XLA begin that change no number; which devices there are changes no more than rounding."""


@contextlib.contextmanager
def usual() -> Iterator[None]:
    """Within it, JAX computes as experiments are written for, whatever the user has set for other programs: in float32,
    by NumPy's rules of promotion, and with infinities, which stand for what has not been measured yet."""
    if jax.config.jax_enable_x64:
        console.note("JAX_ENABLE_X64: experiments are in float32 all the same")
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.debug_infs(False):
        yield


def settings() -> dict[str, Any]:
    """What is set here, by name, as JSON has it: settings of JAX, flags of XLA, variables that are set."""
    # What has a context manager is read as it is within it, the rest as it is in general.
    of_jax = {name: _plain(getattr(jax.config, name, jax.config.values.get(name))) for name in SETTINGS}
    flags = (flag.lstrip("-").partition("=") for flag in shlex.split(os.environ.get("XLA_FLAGS", "")))
    of_xla = {name: value for name, _, value in flags if not name.startswith(NEUTRAL)}
    return of_jax | of_xla | {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}


def require_same(before: Any, path: os.PathLike[str]) -> None:
    """The settings are those of the run that ``path`` holds, as far as it says.

    Raises:
      InvalidValue: naming the first that is not.
    """
    if not isinstance(before, Mapping):
        return
    now = settings()
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            allowed = (
                f"continued under the settings that it was begun with: {_words(name, before)} there, "
                f"{_words(name, now)} here, which changes its numbers"
            )
            raise InvalidValue("logdir", str(path), allowed)


def _words(name: str, found: Mapping[str, Any]) -> str:
    name_shown = name.upper() if name.startswith("jax_") else name
    return f"{name_shown}={found[name]}" if name in found else f"{name_shown} not set"


def _plain(value: Any) -> Any:
    value = getattr(value, "value", value)
    return value if isinstance(value, bool | int | float | None) else str(value)
