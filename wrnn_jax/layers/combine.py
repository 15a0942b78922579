"""Layers of layers: one after another, and around one a connection that skips it."""

import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from wrnn_jax.layers.base import OF_PARAMS, Layer, Stream, Training, Variables, applied
from wrnn_jax.typing import Array, Carry, Key, Params
from wrnn_jax.validation import require


def chain(*layers: Layer, **named: Layer) -> Layer:
    """One layer after another: ys = f_n(… f_2(f_1(xs))).

    Parameters and statistics: ``{name: the layer's own}``; layers given by position are named ``"0"``, ``"1"``, …,
    those given by name come after them, in the order given::

        chain(recurrent(cell), dense(10))                          # {"0": …, "1": …}
        chain(norm=layer_norm(), cell=recurrent(cell))             # {"norm": …, "cell": …}

    Each layer draws from a key of its own, made from the name: another layer more or less changes no layer's start.
    Hidden: those of all layers, in evaluation, ``{"0": …, "1.cell": …}``: the name of the layer, and where that has
    layers, theirs after it. It is streamed if all layers can be. ``chain()`` is the identity.
    """
    parts: Mapping[str, Layer] = {str(position): layer for position, layer in enumerate(layers)} | named
    sizes = [layer.output_size for layer in parts.values() if layer.output_size is not None]
    streams = {name: layer.stream for name, layer in parts.items()}

    def init(key: Key, input_size: int) -> Variables:
        made = {}
        for name, layer in parts.items():
            made[name] = layer.init(_key_of(name, key), input_size)
            input_size = input_size if layer.output_size is None else layer.output_size
        return _gathered(made)

    def apply(
        variables: Variables, xs: Array, training: Training | None = None, starts: Array | None = None
    ) -> tuple[Array, Any]:
        stats = {}
        for name, layer in parts.items():
            own = training and training._replace(key=_key_of(name, training.key))
            xs, stats[name] = applied(layer, _variables_of(name, variables), xs, own, starts)
        return xs, stats

    def start(variables: Variables, sequences: int, dtype: Any = jnp.float32) -> Carry:
        return {
            name: stream.start(_variables_of(name, variables), sequences, dtype) for name, stream in streams.items()
        }

    def run(variables: Variables, carry: Carry, xs: Array) -> tuple[Carry, Array]:
        after = {}
        for name, stream in streams.items():
            after[name], xs = stream.run(_variables_of(name, variables), carry[name], xs)
        return after, xs

    def hidden(variables: Variables, xs: Array) -> Mapping[str, Array]:
        states = OrderedDict()  # What is compiled gives a plain dict back in the order of its keys: "10" before "2".
        for name, layer in parts.items():
            own = _variables_of(name, variables)
            if layer.hidden:
                states |= _placed(name, layer.hidden(own, xs))
            xs, _ = layer.apply(own, xs)
        return states

    return Layer(
        init,
        apply,
        sizes[-1] if sizes else None,
        hidden if any(layer.hidden for layer in parts.values()) else None,
        **_together(parts),
        stream=Stream(start, run) if all(streams.values()) else None,
    )


def residual(layer: Layer) -> Layer:
    """ys = xs + f(xs), with all else as of the layer f. F must be D.

    Raises:
      ValueError: for an F that is not D, at ``init`` and ``apply``.

    Source: He et al. 2016, eq. 1.
    """

    def require_size(output_size: int | None, input_size: int) -> None:
        allowed = f"{input_size}, the size of its inputs, to be added to them"
        require(output_size in (None, input_size), "output_size", output_size, allowed)

    def init(key: Key, input_size: int) -> Variables:
        require_size(layer.output_size, input_size)
        return layer.init(key, input_size)

    def apply(
        variables: Variables, xs: Array, training: Training | None = None, starts: Array | None = None
    ) -> tuple[Array, Any]:
        ys, stats = applied(layer, variables, xs, training, starts)
        require_size(ys.shape[-1], xs.shape[-1])
        return xs + ys, stats

    def run(variables: Variables, carry: Carry, xs: Array) -> tuple[Carry, Array]:
        carry, ys = layer.stream.run(variables, carry, xs)
        require_size(ys.shape[-1], xs.shape[-1])
        return carry, xs + ys

    return layer._replace(init=init, apply=apply, stream=layer.stream and layer.stream._replace(run=run))


def bidirectional(forward: Layer, backward: Layer) -> Layer:
    """ys = f(xs) + g(xs backwards) backwards: f listens from the beginning of a sequence on, g from its end back.

    Parameters and statistics: ``{"forward": f's, "backward": g's}``. Hidden: those of f and of g, as g goes through
    time. As it looks ahead it has no stream.

    Raises:
      ValueError: for F of f and g that differ.

    Source: Schuster & Paliwal 1997, section II; the sum as Gu et al. 2022 (S4D) have it in their networks.
    """
    parts = {"forward": forward, "backward": backward}
    sizes = (forward.output_size, backward.output_size)
    require(sizes[0] == sizes[1], "output_size", sizes, "the same in both directions")

    def init(key: Key, input_size: int) -> Variables:
        return _gathered({name: layer.init(_key_of(name, key), input_size) for name, layer in parts.items()})

    def apply(
        variables: Variables, xs: Array, training: Training | None = None, starts: Array | None = None
    ) -> tuple[Array, Any]:
        # Backwards a sequence begins at its last step, before the start of the next.
        ends = None if starts is None else jnp.roll(starts, -1, axis=1).at[:, -1].set(True)[:, ::-1]
        given = {"forward": (xs, starts), "backward": (xs[:, ::-1], ends)}
        ys, stats = {}, {}
        for name, layer in parts.items():
            own = training and training._replace(key=_key_of(name, training.key))
            now, begun = given[name]
            ys[name], stats[name] = applied(layer, _variables_of(name, variables), now, own, begun)
        return ys["forward"] + ys["backward"][:, ::-1], stats

    def hidden(variables: Variables, xs: Array) -> Mapping[str, Array]:
        states = OrderedDict()
        for (name, layer), given in zip(parts.items(), (xs, xs[:, ::-1]), strict=True):
            if layer.hidden:
                states |= _placed(name, layer.hidden(_variables_of(name, variables), given))
        return states

    some = hidden if any(layer.hidden for layer in parts.values()) else None
    return Layer(init, apply, sizes[0], some, **_together(parts))


def _together(parts: Mapping[str, Layer]) -> dict[str, Callable[[Params], Any] | None]:
    """What the layers' functions of their parameters make of ``{name: the layer's}``."""

    def of_all(field: str, default: Callable[[Params], Any]) -> Callable[[Params], Any] | None:
        functions = {name: getattr(layer, field) or default for name, layer in parts.items()}
        if all(function is default for function in functions.values()):
            return None
        return lambda params: {name: function(params[name]) for name, function in functions.items()}

    return {field: of_all(field, default) for field, default in OF_PARAMS.items()}


def _gathered(made: Mapping[str, Variables]) -> Variables:
    params = {name: variables.params for name, variables in made.items()}
    return Variables(params, {name: variables.stats for name, variables in made.items()})


def _placed(name: str, states: Mapping[str, Array]) -> Mapping[str, Array]:
    """The hidden states of a layer that has a name among others."""
    return {".".join(filter(None, (name, inner))): array for inner, array in states.items()}


def _key_of(name: str, key: Key) -> Key:
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def _variables_of(name: str, variables: Variables) -> Variables:
    return Variables(variables.params[name], variables.stats[name])
