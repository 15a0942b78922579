"""The compiled loop: its step against one written by hand, its exactness, and what it does with bad numbers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import at_step, linear_map
from wrnn_jax.layers import Variables
from wrnn_jax.models import configure, stateless
from wrnn_jax.tasks import AddingConfig, CopyConfig, HDSConfig, Source, Split, adding_task, copy_task, hds_task
from wrnn_jax.training.loop import make_trainer
from wrnn_jax.training.optimizer import Hparams, divide_and_clip, make_hparams, make_optimizer
from wrnn_jax.training.state import with_best
from wrnn_jax.validation import InvalidValue

pytestmark = pytest.mark.usefixtures("standard_promotion")

TASK = copy_task(CopyConfig(T=3))
BATCH = 8


@pytest.fixture(scope="module")
def model():
    return linear_map(TASK.signature)


@pytest.fixture(scope="module")
def trainer(model):
    return make_trainer(model, TASK, BATCH)


def test_with_float64_on_a_state_keeps_its_types_and_a_batch_its_symbols():
    with jax.enable_x64(True):
        for task in (TASK, adding_task(AddingConfig(T=12)), hds_task(HDSConfig())):
            model = configure("wrnn", n_hid=7).build(task.signature)
            trainer, hparams = make_trainer(model, task, BATCH), Hparams(1e-3, 1.0)
            state = jax.eval_shape(trainer.init, 0)
            assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float64")}
            after = jax.eval_shape(trainer.advance, state, hparams, 3)
            metrics = jax.eval_shape(lambda state, of=trainer.evaluate: of(state, "test"), after)
            after = jax.eval_shape(trainer.observe, after, hparams, metrics)
            chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
        symbols, _ = TASK.batch(TASK.source, jax.random.key(0), at_step(0), BATCH)
    with jax.enable_x64(False):
        np.testing.assert_array_equal(symbols, TASK.batch(TASK.source, jax.random.key(0), at_step(0), BATCH)[0])


def learned(state):
    return state.params, state.opt_state


def test_steps_are_adam_with_clipping_written_out(model, trainer):
    """Three steps against the algorithm of Kingma and Ba in NumPy, on batches keyed by the step."""
    lr, clip = 1e-2, 0.05
    state = trainer.init(5)
    params, treedef = jax.tree.flatten(state.params)
    params = [np.asarray(leaf, np.float64) for leaf in params]
    m, v = [np.zeros_like(p) for p in params], [np.zeros_like(p) for p in params]
    key = jax.random.wrap_key_data(state.key)
    gradient_of = jax.jit(jax.grad(lambda at, x, y: TASK.loss(model.apply(Variables(at), x)[0], y)))
    for t in range(1, 4):
        inputs, targets = TASK.batch(TASK.source, key, at_step(t - 1), BATCH)
        at = jax.tree.unflatten(treedef, [jnp.asarray(p, jnp.float32) for p in params])
        gradient = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(gradient_of(at, inputs, targets))]
        norm = np.sqrt(sum((g**2).sum() for g in gradient))
        assert norm > clip, "the test is to clip"
        gradient = [g * clip / norm for g in gradient]
        m = [0.9 * m_ + 0.1 * g for m_, g in zip(m, gradient, strict=True)]
        v = [0.999 * v_ + 0.001 * g**2 for v_, g in zip(v, gradient, strict=True)]
        params = [
            p - lr * (m_ / (1 - 0.9**t)) / (np.sqrt(v_ / (1 - 0.999**t)) + 1e-8)
            for p, m_, v_ in zip(params, m, v, strict=True)
        ]
    state = trainer.advance(state, make_hparams(lr, clip), 3)
    for ours, expected in zip(jax.tree.leaves(state.params), params, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    assert int(state.step) == int(state.loss_count) == 3


def test_after_clipping_the_norm_is_the_bound_and_zero_means_off():
    """The same for Python's numbers and traced ones, in a vmap; a gradient of zeros stays one, whatever the clip."""
    gradient, zeros = ({"a": jnp.array([3.0, 4.0]) * scale, "b": jnp.array([12.0]) * scale} for scale in (1.0, 0.0))
    clips = jnp.array([2.0, 0.0, jnp.inf, 100.0, -1.0, jnp.nan])

    def clipped(grad_clip, gradient=gradient):
        return divide_and_clip(None, grad_clip).update(gradient, optax.EmptyState())[0]

    def member(tree, index):
        return jax.tree.map(lambda leaf: leaf[index], tree)

    traced, of_zeros = jax.vmap(clipped)(clips), jax.vmap(lambda clip: clipped(clip, zeros))(clips)
    np.testing.assert_allclose(optax.tree.norm(member(traced, 0)), 2.0, rtol=1e-6)
    for index, clip in enumerate(clips[:4].tolist()):
        chex.assert_trees_all_equal(member(traced, index), clipped(clip))
        chex.assert_trees_all_equal(member(of_zeros, index), zeros)
        if index:
            chex.assert_trees_all_equal(member(traced, index), gradient)
    for index, clip in enumerate(clips[4:].tolist(), start=4):  # What cannot be refused counts as divergence.
        assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(member(traced, index)))
        with pytest.raises(InvalidValue, match="0 or more"):
            make_optimizer(Hparams(0.1, clip))


def test_the_division_of_the_work_into_calls_changes_no_bit(trainer):
    hparams = make_hparams(1e-3, 1.0)
    whole = trainer.advance(trainer.init(0), hparams, 10)
    parts = trainer.init(0)
    for until in (1, 4, 4, 9, 10):
        parts = trainer.advance(parts, hparams, until)
    chex.assert_trees_all_equal(whole, parts)


def test_two_devices_do_what_one_does(model, trainer):
    assert jax.device_count() == 2
    hparams = make_hparams(1e-3, 1.0)
    one = make_trainer(model, TASK, BATCH, jax.devices()[:1])
    two = trainer
    # Seven sequences do not halve: one device does them.
    assert (two.mesh.shape["batch"], make_trainer(model, TASK, 7).mesh.shape["batch"]) == (2, 1)
    after_one, after_two = (trainer.advance(trainer.init(0), hparams, 5) for trainer in (one, two))
    chex.assert_trees_all_close(after_one.params, after_two.params, rtol=1e-4, atol=1e-6)
    metrics_one, metrics_two = (
        one.evaluate(after_one, "test"),
        two.evaluate(two.place(jax.device_get(after_one)), "test"),
    )
    chex.assert_trees_all_close(metrics_one, metrics_two, rtol=1e-5)


def test_nothing_is_compiled_twice(trainer):
    """Not for a second call, nor another number of steps, learning rate or clip, nor a placed state; by other tests."""
    state = trainer.init(0)
    for until, lr, clip in ((1, 1e-3, 1.0), (3, 1e-3, 1.0), (7, 1e-2, 1.0), (8, 1e-4, 0.0)):
        state, _ = trainer.drain(trainer.place(trainer.advance(state, make_hparams(lr, clip), until)))
        trainer.evaluate(state, "test")
    for function in (trainer.advance.func, trainer.drain.func, trainer.evaluate.func):
        assert function._cache_size() == 1


def test_hyper_parameters_are_traced_and_batch():
    """One vmap over learning rates and clips is as many runs, one by one."""
    params, gradient = {"w": jnp.array([1.0, -2.0])}, {"w": jnp.array([30.0, 40.0])}

    def update(hparams):
        optimizer = make_optimizer(hparams)
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        return optax.apply_updates(params, updates)

    pairs = [(1e-1, 0.0), (1e-2, 1.0), (1e-3, 1e-9, None, None, None, 1e9)]
    batch = jax.tree.map(lambda *leaves: jnp.array(leaves), *(make_hparams(*pair) for pair in pairs))
    together = jax.vmap(update)(batch)
    for at, pair in enumerate(pairs):
        chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[at], together), update(make_hparams(*pair)))  # noqa: B023


def test_learning_lowers_the_loss(trainer):
    state = trainer.init(0)
    before = float(trainer.evaluate(state, "test")["test_loss"])
    state = trainer.advance(state, make_hparams(1e-2, 1.0), 60)
    assert float(trainer.evaluate(state, "test")["test_loss"]) < before / 2


def test_the_mean_training_loss_is_that_of_the_batches(model, trainer):
    """With a learning rate of zero the parameters stand still, and each step's loss can be had apart."""
    state = trainer.init(1)
    params, key = jax.tree.map(jnp.array, state.params), jax.random.wrap_key_data(jnp.array(state.key))
    state = trainer.advance(state, make_hparams(0.0, 1.0), 4)
    loss = jax.jit(lambda inputs, targets: TASK.loss(model.apply(Variables(params), inputs)[0], targets))
    losses = [float(loss(*TASK.batch(TASK.source, key, at_step(step), BATCH))) for step in range(4)]
    assert len(set(losses)) == 4, "each step has a batch of its own"
    state, mean = trainer.drain(state)
    np.testing.assert_allclose(mean, np.mean(losses), rtol=1e-5)
    chex.assert_trees_all_equal(state.params, params)
    assert float(state.loss_sum) == int(state.loss_count) == 0


def test_a_run_that_diverges_stops_at_its_last_finite_state(model):
    """A model whose output is NaN once a weight has grown above 1.5."""

    def apply(params, xs):
        logits = params["w"] * jnp.ones((*xs.shape[:2], 10))
        return jnp.where(params["w"] > 1.0 + 1e-1 * 2.5, jnp.nan, logits)

    def loss(outputs, targets):
        return -outputs.mean()  # Adam then adds lr = 0.1 to the weight at every step.

    falling = stateless(lambda key: {"w": jnp.float32(1.0)}, apply)
    trainer = make_trainer(falling, TASK._replace(loss=loss), BATCH)
    hparams = make_hparams(1e-1, 0.0)
    state = trainer.advance(trainer.init(0), hparams, 100)
    assert not state.finite
    assert int(state.step) == int(state.loss_count) == 3
    chex.assert_trees_all_equal(learned(state), learned(trainer.advance(trainer.init(0), hparams, 3)))


def test_an_update_that_overflows_counts_as_divergence(trainer):
    before = jax.tree.map(jnp.array, trainer.init(0).params)
    state = trainer.advance(trainer.init(0), make_hparams(3e38, 0.0), 10)
    assert not state.finite
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    if int(state.step) == 0:
        chex.assert_trees_all_equal(state.params, before)


def test_frozen_parts_stay_as_they_were():
    """Weight decay included."""
    config = configure("wrnn", n_hid=7, n_ch=2, freeze_encoder=True, freeze_recurrence=True)
    trainer = make_trainer(config.build(TASK.signature), TASK, BATCH)
    before = jax.tree.map(jnp.array, trainer.init(0).params)
    after = trainer.advance(trainer.init(0), make_hparams(1e-1, 1.0, None, None, 1e-3), 3).params
    chex.assert_trees_all_equal(after["cell"], before["cell"])
    assert np.abs(after["readout"]["output"]["kernel"] - before["readout"]["output"]["kernel"]).min() > 0


def table_task(sizes, score=None):
    """A task whose every sequence is a number, which an identity "model" hands on: means are then known."""
    numbers = {name: jnp.arange(size, dtype=jnp.float32) ** 2 for name, size in sizes.items()}

    def split(name):
        def examples(source, indices):
            return source.data[name][indices][:, None, None], indices

        return Split(sizes[name], examples, lambda outputs, targets: {f"{name}_loss": outputs[:, 0, 0]})

    return TASK._replace(
        batch=lambda source, key, progress, size: (jnp.ones((size, 1, 1)), jnp.zeros(size)),
        loss=lambda outputs, targets: outputs.mean(),
        splits={name: split(name) for name in sizes},
        monitor=f"{next(iter(sizes))}_loss",
        score=score,
        source=Source(numbers),
    )


WEIGHT = stateless(lambda key: {"w": jnp.float32(1.0)}, lambda params, xs: params["w"] * xs)


@pytest.mark.parametrize("size", [1, 7, 128, 129, 513])
def test_an_evaluation_is_the_mean_over_exactly_the_split(size):
    """Whatever its size is to the slices and the devices that it is cut up for."""
    trainer = make_trainer(WEIGHT, table_task({"test": size}), 2)
    expected = np.mean(np.arange(size, dtype=np.float64) ** 2)
    np.testing.assert_allclose(trainer.evaluate(trainer.init(0), "test")["test_loss"], expected, rtol=1e-5)


def test_the_best_parameters_are_those_of_the_first_greatest_score():
    trainer = make_trainer(WEIGHT, table_task({"val": 4, "test": 4}, score="val_acc"), 2)
    hparams = make_hparams(1e-1, 0.0)
    state = trainer.init(0)
    assert int(with_best(state).best.step) == 0
    kept = {}
    for step, score in ((1, 0.3), (2, 0.7), (3, 0.7), (4, np.nan), (5, 0.5)):
        state = trainer.advance(state, hparams, step)
        kept[step] = float(state.params["w"])
        state = trainer.observe(state, hparams, {"val_loss": jnp.float32(1.0), "val_acc": jnp.float32(score)})
    assert len(set(kept.values())) == 5, "every step moves the weight"
    assert (int(state.best.step), float(state.best.score)) == (2, pytest.approx(0.7))
    assert float(with_best(state).params["w"]) == kept[2]
    assert float(state.params["w"]) == kept[5], "training itself goes on from where it was"
    # What is evaluated then are the best parameters: the mean of squares 0, 1, 4, 9, times the weight.
    test = trainer.evaluate(with_best(state), "test")["test_loss"]
    np.testing.assert_allclose(test, 3.5 * kept[2], rtol=1e-6)


def test_data_are_arguments_of_the_program_and_not_constants_in_it():
    task = table_task({"test": 100_000})
    trainer = make_trainer(WEIGHT, task, 2)
    state = trainer.init(0)
    for lowered in (
        trainer.advance.func.lower(*trainer.advance.args, state, make_hparams(1e-3, 1.0), 3),
        trainer.evaluate.func.lower(*trainer.evaluate.args, state, "test"),
    ):
        assert len(lowered.as_text()) < 400_000, "a constant of 100,000 numbers takes 800,000 characters"


def test_a_batch_larger_than_an_epoch_is_refused(model):
    with pytest.raises(ValueError, match=r"^batch = 8: must be at most 5, the training set"):
        make_trainer(model, TASK._replace(train_size=5), BATCH)
    with pytest.raises(ValueError, match=r"^schedule = 'warm': must be one of constant, step"):
        make_trainer(model, TASK, BATCH, schedule="warm")
