"""Signals that ask a process to end, as a request to stop at the next good moment."""

import contextlib
import signal
from collections.abc import Iterator

from wrnn_jax import console

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
STOPPING = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""Ctrl-C; what a scheduler sends before it takes a node, a terminal that is closed, a limit of processor time."""


@contextlib.contextmanager
def received_signals() -> Iterator[list[int]]:
    """Within it, signals that would end the process are only noted, in the list that it gives.

    What is ignored already, as SIGHUP is under ``nohup``, stays ignored, and handlers of the caller's own stay his; but
    SIGINT, which a shell's script has its background jobs ignore, is noted. Nothing is caught outside the main thread,
    where Python takes no handlers.
    """
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        received.append(number)
        name = signal.Signals(number).name
        if len(received) == 1:
            console.note(f"\n{name}: stopping after this call, then saving")
        elif len(received) == 2:
            console.note(f"\n{name}: on the way; what is not saved would be lost")

    before = {number: signal.getsignal(number) for number in STOPPING}
    fatal = [number for number, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]
    if before[signal.SIGINT] is signal.SIG_IGN:
        fatal.append(signal.SIGINT)
    with contextlib.ExitStack() as stack:
        for number in fatal:
            with contextlib.suppress(ValueError):
                stack.callback(signal.signal, number, signal.signal(number, note))
        yield received
