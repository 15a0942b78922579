"""The linear functions of the past that a system repeats: the tasks of variable binding, as matrices.

An operator f is a float64 array ``(d, s·d)`` on the flattened substrate: component k is element ``k mod d`` of the
``⌊k / d⌋``-th oldest of s columns of d neurons, so the oldest, H_1, comes first and the newest, H_s, last::

    x(t) = f · [x(t − s), …, x(t − 2), x(t − 1)]
"""

from collections.abc import Mapping, Sequence
from numbers import Integral

import numpy as np

from wrnn_jax.validation import require, require_integer

TASKS: Mapping[str, tuple[int, int, int]] = {
    "T1": (255, 0, 0),
    "T2": (9241421688590303745, 0, 0),
    "T3": (9241421688590303745, 262676, 189),
    "T4": (9241421688590303745, 38637, 145),
}
"""The published tasks, triples of :func:`binding_operator` for d = s = 8: T1 is repeat copy, T2 compose copy, T3 and T4
also permute T2's outputs and turn signs. Source: Karuvally et al. 2024, experiments on variable binding."""


def binding_operator(triple: Sequence[int], size: int = 8, columns: int = 8) -> np.ndarray:
    """The operator f ``(d, s·d)`` of variable binding that a triple (id1, id2, id3) encodes::

        f[i, source_i] = sign_i,  i = 0 … d − 1,  else 0

    Args:
      triple: whole numbers, 0 or more, each read from its lowest digit:

        * id1: its set bits, d of the s·d, are the components that are used, in rising order: source_0 … source_{d−1};
        * id2: its digits in base d permute them: for j = 0, 1, …, digit j, below d − j, swaps source_j with
          source_{j + digit j};
        * id3: sign_i is −1 where bit i is set, else 1.
      size: d.
      columns: s.

    Raises:
      InvalidValue: for sizes below 1, or a triple that encodes no operator, with the reason.

    Source: Karuvally et al. 2024, experiments on variable binding; the code of a task is that of its authors' program.
    """
    require_integer("size", size, at_least=1)
    require_integer("columns", columns, at_least=1)
    id1, id2, id3 = _whole_numbers(triple)
    sources = _chosen(id1, size, columns)
    for j, digit in enumerate(_digits(id2, size)):
        sources[j], sources[j + digit] = sources[j + digit], sources[j]
    require(id3 >> size == 0, "id3", id3, f"below 2^{size}: a bit for each of {size} outputs")
    operator = np.zeros((size, columns * size))
    operator[range(size), sources] = [-1.0 if id3 >> i & 1 else 1.0 for i in range(size)]
    return operator


def fibonacci_operator(size: int, columns: int) -> np.ndarray:
    """The generalised Fibonacci series, ``x(t) = x(t − 1) + … + x(t − s)``: f = [I … I] ``(d, s·d)``.

    With two columns or more it grows without bound, the faster the more there are, towards doubling at every step.

    Source: Karuvally et al. 2024, section on history-dependent dynamical systems.
    """
    require_integer("size", size, at_least=1)
    require_integer("columns", columns, at_least=1)
    return np.tile(np.eye(size), columns)


def compose_copy_operator(size: int) -> np.ndarray:
    """Compose copy: output i is element i of the i-th oldest of s = d columns, ``x_i(t) = x_i(t − d + i)``, i from 0.

    f ``(d, d·d)``; for d = 8 it equals ``binding_operator(TASKS["T2"])``.

    Source: Karuvally et al. 2024, experiments on variable binding.
    """
    require_integer("size", size, at_least=1)
    return copy_operator(range(size), range(size), size)


def copy_operator(columns_read: Sequence[int], elements_read: Sequence[int], columns: int) -> np.ndarray:
    """A copy composed of the s columns, ``x_i(t) = x_e(t − s + c)`` for column c and element e of each output i.

    Args:
      columns_read: c of each of the d outputs, from 0, the oldest.
      elements_read: e of each, from 0.
      columns: s.

    Returns:
      f ``(d, s·d)``.

    Raises:
      InvalidValue: for a column or element that there is not.
    """
    require_integer("columns", columns, at_least=1)
    size = len(columns_read)
    chosen = {"columns_read": (columns_read, columns), "elements_read": (elements_read, size)}
    for field, (indices, count) in chosen.items():
        fits = len(indices) == size > 0 and all(0 <= index < count for index in indices)
        require(fits, field, list(indices), f"a number from 0 to {count - 1} for each output")
    operator = np.zeros((size, columns * size))
    operator[range(size), [c * size + e for c, e in zip(columns_read, elements_read, strict=True)]] = 1.0
    return operator


def operator_shape(operator: np.ndarray) -> tuple[int, int]:
    """(d, s·d), once the operator has such a shape."""
    shape = np.shape(operator)
    fits = len(shape) == 2 and min(shape) > 0 and shape[1] % shape[0] == 0
    require(fits, "operator.shape", shape, "(d, s·d): a row for each of d outputs, a column for each of s·d components")
    return shape


def _whole_numbers(triple: Sequence[int]) -> list[int]:
    parts = list(triple) if isinstance(triple, Sequence | np.ndarray) and not isinstance(triple, str) else []
    whole = all(isinstance(part, Integral) and not isinstance(part, bool) and part >= 0 for part in parts)
    require(len(parts) == 3 and whole, "triple", triple, "three whole numbers (id1, id2, id3), 0 or more")
    return [int(part) for part in parts]


def _chosen(id1: int, size: int, columns: int) -> list[int]:
    """The set bits of id1, lowest first."""
    components = columns * size
    require(id1 >> components == 0, "id1", id1, f"below 2^{components}: a bit for each of {columns}·{size} components")
    chosen = [k for k in range(components) if id1 >> k & 1]
    count = f"a number with exactly {size} bits set, one for each output (it has {len(chosen)})"
    require(len(chosen) == size, "id1", id1, count)
    return chosen


def _digits(id2: int, base: int) -> list[int]:
    """The digits of id2, lowest first, as many as the base."""
    require(id2 < base**base, "id2", id2, f"below {base}^{base}: {base} digits in base {base}")
    digits = [id2 // base**j % base for j in range(base)]
    for j, digit in enumerate(digits):
        allowed = f"a number whose digit {j} in base {base} is below {base} − {j} = {base - j} (it is {digit})"
        require(digit < base - j, "id2", id2, allowed)
    return digits
