"""One optimiser step of a small network around one linear layer, however that goes through time."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from experiments.bench.jax_step import trains
from experiments.bench.state_spaces import lru, s4d
from experiments.devices import prepare_jax
from wrnn_jax import cells, layers, readouts
from wrnn_jax.layers import Layer, Variables
from wrnn_jax.typing import Array, Params

WAYS: dict[str, Callable[[int, int], Layer]] = {
    "FFT": layers.wave,
    "scan": lambda features, neurons: layers.recurrent(cells.linear_wave(features, neurons), backend="scan"),
    "S4D": s4d,
    "LRU": lru,
}
"""The linear wave in its two forms, and two others, by C and N."""


@dataclass(frozen=True)
class LayerWorkload:
    """A network that maps a sequence of numbers to another: affine, the layer, affine, at every step."""

    steps: int
    """T."""
    features: int
    """C."""
    neurons: int
    """N: the size of the state of each feature; of the LRU, which has one for all, in complex numbers."""
    batch: int

    def network(self, way: str) -> Layer:
        layer = WAYS[way](self.features, self.neurons)
        chain = layers.chain(layers.dense(self.features), layer)
        return layers.read(chain, readouts.linear(1), layers.every_step)

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets ``(B, T, 1)``."""
        shape = (2, self.batch, self.steps, 1)
        inputs, targets = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        return inputs, targets


def layer_step(workload: LayerWorkload, way: str, devices: int | None = None) -> Callable[[], float]:
    """A turn is one Adam step of ``workload.network(way)`` towards the targets, in the mean of squares."""
    prepare_jax()
    network = workload.network(way)
    params, stats = network.init(jax.random.key(0), 1)

    def apply(params: Params, xs: Array) -> Array:
        return network.apply(Variables(params, stats), xs)[0]

    return trains(apply, params, workload.data(), "squared error", devices)
