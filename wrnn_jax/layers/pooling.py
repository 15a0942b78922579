"""What is read of a sequence: its last step, every step, or the mean over time; and a readout of that."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from wrnn_jax.layers.base import OF_PARAMS, Layer, Training, Variables
from wrnn_jax.readouts import Readout
from wrnn_jax.typing import Array, Key, Params


def last_step(ys: Array) -> Array:
    """y_{T−1}: ``(B, T, F)`` -> ``(B, F)``."""
    return ys[:, -1]


def every_step(ys: Array) -> Array:
    """y_t, t = 0 … T−1: ``(B, T, F)``, as they are."""
    return ys


def mean_over_time(ys: Array) -> Array:
    """(1/T) Σ_t y_t: ``(B, T, F)`` -> ``(B, F)``."""
    return ys.mean(axis=1)


READINGS: Mapping[str, Callable[[Array], Array]] = {"last": last_step, "all": every_step, "mean": mean_over_time}
"""Every reading by its name."""


def read(layer: Layer, readout: Readout, reading: Callable[[Array], Array] = last_step) -> Layer:
    """A network: outputs = readout(reading(layer(xs))), ``(B, O)``, or ``(B, T, O)`` of every step.

    Parameters ``{"layers": …, "readout": …}``; the statistics are the layer's, and all else is passed on.
    """

    def init(key: Key, input_size: int) -> Variables:
        layer_key, readout_key = jax.random.split(key)
        layers = layer.init(layer_key, input_size)
        features = input_size if layer.output_size is None else layer.output_size
        return Variables({"layers": layers.params, "readout": readout.init(readout_key, features)}, layers.stats)

    def layers_of(variables: Variables) -> Variables:
        return variables._replace(params=variables.params["layers"])

    def apply(variables: Variables, xs: Array, training: Training | None = None) -> tuple[Array, Any]:
        ys, stats = layer.apply(layers_of(variables), xs, training)
        return _outputs(readout, variables.params["readout"], reading(ys)), stats

    return Layer(
        init,
        apply,
        readout.output_size,
        layer.hidden and (lambda variables, xs: layer.hidden(layers_of(variables), xs)),
        **beside_readout("layers", layer),
    )


def beside_readout(name: str, layer: Layer) -> dict[str, Callable[[Params], Any] | None]:
    """The layer's functions of its parameters, as those of ``{name: the layer's, "readout": …}``, where the
    readout's part is as by default."""

    def of_both(field: str, of_readout: Callable[[Params], Any]) -> Callable[[Params], Any] | None:
        of_layer = getattr(layer, field)
        if of_layer is None:
            return None
        return lambda params: {name: of_layer(params[name]), "readout": of_readout(params["readout"])}

    return {field: of_both(field, default) for field, default in OF_PARAMS.items()}


def _outputs(readout: Readout, params: Params, ys: Array) -> Array:
    """What the readout makes of ``(B, F)``; or of ``(B, T, F)``, step by step unless it reads each row by itself."""
    if ys.ndim == 2 or readout.rowwise or readout.is_linear:
        return readout.apply(params, ys)
    by_step = jax.lax.map(lambda y: readout.apply(params, y), jnp.moveaxis(ys, 1, 0))
    return jnp.moveaxis(by_step, 0, 1)
