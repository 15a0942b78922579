"""The letters that name axes, and the array aliases, used in every signature and docstring.

==  ==========================================================
B   sequences in a batch (``*batch``: any number of batch axes)
T   time steps
D   input features
C   channels: circular rings of neurons
N   neurons of one channel (the paper's n; it calls C·N "N")
K   taps: the width of the recurrent kernel (the paper's f)
O   outputs of the readout
s   columns of a substrate, the vectors that a working memory holds
d   neurons of a column, the elements of such a vector
==  ==========================================================
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax

Array = jax.Array
Key = jax.Array
"""A typed key, as ``jax.random.key`` makes it."""
Params = Any
"""A pytree of arrays."""
Carry = Any
"""A pytree of arrays, each with the batch axes first."""
Shape = Sequence[int]


class Signature(NamedTuple):
    """What a task asks of a model."""

    inputs: int
    """D."""
    outputs: int
    """O."""
    length: int
    """T, the steps of a training sequence."""
    read: Literal["all", "last"] = "all"
    """Whether there is an output at every step, or one of the whole sequence."""
    colors: int = 1
    """Where the inputs of a step are pixels, one or a row of them, the features of each, which stand side by side."""
