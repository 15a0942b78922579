"""The devices that a program uses: what the user says of them, how many cores there are, and that they start."""

import logging
import os
import platform
import re
import warnings
from pathlib import Path

import jax

from wrnn_jax import console
from wrnn_jax.grids.cgroups import cpu_quota
from wrnn_jax.training.rundir import device

SENTENCE = 200
"""The most characters of what JAX says that are passed on."""


class DeviceError(RuntimeError):
    """JAX has no device to compute on."""


def prepare_jax() -> None:
    """Settings that must come before the first use of a device; in a process that has used one, it stays as it is."""
    flags = os.environ.get("XLA_FLAGS", "")
    # On a CPU every core is a device of its own, on which the trainer splits the batch: twice as fast as
    # one device with threads inside its small operations. How many there are is the user's to say.
    if jax.config.jax_num_cpu_devices < 0 and "xla_force_host_platform_device_count" not in flags:
        try:
            jax.config.update("jax_num_cpu_devices", usable_cores())
        except RuntimeError:  # The devices are there already, and so are those that there will be.
            return
    if "xla_cpu_multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    # What was compiled once is kept; a folder a host, as code for one processor may not run on another.
    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wrnn_jax" / platform.node()
        jax.config.update("jax_compilation_cache_dir", str(cache))
    # An entry that cannot be read or written only costs the time to compile.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache", UserWarning)


def usable_cores() -> int:
    """Those this process may use: a scheduler often grants fewer than the machine has, and so does a container."""
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(granted, int(cpu_quota() or granted)))


def start() -> str:
    """Start them; in words.

    An accelerator that does not start, though what JAX needs for it is installed, is told in one sentence.

    Raises:
      DeviceError: if there is none, with JAX's reason.
    """
    reasons: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            reasons.append(_sentence(record.exc_info[1] if record.exc_info else record.getMessage()))
        return record.levelno < logging.WARNING

    log = logging.getLogger("jax._src.xla_bridge")
    log.addFilter(keep)
    try:
        devices = jax.local_devices()
    except (RuntimeError, AssertionError) as error:
        asked = jax.config.jax_platforms
        what = f"no device for JAX_PLATFORMS={asked}" if asked else "no device to compute on"
        raise DeviceError(": ".join([what, *filter(None, [_sentence(error), *reasons])])) from error
    finally:
        log.removeFilter(keep)
    if reasons and devices[0].platform == "cpu":
        console.note(f"no accelerator, it is computed on the CPU: {reasons[0]}")
    return device()


def _sentence(text: object) -> str:
    """The first line, without the advice at its end."""
    return re.sub(r" \((set|you may need to) [^()]*\)$", "", str(text).strip().partition("\n")[0])[:SENTENCE]
