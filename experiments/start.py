"""What a program does before its imports, which take seconds."""

import os
import signal
import sys

INTERRUPTED = 128 + signal.SIGINT


def as_program() -> None:
    """Prepare a process that is about to run one of the programs."""
    # A standard stream that is closed would lend its number to the next file that is opened: messages of libraries
    # would be written into it.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def begin() -> None:
    """The imports are over: from now on Ctrl-C raises ``KeyboardInterrupt``, as always."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def over(code: int) -> None:
    """What is left is to end the process, which takes a second: from now on Ctrl-C ends it at once."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(code))


def _end(number: int, frame: object) -> None:
    """At once: an exception amid an import may come out as another, and there is nothing to tidy up."""
    try:
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"\ninterrupted before it began\n")
    finally:
        os._exit(INTERRUPTED)
