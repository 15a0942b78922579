"""How many of a network's parameters are not biases: as some papers count."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import jax

from wrnn_jax.models import configure, count_parameters
from wrnn_jax.typing import Signature
from wrnn_jax.validation import InvalidValue

SIZES = {"copy": (10, 10), "adding": (2, 1), "smnist": (1, 10), "psmnist": (1, 10), "nscifar10": (96, 10)}
"""Inputs and outputs of the papers' tasks, by experiment."""
COUNTING = ("model", "n_hid", "n_ch", "ksize")
"""Fields of a model on which its parameters depend, besides its biases."""


def without_biases(known: Mapping[str, Any]) -> int | None:
    """The weights alone: the parameters of the same network without biases.

    Args:
      known: of a run, what its config and summary say.

    Returns:
      None where they say too little, or not what a network of this library would have.
    """
    if known.get("use_bias") is False:
        return known.get("params")
    fields = {field: known[field] for field in COUNTING if known.get(field) is not None}
    if known.get("experiment") not in SIZES or "model" not in fields:
        return None
    try:
        counts = _counts(known["experiment"], tuple(fields.items()))
    except (InvalidValue, TypeError):
        return None
    return counts[False] if counts[True] == known.get("params") else None


@cache
def _counts(experiment: str, fields: tuple[tuple[str, Any], ...]) -> dict[bool, int]:
    """Of the network with biases (True), and without."""

    def count(use_bias: bool) -> int:
        model = configure(**dict(fields), use_bias=use_bias).build(Signature(*SIZES[experiment], length=1, read="last"))
        return count_parameters(jax.eval_shape(model.init, jax.random.key(0)).params)

    return {use_bias: count(use_bias) for use_bias in (True, False)}
