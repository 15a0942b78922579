"""Tasks: data made or gathered on the device, loss, metrics, and what chance scores."""

from wrnn_jax.tasks.adding import AddingConfig, adding_batch, adding_task
from wrnn_jax.tasks.base import Curriculum, Progress, Source, Split, Task
from wrnn_jax.tasks.copy import CopyConfig, copy_batch, copy_task
from wrnn_jax.tasks.hds import HDSConfig, hds_task
from wrnn_jax.tasks.images import (
    NoisyRowsConfig,
    PermutedConfig,
    PixelConfig,
    noisy_rows_task,
    permuted_task,
    pixel_task,
)
from wrnn_jax.tasks.language import LanguageConfig, language_task
from wrnn_jax.tasks.recall import RecallConfig, recall_batch, recall_task
from wrnn_jax.tasks.selective import SelectiveConfig, selective_batch, selective_task

__all__ = [
    "AddingConfig",
    "CopyConfig",
    "Curriculum",
    "HDSConfig",
    "LanguageConfig",
    "NoisyRowsConfig",
    "PermutedConfig",
    "PixelConfig",
    "Progress",
    "RecallConfig",
    "SelectiveConfig",
    "Source",
    "Split",
    "Task",
    "adding_batch",
    "adding_task",
    "copy_batch",
    "copy_task",
    "hds_task",
    "language_task",
    "noisy_rows_task",
    "permuted_task",
    "pixel_task",
    "recall_batch",
    "recall_task",
    "selective_batch",
    "selective_task",
]
