"""Tasks: data made on the device, loss, metrics, and what chance scores."""

from wrnn_jax.tasks.base import Task
from wrnn_jax.tasks.copy import CopyConfig, copy_batch, copy_task

__all__ = ["CopyConfig", "Task", "copy_batch", "copy_task"]
