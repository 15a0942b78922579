"""What is timed: the recurrent networks of the paper's tasks, at the paper's sizes, on random data."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from wrnn_jax import cells, readouts
from wrnn_jax.cells import Cell


@dataclass(frozen=True)
class Workload:
    """One optimiser step of one network."""

    title: str
    steps: int
    """T."""
    channels: int
    neurons: int
    inputs: int
    outputs: int
    read: Literal["all", "last"]
    slow_steps: int
    """The T at which contenders are timed that need minutes, or gigabytes, for the whole T."""
    taps: int = 3
    """0: a simple RNN with ``neurons`` neurons."""
    loss: Literal["cross-entropy", "squared error"] = "cross-entropy"
    batch: int = 128
    activation: Literal["relu", "identity"] = "relu"

    def of_steps(self, steps: int) -> "Workload":
        return replace(self, steps=steps)

    def cell(self, form: Literal["roll", "conv"] = "roll") -> Cell:
        if self.taps == 0:
            return cells.irnn(self.neurons)
        return cells.wave(self.channels, self.neurons, self.taps, activation=self.activation, form=form)

    def readout(self) -> readouts.Readout:
        return readouts.linear(self.outputs)

    def params(self) -> dict:
        """Parameters for the cell and its readout, as arrays of numpy; the same in every process."""
        rng = np.random.default_rng(0)
        ring = (self.channels, self.neurons) if self.taps else (self.neurons,)
        if self.taps:
            kernel = np.zeros((self.channels, self.channels, self.taps))
            kernel[range(self.channels), range(self.channels), self.taps // 2 + 1] = 1.0
            kernel += 0.01 * rng.normal(size=kernel.shape)
        else:
            kernel = np.eye(self.neurons)
        size = self.channels * self.neurons
        params = {
            "cell": {
                "encoder": {"kernel": 0.1 * rng.normal(size=(*ring, self.inputs)), "bias": np.zeros(ring)},
                "recurrence": {"kernel": 0.9 * kernel, "bias": np.zeros(kernel.shape[0])},
            },
            "readout": {"output": {"kernel": rng.normal(size=(self.outputs, size)) / size**0.5}},
        }
        params["readout"]["output"]["bias"] = np.zeros(self.outputs)
        return _float32(params)

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs ``(B, T, D)``, and targets: classes ``(B, T)`` or ``(B,)``; numbers ``(B, O)`` to be near to."""
        rng = np.random.default_rng(1)
        xs = rng.random((self.batch, self.steps, self.inputs), np.float32)
        if self.loss == "squared error":
            return xs, rng.random((self.batch, self.outputs), np.float32)
        shape = (self.batch, self.steps) if self.read == "all" else (self.batch,)
        return xs, rng.integers(0, self.outputs, shape).astype(np.int32)


def _float32(tree: dict) -> dict:
    return {name: _float32(leaf) if isinstance(leaf, dict) else leaf.astype(np.float32) for name, leaf in tree.items()}


WORKLOADS = {
    "A": Workload("copy T = 480, c = 6, n = 100, read at every step", 500, 6, 100, 10, 10, "all", 500),
    "B": Workload("adding T = 1000, c = 27, n = 100", 1000, 27, 100, 2, 1, "last", 50, loss="squared error"),
    "C": Workload("sMNIST T = 784, c = 16, n = 256", 784, 16, 256, 1, 10, "last", 50),
    "D": Workload("iRNN n = 100, copy T = 480", 500, 1, 100, 10, 10, "all", 500, taps=0),
}
"""By the letter that ``--workloads`` takes."""
