"""What holds for every model that ``--model`` names. A new one is taken up as soon as it is in ``MODELS``."""

import dataclasses
import inspect
import json
import re
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models_page import MODEL, write_model

from experiments.flags import _sayings
from wrnn_jax import cells
from wrnn_jax.layers import Training, Variables
from wrnn_jax.models import MODELS, Model, ModelConfig, configure, count_parameters, entry
from wrnn_jax.models.contract import require_fit
from wrnn_jax.tasks import CopyConfig, copy_task
from wrnn_jax.training.loop import make_trainer
from wrnn_jax.training.optimizer import make_hparams
from wrnn_jax.typing import Signature
from wrnn_jax.validation import InvalidValue

pytestmark = pytest.mark.usefixtures("standard_promotion")

SIZES = {"n_hid": 4, "n_ch": 2}
"""Of fields that are sizes, where a model has them."""
WHOLE = {"delay-line"}
"""Models that have one answer for a whole sequence alone; see their own tests."""
LETTERS = {"N": "n_hid", "C": "n_ch", "K": "ksize", "s": "n_hid"}
"""The fields that a formula's letters stand for."""
VARIANTS = {
    "wrnn, deep": ("wrnn", {"n_layers": 2, "norm": "batch-time", "residual": True, "dropout": 0.1}),
    "wrnn, low rank": ("wrnn", {"encoder": "low-rank", "encoder_rank": 2, "act": "identity"}),
    "lstm, deep": ("lstm", {"n_layers": 2, "norm": "layer"}),
    "srnn, norm": ("srnn", {"norm": "batch"}),
    "wave-ssm, deep": ("wave-ssm", {"n_layers": 2, "scheme": "exact", "dropout": 0.1}),
}
TYPES = {MODELS[name].config: name for name in reversed(MODELS)} | {None: MODEL}
"""The first name of each type of config: others only start otherwise."""
CASES = {name: (name, {}) for name in [*MODELS, MODEL] if name not in WHOLE} | VARIANTS
BATCH, STEPS, SIZE = 3, 6, 4
STARTS = np.zeros((BATCH, STEPS), bool)
STARTS[0, 2] = STARTS[1, [0, 1, 4]] = True
"""Packed sequences: of 2 and 4 steps; of 1, 3 and 2; one of 6."""
SIGNATURES = {read: Signature(SIZE, SIZE, STEPS, read) for read in ("all", "last")}
KEYS = jax.random.split(jax.random.key(0, impl="unsafe_rbg"), 2)  # Compiles several times faster than the default.


def tiny(name: str, **fields: Any) -> ModelConfig:
    own = entry(name).config.__dataclass_fields__
    settings = SIZES | {"n_layers": 1, "pooling": "last"} | fields
    return configure(name, **{field: value for field, value in settings.items() if field in own})


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


XS = normal(BATCH, STEPS, SIZE)


class Case(NamedTuple):
    config: ModelConfig
    model: Model
    """Read at every step."""
    variables: Variables
    results: dict[str, Any]
    """What one compiled program makes of it."""


def evaluated(config: ModelConfig, every: Model, last: Model, cut: int, members: Any, xs: Any) -> dict[str, Any]:
    """All that is looked at below, of the first of ``members``."""
    params, stats = variables = jax.tree.map(lambda leaf: leaf[0], members)
    training = Training(KEYS[0])
    outputs, stats_as_they_were = every.apply(variables, xs)

    def loss(params):
        trained, after = every.apply(Variables(params, stats), xs, training)
        return jnp.sum(trained * normal(*trained.shape)), (trained, after)

    gradient, (trained, after) = jax.grad(loss, has_aux=True)(params)
    # Their statistics differ from step to step, where there are some.
    streamed = every.stream and {
        "whole": every.apply(Variables(params, after), xs)[0],
        "parts": in_parts(last, Variables(params, after), xs, cut),
        "packed": every.apply(Variables(params, after), xs, None, STARTS)[0],
        "steps": by_steps(every, Variables(params, after), xs),
    }
    return {
        "streamed": streamed,
        "outputs": outputs,
        "last": last.apply(variables, xs)[0],
        "alone": every.apply(variables, xs[1:2])[0],
        "stats": stats_as_they_were,
        "trained": trained,
        "after": after,
        "gradient": gradient,
        "hidden": every.hidden and every.hidden(variables, xs),
        "stepwise": stepwise(config, params, xs),
        "members": jax.vmap(lambda variables: every.apply(variables, xs, training))(members),
    }


def in_parts(model: Model, variables: Variables, xs: Any, cut: int) -> Any:
    """The outputs of the steps before the cut, and of those after it."""
    carry, before = model.stream.run(variables, model.stream.start(variables, BATCH), xs[:, :cut])
    return jnp.concatenate([before, model.stream.run(variables, carry, xs[:, cut:])[1]], axis=1)


def by_steps(model: Model, variables: Variables, xs: Any) -> Any:
    """The outputs of packed sequences, one step at a time: each begins as the first did."""
    first = model.stream.start(variables, BATCH)

    def step(carry, now):
        x, starts = now
        begin = lambda new, old: jnp.where(jnp.expand_dims(starts, range(1, old.ndim)), new, old)  # noqa: E731
        carry, ys = model.stream.run(variables, jax.tree.map(begin, first, carry), x[:, None])
        return carry, ys[:, 0]

    _, ys = jax.lax.scan(step, first, (jnp.moveaxis(xs, 1, 0), STARTS.T))
    return jnp.moveaxis(ys, 0, 1)


def stepwise(config: ModelConfig, params: Any, xs: Any) -> Any:
    """The hidden states of a network that is one cell, by its step; None of others."""
    if not (hasattr(config, "cell") and getattr(config, "is_plain", True)):
        return None
    cell = config.cell(SIZE, 0)
    carry, states = cells.first_carry(cell, params["cell"], (BATCH,)), []
    for t in range(STEPS):
        carry, _ = cell.step(params["cell"], carry, xs[:, t])
        states.append(cell.hidden(carry))
    return jnp.stack(states, axis=1)


@pytest.fixture(scope="module", autouse=True)
def own(tmp_path_factory):
    """A model of one's own is there too."""
    with pytest.MonkeyPatch.context() as patch:
        write_model(tmp_path_factory.mktemp("own"), patch)
        yield


@pytest.fixture(scope="module", params=CASES)
def case(own, request):
    name, fields = CASES[request.param]
    config = tiny(name, **fields)
    every, last = (config.build(SIGNATURES[read]) for read in ("all", "last"))
    init = jax.jit(every.init)
    members = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(init, KEYS))
    cut = 1 + list(CASES).index(request.param) % (STEPS - 1)
    results = jax.jit(partial(evaluated, config, every, last, cut))(members, XS)
    return Case(config, every, init(KEYS[0]), results)


def close(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=1e-4, atol=1e-5)


def described(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def test_shapes_and_dtypes(case):
    results = case.results
    assert described(results["outputs"]) == ((BATCH, STEPS, SIZE), jnp.float32)
    assert described(results["last"]) == ((BATCH, SIZE), jnp.float32)
    close(results["last"], results["outputs"][:, -1])
    for stats in ("stats", "after"):
        assert described(results[stats]) == described(case.variables.stats)
    assert {leaf.dtype for leaf in jax.tree.leaves(case.variables)} == {jnp.dtype(jnp.float32)}
    assert np.isfinite(results["outputs"]).all()
    assert (case.model.hidden is None) == (results["hidden"] is None)
    if case.model.hidden:
        for states in results["hidden"].values():
            assert states.ndim == 4
            assert len(states) == BATCH
    for signature in SIGNATURES.values():
        require_fit("of:this", case.config.build(signature), signature)


def test_compiled_equals_eager(case):
    outputs, _ = case.model.apply(case.variables, XS)
    close(outputs, case.results["outputs"])


def test_sequences_know_nothing_of_each_other(case):
    close(case.results["alone"][0], case.results["outputs"][1])


def test_sequences_in_parts_are_the_whole_and_packed_ones_each_as_by_itself(case):
    assert (case.model.stream is None) == (case.results["streamed"] is None)
    if case.model.stream:
        streamed = case.results["streamed"]
        close(streamed["parts"], streamed["whole"])
        close(streamed["packed"], streamed["steps"])
        close(streamed["packed"][2], streamed["whole"][2])
        assert np.abs(streamed["packed"][:2] - streamed["whole"][:2]).max() > 1e-5


def test_training_differs_from_evaluation_where_that_is_declared(case):
    """By dropout, and by statistics, which evaluation leaves as they are."""
    results = case.results
    jax.tree.map(np.testing.assert_array_equal, results["stats"], case.variables.stats)
    keeps = bool(jax.tree.leaves(results["stats"]))
    if keeps or getattr(case.config, "dropout", 0):
        assert np.abs(results["trained"] - results["outputs"]).max() > 1e-3
    else:
        close(results["trained"], results["outputs"])  # Each is part of a program of its own, and may round so.
    pairs = zip(*map(jax.tree.leaves, (results["stats"], results["after"])), strict=True)
    assert all(np.any(before != after) for before, after in pairs)


def test_every_leaf_has_a_gradient(case):
    for path, leaf in jax.tree_util.tree_leaves_with_path(case.results["gradient"]):
        assert np.isfinite(leaf).all(), path
        assert np.any(leaf), path


def test_stepwise_equals_unrolled(case):
    if case.results["stepwise"] is not None:
        (hidden,) = case.results["hidden"].values()
        close(case.results["stepwise"], hidden)


def test_members_are_vmapped(case):
    own, members = (case.results["trained"], case.results["after"]), case.results["members"]
    jax.tree.map(close, jax.tree.map(lambda leaf: leaf[0], members), own)
    assert np.any(members[0][0] != members[0][1])


@pytest.mark.parametrize("name", [name for name in TYPES.values() if name not in WHOLE])
def test_a_resumed_run_is_the_same_to_the_bit_and_learns(name):
    task = copy_task(CopyConfig(T=0))
    trainer = make_trainer(tiny(name).build(task.signature), task, 8, devices=jax.local_devices()[:1])
    hparams = make_hparams(lr=1e-2, grad_clip=1.0)
    saved = jax.device_get(trainer.advance(trainer.init(0), hparams, 2))
    resumed, whole = (trainer.advance(state, hparams, 4) for state in (trainer.place(saved), trainer.init(0)))
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    losses = [float(whole.loss_sum)]
    for until in (24, 28):
        whole = trainer.advance(whole, hparams, until)
        losses.append(float(whole.loss_sum))
    assert whole.finite
    assert (losses[2] - losses[1]) < 0.97 * losses[0]


# Configs


def formula(config: ModelConfig) -> str:
    """Of its docstring, after ``Parameters:``."""
    return re.search(r"Parameters:\s+([^.;]+)[.;]", inspect.getdoc(type(config)))[1]


def count(config: ModelConfig, signature: Signature) -> int:
    """The formula, in numbers: factors stand side by side."""
    values = {letter: getattr(config, field, None) for letter, field in LETTERS.items()}
    values |= {"D": signature.inputs, "O": signature.outputs, "T": signature.length}
    side_by_side = r"(?<=[\dA-Za-z)²])(?=[A-Za-z(])"
    return eval(re.sub(side_by_side, "*", re.sub(r"\s", "", formula(config))).replace("²", "**2"), values)


@pytest.mark.parametrize("name", [*MODELS, MODEL])
def test_parameters_are_as_many_as_the_formula_says(name):
    for size, fields in ((SIZE, {}), (3, {"n_hid": 5})):
        config = dataclasses.replace(tiny(name), **fields)
        signature = Signature(size, size, STEPS, "last")
        found = count_parameters(jax.eval_shape(config.build(signature).init, KEYS[0]).params)
        assert found == count(config, signature), formula(config)


@pytest.mark.parametrize("name", [*MODELS, MODEL])
def test_config_is_documented_and_goes_through_json(name):
    known, config = entry(name), configure(name)
    assert (known.name, config.model) == (name, name)
    assert known.source
    assert {field.name for field in dataclasses.fields(config)} <= _sayings(known.config).keys()
    fields = json.loads(json.dumps(dataclasses.asdict(config)))
    again = configure(**fields)
    assert again == config
    assert hash(again) == hash(config)
    with pytest.raises(InvalidValue, match=f"^no_such = 1: must be left out: {name} has no no-such$"):
        configure(name, no_such=1)
