"""What a run shows and writes while it goes: progress bar, metrics, TensorBoard, and its own pace."""

import statistics
import time
from collections.abc import Mapping
from functools import cached_property

from tqdm import tqdm

from wrnn_jax.training.rundir import RunDirectory

SECONDS_A_CALL = 1.0
"""About how long one call of the device may take: the bar moves, and a signal is heeded, so often."""


class Recorder:
    """Writes a run's records from ``step`` on, and measures how fast it is.

    Raises:
      OSError: if the records cannot be written.
    """

    def __init__(self, directory: RunDirectory, step: int, max_steps: int):
        directory.rewind(step)
        rows = directory.metrics()
        self._directory = directory
        self._step = step
        self._rates: list[float] = []
        self._start = time.perf_counter() - (rows[-1]["seconds"] if rows else 0.0)
        self._first_step = step
        # No bar where nobody watches: in a log file each refresh would be a line.
        self._bar = tqdm(total=max_steps, initial=step, unit="step", disable=None, dynamic_ncols=True)
        self._called = time.perf_counter()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @cached_property
    def _events(self):
        # Imported and made when first needed: where PyTorch is installed tensorboardX imports it all, and a run's
        # first step should not wait for that.
        from wrnn_jax.training.tensorboard import EventFile

        return EventFile(self._directory.path / "tensorboard", self._first_step)

    @property
    def seconds(self) -> float:
        """Time since the run began, that of the processes it resumes included up to their last record."""
        return time.perf_counter() - self._start

    @property
    def steps_per_second(self) -> float | None:
        """The median over this process's calls; None before the first."""
        return statistics.median(self._rates) if self._rates else None

    def steps_of_next_call(self) -> int:
        """As many as take about a second, by the last call's pace; one to begin with."""
        self._called = time.perf_counter()
        return max(1, int(self._rates[-1] * SECONDS_A_CALL)) if self._rates else 1

    def advanced(self, step: int) -> None:
        """A call of the device that began with :meth:`steps_of_next_call` has come to ``step``."""
        done = step - self._step
        if done:
            self._rates.append(done / (time.perf_counter() - self._called))
        self._bar.update(done)
        self._step = step

    def record(self, metrics: Mapping[str, float]) -> None:
        """A row of metrics, written, drawn and shown."""
        row = {"step": self._step, **metrics, "seconds": self.seconds, "steps_per_second": self.steps_per_second}
        self._directory.record(row)
        self._events.scalars(self._step, metrics)
        shown = ", ".join(f"{name} {value:.3g}" for name, value in metrics.items())
        self._bar.set_postfix_str(shown, refresh=False)
        tqdm.write(f"step {self._step}: {shown}")
