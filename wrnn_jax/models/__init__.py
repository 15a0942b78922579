"""Models: what ``--model`` names is a file here, which holds all that is that model's own.

A model is known by its :class:`Entry`: the type of its flags, a :class:`ModelConfig`, which builds it. One of this
package is in :data:`MODELS`; one of your own is named by where it is, ``package.module:name``.
"""

import dataclasses
import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from wrnn_jax.models.base import Entry, Model, ModelConfig, count_parameters, from_layer, stateless
from wrnn_jax.models.contract import in_one_line
from wrnn_jax.models.deep import CellConfig, DeepConfig, recurrent
from wrnn_jax.validation import InvalidValue, require

__all__ = [
    "MODELS",
    "CellConfig",
    "DeepConfig",
    "Entry",
    "Model",
    "ModelConfig",
    "configure",
    "count_parameters",
    "entry",
    "from_layer",
    "recurrent",
    "stateless",
]

FAMILIES = ("wrnn", "elman", "lstm", "gru", "twm", "wave_ssm", "delay_line")
"""The files here whose ``ENTRIES`` have names of their own."""
MODELS: Mapping[str, Entry] = {
    entry.name: entry for family in FAMILIES for entry in importlib.import_module(f"{__name__}.{family}").ENTRIES
}
"""Every model that has a name of its own."""


@cache
def entry(name: str) -> Entry:
    """What a model's name stands for: a key of :data:`MODELS`, or ``package.module:name`` of an entry elsewhere.

    Raises:
      InvalidValue: for another name; a module that there is not, or that cannot be imported; a name in it that is no
        :class:`Entry`.
    """
    if name in MODELS:
        return MODELS[name]
    names = f"one of {', '.join(MODELS)}, or package.module:name of an Entry"
    module_name, colon, attribute = str(name).partition(":")
    require(bool(module_name and colon and attribute), "model", name, names)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # A module may raise anything.
        raise InvalidValue("model", name, f"of a module that can be imported ({error})") from error
    found = getattr(module, attribute, None)
    require(isinstance(found, Entry), "model", name, f"an Entry of {module_name}, which {attribute} is not")
    is_config = isinstance(found.config, type) and issubclass(found.config, ModelConfig)
    require(is_config, "model", name, "an Entry whose config is a subclass of ModelConfig")
    return found._replace(name=name)


def configure(model: str, **fields: Any) -> ModelConfig:
    """The config of a model, with its own defaults for what is not given.

    Raises:
      InvalidValue: for an unknown model, a field that it has not, or a value that it does not allow.
    """
    known = entry(model)
    own = {field.name for field in dataclasses.fields(known.config)}
    for field, value in fields.items():
        require(field in own, field, value, f"left out: {model} has no {field.replace('_', '-')}")
    with in_one_line(model, "config", refusals=InvalidValue):
        return known.config(**{"model": model, **known.defaults, **fields})
