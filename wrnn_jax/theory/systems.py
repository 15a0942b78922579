"""History-dependent systems by name: copies and series of real vectors, logic and arithmetic of binary ones."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wrnn_jax.theory.operators import (
    TASKS,
    binding_operator,
    compose_copy_operator,
    copy_operator,
    fibonacci_operator,
    operator_shape,
)
from wrnn_jax.typing import Array
from wrnn_jax.validation import InvalidValue, require, require_integer

GONE_THROUGH = 12
"""Columns up to which all 2^s histories of an element are looked at; beyond, 2^12 that are drawn."""
WORD = 32
"""Bits of a number at most."""


class System(NamedTuple):
    """``x(t) = f( x(t−s), …, x(t−1) )``, vectors of d elements; :func:`wrnn_jax.cells.history_system` is it, exactly.

    ``f(history)``: the last s vectors ``(*batch, s, d)``, the oldest first, -> the next ``(*batch, d)``.
    """

    f: Callable[[Any], Any]
    columns: int
    """s."""
    size: int
    """d."""
    is_binary: bool
    """Whether vectors are of ±1, 1 for true, else of real numbers."""
    operator: np.ndarray | None = None
    """f as a matrix ``(d, s·d)``; None where f is not linear."""
    is_elementwise: bool = False
    """Whether f does the same to every element by itself, and takes NumPy's arrays as well."""


def linear_system(operator: np.ndarray, *, is_binary: bool) -> System:
    """The system whose f is a matrix ``(d, s·d)`` on the flattened history.

    Raises:
      InvalidValue: for an operator of another shape.
    """
    size, components = operator_shape(operator)

    def f(history: Array) -> Array:
        kernel = jnp.asarray(operator, history.dtype)
        flat = history.reshape(*history.shape[:-2], components)
        return jnp.matmul(flat, kernel.T, precision=jax.lax.Precision.HIGHEST)

    return System(f, components // size, size, is_binary, operator)


REAL: Mapping[str, Callable[[int, int], np.ndarray]] = {
    "fibonacci": fibonacci_operator,
    "compose-copy": lambda size, columns: compose_copy_operator(size),
    "compose-copy-reversed": lambda size, columns: copy_operator(range(size)[::-1], range(size), columns),
    "compose-copy-shifted": lambda size, columns: copy_operator(range(size), np.roll(range(size), -1), columns),
    "repeat-copy": lambda size, columns: copy_operator([0] * size, range(size), columns),
    "splice": lambda size, columns: copy_operator([i * columns // size for i in range(size)], range(size), columns),
}
"""Linear systems of real vectors, their f for d and s. The copies, each ``x_i(t) = x_e(t − s + c)``, i from 0:

=========================  =================  ===========  ====================================================
name                       column c           element e
=========================  =================  ===========  ====================================================
``compose-copy``           i                  i            s = d: element i of the i-th oldest, as T2
``compose-copy-reversed``  d − 1 − i          i            s = d: of the i-th newest
``compose-copy-shifted``   i                  i + 1 mod d  s = d: each value goes on under the name before its own
``repeat-copy``            0                  i            the oldest whole, as T1
``splice``                 ⌊i·s/d⌋            i            from the oldest vector's first elements to the newest's last
=========================  =================  ===========  ====================================================
"""

SQUARE = ("compose-copy", "compose-copy-reversed", "compose-copy-shifted")
"""Systems that want as many columns as elements."""

LOGIC: Mapping[str, Callable[[Any], Any]] = {
    "xor": lambda history: -(-history).prod(axis=-2),
    "and": lambda history: history.min(axis=-2),
    "or": lambda history: history.max(axis=-2),
    "nand": lambda history: -history.min(axis=-2),
    "nor": lambda history: -history.max(axis=-2),
}
"""Binary systems that do to each element what their name says, over the s columns:

========  ===========================================================================================
``xor``   the binary Fibonacci series, whether an odd number of them is true. All s + 1 vectors of a window have an
          even number of truths, so it repeats after s + 1 steps: s copies and one sum
``and``   true only where all are; ``or``: where any is. Both soon come to rest
``nand``  false only where all are true: one false in every s + 1 steps, which remembers its own place alone
``nor``   true only where none is: the same, turned round
========  ===========================================================================================
"""
ADD = "add"
"""Arithmetic: vectors as numbers of d bits, the lowest first; ``x(t) = x(t−1) + … + x(t−s) mod 2^d``."""

NAMES = (*TASKS, *REAL, *LOGIC, ADD)
"""All systems that have a name."""


def named_system(name: str, size: int = 8, columns: int = 8) -> System:
    """The system of a name, or of a triple ``id1,id2,id3`` of :func:`wrnn_jax.theory.binding_operator`.

    Args:
      name: one of :data:`NAMES`, or three integers with commas between them.
      size: d.
      columns: s.

    Raises:
      InvalidValue: for another name, or sizes that the system does not have, with the reason.

    Source: Karuvally et al. 2024, section on history-dependent dynamical systems and experiments; the kinds of
    nonlinear f are those of the authors' public program.
    """
    require_integer("d", size, at_least=1)
    require_integer("s", columns, at_least=1)
    if name in LOGIC:
        return System(LOGIC[name], columns, size, is_binary=True, is_elementwise=True)
    if name == ADD:
        require(size <= WORD, "d", size, f"at most {WORD} for {name}, the bits of a number")
        return System(_add, columns, size, is_binary=True)
    if name in REAL:
        require(columns == size or name not in SQUARE, "s", columns, f"as many as the elements, d = {size}, for {name}")
        return linear_system(REAL[name](size, columns), is_binary=False)
    try:
        triple = TASKS.get(name) or tuple(int(number) for number in name.split(","))
    except ValueError:
        raise InvalidValue("task", name, f"one of {', '.join(NAMES)}, or three integers id1,id2,id3") from None
    try:
        return linear_system(binding_operator(triple, size, columns), is_binary=True)
    except InvalidValue as refused:
        raise InvalidValue("task", name, f"a triple with {refused.field} {refused.allowed}") from None


class Moments(NamedTuple):
    """What is known of a binary system's next vectors x(s), x(s+1), … before its s first ones are, and linearly of
    them, where these are random signs: for each step, the same for each element."""

    mean: np.ndarray
    """``E[x(s+t)]``, ``(H,)``. Who answers it remembers nothing; the error is ``1 − mean²``, and of signs the share
    ``(1 + |mean|) / 2`` is right."""
    linear: np.ndarray | None
    """``E[x(s+t) x(j)]``, ``(H, s)``: the weights of the best linear function of the s first vectors, whose error is
    ``1 − Σ_j linear_j²``; None where it is not known."""

    @property
    def linear_error(self) -> np.ndarray | None:
        """The least mean squared error that a linear network can have, ``(H,)``, without biases."""
        return None if self.linear is None else 1 - np.square(self.linear).sum(axis=-1)


def moments(system: System, horizon: int) -> Moments:
    """Of a binary system, over the steps of a horizon.

    Linear f of one component each, and sums modulo 2^d, have mean 0: as many numbers have a bit as have it not, since
    one of the s first vectors at least counts an odd number of times. Of logic all 2^s histories of an element are gone
    through (for s above 12, 4,096 that are drawn).
    """
    if not system.is_elementwise:
        return Moments(np.zeros(horizon), None)
    s = system.columns
    if s <= GONE_THROUGH:
        first = np.array(list(itertools.product([-1.0, 1.0], repeat=s)))
    else:
        first = np.random.default_rng(0).choice([-1.0, 1.0], size=(2**GONE_THROUGH, s))
    history, mean, linear = first[..., None], [], []
    for _ in range(horizon):
        newest = system.f(history)
        history = np.concatenate([history[:, 1:], newest[:, None]], axis=1)
        mean.append(newest.mean())
        linear.append((newest * first).mean(axis=0))
    return Moments(np.array(mean), np.array(linear))


def _add(history: Array) -> Array:
    places = jax.lax.broadcasted_iota(jnp.uint32, history.shape, history.ndim - 1)
    numbers = ((history > 0).astype(jnp.uint32) << places).sum(axis=-1, dtype=jnp.uint32)
    total = numbers.sum(axis=-1, keepdims=True, dtype=jnp.uint32)  # Modulo 2^32, of which 2^d is a divisor.
    bits = (total >> places[..., 0, :]) & jnp.ones_like(total)
    return 2 * bits.astype(history.dtype) - 1
