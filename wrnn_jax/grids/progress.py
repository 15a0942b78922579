"""How far a whole grid is: a bar, lines, and what its processes tell each other."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from wrnn_jax import console
from wrnn_jax.grids.hosts import Hosts

WAIT = 0.5
"""Seconds between two looks at the other processes of one that has nothing left to train."""


class Stopped(Exception):
    """A signal has come, to this process or another of the grid."""

    def __init__(self, signal: int):
        super().__init__(f"signal {signal}")
        self.signal = signal


class _Share(NamedTuple):
    """What a process tells the others of its members, as floats."""

    signal: float
    """That has come to it, 0: none."""
    done: float
    """Steps made, of all its members."""
    total: float
    """Steps to make, of all its members: those that ended early need no more."""
    alive: float
    """Members that have not ended."""
    finished: float
    """1 if it only waits for the others."""
    best: float
    """The best value so far of the metric that ranks, NaN if there is none."""
    best_member: float


class Progress:
    """Of the members of a grid, over all its processes; process 0 shows it.

    Args:
      names: of all members of the grid, by number.
      steps: how many each of this process's members is to make, by number.
      metric: that ranks members.
      greatest: whether its greatest value is the best, or its lowest.
      hosts: the processes.
      received: the signals that have come; others add to it.
    """

    def __init__(
        self,
        names: Sequence[str],
        steps: Mapping[int, int],
        metric: str,
        greatest: bool,
        hosts: Hosts,
        received: Sequence[int],
    ):
        self._names, self._metric, self._greatest = names, metric, greatest
        self._hosts, self._received = hosts, received
        self._done = dict.fromkeys(steps, 0)
        self._total = dict(steps)
        self._alive = set(steps)
        self._best, self._best_member = math.nan, -1
        self._news = self._called = self._finished = False
        self._begun: tuple[float, float] | None = None
        """When the clock was started that tells the time left, and the steps done by then."""
        self._bar = console.bar(unit="step", disable=True if hosts.index else None)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def say(self, text: str) -> None:
        """A line, from process 0."""
        if not self._hosts.index:
            console.say(text)

    def reached(self, member: int, step: int) -> None:
        """A member has come to this step."""
        self._done[member] = step

    def called(self) -> None:
        """A call of the device has trained."""
        self._called = True

    def recorded(self, member: int, metrics: Mapping[str, float]) -> None:
        """A member was evaluated."""
        self._news = True
        value = metrics[self._metric]
        if not (self._best >= value if self._greatest else self._best <= value) and math.isfinite(value):
            self._best, self._best_member = value, member

    def ended(self, member: int, status: str) -> None:
        """A member has come to its end, wherever :meth:`reached` has said that it is."""
        self.ended_before(member, self._done[member])
        console.say(f"{self._names[member]}: {status} at step {self._done[member]}")

    def ended_before(self, member: int, step: int) -> None:
        """A member had come to its end at this step when a process began."""
        self._alive.discard(member)
        self._done[member] = self._total[member] = step

    def check(self) -> bool:
        """Tell and hear how far all processes are; whether they all wait for each other, and so are done.

        Raises:
          Stopped: if a signal has come to any of them.
          HostsError: if one of them is gone.
        """
        mine = _Share(
            self._received[0] if self._received else 0,
            sum(self._done.values()),
            sum(self._total.values()),
            len(self._alive),
            self._finished,
            self._best,
            self._best_member,
        )
        shares = [_Share(*map(float, row)) for row in self._hosts.gather(np.array(mine))]
        self._show(shares)
        signal = max(share.signal for share in shares)
        if signal:
            raise Stopped(int(signal))
        return all(share.finished for share in shares)

    def wait(self) -> None:
        """Until the other processes have trained all of theirs. Raises as :meth:`check` does."""
        self._finished = True
        while not self.check():
            time.sleep(WAIT)

    def _show(self, shares: Sequence[_Share]) -> None:
        done, total = (sum(share[of] for share in shares) for of in (1, 2))
        if self._begun is None and self._called:
            self._begun = time.perf_counter(), done  # After the first call, which has compiled.
        scored = [share for share in shares if not math.isnan(share.best)]
        parts = [f"{sum(share.alive for share in shares):.0f} of {len(self._names)} alive"]
        if scored:
            best = (max if self._greatest else min)(scored, key=lambda share: share.best)
            parts.append(f"best {self._metric} {best.best:.3g} ({self._names[int(best.best_member)]})")
        if self._begun and done > self._begun[1]:
            since, done_then = self._begun
            seconds = (total - done) * (time.perf_counter() - since) / (done - done_then)
            parts.append(f"{_duration(seconds)} left")
        self._bar.total, self._bar.n = int(total), int(done)
        self._bar.set_postfix_str(parts[0] + (f", {parts[1]}" if scored else ""))
        if self._news:
            self.say(f"{done / max(total, 1):.0%} of all steps: " + ", ".join(parts))
        self._news = False


def _duration(seconds: float) -> str:
    """``3 h 05 min``, ``12 min`` or ``40 s``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
