"""Settings published for the Wave-RNN, by task and model (Keller et al. 2024, appendix)."""

import dataclasses
from typing import Any

from wrnn_jax.validation import require, require_choice

COPY_T = (0, 10, 30, 80, 480)
COPY_BEST = {
    ("wrnn", 100): {"lr": (1e-3, 1e-3, 1e-3, 1e-3, 1e-4), "grad_clip": (1.0, 0.0, 0.0, 1.0, 1.0)},
    ("irnn", 100): {"lr": (1e-3, 1e-3, 1e-4, 1e-4, 1e-4), "grad_clip": (10.0, 1.0, 1.0, 1.0, 10.0)},
    ("irnn", 625): {"lr": (1e-3, 1e-4, 1e-4, 1e-4, 1e-4), "grad_clip": (1.0, 10.0, 1.0, 1.0, 1.0)},
}
"""Best learning rate and clip by (model, neurons a channel), a value for each T."""


def paper_copy(config: Any) -> Any:
    """The paper's best settings for the config's T and model: all 60,000 steps.

    Raises:
      InvalidValue: for a T or model that the paper does not have.
    """
    require_choice("model", config.model.model, sorted({model for model, _ in COPY_BEST}))
    sizes = [neurons for model, neurons in COPY_BEST if model == config.model.model]
    require(config.model.n_hid in sizes, "n_hid", config.model.n_hid, f"one of {sizes} for --preset paper")
    require(config.task.T in COPY_T, "T", config.task.T, f"one of {COPY_T} for --preset paper")
    best = COPY_BEST[config.model.model, config.model.n_hid]
    at = COPY_T.index(config.task.T)
    settings = {field: values[at] for field, values in best.items()}
    train = dataclasses.replace(config.train, **settings, batch=128, max_steps=60_000, stop_below=0.0)
    return dataclasses.replace(config, train=train)
