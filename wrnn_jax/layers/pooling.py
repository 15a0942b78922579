"""What is read of a sequence: its last step, every step, or the mean over time; and a readout of that."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from wrnn_jax.layers.base import OF_PARAMS, Layer, Stream, Training, Variables, applied
from wrnn_jax.readouts import Readout
from wrnn_jax.typing import Array, Carry, Key, Params
from wrnn_jax.validation import require


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
OF_A_STEP = (last_step, every_step)
"""Those that look at steps by themselves."""


def read(layer: Layer, readout: Readout, reading: Callable[[Array], Array] = last_step) -> Layer:
    """A network: outputs = readout(reading(layer(xs))), ``(B, O)``, or ``(B, T, O)`` of every step.

    Parameters ``{"layers": …, "readout": …}``; the statistics are the layer's, and all else is passed on.
    The stream of one that reads the last step gives outputs at every step, each as if it were the last; what reads
    steps together has none.

    Raises:
      InvalidValue: for sequences packed one after another, where steps are read together, at ``apply``.
    """

    def init(key: Key, input_size: int) -> Variables:
        layer_key, readout_key = jax.random.split(key)
        layers = layer.init(layer_key, input_size)
        features = input_size if layer.output_size is None else layer.output_size
        return Variables({"layers": layers.params, "readout": readout.init(readout_key, features)}, layers.stats)

    def layers_of(variables: Variables) -> Variables:
        return variables._replace(params=variables.params["layers"])

    def apply(
        variables: Variables, xs: Array, training: Training | None = None, starts: Array | None = None
    ) -> tuple[Array, Any]:
        if starts is not None:
            allowed = "left out: what is read goes across sequences"
            require(reading in OF_A_STEP, "starts", f"an array {jnp.shape(starts)}", allowed)
        ys, stats = applied(layer, layers_of(variables), xs, training, starts)
        return _outputs(readout, variables.params["readout"], reading(ys)), stats

    def start(variables: Variables, sequences: int, dtype: Any = jnp.float32) -> Carry:
        return layer.stream.start(layers_of(variables), sequences, dtype)

    def run(variables: Variables, carry: Carry, xs: Array) -> tuple[Carry, Array]:
        carry, ys = layer.stream.run(layers_of(variables), carry, xs)
        return carry, _outputs(readout, variables.params["readout"], ys)

    return Layer(
        init,
        apply,
        readout.output_size,
        layer.hidden and (lambda variables, xs: layer.hidden(layers_of(variables), xs)),
        **beside_readout("layers", layer),
        stream=Stream(start, run) if layer.stream and reading in OF_A_STEP else None,
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
