"""What a program needs while it runs, estimated from its operations: nothing is compiled."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var, jaxprs_in_params

RELAID = frozenset({"dot_general", "fft", "conv_general_dilated"})
"""Operations whose operands XLA mostly copies first, into another order of their axes."""


def size(tree: Any) -> int:
    """Bytes of a pytree of arrays or of ``jax.ShapeDtypeStruct``."""
    return sum(map(_bytes, jax.tree.leaves(tree)))


def working_bytes(function: Callable[..., Any], *args: Any) -> int:
    """Estimate of what ``function(*args)`` allocates on a device beside its arguments: its results, and what it holds
    meanwhile. Nothing is compiled or computed.

    The function is traced and its operations gone through in order: a value takes memory from the operation that makes
    it to the last one that reads it. Of a step of training nearly all is what the backward pass needs of the forward
    one, such as the states of all time steps that ``lax.scan`` stacks.

    It stands for :func:`compiled_bytes` without the arguments. Seen on a CPU, for training and evaluation of the models
    and tasks here, of one member or 4 or 16 of a grid:

    ========  ============================================================
    scan      0.9 to 1.1 times as much (evaluation, of little: 0.8 to 1.5)
    fused     0.8 to 1.3
    native    0.9 to 1.4
    parallel  0.7 to 1.0: XLA copies much around its FFTs
    ========  ============================================================

    Too low it is by what XLA adds of its own: copies into other layouts, only in part counted; scratch of libraries on
    GPUs; on TPUs padding, there of the last two axes to multiples of 8 and 128. Too high by values that need not be
    stored, where XLA fuses elementwise operations.

    Args:
      function: anything that can be jitted. Arrays that it closes over are not counted. Where it contains a
        ``shard_map``, what is outside that counts as if it were whole on each device.
      *args: pytrees of arrays or of ``jax.ShapeDtypeStruct``.
    """
    return _peak(jax.make_jaxpr(function)(*args).jaxpr, own=())


def _peak(jaxpr: Jaxpr, own: Sequence[bool]) -> int:
    """The most bytes alive at any time of what the equations make, one after another.

    Args:
      jaxpr: the program.
      own: which of its inputs are the program's own, freed after their last use: they count, the caller's do not.
    """
    last_use = {var: i for i, eqn in enumerate(jaxpr.eqns) for var in _variables(eqn.invars)}
    last_use |= dict.fromkeys(_variables(jaxpr.outvars), len(jaxpr.eqns))
    alive = {var for var, is_own in zip(jaxpr.invars, own, strict=False) if is_own}
    peak = live = _bytes_of(alive)
    for i, eqn in enumerate(jaxpr.eqns):
        dying = {var for var in _variables(eqn.invars) if var in alive and last_use[var] == i}
        made = {var for var in eqn.outvars if var in last_use}
        peak = max(peak, live + _needs(eqn, dying))
        live += _bytes_of(made) - _bytes_of(dying)
        alive = (alive | made) - dying
    return peak


def _needs(eqn: JaxprEqn, dying: set[Var]) -> int:
    """Bytes that an equation takes beside those alive, of which it is the last to read ``dying``."""
    # What is like an operand that is not needed any more is written over it.
    made, free = (Counter((var.aval.shape, var.aval.dtype) for var in variables) for variables in (eqn.outvars, dying))
    needs = sum(count * math.prod(shape) * dtype.itemsize for (shape, dtype), count in (made - free).items())
    if eqn.primitive.name in RELAID:
        needs += _bytes_of(_variables(eqn.invars))
    return max(needs, *(_needs_inside(eqn, body, dying) for body in jaxprs_in_params(eqn.params)), 0)


def _needs_inside(eqn: JaxprEqn, body: Jaxpr, dying: set[Var]) -> int:
    """The same of a call or a loop, whose program is ``body``."""
    if len(body.outvars) != len(eqn.outvars):
        return 0  # The condition of a loop.
    inputs = len(body.invars)
    operands = eqn.invars[max(0, len(eqn.invars) - inputs) :]
    if eqn.primitive.name not in ("scan", "while"):
        own = [not isinstance(atom, Literal) and atom in dying for atom in operands]
        return _peak(body, own) - _bytes_of(dying & set(_variables(operands)))
    # Into a loop go constants, the carry, and slices; out of it come the carry, and slices that are stacked. Which is
    # which is told by the shapes, as JAX's versions say it in parameters of different names.
    stacked = [out for out, y in zip(eqn.outvars, body.outvars, strict=True) if out.aval.shape != y.aval.shape]
    slices = sum(atom.aval.shape != x.aval.shape for atom, x in zip(operands, body.invars, strict=True))
    constants = inputs - slices - (len(eqn.outvars) - len(stacked))
    own = [i >= constants for i in range(inputs)]
    carry = dying & set(_variables(operands[constants : inputs - slices]))
    return _bytes_of(stacked) + _peak(body, own) - _bytes_of(carry)


def _variables(atoms: Iterable[Var | Literal]) -> list[Var]:
    return [atom for atom in atoms if not isinstance(atom, Literal)]


def _bytes_of(variables: Iterable[Var]) -> int:
    return sum(_bytes(var.aval) for var in variables)


def _bytes(array: Any) -> int:
    """Of anything with a shape and a dtype."""
    return math.prod(array.shape) * array.dtype.itemsize
