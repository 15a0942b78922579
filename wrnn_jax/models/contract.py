"""Whether a model is one that training can take: by shapes alone, before anything is computed.

The models of this package are taken at their word, which their tests keep; one that is named ``package.module:name`` is
looked at when it is built, and an error that its code raises is told in one line.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from wrnn_jax.layers import Stream, Training, Variables
from wrnn_jax.models.base import Model, ModelConfig
from wrnn_jax.typing import Array, Key, Signature
from wrnn_jax.validation import InvalidValue, require

BATCH = 2
"""Sequences that are enough to tell the axis of the batch from one that is left out, and have a variance."""


def built(config: ModelConfig, signature: Signature, batch: int = BATCH) -> Model:
    """The model of a config, to be trained with such a batch.

    Raises:
      InvalidValue: for a signature or a batch that the model cannot have; of a model elsewhere, as
        :func:`require_fit`.
    """
    model = _build(config, signature)
    if ":" in config.model:
        require_fit(config.model, model, signature)
    variables = _init(config.model, model)
    if jax.tree.leaves(variables.stats):  # A batch of one sequence may have none.
        jax.eval_shape(_train(model), variables, _inputs(signature, batch), _key())
    return model


def initial(config: ModelConfig, signature: Signature) -> Variables:
    """The shapes of a model's arrays.

    Raises:
      InvalidValue: for a signature that the model cannot have; of a model elsewhere, as :func:`require_fit`.
    """
    return _init(config.model, _build(config, signature))


def require_fit(name: str, model: Model, signature: Signature) -> None:
    """Every function of the model takes and gives what :class:`wrnn_jax.models.base.Model` lists, in evaluation and in
    training. They are traced, and nothing is computed.

    Raises:
      InvalidValue: of field ``model`` and value ``name``: for what does not fit, and for any error that they raise.
    """
    xs = _inputs(signature, BATCH)
    params, stats = variables = _init(name, model)

    def fits(condition: bool, what: str, found: Any) -> None:
        require(condition, "model", name, f"one whose {what}, not {_describe(found)}")

    fits(bool(jax.tree.leaves(params)), "params are arrays to be trained", params)
    for place, leaf in jax.tree_util.tree_leaves_with_path(params):
        fits(_is_floating(leaf), f"params{jax.tree_util.keystr(place)} is of floating-point numbers", leaf)
    shape = (*xs.shape[:2], signature.outputs) if signature.read == "all" else (BATCH, signature.outputs)
    for call, function, given in (
        ("apply(variables, xs)", model.apply, (variables, xs)),
        ("apply(variables, xs, training)", _train(model), (variables, xs, _key())),
    ):
        result = _trace(name, call, function, *given)
        fits(isinstance(result, tuple) and len(result) == 2, f"{call} gives (outputs, stats)", result)
        outputs, after = result
        right = _is_floating(outputs) and outputs.shape == shape
        fits(right, f"{call} gives outputs {shape} of floating-point numbers for xs {xs.shape}", outputs)
        fits(_are_alike(after, stats), f"{call} gives stats as init does, {_describe(stats)}", after)
    if model.hidden:
        states = _trace(name, "hidden(variables, xs)", model.hidden, variables, xs)
        what = f"hidden(variables, xs) gives {{name: states ({BATCH}, T, C, N)}}"
        fits(isinstance(states, Mapping) and len(states) > 0, what, states)
        for key, array in states.items():
            right = isinstance(key, str) and _is_floating(array) and array.ndim == 4 and array.shape[0] == BATCH
            fits(right, what, states)
    if model.stream is not None:
        _require_stream(name, model, variables, signature, fits)
    if model.constrain:
        constrained = _trace(name, "constrain(params)", model.constrain, params)
        fits(_are_alike(constrained, params), f"constrain(params) gives {_describe(params)}", constrained)
    for call, function in (("rates(params)", model.rates), ("decays(params)", model.decays)):
        if function:
            found = _trace(name, call, function, params)
            fits(_is_prefix(found, params), f"{call} gives a number for each of params, or for parts of them", found)


def _require_stream(
    name: str, model: Model, variables: Variables, signature: Signature, fits: Callable[[bool, str, Any], None]
) -> None:
    """Part by part, of one step and of more, with a carry that stays as it is."""
    fits(isinstance(model.stream, Stream), "stream is a Stream(start, run)", model.stream)
    call = "stream.start(variables, sequences)"
    carry = _trace(name, call, lambda variables: model.stream.start(variables, BATCH), variables)
    of_batch = all(leaf.shape[:1] == (BATCH,) for leaf in jax.tree.leaves(carry))
    fits(of_batch, f"{call} gives arrays ({BATCH}, …)", carry)
    call = "stream.run(variables, carry, xs)"
    for steps in (1, signature.length):
        xs = _inputs(signature._replace(length=steps), BATCH)
        result = _trace(name, call, model.stream.run, variables, carry, xs)
        fits(isinstance(result, tuple) and len(result) == 2, f"{call} gives (carry, outputs)", result)
        after, outputs = result
        fits(_are_alike(after, carry), f"{call} gives a carry as start does, {_describe(carry)}", after)
        shape = (BATCH, steps, signature.outputs)
        right = _is_floating(outputs) and outputs.shape == shape
        fits(right, f"{call} gives outputs {shape} of floating-point numbers for xs {xs.shape}", outputs)


@contextlib.contextmanager
def in_one_line(name: str, what: str, refusals: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """An error that the code of a model elsewhere raises becomes the ``InvalidValue`` of that model; ``what`` is its
    part. One of ``refusals`` stays as it is; so does one of this package, where it is a mistake."""
    try:
        yield
    except refusals:
        raise
    except Exception as error:  # It may raise anything.
        if ":" not in name:
            raise
        words = [type(error).__name__, *str(error).strip().splitlines()[:1]]
        raise InvalidValue("model", name, f"one whose {what} runs: it raises {': '.join(words)}") from error


def _build(config: ModelConfig, signature: Signature) -> Model:
    with in_one_line(config.model, "build(signature)", refusals=InvalidValue):
        model = config.build(signature)
    allowed = f"one whose build(signature) gives a Model, not {_describe(model)}"
    require(isinstance(model, Model), "model", config.model, allowed)
    return model


def _init(name: str, model: Model) -> Variables:
    variables = _trace(name, "init(key)", model.init, _key())
    allowed = f"one whose init(key) gives Variables(params, stats), not {_describe(variables)}"
    require(isinstance(variables, Variables), "model", name, allowed)
    return variables


def _trace(name: str, what: str, function: Callable[..., Any], *given: Any) -> Any:
    with in_one_line(name, what):
        return jax.eval_shape(function, *given)


def _train(model: Model) -> Callable[..., Any]:
    def train(variables: Variables, xs: Array, key: Key) -> Any:
        return model.apply(variables, xs, Training(key))

    return train


def _key() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(jax.random.key, 0)


def _inputs(signature: Signature, batch: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((batch, signature.length, signature.inputs), jnp.float32)


def _is_floating(leaf: Any) -> bool:
    """Whether it is one array of real floating-point numbers."""
    return isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _are_alike(tree: Any, other: Any) -> bool:
    """The same structure, shapes and dtypes."""
    trees = (tree, other)
    leaves, others = ([(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in trees)
    return jax.tree.structure(tree) == jax.tree.structure(other) and leaves == others


def _is_prefix(tree: Any, full: Any) -> bool:
    """Whether there is a number, or an array of its shape, for each leaf of ``full`` or for whole parts of it."""
    try:
        spread = jax.tree.leaves(jax.tree.broadcast(tree, full))
    except ValueError:
        return False
    return all(leaf.shape in ((), of.shape) for leaf, of in zip(spread, jax.tree.leaves(full), strict=True))


def _describe(tree: Any) -> str:
    """An array by dtype and shape; a tree by its type and its arrays."""
    if isinstance(tree, jax.ShapeDtypeStruct):
        return f"{tree.dtype} {tree.shape}"
    if tree is None:
        return "None"
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    arrays = [f"{jax.tree_util.keystr(path)} {_describe(leaf)}" for path, leaf in leaves if leaf is not tree]
    return f"a {type(tree).__name__}{' of ' if arrays else ''}{', '.join(arrays)}"
