"""What the unrolls need to know of JAX's transformations: which operands are differentiated, and what varies over
which devices."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal
from jax.sharding import AxisType, NamedSharding, reshard

from wrnn_jax.typing import Array


def split_perturbed(names: Sequence[str], operands: Sequence[Any]) -> tuple[dict[str, None], Sequence[Any]]:
    """For the forward rule of a ``custom_vjp`` with ``symbolic_zeros``: the names of those operands whose cotangents
    anyone asks for, and the operands' values.

    The names are a dictionary's keys, which are static: as such they carry to the backward rule.
    """
    wanted = {
        name: None
        for name, operand in zip(names, operands, strict=True)
        if any(leaf.perturbed for leaf in jax.tree.leaves(operand, is_leaf=_is_primal))
    }
    return wanted, jax.tree.map(lambda leaf: leaf.value, operands, is_leaf=_is_primal)


def _is_primal(leaf: Any) -> bool:
    return isinstance(leaf, CustomVJPPrimal)


def zeros_varying_as(like: Array, shape: Sequence[int], dtype: Any) -> Array:
    """Zeros that vary over the same axes of ``shard_map`` as ``like`` does: the carry of a loop must."""
    return jnp.zeros_like(like, dtype=dtype, shape=shape)


def varying_alike(tree: Any, like: Any = ()) -> Any:
    """Let every leaf vary over those axes of ``shard_map`` that any of them, or any leaf of ``like``, varies over."""
    numbers = [leaf for leaf in jax.tree.leaves((tree, like)) if _is_number(leaf)]
    zero = sum(zeros_varying_as(leaf, (), jnp.float32) for leaf in numbers)

    def widen(leaf: Array) -> Array:
        wide = leaf + zero.astype(leaf.dtype) if _is_number(leaf) else leaf
        return leaf if jax.typeof(wide) == jax.typeof(leaf) else wide

    return jax.tree.map(widen, tree)


def is_in_explicit_mesh(tree: Any) -> bool:
    """Whether it is part of any leaf's type how it lies on a mesh (``AxisType.Explicit``)."""
    return any(AxisType.Explicit in jax.typeof(leaf).sharding.mesh.axis_types for leaf in jax.tree.leaves(tree))


def lie_as(tree: Any, batch: Array) -> Any:
    """On a mesh of explicit axes, let the first axes of every leaf lie as those of ``batch``, where they are those."""
    lying = jax.typeof(batch).sharding

    def lie(leaf: Array) -> Array:
        same = leaf.shape[: batch.ndim] == batch.shape
        return reshard(leaf, NamedSharding(lying.mesh, lying.spec)) if same else leaf

    return jax.tree.map(lie, tree)


def _is_number(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.number)
