"""Learning-rate schedules against their formulas, Optax's own, and as parts of a run."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wrnn_jax import models
from wrnn_jax.models import ModelConfig
from wrnn_jax.tasks import CopyConfig, copy_task
from wrnn_jax.training.config import EpochsConfig, TrainConfig
from wrnn_jax.training.loop import make_trainer
from wrnn_jax.training.optimizer import SCHEDULES, Hparams, make_optimizer

pytestmark = pytest.mark.usefixtures("standard_promotion")

STEPS = np.arange(0, 260, 7)


def multiplier(schedule, factor, period, drops=0):
    hparams = Hparams(1.0, np.inf, factor, period)
    return np.array([SCHEDULES[schedule](hparams, jnp.float32(step), jnp.float32(drops)) for step in STEPS])


def test_schedules_are_what_the_same_ones_of_optax_are():
    expected = {
        "step": optax.exponential_decay(1.0, 40, 1 / 3.33, staircase=True),
        "exponential": optax.exponential_decay(1.0, 40, 1 / 3.33),
        "cosine": optax.cosine_decay_schedule(1.0, 40),
        "one-cycle": optax.cosine_onecycle_schedule(40, 1.0, 0.3, 3.33, 1e4),
        "constant": optax.constant_schedule(1.0),
    }
    for name, schedule in expected.items():
        ours, theirs = multiplier(name, 3.33, 40.0), np.array([schedule(step) for step in STEPS])
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6, err_msg=name)


def test_plateau_divides_once_for_every_drop():
    for drops in range(3):
        np.testing.assert_allclose(multiplier("plateau", 10.0, 5.0, drops), 10.0**-drops, rtol=1e-6)


def test_the_optimiser_multiplies_its_learning_rate():
    params, gradient = {"w": jnp.ones(3)}, {"w": jnp.array([0.1, 0.2, -0.3])}
    plain = make_optimizer(Hparams(1e-2, np.inf))
    scheduled = make_optimizer(Hparams(1e-2, np.inf, 10.0, 2.0), "step")
    states = plain.init(params), scheduled.init(params)
    for step in range(6):
        updates, after = zip(
            *(o.update(gradient, s) for o, s in zip((plain, scheduled), states, strict=True)), strict=True
        )
        states = after
        expected = jax.tree.map(lambda leaf, step=step: leaf * 10.0 ** -(step // 2), updates[0])
        chex.assert_trees_all_close(updates[1], expected, rtol=1e-5)


def test_weight_decay_adds_its_gradient_after_the_clip():
    """λθ is the gradient of ½ λ ‖θ‖², here of the size of the clipped gradient, and of the other sign in one place."""
    params, gradient = {"w": jnp.array([1.0, -2.0, 3.0])}, {"w": jnp.array([300.0, 400.0, 0.0])}
    decayed = make_optimizer(Hparams(1e-2, 1.0, weight_decay=0.5))
    plain = make_optimizer(Hparams(1e-2, np.inf))
    by_hand = {"w": jnp.array([0.6 + 0.5, 0.8 - 1.0, 1.5])}
    got, expected = decayed.init(params), plain.init(params)
    for _ in range(3):
        updates, got = decayed.update(gradient, got, params)
        others, expected = plain.update(by_hand, expected, params)
        chex.assert_trees_all_close(updates, others, rtol=1e-5)


@pytest.fixture(scope="module")
def trainer():
    task = copy_task(CopyConfig(T=1))
    model = models.build(ModelConfig(n_hid=5, n_ch=2), task.input_size, task.output_size, task.outputs)
    return make_trainer(model, task, 4, schedule="plateau")


def test_plateau_drops_after_as_many_evaluations_without_improvement(trainer):
    """By hand, patience 2: an improvement must be of a relative 1e-4, and a drop begins the count anew."""
    hparams = Hparams(1e-2, np.inf, 10.0, 2.0)
    state, seen = trainer.init(0), []
    for loss in (1.0, 0.9, 0.9, 0.89999, 0.95, 0.85, np.nan, 0.86, 0.87, 0.88):
        state = trainer.observe(state, hparams, {"test_loss": jnp.float32(loss)})
        seen.append(int(state.plateau.drops))
    assert seen == [0, 0, 0, 1, 1, 1, 1, 2, 2, 3]
    assert float(state.plateau.lowest) == pytest.approx(0.85)
    assert int(state.plateau.stale) == 4, "a drop does not make the lowest loss younger"


def test_a_drop_lowers_the_steps_that_follow(trainer):
    hparams = Hparams(1e-2, np.inf, 10.0, 1.0)

    def largest_move(drops):
        state = trainer.init(0)
        for loss in [1.0] * (drops + 1):
            state = trainer.observe(state, hparams, {"test_loss": jnp.float32(loss)})
        before = jax.tree.map(jnp.array, state.params)
        after = trainer.advance(state, hparams, 1).params
        return max(float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (after, before)), strict=True))

    # Adam's first step is the learning rate itself.
    assert largest_move(0) == pytest.approx(1e-2, rel=1e-3)
    assert largest_move(2) == pytest.approx(1e-4, rel=1e-2)


def test_factor_and_period_are_traced(trainer):
    """A grid can vary them: one program for all values."""
    state = trainer.init(0)
    for until, (factor, period) in enumerate([(2.0, 3.0), (10.0, 7.0)], start=1):
        state = trainer.advance(state, Hparams(1e-3, 1.0, factor, period), until)
    assert trainer.advance.func._cache_size() == 1
    hparams = Hparams(jnp.ones(2), jnp.ones(2), jnp.array([2.0, 4.0]), jnp.array([1.0, 2.0]))
    rates = jax.vmap(lambda hparams: SCHEDULES["step"](hparams, jnp.float32(4), jnp.float32(0)))(hparams)
    np.testing.assert_allclose(rates, [2.0**-4, 4.0**-2])


def test_what_is_not_given_is_resolved_in_epochs_or_steps():
    train = TrainConfig(schedule="cosine", max_steps=700).resolved(None)
    assert (train.lr_period, train.hparams(None).lr_period) == (700, 700)
    epochs = EpochsConfig(schedule="cosine", epochs=12).resolved(445)
    assert (epochs.max_steps, epochs.log_interval, epochs.checkpoint_interval) == (12 * 445, 445, 445)
    assert (epochs.lr_period, epochs.hparams(445).lr_period) == (12, 12 * 445)
    shorter = EpochsConfig(epochs=12, max_steps=100).resolved(445)
    assert shorter.max_steps == 100
    step = EpochsConfig(schedule="step", lr_period=40.0).resolved(10)
    assert (step.lr_factor, step.hparams(10).lr_factor, step.hparams(10).lr_period) == (10, 10, 400)
    plateau = EpochsConfig(schedule="plateau").resolved(10)
    assert (plateau.lr_period, plateau.hparams(10).lr_period) == (10, 10), "evaluations, not epochs"
    exponential = EpochsConfig(schedule="exponential", lr_period=1.0).resolved(10).hparams(10)
    lr = SCHEDULES["exponential"](exponential, jnp.float32(20), jnp.float32(0))
    assert float(lr) == pytest.approx(0.97**2), "0.97 an epoch"


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("schedule", {"schedule": "linear"}),
        ("lr_factor", {"lr_factor": 2.0}),
        ("lr_factor", {"schedule": "cosine", "lr_factor": 2.0}),
        ("lr_factor", {"schedule": "step", "lr_period": 1.0, "lr_factor": 0.1}),
        ("lr_factor", {"schedule": "step", "lr_period": 1.0, "lr_factor": float("inf")}),
        ("lr_period", {"lr_period": 3.0}),
        ("lr_period", {"schedule": "step"}),
        ("lr_period", {"schedule": "step", "lr_period": 0.0}),
    ],
)
def test_what_a_schedule_cannot_use_is_refused_by_name(field, options):
    with pytest.raises(ValueError, match=f"^{field} = "):
        TrainConfig(**options)
