"""What a run writes while it goes, and its own pace."""

import statistics
import time
from collections.abc import Callable, Mapping
from functools import cached_property

from wrnn_jax.training.rundir import RunDirectory

SECONDS_A_CALL = 1.0
"""About how long one call of the device may take: the bar moves, and a signal is heeded, so often."""


class Recorder:
    """Writes a run's records from ``step`` on: metrics and TensorBoard events.

    Args:
      directory: the run's.
      step: where it stands; later records are dropped.
      clock: tells the seconds that were spent on it, from any beginning.

    Raises:
      OSError: if the records cannot be written.
    """

    def __init__(self, directory: RunDirectory, step: int, clock: Callable[[], float] = time.perf_counter):
        directory.rewind(step)
        rows = directory.metrics()
        self._directory = directory
        self._clock = clock
        self._start = clock() - (rows[-1].get("seconds") or 0.0 if rows else 0.0)
        self._first_step = step

    @cached_property
    def _events(self):
        # Imported and made when first needed: where PyTorch is installed tensorboardX imports it all, and a run's
        # first step should not wait for that.
        from wrnn_jax.training.tensorboard import EventFile

        return EventFile(self._directory.path / "tensorboard", self._first_step)

    @property
    def seconds(self) -> float:
        """Time since the run began, that of the processes it resumes included up to their last record."""
        return self._clock() - self._start

    def record(self, step: int, metrics: Mapping[str, float], steps_per_second: float | None) -> None:
        """A row of metrics, written and drawn."""
        self._directory.record({"step": step, **metrics, "seconds": self.seconds, "steps_per_second": steps_per_second})
        self._events.scalars(step, metrics)


class Pace:
    """How many steps a call of the device should take, by how long the calls before took."""

    def __init__(self):
        self._rates: list[float] = []
        self._called = 0.0

    @property
    def steps_per_second(self) -> float | None:
        """The median over the calls; None before the first."""
        return statistics.median(self._rates) if self._rates else None

    def steps_of_next_call(self) -> int:
        """As many as take about a second, by the last call's pace; one to begin with. The clock starts."""
        self._called = time.perf_counter()
        return max(1, int(self._rates[-1] * SECONDS_A_CALL)) if self._rates else 1

    def advanced(self, steps: int) -> None:
        """The call has come to its end, so many steps further."""
        if steps:
            self._rates.append(steps / (time.perf_counter() - self._called))


def shown(metrics: Mapping[str, float]) -> str:
    """Metrics for a reader."""
    return ", ".join(f"{name} {value:.3g}" for name, value in metrics.items())
