"""What a task is to the training loop."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from wrnn_jax.typing import Array, Key


class Task(NamedTuple):
    """Data, loss, metrics, and what chance scores.

    ==============================  ==========================================================
    ``batch(key, size)``            -> (inputs ``(B, T, D)``, targets), made on the device
    ``loss(outputs, targets)``      -> the scalar that is minimised, a mean over sequences
    ``metrics(outputs, targets)``   -> named scalars of the test set, means over sequences; the loss
                                    among them is ``test_loss``
    ``solved(metrics)``             -> whether such metrics call the task solved
    ==============================  ==========================================================
    """

    input_size: int
    output_size: int
    outputs: Literal["all", "last"]
    batch: Callable[[Key, int], tuple[Array, Array]]
    loss: Callable[[Array, Array], Array]
    metrics: Callable[[Array, Array], dict[str, Array]]
    solved: Callable[[Mapping[str, float]], bool]
    chance: Mapping[str, float]
    """What one scores who knows the task but remembers nothing."""
