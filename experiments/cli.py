"""From the command line to a config, and from an error to one line: what all programs share."""

import contextlib
import inspect
import io
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from experiments import devices, start
from experiments.devices import DeviceError
from wrnn_jax import console
from wrnn_jax.grids.hosts import HostsError
from wrnn_jax.training import numerics
from wrnn_jax.training.checkpoint import CheckpointError
from wrnn_jax.validation import InvalidValue, number

USAGE_ERROR = 2
FAILURE = 1
"""What was asked for could be begun, and did not come to a good end."""
LONGEST = 1500
"""Characters of an error's line at most."""
_READERS = ConstructorRegistry()


@_READERS.primitive_rule
def _numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """How what is typed for a float is read."""
    if info.type is not float:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT",
        instance_from_str=lambda words: number(words[0]),
        is_instance=lambda value: isinstance(value, (int, float)),
        str_from_instance=lambda value: [str(value)],
    )


def parse(program: str, config_type: type, arguments: list[str]) -> Any:
    """The config that the arguments describe, a dataclass; as :func:`ask` otherwise."""
    return ask(config_type, program, arguments, inspect.getdoc(config_type) or "")


def ask(kind: Any, program: str, arguments: Sequence[str], description: str) -> Any:
    """What the arguments describe, as a value of a type.

    Args:
      kind: the type: a dataclass, or a ``TypedDict`` for what is given alone.
      program: its name in the help.
      arguments: as on the command line.
      description: how the help begins.

    Raises:
      InvalidValue: for a value that the type refuses.
      SystemExit: for ``--help``, and with one line for what is no flag or not of a flag's type.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(console.unfailing(sys.stdout)):
            return tyro.cli(kind, args=arguments, prog=program, description=description.strip(), registry=_READERS)
    except SystemExit as exit:
        # tyro exits while it handles our error, or while it handles its own account of ours.
        refused = (exit.__context__ and exit.__context__.__context__) or exit.__context__
        if isinstance(refused, InvalidValue):
            raise refused from None
        if exit.code:
            raise SystemExit(_refusal(f"{_first_sentence(said.getvalue())} (see --help)")) from None
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

    What ``read`` makes of the arguments is what ``act`` is given; by default the config that they describe. Called from
    Python, with arguments, it may have been before, and JAX been used; it then returns if all is well.
    """
    code = _code(program, config_type, act, sys.argv[1:] if arguments is None else arguments, read)
    if arguments is None:
        start.over(code)
    if arguments is None or code:
        sys.exit(code)


def _code(program: str, config_type: type, act: Callable, arguments: list[str], read: Callable | None) -> int:
    """The exit code; whatever ends the program is told in one line."""
    try:
        start.begin()
        asked = read(arguments) if read else parse(program, config_type, arguments)
        devices.prepare_jax()
        with numerics.usual():
            return act(asked)
    except SystemExit as exit:
        return exit.code or printed()
    except InvalidValue as error:
        return _refusal(f"--{error.field.replace('_', '-')} {error.value}: must be {error.allowed}")
    except (CheckpointError, HostsError, DeviceError) as error:
        return _refusal(str(error))
    except OSError as error:
        # A write that fails names no file.
        what = error.filename or "a file could not be read or written; what the run directory holds is whole"
        return _refusal(f"{what}: {error.strerror or error}")
    except FloatingPointError as error:
        console.note(f"error: {error} (as JAX is told to look for, by JAX_DEBUG_NANS)")
        return FAILURE
    except (KeyboardInterrupt, Exception) as error:
        if not _is_interrupt(error):
            raise
        console.note("\ninterrupted; what is saved is whole, and the same command with --resume goes on from there")
        return start.INTERRUPTED


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether it is Ctrl-C, or what came of it: amid an import it may come out as another error."""
    return error is not None and (
        isinstance(error, KeyboardInterrupt) or _is_interrupt(error.__cause__ or error.__context__)
    )


def printed() -> int:
    """The exit code of what is done once it is printed."""
    if console.OUT.error:
        console.note(f"error: standard output cannot be written: {console.OUT.error.strerror}")
    return FAILURE if console.OUT.error else 0


def _refusal(message: str) -> int:
    console.note(f"error: {_one_line(message)}")
    return USAGE_ERROR


def _one_line(message: str) -> str:
    """As a terminal can show it: what cannot be printed is escaped, and of a long message there are both ends."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST // 2]} … {shown[-LONGEST // 2 :]}"
