"""A fast function in place of the plain one that defines it, under every transformation that the plain one allows."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from wrnn_jax.kernels.transforms import zeros_varying_as
from wrnn_jax.typing import Array

Flat = Callable[..., Sequence[Array]]
"""Arrays -> a list of arrays."""


def stand_in(fast: Callable, plain: Callable, *, portable: bool) -> Callable:
    """The function that is ``plain``, computed as ``fast``: both of the same pytrees, and pure, which closed over
    arrays that are differentiated they would not be.

    =============================================  =====================================================
    value; reverse mode                            ``fast``, which must have a ``vjp``
    forward mode, derivatives of derivatives       ``plain``
    ``vmap``                                       of either
    another platform than a CPU, ``jax.export``    ``plain``, unless ``fast`` is ``portable``
    =============================================  =====================================================
    """

    def function(*args):
        program, shapes = _traced(fast, *args)
        leaves, tree = jax.tree.flatten(args)

        def flat(f):
            return lambda *leaves: jax.tree.leaves(f(*jax.tree.unflatten(tree, leaves)))

        way = _Way(flat(fast), flat(plain), portable, has_vjp=True)
        return jax.tree.unflatten(jax.tree.structure(shapes), _operation.bind(*leaves, program=program, way=way))

    return function


class _Way(NamedTuple):
    """How an operation is computed, and differentiated."""

    fast: Flat
    plain: Flat
    """The same, of plain JAX: for forward mode, other platforms and export."""
    portable: bool
    """Whether there is ``fast`` on every platform, and in what is exported."""
    has_vjp: bool = False
    """Whether ``fast`` can be pulled back; else derivatives are those of ``plain``."""
    linear: int = 0
    """In how many of the last operands the operation is linear."""
    transpose: Callable[[], "_Way"] | None = None
    """If it is: the operation of the same other operands and of cotangents that is its transpose."""

    def over(self, axes: Sequence[int | None]) -> "_Way":
        """For a batch of operands; results, and operands in which it is linear, have the batch first."""

        def transpose():
            turned = self.transpose()
            return turned.over((*axes[: -self.linear], *[0] * turned.linear))

        return self._replace(
            fast=jax.vmap(self.fast, axes, 0),
            plain=jax.vmap(self.plain, axes, 0),
            transpose=self.transpose and transpose,
        )


def _traced(f: Callable, *args) -> tuple[ClosedJaxpr, Any]:
    return jax.make_jaxpr(f, return_shape=True)(*args)


def _bind(way: _Way, *operands: Array) -> list[Array]:
    program, _ = _traced(way.fast, *operands)
    return _operation.bind(*operands, program=program, way=way)


_operation = Primitive("stand_in")
_operation.multiple_results = True
_operation.def_impl(lambda *operands, program, way: jaxpr_as_fun(program)(*operands))  # without jit
_operation.def_abstract_eval(lambda *operands, program, way: program.out_avals)


def _differentiate(primals, tangents, *, program, way):
    """Of a fast forward pass, what it stores is made beside its results, and read by the transpose of the tangents'
    operation; else as ``plain`` is differentiated."""
    moving = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, ad.Zero)]
    tangents = [tangents[i] for i in moving]
    operands, results = len(primals), len(program.out_avals)

    def along(f, leaves):
        """f of those that move, and these."""
        rest = list(leaves)

        def of_moving(*moved):
            for i, leaf in zip(moving, moved, strict=True):
                rest[i] = leaf
            return f(*rest)

        return of_moving, [leaves[i] for i in moving]

    def push(*leaves):
        f, moved = along(way.plain, leaves[:operands])
        return jax.jvp(f, moved, list(leaves[-len(moved) :]))[1]

    if not way.has_vjp:
        return _operation.bind(*primals, program=program, way=way), [_zero_or(t) for t in push(*primals, *tangents)]

    def forward(*leaves):
        # Not ``program``: the custom derivatives in it remember one forward pass, the latest that was traced.
        f, moved = along(way.fast, leaves)
        return jax.vjp(f, *moved)

    storing, (_, pull_back) = _traced(forward, *primals)
    stored, structure = jax.tree.flatten(pull_back)

    def plain_forward(*leaves):
        return *way.plain(*leaves), *[zeros_varying_as(leaves[0], leaf.shape, leaf.dtype) for leaf in stored]

    def pull(*leaves):
        pull_back = jax.tree.unflatten(structure, leaves[operands:-results])
        return pull_back(list(leaves[-results:]))

    def plain_pull(*leaves):
        f, moved = along(way.plain, leaves[:operands])
        _, pull_back = jax.vjp(lambda *moved: list(f(*moved)), *moved)
        return pull_back(list(leaves[-results:]))

    def pushing():
        return _Way(push, push, True, linear=len(moving), transpose=pulling)

    def pulling():
        return _Way(pull, plain_pull, way.portable, linear=results, transpose=pushing)

    store = _Way(lambda *leaves: jax.tree.leaves(forward(*leaves)), plain_forward, way.portable)
    outs = _operation.bind(*primals, program=storing, way=store)
    outs, stored_values = outs[:results], outs[results:]
    return outs, _bind(pushing(), *primals, *stored_values, *tangents)


def _zero_or(tangent: Array) -> Array | ad.Zero:
    """Integers have none."""
    return ad.Zero(jax.typeof(tangent)) if tangent.dtype == jax.dtypes.float0 else tangent


def _turn(cotangents, *operands, program, way):
    """The transpose in the last operands; what comes in as their number is no variable, and gets nothing."""
    known, linear = operands[: -way.linear], operands[-way.linear :]
    outs = _bind(way.transpose(), *known, *map(ad.instantiate_zeros, cotangents))
    return *[None] * len(known), *[
        out if ad.is_undefined_primal(x) else None for out, x in zip(outs, linear, strict=True)
    ]


def _batch(operands, axes, *, program, way):
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    first_linear = len(operands) - way.linear
    operands, axes = list(operands), list(axes)
    for i in range(first_linear, len(operands)):
        operands[i], axes[i] = batching.bdim_at_front(operands[i], axes[i], size), 0
    outs = _bind(way.over(tuple(axes)), *operands)
    return outs, [0] * len(outs)


def _lower(context, *operands, program, way, here=False):
    exported = getattr(context.module_context.lowering_parameters, "for_export", False)
    fast = way.portable or (here and not exported)
    return mlir.lower_fun(jaxpr_as_fun(program) if fast else way.plain, multiple_results=True)(context, *operands)


def _lower_on_cpu(context, *operands, **params):
    return _lower(context, *operands, **params, here=True)


ad.primitive_jvps[_operation] = _differentiate
ad.primitive_transposes[_operation] = _turn
batching.primitive_batchers[_operation] = _batch
mlir.register_lowering(_operation, _lower)
mlir.register_lowering(_operation, _lower_on_cpu, platform="cpu")
