"""Contenders timed side by side: each in a process of its own, in turns, so that a noisy machine hurts all alike."""

import contextlib
import multiprocessing
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from wrnn_jax import console

TOLERANCE = 1e-3
"""Relative, of the numbers that contenders return: after some steps of training rounding has grown."""
PATIENCE = 1800
"""Seconds that one turn may take."""


class Contender(NamedTuple):
    """One way to do a piece of work."""

    name: str
    make: Callable[..., Callable[[], float]]
    """Called in the contender's own process, gives the turn: a function that does the work once, to its end, and
    returns a number (a loss, say) that all contenders must agree on."""
    arguments: tuple[Any, ...] = ()
    work: float = 1.0
    """The share of the whole work that one turn is: its time is divided by it."""
    alike: bool = True
    """Whether its number is that of the others which do the same share."""


class Result(NamedTuple):
    """What a race found about a contender: times in seconds for the whole work."""

    name: str
    median: float
    fastest: float
    slowest: float
    rounds: int
    first: float
    """From the process's start to the end of the first turn: imports and compilation too."""
    peak_bytes: int
    """The most memory that the process had resident."""
    work: float
    values: list[float]
    """What the turns returned."""


def race(contenders: Sequence[Contender], rounds: int) -> dict[str, Result]:
    """Run every contender once to warm up, then ``rounds`` times in turns. Who fails is left out, with a line why.

    Raises:
      RuntimeError: if contenders disagree in what they computed.
    """
    context = multiprocessing.get_context("spawn")
    racing = {}
    try:
        for contender in contenders:
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, contender.make, contender.arguments), daemon=True)
            started = time.perf_counter()
            with _deaf():
                process.start()
            there.close()
            racer = _Racer(contender, process, here)
            if racer.turn():
                racer.first = time.perf_counter() - started
                racing[contender.name] = racer
        for _ in range(rounds):
            for name in list(racing):
                if not racing[name].turn():
                    del racing[name]
        _require_agreement(list(racing.values()))
        results = {name: racer.result() for name, racer in racing.items()}
        for name, result in results.items():
            console.note(f"{name}: {result.median:.4g} s")
        return results
    finally:
        for racer in racing.values():
            racer.process.kill()


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Who is started within it does not hear Ctrl-C, which a terminal sends to all: each would answer for itself."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # Only the main thread has a say in this.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Racer:
    """A contender's process, seen from here."""

    def __init__(self, contender: Contender, process, connection):
        self.contender, self.process, self.connection = contender, process, connection
        self.first, self.times, self.values, self.peak = 0.0, [], [], 0

    def turn(self) -> bool:
        """Have the work done once; False if that failed."""
        try:
            self.connection.send(None)
            if not self.connection.poll(PATIENCE):
                raise TimeoutError(f"no answer within {PATIENCE} s")
            answer = self.connection.recv()
        except (EOFError, ConnectionError):
            answer = f"its process ended with exit code {self.process.exitcode}"
        except TimeoutError as error:
            answer = str(error)
        if isinstance(answer, str):
            console.note(f"{self.contender.name}: not measured: {answer}")
            self.process.kill()
            return False
        seconds, value, self.peak = answer
        self.times.append(seconds / self.contender.work)
        self.values.append(value)
        return True

    def result(self) -> Result:
        times = self.times[1:] or self.times
        return Result(
            self.contender.name,
            statistics.median(times),
            min(times),
            max(times),
            len(times),
            self.first,
            self.peak,
            self.contender.work,
            self.values,
        )


def _require_agreement(racers: Sequence[_Racer]) -> None:
    """What is not the same work is not worth timing."""
    first = {}
    for racer in racers:
        if racer.contender.alike:
            reference = first.setdefault(racer.contender.work, racer)
            if any(abs(a - b) > TOLERANCE * abs(b) for a, b in zip(racer.values, reference.values, strict=True)):
                name, other = racer.contender.name, reference.contender.name
                raise RuntimeError(f"{name} computed {racer.values}, but {other} {reference.values}")


def _serve(connection, make, arguments) -> None:
    """A contender's process: a turn for every message, answered by (seconds, value, peak bytes), or by what failed."""
    try:
        turn = make(*arguments)
        while True:
            connection.recv()
            started = time.perf_counter()
            value = turn()
            seconds = time.perf_counter() - started
            connection.send((seconds, value, peak_bytes()))
    except (EOFError, ConnectionError):
        return  # Nobody waits for an answer any more.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        connection.send(f"{type(error).__name__}: {lines[0]}")


def peak_bytes() -> int:
    """The most memory that this process has had resident."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
