"""What ``unroll`` is given must fit the cell, whichever way it goes through time: checked before anything is computed.

The contract is the cell's own, read off its functions without computing anything:

=========  ==========================================================================================================
inputs     ``(*batch, T, D)``, or ``(T, *batch, D)`` time-major: real numbers or booleans, complex ones for a carry that
           has some; T ≥ 1; a batch may be empty
params     a pytree of the names and shapes of ``cell.init(key, D)``. Where that has floating-point numbers any real
           ones will do, and are computed with in the carry's dtype; what is whole, boolean, complex or a key stays so
carry      the pytree of ``cell.initial_carry(batch)``, in its shapes, all its floating-point arrays in one dtype, in
           which is computed. A checkpoint's form of it, a dict or list for a named tuple, is taken
starts     ``(*batch, T)``, or ``(T, *batch)`` time-major: booleans, in the axes of the inputs but D
start      what ``cell.start(params)`` gives is ``cell.initial_carry(())`` in structure, shapes and kinds of number
outputs    ``(*batch, F)`` a step
readout    what it makes of a step's y ``(*batch, F)``. One that is ``rowwise`` reads each row by itself, and may be
           given any batch of rows; others are given what a step gives (:class:`wrnn_jax.readouts.Readout`)
=========  ==========================================================================================================
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wrnn_jax.typing import Array, Carry, Params, Shape
from wrnn_jax.validation import InvalidValue, require

REMEMBERED = 256
"""Cells and shapes whose contract, or compiled loop, is kept."""


def fit_inputs(xs: Any, time_major: bool) -> tuple[Array, tuple[int, ...]]:
    """The inputs as an array, and the sizes of their batch axes.

    Raises:
      InvalidValue: for anything but numbers, or axes other than those above.
    """
    xs = _array("xs", xs)
    axes = "(T, *batch, D), as time_major" if time_major else "(*batch, T, D), or (T, *batch, D) if time_major"
    require(xs.ndim >= 2 + (not time_major), "xs.shape", xs.shape, axes)
    real = jnp.issubdtype(xs.dtype, jnp.number) or xs.dtype == bool
    require(real, "xs.dtype", str(xs.dtype), "one of numbers or booleans")
    steps = xs.shape[0 if time_major else -2]
    require(steps >= 1, "T", steps, "at least one time step")
    return xs, xs.shape[1:-1] if time_major else xs.shape[:-2]


def fit_starts(starts: Any, xs: Array, time_major: bool) -> Array:
    """Where sequences begin, as an array.

    Raises:
      InvalidValue: for anything but booleans, one for each step of each sequence of the inputs.
    """
    starts = _array("starts", starts)
    axes = "(T, *batch)" if time_major else "(*batch, T)"
    allowed = f"{xs.shape[:-1]}, {axes} of inputs {xs.shape}"
    require(starts.shape == xs.shape[:-1], "starts.shape", starts.shape, allowed)
    require(starts.dtype == bool, "starts.dtype", str(starts.dtype), "bool")
    return starts


def fit_params(cell: Any, params: Params, xs: Array) -> Params:
    """The parameters, whole numbers and booleans made floating where the cell's own are.

    Raises:
      InvalidValue: for inputs or parameters that do not fit each other or the cell: which array, and what fits.
    """
    size = xs.shape[-1]
    try:
        expected = _parameters(cell, size)
    except InvalidValue as error:
        if error.field != "input_size":
            raise  # An option of the cell that does not go with this D says so itself.
        raise InvalidValue("xs.shape", xs.shape, f"of D features, D being {error.allowed}") from None
    if expected is None:
        return params
    given, tree = jax.tree_util.tree_flatten_with_path(params)
    given = {_name(path): _array(_name(path, "params"), leaf) for path, leaf in given}
    if given.keys() != expected.keys():
        raise InvalidValue("params", sorted(given), f"what cell.init gives: {', '.join(expected) or 'nothing'}")
    wrong = [name for name, leaf in given.items() if leaf.shape != expected[name].shape]
    for meant in {size for name in wrong for size in given[name].shape} - {size, 0}:
        try:
            other = _parameters(cell, meant) or {}
        except InvalidValue:
            continue
        if {name: leaf.shape for name, leaf in other.items()} == {name: leaf.shape for name, leaf in given.items()}:
            raise InvalidValue("xs.shape", xs.shape, f"of D = {meant} features, as the parameters have it")
    for name in wrong:
        allowed = f"{expected[name].shape}, for inputs of D = {size}"
        raise InvalidValue(f"params.{name}.shape", given[name].shape, allowed)
    leaves = [_fit_number(f"params.{name}", leaf, expected[name].dtype) for name, leaf in given.items()]
    return jax.tree.unflatten(tree, leaves)


def first_carry(cell: Any, params: Params, batch_shape: Shape = (), dtype: Any = jnp.float32) -> Carry:
    """The carry before the first step, of any cell: what ``cell.start`` makes of the parameters, the same for every
    sequence of a batch, where the cell has a start; else ``cell.initial_carry``.

    Args:
      cell: the cell.
      params: what ``cell.init`` gave; gradients flow into them.
      batch_shape: the sizes of the batch axes.
      dtype: of the carry's floating-point arrays.

    Raises:
      InvalidValue: for a start of another structure, shape or kind of number than ``cell.initial_carry``: which array.
    """
    if cell.start is None:
        return cell.initial_carry(batch_shape, dtype)
    one = _carry(cell, (), dtype)
    start, tree = jax.tree_util.tree_flatten_with_path(_restructured("cell.start", cell.start(params), one))
    whole = jax.eval_shape(lambda: cell.initial_carry(batch_shape, dtype))
    leaves = []
    for (path, leaf), like, batched in zip(start, jax.tree.leaves(one), jax.tree.leaves(whole), strict=True):
        name = _name(path, "cell.start")
        require(leaf.shape == like.shape, f"{name}.shape", leaf.shape, f"{like.shape}, as cell.initial_carry has it")
        leaf = _fit_number(name, leaf, like.dtype)
        # A copy, for a caller may donate it.
        leaves.append(jnp.array(jnp.broadcast_to(leaf, batched.shape), like.dtype))
    return jax.tree.unflatten(tree, leaves)


def fit_carry(cell: Any, params: Params, carry: Carry | None, batch: Shape, xs: Array) -> Carry:
    """The carry before the first step; :func:`first_carry` in the dtype of the inputs if none is given.

    Raises:
      InvalidValue: for another structure, shape or kind of number than the cell's own: which array, and what fits; for
        complex inputs of a cell whose carry is real, which would take their real parts without a word.
    """
    default = _default_dtype(xs)
    if carry is None:
        carry = first_carry(cell, params, tuple(batch), default)
    else:
        carry = _fit_given_carry(carry, _carry(cell, tuple(batch), default), xs.shape, default)
    is_complex = any(jnp.issubdtype(leaf.dtype, jnp.complexfloating) for leaf in jax.tree.leaves(carry))
    fits = is_complex or not jnp.issubdtype(xs.dtype, jnp.complexfloating)
    require(fits, "xs.dtype", str(xs.dtype), "one of real numbers, as the carry's")
    return carry


def first_carry_as(cell: Any, params: Params, carry: Carry, batch: Shape, xs: Array) -> Carry:
    """:func:`first_carry` in the dtype of ``carry``, one that fits the cell."""
    default = _default_dtype(xs)
    expected = jax.tree.leaves(_carry(cell, tuple(batch), default))
    dtypes = [leaf.dtype for leaf, like in zip(jax.tree.leaves(carry), expected, strict=True) if like.dtype == default]
    first = first_carry(cell, params, tuple(batch), dtypes[0] if dtypes else default)
    return jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), first, carry)


def _default_dtype(xs: Array) -> Any:
    """Of the carry, if none is given."""
    return xs.dtype if jnp.issubdtype(xs.dtype, jnp.floating) else jnp.dtype(jnp.float32)


def _fit_given_carry(carry: Carry, expected: Carry, inputs: Shape, default: Any) -> Carry:
    carry = _restructured("carry", carry, expected)
    leaves, tree = jax.tree_util.tree_flatten_with_path(carry)
    leaves = {_name(path, "carry"): leaf for path, leaf in leaves}
    first = None
    for (name, leaf), like in zip(leaves.items(), jax.tree.leaves(expected), strict=True):
        require(leaf.shape == like.shape, f"{name}.shape", leaf.shape, f"{like.shape}, for inputs {inputs}")
        kind = _kind(like.dtype)
        require(jnp.issubdtype(leaf.dtype, kind), f"{name}.dtype", str(leaf.dtype), f"a {kind.__name__} one")
        if kind is jnp.floating and like.dtype == default:
            first = first or leaf.dtype
            require(leaf.dtype == first, f"{name}.dtype", str(leaf.dtype), f"{first}, as the rest of the carry")
    return jax.tree.unflatten(tree, leaves.values())


def _name(path: tuple, root: str = "") -> str:
    return ".".join(filter(None, (root, jax.tree_util.keystr(path, simple=True, separator="."))))


def _array(name: str, value: Any) -> Array:
    """As a JAX array, numbers in the dtype that JAX has for them."""
    if isinstance(value, jax.Array):
        return value
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        raise InvalidValue(name, _describe(value), "an array of numbers") from None


def _describe(value: Any) -> str:
    """In a few words, whatever it is."""
    match value:
        case jax.Array():
            return f"an array {value.shape}"
        case Mapping():
            return f"a {type(value).__name__} of {', '.join(map(str, value)) or 'nothing'}"
        case tuple() | list():
            return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _kind(dtype: Any) -> Any:
    """The kind of number that will do where a cell has ``dtype``."""
    kinds = (jnp.floating, jnp.complexfloating, jnp.integer, np.bool_, jax.dtypes.prng_key)
    return next((kind for kind in kinds if jnp.issubdtype(dtype, kind)), np.generic)


def _fit_number(name: str, leaf: Array, dtype: Any) -> Array:
    kind = _kind(dtype)
    if kind is jnp.floating and (jnp.issubdtype(leaf.dtype, jnp.integer) or leaf.dtype == bool):
        return leaf.astype(dtype)
    require(jnp.issubdtype(leaf.dtype, kind), f"{name}.dtype", str(leaf.dtype), f"a {kind.__name__} one")
    return leaf


def _restructured(name: str, value: Any, like: Any) -> Any:
    """``value`` in the structure of ``like``, of arrays: lists, and dicts of names or places, stand for tuples."""
    if jax.tree.structure(like) == jax.tree.structure(0):
        require(jax.tree.structure(value) == jax.tree.structure(0), name, _describe(value), "an array")
        return _array(name, value)
    if not isinstance(like, tuple | list | dict):
        fits = jax.tree.structure(value) == jax.tree.structure(like)
        require(fits, name, _describe(value), f"a {type(like).__name__}, as cell.initial_carry gives it")
        return jax.tree.map(lambda leaf: _array(name, leaf), value)
    parts = like if isinstance(like, dict) else dict(enumerate(like))
    names = getattr(like, "_fields", tuple(parts))
    allowed = f"of {', '.join(map(str, names))}, as cell.initial_carry gives it"
    if isinstance(value, Mapping):
        given = {str(key): part for key, part in value.items()}
    else:
        require(isinstance(value, tuple | list), name, _describe(value), allowed)
        given = dict(zip(getattr(value, "_fields", map(str, range(len(value)))), value, strict=True))
    by_place = given.keys() == {str(place) for place in range(len(names))}
    require(by_place or given.keys() == set(map(str, names)), name, _describe(value), allowed)
    keys = map(str, range(len(names)) if by_place else names)
    made = [
        _restructured(f"{name}.{key}", given[str(at)], parts[part])
        for key, at, part in zip(names, keys, parts, strict=True)
    ]
    if isinstance(like, dict):
        return dict(zip(names, made, strict=True))
    return type(like)(*made) if hasattr(like, "_fields") else type(like)(made)


def _parameters(cell: Any, size: int) -> Mapping[str, jax.ShapeDtypeStruct] | None:
    """Names, shapes and dtypes of the parameters for inputs of D = ``size``; None where a cell of one's own makes them
    by what cannot be traced: the step alone then says whether they fit."""
    read = _read_parameters if cell.pure else _read_parameters.__wrapped__
    try:
        return read(cell.init, size)
    except InvalidValue:
        raise
    except Exception:
        return None


@lru_cache(REMEMBERED)
def _read_parameters(init: Any, size: int) -> Mapping[str, jax.ShapeDtypeStruct]:
    key = jax.eval_shape(jax.random.key, 0)
    leaves, _ = jax.tree_util.tree_flatten_with_path(jax.eval_shape(lambda key: init(key, size), key))
    return {_name(path): leaf for path, leaf in leaves}


def _carry(cell: Any, batch: Shape, dtype: Any) -> Carry:
    read = _read_carry if cell.pure else _read_carry.__wrapped__
    return read(cell.initial_carry, batch, dtype)


@lru_cache(REMEMBERED)
def _read_carry(initial_carry: Any, batch: Shape, dtype: Any) -> Carry:
    return jax.eval_shape(lambda: initial_carry(batch, dtype))
