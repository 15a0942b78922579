"""From the command line to a config, and from an error to one line: what all programs share."""

import contextlib
import inspect
import io
import itertools
import os
import platform
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import tyro

from wrnn_jax.grids.hosts import HostsError
from wrnn_jax.training.checkpoint import CheckpointError
from wrnn_jax.validation import InvalidValue

USAGE_ERROR = 2
LONGEST = 1500
"""Characters of an error's line at most."""


def parse(program: str, config_type: type, arguments: list[str], default: Any = None, more: str = "") -> Any:
    """The config that the arguments describe.

    Args:
      program: its name in the help.
      config_type: a dataclass.
      arguments: as on the command line.
      default: a config whose values take the place of the dataclass's defaults.
      more: what the help says after the dataclass's own description.

    Raises:
      InvalidValue: for a value that the config refuses.
      SystemExit: for ``--help``, and with one line for what is no flag or not of a flag's type.
    """
    said = io.StringIO()
    options = {} if default is None else {"default": default}
    description = f"{inspect.getdoc(config_type)}\n\n{more}".strip()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(config_type, args=arguments, prog=program, description=description, **options)
    except SystemExit as exit:
        # tyro exits while it handles our error, or while it handles its own account of ours.
        refused = (exit.__context__ and exit.__context__.__context__) or exit.__context__
        if isinstance(refused, InvalidValue):
            raise refused from None
        if exit.code:
            _fail(f"{_first_sentence(said.getvalue())} (see --help)")
        raise


def _first_sentence(box: str) -> str:
    """What stands below the title of a message that is framed with lines: box-drawing characters, or dashes."""
    rows = [re.sub("[\u2500-\u257f]|-{5,}", "", row).strip() for row in box.splitlines()[1:]]
    return " ".join(itertools.takewhile(bool, itertools.dropwhile(lambda row: not row, rows)))


def main(
    program: str,
    config_type: type,
    act: Callable[[Any], int],
    arguments: list[str] | None = None,
    read: Callable[[list[str]], Any] | None = None,
) -> None:
    """Read the arguments, act, exit: with what ``act`` returns, or 2 and one line for bad input or a disk that refuses.

    What ``read`` makes of the arguments is what ``act`` is given; by default the config that they describe.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        asked = read(arguments) if read else parse(program, config_type, arguments)
        prepare_jax()
        code = act(asked)
    except InvalidValue as error:
        _fail(f"--{error.field.replace('_', '-')} {error.value}: must be {error.allowed}")
    except (CheckpointError, HostsError) as error:
        _fail(str(error))
    except OSError as error:
        # A write that fails names no file: it is one of the run directory's, that were open already.
        unnamed = "the run directory cannot be written, what it holds is whole, see --resume"
        _fail(f"{error.filename or unnamed}: {error.strerror or error}")
    sys.exit(code)


def _fail(message: str) -> None:
    print(f"error: {_one_line(message)}", file=sys.stderr)
    sys.exit(USAGE_ERROR)


def _one_line(message: str) -> str:
    """As a terminal can show it: what cannot be printed is escaped, and of a long message there are both ends."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST // 2]} … {shown[-LONGEST // 2 :]}"


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
