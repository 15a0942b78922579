"""Whether a run fits into memory: asked before anything of its size is made."""

import math
from collections.abc import Mapping
from typing import Any

import jax

from wrnn_jax.grids.available import available_bytes
from wrnn_jax.grids.room import run_bytes
from wrnn_jax.models import count_parameters
from wrnn_jax.models.contract import initial
from wrnn_jax.tasks import Task
from wrnn_jax.training.config import TrainConfig
from wrnn_jax.training.loop import Trainer
from wrnn_jax.typing import Signature
from wrnn_jax.validation import InvalidValue

FLOAT = 4
"""Bytes of a float32."""
COPIES = 4
"""Of the parameters, in training: they, their gradient, and Adam's two moments."""
CERTAIN = 50
"""There is room for certain where there is so many times the least that is needed: a scan keeps some ten arrays of a
step's size for its backward pass, and the other engines fewer."""
UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def require_possible(config: Any, batch: int) -> None:
    """Nothing is asked for that certainly does not fit: by a formula, as steps of sizes beyond all measure can be
    neither made nor traced. Of B sequences of T steps, D features and C·N neurons with P parameters training takes

        4 (4 P + B·T·(C·N + D)) bytes at least

    Args:
      config: an experiment's.
      batch: B.

    Raises:
      InvalidValue: for the largest size of the config, with what is needed, and what there is.
    """
    _require(config, least_bytes(config, batch), "at least", jax.local_devices())


def least_bytes(config: Any, batch: int) -> int:
    """The formula of :func:`require_possible`, where P are all parameters but the readout's."""
    steps, features = config.task.shape
    # How many outputs there are, and of which steps, only the task knows, which is not made yet.
    signature = Signature(features, features, steps, "last")
    params = initial(config.model, signature).params
    if isinstance(params, Mapping):
        params = {name: part for name, part in params.items() if name != "readout"}
    weights = count_parameters(params)
    return FLOAT * (COPIES * weights + batch * steps * (config.model.width(signature) + features))


def require_room(trainer: Trainer, task: Task, config: Any) -> None:
    """A run's training and evaluation fit by estimate, see :func:`wrnn_jax.grids.room.run_bytes`.

    Raises:
      InvalidValue: as :func:`require_possible`.
    """
    train: TrainConfig = config.train
    devices = list(trainer.mesh.devices.flat)
    if CERTAIN * least_bytes(config, train.batch) <= _available(devices):
        return  # To estimate takes a second or more.
    hparams = train.hparams(task.epoch_steps(train.batch))
    _require(config, len(devices) * run_bytes(trainer, task, hparams), "by estimate", devices)


def _require(config: Any, needed: int, how: str, devices: list[jax.Device]) -> None:
    available = _available(devices)
    if needed <= available:
        return
    sizes = {"T": getattr(config.task, "T", 0), "batch": config.train.batch}
    sizes |= {field: getattr(config.model, field, 0) or 0 for field in ("n_hid", "n_ch", "ksize")}
    largest = max(sizes, key=sizes.get)
    allowed = f"smaller, or other sizes: this takes {_told(needed)} of memory {how}, and {_told(available)} are there"
    raise InvalidValue(largest, sizes[largest], allowed)


def _available(devices: list[jax.Device]) -> float:
    each = [available_bytes(device) for device in devices]
    return math.inf if None in each else sum(each)


def _told(number: float) -> str:
    power = min(max(1, (int(number).bit_length() - 1) // 10), len(UNITS))
    return f"{number / 2 ** (10 * power):,.1f} {UNITS[power - 1]}"
