"""What networks of linear waves learned, read from their parameters."""

from collections.abc import Iterator, Mapping

import numpy as np

from experiments.parts import Parts
from wrnn_jax.analysis.filters import Travel
from wrnn_jax.cells.response import impulse_response
from wrnn_jax.cells.travel import UNIT, leaks, speeds
from wrnn_jax.models.wave_ssm import WaveSSMConfig
from wrnn_jax.typing import Params
from wrnn_jax.validation import require


def waves(parts: Parts, params: Params) -> dict[str, Params]:
    """The parameters of every layer of linear waves, by its place.

    Raises:
      InvalidValue: for a model without.
    """
    model = parts.config.model
    allowed = "wave-ssm: a network of linear waves"
    require(isinstance(model, WaveSSMConfig), "model", model.model, allowed)
    return dict(_waves("", params["layers"]))


def impulse_responses(parts: Parts, params: Params) -> dict[str, np.ndarray]:
    """Place -> K ``(C, T)``, over as many steps as the layer is given in training.

    Raises:
      InvalidValue: for a model without linear waves.
    """
    model, length = parts.config.model, parts.task.signature.length
    responses = {}
    for place, own in waves(parts, params).items():
        steps = length if place.startswith("0.") else length // model.stride
        responses[place] = np.asarray(impulse_response(own, steps, model.scheme))
    return responses


def travel(parts: Parts, params: Params) -> dict[str, Travel]:
    """Place -> speeds and leaks.

    Raises:
      InvalidValue: for a model without linear waves, or one that learns none of the two.
    """
    found, scheme = waves(parts, params), parts.config.model.scheme
    require(scheme not in UNIT, "scheme", scheme, "one in which speeds and leaks are learned, such as exact")
    return {place: Travel(np.asarray(speeds(own, scheme)), np.asarray(leaks(own))) for place, own in found.items()}


def _waves(place: str, params: Params) -> Iterator[tuple[str, Params]]:
    """Of what stands below ``place``: blocks by number, those that have them in both directions."""
    if not isinstance(params, Mapping):
        return
    names = sorted(params, key=lambda name: (len(name), name))  # 2 before 10, forward before backward.
    for name in names:
        inner = f"{place}.{name}" if place else name
        if "wave" in inner.split(".") and isinstance(params[name], Mapping) and "kernel" in params[name]:
            yield inner, params[name]
        else:
            yield from _waves(inner, params[name])
