"""What a model is to training, what a config of one is to a command line, and what a name stands for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from wrnn_jax.layers import Layer, Stream, Training, Variables
from wrnn_jax.typing import Array, Key, Params, Signature


class Model(NamedTuple):
    """A model as pure functions: all that training sees of it.

    ======================================  ==========================================================================
    ``init(key)``                           -> :class:`wrnn_jax.layers.Variables`
    ``apply(variables, xs, training)``      xs ``(B, T, D)`` -> (outputs ``(B, T, O)``, or ``(B, O)`` of a whole
                                            sequence; stats after it). ``training`` is a
                                            :class:`wrnn_jax.layers.Training`, or None, if left out, for evaluation
    ``apply(variables, xs, training,        the same of packed sequences, of those of this package; as a
    starts)``                               :class:`wrnn_jax.layers.Layer`
    ``hidden(variables, xs)``               -> hidden states over time, of each layer that has some: ``{name:
                                            (B, T, C, N)}``, as a :class:`wrnn_jax.layers.Layer`; None where it has none
    ``stream``                              a :class:`wrnn_jax.layers.Stream`, from part to part of a sequence, with
                                            outputs ``(B, T, O)`` at every step; None where it has to be given whole
    ``constrain(params)``                   -> params, as they are to be after each update; None: as they are
    ``rates(params)``                       -> factors of the learning rate, a pytree prefix of params; None: 1
    ``decays(params)``                      -> whether weight decay acts, a pytree prefix of params; None: it does
    ``transition(params)``                  -> what a step does to the state near the origin, as a matrix; None where
                                            that has no such form
    ======================================  ==========================================================================

    A model of one's own that keeps no statistics is two functions of its parameters: :func:`stateless`.
    """

    init: Callable[[Key], Variables]
    apply: Callable[..., tuple[Array, Any]]
    hidden: Callable[[Variables, Array], Mapping[str, Array]] | None = None
    constrain: Callable[[Params], Params] | None = None
    rates: Callable[[Params], Any] | None = None
    decays: Callable[[Params], Any] | None = None
    transition: Callable[[Params], np.ndarray | None] = lambda params: None
    stream: Stream | None = None


def stateless(
    init: Callable[[Key], Params],
    apply: Callable[[Params, Array], Array],
    hidden: Callable[[Params, Array], Mapping[str, Array]] | None = None,
) -> Model:
    """The model of plain functions of its parameters, which does the same in training and evaluation. A Flax module is
    one as ``stateless(lambda key: module.init(key, xs), module.apply)``."""

    def apply_model(variables: Variables, xs: Array, training: Training | None = None) -> tuple[Array, Any]:
        return apply(variables.params, xs), variables.stats

    of_variables = hidden and (lambda variables, xs: hidden(variables.params, xs))
    return Model(lambda key: Variables(init(key)), apply_model, of_variables)


def from_layer(layer: Layer, input_size: int) -> Model:
    """The model that a layer is for D inputs, such as what :func:`wrnn_jax.layers.read` gives."""
    same = (layer.apply, layer.hidden, layer.constrain, layer.rates, layer.decays)
    return Model(lambda key: layer.init(key, input_size), *same, stream=layer.stream)


def count_parameters(params: Params) -> int:
    """The number of scalars in a pytree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@dataclass(frozen=True)
class ModelConfig:
    """Which model: its flags. A model's own config is a subclass, of which ``--model`` shows the fields; it raises
    ``InvalidValue``, when it is made, for what it does not allow. Its docstring has the number of parameters as a
    formula, of one layer without norm, in the letters of :mod:`wrnn_jax.typing`: ``Parameters: N(D + N + 1).``"""

    model: str = ""
    """The model, see --help; or one of your own, as package.module:name."""

    def build(self, signature: Signature) -> Model:
        """The model, for a task's sizes.

        Raises:
          InvalidValue: for a signature that the model cannot have.
        """
        raise NotImplementedError

    def backend_for(self, signature: Signature, batch: int, native_is_built: bool | None = None) -> str | None:
        """How it goes through time on this machine, for such a batch; None where that is no option of it.

        ``native_is_built`` asks what it would be if the native kernels were there, or were not.
        """
        return None

    def on_this_machine(self, signature: Signature, batch: int) -> "ModelConfig":
        """The config with nothing left open that the machine decides, for such a batch."""
        backend = self.backend_for(signature, batch)
        return self if backend is None else replace(self, backend=backend)

    def width(self, signature: Signature) -> int:
        """The numbers of state that a step of one sequence computes, all layers together; 0 where there are none."""
        return 0


class Entry(NamedTuple):
    """What a name stands for."""

    name: str
    """What ``--model`` takes."""
    config: type[ModelConfig]
    """The type of its flags."""
    source: str
    """The paper."""
    defaults: Mapping[str, Any] = MappingProxyType({})
    """Of its flags, where they are not those of the type."""
    on_rings: bool = False
    """Whether neurons that stand side by side are neighbours."""
