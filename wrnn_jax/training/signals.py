"""SIGINT and SIGTERM as a request to stop at the next good moment."""

import contextlib
import signal
import sys
from collections.abc import Iterator

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def received_signals() -> Iterator[list[int]]:
    """Within it, SIGINT and SIGTERM are only noted, in the list that it gives; a second SIGINT
    interrupts as always. Nothing is caught outside the main thread, where Python takes no handlers."""
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print(f"\n{signal.Signals(number).name}: stopping after this call, then saving", file=sys.stderr)

    try:
        ordinary = {number: signal.signal(number, note) for number in STOPPING}
    except ValueError:
        ordinary = {}
    try:
        yield received
    finally:
        for number, handler in ordinary.items():
            signal.signal(number, handler)
